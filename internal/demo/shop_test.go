package demo

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/httpapi"
)

// The shop is tested as a whole, against the real API and in a real browser, in test/browser.
// Here are its rules, and what it does when the API misbehaves.

const (
	someCart    = "5b0f4a3e-8a55-4a9e-9a43-0c1f7d1f2a10"
	someSession = "01a204f5-57f7-77d4-9275-7c7225c4172f"
)

// form is a basket's, with some of its fields changed.
func form(changes ...string) url.Values {
	v := url.Values{"cart": {someCart}, "quantity": {"2"}, "lang": {"en"}, "trouble": {"none"}, "payer": {browserPays}}
	for i := 0; i < len(changes); i += 2 {
		v.Set(changes[i], changes[i+1])
	}
	return v
}

func TestABasketIsReadOrRefused(t *testing.T) {
	t.Parallel()
	for _, good := range [][]string{nil, {"quantity", "1"}, {"quantity", "9"}, {"trouble", "slow"}, {"payer", backendPays}, {"lang", "pt"}, {"price", "0.01"}} {
		if _, err := readBasket(form(good...).Get); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range [][]string{
		{"quantity", "0"}, {"quantity", "10"}, {"quantity", "-1"}, {"quantity", "1.5"}, {"quantity", ""}, {"quantity", "99999999999999999999"},
		{"trouble", "sandbox:500"}, {"trouble", ""}, {"payer", ""}, {"payer", "me"}, {"lang", "fr"}, {"cart", ""}, {"cart", "1"},
	} {
		if _, err := readBasket(form(bad...).Get); err == nil {
			t.Errorf("%q is a basket", bad)
		}
	}
}

func TestThePriceIsTheShopsTimesTheQuantity(t *testing.T) {
	t.Parallel()
	for language, want := range map[string]string{"en": "55.5 USD", "es": "960 MXN", "pt": "285 BRL"} {
		b, err := readBasket(form("quantity", "3", "lang", language).Get)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.price().String(); got != want {
			t.Errorf("three cost %s in %s, not %s", got, language, want)
		}
	}
}

// TestTheSameBasketIsTheSameOperation, and one that differs in anything is another: a nonce
// must not come with other parameters.
func TestTheSameBasketIsTheSameOperation(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, v := range []url.Values{
		form(), form("quantity", "3"), form("trouble", "slow"), form("payer", backendPays), form("lang", "es"), form("cart", someSession),
	} {
		b, err := readBasket(v.Get)
		if err != nil {
			t.Fatal(err)
		}
		if seen[b.nonce()] || len(b.nonce()) > 64 {
			t.Errorf("the nonce %s is another basket's, or too long", b.nonce())
		}
		seen[b.nonce()] = true
	}
	again, err := readBasket(form().Get)
	if err != nil || !seen[again.nonce()] {
		t.Errorf("the same basket has another nonce: %v", err)
	}
}

func TestAmountsAreWrittenAsInTheCountry(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ language, amount, want string }{
		{"en", "37", "$37.00"}, {"en", "1234567.5", "$1,234,567.50"}, {"es", "640", "$640.00"}, {"pt", "1190.05", "R$ 1.190,05"}, {"pt", "95", "R$ 95,00"},
	} {
		if got := languages[tt.language].write(decimal.RequireFromString(tt.amount)); got != tt.want {
			t.Errorf("%s is written %q in %s, not %q", tt.amount, got, tt.language, tt.want)
		}
	}
}

func TestTheShopSpeaksTheShoppersLanguage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ asked, accept, want string }{
		{"es", "pt", "es"}, {"", "pt-BR,pt;q=0.9,en;q=0.8", "pt"}, {"", "fr-FR, es;q=0.5", "es"}, {"xx", "", "en"}, {"", "", "en"}, {"PT-br", "", "pt"},
	} {
		if got := languageFor(tt.asked, tt.accept).tag; got != tt.want {
			t.Errorf("%q and %q get %q, not %q", tt.asked, tt.accept, got, tt.want)
		}
	}
}

// TestEachLanguageHasAllTexts.
func TestEachLanguageHasAllTexts(t *testing.T) {
	t.Parallel()
	if len(tags) != len(languages) {
		t.Errorf("the menu has %d of %d languages", len(tags), len(languages))
	}
	for _, tag := range tags {
		v := reflect.ValueOf(*languages[tag])
		for i := range v.NumField() {
			if v.Field(i).Kind() == reflect.String && v.Field(i).String() == "" {
				t.Errorf("%s: %s is empty", tag, v.Type().Field(i).Name)
			}
		}
		for _, tr := range troubles {
			if languages[tag].Troubles[tr.key] == "" {
				t.Errorf("%s: the trouble %s has no text", tag, tr.key)
			}
		}
	}
}

func TestWhatTheShopMakesOfAPayment(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]outcome{
		"SUCCEEDED": paid, "PENDING": waiting, "CREATED": waiting, "READY_TO_PAY": waiting, "TOMORROWS": waiting,
		"DECLINED": failed, "REJECTED": failed, "ERROR": failed, "CANCELED": over, "EXPIRED": over, "REFUNDED": over, "CHARGEBACK": over,
	} {
		if got := outcomeOf(status); got != want {
			t.Errorf("%s is %s, not %s", status, got, want)
		}
	}
}

// api is what the shop calls. It answers with what a test put there, by method and path.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]string // body; a status before it, as in "400 {…}"
	asked   []string
}

func newShopAt(t *testing.T, answers map[string]string) (*httptest.Server, *api) {
	t.Helper()
	a := &api{answers: answers}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked = append(a.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Idempotency-Key")+" "+string(body))
		answer, ok := a.answers[r.Method+" "+r.URL.Path]
		if !ok {
			answer = `404 {"code":"NOT_FOUND"}`
		}
		status := http.StatusOK
		if text, found := strings.CutPrefix(answer, "400 "); found {
			status, answer = http.StatusBadRequest, text
		} else if text, found := strings.CutPrefix(answer, "404 "); found {
			status, answer = http.StatusNotFound, text
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(a.Close)
	e := httpapi.New(httpapi.Options{
		Log: slog.New(slog.DiscardHandler), Describe: func(error) string { return "" }, Transient: func(error) bool { return false },
	})
	Mount(e, Options{
		API: func() string { return a.URL }, AccountID: someSession, PublicKey: "sandbox_key", SecretKey: "sandbox_secret_key",
		Integrity: "sha384-abc", Bank: "http://127.0.0.1:9",
	})
	shop := httptest.NewServer(e)
	t.Cleanup(shop.Close)
	return shop, a
}

// do sends one request and follows no redirect.
func do(t *testing.T, method, address, contentType, body string, header ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{res.StatusCode, res.Header, string(text)}
}

// answered is an answer, read to its end.
type answered struct {
	status int
	header http.Header
	text   string
}

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
	aSession = `{"checkout_session":"` + someSession + `","id":"` + someSession + `","merchant_order_id":"DEMO-5B0F4A3E","payment_description":"<b>cup</b>",
		"country":"US","amount":{"currency":"USD","value":37},"workflow":"SDK_CHECKOUT","metadata":[{"key":"quantity","value":"2"}],"created_at":"2026-11-22T20:00:00Z"}`
)

// TestAnOrderIsASession that the shop describes, whatever else the form says.
func TestAnOrderIsASession(t *testing.T) {
	t.Parallel()
	shop, a := newShopAt(t, map[string]string{"POST /v1/checkout/sessions": aSession})
	res := do(t, http.MethodPost, shop.URL+Path+"/orders", formType, form("trouble", "slow", "amount", "0.01", "currency", "BRL").Encode())
	if got, want := res.header.Get("Location"), ordersPath+someSession+"?lang=en"; res.status != http.StatusSeeOther || got != want {
		t.Fatalf("%d to %q, not to %q", res.status, got, want)
	}
	_, sent, _ := strings.Cut(a.asked[0], "{")
	var session map[string]any
	if err := json.Unmarshal([]byte("{"+sent), &session); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"account_id": someSession, "merchant_order_id": "DEMO-5B0F4A3E", "payment_description": "sandbox:slow=3s", "country": "US",
		"amount": map[string]any{"currency": "USD", "value": 37.0}, "workflow": "SDK_SEAMLESS", "callback_url": shop.URL + "/demo?lang=en",
		"metadata": []any{map[string]any{"key": "quantity", "value": "2"}},
	}
	if !reflect.DeepEqual(session, want) {
		t.Errorf("the session is %v, not %v", session, want)
	}
}

// TestTheSecretKeyStaysInTheBackend: no page has it.
func TestTheSecretKeyStaysInTheBackend(t *testing.T) {
	t.Parallel()
	shop, _ := newShopAt(t, map[string]string{
		"GET /v1/checkout/sessions/" + someSession:              aSession,
		"GET /v1/checkout/sessions/" + someSession + "/payment": `400 {"code":"PAYMENT_NOT_FOUND"}`,
	})
	for _, path := range []string{Path, ordersPath + someSession, ordersPath + someSession + "/thanks", ordersPath + "x"} {
		res := do(t, http.MethodGet, shop.URL+path, "", "")
		if strings.Contains(res.text, "sandbox_secret_key") {
			t.Errorf("%s has the secret key", path)
		}
		if strings.Contains(res.text, "<b>cup") {
			t.Errorf("%s has markup of a session", path)
		}
		policy := res.header.Get("Content-Security-Policy")
		if strings.Contains(policy, "unsafe") || !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-src 'self' http://127.0.0.1:9;") {
			t.Errorf("%s has the policy %q", path, policy)
		}
		if inline := regexp.MustCompile(`(?i)<script>|<style|\son[a-z]+=|\sstyle=|javascript:`).FindString(res.text); inline != "" {
			t.Errorf("%s has something inline: %q", path, inline)
		}
		if elsewhere := regexp.MustCompile(`(src|href|action)="(https?:)?//`).FindString(res.text); elsewhere != "" {
			t.Errorf("%s takes something from elsewhere: %q", path, elsewhere)
		}
	}
}

// TestTheBackendPaysWhatTheSessionSays, with the nonce and the token that it was given.
func TestTheBackendPaysWhatTheSessionSays(t *testing.T) {
	t.Parallel()
	shop, a := newShopAt(t, map[string]string{
		"GET /v1/checkout/sessions/" + someSession:              aSession,
		"GET /v1/checkout/sessions/" + someSession + "/payment": `400 {"code":"PAYMENT_NOT_FOUND"}`,
		"POST /v1/payments": `{"id":"` + someSession + `","status":"SUCCEEDED","amount":{"currency":"USD","value":37,"captured":0,"refunded":0}}`,
	})
	res := do(t, http.MethodPost, shop.URL+ordersPath+someSession+"/payments", jsonType, `{"token":"a-token","nonce":"a-nonce","amount":0.01}`)
	if res.status != http.StatusOK {
		t.Fatalf("%d %s", res.status, res.text)
	}
	paying := a.asked[len(a.asked)-1]
	for _, part := range []string{
		"POST /v1/payments a-nonce ", `"value":37`, `"currency":"USD"`, `"merchant_order_id":"DEMO-5B0F4A3E"`, `"session":"` + someSession + `"`, `"token":"a-token"`,
		`"callback_url":"` + shop.URL + "/pay/" + someSession + `"`,
	} {
		if !strings.Contains(paying, part) {
			t.Errorf("the payment is without %s: %s", part, paying)
		}
	}
}

// TestAnAPIThatIsOddIsSaidToBe: no page of the shop claims what nobody knows.
func TestAnAPIThatIsOddIsSaidToBe(t *testing.T) {
	t.Parallel()
	gone, _ := newShopAt(t, map[string]string{"GET /v1/checkout/sessions/" + someSession: `400 {"code":"CHECKOUT_SESSION_NOT_FOUND"}`})
	odd, _ := newShopAt(t, map[string]string{
		"GET /v1/checkout/sessions/" + someSession: aSession, "GET /v1/checkout/sessions/" + someSession + "/payment": `404 a proxy's page`,
	})
	for _, tt := range []struct {
		method, address, contentType, body string
		status                             int
		says                               string
	}{
		{http.MethodGet, gone.URL + ordersPath + someSession, "", "", http.StatusNotFound, "no such order"},
		{http.MethodGet, gone.URL + ordersPath + "x/thanks", "", "", http.StatusNotFound, "no such order"},
		{http.MethodGet, gone.URL + ordersPath + someSession + "/status", "", "", http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE"},
		{http.MethodGet, odd.URL + ordersPath + someSession + "/thanks", "", "", http.StatusBadGateway, "has a problem"},
		{http.MethodPost, odd.URL + Path + "/orders", formType, form().Encode(), http.StatusBadGateway, "has a problem"},
		{http.MethodPost, odd.URL + Path + "/orders", formType, form("quantity", "0").Encode(), http.StatusBadRequest, "has a problem"},
		{http.MethodPost, odd.URL + ordersPath + someSession + "/payments", jsonType, `{"token":"x","nonce":"n"}`, http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE"},
		{http.MethodPost, odd.URL + ordersPath + someSession + "/payments", jsonType, `no JSON`, http.StatusBadRequest, "INVALID_REQUEST"},
		{http.MethodGet, odd.URL + assetsPath + "shop.js", "", "", http.StatusNotFound, "NOT_FOUND"},
	} {
		res := do(t, tt.method, tt.address, tt.contentType, tt.body)
		if res.status != tt.status || !strings.Contains(res.text, tt.says) {
			t.Errorf("%s %s: %d, not %d with %q: %s", tt.method, tt.address, res.status, tt.status, tt.says, res.text)
		}
	}
}

// TestAnotherPagesRequestIsRefused before the API is asked for anything.
func TestAnotherPagesRequestIsRefused(t *testing.T) {
	t.Parallel()
	shop, a := newShopAt(t, nil)
	for path, body := range map[string][2]string{
		Path + "/orders":                       {formType, form().Encode()},
		ordersPath + someSession + "/payments": {jsonType, `{"token":"x","nonce":"n"}`},
	} {
		for _, site := range []string{"cross-site", "same-site"} {
			if res := do(t, http.MethodPost, shop.URL+path, body[0], body[1], "Sec-Fetch-Site", site); res.status != http.StatusForbidden {
				t.Errorf("%s from %s: %d %s", path, site, res.status, res.text)
			}
		}
	}
	if len(a.asked) != 0 {
		t.Errorf("the API was asked %q", a.asked)
	}
}
