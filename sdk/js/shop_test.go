package js_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/checkout"
	"github.com/oncepay/oncepay/internal/httpapi"
)

// payment is one of the fake API's.
type payment struct {
	id, status, sub, code, lfd string
	challenge                  string // where the payer has to go; "" for nowhere
	holds                      bool   // whether it takes the session
}

// fakeAPI answers as the API does, for one session, and misbehaves on demand. It serves the
// real page and the real SDK. Its ledger is what tests are judged by.
type fakeAPI struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	session  checkout.PageSession
	currency string
	value    string
	gone     bool // the session is not there for GET
	tokens   map[string]string
	used     map[string]bool
	payments []*payment
	answers  map[string]*payment // by nonce
	nonces   []string            // of every payment request that came, in order
	// meet is asked first what to do with a payment request; false: it has answered itself.
	meet func(n int, w http.ResponseWriter, charge func()) bool
	// requests are all paths that were asked for.
	requests []string
}

func newFakeAPI(t *testing.T, workflow string, origins ...string) *fakeAPI {
	t.Helper()
	a := &fakeAPI{
		t: t, currency: "USD", value: "45.67",
		tokens: map[string]string{}, used: map[string]bool{}, answers: map[string]*payment{},
		session: checkout.PageSession{
			ID: uuid.Must(uuid.NewV7()), AccountID: uuid.Must(uuid.NewV7()), Mode: "test", Workflow: workflow,
			MerchantName: "Corner shop", PublicKey: "sandbox_key", CallbackURL: "https://shop.example/thanks", Origins: origins,
		},
	}
	e := httpapi.New(httpapi.Options{Log: slog.New(slog.DiscardHandler), Describe: func(error) string { return "" }, Transient: func(error) bool { return false }})
	checkout.NewPageHandler(func(_ context.Context, id uuid.UUID) (checkout.PageSession, bool, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.session, id == a.session.ID, nil
	}).Mount(e)
	base := "/v1/checkout/sessions/:id"
	e.GET(base, a.getSession)
	e.GET(base+"/payment", a.getPayment)
	e.POST(base+"/token", a.postToken)
	e.POST(base+"/payment", a.postPayment)
	e.GET("/bank", func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderContentSecurityPolicy, "")
		return c.HTML(http.StatusOK, `<title>Bank</title><h1>Your bank</h1><a id="yes" href="/bank/yes">Yes</a>`)
	})
	e.GET("/bank/yes", func(c echo.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		p := a.payments[len(a.payments)-1]
		p.status, p.sub, p.challenge = "SUCCEEDED", "APPROVED", ""
		return c.Redirect(http.StatusSeeOther, "/pay/"+a.session.ID.String())
	})
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests = append(a.requests, r.Method+" "+r.URL.Path)
		a.mu.Unlock()
		e.ServeHTTP(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

// page is where the session is paid.
func (a *fakeAPI) page() string { return a.URL + "/pay/" + a.session.ID.String() }

func (a *fakeAPI) refuse(c echo.Context, status int, code string, messages ...string) error {
	if status == http.StatusConflict {
		c.Response().Header().Set("Retry-After", "1")
	}
	return c.JSON(status, map[string]any{"code": code, "messages": messages})
}

func (a *fakeAPI) getSession(c echo.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return a.refuse(c, 400, "CHECKOUT_SESSION_NOT_FOUND")
	}
	return c.JSON(200, map[string]any{
		"id": a.session.ID, "merchant_order_id": "order-7", "country": "US", "payment_description": "Two concert tickets",
		"amount":       map[string]any{"currency": a.currency, "value": json.RawMessage(a.value)},
		"callback_url": a.session.CallbackURL, "used": a.holder() != nil, "workflow": a.session.Workflow,
	})
}

func (a *fakeAPI) holder() *payment {
	for _, p := range a.payments {
		if p.holds {
			return p
		}
	}
	return nil
}

func (a *fakeAPI) getPayment(c echo.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.holder()
	if p == nil && len(a.payments) > 0 {
		p = a.payments[len(a.payments)-1]
	}
	if p == nil {
		return a.refuse(c, 400, "PAYMENT_NOT_FOUND")
	}
	return c.JSON(200, a.present(p, true))
}

func (a *fakeAPI) present(p *payment, list bool) map[string]any {
	card := map[string]any{"card_data": map[string]any{"brand": "VISA", "lfd": p.lfd}}
	if p.challenge != "" {
		card["redirect_url"] = p.challenge
	}
	var transactions any = map[string]any{"response_code": p.code}
	if list {
		transactions = []any{transactions}
	}
	return map[string]any{
		"id": p.id, "status": p.status, "sub_status": p.sub, "merchant_order_id": "order-7",
		"amount":         map[string]any{"currency": a.currency, "value": json.RawMessage(a.value)},
		"checkout":       map[string]any{"sdk_action_required": p.challenge != ""},
		"payment_method": map[string]any{"payment_method_detail": map[string]any{"card": card}},
		"transactions":   transactions,
	}
}

func (a *fakeAPI) postToken(c echo.Context) error {
	var body struct {
		PaymentMethod struct {
			Card struct {
				Number string `json:"number"`
				Code   string `json:"security_code"`
				Holder string `json:"holder_name"`
				Month  int    `json:"expiration_month"`
				Year   int    `json:"expiration_year"`
			} `json:"card"`
		} `json:"payment_method"`
	}
	if err := json.NewDecoder(c.Request().Body).Decode(&body); err != nil {
		return a.refuse(c, 400, "INVALID_REQUEST")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	card := body.PaymentMethod.Card
	if card.Number == "4000000000000119" {
		return a.refuse(c, 400, "INVALID_PARAMETERS", "payment_method.card.number must be a valid card number")
	}
	token := uuid.NewString()
	a.tokens[token] = card.Number
	return c.JSON(201, map[string]any{"token": token, "card_data": map[string]any{"brand": "VISA", "iin": card.Number[:6], "lfd": card.Number[len(card.Number)-4:]}})
}

// charge begins a payment with a token, under a nonce.
func (a *fakeAPI) charge(nonce, token string) *payment {
	number := a.tokens[token]
	p := &payment{id: uuid.Must(uuid.NewV7()).String(), status: "SUCCEEDED", sub: "APPROVED", code: "SUCCEEDED", lfd: number[len(number)-4:], holds: true}
	switch p.lfd {
	case "0010":
		p.status, p.sub, p.code, p.holds = "DECLINED", "DECLINED", "INSUFFICIENT_FUNDS", false
	case "3220":
		p.status, p.sub, p.code, p.challenge = "PENDING", "WAITING_ADDITIONAL_STEP", "CHALLENGE_REQUIRED", a.URL+"/bank"
	case "0101":
		p.status, p.sub, p.code = "PENDING", "PENDING_PROVIDER_CONFIRMATION", "PENDING_PROVIDER_CONFIRMATION"
	}
	a.used[token] = true
	a.payments = append(a.payments, p)
	a.answers[nonce] = p
	return p
}

func (a *fakeAPI) postPayment(c echo.Context) error {
	var body struct {
		PaymentMethod struct {
			Token string `json:"token"`
		} `json:"payment_method"`
	}
	nonce := c.Request().Header.Get("X-Idempotency-Key")
	if err := json.NewDecoder(c.Request().Body).Decode(&body); err != nil || len(nonce) != 36 || c.Request().Header.Get("public-api-key") != "sandbox_key" {
		a.t.Errorf("a payment request without its parts: nonce %q, %v", nonce, err)
		return a.refuse(c, 400, "INVALID_PARAMETERS")
	}
	token := body.PaymentMethod.Token
	a.mu.Lock()
	a.nonces = append(a.nonces, nonce)
	n, meet := len(a.nonces), a.meet
	a.mu.Unlock()
	charge := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.answers[nonce] == nil && a.holder() == nil && !a.used[token] && a.tokens[token] != "" {
			a.charge(nonce, token)
		}
	}
	if meet != nil && !meet(n, c.Response(), charge) {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.answers[nonce]
	switch {
	case p != nil:
	case a.gone, a.holder() != nil:
		return a.refuse(c, 400, "CHECKOUT_SESSION_NOT_FOUND")
	case a.tokens[token] == "":
		return a.refuse(c, 401, "INVALID_TOKEN")
	case a.used[token]:
		return a.refuse(c, 401, "TOKEN_IN_USE")
	default:
		p = a.charge(nonce, token)
	}
	return c.JSON(201, a.present(p, false))
}

// charges are the payments that took money, or may.
func (a *fakeAPI) charges() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, p := range a.payments {
		if p.status != "DECLINED" {
			n++
		}
	}
	return n
}

// sent are the different nonces that came, in order.
func (a *fakeAPI) sent() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var different []string
	for _, nonce := range a.nonces {
		if !slices.Contains(different, nonce) {
			different = append(different, nonce)
		}
	}
	return different
}

// sends are how many payment requests came.
func (a *fakeAPI) sends() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.nonces)
}

func (a *fakeAPI) do(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// merchant is a shop's own page on another origin.
func merchant(t *testing.T, html func() string, routes map[string]http.HandlerFunc) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, html())
	})
	for pattern, handle := range routes {
		mux.HandleFunc(pattern, handle)
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to this: %s", what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func lines(parts ...string) string { return strings.Join(parts, "\n") }
