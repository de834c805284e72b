package checkout

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"bytes"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
)

// directToken is what a backend hands in without a session.
func (w *till) directToken(number string) string {
	return `{"account_id":"` + w.account.String() + `","card_data":` + cardJSON(number) + `}`
}

func TestTokenStandsForACardAndTellsLittleOfIt(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", nil)
	for name, c := range map[string]struct {
		pair        merchants.KeyPair
		path, body  string
		country     any
		fingerprint bool
	}{
		"browser": {browser(w.test), at(id) + "/token", addCard(cardJSON(goodCard)), "US", false},
		"backend": {w.test, at(id) + "/token", addCard(cardJSON(goodCard)), "US", true},
		"direct":  {w.test, "/v1/tokens", w.directToken(goodCard), nil, true},
	} {
		token := w.object(w.ask(c.pair, http.MethodPost, c.path, c.body), http.StatusCreated)
		card, _ := token["card_data"].(map[string]any)
		if card["iin"] != "41111111" || card["lfd"] != "1111" || card["brand"] != "VISA" || card["number_length"] != 16.0 || card["security_code_length"] != 3.0 ||
			card["expiration_month"] != 11.0 || card["expiration_year"] != 28.0 || card["holder_name"] != "John Doe" {
			t.Errorf("%s: the card is told as %v", name, card)
		}
		if token["country"] != c.country || (card["fingerprint"] != nil) != c.fingerprint || token["type"] != "CARD" || token["vault_on_success"] != false {
			t.Errorf("%s: told was %v", name, token)
		}
		if _, err := uuid.Parse(fmt.Sprint(token["token"])); err != nil {
			t.Errorf("%s: the token is %v", name, token["token"])
		}
	}
	if n := w.count(`SELECT count(*) FROM one_time_tokens k LEFT JOIN checkout_sessions s ON s.id = k.checkout_session_id
		WHERE k.expires_at = coalesce(s.expires_at, k.created_at + interval '5 hours') AND k.provider_token <> ''`); n != 3 {
		t.Errorf("%d of 3 tokens end with their session, or after five hours", n)
	}
}

func TestEachRuleOfAToken(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", nil)
	session, direct := at(id)+"/token", "/v1/tokens"
	card := func(of, with string) string { return strings.Replace(cardJSON(goodCard), of, with, 1) }
	for _, c := range []struct{ path, body, code, message string }{
		{session, `{}`, "MISSING_PARAMETERS", "$.card_data is required"},
		{session, `[]`, "INVALID_REQUEST", "$ must be an object"},
		{session, `{"payment_method":{"card":` + cardJSON(goodCard) + `}}`, "MISSING_PARAMETERS", "$.payment_method.type is required"},
		{session, `{"payment_method":{"type":"PIX","card":` + cardJSON(goodCard) + `}}`, "UNAVAILABLE_PAYMENT_METHOD", "$.payment_method.type must be CARD: no other payment method is available"},
		{session, `{"payment_method":{"type":"CARD"}}`, "MISSING_PARAMETERS", "$.payment_method.card is required"},
		{session, addCard(card(goodCard, "4111")), "INVALID_PARAMETERS", "$.payment_method.card.number must be a string of 12 to 19 digits"},
		{session, addCard(card(`"123"`, `"12"`)), "INVALID_PARAMETERS", "$.payment_method.card.security_code must be a string of 3 to 4 digits"},
		{session, addCard(card(":11,", ":13,")), "INVALID_PARAMETERS", "$.payment_method.card.expiration_month must be a whole number from 1 to 12"},
		{session, addCard(card(":28,", ":128,")), "INVALID_PARAMETERS", "$.payment_method.card.expiration_year must be a year of two or four digits"},
		{session, `{"payment_method":{"type":"CARD","vault_on_success":true,"card":` + cardJSON(goodCard) + `}}`, "INVALID_PARAMETERS", "$.payment_method.vault_on_success must be false: the checkout session has no customer"},
		{direct, `{"card_data":` + cardJSON(goodCard) + `}`, "MISSING_PARAMETERS", "$.account_id is required"},
		{direct, `{"account_id":"` + uuid.NewString() + `","card_data":` + cardJSON(goodCard) + `}`, "INVALID_ACCOUNT_ID", "$.account_id must be the account of the API key"},
		{direct, `{"account_id":"` + w.account.String() + `"}`, "MISSING_PARAMETERS", "$.card_data is required"},
	} {
		got := w.refused(w.ask(w.test, http.MethodPost, c.path, c.body), http.StatusBadRequest, c.code)
		if got != c.message {
			t.Errorf("%s %s: %s, want %s", c.path, c.code, got, c.message)
		}
	}
	w.refused(w.ask(browser(w.test), http.MethodPost, direct, w.directToken(goodCard)), http.StatusUnauthorized, "INVALID_CREDENTIALS")
	if n := w.count(`SELECT count(*) FROM one_time_tokens`); n != 0 {
		t.Errorf("%d tokens were made", n)
	}
}

func TestPaidSessionTakesNoMoreCards(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", nil)
	w.object(w.paySession(id, w.tokenFor(id, goodCard), nonce()), http.StatusCreated)
	w.refused(w.ask(browser(w.test), http.MethodPost, at(id)+"/token", addCard(cardJSON(goodCard))), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
}

func TestTokenOfANonceIsMadeOnce(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", nil)
	for path, body := range map[string]string{at(id) + "/token": addCard(cardJSON(goodCard)), "/v1/tokens": w.directToken(goodCard)} {
		key := nonce()
		first := w.ask(w.test, http.MethodPost, path, body, idem.Header, key)
		w.object(first, http.StatusCreated)
		again := w.ask(w.test, http.MethodPost, path, body, idem.Header, key)
		if again.status != first.status || string(again.body) != string(first.body) || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: told again was %d %s", path, again.status, again.body)
		}
		other := w.ask(w.test, http.MethodPost, path, strings.Replace(body, goodCard, otherCard, 1), idem.Header, key)
		if string(other.body) != string(first.body) || other.header.Get("Idempotency-Body-Mismatch") != "true" {
			t.Errorf("%s: told another card was %d %s", path, other.status, other.body)
		}
	}
	if n := w.count(`SELECT count(*) FROM one_time_tokens`); n != 2 {
		t.Errorf("there are %d tokens", n)
	}
}

// A nonce is one of its merchant's, too. Who could choose it freely with nothing but a
// session could take those that the merchant is about to use, so that its own payment is
// told 422.
func TestBrowserCannotTakeANonceThatCanBeGuessed(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id := w.checkout("order-1", nil)
	w.refused(w.ask(browser(w.test), http.MethodPost, at(id)+"/token", addCard(cardJSON(goodCard)), idem.Header, "order-1"), http.StatusBadRequest, "INVALID_PARAMETERS")
	w.object(w.ask(browser(w.test), http.MethodPost, at(id)+"/token", addCard(cardJSON(goodCard)), idem.Header, nonce()), http.StatusCreated)
	w.object(w.backendPays("order-1", id, w.tokenFor(id, goodCard), "45.67", "order-1"), http.StatusCreated)
}

// A provider that is away is no reason to forget which request it was: with the same nonce
// the card is handed in again.
func TestCardThatTheProviderDoesNotTakeIsNoToken(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	id, key := w.checkout("order-1", nil), nonce()
	w.bank.Close()
	r := w.ask(browser(w.test), http.MethodPost, at(id)+"/token", addCard(cardJSON(goodCard)), idem.Header, key)
	w.refused(r, http.StatusBadGateway, "PROVIDER_ERROR")
	if r.header.Get("Retry-After") == "" {
		t.Error("nobody is told when to come back")
	}
	if n := w.count(`SELECT (SELECT count(*) FROM one_time_tokens) + (SELECT count(*) FROM idempotency_keys)`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// Neither card nor security code, and the provider's token in its two columns only: not in
// the database, the log, or any answer.
func TestCardsAndProvidersTokensAreNowhereElse(t *testing.T) {
	t.Parallel()
	w := newCounter(t)
	const card, code = "4929180918091809", "9810"
	secret := strings.Replace(cardJSON(card), `"123"`, `"`+code+`"`, 1)
	customer := w.shopper("shopper-1")
	id := w.checkout("order-1", map[string]any{"customer_id": customer})
	var told bytes.Buffer
	ask := func(pair merchants.KeyPair, method, path, body string, headers ...string) reply {
		r := w.ask(pair, method, path, body, headers...)
		fmt.Fprintln(&told, r.header, string(r.body))
		return r
	}
	made := w.object(ask(browser(w.test), http.MethodPost, at(id)+"/token", `{"payment_method":{"type":"CARD","vault_on_success":true,"card":`+secret+`}}`, idem.Header, nonce()), http.StatusCreated)
	ask(w.test, http.MethodPost, "/v1/tokens", strings.Replace(w.directToken(card), `"123"`, `"`+code+`"`, 1), idem.Header, nonce())
	ask(browser(w.test), http.MethodPost, at(id)+"/token", addCard(strings.Replace(secret, code, code+card, 1)))
	ask(browser(w.test), http.MethodPost, at(card)+"/token", addCard(secret))
	key := nonce()
	for _, body := range []string{addCard(secret), `{"payment_method":{"token":"` + card + `"}}`, `{"payment_method":{"token":"` + fmt.Sprint(made["token"]) + `","card":` + secret + `}}`} {
		ask(browser(w.test), http.MethodPost, at(id)+"/payment", body, idem.Header, key)
	}
	for _, path := range []string{at(id), at(id) + "/payment-methods", at(id) + "/payment"} {
		ask(browser(w.test), http.MethodGet, path, "")
		ask(w.test, http.MethodGet, path, "")
	}
	var providers []string
	if err := w.db.Conn(t.Context()).Raw(`SELECT provider_token FROM one_time_tokens UNION SELECT provider_token FROM payment_methods`).Scan(&providers).Error; err != nil || len(providers) != 2 {
		t.Fatalf("the provider's tokens are %d: %v", len(providers), err)
	}
	if n := w.count(`SELECT count(*) FROM payment_methods WHERE status = 'ENROLLED'`); n != 1 {
		t.Errorf("%d cards are kept", n)
	}
	places := map[string][]byte{"an answer": told.Bytes(), "the log": []byte(w.logs.String())}
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	rows, err := conn.Query(t.Context(), `SELECT quote_ident(table_name) FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		var dump bytes.Buffer
		if _, err := conn.PgConn().CopyTo(t.Context(), &dump, `COPY `+table+` TO STDOUT`); err != nil {
			t.Fatal(err)
		}
		places[table] = dump.Bytes()
	}
	for place, data := range places {
		for _, needle := range []string{card, card[6:15], `"` + code + `"`} {
			if bytes.Contains(data, []byte(needle)) {
				t.Errorf("%s holds %q", place, needle)
			}
		}
		if place == "one_time_tokens" || place == "payment_methods" {
			continue
		}
		for _, token := range providers {
			if bytes.Contains(data, []byte(token)) {
				t.Errorf("%s holds the provider's token", place)
			}
		}
	}
}
