// Package httpapi is the edge that every listener shares: request ids, the error
// envelope, bounded bodies, limits on who asks too much, probes, and one log line a
// request.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/oncepay/oncepay/internal/apierr"
)

const (
	// MaxBody is the contract's limit, in bytes.
	MaxBody = 256 << 10

	// MaxHeader bounds a request's header, in bytes. Browsers and proxies stay far
	// below it.
	MaxHeader = 16 << 10

	// readHeaderTimeout and readTimeout bound a slow client; a body of 256 KiB needs
	// less on any line.
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	// idleTimeout is how long a connection is kept for its next request. It is
	// longer than the usual proxy's, so that the proxy closes first.
	idleTimeout = 2 * time.Minute
)

// statusClientGone is what the log says of a request whose client hung up before it
// was answered; nginx began to call it that. Nobody is there to be told.
const statusClientGone = 499

// HeaderRequestID names a request, in both directions.
const HeaderRequestID = "X-Request-Id"

// requestIDs that clients send are taken over if they are short and plain.
var plainRequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// Line is what a handler adds to its request's log line.
type Line struct {
	AccountID     string
	Mode          string
	Verdict       string
	TransactionID string
	Provider      string
	ProviderTime  time.Duration
	// Unprotected says that the request came without a nonce, where its policy lets it.
	Unprotected bool
	// Code is that of an error which the handler has written itself.
	Code string
}

const (
	keyLine      = "oncepay.line"
	keyRequestID = "oncepay.request_id"
	keyStyle     = "oncepay.style"
	keyAdvice    = "oncepay.advice"
	keyPage      = "oncepay.page"
)

// LineOf is the log line of a request, for its handler to fill in.
func LineOf(c echo.Context) *Line {
	l, ok := c.Get(keyLine).(*Line)
	if !ok {
		return &Line{}
	}
	return l
}

// RequestID is the id of a request.
func RequestID(c echo.Context) string {
	id, _ := c.Get(keyRequestID).(string)
	return id
}

// Options are what New needs.
type Options struct {
	Log *slog.Logger
	// Transient says whether an error comes of a database that is away, or of others
	// who were in the way there, so that the answer is 503 rather than 500.
	Transient func(error) bool
	// Describe turns an unexpected error into a line that may be logged.
	Describe func(error) string
	// Style is how the errors look that whoever asks can read, known by the request
	// alone: many are refused before anybody knows who they are. nil: the contract's.
	Style func(*http.Request) apierr.Style
	// Observe may be nil.
	Observe Observer

	// Timeout bounds a request, but for what its handler does on its own account, such
	// as moving money. 0: no limit.
	Timeout time.Duration
	// Probes are served if there are any.
	Probes *Probes
	// MaxInFlight is how many requests may be worked on at a time; more are told to
	// come back before anybody looks at them. Probes don't count. 0: no limit.
	MaxInFlight int
	// FailedAuth is how many requests a minute from one address may fail for their
	// credentials before they are told to wait. 0: no limit.
	FailedAuth int
	// TrustedProxies are those whose X-Forwarded-For is believed. Without any, an
	// address is that of the connection.
	TrustedProxies []netip.Prefix
}

// New is an Echo with no routes but the probes', that answers every failure in the
// contract's envelope. What is added to it with Pre comes between the log line and
// the limits, what is added with Use behind the limits.
func New(o Options) *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = addressFrom(o.TrustedProxies)
	e.HTTPErrorHandler = func(err error, c echo.Context) { o.answerError(err, c) }
	e.Pre(o.logged)
	e.Use(wholeSegments)
	if o.MaxInFlight > 0 {
		e.Use(limitInFlight(o.MaxInFlight))
	}
	if o.FailedAuth > 0 {
		e.Use(limitFailedAuth(NewLimiter(o.FailedAuth)))
	}
	if o.Timeout > 0 {
		e.Use(middleware.ContextTimeout(o.Timeout))
	}
	if o.Probes != nil {
		o.Probes.mount(e)
	}
	return e
}

// wholeSegments refuses a path in whose last parameter there is a slash: Echo lets it
// take the rest of the path, as a star does, and nobody means that.
func wholeSegments(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		route := c.Path()
		if strings.Contains(route, ":") && strings.Count(route, "/") != strings.Count(c.Request().URL.EscapedPath(), "/") {
			return echo.ErrNotFound
		}
		return next(c)
	}
}

// headers are on every answer. Answers about money are nobody's to keep, and none of
// them is a page: a browser that is led to one must show, run and embed nothing. A
// handler of a page sets its own policy.
var headers = map[string]string{
	"Cache-Control":           "no-store",
	"X-Content-Type-Options":  "nosniff",
	"Referrer-Policy":         "no-referrer",
	"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

// strictTransport keeps browsers from asking without TLS for a year. Where a proxy ends
// TLS for us, it is the proxy that can promise so.
const strictTransport = "max-age=31536000"

// announce sets the headers that every answer has.
func (o Options) announce(c echo.Context) {
	r := c.Response()
	for name, value := range headers {
		r.Header().Set(name, value)
	}
	if c.Request().TLS != nil {
		r.Header().Set(echo.HeaderStrictTransportSecurity, strictTransport)
	}
	r.Before(func() { // as late as can be: the stop may begin while the request is worked on
		if o.Probes.stopping() {
			r.Header().Set(echo.HeaderConnection, "close")
		}
	})
}

// logged gives the request its id, recovers from panics, and writes the one log
// line when the answer is out. Probes come every second from several sides; their
// lines are for who has the log at debug.
func (o Options) logged(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		begun := time.Now()
		id := c.Request().Header.Get(HeaderRequestID)
		if !plainRequestID.MatchString(id) {
			id = uuid.Must(uuid.NewV7()).String()
		}
		line := &Line{}
		c.Set(keyRequestID, id)
		c.Set(keyLine, line)
		c.Response().Header().Set(HeaderRequestID, id)
		o.announce(c)
		seen := o.observe(c)
		client := c.Request().Context()
		err := o.recovered(next, c)
		code := apierr.Code(line.Code)
		if err != nil {
			if errors.Is(err, context.Canceled) && client.Err() != nil {
				err = apierr.New(apierr.RequestTimeout, "the connection was closed before the answer was there").WithStatus(statusClientGone)
			}
			code = o.answerError(err, c)
		}
		level, method := slog.LevelInfo, methodOf(c.Request())
		if isProbe(c) {
			level = slog.LevelDebug
		}
		o.Log.LogAttrs(c.Request().Context(), level, "request",
			slog.String("request_id", id), slog.String("method", method), slog.String("route", c.Path()),
			slog.Int("status", c.Response().Status), slog.Int64("duration_ms", time.Since(begun).Milliseconds()),
			slog.String("account_id", line.AccountID), slog.String("mode", line.Mode), slog.String("idem_verdict", line.Verdict),
			slog.String("transaction_id", line.TransactionID), slog.String("provider", line.Provider),
			slog.Int64("provider_ms", line.ProviderTime.Milliseconds()), slog.String("error_code", string(code)))
		seen(Seen{
			RequestID: id, Method: method, Route: c.Path(), Status: c.Response().Status, Code: code,
			Line: *line, Duration: time.Since(begun),
		})
		return nil
	}
}

// methodOf is a request's method for logs, metrics and traces. A client may send any
// word as one, a secret that has slipped into the wrong place included.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return r.Method
	}
	return "other"
}

// recovered turns a panic into an error. Its stack is logged, its value is not:
// it may quote what was being worked on.
func (o Options) recovered(next echo.HandlerFunc, c echo.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if e, ok := p.(error); ok && errors.Is(e, http.ErrAbortHandler) {
				panic(p)
			}
			o.Log.ErrorContext(c.Request().Context(), "panic", "request_id", RequestID(c), "stack", string(debug.Stack()))
			err = errors.New("panic")
		}
	}()
	return next(c)
}

// answerError writes the envelope for err and returns its code.
func (o Options) answerError(err error, c echo.Context) apierr.Code {
	e, known := o.explain(err, c)
	if !known {
		o.Log.ErrorContext(c.Request().Context(), "unexpected", "request_id", RequestID(c), "error", o.Describe(err))
	}
	if c.Response().Committed {
		return e.Code
	}
	if e.RetryAfter > 0 {
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(e.RetryAfter))
	}
	if show, ok := c.Get(keyPage).(func(echo.Context, *apierr.Error) error); ok && show(c, e) == nil {
		return e.Code
	}
	style := o.styleOf(c)
	_ = Failure(c, e.Status, style, e.In(style, RequestID(c))) // the client has gone
	return e.Code
}

// SetPage says how a request's errors are shown where it is a person who reads them. If show
// fails before it has answered, they get the envelope.
func SetPage(c echo.Context, show func(c echo.Context, e *apierr.Error) error) { c.Set(keyPage, show) }

// SetStyle says how the errors of a request look, from when it is known who asks.
func SetStyle(c echo.Context, style apierr.Style) { c.Set(keyStyle, style) }

// SetAdvice says how the message of an error ends that nobody foresaw, for a request that
// must not be sent again as it is. Without it, it may, with the same key.
func SetAdvice(c echo.Context, advice string) { c.Set(keyAdvice, advice) }

// unforeseen is an error after which nobody here knows what has happened.
func unforeseen(c echo.Context, code apierr.Code, message string, retryAfter int) *apierr.Error {
	if advice, ok := c.Get(keyAdvice).(string); ok {
		return apierr.New(code, message+"; "+advice)
	}
	return apierr.New(code, message+"; retry with the same key").Retry(retryAfter)
}

func (o Options) styleOf(c echo.Context) apierr.Style {
	if style, ok := c.Get(keyStyle).(apierr.Style); ok {
		return style
	}
	if o.Style == nil {
		return apierr.Envelope
	}
	return o.Style(c.Request())
}

// explain is what a client may hear of err, and whether it was to be expected.
func (o Options) explain(err error, c echo.Context) (*apierr.Error, bool) {
	if e, ok := apierr.From(err); ok {
		return e, true
	}
	if h, ok := errors.AsType[*echo.HTTPError](err); ok {
		switch h.Code {
		case http.StatusNotFound:
			return apierr.New(apierr.NotFound, "there is nothing at this path"), true
		case http.StatusMethodNotAllowed:
			return apierr.New(apierr.UnsupportedMethod, "this path does not take this method"), true
		}
	}
	if ctx := c.Request().Context(); errors.Is(err, context.Canceled) && ctx.Err() != nil { // nobody hears it
		return apierr.New(apierr.ServiceUnavailable, "the request was given up before it was answered").Retry(1), true
	}
	if o.Transient(err) {
		o.Log.WarnContext(c.Request().Context(), "the database could not do it now", "request_id", RequestID(c), "error", o.Describe(err))
		return unforeseen(c, apierr.ServiceUnavailable, "the service cannot use its database at the moment", 1), true
	}
	return unforeseen(c, apierr.InternalError, "something unexpected happened", 0), false
}

// Timestamp is how answers write a time: UTC, with microseconds, as PostgreSQL keeps
// them.
func Timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// TimestampOrNull is a time as answers write it, null where there is none.
func TimestampOrNull(t *time.Time) *string {
	if t == nil {
		return nil
	}
	return new(Timestamp(*t))
}

// Answer answers with v as JSON, and a line's end.
func Answer(c echo.Context, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return JSON(c, status, append(b, '\n'))
}

// JSON answers with bytes that are JSON already.
func JSON(c echo.Context, status int, body []byte) error {
	return blob(c, status, echo.MIMEApplicationJSON, body)
}

// Failure answers with an error that is written already, in that style.
func Failure(c echo.Context, status int, style apierr.Style, body []byte) error {
	if link := style.Link(); link != "" {
		c.Response().Header().Set("Link", link)
	}
	return blob(c, status, style.ContentType(), body)
}

func blob(c echo.Context, status int, contentType string, body []byte) error {
	c.Response().Header().Set(echo.HeaderContentLength, strconv.Itoa(len(body))) // so that a cut answer shows
	return c.Blob(status, contentType, body)
}

// Loopback says whether a host is one that only this machine reaches. Of names, only
// localhost is: others mean what somebody else says.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// Server is an http.Server for h with the limits that protect it. writeTimeout
// must be longer than any answer takes.
func Server(h http.Handler, log *slog.Logger, writeTimeout time.Duration) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    MaxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // broken clients; the address at most
	}
}
