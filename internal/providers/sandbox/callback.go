package sandbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// signatureHeader carries a callback's signature.
	signatureHeader = "Sandbox-Signature"
	// signatureVersion begins it. Another way to sign would get another number.
	signatureVersion = "v1="
	// maxCallbackBytes bounds a callback, and what is read of the answer to one. The
	// longest one, with an order id of 255 characters that JSON escapes to six bytes
	// each, has 3 KiB.
	maxCallbackBytes = 64 << 10
	// callbackTimeout bounds one delivery. Who takes in callbacks stores them and
	// answers; that takes no ten seconds.
	callbackTimeout = 10 * time.Second
	// maxDelivering bounds how many callbacks are under way at once: enough for a
	// receiver that answers slowly, too few to be an attack on one.
	maxDelivering = 16
	// maxDeliveries bounds how often one process sends a callback that nobody
	// acknowledges: with the waits between them, for a quarter of an hour.
	maxDeliveries = 20
	// firstRetry and lastRetry are the shortest and longest wait between two
	// deliveries; each is twice the one before.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// maxURLLength bounds callback_url and return_url, as the contract bounds a
	// merchant's callback_url.
	maxURLLength = 526
)

// The types of messages.
const (
	aboutTransaction = "transaction"
	aboutDispute     = "dispute"
)

// message is a callback's body. A message about a transaction has all fields but
// dispute; one about a dispute has dispute in place of what the transaction came to.
type message struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	order
	Status            status       `json:"status,omitempty"`
	ProviderID        string       `json:"provider_id,omitempty"`
	ResponseCode      string       `json:"response_code,omitempty"`
	AuthorizationCode string       `json:"authorization_code,omitempty"`
	Amount            string       `json:"amount,omitempty"`
	Currency          string       `json:"currency,omitempty"`
	Dispute           *disputeBody `json:"dispute,omitempty"`
	CreatedAt         time.Time    `json:"created_at"`
}

// disputeBody is a dispute on the wire.
type disputeBody struct {
	ID       string                 `json:"id"`
	Stage    providers.DisputeStage `json:"stage"`
	Amount   string                 `json:"amount"`
	Currency string                 `json:"currency"`
}

// sign makes the header's value for a body.
func sign(secret, body []byte) string {
	h := hmac.New(sha256.New, secret)
	h.Write(body)
	return signatureVersion + hex.EncodeToString(h.Sum(nil))
}

// letter is one copy of a message, and where it goes. It is in the outbox until it
// is acknowledged.
type letter struct {
	url     string
	copy    int       // from 1
	due     time.Time // not to be sent before
	message message
	tries   int // of this process
}

type letterKey struct {
	message string
	copy    int
}

func newMessageID() string { return "sbxmsg_" + rand.Text() }

// announce puts into the outbox what became of something pending. A second copy is to
// come as much later as the first one was waited for.
func (l *Ledger) announce(p, decision record) {
	m := message{ID: p.Message, Type: aboutTransaction, order: orderOfRecord(decision), Status: decisions[decision.Kind].to,
		ProviderID: decision.ID, ResponseCode: decision.ResponseCode, AuthorizationCode: decision.AuthorizationCode,
		Amount: decision.Amount, Currency: decision.Currency, CreatedAt: decision.At}
	wait := p.Due.Sub(p.At)
	for i := range p.Copies {
		at := decision.At.Add(time.Duration(i) * wait)
		l.outbox[letterKey{p.Message, i + 1}] = letter{url: p.CallbackURL, copy: i + 1, due: at, message: m}
	}
}

func orderOfRecord(r record) order {
	return order{Reference: r.Reference, AccountID: r.AccountID, Mode: r.Mode, MerchantOrderID: r.MerchantOrderID}
}

// letters are what is in the outbox, of one message or, with "", of all.
func (l *Ledger) letters(message string) []letter {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if message == "" {
		return slices.Collect(maps.Values(l.outbox))
	}
	var list []letter
	for i := 1; ; i++ {
		this, ok := l.outbox[letterKey{message, i}]
		if !ok {
			return list
		}
		list = append(list, this)
	}
}

// acknowledged takes a letter out of the outbox, for ever.
func (l *Ledger) acknowledged(this letter) error {
	return l.append(record{Kind: kindAcknowledged, Message: this.message.ID, Copy: this.copy})
}

// dispatch sends a message's letters when they are due. Without a secret they stay
// where they are: a message that nobody can believe is not worth sending.
func (s *Server) dispatch(message string) {
	if len(s.secret) == 0 || message == "" {
		return
	}
	for _, l := range s.ledger.letters(message) {
		s.deliveries.add(l.due, l)
	}
}

// deliver makes one delivery. What is not acknowledged is sent again, in this process
// or, after a while, only in the next one.
func (s *Server) deliver(ctx context.Context, l letter) {
	if s.send(ctx, l) {
		_ = s.ledger.acknowledged(l) // if that cannot be written, it is said once more
		return
	}
	if l.tries++; l.tries < maxDeliveries {
		s.deliveries.add(time.Now().Add(retryAfter(l.tries)), l)
	}
}

// retryAfter is the wait after so many deliveries in vain.
func retryAfter(tries int) time.Duration {
	wait := firstRetry
	for range tries - 1 {
		wait = min(2*wait, lastRetry)
	}
	return wait
}

// send makes one exchange, and says whether it was acknowledged.
func (s *Server) send(ctx context.Context, l letter) bool {
	ctx, cancel := context.WithTimeout(ctx, callbackTimeout)
	defer cancel()
	body, err := json.Marshal(l.message)
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "oncepay-sandbox")
	req.Header.Set(signatureHeader, sign(s.secret, body))
	res, err := s.caller.RoundTrip(req) // a redirect is no acknowledgement, and not followed
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, maxCallbackBytes) // so that the connection can be used again
	return res.StatusCode >= 200 && res.StatusCode <= 299
}

// newCaller makes the client of callbacks. As for our own requests to providers,
// proxies named by the environment are ignored.
func newCaller() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: callbackTimeout}).DialContext,
		MaxIdleConnsPerHost:    maxDelivering,
		IdleConnTimeout:        callbackTimeout,
		ResponseHeaderTimeout:  callbackTimeout,
		TLSHandshakeTimeout:    callbackTimeout,
		MaxResponseHeaderBytes: maxCallbackBytes,
	}
}

// ReadCallback believes a message that the sandbox signed with the secret they
// share, and reads it. The signature is looked at before anything else.
func (a *Adapter) ReadCallback(header http.Header, body []byte) (providers.Callback, error) {
	signatures := header.Values(signatureHeader)
	if len(a.secret) == 0 || len(signatures) != 1 || !hmac.Equal([]byte(signatures[0]), []byte(sign(a.secret, body))) {
		return providers.Callback{}, providers.ErrForged
	}
	var m message
	if len(body) > maxCallbackBytes {
		return providers.Callback{}, fmt.Errorf("%w: it is too long", providers.ErrCallback)
	}
	if err := decodeOpen(body, &m); err != nil {
		return providers.Callback{}, fmt.Errorf("%w: the body %w", providers.ErrCallback, err)
	}
	if m.problem() != "" || m.orderProblem() != "" || !validID(m.ID) || m.CreatedAt.IsZero() {
		return providers.Callback{}, fmt.Errorf("%w: it does not name itself, its transaction and its time", providers.ErrCallback)
	}
	c := providers.Callback{ID: m.ID, Order: providers.Order{
		Reference: m.Reference, AccountID: m.AccountID, Mode: m.Mode, MerchantOrderID: m.MerchantOrderID,
	}}
	switch {
	case m.Type == aboutTransaction && m.Dispute == nil && m.told():
		c.Result = m.reply().result()
	case m.Type == aboutDispute && m.Status == "" && m.Dispute.valid():
		d := m.Dispute
		c.Dispute = &providers.Dispute{ID: d.ID, Stage: d.Stage, Amount: decimal.RequireFromString(d.Amount), Currency: d.Currency}
	default:
		return providers.Callback{}, fmt.Errorf("%w: its type and what it tells do not fit", providers.ErrCallback)
	}
	return c, nil
}

// reply is what the message tells, in the form of an answer.
func (m *message) reply() reply {
	return reply{Reference: m.Reference, Status: m.Status, ID: m.ProviderID, ResponseCode: m.ResponseCode,
		AuthorizationCode: m.AuthorizationCode, Amount: m.Amount, Currency: m.Currency}
}

// told says whether the message tells of a decision, and wholly.
func (m *message) told() bool {
	class, known := providers.ClassOf(m.ResponseCode)
	if !known || m.ProviderID == "" || !amountForm.MatchString(m.Amount) || !currencyForm.MatchString(m.Currency) {
		return false
	}
	return m.Status == statusApproved && class == providers.ClassSucceeded || m.Status == statusDeclined && class != providers.ClassSucceeded
}

func (d *disputeBody) valid() bool {
	return d != nil && validID(d.ID) && stages[d.Stage] > 0 && positive(d.Amount) && currencyForm.MatchString(d.Currency)
}

// validCallbackURL says whether the sandbox can call there. A user's name and password
// would be written into the journal, and are not taken.
func validCallbackURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.User == nil && len(s) <= maxURLLength && idForm.MatchString(s) && isWebURL(s)
}

// isWebURL says whether a browser can go there, or an HTTP client.
func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}
