package transactions

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The stage is what lets the model direct the real code. Each request, recovery
// round and decision of a person is an actor: a goroutine in the product's own
// functions. The stage stops it at the places where a process may be paused, or
// die, and lets it go on when the model says so. Between two steps everybody
// stands still, so a run depends on what rapid drew and on nothing else.

// point is a place where a holder may stop.
type point string

const (
	nowhere        point = ""
	beforeLook     point = "before it reads the nonce"
	afterLook      point = "after it read the nonce"
	beforeEndLife  point = "before it ends the old life"
	beforeTakeOver point = "before it takes over"
	beforeReread   point = "before it re-reads the holder"
	beforeSend     point = "before it looks at the clock to send"
	beforeWire     point = "between the clock and the wire"
	beforeAsk      point = "before it asks"
	beforeVoid     point = "before it voids"
	afterAnswer    point = "with the provider's answer in hand"
)

// atProvider says whether a holder can die at p. Elsewhere it stands inside the
// database driver, and has done nothing that it had not done at the point before.
func (p point) atProvider() bool {
	return p == beforeSend || p == beforeWire || p == beforeAsk || p == beforeVoid || p == afterAnswer
}

// plan is what a holder will meet until it ends or stops. The zero plan is a good
// day: nobody stops, the provider books and tells the truth.
type plan struct {
	stop  point
	die   bool // rather than stop, if it can die there
	send  fate
	ask   fate
	void  fate
	lose  string // the statement whose answer is lost on its way back
	never bool   // and it had not even arrived
}

// stage holds those who stand still.
type stage struct {
	mu      sync.Mutex
	waiting []*holder
	driven  *actor // the one request that moves, if a request moves
	step    int
	met     map[string]int // what happened how often

	lending sync.Mutex
	side    *pgx.Conn // the model's own connection
}

func (s *stage) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.met[what]++
}

// actor is one goroutine of ours, and those that it starts.
type actor struct {
	stage  *stage
	id     int
	name   string
	round  bool // a recovery round: one holder a transaction
	plan   plan
	proc   *process
	holder map[string]*holder // by transaction, or "" for the only one
	looked bool
	ended  bool
	died   bool
	nonce  *nonce // of a request
	frozen bool   // its process died while it stood in the database driver
	told   *told
}

type actorKey struct{}

func actorOf(ctx context.Context) *actor {
	a, _ := ctx.Value(actorKey{}).(*actor)
	return a
}

// holder is an actor at work on one transaction.
type holder struct {
	actor   *actor
	ref     string // the transaction, once it is known
	plan    plan
	at      point
	wake    chan struct{}
	dead    bool
	claimed time.Time // when it became the holder
	since   int       // and in which step
}

// as is the holder that a is for a transaction.
func (a *actor) as(ref string) *holder {
	a.stage.mu.Lock()
	defer a.stage.mu.Unlock()
	key := ""
	if a.round {
		key = ref
	}
	h := a.holder[key]
	if h == nil {
		h = &holder{actor: a, plan: a.plan, wake: make(chan struct{})}
		a.holder[key] = h
	}
	if ref != "" {
		h.ref = ref
	}
	return h
}

// reach is called wherever a holder may stop. Whoever dies there does not return.
func (h *holder) reach(p point) {
	s := h.actor.stage
	s.mu.Lock()
	stops := h.plan.stop == p && !h.dead
	if stops && h.plan.die && p.atProvider() {
		h.dead, h.actor.died = true, true
		s.met["died "+string(p)]++
	}
	if !stops || h.dead {
		dead := h.dead
		s.mu.Unlock()
		if dead && p.atProvider() {
			runtime.Goexit()
		}
		return
	}
	h.at, h.plan.stop = p, nowhere
	s.waiting = append(s.waiting, h)
	s.met["stopped "+string(p)]++
	s.mu.Unlock()
	<-h.wake
	if h.dead && p.atProvider() {
		runtime.Goexit()
	}
}

// stopped are those who stand still and can be moved, always in the same order.
func (s *stage) stopped() []*holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hs []*holder
	for _, h := range s.waiting {
		if !h.actor.frozen {
			hs = append(hs, h)
		}
	}
	slices.SortFunc(hs, func(a, b *holder) int {
		return cmp.Or(cmp.Compare(a.actor.id, b.actor.id), cmp.Compare(a.ref, b.ref))
	})
	return hs
}

// free lets a holder go on, or die where it stands.
func (s *stage) free(h *holder, p plan, dies bool) {
	s.mu.Lock()
	h.plan, h.at = p, nowhere
	if dies {
		h.dead, h.actor.died = true, true
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(w *holder) bool { return w == h })
	s.mu.Unlock()
	s.drive(h.actor)
	h.wake <- struct{}{}
}

// drive notes which request moves from now on.
func (s *stage) drive(a *actor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.driven = a
	if a != nil && a.round {
		s.driven = nil
	}
}

// looking is called where the code reads a provider's traits. Between reading a
// nonce and taking its transaction over, that is the only moment that a test can
// see; a process may well stop there.
func (s *stage) looking() {
	s.mu.Lock()
	a := s.driven
	looked := a != nil && a.looked // whoever drives may be another than who looks
	s.mu.Unlock()
	if looked {
		a.as("").reach(afterLook)
	}
}

// TraceQueryStart sees every statement of the product's, just before it is sent.
func (s *stage) TraceQueryStart(ctx context.Context, conn *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	a := actorOf(ctx)
	if a == nil {
		return ctx
	}
	name, params := statement(q)
	switch name {
	case "begin":
		s.claims(a.as(params.text(5)))
	case "read_key":
		a.as("").reach(beforeLook)
		s.mu.Lock()
		a.looked = true
		s.mu.Unlock()
	case "end_life":
		a.as("").reach(beforeEndLife)
	case "take_over":
		h := a.as(params.text(1))
		h.reach(beforeTakeOver)
		s.claims(h)
	case "holding":
		a.as(params.text(1)).reach(beforeReread)
	case "finish", "leave":
		a.as(params.text(1))
	default:
		return ctx
	}
	s.perhapsLose(ctx, a, name, conn, q, params)
	return ctx
}

// TraceQueryEnd completes pgx.QueryTracer.
func (s *stage) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// claims notes when somebody becomes a holder: the earliest moment from which the
// code may count its time to send.
func (s *stage) claims(h *holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.claimed, h.since = time.Now(), s.step
}

// perhapsLose loses the answer to a statement that commits. The statement is
// executed beside it, then its own connection is deaf: it sends the statement
// once more, which no longer matches anything, and hears the line break. If the
// first had never arrived, only a take-over with a fence that nobody has is sent.
func (s *stage) perhapsLose(ctx context.Context, a *actor, name string, conn *pgx.Conn, q pgx.TraceQueryStartData, params parameters) {
	h := a.as(params.transaction(name))
	if name == "" || h.plan.lose != name || h.dead {
		return
	}
	line, ok := conn.PgConn().Conn().(interface{ CloseRead() error })
	if !ok {
		return
	}
	s.mu.Lock()
	never := h.plan.never && name == "take_over"
	h.plan.lose = ""
	s.met["lost the answer to "+name]++
	s.mu.Unlock()
	if never {
		params[2] = int64(-1)
	} else {
		s.lending.Lock()
		defer s.lending.Unlock()
		rows, err := s.side.Query(context.WithoutCancel(ctx), q.SQL, q.Args...)
		if err != nil {
			return
		}
		rows.Close()
	}
	_ = line.CloseRead()
}

// parameters are a statement's, the first at 0.
type parameters []any

func (p parameters) text(i int) string {
	if i >= len(p) {
		return ""
	}
	switch v := p[i].(type) {
	case string:
		return v
	case uuid.UUID: // the driver encodes it, so it arrives here as it was given
		return v.String()
	}
	return ""
}

// transaction is the parameter of a statement that names the transaction.
func (p parameters) transaction(name string) string {
	switch name {
	case "begin":
		return p.text(5)
	case "take_over", "finish", "leave", "holding":
		return p.text(1)
	}
	return ""
}

// statement is the name that a statement begins with, and what it is asked with.
func statement(q pgx.TraceQueryStartData) (name string, params parameters) {
	name, _, _ = strings.Cut(strings.TrimPrefix(q.SQL, "/* transactions."), " ")
	params = q.Args
	if len(params) > 0 {
		if _, option := params[0].(pgx.QueryResultFormatsByOID); option {
			params = params[1:]
		}
	}
	return name, params
}
