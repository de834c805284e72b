package checkout

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
)

// mountCustomers adds the customers' routes, which are for merchants' backends.
func (h *Handler) mountCustomers(e *echo.Echo) {
	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/customers", Creates: true}, h.createCustomer)
	h.changes(e, idem.Route{Method: http.MethodPatch, Path: "/v1/customers/:customer_id"}, h.updateCustomer)
	e.GET("/v1/customers", h.listCustomers, h.backend())
	e.GET("/v1/customers/:customer_id", h.getCustomer, h.backend())
	e.GET("/v1/customers/external/:merchant_customer_id", h.getCustomerOfMerchant, h.backend())
	e.DELETE("/v1/customers/:customer_id", h.deleteCustomer, h.backend())
}

// wireCustomer is a customer as merchants see them. What is not known is null.
type wireCustomer struct {
	ID                        uuid.UUID       `json:"id"`
	MerchantCustomerID        string          `json:"merchant_customer_id"`
	FirstName                 json.RawMessage `json:"first_name"`
	LastName                  json.RawMessage `json:"last_name"`
	Gender                    json.RawMessage `json:"gender"`
	DateOfBirth               json.RawMessage `json:"date_of_birth"`
	Email                     json.RawMessage `json:"email"`
	Nationality               json.RawMessage `json:"nationality"`
	Country                   json.RawMessage `json:"country"`
	Document                  json.RawMessage `json:"document"`
	Phone                     json.RawMessage `json:"phone"`
	BillingAddress            json.RawMessage `json:"billing_address"`
	ShippingAddress           json.RawMessage `json:"shipping_address"`
	Metadata                  json.RawMessage `json:"metadata"`
	CreatedAt                 string          `json:"created_at"`
	UpdatedAt                 string          `json:"updated_at"`
	MerchantCustomerCreatedAt *string         `json:"merchant_customer_created_at"`
}

// present is a customer on the wire.
func (c Customer) present() wireCustomer {
	p := c.Profile
	w := wireCustomer{
		ID: c.ID, MerchantCustomerID: c.MerchantCustomerID,
		FirstName: p["first_name"], LastName: p["last_name"], Gender: p["gender"], DateOfBirth: p["date_of_birth"], Email: p["email"],
		Nationality: p["nationality"], Country: p["country"], Document: p["document"], Phone: p["phone"],
		BillingAddress: p["billing_address"], ShippingAddress: p["shipping_address"], Metadata: p[profileMetadata],
		CreatedAt: httpapi.Timestamp(c.CreatedAt), UpdatedAt: httpapi.Timestamp(c.UpdatedAt),
	}
	if at := c.MerchantCustomerCreatedAt; at != nil {
		said := httpapi.Timestamp(*at)
		w.MerchantCustomerCreatedAt = &said
	}
	return w
}

// createCustomer is POST /v1/customers.
func (h *Handler) createCustomer(c echo.Context) (change, error) {
	caller := merchants.CallerOf(c)
	customer := Customer{AccountID: caller.AccountID, ID: uuid.Must(uuid.NewV7()), Mode: caller.Mode}
	return change{
		read: func(body jsontree.Value) error {
			said, err := parseCustomer(body, true)
			if err == nil {
				customer, err = said.of(customer)
			}
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			kept, err := h.service.store.insertCustomer(tx, customer)
			return http.StatusCreated, kept.present(), err
		},
	}, nil
}

// updateCustomer is PATCH /v1/customers/{customer_id}: what is not said stays as it is.
func (h *Handler) updateCustomer(c echo.Context) (change, error) {
	id, err := customerID(c)
	if err != nil {
		return change{}, err
	}
	caller, said := merchants.CallerOf(c), customerChange{}
	return change{
		target: id.String(),
		read: func(body jsontree.Value) (err error) {
			said, err = parseCustomer(body, false)
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			customer, found, err := h.service.store.lockCustomer(tx, caller.AccountID, caller.Mode, id)
			if err == nil && !found {
				err = errNoCustomer()
			}
			if err == nil && said.says() {
				if customer, err = said.of(customer); err == nil {
					customer, err = h.service.store.updateCustomer(tx, customer)
				}
			}
			return http.StatusOK, customer.present(), err
		},
	}, nil
}

// getCustomer is GET /v1/customers/{customer_id}. Another merchant's customer is not found.
func (h *Handler) getCustomer(c echo.Context) error {
	id, err := customerID(c)
	if err != nil {
		return err
	}
	caller := merchants.CallerOf(c)
	return showCustomer(c, func(ctx context.Context) (Customer, bool, error) {
		return h.service.store.customer(ctx, caller.AccountID, caller.Mode, id)
	})
}

// getCustomerOfMerchant is GET /v1/customers/external/{merchant_customer_id}, by which some
// clients ask for what GET /v1/customers?merchant_customer_id= lists.
func (h *Handler) getCustomerOfMerchant(c echo.Context) error {
	name := c.Param("merchant_customer_id")
	if c.Request().URL.RawPath != "" { // then Echo leaves it as it was sent
		decoded, err := url.PathUnescape(name)
		if err != nil {
			return errNoCustomer()
		}
		name = decoded
	}
	if !validMerchantID(name) {
		return errNoCustomer()
	}
	caller := merchants.CallerOf(c)
	return showCustomer(c, func(ctx context.Context) (Customer, bool, error) {
		return h.service.store.customerByMerchantID(ctx, caller.AccountID, caller.Mode, name)
	})
}

func showCustomer(c echo.Context, read func(ctx context.Context) (Customer, bool, error)) error {
	customer, found, err := read(c.Request().Context())
	if err != nil {
		return err
	}
	if !found {
		return errNoCustomer()
	}
	return answer(c, http.StatusOK, customer.present())
}

// listCustomers is GET /v1/customers?merchant_customer_id=, one at most.
func (h *Handler) listCustomers(c echo.Context) error {
	name := c.QueryParam("merchant_customer_id")
	if name == "" {
		return apierr.New(apierr.MissingParameters, "merchant_customer_id is required")
	}
	if !validMerchantID(name) {
		return apierr.New(apierr.InvalidParameters, "merchant_customer_id must be UTF-8 without control characters")
	}
	caller := merchants.CallerOf(c)
	customer, found, err := h.service.store.customerByMerchantID(c.Request().Context(), caller.AccountID, caller.Mode, name)
	if err != nil {
		return err
	}
	list := []wireCustomer{}
	if found {
		list = append(list, customer.present())
	}
	return answer(c, http.StatusOK, list)
}

// validMerchantID says whether a customer could be called so: PostgreSQL knows no U+0000.
func validMerchantID(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// deleteCustomer is DELETE /v1/customers/{customer_id}: what is known of them goes, and
// none of their cards can be paid with any more.
func (h *Handler) deleteCustomer(c echo.Context) error {
	httpapi.SetAdvice(c, "send it again; "+string(apierr.CustomerNotFound)+" then says that it was done")
	id, err := customerID(c)
	if err != nil {
		return err
	}
	caller, found := merchants.CallerOf(c), false
	err = h.service.store.db.ConfirmedTx(c.Request().Context(), func(tx postgres.Tx) error {
		found, err = h.service.store.deleteCustomer(tx, caller.AccountID, caller.Mode, id)
		return err
	})
	if err != nil {
		return err
	}
	if !found {
		return errNoCustomer()
	}
	return answer(c, http.StatusAccepted, struct{}{})
}

// customerID is the one in the path.
func customerID(c echo.Context) (uuid.UUID, error) {
	id, known := fields.ParseID(c.Param("customer_id"))
	if !known {
		return uuid.Nil, errNoCustomer()
	}
	return id, nil
}
