package merchants

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/postgres"
)

// counter is a listener with a route for browsers, one for both and one for backends. Each
// tells whom it was called by.
type counter struct {
	*bench
	server *httptest.Server
	logs   *bytes.Buffer // read it only when no request runs
}

// nested is how errors look to the clients of a merchant with the policy novu.
func nested(policy string) apierr.Style {
	if policy == "novu" {
		return apierr.Nest
	}
	return apierr.Envelope
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	k := &counter{bench: newBench(t), logs: &bytes.Buffer{}}
	e := httpapi.New(httpapi.Options{
		Log: slog.New(slog.NewJSONHandler(k.logs, nil)), Transient: postgres.IsTransient, Describe: postgres.Describe,
		Style: func(r *http.Request) apierr.Style { return nested(k.PolicyOfKey(r.Header.Get(HeaderPublicKey))) },
	})
	cors := httpapi.NewCORS(k.KnownOrigin, func() string { return "" })
	e.Use(httpapi.RefuseSecretsFromBrowsers(HeaderSecret))
	e.Use(cors.Preflights)
	browsers := NewBrowsers(k.Service, cors)
	tell := func(c echo.Context) error {
		browser, public := BrowserOf(c)
		return c.JSON(http.StatusOK, told{CallerOf(c), public, browser.MerchantName, browser.AccountID.String()})
	}
	browsers.Add(e, http.MethodPost, "/v1/sessions/:session/token", tell)
	browsers.AddEither(e, http.MethodGet, "/v1/sessions/:session", tell, nested)
	e.POST("/v1/sessions", tell, Authenticate(k.Service, nested))
	k.server = httptest.NewServer(e)
	t.Cleanup(k.server.Close)
	return k
}

// told is what a handler says of its caller.
type told struct {
	Caller       Caller
	Public       bool
	MerchantName string
	Browser      string
}

// ask sends a request with headers, name by value.
func (k *counter) ask(method, path string, headers ...string) (status int, header http.Header, answer []byte) {
	k.t.Helper()
	req, err := http.NewRequestWithContext(k.t.Context(), method, k.server.URL+path, http.NoBody)
	if err != nil {
		k.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := k.server.Client().Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if answer, err = io.ReadAll(res.Body); err != nil {
		k.t.Fatal(err)
	}
	return res.StatusCode, res.Header, answer
}

const (
	tokenPath   = "/v1/sessions/01a20234-5b0c-7c8e-9a44-0c61f8b2f1aa/token"
	sessionPath = "/v1/sessions/01a20234-5b0c-7c8e-9a44-0c61f8b2f1aa"
)

func TestBrowserIsLetInByThePublicKeyAloneFromPagesThatMayCall(t *testing.T) {
	t.Parallel()
	k := newCounter(t)
	m, pair, err := k.Create(t.Context(), "First", "novu", shop)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Create(t.Context(), "Second", "", other); err != nil {
		t.Fatal(err)
	}
	live, err := k.CreateKey(t.Context(), m.AccountID, Live, netip.MustParsePrefix("203.0.113.7/32")) // where no browser is
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pair     KeyPair
		origin   string
		readable string // Access-Control-Allow-Origin
	}{{pair, shop, shop}, {live, shop, shop}, {pair, k.server.URL, ""}} {
		for method, path := range map[string]string{http.MethodPost: tokenPath, http.MethodGet: sessionPath} {
			status, header, answer := k.ask(method, path, HeaderPublicKey, c.pair.PublicAPIKey, "Origin", c.origin)
			var got told
			want := told{Caller{m.AccountID, c.pair.Mode, "novu"}, true, "First", m.AccountID.String()}
			if err := json.Unmarshal(answer, &got); err != nil || status != http.StatusOK || got != want || header.Get("Access-Control-Allow-Origin") != c.readable {
				t.Errorf("%s from %s: %d %s, readable by %q", method, c.origin, status, answer, header.Get("Access-Control-Allow-Origin"))
			}
		}
	}
	for name, c := range map[string]struct {
		publicKey, origin string
		status            int
		code              string
	}{
		"no key":                  {"", shop, 401, "INVALID_CREDENTIALS"},
		"an unknown key":          {"sandbox_unheard_of", shop, 401, "INVALID_CREDENTIALS"},
		"a page of somebody else": {pair.PublicAPIKey, other, 403, "AUTHORIZATION_REQUIRED"},
		"a page of nobody":        {pair.PublicAPIKey, "https://evil.example", 403, "AUTHORIZATION_REQUIRED"},
		"a locked page":           {pair.PublicAPIKey, "null", 403, "AUTHORIZATION_REQUIRED"},
	} {
		for method, path := range map[string]string{http.MethodPost: tokenPath, http.MethodGet: sessionPath} {
			status, header, answer := k.ask(method, path, HeaderPublicKey, c.publicKey, "Origin", c.origin)
			// In the one form that browsers are told, whatever the merchant's policy.
			if status != c.status || !bytes.Contains(answer, []byte(`{"code":"`+c.code+`","messages":["`)) || header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s, %s: %d %s", name, method, status, answer)
			}
		}
	}
	if !strings.Contains(k.logs.String(), `"status":403`) || strings.Contains(k.logs.String(), "evil") {
		t.Error("the log shows no refusal, or an origin that somebody chose")
	}
	// The account's list is what counts, from the next request on.
	if _, err := k.Update(t.Context(), m.AccountID, Update{Origins: []string{other}}); err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]int{shop: 403, other: 200} {
		if status, _, answer := k.ask(http.MethodPost, tokenPath, HeaderPublicKey, pair.PublicAPIKey, "Origin", origin); status != want {
			t.Errorf("after the change, from %s: %d %s", origin, status, answer)
		}
	}
}

func TestSharedRouteKnowsBackendsByTheirSecret(t *testing.T) {
	t.Parallel()
	k := newCounter(t)
	m, pair, err := k.Create(t.Context(), "First", "novu", shop)
	if err != nil {
		t.Fatal(err)
	}
	status, header, answer := k.ask(http.MethodGet, sessionPath, HeaderPublicKey, pair.PublicAPIKey, HeaderSecret, pair.PrivateSecretKey)
	var got told
	if err := json.Unmarshal(answer, &got); err != nil || status != http.StatusOK || got.Caller.AccountID != m.AccountID || got.Public || got.MerchantName != "" || header.Get("Vary") != "Origin" {
		t.Errorf("a backend: %d %s, Vary %q", status, answer, header.Get("Vary"))
	}
	// Whoever has shown a secret is never taken for a browser instead.
	for _, secret := range []string{"wrong", ""} {
		status, _, answer := k.ask(http.MethodGet, sessionPath, HeaderPublicKey, pair.PublicAPIKey, HeaderSecret, secret)
		if status != http.StatusUnauthorized || !bytes.Contains(answer, []byte(`"message":"public-api-key and private-secret-key must be a valid pair"`)) {
			t.Errorf("a wrong secret: %d %s", status, answer)
		}
	}
	// And a public key opens nothing that is for backends.
	if status, _, answer := k.ask(http.MethodPost, "/v1/sessions", HeaderPublicKey, pair.PublicAPIKey, "Origin", shop); status != http.StatusUnauthorized {
		t.Errorf("a browser on a backend's route: %d %s", status, answer)
	}
	for _, path := range []string{sessionPath, "/v1/sessions"} {
		status, _, answer := k.ask(http.MethodGet, path, HeaderPublicKey, pair.PublicAPIKey, HeaderSecret, pair.PrivateSecretKey, "Origin", shop)
		if status != http.StatusForbidden || !bytes.Contains(answer, []byte("private-secret-key belongs on a server")) {
			t.Errorf("%s, both: %d %s", path, status, answer)
		}
	}
	if strings.Contains(k.logs.String(), pair.PrivateSecretKey) {
		t.Error("the log shows the secret")
	}
}

func TestBrowserThatCannotBeJudgedNowIsToldToComeBack(t *testing.T) {
	t.Parallel()
	k := newCounter(t)
	k.RefuseAfter(4 * time.Second)
	_, pair, err := k.Create(t.Context(), "First", "", shop)
	if err != nil {
		t.Fatal(err)
	}
	later(k.Service, 5*time.Second)
	status, header, answer := k.ask(http.MethodPost, tokenPath, HeaderPublicKey, pair.PublicAPIKey, "Origin", shop)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") != "1" {
		t.Errorf("told %d %s", status, answer)
	}
}

// However its id is written: a session's limit is the session's.
func TestBrowserThatAsksTooMuchOfASessionIsToldToWait(t *testing.T) {
	t.Parallel()
	k := newCounter(t)
	_, pair, err := k.Create(t.Context(), "First", "", shop)
	if err != nil {
		t.Fatal(err)
	}
	for i := range OrdersPerSession + 1 {
		path := tokenPath
		if i%2 == 1 {
			path = strings.Replace(path, "01a20234-5b0c", "01A20234-5B0C", 1)
		}
		status, header, answer := k.ask(http.MethodPost, path, HeaderPublicKey, pair.PublicAPIKey, "Origin", shop)
		switch {
		case i < OrdersPerSession && status != http.StatusOK:
			t.Fatalf("request %d: %d %s", i+1, status, answer)
		case i == OrdersPerSession && (status != http.StatusTooManyRequests || header.Get("Retry-After") == "" || header.Get("Access-Control-Allow-Origin") != shop):
			t.Errorf("one too many: %d %s, readable by %q", status, answer, header.Get("Access-Control-Allow-Origin"))
		}
	}
	if status, _, answer := k.ask(http.MethodGet, sessionPath, HeaderPublicKey, pair.PublicAPIKey, "Origin", shop); status != http.StatusOK {
		t.Errorf("to look on is counted for itself: %d %s", status, answer)
	}
	if status, _, answer := k.ask(http.MethodPost, "/v1/sessions/another/token", HeaderPublicKey, pair.PublicAPIKey, "Origin", shop); status != http.StatusOK {
		t.Errorf("another session: %d %s", status, answer)
	}
}
