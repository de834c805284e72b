package merchants

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// wantPolicy fails the test unless each pair speaks for the account and has that policy
// at a service, for who has authenticated and for who has only shown the public key.
func (b *bench) wantPolicy(s *Service, policy string, account uuid.UUID, pair KeyPair, others ...KeyPair) {
	b.t.Helper()
	for _, pair := range append([]KeyPair{pair}, others...) {
		if c, err := s.Authenticate(pair.PublicAPIKey, pair.PrivateSecretKey, anywhere); err != nil || c.AccountID != account || c.Policy != policy {
			b.t.Errorf("a caller's policy is %q (%v), want %s", c.Policy, err, policy)
		}
		if got := s.PolicyOfKey(pair.PublicAPIKey); got != policy {
			b.t.Errorf("the key's policy is %q, want %s", got, policy)
		}
	}
}

// wantDefaultPolicy fails the test unless a service tells of each pair's public key what
// it tells of one that nobody has.
func (b *bench) wantDefaultPolicy(s *Service, pairs ...KeyPair) {
	b.t.Helper()
	for _, pair := range pairs {
		if got := s.PolicyOfKey(pair.PublicAPIKey); got != testPolicies[0] {
			b.t.Errorf("a key that is not taken tells the policy %q, want %s", got, testPolicies[0])
		}
	}
}

// merchantOf is the merchant as the database has it.
func (b *bench) merchantOf(account uuid.UUID) Merchant {
	b.t.Helper()
	m, err := b.store.merchant(b.db.Conn(b.t.Context()), account)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func same(a, b Merchant) bool { return reflect.DeepEqual(a, b) }

func to(policy string) Update { return Update{IdempotencyPolicy: &policy} }

func named(name string) Update { return Update{Name: &name} }

// age dates everything back: a refresh finds what changed since, and nothing else.
func (b *bench) age() {
	b.t.Helper()
	pgtest.Exec(b.t, b.url, `UPDATE merchants SET changed_at = changed_at - interval '1 hour'`)
	pgtest.Exec(b.t, b.url, `UPDATE api_keys SET changed_at = changed_at - interval '1 hour'`)
}

// Every key carries its merchant's policy. The other instance has been running for
// long: it reads what changed, and the keys have not.
func TestChangedPolicyReachesEveryKeyOnEveryInstance(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, test := b.made("First")
	second, theirs := b.made("Second")
	live, err := b.CreateKey(t.Context(), m.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	successor, _, err := b.Rotate(t.Context(), m.AccountID, test.ID, DefaultOverlap)
	if err != nil {
		t.Fatal(err)
	}
	b.refresh(other)
	for _, policy := range []string{"novu", "ietf", "fyno", "yuno", "yuno"} {
		b.age()
		was := b.merchantOf(m.AccountID).IdempotencyPolicy
		got, err := b.Update(t.Context(), m.AccountID, to(policy))
		if err != nil || !same(got, b.merchantOf(m.AccountID)) || got.IdempotencyPolicy != policy || got.Name != "First" {
			t.Fatalf("changed to %s, the merchant is %+v (%v)", policy, got, err)
		}
		b.wantPolicy(b.Service, policy, m.AccountID, test, live, successor) // at once where it was changed
		b.wantPolicy(other, was, m.AccountID, test, live, successor)
		completed := other.completed
		b.refresh(other)
		b.wantPolicy(other, policy, m.AccountID, test, live, successor)
		b.wantPolicy(other, "yuno", second.AccountID, theirs)
		if other.completed != completed {
			t.Error("the other instance read everything, and not only what changed")
		}
	}
	// A key that is made later has it too, by whichever way the two are read.
	if _, err := b.Update(t.Context(), m.AccountID, to("novu")); err != nil {
		t.Fatal(err)
	}
	made, err := other.CreateKey(t.Context(), m.AccountID, Test)
	if err != nil {
		t.Fatal(err)
	}
	later(other, completeEvery)
	_, late := b.instance()
	for _, s := range []*Service{b.Service, other, late} {
		b.refresh(s)
		b.wantPolicy(s, "novu", m.AccountID, test, live, successor, made)
	}
}

func TestUpdateChangesWhatItNamesAndNothingElse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair := b.made("First")
	second, theirs := b.made("Second")
	before := b.merchantOf(m.AccountID)
	keys := b.version(pair) + b.version(theirs)
	want := before
	for _, step := range []struct {
		update       Update
		name, policy string
	}{
		{named("Renamed"), "Renamed", "yuno"},
		{to("ietf"), "Renamed", "ietf"},
		{Update{Name: new("Both"), IdempotencyPolicy: new("novu")}, "Both", "novu"},
		{Update{Name: new("Both"), IdempotencyPolicy: new("novu")}, "Both", "novu"}, // again, as who had no answer would
	} {
		want.Name, want.IdempotencyPolicy = step.name, step.policy
		if got, err := b.Update(t.Context(), m.AccountID, step.update); err != nil || !same(got, want) || !same(b.merchantOf(m.AccountID), want) {
			t.Errorf("updated to %q, %s: told %+v, kept %+v (%v)", step.name, step.policy, got, b.merchantOf(m.AccountID), err)
		}
	}
	if b.version(pair)+b.version(theirs) != keys {
		t.Error("an update of a merchant wrote to a key")
	}
	b.wantPolicy(b.Service, "yuno", second.AccountID, theirs)
	if got := b.merchantOf(second.AccountID); got.Name != "Second" || got.IdempotencyPolicy != "yuno" {
		t.Errorf("the other merchant is %+v", got)
	}
}

func TestDisabledMerchantIsUpdatedAndStaysDisabled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, pair := b.made("First")
	disabled, err := b.SetDisabled(t.Context(), m.AccountID, true)
	if err != nil {
		t.Fatal(err)
	}
	b.refresh(other)
	got, err := b.Update(t.Context(), m.AccountID, Update{Name: new("Renamed"), IdempotencyPolicy: new("fyno")})
	if err != nil || got.IdempotencyPolicy != "fyno" || got.DisabledAt == nil || !got.DisabledAt.Equal(*disabled.DisabledAt) {
		t.Fatalf("updated, the merchant has the policy %s and is disabled since %v, not %v (%v)", got.IdempotencyPolicy, got.DisabledAt, disabled.DisabledAt, err)
	}
	for _, s := range []*Service{b.Service, other} {
		b.refresh(s)
		b.wantStranger(s, pair.PublicAPIKey, pair.PrivateSecretKey)
		b.wantDefaultPolicy(s, pair)
	}
	if kept := b.merchantOf(m.AccountID); kept.Name != "Renamed" || kept.IdempotencyPolicy != "fyno" || kept.DisabledAt == nil {
		t.Errorf("the merchant is %+v", kept)
	}
	if _, err := other.SetDisabled(t.Context(), m.AccountID, false); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Service{b.Service, other} {
		b.refresh(s)
		b.wantPolicy(s, "fyno", m.AccountID, pair)
	}
}

// Two operators at once, on two instances: neither undoes what the other one did, and
// all instances believe what the database does.
func TestUpdatesAtOnceAreAllKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	_, third := b.instance()
	m, pair := b.made("First")
	b.refresh(third)
	for round := range 20 {
		policy, name := testPolicies[(round+1)%len(testPolicies)], fmt.Sprintf("Name %d", round)
		errs := make([]error, 3)
		var wg sync.WaitGroup
		wg.Go(func() { _, errs[0] = b.Update(t.Context(), m.AccountID, to(policy)) })
		wg.Go(func() { _, errs[1] = other.Update(t.Context(), m.AccountID, named(name)) })
		wg.Go(func() { _, errs[2] = third.SetDisabled(t.Context(), m.AccountID, round%2 == 0) })
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := b.merchantOf(m.AccountID); got.IdempotencyPolicy != policy || got.Name != name || (got.DisabledAt != nil) != (round%2 == 0) {
			t.Fatalf("after %s, %s and disabled %t at once the merchant is %+v", policy, name, round%2 == 0, got)
		}
	}
	// The same member: one of them is the last, for everybody.
	for round := range 20 {
		var wg sync.WaitGroup
		for i, s := range []*Service{b.Service, other} {
			wg.Go(func() {
				if _, err := s.Update(t.Context(), m.AccountID, to(testPolicies[(round+i)%len(testPolicies)])); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		policy := b.merchantOf(m.AccountID).IdempotencyPolicy
		for _, s := range []*Service{b.Service, other, third} {
			b.refresh(s)
			b.wantPolicy(s, policy, m.AccountID, pair)
		}
	}
}

// Who had to wait for another's change is told so, and nothing is half done.
func TestUpdateThatIsInTheWayOfAnotherMayBeTriedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair := b.made("First")
	before := b.merchantOf(m.AccountID)
	err := b.db.InTx(t.Context(), func(tx postgres.Tx) error {
		if err := b.store.lockMerchant(tx, m.AccountID); err != nil {
			return err
		}
		_, err := b.Update(t.Context(), m.AccountID, to("ietf"))
		e, ok := apierr.From(err)
		if !ok || e.Code != apierr.ServiceUnavailable || e.RetryAfter == 0 {
			t.Errorf("in the way of another: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.merchantOf(m.AccountID); !same(got, before) {
		t.Errorf("in the way of another, the merchant became %+v", got)
	}
	b.refresh(b.Service)
	b.wantPolicy(b.Service, "yuno", m.AccountID, pair)
	if _, err := b.Update(t.Context(), m.AccountID, to("ietf")); err != nil {
		t.Error(err)
	}
	b.wantPolicy(b.Service, "ietf", m.AccountID, pair)
}

func TestServiceRefusesAnUpdateThatCannotBe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, _ := b.made("First")
	before := b.merchantOf(m.AccountID)
	for name, c := range map[string]struct {
		update Update
		code   apierr.Code
	}{
		"nothing":                        {Update{}, apierr.MissingParameters},
		"an empty name":                  {named(""), apierr.InvalidParameters},
		"a long name":                    {named(strings.Repeat("é", 256)), apierr.InvalidParameters},
		"no such policy":                 {to("geheim"), apierr.InvalidParameters},
		"a policy in capitals":           {to("YUNO"), apierr.InvalidParameters},
		"no policy":                      {to(""), apierr.InvalidParameters},
		"a good name, no such policy":    {Update{Name: new("Second"), IdempotencyPolicy: new("geheim")}, apierr.InvalidParameters},
		"a blank name and a good policy": {Update{Name: new(" "), IdempotencyPolicy: new("ietf")}, apierr.InvalidParameters},
	} {
		_, err := b.Update(t.Context(), m.AccountID, c.update)
		if e, ok := apierr.From(err); !ok || e.Code != c.code || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := b.Update(t.Context(), uuid.New(), to("ietf"))
	wantCode(t, err, apierr.NotFound)
	if !same(b.merchantOf(m.AccountID), before) {
		t.Errorf("the merchant is %+v", b.merchantOf(m.AccountID))
	}
}

// A policy that a newer release has, and this one does not, must not stop it.
func TestPolicyThatIsNotKnownHereIsHandedOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair := b.made("First")
	pgtest.Exec(t, b.url, `ALTER TABLE merchants DROP CONSTRAINT merchants_policy_known`)
	b.exec(`UPDATE merchants SET idempotency_policy = 'newer', changed_at = clock_timestamp() WHERE account_id = $1`, m.AccountID)
	b.refresh(b.Service)
	b.wantPolicy(b.Service, "newer", m.AccountID, pair)
	if _, err := b.Update(t.Context(), m.AccountID, named("Renamed")); err != nil || b.merchantOf(m.AccountID).IdempotencyPolicy != "newer" {
		t.Errorf("renamed, the merchant has the policy %s (%v)", b.merchantOf(m.AccountID).IdempotencyPolicy, err)
	}
}

func TestOperatorChoosesAndChangesAPolicy(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, pair := o.made("First")
	merchant := "/admin/v1/merchants/" + m.AccountID.String()
	for _, step := range []struct{ body, name, policy string }{
		{`{"idempotency_policy":"novu"}`, "First", "novu"},
		{`{"name":"Müller & Söhne <shop>"}`, "Müller & Söhne <shop>", "novu"},
		{`{"name":"Both","idempotency_policy":"ietf","unknown":[1]}`, "Both", "ietf"},
		{`{"name":null,"idempotency_policy":"fyno"}`, "Both", "fyno"},
		{`{"name":"Last","idempotency_policy":null}`, "Last", "fyno"},
		{`{"name":"` + strings.Repeat("😀", 255) + `"}`, strings.Repeat("😀", 255), "fyno"},
	} {
		var told, found wireMerchant
		status, answer, _ := o.ask(http.MethodPatch, merchant, step.body)
		o.decoded(status, http.StatusOK, answer, &told)
		status, again, _ := o.ask(http.MethodGet, merchant, "")
		o.decoded(status, http.StatusOK, again, &found)
		if !bytes.Equal(answer, again) || told.Name != step.name || told.IdempotencyPolicy != step.policy || told.DisabledAt != nil {
			t.Errorf("PATCH %s: told %s, found %s", step.body, answer, again)
		}
		o.wantPolicy(o.Service, step.policy, m.AccountID, pair)
	}
	for _, policy := range testPolicies {
		var made struct {
			wireMerchant
			APIKey shownKey `json:"api_key"`
		}
		status, answer := o.post("/admin/v1/merchants", `{"name":"Another","idempotency_policy":"`+policy+`"}`)
		o.decoded(status, http.StatusCreated, answer, &made)
		o.wantPolicy(o.Service, policy, uuid.MustParse(made.AccountID), made.APIKey.KeyPair)
	}
}

func TestMistakesInAnUpdateAreToldByPlaceAndRule(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, _ := o.made("First")
	before := o.merchantOf(m.AccountID)
	merchant := "/admin/v1/merchants/" + m.AccountID.String()
	const (
		nothing = "$.name, $.idempotency_policy or $.origins is required"
		name    = "$.name must have 1 to 255 characters"
		policy  = "$.idempotency_policy must be yuno, novu, fyno or ietf"
		nobody  = "there is no merchant with this account_id"
	)
	for _, c := range []struct {
		path, body string
		status     int
		code       string
		message    string
	}{
		{merchant, ``, 400, "INVALID_REQUEST", "$ must not be empty"},
		{merchant, `geheim`, 400, "INVALID_REQUEST", "$ must be well-formed JSON"},
		{merchant, `["geheim"]`, 400, "INVALID_REQUEST", "$ must be an object"},
		{merchant, `{}`, 400, "MISSING_PARAMETERS", nothing},
		{merchant, `{"name":null,"idempotency_policy":null}`, 400, "MISSING_PARAMETERS", nothing},
		{merchant, `{"Name":"geheim","policy":"geheim"}`, 400, "MISSING_PARAMETERS", nothing},
		{merchant, `{"name":4711471147114711}`, 400, "INVALID_PARAMETERS", "$.name must be a string"},
		{merchant, `{"name":""}`, 400, "INVALID_PARAMETERS", name},
		{merchant, `{"name":" "}`, 400, "INVALID_PARAMETERS", name},
		{merchant, `{"name":"` + strings.Repeat("g", 256) + `"}`, 400, "INVALID_PARAMETERS", name},
		{merchant, `{"name":"geheim\u0000"}`, 400, "INVALID_REQUEST", "$.name must not contain the character U+0000"},
		{merchant, `{"idempotency_policy":""}`, 400, "INVALID_PARAMETERS", policy},
		{merchant, `{"idempotency_policy":"geheim"}`, 400, "INVALID_PARAMETERS", policy},
		{merchant, `{"idempotency_policy":"Novu"}`, 400, "INVALID_PARAMETERS", policy},
		{merchant, `{"idempotency_policy":["ietf"]}`, 400, "INVALID_PARAMETERS", policy},
		{merchant, `{"idempotency_policy":4711471147114711}`, 400, "INVALID_PARAMETERS", policy},
		{merchant, `{"name":"geheim","idempotency_policy":{"geheim":1}}`, 400, "INVALID_PARAMETERS", policy},
		{merchant, `{"idempotency_policy":"novu","idempotency_policy":"ietf"}`, 400, "INVALID_REQUEST", "$.idempotency_policy must not appear twice in the same object"},
		{"/admin/v1/merchants/geheim", `{"idempotency_policy":"novu"}`, 404, "NOT_FOUND", nobody},
		{"/admin/v1/merchants/" + uuid.NewString(), `{"idempotency_policy":"novu"}`, 404, "NOT_FOUND", nobody},
	} {
		status, answer, _ := o.ask(http.MethodPatch, c.path, c.body)
		if status != c.status || !bytes.Contains(answer, []byte(`"code":"`+c.code+`","messages":["`+c.message+`"]`)) {
			t.Errorf("%.60s: got %d %s, want %d %s: %s", c.body, status, answer, c.status, c.code, c.message)
		}
		if bytes.Contains(answer, []byte("geheim")) || bytes.Contains(answer, []byte("4711471147114711")) {
			t.Errorf("%s: the answer repeats what was sent", c.body)
		}
	}
	if !same(o.merchantOf(m.AccountID), before) {
		t.Errorf("the merchant is %+v", o.merchantOf(m.AccountID))
	}
	if strings.Contains(o.logs.String(), "geheim") || strings.Contains(o.logs.String(), "4711471147114711") {
		t.Error("the log shows what was sent")
	}
}
