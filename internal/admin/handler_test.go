package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/operators"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

const token = "a token of the tests, 32 bytes or more"

func TestMain(m *testing.M) { pgtest.Main(m) }

// part is one of the parts that the operator's API consists of.
type part struct{ path string }

// Mount adds the part's one route.
func (p part) Mount(g *echo.Group) {
	g.GET(p.path, func(c echo.Context) error { return httpapi.JSON(c, http.StatusOK, []byte(`"`+p.path+`"`)) })
}

// pages are a console of one page.
type pages struct{}

func (pages) Mount(e *echo.Echo) {
	e.GET("/sign-in", func(c echo.Context) error { return c.HTML(http.StatusOK, "sign in") })
}

func (pages) ShowError(c echo.Context, e *apierr.Error) error {
	return c.HTML(e.Status, "a page: "+strings.Join(e.Messages, "; "))
}

// newOperator serves parts, a page, and metrics that a test can tell.
func newOperator(t *testing.T, o httpapi.Options, parts ...Mounter) *httptest.Server {
	t.Helper()
	o.Transient, o.Describe = func(error) bool { return false }, func(error) string { return "described" }
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	url := pgtest.URL(t)
	db, err := postgres.Open(t.Context(), url, pgtest.Options(url, postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	e := httpapi.New(o)
	Mount(e, Options{
		Token: token, Operators: operators.NewService(db, operators.Options{}), API: parts, Console: pages{},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "requests_total 7\n") }),
	})
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	return s
}

// Two routes that have rules, and one that has none.
var (
	list    = part{"/merchants"}
	one     = part{"/merchants/:account_id"}
	unruled = part{"/forgotten"}
)

// get asks for a path with these Authorization headers.
func get(t *testing.T, s *httptest.Server, path string, authorization ...string) (status int, header http.Header, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Authorization"] = authorization
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(body)
}

func TestTokenOpensEveryPart(t *testing.T) {
	t.Parallel()
	s := newOperator(t, httpapi.Options{}, list, one)
	for path, want := range map[string]string{"/admin/v1/merchants": `"/merchants"`, "/admin/v1/merchants/2": `"/merchants/:account_id"`} {
		if status, _, body := get(t, s, path, "Bearer "+token); status != http.StatusOK || body != want {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
	if status, _, body := get(t, s, "/admin/v1/nothing", "Bearer "+token); status != http.StatusNotFound || !strings.Contains(body, "NOT_FOUND") {
		t.Errorf("an unknown path: got %d %s", status, body)
	}
}

func TestNothingButTheTokenOpensAnything(t *testing.T) {
	t.Parallel()
	var logs strings.Builder
	s := newOperator(t, httpapi.Options{Log: slog.New(slog.NewJSONHandler(&logs, nil))}, list, one, unruled)
	for name, authorization := range map[string][]string{
		"nothing":               nil,
		"an empty header":       {""},
		"an empty token":        {"Bearer "},
		"the word alone":        {"Bearer"},
		"the token alone":       {token},
		"another scheme":        {"Basic " + token},
		"two blanks":            {"Bearer  " + token},
		"half of it":            {"Bearer " + token[:len(token)-1]},
		"more than it":          {"Bearer " + token + "x"},
		"another of its length": {"Bearer " + strings.Repeat("x", len(token))},
		"it in capitals":        {"Bearer " + strings.ToUpper(token)},
		"it behind another":     {"Bearer x", "Bearer " + token},
		"a merchant's secret":   {"Bearer sandbox_secret_ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"},
	} {
		for _, path := range []string{"/admin/v1/merchants", "/admin/v1/merchants/2", "/admin/v1/nothing", "/admin/v1"} { // what exists, and what does not
			status, header, body := get(t, s, path, authorization...)
			var e struct {
				Code     string   `json:"code"`
				Messages []string `json:"messages"`
			}
			if err := json.Unmarshal([]byte(body), &e); err != nil || status != http.StatusUnauthorized || e.Code != "INVALID_CREDENTIALS" ||
				len(e.Messages) != 1 || e.Messages[0] != "Authorization must be Bearer and the admin token, or an API token" {
				t.Errorf("%s, %s: got %d %s", name, path, status, body)
			}
			if got := header.Get("WWW-Authenticate"); got != "Bearer" {
				t.Errorf("%s, %s: WWW-Authenticate is %q", name, path, got)
			}
		}
	}
	s.Close() // so that every line is written
	if strings.Contains(logs.String(), token) || strings.Contains(logs.String(), "sandbox_secret_") {
		t.Error("the log shows a token")
	}
}

// Who asks whether a process lives has no token either; and who fails with one too
// often is told to wait, which keeps out nobody who has it.
func TestProbesNeedNoTokenAndTooManyWrongOnesAreToldToWait(t *testing.T) {
	t.Parallel()
	probes := httpapi.NewProbes(func(context.Context) error { return nil }, slog.New(slog.DiscardHandler))
	probes.Serve()
	s := newOperator(t, httpapi.Options{Probes: probes, FailedAuth: 2}, list)
	for i, want := range []int{http.StatusUnauthorized, http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusTooManyRequests} {
		if status, _, body := get(t, s, "/admin/v1/merchants", "Bearer wrong"); status != want {
			t.Errorf("wrong token %d: got %d %s", i+1, status, body)
		}
	}
	for _, path := range []string{httpapi.LivezPath, httpapi.ReadyzPath} {
		if status, _, body := get(t, s, path); status != http.StatusOK || body != "{\"status\":\"ok\"}\n" {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
	if status, _, _ := get(t, s, "/admin/v1/merchants", "Bearer "+token); status != http.StatusOK {
		t.Errorf("the right token: got %d", status)
	}
}

// Whoever collects metrics has no token, and learns no merchant's name from them.
func TestMetricsNeedNoToken(t *testing.T) {
	t.Parallel()
	s := newOperator(t, httpapi.Options{})
	if status, _, body := get(t, s, "/metrics"); status != http.StatusOK || body != "requests_total 7\n" {
		t.Errorf("got %d %s", status, body)
	}
}

// A route that somebody added without a rule is nobody's, whatever they show.
func TestRouteWithoutARuleIsRefusedToEverybody(t *testing.T) {
	t.Parallel()
	s := newOperator(t, httpapi.Options{}, list, unruled)
	if status, _, body := get(t, s, "/admin/v1/forgotten", "Bearer "+token); status != http.StatusForbidden || !strings.Contains(body, "AUTHORIZATION_REQUIRED") {
		t.Errorf("got %d %s", status, body)
	}
}

// A program's token opens no page, and what people meet is a page in any case.
func TestTokenOpensNoPage(t *testing.T) {
	t.Parallel()
	s := newOperator(t, httpapi.Options{}, list)
	for _, path := range []string{"/", "/admin", "/merchants", "/nowhere"} {
		if status, _, body := get(t, s, path, "Bearer "+token); status != http.StatusUnauthorized || !strings.HasPrefix(body, "a page: ") {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
	if status, _, body := get(t, s, "/sign-in"); status != http.StatusOK || body != "sign in" {
		t.Errorf("the way in: got %d %s", status, body)
	}
}
