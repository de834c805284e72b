package providertest

import (
	"fmt"
	"sync"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
)

// verification: a look at a card is no booking, whatever it comes to.
func verification(s *suite) {
	for want, outcome := range map[Behaviour]providers.Outcome{Approve: providers.Approved, Decline: providers.Declined} {
		if s.cannot(want) {
			continue
		}
		c := s.charge(want)
		c.Verify, c.Amount = true, decimal.Zero
		q := &request{charge: c}
		first := s.send(q)
		s.want("the verification", first, outcome)
		if again := s.wantInquiry(q, outcome); s.traits.Queryable && !same(again, first) {
			s.Errorf("the inquiry says %+v, the verification said %+v", again, first)
		}
		s.wantBookings(q, 0)
	}
}

// atOnce sends requests at once, and counts what the provider's ledger holds of them.
func (s *suite) atOnce(requests []*request) (booked int) {
	s.Helper()
	results := make([]providers.Result, len(requests))
	var wg sync.WaitGroup
	for i, q := range requests {
		wg.Go(func() { results[i] = s.send(q) })
	}
	wg.Wait()
	for i, q := range requests {
		n := s.f.Bookings(s.T, q.order())
		booked += n
		want := providers.Declined
		if n > 0 {
			want = providers.Approved
		}
		s.want(fmt.Sprintf("one that was booked %d times", n), results[i], want)
	}
	return booked
}

// exceed: the provider is the last who could notice that more is given back than was
// taken, so it has to.
func exceed(s *suite) {
	for _, kind := range []providers.OperationKind{providers.Capture, providers.Refund, providers.Cancel} {
		target := s.target(kind)
		crowded := make([]*request, crowd)
		for i := range crowded {
			crowded[i] = &request{operation: s.operation(kind, target, Approve)}
		}
		want := int(wholeAmount.Div(partAmount).IntPart())
		if kind == providers.Cancel {
			want = 1
		}
		if got := s.atOnce(crowded); got != want {
			s.Errorf("%d of %d at once are booked (%s), there was room for %d", got, crowd, kind, want)
		}
		if kind == providers.Cancel {
			continue
		}
		rest := s.operation(kind, target, Approve)
		rest.Amount = wholeAmount.Sub(partAmount.Mul(decimal.NewFromInt(int64(want))))
		more := *rest
		more.Reference, more.Amount = more.Reference+"m", rest.Amount.Add(decimal.RequireFromString("0.01"))
		s.want("a cent more than is left", s.send(&request{operation: &more}), providers.Declined)
		s.want("what is left", s.send(&request{operation: rest}), providers.Approved)
	}
}

func captureOrCancel(s *suite) {
	for range crowd {
		target := s.target(providers.Capture)
		capture, cancel := s.operation(providers.Capture, target, Approve), s.operation(providers.Cancel, target, Approve)
		if got := s.atOnce([]*request{{operation: capture}, {operation: cancel}}); got != 1 {
			s.Errorf("%d of a capture and a cancel at once are booked", got)
		}
	}
	for first, second := range map[providers.OperationKind]providers.OperationKind{
		providers.Capture: providers.Cancel, providers.Cancel: providers.Capture,
	} {
		target := s.target(first)
		s.want("a "+string(first), s.send(&request{operation: s.operation(first, target, Approve)}), providers.Approved)
		q := &request{operation: s.operation(second, target, Approve)}
		s.want("a "+string(second)+" after it", s.send(q), providers.Declined)
		s.wantBookings(q, 0)
	}
}

// targets: an operation on something that does not allow it is a final no.
func targets(s *suite) {
	authorized, purchased := s.target(providers.Capture), s.target(providers.Refund)
	missing := authorized
	missing.Reference += "x"
	for _, c := range []struct {
		kind   providers.OperationKind
		target providers.Order
	}{
		{providers.Capture, missing}, {providers.Cancel, missing}, {providers.Refund, missing},
		{providers.Capture, purchased}, {providers.Cancel, purchased}, {providers.Refund, authorized},
	} {
		q := &request{operation: s.operation(c.kind, c.target, Approve)}
		s.want("a "+string(c.kind)+" of something else", s.send(q), providers.Declined)
		s.wantBookings(q, 0)
	}
	q := &request{operation: s.operation(providers.Refund, purchased, Approve)}
	q.operation.Currency = "EUR"
	s.want("a refund in another currency", s.send(q), providers.Declined)
	s.wantBookings(q, 0)
}

// kinds: whoever recognises a reference must not take a refund for the charge that had
// it before, and answer that it is done.
func kinds(s *suite) {
	if !s.traits.Idempotent {
		return // there a reference means nothing
	}
	purchased := s.target(providers.Refund)
	o := s.operation(providers.Refund, purchased, Approve)
	o.Reference = purchased.Reference
	q := &request{operation: o}
	s.want("a refund under its charge's reference", s.send(q), providers.Refused, providers.Declined, providers.Unclear)
	s.wantBookings(q, 1)
	c := s.charge(Approve)
	o = s.operation(providers.Refund, purchased, Approve)
	s.want("the refund", s.send(&request{operation: o}), providers.Approved)
	c.Reference = o.Reference
	q = &request{charge: c}
	s.want("a charge under a refund's reference", s.send(q), providers.Refused, providers.Declined, providers.Unclear)
	s.wantBookings(q, 1)
}

// pending: what is accepted is not booked, and says so until it is decided.
func pending(s *suite) {
	for want, outcome := range map[Behaviour]providers.Outcome{PendThenApprove: providers.Approved, PendThenDecline: providers.Declined} {
		q := s.request(want)
		if q == nil {
			continue
		}
		s.want("the send", s.send(q), providers.Pending)
		s.wantInquiry(q, providers.Pending)
		if s.traits.Idempotent {
			s.want("a second send", s.send(q), providers.Pending)
		}
		s.wantBookings(q, 0)
		s.f.Decide(s.T)
		booked := 0
		if outcome == providers.Approved {
			booked = 1
		}
		s.wantBookings(q, booked)
		told := s.wantInquiry(q, outcome)
		if s.traits.Idempotent {
			if r := s.send(q); s.traits.Queryable && !same(r, told) {
				s.Errorf("a send afterwards says %+v, the inquiry %+v", r, told)
			}
		}
		s.f.Decide(s.T)
		s.wantBookings(q, booked)
	}
}

func voidPending(s *suite) {
	q := s.request(PendThenApprove)
	if q == nil {
		return
	}
	s.want("the send", s.send(q), providers.Pending)
	if !s.traits.CanVoid {
		s.cannotVoid(q)
		s.f.Decide(s.T)
		s.wantBookings(q, 1)
		return
	}
	s.want("the void", s.void(q), providers.Voided)
	s.f.Decide(s.T)
	s.wantBookings(q, 0)
	s.wantInquiry(q, providers.NotFound, providers.Declined)
	s.want("a send of a voided reference", s.send(q), providers.Declined, providers.Refused)
	s.wantBookings(q, 0)
	if s.kind != "" { // what it had reserved is free again
		s.want("the same under another reference", s.send(q.renamed("x")), providers.Approved)
	}
}

// reserve: what is pending may still come true, so nobody else gets its room.
func reserve(s *suite) {
	if s.cannot(PendThenApprove) {
		return
	}
	for _, kind := range []providers.OperationKind{providers.Capture, providers.Refund, providers.Cancel} {
		target := s.target(kind)
		first, second := s.operation(kind, target, PendThenApprove), s.operation(kind, target, Approve)
		if kind != providers.Cancel {
			first.Amount = wholeAmount
		}
		s.want("a pending "+string(kind), s.send(&request{operation: first}), providers.Pending)
		s.want("one more meanwhile", s.send(&request{operation: second}), providers.Declined)
		s.f.Decide(s.T)
		s.wantBookings(&request{operation: first}, 1)
		s.wantBookings(&request{operation: second}, 0)
	}
}
