package transactions

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// bookkeeper is a psp that shows its books, some of which a test has written.
type bookkeeper struct {
	*psp
	mu       sync.Mutex
	books    []providers.Booking // in the order of time
	pageSize int
	lists    int   // pages that were asked for
	refuse   error // instead of a page, if there is one
	from, to time.Time
}

var _ providers.Lister = (*bookkeeper)(nil)

// List shows the bookings of a stretch of time.
func (b *bookkeeper) List(_ context.Context, from, to time.Time, after string) (page []providers.Booking, next string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lists++
	b.from, b.to = from, to
	if b.refuse != nil {
		return nil, "", b.refuse
	}
	at, _ := strconv.Atoi(after)
	for ; at < len(b.books); at++ {
		if t := b.books[at].BookedAt; t.Before(from) || !t.Before(to) {
			continue
		}
		if len(page) == b.pageSize {
			return page, strconv.Itoa(at), nil
		}
		page = append(page, b.books[at])
	}
	return page, "", nil
}

func (b *bookkeeper) asks() int {
	b.psp.mu.Lock()
	defer b.psp.mu.Unlock()
	return b.inquiry
}

// reconciling is a world with a reconciler that remembers what it found.
type reconciling struct {
	*world
	*Reconciler
	books *bookkeeper

	mu   sync.Mutex
	told map[Finding]map[Reversal]int
}

// newReconciling makes a world whose provider shows its books.
func newReconciling(t *testing.T) *reconciling {
	t.Helper()
	w := newWorld(t)
	r := &reconciling{world: w, books: &bookkeeper{psp: w.psp, pageSize: 3}, told: map[Finding]map[Reversal]int{}}
	r.instance = r.listing()
	r.Reconciler = NewReconciler(r.world.service, r.hear)
	return r
}

// listing is an instance whose provider shows its books.
func (r *reconciling) listing() instance {
	return r.newInstanceWith(r.db, func(o *Options) {
		o.Providers = providers.NewRegistry(map[string]providers.Provider{merchants.Test: r.books, merchants.Live: r.books})
	})
}

// hear counts findings.
func (r *reconciling) hear(f Finding, action Reversal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told[f] == nil {
		r.told[f] = map[Reversal]int{}
	}
	r.told[f][action]++
}

// heard is how often a finding was counted.
func (r *reconciling) heard(f Finding, action Reversal) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told[f][action]
}

// lapse makes everything that is watched due.
func (r *reconciling) lapse() {
	r.t.Helper()
	r.sql(`UPDATE watches SET next_look_at = clock_timestamp() - interval '1 second' WHERE $1`, true)
}

// round makes all watches due and runs one round.
func (r *reconciling) round() {
	r.t.Helper()
	r.lapse()
	if _, err := r.watched(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// released is a transaction whose nonce was given back because nothing was sent.
func (r *reconciling) released(nonce string, changes map[string]any) Transaction {
	r.t.Helper()
	r.psp.next(notReached)
	r.want(r.create(nonce, r.body("order-"+nonce, changes)), 503)
	return r.transaction(nonce)
}

// arrive books, at the provider, what was thought to have been lost.
func (r *reconciling) arrive(tx Transaction) {
	r.psp.book(providers.Charge{
		Order:  providers.Order{Reference: tx.ID.String(), AccountID: tx.AccountID.String(), Mode: tx.Mode, MerchantOrderID: "order-" + tx.Nonce},
		Amount: tx.Amount, Currency: tx.Currency, Capture: tx.Type == Purchase,
	})
}

// reversals counts what was sent to reverse a transaction.
func (r *reconciling) reversals(tx Transaction) int {
	r.psp.mu.Lock()
	defer r.psp.mu.Unlock()
	n := 0
	for _, reference := range r.psp.sends {
		if reference == reversalOf(tx.ID) {
			n++
		}
	}
	return n
}

// action is what is kept of a late charge.
func (r *reconciling) action(tx Transaction) string {
	r.t.Helper()
	var action string
	found, err := one(r.owner().Conn(r.t.Context()).Raw(`SELECT action FROM differences WHERE reference = $1 AND finding = 'missing_here'`, tx.ID.String()), &action)
	if err != nil {
		r.t.Fatal(err)
	}
	if !found {
		return "none"
	}
	return action
}

func (r *reconciling) watchedNow() int {
	return r.count(`SELECT count(*) FROM watches`)
}

func TestEveryPairOfBooksHasItsFinding(t *testing.T) {
	t.Parallel()
	ten, eleven := decimal.RequireFromString("10"), decimal.RequireFromString("11")
	booked := providers.Result{Outcome: providers.Approved, Amount: ten, Currency: "USD"}
	other, foreign, unsaid := booked, booked, providers.Result{Outcome: providers.Approved}
	other.Amount, foreign.Currency = eleven, "EUR"
	unknown, declined := providers.Result{Outcome: providers.NotFound}, providers.Result{Outcome: providers.Declined}
	accepted, unclear := providers.Result{Outcome: providers.Pending}, providers.Result{Outcome: providers.Unclear}
	of := func(typ Type, s Status) counterpart {
		return counterpart{Transaction: Transaction{Type: typ, Status: s, Amount: ten, Currency: "USD"}}
	}
	lapsed, reversed := of(Authorize, Expired), of(Purchase, Errored)
	lapsed.Lapsed, reversed.TakenBack = true, true
	for _, c := range []struct {
		name string
		ours counterpart
		//  booked, with another amount, in another currency, without its amount, unknown, declined, accepted, unclear
		want [8]Finding
		late bool
	}{
		{"what succeeded", of(Purchase, Succeeded), [8]Finding{FoundMatched, FoundAmountDiffers, FoundAmountDiffers, FoundMatched, FoundMissingThere, FoundMissingThere, FoundMissingThere, FoundOpen}, false},
		{"what is open", of(Purchase, Created), [8]Finding{FoundOpen, FoundOpen, FoundOpen, FoundOpen, FoundOpen, FoundOpen, FoundOpen, FoundOpen}, false},
		{"what is accepted", of(Refund, Pending), [8]Finding{FoundOpen, FoundOpen, FoundOpen, FoundOpen, FoundOpen, FoundOpen, FoundOpen, FoundOpen}, false},
		{"what failed", of(Purchase, Errored), [8]Finding{FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMatched, FoundMatched, FoundOpen, FoundOpen}, true},
		{"what was declined", of(Capture, Declined), [8]Finding{FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMatched, FoundMatched, FoundOpen, FoundOpen}, true},
		{"what expired unanswered", of(Authorize, Expired), [8]Finding{FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMatched, FoundMatched, FoundOpen, FoundOpen}, true},
		{"a hold that lapsed", lapsed, [8]Finding{FoundMatched, FoundAmountDiffers, FoundAmountDiffers, FoundMatched, FoundMatched, FoundMatched, FoundOpen, FoundOpen}, false},
		{"what was reversed", reversed, [8]Finding{FoundMatched, FoundMatched, FoundMatched, FoundMatched, FoundMatched, FoundMatched, FoundOpen, FoundOpen}, false},
		{"a refund that failed", of(Refund, Errored), [8]Finding{FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMatched, FoundMatched, FoundOpen, FoundOpen}, false},
		{"a cancellation that failed", of(Cancel, Declined), [8]Finding{FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMissingHere, FoundMatched, FoundMatched, FoundOpen, FoundOpen}, false},
		{"a verification that failed", of(Verify, Errored), [8]Finding{FoundMatched, FoundMatched, FoundMatched, FoundMatched, FoundMatched, FoundMatched, FoundOpen, FoundOpen}, false},
	} {
		for i, answer := range []providers.Result{booked, other, foreign, unsaid, unknown, declined, accepted, unclear} {
			if got := c.ours.finding(answer); got != c.want[i] {
				t.Errorf("%s, and there %s %s %s: got %s, want %s", c.name, answer.Outcome, answer.Amount, answer.Currency, got, c.want[i])
			}
		}
		if c.ours.late() != c.late {
			t.Errorf("%s: that its charge could be late is %t", c.name, c.ours.late())
		}
	}
}

func TestALateChargeIsReversedOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		changes map[string]any
		kind    providers.OperationKind
	}{
		"a purchase":       {nil, providers.Refund},
		"an authorization": {map[string]any{"capture": false}, providers.Cancel},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReconciling(t)
			tx := r.released("a-nonce", c.changes)
			r.round() // nothing has arrived
			if n := r.reversals(tx); n != 0 || r.heard(FoundMatched, NotReversed) != 1 {
				t.Fatalf("%d reversals, findings %v", n, r.told)
			}
			r.arrive(tx)
			for range 5 {
				r.round()
			}
			if n, sum := r.psp.operated(c.kind, tx.ID.String()); n != 1 || !sum.Equal(tx.Amount) || r.reversals(tx) != 1 {
				t.Errorf("reversed %d times, %s in all, in %d sends", n, sum, r.reversals(tx))
			}
			if got := r.action(tx); got != "reversed" {
				t.Errorf("the difference says %q", got)
			}
			if n := r.heard(FoundMissingHere, Reversed); n != 1 {
				t.Errorf("counted %v", r.told)
			}
			if n := r.count(`SELECT count(*) FROM provider_calls WHERE kind = 'reverse' AND transaction_id = $1 AND outcome = 'approved'`, tx.ID); n != 1 {
				t.Errorf("the timeline has %d reversals", n)
			}
			if now := r.transaction("a-nonce"); now.Status != Errored || now.Fence != tx.Fence {
				t.Errorf("the transaction became %s", now.Status)
			}
			if !strings.Contains(r.logs.String(), `"a charge arrived late and was reversed"`) {
				t.Error("nobody is told")
			}
			if n := r.watchedNow(); n != 0 {
				t.Errorf("%d references are watched for ever", n)
			}
		})
	}
}

// A capture that lands late moves money that nobody counts.
func TestALateCaptureIsRefunded(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	r.want(r.create("a-nonce", r.body("an-order", map[string]any{"capture": false})), 201)
	hold := r.transaction("a-nonce")
	capture := uuid.Must(uuid.NewV7())
	r.sql(`INSERT INTO transactions (account_id, id, payment_id, target_id, mode, type, status, currency, amount, provider, nonce, card, released,
	           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
	       SELECT account_id, $2, payment_id, id, mode, 'CAPTURE', 'ERROR', currency, 20, provider, 'another-nonce', card, true,
	           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at FROM transactions WHERE id = $1`, hold.ID, capture)
	tx := r.transaction("another-nonce")
	r.psp.operate(providers.Operation{Order: providers.Order{Reference: capture.String()}, Kind: providers.Capture, Target: hold.ID.String(), Amount: tx.Amount, Currency: "USD"})
	if err := r.world.service.store.watchSoon(t.Context(), tx.AccountID, tx.ID); err != nil {
		t.Fatal(err)
	}
	r.round()
	if n, sum := r.psp.operated(providers.Refund, capture.String()); n != 1 || !sum.Equal(tx.Amount) {
		t.Errorf("refunded %d times, %s in all", n, sum)
	}
}

// Whoever claims a watch has it for some minutes, so that several may look at once is
// rare. Here they do, with all that a stale claim could have read.
func TestManyWhoLookAtOnceReverseOnce(t *testing.T) {
	t.Parallel()
	for _, idempotent := range []bool{true, false} {
		t.Run(fmt.Sprintf("idempotent %t", idempotent), func(t *testing.T) {
			t.Parallel()
			r := newReconciling(t)
			r.psp.mu.Lock()
			r.psp.traits.Idempotent = idempotent
			r.psp.mu.Unlock()
			tx := r.released("a-nonce", nil)
			r.arrive(tx)
			r.lapse()
			seen, err := r.world.service.store.claimWatches(t.Context(), 1, time.Minute)
			if err != nil || len(seen) != 1 {
				t.Fatalf("%d claimed: %v", len(seen), err)
			}
			second := NewReconciler(r.listing().service, r.hear)
			var wg sync.WaitGroup
			for i := range 16 {
				who := r.Reconciler
				if i%2 == 1 {
					who = second
				}
				wg.Go(func() {
					if err := who.look(t.Context(), seen[0], time.Now()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			r.round()
			if n, sum := r.psp.operated(providers.Refund, tx.ID.String()); n != 1 || !sum.Equal(tx.Amount) {
				t.Errorf("refunded %d times, %s in all", n, sum)
			}
			if n := r.reversals(tx); !idempotent && n != 1 {
				t.Errorf("sent %d times to a provider that recognises nothing", n)
			}
			if got := r.action(tx); got != "reversed" {
				t.Errorf("the difference says %q", got)
			}
		})
	}
}

func TestTwoInstancesShareTheWatches(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	const all = 50
	for i := range all {
		r.released(fmt.Sprintf("nonce-%d", i), nil)
	}
	second := NewReconciler(r.listing().service, r.hear)
	r.lapse()
	before := r.books.asks()
	var wg sync.WaitGroup
	for _, who := range []*Reconciler{r.Reconciler, second, r.Reconciler, second} {
		wg.Go(func() {
			for range 5 { // who finds a batch taken comes again
				if _, err := who.watched(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := r.books.asks() - before; n != all || r.heard(FoundMatched, NotReversed) != all {
		t.Errorf("%d inquiries about %d references, %d findings", n, all, r.heard(FoundMatched, NotReversed))
	}
}

func TestAReversalWhoseAnswerWasLostIsFound(t *testing.T) {
	t.Parallel()
	for _, idempotent := range []bool{true, false} {
		t.Run(fmt.Sprintf("idempotent %t", idempotent), func(t *testing.T) {
			t.Parallel()
			r := newReconciling(t)
			r.psp.mu.Lock()
			r.psp.traits.Idempotent = idempotent
			r.psp.mu.Unlock()
			tx := r.released("a-nonce", nil)
			r.arrive(tx)
			r.psp.nextOperation(func(_ context.Context, p *psp, o providers.Operation) providers.Result {
				p.operate(o)
				return providers.Result{Outcome: providers.Unclear, TimedOut: true}
			})
			r.round()
			if got := r.action(tx); got != "reversal_failed" || r.heard(FoundMissingHere, ReversalFailed) != 1 {
				t.Fatalf("the difference says %q, findings %v", got, r.told)
			}
			r.round()
			if got := r.action(tx); got != "reversed" || r.reversals(tx) != 1 {
				t.Errorf("the difference says %q, after %d sends", got, r.reversals(tx))
			}
		})
	}
}

// A process that dies between the note and the send leaves the reversal to whoever
// looks next, if the provider would recognise it. If not, a second send could be a
// second refund, and a person must look.
func TestAReversalThatDiedBeforeItsSend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		traits func(*providers.Traits)
		sends  int
		action string
	}{
		"recognised":               {func(*providers.Traits) {}, 1, "reversed"},
		"recognised for long":      {func(t *providers.Traits) { t.IdempotentFor = time.Hour }, 1, "reversed"},
		"recognised for too short": {func(t *providers.Traits) { t.IdempotentFor = time.Second }, 0, "reversal_failed"},
		"not recognised":           {func(t *providers.Traits) { t.Idempotent = false }, 0, "reversal_failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReconciling(t)
			r.psp.mu.Lock()
			c.traits(&r.psp.traits)
			r.psp.mu.Unlock()
			tx := r.released("a-nonce", nil)
			r.arrive(tx)
			ours := counterpart{Transaction: tx}
			allowed, first, err := r.world.service.store.intendReversal(t.Context(), ours, ours.difference(FoundMissingHere, providers.Result{Outcome: providers.Approved}))
			if err != nil || !allowed || !first {
				t.Fatal(allowed, first, err)
			}
			for range 6 {
				r.round()
			}
			if n, got := r.reversals(tx), r.action(tx); n != c.sends || got != c.action {
				t.Errorf("%d sends, and the difference says %q", n, got)
			}
			if n := r.watchedNow(); n != 0 {
				t.Errorf("%d references are watched for ever", n)
			}
		})
	}
}

func TestAReversalThatNeverWorksIsLeftToAPerson(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	tx := r.released("a-nonce", nil)
	r.arrive(tx)
	for range 2 * maxReversals {
		r.psp.nextOperation(func(context.Context, *psp, providers.Operation) providers.Result {
			return providers.Result{Outcome: providers.Unclear}
		})
	}
	for range 2 * maxReversals {
		r.round()
	}
	if n := r.reversals(tx); n != maxReversals || r.action(tx) != "reversal_failed" || r.watchedNow() != 0 {
		t.Errorf("%d sends, the difference says %q, %d watched", n, r.action(tx), r.watchedNow())
	}
	if n := r.count(`SELECT count(*) FROM provider_calls WHERE kind = 'reverse'`); n != maxReversals {
		t.Errorf("the timeline has %d of them", n)
	}
}

// What we stand by is never reversed, whoever holds it and whenever it is looked at: the
// looks of a watch that should not be there race with recovery.
func TestNothingIsReversedThatWeStandBy(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	second := NewReconciler(r.listing().service, r.hear)
	const all = 12
	var txs []Transaction
	for i := range all {
		nonce := fmt.Sprintf("nonce-%d", i)
		r.psp.next(chargeThenTimeout)
		r.want(r.create(nonce, r.body("order-"+nonce, nil)), 504)
		r.sql(`UPDATE transactions SET next_attempt_at = clock_timestamp() WHERE nonce = $1`, nonce)
		txs = append(txs, r.transaction(nonce))
	}
	stale := make([]counterpart, len(txs)) // as if it had ended without effect when it was read
	for i, tx := range txs {
		tx.Status, tx.LeaseUntil = Errored, nil
		stale[i] = counterpart{Transaction: tx, Now: tx.CreatedAt, MerchantOrderID: "order-" + tx.Nonce}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 3 {
			if _, err := r.world.service.Recover(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	for _, who := range []*Reconciler{r.Reconciler, second} {
		for _, c := range stale {
			wg.Go(func() {
				if err := who.look(t.Context(), c, time.Now()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for _, tx := range txs {
		if now := r.transaction(tx.Nonce); now.Status != Succeeded {
			t.Errorf("%s is %s", tx.Nonce, now.Status)
		}
		if n := r.reversals(tx); n != 0 || r.action(tx) != "none" {
			t.Errorf("%s was reversed %d times, %q", tx.Nonce, n, r.action(tx))
		}
	}
	r.round() // they were taken over, so they are watched
	if n := r.heard(FoundMatched, NotReversed); n != all || r.watchedNow() != all {
		t.Errorf("%v, %d watched", r.told, r.watchedNow())
	}
}

// An authorization that nobody captured in time was ours when it was booked.
func TestALapsedAuthorizationIsNoLateCharge(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	r.want(r.create("a-nonce", r.body("an-order", map[string]any{"capture": false})), 201)
	r.sql(`UPDATE authorizations SET expires_at = clock_timestamp() - interval '1 second' WHERE $1`, true)
	if _, err := r.world.service.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx := r.transaction("a-nonce")
	if tx.Status != Expired {
		t.Fatalf("it is %s", tx.Status)
	}
	if err := r.world.service.store.watchSoon(t.Context(), tx.AccountID, tx.ID); err != nil {
		t.Fatal(err)
	}
	r.round()
	if r.reversals(tx) != 0 || r.heard(FoundMatched, NotReversed) != 1 {
		t.Errorf("%d reversals, %v", r.reversals(tx), r.told)
	}
	ours := counterpart{Transaction: tx}
	if allowed, _, err := r.world.service.store.intendReversal(t.Context(), ours, Difference{}); err != nil || allowed {
		t.Errorf("the database would allow it: %t %v", allowed, err)
	}
}

// Nothing can be done about a refund that lands late but to tell somebody.
func TestALateRefundIsReportedAndLeftAlone(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	r.want(r.create("a-nonce", r.body("an-order", nil)), 201)
	r.sql(`INSERT INTO transactions (account_id, id, payment_id, target_id, mode, type, status, currency, amount, provider, nonce, card, released,
	           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
	       SELECT account_id, $2, payment_id, id, mode, 'REFUND', 'ERROR', currency, 20, provider, 'another-nonce', card, true,
	           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at FROM transactions WHERE nonce = $1`, "a-nonce", uuid.Must(uuid.NewV7()))
	tx := r.transaction("another-nonce")
	r.psp.operate(providers.Operation{Order: providers.Order{Reference: tx.ID.String()}, Kind: providers.Refund, Target: r.transaction("a-nonce").ID.String(), Amount: tx.Amount})
	if err := r.world.service.store.watchSoon(t.Context(), tx.AccountID, tx.ID); err != nil {
		t.Fatal(err)
	}
	r.round()
	if r.reversals(tx) != 0 || r.action(tx) != "" || r.heard(FoundMissingHere, NotReversed) != 1 {
		t.Errorf("%d reversals, %q, %v", r.reversals(tx), r.action(tx), r.told)
	}
	if !strings.Contains(r.logs.String(), `"level":"ERROR","msg":"the provider's books differ: a person must look"`) {
		t.Error("nobody is told")
	}
}

func TestAnUnclearAnswerIsNoLook(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	tx := r.released("a-nonce", nil)
	for range 7 {
		r.psp.asked(func() (providers.Result, bool) { return providers.Result{Outcome: providers.Unclear}, true })
	}
	for range 7 {
		r.round()
	}
	if n := r.count(`SELECT looks FROM watches WHERE transaction_id = $1`, tx.ID); n != 0 {
		t.Errorf("%d looks, and nothing was seen", n)
	}
	if n := r.count(`SELECT extract(epoch FROM next_look_at - clock_timestamp())::int FROM watches WHERE transaction_id = $1`, tx.ID); n < 590 || n > 600 {
		t.Errorf("the next look is in %d s", n)
	}
	for i, pause := range []int{600, 3600, 86400} {
		r.round()
		if n := r.count(`SELECT extract(epoch FROM next_look_at - clock_timestamp())::int FROM watches WHERE looks = $1`, i+1); n < pause-10 || n > pause {
			t.Errorf("after look %d the next is in %d s", i+1, n)
		}
	}
	r.round()
	if n := r.watchedNow(); n != 0 {
		t.Errorf("%d are watched for ever", n)
	}
}

func TestAStopLeavesTheLooksToTheNextProcess(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	tx := r.released("a-nonce", nil)
	r.arrive(tx)
	r.lapse()
	ctx, cancel := context.WithCancel(t.Context())
	r.psp.nextOperation(func(ctx context.Context, p *psp, o providers.Operation) providers.Result {
		p.operate(o)
		cancel()
		<-ctx.Done()
		return providers.Result{Outcome: providers.Unclear}
	})
	if _, err := r.watched(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := r.count(`SELECT count(*) FROM provider_calls WHERE kind = 'reverse'`); n != 1 {
		t.Errorf("%d exchanges were written down", n)
	}
	r.round()
	if n, _ := r.psp.operated(providers.Refund, tx.ID.String()); n != 1 || r.action(tx) != "reversed" || r.reversals(tx) != 1 {
		t.Errorf("%d reversals in %d sends, %q", n, r.reversals(tx), r.action(tx))
	}
}
