package main

import (
	"net/http"
	"net/http/pprof" // adds itself to the default mux, which nobody serves

	"github.com/labstack/echo/v4"
)

// mountProfiles adds Go's profiles to the operator's listener, behind its token:
// they show no data, but what is being worked on, and taking one costs time. The
// command line, which pprof would tell as well, is left out.
func mountProfiles(operator *echo.Echo) {
	g := operator.Group("/debug/pprof")
	g.GET("/", echo.WrapHandler(http.HandlerFunc(pprof.Index)))
	g.GET("/profile", echo.WrapHandler(http.HandlerFunc(pprof.Profile)))
	g.GET("/trace", echo.WrapHandler(http.HandlerFunc(pprof.Trace)))
	for _, name := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
		g.GET("/"+name, echo.WrapHandler(pprof.Handler(name)))
	}
}
