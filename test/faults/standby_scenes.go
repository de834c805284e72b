package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
	"github.com/oncepay/oncepay/test/harness"
)

// A commit that waits for the standby, and is cancelled, has taken place where everybody
// reads, and nowhere else. Whoever goes by it has forgotten it after the failover. In
// each of these scenes one statement meets that; then the primary is lost.
var standbyScenes = []scene{
	claimSentOn,
	claimReadBack,
	{"a take-over that no standby has", "can_void", takeOverOnPrimaryAlone(byCancel)},
	{"a take-over that no standby has, read back", "can_void", takeOverOnPrimaryAlone(byTerminate)},
	{"an answer that no standby has", "can_void", answerOnPrimaryAlone(byCancel)},
	{"an answer that no standby has, saved again", "can_void", answerOnPrimaryAlone(byTerminate)},
	{"an answer that no standby has, replayed", "can_void", replayFromPrimaryAlone},
}

// The scenes that mutants are hunted in.
var (
	claimSentOn   = scene{"a claim that no standby has", "", claimOnPrimaryAlone(byCancel)}
	claimReadBack = scene{"a claim that no standby has, read back", "", claimOnPrimaryAlone(byTerminate)}
)

// needsStandby says whether the scene is played with a PostgreSQL that has one.
func (sc scene) needsStandby() bool {
	return slices.ContainsFunc(standbyScenes, func(s scene) bool { return s.name == sc.name })
}

// forgoStandby waits until the commit of a statement waits for the standby, and ends
// that.
func (a *act) forgoStandby(ctx context.Context, statement, way string) error {
	ctx, cancel := context.WithTimeout(ctx, cueLimit)
	defer cancel()
	p := a.ground.mortal.pair
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for waits := false; !waits; rest(ctx, pollEvery) {
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '/* transactions.' || $1 || ' */%')`,
			statement).Scan(&waits)
		if err != nil {
			return fmt.Errorf("%s never waited for the standby: %w", statement, err)
		}
	}
	_, err = p.endWaits(ctx, way)
	return err
}

// loseThePrimary promotes the standby as it is.
func (a *act) loseThePrimary(ctx context.Context) error {
	if !a.failOver(ctx, serverFailedOverBehind, 0) {
		return errors.Join(errors.New("nothing failed over"), a.ground.mortal.problem())
	}
	return nil
}

// perhapsTold gives who waits for an answer a moment to get it.
func (a *act) perhapsTold() {
	told := make(chan struct{})
	go func() { a.wg.Wait(); close(told) }()
	select {
	case <-told:
	case <-time.After(maybeLimit):
	}
}

// claimOnPrimaryAlone: nobody may send on a claim that a failover forgets.
func claimOnPrimaryAlone(way string) func(context.Context, *act) error {
	return func(ctx context.Context, a *act) error {
		a.stillRecovery()
		a.leaveBehind(ctx)
		a.send(ctx, a.a)
		if err := a.forgoStandby(ctx, "begin", way); err != nil {
			return err
		}
		for began := time.Now(); time.Since(began) < maybeLimit; rest(ctx, pollEvery) {
			if booked, err := (harness.Ledger{URL: a.bankURL}).Of(ctx, a.o.id); err != nil || len(booked) > 0 {
				break
			}
		}
		return a.loseThePrimary(ctx)
	}
}

// takeOverOnPrimaryAlone: nobody may send on a take-over that a failover forgets, and with
// it until when somebody may still send. The first attempt had no effect; the second is
// about to send when the primary is lost, and a third learns, after the proof moment
// that the standby knows of, that nothing was booked.
func takeOverOnPrimaryAlone(way string) func(context.Context, *act) error {
	return func(ctx context.Context, a *act) error {
		a.charges(fault(pspproxy.ErrorBefore))
		a.stillRecovery()
		began := time.Now()
		a.pay(ctx, a.a)
		rest(ctx, proofAfter-2*time.Second)
		a.leaveBehind(ctx)
		wire := a.ctl.trap(a.o.nonce, faultpoint.SendBefore)
		a.held = append(a.held, wire)
		a.send(ctx, a.a)
		if err := a.forgoStandby(ctx, "take_over", way); err != nil {
			return err
		}
		a.perhaps(ctx, wire)
		if err := a.loseThePrimary(ctx); err != nil {
			return err
		}
		rest(ctx, proofAfter+300*time.Millisecond-time.Since(began))
		a.payValue(ctx, a.b, otherAmount)
		a.pay(ctx, a.b)
		return nil
	}
}

// answerOnPrimaryAlone: nobody may be told an answer that a failover forgets.
func answerOnPrimaryAlone(way string) func(context.Context, *act) error {
	return func(ctx context.Context, a *act) error {
		a.stillRecovery()
		saving := a.hold(faultpoint.FinishBefore)
		a.send(ctx, a.a)
		if err := a.await(ctx, saving); err != nil {
			return err
		}
		a.leaveBehind(ctx)
		saving.release()
		if err := a.forgoStandby(ctx, "finish", way); err != nil {
			return err
		}
		a.perhapsTold()
		return a.loseThePrimary(ctx)
	}
}

// replayFromPrimaryAlone: a later request that finds it stored may be told it all the
// same, because a replay waits for nobody. What that named is kept; see oracle.unsure.
func replayFromPrimaryAlone(ctx context.Context, a *act) error {
	a.stillRecovery()
	saving := a.hold(faultpoint.FinishBefore)
	a.ctl.at(a.o.nonce, faultpoint.FinishAfter, die())
	a.send(ctx, a.a)
	if err := a.await(ctx, saving); err != nil {
		return err
	}
	a.leaveBehind(ctx)
	saving.release()
	if err := a.forgoStandby(ctx, "finish", byCancel); err != nil {
		return err
	}
	a.perhapsTold()
	a.send(ctx, a.b)
	a.perhapsTold()
	return a.loseThePrimary(ctx)
}
