package main

import (
	"context"
	"time"
)

// play lets an order happen, from its first request to its last. It reports
// whether the client got its answer.
func (s *stage) play(ctx context.Context, o *order) bool {
	s.prepare(o)
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
