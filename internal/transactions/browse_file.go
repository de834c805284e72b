package transactions

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

const (
	// maxFileTransactions and maxFileEvents bound one payment's file: far more than a
	// payment has in earnest, few enough to be read.
	maxFileTransactions = 500
	maxFileEvents       = 1000
)

// PaymentFile is all that is kept of one payment, but nothing of its card beyond what a
// line shows.
type PaymentFile struct {
	PaymentLine
	Sums      Sums // in major units
	Version   int64
	UpdatedAt time.Time

	// Of the request.
	MerchantReference string
	Description       string
	Country           string
	Workflow          string
	CallbackURL       string
	SoftDescriptor    string
	Installments      int
	// Capture says that it was to be paid at once, Verify that it moves nothing.
	Capture, Verify bool
	// CustomerPayer, Metadata and AdditionalData are indented JSON; "" where nothing was
	// sent.
	CustomerPayer  string
	Metadata       string
	AdditionalData string

	// What it was made with; Nil and "" where it was not.
	SessionID  uuid.UUID
	TokenID    uuid.UUID // a one-time token
	KeptCardID uuid.UUID // the kept card that it was paid with, or decides about
	SourceNote string
	LinkID     string
	LinkCode   string

	// AuthorizedUntil is until when it may be captured; nil where there is nothing to
	// capture any more, or never was.
	AuthorizedUntil *time.Time

	Transactions     []FileTransaction // the oldest first
	MoreTransactions bool              // there are older ones
	Events           []FileEvent       // the oldest first
	MoreEvents       bool              // there are later ones
	// Possible is what may be done now. It is asked again when it is.
	Possible []Possible
}

// FileTransaction is one of a payment's transactions.
type FileTransaction struct {
	ID                uuid.UUID
	TargetID          uuid.UUID // what it acts on; Nil for the payment's first
	Type              Type
	Status            Status
	Amount            decimal.Decimal // this and the refunded, in major units
	Refunded          decimal.Decimal
	RefundPending     decimal.Decimal
	Currency          string
	Provider          string
	ProviderReference string
	ResponseCode      string
	ResponseMessage   string
	AuthorizationCode string
	Nonce             string // "" where the merchant sent none
	Policy            string // by which the nonce lives
	Released          bool   // the nonce was given back: it had no effect
	Fence             int64  // how often somebody took it on, and it was parked
	Attempts          int    // recovery's own, since it was last left
	CardBrand         string
	CardLastFour      string
	// Of an action's request.
	Route             Route
	Reason            string
	Description       string
	MerchantReference string
	// Raw is the provider's own answer as indented JSON, without what is nobody's business;
	// "" where there is none.
	Raw string
	// While its outcome is not known: until when its holder has it, when recovery looks
	// again, and since when it is parked.
	LeaseUntil    *time.Time
	NextAttemptAt *time.Time
	ParkedAt      *time.Time
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// FileEvent is one change of a payment.
type FileEvent struct {
	Seq           int64
	TransactionID uuid.UUID
	Type          string // such as "payment.refund"
	Status        string // the payment's since then
	SubStatus     string
	Cause         string
	CreatedAt     time.Time
}

// Possible is something that an operator may order.
type Possible struct {
	Route         Route
	TransactionID uuid.UUID
	Type          Type            // of that transaction
	Max           decimal.Decimal // the most that it can be about, in major units of the payment's currency
	Whole         bool            // it can only be about all of it
}

// File is all that is known of one payment, whosever it is. It fails with
// PAYMENT_NOT_FOUND.
func (s *Service) File(ctx context.Context, payment uuid.UUID) (PaymentFile, error) {
	row, err := s.store.fileOf(ctx, payment)
	if err != nil {
		return PaymentFile{}, err
	}
	f, err := row.file()
	if err != nil {
		return PaymentFile{}, err
	}
	lines, err := s.store.lines(ctx, []seenPayment{{AccountID: row.AccountID, ID: row.ID}})
	if err != nil {
		return PaymentFile{}, err
	}
	if len(lines) == 1 {
		f.PaymentLine = lines[0]
	}
	ts, err := s.store.fileTransactions(ctx, row.AccountID, row.ID, maxFileTransactions+1)
	if err != nil {
		return PaymentFile{}, err
	}
	if f.MoreTransactions = len(ts) > maxFileTransactions; f.MoreTransactions {
		ts = ts[:maxFileTransactions]
	}
	slices.Reverse(ts)
	for _, t := range ts {
		f.Transactions = append(f.Transactions, t.shown())
	}
	if f.Events, err = s.store.fileEvents(ctx, row.AccountID, row.ID, maxFileEvents+1); err != nil {
		return PaymentFile{}, err
	}
	if f.MoreEvents = len(f.Events) > maxFileEvents; f.MoreEvents {
		f.Events = f.Events[:maxFileEvents]
	}
	f.Possible, err = s.possible(ctx, row.Payment)
	return f, err
}

// PaymentOf is the payment of a transaction, whosever it is. It fails with NOT_FOUND.
func (s *Service) PaymentOf(ctx context.Context, transaction uuid.UUID) (uuid.UUID, error) {
	t, _, err := s.store.byID(ctx, transaction)
	return t.PaymentID, err
}

// possible is what may be done with p, by the rules by which an action begins.
func (s *Service) possible(ctx context.Context, p Payment) ([]Possible, error) {
	all, err := s.store.actionable(ctx, p.AccountID, p.ID)
	if err != nil {
		return nil, err
	}
	over, err := s.store.authorizationOver(ctx, p.AccountID, p.ID)
	if err != nil {
		return nil, err
	}
	var found []Possible
	for _, t := range all {
		if _, configured := s.providers.Named(t.Provider); !configured {
			continue
		}
		for _, route := range []Route{RouteCapture, RouteRefund, RouteCancel} {
			a := Action{Route: route, Type: actionRules[route].typ}
			if a.settle(p, t) != nil || a.Type == Capture && over {
				continue
			}
			found = append(found, Possible{Route: route, TransactionID: t.ID, Type: t.Type, Max: a.Amount, Whole: !actionRules[route].amount})
		}
	}
	return found, nil
}

// fileRow is a payment as its file begins.
type fileRow struct {
	AuthorizedUntil *time.Time
	SessionID       uuid.NullUUID
	TokenID         uuid.NullUUID
	KeptCardID      uuid.NullUUID
	SourceNote      string
	Payment         `gorm:"embedded"`
}

func (r fileRow) file() (PaymentFile, error) {
	var kept keptRequest
	if json.Unmarshal([]byte(r.Request), &kept) != nil {
		return PaymentFile{}, errStoredShape
	}
	return PaymentFile{
		Sums: r.Sums, Version: r.Version, UpdatedAt: r.UpdatedAt,
		MerchantReference: kept.MerchantReference, Description: kept.Description, Country: kept.Country, Workflow: kept.Workflow,
		CallbackURL: kept.CallbackURL, SoftDescriptor: kept.SoftDescriptor, Installments: kept.Installments,
		Capture: kept.Capture, Verify: kept.Verify,
		CustomerPayer: indented(kept.CustomerPayer), Metadata: indented(kept.Metadata), AdditionalData: indented(kept.AdditionalData),
		SessionID: r.SessionID.UUID, TokenID: r.TokenID.UUID, KeptCardID: r.KeptCardID.UUID, SourceNote: r.SourceNote,
		LinkID: kept.LinkID, LinkCode: kept.LinkCode, AuthorizedUntil: r.AuthorizedUntil,
	}, nil
}

// indented is JSON for a person to read.
func indented(raw json.RawMessage) string {
	var b bytes.Buffer
	if len(raw) == 0 || json.Indent(&b, raw, "", "  ") != nil {
		return ""
	}
	return b.String()
}

// fileTransaction is a transaction as its payment's file shows it.
type fileTransaction struct {
	NextAttemptAt time.Time
	Transaction   `gorm:"embedded"`
}

func (t fileTransaction) shown() FileTransaction {
	var kept keptAction
	_ = json.Unmarshal([]byte(t.Request), &kept) // the payment's first has none
	card := cardOf(t.Card)
	f := FileTransaction{
		ID: t.ID, TargetID: t.TargetID.UUID, Type: t.Type, Status: t.Status,
		Amount: t.Amount, Refunded: t.Refunded, RefundPending: t.RefundPending, Currency: t.Currency,
		Provider: t.Provider, ProviderReference: t.ProviderReference,
		ResponseCode: t.ResponseCode, ResponseMessage: responseMessage(t.ResponseCode), AuthorizationCode: t.AuthorizationCode,
		Nonce: t.sentNonce(), Policy: t.Policy, Released: t.Released, Fence: t.Fence, Attempts: t.Attempts,
		CardBrand: card.Brand, CardLastFour: card.LFD,
		Route: kept.Route, Reason: kept.Reason, Description: kept.Description, MerchantReference: kept.MerchantReference,
		Raw:        indented(json.RawMessage(t.RawResponse)),
		LeaseUntil: t.LeaseUntil, ParkedAt: t.ParkedAt, CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt,
	}
	if t.LeaseUntil != nil {
		f.NextAttemptAt = &t.NextAttemptAt
	}
	return f
}
