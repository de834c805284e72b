package main

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/oncepay/oncepay/test/faults/record"
)

// faults counts what happened, and remembers when each nonce was last hit.
type faults struct {
	mu     sync.Mutex
	began  time.Time
	counts map[string]int
	last   map[string]time.Time // by nonce
	lines  []string
	broken []record.BrokenOff
}

func newFaults() *faults {
	return &faults{counts: map[string]int{}, last: map[string]time.Time{}, began: time.Now()}
}

// note counts a fault and the nonce that it hit, if it hit one alone.
func (f *faults) note(nonce, kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[kind]++
	f.lines = append(f.lines, fmt.Sprintf("%8.3f  %s  %s", time.Since(f.began).Seconds(), kind, nonce))
	if nonce != "" {
		f.last[nonce] = time.Now()
	}
}

// breakOff keeps a charge that our side broke off.
func (f *faults) breakOff(b record.BrokenOff) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = append(f.broken, b)
}

func (f *faults) sums() (map[string]int, []record.BrokenOff) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.counts), append([]record.BrokenOff(nil), f.broken...)
}

func (f *faults) lastHits() map[string]time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.last)
}

// log is every fault in the order in which they happened, with the seconds since
// the start of the round.
func (f *faults) log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.lines...)
}
