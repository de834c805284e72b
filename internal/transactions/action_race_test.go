package transactions

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
)

// What happens when many act on one payment at once. The leading open rival lets two
// refunds exceed the capture, because each looks before it reserves; here the row itself
// decides, and the provider's books are compared with it afterwards.

// throng is how many act at once.
const throng = 200

// insistAll asks for as many deeds at once, each until it is answered, and hands out
// what each was told.
func (w *world) insistAll(n int, of func(i int) (nonce string, d deed)) []response {
	w.t.Helper()
	told := make([]response, n)
	var wg sync.WaitGroup
	for i := range n {
		nonce, d := of(i)
		wg.Go(func() {
			r, err := w.insist(w.instance, nonce, d)
			if err != nil {
				w.t.Errorf("%s: %v", nonce, err)
			}
			told[i] = r
		})
	}
	wg.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
	return told
}

// tally is how often each status and code was told.
func tally(told []response) map[string]int {
	n := map[string]int{}
	for _, r := range told {
		n[strings.TrimSpace(fmt.Sprint(r.status, " ", r.code()))]++
	}
	return n
}

// wantTally fails the test unless exactly these were told.
func (w *world) wantTally(told []response, want map[string]int) {
	w.t.Helper()
	if got := tally(told); fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("told: %v, want %v", got, want)
	}
}

func TestTwoHundredPartialRefundsAtOnceNeverExceedWhatWasSettled(t *testing.T) {
	t.Parallel()
	for of, target := range map[string]func(w *world) (deed, string){
		"a purchase": func(w *world) (deed, string) {
			s := w.sold("order-1", "100")
			return s.refund("7"), s.transaction
		},
		"a capture": func(w *world) (deed, string) {
			s := w.held("order-1", "150")
			r := w.act("capture-1", s.capture("100"))
			w.want(r, http.StatusOK)
			return s.refundOf(textAt(r, "id"), "7"), textAt(r, "id")
		},
	} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d, refunded := target(w)
			told := w.insistAll(throng, func(i int) (string, deed) { return fmt.Sprint("refund-", i), d })
			const fit = 14 // 14 × 7 ≤ 100 < 15 × 7
			w.wantTally(told, map[string]int{"200": fit, "400 INVALID_AMOUNT": throng - fit})
			if n, sum := w.psp.operated(providers.Refund, refunded); n != fit || !sum.Equal(decimal.New(98, 0)) {
				t.Errorf("the provider refunded %d times, %s in all", n, sum)
			}
			w.wantBalanced()
		})
	}
}

func TestTwoHundredRefundsWithOneNonceAreOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	told := w.insistAll(throng, func(int) (string, deed) { return "refund-1", s.refund("7") })
	w.wantTally(told, map[string]int{"200": throng})
	for _, r := range told {
		if !same(r, told[0]) {
			t.Fatalf("two answers of one life differ:\n%s\n%s", told[0], r)
		}
	}
	if n, sum := w.psp.operated(providers.Refund, s.transaction); n != 1 || !sum.Equal(decimal.New(7, 0)) {
		t.Errorf("the provider refunded %d times, %s in all", n, sum)
	}
	w.wantBalanced()
}

// While the first is at the provider, nobody waits for it: a pool of connections must
// not fill up behind one refund.
func TestDuplicatesOfARefundAtTheProviderAreToldAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	acted, letGo := w.holdOperation(operateAsUsual)
	first := w.acting(w.instance, "refund-1", s.refund("60"))
	receive(t, acted, "the refund")
	duplicates := atOnce(throng, func(int) (response, error) { return w.try(t.Context(), w.instance, "refund-1", s.refund("60")) })
	for range throng {
		w.wantInProcess(receive(t, duplicates, "a duplicate's answer"))
	}
	letGo()
	w.want(receive(t, first, "the answer"), http.StatusOK)
	w.wantBalanced()
}

func TestTwoRefundsOfSixtyOnAHundredAreOneSuccessAndOneRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 20 {
		s := w.sold(fmt.Sprint("order-", i), "100")
		told := w.insistAll(2, func(j int) (string, deed) { return fmt.Sprint("refund-", i, "-", j), s.refund("60") })
		w.wantTally(told, map[string]int{"200": 1, "400 INVALID_AMOUNT": 1})
		if n, _ := w.psp.operated(providers.Refund, s.transaction); n != 1 {
			t.Fatalf("the provider refunded %d times", n)
		}
	}
	w.wantBalanced()
}

// The reservation stands while the first is at the provider, whatever becomes of it.
func TestRefundIsReservedWhileItIsAtTheProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	acted, letGo := w.holdOperation(declinedForGood)
	first := w.acting(w.instance, "refund-1", s.refund("60"))
	receive(t, acted, "the refund")
	w.want(w.act("refund-2", s.refund("60")), http.StatusBadRequest, "INVALID_AMOUNT")
	w.want(w.act("refund-3", s.refund("40")), http.StatusOK)
	letGo()
	if r := receive(t, first, "the answer"); textAt(r, "transactions", "status") != string(Declined) {
		t.Fatalf("told %s", r)
	}
	w.want(w.act("refund-2", s.refund("60")), http.StatusOK) // given back
	w.wantBalanced()
}

func TestCaptureRacingCancelIsNeverBoth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const races = 100
	captured, cancelled := 0, 0
	for i := range races {
		s := w.held(fmt.Sprint("order-", i), "100")
		deeds := []deed{s.capture("100"), s.cancel()}
		told := w.insistAll(2, func(j int) (string, deed) { return fmt.Sprint("race-", i, "-", j), deeds[j] })
		if n := tally(told); n["200"] != 1 || n["400 INVALID_STATUS"]+n["400 INVALID_AMOUNT"] != 1 { // nothing is left, while a cancellation is under way
			t.Fatalf("race %d: told %v", i, n)
		}
		byCapture, _ := w.psp.operated(providers.Capture, s.transaction)
		byCancel, _ := w.psp.operated(providers.Cancel, s.transaction)
		if byCapture+byCancel != 1 || (told[0].status == http.StatusOK) != (byCapture == 1) {
			t.Fatalf("race %d: the provider captured %d times and cancelled %d times; told %v", i, byCapture, byCancel, tally(told))
		}
		captured, cancelled = captured+byCapture, cancelled+byCancel
	}
	t.Logf("%d captures won and %d cancellations", captured, cancelled)
	w.wantBalanced()
}

// The same where the loser comes while the winner is at the provider, and where the
// winner is declined: then the other may try.
func TestCaptureAndCancelExcludeEachOtherWhileOneIsAtTheProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for first, second := range map[Route]Route{RouteCapture: RouteCancel, RouteCancel: RouteCapture} {
		for _, answers := range []operating{operateAsUsual, declinedForGood} {
			order := fmt.Sprintf("order-%s-%p", first, answers)
			s := w.held(order, "100")
			of := map[Route]deed{RouteCapture: s.capture("100"), RouteCancel: s.cancel()}
			acted, letGo := w.holdOperation(answers)
			winner := w.acting(w.instance, order+"-first", of[first])
			receive(t, acted, string(first))
			if r := w.act(order+"-second", of[second]); r.status != http.StatusBadRequest {
				t.Fatalf("%s while a %s is at the provider: %s", second, first, r)
			}
			letGo()
			r := receive(t, winner, "the answer")
			w.want(r, http.StatusOK)
			after := w.act(order+"-second", of[second])
			if declined := textAt(r, "status") == string(Declined); declined != (after.status == http.StatusOK) {
				t.Fatalf("%s declined: %t, and the %s then: %s", first, declined, second, after)
			}
		}
	}
	w.wantBalanced()
}

// moody is a provider that answers an operation in one of the ways it can, of which some
// leave the outcome open.
func moody(_ context.Context, p *psp, o providers.Operation) providers.Result {
	switch rand.IntN(10) {
	case 0:
		return operateThenTimeout(context.Background(), p, o)
	case 1:
		return noAnswer(context.Background(), p, o)
	case 2:
		return brokenAnswer(context.Background(), p, o)
	case 3:
		return neverReached(context.Background(), p, o)
	case 4:
		return declinedForGood(context.Background(), p, o)
	}
	return p.operate(o)
}

// Captures, cancellations and refunds of a few payments, from many sides, with a
// provider that often leaves the outcome open and a recovery that is always there.
func TestManyActionsOnFewPaymentsAddUpInTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	const payments, actors, each = 3, 20, 15
	for i := range actors * each {
		if i%2 == 0 {
			w.psp.nextOperation(moody)
		} else {
			w.psp.nextOperation(operateAsUsual)
		}
	}
	sales := make([]sale, payments)
	for i := range sales {
		sales[i] = w.saleOf(fmt.Sprint("order-", i), "200", i == payments-1)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() { // recovery is under way all the time
		for {
			select {
			case <-done:
				return
			default:
				if _, err := w.service.Recover(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	var actorsDone sync.WaitGroup
	for a := range actors {
		actorsDone.Go(func() {
			for n := range each {
				s := sales[rand.IntN(payments)]
				r, err := w.insist(w.instance, fmt.Sprintf("deed-%d-%d", a, n), w.anyDeed(s))
				if err != nil || r.status != http.StatusOK && r.status != http.StatusCreated && r.status != http.StatusBadRequest {
					t.Errorf("told %s, error %v", r, err)
				}
			}
		})
	}
	actorsDone.Wait()
	close(done)
	wg.Wait()
	for _, s := range sales {
		p := w.paymentOf(s)
		t.Logf("%s after %d events: captured %s, refunded %s, canceled %s", p.state(), p.Version, p.Captured, p.Refunded, p.Canceled)
	}
	w.wantBalanced()
}

// anyDeed is something that could be done with a payment as it is just now, or not.
func (w *world) anyDeed(s sale) deed {
	amount := fmt.Sprint(1 + rand.IntN(9))
	var captures []string
	for _, tx := range w.succeeded(s, Capture) {
		captures = append(captures, tx.ID.String())
	}
	switch n := rand.IntN(20); {
	case n == 0:
		return s.cancel()
	case n == 1:
		return s.reverse("", amount)
	case n < 11 || len(captures) == 0:
		if len(w.succeeded(s, Purchase)) > 0 {
			return s.refund(amount)
		}
		return s.capture(amount)
	}
	return s.refundOf(captures[rand.IntN(len(captures))], amount)
}
