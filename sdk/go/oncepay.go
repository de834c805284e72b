// Package oncepay calls a payments API of Oncepay from a merchant's backend.
//
// The one idea: a nonce belongs to an operation, and not to a request. Whoever wants
// something done makes the Operation first, stores its nonce with the order, and then
// calls. The client sends the same nonce again while the outcome is open, and so may the
// merchant: after a time-out, a deployment, a crash.
//
//	op := oncepay.NewOperation()
//	save(order, op.Nonce())                        // before anything is sent
//	payment, err := client.CreatePayment(ctx, op, params)
//	switch {
//	case err == nil:                               // see payment.Status: a decline is an answer
//	case errors.Is(err, oncepay.ErrOutcomeUnknown): // the same operation again, later
//	default:                                       // nothing happened; errors.As with *oncepay.Error says why
//	}
//
// The client speaks the manner of the idempotency policy yuno, the default. An account
// with another policy refuses the nonce's header, and nothing moves.
package oncepay

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"
)

// Version is this client's, as the User-Agent says it.
const Version = "0.1.0"

const (
	// maxAnswer bounds an answer, in bytes. The largest is a page of payments with all
	// that merchants may attach to them.
	maxAnswer = 32 << 20
	// maxKey is more than a key is long, in bytes.
	maxKey = 512
)

// Client calls one installation with one pair of keys. It is safe for concurrent use.
type Client struct {
	base    string
	public  string
	secret  string
	account string
	http    *http.Client
	retries Retries
	watch   func(Attempt)
	// plain says that requests go through Go's own transport, which tells truly whether
	// it had a connection to write to.
	plain bool
}

// Option changes how New makes a Client.
type Option func(*Client) error

// WithHTTPClient sends through a copy of this client: its transport, its time-out and its
// cookies. Redirects are not followed whatever it says.
func WithHTTPClient(h *http.Client) Option {
	return func(c *Client) error {
		if h == nil {
			return errors.New("oncepay: the HTTP client is nil")
		}
		own := *h
		c.http = &own
		return nil
	}
}

// WithAccount is the account_id of requests that name none.
func WithAccount(id string) Option {
	return func(c *Client) error {
		c.account = id
		return nil
	}
}

// WithRetries sets how long and how often a call tries. What is zero keeps its default.
func WithRetries(r Retries) Option {
	return func(c *Client) (err error) {
		c.retries, err = r.complete()
		return err
	}
}

// WithObserver tells f of each attempt as it ends, by the goroutine of the call. It is the
// place for metrics and logs; nothing in an Attempt is secret.
func WithObserver(f func(Attempt)) Option {
	return func(c *Client) error {
		c.watch = f
		return nil
	}
}

// New makes a client for the API at baseURL, which is absolute and has no /v1, such as
// https://payments.example.com. publicKey and secretKey are a key pair of the account. It
// fails if one of these cannot be used.
func New(baseURL, publicKey, secretKey string, options ...Option) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("oncepay: the base URL must be http(s)://host, without credentials, query or fragment")
	}
	if !isKey(publicKey) || !isKey(secretKey) {
		return nil, fmt.Errorf("oncepay: a key must be 1 to %d visible ASCII characters", maxKey)
	}
	c := &Client{base: strings.TrimRight(u.String(), "/"), public: publicKey, secret: secretKey, watch: func(Attempt) {}}
	if c.retries, err = (Retries{}).complete(); err != nil {
		return nil, err
	}
	for _, o := range options {
		if err := o(c); err != nil {
			return nil, err
		}
	}
	if c.http == nil {
		c.http = &http.Client{Transport: newTransport()}
	}
	_, c.plain = c.http.Transport.(*http.Transport)
	// The secret is in a header that Go would hand on to wherever a redirect leads.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// newTransport is the client's own. An attempt as a whole is bounded by
// Retries.AttemptTimeout; these see to it that a server which is away is noticed sooner.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   64, // a backend speaks to one host, and from many goroutines
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// isKey says whether s can be the value of a header as it stands.
func isKey(s string) bool {
	return s != "" && len(s) <= maxKey && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func userAgent() string { return "oncepay-go/" + Version + " (" + runtime.Version() + ")" }

// String hides the keys from fmt.
func (c *Client) String() string { return "[oncepay client]" }

// GoString hides the keys from %#v.
func (c *Client) GoString() string { return "[oncepay client]" }

// LogValue hides the keys from slog.
func (c *Client) LogValue() slog.Value { return slog.StringValue("[oncepay client]") }
