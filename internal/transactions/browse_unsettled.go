package transactions

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// maxUnsettled is the longest page of what is not settled.
const maxUnsettled = 200

// UnsettledState is why the outcome of a transaction is not known.
type UnsettledState string

// The states.
const (
	UnsettledInHand   UnsettledState = "in_hand"  // somebody is working on it
	UnsettledUnknown  UnsettledState = "unknown"  // nobody knows; recovery asks the provider
	UnsettledAccepted UnsettledState = "accepted" // the provider has accepted it and not decided
	UnsettledParked   UnsettledState = "parked"   // recovery has given up; a person must look
)

// UnsettledFilter says which of what is not settled is meant. Its zero value means all.
type UnsettledFilter struct {
	Parked    bool      // only what a person must look at
	AccountID uuid.UUID // Nil: every merchant's
}

// UnsettledPage is a page of what is not settled, the longest waiting first.
type UnsettledPage struct {
	Transactions []Unsettled
	Next         uuid.UUID // what to go on after; Nil if this is the end
}

// Unsettled is a transaction whose outcome is not known.
type Unsettled struct {
	AccountID     uuid.UUID
	MerchantName  string
	Mode          string
	PaymentID     uuid.UUID
	TransactionID uuid.UUID // also the reference by which the provider knows it
	Order         string
	Nonce         string // "" where the merchant sent none
	Type          Type
	Status        Status
	Amount        decimal.Decimal // major units
	Currency      string
	Provider      string
	// Configured says whether this installation has the provider. One that it has not is
	// asked nothing.
	Configured        bool
	ProviderReference string // once the provider has given one
	State             UnsettledState
	Since             time.Time
	Age               time.Duration // by the database's clock, in whole seconds
	Attempts          int           // recovery's own
	NextAttemptAt     time.Time
	LeaseUntil        time.Time
	ParkedAt          *time.Time
	LastCall          *LastCall // nil: none was finished
	// Resolvable says whether a person may decide now: nobody is working on it.
	// FailedPossible says whether they may decide that it failed; before FailedFrom, what
	// was sent may still arrive.
	Resolvable     bool
	FailedPossible bool
	FailedFrom     time.Time
	// Advice is what to do, in a sentence or two.
	Advice string
}

// LastCall is the last exchange with the provider about a transaction.
type LastCall struct {
	Kind         string // send, inquire, void or reverse
	Outcome      string
	ResponseCode string
	Detail       string
	At           time.Time
	Duration     time.Duration
}

// Unsettled is a page of the transactions whose outcome is not known, the longest waiting
// first: at most limit of them (200 at most; 0 and less mean 50), going on after the Next
// of another page, or from the first if after is Nil. It reads the index of what is not
// settled, which holds nothing else.
func (s *Service) Unsettled(ctx context.Context, f UnsettledFilter, after uuid.UUID, limit int) (UnsettledPage, error) {
	if limit <= 0 {
		limit = 50
	}
	limit = min(limit, maxUnsettled)
	rows, err := s.store.unsettled(ctx, f, after, limit+1)
	if err != nil {
		return UnsettledPage{}, err
	}
	var page UnsettledPage
	if len(rows) > limit {
		rows = rows[:limit]
		page.Next = rows[limit-1].ID
	}
	for _, row := range rows {
		_, configured := s.providers.Named(row.Provider)
		page.Transactions = append(page.Transactions, row.unsettled(configured))
	}
	return page, nil
}

// unsettledRow is a transaction with what a person has to know of it.
type unsettledRow struct {
	MerchantName    string
	MerchantOrderID string
	Now             time.Time
	NextAttemptAt   time.Time
	LeaseOver       bool
	CallKind        *string
	CallOutcome     string
	CallCode        string
	CallDetail      string
	CallAt          time.Time
	CallMS          int64
	Transaction     `gorm:"embedded"`
}

func (r unsettledRow) unsettled(configured bool) Unsettled {
	u := Unsettled{
		AccountID: r.AccountID, MerchantName: r.MerchantName, Mode: r.Mode, PaymentID: r.PaymentID, TransactionID: r.ID,
		Order: r.MerchantOrderID, Nonce: r.sentNonce(), Type: r.Type, Status: r.Status, Amount: r.Amount, Currency: r.Currency,
		Provider: r.Provider, Configured: configured, ProviderReference: r.ProviderReference, State: r.state(),
		Since: r.CreatedAt, Age: max(0, r.Now.Sub(r.CreatedAt)).Truncate(time.Second),
		Attempts: r.Attempts, NextAttemptAt: r.NextAttemptAt, ParkedAt: r.ParkedAt,
		Resolvable: r.LeaseOver, FailedFrom: r.proofMoment(),
	}
	if r.LeaseUntil != nil {
		u.LeaseUntil = *r.LeaseUntil
	}
	u.FailedPossible = u.Resolvable && !r.Now.Before(u.FailedFrom)
	if r.CallKind != nil {
		u.LastCall = &LastCall{
			Kind: *r.CallKind, Outcome: r.CallOutcome, ResponseCode: r.CallCode, Detail: r.CallDetail, At: r.CallAt,
			Duration: time.Duration(r.CallMS) * time.Millisecond,
		}
	}
	u.Advice = r.advice(u)
	return u
}

func (r unsettledRow) state() UnsettledState {
	switch {
	case r.ParkedAt != nil:
		return UnsettledParked
	case r.Status == Pending:
		return UnsettledAccepted
	case !r.LeaseOver:
		return UnsettledInHand
	}
	return UnsettledUnknown
}

// advice is what a person should do about u.
func (r unsettledRow) advice(u Unsettled) string {
	look := fmt.Sprintf("Look for the reference %s on the pages of %s", u.TransactionID, u.Provider)
	if u.ProviderReference != "" {
		look += fmt.Sprintf(" (there it may be %s)", u.ProviderReference)
	}
	decide := " If it is booked there, resolve it as succeeded"
	if u.FailedPossible {
		decide += "; if it is not, as failed."
	} else {
		decide += fmt.Sprintf("; that it failed can be decided from %s on, as it may still arrive.", moment(u.FailedFrom))
	}
	switch {
	case u.State == UnsettledInHand:
		return fmt.Sprintf("Wait: somebody is working on it, until %s at the latest.", moment(u.LeaseUntil))
	case !u.Configured:
		return "This installation has no provider of that name, so nobody asks: configure it again. Else: " + look + "." + decide
	case u.State == UnsettledParked:
		return look + ": nothing that was asked so far has told what became of it." + decide
	case u.State == UnsettledAccepted && r.redirect() != "":
		return fmt.Sprintf("Wait: the payer has not passed the provider's challenge yet. The provider is asked again at %s.", moment(u.NextAttemptAt))
	case u.State == UnsettledAccepted:
		return fmt.Sprintf("Wait: the provider has accepted it and not decided yet. It is asked again at %s.", moment(u.NextAttemptAt))
	}
	return fmt.Sprintf("Wait: recovery asks the provider what became of it, next at %s, and calls a person if that leads nowhere.", moment(u.NextAttemptAt))
}

// moment is a time for a person to read.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
