// Package transactions is the product's heart: a payment is what a merchant
// asked for, a transaction is one operation of it against a provider, and one
// nonce moves money at most once.
//
// A transaction's life, whoever works on it and whatever dies meanwhile:
//
//	begin ──► call the provider ──► finish ──► terminal
//	  │              │ (no answer, crash)
//	  │              ▼
//	  │         unresolved ──► resume: inquire, perhaps resend ──► finish
//	  │              │
//	  │              └── nobody can tell ──► parked ──► a person resolves
//	  └── duplicate ──► replay, or "in process"
//
// Whoever works on a transaction holds a lease and a fence. The fence protects
// our rows from a holder that was taken over; `may_send_until` protects the
// provider from it. See docs/concepts/idempotency.md.
package transactions

import (
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// Type is the kind of a transaction.
type Type string

// The types that exist so far.
const (
	Purchase  Type = "PURCHASE"
	Authorize Type = "AUTHORIZE"
)

// Status is a transaction's status.
type Status string

// Created and Pending are unresolved: the outcome is not known. All others are
// terminal.
const (
	Created   Status = "CREATED"
	Pending   Status = "PENDING"
	Succeeded Status = "SUCCEEDED"
	Declined  Status = "DECLINED"
	Rejected  Status = "REJECTED"
	Errored   Status = "ERROR"
)

// Moves is every legal change of a transaction's status. The drawing in
// docs/concepts/states.md is compared with it by a test.
var Moves = map[Status][]Status{
	Created: {Pending, Succeeded, Declined, Rejected, Errored},
	Pending: {Succeeded, Declined, Rejected, Errored},
}

// Terminal reports whether a status never changes again.
func (s Status) Terminal() bool { return len(Moves[s]) == 0 }

// canBecome reports whether the move from s to next is legal.
func (s Status) canBecome(next Status) bool {
	for _, to := range Moves[s] {
		if to == next {
			return true
		}
	}
	return false
}

// PaymentStatus is a payment's status with its sub_status.
type PaymentStatus struct{ Status, Sub string }

// The payment statuses that exist so far. A payment is Unconfirmed from the
// moment its row exists: from then on a charge may exist, too.
var (
	Unconfirmed       = PaymentStatus{"PENDING", "PENDING_PROVIDER_CONFIRMATION"}
	PaymentAuthorized = PaymentStatus{"PENDING", "AUTHORIZED"}
	PaymentApproved   = PaymentStatus{"SUCCEEDED", "APPROVED"}
	PaymentDeclined   = PaymentStatus{"DECLINED", "DECLINED"}
	PaymentRejected   = PaymentStatus{"REJECTED", "REJECTED"}
	PaymentErrored    = PaymentStatus{"ERROR", "ERROR"}
)

// paymentAfter says what a transaction of that type and status makes of its
// payment.
func paymentAfter(t Type, s Status) PaymentStatus {
	switch s {
	case Created, Pending:
		return Unconfirmed
	case Succeeded:
		if t == Authorize {
			return PaymentAuthorized
		}
		return PaymentApproved
	case Declined:
		return PaymentDeclined
	case Rejected:
		return PaymentRejected
	case Errored:
		return PaymentErrored
	}
	return PaymentErrored
}

// Payment is one payment as kept.
type Payment struct {
	AccountID       uuid.UUID
	ID              uuid.UUID
	Mode            string
	MerchantOrderID string
	Status          string
	SubStatus       string
	Currency        string
	Amount          decimal.Decimal
	Captured        decimal.Decimal
	Refunded        decimal.Decimal
	Version         int64
	Request         string
	CreatedAt       time.Time
	UpdatedAt       time.Time
}

// Transaction is one transaction as kept.
type Transaction struct {
	AccountID         uuid.UUID
	ID                uuid.UUID
	PaymentID         uuid.UUID
	Mode              string
	Type              Type
	Status            Status
	Currency          string
	Amount            decimal.Decimal
	Provider          string
	ProviderReference string
	ResponseCode      string
	AuthorizationCode string
	Nonce             string
	Card              string
	Fence             int64
	ResendRefused     bool
	Attempts          int
	Released          bool
	LeaseHolder       uuid.UUID
	LeaseUntil        *time.Time
	MaySendUntil      time.Time
	TravelUS          int64
	ParkedAt          *time.Time
	CreatedAt         time.Time
	UpdatedAt         time.Time
}
