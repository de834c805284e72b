package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/harness"
)

const (
	// answerLimit is longer than any answer takes.
	answerLimit = 2 * time.Minute
	// answerBytes bounds what is read of one.
	answerBytes = 1 << 20
	// maxNotes is more undocumented exchanges than anybody reads.
	maxNotes = 20
)

// backend is a merchant's: it asks for payments, and for what is done with them.
type backend struct {
	*harness.Client
	keys harness.Keys
	base atomic.Pointer[string]
	http *http.Client
	seen *documented
}

func newBackend(base string, keys harness.Keys, seen *documented) *backend {
	b := &backend{Client: harness.NewClient(base, keys), keys: keys, seen: seen, http: &http.Client{
		Timeout: answerLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 2000, IdleConnTimeout: answerLimit},
	}}
	b.moveTo(base)
	return b
}

// moveTo says where the API is now.
func (b *backend) moveTo(base string) {
	b.base.Store(&base)
	b.MoveTo(base)
}

// post sends a request that moves money: once, whatever becomes of the connection.
func (b *backend) post(ctx context.Context, path, nonce string, body any) harness.Answer {
	text, err := json.Marshal(body)
	if err != nil {
		return harness.Answer{Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, *b.base.Load()+path, bytes.NewReader(text))
	if err != nil {
		return harness.Answer{Err: err}
	}
	req.GetBody = nil // else Go's transport may send it again
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "X-Idempotency-Key": {nonce},
		"Public-Api-Key": {b.keys.PublicAPIKey}, "Private-Secret-Key": {b.keys.PrivateSecretKey},
	}
	res, err := b.http.Do(req)
	if err != nil {
		return harness.Answer{Err: err, At: time.Now()}
	}
	defer res.Body.Close()
	got, err := io.ReadAll(io.LimitReader(res.Body, answerBytes))
	if err == nil {
		b.seen.look(req, text, res, got)
	}
	return harness.Answer{Status: res.StatusCode, Header: res.Header, Body: got, Closes: res.Close, Err: err, At: time.Now()}
}

// documented notes the exchanges that were not as openapi.yaml says.
type documented struct {
	mu    sync.Mutex
	wrong []string
}

func (d *documented) look(req *http.Request, body []byte, res *http.Response, answer []byte) {
	err := apitest.Problem(req, body, res, answer)
	if err == nil {
		return
	}
	text := fmt.Sprintf("%s %s answered %d: %v", req.Method, req.URL.Path, res.StatusCode, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.wrong) < maxNotes && !slices.Contains(d.wrong, text) {
		d.wrong = append(d.wrong, text)
	}
}

func (d *documented) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.wrong)
}

// request is what an order asks for, and where. Of an action, another value than its
// amount stands for another body.
func (o *order) request(account, value string) (path string, body map[string]any) {
	if o.deed != nil {
		return o.deed.request(o, value)
	}
	card, told := harness.CardThatPays, map[string]any{"capture": o.kind != transactions.Authorize}
	if o.declined {
		card = harness.CardWithoutFunds
	}
	if o.kind == transactions.Verify {
		told["verify"], value = true, "0"
	}
	told["card_data"] = map[string]any{"number": card, "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 28, "security_code": "123"}
	return "/v1/payments", map[string]any{
		"account_id": account, "merchant_order_id": o.id, "description": o.description(), "country": "US", "workflow": "DIRECT",
		"amount":         money(value),
		"payment_method": map[string]any{"type": "CARD", "detail": map[string]any{"card": told}},
	}
}

func money(value string) map[string]any {
	return map[string]any{"currency": "USD", "value": json.Number(value)}
}

// description is what the order says of itself; the sandbox reads it, the product must not.
func (o *order) description() string {
	if o.says != "" {
		return o.says
	}
	return "campaign"
}

// deed is what an order does with the payment of another one.
type deed struct {
	route transactions.Route
	of    *order // whose payment
	on    *order // whose transaction; nil: the payment as a whole
	value string // "": all that is left
}

func (d *deed) request(o *order, value string) (path string, body map[string]any) {
	path = "/v1/payments/" + d.of.paid.payment
	if d.on != nil {
		path += "/transactions/" + d.on.paid.transaction
	}
	body = map[string]any{"merchant_reference": "part of " + o.id, "reason": "REQUESTED_BY_CUSTOMER", "description": o.description()}
	if d.value != "" {
		body["amount"] = money(d.value)
	}
	if value != amount { // another body: its first answer counts all the same
		body["merchant_reference"] = "something else"
	}
	return path + "/" + string(d.route), body
}

// outcomeOf is what an answer says of a payment, or of what was done with one.
type outcomeOf struct {
	payment, transaction string
	status, redirect     string
}

// readOutcome reads an answer in either of its shapes.
func readOutcome(body []byte) (o outcomeOf) {
	type one struct {
		ID     string `json:"id"`
		Status string `json:"status"`
		Method struct {
			Detail struct {
				Card struct {
					Redirect string `json:"redirect_url"`
				} `json:"card"`
			} `json:"detail"`
		} `json:"payment_method"`
	}
	var a struct {
		one
		Payment      *one `json:"payment"`
		Transactions *one `json:"transactions"`
	}
	if json.Unmarshal(body, &a) != nil { // the oracles complain about a body that cannot be read
		return o
	}
	payment, transaction := a.one, one{}
	switch {
	case a.Payment != nil:
		payment, transaction = *a.Payment, a.one
	case a.Transactions != nil:
		transaction = *a.Transactions
	}
	return outcomeOf{payment.ID, transaction.ID, transaction.Status, transaction.Method.Detail.Card.Redirect}
}
