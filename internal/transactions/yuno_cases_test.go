package transactions

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// The cases Y01 to Y34 of docs/reference/cases.md: how a nonce behaves under the
// default policy. The referee is always the provider's own count.

// soon bounds what must happen at once anyway: only a bug reaches it.
const soon = 20 * time.Second

// receive takes what another goroutine sends, or fails the test.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(soon):
		t.Fatalf("%s: nothing came within %s", what, soon)
		panic("unreachable")
	}
}

// until asks again and again, and fails the test if the condition never holds.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.After(soon)
	for !holds() {
		select {
		case <-deadline:
			w.t.Fatalf("%s: not within %s", what, soon)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// holdNext keeps the provider's next send waiting. It tells when the send has
// arrived, and lets it go when asked to, or when the test ends. The instances so far
// stay alive meanwhile, however slow the machine.
func (w *world) holdNext(then behaviour) (arrived <-chan struct{}, letGo func()) {
	w.t.Helper()
	w.steady()
	came, gate := make(chan struct{}, 1), make(chan struct{})
	letGo = sync.OnceFunc(func() { close(gate) })
	w.t.Cleanup(letGo) // a server that waits for its request could not be closed
	w.psp.next(waiting(came, gate, then))
	return came, letGo
}

// atOnce sends n requests side by side and hands out their answers as they come.
// One that failed on the way has status 0 and the error as its body.
func atOnce(n int, send func(i int) (response, error)) <-chan response {
	answers := make(chan response, n)
	for i := range n {
		go func() {
			r, err := send(i)
			if err != nil {
				r = response{body: []byte(err.Error())}
			}
			answers <- r
		}()
	}
	return answers
}

// post is create for a goroutine: it does not end the test.
func (w *world) post(i instance, pair merchants.KeyPair, nonce string, body []byte) (response, error) {
	return request(w.t.Context(), http.MethodPost, i.public.URL+"/v1/payments", body, append(keys(pair), idem.Header, nonce)...)
}

// background is one create whose answer the test collects later.
func (w *world) background(nonce string, body []byte) <-chan response {
	return atOnce(1, func(int) (response, error) { return w.post(w.instance, w.test, nonce, body) })
}

// createRaw writes a create request onto the wire as it stands, so that header
// lines arrive as no client library would send them.
func (w *world) createRaw(body []byte, lines ...string) response {
	w.t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST /v1/payments HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\npublic-api-key: %s\r\nprivate-secret-key: %s\r\n", len(body), w.test.PublicAPIKey, w.test.PrivateSecretKey)
	for _, line := range lines {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	ctx, cancel := context.WithTimeout(w.t.Context(), soon)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.public.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(soon))
	if _, err := c.Write(b.Bytes()); err != nil {
		w.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(res.Body); err != nil {
		w.t.Fatal(err)
	}
	return response{res.StatusCode, res.Header, answer.Bytes()}
}

// rows counts the rows of every table.
func (w *world) rows() map[string]int {
	w.t.Helper()
	var tables []string
	if err := w.db.Conn(w.t.Context()).Raw(`SELECT tablename FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables).Error; err != nil {
		w.t.Fatal(err)
	}
	n := make(map[string]int, len(tables))
	for _, table := range tables {
		n[table] = w.count(`SELECT count(*) FROM ` + table)
	}
	return n
}

// footprint is all that a request could leave behind: rows, and what reached the
// provider.
type footprint struct {
	rows            map[string]int
	sent, inquiries int
}

func (w *world) footprint() footprint {
	w.t.Helper()
	if _, err := w.arrivals.Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.psp.mu.Lock()
	defer w.psp.mu.Unlock()
	return footprint{w.rows(), len(w.psp.sends), w.psp.inquiry}
}

// wantUntouched fails the test if anything changed since before, except in the
// tables named. The provider must not have been asked anything at all.
func (w *world) wantUntouched(before footprint, except ...string) {
	w.t.Helper()
	after := w.footprint()
	for _, table := range except {
		delete(before.rows, table)
		delete(after.rows, table)
	}
	if !maps.Equal(before.rows, after.rows) {
		w.t.Fatalf("the request left rows behind: %v became %v", before.rows, after.rows)
	}
	if before.sent != after.sent || before.inquiries != after.inquiries {
		w.t.Fatalf("the provider was called: %d sends and %d inquiries became %d and %d", before.sent, before.inquiries, after.sent, after.inquiries)
	}
}

// wantError fails the test unless r is exactly the contract's envelope with this
// code and these messages.
func (w *world) wantError(r response, status int, code string, messages ...string) {
	w.t.Helper()
	w.want(r, status, code)
	var envelope struct {
		Code      string   `json:"code"`
		Messages  []string `json:"messages"`
		RequestID string   `json:"request_id"`
		DocURL    string   `json:"doc_url"`
	}
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&envelope); err != nil {
		w.t.Fatalf("the answer is no error envelope: %v: %s", err, r)
	}
	if !slices.Equal(envelope.Messages, messages) {
		w.t.Fatalf("the messages are %q, want %q", envelope.Messages, messages)
	}
	if envelope.RequestID == "" || envelope.RequestID != r.header.Get(httpapi.HeaderRequestID) {
		w.t.Fatalf("request_id is %q in the body and %q in the header", envelope.RequestID, r.header.Get(httpapi.HeaderRequestID))
	}
	if envelope.DocURL != "/docs/errors/"+code {
		w.t.Fatalf("doc_url is %q", envelope.DocURL)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		w.t.Fatalf("an error of content type %q", got)
	}
}

// inProcessMessage is what a duplicate of a running request is told.
const inProcessMessage = "a request with this idempotency key is in process; retry with the same key"

// wantInProcess fails the test unless r tells a duplicate to come back.
func (w *world) wantInProcess(r response) {
	w.t.Helper()
	w.wantError(r, http.StatusConflict, "REQUEST_IN_PROCESS", inProcessMessage)
	if got := r.header.Get("Retry-After"); got != "1" {
		w.t.Fatalf("Retry-After is %q, want 1", got)
	}
	w.wantNoReplay(r)
}

// wantReplay fails the test unless again repeats first, byte for byte, and says so;
// differs says whether it should also tell of another body.
func (w *world) wantReplay(first, again response, differs bool) {
	w.t.Helper()
	if again.status != first.status {
		w.t.Fatalf("the first answer was %d %s, the replay is %d %s", first.status, first.code(), again.status, again.code())
	}
	if at := differAt(first.body, again.body); at >= 0 {
		w.t.Fatalf("the replay differs from byte %d on: %q became %q", at, excerpt(first.body, at), excerpt(again.body, at))
	}
	if got := again.header.Get(headerReplayed); got != "true" {
		w.t.Fatalf("%s is %q, want true", headerReplayed, got)
	}
	mismatch := ""
	if differs {
		mismatch = "true"
	}
	if got := again.header.Get(headerMismatch); got != mismatch {
		w.t.Fatalf("%s is %q, want %q", headerMismatch, got, mismatch)
	}
	for _, name := range []string{"Content-Type", "Content-Length"} {
		if first.header.Get(name) != again.header.Get(name) {
			w.t.Fatalf("%s was %q and is %q in the replay", name, first.header.Get(name), again.header.Get(name))
		}
	}
}

// differAt is where two texts begin to differ, or -1.
func differAt(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) == len(b) {
		return -1
	}
	return min(len(a), len(b))
}

// excerpt is what stands around a place in a text.
func excerpt(text []byte, at int) []byte { return text[max(0, at-30):min(len(text), at+30)] }

// wantNoReplay fails the test if r claims to be a replay.
func (w *world) wantNoReplay(r response) {
	w.t.Helper()
	if r.header.Get(headerReplayed) != "" || r.header.Get(headerMismatch) != "" {
		w.t.Fatalf("the answer claims to be a replay: %v", r.header)
	}
}

// wantSends fails the test unless the provider received that many sends, all of
// them under as many references.
func (w *world) wantSends(n, references int) {
	w.t.Helper()
	w.psp.mu.Lock()
	sends := slices.Clone(w.psp.sends)
	w.psp.mu.Unlock()
	distinct := slices.Compact(slices.Sorted(slices.Values(sends)))
	if len(sends) != n || len(distinct) != references {
		w.t.Fatalf("the provider received %d sends under %d references, want %d under %d", len(sends), len(distinct), n, references)
	}
}

// wantEvents fails the test unless the newest payment of the nonce has exactly
// these events, as causes.
func (w *world) wantEvents(nonce string, causes ...string) {
	w.t.Helper()
	var got []string
	err := w.db.Conn(w.t.Context()).Raw(`SELECT cause FROM events WHERE payment_id = $1 ORDER BY seq`, w.transaction(nonce).PaymentID).Scan(&got).Error
	if err != nil {
		w.t.Fatal(err)
	}
	if !slices.Equal(got, causes) {
		w.t.Fatalf("the payment's events are %v, want %v", got, causes)
	}
}

// wantVerdicts fails the test unless the life's requests met exactly these.
func (w *world) wantVerdicts(l Life, verdicts ...idem.Verdict) {
	w.t.Helper()
	var got []idem.Verdict
	for _, m := range l.Timeline {
		if m.Kind == "request" {
			got = append(got, idem.Verdict(m.Verdict))
		}
	}
	if !slices.Equal(got, verdicts) {
		w.t.Fatalf("the life's requests met %v, want %v", got, verdicts)
	}
}

// onlyLife is the one life that a nonce has.
func (w *world) onlyLife(nonce string) Life {
	w.t.Helper()
	lives := w.lives(nonce)
	if len(lives) != 1 {
		w.t.Fatalf("the nonce has %d lives, want 1", len(lives))
	}
	return lives[0]
}

// transactionsOf counts the transactions that a nonce ever had.
func (w *world) transactionsOf(nonce string) int {
	w.t.Helper()
	return w.count(`SELECT count(*) FROM transactions WHERE nonce = $1`, nonce)
}

const nonceRule = "X-Idempotency-Key must have at most 64 characters"

func TestY01RequestWithoutANonceIsRefusedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.footprint()
	r := w.call(http.MethodPost, w.public.URL+"/v1/payments", w.body("order-1", nil), keys(w.test)...)
	w.wantError(r, http.StatusBadRequest, "MISSING_PARAMETERS", "X-Idempotency-Key is required")
	w.wantUntouched(before)
}

func TestY02EmptyOrBlankNonceCountsAsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.footprint()
	for _, lines := range [][]string{
		{"X-Idempotency-Key:"}, {"X-Idempotency-Key: "}, {"X-Idempotency-Key:    "}, {"X-Idempotency-Key: \t \t"},
		{"Idempotency-Key:  "}, {"X-Idempotency-Key: ", "Idempotency-Key: \t"},
	} {
		r := w.createRaw(w.body("order-1", nil), lines...)
		w.wantError(r, http.StatusBadRequest, "MISSING_PARAMETERS", "X-Idempotency-Key is required")
	}
	w.wantUntouched(before)
}

func TestY03NonceOf64CharactersIsAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nonce := strings.Repeat("k", 64)
	first := w.create(nonce, w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	w.wantReplay(first, w.create(nonce, w.body("order-1", nil)), false)
	w.wantCharges("order-1", 1)
}

func TestY04NonceOf65CharactersIsRefusedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.footprint()
	r := w.create(strings.Repeat("k", 65), w.body("order-1", nil))
	w.wantError(r, http.StatusBadRequest, "INVALID_PARAMETERS", nonceRule)
	w.wantUntouched(before)
}

func TestY05TheHeadersNameIsTheSameInAnyCase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.body("order-1", nil)
	first := w.create("nonce-1", body)
	w.want(first, http.StatusCreated)
	for _, line := range []string{
		"x-IDEMPOTENCY-key: nonce-1", "X-Idempotency-Key: nonce-1", "x-idempotency-key:nonce-1", "X-IDEMPOTENCY-KEY: \tnonce-1 ",
		"idempotency-KEY: nonce-1", // the name that the standard draft gives it
	} {
		again := w.createRaw(body, line)
		w.wantReplay(first, again, false)
	}
	w.wantCharges("order-1", 1)
}

// The key, the payment and its transaction are one statement, so there is no
// moment between them in which a fault could leave a key that protects nothing.
func TestY06FaultBetweenKeyAndTransactionLeavesNeither(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		table, act, code string
		status           int
	}{
		"the transaction is refused":                {"transactions", "RAISE EXCEPTION 'a fault of this test'", "INTERNAL_ERROR", http.StatusInternalServerError},
		"the payment is refused":                    {"payments", "RAISE EXCEPTION 'a fault of this test'", "INTERNAL_ERROR", http.StatusInternalServerError},
		"the connection dies at the transaction":    {"transactions", "PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(60)", "SERVICE_UNAVAILABLE", http.StatusServiceUnavailable},
		"the connection dies at the payment":        {"payments", "PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(60)", "SERVICE_UNAVAILABLE", http.StatusServiceUnavailable},
		"the transaction waits for a lock for ever": {"transactions", "RAISE lock_not_available", "REQUEST_IN_PROCESS", http.StatusConflict},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			before := w.footprint()
			pgtest.Exec(t, w.url, `CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN `+strings.ReplaceAll(fault.act, "'", "''")+`; RETURN NEW; END';
				CREATE TRIGGER fault BEFORE INSERT ON `+fault.table+` FOR EACH ROW EXECUTE FUNCTION fault()`)
			w.want(w.create("nonce-1", w.body("order-1", nil)), fault.status, fault.code)
			w.wantUntouched(before, "arrivals")

			pgtest.Exec(t, w.url, `DROP TRIGGER fault ON `+fault.table)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantVerdicts(w.onlyLife("nonce-1"), idem.New)
			w.wantCharges("order-1", 1)
		})
	}
}

func TestY07FinishedKeyReplaysByteForByte(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.body("order-1", map[string]any{
		"metadata": json.RawMessage(`[{"value":"é <&> \u2028","key":"z"},{"key":"a","value":"1"}]`), "customer_payer": json.RawMessage(`{"b":1.50,"a":{"z":null,"y":[]}}`),
	})
	first := w.create("nonce-1", body)
	w.want(first, http.StatusCreated)
	w.wantNoReplay(first)
	other := w.newInstance(w.db)
	for range 3 {
		w.wantReplay(first, w.create("nonce-1", body), false)
		w.wantReplay(first, w.createOn(other, w.test, "nonce-1", body), false)
	}
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
	w.wantEvents("nonce-1", "provider")
	if n := w.transactionsOf("nonce-1"); n != 1 {
		t.Fatalf("%d transactions, want 1", n)
	}
}

func TestY08AnotherAmountUnderAFinishedKeyGetsTheFirstAnswerAndIsNoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	again := w.create("nonce-1", w.body("order-1", map[string]any{"amount": json.Number("99.99")}))
	w.wantReplay(first, again, true)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)

	life := w.onlyLife("nonce-1")
	w.wantVerdicts(life, idem.New, idem.Replayed)
	if n := w.count(`SELECT count(*) FROM arrivals WHERE nonce = 'nonce-1' AND verdict = 'replayed' AND body_differs AND differs = 'amount'`); n != 1 {
		t.Fatalf("%d arrivals say that the amount was another, want 1", n)
	}
	if n := w.count(`SELECT count(*) FROM arrivals WHERE nonce = 'nonce-1' AND verdict = 'new' AND NOT body_differs`); n != 1 {
		t.Fatalf("%d first arrivals of the same body, want 1", n)
	}
	if want := "Charged once: 45.67 USD on "; !strings.HasPrefix(life.Verdict, want) {
		t.Errorf("the verdict is %q, want it to begin with %q", life.Verdict, want)
	}
	if want := " Replayed once, once with a different amount, which was ignored."; !strings.HasSuffix(life.Verdict, want) {
		t.Errorf("the verdict is %q, want it to end with %q", life.Verdict, want)
	}
}

func TestY09InvalidBodyUnderAFinishedKeyGetsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	before := w.footprint()
	for name, body := range map[string][]byte{
		"without an amount": w.body("order-1", map[string]any{"amount": nil}),
		"an amount below 0": w.body("order-1", map[string]any{"amount": json.Number("-1")}),
		"another account":   w.body("order-1", map[string]any{"account_id": uuid.NewString()}),
		"no members":        []byte(`{}`),
		"a list":            []byte(`[]`),
		"cut off":           w.body("order-1", nil)[:40],
		"no JSON":           []byte("amount=45.67"),
		"nothing":           {},
	} {
		again := w.create("nonce-1", body)
		if again.status != first.status {
			t.Fatalf("%s: got %s", name, again)
		}
		w.wantReplay(first, again, true)
	}
	w.wantUntouched(before, "arrivals")
	w.wantCharges("order-1", 1)
}

// A token that nobody knows is a broken rule like any other, although its code
// travels with 401.
func TestY09UnknownTokenUnderAFinishedKeyGetsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	before := w.footprint()
	again := w.create("nonce-1", w.edited(edit{"payment_method.token", `"a token of another account"`}))
	w.wantReplay(first, again, true)
	w.wantUntouched(before, "arrivals")
}

func TestY10DeclineIsKeptAndReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(decline)
	body := w.body("order-1", nil)
	first := w.create("nonce-1", body)
	w.want(first, http.StatusCreated)
	for path, want := range map[string]string{
		"status": "DECLINED", "sub_status": "DECLINED", "transactions.status": "DECLINED", "transactions.response_code": "INSUFFICIENT_FUNDS",
	} {
		if got := first.get(strings.Split(path, ".")...); got != want {
			t.Errorf("%s is %v, want %s", path, got, want)
		}
	}
	w.wantReplay(first, w.create("nonce-1", body), false)
	w.wantSends(1, 1)
	w.wantCharges("order-1", 0)
	w.wantEvents("nonce-1", "provider")
	if life := w.onlyLife("nonce-1"); life.KeyState != KeyAnswered || life.Charges != 0 {
		t.Errorf("the key is %s with %d charges, want answered with none", life.KeyState, life.Charges)
	}
}

// wantKept is what Y11 and Y12 have in common: an outcome that is stored and
// replayed.
func (w *world) wantKept(capture bool, typ Type, status PaymentStatus) {
	w.t.Helper()
	body := w.body("order-1", map[string]any{"capture": capture})
	first := w.create("nonce-1", body)
	w.want(first, http.StatusCreated)
	if got := (PaymentStatus{fmt.Sprint(first.get("status")), fmt.Sprint(first.get("sub_status"))}); got != status {
		w.t.Fatalf("the payment is %v, want %v", got, status)
	}
	if got := first.get("transactions", "type"); got != string(typ) {
		w.t.Fatalf("the transaction is a %v, want %s", got, typ)
	}
	w.wantReplay(first, w.create("nonce-1", body), false)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
	w.wantEvents("nonce-1", "provider")
}

func TestY11AuthorizationIsKeptAndReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.wantKept(false, Authorize, PaymentAuthorized)
	if n := w.count(`SELECT count(*) FROM payments WHERE authorized = 45.67 AND settled = 0 AND authorize_pending = 0`); n != 1 {
		t.Fatal("the payment is not held as authorized and not settled")
	}
}

func TestY12CapturedPaymentIsKeptAndReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.wantKept(true, Purchase, PaymentApproved)
	if n := w.count(`SELECT count(*) FROM payments WHERE authorized = 45.67 AND settled = 45.67 AND settle_pending = 0`); n != 1 {
		t.Fatal("the payment is not held as settled")
	}
}

func TestY13DuplicateIsToldToWaitWhileTheProviderIsSlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.body("order-1", nil)
	arrived, letGo := w.holdNext(approve)
	first := w.background("nonce-1", body)
	receive(t, arrived, "the provider's first send")

	w.wantInProcess(w.create("nonce-1", body)) // the provider still sleeps
	w.wantInProcess(w.createOn(w.newInstance(w.db), w.test, "nonce-1", body))
	if state := w.onlyLife("nonce-1").KeyState; state != KeyOpen {
		t.Errorf("meanwhile the key is %s, want open", state)
	}
	select {
	case r := <-first:
		t.Fatalf("the first request was answered although its provider was not: %s", r)
	default:
	}
	letGo()
	w.want(receive(t, first, "the first request's answer"), http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

func TestY14Of200SimultaneousRequestsOneIsServed(t *testing.T) {
	t.Parallel()
	const n = 200
	w := newWorld(t)
	w.wantOneOf(n, "nonce-1", "order-1")
	w.wantEvents("nonce-1", "provider")
	if n := w.transactionsOf("nonce-1"); n != 1 {
		t.Fatalf("%d transactions, want 1", n)
	}
	life := w.onlyLife("nonce-1")
	met := map[string]int{}
	for _, m := range life.Timeline {
		met[m.Verdict]++
	}
	if met[string(idem.New)] != 1 || met[string(idem.InProcess)] != n-1 {
		t.Errorf("the timeline has %d new and %d in process, want 1 and %d", met[string(idem.New)], met[string(idem.InProcess)], n-1)
	}
}

// wantOneOf sends n requests with one nonce over two instances while the provider
// waits. All but one must be told to come back before it is let go; the one must
// then be served.
func (w *world) wantOneOf(n int, nonce, order string) {
	w.t.Helper()
	body := w.body(order, nil)
	other := w.newInstance(w.db)
	charged, sent := w.psp.charges(order), w.psp.sent()
	arrived, letGo := w.holdNext(approve)
	answers := atOnce(n, func(i int) (response, error) {
		return w.post([]instance{w.instance, other}[i%2], w.test, nonce, body)
	})
	receive(w.t, arrived, "the provider's first send")
	w.sql(`UPDATE transactions SET lease_until = lease_until + interval '1 hour' WHERE lease_until IS NOT NULL`) // as long as the test takes
	for i := range n - 1 {
		w.wantInProcess(receive(w.t, answers, fmt.Sprintf("answer %d of %d, while the provider waits", i+1, n)))
	}
	letGo()
	w.want(receive(w.t, answers, "the answer of the one that was served"), http.StatusCreated)
	w.wantCharges(order, charged+1)
	if got := w.psp.sent(); got != sent+1 {
		w.t.Fatalf("the provider received %d sends, want 1", got-sent)
	}
	for _, i := range []instance{w.instance, other} { // so that the timeline is complete
		if _, err := i.arrivals.Flush(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestY15DuplicateWithAnotherBodyIsToldToWaitToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	arrived, letGo := w.holdNext(approve)
	first := w.background("nonce-1", w.body("order-1", nil))
	receive(t, arrived, "the provider's first send")
	for _, changes := range []map[string]any{
		{"amount": json.Number("99.99")}, {"description": "Another payment"}, {"merchant_order_id": "order-2"}, {"capture": false},
	} {
		w.wantInProcess(w.create("nonce-1", w.body("order-1", changes)))
	}
	letGo()
	r := receive(t, first, "the first request's answer")
	w.want(r, http.StatusCreated)
	if !bytes.Contains(r.body, []byte(`"value":45.67`)) {
		t.Errorf("the first request's amount is not in its answer: %s", r)
	}
	w.wantCharges("order-1", 1)
	w.wantCharges("order-2", 0)
}

func TestY16ToldToWaitIsNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.body("order-1", nil)
	arrived, letGo := w.holdNext(approve)
	first := w.background("nonce-1", body)
	receive(t, arrived, "the provider's first send")
	w.wantInProcess(w.create("nonce-1", body))
	letGo()
	answer := receive(t, first, "the first request's answer")
	w.want(answer, http.StatusCreated)
	w.wantReplay(answer, w.create("nonce-1", body), false)
	w.wantCharges("order-1", 1)
}

func TestY17InvalidRequestDoesNotConsumeItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.footprint()
	r := w.create("nonce-1", w.body("order-1", map[string]any{"amount": json.Number("45.678")}))
	w.wantError(r, http.StatusBadRequest, "INVALID_AMOUNT", "$.amount.value must not have more decimal places than its currency: USD has 2")
	w.wantNoReplay(r)
	w.wantUntouched(before, "arrivals")

	fixed := w.create("nonce-1", w.body("order-1", nil))
	w.want(fixed, http.StatusCreated)
	w.wantNoReplay(fixed)
	w.wantCharges("order-1", 1)
	if n := w.transactionsOf("nonce-1"); n != 1 {
		t.Fatalf("%d transactions, want 1", n)
	}
	if n := w.count(`SELECT count(*) FROM arrivals WHERE nonce = 'nonce-1' AND verdict = 'rejected' AND transaction_id IS NULL`); n != 1 {
		t.Errorf("%d arrivals were noted as rejected, want 1", n)
	}
}

func TestY18RequestThatTheProviderRefusesGivesItsKeyBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(refuse)
	r := w.create("nonce-1", w.body("order-1", nil))
	w.wantError(r, http.StatusBadRequest, "INVALID_REQUEST",
		"the provider refused the request as invalid and moved nothing; correct it and retry with the same key")
	refused := w.transaction("nonce-1")
	if refused.Status != Rejected || !refused.Released || refused.LeaseUntil != nil {
		t.Fatalf("the refused transaction is %s, released %t", refused.Status, refused.Released)
	}
	if n := w.count(`SELECT count(*) FROM idempotency_keys`); n != 0 {
		t.Fatalf("%d keys are kept, want none", n)
	}
	w.wantEvents("nonce-1", "refused")
	if got := w.get("/v1/payments/" + refused.PaymentID.String()); got.get("status") != "REJECTED" || got.get("sub_status") != "REJECTED" {
		t.Errorf("the refused payment is shown as %s", got)
	}

	fixed := w.create("nonce-1", w.body("order-1", map[string]any{"description": "A corrected payment"}))
	w.want(fixed, http.StatusCreated)
	w.wantNoReplay(fixed)
	w.wantSends(2, 2) // the new life has a reference of its own
	w.wantCharges("order-1", 1)
	lives := w.lives("nonce-1")
	if len(lives) != 2 {
		t.Fatalf("the look-up tells of %d lives, want 2", len(lives))
	}
	if l := lives[0]; l.KeyState != KeyAnswered || l.Transaction.Status != Succeeded || l.Charges != 1 || l.Transaction.ID != fixed.get("transactions", "id") {
		t.Errorf("the newest life is %s, %s with %d charges", l.KeyState, l.Transaction.Status, l.Charges)
	}
	if l := lives[1]; l.KeyState != KeyReleased || l.Transaction.Status != Rejected || l.Charges != 0 || l.Transaction.ID != refused.ID.String() {
		t.Errorf("the older life is %s, %s with %d charges", l.KeyState, l.Transaction.Status, l.Charges)
	}
	w.wantVerdicts(lives[0], idem.New)
	w.wantVerdicts(lives[1], idem.New)
}

func TestY19ProviderThatWasNeverReachedGivesTheKeyBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(notReached)
	body := w.body("order-1", nil)
	r := w.create("nonce-1", body)
	w.wantError(r, http.StatusServiceUnavailable, "PROVIDER_UNAVAILABLE",
		"the provider could not be reached and moved nothing; retry with the same key")
	if got := r.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After is %q, want 1", got)
	}
	if tx := w.transaction("nonce-1"); tx.Status != Errored || !tx.Released {
		t.Fatalf("the transaction is %s, released %t; want ERROR and released", tx.Status, tx.Released)
	}
	w.wantEvents("nonce-1", "not_reached")

	retry := w.create("nonce-1", body)
	w.want(retry, http.StatusCreated)
	w.wantNoReplay(retry)
	w.wantCharges("order-1", 1)
	if lives := w.lives("nonce-1"); len(lives) != 2 || lives[1].KeyState != KeyReleased || lives[0].KeyState != KeyAnswered {
		t.Errorf("the lives are %+v", lives)
	}
}

// lostAnswer begins a payment whose charge is booked and whose answer is lost.
func (w *world) lostAnswer(nonce, order string) Transaction {
	w.t.Helper()
	w.psp.next(chargeThenTimeout)
	r := w.create(nonce, w.body(order, nil))
	w.wantError(r, http.StatusGatewayTimeout, "REQUEST_TIMEOUT", "the provider did not answer in time, the outcome is not known; retry with the same key")
	w.wantNoReplay(r)
	if got := r.header.Get("Retry-After"); got != "1" {
		w.t.Errorf("Retry-After is %q, want 1", got)
	}
	w.wantCharges(order, 1)
	tx := w.transaction(nonce)
	if tx.Status != Created || tx.LeaseUntil == nil || tx.Fence != 1 {
		w.t.Fatalf("after a lost answer the transaction is %s under fence %d", tx.Status, tx.Fence)
	}
	if state := w.onlyLife(nonce).KeyState; state != KeyUnresolved {
		w.t.Fatalf("after a lost answer the key is %s, want unresolved", state)
	}
	return tx
}

func TestY20LostAnswerIsFoundAgainByTheRetry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lost := w.lostAnswer("nonce-1", "order-1")
	if r := w.get("/v1/payments/" + lost.PaymentID.String()); r.get("status") != "PENDING" || r.get("sub_status") != "PENDING_PROVIDER_CONFIRMATION" {
		t.Errorf("meanwhile the payment is shown as %v/%v", r.get("status"), r.get("sub_status"))
	}
	retry := w.create("nonce-1", w.body("order-1", nil))
	w.want(retry, http.StatusCreated)
	w.wantNoReplay(retry)
	if got := retry.get("transactions", "id"); got != lost.ID.String() {
		t.Errorf("the retry answered with transaction %v, want the first one, %s", got, lost.ID)
	}
	if got := retry.get("transactions", "provider_data", "transaction_id"); got != "psp-"+lost.ID.String() {
		t.Errorf("the provider's reference is %v", got)
	}
	if got := retry.get("status"); got != "SUCCEEDED" {
		t.Errorf("the payment is %v", got)
	}
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1) // the retry asked, and was told
	w.wantReplay(retry, w.create("nonce-1", w.body("order-1", nil)), false)
	life := w.onlyLife("nonce-1")
	w.wantVerdicts(life, idem.New, idem.Resumed, idem.Replayed)
	if life.Transaction.Attempts != 2 {
		t.Errorf("%d attempts, want 2", life.Transaction.Attempts)
	}
	w.wantEvents("nonce-1", "provider")
}

// A provider that does not tell yet what it booked is sent the same reference
// again, and recognises it.
func TestY20RetryThatResendsUsesTheSameProviderKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lost := w.lostAnswer("nonce-1", "order-1")
	w.psp.asked(func() (providers.Result, bool) { return providers.Result{Outcome: providers.NotFound}, true })
	retry := w.create("nonce-1", w.body("order-1", nil))
	w.want(retry, http.StatusCreated)
	if got := retry.get("transactions", "id"); got != lost.ID.String() {
		t.Errorf("the retry answered with transaction %v, want the first one, %s", got, lost.ID)
	}
	w.wantSends(2, 1)
	w.wantCharges("order-1", 1)
	w.wantEvents("nonce-1", "provider")
}

func TestY21RetryWithAnotherBodyResumesTheFirstRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lost := w.lostAnswer("nonce-1", "order-1")
	retry := w.create("nonce-1", w.body("order-1", map[string]any{"amount": json.Number("99.99")}))
	w.want(retry, http.StatusCreated)
	if got := retry.header.Get(headerMismatch); got != "true" {
		t.Errorf("%s is %q, want true", headerMismatch, got)
	}
	if got := retry.header.Get(headerReplayed); got != "" {
		t.Errorf("%s is %q on an answer that nobody had before", headerReplayed, got)
	}
	if got := retry.get("transactions", "id"); got != lost.ID.String() {
		t.Errorf("the retry answered with transaction %v, want the first one, %s", got, lost.ID)
	}
	if !bytes.Contains(retry.body, []byte(`"value":45.67`)) || bytes.Contains(retry.body, []byte("99.99")) {
		t.Errorf("the answer is not about the first amount: %s", retry)
	}
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
	w.psp.mu.Lock()
	if got := w.psp.bookings[0].Amount.String(); got != "45.67" {
		t.Errorf("the provider booked %s, want 45.67", got)
	}
	w.psp.mu.Unlock()
	w.wantVerdicts(w.onlyLife("nonce-1"), idem.New, idem.Resumed)
	if n := w.count(`SELECT count(*) FROM arrivals WHERE verdict = 'resumed' AND body_differs AND differs = 'amount'`); n != 1 {
		t.Errorf("%d resuming arrivals say that the amount was another, want 1", n)
	}
}

func TestY22RecoveryFinishesWhatNobodyAsksForAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lost := w.lostAnswer("nonce-1", "order-1")
	w.shift("nonce-1", 2*time.Second)
	taken, err := w.service.Recover(t.Context())
	if err != nil || taken != 1 {
		t.Fatalf("recovery took %d transactions (%v), want 1", taken, err)
	}
	w.wantEvents("nonce-1", "provider")
	life := w.onlyLife("nonce-1")
	if life.KeyState != KeyAnswered || life.Transaction.Status != Succeeded || life.Charges != 1 || life.Transaction.ID != lost.ID.String() {
		t.Fatalf("the life is %s, %s with %d charges; want answered, SUCCEEDED with 1", life.KeyState, life.Transaction.Status, life.Charges)
	}
	w.wantSends(1, 1)
	w.wantCharges("order-1", 1)
	if taken, err := w.service.Recover(t.Context()); err != nil || taken != 0 {
		t.Fatalf("a second round took %d transactions (%v), want none", taken, err)
	}

	late := w.create("nonce-1", w.body("order-1", nil))
	w.want(late, http.StatusCreated)
	if late.header.Get(headerReplayed) != "true" || late.get("transactions", "id") != lost.ID.String() {
		t.Errorf("a late retry got %s", late)
	}
	w.wantEvents("nonce-1", "provider")
}

func TestY23ServerErrorIsNeverReplayed(t *testing.T) {
	t.Parallel()
	chargeThenError := func(ctx context.Context, p *psp, c providers.Charge) providers.Result {
		p.book(c)
		return serverError(ctx, p, c)
	}
	for name, c := range map[string]struct {
		does  behaviour
		sends int
	}{"charged": {chargeThenError, 1}, "charged nothing": {serverError, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.psp.next(c.does)
			body := w.body("order-1", nil)
			first := w.create("nonce-1", body)
			w.wantError(first, http.StatusBadGateway, "PROVIDER_ERROR", "the provider's answer leaves the outcome open; retry with the same key")
			if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE response_status IS NULL AND response_body IS NULL`); n != 1 {
				t.Fatal("the error was stored, or the key given back")
			}
			second := w.create("nonce-1", body)
			w.want(second, http.StatusCreated)
			w.wantNoReplay(second)
			w.wantReplay(second, w.create("nonce-1", body), false)
			w.wantCharges("order-1", 1)
			w.wantSends(c.sends, 1)
		})
	}
}

// The rule that had to be found by running it: "connection refused" on a second
// attempt proves nothing about the first one, whose charge may stand.
func TestY24SecondAttemptsConnectionRefusedKeepsTheKey(t *testing.T) {
	t.Parallel()
	for name, scene := range map[string]struct {
		retry func(w *world) // what the retry meets
		sends int
	}{
		"the provider cannot be asked": {func(w *world) {
			w.psp.asked(func() (providers.Result, bool) { return providers.Result{Outcome: providers.Unclear}, true })
		}, 1},
		"the provider does not know yet, and the resend is refused a connection": {func(w *world) {
			w.psp.asked(func() (providers.Result, bool) { return providers.Result{Outcome: providers.NotFound}, true })
			w.psp.next(notReached)
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			lost := w.lostAnswer("nonce-1", "order-1")
			scene.retry(w)
			second := w.create("nonce-1", w.body("order-1", nil))
			w.want(second, http.StatusBadGateway, "PROVIDER_ERROR")
			tx := w.transaction("nonce-1")
			if tx.ID != lost.ID || tx.Status != Created || tx.Released || tx.Fence != 2 {
				t.Fatalf("after the second attempt the transaction is %s, fence %d, released %t", tx.Status, tx.Fence, tx.Released)
			}
			if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE transaction_id = $1 AND response_status IS NULL`, lost.ID); n != 1 {
				t.Fatal("the key was given back")
			}
			third := w.create("nonce-1", w.body("order-1", nil))
			w.want(third, http.StatusCreated)
			if got := third.get("transactions", "id"); got != lost.ID.String() {
				t.Errorf("the third attempt answered with transaction %v, want %s", got, lost.ID)
			}
			w.wantCharges("order-1", 1)
			w.wantSends(scene.sends, 1)
			w.wantEvents("nonce-1", "provider")
		})
	}
}

func TestY28LookUpTellsAMerchantOfItsOwnNonceOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lostAnswer("a/b%c?d", "order-1")
	w.want(w.create("a/b%c?d", w.body("order-1", nil)), http.StatusCreated)
	_, stranger := w.newMerchant("Second merchant")

	escaped := url.PathEscape("a/b%c?d")
	for _, path := range []string{"/v1/idempotency-keys/" + escaped, "/v1/idempotency-keys?nonce=" + url.QueryEscape("a/b%c?d")} {
		r := w.get(path)
		w.want(r, http.StatusOK)
		var found Lives
		if err := json.Unmarshal(r.body, &found); err != nil {
			t.Fatal(err)
		}
		tx := w.transaction("a/b%c?d")
		if found.Nonce != "a/b%c?d" || len(found.Lives) != 1 {
			t.Fatalf("%s tells of %d lives of %q", path, len(found.Lives), found.Nonce)
		}
		l := found.Lives[0]
		if l.AccountID != w.account.String() || l.Mode != merchants.Test || l.KeyState != KeyAnswered || l.PaymentID != tx.PaymentID.String() ||
			l.Transaction.ID != tx.ID.String() || l.Transaction.Status != Succeeded || l.Transaction.Attempts != 2 || l.Charges != 1 {
			t.Errorf("%s tells %+v", path, l)
		}
		w.wantVerdicts(l, idem.New, idem.Resumed)

		for who, pair := range map[string]merchants.KeyPair{"another merchant": stranger, "the live mode": w.live} {
			r := w.call(http.MethodGet, w.public.URL+path, nil, keys(pair)...)
			if r.status != http.StatusNotFound {
				t.Errorf("%s is told %s", who, r)
			}
			w.wantError(r, http.StatusNotFound, "NOT_FOUND", "nothing is known of this idempotency key")
		}
	}
	w.wantError(w.get("/v1/idempotency-keys/unheard-of"), http.StatusNotFound, "NOT_FOUND", "nothing is known of this idempotency key")
	w.wantError(w.get("/v1/idempotency-keys?nonce="), http.StatusBadRequest, "MISSING_PARAMETERS", "nonce is required")
	w.wantError(w.get("/v1/idempotency-keys/"+strings.Repeat("k", 65)), http.StatusNotFound, "NOT_FOUND", "nothing is known of this idempotency key")
	w.wantError(w.get("/v1/idempotency-keys/k%0a"), http.StatusBadRequest, "INVALID_PARAMETERS", "nonce must have only printable ASCII characters")
}

func TestY28MerchantsKeysOpenNothingOfTheOperators(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	token := strings.Repeat("operator", 4)
	e := httpapi.New(httpapi.Options{Log: w.service.log, Transient: postgres.IsTransient, Describe: postgres.Describe})
	admin.Mount(e, admin.Options{
		Token: token, Metrics: http.NotFoundHandler(), API: []admin.Mounter{NewOperatorHandler(w.service), merchants.NewOperatorHandler(w.auth)},
	})
	operator := serve(t, e)

	for _, route := range []struct{ method, path string }{
		{http.MethodGet, "/admin/v1/nonces/nonce-1"}, {http.MethodGet, "/admin/v1/nonces?nonce=nonce-1"},
		{http.MethodPost, "/admin/v1/transactions/" + w.transaction("nonce-1").ID.String() + "/resolve"}, {http.MethodPost, "/admin/v1/merchants"},
	} {
		for _, headers := range [][]string{
			keys(w.test), keys(w.live), append(keys(w.test), "Authorization", "Bearer "+w.test.PrivateSecretKey),
			{"Authorization", "Bearer "}, {"Authorization", token}, {"Authorization", "Bearer " + token + "x"}, {"Authorization", "Basic " + token},
		} {
			r := w.call(route.method, operator.URL+route.path, []byte(`{}`), headers...)
			w.wantError(r, http.StatusUnauthorized, "INVALID_CREDENTIALS", "Authorization must be Bearer and the admin token, or an API token")
		}
		// And the merchants' listener has no such route.
		if r := w.call(route.method, w.public.URL+route.path, nil, append(keys(w.test), "Authorization", "Bearer "+token)...); r.status != http.StatusNotFound {
			t.Errorf("the public listener answers %s %s with %s", route.method, route.path, r)
		}
	}
	r := w.call(http.MethodGet, operator.URL+"/admin/v1/nonces/nonce-1", nil, "Authorization", "Bearer "+token)
	w.want(r, http.StatusOK)
}

func TestY30NoncesDifferByCase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lower := w.create("abc", w.body("order-1", nil))
	w.want(lower, http.StatusCreated)
	upper := w.create("ABC", w.body("order-1", nil))
	w.want(upper, http.StatusCreated)
	w.wantNoReplay(upper)
	if lower.get("id") == upper.get("id") {
		t.Fatal("two keys, one payment")
	}
	w.wantReplay(lower, w.create("abc", w.body("order-1", nil)), false)
	w.wantReplay(upper, w.create("ABC", w.body("order-1", nil)), false)
	w.want(w.get("/v1/idempotency-keys/Abc"), http.StatusNotFound)
	w.wantCharges("order-1", 2)
}

func TestY32ReadsIgnoreTheHeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	before := w.footprint()
	id, ok := first.get("id").(string)
	if !ok {
		t.Fatalf("no id: %s", first)
	}
	for _, path := range []string{"/v1/payments/" + id, "/v1/payments?merchant_order_id=order-1", "/v1/idempotency-keys/nonce-1"} {
		plain := w.get(path)
		w.want(plain, http.StatusOK)
		for _, extra := range [][]string{
			{idem.Header, "nonce-1"}, {idem.Header, "new"}, {idem.Header, strings.Repeat("k", 65)}, {idem.Header, "a b"}, {idem.Header, ""},
			{idem.Header, "one", idem.Header, "two"}, {idem.Header, "one", idem.AliasHeader, "two"},
		} {
			r := w.call(http.MethodGet, w.public.URL+path, nil, append(keys(w.test), extra...)...)
			if r.status != plain.status || !bytes.Equal(r.body, plain.body) {
				t.Errorf("GET %s with %q is answered otherwise: %s", path, extra, r)
			}
			w.wantNoReplay(r)
		}
	}
	w.wantUntouched(before)
}

func TestY33LiveAndTestModeHaveNoncesOfTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.body("order-1", nil)
	arrived, letGo := w.holdNext(decline)
	inTest := w.background("nonce-1", body)
	receive(t, arrived, "the send of the test mode")

	// While the test mode's request is in process, the live mode knows nothing of it.
	live := w.createOn(w.instance, w.live, "nonce-1", body)
	w.want(live, http.StatusCreated)
	w.wantNoReplay(live)
	letGo()
	test := receive(t, inTest, "the answer in test mode")
	w.want(test, http.StatusCreated)
	if test.get("id") == live.get("id") || test.get("status") != "DECLINED" || live.get("status") != "SUCCEEDED" {
		t.Fatalf("the modes share an outcome:\ntest: %s\nlive: %s", test, live)
	}
	w.wantReplay(test, w.create("nonce-1", body), false)
	w.wantReplay(live, w.createOn(w.instance, w.live, "nonce-1", body), false)
	w.wantCharges("order-1", 1)
	w.wantSends(2, 2)
	for mode, status := range map[string]Status{merchants.Test: Declined, merchants.Live: Succeeded} {
		found, err := w.service.Lookup(t.Context(), Scope{AccountID: w.account, Mode: mode}, "nonce-1", uuid.Nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Lives) != 1 || found.Lives[0].Mode != mode || found.Lives[0].Transaction.Status != status {
			t.Errorf("in %s mode the look-up tells %+v", mode, found.Lives)
		}
	}
}

func TestY34TwoMerchantsNoncesDoNotMeet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	account, pair := w.newMerchant("Second merchant")
	mine := w.body("order-1", nil)
	theirs := w.body("order-1", map[string]any{"account_id": account.String(), "description": "Of the second merchant"})

	arrived, letGo := w.holdNext(approve)
	first := w.background("nonce-1", mine)
	receive(t, arrived, "the first merchant's send")
	// No 409, and no waiting either: the first merchant's request is still held.
	second := w.createOn(w.instance, pair, "nonce-1", theirs)
	w.want(second, http.StatusCreated)
	w.wantNoReplay(second)
	if got := second.get("account_id"); got != account.String() {
		t.Errorf("the second merchant's payment is of account %v", got)
	}
	letGo()
	a := receive(t, first, "the first merchant's answer")
	w.want(a, http.StatusCreated)
	w.wantSends(2, 2)
	w.wantReplay(a, w.create("nonce-1", mine), false)
	w.wantReplay(second, w.createOn(w.instance, pair, "nonce-1", theirs), false)

	for who, told := range map[string]struct {
		of    merchants.KeyPair
		other response
	}{"the first merchant": {w.test, second}, "the second merchant": {pair, a}} {
		id, payment := told.other.get("transactions", "id").(string), told.other.get("id").(string)
		for _, path := range []string{"/v1/idempotency-keys/nonce-1", "/v1/payments?merchant_order_id=order-1"} {
			r := w.call(http.MethodGet, w.public.URL+path, nil, keys(told.of)...)
			w.want(r, http.StatusOK)
			if strings.Contains(string(r.body), id) || strings.Contains(string(r.body), payment) {
				t.Errorf("%s sees the other's payment at %s", who, path)
			}
		}
		r := w.call(http.MethodGet, w.public.URL+"/v1/payments/"+payment, nil, keys(told.of)...)
		w.wantError(r, http.StatusBadRequest, "PAYMENT_NOT_FOUND", "there is no payment with this id")
	}
	if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'nonce-1'`); n != 2 {
		t.Errorf("%d records of the nonce, want one a merchant", n)
	}
}

// Both names of the header at once: a client behind a proxy that adds one.
func TestH73BothKeyHeadersMustAgree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.body("order-1", nil)
	before := w.footprint()
	for _, lines := range [][]string{
		{"X-Idempotency-Key: one", "Idempotency-Key: two"},
		{"Idempotency-Key: one", "X-Idempotency-Key: two"},
		{"X-Idempotency-Key: one", "Idempotency-Key: ONE"},
		{"X-Idempotency-Key: one", `Idempotency-Key: "one"`},
	} {
		r := w.createRaw(body, lines...)
		w.wantError(r, http.StatusBadRequest, "INVALID_PARAMETERS", "X-Idempotency-Key and Idempotency-Key must be equal when both are sent")
	}
	w.wantUntouched(before)

	first := w.createRaw(body, "X-Idempotency-Key: one", "Idempotency-Key: one")
	w.want(first, http.StatusCreated)
	w.wantReplay(first, w.create("one", body), false)
	w.wantReplay(first, w.createRaw(body, "Idempotency-Key: one"), false)
	w.wantReplay(first, w.createRaw(body, "X-Idempotency-Key: one", "Idempotency-Key:  one "), false)
	w.wantCharges("order-1", 1)
}
