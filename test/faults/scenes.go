package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
	"github.com/oncepay/oncepay/test/faults/record"
)

// A scene is an interleaving that chance would hardly ever find: who does what in
// which order, told with traps. The product comes through each of them; each mutant
// fails in one at least.

// scene is one of them.
type scene struct {
	name string
	// withhold are the traits that the provider must not have: what a void undoes
	// proves nothing about the proof moment.
	withhold string
	play     func(ctx context.Context, a *act) error
}

// policies are those of the scenes that need another than the default.
var policies = map[string]string{keptErrorScene: "novu"}

// keptErrorScene is the one of errorIsKept.
const keptErrorScene = "an error is kept as the answer"

// scenes are all of them. Each mutant names the one that it is hunted with.
var scenes = []scene{
	{"killed after the send", "", killedAfterSend},
	{"killed after the outcome was saved", "", killedAfterFinish},
	{"refused while the first is on its way", "", refusedBehindLate},
	{"asked too early", "can_void", askedTooEarly},
	{"the first holder wakes and releases", "", firstHolderReleases},
	{"the first holder wakes after the outcome", "", firstHolderOverwrites},
	{"a clock that is ahead", "can_void", clockAhead},
	{"the nonce lives again", "", livesAgain},
	{"fifty at once", "", fiftyAtOnce},
	{"expired while unresolved", "", expiredUnresolved},
	{"the client hangs up", "", clientHangsUp},
	{"a reused connection closes", "", reusedCloses},
	{"a slow reader takes over what has ended", "", slowReaderRevives},
	{"a slow reader ends the next life", "", slowReaderEnds},
	{"a resend after the claim's proof", "can_void", resendMovesProof},
	{"a take-over that never was", "can_void", takeOverNeverWas},
	claimSentOn,
	claimReadBack,
	{"a refund that reaches nobody", "", refundReachesNobody},
	{"two refunds that are too much together", "", tooMuchTogether},
	{"called back twice", "", calledBackTwice},
	{"a capture that begins while another one ends", "", beginsWhileAnotherEnds},
	{keptErrorScene, "", errorIsKept},
	twoTabsAtOnce,
	unclearThenNew,
	nobodyThenNew,
	changedAtBegin,
	oneTokenForTwo,
}

// sceneNamed finds a scene.
func sceneNamed(name string) (scene, bool) {
	for _, s := range scenes {
		if s.name == name {
			return s, true
		}
	}
	return scene{}, false
}

// act is one performance of a scene: an order, and the stage with two instances.
type act struct {
	*stage
	o    *order
	a, b *instance
	wg   sync.WaitGroup
	held []*trap
}

const (
	// cueLimit bounds the wait for somebody to come to where the scene needs him.
	cueLimit = 15 * time.Second
	// foundOutWithin bounds the wait for what is behind an error that is kept as the
	// answer, once nothing befalls the order any more. A mutant may never find out.
	foundOutWithin = 3 * lease
	// maybeLimit is how long a scene waits for what only a mutant does.
	maybeLimit = 2 * time.Second
	// lateBy is a delivery after the asker has given up, and well before settling ends.
	lateBy = providerTimeout + settling/2 + 500*time.Millisecond
)

// perform plays a scene to its end, and then does what a merchant does: asks until
// it has an answer, and once more.
func (s *stage) perform(ctx context.Context, n int, sc scene) error {
	a := &act{stage: s, a: s.instances[0], b: s.instances[1], o: &order{
		merchant: n % merchantCount, nonce: fmt.Sprintf("s-%d-%02d", s.seed, n), id: fmt.Sprintf("so-%d-%02d", s.seed, n), about: sc.name,
		manner: manner{replays: 1},
	}}
	s.scripts.add(s.merchants[a.o.merchant].AccountID, a.o)
	err := sc.play(ctx, a)
	for _, t := range a.held {
		t.release()
	}
	a.wg.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w", sc.name, err)
	}
	limit := sceneLimit
	if s.policy.KeepsErrors {
		limit = foundOutWithin
	}
	answered, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if !s.payUntilAnswered(answered, a.o) {
		return fmt.Errorf("%s: never answered", sc.name)
	}
	rest(ctx, lateBy) // what is still on its way arrives
	s.askAgain(ctx, a.o)
	return nil
}

// pay is one request of the scene's order.
func (a *act) pay(ctx context.Context, via *instance) record.Op { return a.payValue(ctx, via, amount) }

func (a *act) payValue(ctx context.Context, via *instance, value string) record.Op {
	op, _ := a.stage.pay(ctx, ask{order: a.o, value: value, via: via})
	return op
}

// send is a request that nobody waits for.
func (a *act) send(ctx context.Context, via *instance) {
	a.wg.Go(func() { a.pay(ctx, via) })
}

// hold sets a trap for the order, which lets go at the end of the scene.
func (a *act) hold(p faultpoint.Point) *trap {
	t := a.ctl.trap(a.o.nonce, p)
	a.held = append(a.held, t)
	return t
}

// await waits until somebody stands in the trap.
func (a *act) await(ctx context.Context, t *trap) error {
	ctx, cancel := context.WithTimeout(ctx, cueLimit)
	defer cancel()
	if t.wait(ctx) != nil {
		return errors.New("nobody came to where the scene needs them")
	}
	return nil
}

// perhaps waits a moment for somebody who comes in a mutant only, and then holds
// nobody else.
func (a *act) perhaps(ctx context.Context, t *trap) {
	ctx, cancel := context.WithTimeout(ctx, maybeLimit)
	defer cancel()
	if t.wait(ctx) != nil {
		t.release()
	}
}

// charges are what the provider's network does to the order's charges.
func (a *act) charges(list ...pspproxy.Act) {
	a.scripts.mu.Lock()
	defer a.scripts.mu.Unlock()
	a.o.charges = append(a.o.charges, list...)
}

func late() pspproxy.Act { return pspproxy.Act{Fault: pspproxy.Late, Delay: lateBy} }

func fault(f pspproxy.Fault) pspproxy.Act { return pspproxy.Act{Fault: f} }

// stillRecovery keeps the recovery of both instances off the order. The traps know
// whose they hold.
func (a *act) stillRecovery() [2]*trap {
	return [2]*trap{a.hold(faultpoint.RecoverBefore), a.hold(faultpoint.RecoverBefore)}
}

func killedAfterSend(ctx context.Context, a *act) error {
	a.ctl.at(a.o.nonce, faultpoint.SendAfter, die())
	a.pay(ctx, a.a)
	return nil
}

func killedAfterFinish(ctx context.Context, a *act) error {
	a.ctl.at(a.o.nonce, faultpoint.FinishAfter, die())
	a.pay(ctx, a.a)
	return nil
}

// refusedBehindLate: the first charge is delivered late; the second attempt finds
// the door shut, and that proves nothing.
func refusedBehindLate(ctx context.Context, a *act) error {
	a.charges(late())
	a.stillRecovery()
	for _, p := range a.refused(2) {
		a.ctl.at(a.o.nonce, p.at, p.step)
	}
	a.pay(ctx, a.a)
	a.pay(ctx, a.a)
	a.pay(ctx, a.b)
	return nil
}

// askedTooEarly: the first charge is still on its way when somebody, who may only
// ask, is told that nothing is known of it.
func askedTooEarly(ctx context.Context, a *act) error {
	a.charges(late())
	a.stillRecovery()
	a.pay(ctx, a.a)
	a.payValue(ctx, a.b, otherAmount)
	a.pay(ctx, a.b)
	return nil
}

// oversleep lets the first holder learn that its charge had no effect, and sleep
// beyond its lease before it says so.
func (a *act) oversleep(ctx context.Context) (*trap, error) {
	a.charges(fault(pspproxy.Unprocessed))
	a.stillRecovery()
	asleep := a.hold(faultpoint.FinishBefore)
	a.send(ctx, a.a)
	if err := a.await(ctx, asleep); err != nil {
		return nil, err
	}
	rest(ctx, lease+100*time.Millisecond)
	return asleep, nil
}

// firstHolderReleases: the second holder's charge is on its way when the first one
// wakes and wants to give the nonce back.
func firstHolderReleases(ctx context.Context, a *act) error {
	asleep, err := a.oversleep(ctx)
	if err != nil {
		return err
	}
	a.charges(late())
	a.pay(ctx, a.b)
	asleep.release()
	a.wg.Wait()
	a.pay(ctx, a.b)
	return nil
}

// firstHolderOverwrites: the second holder has charged and answered.
func firstHolderOverwrites(ctx context.Context, a *act) error {
	asleep, err := a.oversleep(ctx)
	if err != nil {
		return err
	}
	if op := a.pay(ctx, a.b); op.Status != http.StatusCreated {
		return fmt.Errorf("the second holder was answered %d", op.Status)
	}
	asleep.release()
	return nil
}

// clockAhead: the first holder is about to send when another machine, whose clock
// may be ahead, looks at its lease.
func clockAhead(ctx context.Context, a *act) error {
	a.stillRecovery()
	asleep := a.hold(faultpoint.SendBefore)
	a.send(ctx, a.a)
	if err := a.await(ctx, asleep); err != nil {
		return err
	}
	a.payValue(ctx, a.b, otherAmount)
	a.pay(ctx, a.b)
	asleep.release()
	a.wg.Wait()
	return nil
}

func livesAgain(ctx context.Context, a *act) error {
	if op := a.pay(ctx, a.a); op.Status != http.StatusCreated {
		return fmt.Errorf("answered %d", op.Status)
	}
	return a.age(ctx, a.o)
}

func fiftyAtOnce(ctx context.Context, a *act) error {
	a.charges(pspproxy.Act{Fault: pspproxy.Slow, Delay: providerTimeout / 3})
	a.o.manner.storm = stormSize
	a.storm(ctx, a.o)
	return nil
}

// expiredUnresolved: the nonce's time is over before anybody knows what became of
// it. It is not forgotten, and its answer is kept from when it is known.
func expiredUnresolved(ctx context.Context, a *act) error {
	a.charges(fault(pspproxy.TimeoutAfter))
	a.stillRecovery()
	a.pay(ctx, a.a)
	if err := a.age(ctx, a.o); err != nil {
		return err
	}
	rest(ctx, 1500*time.Millisecond) // a purge comes by
	a.pay(ctx, a.b)
	rest(ctx, 1500*time.Millisecond)
	a.pay(ctx, a.a)
	return nil
}

// errorIsKept: the charge is booked and its answer lost. The nonce answers the error from
// then on, and what is behind it is found out all the same.
func errorIsKept(ctx context.Context, a *act) error {
	a.charges(fault(pspproxy.TimeoutAfter))
	op := a.pay(ctx, a.a)
	if !a.policy.Keeps(op) {
		return fmt.Errorf("answered %d", op.Status)
	}
	if again := a.pay(ctx, a.b); !again.Replayed {
		return fmt.Errorf("and then %d", again.Status)
	}
	return nil
}

func clientHangsUp(ctx context.Context, a *act) error {
	a.charges(pspproxy.Act{Fault: pspproxy.Slow, Delay: providerTimeout / 2})
	a.stage.pay(ctx, ask{order: a.o, value: amount, via: a.a, patience: providerTimeout / 5})
	rest(ctx, providerTimeout)
	return nil
}

// reusedCloses: the provider books, closes the connection without an answer, and
// takes no other.
func reusedCloses(ctx context.Context, a *act) error {
	warm := &order{merchant: a.o.merchant, nonce: a.o.nonce + "-warm", id: a.o.id + "-warm"}
	if op, _ := a.stage.pay(ctx, ask{order: warm, value: amount, via: a.a}); op.Status != http.StatusCreated {
		return fmt.Errorf("to begin with, answered %d", op.Status)
	}
	a.charges(pspproxy.Act{Fault: pspproxy.ReusedClosed, Refuse: true})
	a.stillRecovery()
	a.pay(ctx, a.a)
	a.open(a.a)
	a.pay(ctx, a.a)
	return nil
}

// slowReaderRevives: somebody has read that the transaction is unresolved and free;
// then its holder wakes and releases it, and the nonce begins another life.
func slowReaderRevives(ctx context.Context, a *act) error {
	asleep, err := a.oversleep(ctx)
	if err != nil {
		return err
	}
	reader := a.hold(faultpoint.ResumeBefore)
	a.send(ctx, a.b)
	if err := a.await(ctx, reader); err != nil {
		return err
	}
	asleep.release()
	for range 20 {
		if op := a.pay(ctx, a.a); op.Status == http.StatusCreated {
			break
		}
		rest(ctx, restPause)
	}
	reader.release()
	a.wg.Wait()
	return nil
}

// slowReaderEnds: somebody has read that the life is over; then another request ends
// it and begins the next.
func slowReaderEnds(ctx context.Context, a *act) error {
	if op := a.pay(ctx, a.a); op.Status != http.StatusCreated {
		return fmt.Errorf("answered %d", op.Status)
	}
	reader := a.hold(faultpoint.EndLifeBefore)
	// A purge may be quicker; then there is another life to try it with.
	for range 5 {
		if err := a.age(ctx, a.o); err != nil {
			return err
		}
		a.send(ctx, a.a)
		waiting, cancel := context.WithTimeout(ctx, maybeLimit)
		err := reader.wait(waiting)
		cancel()
		if err == nil {
			a.pay(ctx, a.b)
			reader.release()
			a.wg.Wait()
			return nil
		}
		a.wg.Wait()
	}
	return errors.New("the purge was always quicker")
}

// resendMovesProof: when the proof moment of the first claim is over, somebody sends
// again, and that is on its way when another asks.
func resendMovesProof(ctx context.Context, a *act) error {
	a.charges(fault(pspproxy.ErrorBefore), late())
	a.stillRecovery()
	a.pay(ctx, a.a)
	rest(ctx, providerTimeout+settling+300*time.Millisecond)
	a.pay(ctx, a.a)
	a.payValue(ctx, a.b, otherAmount)
	a.pay(ctx, a.b)
	return nil
}

// takeOverNeverWas: a request's take-over is lost on its way to the database, and
// recovery takes the transaction over with the very fence that the request asked for.
func takeOverNeverWas(ctx context.Context, a *act) error {
	a.charges(fault(pspproxy.ErrorBefore))
	recoveries := a.stillRecovery()
	a.pay(ctx, a.a)
	rest(ctx, proofAfter+200*time.Millisecond)
	for _, t := range recoveries {
		if err := a.await(ctx, t); err != nil {
			return err
		}
	}
	lost := a.a.db.Trap("transactions.take_over", pgproxy.Asked)
	defer lost.Cut()
	a.send(ctx, a.a)
	select {
	case <-lost.Sprung():
	case <-time.After(cueLimit):
		return errors.New("nobody took over")
	}
	taken, wire := a.hold(faultpoint.RecoverAfter), a.hold(faultpoint.SendWire)
	for _, t := range recoveries {
		if t.by() == a.b.name {
			t.release()
		}
	}
	if err := a.await(ctx, taken); err != nil {
		return err
	}
	lost.Cut()
	a.perhaps(ctx, wire)
	taken.release()
	for range 40 { // until the release is seen, and a new life has its answer
		if op := a.pay(ctx, a.b); op.Status == http.StatusCreated {
			break
		}
		rest(ctx, 2*restPause)
	}
	wire.release()
	a.wg.Wait()
	return nil
}
