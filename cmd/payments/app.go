package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/apidocs"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/checkout"
	"github.com/oncepay/oncepay/internal/console"
	"github.com/oncepay/oncepay/internal/demo"
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

const (
	// directoryEvery is how soon a key made or revoked on one instance is known on
	// all others, while all goes well.
	directoryEvery = time.Second
	// directoryMaxAge is how soon it is in any case, or an instance that cannot find
	// out takes no key at all. It leaves room for one refresh that hangs or two that
	// fail, and a second of the five that are promised for a request that was let in
	// just before.
	directoryMaxAge = 4 * time.Second
	// usesEvery is how often it is written down when keys were used last: one statement,
	// however many requests there were.
	usesEvery = time.Minute
	// arrivalsEvery is how much of the timeline a crash may lose.
	arrivalsEvery = 500 * time.Millisecond
	// expiryEvery is how late an authorization may end, in a life of days. No capture begins
	// after its time in any case.
	expiryEvery = 10 * time.Second
	// reconciliationEvery is how soon it is noticed that a reference is due for a look. Its
	// looks are minutes apart.
	reconciliationEvery = 10 * time.Second
	// witnessEvery is how long the end of the audit log is in no other log.
	witnessEvery = time.Minute
	// requestTimeout is for requests of merchants that move no money: what the slowest
	// statement may take, and a long wait for a connection. Those that do have the lease.
	requestTimeout = 30 * time.Second
	// answerMargin is what a listener allows beyond the longest request.
	answerMargin = 15 * time.Second
)

// appConfig is everything an instance of the API needs.
type appConfig struct {
	databaseURL  string
	pgbouncer    bool // it leads to one in transaction mode
	secret       []byte
	otherSecret  []byte // the last one, or the next, while it is being changed
	adminToken   string
	listen       string
	adminListen  string
	tls          *certificate // of the API's listener; nil: plain HTTP
	adminTLS     *certificate // of the operator's
	times        times
	limits       limits
	drain        time.Duration                 // how long a stop goes on accepting requests
	providers    map[string]providers.Provider // by mode
	publicURL    string                        // where providers call back to; "": nowhere, or
	callBackHere bool                          // the API's own listener
	rawLiveCards bool
	bareKeys     bool          // ietf takes a nonce without quotes
	demo         *demo.Options // of the shop that is shown; nil: none
	log          *slog.Logger
}

// app is one running instance.
type app struct {
	cfg       appConfig
	db        *postgres.DB
	service   *transactions.Service
	policies  idem.Policies
	auth      *merchants.Service
	arrivals  *idem.Arrivals
	books     *transactions.Reconciler
	checkout  *checkout.Service
	operators *operators.Service
	loops     *worker.Group
	probes    *httpapi.Probes
	seen      *telemetry.Telemetry
	minutes   *telemetry.Minutes

	public, operator           *http.Server
	publicAddr, operatorAddr   string
	publicError, operatorError chan error
}

// startApp returns once both listeners accept connections.
func startApp(ctx context.Context, cfg appConfig) (_ *app, err error) {
	a := &app{cfg: cfg, publicError: make(chan error, 1), operatorError: make(chan error, 1)}
	a.seen, err = telemetry.New(ctx, telemetry.Options{Version: version, Log: cfg.log})
	if err != nil {
		return nil, usage("%w", err)
	}
	a.db, err = postgres.Open(ctx, cfg.databaseURL, postgres.Options{Tracer: a.seen.Statements(), PgBouncer: cfg.pgbouncer})
	if errors.Is(err, postgres.ErrSession) {
		return nil, err
	}
	if err != nil {
		return nil, unavailableError("%w", err)
	}
	defer func() {
		if err != nil {
			a.db.Close()
		}
	}()
	if err := a.db.CheckSchema(ctx); err != nil {
		return nil, err
	}
	a.noteIdentity(ctx)
	a.probes = httpapi.NewProbes(a.canWork, cfg.log)
	if err := a.assemble(ctx); err != nil {
		return nil, err
	}
	if err := a.listen(ctx); err != nil {
		return nil, err
	}
	a.startLoops(ctx)
	a.probes.Serve() // the keys were loaded by assemble
	return a, nil
}

// canWork asks the database for a sign of life. While it cannot be asked which keys are
// valid, however alive it is otherwise, everybody is refused: that is as good as away.
func (a *app) canWork(ctx context.Context) error {
	if err := a.db.Ping(ctx); err != nil {
		return err
	}
	if !a.auth.Fresh() {
		return errors.New("the merchants' keys could not be read for too long")
	}
	return nil
}

// noteIdentity writes down which database this is, if nobody has, and warns of another
// one than was noted. It refuses nothing: after a failover to a synchronous standby,
// restarts must go on.
func (a *app) noteIdentity(ctx context.Context) {
	n, err := a.db.NoteIdentity(ctx)
	switch {
	case err != nil:
		a.cfg.log.WarnContext(ctx, "database identity unknown", "error", postgres.Describe(errors.Unwrap(err)))
	case n.Differs():
		a.cfg.log.WarnContext(ctx, "another database than before", "next", "payments doctor",
			"noted_system", n.Was.System, "noted_timeline", n.Was.Timeline, "noted_at", n.At, "system", n.Now.System, "timeline", n.Now.Timeline)
	}
}

// assemble makes the parts and brings them to where requests can be served.
func (a *app) assemble(ctx context.Context) error {
	prints, err := idem.NewFingerprinter(a.cfg.secret, a.cfg.otherSecret)
	if err != nil {
		return err
	}
	if a.policies, err = idem.NewPolicies(idem.Presets(idem.Options{Retention: a.cfg.times.retention, BareKeys: a.cfg.bareKeys})...); err != nil {
		return err
	}
	a.auth = merchants.NewService(a.db, a.policies.Names())
	a.auth.RefuseAfter(directoryMaxAge)
	a.arrivals = idem.NewArrivals(a.db, a.cfg.log)
	a.service, err = transactions.NewService(transactions.Options{
		DB: a.db, Providers: providers.NewRegistry(a.cfg.providers), Arrivals: a.arrivals, Lease: a.cfg.times.lease,
		Policies: a.policies, Fingerprints: prints, RawLiveCards: a.cfg.rawLiveCards, Log: a.cfg.log,
		AuthorizedFor: a.cfg.times.authorizedFor, PendingFor: a.cfg.times.pendingFor, Watch: a.seen.Exchanges(),
	})
	if err != nil {
		return err
	}
	a.books = transactions.NewReconciler(a.service, a.seen.Findings())
	a.checkout = checkout.NewService(checkout.Options{
		DB: a.db, Payments: a.service, Auth: a.auth, Policies: a.policies, Prints: prints, Arrivals: a.arrivals,
	})
	a.operators = operators.NewService(a.db, operators.Options{Secret: a.cfg.secret})
	a.minutes = a.seen.Minutes(a.db)
	if _, err := a.auth.Refresh(ctx); err != nil {
		return err
	}
	_, err = a.service.Beat(ctx)
	return err
}

// mount makes what the two listeners serve. The limits on requests are the public
// one's: an operator who mends something must get in however many merchants call.
func (a *app) mount() (public, operator *echo.Echo) {
	edge := httpapi.Options{
		Log: a.cfg.log, Transient: postgres.IsTransient, Describe: postgres.Describe,
		Probes: a.probes, FailedAuth: httpapi.FailedAuthPerMinute, TrustedProxies: a.cfg.limits.proxies,
	}
	edge.Observe, edge.Timeout = a.seen.Requests(telemetry.Admin), a.cfg.times.lease // a profile takes as long as was asked for
	operator = httpapi.New(edge)
	merchantsAPI := transactions.NewHandler(a.service, a.auth)
	edge.Observe, edge.Timeout = a.seen.Requests(telemetry.Public), requestTimeout
	edge.Style = merchantsAPI.ErrorStyle
	edge.MaxInFlight = a.cfg.limits.inFlight
	public = httpapi.New(edge)

	apidocs.Mount(public)
	apidocs.Mount(operator) // where the doc_url of its errors leads
	merchantsAPI.LimitLookups(httpapi.NewLimiter(a.cfg.limits.lookups))
	merchantsAPI.Mount(public)
	a.mountCheckout(public, merchantsAPI)
	transactions.NewCallbackHandler(a.service).Mount(public)
	admin.Mount(operator, admin.Options{
		Token: a.cfg.adminToken, Operators: a.operators, Metrics: a.seen.Handler(a.db, a.service),
		API: []admin.Mounter{
			merchants.NewOperatorHandler(a.auth), transactions.NewOperatorHandler(a.service),
			transactions.NewReconciliationHandler(a.books), operators.NewOperatorHandler(a.operators),
		},
		Console: console.NewHandler(console.Options{
			Payments: a.service, Merchants: a.auth, Operators: a.operators, Audit: audit.Log{DB: a.db}, Minutes: a.minutes,
			BaseURL: a.baseURL, Version: version,
		}),
	})
	mountProfiles(operator)
	return public, operator
}

// mountCheckout adds what browsers come for.
func (a *app) mountCheckout(public *echo.Echo, payments *transactions.Handler) {
	cors := httpapi.NewCORS(a.auth.KnownOrigin, func() string { return a.cfg.publicURL })
	public.Use(httpapi.RefuseSecretsFromBrowsers(merchants.HeaderSecret), cors.Preflights)
	browsers, base := merchants.NewBrowsers(a.auth, cors), httpapi.BaseURL(a.cfg.publicURL)
	payments.MountCheckout(public, browsers, base)
	checkout.NewHandler(a.checkout, browsers, base).Mount(public)
	checkout.NewPageHandler(a.checkout.FindPage).Mount(public)
	if a.cfg.demo != nil {
		shop := *a.cfg.demo
		shop.API, shop.Integrity = func() string { return a.cfg.tls.url(a.publicAddr) }, checkout.Integrity()
		demo.Mount(public, shop)
	}
}

// listen opens both listeners and serves on them.
func (a *app) listen(ctx context.Context) error {
	publicMux, operatorMux := a.mount()
	longest := a.cfg.times.lease + answerMargin
	a.public = httpapi.Server(publicMux, a.cfg.log, longest)
	a.operator = httpapi.Server(operatorMux, a.cfg.log, longest)
	var lc net.ListenConfig
	public, err := lc.Listen(ctx, "tcp", a.cfg.listen)
	if err != nil {
		return unavailableError("listen on %s: %w; choose another address with --listen", a.cfg.listen, err)
	}
	operator, err := lc.Listen(ctx, "tcp", a.cfg.adminListen)
	if err != nil {
		_ = public.Close() // nothing has been served on it
		return unavailableError("listen on %s: %w; choose another address with --admin-listen", a.cfg.adminListen, err)
	}
	a.publicAddr, a.operatorAddr = public.Addr().String(), operator.Addr().String()
	if err := a.callBack(); err != nil {
		return errors.Join(err, public.Close(), operator.Close())
	}
	go func() { a.publicError <- a.public.Serve(a.cfg.tls.secure(public)) }()
	go func() { a.operatorError <- a.operator.Serve(a.cfg.adminTLS.secure(operator)) }()
	return nil
}

// baseURL is where merchants reach the API, as far as we know.
func (a *app) baseURL() string {
	return cmp.Or(a.cfg.publicURL, a.cfg.tls.url(a.publicAddr))
}

// welcome tells how the first operator gets in, where there is none yet. Without it the
// installation serves all the same, and the next start tells.
func (a *app) welcome(ctx context.Context, out io.Writer) {
	link, needed, err := a.operators.FirstInvitation(ctx)
	if err != nil {
		a.cfg.log.WarnContext(ctx, "no link for the first operator", "error", postgres.Describe(err))
	}
	if err == nil && needed {
		fmt.Fprintf(out, "First operator, within %dh: %s%s\n", int(operators.FirstInvitationLife.Hours()), a.cfg.adminTLS.url(a.operatorAddr), link.Path())
	}
}

// callBack tells the providers that call back where to.
func (a *app) callBack() error {
	base := a.cfg.publicURL
	if base == "" && a.cfg.callBackHere {
		base = a.baseURL()
	}
	if base == "" {
		return nil
	}
	for _, p := range a.cfg.providers {
		if n, ok := p.(interface{ CallBackTo(url string) error }); ok {
			if err := n.CallBackTo(base + transactions.CallbackPath(p.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// startLoops starts what runs beside the requests. The loops outlive ctx: stop
// ends them, after the requests.
func (a *app) startLoops(ctx context.Context) {
	t := a.cfg.times
	a.loops = worker.Start(context.WithoutCancel(ctx), a.cfg.log,
		worker.Loop{Name: "heartbeat", Every: transactions.BeatEvery, RunOnce: a.service.Beat, Describe: postgres.Describe},
		worker.Loop{Name: "directory", Every: directoryEvery, RunOnce: a.refresh, Describe: postgres.Describe},
		worker.Loop{Name: "uses", Every: usesEvery, RunOnce: a.flushUses, Describe: postgres.Describe},
		worker.Loop{Name: "arrivals", Every: arrivalsEvery, RunOnce: a.flush, Describe: postgres.Describe},
		worker.Loop{Name: "recovery", Every: t.recovery, RunOnce: a.service.Recover, Describe: postgres.Describe},
		worker.Loop{Name: "expiry", Every: expiryEvery, RunOnce: a.service.Expire, Describe: postgres.Describe},
		worker.Loop{Name: "reconciliation", Every: reconciliationEvery, RunOnce: a.books.RunOnce, Describe: postgres.Describe},
		worker.Loop{Name: "purge", Every: purgeEvery, RunOnce: idem.Purge{DB: a.db, Retention: a.policies.ShortestRetention()}.RunOnce, Describe: postgres.Describe},
		worker.Loop{Name: "checkout-purge", Every: purgeEvery, RunOnce: a.checkout.Purge, Describe: postgres.Describe},
		worker.Loop{Name: "operators-purge", Every: purgeEvery, RunOnce: a.operators.Purge, Describe: postgres.Describe},
		worker.Loop{Name: "audit-witness", Every: witnessEvery, RunOnce: audit.NewWitness(audit.Log{DB: a.db}, a.cfg.log).RunOnce, Describe: postgres.Describe},
		worker.Loop{Name: "minutes", Every: telemetry.MinutesEvery, RunOnce: a.minutes.RunOnce, Describe: postgres.Describe},
	)
}

// refresh, flushUses and flush finish their work in one run, so the loops need not
// hurry on.
func (a *app) refresh(ctx context.Context) (int, error) {
	_, err := a.auth.Refresh(ctx)
	return 0, err
}

func (a *app) flushUses(ctx context.Context) (int, error) {
	_, err := a.auth.FlushUses(ctx)
	return 0, err
}

func (a *app) flush(ctx context.Context) (int, error) {
	_, err := a.arrivals.Flush(ctx)
	return 0, err
}

// wait returns nil when ctx ends, or why the instance cannot go on.
func (a *app) wait(ctx context.Context, died <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-a.publicError:
		return fmt.Errorf("the API's listener failed: %w", err)
	case err := <-a.operatorError:
		return fmt.Errorf("the operator's listener failed: %w", err)
	case <-died:
		return errors.New("the private PostgreSQL ended by itself; its log is in the data directory")
	}
}

// stop ends the instance in the order in which nobody loses a request: it is unready
// first, and goes on accepting for the drain delay, so that whoever sends it requests
// can stop; then it lets requests in flight finish, then the loops, and closes the
// database. It takes at most the drain delay, the shutdown time-out and a few seconds.
// What it cannot finish, the next process resumes.
func (a *app) stop(ctx context.Context) error {
	a.probes.Stop()
	if ctx.Err() != nil { // it was told to; one that failed has nothing to wait for
		a.cfg.log.InfoContext(ctx, "stopping", "drain_delay_ms", a.cfg.drain.Milliseconds())
		<-time.After(a.cfg.drain)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.times.shutdown)
	defer cancel()
	var (
		wg   sync.WaitGroup
		errs [2]error
	)
	for i, s := range []*http.Server{a.public, a.operator} {
		wg.Go(func() {
			if err := s.Shutdown(ctx); err != nil {
				errs[i] = errors.Join(fmt.Errorf("requests were still in flight after %s", a.cfg.times.shutdown), s.Close())
			}
		})
	}
	wg.Wait()
	a.loops.Stop()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerMargin)
	defer cancel()
	_, err := a.arrivals.Flush(last)
	_, usesErr := a.auth.FlushUses(last)
	_, minutesErr := a.minutes.RunOnce(last)
	err = errors.Join(err, usesErr, minutesErr, a.service.Goodbye(last))
	a.db.Close()
	a.seen.Stop(last)
	return errors.Join(errs[0], errs[1], err)
}
