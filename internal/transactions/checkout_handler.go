package transactions

import (
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
)

// PathSessionPayment is where a browser pays a checkout session, and asks what became of
// that.
const PathSessionPayment = "/v1/checkout/sessions/:session/payment"

// PayPage is where the page of a session is, below the address that browsers reach us under.
const PayPage = "/pay/"

// MountCheckout adds the routes by which browsers pay. base says where they reach us, as
// scheme://host[:port]; the bank sends payers back there.
func (h *Handler) MountCheckout(e *echo.Echo, browsers *merchants.Browsers, base func(c echo.Context) string) {
	h.base = base
	r := idem.Route{Method: http.MethodPost, Path: PathSessionPayment, Creates: true, MovesMoney: true, Produces: echo.MIMEApplicationJSON}
	browsers.Add(e, r.Method, r.Path, func(c echo.Context) error {
		return h.execute(c, r, h.paySession(c, base(c)))
	})
	browsers.AddEither(e, http.MethodGet, PathSessionPayment, h.sessionPayment, h.service.StyleOf)
}

// paySession is POST /v1/checkout/sessions/{checkout_session}/payment. All that counts of
// the body is the token; what is paid is the session's.
func (h *Handler) paySession(c echo.Context, base string) order {
	caller, session := merchants.CallerOf(c), strings.ToLower(c.Param("session"))
	return order{session, func(cmd *Command, body jsontree.Value) error {
		var v checker
		if err := DrawnByBrowser(cmd.Sent); err != nil {
			return err
		}
		if body.Kind() != jsontree.Object {
			return apierr.New(apierr.InvalidRequest, "$ must be an object")
		}
		r := Request{AccountID: caller.AccountID.String(), Workflow: WorkflowSeamless, Capture: true, Installments: 1, ReturnURL: base + PayPage + session}
		method := body.Get("payment_method")
		if v.Required(method) && v.Required(v.Object(method).Get("token")) {
			r.Token = v.token(method.Get("token"))
		}
		var known bool
		if r.Session, known = fields.ParseID(session); !known {
			return apierr.New(apierr.CheckoutSessionNotFound, atSession+notASession)
		}
		cmd.Request = r
		return v.Err()
	}}
}

// DrawnByBrowser refuses a browser's nonce that could be guessed. Nonces are the merchant's,
// too: who takes one that a backend is going to use would spoil it.
func DrawnByBrowser(nonce string) error {
	if _, drawn := fields.ParseID(nonce); !drawn {
		return apierr.New(apierr.InvalidParameters, "X-Idempotency-Key must be a UUID of 36 characters, drawn for this request")
	}
	return nil
}

// sessionPayment is GET /v1/checkout/sessions/{checkout_session}/payment: the payment that
// the session has, else the last that was tried. It is told when the session has long
// expired, too.
func (h *Handler) sessionPayment(c echo.Context) error {
	caller := merchants.CallerOf(c)
	none := apierr.New(apierr.PaymentNotFound, "there is no payment in this checkout session")
	session, known := fields.ParseID(c.Param("session"))
	if !known || session == uuid.Nil {
		return none
	}
	p, found, err := h.service.store.sessionPayment(c.Request().Context(), caller.AccountID, caller.Mode, session)
	if err == nil && !found {
		err = none
	}
	if err != nil {
		return err
	}
	_, browser := merchants.BrowserOf(c)
	return h.show(c, caller, view{browser: browser}, p)
}
