package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// site is a sandbox behind a real socket.
type site struct {
	t      testing.TB
	ledger *Ledger
	server *Server
	url    string
}

func newSite(t testing.TB, dir string) *site {
	t.Helper()
	return newSiteWith(t, dir, Options{})
}

func newSiteWith(t testing.TB, dir string, o Options) *site {
	t.Helper()
	l := mustOpen(t, dir)
	s := NewServer(l, o)
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	t.Cleanup(s.Close) // before ts.Close, which waits for what is held
	return &site{t: t, ledger: l, server: s, url: ts.URL}
}

// end ends the sandbox, as a restart does.
func (s *site) end() {
	s.t.Helper()
	s.server.Close()
	if err := s.ledger.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// until waits for what happens soon by itself.
func until(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// charge is a valid charge as JSON, changed by pairs of names and values.
func charge(change ...any) map[string]any {
	c := map[string]any{
		"reference": "r1", "account_id": "acc", "mode": "test", "merchant_order_id": "o1", "amount": "45.67", "currency": "USD",
		"country": "US", "description": "Coffee", "capture": true,
		"card": map[string]any{"number": "4929000000006662", "security_code": "123", "holder_name": "John Doe",
			"expiration_month": 11, "expiration_year": 2028},
	}
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == nil {
			delete(c, change[i].(string))
			continue
		}
		c[change[i].(string)] = change[i+1]
	}
	return c
}

// do makes one exchange; body may be nil, a string or anything JSON can encode.
func (s *site) do(ctx context.Context, method, path string, body any) (int, string, error) {
	s.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			s.t.Fatal(err)
		}
		in = bytes.NewReader(j)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, in)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func (s *site) post(path string, body any) (int, reply) {
	s.t.Helper()
	code, b, err := s.do(s.t.Context(), http.MethodPost, path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	var re reply
	if err := json.Unmarshal([]byte(b), &re); err != nil {
		s.t.Fatalf("%d %s: %v", code, b, err)
	}
	return code, re
}

func (s *site) charge(change ...any) (int, reply) {
	s.t.Helper()
	return s.post("/sandbox/v1/charges", charge(change...))
}

func (s *site) inquire(reference string) reply {
	s.t.Helper()
	code, b, err := s.do(s.t.Context(), http.MethodGet, "/sandbox/v1/charges?account_id=acc&mode=test&reference="+url.QueryEscape(reference), nil)
	var re reply
	if err != nil || code != http.StatusOK || json.Unmarshal([]byte(b), &re) != nil {
		s.t.Fatalf("inquiry: %d %s %v", code, b, err)
	}
	return re
}

func (s *site) want(what string, code int, re reply, wantCode int, want status, responseCode string) {
	s.t.Helper()
	if code != wantCode || re.Status != want || re.ResponseCode != responseCode {
		s.t.Errorf("%s: %d %+v, want %d %s %s", what, code, re, wantCode, want, responseCode)
	}
}

func (s *site) bookings(order string) int {
	entries, _ := s.ledger.Entries(Query{MerchantOrderID: order, Limit: maxLimit})
	return len(entries)
}

func TestCardsAndDescriptionsDecide(t *testing.T) {
	s := newSite(t, "")
	card := func(number string) map[string]any {
		return map[string]any{"number": number, "security_code": "1234", "holder_name": "", "expiration_month": 1, "expiration_year": 2028}
	}
	for i, c := range []struct {
		card, description string
		want              status
		code              string
	}{
		{"4929000000006662", "Coffee", statusApproved, "SUCCEEDED"},
		{"4929000000006662", "SUCCEEDED_THREE_D_SECURE", statusApproved, "SUCCEEDED_THREE_D_SECURE"},
		{"4929000000006662", "INSUFFICIENT_FUNDS", statusDeclined, "INSUFFICIENT_FUNDS"},
		{"4929000000006662", "PROVIDER_TIMEOUT", statusDeclined, "PROVIDER_TIMEOUT"}, // reported, not behaved
		{"4929000000006662", "INVALID_REQUEST", statusDeclined, "INVALID_REQUEST"},
		{"370000000000077", "INSUFFICIENT_FUNDS", statusDeclined, "ERROR"},
		{"5252440000000002", "INSUFFICIENT_FUNDS", statusApproved, "SUCCEEDED"},
	} {
		id := fmt.Sprint(i)
		code, re := s.charge("reference", id, "merchant_order_id", id, "description", c.description, "card", card(c.card))
		s.want(c.description, code, re, http.StatusOK, c.want, c.code)
		if (re.AuthorizationCode != "") != (c.want == statusApproved) || re.ID == "" || re.Reference != id {
			t.Errorf("%+v", re)
		}
		if got := s.inquire(id); fmt.Sprint(got) != fmt.Sprint(re) {
			t.Errorf("the inquiry says %+v, the charge said %+v", got, re)
		}
		if n := s.bookings(id); n != map[status]int{statusApproved: 1}[c.want] {
			t.Errorf("%s: %d bookings", c.description, n)
		}
	}
	if re := s.inquire("never-seen"); re.Status != statusUnknown {
		t.Errorf("%+v", re)
	}
}

func TestFaultsDisturbTheFirstSendOfAnOrderOnly(t *testing.T) {
	for word, c := range map[string]struct {
		code  int // 0: no (whole) answer
		body  string
		books int
	}{
		"charge-then-500":   {500, "", 1},
		"500":               {500, "", 0},
		"charge-then-reset": {0, `{"reference":"r`, 1},
		"unavailable":       {503, `{"processed":false}`, 0},
		"reject":            {400, "", 0},
		"slow=1ms":          {200, "", 1},
	} {
		t.Run(word, func(t *testing.T) {
			dir := t.TempDir()
			s := newSite(t, dir)
			// Its card would decline; a fault that books beats it.
			q := charge("description", "sandbox:"+word)
			q["card"].(map[string]any)["number"] = "4507990000000036"
			code, body, err := s.do(t.Context(), http.MethodPost, "/sandbox/v1/charges", q)
			if (err != nil) != (c.code == 0) || err == nil && code != c.code || !strings.HasPrefix(body, c.body) {
				t.Errorf("%d %s %v", code, body, err)
			}
			if n := s.bookings("o1"); n != c.books {
				t.Errorf("%d bookings, want %d", n, c.books)
			}
			// It is remembered: the next process answers the truth.
			s.server.Close()
			if err := s.ledger.Close(); err != nil {
				t.Fatal(err)
			}
			s = newSite(t, dir)
			wantStatus := map[bool]status{true: statusApproved, false: statusUnknown}[c.books == 1]
			if word == "reject" {
				wantStatus = statusRefused
			}
			if re := s.inquire("r1"); re.Status != wantStatus {
				t.Errorf("the inquiry says %+v", re)
			}
			code2, re := s.post("/sandbox/v1/charges", q)
			switch {
			case word == "reject": // the reference was refused, and stays so
				s.want("the same reference", code2, re, http.StatusBadRequest, statusRefused, "")
			case c.books == 1:
				s.want("the same reference", code2, re, http.StatusOK, statusApproved, "SUCCEEDED")
			default:
				s.want("the same reference", code2, re, http.StatusOK, statusDeclined, "DO_NOT_HONOR")
			}
			code, re = s.charge("reference", "r2", "description", "sandbox:"+word)
			s.want("another reference of the order", code, re, http.StatusOK, statusApproved, "SUCCEEDED")
		})
	}
}

func TestAFaultIsForTheFirstSendNotForALaterOne(t *testing.T) {
	s := newSite(t, "")
	code, re := s.charge()
	s.want("the first send", code, re, http.StatusOK, statusApproved, "SUCCEEDED")
	code, re = s.charge("reference", "r2", "description", "sandbox:reject")
	s.want("a later one", code, re, http.StatusOK, statusApproved, "SUCCEEDED")
	for _, other := range [][]any{{"account_id", "acc2"}, {"mode", "live"}} {
		code, re = s.charge(append(other, "description", "sandbox:reject")...)
		s.want("the same order elsewhere", code, re, http.StatusBadRequest, statusRefused, "")
	}
}

func TestAMisspeltFaultIsNoSuccess(t *testing.T) {
	s := newSite(t, "")
	for _, d := range []string{"sandbox:timeuot", "sandbox:", "sandbox:slow=61s", "sandbox:challenged", "sandbox:pending-then-approve"} {
		code, re := s.charge("description", d)
		s.want(d, code, re, http.StatusBadRequest, statusRefused, "")
		if len(re.Messages) != 1 || !strings.HasPrefix(re.Messages[0], "description: ") || re.Reference != "r1" {
			t.Errorf("%+v", re)
		}
	}
	// None of them was the order's first send.
	code, re := s.charge("description", "sandbox:reject")
	s.want("corrected", code, re, http.StatusBadRequest, statusRefused, "")
	if re := s.inquire("r1"); re.Status != statusRefused {
		t.Errorf("%+v", re)
	}
}

func TestReferencesAreScopedByAccountAndMode(t *testing.T) {
	s := newSite(t, "")
	ids := map[string]bool{}
	for _, scope := range [][]any{{}, {"account_id", "acc2"}, {"mode", "live"}} {
		_, re := s.charge(scope...)
		ids[re.ID] = true
	}
	if len(ids) != 3 || s.bookings("o1") != 3 {
		t.Errorf("%d ids, %d bookings", len(ids), s.bookings("o1"))
	}
}

// gate replaces the server's clock: what waits for time to pass waits for it.
func (s *site) gate() chan time.Time {
	passed := make(chan time.Time)
	s.server.after = func(time.Duration) <-chan time.Time { return passed }
	return passed
}

// begun waits until the order's first send was seen.
func (s *site) begun(order string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		s.ledger.mu.RLock()
		_, ok := s.ledger.orders[orderKey{"acc", "test", order, ""}]
		s.ledger.mu.RUnlock()
		if ok {
			return
		}
	}
	s.t.Fatalf("%s was never begun", order)
}

// waiting waits until n requests have or want the reference.
func (s *site) waiting(reference string, n int) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		s.ledger.holds.mu.Lock()
		t := s.ledger.holds.of[refKey{"acc", "test", reference}]
		ok := t != nil && t.users == n
		s.ledger.holds.mu.Unlock()
		if ok {
			return
		}
	}
	s.t.Fatalf("never had %d requests for %s", n, reference)
}

type outcome struct {
	code int
	re   reply
}

func (s *site) start(path string, body any) chan outcome {
	c := make(chan outcome, 1)
	go func() {
		code, b, err := s.do(s.t.Context(), http.MethodPost, path, body)
		o := outcome{code: code}
		if err == nil {
			_ = json.Unmarshal([]byte(b), &o.re)
		}
		c <- o
	}()
	return c
}

func TestWhileAChargeIsSlow(t *testing.T) {
	s := newSite(t, "")
	passed := s.gate()
	first := s.start("/sandbox/v1/charges", charge("description", "sandbox:slow=3s"))
	s.begun("o1")
	if re := s.inquire("r1"); re.Status != statusUnknown {
		t.Errorf("an inquiry meanwhile says %+v", re)
	}
	second := s.start("/sandbox/v1/charges", charge("description", "sandbox:slow=3s", "amount", "99"))
	s.waiting("r1", 2)
	void := s.start("/sandbox/v1/voids", map[string]string{"reference": "r1", "account_id": "acc", "mode": "test", "merchant_order_id": "o1"})
	s.waiting("r1", 3)
	// Another reference, even of the same order, does not wait.
	code, re := s.charge("reference", "r2")
	s.want("another reference", code, re, http.StatusOK, statusApproved, "SUCCEEDED")
	if re := s.inquire("r1"); re.Status != statusUnknown {
		t.Errorf("an inquiry meanwhile says %+v", re)
	}
	passed <- time.Now()
	a, b, c := <-first, <-second, <-void
	s.want("the first", a.code, a.re, http.StatusOK, statusApproved, "SUCCEEDED")
	if fmt.Sprint(a) != fmt.Sprint(b) || fmt.Sprint(a) != fmt.Sprint(c) {
		t.Errorf("first %+v\nsecond %+v\nvoid %+v", a, b, c)
	}
	entries, _ := s.ledger.Entries(Query{Reference: "r1", Limit: 9})
	if len(entries) != 1 || entries[0].Amount != "45.67" {
		t.Errorf("%+v", entries)
	}
}

func TestAVoidBeforeTheChargeWins(t *testing.T) {
	s := newSite(t, "")
	v := map[string]string{"reference": "r1", "account_id": "acc", "mode": "test", "merchant_order_id": "o1"}
	for range 2 {
		code, re := s.post("/sandbox/v1/voids", v)
		s.want("the void", code, re, http.StatusOK, statusVoided, "")
	}
	code, re := s.charge("description", "sandbox:charge-then-500")
	s.want("a charge of a voided reference", code, re, http.StatusBadRequest, statusRefused, "")
	if re := s.inquire("r1"); re.Status != statusVoided || s.bookings("o1") != 0 {
		t.Errorf("%+v, %d bookings", re, s.bookings("o1"))
	}
	code, re = s.charge("reference", "r2", "description", "DO_NOT_HONOR")
	s.want("a decline", code, re, http.StatusOK, statusDeclined, "DO_NOT_HONOR")
	v["reference"] = "r2"
	code, re = s.post("/sandbox/v1/voids", v)
	s.want("the void of it", code, re, http.StatusOK, statusDeclined, "DO_NOT_HONOR")
}

func TestAChargeThatWasBegunIsBookedWithoutItsClient(t *testing.T) {
	s := newSite(t, "")
	passed := s.gate()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := s.do(ctx, http.MethodPost, "/sandbox/v1/charges", charge("description", "sandbox:slow=3s"))
		done <- err
	}()
	s.begun("o1")
	cancel()
	if err := <-done; err == nil {
		t.Error("answered")
	}
	passed <- time.Now()
	code, re := s.charge() // waits for the first, if it has to
	s.want("afterwards", code, re, http.StatusOK, statusApproved, "SUCCEEDED")
	if n := s.bookings("o1"); n != 1 {
		t.Errorf("%d bookings", n)
	}
}

func TestNeverAnsweringEndsWithTheClient(t *testing.T) {
	for word, books := range map[string]int{"timeout": 0, "charge-then-timeout": 1} {
		t.Run(word, func(t *testing.T) {
			s := newSite(t, "")
			left := make(chan struct{})
			inner := s.server
			ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(left)
				inner.ServeHTTP(w, r)
			}))
			defer ts.Close()
			front := &site{t: t, ledger: s.ledger, url: ts.URL}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, _, err := front.do(ctx, http.MethodPost, "/sandbox/v1/charges", charge("description", "sandbox:"+word))
				done <- err
			}()
			s.begun("o1")
			// It holds its connection, but not the reference.
			want := map[int]status{0: statusUnknown, 1: statusApproved}[books]
			for deadline := time.Now().Add(patience); s.inquire("r1").Status != want && time.Now().Before(deadline); {
				runtime.Gosched()
			}
			code, re := s.charge()
			s.want("a second send", code, re, http.StatusOK, statusApproved, "SUCCEEDED")
			select {
			case <-left:
				t.Error("the first send was ended")
			default:
			}
			cancel()
			<-left
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if n := s.bookings("o1"); n != 1 {
				t.Errorf("%d bookings", n)
			}
		})
	}
}

func TestNeverAnsweringIsBounded(t *testing.T) {
	s := newSite(t, "")
	passed := s.gate()
	done := s.start("/sandbox/v1/charges", charge("description", "sandbox:timeout"))
	passed <- time.Now() // received only by whoever is held
	if o := <-done; o.code != 0 {
		t.Errorf("%+v", o)
	}
}

// deadlines is a ResponseWriter that remembers the read deadlines it was given.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// A body has to come in time. But once it is there its deadline must go: it
// would end a request that is held, as if its client had hung up.
func TestTheDeadlineOfABodyEndsWithTheBody(t *testing.T) {
	s := NewServer(mustOpen(t, ""), Options{})
	defer s.Close()
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sandbox/v1/charges", strings.NewReader("{}")))
	if len(w.set) != 2 || w.set[0].IsZero() || time.Until(w.set[0]) > bodyTimeout || !w.set[1].IsZero() {
		t.Errorf("deadlines %v", w.set)
	}
	if h := s.HTTP(""); h.ReadTimeout != 0 || h.ReadHeaderTimeout == 0 || h.WriteTimeout < holdTimeout+maxSlow || h.IdleTimeout == 0 {
		t.Error("the server's own timeouts end a request that is held, or nothing")
	}
}

func TestShutdownReleasesWhatIsHeld(t *testing.T) {
	l := mustOpen(t, "")
	server := NewServer(l, Options{})
	h := server.HTTP("")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	s := &site{t: t, ledger: l, server: server, url: "http://" + listener.Addr().String()}

	hanging := s.start("/sandbox/v1/charges", charge("description", "sandbox:charge-then-timeout"))
	slow := s.start("/sandbox/v1/charges", charge("reference", "r2", "merchant_order_id", "o2", "description", "sandbox:slow=60s"))
	s.begun("o1")
	s.begun("o2")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if o := <-hanging; o.code != 0 {
		t.Errorf("the hanging one was answered: %+v", o)
	}
	o := <-slow
	s.want("the slow one", o.code, o.re, http.StatusOK, statusApproved, "SUCCEEDED")
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func TestInvalidRequestsAreRefusedByFieldAndRule(t *testing.T) {
	s := newSite(t, "")
	const canary = "4929000000006662"
	card := func(name string, value any) map[string]any {
		c := charge()["card"].(map[string]any)
		c[name] = value
		return c
	}
	for _, c := range []struct {
		field  string
		change []any
	}{
		{"reference: ", []any{"reference", ""}},
		{"reference: ", []any{"reference", strings.Repeat("x", 65)}},
		{"reference: ", []any{"reference", "a b"}},
		{"account_id: ", []any{"account_id", nil}},
		{"mode: ", []any{"mode", "prod"}},
		{"merchant_order_id: ", []any{"merchant_order_id", ""}},
		{"merchant_order_id: ", []any{"merchant_order_id", strings.Repeat("ö", 256)}},
		{"amount: ", []any{"amount", "0"}},
		{"amount: ", []any{"amount", "0.0000"}},
		{"amount: ", []any{"amount", "-1"}},
		{"amount: ", []any{"amount", "1e3"}},
		{"amount: ", []any{"amount", "1.23456"}},
		{"amount: ", []any{"amount", "10000000000"}},
		{"amount: ", []any{"amount", "01"}},
		{"amount: ", []any{"amount", canary}},
		{"currency: ", []any{"currency", "usd"}},
		{"country: ", []any{"country", "USA"}},
		{"description: ", []any{"description", ""}},
		{"capture: ", []any{"capture", nil}},
		{"card: ", []any{"card", nil}},
		{"card: ", []any{"token", "t"}},
		{"token: ", []any{"card", nil, "token", "t"}},
		{"card.number: ", []any{"card", card("number", canary+"x")}},
		{"card.security_code: ", []any{"card", card("security_code", canary)}},
		{"card.expiration_month: ", []any{"card", card("expiration_month", 13)}},
		{"card.expiration_year: ", []any{"card", card("expiration_year", 28)}},
		{"card.holder_name: ", []any{"card", card("holder_name", strings.Repeat("x", 256))}},
		{"body: ", []any{"extra", canary}},
		{"body: ", []any{"Amount", "1"}},
		{"body: card.number: must be of type string", []any{"card", card("number", json.Number(canary))}},
		{"body: amount: must be of type string", []any{"amount", json.Number("45.67")}},
		{"body: mode: must be of type string", []any{"mode", json.Number(canary)}},
		{"body: card.expiration_year: must be of type integer", []any{"card", card("expiration_year", canary)}},
	} {
		code, re := s.charge(c.change...)
		s.want(c.field, code, re, http.StatusBadRequest, statusRefused, "")
		if len(re.Messages) != 1 || !strings.HasPrefix(re.Messages[0], c.field) || strings.Contains(re.Messages[0], canary[:6]) {
			t.Errorf("%s: %q", c.field, re.Messages)
		}
	}
	for name, body := range map[string]string{
		"empty":      "",
		"no object":  `["` + canary + `"]`,
		"twice":      `{"reference":"a","reference":"b"}`,
		"trailing":   `{"reference":"a"} {}`,
		"BOM":        "\ufeff{}",
		"bad UTF-8":  "{\"reference\":\"\xff\"}",
		"cut":        `{"reference":"` + canary,
		"deep":       strings.Repeat(`{"card":`, 20) + "1" + strings.Repeat("}", 20),
		"other case": `{"Reference":"a"}`,
	} {
		code, re := s.post("/sandbox/v1/charges", body)
		s.want(name, code, re, http.StatusBadRequest, statusRefused, "")
		if re.Reference != "" || len(re.Messages) != 1 || strings.Contains(re.Messages[0], canary[:6]) {
			t.Errorf("%s: %+v", name, re)
		}
	}
	code, re := s.post("/sandbox/v1/charges", `"`+strings.Repeat("x", maxBodyBytes)+`"`)
	s.want("too large", code, re, http.StatusRequestEntityTooLarge, statusRefused, "")
	res, err := http.Post(s.url+"/sandbox/v1/charges", "text/plain", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("text/plain: %d", res.StatusCode)
	}
	if refs := references(s.ledger); len(refs) != 0 || len(s.ledger.orders) != 0 {
		t.Errorf("something was remembered: %v %v", refs, s.ledger.orders)
	}
}

func TestAKnownReferenceIsAnsweredWhateverElseTheChargeSays(t *testing.T) {
	s := newSite(t, "")
	_, first := s.charge()
	for _, change := range [][]any{
		{"amount", "1"}, {"currency", "EUR"}, {"description", "sandbox:timeuot"}, {"description", "DO_NOT_HONOR"},
		{"merchant_order_id", "o9"}, {"card", nil, "token", "unknown"}, {"capture", false},
	} {
		code, re := s.charge(change...)
		if code != http.StatusOK || fmt.Sprint(re) != fmt.Sprint(first) {
			t.Errorf("%v: %d %+v", change, code, re)
		}
	}
}

func TestTokensStandForTheirCard(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	tokenise := func(number string) string {
		c := charge()["card"].(map[string]any)
		c["number"] = number
		code, b, err := s.do(t.Context(), http.MethodPost, "/sandbox/v1/tokens", map[string]any{"card": c})
		var re map[string]string
		if err != nil || code != http.StatusCreated || json.Unmarshal([]byte(b), &re) != nil || re["token"] == "" {
			t.Fatalf("%d %s %v", code, b, err)
		}
		return re["token"]
	}
	good, bad := tokenise("4507990000000002"), tokenise("4507990000000010")
	s.server.Close()
	if err := s.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	s = newSite(t, dir)
	code, re := s.charge("card", nil, "token", good)
	s.want("a good card", code, re, http.StatusOK, statusApproved, "SUCCEEDED")
	code, re = s.charge("card", nil, "token", bad, "reference", "r2")
	s.want("a declined card", code, re, http.StatusOK, statusDeclined, "INSUFFICIENT_FUNDS")

	file, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"411111", "450799", "0010", "John", "2028"} {
		if bytes.Contains(file, []byte(part)) {
			t.Errorf("the ledger holds %q", part)
		}
	}
	code, re = s.post("/sandbox/v1/tokens", map[string]any{"card": map[string]any{"number": "4929000000006662x"}})
	s.want("no card", code, re, http.StatusBadRequest, statusRefused, "")
}

func TestTheLedgerOverHTTP(t *testing.T) {
	s := newSite(t, "")
	for i := range 3 {
		s.charge("reference", fmt.Sprint("r", i), "capture", i > 0)
	}
	s.charge("reference", "no", "merchant_order_id", "o2", "description", "DO_NOT_HONOR")
	get := func(query string) (code int, page struct {
		Entries []map[string]any `json:"entries"`
		Next    *string          `json:"next"`
	}) {
		t.Helper()
		code, b, err := s.do(t.Context(), http.MethodGet, "/sandbox/v1/ledger"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = json.Unmarshal([]byte(b), &page)
		return code, page
	}
	_, page := get("?reference=r0")
	if len(page.Entries) != 1 || page.Next != nil {
		t.Fatalf("%+v", page)
	}
	e := page.Entries[0]
	at, _ := e["created_at"].(string)
	if _, err := time.Parse(time.RFC3339, at); err != nil {
		t.Errorf("created_at: %v", err)
	}
	delete(e, "created_at")
	if want := map[string]any{"reference": "r0", "merchant_order_id": "o1", "account_id": "acc", "mode": "test", "type": "AUTHORIZE",
		"amount": "45.67", "currency": "USD", "status": "SUCCEEDED"}; fmt.Sprint(e) != fmt.Sprint(want) {
		t.Errorf("%v", e)
	}
	_, page = get("?limit=2")
	if len(page.Entries) != 2 || page.Entries[0]["reference"] != "r2" || page.Entries[0]["type"] != "PURCHASE" || page.Next == nil {
		t.Fatalf("%+v", page)
	}
	_, page = get("?limit=2&after=" + *page.Next)
	if len(page.Entries) != 1 || page.Entries[0]["reference"] != "r0" || page.Next != nil {
		t.Errorf("%+v", page)
	}
	if _, page = get("?merchant_order_id=o2"); page.Entries == nil || len(page.Entries) != 0 {
		t.Errorf("a declined order has %+v", page.Entries)
	}
	for _, query := range []string{"?limit=0", "?limit=501", "?limit=x", "?limit=", "?limit=1&limit=2", "?after=0", "?after=x", "?after=99999999999",
		"?referenc=r0", "?reference=", "?reference=a&reference=b", "?a=%zz", "?a;b", "?Limit=1"} {
		if code, _ := get(query); code != http.StatusBadRequest {
			t.Errorf("%s: %d", query, code)
		}
	}
	for _, query := range []string{"", "?account_id=acc&mode=test", "?account_id=acc&mode=x&reference=r0", "?account_id=acc&mode=test&reference=r0&x=1"} {
		if code, _, err := s.do(t.Context(), http.MethodGet, "/sandbox/v1/charges"+query, nil); err != nil || code != http.StatusBadRequest {
			t.Errorf("%s: %d %v", query, code, err)
		}
	}
}

func TestABrokenLedgerAnswersNothing(t *testing.T) {
	s := newSite(t, t.TempDir())
	s.charge()
	if code, _, _ := s.do(t.Context(), http.MethodGet, "/livez", nil); code != http.StatusOK {
		t.Errorf("livez: %d", code)
	}
	s.ledger.journal.sync = func() error { return errors.New("no space left on device") }
	token := map[string]any{"card": charge()["card"]}
	void := map[string]string{"reference": "r9", "account_id": "acc", "mode": "test", "merchant_order_id": "o1"}
	for i, c := range []struct {
		method, path string
		body         any
	}{
		{http.MethodPost, "/sandbox/v1/charges", charge("reference", "r2")},
		{http.MethodPost, "/sandbox/v1/charges", charge()},
		{http.MethodGet, "/sandbox/v1/charges?account_id=acc&mode=test&reference=r1", nil},
		{http.MethodPost, "/sandbox/v1/voids", void},
		{http.MethodPost, "/sandbox/v1/tokens", token},
		{http.MethodGet, "/sandbox/v1/ledger", nil},
	} {
		if code, b, err := s.do(t.Context(), c.method, c.path, c.body); err != nil || code != http.StatusInternalServerError {
			t.Errorf("%d: %s %s: %d %s %v", i, c.method, c.path, code, b, err)
		}
	}
	if code, b, _ := s.do(t.Context(), http.MethodGet, "/livez", nil); code != http.StatusServiceUnavailable || !strings.Contains(b, "no space") {
		t.Errorf("livez: %d %s", code, b)
	}
}
