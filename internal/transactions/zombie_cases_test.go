package transactions

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/providers"
)

// The cases about sleeping: a holder that was taken for dead, wakes, and goes on with
// what it was doing. It must not send what is no longer its to send, and whatever it
// saves, gives back or decides must meet a fence that has moved.

// oversleep makes a run believe that its time to send has just passed.
func (r *run) oversleep() { r.started = r.started.Add(-r.terms.sendWindow()) }

// sleeper is a provider whose adapter is paused between its call and the wire.
type sleeper struct {
	*psp
	pause func()
}

func (s sleeper) Charge(ctx context.Context, c providers.Charge, may providers.MaySend) providers.Result {
	s.pause()
	return s.psp.Charge(ctx, c, may)
}

func (s sleeper) Operate(ctx context.Context, o providers.Operation, may providers.MaySend) providers.Result {
	s.pause()
	return s.psp.Operate(ctx, o, may)
}

func (s sleeper) Void(ctx context.Context, o providers.Order, may providers.MaySend) providers.Result {
	s.pause()
	return s.psp.Void(ctx, o, may)
}

func TestH12HolderPausedBeforeItsSendDoesNotSend(t *testing.T) {
	t.Parallel()
	for where, pause := range map[string]func(w *world, r *run){
		"before it calls the provider": func(_ *world, r *run) { r.oversleep() },
		"between its call and the wire": func(w *world, r *run) {
			r.provider = sleeper{w.psp, r.oversleep}
		},
	} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			r := w.claim(w.instance, "nonce-1", "order-1")
			pause(w, r)
			result := w.service.send(t.Context(), r)
			if result.Outcome != providers.NotReached {
				t.Fatalf("the outcome is %s, want not_reached", result.Outcome)
			}
			w.wantSends(0, 0)
			// It was the first attempt, and proves that it had no effect: the nonce is free.
			if _, err := w.service.conclude(t.Context(), r, result, false); err == nil {
				t.Error("a payment that was never sent was told as a success")
			}
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantCharges("order-1", 1)
			w.wantSends(1, 1)
		})
	}
}

func TestH12HolderPausedBeforeItsSendFindsItselfFencedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	r := w.claim(w.instance, "nonce-1", "order-1")
	w.shift("nonce-1", testLease)
	answer := w.create("nonce-1", w.body("order-1", nil))
	w.want(answer, http.StatusCreated)

	r.oversleep()
	told, err := w.service.conclude(t.Context(), r, w.service.send(t.Context(), r), false)
	if err != nil {
		t.Fatal(err)
	}
	w.wantSame(answer, response{status: told.Status, body: told.Body})
	w.wantReplay(answer, w.create("nonce-1", w.body("order-1", nil)), false)
	w.wantSends(1, 1)
	w.wantObservations("nonce-1", "not_reached")
}

// The clock of a holder starts before its claim is asked for, so that a commit whose
// answer was long under way is paid for with the time to send.
func TestH12HolderWhoseClaimWasLongInComingDoesNotSend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.be(func(t *providers.Traits) { t.Timeout = 100 * time.Millisecond })
	i, proxy := w.behind(func(o *Options) { o.Lease = LeaseMargin + 100*time.Millisecond })
	slow := proxy.Trap("transactions.begin", pgproxy.Answered)
	first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
	slow.Wait(t)
	w.until("the time to send is over", func() bool {
		return w.count(`SELECT count(*) FROM transactions WHERE may_send_until <= clock_timestamp()`) == 1
	})
	slow.Pass()
	w.want(receive(t, first, "the answer"), http.StatusServiceUnavailable)
	w.wantSends(0, 0)
}

// A void that comes too late could hit the reference of a charge that somebody else
// is just sending again.
func TestH12HolderPausedBeforeItsVoidDoesNotVoid(t *testing.T) {
	t.Parallel()
	for where, pause := range map[string]func(w *world, r *run){
		"before it calls the provider": func(_ *world, r *run) { r.oversleep() },
		"between its call and the wire": func(w *world, r *run) {
			r.provider = sleeper{w.psp, r.oversleep}
		},
	} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.claim(w.instance, "nonce-1", "order-1")
			w.shift("nonce-1", 2*testLease) // past the proof moment
			r, err := w.service.takeOver(t.Context(), w.transaction("nonce-1"), w.psp, byRecovery)
			if err != nil || r == nil {
				t.Fatal("not taken over:", err)
			}
			pause(w, r)
			result, proven, _ := w.service.settle(t.Context(), r)
			if proven || result.Outcome == providers.Voided {
				t.Errorf("the outcome is %s, proven %t", result.Outcome, proven)
			}
			if w.psp.voided[r.tx.ID.String()] {
				t.Error("the reference was voided")
			}
			_, _ = w.service.conclude(t.Context(), r, result, proven) // what matters is the row
			w.wantTransaction("nonce-1", Created, 2)
		})
	}
}

func TestH13PausedAfterSendIsFencedAndObserved(t *testing.T) {
	t.Parallel()
	for outcome, does := range map[string]behaviour{"approved": approve, "declined": decline} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			acted, wake := w.holdAnswer(does)
			zombie := w.background("nonce-1", w.body("order-1", nil))
			receive(t, acted, "the send")
			w.shift("nonce-1", testLease)
			answer := w.create("nonce-1", w.body("order-1", nil))
			w.want(answer, http.StatusCreated)
			settled := w.transaction("nonce-1")

			wake()
			w.wantSame(answer, receive(t, zombie, "the zombie's answer"))
			w.wantObservations("nonce-1", outcome)
			if now := w.transaction("nonce-1"); fmt.Sprint(now) != fmt.Sprint(settled) {
				t.Errorf("the zombie changed a settled transaction:\n%+v\n%+v", settled, now)
			}
			w.wantReplay(answer, w.create("nonce-1", w.body("order-1", nil)), false)
			w.wantEvents("nonce-1", "provider")
			w.wantSends(1, 1)
		})
	}
}

// The provider can't be asked: what the zombie learnt is all that anybody will ever
// know of the charge.
func TestH13WhatAZombieLearntSettlesThePayment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(silent)
	acted, wake := w.holdAnswer(approve)
	zombie := w.background("nonce-1", w.body("order-1", nil))
	receive(t, acted, "the send")
	w.shift("nonce-1", testLease)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusBadGateway, "PROVIDER_ERROR")

	wake()
	w.want(receive(t, zombie, "the zombie's answer"), http.StatusBadGateway, "PROVIDER_ERROR")
	w.wantObservations("nonce-1", "approved")
	w.wantTransaction("nonce-1", Created, 2)
	w.dueAgain("nonce-1")
	if n := w.recoverOn(w.instance); n != 1 {
		t.Fatalf("recovery took %d, want 1", n)
	}
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantTransaction("nonce-1", Succeeded, 3)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

// Many holders were fenced out and learnt nothing; then one that learnt something.
func TestH13WhatOneZombieLearntIsFoundAmongManyThatLearntNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(silent)
	w.lostAnswer("nonce-1", "order-1")
	tx := w.transaction("nonce-1")
	for range 30 {
		if err := w.service.store.observe(t.Context(), tx, providers.Result{Outcome: providers.Unclear}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.service.store.observe(t.Context(), tx, approved(tx.ID.String()), nil); err != nil {
		t.Fatal(err)
	}
	w.dueAgain("nonce-1")
	w.recoverOn(w.instance)
	w.wantTransaction("nonce-1", Succeeded, 2)
}

// A holder that was fenced out told its client what it had seen, a time-out, although
// the answer was there to be told.
func TestH13ZombieThatLearntNothingTellsWhatIsStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	acted, wake := w.holdAnswer(chargeThenTimeout)
	zombie := w.background("nonce-1", w.body("order-1", nil))
	receive(t, acted, "the send")
	w.shift("nonce-1", testLease)
	answer := w.create("nonce-1", w.body("order-1", nil))
	w.want(answer, http.StatusCreated)
	wake()
	w.wantSame(answer, receive(t, zombie, "the zombie's answer"))
	w.wantReplay(answer, w.create("nonce-1", w.body("order-1", nil)), false)
}

// A process that was stopped for longer than its lease wakes with the provider's
// answer in its hands. Its request's own time-out had passed as well, and took the
// only memory of the charge with it.
func TestH13PausedForLongerThanItsLeaseSavesOrObserves(t *testing.T) {
	t.Parallel()
	for meanwhile, c := range map[string]struct {
		act          func(w *world)
		status       Status
		fence        int64
		observations []string
	}{
		"nobody came":         {func(*world) {}, Succeeded, 1, nil},
		"somebody took over":  {func(w *world) { w.dueAgain("nonce-1"); w.recoverOn(w.instance) }, Created, 2, []string{"approved"}},
		"somebody parked it":  {func(w *world) { w.park("nonce-1") }, Created, 3, []string{"approved"}},
		"a person decided it": {func(w *world) { w.want(w.resolve("nonce-1", "succeeded"), http.StatusOK) }, Succeeded, 2, []string{"approved"}},
	} {
		t.Run(meanwhile, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.psp.be(silent)
			w.psp.be(func(t *providers.Traits) { t.Timeout, t.Settle = 100*time.Millisecond, 100*time.Millisecond })
			brief := w.newInstanceWith(w.db, func(o *Options) { o.Lease = LeaseMargin + 100*time.Millisecond })
			w.steady()
			acted, wake := w.holdAnswer(approve)
			zombie := w.sendTo(brief, "nonce-1", w.body("order-1", nil))
			receive(t, acted, "the send")
			w.until("the lease is over, and so is all the time that the request had", func() bool {
				return w.count(`SELECT count(*) FROM transactions WHERE lease_until < clock_timestamp() - interval '200 milliseconds'`) == 1
			})
			c.act(w)
			wake()
			r := receive(t, zombie, "the zombie's answer")
			w.wantTransaction("nonce-1", c.status, c.fence)
			w.wantObservations("nonce-1", c.observations...)
			if c.status == Succeeded {
				w.want(r, http.StatusCreated)
			}
			w.wantCharges("order-1", 1)
		})
	}
}

func TestH14ZombieOfTheFirstAttemptReleasesNothingOfTheSecond(t *testing.T) {
	t.Parallel()
	for how, fails := range map[string]behaviour{"refused": refuse, "not reached": notReached} {
		t.Run(how+", the second is answered", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			arrived, wake := w.holdNext(fails)
			zombie := w.background("nonce-1", w.body("order-1", nil))
			receive(t, arrived, "the first send")
			w.shift("nonce-1", testLease)
			answer := w.create("nonce-1", w.body("order-1", nil)) // inquires, and sends again
			w.want(answer, http.StatusCreated)

			wake()
			w.wantSame(answer, receive(t, zombie, "the zombie's answer"))
			w.wantReplay(answer, w.create("nonce-1", w.body("order-1", nil)), false)
			w.wantCharges("order-1", 1)
			w.wantSends(2, 1)
		})
		t.Run(how+", the second is in flight", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			arrived, wake := w.holdNext(fails)
			zombie := w.background("nonce-1", w.body("order-1", nil))
			receive(t, arrived, "the first send")
			w.shift("nonce-1", testLease)
			acted, letGo := w.holdAnswer(approve)
			retry := w.background("nonce-1", w.body("order-1", nil))
			receive(t, acted, "the second send")

			wake()
			w.want(receive(t, zombie, "the zombie's answer"), http.StatusBadGateway, "PROVIDER_ERROR")
			w.wantInProcess(w.create("nonce-1", w.body("order-1", nil)))
			letGo()
			answer := receive(t, retry, "the retry")
			w.want(answer, http.StatusCreated)
			w.wantReplay(answer, w.create("nonce-1", w.body("order-1", nil)), false)
			w.wantCharges("order-1", 1)
			w.wantSends(2, 1)
		})
		t.Run(how+", the second is unresolved", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			arrived, wake := w.holdNext(fails)
			zombie := w.background("nonce-1", w.body("order-1", nil))
			receive(t, arrived, "the first send")
			w.shift("nonce-1", testLease)
			w.psp.next(chargeThenTimeout)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)

			wake()
			w.want(receive(t, zombie, "the zombie's answer"), http.StatusBadGateway, "PROVIDER_ERROR")
			w.wantTransaction("nonce-1", Created, 2)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantCharges("order-1", 1)
			if n := w.transactionsOf("nonce-1"); n != 1 {
				t.Errorf("%d lives, want 1", n)
			}
		})
	}
}

// record is everything that is kept of a nonce's present life.
func (w *world) record(nonce string) string {
	w.t.Helper()
	var rows []string
	err := w.db.Conn(w.t.Context()).Raw(`SELECT k::text || t::text || p::text FROM idempotency_keys k
		JOIN transactions t ON t.id = k.transaction_id JOIN payments p ON p.id = t.payment_id WHERE k.key_id = $1`, nonce).Scan(&rows).Error
	if err != nil || len(rows) != 1 {
		w.t.Fatalf("%d present lives: %v", len(rows), err)
	}
	return rows[0]
}

func TestH15ZombieOfAnEarlierLifeChangesNothingOfTheNext(t *testing.T) {
	t.Parallel()
	for outcome, does := range map[string]behaviour{
		"saves a decline": decline, "releases what was refused": refuse, "releases what was not reached": notReached, "leaves what is unclear": timeout,
	} {
		for _, inFlight := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the next in flight %t", outcome, inFlight), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.steady()
				w.psp.be(notIdempotent)
				arrived, wake := w.holdNext(does)
				zombie := w.background("nonce-1", w.body("order-1", nil))
				receive(t, arrived, "the send of the first life")
				first := w.transaction("nonce-1")
				w.shift("nonce-1", 2*testLease) // past the proof moment
				w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")

				acted, letGo := w.holdAnswer(approve)
				next := w.background("nonce-1", w.body("order-1", nil))
				receive(t, acted, "the send of the second life")
				if !inFlight {
					letGo()
					w.until("the second life is answered", func() bool { return w.transaction("nonce-1").Status == Succeeded })
				}
				before := w.record("nonce-1")

				wake()
				w.want(receive(t, zombie, "the zombie's answer"), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
				if after := w.record("nonce-1"); after != before {
					t.Errorf("the zombie changed the life after its own:\n%s\n%s", before, after)
				}
				letGo()
				answer := receive(t, next, "the second life's answer")
				w.want(answer, http.StatusCreated)
				w.wantReplay(answer, w.create("nonce-1", w.body("order-1", nil)), false)
				w.wantCharges("order-1", 1)
				if n := w.count(`SELECT count(*) FROM provider_observations WHERE transaction_id = $1`, first.ID); n != 1 {
					t.Errorf("%d observations of the first life, want 1", n)
				}
			})
		}
	}
}

// A send that sleeps through the proof can only be stopped by the provider: where it
// can void, it refuses the reference from then on.
func TestH15SendThatSleepsThroughItsReleaseMeetsAVoid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(func(t *providers.Traits) { t.Idempotent = false })
	arrived, wake := w.holdNext(approve)
	zombie := w.background("nonce-1", w.body("order-1", nil))
	receive(t, arrived, "the first send")
	w.shift("nonce-1", 2*testLease)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
	answer := w.create("nonce-1", w.body("order-1", nil))
	w.want(answer, http.StatusCreated)
	wake()
	w.want(receive(t, zombie, "the zombie's answer"), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
	w.wantReplay(answer, w.create("nonce-1", w.body("order-1", nil)), false)
	w.wantCharges("order-1", 1)
}

// wantWait fails the test unless r says to come back within about that time.
func (w *world) wantWait(r response, about time.Duration) {
	w.t.Helper()
	w.want(r, http.StatusConflict, "REQUEST_IN_PROCESS")
	got, err := strconv.Atoi(r.header.Get("Retry-After"))
	if wait := time.Duration(got) * time.Second; err != nil || wait > about+time.Second || wait < about-10*time.Second {
		w.t.Fatalf("Retry-After is %q, want about %s", r.header.Get("Retry-After"), about)
	}
}

// untilProof is how long after a claim the proof moment comes in these tests.
const untilProof = testLease - sendMargin + 4*time.Second // the time-out takes and gives

func TestH16ProviderWithoutIdempotencyIsOnlyAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(notIdempotent)
	w.psp.next(timeout) // under way, or lost
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
	mayStillArrive := w.transaction("nonce-1").MaySendUntil

	w.wantWait(w.create("nonce-1", w.body("order-1", nil)), untilProof)
	w.dueAgain("nonce-1")
	if n := w.recoverOn(w.instance); n != 1 {
		t.Fatalf("recovery took %d, want 1", n)
	}
	w.wantWait(w.create("nonce-1", w.body("order-1", nil)), untilProof)
	if tx := w.wantTransaction("nonce-1", Created, 4); !tx.MaySendUntil.Equal(mayStillArrive) {
		t.Errorf("whoever only asks moved may_send_until from %s to %s", mayStillArrive, tx.MaySendUntil)
	}
	w.wantSends(1, 1)
	if n := w.psp.inquiries(); n != 3 {
		t.Errorf("%d inquiries, want one for each attempt", n)
	}

	w.shift("nonce-1", untilProof)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
	w.wantSends(1, 1)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantSends(2, 2)
	w.wantCharges("order-1", 1)
}

func TestH16SendThatArrivesLateIsFoundByTheNextInquiry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(notIdempotent)
	var underWay providers.Charge
	w.psp.next(func(_ context.Context, _ *psp, c providers.Charge) providers.Result {
		underWay = c
		return providers.Result{Outcome: providers.Unclear, TimedOut: true}
	})
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
	w.wantWait(w.create("nonce-1", w.body("order-1", nil)), untilProof)
	w.psp.book(underWay)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

func TestH16ProviderThatCannotBeAskedIsParked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(silent)
	w.lostAnswer("nonce-1", "order-1")
	for attempt := range maxAttempts {
		w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusBadGateway, "PROVIDER_ERROR") // does not count
		w.dueAgain("nonce-1")
		if n := w.recoverOn(w.instance); n != 1 {
			t.Fatalf("attempt %d: recovery took %d, want 1", attempt+1, n)
		}
		if parked := w.transaction("nonce-1").ParkedAt != nil; parked != (attempt == maxAttempts-1) {
			t.Fatalf("attempt %d: parked %t", attempt+1, parked)
		}
	}
	w.wantParked(w.create("nonce-1", w.body("order-1", nil)))
	w.wantSends(1, 1)
	if n := w.psp.inquiries(); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
}

func TestH72SlowHolderWakesInsideItsLeaseAfterAnEarlyTakeOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow := w.newInstance(w.db)
	w.steady()
	w.psp.be(notIdempotent)
	arrived, wake := w.holdNext(approve)
	zombie := w.sendTo(slow, "nonce-1", w.body("order-1", nil))
	receive(t, arrived, "the send")
	mayStillArrive := w.transaction("nonce-1").MaySendUntil

	w.silence(slow)
	w.wantWait(w.create("nonce-1", w.body("order-1", nil)), untilProof)
	w.dueAgain("nonce-1")
	if n := w.recoverOn(w.instance); n != 1 {
		t.Fatalf("recovery took %d, want 1", n)
	}
	if tx := w.wantTransaction("nonce-1", Created, 3); !tx.MaySendUntil.Equal(mayStillArrive) {
		t.Errorf("may_send_until moved from %s to %s", mayStillArrive, tx.MaySendUntil)
	}
	w.wantCharges("order-1", 0)

	wake()
	w.want(receive(t, zombie, "the slow holder's answer"), http.StatusBadGateway, "PROVIDER_ERROR")
	w.wantObservations("nonce-1", "approved")
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
	if n := w.transactionsOf("nonce-1"); n != 1 {
		t.Errorf("%d lives, want 1: the nonce was given back while a charge was under way", n)
	}
}

func TestH72EarlyTakeOverMayResendToAProviderThatRecognisesTheReference(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow := w.newInstance(w.db)
	w.steady()
	arrived, wake := w.holdNext(approve)
	zombie := w.sendTo(slow, "nonce-1", w.body("order-1", nil))
	receive(t, arrived, "the send")
	w.silence(slow)
	answer := w.create("nonce-1", w.body("order-1", nil))
	w.want(answer, http.StatusCreated)
	wake()
	w.wantSame(answer, receive(t, zombie, "the slow holder's answer"))
	w.wantCharges("order-1", 1)
	w.wantSends(2, 1)
}

func TestH74OldHolderWakesBeforeThePersonDecides(t *testing.T) {
	t.Parallel()
	for decision, want := range map[string]int{"succeeded": http.StatusOK, "failed": http.StatusConflict} {
		t.Run(decision, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.be(silent)
			acted, wake := w.holdAnswer(approve)
			zombie := w.background("nonce-1", w.body("order-1", nil))
			receive(t, acted, "the send")
			w.park("nonce-1")

			wake()
			w.want(receive(t, zombie, "the old holder's answer"), http.StatusBadGateway, "PROVIDER_ERROR")
			w.wantObservations("nonce-1", "approved")
			if w.transaction("nonce-1").ParkedAt == nil {
				t.Fatal("the old holder ended what is parked")
			}
			w.want(w.resolve("nonce-1", decision), want) // its observation knows better than "failed"
			if status := w.transaction("nonce-1").Status; status != Succeeded {
				t.Errorf("the transaction is %s", status)
			}
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantCharges("order-1", 1)
		})
	}
}

func TestH74OldHolderWakesAfterThePersonHasDecided(t *testing.T) {
	t.Parallel()
	for decision, c := range map[string]struct {
		status Status
		told   int
	}{"succeeded": {Succeeded, http.StatusCreated}, "failed": {Errored, http.StatusServiceUnavailable}} {
		t.Run(decision, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.be(silent)
			acted, wake := w.holdAnswer(decline)
			zombie := w.background("nonce-1", w.body("order-1", nil))
			receive(t, acted, "the send")
			w.park("nonce-1")
			w.want(w.resolve("nonce-1", decision), http.StatusOK)
			decided := w.transaction("nonce-1")

			wake()
			w.want(receive(t, zombie, "the old holder's answer"), c.told)
			w.wantObservations("nonce-1", "declined")
			if now := w.wantTransaction("nonce-1", c.status, decided.Fence); fmt.Sprint(now) != fmt.Sprint(decided) {
				t.Errorf("a decision was changed:\n%+v\n%+v", decided, now)
			}
			w.wantEvents("nonce-1", "resolved")
		})
	}
}

// What the provider has accepted is nobody's work in progress, even while a worker
// asks about it: a person need not wait, and the worker finds out.
func TestH74PersonEndsAPendingPaymentWhileItIsAskedAbout(t *testing.T) {
	t.Parallel()
	for decision, c := range map[string]struct {
		told   int
		status Status
	}{"succeeded": {http.StatusOK, Succeeded}, "failed": {http.StatusConflict, Pending}} {
		t.Run(decision, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.next(func(ctx context.Context, p *psp, c providers.Charge) providers.Result {
				p.book(c)
				return accept(ctx, p, c)
			})
			pending := w.create("nonce-1", w.body("order-1", nil))
			w.want(pending, http.StatusCreated)
			w.dueAgain("nonce-1")
			asked, letGo := w.holdInquiry()
			worker := w.recovering(w.instance)
			receive(t, asked, "the worker's question")

			w.want(w.resolve("nonce-1", decision), c.told) // failed: too early to judge
			w.wantTransaction("nonce-1", c.status, 3)
			letGo()
			receive(t, worker, "the worker")
			w.wantObservations("nonce-1", "approved")
			w.wantTransaction("nonce-1", c.status, 3)
			w.dueAgain("nonce-1")
			w.recoverOn(w.instance)
			if status := w.transaction("nonce-1").Status; status != Succeeded {
				t.Errorf("in the end it is %s", status)
			}
			w.wantReplay(pending, w.create("nonce-1", w.body("order-1", nil)), false)
			w.wantCharges("order-1", 1)
		})
	}
}

// The person is the one who sleeps: the decision is on its way when the worker's
// hourly question is answered at last.
func TestH74PersonWhoIsOvertakenLeavesAnObservation(t *testing.T) {
	t.Parallel()
	for decision, want := range map[string]int{"succeeded": http.StatusOK, "failed": http.StatusConflict} {
		t.Run(decision, func(t *testing.T) {
			t.Parallel()
			w, slow, proxy := worldOfTwo(t)
			w.psp.be(notIdempotent)
			w.lostAnswer("nonce-1", "order-1")
			w.park("nonce-1")
			w.psp.mute(1) // for the judgement of failed
			decided := proxy.Trap("transactions.finish", pgproxy.Asked)
			person := atOnce(1, func(int) (response, error) { return w.resolveOn(slow, "nonce-1", decision), nil })
			decided.Wait(t)
			if decision == "succeeded" { // it asked nothing
				w.psp.mu.Lock()
				w.psp.onAsk = nil
				w.psp.mu.Unlock()
			}
			w.shift("nonce-1", 2*testLease)
			w.dueAgain("nonce-1")
			if n := w.recoverOn(w.instance); n != 1 {
				t.Fatalf("recovery took %d, want 1", n)
			}
			answer := w.create("nonce-1", w.body("order-1", nil))
			w.want(answer, http.StatusCreated)

			decided.Pass()
			w.want(receive(t, person, "the person's answer"), want)
			w.wantObservations("nonce-1", "decided_"+decision)
			w.wantEvents("nonce-1", "provider")
			w.wantReplay(answer, w.create("nonce-1", w.body("order-1", nil)), false)
			if n := w.count(`SELECT count(*) FROM resolutions`); n != 0 {
				t.Error("a decision that was not taken is kept as one")
			}
		})
	}
}

func TestH75SlowReaderRevivesNothing(t *testing.T) {
	t.Parallel()
	body := func(w *world) []byte { return w.body("order-1", nil) }
	release := func(w *world) {
		w.want(w.create("nonce-1", body(w)), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
	}
	for meanwhile, c := range map[string]struct {
		booked bool
		act    func(w *world)
		check  func(w *world, r response)
		lives  int
	}{
		"it was answered": {true, func(w *world) { w.want(w.create("nonce-1", body(w)), http.StatusCreated) },
			func(w *world, r response) {
				w.want(r, http.StatusCreated)
				w.wantReplay(r, w.create("nonce-1", body(w)), false)
			}, 1},
		"it was released": {false, release,
			func(w *world, r response) { w.want(r, http.StatusCreated); w.wantNoReplay(r) }, 2},
		"it was released, and its nonce lives again": {false,
			func(w *world) { release(w); w.want(w.create("nonce-1", body(w)), http.StatusCreated) },
			func(w *world, r response) { w.wantReplay(w.create("nonce-1", body(w)), r, false) }, 2},
		"it was released, and its nonce is in flight": {false,
			func(w *world) { release(w); w.claim(w.instance, "nonce-1", "order-1") },
			func(w *world, r response) { w.wantInProcess(r) }, 2},
		"it was taken over": {true,
			func(w *world) {
				r, err := w.service.takeOver(w.t.Context(), w.transaction("nonce-1"), w.psp, byRecovery)
				if err != nil || r == nil {
					w.t.Fatal("not taken over:", err)
				}
			},
			func(w *world, r response) { w.wantInProcess(r) }, 1},
		"it was parked": {true, func(w *world) { w.park("nonce-1") },
			func(w *world, r response) { w.wantParked(r) }, 1},
	} {
		t.Run(meanwhile, func(t *testing.T) {
			t.Parallel()
			w, slow, proxy := worldOfTwo(t)
			w.psp.be(notIdempotent)
			if c.booked {
				w.psp.next(chargeThenTimeout)
			} else {
				w.psp.next(timeout)
			}
			w.want(w.create("nonce-1", body(w)), http.StatusGatewayTimeout)
			w.shift("nonce-1", 2*testLease) // past the proof moment
			first := w.transaction("nonce-1")

			read := proxy.Trap("transactions.take_over", pgproxy.Asked)
			reader := w.sendTo(slow, "nonce-1", body(w))
			read.Wait(t)
			c.act(w)
			ended := w.count(`SELECT count(*) FROM transactions WHERE id = $1 AND lease_until IS NULL`, first.ID)
			read.Pass()
			c.check(w, receive(t, reader, "the slow reader"))
			if n := w.count(`SELECT count(*) FROM transactions WHERE id = $1 AND lease_until IS NULL`, first.ID); n != ended {
				t.Error("the slow reader revived what was over")
			}
			if n := w.transactionsOf("nonce-1"); n != c.lives {
				t.Errorf("%d lives, want %d", n, c.lives)
			}
			if n := w.psp.charges("order-1"); n > 1 {
				t.Errorf("%d charges", n)
			}
		})
	}
}

func TestH75SlowWorkerRevivesNothing(t *testing.T) {
	t.Parallel()
	w, slow, proxy := worldOfTwo(t)
	w.psp.be(notIdempotent)
	w.psp.next(timeout, chargeThenTimeout)
	w.want(w.create("released", w.body("order-1", nil)), http.StatusGatewayTimeout)
	w.want(w.create("answered", w.body("order-2", nil)), http.StatusGatewayTimeout)
	for _, nonce := range []string{"released", "answered"} {
		w.shift(nonce, 2*testLease)
		w.dueAgain(nonce)
	}
	read := proxy.Trap("transactions.due", pgproxy.Answered)
	worker := w.recovering(slow)
	read.Wait(t)
	w.want(w.create("released", w.body("order-1", nil)), http.StatusServiceUnavailable)
	w.want(w.create("answered", w.body("order-2", nil)), http.StatusCreated)
	read.Pass()
	if n := receive(t, worker, "the worker"); n != 0 {
		t.Errorf("it took %d that were over", n)
	}
	w.wantTransaction("released", Errored, 2)
	w.wantTransaction("answered", Succeeded, 2)
	w.want(w.create("released", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantCharges("order-2", 1)
}

func TestH81TakeOverWhoseCommitWasLostSeesThatAWorkerHasTheSameFence(t *testing.T) {
	t.Parallel()
	w, unlucky, proxy := worldOfTwo(t)
	w.psp.next(timeout) // so that a resend would be the second charge's chance
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
	w.dueAgain("nonce-1")

	readsBack := proxy.Trap("transactions.holding", pgproxy.Asked)
	proxy.Cut("transactions.take_over", pgproxy.Asked)
	retry := w.sendTo(unlucky, "nonce-1", w.body("order-1", nil))
	readsBack.Wait(t)
	asked, letGo := w.holdInquiry()
	worker := w.recovering(w.instance)
	receive(t, asked, "the worker's inquiry")
	w.wantTransaction("nonce-1", Created, 2) // the very fence that the retry went for

	readsBack.Pass()
	w.want(receive(t, retry, "the retry"), http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
	w.wantSends(1, 1)
	letGo()
	if n := receive(t, worker, "the worker"); n != 1 {
		t.Errorf("the worker took %d, want 1", n)
	}
	w.wantSends(1, 1)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantSends(2, 1)
}

func TestH81TakeOverThatIsReadBackGoesOn(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	w.lostAnswer("nonce-1", "order-1")
	lost := proxy.Cut("transactions.take_over", pgproxy.Answered)
	w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusCreated)
	lost.Wait(t)
	w.wantTransaction("nonce-1", Succeeded, 2)
	w.wantEvents("nonce-1", "provider")
	w.wantCharges("order-1", 1)
}

func TestH81TakeOverThatArrivesAfterItWasGivenUpCostsOneLease(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	w.lostAnswer("nonce-1", "order-1")
	late := proxy.Trap("transactions.take_over", pgproxy.Asked)
	retry := w.sendTo(i, "nonce-1", w.body("order-1", nil))
	late.Wait(t)
	late.Strand()
	w.want(receive(t, retry, "the retry"), http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
	late.Pass()
	w.until("the late take-over arrives", func() bool { return w.transaction("nonce-1").Fence == 2 })

	w.wantInProcess(w.create("nonce-1", w.body("order-1", nil)))
	w.shift("nonce-1", testLease)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantTransaction("nonce-1", Succeeded, 3)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}
