package main

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// It sets a variable of the process, so it does not run beside others.
func TestAdminLooksAfterOperatorsAndTokensFromTheCommandLine(t *testing.T) {
	r := start(t)
	t.Setenv("PAYMENTS_ADMIN_TOKEN", r.cfg.adminToken)
	must := func(out string, args ...string) string {
		t.Helper()
		code, got, told := r.commanded(args...)
		if code != exitOK || told != "" || !strings.Contains(got, out) {
			t.Fatalf("%q: exit %d, %s %s, want %s", args, code, got, told, out)
		}
		return got
	}
	link := regexp.MustCompile(`  http://` + regexp.QuoteMeta(r.operatorAddr) + `/invitations/([A-Za-z0-9_-]{43})\n`)
	secretIn := func(out string) string {
		t.Helper()
		found := link.FindStringSubmatch(out)
		if found == nil {
			t.Fatalf("there is no link in %s", out)
		}
		return found[1]
	}
	secret := secretIn(must("ada (admin) chooses a password", "operators", "invite", "Ada", "--role", "admin"))
	if _, err := r.operators.Accept(t.Context(), secret, "", "a quiet harbour at noon", ""); err != nil {
		t.Fatal(err)
	}
	must("ada  admin     enabled  seen 20", "operators", "list")
	if code, _, told := r.commanded("operators", "disable", "ada"); code != exitFailed || !strings.Contains(told, "the last admin") {
		t.Errorf("exit %d, %s", code, told)
	}
	if code, _, told := r.commanded("operators", "sign-out", "eve"); code != exitNotFound || !strings.Contains(told, "no operator") {
		t.Errorf("exit %d, %s", code, told)
	}
	must("sessions ended: 1", "operators", "sign-out", "ada")
	// The last admin who has forgotten their password gets in again.
	secret = secretIn(must("ada (admin)", "operators", "reset-password", "ada"))
	if _, err := r.operators.Accept(t.Context(), secret, "", "another harbour at noon", ""); err != nil {
		t.Fatal(err)
	}
	must("grace@example.org (viewer)", "operators", "invite", "grace@example.org", "--role", "viewer")
	must("cannot be used any more", "operators", "withdraw", "grace@example.org")
	secret = secretIn(must("", "operators", "invite", "grace@example.org", "--role", "admin"))
	if _, err := r.operators.Accept(t.Context(), secret, "", "a third harbour at noon", ""); err != nil {
		t.Fatal(err)
	}
	must("ada  viewer    enabled", "operators", "set-role", "ada", "viewer")
	must("ada  viewer    disabled since 20", "operators", "disable", "ada")
	must("ada  viewer    enabled", "operators", "enable", "ada")

	var made tokenView
	if err := json.Unmarshal([]byte(must("", "tokens", "create", "nightly", "--scope", "viewer", "--days", "30", "--json")), &made); err != nil || made.Status != "active" {
		t.Fatalf("made %s, %v", made.Status, err)
	}
	if a := r.ask(true, http.MethodGet, "/admin/v1/merchants", "", "Authorization", "Bearer "+made.Token); a.status != http.StatusOK {
		t.Errorf("with the token: %s", a)
	}
	must(made.ID+"  active    viewer    \"nightly\"  by PAYMENTS_ADMIN_TOKEN  used 20", "tokens", "list")
	must("is revoked", "tokens", "revoke", made.ID)
	if a := r.ask(true, http.MethodGet, "/admin/v1/merchants", "", "Authorization", "Bearer "+made.Token); a.status != http.StatusUnauthorized {
		t.Errorf("with the revoked token: %s", a)
	}
	must("  scope   operator\n", "tokens", "create", "shop's own", "--scope", "operator")
}
