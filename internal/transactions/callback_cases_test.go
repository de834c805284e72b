package transactions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/providers"
)

// What a provider says by itself: about what it had accepted, and about disputes. It may
// say it early, late, twice, in any order, or never; and somebody else may say it.

// said is a message of the test provider's. It is signed with a header.
type said struct {
	ID        string `json:"id"`
	AccountID string `json:"account_id"`
	Mode      string `json:"mode"`
	Reference string `json:"reference"`
	Outcome   string `json:"outcome,omitempty"`
	Code      string `json:"code,omitempty"`
	DisputeID string `json:"dispute_id,omitempty"`
	Stage     string `json:"stage,omitempty"`
	Amount    string `json:"amount,omitempty"`
	Currency  string `json:"currency,omitempty"`
}

const (
	signatureHeader = "Psp-Signature"
	goodSignature   = "signed by the provider"
)

func (p *psp) ReadCallback(header http.Header, body []byte) (providers.Callback, error) {
	if header.Get(signatureHeader) != goodSignature {
		return providers.Callback{}, providers.ErrForged
	}
	var m said
	if json.Unmarshal(body, &m) != nil {
		return providers.Callback{}, providers.ErrCallback
	}
	amount, _ := decimal.NewFromString(m.Amount)
	c := providers.Callback{ID: m.ID, Order: providers.Order{Reference: m.Reference, AccountID: m.AccountID, Mode: m.Mode}}
	if m.DisputeID != "" {
		c.Dispute = &providers.Dispute{ID: m.DisputeID, Stage: providers.DisputeStage(m.Stage), Amount: amount, Currency: m.Currency}
		return c, nil
	}
	c.Result = providers.Result{Outcome: providers.Outcome(m.Outcome), ResponseCode: m.Code, ProviderReference: "psp-" + m.Reference, Amount: amount, Currency: m.Currency}
	return c, nil
}

var _ providers.Notifier = (*psp)(nil)

// calls back about a transaction, signed, and returns the answer.
func (w *world) callsBack(m said) response {
	w.t.Helper()
	body, err := json.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.call(http.MethodPost, w.public.URL+CallbackPath(w.psp.Name()), body, signatureHeader, goodSignature)
}

func (w *world) hears(m said, want Heard) {
	w.t.Helper()
	if r := w.callsBack(m); r.status != http.StatusOK || r.get("status") != string(want) {
		w.t.Fatalf("%+v was answered with %s, want %s", m, r, want)
	}
}

// about is a message about the newest transaction of a nonce.
func (w *world) about(id, nonce, outcome string) said {
	w.t.Helper()
	tx := w.transaction(nonce)
	m := said{ID: id, AccountID: tx.AccountID.String(), Mode: tx.Mode, Reference: tx.ID.String(), Outcome: outcome, Code: "SUCCEEDED"}
	if outcome == "declined" {
		m.Code = "INSUFFICIENT_FUNDS"
	}
	return m
}

// acceptFirst is a provider that decides later.
func acceptFirst(_ context.Context, _ *psp, c providers.Charge) providers.Result {
	return providers.Result{Outcome: providers.Pending, ProviderReference: "psp-" + c.Reference}
}

// wantState fails the test unless the payment of a nonce is in that state, with that
// version and as many events, and nothing of it is reserved.
func (w *world) wantState(nonce string, state PaymentStatus, version int64) Payment {
	w.t.Helper()
	p, err := w.service.store.payment(w.t.Context(), w.account, w.transaction(nonce).PaymentID)
	if err != nil {
		w.t.Fatal(err)
	}
	events := w.count(`SELECT count(*) FROM events WHERE payment_id = $1`, p.ID)
	if p.state() != state || p.Version != version || events != int(version) {
		w.t.Fatalf("the payment is %s, version %d with %d events; want %s and %d", p.state(), p.Version, events, state, version)
	}
	return p
}

func (w *world) wantNothingReserved() {
	w.t.Helper()
	if n := w.count(`SELECT count(*) FROM payments WHERE authorize_pending + settle_pending + refund_pending + cancel_pending <> 0`); n != 0 {
		w.t.Fatalf("%d payments have something reserved", n)
	}
	if n := w.count(`SELECT count(*) FROM transactions WHERE refund_pending <> 0`); n != 0 {
		w.t.Fatalf("%d transactions have something reserved", n)
	}
}

func TestH78CallbackFinishesWhatThePaymentWaitedFor(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[string]PaymentStatus{"approved": PaymentApproved, "declined": PaymentDeclined} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.psp.next(acceptFirst)
			body := w.body("order-1", nil)
			first := w.create("nonce-1", body)
			w.want(first, http.StatusCreated)
			if first.get("status") != "PENDING" || first.get("transactions", "response_code") != waitingCode {
				t.Fatalf("told: %s", first)
			}
			w.wantState("nonce-1", Unconfirmed, 0)
			fence := w.transaction("nonce-1").Fence

			m := w.about("message-1", "nonce-1", outcome)
			w.hears(m, HeardApplied)
			w.wantState("nonce-1", want, 1)
			if tx := w.transaction("nonce-1"); tx.Fence != fence+1 || tx.LeaseUntil != nil {
				t.Errorf("it was finished under fence %d (before: %d), lease %v", tx.Fence, fence, tx.LeaseUntil)
			}
			w.wantNothingReserved()
			w.hears(m, HeardDuplicate)
			m.ID = "message-2"
			w.hears(m, HeardKnown)
			w.wantState("nonce-1", want, 1)
			if again := w.create("nonce-1", body); again.status != first.status || string(again.body) != string(first.body) {
				t.Errorf("the stored answer has changed to %s", again)
			}
			if r := w.get("/v1/payments/" + textAt(first, "id")); r.get("status") != want.Status {
				t.Errorf("the payment reads %s", r)
			}
		})
	}
}

func TestH78CallbackAboutAnActionConsumesOrGivesBackWhatItReserved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		deed                         func(w *world) deed
		pending, approved, declined  PaymentStatus
		captured, refundedIfApproved string
	}{
		"capture": {func(w *world) deed { return w.held("order-1", "100").capture("60") }, PaymentAuthorized, PaymentPartiallyCaptured, PaymentAuthorized, "60", "0"},
		"cancel":  {func(w *world) deed { return w.held("order-1", "100").cancel() }, PaymentCancelPending, PaymentCanceled, PaymentAuthorized, "0", "0"},
		"refund":  {func(w *world) deed { return w.sold("order-1", "100").refund("60") }, PaymentRefundPending, PaymentPartiallyRefunded, PaymentApproved, "0", "60"},
	} {
		for _, outcome := range []string{"approved", "declined"} {
			t.Run(name+" "+outcome, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.psp.nextOperation(acceptedForNow)
				d := c.deed(w)
				first := w.act("nonce-1", d)
				w.want(first, http.StatusOK)
				s := sale{d.payment, d.transaction}
				w.wantPayment(s, c.pending, "0", "0")
				w.hears(w.about("message-1", "nonce-1", outcome), HeardApplied)
				if outcome == "approved" {
					w.wantPayment(s, c.approved, c.captured, c.refundedIfApproved)
				} else {
					w.wantPayment(s, c.declined, "0", "0")
				}
				w.wantNothingReserved()
				if again := w.act("nonce-1", d); string(again.body) != string(first.body) {
					t.Errorf("the stored answer has changed to %s", again)
				}
			})
		}
	}
}

// The callback may be faster than the answer to our own request.
func TestCallbackBeforeTheProvidersOwnAnswerIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.next(func(ctx context.Context, p *psp, c providers.Charge) providers.Result {
		w.hears(w.about("message-1", "nonce-1", "approved"), HeardKept)
		w.hears(w.about("message-1", "nonce-1", "approved"), HeardDuplicate)
		return acceptFirst(ctx, p, c)
	})
	r := w.create("nonce-1", w.body("order-1", nil))
	w.want(r, http.StatusCreated)
	if r.get("status") != "PENDING" {
		t.Fatalf("told: %s", r)
	}
	if n, err := w.service.Recover(t.Context()); err != nil || n != 1 { // at once: it was told
		t.Fatalf("recovery took %d over: %v", n, err)
	}
	w.wantState("nonce-1", PaymentApproved, 1)
	if w.psp.inquiry != 0 {
		t.Errorf("the provider was asked although it had said it")
	}
	w.wantNothingReserved()
}

// The answer was lost, and the callback comes before anybody has asked.
func TestCallbackSettlesWhatNobodyKnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(timeout)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
	w.hears(w.about("message-1", "nonce-1", "approved"), HeardApplied)
	w.wantState("nonce-1", PaymentApproved, 1)
	r := w.create("nonce-1", w.body("order-1", nil))
	w.want(r, http.StatusCreated)
	if r.get("status") != "SUCCEEDED" {
		t.Errorf("told: %s", r)
	}
}

// The process dies between writing the message down and acting on it.
func TestCallbackThatWasKeptIsActedOnByRecovery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(acceptFirst)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	tx := w.transaction("nonce-1")
	heard, _, err := w.service.store.hear(t.Context(), tx, "message-1", providers.Result{Outcome: providers.Approved, ResponseCode: "SUCCEEDED"})
	if err != nil || heard != HeardKept {
		t.Fatalf("heard %s: %v", heard, err)
	}
	if n, err := w.service.Recover(t.Context()); err != nil || n != 1 {
		t.Fatalf("recovery took %d over: %v", n, err)
	}
	w.wantState("nonce-1", PaymentApproved, 1)
	w.hears(w.about("message-1", "nonce-1", "approved"), HeardDuplicate)
}

func TestCallbacksThatChangeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.psp.next(decline)
	w.want(w.create("nonce-2", w.body("order-2", nil)), http.StatusCreated)
	before := w.footprint()
	other := w.about("m", "nonce-1", "approved")
	for name, c := range map[string]struct {
		change func(m *said)
		nonce  string
		want   Heard
	}{
		"approved, days late":                 {func(*said) {}, "nonce-1", HeardKnown},
		"pending, after it was approved":      {func(m *said) { m.Outcome = "pending" }, "nonce-1", HeardKnown},
		"declined, after it was approved":     {func(m *said) { m.Outcome, m.Code = "declined", "DO_NOT_HONOR" }, "nonce-1", HeardContradicts},
		"approved, after it was declined":     {func(*said) {}, "nonce-2", HeardContradicts},
		"another amount":                      {func(m *said) { m.Amount, m.Currency = "1", "USD" }, "nonce-1", HeardContradicts},
		"another currency":                    {func(m *said) { m.Amount, m.Currency = "45.67", "EUR" }, "nonce-1", HeardContradicts},
		"a dispute about what was declined":   {func(m *said) { m.DisputeID, m.Stage, m.Amount, m.Currency = "d", "received", "1", "USD" }, "nonce-2", HeardContradicts},
		"a dispute about more than was moved": {func(m *said) { m.DisputeID, m.Stage, m.Amount, m.Currency = "d", "received", "46", "USD" }, "nonce-1", HeardContradicts},
	} {
		m := w.about("message: "+name, c.nonce, "approved")
		c.change(&m)
		w.hears(m, c.want)
	}
	for name, c := range map[string]struct {
		change    func(m *said)
		signature string
		status    int
		code      string
	}{
		"forged":              {func(*said) {}, "somebody else", http.StatusUnauthorized, "INVALID_CREDENTIALS"},
		"without a signature": {func(*said) {}, "", http.StatusUnauthorized, "INVALID_CREDENTIALS"},
		"without an id":       {func(m *said) { m.ID = "" }, goodSignature, http.StatusBadRequest, "INVALID_REQUEST"},
		"unknown payment":     {func(m *said) { m.Reference = uuid.NewString() }, goodSignature, http.StatusNotFound, "NOT_FOUND"},
		"no reference of us":  {func(m *said) { m.Reference = "'; --" }, goodSignature, http.StatusNotFound, "NOT_FOUND"},
		"another account":     {func(m *said) { m.AccountID = uuid.NewString() }, goodSignature, http.StatusNotFound, "NOT_FOUND"},
		"another mode":        {func(m *said) { m.Mode = "live" }, goodSignature, http.StatusNotFound, "NOT_FOUND"},
		"an unknown stage":    {func(m *said) { m.DisputeID, m.Stage = "d", "appealed" }, goodSignature, http.StatusBadRequest, "INVALID_REQUEST"},
	} {
		m := other
		c.change(&m)
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		r := w.call(http.MethodPost, w.public.URL+CallbackPath(w.psp.Name()), body, signatureHeader, c.signature)
		if r.status != c.status || r.code() != c.code {
			t.Errorf("%s: %s, want %d %s", name, r, c.status, c.code)
		}
	}
	w.want(w.call(http.MethodPost, w.public.URL+CallbackPath("NOBODY"), []byte(`{}`), signatureHeader, goodSignature), http.StatusNotFound, "NOT_FOUND")
	w.want(w.call(http.MethodPost, w.public.URL+CallbackPath(w.psp.Name()), []byte(`not JSON`), signatureHeader, goodSignature), http.StatusBadRequest, "INVALID_REQUEST")
	w.wantUntouched(before, "callbacks", "watches")
}

// Many copies, of which one may act, while the merchant and recovery are at it, too.
func TestCallbacksRaceWithRecoveryAndRetries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(acceptFirst)
	body := w.body("order-1", nil)
	first := w.create("nonce-1", body)
	w.pendingAnswer(50)
	m := w.about("message", "nonce-1", "approved")
	answers := atOnce(30, func(i int) (response, error) {
		switch i % 3 {
		case 0:
			_, err := w.service.Recover(t.Context())
			return response{}, err
		case 1:
			return request(t.Context(), http.MethodPost, w.public.URL+"/v1/payments", body, append(keys(w.test), idem.Header, "nonce-1")...)
		}
		copied := m
		copied.ID = fmt.Sprintf("message-%d", i%2)
		data, err := json.Marshal(copied)
		if err != nil {
			return response{}, err
		}
		return request(t.Context(), http.MethodPost, w.public.URL+CallbackPath(w.psp.Name()), data, signatureHeader, goodSignature)
	})
	for range 30 {
		if r := <-answers; r.status >= http.StatusBadRequest || r.get("id") != nil && string(r.body) != string(first.body) {
			t.Errorf("answered: %s", r)
		}
	}
	for range 10 { // one that was fenced out has kept it
		if _, err := w.service.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.wantState("nonce-1", PaymentApproved, 1)
	w.wantNothingReserved()
}

// Challenge: the payer has to go somewhere.
func TestChallengeIsToldWithItsPlaceUntilItIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(func(_ context.Context, _ *psp, c providers.Charge) providers.Result {
		return providers.Result{Outcome: providers.Pending, ProviderReference: "psp-" + c.Reference, RedirectURL: "https://bank.example/challenge/1"}
	})
	r := w.create("nonce-1", w.body("order-1", nil))
	w.want(r, http.StatusCreated)
	if r.get("sub_status") != "WAITING_ADDITIONAL_STEP" || r.get("checkout", "sdk_action_required") != true || r.get("sdk_action_required") != true ||
		r.get("payment_method", "payment_method_detail", "card", "redirect_url") != "https://bank.example/challenge/1" ||
		r.get("transactions", "response_code") != challengeCode {
		t.Fatalf("told: %s", r)
	}
	w.wantState("nonce-1", PaymentChallenged, 1)
	w.want(w.act("nonce-2", sale{payment: textAt(r, "id")}.reverse("", "")), http.StatusBadRequest, "INVALID_STATUS")
	// A poll that knows nothing of the place forgets nothing.
	w.pendingAnswer(1)
	w.sql(`UPDATE transactions SET next_attempt_at = clock_timestamp(), lease_until = clock_timestamp()`)
	if n, err := w.service.Recover(t.Context()); err != nil || n != 1 {
		t.Fatalf("recovery took %d over: %v", n, err)
	}
	w.wantState("nonce-1", PaymentChallenged, 1)
	if got := w.get("/v1/payments/" + textAt(r, "id")); got.get("payment_method", "payment_method_detail", "card", "redirect_url") == nil {
		t.Errorf("after a poll: %s", got)
	}
	w.hears(w.about("message-1", "nonce-1", "approved"), HeardApplied)
	w.wantState("nonce-1", PaymentApproved, 2)
	if got := w.get("/v1/payments/" + textAt(r, "id")); got.get("sdk_action_required") != false || got.get("payment_method", "payment_method_detail", "card", "redirect_url") != nil {
		t.Errorf("afterwards: %s", got)
	}
}

func TestDisputesTakeTheirCourse(t *testing.T) {
	t.Parallel()
	type step struct {
		stage, amount string
		want          Heard
		state         PaymentStatus
		version       int64
	}
	for name, steps := range map[string][]step{
		"won": {
			{"received", "100", HeardApplied, PaymentDisputed, 2},
			{"pending_review", "100", HeardApplied, PaymentDisputeReviewed, 3},
			{"won", "100", HeardApplied, PaymentApproved, 4},
		},
		"lost": {
			{"received", "100", HeardApplied, PaymentDisputed, 2},
			{"lost", "100", HeardApplied, PaymentChargedBack, 3},
			{"won", "100", HeardContradicts, PaymentChargedBack, 3},
		},
		"lost in part":        {{"received", "40", HeardApplied, PaymentDisputed, 2}, {"lost", "40", HeardApplied, PaymentPartiallyChargebacked, 3}},
		"out of order":        {{"pending_review", "100", HeardApplied, PaymentDisputeReviewed, 2}, {"received", "100", HeardKnown, PaymentDisputeReviewed, 2}, {"lost", "100", HeardApplied, PaymentChargedBack, 3}, {"pending_review", "100", HeardKnown, PaymentChargedBack, 3}},
		"heard of at its end": {{"won", "100", HeardApplied, PaymentApproved, 2}, {"received", "100", HeardKnown, PaymentApproved, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.sold("order-1", "100")
			for i, step := range steps {
				m := w.about(fmt.Sprintf("message-%d", i), "sale-order-1", "")
				m.DisputeID, m.Stage, m.Amount, m.Currency = "dispute-1", step.stage, step.amount, "USD"
				w.hears(m, step.want)
				w.wantState("sale-order-1", step.state, step.version)
				if step.want == HeardApplied {
					w.hears(m, HeardDuplicate)
				}
				if step.state == PaymentDisputed || step.state == PaymentDisputeReviewed {
					w.want(w.act(fmt.Sprintf("refund-%d", i), s.refund("10")), http.StatusBadRequest, "CHARGEBACK_IN_PROCESS")
				}
			}
			if n := w.count(`SELECT count(*) FROM transactions WHERE type = 'CHARGEBACK' AND target_id = $1`, s.transaction); n != 1 {
				t.Errorf("%d transactions for one dispute", n)
			}
			r := w.get("/v1/payments/" + s.payment)
			w.want(r, http.StatusOK)
			if _, err := w.service.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What was lost cannot be refunded, and what was refunded in part goes back to that.
func TestDisputeAndRefundShareWhatWasSettled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	w.want(w.act("refund-1", s.refund("30")), http.StatusOK)
	m := w.about("m1", "sale-order-1", "")
	m.DisputeID, m.Stage, m.Amount, m.Currency = "dispute-1", "received", "50", "USD"
	w.hears(m, HeardApplied)
	m.ID, m.Stage = "m2", "won"
	w.hears(m, HeardApplied)
	w.wantPayment(s, PaymentPartiallyRefunded, "0", "30")
	m.ID, m.DisputeID, m.Stage = "m3", "dispute-2", "lost"
	w.hears(m, HeardApplied)
	w.wantPayment(s, PaymentPartiallyChargebacked, "0", "30")
	w.want(w.act("refund-2", s.refund("21")), http.StatusBadRequest, "INVALID_AMOUNT")
	w.want(w.act("refund-3", s.refund("20")), http.StatusOK)
	w.wantPayment(s, PaymentPartiallyChargebacked, "0", "50")
}

// Time, by the database's clock.

func TestAuthorizationExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.held("order-1", "100")
	part := w.held("order-2", "100")
	w.want(w.act("capture-2", part.capture("40")), http.StatusOK)
	if n, err := w.service.Expire(t.Context()); err != nil || n != 0 {
		t.Fatalf("%d had expired before their time: %v", n, err)
	}
	if n := w.count(`SELECT count(*) FROM authorizations WHERE expires_at BETWEEN clock_timestamp() + interval '6 days 23 hours' AND clock_timestamp() + interval '7 days'`); n != 2 {
		t.Fatalf("%d authorizations end in seven days, want 2", n)
	}
	w.sql(`UPDATE authorizations SET expires_at = clock_timestamp()`)
	w.want(w.act("capture-1", s.capture("1")), http.StatusBadRequest, "INVALID_STATUS") // before any loop has come by
	for range 2 {
		if _, err := w.service.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.wantState("sale-order-1", PaymentExpired, 2)
	if tx := w.transaction("sale-order-1"); tx.Status != Expired || tx.ResponseCode != expiredCode {
		t.Errorf("the authorization is %s (%s)", tx.Status, tx.ResponseCode)
	}
	w.want(w.act("cancel-1", s.cancel()), http.StatusBadRequest, "INVALID_STATUS")
	w.wantPayment(part, PaymentPartiallyCaptured, "40", "0")
	w.want(w.act("capture-3", part.capture("60")), http.StatusBadRequest, "INVALID_STATUS")
	w.want(w.act("refund-2", part.refundOf(w.transaction("capture-2").ID.String(), "40")), http.StatusOK)
	w.hears(w.about("late", "sale-order-1", "approved"), HeardKnown)
	w.wantNothingReserved()
}

// A capture that has begun is waited for, however late it ends.
func TestCaptureThatBeganInTimeIsNotExpired(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[string]PaymentStatus{"approved": PaymentCaptured, "declined": PaymentExpired} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.held("order-1", "100")
			w.psp.nextOperation(noAnswer)
			w.want(w.act("capture-1", s.capture("100")), http.StatusGatewayTimeout)
			w.sql(`UPDATE authorizations SET expires_at = clock_timestamp()`)
			if n, err := w.service.Expire(t.Context()); err != nil || n != 0 {
				t.Fatalf("%d had expired: %v", n, err)
			}
			w.hears(w.about("m1", "capture-1", outcome), HeardApplied)
			for range 2 {
				if _, err := w.service.Expire(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if p := w.wantState("sale-order-1", want, map[string]int64{"approved": 2, "declined": 3}[outcome]); !p.SettlePending.IsZero() {
				t.Errorf("%s is reserved", p.SettlePending)
			}
			if n := w.count(`SELECT count(*) FROM authorizations`); n != 0 {
				t.Errorf("%d authorizations are left", n)
			}
		})
	}
}

func TestPendingPaymentExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(acceptFirst)
	body := w.body("order-1", nil)
	first := w.create("nonce-1", body)
	w.want(first, http.StatusCreated)
	w.pendingAnswer(2)
	w.shift("nonce-1", DefaultPendingFor-time.Minute)
	poll := func() {
		t.Helper()
		w.sql(`UPDATE transactions SET next_attempt_at = clock_timestamp(), lease_until = clock_timestamp() WHERE lease_until IS NOT NULL`)
		if _, err := w.service.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	poll()
	w.wantState("nonce-1", Unconfirmed, 0)
	w.shift("nonce-1", time.Minute)
	poll()
	w.wantState("nonce-1", PaymentExpired, 1)
	if tx := w.transaction("nonce-1"); tx.Status != Expired || !w.psp.voided[tx.ID.String()] {
		t.Errorf("the transaction is %s, voided %t", tx.Status, w.psp.voided[tx.ID.String()])
	}
	w.wantNothingReserved()
	w.sql(`UPDATE idempotency_keys SET expires_at = clock_timestamp() + interval '1 hour'`)
	if again := w.create("nonce-1", body); string(again.body) != string(first.body) {
		t.Errorf("the stored answer has changed to %s", again)
	}
	w.hears(w.about("late", "nonce-1", "approved"), HeardContradicts)
}

// What cannot be voided could be approved later, so it goes on being asked about.
func TestPendingPaymentWithoutVoidDoesNotExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.traits.CanVoid = false
	w.psp.next(acceptFirst)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.pendingAnswer(1)
	w.shift("nonce-1", 2*DefaultPendingFor)
	if _, err := w.service.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantState("nonce-1", Unconfirmed, 0)
	w.hears(w.about("late", "nonce-1", "approved"), HeardApplied)
	w.wantState("nonce-1", PaymentApproved, 1)
}
