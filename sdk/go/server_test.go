package oncepay

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// What an answer of the API looks like, in short.
const (
	paymentID     = "01a20108-7ae1-7cec-a786-4091ce7be8f2"
	transactionID = "01a20108-7ae1-7ced-8a53-1f1f7e0c9d11"
	paid          = `{"id":"` + paymentID + `","status":"SUCCEEDED","sub_status":"APPROVED","amount":{"currency":"USD","value":45.67,"captured":0,"refunded":0},` +
		`"transactions":{"id":"` + transactionID + `","type":"PURCHASE","status":"SUCCEEDED","amount":45.67,"response_code":"SUCCEEDED"},"version":1}`
)

// turn is what the server does with one request.
type turn func(w http.ResponseWriter, r *http.Request)

func says(status int, body string, header ...string) turn {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// refuses answers with the API's envelope.
func refuses(status int, code Code, header ...string) turn {
	return says(status, fmt.Sprintf(`{"code":%q,"messages":["$.a is wrong"],"request_id":"r-1","doc_url":"/docs/errors/%s"}`, code, code), header...)
}

// breaks closes the connection and says nothing.
func breaks(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// halves promises more than it says.
func halves(w http.ResponseWriter, _ *http.Request) {
	conn, buffer, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	fmt.Fprintf(buffer, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(paid), paid[:len(paid)/2])
	_ = buffer.Flush()
	_ = conn.Close()
}

// hangs says nothing until the client has gone.
func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// seen is one request as it arrived.
type seen struct {
	method, target, nonce, body string
	header                      http.Header
}

// misbehaving is a server that takes one turn after the other, and then the last again.
type misbehaving struct {
	*httptest.Server
	mu    sync.Mutex
	turns []turn
	seen  []seen
}

func misbehave(t *testing.T, turns ...turn) *misbehaving {
	t.Helper()
	m := &misbehaving{turns: turns}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a client that hung up sent less, and the test sees it
		m.mu.Lock()
		next := m.turns[min(len(m.seen), len(m.turns)-1)]
		m.seen = append(m.seen, seen{r.Method, r.URL.RequestURI(), r.Header.Get("X-Idempotency-Key"), string(body), r.Header})
		m.mu.Unlock()
		next(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *misbehaving) requests() []seen {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]seen(nil), m.seen...)
}

// quick are bounds that make a test short.
var quick = Retries{Attempts: 10, Total: 30 * time.Second, FirstPause: time.Microsecond, LongestPause: time.Millisecond}

const publicKey = "sandbox_public"

// client is one of the server's; its retries may be other than quick.
func (m *misbehaving) client(t *testing.T, options ...Option) *Client {
	t.Helper()
	c, err := New(m.URL, publicKey, "a-secret-of-the-tests", append([]Option{WithRetries(quick), WithAccount("an account")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func params(t *testing.T) PaymentParams {
	t.Helper()
	a, err := NewAmount("USD", "45.67")
	if err != nil {
		t.Fatal(err)
	}
	return PaymentParams{
		MerchantOrderID: "order-1", Description: "Two tickets", Country: "US", Amount: a,
		PaymentMethod: PaymentMethod{Card: &Card{Number: "4507990000000002", SecurityCode: "987", HolderName: "John Doe", ExpirationMonth: 11, ExpirationYear: 28}},
	}
}

// failure is the *CallError that err has to be.
func failure(t *testing.T, err error) *CallError {
	t.Helper()
	var e *CallError
	if !errors.As(err, &e) {
		t.Fatalf("no CallError: %v", err)
	}
	return e
}
