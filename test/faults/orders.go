package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
)

// A round's orders are drawn from its seed. The planned ones see to it that every
// kill, every fault and every manner of a client comes up in every round; the
// rest mix them, in what time is left.

// The turns of a round: those with a long way to where something befalls them, or that
// few rounds have, begin first, and those that are there for good measure last. Where a machine is slow, a
// round is over before its last orders have begun.
const (
	early       = -1
	goodMeasure = 1
)

// press draws orders.
type press struct {
	s      *stage
	rng    *rand.Rand
	orders []*order
	// actions and parts count what was drawn of each.
	actions, parts int
	// voids says whether the provider can void a reference. Where it cannot, nobody
	// may sleep between the last look at the clock and the wire for long: what then
	// arrives after the proof cannot be undone. docs/concepts/idempotency.md says so.
	voids bool
}

func (s *stage) drawOrders(mixed int) []*order {
	p := &press{s: s, rng: rand.New(rand.NewPCG(uint64(s.seed), 0x0ce)), voids: s.withhold == ""}
	for _, point := range faultpoint.Points {
		// Where the way to a point is long, it is not come to while processes die all
		// the time; nor by each order, on the instance that may be killed.
		times := 1
		if !s.wild {
			times = 2
		}
		for n := range 2 * times {
			if slices.Contains(farPoints, point) != s.wild && (p.voids || !isVoid(point)) {
				p.kill(point, n%2 == 1)
			}
		}
	}
	if !s.wild {
		p.freezes()
		p.zombies()
		p.voidings()
	}
	p.plots()
	p.killActions()
	p.providers()
	p.databases()
	p.databasesOfActions()
	p.breaks()
	p.deaths()
	p.manners()
	p.checkouts()
	for range mixed {
		p.mix()
	}
	p.handToSDK()
	p.rng.Shuffle(len(p.orders), func(i, j int) { p.orders[i], p.orders[j] = p.orders[j], p.orders[i] })
	slices.SortStableFunc(p.orders, func(a, b *order) int { return a.turn - b.turn })
	return p.orders
}

func isVoid(p faultpoint.Point) bool { return p == faultpoint.VoidBefore || p == faultpoint.VoidAfter }

// farPoints are reached after many seconds only; or, as the end of a life is, by a
// merchant who comes back before the purge.
var farPoints = []faultpoint.Point{
	faultpoint.EndLifeBefore, faultpoint.ObserveBefore, faultpoint.VoidBefore, faultpoint.VoidAfter, faultpoint.ResolveAfter, faultpoint.PurgeAfter,
}

const (
	// leftToRecovery is how long a merchant stays away so that recovery comes first:
	// beyond the lease, and the second that recovery leaves to the merchant.
	leftToRecovery = lease + 3*time.Second
	// leftToVoid is how long it does so that recovery, which may only void after the
	// proof moment, comes first even if it slept for longer than a lease meanwhile. The
	// merchant's own request would not void: it sends again.
	leftToVoid = proofAfter + lease + 4*time.Second
)

func (p *press) order(about string) *order {
	n := len(p.orders)
	o := &order{
		merchant: n % merchantCount, nonce: fmt.Sprintf("n-%d-%04d", p.s.seed, n), id: fmt.Sprintf("o-%d-%04d", p.s.seed, n), about: about,
		manner: manner{moves: p.rng.IntN(2) == 0, replays: 1 + p.rng.IntN(2), atOnce: p.rng.IntN(3) == 0},
	}
	p.orders = append(p.orders, o)
	return o
}

func acts(faults ...pspproxy.Fault) []pspproxy.Act {
	var list []pspproxy.Act
	for _, f := range faults {
		list = append(list, pspproxy.Act{Fault: f})
	}
	return list
}

// kill makes an order whose process is killed at a point, and perhaps the next one
// that comes there, too.
func (p *press) kill(point faultpoint.Point, twice bool) {
	o := p.order(fmt.Sprintf("killed at %s", point))
	p.lead(o, point)
	end := die()
	switch {
	case p.s.wild:
	case point == faultpoint.ObserveBefore:
		o.turn = early // it sleeps for long
	case isVoid(point):
		o.turn = early // by when either instance may void, nobody sleeps any more
	default:
		end.on = firstInstance // where nobody sleeps
		o.merchant, o.manner.moves, o.turn = 0, false, early
	}
	purge := point == faultpoint.PurgeBefore || point == faultpoint.PurgeAfter // which knows no nonce
	o.steps = append(o.steps, planned{at: point, step: end, any: purge})
	if twice {
		o.twice = append(o.twice, point)
	}
}

// lead brings an order to where it reaches a point.
func (p *press) lead(o *order, point faultpoint.Point) {
	switch point {
	case faultpoint.LeaveBefore, faultpoint.LeaveAfter:
		o.charges = acts(pspproxy.ErrorAfter, pspproxy.ErrorAfter) // whoever dies on the way there comes by once more
		o.inquiries = acts(pspproxy.ErrorBefore, pspproxy.ErrorBefore)
	case faultpoint.ResumeBefore, faultpoint.ResumeAfter:
		o.charges = acts(pspproxy.ErrorBefore)
		o.manner.atOnce = true
		p.outlive(o)
	case faultpoint.ObserveBefore:
		// It stands still beyond its lease when it has its outcome, and comes back
		// fenced out.
		o.steps = append(o.steps, planned{at: faultpoint.FinishBefore, step: step{slow: lease + 3*time.Second}})
		o.merchant, o.manner.moves = 1, false // not where processes are killed
	case faultpoint.EndLifeBefore:
		o.story = reborn
	case faultpoint.PurgeBefore, faultpoint.PurgeAfter:
		o.story = forgotten
	case faultpoint.RecoverBefore, faultpoint.RecoverAfter, faultpoint.RecoverAsked:
		o.charges = acts(pspproxy.ErrorBefore)
		o.story, o.manner.lazy = patient, leftToRecovery
	case faultpoint.VoidBefore, faultpoint.VoidAfter:
		o.charges = acts(pspproxy.TimeoutBefore)
		o.story, o.manner.lazy = patient, leftToVoid
	case faultpoint.ResolveAfter:
		p.needsPerson(o)
	case faultpoint.CallbackKept:
		o.says, o.turn = "sandbox:pending-then-approve=1s", early
	default: // on everybody's way
	}
}

// outlive lets the order's client outlive its first request, where an error would be the
// nonce's answer and nobody would resume: that request stands still beyond its lease
// before it tells the error, and the client's next one comes before recovery does.
func (p *press) outlive(o *order) {
	if !p.s.policy.KeepsErrors {
		return
	}
	o.steps = append(o.steps, planned{at: faultpoint.SendAfter, step: step{slow: lease + 2*time.Second}})
	o.manner.hangUps, o.turn = []time.Duration{time.Second}, early
}

// needsPerson makes an order that nobody but a person can settle.
func (p *press) needsPerson(o *order) {
	o.story = person
	o.charges = acts(p.oneOf(pspproxy.TimeoutBefore, pspproxy.TimeoutAfter))
	o.inquiries = acts(slices.Repeat([]pspproxy.Fault{pspproxy.ErrorBefore}, 30)...)
}

func (p *press) oneOf(faults ...pspproxy.Fault) pspproxy.Fault {
	return faults[p.rng.IntN(len(faults))]
}

// freezes: shorter and longer than the lease, where it matters most. Each stalls a
// whole instance.
func (p *press) freezes() {
	points := []faultpoint.Point{faultpoint.BeginAfter, faultpoint.SendBefore, faultpoint.SendAfter, faultpoint.FinishBefore, faultpoint.ResumeBefore}
	if p.voids {
		points = append(points, faultpoint.SendWire)
	}
	for n, d := range []time.Duration{lease / 4, lease / 2, lease + 2*time.Second} {
		point := points[(p.rng.IntN(len(points))+n)%len(points)]
		o := p.order(fmt.Sprintf("frozen at %s for %s", point, d))
		p.lead(o, point)
		o.steps = append(o.steps, planned{at: point, step: freeze(d)})
	}
}

// attemptsTried is how many attempts at the provider each fault is tried at.
const attemptsTried = 3

// attempts is at how many attempts each fault is tried in this round. Where an error is
// the nonce's answer, the first attempt is most often the only one.
func (p *press) attempts() int {
	if p.s.policy.KeepsErrors {
		return 1
	}
	return attemptsTried
}

// providers: every fault at every attempt. What comes before it leaves the outcome
// open and books nothing, so that the next attempt sends again.
func (p *press) providers() {
	for _, f := range pspproxy.Faults {
		for attempt := range p.attempts() {
			o := p.order(fmt.Sprintf("%s, attempt %d", f, attempt+1))
			o.charges = acts(slices.Repeat([]pspproxy.Fault{pspproxy.ErrorBefore}, attempt)...)
			o.charges = append(o.charges, p.act(f))
			o.manner.atOnce = attempt > 0
		}
		for range timesOf(f) {
			o := p.order(fmt.Sprintf("asked: %s", f))
			o.charges, o.inquiries = acts(p.oneOf(pspproxy.TimeoutAfter, pspproxy.ErrorAfter)), []pspproxy.Act{p.act(f)}
			o.turn = early
		}
	}
	for attempt := 1; attempt <= p.attempts(); attempt++ {
		for n := range 2 * attempt { // the later the attempt, the fewer come so far
			o := p.order(fmt.Sprintf("refused, attempt %d", attempt))
			o.charges = acts(slices.Repeat([]pspproxy.Fault{pspproxy.ErrorBefore}, attempt-1)...)
			if attempt > 1 {
				o.turn = early
			}
			if attempt > 1 && n%2 == 0 { // and the first is still on its way
				o.charges[0] = p.act(pspproxy.Late)
			}
			o.steps = p.s.refused(attempt)
			o.manner.atOnce = true
		}
	}
}

// voidings: every fault of a void, which comes after the proof.
func (p *press) voidings() {
	if !p.voids {
		return
	}
	for _, f := range pspproxy.Faults {
		for range voidsEach * timesOf(f) {
			o := p.order(fmt.Sprintf("voided: %s", f))
			o.charges, o.voids = acts(pspproxy.TimeoutBefore), []pspproxy.Act{p.act(f)}
			o.story, o.manner.lazy, o.turn = patient, leftToVoid, early
		}
	}
}

// voidsEach is how often a round tries each fault when it voids: few rounds do.
const voidsEach = 4

// timesOf says how often a fault is tried for each time that it is to happen. A
// connection that is reused is not always at hand.
func timesOf(f pspproxy.Fault) int {
	if f == pspproxy.ReusedClosed {
		return 4
	}
	return 1
}

// act is a fault with the times that it needs.
func (p *press) act(f pspproxy.Fault) pspproxy.Act {
	a := pspproxy.Act{Fault: f, Variant: p.rng.IntN(4)}
	switch f {
	case pspproxy.Late: // after the time-out, and within what settling allows
		a.Delay = providerTimeout + time.Duration(p.rng.Int64N(int64(settling*3/4)))
	case pspproxy.Slow:
		a.Delay = providerTimeout/10 + time.Duration(p.rng.Int64N(int64(providerTimeout/2)))
	default:
	}
	return a
}

// statementsLost are the statements that are lost on their way, or whose answer is.
var statementsLost = []string{"begin", "begin_action", "begin_checkout", commitOfSeveral, "finish", "leave", "observe", "take_over"}

// databases: each statement of a payment lost on its way, or its answer.
func (p *press) databases() {
	for _, c := range []struct {
		statement string
		at        faultpoint.Point
	}{
		{"begin", faultpoint.BeginBefore}, {"finish", faultpoint.FinishBefore}, {"leave", faultpoint.LeaveBefore},
		{"take_over", faultpoint.ResumeBefore}, {"take_over", faultpoint.RecoverBefore}, {"observe", faultpoint.ObserveBefore},
	} {
		if c.at == faultpoint.ObserveBefore && p.s.wild { // nobody sleeps there
			continue
		}
		times, far := losesEach, c.at == faultpoint.ObserveBefore
		if far { // fewer rounds have it
			times *= 2
		}
		for _, where := range slices.Repeat([]pgproxy.Point{pgproxy.Asked, pgproxy.Answered}, times) {
			o := p.order(fmt.Sprintf("%s lost", c.statement))
			p.lead(o, c.at)
			if far {
				o.turn = early // it sleeps for long, and others who do are killed in the end
			}
			// Not each who sleeps is outrun; so it befalls whoever comes there next.
			o.steps = append(o.steps, planned{at: c.at, step: p.s.cut(c.statement, where), any: far})
		}
	}
}

// databasesOfActions: the same of what only actions say.
func (p *press) databasesOfActions() {
	if p.s.paymentsAlone() {
		return
	}
	for _, c := range []struct {
		statement string
		at        faultpoint.Point
	}{{"begin_action", faultpoint.BeginBefore}, {commitOfSeveral, faultpoint.FinishBefore}} {
		for _, where := range slices.Repeat([]pgproxy.Point{pgproxy.Asked, pgproxy.Answered}, losesEach+1) {
			o, a := p.part(fmt.Sprintf("of an action: %s lost", c.statement))
			o.turn = early
			a.steps = append(a.steps, planned{at: c.at, step: p.s.cut(c.statement, where)})
		}
	}
}

const (
	// losesEach is how often a round loses each statement, and each answer: half of
	// those that come late in a payment's life are never said.
	losesEach = 2
	// breaksEach is how often a round breaks each statement, and each answer, off.
	breaksEach = 3
	// longestMessage is more than the exchange of any statement of ours is long, so
	// that a number below it falls on each of its bytes; pgproxy counts it round.
	longestMessage = 1 << 14
)

// statementsBroken are those with a COMMIT on which a payment depends, and where they
// are said.
var statementsBroken = []struct {
	name string
	at   faultpoint.Point
}{{"begin", faultpoint.BeginBefore}, {"finish", faultpoint.FinishBefore}}

// breaks: begin and finish, which commit, broken off in the middle of what is asked or
// answered. The seeds sweep over the bytes.
func (p *press) breaks() {
	for _, c := range statementsBroken {
		for _, where := range slices.Repeat([]pgproxy.Point{pgproxy.Asked, pgproxy.Answered}, breaksEach) {
			n := p.rng.IntN(longestMessage)
			o := p.order(fmt.Sprintf("%s broken off after %d bytes", c.name, n))
			o.steps = append(o.steps, planned{at: c.at, step: p.s.cutWithin(c.name, where, n)})
		}
	}
}

// killsAfterAnswer is how many orders of a round end PostgreSQL by their success.
const killsAfterAnswer = 4

// deaths: PostgreSQL is killed right after it was told to a client that something is
// paid. What was told has to be there again.
func (p *press) deaths() {
	if !p.s.mortal {
		return
	}
	for range killsAfterAnswer {
		o := p.order("PostgreSQL killed after its answer")
		o.last, o.turn = true, early // there may be no time for the round's last orders
	}
}

const (
	// stormSize is more than a pool has connections.
	stormSize = 50
	// exhaustsEach is how often a round exhausts an instance's pool.
	exhaustsEach = 4
)

func (p *press) manners() {
	for range 2 {
		p.order("storm").manner.storm = stormSize
		o := p.order("storm at a slow provider")
		o.manner.storm, o.charges = stormSize, []pspproxy.Act{p.act(pspproxy.Slow)}
		o = p.order("another body")
		o.manner.otherBody, o.charges = true, []pspproxy.Act{p.act(pspproxy.Late)}
		o = p.order("another body")
		o.manner.otherBody, o.charges = true, acts(pspproxy.TimeoutAfter)
		p.order("expired").story = reborn
		o = p.order("expired while unresolved")
		o.story, o.charges = agedUnresolved, acts(p.oneOf(pspproxy.TimeoutAfter, pspproxy.ErrorAfter, pspproxy.ResetAfter))
		p.needsPerson(p.order("a person"))
		p.order("declined").declined = true
		a, b := p.order("twin"), p.order("twin")
		b.nonce, b.id, a.story, b.story = a.nonce, a.id, twin, twin
	}
	for range exhaustsEach {
		o := p.order("more requests than connections")
		o.manner.storm, o.manner.exhausts = stormSize, true
	}
	for range 6 {
		o := p.order("hangs up")
		o.charges = []pspproxy.Act{p.act(pspproxy.Slow)}
		for range 1 + p.rng.IntN(3) {
			o.manner.hangUps = append(o.manner.hangUps, time.Duration(1+p.rng.IntN(300))*time.Millisecond)
		}
	}
}

// mix draws an order that meets a few things at once.
func (p *press) mix() {
	o := p.order("mixed")
	o.turn = goodMeasure
	for range p.rng.IntN(3) {
		o.charges = append(o.charges, p.act(pspproxy.Faults[p.rng.IntN(len(pspproxy.Faults))]))
	}
	for range p.rng.IntN(3) {
		o.inquiries = append(o.inquiries, p.act(pspproxy.Faults[p.rng.IntN(len(pspproxy.Faults))]))
	}
	switch p.rng.IntN(6) {
	case 0:
		o.manner.storm = 2 + p.rng.IntN(8)
	case 1:
		o.manner.otherBody = true
	case 2:
		o.manner.hangUps = []time.Duration{time.Duration(1+p.rng.IntN(1500)) * time.Millisecond}
	case 3:
		o.manner.lazy = time.Duration(p.rng.Int64N(int64(lease)))
	case 4:
		o.story = reborn
	}
	if p.rng.IntN(12) == 0 {
		o.declined = true
	}
	p.furtherMix(o)
}
