package transactions

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/jsontree"
)

// OperatorHandler is what an operator may ask and decide.
type OperatorHandler struct {
	service  *Service
	checking sync.Mutex // held while the invariants are checked
}

// NewOperatorHandler makes the operator's handler.
func NewOperatorHandler(s *Service) *OperatorHandler { return &OperatorHandler{service: s} }

// Mount adds the routes to g, which is authenticated already.
func (h *OperatorHandler) Mount(g *echo.Group) {
	g.GET("/nonces", h.lookup)
	g.GET("/nonces/*", h.lookup)
	g.POST("/transactions/:transaction_id/resolve", h.resolve)
	g.GET("/invariants", h.invariants)
}

// lookup is GET /admin/v1/nonces/{nonce}, or ?nonce=, over all accounts or one.
func (h *OperatorHandler) lookup(c echo.Context) error {
	var scope Scope
	if s := c.QueryParam("account_id"); s != "" {
		id, err := uuid.Parse(s)
		if err != nil {
			return apierr.New(apierr.InvalidParameters, "account_id must be a UUID")
		}
		scope.AccountID = id
	}
	return h.service.serveLookup(c, scope)
}

// Limits of a resolution, in characters.
const (
	maxReason            = 500
	maxProviderReference = 255
)

// resolve is POST /admin/v1/transactions/{transaction_id}/resolve.
func (h *OperatorHandler) resolve(c echo.Context) error {
	id, err := uuid.Parse(c.Param("transaction_id"))
	if err != nil {
		return apierr.New(apierr.NotFound, "there is no transaction with this id")
	}
	body, err := httpapi.Body(c)
	if err != nil {
		return err
	}
	d, err := parseDecision(body)
	if err != nil {
		return err
	}
	d.RequestID = httpapi.RequestID(c)
	tx, err := h.service.Resolve(c.Request().Context(), id, d)
	if tx.ID != uuid.Nil {
		httpapi.LineOf(c).TransactionID = tx.ID.String()
	}
	if err != nil {
		return err
	}
	answer, err := encode(struct {
		ID        string `json:"id"`
		AccountID string `json:"account_id"`
		PaymentID string `json:"payment_id"`
		Status    Status `json:"status"`
		Nonce     string `json:"nonce"`
	}{tx.ID.String(), tx.AccountID.String(), tx.PaymentID.String(), tx.Status, tx.Nonce})
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusOK, answer)
}

func parseDecision(body jsontree.Value) (Decision, error) {
	if body.Kind() != jsontree.Object {
		return Decision{}, apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	v := &checker{}
	d := Decision{
		ProviderReference: v.Text(body.Get("provider_reference"), 0, maxProviderReference),
		Reason:            v.RequiredText(body.Get("reason"), 1, maxReason),
	}
	if at := body.Get("outcome"); v.Required(at) {
		switch outcome, _ := at.Text(); outcome {
		case "succeeded":
			d.Succeeded = true
		case "failed":
		default:
			v.Invalid(at, "must be succeeded or failed")
		}
	}
	return d, v.Err()
}

// writeMargin is for the answer itself, once it is there.
const writeMargin = 15 * time.Second

// invariants is GET /admin/v1/invariants. It may take much longer than any other request,
// so it has a deadline of its own, and each process answers one at a time: checks that
// are asked for more often than they end would leave payments no connection.
func (h *OperatorHandler) invariants(c echo.Context) error {
	if !h.checking.TryLock() {
		return apierr.New(apierr.RequestInProcess, "the invariants are being checked already").Retry(retryParked)
	}
	defer h.checking.Unlock()
	asked := c.Request().Context()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(asked), InvariantsLimit)
	defer cancel()
	defer context.AfterFunc(asked, func() {
		if errors.Is(asked.Err(), context.Canceled) { // nobody is waiting any more; a deadline is only the other requests'
			cancel()
		}
	})()
	err := http.NewResponseController(c.Response()).SetWriteDeadline(time.Now().Add(InvariantsLimit + writeMargin))
	if err != nil && !errors.Is(err, http.ErrNotSupported) { // a listener without a deadline has none to move
		return err
	}
	found, err := h.service.Invariants(ctx)
	if err != nil {
		return err
	}
	answer, err := encode(found)
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusOK, answer)
}
