package checkout

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/transactions"
)

// Token is a one-time token: it stands for a card in one payment. The card itself is with
// the provider.
type Token struct {
	AccountID         uuid.UUID
	ID                uuid.UUID
	Mode              string
	CheckoutSessionID uuid.NullUUID // the only one that it pays
	CustomerID        uuid.NullUUID
	VaultOnSuccess    bool
	Provider          string
	ProviderToken     string
	Card              string // transactions.KeptCard, as JSON text
	CreatedAt         time.Time
	ExpiresAt         time.Time
}

// handedIn is a card that somebody hands in, and what for.
type handedIn struct {
	card  transactions.HandedCard
	vault bool
}

// readHandedIn reads the body of a request for a token: the card stands in
// payment_method.card, or in card_data.
func readHandedIn(body jsontree.Value, rules transactions.CardRules, account func(v *fields.Checker)) (in handedIn, err error) {
	if body.Kind() != jsontree.Object {
		return in, apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	var v fields.Checker
	account(&v)
	data := body.Get("card_data")
	if method := v.Object(body.Get("payment_method")); method.Given() {
		if typ := method.Get("type"); v.Required(typ) {
			if s, _ := typ.Text(); s != categoryCard {
				v.Fail(apierr.UnavailablePaymentMethod, typ, "must be CARD: no other payment method is available")
			}
		}
		in.vault = v.Boolean(method.Get("vault_on_success"), false)
		data = method.Get("card")
	}
	if v.Required(data) {
		in.card = rules.ReadCard(&v, data)
	}
	return in, v.Err()
}

// categoryCard is the one payment method type there is so far.
const categoryCard = "CARD"

// tokenOf asks the provider to take the card. It is called without a database transaction.
func (s *Service) tokenOf(ctx context.Context, caller merchants.Caller, in handedIn) (t Token, err error) {
	t = Token{AccountID: caller.AccountID, ID: uuid.Must(uuid.NewV7()), Mode: caller.Mode, VaultOnSuccess: in.vault}
	if t.Card, err = in.card.Kept(); err != nil {
		return t, err
	}
	provider, token, err := s.payments.Tokenise(ctx, caller.Mode, in.card)
	t.Provider, t.ProviderToken = provider, token.Value
	return t, err
}

// mayHandIn says whether a session still needs a card, and settles whose it is.
func mayHandIn(sn Session, in handedIn) error {
	switch {
	case sn.Expired || sn.PaymentID.Valid:
		return errNoSession()
	case in.vault && !sn.CustomerID.Valid:
		return apierr.New(apierr.InvalidParameters, "$.payment_method.vault_on_success must be false: the checkout session has no customer")
	}
	return nil
}
