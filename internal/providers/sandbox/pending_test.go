package sandbox

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// decideAll decides all that would be decided by itself within the next hour.
func (s *site) decideAll() {
	s.t.Helper()
	s.server.decisions.runDue(s.t.Context(), time.Now().Add(time.Hour))
	until(s.t, "all is decided", func() bool { return len(s.ledger.due()) == 0 })
}

func TestWhatIsPendingIsDecidedWhenItIsDue(t *testing.T) {
	for word, want := range map[string]struct {
		status status
		code   string
	}{
		"pending-then-approve":       {statusApproved, succeeded},
		"pending-then-approve-twice": {statusApproved, succeeded},
		"pending-then-decline":       {statusDeclined, codePendingDeclined},
	} {
		t.Run(word, func(t *testing.T) {
			dir := t.TempDir()
			s := newSite(t, dir)
			code, first := s.charge("description", "sandbox:"+word+"=60s")
			s.want("the charge", code, first, http.StatusOK, statusPending, codePending)
			if first.ID == "" || first.Type != typePurchase || first.Amount != "45.67" || first.Currency != "USD" || first.RedirectURL != "" {
				t.Errorf("%+v", first)
			}
			for range 2 {
				if re := s.inquire("r1"); fmt.Sprint(re) != fmt.Sprint(first) || s.bookings("o1") != 0 {
					t.Errorf("the inquiry says %+v", re)
				}
				if code, re := s.charge("amount", "1"); code != http.StatusOK || fmt.Sprint(re) != fmt.Sprint(first) {
					t.Errorf("a second send says %+v", re)
				}
				s.end()
				s = newSite(t, dir)
			}
			s.decideAll()
			re := s.inquire("r1")
			if re.Status != want.status || re.ResponseCode != want.code || re.ID != first.ID || (s.bookings("o1") == 1) != (want.status == statusApproved) {
				t.Errorf("%+v, %d bookings", re, s.bookings("o1"))
			}
			code, again := s.charge()
			if code != http.StatusOK || fmt.Sprint(again) != fmt.Sprint(re) {
				t.Errorf("a send afterwards says %+v", again)
			}
			code, re = s.charge("reference", "r2", "description", "sandbox:"+word+"=60s")
			s.want("another reference of the order", code, re, http.StatusOK, statusApproved, succeeded)
		})
	}
}

func TestWhatIsPendingIsDecidedByItself(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	s.charge("description", "sandbox:pending-then-approve=1ms")
	until(t, "approved", func() bool { return s.inquire("r1").Status == statusApproved })

	// One that was due while nobody ran is decided as soon as somebody does.
	s.charge("reference", "r2", "merchant_order_id", "o2", "description", "sandbox:pending-then-approve=60s")
	s.end()
	l := mustOpen(t, dir)
	key := refKey{"acc", "test", "r2"}
	p := l.undecided[key]
	p.Due = time.Now().Add(-time.Hour)
	l.undecided[key] = p
	server := NewServer(l, Options{})
	defer server.Close()
	until(t, "approved", func() bool {
		st, err := l.standing(key)
		return err == nil && st.status == statusApproved
	})
}

func TestWhatIsPendingCanBeVoided(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	s.charge("description", "sandbox:pending-then-approve=60s")
	for range 2 {
		code, re := s.void("r1")
		s.want("the void", code, re, http.StatusOK, statusVoided, "")
	}
	s.decideAll()
	s.end()
	s = newSite(t, dir)
	s.decideAll()
	if re := s.inquire("r1"); re.Status != statusVoided || s.bookings("o1") != 0 {
		t.Errorf("%+v", re)
	}
	code, re := s.charge()
	s.want("a charge of it", code, re, http.StatusBadRequest, statusRefused, "")
}

// A void and the moment of a decision: one of them wins, and both say which.
func TestAVoidRacesADecision(t *testing.T) {
	s := newSite(t, "")
	won := map[status]int{}
	for i := range 60 {
		id := fmt.Sprint("r", i)
		s.charge("reference", id, "merchant_order_id", id, "description", "sandbox:pending-then-approve=1ms")
		until(t, "due", func() bool {
			return i%2 == 0 || s.inquire(id).Status != statusPending || len(s.server.decisions.slots) > 0
		})
		_, re := s.void(id)
		want := map[status]int{statusVoided: 0, statusApproved: 1}
		if n := s.bookings(id); n != want[re.Status] || s.inquire(id).Status != re.Status {
			t.Fatalf("%d bookings after a void that says %s", n, re.Status)
		}
		won[re.Status]++
	}
	t.Logf("%v", won)
}

// The amount of a pending operation is reserved, and given back with its end.
func TestAPendingOperationReservesItsAmount(t *testing.T) {
	for name, c := range map[string]struct {
		word string
		void bool
		left status // what becomes of another refund of the rest afterwards
	}{
		"approved": {"pending-then-approve", false, statusDeclined},
		"declined": {"pending-then-decline", false, statusApproved},
		"voided":   {"pending-then-approve", true, statusApproved},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := newSite(t, dir)
			s.charge()
			code, re := s.refund("f1", "r1", "40", "description", "sandbox:"+c.word+"=60s")
			s.want("the refund", code, re, http.StatusOK, statusPending, codePending)
			code, re = s.refund("f2", "r1", "5.68")
			s.want("one that does not fit beside it", code, re, http.StatusOK, statusDeclined, codeAmount)
			s.end()
			s = newSite(t, dir)
			code, re = s.refund("f3", "r1", "5.68")
			s.want("one that does not fit beside it, later", code, re, http.StatusOK, statusDeclined, codeAmount)
			if c.void {
				s.void("f1")
			}
			s.decideAll()
			code, re = s.refund("f4", "r1", "40")
			s.want("one that fits if it is given back", code, re, http.StatusOK, c.left, map[status]string{statusApproved: succeeded, statusDeclined: codeAmount}[c.left])
			if sum, n := s.sum(typeRefund); sum != "40" || n != 1 {
				t.Errorf("%s refunded in %d", sum, n)
			}
		})
	}
	t.Run("a cancel", func(t *testing.T) {
		s := newSite(t, "")
		s.charge("capture", false)
		code, re := s.cancel("x1", "r1", "45.67", "description", "sandbox:pending-then-decline=60s")
		s.want("the cancel", code, re, http.StatusOK, statusPending, codePending)
		code, re = s.capture("c1", "r1", "1")
		s.want("a capture meanwhile", code, re, http.StatusOK, statusDeclined, codeStatus)
		s.decideAll()
		code, re = s.capture("c2", "r1", "1", "merchant_order_id", "o2", "description", "sandbox:pending-then-approve=60s")
		s.want("a capture afterwards", code, re, http.StatusOK, statusPending, codePending)
		code, re = s.cancel("x2", "r1", "45.67")
		s.want("a cancel meanwhile", code, re, http.StatusOK, statusDeclined, codeStatus)
	})
	t.Run("what cannot be", func(t *testing.T) {
		s := newSite(t, "")
		s.charge()
		code, re := s.refund("f1", "r1", "46", "description", "sandbox:pending-then-approve=60s")
		s.want("the refund", code, re, http.StatusOK, statusDeclined, codeAmount)
	})
}

func TestAPendingVerificationIsNotBooked(t *testing.T) {
	s := newSite(t, "")
	code, re := s.charge("verify", true, "amount", "0", "description", "sandbox:pending-then-approve=60s")
	s.want("the verification", code, re, http.StatusOK, statusPending, codePending)
	s.decideAll()
	if re := s.inquire("r1"); re.Status != statusApproved || re.Type != typeVerify || s.bookings("o1") != 0 {
		t.Errorf("%+v", re)
	}
}
