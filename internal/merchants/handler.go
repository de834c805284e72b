package merchants

import (
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/jsontree"
)

// OperatorHandler is how an operator makes merchants and keys.
type OperatorHandler struct{ service *Service }

// NewOperatorHandler makes the handler.
func NewOperatorHandler(s *Service) *OperatorHandler { return &OperatorHandler{s} }

// Mount adds the routes to g, which is authenticated already.
func (h *OperatorHandler) Mount(g *echo.Group) {
	g.POST("/merchants", h.create)
	g.POST("/merchants/:account_id/keys", h.createKey)
}

// create is POST /admin/v1/merchants.
func (h *OperatorHandler) create(c echo.Context) error {
	body, err := object(c)
	if err != nil {
		return err
	}
	name, err := text(body.Get("name"), true)
	if err != nil {
		return err
	}
	policy, err := text(body.Get("idempotency_policy"), false)
	if err != nil {
		return err
	}
	m, pair, err := h.service.Create(c.Request().Context(), name, policy)
	if err != nil {
		return err
	}
	return answer(c, struct {
		AccountID         string  `json:"account_id"`
		Name              string  `json:"name"`
		IdempotencyPolicy string  `json:"idempotency_policy"`
		APIKey            KeyPair `json:"api_key"`
	}{m.AccountID.String(), m.Name, m.IdempotencyPolicy, pair})
}

// createKey is POST /admin/v1/merchants/{account_id}/keys.
func (h *OperatorHandler) createKey(c echo.Context) error {
	account, err := uuid.Parse(c.Param("account_id"))
	if err != nil {
		return apierr.New(apierr.NotFound, "there is no merchant with this account_id")
	}
	body, err := object(c)
	if err != nil {
		return err
	}
	mode, err := text(body.Get("mode"), true)
	if err != nil {
		return err
	}
	pair, err := h.service.CreateKey(c.Request().Context(), account, mode)
	if err != nil {
		return err
	}
	return answer(c, pair)
}

func object(c echo.Context) (jsontree.Value, error) {
	body, err := httpapi.Body(c)
	if err == nil && body.Kind() != jsontree.Object {
		err = apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	return body, err
}

func text(v jsontree.Value, required bool) (string, error) {
	if !v.Given() {
		if required {
			return "", apierr.New(apierr.MissingParameters, v.Path()+" is required")
		}
		return "", nil
	}
	s, ok := v.Text()
	if !ok {
		return "", apierr.New(apierr.InvalidParameters, v.Path()+" must be a string")
	}
	return s, nil
}

// answer is 201 with v.
func answer(c echo.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusCreated, append(b, '\n'))
}
