package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

// Seen is one request, when its answer is out. Nothing in it is of the body, and
// Route is the pattern, never the path, which may hold a nonce.
type Seen struct {
	RequestID string
	Method    string // one of HTTP's, or "other"
	Route     string // "" where no route matched
	Status    int
	Code      apierr.Code // "" where there was no error
	Line      Line
	Duration  time.Duration
}

// Observer is called as a request begins, before anything of it is read. The
// request goes on with the context that it returns; the function that it returns
// is called once, when the answer is out.
type Observer func(r *http.Request) (context.Context, func(Seen))

// observe tells the observer, if there is one.
func (o Options) observe(c echo.Context) (end func(Seen)) {
	if o.Observe == nil {
		return func(Seen) {}
	}
	r := c.Request()
	ctx, end := o.Observe(r)
	if ctx != r.Context() { // a copy of the request is not free
		c.SetRequest(r.WithContext(ctx))
	}
	return end
}
