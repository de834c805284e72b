package console

import (
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/transactions"
)

func (h *Handler) mountSearch(e *echo.Echo) { e.GET("/search", h.search) }

// searchPage is what the page of a search shows.
type searchPage struct {
	transactions.Results
	Problem string
}

// Heading is what a group's kind is called.
func (searchPage) Heading(k transactions.FoundKind) string {
	switch k {
	case transactions.FoundNonce:
		return "A nonce"
	case transactions.FoundPayment:
		return "A payment"
	case transactions.FoundTransaction:
		return "A transaction"
	case transactions.FoundOrder:
		return "Payments of an order"
	case transactions.FoundReference:
		return "A provider's reference"
	case transactions.FoundCustomer:
		return "Payments of a customer"
	case transactions.FoundSession:
		return "Payments of a checkout session"
	case transactions.FoundLink:
		return "Payments of a payment link"
	}
	return string(k)
}

// Path is the page of what was found; "" where there is none.
func (p searchPage) Path(f transactions.Found) string { return foundPath(p.Results, f) }

// All is where everything of a kind is listed that can be; "" where it cannot.
func (p searchPage) All(k transactions.FoundKind) string {
	param := map[transactions.FoundKind]string{transactions.FoundOrder: paramOrder, transactions.FoundCustomer: paramCustomer}[k]
	if param == "" {
		return ""
	}
	return filter{}.link(pathPayments, param, p.Query)
}

// foundPath is the page of f. A nonce is called what it was searched for: one that is too long
// is not kept as it is.
func foundPath(r transactions.Results, f transactions.Found) string {
	switch {
	case f.Kind == transactions.FoundNonce:
		return noncePath(r.Query)
	case f.TransactionID != uuid.Nil:
		return transactionPath(f.PaymentID, f.TransactionID)
	case f.PaymentID != uuid.Nil:
		return paymentPath(f.PaymentID)
	}
	return ""
}

func paymentPath(id uuid.UUID) string { return pathPayments + "/" + id.String() }

// transactionPath is a transaction's place on the page of its payment.
func transactionPath(payment, id uuid.UUID) string { return paymentPath(payment) + "#" + id.String() }

// search is GET /search. Whoever finds one thing alone is led to it.
func (h *Handler) search(c echo.Context) error {
	q := c.QueryParam("q")
	found, err := h.o.Payments.Search(c.Request().Context(), q)
	p := page{Title: "Search", Query: shown(q), Data: searchPage{Results: found}}
	if e, told := apierr.From(err); told && e.Status == http.StatusBadRequest {
		p.Data = searchPage{Problem: joined(e)}
		return h.show(c, e.Status, "search", p)
	}
	if err != nil {
		return err
	}
	if only, ok := found.Only(); ok {
		return c.Redirect(http.StatusSeeOther, foundPath(found, only))
	}
	return h.show(c, http.StatusOK, "search", p)
}

// shown is what was searched for as the page repeats it: no longer than what can be found.
func shown(q string) string {
	q = strings.TrimSpace(strings.ToValidUTF8(q, "\uFFFD"))
	if r := []rune(q); len(r) > maxFilterText && !findableNonce(q) {
		return string(r[:maxFilterText])
	}
	return q
}

// transactionPage is GET /transactions/{transaction_id}: its payment's page, at its place.
func (h *Handler) transactionPage(c echo.Context) error {
	id, ok := fields.ParseID(c.Param("transaction_id"))
	if !ok {
		return errNoTransaction()
	}
	payment, err := h.o.Payments.PaymentOf(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, transactionPath(payment, id))
}

func errNoTransaction() *apierr.Error {
	return apierr.New(apierr.NotFound, "there is no transaction with this id")
}
