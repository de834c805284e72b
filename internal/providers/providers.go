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
	"errors"
	"log/slog"
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
}

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

// Charge is one purchase (Capture) or authorization.
type Charge struct {
	Order
	Amount      decimal.Decimal // major units
	Currency    string          // ISO 4217
	Country     string          // ISO 3166-1 alpha-2
	Description string
	Capture     bool
	Card        Card
}

// Token is a provider's stand-in for a card; it can be charged only there.
type Token struct {
	Value string
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
	// Inquire reports Approved, Declined, Pending, NotFound or Unclear.
	Inquire(ctx context.Context, o Order) Result
	// Void reports Voided, or what Inquire would for a reference that is booked
	// or was finally declined. Unclear otherwise.
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
