package transactions

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// A checkout session is paid once, whoever pays it, however often, and under however many
// nonces. The judge is what the provider booked for its order.

// tabsAtOnce is how many pay one session at once.
const tabsAtOnce = 50

// tally are the answers of a crowd, by status and code.
func (w *world) tally(answers <-chan response, n int) map[string]int {
	w.t.Helper()
	told := map[string]int{}
	for range n {
		r := receive(w.t, answers, "an answer of the crowd")
		told[strings.TrimSpace(fmt.Sprint(r.status, " ", r.code()))]++
	}
	return told
}

// wantOnePaid fails the test unless one of a crowd was told that it has paid, and all others
// why they have not, in one of the ways that are meant for that.
func (w *world) wantOnePaid(told map[string]int, n int, refusals ...string) {
	w.t.Helper()
	rest := n - 1
	for _, r := range refusals {
		rest -= told[r]
	}
	if told["201"] != 1 || rest != 0 {
		w.t.Errorf("the crowd was told %v, want 201 once and else %q", told, refusals)
	}
}

func TestOneSessionIsPaidOnceByACrowdOfNoncesAndTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session := w.session("order-1")
	tokens := make([]uuid.UUID, tabsAtOnce)
	for i := range tokens {
		tokens[i] = w.token(session)
	}
	told := w.tally(atOnce(tabsAtOnce, func(i int) (response, error) {
		return w.post(w.instance, w.test, newNonce(), w.checkoutBody("order-1", session, tokens[i], nil))
	}), tabsAtOnce)
	w.wantOnePaid(told, tabsAtOnce, "409 REQUEST_IN_PROCESS", "400 CHECKOUT_SESSION_NOT_FOUND")
	w.wantCharges("order-1", 1)
	if n := w.count(`SELECT count(*) FROM one_time_tokens WHERE payment_id IS NOT NULL`); n != 1 {
		t.Errorf("%d tokens are used up", n)
	}
	if n := w.count(`SELECT count(*) FROM payments`); n != 1 {
		t.Errorf("%d payments were made", n)
	}
	w.wantNothingOpen()
}

func TestOneTokenPaysOnceForACrowdOfNonces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		session bool
	}{{"in a session", true}, {"without one", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			session := uuid.Nil
			if c.session {
				session = w.session("order-1")
			}
			token := w.token(session)
			told := w.tally(atOnce(tabsAtOnce, func(int) (response, error) {
				return w.post(w.instance, w.test, newNonce(), w.checkoutBody("order-1", session, token, nil))
			}), tabsAtOnce)
			refusals := []string{"401 TOKEN_IN_USE", "409 REQUEST_IN_PROCESS"}
			if c.session {
				refusals = append(refusals, "400 CHECKOUT_SESSION_NOT_FOUND")
			}
			w.wantOnePaid(told, tabsAtOnce, refusals...)
			w.wantCharges("order-1", 1)
		})
	}
}

// Browsers make nonces of their own in every tab.
func TestOneSessionIsPaidOnceByACrowdOfTabs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session, tabs := w.session("order-1"), merchants.OrdersPerSession
	tokens := make([]uuid.UUID, tabs)
	for i := range tokens {
		tokens[i] = w.token(session)
	}
	told := w.tally(atOnce(tabs, func(i int) (response, error) {
		return w.browserPays(t.Context(), newNonce(), session, tokens[i])
	}), tabs)
	w.wantOnePaid(told, tabs, "409 REQUEST_IN_PROCESS", "400 CHECKOUT_SESSION_NOT_FOUND")
	w.wantCharges("order-1", 1)
	w.want(w.pays(newNonce(), session, tokens[0]), http.StatusTooManyRequests, "RATE_LIMITED")
}

// Twenty clicks are one nonce.
func TestTwentyClicksAreOnePayment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session := w.session("order-1")
	token, nonce := w.token(session), newNonce()
	told := w.tally(atOnce(merchants.OrdersPerSession, func(int) (response, error) {
		return w.browserPays(t.Context(), nonce, session, token)
	}), merchants.OrdersPerSession)
	if told["201"]+told["409 REQUEST_IN_PROCESS"] != merchants.OrdersPerSession || told["201"] == 0 {
		t.Errorf("the clicks were told %v", told)
	}
	w.wantCharges("order-1", 1)
}

func TestDeclinedSessionCanBeTriedAgainAndIsPaidOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session := w.session("order-1")
	first, second, third := w.token(session), w.token(session), w.token(session)

	w.psp.next(decline)
	declined := w.pays("3f7c1f3e-0000-4000-8000-000000000001", session, first)
	w.want(declined, http.StatusCreated)
	if declined.get("status") != "DECLINED" {
		t.Fatalf("got %s", declined)
	}
	w.wantFree(session, first, true, false)
	w.wantReplay(declined, w.pays("3f7c1f3e-0000-4000-8000-000000000001", session, first), false)
	w.want(w.pays(newNonce(), session, first), http.StatusUnauthorized, "TOKEN_IN_USE")

	paid := w.pays("3f7c1f3e-0000-4000-8000-000000000002", session, second)
	w.want(paid, http.StatusCreated)
	if paid.get("status") != "SUCCEEDED" {
		t.Fatalf("got %s", paid)
	}
	w.wantFree(session, second, false, false)
	for range 3 {
		w.want(w.pays(newNonce(), session, third), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	}
	w.want(w.create("nonce-of-the-backend", w.checkoutBody("order-1", session, third, nil)), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	w.wantReplay(declined, w.pays("3f7c1f3e-0000-4000-8000-000000000001", session, first), false)
	w.wantReplay(paid, w.pays("3f7c1f3e-0000-4000-8000-000000000002", session, second), false)
	w.wantCharges("order-1", 1)
	w.wantFree(session, third, false, true)
	if told := w.sessionPayment(session); told.get("id") != paid.get("id") {
		t.Errorf("the session's payment is %s", told)
	}
}

// What is pending may come true, so nobody else gets the session meanwhile; if it does not
// come true, somebody does.
func TestPendingPaymentHoldsItsSession(t *testing.T) {
	t.Parallel()
	for ends, free := range map[providers.Outcome]bool{providers.Approved: false, providers.Declined: true} {
		t.Run(string(ends), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			session, nonce := w.session("order-1"), newNonce()
			token, other := w.token(session), w.token(session)
			w.psp.next(accept)
			w.psp.asked(func() (providers.Result, bool) {
				return providers.Result{Outcome: ends, ProviderReference: "psp-pending", ResponseCode: "SUCCEEDED"}, true
			})
			r := w.pays(nonce, session, token)
			w.want(r, http.StatusCreated)
			if r.get("status") != "PENDING" {
				t.Fatalf("got %s", r)
			}
			w.want(w.pays(newNonce(), session, other), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
			w.wantFree(session, token, false, false)

			w.dueAgain(nonce)
			w.recoverOn(w.instance)
			w.wantFree(session, token, free, false)
			w.wantReplay(r, w.pays(nonce, session, token), false)
			again := w.pays(newNonce(), session, other)
			if free {
				w.want(again, http.StatusCreated)
			} else {
				w.want(again, http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
			}
			if told, charges := w.sessionPayment(session), w.psp.charges("order-1"); told.get("status") != "SUCCEEDED" || free != (charges == 1) {
				t.Errorf("the session's payment is %s, booked are %d", told, charges)
			}
		})
	}
}

// While nobody knows whether a session is paid, another nonce waits, and hears the truth
// once it is known.
func TestUnresolvedPaymentHoldsItsSessionUntilTheTruthIsKnown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		does   behaviour
		status int
		booked int
	}{
		{"charged, and no answer", chargeThenTimeout, http.StatusGatewayTimeout, 1},
		{"nothing charged, and no answer", timeout, http.StatusGatewayTimeout, 0},
		{"an error of the provider", serverError, http.StatusBadGateway, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			session, nonce := w.session("order-1"), newNonce()
			token, other := w.token(session), w.token(session)
			w.psp.next(c.does)
			w.want(w.pays(nonce, session, token), c.status)
			w.wantFree(session, token, false, false)
			waits := w.pays(newNonce(), session, other)
			w.want(waits, http.StatusConflict, "REQUEST_IN_PROCESS")
			if waits.header.Get("Retry-After") == "" {
				t.Error("nobody is told when to come back")
			}

			w.shift(nonce, 2*testLease) // past the proof moment
			w.dueAgain(nonce)
			w.recoverOn(w.instance)
			w.wantFree(session, token, c.booked == 0, c.booked == 0)
			again := w.pays(newNonce(), session, other)
			if c.booked == 0 {
				w.want(again, http.StatusCreated)
			} else {
				w.want(again, http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
			}
			w.wantCharges("order-1", 1)
			if told := w.sessionPayment(session); told.get("status") != "SUCCEEDED" {
				t.Errorf("the session's payment is %s", told)
			}
		})
	}
}

// What certainly had no effect gives everything back, the nonce, too.
func TestWhatHadNoEffectGivesSessionAndTokenBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		does   behaviour
		status int
		code   string
	}{
		{"never reached", notReached, http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE"},
		{"refused", refuse, http.StatusBadRequest, "INVALID_REQUEST"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			session, nonce := w.session("order-1"), newNonce()
			token := w.token(session)
			for range 2 {
				w.psp.next(c.does)
				w.want(w.pays(nonce, session, token), c.status, c.code)
				w.wantFree(session, token, true, true)
			}
			r := w.pays(nonce, session, token)
			w.want(r, http.StatusCreated)
			w.wantNoReplay(r)
			w.wantCharges("order-1", 1)
			w.wantReplay(r, w.pays(nonce, session, token), false)
		})
	}
}

// A backend's token without a session is given back, too.
func TestTokenWithoutASessionIsGivenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.token(uuid.Nil)
	body := w.checkoutBody("order-1", uuid.Nil, token, nil)
	w.psp.next(notReached)
	w.want(w.create("nonce-1", body), http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE")
	w.want(w.create("nonce-1", body), http.StatusCreated)
	w.want(w.create("nonce-2", body), http.StatusUnauthorized, "TOKEN_IN_USE")
	w.wantCharges("order-1", 1)
}

// claimSession begins a session's payment and goes no further, as a process does that dies
// between its commit and its send.
func (w *world) claimSession(i instance, nonce string, body []byte) {
	w.t.Helper()
	cmd := w.command(i, nonce, body)
	p, refusal, err := i.service.complete(w.t.Context(), &cmd)
	if refusal != nil || err != nil {
		w.t.Fatal(refusal, err)
	}
	if r, err := i.service.begin(w.t.Context(), cmd, p); r == nil || err != nil {
		w.t.Fatalf("not claimed: %v", err)
	}
}

// A process dies between the claim and its answer. Session and token stay taken until
// somebody knows what became of it.
func TestSessionOutlivesTheProcessThatWasPayingIt(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (w *world, session, token, other uuid.UUID, body []byte) {
		t.Helper()
		w = newWorld(t)
		session = w.session("order-1")
		token, other = w.token(session), w.token(session)
		body = w.checkoutBody("order-1", session, token, nil)
		dead := w.newInstance(w.db)
		w.steady()
		w.claimSession(dead, "nonce-1", body)
		w.want(w.create("nonce-1", body), http.StatusConflict, "REQUEST_IN_PROCESS")
		w.want(w.create("nonce-2", w.checkoutBody("order-1", session, other, nil)), http.StatusConflict, "REQUEST_IN_PROCESS")
		w.silence(dead)
		return w, session, token, other, body
	}
	t.Run("the retry sends the token again", func(t *testing.T) {
		t.Parallel()
		w, session, token, other, body := begin(t)
		w.want(w.create("nonce-2", w.checkoutBody("order-1", session, other, nil)), http.StatusConflict, "REQUEST_IN_PROCESS")
		r := w.create("nonce-1", body)
		w.want(r, http.StatusCreated)
		w.wantCharges("order-1", 1)
		w.wantFree(session, token, false, false)
		w.want(w.create("nonce-2", w.checkoutBody("order-1", session, other, nil)), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	})
	t.Run("the retry brings another token, and may only ask", func(t *testing.T) {
		t.Parallel()
		w, session, token, other, _ := begin(t)
		w.want(w.create("nonce-1", w.checkoutBody("order-1", session, other, nil)), http.StatusConflict, "REQUEST_IN_PROCESS")
		w.wantCharges("order-1", 0)
		w.wantFree(session, token, false, false)
		w.wantFree(session, other, false, true)
	})
	t.Run("nobody comes back, and recovery settles it", func(t *testing.T) {
		t.Parallel()
		w, session, token, other, body := begin(t)
		w.shift("nonce-1", 2*testLease)
		w.dueAgain("nonce-1")
		w.recoverOn(w.instance)
		w.wantFree(session, token, true, true)
		w.want(w.create("nonce-2", w.checkoutBody("order-1", session, other, nil)), http.StatusCreated)
		w.want(w.create("nonce-1", body), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		w.wantCharges("order-1", 1)
	})
}

// The answer is lost after the charge, and the same request comes again: with the token
// that it brings, it is sent again where that is safe, and only asked about elsewhere.
func TestRetryOfALostAnswerIsOneCharge(t *testing.T) {
	t.Parallel()
	for name, does := range map[string]behaviour{"charged": chargeThenTimeout, "not charged": timeout} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			session, nonce := w.session("order-1"), newNonce()
			token := w.token(session)
			w.psp.next(does)
			w.want(w.pays(nonce, session, token), http.StatusGatewayTimeout, "REQUEST_TIMEOUT")
			r := w.pays(nonce, session, token)
			w.want(r, http.StatusCreated)
			w.wantCharges("order-1", 1)
			w.wantReplay(r, w.pays(nonce, session, token), false)
			if b := w.psp.bookings[0]; b.Token.Value == "" || b.Amount.String() != "45.67" {
				t.Errorf("booked was %+v", b)
			}
		})
	}
}

// A browser is believed in nothing.
func TestBodyOfABrowserHasNoEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session := w.session("order-1")
	token := w.token(session)
	body := []byte(`{"account_id":"` + uuid.NewString() + `","amount":{"currency":"EUR","value":0.01},"merchant_order_id":"order-2","country":"DE",
		"description":"sandbox:timeout","workflow":"DIRECT","checkout":{"session":"` + uuid.NewString() + `"},"callback_url":"https://evil.example",
		"customer_payer":{"id":"` + uuid.NewString() + `"},"metadata":[{"key":"k","value":"v"}],
		"payment_method":{"token":"` + token.String() + `","vault_on_success":true,"vaulted_token":"` + uuid.NewString() + `",
			"detail":{"card":{"capture":false,"verify":true,"card_data":{"number":"4111111111111111"}}}}}`)
	r := w.call(http.MethodPost, w.public.URL+"/v1/checkout/sessions/"+session.String()+"/payment", body,
		"public-api-key", w.test.PublicAPIKey, "X-Idempotency-Key", newNonce())
	w.want(r, http.StatusCreated)
	b := w.psp.bookings[0]
	if b.Amount.String() != "45.67" || b.Currency != "USD" || b.MerchantOrderID != "order-1" || b.Description != "A test payment" || b.Country != "US" || !b.Capture || b.Verify {
		t.Errorf("booked was %+v", b)
	}
	if !strings.HasSuffix(b.ReturnURL, PayPage+session.String()) || strings.Contains(b.ReturnURL, "evil") {
		t.Errorf("the payer comes back to %s", b.ReturnURL)
	}
	if r.get("amount", "value") != 45.67 || r.get("callback_url") != "" || r.get("workflow") != WorkflowSeamless || r.get("checkout", "session") != session.String() {
		t.Errorf("told was %s", r)
	}
}

// The backend is trusted: its own amount counts, and that it is another is written down.
func TestAmountOfTheBackendCountsAndTheDifferenceIsNoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		order, amount string
		noted         bool
	}{{"order-1", "40", true}, {"order-2", "45.670", false}} {
		session := w.session(c.order)
		token := w.token(session)
		w.want(w.create(c.order, w.checkoutBody(c.order, session, token, map[string]any{"amount": json.Number(c.amount)})), http.StatusCreated)
		var notes []string
		for _, m := range w.lives(c.order)[0].Timeline {
			if m.Kind == "checkout" {
				if m.Reference != session.String() {
					t.Errorf("%s: the timeline names session %s", c.order, m.Reference)
				}
				notes = append(notes, m.Reason)
			}
		}
		want := ""
		if c.noted {
			want = "the checkout session asked for 45.67 USD"
		}
		if len(notes) != 1 || notes[0] != want {
			t.Errorf("%s: the timeline notes %q, want %q", c.order, notes, want)
		}
	}
	if b := w.psp.bookings[0]; b.Amount.String() != "40" {
		t.Errorf("booked was %s", b.Amount)
	}
}

func TestSessionsAndTokensEndByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	end := func(table string, id uuid.UUID) {
		t.Helper()
		if w.sql(`UPDATE `+table+` SET expires_at = clock_timestamp() WHERE id = $1`, id) != 1 {
			t.Fatal("nothing to end")
		}
	}
	session := w.session("order-1")
	token := w.token(session)
	end("one_time_tokens", token)
	w.want(w.pays(newNonce(), session, token), http.StatusUnauthorized, "INVALID_TOKEN")
	w.want(w.create("nonce-1", w.checkoutBody("order-1", session, token, nil)), http.StatusUnauthorized, "INVALID_TOKEN")

	token, nonce := w.token(session), newNonce()
	w.psp.next(chargeThenTimeout)
	w.want(w.pays(nonce, session, token), http.StatusGatewayTimeout)
	end("checkout_sessions", session)
	end("one_time_tokens", token)
	paid := w.pays(nonce, session, token) // what began in time is told, however late
	w.want(paid, http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantReplay(paid, w.pays(nonce, session, token), false)
	w.want(w.pays(newNonce(), session, w.token(session)), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	if told := w.sessionPayment(session); told.status != http.StatusOK || told.get("id") != paid.get("id") {
		t.Errorf("the payment of an expired session: %s", told)
	}

	unpaid := w.session("order-2")
	end("checkout_sessions", unpaid)
	w.want(w.pays(newNonce(), unpaid, w.token(unpaid)), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	w.want(w.sessionPayment(unpaid), http.StatusBadRequest, "PAYMENT_NOT_FOUND")
	w.wantCharges("order-2", 0)
}

// A session that ends while a payment is about to take it is not paid: the statement that
// takes it looks at the clock once more.
func TestSessionThatEndsBetweenLookAndClaimIsNotPaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session := w.session("order-1")
	cmd := w.command(w.instance, "nonce-1", w.checkoutBody("order-1", session, w.token(session), nil))
	p, refusal, err := w.service.complete(t.Context(), &cmd)
	if refusal != nil || err != nil {
		t.Fatal(refusal, err)
	}
	w.sql(`UPDATE checkout_sessions SET expires_at = clock_timestamp()`)
	if r, err := w.service.begin(t.Context(), cmd, p); r != nil || err != nil {
		t.Fatalf("claimed: %v, %v", r, err)
	}
	for _, table := range []string{"idempotency_keys", "payments", "transactions", "payment_sources"} {
		if n := w.count(`SELECT count(*) FROM ` + table); n != 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
}

// A session that changes between look and claim is read again.
func TestSessionThatChangesBetweenLookAndClaimIsNotPaidAsItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session := w.session("order-1")
	cmd := w.command(w.instance, "nonce-1", w.checkoutBody("order-1", session, w.token(session), nil))
	p, refusal, err := w.service.complete(t.Context(), &cmd)
	if refusal != nil || err != nil {
		t.Fatal(refusal, err)
	}
	w.sql(`UPDATE checkout_sessions SET amount = 1, version = version + 1`)
	if r, err := w.service.begin(t.Context(), cmd, p); r != nil || err != nil {
		t.Fatalf("claimed: %v, %v", r, err)
	}
	if n := w.count(`SELECT count(*) FROM idempotency_keys`); n != 0 {
		t.Error("the nonce is not free")
	}
}
