package console

import (
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/operators"
)

const (
	pathTokens = "/tokens"

	day = 24 * time.Hour
)

func (h *Handler) mountTokens(e *echo.Echo) {
	e.GET(pathTokens, h.listTokens)
	e.POST(pathTokens, h.createToken)
	e.POST(pathTokens+"/:token_id/revoke", h.revokeToken)
}

// tokenForm is the form by which a token is made.
type tokenForm struct {
	Problem, Name, Days string
	Scope               operators.Role
}

// listTokens is GET /tokens. They are on the page of the operators.
func (*Handler) listTokens(c echo.Context) error {
	return c.Redirect(http.StatusSeeOther, pathOperators+"#tokens")
}

// createToken is POST /tokens. The answer shows the secret.
func (h *Handler) createToken(c echo.Context) error {
	f := tokenForm{Name: c.FormValue("name"), Days: c.FormValue("days"), Scope: operators.Role(c.FormValue("scope"))}
	days, err := strconv.Atoi(f.Days)
	if err != nil || days < 0 || days > int(operators.MaxTokenLife/day) {
		days = -1 // what is refused, without what a multiplication may make of it
	}
	t, secret, err := h.o.Operators.CreateToken(c.Request().Context(), f.Name, f.Scope, time.Duration(days)*day)
	if r, ok := refused(err); ok {
		f.Problem = r.Words
		return h.operatorsPage(c, r.Status, func(p *operatorsPage) { p.NewToken = f })
	}
	if err != nil {
		return err
	}
	return h.showOnce(c, pathOperators, shownOnce{
		Title: "The token was made",
		Says: []string{
			"A program sends it as Authorization: Bearer, with each request to /admin/v1 on this listener. It may do what the role " + string(t.Scope) + " may.",
			"It is good until " + formatTime(t.ExpiresAt) + " UTC.",
		},
		Values: []shownValue{{"Name", t.Name, false}, {"Token", secret, true}},
		Next:   pathOperators + "#tokens", NextName: "To the tokens",
	})
}

// revokeToken is POST /tokens/{token_id}/revoke.
func (h *Handler) revokeToken(c echo.Context) error {
	id, err := uuid.Parse(c.Param("token_id"))
	if err != nil {
		return apierr.New(apierr.NotFound, "there is no token with this id")
	}
	if _, err := h.o.Operators.RevokeToken(c.Request().Context(), id); err != nil {
		return err
	}
	return seeOther(c, pathOperators+"?done=token-revoked#tokens")
}
