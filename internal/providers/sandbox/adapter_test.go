package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/providers/providertest"
)

// conformanceTimeout is short because some subtests wait for it, and long enough
// for an fsync on a busy disk under the race detector.
const conformanceTimeout = 2 * time.Second

// running is the sandbox as the conformance suite sees it: in this process, over
// HTTP, on a ledger that is really written.
type running struct {
	dir       string
	callbacks *receiver
	ledger    *Ledger
	server    *Server
	requests  atomic.Int64
	stop      func()
}

func (r *running) start(t *testing.T) providers.Provider {
	t.Helper()
	l, err := Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(l, Options{CallbackSecret: testSecret})
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.requests.Add(1)
		server.ServeHTTP(w, q)
	}))
	a, err := NewAdapter(ts.URL, AdapterOptions{Timeout: conformanceTimeout, Settle: time.Second,
		CallbackURL: r.callbacks.url, CallbackSecret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	r.ledger, r.server = l, server
	r.stop = func() {
		server.Close()
		a.Close()
		ts.Close()
		_ = l.Close()
	}
	return a
}

func mustAdapter(t *testing.T, baseURL string, timeout time.Duration) *Adapter {
	t.Helper()
	a, err := NewAdapter(baseURL, AdapterOptions{Timeout: timeout, Settle: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestTheSandboxConforms(t *testing.T) {
	descriptions := map[providertest.Behaviour]string{
		providertest.Approve:          "Coffee",
		providertest.Decline:          "INSUFFICIENT_FUNDS",
		providertest.Refuse:           "sandbox:reject",
		providertest.BookAndHang:      "sandbox:charge-then-timeout",
		providertest.HangUnbooked:     "sandbox:timeout",
		providertest.BookAndFail:      "sandbox:charge-then-500",
		providertest.FailUnbooked:     "sandbox:500",
		providertest.BookAndBreakOff:  "sandbox:charge-then-reset",
		providertest.GuaranteeNothing: "sandbox:unavailable",
		providertest.PendThenApprove:  "sandbox:pending-then-approve=60s",
		providertest.PendThenDecline:  "sandbox:pending-then-decline=60s",
	}
	describe := func(t *testing.T, want providertest.Behaviour) string {
		t.Helper()
		d, ok := descriptions[want]
		if !ok {
			t.Fatalf("no description makes the sandbox %s", want)
		}
		return d
	}
	providertest.Run(t, func(t *testing.T) providertest.Fixture {
		t.Parallel()
		r := &running{dir: t.TempDir(), callbacks: newReceiver(t)}
		p := r.start(t)
		t.Cleanup(func() { r.stop() })
		return providertest.Fixture{
			Provider: p,
			Arrange: func(t *testing.T, c *providers.Charge, want providertest.Behaviour) {
				c.Description = describe(t, want)
			},
			ArrangeOperation: func(t *testing.T, o *providers.Operation, want providertest.Behaviour) {
				o.Description = describe(t, want)
			},
			Decide: func(t *testing.T) { (&site{t: t, ledger: r.ledger, server: r.server}).decideAll() },
			Bookings: func(_ *testing.T, o providers.Order) int {
				entries, _ := r.ledger.Entries(Query{Reference: o.Reference, Limit: maxLimit})
				return len(entries)
			},
			Requests: func() int { return int(r.requests.Load()) },
			Reopen: func(t *testing.T) providers.Provider {
				r.stop()
				return r.start(t)
			},
			Unreachable: func(t *testing.T) providers.Provider { return mustAdapter(t, nobody(t), conformanceTimeout) },
			Callbacks: func(*testing.T) []providertest.Message {
				var all []providertest.Message
				for _, m := range r.callbacks.all() {
					all = append(all, providertest.Message{Header: m.header, Body: m.body})
				}
				return all
			},
			WithSecret: func(t *testing.T, secret []byte) providers.Notifier { return mustNotifier(t, secret) },
		}
	})
}

// nobody is the address of a listener that has gone.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return "http://" + l.Addr().String()
}

func aCharge() providers.Charge {
	return providers.Charge{
		Order:  providers.Order{Reference: "r1", AccountID: "acc", Mode: "test", MerchantOrderID: "o1"},
		Amount: decimal.RequireFromString("45.670"), Currency: "USD", Country: "US", Description: "Coffee", Capture: true,
		Card: providers.Card{Number: "4111111111111111", SecurityCode: "123", HolderName: "John Doe", ExpirationMonth: 11, ExpirationYear: 2028},
	}
}

func may() bool { return true }

func anOperationOf(c providers.Charge) providers.Operation {
	return providers.Operation{Order: c.Order, Kind: providers.Refund, Target: "t1", Amount: c.Amount, Currency: c.Currency}
}

// Only what the API documents is understood. Everything else is unclear, however
// much it looks like a no.
func TestOnlyDocumentedAnswersAreBelieved(t *testing.T) {
	const (
		json     = "application/json"
		approved = `{"reference":"r1","status":"approved","id":"i","response_code":"SUCCEEDED","authorization_code":"1"}`
		declined = `{"reference":"r1","status":"declined","id":"i","response_code":"DO_NOT_HONOR"}`
		refused  = `{"reference":"r1","status":"refused","messages":["m"]}`
		unknown  = `{"reference":"r1","status":"unknown"}`
		voided   = `{"reference":"r1","status":"voided"}`
		pending  = `{"reference":"r1","status":"pending","id":"i","response_code":"PENDING_PROVIDER_CONFIRMATION"}`
		waiting  = `{"reference":"r1","status":"pending","id":"i","response_code":"CHALLENGE_REQUIRED","redirect_url":"https://h/c"}`
	)
	for _, c := range []struct {
		code                  int
		media, body           string
		charge, inquiry, void providers.Outcome
	}{
		{200, json, approved, "approved", "approved", "approved"},
		{200, json + "; charset=utf-8", approved, "approved", "approved", "approved"},
		{200, json, strings.Replace(approved, "{", `{"new":1,`, 1), "approved", "approved", "approved"},
		{200, json, declined, "declined", "declined", "declined"},
		{400, json, refused, "refused", "unclear", "unclear"},
		{503, json, `{"processed":false}`, "not_reached", "unclear", "unclear"},
		{503, json, ` { "processed" : false } `, "not_reached", "unclear", "unclear"},
		{200, json, unknown, "unclear", "not_found", "unclear"},
		{200, json, voided, "unclear", "not_found", "voided"},
		{200, json, refused, "unclear", "not_found", "unclear"},
		{200, json, strings.Replace(approved, "{", `{"amount":"1.5","currency":"USD",`, 1), "approved", "approved", "approved"},
		{200, json, pending, "pending", "pending", "unclear"},
		{200, json, waiting, "pending", "pending", "unclear"},

		{200, json, strings.Replace(pending, "PENDING_PROVIDER_CONFIRMATION", "SUCCEEDED", 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(pending, "{", `{"redirect_url":"https://h/c",`, 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(waiting, "https", "javascript", 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(waiting, "redirect_url", "redirect", 1), "unclear", "unclear", "unclear"},
		{202, json, pending, "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(approved, "{", `{"amount":"1e5","currency":"USD",`, 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(approved, "{", `{"amount":"1.5",`, 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(approved, "{", `{"currency":"USD",`, 1), "unclear", "unclear", "unclear"},
		{201, json, approved, "unclear", "unclear", "unclear"},
		{500, json, approved, "unclear", "unclear", "unclear"},
		{200, "text/html", approved, "unclear", "unclear", "unclear"},
		{200, "", approved, "unclear", "unclear", "unclear"},
		{200, json, approved + "x", "unclear", "unclear", "unclear"},
		{200, json, approved[:40], "unclear", "unclear", "unclear"},
		{200, json, "", "unclear", "unclear", "unclear"},
		{200, json, "null", "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(approved, "r1", "r2", 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(approved, "SUCCEEDED", "DO_NOT_HONOR", 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(approved, `"i"`, `""`, 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(declined, "DO_NOT_HONOR", "SUCCEEDED", 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(declined, "DO_NOT_HONOR", "OTHER", 1), "unclear", "unclear", "unclear"},
		{200, json, strings.Replace(declined, "declined", "dropped", 1), "unclear", "unclear", "unclear"},
		{400, json, strings.Replace(refused, "r1", "r2", 1), "unclear", "unclear", "unclear"},
		{400, json, `{"status":"refused"}`, "unclear", "unclear", "unclear"},
		{400, "text/html", "Bad Request", "unclear", "unclear", "unclear"},
		{404, "text/plain", "404 page not found", "unclear", "unclear", "unclear"},
		{404, json, unknown, "unclear", "unclear", "unclear"},
		{307, json, approved, "unclear", "unclear", "unclear"},
		{503, json, "{}", "unclear", "unclear", "unclear"},
		{503, json, `{"processed":true}`, "unclear", "unclear", "unclear"},
		{503, json, `{"processed":null}`, "unclear", "unclear", "unclear"},
		{503, json, `{"processed":false,"processed":true}`, "unclear", "unclear", "unclear"},
		{503, json, `{"processed":false,"queued":true}`, "unclear", "unclear", "unclear"},
		{503, "text/html", `{"processed":false}`, "unclear", "unclear", "unclear"},
		{500, json, `{"processed":false}`, "unclear", "unclear", "unclear"},
		{200, json, `{"processed":false}`, "unclear", "unclear", "unclear"},
	} {
		t.Run(fmt.Sprintf("%d %s %s", c.code, c.media, c.body), func(t *testing.T) {
			ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = []string{c.media}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.code)
				_, _ = fmt.Fprint(w, c.body)
			}))
			defer ts.Close()
			a := mustAdapter(t, ts.URL, patience)
			q := aCharge()
			for what, got := range map[string][2]providers.Outcome{
				"charge":    {a.Charge(t.Context(), q, may).Outcome, c.charge},
				"operation": {a.Operate(t.Context(), anOperationOf(q), may).Outcome, c.charge},
				"inquiry":   {a.Inquire(t.Context(), q.Order).Outcome, c.inquiry},
				"void":      {a.Void(t.Context(), q.Order, may).Outcome, c.void},
			} {
				if got[0] != got[1] {
					t.Errorf("%s: %s, want %s", what, got[0], got[1])
				}
			}
			if token, err := a.Tokenise(t.Context(), q.Card); !errors.Is(err, providers.ErrTokenise) || token.Value != "" {
				t.Errorf("token %q, %v", token.Value, err)
			}
		})
	}
}

func TestTheAdapterBoundsEveryExchange(t *testing.T) {
	gone := make(chan struct{})
	ts := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-gone:
		}
	}))
	defer ts.Close()
	defer close(gone)
	a := mustAdapter(t, ts.URL, 20*time.Millisecond)
	q := aCharge()
	for what, r := range map[string]providers.Result{
		"charge":    a.Charge(context.Background(), q, may),
		"operation": a.Operate(context.Background(), anOperationOf(q), may),
		"inquiry":   a.Inquire(context.Background(), q.Order),
		"void":      a.Void(context.Background(), q.Order, may),
	} {
		if r.Outcome != providers.Unclear || !r.TimedOut {
			t.Errorf("%s: %+v", what, r)
		}
	}
	if _, err := a.Tokenise(context.Background(), q.Card); !errors.Is(err, providers.ErrTokenise) {
		t.Error(err)
	}
}

func TestTheAdapterSendsAmountsAsTheyAre(t *testing.T) {
	s := newSite(t, "")
	a := mustAdapter(t, s.url+"/", patience)
	q := aCharge()
	q.Description = "Ünïcode \"quotes\" <b>"
	if r := a.Charge(t.Context(), q, may); r.Outcome != providers.Approved {
		t.Fatalf("%+v", r)
	}
	entries, _ := s.ledger.Entries(Query{Limit: 9})
	if len(entries) != 1 || entries[0].Amount != "45.67" || entries[0].MerchantOrderID != "o1" || entries[0].Type != "PURCHASE" {
		t.Errorf("%+v", entries)
	}
	token, err := a.Tokenise(t.Context(), q.Card)
	if err != nil || token.Value == "" {
		t.Errorf("%v", err)
	}
}

func TestNewAdapterChecksItsOptions(t *testing.T) {
	good := AdapterOptions{Timeout: time.Second}
	for _, u := range []string{"", "127.0.0.1:80", "ftp://h", "http://", "http://u:secret@h", "http://h?q=secret", "http://h/#f", "http://%zz:secret@h"} {
		if _, err := NewAdapter(u, good); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", u, err)
		}
	}
	for _, o := range []AdapterOptions{{}, {Timeout: -1}, {Timeout: 1, Settle: -1}, {Timeout: 1, CallbackURL: "ftp://h"}, {Timeout: 1, CallbackURL: "/c"}} {
		if _, err := NewAdapter("http://h", o); err == nil {
			t.Errorf("%+v", o)
		}
	}
	a, err := NewAdapter("https://h/base/", AdapterOptions{Timeout: time.Second, Settle: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	want := providers.Traits{Idempotent: true, Queryable: true, CanVoid: true, Timeout: time.Second, Settle: time.Minute}
	if a.base != "https://h/base" || a.Name() != "ONCEPAY_SANDBOX" || a.Traits() != want {
		t.Errorf("%+v", a)
	}
}

// What a merchant may see of an answer is made of known fields, whatever else is in it.
func TestRawIsMadeOfKnownFieldsOnly(t *testing.T) {
	const canary = "4929000000006662"
	for body, want := range map[string]string{
		`{"reference":"r1","status":"approved","id":"i","response_code":"SUCCEEDED","authorization_code":"1","type":"REFUND","amount":"1.50","currency":"USD",` +
			`"card":{"number":"` + canary + `"},"messages":["` + canary + `"],"redirect_url":"` + canary + `"}`: `{"id":"i","status":"approved","response_code":"SUCCEEDED","authorization_code":"1","type":"REFUND","amount":"1.50","currency":"USD"}`,
		`{"reference":"r1","status":"declined","id":"i","response_code":"DO_NOT_HONOR"}`:                                          `{"id":"i","status":"declined","response_code":"DO_NOT_HONOR"}`,
		`{"reference":"r1","status":"approved","response_code":"SUCCEEDED","id":"` + strings.Repeat("i", providers.MaxRaw) + `"}`: "",
		`{"reference":"r1","status":"unknown","id":"` + canary + `"}`:                                                             "",
	} {
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprint(w, body)
		}))
		a := mustAdapter(t, ts.URL, patience)
		r := a.Inquire(t.Context(), aCharge().Order)
		if string(r.Raw) != want {
			t.Errorf("%s, want %s", r.Raw, want)
		}
		ts.Close()
	}
}

func TestResultsTellWhatWasBooked(t *testing.T) {
	s := newSite(t, "")
	a := mustAdapter(t, s.url, patience)
	q := aCharge()
	q.Capture = false
	first := a.Charge(t.Context(), q, may)
	if first.Outcome != providers.Approved || first.Amount.String() != "45.67" || first.Currency != "USD" || len(first.Raw) == 0 {
		t.Fatalf("%+v", first)
	}
	o := providers.Operation{Order: q.Order, Kind: providers.Capture, Target: "r1", Amount: decimal.RequireFromString("9999999999.9999"), Currency: "USD"}
	o.Reference = "c1"
	if r := a.Operate(t.Context(), o, may); r.Outcome != providers.Declined || r.ResponseCode != codeAmount || r.Currency != "" {
		t.Errorf("%+v", r)
	}
	o.Reference, o.Amount = "c2", decimal.RequireFromString("0.0001")
	r := a.Operate(t.Context(), o, may)
	if r.Outcome != providers.Approved || r.Amount.String() != "0.0001" {
		t.Errorf("%+v", r)
	}
	q.Reference, q.MerchantOrderID, q.Description, q.ReturnURL = "r2", "o2", "sandbox:challenge", "https://shop.example/"
	r = a.Charge(t.Context(), q, may)
	if r.Outcome != providers.Pending || !strings.HasPrefix(r.RedirectURL, s.url) || r.ResponseCode != codeChallenge || r.Currency != "" {
		t.Errorf("%+v", r)
	}
	if again := a.Inquire(t.Context(), q.Order); again.RedirectURL != r.RedirectURL || again.Outcome != providers.Pending {
		t.Errorf("%+v", again)
	}
	q.Reference, q.Verify, q.Amount = "r3", true, decimal.Zero
	if r := a.Charge(t.Context(), q, may); r.Outcome != providers.Approved || !r.Amount.IsZero() {
		t.Errorf("%+v", r)
	}
	o.Kind = "reverse"
	if r := a.Operate(t.Context(), o, func() bool { t.Error("asked"); return true }); r.Outcome != providers.NotReached {
		t.Errorf("%+v", r)
	}
}

func TestTheAdapterTellsWhereToCallBack(t *testing.T) {
	r := newReceiver(t)
	s := newSiteWith(t, "", Options{CallbackSecret: testSecret})
	a, err := NewAdapter(s.url, AdapterOptions{Timeout: patience, CallbackURL: r.url, CallbackSecret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	q := aCharge()
	a.Charge(t.Context(), q, may)
	if err := a.CallBackTo("http://user:secret@h/"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	r = newReceiver(t) // what is sent from now on is told there
	if err := a.CallBackTo(r.url); err != nil {
		t.Fatal(err)
	}
	o := anOperationOf(q)
	o.Reference, o.Target, o.Description = "f1", "r1", "sandbox:pending-then-approve=1ms"
	if r := a.Operate(t.Context(), o, may); r.Outcome != providers.Pending {
		t.Fatalf("%+v", r)
	}
	got := r.waitFor(t, 1)[0]
	c, err := a.ReadCallback(got.header, got.body)
	if err != nil || c.Order != o.Order || c.Result.Outcome != providers.Approved || !c.Result.Amount.Equal(o.Amount) {
		t.Errorf("%+v %v", c, err)
	}
	if inquired := a.Inquire(t.Context(), o.Order); inquired.ProviderReference != c.Result.ProviderReference {
		t.Errorf("the inquiry says %+v, the callback %+v", inquired, c.Result)
	}
}

func TestTheAdapterListsEveryBookingOnce(t *testing.T) {
	s := newSite(t, "")
	a := mustAdapter(t, s.url, patience)
	from := time.Now().Add(-time.Second)
	for i := range listPage + 3 {
		mustBook(t, s.ledger, fmt.Sprint("r", i))
	}
	var all []providers.Booking
	pages := 0
	for after := ""; ; pages++ {
		page, next, err := a.List(t.Context(), from, time.Now().Add(time.Second), after)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page...)
		if after = next; next == "" {
			break
		}
	}
	if len(all) != listPage+3 || pages != 1 {
		t.Fatalf("%d bookings on %d pages", len(all), pages+1)
	}
	for i, b := range all {
		if b.Order.Reference != fmt.Sprint("r", i) || b.Amount.String() != "45.67" || b.Currency != "USD" || b.Order.AccountID != "acc" ||
			i > 0 && b.BookedAt.Before(all[i-1].BookedAt) {
			t.Fatalf("%d: %+v", i, b)
		}
	}
	if page, next, err := a.List(t.Context(), from.Add(-time.Hour), from, ""); err != nil || len(page) != 0 || next != "" {
		t.Errorf("%v %q %v", page, next, err)
	}
	for name, broken := range map[string]*Adapter{"nobody": mustAdapter(t, nobody(t), patience), "nonsense": mustAdapter(t, s.url+"/nowhere", patience)} {
		if page, next, err := broken.List(t.Context(), from, time.Now(), ""); !errors.Is(err, providers.ErrList) || page != nil || next != "" {
			t.Errorf("%s: %v %q %v", name, page, next, err)
		}
	}
	if _, _, err := a.List(t.Context(), from, time.Now(), "x"); !errors.Is(err, providers.ErrList) {
		t.Error(err)
	}
}

func BenchmarkCharge(b *testing.B) {
	s := newSite(b, b.TempDir())
	a, err := NewAdapter(s.url, AdapterOptions{Timeout: patience})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	var n atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			q := aCharge()
			q.Reference = fmt.Sprint("r", n.Add(1))
			q.MerchantOrderID = q.Reference
			if r := a.Charge(b.Context(), q, may); r.Outcome != providers.Approved {
				b.Error(r)
				return
			}
		}
	})
}
