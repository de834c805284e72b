package harness

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apitest"
)

// Test cards. No log may hold one. Those for live mode have a right check digit.
const (
	CardThatPays     = "4507990000000002"
	CardWithoutFunds = "4507990000000010"
	LiveCardThatPays = "4111111111111111"
	LiveCardDeclined = "4000000000000002"
)

var cards = []string{CardThatPays, CardWithoutFunds, LiveCardThatPays, LiveCardDeclined}

const (
	// exchangeLimit is longer than any answer may take: the longest lease in a test.
	exchangeLimit = 2 * time.Minute
	// answerBytes bounds what is read of an answer.
	answerBytes = 8 << 20
	// impatience is the pause of a client that was told nothing about when to come
	// back: the connection was refused, or broke.
	impatience = 50 * time.Millisecond
)

// Keys are what a merchant calls with.
type Keys struct {
	AccountID        string `json:"account_id"`
	PublicAPIKey     string `json:"public_api_key"`
	PrivateSecretKey string `json:"private_secret_key"`
	Mode             string `json:"mode"`
}

// Payment is what a merchant wants paid. Two of the same are the same body, byte
// for byte.
type Payment struct {
	Nonce       string
	OrderID     string
	Description string
	Value       string // in USD, as a JSON number
	Card        string
}

// NewPayment is a payment under a nonce and an order that nobody else has, so that
// the ledger's entries of the order are this payment's.
func NewPayment(description string) Payment {
	return Payment{Nonce: Unguessable("nonce"), OrderID: Unguessable("order"), Description: description, Value: "45.67", Card: CardThatPays}
}

// Unguessable is a name that occurs once in the world.
func Unguessable(what string) string { return what + "-" + rand.Text() + rand.Text() }

func (p Payment) body(account string) []byte {
	b, err := json.Marshal(map[string]any{
		"account_id": account, "merchant_order_id": p.OrderID, "description": p.Description, "country": "US", "workflow": "DIRECT",
		"amount": map[string]any{"currency": "USD", "value": json.Number(p.Value)},
		"payment_method": map[string]any{"type": "CARD", "detail": map[string]any{"card": map[string]any{"card_data": map[string]any{
			"number": p.Card, "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 28, "security_code": "123"}}}},
	})
	if err != nil {
		panic(err) // strings, and a number that is a constant of the test
	}
	return b
}

// Answer is what came back, or why nothing did.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Closes bool // the server keeps the connection no longer
	Err    error
	At     time.Time // when it was complete
}

// Code is the code of a refusal.
func (a Answer) Code() string {
	var e struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(a.Body, &e) // then there is none
	return e.Code
}

// Replayed says whether the answer was one that had been given before.
func (a Answer) Replayed() bool { return a.Header.Get("Idempotent-Replayed") == "true" }

// Same says whether two answers are byte-equal: status and body.
func (a Answer) Same(b Answer) bool { return a.Status == b.Status && bytes.Equal(a.Body, b.Body) }

func (a Answer) String() string {
	if a.Err != nil {
		return a.Err.Error()
	}
	return fmt.Sprintf("%d %s", a.Status, bytes.TrimSpace(a.Body))
}

// Client is a merchant's backend. It may be used by many goroutines.
type Client struct {
	keys  Keys
	base  atomic.Pointer[string]
	http  *http.Client
	notes *Notes // of exchanges that were not as documented
}

// NewClient calls the API at a base URL, without /v1.
func NewClient(baseURL string, keys Keys) *Client {
	c := &Client{keys: keys, notes: &broken, http: &http.Client{
		Timeout:   exchangeLimit,
		Transport: &http.Transport{MaxIdleConnsPerHost: 2000, IdleConnTimeout: exchangeLimit},
	}}
	c.MoveTo(baseURL)
	return c
}

// MoveTo says where the API is now.
func (c *Client) MoveTo(baseURL string) { c.base.Store(&baseURL) }

// Trusting is the same backend, that believes in these authorities alone.
func (c *Client) Trusting(roots *x509.CertPool) *Client {
	other := c.As(c.keys)
	other.http = &http.Client{Timeout: exchangeLimit, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, IdleConnTimeout: exchangeLimit,
	}}
	return other
}

// NotingTo is the same backend, whose exchanges that were not as openapi.yaml says are
// noted there, and not with everybody's.
func (c *Client) NotingTo(n *Notes) *Client {
	other := c.As(c.keys)
	other.notes = n
	return other
}

// As is the same backend with other keys.
func (c *Client) As(keys Keys) *Client {
	other := &Client{keys: keys, http: c.http, notes: c.notes}
	other.base.Store(c.base.Load())
	return other
}

// Pay asks for a payment: one request, one attempt.
func (c *Client) Pay(ctx context.Context, p Payment) Answer {
	return c.do(ctx, http.MethodPost, "/v1/payments", p.body(c.keys.AccountID), http.Header{"X-Idempotency-Key": {p.Nonce}})
}

// PayUntilAnswered does what the contract asks of a backend: while the outcome is
// unclear it comes back with the same nonce and the same body, as soon as it was
// told to. It returns the first answer that is one, or the last that is not when
// the context ends.
func (c *Client) PayUntilAnswered(ctx context.Context, p Payment) (Answer, error) {
	a, err := untilAnswered(ctx, func() Answer { return c.Pay(ctx, p) })
	if err == nil && a.Status != http.StatusCreated {
		err = fmt.Errorf("not to be repeated: %s", a)
	}
	return a, err
}

// untilAnswered asks again, as soon as it was told to, until the outcome is clear.
func untilAnswered(ctx context.Context, ask func() Answer) (Answer, error) {
	for {
		a := ask()
		pause := impatience
		switch {
		case a.Err != nil:
		case a.Status == http.StatusConflict || a.Status >= http.StatusInternalServerError:
			seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
			if err != nil {
				return a, fmt.Errorf("without a Retry-After: %s", a)
			}
			pause = time.Duration(seconds) * time.Second
		default:
			return a, nil
		}
		select {
		case <-ctx.Done():
			return a, fmt.Errorf("still without an answer, the last was: %s", a)
		case <-time.After(pause):
		}
	}
}

// Post sends one request with a body of JSON, once, whatever becomes of the connection.
// Its header has the nonce; the rest is added.
func (c *Client) Post(ctx context.Context, path string, header http.Header, body any) Answer {
	text, err := json.Marshal(body)
	if err != nil {
		return Answer{Err: err}
	}
	return c.do(ctx, http.MethodPost, path, text, header)
}

// Get asks for something under /v1.
func (c *Client) Get(ctx context.Context, path string) Answer {
	return c.do(ctx, http.MethodGet, path, nil, nil)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, header http.Header) Answer {
	req, err := http.NewRequestWithContext(ctx, method, *c.base.Load()+path, bytes.NewReader(body))
	if err != nil {
		return Answer{Err: err}
	}
	// Go's transport repeats a request that carries an idempotency key if a reused
	// connection breaks. Our tests count requests, so theirs go out once.
	req.GetBody = nil
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("public-api-key", c.keys.PublicAPIKey)
	req.Header.Set("private-secret-key", c.keys.PrivateSecretKey)
	return promised(c.http, req, body, c.notes)
}

// promised is an exchange with one of the API's listeners, which must be as
// openapi.yaml says; what is not is noted.
func promised(client *http.Client, req *http.Request, body []byte, notes *Notes) Answer {
	a := exchange(client, req)
	if a.Err != nil || twoReleases.Load() {
		return a
	}
	res := &http.Response{StatusCode: a.Status, Header: a.Header}
	if err := apitest.Problem(req, body, res, a.Body); err != nil {
		notes.note(fmt.Sprintf("%s %s answered %d: %v", req.Method, req.URL.Path, a.Status, err))
	}
	return a
}

// twoReleases is set while another release answers, too.
var twoReleases atomic.Bool

// TwoReleases says that the release before answers, too, or has, until the test ends: its
// answers, and their replays by this one, are as its own document says. Nothing else may
// run meanwhile.
func TwoReleases(t testing.TB) {
	t.Helper()
	twoReleases.Store(true)
	t.Cleanup(func() { twoReleases.Store(false) })
}

// broken are the exchanges that were not as openapi.yaml says. They fail the run,
// not a test: many are made by goroutines that outlive what they were made for.
var broken Notes

// BrokenExchanges are the exchanges so far that were not as openapi.yaml says.
func BrokenExchanges() []string { return broken.All() }

// Notes keeps the first few different ones of what may come thousands of times. The zero
// Notes are empty. They may be used by many goroutines.
type Notes struct {
	mu   sync.Mutex
	list []string
}

// maxNotes is more than anybody reads.
const maxNotes = 20

func (n *Notes) note(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.list) < maxNotes && !slices.Contains(n.list, text) {
		n.list = append(n.list, text)
	}
}

// All are the notes so far.
func (n *Notes) All() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

// exchange sends a request and reads the whole answer.
func exchange(client *http.Client, req *http.Request) Answer {
	res, err := client.Do(req)
	if err != nil {
		return Answer{Err: err, At: time.Now()}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerBytes))
	return Answer{Status: res.StatusCode, Header: res.Header, Body: body, Closes: res.Close, Err: err, At: time.Now()}
}

// Lives is what became of a nonce.
type Lives struct {
	Nonce string `json:"nonce"`
	Lives []Life `json:"lives"`
}

// Life is one life of a nonce.
type Life struct {
	AccountID string `json:"account_id"`
	Mode      string `json:"mode"`
	Policy    string `json:"idempotency_policy"`
	KeyState  string `json:"key_state"`
	// AnswerStatus is what the key answers; nil: it has no answer.
	AnswerStatus *int   `json:"answer_status"`
	PaymentID    string `json:"payment_id"`
	Transaction  struct {
		ID     string `json:"id"`
		Status string `json:"status"`
		Fence  int64  `json:"fence"`
	} `json:"transaction"`
	Charges  int      `json:"charges"`
	Verdict  string   `json:"verdict"`
	Timeline []Moment `json:"timeline"`
}

// Moment is one line of a life's timeline.
type Moment struct {
	Kind    string `json:"kind"`
	Verdict string `json:"verdict"`
	Outcome string `json:"outcome"`
	By      string `json:"by"`
}

// Count is how many moments of a kind the timeline has.
func (l Life) Count(kind string) int {
	n := 0
	for _, m := range l.Timeline {
		if m.Kind == kind {
			n++
		}
	}
	return n
}

// Lives asks what became of a nonce. Nothing known of it is no error.
func (c *Client) Lives(ctx context.Context, nonce string) ([]Life, error) {
	a := c.Get(ctx, "/v1/idempotency-keys/"+url.PathEscape(nonce))
	switch {
	case a.Err != nil:
		return nil, a.Err
	case a.Status == http.StatusNotFound:
		return nil, nil
	case a.Status != http.StatusOK:
		return nil, fmt.Errorf("look up a nonce: %s", a)
	}
	var l Lives
	if err := json.Unmarshal(a.Body, &l); err != nil {
		return nil, fmt.Errorf("look up a nonce: %w", err)
	}
	if len(l.Lives) == 0 {
		return nil, errors.New("look up a nonce: found, but without a life")
	}
	return l.Lives, nil
}

// Operator speaks to the operator's API.
type Operator struct {
	URL, Token string
	Roots      *x509.CertPool // the authorities of the listener's certificate
}

// Do sends one request; a nil body sends none.
func (o Operator) Do(ctx context.Context, method, path string, body any) Answer {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return Answer{Err: err}
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(o.URL, "/")+path, bytes.NewReader(payload))
	if err != nil {
		return Answer{Err: err}
	}
	req.Header.Set("Authorization", "Bearer "+o.Token)
	req.Header.Set("Content-Type", "application/json")
	return promised(&http.Client{Timeout: exchangeLimit, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: o.Roots},
	}}, req, payload, &broken)
}

// NewMerchant makes a merchant of the default policy, with a test key.
func (o Operator) NewMerchant(ctx context.Context, name string) (Keys, error) {
	return o.NewMerchantWith(ctx, name, "yuno")
}

// NewMerchantWith makes a merchant of that idempotency policy, with a test key.
func (o Operator) NewMerchantWith(ctx context.Context, name, policy string) (Keys, error) {
	a := o.Do(ctx, http.MethodPost, "/admin/v1/merchants", map[string]string{"name": name, "idempotency_policy": policy})
	var made struct {
		AccountID string `json:"account_id"`
		APIKey    Keys   `json:"api_key"`
	}
	if a.Err != nil || a.Status != http.StatusCreated || json.Unmarshal(a.Body, &made) != nil {
		return Keys{}, fmt.Errorf("make a merchant: %s", a)
	}
	made.APIKey.AccountID = made.AccountID
	return made.APIKey, nil
}

// NewKey makes another key for a merchant.
func (o Operator) NewKey(ctx context.Context, account, mode string) (Keys, error) {
	a := o.Do(ctx, http.MethodPost, "/admin/v1/merchants/"+account+"/keys", map[string]string{"mode": mode})
	var made Keys
	if a.Err != nil || a.Status != http.StatusCreated || json.Unmarshal(a.Body, &made) != nil {
		return Keys{}, fmt.Errorf("make a key: %s", a)
	}
	made.AccountID = account
	return made, nil
}
