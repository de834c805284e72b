package oracle

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/test/faults/record"
)

const (
	// linearizableLimit bounds the search over all nonces of a run, nonceLimit that
	// over one: the problem is hard, and a single bad history must not take the time
	// of the others.
	linearizableLimit = 20 * time.Second
	nonceLimit        = 2 * time.Second

	// quoted is how many operations of a history a complaint shows.
	quoted = 40
)

// maxKinds is for how many kinds of steps a history keeps their order. A nonce with
// two lives has five.
const maxKinds = 16

// life is the state of a nonce: between two ages it has no answer yet, or one for
// good. Recovery answers in the background and says so to nobody, so that a nonce
// without an answer may get one at any time. An answer is a payment, and bytes once
// somebody has been told them: a look-up tells the payment only, and an error, which
// some policies keep as the answer, the bytes only.
type life struct {
	answered bool
	payment  string // "": nobody has been told
	bytes    [sha256.Size]byte
	told     bool // bytes are known
	// done counts the steps that took place, by kind.
	done [maxKinds]int
}

// fact is what an operation says of its nonce.
type fact uint8

const (
	nothing     fact = iota // whatever the nonce was, this could be said
	isAnswered              // by these bytes
	isKept                  // by these bytes, which are an error and tell no payment
	isPayment               // answered, by this payment
	notAnswered             // it had no answer
	hasEnded                // it had an answer, which is over now
)

// said is a fact with all that it says. Steps that say the same are of one kind.
type said struct {
	fact    fact
	payment string
	bytes   [sha256.Size]byte
}

// step is one operation as the model sees it.
type step struct {
	said
	// begun says of a look-up that somebody can have begun the life that it found.
	begun bool
	// turn is its place among the steps of its kind, the first maxKinds of which
	// take place in that order.
	kind, turn int
}

// model says what a nonce may answer when. Its operations take place one after the
// other, each at some moment between its start and its end.
//
// Where a transaction was unresolved as its nonce was aged, the answer outlives that
// until it settles: such an age takes place at any moment from its start on.
var model = porcupine.Model{
	Init: func() any { return life{} },
	Step: func(state, input, _ any) (bool, any) {
		l, isLife := state.(life)
		s, isStep := input.(step)
		if !isLife || !isStep {
			return false, state
		}
		if s.kind < maxKinds {
			if s.turn != l.done[s.kind] {
				return false, state
			}
			l.done[s.kind]++
		}
		return l.take(s)
	},
}

// take is whether s can take place, and the nonce afterwards.
func (l life) take(s step) (bool, life) {
	same := l.payment == "" || l.payment == s.payment
	switch s.fact {
	case nothing:
		return true, l
	case isAnswered:
		legal := !l.answered || same && (!l.told || l.bytes == s.bytes)
		return legal, life{answered: true, payment: s.payment, bytes: s.bytes, told: true, done: l.done}
	case isKept:
		legal := !l.answered || !l.told || l.bytes == s.bytes
		return legal, life{answered: true, payment: l.payment, bytes: s.bytes, told: true, done: l.done}
	case isPayment:
		legal := s.begun && (!l.answered || same)
		l.answered, l.payment = true, s.payment
		return legal, l
	case notAnswered:
		return !l.answered, l
	case hasEnded: // its answer may never have been seen, or have ended before
		return true, life{done: l.done}
	}
	return false, l
}

// factOf reads an operation.
func factOf(p record.Policy, o record.Op) fact {
	if unsure(o) {
		return nothing
	}
	switch o.Kind {
	case record.Pay, record.Act:
		return factOfPay(p, o)
	case record.Look:
		switch {
		case o.Failed || o.Status >= http.StatusBadRequest && o.Status != http.StatusNotFound:
			return nothing
		case o.Answered:
			return isPayment
		}
		return notAnswered
	case record.Age:
		if endsLife(o) {
			return hasEnded
		}
	}
	return nothing
}

// factOfPay: what is told under these codes is told only where the nonce has no
// answer. Any other error says that somebody could not even look.
// Errors in a style without codes say less.
func factOfPay(p record.Policy, o record.Op) fact {
	if o.Failed {
		return nothing
	}
	switch code := apierr.Code(o.Code); {
	case o.Told():
		return isAnswered
	case p.Keeps(o):
		return isKept
	case o.Status == http.StatusBadRequest, o.Status == http.StatusNotFound:
		return notAnswered
	case o.Status == http.StatusConflict && (code == apierr.RequestInProcess || code == ""),
		o.Status == http.StatusBadGateway && code == apierr.ProviderError,
		o.Status == http.StatusGatewayTimeout && code == apierr.RequestTimeout,
		o.Status == http.StatusServiceUnavailable && code == apierr.ProviderUnavailable:
		return notAnswered
	}
	return nothing
}

// linearizable: each nonce's history can be told as a sequence that one careful
// process alone could have produced.
func linearizable(t *trial) {
	byNonce := group(t.run.Ops, nonceOf)
	deadline := time.Now().Add(linearizableLimit)
	for _, n := range slices.SortedFunc(maps.Keys(byNonce), compareNonces) {
		limit := min(nonceLimit, time.Until(deadline))
		if limit <= 0 { // to porcupine, 0 is no limit
			t.figures.Undecided++
			continue
		}
		switch porcupine.CheckOperationsTimeout(model, historyOf(t.run.Policy.For(byNonce[n][0]), byNonce[n]), limit) {
		case porcupine.Ok:
		case porcupine.Unknown:
			t.figures.Undecided++
		case porcupine.Illegal:
			t.complain("%s: no order of its operations explains what was told: %s", n, tell(byNonce[n]))
		}
	}
}

// historyOf is a nonce's operations as porcupine takes them, without what a search
// does not need: its cost would double with every duplicate in a storm.
//
//   - An operation whose outcome nobody knows may take effect at any time after its
//     start, even after its end: a request can be held on its way to the database.
//     All it can do is to begin a life, and all that this explains is a look-up. So
//     each look-up is told whether there was anybody who can have begun what it
//     found, and the operation is left out. It may then explain several lives: that
//     forgives, and accuses nobody.
//   - Of two operations that say the same, the one that lasted from before the other
//     until after it says nothing new.
//   - What is left of a kind began in the same order as it ended, and if there is any
//     order that explains it all, there is one that keeps to that.
func historyOf(p record.Policy, ops []record.Op) []porcupine.Operation {
	kinds := map[said][]record.Op{}
	var order []said
	for _, o := range ops {
		what, ok := saidBy(p, o)
		if !ok {
			continue
		}
		if kinds[what] == nil {
			order = append(order, what)
		}
		kinds[what] = append(kinds[what], o)
	}
	var history []porcupine.Operation
	for kind, what := range order {
		same := kinds[what]
		if what.fact == hasEnded { // each of them counts
			kind = maxKinds
		} else {
			same = shortest(same)
		}
		for turn, o := range same {
			s := step{said: what, kind: kind, turn: turn, begun: what.fact == isPayment && canHaveBegun(p, ops, o)}
			end := o.End
			if endsAnyTime(o) { // an Age: it may take place later, or never
				end = math.MaxInt64
			}
			history = append(history, porcupine.Operation{Input: s, Call: int64(o.Start), Return: int64(end)})
		}
	}
	return history
}

// saidBy reads what the model needs of an operation, if it needs any of it.
func saidBy(p record.Policy, o record.Op) (what said, ok bool) {
	what.fact = factOf(p, o)
	switch what.fact {
	case isAnswered:
		what.payment, what.bytes = readAnswer(o).life(), sha256.Sum256(o.Body)
		return what, what.payment != "" // or else acknowledgedKept complains of it
	case isKept:
		what.bytes = sumOf(o)
	case isPayment:
		what.payment = o.Payment
	case nothing, notAnswered, hasEnded:
	}
	return what, what.fact != nothing
}

// canHaveBegun says whether a request from before the end of a look-up can have
// begun the life that it found. One that was answered began, or met, that of its
// answer only.
func canHaveBegun(p record.Policy, ops []record.Op, look record.Op) bool {
	return slices.ContainsFunc(ops, func(o record.Op) bool {
		return o.Moves() && o.Start <= look.End && (factOf(p, o) != isAnswered || readAnswer(o).life() == look.Payment)
	})
}

// shortest leaves out what lasted from before another one until after it. The rest
// is in the order of both its starts and its ends.
func shortest(ops []record.Op) []record.Op {
	ops = slices.SortedFunc(slices.Values(ops), func(a, b record.Op) int {
		return cmp.Or(cmp.Compare(b.Start, a.Start), cmp.Compare(a.End, b.End))
	})
	var kept []record.Op
	for _, o := range ops {
		if len(kept) == 0 || o.End < kept[len(kept)-1].End {
			kept = append(kept, o)
		}
	}
	slices.Reverse(kept)
	return kept
}

// tell is a history in few words, in the order of its starts.
func tell(ops []record.Op) string {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b record.Op) int { return cmp.Compare(a.Start, b.Start) })
	var told []string
	for _, o := range ops {
		if len(told) == quoted {
			told = append(told, fmt.Sprintf("and %d more", len(ops)-quoted))
			break
		}
		told = append(told, fmt.Sprintf("%s–%s %s", o.Start.Round(time.Microsecond), o.End.Round(time.Microsecond), tellOp(o)))
	}
	return strings.Join(told, "; ")
}

func tellOp(o record.Op) string {
	switch {
	case o.Failed:
		return string(o.Kind) + " without an answer"
	case o.Kind == record.Age && o.AnsweredBefore:
		return "age, and the life was over"
	case o.Kind == record.Age:
		return "age, and nothing was answered"
	case o.Kind == record.Look && o.Answered:
		return "look: answered, payment " + o.Payment
	case o.Kind == record.Look && o.Payment != "":
		return fmt.Sprintf("look %d: not answered, payment %s", o.Status, o.Payment)
	case o.Kind == record.Look:
		return fmt.Sprintf("look %d: nothing", o.Status)
	case o.Told():
		return fmt.Sprintf("%s %d payment %s (%s)", o.Kind, o.Status, readAnswer(o).life(), digest(o.Body))
	}
	told := fmt.Sprintf("%s %d %s", o.Kind, o.Status, o.Code)
	if o.Replayed {
		told += " once more"
	}
	if len(o.Body) > 0 {
		told += " (" + digest(o.Body) + ")"
	}
	return told
}
