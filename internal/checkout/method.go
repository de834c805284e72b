package checkout

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/transactions"
)

// Method is a card that a customer keeps with a merchant. Its id is the vaulted token.
type Method struct {
	AccountID     uuid.UUID
	ID            uuid.UUID
	Mode          string
	CustomerID    uuid.UUID
	Status        string // of the enrolment, the contract's
	Country       string // "" where nobody said
	Provider      string
	ProviderToken string
	Card          string // transactions.KeptCard, as JSON text
	LastUsedAt    *time.Time
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// The statuses of an enrolment:
//
//	added by whoever has the card ────────────────► ENROLLED ──► UNENROLLED
//	paid with ──► ENROLL_IN_PROCESS ──succeeded──► ENROLLED
//	                     └───────────else────────► DECLINED
//
// A card whose payment is still to decide can be let go of, too: then it stays UNENROLLED,
// however the payment ends.
const (
	enrolled   = "ENROLLED" // it can be paid with
	enrolling  = "ENROLL_IN_PROCESS"
	unenrolled = "UNENROLLED"
	// readyToEnroll is what a browser is told of the cards that may be added.
	readyToEnroll = "READY_TO_ENROLL"
)

// maxKeptMethods is how many cards one customer may keep: several times what a wallet
// holds, and too few to try stolen ones out in a single customer's name.
const maxKeptMethods = 50

// CustomerSession lets a browser add cards for one customer.
type CustomerSession struct {
	AccountID   uuid.UUID
	ID          uuid.UUID
	Mode        string
	CustomerID  uuid.UUID
	Country     string
	CallbackURL string
	CreatedAt   time.Time
	ExpiresAt   time.Time
	Expired     bool // by the database's clock, when it was read
}

// errNoCustomerSession is what whoever asks for a customer's session hears that there is
// not, that is another merchant's, or whose time is over.
func errNoCustomerSession() *apierr.Error {
	return apierr.New(apierr.CheckoutSessionNotFound, "there is no customer session with this id that a card can still be added in")
}

// errNoMethod is what whoever asks for a kept card hears that there is not, or that is
// another merchant's or another customer's.
func errNoMethod() *apierr.Error {
	return apierr.New(apierr.PaymentMethodNotFound, "there is no payment method with this id")
}

// errNoTokenLeft is what whoever wants to keep a card by a one-time token hears that there
// is not.
func errNoTokenLeft() *apierr.Error {
	return apierr.New(apierr.InvalidToken, "$.token must be a one-time token of this account that has not expired")
}

// readCustomerSession reads the body of a new customer's session.
func readCustomerSession(body jsontree.Value, account uuid.UUID) (cs CustomerSession, checkoutID string, err error) {
	if body.Kind() != jsontree.Object {
		return cs, "", apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	var v fields.Checker
	v.Account(body.Get("account_id"), account)
	if at := body.Get("customer_id"); v.Required(at) {
		cs.CustomerID = v.ID(at)
	}
	cs.Country, cs.CallbackURL = v.Country(body.Get("country")), v.URL(body.Get("callback_url"))
	return cs, v.Text(body.Get("checkout_id"), 0, fields.MaxText), v.Err()
}

// enrolment is a card that is to be kept for a customer.
type enrolment struct {
	handedIn           // by whoever has it,
	token    uuid.UUID // or a one-time token that stands for it; uuid.Nil: handed in
	country  string
}

// readEnrolment reads what a merchant's backend wants kept: a card, as in POST /v1/tokens,
// or a one-time token.
func readEnrolment(body jsontree.Value, rules transactions.CardRules, account uuid.UUID) (e enrolment, err error) {
	other := func(v *fields.Checker) {
		v.Account(body.Get("account_id"), account)
		if at := body.Get("country"); at.Given() {
			e.country = v.Country(at)
		}
		if typ := body.Get("type"); typ.Given() {
			if s, _ := typ.Text(); s != categoryCard {
				v.Fail(apierr.UnavailablePaymentMethod, typ, "must be CARD: no other payment method is available")
			}
		}
		v.Unavailable(body.Get("verify"), jsontree.Object)
	}
	token := body.Get("token")
	if !token.Given() {
		token = body.Get("payment_method").Get("token")
	}
	if !token.Given() {
		e.handedIn, err = readHandedIn(body, rules, other)
		return e, err
	}
	var v fields.Checker
	other(&v)
	if s := v.RequiredText(token, 1, fields.MaxText); s != "" {
		var ours bool
		if e.token, ours = fields.ParseID(s); !ours || e.token == uuid.Nil {
			v.Fail(apierr.InvalidToken, token, "must be a one-time token of this account")
		}
	}
	return e, v.Err()
}

// fingerprints are those that the card may be known by: under the installation's secret,
// and under the other one while it is being changed.
func (s *Service) fingerprints(in handedIn, kept string) []string {
	var card transactions.KeptCard
	if json.Unmarshal([]byte(kept), &card) != nil || card.Fingerprint == "" {
		return nil
	}
	all := []string{card.Fingerprint}
	if in.card.Number != "" {
		if other := s.prints.CardByOther(in.card.Number); other != "" {
			all = append(all, other)
		}
	}
	return all
}

// tokenise asks the provider to take a card that is to be kept; it is called without a
// database transaction. A card that a one-time token stands for is with the provider
// already.
func (s *Service) tokenise(ctx context.Context, caller merchants.Caller, e enrolment) (t Token, err error) {
	if e.token != uuid.Nil {
		return Token{}, nil
	}
	return s.tokenOf(ctx, caller, e.handedIn)
}

// enrol keeps a card for a customer, who stays until the database transaction ends: t is
// what the provider made of it, unless a one-time token is used up for that.
//
// A card that the customer keeps already, at the same provider, is not kept twice: it goes
// by the token that it had, with the expiry date that it has now. (A token can be charged
// only where it was made, so after a change of provider it is another.)
func (s *Service) enrol(tx postgres.Tx, caller merchants.Caller, customer uuid.UUID, e enrolment, t Token) (m Method, err error) {
	if _, known, err := s.store.lockCustomer(tx, caller.AccountID, caller.Mode, customer); err != nil || !known {
		if err == nil {
			err = errNoCustomer()
		}
		return Method{}, err
	}
	if e.token != uuid.Nil {
		if t, err = s.useUp(tx, caller, customer, e.token); err != nil {
			return Method{}, err
		}
	}
	m = Method{
		AccountID: caller.AccountID, ID: uuid.Must(uuid.NewV7()), Mode: caller.Mode, CustomerID: customer, Status: enrolled, Country: e.country,
		Provider: t.Provider, ProviderToken: t.ProviderToken, Card: t.Card,
	}
	same, found, err := s.store.renewMethod(tx, m, s.fingerprints(e.handedIn, t.Card))
	if found || err != nil {
		return same, err
	}
	m, room, err := s.store.insertMethod(tx, m)
	if err == nil && !room {
		err = apierr.New(apierr.InvalidStatus, fmt.Sprintf("the customer keeps %d cards already; unenroll one first", maxKeptMethods))
	}
	return m, err
}

// useUp takes a one-time token, which nobody pays with any more.
func (s *Service) useUp(tx postgres.Tx, caller merchants.Caller, customer, id uuid.UUID) (Token, error) {
	t, found, err := s.store.lockToken(tx, caller.AccountID, caller.Mode, id)
	switch {
	case err != nil:
		return Token{}, err
	case found && t.Used:
		return Token{}, apierr.New(apierr.TokenInUse, "$.token has been used; make a new one")
	case !found || t.Expired:
		return Token{}, errNoTokenLeft()
	case t.CustomerID.Valid && t.CustomerID.UUID != customer:
		return Token{}, apierr.New(apierr.InvalidCustomerForToken, "$.token is another customer's")
	}
	return t.Token, s.store.useUpToken(tx, caller.AccountID, id)
}

// unenrol lets go of a card: nobody can pay with it any more. customer is whose it must be;
// uuid.Nil: anybody's.
func (s *Service) unenrol(tx postgres.Tx, account uuid.UUID, mode string, customer, id uuid.UUID) (Method, error) {
	m, known, err := s.store.lockMethod(tx, account, mode, id)
	switch {
	case err != nil:
		return Method{}, err
	case !known || customer != uuid.Nil && m.CustomerID != customer:
		return Method{}, errNoMethod()
	case m.Status == unenrolled:
		return m, nil
	case m.Status != enrolled && m.Status != enrolling:
		return Method{}, apierr.New(apierr.InvalidStatus, "the payment method is "+m.Status+": it was never kept")
	}
	return s.store.unenrolMethod(tx, account, id)
}
