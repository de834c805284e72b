package main

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
)

const (
	// triesPerTab is how often a shopper tries in one tab before giving up.
	triesPerTab = 5
	// lastTab is whose tries those of the end are, when nothing befalls anybody any more.
	lastTab = 100
	// carelessTry is where the tries of a page begin that makes another nonce for each click.
	carelessTry = 10
	// payableWithin bounds each step of the end: whoever was told to wait has come back.
	payableWithin = 30 * time.Second
)

// playShop lets a checkout happen: one tab after the other opens, and all of them pay.
func (s *stage) playShop(ctx context.Context, o *order) bool {
	backend := s.openTab(o.merchant)
	defer backend.close()
	if o.shop.shared {
		return s.playShared(ctx, o, backend)
	}
	if !s.openSession(ctx, o, backend) {
		return false
	}
	var wg sync.WaitGroup
	answered := atomic.Bool{}
	answered.Store(true)
	if o.shop.changed != "" {
		wg.Go(func() { s.changeSession(ctx, o, backend) })
	}
	if o.shop.expires {
		wg.Go(func() { s.expireSession(ctx, o) })
	}
	for n := range o.shop.tabs {
		wg.Go(func() {
			if !s.playTab(ctx, o, n) {
				answered.Store(false)
			}
		})
	}
	wg.Wait()
	o.paid = outcomeOf{} // each tab has seen to what is to be done with it
	return answered.Load()
}

// tryOf is one tab's one try, under a nonce that it has made before anything is sent.
func (s *stage) tryOf(o *order, tab, n int) *order {
	if tab == 0 && n == 0 {
		return o
	}
	try := &order{merchant: o.merchant, nonce: shopNonce(s.seed, o.id, tab, n), id: o.id, about: o.about, manner: manner{replays: 1}}
	s.scripts.mu.Lock()
	defer s.scripts.mu.Unlock()
	s.scripts.byNonce[s.merchants[o.merchant].AccountID+"/"+try.nonce] = o // what befalls the session befalls each try
	return try
}

// playTab is one shopper: hands a card in, pays, asks with the same nonce and the same token
// until the answer is one, and after a decline tries another card. Who is refused asks what
// became of the session. It reports whether the shopper knows in the end.
func (s *stage) playTab(ctx context.Context, o *order, number int) bool {
	t := s.openTab(o.merchant)
	t.backend = !o.shop.seamless || o.shop.both && number%2 == 1
	defer t.close()
	for n := 0; n < triesPerTab && ctx.Err() == nil; n++ {
		try := s.tryOf(o, number, n)
		if token := s.handIn(ctx, o, try, t, t.card(n < o.shop.declines, n)); token != "" {
			if s.payTry(ctx, o, try, t, token, number) {
				return true
			}
		}
		if s.awaitSession(ctx, o, t, number) {
			return true
		}
	}
	return ctx.Err() == nil
}

// payTry pays under one nonce and reports whether that succeeded.
func (s *stage) payTry(ctx context.Context, o, try *order, t *tab, token string, number int) bool {
	var wg sync.WaitGroup
	for n := range o.shop.clicks - 1 {
		click := try
		if o.shop.careless {
			click = s.tryOf(o, number, carelessTry+n)
		}
		wg.Go(func() { s.tryToPay(ctx, o, click, t, token, s.instances[n%len(s.instances)], 0) })
	}
	defer wg.Wait()
	for n := 0; ctx.Err() == nil; n++ {
		var patience time.Duration
		if n < len(try.manner.hangUps) {
			patience = try.manner.hangUps[n]
		}
		op, a := s.tryToPay(ctx, o, try, t, token, s.instances[(number+n)%len(s.instances)], patience)
		switch {
		case op.Told():
			try.paid = readOutcome(op.Body)
			return s.paidFor(ctx, o, try, t, token)
		case s.policy.For(op).Keeps(op):
			return s.findOut(ctx, try) && try.paid.status == string(transactions.Succeeded)
		case !unclear(a):
			return false
		}
		rest(ctx, pauseAfter(a))
	}
	return false
}

// paidFor asks once more, waits for what is pending, and says whether it succeeded.
func (s *stage) paidFor(ctx context.Context, o, try *order, t *tab, token string) bool {
	for n := range try.manner.replays {
		s.tryToPay(ctx, o, try, t, token, s.via(o, n), 0)
	}
	_, _, _ = s.look(ctx, try) // what it says is written down
	return s.awaitDecision(ctx, try) && try.paid.status == string(transactions.Succeeded)
}

// awaitSession asks what became of a session until it has no payment under way, answering
// the challenge if there is one, and says whether it is paid.
func (s *stage) awaitSession(ctx context.Context, o *order, t *tab, number int) bool {
	for n := number; ctx.Err() == nil; n++ {
		said, _, err := s.sessionSays(ctx, o, t, s.instances[n%len(s.instances)])
		switch status := transactions.Status(said.status); {
		case err != nil:
		case said.payment == "":
			return false
		case status.Terminal():
			return status == transactions.Succeeded
		case said.redirect != "":
			s.answerChallenge(ctx, &order{paid: said})
		}
		rest(ctx, browserPause)
	}
	return false
}

// playShared pays two orders with one token at the same time: a merchant's backend that has
// mixed its shoppers up. One of them can be paid; the other is then told to make a new one.
func (s *stage) playShared(ctx context.Context, o *order, t *tab) bool {
	t.backend = true
	token := s.handIn(ctx, o, o, t, t.card(false, 0))
	if token == "" {
		return false
	}
	other := &order{merchant: o.merchant, nonce: shopNonce(s.seed, o.id, 1, 0), id: o.id + "-other", about: o.about}
	s.scripts.add(s.merchants[o.merchant].AccountID, other)
	var wg sync.WaitGroup
	for n, try := range []*order{o, other} {
		wg.Go(func() { s.payTry(ctx, o, try, t, token, n) })
	}
	wg.Wait()
	o.paid = outcomeOf{}
	return ctx.Err() == nil
}

// closeShops finds out what each session came to, when nothing befalls anybody any more: one
// that was not paid can be paid now.
func (s *stage) closeShops(ctx context.Context) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, asking)
	for _, o := range s.shops.all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.closeShop(ctx, o)
		})
	}
	wg.Wait()
}

func (s *stage) closeShop(ctx context.Context, o *order) {
	t, sn := s.openTab(o.merchant), &o.shop.session
	t.backend = !sn.Seamless
	defer t.close()
	within := func(f func(ctx context.Context) bool) bool {
		ctx, cancel := context.WithTimeout(ctx, payableWithin)
		defer cancel()
		return f(ctx)
	}
	why := "nobody knows what became of its payment"
	paid := within(func(ctx context.Context) bool { return s.awaitSession(ctx, o, t, 0) })
	for n := 0; n < 2 && !paid && !sn.Expired; n++ { // the sandbox may have kept a fault for the order's first send
		paid = within(func(ctx context.Context) bool {
			try := s.tryOf(o, lastTab, n)
			token := s.handIn(ctx, o, try, t, t.card(false, 0))
			if token == "" {
				why = "no card was taken"
				return false
			}
			why = "the payment did not succeed"
			return s.payTry(ctx, o, try, t, token, 0) || s.awaitSession(ctx, o, t, 0)
		})
	}
	if !paid && !sn.Expired {
		sn.Unpaid = why
	}
	within(func(ctx context.Context) bool {
		for n := 0; ctx.Err() == nil; n++ {
			said, status, err := s.sessionSays(ctx, o, t, s.instances[n%len(s.instances)])
			if err == nil {
				sn.Payment, sn.Status = said.payment, status
				return true
			}
			rest(ctx, browserPause)
		}
		return false
	})
}

// sessions are what is known of them in the end.
func (s *stage) sessions() []record.Session {
	all := make([]record.Session, 0, len(s.shops.all))
	for _, o := range s.shops.all {
		all = append(all, o.shop.session)
	}
	return all
}

// judgeShops is what was not as openapi.yaml says. It tells what shoppers met.
func (s *stage) judgeShops() (wrong []record.Violation) {
	var changed, expired, paid, declined, refused, unclear int
	for _, o := range s.shops.all {
		if o.shop.session.Change == record.WasChanged {
			changed++
		}
		if o.shop.session.Expired {
			expired++
		}
	}
	for _, o := range s.rec.Ops() {
		switch {
		case o.Token == "":
		case o.Told() && readOutcome(o.Body).status == string(transactions.Succeeded):
			paid++
		case o.Told():
			declined++
		case o.Status == http.StatusBadRequest || o.Status == http.StatusUnauthorized:
			refused++
		default:
			unclear++
		}
	}
	s.progress("of %d sessions %d were changed and %d expired; shoppers were told %d times of a success, %d of another outcome, %d that it is taken or over, %d nothing clear",
		len(s.shops.all), changed, expired, paid, declined, refused, unclear)
	for text := range s.shops.wrong {
		wrong = append(wrong, s.violation("as-documented", "%s", text))
	}
	slices.SortFunc(wrong, func(a, b record.Violation) int { return len(a.Detail) - len(b.Detail) })
	return wrong[:min(len(wrong), sdkNotes)]
}
