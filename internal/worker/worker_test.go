package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The tests run in a bubble whose clock moves only when everybody waits, so they
// say exactly when something happens and take no time.

const every = 10 * time.Second

// step is what one call of RunOnce answers.
type step struct {
	n   int
	err error
}

// script answers with one step after the other, then with nothing done, and notes
// when it was called.
type script struct {
	steps []step
	calls []time.Time
}

func (s *script) runOnce(context.Context) (int, error) {
	s.calls = append(s.calls, time.Now())
	i := len(s.calls) - 1
	if i >= len(s.steps) {
		return 0, nil
	}
	return s.steps[i].n, s.steps[i].err
}

// pauses are the times between the calls.
func (s *script) pauses() []time.Duration {
	var ps []time.Duration
	for i := 1; i < len(s.calls); i++ {
		ps = append(ps, s.calls[i].Sub(s.calls[i-1]))
	}
	return ps
}

// run runs a loop over the script for that long and returns its log.
func (s *script) run(t *testing.T, l Loop, long time.Duration) []map[string]any {
	t.Helper()
	var logs bytes.Buffer
	l.Name, l.Every, l.RunOnce = "a loop", every, s.runOnce
	g := Start(t.Context(), slog.New(slog.NewJSONHandler(&logs, nil)), l)
	time.Sleep(long) //nolint:forbidigo // the bubble's clock: it takes no time
	g.Stop()
	var lines []map[string]any
	for line := range strings.Lines(logs.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, m)
	}
	return lines
}

func TestLoopWithNothingToDoComesAgainAfterItsInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, begun := &script{}, time.Now()
		if logs := s.run(t, Loop{}, 5*every); len(logs) != 0 {
			t.Errorf("the log has %v", logs)
		}
		if first := s.calls[0].Sub(begun); first < 0 || first >= every {
			t.Errorf("the first call came after %s, want less than %s", first, every)
		}
		if want := slices.Repeat([]time.Duration{every}, 4); !slices.Equal(s.pauses(), want) {
			t.Errorf("the pauses are %v, want %v", s.pauses(), want)
		}
	})
}

// Several instances that start together must not read the same rows in step.
func TestFirstWaitIsDrawn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first := map[time.Duration]bool{}
		for range 20 {
			s, begun := &script{}, time.Now()
			s.run(t, Loop{}, every)
			first[s.calls[0].Sub(begun)] = true
		}
		if len(first) < 10 {
			t.Errorf("20 loops have only %d different first waits", len(first))
		}
	})
}

func TestBatchThatDidSomethingIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []step{{n: 500}, {n: 500}, {n: 1}, {n: 0}, {n: 7}}}
		s.run(t, Loop{}, 4*every)
		want := []time.Duration{0, 0, 0, every, 0}
		if got := s.pauses(); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
			t.Errorf("the pauses are %v, want %v first", got, want)
		}
	})
}

// A loop that fails waits, whatever it did before it failed: an error that comes at
// once would otherwise become a storm. And it says so once, not each time.
func TestLoopThatFailsWaitsAndSaysSoOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		no := errors.New("no")
		s := &script{steps: []step{{err: no}, {n: 500, err: no}, {err: no}, {}, {}, {err: no}}}
		logs := s.run(t, Loop{}, 10*every)
		if want := slices.Repeat([]time.Duration{every}, 5); !slices.Equal(s.pauses()[:5], want) {
			t.Errorf("the pauses are %v, want %v first", s.pauses(), want)
		}
		var told []string
		for _, l := range logs {
			told = append(told, fmt.Sprint(l["level"], ": ", l["msg"], " ", l["loop"], " ", l["error"]))
		}
		want := []string{
			"WARN: a loop failed and goes on trying a loop no", "INFO: a loop works again a loop <nil>",
			"WARN: a loop failed and goes on trying a loop no", "INFO: a loop works again a loop <nil>",
		}
		if !slices.Equal(told, want) {
			t.Errorf("the log has %q, want %q", told, want)
		}
	})
}

func TestErrorsAreDescribedBeforeTheyAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []step{{err: errors.New("geheim")}}}
		logs := s.run(t, Loop{Describe: func(error) string { return "described" }}, every)
		if len(logs) != 1 || logs[0]["error"] != "described" {
			t.Errorf("the log has %v", logs)
		}
	})
}

func TestStopWaitsForWhatIsUnderWayAndBeginsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		calls, ended, cancelled := 0, false, false
		g := Start(t.Context(), slog.New(slog.NewJSONHandler(&logs, nil)), Loop{Name: "a loop", Every: every, RunOnce: func(ctx context.Context) (int, error) {
			calls++
			<-ctx.Done() // a batch is told to stop, and takes a moment to do so
			cancelled = true
			select {
			case <-t.Context().Done():
			case <-time.After(time.Minute):
			}
			ended = true
			return 500, ctx.Err()
		}})
		time.Sleep(2 * every) //nolint:forbidigo // the bubble's clock: it takes no time
		synctest.Wait()
		if calls != 1 || cancelled {
			t.Fatalf("%d calls, cancelled %t; want one under way", calls, cancelled)
		}
		begun := time.Now()
		g.Stop()
		if !ended || calls != 1 {
			t.Errorf("after Stop: ended %t, %d calls; want ended and 1", ended, calls)
		}
		if took := time.Since(begun); took != time.Minute {
			t.Errorf("Stop took %s, want as long as the batch", took)
		}
		if logs.Len() != 0 {
			t.Errorf("a stop is logged as %s", logs.String())
		}
		g.Stop() // twice is as good as once
	})
}

func TestLoopsEndWithTheirContextAndDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		quick, slow := &script{}, 0
		g := Start(ctx, slog.New(slog.DiscardHandler),
			Loop{Name: "quick", Every: time.Second, RunOnce: quick.runOnce},
			Loop{Name: "slow", Every: time.Second, RunOnce: func(ctx context.Context) (int, error) {
				slow++
				<-ctx.Done() // a provider that hangs
				return 0, ctx.Err()
			}})
		time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock: it takes no time
		synctest.Wait()
		cancel()
		g.Stop()
		if len(quick.calls) < 59 || slow != 1 {
			t.Errorf("in a minute the quick loop ran %d times and the slow one %d, want about 60 and 1", len(quick.calls), slow)
		}
		ran := len(quick.calls)
		time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock: it takes no time
		synctest.Wait()
		if len(quick.calls) != ran {
			t.Error("a loop outlived its context")
		}
	})
}
