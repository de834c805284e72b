package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/harness"
)

// cardDeclined is the published test card that its bank declines.
const cardDeclined = "4507990000000028"

const (
	// browserLimit is how long a browser waits for an answer.
	browserLimit = 15 * time.Second
	// browserPause is its pause where it was told nothing about when to come back: as
	// often as this a session may be paid or asked about, for as long as a round takes.
	browserPause = 400 * time.Millisecond
	// shopAnswerBytes bounds an answer.
	shopAnswerBytes = 1 << 20
)

// shops are the sessions of a stage, and what its browsers share.
type shops struct {
	addresses atomic.Int64

	mu    sync.Mutex
	all   []*order // those that have a session
	wrong map[string]bool
}

func (s *shops) add(o *order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, o)
}

// note keeps what was not as openapi.yaml says.
func (s *shops) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrong == nil {
		s.wrong = map[string]bool{}
	}
	s.wrong[text] = true
}

// tab is a browser's tab: it shows the public key, and has connections and an address of
// its own, because addresses are counted.
type tab struct {
	keys    harness.Keys
	http    *http.Client
	backend bool // the merchant's backend pays with its token; else it pays itself
}

// loopback is what the addresses of browsers begin with. Linux has all of 127.0.0.0/8;
// elsewhere they share one, and are told to wait.
const loopback = 127

func (s *stage) openTab(merchant int) *tab {
	dialer := &net.Dialer{}
	if n := s.shops.addresses.Add(1); runtime.GOOS == "linux" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(loopback, 1+byte(s.seed%250), byte(n>>8), byte(n))}
	}
	return &tab{keys: s.merchants[merchant], http: &http.Client{Timeout: browserLimit, Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 16}}}
}

func (t *tab) close() { t.http.CloseIdleConnections() }

// request is what a tab sends, or a merchant's backend about a session.
type request struct {
	method, path string
	header       http.Header // with the nonce, if it has one
	body         any         // nil: none
	secret       bool        // it is the backend that asks
}

// send sends one request, once, whatever becomes of the connection.
func (s *stage) send(ctx context.Context, t *tab, via *instance, r request) harness.Answer {
	base, _ := via.addresses()
	if base == "" {
		return harness.Answer{Err: errStarting}
	}
	var text []byte
	if r.body != nil {
		var err error
		if text, err = json.Marshal(r.body); err != nil {
			return harness.Answer{Err: err}
		}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, base+r.path, bytes.NewReader(text))
	if err != nil {
		return harness.Answer{Err: err}
	}
	req.GetBody = nil // or else Go's transport might send it again
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("public-api-key", t.keys.PublicAPIKey)
	if r.secret {
		req.Header.Set("private-secret-key", t.keys.PrivateSecretKey)
	} else {
		req.Header.Set("Origin", base) // as our own page does
	}
	res, err := t.http.Do(req)
	if err != nil {
		return harness.Answer{Err: err, At: time.Now()}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, shopAnswerBytes))
	if err == nil {
		if problem := apitest.Problem(req, text, res, body); problem != nil {
			s.shops.note(fmt.Sprintf("%s %s answered %d: %v", r.method, r.path, res.StatusCode, problem))
		}
	}
	return harness.Answer{Status: res.StatusCode, Header: res.Header, Body: body, Err: err, At: time.Now()}
}

// unclear says whether an answer leaves open what became of its request, or says to come
// back: the same request is then sent again, with the same nonce.
func unclear(a harness.Answer) bool {
	return a.Err != nil || a.Status >= http.StatusInternalServerError || a.Status == http.StatusConflict || a.Status == http.StatusTooManyRequests
}

// pauseAfter is how long to wait before the next request.
func pauseAfter(a harness.Answer) time.Duration {
	if told, err := strconv.Atoi(a.Header.Get("Retry-After")); err == nil {
		return min(time.Duration(told)*time.Second, lease)
	}
	return browserPause
}

// told sends a request until its answer is one. attempts is how often it was sent; lost,
// whether one of them may have had its effect without an answer.
func (s *stage) told(ctx context.Context, t *tab, first int, r request) (a harness.Answer, attempts int, lost bool) {
	for n := 0; ctx.Err() == nil; n++ {
		a = s.send(ctx, t, s.instances[(first+n)%len(s.instances)], r)
		sent := !errors.Is(a.Err, errStarting)
		if sent {
			attempts++
		}
		if !unclear(a) {
			return a, attempts, lost
		}
		lost = lost || sent && a.Status != http.StatusTooManyRequests
		rest(ctx, pauseAfter(a))
	}
	a.Err = ctx.Err()
	return a, attempts, lost
}

// openSession is what a merchant's backend does before anybody can pay. It reports whether
// there is a session.
func (s *stage) openSession(ctx context.Context, o *order, t *tab) bool {
	sh, workflow := o.shop, "SDK_CHECKOUT"
	if sh.seamless {
		workflow = "SDK_SEAMLESS"
	}
	a, attempts, _ := s.told(ctx, t, o.merchant, request{
		method: http.MethodPost, path: "/v1/checkout/sessions", header: s.policy.Key("session-" + o.nonce), secret: true,
		body: map[string]any{
			"account_id": t.keys.AccountID, "merchant_order_id": o.id, "payment_description": o.description(), "country": "US",
			"amount": money(amount), "workflow": workflow,
		},
	})
	var made struct {
		ID string `json:"checkout_session"`
	}
	if a.Err != nil || a.Status != http.StatusOK || json.Unmarshal(a.Body, &made) != nil || made.ID == "" {
		s.progress("%s: no session: %s", o.about, a)
		return false
	}
	// Who was told by a replay has no promise that the standby has it; see oracle.unsure.
	sh.session = record.Session{
		Account: t.keys.AccountID, ID: made.ID, Order: o.id, Seamless: sh.seamless, Value: amount, Doubtful: attempts > 1 && s.standby != alone,
	}
	s.shops.add(o)
	return true
}

// changeSession is the backend changing its mind about the amount while shoppers pay.
func (s *stage) changeSession(ctx context.Context, o *order, t *tab) {
	rest(ctx, o.shop.after)
	a, attempts, lost := s.told(ctx, t, o.merchant+1, request{
		method: http.MethodPatch, path: "/v1/checkout/sessions/" + o.shop.session.ID, header: s.policy.Key("change-" + o.nonce), secret: true,
		body: map[string]any{"amount": money(o.shop.changed)},
	})
	change := record.NotChanged
	switch {
	case a.Err == nil && a.Status == http.StatusOK && (attempts == 1 || s.standby == alone):
		change = record.WasChanged
	case a.Err != nil, a.Status == http.StatusOK, lost:
		change = record.MaybeChanged
	}
	o.shop.mu.Lock()
	defer o.shop.mu.Unlock()
	o.shop.session.Changed, o.shop.session.Change = o.shop.changed, change
}

// expireBy is more than a session is good for.
const expireBy = "6 hours"

// expireSession puts the times of a session, and of the tokens that were made in it, back.
func (s *stage) expireSession(ctx context.Context, o *order) {
	rest(ctx, o.shop.after)
	err := patiently(ctx, func(ctx context.Context) error {
		_, err := s.pool.Exec(ctx, `WITH session AS (
			UPDATE checkout_sessions SET created_at = created_at - $3::interval, expires_at = expires_at - $3::interval WHERE account_id = $1::uuid AND id = $2::uuid
		) UPDATE one_time_tokens SET expires_at = expires_at - $3::interval WHERE account_id = $1::uuid AND checkout_session_id = $2::uuid`,
			o.shop.session.Account, o.shop.session.ID, expireBy)
		return err
	})
	if err == nil {
		s.faults.note("", "time: a session aged by "+expireBy)
	}
	o.shop.mu.Lock()
	defer o.shop.mu.Unlock()
	o.shop.session.Expired = true // or perhaps, which is enough for nobody to be blamed
}

// card is what a shopper hands in: in live mode numbers have a right check digit.
func (t *tab) card(declined bool, try int) map[string]any {
	number := harness.CardThatPays
	switch {
	case t.keys.Mode == live && declined:
		number = harness.LiveCardDeclined
	case t.keys.Mode == live:
		number = harness.LiveCardThatPays
	case declined && try%2 == 0:
		number = cardDeclined
	case declined:
		number = harness.CardWithoutFunds
	}
	return map[string]any{"number": number, "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 28, "security_code": "123"}
}

// handIn hands a card in, and returns its token; "" if it was not taken, because the
// session has its payment.
func (s *stage) handIn(ctx context.Context, o, try *order, t *tab, card map[string]any) string {
	r := request{method: http.MethodPost, path: "/v1/checkout/sessions/" + o.shop.session.ID + "/token", body: map[string]any{
		"payment_method": map[string]any{"type": "CARD", "vault_on_success": false, "card": card},
	}}
	if o.shop.shared {
		r.path, r.secret, r.header = "/v1/tokens", true, s.policy.Key("token-"+try.nonce)
		r.body = map[string]any{"account_id": t.keys.AccountID, "card_data": card}
	}
	a, _, _ := s.told(ctx, t, o.merchant, r)
	var made struct {
		Token string `json:"token"`
	}
	if a.Err != nil || a.Status != http.StatusCreated || json.Unmarshal(a.Body, &made) != nil {
		return ""
	}
	return made.Token
}

// payment is the request that pays: of the browser itself, with lies that must have no
// effect, or of the merchant's backend.
func (s *stage) payment(o, try *order, t *tab, token string) request {
	if !t.backend {
		return request{
			method: http.MethodPost, path: "/v1/checkout/sessions/" + o.shop.session.ID + "/payment",
			header: record.Policies[0].Key(try.nonce),
			body: map[string]any{
				"payment_method": map[string]any{"token": token}, "amount": money("0.01"), "merchant_order_id": "another", "country": "BR",
			},
		}
	}
	body := map[string]any{
		"account_id": t.keys.AccountID, "merchant_order_id": try.id, "description": o.description(), "country": "US",
		"amount": money(amount), "payment_method": map[string]any{"type": "CARD", "token": token},
	}
	if !o.shop.shared {
		body["workflow"], body["checkout"] = "SDK_CHECKOUT", map[string]any{"session": o.shop.session.ID}
	}
	return request{method: http.MethodPost, path: "/v1/payments", header: s.policy.Key(try.nonce), body: body, secret: true}
}

// tryToPay sends the request that pays, once, and writes down what came of it.
func (s *stage) tryToPay(ctx context.Context, o, try *order, t *tab, token string, via *instance, patience time.Duration) (record.Op, harness.Answer) {
	op := record.Op{
		Account: t.keys.AccountID, Nonce: try.nonce, Order: try.id, Kind: record.Pay, Session: o.shop.session.ID, Token: token,
		Browser: !t.backend, Start: s.rec.Now(),
	}
	if base, _ := via.addresses(); base == "" {
		op.Failed = true
		return op, harness.Answer{Err: errStarting} // nothing was sent, so nothing is written down
	}
	waits := ctx
	if patience > 0 {
		var cancel context.CancelFunc
		waits, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	a := s.send(waits, t, via, s.payment(o, try, t, token))
	op.End = s.rec.Now()
	if a.Err != nil {
		op.Failed = true
		s.noteHangUp(waits, ask{order: o, patience: patience})
		s.rec.Add(op)
		return op, a
	}
	policy := s.policy.For(op)
	op.Status, op.Replayed, op.ContentType = a.Status, policy.Replays(a.Header), a.Header.Get("Content-Type")
	op.Code, op.ComeBack = a.Code(), a.Header.Get("Retry-After") != ""
	if op.Told() || policy.Keeps(op) {
		op.Body = a.Body
	}
	if op.Told() {
		s.endAfterAnswer(ctx, try)
	}
	s.rec.Add(op)
	return op, a
}

// sessionSays asks what became of a session: its payment, how that was begun, and where its
// payer has to go. No payment is no error.
func (s *stage) sessionSays(ctx context.Context, o *order, t *tab, via *instance) (said outcomeOf, payment string, err error) {
	a := s.send(ctx, t, via, request{method: http.MethodGet, path: "/v1/checkout/sessions/" + o.shop.session.ID + "/payment"})
	var p attempt
	switch {
	case a.Err != nil:
		return said, "", a.Err
	case a.Status == http.StatusBadRequest && a.Code() == "PAYMENT_NOT_FOUND":
		return said, "", nil
	case a.Status != http.StatusOK:
		rest(ctx, pauseAfter(a))
		return said, "", fmt.Errorf("ask about session %s: %s", o.shop.session.ID, a)
	case json.Unmarshal(a.Body, &p) != nil:
		return said, "", fmt.Errorf("session %s: its payment cannot be read", o.shop.session.ID)
	}
	said.payment = p.ID
	said.status, said.redirect = firstOutcome(a.Body)
	return said, p.Status, nil
}
