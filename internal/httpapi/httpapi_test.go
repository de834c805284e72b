package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

// soon bounds what must happen at once anyway: only a bug reaches it.
const soon = 20 * time.Second

var errAway = errors.New("the database geheim is away")

// edge is a listener with routes of a test's own.
type edge struct {
	t      *testing.T
	server *httptest.Server
	logs   *logs
}

// logs are the log's lines, as JSON.
type logs struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.String()
}

// newEdge serves the routes that mount adds, with the limits that change sets.
func newEdge(t *testing.T, mount func(e *echo.Echo), change ...func(s *http.Server)) *edge {
	t.Helper()
	x := &edge{t: t, logs: &logs{}}
	e := New(Options{
		Log:       slog.New(slog.NewJSONHandler(x.logs, nil)),
		Transient: func(err error) bool { return errors.Is(err, errAway) },
		Describe:  func(error) string { return "described" },
	})
	mount(e)
	x.server = httptest.NewUnstartedServer(e)
	for _, f := range change {
		f(x.server.Config)
	}
	x.server.Start()
	t.Cleanup(x.server.Close)
	return x
}

// answer is what a client saw.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// envelope reads an error, and fails the test if it is not written as one.
func (x *edge) envelope(a answer) (code string, messages []string, requestID string) {
	x.t.Helper()
	var e struct {
		Code      string   `json:"code"`
		Messages  []string `json:"messages"`
		RequestID string   `json:"request_id"`
		DocURL    string   `json:"doc_url"`
	}
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		x.t.Fatalf("%d is no error envelope: %v: %.200s", a.status, err, a.body)
	}
	if a.header.Get("Content-Type") != "application/json" || e.RequestID != a.header.Get(HeaderRequestID) || e.DocURL != apierr.DocPath(apierr.Code(e.Code)) {
		x.t.Errorf("%d %s has content type %q, request id %q (header: %q), doc_url %q", a.status, e.Code, a.header.Get("Content-Type"), e.RequestID, a.header.Get(HeaderRequestID), e.DocURL)
	}
	return e.Code, e.Messages, e.RequestID
}

func (x *edge) wantError(a answer, status int, code string, messages ...string) {
	x.t.Helper()
	gotCode, gotMessages, _ := x.envelope(a)
	if a.status != status || gotCode != code || !slices.Equal(gotMessages, messages) {
		x.t.Errorf("got %d %s %q, want %d %s %q", a.status, gotCode, gotMessages, status, code, messages)
	}
}

func (x *edge) call(method, path string, body io.Reader, headers ...string) answer {
	x.t.Helper()
	req, err := http.NewRequestWithContext(x.t.Context(), method, x.server.URL+path, body)
	if err != nil {
		x.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := x.server.Client().Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	return x.read(res)
}

func (x *edge) read(res *http.Response) answer {
	x.t.Helper()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, data}
}

// dial opens a connection on which a test writes for itself.
func (x *edge) dial() *net.TCPConn {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), soon)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", x.server.Listener.Addr().String())
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(soon))
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		x.t.Fatalf("the connection is a %T", c)
	}
	return tcp
}

// answerOn reads the next answer from a connection.
func (x *edge) answerOn(c net.Conn) answer {
	x.t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		x.t.Fatalf("no answer: %v", err)
	}
	defer func() { _ = res.Body.Close() }()
	return x.read(res)
}

// lines are the log's lines with that message, once there are n of them: a line is
// written after its answer.
func (x *edge) lines(message string, n int) []map[string]any {
	x.t.Helper()
	deadline := time.After(soon)
	for {
		var found []map[string]any
		for line := range strings.Lines(x.logs.String()) {
			var l map[string]any
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				x.t.Fatalf("a log line is no JSON: %v", err)
			}
			if l["msg"] == message {
				found = append(found, l)
			}
		}
		if len(found) >= n {
			return found
		}
		select {
		case <-deadline:
			x.t.Fatalf("the log has %d lines %q, want %d", len(found), message, n)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// failing answers every request with err.
func failing(err error) func(e *echo.Echo) {
	return func(e *echo.Echo) { e.GET("/", func(echo.Context) error { return err }) }
}

// reading reads the body of a POST, as handlers do.
func reading(e *echo.Echo) {
	e.POST("/", func(c echo.Context) error {
		v, err := Body(c)
		if err != nil {
			return err
		}
		return JSON(c, http.StatusOK, v.JSON())
	})
}

func TestEveryErrorComesInTheSameEnvelope(t *testing.T) {
	t.Parallel()
	const unexpected = "something unexpected happened; retry with the same key"
	for name, c := range map[string]struct {
		err        error
		status     int
		code       string
		message    string
		retryAfter string
	}{
		"an answer":                   {apierr.New(apierr.InvalidAmount, "$.amount.value must be greater than 0"), 400, "INVALID_AMOUNT", "$.amount.value must be greater than 0", ""},
		"an answer without words":     {apierr.New(apierr.RequestInProcess), 409, "REQUEST_IN_PROCESS", "request in process", ""},
		"an answer with a wait":       {apierr.New(apierr.RequestInProcess, "wait").Retry(60), 409, "REQUEST_IN_PROCESS", "wait", "60"},
		"an answer of another status": {apierr.New(apierr.RequestTimeout, "slow").WithStatus(408), 408, "REQUEST_TIMEOUT", "slow", ""},
		"an answer inside an error":   {fmt.Errorf("geheim: %w (%w)", apierr.New(apierr.ServiceUnavailable, "later").Retry(1), errAway), 503, "SERVICE_UNAVAILABLE", "later", "1"},
		"the database is away":        {fmt.Errorf("geheim: %w", errAway), 503, "SERVICE_UNAVAILABLE", "the service cannot use its database at the moment; retry with the same key", "1"},
		"a surprise":                  {errors.New("geheim"), 500, "INTERNAL_ERROR", unexpected, ""},
		"a surprise of Echo":          {echo.NewHTTPError(http.StatusTeapot, "geheim"), 500, "INTERNAL_ERROR", unexpected, ""},
		"not found, says Echo":        {echo.ErrNotFound, 404, "NOT_FOUND", "there is nothing at this path", ""},
		"no method, says Echo":        {echo.ErrMethodNotAllowed, 405, "UNSUPPORTED_METHOD", "this path does not take this method", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newEdge(t, failing(c.err))
			a := x.call(http.MethodGet, "/", nil)
			x.wantError(a, c.status, c.code, c.message)
			if got := a.header.Get("Retry-After"); got != c.retryAfter {
				t.Errorf("Retry-After is %q, want %q", got, c.retryAfter)
			}
			if bytes.Contains(a.body, []byte("geheim")) {
				t.Error("the answer tells the cause")
			}
			line := x.lines("request", 1)[0]
			if line["error_code"] != c.code || line["status"] != float64(c.status) {
				t.Errorf("the log has %v %v, want %d %s", line["status"], line["error_code"], c.status, c.code)
			}
			if log := x.logs.String(); strings.Contains(log, "geheim") {
				t.Errorf("the log quotes the cause: %s", log)
			}
		})
	}
}

func TestSurprisesAreLoggedAndAnswersAreNot(t *testing.T) {
	t.Parallel()
	x := newEdge(t, func(e *echo.Echo) {
		e.GET("/surprise", func(echo.Context) error { return errors.New("geheim") })
		e.GET("/away", func(echo.Context) error { return errAway })
		e.GET("/answer", func(echo.Context) error { return apierr.New(apierr.InvalidRequest, "no") })
	})
	for _, path := range []string{"/answer", "/surprise", "/away"} {
		x.call(http.MethodGet, path, nil, HeaderRequestID, "id-of"+strings.ReplaceAll(path, "/", "-"))
	}
	x.lines("request", 3)
	if l := x.lines("unexpected", 1); len(l) != 1 || l[0]["level"] != "ERROR" || l[0]["request_id"] != "id-of-surprise" || l[0]["error"] != "described" {
		t.Errorf("the log tells of the surprise as %v", l)
	}
	if l := x.lines("the database could not do it now", 1); len(l) != 1 || l[0]["level"] != "WARN" || l[0]["request_id"] != "id-of-away" || l[0]["error"] != "described" {
		t.Errorf("the log tells of the database as %v", l)
	}
}

func TestUnknownPathsAndMethodsHaveCodesOfTheirOwn(t *testing.T) {
	t.Parallel()
	x := newEdge(t, func(e *echo.Echo) {
		reading(e)
		e.GET("/v1/payments", func(c echo.Context) error { return JSON(c, http.StatusOK, []byte("[]")) })
		e.POST("/v1/payments", func(c echo.Context) error { return JSON(c, http.StatusCreated, []byte("{}")) })
	})
	for _, path := range []string{"/nothing", "/v1", "/v1/nothing", "/v1/payments/", "/V1/payments", "/v1/payments/x/y/geheim", "//", "/%41"} {
		a := x.call(http.MethodGet, path, nil)
		x.wantError(a, http.StatusNotFound, "NOT_FOUND", "there is nothing at this path")
	}
	for method, path := range map[string]string{http.MethodDelete: "/v1/payments", http.MethodPut: "/v1/payments", http.MethodGet: "/", "BREW": "/"} {
		a := x.call(method, path, nil)
		x.wantError(a, http.StatusMethodNotAllowed, "UNSUPPORTED_METHOD", "this path does not take this method")
		if a.header.Get("Allow") == "" {
			t.Errorf("%s %s: the answer does not say what is allowed", method, path)
		}
	}
}

func TestRequestIDIsTakenOverOnlyIfPlain(t *testing.T) {
	t.Parallel()
	x := newEdge(t, func(e *echo.Echo) {
		e.GET("/", func(c echo.Context) error { return JSON(c, http.StatusOK, []byte(`"`+RequestID(c)+`"`)) })
	})
	for _, id := range []string{"a", "Request-1_2.3", strings.Repeat("x", 128), uuid.NewString()} {
		a := x.call(http.MethodGet, "/", nil, HeaderRequestID, id)
		if got := a.header.Get(HeaderRequestID); got != id || string(a.body) != `"`+id+`"` {
			t.Errorf("%q became %q in the header and %s in the handler", id, got, a.body)
		}
	}
	seen := map[string]bool{}
	for _, id := range []string{"", " ", "two words", strings.Repeat("x", 129), "é", "a,b", `"quoted"`, "<script>", "a/b", "%41", "geheim\tgeheim", "a;b", "{}"} {
		a := x.call(http.MethodGet, "/", nil, HeaderRequestID, id)
		got := a.header.Get(HeaderRequestID)
		if u, err := uuid.Parse(got); err != nil || u.Version() != 7 || seen[got] {
			t.Errorf("%q became %q, want a new UUID of version 7", id, got)
		}
		seen[got] = true
	}
	for _, l := range x.lines("request", 17) {
		if id, ok := l["request_id"].(string); !ok || !plainRequestID.MatchString(id) {
			t.Errorf("the log has request id %v", l["request_id"])
		}
	}
}

func TestAnswersAreNobodysToKeep(t *testing.T) {
	t.Parallel()
	x := newEdge(t, func(e *echo.Echo) {
		reading(e)
		failing(apierr.New(apierr.InvalidRequest, "no"))(e)
	})
	for _, a := range []answer{
		x.call(http.MethodPost, "/", strings.NewReader(`{"b":1.50,"a":"é"}`), "Content-Type", "application/json"),
		x.call(http.MethodGet, "/", nil), x.call(http.MethodGet, "/nothing", nil),
	} {
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "application/json",
			"Referrer-Policy": "no-referrer", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%d: %s is %q, want %q", a.status, name, got, want)
			}
		}
		if a.header.Get(HeaderRequestID) == "" || a.header.Get("Set-Cookie") != "" || a.header.Get("Server") != "" || a.header.Get("X-Powered-By") != "" {
			t.Errorf("%d has headers %v", a.status, slices.Sorted(maps.Keys(a.header)))
		}
	}
}

func TestJSONIsSentAsItIs(t *testing.T) {
	t.Parallel()
	body := []byte("{\"b\" : 1.50,\n\"a\":\"\u2028<&>\"}\n")
	x := newEdge(t, func(e *echo.Echo) {
		e.GET("/", func(c echo.Context) error { return JSON(c, http.StatusAccepted, body) })
	})
	a := x.call(http.MethodGet, "/", nil)
	if a.status != http.StatusAccepted || !bytes.Equal(a.body, body) || a.header.Get("Content-Length") != fmt.Sprint(len(body)) {
		t.Errorf("got %d, length %s, %q", a.status, a.header.Get("Content-Length"), a.body)
	}
}

func TestPanicIsAnsweredAndLoggedWithoutItsValue(t *testing.T) {
	t.Parallel()
	x := newEdge(t, func(e *echo.Echo) {
		e.GET("/text", func(echo.Context) error { panic("geheim") })
		e.GET("/error", func(echo.Context) error { panic(fmt.Errorf("geheim")) })
		e.GET("/nil", func(echo.Context) error {
			var c *apierr.Error
			return errors.New(c.Messages[0])
		})
	})
	for i, path := range []string{"/text", "/error", "/nil"} {
		id := fmt.Sprintf("request-%d", i)
		a := x.call(http.MethodGet, path, nil, HeaderRequestID, id)
		x.wantError(a, http.StatusInternalServerError, "INTERNAL_ERROR", "something unexpected happened; retry with the same key")
		panics := x.lines("panic", i+1)
		last := panics[len(panics)-1]
		if stack, ok := last["stack"].(string); !ok || !strings.Contains(stack, "httpapi_test.go") || last["request_id"] != id || last["level"] != "ERROR" {
			t.Errorf("%s: the log tells of it as %v", path, last)
		}
		if line := x.lines("request", i+1)[i]; line["status"] != 500.0 || line["error_code"] != "INTERNAL_ERROR" || line["request_id"] != id {
			t.Errorf("%s: the request's line is %v", path, line)
		}
	}
	if strings.Contains(x.logs.String(), "geheim") {
		t.Error("the log shows what the panic was about")
	}
}

// A handler that fails after its answer has begun cannot answer again; the line says
// what went on the wire.
func TestAnswerThatHasBegunIsNotFollowedByAnother(t *testing.T) {
	t.Parallel()
	x := newEdge(t, func(e *echo.Echo) {
		e.GET("/", func(c echo.Context) error {
			if err := JSON(c, http.StatusOK, []byte("{}")); err != nil {
				return err
			}
			panic("too late")
		})
	})
	if a := x.call(http.MethodGet, "/", nil); a.status != http.StatusOK || string(a.body) != "{}" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if line := x.lines("request", 1)[0]; line["status"] != 200.0 || line["error_code"] != "INTERNAL_ERROR" {
		t.Errorf("the line is %v", line)
	}
}

// A handler that gives up on purpose cuts the connection, as net/http means it.
func TestAbortCutsTheConnection(t *testing.T) {
	t.Parallel()
	x := newEdge(t, func(e *echo.Echo) { e.GET("/", func(echo.Context) error { panic(http.ErrAbortHandler) }) },
		func(s *http.Server) { s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) })
	c := x.dial()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(c); len(data) != 0 {
		t.Errorf("got %q (%v), want the end of the connection", data, err)
	}
}

func TestOneLineARequestSaysWhatHappenedAndNothingThatWasSent(t *testing.T) {
	t.Parallel()
	x := newEdge(t, func(e *echo.Echo) {
		e.POST("/v1/payments/:payment_id", func(c echo.Context) error {
			if _, err := Body(c); err != nil {
				return err
			}
			*LineOf(c) = Line{AccountID: "account", Mode: "test", Verdict: "new", TransactionID: "transaction", Provider: "PSP", ProviderTime: 1500 * time.Millisecond}
			return JSON(c, http.StatusCreated, []byte(`{"secret":"geheim"}`))
		})
	})
	a := x.call(http.MethodPost, "/v1/payments/geheim-id?query=geheim", strings.NewReader(`{"number":"4111111111111111","geheim":"geheim"}`),
		"Content-Type", "application/json", HeaderRequestID, "request-1", "X-Idempotency-Key", "geheim-nonce", "Private-Secret-Key", "geheim-key",
		"Public-Api-Key", "geheim-public", "Authorization", "Bearer geheim-token", "Cookie", "geheim=geheim", "User-Agent", "geheim-agent", "Referer", "https://geheim/")
	if a.status != http.StatusCreated {
		t.Fatalf("got %d", a.status)
	}
	line := x.lines("request", 1)[0]
	if duration, ok := line["duration_ms"].(float64); !ok || duration < 0 || duration > soon.Seconds()*1000 {
		t.Errorf("duration_ms is %v", line["duration_ms"])
	}
	delete(line, "duration_ms")
	if at, err := time.Parse(time.RFC3339, fmt.Sprint(line["time"])); err != nil || time.Since(at).Abs() > soon {
		t.Errorf("time is %v", line["time"])
	}
	delete(line, "time")
	want := map[string]any{
		"level": "INFO", "msg": "request", "request_id": "request-1", "method": "POST", "route": "/v1/payments/:payment_id", "status": 201.0,
		"account_id": "account", "mode": "test", "idem_verdict": "new", "transaction_id": "transaction", "provider": "PSP", "provider_ms": 1500.0, "error_code": "",
	}
	if !maps.Equal(line, want) {
		t.Errorf("the line is %v, want %v", line, want)
	}
	x.call(http.MethodGet, "/geheim/geheim?geheim", nil, HeaderRequestID, "request-2")
	if line := x.lines("request", 2)[1]; line["status"] != 404.0 || line["error_code"] != "NOT_FOUND" || line["request_id"] != "request-2" {
		t.Errorf("the line of an unknown path is %v", line)
	}
	x.call(http.MethodPost, "/v1/payments/geheim", strings.NewReader(`{"geheim":4111111111111111,}`), "Content-Type", "application/json")
	x.lines("request", 3)
	if log := x.logs.String(); strings.Contains(log, "geheim") || strings.Contains(log, "41111111") {
		t.Errorf("the log holds something that was sent: %s", log)
	}
	if n := strings.Count(x.logs.String(), "\n"); n != 3 {
		t.Errorf("%d lines for three requests", n)
	}
}

// Code that runs without the edge, such as a test's, has a line to write to all the
// same.
func TestLineAndIDOfARequestThatDidNotComeThroughTheEdge(t *testing.T) {
	t.Parallel()
	c := echo.New().NewContext(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), httptest.NewRecorder())
	LineOf(c).Verdict = "new"
	if id := RequestID(c); id != "" {
		t.Errorf("the request id is %q", id)
	}
}

func TestServerHasALimitOnEverything(t *testing.T) {
	t.Parallel()
	l := &logs{}
	s := Server(http.NotFoundHandler(), slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})), time.Minute)
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout < s.ReadHeaderTimeout || s.WriteTimeout != time.Minute || s.IdleTimeout <= 0 || s.MaxHeaderBytes != MaxHeader {
		t.Errorf("the limits are %s, %s, %s, %s, %d bytes", s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout, s.MaxHeaderBytes)
	}
	s.ErrorLog.Print("http: TLS handshake error")
	if !strings.Contains(l.String(), `"level":"DEBUG"`) {
		t.Errorf("a broken client is logged as %s", l)
	}
}

func TestOversizedHeaderIsRefused(t *testing.T) {
	t.Parallel()
	x := newEdge(t, func(e *echo.Echo) {
		e.GET("/", func(c echo.Context) error { return JSON(c, http.StatusOK, []byte("{}")) })
	},
		func(s *http.Server) {
			limits := Server(nil, slog.New(slog.DiscardHandler), time.Minute)
			s.MaxHeaderBytes = limits.MaxHeaderBytes
		})
	if a := x.call(http.MethodGet, "/", nil, "X-Large", strings.Repeat("x", MaxHeader/2)); a.status != http.StatusOK {
		t.Errorf("half the limit: got %d", a.status)
	}
	if a := x.call(http.MethodGet, "/", nil, "X-Large", strings.Repeat("x", 2*MaxHeader)); a.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("twice the limit: got %d", a.status)
	}
}

// A client that hangs up while it is worked for is no surprise, and no fault of ours.
func TestClientThatGaveUpIsNoSurprise(t *testing.T) {
	t.Parallel()
	l := &logs{}
	e := New(Options{
		Log: slog.New(slog.NewJSONHandler(l, nil)), Transient: func(error) bool { return false }, Describe: func(err error) string { return err.Error() },
	})
	ctx, hangUp := context.WithCancel(t.Context())
	e.GET("/slow", func(c echo.Context) error {
		hangUp()
		return fmt.Errorf("look: %w", c.Request().Context().Err())
	})
	e.GET("/other", func(echo.Context) error { return context.Canceled }) // somebody else's
	for path, want := range map[string]bool{"/slow": false, "/other": true} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
		if path == "/slow" {
			req = req.WithContext(ctx)
		}
		e.ServeHTTP(httptest.NewRecorder(), req)
		if got := strings.Contains(l.String(), `"msg":"unexpected"`); got != want {
			t.Errorf("%s: a surprise: %t, want %t; the log:\n%s", path, got, want, l)
		}
		l.data.Reset()
	}
}
