package console

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/transactions"
)

func (h *Handler) mountPayment(e *echo.Echo) {
	e.GET("/payments/:payment_id", h.paymentPage)
	for _, route := range []transactions.Route{transactions.RouteCapture, transactions.RouteCancel, transactions.RouteRefund} {
		e.POST("/payments/:payment_id/"+string(route), h.order(route))
	}
	e.GET("/transactions/:transaction_id", h.transactionPage)
}

// The fields of an order's form.
const (
	fieldTransaction = "transaction"
	fieldAmount      = "amount"
	fieldReason      = "reason"
	fieldDescription = "description"
	fieldNonce       = "nonce"
)

// orderForm is a form by which an operator orders something.
type orderForm struct {
	transactions.Possible
	Currency string
	// Nonce is drawn when the form is shown: however often it is sent, money moves once.
	Nonce string
	// Amount, Reason and Description are what the fields hold at first.
	Amount, Reason, Description string
	Open                        bool // it has just been refused
}

// Path is where the form is sent.
func (f orderForm) Path(payment uuid.UUID) string {
	return paymentPath(payment) + "/" + string(f.Route)
}

// Verb is what the order is called on its button.
func (f orderForm) Verb() string {
	switch f.Route {
	case transactions.RouteCapture:
		return "Capture"
	case transactions.RouteCancel:
		return "Cancel"
	default:
		return "Refund"
	}
}

// Reasons are those to choose from, in the contract's words.
func (f orderForm) Reasons() []string { return f.Route.Reasons() }

// ReasonNeeded says whether the contract demands one.
func (f orderForm) ReasonNeeded() bool { return f.Route == transactions.RouteCapture }

// All is the whole amount that can be ordered.
func (f orderForm) All() string { return plainAmount(f.Max, f.Currency) }

// ordered is what became of what was ordered with a nonce.
type ordered struct {
	Nonce   string
	Life    transactions.Life
	Again   bool // the form had been sent before
	Differs bool // and with other details
}

// paymentPage is what the page of a payment shows.
type paymentPage struct {
	transactions.PaymentFile
	Done    *ordered
	Problem string
	Orders  []orderForm
	// Waiting are the operations whose outcome nobody knows yet. While there are any,
	// nothing can be ordered here: a person who does not see a refund arrive must not be led
	// to send a second one.
	Waiting []transactions.FileTransaction
	// Accepted are those that the provider has accepted and not decided. They are known of, and
	// another partial refund beside one may be meant: it is named, and the forms stay.
	Accepted []transactions.FileTransaction
}

// ByID is one of the transactions; nil if it is none of those shown.
func (p paymentPage) ByID(id uuid.UUID) *transactions.FileTransaction {
	for i, t := range p.Transactions {
		if t.ID == id {
			return &p.Transactions[i]
		}
	}
	return nil
}

// sum is one of the payment's sums.
type sum struct {
	Name            string
	Amount, Pending decimal.Decimal
}

// Totals are those that there is anything to say of, and always what was asked for.
func (p paymentPage) Totals() []sum {
	s, arrived := p.Sums, "Captured"
	if p.Type == transactions.Purchase {
		arrived = "Purchased"
	}
	var told []sum
	for _, one := range []struct {
		sum
		always bool
	}{
		{sum{"Authorized", s.Authorized, s.AuthorizePending}, p.Type == transactions.Authorize},
		{sum{arrived, s.Settled, s.SettlePending}, p.Type != transactions.Verify},
		{sum{"Refunded", s.Refunded, s.RefundPending}, false},
		{sum{"Cancelled", s.Canceled, s.CancelPending}, false},
		{sum{"Charged back", s.ChargedBack, decimal.Zero}, false},
	} {
		bothAre := p.Type == transactions.Purchase && one.Name == "Authorized" // a purchase is both at once
		if !bothAre && (one.always || !one.Amount.IsZero() || !one.Pending.IsZero()) {
			told = append(told, one.sum)
		}
	}
	return told
}

// OrderPath is where the merchant's payments of the same order are listed.
func (p paymentPage) OrderPath() string {
	return filter{}.link(pathPayments, paramAccount, p.AccountID.String(), paramOrder, p.Order)
}

// CustomerPath is where the merchant's payments of the same customer are listed.
func (p paymentPage) CustomerPath() string {
	return filter{}.link(pathPayments, paramAccount, p.AccountID.String(), paramCustomer, p.Customer)
}

// AuditPath is where the audit log tells of the payment.
func (p paymentPage) AuditPath() string {
	return filter{}.link("/audit", "target", "payment/"+p.ID.String())
}

// Has says whether there is such an id: of a session, a token or a kept card that the payment
// was made with.
func (paymentPage) Has(id uuid.UUID) bool { return id != uuid.Nil }

// paymentOf is the payment that a path names.
func paymentOf(c echo.Context) (uuid.UUID, error) {
	id, ok := fields.ParseID(c.Param("payment_id"))
	if !ok {
		return uuid.Nil, noPayment(apierr.New(apierr.PaymentNotFound, "there is no payment with this id"))
	}
	return id, nil
}

// noPayment is a page that there is not, where a merchant's program has sent a wrong
// parameter.
func noPayment(err error) error {
	if e, told := apierr.From(err); told && e.Code == apierr.PaymentNotFound {
		return e.WithStatus(http.StatusNotFound)
	}
	return err
}

// paymentPage is GET /payments/{payment_id}. ?done= is the nonce of what was ordered here.
func (h *Handler) paymentPage(c echo.Context) error {
	ctx := c.Request().Context()
	id, err := paymentOf(c)
	if err != nil {
		return err
	}
	p, err := h.file(ctx, id)
	if err != nil {
		return err
	}
	if p.Done, err = h.done(ctx, p, c.QueryParam("done")); err != nil {
		return err
	}
	if p.Done != nil {
		p.Done.Again, p.Done.Differs = c.QueryParam("again") != "", c.QueryParam("again") == againDiffers
	}
	return h.showPayment(c, http.StatusOK, p)
}

func (h *Handler) showPayment(c echo.Context, status int, p paymentPage) error {
	title := "Payment of " + formatMoney(p.Amount, p.Currency)
	return h.show(c, status, "payment", page{Title: title, Section: pathPayments, Data: p})
}

// file reads a payment, with a form for each thing that can be done.
func (h *Handler) file(ctx context.Context, id uuid.UUID) (paymentPage, error) {
	f, err := h.o.Payments.File(ctx, id)
	if err != nil {
		return paymentPage{}, noPayment(err)
	}
	p := paymentPage{PaymentFile: f}
	for _, t := range f.Transactions {
		if t.TargetID == uuid.Nil || t.Type == transactions.Chargeback {
			continue
		}
		if t.Status == transactions.Created {
			p.Waiting = append(p.Waiting, t)
		}
		if t.Status == transactions.Pending {
			p.Accepted = append(p.Accepted, t)
		}
	}
	for _, possible := range f.Possible {
		p.Orders = append(p.Orders, orderForm{
			Possible: possible, Currency: f.Currency, Nonce: uuid.Must(uuid.NewV7()).String(), Amount: plainAmount(possible.Max, f.Currency),
		})
	}
	return p, nil
}

// done is what became of what was ordered with a nonce, if it was this payment's.
func (h *Handler) done(ctx context.Context, p paymentPage, nonce string) (*ordered, error) {
	if _, ok := fields.ParseID(nonce); !ok {
		return nil, nil //nolint:nilnil // there is nothing to tell, which is no error
	}
	lives, err := h.o.Payments.Lookup(ctx, transactions.Scope{AccountID: p.AccountID, Mode: p.Mode}, nonce, uuid.Nil)
	if err != nil {
		return nil, err
	}
	if len(lives.Lives) == 0 || lives.Lives[0].PaymentID != p.ID.String() {
		return nil, nil //nolint:nilnil // as above
	}
	return &ordered{Nonce: nonce, Life: lives.Lives[0]}, nil
}

// What ?again= can be: a form was sent again, and perhaps with other details.
const (
	againSame    = "same"
	againDiffers = "differs"
)

// order is POST /payments/{payment_id}/capture, cancel or refund. Whatever becomes of it is
// shown by the payment's page, which knows it from the nonce.
func (h *Handler) order(route transactions.Route) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		id, err := paymentOf(c)
		if err != nil {
			return err
		}
		o, problem := readOrder(c, route)
		o.PaymentID = id
		if problem != nil {
			return h.refused(c, o, problem)
		}
		a, err := h.o.Payments.Operate(ctx, o)
		line := httpapi.LineOf(c)
		line.Verdict, line.Provider, line.ProviderTime = string(a.Verdict), a.Provider, a.ProviderTime
		if a.TransactionID != uuid.Nil {
			line.TransactionID = a.TransactionID.String()
		}
		if e, told := apierr.From(err); told {
			return h.refused(c, o, e)
		}
		if err != nil {
			return err
		}
		again := a.Verdict == idem.Replayed
		return seeOther(c, donePath(o, again && a.BodyDiffers, again))
	}
}

// readOrder reads an order's form, or says what is wrong with it.
func readOrder(c echo.Context, route transactions.Route) (transactions.OperatorOrder, *apierr.Error) {
	o := transactions.OperatorOrder{
		Route: route, Reason: c.FormValue(fieldReason), Description: c.FormValue(fieldDescription),
		Nonce: c.FormValue(fieldNonce), RequestID: httpapi.RequestID(c),
	}
	var ok bool
	if o.TransactionID, ok = fields.ParseID(c.FormValue(fieldTransaction)); !ok {
		return o, apierr.New(apierr.InvalidParameters, "transaction must be a UUID")
	}
	if _, ok = fields.ParseID(o.Nonce); !ok {
		return o, apierr.New(apierr.InvalidParameters, "nonce must be the form's own: load the page again")
	}
	if route == transactions.RouteCancel { // which is always of all
		return o, nil
	}
	amount, err := money.Parse(c.FormValue(fieldAmount))
	if err != nil || !amount.IsPositive() { // zero would stand for all
		return o, apierr.New(apierr.InvalidAmount, "amount must be greater than 0 and written like 45.67")
	}
	o.Amount = amount
	return o, nil
}

// refused leads to what became of the order, if anything did. If nothing has begun, it shows
// the page again with why. What was given is in the form again: under the same nonce where it
// may be sent again as it is, else under another one, for the audit log has what the first was
// refused with, and notes a nonce once.
func (h *Handler) refused(c echo.Context, o transactions.OperatorOrder, e *apierr.Error) error {
	ctx := c.Request().Context()
	p, err := h.file(ctx, o.PaymentID)
	if err != nil {
		return err
	}
	begun, err := h.done(ctx, p, o.Nonce)
	if err != nil {
		return err
	}
	if begun != nil {
		return seeOther(c, donePath(o, e.Code == apierr.IdempotencyKeyReused, e.Code == apierr.InvalidState))
	}
	p.Problem = strings.ReplaceAll(refusalOf(e), "retry with the same key", "send the form again")
	if e.Code == apierr.IdempotencyKeyReused { // by an order about another payment
		p.Problem = "Nothing was done: this form was used for another order. Load the page again."
	}
	for i, f := range p.Orders {
		if f.Route == o.Route && f.TransactionID == o.TransactionID {
			p.Orders[i].Amount, p.Orders[i].Reason, p.Orders[i].Description = c.FormValue(fieldAmount), o.Reason, o.Description
			p.Orders[i].Open = true
			if e.Status >= http.StatusInternalServerError || e.Status == http.StatusConflict {
				p.Orders[i].Nonce = o.Nonce
			}
		}
	}
	return h.showPayment(c, e.Status, p)
}

// donePath is where the payment's page tells what became of an order: of the form that has
// just been sent, or of the one that had been sent before.
func donePath(o transactions.OperatorOrder, differs, again bool) string {
	path := paymentPath(o.PaymentID) + "?done=" + o.Nonce
	switch {
	case differs:
		path += "&again=" + againDiffers
	case again:
		path += "&again=" + againSame
	}
	return path
}
