package console

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/operators"
)

// signIn sends the form of the sign-in.
func (b *browser) signIn(name, password, next string) answer {
	b.w.t.Helper()
	return b.post(pathSignIn, url.Values{"name": {name}, "password": {password}, "next": {next}})
}

// A deep link that somebody was sent leads to the sign-in, and from there to where it leads.
func TestADeepLinkSurvivesTheSignIn(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	name := w.as(operators.Viewer).Name
	b := w.nobody()
	a := b.get("/nonces?nonce=a%2Fb")
	at := a.header.Get("Location")
	if a.status != http.StatusSeeOther || at != "/sign-in?next=%2Fnonces%3Fnonce%3Da%252Fb" {
		t.Fatalf("%d to %s", a.status, at)
	}
	if form := b.get(at); form.status != http.StatusOK || !strings.Contains(form.body, `value="/nonces?nonce=a%2Fb"`) {
		t.Errorf("the form does not keep where it leads: %s", form)
	}
	if a = b.signIn(name, testPassword, "/nonces?nonce=a%2Fb"); a.status != http.StatusSeeOther || a.header.Get("Location") != "/nonces?nonce=a%2Fb" {
		t.Errorf("%d to %s", a.status, a.header.Get("Location"))
	}
	if a = b.get("/payments"); a.status != http.StatusOK {
		t.Errorf("signed in, and %s", a)
	}
	if a = b.get(at); a.status != http.StatusSeeOther {
		t.Errorf("who has signed in is asked again: %d", a.status)
	}
}

// Nobody is led to another site by our sign-in, however its address is written.
func TestTheSignInLeadsToOurOwnPagesOnly(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	name := w.as(operators.Viewer).Name
	for _, next := range []string{"https://elsewhere.example/", "//elsewhere.example", `/\elsewhere.example`, "javascript:alert(1)", "elsewhere", "", "/\telsewhere", "/a\r\nSet-Cookie: x=1"} {
		if a := w.nobody().signIn(name, testPassword, next); a.status != http.StatusSeeOther || a.header.Get("Location") != "/" {
			t.Errorf("%q: %d to %q", next, a.status, a.header.Get("Location"))
		}
	}
}

func TestAWrongPasswordIsToldWithoutSayingWhatWasWrong(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	name := w.as(operators.Viewer).Name
	b := w.nobody()
	wrong, unknown := b.signIn(name, "a wrong password", "/audit"), b.signIn("nobody-of-this-name", testPassword, "/audit")
	for _, a := range []answer{wrong, unknown} {
		if a.status != http.StatusUnauthorized || !strings.Contains(a.body, `value="/audit"`) || !strings.Contains(a.body, `role="alert"`) {
			t.Errorf("%s", a)
		}
	}
	if wrong.body != unknown.body {
		t.Error("the page tells which names there are")
	}
	if a := b.get("/"); a.status != http.StatusSeeOther {
		t.Errorf("let in: %d", a.status)
	}
}

// What is in the address is no part of a form, and what is no form is not read.
func TestAPasswordIsTakenFromAFormAlone(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	name := w.as(operators.Viewer).Name
	query := url.Values{"name": {name}, "password": {testPassword}}.Encode()
	if a := w.nobody().post(pathSignIn+"?"+query, url.Values{}); a.status != http.StatusUnauthorized {
		t.Errorf("from the address: %s", a)
	}
	if a := w.nobody().post(pathSignIn, url.Values{"name": {name}, "password": {testPassword}}, "Content-Type", "text/plain"); a.status != http.StatusUnsupportedMediaType {
		t.Errorf("from a text: %s", a)
	}
	if a := w.nobody().post(pathSignIn, url.Values{"name": {strings.Repeat("x", 1<<20)}}); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("from a megabyte: %s", a)
	}
}

// Who has signed out is out, and so is a browser that has kept the cookie.
func TestSigningOutEndsTheSession(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	at, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	kept := b.client.Jar.Cookies(at)
	if a := b.post("/sign-out", url.Values{}); a.status != http.StatusSeeOther || a.header.Get("Location") != pathSignIn {
		t.Errorf("%s", a)
	}
	b.client.Jar.SetCookies(at, kept)
	if a := b.get("/payments"); a.status != http.StatusSeeOther || !strings.HasPrefix(a.header.Get("Location"), pathSignIn) {
		t.Errorf("the session lives on: %d", a.status)
	}
}

// A page that asks by itself keeps nobody signed in.
func TestAnOpenPageDoesNotKeepItsSessionAlive(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	const almost = `UPDATE operator_sessions SET seen_at = clock_timestamp() - interval '29 minutes' WHERE token_hash IS NOT NULL AND $1`
	const noted = `SELECT 1 FROM operator_sessions WHERE seen_at > clock_timestamp() - interval '1 minute' AND $1 AND operator_id = (SELECT id FROM operators WHERE name = $2)`
	w.sql(almost, true)
	if a := b.get("/front", "HX-Request", "true"); a.status != http.StatusOK || w.sql(noted, true, b.Name) != 0 {
		t.Errorf("an open overview keeps the session alive: %d", a.status)
	}
	if a := b.get("/"); a.status != http.StatusOK || w.sql(noted, true, b.Name) != 1 {
		t.Errorf("somebody who comes back does not: %d", a.status)
	}
	w.sql(`UPDATE operator_sessions SET seen_at = clock_timestamp() - interval '31 minutes' WHERE $1`, true)
	a := b.get("/front", "HX-Request", "true")
	if a.status != http.StatusNoContent || a.header.Get("HX-Redirect") != pathSignIn {
		t.Errorf("the page is not led to the sign-in: %d, %q", a.status, a.header.Get("HX-Redirect"))
	}
	a = b.get("/payments/rows", "HX-Request", "true", "HX-Current-URL", w.URL+"/payments?mode=test")
	if want := pathSignIn + "?next=%2Fpayments%3Fmode%3Dtest"; a.header.Get("HX-Redirect") != want {
		t.Errorf("the list is led to %q, want %q", a.header.Get("HX-Redirect"), want)
	}
}

func TestSomebodyChangesTheirPassword(t *testing.T) {
	t.Parallel()
	const better = "another long password"
	w := newConsole(t)
	b := w.as(operators.Viewer)
	other := w.nobody()
	if a := other.signIn(b.Name, testPassword, "/"); a.status != http.StatusSeeOther {
		t.Fatal(a)
	}
	change := func(current, password, again string) answer {
		return b.post(pathAccount, url.Values{"current": {current}, "password": {password}, "again": {again}})
	}
	for name, a := range map[string]answer{
		"a wrong one":    change("a wrong password", better, better),
		"a short one":    change(testPassword, "short", "short"),
		"a mistyped one": change(testPassword, better, better+"x"),
	} {
		if a.status/100 != 4 || !strings.Contains(a.body, `role="alert">`) || strings.Contains(a.body, "$.") {
			t.Errorf("%s: %s", name, a)
		}
	}
	a := change(testPassword, better, better)
	if a.status != http.StatusSeeOther || a.header.Get("Location") != "/account?done=password" {
		t.Fatal(a)
	}
	if a := b.get("/account?done=password"); a.status != http.StatusOK || !strings.Contains(a.body, "is changed") {
		t.Errorf("%s", a)
	}
	if a := other.get("/"); a.status != http.StatusSeeOther {
		t.Errorf("another browser is still signed in: %d", a.status)
	}
	if a := w.nobody().signIn(b.Name, testPassword, "/"); a.status != http.StatusUnauthorized {
		t.Errorf("the old password still works: %d", a.status)
	}
	if a := w.nobody().signIn(b.Name, better, "/"); a.status != http.StatusSeeOther {
		t.Errorf("the new one does not: %d", a.status)
	}
}

// One address without credentials kept everybody from signing in. Now it is refused after a
// few, and nothing is looked at, while whoever has signed in before in that browser goes on.
func TestAnAddressThatTriesOftenKeepsOnlyStrangersWaiting(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	if a := b.post("/sign-out", url.Values{}); a.status != http.StatusSeeOther {
		t.Fatal(a)
	}
	refused := 0
	for range 3 * strangersPerMinute {
		a := w.nobody().signIn(uuid.NewString(), testPassword, "/")
		switch {
		case a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") != "":
			refused++
		case a.status != http.StatusUnauthorized:
			t.Fatalf("a stranger: %s", a)
		}
	}
	const tried = `SELECT 1 FROM operator_failures WHERE $1`
	if n := w.sql(tried, true); refused < strangersPerMinute || n != int64(3*strangersPerMinute-refused) {
		t.Errorf("%d were refused, and %d counted", refused, n)
	}
	for range 3 { // in the same browser, at the same address
		if a := b.signIn(strings.ToUpper(b.Name), testPassword, "/"); a.status != http.StatusSeeOther {
			t.Fatalf("somebody in their browser: %s", a)
		}
	}
}

// The link by which an installation is set up is nobody's: somebody may be called "first".
func TestTheFirstLinkIsNoOperatorInTheAuditLog(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	a := w.as(operators.Admin).get(pathAudit + "?action=operator.invited")
	if !strings.Contains(a.body, `href="/audit?target=operators"`) || strings.Contains(a.body, `href="/operators/`) {
		t.Errorf("%s", a)
	}
}
