package console

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/transactions"
)

const (
	pathPayments = "/payments"
	pathRows     = "/payments/rows"

	// maxRows is a page of payments: a few screens.
	maxRows = 50
	// maxChoice is how many merchants can be chosen from a list. Who has more pastes an id.
	maxChoice = 200

	// maxCSV is how many payments one file has at most. It is what a spreadsheet opens
	// without complaint, and a minute's work at worst.
	maxCSV = 100_000
	// csvFlush is how many payments are sent at a time.
	csvFlush = 500
	// csvLimit bounds one file, and csvPatience each part of it: whoever reads more slowly
	// than that has gone.
	csvLimit    = 10 * time.Minute
	csvPatience = 30 * time.Second
)

func (h *Handler) mountPayments(e *echo.Echo) {
	e.GET(pathPayments, h.listPayments)
	e.GET(pathRows, h.paymentRows)
	e.GET(pathPayments+".csv", h.exportPayments)
}

// paymentsPage is what the page of a list of payments shows.
type paymentsPage struct {
	Filter    filter
	Merchants []merchants.Merchant // to choose from; nil: there are too many
	Searched  bool                 // there is a list, however short
	transactions.PaymentPage
	Live bool // the list refreshes itself

	since string // the newest payment that has been seen already; "": all are new to whoever looks
}

// Statuses are those to choose from.
func (paymentsPage) Statuses() []string { return paymentStatuses() }

// SubStatuses are those to choose from.
func (paymentsPage) SubStatuses() []string { return paymentSubStatuses() }

// Modes are those to choose from.
func (paymentsPage) Modes() []string { return []string{merchants.Test, merchants.Live} }

// MaxCSV is how many payments a file has at most.
func (paymentsPage) MaxCSV() string { return "100,000" }

// New says whether a payment has come since the list was shown first.
func (p paymentsPage) New(line transactions.PaymentLine) bool {
	return p.since != "" && line.ID.String() > p.since
}

// Older is where the list goes on.
func (p paymentsPage) Older() string {
	return p.Filter.link(pathPayments, paramBefore, p.Next.String())
}

// More says whether there is anything older to look at.
func (p paymentsPage) More() bool { return p.Next != uuid.Nil }

// Bounded says that the page ends where enough was looked at, and not because it is full.
func (p paymentsPage) Bounded() bool { return p.More() && len(p.Payments) < maxRows }

// Empty says what there is none of, where the list is empty.
func (p paymentsPage) Empty() string {
	older := p.Filter.Before != uuid.Nil
	switch {
	case p.Bounded() && older:
		return "None of these among those that were looked at."
	case p.Bounded():
		return "None of these among the newest that were looked at."
	case older && p.Filter.Active():
		return "No older payment fits the filter."
	case older:
		return "There are no older payments."
	case p.Filter.Active():
		return "No payment fits the filter."
	}
	return "There are no payments yet."
}

// Newest is where the list begins.
func (p paymentsPage) Newest() string { return p.Filter.link(pathPayments) }

// Rows is where the list refreshes itself from. It names what is shown, so that the answer
// can be that nothing has changed.
func (p paymentsPage) Rows() string {
	newest := ""
	if len(p.Payments) > 0 {
		newest = p.Payments[0].ID.String()
	}
	return p.Filter.link(pathRows, "since", newest, "seen", p.seen())
}

// seen stands for what is shown.
func (p paymentsPage) seen() string {
	digest := sha256.New()
	for _, l := range p.Payments {
		_, _ = fmt.Fprintln(digest, l.ID, l.Status, l.SubStatus, l.Amount, l.ResponseCode, l.MerchantName)
	}
	_, _ = fmt.Fprintln(digest, p.Complete)
	return hex.EncodeToString(digest.Sum(nil)[:8])
}

// listPayments is GET /payments.
func (h *Handler) listPayments(c echo.Context) error {
	q := c.QueryParams()
	f := parseFilter(q)
	if clean, tidy := tidied(q, f); tidy {
		return c.Redirect(http.StatusSeeOther, clean)
	}
	p := paymentsPage{Filter: f, Live: f.Before == uuid.Nil}
	status, err := h.look(c.Request().Context(), &p)
	if err != nil {
		return err
	}
	if p.Merchants, err = h.choice(c.Request().Context()); err != nil {
		return err
	}
	return h.show(c, status, "payments", page{Title: "Payments", Section: pathPayments, Data: p})
}

// tidied is the address of the same page without the fields that were left empty, as a
// browser sends them: people keep and send on what is in the address bar.
func tidied(q url.Values, f filter) (link string, tidy bool) {
	for _, name := range filterParams {
		if values, given := q[name]; given && (len(values) != 1 || values[0] == "") {
			tidy = true
		}
	}
	if f.Before != uuid.Nil {
		return f.link(pathPayments, paramBefore, f.Before.String()), tidy
	}
	return f.link(pathPayments), tidy
}

// look looks up what the filter asks for, and returns the status of the page: with a filter
// that cannot be looked up there is no list.
func (h *Handler) look(ctx context.Context, p *paymentsPage) (int, error) {
	if len(p.Filter.Problems) > 0 {
		p.Live = false
		return http.StatusBadRequest, nil
	}
	found, err := h.o.Payments.Payments(ctx, p.Filter.PaymentFilter, p.Filter.Before, maxRows)
	if err != nil {
		return 0, err
	}
	p.PaymentPage, p.Searched = found, true
	return http.StatusOK, nil
}

// choice is the merchants to choose from, or nil where there are too many for a list.
func (h *Handler) choice(ctx context.Context) ([]merchants.Merchant, error) {
	all, more, err := h.o.Merchants.Merchants(ctx, uuid.Nil, maxChoice)
	if err != nil || more {
		return nil, err
	}
	return all, nil
}

// paymentRows is GET /payments/rows: the list that refreshes itself, if it has changed.
func (h *Handler) paymentRows(c echo.Context) error {
	p := paymentsPage{Filter: parseFilter(c.QueryParams()), Live: true}
	if id, ok := fields.ParseID(c.QueryParam("since")); ok {
		p.since = id.String()
	}
	if len(p.Filter.Problems) > 0 {
		return apierr.New(apierr.InvalidParameters, p.Filter.Problems...)
	}
	p.Filter.Before = uuid.Nil
	if _, err := h.look(c.Request().Context(), &p); err != nil {
		return err
	}
	if p.seen() == c.QueryParam("seen") {
		return c.NoContent(http.StatusNoContent)
	}
	return h.showPart(c, "payments", "rows", page{Data: p})
}

// exportPayments is GET /payments.csv. The file ends behind the newest 100,000, as the page
// with its link says. One that breaks off before is broken off on the wire as well, so that
// nobody takes it for a whole one.
func (h *Handler) exportPayments(c echo.Context) error {
	f := parseFilter(c.QueryParams())
	if len(f.Problems) > 0 {
		return apierr.New(apierr.InvalidParameters, f.Problems...)
	}
	ctx, cancel := whileAsked(c, csvLimit)
	defer cancel()
	if err := h.o.Audit.Append(ctx, exported(f)); err != nil { // it leaves the house with whoever has it
		return err
	}
	header := c.Response().Header()
	header.Set(echo.HeaderContentType, "text/csv; charset=utf-8")
	header.Set(echo.HeaderContentDisposition, `attachment; filename="payments-`+time.Now().UTC().Format("20060102T150405Z")+`.csv"`)
	out := &lateResponse{c.Response(), http.NewResponseController(c.Response())}
	file, err := newPaymentsCSV(out)
	if err != nil {
		return err
	}
	told := 0
	err = h.o.Payments.EachPayment(ctx, f.PaymentFilter, maxCSV, func(p transactions.PaymentLine) error {
		if told++; told%csvFlush == 0 {
			if err := file.flush(); err != nil {
				return err
			}
		}
		return file.add(p)
	})
	if errors.Is(err, transactions.ErrMorePayments) {
		err = nil
	}
	if err == nil {
		err = file.flush()
	}
	switch {
	case err != nil && c.Response().Committed:
		out.breakOff()
	case err != nil: // a page says so, and is no file
		header.Del(echo.HeaderContentDisposition)
		header.Del(echo.HeaderContentType)
	}
	return err
}

// exported is what the audit log has of an export: of which payments. Of what was typed freely
// it has no more than that it was: now and then that is a card's number, and the log keeps what
// it has for ever.
func exported(f filter) audit.Entry {
	e := audit.Entry{Action: "payments.exported", AccountID: f.AccountID, Target: "payments", Details: map[string]string{}}
	for _, name := range filterParams {
		value := f.Given(name)
		switch name {
		case paramOrder, paramCode, paramNonce, paramCustomer:
			if value != "" {
				value = "one"
			}
		}
		if value != "" {
			e.Details[name] = value
		}
	}
	return e
}

// whileAsked is a context that lasts as long as somebody waits, and not as long as other
// requests may take.
func whileAsked(c echo.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	asked := c.Request().Context()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(asked), limit)
	stop := context.AfterFunc(asked, func() {
		if errors.Is(asked.Err(), context.Canceled) { // a deadline is only the other requests'
			cancel()
		}
	})
	return ctx, func() { stop(); cancel() }
}

// lateResponse is an answer that may take as long as its reader does, but not for ever.
type lateResponse struct {
	*echo.Response
	wire *http.ResponseController
}

// Write sends a part.
func (r *lateResponse) Write(part []byte) (int, error) {
	if err := r.wire.SetWriteDeadline(time.Now().Add(csvPatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return r.Response.Write(part)
}

// breakOff has the answer end in the middle: nothing can be sent any more, its end included.
func (r *lateResponse) breakOff() { _ = r.wire.SetWriteDeadline(time.Unix(1, 0)) }
