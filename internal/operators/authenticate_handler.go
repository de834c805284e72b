package operators

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/audit"
)

// FieldPassword is the name of the field in which a form asks for the password.
const FieldPassword = "password"

// The cookies. On HTTPS their names begin with __Host-, by which a browser promises that
// no other host, and nobody on plain HTTP, has set them.
const (
	cookieSession = "oncepay_session"
	cookieDevice  = "oncepay_device"
	hostPrefix    = "__Host-"
)

// deviceLife is how long a browser is known for. Each sign-in begins it again.
const deviceLife = 180 * day

const keyPrincipal = "oncepay.principal"

// Let notes who asks. The gate of the listener calls it once, and nobody else does.
func Let(c echo.Context, p Principal) { c.Set(keyPrincipal, p) }

// PrincipalOf is who asks. Where the gate has let nobody in it is nobody, who may do nothing.
func PrincipalOf(c echo.Context) Principal {
	if p, ok := c.Get(keyPrincipal).(Principal); ok {
		return p
	}
	return Principal{Kind: audit.KindNobody, Name: string(audit.KindNobody)}
}

// SessionOf is the session that a browser shows; "" if it shows none.
func SessionOf(c echo.Context) string { return cookie(c, cookieSession) }

// DeviceOf is what a browser is known by that somebody has signed in with before; "" if it is
// not known.
func DeviceOf(c echo.Context) string { return cookie(c, cookieDevice) }

// SetCookies gives a browser its session, which it forgets when it is closed, and what it is
// known by the next time.
func SetCookies(c echo.Context, session, device string) {
	// A link in somebody's mail is to lead to the page and not to the sign-in, so the session
	// comes along when a page of another site leads here. What changes something is kept from
	// other sites by the gate.
	setCookie(c, cookieSession, session, http.SameSiteLaxMode, 0)
	setCookie(c, cookieDevice, device, http.SameSiteStrictMode, int(deviceLife/time.Second))
}

// ForgetSession has a browser forget its session. It stays known.
func ForgetSession(c echo.Context) {
	setCookie(c, cookieSession, "", http.SameSiteLaxMode, -1)
}

func cookie(c echo.Context, name string) string {
	found, err := c.Cookie(cookieName(c, name))
	if err != nil {
		return ""
	}
	return found.Value
}

func setCookie(c echo.Context, name, value string, site http.SameSite, maxAge int) {
	c.SetCookie(&http.Cookie{ //nolint:gosec // on the loopback's plain HTTP a Secure cookie would not come back
		Name: cookieName(c, name), Value: value, Path: "/", HttpOnly: true, Secure: secure(c), SameSite: site, MaxAge: maxAge,
	})
}

func cookieName(c echo.Context, name string) string {
	if secure(c) {
		return hostPrefix + name
	}
	return name
}

// secure reports whether the browser speaks HTTPS, to us or to a proxy that says so. Who
// says so without a reason gets cookies that their browser will not send back.
func secure(c echo.Context) bool { return c.Scheme() == "https" }
