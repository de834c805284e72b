package transactions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// What the tests of captures, cancellations and refunds have in common: payments to act
// on, actions to ask for, and the referee, who compares every sum in the database with
// the transactions and with the provider's own books.

// sale is a payment that can be acted on, and its first transaction.
type sale struct{ payment, transaction string }

// sold is a purchase of that amount in USD.
func (w *world) sold(order, amount string) sale { return w.saleOf(order, amount, true) }

// held is an authorization of that amount in USD.
func (w *world) held(order, amount string) sale { return w.saleOf(order, amount, false) }

func (w *world) saleOf(order, amount string, capture bool) sale {
	w.t.Helper()
	r := w.create("sale-"+order, w.body(order, map[string]any{"amount": json.Number(amount), "capture": capture}))
	w.want(r, http.StatusCreated)
	return sale{textAt(r, "id"), textAt(r, "transactions", "id")}
}

// textAt is the text at a place of an answer.
func textAt(r response, path ...string) string {
	s, _ := r.get(path...).(string)
	return s
}

// deed is one action to be asked for.
type deed struct {
	route                Route
	payment, transaction string // no transaction: the payment's own route
	body                 map[string]any
}

// The deeds. An amount of "" is none: all that is left.
func (s sale) capture(amount string) deed { return s.deed(RouteCapture, s.transaction, amount) }
func (s sale) cancel() deed               { return s.deed(RouteCancel, s.transaction, "") }

// refund acts on the purchase, refundOf on one of the payment's captures.
func (s sale) refund(amount string) deed { return s.refundOf(s.transaction, amount) }

func (s sale) refundOf(transaction, amount string) deed {
	return s.deed(RouteRefund, transaction, amount)
}

// reverse is a cancel-or-refund, of one of the payment's transactions or, without one, of
// the payment.
func (s sale) reverse(transaction, amount string) deed {
	return s.deed(RouteCancelOrRefund, transaction, amount)
}

func (s sale) deed(route Route, transaction, amount string) deed {
	d := deed{route, s.payment, transaction, map[string]any{"merchant_reference": "reference-1", "reason": "REQUESTED_BY_CUSTOMER"}}
	if amount != "" {
		d.body["amount"] = map[string]any{"currency": "USD", "value": json.Number(amount)}
	}
	return d
}

// with is d with other members; nil leaves one out.
func (d deed) with(changes map[string]any) deed {
	body := map[string]any{}
	for name, v := range d.body {
		body[name] = v
	}
	for name, v := range changes {
		body[name] = v
		if v == nil {
			delete(body, name)
		}
	}
	d.body = body
	return d
}

func (d deed) path() string {
	p := "/v1/payments/" + d.payment
	if d.transaction != "" {
		p += "/transactions/" + d.transaction
	}
	return p + "/" + string(d.route)
}

// try asks for a deed, and may be called from any goroutine.
func (w *world) try(ctx context.Context, i instance, nonce string, d deed) (response, error) {
	body, err := json.Marshal(d.body)
	if err != nil {
		return response{}, err
	}
	return request(ctx, http.MethodPost, i.public.URL+d.path(), body, append(keys(w.test), idem.Header, nonce)...)
}

// act asks for a deed once, on the first instance.
func (w *world) act(nonce string, d deed) response {
	w.t.Helper()
	return w.actOn(w.instance, nonce, d)
}

func (w *world) actOn(i instance, nonce string, d deed) response {
	w.t.Helper()
	r, err := w.try(w.t.Context(), i, nonce, d)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// acting asks for a deed in the background.
func (w *world) acting(i instance, nonce string, d deed) <-chan response {
	return atOnce(1, func(int) (response, error) { return w.try(w.t.Context(), i, nonce, d) })
}

// patience bounds how long a client of these tests asks again: 200 of them wait for one
// row on a slow machine.
const patience = 2 * time.Minute

// insist asks for a deed as the contract asks of a client: with the same nonce until
// there is an answer, at most as often as the pause of a test allows.
func (w *world) insist(i instance, nonce string, d deed) (response, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for {
		r, err := w.try(ctx, i, nonce, d)
		if err != nil || r.status != http.StatusConflict && r.status < http.StatusInternalServerError {
			return r, err
		}
		if r.header.Get("Retry-After") == "" {
			return r, fmt.Errorf("no invitation to come back: %s", r)
		}
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("not answered within %s, the last time with %s", patience, r)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// wantPayment fails the test unless the payment has that status, and was captured and
// refunded that much.
func (w *world) wantPayment(s sale, state PaymentStatus, captured, refunded string) Payment {
	w.t.Helper()
	p := w.paymentOf(s)
	if p.state() != state || p.Captured.String() != captured || p.Refunded.String() != refunded {
		w.t.Fatalf("the payment is %s, captured %s and refunded %s; want %s, %s and %s", p.state(), p.Captured, p.Refunded, state, captured, refunded)
	}
	return p
}

// The behaviours of a provider that is asked for an operation.
func operateAsUsual(_ context.Context, p *psp, o providers.Operation) providers.Result {
	return p.operate(o)
}

func operateThenTimeout(_ context.Context, p *psp, o providers.Operation) providers.Result {
	p.operate(o)
	return providers.Result{Outcome: providers.Unclear, TimedOut: true}
}

// operateWithout does nothing and answers that.
func operateWithout(r providers.Result) operating {
	return func(context.Context, *psp, providers.Operation) providers.Result { return r }
}

var (
	noAnswer       = operateWithout(providers.Result{Outcome: providers.Unclear, TimedOut: true})
	brokenAnswer   = operateWithout(providers.Result{Outcome: providers.Unclear})
	invalidAnswer  = operateWithout(providers.Result{Outcome: providers.Refused})
	neverReached   = operateWithout(providers.Result{Outcome: providers.NotReached})
	acceptedForNow = operateWithout(providers.Result{Outcome: providers.Pending, ProviderReference: "psp-pending"})
)

// declinedForGood declines an operation, and says so to whoever asks later.
func declinedForGood(_ context.Context, p *psp, o providers.Operation) providers.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.declined[o.Reference] = true
	return providers.Result{Outcome: providers.Declined, ResponseCode: "INSUFFICIENT_FUNDS"}
}

// holdOperation lets the provider act on its next operation at once, and keeps its
// answer back. It tells when the provider has acted, and lets the answer go when asked
// to, or when the test ends.
func (w *world) holdOperation(first operating) (acted <-chan struct{}, letGo func()) {
	w.t.Helper()
	w.steady()
	did, gate := make(chan struct{}, 1), make(chan struct{})
	letGo = sync.OnceFunc(func() { close(gate) })
	w.t.Cleanup(letGo)
	w.psp.nextOperation(func(ctx context.Context, p *psp, o providers.Operation) providers.Result {
		r := first(ctx, p, o)
		did <- struct{}{}
		<-gate
		return r
	})
	return did, letGo
}

// pendingAnswer lets the next n inquiries be answered: not decided yet.
func (w *world) pendingAnswer(n int) {
	for range n {
		w.psp.asked(func() (providers.Result, bool) {
			return providers.Result{Outcome: providers.Pending, ProviderReference: "psp-pending"}, true
		})
	}
}

// decided books, or declines, what the provider had only accepted.
func (w *world) decided(nonce string, approve bool) {
	w.t.Helper()
	tx := w.transaction(nonce)
	if !approve {
		w.psp.mu.Lock()
		defer w.psp.mu.Unlock()
		w.psp.declined[tx.ID.String()] = true
		return
	}
	r := w.psp.operate(operationOf(tx))
	if r.Outcome != providers.Approved {
		w.t.Fatalf("the provider answers %s to what it had accepted", r.Outcome)
	}
}

// operationOf is what a provider was, or would be, asked for on behalf of tx.
func operationOf(tx Transaction) providers.Operation {
	return providers.Operation{
		Order: providers.Order{Reference: tx.ID.String(), AccountID: tx.AccountID.String(), Mode: tx.Mode},
		Kind:  kinds[tx.Type], Target: tx.TargetID.UUID.String(), Amount: tx.Amount, Currency: tx.Currency,
	}
}

// beginDeed begins an action on an instance and goes no further, as a process does that
// dies between its commit and its send.
func (w *world) beginDeed(i instance, nonce string, d deed) *run {
	w.t.Helper()
	r, refused, err := i.service.beginAction(w.t.Context(), w.commandOf(i, nonce, d))
	if err != nil || refused != nil || r == nil {
		w.t.Fatalf("the action could not be begun: refused %v, error %v", refused, err)
	}
	return r
}

// commandOf is a deed as the handler hands it to the service.
func (w *world) commandOf(i instance, nonce string, d deed) Command {
	w.t.Helper()
	a := Action{
		Route: d.route, Type: actionRules[d.route].typ, PaymentID: uuid.MustParse(d.payment), TargetID: uuid.MustParse(d.transaction),
		MerchantReference: fmt.Sprint(d.body["merchant_reference"]), Reason: fmt.Sprint(d.body["reason"]),
	}
	if amount, ok := d.body["amount"].(map[string]any); ok {
		a.Amount, a.Currency = decimal.RequireFromString(fmt.Sprint(amount["value"])), fmt.Sprint(amount["currency"])
	}
	route := "/v1/payments/:payment_id/transactions/:transaction_id/" + string(d.route)
	body, err := json.Marshal(d.body)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := jsontree.Parse(body)
	if err != nil {
		w.t.Fatal(err)
	}
	policy := i.service.policies.Of(idem.DefaultPolicy)
	return Command{
		AccountID: w.account, Mode: merchants.Test, Policy: policy, Key: key(policy, nonce),
		Operation: "POST " + route + " " + d.payment + "/" + d.transaction,
		Print:     i.service.prints.Of(http.MethodPost, route, d.payment+"/"+d.transaction, v),
		RequestID: "request-of-" + nonce, ArrivedAt: time.Now(), Action: &a,
	}
}

// leaks are the queries that find something where all has ended: a reservation, a lease,
// an answer that is missing, an event too few or too many.
var leaks = map[string]string{
	"payments reserve something": `SELECT count(*) FROM payments
		WHERE authorize_pending <> 0 OR settle_pending <> 0 OR refund_pending <> 0 OR cancel_pending <> 0`,
	"transactions reserve a refund": `SELECT count(*) FROM transactions WHERE refund_pending <> 0`,
	"transactions are unresolved":   `SELECT count(*) FROM transactions WHERE lease_until IS NOT NULL`,
	"keys have no answer":           `SELECT count(*) FROM idempotency_keys WHERE response_status IS NULL`,
	"transactions have no event of their end": `SELECT count(*) FROM transactions t
		WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.account_id = t.account_id AND e.transaction_id = t.id)`,
	"payments have gaps in their events": `SELECT count(*) FROM payments p
		WHERE p.version <> (SELECT count(*) FROM events e WHERE e.account_id = p.account_id AND e.payment_id = p.id)
		   OR p.version <> (SELECT max(e.seq) FROM events e WHERE e.account_id = p.account_id AND e.payment_id = p.id)`,
	"payments are not what their last event says": `SELECT count(*) FROM payments p
		JOIN events e ON e.account_id = p.account_id AND e.payment_id = p.id AND e.seq = p.version
		WHERE (e.status, e.sub_status) <> (p.status, p.sub_status)`,
	"payments' sums are not their transactions'": `SELECT count(*) FROM payments p
		CROSS JOIN LATERAL (SELECT
		    coalesce(sum(t.amount) FILTER (WHERE t.type IN ('PURCHASE', 'AUTHORIZE')), 0) AS authorized,
		    coalesce(sum(t.amount) FILTER (WHERE t.type IN ('PURCHASE', 'CAPTURE')), 0) AS settled,
		    coalesce(sum(t.amount) FILTER (WHERE t.type = 'CAPTURE'), 0) AS captured,
		    coalesce(sum(t.amount) FILTER (WHERE t.type = 'CANCEL'), 0) AS canceled,
		    coalesce(sum(t.amount) FILTER (WHERE t.type = 'REFUND'), 0) AS refunded
		    FROM transactions t WHERE t.account_id = p.account_id AND t.payment_id = p.id AND t.status = 'SUCCEEDED') s
		WHERE (p.authorized, p.settled, p.captured, p.canceled, p.refunded)
		   <> (s.authorized, s.settled, s.captured, s.canceled, s.refunded)`,
	"targets' refunds are not their transactions'": `SELECT count(*) FROM transactions g
		LEFT JOIN (SELECT account_id, target_id, sum(amount) AS sum FROM transactions
		    WHERE type = 'REFUND' AND status = 'SUCCEEDED' GROUP BY account_id, target_id) s
		ON s.account_id = g.account_id AND s.target_id = g.id
		WHERE g.refunded <> coalesce(s.sum, 0)`,
	"payments were captured and canceled": `SELECT count(*) FROM payments WHERE captured > 0 AND canceled > 0`,
	"payments were refunded too much":     `SELECT count(*) FROM payments WHERE refunded > settled OR settled > authorized`,
}

// wantBalanced fails the test unless all has ended, nothing is reserved any more, and
// every transaction has succeeded if and only if the provider has booked it, once and
// with the same amount.
func (w *world) wantBalanced() {
	w.t.Helper()
	w.wantNoLeaks()
	w.wantAgreement()
}

// wantNoLeaks is the database's half of wantBalanced.
func (w *world) wantNoLeaks() {
	w.t.Helper()
	for what, query := range leaks {
		if n := w.count(query); n != 0 {
			w.t.Errorf("%d %s", n, what)
		}
	}
}

// wantAgreement is the provider's half of wantBalanced.
func (w *world) wantAgreement() {
	w.t.Helper()
	var txs []Transaction
	if err := w.owner().Conn(w.t.Context()).Raw(`SELECT ` + transactionColumns + ` FROM transactions t`).Scan(&txs).Error; err != nil {
		w.t.Fatal(err)
	}
	booked := w.bookings()
	for _, tx := range txs {
		theirs := booked[tx.ID.String()]
		ours := ""
		if tx.Status == Succeeded {
			ours = fmt.Sprintf("%s %s of %s", tx.Type, tx.Amount, orNobody(tx.TargetID))
		}
		if got := strings.Join(theirs, ", "); got != ours {
			w.t.Errorf("%s %s under nonce %s is %s: the provider booked %q, we %q", tx.Type, tx.ID, tx.Nonce, tx.Status, got, ours)
		}
		delete(booked, tx.ID.String())
	}
	for reference, theirs := range booked {
		w.t.Errorf("the provider booked %q under %s, which we don't know", theirs, reference)
	}
}

// bookings are the provider's, by reference.
func (w *world) bookings() map[string][]string {
	w.psp.mu.Lock()
	defer w.psp.mu.Unlock()
	booked := map[string][]string{}
	for _, c := range w.psp.bookings {
		typ := Authorize
		if c.Capture {
			typ = Purchase
		}
		booked[c.Reference] = append(booked[c.Reference], fmt.Sprintf("%s %s of nobody", typ, c.Amount))
	}
	for _, o := range w.psp.operations {
		booked[o.Reference] = append(booked[o.Reference], fmt.Sprintf("%s %s of %s", strings.ToUpper(string(o.Kind)), o.Amount, o.Target))
	}
	return booked
}

func orNobody(id uuid.NullUUID) string {
	if !id.Valid {
		return "nobody"
	}
	return id.UUID.String()
}

// differently is a body that is valid and not the first one's.
func (d deed) differently() deed {
	return d.with(map[string]any{"merchant_reference": "another-reference"})
}

// same says whether two answers are one.
func same(a, b response) bool { return a.status == b.status && bytes.Equal(a.body, b.body) }

// paymentOf is the payment as it is in the database.
func (w *world) paymentOf(s sale) Payment {
	w.t.Helper()
	p, err := w.service.store.payment(w.t.Context(), w.account, uuid.MustParse(s.payment))
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// succeeded are a payment's transactions of a type that succeeded. It may be called from
// any goroutine.
func (w *world) succeeded(s sale, typ Type) (of []Transaction) {
	id := uuid.MustParse(s.payment)
	all, err := w.service.store.transactionsOf(w.t.Context(), w.account, id)
	if err != nil {
		w.t.Error(err)
	}
	for _, tx := range all[id] {
		if tx.Type == typ && tx.Status == Succeeded {
			of = append(of, tx)
		}
	}
	return of
}
