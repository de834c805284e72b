package transactions

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
)

// fate is what becomes of one exchange with the provider.
type fate string

const (
	// Of a send. "Unheard": the provider did it, and its answer was lost.
	books           fate = ""
	booksUnheard    fate = "booked unheard"
	declines        fate = "declined"
	declinesUnheard fate = "declined unheard"
	accepts         fate = "accepted"
	acceptsUnheard  fate = "accepted unheard"
	refuses         fate = "refused"
	unreached       fate = "not reached"
	vanishes        fate = "vanished"  // timed out, and never arrives
	lingers         fate = "under way" // timed out, and may still arrive
	// Of an inquiry or a void.
	tells        fate = ""
	mute         fate = "mute"
	voids        fate = ""
	voidsUnheard fate = "voided unheard"
)

// bank is the model's provider: any of the kinds that Traits can describe, honest
// about them, and otherwise as bad as a provider may be. What it promises:
//
//   - A send has an effect when it arrives, or never; each at most once.
//   - It arrives no later than time-out plus settling time after it was put on the
//     wire. Who fell asleep between looking at the clock and the wire counts from
//     the end of its time to send: it may not arrive once may_send_until, time-out
//     and settling time are over. That is what the proof moment stands on, except
//     where a reference can be voided: there a sleeper may wake at any time.
//   - "Refused" and "not reached" had no effect, whatever happened to other sends.
//   - If idempotent, it changes nothing for a reference that it knows, for as long
//     after the first send as it says. A resend that slept past that is no promise
//     of the protocol (reconciliation is to find it): here it is lost.
//   - An inquiry tells what it has in its books at that moment.
//   - A voided reference is refused from then on.
type bank struct {
	stage  *stage
	traits providers.Traits

	mu      sync.Mutex
	books   map[string]*entry
	transit []flight
	// down are the attempts, counted from 1 in each life, whose connection is
	// refused. The last bit stands for all that follow.
	down uint
	// fault is the first rule about sends that was broken.
	fault string
}

// entry is what the bank has in its books for one reference.
type entry struct {
	ref       string
	first     time.Time // put on the wire
	order     string
	amount    decimal.Decimal
	sends     int // put on the wire, or into a refused connection
	charges   []decimal.Decimal
	declined  bool
	pending   bool
	voided    bool
	byPerson  bool // a person said that it failed
	refusedIn int  // the step after which the refusal of a resend was on record
	heard     []providers.Outcome
}

func (e *entry) known() bool { return len(e.charges) > 0 || e.declined || e.pending }

// flight is a send that nobody waits for any more.
type flight struct {
	charge providers.Charge
	until  time.Time // it arrives before, or never
	bound  time.Time // the same, if it could not be voided
	slept  bool
}

// attemptsTold is how many attempts are told apart; the last includes all later.
const attemptsTold = 5

func newBank(s *stage, t providers.Traits) *bank {
	return &bank{stage: s, traits: t, books: map[string]*entry{}}
}

// Name is the provider's id.
func (b *bank) Name() string { return "MODEL_PSP" }

// Traits never change.
func (b *bank) Traits() providers.Traits {
	b.stage.looking()
	return b.traits
}

func (b *bank) of(ref string) *entry {
	e := b.books[ref]
	if e == nil {
		e = &entry{ref: ref}
		b.books[ref] = e
	}
	return e
}

// blame keeps the first broken rule.
func (b *bank) blame(format string, args ...any) {
	if b.fault == "" {
		b.fault = fmt.Sprintf(format, args...)
	}
}

func timedOut() providers.Result {
	return providers.Result{Outcome: providers.Unclear, TimedOut: true}
}

// Charge is one send.
func (b *bank) Charge(ctx context.Context, c providers.Charge, may providers.MaySend) providers.Result {
	h := actorOf(ctx).as(c.Reference)
	h.reach(beforeSend)
	if !may() {
		return providers.Result{Outcome: providers.NotReached}
	}
	looked := time.Now()
	attempt := b.begins(h, c)
	h.reach(beforeWire)
	r := b.carry(h, c, attempt, time.Now().After(looked))
	h.reach(afterAnswer)
	return b.hears(c.Reference, r)
}

// Operate is never asked for: the model's merchants only create payments.
func (b *bank) Operate(context.Context, providers.Operation, providers.MaySend) providers.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blame("an operation that nobody asked for")
	return timedOut()
}

// begins holds the rules about sends against one that is about to be made.
func (b *bank) begins(h *holder, c providers.Charge) (attempt int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, now := b.of(c.Reference), time.Now()
	switch {
	case e.sends > 0 && !b.traits.Idempotent:
		b.blame("a second send to a provider that does not recognise references")
	case e.sends > 0 && b.windowOver(e, now):
		b.blame("a resend after the provider has stopped recognising the reference")
	case e.sends > 0 && (!c.Amount.Equal(e.amount) || c.MerchantOrderID != e.order):
		b.blame("a resend of another body: %s for %s", c.Amount, e.amount)
	case e.refusedIn > 0 && h.since > e.refusedIn:
		b.blame("a resend although one was refused")
	case !now.Before(b.sendUntil(h)):
		b.blame("a send after its holder's time to send")
	}
	if e.sends == 0 {
		e.first, e.amount, e.order = now, c.Amount, c.MerchantOrderID
	}
	if e.sends++; e.sends > 1 {
		b.stage.note("resent")
	}
	return e.sends
}

// sendUntil is the end of a holder's time to send.
func (b *bank) sendUntil(h *holder) time.Time {
	return h.claimed.Add(terms{lease: h.actor.proc.lease, timeout: b.traits.Timeout, settle: b.traits.Settle}.sendWindow())
}

func (b *bank) windowOver(e *entry, at time.Time) bool {
	return b.traits.IdempotentFor > 0 && !e.first.IsZero() && !at.Before(e.first.Add(b.traits.IdempotentFor))
}

// carry puts a send on the wire. asleep: its holder slept before it did.
func (b *bank) carry(h *holder, c providers.Charge, attempt int, asleep bool) providers.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, travel := time.Now(), b.traits.Timeout+b.traits.Settle
	f := flight{charge: c, until: now.Add(travel), bound: now.Add(travel), slept: asleep}
	if end := b.sendUntil(h); now.After(end) {
		f.bound = end.Add(travel)
		if !b.traits.CanVoid {
			f.until = f.bound
		}
	}
	switch fate := h.plan.send; {
	case b.down&(1<<(min(attempt, attemptsTold)-1)) != 0, fate == unreached:
		return providers.Result{Outcome: providers.NotReached}
	case fate == vanishes, b.lost(f, now):
		return timedOut()
	case fate == lingers:
		b.transit = append(b.transit, f)
		return timedOut()
	default:
		r := b.arrive(f, fate)
		if fate == booksUnheard || fate == declinesUnheard || fate == acceptsUnheard {
			return providers.Result{Outcome: providers.Unclear, TimedOut: attempt%2 == 0}
		}
		return r
	}
}

// lost says whether it is too late for a send to arrive. A person's word counts
// as the end of those sleepers that only a void would have stopped.
func (b *bank) lost(f flight, now time.Time) bool {
	return now.After(f.until) || now.After(f.bound) && b.of(f.charge.Reference).byPerson
}

// arrive is the effect of a send, and its answer.
func (b *bank) arrive(f flight, fate fate) providers.Result {
	e := b.of(f.charge.Reference)
	over := b.windowOver(e, time.Now())
	switch {
	case e.voided, fate == refuses:
		return providers.Result{Outcome: providers.Refused}
	case over && f.slept:
		return timedOut()
	case b.traits.Idempotent && e.known() && !over:
		return e.standing()
	case fate == declines || fate == declinesUnheard:
		e.declined = true
	case fate == accepts || fate == acceptsUnheard:
		e.pending = true
	default:
		e.charges = append(e.charges, f.charge.Amount)
	}
	return e.standing()
}

// standing is what the books say now.
func (e *entry) standing() providers.Result {
	switch {
	case len(e.charges) > 0:
		return approved(e.ref)
	case e.declined:
		return providers.Result{Outcome: providers.Declined, ResponseCode: "INSUFFICIENT_FUNDS"}
	case e.pending:
		return providers.Result{Outcome: providers.Pending}
	}
	return providers.Result{Outcome: providers.NotFound}
}

// hears notes a final answer that a living holder has got. It must not be lost.
func (b *bank) hears(ref string, r providers.Result) providers.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Outcome == providers.Approved || r.Outcome == providers.Declined {
		e := b.of(ref)
		e.heard = append(e.heard, r.Outcome)
	}
	return r
}

// Inquire tells what is in the books, or nothing.
func (b *bank) Inquire(ctx context.Context, o providers.Order) providers.Result {
	h := actorOf(ctx).as(o.Reference)
	h.reach(beforeAsk)
	r := b.told(o.Reference, h.plan.ask)
	h.reach(afterAnswer)
	return b.hears(o.Reference, r)
}

func (b *bank) told(ref string, f fate) providers.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.traits.Queryable {
		b.blame("an inquiry at a provider that cannot be asked")
	}
	if f == mute || !b.traits.Queryable {
		return timedOut()
	}
	return b.of(ref).standing()
}

// Void refuses the reference from now on, unless it is in the books.
func (b *bank) Void(ctx context.Context, o providers.Order, may providers.MaySend) providers.Result {
	h := actorOf(ctx).as(o.Reference)
	h.reach(beforeVoid)
	if !may() {
		return providers.Result{Outcome: providers.NotReached}
	}
	r := b.void(o.Reference, h.plan.void)
	h.reach(afterAnswer)
	return b.hears(o.Reference, r)
}

func (b *bank) void(ref string, f fate) providers.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.traits.CanVoid {
		b.blame("a void at a provider that cannot void")
		return timedOut()
	}
	e := b.of(ref)
	switch {
	case f == unreached:
		return providers.Result{Outcome: providers.NotReached}
	case f == mute:
		return timedOut()
	case !e.known():
		e.voided = true
		b.stage.note("voided")
	}
	switch {
	case f == voidsUnheard:
		return timedOut()
	case e.voided:
		return providers.Result{Outcome: providers.Voided}
	}
	return e.standing()
}

// Tokenise has no part in this.
func (b *bank) Tokenise(context.Context, providers.Card) (providers.Token, error) {
	return providers.Token{}, providers.ErrTokenise
}

// What follows is for the model, while everybody stands still.

// underway are the sends that may still arrive.
func (b *bank) underway() []flight {
	now := time.Now()
	b.transit = slices.DeleteFunc(b.transit, func(f flight) bool { return b.lost(f, now) })
	return b.transit
}

// deliver lets the i-th of those arrive.
func (b *bank) deliver(i int, fate fate) {
	f := b.transit[i]
	b.transit = slices.Delete(b.transit, i, i+1)
	b.arrive(f, fate)
	b.stage.note("arrived late")
}

// pending are the references that the bank has accepted and not decided.
func (b *bank) undecided() []string {
	var refs []string
	for ref, e := range b.books {
		if e.pending && len(e.charges) == 0 && !e.declined {
			refs = append(refs, ref)
		}
	}
	slices.Sort(refs)
	return refs
}

// decide ends what was accepted: booked, declined, or forgotten.
func (b *bank) decide(ref string, amount decimal.Decimal, f fate) {
	e := b.of(ref)
	e.pending = false
	switch f {
	case declines:
		e.declined = true
	case vanishes:
		e.voided = true // and will not turn up again
	default:
		e.charges = append(e.charges, amount)
	}
}
