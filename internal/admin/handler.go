// Package admin is the operator's API: who may call it, and what it consists of.
// It is served on a listener of its own, never on the merchants'.
package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apidocs"
	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
)

// MinTokenLength is in bytes. A token is drawn, not invented.
const MinTokenLength = 32

// open says which routes are in front of the token: who watches over processes has
// none, and the API's description is no secret. It is given the route that was found,
// not what the URL says.
func open(route string) bool {
	switch route {
	case httpapi.MetricsPath, httpapi.LivezPath, httpapi.ReadyzPath:
		return true
	}
	return apidocs.Serves(route)
}

// Mounter adds its routes to the operator's API.
type Mounter interface{ Mount(g *echo.Group) }

// Mount adds the operator's API to e, behind a bearer token, and the metrics, which
// name no merchant, in front of it. Whatever else e serves is behind the token, too,
// but for probes and documentation.
func Mount(e *echo.Echo, token string, metrics http.Handler, parts ...Mounter) {
	e.Use(requireToken(token)) // not on the group, which would call unknown methods unknown paths
	e.GET(httpapi.MetricsPath, echo.WrapHandler(metrics))
	g := e.Group("/admin/v1")
	for _, p := range parts {
		p.Mount(g)
	}
}

// requireToken compares digests, so neither the length nor the contents of the
// token show in the time it takes.
func requireToken(token string) echo.MiddlewareFunc {
	want := sha256.Sum256([]byte(token))
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if open(c.Path()) {
				return next(c)
			}
			bearer, ok := strings.CutPrefix(c.Request().Header.Get(echo.HeaderAuthorization), "Bearer ")
			got := sha256.Sum256([]byte(bearer))
			if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !ok {
				c.Response().Header().Set(echo.HeaderWWWAuthenticate, "Bearer")
				return apierr.New(apierr.InvalidCredentials, "Authorization must be Bearer and the admin token").WithStatus(http.StatusUnauthorized)
			}
			return next(c)
		}
	}
}
