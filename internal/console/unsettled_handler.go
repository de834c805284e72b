package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/transactions"
)

const (
	pathUnsettled = "/unsettled"

	// Limits of a decision, in characters: those of the operator's API.
	maxReason    = 500
	maxReference = 255
)

func (h *Handler) mountUnsettled(e *echo.Echo) {
	e.GET(pathUnsettled, h.unsettledPage)
	e.POST("/transactions/:transaction_id/resolve", h.resolve)
}

// The fields of a decision's form.
const (
	fieldOutcome   = "outcome"
	fieldReference = "provider_reference"

	outcomeSucceeded = "succeeded"
	outcomeFailed    = "failed"
)

// decision is what a person has said became of a transaction, as they sent it.
type decision struct {
	TransactionID              uuid.UUID
	Outcome, Reference, Reason string
	Problem                    string
}

// unsettledPage is what the page of what is not settled shows.
type unsettledPage struct {
	transactions.UnsettledPage
	Filter transactions.UnsettledFilter
	// Resolved is what a person has just decided; nil: nothing.
	Resolved *transactions.FileTransaction
	// Refused is a decision that was not carried out; nil: none.
	Refused *decision
	// Open is what that decision is about, where it can still be decided and is not among those
	// of the page; else nil.
	Open *transactions.FileTransaction
}

// decisionForm is a form by which a person decides.
type decisionForm struct {
	TransactionID uuid.UUID
	Who           string // whose password is asked for
	Reference     string // the provider's: as it was given, or as far as it is known
	// NotYet is from when on it can be decided that it failed, where that is to come; else nil.
	// Whoever decides too early all the same is refused.
	NotYet  *time.Time
	Refused *decision
}

// OpenForm is the form for what the page does not list.
func (p unsettledPage) OpenForm(who string) decisionForm {
	return decisionForm{TransactionID: p.Open.ID, Who: who, Reference: p.Refused.Reference, Refused: p.Refused}
}

// RefusedPath is where what was not decided is looked at: here, or with its payment.
func (p unsettledPage) RefusedPath() string {
	id := p.Refused.TransactionID.String()
	if p.Open != nil || p.lists(p.Refused.TransactionID) {
		return "#" + id
	}
	return "/transactions/" + id
}

func (p unsettledPage) lists(id uuid.UUID) bool {
	return slices.ContainsFunc(p.Transactions, func(t transactions.Unsettled) bool { return t.TransactionID == id })
}

// unsettledRow is one of them, with what was said of it.
type unsettledRow struct {
	transactions.Unsettled
	Refused *decision
}

// Rows are those of the page.
func (p unsettledPage) Rows() []unsettledRow {
	rows := make([]unsettledRow, len(p.Transactions))
	for i, t := range p.Transactions {
		rows[i].Unsettled = t
		if p.Refused != nil && p.Refused.TransactionID == t.TransactionID {
			rows[i].Refused = p.Refused
		}
	}
	return rows
}

// Form is the form by which it is decided.
func (r unsettledRow) Form(who string) decisionForm {
	f := decisionForm{TransactionID: r.TransactionID, Who: who, Reference: r.ProviderReference, Refused: r.Refused}
	if r.Refused != nil {
		f.Reference = r.Refused.Reference
	}
	if r.Resolvable && !r.FailedPossible {
		f.NotYet = &r.FailedFrom
	}
	return f
}

// State is in words what is the matter.
func (r unsettledRow) State() string {
	switch r.Unsettled.State {
	case transactions.UnsettledParked:
		return "parked"
	case transactions.UnsettledAccepted:
		return "accepted, not decided"
	case transactions.UnsettledInHand:
		return "in hand"
	case transactions.UnsettledUnknown:
		return "unknown"
	}
	return string(r.Unsettled.State)
}

// Class is in which colour.
func (r unsettledRow) Class() string {
	if r.Unsettled.State == transactions.UnsettledParked {
		return "bad"
	}
	return "waiting"
}

// More says whether the list goes on, at Further.
func (p unsettledPage) More() bool { return p.Next != uuid.Nil }

// Further is where the list goes on.
func (p unsettledPage) Further() string { return p.link("after", p.Next.String()) }

// All and Parked are the two lists that there are.
func (p unsettledPage) All() string {
	p.Filter.Parked = false
	return p.link()
}

// Parked is the one of those that a person must look at.
func (p unsettledPage) Parked() string {
	p.Filter.Parked = true
	return p.link()
}

func (p unsettledPage) link(more ...string) string {
	q := url.Values{}
	if p.Filter.Parked {
		q.Set("parked", "true")
	}
	if p.Filter.AccountID != uuid.Nil {
		q.Set(paramAccount, p.Filter.AccountID.String())
	}
	for pair := range slices.Chunk(more, 2) {
		q.Set(pair[0], pair[1])
	}
	if len(q) == 0 {
		return pathUnsettled
	}
	return pathUnsettled + "?" + q.Encode()
}

// unsettledPage is GET /unsettled. ?resolved= is the transaction that was decided here.
func (h *Handler) unsettledPage(c echo.Context) error {
	var p unsettledPage
	p.Filter.Parked = c.QueryParam("parked") == "true"
	var after uuid.UUID
	for param, into := range map[string]*uuid.UUID{paramAccount: &p.Filter.AccountID, "after": &after} {
		if v := c.QueryParam(param); v != "" {
			id, ok := fields.ParseID(v)
			if !ok {
				return apierr.New(apierr.InvalidParameters, param+" must be a UUID")
			}
			*into = id
		}
	}
	ctx := c.Request().Context()
	if id, ok := fields.ParseID(c.QueryParam("resolved")); ok {
		if t := h.transaction(ctx, id); t != nil && t.Status.Terminal() {
			p.Resolved = t
		}
	}
	var err error
	if p.UnsettledPage, err = h.o.Payments.Unsettled(ctx, p.Filter, after, 0); err != nil {
		return err
	}
	return h.show(c, http.StatusOK, "unsettled", page{Title: "Unsettled", Section: pathUnsettled, Data: p})
}

// transaction is one that the page tells of beside its list; nil if it cannot be read: the page
// is of use without it.
func (h *Handler) transaction(ctx context.Context, id uuid.UUID) *transactions.FileTransaction {
	payment, err := h.o.Payments.PaymentOf(ctx, id)
	if err != nil {
		return nil
	}
	f, err := h.o.Payments.File(ctx, payment)
	if err != nil {
		return nil
	}
	return paymentPage{PaymentFile: f}.ByID(id)
}

// resolve is POST /transactions/{transaction_id}/resolve.
func (h *Handler) resolve(c echo.Context) error {
	id, ok := fields.ParseID(c.Param("transaction_id"))
	if !ok {
		return errNoTransaction()
	}
	said := decision{TransactionID: id, Outcome: c.FormValue(fieldOutcome), Reference: c.FormValue(fieldReference), Reason: c.FormValue(fieldReason)}
	d, no := said.read()
	if no == nil {
		d.RequestID = httpapi.RequestID(c)
		tx, err := h.o.Payments.Resolve(c.Request().Context(), id, d)
		if tx.ID != uuid.Nil {
			httpapi.LineOf(c).TransactionID = tx.ID.String()
		}
		if err == nil {
			return seeOther(c, pathUnsettled+"?resolved="+id.String())
		}
		if no, ok = apierr.From(err); !ok || no.Status == http.StatusNotFound {
			return err
		}
	}
	said.Problem = refusalOf(no)
	return h.showRefused(c, no.Status, said)
}

// showRefused shows the page after a decision was refused, with the form as it was filled in,
// however far down the list what it is about may be.
func (h *Handler) showRefused(c echo.Context, status int, said decision) error {
	ctx := c.Request().Context()
	p := unsettledPage{Refused: &said}
	var err error
	if p.UnsettledPage, err = h.o.Payments.Unsettled(ctx, p.Filter, uuid.Nil, 0); err != nil {
		return err
	}
	if !p.lists(said.TransactionID) {
		if t := h.transaction(ctx, said.TransactionID); t != nil && !t.Status.Terminal() {
			p.Open = t
		}
	}
	return h.show(c, status, "unsettled", page{Title: "Unsettled", Section: pathUnsettled, Data: p})
}

// read is the decision as it is carried out, by the rules of the operator's API.
func (d decision) read() (transactions.Decision, *apierr.Error) {
	wrong := func(rule string) (transactions.Decision, *apierr.Error) {
		return transactions.Decision{}, apierr.New(apierr.InvalidParameters, rule)
	}
	plain := func(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) }
	reason := strings.TrimSpace(strings.Join(strings.Fields(d.Reason), " ")) // a field of several lines has line breaks
	switch {
	case d.Outcome != outcomeSucceeded && d.Outcome != outcomeFailed:
		return wrong("outcome must be succeeded or failed")
	case reason == "" || utf8.RuneCountInString(reason) > maxReason || !plain(reason):
		return wrong("reason must have 1 to 500 characters")
	case utf8.RuneCountInString(d.Reference) > maxReference || !plain(d.Reference):
		return wrong("provider_reference must have at most 255 characters, none of which is a control character")
	}
	return transactions.Decision{Succeeded: d.Outcome == outcomeSucceeded, ProviderReference: strings.TrimSpace(d.Reference), Reason: reason}, nil
}

// refusalOf is what an error says to whoever filled in a form, with when it is worth another
// try.
func refusalOf(e *apierr.Error) string {
	words := strings.ReplaceAll(joined(e), "amount.value", "amount") // the form has the currency from the payment
	if e.RetryAfter > 0 {
		words += " (try again in " + countdown(time.Duration(e.RetryAfter)*time.Second) + ")"
	}
	return words
}
