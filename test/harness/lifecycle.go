package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"testing"
)

// What a merchant does with a payment once it is there.

// The routes of a Deed.
const (
	Capture        = "capture"
	Cancel         = "cancel"
	Refund         = "refund"
	CancelOrRefund = "cancel-or-refund"
)

// Deed is a capture, a cancellation, a refund, or whichever of the last two it takes.
// Two of the same are the same body, byte for byte.
type Deed struct {
	Nonce       string
	Route       string
	Payment     string
	Transaction string // what it acts on; "" leaves it to a CancelOrRefund
	Value       string // in USD, as a JSON number; "" is all that is left
	Description string // chooses the sandbox's fault, as a payment's does
}

// Path is where the deed is asked for.
func (d Deed) Path() string {
	path := "/v1/payments/" + d.Payment
	if d.Transaction != "" {
		path += "/transactions/" + d.Transaction
	}
	return path + "/" + d.Route
}

func (d Deed) body() []byte {
	body := map[string]any{"merchant_reference": "reference-1", "reason": "REQUESTED_BY_CUSTOMER"}
	if d.Description != "" {
		body["description"] = d.Description
	}
	if d.Value != "" {
		body["amount"] = map[string]any{"currency": "USD", "value": json.Number(d.Value)}
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings, and a number that is a constant of the test
	}
	return b
}

// Do asks for a deed: one request, one attempt.
func (c *Client) Do(ctx context.Context, d Deed) Answer {
	return c.do(ctx, http.MethodPost, d.Path(), d.body(), http.Header{"X-Idempotency-Key": {d.Nonce}})
}

// DoUntilAnswered comes back with the same nonce as PayUntilAnswered does. A refusal is
// an answer, too.
func (c *Client) DoUntilAnswered(ctx context.Context, d Deed) (Answer, error) {
	return untilAnswered(ctx, func() Answer { return c.Do(ctx, d) })
}

// Authorize asks for a payment that is only held, to be captured later: one request, one
// attempt.
func (c *Client) Authorize(ctx context.Context, p Payment) Answer {
	return c.payAs(ctx, p, map[string]any{"capture": false})
}

// Verify asks whether the card could be charged: one request, one attempt.
func (c *Client) Verify(ctx context.Context, p Payment) Answer {
	p.Value = "0"
	return c.payAs(ctx, p, map[string]any{"verify": true})
}

// cardMethod is a payment_method, with what there is in its card.
type cardMethod struct {
	Type   string `json:"type"`
	Detail struct {
		Card map[string]any `json:"card"`
	} `json:"detail"`
}

// payAs is Pay with more members in payment_method.detail.card.
func (c *Client) payAs(ctx context.Context, p Payment, card map[string]any) Answer {
	whole, method := map[string]json.RawMessage{}, cardMethod{}
	err := json.Unmarshal(p.body(c.keys.AccountID), &whole)
	if err == nil {
		err = json.Unmarshal(whole["payment_method"], &method)
	}
	if err != nil {
		return Answer{Err: err}
	}
	maps.Copy(method.Detail.Card, card)
	if whole["payment_method"], err = json.Marshal(method); err != nil {
		return Answer{Err: err}
	}
	b, err := json.Marshal(whole)
	if err != nil {
		return Answer{Err: err}
	}
	return c.do(ctx, http.MethodPost, "/v1/payments", b, http.Header{"X-Idempotency-Key": {p.Nonce}})
}

// Shown is what an answer says of a payment.
type Shown struct {
	ID        string      `json:"id"`
	Status    string      `json:"status"`
	SubStatus string      `json:"sub_status"`
	Version   int         `json:"version"`
	Amount    ShownAmount `json:"amount"`
}

// ShownAmount is a payment's, exactly as on the wire.
type ShownAmount struct {
	Value    json.Number `json:"value"`
	Captured json.Number `json:"captured"`
	Refunded json.Number `json:"refunded"`
}

// Settled is what matters of it, in one line.
func (s Shown) Settled() string {
	return fmt.Sprintf("%s/%s captured %s refunded %s", s.Status, s.SubStatus, s.Amount.Captured, s.Amount.Refunded)
}

// Transaction is what an answer says of the transaction that it made.
type Transaction struct {
	ID           string `json:"id"`
	Type         string `json:"type"`
	Status       string `json:"status"`
	ResponseCode string `json:"response_code"`
}

// Told reads the two out of an answer, whichever of them holds the other.
func (a Answer) Told() (p Shown, t Transaction, err error) {
	var whole struct {
		Payment     *Shown       `json:"payment"`
		Transaction *Transaction `json:"transactions"`
	}
	if a.Err != nil || a.Status >= http.StatusBadRequest {
		return p, t, fmt.Errorf("not a payment: %s", a)
	}
	if err := json.Unmarshal(a.Body, &whole); err != nil {
		return p, t, fmt.Errorf("not a payment: %w", err)
	}
	if whole.Payment != nil {
		p = *whole.Payment
		return p, t, json.Unmarshal(a.Body, &t)
	}
	if whole.Transaction != nil {
		t = *whole.Transaction
	}
	return p, t, json.Unmarshal(a.Body, &p)
}

// Booked are an order's entries in the ledger, oldest first, each as "TYPE amount". A
// ledger that cannot be read ends the test.
func (l Ledger) Booked(t testing.TB, order string) []string {
	t.Helper()
	entries, err := l.Of(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, 0, len(entries))
	for i := len(entries) - 1; i >= 0; i-- {
		lines = append(lines, entries[i].Type+" "+entries[i].Amount)
	}
	return lines
}

// Keys are what the backend calls with.
func (c *Client) Keys() Keys { return c.keys }

// Dispute opens a dispute of a booking at the provider, or moves it on if it has an id,
// and returns the id. A provider that refuses ends the test.
func (i DevInfo) Dispute(t testing.TB, reference, id, stage string) string {
	t.Helper()
	asked := map[string]string{"reference": reference, "account_id": i.AccountID, "mode": "test", "stage": stage}
	if id != "" {
		asked["id"] = id
	}
	body, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.SandboxURL+"/sandbox/v1/disputes", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	a := exchange(&http.Client{Timeout: exchangeLimit, Transport: &http.Transport{DisableKeepAlives: true}}, req)
	var dispute struct {
		ID string `json:"id"`
	}
	if a.Err != nil || a.Status != http.StatusOK || json.Unmarshal(a.Body, &dispute) != nil {
		t.Fatalf("dispute: %s", a)
	}
	return dispute.ID
}
