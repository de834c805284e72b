package conformance

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// get asks for a path, with the operator's token or without.
func get(t *testing.T, url, token string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, harness.Patience), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(url, "/debug/pprof") { // Go's own
		apitest.Check(t, req, nil, res, data)
	}
	return res.StatusCode, string(data)
}

// What is for operators is not on the merchants' listener, whoever asks.
func TestWhatIsForOperatorsIsNotOnThePublicListener(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, _ := instance(t, pgtest.URL(t), sandbox.URL)
	for _, path := range []string{
		"/metrics", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile", "/debug/pprof/cmdline", "/debug/vars",
		"/admin/v1/merchants", "/admin/v1/nonces", "/admin/v1/nonces/a-nonce", "/admin/v1/transactions/0199/resolve", "/admin/v1", "/admin",
	} {
		for _, token := range []string{"", api.Operator.Token} {
			if status, body := get(t, api.URL+path, token); status != http.StatusNotFound || !strings.Contains(body, `"NOT_FOUND"`) {
				t.Errorf("%s (with the admin token: %t) answers %d %s", path, token != "", status, body)
			}
		}
	}
}

func TestProfilesAreBehindTheAdminToken(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, _ := instance(t, pgtest.URL(t), sandbox.URL)
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace"} {
		for _, token := range []string{"", harness.Unguessable("token")} {
			if status, _ := get(t, api.Operator.URL+path, token); status != http.StatusUnauthorized {
				t.Errorf("%s answers %d to nobody", path, status)
			}
		}
	}
	for path, says := range map[string]string{
		"/debug/pprof/": "full goroutine stack dump", "/debug/pprof/goroutine?debug=1": "goroutine profile:", "/debug/pprof/heap?debug=1": "heap profile:",
		"/debug/pprof/allocs?debug=1": "heap profile:", "/debug/pprof/threadcreate?debug=1": "threadcreate profile:",
		"/debug/pprof/block?debug=1": "cycles/second", "/debug/pprof/mutex?debug=1": "mutex:",
	} {
		if status, body := get(t, api.Operator.URL+path, api.Operator.Token); status != http.StatusOK || !strings.Contains(body, says) {
			t.Errorf("%s answers %d, and does not say %q", path, status, says)
		}
	}
	if status, _ := get(t, api.Operator.URL+"/debug/pprof/cmdline", api.Operator.Token); status != http.StatusNotFound {
		t.Errorf("the command line is told: %d", status)
	}
}

func TestMetricsTellOfAPayment(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, pgtest.URL(t), sandbox.URL)
	payment := harness.NewPayment("counted")
	pay(t, client, payment)
	pay(t, client, payment)
	lines := []string{
		`payments_requests_total{listener="public",method="POST",route="/v1/payments",status="201"} 2`,
		`payments_idempotency_total{verdict="new"} 1`, `payments_idempotency_total{verdict="replayed"} 1`,
		`payments_provider_seconds_count{kind="send",outcome="approved",provider="ONCEPAY_SANDBOX"} 1`,
		"payments_parked 0", "payments_unresolved 0", "payments_pool_max 20", `,version="` + harness.Version + `"} 1`,
	}
	var body string
	harness.Eventually(t, harness.Patience, "the metrics know of the payment", func() bool { // a request is counted after its answer
		var status int
		status, body = get(t, api.Operator.URL+"/metrics", "")
		missing := ""
		for _, l := range lines {
			if !strings.Contains(body, l+"\n") {
				missing = l
			}
		}
		return status == http.StatusOK && missing == ""
	})
	for _, theirs := range []string{payment.Nonce, payment.OrderID, payment.Card, "counted"} {
		if strings.Contains(body, theirs) {
			t.Errorf("the metrics hold %q", theirs)
		}
	}
}

// collector takes what an instance sends as OTLP over HTTP.
type collector struct {
	mu     sync.Mutex
	bodies bytes.Buffer
	paths  map[string]bool
}

func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			return
		}
		body = unzipped
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paths[r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")] = true
	_, _ = io.Copy(&c.bodies, body)
}

// serveTraced starts an instance that sends its traces to a collector.
func serveTraced(t *testing.T, installation harness.Installation, url string) (process *harness.Process, api string, keys harness.Keys) {
	t.Helper()
	command := installation.ServeCommand()
	command.Env = append(command.Env, "OTEL_EXPORTER_OTLP_ENDPOINT="+url)
	process = harness.Start(t, command)
	var operator string
	harness.Eventually(t, harness.Patience, "serve is ready", func() bool {
		var one, two bool
		api, one = harness.Told(process.Stdout(), "API")
		operator, two = harness.Told(process.Stdout(), "Operator")
		return one && two
	})
	keys, err := harness.Operator{URL: operator, Token: installation.AdminToken}.NewMerchant(within(t, harness.Patience), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return process, api, keys
}

// TestTracesGoWhereTheEnvironmentSays, and hold nothing that must not leave. What
// was not sent yet when the instance is told to stop is sent then.
func TestTracesGoWhereTheEnvironmentSays(t *testing.T) {
	t.Parallel()
	kept := &collector{paths: map[string]bool{}}
	server := httptest.NewServer(kept)
	t.Cleanup(server.Close)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	process, api, keys := serveTraced(t, installation, server.URL)
	client, payment := harness.NewClient(api, keys), harness.NewPayment("traced")
	answer := pay(t, client, payment)
	if a := client.Get(within(t, harness.Patience), "/v1/idempotency-keys/"+payment.Nonce); a.Status != http.StatusOK {
		t.Errorf("looked up: %s", a)
	}
	process.Signal(syscall.SIGTERM)
	if code := process.Wait(); code != 0 {
		t.Errorf("serve ends with %d", code)
	}

	kept.mu.Lock()
	defer kept.mu.Unlock()
	if !kept.paths["POST /v1/traces application/x-protobuf"] || len(kept.paths) != 1 {
		t.Errorf("the collector was asked for %v", kept.paths)
	}
	sent := kept.bodies.String()
	for _, word := range []string{
		"POST /v1/payments", "GET /v1/idempotency-keys/*", "provider send", "ONCEPAY_SANDBOX", "approved", "db transactions.begin",
		answer.Header.Get("X-Request-Id"), "service.name", "oncepay", harness.Version,
	} {
		if !strings.Contains(sent, word) {
			t.Errorf("no span says %q", word)
		}
	}
	for name, value := range map[string]string{
		"card number": payment.Card, "nonce": payment.Nonce, "order": payment.OrderID, "description": `"traced"`, "secret key": keys.PrivateSecretKey,
		"public key": keys.PublicAPIKey, "admin token": installation.AdminToken, "secret": installation.Secret, "database's URL": installation.DatabaseURL,
	} {
		if strings.Contains(sent, value) {
			t.Errorf("the spans hold the %s", name)
		}
	}
}

// A collector that nobody runs is no reason to serve no payments, or to fail at the
// end.
func TestACollectorThatIsAwayIsNobodysTrouble(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	process, api, keys := serveTraced(t, installation, "http://127.0.0.1:1/secret-path")
	pay(t, harness.NewClient(api, keys), harness.NewPayment("paid all the same"))
	process.Signal(syscall.SIGTERM)
	if code := process.Wait(); code != 0 {
		t.Errorf("serve ends with %d", code)
	}
	log := process.Stderr()
	if n := strings.Count(log, `"level":"WARN","msg":"traces could not be handed over"`); n != 1 || strings.Contains(log, "secret-path") {
		t.Errorf("the log says %d times that the collector is away, and tells its address: %t", n, strings.Contains(log, "secret-path"))
	}
}
