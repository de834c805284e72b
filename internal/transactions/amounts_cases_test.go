package transactions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
)

// An amount is exact from the first byte of a request to the last of an answer, wherever
// it goes on the way: to the payment, to its captures and refunds, to the database and to
// the provider. What is left is exact as well, to the currency's last digit.

// amountCase is one payment, captured in two parts, of which the first is refunded in two.
// All are texts as they are sent; want is how they are told, "" for the same.
type amountCase struct {
	currency, total, part, back     string
	wantTotal, wantPart, wantBack   string
	rest, partRest, beyondPartsRest string // total-part, part-back, and one step more than what is left to refund
}

var amountCases = []amountCase{
	// No minor units: yen and pesos are whole.
	{currency: "JPY", total: "9999999999", part: "1", back: "1", rest: "9999999998", beyondPartsRest: "1"},
	{currency: "JPY", total: "500.00", part: "499.0000", back: `"2e2"`, wantTotal: "500", wantPart: "499", wantBack: "200", rest: "1", partRest: "299", beyondPartsRest: "300"},
	{currency: "CLP", total: "1000001", part: "1000000", back: "999999", rest: "1", partRest: "1", beyondPartsRest: "2"},
	// Two: where floats go wrong first.
	{currency: "USD", total: "0.3", part: "0.1", back: "0.07", rest: "0.2", partRest: "0.03", beyondPartsRest: "0.04"},
	{currency: "EUR", total: `"9999999999.99"`, part: "9999999999.98", back: "0.01", wantTotal: "9999999999.99", rest: "0.01", partRest: "9999999999.97", beyondPartsRest: "9999999999.98"},
	{currency: "USD", total: "4503599627.37", part: "1.1", back: "1.09", rest: "4503599626.27", partRest: "0.01", beyondPartsRest: "0.02"},
	// Three.
	{currency: "KWD", total: "9999999999.999", part: "0.001", back: "0.001", rest: "9999999999.998", beyondPartsRest: "0.001"},
	{currency: "KWD", total: "10.010", part: `"10.001"`, back: "3.334", wantTotal: "10.01", wantPart: "10.001", rest: "0.009", partRest: "6.667", beyondPartsRest: "6.668"},
	// Four, and all that numeric(14,4) holds.
	{currency: "CLF", total: "9999999999.9999", part: "9999999999.9998", back: "9999999999.9997", rest: "0.0001", partRest: "0.0001", beyondPartsRest: "0.0002"},
	{currency: "UYW", total: "0.0003", part: "2e-4", back: "0.0001", wantPart: "0.0002", rest: "0.0001", partRest: "0.0001", beyondPartsRest: "0.0002"},
}

// orElse is how a text is told: as it was sent, unless said otherwise.
func orElse(want, sent string) string {
	if want != "" {
		return want
	}
	return sent
}

// in is a deed with its amount written like that.
func (d deed) in(currency, value string) deed {
	return d.with(map[string]any{"amount": map[string]any{"currency": currency, "value": json.RawMessage(value)}})
}

func TestAmountsOfActionsAreExactFromRequestToLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, c := range amountCases {
		c.wantTotal, c.wantPart, c.wantBack = orElse(c.wantTotal, c.total), orElse(c.wantPart, c.part), orElse(c.wantBack, c.back)
		n := func(what string) string { return fmt.Sprintf("%s-%d", what, i) }
		created := w.create(n("pay"), w.edited(edit{"merchant_order_id", `"` + n("order") + `"`}, edit{"amount.value", c.total},
			edit{"amount.currency", `"` + c.currency + `"`}, edit{cardPath + "capture", "false"}))
		if created.status != http.StatusCreated {
			t.Errorf("%s %s: got %s", c.total, c.currency, created)
			continue
		}
		s := sale{textAt(created, "id"), textAt(created, "transactions", "id")}
		w.wantTold(created, "an authorization", `"captured":0,`, `"refunded":0,`, `"value":`+c.wantTotal+`}`, `"amount":`+c.wantTotal+`,`)

		capture := w.act(n("capture"), s.capture("").in(c.currency, c.part))
		w.wantTold(capture, "a capture", `"value":`+c.wantPart+`}`, `"captured":`+c.wantPart+`,`, `"value":`+c.wantTotal+`}`)
		rest := w.act(n("rest"), s.capture("").in(c.currency, c.rest))
		w.wantTold(rest, "the rest", `"value":`+c.rest+`}`, `"captured":`+c.wantTotal+`,`)
		w.want(w.act(n("one-more"), s.capture("").in(c.currency, c.rest)), http.StatusBadRequest, "INVALID_STATUS") // it is CAPTURED

		of := textAt(capture, "id")
		refund := w.act(n("refund"), s.refundOf(of, "").in(c.currency, c.back))
		w.wantTold(refund, "a refund", `"amount":`+c.wantBack+`,`, `"refunded":`+c.wantBack+`,`, `"value":`+c.wantTotal+`}`)
		beyond := w.act(n("beyond"), s.refundOf(of, "").in(c.currency, c.beyondPartsRest))
		w.want(beyond, http.StatusBadRequest, "INVALID_AMOUNT")
		refunded := c.wantBack
		if c.partRest != "" { // what is left, without being asked for by number
			w.wantTold(w.act(n("left"), s.refundOf(of, "")), "what is left", `"amount":`+c.partRest+`,`, `"refunded":`+c.wantPart+`,`)
			refunded = c.wantPart
		}
		read := w.get("/v1/payments/" + s.payment + "?transactions_history=true")
		w.wantTold(read, "the payment", `"captured":`+c.wantTotal+`,`, `"refunded":`+refunded+`,`, `"value":`+c.wantTotal+`}`, `"amount":`+c.rest+`,`)

		w.wantSums(s, c.currency, map[string]string{"amount": c.wantTotal, "authorized": c.wantTotal, "settled": c.wantTotal, "captured": c.wantTotal, "refunded": refunded,
			"authorize_pending": "0", "settle_pending": "0", "refund_pending": "0", "canceled": "0", "cancel_pending": "0", "charged_back": "0"})
		for what, b := range map[string]struct {
			kind         providers.OperationKind
			target, want string
		}{
			"captured": {providers.Capture, s.transaction, c.wantTotal}, "refunded": {providers.Refund, of, refunded},
		} {
			if _, sum := w.psp.operated(b.kind, b.target); sum.String() != b.want {
				t.Errorf("%s: the provider %s %s, want %s", c.currency, what, sum, b.want)
			}
		}
	}
	w.wantBalanced()
}

// wantTold fails the test unless an answer has all these texts, digit for digit.
func (w *world) wantTold(r response, what string, texts ...string) {
	w.t.Helper()
	if r.status >= 300 {
		w.t.Fatalf("%s: got %s", what, r)
	}
	for _, text := range texts {
		if !bytes.Contains(r.body, []byte(text)) {
			w.t.Errorf("%s is told without %s: %s", what, text, r)
		}
	}
}

// wantSums fails the test unless a payment's row has these sums, as PostgreSQL writes
// them: numeric(14,4), and no digit lost.
func (w *world) wantSums(s sale, currency string, sums map[string]string) {
	w.t.Helper()
	for column, want := range sums {
		var got, of string
		if err := w.owner().Conn(w.t.Context()).Raw(`SELECT `+column+`::text, currency FROM payments WHERE id = $1`, s.payment).Row().Scan(&got, &of); err != nil {
			w.t.Fatal(err)
		}
		if exact := decimal.RequireFromString(want).StringFixed(4); got != exact || of != currency {
			w.t.Errorf("%s is kept as %s %s, want %s %s", column, got, of, exact, currency)
		}
	}
}

// Each currency has its own last digit, in captures and refunds as in payments.
func TestActionIsRefusedMoreDigitsThanItsCurrencyHas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, c := range []struct {
		currency, total, tooFine string
		has                      int
	}{
		{"JPY", "10", "0.5", 0}, {"CLP", "10", "9.9", 0}, {"VND", "10", "1.0001", 0}, {"USD", "10", "0.001", 2}, {"EUR", "10", "9.999", 2}, {"KWD", "10", "0.0001", 3}, {"BHD", "10", "1.2345", 3},
	} {
		n := func(what string) string { return fmt.Sprintf("%s-%d", what, i) }
		for capture, route := range map[string]Route{"false": RouteCapture, "true": RouteRefund} {
			created := w.create(n("pay-"+capture), w.edited(edit{"merchant_order_id", `"` + n("order") + `"`}, edit{"amount.value", c.total},
				edit{"amount.currency", `"` + c.currency + `"`}, edit{cardPath + "capture", capture}))
			w.want(created, http.StatusCreated)
			s := sale{textAt(created, "id"), textAt(created, "transactions", "id")}
			r := w.act(n("act-"+capture), s.deed(route, s.transaction, "").in(c.currency, c.tooFine))
			w.wantError(r, http.StatusBadRequest, "INVALID_AMOUNT",
				fmt.Sprintf("$.amount.value must not have more decimal places than its currency: %s has %d", c.currency, c.has))
		}
	}
	// Four is what there is, in any currency.
	for i, currency := range []string{"CLF", "UYW"} {
		created := w.create(fmt.Sprintf("four-%d", i), w.edited(edit{"amount.value", "1.2345"}, edit{"amount.currency", `"` + currency + `"`}))
		w.want(created, http.StatusCreated)
		s := sale{textAt(created, "id"), textAt(created, "transactions", "id")}
		w.wantError(w.act(fmt.Sprintf("five-%d", i), s.refund("").in(currency, "0.00001")), http.StatusBadRequest, "INVALID_AMOUNT", "$.amount.value must have at most 4 decimal places")
		w.wantTold(w.act(fmt.Sprintf("last-%d", i), s.refund("").in(currency, "1.2345")), "all of it", `"refunded":1.2345,`)
	}
}

// The largest authorization that there can be is cancelled, or captured and refunded, as
// a whole: no sum on the way has a digit more than the database's numbers.
func TestLargestAmountGoesEveryWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const largest = "9999999999.9999"
	all := []edit{{"amount.value", largest}, {"amount.currency", `"CLF"`}}
	held := func(nonce string) sale {
		r := w.create(nonce, w.edited(append(all, edit{cardPath + "capture", "false"})...))
		w.want(r, http.StatusCreated)
		return sale{textAt(r, "id"), textAt(r, "transactions", "id")}
	}
	s := held("nonce-1")
	w.wantTold(w.act("nonce-2", s.cancel()), "a cancellation", `"value":`+largest+`}`)
	w.wantSums(s, "CLF", map[string]string{"canceled": largest, "cancel_pending": "0", "authorized": largest})
	s = held("nonce-3")
	capture := w.act("nonce-4", s.capture("").in("CLF", largest))
	w.wantTold(capture, "a capture", `"captured":`+largest+`,`)
	w.wantTold(w.act("nonce-5", s.reverse(textAt(capture, "id"), "")), "a refund of all", `"value":`+largest+`}`, `"refunded":`+largest+`,`)
	w.wantSums(s, "CLF", map[string]string{"captured": largest, "refunded": largest, "settled": largest})
	if tx := w.transaction("nonce-4"); tx.Refunded.String() != largest || tx.ID != uuid.MustParse(textAt(capture, "id")) {
		t.Errorf("of the capture %s was refunded", tx.Refunded)
	}
	w.wantBalanced()
}
