package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"github.com/oncepay/oncepay/api"
	"github.com/oncepay/oncepay/internal/idem"
)

// commanded runs the program against a running instance.
func (r *running) commanded(args ...string) (code int, out, told string) {
	r.t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(r.t.Context(), append(args, "--admin-url", "http://"+r.operatorAddr), streams{&stdout, &stderr})
	return code, stdout.String(), stderr.String()
}

// It sets a variable of the process, so it does not run beside others.
func TestOperatorChangesAMerchantFromTheCommandLine(t *testing.T) {
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
	var made madeMerchant
	if err := json.Unmarshal([]byte(must("", "merchants", "create", "Corner \x1b[31mshop", "--policy", "novu", "--json")), &made); err != nil || made.IdempotencyPolicy != "novu" {
		t.Fatalf("made with the policy %q (%v)", made.IdempotencyPolicy, err)
	}
	id := made.AccountID
	const name = `"Corner \x1b[31mshop"`
	must(id+"  enabled  novu  "+name+"  created 20", "merchants", "list")
	shown := must("merchant "+id+" is enabled\n\n  name     "+name+"\n  policy   novu\n  created  20", "merchants", "show", id)
	if strings.ContainsRune(shown, '\x1b') {
		t.Error("a name is shown as a terminal's command")
	}

	const within = "Within 5 s the policy holds on every instance"
	must("  policy   ietf\n", "merchants", "update", id, "--policy", "ietf")
	must(within, "merchants", "update", id, "--policy", "fyno", "--name", "Both")
	if renamed := must("  name     \"Bakery\"\n  policy   fyno\n", "merchants", "update", id, "--name", "Bakery"); strings.Contains(renamed, within) {
		t.Errorf("of a name it says: %s", renamed)
	}
	if c, err := r.auth.Authenticate(made.APIKey.PublicAPIKey, made.APIKey.PrivateSecretKey, netip.IPv6Loopback()); err != nil || c.AccountID.String() != id || c.Policy != "fyno" {
		t.Errorf("the caller is %s with the policy %s (%v)", c.AccountID, c.Policy, err)
	}
	wantPolicyOfKey := func(policy string) {
		t.Helper()
		if got := r.auth.PolicyOfKey(made.APIKey.PublicAPIKey); got != policy {
			t.Errorf("the key's policy is %s, want %s", got, policy)
		}
	}
	wantPolicyOfKey("fyno")
	must("", "merchants", "disable", id)
	wantPolicyOfKey(idem.DefaultPolicy) // as of a key that nobody has
	must("merchant "+id+" is disabled since 20", "merchants", "update", id, "--policy", "novu")
	must(id+"  disabled since 20", "merchants", "list")
	var shownJSON, updatedJSON merchantView
	for into, args := range map[*merchantView][]string{
		&updatedJSON: {"merchants", "update", id, "--policy", "yuno", "--json"}, &shownJSON: {"merchants", "show", id, "--json"},
	} {
		if err := json.Unmarshal([]byte(must("", args...)), into); err != nil || into.AccountID != id || into.Name != "Bakery" || into.DisabledAt == nil {
			t.Errorf("%q: %+v (%v)", args, into, err)
		}
	}
	if updatedJSON.IdempotencyPolicy != "yuno" {
		t.Errorf("updated to %s", updatedJSON.IdempotencyPolicy)
	}
	must("", "merchants", "update", id, "--policy", "ietf")
	wantPolicyOfKey(idem.DefaultPolicy)
	must("", "merchants", "enable", id)
	wantPolicyOfKey("ietf")
}

// It sets a variable of the process, so it does not run beside others.
func TestOperatorRegistersOriginsFromTheCommandLine(t *testing.T) {
	r := start(t)
	t.Setenv("PAYMENTS_ADMIN_TOKEN", r.cfg.adminToken)
	must := func(out string, args ...string) string {
		t.Helper()
		code, got, told := r.commanded(append([]string{"merchants"}, args...)...)
		if code != exitOK || told != "" || !strings.Contains(got, out) {
			t.Fatalf("%q: exit %d, %s %s, want %s", args, code, got, told, out)
		}
		return got
	}
	const shop, local = "https://shop.example", "http://localhost:3000"
	var made madeMerchant
	if err := json.Unmarshal([]byte(must("", "create", "Corner shop", "--origin", shop, "--origin", local, "--json")), &made); err != nil {
		t.Fatal(err)
	}
	id := made.AccountID
	want := func(origins ...string) {
		t.Helper()
		c, err := r.auth.AuthenticatePublic(made.APIKey.PublicAPIKey)
		if err != nil || c.AccountID.String() != id || !slices.Equal(c.Origins, origins) {
			t.Errorf("the key speaks for %s, from %q (%v); want %q", c.AccountID, c.Origins, err, origins)
		}
	}
	want(shop, local)
	shown := must("\n  origins  "+shop+"\n           "+local+"\n", "show", id)
	must("  origins "+shop+","+local+"\n", "list")
	const within = "Within 5 s the origins hold on every instance."
	if renamed := must("\n  origins  "+shop+"\n", "update", id, "--name", "Bakery"); strings.Contains(renamed, within) || renamed == shown {
		t.Errorf("of a name it says: %s", renamed)
	}
	want(shop, local)
	must(within, "update", id, "--origin", shop)
	want(shop)
	must("\n  origins  "+local+"\n           "+shop+"\n", "update", id, "--origin", local, "--origin", shop, "--policy", "ietf")
	want(local, shop)
	if without := must(within, "update", id, "--no-origins"); strings.Contains(without, "origins  ") {
		t.Errorf("without origins it is %s", without)
	}
	want()
	if listed := must(id, "list"); strings.Contains(listed, "origins") {
		t.Errorf("without origins it is listed as %s", listed)
	}
}

// promisedWithin is how long a change may take until it holds everywhere.
const promisedWithin = 5 * time.Second

// Nobody restarts anything, and nobody tells the other instance: its own loop finds it.
func TestChangedPolicyHoldsOnEveryInstanceWithinFiveSeconds(t *testing.T) {
	t.Parallel()
	r := start(t)
	other := startOn(t, r.url)
	m, pair, err := r.auth.Create(t.Context(), "Corner shop", "")
	if err != nil {
		t.Fatal(err)
	}
	policyAt := func(instance *running) string {
		c, err := instance.auth.Authenticate(pair.PublicAPIKey, pair.PrivateSecretKey, netip.IPv6Loopback())
		if err != nil {
			return "" // not known yet, or nobody is let in, which is as good
		}
		return c.Policy
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for _, policy := range []string{"yuno", "novu", "ietf"} {
		if a := r.ask(true, http.MethodPatch, merchantPath(m.AccountID.String()), `{"idempotency_policy":"`+policy+`"}`, "Authorization", "Bearer "+r.cfg.adminToken); a.status != http.StatusOK {
			t.Fatalf("changed to %s: %s", policy, a)
		}
		changed := time.Now()
		if got := policyAt(r); got != policy {
			t.Errorf("where it was changed to %s, the policy is %q", policy, got)
		}
		for policyAt(other) != policy {
			if asked := time.Now(); asked.Sub(changed) > promisedWithin {
				if got := policyAt(other); got != "" && got != policy {
					t.Fatalf("%s after the change to %s, the policy is %s", asked.Sub(changed), policy, got)
				}
			}
			select {
			case <-look.C:
			case <-t.Context().Done():
				t.Fatal("the other instance never heard of it")
			}
		}
	}
}

// Nor here.
func TestChangedOriginsHoldOnEveryInstanceWithinFiveSeconds(t *testing.T) {
	t.Parallel()
	r := start(t)
	other := startOn(t, r.url)
	m, pair, err := r.auth.Create(t.Context(), "Corner shop", "")
	if err != nil {
		t.Fatal(err)
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for _, origins := range []string{`["https://shop.example"]`, `["https://a.example","https://b.example"]`, `[]`} {
		var want []string
		if err := json.Unmarshal([]byte(origins), &want); err != nil {
			t.Fatal(err)
		}
		if a := r.ask(true, http.MethodPatch, merchantPath(m.AccountID.String()), `{"origins":`+origins+`}`, "Authorization", "Bearer "+r.cfg.adminToken); a.status != http.StatusOK {
			t.Fatalf("changed to %s: %s", origins, a)
		}
		changed := time.Now()
		if c, err := r.auth.AuthenticatePublic(pair.PublicAPIKey); err != nil || !slices.Equal(c.Origins, want) {
			t.Errorf("where they were changed to %s, the origins are %q (%v)", origins, c.Origins, err)
		}
		for {
			asked := time.Now()
			c, err := other.auth.AuthenticatePublic(pair.PublicAPIKey)
			if err == nil && slices.Equal(c.Origins, want) {
				break
			}
			if err == nil && asked.Sub(changed) > promisedWithin {
				t.Fatalf("%s after the change to %s, the origins are %q", asked.Sub(changed), origins, c.Origins)
			}
			select {
			case <-look.C:
			case <-t.Context().Done():
				t.Fatal("the other instance never heard of it")
			}
		}
	}
}

// It sets a variable of the process, so it does not run beside others.
func TestMistakesWithAMerchantOnTheCommandLineHaveTheirExitCodes(t *testing.T) {
	r := start(t)
	t.Setenv("PAYMENTS_ADMIN_TOKEN", r.cfg.adminToken)
	m, _, err := r.auth.Create(t.Context(), "Corner shop", "")
	if err != nil {
		t.Fatal(err)
	}
	id := m.AccountID.String()
	const policies, nobody = "$.idempotency_policy must be yuno, novu, fyno or ietf", "there is no merchant with this account_id"
	for _, c := range []struct {
		args []string
		code int
		told string
	}{
		{[]string{"update", id}, exitUsage, "--policy, --name, --origin or --no-origins"},
		{[]string{"update", id, "--json"}, exitUsage, "--policy, --name, --origin or --no-origins"},
		{[]string{"update", id, "--origin", "https://geheim.example", "--no-origins"}, exitUsage, "contradict"},
		{[]string{"update", id, "--origin", "https://shop.example", "--origin", "http://geheim.example"}, exitFailed, "$.origins[1] must be an origin"},
		{[]string{"update", id, "--origin", "https://shop.example", "--origin", "https://shop.example"}, exitFailed, "$.origins[1] must not be in the list twice"},
		{[]string{"update", id, "--origin", "https://shop.example,https://geheim.example"}, exitFailed, "$.origins[0] must be an origin"},
		{[]string{"update", id, "--origin", ""}, exitFailed, "$.origins[0] must be an origin"},
		{[]string{"create", "Second", "--origin", "geheim"}, exitFailed, "$.origins[0] must be an origin"},
		{[]string{"update"}, exitUsage, "account-id"},
		{[]string{"show"}, exitUsage, "account-id"},
		{[]string{"update", id, "--policy", "geheim"}, exitFailed, policies},
		{[]string{"update", id, "--policy", ""}, exitFailed, policies},
		{[]string{"update", id, "--name", ""}, exitFailed, "$.name must have 1 to 255 characters"},
		{[]string{"create", "Second", "--policy", "geheim"}, exitFailed, policies},
		{[]string{"update", "0199", "--policy", "novu"}, exitNotFound, nobody},
		{[]string{"update", uuid.NewString(), "--policy", "novu"}, exitNotFound, nobody},
		{[]string{"show", "0199"}, exitNotFound, nobody},
		{[]string{"show", uuid.NewString()}, exitNotFound, nobody},
		{[]string{"show", "../merchants"}, exitNotFound, nobody},
	} {
		code, out, told := r.commanded(append([]string{"merchants"}, c.args...)...)
		if code != c.code || out != "" || !strings.Contains(told, c.told) || strings.Contains(told, "geheim") {
			t.Errorf("merchants %q: exit %d, %s %s, want %d: %s", c.args, code, out, told, c.code, c.told)
		}
	}
	var listed []merchantView
	_, out, _ := r.commanded("merchants", "list", "--json")
	if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed) != 1 || listed[0].Name != "Corner shop" || listed[0].IdempotencyPolicy != idem.DefaultPolicy || len(listed[0].Origins) != 0 {
		t.Errorf("the mistakes left %s (%v)", out, err)
	}
}

// policyNames are the names of all policies that the program has.
func policyNames(t *testing.T) []string {
	t.Helper()
	policies, err := idem.NewPolicies(idem.Presets(idem.Options{})...)
	if err != nil {
		t.Fatal(err)
	}
	return policies.Names()
}

// The document is written by hand, and the policies are the engine's.
func TestDocumentNamesEveryPolicy(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(api.Document)
	if err != nil {
		t.Fatal(err)
	}
	schemas := doc.Components.Schemas
	for where, s := range map[string]*openapi3.SchemaRef{
		"answers":  schemas["IdempotencyPolicy"],
		"creation": schemas["CreateMerchant"].Value.Properties["idempotency_policy"],
		"update":   schemas["UpdateMerchant"].Value.Properties["idempotency_policy"],
	} {
		var names []string
		for _, v := range s.Value.Enum {
			if name, ok := v.(string); ok && name != "" {
				names = append(names, name)
			}
		}
		if !slices.Equal(names, policyNames(t)) {
			t.Errorf("%s: the document names %v, the program has %v", where, names, policyNames(t))
		}
	}
}

// So is the help.
func TestHelpNamesEveryPolicy(t *testing.T) {
	t.Parallel()
	names := policyNames(t)
	all := strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
	var c cli
	k, err := kong.New(&c, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, leaf := range k.Model.Leaves(false) {
		for _, f := range slices.Concat(leaf.AllFlags(false)...) {
			if f.Name != "policy" {
				continue
			}
			found++
			if !strings.Contains(f.Help, all) {
				t.Errorf("%s --policy: %q does not name %s", leaf.FullPath(), f.Help, all)
			}
		}
	}
	if found != 2 {
		t.Errorf("%d commands take a policy, want create and update", found)
	}
}
