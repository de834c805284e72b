package main

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// The kinds of bad network between an instance and the database.
const (
	networkSilent = "database: the network is silent"
	networkSlow   = "database: the network is slow"
	networkSliced = "database: the network delivers single bytes"
)

// The locks that another session holds.
const (
	lockTable = "database: another session holds a table"
	lockRows  = "database: another session holds rows"
)

const (
	// slowBy delays each message: a payment's handful of them takes a part of a second.
	slowBy = 30 * time.Millisecond
	// weatherAtMost is shorter than the lease, like a nap.
	weatherAtMost = lease / 3
)

// chaos breaks things at moments of its own choosing, until ctx ends: what named
// points reach on purpose, this reaches by chance.
func (s *stage) chaos(ctx context.Context) {
	rng := rand.New(rand.NewPCG(uint64(s.seed), 0xc4a05))
	acts := []func(context.Context, *instance, *rand.Rand){s.cutOff, s.refuse, s.nap, s.weather, s.lockUp}
	if s.wild {
		acts = append(acts, s.killAny, s.killAny, s.killAny, s.killBank)
	} else if s.withhold == "" {
		acts = append(acts, s.sleep)
	}
	if s.mortal {
		end := s.ends()
		acts = append(acts, end, end, end, end)
	}
	for ctx.Err() == nil {
		rest(ctx, 300*time.Millisecond+upTo(rng, 900*time.Millisecond))
		i := s.instances[rng.IntN(len(s.instances))]
		acts[rng.IntN(len(acts))](ctx, i, rng)
	}
}

func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }

func (s *stage) killAny(_ context.Context, i *instance, _ *rand.Rand) {
	s.faults.note("", "process: killed at random")
	i.kill()
}

func (s *stage) killBank(context.Context, *instance, *rand.Rand) {
	s.faults.note("", "provider: killed and restarted")
	s.sandbox.signal(syscall.SIGKILL)
}

func (s *stage) nap(ctx context.Context, i *instance, rng *rand.Rand) {
	s.faults.note("", "process: frozen, shorter than the lease")
	i.freeze(ctx, upTo(rng, lease/3))
}

func (s *stage) sleep(ctx context.Context, i *instance, _ *rand.Rand) {
	s.faults.note("", "process: frozen, longer than the lease")
	i.freeze(ctx, lease+time.Second)
}

func (s *stage) cutOff(ctx context.Context, i *instance, rng *rand.Rand) {
	s.faults.note("", "database: all connections cut")
	i.db.Down()
	rest(ctx, upTo(rng, time.Second/2))
	i.db.Up()
}

// weather is a bad network to the database: one of three kinds, for a while.
func (s *stage) weather(ctx context.Context, i *instance, rng *rand.Rand) {
	kinds := []struct {
		name       string
		begin, end func()
	}{
		{networkSilent, i.db.Hold, i.db.Release},
		{networkSlow, func() { i.db.Slow(slowBy) }, func() { i.db.Slow(0) }},
		{networkSliced, func() { i.db.Slice(true) }, func() { i.db.Slice(false) }},
	}
	kind := kinds[rng.IntN(len(kinds))]
	s.faults.note("", kind.name)
	kind.begin()
	rest(ctx, upTo(rng, weatherAtMost))
	kind.end()
}

// sqlLocks are what another session, such as a migration or somebody's console, holds
// while it thinks, and what the report calls it.
var sqlLocks = []struct{ name, sql string }{
	{lockTable, `LOCK TABLE idempotency_keys IN SHARE ROW EXCLUSIVE MODE`},
	{lockRows, `SELECT 1 FROM transactions WHERE lease_until IS NOT NULL FOR UPDATE SKIP LOCKED`},
}

// lockUp holds locks that the product's writes need, for a while. Where it does not get
// them soon, nothing has happened.
func (s *stage) lockUp(ctx context.Context, _ *instance, rng *rand.Rand) {
	lock, d := sqlLocks[rng.IntN(len(sqlLocks))], upTo(rng, weatherAtMost)
	_ = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { // PostgreSQL may end meanwhile
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '1s'`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, lock.sql); err != nil {
			return err
		}
		s.faults.note("", lock.name)
		rest(ctx, d)
		return nil
	})
}

func (s *stage) refuse(ctx context.Context, i *instance, rng *rand.Rand) {
	s.faults.note("", "provider: connection refused, for a while")
	i.psp.Refuse()
	rest(ctx, upTo(rng, time.Second/2))
	s.open(i)
}

// ends is an act: it ends PostgreSQL, in one way after the other, and starts it again.
func (s *stage) ends() func(context.Context, *instance, *rand.Rand) {
	m, turn := s.ground.mortal, 0
	ways := []struct {
		name string
		end  func(context.Context) error
	}{{serverKilled, m.kill}, {serverStopped, m.stopAtOnce}, {serverRestarted, m.stopInOrder}}
	return func(ctx context.Context, _ *instance, rng *rand.Rand) {
		way := ways[turn%len(ways)]
		turn++
		if m.fall(ctx, way.end, upTo(rng, downAtMost)) {
			s.faults.note("", way.name)
		}
	}
}
