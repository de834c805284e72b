package checkout

import (
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/postgres"
)

func (h *Handler) mountSessions(e *echo.Echo) {
	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/checkout/sessions", Creates: true}, h.createSession)
	h.changes(e, idem.Route{Method: http.MethodPatch, Path: "/v1/checkout/sessions/:session"}, h.updateSession)
	h.browsers.AddEither(e, http.MethodGet, "/v1/checkout/sessions/:session", h.getSession, h.service.payments.StyleOf)
	h.browsers.AddEither(e, http.MethodGet, "/v1/checkout/sessions/:session/payment-methods", h.sessionMethods, h.service.payments.StyleOf)
}

// wireSession is a session as its merchant sees it: with checkout_session where it was
// just made or changed, with id and used where it is read. The contract has it so.
type wireSession struct {
	CheckoutSession    string           `json:"checkout_session,omitempty"`
	ID                 string           `json:"id,omitempty"`
	MerchantOrderID    string           `json:"merchant_order_id"`
	Country            string           `json:"country"`
	PaymentDescription string           `json:"payment_description"`
	CustomerID         *uuid.UUID       `json:"customer_id"`
	CallbackURL        *string          `json:"callback_url"`
	Amount             wireMoney        `json:"amount"`
	AlternativeAmount  json.RawMessage  `json:"alternative_amount"`
	RecurringPayment   json.RawMessage  `json:"recurring_payment"`
	CreatedAt          string           `json:"created_at"`
	ExpiresAt          string           `json:"expires_at"`
	Metadata           json.RawMessage  `json:"metadata"`
	Workflow           string           `json:"workflow"`
	Installments       wireInstallments `json:"installments"`
	CheckoutID         *string          `json:"checkout_id"`
	Used               *bool            `json:"used,omitempty"`
}

type wireMoney struct {
	Currency string          `json:"currency"`
	Value    json.RawMessage `json:"value"`
}

// wireInstallments is there because clients read it: no plan is available yet.
type wireInstallments struct {
	PlanID *string `json:"plan_id"`
	Plan   *string `json:"plan"`
}

// wirePublicSession is what a browser may know of a session.
type wirePublicSession struct {
	ID                 string    `json:"id"`
	MerchantOrderID    string    `json:"merchant_order_id"`
	Country            string    `json:"country"`
	PaymentDescription string    `json:"payment_description"`
	Amount             wireMoney `json:"amount"`
	Workflow           string    `json:"workflow"`
	CallbackURL        *string   `json:"callback_url"`
	CreatedAt          string    `json:"created_at"`
	ExpiresAt          string    `json:"expires_at"`
	Used               bool      `json:"used"`
	MerchantName       string    `json:"merchant_name"`
	Live               bool      `json:"live"`
}

func (sn Session) money() wireMoney { return wireMoney{sn.Currency, money.JSONNumber(sn.Amount)} }

// present is a session on the wire; read is how it is told to who asks for it.
func (sn Session) present(read bool) (wireSession, error) {
	var d sessionDetails
	if err := json.Unmarshal([]byte(sn.Details), &d); err != nil {
		return wireSession{}, errStored
	}
	w := wireSession{
		MerchantOrderID: sn.MerchantOrderID, Country: sn.Country, PaymentDescription: sn.PaymentDescription,
		CallbackURL: orNull(sn.CallbackURL), Amount: sn.money(), AlternativeAmount: d.AlternativeAmount, RecurringPayment: d.RecurringPayment,
		CreatedAt: httpapi.Timestamp(sn.CreatedAt), ExpiresAt: httpapi.Timestamp(sn.ExpiresAt),
		Metadata: json.RawMessage(orText(sn.Metadata, "null")), Workflow: sn.Workflow, CheckoutID: orNull(d.CheckoutID),
	}
	if sn.CustomerID.Valid {
		w.CustomerID = &sn.CustomerID.UUID
	}
	if read {
		used := sn.PaymentID.Valid
		w.ID, w.Used = sn.ID.String(), &used
	} else {
		w.CheckoutSession = sn.ID.String()
	}
	return w, nil
}

// createSession is POST /v1/checkout/sessions.
func (h *Handler) createSession(c echo.Context) (change, error) {
	caller := merchants.CallerOf(c)
	var sn Session
	return change{
		read: func(body jsontree.Value) (err error) {
			sn, err = readSession(body, caller.AccountID)
			sn.Mode = caller.Mode
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			kept, err := h.service.createSession(tx, sn)
			if err != nil {
				return 0, nil, err
			}
			w, err := kept.present(false)
			return http.StatusOK, w, err
		},
	}, nil
}

// updateSession is PATCH /v1/checkout/sessions/{checkout_session}: what is not said stays
// as it is.
func (h *Handler) updateSession(c echo.Context) (change, error) {
	id := idParam(c, "session")
	if id == uuid.Nil {
		return change{}, errNoSession()
	}
	caller := merchants.CallerOf(c)
	var said jsontree.Value
	return change{
		target: id.String(),
		read: func(body jsontree.Value) error {
			said = body
			_, err := changeSession(Session{AccountID: caller.AccountID}, body) // what is wrong in itself need not wait
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			kept, err := h.service.updateSession(tx, caller.AccountID, caller.Mode, id, said)
			if err != nil {
				return 0, nil, err
			}
			w, err := kept.present(false)
			return http.StatusOK, w, err
		},
	}, nil
}

// sessionOf reads the session that a path names, until it has expired. Another merchant's
// is not found.
func (h *Handler) sessionOf(c echo.Context) (Session, error) {
	caller := merchants.CallerOf(c)
	return h.service.session(c.Request().Context(), caller.AccountID, caller.Mode, idParam(c, "session"))
}

// getSession is GET /v1/checkout/sessions/{checkout_session}.
func (h *Handler) getSession(c echo.Context) error {
	sn, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	browser, is := merchants.BrowserOf(c)
	if !is {
		w, err := sn.present(true)
		if err != nil {
			return err
		}
		return answer(c, http.StatusOK, w)
	}
	return answer(c, http.StatusOK, wirePublicSession{
		ID: sn.ID.String(), MerchantOrderID: sn.MerchantOrderID, Country: sn.Country, PaymentDescription: sn.PaymentDescription,
		Amount: sn.money(), Workflow: sn.Workflow, CallbackURL: orNull(sn.CallbackURL), CreatedAt: httpapi.Timestamp(sn.CreatedAt),
		ExpiresAt: httpapi.Timestamp(sn.ExpiresAt), Used: sn.PaymentID.Valid, MerchantName: browser.MerchantName, Live: sn.Mode == merchants.Live,
	})
}

// errStored is of what we wrote ourselves and cannot read; the cause may quote it.
var errStored = apierr.New(apierr.InternalError, "something that was stored cannot be read")

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// maxSessionMethods is how many kept cards a shopper is offered.
const maxSessionMethods = 20

// wireSessionMethod is one way to pay a session.
type wireSessionMethod struct {
	Name                   string              `json:"name"`
	VaultedToken           *string             `json:"vaulted_token"`
	Description            string              `json:"description"`
	Type                   string              `json:"type"`
	Category               string              `json:"category"`
	Icon                   string              `json:"icon"`
	LastSuccessfullyUsed   *bool               `json:"last_successfully_used"`
	LastSuccessfullyUsedAt *string             `json:"last_successfully_used_at"`
	Checkout               wireMethodsCheckout `json:"checkout"`
	CardData               *wireCardData       `json:"card_data,omitempty"`
	Preferred              bool                `json:"preferred"`
}

type wireMethodsCheckout struct {
	Session           string         `json:"session"`
	SDKRequiredAction bool           `json:"sdk_required_action"` // what the browser asks for first
	Conditions        wireConditions `json:"conditions"`
}

type wireConditions struct {
	Enabled bool       `json:"enabled"`
	Rules   []struct{} `json:"rules"`
}

// sessionMethods is GET /v1/checkout/sessions/{checkout_session}/payment-methods: the cards
// that its customer keeps, and a new card.
func (h *Handler) sessionMethods(c echo.Context) error {
	sn, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	all := []wireSessionMethod{}
	if category := c.QueryParam("category"); category == "" || category == categoryCard {
		if all, err = h.waysToPay(c, sn); err != nil {
			return err
		}
	}
	return answer(c, http.StatusOK, all)
}

func (h *Handler) waysToPay(c echo.Context, sn Session) (all []wireSessionMethod, err error) {
	var kept []Method
	if _, browser := merchants.BrowserOf(c); sn.CustomerID.Valid && !browser {
		// Whoever has a session's address is not the customer for that.
		kept, err = h.service.store.methods(c.Request().Context(), sn.AccountID, sn.Mode, sn.CustomerID.UUID, uuid.NullUUID{}, maxSessionMethods)
	}
	if err != nil {
		return nil, err
	}
	enabled := wireConditions{Enabled: true}
	for _, m := range kept {
		card, err := presentCard(m.Card, false)
		if err != nil {
			return nil, err
		}
		id, name, used := m.ID.String(), card.Brand+" ****"+card.LFD, m.LastUsedAt != nil
		w := wireSessionMethod{
			Name: name, VaultedToken: &id, Description: name, Type: categoryCard, Category: categoryCard, LastSuccessfullyUsed: &used,
			Checkout: wireMethodsCheckout{Session: sn.ID.String(), Conditions: enabled}, CardData: &card,
		}
		if used {
			at := httpapi.Timestamp(*m.LastUsedAt)
			w.LastSuccessfullyUsedAt = &at
		}
		all = append(all, w)
	}
	return append(all, wireSessionMethod{
		Name: "Card", Description: "Card", Type: categoryCard, Category: categoryCard,
		Checkout: wireMethodsCheckout{Session: sn.ID.String(), SDKRequiredAction: true, Conditions: enabled},
	}), nil
}
