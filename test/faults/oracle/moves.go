package oracle

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/oncepay/oncepay/internal/transactions"
)

// statusMachine: every move of a status was a legal one, none is missing, and a
// transaction has a lease exactly while it is unresolved.
func statusMachine(t *trial) {
	for _, tx := range t.world.transactions {
		t.judgeMoves(tx, t.world.moves[rowID{tx.Account, tx.ID}])
		if tx.Status.Terminal() == tx.Leased {
			t.complain("%s is %s and has a lease: %t", tx, tx.Status, tx.Leased)
		}
	}
	for _, id := range sortedIDs(t.world.moves) {
		if _, found := t.world.transaction[id]; !found {
			t.complain("transaction %s of account %s was there once and is gone", id.id, id.account)
		}
	}
	for _, p := range t.world.payments {
		t.judgePaymentMoves(p, t.world.paymentMoves[rowID{p.Account, p.ID}])
	}
	for _, id := range sortedIDs(t.world.paymentMoves) {
		if _, found := t.world.payment[id]; !found {
			t.complain("payment %s of account %s was there once and is gone", id.id, id.account)
		}
	}
}

func (t *trial) judgeMoves(tx transaction, moves []move) {
	var now transactions.Status
	for i, m := range moves {
		legal := slices.Contains(transactions.Moves[tx.Type][m.Old], m.New)
		if i == 0 {
			legal = m.New == transactions.Created
		}
		if m.Old != now || !legal {
			t.complain("%s was %q and moved from %q to %q", tx, now, m.Old, m.New)
		}
		now = m.New
	}
	if now != tx.Status {
		t.complain("%s is %s, and its last move made it %q", tx, tx.Status, now)
	}
}

// judgePaymentMoves: a payment begins unconfirmed, and each change of its status is one
// that the table has. Its version counts them, and the ends that leave its status alone.
func (t *trial) judgePaymentMoves(p payment, moves []paymentMove) {
	var now paymentStatus
	for i, m := range moves {
		legal := m.after() == now || slices.Contains(transactions.PaymentMoves[now], m.after())
		if i == 0 {
			legal = m.after() == transactions.Unconfirmed
		}
		if m.before() != now || !legal {
			t.complain("payment %s of account %s was %v and moved from %v to %v", p.ID, p.Account, now, m.before(), m.after())
		}
		if m.Version != int64(i) {
			t.complain("payment %s of account %s has version %d after %d moves", p.ID, p.Account, m.Version, i)
		}
		now = m.after()
	}
	if now != p.status() {
		t.complain("payment %s of account %s is %v, and its last move made it %v", p.ID, p.Account, p.status(), now)
	}
}

// events: each change of a payment's status has its event, and so has each end of a
// transaction, in order, and there is no other event. A payment begins with version 0
// and no event.
func events(t *trial) {
	for _, p := range t.world.payments {
		id := rowID{p.Account, p.ID}
		list := t.world.events[id]
		if int64(len(list)) != p.Version {
			t.complain("payment %s of account %s has version %d and %d events", p.ID, p.Account, p.Version, len(list))
		}
		for i, e := range list {
			if e.Seq != int64(i+1) {
				t.complain("payment %s of account %s: its event number %d has seq %d", p.ID, p.Account, i+1, e.Seq)
			}
			t.judgeEvent(e)
		}
		if last := len(list) - 1; last >= 0 && list[last].status() != p.status() {
			t.complain("payment %s of account %s is %v, and its last event says %v", p.ID, p.Account, p.status(), list[last].status())
		}
	}
	for _, id := range sortedIDs(t.world.events) {
		if _, found := t.world.payment[id]; !found {
			t.complain("payment %s of account %s has events and is missing", id.id, id.account)
		}
	}
	for _, tx := range t.world.transactions {
		t.judgeEnd(tx)
	}
}

// judgeEnd: what has ended has one event for that, and what has not has none. What the
// provider only accepted has an event of its own where it changed the payment's status.
func (t *trial) judgeEnd(tx transaction) {
	want := 0
	if tx.Status.Terminal() {
		want = 1
	}
	ends, before := 0, transactions.Unconfirmed
	for _, e := range t.world.events[rowID{tx.Account, tx.Payment}] {
		if e.Transaction == tx.ID && (e.status() == before || !waits(e.status())) {
			ends++
		}
		before = e.status()
	}
	if ends != want {
		t.complain("%s is %s and has %d terminal events, not %d", tx, tx.Status, ends, want)
	}
}

// waits reports whether a payment has that status only while it waits for a provider, or
// for its payer.
func waits(s paymentStatus) bool {
	return s == transactions.PaymentChallenged || s == transactions.PaymentRefundPending || s == transactions.PaymentCancelPending
}

// judgeEvent: its transaction made such a move, and the payment with it.
func (t *trial) judgeEvent(e event) {
	tx, found := t.world.transaction[rowID{e.Account, e.Transaction}]
	if !found || tx.Payment != e.Payment {
		t.complain("payment %s of account %s: event %d is of transaction %s, which is not this payment's", e.Payment, e.Account, e.Seq, e.Transaction)
		return
	}
	if want := "payment." + strings.ToLower(string(tx.Type)); e.Type != want {
		t.complain("%s: event %d is a %s, not a %s", tx, e.Seq, e.Type, want)
	}
	moved := slices.ContainsFunc(t.world.paymentMoves[rowID{e.Account, e.Payment}], func(m paymentMove) bool {
		return m.Version == e.Seq && m.after() == e.status()
	})
	if !moved {
		t.complain("%s: event %d says %v, and payment %s was never so with version %d", tx, e.Seq, e.status(), e.Payment, e.Seq)
	}
}

// named is how many transactions settled names.
const named = 5

// settled: once the faults have stopped, every transaction ends, but those that a
// person must decide.
func settled(t *trial) {
	var left []string
	for _, tx := range t.world.transactions {
		switch {
		case tx.Parked:
			t.figures.Parked++
		case tx.Leased:
			t.figures.Unresolved++
			if len(left) < named {
				left = append(left, tx.String()+" is "+string(tx.Status))
			}
		}
	}
	switch {
	case len(left) > 0:
		t.complain("%d transactions are unresolved and not parked, among them: %s", t.figures.Unresolved, strings.Join(left, "; "))
	case !t.run.Settled:
		t.complain("the healing ended with something unresolved; by now, everything is terminal or parked (%d)", t.figures.Parked)
	}
}

func compareIDs(a, b rowID) int {
	return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.id, b.id))
}

func sortedIDs[V any](m map[rowID]V) []rowID { return slices.SortedFunc(maps.Keys(m), compareIDs) }

func compareNonces(a, b nonce) int {
	return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.value, b.value))
}
