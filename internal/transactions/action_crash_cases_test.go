package transactions

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/providers"
)

// H79: whatever dies in the middle of a capture, a cancellation or a refund, and whoever
// goes on afterwards, what was reserved is consumed or given back exactly once. The
// referee looks at every sum of the database and at the provider's books.

// unsettled is a way to leave an action unresolved.
type unsettled struct {
	booked bool // whether the provider did it
	// leave does that; wake lets the holder, if it still has one, go on at last.
	leave func(w *world, nonce string, d deed) (wake func())
}

// asleep wakes nobody.
func asleep() {}

// unclearly is an answer that leaves the outcome open, told with that status.
func unclearly(answers operating, status int) func(w *world, nonce string, d deed) func() {
	return func(w *world, nonce string, d deed) func() {
		w.psp.nextOperation(answers)
		w.want(w.act(nonce, d), status)
		return asleep
	}
}

// silently is a process that dies between the provider's answer and its own save. Woken
// up, it finds itself fenced out.
func silently(answers operating) func(w *world, nonce string, d deed) func() {
	return func(w *world, nonce string, d deed) func() {
		dead := w.newInstance(w.db)
		acted, letGo := w.holdOperation(answers)
		zombie := w.acting(dead, nonce, d)
		receive(w.t, acted, "the operation")
		w.silence(dead)
		return func() {
			letGo()
			receive(w.t, zombie, "the zombie's answer")
		}
	}
}

// takenOver is a process that dies when it has just taken the action over from the one
// before, and askedAbout one that dies when it has asked the provider, too.
func takenOver(answers operating) func(w *world, nonce string, d deed) func() {
	return func(w *world, nonce string, d deed) func() {
		r := w.takenOverBy(w.newInstance(w.db), nonce, d, answers)
		return func() { // and wakes to save a guess
			_, _ = w.service.conclude(w.t.Context(), r, providers.Result{Outcome: providers.NotFound}, true)
		}
	}
}

func askedAbout(answers operating) func(w *world, nonce string, d deed) func() {
	return func(w *world, nonce string, d deed) func() {
		r := w.takenOverBy(w.newInstance(w.db), nonce, d, answers)
		result, proven, err := w.service.settle(w.t.Context(), r)
		if err != nil {
			w.t.Fatal(err)
		}
		return func() { _, _ = w.service.conclude(w.t.Context(), r, result, proven) }
	}
}

// takenOverBy lets the outcome of a deed be unclear, and an instance that then dies take
// it over.
func (w *world) takenOverBy(dead instance, nonce string, d deed, answers operating) *run {
	w.t.Helper()
	w.steady()
	w.psp.nextOperation(answers)
	w.want(w.act(nonce, d), http.StatusGatewayTimeout)
	w.dueAgain(nonce)
	r, err := dead.service.takeOver(w.t.Context(), w.transaction(nonce), w.psp, byRecovery)
	if err != nil || r == nil {
		w.t.Fatal("not taken over:", err)
	}
	w.silence(dead)
	return r
}

// wantIs fails the test unless the newest transaction of a nonce has that status.
func (w *world) wantIs(nonce string, status Status) {
	w.t.Helper()
	w.wantTransaction(nonce, status, w.transaction(nonce).Fence)
}

var unsettledActions = map[string]unsettled{
	"dead before its send": {false, func(w *world, nonce string, d deed) func() {
		dead := w.newInstance(w.db)
		w.steady()
		w.beginDeed(dead, nonce, d)
		w.silence(dead)
		return asleep
	}},
	"booked, and no answer":              {true, unclearly(operateThenTimeout, http.StatusGatewayTimeout)},
	"not booked, and no answer":          {false, unclearly(noAnswer, http.StatusGatewayTimeout)},
	"not booked, and a useless answer":   {false, unclearly(brokenAnswer, http.StatusBadGateway)},
	"booked, dead before its save":       {true, silently(operateAsUsual)},
	"refused, dead before its save":      {false, silently(invalidAnswer)},
	"never reached, dead before it says": {false, silently(neverReached)},
	"booked, taken over by the dead":     {true, takenOver(operateThenTimeout)},
	"not booked, taken over by the dead": {false, takenOver(noAnswer)},
	"booked, asked about by the dead":    {true, askedAbout(operateThenTimeout)},
}

// settlement is somebody who goes on, until the action has ended. Afterwards the deed is
// done, in this life of its nonce or in the next.
type settlement func(w *world, nonce string, d deed, booked bool)

var settlements = map[string]settlement{
	"the merchant asks again": func(w *world, nonce string, d deed, _ bool) {
		w.want(w.act(nonce, d), http.StatusOK)
	},
	"the merchant asks with another body": func(w *world, nonce string, d deed, booked bool) {
		if booked {
			w.want(w.act(nonce, d.differently()), http.StatusOK)
			return
		}
		w.want(w.act(nonce, d.differently()), http.StatusConflict, "REQUEST_IN_PROCESS")
		w.shift(nonce, 2*testLease) // past the proof moment
		w.want(w.act(nonce, d.differently()), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
		w.wantBalanced()
		w.want(w.act(nonce, d), http.StatusOK)
	},
	"recovery asks": func(w *world, nonce string, d deed, booked bool) {
		w.dueAgain(nonce)
		w.recoverOn(w.instance)
		if booked {
			w.wantIs(nonce, Succeeded)
			return
		}
		w.wantIs(nonce, Created)
		w.shift(nonce, 2*testLease)
		w.dueAgain(nonce)
		w.recoverOn(w.instance)
		w.wantIs(nonce, Errored)
		w.wantBalanced()
		w.want(w.act(nonce, d), http.StatusOK)
	},
	"a person says that it failed": func(w *world, nonce string, d deed, booked bool) {
		w.want(w.resolve(nonce, "failed"), http.StatusConflict, "INVALID_STATE") // something may still arrive
		w.shift(nonce, 2*testLease)
		if booked {
			w.want(w.resolve(nonce, "failed"), http.StatusConflict, "INVALID_STATE") // the provider knows better
			w.wantIs(nonce, Succeeded)
			return
		}
		w.want(w.resolve(nonce, "failed"), http.StatusOK)
		w.want(w.resolve(nonce, "failed"), http.StatusConflict, "INVALID_STATE") // it is over
		w.wantIs(nonce, Errored)
		w.wantBalanced()
		w.want(w.act(nonce, d), http.StatusOK)
	},
	"it is parked, and a person ends it": func(w *world, nonce string, d deed, booked bool) {
		w.park(nonce)
		w.wantParked(w.act(nonce, d))
		if booked {
			w.want(w.resolve(nonce, "succeeded"), http.StatusOK)
			w.want(w.resolve(nonce, "succeeded"), http.StatusConflict, "INVALID_STATE") // it is over
			return
		}
		w.want(w.resolve(nonce, "failed"), http.StatusOK)
		w.wantBalanced()
		w.want(w.act(nonce, d), http.StatusOK)
	},
	"it is parked, and the provider answers at last": func(w *world, nonce string, d deed, booked bool) {
		w.park(nonce)
		w.dueAgain(nonce)
		w.recoverOn(w.instance)
		if !booked {
			w.wantBalanced() // proved by then
			w.want(w.act(nonce, d), http.StatusOK)
		}
	},
}

func TestH79ReservationIsConsumedOrGivenBackOnceWhateverDiesAndWhoeverGoesOn(t *testing.T) {
	t.Parallel()
	for how, u := range unsettledActions {
		for who, goesOn := range settlements {
			t.Run(how+", "+who, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.steady()
				for _, d := range w.oneOfEach() {
					nonce := "nonce-" + string(d.route)
					wake := u.leave(w, nonce, d)
					w.wantReserved(d)
					goesOn(w, nonce, d, u.booked)
					w.wantBalanced()
					w.wantDone(d)
					told := w.act(nonce, d)
					w.want(told, http.StatusOK)
					before := w.record(nonce)
					wake()
					if after := w.record(nonce); after != before {
						t.Errorf("%s: the zombie changed what is kept:\n%s\n%s", d.route, before, after)
					}
					w.wantReplay(told, w.act(nonce, d), false)
					w.wantBalanced()
				}
			})
		}
	}
}

// The provider has refused the reference for good, and whoever asked for that is dead. A
// resend is refused, then; so nothing is given back before there is a proof again, and
// the next life has another reference.
func TestH79ActionThatWasVoidedByTheDeadIsGivenBackByTheNextWhoAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	for _, d := range w.oneOfEach() {
		nonce := "nonce-" + string(d.route)
		w.psp.nextOperation(noAnswer)
		w.want(w.act(nonce, d), http.StatusGatewayTimeout)
		w.shift(nonce, 2*testLease) // past the proof moment
		w.dueAgain(nonce)
		dead := w.newInstance(w.db)
		r, err := dead.service.takeOver(t.Context(), w.transaction(nonce), w.psp, byRecovery)
		if err != nil || r == nil {
			t.Fatal("not taken over:", err)
		}
		if result, proven, err := dead.service.settle(t.Context(), r); err != nil || !proven || result.Outcome != providers.Voided {
			t.Fatalf("%s: %s, proven %t, %v", d.route, result.Outcome, proven, err)
		}
		w.silence(dead)

		w.want(w.act(nonce, d), http.StatusBadGateway, "PROVIDER_ERROR") // sent again, and refused
		w.wantReserved(d)
		w.shift(nonce, 2*testLease)
		w.want(w.act(nonce, d), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
		w.wantBalanced()
		w.wantUndone(d)
		w.want(w.act(nonce, d), http.StatusOK)
		w.wantDone(d)
		before := w.record(nonce)
		_, _ = dead.service.conclude(t.Context(), r, providers.Result{Outcome: providers.Voided}, true) // what matters is the database
		if after := w.record(nonce); after != before {
			t.Errorf("%s: the zombie changed what is kept:\n%s\n%s", d.route, before, after)
		}
	}
	w.wantBalanced()
}

// wantReserved fails the test unless the deed, and nothing else, is reserved on its
// payment.
func (w *world) wantReserved(d deed) {
	w.t.Helper()
	p := w.paymentOf(sale{payment: d.payment})
	want := map[Route]string{RouteCapture: "60 0 0", RouteCancel: "0 100 0", RouteRefund: "0 0 60"}[d.route]
	if got := fmt.Sprint(p.SettlePending, p.CancelPending, p.RefundPending); got != want {
		w.t.Fatalf("%s: reserved are %s, want %s", d.route, got, want)
	}
	if d.route != RouteRefund {
		return
	}
	if n := w.count(`SELECT refund_pending::bigint FROM transactions WHERE id = $1`, d.transaction); n != 60 {
		w.t.Fatalf("reserved on the target are %d, want 60", n)
	}
}

// wantDone fails the test unless the payment is as the deed of oneOfEach leaves it.
func (w *world) wantDone(d deed) {
	w.t.Helper()
	s := sale{payment: d.payment}
	switch d.route {
	case RouteCapture:
		w.wantPayment(s, PaymentPartiallyCaptured, "60", "0")
	case RouteCancel:
		w.wantPayment(s, PaymentCanceled, "0", "0")
	default:
		w.wantPayment(s, PaymentPartiallyRefunded, "0", "60")
	}
}

// wantUndone fails the test unless the payment is as it was before the deed.
func (w *world) wantUndone(d deed) {
	w.t.Helper()
	state := PaymentAuthorized
	if d.route == RouteRefund {
		state = PaymentApproved
	}
	w.wantPayment(sale{payment: d.payment}, state, "0", "0")
}

// What the provider has accepted stays reserved until it has decided, and the answer
// that was told first is told for ever.
func TestH79ReservationOfAPendingActionEndsWithItOnce(t *testing.T) {
	t.Parallel()
	for how, ends := range map[string]struct {
		end  func(w *world, nonce string, d deed)
		done bool
	}{
		"the provider approves": {func(w *world, nonce string, _ deed) {
			w.decided(nonce, true)
			w.dueAgain(nonce)
			w.recoverOn(w.instance)
			w.wantTransaction(nonce, Succeeded, 4)
		}, true},
		"the provider declines": {func(w *world, nonce string, _ deed) {
			w.decided(nonce, false)
			w.dueAgain(nonce)
			w.recoverOn(w.instance)
			w.wantTransaction(nonce, Declined, 4)
		}, false},
		"the provider forgets, which is proved": {func(w *world, nonce string, _ deed) {
			w.dueAgain(nonce)
			w.recoverOn(w.instance)
			w.wantTransaction(nonce, Pending, 4) // not proved yet
			w.shift(nonce, 2*testLease)
			w.dueAgain(nonce)
			w.recoverOn(w.instance)
			w.wantTransaction(nonce, Errored, 5)
		}, false},
		"a person says that it succeeded": {func(w *world, nonce string, _ deed) {
			w.decided(nonce, true)
			w.want(w.resolve(nonce, "succeeded"), http.StatusOK)
		}, true},
		"a person says that it failed": {func(w *world, nonce string, _ deed) {
			w.shift(nonce, 2*testLease)
			w.want(w.resolve(nonce, "failed"), http.StatusOK)
			w.wantTransaction(nonce, Errored, 4)
		}, false},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			for _, d := range w.oneOfEach() {
				nonce := "nonce-" + string(d.route)
				w.psp.nextOperation(acceptedForNow)
				told := w.act(nonce, d)
				w.want(told, http.StatusOK)
				w.wantTransaction(nonce, Pending, 1)
				w.wantWaiting(d)
				w.pendingAnswer(2)
				for range 2 {
					w.dueAgain(nonce)
					w.recoverOn(w.instance)
				}
				w.wantTransaction(nonce, Pending, 3)
				w.wantWaiting(d)
				w.wantReplay(told, w.act(nonce, d), false)

				ends.end(w, nonce, d)
				w.wantBalanced()
				if ends.done {
					w.wantDone(d)
				} else {
					w.wantUndone(d)
				}
				w.wantReplay(told, w.act(nonce, d), false)
				if n := w.transactionsOf(nonce); n != 1 {
					t.Errorf("the nonce has %d transactions", n)
				}
			}
			w.wantBalanced()
		})
	}
}

// wantWaiting fails the test unless the payment says what it is waiting for, and
// reserves it.
func (w *world) wantWaiting(d deed) {
	w.t.Helper()
	state := map[Route]PaymentStatus{RouteCapture: PaymentAuthorized, RouteCancel: PaymentCancelPending, RouteRefund: PaymentRefundPending}[d.route]
	w.wantPayment(sale{payment: d.payment}, state, "0", "0")
	w.wantReserved(d)
}

func TestH79TwoRefundsThatArePendingEndOneByOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	s := w.sold("order-1", "100")
	w.psp.nextOperation(acceptedForNow, acceptedForNow)
	for nonce, amount := range map[string]string{"refund-1": "60", "refund-2": "30"} {
		w.want(w.act(nonce, s.refund(amount)), http.StatusOK)
	}
	w.want(w.act("refund-3", s.refund("10.01")), http.StatusBadRequest, "INVALID_AMOUNT")
	w.want(w.act("refund-3", s.refund("10")), http.StatusOK)
	w.wantPayment(s, PaymentRefundPending, "0", "10")

	w.decided("refund-1", false)
	w.dueAgain("refund-1")
	w.recoverOn(w.instance)
	w.wantPayment(s, PaymentRefundPending, "0", "10")
	w.decided("refund-2", true)
	w.dueAgain("refund-2")
	w.recoverOn(w.instance)
	w.wantPayment(s, PaymentPartiallyRefunded, "0", "40")
	w.wantBalanced()
	w.want(w.act("refund-4", s.refund("60")), http.StatusOK)
	w.wantPayment(s, PaymentRefunded, "0", "100")
	w.wantBalanced()
}

// A late effect of a capture, a cancellation or a refund cannot be taken back. So where
// the provider cannot promise to refuse it, "unknown to us" gives nothing back, however
// late; a person does.
func TestH79ActionIsNeverReleasedByProofWhereTheProviderCannotVoid(t *testing.T) {
	t.Parallel()
	for kind, trait := range map[string]func(*providers.Traits){
		"which recognises references": func(t *providers.Traits) { t.CanVoid = false },
		"which does not even":         notIdempotent,
		"which cannot be asked":       silent,
	} {
		for how, ends := range map[string]settlement{
			"failed, says a person": func(w *world, nonce string, d deed, _ bool) {
				w.want(w.resolve(nonce, "failed"), http.StatusOK)
				w.wantTransaction(nonce, Errored, w.transaction(nonce).Fence)
				w.wantBalanced()
				w.want(w.act(nonce, d), http.StatusOK)
			},
			"succeeded, says a person": func(w *world, nonce string, _ deed, _ bool) {
				if r := w.psp.operate(operationOf(w.transaction(nonce))); r.Outcome != providers.Approved { // it was late, and is there
					w.t.Fatalf("the provider answers %s", r.Outcome)
				}
				w.want(w.resolve(nonce, "succeeded"), http.StatusOK)
			},
		} {
			t.Run(kind+", "+how, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.steady()
				w.psp.be(trait)
				for _, d := range w.oneOfEach() {
					nonce := "nonce-" + string(d.route)
					w.psp.nextOperation(noAnswer)
					w.want(w.act(nonce, d), http.StatusGatewayTimeout)
					w.shift(nonce, 2*testLease) // past the proof moment
					if r := w.act(nonce, d.differently()); r.status != http.StatusConflict && r.status != http.StatusBadGateway {
						t.Fatalf("%s: told %s", d.route, r)
					}
					w.wantReserved(d)
					w.wantTransaction(nonce, Created, 2)
					w.sql(`UPDATE transactions SET attempts = $2 - 1 WHERE nonce = $1`, nonce, maxAttempts)
					w.dueAgain(nonce)
					w.recoverOn(w.instance)
					if w.transaction(nonce).ParkedAt == nil {
						t.Fatalf("%s: not parked", d.route)
					}
					w.wantParked(w.act(nonce, d))
					w.wantReserved(d)
					ends(w, nonce, d, false)
					w.wantBalanced()
					w.wantDone(d)
				}
			})
		}
	}
}

// What was parked is asked about again: a late effect is found, and consumed.
func TestH79ParkedActionThatTookEffectLateIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(notIdempotent)
	for _, d := range w.oneOfEach() {
		nonce := "nonce-" + string(d.route)
		w.psp.nextOperation(noAnswer)
		w.want(w.act(nonce, d), http.StatusGatewayTimeout)
		w.park(nonce)
		w.psp.operate(operationOf(w.transaction(nonce)))
		w.dueAgain(nonce)
		w.recoverOn(w.instance)
		w.wantTransaction(nonce, Succeeded, w.transaction(nonce).Fence)
		w.wantDone(d)
		w.want(w.act(nonce, d), http.StatusOK)
	}
	w.wantBalanced()
}

// Whoever was fenced out saves, gives back and leaves nothing, whatever it learnt.
func TestH79FencedOutHolderOfAnActionConsumesAndGivesBackNothing(t *testing.T) {
	t.Parallel()
	for _, result := range []providers.Result{
		{Outcome: providers.Approved, ResponseCode: "SUCCEEDED"}, {Outcome: providers.Declined, ResponseCode: "DO_NOT_HONOR"},
		{Outcome: providers.Pending}, {Outcome: providers.Refused}, {Outcome: providers.NotReached}, {Outcome: providers.Unclear},
	} {
		for _, proven := range []bool{false, true} {
			for meanwhile, goesOn := range map[string]settlement{
				"it has succeeded": settlements["the merchant asks again"], // and was sent again
				"its nonce has another life": func(w *world, nonce string, d deed, _ bool) {
					w.shift(nonce, 2*testLease)
					w.want(w.act(nonce, d.differently()), http.StatusServiceUnavailable)
					w.want(w.act(nonce, d), http.StatusOK)
				},
				"somebody else has it": func(w *world, nonce string, _ deed, _ bool) {
					w.dueAgain(nonce)
					w.recoverOn(w.instance)
				},
			} {
				t.Run(fmt.Sprintf("%s, proven %t, %s", result.Outcome, proven, meanwhile), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					w.steady()
					for _, d := range w.oneOfEach() {
						nonce := "nonce-" + string(d.route)
						zombie := w.beginDeed(w.instance, nonce, d)
						w.shift(nonce, testLease)
						goesOn(w, nonce, d, false)
						before := w.record(nonce)
						_, _ = w.service.conclude(t.Context(), zombie, result, proven) // what matters is the database
						if after := w.record(nonce); after != before {
							t.Fatalf("%s: the zombie changed what is kept:\n%s\n%s", d.route, before, after)
						}
					}
				})
			}
		}
	}
}

// H74 for actions: a person decides while the old holder wakes. One of them wins, the
// other's word is kept as an observation.
func TestH79PersonAndZombieDoNotBothConsumeAReservation(t *testing.T) {
	t.Parallel()
	for n, what := range []string{"capture", "cancel", "refund"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.oneOfEach()[n]
			acted, letGo := w.holdOperation(operateAsUsual)
			zombie := w.acting(w.instance, "nonce-1", d)
			receive(t, acted, "the operation")
			w.shift("nonce-1", testLease)
			url := w.operator.URL + "/admin/v1/transactions/" + w.transaction("nonce-1").ID.String() + "/resolve"
			resolved := atOnce(1, func(int) (response, error) {
				return request(t.Context(), http.MethodPost, url, []byte(`{"outcome":"succeeded","reason":"called the provider"}`),
					"Authorization", "Bearer "+operatorToken)
			})
			letGo()
			told := receive(t, zombie, "the zombie's answer")
			r := receive(t, resolved, "the person's answer")
			if r.status != http.StatusOK && r.code() != "INVALID_STATE" && r.code() != "REQUEST_IN_PROCESS" {
				t.Fatalf("the person is told %s", r)
			}
			if told.status != http.StatusOK { // fenced out, and the person had not finished
				w.want(told, http.StatusBadGateway, "PROVIDER_ERROR")
			}
			again := w.act("nonce-1", d)
			w.want(again, http.StatusOK)
			w.wantBalanced()
			w.wantDone(d)
			w.wantReplay(again, w.act("nonce-1", d), false)
		})
	}
}

// The COMMIT of a begin or of a finish took place, or did not, and nobody was told.
func TestH79LostCommitOfAnActionReservesAndConsumesOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		statement string
		at        pgproxy.Point
	}{
		{"transactions.begin_action", pgproxy.Asked}, {"transactions.begin_action", pgproxy.Answered},
		{"transactions.lock_payment", pgproxy.Asked}, {"transactions.lock_payment", pgproxy.Answered},
		{"transactions.finish", pgproxy.Asked}, {"transactions.finish", pgproxy.Answered},
		{"commit", pgproxy.Asked}, {"commit", pgproxy.Answered},
	} {
		t.Run(fmt.Sprint(c.statement, []string{" unseen", " unheard"}[c.at]), func(t *testing.T) {
			t.Parallel()
			w, i, proxy := worldOfTwo(t)
			for _, d := range w.oneOfEach() {
				nonce := "nonce-" + string(d.route)
				lost := proxy.Cut(c.statement, c.at)
				r, err := w.insist(i, nonce, d)
				if err != nil {
					t.Fatal(err)
				}
				lost.Wait(t)
				w.want(r, http.StatusOK)
				w.wantReplay(r, w.act(nonce, d), false)
				w.wantDone(d)
				if n := w.transactionsOf(nonce); n != 1 {
					t.Errorf("%s: the nonce has %d transactions", d.route, n)
				}
			}
			w.wantBalanced()
		})
	}
}

// H81 for actions: the COMMIT of a take-over is lost, and a worker reaches the same fence.
func TestH79LostCommitOfATakeOverOfAnActionIsNotActedUpon(t *testing.T) {
	t.Parallel()
	w, slow, proxy := worldOfTwo(t)
	for _, d := range w.oneOfEach() {
		nonce := "nonce-" + string(d.route)
		w.psp.nextOperation(operateThenTimeout)
		w.want(w.act(nonce, d), http.StatusGatewayTimeout)
		trap := proxy.Trap("transactions.take_over", pgproxy.Answered)
		retry := w.acting(slow, nonce, d)
		trap.Wait(t)
		w.shift(nonce, testLease)
		w.dueAgain(nonce)
		w.recoverOn(w.instance)
		w.wantTransaction(nonce, Succeeded, 3)
		trap.Cut()
		if r := receive(t, retry, "the retry"); r.status != http.StatusServiceUnavailable && r.status != http.StatusOK {
			t.Fatalf("%s: told %s", d.route, r)
		}
		w.want(w.act(nonce, d), http.StatusOK)
		w.wantDone(d)
	}
	w.wantBalanced()
}
