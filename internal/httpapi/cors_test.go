package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

// Two origins: the caller of these tests has registered one, and somebody else both.
const (
	shop    = "https://shop.example"
	another = "https://another.example"
)

const notRegistered = "the page's origin is not registered with the account that public-api-key belongs to"

// shops is an edge with one path for browsers and backends, and one for backends alone. Its
// handlers tell that they were reached.
func shops(t *testing.T, base string) *edge {
	t.Helper()
	return newEdge(t, func(e *echo.Echo) {
		cors := NewCORS(func(origin string) bool { return origin == shop || origin == another }, func() string { return base })
		e.Use(RefuseSecretsFromBrowsers("private-secret-key"))
		e.Use(cors.Preflights)
		reached := func(c echo.Context) error {
			c.Response().Header().Set("Reached", "yes")
			if c.QueryParam("fail") != "" {
				return apierr.New(apierr.CheckoutSessionNotFound, "there is none").Retry(3)
			}
			return c.NoContent(http.StatusCreated)
		}
		admit := func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				if err := cors.Admit(c, func(origin string) bool { return origin == shop }); err != nil {
					return err
				}
				return next(c)
			}
		}
		cors.Add(e, http.MethodPost, "/v1/open/:id/token", reached, admit)
		cors.Add(e, http.MethodGet, "/v1/open/:id/token", reached, admit)
		cors.Add(e, http.MethodPost, "/v1/open/:id/unauthenticated", func(echo.Context) error {
			return apierr.New(apierr.InvalidCredentials, "no")
		})
		e.PATCH("/v1/open/:id/token", reached)
		e.POST("/v1/closed", reached)
		e.POST("/pay/:id", reached)
	})
}

// corsHeaders are what an answer tells a browser about who may read it.
func corsHeaders(h http.Header) map[string]string {
	found := map[string]string{}
	for name, values := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			found[name] = strings.Join(values, " | ")
		}
	}
	return found
}

func TestPreflightTellsKnownPagesAloneThatTheyMayGoOn(t *testing.T) {
	t.Parallel()
	x := shops(t, "")
	for origin, known := range map[string]bool{
		shop: true, another: true, "https://evil.example": false, "null": false, shop + "/": false, "http://shop.example": false,
		"HTTPS://shop.example": false, shop + ":443": false, shop + ".evil.example": false, "*": false,
	} {
		a := x.call(http.MethodOptions, "/v1/open/4711/token", nil, "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,public-api-key,x-idempotency-key")
		want := map[string]string{
			"Access-Control-Allow-Methods": "POST, GET", // PATCH is the backend's
			"Access-Control-Allow-Headers": "content-type, public-api-key, x-idempotency-key, x-request-id",
			"Access-Control-Max-Age":       "7200",
		}
		if known {
			want["Access-Control-Allow-Origin"] = origin
		}
		got := corsHeaders(a.header)
		if a.status != http.StatusNoContent || len(a.body) != 0 || len(got) != len(want) || !slices.Equal(a.header.Values("Vary"), []string{"Origin"}) {
			t.Errorf("%s: %d %v, Vary %q", origin, a.status, got, a.header.Values("Vary"))
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %q, want %q", origin, name, got[name], value)
			}
		}
		if a.header.Get("Reached") != "" {
			t.Errorf("%s: a question in advance reached the handler", origin)
		}
	}
}

func TestPreflightOfWhatBrowsersMayNotCallIsNotAnswered(t *testing.T) {
	t.Parallel()
	x := shops(t, "")
	for _, path := range []string{"/v1/closed", "/pay/4711", "/v1/nothing", "/v1/open/4711", "/v1/open/4711/token/more"} {
		a := x.call(http.MethodOptions, path, nil, "Origin", shop, "Access-Control-Request-Method", "POST")
		if got := corsHeaders(a.header); len(got) != 0 || a.header.Get("Reached") != "" {
			t.Errorf("%s: %d %v", path, a.status, got)
		}
	}
	a := x.call(http.MethodOptions, "/v1/open/4711/token", nil, "Origin", shop) // no preflight
	if got := corsHeaders(a.header); len(got) != 0 {
		t.Errorf("a question of no browser: %d %v", a.status, got)
	}
}

func TestPageThatTheCallerHasRegisteredMayReadItsAnswer(t *testing.T) {
	t.Parallel()
	x := shops(t, "")
	for path, status := range map[string]int{"/v1/open/4711/token": http.StatusCreated, "/v1/open/4711/token?fail=1": http.StatusBadRequest} {
		a := x.call(http.MethodPost, path, strings.NewReader("{}"), "Origin", shop, "Content-Type", "application/json")
		got := corsHeaders(a.header)
		if a.status != status || a.header.Get("Reached") == "" || len(got) != 2 || got["Access-Control-Allow-Origin"] != shop ||
			got["Access-Control-Expose-Headers"] != "Retry-After, Idempotent-Replayed, X-Request-Id" || !slices.Equal(a.header.Values("Vary"), []string{"Origin"}) {
			t.Errorf("%s: %d %v, Vary %q", path, a.status, got, a.header.Values("Vary"))
		}
	}
}

func TestPageThatTheCallerHasNotRegisteredIsRefusedBeforeAnythingIsDone(t *testing.T) {
	t.Parallel()
	x := shops(t, "https://pay.example")
	for _, origin := range []string{
		another, "https://evil.example", "null", "", "*", shop + "/", shop + ".evil.example", "http://shop.example", "https://SHOP.example",
		shop + ", " + another, "https://pay.example.evil.example", "https://evilpay.example", "http://pay.example", "https://pay.example:8443",
		"http://127.0.0.1", "https://", "http://",
	} {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			a := x.call(method, "/v1/open/4711/token", nil, "Origin", origin)
			x.wantError(a, http.StatusForbidden, "AUTHORIZATION_REQUIRED", notRegistered)
			if got := corsHeaders(a.header); len(got) != 0 || a.header.Get("Reached") != "" || !slices.Equal(a.header.Values("Vary"), []string{"Origin"}) {
				t.Errorf("%s %q: %v, Vary %q, reached: %q", method, origin, got, a.header.Values("Vary"), a.header.Get("Reached"))
			}
		}
	}
	// A browser has one origin.
	for _, origins := range [][]string{{shop, shop}, {shop, another}, {another, shop}, {x.server.URL, x.server.URL}} {
		x.wantError(x.call(http.MethodPost, "/v1/open/4711/token", nil, "Origin", origins[0], "Origin", origins[1]), http.StatusForbidden, "AUTHORIZATION_REQUIRED", notRegistered)
	}
	// Who is refused for another reason learns nothing more of who may.
	for _, origin := range []string{shop, another, "https://evil.example"} {
		a := x.call(http.MethodPost, "/v1/open/4711/unauthenticated", nil, "Origin", origin)
		if got := corsHeaders(a.header); a.status != http.StatusUnauthorized || len(got) != 0 || a.header.Get("Vary") != "Origin" {
			t.Errorf("%s: %d %v", origin, a.status, got)
		}
	}
}

func TestOurOwnPagesAndWhatIsNoPageNeedNoEntry(t *testing.T) {
	t.Parallel()
	x := shops(t, "https://Pay.example:443/base")
	host := strings.TrimPrefix(x.server.URL, "http://")
	for _, origin := range []string{x.server.URL, "https://" + host, "https://pay.example"} { // the second: TLS ends in front of us
		a := x.call(http.MethodPost, "/v1/open/4711/token", nil, "Origin", origin)
		if got := corsHeaders(a.header); a.status != http.StatusCreated || len(got) != 0 || a.header.Get("Vary") != "Origin" {
			t.Errorf("%s: %d %v", origin, a.status, got)
		}
	}
	if a := x.call(http.MethodGet, "/v1/open/4711/token", nil); a.status != http.StatusCreated || len(corsHeaders(a.header)) != 0 {
		t.Errorf("without an origin: %d %v", a.status, a.header)
	}
}

// A page that came without TLS was written by whoever was on the way.
func TestOurOwnPageIsReachedTheWayWeAre(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		target, base, origin string // target begins with https: by TLS
		own                  bool
	}{
		{"https://pay.example/", "", "https://pay.example", true},
		{"https://pay.example:443/", "", "https://pay.example", true},
		{"https://PAY.example/", "", "https://pay.example", true},
		{"https://pay.example:8443/", "", "https://pay.example:8443", true},
		{"https://pay.example/", "", "http://pay.example", false},
		{"https://pay.example:8443/", "", "https://pay.example", false},
		{"https://pay.example/", "", "https://pay.example:443", false},
		{"https://pay.example/", "", "https://PAY.example", false},
		{"http://pay.example/", "", "http://pay.example", true},
		{"http://pay.example:80/", "", "http://pay.example", true},
		{"http://pay.example/", "", "https://pay.example", true},
		{"http://pay.example:443/", "", "https://pay.example", true},
		{"http://inner:8080/", "", "https://pay.example", false},
		{"http://inner:8080/", "https://pay.example", "https://pay.example", true},
		{"http://inner:8080/", "https://pay.example", "http://pay.example", false},
		{"http://inner:8080/", "http://pay.example:80", "http://pay.example", true},
		{"http://inner:8080/", "no URL %", "https://pay.example", false},
		{"http://inner:8080/", "https:", "https:", false},
		{"http://inner:8080/", "https:", "https://", false},
		{"http://inner:8080/", "", "", false},
	} {
		x := NewCORS(func(string) bool { return false }, func() string { return c.base })
		if got := x.isOwn(httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.target, nil), c.origin); got != c.own {
			t.Errorf("%q, asked at %s (%q), is our own: %t", c.origin, c.target, c.base, got)
		}
	}
}

func TestSecretFromABrowserIsRefusedBeforeAnythingIsLookedAt(t *testing.T) {
	t.Parallel()
	x := shops(t, "")
	messages := []string{
		"private-secret-key belongs on a server, and this request has an Origin, as browsers send it: call from your backend, without that header",
		"if the secret was ever in a page or an app, revoke its key",
	}
	for _, path := range []string{"/v1/closed", "/v1/open/4711/token", "/v1/nothing", "/v1/open/4711/unauthenticated"} {
		for _, origin := range []string{shop, x.server.URL, "null", ""} {
			for _, secret := range []string{"sandbox_secret_geheim", ""} {
				a := x.call(http.MethodPost, path, io.LimitReader(strings.NewReader("{"), 1), "Origin", origin, "Private-Secret-Key", secret, "Content-Type", "application/json")
				x.wantError(a, http.StatusForbidden, "AUTHORIZATION_REQUIRED", messages...)
				if a.header.Get("Reached") != "" || len(corsHeaders(a.header)) != 0 {
					t.Errorf("%s from %q: %v", path, origin, a.header)
				}
			}
		}
	}
	for _, headers := range [][]string{{"private-secret-key", "sandbox_secret_geheim"}, {"Origin", shop}, {}} {
		if a := x.call(http.MethodPost, "/v1/closed", nil, headers...); a.status != http.StatusCreated {
			t.Errorf("with %q: %d", headers, a.status)
		}
	}
	if a := x.call(http.MethodPost, "/pay/4711", nil, "private-secret-key", "a", "Origin", shop); a.status != http.StatusCreated {
		t.Errorf("a path that is not the API's: %d", a.status)
	}
	if strings.Contains(x.logs.String(), "geheim") {
		t.Error("the log shows the secret")
	}
}
