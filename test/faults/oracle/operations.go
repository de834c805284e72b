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

// operation names what the ledger has of one action: two of an order and a type never
// ask for the same amount, so that the ledger alone tells whose an entry is. The amount
// is empty where an action asks for all that is left.
type operation struct {
	orderOf
	typ, amount string
}

// typesOf are the types that an action of that route can become.
var typesOf = map[string][]string{
	string(transactions.RouteCapture):        {string(transactions.Capture)},
	string(transactions.RouteCancel):         {string(transactions.Cancel)},
	string(transactions.RouteRefund):         {string(transactions.Refund)},
	string(transactions.RouteCancelOrRefund): {string(transactions.Cancel), string(transactions.Refund)},
}

// oneOperation counts captures, cancellations and refunds in the provider's ledger,
// without our database: an action has one nonce, and a nonce one of them a life. No
// reference has two entries.
func oneOperation(t *trial) {
	entries := t.ledger(func(e record.Entry) bool { return !isCharge(e) })
	under := group(entries, func(e record.Entry) string { return e.Reference })
	for _, reference := range slices.Sorted(maps.Keys(under)) {
		if all := under[reference]; len(all) > 1 {
			t.double(all[0].Type, len(all)-1)
			t.complain("order %s: the ledger has %s %d times under the reference %s", all[0].MerchantOrderID, all[0].Type, len(all), reference)
		}
	}
	allowed, whole := t.asked()
	booked := group(entries, func(e record.Entry) operation {
		return operation{orderOf{e.AccountID, e.MerchantOrderID}, e.Type, plain(e.Amount)}
	})
	for _, o := range slices.SortedFunc(maps.Keys(booked), func(a, b operation) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.order, b.order), cmp.Compare(a.typ, b.typ), cmp.Compare(a.amount, b.amount))
	}) {
		all := booked[o]
		// What nobody asked for by its amount is of those who asked for all that is left.
		rest := operation{orderOf: o.orderOf, typ: o.typ}
		surplus := len(all) - allowed[o]
		taken := min(max(surplus, 0), whole[rest])
		whole[rest] -= taken
		if surplus -= taken; surplus <= 0 {
			continue
		}
		t.double(o.typ, surplus)
		t.complain("order %s of account %s: %s of %s is in the ledger %d times, %d too many: %v", o.order, o.account, o.typ, o.amount, len(all), surplus, references(all))
	}
}

// asked are how many operations of each kind the nonces of the run allow: by the amount
// that they ask for, and of those that ask for all that is left.
func (t *trial) asked() (allowed, whole map[operation]int) {
	allowed, whole = map[operation]int{}, map[operation]int{}
	seen := map[nonce]bool{}
	for _, o := range t.run.Ops {
		n := nonceOf(o)
		if o.Kind != record.Act || seen[n] {
			continue
		}
		seen[n] = true
		for _, typ := range typesOf[o.Action] {
			to := allowed
			if o.Amount == "" {
				to = whole
			}
			to[operation{orderOf{o.Account, o.Order}, typ, plain(o.Amount)}] += 1 + len(t.ages[n])
		}
	}
	return allowed, whole
}

// plain is an amount as all of the same value are written.
func plain(amount string) string {
	d, err := money.Parse(amount)
	if err != nil {
		return ""
	}
	return d.String()
}

// double counts what was done too often.
func (t *trial) double(typ string, n int) {
	switch transactions.Type(typ) {
	case transactions.Capture:
		t.figures.DoubleCaptures += n
	case transactions.Refund:
		t.figures.DoubleRefunds += n
	default:
	}
}

// withinBounds: no more is captured than was authorized, and no more goes back than came
// in; what was captured is not cancelled. So it is by the provider's ledger alone; so it
// was at every moment by our own sums, reservations included; and we never asked the
// provider for what it does not have.
func withinBounds(t *trial) {
	booked := group(t.run.Ledger, func(e record.Entry) orderOf { return orderOf{e.AccountID, e.MerchantOrderID} })
	for _, o := range sortedOrders(booked) {
		total := map[transactions.Type]decimal.Decimal{}
		for _, e := range booked[o] {
			if amount, err := money.Parse(e.Amount); err == nil { // amounts speaks of others
				total[transactions.Type(e.Type)] = total[transactions.Type(e.Type)].Add(amount)
			}
		}
		taken := total[transactions.Purchase].Add(total[transactions.Capture])
		if used := total[transactions.Capture].Add(total[transactions.Cancel]); used.GreaterThan(total[transactions.Authorize]) {
			t.complain("order %s of account %s: of %s authorized, %s was captured and %s cancelled", o.order, o.account,
				total[transactions.Authorize], total[transactions.Capture], total[transactions.Cancel])
		}
		if total[transactions.Refund].GreaterThan(taken) {
			t.complain("order %s of account %s: of %s that came in, %s went back", o.order, o.account, taken, total[transactions.Refund])
		}
	}
	for _, p := range t.world.overdrawn {
		t.complain("payment %s of account %s once had %s", p.Payment, p.Account, p.Sums)
	}
	for _, tx := range t.world.transactions {
		if tx.acts() && slices.Contains(objections, tx.ResponseCode) {
			t.complain("%s is a %s of %s that the provider does not have: %s", tx, tx.Type, tx.Amount, tx.ResponseCode)
		}
	}
}

// objections are the codes with which the sandbox declines what the thing acted on does
// not allow.
var objections = []string{"TRANSACTION_NOT_FOUND", "INVALID_STATUS", "CURRENCY_NOT_ALLOWED", "INVALID_AMOUNT"}
