package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
	"github.com/oncepay/oncepay/test/faults/record"
)

// order is one thing that a merchant wants paid, once, under one nonce, and what
// befalls it meanwhile.
type order struct {
	merchant int
	nonce    string
	id       string // merchant_order_id
	about    string // for the log
	manner   manner
	story    story
	kind     transactions.Type // of its payment; "": a purchase
	says     string            // its description, with which the sandbox can be told to misbehave
	deed     *deed             // what it does with another's payment; nil: it is a payment of its own
	after    [][]*order        // what is done with its payment, one group after the other; those of a group at once
	paid     outcomeOf         // what it was told, once it was
	declined bool              // its card has no funds
	turn     int               // early, goodMeasure, or between them
	last     bool              // PostgreSQL is killed as soon as it has been told that it is paid
	shop     *shop             // it is a checkout session that shoppers pay; nil: it is none
	bySDK    bool              // its merchant's backend is written with sdk/go

	// What the provider's network does to the n-th request of each kind.
	charges, inquiries, voids []pspproxy.Act
	callbacks                 []string // and to the n-th callback about it
	sent                      bool     // a charge has come by; guarded by scripts.mu
	// steps at fault points, and points whose kill is followed by another.
	steps []planned
	twice []faultpoint.Point
}

// planned is a step at a point: for the order's nonce, or for whoever comes there.
type planned struct {
	at   faultpoint.Point
	step step
	any  bool
}

// story is what happens to an order beyond being paid.
type story string

const (
	once           story = ""                                        // paid, and asked about
	reborn         story = "paid, expired, and paid again"           // two lives, two charges
	forgotten      story = "paid, expired, purged, and paid again"   // as well
	agedUnresolved story = "expired while unresolved"                // still one life
	person         story = "resolved by a person"                    // who knows the provider's ledger
	patient        story = "left alone after the first attempt"      // recovery settles it
	twin           story = "another merchant uses the nonce as well" // and never notices
)

// scripts are the orders that have something ahead of them at the provider.
type scripts struct {
	mu          sync.Mutex
	byOrder     map[string]*order // by account and order, those that pay
	byNonce     map[string]*order // by account and nonce
	byReference map[string]*order
	calm        bool
	healed      chan struct{} // closed by heal
}

func newScripts() *scripts {
	return &scripts{byOrder: map[string]*order{}, byNonce: map[string]*order{}, byReference: map[string]*order{}, healed: make(chan struct{})}
}

func (s *scripts) add(account string, o *order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byNonce[account+"/"+o.nonce] = o
	if o.deed == nil {
		s.byOrder[account+"/"+o.id] = o
	}
}

// heal ends the provider's bad days.
func (s *scripts) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.calm {
		s.calm = true
		close(s.healed)
	}
}

// next takes the next act for a request of that order.
func (s *scripts) next(r pspproxy.Request) (*order, pspproxy.Act) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.byReference[r.Reference]
	if o == nil && r.Kind == pspproxy.Charge && r.Order != "" {
		o = s.byOrder[r.Account+"/"+r.Order]
		s.byReference[r.Reference] = o
	}
	if o != nil && (r.Kind == pspproxy.Charge || r.Kind == pspproxy.Operation) {
		o.sent = true
	}
	if o == nil || s.calm {
		return o, pspproxy.Act{}
	}
	acts := &o.charges
	switch r.Kind {
	case pspproxy.Inquiry:
		acts = &o.inquiries
	case pspproxy.Void:
		acts = &o.voids
	case pspproxy.Charge, pspproxy.Operation, pspproxy.Other:
	}
	if len(*acts) == 0 {
		return o, pspproxy.Act{}
	}
	act := (*acts)[0]
	*acts = (*acts)[1:]
	return o, act
}

// nextCallback takes what befalls the next callback about a reference.
func (s *scripts) nextCallback(reference string) (nonce, fault string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.byReference[reference]
	if o == nil || s.calm || len(o.callbacks) == 0 {
		return "", ""
	}
	fault, o.callbacks = o.callbacks[0], o.callbacks[1:]
	return o.nonce, fault
}

// of is the order behind a reference, or nil.
func (s *scripts) of(reference string) *order {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byReference[reference]
}

// knows says whether the order behind a reference is known.
func (s *scripts) knows(reference string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byReference[reference] != nil
}

// sent says whether a charge of the order has come by.
func (s *scripts) sent(o *order) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return o.sent
}

// introduce tells which order a reference is of, where no charge with it has come
// by yet: of an order that acts on another's payment none ever does.
func (s *stage) introduce(reference string) {
	ctx, cancel := context.WithTimeout(context.Background(), providerTimeout)
	defer cancel()
	var account, nonce string
	err := s.pool.QueryRow(ctx, `SELECT account_id::text, nonce FROM transactions WHERE id = $1::uuid`, reference).Scan(&account, &nonce)
	if err != nil {
		return // then nothing befalls this request
	}
	s.scripts.mu.Lock()
	defer s.scripts.mu.Unlock()
	s.scripts.byReference[reference] = s.scripts.byNonce[account+"/"+nonce]
}

// faultName is what a provider's fault is called in the report.
func faultName(k pspproxy.Kind, f pspproxy.Fault) string {
	if k == pspproxy.Charge {
		return "provider: " + string(f)
	}
	return fmt.Sprintf("provider, %s: %s", k, f)
}

// judge is what the provider's proxies ask.
func (s *stage) judge(r pspproxy.Request) pspproxy.Act {
	if r.Kind != pspproxy.Charge && r.Kind != pspproxy.Other && !s.scripts.knows(r.Reference) {
		s.introduce(r.Reference)
	}
	o, act := s.scripts.next(r)
	if act.Fault == pspproxy.ReusedClosed && !r.Reused {
		act.Fault = pspproxy.CloseAfter
	}
	if act.Fault != pspproxy.None {
		s.faults.note(o.nonce, faultName(r.Kind, act.Fault))
	}
	return act
}

// brokenOff is told of each charge whose connection our side closed: or the
// operating system, because the process was killed.
func (s *stage) brokenOff(r pspproxy.Request, after time.Duration) {
	if i := s.instance(r.Proxy); i == nil || i.disturbed(providerTimeout) {
		return
	}
	s.faults.breakOff(s.scripts.of(r.Reference), record.BrokenOff{Order: r.Order, After: after, Detail: "by " + r.Proxy})
}

// prepare tells everybody what is to befall an order.
func (s *stage) prepare(o *order) {
	s.scripts.add(s.merchants[o.merchant].AccountID, o)
	for _, p := range o.twice {
		s.ctl.killTwice(p)
	}
	for _, p := range o.steps {
		nonce := o.nonce
		if p.any {
			nonce = ""
		}
		s.ctl.at(nonce, p.at, p.step)
	}
}

// Steps.

func die() step { return step{die: true} }

func freeze(d time.Duration) step { return step{stop: d} }

// commitOfSeveral ends a database transaction of several statements, as the end of an
// action is one. Payments need none.
const commitOfSeveral = "commit"

// cut loses the question of the statement that comes next, or the answer to it.
func (s *stage) cut(statement string, at pgproxy.Point) step {
	what := "answer to"
	if at == pgproxy.Asked {
		what = "statement"
	}
	full := "transactions." + statement
	if statement == commitOfSeveral {
		full = statement
	}
	return step{name: fmt.Sprintf("database: %s %s lost", what, statement), do: func(q faultpoint.Question) {
		if i := s.instance(q.Instance); i != nil {
			i.db.Cut(full, at)
		}
	}}
}

// cutWithinName is what it is called that a statement, or the answer to it, is broken
// off in the middle.
func cutWithinName(statement string, at pgproxy.Point) string {
	if at == pgproxy.Asked {
		return fmt.Sprintf("database: statement %s broken off", statement)
	}
	return fmt.Sprintf("database: answer to %s broken off", statement)
}

// cutWithin breaks the statement that comes next, or the answer to it, off after that
// many bytes.
func (s *stage) cutWithin(statement string, at pgproxy.Point, bytes int) step {
	return step{name: cutWithinName(statement, at), do: func(q faultpoint.Question) {
		if i := s.instance(q.Instance); i != nil {
			i.db.CutWithin("transactions."+statement, at, bytes)
		}
	}}
}

func refusedName(attempt int) string {
	return fmt.Sprintf("provider: connection refused, attempt %d", attempt)
}

// refused closes the provider's door just before the attempt of that number, so
// that its connection is refused, and opens it when the attempt is over.
func (s *stage) refused(attempt int) []planned {
	shut := step{name: refusedName(attempt), do: func(q faultpoint.Question) {
		if i := s.instance(q.Instance); i != nil {
			i.psp.Refuse()
			time.AfterFunc(providerTimeout, func() { s.open(i) }) // whoever closed it may die
		}
	}}
	open := step{do: func(q faultpoint.Question) {
		if i := s.instance(q.Instance); i != nil {
			s.open(i)
		}
	}}
	return slices.Concat(
		slices.Repeat([]planned{{at: faultpoint.SendBefore}}, attempt-1), []planned{{at: faultpoint.SendBefore, step: shut}},
		slices.Repeat([]planned{{at: faultpoint.SendAfter}}, attempt-1), []planned{{at: faultpoint.SendAfter, step: open}})
}

func (s *stage) open(i *instance) {
	if err := i.psp.Accept(context.Background()); err != nil {
		s.progress("the provider's door does not open: %v", err)
	}
}
