package checkout

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/transactions"
)

// workflowCheckout is that of a session whose payment the merchant's backend makes, with
// the token that the browser got.
const workflowCheckout = "SDK_CHECKOUT"

// Session is one checkout: what is to be paid, and whether it is.
type Session struct {
	AccountID          uuid.UUID
	ID                 uuid.UUID
	Mode               string
	Workflow           string
	MerchantOrderID    string
	PaymentDescription string
	Country            string
	Currency           string
	Amount             decimal.Decimal // major units
	CallbackURL        string
	CustomerID         uuid.NullUUID
	LinkID             uuid.NullUUID
	Metadata           string // a JSON array; "" for none
	Details            string // a JSON object: sessionDetails
	PaymentID          uuid.NullUUID
	CreatedAt          time.Time
	UpdatedAt          time.Time
	ExpiresAt          time.Time
	Expired            bool // by the database's clock, when it was read
}

// sessionDetails are what is kept of a session and given back, and moves nothing.
type sessionDetails struct {
	AlternativeAmount json.RawMessage `json:"alternative_amount,omitempty"`
	RecurringPayment  json.RawMessage `json:"recurring_payment,omitempty"`
	CheckoutID        string          `json:"checkout_id,omitempty"`
}

// errNoSession is what whoever asks for a session hears that there is not, that is another
// merchant's, or whose time is over.
func errNoSession() *apierr.Error {
	return apierr.New(apierr.CheckoutSessionNotFound, "there is no checkout session with this id that can still be paid")
}

// readSession reads the body of a new session.
func readSession(body jsontree.Value, account uuid.UUID) (Session, error) {
	if body.Kind() != jsontree.Object {
		return Session{}, apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	var v fields.Checker
	v.Account(body.Get("account_id"), account)
	s := Session{
		AccountID:          account,
		MerchantOrderID:    v.RequiredText(body.Get("merchant_order_id"), fields.MinText, fields.MaxText),
		PaymentDescription: v.RequiredText(body.Get("payment_description"), fields.MinText, fields.MaxText),
		Country:            v.Country(body.Get("country")),
		CallbackURL:        v.URL(body.Get("callback_url")),
		Metadata:           string(v.Metadata(body.Get("metadata"))),
		Workflow:           workflow(&v, body.Get("workflow")),
	}
	s.Amount, s.Currency = v.Money(body.Get("amount"), money.Check)
	s.CustomerID = orNone(v.ID(body.Get("customer_id")))
	details := sessionDetails{
		AlternativeAmount: v.Descriptive(body.Get("alternative_amount")),
		RecurringPayment:  v.Descriptive(body.Get("recurring_payment")),
		CheckoutID:        v.Text(body.Get("checkout_id"), 0, fields.MaxText),
	}
	if err := v.Err(); err != nil {
		return Session{}, err
	}
	kept, err := json.Marshal(details)
	s.Details = string(kept)
	return s, err
}

func workflow(v *fields.Checker, at jsontree.Value) string {
	if !at.Given() {
		return workflowCheckout
	}
	s, _ := at.Text()
	if s != workflowCheckout && s != transactions.WorkflowSeamless {
		v.Invalid(at, "must be SDK_CHECKOUT or SDK_SEAMLESS")
	}
	return s
}

// changeSession reads what is to be different about a session. What is left out stays,
// and null takes away what may be left out.
func changeSession(s Session, body jsontree.Value) (Session, error) {
	if body.Kind() != jsontree.Object {
		return s, apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	var v fields.Checker
	given := func(name string) (jsontree.Value, bool) {
		at := body.Get(name)
		return at, at.Kind() != jsontree.Absent
	}
	if at, ok := given("account_id"); ok {
		v.Account(at, s.AccountID)
	}
	if at, ok := given("merchant_order_id"); ok {
		s.MerchantOrderID = v.RequiredText(at, fields.MinText, fields.MaxText)
	}
	if at, ok := given("payment_description"); ok {
		s.PaymentDescription = v.RequiredText(at, fields.MinText, fields.MaxText)
	}
	if at, ok := given("country"); ok {
		s.Country = v.Country(at)
	}
	if at, ok := given("callback_url"); ok {
		s.CallbackURL = v.URL(at)
	}
	if at, ok := given("metadata"); ok {
		s.Metadata = string(v.Metadata(at))
	}
	if at, ok := given("customer_id"); ok {
		s.CustomerID = orNone(v.ID(at))
	}
	if at, ok := given("workflow"); ok {
		s.Workflow = workflow(&v, at)
	}
	if at, ok := given("amount"); ok {
		s.Amount, s.Currency = v.Money(at, money.Check)
	}
	return s, v.Err()
}

// create keeps a new session.
func (s *Service) createSession(tx postgres.Tx, sn Session) (Session, error) {
	if err := s.checkCustomer(tx, sn); err != nil {
		return Session{}, err
	}
	sn.ID = uuid.Must(uuid.NewV7())
	return s.store.insertSession(tx, sn)
}

// checkCustomer refuses a session for a customer that there is not.
func (s *Service) checkCustomer(tx postgres.Tx, sn Session) error {
	if !sn.CustomerID.Valid {
		return nil
	}
	known, err := s.store.customerKnown(tx, sn.AccountID, sn.Mode, sn.CustomerID.UUID)
	if err == nil && !known {
		err = apierr.New(apierr.CustomerNotFound, "$.customer_id must be a customer of this account")
	}
	return err
}

// updateSession changes a session that has neither expired nor a payment.
func (s *Service) updateSession(tx postgres.Tx, account uuid.UUID, mode string, id uuid.UUID, body jsontree.Value) (Session, error) {
	sn, known, err := s.store.lockSession(tx, account, mode, id)
	switch {
	case err != nil:
		return Session{}, err
	case !known || sn.Expired:
		return Session{}, errNoSession()
	case sn.PaymentID.Valid:
		return Session{}, apierr.New(apierr.InvalidStatus, "the checkout session has a payment, so it stays as it is")
	case sn.LinkID.Valid:
		return Session{}, apierr.New(apierr.InvalidStatus, "the checkout session is a payment link's, so it stays as it is")
	}
	if sn, err = changeSession(sn, body); err != nil {
		return Session{}, err
	}
	if err := s.checkCustomer(tx, sn); err != nil {
		return Session{}, err
	}
	return s.store.updateSession(tx, sn)
}

// session reads one that can still be asked about: until it has expired.
func (s *Service) session(ctx context.Context, account uuid.UUID, mode string, id uuid.UUID) (Session, error) {
	sn, known, err := s.store.session(ctx, account, mode, id)
	if err == nil && (!known || sn.Expired) {
		err = errNoSession()
	}
	return sn, err
}

// orNone is an id as a column: NULL where there is none.
func orNone(id uuid.UUID) uuid.NullUUID { return uuid.NullUUID{UUID: id, Valid: id != uuid.Nil} }

// FindPage finds the session of a pay page, of whichever merchant. Of a merchant without a
// key that is taken there is none.
func (s *Service) FindPage(ctx context.Context, id uuid.UUID) (PageSession, bool, error) {
	sn, found, err := s.store.sessionAnywhere(ctx, id)
	if err != nil || !found {
		return PageSession{}, false, err
	}
	caller, key, ok := s.auth.PublicKey(sn.AccountID, sn.Mode)
	return PageSession{
		ID: sn.ID, AccountID: sn.AccountID, Mode: sn.Mode, Workflow: sn.Workflow, MerchantName: caller.MerchantName, PublicKey: key,
		CallbackURL: sn.CallbackURL, Origins: caller.Origins, Expired: sn.Expired,
	}, ok, nil
}
