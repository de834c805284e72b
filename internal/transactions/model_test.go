package transactions

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// The model test directs the real service, on a real database, through random
// interleavings of everything that may happen to a few nonces, and holds the
// promises against the provider's books after every step.
//
// Time is the part that must not be wrong, or a double charge found here would
// mean nothing. There are two clocks, as in production: the database's, and the
// monotonic one of each process, by which a holder judges whether it may still
// send. A case runs in a bubble of testing/synctest, so the second moves only
// when the model says so; and whenever it does, all of the case's rows move into
// the past by as much. What a step itself took on the database's clock is given
// back to the rows after it. So both clocks always agree, nobody waits, and the
// product's own deadlines are what decides.

// Terms of every case. The lease is drawn: a long one ends after most sends have
// arrived, a short one long before.
const (
	modelTimeout   = 2 * time.Second
	modelSettle    = 4 * time.Second
	modelWindow    = 45 * time.Second // where a provider forgets references
	modelRetention = 2 * time.Minute
	// edge is how far before or after a deadline the model jumps: more than a step
	// takes on a slow machine, less than anything that is waited for.
	edge = 300 * time.Millisecond
	// crowd bounds how many stand still at once. Some of them hold a connection.
	crowd      = 8
	modelConns = 50
	// maxNonces bounds how many keys a case uses, one after the other.
	maxNonces = 8
)

// model is one case.
type model struct {
	rt    *rapid.T
	db    *postgres.DB
	stage *stage
	bank  *bank

	account uuid.UUID
	keys    []string
	auth    *merchants.Service
	policy  idem.Policy
	lease   time.Duration
	procs   [2]*process
	beats   map[uuid.UUID]bool // instances, and whether they still beat

	nonces []*nonce
	lives  map[string]*life // by transaction
	order  []*life          // the oldest first
	began  time.Time
	anchor time.Time // the database's clock, when the rows were last put right

	actors  []*actor // that have not ended, or whose answer was not looked at yet
	started int
	running sync.WaitGroup
}

// process is one instance of the API.
type process struct {
	number  int
	service *Service
	handler http.Handler
	lease   time.Duration
	silent  bool
}

// nonce is one key that the model's merchant uses.
type nonce struct {
	name  string
	order string
	lives []*life

	same, other, broken []byte // bodies
}

// told is what one request was answered.
type told struct {
	nonce    *nonce
	status   int
	body     []byte
	replayed bool
}

// figures are gathered over all cases of a test.
type figures struct {
	cases, steps int
	met          map[string]int
}

func (f figures) String() string {
	names := make([]string, 0, len(f.met))
	for name := range f.met {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	fmt.Fprintf(&b, "%d cases (those of shrinking included), %d steps", f.cases, f.steps)
	for _, name := range names {
		fmt.Fprintf(&b, "\n%7d %s", f.met[name], name)
	}
	return b.String()
}

func TestH69WhateverHappensOneNonceMovesMoneyOnce(t *testing.T) {
	t.Parallel()
	interleave(t, func(*rapid.T, *bank) {})
}

func TestH70ARefusedConnectionReleasesOnlyTheFirstAttempt(t *testing.T) {
	t.Parallel()
	interleave(t, func(rt *rapid.T, b *bank) {
		b.down = rapid.UintRange(1, 1<<(attemptsTold-1)-1).Draw(rt, "later attempts whose connection is refused") << 1
		if rapid.IntRange(0, 3).Draw(rt, "the first too") == 3 { // then its nonce is free again, and that is all
			b.down |= 1
		}
	})
}

// interleave checks cases that set up their provider by prepare.
func interleave(t *testing.T, prepare func(*rapid.T, *bank)) {
	url := pgtest.URL(t)
	all := figures{met: map[string]int{}}
	begun := time.Now()
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			m := newModel(t, rt, url)
			prepare(rt, m.bank)
			defer func() {
				m.end()
				all.cases++
				all.steps += m.stage.step
				for what, n := range m.stage.met {
					all.met[what] += n
				}
			}()
			m.say("%s", m.setting())
			rt.Repeat(map[string]func(*rapid.T){"": m.check, "step": m.move})
			m.drain()
		})
	})
	t.Logf("%s\n%.0f steps a second", all, float64(all.steps)/time.Since(begun).Seconds())
}

// newModel sets up one case in the database at url.
func newModel(t *testing.T, rt *rapid.T, url string) *model {
	ctx := context.Background() // the bubble's own would end before the model has tidied up
	s := &stage{met: map[string]int{}}
	m := &model{rt: rt, stage: s, beats: map[uuid.UUID]bool{}, lives: map[string]*life{}, began: time.Now()}
	var err error
	if s.side, err = pgx.Connect(ctx, pgtest.Direct(url)); err != nil {
		rt.Fatal(err)
	}
	if m.db, err = postgres.Open(ctx, url, pgtest.Options(url, postgres.Options{Tracer: s, MaxConns: modelConns})); err != nil {
		rt.Fatal(err)
	}
	m.bank = newBank(s, drawTraits(rt))
	m.lease = rapid.SampledFrom([]time.Duration{30 * time.Second, modelTimeout + LeaseMargin}).Draw(rt, "lease")
	m.policy = presets().Of(idem.DefaultPolicy)
	m.policy.Retention = modelRetention
	switch rapid.SampledFrom([]string{"yuno", "yuno", "yuno", "yuno", "yuno", "yuno", "keeps errors", "minds bodies"}).Draw(rt, "policy") {
	case "keeps errors":
		m.policy.KeepErrors = true
	case "minds bodies":
		m.policy.KeepErrors, m.policy.IgnoreRetryBody, m.policy.MismatchHeader = true, false, ""
	}
	m.auth = merchants.NewService(m.db, []string{idem.DefaultPolicy})
	merchant, pair, err := m.auth.Create(ctx, "A merchant", "")
	if err != nil {
		rt.Fatal(err)
	}
	m.account, m.keys = merchant.AccountID, keys(pair)
	w := world{t: t, account: m.account}
	for i := range maxNonces {
		n := &nonce{name: string(rune('a' + i)), order: fmt.Sprintf("order-%d", i)}
		capture := i%2 == 0
		n.same = w.body(n.order, map[string]any{"capture": capture})
		n.other = w.body(n.order, map[string]any{"capture": capture, "amount": 99})
		n.broken = w.body(n.order, map[string]any{"capture": capture, "country": nil})
		m.nonces = append(m.nonces, n)
	}
	for i := range m.procs {
		m.procs[i] = m.start(i)
	}
	m.pass(0)
	return m
}

// setting is what a case's story begins with.
func (m *model) setting() string {
	t := m.bank.traits
	return fmt.Sprintf("provider: idempotent=%t (for %s), queryable=%t, can void=%t, attempts refused=%05b; lease %s; keeps errors=%t, ignores bodies=%t",
		t.Idempotent, t.IdempotentFor, t.Queryable, t.CanVoid, m.bank.down, m.lease, m.policy.KeepErrors, m.policy.IgnoreRetryBody)
}

func drawTraits(rt *rapid.T) providers.Traits {
	t := providers.Traits{Timeout: modelTimeout, Settle: modelSettle}
	t.Idempotent = rapid.IntRange(0, 2).Draw(rt, "idempotent") > 0
	t.Queryable = rapid.IntRange(0, 3).Draw(rt, "queryable") > 0 // where nobody can ask, less happens
	t.CanVoid = rapid.IntRange(0, 2).Draw(rt, "can void") == 2
	if t.Idempotent && rapid.Bool().Draw(rt, "forgets references") {
		t.IdempotentFor = modelWindow
	}
	return t
}

// start starts a process of the API: all of it, but for the listener.
func (m *model) start(number int) *process {
	log := slog.New(slog.DiscardHandler)
	prints, err := idem.NewFingerprinter(testSecret, nil)
	if err != nil {
		m.rt.Fatal(err)
	}
	p := &process{number: number, lease: m.lease}
	p.service, err = NewService(Options{
		DB: m.db, Arrivals: idem.NewArrivals(m.db, log), Lease: m.lease, Fingerprints: prints, Log: log,
		Providers: providers.NewRegistry(map[string]providers.Provider{merchants.Test: m.bank}),
		Policies:  only(m.policy.Name, func(p *idem.Policy) { *p = m.policy }),
	})
	if err != nil {
		m.rt.Fatal(err)
	}
	if _, err := p.service.Beat(context.Background()); err != nil {
		m.rt.Fatal(err)
	}
	m.beats[p.service.instance] = true
	e := httpapi.New(httpapi.Options{Log: log, Transient: postgres.IsTransient, Describe: postgres.Describe})
	NewHandler(p.service, m.auth).Mount(e)
	p.handler = apitest.Handler(m.rt, e)
	return p
}

// end lets nobody stand and leaves the database as it was.
func (m *model) end() {
	ctx := context.Background()
	for _, h := range slices.Clone(m.stage.waiting) {
		m.stage.free(h, plan{}, true)
	}
	m.running.Wait()
	batch := &pgx.Batch{}
	for _, table := range []string{
		"authorizations", "watches", "callbacks", "idempotency_keys", "events", "provider_calls", "provider_observations", "resolutions", "takeovers",
		"transactions", "payments", "arrivals", "api_keys", "merchants",
	} {
		batch.Queue(`DELETE FROM `+table+` WHERE account_id = $1`, m.account)
	}
	batch.Queue(`DELETE FROM instances`)
	if err := m.stage.side.SendBatch(ctx, batch).Close(); err != nil {
		m.rt.Errorf("tidy up: %v", err)
	}
	_ = m.stage.side.Close(ctx)
	m.db.Close()
}

// say adds a line to the story that a failed case tells.
func (m *model) say(format string, args ...any) {
	m.rt.Logf("%4d  %8s  %s", m.stage.step, m.now().Round(100*time.Millisecond), fmt.Sprintf(format, args...))
}

// now is the model's time, since the case began.
func (m *model) now() time.Duration { return time.Since(m.began) }

// act starts an actor and waits until everybody stands still again.
func (m *model) act(name string, p *process, pl plan, round bool, f func(ctx context.Context)) *actor {
	m.started++
	a := &actor{
		stage: m.stage, id: m.started, name: name, round: round, plan: pl, proc: p, holder: map[string]*holder{},
	}
	m.actors = append(m.actors, a)
	m.say("%d: %s on %d%s", a.id, name, p.number, pl)
	m.stage.drive(a)
	ctx := context.WithValue(context.Background(), actorKey{}, a)
	m.running.Go(func() {
		defer func() { a.ended = true }()
		f(ctx)
	})
	m.rest()
	return a
}

// rest waits until nobody moves. Who then neither stands nor has ended waits for
// a moment before it saves once more: that moment passes.
func (m *model) rest() {
	for range 10 {
		synctest.Wait()
		if !m.someoneNaps() {
			m.stage.drive(nil)
			return
		}
		m.pass(200 * time.Millisecond)
	}
	m.rt.Fatalf("somebody neither ends nor stops")
}

func (m *model) someoneNaps() bool {
	stands := map[*actor]bool{}
	for _, h := range m.stage.waiting {
		stands[h.actor] = true
	}
	return slices.ContainsFunc(m.actors, func(a *actor) bool { return !a.ended && !stands[a] })
}

// pass lets time pass: on the database's clock by moving the rows, on those of
// the processes by sleeping. Processes that live and are not silent beat.
func (m *model) pass(d time.Duration) {
	var all, beating []uuid.UUID
	for id, beats := range m.beats {
		all = append(all, id)
		if beats {
			beating = append(beating, id)
		}
	}
	m.stage.mu.Lock()
	m.stage.step++
	m.stage.mu.Unlock()
	var anchor *time.Time
	if !m.anchor.IsZero() {
		anchor = &m.anchor
	}
	if err := m.stage.side.QueryRow(context.Background(), sqlPass, m.account, anchor, d.Microseconds(), all, beating).Scan(&m.anchor); err != nil {
		m.rt.Fatalf("let time pass: %v", err)
	}
	time.Sleep(d) //nolint:forbidigo // the bubble's clock; nobody waits
}

// sqlPass moves all rows of a case ($1) by what the last step took on the
// database's clock since $2, less what passes ($3). What was written as "now" in
// that step is now.
var sqlPass = `WITH clock AS MATERIALIZED (
    SELECT at, coalesce($2::timestamptz, at) AS since, $3::bigint * interval '1 microsecond' AS passed FROM clock_timestamp() AS at
), t AS (
    UPDATE transactions SET ` + moved("lease_until", "may_send_until", "next_attempt_at", "parked_at", "created_at") + `
    FROM clock WHERE account_id = $1
), k AS (
    UPDATE idempotency_keys SET ` + moved("created_at", "expires_at") + ` FROM clock WHERE account_id = $1
), i AS (
    UPDATE instances SET beat_at = CASE WHEN id = ANY($5::uuid[]) THEN at ELSE beat_at + (at - since) - passed END
    FROM clock WHERE id = ANY($4::uuid[])
)
SELECT at FROM clock`

func moved(columns ...string) string {
	for i, c := range columns {
		columns[i] = fmt.Sprintf("%s = CASE WHEN %s > since AND %s <= at THEN at ELSE %s + (at - since) END - passed", c, c, c, c)
	}
	return strings.Join(columns, ", ")
}

// move is one step. What cannot happen now is not drawn.
func (m *model) move(rt *rapid.T) {
	m.rt = rt
	var moves []func()
	add := func(weight int, possible bool, f func()) {
		for range weight {
			if possible {
				moves = append(moves, f)
			}
		}
	}
	stopped, open := len(m.stage.stopped()), len(m.unresolved())
	add(7, stopped < crowd, m.request)
	add(6, stopped > 0, m.wake)
	add(6, len(m.order) > 0, m.wait)
	add(4, open > 0 && stopped < crowd, m.recover)
	add(4, len(m.bank.underway()) > 0, m.arrival)
	add(2, len(m.mortal()) > 0, m.death)
	add(2, len(m.bank.undecided()) > 0, m.decision)
	add(1, open > 0 && stopped < crowd, m.person)
	add(1, stopped > 0, m.crash)
	add(1, open > 0, m.silence)
	add(1, len(m.order) > open, m.purge)
	add(1, open > 0, m.outage)
	moves[rapid.IntRange(0, len(moves)-1).Draw(rt, "move")]()
}

func (m *model) drawProcess() *process {
	return m.procs[rapid.IntRange(0, len(m.procs)-1).Draw(m.rt, "process")]
}

// What a send may meet: a first one, and one after others.
var (
	firstSends = []fate{
		books, booksUnheard, booksUnheard, booksUnheard, lingers, lingers, lingers, vanishes, vanishes, unreached, declines, declinesUnheard, refuses,
	}
	laterSends = []fate{books, booksUnheard, lingers, lingers, lingers, vanishes, unreached, unreached, unreached, refuses, refuses, refuses, declines}
)

// drawPlan draws what a holder will meet. later: others may have sent before.
func (m *model) drawPlan(later bool, stops ...point) plan {
	draw := func(label string, from ...fate) fate { return rapid.SampledFrom(from).Draw(m.rt, label) }
	choice := []point{nowhere}
	for range stops { // one in two stops
		choice = append(choice, nowhere)
	}
	p := plan{stop: rapid.SampledFrom(append(choice, stops...)).Draw(m.rt, "stop")}
	if p.stop.atProvider() {
		p.die = rapid.IntRange(0, 3).Draw(m.rt, "die") == 3
	}
	sends := firstSends
	if later {
		sends = laterSends
	}
	if m.bank.traits.Queryable { // or nobody would ever learn what became of it
		sends = append(slices.Clone(sends), accepts, acceptsUnheard)
	}
	p.send = draw("send", sends...)
	p.ask = draw("inquiry", tells, tells, tells, mute)
	p.void = draw("void", voids, voids, voidsUnheard, mute, unreached)
	switch rapid.IntRange(0, 39).Draw(m.rt, "lose") {
	case 36:
		p.lose = "begin"
	case 37:
		p.lose = "take_over"
	case 38:
		p.lose, p.never = "take_over", true
	case 39:
		p.lose = "finish"
	}
	return p
}

func (p plan) String() string {
	var b strings.Builder
	if p.stop != nowhere {
		verb := "stops"
		if p.die {
			verb = "dies"
		}
		fmt.Fprintf(&b, ", %s %s", verb, p.stop)
	}
	for _, f := range []struct {
		what string
		fate fate
	}{{"send", p.send}, {"inquiry", p.ask}, {"void", p.void}} {
		if f.fate != "" {
			fmt.Fprintf(&b, ", its %s %s", f.what, f.fate)
		}
	}
	if p.lose != "" {
		fmt.Fprintf(&b, ", loses the answer to %s", p.lose)
	}
	if p.never {
		b.WriteString(", which never arrived")
	}
	return b.String()
}

// Where somebody may stop, by what is ahead of them.
var (
	firstStops    = []point{beforeReread, beforeSend, beforeSend, beforeWire, beforeWire, afterAnswer, afterAnswer}
	resumeStops   = []point{beforeLook, afterLook, afterLook, afterLook, beforeReread, beforeAsk, beforeSend, beforeWire, beforeWire, beforeVoid, afterAnswer, afterAnswer}
	expiredStops  = []point{beforeLook, beforeEndLife, beforeSend, beforeWire, afterAnswer}
	recoveryStops = []point{beforeTakeOver, beforeAsk, beforeVoid, afterAnswer, afterAnswer}
	personStops   = []point{beforeAsk, beforeVoid, afterAnswer}
)

// request is one of the merchant's: a first one, or a retry.
func (m *model) request() {
	of := m.interesting()
	n := of[rapid.IntRange(0, len(of)-1).Draw(m.rt, "nonce")]
	what := rapid.SampledFrom([]string{"same", "same", "same", "same", "same", "other", "other", "broken"}).Draw(m.rt, "body")
	stops := firstStops
	switch l := n.last(); {
	case l == nil, l.row.Released:
	case l.terminal == nil:
		stops = resumeStops
	case m.now() > l.expires:
		stops = expiredStops
	default:
		stops = nil
	}
	later := n.last() != nil && n.last().terminal == nil
	m.post(n, what, m.drawProcess(), m.drawPlan(later, stops...))
}

// interesting are the nonces to choose from: those with an open life more often,
// those that only replay less, and one that is new.
func (m *model) interesting() []*nonce {
	var of []*nonce
	for _, n := range m.nonces {
		l, weight := n.last(), 1
		switch {
		case l == nil:
			return append(of, n, n)
		case l.terminal == nil:
			weight = 4
		case l.row.Released, m.now() > l.expires:
			weight = 2
		}
		for range weight {
			of = append(of, n)
		}
	}
	return of
}

// last is the nonce's newest life.
func (n *nonce) last() *life {
	if len(n.lives) == 0 {
		return nil
	}
	return n.lives[len(n.lives)-1]
}

func (m *model) post(n *nonce, what string, p *process, pl plan) *told {
	body := map[string][]byte{"same": n.same, "other": n.other, "broken": n.broken}[what]
	answer := &told{nonce: n}
	a := m.act(fmt.Sprintf("request %s, %s body", n.name, what), p, pl, false, func(ctx context.Context) {
		req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/payments", strings.NewReader(string(body)))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(idem.Header, n.name)
		for i := 0; i < len(m.keys); i += 2 {
			req.Header.Set(m.keys[i], m.keys[i+1])
		}
		rec := httptest.NewRecorder()
		p.handler.ServeHTTP(rec, req)
		answer.status, answer.body = rec.Code, rec.Body.Bytes()
		answer.replayed = rec.Header().Get(headerReplayed) != ""
	})
	a.nonce, a.told = n, answer
	return answer
}

// recover is one recovery round, mostly when something is due.
func (m *model) recover() {
	if next := soonest(m.unresolved()); next > m.now() && rapid.IntRange(0, 3).Draw(m.rt, "in time") > 0 {
		m.pass(next - m.now() + edge)
	}
	m.round(m.drawProcess(), m.drawPlan(true, recoveryStops...))
}

func (m *model) round(p *process, pl plan) {
	m.act("recovery", p, pl, true, func(ctx context.Context) { _, _ = p.service.Recover(ctx) })
}

// wake lets one holder go on that stands still.
func (m *model) wake() {
	hs := m.stage.stopped()
	h := hs[rapid.IntRange(0, len(hs)-1).Draw(m.rt, "who")]
	stops := resumeStops
	if h.actor.round {
		stops = recoveryStops
	}
	l := m.lives[h.ref]
	pl := m.drawPlan(l == nil || l.row.Fence > 1, stops...)
	m.say("%d: goes on %s%s", h.actor.id, h.at, pl)
	m.stage.free(h, pl, false)
	m.rest()
}

// death ends one request, or one transaction's recovery, but not its process.
func (m *model) death() {
	hs := m.mortal()
	h := hs[rapid.IntRange(0, len(hs)-1).Draw(m.rt, "who")]
	m.say("%d: dies %s", h.actor.id, h.at)
	m.stage.free(h, plan{}, true)
	m.rest()
}

func (m *model) mortal() []*holder {
	return slices.DeleteFunc(m.stage.stopped(), func(h *holder) bool { return !h.at.atProvider() })
}

// crash kills a process and starts another in its place.
func (m *model) crash() {
	p := m.drawProcess()
	m.say("process %d is killed", p.number)
	m.stage.note("a process was killed")
	for _, h := range m.stage.stopped() {
		switch {
		case h.actor.proc != p:
		case h.at.atProvider():
			m.stage.free(h, plan{}, true)
		default:
			h.actor.frozen = true
		}
	}
	m.rest()
	m.beats[p.service.instance] = false
	m.procs[p.number] = m.start(p.number)
}

// silence stops the beat of a process, or lets it beat again.
func (m *model) silence() {
	p := m.drawProcess()
	p.silent = !p.silent
	m.say("process %d is silent: %t", p.number, p.silent)
	m.beats[p.service.instance] = !p.silent
}

// wait lets time pass, mostly to just before or just after something ends.
func (m *model) wait() {
	jumps := []time.Duration{time.Second, 2 * time.Second}
	add := func(at time.Duration, weight int) {
		for _, d := range []time.Duration{at - m.now() - edge, at - m.now() + edge} {
			for range weight {
				if d > edge/2 {
					jumps = append(jumps, d)
				}
			}
		}
	}
	if m.procs[0].silent || m.procs[1].silent {
		add(m.now()+5*time.Second, 2)
	}
	for _, l := range m.order {
		switch {
		case l.terminal == nil:
			add(l.leaseUntil, 1)
			add(l.maySendUntil, 2)
			add(l.proof(), 3)
			if m.bank.traits.IdempotentFor > 0 {
				add(l.created+modelWindow-modelTimeout-modelSettle, 1)
				add(l.created+modelWindow, 1)
			}
		case l.row.HasKey && l == l.nonce.last():
			add(l.expires, 1)
		}
	}
	i := rapid.IntRange(0, len(jumps)-1).Draw(m.rt, "how long")
	m.say("%s pass", jumps[i].Round(100*time.Millisecond))
	m.pass(jumps[i])
}

// arrival is a late send that reaches the provider.
func (m *model) arrival() {
	sends := m.bank.underway()
	i := rapid.IntRange(0, len(sends)-1).Draw(m.rt, "which")
	f := rapid.SampledFrom([]fate{books, books, declines}).Draw(m.rt, "send")
	m.say("a late send for %s arrives: %q", m.nameOf(sends[i].charge.Reference), f)
	m.bank.deliver(i, f)
}

// decision ends what the provider had accepted.
func (m *model) decision() {
	refs := m.bank.undecided()
	ref := refs[rapid.IntRange(0, len(refs)-1).Draw(m.rt, "which")]
	f := rapid.SampledFrom([]fate{books, declines, vanishes}).Draw(m.rt, "outcome")
	m.say("the provider decides %s: %q", m.nameOf(ref), f)
	m.bank.decide(ref, m.lives[ref].row.Amount, f)
}

// purge is one round of the purge.
func (m *model) purge() {
	m.say("purge")
	if _, err := (idem.Purge{DB: m.db, Retention: modelRetention}).RunOnce(context.Background()); err != nil {
		m.rt.Fatalf("purge: %v", err)
	}
}

// outage is a time in which the provider says nothing and recovery goes on.
func (m *model) outage() {
	if rapid.Bool().Draw(m.rt, "long") {
		m.say("a long outage")
		m.tire(m.unresolved())
	}
	for range rapid.IntRange(1, 4).Draw(m.rt, "rounds") {
		open := m.unresolved()
		if len(open) == 0 {
			return
		}
		m.pass(max(0, soonest(open)-m.now()) + edge)
		m.round(m.procs[0], plan{ask: mute})
		m.check(m.rt)
	}
}

// tire is as if recovery had asked almost as often as it will: as time is shifted,
// so are attempts.
func (m *model) tire(lives []*life) {
	for _, l := range lives {
		if _, err := m.stage.side.Exec(context.Background(), `UPDATE transactions SET attempts = greatest(attempts, $3::integer)
			WHERE account_id = $1 AND id = $2 AND parked_at IS NULL AND lease_until IS NOT NULL`, m.account, l.ref, maxAttempts-2); err != nil {
			m.rt.Fatalf("tire: %v", err)
		}
	}
}

// person is somebody's decision about an unresolved transaction. What they say is
// what the provider's books say at that moment, except that they may be wrong
// where the product asks the provider itself, or says that a charge exists.
func (m *model) person() {
	open := m.unresolved()
	l := open[rapid.IntRange(0, len(open)-1).Draw(m.rt, "which")]
	p, pl := m.drawProcess(), m.drawPlan(true, personStops...)
	pl.ask = tells
	booked := len(m.bank.of(l.ref).charges) > 0
	says := booked
	if rapid.IntRange(0, 3).Draw(m.rt, "wrong") == 3 && (!booked || m.bank.traits.Queryable) {
		says = !booked
	}
	m.act(fmt.Sprintf("a person says of %s succeeded=%t", l.name, says), p, pl, false, func(ctx context.Context) {
		_, _ = p.service.Resolve(ctx, uuid.MustParse(l.ref), Decision{Succeeded: says, Reason: "the model says so"})
	})
}
