package operators

import (
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
)

// OperatorHandler is how an admin looks after operators and tokens, by the operator's API.
type OperatorHandler struct{ service *Service }

// NewOperatorHandler makes the handler.
func NewOperatorHandler(s *Service) *OperatorHandler { return &OperatorHandler{s} }

// Mount adds the routes to g, which lets only admins in.
func (h *OperatorHandler) Mount(g *echo.Group) {
	g.GET("/operators", h.list)
	g.POST("/operators", h.invite)
	g.PATCH("/operators/:name", h.update)
	g.POST("/operators/:name/reset-password", h.resetPassword)
	g.POST("/operators/:name/sign-out", h.signOut)
	g.POST("/operators/:name/withdraw-invitation", h.withdraw)
	g.GET("/tokens", h.listTokens)
	g.POST("/tokens", h.createToken)
	g.POST("/tokens/:token_id/revoke", h.revokeToken)
}

// list is GET /admin/v1/operators, the newest first.
func (h *OperatorHandler) list(c echo.Context) error {
	limit, after, err := httpapi.Page(c)
	if err != nil {
		return err
	}
	people, err := h.service.List(c.Request().Context(), after, limit+1)
	if err != nil {
		return err
	}
	if len(people) > limit {
		people = people[:limit]
		httpapi.LinkNext(c, people[limit-1].ID.String())
	}
	views := make([]wirePerson, len(people))
	for i, p := range people {
		views[i] = p.wire()
	}
	return httpapi.Answer(c, http.StatusOK, views)
}

// invite is POST /admin/v1/operators.
func (h *OperatorHandler) invite(c echo.Context) error {
	body, err := httpapi.Object(c)
	if err != nil {
		return err
	}
	var v fields.Checker
	name := v.RequiredText(body.Get("name"), 1, maxName)
	role := v.RequiredText(body.Get("role"), 1, maxName)
	if err := v.Err(); err != nil {
		return err
	}
	l, err := h.service.Invite(c.Request().Context(), name, Role(role))
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusCreated, l.wire())
}

// update is PATCH /admin/v1/operators/{name}.
func (h *OperatorHandler) update(c echo.Context) error {
	body, err := httpapi.Object(c)
	if err != nil {
		return err
	}
	var (
		v fields.Checker
		u Update
	)
	if at := body.Get("role"); at.Given() {
		u.Role = new(Role(v.Text(at, 1, maxName)))
	}
	if at := body.Get("disabled"); at.Given() {
		u.Disabled = new(v.Boolean(at, false))
	}
	if err := v.Err(); err != nil {
		return err
	}
	p, err := h.service.Update(c.Request().Context(), nameOf(c), u)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusOK, p.wire())
}

// resetPassword is POST /admin/v1/operators/{name}/reset-password.
func (h *OperatorHandler) resetPassword(c echo.Context) error {
	if _, err := httpapi.OptionalObject(c); err != nil {
		return err
	}
	l, err := h.service.ResetPassword(c.Request().Context(), nameOf(c))
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusCreated, l.wire())
}

// signOut is POST /admin/v1/operators/{name}/sign-out.
func (h *OperatorHandler) signOut(c echo.Context) error {
	if _, err := httpapi.OptionalObject(c); err != nil {
		return err
	}
	n, err := h.service.SignOutEverywhere(c.Request().Context(), nameOf(c))
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusOK, struct {
		Name          string `json:"name"`
		SessionsEnded int64  `json:"sessions_ended"`
	}{normalName(nameOf(c)), n})
}

// withdraw is POST /admin/v1/operators/{name}/withdraw-invitation.
func (h *OperatorHandler) withdraw(c echo.Context) error {
	if _, err := httpapi.OptionalObject(c); err != nil {
		return err
	}
	if err := h.service.Withdraw(c.Request().Context(), nameOf(c)); err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusOK, struct {
		Name string `json:"name"`
	}{normalName(nameOf(c))})
}

// listTokens is GET /admin/v1/tokens, the newest first.
func (h *OperatorHandler) listTokens(c echo.Context) error {
	limit, after, err := httpapi.Page(c)
	if err != nil {
		return err
	}
	ts, err := h.service.Tokens(c.Request().Context(), after, limit+1)
	if err != nil {
		return err
	}
	if len(ts) > limit {
		ts = ts[:limit]
		httpapi.LinkNext(c, ts[limit-1].ID.String())
	}
	views := make([]wireToken, len(ts))
	for i, t := range ts {
		views[i] = t.wire()
	}
	return httpapi.Answer(c, http.StatusOK, views)
}

// createToken is POST /admin/v1/tokens.
func (h *OperatorHandler) createToken(c echo.Context) error {
	body, err := httpapi.Object(c)
	if err != nil {
		return err
	}
	var v fields.Checker
	name := v.RequiredText(body.Get("name"), 1, maxTokenName)
	scope := v.RequiredText(body.Get("scope"), 1, maxName)
	days := v.Integer(body.Get("lifetime_days"), int(MinTokenLife/day), int(MaxTokenLife/day), int(DefaultTokenLife/day))
	if err := v.Err(); err != nil {
		return err
	}
	t, secret, err := h.service.CreateToken(c.Request().Context(), name, Role(scope), time.Duration(days)*day)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusCreated, struct {
		wireToken
		Token string `json:"token"`
	}{t.wire(), secret})
}

// revokeToken is POST /admin/v1/tokens/{token_id}/revoke.
func (h *OperatorHandler) revokeToken(c echo.Context) error {
	if _, err := httpapi.OptionalObject(c); err != nil {
		return err
	}
	id, err := uuid.Parse(c.Param("token_id"))
	if err != nil {
		return errNoToken()
	}
	t, err := h.service.RevokeToken(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusOK, t.wire())
}

// wirePerson is an operator on the wire.
type wirePerson struct {
	ID         string  `json:"id"`
	Name       string  `json:"name"`
	Role       Role    `json:"role"`
	CreatedAt  string  `json:"created_at"`
	ChangedAt  string  `json:"changed_at"`
	DisabledAt *string `json:"disabled_at"`
	SeenAt     *string `json:"seen_at"`
}

func (p Person) wire() wirePerson {
	return wirePerson{
		p.ID.String(), p.Name, p.Role, httpapi.Timestamp(p.CreatedAt), httpapi.Timestamp(p.ChangedAt), httpapi.TimestampOrNull(p.DisabledAt), httpapi.TimestampOrNull(p.SeenAt),
	}
}

// wireLink is a link in the answer that made it, the only one that has its secret.
type wireLink struct {
	Name           string `json:"name"`
	Role           Role   `json:"role"`
	InvitationPath string `json:"invitation_path"`
	ExpiresAt      string `json:"expires_at"`
}

func (l Link) wire() wireLink {
	return wireLink{l.Name, l.Role, l.Path(), httpapi.Timestamp(l.ExpiresAt)}
}

// wireToken is a token on the wire, without its secret.
type wireToken struct {
	ID         string      `json:"id"`
	Name       string      `json:"name"`
	Scope      Role        `json:"scope"`
	Status     TokenStatus `json:"status"`
	CreatedBy  string      `json:"created_by"`
	CreatedAt  string      `json:"created_at"`
	ExpiresAt  string      `json:"expires_at"`
	LastUsedAt *string     `json:"last_used_at"`
	RevokedAt  *string     `json:"revoked_at"`
}

func (t Token) wire() wireToken {
	return wireToken{
		t.ID.String(), t.Name, t.Scope, t.Status, t.CreatedBy, httpapi.Timestamp(t.CreatedAt), httpapi.Timestamp(t.ExpiresAt),
		httpapi.TimestampOrNull(t.LastUsedAt), httpapi.TimestampOrNull(t.RevokedAt),
	}
}

// nameOf is the operator in the path. Echo leaves it as it came where that is not the
// shortest way to write it, such as %40 for an @. No name has a % in it.
func nameOf(c echo.Context) string {
	if name, err := url.PathUnescape(c.Param("name")); err == nil {
		return name
	}
	return c.Param("name")
}
