package conformance

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/test/harness"
)

// promisedWithin is how soon a revocation holds on every instance.
const promisedWithin = 5 * time.Second

// made is a key as the operator's API shows it, with its secret in the answer that
// made it.
type made struct {
	ID               string  `json:"id"`
	PublicAPIKey     string  `json:"public_api_key"`
	PrivateSecretKey string  `json:"private_secret_key"`
	Status           string  `json:"status"`
	ExpiresAt        *string `json:"expires_at"`
	LastUsedAt       *string `json:"last_used_at"`
	Replaces         *made   `json:"replaces"`
}

func (m made) keys(account string) harness.Keys {
	return harness.Keys{AccountID: account, PublicAPIKey: m.PublicAPIKey, PrivateSecretKey: m.PrivateSecretKey}
}

// ordered asks the operator's API for something that must work.
func ordered[T any](t *testing.T, o harness.Operator, method, path string, body any, status int) T {
	t.Helper()
	a := o.Do(within(t, harness.Patience), method, path, body)
	mustBe(t, a, status)
	var v T
	if err := json.Unmarshal(a.Body, &v); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return v
}

// keyOf is a merchant's only key.
func keyOf(t *testing.T, o harness.Operator, keys harness.Keys) made {
	t.Helper()
	all := ordered[[]made](t, o, http.MethodGet, keysPath(keys), nil, http.StatusOK)
	if len(all) != 1 {
		t.Fatalf("the merchant has %d keys", len(all))
	}
	return all[0]
}

func keysPath(keys harness.Keys) string { return "/admin/v1/merchants/" + keys.AccountID + "/keys" }

// taken says whether an instance takes the client's keys. Anything but yes and no
// fails the test. Who is refused too often is told to wait, which nobody is whose keys
// are taken.
func taken(ctx context.Context, t *testing.T, c *harness.Client) bool {
	t.Helper()
	a := c.Get(ctx, "/v1/payments?merchant_order_id=nobody-has-it")
	if a.Err == nil && a.Status == http.StatusOK {
		return true
	}
	if a.Code() != "INVALID_CREDENTIALS" && a.Code() != "RATE_LIMITED" {
		t.Errorf("neither taken nor refused: %s", a)
	}
	return false
}

// untilRefused tells how long after a moment each of the clients is refused for the
// first time, and checks that they stay so.
func untilRefused(ctx context.Context, t *testing.T, since time.Time, clients []*harness.Client) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(clients))
	for left := len(clients); left > 0 && ctx.Err() == nil; {
		for i, c := range clients {
			asked := time.Now()
			switch is := taken(ctx, t, c); {
			case is && took[i] > 0:
				t.Errorf("instance %d took the key %s after it had refused it", i+1, asked.Sub(since)-took[i])
			case !is && took[i] == 0:
				took[i] = max(asked.Sub(since), 1)
				left--
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	for i, c := range clients {
		for range 50 {
			if taken(ctx, t, c) {
				t.Errorf("instance %d takes the key again", i+1)
			}
		}
		if took[i] > promisedWithin {
			t.Errorf("instance %d refused the key after %s only", i+1, took[i])
		}
	}
	return took
}

// till is what merchants do without a pause, each request once, until told to stop.
type till struct {
	enough atomic.Bool
	paying sync.WaitGroup

	mu    sync.Mutex
	paid  []harness.Payment
	wrong []string
}

// open lets one more merchant pay, with whatever client it has at the moment. What is
// not 201 is a request that failed.
func (l *till) open(ctx context.Context, client *atomic.Pointer[harness.Client]) {
	l.paying.Go(func() {
		for !l.enough.Load() {
			p := harness.NewPayment("paid while a key is rotated")
			a := client.Load().Pay(ctx, p)
			l.mu.Lock()
			if a.Err != nil || a.Status != http.StatusCreated {
				l.wrong = append(l.wrong, a.String())
			} else {
				l.paid = append(l.paid, p)
			}
			l.mu.Unlock()
		}
	})
}

// close ends the payments, and checks that none failed and each was charged once.
func (l *till) close(t *testing.T, ledger harness.Ledger) {
	t.Helper()
	l.enough.Store(true)
	l.paying.Wait()
	for _, w := range l.wrong {
		t.Errorf("a request failed: %s", w)
	}
	charged := map[string]int{}
	for _, e := range ledger.All(t) {
		charged[e.MerchantOrderID]++
	}
	for _, p := range l.paid {
		if n := charged[p.OrderID]; n != 1 {
			t.Errorf("order %s was charged %d times", p.OrderID, n)
		}
	}
	if len(l.paid) < 100 || len(charged) != len(l.paid) {
		t.Errorf("%d payments, %d orders charged", len(l.paid), len(charged))
	}
}

// Merchants pay on two instances without a pause while their key is rotated. Some take
// the successor as soon as they have it, others when the overlap is nearly over. No
// request fails; five seconds after the overlap the old key is taken nowhere.
//
// Not in parallel with other tests: it measures.
func TestKeyRotationUnderLoadFailsNoRequestAndThenRefusesTheOldKey(t *testing.T) {
	const (
		overlap = 6 * time.Second
		early   = 2 // merchants on each instance who take the new key at once
		late    = 2 // and at last
		reserve = time.Second
	)
	ctx := within(t, 2*harness.Patience)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	instances := []*harness.API{installation.Serve(t), installation.Serve(t)}
	operator := instances[0].Operator
	old := merchant(t, instances[0])
	var with, without []*harness.Client // the old key, the new one
	for _, api := range instances {
		c := harness.NewClient(api.URL, old)
		harness.Eventually(t, harness.Patience, "the key is known", func() bool { return c.Get(ctx, "/v1/payments?merchant_order_id=none").Status == http.StatusOK })
		with = append(with, c)
	}

	l := &till{}
	slots := [2][2]atomic.Pointer[harness.Client]{} // early and late, by instance
	for i := range instances {
		for kind, n := range []int{early, late} {
			slots[kind][i].Store(with[i])
			for range n {
				l.open(ctx, &slots[kind][i])
			}
		}
	}
	id := keyOf(t, operator, old).ID
	successor := ordered[made](t, operator, http.MethodPost, keysPath(old)+"/"+id+"/rotate",
		map[string]int{"overlap_seconds": int(overlap.Seconds())}, http.StatusCreated)
	ends, err := time.Parse(time.RFC3339, *successor.Replaces.ExpiresAt)
	if err != nil || successor.Replaces.Status != "expiring" {
		t.Fatalf("the old key is %s until %s (%v)", successor.Replaces.Status, ends, err)
	}
	known := time.Now()
	for i, c := range with {
		fresh := c.As(successor.keys(old.AccountID))
		harness.Eventually(t, harness.Patience, "the successor is known", func() bool { return taken(ctx, t, fresh) })
		slots[0][i].Store(fresh)
		without = append(without, fresh)
	}
	t.Logf("the successor was known on both after %s", time.Since(known).Round(time.Millisecond))
	select {
	case <-time.After(time.Until(ends) - reserve):
	case <-ctx.Done():
	}
	for i := range instances {
		slots[1][i].Store(without[i])
	}
	took := untilRefused(ctx, t, ends, with)
	for _, c := range without {
		if !taken(ctx, t, c) {
			t.Error("the successor is refused")
		}
	}
	l.close(t, sandbox.Ledger())
	if k := ordered[[]made](t, operator, http.MethodGet, keysPath(old), nil, http.StatusOK); len(k) != 2 || k[1].Status != "revoked" || k[0].Status != "active" {
		t.Errorf("the keys are %+v", k)
	}
	t.Logf("%d payments, none failed; the old key was refused %s and %s after its end", len(l.paid), took[0].Round(time.Millisecond), took[1].Round(time.Millisecond))
}

func TestRevocationHoldsOnEveryInstanceWithinFiveSeconds(t *testing.T) {
	t.Parallel()
	ctx := within(t, 2*harness.Patience)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	instances := []*harness.API{installation.Serve(t), installation.Serve(t)}
	operator := instances[0].Operator
	var all []time.Duration
	for range 5 {
		keys := merchant(t, instances[0])
		var clients []*harness.Client
		for _, api := range instances {
			c := harness.NewClient(api.URL, keys)
			harness.Eventually(t, harness.Patience, "the key is known", func() bool { return taken(ctx, t, c) })
			clients = append(clients, c)
		}
		id := keyOf(t, operator, keys).ID
		told := time.Now()
		ordered[made](t, operator, http.MethodPost, keysPath(keys)+"/"+id+"/revoke", nil, http.StatusOK)
		all = append(all, untilRefused(ctx, t, told, clients)...)
	}
	spread(t, "a revocation held after", all)
}

// An instance that cannot ask the database does not know what was revoked, and takes
// nobody before it does.
func TestRevocationHoldsOnAnInstanceThatIsCutOff(t *testing.T) {
	t.Parallel()
	ctx := within(t, 2*harness.Patience)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	url := pgtest.URL(t)
	proxy := pgproxy.New(t, url)
	installation := harness.NewInstallation(url, sandbox.URL)
	other := installation.Serve(t)
	installation.DatabaseURL = proxy.URL()
	cut := installation.Serve(t)
	keys := merchant(t, other)
	client := harness.NewClient(cut.URL, keys)
	harness.Eventually(t, harness.Patience, "the key is known", func() bool { return taken(ctx, t, client) })
	id := keyOf(t, other.Operator, keys).ID

	proxy.Down()
	told := time.Now()
	ordered[made](t, other.Operator, http.MethodPost, keysPath(keys)+"/"+id+"/revoke", nil, http.StatusOK)
	// Its directory still has the key. What needs no database tells whether it is
	// taken: a look-up without a nonce is a mistake of whoever is let in.
	ask := func() harness.Answer { return client.Get(ctx, "/v1/idempotency-keys") }
	var refused harness.Answer
	harness.Eventually(t, harness.Patience, "the key is not taken", func() bool {
		refused = ask()
		return refused.Status != http.StatusBadRequest
	})
	if took := time.Since(told); took > promisedWithin || refused.Code() != "SERVICE_UNAVAILABLE" || refused.Header.Get("Retry-After") != "1" {
		t.Errorf("after %s: %s", took, refused)
	} else {
		t.Logf("nobody was let in any more after %s", took.Round(time.Millisecond))
	}
	proxy.Up()
	harness.Eventually(t, harness.Patience, "the database is back", func() bool {
		a := ask()
		if a.Status == http.StatusBadRequest {
			t.Fatal("the revoked key is taken")
		}
		return a.Code() == "INVALID_CREDENTIALS" || a.Code() == "RATE_LIMITED"
	})
}

func TestListOfNetworksGoesByTheAddressThatTrustedProxiesTell(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	for _, c := range []struct {
		name     string
		args     []string
		networks []string
		want     int
	}{
		{"from its own address", nil, []string{"127.0.0.0/8"}, http.StatusOK},
		{"from another one", nil, []string{"203.0.113.0/24", "::1"}, http.StatusUnauthorized},
		{"through a proxy that tells nothing", []string{"--trusted-proxies", "127.0.0.0/8"}, []string{"203.0.113.0/24"}, http.StatusUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			api := installation.Serve(t, c.args...)
			keys := merchant(t, api)
			key := ordered[made](t, api.Operator, http.MethodPost, keysPath(keys), map[string]any{"mode": "test", "allowed_networks": c.networks}, http.StatusCreated)
			a := harness.NewClient(api.URL, key.keys(keys.AccountID)).Get(within(t, harness.Patience), "/v1/payments?merchant_order_id=none")
			if a.Err != nil || a.Status != c.want || c.want == http.StatusUnauthorized && a.Code() != "UNKNOWN_IP_ADDRESS" {
				t.Errorf("got %s, want %d", a, c.want)
			}
		})
	}
}

// A person with the command line only: a merchant, its keys, their end.
func TestMerchantsAndKeysFromTheCommandLine(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api := harness.NewInstallation(pgtest.URL(t), sandbox.URL).Serve(t)
	call := func(args ...string) harness.Result {
		t.Helper()
		return harness.Call(t, harness.Command{Args: append(args, "--admin-url", api.Operator.URL), Env: []string{"PAYMENTS_ADMIN_TOKEN=" + api.Operator.Token}})
	}
	value := func(r harness.Result, name string) string {
		t.Helper()
		m := regexp.MustCompile(`(?m)^ *` + name + ` +([^\s:]+)`).FindStringSubmatch(r.Stdout)
		if m == nil {
			t.Fatalf("it does not tell %q:\n%s%s", name, r.Stdout, r.Stderr)
		}
		return m[1]
	}
	keysFrom := func(account string, r harness.Result) harness.Keys {
		return harness.Keys{AccountID: account, PublicAPIKey: value(r, "public-api-key"), PrivateSecretKey: value(r, "private-secret-key")}
	}
	status := func(k harness.Keys) int {
		t.Helper()
		return harness.NewClient(api.URL, k).Get(within(t, harness.Patience), "/v1/payments?merchant_order_id=none").Status
	}
	want := func(k harness.Keys, code int) {
		t.Helper()
		if got := status(k); got != code {
			t.Errorf("the key gets %d, want %d", got, code)
		}
	}
	const shownOnce = "The secret is not kept and will not be shown again."

	r := call("merchants", "create", "Corner \x1b[31mshop")
	r.Must(t, 0, shownOnce, `\x1b[31mshop`)
	account, id := value(r, "merchant"), value(r, "key")
	first := keysFrom(account, r)
	want(first, http.StatusOK)
	call("merchants", "list").Must(t, 0, account+"  enabled", `\x1b[31mshop`)

	r = call("keys", "create", "--account-id", account, "--mode", "test", "--allow", "127.0.0.1,2001:db8::/32")
	r.Must(t, 0, shownOnce, "from                127.0.0.1/32,2001:db8::/32")
	want(keysFrom(account, r), http.StatusOK)
	r = call("keys", "create", "--account-id", account, "--mode", "test", "--allow", "192.0.2.1")
	want(keysFrom(account, r), http.StatusUnauthorized)

	r = call("keys", "rotate", id, "--account-id", account, "--overlap", "1h")
	r.Must(t, 0, shownOnce, "Key "+id+" goes on until 20")
	second, secondID := keysFrom(account, r), value(r, "key")
	want(first, http.StatusOK)
	want(second, http.StatusOK)
	call("keys", "rotate", id, "--account-id", account).Must(t, 1, "the key has been rotated already")
	call("keys", "revoke", id, "--account-id", account).Must(t, 0, "key "+id+" is revoked")
	want(first, http.StatusUnauthorized)
	r = call("keys", "rotate", secondID, "--account-id", account, "--overlap", "0s")
	r.Must(t, 0, shownOnce, "Key "+secondID+" is revoked.")
	third := keysFrom(account, r)
	want(second, http.StatusUnauthorized)
	want(third, http.StatusOK)

	r = call("keys", "list", "--account-id", account)
	r.Must(t, 0, id+"  test  revoked ", secondID+"  test  revoked ", "from 127.0.0.1/32,2001:db8::/32", "never used")
	for _, k := range []harness.Keys{first, second, third} {
		if !strings.Contains(r.Stdout, k.PublicAPIKey) || strings.Contains(r.Stdout, k.PrivateSecretKey) {
			t.Error("the list misses a key, or tells a secret")
		}
	}
	call("merchants", "disable", account).Must(t, 0, "merchant "+account+" is disabled")
	want(third, http.StatusUnauthorized)
	call("merchants", "list").Must(t, 0, account+"  disabled since 20")
	call("merchants", "enable", account).Must(t, 0, "merchant "+account+" is enabled")
	want(third, http.StatusOK)

	call("merchants", "disable", "0199").Must(t, 3, "there is no merchant with this account_id")
	call("keys", "list", "--account-id", "0199").Must(t, 3, "there is no merchant with this account_id")
	call("keys", "revoke", "0199", "--account-id", account).Must(t, 3, "this merchant has no key with this id")
	call("keys", "create", "--account-id", account, "--mode", "live", "--allow", "shop.example").Must(t, 1, "$.allowed_networks[0] must be a network")
	call("keys", "create", "--account-id", account, "--mode", "other").Must(t, 2, "--mode")
	call("keys", "rotate", id, "--account-id", account, "--overlap", "1500ms").Must(t, 2, "--overlap must be whole seconds")
	call("keys", "rotate", id, "--account-id", account, "--overlap", "721h").Must(t, 1, "$.overlap_seconds must be")
	call("keys", "list").Must(t, 2, "--account-id")
	call("merchants", "create", " ").Must(t, 1, "$.name must have 1 to 255 characters")

	// Lists go on behind their first page, and are one array for programs.
	for range 120 {
		api.Operator.Do(within(t, harness.Patience), http.MethodPost, "/admin/v1/merchants", map[string]string{"name": "One of many"})
	}
	if n := strings.Count(call("merchants", "list").Stdout, "\n"); n != 121 {
		t.Errorf("%d merchants are listed, want 121", n)
	}
	var all []struct {
		AccountID string `json:"account_id"`
	}
	if err := json.Unmarshal([]byte(call("merchants", "list", "--json").Stdout), &all); err != nil || len(all) != 121 || all[120].AccountID != account {
		t.Errorf("%d merchants in JSON (%v)", len(all), err)
	}
	var rotated made
	r = call("keys", "rotate", value(call("keys", "create", "--account-id", account, "--mode", "live"), "key"), "--account-id", account, "--json")
	if err := json.Unmarshal([]byte(r.Stdout), &rotated); err != nil || rotated.PrivateSecretKey == "" || rotated.Replaces == nil || rotated.Replaces.Status != "expiring" {
		t.Errorf("a rotation in JSON: %v", err)
	}
}

func TestLastUseOutlivesAStop(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	first, second := installation.Serve(t), installation.Serve(t)
	keys := merchant(t, first)
	pay(t, harness.NewClient(first.URL, keys), harness.NewPayment("paid before the stop"))
	first.Signal(syscall.SIGTERM)
	if code := first.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if k := keyOf(t, second.Operator, keys); k.LastUsedAt == nil {
		t.Error("the use was forgotten")
	}
}
