package main

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
)

// The kinds of bad network between an instance and the database.
const (
	networkSilent = "database: network silent"
	networkSlow   = "database: network slow"
	networkSliced = "database: network delivers single bytes"
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

// mischief is something that chaos does, for a while, to an instance or around it.
type mischief func(ctx context.Context, i *instance, rng *rand.Rand)

// chaos breaks things at moments of its own choosing, until ctx ends: what named
// points reach on purpose, this reaches by chance. Its acts are dealt like cards, so
// that each comes as often as it is in the pack, and what is left to chance is when.
func (s *stage) chaos(ctx context.Context) {
	rng := rand.New(rand.NewPCG(uint64(s.seed), 0xc4a05))
	pack := s.pack()
	for ctx.Err() == nil {
		rng.Shuffle(len(pack), func(i, j int) { pack[i], pack[j] = pack[j], pack[i] })
		for _, act := range pack {
			rest(ctx, 300*time.Millisecond+upTo(rng, 900*time.Millisecond))
			if ctx.Err() != nil {
				return
			}
			act(ctx, s.instances[rng.IntN(len(s.instances))], rng)
		}
	}
}

// pack are the acts of the round.
func (s *stage) pack() []mischief {
	pack := []mischief{s.cutOff, s.refuse, s.nap, s.weathers(), s.locks()}
	if s.wild {
		pack = append(pack, s.killAny, s.killAny, s.killAny, s.killBank)
	} else if s.withhold == "" {
		pack = append(pack, s.sleep)
	}
	if !s.mortal {
		return pack
	}
	end := s.ends()
	pack = append(pack, end, end, end, s.takeSlots, s.takeSlots)
	if s.ownDisk {
		fill := s.fills()
		pack = append(pack, fill, fill, fill, fill)
	}
	return pack
}

// inTurn is one of some after the other. Each round begins with another one.
func inTurn[T any](seed int64, all []T) func() T {
	turn := uint64(seed)
	return func() T {
		turn++
		return all[turn%uint64(len(all))]
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

// weathers is a bad network to the database: one kind after the other, for a while.
func (s *stage) weathers() mischief {
	type weather struct {
		name       string
		begin, end func(*pgproxy.Proxy)
	}
	next := inTurn(s.seed, []weather{
		{networkSilent, (*pgproxy.Proxy).Hold, (*pgproxy.Proxy).Release},
		{networkSlow, func(p *pgproxy.Proxy) { p.Slow(slowBy) }, func(p *pgproxy.Proxy) { p.Slow(0) }},
		{networkSliced, func(p *pgproxy.Proxy) { p.Slice(true) }, func(p *pgproxy.Proxy) { p.Slice(false) }},
	})
	return func(ctx context.Context, i *instance, rng *rand.Rand) {
		w := next()
		s.faults.note("", w.name)
		w.begin(i.db)
		rest(ctx, upTo(rng, weatherAtMost))
		w.end(i.db)
	}
}

// sqlLock is what another session, such as a migration or somebody's console, holds
// while it thinks, and what the report calls it.
type sqlLock struct{ name, sql string }

var sqlLocks = []sqlLock{
	{lockTable, `LOCK TABLE idempotency_keys IN SHARE ROW EXCLUSIVE MODE`},
	{lockRows, `SELECT 1 FROM transactions WHERE lease_until IS NOT NULL FOR UPDATE SKIP LOCKED`},
}

// locks holds locks that the product's writes need, one after the other, for a while.
func (s *stage) locks() mischief {
	next := inTurn(s.seed, sqlLocks)
	return func(ctx context.Context, _ *instance, rng *rand.Rand) {
		s.lockUp(ctx, next(), upTo(rng, weatherAtMost))
	}
}

// lockUp holds a lock. Where it does not get it soon, nothing has happened.
func (s *stage) lockUp(ctx context.Context, lock sqlLock, d time.Duration) {
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

// ends is the end of PostgreSQL, in one way after the other, and its next start.
func (s *stage) ends() mischief {
	type way struct {
		name string
		end  func(context.Context) error
	}
	m := s.ground.mortal
	next := inTurn(s.seed, []way{{serverKilled, m.kill}, {serverStopped, m.stopAtOnce}, {serverRestarted, m.stopInOrder}})
	return func(ctx context.Context, _ *instance, rng *rand.Rand) {
		way := next()
		if m.fall(ctx, way.end, upTo(rng, downAtMost)) {
			s.faults.note("", way.name)
		}
	}
}
