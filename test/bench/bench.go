package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oncepay/oncepay/internal/postgres"
)

// round is what the loads came to in one round, at one number of connections. The
// floor runs with as many sessions as there are connections, and where those are more
// than the API has, with as many as the API as well.
type round struct{ create, floor, pooled, replay, storm, mixed figures }

// result is a line of the table, and of the JSON: medians of the rounds. The ratio is
// the median of each round's own, because its halves ran next to each other. It is the
// ratio to the better floor: the one with more payments a second, which is told first.
type result struct {
	Connections     int     `json:"connections"`
	Stored          int     `json:"stored"`
	CreatePerSecond float64 `json:"create_per_second"`
	CreateRatio     float64 `json:"create_ratio"`
	ReplayPerSecond float64 `json:"replay_per_second"`
	StormPerSecond  float64 `json:"conflict_per_second"`
	MixedPerSecond  float64 `json:"mixed_per_second"`
	P50             float64 `json:"p50_ms"`
	P99             float64 `json:"p99_ms"`
	FloorPerSecond  float64 `json:"floor_per_second"`
	FloorP50        float64 `json:"floor_p50_ms"`
	FloorP99        float64 `json:"floor_p99_ms"`
	FloorSessions   int     `json:"floor_sessions"`
	// The other floor; 0 where there is none.
	OtherFloorPerSecond float64 `json:"other_floor_per_second"`
	OtherFloorSessions  int     `json:"other_floor_sessions"`
	// Processor time of a payment, in microseconds, of all cores together.
	GeneratorCPU     float64 `json:"generator_cpu_us"`
	APICPU           float64 `json:"api_cpu_us"`
	DatabaseCPU      float64 `json:"database_cpu_us"`
	FloorDatabaseCPU float64 `json:"floor_database_cpu_us"`
	WAL              float64 `json:"wal_bytes"` // of a payment
	FloorWAL         float64 `json:"floor_wal_bytes"`
	Rounds           int     `json:"rounds"`
	ProviderMS       int     `json:"provider_ms"`
}

// errStopped says that somebody wanted it so.
var errStopped = errors.New("stopped")

func (c benchCmd) run(ctx context.Context, out, progress io.Writer) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Profile != "" {
		if err := os.MkdirAll(c.Profile, 0o755); err != nil {
			return err
		}
	}
	tell := teller(progress)
	var results []result
	var server string
	for _, stored := range c.Stored {
		series, about, err := c.series(ctx, stored, tell)
		results = append(results, series...)
		if about != "" {
			server = about
		}
		if errors.Is(err, errStopped) {
			return c.stopped(err, results, server, progress)
		}
		if err != nil {
			return err
		}
	}
	table := tableOf(results, server)
	if c.Markdown != "" {
		if err := os.WriteFile(c.Markdown, []byte(table), 0o644); err != nil {
			return err
		}
	}
	if !c.JSON {
		fmt.Fprint(out, table)
		return nil
	}
	for _, r := range results {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, string(line))
	}
	return nil
}

// teller writes lines of progress, from any goroutine.
func teller(to io.Writer) func(format string, args ...any) {
	began := time.Now()
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(to, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// stopped tells what was measured until then. It is no result: programs read those
// from the other output.
func (c benchCmd) stopped(err error, results []result, server string, progress io.Writer) error {
	all := len(c.Stored) * len(c.Connections)
	if len(results) == 0 {
		return fmt.Errorf("%w: none of %d lines had been measured", err, all)
	}
	fmt.Fprint(progress, "\n", tableOf(results, server))
	return fmt.Errorf("%w: %d of %d lines had been measured, and are above; the rows of the last series were not counted", err, len(results), all)
}

// series measures every number of connections on one stage. If it is stopped, the
// results are those until then.
func (c benchCmd) series(ctx context.Context, stored int, tell func(string, ...any)) (results []result, server string, err error) {
	s := &stage{}
	results, server, err = c.onStage(ctx, s, stored, tell)
	if ctx.Err() != nil {
		tell("stopping")
		err = errStopped
	}
	return results, server, errors.Join(err, s.close(ctx))
}

func (c benchCmd) onStage(ctx context.Context, s *stage, stored int, tell func(string, ...any)) (results []result, server string, err error) {
	if err := s.setUp(ctx, stored, tell); err != nil {
		return nil, "", err
	}
	if server, err = s.describe(ctx); err != nil {
		return nil, "", err
	}
	for _, connections := range c.Connections {
		rounds := make([]round, c.Rounds)
		for i := range rounds {
			if i == 0 && c.Profile != "" {
				s.profileTo = filepath.Join(c.Profile, fmt.Sprintf("%d-stored-%d-connections", stored, connections))
			}
			if rounds[i], err = s.round(ctx, i, connections, c.Duration); err != nil {
				return results, server, err
			}
			tell("%d stored, %d connections, round %d of %d: %s", stored, connections, i+1, c.Rounds, rounds[i])
		}
		results = append(results, summary(stored, connections, rounds))
	}
	tell("counting rows")
	return results, server, s.check(ctx)
}

// String is a line of progress.
func (r round) String() string {
	pooled := ""
	if r.pooled.sessions > 0 {
		pooled = fmt.Sprintf(", with %d sessions %.0f", r.pooled.sessions, r.pooled.perSecond())
	}
	return fmt.Sprintf("%.0f creates/s, floor %.0f%s; %.0f replays/s, %.0f conflicts/s, %.0f mixed/s",
		r.create.perSecond(), r.floor.perSecond(), pooled, r.replay.perSecond(), r.storm.perSecond(), r.mixed.perSecond())
}

// round runs everything once. Product and floors take turns at being the first.
func (s *stage) round(ctx context.Context, i, connections int, duration time.Duration) (r round, err error) {
	turns := []func() error{
		func() error {
			r.create, err = s.measure(ctx, func() (figures, error) { return s.creates(ctx, connections, duration) })
			s.counts += r.create.created
			return err
		},
		func() error {
			r.floor, err = s.measure(ctx, func() (figures, error) { return s.floor.run(ctx, connections, duration) })
			s.floors += r.floor.created
			return err
		},
	}
	if connections > postgres.DefaultMaxConns {
		turns = append(turns, func() error {
			r.pooled, err = s.measure(ctx, func() (figures, error) { return s.floor.run(ctx, postgres.DefaultMaxConns, duration) })
			s.floors += r.pooled.created
			return err
		})
	}
	for n := range turns {
		if err := turns[(n+i)%len(turns)](); err != nil {
			return r, err
		}
	}
	if r.replay, err = s.measure(ctx, func() (figures, error) { return s.load.run(ctx, connections, duration, s.load.replays()) }); err != nil {
		return r, err
	}
	if r.storm, err = s.withHeld(ctx, connections, duration, s.load.storm); err != nil {
		return r, err
	}
	r.mixed, err = s.withHeld(ctx, connections, duration, s.load.mixed)
	return r, err
}

// creates runs that load, and takes the profiles that were asked for meanwhile.
func (s *stage) creates(ctx context.Context, connections int, duration time.Duration) (figures, error) {
	if s.profileTo == "" {
		return s.load.run(ctx, connections, duration, s.load.creates())
	}
	to := s.profileTo
	s.profileTo = ""
	taken := make(chan error, 1)
	go func() { taken <- s.child.profile(ctx, to, duration) }()
	f, err := s.load.run(ctx, connections, duration, s.load.creates())
	return f, errors.Join(err, <-taken)
}

// withHeld runs a load while a payment is with its provider.
func (s *stage) withHeld(ctx context.Context, connections int, duration time.Duration, k func(held order) kind) (figures, error) {
	held, release, err := s.load.hold(ctx)
	if err != nil {
		return figures{}, err
	}
	f, err := s.measure(ctx, func() (figures, error) { return s.load.run(ctx, connections, duration, k(held)) })
	s.counts += f.created
	if err := errors.Join(err, release()); err != nil {
		return f, err
	}
	s.counts += heldPayments
	return f, nil
}

func summary(stored, connections int, rounds []round) result {
	of := func(f func(round) float64) float64 { return median(rounds, f) }
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	each := func(d time.Duration, f figures) float64 {
		return d.Seconds() * 1e6 / float64(max(f.created, 1))
	}
	floor := func(r round) figures { return r.floor }
	other := func(r round) figures { return r.pooled }
	if of(func(r round) float64 { return r.pooled.perSecond() }) > of(func(r round) float64 { return r.floor.perSecond() }) {
		floor, other = other, floor
	}
	return result{
		Connections: connections, Stored: stored, Rounds: len(rounds),
		FloorSessions: floor(rounds[0]).sessions, OtherFloorSessions: other(rounds[0]).sessions,
		CreatePerSecond:     of(func(r round) float64 { return r.create.perSecond() }),
		CreateRatio:         of(func(r round) float64 { return r.create.perSecond() / floor(r).perSecond() }),
		ReplayPerSecond:     of(func(r round) float64 { return r.replay.perSecond() }),
		StormPerSecond:      of(func(r round) float64 { return r.storm.perSecond() }),
		MixedPerSecond:      of(func(r round) float64 { return r.mixed.perSecond() }),
		FloorPerSecond:      of(func(r round) float64 { return floor(r).perSecond() }),
		OtherFloorPerSecond: of(func(r round) float64 { return other(r).perSecond() }),
		P50:                 of(func(r round) float64 { return ms(r.create.p50) }),
		P99:                 of(func(r round) float64 { return ms(r.create.p99) }),
		FloorP50:            of(func(r round) float64 { return ms(floor(r).p50) }),
		FloorP99:            of(func(r round) float64 { return ms(floor(r).p99) }),
		GeneratorCPU:        of(func(r round) float64 { return each(r.create.cpu.generator, r.create) }),
		APICPU:              of(func(r round) float64 { return each(r.create.cpu.api, r.create) }),
		DatabaseCPU:         of(func(r round) float64 { return each(r.create.cpu.database, r.create) }),
		FloorDatabaseCPU:    of(func(r round) float64 { return each(floor(r).cpu.database, floor(r)) }),
		WAL:                 of(func(r round) float64 { return float64(r.create.wal) / float64(max(r.create.created, 1)) }),
		FloorWAL:            of(func(r round) float64 { return float64(floor(r).wal) / float64(max(floor(r).created, 1)) }),
	}
}

// median of a figure over the rounds; of an even number, the mean of the middle two.
func median(rounds []round, f func(round) float64) float64 {
	all := make([]float64, len(rounds))
	for i, r := range rounds {
		all[i] = f(r)
	}
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}

// tableOf is what people read. server is what stage.describe says.
func tableOf(results []result, server string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d processors for all of it; %s. The provider is in the API's process and takes 0 ms.\n\n",
		machine(), runtime.NumCPU(), server)
	b.WriteString("| stored | connections | creates/s | floor/s (sessions) | other floor/s (sessions) | **ratio** | p50 / p99 ms | floor p50 / p99 ms | replays/s | 409s/s | mixed/s " +
		"| CPU µs a payment: generator / API / database | floor's database | WAL bytes a payment | floor's |\n")
	b.WriteString("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range results {
		other := ""
		if r.OtherFloorSessions > 0 {
			other = fmt.Sprintf("%.0f (%d)", r.OtherFloorPerSecond, r.OtherFloorSessions)
		}
		fmt.Fprintf(&b, "| %d | %d | %.0f | %.0f (%d) | %s | **%.2f** | %.1f / %.1f | %.1f / %.1f | %.0f | %.0f | %.0f | %.0f / %.0f / %.0f | %.0f | %.0f | %.0f |\n",
			r.Stored, r.Connections, r.CreatePerSecond, r.FloorPerSecond, r.FloorSessions, other, r.CreateRatio, r.P50, r.P99, r.FloorP50, r.FloorP99,
			r.ReplayPerSecond, r.StormPerSecond, r.MixedPerSecond, r.GeneratorCPU, r.APICPU, r.DatabaseCPU, r.FloorDatabaseCPU, r.WAL, r.FloorWAL)
	}
	return b.String()
}

// machine is the processor's name, where /proc tells it.
func machine() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // then it has no name
	for line := range strings.SplitSeq(string(data), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOOS + "/" + runtime.GOARCH
}
