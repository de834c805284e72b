package console

import (
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/operators"
)

// sent is a form with these fields, in pairs, and the right password.
func sent(pairs ...string) url.Values {
	v := url.Values{operators.FieldPassword: {testPassword}}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// want fails the test unless an answer has that status and all of these texts.
func (a answer) want(t *testing.T, status int, texts ...string) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("got %d, not %d: %s", a.status, status, a)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("%q is not in the page: %s", text, a.body)
		}
	}
	return a
}

// lacks fails the test if any of these texts is in an answer.
func (a answer) lacks(t *testing.T, texts ...string) answer {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.body, text) {
			t.Errorf("%q is in the page: %s", text, a.body)
		}
	}
	return a
}

// leads fails the test unless an answer leads there.
func (a answer) leads(t *testing.T, path string) {
	t.Helper()
	if got := a.header.Get("Location"); a.status != http.StatusSeeOther || got != path {
		t.Errorf("got %d, to %q and not %q: %s", a.status, got, path, a)
	}
}

// find is the first text in an answer that matches.
func (a answer) find(t *testing.T, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindString(a.body)
	if found == "" {
		t.Fatalf("%s is not in the page: %s", pattern, a.body)
	}
	return found
}

// entries are all of the audit log, the oldest first.
func (w *consoleUnderTest) entries() []audit.Record {
	w.t.Helper()
	p, err := w.handler.o.Audit.Page(w.t.Context(), audit.Filter{}, 0, audit.MaxPage)
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Reverse(p.Records)
	return p.Records
}

// wantEntry fails the test unless the newest entry with an action is about that, and was
// made by that browser's owner, from here and in a request.
func (w *consoleUnderTest) wantEntry(b *browser, action, target string) audit.Record {
	w.t.Helper()
	es := w.entries()
	for _, e := range slices.Backward(es) {
		if e.Action != action {
			continue
		}
		if a := e.Actor; e.Target != target || a.Kind != audit.KindOperator || a.Name != b.Name || a.ID == "" || a.Address != "127.0.0.1" || a.RequestID == "" {
			w.t.Errorf("%s is about %s, by %+v", action, e.Target, a)
		}
		return e
	}
	w.t.Fatalf("there is no entry %s", action)
	return audit.Record{}
}

// kept says in how many tables a text is.
func (w *consoleUnderTest) kept(text string) int64 {
	w.t.Helper()
	return w.sql(`SELECT 1 FROM pg_tables, query_to_xml(format('SELECT * FROM %I.%I', schemaname, tablename), true, true, '') x
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND position($1 IN x::text) > 0`, text)
}

// wantSecret fails the test if what was shown once is anywhere else, or may be kept by who
// has shown it.
func (w *consoleUnderTest) wantSecret(a answer, secret string) {
	w.t.Helper()
	a.want(w.t, http.StatusCreated, "Shown once", `data-copy="`+secret+`"`)
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		w.t.Errorf("the answer may be kept: %q", got)
	}
	if n := w.kept(secret); n != 0 {
		w.t.Errorf("the secret is in %d tables", n)
	}
	if strings.Contains(w.logs.String(), secret) {
		w.t.Error("the secret is in the log")
	}
}

// merchant is one as the service has it.
func (w *consoleUnderTest) merchant(account uuid.UUID) merchants.Merchant {
	w.t.Helper()
	m, err := w.merchants.Merchant(w.t.Context(), account)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// keysOf are all of a merchant's keys, the newest first.
func (w *consoleUnderTest) keysOf(account uuid.UUID) []merchants.Key {
	w.t.Helper()
	ks, _, err := w.merchants.Keys(w.t.Context(), account, uuid.Nil, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	return ks
}

// anywhere is an address for keys without a list.
var anywhere = netip.MustParseAddr("192.0.2.1")

const (
	testSecret = `sandbox_secret_[A-Z2-7]{52}`
	liveSecret = `prod_secret_[A-Z2-7]{52}`
)

// securityForms are all forms about merchants and keys, by their path, filled in well.
func (w *consoleUnderTest) securityForms() map[string]url.Values {
	m, k := merchantPath(w.account), keyPath(w.account, w.keys.ID)
	return map[string]url.Values{
		pathMerchants:   sent("name", "Another", "policy", "yuno"),
		m:               sent("name", "Renamed", "policy", "novu", "origins", "https://a.example", "shown", merchantDigest(w.merchant(w.account))),
		m + "/disable":  sent(),
		m + "/enable":   sent(),
		m + "/keys":     sent("mode", "live"),
		k + "/rotate":   sent("overlap_seconds", "3600"),
		k + "/revoke":   sent(),
		k + "/restrict": sent("networks", "203.0.113.0/24"),
		pathOperators:   sent("name", "eve", "role", "admin"),
		pathTokens:      sent("name", "eve", "scope", "admin", "days", "1"),

		"/operators/admin/role":                sent("role", "viewer"),
		"/operators/admin/disable":             sent(),
		"/operators/admin/enable":              sent(),
		"/operators/admin/reset-password":      sent(),
		"/operators/admin/sign-out":            sent(),
		"/operators/admin/withdraw-invitation": sent(),

		"/tokens/" + uuid.NewString() + "/revoke": sent(),
	}
}

// changed is how many entries there are about anything but people who come and go.
func (w *consoleUnderTest) changed() int {
	comings := []string{
		"operator.signed_in", "operator.signed_out", "operator.sign_in_failed", "operator.confirmation_failed", "operator.invited", "operator.created",
	}
	n := 0
	for _, e := range w.entries() {
		if !slices.Contains(comings, e.Action) {
			n++
		}
	}
	return n
}

func TestOnlyAdminsChangeMerchantsKeysOperatorsAndTokens(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	before := w.changed()
	for _, role := range []operators.Role{operators.Viewer, operators.Operator} {
		b := w.as(role)
		for path, form := range w.securityForms() {
			b.post(path, form).want(t, http.StatusForbidden, "this needs the role admin")
		}
		for _, path := range []string{pathOperators, pathOperators + "/admin", pathTokens} {
			b.get(path).want(t, http.StatusForbidden)
		}
		for _, path := range []string{pathMerchants, merchantPath(w.account), keyPath(w.account, w.keys.ID)} {
			b.get(path).want(t, http.StatusOK).lacks(t, `action="/merchants`, `type="password"`)
		}
	}
	for path, form := range w.securityForms() {
		w.nobody().post(path, form).leads(t, pathSignIn)
	}
	if after := w.changed(); after != before {
		t.Errorf("%d things were done", after-before)
	}
}

// After some wrong passwords in a row the admin has to wait, which is a refusal, too.
func TestWrongPasswordChangesNothing(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	before, was, keys := w.changed(), w.merchant(w.account), w.keysOf(w.account)
	statuses := map[int]int{}
	for path, form := range w.securityForms() {
		for _, password := range []string{"", "not the password of the tests"} {
			form.Set(operators.FieldPassword, password)
			a := b.post(path, form)
			if a.status != http.StatusForbidden && a.status != http.StatusTooManyRequests {
				t.Errorf("%s: got %s", path, a)
			}
			statuses[a.status]++
		}
	}
	if len(statuses) != 2 {
		t.Errorf("got these: %v", statuses)
	}
	if after := w.changed(); after != before {
		t.Errorf("%d things were done", after-before)
	}
	if got := w.merchant(w.account); merchantDigest(got) != merchantDigest(was) || got.DisabledAt != nil || len(w.keysOf(w.account)) != len(keys) {
		t.Errorf("the merchant is another: %+v", got)
	}
	b.get(pathMerchants).want(t, http.StatusOK) // and still signed in
}

func TestMerchantIsMadeAndItsSecretShownOnce(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	a := b.post(pathMerchants, sent("name", "Corner shop", "policy", "novu", "origins", " https://shop.example\r\n\r\nhttp://localhost:3000\r\n"))
	secret := a.find(t, testSecret)
	w.wantSecret(a, secret)
	account, err := uuid.Parse(strings.TrimPrefix(a.find(t, `/merchants/[0-9a-f-]{36}`), "/merchants/"))
	if err != nil {
		t.Fatal(err)
	}
	m := w.merchant(account)
	if m.Name != "Corner shop" || m.IdempotencyPolicy != "novu" || !slices.Equal(m.Origins, []string{"https://shop.example", "http://localhost:3000"}) {
		t.Errorf("made %+v", m)
	}
	key := w.keysOf(account)[0]
	if _, err := w.merchants.Authenticate(key.PublicAPIKey, secret, anywhere); err != nil {
		t.Errorf("the pair that was shown is not taken: %v", err)
	}
	if w.kept(key.PublicAPIKey) == 0 {
		t.Error("the search through all tables finds nothing")
	}
	w.wantEntry(b, "merchant.created", "merchant/"+account.String())
	w.wantEntry(b, "key.created", "key/"+key.ID.String())
	for _, path := range []string{pathMerchants, merchantPath(account), keyPath(account, key.ID), pathAudit} {
		b.get(path).want(t, http.StatusOK).lacks(t, secret)
	}
	b.get(pathMerchants).want(t, http.StatusOK, "Corner shop", account.String(), "First merchant")
	b.get(merchantPath(account)).want(t, http.StatusOK,
		"Corner shop", "https://shop.example", "/payments?account="+account.String(), "/audit?account="+account.String(), key.ID.String())
}

func TestMerchantThatCannotBeIsNotMadeAndTheFormStays(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	const hostile = `"><script>alert(1)</script>`
	before := w.changed()
	for _, c := range []struct{ name, policy, origins, want string }{
		{"", "yuno", "", "the name must have 1 to 255 characters"},
		{strings.Repeat("n", 256), "yuno", "", "the name must have 1 to 255 characters"},
		{"Shop", "none", "", "the policy must be"},
		{"Shop", "yuno", "https://shop.example\nhttps://shop.example/path", "entry 2 of the origins must be an origin as browsers send it"},
		{"Shop", "yuno", "https://shop.example\n\nhttps://shop.example", "entry 2 of the origins must not be in the list twice"},
		{"Shop", "yuno", hostile, "entry 1 of the origins must be an origin"},
		{hostile, "yuno", hostile, "entry 1 of the origins must be an origin"},
	} {
		a := b.post(pathMerchants, sent("name", c.name, "policy", c.policy, "origins", c.origins)).want(t, http.StatusBadRequest, c.want, "<details class=\"action\" open>")
		a.lacks(t, "<script>alert", testPassword)
		if c.name == hostile {
			a.want(t, http.StatusBadRequest, "&#34;&gt;&lt;script&gt;")
		}
	}
	if after := w.changed(); after != before {
		t.Errorf("%d things were done", after-before)
	}
}

func TestHostileNameIsTextOnEveryPage(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	const hostile = `</title></textarea><script>alert(1)</script>" autofocus onfocus="alert(2)' {{.}}`
	account, pair := w.newMerchant(hostile)
	b.post(pathTokens, sent("name", hostile, "scope", "viewer", "days", "1")).want(t, http.StatusCreated).lacks(t, "<script>alert", `" autofocus onfocus`)
	for _, path := range []string{pathMerchants, merchantPath(account), keyPath(account, pair.ID), pathOperators, pathAudit} {
		b.get(path).want(t, http.StatusOK, "&lt;script&gt;alert(1)").lacks(t, "<script>alert", `" autofocus onfocus`)
	}
	a := b.post(merchantPath(account)+"/keys", sent("mode", "test", "networks", hostile)).want(t, http.StatusBadRequest, "entry 1 of the networks")
	a.lacks(t, "<script>alert", `" autofocus onfocus`)
	query := url.Values{"target": {hostile}, "actor": {hostile}, "action": {hostile}, "done": {hostile}}.Encode()
	b.get(pathAudit+"?"+query).want(t, http.StatusOK, "Nothing matches").lacks(t, "<script>alert", `" autofocus onfocus`)
	b.get(merchantPath(account)+"?"+query).want(t, http.StatusOK).lacks(t, "<script>alert")
}

func TestMerchantIsChangedWhereItIsDifferent(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	path := merchantPath(w.account)
	shown := func() string {
		return strings.Split(b.get(path).find(t, `name="shown" value="[0-9a-f]+"`), `"`)[3]
	}
	form := sent("name", "First merchant", "policy", "yuno", "origins", "https://shop.example\r\n", "shown", shown())
	b.post(path, form).leads(t, path+"?done=merchant-updated")
	if m := w.merchant(w.account); m.Name != "First merchant" || !slices.Equal(m.Origins, []string{"https://shop.example"}) {
		t.Errorf("it is %+v", m)
	}
	e := w.wantEntry(b, "merchant.updated", "merchant/"+w.account.String())
	if want := map[string]string{"origins_added": "https://shop.example"}; !maps.Equal(e.Details, want) {
		t.Errorf("the entry says %v", e.Details)
	}

	n := w.changed()
	form.Set("shown", shown())
	b.post(path, form).leads(t, path+"?done=merchant-unchanged")
	form.Set("policy", "none")
	b.post(path, form).want(t, http.StatusBadRequest, "the policy must be")
	if w.changed() != n {
		t.Error("nothing was different, and something was changed")
	}
	b.get(path+"?done=merchant-updated").want(t, http.StatusOK, "The merchant was changed.")

	form.Set("policy", "yuno")
	form.Set("origins", "")
	b.post(path, form).leads(t, path+"?done=merchant-updated")
	if m := w.merchant(w.account); len(m.Origins) != 0 {
		t.Errorf("the origins are %v", m.Origins)
	}
}

// Somebody has a merchant on their screen, and saves it when somebody else has changed
// another field: saving all fields would take that back unseen.
func TestNobodyUndoesUnseenWhatSomebodyElseHasChanged(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	path := merchantPath(w.account)
	old := merchantDigest(w.merchant(w.account))
	if _, err := w.merchants.Update(t.Context(), w.account, merchants.Update{Origins: []string{"https://new.example"}}); err != nil {
		t.Fatal(err)
	}
	form := sent("name", "Mine", "policy", "yuno", "origins", "", "shown", old)
	a := b.post(path, form).want(t, http.StatusConflict, "somebody else has changed this merchant", `value="Mine"`, "https://new.example")
	if m := w.merchant(w.account); m.Name != "First merchant" || len(m.Origins) != 1 {
		t.Errorf("it is %+v", m)
	}
	// Who has seen that may still want it.
	form.Set("shown", strings.Split(a.find(t, `name="shown" value="[0-9a-f]+"`), `"`)[3])
	b.post(path, form).leads(t, path+"?done=merchant-updated")
	if m := w.merchant(w.account); m.Name != "Mine" || len(m.Origins) != 0 {
		t.Errorf("it is %+v", m)
	}
}

func TestMerchantIsDisabledAndEnabled(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	path := merchantPath(w.account)
	taken := func() bool {
		_, err := w.merchants.Authenticate(w.keys.PublicAPIKey, w.keys.PrivateSecretKey, anywhere)
		return err == nil
	}
	b.post(path+"/disable", sent()).leads(t, path+"?done=merchant-disabled")
	b.get(path).want(t, http.StatusOK, "None of its keys is taken", path+"/enable").lacks(t, path+"/disable")
	b.get(pathMerchants).want(t, http.StatusOK, `<span class="status bad">disabled</span>`)
	b.get(keyPath(w.account, w.keys.ID)).want(t, http.StatusOK, "The merchant is disabled")
	if taken() {
		t.Error("a key of a disabled merchant is taken")
	}
	w.wantEntry(b, "merchant.disabled", "merchant/"+w.account.String())
	b.post(path+"/enable", sent()).leads(t, path+"?done=merchant-enabled")
	if !taken() {
		t.Error("the key is not taken again")
	}
	w.wantEntry(b, "merchant.enabled", "merchant/"+w.account.String())
}

func TestMerchantsAreListedByPages(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	for i := range listLimit + 4 {
		w.sql(`INSERT INTO merchants (account_id, name, idempotency_policy) VALUES ($1, $2, 'yuno')`, uuid.Must(uuid.NewV7()).String(), "Shop "+string(rune('A'+i%26)))
	}
	seen, path := 0, pathMerchants
	for range 3 {
		a := b.get(path).want(t, http.StatusOK)
		seen += strings.Count(a.body, `<th scope="row"`)
		next := regexp.MustCompile(`/merchants\?after=[0-9a-f-]{36}`).FindString(a.body)
		if next == "" {
			break
		}
		path = next
	}
	if seen != listLimit+5 {
		t.Errorf("%d merchants are in the pages", seen)
	}
	b.get(pathMerchants+"?after=x").want(t, http.StatusBadRequest, "after must be an id")
	for _, path := range []string{"/merchants/x", "/merchants/" + uuid.NewString(), "/merchants/" + uuid.NewString() + "/keys/" + w.keys.ID.String()} {
		b.get(path).want(t, http.StatusNotFound)
	}
}
