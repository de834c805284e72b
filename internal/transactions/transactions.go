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

	"github.com/oncepay/oncepay/internal/idem"
)

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
	Sums            `gorm:"embedded"`
	Version         int64
	Request         string
	CreatedAt       time.Time
	UpdatedAt       time.Time
}

// Sums are how much of a payment happened, and, beside it, how much an unresolved
// transaction may still add. All in major units of the payment's currency.
type Sums struct {
	Authorized       decimal.Decimal
	AuthorizePending decimal.Decimal
	Settled          decimal.Decimal // purchased or captured
	SettlePending    decimal.Decimal
	Captured         decimal.Decimal // what of Settled was captured: the contract's `captured`
	Refunded         decimal.Decimal
	RefundPending    decimal.Decimal
	Canceled         decimal.Decimal
	CancelPending    decimal.Decimal
	ChargedBack      decimal.Decimal
}

// Capturable is what may still be captured of an authorization.
func (s Sums) Capturable() decimal.Decimal {
	return s.Authorized.Sub(s.Settled).Sub(s.SettlePending).Sub(s.Canceled).Sub(s.CancelPending)
}

// Transaction is one transaction as kept.
type Transaction struct {
	AccountID         uuid.UUID
	ID                uuid.UUID
	PaymentID         uuid.UUID
	TargetID          uuid.NullUUID // what it acts on; null where it began a payment
	Mode              string
	Type              Type
	Status            Status
	Currency          string
	Amount            decimal.Decimal
	Provider          string
	ProviderReference string
	ResponseCode      string
	AuthorizationCode string
	RedirectURL       string // where the payer has to go, as long as it is pending
	RawResponse       string // a JSON object, or ""
	Refunded          decimal.Decimal
	RefundPending     decimal.Decimal
	Nonce             string // "" for what no request began
	Policy            string // by which its nonce lives
	Card              string
	Request           string // an action's; a payment's own is with the payment
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

// sentNonce is the nonce that a merchant sent; "" for a transaction that has none.
func (t Transaction) sentNonce() string {
	if !idem.WasSent(t.Nonce) {
		return ""
	}
	return t.Nonce
}
