package providertest

import (
	"errors"
	"net/http"
	"runtime"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

// callbacks: a callback is another way to be told what an inquiry tells, and it comes
// from the provider or is not believed.
func callbacks(s *suite) {
	n, ok := s.p.(providers.Notifier)
	if !ok {
		s.Logf("%s does not call back", s.p.Name())
		return
	}
	for _, kind := range []providers.OperationKind{"", providers.Capture, providers.Cancel, providers.Refund} {
		for want, outcome := range map[Behaviour]providers.Outcome{PendThenApprove: providers.Approved, PendThenDecline: providers.Declined} {
			s.kind = kind
			q := s.request(want)
			if q == nil {
				continue
			}
			s.want("the send", s.send(q), providers.Pending)
			s.f.Decide(s.T)
			m, c := s.callback(n, q.order())
			if c.ID == "" || c.Dispute != nil {
				s.Errorf("a callback without an id, or about a dispute: %+v", c)
			}
			s.want("the callback", s.checked(c.Result), outcome)
			if told := s.wantInquiry(q, outcome); s.traits.Queryable && !same(told, c.Result) {
				s.Errorf("the callback says %+v, the inquiry %+v", c.Result, told)
			}
			s.forged(n, m)
		}
	}
}

// callback waits for the provider's message about an order.
func (s *suite) callback(n providers.Notifier, o providers.Order) (Message, providers.Callback) {
	s.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); runtime.Gosched() {
		for _, m := range s.f.Callbacks(s.T) {
			c, err := n.ReadCallback(m.Header, m.Body)
			s.noCard(c)
			if err != nil {
				s.Fatalf("a callback of the provider's own is not understood: %v", err)
			}
			if c.Order == o {
				return m, c
			}
		}
	}
	s.Fatal("no callback came")
	return Message{}, providers.Callback{}
}

// forged changes a good message in every way somebody else could.
func (s *suite) forged(n providers.Notifier, m Message) {
	s.Helper()
	refuse := func(what string, n providers.Notifier, header http.Header, body []byte) {
		s.Helper()
		if c, err := n.ReadCallback(header, body); !errors.Is(err, providers.ErrForged) || c.ID != "" || c.Result.Outcome != "" || c.Dispute != nil {
			s.Errorf("%s: got %+v, %v; want ErrForged and nothing else", what, c, err)
		}
	}
	refuse("without its headers", n, http.Header{}, m.Body)
	refuse("without its body", n, m.Header, nil)
	refuse("with a byte more", n, m.Header, append(append([]byte(nil), m.Body...), ' '))
	for i := range m.Body {
		changed := append([]byte(nil), m.Body...)
		changed[i] ^= 1
		refuse("with a byte changed", n, m.Header, changed)
	}
	refuse("under another secret", s.f.WithSecret(s.T, []byte("another secret than the provider's")), m.Header, m.Body)
	for _, none := range [][]byte{nil, {}} {
		refuse("without a secret", s.f.WithSecret(s.T, none), m.Header, m.Body)
	}
}

// maxPages bounds a list that does not end.
const maxPages = 1000

// noList: a provider whose books cannot be had says so; an empty page would say that
// nothing was booked.
func (s *suite) noList() {
	s.Helper()
	l, ok := s.f.Unreachable(s.T).(providers.Lister)
	if !ok {
		s.Error("a provider that is not reached is no other kind of provider")
		return
	}
	if page, next, err := l.List(s.ctx(), time.Time{}, time.Now(), ""); !errors.Is(err, providers.ErrList) || len(page) > 0 || next != "" {
		s.Errorf("nobody listens, and the list is %v, %q, %v", page, next, err)
	}
}

// list: the provider's books, page by page, are its books, each line once.
func list(s *suite) {
	l, ok := s.p.(providers.Lister)
	if !ok {
		s.Logf("%s does not show its books", s.p.Name())
		return
	}
	s.noList()
	booked := map[string]providers.Order{}
	for _, kind := range []providers.OperationKind{"", providers.Capture, providers.Cancel, providers.Refund, ""} {
		s.kind = kind
		for _, want := range []Behaviour{Approve, Decline, BookAndFail, FailUnbooked, PendThenApprove} {
			q := s.request(want)
			if q == nil {
				continue
			}
			s.send(q)
			if s.f.Bookings(s.T, q.order()) > 0 {
				booked[q.order().Reference] = q.order()
			}
			if q.operation != nil {
				booked[q.operation.Target] = providers.Order{Reference: q.operation.Target, AccountID: q.operation.AccountID,
					Mode: q.operation.Mode, MerchantOrderID: q.operation.MerchantOrderID}
			}
		}
	}
	all := s.listed(l, time.Time{}.AddDate(1999, 0, 0), time.Now().Add(24*time.Hour))
	seen := map[string]int{}
	for i, b := range all {
		seen[b.Order.Reference]++
		if want, mine := booked[b.Order.Reference]; !mine || b.Order != want {
			s.Errorf("%+v is listed, booked was %+v", b.Order, want)
		}
		if b.Currency != "USD" || !b.Amount.Equal(wholeAmount) && !b.Amount.Equal(partAmount) || b.BookedAt.IsZero() {
			s.Errorf("listed as %s %s at %s", b.Amount, b.Currency, b.BookedAt)
		}
		if i > 0 && b.BookedAt.Before(all[i-1].BookedAt) {
			s.Errorf("line %d is older than the one before it", i)
		}
	}
	for reference := range booked {
		if seen[reference] != 1 {
			s.Errorf("a booking is listed %d times", seen[reference])
		}
	}
	if len(all) < 3 {
		return
	}
	from, to, want := all[1].BookedAt, all[len(all)-1].BookedAt, 0
	for _, b := range all {
		if !b.BookedAt.Before(from) && b.BookedAt.Before(to) {
			want++
		}
	}
	if got := len(s.listed(l, from, to)); got != want {
		s.Errorf("%d lines from one moment up to another, want %d", got, want)
	}
}

// listed are all pages together.
func (s *suite) listed(l providers.Lister, from, to time.Time) (all []providers.Booking) {
	s.Helper()
	after := ""
	for range maxPages {
		page, next, err := l.List(s.ctx(), from, to, after)
		if err != nil {
			s.Fatalf("the books are not shown: %v", err)
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		after = next
	}
	s.Fatal("the list does not end")
	return nil
}
