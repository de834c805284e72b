package transactions

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/providers"
)

// Decision is what a person says became of a transaction.
type Decision struct {
	Succeeded         bool
	ProviderReference string
	Reason            string
	RequestID         string
}

// Resolve ends a parked or unresolved transaction by a person's decision, fenced
// like any finish, and writes it in the audit log as done by the context's actor. `failed` is judged only after the proof moment, and only if the
// provider, where it can be asked, does not know better.
func (s *Service) Resolve(ctx context.Context, id uuid.UUID, d Decision) (Transaction, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.lease)
	defer cancel()
	seen, leaseOver, err := s.store.byID(ctx, id)
	if err != nil {
		return Transaction{}, err
	}
	if seen.Status.Terminal() {
		return seen, apierr.New(apierr.InvalidState, fmt.Sprintf("the transaction is %s already", seen.Status))
	}
	if !leaseOver {
		return seen, apierr.New(apierr.RequestInProcess, "somebody is working on this transaction").Retry(retryInProcess)
	}
	p, ok := s.providers.Named(seen.Provider)
	if !ok {
		p = gone{seen.Provider, s.lease}
	}
	r, err := s.takeOver(ctx, seen, p, byPerson)
	if err != nil {
		return seen, err
	}
	if r == nil {
		return seen, apierr.New(apierr.RequestInProcess, "somebody else has just taken this transaction over").Retry(retryInProcess)
	}
	faultpoint.Reach(faultpoint.ResolveAfter, seen.Nonce)
	r.requestID = d.RequestID
	if d.Succeeded {
		err = s.decideSucceeded(ctx, r, d)
	} else {
		err = s.decideFailed(ctx, r, d)
	}
	after, _, readErr := s.store.byID(ctx, id)
	if readErr != nil {
		return r.tx, readErr
	}
	if err == nil && (after.Status == Succeeded) != d.Succeeded {
		err = apierr.New(apierr.InvalidState, fmt.Sprintf("the transaction became %s meanwhile", after.Status))
	}
	return after, err
}

func (s *Service) decideSucceeded(ctx context.Context, r *run, d Decision) error {
	_, err := s.answer(ctx, r, providers.Result{
		Outcome: providers.Approved, ProviderReference: d.ProviderReference, ResponseCode: "SUCCEEDED", Detail: "decided by a person",
	}, "resolved", resolution{outcome: "succeeded", reason: d.Reason, requestID: d.RequestID})
	return err
}

func (s *Service) decideFailed(ctx context.Context, r *run, d Decision) error {
	proof := r.tx.proofMoment()
	if wait := proof.Sub(r.now()); wait > 0 {
		s.giveBack(ctx, r)
		seconds := secondsUntil(wait)
		return apierr.New(apierr.InvalidState,
			fmt.Sprintf("a charge may still arrive: failed can be decided in %d seconds", seconds)).Retry(seconds)
	}
	result, _, err := s.settle(ctx, r)
	if err != nil {
		s.giveBack(ctx, r)
		return unavailable(err)
	}
	if result.Definite() {
		if _, err := s.answer(ctx, r, result, "provider", resolution{}); err != nil {
			return err
		}
		return apierr.New(apierr.InvalidState, fmt.Sprintf("the provider knows this transaction as %s, which was recorded instead", result.Outcome))
	}
	// Either the provider does not know it, or it does not answer. In the second case
	// a person who knows better may decide; the calls on the timeline say that the
	// provider's word is missing.
	return s.fail(ctx, r, result, d)
}

// fail ends the transaction as a failure and gives the nonce back, as release does,
// with the person's reason.
func (s *Service) fail(ctx context.Context, r *run, result providers.Result, d Decision) error {
	e := ending{
		status: Errored, providerReference: d.ProviderReference, released: true, at: r.now(),
		watch: r.watchAfter(), cause: "resolved", calls: r.calls, resolution: resolution{outcome: "failed", reason: d.Reason, requestID: d.RequestID},
	}
	_, err := s.finish(ctx, r, result, e, nil)
	return err
}

// resolved is what the audit log says of a decision that was carried out.
func resolved(tx Transaction, e ending) audit.Entry {
	details := map[string]string{
		"outcome": e.resolution.outcome, "reason": e.resolution.reason, "payment_id": tx.PaymentID.String(), "nonce": tx.Nonce,
		"status_before": string(tx.Status), "status": string(e.status),
	}
	if e.providerReference != "" {
		details["provider_reference"] = e.providerReference
	}
	return audit.Entry{Action: "transaction.resolved", AccountID: tx.AccountID, Target: "transaction/" + tx.ID.String(), Details: details}
}

// giveBack ends a person's hold without changing anything, parked included.
func (s *Service) giveBack(ctx context.Context, r *run) {
	l := leaving{park: r.tx.ParkedAt != nil, next: s.nextAttempt(r, providers.Unclear), calls: r.calls}
	_ = s.save(ctx, func() error { // if it fails, the lease ends by itself
		_, err := s.store.leave(ctx, r.tx, l)
		return err
	})
}

// gone stands for a provider that is not configured any more: it can't be asked,
// and it may be as slow as a lease allows.
type gone struct {
	name  string
	lease time.Duration
}

// Name is the name that the transaction was made under.
func (g gone) Name() string { return g.name }

// Traits claim nothing.
func (g gone) Traits() providers.Traits {
	return providers.Traits{Timeout: g.lease - LeaseMargin, Settle: 2 * g.lease}
}

// Charge is never asked for: nobody sends to a provider that is not configured.
func (g gone) Charge(context.Context, providers.Charge, providers.MaySend) providers.Result {
	return providers.Result{Outcome: providers.Unclear, Detail: "the provider is not configured"}
}

// Operate is never asked for: nobody sends to a provider that is not configured.
func (g gone) Operate(context.Context, providers.Operation, providers.MaySend) providers.Result {
	return providers.Result{Outcome: providers.Unclear, Detail: "the provider is not configured"}
}

// Inquire is never asked for, by its Traits.
func (g gone) Inquire(context.Context, providers.Order) providers.Result {
	return providers.Result{Outcome: providers.Unclear, Detail: "the provider is not configured"}
}

// Void is never asked for, by its Traits.
func (g gone) Void(context.Context, providers.Order, providers.MaySend) providers.Result {
	return providers.Result{Outcome: providers.Unclear, Detail: "the provider is not configured"}
}

// Tokenise is never asked for.
func (g gone) Tokenise(context.Context, providers.Card) (providers.Token, error) {
	return providers.Token{}, providers.ErrTokenise
}
