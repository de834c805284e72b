package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
)

// A payment is not over when it is paid. The plots are what merchants do with it then:
// each action has a nonce of its own, is repeated by the same rules, and meets the same
// faults. No two actions of an order and a type are of the same amount, so that the
// provider's ledger alone tells which of them it has booked.

// undecidedForever says whether an action whose outcome nobody knows stays so until a
// person decides, because the provider neither recognises its reference nor voids it; or
// because it does not void it, and the merchant's retry, which could send it again, gets
// the first attempt's error. Parking it takes longer than a round, so there are no actions
// where that is so.
func (s *stage) undecidedForever() bool {
	return s.unrecognised() || s.policy.KeepsErrors && strings.Contains(s.withhold, "can_void")
}

// unrecognised says whether the provider books a reference as often as it is sent.
func (s *stage) unrecognised() bool { return strings.Contains(s.withhold, "idempotent") }

// paymentsAlone says whether nothing is done with a payment once it is paid. A policy that
// does not count the nonces of actions leaves them unprotected: who asks a second time
// refunds a second time, as was asked for. A client that asks but once, and is not
// answered, knows nothing that an oracle could hold against anybody. So none of them is
// asked for.
func (s *stage) paymentsAlone() bool { return s.policy.CreatesOnly || s.undecidedForever() }

// then adds actions that are begun at once, when those before have been answered.
func (p *press) then(o *order, deeds ...deed) []*order {
	var group []*order
	for _, d := range deeds {
		p.actions++
		d.of = o
		a := &order{
			merchant: o.merchant, nonce: fmt.Sprintf("%s-%d-%04d", actionPrefix, p.s.seed, p.actions), id: o.id, about: o.about + ": " + string(d.route),
			deed: &d, manner: manner{moves: p.rng.IntN(2) == 0, replays: 1 + p.rng.IntN(2), atOnce: p.rng.IntN(3) == 0},
		}
		if p.rng.IntN(4) == 0 {
			a.manner.otherBody = true
		}
		if p.rng.IntN(2) == 0 { // a provider has its bad days with any of them
			a.charges = []pspproxy.Act{p.act(pspproxy.Faults[p.rng.IntN(len(pspproxy.Faults))])}
		}
		group = append(group, a)
	}
	if !p.s.paymentsAlone() {
		o.after = append(o.after, group)
	}
	return group
}

// actionPrefix begins the nonces of actions.
const actionPrefix = "a"

// The routes, with shorter names.
const (
	capture        = transactions.RouteCapture
	cancel         = transactions.RouteCancel
	refund         = transactions.RouteRefund
	cancelOrRefund = transactions.RouteCancelOrRefund
)

// authorized is an order that is only authorized at first.
func (p *press) authorized(about string) *order {
	o := p.order(about)
	o.kind = transactions.Authorize
	return o
}

// timesPlotted is how often a round has each plot.
const timesPlotted = 2

// plots draws them.
func (p *press) plots() {
	switch {
	case p.s.unrecognised():
		return
	case p.s.paymentsAlone():
		p.decidedLater()
		return
	}
	for n := range timesPlotted {
		p.capturedInParts()
		p.refundedByMany(n == 0)
		p.capturedOrCancelled()
		p.cancelledOrRefunded()
		p.verified()
	}
	p.decidedLater()
	p.operationsFail()
}

// capturedInParts: three captures of an authorization, the last of what is left of it
// and one cent more than that; then refunds of one capture, more than it was.
func (p *press) capturedInParts() {
	o := p.authorized("captured in parts")
	first := p.then(o, deed{route: capture, on: o, value: "10.01"})
	p.then(o, deed{route: capture, on: o, value: "20.02"}, deed{route: capture, on: o, value: "15.64"}, deed{route: capture, on: o, value: "15.65"})
	p.then(o, deed{route: refund, on: first[0], value: "4.03"}, deed{route: refund, on: first[0], value: "4.04"}, deed{route: refund, on: first[0], value: "4.05"})
	p.then(o, deed{route: refund, on: first[0]})
}

// refundedByMany: several clerks refund parts of a purchase at once, together more than
// it was, and perhaps one of them presses the button fifty times.
func (p *press) refundedByMany(storm bool) {
	o := p.order("refunded by many")
	at := p.then(o, deed{route: refund, on: o, value: "20.01"}, deed{route: refund, on: o, value: "20.02"},
		deed{route: refund, on: o, value: "20.03"}, deed{route: refund, on: o, value: "20.04"}, deed{route: cancelOrRefund, value: "20.05"})
	if storm {
		at[p.rng.IntN(len(at))].manner.storm = stormSize
	}
	p.then(o, deed{route: refund, on: o})
}

// capturedOrCancelled: one clerk captures what another one cancels.
func (p *press) capturedOrCancelled() {
	o := p.authorized("captured or cancelled")
	p.then(o, deed{route: capture, on: o, value: amount}, deed{route: cancel, on: o})
	o = p.authorized("captured in part or cancelled")
	p.then(o, deed{route: capture, on: o, value: "30.03"}, deed{route: cancelOrRefund})
	p.then(o, deed{route: cancel, on: o}, deed{route: capture, on: o, value: "15.04"})
}

// cancelledOrRefunded: whatever of the two the payment is ready for.
func (p *press) cancelledOrRefunded() {
	o := p.authorized("cancelled, not refunded")
	p.then(o, deed{route: cancelOrRefund, on: o}, deed{route: cancel, on: o})
	o = p.order("refunded, not cancelled")
	p.then(o, deed{route: cancelOrRefund}, deed{route: cancel, on: o})
}

// verified: nothing has moved, so there is nothing to give back.
func (p *press) verified() {
	o := p.order("verified")
	o.kind = transactions.Verify
	p.then(o, deed{route: refund, on: o, value: "1.01"})
}

// decidedLater: the provider accepts, and calls back; or the payer is asked first. What
// befalls the callbacks, every kind of it, befalls each of these some time.
func (p *press) decidedLater() {
	next := inTurn(p.s.seed, callbackFaults)
	for _, says := range []string{
		"pending-then-approve=1s", "pending-then-decline=1s", "pending-then-approve-twice=1s", "challenge",
		"pending-then-approve=3s", "pending-then-decline=2s", "pending-then-approve-twice=2s", "challenge",
	} {
		o := p.order(says)
		o.says, o.callbacks = "sandbox:"+says, append([]string{next()}, someCallbackFaults(p.rng)...)
		p.then(o, deed{route: refund, on: o, value: "7.01"})
	}
	// The callback is there before the provider's own answer is.
	o := p.order("called back before the answer")
	o.says, o.charges = "sandbox:pending-then-approve=10ms", acts(pspproxy.TimeoutAfter)
	// A refund that the bank decides later, while another one is asked for.
	o = p.order("refunds decided later")
	later := p.then(o, deed{route: refund, on: o, value: "15.01"}, deed{route: refund, on: o, value: "15.02"})
	later[0].says, later[1].says = "sandbox:pending-then-approve-twice=1s", "sandbox:pending-then-decline=1s"
	later[0].callbacks, later[0].charges, later[1].charges = []string{callbackTwice}, nil, nil
	p.then(o, deed{route: refund, on: o, value: "15.03"})
}

// part is an order with one action on its payment, of each kind in turn.
func (p *press) part(about string) (o, action *order) {
	p.parts++
	switch p.parts % 4 {
	case 0:
		o = p.authorized(about)
		return o, p.then(o, deed{route: capture, on: o, value: "10.01"})[0]
	case 1:
		o = p.authorized(about)
		return o, p.then(o, deed{route: cancel, on: o})[0]
	case 2:
		o = p.order(about)
		return o, p.then(o, deed{route: cancelOrRefund})[0]
	default:
		o = p.order(about)
		return o, p.then(o, deed{route: refund, on: o, value: "12.34"})[0]
	}
}

// operationsFail: every fault of the provider's at an action, and what it can be told to
// do of itself.
func (p *press) operationsFail() {
	for _, f := range pspproxy.Faults {
		for range timesOf(f) {
			o, a := p.part(fmt.Sprintf("of an action: %s", f))
			a.charges, o.turn = []pspproxy.Act{p.act(f)}, early
		}
	}
	for range 2 {
		_, a := p.part("of an action: refused")
		a.charges, a.steps, a.manner.atOnce = nil, p.s.refused(1), true
	}
	next := inTurn(p.s.seed, []string{
		"charge-then-timeout", "pending-then-approve=1s", "500", "unavailable", "charge-then-500", "pending-then-decline=1s", "charge-then-reset", "reject", "slow=300ms",
	})
	for range 4 {
		says := next()
		if says == "reject" && !p.voids {
			// Where its process dies, the retry is refused, too, and without a void nobody can
			// tell that nothing happened: it would be parked, which takes longer than a round.
			says = next()
		}
		_, a := p.part("of an action: " + says)
		a.says, a.charges = "sandbox:"+says, nil
	}
	if p.voids && !p.s.wild {
		o, a := p.part("of an action: voided")
		a.charges, a.story, a.manner.lazy, o.turn = acts(pspproxy.TimeoutBefore), patient, leftToVoid, early
	}
}

// zombies are holders of actions who sleep beyond their lease: the whole process before
// the send, or the request alone when it has its outcome, and then finds itself fenced
// out. They are not where processes are killed.
func (p *press) zombies() {
	if p.s.paymentsAlone() {
		return
	}
	asleep := planned{at: faultpoint.SendBefore, step: freeze(lease + 2*time.Second)}
	outrun := planned{at: faultpoint.FinishBefore, step: step{slow: lease + 3*time.Second}}
	for _, z := range []planned{asleep, outrun, outrun} {
		o, a := p.part(fmt.Sprintf("asleep at %s, of an action", z.at))
		o.merchant, a.merchant, a.manner.moves = 1, 1, false
		a.steps = append(a.steps, z)
	}
}

// actionPoints are where an action's process is killed.
var actionPoints = []faultpoint.Point{
	faultpoint.BeginBefore, faultpoint.BeginAfter, faultpoint.SendBefore, faultpoint.SendWire, faultpoint.SendAfter, faultpoint.FinishBefore,
	faultpoint.FinishAfter, faultpoint.LeaveBefore, faultpoint.LeaveAfter, faultpoint.AnswerBefore, faultpoint.ResumeBefore, faultpoint.ResumeAfter,
	faultpoint.RecoverBefore, faultpoint.RecoverAfter, faultpoint.RecoverAsked,
}

// killActions kills at every other of these points, at the others in the next round: a
// process that is killed serves nobody else either.
func (p *press) killActions() {
	if p.s.paymentsAlone() || !p.s.wild {
		return
	}
	for n, point := range actionPoints {
		if (int64(n)+p.s.seed/2)%2 == 0 {
			o, a := p.part(fmt.Sprintf("killed at %s, of an action", point))
			o.turn = early
			p.lead(a, point)
			a.steps = append(a.steps, planned{at: point, step: die()})
		}
	}
}

// furtherMix lets some of the mixed orders go on.
func (p *press) furtherMix(o *order) {
	if p.s.paymentsAlone() || o.declined || o.story != once || p.rng.IntN(4) == 0 {
		return
	}
	var all []*order
	if p.rng.IntN(2) == 0 {
		o.kind = transactions.Authorize
		all = append(p.then(o, deed{route: capture, on: o, value: "11.01"}, deed{route: capture, on: o, value: "11.02"}), p.then(o, deed{route: cancelOrRefund})...)
	} else {
		all = append(p.then(o, deed{route: refund, on: o, value: "11.01"}, deed{route: cancelOrRefund, value: "11.02"}), p.then(o, deed{route: refund, on: o})...)
	}
	hit := all[p.rng.IntN(len(all))]
	for range 1 + p.rng.IntN(2) {
		hit.charges = append(hit.charges, p.act(pspproxy.Faults[p.rng.IntN(len(pspproxy.Faults))]))
	}
	if p.rng.IntN(3) == 0 {
		hit.manner.hangUps = []time.Duration{time.Duration(1+p.rng.IntN(900)) * time.Millisecond}
	}
}

// isAction says whether a nonce is an action's.
func isAction(nonce string) bool { return strings.HasPrefix(nonce, actionPrefix+"-") }

// The report tells apart what befell an action.
const (
	killedAtPoint       = "process: killed at a fault point"
	killedAtPointActing = "process: killed at a fault point, of an action"
)

// noteStep notes what happened at a fault point.
func (s *stage) noteStep(nonce, fault string) {
	if fault == killedAtPoint && isAction(nonce) {
		fault = killedAtPointActing
	}
	s.faults.note(nonce, fault)
}
