package merchants

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
)

// The headers that a caller's keys come in.
const (
	HeaderPublicKey = "public-api-key"
	HeaderSecret    = "private-secret-key"
)

const (
	keyCaller  = "oncepay.caller"
	keyBrowser = "oncepay.browser"
)

// Authenticate lets a request in that shows a pair of keys. It asks the directory in
// memory, before anything is read. style says how errors look under a policy; nil: as the
// listener has it.
func Authenticate(s *Service, style func(policy string) apierr.Style) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			header := c.Request().Header
			from, _ := netip.ParseAddr(c.RealIP()) // what is none is on nobody's list
			caller, err := s.Authenticate(header.Get(HeaderPublicKey), header.Get(HeaderSecret), from)
			if err != nil {
				return err
			}
			let(c, caller)
			if style != nil {
				// From here on one policy holds for this request, whatever becomes of the merchant's.
				httpapi.SetStyle(c, style(caller.Policy))
			}
			return next(c)
		}
	}
}

// let notes whom a request speaks for.
func let(c echo.Context, caller Caller) {
	line := httpapi.LineOf(c)
	line.AccountID, line.Mode = caller.AccountID.String(), caller.Mode
	c.Set(keyCaller, caller)
}

// CallerOf is whom a request speaks for that was let in, with a secret or without.
func CallerOf(c echo.Context) Caller {
	caller, _ := c.Get(keyCaller).(Caller)
	return caller
}

// Limits on browsers, in requests a minute and by instance. A shopper needs a handful, and
// a page that waits for an outcome asks every few seconds; an address may be a whole
// office's. What makes something is bounded more tightly: who tries stolen cards out needs
// thousands.
const (
	AsksPerSession   = 120
	AsksPerAddress   = 600
	OrdersPerSession = 20
	OrdersPerAddress = 120
)

// sessionParam is the part of a path that names what a browser was let do.
const sessionParam = "session"

// Browsers lets shoppers' browsers in: by a public key, which is no secret, from a page
// that the merchant has registered or that is ours, and not too often.
type Browsers struct {
	auth *Service
	cors *httpapi.CORS

	asksPerSession, asksPerAddress, ordersPerSession, ordersPerAddress *httpapi.Limiter
}

// NewBrowsers makes one. What it lets do must be safe for anybody.
func NewBrowsers(auth *Service, cors *httpapi.CORS) *Browsers {
	return &Browsers{
		auth: auth, cors: cors,
		asksPerSession: httpapi.NewLimiter(AsksPerSession), asksPerAddress: httpapi.NewLimiter(AsksPerAddress),
		ordersPerSession: httpapi.NewLimiter(OrdersPerSession), ordersPerAddress: httpapi.NewLimiter(OrdersPerAddress),
	}
}

// Add adds a route for browsers. A parameter that names what the browser was let do is
// called session.
func (b *Browsers) Add(e *echo.Echo, method, path string, h echo.HandlerFunc) {
	b.cors.Add(e, method, path, h, b.authenticate)
}

// AddEither adds a route for browsers and for backends, which show their pair of keys.
func (b *Browsers) AddEither(e *echo.Echo, method, path string, h echo.HandlerFunc, style func(policy string) apierr.Style) {
	asBackend, asBrowser := Authenticate(b.auth, style)(h), b.authenticate(h)
	b.cors.Add(e, method, path, func(c echo.Context) error {
		if len(c.Request().Header.Values(HeaderSecret)) > 0 {
			return asBackend(c)
		}
		return asBrowser(c)
	})
}

func (b *Browsers) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		httpapi.SetStyle(c, apierr.Envelope) // what our own script reads, whatever the merchant's clients do
		caller, err := b.auth.AuthenticatePublic(c.Request().Header.Get(HeaderPublicKey))
		if err == nil {
			let(c, caller.Caller) // also where it is refused: the log line says whose page it was
			err = b.cors.Admit(c, caller.Allows)
		}
		if err == nil {
			err = b.limit(c)
		}
		if err != nil {
			return err
		}
		c.Set(keyBrowser, caller)
		return next(c)
	}
}

// limit tells whoever asks too often to wait.
func (b *Browsers) limit(c echo.Context) error {
	perSession, perAddress := b.asksPerSession, b.asksPerAddress
	if c.Request().Method != http.MethodGet {
		perSession, perAddress = b.ordersPerSession, b.ordersPerAddress
	}
	if wait := perAddress.Take(httpapi.AddressOf(c)); wait > 0 {
		return httpapi.TooMany("too many requests came from this address within a minute; wait for Retry-After", wait)
	}
	session := strings.ToLower(c.Param(sessionParam))
	if session == "" {
		return nil
	}
	if wait := perSession.Take(session); wait > 0 {
		return httpapi.TooMany("too many requests came for this session within a minute; wait for Retry-After", wait)
	}
	return nil
}

// BrowserOf is whom a request speaks for that was let in by a public key alone, and whether
// it was: if not, it is the merchant's backend.
func BrowserOf(c echo.Context) (PublicCaller, bool) {
	caller, ok := c.Get(keyBrowser).(PublicCaller)
	return caller, ok
}

// PolicyOf names the policy that a request's nonce goes by: the merchant's, but for a
// browser none, which is the default. The client there is our own script, whatever the
// merchant's clients know.
func PolicyOf(c echo.Context) string {
	if _, browser := BrowserOf(c); browser {
		return ""
	}
	return CallerOf(c).Policy
}
