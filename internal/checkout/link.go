package checkout

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
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

const (
	// linkLife is how long a link is good for if nobody says: an invoice's usual month.
	linkLife = 30 * 24 * time.Hour
	// maxLinkLife is how far from now a link may end. What is older is forgotten by its
	// merchant, and still asks for money.
	maxLinkLife = 366 * 24 * time.Hour
)

// Link is an address at which somebody pays: once (OneTimeUse), or as often as they like
// while it is open. What is paid is as it was made; nothing changes it.
//
// A one-time link has one session at a time, for everybody who opens it, and a session is
// paid once: so two people with the link cannot both pay.
type Link struct {
	AccountID       uuid.UUID
	ID              uuid.UUID
	Code            string // the part of its address that cannot be guessed
	Mode            string
	MerchantOrderID string
	Country         string
	Currency        string
	Amount          decimal.Decimal // major units
	OneTimeUse      bool
	StartAt         time.Time
	FinishAt        time.Time
	SessionID       uuid.NullUUID // the one session of a one-time link; none before it is opened
	Details         string        // a JSON object: linkDetails
	CreatedAt       time.Time
	UpdatedAt       time.Time

	Canceled bool
	// What follows is as it was when the link was read, by the database's clock.
	Early, Over bool // before StartAt, after FinishAt
	// SessionOpen says that a payment can begin in the session; SessionTaken that it has
	// one, SessionPaid that this one has succeeded, SessionPaying that it is under way.
	SessionOpen, SessionTaken, SessionPaid, SessionPaying bool
	// Payments is how many have succeeded, where it was asked for.
	Payments int64
}

// linkDetails are what is kept of a link beside its columns. The first two go into its
// sessions, with the metadata; the others are given back, and move nothing.
type linkDetails struct {
	Description    string          `json:"description"`
	CallbackURL    string          `json:"callback_url,omitempty"`
	Metadata       json.RawMessage `json:"metadata,omitempty"`
	CustomerPayer  json.RawMessage `json:"customer_payer,omitempty"`
	AdditionalData json.RawMessage `json:"additional_data,omitempty"`
}

// The statuses of a link, of the contract.
const (
	linkCreated  = "CREATED"
	linkUsed     = "USED"
	linkCanceled = "CANCELED"
	linkExpired  = "EXPIRED"
)

// status is what becomes of a link. One whose payment is under way is neither paid nor
// over: that decides. One whose payment has come to nothing, and may not be tried again,
// is over before its time.
func (l Link) status() string {
	switch {
	case l.Canceled:
		return linkCanceled
	case l.OneTimeUse && l.SessionPaid:
		return linkUsed
	case l.OneTimeUse && l.SessionPaying:
		return linkCreated
	case l.Over, l.OneTimeUse && l.SessionTaken:
		return linkExpired
	}
	return linkCreated
}

// good reports whether a payment may begin by the link now.
func (l Link) good() bool { return l.status() == linkCreated && !l.Early }

// session is where whoever opens the link goes without a new session. While a payment is
// under way they are told of it, also when the link's time is over.
func (l Link) session() (uuid.UUID, bool) {
	return l.SessionID.UUID, l.OneTimeUse && l.status() == linkCreated && (l.SessionOpen || l.SessionTaken)
}

// newLink is what a request says of a new link. A moment that it does not say is nil.
type newLink struct {
	Link
	start, finish *time.Time
}

// errNoLink is what whoever asks for a link hears that there is not, or that is another
// merchant's.
func errNoLink() *apierr.Error {
	return apierr.New(apierr.NotFound, "there is no payment link with this code or id").WithStatus(http.StatusBadRequest)
}

// errAvailability is the rule for when a link is good.
func errAvailability() *apierr.Error {
	return apierr.New(apierr.InvalidParameters, "$.availability.finish_at must be in the future, after start_at, and at most 366 days from now")
}

// readLink reads the body of a new link.
func readLink(body jsontree.Value, account uuid.UUID) (n newLink, err error) {
	if body.Kind() != jsontree.Object {
		return n, apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	var v fields.Checker
	v.Account(body.Get("account_id"), account)
	n.AccountID, n.MerchantOrderID = account, v.RequiredText(body.Get("merchant_order_id"), fields.MinText, fields.MaxText)
	n.Country = v.Country(body.Get("country"))
	n.Amount, n.Currency = v.Money(body.Get("amount"), money.Check)
	n.OneTimeUse = v.Boolean(body.Get("one_time_use"), true)
	availability := v.Object(body.Get("availability"))
	n.start, n.finish = moment(&v, availability.Get("start_at")), moment(&v, availability.Get("finish_at"))
	details := linkDetails{
		Description:    v.RequiredText(body.Get("description"), fields.MinText, fields.MaxText),
		CallbackURL:    v.URL(body.Get("callback_url")),
		Metadata:       v.Metadata(body.Get("metadata")),
		CustomerPayer:  v.Descriptive(body.Get("customer_payer")),
		AdditionalData: v.Descriptive(body.Get("additional_data")),
	}
	linkTypes(&v, body.Get("payment_method_types"))
	if at := body.Get("capture"); !v.Boolean(at, true) {
		v.Invalid(at, "must be true: what is paid by a link is captured at once")
	}
	if at := body.Get("split_payment_methods"); v.Boolean(at, false) {
		v.Invalid(at, "must be false: several payment methods for one payment are not available yet")
	}
	v.Unavailable(body.Get("installments_plan"), jsontree.Object)
	if err := v.Err(); err != nil {
		return n, err
	}
	kept, err := json.Marshal(details)
	n.Details = string(kept)
	return n, err
}

// linkTypes checks the optional list of what may be paid with.
func linkTypes(v *fields.Checker, at jsontree.Value) {
	if !at.Given() {
		return
	}
	if at.Kind() != jsontree.Array || at.Len() == 0 {
		v.Invalid(at, "must be a list of at least one payment method type")
		return
	}
	for typ := range at.Elements() {
		if s, _ := typ.Text(); s != categoryCard {
			v.Fail(apierr.UnavailablePaymentMethod, typ, "must be CARD: no other payment method is available")
			return
		}
	}
}

// createLink keeps a new link.
func (s *Service) createLink(tx postgres.Tx, n newLink) (Link, error) {
	n.ID, n.Code = uuid.Must(uuid.NewV7()), rand.Text()
	l, ok, err := s.store.insertLink(tx, n)
	if err == nil && !ok {
		err = errAvailability()
	}
	return l, err
}

// cancelLink closes a link for good: no payment begins by it any more. A payment by a
// one-time link that is under way, or has succeeded, is not overtaken. One by a link that
// is good for many goes on, and is counted: otherwise any of those who have the link could
// keep it open.
func (s *Service) cancelLink(tx postgres.Tx, account, id uuid.UUID) (Link, error) {
	l, err := s.lockLink(tx, account, id)
	switch {
	case err != nil:
		return Link{}, err
	case l.Canceled:
		return s.store.countedLink(tx, account, id)
	case l.OneTimeUse && l.SessionPaid:
		return Link{}, apierr.New(apierr.InvalidStatus, "the payment link is USED: it has its payment, which can be refunded")
	case l.OneTimeUse && l.SessionPaying:
		return Link{}, apierr.New(apierr.InvalidStatus, "a payment by this link is under way; GET /v1/payment-links/{code} tells when it has ended")
	}
	if err := s.store.cancelLink(tx, account, id); err != nil {
		return Link{}, err
	}
	return s.store.countedLink(tx, account, id)
}

// lockLink locks a link with its session, and reads them: nobody opens or cancels it
// meanwhile, and no payment takes its session.
func (s *Service) lockLink(tx postgres.Tx, account, id uuid.UUID) (Link, error) {
	session, known, err := s.store.lockLink(tx, account, id)
	if err == nil && !known {
		err = errNoLink()
	}
	if err == nil && session.Valid {
		err = s.store.lockLinkSession(tx, account, session.UUID)
	}
	if err != nil {
		return Link{}, err
	}
	return s.store.link(tx, account, id) // what it waited for is over, and this sees it
}

// openLink is the session in which somebody who has opened a link pays, or asks what became
// of that. There is none if the link is not good for a payment; l says why.
func (s *Service) openLink(ctx context.Context, l Link) (_ Link, session uuid.UUID, open bool, err error) {
	if session, open = l.session(); open || !l.good() {
		return l, session, open, nil
	}
	err = s.store.db.ConfirmedTx(ctx, func(tx postgres.Tx) error {
		session, open = uuid.Nil, false
		if l, err = s.lockOpened(tx, l); err != nil {
			return err
		}
		if session, open = l.session(); open || !l.good() {
			return nil
		}
		var sn Session
		if sn, err = l.newSession(); err != nil {
			return err
		}
		if err = s.store.insertLinkSession(tx, sn, l.FinishAt); err == nil && l.OneTimeUse {
			err = s.store.setLinkSession(tx, l, sn.ID)
		}
		session, open = sn.ID, true
		return err
	})
	return l, session, open && err == nil, err
}

// lockOpened locks a link for somebody who opens it. Many may open one that is good for
// many at once, but not while it is canceled.
func (s *Service) lockOpened(tx postgres.Tx, l Link) (Link, error) {
	if l.OneTimeUse {
		return s.lockLink(tx, l.AccountID, l.ID)
	}
	if err := s.store.shareLink(tx, l.AccountID, l.ID); err != nil {
		return Link{}, err
	}
	return s.store.link(tx, l.AccountID, l.ID)
}

// newSession is a session in which the link is paid.
func (l Link) newSession() (Session, error) {
	var d linkDetails
	if json.Unmarshal([]byte(l.Details), &d) != nil {
		return Session{}, errStored
	}
	return Session{
		AccountID: l.AccountID, ID: uuid.Must(uuid.NewV7()), Mode: l.Mode, Workflow: transactions.WorkflowSeamless,
		MerchantOrderID: l.MerchantOrderID, PaymentDescription: d.Description, Country: l.Country, Currency: l.Currency, Amount: l.Amount,
		CallbackURL: d.CallbackURL, LinkID: orNone(l.ID), Metadata: string(d.Metadata), Details: "{}",
	}, nil
}
