package oracle

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/oncepay/oncepay/test/faults/record"
)

// keptAnswer: from when a nonce's answer was told, which under some policies may be an
// error, each later request of that life is told the same, in the manner of its policy;
// and an error that was told as the answer is stored as it, byte by byte. What became of
// the payment behind it, others say.
func keptAnswer(t *trial) {
	byNonce := group(t.run.Ops, nonceOf)
	for _, n := range slices.SortedFunc(maps.Keys(byNonce), compareNonces) {
		p := t.run.Policy.For(byNonce[n][0])
		if wrong := contradictions(p, byNonce[n]); len(wrong) > 0 {
			t.complain("%s: %s (one of %d such pairs)", n, wrong[0], len(wrong))
		}
		t.countAnswers(n, byNonce[n])
		if len(t.ages[n]) > 0 {
			continue // its row may be the next life's, or gone
		}
		at := slices.IndexFunc(byNonce[n], func(o record.Op) bool { return p.Keeps(o) && !unsure(o) })
		if at < 0 {
			continue
		}
		if o := byNonce[n][at]; !t.isStored(answer{op: o}) {
			t.complain("%s: the %d at %s (%s), told as its answer, is not stored under it: %s", n, o.Status, o.End, digest(o.Body), tellKeys(t.world.keys[n]))
		}
	}
}

// countAnswers counts how often a nonce's answer was told again, and whether it is an
// error.
func (t *trial) countAnswers(n nonce, ops []record.Op) {
	told, keeps, pays := map[[sha256.Size]byte]int{}, false, false
	p := t.run.Policy.For(ops[0])
	for _, o := range ops {
		if p.Answers(o) {
			told[sumOf(o)]++
			keeps = keeps || p.Keeps(o)
			pays = o.Kind == record.Pay
		}
	}
	for _, times := range told {
		t.figures.Replays += times - 1
	}
	if !keeps {
		return
	}
	t.figures.KeptErrors++
	if pays && slices.ContainsFunc(t.run.Ledger, func(e record.Entry) bool {
		return isCharge(e) && e.AccountID == n.account && e.MerchantOrderID == ops[0].Order
	}) {
		t.figures.KeptCharged++
	}
}

// sumOf stands for all that an answer told: status, media type and body.
func sumOf(o record.Op) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%d %s\n%s", o.Status, o.ContentType, o.Body))
}

// contradictions are what the operations of one nonce say against each other under a
// policy: for each of its answers, each operation that cannot be of the same life, where
// no end of a life can lie between the two.
func contradictions(p record.Policy, ops []record.Op) []string {
	var answers, ages []record.Op
	for _, o := range ops {
		switch {
		case unsure(o):
		case p.Answers(o):
			answers = append(answers, o)
		case endsLife(o):
			ages = append(ages, o)
		}
	}
	var wrong []string
	for _, a := range answers {
		for _, o := range ops {
			if unsure(o) || o.Failed {
				continue
			}
			if why := against(p, a, o); why != "" && !endedBetween(ages, a, o) {
				wrong = append(wrong, fmt.Sprintf("answered %s at %s, and %s at %s", tellOp(a), a.End, why, o.End))
			}
		}
	}
	return wrong
}

// against is why o cannot be of the life that a is the answer of, or "". Whatever began
// before a was told may have come first.
func against(p record.Policy, a, o record.Op) string {
	after := o.Start > a.End
	if o.Kind == record.Look {
		return againstLook(a, o, after)
	}
	if !o.Moves() {
		return ""
	}
	otherBody := a.OtherBody != o.OtherBody
	switch {
	case p.Answers(o):
		switch {
		case p.OneBody && otherBody:
			return "another body was answered as well, with " + tellOp(o)
		case a.Status != o.Status || a.ContentType != o.ContentType || !bytes.Equal(a.Body, o.Body):
			return "answered otherwise, " + tellOp(o)
		case after && p.ReplayHeader != "" && !o.Replayed:
			return "told it again without saying so, " + tellOp(o)
		}
	case !after:
	case o.Status == http.StatusUnprocessableEntity:
		if !p.OneBody || !otherBody {
			return "refused as another body, " + tellOp(o)
		}
	case factOfPay(p, o) == notAnswered:
		return "treated as if there were no answer, " + tellOp(o)
	}
	return ""
}

// againstLook: a look-up of an answered nonce says so, and with which status.
func againstLook(a, look record.Op, after bool) string {
	switch {
	case look.Answered && look.AnswerStatus != 0 && look.AnswerStatus != a.Status:
		return fmt.Sprintf("a look-up knows an answer with status %d", look.AnswerStatus)
	case after && !look.Answered && (look.Status < http.StatusBadRequest || look.Status == http.StatusNotFound):
		return "a look-up knows no answer"
	}
	return ""
}

// endedBetween says whether one of the ages can have ended a life between two
// operations, in whichever order they may have taken place.
func endedBetween(ages []record.Op, a, b record.Op) bool {
	return slices.ContainsFunc(ages, func(age record.Op) bool {
		lies := func(earlier, later record.Op) bool {
			return earlier.Start <= later.End && age.Start <= later.End && (endsAnyTime(age) || age.End >= earlier.Start)
		}
		return lies(a, b) || lies(b, a)
	})
}

// endsAnyTime says of an age that the life may have ended at any time since it began: it
// failed, or the life had to wait for its transaction.
func endsAnyTime(age record.Op) bool { return age.Failed || age.Unresolved }
