package transactions

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// recoveryBatch and recoveryWorkers bound one round: a provider that hangs
	// costs a worker its time-out, not the whole round.
	recoveryBatch   = 64
	recoveryWorkers = 16

	// maxAttempts is how often recovery asks, at growing intervals, before a person
	// must look: about a quarter of an hour with the usual lease.
	maxAttempts = 20

	// firstPause is the first interval between two attempts; it doubles up to one
	// lease, so that an outage that ends is noticed within one.
	firstPause = time.Second

	// parkedPause is how often a parked transaction is asked about again.
	parkedPause = time.Hour

	// A transaction that the provider has accepted is polled at a quarter of its
	// age, within these bounds.
	minPoll = 2 * time.Second
	maxPoll = time.Hour

	// BeatEvery is how often a process says that it lives. After five beats without
	// one, what it holds may be taken over.
	BeatEvery = time.Second

	// instanceRetention is how long a silent process is remembered.
	instanceRetention = 24 * time.Hour
)

// Recover is one round of the recovery loop: it takes over what is due, or whose
// holder's process is gone, and asks the provider. It returns how many it took.
func (s *Service) Recover(ctx context.Context) (int, error) {
	names := []string{}
	for _, p := range s.providers.All() {
		names = append(names, p.Name())
	}
	due, err := s.store.due(ctx, names, recoveryBatch)
	if err != nil {
		return 0, err
	}
	// Several instances read the same list: each starts elsewhere in it.
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })

	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		taken int
		first error
		slots = make(chan struct{}, recoveryWorkers)
	)
	for _, tx := range due {
		select {
		case <-ctx.Done():
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				won, err := s.recoverOne(ctx, tx)
				mu.Lock()
				defer mu.Unlock()
				if won {
					taken++
				}
				if first == nil {
					first = err
				}
			})
		}
	}
	wg.Wait()
	return taken, first
}

// recoverOne settles one transaction by asking: no card is kept that could be
// sent again. Its take-over does not raise may_send_until.
func (s *Service) recoverOne(ctx context.Context, seen Transaction) (won bool, err error) {
	p, ok := s.providers.Named(seen.Provider)
	if !ok {
		return false, fmt.Errorf("transaction %s waits for provider %s, which is not configured", seen.ID, seen.Provider)
	}
	// A stop may cut it off: asking has no effect, and the next process asks again.
	ctx, cancel := context.WithTimeout(ctx, s.lease)
	defer cancel()
	defer func() {
		// One transaction that an adapter trips over must not take the process, and
		// everybody else's recovery, with it. The panic's value may quote an answer.
		if p := recover(); p != nil {
			s.log.ErrorContext(ctx, "panic in recovery", "transaction_id", seen.ID, "stack", string(debug.Stack()))
			err = fmt.Errorf("transaction %s: panic", seen.ID)
		}
	}()
	faultpoint.Reach(faultpoint.RecoverBefore, seen.Nonce)
	r, err := s.takeOver(ctx, seen, p, byRecovery)
	if r == nil || err != nil {
		return false, err
	}
	faultpoint.Reach(faultpoint.RecoverAfter, seen.Nonce)
	result, proven, settleErr := s.settle(ctx, r)
	faultpoint.Reach(faultpoint.RecoverAsked, seen.Nonce)
	// What a caller would be told is nobody's concern here.
	_, _ = s.conclude(ctx, r, result, proven)
	return true, settleErr
}

// takeOver makes us the holder of a transaction, to inquire and to answer. It
// returns nil if somebody else got on with it.
func (s *Service) takeOver(ctx context.Context, seen Transaction, p providers.Provider, by taker) (*run, error) {
	started := time.Now()
	tx, c, won, err := s.store.takeOver(ctx, seen, by, uuid.New(), s.instance, s.terms(p), false)
	if err != nil || !won {
		return nil, err // a COMMIT whose answer was lost costs one lease, and nobody waits for it
	}
	r := s.newRun(tx, c, started, p, by)
	r.payment, err = s.store.payment(ctx, tx.AccountID, tx.PaymentID)
	return r, err
}

// nextAttempt is when recovery looks again. It does not sleep past the moment at
// which an inquiry begins to prove something.
func (s *Service) nextAttempt(r *run, learnt providers.Outcome) time.Duration {
	if r.tx.ParkedAt != nil || s.shouldPark(r, learnt) {
		return parkedPause
	}
	pause := min(firstPause<<min(r.tx.Attempts, 10), s.lease)
	if untilProof := r.tx.proofMoment().Sub(r.now()); untilProof > 0 {
		pause = min(pause, untilProof)
	}
	return pause
}

// shouldPark says whether this attempt was the last automatic one. Where the
// provider can be asked, it is not before the proof moment: until then an answer
// may still come. What the provider has accepted may take days, as long as it knows it.
func (s *Service) shouldPark(r *run, learnt providers.Outcome) bool {
	if r.tx.Status == Pending && learnt != providers.NotFound || r.tx.Attempts+1 < maxAttempts {
		return false
	}
	return !r.provider.Traits().Queryable || !r.now().Before(r.tx.proofMoment())
}

// pollAfter is when to ask again about a transaction of that age which the
// provider has accepted.
func pollAfter(age time.Duration) time.Duration { return min(max(age/4, minPoll), maxPoll) }

// Backlog is how much is unresolved, and for how long. What a provider has accepted,
// and not decided yet, is not in it.
type Backlog struct {
	Unresolved    int
	Parked        int
	OldestSeconds int64 // age of the oldest that is not parked
}

// Backlog counts over all merchants and modes, work in progress included.
func (s *Service) Backlog(ctx context.Context) (Backlog, error) { return s.store.backlog(ctx) }

// Beat says that this process lives. Call it before serving, and every BeatEvery.
func (s *Service) Beat(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*BeatEvery) // a beat that is late is worth nothing
	defer cancel()
	return 0, s.store.beat(ctx, s.instance)
}

// Goodbye says that this process holds nothing any more.
func (s *Service) Goodbye(ctx context.Context) error { return s.store.goodbye(ctx, s.instance) }
