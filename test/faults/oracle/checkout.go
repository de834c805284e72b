package oracle

import (
	"cmp"
	"maps"
	"slices"

	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
)

// The oracles of checkout sessions. Shoppers have as many nonces as they have tabs and
// tries, so that what is paid once is the session.

// chargesOf are the provider's charges of a session, by its order alone.
func (t *trial) chargesOf(s record.Session) []record.Entry {
	return t.ledger(func(e record.Entry) bool {
		return isCharge(e) && e.AccountID == s.Account && e.MerchantOrderID == s.Order
	})
}

// sessionPaidOnce counts in the provider's ledger, without our database: a session has one
// charge at most, whatever number of nonces it was tried under.
func sessionPaidOnce(t *trial) {
	tried := map[nonce]bool{}
	for _, o := range t.run.Ops {
		if o.Session != "" {
			tried[nonceOf(o)] = true
		}
	}
	t.figures.Sessions, t.figures.SessionNonces = len(t.run.Sessions), len(tried)
	for _, s := range t.run.Sessions {
		charges := t.chargesOf(s)
		if len(charges) > 0 {
			t.figures.SessionsPaid++
		}
		if len(charges) > 1 {
			t.complain("session %s, order %s: %d charges in the ledger: %v", s.ID, s.Order, len(charges), references(charges))
		}
	}
}

// tokenOnce: a one-time token stands for a card once. The nonces that came with it have one
// charge together, whichever orders they pay.
func tokenOnce(t *trial) {
	type token struct{ account, id string }
	with := map[nonce]token{}
	for _, o := range t.run.Ops {
		if o.Token != "" {
			with[nonceOf(o)] = token{o.Account, o.Token}
		}
	}
	charged := map[token][]record.Entry{}
	for _, e := range t.ledger(isCharge) {
		tx := t.world.reference[e.Reference] // chargeAndPayment complains where there is none
		if k, tokenised := with[nonce{tx.Account, tx.Nonce}]; tokenised {
			charged[k] = append(charged[k], e)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(charged), func(a, b token) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.id, b.id))
	}) {
		if all := charged[k]; len(all) > 1 {
			t.complain("token %s of account %s was charged %d times: %v", k.id, k.account, len(all), references(all))
		}
	}
}

// sessionTruth: what a session says of itself in the end is what the provider's ledger says;
// whoever was told of a success was told of that payment; and what was charged is what the
// session asked for.
func sessionTruth(t *trial) {
	succeeded := map[string][]answer{} // by session
	for _, a := range t.answers {
		if a.op.Session != "" && a.err == nil && !unsure(a.op) && a.status.Status == string(transactions.Succeeded) {
			succeeded[a.op.Session] = append(succeeded[a.op.Session], a)
		}
	}
	for _, s := range t.run.Sessions {
		if s.Doubtful && s.Payment == "" {
			continue // it may be gone, with the primary that made it
		}
		charges, says := t.chargesOf(s), s.Status == string(transactions.Succeeded)
		if says != (len(charges) > 0) {
			t.complain("session %s, order %s: its payment %q is told as %q, and the ledger has %d charges", s.ID, s.Order, s.Payment, s.Status, len(charges))
		}
		for _, e := range charges {
			t.judgeSessionCharge(s, e)
		}
		for _, a := range succeeded[s.ID] {
			if a.payment != s.Payment {
				t.complain("session %s, order %s: %s was told at %s that payment %s succeeded, and the session has %q", s.ID, s.Order, nonceOf(a.op), a.op.End, a.payment, s.Payment)
			}
		}
	}
}

// judgeSessionCharge: a charge is of the payment that the session tells, and of an amount
// that it asked for when that began. Nobody can change a session that has its payment, so
// that whoever was told of a change was told before.
func (t *trial) judgeSessionCharge(s record.Session, e record.Entry) {
	if tx, found := t.world.reference[e.Reference]; found && tx.Payment != s.Payment {
		t.complain("session %s, order %s: the ledger has %s, of payment %s, and the session tells %q", s.ID, s.Order, e.Reference, tx.Payment, s.Payment)
	}
	if !s.Seamless {
		return // the merchant's backend says what it charges
	}
	may := []string{s.Value}
	switch s.Change {
	case record.NotChanged:
	case record.MaybeChanged:
		may = append(may, s.Changed)
	case record.WasChanged:
		may = []string{s.Changed}
	}
	charged, err := money.Parse(e.Amount)
	if err != nil || !slices.ContainsFunc(may, func(value string) bool {
		asked, err := money.Parse(value)
		return err == nil && asked.Equal(charged)
	}) {
		t.complain("session %s, order %s: %s was charged, and it asked for %v", s.ID, s.Order, e.Amount, may)
	}
}

// sessionFree: a session whose payments have all failed can be paid.
func sessionFree(t *trial) {
	for _, s := range t.run.Sessions {
		if s.Unpaid != "" && !s.Doubtful {
			t.complain("session %s, order %s, cannot be paid although nothing was paid: %s", s.ID, s.Order, s.Unpaid)
		}
	}
}
