package conformance

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncepay/oncepay/test/harness"
)

// fleet is an installation whose instances come and go behind a balancer, while
// merchants pay.
type fleet struct {
	t            *testing.T
	installation harness.Installation
	balancer     *balancer
	load         *load
	keys         harness.Keys // the merchants': made with the first instance
}

// newFleet has no instance yet. The balancer watches until the context or the test ends.
func newFleet(ctx context.Context, t *testing.T, installation harness.Installation) *fleet {
	t.Helper()
	b := &balancer{}
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { b.watch(watching) })
	t.Cleanup(func() {
		stop()
		watcher.Wait()
	})
	return &fleet{t: t, installation: installation, balancer: b, load: &load{balancer: b}}
}

// underTest is this release's binary.
const underTest = ""

// admit starts an instance of a release, and returns once the balancer knows it.
func (f *fleet) admit(binary string) *backend {
	f.t.Helper()
	c := f.installation.ServeCommand("--drain-delay", fleetDrain.String())
	c.Binary = binary
	api := f.installation.ServeAs(f.t, c)
	if f.keys == (harness.Keys{}) {
		f.keys = merchant(f.t, api)
	}
	be := f.balancer.add(api, f.keys)
	harness.Eventually(f.t, harness.Patience, "the balancer knows the new instance", func() bool { return f.balancer.isReady(be) })
	return be
}

// awaitEnd waits for an instance that was told to end.
func (f *fleet) awaitEnd(be *backend) {
	f.t.Helper()
	if code := be.api.Wait(); code != 0 {
		f.t.Errorf("an instance ended with %d", code)
	}
	f.balancer.drop(be)
}

// pay lets merchants pay until end is called, which returns when the last of them has
// been answered.
func (f *fleet) pay(ctx context.Context, merchants int) (end func()) {
	enough := make(chan struct{})
	var paying sync.WaitGroup
	for range merchants {
		paying.Go(func() { f.load.merchant(ctx, enough) })
	}
	end = sync.OnceFunc(func() {
		close(enough)
		paying.Wait()
	})
	f.t.Cleanup(end) // of a test that fails before
	return end
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

const (
	// askEvery is how often a backend is asked.
	askEvery = 20 * time.Millisecond
	// fleetDrain is the instances' drain delay: many times that, as it should be
	// anywhere.
	fleetDrain = 600 * time.Millisecond
)

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
