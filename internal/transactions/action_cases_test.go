package transactions

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
)

// What a merchant can do with a payment once it is there: capture, cancel, refund, and
// each of it once, under the same rules of nonces as the payment itself.

// wantShown fails the test unless a capture, a cancellation or a cancel-or-refund is
// told as the transaction with the payment nested, or a refund the other way round.
func (w *world) wantShown(r response, status int, typ Type, value string, state PaymentStatus, captured, refunded string) string {
	w.t.Helper()
	w.want(r, status)
	transaction, payment := []string{}, []string{"payment"}
	amount := []string{"amount", "value"}
	if typ == Refund && status == http.StatusOK {
		transaction, payment = []string{"transactions"}, []string{}
		amount = []string{"transactions", "amount"}
	}
	at := func(prefix []string, names ...string) []string {
		return append(append([]string{}, prefix...), names...)
	}
	var wrong []string
	for _, c := range []struct {
		path []string
		want string
	}{
		{at(transaction, "type"), string(typ)},
		{at(transaction, "status"), string(Succeeded)},
		{at(transaction, "response_code"), "SUCCEEDED"},
		{amount, value},
		{at(payment, "status"), state.Status},
		{at(payment, "sub_status"), state.Sub},
		{at(payment, "amount", "captured"), captured},
		{at(payment, "amount", "refunded"), refunded},
	} {
		if got := numberOrText(r, c.path...); got != c.want {
			wrong = append(wrong, fmt.Sprintf("%v is %q, want %q", c.path, got, c.want))
		}
	}
	if len(wrong) > 0 {
		w.t.Fatalf("%q in %s", wrong, r)
	}
	return textAt(r, at(transaction, "id")...)
}

// numberOrText is what stands at a place of an answer, as text.
func numberOrText(r response, path ...string) string {
	switch v := r.get(path...).(type) {
	case nil:
		return ""
	case float64:
		return json.Number(fmt.Sprintf("%g", v)).String()
	default:
		return fmt.Sprint(v)
	}
}

func TestCaptureInFullTakesAllThatWasAuthorized(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.held("order-1", "100")
	w.wantPayment(s, PaymentAuthorized, "0", "0")
	w.wantShown(w.act("capture-1", s.capture("100")), http.StatusOK, Capture, "100", PaymentCaptured, "100", "0")
	w.wantPayment(s, PaymentCaptured, "100", "0")
	w.wantError(w.act("capture-2", s.capture("1")), http.StatusBadRequest, "INVALID_STATUS", "a payment that is SUCCEEDED/CAPTURED cannot be captured")
	w.wantBalanced()
}

func TestCapturesInPartsAddUpAndNeverBeyondWhatWasAuthorized(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.held("order-1", "100")
	first := w.wantShown(w.act("capture-1", s.capture("30.5")), http.StatusOK, Capture, "30.5", PaymentPartiallyCaptured, "30.5", "0")
	over := w.act("capture-2", s.capture("69.51"))
	w.wantError(over, http.StatusBadRequest, "INVALID_AMOUNT", "$.amount.value must not exceed what can still be captured")
	w.wantShown(w.act("capture-2", s.capture("60")), http.StatusOK, Capture, "60", PaymentPartiallyCaptured, "90.5", "0") // the nonce was not used
	last := w.wantShown(w.act("capture-3", s.capture("9.5")), http.StatusOK, Capture, "9.5", PaymentCaptured, "100", "0")
	if first == last {
		t.Error("two captures are one transaction")
	}
	w.wantBalanced()

	r := w.get("/v1/payments/" + s.payment)
	w.want(r, http.StatusOK)
	var types []string
	for _, one := range r.get("transactions").([]any) {
		types = append(types, fmt.Sprint(one.(map[string]any)["type"]))
	}
	if got := fmt.Sprint(types); got != "[CAPTURE CAPTURE CAPTURE AUTHORIZE]" {
		t.Errorf("the payment's transactions are %s", got)
	}
	if version := r.get("version"); version != 4.0 {
		t.Errorf("the payment's version is %v after four transactions", version)
	}
}

func TestCancelEndsAnAuthorizationOfWhichNothingWasCaptured(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.held("order-1", "100")
	w.wantShown(w.act("cancel-1", s.cancel()), http.StatusOK, Cancel, "100", PaymentCanceled, "0", "0")
	for nonce, d := range map[string]deed{"again": s.cancel(), "capture": s.capture("1"), "reverse": s.reverse("", "")} {
		w.want(w.act(nonce, d), http.StatusBadRequest, "INVALID_STATUS")
	}
	w.wantBalanced()

	captured := w.held("order-2", "100")
	w.want(w.act("capture-2", captured.capture("1")), http.StatusOK)
	w.wantError(w.act("cancel-2", captured.cancel()), http.StatusBadRequest, "INVALID_STATUS",
		"a payment that is SUCCEEDED/PARTIALLY_CAPTURED cannot be cancelled")
	w.wantBalanced()
}

func TestRefundsOfAPurchaseAddUpAndNeverBeyondIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	w.wantPayment(s, PaymentApproved, "0", "0")
	w.wantShown(w.act("refund-1", s.refund("25")), http.StatusOK, Refund, "25", PaymentPartiallyRefunded, "0", "25")
	w.wantError(w.act("refund-2", s.refund("75.01")), http.StatusBadRequest, "INVALID_AMOUNT", "$.amount.value must not exceed what can still be refunded")
	w.wantShown(w.act("refund-2", s.refund("25.01")), http.StatusOK, Refund, "25.01", PaymentPartiallyRefunded, "0", "50.01")
	w.wantShown(w.act("refund-3", s.refund("")), http.StatusOK, Refund, "49.99", PaymentRefunded, "0", "100") // what is left
	w.wantError(w.act("refund-4", s.refund("")), http.StatusBadRequest, "INVALID_STATUS", "a payment that is REFUNDED/REFUNDED cannot be refunded")
	w.wantBalanced()
}

func TestRefundOfACapturedPaymentNamesTheCaptureAndStaysWithinIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.held("order-1", "100")
	one := w.wantShown(w.act("capture-1", s.capture("60")), http.StatusOK, Capture, "60", PaymentPartiallyCaptured, "60", "0")
	two := w.wantShown(w.act("capture-2", s.capture("40")), http.StatusOK, Capture, "40", PaymentCaptured, "100", "0")
	w.wantError(w.act("refund-1", s.refund("10")), http.StatusBadRequest, "INVALID_TRANSACTION_TYPE",
		"an authorization cannot be refunded: name the capture, or cancel it")
	w.wantError(w.act("refund-1", s.refundOf(two, "41")), http.StatusBadRequest, "INVALID_AMOUNT", "$.amount.value must not exceed what can still be refunded")
	w.wantShown(w.act("refund-1", s.refundOf(two, "15")), http.StatusOK, Refund, "15", PaymentPartiallyRefunded, "100", "15")
	w.wantShown(w.act("refund-2", s.refundOf(two, "")), http.StatusOK, Refund, "25", PaymentPartiallyRefunded, "100", "40")
	w.wantError(w.act("refund-3", s.refundOf(two, "")), http.StatusBadRequest, "INVALID_AMOUNT", "nothing is left that could be refunded")
	refund := w.wantShown(w.act("refund-3", s.refundOf(one, "60")), http.StatusOK, Refund, "60", PaymentRefunded, "100", "100")
	w.want(w.act("refund-4", s.refundOf(refund, "60")), http.StatusBadRequest, "INVALID_TRANSACTION_TYPE")
	w.wantBalanced()
}

// A capture may be refunded while the rest of the authorization is still open: what was
// refunded cannot be captured again.
func TestRefundOfAPartGivesNoRoomForAnotherCapture(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.held("order-1", "100")
	one := w.wantShown(w.act("capture-1", s.capture("60")), http.StatusOK, Capture, "60", PaymentPartiallyCaptured, "60", "0")
	w.want(w.act("refund-1", s.refundOf(one, "60")), http.StatusOK)
	w.wantPayment(s, PaymentRefunded, "60", "60")
	w.want(w.act("capture-2", s.capture("40")), http.StatusBadRequest, "INVALID_STATUS")
	w.wantBalanced()
}

func TestCancelOrRefundDoesWhatThePaymentNeeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cancelled := w.held("order-1", "100")
	w.wantShown(w.act("reverse-1", cancelled.reverse("", "")), http.StatusCreated, Cancel, "100", PaymentCanceled, "0", "0")
	byTransaction := w.held("order-2", "100")
	w.wantError(w.act("reverse-2", byTransaction.reverse(byTransaction.transaction, "40")), http.StatusBadRequest, "INVALID_AMOUNT",
		"$.amount.value must be the whole authorization: a part of it cannot be cancelled")
	w.wantShown(w.act("reverse-2", byTransaction.reverse(byTransaction.transaction, "")), http.StatusCreated, Cancel, "100", PaymentCanceled, "0", "0")

	purchase := w.sold("order-3", "100")
	w.wantShown(w.act("reverse-3", purchase.reverse("", "40")), http.StatusCreated, Refund, "40", PaymentPartiallyRefunded, "0", "40")
	w.wantShown(w.act("reverse-4", purchase.reverse(purchase.transaction, "")), http.StatusCreated, Refund, "60", PaymentRefunded, "0", "100")

	captured := w.held("order-4", "100")
	one := w.wantShown(w.act("capture-1", captured.capture("60")), http.StatusOK, Capture, "60", PaymentPartiallyCaptured, "60", "0")
	w.wantShown(w.act("reverse-5", captured.reverse("", "10")), http.StatusCreated, Refund, "10", PaymentPartiallyRefunded, "60", "10")
	w.wantShown(w.act("reverse-6", captured.reverse(one, "")), http.StatusCreated, Refund, "50", PaymentRefunded, "60", "60")

	several := w.held("order-5", "100")
	one = w.wantShown(w.act("capture-2", several.capture("60")), http.StatusOK, Capture, "60", PaymentPartiallyCaptured, "60", "0")
	w.want(w.act("capture-3", several.capture("40")), http.StatusOK)
	w.wantError(w.act("reverse-7", several.reverse("", "1")), http.StatusBadRequest, "INVALID_TRANSACTION",
		"the payment has several captures that could be refunded: name one of them in the path")
	w.wantError(w.act("reverse-7", several.reverse("", "61")), http.StatusBadRequest, "INVALID_AMOUNT",
		"nothing is left that could be refunded, or no capture of which so much is left")
	w.wantShown(w.act("reverse-7", several.reverse(one, "")), http.StatusCreated, Refund, "60", PaymentPartiallyRefunded, "100", "60")
	w.wantShown(w.act("reverse-8", several.reverse("", "")), http.StatusCreated, Refund, "40", PaymentRefunded, "100", "100") // one is left
	w.wantBalanced()
}

func TestVerificationMovesNothingAndNothingCanBeDoneWithIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := map[string]any{"amount": json.Number("0"), "payment_method": map[string]any{"type": "CARD", "detail": map[string]any{"card": map[string]any{
		"verify": true, "card_data": map[string]any{
			"number": "4111111111111111", "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 28, "security_code": "123",
		},
	}}}}
	r := w.create("verify-1", w.body("order-1", body))
	w.want(r, http.StatusCreated)
	if r.get("status") != "VERIFIED" || r.get("transactions", "type") != "VERIFY" || numberOrText(r, "amount", "value") != "0" {
		t.Fatalf("told: %s", r)
	}
	w.wantReplay(r, w.create("verify-1", w.body("order-1", body)), false)
	s := sale{textAt(r, "id"), textAt(r, "transactions", "id")}
	w.wantError(w.act("capture-1", s.capture("1")), http.StatusBadRequest, "INVALID_TRANSACTION_TYPE", "a VERIFY cannot be captured")
	w.wantError(w.act("cancel-1", s.cancel()), http.StatusBadRequest, "INVALID_TRANSACTION_TYPE", "a VERIFY cannot be cancelled")
	w.wantError(w.act("refund-1", s.refund("")), http.StatusBadRequest, "INVALID_TRANSACTION_TYPE", "a VERIFY cannot be refunded")
	w.wantError(w.act("reverse-1", s.reverse("", "")), http.StatusBadRequest, "INVALID_STATUS", "a payment that is VERIFIED/VERIFIED cannot be cancelled or refunded")
	w.wantNoLeaks()
}

func TestDeclinedActionIsAnAnswerAndLeavesThePaymentAsItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	authorized, purchase := w.held("order-1", "100"), w.sold("order-2", "100")
	for nonce, c := range map[string]struct {
		d     deed
		state PaymentStatus
		code  []string // where the response code stands
	}{
		"capture": {authorized.capture("60"), PaymentAuthorized, []string{"response_code"}},
		"cancel":  {authorized.cancel(), PaymentAuthorized, []string{"response_code"}},
		"refund":  {purchase.refund("60"), PaymentApproved, []string{"transactions", "response_code"}},
		"reverse": {purchase.reverse("", "60"), PaymentApproved, []string{"response_code"}},
	} {
		w.psp.nextOperation(declinedForGood)
		first := w.act(nonce, c.d)
		if first.status >= http.StatusBadRequest || textAt(first, c.code...) != "INSUFFICIENT_FUNDS" {
			t.Fatalf("%s: told %s", nonce, first)
		}
		sent := w.psp.sent()
		w.wantReplay(first, w.act(nonce, c.d), false)
		if w.psp.sent() != sent {
			t.Errorf("%s: a declined answer was asked for again", nonce)
		}
		w.wantPayment(sale{payment: c.d.payment}, c.state, "0", "0")
	}
	w.wantBalanced()
	w.wantShown(w.act("capture-again", authorized.capture("100")), http.StatusOK, Capture, "100", PaymentCaptured, "100", "0")
	w.wantShown(w.act("refund-again", purchase.refund("")), http.StatusOK, Refund, "100", PaymentRefunded, "0", "100")
	w.wantBalanced()
}

// A replay tells what was told first, however far the payment has come since.
func TestReplayOfAnActionIsByteEqualAfterThePaymentHasMovedOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.held("order-1", "100")
	capture := w.act("capture-1", s.capture("60"))
	one := textAt(capture, "id")
	w.want(w.act("capture-2", s.capture("40")), http.StatusOK)
	refund := w.act("refund-1", s.refundOf(one, "10"))
	w.want(refund, http.StatusOK)
	reverse := w.act("reverse-1", s.reverse(one, "10"))
	w.want(reverse, http.StatusCreated)
	w.want(w.act("refund-2", s.refundOf(one, "")), http.StatusOK)
	cancelled := w.held("order-2", "100")
	cancel := w.act("cancel-1", cancelled.cancel())
	w.want(cancel, http.StatusOK)
	sent := w.psp.sent()

	for nonce, c := range map[string]struct {
		first response
		d     deed
	}{
		"capture-1": {capture, s.capture("60")}, "refund-1": {refund, s.refundOf(one, "10")},
		"reverse-1": {reverse, s.reverse(one, "10")}, "cancel-1": {cancel, cancelled.cancel()},
	} {
		w.wantReplay(c.first, w.act(nonce, c.d), false)
		w.wantReplay(c.first, w.act(nonce, c.d.differently()), true)
		w.wantReplay(c.first, w.act(nonce, c.d.with(map[string]any{"reason": "NONSENSE"})), true)                                // not even valid
		w.wantReplay(c.first, w.act(nonce, deed{c.d.route, c.d.payment, c.d.transaction, map[string]any{"amount": true}}), true) // nor is this
	}
	if now := w.psp.sent(); now != sent {
		t.Errorf("replays sent %d times", now-sent)
	}
	w.wantBalanced()
}

// A body that differs tells in which fields, on the nonce's timeline.
func TestOtherBodyOfAnActionIsNotedByItsFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.sold("order-1", "100")
	first := w.act("refund-1", s.refund("60"))
	w.want(first, http.StatusOK)
	w.wantReplay(first, w.act("refund-1", s.refund("40").differently()), true)
	if _, err := w.arrivals.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var differs string
	if err := w.db.Conn(t.Context()).Raw(`SELECT differs FROM arrivals WHERE nonce = 'refund-1' AND body_differs`).Row().Scan(&differs); err != nil {
		t.Fatal(err)
	}
	if differs != "amount,merchant_reference" {
		t.Errorf("differing are %q", differs)
	}
	w.wantVerdicts(w.onlyLife("refund-1"), idem.New, idem.Replayed)
}

func TestY31NonceNamesOneOperationOnOneTransactionOfOnePayment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, other := w.held("order-1", "100"), w.held("order-2", "100")
	capture := w.act("nonce-1", s.capture("60"))
	one := textAt(capture, "id")
	two := textAt(w.act("capture-2", s.capture("40")), "id")
	refund := w.act("nonce-2", s.refundOf(one, "10"))
	reverse := w.act("nonce-3", s.reverse("", "41")) // of the first: the second has less
	w.want(reverse, http.StatusCreated)
	for what, c := range map[string]struct {
		nonce string
		d     deed
	}{
		"another payment's capture":               {"nonce-1", other.capture("60")},
		"the cancellation of what was captured":   {"nonce-1", s.cancel()},
		"a refund of the capture":                 {"nonce-1", s.refundOf(one, "60")},
		"another capture's refund":                {"nonce-2", s.refundOf(two, "10")},
		"the same refund by the other route":      {"nonce-2", s.reverse(one, "10")},
		"the transaction's route, not the other":  {"nonce-3", s.reverse(one, "41")},
		"a payment's nonce":                       {"sale-order-1", s.capture("60")},
		"a payment that is not there":             {"nonce-1", sale{uuid.NewString(), uuid.NewString()}.capture("60")},
		"another payment's cancel-or-refund":      {"nonce-3", other.reverse("", "")},
		"an action's nonce that declines a check": {"nonce-1", s.refundOf(two, "9999")},
	} {
		t.Log(what)
		r := w.act(c.nonce, c.d)
		w.wantError(r, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED", "X-Idempotency-Key was used for another operation; use a new key")
		w.wantNoReplay(r)
	}
	// And an action's nonce makes no payment.
	w.want(w.create("nonce-1", w.body("order-3", nil)), http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	w.wantCharges("order-3", 0)
	w.wantReplay(capture, w.act("nonce-1", s.capture("60")), false)
	w.wantReplay(refund, w.act("nonce-2", s.refundOf(one, "10")), false)
	w.wantBalanced()
}

func TestY31NonceOfAnActionThatIsNotAnsweredYetIsNotAnotherOperations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.held("order-1", "100")
	w.psp.nextOperation(noAnswer)
	w.want(w.act("nonce-1", s.capture("60")), http.StatusGatewayTimeout, "REQUEST_TIMEOUT")
	w.want(w.act("nonce-1", s.cancel()), http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	w.want(w.act("nonce-1", s.capture("60")), http.StatusOK)
	w.wantBalanced()
}

// A refusal by what the payment is, or by what is left, leaves no trace but an arrival.
func TestRefusedActionLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	authorized, purchase := w.held("order-1", "100"), w.sold("order-2", "100")
	w.psp.next(decline)
	declined := w.saleOf("order-3", "100", false)
	someone, theirs := w.newMerchant("Second merchant")
	if _, err := w.auth.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = someone
	before := w.footprint()
	for what, c := range map[string]struct {
		d    deed
		code string
	}{
		"a payment that is not there":         {sale{uuid.NewString(), authorized.transaction}.capture("1"), "PAYMENT_NOT_FOUND"},
		"a transaction that is not there":     {sale{authorized.payment, uuid.NewString()}.capture("1"), "TRANSACTION_NOT_FOUND"},
		"another payment's transaction":       {sale{authorized.payment, purchase.transaction}.refund("1"), "TRANSACTION_NOT_FOUND"},
		"no id of a payment":                  {sale{"x", purchase.transaction}.refund("1"), "PAYMENT_NOT_FOUND"},
		"no id of a transaction":              {sale{purchase.payment, "x"}.refund("1"), "TRANSACTION_NOT_FOUND"},
		"too much to capture":                 {authorized.capture("100.01"), "INVALID_AMOUNT"},
		"too much to refund":                  {purchase.refund("100.01"), "INVALID_AMOUNT"},
		"too much to reverse":                 {purchase.reverse("", "100.01"), "INVALID_AMOUNT"},
		"another currency":                    {purchase.refund("1").with(map[string]any{"amount": map[string]any{"currency": "EUR", "value": 1}}), "CURRENCY_NOT_ALLOWED"},
		"another currency to capture":         {authorized.capture("1").with(map[string]any{"amount": map[string]any{"currency": "EUR", "value": 1}}), "CURRENCY_NOT_ALLOWED"},
		"a capture of a purchase":             {purchase.capture("1"), "INVALID_TRANSACTION_TYPE"},
		"a cancellation of a purchase":        {purchase.cancel(), "INVALID_TRANSACTION_TYPE"},
		"a refund of an authorization":        {authorized.refund("1"), "INVALID_TRANSACTION_TYPE"},
		"a capture of what was declined":      {declined.capture("1"), "INVALID_STATUS"},
		"a cancellation of what was declined": {declined.cancel(), "INVALID_STATUS"},
		"a reversal of what was declined":     {declined.reverse("", ""), "INVALID_STATUS"},
	} {
		t.Log(what)
		r := w.act("nonce-1", c.d)
		w.want(r, http.StatusBadRequest, c.code)
		w.wantUntouched(before, "arrivals")
	}
	for what, pair := range map[string]merchants.KeyPair{"another merchant": theirs, "the other mode": w.live} {
		t.Log(what)
		body, err := json.Marshal(purchase.refund("1").body)
		if err != nil {
			t.Fatal(err)
		}
		r := w.call(http.MethodPost, w.public.URL+purchase.refund("1").path(), body, append(keys(pair), idem.Header, "nonce-1")...)
		w.wantError(r, http.StatusBadRequest, "PAYMENT_NOT_FOUND", "there is no payment with this id")
		w.wantUntouched(before, "arrivals")
	}
	w.want(w.act("nonce-1", purchase.refund("100")), http.StatusOK) // it was never used
}

func TestActionWithoutANonceIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	authorized, purchase := w.held("order-1", "100"), w.sold("order-2", "100")
	before := w.footprint()
	for what, d := range map[string]deed{
		"capture": authorized.capture("1"), "cancel": authorized.cancel(), "refund": purchase.refund(""),
		"reverse": purchase.reverse("", ""), "reverse a transaction": purchase.reverse(purchase.transaction, ""),
	} {
		t.Log(what)
		body, err := json.Marshal(d.body)
		if err != nil {
			t.Fatal(err)
		}
		w.want(w.call(http.MethodPost, w.public.URL+d.path(), body, keys(w.test)...), http.StatusBadRequest, "MISSING_PARAMETERS")
		w.want(w.call(http.MethodPost, w.public.URL+d.path(), body, append(keys(w.test), idem.Header, "a b")...), http.StatusBadRequest, "INVALID_PARAMETERS")
		w.wantUntouched(before)
	}
}

// What the provider finds invalid, or never received, gives nonce and reservation back
// on the first attempt.
func TestActionThatHadNoEffectGivesNonceAndReservationBack(t *testing.T) {
	t.Parallel()
	for how, c := range map[string]struct {
		answers operating
		status  int
		code    string
	}{
		"refused":       {invalidAnswer, http.StatusBadRequest, "INVALID_REQUEST"},
		"never reached": {neverReached, http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE"},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for _, d := range w.oneOfEach() {
				w.psp.nextOperation(c.answers)
				nonce := "nonce-" + string(d.route)
				w.want(w.act(nonce, d), c.status, c.code)
				released := w.transaction(nonce)
				if released.Status != Errored || !released.Released {
					t.Fatalf("%s: the transaction is %s, released %t", d.route, released.Status, released.Released)
				}
				w.wantBalanced()
				r := w.act(nonce, d)
				if r.status != http.StatusOK {
					t.Fatalf("%s: the nonce's second life: %s", d.route, r)
				}
				w.wantNoReplay(r)
				if again := w.transaction(nonce); again.ID == released.ID {
					t.Errorf("%s: the new life has the old one's reference", d.route)
				}
				if n := len(w.lives(nonce)); n != 2 {
					t.Errorf("%s: the nonce has %d lives", d.route, n)
				}
			}
			w.wantBalanced()
		})
	}
}

// oneOfEach is a capture, a cancellation and a refund, each of another payment.
func (w *world) oneOfEach() []deed {
	w.t.Helper()
	return []deed{
		w.held("order-capture", "100").capture("60"), w.held("order-cancel", "100").cancel(), w.sold("order-refund", "100").refund("60"),
	}
}
