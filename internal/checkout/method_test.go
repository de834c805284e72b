package checkout

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/transactions"
)

// shopper makes a customer.
func (w *till) shopper(name string) string {
	w.t.Helper()
	return fmt.Sprint(w.object(w.ask(w.test, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"`+name+`"}`), http.StatusCreated)["id"])
}

// customerSession makes a session in which a customer adds cards.
func (w *till) customerSession(customer string) string {
	w.t.Helper()
	return fmt.Sprint(w.object(w.ask(w.test, http.MethodPost, "/v1/customers/sessions", w.sessionBody(customer)), http.StatusCreated)["customer_session"])
}

func (w *till) sessionBody(customer string) string {
	return `{"account_id":"` + w.account.String() + `","customer_id":"` + customer + `","country":"UY","callback_url":"https://shop.example/cards","checkout_id":"c-1"}`
}

// enrolBody is a card as a merchant's backend hands it in.
func (w *till) enrolBody(number string) string {
	return `{"account_id":"` + w.account.String() + `","country":"US","type":"CARD","workflow":"DIRECT","card_data":` + cardJSON(number) + `}`
}

// browserNonce is one as browsers draw it.
const browserNonce = "7b0f3c1e-5a7d-4a57-9f0e-3f1c2d6b8a90"

// addCard is what a browser sends.
func addCard(card string) string { return `{"payment_method":{"type":"CARD","card":` + card + `}}` }

func sessionCards(session string) string {
	return "/v1/customers/sessions/" + session + "/payment-methods"
}

func cards(customer string) string { return "/v1/customers/" + customer + "/payment-methods" }

// keep keeps a card for a customer.
func (w *till) keep(customer, number string) map[string]any {
	w.t.Helper()
	return w.object(w.ask(w.test, http.MethodPost, cards(customer), w.enrolBody(number)), http.StatusCreated)
}

// kept are a customer's cards, as they are listed.
func (w *till) kept(customer, query string) (all []map[string]any, link string) {
	w.t.Helper()
	r := w.ask(w.test, http.MethodGet, cards(customer)+query, "")
	if err := json.Unmarshal(r.body, &all); err != nil || r.status != http.StatusOK {
		w.t.Fatalf("it answered %d: %s", r.status, r.body)
	}
	return all, r.header.Get("Link")
}

// payWith makes a payment with a vaulted token.
func (w *till) payWith(token any, order string) reply {
	w.t.Helper()
	return w.ask(w.test, http.MethodPost, "/v1/payments", fmt.Sprintf(`{"account_id":%q,"merchant_order_id":%q,"description":"A card that is kept","country":"US",
		"amount":{"currency":"USD","value":5},"workflow":"DIRECT","payment_method":{"vaulted_token":"%s"}}`, w.account, order, token), idem.Header, uuid.NewString())
}

func TestCustomerSessionIsToldAsItWasMade(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	first := w.ask(w.test, http.MethodPost, "/v1/customers/sessions", w.sessionBody(customer), idem.Header, "nonce-1")
	cs := w.object(first, http.StatusCreated)
	for name, want := range map[string]any{
		"customer_id": customer, "country": "UY", "callback_url": "https://shop.example/cards", "checkout_id": "c-1",
	} {
		if cs[name] != want {
			t.Errorf("%s is %v, want %v", name, cs[name], want)
		}
	}
	if again := w.ask(w.test, http.MethodPost, "/v1/customers/sessions", w.sessionBody(customer), idem.Header, "nonce-1"); string(again.body) != string(first.body) {
		t.Errorf("a retry is told %s", again.body)
	}
	if n := w.count(`SELECT count(*) FROM customer_sessions WHERE expires_at = created_at + interval '5 hours'`); n != 1 {
		t.Errorf("%d sessions were made", n)
	}
}

func TestCustomerSessionRefusesWhatItCannotBe(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer, account := w.shopper("shopper-1"), w.account.String()
	for body, want := range map[string][2]string{
		`[]`: {"INVALID_REQUEST", "$ "},
		`{"customer_id":"` + customer + `","country":"UY"}`:                                                            {"MISSING_PARAMETERS", "$.account_id "},
		`{"account_id":"` + account + `","country":"UY"}`:                                                              {"MISSING_PARAMETERS", "$.customer_id "},
		`{"account_id":"` + account + `","customer_id":"x","country":"UY"}`:                                            {"INVALID_PARAMETERS", "$.customer_id "},
		`{"account_id":"` + account + `","customer_id":"` + customer + `"}`:                                            {"MISSING_PARAMETERS", "$.country "},
		`{"account_id":"` + account + `","customer_id":"` + customer + `","country":"UY","callback_url":"data:,"}`:     {"INVALID_PARAMETERS", "$.callback_url "},
		`{"account_id":"` + account + `","customer_id":"` + uuid.NewString() + `","country":"UY"}`:                     {"CUSTOMER_NOT_FOUND", "there is no customer"},
		`{"account_id":"` + uuid.NewString() + `","customer_id":"` + customer + `","country":"UY","checkout_id":"c1"}`: {"INVALID_ACCOUNT_ID", "$.account_id "},
	} {
		if said := w.refused(w.ask(w.test, http.MethodPost, "/v1/customers/sessions", body), http.StatusBadRequest, want[0]); !strings.Contains(said, want[1]) {
			t.Errorf("%s: %s", body, said)
		}
	}
	r := w.ask(w.live, http.MethodPost, "/v1/customers/sessions", w.sessionBody(customer))
	w.refused(r, http.StatusBadRequest, "CUSTOMER_NOT_FOUND") // who is one of test mode
	if n := w.count(`SELECT count(*) FROM customer_sessions`); n != 0 {
		t.Errorf("%d sessions were made", n)
	}
}

func TestBrowserAddsACardForItsCustomer(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	session := w.customerSession(customer)
	r := w.ask(browser(w.test), http.MethodGet, "/v1/checkout/customers/sessions/"+session+"/payment-methods", "")
	var offered []map[string]any
	if err := json.Unmarshal(r.body, &offered); err != nil || len(offered) != 1 || offered[0]["type"] != "CARD" || offered[0]["status"] != "READY_TO_ENROLL" {
		t.Errorf("it is offered %d %s", r.status, r.body)
	}
	first := w.ask(browser(w.test), http.MethodPost, sessionCards(session), addCard(cardJSON(goodCard)), idem.Header, browserNonce)
	m := w.object(first, http.StatusCreated)
	card, _ := m["card_data"].(map[string]any)
	for name, want := range map[string]any{
		"status": "ENROLLED", "type": "CARD", "category": "CARD", "country": "UY", "customer_id": customer, "name": "VISA ****1111",
		"vaulted_token": m["id"], "last_successfully_used": false, "last_successfully_used_at": nil,
	} {
		if m[name] != want {
			t.Errorf("%s is %v, want %v", name, m[name], want)
		}
	}
	if card["iin"] != "41111111" || card["lfd"] != "1111" || card["fingerprint"] != nil {
		t.Errorf("of the card it is told %v", card)
	}
	if again := w.ask(browser(w.test), http.MethodPost, sessionCards(session), addCard(cardJSON(goodCard)), idem.Header, browserNonce); string(again.body) != string(first.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a retry is told %d %s", again.status, again.body)
	}
	listed, _ := w.kept(customer, "")
	card, _ = listed[0]["card_data"].(map[string]any)
	if len(listed) != 1 || listed[0]["id"] != m["id"] || len(fmt.Sprint(card["fingerprint"])) != 32 {
		t.Errorf("its merchant is told %v", listed)
	}
	for _, path := range []string{cards(customer) + "/" + fmt.Sprint(m["id"]), "/v1/payment-methods/" + fmt.Sprint(m["id"])} {
		if got := w.object(w.ask(w.test, http.MethodGet, path, ""), http.StatusOK); !reflect.DeepEqual(got, listed[0]) {
			t.Errorf("%s is %v\nwant %v", path, got, listed[0])
		}
	}
	if n := w.count(`SELECT count(*) FROM payment_methods m WHERE m::text LIKE '%' || $1::text || '%' OR provider_token = ''`, goodCard); n != 0 {
		t.Error("the card's number is kept, or not the provider's token")
	}
	if said := w.logs.String(); strings.Contains(said, goodCard) || strings.Contains(said, "John Doe") {
		t.Error("the card is in the log")
	}
}

func TestKeptCardPaysUntilItIsLetGo(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	m := w.keep(customer, goodCard)
	if p := w.object(w.payWith(m["vaulted_token"], "order-1"), http.StatusCreated); p["status"] != "SUCCEEDED" {
		t.Fatalf("the payment is %v", p["status"])
	}
	got := w.object(w.ask(w.test, http.MethodGet, cards(customer)+"/"+fmt.Sprint(m["id"]), ""), http.StatusOK)
	if got["last_successfully_used"] != true || got["last_successfully_used_at"] == nil {
		t.Errorf("it is %v", got)
	}
	unenrol := cards(customer) + "/" + fmt.Sprint(m["id"]) + "/unenroll"
	first := w.ask(w.test, http.MethodPost, unenrol, "", idem.Header, "nonce-1")
	if u := w.object(first, http.StatusOK); u["status"] != "UNENROLLED" || u["vaulted_token"] != nil || u["id"] != m["id"] {
		t.Errorf("it is %v", u)
	}
	if again := w.ask(w.test, http.MethodPost, unenrol, "", idem.Header, "nonce-1"); string(again.body) != string(first.body) {
		t.Errorf("a retry is told %s", again.body)
	}
	short := fmt.Sprintf("/v1/customers/payment-methods/%s/unenroll", m["id"])
	if again := w.object(w.ask(w.test, http.MethodPost, short, ""), http.StatusOK); again["status"] != "UNENROLLED" {
		t.Errorf("once more it is %v", again)
	}
	w.refused(w.payWith(m["id"], "order-2"), http.StatusUnauthorized, "INVALID_TOKEN")
	if listed, _ := w.kept(customer, ""); len(listed) != 0 || w.count(`SELECT count(*) FROM payment_methods WHERE provider_token <> ''`) != 0 {
		t.Errorf("it is still there: %v", listed)
	}
	if again := w.keep(customer, goodCard); again["id"] == m["id"] || again["status"] != "ENROLLED" {
		t.Errorf("kept anew it is %v", again)
	}
}

// The same card is the same kept card, with what the customer has said of it last.
func TestCardThatIsKeptAlreadyIsNotKeptTwice(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer, other := w.shopper("shopper-1"), w.shopper("shopper-2")
	first := w.keep(customer, goodCard)
	renewed := strings.Replace(cardJSON(goodCard), `"expiration_year":28`, `"expiration_year":31`, 1)
	again := w.object(w.ask(browser(w.test), http.MethodPost, sessionCards(w.customerSession(customer)), addCard(renewed)), http.StatusCreated)
	card, _ := again["card_data"].(map[string]any)
	if again["id"] != first["id"] || again["created_at"] != first["created_at"] || fmt.Sprint(card["expiration_year"]) != "31" {
		t.Errorf("it is %v, and was %v", again, first)
	}
	for name, m := range map[string]map[string]any{"another card": w.keep(customer, otherCard), "another customer's": w.keep(other, goodCard)} {
		if m["id"] == first["id"] {
			t.Errorf("%s is taken for the same", name)
		}
	}
	if listed, _ := w.kept(customer, ""); len(listed) != 2 {
		t.Errorf("the customer has %d cards", len(listed))
	}
	if p := w.object(w.payWith(first["id"], "order-1"), http.StatusCreated); p["status"] != "SUCCEEDED" {
		t.Errorf("the payment is %v", p["status"])
	}
}

func TestCardThatManyAddAtOnceIsKeptOnce(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	var mu sync.Mutex
	ids := map[any]int{}
	together(20, func(int) {
		r, err := w.send(w.test, http.MethodPost, cards(customer), w.enrolBody(goodCard))
		var m map[string]any
		if err != nil || r.status != http.StatusCreated || json.Unmarshal(r.body, &m) != nil {
			t.Errorf("%d %s, %v", r.status, r.body, err)
		}
		mu.Lock()
		defer mu.Unlock()
		ids[m["id"]]++
	})
	if len(ids) != 1 || w.count(`SELECT count(*) FROM payment_methods`) != 1 {
		t.Errorf("it is kept as %v", ids)
	}
}

// While the installation's secret is being changed, a card has two fingerprints.
func TestCardIsTheSameUnderTheOtherSecret(t *testing.T) {
	t.Parallel()
	other := []byte("the secret that it was before: 32 bytes")
	w := newTillWith(t, other)
	prints, err := idem.NewFingerprinter(other, nil)
	if err != nil {
		t.Fatal(err)
	}
	customer := w.shopper("shopper-1")
	m := w.keep(customer, goodCard)
	w.sql(`UPDATE payment_methods SET card = jsonb_set(card::jsonb, '{fingerprint}', to_jsonb($1::text))::text`, prints.Card(goodCard))
	again := w.keep(customer, goodCard)
	card, _ := again["card_data"].(map[string]any)
	if again["id"] != m["id"] || card["fingerprint"] == prints.Card(goodCard) {
		t.Errorf("it is %v", again)
	}
}

// A token can be charged only where it was made: after a change of provider the same card
// has another.
func TestCardOfAnotherProviderIsAnother(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	m := w.keep(customer, goodCard)
	w.sql(`UPDATE payment_methods SET provider = 'ANOTHER'`)
	if again := w.keep(customer, goodCard); again["id"] == m["id"] {
		t.Error("its token is another provider's")
	}
}

func TestOneTimeTokenIsUsedUpByKeepingItsCard(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	token := w.backendToken()
	body := `{"account_id":"` + w.account.String() + `","token":"` + token + `"}`
	first := w.ask(w.test, http.MethodPost, cards(customer), body, idem.Header, "nonce-1")
	m := w.object(first, http.StatusCreated)
	if m["status"] != "ENROLLED" || m["country"] != nil {
		t.Errorf("it is %v", m)
	}
	if again := w.ask(w.test, http.MethodPost, cards(customer), body, idem.Header, "nonce-1"); string(again.body) != string(first.body) {
		t.Errorf("a retry is told %d %s", again.status, again.body)
	}
	w.refused(w.ask(w.test, http.MethodPost, cards(customer), body), http.StatusUnauthorized, "TOKEN_IN_USE")
	r := w.ask(w.test, http.MethodPost, "/v1/payments", fmt.Sprintf(`{"account_id":%q,"merchant_order_id":"order-1","description":"A token","country":"US",
		"amount":{"currency":"USD","value":5},"workflow":"DIRECT","payment_method":{"token":%q}}`, w.account, token), idem.Header, uuid.NewString())
	w.refused(r, http.StatusUnauthorized, "INVALID_TOKEN")
	if p := w.object(w.payWith(m["id"], "order-2"), http.StatusCreated); p["status"] != "SUCCEEDED" {
		t.Errorf("the payment is %v", p["status"])
	}
	other := `{"account_id":"` + w.account.String() + `","payment_method":{"token":"` + w.backendToken() + `"}}`
	if same := w.object(w.ask(w.test, http.MethodPost, cards(customer), other), http.StatusCreated); same["id"] != m["id"] {
		t.Errorf("the same card is %v", same["id"])
	}
}

func TestTokenThatIsNotForThisCustomerKeepsNothing(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer, other := w.shopper("shopper-1"), w.shopper("shopper-2")
	sn := w.object(w.ask(w.test, http.MethodPost, "/v1/checkout/sessions", fmt.Sprintf(`{"account_id":%q,"merchant_order_id":"order-1","payment_description":"Invoice 77",
		"country":"UY","amount":{"currency":"USD","value":5},"customer_id":%q,"workflow":"SDK_SEAMLESS"}`, w.account, other)), http.StatusOK)
	session := fmt.Sprint(sn["checkout_session"])
	theirs, used, old := w.tokenFor(session, goodCard), w.tokenFor(session, goodCard), w.backendToken()
	w.object(w.paySession(session, used, uuid.NewString()), http.StatusCreated)
	w.sql(`UPDATE one_time_tokens SET expires_at = clock_timestamp() WHERE id = $1::uuid`, old)
	for token, want := range map[string]struct {
		status int
		code   string
	}{
		theirs: {http.StatusBadRequest, "INVALID_CUSTOMER_FOR_TOKEN"}, used: {http.StatusUnauthorized, "TOKEN_IN_USE"},
		old: {http.StatusUnauthorized, "INVALID_TOKEN"}, uuid.NewString(): {http.StatusUnauthorized, "INVALID_TOKEN"},
		"x": {http.StatusUnauthorized, "INVALID_TOKEN"}, uuid.Nil.String(): {http.StatusUnauthorized, "INVALID_TOKEN"},
	} {
		body := `{"account_id":"` + w.account.String() + `","token":"` + token + `"}`
		w.refused(w.ask(w.test, http.MethodPost, cards(customer), body), want.status, want.code)
	}
	if n := w.count(`SELECT count(*) FROM payment_methods`); n != 0 {
		t.Errorf("%d cards are kept", n)
	}
	w.object(w.ask(w.test, http.MethodPost, cards(other), `{"account_id":"`+w.account.String()+`","token":"`+theirs+`"}`), http.StatusCreated) // still good
}

func TestEnrolmentRefusesWhatIsNoCard(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	session, account := w.customerSession(customer), w.account.String()
	for _, c := range []struct{ path, body, code, message string }{
		{cards(customer), `[]`, "INVALID_REQUEST", "$ "},
		{cards(customer), `{"card_data":` + cardJSON(goodCard) + `}`, "MISSING_PARAMETERS", "$.account_id "},
		{cards(customer), `{"account_id":"` + account + `"}`, "MISSING_PARAMETERS", "$.card_data "},
		{cards(customer), `{"account_id":"` + account + `","type":"PIX","card_data":` + cardJSON(goodCard) + `}`, "UNAVAILABLE_PAYMENT_METHOD", "$.type "},
		{cards(customer), `{"account_id":"` + account + `","country":"uy","card_data":` + cardJSON(goodCard) + `}`, "COUNTRY_NOT_SUPPORTED", "$.country "},
		{cards(customer), `{"account_id":"` + account + `","verify":{"vault_on_success":true},"card_data":` + cardJSON(goodCard) + `}`, "INVALID_PARAMETERS", "$.verify "},
		{cards(customer), `{"account_id":"` + account + `","token":7}`, "INVALID_PARAMETERS", "$.token "},
		{cards(customer), `{"account_id":"` + account + `","card_data":` + cardJSON("4111") + `}`, "INVALID_PARAMETERS", "$.card_data.number "},
		{sessionCards(session), `{}`, "MISSING_PARAMETERS", "$.card_data "},
		{sessionCards(session), addCard(cardJSON("4111x")), "INVALID_PARAMETERS", "$.payment_method.card.number "},
		{sessionCards(session), `{"payment_method":{"type":"PIX","card":` + cardJSON(goodCard) + `}}`, "UNAVAILABLE_PAYMENT_METHOD", "$.payment_method.type "},
	} {
		r := w.ask(w.test, http.MethodPost, c.path, c.body, idem.Header, "nonce-1")
		if said := w.refused(r, http.StatusBadRequest, c.code); !strings.Contains(said, c.message) || strings.Contains(said, "4111") {
			t.Errorf("%s: %s", c.body, said)
		}
	}
	if n := w.count(`SELECT count(*) FROM payment_methods`) + w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'nonce-1'`); n != 0 {
		t.Error("something was kept of it")
	}
}

func TestCardsOfSomebodyElseAreNotFound(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer, other := w.shopper("shopper-1"), w.shopper("shopper-2")
	id, session := fmt.Sprint(w.keep(customer, goodCard)["id"]), w.customerSession(customer)
	_, stranger := w.merchant()
	notThere := "PAYMENT_METHOD_NOT_FOUND"
	for name, pair := range map[string]merchants.KeyPair{"stranger": stranger, "live mode": w.live} {
		w.refused(w.ask(pair, http.MethodGet, cards(customer), ""), http.StatusBadRequest, "CUSTOMER_NOT_FOUND")
		w.refused(w.ask(pair, http.MethodGet, cards(customer)+"/"+id, ""), http.StatusBadRequest, notThere)
		w.refused(w.ask(pair, http.MethodGet, "/v1/payment-methods/"+id, ""), http.StatusBadRequest, notThere)
		w.refused(w.ask(pair, http.MethodPost, "/v1/customers/payment-methods/"+id+"/unenroll", ""), http.StatusBadRequest, notThere)
		for _, who := range []merchants.KeyPair{pair, browser(pair)} {
			w.refused(w.ask(who, http.MethodPost, sessionCards(session), addCard(cardJSON(goodCard))), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
			w.refused(w.ask(who, http.MethodGet, "/v1/checkout/customers/sessions/"+session+"/payment-methods", ""), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		}
		if n := w.count(`SELECT count(*) FROM payment_methods WHERE status = 'ENROLLED'`); n != 1 {
			t.Errorf("%s: %d cards are kept", name, n)
		}
	}
	for _, path := range []string{cards(other) + "/" + id, cards("x") + "/" + id, cards(customer) + "/x", "/v1/payment-methods/" + uuid.NewString()} {
		w.refused(w.ask(w.test, http.MethodGet, path, ""), http.StatusBadRequest, notThere)
	}
	for _, path := range []string{cards(other) + "/" + id + "/unenroll", cards("x") + "/" + id + "/unenroll", "/v1/customers/payment-methods/x/unenroll"} {
		w.refused(w.ask(w.test, http.MethodPost, path, ""), http.StatusBadRequest, notThere)
	}
	for _, who := range []string{uuid.NewString(), "x"} {
		w.refused(w.ask(w.test, http.MethodPost, cards(who), w.enrolBody(goodCard)), http.StatusBadRequest, "CUSTOMER_NOT_FOUND")
		w.refused(w.ask(w.test, http.MethodGet, cards(who), ""), http.StatusBadRequest, "CUSTOMER_NOT_FOUND")
		w.refused(w.ask(browser(w.test), http.MethodPost, sessionCards(who), addCard(cardJSON(goodCard))), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	}
	r := w.ask(browser(w.test), http.MethodGet, cards(customer), "")
	w.refused(r, http.StatusUnauthorized, "INVALID_CREDENTIALS") // a list is not for browsers
}

func TestExpiredCustomerSessionAddsNoCard(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	session := w.customerSession(w.shopper("shopper-1"))
	first := w.ask(browser(w.test), http.MethodPost, sessionCards(session), addCard(cardJSON(goodCard)), idem.Header, browserNonce)
	w.object(first, http.StatusCreated)
	w.sql(`UPDATE customer_sessions SET expires_at = clock_timestamp()`)
	w.refused(w.ask(browser(w.test), http.MethodPost, sessionCards(session), addCard(cardJSON(otherCard))), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	w.refused(w.ask(browser(w.test), http.MethodGet, "/v1/checkout/customers/sessions/"+session+"/payment-methods", ""), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	again := w.ask(browser(w.test), http.MethodPost, sessionCards(session), addCard(cardJSON(goodCard)), idem.Header, browserNonce)
	if string(again.body) != string(first.body) { // what was answered is told again
		t.Errorf("a retry is told %d %s", again.status, again.body)
	}
}

func TestCardsAreListedByPageTheNewestFirst(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	if none, _ := w.kept(customer, ""); len(none) != 0 {
		t.Errorf("a new customer has %v", none)
	}
	var want []any
	for i := range 5 {
		want = append([]any{w.keep(customer, fmt.Sprintf("411111111111%04d", i))["id"]}, want...)
	}
	var got []any
	query := "?limit=2"
	for pages := 1; ; pages++ {
		page, link := w.kept(customer, query)
		for _, m := range page {
			got = append(got, m["id"])
		}
		if link == "" {
			if pages != 3 {
				t.Errorf("there are %d pages", pages)
			}
			break
		}
		query = link[strings.Index(link, "?"):strings.Index(link, ">")]
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("they are %v, want %v", got, want)
	}
	w.refused(w.ask(w.test, http.MethodGet, cards(customer)+"?limit=0", ""), http.StatusBadRequest, "INVALID_PARAMETERS")
}

func TestCustomerKeepsFiftyCardsAtMost(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	first := w.keep(customer, goodCard)
	for i := 1; i < maxKeptMethods; i++ {
		w.sql(`INSERT INTO payment_methods SELECT account_id, gen_random_uuid(), mode, customer_id, status, country, provider, provider_token,
			jsonb_set(card::jsonb, '{fingerprint}', to_jsonb($2::text))::text, last_used_at, created_at, updated_at
			FROM payment_methods WHERE id = $1::uuid`, first["id"], fmt.Sprint(i))
	}
	w.refused(w.ask(w.test, http.MethodPost, cards(customer), w.enrolBody(otherCard)), http.StatusBadRequest, "INVALID_STATUS")
	if again := w.keep(customer, goodCard); again["id"] != first["id"] {
		t.Error("the card that is kept already is another")
	}
	w.object(w.ask(w.test, http.MethodPost, fmt.Sprintf("/v1/customers/payment-methods/%s/unenroll", first["id"]), ""), http.StatusOK)
	w.keep(customer, otherCard)
}

// A card whose payment was declined was never kept; one whose payment is still to decide
// can be let go of, and stays so.
func TestWhatAPaymentDecidesAboutIsLetGoOfOrNot(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	pay := func(number, description string) map[string]any {
		return w.object(w.ask(w.test, http.MethodPost, "/v1/payments", fmt.Sprintf(`{"account_id":%q,"merchant_order_id":%q,"description":%q,"country":"US",
			"amount":{"currency":"USD","value":5},"workflow":"DIRECT","customer_payer":{"id":%q},"payment_method":{"type":"CARD","vault_on_success":true,
			"detail":{"card":{"card_data":%s}}}}`, w.account, "order-"+number, description, customer, cardJSON(number)), idem.Header, uuid.NewString()), http.StatusCreated)
	}
	status := func() (id, status string) {
		if err := w.db.Conn(t.Context()).Raw(`SELECT id, status FROM payment_methods ORDER BY created_at DESC LIMIT 1`).Row().Scan(&id, &status); err != nil {
			t.Fatal(err)
		}
		return id, status
	}
	pay(declinedCard, "Declined")
	id, is := status()
	if is != "DECLINED" {
		t.Fatalf("the card is %s", is)
	}
	w.refused(w.ask(w.test, http.MethodPost, "/v1/customers/payment-methods/"+id+"/unenroll", ""), http.StatusBadRequest, "INVALID_STATUS")
	p := pay(goodCard, "sandbox:challenge")
	if id, is = status(); is != "ENROLL_IN_PROCESS" {
		t.Fatalf("the card is %s", is)
	}
	if u := w.object(w.ask(w.test, http.MethodPost, "/v1/customers/payment-methods/"+id+"/unenroll", ""), http.StatusOK); u["status"] != "UNENROLLED" {
		t.Errorf("it is %v", u["status"])
	}
	w.decide(p, "1234")
	if _, is = status(); is != "UNENROLLED" {
		t.Errorf("after its payment the card is %s", is)
	}
}

// The provider is away: nothing is kept, and the nonce is free.
func TestCardThatTheProviderDoesNotTakeIsNotKept(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	customer := w.shopper("shopper-1")
	session := w.customerSession(customer)
	w.bank.Close()
	for _, r := range []reply{
		w.ask(w.test, http.MethodPost, cards(customer), w.enrolBody(goodCard), idem.Header, "nonce-1"),
		w.ask(browser(w.test), http.MethodPost, sessionCards(session), addCard(cardJSON(goodCard)), idem.Header, browserNonce),
	} {
		w.refused(r, http.StatusBadGateway, "PROVIDER_ERROR")
		if r.header.Get("Retry-After") == "" {
			t.Error("it does not say when to try again")
		}
	}
	if n := w.count(`SELECT count(*) FROM payment_methods`) + w.count(`SELECT count(*) FROM idempotency_keys`); n != 0 {
		t.Error("something was kept of it")
	}
}

// A customer goes while cards are added for them: none that can be paid with stays behind.
func TestNoCardOutlivesItsCustomer(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	for i := range 10 {
		customer := w.shopper(fmt.Sprintf("shopper-%d", i))
		session := w.customerSession(customer)
		together(8, func(i int) {
			var r reply
			var err error
			switch {
			case i == 4:
				r, err = w.send(w.test, http.MethodDelete, "/v1/customers/"+customer, "")
			case i%2 == 0:
				r, err = w.send(w.test, http.MethodPost, cards(customer), w.enrolBody(fmt.Sprintf("411111111111%04d", i)))
			default:
				r, err = w.send(browser(w.test), http.MethodPost, sessionCards(session), addCard(cardJSON(fmt.Sprintf("411111111111%04d", i))))
			}
			if err != nil || r.status >= http.StatusInternalServerError {
				t.Errorf("it answered %d: %s, %v", r.status, r.body, err)
			}
		})
		if n := w.count(`SELECT count(*) FROM payment_methods WHERE status = 'ENROLLED' OR provider_token <> ''`); n != 0 {
			t.Fatalf("%d cards are left", n)
		}
	}
}

// What is kept of a card is not what we think it is: nobody is told of it.
func TestKeptCardThatCannotBeReadIsNotQuoted(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	m := w.keep(w.shopper("shopper-1"), goodCard)
	pgtest.Exec(t, w.url, `UPDATE payment_methods SET card = '{"lfd":7}'`)
	w.refused(w.ask(w.test, http.MethodGet, fmt.Sprintf("/v1/payment-methods/%s", m["id"]), ""), http.StatusInternalServerError, "INTERNAL_ERROR")
	if _, err := (Method{Card: "{"}).present(true); err == nil {
		t.Error("half an object is a card")
	}
	if got := (&Service{}).fingerprints(handedIn{card: transactions.HandedCard{}}, "{"); got != nil {
		t.Errorf("its fingerprints are %v", got)
	}
}
