package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

var testSecret = []byte("a secret of the tests, 32 bytes.")

// received is one callback as it came.
type received struct {
	header http.Header
	body   []byte
}

// receiver takes in callbacks, and answers all of them alike.
type receiver struct {
	url    string
	mu     sync.Mutex
	answer int
	got    []received
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{answer: http.StatusOK}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, received{q.Header, body})
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(r.answer)
	}))
	t.Cleanup(ts.Close)
	r.url = ts.URL + "/callbacks?a=1&b=2"
	return r
}

func (r *receiver) answers(code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = code
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

// waitFor waits until n callbacks came, and returns all that did.
func (r *receiver) waitFor(t *testing.T, n int) []received {
	t.Helper()
	until(t, fmt.Sprint(n, " callbacks"), func() bool { return len(r.all()) >= n })
	return r.all()
}

func mustNotifier(t *testing.T, secret []byte) *Adapter {
	t.Helper()
	a, err := NewAdapter("http://127.0.0.1:1", AdapterOptions{Timeout: time.Second, CallbackSecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// deliverAll makes all deliveries that would be made within the next ten minutes.
func (s *site) deliverAll() {
	s.t.Helper()
	s.server.deliveries.runDue(s.t.Context(), time.Now().Add(10*time.Minute))
}

func (s *site) unacknowledged() int { return len(s.ledger.letters("")) }

func TestADecisionIsToldToTheCallbackURL(t *testing.T) {
	a := mustNotifier(t, testSecret)
	for word, want := range map[string]providers.Result{
		"pending-then-approve": {Outcome: providers.Approved, ResponseCode: succeeded, Currency: "USD"},
		"pending-then-decline": {Outcome: providers.Declined, ResponseCode: codePendingDeclined},
	} {
		t.Run(word, func(t *testing.T) {
			r := newReceiver(t)
			s := newSiteWith(t, t.TempDir(), Options{CallbackSecret: testSecret})
			s.charge("description", "sandbox:"+word+"=1ms", "callback_url", r.url)
			got := r.waitFor(t, 1)[0]
			c, err := a.ReadCallback(got.header, got.body)
			if err != nil {
				t.Fatal(err)
			}
			if c.Order != (providers.Order{Reference: "r1", AccountID: "acc", Mode: "test", MerchantOrderID: "o1"}) || c.ID == "" || c.Dispute != nil {
				t.Errorf("%+v", c)
			}
			re := s.inquire("r1")
			if c.Result.Outcome != want.Outcome || c.Result.ResponseCode != want.ResponseCode || c.Result.Currency != want.Currency ||
				c.Result.ProviderReference != re.ID || c.Result.AuthorizationCode != re.AuthorizationCode {
				t.Errorf("%+v, the inquiry says %+v", c.Result, re)
			}
			if want.Outcome == providers.Approved && c.Result.Amount.String() != "45.67" {
				t.Errorf("%s", c.Result.Amount)
			}
			until(t, "acknowledged", func() bool { return s.unacknowledged() == 0 })
			s.deliverAll()
			if n := len(r.all()); n != 1 {
				t.Errorf("told %d times", n)
			}
		})
	}
}

func TestOnlyWhatWasPendingIsToldAndOnlyIfSomebodyListens(t *testing.T) {
	r := newReceiver(t)
	s := newSiteWith(t, "", Options{CallbackSecret: testSecret})
	s.charge("callback_url", r.url)
	s.charge("reference", "r2", "description", "DO_NOT_HONOR", "callback_url", r.url)
	s.charge("reference", "r3", "merchant_order_id", "o3", "description", "sandbox:pending-then-approve=60s", "callback_url", r.url)
	s.void("r3")
	s.charge("reference", "r4", "merchant_order_id", "o4", "description", "sandbox:pending-then-approve=60s")
	s.decideAll()
	s.deliverAll()
	s.refund("f1", "r1", "1", "description", "sandbox:pending-then-approve=60s", "callback_url", r.url)
	s.decideAll()
	got := r.waitFor(t, 1)
	if len(got) != 1 || !bytes.Contains(got[0].body, []byte(`"reference":"f1"`)) {
		t.Errorf("%d callbacks, the first one %s", len(got), got[0].body)
	}
}

// What nobody acknowledges is sent again, also by the next process, with the same
// bytes. A redirect is no acknowledgement.
func TestACallbackIsSentAgainUntilItIsAcknowledged(t *testing.T) {
	dir := t.TempDir()
	r := newReceiver(t)
	r.answers(http.StatusInternalServerError)
	s := newSiteWith(t, dir, Options{CallbackSecret: testSecret})
	s.charge("description", "sandbox:pending-then-approve=1ms", "callback_url", r.url)
	for n, code := range []int{http.StatusFound, http.StatusNotFound, http.StatusServiceUnavailable} {
		r.waitFor(t, n+1)
		r.answers(code)
		n = len(r.all())
		until(t, "the next delivery", func() bool { s.deliverAll(); return len(r.all()) > n })
	}
	s.end()
	if s.unacknowledged() != 1 {
		t.Error("it is acknowledged")
	}
	r.answers(http.StatusNoContent)
	before := len(r.all())
	s = newSiteWith(t, dir, Options{}) // without a secret
	s.deliverAll()
	s.end()
	if len(r.all()) != before {
		t.Error("it was sent without a signature")
	}
	s = newSiteWith(t, dir, Options{CallbackSecret: testSecret})
	until(t, "acknowledged", func() bool { return s.unacknowledged() == 0 })
	got := r.all()
	if len(got) != before+1 {
		t.Errorf("%d deliveries, want %d", len(got), before+1)
	}
	for _, g := range got {
		if !bytes.Equal(g.body, got[0].body) || g.header.Get(signatureHeader) != got[0].header.Get(signatureHeader) {
			t.Errorf("another message: %s", g.body)
		}
	}
	s.end()
	s = newSiteWith(t, dir, Options{CallbackSecret: testSecret})
	s.deliverAll()
	if len(s.server.deliveries.queue) != 0 || s.unacknowledged() != 0 {
		t.Error("the acknowledgement was forgotten")
	}
}

func TestACallbackThatIsSentTwiceIsTheSame(t *testing.T) {
	dir := t.TempDir()
	r := newReceiver(t)
	s := newSiteWith(t, dir, Options{CallbackSecret: testSecret})
	s.charge("description", "sandbox:pending-then-approve-twice=60s", "callback_url", r.url)
	s.decideAll()
	first := r.waitFor(t, 1)
	until(t, "the first is acknowledged", func() bool { return s.unacknowledged() == 1 })
	late := s.ledger.letters("")[0]
	if wait := late.due.Sub(late.message.CreatedAt); wait < 59*time.Second || wait > 61*time.Second {
		t.Errorf("the second comes after %s", wait)
	}
	s.end()
	s = newSiteWith(t, dir, Options{CallbackSecret: testSecret})
	if n := len(r.all()); n != 1 {
		t.Errorf("%d callbacks before the second was due", n)
	}
	s.deliverAll()
	got := r.waitFor(t, 2)
	if !bytes.Equal(got[1].body, first[0].body) {
		t.Errorf("%s and then %s", got[0].body, got[1].body)
	}
	until(t, "acknowledged", func() bool { return s.unacknowledged() == 0 })
	if s.bookings("o1") != 1 {
		t.Errorf("%d bookings", s.bookings("o1"))
	}
}

func TestTheWaitsBetweenDeliveriesGrowAndEnd(t *testing.T) {
	var all time.Duration
	for tries, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 19: time.Minute} {
		if got := retryAfter(tries); got != want {
			t.Errorf("after %d: %s", tries, got)
		}
	}
	for tries := 1; tries < maxDeliveries; tries++ {
		all += retryAfter(tries)
	}
	if all < 10*time.Minute || all > 20*time.Minute {
		t.Errorf("%s in all", all)
	}
	s := newSiteWith(t, "", Options{CallbackSecret: testSecret})
	s.server.deliver(t.Context(), letter{url: nobody(t), tries: maxDeliveries - 2})
	if len(s.server.deliveries.queue) != 1 {
		t.Error("the last delivery is not to come")
	}
	s.server.deliver(t.Context(), letter{url: nobody(t), tries: maxDeliveries - 1})
	if len(s.server.deliveries.queue) != 1 {
		t.Error("it does not end")
	}
}

func TestDisputesAreTold(t *testing.T) {
	dir := t.TempDir()
	of, other := newReceiver(t), newReceiver(t)
	s := newSiteWith(t, dir, Options{CallbackSecret: testSecret})
	s.charge("callback_url", of.url)
	s.end() // the callback URL of a booking is remembered
	s = newSiteWith(t, dir, Options{CallbackSecret: testSecret})
	_, d, _ := s.dispute("r1", "received")
	of.waitFor(t, 1)
	s.dispute("r1", "pending_review", "id", d.ID, "callback_url", other.url)
	other.waitFor(t, 1)
	s.dispute("r1", "pending_review", "id", d.ID) // nothing new to tell
	s.dispute("r1", "won", "id", d.ID)
	got := of.waitFor(t, 2)
	a := mustNotifier(t, testSecret)
	ids := map[string]bool{}
	for i, want := range []struct {
		received
		stage providers.DisputeStage
	}{{got[0], providers.DisputeReceived}, {other.all()[0], providers.DisputePending}, {got[1], providers.DisputeWon}} {
		c, err := a.ReadCallback(want.header, want.body)
		if err != nil {
			t.Fatal(err)
		}
		ids[c.ID] = true
		if c.Dispute == nil || c.Dispute.ID != d.ID || c.Dispute.Stage != want.stage || c.Dispute.Amount.String() != "45.67" || c.Dispute.Currency != "USD" {
			t.Errorf("%d: %+v", i, c.Dispute)
		}
		if c.Order.Reference != "r1" || c.Order.MerchantOrderID != "o1" || c.Result.Outcome != "" {
			t.Errorf("%d: %+v", i, c)
		}
	}
	if len(ids) != 3 || len(of.all()) != 2 || len(other.all()) != 1 {
		t.Errorf("%d messages, %d and %d callbacks", len(ids), len(of.all()), len(other.all()))
	}
}

const (
	goodTransaction = `{"id":"m1","type":"transaction","reference":"r1","account_id":"acc","mode":"test","merchant_order_id":"o1","status":"approved",` +
		`"provider_id":"p1","response_code":"SUCCEEDED","authorization_code":"123456","amount":"45.67","currency":"USD","created_at":"2026-11-22T10:00:00Z"}`
	goodDispute = `{"id":"m2","type":"dispute","reference":"r1","account_id":"acc","mode":"test","merchant_order_id":"o1",` +
		`"dispute":{"id":"d1","stage":"lost","amount":"45.67","currency":"USD"},"created_at":"2026-11-22T10:00:00Z"}`
)

func signedHeader(body string) http.Header {
	return http.Header{signatureHeader: {sign(testSecret, []byte(body))}}
}

func TestForgedCallbacksAreNotBelieved(t *testing.T) {
	a := mustNotifier(t, testSecret)
	good := signedHeader(goodTransaction)
	if _, err := a.ReadCallback(good, []byte(goodTransaction)); err != nil {
		t.Fatal(err)
	}
	signature := good.Get(signatureHeader)
	for name, c := range map[string]struct {
		header http.Header
		body   string
		secret []byte
	}{
		"no signature":      {http.Header{}, goodTransaction, testSecret},
		"an empty one":      {http.Header{signatureHeader: {""}}, goodTransaction, testSecret},
		"two":               {http.Header{signatureHeader: {signature, signature}}, goodTransaction, testSecret},
		"no version":        {http.Header{signatureHeader: {signature[3:]}}, goodTransaction, testSecret},
		"another version":   {http.Header{signatureHeader: {"v2" + signature[2:]}}, goodTransaction, testSecret},
		"shorter":           {http.Header{signatureHeader: {signature[:len(signature)-2]}}, goodTransaction, testSecret},
		"another body":      {good, strings.Replace(goodTransaction, "45.67", "45.68", 1), testSecret},
		"a byte more":       {good, goodTransaction + " ", testSecret},
		"no body":           {good, "", testSecret},
		"another secret":    {good, goodTransaction, []byte("another")},
		"no secret":         {good, goodTransaction, nil},
		"an empty secret's": {http.Header{signatureHeader: {sign(nil, []byte(goodTransaction))}}, goodTransaction, []byte{}},
	} {
		if c, err := mustNotifier(t, c.secret).ReadCallback(c.header, []byte(c.body)); !errors.Is(err, providers.ErrForged) || c.ID != "" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	for i := range goodTransaction {
		changed := []byte(goodTransaction)
		changed[i] ^= 1
		if _, err := a.ReadCallback(good, changed); !errors.Is(err, providers.ErrForged) {
			t.Fatalf("with byte %d changed: %v", i, err)
		}
	}
}

func TestASignedCallbackIsReadStrictly(t *testing.T) {
	a := mustNotifier(t, testSecret)
	tx := func(old, replacement string) string { return strings.Replace(goodTransaction, old, replacement, 1) }
	dispute := func(old, replacement string) string { return strings.Replace(goodDispute, old, replacement, 1) }
	for name, c := range map[string]struct {
		body string
		good bool
	}{
		"a transaction":          {goodTransaction, true},
		"a dispute":              {goodDispute, true},
		"a new name":             {tx(`"id"`, `"network_id":{"a1":[1]},"id"`), true},
		"a new name in it":       {dispute(`{"id":"d1"`, `{"reason":"x","id":"d1"`), true},
		"a decline":              {tx(`"approved"`, `"declined"`), false},
		"a real decline":         {strings.Replace(tx(`"approved"`, `"declined"`), "SUCCEEDED", "DO_NOT_HONOR", 1), true},
		"an approval of a no":    {tx("SUCCEEDED", "DO_NOT_HONOR"), false},
		"an unknown code":        {tx("SUCCEEDED", "OTHER"), false},
		"pending":                {tx(`"approved"`, `"pending"`), false},
		"voided":                 {tx(`"approved"`, `"voided"`), false},
		"no status":              {tx(`"status":"approved",`, ""), false},
		"no id":                  {tx(`"id":"m1",`, ""), false},
		"no reference":           {tx(`"r1"`, `""`), false},
		"another mode":           {tx(`"test"`, `"prod"`), false},
		"no order":               {tx(`"merchant_order_id":"o1",`, ""), false},
		"no provider id":         {tx(`"p1"`, `""`), false},
		"no amount":              {tx(`"amount":"45.67",`, ""), false},
		"a number":               {tx(`"45.67"`, `45.67`), false},
		"an exponent":            {tx(`"45.67"`, `"1e9"`), false},
		"no currency":            {tx(`"USD"`, `""`), false},
		"another type":           {tx(`"transaction"`, `"payout"`), false},
		"a dispute's type":       {tx(`"transaction"`, `"dispute"`), false},
		"a transaction's type":   {dispute(`"dispute"`, `"transaction"`), false},
		"both":                   {tx(`"created_at"`, `"dispute":{"id":"d1","stage":"lost","amount":"1","currency":"USD"},"created_at"`), false},
		"a stage of nowhere":     {dispute(`"lost"`, `"closed"`), false},
		"no dispute id":          {dispute(`"d1"`, `""`), false},
		"a dispute of nothing":   {dispute(`"45.67"`, `"0"`), false},
		"a dispute in no money":  {dispute(`"USD"`, `"usd"`), false},
		"a name twice":           {tx(`"status"`, `"status":"declined","status"`), false},
		"another case":           {tx(`"status"`, `"Status":"declined","status"`), false},
		"something after it":     {goodTransaction + "{}", false},
		"an array":               {"[" + goodTransaction + "]", false},
		"null":                   {"null", false},
		"nothing":                {"", false},
		"bad UTF-8":              {tx("o1", "o\xff"), false},
		"no created_at":          {tx(`,"created_at":"2026-11-22T10:00:00Z"`, ""), false},
		"no time":                {tx("2026-11-22T10:00:00Z", "today"), false},
		"too long":               {tx(`"id"`, `"x":"`+strings.Repeat("x", maxCallbackBytes)+`","id"`), false},
		"a reference with blank": {tx(`"r1"`, `"r 1"`), false},
	} {
		got, err := a.ReadCallback(signedHeader(c.body), []byte(c.body))
		switch {
		case c.good && err != nil:
			t.Errorf("%s: %v", name, err)
		case !c.good && (!errors.Is(err, providers.ErrCallback) || got.ID != ""):
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzReadCallback(f *testing.F) {
	f.Add(goodTransaction)
	f.Add(goodDispute)
	f.Add(`{"id":1e999}`)
	a, err := NewAdapter("http://h", AdapterOptions{Timeout: time.Second, CallbackSecret: testSecret})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		c, err := a.ReadCallback(signedHeader(body), []byte(body))
		switch {
		case err != nil:
			if !errors.Is(err, providers.ErrCallback) || len(err.Error()) > 200 {
				t.Fatal(err)
			}
		case c.Order.Reference == "" || (c.Dispute == nil) == (c.Result.Outcome == ""):
			t.Fatalf("%+v", c)
		case c.Dispute == nil && !c.Result.Definite():
			t.Fatalf("%+v", c.Result)
		}
	})
}

// The journal has what the next process needs to call back, and never the secret.
func TestTheSecretIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	r := newReceiver(t)
	s := newSiteWith(t, dir, Options{CallbackSecret: testSecret})
	s.charge("description", "sandbox:pending-then-approve=1ms", "callback_url", r.url)
	r.waitFor(t, 1)
	s.end()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if content := readFile(t, dir+"/"+f.Name()); strings.Contains(content, string(testSecret)) || strings.Contains(content, "v1=") {
			t.Errorf("%s holds the secret or a signature", f.Name())
		}
	}
}
