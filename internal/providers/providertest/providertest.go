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
	"net/http"
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
	// PendThenApprove and PendThenDecline end when the fixture's Decide is called, and
	// not before.
	PendThenApprove Behaviour = "accept now and book later"
	PendThenDecline Behaviour = "accept now and decline later"
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
	// ArrangeOperation does the same for an operation.
	ArrangeOperation func(t *testing.T, o *providers.Operation, want Behaviour)
	// Decide makes the provider decide all that is pending. It returns when that is so.
	Decide func(t *testing.T)
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
	// Callbacks are the messages that a provider which is a providers.Notifier has sent
	// so far, and WithSecret is one like it with another secret. nil for other providers.
	Callbacks  func(t *testing.T) []Message
	WithSecret func(t *testing.T, secret []byte) providers.Notifier
}

// Message is a callback as it came.
type Message struct {
	Header http.Header
	Body   []byte
}

// part is one test of the suite.
type part struct {
	name string
	test func(*suite)
}

// Run tests a provider. open is called once for each subtest and cleans up with
// t.Cleanup. Traits.Timeout should be short: some subtests wait for it.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	run := func(t *testing.T, parts []part, kind providers.OperationKind) {
		t.Helper()
		for _, c := range parts {
			t.Run(c.name, func(t *testing.T) {
				f := open(t)
				s := &suite{T: t, f: f, p: f.Provider, traits: f.Provider.Traits(), kind: kind}
				c.test(s)
			})
		}
	}
	run(t, whole, "")
	run(t, sends, "")
	for _, kind := range []providers.OperationKind{providers.Capture, providers.Cancel, providers.Refund} {
		t.Run("Of"+string(kind), func(t *testing.T) { run(t, sends, kind) })
	}
}

// whole are the tests of a provider as a whole.
var whole = []part{
	{"DeclaresSensibleTraits", traits},
	{"TokensDoNotShowTheCard", tokens},
	{"TokensAreChargedAsTheirCardsAre", chargedTokens},
	{"AVerificationBooksNothing", verification},
	{"OperationsNeverExceedTheirTarget", exceed},
	{"ACaptureAndACancelNeverBothWin", captureOrCancel},
	{"AnOperationNeedsItsTarget", targets},
	{"AReferenceIsForOneKind", kinds},
	{"PendingOperationsReserve", reserve},
	{"CallbacksTellWhatTheInquiryTells", callbacks},
	{"TheListIsCompleteAndInOrder", list},
}

// sends are the tests of whatever is sent: each is made for charges, and for every
// kind of operation.
var sends = []part{
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
	{"PendingIsDecidedOnce", pending},
	{"VoidBeforeTheSend", voidBefore},
	{"VoidAfterTheSend", voidAfter},
	{"VoidAfterADecline", voidDeclined},
	{"VoidOfWhatIsPending", voidPending},
	{"VoidRacesTheSend", voidRace},
	{"MaySendFalseSendsNothing", mayNot},
	{"MaySendIsAskedOnce", mayOnce},
	{"NobodyListens", unreachable},
	{"ContextEndedBefore", endedBefore},
	{"ContextEndsMeanwhile", endsMeanwhile},
	{"RemembersAfterARestart", restart},
}

// suite is one subtest.
type suite struct {
	*testing.T
	f      Fixture
	p      providers.Provider
	traits providers.Traits
	kind   providers.OperationKind // of what is sent; "" for charges
	n      int
}

// request is a charge or an operation.
type request struct {
	charge    *providers.Charge
	operation *providers.Operation
}

func (q *request) order() providers.Order {
	if q.charge != nil {
		return q.charge.Order
	}
	return q.operation.Order
}

// to sends the request.
func (q *request) to(ctx context.Context, p providers.Provider, may providers.MaySend) providers.Result {
	if q.charge != nil {
		return p.Charge(ctx, *q.charge, may)
	}
	return p.Operate(ctx, *q.operation, may)
}

// worth is what the request is for.
func (q *request) worth() (amount decimal.Decimal, currency string) {
	if q.charge != nil {
		return q.charge.Amount, q.charge.Currency
	}
	return q.operation.Amount, q.operation.Currency
}

// with is a copy of the request that is changed.
func (q *request) with(change func(o *providers.Order, amount *decimal.Decimal, currency *string)) *request {
	if q.charge != nil {
		c := *q.charge
		change(&c.Order, &c.Amount, &c.Currency)
		return &request{charge: &c}
	}
	o := *q.operation
	change(&o.Order, &o.Amount, &o.Currency)
	return &request{operation: &o}
}

// renamed is the same request under another reference.
func (q *request) renamed(suffix string) *request {
	return q.with(func(o *providers.Order, _ *decimal.Decimal, _ *string) { o.Reference += suffix })
}

// The card of every charge: a number that no provider's test cards use, and
// canaries that must never be seen again.
const (
	canaryNumber = "4929000000006662"
	canaryCode   = "736"
	canaryHolder = "Canary Holder"
)

// What every charge is for, and the part of it that most operations are for.
var (
	wholeAmount = decimal.RequireFromString("45.67")
	partAmount  = decimal.RequireFromString("10.01")
)

// cannot says whether the fixture says why a behaviour cannot be shown.
func (s *suite) cannot(want Behaviour) bool {
	s.Helper()
	reason, cannot := s.f.Cannot[want]
	if cannot {
		s.Logf("%s cannot be made to %s: %s", s.p.Name(), want, reason)
	}
	return cannot
}

// name is a new reference.
func (s *suite) name() string {
	s.n++
	id := fmt.Sprintf("%s-%d-%d", strings.ReplaceAll(s.Name(), "/", "-"), time.Now().UnixNano(), s.n)
	if len(id) > 60 {
		id = id[len(id)-60:]
	}
	return id
}

// charge makes a new charge, to be met with a behaviour that the fixture can show.
func (s *suite) charge(want Behaviour) *providers.Charge {
	s.Helper()
	id := s.name()
	c := &providers.Charge{
		Order: providers.Order{Reference: id, AccountID: "0199c0de-0000-7000-8000-000000000001", Mode: "test",
			MerchantOrderID: "order-" + id},
		Amount: wholeAmount, Currency: "USD", Country: "US", Description: "conformance", Capture: true,
		Card: providers.Card{Number: canaryNumber, SecurityCode: canaryCode, HolderName: canaryHolder,
			ExpirationMonth: 11, ExpirationYear: 2028},
	}
	s.f.Arrange(s.T, c, want)
	return c
}

// target books something that an operation of the kind can be made of.
func (s *suite) target(kind providers.OperationKind) providers.Order {
	s.Helper()
	c := s.charge(Approve)
	c.Capture = kind == providers.Refund
	s.want("the charge to operate on", s.send(&request{charge: c}), providers.Approved)
	return c.Order
}

// operation makes a new operation on a target, to be met with a behaviour that the
// fixture can show.
func (s *suite) operation(kind providers.OperationKind, target providers.Order, want Behaviour) *providers.Operation {
	s.Helper()
	o := &providers.Operation{Order: target, Kind: kind, Target: target.Reference, Amount: partAmount, Currency: "USD"}
	o.Reference = s.name()
	if kind == providers.Cancel {
		o.Amount = wholeAmount
	}
	s.f.ArrangeOperation(s.T, o, want)
	return o
}

// request makes a new charge, or an operation with a target of its own. It is nil if
// the fixture says why the behaviour cannot be shown.
func (s *suite) request(want Behaviour) *request {
	s.Helper()
	switch {
	case s.cannot(want):
		return nil
	case s.kind == "":
		return &request{charge: s.charge(want)}
	}
	return &request{operation: s.operation(s.kind, s.target(s.kind), want)}
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

func (s *suite) send(q *request) providers.Result {
	return s.checked(q.to(s.ctx(), s.p, yes))
}

func (s *suite) inquire(q *request) providers.Result {
	return s.checked(s.p.Inquire(s.ctx(), q.order()))
}

func (s *suite) void(q *request) providers.Result {
	return s.checked(s.p.Void(s.ctx(), q.order(), yes))
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
	if r.RedirectURL != "" && r.Outcome != providers.Pending {
		s.Errorf("%s, and somewhere to go: only what is pending needs the payer", r.Outcome)
	}
	if len(r.Raw) > providers.MaxRaw || len(r.Raw) > 0 && (r.Raw[0] != '{' || !json.Valid(r.Raw)) {
		s.Errorf("the raw answer is no JSON object of at most %d bytes", providers.MaxRaw)
	}
	if canaries.Match(r.Raw) {
		s.Error("the card shows in the raw answer")
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

func (s *suite) wantBookings(q *request, want int) {
	s.Helper()
	if got := s.f.Bookings(s.T, q.order()); got != want {
		s.Errorf("the provider booked %d, want %d", got, want)
	}
}

// wantInquiry asks about a request. A provider that cannot be asked must say that
// it does not know, and ask nobody.
func (s *suite) wantInquiry(q *request, outcomes ...providers.Outcome) providers.Result {
	s.Helper()
	before := s.f.Requests()
	r := s.inquire(q)
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
		q := s.request(Approve)
		if q.charge != nil {
			q.charge.Capture = capture
		}
		first := s.send(q)
		s.want("the send", first, providers.Approved)
		s.wantBookings(q, 1)
		again := s.wantInquiry(q, providers.Approved)
		if s.traits.Queryable && !same(again, first) {
			s.Errorf("the inquiry says %+v, the send said %+v", again, first)
		}
		for _, r := range []providers.Result{first, again} {
			if amount, currency := q.worth(); r.Currency != "" && (r.Currency != currency || !r.Amount.Equal(amount)) {
				s.Errorf("approved for %s %s, sent was %s %s", r.Amount, r.Currency, amount, currency)
			}
		}
		s.wantBookings(q, 1)
	}
}

// same says whether two results tell of the same booking.
func same(a, b providers.Result) bool {
	return a.Outcome == b.Outcome && a.ProviderReference == b.ProviderReference &&
		a.ResponseCode == b.ResponseCode && a.AuthorizationCode == b.AuthorizationCode
}

func unknown(s *suite) {
	q := s.request(Approve)
	s.wantInquiry(q, providers.NotFound)
	s.want("a send after an inquiry", s.send(q), providers.Approved)
	s.wantBookings(q, 1)
}

func twice(s *suite) {
	q := s.request(Approve)
	first, second := s.send(q), s.send(q)
	s.want("the first send", first, providers.Approved)
	s.recognised(q, first, second)
}

// recognised judges a second send with a reference that is booked. A provider
// that does not recognise it books again, or says no; whichever it is, it has to
// be what its ledger says.
func (s *suite) recognised(q *request, first, second providers.Result) {
	s.Helper()
	if s.traits.Idempotent {
		s.wantBookings(q, 1)
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
	s.wantBookings(q, want)
}

func otherAmount(s *suite) {
	q := s.request(Approve)
	first := s.send(q)
	second := s.send(q.with(func(_ *providers.Order, amount *decimal.Decimal, currency *string) {
		*amount, *currency = decimal.RequireFromString("99.01"), "EUR"
	}))
	if s.traits.Idempotent && second.Outcome != providers.Approved {
		// A provider may object to the other body, as long as it books nothing.
		s.want("another amount under a known reference", second, providers.Refused, providers.Unclear)
		s.wantBookings(q, 1)
		return
	}
	s.recognised(q, first, second)
}

func together(s *suite) {
	q := s.request(Approve)
	results := make([]providers.Result, crowd)
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() { results[i] = s.send(q) })
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
	s.wantBookings(q, want)
}

func declined(s *suite) {
	q := s.request(Decline)
	if q == nil {
		return
	}
	first := s.send(q)
	s.want("the send", first, providers.Declined)
	s.wantBookings(q, 0)
	s.wantInquiry(q, providers.Declined)
	if !s.traits.Idempotent {
		return // a second send is another attempt there, and may well succeed
	}
	if second := s.send(q); !same(first, second) {
		s.Errorf("the second send says %+v, the first one %+v", second, first)
	}
	s.wantBookings(q, 0)
}

func refused(s *suite) {
	q := s.request(Refuse)
	if q == nil {
		return
	}
	s.want("the send", s.send(q), providers.Refused)
	s.wantBookings(q, 0)
	s.wantInquiry(q, providers.NotFound)
	s.want("the corrected one", s.send(q.renamed("x")), providers.Approved)
	s.wantBookings(q, 0)
}

func guaranteed(s *suite) {
	q := s.request(GuaranteeNothing)
	if q == nil {
		return
	}
	s.want("the send", s.send(q), providers.NotReached)
	s.wantBookings(q, 0)
	s.wantInquiry(q, providers.NotFound)
	s.want("a second send", s.send(q), providers.Approved)
	s.wantBookings(q, 1)
}

// late judges a send that gets no answer.
func (s *suite) late(q *request) {
	s.Helper()
	start := time.Now()
	r := s.send(q)
	took := time.Since(start)
	s.want("the send", r, providers.Unclear)
	if !r.TimedOut {
		s.Error("not marked as timed out")
	}
	if took > s.traits.Timeout+slack {
		s.Errorf("took %s with a timeout of %s", took, s.traits.Timeout)
	}
}

// settled judges what comes after an unclear send that was booked.
func (s *suite) settled(q *request) {
	s.Helper()
	s.wantBookings(q, 1)
	first := s.wantInquiry(q, providers.Approved)
	if !s.traits.Idempotent {
		return // whoever resends there charges twice, so nobody does
	}
	second := s.send(q)
	s.want("a second send", second, providers.Approved)
	if s.traits.Queryable && !same(first, second) {
		s.Errorf("the second send says %+v, the inquiry %+v", second, first)
	}
	s.wantBookings(q, 1)
}

// open judges what comes after an unclear send that was not booked.
func (s *suite) open(q *request) {
	s.Helper()
	s.wantBookings(q, 0)
	s.wantInquiry(q, providers.NotFound)
	s.want("a second send", s.send(q), providers.Approved)
	s.wantBookings(q, 1)
}

func bookedHang(s *suite) {
	if q := s.request(BookAndHang); q != nil {
		s.late(q)
		s.settled(q)
	}
}

func unbookedHang(s *suite) {
	if q := s.request(HangUnbooked); q != nil {
		s.late(q)
		s.open(q)
	}
}

func bookedError(s *suite) {
	if q := s.request(BookAndFail); q != nil {
		s.want("the send", s.send(q), providers.Unclear)
		s.settled(q)
	}
}

func unbookedError(s *suite) {
	if q := s.request(FailUnbooked); q != nil {
		s.want("the send", s.send(q), providers.Unclear)
		s.open(q)
	}
}

func brokenOff(s *suite) {
	if q := s.request(BookAndBreakOff); q != nil {
		r := s.send(q)
		s.want("the send", r, providers.Unclear)
		if r.TimedOut {
			s.Error("a broken connection is no timeout")
		}
		s.settled(q)
	}
}

// cannotVoid judges a Void of a provider that has none: it must say that it does
// not know, ask nobody, and leave the reference alone.
func (s *suite) cannotVoid(q *request) {
	s.Helper()
	before := s.f.Requests()
	s.want("a void of a provider that has none", s.void(q), providers.Unclear)
	if after := s.f.Requests(); after != before {
		s.Errorf("it made %d requests all the same", after-before)
	}
}

func voidBefore(s *suite) {
	q := s.request(Approve)
	if !s.traits.CanVoid {
		s.cannotVoid(q)
		s.want("a send after it", s.send(q), providers.Approved)
		s.wantBookings(q, 1)
		return
	}
	s.want("the void", s.void(q), providers.Voided)
	s.want("a second void", s.void(q), providers.Voided)
	for range 2 {
		s.want("a send of a voided reference", s.send(q), providers.Declined, providers.Refused)
	}
	s.wantBookings(q, 0)
	s.wantInquiry(q, providers.NotFound, providers.Declined)
	s.want("a send with another reference", s.send(q.renamed("x")), providers.Approved)
}

func voidAfter(s *suite) {
	q := s.request(Approve)
	first := s.send(q)
	if !s.traits.CanVoid {
		s.cannotVoid(q)
	} else if r := s.void(q); !same(r, first) {
		s.Errorf("the void says %+v, the send said %+v", r, first)
	}
	s.wantBookings(q, 1)
	s.wantInquiry(q, providers.Approved)
}

func voidDeclined(s *suite) {
	q := s.request(Decline)
	if q == nil {
		return
	}
	s.want("the send", s.send(q), providers.Declined)
	if !s.traits.CanVoid {
		s.cannotVoid(q)
		return
	}
	s.want("the void", s.void(q), providers.Declined)
	s.wantBookings(q, 0)
}

// However a void and a send meet, they must not both win, nor both lose.
func voidRace(s *suite) {
	if !s.traits.CanVoid {
		s.cannotVoid(s.request(Approve))
		return
	}
	for range crowd {
		q := s.request(Approve)
		var sent, void providers.Result
		var wg sync.WaitGroup
		wg.Go(func() { sent = s.send(q) })
		wg.Go(func() { void = s.void(q) })
		wg.Wait()
		switch void.Outcome {
		case providers.Voided:
			s.want("a send that came after its void", sent, providers.Declined, providers.Refused)
			s.wantBookings(q, 0)
		case providers.Approved:
			s.want("a send that came before its void", sent, providers.Approved)
			s.wantBookings(q, 1)
		default:
			s.want("the void", void, providers.Voided, providers.Approved)
		}
	}
}

func mayNot(s *suite) {
	no := func() bool { return false }
	q := s.request(Approve)
	before := s.f.Requests()
	s.want("the send", s.checked(q.to(s.ctx(), s.p, no)), providers.NotReached)
	if s.traits.CanVoid {
		s.want("the void", s.checked(s.p.Void(s.ctx(), q.order(), no)), providers.NotReached)
	}
	if after := s.f.Requests(); after != before {
		s.Errorf("%d requests reached the provider", after-before)
	}
	s.wantBookings(q, 0)
	s.want("a send in time", s.send(q), providers.Approved)
}

func mayOnce(s *suite) {
	q := s.request(Approve)
	asked, before := 0, s.f.Requests()
	may := func() bool {
		asked++
		if s.f.Requests() != before {
			s.Error("asked after the request had reached the provider")
		}
		return true
	}
	s.want("the send", s.checked(q.to(s.ctx(), s.p, may)), providers.Approved)
	if asked != 1 {
		s.Errorf("MaySend was asked %d times for one send", asked)
	}
}

func unreachable(s *suite) {
	if s.f.Unreachable == nil {
		s.Fatal("the fixture has no Unreachable")
	}
	q := s.request(Approve)
	p := s.f.Unreachable(s.T)
	s.want("the send", s.checked(q.to(s.ctx(), p, yes)), providers.NotReached)
	s.want("an inquiry", s.checked(p.Inquire(s.ctx(), q.order())), providers.Unclear)
	s.want("a void", s.checked(p.Void(s.ctx(), q.order(), yes)), providers.Unclear)
	if q.charge != nil {
		_, err := p.Tokenise(s.ctx(), q.charge.Card)
		s.wantErrTokenise(err)
	}
}

func endedBefore(s *suite) {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	q := s.request(Approve)
	before := s.f.Requests()
	s.want("the send", s.checked(q.to(ctx, s.p, yes)), providers.NotReached)
	s.want("an inquiry", s.checked(s.p.Inquire(ctx, q.order())), providers.Unclear)
	if after := s.f.Requests(); after != before {
		s.Errorf("%d requests reached the provider", after-before)
	}
	s.wantBookings(q, 0)
}

func endsMeanwhile(s *suite) {
	q := s.request(BookAndHang)
	if q == nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	done := make(chan providers.Result, 1)
	go func() { done <- q.to(ctx, s.p, yes) }()
	for s.f.Bookings(s.T, q.order()) == 0 && ctx.Err() == nil {
		runtime.Gosched()
	}
	cancel()
	r := s.checked(<-done)
	s.want("the send", r, providers.Unclear)
	if !r.TimedOut {
		s.Error("not marked as timed out")
	}
	s.settled(q)
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

// chargedTokens: whoever has handed a card in pays with its token, which is charged as the
// card would be: once a reference, however often it is sent.
func chargedTokens(s *suite) {
	if _, cannot := s.f.Cannot[Tokenise]; cannot {
		return // said by tokens
	}
	for want, outcome := range map[Behaviour]providers.Outcome{Approve: providers.Approved, Decline: providers.Declined} {
		if s.cannot(want) {
			continue
		}
		c := s.charge(want)
		token, err := s.p.Tokenise(s.ctx(), c.Card)
		if err != nil {
			s.Fatalf("no token: %v", err)
		}
		c.Token, c.Card = token, providers.Card{}
		q, booked := &request{charge: c}, 0
		if outcome == providers.Approved {
			booked = 1
		}
		first := s.send(q)
		s.want("a charge of a token", first, outcome)
		s.wantBookings(q, booked)
		s.wantInquiry(q, outcome)
		if s.traits.Idempotent {
			if again := s.send(q); !same(again, first) {
				s.Errorf("sent again it says %+v, at first it said %+v", again, first)
			}
			s.wantBookings(q, booked)
		}
	}
	c := s.charge(Approve)
	c.Token, c.Card = providers.Token{Value: "no-token-of-this-provider"}, providers.Card{}
	q := &request{charge: c}
	s.want("a charge of no token", s.send(q), providers.Refused, providers.Declined)
	s.wantBookings(q, 0)
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
	booked, lost, no, gone := s.request(Approve), s.request(BookAndFail), s.request(Decline), s.request(Approve)
	first := s.send(booked)
	waiting := s.request(PendThenApprove)
	for _, q := range []*request{lost, no, waiting} {
		if q != nil {
			s.send(q)
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
	if waiting != nil {
		s.wantInquiry(waiting, providers.Pending)
		s.f.Decide(s.T)
		s.wantInquiry(waiting, providers.Approved)
		s.wantBookings(waiting, 1)
	}
	if no != nil {
		s.wantInquiry(no, providers.Declined)
		s.wantBookings(no, 0)
	}
	if s.traits.CanVoid {
		s.want("a send of a voided reference", s.send(gone), providers.Declined, providers.Refused)
		s.wantBookings(gone, 0)
	}
	if s.traits.Idempotent {
		if r := s.send(booked); !same(r, first) {
			s.Errorf("a second send says %+v, the first one said %+v", r, first)
		}
		s.wantBookings(booked, 1)
	}
}
