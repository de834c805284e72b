package transactions

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
)

// Every kind of capture, cancellation and refund that is wrong, with the exact answer.

const (
	captureReasons = "$.reason must be PRODUCT_CONFIRMED or REQUESTED_BY_CUSTOMER"
	cancelReasons  = "$.reason must be DUPLICATE, FRAUDULENT or REQUESTED_BY_CUSTOMER"
	refundRule     = "$.reason must be DUPLICATE, FRAUDULENT, REQUESTED_BY_CUSTOMER or REVERSE"
	noTransaction  = "there is no transaction with this id in the payment"
	objectRule     = "$ must be an object"
)

// wrongAct is one member of a good action that is wrong; with no JSON it is left out.
type wrongAct struct {
	path, json string
	code       apierr.Code
	messages   []string
}

// wrongAmounts are wrong wherever an action has an amount.
var wrongAmounts = []wrongAct{
	{"amount", `45.67`, apierr.InvalidParameters, []string{"$.amount must be an object", "$.amount.currency is required", "$.amount.value is required"}},
	{"amount", `[]`, apierr.InvalidParameters, []string{"$.amount must be an object", "$.amount.currency is required", "$.amount.value is required"}},
	{"amount", `{}`, apierr.MissingParameters, []string{"$.amount.currency is required", "$.amount.value is required"}},
	{"amount.value", ``, apierr.MissingParameters, []string{"$.amount.value is required"}},
	{"amount.value", `null`, apierr.MissingParameters, []string{"$.amount.value is required"}},
	{"amount.value", `true`, apierr.InvalidAmount, []string{"$.amount.value must be a number, or a string that holds one"}},
	{"amount.value", `{}`, apierr.InvalidAmount, []string{"$.amount.value must be a number, or a string that holds one"}},
	{"amount.value", `0`, apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
	{"amount.value", `0.00`, apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
	{"amount.value", `-0`, apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
	{"amount.value", `-1.5`, apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
	{"amount.value", `"-1"`, apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
	{"amount.value", `10000000000`, apierr.InvalidAmount, []string{"$.amount.value must be at most 9999999999.9999"}},
	{"amount.value", `9999999999.99991`, apierr.InvalidAmount, []string{"$.amount.value must be at most 9999999999.9999"}},
	{"amount.value", `1e20`, apierr.InvalidAmount, []string{"$.amount.value must be at most 9999999999.9999"}},
	{"amount.value", `1e21`, apierr.InvalidAmount, []string{"$.amount.value must not have an exponent beyond 20"}},
	{"amount.value", `1e-21`, apierr.InvalidAmount, []string{"$.amount.value must not have an exponent beyond 20"}},
	{"amount.value", `0.00001`, apierr.InvalidAmount, []string{"$.amount.value must have at most 4 decimal places"}},
	{"amount.value", `1.001`, apierr.InvalidAmount, []string{"$.amount.value must not have more decimal places than its currency: USD has 2"}},
	{"amount.value", `"1.001"`, apierr.InvalidAmount, []string{"$.amount.value must not have more decimal places than its currency: USD has 2"}},
	{"amount.value", `1001e-3`, apierr.InvalidAmount, []string{"$.amount.value must not have more decimal places than its currency: USD has 2"}},
	{"amount.value", `""`, apierr.InvalidAmount, []string{"$.amount.value must be a decimal number of at most 40 characters"}},
	{"amount.value", `" 1"`, apierr.InvalidAmount, []string{"$.amount.value must be a decimal number of at most 40 characters"}},
	{"amount.value", `"1,5"`, apierr.InvalidAmount, []string{"$.amount.value must be a decimal number of at most 40 characters"}},
	{"amount.value", `"0x10"`, apierr.InvalidAmount, []string{"$.amount.value must be a decimal number of at most 40 characters"}},
	{"amount.value", `"geheim"`, apierr.InvalidAmount, []string{"$.amount.value must be a decimal number of at most 40 characters"}},
	{"amount.value", `"` + strings.Repeat("0", 41) + `"`, apierr.InvalidAmount, []string{"$.amount.value must be a decimal number of at most 40 characters"}},
	{"amount.value", `0.` + strings.Repeat("0", 39), apierr.InvalidAmount, []string{"$.amount.value must be a decimal number of at most 40 characters"}},
	{"amount.currency", ``, apierr.MissingParameters, []string{"$.amount.currency is required"}},
	{"amount.currency", `840`, apierr.CurrencyNotAllowed, []string{"$.amount.currency must be an active ISO 4217 currency code"}},
	{"amount.currency", `"usd"`, apierr.CurrencyNotAllowed, []string{"$.amount.currency must be an active ISO 4217 currency code"}},
	{"amount.currency", `"XAU"`, apierr.CurrencyNotAllowed, []string{"$.amount.currency must be an active ISO 4217 currency code"}},
	{"amount.currency", `"EUR"`, apierr.CurrencyNotAllowed, []string{"$.amount.currency must be the payment's currency"}},
	{"amount", `{"currency":"JPY","value":1}`, apierr.CurrencyNotAllowed, []string{"$.amount.currency must be the payment's currency"}},
}

// wrongMembers are wrong in every action.
var wrongMembers = []wrongAct{
	{"merchant_reference", `7`, apierr.InvalidParameters, []string{"$.merchant_reference must be a string"}},
	{"merchant_reference", `{"geheim":1}`, apierr.InvalidParameters, []string{"$.merchant_reference must be a string"}},
	{"merchant_reference", `"ab"`, apierr.InvalidParameters, []string{"$.merchant_reference must have 3 to 255 characters"}},
	{"merchant_reference", `"` + strings.Repeat("ü", 256) + `"`, apierr.InvalidParameters, []string{"$.merchant_reference must have 3 to 255 characters"}},
	{"merchant_reference", `"geheim\n"`, apierr.InvalidParameters, []string{"$.merchant_reference must not contain control characters"}},
	{"description", `"ab"`, apierr.InvalidParameters, []string{"$.description must have 3 to 255 characters"}},
	{"description", `["geheim"]`, apierr.InvalidParameters, []string{"$.description must be a string"}},
	{"description", `"geheim\u007f"`, apierr.InvalidParameters, []string{"$.description must not contain control characters"}},
	{"simplified_mode", `true`, apierr.InvalidParameters, []string{"$.simplified_mode must be false: automatic retries of a declined operation are not available"}},
	{"simplified_mode", `"false"`, apierr.InvalidParameters, []string{"$.simplified_mode must be true or false"}},
	{"split_marketplace", `[{}]`, apierr.InvalidParameters, []string{"$.split_marketplace is not available yet and must be left out"}},
	{"split_marketplace", `{}`, apierr.InvalidParameters, []string{"$.split_marketplace is not available yet and must be left out"}},
	{"customer_payer", `"geheim"`, apierr.InvalidParameters, []string{"$.customer_payer must be an object"}},
	{"response_additional_data", `true`, apierr.InvalidParameters, []string{"$.response_additional_data must be an object"}},
	{"additional_data", `[]`, apierr.InvalidParameters, []string{"$.additional_data must be an object"}},
	{"additional_data", `{"geheim":"` + strings.Repeat("x", fields.MaxDescriptive) + `"}`, apierr.InvalidParameters, []string{"$.additional_data must have at most 65536 bytes"}},
	{"reason", `"geheim"`, apierr.InvalidParameters, nil}, // in each action's own words
	{"reason", `""`, apierr.InvalidParameters, nil},
	{"reason", `7`, apierr.InvalidParameters, nil},
	{"reason", `["DUPLICATE"]`, apierr.InvalidParameters, nil},
	{"reason", `"requested_by_customer"`, apierr.InvalidParameters, nil},
}

// actBodies are good bodies, each with all that its action needs.
const (
	actBody    = `{"merchant_reference":"reference-1","reason":"REQUESTED_BY_CUSTOMER","amount":{"currency":"USD","value":1.5}}`
	cancelBody = `{"merchant_reference":"reference-1","reason":"REQUESTED_BY_CUSTOMER"}`
)

// wrongFor are the rows of one action: path is the place, body a good one.
func (w *world) wrongFor(route Route, path, body string) []malformed {
	own := []wrongAct{}
	reasons := refundRule
	switch route {
	case RouteCapture:
		reasons = captureReasons
		own = append(own,
			wrongAct{"merchant_reference", ``, apierr.MissingParameters, []string{"$.merchant_reference is required"}},
			wrongAct{"reason", ``, apierr.MissingParameters, []string{"$.reason is required"}},
			wrongAct{"reason", `null`, apierr.MissingParameters, []string{"$.reason is required"}},
			wrongAct{"reason", `"DUPLICATE"`, apierr.InvalidParameters, []string{captureReasons}},
			wrongAct{"amount", ``, apierr.MissingParameters, []string{"$.amount is required"}},
			wrongAct{"amount", `null`, apierr.MissingParameters, []string{"$.amount is required"}},
			wrongAct{"amount.value", `45.68`, apierr.InvalidAmount, []string{"$.amount.value must not exceed what can still be captured"}},
		)
	case RouteCancel:
		reasons = cancelReasons
		own = append(own,
			wrongAct{"merchant_reference", `null`, apierr.MissingParameters, []string{"$.merchant_reference is required"}},
			wrongAct{"reason", `"REVERSE"`, apierr.InvalidParameters, []string{cancelReasons}},
			wrongAct{"reason", `"PRODUCT_CONFIRMED"`, apierr.InvalidParameters, []string{cancelReasons}},
		)
	case RouteRefund:
		own = append(own,
			wrongAct{"merchant_reference", ``, apierr.MissingParameters, []string{"$.merchant_reference is required"}},
			wrongAct{"reason", `"PRODUCT_CONFIRMED"`, apierr.InvalidParameters, []string{refundRule}},
			wrongAct{"amount.value", `45.68`, apierr.InvalidAmount, []string{"$.amount.value must not exceed what can still be refunded"}},
		)
	case RouteCancelOrRefund:
		own = append(own, wrongAct{"reason", ``, apierr.MissingParameters, []string{"$.reason is required"}})
	}
	own = append(own, wrongMembers...)
	if actionRules[route].amount {
		own = append(own, wrongAmounts...)
	}
	var rows []malformed
	for _, c := range own {
		if c.messages == nil {
			c.messages = []string{reasons}
		}
		rows = append(rows, malformed{
			fmt.Sprintf("%s: %s = %.60s", route, c.path, c.json),
			[]change{target(path), text(string(w.editedIn(body, edit{c.path, c.json})))}, http.StatusBadRequest, c.code, c.messages,
		})
	}
	at := func(name string, status int, code apierr.Code, message string, wrong ...change) malformed {
		return w.rule(fmt.Sprintf("%s: %s", route, name), status, code, message, append([]change{target(path), text(body)}, wrong...)...)
	}
	return append(rows,
		at("nothing", 400, apierr.InvalidRequest, "$ must not be empty", text("")),
		at("null", 400, apierr.InvalidRequest, objectRule, text("null")),
		at("a list", 400, apierr.InvalidRequest, objectRule, text("["+body+"]")),
		at("no JSON", 400, apierr.InvalidRequest, jsonRule, text(`{"geheim`)),
		at("a name twice", 400, apierr.InvalidRequest, "$.reason must not appear twice in the same object", text(strings.Replace(body, "{", `{"reason":"DUPLICATE",`, 1))),
		at("no nonce", 400, apierr.MissingParameters, missingRule, header(idem.Header)),
		at("a nonce with a blank", 400, apierr.InvalidParameters, visibleRule, header(idem.Header, "a b")),
		at("two nonces", 400, apierr.InvalidParameters, equalRule, raw(idem.AliasHeader+": another")),
		at("another type", 415, apierr.UnsupportedMediaType, typeRule, header("Content-Type", "text/plain")),
		at("too much", 413, apierr.RequestTooLarge, tooLargeRule, text(`{"description":"`+strings.Repeat("x", httpapi.MaxBody)+`"}`)),
		at("another merchant's secret", 401, apierr.InvalidCredentials, pairRule, header("private-secret-key", w.live.PrivateSecretKey)),
		at("another method", 405, apierr.UnsupportedMethod, methodRule, method(http.MethodPut)),
	)
}

// editedIn is a body with something else in it.
func (w *world) editedIn(body string, e edit) []byte {
	w.t.Helper()
	if e.json != "" {
		return put(w.t, body, strings.Split(e.path, "."), e.json)
	}
	names := strings.Split(e.path, ".")
	var root map[string]any
	if err := json.Unmarshal([]byte(body), &root); err != nil {
		w.t.Fatal(err)
	}
	at := root
	for _, name := range names[:len(names)-1] {
		at = at[name].(map[string]any)
	}
	delete(at, names[len(names)-1])
	b, err := json.Marshal(root)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// wrongPlaces are actions on what is not there, or is not theirs.
func (w *world) wrongPlaces(mine, held sale, others map[string]sale) []malformed {
	var rows []malformed
	for _, route := range []Route{RouteCapture, RouteCancel, RouteRefund, RouteCancelOrRefund} {
		own, body := mine, actBody
		if route == RouteCapture || route == RouteCancel {
			own = held
		}
		nowhere := func(name string, code apierr.Code, message, payment, transaction string) {
			d := deed{route: route, payment: payment, transaction: transaction}
			rows = append(rows, w.rule(fmt.Sprintf("%s: %s", route, name), 400, code, message, target(d.path()), text(body)))
		}
		for whose, s := range others {
			nowhere(whose+" payment", apierr.PaymentNotFound, noPayment, s.payment, s.transaction)
			nowhere(whose+" transaction in one's own payment", apierr.TransactionNotFound, noTransaction, own.payment, s.transaction)
			nowhere("one's own transaction in "+whose+" payment", apierr.PaymentNotFound, noPayment, s.payment, own.transaction)
		}
		for name, id := range map[string]string{
			"nobody's": uuid.NewString(), "the zero id": uuid.Nil.String(), "no id": "geheim", "an id without hyphens": strings.ReplaceAll(own.payment, "-", ""),
			"an id in braces": "%7B" + own.payment + "%7D", "an id as a URN": "urn:uuid:" + own.payment, "a zero byte": "%00", "no text": "%ff",
		} {
			nowhere(name+", of a payment", apierr.PaymentNotFound, noPayment, id, own.transaction)
			nowhere(name+", of a transaction", apierr.TransactionNotFound, noTransaction, own.payment, id)
		}
		nowhere("the payment's id as the transaction's", apierr.TransactionNotFound, noTransaction, own.payment, own.payment)
		nowhere("a transaction of another payment of one's own", apierr.TransactionNotFound, noTransaction, held.payment, mine.transaction)
	}
	typ := func(name, message string, d deed) malformed {
		return w.rule("type: "+name, 400, apierr.InvalidTransactionType, message, target(d.path()), text(actBody))
	}
	return append(rows,
		typ("a purchase is captured", "a PURCHASE cannot be captured", mine.capture("")),
		typ("a purchase is cancelled", "a PURCHASE cannot be cancelled", mine.cancel()),
		typ("an authorization is refunded", "an authorization cannot be refunded: name the capture, or cancel it", held.refund("")),
		w.rule("a part of an authorization is cancelled", 400, apierr.InvalidAmount,
			"$.amount.value must be the whole authorization: a part of it cannot be cancelled", target(held.reverse("", "").path()), text(actBody)),
		w.rule("more than all is cancelled", 400, apierr.InvalidAmount, "$.amount.value must not exceed what can still be cancelled",
			target(held.reverse(held.transaction, "").path()), text(strings.Replace(actBody, "1.5", "45.68", 1))),
		w.rule("more than all is refunded", 400, apierr.InvalidAmount, "nothing is left that could be refunded, or no capture of which so much is left",
			target(mine.reverse("", "").path()), text(strings.Replace(actBody, "1.5", "45.68", 1))),
		w.rule("a payment without a transaction is captured", 404, apierr.NotFound, pathRule, target("/v1/payments/"+mine.payment+"/capture"), text(actBody)),
		w.rule("a path with a slash at its end", 404, apierr.NotFound, pathRule, target(mine.refund("").path()+"/"), text(actBody)),
		w.rule("a path in capitals", 404, apierr.NotFound, pathRule, target(strings.ToUpper(mine.refund("").path())), text(actBody)),
	)
}

// Nothing of all that reserves, sends or keeps anything, but a line in the timeline; and
// afterwards everything that was tried wrongly can be done rightly with the same nonces.
func TestMalformedActionsAreToldExactlyWhatIsWrongAndLeaveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sold, held := w.sold("order-1", "45.67"), w.held("order-2", "45.67")
	others := map[string]sale{"the live mode's": {}, "another merchant's": {}}
	account, pair := w.newMerchant("Second merchant")
	for whose, r := range map[string]response{
		"the live mode's":    w.createOn(w.instance, w.live, "live-1", w.body("order-3", nil)),
		"another merchant's": w.createOn(w.instance, pair, "other-1", put(t, string(w.body("order-4", nil)), []string{"account_id"}, `"`+account.String()+`"`)),
	} {
		w.want(r, http.StatusCreated)
		others[whose] = sale{textAt(r, "id"), textAt(r, "transactions", "id")}
	}
	publicMux, _ := w.edges(w.instance, w.service.log)
	public := w.front(publicMux)
	good := w.paying("nonce-1", nil)

	rows := w.wrongPlaces(sold, held, others)
	rows = append(rows, w.wrongFor(RouteCapture, held.capture("").path(), actBody)...)
	rows = append(rows, w.wrongFor(RouteCancel, held.cancel().path(), cancelBody)...)
	rows = append(rows, w.wrongFor(RouteRefund, sold.refund("").path(), actBody)...)
	rows = append(rows, w.wrongFor(RouteCancelOrRefund, sold.reverse(sold.transaction, "").path(), actBody)...)
	rows = append(rows, w.wrongFor(RouteCancelOrRefund, sold.reverse("", "").path(), actBody)...)
	if len(rows) < 250 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	before := w.footprint()
	for _, row := range rows {
		r := w.send(public, good.but(row.wrong...))
		if got, want := fmt.Sprint(r.status, r.code(), r.get("messages")), fmt.Sprint(row.status, row.code, row.messages); got != want {
			if t.Errorf("%s: got %s, want %s", row.name, got, want); r.status < http.StatusBadRequest {
				t.FailNow() // it was done, and every row from here on would meet that
			}
			continue
		}
		w.wantError(r, row.status, string(row.code), row.messages...)
		w.wantSilent(r, "geheim", w.test.PublicAPIKey, w.test.PrivateSecretKey)
	}
	w.wantUntouched(before, "arrivals")
	if n := w.count(`SELECT count(*) FROM arrivals WHERE nonce = 'nonce-1' AND (verdict <> 'rejected' OR transaction_id IS NOT NULL OR body_differs OR differs <> '')`); n != 0 {
		t.Errorf("%d arrivals say more than that a request was rejected", n)
	}
	// The nonce is as free as before.
	w.want(w.act("nonce-1", sold.refund("45.67")), http.StatusOK)
	w.want(w.act("nonce-2", held.cancel()), http.StatusOK)
	w.wantBalanced()
}
