package oncepay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
)

func TestAmountsAreExactOnTheWire(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"45.67": "45.67", "0.1": "0.1", "9999999999.9999": "9999999999.9999", "10.00": "10", "0": "0", "1e3": "1000", "0.0001": "0.0001",
		"123456789012345678.123456789": "123456789012345678.123456789",
	} {
		a, err := NewAmount("USD", value)
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		text, err := json.Marshal(a)
		if err != nil || string(text) != `{"currency":"USD","value":`+want+`}` {
			t.Errorf("%s is written %s (%v)", value, text, err)
		}
		var back Amount
		if err := json.Unmarshal(text, &back); err != nil || !back.Value.Equal(a.Value) || back.Currency != "USD" || a.String() != want+" USD" {
			t.Errorf("%s is read back as %s (%v)", value, back, err)
		}
	}
	for _, wrong := range []string{"", "a", "1e21", "1e-21", "NaN", "1,5"} {
		if _, err := NewAmount("USD", wrong); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
	huge := Amount{Value: decimal.New(1, 1<<30), Currency: "USD"}
	if _, err := json.Marshal(huge); err == nil || huge.String() != "[amount] USD" {
		t.Error("an amount of a thousand million digits is written out")
	}
	if err := json.Unmarshal([]byte(`{"currency":"USD","value":1e999999}`), &huge); err == nil {
		t.Error("an amount of a million digits is taken")
	}
}

func TestRequestsAreAsTheContractSays(t *testing.T) {
	t.Parallel()
	ten := Amount{Currency: "USD", Value: decimal.RequireFromString("10.50")}
	rich := PaymentParams{
		AccountID: "a", MerchantOrderID: "o", MerchantReference: "r", Description: "d", Country: "US", Amount: ten, Workflow: "SDK_CHECKOUT",
		CheckoutSession: "s", CustomerPayer: map[string]any{"id": "c"}, AdditionalData: map[string]any{"x": 1}, CallbackURL: "https://x", Metadata: []Metadatum{{"k", "v"}},
		PaymentMethod: PaymentMethod{Token: "t", VaultOnSuccess: true, AuthorizeOnly: true, Installments: 3, SoftDescriptor: "SHOP"},
	}
	tx := "/v1/payments/" + paymentID + "/transactions/" + transactionID
	for name, c := range map[string]struct {
		ask          func(ctx context.Context, c *Client, op *Operation) error
		target, body string
	}{
		"pay with a card": {func(ctx context.Context, c *Client, op *Operation) error {
			_, err := c.CreatePayment(ctx, op, params(t))
			return err
		}, "/v1/payments", `{"account_id":"an account","merchant_order_id":"order-1","description":"Two tickets","country":"US",
			"amount":{"currency":"USD","value":45.67},"payment_method":{"type":"CARD","detail":{"card":{"card_data":
			{"number":"4507990000000002","security_code":"987","holder_name":"John Doe","expiration_month":11,"expiration_year":28}}}}}`},
		"pay with a token": {func(ctx context.Context, c *Client, op *Operation) error {
			_, err := c.CreatePayment(ctx, op, rich)
			return err
		}, "/v1/payments", `{"account_id":"a","merchant_order_id":"o","merchant_reference":"r","description":"d","country":"US",
			"amount":{"currency":"USD","value":10.5},"workflow":"SDK_CHECKOUT","checkout":{"session":"s"},"payment_method":{"type":"CARD","token":"t",
			"vault_on_success":true,"detail":{"card":{"capture":false,"installments":3,"soft_descriptor":"SHOP"}}},"customer_payer":{"id":"c"},
			"additional_data":{"x":1},"callback_url":"https://x","metadata":[{"key":"k","value":"v"}]}`},
		"pay with a card that is kept": {func(ctx context.Context, c *Client, op *Operation) error {
			_, err := c.CreatePayment(ctx, op, PaymentParams{AccountID: "a", PaymentMethod: PaymentMethod{VaultedToken: "v"}})
			return err
		}, "/v1/payments", `{"account_id":"a","amount":{"currency":"","value":0},
			"payment_method":{"type":"CARD","vaulted_token":"v"}}`},
		"capture": {func(ctx context.Context, c *Client, op *Operation) error {
			_, err := c.Capture(ctx, op, paymentID, transactionID, CaptureParams{MerchantReference: "r", Reason: "PRODUCT_CONFIRMED", Amount: ten})
			return err
		}, tx + "/capture", `{"merchant_reference":"r","reason":"PRODUCT_CONFIRMED","amount":{"currency":"USD","value":10.5}}`},
		"cancel": {func(ctx context.Context, c *Client, op *Operation) error {
			_, err := c.Cancel(ctx, op, paymentID, transactionID, CancelParams{MerchantReference: "r", Description: "d"})
			return err
		}, tx + "/cancel", `{"merchant_reference":"r","description":"d"}`},
		"refund": {func(ctx context.Context, c *Client, op *Operation) error {
			_, err := c.Refund(ctx, op, paymentID, transactionID, RefundParams{MerchantReference: "r", Amount: &ten})
			return err
		}, tx + "/refund", `{"merchant_reference":"r","amount":{"currency":"USD","value":10.5}}`},
		"undo": {func(ctx context.Context, c *Client, op *Operation) error {
			_, err := c.CancelOrRefund(ctx, op, paymentID, CancelOrRefundParams{Reason: "DUPLICATE"})
			return err
		}, "/v1/payments/" + paymentID + "/cancel-or-refund", `{"reason":"DUPLICATE"}`},
		"undo a transaction": {func(ctx context.Context, c *Client, op *Operation) error {
			_, err := c.CancelOrRefund(ctx, op, paymentID, CancelOrRefundParams{TransactionID: transactionID, Reason: "REVERSE"})
			return err
		}, tx + "/cancel-or-refund", `{"reason":"REVERSE"}`},
		"session": {func(ctx context.Context, c *Client, op *Operation) error {
			_, err := c.CreateCheckoutSession(ctx, op, CheckoutSessionParams{MerchantOrderID: "o", PaymentDescription: "d", Country: "US", Amount: ten, Workflow: WorkflowSeamless})
			return err
		}, "/v1/checkout/sessions", `{"account_id":"an account","merchant_order_id":"o","payment_description":"d","country":"US",
			"amount":{"currency":"USD","value":10.5},"workflow":"SDK_SEAMLESS"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := misbehave(t, refuses(400, CodeInvalidRequest))
			op := NewOperation()
			if err := c.ask(t.Context(), m.client(t), op); err == nil {
				t.Error("it did not fail")
			}
			r := m.requests()[0]
			if r.method != "POST" || r.target != c.target || r.nonce != op.Nonce() || r.header.Get("Content-Type") != "application/json" {
				t.Errorf("asked %s %s with %v", r.method, r.target, r.header)
			}
			if r.header.Get("public-api-key") != publicKey || r.header.Get("private-secret-key") != "a-secret-of-the-tests" || !strings.HasPrefix(r.header.Get("User-Agent"), "oncepay-go/") {
				t.Errorf("with %v", r.header)
			}
			var want bytes.Buffer
			if err := json.Compact(&want, []byte(c.body)); err != nil || r.body != want.String() {
				t.Errorf("with\n%s, want\n%s (%v)", r.body, want.String(), err)
			}
		})
	}
}

func TestActionsAreRead(t *testing.T) {
	t.Parallel()
	const action = `{"id":"` + transactionID + `","type":"CAPTURE","status":"SUCCEEDED","amount":{"currency":"USD","value":10.5,"captured":0},"response_code":"SUCCEEDED",
		"payment":{"id":"` + paymentID + `","status":"SUCCEEDED","sub_status":"PARTIALLY_CAPTURED","amount":{"currency":"USD","value":45.67,"captured":10.5,"refunded":0},"version":3}}`
	m := misbehave(t, says(200, `{"id":"`+transactionID+`"}`), says(200, action))
	a, err := m.client(t).Capture(t.Context(), NewOperation(), paymentID, transactionID, CaptureParams{})
	if err != nil || a.Type != "CAPTURE" || a.Amount.String() != "10.5 USD" || a.Payment.ID != paymentID || a.Payment.Amount.Captured.String() != "10.5" || a.Payment.Version != 3 || a.Attempts != 2 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestSessionsAreReadByBothOfTheirNames(t *testing.T) {
	t.Parallel()
	const rest = `"merchant_order_id":"o","country":"US","payment_description":"d","amount":{"currency":"USD","value":10.5},"metadata":null,"customer_id":null,"workflow":"SDK_CHECKOUT",
		"created_at":"2026-11-22T20:00:00.123456Z"`
	m := misbehave(t, says(200, `{`+rest+`}`), says(200, `{"checkout_session":"`+paymentID+`",`+rest+`}`), says(200, `{"id":"`+paymentID+`","used":true,`+rest+`}`))
	made, err := m.client(t).CreateCheckoutSession(t.Context(), NewOperation(), CheckoutSessionParams{})
	if err != nil || made.ID != paymentID || made.Used || made.Amount.String() != "10.5 USD" || made.CreatedAt.Nanosecond() != 123456000 || made.Attempts != 2 {
		t.Errorf("%+v, %v", made, err)
	}
	read, err := m.client(t).GetCheckoutSession(t.Context(), paymentID)
	if err != nil || read.ID != paymentID || !read.Used || read.MerchantOrderID != "o" || read.Workflow != WorkflowCheckout {
		t.Errorf("%+v, %v", read, err)
	}
	m = misbehave(t, says(200, paid))
	if p, err := m.client(t).GetCheckoutPayment(t.Context(), paymentID); err != nil || p.ID != paymentID || m.requests()[0].target != "/v1/checkout/sessions/"+paymentID+"/payment" {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestPagesAreFollowedWithinTheAPI: a link says where the next page begins, not where the
// keys are to be sent.
func TestPagesAreFollowedWithinTheAPI(t *testing.T) {
	t.Parallel()
	m := misbehave(t, says(200, "["+paid+"]", "Link", `<https://elsewhere.example/v1/payments?after=`+paymentID+`>; rel="next"`), says(200, "["+paid+","+paid+"]"))
	all, err := m.client(t).PaymentsByOrder(t.Context(), "order 1&x=y")
	if err != nil || len(all) != 3 || all[2].ID != paymentID {
		t.Fatalf("%d payments, %v", len(all), err)
	}
	want := []string{"/v1/payments?limit=100&merchant_order_id=order+1%26x%3Dy", "/v1/payments?after=" + paymentID + "&limit=100&merchant_order_id=order+1%26x%3Dy"}
	for i, r := range m.requests() {
		if r.target != want[i] {
			t.Errorf("asked %s", r.target)
		}
	}
	m = misbehave(t, says(200, "[]"))
	if all, err := m.client(t).PaymentsByOrder(t.Context(), "order-1"); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	m = misbehave(t, says(200, "["+paid+"]", "Link", `</v1/payments?after=`+paymentID+`>; rel="next"`))
	if _, err := m.client(t).PaymentsByOrder(t.Context(), "order-1"); err == nil || len(m.requests()) != maxPages {
		t.Errorf("pages without an end: %d requests, %v", len(m.requests()), err)
	}
	for link, want := range map[string]string{"": "", "nonsense": "", "</v1/payments?after=x>": "", `</v1/payments?after=x>; rel="prev"`: "", `<:>; rel="next"`: ""} {
		if got := afterOf(link); got != want {
			t.Errorf("%q leads to %q", link, got)
		}
	}
}

func TestANonceIsLookedUp(t *testing.T) {
	t.Parallel()
	m := misbehave(t, says(200, `{"nonce":"n/1%","lives":[{"mode":"test","key_state":"answered","answer_status":201,"payment_id":"`+paymentID+`","charges":1,"verdict":"Charged once."}]}`))
	found, err := m.client(t).LookupNonce(t.Context(), "n/1%")
	if err != nil || len(found.Lives) != 1 || found.Lives[0].Charges != 1 || *found.Lives[0].AnswerStatus != 201 || m.requests()[0].target != "/v1/idempotency-keys?nonce=n%2F1%25" {
		t.Errorf("%+v, %v", found, err)
	}
	m = misbehave(t, refuses(404, CodeNotFound))
	if found, err := m.client(t).LookupNonce(t.Context(), "n-2"); err != nil || len(found.Lives) != 0 || found.Nonce != "n-2" {
		t.Errorf("%+v, %v", found, err)
	}
	if _, err := m.client(t).LookupNonce(t.Context(), ""); !errors.Is(err, ErrNonce) {
		t.Error(err)
	}
}

func TestWhatCannotBeMeantIsNotSent(t *testing.T) {
	t.Parallel()
	m := misbehave(t, says(200, paid))
	c, ctx := m.client(t), t.Context()
	for name, ask := range map[string]func() error{
		"no operation":   func() error { _, err := c.CreatePayment(ctx, nil, params(t)); return err },
		"zero operation": func() error { _, err := c.CreatePayment(ctx, &Operation{}, params(t)); return err },
		"no id":          func() error { _, err := c.GetPayment(ctx, ""); return err },
		"a path": func() error {
			_, err := c.Refund(ctx, NewOperation(), "..", transactionID, RefundParams{})
			return err
		},
		"no transaction": func() error {
			_, err := c.Refund(ctx, NewOperation(), paymentID, "", RefundParams{})
			return err
		},
		"no session": func() error { _, err := c.GetCheckoutSession(ctx, "x"); return err },
	} {
		if err := ask(); err == nil || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(m.requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	for _, wrong := range []string{"", "a b", "a,b", "é", strings.Repeat("n", 65)} {
		if _, err := OperationWithNonce(wrong); !errors.Is(err, ErrNonce) {
			t.Errorf("the nonce %q is taken", wrong)
		}
	}
}

func TestNewRefusesWhatItCannotCallWith(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{"", "api.example.com", "ftp://api.example.com", "https://", "https://u:p@api.example.com", "https://api.example.com?x", "https://api.example.com#x", "://"} {
		if _, err := New(wrong, "p", "s"); err == nil {
			t.Errorf("the base URL %q is taken", wrong)
		}
	}
	for _, wrong := range []string{"", "a b", "a\nb", strings.Repeat("k", maxKey+1)} {
		_, err := New("https://api.example.com", "p", wrong)
		_, other := New("https://api.example.com", wrong, "s")
		if err == nil || other == nil || wrong != "" && strings.Contains(err.Error(), wrong) {
			t.Errorf("the key %q: %v, %v", wrong, err, other)
		}
	}
	if _, err := New("https://api.example.com", "p", "s", WithHTTPClient(nil)); err == nil {
		t.Error("no HTTP client is taken")
	}
	if c, err := New("https://example.com/payments/", "p", "s"); err != nil || c.base != "https://example.com/payments" {
		t.Errorf("%v", err)
	}
	theirs := &http.Client{}
	if _, err := New("https://example.com", "p", "s", WithHTTPClient(theirs)); err != nil || theirs.CheckRedirect != nil {
		t.Errorf("somebody's HTTP client was changed, or %v", err)
	}
}

func TestCardsAndKeysAreNotSeen(t *testing.T) {
	t.Parallel()
	p := params(t)
	p.PaymentMethod.Card.SecurityCode = "the security code" // three digits are somewhere in every time
	card := *p.PaymentMethod.Card
	c, err := New("https://api.example.com", publicKey, "a-secret-of-the-tests")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{card, &card, p, &p, p.PaymentMethod, []Card{card}, map[string]Card{"a": card}, c} {
		fmt.Fprintf(&out, "%v %+v %#v %s\n", v, v, v, v)
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("paying", "what", v)
		}
	}
	if text, err := json.Marshal(p); err == nil {
		t.Errorf("a card was encoded: %d bytes", len(text))
	}
	m := misbehave(t, breaks, says(500, "4507990000000002"), refuses(400, CodeInvalidParameters))
	_, err = m.client(t, WithObserver(func(a Attempt) { fmt.Fprintf(&out, "%+v\n", a) })).CreatePayment(t.Context(), NewOperation(), p)
	fmt.Fprintf(&out, "%v %+v", err, failure(t, err))
	for _, secret := range []string{card.Number, card.SecurityCode, "a-secret-of-the-tests"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%d characters that nobody may see are to be seen in:\n%s", len(secret), out.String())
		}
	}
}

// TestNoBeginningOfAnAnswerIsOne: whatever an answer is cut to, it counts as none.
func TestNoBeginningOfAnAnswerIsOne(t *testing.T) {
	t.Parallel()
	for n := range len(paid) {
		if p, err := decodePayment([]byte(paid[:n])); err == nil {
			t.Fatalf("%d bytes are read as %+v", n, p)
		}
	}
	for _, wrong := range []string{`null`, `[]`, `{}`, `{"id":"x","status":"SUCCEEDED"}`, paid + "x", strings.Replace(paid, "45.67", "1e999999999", 1), strings.Replace(paid, "45.67", `"a"`, 1)} {
		if _, err := decodePayment([]byte(wrong)); !errors.Is(err, errAnswer) {
			t.Errorf("%.40s: %v", wrong, err)
		}
	}
}

func FuzzAnAnswerIsReadOrRefused(f *testing.F) {
	f.Add(paid)
	f.Add(`{"id":"` + paymentID + `","status":"PENDING","transactions":[{"amount":"1e5"},null],"metadata":[null],"created_at":"2026-11-22T20:00:00Z"}`)
	f.Add(`{"checkout_session":"` + paymentID + `","amount":{"value":1e19}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := decodePayment([]byte(text)); err == nil && (notID(p.ID) != nil || p.Status == "" || len(p.Amount.Value.String()) > len(text)+2*maxExponent) {
			t.Errorf("read as %+v", p)
		}
		var s CheckoutSession
		if err := decode([]byte(text), &s); err == nil && notID(s.ID) != nil {
			t.Errorf("read as %+v", s)
		}
		e := readError(400, []byte(text), "r", 0)
		_ = e.Error()
		if e.Status != 400 || e.Code != "" && !json.Valid([]byte(text)) {
			t.Errorf("read as %+v", e)
		}
	})
}

func TestNoncesAreNeverMadeTwice(t *testing.T) {
	t.Parallel()
	var all []string
	for range 1000 {
		op := NewOperation()
		if !isNonce(op.Nonce()) || len(op.Nonce()) != 36 {
			t.Fatalf("%q is none", op.Nonce())
		}
		all = append(all, op.Nonce())
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != 1000 {
		t.Error("some are the same")
	}
}
