package oracle

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oncepay/oncepay/test/faults/record"
)

// acknowledgedKept: a payment that a client was told of is there, and is what the
// client was told.
func acknowledgedKept(t *trial) {
	seen, lost := map[string]struct{}{}, map[string]struct{}{}
	for _, a := range t.answers {
		id := a.life()
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
		t.complain("order %s, %s: a %d at %s cannot be read: %v", a.op.Order, n, a.op.Status, a.op.End, a.err)
		return false
	}
	p, found := t.world.payment[rowID{a.op.Account, a.payment}]
	acts := a.op.Kind == record.Act
	switch {
	case !found:
		t.complain("order %s, %s: payment %s was acknowledged at %s and is missing", a.op.Order, n, a.payment, a.op.End)
	case acts && !t.isDone(a):
		return false
	case acts && p.Order == a.op.Order:
		return true
	case !acts && !p.Amount.Equal(a.amount) || p.Currency != a.currency:
		t.complain("order %s, %s: payment %s was acknowledged with %s %s and is kept with %s %s", a.op.Order, n, a.payment, a.amount, a.currency, p.Amount, p.Currency)
	case p.Order != a.op.Order || a.order != a.op.Order:
		t.complain("order %s, %s: payment %s was acknowledged for order %s and is kept for order %s", a.op.Order, n, a.payment, a.order, p.Order)
	case !unsure(a.op) && a.status != t.statusAt(a):
		t.complain("order %s, %s: payment %s was acknowledged as %v with version %d and is kept as %v", a.op.Order, n, a.payment, a.status, a.version, t.statusAt(a))
	default:
		return true
	}
	return false
}

// isDone says whether an action that was acknowledged is there: of that payment, with
// that amount, under that nonce. The payment may have moved on since.
func (t *trial) isDone(a answer) bool {
	tx, found := t.world.transaction[rowID{a.op.Account, a.transaction}]
	switch {
	case !found:
		t.complain("order %s, %s: transaction %s was acknowledged at %s and is missing", a.op.Order, nonceOf(a.op), a.transaction, a.op.End)
	case tx.Payment != a.payment || tx.Nonce != a.op.Nonce || !tx.acts():
		t.complain("order %s, %s: transaction %s was acknowledged, and is of payment %s and nonce %s", a.op.Order, nonceOf(a.op), a.transaction, tx.Payment, tx.Nonce)
	case !tx.Amount.Equal(a.amount) || tx.Currency != a.currency:
		t.complain("order %s, %s: transaction %s was acknowledged with %s %s and is kept with %s %s",
			a.op.Order, nonceOf(a.op), a.transaction, a.amount, a.currency, tx.Amount, tx.Currency)
	case !unsure(a.op) && a.status != t.statusAt(a):
		t.complain("order %s, %s: payment %s was acknowledged as %v with version %d and is kept as %v",
			a.op.Order, nonceOf(a.op), a.payment, a.status, a.version, t.statusAt(a))
	default:
		return true
	}
	return false
}

// statusAt is what the answer's payment was, by the database, when it had the version
// that the answer tells. What is acknowledged while it is undecided moves on.
func (t *trial) statusAt(a answer) paymentStatus {
	var at paymentStatus
	for _, m := range t.world.paymentMoves[rowID{a.op.Account, a.payment}] {
		if m.Version == a.version {
			at = m.after()
		}
	}
	return at
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
			t.complain("%s: the %d at %s (%s) is not stored under it: %s", n, a.op.Status, a.op.End, digest(a.op.Body), tellKeys(t.world.keys[n]))
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

// told are the answers of one nonce that name the same payment, or action.
type told struct {
	life      string
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
		at := slices.IndexFunc(byNonce[n], func(l *told) bool { return l.life == a.life() })
		if at < 0 {
			byNonce[n] = append(byNonce[n], &told{life: a.life(), first: a, lastStart: a.op.Start, firstEnd: a.op.End})
			continue
		}
		l := byNonce[n][at]
		l.lastStart, l.firstEnd = max(l.lastStart, a.op.Start), min(l.firstEnd, a.op.End)
		if !bytes.Equal(l.first.op.Body, a.op.Body) {
			t.complain("%s, payment %s: the answer at %s (%s) is not the answer at %s (%s); they differ from byte %d on", n, a.life(),
				a.op.End, digest(a.op.Body), l.first.op.End, digest(l.first.op.Body), firstDifference(a.op.Body, l.first.op.Body))
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(byNonce), compareNonces) {
		lives := byNonce[n]
		slices.SortFunc(lives, func(a, b *told) int { return cmp.Compare(a.firstEnd, b.firstEnd) })
		for i := 1; i < len(lives); i++ {
			if !couldEnd(t.ages[n], lives[i-1], lives[i]) {
				t.complain("%s was answered with payment %s until %s or later and with payment %s by %s, and its life had not ended in between", n,
					lives[i-1].life, lives[i-1].lastStart, lives[i].life, lives[i].firstEnd)
			}
		}
	}
}

// couldEnd says whether one of the ages can lie between two lives. A 201 was given
// at some moment between its start and its end, and an age took place so, too:
// whatever these leave possible is allowed.
func couldEnd(ages []record.Op, earlier, later *told) bool {
	return earlier.lastStart <= later.firstEnd && slices.ContainsFunc(ages, func(age record.Op) bool {
		return age.Start <= later.firstEnd && (endsAnyTime(age) || age.End >= earlier.lastStart)
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
		if o.Moves() && !slices.Contains(asked[o.Order], o.Account) {
			asked[o.Order] = append(asked[o.Order], o.Account)
		}
	}
	for _, e := range t.run.Ledger {
		if who := asked[e.MerchantOrderID]; !slices.Contains(who, e.AccountID) {
			t.complain("order %s was asked for by %v, and the ledger has it under account %s (%s)", e.MerchantOrderID, who, e.AccountID, e.Reference)
		}
	}
}
