// Package admin is the operator's listener: what it consists of, and who may use what. It
// is never the merchants' one.
//
// Programs bring a token with each request to /admin/v1; people sign in to the console. What
// each may do is in one table, rules.go, and whoever has no rule there has no access.
package admin

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/operators"
)

// MinTokenLength is in bytes. A token is drawn, not invented.
const MinTokenLength = 32

// apiPrefix is where the operator's API is.
const apiPrefix = "/admin/v1"

// Mounter adds its routes to the operator's API.
type Mounter interface{ Mount(g *echo.Group) }

// Console is what people see.
type Console interface {
	// Mount adds the pages.
	Mount(e *echo.Echo)
	// ShowError answers with an error as a page. One that says that nobody has signed in
	// leads to where they can.
	ShowError(c echo.Context, e *apierr.Error) error
}

// Options are what the listener consists of.
type Options struct {
	// Token is the one of the environment, which may do everything.
	Token string
	// Operators are who else may; nil: nobody.
	Operators *operators.Service
	Metrics   http.Handler
	API       []Mounter
	// Console may be nil: then there is nothing for people, and the token opens all paths.
	Console Console
}

// Mount adds it all to e. Whatever else e serves is behind the gate, too.
func Mount(e *echo.Echo, o Options) {
	e.Use(newGate(o, e).admit) // not on groups, which would call unknown methods unknown paths
	e.GET(httpapi.MetricsPath, echo.WrapHandler(o.Metrics))
	g := e.Group(apiPrefix)
	for _, p := range o.API {
		p.Mount(g)
	}
	if o.Console != nil {
		o.Console.Mount(e)
	}
}
