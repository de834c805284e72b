// Package providertest is what every provider has to pass before the engine may
// believe its Traits. The engine decides about people's money by them, so a
// trait is tested in both directions: what a provider declares it must do, and
// what it does not declare it must not pretend.
//
// The referee is the provider's own ledger, never the adapter's answers.
//
// Not covered, because it would need the provider's clock: that references are
// recognised for as long as Traits.IdempotentFor says.
package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// patience bounds what must happen anyway, however busy the machine is.
	patience = 30 * time.Second
	// slack is what an exchange may take beyond its timeout: time to notice, on a
	// busy machine under the race detector.
	slack = 5 * time.Second
	// crowd is how many charge the same reference at once.
	crowd = 20
)

// Behaviour is what a test wants the provider to do with a charge.
type Behaviour string

// The behaviours, by what is booked and what is answered.
const (
	Approve          Behaviour = "approve"
	Decline          Behaviour = "decline"
	Refuse           Behaviour = "refuse as invalid"
	BookAndHang      Behaviour = "book and never answer"
	HangUnbooked     Behaviour = "book nothing and never answer"
	BookAndFail      Behaviour = "book and answer with an error"
	FailUnbooked     Behaviour = "book nothing and answer with an error"
	BookAndBreakOff  Behaviour = "book and break off in the middle of the answer"
	GuaranteeNothing Behaviour = "guarantee that nothing was processed"
	// Tokenise is not for Arrange: a provider whose Cannot has it must say so with
	// providers.ErrTokenise.
	Tokenise Behaviour = "turn a card into a token"
)

// Fixture is one provider, fresh and alone, for one subtest.
type Fixture struct {
	Provider providers.Provider
	// Arrange changes a charge so that the provider behaves as wanted at its first
	// send, and as it should (Approve) at every later one.
	Arrange func(t *testing.T, c *providers.Charge, want Behaviour)
	// Cannot names the behaviours that this provider cannot be made to show, each
	// with the reason, which the test run prints. It is for what a provider's
	// interface makes impossible, not for what is missing in a fixture.
	Cannot map[Behaviour]string
	// Bookings counts what the provider's own ledger holds under a reference.
	Bookings func(t *testing.T, o providers.Order) int
	// Requests counts the requests that reached the provider so far, of any kind.
	Requests func() int
	// Reopen ends the provider and starts it again with what it remembers. It may
	// return another Provider. nil if the provider's memory is not ours to end.
	Reopen func(t *testing.T) providers.Provider
	// Unreachable is a Provider like this one, at an address where nobody listens.
	Unreachable func(t *testing.T) providers.Provider
}

// Run tests a provider. open is called once for each subtest and cleans up with
// t.Cleanup. Traits.Timeout should be short: some subtests wait for it.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"DeclaresSensibleTraits", traits},
		{"ApprovedIsBookedOnceAndCanBeInquired", approved},
		{"UnknownReferenceIsNotFound", unknown},
		{"SameReferenceTwice", twice},
		{"SameReferenceWithAnotherAmount", otherAmount},
		{"SameReferenceFromACrowd", together},
		{"DeclineIsFinalAndCanBeInquired", declined},
		{"RefusedHadNoEffect", refused},
		{"GuaranteedNothingHadNoEffect", guaranteed},
		{"BookedButNeverAnswered", bookedHang},
		{"NeverAnsweredAndNotBooked", unbookedHang},
		{"BookedButAnsweredWithAnError", bookedError},
		{"AnsweredWithAnErrorAndNotBooked", unbookedError},
		{"BookedAndBrokenOff", brokenOff},
		{"VoidBeforeTheCharge", voidBefore},
		{"VoidAfterTheCharge", voidAfter},
		{"VoidAfterADecline", voidDeclined},
		{"VoidRacesTheCharge", voidRace},
		{"MaySendFalseSendsNothing", mayNot},
		{"MaySendIsAskedOnce", mayOnce},
		{"NobodyListens", unreachable},
		{"ContextEndedBefore", endedBefore},
		{"ContextEndsMeanwhile", endsMeanwhile},
		{"TokensDoNotShowTheCard", tokens},
		{"RemembersAfterARestart", restart},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t)
			s := &suite{T: t, f: f, p: f.Provider, traits: f.Provider.Traits()}
			c.test(s)
		})
	}
}

// suite is one subtest.
type suite struct {
	*testing.T
	f      Fixture
	p      providers.Provider
	traits providers.Traits
	n      int
}

// The card of every charge: a number that no provider's test cards use, and
// canaries that must never be seen again.
const (
	canaryNumber = "4929000000006662"
	canaryCode   = "736"
	canaryHolder = "Canary Holder"
)

// charge makes a new charge, to be met with a behaviour. It is nil if the
// fixture says why that cannot be shown.
func (s *suite) charge(want Behaviour) *providers.Charge {
	s.Helper()
	s.n++
	id := fmt.Sprintf("%s-%d-%d", strings.ReplaceAll(s.Name(), "/", "-"), time.Now().UnixNano(), s.n)
	if len(id) > 60 {
		id = id[len(id)-60:]
	}
	c := &providers.Charge{
		Order: providers.Order{Reference: id, AccountID: "0199c0de-0000-7000-8000-000000000001", Mode: "test",
			MerchantOrderID: "order-" + id},
		Amount: decimal.RequireFromString("45.67"), Currency: "USD", Country: "US", Description: "conformance", Capture: true,
		Card: providers.Card{Number: canaryNumber, SecurityCode: canaryCode, HolderName: canaryHolder,
			ExpirationMonth: 11, ExpirationYear: 2028},
	}
	if reason, cannot := s.f.Cannot[want]; cannot {
		s.Logf("%s cannot be made to %s: %s", s.p.Name(), want, reason)
		return nil
	}
	s.f.Arrange(s.T, c, want)
	return c
}

// canaries matches any part of the card that may not be seen: more of its number
// than the contract lets us keep, the security code as a word, the holder.
var canaries = regexp.MustCompile(canaryNumber[:9] + `|\b` + canaryCode + `\b|` + canaryHolder)

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), patience)
	s.Cleanup(cancel)
	return ctx
}

func yes() bool { return true }

func (s *suite) send(c *providers.Charge) providers.Result {
	return s.checked(s.p.Charge(s.ctx(), *c, yes))
}

func (s *suite) inquire(c *providers.Charge) providers.Result {
	return s.checked(s.p.Inquire(s.ctx(), c.Order))
}

func (s *suite) void(c *providers.Charge) providers.Result {
	return s.checked(s.p.Void(s.ctx(), c.Order, yes))
}

// checked passes a result on after looking for the card in it, and for claims
// that do not go together.
func (s *suite) checked(r providers.Result) providers.Result {
	s.Helper()
	s.noCard(r)
	switch r.Outcome {
	case providers.Approved:
		if class, known := providers.ClassOf(r.ResponseCode); !known || class != providers.ClassSucceeded {
			s.Errorf("approved with the response code %q", r.ResponseCode)
		}
		if r.ProviderReference == "" {
			s.Error("approved without the provider's reference")
		}
	case providers.Declined:
		if class, known := providers.ClassOf(r.ResponseCode); !known || class == providers.ClassSucceeded {
			s.Errorf("declined with the response code %q", r.ResponseCode)
		}
	case providers.Pending, providers.Refused, providers.NotReached, providers.Unclear, providers.NotFound, providers.Voided:
	default:
		s.Errorf("the outcome %q is not in the closed set", r.Outcome)
	}
	if r.TimedOut && r.Outcome != providers.Unclear {
		s.Errorf("%s, and timed out: only what is unclear can be", r.Outcome)
	}
	return r
}

// noCard fails if anything in v, printed in any usual way, shows the card.
func (s *suite) noCard(v any) {
	s.Helper()
	j, _ := json.Marshal(v) // an error value may not encode; the others show it
	shown := fmt.Sprintf("%v %+v %#v %s", v, v, v, j)
	if canaries.MatchString(shown) {
		s.Errorf("the card shows in a %T", v) // and not here again
	}
}

func (s *suite) want(what string, r providers.Result, outcomes ...providers.Outcome) {
	s.Helper()
	for _, o := range outcomes {
		if r.Outcome == o {
			return
		}
	}
	s.Errorf("%s is %s (%s), want %v", what, r.Outcome, r.Detail, outcomes)
}

func (s *suite) wantBookings(c *providers.Charge, want int) {
	s.Helper()
	if got := s.f.Bookings(s.T, c.Order); got != want {
		s.Errorf("the provider booked %d, want %d", got, want)
	}
}

// wantInquiry asks about a charge. A provider that cannot be asked must say that
// it does not know, and ask nobody.
func (s *suite) wantInquiry(c *providers.Charge, outcomes ...providers.Outcome) providers.Result {
	s.Helper()
	before := s.f.Requests()
	r := s.inquire(c)
	if s.traits.Queryable {
		s.want("the inquiry", r, outcomes...)
		return r
	}
	s.want("an inquiry of a provider that is not Queryable", r, providers.Unclear)
	if after := s.f.Requests(); after != before {
		s.Errorf("it made %d requests all the same", after-before)
	}
	return r
}

func traits(s *suite) {
	if s.traits.Timeout <= 0 || s.traits.Settle < 0 || s.traits.IdempotentFor < 0 {
		s.Errorf("impossible durations in %+v", s.traits)
	}
	if s.traits.IdempotentFor > 0 && !s.traits.Idempotent {
		s.Error("IdempotentFor without Idempotent")
	}
	if s.p.Name() == "" {
		s.Error("no name")
	}
}

func approved(s *suite) {
	for _, capture := range []bool{true, false} {
		c := s.charge(Approve)
		c.Capture = capture
		first := s.send(c)
		s.want("the charge", first, providers.Approved)
		s.wantBookings(c, 1)
		again := s.wantInquiry(c, providers.Approved)
		if s.traits.Queryable && !same(again, first) {
			s.Errorf("the inquiry says %+v, the charge said %+v", again, first)
		}
		s.wantBookings(c, 1)
	}
}

// same says whether two results tell of the same booking.
func same(a, b providers.Result) bool {
	return a.Outcome == b.Outcome && a.ProviderReference == b.ProviderReference &&
		a.ResponseCode == b.ResponseCode && a.AuthorizationCode == b.AuthorizationCode
}

func unknown(s *suite) {
	c := s.charge(Approve)
	s.wantInquiry(c, providers.NotFound)
	s.want("a charge after an inquiry", s.send(c), providers.Approved)
	s.wantBookings(c, 1)
}

func twice(s *suite) {
	c := s.charge(Approve)
	first, second := s.send(c), s.send(c)
	s.want("the first charge", first, providers.Approved)
	s.recognised(c, first, second)
}

// recognised judges a second send with a reference that is booked. A provider
// that does not recognise it books again, or says no; whichever it is, it has to
// be what its ledger says.
func (s *suite) recognised(c *providers.Charge, first, second providers.Result) {
	s.Helper()
	if s.traits.Idempotent {
		s.wantBookings(c, 1)
		if !same(first, second) {
			s.Errorf("the second send says %+v, the first one %+v", second, first)
		}
		return
	}
	want := 1
	if second.Outcome == providers.Approved {
		want = 2
		if second.ProviderReference == first.ProviderReference {
			s.Error("recognises references, and does not declare it")
		}
	}
	s.wantBookings(c, want)
}

func otherAmount(s *suite) {
	c := s.charge(Approve)
	first := s.send(c)
	other := *c
	other.Amount, other.Currency = decimal.RequireFromString("99.01"), "EUR"
	second := s.send(&other)
	if s.traits.Idempotent && second.Outcome != providers.Approved {
		// A provider may object to the other body, as long as it books nothing.
		s.want("another amount under a known reference", second, providers.Refused, providers.Unclear)
		s.wantBookings(c, 1)
		return
	}
	s.recognised(c, first, second)
}

func together(s *suite) {
	c := s.charge(Approve)
	results := make([]providers.Result, crowd)
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() { results[i] = s.send(c) })
	}
	wg.Wait()
	booked := map[string]bool{}
	for _, r := range results {
		switch {
		case r.Outcome == providers.Approved:
			booked[r.ProviderReference] = true
		case s.traits.Idempotent: // "in process" is an answer too, and tells nothing
			s.want("one of the crowd", r, providers.Approved, providers.Unclear)
		}
	}
	want := len(booked)
	if s.traits.Idempotent {
		want = 1
	}
	if len(booked) != want || want == 0 {
		s.Errorf("%d different bookings were reported, want %d", len(booked), want)
	}
	s.wantBookings(c, want)
}

func declined(s *suite) {
	c := s.charge(Decline)
	if c == nil {
		return
	}
	first := s.send(c)
	s.want("the charge", first, providers.Declined)
	s.wantBookings(c, 0)
	s.wantInquiry(c, providers.Declined)
	if !s.traits.Idempotent {
		return // a second send is another attempt there, and may well succeed
	}
	if second := s.send(c); !same(first, second) {
		s.Errorf("the second send says %+v, the first one %+v", second, first)
	}
	s.wantBookings(c, 0)
}

func refused(s *suite) {
	c := s.charge(Refuse)
	if c == nil {
		return
	}
	s.want("the charge", s.send(c), providers.Refused)
	s.wantBookings(c, 0)
	s.wantInquiry(c, providers.NotFound)
	corrected := *c
	corrected.Reference += "x"
	s.want("the corrected charge", s.send(&corrected), providers.Approved)
	s.wantBookings(c, 0)
}

func guaranteed(s *suite) {
	c := s.charge(GuaranteeNothing)
	if c == nil {
		return
	}
	s.want("the charge", s.send(c), providers.NotReached)
	s.wantBookings(c, 0)
	s.wantInquiry(c, providers.NotFound)
	s.want("a second send", s.send(c), providers.Approved)
	s.wantBookings(c, 1)
}

// late judges a charge that gets no answer.
func (s *suite) late(c *providers.Charge) {
	s.Helper()
	start := time.Now()
	r := s.send(c)
	took := time.Since(start)
	s.want("the charge", r, providers.Unclear)
	if !r.TimedOut {
		s.Error("not marked as timed out")
	}
	if took > s.traits.Timeout+slack {
		s.Errorf("took %s with a timeout of %s", took, s.traits.Timeout)
	}
}

// settled judges what comes after an unclear charge that was booked.
func (s *suite) settled(c *providers.Charge) {
	s.Helper()
	s.wantBookings(c, 1)
	first := s.wantInquiry(c, providers.Approved)
	if !s.traits.Idempotent {
		return // whoever resends there charges twice, so nobody does
	}
	second := s.send(c)
	s.want("a second send", second, providers.Approved)
	if s.traits.Queryable && !same(first, second) {
		s.Errorf("the second send says %+v, the inquiry %+v", second, first)
	}
	s.wantBookings(c, 1)
}

// open judges what comes after an unclear charge that was not booked.
func (s *suite) open(c *providers.Charge) {
	s.Helper()
	s.wantBookings(c, 0)
	s.wantInquiry(c, providers.NotFound)
	s.want("a second send", s.send(c), providers.Approved)
	s.wantBookings(c, 1)
}

func bookedHang(s *suite) {
	if c := s.charge(BookAndHang); c != nil {
		s.late(c)
		s.settled(c)
	}
}

func unbookedHang(s *suite) {
	if c := s.charge(HangUnbooked); c != nil {
		s.late(c)
		s.open(c)
	}
}

func bookedError(s *suite) {
	if c := s.charge(BookAndFail); c != nil {
		s.want("the charge", s.send(c), providers.Unclear)
		s.settled(c)
	}
}

func unbookedError(s *suite) {
	if c := s.charge(FailUnbooked); c != nil {
		s.want("the charge", s.send(c), providers.Unclear)
		s.open(c)
	}
}

func brokenOff(s *suite) {
	if c := s.charge(BookAndBreakOff); c != nil {
		r := s.send(c)
		s.want("the charge", r, providers.Unclear)
		if r.TimedOut {
			s.Error("a broken connection is no timeout")
		}
		s.settled(c)
	}
}

// cannotVoid judges a Void of a provider that has none: it must say that it does
// not know, ask nobody, and leave the reference alone.
func (s *suite) cannotVoid(c *providers.Charge) {
	s.Helper()
	before := s.f.Requests()
	s.want("a void of a provider that has none", s.void(c), providers.Unclear)
	if after := s.f.Requests(); after != before {
		s.Errorf("it made %d requests all the same", after-before)
	}
}

func voidBefore(s *suite) {
	c := s.charge(Approve)
	if !s.traits.CanVoid {
		s.cannotVoid(c)
		s.want("a charge after it", s.send(c), providers.Approved)
		s.wantBookings(c, 1)
		return
	}
	s.want("the void", s.void(c), providers.Voided)
	s.want("a second void", s.void(c), providers.Voided)
	for range 2 {
		s.want("a charge of a voided reference", s.send(c), providers.Declined, providers.Refused)
	}
	s.wantBookings(c, 0)
	s.wantInquiry(c, providers.NotFound, providers.Declined)
	other := *c
	other.Reference += "x"
	s.want("a charge with another reference", s.send(&other), providers.Approved)
}

func voidAfter(s *suite) {
	c := s.charge(Approve)
	first := s.send(c)
	if !s.traits.CanVoid {
		s.cannotVoid(c)
	} else if r := s.void(c); !same(r, first) {
		s.Errorf("the void says %+v, the charge said %+v", r, first)
	}
	s.wantBookings(c, 1)
	s.wantInquiry(c, providers.Approved)
}

func voidDeclined(s *suite) {
	c := s.charge(Decline)
	if c == nil {
		return
	}
	s.want("the charge", s.send(c), providers.Declined)
	if !s.traits.CanVoid {
		s.cannotVoid(c)
		return
	}
	s.want("the void", s.void(c), providers.Declined)
	s.wantBookings(c, 0)
}

// However a void and a charge meet, they must not both win, nor both lose.
func voidRace(s *suite) {
	if !s.traits.CanVoid {
		s.cannotVoid(s.charge(Approve))
		return
	}
	for range crowd {
		c := s.charge(Approve)
		var charge, void providers.Result
		var wg sync.WaitGroup
		wg.Go(func() { charge = s.send(c) })
		wg.Go(func() { void = s.void(c) })
		wg.Wait()
		switch void.Outcome {
		case providers.Voided:
			s.want("a charge that came after its void", charge, providers.Declined, providers.Refused)
			s.wantBookings(c, 0)
		case providers.Approved:
			s.want("a charge that came before its void", charge, providers.Approved)
			s.wantBookings(c, 1)
		default:
			s.want("the void", void, providers.Voided, providers.Approved)
		}
	}
}

func mayNot(s *suite) {
	no := func() bool { return false }
	c := s.charge(Approve)
	before := s.f.Requests()
	s.want("the charge", s.checked(s.p.Charge(s.ctx(), *c, no)), providers.NotReached)
	if s.traits.CanVoid {
		s.want("the void", s.checked(s.p.Void(s.ctx(), c.Order, no)), providers.NotReached)
	}
	if after := s.f.Requests(); after != before {
		s.Errorf("%d requests reached the provider", after-before)
	}
	s.wantBookings(c, 0)
	s.want("a charge in time", s.send(c), providers.Approved)
}

func mayOnce(s *suite) {
	c := s.charge(Approve)
	asked, before := 0, s.f.Requests()
	may := func() bool {
		asked++
		if s.f.Requests() != before {
			s.Error("asked after the request had reached the provider")
		}
		return true
	}
	s.want("the charge", s.checked(s.p.Charge(s.ctx(), *c, may)), providers.Approved)
	if asked != 1 {
		s.Errorf("MaySend was asked %d times for one send", asked)
	}
}

func unreachable(s *suite) {
	if s.f.Unreachable == nil {
		s.Fatal("the fixture has no Unreachable")
	}
	c := s.charge(Approve)
	p := s.f.Unreachable(s.T)
	s.want("the charge", s.checked(p.Charge(s.ctx(), *c, yes)), providers.NotReached)
	s.want("an inquiry", s.checked(p.Inquire(s.ctx(), c.Order)), providers.Unclear)
	s.want("a void", s.checked(p.Void(s.ctx(), c.Order, yes)), providers.Unclear)
	_, err := p.Tokenise(s.ctx(), c.Card)
	s.wantErrTokenise(err)
}

func endedBefore(s *suite) {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	c := s.charge(Approve)
	before := s.f.Requests()
	s.want("the charge", s.checked(s.p.Charge(ctx, *c, yes)), providers.NotReached)
	s.want("an inquiry", s.checked(s.p.Inquire(ctx, c.Order)), providers.Unclear)
	if after := s.f.Requests(); after != before {
		s.Errorf("%d requests reached the provider", after-before)
	}
	s.wantBookings(c, 0)
}

func endsMeanwhile(s *suite) {
	c := s.charge(BookAndHang)
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	done := make(chan providers.Result, 1)
	go func() { done <- s.p.Charge(ctx, *c, yes) }()
	for s.f.Bookings(s.T, c.Order) == 0 && ctx.Err() == nil {
		runtime.Gosched()
	}
	cancel()
	r := s.checked(<-done)
	s.want("the charge", r, providers.Unclear)
	if !r.TimedOut {
		s.Error("not marked as timed out")
	}
	s.settled(c)
}

func tokens(s *suite) {
	c := s.charge(Approve)
	token, err := s.p.Tokenise(s.ctx(), c.Card)
	s.noCard(token)
	if reason, cannot := s.f.Cannot[Tokenise]; cannot {
		s.Logf("%s cannot tokenise: %s", s.p.Name(), reason)
		if !errors.Is(err, providers.ErrTokenise) || token.Value != "" {
			s.Errorf("it answered %v, want ErrTokenise and no token", err)
		}
		return
	}
	if err != nil || token.Value == "" {
		s.Fatalf("no token: %v", err)
	}
	bad := c.Card
	bad.Number = canaryNumber + "12345678" // longer than any card
	_, err = s.p.Tokenise(s.ctx(), bad)
	s.wantErrTokenise(err)
}

func (s *suite) wantErrTokenise(err error) {
	s.Helper()
	s.noCard(err)
	if !errors.Is(err, providers.ErrTokenise) {
		s.Errorf("got %v, want ErrTokenise", err)
	}
}

func restart(s *suite) {
	if s.f.Reopen == nil {
		s.Logf("%s remembers by itself: nothing to restart", s.p.Name())
		return
	}
	booked, lost, no, gone := s.charge(Approve), s.charge(BookAndFail), s.charge(Decline), s.charge(Approve)
	first := s.send(booked)
	for _, c := range []*providers.Charge{lost, no} {
		if c != nil {
			s.send(c)
		}
	}
	if s.traits.CanVoid {
		s.want("the void", s.void(gone), providers.Voided)
	}
	s.p = s.f.Reopen(s.T)

	s.wantBookings(booked, 1)
	if r := s.wantInquiry(booked, providers.Approved); s.traits.Queryable && !same(r, first) {
		s.Errorf("now it says %+v, before it said %+v", r, first)
	}
	if lost != nil {
		s.settled(lost)
	}
	if no != nil {
		s.wantInquiry(no, providers.Declined)
		s.wantBookings(no, 0)
	}
	if s.traits.CanVoid {
		s.want("a charge of a voided reference", s.send(gone), providers.Declined, providers.Refused)
		s.wantBookings(gone, 0)
	}
	if s.traits.Idempotent {
		if r := s.send(booked); !same(r, first) {
			s.Errorf("a second send says %+v, the first one said %+v", r, first)
		}
		s.wantBookings(booked, 1)
	}
}
