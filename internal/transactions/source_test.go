package transactions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/providers"
)

// Who may pay what with whose token, and what becomes of cards that are to be kept.

func TestSessionsAndTokensAreBoundToWhoseTheyAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, otherKeys := w.newMerchant("Second merchant")
	session := w.session("order-1")
	token, ofAnother, used, unbound := w.token(session), w.token(w.session("order-2")), w.token(session), w.token(uuid.Nil)
	w.sql(`UPDATE one_time_tokens SET payment_id = $2 WHERE id = $1`, used, uuid.Must(uuid.NewV7()))
	shopper, neighbour := w.customer(), w.customer()
	vaulted, gone := w.kept(shopper), w.kept(shopper, column{"status", "UNENROLLED"})
	theirs := w.session("order-1", column{"customer_id", neighbour})
	nobody := uuid.Must(uuid.NewV7())
	payer := func(id uuid.UUID) map[string]any {
		return map[string]any{"customer_payer": map[string]any{"id": id.String()}}
	}
	method := func(m map[string]any, more ...map[string]any) map[string]any {
		all := map[string]any{"payment_method": m}
		for _, c := range more {
			for k, v := range c {
				all[k] = v
			}
		}
		return all
	}
	with := func(id uuid.UUID) map[string]any { return map[string]any{"vaulted_token": id.String()} }
	for _, c := range []struct {
		name    string
		session uuid.UUID
		token   uuid.UUID
		changes map[string]any
		status  int
		code    string
	}{
		{"a session that there is not", nobody, token, nil, 400, "CHECKOUT_SESSION_NOT_FOUND"},
		{"another merchant's session", w.session("order-1", column{"account_id", other}), token, nil, 400, "CHECKOUT_SESSION_NOT_FOUND"},
		{"a session of the other mode", w.session("order-1", column{"mode", "live"}), token, nil, 400, "CHECKOUT_SESSION_NOT_FOUND"},
		{"a token that there is not", session, nobody, nil, 401, "INVALID_TOKEN"},
		{"another merchant's token", session, w.token(uuid.Nil, column{"account_id", other}), nil, 401, "INVALID_TOKEN"},
		{"a token of the other mode", session, w.token(uuid.Nil, column{"mode", "live"}), nil, 401, "INVALID_TOKEN"},
		{"a token of another session", session, ofAnother, nil, 401, "INVALID_TOKEN"},
		{"a session's token without it", uuid.Nil, token, nil, 401, "INVALID_TOKEN"},
		{"a token that is used", session, used, nil, 401, "TOKEN_IN_USE"},
		{"a kept card that there is not", session, nobody, method(with(nobody)), 401, "INVALID_TOKEN"},
		{"a card that is not kept any more", session, nobody, method(with(gone)), 401, "INVALID_TOKEN"},
		{"another merchant's card", session, nobody, method(with(w.kept(nobody, column{"account_id", other}))), 401, "INVALID_TOKEN"},
		{"a card of the other mode", session, nobody, method(with(w.kept(nobody, column{"mode", "live"}))), 401, "INVALID_TOKEN"},
		{"a card of another customer", uuid.Nil, nobody, method(with(vaulted), payer(neighbour)), 400, "INVALID_CUSTOMER_FOR_TOKEN"},
		{"a card of another customer than the session's", theirs, nobody, method(with(vaulted)), 400, "INVALID_CUSTOMER_FOR_TOKEN"},
		{"a token of another customer", uuid.Nil, w.token(uuid.Nil, column{"customer_id", shopper}), payer(neighbour), 400, "INVALID_CUSTOMER_FOR_TOKEN"},
		{"a card to keep for nobody", uuid.Nil, w.token(uuid.Nil, column{"vault_on_success", true}), nil, 400, "MISSING_PARAMETERS"},
		{"a card to keep for a customer that there is not", uuid.Nil, w.token(uuid.Nil, column{"vault_on_success", true}), payer(nobody), 400, "CUSTOMER_NOT_FOUND"},
		{"the browser's way to pay", session, token, map[string]any{"workflow": "SDK_SEAMLESS"}, 400, "INVALID_PARAMETERS"},
		{"a token of a provider that is not there", uuid.Nil, w.token(uuid.Nil, column{"provider", "ANOTHER_PSP"}), nil, 400, "UNAVAILABLE_PAYMENT_METHOD"},
	} {
		nonce := newNonce()
		r := w.create(nonce, w.checkoutBody("order-1", c.session, c.token, c.changes))
		if r.status != c.status || r.code() != c.code {
			t.Errorf("%s: got %s, want %d %s", c.name, r, c.status, c.code)
		}
		if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = $1`, nonce); n != 0 {
			t.Errorf("%s: the nonce is not free", c.name)
		}
	}
	// And from the other side: what is the first merchant's is nobody else's.
	r := w.createOn(w.instance, otherKeys, newNonce(), bytes.Replace(w.checkoutBody("order-1", session, token, nil), []byte(w.account.String()), []byte(other.String()), 1))
	w.want(r, http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	r = w.createOn(w.instance, w.live, newNonce(), w.checkoutBody("order-1", uuid.Nil, unbound, nil))
	w.want(r, http.StatusUnauthorized, "INVALID_TOKEN")
	w.wantSends(0, 0)
	w.wantFree(session, token, true, true)
}

func TestBrowsersPayTheirOwnSeamlessSessionAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, otherKeys := w.newMerchant("Second merchant")
	session := w.session("order-1")
	backends := w.session("order-1", column{"workflow", workflowSDKCheckout})
	token, good := w.token(session), newNonce()
	path := func(id any) string { return fmt.Sprintf("%s/v1/checkout/sessions/%v/payment", w.public.URL, id) }
	for _, c := range []struct {
		name    string
		path    string
		body    string
		headers []string
		status  int
		code    string
	}{
		{"a session that the backend pays", path(backends), string(tokenBody(w.token(backends))), []string{"public-api-key", w.test.PublicAPIKey, idem.Header, good}, 400, "CHECKOUT_SESSION_NOT_FOUND"},
		{"no session", path("none"), string(tokenBody(token)), []string{"public-api-key", w.test.PublicAPIKey, idem.Header, good}, 400, "CHECKOUT_SESSION_NOT_FOUND"},
		{"under another merchant's key", path(session), string(tokenBody(token)), []string{"public-api-key", otherKeys.PublicAPIKey, idem.Header, good}, 400, "CHECKOUT_SESSION_NOT_FOUND"},
		{"under the other mode's key", path(session), string(tokenBody(token)), []string{"public-api-key", w.live.PublicAPIKey, idem.Header, good}, 400, "CHECKOUT_SESSION_NOT_FOUND"},
		{"no key", path(session), string(tokenBody(token)), []string{idem.Header, good}, 401, "INVALID_CREDENTIALS"},
		{"a key that there is not", path(session), string(tokenBody(token)), []string{"public-api-key", w.test.PublicAPIKey + "x", idem.Header, good}, 401, "INVALID_CREDENTIALS"},
		{"no nonce", path(session), string(tokenBody(token)), []string{"public-api-key", w.test.PublicAPIKey}, 400, "MISSING_PARAMETERS"},
		{"a nonce that can be guessed", path(session), string(tokenBody(token)), []string{"public-api-key", w.test.PublicAPIKey, idem.Header, "order-1"}, 400, "INVALID_PARAMETERS"},
		{"a nonce of another form", path(session), string(tokenBody(token)), []string{"public-api-key", w.test.PublicAPIKey, idem.Header, strings.ReplaceAll(good, "-", "")}, 400, "INVALID_PARAMETERS"},
		{"no token", path(session), `{}`, []string{"public-api-key", w.test.PublicAPIKey, idem.Header, good}, 400, "MISSING_PARAMETERS"},
		{"a token that is none", path(session), `{"payment_method":{"token":"4111111111111111"}}`, []string{"public-api-key", w.test.PublicAPIKey, idem.Header, good}, 401, "INVALID_TOKEN"},
		{"a token of no session's", path(session), string(tokenBody(w.token(w.session("order-2")))), []string{"public-api-key", w.test.PublicAPIKey, idem.Header, good}, 401, "INVALID_TOKEN"},
		{"a list", path(session), `[]`, []string{"public-api-key", w.test.PublicAPIKey, idem.Header, good}, 400, "INVALID_REQUEST"},
	} {
		r := w.call(http.MethodPost, c.path, []byte(c.body), c.headers...)
		if r.status != c.status || r.code() != c.code {
			t.Errorf("%s: got %s, want %d %s", c.name, r, c.status, c.code)
		}
	}
	w.wantSends(0, 0)
	w.want(w.pays(good, session, token), http.StatusCreated) // all that has left the nonce free
	w.wantCharges("order-1", 1)
}

// A nonce names one operation on one target, whoever uses it.
func TestNonceOfABrowserIsNobodyElses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.session("order-1"), w.session("order-2")
	nonce := newNonce()
	w.want(w.pays(nonce, first, w.token(first)), http.StatusCreated)
	w.want(w.pays(nonce, second, w.token(second)), http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	w.want(w.create(nonce, w.body("order-3", nil)), http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
	w.wantCharges("order-2", 0)
	w.wantCharges("order-3", 0)
}

// What is between merchant and provider, or merchant and payer, is no browser's business.
func TestBrowsersAreToldLess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session := w.session("order-1", column{"metadata", `[{"key":"margin","value":"hidden-metadata"}]`})
	nonce := newNonce()
	paid := w.pays(nonce, session, w.token(session))
	w.want(paid, http.StatusCreated)
	backends := w.session("order-2", column{"workflow", workflowSDKCheckout})
	w.want(w.create("nonce-2", w.checkoutBody("order-2", backends, w.token(backends), map[string]any{
		"customer_payer": map[string]any{"email": "hidden-payer@shop.example"}, "additional_data": map[string]any{"note": "hidden-data"},
		"metadata": []any{map[string]any{"key": "margin", "value": "hidden-metadata"}}, "merchant_reference": "hidden-reference",
	})), http.StatusCreated)

	tx := w.transaction(nonce)
	for name, r := range map[string]response{
		"the payment": paid, "its replay": w.pays(nonce, session, w.token(session)),
		"the question":               w.call(http.MethodGet, w.public.URL+"/v1/checkout/sessions/"+session.String()+"/payment?raw_response=true", nil, "public-api-key", w.test.PublicAPIKey),
		"the question of a backends": w.call(http.MethodGet, w.public.URL+"/v1/checkout/sessions/"+backends.String()+"/payment", nil, "public-api-key", w.test.PublicAPIKey),
	} {
		for _, secret := range []string{"hidden-", "0123456789abcdef0123456789abcdef", "psp-" + tx.ID.String(), "psptok_"} {
			if bytes.Contains(r.body, []byte(secret)) {
				t.Errorf("%s tells %q: %s", name, secret, r)
			}
		}
		all := r.members(t)
		if got := fmt.Sprint(all["customer_payer"], all["metadata"], all["additional_data"], all["merchant_reference"]); got != "map[] [] <nil> <nil>" {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, r := range []response{w.sessionPayment(backends), w.get("/v1/payments/" + fmt.Sprint(w.sessionPayment(backends).get("id")))} {
		for _, told := range []string{"hidden-payer", "hidden-data", "hidden-metadata", "hidden-reference", "0123456789abcdef0123456789abcdef"} {
			if !bytes.Contains(r.body, []byte(told)) {
				t.Errorf("the backend is not told %q: %s", told, r)
			}
		}
	}
}

// methods are the kept cards of a customer, by status.
func (w *world) methods(customer uuid.UUID) (statuses []string) {
	w.t.Helper()
	if err := w.owner().Conn(w.t.Context()).Raw(`SELECT status FROM payment_methods WHERE customer_id = $1 ORDER BY created_at`, customer).Scan(&statuses).Error; err != nil {
		w.t.Fatal(err)
	}
	return statuses
}

func (w *world) wantMethods(customer uuid.UUID, want string) {
	w.t.Helper()
	if got := fmt.Sprint(w.methods(customer)); got != want {
		w.t.Errorf("the customer's cards are %s, want %s", got, want)
	}
}

// A card is kept if the payment that asked for it succeeds, and pays from then on: with the
// provider's token, because nobody has anything else.
func TestCardIsKeptOnlyAfterSuccess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		body func(w *world, shopper uuid.UUID) []byte
	}{
		{"by its token", func(w *world, shopper uuid.UUID) []byte {
			return w.checkoutBody("order-1", uuid.Nil, w.token(uuid.Nil, column{"vault_on_success", true}), map[string]any{"customer_payer": map[string]any{"id": shopper.String()}})
		}},
		{"by the payment, with its token", func(w *world, shopper uuid.UUID) []byte {
			return w.checkoutBody("order-1", w.session("order-1", column{"customer_id", shopper}), w.token(uuid.Nil), map[string]any{
				"payment_method": map[string]any{"token": w.token(uuid.Nil).String(), "vault_on_success": true},
			})
		}},
		{"by the payment, with the card", func(w *world, shopper uuid.UUID) []byte {
			var body map[string]any
			if err := json.Unmarshal(w.body("order-1", map[string]any{"customer_payer": map[string]any{"id": shopper.String()}}), &body); err != nil {
				w.t.Fatal(err)
			}
			set(true, "payment_method", "vault_on_success")(body)
			b, err := json.Marshal(body)
			if err != nil {
				w.t.Fatal(err)
			}
			return b
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			shopper := w.customer()
			w.psp.next(decline)
			r := w.create("declined", c.body(w, shopper))
			w.want(r, http.StatusCreated)
			w.wantMethods(shopper, "[DECLINED]")
			if r.get("payment_method", "vaulted_token") != "" {
				t.Errorf("a card that was declined is told as kept: %s", r)
			}
			if n := w.count(`SELECT count(*) FROM payment_methods WHERE provider_token <> ''`); n != 0 {
				t.Error("the provider's token of a declined card is kept")
			}

			r = w.create("paid", c.body(w, shopper))
			w.want(r, http.StatusCreated)
			w.wantMethods(shopper, "[DECLINED ENROLLED]")
			vaulted, _ := r.get("payment_method", "vaulted_token").(string)
			again := w.create("again", w.body("order-2", map[string]any{"payment_method": map[string]any{"vaulted_token": vaulted}}))
			w.want(again, http.StatusCreated)
			b := w.psp.bookings[len(w.psp.bookings)-1]
			if b.MerchantOrderID != "order-2" || w.psp.tokens[b.Token.Value] == "" || again.get("payment_method", "vaulted_token") != vaulted {
				t.Errorf("booked was %+v, told %s", b, again)
			}
			if n := w.count(`SELECT count(*) FROM payment_methods WHERE id = $1 AND last_used_at IS NOT NULL AND provider_token = $2`, vaulted, b.Token.Value); n != 1 {
				t.Error("the card that was paid with is not the one that is kept")
			}
		})
	}
}

func TestCardIsKeptWhenAPendingPaymentSucceeds(t *testing.T) {
	t.Parallel()
	for ends, want := range map[providers.Outcome]string{providers.Approved: "[ENROLLED]", providers.Declined: "[DECLINED]"} {
		t.Run(string(ends), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			shopper := w.customer()
			session, nonce := w.session("order-1", column{"customer_id", shopper}), newNonce()
			w.psp.next(accept)
			w.psp.asked(func() (providers.Result, bool) {
				return providers.Result{Outcome: ends, ProviderReference: "psp-pending", ResponseCode: "SUCCEEDED"}, true
			})
			r := w.pays(nonce, session, w.token(session, column{"vault_on_success", true}))
			w.want(r, http.StatusCreated)
			w.wantMethods(shopper, "[ENROLL_IN_PROCESS]")
			if r.get("payment_method", "vaulted_token") != "" {
				t.Errorf("a card is told as kept too early: %s", r)
			}
			pending := w.count(`SELECT count(*) FROM payment_methods`)
			w.dueAgain(nonce)
			w.recoverOn(w.instance)
			w.wantMethods(shopper, want)
			told, _ := w.sessionPayment(session).get("payment_method", "vaulted_token").(string)
			if pending != 1 || (told != "") != (ends == providers.Approved) {
				t.Errorf("the vaulted token is told as %q", told)
			}
		})
	}
}

// A provider that does not take the card is asked before anything is claimed.
func TestCardThatCannotBeKeptIsNotCharged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shopper := w.customer()
	w.psp.takesNone = true
	var body map[string]any
	if err := json.Unmarshal(w.body("order-1", map[string]any{"customer_payer": map[string]any{"id": shopper.String()}}), &body); err != nil {
		t.Fatal(err)
	}
	set(true, "payment_method", "vault_on_success")(body)
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	w.want(w.create("nonce-1", b), http.StatusBadGateway, "PROVIDER_ERROR")
	w.wantCharges("order-1", 0)
	if n := w.count(`SELECT count(*) FROM idempotency_keys`); n != 0 {
		t.Error("the nonce is taken")
	}
	w.psp.takesNone = false
	w.want(w.create("nonce-1", b), http.StatusCreated)
	w.wantMethods(shopper, "[ENROLLED]")
}

// The browser's routes follow one policy, the merchant's backend its own.
func TestEachPolicyHasItsMannerAndBrowsersHaveOne(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"novu", "fyno", "ietf"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.follow(policy)
			session, nonce := w.session("order-1"), newNonce()
			token := w.token(session)
			paid := w.pays(nonce, session, token)
			w.want(paid, http.StatusCreated)
			w.wantReplay(paid, w.pays(nonce, session, token), false)
			w.wantReplay(paid, w.pays(nonce, session, w.token(session)), true)
			r := w.pays(newNonce(), session, token)
			w.wantError(r, http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND", fmt.Sprint(r.get("messages").([]any)[0]))
			r = w.call(http.MethodPost, w.public.URL+"/v1/checkout/sessions/"+session.String()+"/payment", tokenBody(token), "public-api-key", w.test.PublicAPIKey, "Idempotency-Key", newNonce())
			w.wantError(r, http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND", fmt.Sprint(r.get("messages").([]any)[0])) // yuno's alias

			// The backend keeps its own header and envelope.
			second := w.session("order-2")
			mine := w.token(second)
			header := nonce[:8]
			if policy == "ietf" {
				header = `"` + header + `"`
			}
			send := func(body []byte) response {
				return w.call(http.MethodPost, w.public.URL+"/v1/payments", body, append(keys(w.test), "Idempotency-Key", header)...)
			}
			w.want(send(w.checkoutBody("order-2", second, mine, nil)), http.StatusCreated)
			again := w.call(http.MethodPost, w.public.URL+"/v1/payments", w.checkoutBody("order-2", second, w.token(second), nil), append(keys(w.test), "Idempotency-Key", strings.ReplaceAll(header, nonce[:8], nonce[9:13]+"-x"))...)
			if again.status != http.StatusBadRequest || again.get("request_id") != nil && policy == "novu" {
				t.Errorf("the backend was told %s", again)
			}
			w.wantCharges("order-1", 1)
			w.wantCharges("order-2", 1)
		})
	}
}

// A policy that keeps errors keeps the nonce; the session is free all the same, for nothing
// was or will be paid.
func TestKeptErrorGivesTheSessionBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.follow("novu")
	session := w.session("order-1")
	token := w.token(session)
	w.psp.next(notReached)
	first := w.call(http.MethodPost, w.public.URL+"/v1/payments", w.checkoutBody("order-1", session, token, nil), append(keys(w.test), "Idempotency-Key", "nonce-1")...)
	if first.status != http.StatusServiceUnavailable {
		t.Fatalf("got %s", first)
	}
	w.wantFree(session, token, true, false)
	w.want(w.call(http.MethodPost, w.public.URL+"/v1/payments", w.checkoutBody("order-1", session, w.token(session), nil), append(keys(w.test), "Idempotency-Key", "nonce-2")...), http.StatusCreated)
	w.wantCharges("order-1", 1)
}

// A bounded storm on few sessions: begins and finishes of every outcome, changes by the
// backend, and questions. Whoever is refused is told so; nobody meets a deadlock.
func TestStormOnFewSessionsMeetsNoDeadlock(t *testing.T) {
	t.Parallel()
	const fields, workers, each = 4, 16, 25
	w := newWorld(t)
	var sessions, tokens []uuid.UUID
	for i := range fields {
		sessions = append(sessions, w.session(fmt.Sprintf("order-%d", i)))
	}
	for range fields * 3 {
		tokens = append(tokens, w.token(uuid.Nil))
	}
	for range workers * each {
		w.psp.next([]behaviour{approve, decline, decline, decline, notReached, refuse}[rand.IntN(6)])
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				i := rand.IntN(fields)
				var r response
				var err error
				switch rand.IntN(5) {
				case 0:
					err = w.owner().Conn(t.Context()).Exec(`UPDATE checkout_sessions SET payment_description = 'changed', version = version + 1
						WHERE id = $1 AND payment_id IS NULL`, sessions[i]).Error
				case 1:
					r, err = request(t.Context(), http.MethodGet, w.public.URL+"/v1/checkout/sessions/"+sessions[i].String()+"/payment", nil, keys(w.test)...)
				default:
					r, err = w.post(w.instance, w.test, newNonce(), w.checkoutBody(fmt.Sprintf("order-%d", i), sessions[i], tokens[rand.IntN(len(tokens))], nil))
				}
				if err != nil || r.status == http.StatusInternalServerError || r.code() == "SERVICE_UNAVAILABLE" {
					t.Errorf("got %s, %v", r, err)
				}
			}
		})
	}
	wg.Wait()
	for i := range fields {
		if n := w.psp.charges(fmt.Sprintf("order-%d", i)); n > 1 {
			t.Errorf("session %d is paid %d times", i, n)
		}
	}
	if n := w.count(`SELECT count(*) FROM checkout_sessions s WHERE (payment_id IS NULL) <> NOT EXISTS (SELECT 1 FROM payment_sources o JOIN payments p ON p.id = o.payment_id
		WHERE o.checkout_session_id = s.id AND p.status NOT IN ('DECLINED', 'REJECTED', 'ERROR'))`); n != 0 {
		t.Errorf("%d sessions do not have the payment that is theirs", n)
	}
	w.wantNothingOpen()
}
