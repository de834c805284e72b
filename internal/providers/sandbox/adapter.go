package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

// Name is the sandbox's provider_id.
const Name = "ONCEPAY_SANDBOX"

// AdapterOptions are what an operator declares about a sandbox.
type AdapterOptions struct {
	// Timeout bounds one exchange, and Settle is how long a request may still
	// travel after it. See providers.Traits.
	Timeout, Settle time.Duration
	// Withhold are traits that the sandbox has and the engine is not to rely on: a
	// rehearsal of a provider that is less helpful.
	Withhold Withhold
}

// Withhold names traits of providers.Traits.
type Withhold struct{ Idempotent, Queryable, CanVoid bool }

// Adapter is the sandbox as the engine sees it, over HTTP like any other
// provider. It passes descriptions on and never looks at them.
type Adapter struct {
	base   string
	traits providers.Traits
	wire   *providers.Wire
}

var _ providers.Provider = (*Adapter)(nil)

// NewAdapter makes an adapter for the sandbox at baseURL, such as
// http://127.0.0.1:8099.
func NewAdapter(baseURL string, o AdapterOptions) (*Adapter, error) {
	u, err := url.Parse(baseURL)
	switch {
	case err != nil:
		return nil, errors.New("sandbox: the base URL is malformed") // it may hold a password
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("sandbox: the base URL must be http(s)://host[:port][/path] and nothing else")
	case o.Timeout <= 0 || o.Settle < 0:
		return nil, fmt.Errorf("sandbox: the timeout (%s) must be positive, the settling time (%s) not negative", o.Timeout, o.Settle)
	}
	return &Adapter{base: strings.TrimRight(u.String(), "/"), wire: providers.NewWire(nil), traits: providers.Traits{
		Idempotent: !o.Withhold.Idempotent, Queryable: !o.Withhold.Queryable, CanVoid: !o.Withhold.CanVoid,
		Timeout: o.Timeout, Settle: o.Settle,
	}}, nil
}

// Close closes idle connections.
func (a *Adapter) Close() { a.wire.CloseIdle() }

// Name is the provider's id.
func (a *Adapter) Name() string { return Name }

// Traits are the best a provider can have, less what is withheld.
func (a *Adapter) Traits() providers.Traits { return a.traits }

// Charge sends one charge.
func (a *Adapter) Charge(ctx context.Context, c providers.Charge, may providers.MaySend) providers.Result {
	x := a.post(ctx, "/sandbox/v1/charges", chargeRequest{
		order: orderOf(c.Order), Amount: c.Amount.String(), Currency: c.Currency, Country: c.Country,
		Description: c.Description, Capture: &c.Capture, Card: cardOf(c.Card),
	}, may)
	if x.Err != nil {
		return x.Failed()
	}
	if x.Status == http.StatusServiceUnavailable && unprocessedAnswer(x) {
		return providers.Result{Outcome: providers.NotReached, Detail: "the provider guarantees that it processed nothing"}
	}
	re, ok := replyOf(x, c.Reference)
	switch {
	case !ok:
	case x.Status == http.StatusOK && (re.Status == statusApproved || re.Status == statusDeclined):
		return re.result()
	case x.Status == http.StatusBadRequest && re.Status == statusRefused:
		return providers.Result{Outcome: providers.Refused, Detail: "the provider found the request invalid"}
	}
	return unexpected(x)
}

// Inquire asks what became of a reference.
func (a *Adapter) Inquire(ctx context.Context, o providers.Order) providers.Result {
	q := url.Values{"account_id": {o.AccountID}, "mode": {o.Mode}, "reference": {o.Reference}}
	x := a.send(ctx, providers.Request{Method: http.MethodGet, URL: a.base + "/sandbox/v1/charges?" + q.Encode()}, nil)
	if x.Err != nil {
		return unclear(x)
	}
	re, ok := replyOf(x, o.Reference)
	if !ok || x.Status != http.StatusOK {
		return unexpected(x)
	}
	switch re.Status {
	case statusApproved, statusDeclined:
		return re.result()
	case statusUnknown, statusRefused, statusVoided:
		// Refused and voided references are not booked either. They are no decline,
		// which would be kept as the nonce's answer.
		return providers.Result{Outcome: providers.NotFound, Detail: "nothing is booked; the reference is " + string(re.Status)}
	case statusError:
	}
	return unexpected(x)
}

// Void asks the sandbox to refuse a reference from now on.
func (a *Adapter) Void(ctx context.Context, o providers.Order, may providers.MaySend) providers.Result {
	x := a.post(ctx, "/sandbox/v1/voids", orderOf(o), may)
	if errors.Is(x.Err, providers.ErrTooLate) {
		return x.Failed()
	}
	if x.Err != nil {
		return unclear(x)
	}
	re, ok := replyOf(x, o.Reference)
	if !ok || x.Status != http.StatusOK {
		return unexpected(x)
	}
	switch re.Status {
	case statusVoided:
		return providers.Result{Outcome: providers.Voided}
	case statusApproved, statusDeclined:
		return re.result()
	case statusUnknown, statusRefused, statusError: // no answers to a void
	}
	return unexpected(x)
}

// Tokenise turns a card into a token. The sandbox keeps nothing of the card but
// the response code it stands for.
func (a *Adapter) Tokenise(ctx context.Context, c providers.Card) (providers.Token, error) {
	x := a.post(ctx, "/sandbox/v1/tokens", tokenRequest{Card: cardOf(c)}, nil)
	if x.Err != nil {
		return providers.Token{}, fmt.Errorf("%w: %w", providers.ErrTokenise, x.Err)
	}
	var t struct {
		Token string `json:"token"`
	}
	if x.Status != http.StatusCreated || !decodeAnswer(x, &t) || t.Token == "" {
		return providers.Token{}, fmt.Errorf("%w: the provider answered %d", providers.ErrTokenise, x.Status)
	}
	return providers.Token{Value: t.Token}, nil
}

func (a *Adapter) post(ctx context.Context, path string, body any, may providers.MaySend) providers.Exchange {
	b, err := json.Marshal(body)
	if err != nil {
		return providers.Exchange{Err: providers.ErrRequest}
	}
	return a.send(ctx, providers.Request{Method: http.MethodPost, URL: a.base + path,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: b}, may)
}

func (a *Adapter) send(ctx context.Context, r providers.Request, may providers.MaySend) providers.Exchange {
	ctx, cancel := context.WithTimeout(ctx, a.traits.Timeout)
	defer cancel()
	return a.wire.Send(ctx, r, may)
}

func orderOf(o providers.Order) order {
	return order{Reference: o.Reference, AccountID: o.AccountID, Mode: o.Mode, MerchantOrderID: o.MerchantOrderID}
}

func cardOf(c providers.Card) *cardFields {
	return &cardFields{Number: c.Number, SecurityCode: c.SecurityCode, HolderName: c.HolderName,
		ExpirationMonth: c.ExpirationMonth, ExpirationYear: c.ExpirationYear}
}

// decodeAnswer reads a whole JSON answer. Names it does not know are left alone:
// a newer sandbox may say more.
func decodeAnswer(x providers.Exchange, v any) bool {
	return isJSON(x) && json.Unmarshal(x.Body, v) == nil
}

func isJSON(x providers.Exchange) bool {
	media, _, err := mime.ParseMediaType(x.Header.Get("Content-Type"))
	return err == nil && media == "application/json"
}

// replyOf reads a reply about this reference. Whatever names another one is an
// answer to somebody else.
func replyOf(x providers.Exchange, reference string) (reply, bool) {
	var re reply
	if !decodeAnswer(x, &re) || re.Reference != reference {
		return reply{}, false
	}
	class, known := providers.ClassOf(re.ResponseCode)
	switch re.Status {
	case statusApproved:
		return re, re.ID != "" && known && class == providers.ClassSucceeded
	case statusDeclined:
		return re, known && class != providers.ClassSucceeded
	case statusUnknown, statusRefused, statusVoided, statusError:
	}
	return re, true
}

// unprocessedAnswer says whether the sandbox gives its guarantee: that object and
// nothing else, so that no error page of something in between can look like it.
func unprocessedAnswer(x providers.Exchange) bool {
	var g struct {
		Processed *bool `json:"processed"`
	}
	return isJSON(x) && decodeStrict(x.Body, &g) == nil && g.Processed != nil && !*g.Processed
}

// result is what an approved or declined reply says.
func (re reply) result() providers.Result {
	r := providers.Result{Outcome: providers.Approved, ProviderReference: re.ID,
		ResponseCode: re.ResponseCode, AuthorizationCode: re.AuthorizationCode}
	if re.Status == statusDeclined {
		r.Outcome, r.AuthorizationCode = providers.Declined, ""
	}
	return r
}

// unexpected is for an answer the API does not document.
func unexpected(x providers.Exchange) providers.Result {
	return providers.Result{Outcome: providers.Unclear, Detail: fmt.Sprintf("an answer that is not understood, status %d", x.Status)}
}

// unclear is for an inquiry or a void without an answer: even if it was never
// sent, that says nothing about the charge.
func unclear(x providers.Exchange) providers.Result {
	return providers.Result{Outcome: providers.Unclear, TimedOut: x.TimedOut, Detail: x.Err.Error()}
}
