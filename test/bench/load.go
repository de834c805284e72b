package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"
)

// figures are what one load, or the floor, came to in one round.
type figures struct {
	done     int // requests, or pgbench's transactions
	created  int // payments made
	sessions int // pgbench's
	took     time.Duration
	p50      time.Duration
	p99      time.Duration
	wal      int64 // bytes
	cpu      cpu
}

// perSecond is 0 of what did not run.
func (f figures) perSecond() float64 {
	if f.took <= 0 {
		return 0
	}
	return float64(f.done) / f.took.Seconds()
}

// loads is what the generator sends to one API.
type loads struct {
	addr     string
	merchant merchant
	known    []order // answered ones, for the replays
}

// knownOrders is how many different nonces the replays ask for: enough that they are
// not one row.
const knownOrders = 1000

// makeKnown makes them.
func (l *loads) makeKnown(ctx context.Context) ([]order, error) {
	const clients = 20
	orders := make([]order, knownOrders)
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c, err := dial(ctx, l.addr)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.close()
			for n := i; n < len(orders) && errs[i] == nil; n += clients {
				orders[n] = l.merchant.newOrder("bench")
				errs[i] = errors.Join(c.pay(orders[n]), ctx.Err())
			}
		})
	}
	wg.Wait()
	return orders, errors.Join(errs...)
}

// kind is one load: the n-th request of a connection, and whether its answer is right.
type kind struct {
	next func(n int) order
	fits func(n int, a answer) bool
}

func (l *loads) creates() kind {
	return kind{
		next: func(int) order { return l.merchant.newOrder("bench") },
		fits: func(_ int, a answer) bool { return a.created() },
	}
}

func (l *loads) replays() kind {
	return kind{
		next: func(n int) order { return l.known[n*7919%len(l.known)] }, // a prime, so that neighbours are not neighbours
		fits: func(_ int, a answer) bool { return a.status == http.StatusCreated && a.replayed },
	}
}

// storm asks for a nonce that is in process.
func (l *loads) storm(held order) kind {
	return kind{
		next: func(int) order { return held },
		fits: func(_ int, a answer) bool { return a.status == http.StatusConflict },
	}
}

// mixed is, of ten requests, seven creates, two replays and a duplicate of one that is
// in process.
func (l *loads) mixed(held order) kind {
	parts := [10]kind{}
	for i := range parts {
		parts[i] = l.creates()
	}
	parts[3], parts[8], parts[5] = l.replays(), l.replays(), l.storm(held)
	return kind{
		next: func(n int) order { return parts[n%10].next(n) },
		fits: func(n int, a answer) bool { return parts[n%10].fits(n, a) },
	}
}

// connection is one connection's share of a load.
type connection struct {
	latencies []time.Duration
	created   int
	err       error
}

// run keeps each of the connections busy for that long. A request that is under way
// at the end is waited for, and counts; so does its time.
func (l *loads) run(ctx context.Context, connections int, duration time.Duration, k kind) (figures, error) {
	clients := make([]*client, connections)
	for i := range clients {
		c, err := dial(ctx, l.addr)
		if err != nil {
			return figures{}, err
		}
		defer c.close()
		clients[i] = c
	}
	workers := make([]connection, connections)
	began := time.Now()
	deadline := began.Add(duration)
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() { workers[i].run(ctx, c, k, i, deadline) })
	}
	wg.Wait()
	f := figures{took: time.Since(began)}
	var all []time.Duration
	var errs []error
	for _, w := range workers {
		all = append(all, w.latencies...)
		f.created += w.created
		errs = append(errs, w.err)
	}
	slices.Sort(all)
	f.done, f.p50, f.p99 = len(all), percentile(all, 50), percentile(all, 99)
	return f, errors.Join(append(errs, ctx.Err())...)
}

func (w *connection) run(ctx context.Context, c *client, k kind, first int, deadline time.Time) {
	for n := first; ctx.Err() == nil && time.Now().Before(deadline); n++ {
		o := k.next(n)
		sent := time.Now()
		a, err := c.send(o)
		if err == nil && !k.fits(n, a) {
			err = c.unexpected(a)
		}
		if err != nil {
			w.err = err
			return
		}
		w.latencies = append(w.latencies, time.Since(sent))
		if a.created() {
			w.created++
		}
	}
}

// hold starts a payment that stays with its provider, and returns what ends it. Until
// then its nonce is in process. Both together make two payments.
func (l *loads) hold(ctx context.Context) (held order, release func() error, err error) {
	held = l.merchant.newOrder(describeHold)
	type told struct {
		answer
		err error
	}
	answers := make(chan told, 2)
	for range 2 { // whichever comes second is refused at once, and so it is known that the other one has begun
		c, err := dial(ctx, l.addr)
		if err != nil {
			return held, nil, err
		}
		go func() {
			defer c.close()
			a, err := c.send(held)
			answers <- told{a, err}
		}()
	}
	if first := <-answers; first.err != nil || first.status != http.StatusConflict {
		return held, nil, errors.Join(first.err, errors.New("the duplicate of a payment in process was not refused with 409"))
	}
	ctx = context.WithoutCancel(ctx) // an API with a payment that nobody lets go would not stop
	return held, func() error {
		c, err := dial(ctx, l.addr)
		if err != nil {
			return err
		}
		defer c.close()
		if a, err := c.send(l.merchant.newOrder(describeRelease)); err != nil || !a.created() {
			return errors.Join(err, errors.New("the payment that lets another go was not made"))
		}
		if last := <-answers; last.err != nil || !last.created() {
			return errors.Join(last.err, errors.New("the payment that was held was not made"))
		}
		return nil
	}, nil
}

// heldPayments is how many payments a hold makes: the held one, and the one that lets
// it go.
const heldPayments = 2

// percentile of sorted durations; 0 of none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}
