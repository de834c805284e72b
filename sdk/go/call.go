package oncepay

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// dialer gives a server that does not answer at all less time than a request has.
var dialer = &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}

// Meta is how an answer came.
type Meta struct {
	// Replayed says that the operation was answered before, and this is that answer.
	Replayed bool
	// BodyIgnored says that the nonce came with other parameters first. Those count, and
	// what came now was ignored.
	BodyIgnored bool
	// RequestID finds the request in the API's logs.
	RequestID string
	// Attempts is how many requests the call has sent.
	Attempts int
	// Raw is the answer, byte for byte: all of its members.
	Raw json.RawMessage
}

// Attempt is one request of a call that has ended, for an observer.
type Attempt struct {
	Call      string // such as "create payment"
	Nonce     string
	Number    int // 1 for the first
	Took      time.Duration
	Status    int           // of the answer; 0: none came
	RequestID string        // of the answer
	Err       error         // nil: it was answered as was hoped
	Pause     time.Duration // until the next attempt, if there is one
	Decision  Decision
}

// call is one thing that is asked of the API.
type call struct {
	what   string
	method string
	path   string // below the base URL, escaped
	query  url.Values
	op     *Operation // nil: it only reads
	body   any
	wrong  error // why there is nothing to be sent
}

// answer is a 2xx, as a whole.
type answer struct {
	body   []byte
	header http.Header
}

func (a answer) meta(attempts int) Meta {
	return Meta{
		Replayed:    a.header.Get("Idempotent-Replayed") == "true",
		BodyIgnored: a.header.Get("Idempotency-Body-Mismatch") == "true",
		RequestID:   a.header.Get("X-Request-Id"),
		Attempts:    attempts,
		Raw:         a.body,
	}
}

// do calls until there is an answer that read understands, or it makes no sense to go on.
// Its errors are *CallError.
func (c *Client) do(ctx context.Context, r call, read func(answer) error) (Meta, error) {
	body, err := r.encode()
	if err != nil {
		return Meta{}, r.failed(0, Decision{Reason: "the request cannot be made: nothing was sent"}, err)
	}
	if err := ctx.Err(); err != nil {
		return Meta{}, r.failed(0, Decision{Reason: "the caller has ended the call: nothing was sent"}, err)
	}
	deadline := time.Now().Add(c.retries.Total)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	bounded, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for n := 1; ; n++ {
		began := time.Now()
		got, a := c.attempt(bounded, r, body, read)
		pause := c.retries.pause(n, a.asked(), jitter)
		a.number, a.limit, a.ended = n, c.retries.Attempts, ctx.Err()
		a.overdue = time.Until(deadline) <= pause
		d := decide(a)
		if r.op != nil {
			r.op.learn(a, d)
		}
		if !d.Retry {
			pause = 0
		}
		c.watch(Attempt{
			Call: r.what, Nonce: r.nonce(), Number: n, Took: time.Since(began), Status: a.status, RequestID: got.header.Get("X-Request-Id"),
			Err: a.err, Pause: pause, Decision: d,
		})
		if a.err == nil {
			return got.meta(n), nil
		}
		if d.Retry && !rest(bounded, pause) {
			a.ended = context.Cause(bounded)
			d = decide(a)
		}
		if !d.Retry {
			return Meta{}, r.failed(n, d, a.why())
		}
	}
}

// learn takes down what an attempt means for the operation. Only its answer settles one
// that is open: a refusal may be of this request alone, because another key, or another
// body, is looked at before the nonce is.
func (o *Operation) learn(a attempt, d Decision) {
	switch {
	case a.err == nil:
		o.open.Store(false)
	case d.Open:
		o.open.Store(true)
	}
}

func (r call) nonce() string {
	if r.op == nil {
		return ""
	}
	return r.op.nonce
}

func (r call) failed(attempts int, d Decision, err error) error {
	return &CallError{Call: r.what, Nonce: r.nonce(), Attempts: attempts, Decision: d, Err: err, unknown: r.op != nil && r.op.open.Load()}
}

// encode is the body of every attempt: one and the same.
func (r call) encode() ([]byte, error) {
	switch {
	case r.wrong != nil:
		return nil, r.wrong
	case r.method == http.MethodGet:
		return nil, nil
	case r.op == nil || !isNonce(r.op.nonce):
		return nil, errors.New("there is no operation: make one with NewOperation or OperationWithNonce")
	}
	body, err := json.Marshal(r.body)
	if err != nil {
		return nil, fmt.Errorf("encode the parameters: %w", err)
	}
	return body, nil
}

// attempt sends one request, and reads its whole answer. The attempt's err is nil if that
// is a 2xx which read understands.
//
// Go's transport sends a request with an idempotency key once more by itself, if the
// connection that it reused breaks before an answer begins. That does no harm, because it
// has the same nonce; and no attempt is taken for unsent that had a connection at any time.
func (c *Client) attempt(ctx context.Context, r call, body []byte, read func(answer) error) (answer, attempt) {
	ctx, cancel := context.WithTimeout(ctx, c.retries.AttemptTimeout)
	defer cancel()
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := c.request(traced, r, body)
	if err != nil {
		return answer{}, attempt{err: err, unsent: true}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, attempt{err: bare(err), unsent: c.plain && !connected.Load() && isBeforeSending(err)}
	}
	defer res.Body.Close()
	got := answer{header: res.Header}
	got.body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(got.body) > maxAnswer {
		err = fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	a := attempt{status: res.StatusCode}
	switch {
	case res.StatusCode < 200 || res.StatusCode >= 300:
		// Half an envelope is none, but the status stands by itself.
		e := readError(res.StatusCode, got.body, res.Header.Get("X-Request-Id"), retryAfter(res.Header, time.Now()))
		a.code, a.refused, a.err = e.Code, true, e
		a.kept = res.Header.Get("Idempotent-Replayed") == "true"
	case err != nil:
		a.err = fmt.Errorf("read the answer: %w", err)
	default:
		a.err = read(got)
	}
	return got, a
}

func (c *Client) request(ctx context.Context, r call, body []byte) (*http.Request, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("public-api-key", c.public)
	req.Header.Set("private-secret-key", c.secret)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent())
	if r.op != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Idempotency-Key", r.op.nonce)
	}
	return req, nil
}

// bare is the error without the URL around it, which may name an order.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// isBeforeSending says whether err is of a kind that comes before a request is written.
func isBeforeSending(err error) bool {
	var dial *net.OpError
	var untrusted *tls.CertificateVerificationError
	return errors.As(err, &dial) && dial.Op == "dial" || errors.As(err, &untrusted)
}

// asked is when the API asks to come back.
func (a attempt) asked() time.Duration {
	var e *Error
	if errors.As(a.err, &e) {
		return e.RetryAfter
	}
	return 0
}

// why is the attempt's error, and that of the caller's context if it is over.
func (a attempt) why() error {
	if a.ended == nil || errors.Is(a.err, a.ended) {
		return a.err
	}
	return fmt.Errorf("%w: %w", a.ended, a.err)
}

// rest pauses. It reports whether the context lasted.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
