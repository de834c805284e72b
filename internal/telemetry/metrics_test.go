package telemetry

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/transactions"
)

// fixed answers a scrape without a database.
type fixed struct {
	pool    postgres.PoolStats
	backlog transactions.Backlog
	err     error
}

func (f fixed) PoolStats() postgres.PoolStats { return f.pool }

func (f fixed) Backlog(context.Context) (transactions.Backlog, error) { return f.backlog, f.err }

// answered lets an observer see one request that was answered like this.
func answered(o httpapi.Observer, s httpapi.Seen) {
	_, end := o(httptest.NewRequest(http.MethodGet, "/whatever/it/was", nil))
	end(s)
}

func mustCompare(t *testing.T, c prometheus.Collector, want string, names ...string) {
	t.Helper()
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestRequestsAreCountedByListenerRouteMethodAndStatus(t *testing.T) {
	t.Parallel()
	x := &Telemetry{metrics: newMetrics("v")}
	public, admin := x.Requests(Public), x.Requests(Admin)
	created := httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: 201, Duration: 20 * time.Millisecond}
	answered(public, created)
	answered(public, created)
	answered(public, httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: 400})
	answered(public, httpapi.Seen{Method: "GET", Route: "/v1/payments/:payment_id", Status: 200})
	answered(admin, httpapi.Seen{Method: "GET", Route: "/metrics", Status: 200})
	mustCompare(t, x.metrics.requests, `
# HELP payments_requests_total Requests that were answered.
# TYPE payments_requests_total counter
payments_requests_total{listener="admin",method="GET",route="/metrics",status="200"} 1
payments_requests_total{listener="public",method="GET",route="/v1/payments/:payment_id",status="200"} 1
payments_requests_total{listener="public",method="POST",route="/v1/payments",status="201"} 2
payments_requests_total{listener="public",method="POST",route="/v1/payments",status="400"} 1
`)
	if n := testutil.CollectAndCount(x.metrics.seconds); n != 3 {
		t.Errorf("%d histograms for three routes", n)
	}
}

// Whoever can choose a label's value can fill the memory of every scraper.
func TestWhatClientsMakeUpIsNoLabel(t *testing.T) {
	t.Parallel()
	x := &Telemetry{metrics: newMetrics("v")}
	answered(x.Requests(Public), httpapi.Seen{Method: "other", Route: "", Status: 404})
	watch := x.Exchanges()
	for _, outcome := range []providers.Outcome{"", "made up", "4111111111111111"} {
		_, end := watch(t.Context(), "PSP", "send")
		end(outcome, time.Millisecond)
	}
	mustCompare(t, x.metrics.requests, `
# HELP payments_requests_total Requests that were answered.
# TYPE payments_requests_total counter
payments_requests_total{listener="public",method="other",route="none",status="404"} 1
`)
	if n := testutil.CollectAndCount(x.metrics.exchanges); n != 1 {
		t.Errorf("outcomes that there are not have %d series, not one", n)
	}
}

func TestEveryVerdictIsThereFromTheBeginning(t *testing.T) {
	t.Parallel()
	x := &Telemetry{metrics: newMetrics("v")}
	answered(x.Requests(Public), httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: 201, Line: httpapi.Line{Verdict: string(idem.New)}})
	answered(x.Requests(Public), httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: 201, Line: httpapi.Line{Verdict: string(idem.Replayed)}})
	answered(x.Requests(Public), httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: 201, Line: httpapi.Line{Verdict: string(idem.Replayed)}})
	answered(x.Requests(Public), httpapi.Seen{Method: "GET", Route: "/v1/payments", Status: 200}) // meets no nonce
	mustCompare(t, x.metrics.verdicts, `
# HELP payments_idempotency_total What requests to create a payment met under their nonce.
# TYPE payments_idempotency_total counter
payments_idempotency_total{verdict="in_process"} 0
payments_idempotency_total{verdict="mismatch"} 0
payments_idempotency_total{verdict="new"} 1
payments_idempotency_total{verdict="rejected"} 0
payments_idempotency_total{verdict="replayed"} 2
payments_idempotency_total{verdict="resumed"} 0
`)
}

func TestExchangesAreTimedByWhatTheyCameTo(t *testing.T) {
	t.Parallel()
	x := &Telemetry{metrics: newMetrics("v")}
	watch := x.Exchanges()
	ctx, end := watch(t.Context(), "PSP", "send")
	if ctx != t.Context() {
		t.Error("without traces the context is another one")
	}
	end(providers.Approved, 30*time.Millisecond)
	_, end = watch(t.Context(), "PSP", "inquire")
	end(providers.NotFound, 70*time.Second)
	text := scrape(t, x, fixed{}, fixed{})
	for _, line := range []string{
		`payments_provider_seconds_bucket{kind="send",outcome="approved",provider="PSP",le="0.025"} 0`,
		`payments_provider_seconds_bucket{kind="send",outcome="approved",provider="PSP",le="0.05"} 1`,
		`payments_provider_seconds_bucket{kind="inquire",outcome="not_found",provider="PSP",le="30"} 0`,
		`payments_provider_seconds_sum{kind="inquire",outcome="not_found",provider="PSP"} 70`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("without %s", line)
		}
	}
}

// scrape is what a scraper gets.
func scrape(t *testing.T, x *Telemetry, p Pool, b Backlog) string {
	t.Helper()
	w := httptest.NewRecorder()
	x.Handler(p, b).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text, err := io.ReadAll(w.Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %v", w.Code, err)
	}
	return string(text)
}

func TestPoolAndBacklogAreReadAtEachScrape(t *testing.T) {
	t.Parallel()
	x := &Telemetry{metrics: newMetrics("v1.2.3")}
	f := fixed{
		pool:    postgres.PoolStats{Acquired: 3, Idle: 4, Max: 20, Waits: 5, Waited: 1500 * time.Millisecond},
		backlog: transactions.Backlog{Unresolved: 6, OldestSeconds: 70, Parked: 8},
	}
	text := scrape(t, x, f, f)
	for _, line := range []string{
		"payments_pool_acquired 3", "payments_pool_idle 4", "payments_pool_max 20", "payments_pool_waits_total 5",
		"payments_pool_wait_seconds_total 1.5", "payments_unresolved 6", "payments_unresolved_oldest_seconds 70", "payments_parked 8",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("without %s", line)
		}
	}
	if !regexp.MustCompile(`(?m)^payments_build_info\{go="go1\.\d+[^"]*",version="v1\.2\.3"\} 1$`).MatchString(text) {
		t.Error("it does not say what is running")
	}
}

// A database that is away is when the other metrics are wanted most.
func TestADatabaseThatIsAwayLeavesAGapAndTheOtherMetrics(t *testing.T) {
	t.Parallel()
	x := &Telemetry{metrics: newMetrics("v")}
	text := scrape(t, x, fixed{}, fixed{err: errors.New("the database is away")})
	if strings.Contains(text, "payments_parked") || strings.Contains(text, "payments_unresolved") {
		t.Error("it tells numbers that nobody could count")
	}
	if !strings.Contains(text, "payments_pool_max") || !strings.Contains(text, "payments_idempotency_total") {
		t.Error("the other metrics are gone as well")
	}
}

func TestMetricsAreNamedAsIsUsual(t *testing.T) {
	t.Parallel()
	x := &Telemetry{metrics: newMetrics("v")}
	problems, err := promlint.New(strings.NewReader(scrape(t, x, fixed{}, fixed{}))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// names are all metrics of our own, by what the collectors say of themselves.
func names(t *testing.T) []string {
	t.Helper()
	described := make(chan *prometheus.Desc, 100)
	for _, c := range newMetrics("v").collectors(fixed{}, fixed{}) {
		c.Describe(described)
	}
	close(described)
	fq := regexp.MustCompile(`fqName: "([^"]+)"`)
	var all []string
	for d := range described {
		all = append(all, fq.FindStringSubmatch(d.String())[1])
	}
	slices.Sort(all)
	return all
}

// docs is where the pages are.
const docs = "../../docs"

// TestMetricsAndTheirPageAgree: each metric has its row in observing.md, and no page
// names one that there is not.
func TestMetricsAndTheirPageAgree(t *testing.T) {
	t.Parallel()
	all := names(t)
	page, err := os.ReadFile(filepath.Join(docs, "operate/observing.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if !regexp.MustCompile("(?m)^\\| `" + name + "[`{]").Match(page) {
			t.Errorf("observing.md has no row for %s", name)
		}
	}
	named := regexp.MustCompile(`\bpayments_[a-z_]+`)
	alike := []string{
		"payments_secret", "payments_secret_other", "payments_admin_token", "payments_callback_secret", // systemd's credentials
		"payments_begin_once", // a rule of docs/operate/invariants.md
		"payments_number",     // a member of a payment link
	}
	err = filepath.WalkDir(docs, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, name := range named.FindAllString(string(text), -1) {
			plain := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
			if !slices.Contains(all, name) && !slices.Contains(all, plain) && !slices.Contains(alike, name) {
				t.Errorf("%s names %s, which there is not", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
