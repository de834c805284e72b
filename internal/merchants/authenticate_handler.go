package merchants

import (
	"net/netip"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
)

// The headers that a caller's keys come in.
const (
	HeaderPublicKey = "public-api-key"
	HeaderSecret    = "private-secret-key"
)

const keyCaller = "oncepay.caller"

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

// CallerOf is whom a request speaks for that was let in.
func CallerOf(c echo.Context) Caller {
	caller, _ := c.Get(keyCaller).(Caller)
	return caller
}
