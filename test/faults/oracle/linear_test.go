package oracle

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/oncepay/oncepay/test/faults/record"
)

// Histories are written from start to end, in milliseconds.

func at(start, end int, o record.Op) record.Op {
	o.Account, o.Nonce, o.Order = shop, "n", "o"
	o.Start, o.End = time.Duration(start)*time.Millisecond, time.Duration(end)*time.Millisecond
	return o
}

func pay201(start, end int, payment string) record.Op {
	body := fmt.Appendf(nil, `{"id":%q,"amount":{"value":1,"currency":"USD"}}`, payment)
	return at(start, end, record.Op{Kind: record.Pay, Status: 201, Body: body})
}

func payError(start, end, status int, code string) record.Op {
	return at(start, end, record.Op{Kind: record.Pay, Status: status, Code: code})
}

func payFailed(start, end int) record.Op {
	return at(start, end, record.Op{Kind: record.Pay, Failed: true})
}

func busy(start, end int) record.Op { return payError(start, end, 409, "REQUEST_IN_PROCESS") }

func seen(start, end int, payment string) record.Op {
	return at(start, end, record.Op{Kind: record.Look, Status: 200, Answered: true, Payment: payment})
}

func unseen(start, end int) record.Op {
	return at(start, end, record.Op{Kind: record.Look, Status: 404})
}

func aged(start, end int, answered bool) record.Op {
	return at(start, end, record.Op{Kind: record.Age, AnsweredBefore: answered})
}

func TestLinearizable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		legal bool
		ops   []record.Op
	}{
		{"nothing at all", true, nil},
		{"an answer and its replay", true, []record.Op{pay201(0, 5, "p"), pay201(6, 7, "p")}},
		{"another payment in the same life", false, []record.Op{pay201(0, 5, "p"), pay201(6, 7, "q")}},
		{"another payment at the same time", false, []record.Op{pay201(0, 5, "p"), pay201(0, 5, "q")}},
		{"a duplicate is told so meanwhile", true, []record.Op{pay201(0, 5, "p"), busy(1, 2)}},
		{"a duplicate that was slow to hear so", true, []record.Op{pay201(0, 5, "p"), busy(1, 9)}},
		{"a duplicate is told so after the answer", false, []record.Op{pay201(0, 5, "p"), busy(6, 7)}},
		{"an outcome that is open at first", true, []record.Op{payError(0, 1, 504, "REQUEST_TIMEOUT"), payError(2, 3, 502, "PROVIDER_ERROR"), pay201(4, 5, "p")}},
		{"an outcome that becomes open again", false, []record.Op{pay201(0, 1, "p"), payError(2, 3, 504, "REQUEST_TIMEOUT")}},
		{"an answer that becomes a provider's error", false, []record.Op{pay201(0, 1, "p"), payError(2, 3, 502, "PROVIDER_ERROR")}},
		{"a refusal that is corrected", true, []record.Op{payError(0, 1, 400, "INVALID_REQUEST"), pay201(2, 3, "p")}},
		{"an answer that becomes a refusal", false, []record.Op{pay201(0, 1, "p"), payError(2, 3, 400, "INVALID_REQUEST")}},
		{"a provider that was not reached at first", true, []record.Op{payError(0, 1, 503, "PROVIDER_UNAVAILABLE"), pay201(2, 3, "p")}},
		{"an answer that was not reached", false, []record.Op{pay201(0, 1, "p"), payError(2, 3, 503, "PROVIDER_UNAVAILABLE")}},
		{"we ourselves are away, whenever", true, []record.Op{
			payError(0, 1, 503, "SERVICE_UNAVAILABLE"), pay201(2, 3, "p"), payError(4, 5, 503, "SERVICE_UNAVAILABLE"), payError(6, 7, 500, ""), payFailed(8, 9), pay201(10, 11, "p"),
		}},
		{"a door's own 502 says nothing", true, []record.Op{pay201(0, 1, "p"), payError(2, 3, 502, "")}},
		{"recovery answers in the background", true, []record.Op{payFailed(0, 1), unseen(2, 3), seen(4, 5, "p"), pay201(6, 7, "p")}},
		{"recovery answers, and the nonce is still busy", false, []record.Op{payFailed(0, 1), seen(4, 5, "p"), busy(6, 7)}},
		{"recovery answers with another payment", false, []record.Op{payFailed(0, 1), seen(4, 5, "p"), pay201(6, 7, "q")}},
		{"an answer that a look-up does not find", false, []record.Op{pay201(0, 1, "p"), unseen(2, 3)}},
		{"a look-up that was begun before", true, []record.Op{pay201(2, 4, "p"), unseen(0, 5)}},
		{"a look-up that finds another payment", false, []record.Op{pay201(0, 1, "p"), seen(2, 3, "q")}},
		{"a look-up ahead of the answer", true, []record.Op{pay201(0, 5, "p"), seen(1, 2, "p")}},
		{"an answer that nobody asked for", false, []record.Op{seen(0, 1, "p")}},
		{"an answer before it was asked for", false, []record.Op{seen(0, 1, "p"), payFailed(2, 3)}},
		{"a look-up that failed says nothing", true, []record.Op{
			pay201(0, 1, "p"), at(2, 3, record.Op{Kind: record.Look, Failed: true}), at(4, 5, record.Op{Kind: record.Look, Status: 503}),
		}},
		{"a new life after an age", true, []record.Op{pay201(0, 1, "p"), aged(2, 3, true), unseen(4, 5), pay201(6, 7, "q")}},
		{"a new life after an age that found no answer", false, []record.Op{pay201(0, 1, "p"), aged(2, 3, false), pay201(4, 5, "q")}},
		{"a new life before the age", false, []record.Op{pay201(0, 1, "p"), pay201(2, 3, "q"), aged(4, 5, true)}},
		{"an age that failed took place", true, []record.Op{pay201(0, 1, "p"), at(2, 3, record.Op{Kind: record.Age, Failed: true}), pay201(4, 5, "q")}},
		{"an age that failed did not take place", true, []record.Op{pay201(0, 1, "p"), at(2, 3, record.Op{Kind: record.Age, Failed: true}), pay201(4, 5, "p"), seen(6, 7, "p")}},
		{"one age allows one life", false, []record.Op{pay201(0, 1, "p"), aged(2, 3, true), pay201(4, 5, "q"), pay201(6, 7, "r")}},
		{"an age of an answer that nobody had seen", true, []record.Op{payFailed(0, 1), aged(2, 3, true), pay201(4, 5, "q")}},
		{"a request that was held until the next life", true, []record.Op{pay201(0, 1, "p"), payFailed(1, 2), aged(3, 4, true), seen(5, 6, "q"), pay201(7, 8, "q")}},
		{"an answer that nobody asked for in this life", false, []record.Op{pay201(0, 1, "p"), aged(2, 3, true), seen(4, 5, "q")}},
		{"two ages at once", true, []record.Op{pay201(0, 1, "p"), aged(2, 9, true), aged(2, 9, true), pay201(3, 4, "q"), pay201(5, 6, "r")}},
		{"two ages, and three lives more", false, []record.Op{pay201(0, 1, "p"), aged(2, 9, true), aged(2, 9, true), pay201(3, 4, "q"), pay201(5, 6, "r"), pay201(7, 8, "s")}},
		{"a life's long replay around the next life's", false, []record.Op{pay201(0, 1, "p"), aged(2, 3, true), pay201(4, 5, "q"), busy(6, 7), pay201(4, 8, "q")}},
		{"a late end of the first life's answer", true, []record.Op{pay201(0, 9, "p"), aged(2, 3, true), pay201(4, 5, "q")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			trial := newTrial(Run{Ops: c.ops}, world{})
			linearizable(trial)
			if legal := len(trial.violations) == 0; legal != c.legal || trial.figures.Undecided > 0 {
				t.Errorf("legal: %t, undecided: %d, %+v", legal, trial.figures.Undecided, trial.violations)
			}
		})
	}
}

// The bytes of an answer are the first ones for ever, even if only a look-up had
// told its payment before.
func TestLinearizableComparesBytes(t *testing.T) {
	t.Parallel()
	other := pay201(6, 7, "p")
	other.Body = append(other.Body, ' ')
	trial := newTrial(Run{Ops: []record.Op{payFailed(0, 1), seen(2, 3, "p"), pay201(4, 5, "p"), other}}, world{})
	linearizable(trial)
	if len(trial.violations) != 1 {
		t.Errorf("violations: %+v", trial.violations)
	}
}

// A storm of requests without an answer does not make the search hopeless, legal
// or not.
func TestLinearizableDecidesAStorm(t *testing.T) {
	t.Parallel()
	ops := []record.Op{pay201(50, 60, "p")}
	for i := range 200 {
		ops = append(ops, payFailed(i, i+20), busy(i/4, 10+i/4), pay201(70+i/2, 90+i/2, "p"), seen(60+i, 100+i, "p"))
	}
	for _, last := range []struct {
		op    record.Op
		legal bool
	}{{pay201(300, 301, "p"), true}, {pay201(300, 301, "q"), false}} {
		trial := newTrial(Run{Ops: append(ops[:len(ops):len(ops)], last.op)}, world{})
		linearizable(trial)
		if trial.figures.Undecided > 0 || (len(trial.violations) == 0) != last.legal {
			t.Errorf("undecided: %d, violations: %+v", trial.figures.Undecided, trial.violations)
		}
	}
}

// What historyOf leaves out, and the order that it asks for, change no verdict:
// small histories are judged once more with everything in them.
func TestShortHistoriesAreJudgedTheSame(t *testing.T) {
	t.Parallel()
	verdicts, policy := map[porcupine.CheckResult]int{}, under(t, "novu")
	for seed := range uint64(4000) {
		random := rand.New(rand.NewPCG(seed, 1))
		var ops []record.Op
		for range 3 + random.IntN(6) {
			start := random.IntN(12)
			end := start + random.IntN(6)
			payment := string('p' + rune(random.IntN(2)))
			switch random.IntN(7) {
			case 0, 1:
				ops = append(ops, pay201(start, end, payment))
			case 2:
				ops = append(ops, busy(start, end))
			case 3:
				ops = append(ops, aged(start, end, true))
			case 4:
				ops = append(ops, seen(start, end, payment))
			case 5:
				ops = append(ops, payFailed(start, end))
			case 6:
				ops = append(ops, kept(start, end, payment))
			}
		}
		var whole []porcupine.Operation
		for _, o := range ops {
			if what, ok := saidBy(policy, o); ok {
				s := step{said: what, kind: maxKinds, begun: canHaveBegun(policy, ops, o)}
				whole = append(whole, porcupine.Operation{Input: s, Call: int64(o.Start), Return: int64(o.End)})
			}
		}
		verdict, want := porcupine.CheckOperationsTimeout(model, historyOf(policy, ops), time.Minute),
			porcupine.CheckOperationsTimeout(model, whole, time.Minute)
		if verdict != want {
			t.Errorf("seed %d: %s, and with everything in it %s: %s", seed, verdict, want, tell(ops))
		}
		verdicts[verdict]++
	}
	if verdicts[porcupine.Ok] < 500 || verdicts[porcupine.Illegal] < 500 {
		t.Errorf("histories of one sort prove little: %v", verdicts)
	}
}

func TestAComplaintTellsTheHistory(t *testing.T) {
	t.Parallel()
	trial := newTrial(Run{Seed: 3, Ops: []record.Op{pay201(0, 5, "p"), aged(6, 7, false), seen(8, 9, "p"), busy(10, 11)}}, world{})
	linearizable(trial)
	if len(trial.violations) != 1 {
		t.Fatalf("violations: %+v", trial.violations)
	}
	for _, words := range []string{
		"nonce n of account " + shop, "0s–5ms pay 201 payment p (", "6ms–7ms age, and nothing was answered", "look: answered, payment p", "10ms–11ms pay 409 REQUEST_IN_PROCESS",
	} {
		if !strings.Contains(trial.violations[0].Detail, words) {
			t.Errorf("%q is not in %q", words, trial.violations[0].Detail)
		}
	}
}
