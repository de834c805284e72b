package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

// headerReads is how a test's client says which errors it can read.
const headerReads = "Reads"

var styles = []apierr.Style{apierr.Envelope, apierr.Nest, apierr.Problem}

// newStyledEdge answers everybody in the style that their request asks for.
func newStyledEdge(t *testing.T, o Options, mount func(e *echo.Echo)) *edge {
	t.Helper()
	o.Style = func(r *http.Request) apierr.Style { return apierr.Style(r.Header.Get(headerReads)) }
	return newLimitedEdge(t, o, mount)
}

// wantStyled checks that an answer is that error in that style, with every header that
// goes with it.
func (x *edge) wantStyled(a answer, style apierr.Style, e *apierr.Error) {
	x.t.Helper()
	if want := e.In(style, a.header.Get(HeaderRequestID)); a.status != e.Status || !bytes.Equal(a.body, want) {
		x.t.Errorf("%s: got %d %s, want %d %s", style, a.status, a.body, e.Status, want)
	}
	links := 0
	if style == apierr.Problem {
		links = 1
	}
	if got := a.header.Values("Link"); len(got) != links || links == 1 && got[0] != `</docs/idempotency>; rel="describedby"; type="text/html"` {
		x.t.Errorf("%s: the links are %q", style, got)
	}
	retry := ""
	if e.RetryAfter > 0 {
		retry = strconv.Itoa(e.RetryAfter)
	}
	for name, want := range map[string]string{
		"Content-Type": style.ContentType(), "Content-Length": strconv.Itoa(len(a.body)), "Retry-After": retry,
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := a.header.Values(name); strings.Join(got, "|") != want {
			x.t.Errorf("%s: %s is %q, want %q", style, name, got, want)
		}
	}
	if a.header.Get(HeaderRequestID) == "" {
		x.t.Errorf("%s: the answer has no request id", style)
	}
}

func TestErrorsBeforeAnybodyIsKnownComeInTheStyleOfWhoAsks(t *testing.T) {
	t.Parallel()
	x := newStyledEdge(t, Options{FailedAuth: 1}, func(e *echo.Echo) {
		reading(e)
		secured(e)
		e.GET("/away", func(echo.Context) error { return apierr.New(apierr.ServiceUnavailable, "later").Retry(3) })
		e.GET("/surprise", func(echo.Context) error { return errors.New("geheim") })
		e.GET("/panic", func(echo.Context) error { panic("geheim") })
		e.GET("/inside", func(echo.Context) error {
			return fmt.Errorf("geheim: %w", apierr.New(apierr.MissingParameters, "a", "b").AboutKey("the key is missing"))
		})
	})
	unexpected := apierr.New(apierr.InternalError, "something unexpected happened; retry with the same key")
	for _, style := range styles {
		for name, c := range map[string]struct {
			method, path, body string
			headers            []string
			want               *apierr.Error
		}{
			"404":                           {http.MethodGet, "/nothing", "", nil, apierr.New(apierr.NotFound, "there is nothing at this path")},
			"405":                           {http.MethodDelete, "/", "", nil, apierr.New(apierr.UnsupportedMethod, "this path does not take this method")},
			"413":                           {http.MethodPost, "/", jsonOf(MaxBody + 1), []string{"Content-Type", "application/json"}, apierr.New(apierr.RequestTooLarge, tooLarge)},
			"415":                           {http.MethodPost, "/", "{}", []string{"Content-Type", "text/plain"}, apierr.New(apierr.UnsupportedMediaType, "Content-Type must be application/json")},
			"400":                           {http.MethodPost, "/", `{`, []string{"Content-Type", "application/json"}, apierr.New(apierr.InvalidRequest, "the body ended early")},
			"401":                           {http.MethodGet, "/token", "", nil, apierr.New(apierr.InvalidToken, "no such token")},
			"503":                           {http.MethodGet, "/away", "", nil, apierr.New(apierr.ServiceUnavailable, "later").Retry(3)},
			"500":                           {http.MethodGet, "/surprise", "", nil, unexpected},
			"500 after a panic":             {http.MethodGet, "/panic", "", nil, unexpected},
			"about the key, inside another": {http.MethodGet, "/inside", "", nil, apierr.New(apierr.MissingParameters, "a", "b").AboutKey("the key is missing")},
		} {
			a := x.call(c.method, c.path, strings.NewReader(c.body), append(c.headers, headerReads, string(style))...)
			if a.status != c.want.Status {
				t.Errorf("%s, %s: got %d", style, name, a.status)
			}
			if name == "400" { // the parser's words are its own
				c.want = apierr.New(apierr.InvalidRequest, messageOf(t, style, a))
			}
			x.wantStyled(a, style, c.want)
		}
	}
	// 401, and 429 once that happened too often from one address.
	for i, style := range styles {
		a := x.call(http.MethodGet, "/", nil, headerReads, string(style))
		want := apierr.New(apierr.InvalidCredentials, "Key must be right")
		if i > 0 {
			wait, err := strconv.Atoi(a.header.Get("Retry-After"))
			if err != nil || wait < 1 {
				t.Errorf("%s: Retry-After is %q", style, a.header.Get("Retry-After"))
			}
			want = apierr.New(apierr.RateLimited, "too many requests with wrong credentials came from this address; correct them, and wait").Retry(wait)
		}
		x.wantStyled(a, style, want)
	}
	if log := x.logs.String(); strings.Contains(log, "geheim") {
		t.Errorf("the log quotes a cause: %s", log)
	}
}

// messageOf is the one message of an error, wherever its style has it.
func messageOf(t *testing.T, style apierr.Style, a answer) string {
	t.Helper()
	var e struct {
		Messages        []string
		Message, Detail string
	}
	if err := json.Unmarshal(a.body, &e); err != nil {
		t.Fatalf("%s: %s: %v", style, a.body, err)
	}
	return strings.Join(append(e.Messages, e.Message, e.Detail), "")
}

func TestTooManyAtATimeAreToldInTheirOwnStyle(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	x := newStyledEdge(t, Options{MaxInFlight: 1}, func(e *echo.Echo) {
		e.GET("/", func(c echo.Context) error {
			close(arrived)
			<-release
			return JSON(c, http.StatusOK, []byte("{}"))
		})
	})
	done := make(chan answer, 1)
	go func() { done <- x.call(http.MethodGet, "/", nil) }()
	<-arrived
	for _, style := range styles {
		x.wantStyled(x.call(http.MethodGet, "/", nil, headerReads, string(style)), style,
			apierr.New(apierr.ServiceUnavailable, "too many requests are in flight; retry with the same key").Retry(retryCrowded))
	}
	close(release)
	if a := <-done; a.status != http.StatusOK {
		t.Errorf("the one within the limit: got %d", a.status)
	}
}

// Who is known is answered by what is known of them: a merchant's manner holds for the
// whole request, whatever its headers said.
func TestStyleThatAHandlerSetsWins(t *testing.T) {
	t.Parallel()
	for _, known := range styles {
		x := newStyledEdge(t, Options{}, func(e *echo.Echo) {
			know := func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error {
					SetStyle(c, known)
					return next(c)
				}
			}
			e.GET("/refused", func(echo.Context) error { return apierr.New(apierr.InvalidAmount, "no") }, know)
			e.GET("/panic", func(echo.Context) error { panic("geheim") }, know)
			e.GET("/told", func(c echo.Context) error {
				return Failure(c, http.StatusBadGateway, known, apierr.New(apierr.ProviderError, "told before").In(known, RequestID(c)))
			}, know)
			e.GET("/fine", func(c echo.Context) error { return JSON(c, http.StatusOK, []byte("{}")) }, know)
		})
		for _, said := range styles {
			reads := []string{headerReads, string(said)}
			x.wantStyled(x.call(http.MethodGet, "/refused", nil, reads...), known, apierr.New(apierr.InvalidAmount, "no"))
			x.wantStyled(x.call(http.MethodGet, "/panic", nil, reads...), known, apierr.New(apierr.InternalError, "something unexpected happened; retry with the same key"))
			x.wantStyled(x.call(http.MethodGet, "/told", nil, reads...), known, apierr.New(apierr.ProviderError, "told before"))
			x.wantStyled(x.call(http.MethodGet, "/nothing", nil, reads...), said, apierr.New(apierr.NotFound, "there is nothing at this path"))
			// What is no error looks the same to everybody.
			a := x.call(http.MethodGet, "/fine", nil, reads...)
			if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || a.header.Get("Link") != "" || a.header.Get("Content-Length") != "2" {
				t.Errorf("%s: got %d %v", known, a.status, a.header)
			}
		}
	}
}

// An answer that is kept goes out in the style that it was written in, which need not
// be that of the request which hears it again.
func TestKeptErrorGoesOutAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, kept := range styles {
		body := apierr.New(apierr.ProviderError, "kept").In(kept, "the-first-request")
		x := newStyledEdge(t, Options{}, func(e *echo.Echo) {
			e.GET("/", func(c echo.Context) error {
				SetStyle(c, apierr.Envelope)
				return Failure(c, http.StatusBadGateway, kept, body)
			})
		})
		a := x.call(http.MethodGet, "/", nil, headerReads, string(apierr.Problem))
		if a.status != http.StatusBadGateway || !bytes.Equal(a.body, body) || a.header.Get("Content-Type") != kept.ContentType() || a.header.Get("Link") != kept.Link() {
			t.Errorf("%s: got %d %v %s", kept, a.status, a.header, a.body)
		}
	}
}

// Whatever the style, one error is one error to who reads the log.
func TestLogLineHasTheCodeInEveryStyle(t *testing.T) {
	t.Parallel()
	x := newStyledEdge(t, Options{}, failing(apierr.New(apierr.InvalidAmount, "no")))
	for _, style := range styles {
		x.call(http.MethodGet, "/", nil, headerReads, string(style))
	}
	for _, line := range x.lines("request", len(styles)) {
		if line["error_code"] != "INVALID_AMOUNT" || line["status"] != 400.0 {
			t.Errorf("the line is %v", line)
		}
	}
}
