package transactions

import (
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/httpapi"
)

// CallbackHandler is where providers call back.
type CallbackHandler struct{ service *Service }

// NewCallbackHandler makes the providers' handler.
func NewCallbackHandler(s *Service) *CallbackHandler { return &CallbackHandler{s} }

// CallbackPath is where a provider of that name calls back to.
func CallbackPath(provider string) string { return "/v1/callbacks/" + provider }

// Mount adds the route to e. It has no credentials of ours: the provider's signature
// stands for them.
func (h *CallbackHandler) Mount(e *echo.Echo) {
	e.POST(CallbackPath(":provider_id"), h.hear)
}

// hear is POST /v1/callbacks/{provider_id}.
func (h *CallbackHandler) hear(c echo.Context) error {
	body, err := httpapi.RawBody(c)
	if err != nil {
		return err
	}
	provider := c.Param("provider_id")
	heard, id, err := h.service.Callback(c.Request().Context(), provider, c.Request().Header, body)
	line := httpapi.LineOf(c)
	if id != uuid.Nil {
		line.TransactionID, line.Provider = id.String(), provider
	}
	if err != nil {
		return err
	}
	answer, err := encode(struct {
		Status Heard `json:"status"`
	}{heard})
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusOK, answer)
}
