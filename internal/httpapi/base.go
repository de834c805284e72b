package httpapi

import "github.com/labstack/echo/v4"

// BaseURL says under which address browsers reach us, as scheme://host[:port] and without
// a slash at the end. publicURL is what the operator says of that; without it, it is the
// address that the request at hand came to.
func BaseURL(publicURL string) func(c echo.Context) string {
	return func(c echo.Context) string {
		if publicURL != "" {
			return publicURL
		}
		return c.Scheme() + "://" + c.Request().Host
	}
}
