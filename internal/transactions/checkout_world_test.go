package transactions

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// The rows of a checkout, as package checkout makes them: that is a floor above, and its
// own tests go through its routes. Here it is about what payments make of them.

// mountCheckout adds the routes by which browsers pay, for an installation that is reached
// at the host that a request names.
func mountCheckout(public *echo.Echo, h *Handler, auth *merchants.Service) {
	cors := httpapi.NewCORS(auth.KnownOrigin, func() string { return "" })
	public.Use(httpapi.RefuseSecretsFromBrowsers(merchants.HeaderSecret), cors.Preflights)
	h.MountCheckout(public, merchants.NewBrowsers(auth, cors), httpapi.BaseURL(""))
}

// session is a new checkout session of 45.67 USD of the first merchant in test mode, with
// changes: other values of its columns.
func (w *world) session(order string, changes ...column) uuid.UUID {
	w.t.Helper()
	id := uuid.Must(uuid.NewV7())
	w.insert("checkout_sessions", append([]column{
		{"account_id", w.account}, {"id", id}, {"mode", "test"}, {"workflow", WorkflowSeamless}, {"merchant_order_id", order},
		{"payment_description", "A test payment"}, {"country", "US"}, {"currency", "USD"}, {"amount", "45.67"}, {"callback_url", ""},
		{"details", "{}"}, {"created_at", time.Now()}, {"updated_at", time.Now()}, {"expires_at", time.Now().Add(5 * time.Hour)},
	}, changes...))
	return id
}

// token is a new one-time token of a session (uuid.Nil: of none), for a card that the
// provider has.
func (w *world) token(session uuid.UUID, changes ...column) uuid.UUID {
	w.t.Helper()
	id := uuid.Must(uuid.NewV7())
	w.insert("one_time_tokens", append([]column{
		{"account_id", w.account}, {"id", id}, {"mode", "test"}, {"checkout_session_id", orNone(session)}, {"provider", w.psp.Name()},
		{"provider_token", w.tokenised().Value}, {"card", testKeptCard}, {"created_at", time.Now()}, {"expires_at", time.Now().Add(5 * time.Hour)},
	}, changes...))
	return id
}

// customer is a new customer of the first merchant in test mode.
func (w *world) customer(changes ...column) uuid.UUID {
	w.t.Helper()
	id := uuid.Must(uuid.NewV7())
	w.insert("customers", append([]column{
		{"account_id", w.account}, {"id", id}, {"mode", "test"}, {"merchant_customer_id", "customer-" + id.String()}, {"profile", "{}"},
		{"created_at", time.Now()}, {"updated_at", time.Now()},
	}, changes...))
	return id
}

// kept is a card that a customer keeps.
func (w *world) kept(customer uuid.UUID, changes ...column) uuid.UUID {
	w.t.Helper()
	id := uuid.Must(uuid.NewV7())
	w.insert("payment_methods", append([]column{
		{"account_id", w.account}, {"id", id}, {"mode", "test"}, {"customer_id", customer}, {"status", "ENROLLED"}, {"country", "US"},
		{"provider", w.psp.Name()}, {"provider_token", w.tokenised().Value}, {"card", testKeptCard}, {"created_at", time.Now()}, {"updated_at", time.Now()},
	}, changes...))
	return id
}

// testKeptCard is what is kept of the card that tests pay with.
const testKeptCard = `{"holder_name":"John Doe","iin":"41111111","lfd":"1111","number_length":16,"security_code_length":3,"brand":"VISA",` +
	`"fingerprint":"0123456789abcdef0123456789abcdef","expiration_month":11,"expiration_year":28}`

// tokenised is the provider's token of a card.
func (w *world) tokenised() providers.Token {
	w.t.Helper()
	t, err := w.psp.Tokenise(w.t.Context(), providers.Card{Number: "4111111111111111"})
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// column is a value of a row.
type column struct {
	name  string
	value any
}

// insert adds a row; of a column that is named twice the last value counts.
func (w *world) insert(table string, columns []column) {
	w.t.Helper()
	row := map[string]any{}
	for _, c := range columns {
		row[c.name] = c.value
	}
	if err := w.owner().Conn(w.t.Context()).Table(table).Create(row).Error; err != nil {
		w.t.Fatal(err)
	}
}

// pays is a browser's payment of a session.
func (w *world) pays(nonce string, session, token uuid.UUID) response {
	w.t.Helper()
	r, err := w.browserPays(w.t.Context(), nonce, session, token)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) browserPays(ctx context.Context, nonce string, session, token uuid.UUID) (response, error) {
	return request(ctx, http.MethodPost, w.public.URL+"/v1/checkout/sessions/"+session.String()+"/payment", tokenBody(token),
		"public-api-key", w.test.PublicAPIKey, idem.Header, nonce)
}

func tokenBody(token uuid.UUID) []byte {
	return []byte(`{"payment_method":{"token":"` + token.String() + `"}}`)
}

// checkoutBody is a backend's payment in a session (uuid.Nil: in none) with a token.
func (w *world) checkoutBody(order string, session, token uuid.UUID, changes map[string]any) []byte {
	w.t.Helper()
	all := map[string]any{"workflow": nil, "payment_method": map[string]any{"type": "CARD", "token": token.String()}}
	if session != uuid.Nil {
		all["checkout"] = map[string]any{"session": session.String()}
	}
	for name, v := range changes {
		all[name] = v
	}
	return w.body(order, all)
}

// sessionPayment is what the backend is told of a session's payment.
func (w *world) sessionPayment(session uuid.UUID) response {
	w.t.Helper()
	return w.get("/v1/checkout/sessions/" + session.String() + "/payment")
}

// newNonce is a nonce as browsers draw it.
func newNonce() string { return uuid.NewString() }

// wantFree fails the test unless session and token are free, or taken, as said.
func (w *world) wantFree(session, token uuid.UUID, sessionFree, tokenFree bool) {
	w.t.Helper()
	if free := w.count(`SELECT count(*) FROM checkout_sessions WHERE id = $1 AND payment_id IS NULL`, session) == 1; free != sessionFree {
		w.t.Errorf("the session is free: %t, want %t", free, sessionFree)
	}
	if free := w.count(`SELECT count(*) FROM one_time_tokens WHERE id = $1 AND payment_id IS NULL`, token) == 1; free != tokenFree {
		w.t.Errorf("the token is free: %t, want %t", free, tokenFree)
	}
}

// members are what an answer holds.
func (r response) members(t *testing.T) map[string]any {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(r.body, &all); err != nil {
		t.Fatalf("%v in %s", err, r)
	}
	return all
}

// follow gives the first merchant another policy.
func (w *world) follow(policy string) {
	w.t.Helper()
	w.want(w.call(http.MethodPatch, w.operator.URL+"/admin/v1/merchants/"+w.account.String(), []byte(`{"idempotency_policy":"`+policy+`"}`),
		"Authorization", "Bearer "+operatorToken), http.StatusOK)
	if _, err := w.auth.Refresh(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}
