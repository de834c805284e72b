package operators

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/postgres"
)

// admin is the operator's API over a world, without the gate: package admin has tests of
// that.
type admin struct {
	*world
	server *httptest.Server
	logs   *bytes.Buffer // read it only when no request runs
}

func newAdmin(t *testing.T) *admin {
	t.Helper()
	a := &admin{world: newWorld(t), logs: &bytes.Buffer{}}
	e := httpapi.New(httpapi.Options{Log: slog.New(slog.NewJSONHandler(a.logs, nil)), Transient: postgres.IsTransient, Describe: postgres.Describe})
	NewOperatorHandler(a.Service).Mount(e.Group("/admin/v1"))
	a.server = httptest.NewServer(apitest.Handler(t, e))
	t.Cleanup(a.server.Close)
	return a
}

// ask sends one request and reads the answer, which has no more members than into. link is
// where the next page is.
func (a *admin) ask(method, path, body string, want int, into any) (link string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.server.URL+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer a token") // the gate looks at it
	res, err := a.server.Client().Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if res.StatusCode != want {
		a.t.Fatalf("%s %s: %d %s, want %d", method, path, res.StatusCode, answer, want)
	}
	if into != nil {
		d := json.NewDecoder(bytes.NewReader(answer))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil {
			a.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	link, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
	return link
}

func TestAdminLooksAfterOperators(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	a.first("ada")
	var l wireLink
	a.ask("POST", "/admin/v1/operators", `{"name":"Grace.H+x@Example.org","role":"viewer"}`, 201, &l)
	secret, found := strings.CutPrefix(l.InvitationPath, "/invitations/")
	if !found || l.Name != "grace.h+x@example.org" || l.Role != Viewer {
		t.Fatalf("made %s for %s", l.Role, l.Name)
	}
	in, err := a.Accept(t.Context(), secret, "", right, "")
	if err != nil {
		t.Fatal(err)
	}
	var p wirePerson
	for _, path := range []string{"grace.h+x@example.org", "grace.h%2Bx%40example.org", "GRACE.H+x@example.org"} {
		a.ask("PATCH", "/admin/v1/operators/"+path, `{"role":"operator"}`, 200, &p)
	}
	if p.Role != Operator || p.Name != l.Name || p.ID != in.Principal.ID.String() || p.DisabledAt != nil {
		t.Errorf("changed to %+v", p)
	}
	var ended struct {
		Name          string `json:"name"`
		SessionsEnded int    `json:"sessions_ended"`
	}
	for want := range 2 { // the change of role has ended the first one
		a.ask("POST", "/admin/v1/operators/"+l.Name+"/sign-out", "", 200, &ended)
		if ended.Name != l.Name || ended.SessionsEnded != want {
			t.Errorf("signed out: %+v", ended)
		}
		if _, err := a.SignIn(t.Context(), l.Name, right, in.Device); err != nil {
			t.Fatal(err)
		}
	}
	a.ask("PATCH", "/admin/v1/operators/"+l.Name, `{"disabled":true}`, 200, &p)
	if p.DisabledAt == nil {
		t.Error("not disabled")
	}
	a.ask("POST", "/admin/v1/operators/"+l.Name+"/reset-password", `{}`, 409, nil)
	a.ask("PATCH", "/admin/v1/operators/"+l.Name, `{"disabled":false}`, 200, &p)
	a.ask("POST", "/admin/v1/operators/"+l.Name+"/reset-password", `{}`, 201, &l)
	a.ask("POST", "/admin/v1/operators/"+l.Name+"/withdraw-invitation", ``, 200, nil)
	a.ask("POST", "/admin/v1/operators/"+l.Name+"/withdraw-invitation", ``, 404, nil)
	if strings.Contains(a.logs.String(), secret) || strings.Contains(a.logs.String(), l.InvitationPath) {
		t.Error("the log shows a link")
	}
}

func TestAdminsMistakesAreToldByPlaceAndRule(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	a.first("ada")
	for _, m := range []struct {
		method, path, body string
		status             int
		code, says         string
	}{
		{"POST", "/operators", `[]`, 400, "INVALID_REQUEST", "$ must be an object"},
		{"POST", "/operators", `{}`, 400, "MISSING_PARAMETERS", "$.name is required"},
		{"POST", "/operators", `{"name":"grace"}`, 400, "MISSING_PARAMETERS", "$.role is required"},
		{"POST", "/operators", `{"name":7,"role":"viewer"}`, 400, "INVALID_PARAMETERS", "$.name must be a string"},
		{"POST", "/operators", `{"name":"a b","role":"viewer"}`, 400, "INVALID_PARAMETERS", "$.name must have"},
		{"POST", "/operators", `{"name":"grace","role":"root"}`, 400, "INVALID_PARAMETERS", "$.role must be viewer, operator or admin"},
		{"POST", "/operators", `{"name":"ADA","role":"viewer"}`, 409, "INVALID_STATE", "already"},
		{"PATCH", "/operators/ada", `{}`, 400, "MISSING_PARAMETERS", "$.role or $.disabled is required"},
		{"PATCH", "/operators/ada", `{"role":"root"}`, 400, "INVALID_PARAMETERS", "$.role must be"},
		{"PATCH", "/operators/ada", `{"disabled":"yes"}`, 400, "INVALID_PARAMETERS", "$.disabled must be true or false"},
		{"PATCH", "/operators/ada", `{"disabled":true}`, 409, "INVALID_STATE", "the last admin"},
		{"PATCH", "/operators/ada", `{"role":"viewer"}`, 409, "INVALID_STATE", "the last admin"},
		{"PATCH", "/operators/eve", `{"role":"viewer"}`, 404, "NOT_FOUND", "no operator"},
		{"PATCH", "/operators/%00", `{"role":"viewer"}`, 404, "NOT_FOUND", "no operator"},
		{"POST", "/operators/eve/sign-out", ``, 404, "NOT_FOUND", "no operator"},
		{"POST", "/operators/eve/reset-password", ``, 404, "NOT_FOUND", "no operator"},
		{"POST", "/operators/%00/withdraw-invitation", ``, 404, "NOT_FOUND", "no link"},
		{"GET", "/operators?limit=101", ``, 400, "INVALID_PARAMETERS", "limit"},
		{"POST", "/tokens", `{"name":"x"}`, 400, "MISSING_PARAMETERS", "$.scope is required"},
		{"POST", "/tokens", `{"name":"a\u0007","scope":"viewer"}`, 400, "INVALID_PARAMETERS", "$.name must not contain control characters"},
		{"POST", "/tokens", `{"name":"  ","scope":"viewer"}`, 400, "INVALID_PARAMETERS", "$.name must have"},
		{"POST", "/tokens", `{"name":"x","scope":"all"}`, 400, "INVALID_PARAMETERS", "$.scope must be"},
		{"POST", "/tokens", `{"name":"x","scope":"viewer","lifetime_days":367}`, 400, "INVALID_PARAMETERS", "$.lifetime_days must be a whole number from 1 to 366"},
		{"POST", "/tokens/x/revoke", ``, 404, "NOT_FOUND", "no token"},
		{"POST", "/tokens/" + uuid.NewString() + "/revoke", ``, 404, "NOT_FOUND", "no token"},
	} {
		var e struct {
			Code      string   `json:"code"`
			Messages  []string `json:"messages"`
			RequestID string   `json:"request_id"`
			DocURL    string   `json:"doc_url"`
		}
		a.ask(m.method, "/admin/v1"+m.path, m.body, m.status, &e)
		if e.Code != m.code || !strings.Contains(strings.Join(e.Messages, "; "), m.says) {
			t.Errorf("%s %s %s: %s %q", m.method, m.path, m.body, e.Code, e.Messages)
		}
	}
}

func TestListsOfOperatorsAndTokensGoPageByPage(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	a.first("ada")
	for i := range 4 {
		a.sql(`INSERT INTO operators (id, name, role, password_hash) VALUES ($1::uuid, $2, 'viewer', 'none')`, someID(), fmt.Sprint("person-", i))
	}
	var names []string
	for path := "/admin/v1/operators?limit=2"; path != ""; {
		var page []wirePerson
		path = a.ask("GET", path, "", 200, &page)
		for _, p := range page {
			names = append(names, p.Name)
		}
	}
	if got := strings.Join(names, " "); got != "person-3 person-2 person-1 person-0 ada" {
		t.Errorf("listed %s", got)
	}
	type made struct {
		wireToken
		Token string `json:"token"`
	}
	for i := range 3 {
		var m made
		a.ask("POST", "/admin/v1/tokens", fmt.Sprintf(`{"name":"token %d","scope":"viewer"}`, i), 201, &m)
		if !strings.HasPrefix(m.Token, TokenPrefix) || m.Status != TokenActive || strings.Contains(a.logs.String(), m.Token) {
			t.Errorf("made %+v", m.wireToken)
		}
	}
	names = nil
	for path := "/admin/v1/tokens?limit=2"; path != ""; {
		var page []wireToken
		path = a.ask("GET", path, "", 200, &page)
		for _, p := range page {
			names = append(names, p.Name)
			var w wireToken
			a.ask("POST", "/admin/v1/tokens/"+p.ID+"/revoke", `{}`, 200, &w)
			if w.Status != TokenRevoked || w.RevokedAt == nil {
				t.Errorf("revoked %+v", w)
			}
		}
	}
	if got := strings.Join(names, " "); got != "token 2 token 1 token 0" {
		t.Errorf("listed %s", got)
	}
}

// A browser's cookies cannot be read by scripts, nor sent by another site's forms; on HTTPS
// nobody else can have set them.
func TestCookiesAreForThisHostAlone(t *testing.T) {
	t.Parallel()
	e := httpapi.New(httpapi.Options{Log: slog.New(slog.DiscardHandler)})
	for scheme, prefix := range map[string]string{"http": "", "https": "__Host-"} {
		set := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodGet, scheme+"://example.org/", nil)
		c := e.NewContext(req, set)
		SetCookies(c, "s", "d")
		for _, k := range set.Result().Cookies() {
			if !strings.HasPrefix(k.Name, prefix+"oncepay_") || !k.HttpOnly || k.Path != "/" || k.Domain != "" || k.Secure != (scheme == "https") ||
				k.SameSite != http.SameSiteLaxMode && k.SameSite != http.SameSiteStrictMode {
				t.Errorf("%s: %v", scheme, k)
			}
			req.AddCookie(&http.Cookie{Name: k.Name, Value: k.Value})
		}
		if SessionOf(c) != "s" || DeviceOf(c) != "d" {
			t.Errorf("%s: read %q and %q", scheme, SessionOf(c), DeviceOf(c))
		}
		forgotten := httptest.NewRecorder()
		ForgetSession(e.NewContext(req, forgotten))
		if k := forgotten.Result().Cookies(); len(k) != 1 || k[0].MaxAge >= 0 || k[0].Name != prefix+"oncepay_session" {
			t.Errorf("%s: forgets %v", scheme, k)
		}
	}
	if p := PrincipalOf(e.NewContext(httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder())); p.Role != "" || p.Role.Includes(Viewer) || p.Kind != "nobody" {
		t.Errorf("nobody is %+v", p)
	}
}
