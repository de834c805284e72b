package telemetry

import (
	"cmp"
	"context"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/transactions"
)

// scrapeTimeout bounds the one query that a scrape costs.
const scrapeTimeout = 5 * time.Second

// noRoute is the route of a request that met none: a path that a client made up is
// no label.
const noRoute = "none"

var (
	// requestBuckets reach from a replay to the longest lease, in seconds.
	requestBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	// providerBuckets reach up to the usual time-out of a provider, in seconds.
	providerBuckets = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 20, 25, 30}
)

// metrics are what this instance counts itself. An operator adds the instances up.
type metrics struct {
	build     *prometheus.GaugeVec
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	verdicts  *prometheus.CounterVec
	exchanges *prometheus.HistogramVec
	findings  *prometheus.CounterVec
	tally     tally // the same once more, for the figures by minute
}

func newMetrics(version string) *metrics {
	m := &metrics{
		build: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_build_info", Help: "Always 1; the labels say what is running.",
		}, []string{"version", "go"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_requests_total", Help: "Requests that were answered.",
		}, []string{"listener", "route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "payments_request_seconds", Help: "How long requests took, from the header to the end of the answer.", Buckets: requestBuckets,
		}, []string{"listener", "route"}),
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_idempotency_total", Help: "What requests to create a payment met under their nonce.",
		}, []string{"verdict"}),
		exchanges: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "payments_provider_seconds", Help: "How long exchanges with a provider took, by what they came to.", Buckets: providerBuckets,
		}, []string{"provider", "kind", "outcome"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_reconciliation_total", Help: "What comparisons with the providers' books came to, and what was done about it.",
		}, []string{"finding", "action"}),
	}
	m.build.WithLabelValues(version, runtime.Version()).Set(1)
	// A series that begins with its first event hides it from rate(): begin at zero.
	for _, v := range []idem.Verdict{idem.New, idem.Replayed, idem.InProcess, idem.Mismatch, idem.Resumed, idem.Rejected} {
		m.verdicts.WithLabelValues(string(v))
	}
	for _, f := range transactions.Findings {
		m.findings.WithLabelValues(string(f), string(transactions.NotReversed))
	}
	for _, r := range transactions.Reversals {
		m.findings.WithLabelValues(string(transactions.FoundMissingHere), string(r))
	}
	return m
}

func (m *metrics) request(l Listener, s httpapi.Seen) {
	route := cmp.Or(s.Route, noRoute)
	m.requests.WithLabelValues(string(l), route, s.Method, strconv.Itoa(s.Status)).Inc()
	m.seconds.WithLabelValues(string(l), route).Observe(s.Duration.Seconds())
	if s.Line.Verdict != "" {
		m.verdicts.WithLabelValues(s.Line.Verdict).Inc()
	}
	if l == Public {
		m.tally.request(s)
	}
}

func (m *metrics) exchange(provider, kind string, o providers.Outcome, took time.Duration) {
	m.exchanges.WithLabelValues(provider, kind, string(o)).Observe(took.Seconds())
}

func (m *metrics) finding(f transactions.Finding, r transactions.Reversal) {
	m.findings.WithLabelValues(string(f), string(r)).Inc()
}

// Pool is the database's pool.
type Pool interface{ PoolStats() postgres.PoolStats }

// Backlog is what is not settled yet.
type Backlog interface {
	Backlog(ctx context.Context) (transactions.Backlog, error)
}

// Handler serves the metrics: what was counted, and what it reads at each scrape
// from the pool and the database.
func (t *Telemetry) Handler(p Pool, b Backlog) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(t.metrics.collectors(p, b)...)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// collectors are all metrics of our own.
func (m *metrics) collectors(p Pool, b Backlog) []prometheus.Collector {
	return []prometheus.Collector{m.build, m.requests, m.seconds, m.verdicts, m.exchanges, m.findings, pool{p}, backlog{b}}
}

// pool reads the pool at each scrape.
type pool struct{ of Pool }

var (
	descAcquired = prometheus.NewDesc("payments_pool_acquired", "Database connections in use.", nil, nil)
	descIdle     = prometheus.NewDesc("payments_pool_idle", "Database connections at rest.", nil, nil)
	descMax      = prometheus.NewDesc("payments_pool_max", "Database connections that there may be.", nil, nil)
	descWaits    = prometheus.NewDesc("payments_pool_waits_total", "How often no connection was at rest, so that one was waited for or opened.", nil, nil)
	descWaited   = prometheus.NewDesc("payments_pool_wait_seconds_total", "How long that took, all together.", nil, nil)
)

// Describe tells which metrics there are.
func (pool) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAcquired, descIdle, descMax, descWaits, descWaited} {
		ch <- d
	}
}

// Collect reads the pool's own counters; it takes no connection.
func (p pool) Collect(ch chan<- prometheus.Metric) {
	s := p.of.PoolStats()
	ch <- prometheus.MustNewConstMetric(descAcquired, prometheus.GaugeValue, float64(s.Acquired))
	ch <- prometheus.MustNewConstMetric(descIdle, prometheus.GaugeValue, float64(s.Idle))
	ch <- prometheus.MustNewConstMetric(descMax, prometheus.GaugeValue, float64(s.Max))
	ch <- prometheus.MustNewConstMetric(descWaits, prometheus.CounterValue, float64(s.Waits))
	ch <- prometheus.MustNewConstMetric(descWaited, prometheus.CounterValue, s.Waited.Seconds())
}

// backlog asks the database at each scrape, so every instance tells the same.
type backlog struct{ of Backlog }

var (
	descUnresolved = prometheus.NewDesc("payments_unresolved", "Transactions whose outcome is not known, work in progress included, accepted and parked ones not.", nil, nil)
	descOldest     = prometheus.NewDesc("payments_unresolved_oldest_seconds", "Age of the oldest of them.", nil, nil)
	descParked     = prometheus.NewDesc("payments_parked", "Transactions that wait for a person's decision.", nil, nil)
)

// Describe tells which metrics there are.
func (backlog) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descUnresolved, descOldest, descParked} {
		ch <- d
	}
}

// Collect counts. While the database is away the metrics are marked invalid, which
// a scraper shows as a gap.
func (b backlog) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	now, err := b.of.Backlog(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descUnresolved, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(descUnresolved, prometheus.GaugeValue, float64(now.Unresolved))
	ch <- prometheus.MustNewConstMetric(descOldest, prometheus.GaugeValue, float64(now.OldestSeconds))
	ch <- prometheus.MustNewConstMetric(descParked, prometheus.GaugeValue, float64(now.Parked))
}
