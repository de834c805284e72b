package transactions

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/postgres"
)

// OperatorOrder is what a person at the console orders about a payment.
type OperatorOrder struct {
	PaymentID     uuid.UUID
	TransactionID uuid.UUID // what it acts on
	Route         Route     // RouteCapture, RouteCancel or RouteRefund
	// Amount is in major units; zero: all that is left. A capture must say it, as the
	// contract asks of a merchant; a cancellation is always of all.
	Amount      decimal.Decimal
	Currency    string // of Amount; "": the payment's
	Reason      string // one of the route's Reasons; a capture must have one
	Description string // in the operator's own words, at most 255 characters; "": none
	// Nonce is a UUID that the form drew when it was shown: however often, and however late, it
	// is sent, money moves once.
	Nonce     string
	RequestID string
}

// Reasons are those that the contract knows for a route, in order; nil for a route that
// there is not.
func (r Route) Reasons() []string { return slices.Clone(actionRules[r].reasons) }

// orderedActions is what the audit log calls an order, by its route.
var orderedActions = map[Route]string{
	RouteCapture: "payment.capture_ordered", RouteCancel: "payment.cancel_ordered", RouteRefund: "payment.refund_ordered",
}

// consoleReference begins the merchant's reference of what was ordered at a console, for
// whoever meets it at the provider or in the merchant's own books.
const consoleReference = "console-"

// Operate captures, cancels or refunds by an operator's wish. It is the merchant's own
// request, sent by somebody else: the same rules, nonce and protocol, under the default
// policy, whatever the merchant has chosen.
//
// Before anything begins, the audit log says who ordered what; if that cannot be written,
// nothing is done. What one operator orders is written once, however often it is sent, and
// whatever comes of it; who the operator is, the context says (audit.By).
//
// Where a merchant's nonce begins a new life when its answer is forgotten, a form's does not:
// it may have been left open for days. It is INVALID_STATE then. Otherwise it fails with what
// is wrong with the order, or as Execute does.
func (s *Service) Operate(ctx context.Context, o OperatorOrder) (Answer, error) {
	p, err := s.store.anyPayment(ctx, o.PaymentID)
	if err != nil {
		return Answer{}, err
	}
	cmd, err := s.commandOf(o, p)
	if err != nil {
		return Answer{}, err
	}
	if err := s.noteOrder(ctx, o, p, cmd); err != nil {
		if postgres.IsLockTimeout(err) {
			return s.busy(cmd)
		}
		return Answer{}, err
	}
	return s.Execute(ctx, cmd)
}

// commandOf is the order as the merchant's own request would come.
func (s *Service) commandOf(o OperatorOrder, p Payment) (Command, error) {
	if orderedActions[o.Route] == "" {
		return Command{}, apierr.New(apierr.InvalidParameters, "only a capture, a cancellation or a refund can be ordered")
	}
	if o.TransactionID == uuid.Nil { // which would stand for none
		return Command{}, apierr.New(apierr.TransactionNotFound, "there is no transaction with this id in the payment")
	}
	if _, isID := fields.ParseID(o.Nonce); !isID {
		return Command{}, apierr.New(apierr.InvalidParameters, "the order's nonce must be a UUID")
	}
	body, err := o.body(p)
	if err != nil {
		return Command{}, err
	}
	a, err := parseAction(body, o.Route)
	if err != nil {
		return Command{}, err
	}
	a.PaymentID, a.TargetID = o.PaymentID, o.TransactionID
	policy := s.policies.Of("")
	const method = http.MethodPost
	route, target := "/v1/payments/:payment_id/transactions/:transaction_id/"+string(o.Route), o.PaymentID.String()+"/"+o.TransactionID.String()
	return Command{
		AccountID: p.AccountID, Mode: p.Mode, Policy: policy,
		Key:       idem.Key{Nonce: idem.KeyOf(o.Nonce), Sent: o.Nonce, Retention: policy.Retention},
		Operation: method + " " + route + " " + target, Print: s.prints.Of(method, route, target, body),
		Action: &a, RequestID: o.RequestID, ArrivedAt: time.Now(),
	}, nil
}

// body is the body of the merchant's own request. It is the same whenever the order is
// sent again.
func (o OperatorOrder) body(p Payment) (jsontree.Value, error) {
	type amount struct {
		Currency string          `json:"currency"`
		Value    json.RawMessage `json:"value"`
	}
	b := struct {
		MerchantReference string  `json:"merchant_reference"`
		Reason            string  `json:"reason,omitempty"`
		Description       string  `json:"description,omitempty"`
		Amount            *amount `json:"amount,omitempty"`
	}{MerchantReference: consoleReference + o.Nonce[:8], Reason: o.Reason, Description: o.Description}
	if !utf8.ValidString(o.Reason) || !utf8.ValidString(o.Description) { // JSON would change it silently
		return jsontree.Value{}, apierr.New(apierr.InvalidParameters, "an order must be UTF-8")
	}
	if actionRules[o.Route].amount && !o.Amount.IsZero() {
		b.Amount = &amount{Currency: cmp.Or(o.Currency, p.Currency), Value: money.JSONNumber(o.Amount)}
	}
	raw, err := json.Marshal(b)
	if err != nil {
		return jsontree.Value{}, errors.New("encode the order") // the cause may quote it
	}
	return jsontree.Parse(raw)
}

// noteOrder writes the order into the audit log, unless it is there. Whoever sends it
// twice at once waits at the payment's row, and finds it there. Whoever closes the page has
// ordered all the same: the log and the deed belong together.
func (s *Service) noteOrder(ctx context.Context, o OperatorOrder, p Payment, cmd Command) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.lease)
	defer cancel()
	e := audit.Entry{
		Action: orderedActions[o.Route], AccountID: p.AccountID, Target: "payment/" + p.ID.String(),
		Details: map[string]string{"transaction": o.TransactionID.String(), "nonce": cmd.Nonce},
	}
	for name, value := range map[string]string{"reason": o.Reason, "description": o.Description, "currency": cmd.Action.Currency} {
		if value != "" {
			e.Details[name] = value
		}
	}
	e.Details["amount"] = "all"
	if !cmd.Action.Amount.IsZero() {
		e.Details["amount"] = cmd.Action.Amount.String()
	}
	err := s.store.db.ConfirmedTx(ctx, func(tx postgres.Tx) error {
		known, over, err := s.store.ordered(ctx, tx, p, cmd.Nonce, e, s.lease)
		switch {
		case err != nil:
			return err
		case over:
			return apierr.New(apierr.InvalidState, "this form was sent before, too long ago to be answered again; load the page to see what became of it")
		case known:
			return nil
		}
		return audit.Append(ctx, tx, e)
	})
	return wrap("note the order", err)
}
