package oracle

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
)

// acknowledgedKept: a payment that a client was told of is there, and is what the
// client was told.
func acknowledgedKept(t *trial) {
	seen, lost := map[string]struct{}{}, map[string]struct{}{}
	for _, a := range t.answers {
		id := a.payment
		if a.err != nil {
			id = a.op.Account + " " + a.op.Nonce // nobody can find it, whatever its id was to be
		}
		if _, again := seen[id]; again {
			if _, known := lost[id]; known {
				continue // one complaint a payment
			}
		}
		seen[id] = struct{}{}
		if !t.isKept(a) {
			lost[id] = struct{}{}
		}
	}
	t.figures.Acknowledged, t.figures.Lost = len(seen), len(lost)
}

func (t *trial) isKept(a answer) bool {
	n := nonceOf(a.op)
	if a.err != nil {
		t.complain("order %s, %s: a 201 at %s cannot be read: %v", a.op.Order, n, a.op.End, a.err)
		return false
	}
	p, found := t.world.payment[rowID{a.op.Account, a.payment}]
	switch {
	case !found:
		t.complain("order %s, %s: payment %s was acknowledged at %s and is missing", a.op.Order, n, a.payment, a.op.End)
	case !p.Amount.Equal(a.amount) || p.Currency != a.currency:
		t.complain("order %s, %s: payment %s was acknowledged with %s %s and is kept with %s %s", a.op.Order, n, a.payment, a.amount, a.currency, p.Amount, p.Currency)
	case p.Order != a.op.Order || a.order != a.op.Order:
		t.complain("order %s, %s: payment %s was acknowledged for order %s and is kept for order %s", a.op.Order, n, a.payment, a.order, p.Order)
	case a.status != transactions.Unconfirmed && a.status != p.status():
		t.complain("order %s, %s: payment %s was acknowledged as %v and is kept as %v", a.op.Order, n, a.payment, a.status, p.status())
	default:
		return true
	}
	return false
}

// answerDurable: who was told a 201 finds it stored, byte by byte, under its nonce,
// whatever became of the database since. A nonce whose life may have ended is left
// out: its row may be the next life's, or gone. Whether later answers were the same is
// for sameAnswer to say.
func answerDurable(t *trial) {
	first := map[nonce]answer{}
	for _, a := range t.answers {
		n := nonceOf(a.op)
		if unsure(a.op) {
			if a.err == nil && len(t.ages[n]) == 0 && !t.isStored(a) {
				t.figures.Shown++
			}
			continue
		}
		if f, known := first[n]; a.err == nil && len(t.ages[n]) == 0 && (!known || a.op.End < f.op.End) {
			first[n] = a
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(first), compareNonces) {
		a := first[n]
		if !t.isStored(a) {
			t.complain("%s: the 201 at %s (%s) is not stored under it: %s", n, a.op.End, digest(a.op.Body), tellKeys(t.world.keys[n]))
		}
	}
}

// isStored says whether an answer's nonce has it.
func (t *trial) isStored(a answer) bool {
	return slices.ContainsFunc(t.world.keys[nonceOf(a.op)], func(k key) bool {
		return k.Status != nil && *k.Status == a.op.Status && bytes.Equal(k.Body, a.op.Body)
	})
}

func tellKeys(keys []key) string {
	if len(keys) == 0 {
		return "it has no row"
	}
	k := keys[0]
	if k.Status == nil {
		return "its row has no answer"
	}
	return fmt.Sprintf("its row has a %d (%s)", *k.Status, digest(k.Body))
}

// told are the 201s of one nonce that name the same payment.
type told struct {
	payment   string
	first     answer
	lastStart time.Duration // the latest 201 was not given before this
	firstEnd  time.Duration // the earliest was given by then
}

// sameAnswer: within a life, every answer is the first one, byte by byte; another
// payment belongs to another life, and a life ends only by its age.
func sameAnswer(t *trial) {
	byNonce := map[nonce][]*told{}
	for _, a := range t.answers {
		if a.err != nil || unsure(a.op) {
			continue
		}
		n := nonceOf(a.op)
		at := slices.IndexFunc(byNonce[n], func(l *told) bool { return l.payment == a.payment })
		if at < 0 {
			byNonce[n] = append(byNonce[n], &told{payment: a.payment, first: a, lastStart: a.op.Start, firstEnd: a.op.End})
			continue
		}
		l := byNonce[n][at]
		l.lastStart, l.firstEnd = max(l.lastStart, a.op.Start), min(l.firstEnd, a.op.End)
		if !bytes.Equal(l.first.op.Body, a.op.Body) {
			t.complain("%s, payment %s: the answer at %s (%s) is not the answer at %s (%s); they differ from byte %d on", n, a.payment,
				a.op.End, digest(a.op.Body), l.first.op.End, digest(l.first.op.Body), firstDifference(a.op.Body, l.first.op.Body))
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(byNonce), compareNonces) {
		lives := byNonce[n]
		slices.SortFunc(lives, func(a, b *told) int { return cmp.Compare(a.firstEnd, b.firstEnd) })
		for i := 1; i < len(lives); i++ {
			if !couldEnd(t.ages[n], lives[i-1], lives[i]) {
				t.complain("%s was answered with payment %s until %s or later and with payment %s by %s, and its life had not ended in between", n,
					lives[i-1].payment, lives[i-1].lastStart, lives[i].payment, lives[i].firstEnd)
			}
		}
	}
}

// couldEnd says whether one of the ages can lie between two lives. A 201 was given
// at some moment between its start and its end, and an age took place so, too:
// whatever these leave possible is allowed.
func couldEnd(ages []record.Op, earlier, later *told) bool {
	return earlier.lastStart <= later.firstEnd && slices.ContainsFunc(ages, func(age record.Op) bool {
		return age.Start <= later.firstEnd && (age.Failed || age.End >= earlier.lastStart)
	})
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// isolation: nothing of one account is told, or charged, to another.
func isolation(t *trial) {
	owner := map[string]string{}
	for _, a := range t.answers {
		if a.err != nil {
			continue
		}
		if a.account != a.op.Account {
			t.complain("%s: payment %s was answered as account %s's", nonceOf(a.op), a.payment, a.account)
		}
		if first, known := owner[a.payment]; known && first != a.op.Account {
			t.complain("payment %s was acknowledged to account %s and to account %s", a.payment, first, a.op.Account)
			continue
		}
		owner[a.payment] = a.op.Account
	}
	asked := map[string][]string{}
	for _, o := range t.run.Ops {
		if o.Kind == record.Pay && !slices.Contains(asked[o.Order], o.Account) {
			asked[o.Order] = append(asked[o.Order], o.Account)
		}
	}
	for _, e := range t.run.Ledger {
		if who := asked[e.MerchantOrderID]; !slices.Contains(who, e.AccountID) {
			t.complain("order %s was asked for by %v, and the ledger has it under account %s (%s)", e.MerchantOrderID, who, e.AccountID, e.Reference)
		}
	}
}
