package httpapi

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clock is a time that only a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newTestLimiter(perMinute int) (*Limiter, *clock) {
	l, c := NewLimiter(perMinute), newClock()
	l.now = c.now
	return l, c
}

func TestLimiterAllowsSoManyAMinuteToEachKey(t *testing.T) {
	t.Parallel()
	l, c := newTestLimiter(60)
	for i := range 60 {
		if wait := l.Take("one"); wait != 0 {
			t.Fatalf("event %d has to wait for %s", i+1, wait)
		}
	}
	for range 3 { // being told to wait costs nothing
		if wait := l.Take("one"); wait != time.Second {
			t.Fatalf("the 61st has to wait for %s, want 1s", wait)
		}
	}
	if wait := l.Take("another"); wait != 0 {
		t.Errorf("another key has to wait for %s", wait)
	}
	c.pass(time.Second)
	if wait := l.Take("one"); wait != 0 {
		t.Errorf("a second later one has to wait for %s", wait)
	}
	if wait := l.Take("one"); wait != time.Second {
		t.Errorf("the second one has to wait for %s, want 1s", wait)
	}
	c.pass(time.Hour)
	allowed := 0
	for l.Take("one") == 0 {
		allowed++
	}
	if allowed != 60 {
		t.Errorf("an hour later %d are allowed at once, want 60", allowed)
	}
}

func TestLimiterForgetsWhoIsLeftAloneAndNobodyElse(t *testing.T) {
	t.Parallel()
	l, c := newTestLimiter(10)
	for range 10 {
		l.Take("busy")
	}
	for range 6 { // through three generations and more
		c.pass(30 * time.Second)
		for range 5 {
			if wait := l.Take("busy"); wait != 0 {
				t.Fatalf("what was earned has to wait for %s", wait)
			}
		}
		if l.Take("busy") == 0 {
			t.Fatal("a new generation has given an allowance away")
		}
	}
	l.Take("idle")
	c.pass(time.Minute)
	l.Take("busy")
	c.pass(time.Minute)
	l.Take("busy")
	if _, young := l.young["idle"]; young {
		t.Error("a key that was left alone is among the young")
	}
	if _, old := l.old["idle"]; old {
		t.Error("a key that was left alone for two minutes is still known")
	}
}

func TestLimiterNeverKnowsMoreThanItsTwoGenerations(t *testing.T) {
	t.Parallel()
	l, _ := newTestLimiter(1)
	for i := range 5 * maxBuckets {
		if wait := l.Take(fmt.Sprint(i)); wait != 0 {
			t.Fatalf("the first event of key %d has to wait for %s", i, wait)
		}
		if n := len(l.young) + len(l.old); n > 2*maxBuckets {
			t.Fatalf("%d buckets after %d keys", n, i+1)
		}
	}
	if l.Take(fmt.Sprint(5*maxBuckets-1)) == 0 {
		t.Error("the newest key was forgotten")
	}
}

func TestLimiterCountsRightWhoeverRaces(t *testing.T) {
	t.Parallel()
	l, _ := newTestLimiter(100)
	var allowed atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if l.Take("shared") == 0 {
					allowed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if allowed.Load() != 100 {
		t.Errorf("%d of 400 were allowed, want 100", allowed.Load())
	}
}

func TestNoLimiterLimitsNothing(t *testing.T) {
	t.Parallel()
	var l *Limiter
	if wait := l.Take("anybody"); wait != 0 {
		t.Errorf("one has to wait for %s", wait)
	}
}

func TestRetryAfterIsInWholeSecondsAndEnough(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]int{
		time.Nanosecond: 1, time.Second: 1, time.Second + 1: 2, 59500 * time.Millisecond: 60,
	} {
		if e := TooMany("wait", wait); e.RetryAfter != want || e.Status != 429 || e.Code != "RATE_LIMITED" {
			t.Errorf("%s: %d %s, Retry-After %d, want %d", wait, e.Status, e.Code, e.RetryAfter, want)
		}
	}
}
