package main

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/oncepay/oncepay/internal/transactions"
)

// scrapeTimeout bounds the one query that a scrape costs.
const scrapeTimeout = 5 * time.Second

// newMetrics serves what an operator must be alerted on.
func newMetrics(s *transactions.Service) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), backlog{s})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// backlog asks the database at each scrape, so every instance tells the same.
type backlog struct{ service *transactions.Service }

var (
	descUnresolved = prometheus.NewDesc("payments_unresolved", "Transactions whose outcome is not known, work in progress included.", nil, nil)
	descOldest     = prometheus.NewDesc("payments_unresolved_oldest_seconds", "Age of the oldest of them.", nil, nil)
	descParked     = prometheus.NewDesc("payments_parked", "Transactions that wait for a person's decision.", nil, nil)
)

// Describe tells which metrics there are.
func (backlog) Describe(ch chan<- *prometheus.Desc) {
	ch <- descUnresolved
	ch <- descOldest
	ch <- descParked
}

// Collect counts. While the database is away the metrics are marked invalid, which
// a scraper shows as a gap.
func (b backlog) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	now, err := b.service.Backlog(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descUnresolved, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(descUnresolved, prometheus.GaugeValue, float64(now.Unresolved))
	ch <- prometheus.MustNewConstMetric(descOldest, prometheus.GaugeValue, float64(now.OldestSeconds))
	ch <- prometheus.MustNewConstMetric(descParked, prometheus.GaugeValue, float64(now.Parked))
}
