package console

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/operators"
)

const (
	pathOperators = "/operators"
	routeOperator = pathOperators + "/:name"
)

func operatorPath(name string) string { return pathOperators + "/" + url.PathEscape(name) }

func (h *Handler) mountOperators(e *echo.Echo) {
	e.GET(pathOperators, h.listOperators)
	e.POST(pathOperators, h.inviteOperator)
	e.GET(routeOperator, h.showOperator)
	e.POST(routeOperator+"/role", h.changeRole)
	e.POST(routeOperator+"/disable", h.disableOperator)
	e.POST(routeOperator+"/enable", h.enableOperator)
	e.POST(routeOperator+"/reset-password", h.resetPassword)
	e.POST(routeOperator+"/sign-out", h.signOutOperator)
	e.POST(routeOperator+"/withdraw-invitation", h.withdrawInvitation)
}

// roles are in the order in which they are offered: the least first, so that nobody gives
// away more than they have chosen to.
var roles = []operators.Role{operators.Viewer, operators.Operator, operators.Admin}

// operatorsPage is what the page of all operators and tokens shows.
type operatorsPage struct {
	Notice      string
	People      []operators.Person
	OlderPeople string // where the list goes on; "": it ends
	Invitations []operators.Invitation
	Tokens      []operators.Token
	OlderTokens string
	Roles       []operators.Role
	Invite      inviteForm
	NewToken    tokenForm
	// Self is whoever sees the page.
	Self uuid.UUID
}

// inviteForm is the form by which somebody is invited.
type inviteForm struct {
	Problem, Name string
	Role          operators.Role
}

// listOperators is GET /operators.
func (h *Handler) listOperators(c echo.Context) error {
	return h.operatorsPage(c, http.StatusOK, func(*operatorsPage) {})
}

// operatorsPage shows everybody as they are now; fill puts a form back that was refused.
func (h *Handler) operatorsPage(c echo.Context, status int, fill func(p *operatorsPage)) error {
	ctx := c.Request().Context()
	afterPerson, err := cursorOf(c, "after")
	if err != nil {
		return err
	}
	afterToken, err := cursorOf(c, "after_token")
	if err != nil {
		return err
	}
	p := operatorsPage{
		Notice: notices[c.QueryParam("done")], Roles: roles, Self: operators.PrincipalOf(c).ID,
		Invite: inviteForm{Role: roles[0]}, NewToken: tokenForm{Scope: roles[0], Days: strconv.Itoa(int(operators.DefaultTokenLife / day))},
	}
	if p.People, err = h.o.Operators.List(ctx, afterPerson, listLimit+1); err != nil {
		return err
	}
	if len(p.People) > listLimit {
		p.People = p.People[:listLimit]
		p.OlderPeople = pathOperators + "?after=" + p.People[listLimit-1].ID.String()
	}
	if p.Invitations, err = h.o.Operators.Invitations(ctx); err != nil {
		return err
	}
	if p.Tokens, err = h.o.Operators.Tokens(ctx, afterToken, listLimit+1); err != nil {
		return err
	}
	if len(p.Tokens) > listLimit {
		p.Tokens = p.Tokens[:listLimit]
		p.OlderTokens = pathOperators + "?after_token=" + p.Tokens[listLimit-1].ID.String() + "#tokens"
	}
	fill(&p)
	return h.show(c, status, "operators", page{Title: "Operators", Section: pathOperators, Data: p})
}

// inviteOperator is POST /operators. The answer shows the link.
func (h *Handler) inviteOperator(c echo.Context) error {
	f := inviteForm{Name: c.FormValue("name"), Role: operators.Role(c.FormValue("role"))}
	link, err := h.o.Operators.Invite(c.Request().Context(), f.Name, f.Role)
	if r, ok := refused(err); ok {
		f.Problem = r.Words
		return h.operatorsPage(c, r.Status, func(p *operatorsPage) { p.Invite = f })
	}
	if err != nil {
		return err
	}
	return h.showLink(c, link, "The invitation was made", pathOperators, "To the operators")
}

// showLink shows a link by which somebody chooses a password.
func (h *Handler) showLink(c echo.Context, link operators.Link, title, next, nextName string) error {
	return h.showOnce(c, pathOperators, shownOnce{
		Title: title,
		Says: []string{
			"Send this link to " + link.Name + ", and to nobody else: whoever opens it chooses the password.",
			"It works once, until " + formatTime(link.ExpiresAt) + " UTC, and replaces links that " + link.Name + " was sent before.",
		},
		Values: []shownValue{{"Link", httpapi.BaseURL("")(c) + link.Path(), true}},
		Next:   next, NextName: nextName,
	})
}

// operatorPage is what the page of one operator shows.
type operatorPage struct {
	operators.Person
	Notice string
	Roles  []operators.Role
	Chosen operators.Role // in the form
	Self   bool           // it is whoever sees it
	// Problem is why the form was refused that Failed names: role, disable or reset-password. It
	// is above all forms, because by now there may be none like that.
	Failed, Problem string
}

// Path is where the operator is.
func (p operatorPage) Path() string { return operatorPath(p.Name) }

// showOperator is GET /operators/{name}.
func (h *Handler) showOperator(c echo.Context) error {
	return h.operatorPage(c, http.StatusOK, func(*operatorPage) {})
}

// operatorPage shows somebody as they are now; fill puts a form back that was refused.
func (h *Handler) operatorPage(c echo.Context, status int, fill func(p *operatorPage)) error {
	person, err := h.o.Operators.Get(c.Request().Context(), c.Param("name"))
	if err != nil {
		return err
	}
	p := operatorPage{
		Person: person, Notice: notices[c.QueryParam("done")], Roles: roles, Chosen: person.Role,
		Self: person.ID == operators.PrincipalOf(c).ID,
	}
	fill(&p)
	return h.show(c, status, "operator", page{Title: person.Name, Section: pathOperators, Data: p})
}

// refuseOperator shows somebody with the form that was refused, if err says that one was.
func (h *Handler) refuseOperator(c echo.Context, form string, err error, fill func(p *operatorPage)) error {
	r, ok := refused(err)
	if !ok {
		return err
	}
	return h.operatorPage(c, r.Status, func(p *operatorPage) {
		p.Failed, p.Problem = form, r.Words
		fill(p)
	})
}

// changeRole is POST /operators/{name}/role.
func (h *Handler) changeRole(c echo.Context) error {
	role := operators.Role(c.FormValue("role"))
	p, err := h.o.Operators.Update(c.Request().Context(), c.Param("name"), operators.Update{Role: &role})
	if err != nil {
		return h.refuseOperator(c, "role", err, func(p *operatorPage) { p.Chosen = role })
	}
	return seeOther(c, operatorPath(p.Name)+"?done=operator-role")
}

// disableOperator is POST /operators/{name}/disable.
func (h *Handler) disableOperator(c echo.Context) error { return h.setOperatorDisabled(c, true) }

// enableOperator is POST /operators/{name}/enable.
func (h *Handler) enableOperator(c echo.Context) error { return h.setOperatorDisabled(c, false) }

func (h *Handler) setOperatorDisabled(c echo.Context, disabled bool) error {
	p, err := h.o.Operators.Update(c.Request().Context(), c.Param("name"), operators.Update{Disabled: &disabled})
	if err != nil {
		return h.refuseOperator(c, "disable", err, func(*operatorPage) {})
	}
	done := "operator-enabled"
	if disabled {
		done = "operator-disabled"
	}
	return seeOther(c, operatorPath(p.Name)+"?done="+done)
}

// resetPassword is POST /operators/{name}/reset-password. The answer shows the link.
func (h *Handler) resetPassword(c echo.Context) error {
	link, err := h.o.Operators.ResetPassword(c.Request().Context(), c.Param("name"))
	if err != nil {
		return h.refuseOperator(c, "reset-password", err, func(*operatorPage) {})
	}
	return h.showLink(c, link, "The link was made", operatorPath(link.Name), "To the operator")
}

// signOutOperator is POST /operators/{name}/sign-out.
func (h *Handler) signOutOperator(c echo.Context) error {
	name := c.Param("name")
	if _, err := h.o.Operators.SignOutEverywhere(c.Request().Context(), name); err != nil {
		return err
	}
	return seeOther(c, operatorPath(name)+"?done=operator-signed-out")
}

// withdrawInvitation is POST /operators/{name}/withdraw-invitation.
func (h *Handler) withdrawInvitation(c echo.Context) error {
	if err := h.o.Operators.Withdraw(c.Request().Context(), c.Param("name")); err != nil {
		return err
	}
	return seeOther(c, pathOperators+"?done=invitation-withdrawn")
}
