package transactions

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/providers"
)

// Route is by which route an action came. It decides what the answer looks like.
type Route string

// The routes of actions. CancelOrRefund finds out itself which of the two it is.
const (
	RouteCapture        Route = "capture"
	RouteCancel         Route = "cancel"
	RouteRefund         Route = "refund"
	RouteCancelOrRefund Route = "cancel-or-refund"
)

// Action is a valid request to capture, cancel or refund. What it leaves open, Type,
// TargetID and Amount, is settled when it begins.
type Action struct {
	Route             Route
	PaymentID         uuid.UUID
	TargetID          uuid.UUID // Nil: whatever of the payment can be cancelled or refunded
	Type              Type
	Amount            decimal.Decimal // zero: all that is left
	Currency          string          // "": the payment's
	MerchantReference string
	Description       string
	Reason            string
	AdditionalData    json.RawMessage
}

// actionRule is what the contract asks of an action's body.
type actionRule struct {
	typ                               Type
	reasons                           []string
	reasonRequired, referenceRequired bool
	amount                            bool // whether it has one at all
	amountRequired                    bool
}

var actionRules = map[Route]actionRule{
	RouteCapture: {
		typ: Capture, reasons: []string{"PRODUCT_CONFIRMED", "REQUESTED_BY_CUSTOMER"},
		reasonRequired: true, referenceRequired: true, amount: true, amountRequired: true,
	},
	RouteCancel:         {typ: Cancel, reasons: []string{"DUPLICATE", "FRAUDULENT", "REQUESTED_BY_CUSTOMER"}, referenceRequired: true},
	RouteRefund:         {typ: Refund, reasons: refundReasons, referenceRequired: true, amount: true},
	RouteCancelOrRefund: {reasons: refundReasons, reasonRequired: true, amount: true},
}

var refundReasons = []string{"DUPLICATE", "FRAUDULENT", "REQUESTED_BY_CUSTOMER", "REVERSE"}

// parseAction reads the body of an action. It reports everything that is wrong, at
// most 20 rules.
func parseAction(body jsontree.Value, route Route) (Action, error) {
	if body.Kind() != jsontree.Object {
		return Action{}, apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	v, rule := &checker{}, actionRules[route]
	a := Action{
		Route: route, Type: rule.typ,
		MerchantReference: v.Text(body.Get("merchant_reference"), fields.MinText, fields.MaxText),
		Description:       v.Text(body.Get("description"), fields.MinText, fields.MaxText),
		AdditionalData:    v.Descriptive(body.Get("additional_data")),
	}
	if rule.referenceRequired {
		v.Required(body.Get("merchant_reference"))
	}
	if at := body.Get("reason"); at.Given() || rule.reasonRequired && v.Required(at) {
		a.Reason, _ = at.Text()
		if !slices.Contains(rule.reasons, a.Reason) {
			v.Invalid(at, "must be "+oneOf(rule.reasons))
		}
	}
	if at := body.Get("amount"); rule.amount && (at.Given() || rule.amountRequired) {
		a.Amount, a.Currency = v.Money(at, money.Check)
	}
	if at := body.Get("simplified_mode"); v.Boolean(at, false) {
		v.Invalid(at, "must be false: automatic retries of a declined operation are not available")
	}
	v.Unavailable(body.Get("split_marketplace"), jsontree.Array)
	v.Object(body.Get("customer_payer"))
	v.Object(body.Get("response_additional_data"))
	return a, v.Err()
}

// keptAction is what is kept of an action, to be sent again, given back and compared
// with. It names each field, so that nothing is kept by accident.
type keptAction struct {
	Route             Route           `json:"route"`
	Amount            string          `json:"amount,omitempty"` // as it was asked for
	Currency          string          `json:"currency,omitempty"`
	MerchantReference string          `json:"merchant_reference,omitempty"`
	Description       string          `json:"description,omitempty"`
	Reason            string          `json:"reason,omitempty"`
	AdditionalData    json.RawMessage `json:"additional_data,omitempty"`
}

// keptActionNames are the names of keptAction that can differ, in the order in which
// a person would want to hear of them.
var keptActionNames = []string{"amount", "currency", "merchant_reference", "description", "reason", "additional_data"}

// kept is the action as stored: JSON text.
func (a *Action) kept() (string, error) {
	k := keptAction{
		Route: a.Route, Currency: a.Currency, MerchantReference: a.MerchantReference, Description: a.Description,
		Reason: a.Reason, AdditionalData: a.AdditionalData,
	}
	if !a.Amount.IsZero() {
		k.Amount = a.Amount.String()
	}
	b, err := json.Marshal(k)
	if err != nil {
		return "", errors.New("encode the action to keep") // the cause may quote it
	}
	return string(b), nil
}

// act begins an action, or tells what became of the nonce. What the nonce stands for
// comes first: a repeated request is answered like the first one, although the payment
// would not allow it a second time.
func (s *Service) act(ctx context.Context, cmd Command) (Answer, error) {
	var refused *apierr.Error
	for range maxLooks {
		a, done, free, err := s.look(ctx, cmd, true)
		switch {
		case done || err != nil:
			return a, err
		case !free:
			continue
		case refused != nil: // and it was not this very request that stood in its own way
			s.arrive(cmd, idem.Rejected, uuid.Nil, false, nil)
			return Answer{Verdict: idem.Rejected}, refused
		}
		var r *run
		r, refused, err = s.beginAction(ctx, cmd)
		if err != nil {
			return Answer{}, err
		}
		if r != nil {
			return s.carryOut(ctx, cmd, r)
		}
	}
	return s.busy(cmd)
}

// beginAction claims the nonce, reserves the amount and makes the transaction: one
// commit. Without a run, it says why the payment does not allow the action; without
// either, the nonce or the payment has changed meanwhile.
func (s *Service) beginAction(ctx context.Context, cmd Command) (*run, *apierr.Error, error) {
	p, target, action, refused, err := s.prepare(ctx, cmd)
	if refused != nil || err != nil {
		return nil, refused, err
	}
	provider, ok := s.providers.Named(target.Provider)
	if !ok {
		return nil, apierr.New(apierr.ProviderUnavailable, "the provider of this payment is not configured").Retry(retryParked), nil
	}
	kept, err := cmd.Action.kept()
	if err != nil {
		return nil, nil, err
	}
	cmd.Action = &action
	n := newAction{
		Command: cmd, Transaction: uuid.Must(uuid.NewV7()), Target: target, Request: kept, Allowed: allowed[action.Type],
		Holder: uuid.New(), Instance: s.instance, Terms: s.terms(provider),
	}
	r, err := s.claim(ctx, cmd, provider, n.Transaction, n.Holder, func() (Transaction, clock, bool, error) { return s.store.beginAction(ctx, n) })
	if r == nil || err != nil {
		return nil, nil, err
	}
	r.payment = p // of which operate tells the provider the order
	r.deliver = r.operate()
	return r, nil, nil
}

// operate is how a provider is asked for what r's transaction is to do.
func (r *run) operate() delivery {
	var kept keptAction
	_ = json.Unmarshal([]byte(r.tx.Request), &kept) // a description that cannot be read is none
	o := providers.Operation{
		Order: r.order(), Kind: kinds[r.tx.Type], Target: r.tx.TargetID.UUID.String(),
		Amount: r.tx.Amount, Currency: r.tx.Currency, Description: kept.Description,
	}
	return func(ctx context.Context, p providers.Provider, may providers.MaySend) providers.Result {
		return p.Operate(ctx, o, may)
	}
}

var kinds = map[Type]providers.OperationKind{Capture: providers.Capture, Cancel: providers.Cancel, Refund: providers.Refund}

// allowed are the payments' statuses in which each action may begin. The database asks
// again when it does.
var allowed = map[Type][]PaymentStatus{
	Capture: {PaymentAuthorized, PaymentPartiallyCaptured},
	Cancel:  {PaymentAuthorized},
	Refund: {
		PaymentApproved, PaymentCaptured, PaymentPartiallyCaptured, PaymentPartiallyRefunded, PaymentRefundPending,
		PaymentPartiallyChargebacked,
	},
}

// prepare reads what the action is about, settles what it leaves open, and says why it
// is not possible, if it is not.
func (s *Service) prepare(ctx context.Context, cmd Command) (p Payment, target Transaction, a Action, refused *apierr.Error, err error) {
	a = *cmd.Action
	p, err = s.store.payment(ctx, cmd.AccountID, a.PaymentID)
	if e, isRefusal := apierr.From(err); isRefusal {
		return p, target, a, e, nil
	}
	if err != nil {
		return p, target, a, nil, err
	}
	if p.Mode != cmd.Mode {
		return p, target, a, apierr.New(apierr.PaymentNotFound, "there is no payment with this id"), nil
	}
	if a.TargetID != uuid.Nil {
		target, refused, err = s.named(ctx, p, a.TargetID)
	} else {
		target, refused, err = s.chosen(ctx, p, a)
	}
	if err != nil {
		return p, target, a, nil, err
	}
	if refused == nil {
		refused = a.settle(p, target)
	}
	if refused == nil && a.Type == Capture {
		var over bool
		if over, err = s.store.authorizationOver(ctx, cmd.AccountID, p.ID); over {
			refused = apierr.New(apierr.InvalidStatus, "the authorization has expired")
		}
	}
	return p, target, a, refused, err
}

// named is the transaction of p that the action names.
func (s *Service) named(ctx context.Context, p Payment, id uuid.UUID) (Transaction, *apierr.Error, error) {
	t, found, err := s.store.transaction(ctx, p.AccountID, id)
	if err == nil && (!found || t.PaymentID != p.ID) {
		return t, apierr.New(apierr.TransactionNotFound, "there is no transaction with this id in the payment"), nil
	}
	return t, nil, err
}

// chosen is the transaction of p that a cancel-or-refund is about, which names none: the
// authorization, or the one capture or purchase of which enough is left.
func (s *Service) chosen(ctx context.Context, p Payment, a Action) (Transaction, *apierr.Error, error) {
	switch {
	case p.disputed():
		return Transaction{}, inDispute(), nil
	case p.state() != PaymentAuthorized && !slices.Contains(allowed[Refund], p.state()):
		return Transaction{}, notNow(p, "cancelled or refunded"), nil
	}
	all, err := s.store.actionable(ctx, p.AccountID, p.ID)
	if err != nil {
		return Transaction{}, nil, err
	}
	var candidates []Transaction
	for _, t := range all {
		if p.state() == PaymentAuthorized && t.Type == Authorize ||
			p.state() != PaymentAuthorized && t.refundable() && t.left().IsPositive() && t.left().GreaterThanOrEqual(a.Amount) {
			candidates = append(candidates, t)
		}
	}
	switch len(candidates) {
	case 0:
		return Transaction{}, apierr.New(apierr.InvalidAmount, "nothing is left that could be refunded, or no capture of which so much is left"), nil
	case 1:
		return candidates[0], nil, nil
	}
	return Transaction{}, apierr.New(apierr.InvalidTransaction, "the payment has several captures that could be refunded: name one of them in the path"), nil
}

func (p Payment) disputed() bool {
	return p.state() == PaymentDisputed || p.state() == PaymentDisputeReviewed
}

func inDispute() *apierr.Error {
	return apierr.New(apierr.ChargebackInProcess, "the payment is in dispute and cannot be refunded")
}

// refundable says whether t moved money that can go back.
func (t Transaction) refundable() bool { return t.Type == Purchase || t.Type == Capture }

// left is what of t has not gone back and is not about to.
func (t Transaction) left() decimal.Decimal { return t.Amount.Sub(t.Refunded).Sub(t.RefundPending) }

// settle says how much the action is about, and why it is not possible, if it is not.
func (a *Action) settle(p Payment, target Transaction) *apierr.Error {
	a.TargetID = target.ID
	if a.Route == RouteCancelOrRefund {
		a.Type = Refund
		if target.Type == Authorize {
			a.Type = Cancel
		}
	}
	verb := map[Type]string{Capture: "captured", Cancel: "cancelled", Refund: "refunded"}[a.Type]
	switch {
	case a.Type == Refund && target.Type == Authorize:
		return apierr.New(apierr.InvalidTransactionType, "an authorization cannot be refunded: name the capture, or cancel it")
	case a.Type == Refund != target.refundable() || a.Type != Refund && target.Type != Authorize:
		return apierr.New(apierr.InvalidTransactionType, "a "+string(target.Type)+" cannot be "+verb)
	case a.Type == Refund && p.disputed():
		return inDispute()
	case target.Status != Succeeded:
		return apierr.New(apierr.InvalidStatus, "the transaction is "+string(target.Status)+" and cannot be "+verb)
	case !slices.Contains(allowed[a.Type], p.state()):
		return notNow(p, verb)
	case a.Currency != "" && a.Currency != p.Currency:
		return apierr.New(apierr.CurrencyNotAllowed, "$.amount.currency must be the payment's currency")
	}
	var limit decimal.Decimal
	switch {
	case a.Type == Refund:
		limit = decimal.Min(target.left(), p.Settled.Sub(p.Refunded).Sub(p.RefundPending).Sub(p.ChargedBack))
	case p.CancelPending.IsPositive(), a.Type == Cancel && p.SettlePending.IsPositive():
		return apierr.New(apierr.InvalidStatus, "a capture or cancellation of the payment is in process")
	case a.Type == Capture:
		limit = p.Capturable()
	default:
		limit = p.Authorized
	}
	if a.Amount.IsZero() {
		a.Amount = limit
	}
	switch {
	case !limit.IsPositive():
		return apierr.New(apierr.InvalidAmount, "nothing is left that could be "+verb)
	case a.Amount.GreaterThan(limit):
		return apierr.New(apierr.InvalidAmount, "$.amount.value must not exceed what can still be "+verb)
	case a.Type == Cancel && !a.Amount.Equal(limit):
		return apierr.New(apierr.InvalidAmount, "$.amount.value must be the whole authorization: a part of it cannot be cancelled")
	}
	return nil
}

// notNow is the refusal of what the payment's status does not allow.
func notNow(p Payment, verb string) *apierr.Error {
	return apierr.New(apierr.InvalidStatus, "a payment that is "+p.state().String()+" cannot be "+verb)
}

// differs names the kept fields in which a is not the first request.
func (a *Action) differs(first string) []string {
	mine, err := a.kept()
	if err != nil {
		return nil
	}
	return differing(first, mine, keptActionNames, func(string, string) bool { return false })
}

// oneOf lists words for a message.
func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
