// Package report says what a fault campaign came to: on a terminal, as one line of
// JSON, as a section of the documentation and as the picture of the README. All
// four are made from one Result, so that none says more than the others.
package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oncepay/oncepay/test/faults/record"
)

// Result is what a campaign came to: sums over its rounds.
type Result struct {
	Commit  string
	Command string
	Took    time.Duration // by the clock on the wall
	Summed  time.Duration // running time of all rounds, which may run side by side
	Seed    int64         // the first
	Seeds   []int64       // of all rounds

	Operations, Nonces, Charges, Acknowledged   int
	Captures, Cancellations, Refunds, Callbacks int

	Faults  map[string]int    // by kind, such as "process: killed"
	Points  []Point           // crash points, in the order a payment meets them
	Kinds   []string          // every kind the campaign knows, so that what was not met can be said
	Excused map[string]string // kinds that could not be met, and why
	Oracles []string          // the names of all of them

	DoubleCharges, Lost, Unresolved, Parked, Undecided int
	DoubleCaptures, DoubleRefunds                      int
	Leaked                                             int // sums that stayed reserved for nobody

	Policies   []Policy // those that rounds were played under, in their order
	Violations []record.Violation
	Recovery   Recovery
	Mutants    []Mutant
}

// Policy is what the rounds under one idempotency policy came to.
type Policy struct {
	Name        string
	Rounds      int
	Nonces      int
	Charges     int // in the provider's ledger
	Replays     int // answers that were told again
	KeptErrors  int // nonces whose answer is an error
	KeptCharged int // of these, those whose payment was charged all the same
	Violations  int
}

// policyHead is what is said of each policy, before its name's column.
var policyHead = []string{"rounds", "nonces", "charges", "replays", "errors kept", "of them charged", "violations"}

func (p Policy) figures() []string {
	var all []string
	for _, n := range []int{p.Rounds, p.Nonces, p.Charges, p.Replays, p.KeptErrors, p.KeptCharged, p.Violations} {
		all = append(all, number(n))
	}
	return all
}

// Point is what became of processes at one crash point.
type Point struct {
	Name    string
	Reached int // passed at all
	Once    int // killed there
	Twice   int // killed there twice in a row
	Frozen  int // stopped there, and continued later
}

// Recovery is how long it took from a fault to the end of the transaction it hit.
type Recovery struct {
	Count         int
	P50, P99, Max time.Duration
}

// Mutant is the product with a defect put in on purpose: a campaign that does not
// notice it would not notice the same mistake made by accident.
type Mutant struct {
	Name, Defect             string
	Caught                   bool
	Oracle, Scenario, Detail string // what caught it, where, and its words
	Took                     time.Duration
}

// NotHit are the gaps, a sentence each: points at which nothing was killed once or
// twice, and kinds of fault that never happened.
func (r Result) NotHit() []string {
	var gaps []string
	for _, p := range r.Points {
		if p.Reached == 0 && p.Once == 0 && p.Twice == 0 {
			gaps = append(gaps, fmt.Sprintf("crash point %s: never reached", p.Name))
			continue
		}
		if p.Once == 0 {
			gaps = append(gaps, fmt.Sprintf("crash point %s: never once", p.Name))
		}
		if p.Twice == 0 {
			gaps = append(gaps, fmt.Sprintf("crash point %s: never twice", p.Name))
		}
	}
	for _, g := range r.groups() {
		for _, k := range g.kinds {
			if k.count == 0 {
				gaps = append(gaps, fmt.Sprintf("fault %s: never met%s", k.full, r.excuse(k.full)))
			}
		}
	}
	return gaps
}

// excuse is why a kind could not be met, behind a comma; or nothing.
func (r Result) excuse(kind string) string {
	if why := r.Excused[kind]; why != "" {
		return ", because " + why
	}
	return ""
}

// Failed says whether a promise was broken, or a defect that was put in on purpose
// went unnoticed.
func (r Result) Failed() bool { return len(r.failures()) > 0 }

// failures are the reasons for Failed, each with its number.
func (r Result) failures() []string {
	var why []string
	add := func(n int, one, many string) {
		if n != 0 {
			why = append(why, count(n, one, many))
		}
	}
	add(r.DoubleCharges, "double charge", "double charges")
	add(r.DoubleCaptures, "double capture", "double captures")
	add(r.DoubleRefunds, "double refund", "double refunds")
	add(r.Leaked, "reservation leaked", "reservations leaked")
	add(r.Lost, "payment lost", "payments lost")
	add(r.Unresolved, "nonce unresolved", "nonces unresolved")
	add(len(r.Violations), "violation", "violations")
	add(len(r.Mutants)-caught(r.Mutants), "mutant not caught", "mutants not caught")
	return why
}

// verdict is the campaign in one sentence. One in which no money moved shows
// nothing, and must not read as if it had.
func (r Result) verdict() string {
	switch why := r.failures(); {
	case len(why) > 0:
		return fmt.Sprintf("The campaign FAILED: %s.", strings.Join(why, ", "))
	case r.Charges == 0:
		return "No money moved in this campaign, so it shows nothing."
	default:
		return fmt.Sprintf("%s under %s: no double charge, nothing lost, nothing unresolved%s.",
			count(r.Nonces, "nonce", "nonces"), count(r.faults(), "fault", "faults"), r.reservations())
	}
}

// reservations are what broke no promise and still deserves to be said.
func (r Result) reservations() string {
	var b strings.Builder
	if r.Parked > 0 {
		fmt.Fprintf(&b, "; %s parked", number(r.Parked))
	}
	if r.Undecided > 0 {
		fmt.Fprintf(&b, "; %s undecided", number(r.Undecided))
	}
	return b.String()
}

// faults is how many there were in all.
func (r Result) faults() int {
	n := 0
	for _, c := range r.Faults {
		n += c
	}
	return n
}

// caught is how many mutants were.
func caught(ms []Mutant) int {
	n := 0
	for _, m := range ms {
		if m.Caught {
			n++
		}
	}
	return n
}

// group is the kinds of fault that hit the same thing.
type group struct {
	name  string
	kinds []kind
	total int
}

type kind struct {
	full, name string // "process: killed", and "killed"
	count      int
}

// groupOrder begins with what is nearest to the product. Others follow by name.
var groupOrder = []string{"process", "provider", "database", "client"}

// groups are all kinds, known or met, by what they hit; the most frequent first, so
// that the order depends on nothing but the figures.
func (r Result) groups() []group {
	counts := map[string]int{}
	for _, k := range r.Kinds {
		counts[k] = 0
	}
	maps.Copy(counts, r.Faults)
	byName := map[string]*group{}
	for full, n := range counts {
		hit, name, ok := strings.Cut(full, ":")
		if !ok {
			hit, name = "other", full
		}
		hit = strings.TrimSpace(hit)
		if byName[hit] == nil {
			byName[hit] = &group{name: hit}
		}
		g := byName[hit]
		g.total += n
		g.kinds = append(g.kinds, kind{full: full, name: strings.TrimSpace(name), count: n})
	}
	var all []group
	for _, g := range byName {
		slices.SortFunc(g.kinds, func(a, b kind) int {
			return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.full, b.full))
		})
		all = append(all, *g)
	}
	rank := func(g group) int {
		if i := slices.Index(groupOrder, g.name); i >= 0 {
			return i
		}
		return len(groupOrder)
	}
	slices.SortFunc(all, func(a, b group) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.name, b.name))
	})
	return all
}

// Recoveries sums durations up. Its percentiles are by nearest rank: each is a
// duration that was measured, not one between two.
func Recoveries(ds []time.Duration) Recovery {
	if len(ds) == 0 {
		return Recovery{}
	}
	sorted := slices.Sorted(slices.Values(ds))
	rank := func(percent int) time.Duration { return sorted[(len(sorted)*percent+99)/100-1] }
	return Recovery{Count: len(sorted), P50: rank(50), P99: rank(99), Max: sorted[len(sorted)-1]}
}
