package transactions

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
)

// shown is a payment as a client reads it, as far as these tests look.
type shown struct {
	Status            string             `json:"status"`
	SubStatus         string             `json:"sub_status"`
	SDKActionRequired bool               `json:"sdk_action_required"`
	IdempotencyKey    string             `json:"idempotency_key"`
	Version           int64              `json:"version"`
	Transactions      []shownTransaction `json:"transactions"`
	History           []shownTransaction `json:"transactions_history"`
	Checkout          struct {
		SDKActionRequired bool `json:"sdk_action_required"`
	} `json:"checkout"`
	PaymentMethod struct {
		Detail struct {
			Card shownCard `json:"card"`
		} `json:"payment_method_detail"`
	} `json:"payment_method"`
}

type shownCard struct {
	RedirectURL       *string         `json:"redirect_url"`
	AuthorizationCode string          `json:"authorization_code"`
	StoredCredentials json.RawMessage `json:"stored_credentials"`
}

type shownTransaction struct {
	ID                string      `json:"id"`
	Type              Type        `json:"type"`
	Status            Status      `json:"status"`
	Amount            json.Number `json:"amount"`
	Description       string      `json:"description"`
	Reason            *string     `json:"reason"`
	MerchantReference *string     `json:"merchant_reference"`
	ResponseCode      *string     `json:"response_code"`
	ChallengeRequired *bool       `json:"three_d_secure_action_required"`
	ProviderData      struct {
		RawResponse json.RawMessage `json:"raw_response"`
	} `json:"provider_data"`
	PaymentMethod struct {
		Detail struct {
			Card shownCard `json:"card"`
		} `json:"detail"`
	} `json:"payment_method"`
}

// told is a transaction in a line: what it is, and what was said about it.
func (s shownTransaction) told() string {
	text := func(p *string) string {
		if p == nil {
			return "-"
		}
		return *p
	}
	return fmt.Sprintf("%s %s %s: %q, %s, %s", s.Type, s.Status, s.Amount, s.Description, text(s.Reason), text(s.MerchantReference))
}

// look reads a payment.
func (w *world) look(id, query string) shown {
	w.t.Helper()
	r := w.get("/v1/payments/" + id + query)
	w.want(r, http.StatusOK)
	var s shown
	if err := json.Unmarshal(r.body, &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// Each transaction shows what was said when it was asked for: a capture's description is
// not the payment's.
func TestTransactionsShowWhatWasSaidAboutEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.create("nonce-1", w.body("order-1", map[string]any{"capture": false, "merchant_reference": "ref-1"})), http.StatusCreated)
	auth := w.transaction("nonce-1")
	s := sale{auth.PaymentID.String(), auth.ID.String()}
	w.psp.nextOperation(declinedForGood)
	w.want(w.act("nonce-2", s.capture("5").with(map[string]any{"description": "Parcel A"})), http.StatusOK)
	capture := w.act("nonce-3", s.capture("20.5").with(map[string]any{"reason": "PRODUCT_CONFIRMED", "merchant_reference": "parcel-b"}))
	w.want(capture, http.StatusOK)
	w.want(w.act("nonce-4", s.refundOf(textAt(capture, "id"), "0.25").with(map[string]any{"reason": nil, "description": "Too late"})), http.StatusOK)
	w.want(w.act("nonce-5", s.reverse("", "").with(map[string]any{"merchant_reference": nil, "reason": "REVERSE"})), http.StatusCreated)

	p := w.look(s.payment, "")
	want := []string{
		`REFUND SUCCEEDED 20.25: "", REVERSE, -`,
		`REFUND SUCCEEDED 0.25: "Too late", -, reference-1`,
		`CAPTURE SUCCEEDED 20.5: "", PRODUCT_CONFIRMED, parcel-b`,
		`CAPTURE DECLINED 5: "Parcel A", REQUESTED_BY_CUSTOMER, reference-1`,
		`AUTHORIZE SUCCEEDED 45.67: "A test payment", -, ref-1`,
	}
	for i, got := range p.Transactions {
		if i >= len(want) || got.told() != want[i] {
			t.Errorf("transaction %d is told as %s", i, got.told())
		}
	}
	if len(p.Transactions) != len(want) {
		t.Errorf("%d transactions are shown, want %d", len(p.Transactions), len(want))
	}
	if p.IdempotencyKey != "nonce-1" || p.PaymentMethod.Detail.Card.AuthorizationCode != "123456" {
		t.Errorf("the payment has another transaction's nonce or card: %+v", p)
	}
	if events := w.count(`SELECT count(*) FROM events`); p.Version != int64(events) {
		t.Errorf("the version is %d after %d events", p.Version, events)
	}
}

// A dispute is nobody's request here: it is told with the payment's own words.
func TestChargebackIsToldInThePaymentsWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.create("nonce-1", w.body("order-1", map[string]any{"merchant_reference": "ref-1"})), http.StatusCreated)
	sold := w.transaction("nonce-1")
	p, err := w.service.store.payment(t.Context(), w.account, sold.PaymentID)
	if err != nil {
		t.Fatal(err)
	}
	dispute := sold
	dispute.ID, dispute.Type, dispute.Status, dispute.TargetID = uuid.New(), Chargeback, Created, orNone(sold.ID)
	dispute.Nonce, dispute.ResponseCode, dispute.Amount = "", "RECEIVED", decimal.RequireFromString("10")
	p.Status, p.SubStatus = PaymentDisputed.Status, PaymentDisputed.Sub
	body, err := presentPayment(p, []Transaction{dispute, sold}, view{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := encode(body)
	if err != nil {
		t.Fatal(err)
	}
	var s shown
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if got := s.Transactions[0].told(); got != `CHARGEBACK CREATED 10: "A test payment", -, ref-1` || s.IdempotencyKey != "nonce-1" || s.Status != "IN_DISPUTE" {
		t.Errorf("the dispute is told as %s, the payment as %s of %s", got, s.Status, s.IdempotencyKey)
	}
}

func TestHistoryAndRawAnswersAreShownOnRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const raw = `{"id":"psp-1","result":{"code":"00"}}`
	w.psp.next(answering(providers.Result{Outcome: providers.Approved, ResponseCode: "SUCCEEDED", Raw: json.RawMessage(raw)}))
	r := w.create("nonce-1", w.body("order-1", nil))
	w.want(r, http.StatusCreated)
	s := sale{textAt(r, "id"), textAt(r, "transactions", "id")}
	if len(r.get("transactions_history").([]any)) != 1 || bytes.Contains(r.body, []byte("psp-1\"")) {
		t.Errorf("the call that made it shows another history, or the raw answer: %s", r)
	}
	refund := w.act("nonce-2", s.refund("1"))
	w.want(refund, http.StatusOK)
	if len(refund.get("transactions_history").([]any)) != 0 {
		t.Errorf("a refund shows a history: %s", refund)
	}
	for query, c := range map[string]struct{ history, raw bool }{
		"": {}, "?": {}, "?transactions_history=false": {}, "?raw_response=false&transactions_history=false": {}, "?other=true": {},
		"?transactions_history=true":                    {history: true},
		"?raw_response=true":                            {raw: true},
		"?raw_response=true&transactions_history=true":  {history: true, raw: true},
		"?transactions_history=true&raw_response=false": {history: true},
	} {
		p := w.look(s.payment, query)
		if len(p.Transactions) != 2 || c.history != (len(p.History) == 2) || !c.history && len(p.History) != 0 {
			t.Errorf("%q: %d transactions, and %d in the history", query, len(p.Transactions), len(p.History))
			continue
		}
		want := "null"
		if c.raw {
			want = raw
		}
		for i, list := range [][]shownTransaction{p.Transactions, p.History} {
			for j, tx := range list {
				wants := []string{"null", want}[j] // the refund has none
				if got := string(tx.ProviderData.RawResponse); got != wants {
					t.Errorf("%q: the raw answer of transaction %d in list %d is %s, want %s", query, j, i, got, wants)
				}
			}
		}
	}
	for query, messages := range map[string][]string{
		"?transactions_history=":                          {"transactions_history must be true or false"},
		"?transactions_history=1":                         {"transactions_history must be true or false"},
		"?transactions_history=True":                      {"transactions_history must be true or false"},
		"?transactions_history=true&transactions_history": {"transactions_history must be true or false"},
		"?raw_response=geheim":                            {"raw_response must be true or false"},
		"?raw_response=yes&transactions_history=no":       {"transactions_history must be true or false", "raw_response must be true or false"},
	} {
		got := w.get("/v1/payments/" + s.payment + query)
		w.wantError(got, http.StatusBadRequest, "INVALID_PARAMETERS", messages...)
	}
}

// An answer stays readable however often a payment was refunded: it shows the newest
// transactions, and the first, which is what they are all about.
func TestAnswerShowsTheNewestTransactionsAndTheFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "45.67")
	w.want(w.act("nonce-1", s.refund("0.01")), http.StatusOK)
	for _, n := range []int{maxShownTransactions - 1, maxShownTransactions, maxShownTransactions + 1, 3 * maxShownTransactions} {
		w.sql(`INSERT INTO transactions (account_id, id, payment_id, target_id, mode, type, status, currency, amount, provider, nonce, card, request,
		           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
		       SELECT account_id, gen_random_uuid(), payment_id, target_id, mode, type, 'ERROR', currency, amount, provider, nonce, card, request,
		           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at + i * interval '1 millisecond', updated_at
		       FROM transactions, generate_series(1, $1::integer - (SELECT count(*)::integer FROM transactions)) i
		       WHERE nonce = 'nonce-1' AND status = 'SUCCEEDED'`, n)
		r := w.get("/v1/payments/" + s.payment + "?transactions_history=true")
		w.want(r, http.StatusOK)
		list, _ := r.get("transactions").([]any)
		history, _ := r.get("transactions_history").([]any)
		if want := min(n, maxShownTransactions); len(list) != want || len(history) != want {
			t.Fatalf("of %d transactions %d are shown, and %d in the history, want %d", n, len(list), len(history), want)
		}
		if last, _ := list[len(list)-1].(map[string]any); last["id"] != s.transaction || r.get("idempotency_key") != "sale-order-1" {
			t.Errorf("the last of %d is %v, want the first transaction", n, last["id"])
		}
	}
}

// A payer who has to pass a challenge is sent to the provider. Once it is over nobody is
// sent there any more.
func TestChallengeSaysWhereThePayerHasToGo(t *testing.T) {
	t.Parallel()
	const there = "https://psp.test/challenge/1"
	for name, c := range map[string]struct {
		capture bool
		end     providers.Result
		status  string
	}{
		"a purchase, passed":        {true, providers.Result{Outcome: providers.Approved, ResponseCode: "SUCCEEDED"}, "SUCCEEDED"},
		"an authorization, passed":  {false, providers.Result{Outcome: providers.Approved, ResponseCode: "SUCCEEDED"}, "PENDING"},
		"a purchase, failed":        {true, providers.Result{Outcome: providers.Declined, ResponseCode: "AUTHENTICATION_FAILED_THREE_D_SECURE"}, "DECLINED"},
		"an authorization, timeout": {false, providers.Result{Outcome: providers.Declined, ResponseCode: "EXPIRED"}, "DECLINED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.psp.next(answering(providers.Result{Outcome: providers.Pending, RedirectURL: there}))
			r := w.create("nonce-1", w.body("order-1", map[string]any{"capture": c.capture}))
			w.want(r, http.StatusCreated)
			for path, want := range map[string]any{
				"status": "PENDING", "sub_status": "WAITING_ADDITIONAL_STEP", "sdk_action_required": true, "checkout.sdk_action_required": true,
				"payment_method.payment_method_detail.card.redirect_url": there, "transactions.payment_method.detail.card.redirect_url": there,
				"transactions.status": "PENDING", "transactions.response_code": "CHALLENGE_REQUIRED",
				"transactions.response_message": "The payer has to pass a challenge", "transactions.three_d_secure_action_required": true,
			} {
				if got := r.get(strings.Split(path, ".")...); got != want {
					t.Errorf("%s is %v, want %v", path, got, want)
				}
			}
			p := w.look(textAt(r, "id"), "")
			if tx := p.Transactions[0]; !p.SDKActionRequired || !p.Checkout.SDKActionRequired || p.PaymentMethod.Detail.Card.RedirectURL == nil ||
				*p.PaymentMethod.Detail.Card.RedirectURL != there || tx.ChallengeRequired == nil {
				t.Errorf("who asks is not told to go on: %+v", p)
			}
			w.psp.asked(func() (providers.Result, bool) { return c.end, true })
			w.shift("nonce-1", testLease)
			w.sql(`UPDATE transactions SET next_attempt_at = clock_timestamp() - interval '1 second' WHERE nonce = 'nonce-1'`)
			if _, err := w.service.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			p = w.look(textAt(r, "id"), "")
			if tx := p.Transactions[0]; p.Status != c.status || p.SDKActionRequired || p.Checkout.SDKActionRequired || p.PaymentMethod.Detail.Card.RedirectURL != nil ||
				tx.PaymentMethod.Detail.Card.RedirectURL != nil || tx.ChallengeRequired != nil {
				t.Errorf("once it is over, the payment is shown as %+v", p)
			}
		})
	}
}

// Stored credentials come back as they were sent, with null for what the contract names
// beside them.
func TestStoredCredentialsAreAlwaysThere(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{
		``:                  `{"reason":null,"usage":null,"subscription_agreement_id":null,"network_transaction_id":null}`,
		`{}`:                `{"reason":null,"usage":null,"subscription_agreement_id":null,"network_transaction_id":null}`,
		`null`:              `{"reason":null,"usage":null,"subscription_agreement_id":null,"network_transaction_id":null}`,
		`{"usage":"FIRST"}`: `{"usage":"FIRST","reason":null,"subscription_agreement_id":null,"network_transaction_id":null}`,
		`{"network_transaction_id":"n-1","x":{"reason":1},"reason":"CARD_ON_FILE","usage":"USED","subscription_agreement_id":""}`: `{"network_transaction_id":"n-1","x":{"reason":1},"reason":"CARD_ON_FILE","usage":"USED","subscription_agreement_id":""}`,
	} {
		given := []byte(sent)
		if got := presentCredentials(given); string(got) != want {
			t.Errorf("%s is shown as %s, want %s", sent, got, want)
		}
		if string(given) != sent {
			t.Errorf("%s was changed to %s", sent, given)
		}
	}
}

// What was kept of an action cannot be read: half a story is none.
func TestActionThatCannotBeReadIsAnErrorWithoutIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "45.67")
	w.want(w.act("nonce-1", s.refund("1")), http.StatusOK)
	w.sql(`UPDATE transactions SET request = '{"description":"geheim' WHERE nonce = 'nonce-1'`)
	got := w.get("/v1/payments/" + s.payment)
	w.wantError(got, http.StatusInternalServerError, "INTERNAL_ERROR", "something unexpected happened; retry with the same key")
	w.wantSilent(got, "geheim")
	p, tx := w.paymentOf(s), w.transaction("nonce-1")
	if _, _, err := presentOutcome(p, tx); !errors.Is(err, errStoredShape) {
		t.Errorf("the outcome: %v", err)
	}
}
