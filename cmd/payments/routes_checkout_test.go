package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/google/uuid"
)

// The checkout's routes: whose they are, and which of them a browser may ask with the
// public key alone.

// shopping are one account's checkout things in one mode. Of what a route ends there are
// several.
type shopping struct {
	customer, doomed string // customers
	cards            string // the customer's session in which cards are added
	sessions         [5]string
	tokens           [5]string // of the sessions
	methods          [5]string // kept cards
	links            [3]string
}

// cardNumber is a good Visa number, another one each time.
func cardNumber() string {
	digits := fmt.Sprintf("4%014d", uuid.New().ID())
	sum := 0
	for i, d := range digits {
		n := int(d - '0')
		if i%2 == 0 { // the check digit comes behind
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return digits + strconv.Itoa((10-sum%10)%10)
}

func newCard() string {
	return `{"number":"` + cardNumber() + `","expiration_month":11,"expiration_year":28,"security_code":"123","holder_name":"John Doe"}`
}

func (o owned) sessionBody() string {
	return fmt.Sprintf(`{"account_id":%q,"merchant_order_id":%q,"payment_description":"A test payment","country":"US","workflow":"SDK_SEAMLESS",
		"amount":{"currency":"USD","value":45.67}}`, o.account, o.order)
}

func (o owned) cardsBody() string {
	return fmt.Sprintf(`{"account_id":%q,"customer_id":%q,"country":"US"}`, o.account, o.shop.customer)
}

func (o owned) linkBody() string {
	return fmt.Sprintf(`{"account_id":%q,"merchant_order_id":%q,"description":"A test payment","country":"US","amount":{"currency":"USD","value":45.67},
		"payment_method_types":["CARD"]}`, o.account, o.order)
}

func tokenBody() string { return `{"payment_method":{"type":"CARD","card":` + newCard() + `}}` }

func (o owned) directBody() string {
	return fmt.Sprintf(`{"account_id":%q,"country":"US","type":"CARD","card_data":%s}`, o.account, newCard())
}

// opens gives o what the checkout's routes are about.
func (r *running) opens(o owned) shopping {
	r.t.Helper()
	made := func(member, target, body string) string {
		r.t.Helper()
		a := r.ask(false, http.MethodPost, target, body, o.keys()...)
		var all map[string]any
		if json.Unmarshal(a.body, &all) != nil || a.status >= http.StatusBadRequest {
			r.t.Fatalf("POST %s: got %s", target, a)
		}
		return fmt.Sprint(all[member])
	}
	var s shopping
	s.customer = made("id", "/v1/customers", `{"merchant_customer_id":"mine"}`)
	s.doomed = made("id", "/v1/customers", `{"merchant_customer_id":"doomed"}`)
	o.shop = s
	s.cards = made("customer_session", "/v1/customers/sessions", o.cardsBody())
	for i := range s.sessions {
		s.sessions[i] = made("checkout_session", "/v1/checkout/sessions", o.sessionBody())
		s.tokens[i] = made("token", "/v1/checkout/sessions/"+s.sessions[i]+"/token", tokenBody())
	}
	r.paySession(o, s.sessions[4], s.tokens[4])
	for i := range s.methods {
		s.methods[i] = made("id", "/v1/customers/"+s.customer+"/payment-methods", o.directBody())
	}
	for i := range s.links {
		s.links[i] = made("code", "/v1/payment-links", o.linkBody())
	}
	return s
}

func (r *running) paySession(o owned, session, token string) {
	r.t.Helper()
	if a := r.ask(false, http.MethodPost, "/v1/checkout/sessions/"+session+"/payment", `{"payment_method":{"token":"`+token+`"}}`,
		"public-api-key", o.pair.PublicAPIKey, "X-Idempotency-Key", uuid.NewString()); a.status != http.StatusCreated {
		r.t.Fatalf("a session was not paid: %s", a)
	}
}

// noShopping are things that do not exist.
func noShopping() (s shopping) {
	s.customer, s.doomed, s.cards = uuid.NewString(), uuid.NewString(), uuid.NewString()
	for _, all := range [][]string{s.sessions[:], s.tokens[:], s.methods[:], s.links[:]} {
		for i := range all {
			all[i] = uuid.NewString()
		}
	}
	return s
}

// pays is a browser's payment of one of o's sessions.
func pays(i int) func(o owned) call {
	return func(o owned) call {
		return call{"/v1/checkout/sessions/" + o.shop.sessions[i] + "/payment", `{"payment_method":{"token":"` + o.shop.tokens[i] + `"}}`}
	}
}

func inSession(path, body string) func(o owned) call {
	return func(o owned) call { return call{"/v1/checkout/sessions/" + o.shop.sessions[0] + path, body} }
}

func method(i int, path string) func(o owned) call {
	return func(o owned) call { return call{path + "/" + o.shop.methods[i], ""} }
}

func unenrol(i int, nested bool) func(o owned) call {
	return func(o owned) call {
		path := "/v1/customers/payment-methods/"
		if nested {
			path = "/v1/customers/" + o.shop.customer + "/payment-methods/"
		}
		return call{path + o.shop.methods[i] + "/unenroll", ""}
	}
}

func cancelLink(i int) func(o owned) call {
	return func(o owned) call { return call{"/v1/payment-links/" + o.shop.links[i] + "/cancel", ""} }
}

// checkoutRoutes are those of browsers, and of what belongs to them.
var checkoutRoutes = map[string]route{
	"POST /v1/checkout/sessions": {ask: func(o owned) call { return call{"/v1/checkout/sessions", o.sessionBody()} }, own: 200, foreign: 400, foreignCode: "INVALID_ACCOUNT_ID"},
	"POST /v1/tokens":            {ask: func(o owned) call { return call{"/v1/tokens", o.directBody()} }, own: 201, foreign: 400, foreignCode: "INVALID_ACCOUNT_ID"},
	"POST /v1/payment-links":     {ask: func(o owned) call { return call{"/v1/payment-links", o.linkBody()} }, own: 200, foreign: 400, foreignCode: "INVALID_ACCOUNT_ID"},
	"POST /v1/customers": {
		ask: func(owned) call { return call{"/v1/customers", `{"merchant_customer_id":"` + uuid.NewString() + `"}`} }, own: 201,
	},
	"GET /v1/checkout/sessions/:session":                 {let: either, ask: inSession("", ""), own: 200, foreign: 400, foreignCode: "CHECKOUT_SESSION_NOT_FOUND"},
	"PATCH /v1/checkout/sessions/:session":               {ask: inSession("", "{}"), own: 200, foreign: 400, foreignCode: "CHECKOUT_SESSION_NOT_FOUND"},
	"GET /v1/checkout/sessions/:session/payment-methods": {let: either, ask: inSession("/payment-methods", ""), own: 200, foreign: 400, foreignCode: "CHECKOUT_SESSION_NOT_FOUND"},
	"POST /v1/checkout/sessions/:session/token": {
		let: either, ask: func(o owned) call { return inSession("/token", tokenBody())(o) }, own: 201, foreign: 400, foreignCode: "CHECKOUT_SESSION_NOT_FOUND",
	},
	"POST /v1/checkout/sessions/:session/payment": {let: browsers, ask: pays(1), again: pays(2), own: 201, foreign: 400, foreignCode: "CHECKOUT_SESSION_NOT_FOUND"},
	"GET /v1/checkout/sessions/:session/payment": {let: either, own: 200, foreign: 400, foreignCode: "PAYMENT_NOT_FOUND",
		ask: func(o owned) call { return call{"/v1/checkout/sessions/" + o.shop.sessions[4] + "/payment", ""} }},
	"GET /v1/customers": {ask: func(o owned) call {
		name := "mine"
		if o.shop.cards == "" || o.pair.ID == uuid.Nil {
			name = "nobody's"
		}
		return call{"/v1/customers?merchant_customer_id=" + name, ""}
	}, own: 200},
	"GET /v1/customers/external/:merchant_customer_id": {ask: page("/v1/customers/external/mine"), own: 200},
	"GET /v1/customers/:customer_id": {
		ask: func(o owned) call { return call{"/v1/customers/" + o.shop.customer, ""} }, own: 200, foreign: 400, foreignCode: "CUSTOMER_NOT_FOUND",
	},
	"PATCH /v1/customers/:customer_id": {
		ask: func(o owned) call { return call{"/v1/customers/" + o.shop.customer, "{}"} }, own: 200, foreign: 400, foreignCode: "CUSTOMER_NOT_FOUND",
	},
	"DELETE /v1/customers/:customer_id": {
		ask: func(o owned) call { return call{"/v1/customers/" + o.shop.doomed, ""} }, own: 202, foreign: 400, foreignCode: "CUSTOMER_NOT_FOUND",
	},
	"POST /v1/customers/sessions": {ask: func(o owned) call { return call{"/v1/customers/sessions", o.cardsBody()} }, own: 201, foreign: 400, foreignCode: "INVALID_ACCOUNT_ID"},
	"POST /v1/customers/sessions/:session/payment-methods": {let: either, own: 201, foreign: 400, foreignCode: "CHECKOUT_SESSION_NOT_FOUND",
		ask: func(o owned) call {
			return call{"/v1/customers/sessions/" + o.shop.cards + "/payment-methods", tokenBody()}
		}},
	"GET /v1/checkout/customers/sessions/:session/payment-methods": {let: either, own: 200, foreign: 400, foreignCode: "CHECKOUT_SESSION_NOT_FOUND",
		ask: func(o owned) call {
			return call{"/v1/checkout/customers/sessions/" + o.shop.cards + "/payment-methods", ""}
		}},
	"POST /v1/customers/:customer_id/payment-methods": {own: 201, foreign: 400, foreignCode: "INVALID_ACCOUNT_ID",
		ask: func(o owned) call {
			return call{"/v1/customers/" + o.shop.customer + "/payment-methods", o.directBody()}
		}},
	"GET /v1/customers/:customer_id/payment-methods": {own: 200, foreign: 400, foreignCode: "CUSTOMER_NOT_FOUND",
		ask: func(o owned) call { return call{"/v1/customers/" + o.shop.customer + "/payment-methods", ""} }},
	"GET /v1/customers/:customer_id/payment-methods/:payment_method_id": {own: 200, foreign: 400, foreignCode: "PAYMENT_METHOD_NOT_FOUND",
		ask: func(o owned) call { return method(0, "/v1/customers/"+o.shop.customer+"/payment-methods")(o) }},
	"GET /v1/payment-methods/:payment_method_id": {ask: method(0, "/v1/payment-methods"), own: 200, foreign: 400, foreignCode: "PAYMENT_METHOD_NOT_FOUND"},
	"POST /v1/customers/:customer_id/payment-methods/:payment_method_id/unenroll": {
		ask: unenrol(1, true), again: unenrol(2, true), own: 200, foreign: 400, foreignCode: "PAYMENT_METHOD_NOT_FOUND",
	},
	"POST /v1/customers/payment-methods/:payment_method_id/unenroll": {
		ask: unenrol(3, false), again: unenrol(4, false), own: 200, foreign: 400, foreignCode: "PAYMENT_METHOD_NOT_FOUND",
	},
	"GET /v1/payment-links/:code":         {ask: func(o owned) call { return call{"/v1/payment-links/" + o.shop.links[0], ""} }, own: 200, foreign: 400, foreignCode: "NOT_FOUND"},
	"POST /v1/payment-links/:code/cancel": {ask: cancelLink(1), again: cancelLink(2), own: 200, foreign: 400, foreignCode: "NOT_FOUND"},

	// Pages are for people, who have no keys.
	"GET /pay/:session":          {open: true, ask: page("/pay/unheard-of"), own: 404},
	"GET /pay/assets/:file":      {open: true, ask: page("/pay/assets/unheard-of"), own: 404},
	"GET /pay/link/:code":        {open: true, ask: page("/pay/link/unheard-of"), own: 404},
	"GET /sdk/v1/oncepay.js":     {open: true, ask: page("/sdk/v1/oncepay.js"), own: 200},
	"GET /sdk/v1/oncepay.d.ts":   {open: true, ask: page("/sdk/v1/oncepay.d.ts"), own: 200},
	"GET /sdk/v1/integrity.json": {open: true, ask: page("/sdk/v1/integrity.json"), own: 200},
}
