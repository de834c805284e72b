package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/test/harness"
)

// probe asks one listener of an instance. The probes take no credentials, and these
// have none that anybody knows.
func probe(ctx context.Context, url, path string) harness.Answer {
	return harness.NewClient(url, harness.Keys{}).Get(ctx, path)
}

// unready says whether both listeners say so, for this reason.
func unready(ctx context.Context, api *harness.API, reason string) bool {
	for _, url := range []string{api.URL, api.Operator.URL} {
		a := probe(ctx, url, "/readyz")
		if a.Err != nil || a.Status != http.StatusServiceUnavailable || !bytes.Contains(a.Body, []byte(`"reason":"`+reason+`"`)) {
			return false
		}
	}
	return true
}

func mustLive(t *testing.T, api *harness.API) {
	t.Helper()
	for _, url := range []string{api.URL, api.Operator.URL} {
		mustBe(t, probe(within(t, harness.Patience), url, "/livez"), http.StatusOK)
	}
}

func TestReadinessGoesAndComesWithTheDatabase(t *testing.T) {
	t.Parallel()
	proxy := pgproxy.New(t, pgtest.URL(t))
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, proxy.URL(), sandbox.URL)
	ctx := within(t, harness.Patience)
	ready := func() bool {
		return probe(ctx, api.URL, "/readyz").Status == http.StatusOK && probe(ctx, api.Operator.URL, "/readyz").Status == http.StatusOK
	}
	if !ready() {
		t.Error("not ready from the start")
	}
	proxy.Down()
	harness.Eventually(t, harness.Patience, "both listeners say that the database is away", func() bool { return unready(ctx, api, "database") })
	mustLive(t, api)
	proxy.Up()
	harness.Eventually(t, harness.Patience, "both listeners are ready again", ready)
	// Which keys were revoked meanwhile it may have to ask first, and says 503 until then.
	if a, err := client.PayUntilAnswered(ctx, harness.NewPayment("paid after the database was away")); err != nil || a.Status != http.StatusCreated {
		t.Errorf("%s (%v)", a, err)
	}
}

// While it drains, a stopping instance says that it is not ready, works on whatever
// still comes, and keeps no connection; then it ends.
func TestAStopIsUnreadyFirstAndRefusesLast(t *testing.T) {
	t.Parallel()
	const drain = 2 * time.Second
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, pgtest.URL(t), sandbox.URL, "--drain-delay", drain.String())
	ctx := within(t, harness.Patience)
	before := harness.NewPayment("paid before the stop")
	if a := pay(t, client, before); a.Closes {
		t.Error("a connection is not kept before the stop")
	}
	told := time.Now()
	api.Signal(syscall.SIGTERM)
	harness.Eventually(t, harness.Patience, "both listeners say that it is stopping", func() bool { return unready(ctx, api, "stopping") })
	mustLive(t, api)
	during := harness.NewPayment("paid during the stop") // on the connection of the payment before
	if a := pay(t, client, during); !a.Closes {
		t.Error("a connection is kept during the stop")
	}
	if code := api.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(told); took < drain {
		t.Errorf("it ended after %s, before its drain delay was over", took)
	}
	if a := probe(ctx, api.URL, "/livez"); !refused(a.Err) {
		t.Errorf("afterwards: %s", a)
	}
	sandbox.Ledger().MustHave(t, before, 1)
	sandbox.Ledger().MustHave(t, during, 1)
}

func TestASecondSignalEndsTheProcessAtOnceWithACodeOfItsOwn(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, _ := instance(t, pgtest.URL(t), sandbox.URL, "--drain-delay", "10m")
	ctx := within(t, harness.Patience)
	api.Signal(syscall.SIGTERM)
	harness.Eventually(t, harness.Patience, "it is stopping", func() bool { return unready(ctx, api, "stopping") })
	api.Signal(syscall.SIGTERM)
	if code := api.Wait(); code != 5 {
		t.Errorf("exit code %d, not 5", code)
	}
}

func TestOneRequestTooManyIsToldToComeBack(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, pgtest.URL(t), sandbox.URL, "--max-in-flight", "1", "--provider-timeout", "30s")
	ctx := within(t, harness.Patience)
	slow, other := harness.NewPayment("sandbox:slow=3s"), harness.NewPayment("sent while the one place is taken")
	answered := make(chan harness.Answer, 1)
	go func() {
		a, _ := client.PayUntilAnswered(ctx, slow) // the probing below may have the place at first
		answered <- a
	}()
	var full harness.Answer
	harness.Eventually(t, harness.Patience, "the one place is taken", func() bool {
		full = client.As(harness.Keys{}).Get(ctx, "/v1/payments?merchant_order_id=x") // nobody's credentials: 401 while there is room
		return full.Status == http.StatusServiceUnavailable
	})
	if full.Code() != "SERVICE_UNAVAILABLE" || full.Header.Get("Retry-After") != "1" {
		t.Errorf("%s, Retry-After %q", full, full.Header.Get("Retry-After"))
	}
	mustLive(t, api)
	mustBe(t, probe(ctx, api.URL, "/readyz"), http.StatusOK)
	if a, err := client.PayUntilAnswered(ctx, other); err != nil || a.Status != http.StatusCreated {
		t.Errorf("%s (%v)", a, err)
	}
	mustBe(t, <-answered, http.StatusCreated)
	sandbox.Ledger().MustHave(t, slow, 1)
	sandbox.Ledger().MustHave(t, other, 1)
}

// refused says whether nothing was sent, for there was no connection to send it on.
func refused(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// balancer sends requests to whoever says that they are ready, in turn, as a simple
// one does: it asks now and then, and believes the last answer.
type balancer struct {
	mu    sync.Mutex
	all   []*backend
	turns int
}

type backend struct {
	*harness.Client
	api   *harness.API
	ready bool
}

// askEvery is how often a backend is asked. The drain delay of the test is many
// times that, as it should be anywhere.
const askEvery = 20 * time.Millisecond

// add lets the balancer look after another backend.
func (b *balancer) add(api *harness.API, keys harness.Keys) *backend {
	be := &backend{Client: harness.NewClient(api.URL, keys), api: api}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, be)
	return be
}

// watch asks every backend until the context ends.
func (b *balancer) watch(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		b.mu.Lock()
		all := append([]*backend(nil), b.all...)
		b.mu.Unlock()
		for _, be := range all {
			a := be.Get(ctx, "/readyz")
			b.mu.Lock()
			be.ready = a.Err == nil && a.Status == http.StatusOK
			b.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *balancer) isReady(be *backend) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return be.ready
}

// drop forgets a backend that has ended.
func (b *balancer) drop(gone *backend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var rest []*backend
	for _, be := range b.all {
		if be != gone {
			rest = append(rest, be)
		}
	}
	b.all = rest
}

// pick is the next one that is ready; nil if there is none.
func (b *balancer) pick() *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.all {
		b.turns++
		if be := b.all[b.turns%len(b.all)]; be.ready {
			return be
		}
	}
	return nil
}

// load is what merchants did while the instances came and went.
type load struct {
	balancer *balancer

	mu      sync.Mutex
	paid    []harness.Payment
	wrong   []string
	refused atomic.Int64
	crossed atomic.Int64 // answered by an instance that was not ready any more
}

func (l *load) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// merchant pays one order after another, each request once, until told to stop. What
// could not be connected to has not been accepted, and goes to the next instance;
// whatever else is not 201 is a request that was lost.
func (l *load) merchant(ctx context.Context, enough <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-enough:
			return
		default:
		}
		p := harness.NewPayment("paid while instances come and go")
		if n%2 == 0 {
			p.Description = "sandbox:slow=150ms" // so that most stops find some in flight
		}
		l.pay(ctx, p)
	}
}

func (l *load) pay(ctx context.Context, p harness.Payment) {
	for ctx.Err() == nil {
		be := l.balancer.pick()
		if be == nil {
			l.fail("no instance was ready")
			return
		}
		a := be.Pay(ctx, p)
		if refused(a.Err) {
			l.refused.Add(1)
			continue
		}
		if a.Err != nil || a.Status != http.StatusCreated {
			l.fail("%s: %s", be.api.URL, a)
			return
		}
		if !l.balancer.isReady(be) {
			l.crossed.Add(1)
		}
		l.mu.Lock()
		l.paid = append(l.paid, p)
		l.mu.Unlock()
		return
	}
	l.fail("it took too long: %v", ctx.Err())
}

// mustHaveLostNothing looks back when everybody has ended: each request was answered
// with 201, and each order charged once.
func (l *load) mustHaveLostNothing(t *testing.T, ledger harness.Ledger) {
	t.Helper()
	for _, w := range l.wrong {
		t.Error(w)
	}
	entries := map[string]int{}
	for _, e := range ledger.All(t) {
		entries[e.MerchantOrderID]++
	}
	for _, p := range l.paid {
		if n := entries[p.OrderID]; n != 1 {
			t.Errorf("order %s was charged %d times", p.OrderID, n)
		}
	}
	if len(entries) != len(l.paid) {
		t.Errorf("%d orders were charged, %d were answered", len(entries), len(l.paid))
	}
}

// count is how many orders are paid by now.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.paid)
}

// Two instances behind a balancer are replaced fifty times, in turn, while merchants
// pay through it. No request that an instance accepted is lost, and each order is
// charged once.
//
// Not in parallel with other tests: it is about requests that come at every moment of
// a stop, and the drain delay must be long for the balancer, not for the test.
func TestFiftyRollingRestartsLoseNoRequest(t *testing.T) {
	const (
		restarts  = 50
		merchants = 8
		drain     = 600 * time.Millisecond
	)
	ctx := within(t, 4*harness.Patience)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	start := func() *harness.API { return installation.Serve(t, "--drain-delay", drain.String()) }
	first := start()
	keys := merchant(t, first)

	b := &balancer{}
	watching, stopWatching := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer stopWatching()
	watcher.Go(func() { b.watch(watching) })
	admit := func(api *harness.API) *backend {
		be := b.add(api, keys)
		harness.Eventually(t, harness.Patience, "the balancer knows the new instance", func() bool { return b.isReady(be) })
		return be
	}
	slots := [2]*backend{admit(first), admit(start())}

	l := &load{balancer: b}
	enough := make(chan struct{})
	var paying sync.WaitGroup
	for range merchants {
		paying.Go(func() { l.merchant(ctx, enough) })
	}
	begun := time.Now()
	var leaving *backend // the one before last: it drains while the next one starts
	end := func() {
		if leaving == nil {
			return
		}
		if code := leaving.api.Wait(); code != 0 {
			t.Errorf("an instance ended with %d", code)
		}
		b.drop(leaving)
	}
	for i := range restarts {
		fresh := admit(start())
		end()
		leaving = slots[i%2]
		slots[i%2] = fresh
		leaving.api.Signal(syscall.SIGTERM)
	}
	end()
	took := time.Since(begun)
	close(enough)
	paying.Wait()

	l.mustHaveLostNothing(t, sandbox.Ledger())
	if len(l.paid) < restarts*merchants || l.crossed.Load() == 0 {
		t.Errorf("too little happened: %d payments, %d of them across a stop", len(l.paid), l.crossed.Load())
	}
	t.Logf("%d restarts in %s: %d payments, %d of them answered by an instance that was stopping, %d sent elsewhere because the connection was refused",
		restarts, took.Round(time.Millisecond), len(l.paid), l.crossed.Load(), l.refused.Load())
}
