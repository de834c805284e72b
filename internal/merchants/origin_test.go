package merchants

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
)

// Two origins that shops have.
const (
	shop  = "https://shop.example"
	other = "https://www.shop.example:8443"
)

func TestOriginIsTakenAsBrowsersWriteItAndInNoOtherWay(t *testing.T) {
	t.Parallel()
	long := "https://" + strings.Repeat("a.", 120) + "example"
	for origin, want := range map[string]bool{
		shop: true, other: true, "https://xn--mller-kva.example": true, "https://intranet": true, "https://a_b.c-d.example": true,
		"https://shop.example:80": true, "https://shop.example:1": true, "https://shop.example:65535": true, "https://shop.4you": true,
		"https://192.0.2.1": true, "https://192.0.2.1:8443": true, "https://[2001:db8::7]": true, "https://[2001:db8::7]:8443": true,
		"https://localhost": true, "https://[::1]:8443": true, "http://localhost": true, "http://localhost:3000": true,
		"http://127.0.0.1:3000": true, "http://[::1]": true, "http://[::1]:443": true, "http://localhost:443": true,
		long: true, // 255 characters

		"http://shop.example": false, "http://127.0.0.2": false, "http://localhost.example": false, "http://[2001:db8::7]": false,
		"http://a.localhost": false, "ws://localhost": false, "ftp://shop.example": false, "file://": false, "app://localhost": false,
		"": false, "null": false, "*": false, "https": false, "https:": false, "https://": false, "https:///": false, "//shop.example": false,
		"shop.example": false, "https:shop.example": false, "https//shop.example": false, "https://*": false, "https://*.shop.example": false,
		"https://shop.example/": false, "https://shop.example/pay": false, "https://shop.example?a": false, "https://shop.example#a": false,
		"https://u@shop.example": false, "https://u:p@shop.example": false, "https://shop.example\\": false,
		"HTTPS://shop.example": false, "https://Shop.example": false, "https://SHOP.EXAMPLE": false, "https://müller.example": false,
		" https://shop.example": false, "https://shop.example ": false, "https://shop.example\n": false, "https://shop.example\x00": false,
		"https://shop.example:443": false, "http://localhost:80": false, "https://shop.example:": false, "https://shop.example:0": false,
		"https://shop.example:08443": false, "https://shop.example:+8443": false, "https://shop.example:65536": false, "https://shop.example:a": false,
		"https://shop.example:1:2": false, "https://:8443": false, "https://.": false, "https://.example": false, "https://shop.example.": false,
		"https://shop..example": false, "https://shop.example;": false, "https://shop.example,https://b.example": false, "https://'self'": false,
		"https://192.0.2": false, "https://192.0.2.01": false, "https://192.0.2.256": false, "https://1": false, "https://0x7f.1": false,
		"https://shop.0x1": false, "https://shop.0x": false, "https://shop.1": false, "https://%73hop.example": false,
		"https://2001:db8::7": false, "https://[2001:DB8::7]": false, "https://[2001:0db8::7]": false, "https://[2001:db8:0:0::7]": false,
		"https://[::ffff:192.0.2.1]": false, "https://[::ffff:c000:201]": false, "https://[fe80::1%eth0]": false, "https://[192.0.2.1]": false,
		"https://[::1": false, "https://::1]": false, "https://[]": false, "https://[[::1]]": false, "https://[::1]a": false, "https://[::1]:": false,
		strings.Replace(long, "//", "//a", 1): false,
	} {
		got, ok := ParseOrigin(origin)
		if ok != want || ok && got != origin || !ok && got != "" {
			t.Errorf("%q is %q (%t), want %t", origin, got, ok, want)
		}
	}
}

// What is taken for an origin stands in headers and in lists, beside others.
func FuzzParseOrigin(f *testing.F) {
	for _, seed := range []string{shop, other, "http://[::1]:3000", "https://192.0.2.1", "null", "https://a;b", "https://[::ffff:c000:201]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		origin, ok := ParseOrigin(s)
		if !ok {
			return
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme+"://"+u.Host != s || origin != s || strings.ToLower(s) != s || len(s) > 255 {
			t.Errorf("%q is no origin of a URL (%v)", s, err)
		}
		if strings.Trim(u.Host, labelCharacters+".:[]") != "" {
			t.Errorf("%q has characters that mean something elsewhere", s)
		}
		if got := originsOf(s + "," + s); !slices.Equal(got, []string{s, s}) {
			t.Errorf("%q in a list is %q", s, got)
		}
	})
}

// wantOrigins fails the test unless a service tells an account's origins everywhere that it
// tells them.
func (b *bench) wantOrigins(s *Service, m Merchant, pair KeyPair, want ...string) {
	b.t.Helper()
	if got := s.Origins(m.AccountID); !slices.Equal(got, want) {
		b.t.Errorf("the account's origins are %q, want %q", got, want)
	}
	c, err := s.AuthenticatePublic(pair.PublicAPIKey)
	if err != nil || c.AccountID != m.AccountID || c.Mode != pair.Mode || !slices.Equal(c.Origins, want) {
		b.t.Errorf("the key speaks for %s in %s mode, from %q (%v); want %q", c.AccountID, c.Mode, c.Origins, err, want)
	}
	for _, o := range []string{shop, other, "http://localhost:3000", "null", ""} {
		if got := c.Allows(o); got != slices.Contains(want, o) {
			b.t.Errorf("%q is allowed: %t", o, got)
		}
	}
	page, key, ok := s.PublicKey(m.AccountID, pair.Mode)
	if !ok || page.AccountID != m.AccountID || page.MerchantName != c.MerchantName || !slices.Equal(page.Origins, want) {
		b.t.Errorf("a page of ours speaks for %s (%t), from %q with %q", page.AccountID, ok, page.Origins, key)
	}
}

// wantKnown fails the test unless exactly these of the two shops' origins are known.
func (b *bench) wantKnown(s *Service, want ...string) {
	b.t.Helper()
	for _, o := range []string{shop, other, "https://nobody.example", "null", ""} {
		if got := s.KnownOrigin(o); got != slices.Contains(want, o) {
			b.t.Errorf("%q is known: %t", o, got)
		}
	}
}

// The other instance has been running for long: it reads what changed, and the keys have not.
func TestChangedOriginsReachEveryKeyOnEveryInstance(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, elsewhere := b.instance()
	m, test, err := b.Create(t.Context(), "First", "", shop)
	if err != nil || !slices.Equal(m.Origins, []string{shop}) {
		t.Fatalf("made with %q (%v)", m.Origins, err)
	}
	live, err := b.CreateKey(t.Context(), m.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	second, theirs, err := b.Create(t.Context(), "Second", "", other)
	if err != nil {
		t.Fatal(err)
	}
	b.refresh(elsewhere)
	was := []string{shop}
	for _, origins := range [][]string{{shop, other}, {other}, {}, {other, shop}, {other, shop}, {shop}} {
		b.age()
		got, err := b.Update(t.Context(), m.AccountID, Update{Origins: origins})
		if err != nil || !slices.Equal(got.Origins, origins) || !same(got, b.merchantOf(m.AccountID)) || got.Name != "First" || got.IdempotencyPolicy != "yuno" {
			t.Fatalf("changed to %q, the merchant is %+v (%v)", origins, got, err)
		}
		for _, pair := range []KeyPair{test, live} {
			b.wantOrigins(b.Service, m, pair, origins...) // at once where it was changed
			b.wantOrigins(elsewhere, m, pair, was...)
		}
		completed := elsewhere.completed
		b.refresh(elsewhere)
		_, late := b.instance()
		b.refresh(late)
		for _, s := range []*Service{elsewhere, late} {
			for _, pair := range []KeyPair{test, live} {
				b.wantOrigins(s, m, pair, origins...)
			}
			b.wantOrigins(s, second, theirs, other)
			b.wantKnown(s, append(slices.Clone(origins), other)...)
		}
		if elsewhere.completed != completed {
			t.Error("the other instance read everything, and not only what changed")
		}
		was = origins
	}
	if _, err := b.Update(t.Context(), m.AccountID, named("Renamed")); err != nil {
		t.Fatal(err)
	}
	b.refresh(elsewhere)
	b.wantOrigins(elsewhere, m, test, shop) // whatever else is changed
	if c, err := elsewhere.AuthenticatePublic(live.PublicAPIKey); err != nil || c.MerchantName != "Renamed" || c.Policy != "yuno" {
		t.Errorf("the key speaks for %q with the policy %s (%v)", c.MerchantName, c.Policy, err)
	}
}

// An origin is known for as long as any merchant has it who has a key that is taken, however
// often it is read.
func TestOriginIsKnownWhileSomebodyHasIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, elsewhere := b.instance()
	b.wantKnown(b.Service)
	first, pair, err := b.Create(t.Context(), "First", "", shop)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := b.Create(t.Context(), "Second", "", shop, other)
	if err != nil {
		t.Fatal(err)
	}
	both := func(want ...string) {
		t.Helper()
		b.refresh(elsewhere)
		later(b.Service, completeEvery)
		for range 3 {
			b.refresh(b.Service)
		}
		b.wantKnown(b.Service, want...)
		b.wantKnown(elsewhere, want...)
	}
	both(shop, other)
	if _, err := b.SetDisabled(t.Context(), second.AccountID, true); err != nil {
		t.Fatal(err)
	}
	both(shop)
	if got := b.Origins(second.AccountID); got != nil {
		t.Errorf("a disabled account's origins are %q", got)
	}
	if _, err := b.Revoke(t.Context(), first.AccountID, pair.ID); err != nil {
		t.Fatal(err)
	}
	both()
	if _, err := b.SetDisabled(t.Context(), second.AccountID, false); err != nil {
		t.Fatal(err)
	}
	both(shop, other)
	if _, err := b.Update(t.Context(), second.AccountID, Update{Origins: []string{other}}); err != nil {
		t.Fatal(err)
	}
	both(other)
	b.exec(`DELETE FROM api_keys WHERE account_id = $1`, second.AccountID)
	later(elsewhere, completeEvery)
	both()
	for _, s := range []*Service{b.Service, elsewhere} {
		if len(s.dir.keys)+len(s.dir.accounts)+len(s.dir.origins)+len(s.dir.expiring) != 0 {
			t.Errorf("without any key the directory holds %d keys, %d accounts and %d origins", len(s.dir.keys), len(s.dir.accounts), len(s.dir.origins))
		}
	}
}

// A person who changes rows by hand may write anything.
func TestWhatIsNoOriginAllowsNobodyWhereverItComesFrom(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair := b.made("First")
	b.exec(`UPDATE merchants SET origins = ARRAY['null', $2, 'https://*', 'https://a.example; script-src *', ''], changed_at = clock_timestamp() WHERE account_id = $1`, m.AccountID, shop)
	b.refresh(b.Service)
	b.wantOrigins(b.Service, m, pair, shop)
	if got := b.merchantOf(m.AccountID).Origins; !slices.Equal(got, []string{shop}) {
		t.Errorf("the merchant has %q", got)
	}
}

func TestServiceRefusesOriginsThatCannotBe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, _, err := b.Create(t.Context(), "First", "", shop)
	if err != nil {
		t.Fatal(err)
	}
	many := make([]string, maxOrigins+1)
	for i := range many {
		many[i] = fmt.Sprintf("https://shop%d.example", i)
	}
	for message, origins := range map[string][]string{
		"$.origins[0] must be an origin as browsers send it": {"https://geheim.example/"},
		"$.origins[1] must be an origin as browsers send it": {shop, "geheim", "geheim"},
		"$.origins[2] must not be in the list twice":         {shop, other, shop},
		"$.origins must be a list of at most 50 origins":     many,
	} {
		_, err := b.Update(t.Context(), m.AccountID, Update{Name: new("Renamed"), Origins: origins})
		_, _, made := b.Create(t.Context(), "Second", "", origins...)
		for _, err := range []error{err, made} {
			wantCode(t, err, apierr.InvalidParameters)
			if !strings.Contains(err.Error(), message) || strings.Contains(err.Error(), "geheim") {
				t.Errorf("%q: %v", message, err)
			}
		}
	}
	if got := b.merchantOf(m.AccountID); !slices.Equal(got.Origins, []string{shop}) || got.Name != "First" {
		t.Errorf("the merchant is %+v", got)
	}
	got, err := b.Update(t.Context(), m.AccountID, Update{Origins: many[1:]})
	if err != nil || !slices.Equal(got.Origins, many[1:]) {
		t.Errorf("with as many as there may be: %d (%v)", len(got.Origins), err)
	}
	_, err = b.Update(t.Context(), uuid.New(), Update{Origins: []string{shop}})
	wantCode(t, err, apierr.NotFound)
}

// Two operators at once, on two instances: neither undoes what the other one did.
func TestOriginsAndOtherUpdatesAtOnceAreAllKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, elsewhere := b.instance()
	m, pair := b.made("First")
	for round := range 10 {
		origins, name := []string{fmt.Sprintf("https://shop%d.example", round)}, fmt.Sprintf("Name %d", round)
		errs := make([]error, 2)
		var wg sync.WaitGroup
		wg.Go(func() { _, errs[0] = b.Update(t.Context(), m.AccountID, Update{Origins: origins}) })
		wg.Go(func() { _, errs[1] = elsewhere.Update(t.Context(), m.AccountID, named(name)) })
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range []*Service{b.Service, elsewhere} {
			b.refresh(s)
			c, err := s.AuthenticatePublic(pair.PublicAPIKey)
			if err != nil || c.MerchantName != name || !slices.Equal(c.Origins, origins) {
				t.Fatalf("after %s and %q at once the caller is %q, %q (%v)", name, origins, c.MerchantName, c.Origins, err)
			}
		}
	}
}

// wantPublicStranger fails the test unless a public key is refused, and in the one way in
// which all are.
func (b *bench) wantPublicStranger(s *Service, publicKey string) {
	b.t.Helper()
	c, err := s.AuthenticatePublic(publicKey)
	e, ok := apierr.From(err)
	if !ok || c.AccountID != uuid.Nil || e.Status != 401 || e.Code != apierr.InvalidCredentials ||
		!slices.Equal(e.Messages, []string{"public-api-key must be a valid key"}) || e.RetryAfter != 0 {
		b.t.Fatalf("the key was taken for %s, or refused with %v", c.AccountID, err)
	}
}

func TestPublicKeySpeaksForItsMerchantByItself(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, test, err := b.Create(t.Context(), "First", "novu", shop)
	if err != nil {
		t.Fatal(err)
	}
	live, err := b.CreateKey(t.Context(), m.AccountID, Live, netip.MustParsePrefix("203.0.113.7/32"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range []KeyPair{test, live} { // its networks are the backend's
		c, err := b.AuthenticatePublic(pair.PublicAPIKey)
		want := Caller{AccountID: m.AccountID, Mode: pair.Mode, Policy: "novu"}
		if err != nil || c.Caller != want || c.MerchantName != "First" || !slices.Equal(c.Origins, []string{shop}) {
			t.Errorf("the key speaks for %+v (%v)", c, err)
		}
	}
	for _, stranger := range []string{"", "sandbox_unheard_of", test.PrivateSecretKey, strings.ToLower(test.PublicAPIKey), test.PublicAPIKey + " "} {
		b.wantPublicStranger(b.Service, stranger)
	}
	if n := b.flush(b.Service); n != 2 {
		t.Errorf("%d uses were noted, want those of two keys", n)
	}
	if b.lastUse(m, test).IsZero() || b.lastUse(m, live).IsZero() {
		t.Error("a key that pages have looks as if nobody used it")
	}
}

func TestPublicKeyThatHasEndedSpeaksForNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, elsewhere := b.instance()
	m, old := b.made("First")
	disabled, theirs := b.made("Second")
	successor, k, err := b.Rotate(t.Context(), m.AccountID, old.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b.refresh(elsewhere)
	b.wantOrigins(elsewhere, m, old)
	if _, err := b.Revoke(t.Context(), m.AccountID, successor.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetDisabled(t.Context(), disabled.AccountID, true); err != nil {
		t.Fatal(err)
	}
	b.refresh(elsewhere)
	b.wantPublicStranger(elsewhere, successor.PublicAPIKey)
	b.wantPublicStranger(elsewhere, theirs.PublicAPIKey)
	b.wantOrigins(elsewhere, m, old)
	later(elsewhere, k.ExpiresAt.Sub(elsewhere.asOf.databaseTime(elsewhere.now()))+time.Second) // by itself
	b.wantPublicStranger(elsewhere, old.PublicAPIKey)
	if _, _, ok := elsewhere.PublicKey(m.AccountID, Test); ok {
		t.Error("a page of ours would have a key that has ended")
	}
}

func TestDirectoryThatIsTooOldTakesNoPublicKey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.RefuseAfter(4 * time.Second)
	_, pair := b.made("First")
	later(b.Service, 5*time.Second)
	for _, publicKey := range []string{pair.PublicAPIKey, "sandbox_unheard_of"} {
		_, err := b.AuthenticatePublic(publicKey)
		wantCode(t, err, apierr.ServiceUnavailable)
		if e, _ := apierr.From(err); e.Status != 503 || e.RetryAfter != 1 {
			t.Errorf("told %d, Retry-After %d", e.Status, e.RetryAfter)
		}
	}
}

func TestPageOfOursHasTheOldestKeyThatLasts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, elsewhere := b.instance()
	m, first, err := b.Create(t.Context(), "First", "", shop)
	if err != nil {
		t.Fatal(err)
	}
	want := func(mode string, pair KeyPair) {
		t.Helper()
		later(b.Service, completeEvery)
		b.refresh(b.Service)
		b.refresh(elsewhere)
		for _, s := range []*Service{b.Service, elsewhere} {
			c, key, ok := s.PublicKey(m.AccountID, mode)
			if ok != (pair.PublicAPIKey != "") || key != pair.PublicAPIKey {
				t.Errorf("in %s mode a page has %q (%t), want %q", mode, key, ok, pair.PublicAPIKey)
			}
			if ok && (c.AccountID != m.AccountID || c.Mode != mode || c.MerchantName != "First" || !c.Allows(shop)) {
				t.Errorf("a page speaks for %+v", c)
			}
		}
	}
	want(Test, first)
	want(Live, KeyPair{})
	live, err := b.CreateKey(t.Context(), m.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.CreateKey(t.Context(), m.AccountID, Test)
	if err != nil {
		t.Fatal(err)
	}
	want(Test, first)
	want(Live, live)
	if _, _, err := b.Rotate(t.Context(), m.AccountID, first.ID, time.Hour); err != nil { // it ends
		t.Fatal(err)
	}
	want(Test, second)
	successor, _, err := b.Rotate(t.Context(), m.AccountID, live.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want(Live, successor)
	if _, err := b.Revoke(t.Context(), m.AccountID, successor.ID); err != nil {
		t.Fatal(err)
	}
	want(Live, live) // better than none
	if _, err := b.SetDisabled(t.Context(), m.AccountID, true); err != nil {
		t.Fatal(err)
	}
	want(Test, KeyPair{})
	want(Live, KeyPair{})
	if _, _, ok := b.PublicKey(uuid.New(), Test); ok {
		t.Error("an account that there is not has a key")
	}
}

func TestOperatorRegistersOrigins(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	var made struct {
		wireMerchant
		APIKey shownKey `json:"api_key"`
	}
	status, answer := o.post("/admin/v1/merchants", `{"name":"First","origins":["`+other+`","`+shop+`"]}`)
	o.decoded(status, http.StatusCreated, answer, &made)
	if !slices.Equal(made.Origins, []string{other, shop}) {
		t.Errorf("made: %s", answer)
	}
	m := Merchant{AccountID: uuid.MustParse(made.AccountID)}
	o.wantOrigins(o.Service, m, made.APIKey.KeyPair, other, shop)
	merchant := "/admin/v1/merchants/" + made.AccountID
	for _, step := range []struct {
		body string
		want []string
	}{
		{`{"origins":["` + shop + `"]}`, []string{shop}},
		{`{"origins":null,"name":"Second"}`, []string{shop}},
		{`{"idempotency_policy":"ietf"}`, []string{shop}},
		{`{"origins":[]}`, []string{}},
		{`{"origins":["http://localhost:3000"],"name":"Third","unknown":1}`, []string{"http://localhost:3000"}},
	} {
		var told, found wireMerchant
		var listed []wireMerchant
		status, answer, _ := o.ask(http.MethodPatch, merchant, step.body)
		o.decoded(status, http.StatusOK, answer, &told)
		status, again, _ := o.ask(http.MethodGet, merchant, "")
		o.decoded(status, http.StatusOK, again, &found)
		status, list, _ := o.ask(http.MethodGet, "/admin/v1/merchants", "")
		o.decoded(status, http.StatusOK, list, &listed)
		if !bytes.Equal(answer, again) || !slices.Equal(told.Origins, step.want) || told.Origins == nil || len(listed) != 1 || !slices.Equal(listed[0].Origins, step.want) {
			t.Errorf("PATCH %s: told %s, found %s, listed %s", step.body, answer, again, list)
		}
		o.wantOrigins(o.Service, m, made.APIKey.KeyPair, step.want...)
	}
	for _, body := range []string{`{"name":"Fourth"}`, `{"name":"Fourth","origins":null}`, `{"name":"Fourth","origins":[]}`} {
		status, answer := o.post("/admin/v1/merchants", body)
		o.decoded(status, http.StatusCreated, answer, &made)
		if made.Origins == nil || len(made.Origins) != 0 || !bytes.Contains(answer, []byte(`"origins":[]`)) {
			t.Errorf("%s: %s", body, answer)
		}
	}
}

func TestMistakesInOriginsAreToldByPlaceAndRule(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, _, err := o.Create(t.Context(), "First", "", shop)
	if err != nil {
		t.Fatal(err)
	}
	before := o.merchantOf(m.AccountID)
	const list, twice = "$.origins must be a list of at most 50 origins", " must not be in the list twice"
	many := strings.Repeat(`"https://geheim.example",`, maxOrigins) + `"https://geheim.example"`
	for _, c := range []struct{ origins, message string }{
		{`"https://geheim.example"`, list},
		{`{"geheim":1}`, list},
		{`true`, list},
		{`4711471147114711`, list},
		{`[` + many + `]`, list},
		{`["https://geheim.example/"]`, "$.origins[0] " + originRule},
		{`["` + shop + `","http://geheim.example"]`, "$.origins[1] " + originRule},
		{`["` + shop + `",4711471147114711]`, "$.origins[1] " + originRule},
		{`["` + shop + `",null]`, "$.origins[1] " + originRule},
		{`[["` + shop + `"]]`, "$.origins[0] " + originRule},
		{`["*"]`, "$.origins[0] " + originRule},
		{`["null"]`, "$.origins[0] " + originRule},
		{`["` + shop + `","` + other + `","` + shop + `"]`, "$.origins[2]" + twice},
	} {
		for _, ask := range []struct{ method, path, body string }{
			{http.MethodPost, "/admin/v1/merchants", `{"name":"Second","origins":` + c.origins + `}`},
			{http.MethodPatch, "/admin/v1/merchants/" + m.AccountID.String(), `{"name":"Second","origins":` + c.origins + `}`},
		} {
			status, answer, _ := o.ask(ask.method, ask.path, ask.body)
			if status != 400 || !bytes.Contains(answer, []byte(`"code":"INVALID_PARAMETERS","messages":["`+c.message+`"]`)) {
				t.Errorf("%s %.80s: got %d %s, want %s", ask.method, ask.body, status, answer, c.message)
			}
			if bytes.Contains(answer, []byte("geheim")) || bytes.Contains(answer, []byte("4711471147114711")) {
				t.Errorf("%.80s: the answer repeats what was sent", ask.body)
			}
		}
	}
	if !same(o.merchantOf(m.AccountID), before) {
		t.Errorf("the merchant is %+v", o.merchantOf(m.AccountID))
	}
	if strings.Contains(o.logs.String(), "geheim") || strings.Contains(o.logs.String(), "4711471147114711") {
		t.Error("the log shows what was sent")
	}
}

// The database has the last word about how many there are.
func TestDatabaseKeepsNoMoreOriginsThanThereMayBe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, _ := b.made("First")
	const grow = `UPDATE merchants SET origins = array_fill('https://shop.example'::text, ARRAY[$2::integer]) WHERE account_id = $1`
	b.exec(grow, m.AccountID, maxOrigins)
	err := b.db.Conn(t.Context()).Exec(grow, m.AccountID, maxOrigins+1).Error
	if err == nil || !strings.Contains(err.Error(), "merchants_origins_bounded") {
		t.Errorf("one too many: %v", err)
	}
}
