package oracle

import (
	"cmp"
	"maps"
	"slices"

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
	charges := group(t.run.Ledger, func(e record.Entry) orderOf { return orderOf{e.AccountID, e.MerchantOrderID} })
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
		if want := paymentAfter(tx.Type, tx.Status); p.status() != want {
			t.complain("%s is %s %s, and its payment %s is %v, not %v", tx, tx.Type, tx.Status, p.ID, p.status(), want)
		}
		if !tx.Amount.Equal(p.Amount) || tx.Currency != p.Currency || tx.Mode != p.Mode {
			t.complain("%s is of %s %s (%s), and its payment %s of %s %s (%s)", tx, tx.Amount, tx.Currency, tx.Mode, p.ID, p.Amount, p.Currency, p.Mode)
		}
		if tx.Status == transactions.Succeeded && booked[tx.ID] != 1 {
			t.complain("%s, order %s, is SUCCEEDED and has %d entries in the ledger, not 1", tx, p.Order, booked[tx.ID])
		}
	}
	for _, p := range t.world.payments {
		if n := len(t.world.of[rowID{p.Account, p.ID}]); n != 1 {
			t.complain("payment %s, order %s of account %s, has %d transactions, not 1", p.ID, p.Order, p.Account, n)
		}
	}
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

// purse is one account's money in one currency.
type purse struct{ account, currency string }

// amounts: the sums agree with the provider's, and each payment's columns with its
// transaction.
func amounts(t *trial) {
	ledger, ours := map[purse]decimal.Decimal{}, map[purse]decimal.Decimal{}
	for _, e := range t.run.Ledger {
		if t.world.reference[e.Reference].Leased { // nothing is believed of it yet
			continue
		}
		amount, err := money.Parse(e.Amount)
		if err != nil {
			t.complain("the ledger's entry %s has no amount: %v", e.Reference, err)
			continue
		}
		key := purse{e.AccountID, e.Currency}
		ledger[key] = ledger[key].Add(amount)
	}
	for _, tx := range t.world.transactions {
		if tx.Status == transactions.Succeeded {
			key := purse{tx.Account, tx.Currency}
			ours[key] = ours[key].Add(tx.Amount)
		}
		if p, found := t.world.payment[rowID{tx.Account, tx.Payment}]; found {
			t.judgeColumns(p, tx)
		}
	}
	both := map[purse]struct{}{}
	for key := range ledger {
		both[key] = struct{}{}
	}
	for key := range ours {
		both[key] = struct{}{}
	}
	for _, key := range slices.SortedFunc(maps.Keys(both), func(a, b purse) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.currency, b.currency))
	}) {
		if !ledger[key].Equal(ours[key]) {
			t.complain("account %s: the ledger's charges are %s %s, our succeeded transactions %s", key.account, ledger[key], key.currency, ours[key])
		}
	}
}

// judgeColumns: an unresolved transaction has its amount pending, a successful one
// has it in its place, and any other leaves nothing.
func (t *trial) judgeColumns(p payment, tx transaction) {
	var authorized, authorizePending, settled, settlePending decimal.Decimal
	switch {
	case !tx.Status.Terminal():
		authorizePending = tx.Amount
		if tx.Type == transactions.Purchase {
			settlePending = tx.Amount
		}
	case tx.Status == transactions.Succeeded:
		authorized = tx.Amount
		if tx.Type == transactions.Purchase {
			settled = tx.Amount
		}
	}
	for _, column := range []struct {
		name      string
		have, due decimal.Decimal
	}{
		{"authorized", p.Authorized, authorized},
		{"authorize_pending", p.AuthorizePending, authorizePending},
		{"settled", p.Settled, settled},
		{"settle_pending", p.SettlePending, settlePending},
		{"captured", p.Captured, decimal.Zero},
		{"refunded", p.Refunded, decimal.Zero},
		{"refund_pending", p.RefundPend, decimal.Zero},
	} {
		if !column.have.Equal(column.due) {
			t.complain("payment %s: %s is %s, not %s; %s is %s %s of %s", p.ID, column.name, column.have, column.due, tx, tx.Type, tx.Status, tx.Amount)
		}
	}
}
