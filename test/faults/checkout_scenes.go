package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
	"github.com/oncepay/oncepay/test/faults/record"
)

// The scenes of checkouts: two who want the same session, or the same token, have both
// looked, and both found it free.

// checkoutScene is a scene in which shoppers pay; its lead is an order of its own.
func checkoutScene(name string, sh func() *shop, play func(ctx context.Context, a *act, o *order, t *tab) error) scene {
	return scene{name, "", func(ctx context.Context, a *act) error {
		o := &order{
			merchant: a.o.merchant, id: a.o.id + "-shop", nonce: shopNonce(a.seed, a.o.id+"-shop", 0, 0), about: name, shop: sh(), manner: manner{replays: 1},
		}
		a.scripts.add(a.merchants[o.merchant].AccountID, o)
		t := a.openTab(o.merchant)
		defer t.close()
		if !o.shop.shared && !a.openSession(ctx, o, t) {
			return errors.New("no session was made")
		}
		err := play(ctx, a, o, t)
		a.wg.Wait()
		return err
	}}
}

func seamless() *shop { return &shop{seamless: true, changed: changedAmount} }

// The scenes that mutants are hunted in.
var (
	twoTabsAtOnce  = checkoutScene("two tabs at once", seamless, playTwoTabs)
	unclearThenNew = checkoutScene("another tab while nobody knows", seamless, playUnclearThenNew)
	nobodyThenNew  = checkoutScene("another try after nobody was reached", seamless, playNobodyThenNew)
	changedAtBegin = checkoutScene("an amount that is changed as it is paid", seamless, playChangedAtBegin)
	oneTokenForTwo = checkoutScene("one token for two orders", func() *shop { return &shop{shared: true} }, playTokenForTwo)
)

// tries hands a card in for a try of its own, and returns what pays with it.
func (a *act) tries(ctx context.Context, o *order, t *tab, n int) (try *order, pays func(via *instance) record.Op, err error) {
	try = a.tryOf(o, 0, n)
	token := a.handIn(ctx, o, try, t, t.card(false, 0))
	if token == "" {
		return nil, nil, errors.New("no card was taken")
	}
	return try, func(via *instance) record.Op {
		op, _ := a.tryToPay(ctx, o, try, t, token, via, 0)
		return op
	}, nil
}

// atOnce lets several come to the point together, each on an instance of its own, and then
// go on.
func (a *act) atOnce(ctx context.Context, p faultpoint.Point, tries []*order, pays []func(*instance) record.Op) error {
	var held []*trap
	for n, try := range tries {
		held = append(held, a.holdAt(try, p))
		a.wg.Go(func() { pays[n](a.instances[n%len(a.instances)]) })
	}
	for _, t := range held {
		if err := a.await(ctx, t); err != nil {
			return err
		}
	}
	for _, t := range held {
		t.release()
	}
	a.wg.Wait()
	return nil
}

// playTwoTabs: two tabs, with a nonce and a card each, have found the session free.
func playTwoTabs(ctx context.Context, a *act, o *order, t *tab) error {
	one, payOne, err := a.tries(ctx, o, t, 0)
	if err != nil {
		return err
	}
	other, payOther, err := a.tries(ctx, o, t, 1)
	if err != nil {
		return err
	}
	return a.atOnce(ctx, faultpoint.BeginBefore, []*order{one, other}, []func(*instance) record.Op{payOne, payOther})
}

// playUnclearThenNew: the first charge is booked and its answer lost; the shopper opens
// another tab, whose card was handed in before.
func playUnclearThenNew(ctx context.Context, a *act, o *order, t *tab) error {
	one, payOne, err := a.tries(ctx, o, t, 0)
	if err != nil {
		return err
	}
	_, payOther, err := a.tries(ctx, o, t, 1)
	if err != nil {
		return err
	}
	for range a.instances {
		a.holdAt(one, faultpoint.RecoverBefore)
	}
	a.scripts.mu.Lock()
	o.charges = append(o.charges, fault(pspproxy.TimeoutAfter))
	a.scripts.mu.Unlock()
	if op := payOne(a.a); op.Status < http.StatusInternalServerError {
		return fmt.Errorf("answered %d", op.Status)
	}
	payOther(a.b)
	return nil
}

// playNobodyThenNew: the provider's door is shut. That is no reason to keep the session.
func playNobodyThenNew(ctx context.Context, a *act, o *order, t *tab) error {
	one, pay, err := a.tries(ctx, o, t, 0)
	if err != nil {
		return err
	}
	for _, p := range a.refused(1) {
		a.ctl.at(one.nonce, p.at, p.step)
	}
	if op := pay(a.a); op.Status != http.StatusServiceUnavailable {
		return fmt.Errorf("answered %d", op.Status)
	}
	a.open(a.a)
	return nil
}

// playChangedAtBegin: the backend is told that the amount is another one, when a payment has
// read the session and not yet begun.
func playChangedAtBegin(ctx context.Context, a *act, o *order, t *tab) error {
	one, pay, err := a.tries(ctx, o, t, 0)
	if err != nil {
		return err
	}
	held := a.holdAt(one, faultpoint.BeginBefore)
	a.wg.Go(func() { pay(a.a) })
	if err := a.await(ctx, held); err != nil {
		return err
	}
	a.changeSession(ctx, o, t)
	held.release()
	if o.shop.session.Change != record.WasChanged {
		return errors.New("the session was not changed")
	}
	return nil
}

// playTokenForTwo: two orders come with the same token, and have both found it unused.
func playTokenForTwo(ctx context.Context, a *act, o *order, t *tab) error {
	t.backend = true
	token := a.handIn(ctx, o, o, t, t.card(false, 0))
	if token == "" {
		return errors.New("no card was taken")
	}
	other := &order{merchant: o.merchant, nonce: shopNonce(a.seed, o.id, 1, 0), id: o.id + "-other", about: o.about}
	a.scripts.add(a.merchants[o.merchant].AccountID, other)
	var pays []func(*instance) record.Op
	for _, try := range []*order{o, other} {
		pays = append(pays, func(via *instance) record.Op {
			op, _ := a.tryToPay(ctx, o, try, t, token, via, 0)
			return op
		})
	}
	return a.atOnce(ctx, faultpoint.BeginBefore, []*order{o, other}, pays)
}
