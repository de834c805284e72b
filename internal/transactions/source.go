package transactions

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/providers"
)

// What a payment is made with that was there before it: the checkout session that it
// belongs to, and a token in place of a card. Session and token are taken by the statement
// that claims the nonce, and given back by the one that finishes; see sqlBegin, sqlFinish.
//
//	session  free ──begin──► has its payment ──declined, rejected, error──► free
//	token    free ──begin──► used up ──the nonce is released──► free

// Rules about references to what there is not. Who asks for somebody else's hears the same.
const (
	notASession = "must be a checkout session of this account that has neither expired nor been paid"
	notAToken   = "must be a token of this account"
)

// Places of a payment's request that its source is wrong about.
const (
	atSession = "$.checkout.session "
	atToken   = "$.payment_method.token "
	atVaulted = "$.payment_method.vaulted_token "
	atPayer   = "$.customer_payer.id "
)

// source is what was found of a request's session and token, as it was then.
type source struct {
	Session            sourceSession
	Token              sourceToken
	Method             sourceToken
	Customer           uuid.UUID // whose card it is, or will be; uuid.Nil: nobody's
	MerchantCustomerID string    // the merchant's own id of that customer
	Note               string    // for whoever looks the payment up
	NewCard            uuid.UUID // the kept card that the payment decides about; uuid.Nil: none
	// NewCardToken is the provider's token of that card. (Like all fields here it has a
	// capital, because of others fmt prints what is in them, whatever their types say.)
	NewCardToken providers.Token
}

// sourceSession is a checkout session; the zero one is none.
type sourceSession struct {
	ID              uuid.UUID
	Workflow        string
	MerchantOrderID string
	Description     string
	Country         string
	Currency        string
	Amount          decimal.Decimal
	CallbackURL     string
	CustomerID      uuid.UUID
	Metadata        string
	LinkID          uuid.UUID // the payment link that led to it; uuid.Nil: none
	LinkCode        string
	Version         int64
	Expired         bool
	Taken           bool // it has a payment,
	UnderWay        bool // and somebody is at work on that
}

// sourceToken is a one-time token, or a kept card; the zero one is none.
type sourceToken struct {
	ID             uuid.UUID
	SessionID      uuid.UUID
	CustomerID     uuid.UUID
	VaultOnSuccess bool
	Provider       string
	ProviderToken  providers.Token `gorm:"embedded;embeddedPrefix:provider_token_"`
	Card           string
	Unusable       bool // expired, or not kept any more
	Taken          bool
}

// checkout reports whether a payment takes anything that was there before it.
func (r Request) checkout() bool {
	return r.Session != uuid.Nil || r.tokenised() || r.VaultOnSuccess
}

// instrument is the token that the payment is made with; the zero one if it is a card.
func (r Request) instrument() sourceToken {
	if r.Vaulted != uuid.Nil {
		return r.Source.Method
	}
	return r.Source.Token
}

// chargeable reports whether the card, or what stands for it, is at hand. A token may have
// been purged since its payment began, and a kept card let go of.
func (r Request) chargeable() bool {
	return !r.tokenised() || r.instrument().ProviderToken != providers.Token{}
}

// fingerprint is that of the card's number.
func (r Request) fingerprint() string {
	if !r.tokenised() {
		return r.Handed.Fingerprint
	}
	var card KeptCard
	_ = json.Unmarshal([]byte(r.instrument().Card), &card) // of what was not found there is none
	return card.Fingerprint
}

// keptCard is the card as stored.
func (r Request) keptCard() (string, error) {
	if r.tokenised() {
		return r.instrument().Card, nil
	}
	return r.Handed.Kept()
}

// find looks up what the request refers to, completes the request with it, and says why
// no payment can begin with it. Even then the request is as complete as can be: if its
// nonce is taken, what began is told or resumed.
func (s *Service) find(ctx context.Context, cmd *Command) (refusal *apierr.Error, err error) {
	r := &cmd.Request
	if r.Source, err = s.store.source(ctx, cmd.AccountID, cmd.Mode, *r); err != nil {
		return nil, err
	}
	src := &r.Source
	if r.Workflow == WorkflowSeamless {
		// What the browser says of any of this has no effect.
		r.MerchantOrderID, r.Description, r.Country = src.Session.MerchantOrderID, src.Session.Description, src.Session.Country
		r.Currency, r.Amount, r.CallbackURL = src.Session.Currency, src.Session.Amount, src.Session.CallbackURL
		if src.Session.Metadata != "" {
			r.Metadata = json.RawMessage(src.Session.Metadata)
		}
	}
	r.VaultOnSuccess = r.VaultOnSuccess || src.Token.VaultOnSuccess
	if refusal = refusalOf(r); refusal != nil {
		return refusal, nil
	}
	if sn := src.Session; sn.ID != uuid.Nil && (!sn.Amount.Equal(r.Amount) || sn.Currency != r.Currency) {
		src.Note = fmt.Sprintf("the checkout session asked for %s %s", sn.Amount, sn.Currency)
	}
	return nil, nil
}

// refusalOf says why no payment can begin with what was found.
func refusalOf(r *Request) *apierr.Error {
	src, t := &r.Source, r.instrument()
	switch sn := src.Session; {
	case r.Session == uuid.Nil:
	case sn.ID == uuid.Nil || sn.Expired, r.Workflow == WorkflowSeamless && sn.Workflow != WorkflowSeamless:
		return apierr.New(apierr.CheckoutSessionNotFound, atSession+notASession)
	case sn.UnderWay:
		return apierr.New(apierr.RequestInProcess, "a payment of this checkout session is in process; "+retrySame).Retry(retryInProcess)
	case sn.Taken:
		return apierr.New(apierr.CheckoutSessionNotFound, "$.checkout.session has its payment; GET /v1/checkout/sessions/{checkout_session}/payment tells which")
	}
	at := atToken
	if r.Vaulted != uuid.Nil {
		at = atVaulted
	}
	switch {
	case !r.tokenised():
	case t.ID == uuid.Nil, t.Unusable && !t.Taken, t.SessionID != uuid.Nil && t.SessionID != r.Session:
		return apierr.New(apierr.InvalidToken, at+notAToken+" and, if it was made in a checkout session, be used there")
	case t.Taken:
		return apierr.New(apierr.TokenInUse, at+"has been used; make a new one")
	}
	return customerRefusal(r, t)
}

// customerRefusal says whether whoever pays is somebody else than whose card it is, and
// settles whose it is.
func customerRefusal(r *Request, t sourceToken) *apierr.Error {
	src := &r.Source
	owner := uuid.Nil
	for _, id := range []uuid.UUID{r.Customer, src.Session.CustomerID, t.CustomerID} {
		switch {
		case id == uuid.Nil || id == owner:
		case owner == uuid.Nil:
			owner = id
		case t.CustomerID != uuid.Nil:
			return apierr.New(apierr.InvalidCustomerForToken, atPayer+"must be the customer whose token it is")
		}
	}
	if !r.VaultOnSuccess {
		return nil
	}
	if owner == uuid.Nil {
		return apierr.New(apierr.MissingParameters, atPayer+"is required where payment_method.vault_on_success is true")
	}
	if src.Customer != owner {
		return apierr.New(apierr.CustomerNotFound, atPayer+"must be a customer of this account")
	}
	src.NewCard, src.NewCardToken = uuid.Must(uuid.NewV7()), t.ProviderToken
	return nil
}

// providerFor is where the payment goes: a token can be charged only where it was made.
func (s *Service) providerFor(cmd Command) (providers.Provider, *apierr.Error) {
	if t := cmd.Request.instrument(); t.ID != uuid.Nil {
		p, there := s.providers.Named(t.Provider)
		if !there {
			return nil, apierr.New(apierr.UnavailablePaymentMethod, "the provider of this token is not configured")
		}
		return p, nil
	}
	return s.providerOf(cmd.Mode)
}

// providerOf is where cards go in a mode.
func (s *Service) providerOf(mode string) (providers.Provider, *apierr.Error) {
	p, there := s.providers.For(mode)
	if !there {
		return nil, apierr.New(apierr.UnavailablePaymentMethod, "no provider is configured for "+mode+" mode")
	}
	return p, nil
}

// Tokenise turns a card into its provider's token, and says whose it is. It fails with 502
// if the provider would not.
func (s *Service) Tokenise(ctx context.Context, mode string, c HandedCard) (provider string, t providers.Token, err error) {
	p, refusal := s.providerOf(mode)
	if refusal != nil {
		return "", t, refusal
	}
	ctx, cancel := context.WithTimeout(ctx, p.Traits().Timeout)
	defer cancel()
	if t, err = p.Tokenise(ctx, c.Card); err != nil {
		return "", t, fmt.Errorf("%w (%w)", apierr.New(apierr.ProviderError, "the provider did not take the card; try again").Retry(retryInProcess), err)
	}
	return p.Name(), t, nil
}

// textOf is an id as text; "" for none.
func textOf(id uuid.UUID) string {
	if id == uuid.Nil {
		return ""
	}
	return id.String()
}
