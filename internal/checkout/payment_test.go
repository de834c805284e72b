package checkout

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers/sandbox"
)

// From the session to the provider's ledger, through every route on the way. What a session
// makes of a payment's ends is shown in package transactions.

func TestSessionIsPaidInBothWays(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	seamless := w.checkout("order-1", map[string]any{"callback_url": "https://shop.example/thanks"})
	token := w.object(w.ask(browser(w.test), http.MethodPost, at(seamless)+"/token", addCard(cardJSON(goodCard))), http.StatusCreated)
	paid := w.object(w.paySession(seamless, fmt.Sprint(token["token"]), nonce()), http.StatusCreated)
	backends := w.checkout("order-2", map[string]any{"workflow": "SDK_CHECKOUT"})
	w.refused(w.paySession(backends, w.tokenFor(backends, goodCard), nonce()), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	charged := w.object(w.backendPays("order-2", backends, w.tokenFor(backends, goodCard), "45.67", "nonce-2"), http.StatusCreated)
	direct := w.object(w.ask(w.test, http.MethodPost, "/v1/tokens", w.directToken(otherCard)), http.StatusCreated)
	third := w.checkout("order-3", nil)
	w.object(w.backendPays("order-3", third, fmt.Sprint(direct["token"]), "45.67", "nonce-3"), http.StatusCreated)
	for order, payment := range map[string]map[string]any{"order-1": paid, "order-2": charged} {
		if payment["status"] != "SUCCEEDED" || w.charges(order) != 1 {
			t.Errorf("%s: charged %d times, told %v", order, w.charges(order), payment["status"])
		}
	}
	if w.charges("order-3") != 1 {
		t.Error("a direct token does not pay a session")
	}
	if paid["workflow"] != "SDK_SEAMLESS" || charged["workflow"] != "SDK_CHECKOUT" || paid["callback_url"] != "https://shop.example/thanks" {
		t.Errorf("told was %v and %v", paid, charged)
	}
}

// Whoever has passed a challenge comes back to the page of the session, which asks what has
// become of it.
func TestChallengeLeadsBackToThePage(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", map[string]any{"payment_description": "sandbox:challenge"})
	token := w.tokenFor(id, "4507990000009999")
	payment := w.object(w.paySession(id, token, nonce()), http.StatusCreated)
	if payment["status"] != "PENDING" || payment["sub_status"] != "WAITING_ADDITIONAL_STEP" || payment["sdk_action_required"] != true {
		t.Fatalf("told was %v", payment)
	}
	w.refused(w.paySession(id, w.tokenForAnybody(goodCard), nonce()), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	w.decide(payment, "1234")
	for _, pair := range []merchants.KeyPair{w.test, browser(w.test)} {
		if got := w.object(w.ask(pair, http.MethodGet, at(id)+"/payment", ""), http.StatusOK); got["status"] != "SUCCEEDED" || got["id"] != payment["id"] {
			t.Errorf("afterwards it is %v", got)
		}
	}
	if w.charges("order-1") != 1 {
		t.Errorf("charged %d times", w.charges("order-1"))
	}
}

func (w *till) tokenForAnybody(number string) string {
	w.t.Helper()
	return fmt.Sprint(w.object(w.ask(w.test, http.MethodPost, "/v1/tokens", w.directToken(number)), http.StatusCreated)["token"])
}

// changeRaces is how often a change and a payment of the same session race.
const changeRaces = 60

// What is charged is what the session said when the payment took it: all of before, or all
// of afterwards.
func TestPaymentRacesAChangeOfItsSession(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	before, after := 0, 0
	for i := range changeRaces {
		order := fmt.Sprintf("race-%d", i)
		id := w.checkout(order, nil)
		token := w.tokenFor(id, goodCard)
		var changed, paid reply
		var errs [2]error
		together(2, func(n int) {
			if n == 0 {
				for range i % 8 { // a payment has more to do before it takes the session
					if _, errs[0] = w.send(w.test, http.MethodGet, at(id), ""); errs[0] != nil {
						return
					}
				}
				changed, errs[0] = w.send(w.test, http.MethodPatch, at(id), `{"amount":{"currency":"EUR","value":12.34},"merchant_order_id":"`+order+`-changed","country":"DE"}`)
			} else {
				paid, errs[1] = w.sendPayment(id, token, nonce())
			}
		})
		if errs[0] != nil || errs[1] != nil {
			t.Fatal(errs)
		}
		payment := w.object(paid, http.StatusCreated)
		read := w.object(w.ask(w.test, http.MethodGet, at(id), ""), http.StatusOK)
		told, _ := payment["amount"].(map[string]any)
		asked, _ := read["amount"].(map[string]any)
		booked, _ := w.ledger.Entries(sandbox.Query{MerchantOrderID: fmt.Sprint(read["merchant_order_id"]), Limit: 10})
		if len(booked) != 1 || told["value"] != asked["value"] || told["currency"] != asked["currency"] || payment["country"] != read["country"] ||
			payment["merchant_order_id"] != read["merchant_order_id"] || fmt.Sprint(booked[0].Amount) != fmt.Sprint(asked["value"]) || booked[0].Currency != asked["currency"] {
			t.Fatalf("the session says %v, the payment %v, the ledger %+v", read, payment, booked)
		}
		if changed.status == http.StatusOK {
			after++
		} else {
			w.refused(changed, http.StatusBadRequest, "INVALID_STATUS")
			before++
		}
		if n := w.charges(order) + w.charges(order+"-changed"); n != 1 {
			t.Fatalf("charged %d times", n)
		}
	}
	if before == 0 || after == 0 {
		t.Errorf("they did not race: paid before the change were %d, after it %d", before, after)
	}
}

// The merchant's policy is between us and its backend. Its shoppers' browsers run our script.
func TestBrowsersFollowOnePolicyWhateverTheMerchantsIs(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	for _, policy := range []string{"novu", "fyno", "ietf"} {
		m, pair, err := w.auth.Create(t.Context(), "Another shop", policy)
		if err != nil {
			t.Fatal(err)
		}
		body := strings.Replace(w.checkoutBody("order-"+policy, nil), w.account.String(), m.AccountID.String(), 1)
		id := fmt.Sprint(w.object(w.ask(pair, http.MethodPost, "/v1/checkout/sessions", body), http.StatusOK)["checkout_session"])
		key := nonce()
		first := w.ask(browser(pair), http.MethodPost, at(id)+"/token", addCard(cardJSON(goodCard)), idem.Header, key)
		token := fmt.Sprint(w.object(first, http.StatusCreated)["token"])
		if again := w.ask(browser(pair), http.MethodPost, at(id)+"/token", addCard(cardJSON(otherCard)), idem.Header, key); string(again.body) != string(first.body) ||
			again.header.Get("Idempotency-Body-Mismatch") != "true" {
			t.Errorf("%s: told again was %d %s", policy, again.status, again.body)
		}
		pay := func(key string) reply {
			return w.ask(browser(pair), http.MethodPost, at(id)+"/payment", `{"payment_method":{"token":"`+token+`"}}`, idem.Header, key)
		}
		w.refused(pay("guessed"), http.StatusBadRequest, "INVALID_PARAMETERS")
		w.refused(pay(key), http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
		key = nonce()
		paid := pay(key)
		w.object(paid, http.StatusCreated)
		if again := pay(key); string(again.body) != string(paid.body) || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: told again was %d %v", policy, again.status, again.header)
		}
		for _, r := range []reply{pay(nonce()), w.ask(browser(pair), http.MethodGet, at("x"), "")} {
			var e map[string]any
			if json.Unmarshal(r.body, &e) != nil || e["code"] != "CHECKOUT_SESSION_NOT_FOUND" || e["request_id"] == nil || r.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: an error looks like %v %s", policy, r.header, r.body)
			}
		}
		if n := w.charges("order-" + policy); n != 1 {
			t.Errorf("%s: charged %d times", policy, n)
		}
	}
}

// Who tries cards out, or sessions, is told to wait; the backend is not.
func TestBrowsersAreSlowedDownBySession(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", nil)
	for i := range merchants.OrdersPerSession + 1 {
		r := w.ask(browser(w.test), http.MethodPost, at(id)+"/token", addCard(`{"number":"1"}`))
		if i < merchants.OrdersPerSession {
			w.refused(r, http.StatusBadRequest, "INVALID_PARAMETERS")
			continue
		}
		w.refused(r, http.StatusTooManyRequests, "RATE_LIMITED")
		if r.header.Get("Retry-After") == "" {
			t.Error("nobody is told how long to wait")
		}
	}
	w.object(w.ask(browser(w.test), http.MethodGet, at(id), ""), http.StatusOK)
	w.object(w.ask(w.test, http.MethodPost, at(id)+"/token", addCard(cardJSON(goodCard))), http.StatusCreated)
	other := w.checkout("order-2", nil)
	w.object(w.ask(browser(w.test), http.MethodPost, at(other)+"/token", addCard(cardJSON(goodCard))), http.StatusCreated)
}

// Everything that is done to a few sessions, at once, through the routes: no deadlock, no
// internal error, and no session is paid twice.
func TestStormOfEverythingOnFewSessions(t *testing.T) {
	t.Parallel()
	const fields, workers, each = 3, 8, 20
	w := newCounter(t)
	var ids, tokens []string
	for i := range fields {
		ids = append(ids, w.checkout(fmt.Sprintf("order-%d", i), map[string]any{"customer_id": w.shopper(fmt.Sprintf("shopper-%d", i))}))
	}
	for i := range fields * 6 {
		tokens = append(tokens, w.tokenForAnybody([]string{goodCard, declinedCard, declinedCard}[i%3]))
	}
	together(workers, func(int) {
		for range each {
			i := rand.IntN(fields)
			order, id, token := fmt.Sprintf("order-%d", i), ids[i], tokens[rand.IntN(len(tokens))]
			var r reply
			var err error
			switch rand.IntN(6) {
			case 0:
				r, err = w.send(w.test, http.MethodPatch, at(id), `{"payment_description":"Three tickets"}`, idem.Header, nonce())
			case 1:
				r, err = w.send(w.test, http.MethodGet, at(id)+"/payment", "")
			case 2:
				r, err = w.send(w.test, http.MethodPost, at(id)+"/token", addCard(cardJSON(declinedCard)), idem.Header, nonce())
			default:
				r, err = w.send(w.test, http.MethodPost, "/v1/payments", `{"account_id":"`+w.account.String()+`","merchant_order_id":"`+order+`","description":"Two tickets","country":"US",
					"amount":{"currency":"USD","value":45.67},"checkout":{"session":"`+id+`"},"payment_method":{"token":"`+token+`"}}`, idem.Header, nonce())
			}
			if err != nil || r.status >= http.StatusInternalServerError {
				t.Errorf("got %d %s, %v", r.status, r.body, err)
			}
		}
	})
	for i := range fields {
		booked, _ := w.ledger.Entries(sandbox.Query{MerchantOrderID: fmt.Sprintf("order-%d", i), Limit: 100})
		n := 0
		for _, b := range booked {
			if b.Status == "SUCCEEDED" {
				n++
			}
		}
		if n > 1 {
			t.Errorf("session %d is paid %d times", i, n)
		}
	}
	if log := w.logs.String(); strings.Contains(log, "40P01") || strings.Contains(log, "deadlock") {
		t.Error("there was a deadlock")
	}
}
