package transactions

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/idem"
)

const (
	// maxLines is the longest page of payments, and what an export reads at a time.
	maxLines = 500
	// maxLooked is how many payments one page looks at for what no index finds: it keeps a
	// page of the rarest under a tenth of a second or so, whatever the table's size.
	maxLooked = 5000
	// lookMore is by how much each look is larger than the one before: most pages are full
	// after the first.
	lookMore = 4
	// clockSlack is how far the clock of the process that made a payment's id may be from
	// the database's, which dates the payment, before a search by time can miss it.
	clockSlack = 5 * time.Minute
)

// PaymentFilter says which payments are meant: all of what it names must fit. Its zero
// value means all.
type PaymentFilter struct {
	AccountID uuid.UUID // Nil: every merchant's
	Mode      string    // "": both
	Status    string    // the payment's; "": any
	SubStatus string
	From, To  *time.Time       // created at or after, and before; nil: no bound
	MinAmount *decimal.Decimal // of the payment, in major units; nil: no bound
	MaxAmount *decimal.Decimal
	Currency  string
	Order     string // the merchant's, exactly
	// ResponseCode is that of the payment's first transaction.
	ResponseCode string
	Nonce        string // of any of the payment's transactions, exactly
	Customer     string // the merchant's own id of them, exactly
}

// PaymentLine is a payment as a list shows it.
type PaymentLine struct {
	AccountID    uuid.UUID
	MerchantName string
	ID           uuid.UUID
	Mode         string
	Order        string `gorm:"column:merchant_order_id"`
	Status       string
	SubStatus    string
	Amount       decimal.Decimal // this and the next, in major units
	Captured     decimal.Decimal
	Refunded     decimal.Decimal
	ChargedBack  decimal.Decimal
	Currency     string
	Customer     string `gorm:"column:merchant_customer_id"` // "": none, or none that was kept
	CreatedAt    time.Time

	// Of its first transaction. Nonce is "" where the merchant sent none.
	TransactionID     uuid.UUID
	Type              Type
	TransactionStatus Status
	Nonce             string
	Provider          string
	ResponseCode      string
	CardBrand         string `gorm:"-"`
	CardLastFour      string `gorm:"-"`
}

// PaymentPage is a page of payments, the newest first.
type PaymentPage struct {
	Payments []PaymentLine
	// Next is what to go on before; Nil if this is the end.
	Next uuid.UUID
	// SearchedTo is how far back this page has looked: all that fits and is newer is on
	// this page or an earlier one. It is zero where there was nothing to look at.
	SearchedTo time.Time
	// Complete says that there are no more: all that could fit has been looked at; by a
	// nonce, among the newest 5,000 transactions that have it.
	Complete bool
}

// ErrMorePayments says that there are more payments than were asked for.
var ErrMorePayments = errors.New("there are more payments than were asked for")

// Payments is a page of the payments that fit f, the newest first: at most limit of them
// (500 at most; 0 and less mean 50), going on before the Next of another page, or from the
// newest if before is Nil. A page may be short, or empty, without being the last: then
// nothing else fits among the some thousand payments that it has looked at.
//
// Ids go by the clock of the process that made them. One whose clock is off stands where
// its id says, and a search by time misses it if it is off by more than five minutes.
func (s *Service) Payments(ctx context.Context, f PaymentFilter, before uuid.UUID, limit int) (PaymentPage, error) {
	for _, text := range []string{f.Mode, f.Status, f.SubStatus, f.Currency, f.Order, f.ResponseCode, f.Nonce, f.Customer} {
		if !plainText(text) {
			return PaymentPage{}, apierr.New(apierr.InvalidParameters, "a filter must be UTF-8 without control characters")
		}
	}
	if limit <= 0 {
		limit = 50
	}
	limit = min(limit, maxLines)
	var (
		page PaymentPage
		fit  []seenPayment
		end  bool
	)
	for looked, n := 0, limit+1; looked < maxLooked && len(fit) <= limit && !end; n *= lookMore {
		n = min(n, maxLooked-looked)
		rows, err := s.store.look(ctx, f, before, n)
		if err != nil {
			return PaymentPage{}, err
		}
		for _, row := range rows {
			before, page.SearchedTo = row.ID, row.CreatedAt
			if row.Matches {
				fit = append(fit, row)
			}
		}
		looked, end = looked+len(rows), len(rows) < n
	}
	switch {
	case len(fit) > limit:
		fit = fit[:limit]
		page.Next, page.SearchedTo = fit[limit-1].ID, fit[limit-1].CreatedAt
	case end:
		page.Complete = true
	default:
		page.Next = before
	}
	var err error
	page.Payments, err = s.store.lines(ctx, fit)
	return page, err
}

// EachPayment calls call with each payment that fits the filter, the newest first, until there
// are no more, the context ends, or call fails, whose error it returns as it is. After max
// of them it returns ErrMorePayments if there are, or may be, more. Between pages nothing
// is held in the database, so it may take as long as its reader does.
func (s *Service) EachPayment(ctx context.Context, f PaymentFilter, most int, call func(PaymentLine) error) error {
	var before uuid.UUID
	for told := 0; ; {
		if told >= most {
			return ErrMorePayments
		}
		page, err := s.Payments(ctx, f, before, min(maxLines, most-told))
		if err != nil {
			return err
		}
		for _, line := range page.Payments {
			if err := call(line); err != nil {
				return err
			}
		}
		told += len(page.Payments)
		if page.Complete {
			return nil
		}
		before = page.Next
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// seenPayment is a payment that a list has looked at.
type seenPayment struct {
	AccountID uuid.UUID
	ID        uuid.UUID
	CreatedAt time.Time
	Matches   bool
}

// bounds are the ids between which what f means must be: from least on, and less than
// below.
func (f PaymentFilter) bounds() (least, below uuid.UUID) {
	below = uuid.Max
	if f.From != nil {
		least = idAt(f.From.Add(-clockSlack))
	}
	if f.To != nil {
		below = idAt(f.To.Add(clockSlack))
	}
	return least, below
}

// idAt is the least id that begins with that time, to the millisecond.
func idAt(t time.Time) (id uuid.UUID) {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, t.UnixMilli())))
	copy(id[:6], ms[2:])
	return id
}

// lineRow is a line as it is read.
type lineRow struct {
	PaymentLine `gorm:"embedded"`
	Card        string // JSON
}

// line is r with what is not a column.
func (r lineRow) line() PaymentLine {
	l := r.PaymentLine
	card := cardOf(r.Card)
	l.CardBrand, l.CardLastFour = card.Brand, card.LFD
	if !idem.WasSent(l.Nonce) {
		l.Nonce = ""
	}
	return l
}

// cardOf is what is kept of a card. What cannot be read is not shown.
func cardOf(kept string) (card KeptCard) {
	if json.Unmarshal([]byte(kept), &card) != nil {
		return KeptCard{}
	}
	return card
}
