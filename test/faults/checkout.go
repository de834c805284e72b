package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
	"github.com/oncepay/oncepay/test/faults/record"
)

// Shoppers pay in browsers. A merchant's backend makes a checkout session, and one or
// several tabs hand cards in and pay it, each under nonces of its own: so here it is the
// session that is paid once, and not the nonce. The order of a checkout is its first tab's
// first try, and has the session's faults; every further try is an order of its own nonce.

// shop is what is special about an order that shoppers pay.
type shop struct {
	seamless bool          // the browser pays; else its merchant's backend does, with the browser's token
	tabs     int           // browsers that pay the session at the same time
	clicks   int           // how often each of them presses the button at once
	declines int           // how many cards each tries that have no funds
	changed  string        // what the backend makes of the amount meanwhile; "": nothing
	after    time.Duration // when it is changed, or over
	both     bool          // the browser pays, and so does the backend, with the token of every other tab
	careless bool          // its page makes another nonce for each click
	expires  bool          // and then it is over
	shared   bool          // no session: one token, and two orders at once

	mu      sync.Mutex
	session record.Session
}

// changedAmount is what the amount of a session is changed to.
const changedAmount = "89.10"

// shopNonce is the nonce of one tab's one try, which has to be a UUID.
func shopNonce(seed int64, order string, tab, try int) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%d %s %d %d", seed, order, tab, try)).String()
}

// shopping is an order that shoppers pay.
func (p *press) shopping(about string, sh *shop) *order {
	o := p.order("checkout: " + about)
	sh.tabs, sh.clicks = max(sh.tabs, 1), max(sh.clicks, 1)
	o.nonce, o.shop, o.manner.storm, o.manner.otherBody = shopNonce(p.s.seed, o.id, 0, 0), sh, 0, false
	return o
}

// shopPoints are where a process is killed that has a session's payment in hand.
var shopPoints = []faultpoint.Point{
	faultpoint.BeginBefore, faultpoint.BeginAfter, faultpoint.SendBefore, faultpoint.SendWire, faultpoint.SendAfter, faultpoint.FinishBefore,
	faultpoint.FinishAfter, faultpoint.LeaveBefore, faultpoint.LeaveAfter, faultpoint.AnswerBefore,
}

// shopFaults are what the sandbox is told to do with a session's first charge, in one round
// after the other.
var shopFaults = []string{
	"charge-then-timeout", "pending-then-approve=1s", "500", "challenge", "charge-then-500", "pending-then-decline=1s", "charge-then-reset", "timeout",
	"unavailable", "pending-then-approve-twice=1s", "slow=300ms",
}

// timesShopped is how often a round has each of most kinds of checkouts.
const timesShopped = 2

// checkouts draws what shoppers do.
func (p *press) checkouts() {
	for n := range timesShopped {
		seamless := n == 0
		p.shopping("several tabs", &shop{seamless: seamless, tabs: 3})
		p.shopping("many clicks", &shop{seamless: seamless, clicks: 8})
		p.shopping("paid by browser and backend", &shop{seamless: true, both: true, tabs: 2 + 2*n})
		p.shopping("a nonce for each click", &shop{seamless: true, tabs: 1 + n, clicks: 4, careless: true})
		p.shopping("expires meanwhile", &shop{seamless: seamless, tabs: 2, declines: n, expires: true, after: p.soon()})
		p.shopping("declined first", &shop{seamless: seamless, tabs: 1 + n, declines: 1 + n})
		p.shopping("changed meanwhile", &shop{seamless: true, tabs: 2, changed: changedAmount, after: p.soon()})
		p.shopping("changed after a decline", &shop{seamless: true, tabs: 2, declines: 1, changed: changedAmount, after: p.soon()})
		p.shopping("changed, and paid by the backend", &shop{changed: changedAmount, after: p.soon()})
		p.shopping("one token for two orders", &shop{shared: true})
		o := p.shopping("hangs up", &shop{seamless: seamless, tabs: 2})
		o.charges = []pspproxy.Act{p.act(pspproxy.Slow)}
		o.manner.hangUps = []time.Duration{time.Duration(1+p.rng.IntN(300)) * time.Millisecond}
	}
	p.checkoutsFail()
	if p.s.mortal {
		o := p.shopping("PostgreSQL killed after its answer", &shop{seamless: true})
		o.last, o.turn = true, early
	}
}

// soon is when somebody comes who meets a payment of the session just as often as not.
func (p *press) soon() time.Duration { return time.Duration(p.rng.IntN(400)) * time.Millisecond }

// checkoutsFail draws those that something befalls: the provider, the database, a process.
func (p *press) checkoutsFail() {
	says, fault := inTurn(4*p.s.seed, shopFaults), inTurn(5*p.s.seed, pspproxy.Faults)
	for n := range 4 {
		o := p.shopping(says(), &shop{seamless: n%2 == 0, tabs: 1 + n%3})
		o.says = "sandbox:" + o.about[len("checkout: "):]
		o.callbacks = someCallbackFaults(p.rng)
	}
	for n := range 5 {
		f := fault()
		o := p.shopping(string(f), &shop{seamless: n%2 == 1, tabs: 1 + n%2})
		o.charges = []pspproxy.Act{p.act(f)}
	}
	o := p.shopping("reaches nobody", &shop{seamless: true, tabs: 2})
	o.steps = p.s.refused(1)
	for n, c := range []struct {
		statement string
		at        faultpoint.Point
	}{{"begin_checkout", faultpoint.BeginBefore}, {"finish", faultpoint.FinishBefore}} {
		for _, where := range slices.Repeat([]pgproxy.Point{pgproxy.Asked, pgproxy.Answered}, losesEach-n) {
			o := p.shopping(c.statement+" lost", &shop{seamless: where == pgproxy.Asked, tabs: 2})
			o.steps = append(o.steps, planned{at: c.at, step: p.s.cut(c.statement, where)})
		}
	}
	for n, point := range shopPoints {
		if !p.s.wild || (int64(n)+p.s.seed/2)%2 != 0 {
			continue
		}
		o := p.shopping(fmt.Sprintf("killed at %s", point), &shop{seamless: n%4 < 2, tabs: 2})
		p.lead(o, point)
		o.steps = append(o.steps, planned{at: point, step: die()})
	}
	if !p.s.wild { // where nobody is killed, they sleep: who comes back is fenced out
		o := p.shopping("outrun", &shop{seamless: true, tabs: 2})
		o.steps = append(o.steps, planned{at: faultpoint.FinishBefore, step: step{slow: lease + 3*time.Second}})
		o.manner.hangUps, o.turn = []time.Duration{time.Second}, early
	}
}
