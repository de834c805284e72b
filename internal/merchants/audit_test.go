package merchants

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/pgtest"
)

// entries are what the audit log says, the oldest first. Its chain must be whole.
func (b *bench) entries() []audit.Record {
	b.t.Helper()
	log := audit.Log{DB: b.db}
	p, err := log.Page(b.t.Context(), audit.Filter{}, 0, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	if r, err := log.Verify(b.t.Context(), audit.VerifyOptions{}); err != nil || r.Broken != nil {
		b.t.Fatalf("the audit log is broken at %+v (%v)", r.Broken, err)
	}
	slices.Reverse(p.Records)
	return p.Records
}

// wantEntry fails the test unless an entry says that; "*" in details is any text.
func (b *bench) wantEntry(r audit.Record, action, target string, account uuid.UUID, details map[string]string) {
	b.t.Helper()
	same := maps.EqualFunc(r.Details, details, func(is, want string) bool { return is == want || want == "*" && is != "" })
	if r.Action != action || r.Target != target || r.AccountID != account || !same {
		b.t.Errorf("the entry is %s of %s about %s with %q, want %s of %s with %q", r.Action, r.Target, r.AccountID, r.Details, action, target, details)
	}
}

func TestEveryChangeIsInTheAuditLog(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ada := audit.Actor{Kind: audit.KindOperator, ID: "1", Name: "ada", Address: "192.0.2.7", RequestID: "request-1"}
	ctx := audit.By(t.Context(), ada)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m, first, err := b.Create(ctx, "Corner shop", "", "https://shop.example", "https://old.example")
	must(err)
	network := netip.MustParsePrefix("192.0.2.0/24")
	second, err := b.CreateKey(ctx, m.AccountID, Live, network)
	must(err)
	successor, _, err := b.Rotate(ctx, m.AccountID, second.ID, time.Hour)
	must(err)
	_, err = b.Restrict(ctx, m.AccountID, successor.ID, nil)
	must(err)
	for range 2 {
		_, err = b.Revoke(ctx, m.AccountID, first.ID)
		must(err)
	}
	_, err = b.Update(ctx, m.AccountID, Update{Name: new("Shop"), IdempotencyPolicy: new("ietf"), Origins: []string{"https://shop.example", "https://new.example"}})
	must(err)
	for _, disabled := range []bool{true, false} {
		_, err = b.SetDisabled(ctx, m.AccountID, disabled)
		must(err)
	}

	log := b.entries()
	if len(log) != 11 {
		t.Fatalf("%d entries, want 11", len(log))
	}
	merchant, key := "merchant/"+m.AccountID.String(), func(p KeyPair) string { return "key/" + p.ID.String() }
	for i, want := range []struct {
		action, target string
		details        map[string]string
	}{
		{"merchant.created", merchant, map[string]string{"name": "Corner shop", "idempotency_policy": "yuno", "origins": "https://shop.example,https://old.example"}},
		{"key.created", key(first), map[string]string{"mode": Test, "public_api_key": first.PublicAPIKey, "allowed_networks": "all"}},
		{"key.created", key(second), map[string]string{"mode": Live, "public_api_key": second.PublicAPIKey, "allowed_networks": "192.0.2.0/24"}},
		{"key.rotated", key(second), map[string]string{"mode": Live, "public_api_key": second.PublicAPIKey, "status": "expiring", "allowed_networks": "192.0.2.0/24", "expires_at": "*", "successor": key(successor)}},
		{"key.created", key(successor), map[string]string{"mode": Live, "public_api_key": successor.PublicAPIKey, "allowed_networks": "192.0.2.0/24"}},
		{"key.restricted", key(successor), map[string]string{"public_api_key": successor.PublicAPIKey, "allowed_networks_before": "192.0.2.0/24", "allowed_networks": "all"}},
		{"key.revoked", key(first), map[string]string{"public_api_key": first.PublicAPIKey, "status_before": "active", "status": "revoked", "revoked_at": "*"}},
		{"key.revoked", key(first), map[string]string{"public_api_key": first.PublicAPIKey}},
		{"merchant.updated", merchant, map[string]string{
			"name_before": "Corner shop", "name": "Shop", "idempotency_policy_before": "yuno", "idempotency_policy": "ietf",
			"origins_added": "https://new.example", "origins_removed": "https://old.example",
		}},
		{"merchant.disabled", merchant, map[string]string{"name": "Shop", "status_before": "enabled", "status": "disabled"}},
		{"merchant.enabled", merchant, map[string]string{"name": "Shop", "status_before": "disabled", "status": "enabled"}},
	} {
		b.wantEntry(log[i], want.action, want.target, m.AccountID, want.details)
		if log[i].Actor != ada {
			t.Errorf("%s was done by %+v", want.action, log[i].Actor)
		}
	}
	for _, pair := range []KeyPair{first, second, successor} {
		if strings.Contains(fmt.Sprint(log), pair.PrivateSecretKey) {
			t.Error("a secret is in the audit log")
		}
	}
}

func TestWhatWasRefusedIsNotInTheAuditLog(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair := b.made("Shop")
	if _, err := b.Revoke(t.Context(), m.AccountID, pair.ID); err != nil {
		t.Fatal(err)
	}
	before := len(b.entries())
	for what, err := range map[string]error{
		"rotating a revoked key":       func() error { _, _, err := b.Rotate(t.Context(), m.AccountID, pair.ID, 0); return err }(),
		"restricting a revoked key":    func() error { _, err := b.Restrict(t.Context(), m.AccountID, pair.ID, nil); return err }(),
		"revoking another's key":       func() error { _, err := b.Revoke(t.Context(), uuid.New(), pair.ID); return err }(),
		"disabling nobody":             func() error { _, err := b.SetDisabled(t.Context(), uuid.New(), true); return err }(),
		"changing nobody":              func() error { _, err := b.Update(t.Context(), uuid.New(), named("X")); return err }(),
		"making a key for nobody":      func() error { _, err := b.CreateKey(t.Context(), uuid.New(), Test); return err }(),
		"a policy that does not exist": func() error { _, err := b.Update(t.Context(), m.AccountID, to("none")); return err }(),
	} {
		if err == nil {
			t.Errorf("%s worked", what)
		}
	}
	if after := len(b.entries()); after != before {
		t.Errorf("%d entries more", after-before)
	}
}

// What cannot be written down is not done.
func TestNoKeyIsMadeWithoutItsEntry(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, _ := b.made("Shop")
	pgtest.Exec(t, b.url, `DELETE FROM audit_head`)
	if _, err := b.CreateKey(t.Context(), m.AccountID, Test); err == nil {
		t.Error("a key was made")
	}
	if n := pgtest.Exec(t, b.url, `SELECT FROM api_keys`); n != 1 {
		t.Errorf("%d keys, want the first", n)
	}
}

// `payments dev` makes its merchant once, by nobody's order.
func TestMerchantOfDevIsMadeBySystemOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := Merchant{AccountID: uuid.New(), Name: "Dev", IdempotencyPolicy: "yuno"}
	test, live := newKeyPair(Test), newKeyPair(Live)
	live.ID = uuid.Nil // kept without it, by an older release
	for range 2 {
		if err := b.Ensure(t.Context(), m, test, live); err != nil {
			t.Fatal(err)
		}
	}
	log := b.entries()
	if len(log) != 3 || log[0].Actor != (audit.Actor{Kind: audit.KindSystem, Name: "system"}) {
		t.Fatalf("the log is %+v", log)
	}
	var id uuid.UUID
	if err := b.db.Conn(t.Context()).Raw(`SELECT id FROM api_keys WHERE mode = 'live'`).Row().Scan(&id); err != nil {
		t.Fatal(err)
	}
	b.wantEntry(log[2], "key.created", "key/"+id.String(), m.AccountID, map[string]string{"mode": Live, "public_api_key": live.PublicAPIKey, "allowed_networks": "all"})
}
