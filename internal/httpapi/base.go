package httpapi

import "github.com/labstack/echo/v4"

// BaseURL says under which address browsers reach us, as scheme://host[:port] and without
// a slash at the end. publicURL is what the operator says of that; without it, it is the
// address that the request at hand came to. That a proxy ended TLS is believed of whoever
// says so: where the answer leads, it leads the one who asked.
func BaseURL(publicURL string) func(c echo.Context) string {
	return func(c echo.Context) string {
		if publicURL != "" {
			return publicURL
		}
		scheme := "http"
		if c.Request().TLS != nil || c.Request().Header.Get(echo.HeaderXForwardedProto) == "https" {
			scheme = "https"
		}
		return scheme + "://" + c.Request().Host
	}
}
