package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
)

// The scenes of what is done with a payment once it is paid.

// pays has the scene's order paid.
func (a *act) pays(ctx context.Context) error {
	op, answer := a.stage.pay(ctx, ask{order: a.o, value: amount, via: a.a})
	if op.Status != http.StatusCreated {
		return fmt.Errorf("answered %s", answer)
	}
	a.o.paid = readOutcome(op.Body)
	return nil
}

// part makes an action on a part of the scene's order.
func (a *act) part(route transactions.Route, value string) *order {
	r := &order{
		merchant: a.o.merchant, nonce: fmt.Sprintf("%s-%s-%s", actionPrefix, a.o.nonce, value), id: a.o.id, about: a.o.about,
		deed: &deed{route: route, of: a.o, on: a.o, value: value},
	}
	a.scripts.add(a.merchants[a.o.merchant].AccountID, r)
	return r
}

// asks is one request of an action.
func (a *act) asks(ctx context.Context, o *order, via *instance) record.Op {
	op, _ := a.stage.pay(ctx, ask{order: o, value: amount, via: via})
	return op
}

// holdAt sets a trap for an action, which lets go at the end of the scene.
func (a *act) holdAt(o *order, p faultpoint.Point) *trap {
	t := a.ctl.trap(o.nonce, p)
	a.held = append(a.held, t)
	return t
}

// refundReachesNobody: what it had reserved is there again.
func refundReachesNobody(ctx context.Context, a *act) error {
	if err := a.pays(ctx); err != nil {
		return err
	}
	r := a.part(refund, "12.34")
	for _, p := range a.refused(1) {
		a.ctl.at(r.nonce, p.at, p.step)
	}
	if op := a.asks(ctx, r, a.a); op.Status != http.StatusServiceUnavailable {
		return fmt.Errorf("the refund was answered %d", op.Status)
	}
	a.open(a.a)
	return nil
}

// tooMuchTogether: two clerks have looked, and each may refund what the other one does
// not.
func tooMuchTogether(ctx context.Context, a *act) error {
	if err := a.pays(ctx); err != nil {
		return err
	}
	one, other := a.part(refund, "30.01"), a.part(refund, "30.02")
	held := []*trap{a.holdAt(one, faultpoint.BeginBefore), a.holdAt(other, faultpoint.BeginBefore)}
	a.wg.Go(func() { a.asks(ctx, one, a.a) })
	a.wg.Go(func() { a.asks(ctx, other, a.b) })
	for _, t := range held {
		if err := a.await(ctx, t); err != nil {
			return err
		}
	}
	for _, t := range held {
		t.release()
	}
	a.wg.Wait()
	return nil
}

// calledBackTwice: the same word comes to both instances at once, and again later.
func calledBackTwice(ctx context.Context, a *act) error {
	a.scripts.mu.Lock()
	a.o.says, a.o.callbacks = "sandbox:pending-then-approve-twice=1s", []string{callbackTwice}
	a.scripts.mu.Unlock()
	if err := a.pays(ctx); err != nil {
		return err
	}
	rest(ctx, 3500*time.Millisecond) // until the second copy has come, too
	return nil
}

// beginsWhileAnotherEnds: the second capture's reservation waits for the payment's row, and
// behind it the end of the first.
func beginsWhileAnotherEnds(ctx context.Context, a *act) error {
	a.o.kind = transactions.Authorize
	if err := a.pays(ctx); err != nil {
		return err
	}
	one, other := a.part(capture, "10.01"), a.part(capture, "10.02")
	saving := a.holdAt(one, faultpoint.FinishBefore)
	a.wg.Go(func() { a.asks(ctx, one, a.a) })
	if err := a.await(ctx, saving); err != nil {
		return err
	}
	err := pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT 1 FROM payments WHERE id = $1::uuid FOR NO KEY UPDATE`, a.o.paid.payment); err != nil {
			return err
		}
		a.wg.Go(func() { a.asks(ctx, other, a.b) })
		if err := a.awaitWaiting(ctx, 1); err != nil {
			return err
		}
		saving.release()
		return a.awaitWaiting(ctx, 2)
	})
	a.wg.Wait()
	return err
}

// awaitWaiting waits until so many of the product's statements wait for a lock. It gives
// up before the product does, whose patience with a lock is two seconds.
func (a *act) awaitWaiting(ctx context.Context, want int) error {
	for began := time.Now(); time.Since(began) < maybeLimit && ctx.Err() == nil; rest(ctx, pollEvery) {
		var n int
		err := a.pool.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '/* transactions.%'`).Scan(&n)
		if err != nil || n >= want {
			return err
		}
	}
	return errors.New("nobody waits for the payment's row")
}
