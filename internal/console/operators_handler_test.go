package console

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/operators"
)

const linkPattern = `/invitations/[A-Za-z0-9_-]{43}`

// person is somebody as the service has them.
func (w *consoleUnderTest) person(name string) operators.Person {
	w.t.Helper()
	p, err := w.operators.Get(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func TestSomebodyIsInvitedByALinkThatIsShownOnce(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	a := b.post(pathOperators, sent("name", "Ada@Example.org", "role", "operator"))
	link := a.find(t, linkPattern)
	secret := strings.TrimPrefix(link, "/invitations/")
	w.wantSecret(a, w.URL+link)
	if n := w.kept(secret); n != 0 || strings.Contains(w.logs.String(), secret) {
		t.Errorf("the link's secret is in %d tables, or in the log", n)
	}
	w.wantEntry(b, "operator.invited", "operator/ada@example.org")
	b.get(pathOperators).want(t, http.StatusOK, "Links that nobody has used yet", "ada@example.org", "somebody new").lacks(t, secret)

	ada := w.accept("ada@example.org", operators.Operator, link)
	b.get(pathOperators).want(t, http.StatusOK, `href="/operators/ada@example.org"`).lacks(t, "Links that nobody has used yet")
	b.get("/operators/ada@example.org").want(t, http.StatusOK, "ada@example.org", "operator")
	ada.get(pathMerchants).want(t, http.StatusOK).lacks(t, `href="/operators"`)

	for _, c := range []struct {
		name, role string
		status     int
		want       string
	}{
		{"", "viewer", http.StatusBadRequest, "the name must have 1 to 64 characters"},
		{`"><script>alert(1)</script>`, "viewer", http.StatusBadRequest, "the name must have 1 to 64 characters"},
		{"bob", "owner", http.StatusBadRequest, "the role must be viewer, operator or admin"},
		{"ada@example.org", "admin", http.StatusConflict, "there is an operator with this name already"},
	} {
		b.post(pathOperators, sent("name", c.name, "role", c.role)).want(t, c.status, c.want, `<details class="action" open>`).lacks(t, "<script>alert")
	}
}

func TestLinkIsWithdrawn(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	link := b.post(pathOperators, sent("name", "ada", "role", "viewer")).find(t, linkPattern)
	w.nobody().get(link).want(t, http.StatusOK)
	b.post("/operators/ada/withdraw-invitation", sent()).leads(t, pathOperators+"?done=invitation-withdrawn")
	w.nobody().get(link).want(t, http.StatusNotFound)
	w.wantEntry(b, "operator.invitation_withdrawn", "operator/ada")
	b.post("/operators/ada/withdraw-invitation", sent()).want(t, http.StatusNotFound, "there is no link for this name")
}

func TestRoleHoldsAtOnceAndOneAdminStays(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	ada := w.as(operators.Viewer)
	path := operatorPath(ada.Name)
	b.post(path+"/role", sent("role", "operator")).leads(t, path+"?done=operator-role")
	w.wantEntry(b, "operator.role_changed", "operator/"+ada.Name)
	ada.get(pathMerchants).leads(t, pathSignIn+"?next=%2Fmerchants")
	b.post(path+"/role", sent("role", "owner")).want(t, http.StatusBadRequest, "the role must be viewer, operator or admin")

	for action, form := range map[string][]string{"role": {"role", "viewer"}, "disable": nil} {
		b.post("/operators/admin/"+action, sent(form...)).want(t, http.StatusConflict, "this is the last admin who may sign in", `<details class="action" open>`)
	}
	if p := w.person("admin"); p.Role != operators.Admin || p.DisabledAt != nil {
		t.Errorf("the last admin is %+v", p)
	}
	b.post(path+"/role", sent("role", "admin")).leads(t, path+"?done=operator-role")
	b.post("/operators/admin/role", sent("role", "viewer")).leads(t, "/operators/admin?done=operator-role")
	b.get(pathOperators).leads(t, pathSignIn+"?next=%2Foperators")
}

func TestOperatorIsDisabledEnabledAndSignedOut(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	ada := w.as(operators.Operator)
	path := operatorPath(ada.Name)
	signIn := func() int {
		return ada.post(pathSignIn, sent("name", ada.Name)).status
	}
	b.post(path+"/sign-out", sent()).leads(t, path+"?done=operator-signed-out")
	ada.get(pathMerchants).leads(t, pathSignIn+"?next=%2Fmerchants")
	w.wantEntry(b, "operator.signed_out", "operator/"+ada.Name)
	if got := signIn(); got != http.StatusSeeOther {
		t.Errorf("to sign in again got %d", got)
	}

	b.post(path+"/disable", sent()).leads(t, path+"?done=operator-disabled")
	ada.get(pathMerchants).leads(t, pathSignIn+"?next=%2Fmerchants")
	if got := signIn(); got != http.StatusUnauthorized {
		t.Errorf("who is disabled got %d", got)
	}
	b.get(path).want(t, http.StatusOK, "disabled", path+"/enable").lacks(t, path+"/disable", path+"/reset-password")
	b.get(pathOperators).want(t, http.StatusOK, `<span class="status bad">disabled</span>`)
	b.post(path+"/reset-password", sent()).want(t, http.StatusConflict, "the operator is disabled: enable them first")
	w.wantEntry(b, "operator.disabled", "operator/"+ada.Name)

	b.post(path+"/enable", sent()).leads(t, path+"?done=operator-enabled")
	if got := signIn(); got != http.StatusSeeOther {
		t.Errorf("who is enabled got %d", got)
	}
	for _, path := range []string{"/operators/nobody", "/operators/%20"} {
		b.get(path).want(t, http.StatusNotFound)
	}
	b.post("/operators/nobody/sign-out", sent()).want(t, http.StatusNotFound)
	b.post("/operators/nobody/disable", sent()).want(t, http.StatusNotFound)
}

func TestNewPasswordIsChosenByALink(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	ada := w.as(operators.Operator)
	a := b.post(operatorPath(ada.Name)+"/reset-password", sent())
	link := a.find(t, linkPattern)
	w.wantSecret(a, w.URL+link)
	ada.get(pathMerchants).want(t, http.StatusOK) // until it is used
	w.nobody().get(link).want(t, http.StatusOK, "A new password")
	b.get(pathOperators).want(t, http.StatusOK, "another password").lacks(t, link)
	w.wantEntry(b, "operator.password_reset_sent", "operator/"+ada.Name)
}

func TestTokenIsMadeShownOnceAndRevoked(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	a := b.post(pathTokens, sent("name", "nightly report", "scope", "viewer", "days", "30"))
	secret := a.find(t, operators.TokenPrefix+`[A-Za-z0-9_-]{43}`)
	w.wantSecret(a, secret)
	tokens, err := w.operators.Tokens(t.Context(), uuid.Nil, 10)
	if err != nil || len(tokens) != 1 {
		t.Fatalf("there are %d tokens (%v)", len(tokens), err)
	}
	token := tokens[0]
	if token.Scope != operators.Viewer || token.CreatedBy != b.Name || token.ExpiresAt.Sub(token.CreatedAt) != 30*day {
		t.Errorf("made %+v", token)
	}
	w.wantEntry(b, "token.created", "token/"+token.ID.String())
	w.nobody().get("/admin/v1/merchants", "Authorization", "Bearer "+secret).want(t, http.StatusOK, "First merchant")
	b.get(pathOperators).want(t, http.StatusOK, "nightly report", "by "+b.Name, `id="token-`+token.ID.String()+`"`).lacks(t, secret)
	b.get(pathTokens).leads(t, pathOperators+"#tokens")

	path := pathTokens + "/" + token.ID.String() + "/revoke"
	b.post(path, sent()).leads(t, pathOperators+"?done=token-revoked#tokens")
	w.nobody().get("/admin/v1/merchants", "Authorization", "Bearer "+secret).want(t, http.StatusUnauthorized)
	w.wantEntry(b, "token.revoked", "token/"+token.ID.String())
	b.get(pathOperators).want(t, http.StatusOK, "revoked").lacks(t, path)

	n := w.changed()
	for _, c := range []struct{ name, scope, days, want string }{
		{"", "viewer", "1", "the name must have 1 to 255 characters"},
		{"t", "owner", "1", "the scope must be viewer, operator or admin"},
		{"t", "viewer", "", "the days must be a whole number from 1 to 366"},
		{"t", "viewer", "0", "the days must be a whole number from 1 to 366"},
		{"t", "viewer", "367", "the days must be a whole number from 1 to 366"},
		{"t", "viewer", "9999999999999", "the days must be a whole number from 1 to 366"},
	} {
		b.post(pathTokens, sent("name", c.name, "scope", c.scope, "days", c.days)).want(t, http.StatusBadRequest, c.want, `<details class="action" open>`)
	}
	if w.changed() != n {
		t.Error("a token was made that could not be")
	}
	for _, id := range []string{"x", uuid.NewString()} {
		b.post(pathTokens+"/"+id+"/revoke", sent()).want(t, http.StatusNotFound)
	}
}

func TestOperatorsAndTokensAreListedByPages(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	w.sql(`INSERT INTO operators (id, name, role, password_hash) SELECT gen_random_uuid(), 'somebody-' || n, 'viewer', 'x' FROM generate_series(1, 50) n`)
	w.sql(`INSERT INTO operator_tokens (id, name, scope, token_hash, created_by, expires_at)
		SELECT gen_random_uuid(), 'token-' || n, 'viewer', sha256(n::text::bytea), 'admin', now() FROM generate_series(1, 51) n`)
	a := b.get(pathOperators).want(t, http.StatusOK, "expired")
	people, tokens := strings.Count(a.body, `href="/operators/`), strings.Count(a.body, `<tr id="token-`)
	if people != listLimit || tokens != listLimit {
		t.Errorf("the first page has %d and %d", people, tokens)
	}
	if n := strings.Count(b.get(a.find(t, `/operators\?after=[0-9a-f-]{36}`)).body, `href="/operators/`); n != 1 {
		t.Errorf("the next page has %d operators", n)
	}
	if n := strings.Count(b.get(a.find(t, `/operators\?after_token=[0-9a-f-]{36}`)).body, `<tr id="token-`); n != 1 {
		t.Errorf("the next page has %d tokens", n)
	}
}
