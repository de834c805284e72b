package merchants

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/pgtest"
)

// wantCode fails the test unless err is an answer with that code.
func wantCode(t *testing.T, err error, code apierr.Code) {
	t.Helper()
	if e, ok := apierr.From(err); !ok || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
}

// keyOf is a pair's key as the database has it.
func (b *bench) keyOf(m Merchant, pair KeyPair) Key {
	b.t.Helper()
	k, err := b.store.key(b.db.Conn(b.t.Context()), m.AccountID, pair.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	return k
}

// later moves a service's clock on, from what it shows now.
func later(s *Service, d time.Duration) {
	was := s.now
	s.now = func() time.Time { return was().Add(d) }
}

// version tells whether a row was written meanwhile, whatever to.
func (b *bench) version(pair KeyPair) string {
	b.t.Helper()
	var v string
	if err := b.db.Conn(b.t.Context()).Raw(`SELECT xmin::text || ctid::text FROM api_keys WHERE public_api_key = $1`, pair.PublicAPIKey).Row().Scan(&v); err != nil {
		b.t.Fatal(err)
	}
	return v
}

func TestRotatedKeyGoesOnBesideItsSuccessorUntilTheOverlapIsOver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, old := b.made("First")
	b.refresh(other)
	successor, k, err := b.Rotate(t.Context(), m.AccountID, old.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if k.Status != Expiring || k.ExpiresAt == nil || k.RevokedAt != nil || successor.Mode != Test || successor.ID == old.ID {
		t.Errorf("the old key is %s until %v, revoked %v", k.Status, k.ExpiresAt, k.RevokedAt)
	}
	b.refresh(other)
	for _, s := range []*Service{b.Service, other} {
		b.wantCaller(s, old, m.AccountID, Test)
		b.wantCaller(s, successor, m.AccountID, Test)
	}
	// An instance that hears of nothing for an hour refuses the key by itself, and not
	// before its time.
	left := k.ExpiresAt.Sub(other.asOf.databaseTime(other.now()))
	later(other, left-time.Minute)
	b.wantCaller(other, old, m.AccountID, Test)
	later(other, time.Minute+time.Second)
	b.wantStranger(other, old.PublicAPIKey, old.PrivateSecretKey)
	b.wantCaller(other, successor, m.AccountID, Test)
}

func TestKeyWhoseTimeIsOverIsRevokedByWhoeverNotices(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, old := b.made("First")
	successor, _, err := b.Rotate(t.Context(), m.AccountID, old.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b.refresh(other)
	before := b.version(old)
	b.refresh(b.Service)
	b.refresh(other)
	if b.version(old) != before {
		t.Error("a refresh wrote something while no key's time was over")
	}
	b.exec(`UPDATE api_keys SET expires_at = clock_timestamp() - interval '1 second', changed_at = clock_timestamp() WHERE public_api_key = $1`, old.PublicAPIKey)
	if k := b.keyOf(m, old); k.Status != Revoked || !k.RevokedAt.Equal(*k.ExpiresAt) {
		t.Errorf("before the sweep the key is shown as %s", k.Status)
	}
	b.refresh(other)
	b.wantStranger(other, old.PublicAPIKey, old.PrivateSecretKey)
	var revoked int
	if err := b.db.Conn(t.Context()).Raw(`SELECT count(*) FROM api_keys WHERE public_api_key = $1 AND revoked_at = expires_at`, old.PublicAPIKey).Row().Scan(&revoked); err != nil || revoked != 1 {
		t.Errorf("%d keys are revoked (%v), want one", revoked, err)
	}
	swept := b.version(old)
	for _, s := range []*Service{b.Service, other, b.Service, other} {
		b.refresh(s)
		b.wantStranger(s, old.PublicAPIKey, old.PrivateSecretKey)
		b.wantCaller(s, successor, m.AccountID, Test)
	}
	if b.version(old) != swept {
		t.Error("the key was revoked once more")
	}
}

// The refusal does not rest on the sweep.
func TestKeyWhoseTimeIsOverIsRefusedWhereItCannotBeRevoked(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, old := b.made("First")
	if _, _, err := b.Rotate(t.Context(), m.AccountID, old.ID, time.Hour); err != nil {
		t.Fatal(err)
	}
	b.exec(`UPDATE api_keys SET expires_at = clock_timestamp(), changed_at = clock_timestamp() WHERE public_api_key = $1`, old.PublicAPIKey)
	pgtest.Exec(t, b.url, `CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''a fault of this test''; END';
		CREATE TRIGGER fault BEFORE UPDATE ON api_keys FOR EACH ROW EXECUTE FUNCTION fault()`)
	for range 2 {
		if _, err := b.Refresh(t.Context()); err == nil {
			t.Error("a sweep that failed was not told")
		}
		b.wantStranger(b.Service, old.PublicAPIKey, old.PrivateSecretKey)
	}
	pgtest.Exec(t, b.url, `DROP TRIGGER fault ON api_keys`)
	b.refresh(b.Service)
	b.wantStranger(b.Service, old.PublicAPIKey, old.PrivateSecretKey)
}

func TestRotationWithoutOverlapEndsTheKeyAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, old := b.made("First")
	successor, k, err := b.Rotate(t.Context(), m.AccountID, old.ID, 0)
	if err != nil || k.Status != Revoked {
		t.Fatalf("the old key is %s (%v)", k.Status, err)
	}
	b.wantStranger(b.Service, old.PublicAPIKey, old.PrivateSecretKey)
	b.wantCaller(b.Service, successor, m.AccountID, Test)
}

func TestOnlyAnActiveKeyIsRotated(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, first := b.made("First")
	stranger, _ := b.made("Second")
	for _, overlap := range []time.Duration{-1, -time.Hour, time.Millisecond, MaxOverlap + time.Second} {
		_, _, err := b.Rotate(t.Context(), m.AccountID, first.ID, overlap)
		wantCode(t, err, apierr.InvalidParameters)
	}
	for _, whose := range []uuid.UUID{stranger.AccountID, uuid.New()} {
		_, _, err := b.Rotate(t.Context(), whose, first.ID, 0)
		wantCode(t, err, apierr.NotFound)
	}
	_, _, err := b.Rotate(t.Context(), m.AccountID, uuid.New(), 0)
	wantCode(t, err, apierr.NotFound)

	second, _, err := b.Rotate(t.Context(), m.AccountID, first.ID, MaxOverlap)
	if err != nil {
		t.Fatal(err)
	}
	ends := b.keyOf(m, first).ExpiresAt
	_, _, err = b.Rotate(t.Context(), m.AccountID, first.ID, time.Hour)
	wantCode(t, err, apierr.InvalidState)
	if k := b.keyOf(m, first); !k.ExpiresAt.Equal(*ends) {
		t.Error("the key's time was changed by a rotation that was refused")
	}
	if _, err := b.Revoke(t.Context(), m.AccountID, first.ID); err != nil { // before its time
		t.Fatal(err)
	}
	b.wantStranger(b.Service, first.PublicAPIKey, first.PrivateSecretKey)
	_, _, err = b.Rotate(t.Context(), m.AccountID, first.ID, time.Hour)
	wantCode(t, err, apierr.InvalidState)
	_, err = b.Restrict(t.Context(), m.AccountID, first.ID, nil)
	wantCode(t, err, apierr.InvalidState)
	b.wantCaller(b.Service, second, m.AccountID, Test)
}

// Many rotate one key and one revokes it, at the same time: there is one successor at
// most, and nothing brings a revoked key back.
func TestRotationsAndARevocationAtOnceLeaveOneSuccessorAtMost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	for range 5 {
		m, old := b.made("First")
		b.refresh(other)
		var wg sync.WaitGroup
		for i := range 8 {
			s := []*Service{b.Service, other}[i%2]
			wg.Go(func() {
				if _, _, err := s.Rotate(t.Context(), m.AccountID, old.ID, time.Hour); err != nil {
					if e, ok := apierr.From(err); !ok || e.Code != apierr.InvalidState {
						t.Errorf("a rotation: %v", err)
					}
				}
			})
		}
		wg.Go(func() {
			if _, err := other.Revoke(t.Context(), m.AccountID, old.ID); err != nil {
				t.Errorf("the revocation: %v", err)
			}
		})
		wg.Wait()
		ks, err := b.store.keys(t.Context(), m.AccountID, uuid.Nil, maxKeys)
		if err != nil || len(ks) > 2 || b.keyOf(m, old).Status != Revoked {
			t.Errorf("%d keys, the old one %s (%v)", len(ks), b.keyOf(m, old).Status, err)
		}
	}
}

func TestRevocationIsHeardOfByEveryInstanceAndMayBeRepeated(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, pair := b.made("First")
	b.refresh(other)
	k, err := b.Revoke(t.Context(), m.AccountID, pair.ID)
	if err != nil || k.Status != Revoked || k.RevokedAt == nil {
		t.Fatalf("the key is %s (%v)", k.Status, err)
	}
	b.wantStranger(b.Service, pair.PublicAPIKey, pair.PrivateSecretKey)
	b.refresh(other)
	b.wantStranger(other, pair.PublicAPIKey, pair.PrivateSecretKey)
	again, err := other.Revoke(t.Context(), m.AccountID, pair.ID)
	if err != nil || !again.RevokedAt.Equal(*k.RevokedAt) {
		t.Errorf("revoked again it is %v, not %v (%v)", again.RevokedAt, k.RevokedAt, err)
	}
	_, err = b.Revoke(t.Context(), uuid.New(), pair.ID)
	wantCode(t, err, apierr.NotFound)
}

func TestDisabledMerchantsKeysAreRefusedInBothModesAndTakenAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, test, err := b.Create(t.Context(), "First", "ietf")
	if err != nil {
		t.Fatal(err)
	}
	second, theirs := b.made("Second")
	live, err := b.CreateKey(t.Context(), m.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := b.CreateKey(t.Context(), m.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	b.refresh(other)
	disabled, err := b.SetDisabled(t.Context(), m.AccountID, true)
	if err != nil || disabled.DisabledAt == nil {
		t.Fatal(err)
	}
	again, err := other.SetDisabled(t.Context(), m.AccountID, true)
	if err != nil || !again.DisabledAt.Equal(*disabled.DisabledAt) {
		t.Errorf("disabled again: since %v, not %v (%v)", again.DisabledAt, disabled.DisabledAt, err)
	}
	if _, err := b.Revoke(t.Context(), m.AccountID, gone.ID); err != nil {
		t.Fatal(err)
	}
	made, err := b.CreateKey(t.Context(), m.AccountID, Test) // which is possible, and no way around
	if err != nil {
		t.Fatal(err)
	}
	_, late := b.instance()
	for _, s := range []*Service{b.Service, other, late} {
		b.refresh(s)
		for _, pair := range []KeyPair{test, live, gone, made} {
			b.wantStranger(s, pair.PublicAPIKey, pair.PrivateSecretKey)
		}
		b.wantCaller(s, theirs, second.AccountID, Test)
		b.wantDefaultPolicy(s, test, live, gone, made)
	}
	if got := b.merchantOf(m.AccountID).IdempotencyPolicy; got != "ietf" {
		t.Errorf("disabled, the merchant has the policy %s", got)
	}
	enabled, err := other.SetDisabled(t.Context(), m.AccountID, false)
	if err != nil || enabled.DisabledAt != nil {
		t.Fatalf("enabled: %v (%v)", enabled.DisabledAt, err)
	}
	for _, s := range []*Service{b.Service, other, late} {
		b.refresh(s)
		b.wantCaller(s, test, m.AccountID, Test)
		b.wantCaller(s, live, m.AccountID, Live)
		b.wantCaller(s, made, m.AccountID, Test)
		b.wantPolicy(s, "ietf", m.AccountID, test, live, made)
		b.wantStranger(s, gone.PublicAPIKey, gone.PrivateSecretKey)
		b.wantDefaultPolicy(s, gone)
	}
	_, err = b.SetDisabled(t.Context(), uuid.New(), true)
	wantCode(t, err, apierr.NotFound)
}

// Whoever cannot find out whether a key was revoked must not take it.
func TestDirectoryThatIsTooOldTakesNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.RefuseAfter(4 * time.Second)
	unavailable := func(pair KeyPair) {
		t.Helper()
		_, err := b.Authenticate(pair.PublicAPIKey, pair.PrivateSecretKey, anywhere)
		wantCode(t, err, apierr.ServiceUnavailable)
		if e, _ := apierr.From(err); e.Status != 503 || e.RetryAfter != 1 {
			t.Errorf("told %d, Retry-After %d", e.Status, e.RetryAfter)
		}
		if b.Fresh() {
			t.Error("said to be fresh")
		}
	}
	unavailable(NewKeyPair(Test)) // before the first refresh
	m, pair := b.made("First")
	b.wantCaller(b.Service, pair, m.AccountID, Test)
	later(b.Service, 3*time.Second)
	b.wantCaller(b.Service, pair, m.AccountID, Test)
	later(b.Service, 2*time.Second)
	unavailable(pair)
	unavailable(NewKeyPair(Test)) // it may be new
	b.refresh(b.Service)
	b.wantCaller(b.Service, pair, m.AccountID, Test)
	b.wantStranger(b.Service, pair.PublicAPIKey, "wrong")

	b.db.Close()
	later(b.Service, 5*time.Second)
	if _, err := b.Refresh(t.Context()); err == nil {
		t.Fatal("a refresh without a database did not fail")
	}
	unavailable(pair)
}

// The age counts from before the question: what is committed while the answer is on
// its way need not be in it.
func TestDirectoryIsAsOldAsItsQuestion(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.RefuseAfter(4 * time.Second)
	_, pair := b.made("First")
	start, looks := time.Now(), 0
	b.now = func() time.Time { // the answer takes five seconds
		if looks++; looks == 1 {
			return start
		}
		return start.Add(5 * time.Second)
	}
	b.refresh(b.Service)
	_, err := b.Authenticate(pair.PublicAPIKey, pair.PrivateSecretKey, anywhere)
	wantCode(t, err, apierr.ServiceUnavailable)
}

// What was dated long before it was committed is found by reading everything again.
func TestCompleteReadingFindsWhatWasDatedWrongly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, revoked, err := b.Create(t.Context(), "First", "novu")
	if err != nil {
		t.Fatal(err)
	}
	deleted, err := b.CreateKey(t.Context(), m.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := b.CreateKey(t.Context(), m.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	b.exec(`UPDATE merchants SET changed_at = clock_timestamp() - interval '1 hour'`)
	b.exec(`UPDATE api_keys SET revoked_at = clock_timestamp(), changed_at = clock_timestamp() - interval '1 hour' WHERE public_api_key = $1`, revoked.PublicAPIKey)
	b.exec(`DELETE FROM api_keys WHERE public_api_key = $1`, deleted.PublicAPIKey)
	b.refresh(b.Service)
	b.wantCaller(b.Service, revoked, m.AccountID, Test) // so that the test is about what it says
	later(b.Service, completeEvery)
	if n := b.refresh(b.Service); n != 0 {
		t.Errorf("a complete reading found %d new keys", n)
	}
	b.wantStranger(b.Service, revoked.PublicAPIKey, revoked.PrivateSecretKey)
	b.wantStranger(b.Service, deleted.PublicAPIKey, deleted.PrivateSecretKey)
	b.wantDefaultPolicy(b.Service, revoked, deleted)
	b.wantCaller(b.Service, kept, m.AccountID, Live)
	b.wantPolicy(b.Service, "novu", m.AccountID, kept)
}

// A merchant need not have keys. Whatever became of it until it has one, the key has
// it, on an instance that reads what changed and on one that reads everything.
func TestMerchantWithoutKeysIsKnownWithItsFirstKey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m := Merchant{AccountID: uuid.Must(uuid.NewV7()), Name: "First", IdempotencyPolicy: "novu"}
	if err := b.Ensure(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	nothing := func() {
		t.Helper()
		_, late := b.instance()
		for _, s := range []*Service{b.Service, other, late} {
			if n := b.refresh(s); n != 0 || len(s.dir.keys) != 0 {
				t.Errorf("%d new keys, %d in the directory, want none", n, len(s.dir.keys))
			}
		}
	}
	nothing()
	gone, err := b.CreateKey(t.Context(), m.AccountID, Test)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Revoke(t.Context(), m.AccountID, gone.ID); err != nil {
		t.Fatal(err)
	}
	nothing() // as with none
	if _, err := b.Update(t.Context(), m.AccountID, to("ietf")); err != nil {
		t.Fatal(err)
	}
	nothing()
	b.age() // the merchant is no news any more
	pair, err := b.CreateKey(t.Context(), m.AccountID, Test)
	if err != nil {
		t.Fatal(err)
	}
	_, late := b.instance()
	if n := b.refresh(other); n != 1 || b.refresh(late) != 1 {
		t.Error("the first key was not found")
	}
	for _, s := range []*Service{b.Service, other, late} {
		b.wantPolicy(s, "ietf", m.AccountID, pair)
		b.wantDefaultPolicy(s, gone)
	}
}

// lastUse is when the database says that a key was used; zero if never.
func (b *bench) lastUse(m Merchant, pair KeyPair) time.Time {
	b.t.Helper()
	if k := b.keyOf(m, pair); k.LastUsedAt != nil {
		return *k.LastUsedAt
	}
	return time.Time{}
}

func (b *bench) flush(s *Service) int {
	b.t.Helper()
	n, err := s.FlushUses(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func TestLastUseIsWrittenNowAndThen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, pair := b.made("First")
	unused, err := b.CreateKey(t.Context(), m.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	b.refresh(other)
	var before, after struct{ Now, ChangedAt time.Time }
	look := func(into *struct{ Now, ChangedAt time.Time }) {
		t.Helper()
		if err := b.db.Conn(t.Context()).Raw(`SELECT clock_timestamp(), changed_at FROM api_keys WHERE public_api_key = $1`, pair.PublicAPIKey).
			Row().Scan(&into.Now, &into.ChangedAt); err != nil {
			t.Fatal(err)
		}
	}
	look(&before)
	row := b.version(pair)
	for range 100 {
		b.wantCaller(b.Service, pair, m.AccountID, Test)
	}
	b.wantStranger(b.Service, unused.PublicAPIKey, "wrong") // which is no use of it
	if b.version(pair) != row || !b.lastUse(m, pair).IsZero() {
		t.Error("a request wrote something")
	}
	if n := b.flush(b.Service); n != 1 {
		t.Errorf("%d uses were written, want 1", n)
	}
	look(&after)
	used := b.lastUse(m, pair)
	if used.Before(before.Now.Add(-time.Second)) || used.After(after.Now) {
		t.Errorf("used at %s, want between %s and %s", used, before.Now, after.Now)
	}
	if !after.ChangedAt.Equal(before.ChangedAt) {
		t.Error("every instance would read the key again")
	}
	if !b.lastUse(m, unused).IsZero() {
		t.Error("a key that nobody used was used")
	}

	// Within a minute it is the same use, and nothing is written.
	b.wantCaller(b.Service, pair, m.AccountID, Test)
	if n := b.flush(b.Service); n != 0 {
		t.Errorf("%d uses were written, want none", n)
	}
	// Another instance's later use wins, in whichever order they are written.
	later(b.Service, 2*time.Minute)
	later(other, 10*time.Minute)
	b.wantCaller(b.Service, pair, m.AccountID, Test)
	b.wantCaller(other, pair, m.AccountID, Test)
	b.flush(other)
	latest := b.lastUse(m, pair)
	if n := b.flush(b.Service); n != 1 || !b.lastUse(m, pair).Equal(latest) || latest.Sub(used) < 9*time.Minute {
		t.Errorf("%d written; used at %s, then %s", n, latest, b.lastUse(m, pair))
	}
}

func TestLastUseSurvivesWhatHappensToTheKey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair := b.made("First")
	ended, _ := b.CreateKey(t.Context(), m.AccountID, Test)
	missed, _ := b.CreateKey(t.Context(), m.AccountID, Test)
	deleted, err := b.CreateKey(t.Context(), m.AccountID, Test)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []KeyPair{pair, ended, missed, deleted} {
		b.wantCaller(b.Service, p, m.AccountID, Test)
	}
	if _, err := b.Revoke(t.Context(), m.AccountID, ended.ID); err != nil {
		t.Fatal(err)
	}
	b.exec(`UPDATE api_keys SET revoked_at = clock_timestamp() WHERE public_api_key = $1`, missed.PublicAPIKey)
	b.exec(`DELETE FROM api_keys WHERE public_api_key = $1`, deleted.PublicAPIKey)
	later(b.Service, completeEvery)
	b.refresh(b.Service) // everything is read anew, and what is not there any more goes
	pgtest.Exec(t, b.url, `CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''a fault of this test''; END';
		CREATE TRIGGER fault BEFORE UPDATE ON api_keys FOR EACH ROW EXECUTE FUNCTION fault()`)
	if _, err := b.FlushUses(t.Context()); err == nil {
		t.Error("what could not be written was not told")
	}
	pgtest.Exec(t, b.url, `DROP TRIGGER fault ON api_keys`)
	b.flush(b.Service)
	if b.lastUse(m, pair).IsZero() || b.lastUse(m, ended).IsZero() || b.lastUse(m, missed).IsZero() {
		t.Error("a use was forgotten")
	}
	if n := b.flush(b.Service); n != 0 || len(b.parted) != 0 {
		t.Errorf("%d written again, %d kept", n, len(b.parted))
	}
}

// Instances write the same rows at the same time, in no order of theirs.
func TestUsesAreWrittenByManyInstancesAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var pairs []KeyPair
	var m Merchant
	for i := range 40 {
		if i%10 == 0 {
			m, _ = b.made("Merchant")
		}
		pair, err := b.CreateKey(t.Context(), m.AccountID, Test)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, pair)
	}
	var wg sync.WaitGroup
	for range 4 {
		_, s := b.instance()
		b.refresh(s)
		wg.Go(func() {
			for range 5 {
				for _, p := range pairs {
					if _, err := s.Authenticate(p.PublicAPIKey, p.PrivateSecretKey, anywhere); err != nil {
						t.Error(err)
					}
				}
				if n, err := s.FlushUses(t.Context()); err != nil || n != len(pairs) {
					t.Errorf("%d written (%v)", n, err)
				}
				later(s, 2*time.Minute)
			}
		})
	}
	wg.Wait()
}

func TestNetworksAreReadAsTheyAreMeant(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"203.0.113.0/24":       "203.0.113.0/24",
		"203.0.113.7/24":       "203.0.113.0/24",
		"203.0.113.7":          "203.0.113.7/32",
		"2001:db8::7":          "2001:db8::7/128",
		"2001:DB8::/32":        "2001:db8::/32",
		"::ffff:192.0.2.1":     "192.0.2.1/32",
		"::ffff:192.0.2.9/120": "192.0.2.0/24",
		"0.0.0.0/0":            "0.0.0.0/0",
		"::ffff:192.0.2.1/64":  "", "": "", "shop.example": "", "203.0.113.0/33": "", "203.0.113/24": "", "fe80::1%eth0": "",
		"fe80::%eth0/10": "", " 192.0.2.1": "", "192.0.2.1 ": "", "192.0.2.1,192.0.2.2": "", "192.0.2.01": "", "/24": "",
	} {
		got, ok := parseNetwork(text)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q is %s (%t), want %q", text, got, ok, want)
		}
	}
}

func TestKeyIsTakenFromItsNetworksOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, free := b.made("First")
	networks := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	pair, err := b.CreateKey(t.Context(), m.AccountID, Test, networks...)
	if err != nil {
		t.Fatal(err)
	}
	b.refresh(other)
	from := func(s *Service, p KeyPair, address string) error {
		a, _ := netip.ParseAddr(address)
		_, err := s.Authenticate(p.PublicAPIKey, p.PrivateSecretKey, a)
		return err
	}
	want := func(s *Service, p KeyPair, address string, allowed bool) {
		t.Helper()
		err := from(s, p, address)
		switch {
		case allowed && err != nil:
			t.Errorf("from %q: %v", address, err)
		case !allowed:
			wantCode(t, err, apierr.UnknownIPAddress)
			if e, _ := apierr.From(err); e.Status != 401 || !slices.Equal(e.Messages, []string{"the request's address is not on the key's list"}) {
				t.Errorf("from %q: %d %v", address, e.Status, e)
			}
		}
	}
	for _, s := range []*Service{b.Service, other} {
		for address, allowed := range map[string]bool{
			"203.0.113.0": true, "203.0.113.255": true, "::ffff:203.0.113.7": true, "2001:db8:1::1": true, "2001:db8::1%eth0": true,
			"203.0.114.0": false, "192.0.2.1": false, "2001:db9::1": false, "::ffff:192.0.2.1": false, "": false, "not one": false, "::": false,
		} {
			want(s, pair, address, allowed)
			want(s, free, address, true)
		}
		// Who has no right secret learns nothing of the list.
		for _, address := range []string{"203.0.113.7", "192.0.2.1"} {
			_, err := s.Authenticate(pair.PublicAPIKey, free.PrivateSecretKey, netip.MustParseAddr(address))
			wantCode(t, err, apierr.InvalidCredentials)
		}
	}
	// The successor has the same list; each is changed for itself.
	successor, _, err := b.Rotate(t.Context(), m.AccountID, pair.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want(b.Service, successor, "203.0.113.7", true)
	want(b.Service, successor, "192.0.2.1", false)
	k, err := b.Restrict(t.Context(), m.AccountID, successor.ID, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")})
	if err != nil || !slices.Equal(k.Networks, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}) {
		t.Fatalf("the list is %v (%v)", k.Networks, err)
	}
	b.refresh(other)
	want(other, successor, "203.0.113.7", false)
	want(other, successor, "192.0.2.1", true)
	want(other, pair, "203.0.113.7", true)
	if k, err = b.Restrict(t.Context(), m.AccountID, successor.ID, nil); err != nil || k.Networks != nil {
		t.Fatalf("the list is %v (%v)", k.Networks, err)
	}
	b.refresh(other)
	want(other, successor, "198.51.100.1", true)
	_, err = b.Restrict(t.Context(), m.AccountID, uuid.New(), nil)
	wantCode(t, err, apierr.NotFound)
	// An empty list, which only a person could have written, allows nobody.
	b.exec(`UPDATE api_keys SET allowed_networks = '{}', changed_at = clock_timestamp() WHERE public_api_key = $1`, successor.PublicAPIKey)
	b.refresh(other)
	want(other, successor, "198.51.100.1", false)
}

func TestAccountHasAHundredKeysInAModeAtMost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, first := b.made("First")
	pgtest.Exec(t, b.url, fmt.Sprintf(`INSERT INTO api_keys (account_id, id, mode, public_api_key, secret_hash)
		SELECT '%s', gen_random_uuid(), 'test', 'sandbox_' || i, decode(repeat('00', 31) || 'ff', 'hex') FROM generate_series(1, %d) i`, m.AccountID, maxKeys-4))
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 10 { // three fit
		s := []*Service{b.Service, other}[i%2]
		wg.Go(func() {
			_, err := s.CreateKey(context.WithoutCancel(t.Context()), m.AccountID, Test)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if e, ok := apierr.From(err); !ok || e.Code != apierr.InvalidState {
				t.Errorf("one too many: %v", err)
			}
		})
	}
	wg.Wait()
	if made != 3 {
		t.Errorf("%d keys were made beside %d, want 3", made, maxKeys-3)
	}
	_, _, err := b.Rotate(t.Context(), m.AccountID, first.ID, time.Hour) // both would count
	wantCode(t, err, apierr.InvalidState)
	b.wantCaller(b.Service, first, m.AccountID, Test)
	if k := b.keyOf(m, first); k.Status != Active {
		t.Errorf("after a rotation that was refused the key is %s", k.Status)
	}
	if _, err := b.CreateKey(t.Context(), m.AccountID, Live); err != nil {
		t.Errorf("the other mode counts for itself: %v", err)
	}
	if _, _, err := b.Rotate(t.Context(), m.AccountID, first.ID, 0); err != nil {
		t.Errorf("a key in the place of another: %v", err)
	}
}

// The hot path costs a look into a map and a hash.
func TestAuthenticationAllocatesNextToNothing(t *testing.T) {
	b := newBench(t)
	m, _ := b.made("First")
	pair, err := b.CreateKey(t.Context(), m.AccountID, Test, netip.MustParsePrefix("192.0.2.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(1000, func() {
		if _, err := b.Authenticate(pair.PublicAPIKey, pair.PrivateSecretKey, anywhere); err != nil {
			t.Error(err)
		}
	})
	if n > 1 { // the secret's bytes, for the hash
		t.Errorf("%v allocations a request", n)
	}
}
