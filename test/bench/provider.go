package main

import (
	"context"
	"strings"

	"github.com/oncepay/oncepay/internal/providers"
)

// Descriptions that the provider obeys. A held payment is with its provider until one
// arrives that lets it go, so its nonce answers 409 meanwhile.
const (
	describeHold    = "bench: hold"
	describeRelease = "bench: release"
)

// instant approves everything within the process: no I/O, no time. What is measured
// is the product.
type instant struct{ released chan struct{} }

func newInstant() *instant { return &instant{released: make(chan struct{})} }

// Name is the provider's id.
func (*instant) Name() string { return "BENCH_INSTANT" }

// Traits are the defaults of a provider that can do everything.
func (*instant) Traits() providers.Traits {
	return providers.Traits{Idempotent: true, Queryable: true, CanVoid: true, Timeout: providerTimeout, Settle: settle}
}

// Charge approves, at once unless it is told to wait.
func (p *instant) Charge(ctx context.Context, c providers.Charge, may providers.MaySend) providers.Result {
	if !may() {
		return providers.Result{Outcome: providers.NotReached}
	}
	switch {
	case strings.HasPrefix(c.Description, describeHold):
		select {
		case <-p.released:
		case <-ctx.Done():
			return providers.Result{Outcome: providers.Unclear, TimedOut: true}
		}
	case strings.HasPrefix(c.Description, describeRelease):
		select {
		case p.released <- struct{}{}:
		case <-ctx.Done():
			return providers.Result{Outcome: providers.Unclear, TimedOut: true}
		}
	}
	return approved(c.Reference)
}

// Inquire is only asked if something went wrong; the run then fails by its count.
func (*instant) Inquire(_ context.Context, o providers.Order) providers.Result {
	return approved(o.Reference)
}

// Operate approves, too.
func (*instant) Operate(_ context.Context, o providers.Operation, may providers.MaySend) providers.Result {
	if !may() {
		return providers.Result{Outcome: providers.NotReached}
	}
	return approved(o.Reference)
}

// Void finds everything booked.
func (*instant) Void(_ context.Context, o providers.Order, _ providers.MaySend) providers.Result {
	return approved(o.Reference)
}

// Tokenise is not offered.
func (*instant) Tokenise(context.Context, providers.Card) (providers.Token, error) {
	return providers.Token{}, providers.ErrTokenise
}

func approved(reference string) providers.Result {
	return providers.Result{
		Outcome: providers.Approved, ProviderReference: "bench_" + reference, ResponseCode: "SUCCEEDED", AuthorizationCode: "123456",
	}
}
