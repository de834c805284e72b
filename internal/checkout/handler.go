package checkout

import (
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/merchants"
)

// Handler is the checkout as merchants' backends and shoppers' browsers see it.
type Handler struct {
	service  *Service
	browsers *merchants.Browsers
	// base is where browsers reach us, as scheme://host[:port].
	base func(c echo.Context) string
}

// NewHandler makes the handler. base says where browsers reach us; see httpapi.BaseURL.
func NewHandler(s *Service, browsers *merchants.Browsers, base func(c echo.Context) string) *Handler {
	return &Handler{service: s, browsers: browsers, base: base}
}

// Mount adds the routes to e.
func (h *Handler) Mount(e *echo.Echo) {
	h.mountSessions(e)
	h.mountTokens(e)
	h.mountCustomers(e)
	h.mountMethods(e)
	h.mountLinks(e)
}

// backend lets merchants' backends in.
func (h *Handler) backend() echo.MiddlewareFunc {
	return merchants.Authenticate(h.service.auth, h.service.payments.StyleOf)
}

// answer writes v as JSON.
func answer(c echo.Context, status int, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	return httpapi.JSON(c, status, body)
}

// idParam is an id in a path; uuid.Nil, which nothing has, if it is none.
func idParam(c echo.Context, name string) uuid.UUID {
	id, ok := fields.ParseID(c.Param(name))
	if !ok {
		return uuid.Nil
	}
	return id
}
