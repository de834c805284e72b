package sandbox

import (
	"slices"

	"github.com/shopspring/decimal"
)

// The reasons why a booked thing does not allow an operation, as response codes of
// the contract.
const (
	codeNotFound = "TRANSACTION_NOT_FOUND" // nothing is, and nothing may yet be, booked there
	codeStatus   = "INVALID_STATUS"        // it is of another type, or not in the state for it
	codeCurrency = "CURRENCY_NOT_ALLOWED"
	codeAmount   = "INVALID_AMOUNT" // more than is left of it, or less than all for a cancellation
)

// actsOn is what each operation can be made of.
var actsOn = map[string][]string{
	typeCapture: {typeAuthorize},
	typeCancel:  {typeAuthorize},
	typeRefund:  {typePurchase, typeCapture},
}

// sums is what was made of one booked thing. What is pending counts as if it were
// booked: it is reserved.
type sums struct {
	used      decimal.Decimal // captured of an authorization, refunded of anything else
	cancelled bool
	lost      decimal.Decimal // in disputes
	disputed  decimal.Decimal // in the one that is not over; zero for none
}

// given is what a payer has got back, or may yet get without another decision about it.
func (s *sums) given() decimal.Decimal { return s.used.Add(s.lost).Add(s.disputed) }

// sumsOf are a booked thing's sums, to be changed.
func (l *Ledger) sumsOf(key refKey) *sums {
	s := l.sums[key]
	if s == nil {
		s = &sums{}
		l.sums[key] = s
	}
	return s
}

// change adds an operation, or with a sign of -1 takes it away.
func (s *sums) change(kind, amount string, sign int64) {
	if kind == typeCancel {
		s.cancelled = sign > 0
		return
	}
	s.used = s.used.Add(decimal.RequireFromString(amount).Mul(decimal.NewFromInt(sign)))
}

// objection is the response code that says why an operation cannot be made of a
// target now, or "" if it can. The caller has l.mu; and, unless what it is about to
// do is on the disk already, the target's root.
func (l *Ledger) objection(target refKey, kind, amount, currency string) (code string) {
	st := l.standings[target]
	switch st.status {
	case statusApproved, statusDeclined, statusPending:
	case statusUnknown, statusRefused, statusVoided, statusError, "":
		return codeNotFound
	}
	if st.status != statusApproved || !slices.Contains(actsOn[kind], st.kind) {
		return codeStatus
	}
	if currency != st.currency {
		return codeCurrency
	}
	s := l.sums[target]
	if s == nil {
		s = &sums{}
	}
	wanted, whole := decimal.RequireFromString(amount), decimal.RequireFromString(st.amount)
	switch {
	case kind != typeRefund && s.cancelled, kind == typeCancel && s.used.IsPositive():
		return codeStatus
	case kind == typeCancel && !wanted.Equal(whole), kind != typeCancel && s.given().Add(wanted).GreaterThan(whole):
		return codeAmount
	}
	return ""
}

// unreserve gives back what something pending had reserved, and forgets that it was.
func (l *Ledger) unreserve(key refKey, p record) {
	delete(l.undecided, key)
	if p.Target != "" {
		l.sumsOf(refKey{p.AccountID, p.Mode, p.Target}).change(p.Type, p.Amount, -1)
	}
}
