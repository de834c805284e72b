package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shopspring/decimal"

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
	// CallbackURL is where the sandbox is to call back, with every charge and
	// operation; an absolute http(s) URL of at most 526 characters, "" for nowhere.
	CallbackURL string
	// CallbackSecret is what callbacks are signed with, the same as the sandbox's
	// Options.CallbackSecret. Without one every callback is forged.
	CallbackSecret []byte
}

// Withhold names traits of providers.Traits.
type Withhold struct{ Idempotent, Queryable, CanVoid bool }

// Adapter is the sandbox as the engine sees it, over HTTP like any other
// provider. It passes descriptions on and never looks at them.
type Adapter struct {
	base        string
	callbackURL atomic.Pointer[string]
	secret      []byte
	traits      providers.Traits
	wire        *providers.Wire
}

var (
	_ providers.Notifier = (*Adapter)(nil)
	_ providers.Lister   = (*Adapter)(nil)
)

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
	case o.CallbackURL != "" && !validCallbackURL(o.CallbackURL):
		return nil, errCallbackURL
	}
	a := &Adapter{base: strings.TrimRight(u.String(), "/"), secret: slices.Clone(o.CallbackSecret),
		wire: providers.NewWire(nil), traits: providers.Traits{
			Idempotent: !o.Withhold.Idempotent, Queryable: !o.Withhold.Queryable, CanVoid: !o.Withhold.CanVoid,
			Timeout: o.Timeout, Settle: o.Settle,
		}}
	a.callbackURL.Store(&o.CallbackURL)
	return a, nil
}

// CallBackTo says where the sandbox is to call back about what is sent from now on: whoever
// listens on a port of the system's choice knows it late.
func (a *Adapter) CallBackTo(address string) error {
	if !validCallbackURL(address) {
		return errCallbackURL
	}
	a.callbackURL.Store(&address)
	return nil
}

var errCallbackURL = errors.New("sandbox: the callback URL must be an absolute http(s) URL of at most 526 visible ASCII characters, without a user")

// Close closes idle connections.
func (a *Adapter) Close() { a.wire.CloseIdle() }

// Name is the provider's id.
func (a *Adapter) Name() string { return Name }

// Traits are the best a provider can have, less what is withheld.
func (a *Adapter) Traits() providers.Traits { return a.traits }

// Charge sends one charge.
func (a *Adapter) Charge(ctx context.Context, c providers.Charge, may providers.MaySend) providers.Result {
	q := chargeRequest{
		order: orderOf(c.Order), Amount: c.Amount.String(), Currency: c.Currency, Country: c.Country,
		Description: c.Description, Capture: &c.Capture, Verify: c.Verify, ReturnURL: c.ReturnURL,
		CallbackURL: *a.callbackURL.Load(), Token: c.Token.Value,
	}
	if q.Token == "" {
		q.Card = cardOf(c.Card)
	}
	return sent(a.post(ctx, "/sandbox/v1/charges", q, may), c.Reference)
}

// Operate sends one capture, cancellation or refund.
func (a *Adapter) Operate(ctx context.Context, o providers.Operation, may providers.MaySend) providers.Result {
	for _, known := range operations {
		if known.kind == o.Kind {
			return sent(a.post(ctx, known.path, operationRequest{
				order: orderOf(o.Order), Target: o.Target, Amount: o.Amount.String(), Currency: o.Currency,
				Description: o.Description, CallbackURL: *a.callbackURL.Load(),
			}, may), o.Reference)
		}
	}
	return providers.Result{Outcome: providers.NotReached, Detail: "the sandbox has no operation of this kind"}
}

// sent is what a charge's or an operation's exchange came to.
func sent(x providers.Exchange, reference string) providers.Result {
	if x.Err != nil {
		return x.Failed()
	}
	if x.Status == http.StatusServiceUnavailable && unprocessedAnswer(x) {
		return providers.Result{Outcome: providers.NotReached, Detail: "the provider guarantees that it processed nothing"}
	}
	re, ok := replyOf(x, reference)
	switch {
	case !ok:
	case x.Status == http.StatusOK && re.tells():
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
	case statusApproved, statusDeclined, statusPending:
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
	case statusUnknown, statusRefused, statusPending, statusError: // no answers to a void
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

// listPage is how many bookings the adapter asks for at once: with the longest order
// ids 400 KB, well below what an answer may have.
const listPage = 200

// List shows what the sandbox booked from one moment up to, and without, another,
// oldest first.
func (a *Adapter) List(ctx context.Context, from, to time.Time, after string) (page []providers.Booking, next string, err error) {
	q := url.Values{"from": {from.UTC().Format(time.RFC3339Nano)}, "to": {to.UTC().Format(time.RFC3339Nano)}, "limit": {strconv.Itoa(listPage)}}
	if after != "" {
		q.Set("after", after)
	}
	x := a.send(ctx, providers.Request{Method: http.MethodGet, URL: a.base + "/sandbox/v1/bookings?" + q.Encode()}, nil)
	if x.Err != nil {
		return nil, "", fmt.Errorf("%w: %w", providers.ErrList, x.Err)
	}
	var answer ledgerPage
	if x.Status != http.StatusOK || !decodeAnswer(x, &answer) || answer.Entries == nil {
		return nil, "", fmt.Errorf("%w: the provider answered %d", providers.ErrList, x.Status)
	}
	for i := range answer.Entries {
		e := &answer.Entries[i]
		if !amountForm.MatchString(e.Amount) {
			return nil, "", fmt.Errorf("%w: an amount is malformed", providers.ErrList)
		}
		page = append(page, providers.Booking{
			Order:  providers.Order{Reference: e.Reference, AccountID: e.AccountID, Mode: e.Mode, MerchantOrderID: e.MerchantOrderID},
			Amount: decimal.RequireFromString(e.Amount), Currency: e.Currency, BookedAt: e.CreatedAt,
		})
	}
	if answer.Next != nil {
		next = *answer.Next
	}
	return page, next, nil
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
		return re, re.ID != "" && known && class == providers.ClassSucceeded && re.amountFits()
	case statusDeclined:
		return re, known && class != providers.ClassSucceeded
	case statusPending:
		challenge := re.ResponseCode == codeChallenge && isWebURL(re.RedirectURL)
		return re, challenge || re.ResponseCode == codePending && re.RedirectURL == ""
	case statusUnknown, statusRefused, statusVoided, statusError:
	}
	return re, true
}

// amountFits says whether an amount, which an older sandbox does not tell, is one.
func (re reply) amountFits() bool {
	if re.Amount == "" && re.Currency == "" {
		return true
	}
	return amountForm.MatchString(re.Amount) && currencyForm.MatchString(re.Currency)
}

// tells says whether a reply says what the sandbox stands by.
func (re reply) tells() bool {
	return re.Status == statusApproved || re.Status == statusDeclined || re.Status == statusPending
}

// unprocessedAnswer says whether the sandbox gives its guarantee: that object and
// nothing else, so that no error page of something in between can look like it.
func unprocessedAnswer(x providers.Exchange) bool {
	var g struct {
		Processed *bool `json:"processed"`
	}
	return isJSON(x) && decodeStrict(x.Body, &g) == nil && g.Processed != nil && !*g.Processed
}

// result is what an approved, declined or pending reply says.
func (re reply) result() providers.Result {
	r := providers.Result{ProviderReference: re.ID, ResponseCode: re.ResponseCode, Raw: re.raw()}
	switch re.Status {
	case statusApproved:
		r.Outcome, r.AuthorizationCode, r.Currency = providers.Approved, re.AuthorizationCode, re.Currency
		if re.Amount != "" {
			r.Amount = decimal.RequireFromString(re.Amount) // replyOf, or ReadCallback, looked at its form
		}
	case statusDeclined:
		r.Outcome = providers.Declined
	case statusPending:
		r.Outcome, r.RedirectURL = providers.Pending, re.RedirectURL
	case statusUnknown, statusRefused, statusVoided, statusError:
		r.Outcome = providers.Unclear
	}
	return r
}

// raw is the reply as a merchant may see it: made anew of the fields below, so that
// nothing which a provider might echo can be among them.
func (re reply) raw() json.RawMessage {
	b, err := json.Marshal(struct {
		ID                string `json:"id,omitempty"`
		Status            status `json:"status"`
		ResponseCode      string `json:"response_code,omitempty"`
		AuthorizationCode string `json:"authorization_code,omitempty"`
		Type              string `json:"type,omitempty"`
		Amount            string `json:"amount,omitempty"`
		Currency          string `json:"currency,omitempty"`
	}{re.ID, re.Status, re.ResponseCode, re.AuthorizationCode, re.Type, re.Amount, re.Currency})
	if err != nil || len(b) > providers.MaxRaw {
		return nil
	}
	return b
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
