package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestBookingsArePagedOldestFirst(t *testing.T) {
	s := newSite(t, "")
	for i := range 7 {
		s.charge("reference", fmt.Sprint("r", i), "merchant_order_id", fmt.Sprint("o", i), "account_id", fmt.Sprint("acc", i%2))
	}
	s.refund("f1", "r1", "1", "account_id", "acc1")
	page := func(query string) (references []string, times []time.Time, next string) {
		t.Helper()
		code, b, err := s.do(t.Context(), http.MethodGet, "/sandbox/v1/bookings"+query, nil)
		var p ledgerPage
		if err != nil || code != http.StatusOK || json.Unmarshal([]byte(b), &p) != nil || p.Entries == nil {
			t.Fatalf("%s: %d %s %v", query, code, b, err)
		}
		for _, e := range p.Entries {
			references, times = append(references, e.Reference), append(times, e.CreatedAt)
		}
		if p.Next != nil {
			next = *p.Next
		}
		return references, times, next
	}
	var all []string
	for query := "?limit=3"; ; {
		references, _, next := page(query)
		all = append(append(all, references...), "|")
		if next == "" {
			break
		}
		query = "?limit=3&after=" + next
	}
	if got := strings.Join(all, ""); got != "r0r1r2|r3r4r5|r6f1|" {
		t.Error(got)
	}
	_, times, _ := page("")
	from, to := times[2].Format(time.RFC3339Nano), times[6].Format(time.RFC3339Nano)
	first := 2
	for first > 0 && times[first-1].Equal(times[2]) {
		first--
	}
	last := 6
	for last > 0 && times[last-1].Equal(times[6]) {
		last--
	}
	references, _, next := page("?from=" + from + "&to=" + to)
	if len(references) != last-first || next != "" {
		t.Errorf("%v, next %q", references, next)
	}
	for _, query := range []string{"?to=" + times[0].Format(time.RFC3339Nano), "?from=2100-01-01T00:00:00Z", "?after=8", "?from=" + to + "&to=" + from} {
		if references, _, next := page(query); len(references) != 0 || next != "" {
			t.Errorf("%s: %v, next %q", query, references, next)
		}
	}
	for _, query := range []string{"?from=yesterday", "?to=", "?limit=501", "?after=0", "?reference=r1"} {
		if code, _, err := s.do(t.Context(), http.MethodGet, "/sandbox/v1/bookings"+query, nil); err != nil || code != http.StatusBadRequest {
			t.Errorf("%s: %d %v", query, code, err)
		}
	}
}
