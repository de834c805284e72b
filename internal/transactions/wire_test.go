package transactions

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
)

// What a test needs to speak HTTP by hand: listeners with every limit of the real
// ones, and requests that no client library would send.

// operatorToken opens the operator's listener of a test.
const operatorToken = "a token of the tests, 32 bytes or more"

// edges are both listeners of an instance as cmd puts them together.
func (w *world) edges(i instance, log *slog.Logger) (public, operator *echo.Echo) {
	w.t.Helper()
	edge := httpapi.Options{Log: log, Transient: postgres.IsTransient, Describe: postgres.Describe}
	operator = httpapi.New(edge)
	h := NewHandler(i.service, i.auth)
	edge.Style = h.ErrorStyle
	public = httpapi.New(edge)
	h.Mount(public)
	mountCheckout(public, h, i.auth)
	NewCallbackHandler(i.service).Mount(public)
	metrics := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "payments_parked 0\n") })
	admin.Mount(operator, admin.Options{Token: operatorToken, Metrics: metrics, API: []admin.Mounter{
		merchants.NewOperatorHandler(i.auth), NewOperatorHandler(i.service), NewReconciliationHandler(NewReconciler(i.service, nil)),
	}})
	return public, operator
}

// front serves h with the limits of a real listener, and those that change sets. Each
// exchange is held against the API document.
func (w *world) front(h http.Handler, change ...func(*http.Server)) *httptest.Server {
	w.t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config = httpapi.Server(apitest.Handler(w.t, h), slog.New(slog.DiscardHandler), testLease)
	for _, f := range change {
		f(s.Config)
	}
	s.Start()
	w.t.Cleanup(s.Close)
	return s
}

// line is a connection on which a test writes for itself.
type line struct {
	w *world
	*net.TCPConn
	answers *bufio.Reader
}

func (w *world) dial(s *httptest.Server) *line {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), soon)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(soon))
	return &line{w, c.(*net.TCPConn), bufio.NewReader(c)}
}

func (l *line) say(text string) {
	l.w.t.Helper()
	if _, err := io.WriteString(l, text); err != nil {
		l.w.t.Fatal(err)
	}
}

// hear reads the next answer, to a request of that method.
func (l *line) hear(method string) response {
	l.w.t.Helper()
	res, err := http.ReadResponse(l.answers, &http.Request{Method: method})
	if err != nil {
		l.w.t.Fatalf("no answer: %v", err)
	}
	defer func() { _ = res.Body.Close() }()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		l.w.t.Fatalf("half an answer: %v", err)
	}
	return response{res.StatusCode, res.Header, body.Bytes()}
}

// letter is a request, word for word.
type letter struct {
	method, target string
	version        string // HTTP/1.1 if empty
	lines          []string
	body           string
	operators      bool // goes to the operator's listener
	cut            bool // and the client hangs up behind it
}

// paying is a good request to create a payment.
func (w *world) paying(nonce string, body []byte) letter {
	return letter{method: http.MethodPost, target: "/v1/payments", body: string(body), lines: []string{
		"Host: api.test", "Content-Type: application/json", "public-api-key: " + w.test.PublicAPIKey,
		"private-secret-key: " + w.test.PrivateSecretKey, idem.Header + ": " + nonce,
	}}
}

// String is the letter as it goes on the wire. Its length is told unless a line of
// its own says how the body is sent.
func (l letter) String() string {
	var b strings.Builder
	version := l.version
	if version == "" {
		version = "HTTP/1.1"
	}
	fmt.Fprintf(&b, "%s %s %s\r\n", l.method, l.target, version)
	framed := l.method == http.MethodGet || l.method == http.MethodHead
	for _, line := range l.lines {
		name := strings.ToLower(line)
		framed = framed || strings.HasPrefix(name, "content-length:") || strings.HasPrefix(name, "transfer-encoding:")
		b.WriteString(line + "\r\n")
	}
	if !framed {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(l.body))
	}
	b.WriteString("\r\n" + l.body)
	return b.String()
}

// send sends one letter on a connection of its own.
func (w *world) send(s *httptest.Server, l letter) response {
	w.t.Helper()
	l.lines = append([]string{"Connection: close"}, l.lines...)
	c := w.dial(s)
	// A server that refuses a body may close before it has read all of it.
	_, _ = io.WriteString(c, l.String())
	if l.cut {
		_ = c.CloseWrite()
	}
	return c.hear(l.method)
}

// change is what a test does to a good letter.
type change func(*letter)

func (l letter) but(changes ...change) letter {
	l.lines = append([]string(nil), l.lines...)
	for _, c := range changes {
		c(&l)
	}
	return l
}

// header has a name sent once a value; with none, not at all.
func header(name string, values ...string) change {
	return func(l *letter) {
		kept := l.lines[:0]
		for _, line := range l.lines {
			if before, _, _ := strings.Cut(line, ":"); !strings.EqualFold(before, name) {
				kept = append(kept, line)
			}
		}
		for _, v := range values {
			kept = append(kept, name+": "+v)
		}
		l.lines = kept
	}
}

// raw adds a line of the header as it stands.
func raw(line string) change { return func(l *letter) { l.lines = append(l.lines, line) } }

func method(m string) change { return func(l *letter) { l.method = m } }

func target(t string) change { return func(l *letter) { l.target = t } }

func text(body string) change { return func(l *letter) { l.body = body } }

func hangUp(l *letter) { l.cut = true }

// asking makes it a GET.
func asking(path string) change {
	return func(l *letter) {
		l.method, l.target, l.body = http.MethodGet, path, ""
		header("Content-Type")(l)
		header(idem.Header)(l)
	}
}

// toOperator makes it a POST of the operator's.
func toOperator(path, body string) change {
	return func(l *letter) {
		l.operators, l.method, l.target, l.body = true, http.MethodPost, path, body
		l.lines = []string{"Host: api.test", "Content-Type: application/json", "Authorization: Bearer " + operatorToken}
	}
}

// operatorAsks makes it a GET of the operator's.
func operatorAsks(path string) change {
	return func(l *letter) {
		toOperator(path, "")(l)
		l.method = http.MethodGet
		header("Content-Type")(l)
	}
}
