package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
)

// orderOf is an order of one account.
type orderOf struct{ account, order string }

// oneCharge counts in the provider's ledger, without our database: an order has
// one nonce, and a nonce one charge a life. Only an answered life that was aged is
// over; one that was given back had no charge.
func oneCharge(t *trial) {
	asked := map[orderOf]nonce{}
	for _, o := range t.run.Ops {
		if o.Kind == record.Pay {
			asked[orderOf{o.Account, o.Order}] = nonceOf(o)
		}
	}
	charges := group(t.ledger(isCharge), func(e record.Entry) orderOf { return orderOf{e.AccountID, e.MerchantOrderID} })
	for _, order := range sortedOrders(charges) {
		entries := charges[order]
		n, allowed := asked[order], 1
		if n.value != "" {
			allowed += len(t.ages[n])
		}
		surplus := len(entries) - allowed
		if surplus <= 0 {
			continue
		}
		t.figures.DoubleCharges += surplus
		t.complain("order %s, %s: %d charges in the ledger where %d are allowed: %v", order.order, n, len(entries), allowed, references(entries))
	}
}

func isCharge(e record.Entry) bool {
	return e.Type != string(transactions.Capture) && e.Type != string(transactions.Cancel) && e.Type != string(transactions.Refund)
}

// ledger is what of the provider's ledger is so.
func (t *trial) ledger(so func(record.Entry) bool) []record.Entry {
	return slices.DeleteFunc(slices.Clone(t.run.Ledger), func(e record.Entry) bool { return !so(e) })
}

func sortedOrders[V any](m map[orderOf]V) []orderOf {
	return slices.SortedFunc(maps.Keys(m), func(a, b orderOf) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.order, b.order))
	})
}

func references(entries []record.Entry) []string {
	all := make([]string, 0, len(entries))
	for _, e := range entries {
		all = append(all, e.Reference+" at "+e.CreatedAt)
	}
	return all
}

// chargeAndPayment: what the provider booked and what we believe is the same, line
// by line. What is unresolved we do not believe anything of yet; settled speaks of
// that.
func chargeAndPayment(t *trial) {
	booked := map[string]int{}
	for _, e := range t.run.Ledger {
		booked[e.Reference]++
		t.judgeEntry(e)
	}
	for _, tx := range t.world.transactions {
		p, found := t.world.payment[rowID{tx.Account, tx.Payment}]
		if !found {
			t.complain("%s: its payment %s is missing", tx, tx.Payment)
			continue
		}
		if !tx.acts() && !tx.Amount.Equal(p.Amount) || tx.Currency != p.Currency || tx.Mode != p.Mode {
			t.complain("%s is of %s %s (%s), and its payment %s of %s %s (%s)", tx, tx.Amount, tx.Currency, tx.Mode, p.ID, p.Amount, p.Currency, p.Mode)
		}
		want := 1
		if tx.Type == transactions.Verify { // it moves nothing
			want = 0
		}
		if tx.Status == transactions.Succeeded && booked[tx.ID] != want {
			t.complain("%s, order %s, is SUCCEEDED and has %d entries in the ledger, not %d", tx, p.Order, booked[tx.ID], want)
		}
	}
	for _, p := range t.world.payments {
		all := t.world.of[rowID{p.Account, p.ID}]
		begun := 0
		for _, tx := range all {
			if !tx.acts() {
				begun++
			}
		}
		if begun != 1 {
			t.complain("payment %s, order %s of account %s, was begun by %d transactions, not 1", p.ID, p.Order, p.Account, begun)
			continue
		}
		if want := paymentAfter(all); p.status() != want {
			t.complain("payment %s is %v, and by its transactions %v: %s", p.ID, p.status(), want, tellTransactions(all))
		}
	}
}

// tellTransactions are a payment's transactions in few words.
func tellTransactions(all []transaction) string {
	var told []string
	for _, tx := range all {
		told = append(told, fmt.Sprintf("%s %s of %s", tx.Type, tx.Status, tx.Amount))
	}
	return strings.Join(told, ", ")
}

func (t *trial) judgeEntry(e record.Entry) {
	tx, found := t.world.reference[e.Reference]
	if !found {
		t.complain("order %s of account %s: the ledger has a charge under %s, which is no transaction", e.MerchantOrderID, e.AccountID, e.Reference)
		return
	}
	if tx.Account != e.AccountID {
		t.complain("%s: the ledger has it under account %s", tx, e.AccountID)
	}
	if tx.Leased {
		return
	}
	if tx.Status != transactions.Succeeded {
		t.complain("%s, order %s, was charged and is %s", tx, e.MerchantOrderID, tx.Status)
	}
	amount, err := money.Parse(e.Amount)
	if err != nil || !amount.Equal(tx.Amount) || e.Currency != tx.Currency {
		t.complain("%s is of %s %s, and the ledger has %s %s", tx, tx.Amount, tx.Currency, e.Amount, e.Currency)
	}
	if e.Type != string(tx.Type) || e.Mode != tx.Mode {
		t.complain("%s is a %s in mode %s, and the ledger has a %s in mode %s", tx, tx.Type, tx.Mode, e.Type, e.Mode)
	}
	if p := t.world.payment[rowID{tx.Account, tx.Payment}]; p.Order != e.MerchantOrderID {
		t.complain("%s is for order %s, and the ledger has order %s", tx, p.Order, e.MerchantOrderID)
	}
}

// amounts: the sums agree with the provider's, payment by payment, and each payment's
// columns with its transactions.
func amounts(t *trial) {
	ledger := map[rowID]*sums{}
	for _, e := range t.run.Ledger {
		tx, found := t.world.reference[e.Reference]
		if !found {
			t.complain("the ledger's entry %s is of no payment", e.Reference)
			continue
		}
		amount, err := money.Parse(e.Amount)
		if err != nil {
			t.complain("the ledger's entry %s has no amount: %v", e.Reference, err)
			continue
		}
		id := rowID{tx.Account, tx.Payment}
		if ledger[id] == nil {
			ledger[id] = &sums{}
		}
		ledger[id].add(transaction{Type: transactions.Type(e.Type), Status: transactions.Succeeded, Amount: amount})
	}
	for _, p := range t.world.payments {
		id := rowID{p.Account, p.ID}
		all := t.world.of[id]
		var due sums
		open := false
		for _, tx := range all {
			due.add(tx)
			open = open || tx.Leased
		}
		t.judgeColumns(p, due, all)
		if booked := ledger[id]; !open { // else nothing is believed of it yet
			if booked == nil {
				booked = &sums{}
			}
			t.judgeBooked(p, *booked)
		}
		t.judgeRefunds(all)
	}
}

// column is one of a payment's sums, and what it has to be.
type column struct {
	name      string
	have, due decimal.Decimal
	pending   bool
}

func (p payment) columns(due sums) []column {
	return []column{
		{"authorized", p.Authorized, due.authorized, false},
		{"authorize_pending", p.AuthorizePending, due.authorizePending, true},
		{"settled", p.Settled, due.settled, false},
		{"settle_pending", p.SettlePending, due.settlePending, true},
		{"captured", p.Captured, due.captured, false},
		{"refunded", p.Refunded, due.refunded, false},
		{"refund_pending", p.RefundPend, due.refundPending, true},
		{"canceled", p.Canceled, due.canceled, false},
		{"cancel_pending", p.CancelPending, due.cancelPending, true},
	}
}

// judgeColumns: an unresolved transaction has its amount pending, a successful one
// has it in its place, and any other leaves nothing. What is pending for nobody has
// leaked.
func (t *trial) judgeColumns(p payment, due sums, all []transaction) {
	for _, c := range p.columns(due) {
		if c.have.Equal(c.due) {
			continue
		}
		if c.pending && c.have.GreaterThan(c.due) {
			t.figures.Leaked++
		}
		t.complain("payment %s: %s is %s, not %s; it has %s", p.ID, c.name, c.have, c.due, tellTransactions(all))
	}
}

// judgeBooked: what has moved by our books has moved by the provider's.
func (t *trial) judgeBooked(p payment, booked sums) {
	for _, c := range p.columns(booked) {
		if !c.pending && !c.have.Equal(c.due) {
			t.complain("payment %s, order %s of account %s: %s is %s, and %s by the provider's ledger", p.ID, p.Order, p.Account, c.name, c.have, c.due)
		}
	}
}

// judgeRefunds: what was refunded of each purchase or capture is what its refunds say.
func (t *trial) judgeRefunds(all []transaction) {
	due := map[string]*sums{}
	for _, tx := range all {
		if due[tx.Target] == nil {
			due[tx.Target] = &sums{}
		}
		due[tx.Target].add(tx)
	}
	for _, tx := range all {
		want := due[tx.ID]
		if want == nil {
			want = &sums{}
		}
		if !tx.Refunded.Equal(want.refunded) || !tx.RefundPending.Equal(want.refundPending) {
			t.complain("%s: refunded is %s with %s pending, not %s with %s", tx, tx.Refunded, tx.RefundPending, want.refunded, want.refundPending)
		}
	}
}
