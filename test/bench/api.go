package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/checkout"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/operators"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/telemetry"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/internal/worker"
)

// What `payments serve` has by default; a test compares it.
const (
	providerTimeout     = 25 * time.Second
	leaseOverTimeout    = 20 * time.Second
	lease               = providerTimeout + leaseOverTimeout
	settle              = time.Minute
	retention           = 24 * time.Hour
	requestTimeout      = 30 * time.Second
	answerMargin        = 15 * time.Second
	maxInFlight         = 1024
	directoryEvery      = time.Second
	directoryMaxAge     = 4 * time.Second
	usesEvery           = time.Minute
	arrivalsEvery       = 500 * time.Millisecond
	recoveryEvery       = 2 * time.Second
	expiryEvery         = 10 * time.Second
	reconciliationEvery = 10 * time.Second
	purgeEvery          = time.Minute
)

// Where the generator tells the API's process what it needs.
const (
	envURL    = "BENCH_DATABASE_URL"
	envSecret = "BENCH_SECRET"
)

// api is a running instance: the product's rooms, loops, limits, metrics and log
// lines, without the operator's listener.
type api struct {
	db       *postgres.DB
	policies idem.Policies
	auth     *merchants.Service
	service  *transactions.Service
	arrivals *idem.Arrivals
	seen     *telemetry.Telemetry
	loops    *worker.Group
	server   *http.Server
	addr     string
	failed   chan error
}

// startAPI returns once it accepts connections. tracer may be nil, as in the product
// where nobody asked for traces.
func startAPI(ctx context.Context, url string, secret []byte, tracer pgx.QueryTracer, log *slog.Logger) (_ *api, err error) {
	a := &api{failed: make(chan error, 1)}
	if a.seen, err = telemetry.New(ctx, telemetry.Options{Version: "bench", Log: log}); err != nil {
		return nil, err
	}
	if a.db, err = postgres.Open(ctx, url, postgres.Options{Tracer: tracer}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.db.Close()
		}
	}()
	if err := a.db.CheckSchema(ctx); err != nil {
		return nil, err
	}
	if err := a.assemble(ctx, secret, log); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a.addr = l.Addr().String()
	a.mount(log)
	go func() { a.failed <- a.server.Serve(l) }()
	a.startLoops(ctx, log)
	return a, nil
}

func (a *api) assemble(ctx context.Context, secret []byte, log *slog.Logger) error {
	prints, err := idem.NewFingerprinter(secret, nil)
	if err != nil {
		return err
	}
	if a.policies, err = idem.NewPolicies(idem.Presets(idem.Options{Retention: retention})...); err != nil {
		return err
	}
	a.auth = merchants.NewService(a.db, a.policies.Names())
	a.auth.RefuseAfter(directoryMaxAge)
	a.arrivals = idem.NewArrivals(a.db, log)
	a.service, err = transactions.NewService(transactions.Options{
		DB: a.db, Providers: providers.NewRegistry(map[string]providers.Provider{merchants.Test: newInstant()}), Arrivals: a.arrivals, Lease: lease,
		Policies: a.policies, Fingerprints: prints, Log: log, Watch: a.seen.Exchanges(),
	})
	if err != nil {
		return err
	}
	if _, err := a.auth.Refresh(ctx); err != nil {
		return err
	}
	_, err = a.service.Beat(ctx)
	return err
}

func (a *api) mount(log *slog.Logger) {
	probes := httpapi.NewProbes(a.db.Ping, log)
	public := httpapi.New(httpapi.Options{
		Log: log, Transient: postgres.IsTransient, Describe: postgres.Describe, Probes: probes, FailedAuth: httpapi.FailedAuthPerMinute,
		Observe: a.seen.Requests(telemetry.Public), Timeout: requestTimeout, MaxInFlight: maxInFlight,
	})
	transactions.NewHandler(a.service, a.auth).Mount(public)
	probes.Serve()
	a.server = httpapi.Server(public, log, lease+answerMargin)
}

func (a *api) startLoops(ctx context.Context, log *slog.Logger) {
	quiet := func(f func(context.Context) (int, error)) func(context.Context) (int, error) {
		return func(ctx context.Context) (int, error) {
			_, err := f(ctx)
			return 0, err
		}
	}
	a.loops = worker.Start(context.WithoutCancel(ctx), log,
		worker.Loop{Name: "heartbeat", Every: transactions.BeatEvery, RunOnce: a.service.Beat, Describe: postgres.Describe},
		worker.Loop{Name: "directory", Every: directoryEvery, RunOnce: quiet(a.auth.Refresh), Describe: postgres.Describe},
		worker.Loop{Name: "uses", Every: usesEvery, RunOnce: quiet(a.auth.FlushUses), Describe: postgres.Describe},
		worker.Loop{Name: "arrivals", Every: arrivalsEvery, RunOnce: quiet(a.arrivals.Flush), Describe: postgres.Describe},
		worker.Loop{Name: "recovery", Every: recoveryEvery, RunOnce: a.service.Recover, Describe: postgres.Describe},
		worker.Loop{Name: "expiry", Every: expiryEvery, RunOnce: a.service.Expire, Describe: postgres.Describe},
		worker.Loop{Name: "reconciliation", Every: reconciliationEvery, RunOnce: transactions.NewReconciler(a.service, a.seen.Findings()).RunOnce, Describe: postgres.Describe},
		worker.Loop{Name: "purge", Every: purgeEvery, RunOnce: idem.Purge{DB: a.db, Retention: a.policies.ShortestRetention()}.RunOnce, Describe: postgres.Describe},
		worker.Loop{Name: "checkout-purge", Every: purgeEvery, RunOnce: checkout.NewService(checkout.Options{DB: a.db}).Purge, Describe: postgres.Describe},
		worker.Loop{Name: "operators-purge", Every: purgeEvery, RunOnce: operators.NewService(a.db, operators.Options{}).Purge, Describe: postgres.Describe},
		worker.Loop{Name: "audit-witness", Every: time.Minute, RunOnce: audit.NewWitness(audit.Log{DB: a.db}, log).RunOnce, Describe: postgres.Describe},
		worker.Loop{Name: "minutes", Every: telemetry.MinutesEvery, RunOnce: a.seen.Minutes(a.db).RunOnce, Describe: postgres.Describe},
	)
}

func (a *api) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepLimit)
	defer cancel()
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.server.Close())
	}
	a.loops.Stop()
	_, flushed := a.arrivals.Flush(ctx)
	err = errors.Join(err, flushed, a.service.Goodbye(ctx))
	a.db.Close()
	a.seen.Stop(ctx)
	return err
}

// apiCmd is the process that is measured.
type apiCmd struct{}

// run prints the API's address and its profiles', and serves until the generator
// closes in, or is gone.
func (apiCmd) run(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Log lines are written as in production, though to nowhere.
	sink, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer sink.Close()
	log := slog.New(slog.NewJSONHandler(sink, nil))
	a, err := startAPI(ctx, os.Getenv(envURL), []byte(os.Getenv(envSecret)), nil, log)
	if err != nil {
		return err
	}
	profiles, err := serveProfiles(ctx)
	if err != nil {
		return errors.Join(err, a.stop(ctx))
	}
	defer func() { _ = profiles.Close() }() // nobody asks any more
	fmt.Fprintln(out, a.addr, profiles.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, in) // its end is the message
		cancel()
	}()
	select {
	case <-ctx.Done():
	case err = <-a.failed:
	}
	return errors.Join(err, a.stop(ctx))
}

// serveProfiles is what the product has on the operator's listener.
func serveProfiles(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.Handle("GET /debug/pprof/allocs", pprof.Handler("allocs"))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: stepLimit}
	go func() { _ = server.Serve(l) }() // until the listener is closed
	return l, nil
}
