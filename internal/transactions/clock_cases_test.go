package transactions

import (
	"net/http"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

// The cases about the clock that decides, the database's, when somebody sets it while
// payments are under way. A step back makes everything that waits for a moment wait
// longer, and that is all. A step forward ends leases early, and proves early: what it
// may cost is said where it is tried.

// anHour is more than any lease, time-out or settling time.
const anHour = time.Hour

// beat lets the instances beat at the clock as it is now.
func (w *world) beat(is ...instance) {
	w.t.Helper()
	for _, i := range is {
		if _, err := i.service.Beat(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// struckOut is what docs/operate/database.md has for instances that died before the clock
// stepped back.
const struckOut = `DELETE FROM instances WHERE beat_at > clock_timestamp() + interval '10 seconds'`

// onClockedServer plays scenes one after the other on one server, because its clock is
// everybody's, each in a world of its own with a second instance.
func onClockedServer(t *testing.T, scenes map[string]func(s *clockedServer, w *world, other instance)) {
	t.Helper()
	server := newClockedServer(t)
	for name, play := range scenes {
		t.Run(name, func(t *testing.T) {
			w := newClockedWorld(t, server)
			other := w.newInstance(w.db)
			before := w.at(`SELECT clock_timestamp()`)
			server.set(t, -anHour)
			if by := before.Sub(w.at(`SELECT clock_timestamp()`)); (by - anHour).Abs() > time.Minute {
				t.Fatalf("the clock went back by %s", by)
			}
			server.set(t, 0)
			w.beat(w.instance, other)
			play(server, w, other)
			w.wantNothingOpen()
		})
	}
}

func TestH20DatabasesClockThatStepsBackEndsNoLeaseEarly(t *testing.T) {
	t.Parallel()
	onClockedServer(t, map[string]func(s *clockedServer, w *world, other instance){
		"while the provider has the charge": func(s *clockedServer, w *world, other instance) {
			acted, letGo := w.holdAnswer(approve)
			answer := w.sendTo(other, "nonce-1", w.body("order-1", nil))
			receive(w.t, acted, "the send")
			s.set(w.t, -anHour)
			for range 2 { // before its holder has beaten by the new clock, and after
				w.wantInProcess(w.create("nonce-1", w.body("order-1", nil)))
				if n := w.recoverOn(w.instance); n != 0 {
					w.t.Fatalf("recovery took %d from a holder that lives", n)
				}
				w.beat(w.instance, other)
			}
			letGo()
			first := receive(w.t, answer, "the answer")
			w.wantCreated(first)
			w.wantReplay(first, w.create("nonce-1", w.body("order-1", nil)), false)
			w.wantTransaction("nonce-1", Succeeded, 1)
			w.wantSends(1, 1)
			w.wantCharges("order-1", 1)
		},
		"while the provider has the charge of a holder that dies": func(s *clockedServer, w *world, dead instance) {
			w.outlivedByAnHour(s, dead, func() {
				acted, letGo := w.holdAnswer(approve)
				zombie := w.sendTo(dead, "nonce-1", w.body("order-1", nil))
				receive(w.t, acted, "the send")
				w.t.Cleanup(func() {
					letGo()
					receive(w.t, zombie, "the answer to a client that waited all along")
				})
			})
		},
		"when the holder has died before its send": func(s *clockedServer, w *world, dead instance) {
			w.outlivedByAnHour(s, dead, func() { w.claim(dead, "nonce-1", "order-1") })
		},
		"when the holder has died, and an operator strikes it out": func(s *clockedServer, w *world, dead instance) {
			w.claim(dead, "nonce-1", "order-1")
			s.set(w.t, -anHour)
			w.beat(w.instance)
			w.wantInProcess(w.create("nonce-1", w.body("order-1", nil)))
			if n := w.sql(struckOut); n != 1 {
				w.t.Fatalf("%d instances were struck out, want 1", n)
			}
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantSends(1, 1)
			w.wantCharges("order-1", 1)
		},
		"between a lost answer and recovery, and the instance is restarted": func(s *clockedServer, w *world, other instance) {
			w.psp.next(chargeThenTimeout)
			w.want(w.createOn(other, w.test, "nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
			s.set(w.t, -anHour)
			w.beat(w.instance, other)
			if err := other.service.Goodbye(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
			if n := w.recoverOn(w.instance); n != 1 {
				w.t.Fatalf("recovery took %d, want 1", n)
			}
			w.wantSends(1, 1)
			w.wantCharges("order-1", 1)
		},
		"between a lost answer and recovery": func(s *clockedServer, w *world, _ instance) {
			w.lostAnswer("nonce-1", "order-1")
			s.set(w.t, -anHour)
			w.beat(w.instance)
			if n := w.recoverOn(w.instance); n != 0 {
				w.t.Fatalf("recovery took %d that is not due by this clock", n)
			}
			w.wantInProcess(w.create("nonce-1", w.body("order-1", nil)))
			s.set(w.t, grace)
			w.beat(w.instance)
			if n := w.recoverOn(w.instance); n != 1 {
				w.t.Fatalf("recovery took %d, want 1", n)
			}
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantTransaction("nonce-1", Succeeded, 2)
			w.wantSends(1, 1)
			w.wantCharges("order-1", 1)
		},
	})
}

// outlivedByAnHour lets an instance begin nonce-1 and die, and the clock step back. Its
// last beat lies in the future then, so it counts as alive until the clock has caught
// up: the payment waits, and is charged once.
func (w *world) outlivedByAnHour(s *clockedServer, dead instance, begin func()) {
	w.t.Helper()
	begin()
	s.set(w.t, -anHour)
	for _, ahead := range []time.Duration{-anHour, -anHour + testLease + grace, -grace} {
		s.set(w.t, ahead)
		w.beat(w.instance)
		w.wantInProcess(w.create("nonce-1", w.body("order-1", nil)))
		if n := w.recoverOn(w.instance); n != 0 {
			w.t.Fatalf("%s after the step, recovery took %d", anHour+ahead, n)
		}
	}
	s.set(w.t, testLease+grace)
	w.beat(w.instance)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantTransaction("nonce-1", Succeeded, 2)
	w.wantSends(1, 1)
	w.wantCharges("order-1", 1)
}

func TestH20DatabasesClockThatLeapsForwardChargesOnceWhereAReferenceCanBeVoided(t *testing.T) {
	t.Parallel()
	onClockedServer(t, map[string]func(s *clockedServer, w *world, other instance){
		"it is booked, and the merchant retries": func(s *clockedServer, w *world, other instance) {
			acted, letGo := w.holdAnswer(approve)
			answer := w.sendTo(other, "nonce-1", w.body("order-1", nil))
			receive(w.t, acted, "the send")
			s.set(w.t, anHour)
			w.beat(w.instance, other)
			settled := w.create("nonce-1", w.body("order-1", nil))
			w.want(settled, http.StatusCreated)
			letGo()
			w.wantSame(settled, receive(w.t, answer, "the answer of the holder whose lease ended early"))
			w.wantSends(1, 1)
			w.wantCharges("order-1", 1)
		},
		"it is under way, and the merchant retries": func(s *clockedServer, w *world, other instance) {
			left, arrive := w.holdNext(approve)
			answer := w.sendTo(other, "nonce-1", w.body("order-1", nil))
			receive(w.t, left, "the send")
			s.set(w.t, anHour)
			w.beat(w.instance, other)
			settled := w.create("nonce-1", w.body("order-1", nil)) // sends the same reference
			w.want(settled, http.StatusCreated)
			arrive()
			w.wantSame(settled, receive(w.t, answer, "the answer of the holder whose lease ended early"))
			w.wantSends(2, 1)
			w.wantCharges("order-1", 1)
		},
		"it is under way, and recovery proves that it is not booked": func(s *clockedServer, w *world, other instance) {
			left, arrive := w.holdNext(approve)
			answer := w.sendTo(other, "nonce-1", w.body("order-1", nil))
			receive(w.t, left, "the send")
			s.set(w.t, anHour)
			w.beat(w.instance, other)
			if n := w.recoverOn(w.instance); n != 1 {
				w.t.Fatalf("recovery took %d, want 1", n)
			}
			if tx := w.transaction("nonce-1"); !tx.Released {
				w.t.Fatalf("the transaction is %s, and not released", tx.Status)
			}
			arrive() // and meets the void
			w.want(receive(w.t, answer, "the answer of the holder whose lease ended early"), http.StatusServiceUnavailable)
			w.wantCharges("order-1", 0)
			w.wantCreated(w.create("nonce-1", w.body("order-1", nil)))
			w.wantCharges("order-1", 1)
		},
	})
}

func TestH20DatabasesClockThatLeapsForwardSendsNothingTwiceToAProviderThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	onClockedServer(t, map[string]func(s *clockedServer, w *world, other instance){
		"it is under way": func(s *clockedServer, w *world, other instance) {
			w.psp.be(silent)
			left, arrive := w.holdNext(approve)
			answer := w.sendTo(other, "nonce-1", w.body("order-1", nil))
			receive(w.t, left, "the send")
			s.set(w.t, anHour)
			w.beat(w.instance, other)
			if n := w.recoverOn(w.instance); n != 1 {
				w.t.Fatalf("recovery took %d, want 1", n)
			}
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusBadGateway)
			arrive()
			w.want(receive(w.t, answer, "the answer of the holder whose lease ended early"), http.StatusBadGateway)
			w.wantObservations("nonce-1", "approved")
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated) // settled by what that one learnt
			w.wantSends(1, 1)
			w.wantCharges("order-1", 1)
		},
	})
}

// What cannot be promised, and is said in docs/operate/database.md. By a clock that has
// leapt over the proof moment, a charge that is still under way seems to have had its
// time. A provider that could void it would refuse it when it comes. This one can only
// be asked, and knows nothing of it yet: the nonce is given back, and its next life is
// charged beside the first.
func TestH20DatabasesClockThatLeapsOverTheProofMomentChargesTwiceWhereNothingCanBeVoided(t *testing.T) {
	t.Parallel()
	cannotVoid := func(t *providers.Traits) { t.CanVoid = false }
	scene := func(traits func(*providers.Traits), by time.Duration, charges int) func(s *clockedServer, w *world, other instance) {
		return func(s *clockedServer, w *world, other instance) {
			w.psp.be(traits)
			left, arrive := w.holdNext(approve)
			answer := w.sendTo(other, "nonce-1", w.body("order-1", nil))
			receive(w.t, left, "the send")
			s.set(w.t, by)
			w.beat(w.instance, other)
			if n := w.recoverOn(w.instance); n != 1 {
				w.t.Fatalf("recovery took %d, want 1", n)
			}
			if charges > 1 { // the nonce is free
				w.wantCreated(w.create("nonce-1", w.body("order-1", nil)))
			}
			arrive()
			receive(w.t, answer, "the answer of the holder whose lease ended early")
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantCharges("order-1", charges)
		}
	}
	tr := newPSP().Traits()
	proof := terms{testLease, tr.Timeout, tr.Settle}
	short := proof.sendWindow() + proof.travel() - 2*time.Second
	onClockedServer(t, map[string]func(s *clockedServer, w *world, other instance){
		"by an hour, it can only be asked":               scene(notIdempotent, anHour, 2),
		"by an hour, it recognises references":           scene(cannotVoid, anHour, 2),
		"less far than to the proof moment, one charge":  scene(notIdempotent, short, 1),
		"no further, and references would be recognised": scene(cannotVoid, short, 1),
	})
}
