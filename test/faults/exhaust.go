package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oncepay/oncepay/internal/pgtest/pgbouncer"
	"github.com/oncepay/oncepay/internal/postgres"
)

// What runs out: an instance's own connections, and those that PostgreSQL has.
const (
	poolExhausted  = "database: an instance's pool is exhausted"
	slotsExhausted = "database: PostgreSQL has no connection left"
)

const (
	// pollBusy is how often it is looked whether a pool is exhausted by now.
	pollBusy = 5 * time.Millisecond
	// exhaustedFor is how long those who wait for a connection go on waiting.
	exhaustedFor = 500 * time.Millisecond
	// codeNoSlot is the SQLSTATE with which PostgreSQL refuses a connection too many.
	codeNoSlot = "53300"
)

// poolSize is how many connections an instance's pool can have to PostgreSQL: its own,
// or those that its PgBouncer shares out.
func (s *stage) poolSize() int {
	if s.ground.pgBouncer {
		return pgbouncer.PoolSize
	}
	return postgres.DefaultMaxConns
}

// exhaust sends a storm at one instance whose database says nothing meanwhile: more
// requests than its pool has connections. It counts if every one of these is taken.
func (s *stage) exhaust(ctx context.Context, o *order) {
	i := s.via(o, 0)
	var wg sync.WaitGroup
	i.db.Hold()
	for range o.manner.storm {
		wg.Go(func() { s.pay(ctx, ask{order: o, value: amount, via: i}) })
	}
	limit, cancel := context.WithTimeout(ctx, weatherAtMost)
	for limit.Err() == nil && i.db.Busy() < s.poolSize() {
		rest(limit, pollBusy)
	}
	if limit.Err() == nil {
		s.faults.note(o.nonce, poolExhausted)
		rest(limit, exhaustedFor)
	}
	cancel()
	i.db.Release()
	wg.Wait()
}

// takeSlots cuts an instance's connections, and other sessions take all that PostgreSQL
// has left, so that it refuses the instance's next ones for a while. The others keep
// theirs.
func (s *stage) takeSlots(ctx context.Context, i *instance, rng *rand.Rand) {
	d := upTo(rng, weatherAtMost)
	s.ground.mortal.undisturbed(func() {
		i.db.Down()
		taken, all := s.occupy(ctx)
		i.db.Up()
		if all {
			s.faults.note("", slotsExhausted)
			rest(ctx, d)
		}
		for _, conn := range taken {
			_ = conn.Close(context.WithoutCancel(ctx)) // it was never used
		}
	})
}

// occupy opens sessions until PostgreSQL refuses another one twice: after the first
// time, those that were just cut may still be on their way out. It says whether it did.
func (s *stage) occupy(ctx context.Context) (taken []*pgx.Conn, all bool) {
	for refusals := 0; refusals < 2 && ctx.Err() == nil; {
		conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
		if err == nil {
			taken, refusals = append(taken, conn), 0
			continue
		}
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != codeNoSlot {
			return taken, false
		}
		refusals++
		rest(ctx, pollEvery)
	}
	return taken, ctx.Err() == nil
}

// undisturbed does something to the server that is not to end meanwhile, unless it is
// healed already.
func (m *mortal) undisturbed(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.calm && m.failure == nil {
		f()
	}
}
