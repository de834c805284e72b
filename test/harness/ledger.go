package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"testing"
)

// Ledger is the provider's own record of what it booked. It knows nothing of our
// database, so it is the referee.
type Ledger struct{ URL string }

// Entry is one booking.
type Entry struct {
	Reference       string `json:"reference"`
	MerchantOrderID string `json:"merchant_order_id"`
	AccountID       string `json:"account_id"`
	Mode            string `json:"mode"`
	Type            string `json:"type"`
	Amount          string `json:"amount"`
	Currency        string `json:"currency"`
	Status          string `json:"status"`
	CreatedAt       string `json:"created_at"`
}

// ledgerPage is the largest page that the sandbox gives.
const ledgerPage = 500

// Of are the bookings of one order.
func (l Ledger) Of(ctx context.Context, order string) ([]Entry, error) {
	return l.read(ctx, url.Values{"merchant_order_id": {order}})
}

// Entries are all bookings.
func (l Ledger) Entries(ctx context.Context) ([]Entry, error) { return l.read(ctx, url.Values{}) }

// All are all bookings. A ledger that cannot be read ends the test: without the
// referee there is no verdict.
func (l Ledger) All(t testing.TB) []Entry {
	t.Helper()
	all, err := l.Entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// MustHave fails the test unless the payment's order has so many bookings, each of
// them of the payment's amount. It may be called from any goroutine.
func (l Ledger) MustHave(t testing.TB, p Payment, bookings int) {
	t.Helper()
	entries, err := l.Of(t.Context(), p.OrderID)
	if err != nil {
		t.Error(err)
		return
	}
	if len(entries) != bookings {
		t.Errorf("%s: the ledger has %d bookings, not %d: %v", p.Description, len(entries), bookings, entries)
	}
	for _, e := range entries {
		if e.Type != "PURCHASE" || e.Amount != p.Value || e.Currency != "USD" {
			t.Errorf("%s: the ledger has %s of %s %s, not PURCHASE of %s USD", p.Description, e.Type, e.Amount, e.Currency, p.Value)
		}
	}
}

// read reads all pages.
func (l Ledger) read(ctx context.Context, q url.Values) ([]Entry, error) {
	client := &http.Client{Timeout: exchangeLimit, Transport: &http.Transport{DisableKeepAlives: true}}
	q.Set("limit", strconv.Itoa(ledgerPage))
	var all []Entry
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URL+"/sandbox/v1/ledger?"+q.Encode(), nil)
		if err != nil {
			return nil, err
		}
		a := exchange(client, req)
		var page struct {
			Entries []Entry `json:"entries"`
			Next    *string `json:"next"`
		}
		if a.Err != nil || a.Status != http.StatusOK || json.Unmarshal(a.Body, &page) != nil {
			return nil, fmt.Errorf("read the ledger: %s", a)
		}
		all = append(all, page.Entries...)
		if page.Next == nil {
			return all, nil
		}
		q.Set("after", *page.Next)
	}
}
