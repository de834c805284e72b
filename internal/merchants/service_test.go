package merchants

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// anywhere is a client's address where it does not matter.
var anywhere = netip.MustParseAddr("192.0.2.1")

// testPolicies are those that the database takes, the default first.
var testPolicies = []string{"yuno", "novu", "fyno", "ietf"}

// bench is one database with as many instances of the directory as a test asks for.
type bench struct {
	t   *testing.T
	url string
	db  *postgres.DB
	*Service
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, url: pgtest.URL(t)}
	b.db, b.Service = b.instance()
	return b
}

// instance is another process on the same database.
func (b *bench) instance() (*postgres.DB, *Service) {
	b.t.Helper()
	db, err := postgres.Open(b.t.Context(), b.url, pgtest.Options(b.url, postgres.Options{}))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(db.Close)
	return db, NewService(db, testPolicies)
}

// made is a merchant of the first instance with its key for test mode.
func (b *bench) made(name string) (Merchant, KeyPair) {
	b.t.Helper()
	m, pair, err := b.Create(b.t.Context(), name, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return m, pair
}

func (b *bench) refresh(s *Service) int {
	b.t.Helper()
	n, err := s.Refresh(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bench) exec(sql string, args ...any) {
	b.t.Helper()
	if n := pgtest.Exec(b.t, b.url, sql, args...); n != 1 {
		b.t.Fatalf("%s changed %d rows, want 1", sql, n)
	}
}

// wantCaller fails the test unless the pair speaks for that account in that mode.
func (b *bench) wantCaller(s *Service, pair KeyPair, account uuid.UUID, mode string) {
	b.t.Helper()
	c, err := s.Authenticate(pair.PublicAPIKey, pair.PrivateSecretKey, anywhere)
	if err != nil || c.AccountID != account || c.Mode != mode {
		b.t.Fatalf("the pair speaks for %s in %q mode (%v), want %s in %s mode", c.AccountID, c.Mode, err, account, mode)
	}
}

// wantStranger fails the test unless the keys are refused, and in the one way in
// which all keys are.
func (b *bench) wantStranger(s *Service, publicKey, secret string) {
	b.t.Helper()
	c, err := s.Authenticate(publicKey, secret, anywhere)
	e, ok := apierr.From(err)
	if !ok || c != (Caller{}) {
		b.t.Fatalf("the keys were taken for %s (%v)", c.AccountID, err)
	}
	if e.Status != 401 || e.Code != apierr.InvalidCredentials || !slices.Equal(e.Messages, []string{"public-api-key and private-secret-key must be a valid pair"}) || e.RetryAfter != 0 {
		b.t.Fatalf("refused with %d %v", e.Status, e)
	}
}

func TestPairSpeaksForItsMerchantAndMode(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first, test := b.made("First")
	second, other := b.made("Second")
	live, err := b.CreateKey(t.Context(), first.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	b.wantCaller(b.Service, test, first.AccountID, Test)
	b.wantCaller(b.Service, live, first.AccountID, Live)
	b.wantCaller(b.Service, other, second.AccountID, Test)
}

// An unknown key and a wrong secret are told the same: an attacker learns of no
// key that it exists.
func TestUnknownKeyAndWrongSecretAreToldTheSame(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, pair := b.made("First")
	_, other := b.made("Second")
	for _, keys := range [][2]string{
		{pair.PublicAPIKey, other.PrivateSecretKey},
		{pair.PublicAPIKey, pair.PrivateSecretKey + "x"},
		{pair.PublicAPIKey, pair.PrivateSecretKey[:len(pair.PrivateSecretKey)-1]},
		{pair.PublicAPIKey, strings.ToLower(pair.PrivateSecretKey)},
		{pair.PublicAPIKey, ""},
		{pair.PublicAPIKey, pair.PublicAPIKey},
		{pair.PublicAPIKey, string(make([]byte, sha256.Size))},
		{strings.ToLower(pair.PublicAPIKey), pair.PrivateSecretKey},
		{"sandbox_unheard_of", pair.PrivateSecretKey},
		{"", pair.PrivateSecretKey},
		{"sandbox_unheard_of", ""}, // whose hash is zeros in the directory
		{"", ""},
		{pair.PrivateSecretKey, pair.PublicAPIKey},
	} {
		b.wantStranger(b.Service, keys[0], keys[1])
	}
}

func TestOneInstancesKeysAreKnownToOthersAfterARefresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, test := b.made("First")
	b.wantCaller(b.Service, test, m.AccountID, Test) // at once where it was made
	b.wantStranger(other, test.PublicAPIKey, test.PrivateSecretKey)
	if n := b.refresh(other); n != 1 {
		t.Errorf("a refresh found %d new keys, want 1", n)
	}
	b.wantCaller(other, test, m.AccountID, Test)

	live, err := other.CreateKey(t.Context(), m.AccountID, Live)
	if err != nil {
		t.Fatal(err)
	}
	b.wantStranger(b.Service, live.PublicAPIKey, live.PrivateSecretKey)
	if n := b.refresh(b.Service); n != 1 {
		t.Errorf("a refresh found %d new keys, want 1", n)
	}
	b.wantCaller(b.Service, live, m.AccountID, Live)
	if n := b.refresh(b.Service); n != 0 {
		t.Errorf("a refresh without news found %d keys", n)
	}
}

func TestRevokedKeyIsForgottenByEveryInstance(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, revoked := b.made("First")
	kept, err := b.CreateKey(t.Context(), m.AccountID, Test)
	if err != nil {
		t.Fatal(err)
	}
	b.refresh(other)
	b.wantCaller(other, revoked, m.AccountID, Test)

	b.exec(`UPDATE api_keys SET revoked_at = clock_timestamp(), changed_at = clock_timestamp() WHERE public_api_key = $1`, revoked.PublicAPIKey)
	for _, s := range []*Service{b.Service, other} {
		b.refresh(s)
		b.wantStranger(s, revoked.PublicAPIKey, revoked.PrivateSecretKey)
		b.wantCaller(s, kept, m.AccountID, Test)
		b.refresh(s) // reads the change once more, because it looks back a little
		b.wantStranger(s, revoked.PublicAPIKey, revoked.PrivateSecretKey)
	}
	_, late := b.instance()
	b.refresh(late)
	b.wantStranger(late, revoked.PublicAPIKey, revoked.PrivateSecretKey)
	b.wantCaller(late, kept, m.AccountID, Test)
}

func TestPolicyOfAMerchantIsKnownEverywhere(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair, err := b.Create(t.Context(), "First", "ietf")
	if err != nil {
		t.Fatal(err)
	}
	_, other := b.instance()
	b.wantDefaultPolicy(other, pair) // until it is known
	b.refresh(other)
	for _, s := range []*Service{b.Service, other} {
		b.wantPolicy(s, "ietf", m.AccountID, pair)
		if got := s.PolicyOfKey(pair.PrivateSecretKey); got != "yuno" {
			t.Errorf("the secret tells the policy %q", got)
		}
	}
	b.exec(`UPDATE merchants SET idempotency_policy = 'yuno', changed_at = clock_timestamp() WHERE account_id = $1`, m.AccountID)
	b.refresh(other)
	b.wantPolicy(other, "yuno", m.AccountID, pair)
	b.wantDefaultPolicy(other, NewKeyPair(Test), KeyPair{}) // one that nobody has, and none
}

// A row is dated before its transaction commits. A refresh in between sees neither
// the row nor a later one's date as proof that it has read everything before it.
func TestKeyThatCommitsLateIsNotOverlooked(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other := b.instance()
	m, _ := b.made("First")
	slow := newKeyPair(Test)
	var quick KeyPair
	err := b.db.InTx(t.Context(), func(tx postgres.Tx) error {
		if err := b.store.insertKey(tx, m.AccountID, slow, nil); err != nil {
			return err
		}
		var err error
		if quick, err = b.CreateKey(t.Context(), m.AccountID, Test); err != nil { // later, and committed first
			return err
		}
		_, err = other.Refresh(t.Context())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.wantCaller(other, quick, m.AccountID, Test)
	b.wantStranger(other, slow.PublicAPIKey, slow.PrivateSecretKey)
	b.refresh(other)
	b.wantCaller(other, slow, m.AccountID, Test)
}

// The hot path asks nobody: requests are authenticated while the database is away.
func TestAuthenticationNeedsNoDatabase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair, err := b.Create(t.Context(), "First", "ietf")
	if err != nil {
		t.Fatal(err)
	}
	b.db.Close()
	b.wantCaller(b.Service, pair, m.AccountID, Test)
	b.wantStranger(b.Service, pair.PublicAPIKey, "wrong")
	b.wantStranger(b.Service, "sandbox_unheard_of", "wrong") // a miss is no reason to ask
	b.wantPolicy(b.Service, "ietf", m.AccountID, pair)
	b.wantDefaultPolicy(b.Service, NewKeyPair(Test))
	if _, err := b.Refresh(t.Context()); err == nil {
		t.Error("a refresh without a database did not fail")
	}
	b.wantCaller(b.Service, pair, m.AccountID, Test) // and took nothing away
}

func TestDirectoryMayBeReadWhileItIsRefreshed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair, err := b.Create(t.Context(), "First", "ietf")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if c, err := b.Authenticate(pair.PublicAPIKey, pair.PrivateSecretKey, anywhere); err != nil || c.AccountID != m.AccountID {
					t.Errorf("during a refresh the pair speaks for %s (%v)", c.AccountID, err)
					return
				}
				if got := b.PolicyOfKey(pair.PublicAPIKey); got != "ietf" {
					t.Errorf("during a refresh the key's policy is %q", got)
					return
				}
			}
		})
	}
	for range 20 {
		if _, err := b.CreateKey(t.Context(), m.AccountID, Live); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
}

func TestKeysTellTheirModeAndHalf(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for mode, prefix := range map[string]string{Test: "sandbox_", Live: "prod_"} {
		for range 50 {
			p := NewKeyPair(mode)
			if !regexp.MustCompile(`^`+prefix+`[A-Z2-7]{52}$`).MatchString(p.PublicAPIKey) ||
				!regexp.MustCompile(`^`+prefix+`secret_[A-Z2-7]{52}$`).MatchString(p.PrivateSecretKey) || p.Mode != mode {
				t.Fatalf("a pair for %s mode is not written as it should be", mode)
			}
			if p.PublicAPIKey[len(prefix):] == p.PrivateSecretKey[len(prefix)+len(secretLabel):] || seen[p.PublicAPIKey] || seen[p.PrivateSecretKey] {
				t.Fatal("two keys are the same")
			}
			seen[p.PublicAPIKey], seen[p.PrivateSecretKey] = true, true
		}
	}
}

// printed is what the usual ways of printing make of a value.
func printed(v any) map[string]string {
	all := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		all[verb] = fmt.Sprintf(verb, v)
	}
	var text, data bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("made", "pair", v)
	slog.New(slog.NewJSONHandler(&data, nil)).Info("made", "pair", v)
	all["a text log"], all["a JSON log"] = text.String(), data.String()
	all["an error"] = fmt.Errorf("made %v", v).Error()
	return all
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	pair := newKeyPair(Test)
	for name, v := range map[string]any{
		"a pair": pair, "a pointer to a pair": &pair, "a list of pairs": []KeyPair{pair},
		"a struct with a pair": struct{ Pair KeyPair }{pair}, "a map of pairs": map[string]KeyPair{"pair": pair},
	} {
		for verb, text := range printed(v) {
			if verb == "a JSON log" && name != "a pair" && name != "a pointer to a pair" {
				continue // inside of something else, a pair is encoded as the operator is to see it
			}
			if strings.Contains(text, pair.PrivateSecretKey) || strings.Contains(text, fmt.Sprintf("%x", pair.PrivateSecretKey)) {
				t.Errorf("%s, printed as %s, shows its secret", name, verb)
			}
		}
	}
	// The one way out: the answer to the operator who made it.
	data, err := json.Marshal(pair)
	if err != nil || !bytes.Contains(data, []byte(pair.PrivateSecretKey)) {
		t.Errorf("the answer would not show the secret: %v", err)
	}
}

func TestSecretsAreNotStored(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, pair := b.made("First")
	var row string
	if err := b.db.Conn(t.Context()).Raw(`SELECT string_agg(k::text || m::text, '') FROM api_keys k, merchants m`).Row().Scan(&row); err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimPrefix(pair.PrivateSecretKey, "sandbox_secret_")
	if strings.Contains(row, secret) || strings.Contains(row, fmt.Sprintf("%x", secret)) {
		t.Error("the database holds the secret")
	}
	if digest := sha256.Sum256([]byte(pair.PrivateSecretKey)); !strings.Contains(row, fmt.Sprintf("%x", digest)) {
		t.Error("the database does not hold the secret's digest")
	}
}

func TestEnsureMakesWhatIsMissingAndNothingTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := Merchant{AccountID: uuid.Must(uuid.NewV7()), Name: "Development", IdempotencyPolicy: "yuno"}
	test, live := NewKeyPair(Test), NewKeyPair(Live)
	for range 3 {
		if err := b.Ensure(t.Context(), m, test, live); err != nil {
			t.Fatal(err)
		}
		b.wantCaller(b.Service, test, m.AccountID, Test)
		b.wantCaller(b.Service, live, m.AccountID, Live)
	}
	var merchants, keys int
	if err := b.db.Conn(t.Context()).Raw(`SELECT (SELECT count(*) FROM merchants), (SELECT count(*) FROM api_keys)`).Row().Scan(&merchants, &keys); err != nil {
		t.Fatal(err)
	}
	if merchants != 1 || keys != 2 {
		t.Errorf("%d merchants with %d keys, want 1 with 2", merchants, keys)
	}
	b.db.Close()
	if err := b.Ensure(t.Context(), m, test); err == nil {
		t.Error("without a database Ensure did not fail")
	}
}

// A merchant that could be made without its key would be one that nobody can use.
func TestMerchantAndItsFirstKeyAreMadeTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	pgtest.Exec(t, b.url, `CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''a fault of this test''; END';
		CREATE TRIGGER fault BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION fault()`)
	if m, pair, err := b.Create(t.Context(), "First", ""); err == nil || !same(m, Merchant{}) || pair != (KeyPair{}) {
		t.Errorf("made %s although its key could not be (%v)", m.AccountID, err)
	}
	var n int
	if err := b.db.Conn(t.Context()).Raw(`SELECT count(*) FROM merchants`).Row().Scan(&n); err != nil || n != 0 {
		t.Errorf("%d merchants are there (%v), want none", n, err)
	}
}

func TestServiceRefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, _ := b.made("First")
	for name, made := range map[string]func() error{
		"an empty name": func() error { _, _, err := b.Create(t.Context(), "", ""); return err },
		"a blank name":  func() error { _, _, err := b.Create(t.Context(), " \t", ""); return err },
		"a long name":   func() error { _, _, err := b.Create(t.Context(), strings.Repeat("é", 256), ""); return err },
		"no policy":     func() error { _, _, err := b.Create(t.Context(), "Second", "geheim"); return err },
		"no mode":       func() error { _, err := b.CreateKey(t.Context(), m.AccountID, ""); return err },
		"no such mode":  func() error { _, err := b.CreateKey(t.Context(), m.AccountID, "geheim"); return err },
	} {
		err := made()
		if e, ok := apierr.From(err); !ok || e.Code != apierr.InvalidParameters || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := b.CreateKey(t.Context(), uuid.New(), Test)
	if e, ok := apierr.From(err); !ok || e.Code != apierr.NotFound {
		t.Errorf("a key for a merchant that is not there: %v", err)
	}
	if _, _, err := b.Create(t.Context(), strings.Repeat("é", 255), ""); err != nil {
		t.Errorf("a name of 255 characters: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := b.Create(cancelled, "Third", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that was given up: %v", err)
	}
}
