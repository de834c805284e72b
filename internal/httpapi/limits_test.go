package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

// newLimitedEdge serves the routes that mount adds behind the limits of o.
func newLimitedEdge(t *testing.T, o Options, mount func(e *echo.Echo)) *edge {
	t.Helper()
	x := &edge{t: t, logs: &logs{}}
	o.Log = slog.New(slog.NewJSONHandler(x.logs, nil))
	o.Transient = func(error) bool { return false }
	o.Describe = func(error) string { return "described" }
	e := New(o)
	mount(e)
	x.server = httptest.NewServer(e)
	t.Cleanup(x.server.Close)
	return x
}

// secured is a route that wants the key "right".
func secured(e *echo.Echo) {
	e.GET("/", func(c echo.Context) error {
		if c.Request().Header.Get("Key") != "right" {
			return apierr.New(apierr.InvalidCredentials, "Key must be right")
		}
		return JSON(c, http.StatusOK, []byte("{}"))
	})
	e.GET("/token", func(echo.Context) error { return apierr.New(apierr.InvalidToken, "no such token") })
}

func TestWhoFailsTooOftenIsToldToWaitAndNobodyElseIs(t *testing.T) {
	t.Parallel()
	x := newLimitedEdge(t, Options{FailedAuth: 3}, secured)
	for range 5 { // neither right credentials nor other failures count
		if a := x.call(http.MethodGet, "/", nil, "Key", "right"); a.status != http.StatusOK {
			t.Fatalf("right credentials: got %d", a.status)
		}
		x.wantError(x.call(http.MethodGet, "/token", nil), http.StatusUnauthorized, "INVALID_TOKEN", "no such token")
		if a := x.call(http.MethodGet, "/nothing", nil); a.status != http.StatusNotFound {
			t.Fatalf("an unknown path: got %d", a.status)
		}
	}
	for range 3 {
		x.wantError(x.call(http.MethodGet, "/", nil, "Key", "wrong"), http.StatusUnauthorized, "INVALID_CREDENTIALS", "Key must be right")
	}
	a := x.call(http.MethodGet, "/", nil)
	x.wantError(a, http.StatusTooManyRequests, "RATE_LIMITED", "too many requests with wrong credentials came from this address; correct them, and wait")
	if got := a.header.Get("Retry-After"); got != "20" && got != "19" { // three a minute; some of the first 20 s may have passed
		t.Errorf("Retry-After is %q", got)
	}
	if a := x.call(http.MethodGet, "/", nil, "Key", "right"); a.status != http.StatusOK {
		t.Errorf("right credentials from the same address, afterwards: got %d", a.status)
	}
	if log := x.logs.String(); strings.Contains(log, "127.0.0.1") || strings.Contains(log, "::1") {
		t.Error("the log has the client's address")
	}
}

// A client's word about its address counts only if a trusted proxy passes it on.
func TestAddressIsWhatTrustedProxiesSayAndNobodyElse(t *testing.T) {
	t.Parallel()
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, s := range texts {
			all = append(all, netip.MustParsePrefix(s))
		}
		return all
	}
	for name, c := range map[string]struct {
		trusted   []netip.Prefix
		remote    string
		forwarded []string
		want      string
	}{
		"nobody is trusted":                          {nil, "127.0.0.1:5", []string{"203.0.113.1"}, "127.0.0.1"},
		"loopback is trusted if it is named only":    {prefixes("10.0.0.0/8"), "127.0.0.1:5", []string{"203.0.113.1"}, "127.0.0.1"},
		"so are private networks":                    {prefixes("10.1.0.0/16"), "192.168.1.1:5", []string{"203.0.113.1"}, "192.168.1.1"},
		"and link-local ones":                        {prefixes("10.1.0.0/16"), "169.254.1.1:5", []string{"203.0.113.1"}, "169.254.1.1"},
		"a trusted proxy is believed":                {prefixes("10.0.0.0/8"), "10.1.2.3:5", []string{"203.0.113.1"}, "203.0.113.1"},
		"the first that is not trusted counts":       {prefixes("10.0.0.0/8"), "10.1.2.3:5", []string{"198.51.100.7, 203.0.113.1, 10.9.9.9"}, "203.0.113.1"},
		"over several headers":                       {prefixes("10.0.0.0/8"), "10.1.2.3:5", []string{"198.51.100.7", "203.0.113.1"}, "203.0.113.1"},
		"a proxy that says nothing":                  {prefixes("10.0.0.0/8"), "10.1.2.3:5", nil, "10.1.2.3"},
		"nonsense makes all of it worthless":         {prefixes("10.0.0.0/8"), "10.1.2.3:5", []string{"geheim"}, "10.1.2.3"},
		"another header is not looked at":            {prefixes("10.0.0.0/8"), "10.1.2.3:5", nil, "10.1.2.3"},
		"an IPv6 proxy":                              {prefixes("fd00:1::/32"), "[fd00:1::9]:5", []string{"203.0.113.1"}, "203.0.113.1"},
		"IPv6 clients count by their network":        {nil, "[2001:db8:1:2:3:4:5:6]:5", nil, "2001:db8:1:2::/64"},
		"IPv4 in IPv6 is IPv4":                       {nil, "[::ffff:203.0.113.1]:5", nil, "203.0.113.1"},
		"a zone makes no other address":              {nil, "[fe80::1%eth0]:5", nil, "fe80::/64"},
		"a connection without an address has a name": {nil, "@", nil, ""},
	} {
		e := echo.New()
		e.IPExtractor = addressFrom(c.trusted)
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		req.RemoteAddr = c.remote
		req.Header.Set("X-Real-Ip", "198.51.100.99")
		if c.forwarded != nil {
			req.Header["X-Forwarded-For"] = c.forwarded
		}
		if got := AddressOf(e.NewContext(req, httptest.NewRecorder())); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Forged addresses don't help who fails: the connection's address counts.
func TestForgedAddressesShareOneAllowance(t *testing.T) {
	t.Parallel()
	x := newLimitedEdge(t, Options{FailedAuth: 2}, secured)
	var statuses []int
	for _, forged := range []string{"198.51.100.1", "198.51.100.2", "198.51.100.3"} {
		statuses = append(statuses, x.call(http.MethodGet, "/", nil, "X-Forwarded-For", forged).status)
	}
	if statuses[0] != 401 || statuses[1] != 401 || statuses[2] != 429 {
		t.Errorf("got %v", statuses)
	}
	trusting := newLimitedEdge(t, Options{FailedAuth: 2, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}, secured)
	for _, client := range []string{"198.51.100.1", "198.51.100.2", "198.51.100.3"} {
		if a := trusting.call(http.MethodGet, "/", nil, "X-Forwarded-For", client); a.status != http.StatusUnauthorized {
			t.Errorf("a client of its own behind a trusted proxy: got %d", a.status)
		}
	}
}

func TestOneRequestTooManyIsRefusedUnseen(t *testing.T) {
	t.Parallel()
	const most = 2
	arrived, release := make(chan struct{}), make(chan struct{})
	probes := NewProbes(func(context.Context) error { return nil }, slog.New(slog.DiscardHandler))
	probes.Serve()
	x := newLimitedEdge(t, Options{MaxInFlight: most, Probes: probes}, func(e *echo.Echo) {
		e.POST("/", func(c echo.Context) error {
			arrived <- struct{}{}
			<-release
			return JSON(c, http.StatusOK, []byte("{}"))
		})
	})
	answers := make(chan answer, most)
	for range most {
		go func() { answers <- x.call(http.MethodPost, "/", nil) }()
	}
	for range most {
		<-arrived
	}
	for _, path := range []string{"/", "/nothing"} {
		a := x.call(http.MethodPost, path, strings.NewReader("{}"))
		x.wantError(a, http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE", "too many requests are in flight; retry with the same key")
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
		}
	}
	for _, path := range []string{LivezPath, ReadyzPath} {
		if a := x.call(http.MethodGet, path, nil); a.status != http.StatusOK {
			t.Errorf("%s at the limit: got %d", path, a.status)
		}
	}
	close(release)
	for range most {
		if a := <-answers; a.status != http.StatusOK {
			t.Errorf("one within the limit: got %d", a.status)
		}
	}
	go func() { <-arrived }()
	if a := x.call(http.MethodPost, "/", nil); a.status != http.StatusOK {
		t.Errorf("afterwards: got %d", a.status)
	}
}

// A place is given back whatever becomes of a request.
func TestAPlaceIsGivenBackAfterAPanicToo(t *testing.T) {
	t.Parallel()
	x := newLimitedEdge(t, Options{MaxInFlight: 1}, func(e *echo.Echo) {
		e.GET("/panic", func(echo.Context) error { panic("geheim") })
		e.GET("/error", func(echo.Context) error { return errors.New("geheim") })
		e.GET("/", func(c echo.Context) error { return JSON(c, http.StatusOK, []byte("{}")) })
	})
	for _, path := range []string{"/panic", "/error"} {
		if a := x.call(http.MethodGet, path, nil); a.status != http.StatusInternalServerError {
			t.Errorf("%s: got %d", path, a.status)
		}
	}
	if a := x.call(http.MethodGet, "/", nil); a.status != http.StatusOK {
		t.Errorf("afterwards: got %d", a.status)
	}
}

func TestARequestIsGivenUpWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	const limit = 50 * time.Millisecond
	e := New(Options{
		Log: slog.New(slog.DiscardHandler), Timeout: limit,
		Transient: func(err error) bool { return errors.Is(err, context.DeadlineExceeded) },
		Describe:  func(error) string { return "described" },
	})
	e.GET("/", func(c echo.Context) error {
		<-c.Request().Context().Done()
		return fmt.Errorf("reading: %w", c.Request().Context().Err())
	})
	rec, begun := httptest.NewRecorder(), time.Now()
	e.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if took := time.Since(begun); took < limit {
		t.Errorf("it was given up after %s", took)
	}
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}

// A client that hangs up is nobody's fault, and nothing that somebody has to look at.
func TestAClientThatHangsUpIsNoErrorInTheLog(t *testing.T) {
	t.Parallel()
	l := &logs{}
	e := New(Options{
		Log: slog.New(slog.NewJSONHandler(l, nil)), Timeout: time.Minute,
		Transient: func(error) bool { return true }, // a driver's error may well be both
	})
	client, hangUp := context.WithCancel(t.Context())
	e.GET("/", func(c echo.Context) error {
		hangUp()
		<-c.Request().Context().Done()
		return fmt.Errorf("reading: %w", c.Request().Context().Err())
	})
	e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(client, http.MethodGet, "/", nil))
	log := l.String()
	if n := strings.Count(log, "\n"); n != 1 || !strings.Contains(log, `"level":"INFO","msg":"request"`) || !strings.Contains(log, `"status":499`) {
		t.Errorf("the log says: %s", log)
	}
}
