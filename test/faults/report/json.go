package report

import (
	"encoding/json"
	"io"
	"time"

	"github.com/oncepay/oncepay/test/faults/record"
)

// line is the JSON form. Its names are read by scripts: they are added to, not
// changed.
type line struct {
	Seed           int64              `json:"seed"`
	Seeds          []int64            `json:"seeds"`
	Operations     int                `json:"operations"`
	Nonces         int                `json:"nonces"`
	Charges        int                `json:"charges"`
	Captures       int                `json:"captures"`
	Cancellations  int                `json:"cancellations"`
	Refunds        int                `json:"refunds"`
	Callbacks      int                `json:"callbacks"`
	Acknowledged   int                `json:"acknowledged"`
	Faults         map[string]int     `json:"faults"`
	CrashPoints    []linePoint        `json:"crash_points"`
	NotHit         []string           `json:"not_hit"`
	DoubleCharges  int                `json:"double_charges"`
	DoubleCaptures int                `json:"double_captures"`
	DoubleRefunds  int                `json:"double_refunds"`
	Leaked         int                `json:"leaked"`
	Lost           int                `json:"lost"`
	Policies       []linePolicy       `json:"policies"`
	Violations     []record.Violation `json:"violations"`
	Unresolved     int                `json:"unresolved"`
	Parked         int                `json:"parked"`
	Undecided      int                `json:"undecided"`
	Recovery       lineRecovery       `json:"recovery_ms"`
	DurationS      float64            `json:"duration_s"`
	SummedS        float64            `json:"summed_s"`
	Commit         string             `json:"commit"`
	Mutants        []lineMutant       `json:"mutants,omitempty"`
}

type linePolicy struct {
	Name        string `json:"name"`
	Rounds      int    `json:"rounds"`
	Nonces      int    `json:"nonces"`
	Charges     int    `json:"charges"`
	Replays     int    `json:"replays"`
	KeptErrors  int    `json:"kept_errors"`
	KeptCharged int    `json:"kept_charged"`
	Violations  int    `json:"violations"`
}

type linePoint struct {
	Name    string `json:"name"`
	Reached int    `json:"reached"`
	Once    int    `json:"once"`
	Twice   int    `json:"twice"`
	Frozen  int    `json:"frozen"`
}

type lineRecovery struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

type lineMutant struct {
	Name     string `json:"name"`
	Caught   bool   `json:"caught"`
	Oracle   string `json:"oracle"`
	Scenario string `json:"scenario"`
}

// JSON writes the campaign as one line. Lists that are empty are [], so that a
// reader can ask for their length.
func JSON(w io.Writer, r Result) error {
	out := line{
		Seed: r.Seed, Seeds: append([]int64{}, r.Seeds...),
		Operations: r.Operations, Nonces: r.Nonces, Charges: r.Charges, Acknowledged: r.Acknowledged,
		Captures: r.Captures, Cancellations: r.Cancellations, Refunds: r.Refunds, Callbacks: r.Callbacks,
		DoubleCaptures: r.DoubleCaptures, DoubleRefunds: r.DoubleRefunds, Leaked: r.Leaked,
		Faults: r.Faults, CrashPoints: []linePoint{}, Policies: []linePolicy{}, NotHit: append([]string{}, r.NotHit()...),
		DoubleCharges: r.DoubleCharges, Lost: r.Lost, Violations: append([]record.Violation{}, r.Violations...),
		Unresolved: r.Unresolved, Parked: r.Parked, Undecided: r.Undecided,
		Recovery: lineRecovery{
			Count: r.Recovery.Count, P50: millis(r.Recovery.P50), P99: millis(r.Recovery.P99), Max: millis(r.Recovery.Max),
		},
		DurationS: seconds(r.Took), SummedS: seconds(r.Summed), Commit: r.Commit,
	}
	if out.Faults == nil {
		out.Faults = map[string]int{}
	}
	for _, p := range r.Policies {
		out.Policies = append(out.Policies, linePolicy(p))
	}
	for _, p := range r.Points {
		out.CrashPoints = append(out.CrashPoints, linePoint(p))
	}
	for _, m := range r.Mutants {
		out.Mutants = append(out.Mutants, lineMutant{Name: m.Name, Caught: m.Caught, Oracle: m.Oracle, Scenario: m.Scenario})
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // it goes to a terminal or a file
	return e.Encode(out)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
