package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncepay/oncepay/internal/transactions"
)

// play lets an order happen, from its first request to its last, and then what is done
// with its payment. It reports whether the client got its answers.
func (s *stage) play(ctx context.Context, o *order) bool {
	return s.playAlone(ctx, o) && s.playOn(ctx, o)
}

// playAlone lets an order happen, without what follows.
func (s *stage) playAlone(ctx context.Context, o *order) bool {
	s.prepare(o)
	if o.shop != nil {
		return s.playShop(ctx, o)
	}
	switch o.story {
	case reborn:
		return s.playReborn(ctx, o, 0)
	case forgotten:
		return s.playReborn(ctx, o, 2*time.Second) // a purge comes by
	case agedUnresolved:
		return s.playAged(ctx, o)
	case person:
		return s.playPerson(ctx, o)
	case patient, twin, once:
	}
	if !s.payUntilAnswered(ctx, o) {
		return false
	}
	s.askAgain(ctx, o)
	return true
}

// askAgain replays the answer, and looks the nonce up.
func (s *stage) askAgain(ctx context.Context, o *order) {
	for n := range o.manner.replays {
		value := amount
		if o.manner.otherBody {
			value = otherAmount
		}
		s.pay(ctx, ask{order: o, value: value, via: s.via(o, n)})
	}
	_, _, _ = s.look(ctx, o) // what it says is written down
}

// playReborn: the nonce's time runs out after it was answered, and the merchant
// uses it again a while later. That is another payment.
func (s *stage) playReborn(ctx context.Context, o *order, later time.Duration) bool {
	if !s.payUntilAnswered(ctx, o) {
		return false
	}
	s.askAgain(ctx, o)
	if s.age(ctx, o) != nil {
		return false
	}
	rest(ctx, later)
	if !s.payUntilAnswered(ctx, o) {
		return false
	}
	s.askAgain(ctx, o)
	return true
}

// playAged: the nonce's time runs out while nobody knows what became of it. Its
// life goes on all the same.
func (s *stage) playAged(ctx context.Context, o *order) bool {
	s.pay(ctx, ask{order: o, value: amount, via: s.via(o, 0)})
	if s.age(ctx, o) != nil {
		return false
	}
	rest(ctx, 1500*time.Millisecond) // a purge comes by
	if !s.payUntilAnswered(ctx, o) {
		return false
	}
	s.askAgain(ctx, o)
	rest(ctx, 1500*time.Millisecond)
	s.askAgain(ctx, o) // the answer came late, and is kept from then on
	return true
}

// playPerson: the first attempt fails, the provider does not answer when asked,
// and somebody decides. A payment that failed by that decision is made again.
func (s *stage) playPerson(ctx context.Context, o *order) bool {
	s.pay(ctx, ask{order: o, value: amount, via: s.via(o, 0)})
	rest(ctx, proofAfter)
	s.resolve(ctx, o)
	if !s.payUntilAnswered(ctx, o) {
		return false
	}
	s.askAgain(ctx, o)
	return true
}

// playOn does what is to be done with an order's payment, if there is one: one group of
// actions after the other, those of a group at once, as several clerks do.
func (s *stage) playOn(ctx context.Context, o *order) bool {
	if len(o.after) == 0 && o.paid.redirect == "" {
		return true
	}
	if !s.awaitDecision(ctx, o) {
		return false
	}
	answered := atomic.Bool{}
	answered.Store(true)
	for _, clerks := range o.after {
		var wg sync.WaitGroup
		for _, a := range clerks {
			if o.paid.status != string(transactions.Succeeded) || a.deed.on != nil && a.deed.on.paid.transaction == "" {
				continue // there is nothing to act on
			}
			wg.Go(func() {
				if !s.playAlone(ctx, a) {
					answered.Store(false)
				}
			})
		}
		wg.Wait()
	}
	return answered.Load()
}

// awaitDecision waits until the provider has decided about what it only accepted; a
// challenge is answered as a payer does. It reports whether it was decided.
func (s *stage) awaitDecision(ctx context.Context, o *order) bool {
	for ctx.Err() == nil && o.paid.status == string(transactions.Pending) {
		if o.paid.redirect != "" {
			s.answerChallenge(ctx, o)
		}
		s.readDecision(ctx, o)
		rest(ctx, 4*restPause)
	}
	return o.paid.status != string(transactions.Pending)
}

// readDecision reads what has become of the order's payment, and reports whether it
// could.
func (s *stage) readDecision(ctx context.Context, o *order) bool {
	c := s.client(s.via(o, 0), o.merchant)
	if c == nil {
		return false
	}
	a := c.Get(ctx, "/v1/payments/"+o.paid.payment)
	if a.Err != nil || a.Status != http.StatusOK {
		return false
	}
	o.paid.status, o.paid.redirect = firstOutcome(a.Body)
	return true
}

// firstOutcome is the status of the transaction that made a payment, which is the last
// of its list, and where its payer has to go; pending, if that cannot be read.
func firstOutcome(body []byte) (status, redirect string) {
	var p struct {
		Transactions []attempt `json:"transactions"`
	}
	if json.Unmarshal(body, &p) != nil || len(p.Transactions) == 0 {
		return string(transactions.Pending), ""
	}
	first := p.Transactions[len(p.Transactions)-1]
	return first.Status, first.Method.Detail.Card.Redirect
}

// theRightCode is what the payer answers the sandbox's challenge with.
const theRightCode = "1234"

// answerChallenge does what a payer does on the page that the provider showed. Whoever
// does it a second time changes nothing.
func (s *stage) answerChallenge(ctx context.Context, o *order) {
	form := url.Values{"code": {theRightCode}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.paid.redirect, strings.NewReader(form))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Timeout: callbackLimit, Transport: &http.Transport{DisableKeepAlives: true}}
	if res, err := client.Do(req); err == nil { // else the provider is away for a moment
		_ = res.Body.Close()
	}
}
