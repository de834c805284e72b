package transactions

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// What was sent under a reference that was taken over, or given back, may be asleep
// somewhere on the way: in a process that was suspended, or a proxy's queue. No proof
// sees that. So such references are watched for a while.

const (
	// watchBatch and reconcileWorkers bound one round: a provider that hangs costs
	// four looks of three exchanges each, which is less than lookAgain with the usual
	// time-out.
	watchBatch       = 32
	reconcileWorkers = 8

	// lookAgain is for how long a look is somebody's, and so when the next one comes
	// after one that was broken off or taught nothing.
	lookAgain = 10 * time.Minute

	// afterFirst, afterSecond and afterThird are the pauses between the looks at a
	// reference. Minutes are for queues and for processes that were suspended; an hour
	// and a day for what a provider takes in by batches. The first look comes when all
	// that was sent should have arrived.
	afterFirst  = 10 * time.Minute
	afterSecond = time.Hour
	afterThird  = 24 * time.Hour

	// maxReversals is how often a reversal is sent whose outcome stays unclear: an hour
	// and a half. Then it is only asked about, and a person must look.
	maxReversals = 10
)

// pauseAfter is how long after its nth look a reference is looked at again; 0: no more.
func pauseAfter(looks int) time.Duration {
	if pauses := []time.Duration{afterFirst, afterSecond, afterThird}; looks <= len(pauses) {
		return pauses[looks-1]
	}
	return 0
}

// watched looks at the references that are due, and says how many there were.
func (r *Reconciler) watched(ctx context.Context) (int, error) {
	read := time.Now()
	due, err := r.service.store.claimWatches(ctx, watchBatch, lookAgain)
	if err != nil {
		return 0, err
	}
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] }) // a provider that hangs must not hold up the others
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		slots = make(chan struct{}, reconcileWorkers)
	)
	for _, c := range due {
		select {
		case <-ctx.Done(): // the rest come again in ten minutes
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				if err := r.look(ctx, c, read); err != nil {
					mu.Lock()
					defer mu.Unlock()
					first = err
				}
			})
		}
	}
	wg.Wait()
	return len(due), first
}

// look asks what became of a watched reference, and reverses a late charge. What taught
// nothing is no look: it comes again.
func (r *Reconciler) look(ctx context.Context, c counterpart, read time.Time) (err error) {
	defer func() {
		if p := recover(); p != nil { // its value may quote an answer
			r.service.log.ErrorContext(ctx, "panic in reconciliation", "transaction_id", c.ID, "stack", string(debug.Stack()))
			err = fmt.Errorf("transaction %s: panic", c.ID)
		}
	}()
	p, ok := r.service.providers.Named(c.Provider)
	switch {
	case !ok:
		return fmt.Errorf("transaction %s is watched at provider %s, which is not configured", c.ID, c.Provider)
	case !p.Traits().Queryable: // its books, if it shows them, must do
		return r.service.store.unwatch(ctx, c)
	}
	x := r.begin(c, read, p)
	result := x.ask(ctx, c.ID.String())
	f, action, settled := c.finding(result), NotReversed, true
	switch {
	case f == FoundMissingHere && c.late():
		if action, settled, err = r.takeBack(ctx, x, c, result); err != nil {
			return err
		}
	case f == FoundOpen:
		settled = false
		if result.Outcome != providers.Approved && result.Outcome != providers.Pending {
			return nil // nobody knows more than before
		}
		fallthrough
	case f != FoundMatched:
		if err := r.service.store.noteDifferences(ctx, []Difference{c.difference(f, result)}); err != nil {
			return err
		}
	}
	r.tell(ctx, c, f, action)
	if !settled {
		return nil
	}
	return r.service.store.looked(ctx, c, pauseAfter(c.Looks+1))
}

// tell counts a finding of a look, and writes a line about each difference.
func (r *Reconciler) tell(ctx context.Context, c counterpart, f Finding, action Reversal) {
	r.found(f, action)
	log := r.service.log.With("transaction_id", c.ID, "provider", c.Provider, "type", string(c.Type), "status", string(c.Status), "finding", string(f))
	switch {
	case f == FoundMatched, f == FoundOpen:
	case action == Reversed:
		log.WarnContext(ctx, "a charge arrived late and was reversed", "reversal", reversalOf(c.ID))
	case action == ReversalFailed:
		log.ErrorContext(ctx, "a charge arrived late and is not reversed", "reversal", reversalOf(c.ID))
	default:
		log.ErrorContext(ctx, "the provider's books differ: a person must look")
	}
}

// takeBack reverses a charge that was booked under a reference of ours which had ended
// without effect: an authorization is cancelled, anything else refunded, with the whole
// amount that was booked. settled is false while there is reason to try again.
//
// A reversal is a send like any other, and keeps the same rule: nothing is sent before it
// is written down, and a second time only to a provider that still recognises the
// reference. Before the first send our row is read once more, locked, so that what we
// judge by is on the standbys, too.
func (r *Reconciler) takeBack(ctx context.Context, x *run, c counterpart, booked providers.Result) (action Reversal, settled bool, err error) {
	allowed, first, err := r.service.store.intendReversal(ctx, c, c.difference(FoundMissingHere, booked))
	if err != nil || !allowed {
		return NotReversed, true, err
	}
	if !first {
		action, settled, again, err := r.tried(ctx, x, c)
		if err != nil || !again {
			return action, settled, err
		}
	}
	o := providers.Operation{Order: x.order(), Kind: providers.Refund, Target: c.ID.String(), Amount: c.Amount, Currency: c.Currency}
	o.Reference = reversalOf(c.ID)
	if c.Type == Authorize {
		o.Kind = providers.Cancel
	}
	if booked.Currency != "" {
		o.Amount, o.Currency = booked.Amount, booked.Currency
	}
	x.started = time.Now()
	result := x.exchange(ctx, "reverse", func(ctx context.Context) providers.Result { return x.provider.Operate(ctx, o, x.maySend) })
	action = ReversalFailed
	if result.Outcome == providers.Approved {
		action = Reversed
	}
	if err := r.reversalEnded(ctx, c, action, x.calls[len(x.calls)-1]); err != nil {
		return ReversalFailed, false, err // the next look finds it there
	}
	return action, action == Reversed || result.Outcome == providers.Declined, nil
}

// tried finds out what became of a reversal that was intended before. again says whether
// it may be sent once more.
func (r *Reconciler) tried(ctx context.Context, x *run, c counterpart) (action Reversal, settled, again bool, err error) {
	before, err := r.service.store.intended(ctx, c)
	if err != nil || before.Action == Reversed {
		return before.Action, true, false, err
	}
	switch result := x.ask(ctx, reversalOf(c.ID)); result.Outcome {
	case providers.Approved:
		return Reversed, true, false, r.reversalEnded(ctx, c, Reversed, call{})
	case providers.Declined: // what is booked there does not allow it
		return ReversalFailed, true, false, nil
	case providers.NotFound:
		t := x.provider.Traits()
		until := before.FirstSeenAt.Add(t.IdempotentFor - t.Timeout - t.Settle)
		again = t.Idempotent && (t.IdempotentFor == 0 || before.Now.Before(until)) && before.Sent < maxReversals
		return ReversalFailed, !again, again, nil
	default: // accepted, or unclear
		return ReversalFailed, false, false, nil
	}
}

// reversalEnded writes down what became of a reversal, and its exchange, if there was
// one. A stop must not keep it from that.
func (r *Reconciler) reversalEnded(ctx context.Context, c counterpart, action Reversal, x call) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLimit)
	defer cancel()
	err := r.service.save(ctx, func() error { return r.service.store.reversalEnded(ctx, c, action, x) })
	if err != nil {
		r.service.log.ErrorContext(ctx, "a reversal could not be written down; it will be asked for again", "transaction_id", c.ID,
			"reversal", reversalOf(c.ID), "outcome", x.Outcome, "error", postgres.Describe(err))
	}
	return err
}
