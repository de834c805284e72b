package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/postgres"
)

const (
	// MinutesEvery is how often the figures by minute should be written: often enough
	// that a page which shows them is never far behind, and one small row each time.
	MinutesEvery = 10 * time.Second

	// minutesRetention is how long they stay: longer than the longest chart, and a month
	// of one instance is some 43,000 rows.
	minutesRetention = 30 * 24 * time.Hour

	// minutesBatch keeps a purge's locks short. It is a day of two instances'.
	minutesBatch = 3000

	// MaxSteps bounds what Read returns: a day in minutes fits.
	MaxSteps = 1500
)

// tally is what this process counts of the merchants' requests beside the metrics, in
// numbers that can be read without gathering every series: a few atomic additions a
// request.
type tally struct {
	failures, began, replayed, conflicts atomic.Int64
	durations                            [buckets]atomic.Int64
}

// request counts one request of the public listener. Probes are nobody's traffic: they
// come every second from several sides, and would hide what merchants meet.
func (t *tally) request(s httpapi.Seen) {
	if s.Route == httpapi.LivezPath || s.Route == httpapi.ReadyzPath {
		return
	}
	if s.Status >= 500 {
		t.failures.Add(1)
	}
	t.durations[bucketOf(s.Duration.Seconds())].Add(1)
	if s.Line.Unprotected {
		return
	}
	switch idem.Verdict(s.Line.Verdict) {
	case idem.New, idem.Resumed:
		t.began.Add(1)
	case idem.Replayed:
		t.replayed.Add(1)
	case idem.InProcess, idem.Mismatch:
		t.conflicts.Add(1)
	default: // rejected before it began, or about nothing that has a nonce
	}
}

// bucketOf is the first bucket whose bound is not less, as in Prometheus.
func bucketOf(seconds float64) int {
	for i, bound := range requestBuckets {
		if seconds <= bound {
			return i
		}
	}
	return len(requestBuckets)
}

// counts are what has been counted up to now.
func (t *tally) counts() Counts {
	c := Counts{Failures: t.failures.Load(), Began: t.began.Load(), Replayed: t.replayed.Load(), Conflicts: t.conflicts.Load()}
	for i := range t.durations {
		c.Durations[i] = t.durations[i].Load()
		c.Requests += c.Durations[i]
	}
	return c
}

// Minutes keeps this process's figures by minute in the database, where those of all
// instances are added up.
//
// A row is written as what the minute has come to, never as what to add to it: so it can
// be written again when nobody knows whether it arrived, and counts once. Which minute it
// is, the database's clock says at the time of writing. So what happens in the last
// seconds of a minute, up to MinutesEvery, may count to the next; and what happens while
// the database is away counts to the minute in which it is back.
type Minutes struct {
	store  minutesStore
	counts func() Counts

	mu       sync.Mutex
	writer   uuid.UUID // whose rows they are: this process, under one clock
	minute   time.Time // of the row that is being written; zero: none yet
	begun    Counts    // what had been counted when that minute began
	tried    Counts    // what had been counted when the row was last written
	unsure   bool      // whether that write may have failed
	purgedAt time.Time // the minute in which nothing was left to purge
}

// Minutes returns the figures by minute in db. Each process needs one: let a loop call
// RunOnce every MinutesEvery, and call it once more when the last request is done.
func (t *Telemetry) Minutes(db *postgres.DB) *Minutes {
	return &Minutes{store: minutesStore{db}, counts: t.metrics.tally.counts, writer: uuid.New()}
}

// RunOnce writes what has been counted since the last time, and removes rows that are
// past their time. It returns how many were removed. What could not be written is written
// the next time.
func (m *Minutes) RunOnce(ctx context.Context) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	minute, err := m.store.minute(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask which minute it is: %w", err)
	}
	if err := m.write(ctx, minute); err != nil {
		return 0, fmt.Errorf("write the figures of a minute: %w", err)
	}
	if m.purgedAt.Equal(minute) {
		return 0, nil
	}
	n, err := m.store.purge(ctx, minutesRetention, minutesBatch)
	if err != nil {
		return 0, fmt.Errorf("purge figures by minute: %w", err)
	}
	if n < minutesBatch {
		m.purgedAt = minute
	}
	return n, nil
}

// write brings the row of this minute up to date, and before that one whose last write
// may have failed. An idle instance writes nothing.
func (m *Minutes) write(ctx context.Context, minute time.Time) error {
	if !minute.Equal(m.minute) {
		if err := m.settle(ctx); err != nil {
			return err
		}
		if minute.Before(m.minute) {
			m.writer = uuid.New() // the clock went back: our row of that minute is full, and stays as it is
		}
		m.minute, m.begun = minute, m.tried
	}
	now := m.counts()
	if now == m.tried && !m.unsure {
		return nil
	}
	m.tried, m.unsure = now, true
	return m.settle(ctx)
}

// settle writes the row as it was last tried, unless it is known to be written.
func (m *Minutes) settle(ctx context.Context) error {
	if !m.unsure {
		return nil
	}
	if err := m.store.save(ctx, m.minute, m.writer, m.tried.less(m.begun)); err != nil {
		return err
	}
	m.unsure = false
	return nil
}

// Point is what all instances together counted in one step of time.
type Point struct {
	Begin   time.Time     // UTC
	Covered time.Duration // whole minutes in it that are over: the step, or less in the last
	Counts
}

// Series are figures of equal steps, the oldest first and without gaps: a step in which
// nothing was asked has zeros. Running is the minute that is not over, and no part of a
// point.
type Series struct {
	ReadAt  time.Time // by the database's clock
	Step    time.Duration
	Points  []Point
	Running Point
}

// Total adds everything up, the running minute included.
func (s Series) Total() Counts {
	sum := s.Running.Counts
	for _, p := range s.Points {
		sum = sum.plus(p.Counts)
	}
	return sum
}

var errSteps = fmt.Errorf("a series has 1 to %d steps of whole minutes", MaxSteps)

// Read returns the figures of at least the last span, in steps that begin at round times
// of UTC. Both are whole minutes, and span is at most MaxSteps steps. It reads one row a
// minute and instance.
func (m *Minutes) Read(ctx context.Context, span, step time.Duration) (Series, error) {
	if step < time.Minute || step%time.Minute != 0 || span < step || span%time.Minute != 0 || span > MaxSteps*step {
		return Series{}, errSteps
	}
	rows, err := m.store.read(ctx, span, step)
	if err != nil {
		return Series{}, fmt.Errorf("read figures by minute: %w", err)
	}
	if len(rows) == 0 {
		return Series{}, errors.New("read figures by minute: no answer")
	}
	return series(rows, step)
}

// series puts rows where they belong. Each names the first step and the running minute.
func series(rows []minuteRow, step time.Duration) (Series, error) {
	first, running := rows[0].First.UTC(), rows[0].Running.UTC()
	s := Series{ReadAt: rows[0].ReadAt.UTC(), Step: step, Running: Point{Begin: running}}
	for t := first; t.Before(running); t = t.Add(step) {
		s.Points = append(s.Points, Point{Begin: t, Covered: min(step, running.Sub(t))})
	}
	for _, r := range rows {
		if r.Begin == nil {
			continue // nobody has counted anything
		}
		c, err := r.counts()
		if err != nil {
			return Series{}, err
		}
		switch i := int(r.Begin.Sub(first) / step); {
		case r.IsRunning:
			s.Running.Counts = c
		case i >= 0 && i < len(s.Points):
			s.Points[i].Counts = c
		default:
			return Series{}, errors.New("read figures by minute: a row outside of what was asked for")
		}
	}
	return s, nil
}
