package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/migrations"
	"github.com/oncepay/oncepay/test/harness"
)

func TestServeSaysWhatItIsMissing(t *testing.T) {
	t.Parallel()
	whole := harness.NewInstallation("postgres://nobody@127.0.0.1:1/nothing", "http://127.0.0.1:1")
	for name, c := range map[string]struct {
		change func(*harness.Installation)
		says   string
	}{
		"no database":    {func(i *harness.Installation) { i.DatabaseURL = "" }, "DATABASE_URL"},
		"no secret":      {func(i *harness.Installation) { i.Secret = "" }, "PAYMENTS_SECRET"},
		"short secret":   {func(i *harness.Installation) { i.Secret = i.Secret[:31] }, "PAYMENTS_SECRET"},
		"no admin token": {func(i *harness.Installation) { i.AdminToken = "" }, "PAYMENTS_ADMIN_TOKEN"},
		"short token":    {func(i *harness.Installation) { i.AdminToken = i.AdminToken[:31] }, "PAYMENTS_ADMIN_TOKEN"},
		"no provider":    {func(i *harness.Installation) { i.ProviderURL = "" }, "--provider-url"},
		"odd provider":   {func(i *harness.Installation) { i.ProviderURL = "127.0.0.1:1" }, "--provider-url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := whole
			c.change(&i)
			r := harness.Call(t, i.ServeCommand())
			r.Must(t, 2, "payments: ", c.says)
			for _, secret := range []string{whole.Secret[:31], whole.AdminToken[:31]} {
				if strings.Contains(r.Stderr, secret) {
					t.Error("it tells a secret")
				}
			}
		})
	}
}

func TestADatabaseThatIsAwayIsToldWithoutItsPasswordAndExitsWith4(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	database := "postgres://nobody:" + password + "@127.0.0.1:1/nothing?sslmode=disable"
	for name, command := range map[string]harness.Command{
		"serve":          harness.NewInstallation(database, "http://127.0.0.1:1").ServeCommand(),
		"dev":            harness.DevCommand(harness.Folder(t)),
		"migrate up":     {Args: []string{"migrate", "up"}},
		"migrate status": {Args: []string{"migrate", "status"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command.Env = append(command.Env, "DATABASE_URL="+database)
			r := harness.Call(t, command)
			r.Must(t, 4, "reach the database")
			if strings.Contains(r.Stdout+r.Stderr, password) {
				t.Error("it tells the database's password")
			}
		})
	}
}

func TestASchemaThatDoesNotFitIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	serve, dev, up, status := "serve", "dev", "migrate up", "migrate status"
	for name, c := range map[string]struct {
		sql  string
		says map[string][]string // by command; those that are not named mend it
	}{
		"empty": {`DROP SCHEMA public CASCADE; CREATE SCHEMA public`, map[string][]string{
			serve: {"empty", "payments migrate up"}, status: {"version 0 of", "payments migrate up"}}},
		"too old": {`UPDATE schema_migrations SET version = 1`, map[string][]string{
			serve: {"version 1", "payments migrate up"}, status: {"version 1 of", "payments migrate up"}}},
		"too new": {`UPDATE schema_migrations SET version = 9999`, map[string][]string{
			serve: {"version 9999", "newer binary"}, dev: {"version 9999", "newer binary"},
			up: {"version 9999", "newer binary"}, status: {"version 9999", "newer binary"}}},
		"half-way": {`UPDATE schema_migrations SET dirty = true`, map[string][]string{
			serve: {"half-way", "by hand"}, dev: {"half-way", "by hand"}, up: {"half-way", "by hand"}, status: {"half-way", "by hand"}}},
	} {
		for command, words := range c.says {
			t.Run(name+", "+command, func(t *testing.T) {
				t.Parallel()
				database := pgtest.Direct(pgtest.URL(t)) // as the one who migrates
				pgtest.Exec(t, database, c.sql)
				call, code := harness.Command{Args: strings.Fields(command)}, 1
				switch command {
				case serve:
					call = harness.NewInstallation(database, "http://127.0.0.1:1").ServeCommand()
				case dev:
					call = harness.DevCommand(harness.Folder(t))
				case status:
					code = 0 // to be told is what was asked for
				}
				call.Env = append(call.Env, "DATABASE_URL="+database)
				harness.Call(t, call).Must(t, code, words...)
			})
		}
	}
}

func TestMigrateUpMakesADatabaseFitFromSeveralMachinesAtOnce(t *testing.T) {
	t.Parallel()
	database := emptyDatabase(t)
	env := []string{"DATABASE_URL=" + database}
	mustStand(t, env, 0)
	harness.Call(t, harness.Command{Args: []string{"migrate", "status"}, Env: env}).Must(t, 0, "version 0 of", "payments migrate up")

	var running []*harness.Process
	for range 3 {
		running = append(running, harness.Start(t, harness.Command{Args: []string{"migrate", "up"}, Env: env}))
	}
	for _, p := range running {
		if code := p.Wait(); code != 0 || !strings.Contains(p.Stdout(), "up to date") {
			t.Errorf("exit code %d: %s%s", code, p.Stdout(), p.Stderr())
		}
	}
	mustStand(t, env, migrations.Latest)
	harness.Call(t, harness.Command{Args: []string{"migrate", "up"}, Env: env}).Must(t, 0, "up to date")

	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, database, sandbox.URL)
	payment := harness.NewPayment("paid after the migration")
	pay(t, client, payment)
	sandbox.Ledger().MustHave(t, payment, 1)
	api.Signal(syscall.SIGTERM)
	if code := api.Wait(); code != 0 {
		t.Errorf("serve ends with %d", code)
	}
	sandbox.Signal(syscall.SIGTERM)
	if code := sandbox.Wait(); code != 0 {
		t.Errorf("sandbox ends with %d", code)
	}
}

// mustStand checks `migrate status --json`.
func mustStand(t *testing.T, env []string, version int) {
	t.Helper()
	r := harness.Call(t, harness.Command{Args: []string{"migrate", "status", "--json"}, Env: env})
	r.Must(t, 0)
	var status struct {
		Version *int  `json:"version"`
		Latest  *int  `json:"latest"`
		Dirty   *bool `json:"dirty"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &status); err != nil || status.Version == nil || status.Latest == nil || status.Dirty == nil {
		t.Fatalf("%s (%v)", r.Stdout, err)
	}
	if *status.Version != version || *status.Latest != migrations.Latest || *status.Dirty {
		t.Errorf("%s, wanted version %d", r.Stdout, version)
	}
}

func TestTwoInstancesAreOneInstallation(t *testing.T) {
	t.Parallel()
	// A key made on one instance is refused by the other until that has heard of
	// it, which the issue allows seconds for.
	const soon = 5 * time.Second
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	one, two := installation.Serve(t), installation.Serve(t)
	ctx := within(t, harness.Patience)

	keys := merchant(t, one)
	onOne, onTwo := harness.NewClient(one.URL, keys), harness.NewClient(two.URL, keys)
	made := time.Now()
	payment := harness.NewPayment("paid on one instance")
	answer := pay(t, onOne, payment) // known where it was made, at once
	harness.Eventually(t, soon, "the other instance knows the merchant", func() bool {
		a := onTwo.Get(ctx, "/v1/payments?merchant_order_id="+payment.OrderID)
		return a.Err == nil && a.Status == http.StatusOK
	})
	t.Logf("a new merchant is known on the other instance after %s", time.Since(made).Round(time.Millisecond))
	mustReplay(t, onTwo, payment, answer)

	live, err := two.Operator.NewKey(ctx, keys.AccountID, "test")
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, soon, "a second key works on the other instance", func() bool {
		a := onOne.As(live).Pay(ctx, payment)
		return a.Err == nil && a.Same(answer) && a.Replayed()
	})

	// The same nonce on both at once: one of them pays.
	slow := harness.NewPayment("sandbox:slow=500ms")
	answers := make(chan harness.Answer, 2)
	for _, c := range []*harness.Client{onOne, onTwo} {
		go func() { answers <- c.Pay(ctx, slow) }()
	}
	statuses := []int{(<-answers).Status, (<-answers).Status}
	slices.Sort(statuses)
	if !slices.Equal(statuses, []int{http.StatusCreated, http.StatusConflict}) {
		t.Errorf("two at once answer %v", statuses)
	}
	sandbox.Ledger().MustHave(t, payment, 1)
	sandbox.Ledger().MustHave(t, slow, 1)
}

func TestLookupTellsWhatBecameOfANonce(t *testing.T) {
	t.Parallel()
	dataDir := harness.Folder(t)
	dev := harness.StartDev(t, dataDir)
	payment := harness.NewPayment("looked up")
	payment.Nonce = "a/b%20c?d=e&" + payment.Nonce[:20] // any visible character but a comma
	pay(t, harness.NewClient(dev.Info.BaseURL, dev.Info.Keys()), payment)
	// The banner names a line for this; its folder is not where that is typed.
	line := regexp.MustCompile("`payments (lookup [^`]+)`").FindStringSubmatch(dev.Stdout())
	if line == nil {
		t.Fatal("the banner names no lookup")
	}
	harness.Call(t, harness.Command{Args: strings.Fields(line[1])}).Must(t, 3, "nothing is known")
	lookup := func(args ...string) harness.Command {
		return harness.Command{Args: append([]string{"lookup"}, args...)}
	}

	harness.Call(t, lookup(payment.Nonce, "--data-dir", dataDir)).
		Must(t, 0, "Charged once: 45.67 USD on ", "key          answered", "charges      1", "request", "send", "approved")
	r := harness.Call(t, lookup(payment.Nonce, "--data-dir", dataDir, "--json"))
	r.Must(t, 0)
	var found harness.Lives
	if err := json.Unmarshal([]byte(r.Stdout), &found); err != nil || found.Nonce != payment.Nonce || len(found.Lives) != 1 || found.Lives[0].Charges != 1 {
		t.Errorf("%s (%v)", r.Stdout, err)
	}
	harness.Call(t, lookup(payment.Nonce, "--data-dir", dataDir, "--account-id", dev.Info.AccountID)).Must(t, 0, "Charged once")

	byURL := lookup(payment.Nonce, "--admin-url", dev.Info.AdminURL)
	byURL.Env = []string{"PAYMENTS_ADMIN_TOKEN=" + dev.Info.AdminToken}
	harness.Call(t, byURL).Must(t, 0, "Charged once")
	byURL.Env = []string{"PAYMENTS_ADMIN_TOKEN=" + harness.Unguessable("token")}
	harness.Call(t, byURL).Must(t, 1, "admin token")

	harness.Call(t, lookup("nobody-ever-used-this", "--data-dir", dataDir)).Must(t, 3, "nothing is known")
	harness.Call(t, lookup(payment.Nonce, "--data-dir", dataDir, "--account-id", "01990000-0000-7000-8000-000000000000")).Must(t, 3, "nothing is known")
	harness.Call(t, lookup("a\nb", "--data-dir", dataDir)).Must(t, 1, "printable ASCII")

	dev.Kill()
	harness.Call(t, lookup(payment.Nonce, "--data-dir", dataDir)).Must(t, 4, "is it running?") // dev.json is still there
	harness.Call(t, lookup(payment.Nonce, "--data-dir", harness.Folder(t))).Must(t, 4, "no `payments dev` is running", "--admin-url")
}

func TestResolveIsForTransactionsThatNobodyCouldSettle(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, pgtest.URL(t), sandbox.URL, "--provider-timeout", "1s", "--settle", "30s")
	resolve := func(args ...string) harness.Result {
		t.Helper()
		return harness.Call(t, harness.Command{
			Args: append([]string{"resolve", "--admin-url", api.Operator.URL}, args...), Env: []string{"PAYMENTS_ADMIN_TOKEN=" + api.Operator.Token},
		})
	}
	because := []string{"--reason", "the provider's statement says so"}
	resolve(append(because, "01990000-0000-7000-8000-000000000000", "--outcome", "failed")...).Must(t, 3, "no transaction")
	resolve(append(because, "everything", "--outcome", "failed")...).Must(t, 3, "no transaction")

	paid := harness.NewPayment("paid")
	pay(t, client, paid)
	resolve(append(because, lives(t, client, paid.Nonce)[0].Transaction.ID, "--outcome", "failed")...).Must(t, 1, "SUCCEEDED already")

	// From here on the provider says nothing, so nobody can settle anything.
	sandbox.Freeze()
	unclear := harness.NewPayment("sent to a provider that is frozen")
	mustBe(t, client.Pay(within(t, harness.Patience), unclear), http.StatusGatewayTimeout)
	id := lives(t, client, unclear.Nonce)[0].Transaction.ID
	untilItActs := func(outcome string, code int, words ...string) {
		t.Helper()
		// The recovery worker may be asking just now; then a person is told to wait.
		var r harness.Result
		harness.Eventually(t, harness.Patience, "the transaction can be decided", func() bool {
			r = resolve(append(because, id, "--outcome", outcome, "--provider-reference", "statement-17")...)
			return !strings.Contains(r.Stderr, "somebody")
		})
		r.Must(t, code, words...)
	}
	untilItActs("failed", 1, "a charge may still arrive", "seconds") // H82
	untilItActs("succeeded", 0, "transaction "+id+" is SUCCEEDED")
	answer := pay(t, client, unclear)
	if !answer.Replayed() {
		t.Error("the decision is not the nonce's answer")
	}
	life := lives(t, client, unclear.Nonce)[0]
	if life.Charges != 1 || life.Count("resolution") != 1 || life.KeyState != "answered" {
		t.Errorf("after the decision: %+v", life)
	}
}

// Neither listener serves the other's paths. On the merchants' a wrong one is told in the
// contract's envelope; on the operator's, where all that is not the API is for people, it leads
// to the sign-in.
func TestTheListenersKeepToThemselves(t *testing.T) {
	t.Parallel()
	api, client := instance(t, pgtest.URL(t), "http://127.0.0.1:1")
	ctx := within(t, harness.Patience)
	nonce := url.PathEscape("some-nonce")
	a := client.Get(ctx, "/admin/v1/nonces/"+nonce)
	mustBe(t, a, http.StatusNotFound)
	if a.Code() != "NOT_FOUND" {
		t.Errorf("%s", a)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, api.Operator.URL+"/v1/idempotency-keys/"+nonce, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+api.Operator.Token)
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req) // which follows nothing
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/sign-in" {
		t.Errorf("a merchants' path on the operator's listener: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	stranger := harness.Operator{URL: api.Operator.URL, Token: "not the token"}
	mustBe(t, stranger.Do(ctx, http.MethodGet, "/admin/v1/nonces/"+nonce, nil), http.StatusUnauthorized)
	mustBe(t, client.As(harness.Keys{PublicAPIKey: "sandbox_x", PrivateSecretKey: "y"}).Get(ctx, "/v1/idempotency-keys/"+nonce), http.StatusUnauthorized)
}
