package checkout

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
)

// mountMethods adds the routes of kept cards: backends have all of them, and browsers those
// that add a card in a customer's session.
func (h *Handler) mountMethods(e *echo.Echo) {
	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/customers/sessions", Creates: true}, h.createCustomerSession)
	add := idem.Route{Method: http.MethodPost, Path: "/v1/customers/sessions/:session/payment-methods", Creates: true}
	h.browsers.AddEither(e, add.Method, add.Path, h.changing(add, h.enrolInSession), h.service.payments.StyleOf)
	h.browsers.AddEither(e, http.MethodGet, "/v1/checkout/customers/sessions/:session/payment-methods", h.methodsToEnrol, h.service.payments.StyleOf)

	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/customers/:customer_id/payment-methods", Creates: true}, h.enrol)
	e.GET("/v1/customers/:customer_id/payment-methods", h.listMethods, h.backend())
	e.GET("/v1/customers/:customer_id/payment-methods/:payment_method_id", h.getMethod, h.backend())
	e.GET("/v1/payment-methods/:payment_method_id", h.getMethod, h.backend())
	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/customers/:customer_id/payment-methods/:payment_method_id/unenroll"}, h.unenrol)
	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/customers/payment-methods/:payment_method_id/unenroll"}, h.unenrol)
}

// wireMethod is a kept card on the wire. It has a vaulted token for as long as it can be
// paid with.
type wireMethod struct {
	ID                     string       `json:"id"`
	AccountID              string       `json:"account_id"`
	CustomerID             string       `json:"customer_id"`
	Name                   string       `json:"name"`
	Description            string       `json:"description"`
	Type                   string       `json:"type"`
	Category               string       `json:"category"`
	Country                *string      `json:"country"`
	Status                 string       `json:"status"`
	VaultedToken           *string      `json:"vaulted_token"`
	CardData               wireCardData `json:"card_data"`
	LastSuccessfullyUsed   bool         `json:"last_successfully_used"`
	LastSuccessfullyUsedAt *string      `json:"last_successfully_used_at"`
	CreatedAt              string       `json:"created_at"`
	UpdatedAt              string       `json:"updated_at"`
}

// present is a kept card on the wire.
func (m Method) present(fingerprint bool) (wireMethod, error) {
	card, err := presentCard(m.Card, fingerprint)
	if err != nil {
		return wireMethod{}, err
	}
	name := strings.TrimSpace(card.Brand + " ****" + card.LFD)
	w := wireMethod{
		ID: m.ID.String(), AccountID: m.AccountID.String(), CustomerID: m.CustomerID.String(), Name: name, Description: name,
		Type: categoryCard, Category: categoryCard, Country: orNull(m.Country), Status: m.Status, CardData: card,
		LastSuccessfullyUsed: m.LastUsedAt != nil, CreatedAt: httpapi.Timestamp(m.CreatedAt), UpdatedAt: httpapi.Timestamp(m.UpdatedAt),
	}
	if m.Status == enrolled {
		w.VaultedToken = &w.ID
	}
	if m.LastUsedAt != nil {
		at := httpapi.Timestamp(*m.LastUsedAt)
		w.LastSuccessfullyUsedAt = &at
	}
	return w, nil
}

// wireCustomerSession is a customer's session on the wire.
type wireCustomerSession struct {
	CustomerSession string  `json:"customer_session"`
	CustomerID      string  `json:"customer_id"`
	Country         string  `json:"country"`
	CallbackURL     *string `json:"callback_url"`
	CreatedAt       string  `json:"created_at"`
	ExpiresAt       string  `json:"expires_at"`
	CheckoutID      *string `json:"checkout_id"` // as it was sent; nothing is known by it
}

// createCustomerSession is POST /v1/customers/sessions.
func (h *Handler) createCustomerSession(c echo.Context) (change, error) {
	caller := merchants.CallerOf(c)
	var cs CustomerSession
	var checkoutID string
	return change{
		read: func(body jsontree.Value) (err error) {
			cs, checkoutID, err = readCustomerSession(body, caller.AccountID)
			cs.AccountID, cs.ID, cs.Mode = caller.AccountID, uuid.Must(uuid.NewV7()), caller.Mode
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			kept, known, err := h.service.store.insertCustomerSession(tx, cs)
			if err == nil && !known {
				err = errNoCustomer()
			}
			return http.StatusCreated, wireCustomerSession{
				CustomerSession: kept.ID.String(), CustomerID: kept.CustomerID.String(), Country: kept.Country, CallbackURL: orNull(kept.CallbackURL),
				CreatedAt: httpapi.Timestamp(kept.CreatedAt), ExpiresAt: httpapi.Timestamp(kept.ExpiresAt), CheckoutID: orNull(checkoutID),
			}, err
		},
	}, nil
}

// customerSession reads a customer's session that a card can still be added in.
func (s *Service) customerSession(ctx context.Context, caller merchants.Caller, id uuid.UUID) (CustomerSession, error) {
	cs, found, err := s.store.customerSession(ctx, caller.AccountID, caller.Mode, id)
	if err == nil && (!found || cs.Expired) {
		err = errNoCustomerSession()
	}
	return cs, err
}

// enrolInSession is POST /v1/customers/sessions/{customer_session}/payment-methods: whoever
// has the session adds a card for its customer.
func (h *Handler) enrolInSession(c echo.Context) (change, error) {
	id := idParam(c, "session")
	if id == uuid.Nil {
		return change{}, errNoCustomerSession()
	}
	caller := merchants.CallerOf(c)
	_, browser := merchants.BrowserOf(c)
	var card enrolment
	var cs CustomerSession
	var token Token
	return change{
		target: id.String(),
		read: func(body jsontree.Value) (err error) {
			card.handedIn, err = readHandedIn(body, h.service.payments.CardRules(caller.Mode == merchants.Live), func(*fields.Checker) {})
			return err
		},
		prepare: func(ctx context.Context) (err error) {
			if cs, err = h.service.customerSession(ctx, caller, id); err != nil {
				return err
			}
			card.country = cs.Country
			token, err = h.service.tokenise(ctx, caller, card)
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			m, err := h.service.enrol(tx, caller, cs.CustomerID, card, token)
			if err != nil {
				return 0, nil, err
			}
			w, err := m.present(!browser)
			return http.StatusCreated, w, err
		},
	}, nil
}

// enrol is POST /v1/customers/{customer_id}/payment-methods.
func (h *Handler) enrol(c echo.Context) (change, error) {
	customer, err := customerID(c)
	if err != nil {
		return change{}, err
	}
	caller := merchants.CallerOf(c)
	var card enrolment
	var token Token
	return change{
		target: customer.String(),
		read: func(body jsontree.Value) (err error) {
			card, err = readEnrolment(body, h.service.payments.CardRules(caller.Mode == merchants.Live), caller.AccountID)
			return err
		},
		prepare: func(ctx context.Context) error {
			_, known, err := h.service.store.customer(ctx, caller.AccountID, caller.Mode, customer)
			if err == nil && !known {
				err = errNoCustomer() // before the provider hears of the card
			}
			if err == nil {
				token, err = h.service.tokenise(ctx, caller, card)
			}
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			m, err := h.service.enrol(tx, caller, customer, card, token)
			if err != nil {
				return 0, nil, err
			}
			w, err := m.present(true)
			return http.StatusCreated, w, err
		},
	}, nil
}

// wireMethodToEnrol is what a browser may ask a card for.
type wireMethodToEnrol struct {
	Name         string        `json:"name"`
	Description  string        `json:"description"`
	Type         string        `json:"type"`
	Category     string        `json:"category"`
	Icon         string        `json:"icon"`
	Status       string        `json:"status"`
	VaultedToken *string       `json:"vaulted_token"`
	Enrollment   wireEnrolment `json:"enrollment"`
}

type wireEnrolment struct {
	Session           string `json:"session"`
	SDKRequiredAction bool   `json:"sdk_required_action"` // what the browser asks for first
}

// methodsToEnrol is GET /v1/checkout/customers/sessions/{customer_session}/payment-methods.
func (h *Handler) methodsToEnrol(c echo.Context) error {
	cs, err := h.service.customerSession(c.Request().Context(), merchants.CallerOf(c), idParam(c, "session"))
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, []wireMethodToEnrol{{
		Name: "Card", Description: "Card", Type: categoryCard, Category: categoryCard, Status: readyToEnroll,
		Enrollment: wireEnrolment{Session: cs.ID.String(), SDKRequiredAction: true},
	}})
}

// listMethods is GET /v1/customers/{customer_id}/payment-methods: the cards that can be paid
// with, the newest first.
func (h *Handler) listMethods(c echo.Context) error {
	customer, err := customerID(c)
	if err != nil {
		return err
	}
	limit, after, err := httpapi.Page(c)
	if err != nil {
		return err
	}
	caller, ctx := merchants.CallerOf(c), c.Request().Context()
	if _, known, err := h.service.store.customer(ctx, caller.AccountID, caller.Mode, customer); err != nil || !known {
		if err == nil {
			err = errNoCustomer()
		}
		return err
	}
	ms, err := h.service.store.methods(ctx, caller.AccountID, caller.Mode, customer, orNone(after), limit+1)
	if err != nil {
		return err
	}
	if len(ms) > limit {
		ms = ms[:limit]
		httpapi.LinkNext(c, ms[limit-1].ID.String())
	}
	list := make([]wireMethod, 0, len(ms))
	for _, m := range ms {
		w, err := m.present(true)
		if err != nil {
			return err
		}
		list = append(list, w)
	}
	return answer(c, http.StatusOK, list)
}

// ofCustomer is the customer in a path that names one, or uuid.Nil.
func ofCustomer(c echo.Context) (uuid.UUID, error) {
	if c.Param("customer_id") == "" {
		return uuid.Nil, nil
	}
	id, known := fields.ParseID(c.Param("customer_id"))
	if !known || id == uuid.Nil {
		return uuid.Nil, errNoMethod() // nobody's
	}
	return id, nil
}

// getMethod is GET /v1/payment-methods/{payment_method_id}, and the same below a customer.
// One that cannot be paid with any more is still told.
func (h *Handler) getMethod(c echo.Context) error {
	customer, err := ofCustomer(c)
	if err != nil {
		return err
	}
	caller := merchants.CallerOf(c)
	m, known, err := h.service.store.method(c.Request().Context(), caller.AccountID, caller.Mode, idParam(c, "payment_method_id"))
	if err == nil && (!known || customer != uuid.Nil && m.CustomerID != customer) {
		err = errNoMethod()
	}
	if err != nil {
		return err
	}
	w, err := m.present(true)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, w)
}

// unenrol is POST /v1/customers/payment-methods/{payment_method_id}/unenroll, and the same
// below a customer. What is let go of already is told again.
func (h *Handler) unenrol(c echo.Context) (change, error) {
	customer, err := ofCustomer(c)
	if err != nil {
		return change{}, err
	}
	id := idParam(c, "payment_method_id")
	if id == uuid.Nil {
		return change{}, errNoMethod()
	}
	caller := merchants.CallerOf(c)
	return change{
		target: strings.TrimPrefix(c.Param("customer_id")+"/"+id.String(), "/"),
		work: func(tx postgres.Tx) (int, any, error) {
			m, err := h.service.unenrol(tx, caller.AccountID, caller.Mode, customer, id)
			if err != nil {
				return 0, nil, err
			}
			w, err := m.present(true)
			return http.StatusOK, w, err
		},
	}, nil
}
