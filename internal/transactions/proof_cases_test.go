package transactions

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/providers"
)

// The cases about proof: when "unknown to us" means that nothing was or will be
// booked, who may conclude so, and that everything ends.

// underWay is a send that is neither booked nor lost: deliver decides.
type underWay struct {
	psp    *psp
	charge providers.Charge
}

// sendAway lets the provider's next send time out, and keeps it for later.
func (w *world) sendAway() *underWay {
	w.t.Helper()
	u := &underWay{psp: w.psp}
	w.psp.next(func(_ context.Context, _ *psp, c providers.Charge) providers.Result {
		u.charge = c
		return providers.Result{Outcome: providers.Unclear, TimedOut: true}
	})
	return u
}

func (u *underWay) deliver() { u.psp.book(u.charge) }

// asks is a body that differs from the first: whoever brings it can only ask.
func (w *world) asks(order string) []byte {
	w.t.Helper()
	return w.body(order, map[string]any{"description": "Another description"})
}

func TestH77ResendMovesTheProofMoment(t *testing.T) {
	t.Parallel()
	for arrives, c := range map[string]bool{"the resend arrives late": true, "the resend never arrives": false} {
		t.Run(arrives, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.be(func(t *providers.Traits) { t.CanVoid = false })
			w.psp.next(timeout)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
			w.shift("nonce-1", untilProof) // of the first send

			resend := w.sendAway()
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
			w.wantSends(2, 1)
			w.wantWait(w.create("nonce-1", w.asks("order-1")), untilProof) // of the resend
			w.dueAgain("nonce-1")
			if n := w.recoverOn(w.instance); n != 1 {
				t.Fatalf("recovery took %d, want 1", n)
			}
			w.wantTransaction("nonce-1", Created, 4)

			if c {
				resend.deliver()
				w.want(w.create("nonce-1", w.asks("order-1")), http.StatusCreated)
				w.wantCharges("order-1", 1)
				w.wantSends(2, 1)
				return
			}
			w.shift("nonce-1", untilProof)
			w.want(w.create("nonce-1", w.asks("order-1")), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
			w.wantCharges("order-1", 0)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantCharges("order-1", 1)
		})
	}
}

// A deployment lowers the provider's time-out while a payment is under way. How long
// that one may still arrive was settled when it was sent: by the time-out of the
// process that sent it, not of the one that asks.
func TestH77ProofMomentIsThatOfWhoSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.newInstance(w.db)
	w.steady()
	w.psp.be(notIdempotent)
	w.psp.be(func(t *providers.Traits) { t.Timeout = 20 * time.Second })
	arrived, wake := w.holdNext(approve)
	first := w.sendTo(before, "nonce-1", w.body("order-1", nil))
	receive(t, arrived, "the send")
	mayWait := w.transaction("nonce-1").MaySendUntil.Sub(w.at(`SELECT clock_timestamp()`)) + 10*time.Second // of its 20

	w.psp.be(func(t *providers.Traits) { t.Timeout, t.Settle = time.Second, time.Second })
	w.silence(before)
	w.shift("nonce-1", mayWait)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusConflict, "REQUEST_IN_PROCESS")
	wake()
	receive(t, first, "the answer of the process that sent")
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
}

func TestH82FailedIsJudgedOnlyAfterTheProofMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(notIdempotent)
	late := w.sendAway()
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)

	early := w.resolve("nonce-1", "failed")
	w.want(early, http.StatusConflict, "INVALID_STATE")
	wait := early.header.Get("Retry-After")
	if !strings.Contains(string(early.body), "failed can be decided in "+wait+" seconds") {
		t.Errorf("told to come back in %q seconds by the header, and in the body: %s", wait, early)
	}
	if seconds, err := strconv.Atoi(wait); err != nil || seconds < 20 || seconds > int(untilProof.Seconds()) {
		t.Errorf("the time left is %q seconds, want what is left of %s", wait, untilProof)
	}
	w.wantWait(w.create("nonce-1", w.body("order-1", nil)), untilProof) // nobody holds it
	w.wantEvents("nonce-1")

	late.deliver()
	w.shift("nonce-1", untilProof)
	w.want(w.resolve("nonce-1", "failed"), http.StatusConflict, "INVALID_STATE")
	if status := w.transaction("nonce-1").Status; status != Succeeded {
		t.Fatalf("a charge that had landed was recorded as %s", status)
	}
	w.wantEvents("nonce-1", "provider")
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
}

func TestH82FailedAfterTheProofMomentGivesTheNonceBack(t *testing.T) {
	t.Parallel()
	for kind, trait := range map[string]func(*providers.Traits){
		"a provider that can void": func(*providers.Traits) {}, "one that cannot": notIdempotent, "one that cannot even be asked": silent,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.be(trait)
			w.psp.next(timeout)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
			w.shift("nonce-1", untilProof)
			w.want(w.resolve("nonce-1", "failed"), http.StatusOK)
			w.wantTransaction("nonce-1", Errored, 2)
			w.wantEvents("nonce-1", "resolved")
			if pending := w.count(`SELECT count(*) FROM payments WHERE authorize_pending + settle_pending > 0`); pending != 0 {
				t.Error("the payment still counts on what has failed")
			}
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantCharges("order-1", 1)
		})
	}
}

func TestH82FailedTooEarlyLeavesAParkedTransactionParked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(silent) // such a one is parked even before the proof moment
	w.psp.next(timeout)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
	w.sql(`UPDATE transactions SET attempts = $1 - 1`, maxAttempts)
	w.dueAgain("nonce-1")
	if w.recoverOn(w.instance); w.transaction("nonce-1").ParkedAt == nil {
		t.Fatal("not parked")
	}
	w.want(w.resolve("nonce-1", "failed"), http.StatusConflict, "INVALID_STATE")
	w.wantParked(w.create("nonce-1", w.body("order-1", nil)))
	w.want(w.resolve("nonce-1", "succeeded"), http.StatusOK) // nobody holds it
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
}

// The judgement of failed begins with what earlier holders learnt. When that could
// not be read, the provider was not asked either, and a charge that was known, or
// could have been found, was recorded as failed: the merchant's next retry would
// have been its second.
func TestH82FailedIsNotJudgedBlindly(t *testing.T) {
	t.Parallel()
	for known, observed := range map[string]bool{"by the provider": false, "by an observation": true} {
		t.Run(known, func(t *testing.T) {
			t.Parallel()
			w, i, proxy := worldOfTwo(t)
			if observed {
				w.psp.be(silent)
			} else {
				w.psp.be(notIdempotent)
			}
			w.lostAnswer("nonce-1", "order-1")
			tx := w.transaction("nonce-1")
			if observed {
				if err := w.service.store.observe(t.Context(), tx, approved(tx.ID.String()), nil); err != nil {
					t.Fatal(err)
				}
			}
			w.shift("nonce-1", untilProof)
			blind := proxy.Cut("transactions.observations", pgproxy.Asked)
			r := w.resolveOn(i, "nonce-1", "failed")
			blind.Wait(t)
			if r.status == http.StatusOK {
				t.Errorf("the decision was taken: %s", r)
			}
			if now := w.transaction("nonce-1"); now.Status == Errored {
				t.Errorf("a booked charge was recorded as %s", now.Status)
			}
			w.shift("nonce-1", testLease)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantCharges("order-1", 1)
		})
	}
}

// keepsErrors is the policy of an installation that keeps every answer, as some of
// the systems do that this one stands in for.
func keepsErrors(o *Options) {
	o.Policies = only("keeps errors", func(p *idem.Policy) { p.KeepErrors = true })
}

func TestH83PendingAnswerStaysWhenTheProviderForgetsThePayment(t *testing.T) {
	t.Parallel()
	for kind, trait := range map[string]func(*providers.Traits){"a provider that can void": func(*providers.Traits) {}, "one that cannot": notIdempotent} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.be(trait)
			w.psp.next(accept)
			pending := w.create("nonce-1", w.body("order-1", nil))
			w.want(pending, http.StatusCreated)
			if pending.get("status") != "PENDING" {
				t.Fatalf("the first answer is %s", pending)
			}
			w.dueAgain("nonce-1")
			w.recoverOn(w.instance)
			w.wantTransaction("nonce-1", Pending, 2) // too early to prove anything

			w.shift("nonce-1", untilProof)
			w.dueAgain("nonce-1")
			if n := w.recoverOn(w.instance); n != 1 {
				t.Fatalf("recovery took %d, want 1", n)
			}
			if tx := w.wantTransaction("nonce-1", Errored, 3); tx.Released {
				t.Error("a nonce whose answer was told was given back")
			}
			w.wantEvents("nonce-1", "proved")
			w.wantReplay(pending, w.create("nonce-1", w.body("order-1", nil)), false)
			id, _ := pending.get("id").(string)
			if now := w.get("/v1/payments/" + id); now.get("status") != "ERROR" {
				t.Errorf("the payment is shown as %s", now)
			}
			if n := w.count(`SELECT count(*) FROM payments WHERE authorize_pending + settle_pending > 0`); n != 0 {
				t.Error("the payment still counts on what has failed")
			}
			w.wantSends(1, 1)
		})
	}
}

func TestH83StoredErrorStaysWhateverBecomesOfThePayment(t *testing.T) {
	t.Parallel()
	for becomes, c := range map[string]struct {
		does   behaviour
		status Status
		cause  string
		charge int
	}{
		"nothing": {timeout, Errored, "proved", 0}, "a charge": {chargeThenTimeout, Succeeded, "provider", 1},
	} {
		t.Run(becomes, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.psp.be(notIdempotent)
			i := w.newInstanceWith(w.db, keepsErrors)
			w.steady()
			w.psp.next(c.does)
			told := w.createOn(i, w.test, "nonce-1", w.body("order-1", nil))
			w.want(told, http.StatusGatewayTimeout, "REQUEST_TIMEOUT")
			w.wantReplay(told, w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), false)
			if n := w.psp.inquiries(); n != 0 {
				t.Errorf("a kept answer was asked about %d times", n)
			}

			w.shift("nonce-1", untilProof)
			w.dueAgain("nonce-1")
			if n := w.recoverOn(i); n != 1 {
				t.Fatalf("recovery took %d, want 1", n)
			}
			if tx := w.wantTransaction("nonce-1", c.status, 2); tx.Released {
				t.Error("a nonce whose answer was told was given back")
			}
			w.wantEvents("nonce-1", c.cause)
			w.wantReplay(told, w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), false)
			w.wantCharges("order-1", c.charge)
			w.wantSends(1, 1)
		})
	}
}

func TestH83FirstAttemptsErrorIsKeptInsteadOfReleased(t *testing.T) {
	t.Parallel()
	for how, c := range map[string]struct {
		does   behaviour
		told   int
		status Status
	}{"refused": {refuse, http.StatusBadRequest, Rejected}, "not reached": {notReached, http.StatusServiceUnavailable, Errored}} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			i := w.newInstanceWith(w.db, keepsErrors)
			w.steady()
			w.psp.next(c.does)
			told := w.createOn(i, w.test, "nonce-1", w.body("order-1", nil))
			w.want(told, c.told)
			if tx := w.wantTransaction("nonce-1", c.status, 1); tx.Released {
				t.Error("the nonce was given back")
			}
			w.wantReplay(told, w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), false)
			w.wantSends(1, 1)
		})
	}
}

// Recovery's own failure to learn something, or its proof, was stored as the nonce's
// answer: an error that no client had been told, replayed for a day to the first one
// who asked, even when the charge had gone through.
func TestH83ErrorThatNobodyWasToldIsNoAnswer(t *testing.T) {
	t.Parallel()
	t.Run("a question without an answer", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.psp.be(notIdempotent)
		i := w.newInstanceWith(w.db, keepsErrors)
		w.steady()
		acted, _ := w.holdAnswer(approve)
		w.sendTo(i, "nonce-1", w.body("order-1", nil))
		receive(t, acted, "the send")
		w.shift("nonce-1", testLease+grace)
		w.psp.mute(1)
		w.recoverOn(i)
		w.dueAgain("nonce-1")
		w.recoverOn(i)
		w.wantTransaction("nonce-1", Succeeded, 3)
		w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusCreated)
		w.wantCharges("order-1", 1)
	})
	t.Run("a proof", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.psp.be(notIdempotent)
		i := w.newInstanceWith(w.db, keepsErrors)
		w.steady()
		w.claim(i, "nonce-1", "order-1")
		w.shift("nonce-1", 2*testLease)
		w.recoverOn(i)
		w.wantTransaction("nonce-1", Errored, 2)
		w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusCreated)
		w.wantCharges("order-1", 1)
	})
}

func TestH84ProviderThatRefusesEveryResendIsNotSentAnother(t *testing.T) {
	t.Parallel()
	for kind, canVoid := range map[string]bool{"a provider that can void": true, "one that cannot": false} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.be(func(t *providers.Traits) { t.CanVoid = canVoid })
			w.psp.next(timeout, refuse, refuse, refuse, refuse)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusBadGateway, "PROVIDER_ERROR")
			w.wantSends(2, 1)
			if !w.transaction("nonce-1").ResendRefused {
				t.Fatal("the refusal was forgotten")
			}

			const every = 5 * time.Second
			mayStillArrive := w.transaction("nonce-1").MaySendUntil
			var r response
			for waited := time.Duration(0); waited <= untilProof+every; waited += every {
				if r = w.create("nonce-1", w.body("order-1", nil)); r.status != http.StatusConflict {
					break
				}
				w.wantSends(2, 1)
				if now := w.transaction("nonce-1").MaySendUntil; !now.Equal(mayStillArrive) {
					t.Fatalf("a retry put the proof off from %s to %s", mayStillArrive, now)
				}
				w.shift("nonce-1", every)
				mayStillArrive = mayStillArrive.Add(-every)
			}
			w.want(r, http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
			w.wantCharges("order-1", 0)
			w.psp.mu.Lock()
			w.psp.script = nil // it has come to its senses
			w.psp.mu.Unlock()
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantCharges("order-1", 1)
			w.wantSends(3, 2)
		})
	}
}

// wreck leaves payments behind in every state that a crash can leave them in, and
// says for each nonce whether its charge was booked.
func (w *world) wreck(dead instance) map[string]bool {
	w.t.Helper()
	booked := map[string]bool{}
	at := func(nonce string, charged bool) (string, []byte) {
		booked[nonce] = charged
		return nonce, w.body("order-of-"+nonce, nil)
	}
	for charged, does := range map[bool]behaviour{true: chargeThenTimeout, false: timeout} {
		w.psp.next(does)
		nonce, body := at(fmt.Sprintf("unclear-%t", charged), charged)
		w.want(w.createOn(dead, w.test, nonce, body), http.StatusGatewayTimeout)

		w.psp.next(does)
		nonce, body = at(fmt.Sprintf("taken-over-by-a-dead-worker-%t", charged), charged)
		w.want(w.createOn(dead, w.test, nonce, body), http.StatusGatewayTimeout)
		w.dueAgain(nonce)
		if r, err := dead.service.takeOver(w.t.Context(), w.transaction(nonce), w.psp, byRecovery); err != nil || r == nil {
			w.t.Fatal("not taken over:", err)
		}
	}
	nonce, _ := at("claimed", false)
	w.claim(dead, nonce, "order-of-"+nonce)

	nonce, body := at("sent-and-never-heard-of-again", true)
	acted, _ := w.holdAnswer(approve)
	w.sendTo(dead, nonce, body)
	receive(w.t, acted, "the send")

	nonce, body = at("accepted-and-forgotten", false)
	w.psp.next(accept)
	w.want(w.createOn(dead, w.test, nonce, body), http.StatusCreated)
	nonce, body = at("accepted-and-booked", true)
	w.psp.next(func(ctx context.Context, p *psp, c providers.Charge) providers.Result {
		p.book(c)
		return accept(ctx, p, c)
	})
	w.want(w.createOn(dead, w.test, nonce, body), http.StatusCreated)
	return booked
}

// No waiting room is left over: lease, settling time and two rounds are enough for
// everything that was in flight when the faults stopped.
func TestPromise7EverythingEndsOnceFaultsStop(t *testing.T) {
	t.Parallel()
	for _, idempotent := range []bool{true, false} {
		for _, canVoid := range []bool{true, false} {
			t.Run(fmt.Sprintf("idempotent %t, can void %t", idempotent, canVoid), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				dead := w.newInstance(w.db)
				w.steady()
				w.psp.be(func(t *providers.Traits) { t.Idempotent, t.CanVoid = idempotent, canVoid })
				booked := w.wreck(dead)
				w.silence(dead)
				for nonce := range booked {
					w.shift(nonce, grace)
				}
				w.recoverOn(w.instance) // what it can, it settles within seconds
				if n := w.count(`SELECT count(*) FROM transactions WHERE nonce LIKE '%true' AND status <> 'SUCCEEDED'`); n != 0 {
					t.Errorf("%d charges were left for later", n)
				}
				for nonce := range booked { // lease and settling time, and no more
					w.shift(nonce, testLease+w.psp.Traits().Settle-grace)
				}
				w.recoverOn(w.instance)
				if now, err := w.service.Backlog(t.Context()); err != nil || now.Unresolved != 0 || now.Parked != 0 {
					t.Errorf("left over: %+v (%v)", now, err)
				}
				for nonce, charged := range booked {
					want := Errored
					if charged {
						want = Succeeded
					}
					if tx := w.transaction(nonce); tx.Status != want {
						t.Errorf("%s ended as %s, want %s", nonce, tx.Status, want)
					}
					w.want(w.create(nonce, w.body("order-of-"+nonce, nil)), http.StatusCreated)
					if charges := w.psp.charges("order-of-" + nonce); charges != 1 && nonce != "accepted-and-forgotten" {
						t.Errorf("%s was charged %d times", nonce, charges)
					}
				}
			})
		}
	}
}

// One round looks at the oldest 64. Those that wait for a provider which is not
// configured any more once filled it for ever.
func TestPromise7TransactionsOfALostProviderKeepNobodyElseWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.lostAnswer("nonce-1", "order-1")
	w.sql(`INSERT INTO payments (account_id, id, mode, merchant_order_id, status, sub_status, currency, amount, request, created_at, updated_at)
		SELECT account_id, gen_random_uuid(), mode, merchant_order_id, status, sub_status, currency, amount, request, created_at, updated_at
		FROM payments, generate_series(1, $1)`, recoveryBatch+1)
	w.sql(`INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, nonce, card, lease_holder, instance_id,
			lease_until, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
		SELECT t.account_id, gen_random_uuid(), p.id, t.mode, t.type, t.status, t.currency, t.amount, 'LEFT_BEHIND_PSP', 'nonce-of-' || p.id, t.card,
			t.lease_holder, t.instance_id, t.lease_until, t.may_send_until, t.next_attempt_at - interval '1 hour', t.travel_us, t.created_at, t.updated_at
		FROM payments p, transactions t WHERE p.id <> t.payment_id`)
	w.dueAgain("nonce-1")
	_, _ = w.service.Recover(t.Context()) // it may complain
	w.wantTransaction("nonce-1", Succeeded, 2)
}

// A provider may answer anything. A reference with a character that PostgreSQL takes
// in no text made every save of its outcome fail: the row was taken over and dropped
// again once a lease, for ever, and neither ended nor parked.
func TestPromise7AnswerThatCannotBeStoredAsItIsStillEndsThePayment(t *testing.T) {
	t.Parallel()
	for what, reference := range map[string]string{"a zero byte": "psp-\x00-1", "broken UTF-8": "psp-\xff-1"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.next(func(_ context.Context, p *psp, c providers.Charge) providers.Result {
				r := p.book(c)
				r.ProviderReference = reference
				return r
			})
			r := w.create("nonce-1", w.body("order-1", nil))
			w.want(r, http.StatusCreated)
			w.wantTransaction("nonce-1", Succeeded, 1)
			w.wantReplay(r, w.create("nonce-1", w.body("order-1", nil)), false)
			w.wantCharges("order-1", 1)
		})
	}
}

// asChild is set in the environment of a test that runs itself once more, in a
// process that may die.
const asChild = "ONCEPAY_TEST_AS_CHILD"

// One answer that an adapter trips over must not end the process, because the next
// one reads the same list, asks the same question and dies of it too.
func TestPromise7AdapterThatPanicsStopsNobodyElse(t *testing.T) {
	if os.Getenv(asChild) == "" {
		t.Parallel()
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		again.Env = append(os.Environ(), asChild+"=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out[:min(len(out), 2000)])
		}
		return
	}
	w := newWorld(t)
	w.steady()
	panics := func() (providers.Result, bool) { panic("an adapter's fault") }

	w.psp.next(func(context.Context, *psp, providers.Charge) providers.Result { panic("an adapter's fault") })
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusInternalServerError, "INTERNAL_ERROR")
	w.shift("nonce-1", testLease)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)

	w.lostAnswer("nonce-2", "order-2")
	w.lostAnswer("nonce-3", "order-3")
	w.dueAgain("nonce-2")
	w.psp.asked(panics)
	_, _ = w.service.Recover(t.Context()) // it may complain
	w.dueAgain("nonce-3")
	w.recoverOn(w.instance)
	w.wantTransaction("nonce-3", Succeeded, 2)
	w.shift("nonce-2", testLease)
	w.dueAgain("nonce-2")
	w.recoverOn(w.instance)
	if status := w.transaction("nonce-2").Status; status != Succeeded {
		t.Errorf("what the adapter tripped over is %s", status)
	}
}

// An operator took the provider of test mode out. What was paid there was paid, and
// its retry must not sound as if it had not been.
func TestPromise3FinishedNonceReplaysWithoutAProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	without := w.newInstanceWith(w.db, func(o *Options) {
		o.Providers = providers.NewRegistry(map[string]providers.Provider{merchants.Live: w.psp})
	})
	w.wantReplay(first, w.createOn(without, w.test, "nonce-1", w.body("order-1", nil)), false)
	w.want(w.createOn(without, w.test, "nonce-2", w.body("order-2", nil)), http.StatusBadRequest, "UNAVAILABLE_PAYMENT_METHOD")
	if n := w.transactionsOf("nonce-2"); n != 0 {
		t.Error("a payment that nobody can charge was begun")
	}
}

// Whatever a holder believes to learn after its answer was stored, the answer is told
// in the same bytes from then on.
func TestPromise3StoredAnswerNeverChanges(t *testing.T) {
	t.Parallel()
	answers := []providers.Result{
		{Outcome: providers.Approved, ProviderReference: "psp-1", ResponseCode: "SUCCEEDED"},
		{Outcome: providers.Declined, ResponseCode: "DO_NOT_HONOR"},
		{Outcome: providers.Pending, ProviderReference: "psp-1"},
	}
	others := []providers.Result{
		{Outcome: providers.Refused}, {Outcome: providers.NotReached}, {Outcome: providers.Unclear}, {Outcome: providers.NotFound}, {Outcome: providers.Voided},
	}
	w := newWorld(t)
	w.steady()
	for _, first := range answers {
		for _, second := range slices.Concat(answers, others) {
			nonce := fmt.Sprintf("%s-then-%s", first.Outcome, second.Outcome)
			r := w.claim(w.instance, nonce, "order-of-"+nonce)
			told, err := w.service.conclude(t.Context(), r, first, false)
			if err != nil {
				t.Fatal(err)
			}
			before := w.record(nonce)
			proven := second.Outcome == providers.NotFound || second.Outcome == providers.Voided
			_, _ = w.service.conclude(t.Context(), r, second, proven) // what it is told is another case's business
			replay := w.create(nonce, w.body("order-of-"+nonce, nil))
			w.wantReplay(response{status: told.Status, body: told.Body, header: replayed(told.Body)}, replay, false)
			if after := w.record(nonce); first.Outcome != providers.Pending && after != before {
				t.Errorf("%s: a settled life changed:\n%s\n%s", nonce, before, after)
			}
		}
	}
}

// replayed are the headers of an answer that a test did not receive over HTTP.
func replayed(body []byte) http.Header {
	return http.Header{"Content-Type": {"application/json"}, "Content-Length": {strconv.Itoa(len(body))}}
}
