package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/operators"
)

// gate is in front of every route of the listener.
type gate struct {
	operators *operators.Service
	token     [sha256.Size]byte
	console   Console
	origins   *http.CrossOriginProtection
	known     func() map[string]bool // the routes that there are, by method and route
}

func newGate(o Options, e *echo.Echo) *gate {
	return &gate{
		operators: o.Operators, token: sha256.Sum256([]byte(o.Token)), console: o.Console, origins: http.NewCrossOriginProtection(),
		known: sync.OnceValue(func() map[string]bool { // at the first request, when all have been added
			known := map[string]bool{}
			for _, r := range e.Routes() {
				known[r.Method+" "+r.Path] = true
			}
			return known
		}),
	}
}

// admit lets a request through if there is a rule for its route, and whoever asks may.
func (g *gate) admit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		programs := ForPrograms(c.Request().URL.Path)
		if !programs && g.console != nil {
			httpapi.SetPage(c, g.console.ShowError)
			httpapi.SetAdvice(c, "load the page again, and see what has been done before you do it again")
		}
		method, route := c.Request().Method, c.Path()
		rule, ruled := RuleOf(method, route)
		if !ruled && g.known()[method+" "+route] {
			return apierr.New(apierr.AuthorizationRequired, "nobody may use this route")
		}
		// A page of another site must not act for whoever has signed in here. A program sends
		// no cookie, and nobody can make it send its token.
		if err := g.origins.Check(c.Request()); err != nil && !programs {
			return apierr.New(apierr.AuthorizationRequired, "this request came from a page of another site")
		}
		if !programs {
			if err := readForm(c); err != nil {
				return err
			}
		}
		if rule.Open {
			return g.as(c, operators.Principal{Kind: audit.KindNobody, Name: string(audit.KindNobody)}, next)
		}
		p, err := g.identify(c, programs, rule.Unattended)
		if e, told := apierr.From(err); told && !programs && g.console != nil && e.Status == http.StatusUnauthorized {
			return g.console.ShowError(c, e) // not a failure to be counted: sessions end
		}
		if err != nil {
			return err
		}
		if ruled && !p.Role.Includes(rule.Role) {
			return apierr.New(apierr.AuthorizationRequired, "this needs the role "+string(rule.Role))
		}
		if rule.Password && !programs {
			err := g.operators.Confirm(c.Request().Context(), p, c.FormValue(operators.FieldPassword), operators.DeviceOf(c))
			if e, told := apierr.From(err); told && e.Status == http.StatusUnauthorized {
				return e.WithStatus(http.StatusForbidden) // they are signed in, and stay so
			}
			if err != nil {
				return err
			}
		}
		return g.as(c, p, next)
	}
}

// as goes on, and says who it is in everything that is done.
func (g *gate) as(c echo.Context, p operators.Principal, next echo.HandlerFunc) error {
	operators.Let(c, p)
	r := c.Request()
	c.SetRequest(r.WithContext(audit.By(r.Context(), p.Actor(c.RealIP(), httpapi.RequestID(c)))))
	return next(c)
}

// identify finds out who asks: a program by its token, a person by their session.
func (g *gate) identify(c echo.Context, program, unattended bool) (operators.Principal, error) {
	if !program && g.operators != nil && unattended {
		return g.operators.Watching(c.Request().Context(), operators.SessionOf(c))
	}
	if !program && g.operators != nil {
		return g.operators.BySession(c.Request().Context(), operators.SessionOf(c))
	}
	bearer, ok := strings.CutPrefix(c.Request().Header.Get(echo.HeaderAuthorization), "Bearer ")
	if !ok {
		bearer = ""
	}
	// Digests are compared, so neither the length nor the contents of the token show in the
	// time it takes.
	got := sha256.Sum256([]byte(bearer))
	if subtle.ConstantTimeCompare(got[:], g.token[:]) == 1 && bearer != "" {
		return operators.AdminTokenPrincipal(), nil
	}
	refused := error(operators.ErrToken())
	if g.operators != nil {
		var p operators.Principal
		if p, refused = g.operators.ByToken(c.Request().Context(), bearer); refused == nil {
			return p, nil
		}
	}
	c.Response().Header().Set(echo.HeaderWWWAuthenticate, "Bearer")
	return operators.Principal{}, refused
}

// maxForm bounds what a page sends, in bytes. The longest field is a list of 50 origins.
const maxForm = 64 << 10

// readForm reads what a page sends, for whoever handles it: no handler parses a body by
// itself, of whatever kind and size a stranger sends one. What the address says is no part of
// a form: a password in there would be in logs and histories.
func readForm(c echo.Context) error {
	r := c.Request()
	r.Body = http.MaxBytesReader(c.Response(), r.Body, maxForm)
	if r.Method != http.MethodPost {
		r.Form, r.PostForm = url.Values{}, url.Values{}
		return nil
	}
	media, _, err := mime.ParseMediaType(r.Header.Get(echo.HeaderContentType))
	if r.ContentLength != 0 && (err != nil || media != echo.MIMEApplicationForm) {
		return apierr.New(apierr.UnsupportedMediaType, "Content-Type must be "+echo.MIMEApplicationForm)
	}
	err = r.ParseForm()
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return apierr.New(apierr.RequestTooLarge, "what a page sends must be at most 64 KiB")
	}
	if err != nil {
		return apierr.New(apierr.InvalidRequest, "the form must be percent-encoded, and so must the address")
	}
	r.Form = r.PostForm
	return nil
}
