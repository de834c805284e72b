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
	mu      sync.Mutex
	began   time.Time
	counts  map[string]int
	last    map[string]time.Time // by nonce
	lines   []string
	broken  []ended
	hangUps map[*order][]time.Time
}

func newFaults() *faults {
	return &faults{counts: map[string]int{}, last: map[string]time.Time{}, hangUps: map[*order][]time.Time{}, began: time.Now()}
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

// breakOff keeps a charge, or an operation, of an order whose connection our side closed.
func (f *faults) breakOff(o *order, b record.BrokenOff) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = append(f.broken, ended{b, o, time.Now()})
}

// hangUp notes that an order's client hung up, well before a charge's time-out.
func (f *faults) hangUp(o *order) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangUps[o] = append(f.hangUps[o], time.Now())
}

// ended is a connection that was closed, and when.
type ended struct {
	record.BrokenOff
	of *order // nil: of none that is known
	at time.Time
}

const (
	// quickPatience is half a charge's time-out: whoever hangs up so soon, and however
	// slow the machine is, the time-out of what it began is at least as long away.
	quickPatience = providerTimeout / 2
	// withClient is how soon after its client, or before we saw that one go, a charge
	// ends that ends because of it.
	withClient = quickPatience / 2
)

// brokenOff are the charges that ended with their clients. The others ended at
// their time-out, or with their process.
func (f *faults) brokenOff() []record.BrokenOff {
	var list []record.BrokenOff
	for _, b := range f.broken {
		for _, at := range f.hangUps[b.of] {
			if b.at.Sub(at).Abs() < withClient {
				b.Nonce = b.of.nonce
				list = append(list, b.BrokenOff)
				break
			}
		}
	}
	return list
}

func (f *faults) sums() (map[string]int, []record.BrokenOff) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.counts), f.brokenOff()
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
