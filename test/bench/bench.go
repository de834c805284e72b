package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// round is what the loads came to in one round, at one number of connections.
type round struct{ create, floor, replay, storm, mixed figures }

// result is a line of the table, and of the JSON: medians of the rounds. The ratio is
// the median of each round's own, because its two halves ran next to each other.
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

func (c benchCmd) run(ctx context.Context, out, progress io.Writer) error {
	if err := c.check(); err != nil {
		return err
	}
	began := time.Now()
	tell := func(format string, args ...any) {
		fmt.Fprintf(progress, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	var results []result
	var server string
	for _, stored := range c.Stored {
		series, about, err := c.series(ctx, stored, tell)
		if err != nil {
			return err
		}
		results, server = append(results, series...), about
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

// series measures every number of connections on one stage.
func (c benchCmd) series(ctx context.Context, stored int, tell func(string, ...any)) (results []result, server string, err error) {
	s, err := newStage(ctx, stored, tell)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if err := s.conn.QueryRow(ctx, `SELECT current_setting('server_version') || ', shared_buffers ' || current_setting('shared_buffers') || ', fsync ' ||
		current_setting('fsync') || ', synchronous_commit ' || current_setting('synchronous_commit')`).Scan(&server); err != nil {
		return nil, "", err
	}
	for _, connections := range c.Connections {
		rounds := make([]round, c.Rounds)
		for i := range rounds {
			if rounds[i], err = s.round(ctx, i, connections, c.Duration); err != nil {
				return nil, "", err
			}
			r := rounds[i]
			tell("%d stored, %d connections, round %d: %.0f creates/s, floor %.0f, ratio %.2f; %.0f replays/s, %.0f conflicts/s, %.0f mixed/s",
				stored, connections, i+1, r.create.perSecond(), r.floor.perSecond(), r.create.perSecond()/r.floor.perSecond(),
				r.replay.perSecond(), r.storm.perSecond(), r.mixed.perSecond())
		}
		results = append(results, summary(stored, connections, rounds))
	}
	tell("counting rows")
	return results, server, s.check(ctx)
}

// round runs everything once. Product and floor take turns at being the first.
func (s *stage) round(ctx context.Context, i, connections int, duration time.Duration) (r round, err error) {
	product := func() error {
		r.create, err = s.measure(ctx, func() (figures, error) { return s.load.run(ctx, connections, duration, s.load.creates()) })
		s.counts += r.create.created
		return err
	}
	below := func() error {
		r.floor, err = s.measure(ctx, func() (figures, error) { return s.floor.run(ctx, connections, duration) })
		s.floors += r.floor.created
		return err
	}
	turns := []func() error{product, below}
	if i%2 == 1 {
		slices.Reverse(turns)
	}
	for _, turn := range turns {
		if err := turn(); err != nil {
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
	return result{
		Connections: connections, Stored: stored, Rounds: len(rounds),
		CreatePerSecond:  of(func(r round) float64 { return r.create.perSecond() }),
		CreateRatio:      of(func(r round) float64 { return r.create.perSecond() / r.floor.perSecond() }),
		ReplayPerSecond:  of(func(r round) float64 { return r.replay.perSecond() }),
		StormPerSecond:   of(func(r round) float64 { return r.storm.perSecond() }),
		MixedPerSecond:   of(func(r round) float64 { return r.mixed.perSecond() }),
		FloorPerSecond:   of(func(r round) float64 { return r.floor.perSecond() }),
		P50:              of(func(r round) float64 { return ms(r.create.p50) }),
		P99:              of(func(r round) float64 { return ms(r.create.p99) }),
		FloorP50:         of(func(r round) float64 { return ms(r.floor.p50) }),
		FloorP99:         of(func(r round) float64 { return ms(r.floor.p99) }),
		GeneratorCPU:     of(func(r round) float64 { return each(r.create.cpu.generator, r.create) }),
		APICPU:           of(func(r round) float64 { return each(r.create.cpu.api, r.create) }),
		DatabaseCPU:      of(func(r round) float64 { return each(r.create.cpu.database, r.create) }),
		FloorDatabaseCPU: of(func(r round) float64 { return each(r.floor.cpu.database, r.floor) }),
		WAL:              of(func(r round) float64 { return float64(r.create.wal) / float64(max(r.create.created, 1)) }),
		FloorWAL:         of(func(r round) float64 { return float64(r.floor.wal) / float64(max(r.floor.created, 1)) }),
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

// tableOf is what people read.
func tableOf(results []result, server string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d processors for all of it; PostgreSQL %s. The provider is in the API's process and takes 0 ms.\n\n",
		machine(), runtime.NumCPU(), server)
	b.WriteString("| stored | connections | creates/s | floor/s | **ratio** | p50 / p99 ms | floor p50 / p99 ms | replays/s | 409s/s | mixed/s | CPU µs a payment: generator / API / database | floor's database | WAL bytes a payment | floor's |\n")
	b.WriteString("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %d | %d | %.0f | %.0f | **%.2f** | %.1f / %.1f | %.1f / %.1f | %.0f | %.0f | %.0f | %.0f / %.0f / %.0f | %.0f | %.0f | %.0f |\n",
			r.Stored, r.Connections, r.CreatePerSecond, r.FloorPerSecond, r.CreateRatio, r.P50, r.P99, r.FloorP50, r.FloorP99,
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
