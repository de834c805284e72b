package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

type keyObserved struct{}

// TestTheObserverSeesEachRequestOnce with what its log line says: patterns, never
// paths, and the code of whatever went wrong, a panic included.
func TestTheObserverSeesEachRequestOnce(t *testing.T) {
	t.Parallel()
	var seen []Seen
	begun := 0
	e := New(Options{
		Log: slog.New(slog.DiscardHandler), Transient: func(error) bool { return false }, Describe: func(error) string { return "" },
		Observe: func(r *http.Request) (context.Context, func(Seen)) {
			begun++
			return context.WithValue(r.Context(), keyObserved{}, begun), func(s Seen) { seen = append(seen, s) }
		},
	})
	e.GET("/things/:thing", func(c echo.Context) error {
		if c.Request().Context().Value(keyObserved{}) != begun {
			t.Error("the request does not go on with the observer's context")
		}
		LineOf(c).Verdict = "new"
		switch c.Param("thing") {
		case "odd":
			return errors.New("unexpected")
		case "worse":
			panic("something")
		}
		return c.NoContent(http.StatusNoContent)
	})
	for _, c := range []struct {
		method, path, seenAs, route string
		status                      int
		code                        apierr.Code
		verdict                     string
	}{
		{"GET", "/things/plain?geheim", "GET", "/things/:thing", 204, "", "new"},
		{"GET", "/things/odd", "GET", "/things/:thing", 500, apierr.InternalError, "new"},
		{"GET", "/things/worse", "GET", "/things/:thing", 500, apierr.InternalError, "new"},
		{"GET", "/geheim", "GET", "", 404, apierr.NotFound, ""},
		{"GEHEIM", "/things/plain", "other", "/things/:thing", 405, apierr.UnsupportedMethod, ""},
	} {
		seen = nil
		req := httptest.NewRequestWithContext(t.Context(), c.method, c.path, nil)
		req.Header.Set(HeaderRequestID, "request-1")
		e.ServeHTTP(httptest.NewRecorder(), req)
		if len(seen) != 1 {
			t.Fatalf("%s %s was seen %d times", c.method, c.path, len(seen))
		}
		s := seen[0]
		if s.Duration <= 0 {
			t.Errorf("%s %s took no time", c.method, c.path)
		}
		s.Duration = 0
		want := Seen{RequestID: "request-1", Method: c.seenAs, Route: c.route, Status: c.status, Code: c.code, Line: Line{Verdict: c.verdict}}
		if s != want {
			t.Errorf("%s %s was seen as %+v, not %+v", c.method, c.path, s, want)
		}
	}
	if begun != 5 {
		t.Errorf("%d of 5 requests were seen to begin", begun)
	}
}
