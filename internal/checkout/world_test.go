package checkout

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/transactions"
)

// newCounter is a till whose sessions, tokens and payments are held against the API
// document, too.
func newCounter(t *testing.T) *till {
	t.Helper()
	w := newTill(t)
	payments := transactions.NewHandler(w.payments, w.auth)
	e := httpapi.New(httpapi.Options{
		Log: slog.New(slog.NewJSONHandler(w.logs, nil)), Transient: postgres.IsTransient, Describe: postgres.Describe, Style: payments.ErrorStyle,
	})
	cors := httpapi.NewCORS(w.auth.KnownOrigin, func() string { return "" })
	e.Use(httpapi.RefuseSecretsFromBrowsers(merchants.HeaderSecret), cors.Preflights)
	browsers, base := merchants.NewBrowsers(w.auth, cors), func(echo.Context) string { return "https://pay.example" }
	payments.Mount(e)
	payments.MountCheckout(e, browsers, base)
	h := NewHandler(w.service, browsers, base)
	for _, mount := range []func(*echo.Echo){h.mountSessions, h.mountTokens, h.mountCustomers} {
		mount(e)
	}
	w.api = httptest.NewServer(apitest.Handler(t, e))
	t.Cleanup(w.api.Close)
	return w
}

// checkoutBody is what a session asks for, with changes; a nil value leaves a member out.
func (w *till) checkoutBody(order string, changes map[string]any) string {
	w.t.Helper()
	b := map[string]any{
		"account_id": w.account.String(), "merchant_order_id": order, "payment_description": "Two tickets", "country": "US",
		"amount": map[string]any{"currency": "USD", "value": json.Number("45.67")}, "workflow": transactions.WorkflowSeamless,
	}
	maps.Copy(b, changes)
	maps.DeleteFunc(b, func(_ string, v any) bool { return v == nil })
	data, err := json.Marshal(b)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

// checkout makes a session, and returns its id.
func (w *till) checkout(order string, changes map[string]any) string {
	w.t.Helper()
	made := w.object(w.ask(w.test, http.MethodPost, "/v1/checkout/sessions", w.checkoutBody(order, changes)), http.StatusOK)
	id, _ := made["checkout_session"].(string)
	return id
}

func at(session string) string { return "/v1/checkout/sessions/" + session }

// backendPays is a payment of a session by the merchant's backend; amount is a JSON number.
func (w *till) backendPays(order, session, token, amount, nonce string) reply {
	w.t.Helper()
	body := `{"account_id":"` + w.account.String() + `","merchant_order_id":"` + order + `","description":"Two tickets","country":"US",
		"amount":{"currency":"USD","value":` + amount + `},"checkout":{"session":"` + session + `"},"payment_method":{"type":"CARD","token":"` + token + `"}}`
	return w.ask(w.test, http.MethodPost, "/v1/payments", body, idem.Header, nonce)
}

// end lets a row's time be over.
func (w *till) end(table, id string) {
	w.t.Helper()
	if w.sql(`UPDATE `+table+` SET expires_at = clock_timestamp() WHERE id = $1::uuid`, id) != 1 {
		w.t.Fatalf("there is no %s in %s", id, table)
	}
}

func nonce() string { return uuid.NewString() }
