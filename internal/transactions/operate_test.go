package transactions

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/providers"
)

// ordered is an order about a sale, as the console's form sends it.
func (s sale) ordered(route Route, transaction, amount string) OperatorOrder {
	o := OperatorOrder{
		PaymentID: uuid.MustParse(s.payment), TransactionID: uuid.MustParse(transaction), Route: route,
		Reason: "REQUESTED_BY_CUSTOMER", Description: "called in", Nonce: uuid.NewString(), RequestID: "request-1",
	}
	if amount != "" {
		o.Amount = decimal.RequireFromString(amount)
	}
	return o
}

// ada is the context of an operator's request.
func ada(ctx context.Context) context.Context {
	return audit.By(ctx, audit.Actor{Kind: audit.KindOperator, ID: "1", Name: "ada", Address: "127.0.0.1", RequestID: "request-1"})
}

// wantOrders fails the test unless the log has exactly these orders about a payment, each
// by ada.
func (w *world) wantOrders(s sale, actions ...string) {
	w.t.Helper()
	page, err := audit.Log{DB: w.db}.Page(w.t.Context(), audit.Filter{Target: "payment/" + s.payment}, 0, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	var got []string
	for _, r := range page.Records {
		got = append(got, r.Action)
		if r.Actor.Name != "ada" {
			w.t.Errorf("%s was ordered by %q", r.Action, r.Actor.Name)
		}
	}
	slices.Reverse(got)
	if !slices.Equal(got, actions) {
		w.t.Errorf("the log has %q, want %q", got, actions)
	}
}

func TestAnOperatorCapturesCancelsAndRefundsLikeTheMerchant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.held("order-1", "100")
	a, err := w.service.Operate(ada(t.Context()), s.ordered(RouteCapture, s.transaction, "60"))
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("capture: %d %v", a.Status, err)
	}
	a, err = w.service.Operate(ada(t.Context()), s.ordered(RouteRefund, a.TransactionID.String(), ""))
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("refund: %d %v", a.Status, err)
	}
	w.wantPayment(s, PaymentRefunded, "60", "60")
	other := w.held("order-2", "100")
	if a, err = w.service.Operate(ada(t.Context()), other.ordered(RouteCancel, other.transaction, "")); err != nil || a.Status != http.StatusOK {
		t.Fatalf("cancel: %d %v", a.Status, err)
	}
	w.wantOrders(s, "payment.capture_ordered", "payment.refund_ordered")
	w.wantOrders(other, "payment.cancel_ordered")
	w.wantBalanced()
}

// TestAnOrderIsTheMerchantsOwnRequest: the operation and the fingerprint are those of the
// merchant's route, so the protocol cannot tell who sent it.
func TestAnOrderIsTheMerchantsOwnRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	o := s.ordered(RouteRefund, s.transaction, "40")
	if _, err := w.service.Operate(ada(t.Context()), o); err != nil {
		t.Fatal(err)
	}
	same := s.refund("40").with(map[string]any{"merchant_reference": "console-" + o.Nonce[:8], "description": "called in"})
	r := w.act(o.Nonce, same)
	w.want(r, http.StatusOK)
	if r.header.Get(headerReplayed) != "true" || r.header.Get(headerMismatch) != "" {
		t.Errorf("the merchant's own request is not the same: %v", r.header)
	}
	if n, sum := w.psp.operated(providers.Refund, s.transaction); n != 1 || !sum.Equal(decimal.NewFromInt(40)) {
		t.Errorf("%d refunds of %s", n, sum)
	}
	life := w.onlyLife(o.Nonce)
	if life.Policy != idem.DefaultPolicy || len(life.Timeline) == 0 || life.Timeline[0].RequestID != "request-1" {
		t.Errorf("the order's life is %+v", life)
	}
}

// TestTwentyClicksAtOnceRefundOnce: the form's nonce is what a merchant's is. The log says
// once what was ordered once.
func TestTwentyClicksAtOnceRefundOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	o := s.ordered(RouteRefund, s.transaction, "40")
	var wg sync.WaitGroup
	var mu sync.Mutex
	verdicts := map[idem.Verdict]int{}
	for range 20 {
		wg.Go(func() {
			a, err := w.service.Operate(ada(t.Context()), o)
			if err != nil && !isCode(err, apierr.RequestInProcess) {
				t.Errorf("a click was told %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			verdicts[a.Verdict]++
		})
	}
	wg.Wait()
	if verdicts[idem.New] != 1 || verdicts[idem.New]+verdicts[idem.Replayed]+verdicts[idem.InProcess] != 20 {
		t.Errorf("the verdicts are %v", verdicts)
	}
	a, err := w.service.Operate(ada(t.Context()), o)
	if err != nil || a.Verdict != idem.Replayed {
		t.Errorf("a later click: %s, %v", a.Verdict, err)
	}
	if n, sum := w.psp.operated(providers.Refund, s.transaction); n != 1 || !sum.Equal(decimal.NewFromInt(40)) {
		t.Errorf("%d refunds of %s", n, sum)
	}
	w.wantOrders(s, "payment.refund_ordered")
	w.wantBalanced()
}

// A form that was left open is sent again when its answer has been forgotten. A merchant's
// nonce would begin a new life then; a form's must not move money twice. Found by a review:
// it did.
func TestAFormThatIsSentAgainDaysLaterMovesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	o := s.ordered(RouteRefund, s.transaction, "40")
	if _, err := w.service.Operate(ada(t.Context()), o); err != nil {
		t.Fatal(err)
	}
	for name, forget := range map[string]string{
		"its answer has expired":        `UPDATE idempotency_keys SET expires_at = clock_timestamp() - interval '1 minute' WHERE key_id = $1`,
		"its answer is about to expire": `UPDATE idempotency_keys SET expires_at = clock_timestamp() + interval '1 second' WHERE key_id = $1`,
		"its key was purged":            `DELETE FROM idempotency_keys WHERE key_id = $1`,
	} {
		w.sql(forget, o.Nonce)
		if _, err := w.service.Operate(ada(t.Context()), o); !isCode(err, apierr.InvalidState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n, sum := w.psp.operated(providers.Refund, s.transaction); n != 1 || !sum.Equal(decimal.NewFromInt(40)) {
		t.Errorf("%d refunds of %s", n, sum)
	}
	w.wantOrders(s, "payment.refund_ordered")
	w.wantBalanced()
}

// What was ordered under a nonce before says nothing of what is ordered under it now: each
// wording, and each operator, is in the log. Found by a review: the second was not.
func TestEachOrderUnderANonceIsInTheLogAsItWasGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	o := s.ordered(RouteRefund, s.transaction, "4000")
	if _, err := w.service.Operate(ada(t.Context()), o); err == nil {
		t.Fatal("more than was paid was refunded")
	}
	o.Amount = decimal.NewFromInt(10)
	if _, err := w.service.Operate(ada(t.Context()), o); err != nil {
		t.Fatal(err)
	}
	grace := audit.By(t.Context(), audit.Actor{Kind: audit.KindOperator, ID: "2", Name: "grace"})
	if a, err := w.service.Operate(grace, o); err != nil || a.Verdict != idem.Replayed {
		t.Errorf("%s, %v", a.Verdict, err)
	}
	page, err := audit.Log{DB: w.db}.Page(t.Context(), audit.Filter{Target: "payment/" + s.payment}, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range page.Records {
		got = append(got, r.Actor.Name+" "+r.Details["amount"])
	}
	if want := []string{"grace 10", "ada 10", "ada 4000"}; !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}

func TestAnOrderThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	change := func(f func(*OperatorOrder)) OperatorOrder {
		o := s.ordered(RouteRefund, s.transaction, "40")
		f(&o)
		return o
	}
	for what, c := range map[string]struct {
		o    OperatorOrder
		code apierr.Code
		note bool // it was an order, if one that could not be followed
	}{
		"more than is left":      {change(func(o *OperatorOrder) { o.Amount = decimal.NewFromInt(101) }), apierr.InvalidAmount, true},
		"another currency":       {change(func(o *OperatorOrder) { o.Currency = "EUR" }), apierr.CurrencyNotAllowed, true},
		"a capture of a sale":    {change(func(o *OperatorOrder) { o.Route = RouteCapture }), apierr.InvalidTransactionType, true},
		"too many digits":        {change(func(o *OperatorOrder) { o.Amount = decimal.RequireFromString("1.001") }), apierr.InvalidAmount, false},
		"less than nothing":      {change(func(o *OperatorOrder) { o.Amount = decimal.NewFromInt(-1) }), apierr.InvalidAmount, false},
		"no such payment":        {change(func(o *OperatorOrder) { o.PaymentID = uuid.New() }), apierr.PaymentNotFound, false},
		"no such transaction":    {change(func(o *OperatorOrder) { o.TransactionID = uuid.New() }), apierr.TransactionNotFound, true},
		"no transaction":         {change(func(o *OperatorOrder) { o.TransactionID = uuid.Nil }), apierr.TransactionNotFound, false},
		"a route of another's":   {change(func(o *OperatorOrder) { o.Route = RouteCancelOrRefund }), apierr.InvalidParameters, false},
		"no route":               {change(func(o *OperatorOrder) { o.Route = "" }), apierr.InvalidParameters, false},
		"no nonce":               {change(func(o *OperatorOrder) { o.Nonce = "" }), apierr.InvalidParameters, false},
		"a nonce of their own":   {change(func(o *OperatorOrder) { o.Nonce = "nonce-1" }), apierr.InvalidParameters, false},
		"a reason of their own":  {change(func(o *OperatorOrder) { o.Reason = "WHY_NOT" }), apierr.InvalidParameters, false},
		"too long a description": {change(func(o *OperatorOrder) { o.Description = strings.Repeat("x", 256) }), apierr.InvalidParameters, false},
		"no text":                {change(func(o *OperatorOrder) { o.Description = "\xff" }), apierr.InvalidParameters, false},
		"a capture of no amount": {change(func(o *OperatorOrder) { o.Route, o.Amount = RouteCapture, decimal.Zero }), apierr.MissingParameters, false},
	} {
		before := w.count(`SELECT count(*) FROM audit_entries WHERE action LIKE 'payment.%'`)
		if _, err := w.service.Operate(ada(t.Context()), c.o); !isCode(err, c.code) {
			t.Errorf("%s: %v, want %s", what, err, c.code)
		}
		if after := w.count(`SELECT count(*) FROM audit_entries WHERE action LIKE 'payment.%'`); after-before != map[bool]int{true: 1}[c.note] {
			t.Errorf("%s: %d orders were noted", what, after-before)
		}
	}
	if n, _ := w.psp.operated(providers.Refund, s.transaction); n != 0 {
		t.Errorf("%d refunds", n)
	}
}

func TestNothingIsDoneIfTheLogCannotBeWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	o := s.ordered(RouteRefund, s.transaction, "40")
	w.sql(`ALTER TABLE audit_entries ADD CONSTRAINT full_disk CHECK (action <> 'payment.refund_ordered')`)
	if _, err := w.service.Operate(ada(t.Context()), o); err == nil {
		t.Error("it was done without a word in the log")
	}
	if n, _ := w.psp.operated(providers.Refund, s.transaction); n != 0 || w.count(`SELECT count(*) FROM transactions WHERE nonce = $1`, o.Nonce) != 0 {
		t.Errorf("%d refunds", n)
	}
	w.sql(`ALTER TABLE audit_entries DROP CONSTRAINT full_disk`)
	if _, err := w.service.Operate(ada(t.Context()), o); err != nil {
		t.Error(err)
	}
	w.wantOrders(s, "payment.refund_ordered")
}

// TestAnErrorOfTheDatabaseAtAnyStatementOfAnOrderCostsNeitherMoneyNorItsEntry: whatever
// fails, and however, an operator who clicks again has refunded once, and the log says so
// once.
func TestAnErrorOfTheDatabaseAtAnyStatementOfAnOrderCostsNeitherMoneyNorItsEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i, _, wire := w.onFaultyWire()
	refund := func(name string, traps ...wireTrap) []string {
		s := w.sold("order-"+name, "100")
		o := s.ordered(RouteRefund, s.transaction, "40")
		wire.arm(traps...)
		done := false
		for range patienceOfClients {
			a, err := i.service.Operate(ada(t.Context()), o)
			if done = err == nil && a.Status == http.StatusOK; done {
				break
			}
			if isCode(err, apierr.RequestInProcess) { // whoever has it is gone
				w.shift(o.Nonce, testLease)
			}
		}
		executed, left := wire.executed()
		if !done || left != 0 {
			t.Fatalf("%s: done: %t, %d traps are left", name, done, left)
		}
		if n, sum := w.psp.operated(providers.Refund, s.transaction); n != 1 || !sum.Equal(decimal.NewFromInt(40)) {
			t.Errorf("%s: %d refunds of %s", name, n, sum)
		}
		w.wantOrders(s, "payment.refund_ordered")
		return executed
	}
	sound := refund("sound")
	for _, name := range []string{"transactions.any_payment", "transactions.lock_payment", "transactions.ordered", "audit.insert"} {
		if !slices.Contains(sound, name) {
			t.Fatalf("a sound order executes %q, and not %s", sound, name)
		}
	}
	n := 0
	for kind, with := range statementFaults {
		times := map[string]int{}
		for _, statement := range sound {
			times[statement]++
			n++
			t.Logf("%d: %s at %s, time %d", n, kind, statement, times[statement])
			refund(strconv.Itoa(n), wireTrap{statement, times[statement], with})
		}
	}
}
