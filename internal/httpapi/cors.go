package httpapi

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

const (
	// preflightAge is how long a browser may go on asking without asking in advance: as long
	// as any browser lets it. What it asks is looked at all the same.
	preflightAge = 2 * time.Hour

	// browsersMaySend and browsersMayRead are the headers of a request and of an answer that
	// a page of somebody else's has to do with. A secret key is not among them.
	browsersMaySend = "content-type, public-api-key, x-idempotency-key, x-request-id"
	browsersMayRead = "Retry-After, Idempotent-Replayed, X-Request-Id"
)

// CORS says which pages may call from a browser: those that we serve ourselves, and those of
// the origins that the caller has registered. There are no cookies, so no page gets
// anything for being open in a payer's browser; and no page but those gets even to send.
//
// A browser first asks in advance, without any key (Preflights), and then shows the key of
// whom it calls for, with the origin of its page (Admit).
type CORS struct {
	registered func(origin string) bool
	base       func() string       // where browsers reach us; "": at the host that they name
	methods    map[string][]string // that browsers may use, by route
}

// NewCORS makes the rules. registered says whether anybody at all has registered an origin.
// base is the URL where browsers reach us, as far as it is known by the time of a request:
// one that has come through a proxy may name another host than its page does. It may be "".
func NewCORS(registered func(origin string) bool, base func() string) *CORS {
	return &CORS{registered: registered, base: base, methods: map[string][]string{}}
}

// originAt is the origin of what is served under a host, as browsers write it.
func originAt(scheme, host string) string {
	port := map[string]string{"http": ":80", "https": ":443"}[scheme]
	return scheme + "://" + strings.TrimSuffix(strings.ToLower(host), port)
}

// Add adds a route that browsers may call. One of its middleware has to authenticate them,
// and to ask Admit. Call it before serving.
func (x *CORS) Add(e *echo.Echo, method, path string, h echo.HandlerFunc, m ...echo.MiddlewareFunc) {
	x.methods[path] = append(x.methods[path], method)
	e.Add(method, path, h, append([]echo.MiddlewareFunc{x.vary}, m...)...)
}

// vary tells caches, before anything can fail, that the answer depends on who asks.
func (*CORS) vary(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Add(echo.HeaderVary, echo.HeaderOrigin)
		return next(c)
	}
}

// Preflights answers what browsers ask in advance about the routes that Add added; give it
// to Use. The answer is the same for all pages, but that only one whose origin somebody has
// registered is told that it may go on.
func (x *CORS) Preflights(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r, h := c.Request(), c.Response().Header()
		methods, open := x.methods[c.Path()]
		if !open || r.Method != http.MethodOptions || r.Header.Get(echo.HeaderAccessControlRequestMethod) == "" {
			return next(c)
		}
		h.Add(echo.HeaderVary, echo.HeaderOrigin)
		h.Set(echo.HeaderAccessControlAllowMethods, strings.Join(methods, ", "))
		h.Set(echo.HeaderAccessControlAllowHeaders, browsersMaySend)
		h.Set(echo.HeaderAccessControlMaxAge, strconv.Itoa(int(preflightAge.Seconds())))
		if origin, given := originOf(r); given && x.registered(origin) {
			h.Set(echo.HeaderAccessControlAllowOrigin, origin)
		}
		return c.NoContent(http.StatusNoContent)
	}
}

// Admit returns AUTHORIZATION_REQUIRED for a request from a page that is neither ours nor
// one that the caller allows. To a page that the caller allows it makes the answer readable,
// whatever it is going to be. A request without an origin is no page's.
func (x *CORS) Admit(c echo.Context, allows func(origin string) bool) error {
	origin, given := originOf(c.Request())
	switch h := c.Response().Header(); {
	case !given || x.isOwn(c.Request(), origin):
		return nil
	case origin != "" && allows(origin):
		h.Set(echo.HeaderAccessControlAllowOrigin, origin)
		h.Set(echo.HeaderAccessControlExposeHeaders, browsersMayRead)
		return nil
	}
	return apierr.New(apierr.AuthorizationRequired, "the page's origin is not registered with the account that public-api-key belongs to")
}

// isOwn reports whether an origin is the one that the request has reached us under. That
// without TLS it may be https is because of proxies: there is no other way for a page that
// came by TLS to ask us without.
func (x *CORS) isOwn(r *http.Request, origin string) bool {
	if origin == originAt("https", r.Host) || r.TLS == nil && origin == originAt("http", r.Host) {
		return true
	}
	u, err := url.Parse(x.base())
	return err == nil && u.Host != "" && origin == originAt(u.Scheme, u.Host)
}

// originOf is the origin that a request says it is from, and whether it says so. Browsers
// say so once: of several it is none that anybody allows, "".
func originOf(r *http.Request) (origin string, given bool) {
	origins := r.Header.Values(echo.HeaderOrigin)
	if len(origins) == 1 {
		origin = origins[0]
	}
	return origin, len(origins) > 0
}

// RefuseSecretsFromBrowsers refuses a request to the merchants' API that has a secret, in
// that header, and an origin, before anything else is looked at: a secret that a browser can
// send has been read by whoever wanted to. Give it to Use.
func RefuseSecretsFromBrowsers(header string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			_, fromPage := originOf(r)
			if fromPage && len(r.Header.Values(header)) > 0 && strings.HasPrefix(r.URL.Path, "/v1/") {
				return apierr.New(apierr.AuthorizationRequired,
					header+" belongs on a server, and this request has an Origin, as browsers send it: call from your backend, without that header",
					"if the secret was ever in a page or an app, revoke its key")
			}
			return next(c)
		}
	}
}
