package transactions

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/idem"
)

// What an operator's console asks, over all merchants and both modes: here its one search
// box, elsewhere lists, one payment's file and what is not settled. Whatever is asked, no
// statement reads more rows than a limit here says: each goes by an index, and where none
// serves, it looks at a bounded number and says how far it came.

const (
	// maxFound is how much one search tells of each kind: what a person reads at a glance.
	maxFound = 20
	// maxSearch is the longest text that is searched for, in characters: as long as an
	// order or a customer may be called.
	maxSearch = 255
	// maxSearchedNonce is the longest nonce that is, in bytes: some policies know no limit,
	// and this is as much as a header brings.
	maxSearchedNonce = 8 << 10
)

// FoundKind says as what something was found.
type FoundKind string

// The kinds, in the order in which they are told.
const (
	FoundNonce       FoundKind = "nonce"
	FoundPayment     FoundKind = "payment"
	FoundTransaction FoundKind = "transaction"
	FoundOrder       FoundKind = "merchant_order"
	FoundReference   FoundKind = "provider_reference"
	FoundCustomer    FoundKind = "customer"
	FoundSession     FoundKind = "checkout_session"
	FoundLink        FoundKind = "payment_link"
)

// Found is one thing that a search has found. Those of the kinds nonce, transaction and
// provider_reference are transactions, with their payment; all others are payments.
type Found struct {
	Kind         FoundKind `gorm:"-"`
	AccountID    uuid.UUID
	MerchantName string
	Mode         string
	PaymentID    uuid.UUID // Nil: a customer who has paid nothing
	// TransactionID, Nonce and Type are a transaction's; Nonce is "" for one that no
	// request with a nonce began.
	TransactionID uuid.UUID
	Nonce         string
	Type          Type
	Order         string `gorm:"column:merchant_order_id"`
	Customer      string `gorm:"column:merchant_customer_id"` // the merchant's own id of them; "" for none
	// Status and SubStatus are the payment's.
	Status            string
	SubStatus         string
	TransactionStatus Status
	Amount            decimal.Decimal // major units: the transaction's where it is one, else the payment's
	Currency          string
	CreatedAt         time.Time
	// What says in a few words what it is, such as "REFUND, SUCCEEDED".
	What string `gorm:"-"`
}

// FoundGroup is what was found of one kind, the newest first.
type FoundGroup struct {
	Kind  FoundKind
	Found []Found
	More  bool // there are more than are told
}

// Results are what a search has found, by kind. Kinds of which there is nothing are not
// there.
type Results struct {
	Query  string // as it was searched for
	Groups []FoundGroup
}

// Len is how much was found, as far as it is told.
func (r Results) Len() int {
	n := 0
	for _, g := range r.Groups {
		n += len(g.Found)
	}
	return n
}

// Only is what was found, if it was but one thing: one payment or transaction, or one
// nonce, however many lives it had.
func (r Results) Only() (Found, bool) {
	if len(r.Groups) != 1 {
		return Found{}, false
	}
	g := r.Groups[0]
	if g.Kind != FoundNonce && (len(g.Found) != 1 || g.More) || g.Found[0].PaymentID == uuid.Nil {
		return Found{}, false
	}
	return g.Found[0], true
}

// Search finds what is called q, exactly: a nonce, an order, a provider's reference, a
// customer of a merchant's, a payment link's code, or the id of a payment, a transaction, a
// customer, a checkout session or a payment link. Blanks around q don't count. What is
// longer than 255 characters can only be a nonce, of up to 8192. It fails with
// INVALID_PARAMETERS if q is neither, or is no plain text; an empty q finds nothing.
func (s *Service) Search(ctx context.Context, q string) (Results, error) {
	q = strings.TrimSpace(q)
	r := Results{Query: q}
	if q == "" {
		return r, nil
	}
	nonce, long := q, utf8.RuneCountInString(q) > maxSearch
	if len(q) <= maxSearchedNonce && idem.ValidNonce(q) {
		nonce = idem.KeyOf(q)
	}
	if long && nonce == q { // a nonce of that length would be kept in another form
		return r, apierr.New(apierr.InvalidParameters, "what is searched for must have at most 255 characters")
	}
	if !plainText(q) {
		return r, apierr.New(apierr.InvalidParameters, "what is searched for must be UTF-8 without control characters")
	}
	id, isID := fields.ParseID(q)
	for _, look := range searches {
		asked := q
		switch {
		case look.kind == FoundNonce && idem.WasSent(nonce):
			asked = nonce
		case look.kind == FoundNonce, long, look.byID && !isID:
			continue
		}
		found, err := s.store.search(ctx, look, asked, id)
		if err != nil {
			return r, err
		}
		r.Groups = with(r.Groups, look.kind, found)
	}
	return r, nil
}

// plainText says whether s is text that can be stored at all: PostgreSQL knows no U+0000,
// and nobody calls anything by other control characters.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// with is groups with what one look has found, at most one more than is told, beside what
// there is of its kind.
func with(groups []FoundGroup, kind FoundKind, found []Found) []FoundGroup {
	if len(found) == 0 {
		return groups
	}
	at := slices.IndexFunc(groups, func(g FoundGroup) bool { return g.Kind == kind })
	if at < 0 {
		at, groups = len(groups), append(groups, FoundGroup{Kind: kind})
	}
	g := &groups[at]
	for _, f := range found {
		if slices.ContainsFunc(g.Found, f.same) {
			continue
		}
		if len(g.Found) == maxFound {
			g.More = true
			break
		}
		f.Kind = kind
		if !idem.WasSent(f.Nonce) {
			f.Nonce = ""
		}
		f.What = f.what()
		g.Found = append(g.Found, f)
	}
	return groups
}

// same says whether other is the same thing, found in another way.
func (f Found) same(other Found) bool {
	return f.AccountID == other.AccountID && f.PaymentID == other.PaymentID && f.TransactionID == other.TransactionID && f.Customer == other.Customer
}

func (f Found) what() string {
	switch {
	case f.TransactionID != uuid.Nil:
		return string(f.Type) + ", " + string(f.TransactionStatus)
	case f.PaymentID == uuid.Nil:
		return "a customer without a payment"
	}
	return f.Status + ", " + f.SubStatus
}
