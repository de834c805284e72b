package console

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/operators"
)

const (
	pathSignIn  = "/sign-in"
	pathAccount = "/account" // where somebody changes their password

	// strangersPerMinute is how often one address may sign in from browsers that the name is
	// not known in: an office on its first day. Each try has a password hashed.
	strangersPerMinute = 20
)

// signInHandler serves the sign-in.
type signInHandler struct {
	*Handler
	strangers *httpapi.Limiter
}

func (h *Handler) mountSignIn(e *echo.Echo) {
	s := &signInHandler{h, httpapi.NewLimiter(strangersPerMinute)}
	e.GET(pathSignIn, h.signInPage)
	e.POST(pathSignIn, s.signIn)
	e.POST("/sign-out", h.signOut)
	e.GET("/invitations/:secret", h.invitation)
	e.POST("/invitations/:secret", h.accept)
	e.GET(pathAccount, h.account)
	e.POST(pathAccount, h.changePassword)
}

// signInForm is what the page of the sign-in shows.
type signInForm struct{ Next, Problem string }

// signInPage is GET /sign-in. Whoever has signed in goes on.
func (h *Handler) signInPage(c echo.Context) error {
	next := localPath(c.QueryParam("next"))
	if _, err := h.o.Operators.BySession(c.Request().Context(), operators.SessionOf(c)); err == nil {
		return c.Redirect(http.StatusSeeOther, next)
	}
	return h.showSignIn(c, http.StatusOK, next, "")
}

func (h *Handler) showSignIn(c echo.Context, status int, next, problem string) error {
	return h.show(c, status, "signin", page{Title: "Sign in", Data: signInForm{next, problem}})
}

// signIn is POST /sign-in. Its refusal is shown by ShowError, which the limit on wrong
// credentials from one address comes before. Strangers who come too often are refused before
// anything is looked at; whoever signs in where they have before is not kept by them.
func (h *signInHandler) signIn(c echo.Context) error {
	name, device := c.FormValue("name"), operators.DeviceOf(c)
	if !h.o.Operators.Recognizes(name, device) {
		if wait := h.strangers.Take(httpapi.AddressOf(c)); wait > 0 {
			return httpapi.TooMany("too many sign-ins came from this address within a minute; wait a few seconds", wait)
		}
	}
	done, err := h.o.Operators.SignIn(c.Request().Context(), name, c.FormValue(operators.FieldPassword), device)
	if err != nil {
		return err
	}
	operators.SetCookies(c, done.Session, done.Device)
	return seeOther(c, localPath(c.FormValue("next")))
}

// signOut is POST /sign-out.
func (h *Handler) signOut(c echo.Context) error {
	if err := h.o.Operators.SignOut(c.Request().Context(), operators.SessionOf(c)); err != nil {
		return err
	}
	operators.ForgetSession(c)
	return seeOther(c, pathSignIn)
}

// invitationForm is what the page of an invitation shows.
type invitationForm struct {
	operators.Invitation
	Secret, Problem string
}

// invitation is GET /invitations/{secret}.
func (h *Handler) invitation(c echo.Context) error {
	i, err := h.o.Operators.Invitation(c.Request().Context(), c.Param("secret"))
	if err != nil {
		return err
	}
	return h.show(c, http.StatusOK, "invitation", page{Title: "Welcome", Data: invitationForm{i, c.Param("secret"), ""}})
}

// accept is POST /invitations/{secret}: a name, where it is open, and a password.
func (h *Handler) accept(c echo.Context) error {
	ctx, secret := c.Request().Context(), c.Param("secret")
	i, err := h.o.Operators.Invitation(ctx, secret)
	if err != nil {
		return err
	}
	name, password := i.Name, c.FormValue(operators.FieldPassword)
	if name == "" {
		name = c.FormValue("name")
	}
	if password != c.FormValue("again") {
		err = errNotTheSame()
	}
	var done operators.SignedIn
	if err == nil {
		done, err = h.o.Operators.Accept(ctx, secret, name, password, operators.DeviceOf(c))
	}
	if e, told := apierr.From(err); told && e.Status == http.StatusBadRequest {
		p := page{Title: "Welcome", Data: invitationForm{i, secret, joined(e)}}
		return h.show(c, e.Status, "invitation", p)
	}
	if err != nil {
		return err
	}
	operators.SetCookies(c, done.Session, done.Device)
	return seeOther(c, "/")
}

// accountForm is what the page of one's own account shows.
type accountForm struct {
	Done    bool
	Problem string
}

// account is GET /account.
func (h *Handler) account(c echo.Context) error {
	return h.show(c, http.StatusOK, "account", page{Title: "Your account", Data: accountForm{Done: c.QueryParam("done") == "password"}})
}

// changePassword is POST /account.
func (h *Handler) changePassword(c echo.Context) error {
	password := c.FormValue(operators.FieldPassword)
	var (
		done operators.SignedIn
		err  error
	)
	if password != c.FormValue("again") {
		err = errNotTheSame()
	} else {
		done, err = h.o.Operators.ChangePassword(c.Request().Context(), operators.PrincipalOf(c), c.FormValue("current"), password, operators.DeviceOf(c))
	}
	if e, told := apierr.From(err); told && e.Status < http.StatusInternalServerError {
		status := e.Status
		if status == http.StatusUnauthorized {
			status = http.StatusForbidden // they are signed in, and stay so
		}
		return h.show(c, status, "account", page{Title: "Your account", Data: accountForm{Problem: joined(e)}})
	}
	if err != nil {
		return err
	}
	operators.SetCookies(c, done.Session, done.Device)
	return seeOther(c, pathAccount+"?done=password")
}

// errNotTheSame is for who mistyped a password that nobody sees.
func errNotTheSame() *apierr.Error {
	return apierr.New(apierr.InvalidParameters, "the two new passwords must be the same")
}
