package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// dispute posts a dispute; the status of the reply is set only if it was refused.
func (s *site) dispute(reference, stage string, change ...any) (int, disputeBody, reply) {
	s.t.Helper()
	q := map[string]any{"reference": reference, "account_id": "acc", "mode": "test", "stage": stage}
	for i := 0; i < len(change); i += 2 {
		q[change[i].(string)] = change[i+1]
	}
	code, b, err := s.do(s.t.Context(), http.MethodPost, "/sandbox/v1/disputes", q)
	var d disputeBody
	var re reply
	if err != nil || json.Unmarshal([]byte(b), &d) != nil || json.Unmarshal([]byte(b), &re) != nil {
		s.t.Fatalf("%d %s %v", code, b, err)
	}
	return code, d, re
}

func (s *site) refusedDispute(field, reference, stage string, change ...any) {
	s.t.Helper()
	code, _, re := s.dispute(reference, stage, change...)
	if code != http.StatusBadRequest || re.Status != statusRefused || len(re.Messages) != 1 || !strings.HasPrefix(re.Messages[0], field+": ") {
		s.t.Errorf("want a refusal that names %s, got %d %+v", field, code, re)
	}
}

func TestADisputeMovesForward(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	s.charge()
	s.refund("f1", "r1", "5.67")
	s.refusedDispute("stage", "r1", "lost")
	s.refusedDispute("amount", "r1", "received", "amount", "40.01")
	code, d, _ := s.dispute("r1", "received")
	if code != http.StatusOK || d.ID == "" || d.Stage != "received" || d.Amount != "40" || d.Currency != "USD" {
		t.Fatalf("%d %+v", code, d)
	}
	s.refusedDispute("reference", "r1", "received", "amount", "1") // one at a time
	refused, re := s.refund("f2", "r1", "0.01")                    // it may be lost
	s.want("a refund meanwhile", refused, re, http.StatusOK, statusDeclined, codeAmount)
	for range 2 { // a second time changes nothing
		if code, moved, _ := s.dispute("r1", "pending_review", "id", d.ID); code != http.StatusOK || moved.Stage != "pending_review" || moved.Amount != "40" {
			t.Errorf("%d %+v", code, moved)
		}
		s.end()
		s = newSite(t, dir)
	}
	s.refusedDispute("stage", "r1", "received", "id", d.ID)
	s.refusedDispute("id", "r1", "lost", "id", "another")
	s.charge("reference", "r2")
	s.refusedDispute("id", "r2", "lost", "id", d.ID)
	if code, lost, _ := s.dispute("r1", "lost", "id", d.ID); code != http.StatusOK || lost.Stage != "lost" {
		t.Errorf("%d %+v", code, lost)
	}
	s.refusedDispute("stage", "r1", "won", "id", d.ID)
	s.refusedDispute("amount", "r1", "received") // nothing is left
	refused, re = s.refund("f3", "r1", "0.01")
	s.want("a refund of what was lost", refused, re, http.StatusOK, statusDeclined, codeAmount)
}

func TestAWonDisputeMayBeFollowedByAnother(t *testing.T) {
	s := newSite(t, "")
	s.charge("capture", false)
	s.refusedDispute("reference", "r1", "received")
	s.capture("c1", "r1", "20")
	for _, amount := range []string{"15", "20"} {
		_, d, _ := s.dispute("c1", "received", "amount", amount)
		if code, won, _ := s.dispute("c1", "won", "id", d.ID); code != http.StatusOK || won.Amount != amount {
			t.Errorf("%d %+v", code, won)
		}
	}
	code, re := s.refund("f1", "c1", "20")
	s.want("a refund of what was won", code, re, http.StatusOK, statusApproved, succeeded)
}

// A refund and a dispute at once: the payer gets the money back once.
func TestARefundAndADisputeNeverExceedTheirTarget(t *testing.T) {
	s := newSite(t, t.TempDir())
	for i := range 20 {
		id := fmt.Sprint("r", i)
		s.charge("reference", id)
		var refunded, disputed bool
		var wg sync.WaitGroup
		wg.Go(func() {
			_, re := s.refund("f"+id, id, "45.67")
			refunded = re.Status == statusApproved
		})
		wg.Go(func() {
			code, _, _ := s.dispute(id, "received", "amount", "45.67")
			disputed = code == http.StatusOK
		})
		wg.Wait()
		if refunded == disputed {
			t.Errorf("refunded: %v, disputed: %v", refunded, disputed)
		}
	}
}

func TestInvalidDisputesAreRefused(t *testing.T) {
	s := newSite(t, "")
	s.charge()
	s.charge("reference", "no", "description", "DO_NOT_HONOR")
	s.charge("reference", "v", "verify", true, "amount", "0")
	s.refund("f", "r1", "1")
	s.refusedDispute("stage", "r1", "open")
	s.refusedDispute("amount", "r1", "received", "amount", "-1")
	s.refusedDispute("amount", "r1", "won", "id", "d", "amount", "1")
	s.refusedDispute("callback_url", "r1", "received", "callback_url", "x")
	s.refusedDispute("mode", "r1", "received", "mode", "x")
	s.refusedDispute("reference", "r1", "received", "account_id", "acc2")
	for _, reference := range []string{"no", "v", "f", "nobody"} {
		s.refusedDispute("reference", reference, "received")
	}
}

func TestConcurrentDisputesAreOne(t *testing.T) {
	s := newSite(t, "")
	s.charge()
	var mu sync.Mutex
	ids := map[string]bool{}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if code, d, _ := s.dispute("r1", "received", "amount", "1"); code == http.StatusOK {
				mu.Lock()
				defer mu.Unlock()
				ids[d.ID] = true
			}
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Errorf("%d disputes were opened", len(ids))
	}
}
