package checkout

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
)

func TestSessionIsToldAsItWasMade(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	customer := w.shopper("shopper-1")
	body := w.checkoutBody("order-1", map[string]any{
		"customer_id": customer, "callback_url": "https://shop.example/thanks?a=b", "checkout_id": "mine", "workflow": nil,
		"metadata": []any{map[string]any{"key": "k", "value": "v", "more": 1}}, "alternative_amount": map[string]any{"currency": "EUR", "value": json.Number("1.50")},
		"recurring_payment": map[string]any{"any": true}, "amount": map[string]any{"currency": "JPY", "value": "4500"}, "unknown": "ignored",
	})
	made := w.object(w.ask(w.test, http.MethodPost, "/v1/checkout/sessions", body), http.StatusOK)
	id, _ := made["checkout_session"].(string)
	read := w.object(w.ask(w.test, http.MethodGet, at(id), ""), http.StatusOK)
	if read["id"] != id || read["used"] != false {
		t.Errorf("read: %v", read)
	}
	delete(read, "id")
	delete(read, "used")
	delete(made, "checkout_session")
	if fmt.Sprint(read) != fmt.Sprint(made) {
		t.Errorf("made was %v, read %v", made, read)
	}
	for name, want := range map[string]any{
		"merchant_order_id": "order-1", "payment_description": "Two tickets", "country": "US", "customer_id": customer,
		"callback_url": "https://shop.example/thanks?a=b", "workflow": "SDK_CHECKOUT", "checkout_id": "mine", "amount": "map[currency:JPY value:4500]",
		"metadata": "[map[key:k value:v]]", "alternative_amount": "map[currency:EUR value:1.5]", "recurring_payment": "map[any:true]",
		"installments": "map[plan:<nil> plan_id:<nil>]",
	} {
		if fmt.Sprint(made[name]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", name, made[name], want)
		}
	}
	if n := w.count(`SELECT count(*) FROM checkout_sessions WHERE expires_at = created_at + interval '5 hours' AND created_at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp()`); n != 1 {
		t.Error("it does not last for five hours by the database's clock")
	}
}

// A browser needs an amount and a name, and nothing that is the merchant's own.
func TestBrowserIsToldWhatItsPageShows(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", map[string]any{
		"customer_id": w.shopper("shopper-1"), "metadata": []any{map[string]any{"key": "k", "value": "hidden"}}, "recurring_payment": map[string]any{"hidden": 1},
	})
	r := w.ask(browser(w.test), http.MethodGet, at(id), "")
	got := w.object(r, http.StatusOK)
	want := []string{"amount", "callback_url", "country", "created_at", "expires_at", "id", "live", "merchant_name", "merchant_order_id", "payment_description", "used", "workflow"}
	for _, name := range want {
		if _, told := got[name]; !told {
			t.Errorf("%s is not told", name)
		}
	}
	if len(got) != len(want) || strings.Contains(string(r.body), "hidden") || got["merchant_name"] != "Corner shop" || got["live"] != false || got["used"] != false {
		t.Errorf("told was %s", r.body)
	}
	w.object(w.paySession(id, w.tokenFor(id, goodCard), nonce()), http.StatusCreated)
	if got := w.object(w.ask(browser(w.test), http.MethodGet, at(id), ""), http.StatusOK); got["used"] != true {
		t.Error("a paid session is told as free")
	}
}

func TestEachRuleOfASession(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	money := func(currency, value string) map[string]any {
		return map[string]any{"amount": map[string]any{"currency": currency, "value": value}}
	}
	for _, c := range []struct {
		changes map[string]any
		code    string
		message string
	}{
		{map[string]any{"account_id": nil}, "MISSING_PARAMETERS", "$.account_id is required"},
		{map[string]any{"account_id": uuid.NewString()}, "INVALID_ACCOUNT_ID", "$.account_id must be the account of the API key"},
		{map[string]any{"merchant_order_id": nil}, "MISSING_PARAMETERS", "$.merchant_order_id is required"},
		{map[string]any{"merchant_order_id": "ab"}, "INVALID_PARAMETERS", "$.merchant_order_id must have 3 to 255 characters"},
		{map[string]any{"payment_description": nil}, "MISSING_PARAMETERS", "$.payment_description is required"},
		{map[string]any{"country": nil}, "MISSING_PARAMETERS", "$.country is required"},
		{map[string]any{"country": "XX"}, "COUNTRY_NOT_SUPPORTED", "$.country must be an ISO 3166-1 alpha-2 country code in capitals"},
		{map[string]any{"amount": nil}, "MISSING_PARAMETERS", "$.amount is required"},
		{money("USD", "0"), "INVALID_AMOUNT", "$.amount.value must be"},
		{money("USD", "-1"), "INVALID_AMOUNT", "$.amount.value must"},
		{money("USD", "1.001"), "INVALID_AMOUNT", "$.amount.value must not have more decimal places than its currency"},
		{money("JPY", "1.5"), "INVALID_AMOUNT", "$.amount.value must not have more decimal places than its currency"},
		{money("USD", "10000000000"), "INVALID_AMOUNT", "$.amount.value must be"},
		{money("XXX", "1"), "CURRENCY_NOT_ALLOWED", "$.amount.currency must be"},
		{map[string]any{"workflow": "DIRECT"}, "INVALID_PARAMETERS", "$.workflow must be SDK_CHECKOUT or SDK_SEAMLESS"},
		{map[string]any{"workflow": 1}, "INVALID_PARAMETERS", "$.workflow must be SDK_CHECKOUT or SDK_SEAMLESS"},
		{map[string]any{"callback_url": "javascript:alert(1)"}, "INVALID_PARAMETERS", "$.callback_url must be an http or https URL with a host and without a user"},
		{map[string]any{"callback_url": "https://user@shop.example"}, "INVALID_PARAMETERS", "$.callback_url must be an http or https URL with a host and without a user"},
		{map[string]any{"callback_url": "/thanks"}, "INVALID_PARAMETERS", "$.callback_url must be an http or https URL with a host and without a user"},
		{map[string]any{"customer_id": "shopper-1"}, "INVALID_PARAMETERS", "$.customer_id must be a UUID of 36 characters"},
		{map[string]any{"customer_id": uuid.NewString()}, "CUSTOMER_NOT_FOUND", "$.customer_id must be a customer of this account"},
		{map[string]any{"metadata": map[string]any{}}, "INVALID_PARAMETERS", "$.metadata must be an array of at most 120 pairs of key and value"},
		{map[string]any{"alternative_amount": 1}, "INVALID_PARAMETERS", "$.alternative_amount must be an object"},
		{map[string]any{"recurring_payment": map[string]any{"long": strings.Repeat("x", 65_536)}}, "INVALID_PARAMETERS", "$.recurring_payment must have at most 65536 bytes"},
		{map[string]any{"checkout_id": strings.Repeat("x", 256)}, "INVALID_PARAMETERS", "$.checkout_id must have 0 to 255 characters"},
	} {
		r := w.ask(w.test, http.MethodPost, "/v1/checkout/sessions", w.checkoutBody("order-1", c.changes), idem.Header, "nonce-1")
		if got := w.refused(r, http.StatusBadRequest, c.code); !strings.HasPrefix(got, c.message) {
			t.Errorf("%v: %s, want %s", c.changes, got, c.message)
		}
	}
	w.refused(w.ask(w.test, http.MethodPost, "/v1/checkout/sessions", `[]`), http.StatusBadRequest, "INVALID_REQUEST")
	if n := w.count(`SELECT (SELECT count(*) FROM checkout_sessions) + (SELECT count(*) FROM idempotency_keys)`); n != 0 {
		t.Errorf("%d rows are left of what was refused", n)
	}
}

func TestSessionIsChangedWhereSomethingIsSaid(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", map[string]any{
		"callback_url": "https://shop.example", "customer_id": w.shopper("shopper-1"), "metadata": []any{map[string]any{"key": "k", "value": "v"}}, "checkout_id": "mine",
	})
	before := w.object(w.ask(w.test, http.MethodGet, at(id), ""), http.StatusOK)
	w.object(w.ask(w.test, http.MethodPatch, at(id), `{}`), http.StatusOK)
	if after := w.object(w.ask(w.test, http.MethodGet, at(id), ""), http.StatusOK); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("nothing was said, and %v became %v", before, after)
	}
	changed := w.object(w.ask(w.test, http.MethodPatch, at(id), `{"amount":{"currency":"EUR","value":1.5},"merchant_order_id":"order-2","payment_description":"One ticket",
		"country":"DE","workflow":"SDK_CHECKOUT","callback_url":null,"customer_id":null,"metadata":null}`), http.StatusOK)
	for name, want := range map[string]any{
		"checkout_session": id, "amount": "map[currency:EUR value:1.5]", "merchant_order_id": "order-2", "payment_description": "One ticket", "country": "DE",
		"workflow": "SDK_CHECKOUT", "callback_url": nil, "customer_id": nil, "metadata": nil, "checkout_id": "mine", "expires_at": before["expires_at"],
	} {
		if fmt.Sprint(changed[name]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", name, changed[name], want)
		}
	}
	for body, code := range map[string]string{
		`{"amount":{"currency":"USD","value":0}}`: "INVALID_AMOUNT", `{"merchant_order_id":null}`: "MISSING_PARAMETERS", `{"amount":null}`: "MISSING_PARAMETERS",
		`{"customer_id":"` + uuid.NewString() + `"}`: "CUSTOMER_NOT_FOUND", `{"account_id":"` + uuid.NewString() + `"}`: "INVALID_ACCOUNT_ID", `1`: "INVALID_REQUEST",
	} {
		w.refused(w.ask(w.test, http.MethodPatch, at(id), body), http.StatusBadRequest, code)
	}
	w.refused(w.ask(browser(w.test), http.MethodPatch, at(id), `{"amount":{"currency":"USD","value":0.01}}`), http.StatusUnauthorized, "INVALID_CREDENTIALS")
}

func TestSessionWithAPaymentStaysAsItIs(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	for description, free := range map[string]bool{"Two tickets": false, "sandbox:challenge": false, "INSUFFICIENT_FUNDS": true, "sandbox:reject": true, "sandbox:500": false} {
		id := w.checkout("order of "+description, map[string]any{"payment_description": description})
		card := "4507990000009999" // of no outcome of its own
		w.paySession(id, w.tokenFor(id, card), nonce())
		r := w.ask(w.test, http.MethodPatch, at(id), `{"amount":{"currency":"USD","value":1}}`)
		if free {
			w.object(r, http.StatusOK)
			continue
		}
		w.refused(r, http.StatusBadRequest, "INVALID_STATUS")
		if got := w.object(w.ask(w.test, http.MethodGet, at(id), ""), http.StatusOK); got["used"] != true || fmt.Sprint(got["amount"]) != "map[currency:USD value:45.67]" {
			t.Errorf("%s: it became %v", description, got)
		}
	}
}

func TestSessionEndsByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", nil)
	token := w.tokenFor(id, goodCard)
	paid := w.object(w.paySession(id, token, nonce()), http.StatusCreated)
	w.end("checkout_sessions", id)
	for _, pair := range []merchants.KeyPair{w.test, browser(w.test)} {
		w.refused(w.ask(pair, http.MethodGet, at(id), ""), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		w.refused(w.ask(pair, http.MethodGet, at(id)+"/payment-methods", ""), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		if got := w.object(w.ask(pair, http.MethodGet, at(id)+"/payment", ""), http.StatusOK); got["id"] != paid["id"] {
			t.Errorf("its payment is told as %v", got)
		}
	}
	w.refused(w.ask(w.test, http.MethodPatch, at(id), `{}`), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	w.refused(w.ask(w.test, http.MethodPost, at(id)+"/token", addCard(cardJSON(goodCard))), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
}

func TestSessionsOfMerchantsAndModesAreApart(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	_, stranger := w.merchant()
	id := w.checkout("order-1", nil)
	for _, pair := range []merchants.KeyPair{w.live, stranger, browser(w.live), browser(stranger)} {
		w.refused(w.ask(pair, http.MethodGet, at(id), ""), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		w.refused(w.ask(pair, http.MethodGet, at(id)+"/payment-methods", ""), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		w.refused(w.ask(pair, http.MethodGet, at(id)+"/payment", ""), http.StatusBadRequest, "PAYMENT_NOT_FOUND")
		w.refused(w.ask(pair, http.MethodPost, at(id)+"/token", addCard(cardJSON(goodCard))), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		if pair.PrivateSecretKey != "" {
			w.refused(w.ask(pair, http.MethodPatch, at(id), `{}`), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		}
	}
	for _, none := range []string{"x", uuid.NewString(), uuid.Nil.String(), strings.ReplaceAll(id, "-", "")} {
		w.refused(w.ask(w.test, http.MethodGet, at(none), ""), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		w.refused(w.ask(w.test, http.MethodPatch, at(none), `{}`), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		w.refused(w.ask(w.test, http.MethodGet, at(none)+"/payment", ""), http.StatusBadRequest, "PAYMENT_NOT_FOUND")
	}
}

// Keys are optional where no money moves; where one is sent, the first answer is the answer.
func TestNonceOfASessionIsToldTheFirstAnswer(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	create := func(order string) reply {
		return w.ask(w.test, http.MethodPost, "/v1/checkout/sessions", w.checkoutBody(order, nil), idem.Header, "nonce-1")
	}
	first := create("order-1")
	id := fmt.Sprint(w.object(first, http.StatusOK)["checkout_session"])
	patch := func(amount string) reply {
		return w.ask(w.test, http.MethodPatch, at(id), `{"amount":{"currency":"USD","value":`+amount+`}}`, idem.Header, "nonce-2")
	}
	changed := patch("2")
	w.object(changed, http.StatusOK)
	w.object(w.ask(w.test, http.MethodPatch, at(id), `{"amount":{"currency":"USD","value":3}}`), http.StatusOK)
	for name, again := range map[string]struct {
		first, r reply
		differs  bool
	}{"made": {first, create("order-1"), false}, "made otherwise": {first, create("order-2"), true}, "changed": {changed, patch("2"), false}, "changed otherwise": {changed, patch("4"), true}} {
		if again.r.status != again.first.status || string(again.r.body) != string(again.first.body) || again.r.header.Get("Idempotent-Replayed") != "true" ||
			(again.r.header.Get("Idempotency-Body-Mismatch") == "true") != again.differs {
			t.Errorf("%s: told again was %d %v %s", name, again.r.status, again.r.header, again.r.body)
		}
	}
	if got := w.object(w.ask(w.test, http.MethodGet, at(id), ""), http.StatusOK); fmt.Sprint(got["amount"]) != "map[currency:USD value:3]" {
		t.Errorf("a replay changed it: %v", got)
	}
	if n := w.count(`SELECT count(*) FROM checkout_sessions`); n != 1 {
		t.Errorf("there are %d sessions", n)
	}
	other := w.checkout("order-3", nil)
	w.refused(w.ask(w.test, http.MethodPatch, at(other), `{}`, idem.Header, "nonce-2"), http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
}

// One nonce is one operation, whether money moves there or not, in either order.
func TestNonceOfWhatMovesNoMoneyIsNoPaymentsAndTheOtherWayRound(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	session := w.checkout("order-1", nil)
	token := w.tokenFor(session, goodCard)
	w.object(w.ask(w.test, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"a"}`, idem.Header, "nonce-1"), http.StatusCreated)
	w.refused(w.backendPays("order-1", session, token, "45.67", "nonce-1"), http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	if n := w.charges("order-1"); n != 0 {
		t.Errorf("charged %d times", n)
	}
	w.object(w.backendPays("order-1", session, token, "45.67", "nonce-2"), http.StatusCreated)
	for path, body := range map[string]string{
		"/v1/customers": `{"merchant_customer_id":"b"}`, "/v1/checkout/sessions": w.checkoutBody("order-2", nil), "/v1/tokens": w.directToken(goodCard),
	} {
		w.refused(w.ask(w.test, http.MethodPost, path, body, idem.Header, "nonce-2"), http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	}
}

func TestWaysToPayASession(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	list := func(pair merchants.KeyPair, id, query string) (all []map[string]any) {
		t.Helper()
		r := w.ask(pair, http.MethodGet, at(id)+"/payment-methods"+query, "")
		if r.status != http.StatusOK || json.Unmarshal(r.body, &all) != nil {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return all
	}
	customer := w.shopper("shopper-1")
	id := w.checkout("order-1", map[string]any{"customer_id": customer})
	if all := list(w.test, id, ""); len(all) != 1 || all[0]["vaulted_token"] != nil || all[0]["type"] != "CARD" {
		t.Errorf("without a kept card: %v", all)
	}
	token := fmt.Sprint(w.object(w.ask(browser(w.test), http.MethodPost, at(id)+"/token",
		`{"payment_method":{"type":"CARD","vault_on_success":true,"card":`+cardJSON(goodCard)+`}}`), http.StatusCreated)["token"])
	paid := w.object(w.paySession(id, token, nonce()), http.StatusCreated)
	method, _ := paid["payment_method"].(map[string]any)
	second := w.checkout("order-2", map[string]any{"customer_id": customer})
	all := list(w.test, second, "?category=CARD")
	if len(all) != 2 || all[0]["vaulted_token"] != method["vaulted_token"] || all[0]["last_successfully_used"] != true || all[1]["vaulted_token"] != nil {
		t.Errorf("with a kept card: %v", all)
	}
	if all := list(browser(w.test), second, ""); len(all) != 1 || all[0]["vaulted_token"] != nil {
		t.Errorf("to a browser: %v", all)
	}
	if all := list(w.test, second, "?category=CASH"); len(all) != 0 {
		t.Errorf("of another category: %v", all)
	}
}
