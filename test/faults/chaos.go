package main

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"
)

// chaos breaks things at moments of its own choosing, until ctx ends: what named
// points reach on purpose, this reaches by chance.
func (s *stage) chaos(ctx context.Context) {
	rng := rand.New(rand.NewPCG(uint64(s.seed), 0xc4a05))
	acts := []func(context.Context, *instance, *rand.Rand){s.cutOff, s.refuse, s.nap}
	if s.wild {
		acts = append(acts, s.killAny, s.killAny, s.killAny, s.killBank)
	} else if s.withhold == "" {
		acts = append(acts, s.sleep)
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

func (s *stage) refuse(ctx context.Context, i *instance, rng *rand.Rand) {
	s.faults.note("", "provider: connection refused, for a while")
	i.psp.Refuse()
	rest(ctx, upTo(rng, time.Second/2))
	s.open(i)
}
