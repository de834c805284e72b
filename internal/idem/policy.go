package idem

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
)

// DefaultRetention is how long a nonce's answer is kept: from the first request,
// and again from the answer.
const DefaultRetention = 24 * time.Hour

// DefaultPolicy is the policy of a merchant who chose none.
const DefaultPolicy = "yuno"

const (
	// MinRetention leaves a client time for its retries. What is unresolved is kept in
	// any case.
	MinRetention = time.Minute
	// MaxRetention bounds what a client may ask for: the purge reads past the lives
	// that are kept for longer than others.
	MaxRetention = 7 * 24 * time.Hour
)

// Format is how a nonce is written in its header.
type Format string

// The formats.
const (
	// Visible is visible ASCII without a comma, as it stands.
	Visible Format = "visible"
	// Printable is printable ASCII, as it stands: blanks within and commas belong to it.
	Printable Format = "printable"
	// Quoted is a string of RFC 9651 (structured fields): "…", with \" and \\ within.
	Quoted Format = "quoted"
	// QuotedOrBare is Quoted, or Visible where it does not begin with a quote.
	QuotedOrBare Format = "quoted-or-bare"
)

// Policy is how a merchant's nonces behave. There is one engine; these are its
// knobs, and it asks for nothing else: least of all for the name.
type Policy struct {
	Name string

	// Headers are where the nonce may stand; errors name the first of them. If several
	// are sent, they must be equal.
	Headers []string
	Format  Format
	// MaxLength is in characters, of the nonce as it is meant. 0: the limit of the
	// request's header holds.
	MaxLength int
	// Required refuses a request that moves money without a nonce. Where none is
	// required, a request without one runs unprotected.
	Required bool
	// CreatesOnly ignores the nonce of a request that acts on something that is there.
	CreatesOnly bool
	// LiveOnly ignores the nonces of test mode.
	LiveOnly bool

	// IgnoreRetryBody answers a retry whose body differs with the first answer. Else it
	// is refused with 422.
	IgnoreRetryBody bool
	// MismatchFirst gives 422 precedence over 409, where both apply.
	MismatchFirst bool
	// RetryAfter says with a 409 for a request in flight when to come back.
	RetryAfter bool
	// KeepErrors stores an error as the nonce's answer, once execution began. The
	// transaction behind it is resolved all the same.
	KeepErrors bool

	// ReplayHeader says "true" with an answer that was given before. "": nothing does.
	ReplayHeader string
	// MismatchHeader says that the answer is another body's. "": nothing does.
	MismatchHeader string
	// Echo gives the nonce back with each answer, in the header that it came in.
	Echo bool

	// Retention is how long an answer is kept.
	Retention time.Duration
	// ClientRetention lets the first request of a life say how long, in seconds, in
	// ExpirationHeader; more than MaxRetention is MaxRetention.
	ClientRetention bool

	// Errors is how errors look.
	Errors apierr.Style
}

// Options are what an installation may say of the presets.
type Options struct {
	// Retention is how long answers are kept; 0 means DefaultRetention.
	Retention time.Duration
	// BareKeys lets ietf take a nonce without quotes.
	BareKeys bool
}

// Presets are the policies that a merchant can choose from, the default first: three
// systems whose clients come as they are, and the standard draft (Idempotency-Key,
// draft-ietf-httpapi-idempotency-key-header-07).
func Presets(o Options) []Policy {
	if o.Retention == 0 {
		o.Retention = DefaultRetention
	}
	strings := Quoted
	if o.BareKeys {
		strings = QuotedOrBare
	}
	return []Policy{
		{
			Name: DefaultPolicy, Headers: []string{Header, AliasHeader}, Format: Visible, MaxLength: MaxNonceLength, Required: true,
			IgnoreRetryBody: true, RetryAfter: true, ReplayHeader: replayedHeader, MismatchHeader: "Idempotency-Body-Mismatch",
			Retention: o.Retention, Errors: apierr.Envelope,
		},
		{
			Name: "novu", Headers: []string{AliasHeader}, Format: Printable, MaxLength: maxLongNonce,
			RetryAfter: true, KeepErrors: true, ReplayHeader: "Idempotency-Replay", Echo: true,
			Retention: o.Retention + time.Minute, Errors: apierr.Nest,
		},
		{
			Name: "fyno", Headers: []string{AliasHeader}, Format: Printable, CreatesOnly: true, LiveOnly: true,
			IgnoreRetryBody: true, KeepErrors: true,
			Retention: o.Retention, ClientRetention: true, Errors: apierr.Envelope,
		},
		{
			Name: "ietf", Headers: []string{AliasHeader}, Format: strings, MaxLength: maxLongNonce, Required: true,
			MismatchFirst: true, KeepErrors: true, ReplayHeader: replayedHeader,
			Retention: o.Retention, Errors: apierr.Problem,
		},
	}
}

const replayedHeader = "Idempotent-Replayed"

// check says what about p cannot be.
func (p Policy) check() error {
	switch {
	case p.Name == "":
		return errors.New("a policy must have a name")
	case len(p.Headers) == 0:
		return fmt.Errorf("policy %s must name a header for the nonce", p.Name)
	case !slices.Contains([]Format{Visible, Printable, Quoted, QuotedOrBare}, p.Format):
		return fmt.Errorf("policy %s must have a format that there is", p.Name)
	case p.MaxLength < 0:
		return fmt.Errorf("policy %s must not have a negative length", p.Name)
	case p.IgnoreRetryBody && p.MismatchFirst:
		return fmt.Errorf("policy %s ignores a retry's body and cannot refuse it first", p.Name)
	case !p.IgnoreRetryBody && p.MismatchHeader != "":
		return fmt.Errorf("policy %s refuses another body and has no answer to mark", p.Name)
	case p.Retention < MinRetention:
		return fmt.Errorf("policy %s must keep answers for at least %s", p.Name, MinRetention)
	case !p.Errors.Known():
		return fmt.Errorf("policy %s must have a style of errors that there is", p.Name)
	}
	return nil
}

// Policies are those that merchants can choose from.
type Policies struct {
	names  []string
	byName map[string]Policy
}

// NewPolicies fails if one of the policies contradicts itself, or has another one's
// name. The first is the default.
func NewPolicies(all ...Policy) (Policies, error) {
	ps := Policies{byName: map[string]Policy{}}
	for _, p := range all {
		if err := p.check(); err != nil {
			return Policies{}, err
		}
		if _, twice := ps.byName[p.Name]; twice {
			return Policies{}, fmt.Errorf("there are two policies %s", p.Name)
		}
		ps.names, ps.byName[p.Name] = append(ps.names, p.Name), p
	}
	if len(ps.names) == 0 {
		return Policies{}, errors.New("there must be a policy")
	}
	return ps, nil
}

// Names are the policies' names, the default first.
func (ps Policies) Names() []string { return slices.Clone(ps.names) }

// Known says whether there is a policy of that name.
func (ps Policies) Known(name string) bool {
	_, ok := ps.byName[name]
	return ok
}

// Of is the policy of that name. One that is not there any more, or "", is the default.
func (ps Policies) Of(name string) Policy {
	if p, ok := ps.byName[name]; ok {
		return p
	}
	return ps.byName[ps.names[0]]
}

// retryInFlight is Retry-After, in seconds, while somebody is at work on a nonce: the
// contract's.
const retryInFlight = 1

// ErrInProcess is told while a nonce has no answer.
func ErrInProcess() *apierr.Error {
	return apierr.New(apierr.RequestInProcess, "a request with this idempotency key is in process; retry with the same key").AboutKey(TitleInFlight)
}

// InFlight is ErrInProcess while somebody is at work on the nonce, in the policy's manner.
func (p Policy) InFlight() *apierr.Error {
	if p.RetryAfter {
		return ErrInProcess().Retry(retryInFlight)
	}
	return ErrInProcess()
}

// Reused is told of a nonce that stands for something else; how says what.
func (p Policy) Reused(how string) *apierr.Error {
	return apierr.New(apierr.IdempotencyKeyReused, p.Headers[0]+" was used "+how+"; use a new key").AboutKey(TitleReused)
}

// ShortestRetention is the shortest that a life is kept for whose client said nothing.
func (ps Policies) ShortestRetention() time.Duration {
	shortest := ps.byName[ps.names[0]].Retention
	for _, p := range ps.byName {
		shortest = min(shortest, p.Retention)
	}
	return shortest
}

// Route is one operation that a nonce can name.
type Route struct {
	Method, Path string
	// Creates says that it makes something new, rather than acting on what is there.
	Creates bool
	// MovesMoney says that it may not run without a nonce where one is required.
	MovesMoney bool
	// Produces is the media type of its answers.
	Produces string
}

// Check refuses a route whose answers could not be told again. They are kept whole, as
// JSON, so a stream, or anything that is no text, cannot be one. GET, PUT and DELETE do
// the same however often they come, and need no nonce.
func (r Route) Check() error {
	switch {
	case r.Method != http.MethodPost && r.Method != http.MethodPatch:
		return fmt.Errorf("%s %s: only POST and PATCH take a nonce", r.Method, r.Path)
	case r.Produces != "application/json":
		return fmt.Errorf("%s %s: only answers in JSON can be kept and told again", r.Method, r.Path)
	}
	return nil
}

// Covers says whether the nonce of a request to that route, in that mode, counts.
func (p Policy) Covers(r Route, live bool) bool {
	return r.Check() == nil && (r.Creates || !p.CreatesOnly) && (live || !p.LiveOnly)
}
