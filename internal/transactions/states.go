package transactions

import (
	"fmt"
	"slices"

	"github.com/shopspring/decimal"
)

// Type is the kind of a transaction.
type Type string

// The types. The first three begin a payment; the next three act on a transaction of
// one; nobody here begins a Chargeback.
const (
	Purchase   Type = "PURCHASE"
	Authorize  Type = "AUTHORIZE"
	Verify     Type = "VERIFY"
	Capture    Type = "CAPTURE"
	Cancel     Type = "CANCEL"
	Refund     Type = "REFUND"
	Chargeback Type = "CHARGEBACK"
)

// Status is a transaction's status.
type Status string

// Created and Pending are unresolved: the outcome is not known. All others are
// terminal. A Chargeback is Created when it is received, Pending while it is
// reviewed, and ends as Won or Lost.
const (
	Unborn    Status = "" // there is no such transaction yet
	Created   Status = "CREATED"
	Pending   Status = "PENDING"
	Succeeded Status = "SUCCEEDED"
	Declined  Status = "DECLINED"
	Rejected  Status = "REJECTED"
	Errored   Status = "ERROR"
	Expired   Status = "EXPIRED"
	Won       Status = "WON"
	Lost      Status = "LOST"
)

// moves are the legal changes of a status, by the status before.
type moves map[Status][]Status

// The moves of what begins a payment, of what acts on one, and of a dispute.
var (
	opening = moves{
		Unborn:  {Created},
		Created: {Pending, Succeeded, Declined, Rejected, Errored, Expired},
		Pending: {Succeeded, Declined, Rejected, Errored, Expired},
	}
	authorizing = moves{
		Unborn:    {Created},
		Created:   opening[Created],
		Pending:   opening[Pending],
		Succeeded: {Expired}, // nobody captured it in time
	}
	acting = moves{
		Unborn:  {Created},
		Created: {Pending, Succeeded, Declined, Errored},
		Pending: {Succeeded, Declined, Errored},
	}
	disputing = moves{
		Unborn:  {Created, Pending, Won, Lost}, // whatever we hear of first
		Created: {Pending, Won, Lost},
		Pending: {Won, Lost},
	}
)

// Moves is every legal change of a transaction's status. The drawings in
// docs/concepts/states.md are compared with it by a test.
var Moves = map[Type]map[Status][]Status{
	Purchase: opening, Authorize: authorizing, Verify: opening,
	Capture: acting, Cancel: acting, Refund: acting,
	Chargeback: disputing,
}

// Terminal reports whether the outcome is known. All that can still happen to a
// transaction then is that an authorization expires.
func (s Status) Terminal() bool { return s != Unborn && s != Created && s != Pending }

// canBecome reports whether t may go from one status to the other.
func (t Type) canBecome(from, to Status) bool { return slices.Contains(Moves[t][from], to) }

// acts reports whether it acts on another transaction, by a merchant's wish.
func (t Type) acts() bool { return t == Capture || t == Cancel || t == Refund }

// PaymentStatus is a payment's status with its sub_status.
type PaymentStatus struct{ Status, Sub string }

func (s PaymentStatus) String() string { return s.Status + "/" + s.Sub }

// The statuses of a payment. It is Unconfirmed from the moment its row exists: from
// then on a charge may exist, too.
var (
	Unconfirmed                  = PaymentStatus{"PENDING", "PENDING_PROVIDER_CONFIRMATION"}
	PaymentChallenged            = PaymentStatus{"PENDING", "WAITING_ADDITIONAL_STEP"}
	PaymentAuthorized            = PaymentStatus{"PENDING", "AUTHORIZED"}
	PaymentVerified              = PaymentStatus{"VERIFIED", "VERIFIED"}
	PaymentApproved              = PaymentStatus{"SUCCEEDED", "APPROVED"}
	PaymentCaptured              = PaymentStatus{"SUCCEEDED", "CAPTURED"}
	PaymentPartiallyCaptured     = PaymentStatus{"SUCCEEDED", "PARTIALLY_CAPTURED"}
	PaymentPartiallyRefunded     = PaymentStatus{"SUCCEEDED", "PARTIALLY_REFUNDED"}
	PaymentPartiallyChargebacked = PaymentStatus{"SUCCEEDED", "PARTIALLY_CHARGEBACKED"}
	PaymentRefundPending         = PaymentStatus{"REFUNDED", "PENDING_PROVIDER_CONFIRMATION"}
	PaymentRefunded              = PaymentStatus{"REFUNDED", "REFUNDED"}
	PaymentCancelPending         = PaymentStatus{"CANCELED", "PENDING_PROVIDER_CONFIRMATION"}
	PaymentCanceled              = PaymentStatus{"CANCELED", "CANCELED"}
	PaymentDisputed              = PaymentStatus{"IN_DISPUTE", "RECEIVED"}
	PaymentDisputeReviewed       = PaymentStatus{"IN_DISPUTE", "PENDING_REVIEW"}
	PaymentChargedBack           = PaymentStatus{"CHARGEBACK", "LOST"}
	PaymentDeclined              = PaymentStatus{"DECLINED", "DECLINED"}
	PaymentRejected              = PaymentStatus{"REJECTED", "REJECTED"}
	PaymentErrored               = PaymentStatus{"ERROR", "ERROR"}
	PaymentExpired               = PaymentStatus{"EXPIRED", "EXPIRED"}
)

// The moves that several statuses have in common: how a payment's first transaction
// may end, how money may be on its way back, and where a dispute may lead back to.
var (
	ends      = []PaymentStatus{PaymentAuthorized, PaymentVerified, PaymentApproved, PaymentDeclined, PaymentRejected, PaymentErrored, PaymentExpired}
	disputes  = []PaymentStatus{PaymentDisputed, PaymentDisputeReviewed, PaymentChargedBack, PaymentPartiallyChargebacked}
	refunds   = []PaymentStatus{PaymentRefundPending, PaymentPartiallyRefunded, PaymentRefunded}
	collected = []PaymentStatus{PaymentApproved, PaymentCaptured, PaymentPartiallyCaptured}
)

// PaymentMoves is every legal change of a payment's status. The drawing in
// docs/concepts/states.md is compared with it by a test. A status that is not a key
// is final.
var PaymentMoves = map[PaymentStatus][]PaymentStatus{
	Unconfirmed:                  slices.Concat([]PaymentStatus{PaymentChallenged}, ends),
	PaymentChallenged:            ends,
	PaymentAuthorized:            {PaymentPartiallyCaptured, PaymentCaptured, PaymentCancelPending, PaymentCanceled, PaymentExpired},
	PaymentCancelPending:         {PaymentAuthorized, PaymentCanceled},
	PaymentApproved:              slices.Concat(refunds, disputes),
	PaymentCaptured:              slices.Concat(refunds, disputes),
	PaymentPartiallyCaptured:     slices.Concat([]PaymentStatus{PaymentCaptured}, refunds, disputes),
	PaymentRefundPending:         slices.Concat(collected, []PaymentStatus{PaymentPartiallyRefunded, PaymentRefunded}, disputes),
	PaymentPartiallyRefunded:     slices.Concat([]PaymentStatus{PaymentRefundPending, PaymentRefunded}, disputes),
	PaymentRefunded:              slices.Concat([]PaymentStatus{PaymentPartiallyRefunded}, disputes), // a capture that was under way succeeded
	PaymentDisputed:              slices.Concat([]PaymentStatus{PaymentDisputeReviewed, PaymentChargedBack, PaymentPartiallyChargebacked}, collected, refunds),
	PaymentDisputeReviewed:       slices.Concat([]PaymentStatus{PaymentDisputed, PaymentChargedBack, PaymentPartiallyChargebacked}, collected, refunds),
	PaymentChargedBack:           {PaymentRefundPending, PaymentDisputed, PaymentDisputeReviewed, PaymentPartiallyChargebacked}, // the same, or a refund
	PaymentPartiallyChargebacked: {PaymentRefundPending, PaymentDisputed, PaymentDisputeReviewed, PaymentChargedBack},
}

// canBecome reports whether a payment may go from s to next. To stay is no move, and
// always legal.
func (s PaymentStatus) canBecome(next PaymentStatus) bool {
	return s == next || slices.Contains(PaymentMoves[s], next)
}

// alongside is what else is going on with a payment: what its other transactions are
// waiting for.
type alongside struct {
	Refunding bool // the provider has accepted a refund and not decided
	Canceling bool // the same of a cancellation
	Disputed  bool
	Reviewed  bool // a dispute, too
}

// with adds what t is waiting for, once it has that status.
func (u alongside) with(t Type, s Status) alongside {
	u.Refunding = u.Refunding || t == Refund && s == Pending
	u.Canceling = u.Canceling || t == Cancel && s == Pending
	u.Disputed = u.Disputed || t == Chargeback && s == Created
	u.Reviewed = u.Reviewed || t == Chargeback && s == Pending
	return u
}

// standing is the status of a payment whose first transaction has succeeded: it
// follows from its sums and from what is under way, however it came there. So it is
// the same whatever was first of two things that happened at once.
func (s Sums) standing(u alongside) PaymentStatus {
	switch {
	case u.Reviewed:
		return PaymentDisputeReviewed
	case u.Disputed:
		return PaymentDisputed
	case u.Refunding:
		return PaymentRefundPending
	case s.ChargedBack.IsPositive() && s.ChargedBack.Equal(s.Settled):
		return PaymentChargedBack
	case s.ChargedBack.IsPositive():
		return PaymentPartiallyChargebacked
	case s.Refunded.IsPositive() && s.Refunded.Equal(s.Settled):
		return PaymentRefunded
	case s.Refunded.IsPositive():
		return PaymentPartiallyRefunded
	case s.Captured.IsPositive() && s.Captured.Equal(s.Authorized):
		return PaymentCaptured
	case s.Captured.IsPositive():
		return PaymentPartiallyCaptured
	case s.Settled.IsPositive():
		return PaymentApproved
	case s.Canceled.IsPositive():
		return PaymentCanceled
	case u.Canceling:
		return PaymentCancelPending
	}
	return PaymentAuthorized
}

// began is the status of a payment whose first transaction, of type t, has status s.
func (p Payment) began(t Type, s Status, redirect string) PaymentStatus {
	switch {
	case s == Pending && (redirect != "" || p.state() == PaymentChallenged):
		return PaymentChallenged
	case s == Succeeded:
		return opened[t]
	}
	return unopened[s]
}

// What the success of a payment's first transaction makes of it, and what anything else.
var (
	opened   = map[Type]PaymentStatus{Purchase: PaymentApproved, Authorize: PaymentAuthorized, Verify: PaymentVerified}
	unopened = map[Status]PaymentStatus{
		Pending: Unconfirmed, Declined: PaymentDeclined, Rejected: PaymentRejected, Errored: PaymentErrored, Expired: PaymentExpired,
	}
)

// state is p's status with its sub_status.
func (p Payment) state() PaymentStatus { return PaymentStatus{p.Status, p.SubStatus} }

// after is p once t has become next: its sums, its status and its version, which counts
// the events: one for each change of its status, and for each end of a transaction. u is
// what p's other transactions wait for. What t had reserved is consumed or given back. If t
// stays what it is, so does p.
func (p Payment) after(t Transaction, next Status, u alongside) (Payment, error) {
	if next == t.Status && next != Pending { // which may now know where the payer has to go
		return p, nil
	}
	if next != t.Status && !t.Type.canBecome(t.Status, next) {
		return p, fmt.Errorf("a %s that is %s cannot become %s", t.Type, t.Status, next)
	}
	before := p.state()
	p.Sums = p.Sums.after(t, next)
	state := p.began(t.Type, next, t.RedirectURL)
	if t.TargetID.Valid {
		state = p.standing(u.with(t.Type, next))
	}
	if !before.canBecome(state) {
		return p, fmt.Errorf("a payment that is %s cannot become %s", before, state)
	}
	if state != before || next.Terminal() { // else nobody can tell the difference
		p.Version++
	}
	p.Status, p.SubStatus = state.Status, state.Sub
	return p, nil
}

// after is s once t has become next.
func (s Sums) after(t Transaction, next Status) Sums {
	if !next.Terminal() {
		return s
	}
	moved := decimal.Zero
	if next == Succeeded {
		moved = t.Amount
	}
	switch t.Type {
	case Purchase:
		s.AuthorizePending, s.Authorized = s.AuthorizePending.Sub(t.Amount), s.Authorized.Add(moved)
		s.SettlePending, s.Settled = s.SettlePending.Sub(t.Amount), s.Settled.Add(moved)
	case Authorize:
		if t.Status == Succeeded { // and expires now
			s.Authorized = s.Authorized.Sub(t.Amount)
			break
		}
		s.AuthorizePending, s.Authorized = s.AuthorizePending.Sub(t.Amount), s.Authorized.Add(moved)
	case Verify: // moves nothing
	case Capture:
		s.SettlePending, s.Settled = s.SettlePending.Sub(t.Amount), s.Settled.Add(moved)
		s.Captured = s.Captured.Add(moved)
	case Cancel:
		s.CancelPending, s.Canceled = s.CancelPending.Sub(t.Amount), s.Canceled.Add(moved)
	case Refund:
		s.RefundPending, s.Refunded = s.RefundPending.Sub(t.Amount), s.Refunded.Add(moved)
	case Chargeback:
		if next == Lost {
			s.ChargedBack = s.ChargedBack.Add(t.Amount)
		}
	}
	return s
}
