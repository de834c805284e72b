package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/transactions"
	oncepay "github.com/oncepay/oncepay/sdk/go"
	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/harness"
)

// Half of the merchants who do nothing odd are written with sdk/go, where their policy is
// the one that it speaks. Each of its requests is one operation for the oracles, like
// everybody's; and what it says in the end must be what it was told.

const (
	// clientTrue is the oracle of what the client says.
	clientTrue = "client-true"
	// sdkAttempt is longer than the provider's time-out, and shorter than a lease: who
	// meets a process that is frozen goes elsewhere.
	sdkAttempt = 4 * time.Second
	// sdkCall is short enough that a call often ends before the outcome is known. The
	// merchant then calls again.
	sdkCall = 8 * time.Second
	// sdkNotes is how many faults of the client are told; more are the same one.
	sdkNotes = 20
)

// sdkClients are what those clients share, and what they did.
type sdkClients struct {
	once sync.Once
	http *http.Transport

	mu                      sync.Mutex
	wrong                   []record.Violation
	calls, unknown, settled int
}

// handToSDK says who is written with the Go client. It draws nothing, so that a seed's
// orders stay what they are.
func (p *press) handToSDK() {
	if p.s.policy.Name != record.Policies[0].Name {
		return
	}
	var hand func(all []*order)
	hand = func(all []*order) {
		for _, o := range all {
			m := o.manner
			plain := o.shop == nil && m.storm == 0 && len(m.hangUps) == 0 && !m.atOnce && !m.otherBody && m.lazy == 0
			o.bySDK = plain && o.nonce[len(o.nonce)-1]%2 == 0
			for _, group := range o.after {
				hand(group)
			}
		}
	}
	hand(p.orders)
}

// payBySDK is payUntilAnswered of a backend that is written with the Go client: it calls
// again, with the same operation, as long as it is told that nobody knows.
func (s *stage) payBySDK(ctx context.Context, o *order) bool {
	op, err := oncepay.OperationWithNonce(o.nonce)
	if err != nil {
		s.complain("%s: %v", o.nonce, err)
		return true
	}
	for ctx.Err() == nil {
		way := &sdkWay{s: s, o: o}
		raw, replayed, err := s.askBySDK(ctx, o, op, way)
		s.checkCall(ctx, way, raw, replayed, err)
		var refused *oncepay.Error
		switch {
		case err == nil:
			o.paid = readOutcome(raw)
			return true
		case errors.As(err, &refused) && o.deed != nil && refused.Status == http.StatusBadRequest && refused.Code != oncepay.CodeInvalidRequest:
			return true // the payment does not allow it
		}
		rest(ctx, 4*restPause)
	}
	return false
}

// checkCall holds what a call came to against what its requests were told.
func (s *stage) checkCall(ctx context.Context, way *sdkWay, raw []byte, replayed bool, err error) {
	last := way.last
	switch {
	case err == nil && (!last.Told() || !bytes.Equal(last.Body, raw) || last.Replayed != replayed):
		s.complain("%s: the client says what it was not told", way.o.nonce)
	case err != nil && last.Told() && ctx.Err() == nil:
		s.complain("%s: the client was told, and says: %v", way.o.nonce, err)
	case err != nil && !errors.Is(err, oncepay.ErrOutcomeUnknown):
		s.complain("%s: nobody told the client, and it says that nothing happened: %v", way.o.nonce, err)
	}
	s.sdk.mu.Lock()
	defer s.sdk.mu.Unlock()
	s.sdk.calls++
	switch {
	case err == nil:
		s.sdk.settled++
	case errors.Is(err, oncepay.ErrOutcomeUnknown):
		s.sdk.unknown++
	}
}

// complain notes that the client broke its word.
func (s *stage) complain(format string, args ...any) {
	s.sdk.mu.Lock()
	defer s.sdk.mu.Unlock()
	if len(s.sdk.wrong) < sdkNotes {
		s.sdk.wrong = append(s.sdk.wrong, s.violation(clientTrue, format, args...))
	}
}

// judgeSDK is what the clients are accused of.
func (s *stage) judgeSDK() []record.Violation {
	s.sdk.mu.Lock()
	defer s.sdk.mu.Unlock()
	if s.sdk.calls > 0 {
		s.progress("sdk/go made %d calls: %d answered, %d of unknown outcome, which were made again", s.sdk.calls, s.sdk.settled, s.sdk.unknown)
	}
	return slices.Clone(s.sdk.wrong)
}

// askBySDK makes one call for an order, and returns its answer byte for byte.
func (s *stage) askBySDK(ctx context.Context, o *order, op *oncepay.Operation, way *sdkWay) (raw []byte, replayed bool, err error) {
	keys := s.merchants[o.merchant]
	c, err := oncepay.New("http://api.invalid", keys.PublicAPIKey, keys.PrivateSecretKey, oncepay.WithAccount(keys.AccountID),
		oncepay.WithHTTPClient(&http.Client{Transport: way}),
		oncepay.WithRetries(oncepay.Retries{AttemptTimeout: sdkAttempt, Total: sdkCall, FirstPause: restPause, LongestPause: 8 * restPause}))
	if err != nil {
		return nil, false, err
	}
	if o.deed != nil {
		return o.deed.bySDK(ctx, c, o, op)
	}
	p, err := c.CreatePayment(ctx, op, o.params())
	return told(p, err, func(p *oncepay.Payment) oncepay.Meta { return p.Meta })
}

// told is what an answer of either kind came with.
func told[T any](answer *T, err error, meta func(*T) oncepay.Meta) ([]byte, bool, error) {
	if err != nil {
		return nil, false, err
	}
	m := meta(answer)
	return m.Raw, m.Replayed, nil
}

// params are the same request as order.request makes.
func (o *order) params() oncepay.PaymentParams {
	card := harness.CardThatPays
	if o.declined {
		card = harness.CardWithoutFunds
	}
	p := oncepay.PaymentParams{
		MerchantOrderID: o.id, Description: o.description(), Country: "US", Workflow: "DIRECT", Amount: inUSD(amount),
		PaymentMethod: oncepay.PaymentMethod{
			Card:          &oncepay.Card{Number: card, HolderName: "John Doe", ExpirationMonth: 11, ExpirationYear: 28, SecurityCode: "123"},
			AuthorizeOnly: o.kind == transactions.Authorize,
		},
	}
	if o.kind == transactions.Verify {
		p.PaymentMethod.Verify, p.Amount = true, inUSD("0")
	}
	return p
}

func inUSD(value string) oncepay.Amount {
	return oncepay.Amount{Currency: "USD", Value: decimal.RequireFromString(value)}
}

// bySDK asks for the same as deed.request does.
func (d *deed) bySDK(ctx context.Context, c *oncepay.Client, o *order, op *oncepay.Operation) ([]byte, bool, error) {
	const reason = "REQUESTED_BY_CUSTOMER"
	payment, on, reference, description := d.of.paid.payment, "", "part of "+o.id, o.description()
	if d.on != nil {
		on = d.on.paid.transaction
	}
	var part *oncepay.Amount
	if d.value != "" {
		a := inUSD(d.value)
		part = &a
	}
	var (
		a   *oncepay.Action
		err error
	)
	switch d.route {
	case capture:
		a, err = c.Capture(ctx, op, payment, on, oncepay.CaptureParams{MerchantReference: reference, Reason: reason, Description: description, Amount: *part})
	case cancel:
		a, err = c.Cancel(ctx, op, payment, on, oncepay.CancelParams{MerchantReference: reference, Reason: reason, Description: description})
	case cancelOrRefund:
		a, err = c.CancelOrRefund(ctx, op, payment, oncepay.CancelOrRefundParams{
			TransactionID: on, MerchantReference: reference, Reason: reason, Description: description, Amount: part,
		})
	case refund:
		p, err := c.Refund(ctx, op, payment, on, oncepay.RefundParams{MerchantReference: reference, Reason: reason, Description: description, Amount: part})
		return told(p, err, func(p *oncepay.Payment) oncepay.Meta { return p.Meta })
	default:
		return nil, false, fmt.Errorf("no call for %s", d.route)
	}
	return told(a, err, func(a *oncepay.Action) oncepay.Meta { return a.Meta })
}

// sdkWay is a call's way to the instances, one request after the other. It writes down
// each.
type sdkWay struct {
	s    *stage
	o    *order
	n    int
	last record.Op
}

// RoundTrip sends one request to the instance whose turn it is.
func (w *sdkWay) RoundTrip(r *http.Request) (*http.Response, error) {
	s, o := w.s, w.o
	u, _ := s.via(o, w.n).addresses()
	w.n++
	base, err := url.Parse(u)
	if err != nil || u == "" {
		w.last = record.Op{Failed: true}
		return nil, errStarting // nothing was sent, so nothing is written down
	}
	asked, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	to := r.Clone(r.Context())
	to.URL.Scheme, to.URL.Host, to.Host = base.Scheme, base.Host, ""
	to.Body, to.GetBody = io.NopCloser(bytes.NewReader(asked)), nil // a request is one send, so that the oracles know of each
	s.sdk.once.Do(func() { s.sdk.http = &http.Transport{MaxIdleConnsPerHost: inFlight, IdleConnTimeout: time.Minute} })
	op := record.Op{Account: s.merchants[o.merchant].AccountID, Nonce: o.nonce, Order: o.id, Kind: record.Pay, Start: s.rec.Now()}
	if o.deed != nil {
		op.Kind, op.Action, op.Amount = record.Act, string(o.deed.route), o.deed.value
	}
	if sent := r.Header.Values("X-Idempotency-Key"); !slices.Equal(sent, []string{o.nonce}) {
		s.complain("%s: a request has the nonces %q", o.nonce, sent)
	}
	res, answer := w.exchange(to)
	op.End = s.rec.Now()
	if op.Failed = answer.Err != nil; !op.Failed {
		s.hear(context.WithoutCancel(r.Context()), o, &op, answer) // the attempt's time is not the story's
		w.check(to, asked, answer)
	}
	s.rec.Add(op)
	w.last = op
	if op.Failed {
		return nil, answer.Err
	}
	res.Body = io.NopCloser(bytes.NewReader(answer.Body))
	return res, nil
}

// exchange sends a request and reads the whole answer. One that is cut short is none, for
// the oracles as for the client.
func (w *sdkWay) exchange(r *http.Request) (*http.Response, harness.Answer) {
	res, err := w.s.sdk.http.RoundTrip(r)
	if err != nil {
		return nil, harness.Answer{Err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, letterBytes))
	return res, harness.Answer{Status: res.StatusCode, Header: res.Header, Body: body, Err: err}
}

// check holds an exchange against openapi.yaml, and the body against what the story's other
// requests of this nonce carry.
func (w *sdkWay) check(r *http.Request, asked []byte, a harness.Answer) {
	if problem := apitest.Problem(r, asked, &http.Response{StatusCode: a.Status, Header: a.Header}, a.Body); problem != nil {
		w.s.complain("%s %s answered %d: %v", r.Method, r.URL.Path, a.Status, problem)
	}
	if a.Header.Get("Idempotency-Body-Mismatch") != "" {
		w.s.complain("%s: its body is another one", w.o.nonce)
	}
	if a.Code() == string(apierr.InvalidParameters) || a.Code() == string(apierr.MissingParameters) {
		w.s.complain("%s: its request is not valid", w.o.nonce)
	}
}
