// Package telemetry is what an operator's tools see of a running instance: metrics
// for Prometheus and traces for OpenTelemetry.
//
// The rooms below know neither. They offer places to listen (httpapi.Observer,
// transactions.Watcher, pgx.QueryTracer), and this room listens. What it passes on
// comes from closed sets, such as routes, outcomes and the names of statements,
// or is an id of our own making: nothing of a body, no nonce, no card and no secret
// ever reaches it.
package telemetry

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/transactions"
)

// Options are what New needs.
type Options struct {
	Version string
	Log     *slog.Logger
}

// Telemetry is one instance's metrics and, if they are switched on, its traces.
type Telemetry struct {
	metrics *metrics
	traces  *traces // nil: off
}

// New reads the OTEL_ variables. It fails if traces are wanted and cannot be had,
// never because nobody is there yet to take them.
func New(ctx context.Context, o Options) (*Telemetry, error) {
	t, err := newTraces(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Telemetry{metrics: newMetrics(o.Version), traces: t}, nil
}

// Listener is which of the two listeners a request came to.
type Listener string

// The two listeners.
const (
	Public Listener = "public"
	Admin  Listener = "admin"
)

// Requests observes the requests of one listener.
func (t *Telemetry) Requests(l Listener) httpapi.Observer {
	return func(r *http.Request) (context.Context, func(httpapi.Seen)) {
		ctx, end := t.traces.request(r, l)
		return ctx, func(s httpapi.Seen) {
			t.metrics.request(l, s)
			end(s)
		}
	}
}

// Exchanges watches the exchanges with providers.
func (t *Telemetry) Exchanges() transactions.Watcher {
	return func(ctx context.Context, provider, kind string) (context.Context, func(providers.Outcome, time.Duration)) {
		ctx, end := t.traces.exchange(ctx, provider, kind)
		return ctx, func(o providers.Outcome, took time.Duration) {
			o = knownOutcome(o)
			t.metrics.exchange(provider, kind, o, took)
			end(o)
		}
	}
}

// Findings counts what comparisons with the providers' books come to.
func (t *Telemetry) Findings() func(transactions.Finding, transactions.Reversal) {
	return t.metrics.finding
}

// Statements sees the database's statements, or is nil where nobody would look.
func (t *Telemetry) Statements() pgx.QueryTracer {
	if t.traces == nil {
		return nil
	}
	return statements{t.traces.tracer}
}

// Stop hands over what has not left yet, for a few seconds at most.
func (t *Telemetry) Stop(ctx context.Context) { t.traces.stop(ctx) }

// other stands for what is not in a closed set, so that a label has a bounded
// number of values whatever a client or an adapter makes up.
const other = "other"

// knownOutcome is an outcome as a label.
func knownOutcome(o providers.Outcome) providers.Outcome {
	switch o {
	case providers.Approved, providers.Declined, providers.Pending, providers.Refused, providers.NotReached, providers.Unclear,
		providers.NotFound, providers.Voided:
		return o
	default:
		return other
	}
}
