// Package providers is the seam to a payment service provider (PSP): what we
// ask of one, what it may answer, and what it declares about itself.
//
// The engine reasons about providers only through Traits and Outcomes. The one
// rule every adapter must keep: it never claims more than it knows. Whatever is
// not certain is Unclear, because releasing a nonce on a wrong "nothing
// happened" charges somebody twice.
package providers

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/shopspring/decimal"
)

// Outcome is what one exchange with a provider established.
type Outcome string

// The closed set of outcomes. The engine's release rule is a switch over them.
const (
	// Approved: booked under the reference. Money moved, or is held.
	Approved Outcome = "approved"
	// Declined: a final no. Nothing is, or will be, booked under the reference.
	Declined Outcome = "declined"
	// Pending: accepted; the result comes later, under the same reference.
	Pending Outcome = "pending"
	// Refused: the provider found the request invalid. This send had no effect.
	Refused Outcome = "refused"
	// NotReached: proven that this send had no effect, because no byte of it was
	// written or the provider guarantees that it processed nothing.
	NotReached Outcome = "not_reached"
	// Unclear: anything may have happened, or may still happen.
	Unclear Outcome = "unclear"
	// NotFound (inquiry only): the reference is unknown to the provider now.
	NotFound Outcome = "not_found"
	// Voided (void only): not booked, and refused from now on.
	Voided Outcome = "voided"
)

// Result is one exchange's outcome and what came with it. Detail is a short
// diagnosis in our own words: never a body, never a card.
type Result struct {
	Outcome           Outcome
	TimedOut          bool   // with Unclear: no answer came in time
	ProviderReference string // the provider's own id of what it booked
	ResponseCode      string // the contract's response code (SUCCEEDED, INSUFFICIENT_FUNDS …)
	AuthorizationCode string
	Detail            string
	// Amount and Currency are what was booked, with Approved, as far as the provider
	// says it; Currency is "" where it does not.
	Amount   decimal.Decimal // major units
	Currency string          // ISO 4217
	// RedirectURL is where the payer has to go, with Pending; "" where nobody waits
	// for the payer.
	RedirectURL string
	// Raw is the provider's own answer, as a merchant may see it: a JSON object made of
	// fields that the adapter knows to be harmless, at most MaxRaw bytes; nil for none.
	Raw json.RawMessage
}

// MaxRaw bounds Result.Raw. It is kept with every transaction.
const MaxRaw = 2048

// Definite says whether the provider has told what it stands by: it booked the
// reference, declined it for ever, or accepted it.
func (r Result) Definite() bool {
	return r.Outcome == Approved || r.Outcome == Declined || r.Outcome == Pending
}

// Traits is what a provider declares; the engine believes it.
type Traits struct {
	// Idempotent: a second send with a known reference changes nothing and is
	// answered like the first. IdempotentFor says for how long after the first
	// send; 0 means for ever.
	Idempotent    bool
	IdempotentFor time.Duration
	// Queryable: Inquire tells what became of a reference.
	Queryable bool
	// CanVoid: Void refuses a reference that is not booked from now on, and says
	// so if it is booked. Cancelling a booked charge is something else.
	CanVoid bool
	// Timeout bounds one exchange. Settle is how long a request may still travel,
	// or sit unseen at the provider, after we gave up on it.
	Timeout time.Duration
	Settle  time.Duration
}

// MaySend is asked by an adapter immediately before the first byte of a send
// goes on the wire. If it says false, nothing may be written and the outcome is
// NotReached.
type MaySend func() bool

// Order names one transaction towards a provider.
type Order struct {
	Reference       string // our transaction id, and the provider's idempotency key
	AccountID       string
	Mode            string // test or live
	MerchantOrderID string
}

// Charge is one purchase (Capture), one authorization, or, with Verify and an amount
// of zero, a look whether the card could be charged.
type Charge struct {
	Order
	Amount      decimal.Decimal // major units
	Currency    string          // ISO 4217
	Country     string          // ISO 3166-1 alpha-2
	Description string
	Capture     bool
	Verify      bool
	// ReturnURL is where the payer's browser goes after a challenge; "" for nowhere.
	ReturnURL string
	// Token is charged where it is given, and Card is empty then.
	Token Token
	Card  Card
}

// OperationKind is what an Operation does.
type OperationKind string

// The kinds of operations.
const (
	Capture OperationKind = "capture" // of an authorization, or a part of it
	Cancel  OperationKind = "cancel"  // of a whole authorization that nothing was captured of
	Refund  OperationKind = "refund"  // of a capture or a purchase, or a part of it
)

// Operation acts on something that the provider has booked. It is idempotent, can be
// inquired after and voided by its own reference, as a charge is.
type Operation struct {
	Order
	Kind        OperationKind
	Target      string          // the reference of what it acts on
	Amount      decimal.Decimal // major units
	Currency    string          // ISO 4217
	Description string          // may be ""
}

// Callback is one message that a provider sent by itself.
type Callback struct {
	// ID is the provider's name for the message: it has the same whenever the provider
	// says it again.
	ID    string
	Order Order
	// Result is what became of the order's reference, unless the message is about a
	// dispute.
	Result Result
	// Dispute is what became of a dispute about the reference; nil if it is about the
	// reference itself.
	Dispute *Dispute
}

// DisputeStage is how far a dispute has come.
type DisputeStage string

// The stages of a dispute. The last two end it.
const (
	DisputeReceived DisputeStage = "received"
	DisputePending  DisputeStage = "pending_review"
	DisputeWon      DisputeStage = "won"
	DisputeLost     DisputeStage = "lost"
)

// Dispute is a payer's demand for their money back, as the provider reports it.
type Dispute struct {
	ID       string // the provider's
	Stage    DisputeStage
	Amount   decimal.Decimal // major units
	Currency string          // ISO 4217
}

// Why a callback is not believed. Neither quotes it.
var (
	// ErrForged: the message was not signed as the provider signs, or not by it.
	ErrForged = errors.New("providers: the callback's signature does not fit")
	// ErrCallback: it is the provider's, and cannot be understood.
	ErrCallback = errors.New("providers: the callback cannot be understood")
)

// Notifier is a Provider that calls back.
type Notifier interface {
	Provider
	// ReadCallback checks a message's signature and reads it. The error wraps
	// ErrForged or ErrCallback.
	ReadCallback(header http.Header, body []byte) (Callback, error)
}

// Booking is one thing in a provider's books.
type Booking struct {
	Order    Order
	Amount   decimal.Decimal // major units
	Currency string          // ISO 4217
	BookedAt time.Time       // by the provider's clock
}

// ErrList is returned when a provider would not show its books.
var ErrList = errors.New("providers: the bookings could not be listed")

// Lister is a Provider that shows its books.
type Lister interface {
	Provider
	// List shows what was booked from one moment up to, and without, another, by the
	// provider's clock, oldest first, a page at a time: after is the next of the page
	// before, or "". next is "" on the last page.
	List(ctx context.Context, from, to time.Time, after string) (page []Booking, next string, err error)
}

// Token is a provider's stand-in for a card; it can be charged only there. Whoever has it
// and the provider's credentials can charge the card, so nothing prints it.
type Token struct {
	Value string
}

// String hides the token from fmt.
func (Token) String() string { return "[token]" }

// GoString hides the token from %#v.
func (Token) GoString() string { return "[token]" }

// LogValue hides the token from slog.
func (Token) LogValue() slog.Value { return slog.StringValue("[token]") }

// MarshalJSON refuses: an adapter writes the value by name.
func (Token) MarshalJSON() ([]byte, error) {
	return nil, errors.New("providers: a token is never encoded as a whole")
}

// ErrTokenise is returned when a provider would not turn a card into a token.
var ErrTokenise = errors.New("providers: the card could not be tokenised")

// Provider is one PSP, or the sandbox. Every method makes at most one attempt on
// the wire, obeys ctx and the declared Timeout, and is safe for concurrent use.
// None returns an error for what the world did: that is what Outcome is for.
type Provider interface {
	// Name is the provider's id on the wire (provider_id) and in the database.
	Name() string
	Traits() Traits
	Charge(ctx context.Context, c Charge, may MaySend) Result
	// Operate makes a capture, a cancellation or a refund.
	Operate(ctx context.Context, o Operation, may MaySend) Result
	// Inquire reports Approved, Declined, Pending, NotFound or Unclear, whatever was
	// sent under the reference.
	Inquire(ctx context.Context, o Order) Result
	// Void reports Voided, or what Inquire would for a reference that is booked
	// or was finally declined. Unclear otherwise. What is pending is voided.
	Void(ctx context.Context, o Order, may MaySend) Result
	Tokenise(ctx context.Context, c Card) (Token, error)
}

// Card is a raw card on its way to a provider. It lives in memory only: every
// usual way of printing or encoding it shows nothing.
type Card struct {
	Number          string
	SecurityCode    string
	HolderName      string
	ExpirationMonth int
	ExpirationYear  int // four digits
}

// String hides the card from fmt.
func (Card) String() string { return "[card]" }

// GoString hides the card from %#v.
func (Card) GoString() string { return "[card]" }

// LogValue hides the card from slog.
func (Card) LogValue() slog.Value { return slog.StringValue("[card]") }

// MarshalJSON refuses: an adapter writes the fields it needs, by name.
func (Card) MarshalJSON() ([]byte, error) {
	return nil, errors.New("providers: a card is never encoded as a whole")
}
