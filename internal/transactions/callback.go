package transactions

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// Heard is what became of a provider's callback.
type Heard string

// The closed set of what may become of one. All of them tell the provider that it need
// not say it again.
const (
	HeardApplied     Heard = "applied"     // it ended the transaction, or moved the dispute on
	HeardKept        Heard = "kept"        // somebody is at work on the transaction, and will read it
	HeardDuplicate   Heard = "duplicate"   // the same message was here before
	HeardKnown       Heard = "known"       // another message, and nothing new in it
	HeardContradicts Heard = "contradicts" // it cannot be, by what is known here: a person must look
)

// Callback hears what a provider says by itself. It is believed because it is signed,
// not because of where it came from, and however late, early or often it comes.
//
// What it says about a transaction is written down first, with the message's id, in one
// database transaction; and whoever holds the transaction, or takes it over next, acts
// on it. So nothing is lost with this process, and nothing happens twice.
func (s *Service) Callback(ctx context.Context, provider string, header http.Header, body []byte) (Heard, uuid.UUID, error) {
	p, _ := s.providers.Named(provider)
	notifier, ok := p.(providers.Notifier)
	if !ok {
		return "", uuid.Nil, apierr.New(apierr.NotFound, "there is no provider of this name that calls back")
	}
	message, err := notifier.ReadCallback(header, body)
	switch {
	case errors.Is(err, providers.ErrForged):
		return "", uuid.Nil, apierr.New(apierr.InvalidCredentials, "the callback's signature does not fit")
	case err != nil || message.ID == "" || len(message.ID) > maxProviderText:
		return "", uuid.Nil, apierr.New(apierr.InvalidRequest, "the callback cannot be understood")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.lease)
	defer cancel()
	tx, err := s.calledBackAbout(ctx, p, message.Order)
	if err != nil {
		return "", uuid.Nil, err
	}
	if message.Dispute != nil {
		heard, err := s.dispute(ctx, tx, message)
		return heard, tx.ID, err
	}
	heard, err := s.hear(ctx, p, tx, message)
	return heard, tx.ID, err
}

// calledBackAbout is the transaction that a message names, in full.
func (s *Service) calledBackAbout(ctx context.Context, p providers.Provider, o providers.Order) (Transaction, error) {
	unknown := apierr.New(apierr.NotFound, "there is no transaction with this reference")
	account, known := fields.ParseID(o.AccountID)
	id, isID := fields.ParseID(o.Reference)
	if !known || !isID {
		return Transaction{}, unknown
	}
	tx, found, err := s.store.transaction(ctx, account, id)
	if err == nil && (!found || tx.Mode != o.Mode || tx.Provider != p.Name() || tx.Type == Chargeback) {
		err = unknown
	}
	return tx, err
}

// hear keeps what the provider says became of tx, and acts on it if nobody else is
// about to.
func (s *Service) hear(ctx context.Context, p providers.Provider, tx Transaction, message providers.Callback) (Heard, error) {
	result := storable(message.Result)
	var (
		heard Heard
		now   Transaction
	)
	err := s.save(ctx, func() (err error) {
		heard, now, err = s.store.hear(ctx, tx, message.ID, result)
		return err
	})
	faultpoint.Reach(faultpoint.CallbackKept, tx.Nonce)
	if err != nil {
		return "", unavailable(err)
	}
	if heard == HeardContradicts {
		s.log.WarnContext(ctx, "a callback contradicts what is known", "transaction_id", tx.ID, "status", string(now.Status), "outcome", string(result.Outcome))
		if err := s.store.watchSoon(ctx, tx.AccountID, tx.ID); err != nil { // reconciliation finds it by itself, later
			s.log.WarnContext(ctx, "a contradiction is looked at later", "transaction_id", tx.ID, "error", postgres.Describe(err))
		}
	}
	if heard != HeardKept {
		return heard, nil
	}
	// From here on recovery would do the same, a little later.
	r, err := s.takeOver(ctx, now, p, byCallback)
	if r == nil || err != nil {
		return HeardKept, nil //nolint:nilerr // it is kept, and will be read
	}
	settled, proven, err := s.settle(ctx, r)
	if err != nil {
		s.log.WarnContext(ctx, "a callback is acted on later", "transaction_id", tx.ID, "error", postgres.Describe(err))
	}
	if _, err = s.conclude(ctx, r, settled, proven); err != nil || !settled.Definite() {
		return HeardKept, nil //nolint:nilerr // the same
	}
	return HeardApplied, nil
}

// judge says what a message's word means for a transaction as it is now.
func judge(tx Transaction, r providers.Result) Heard {
	next := tx.Type.status(r)
	switch {
	case r.Outcome != providers.Approved && r.Outcome != providers.Declined:
		return HeardKnown // accepted: we knew, or will
	case r.Outcome == providers.Approved && r.Currency != "" && (r.Currency != tx.Currency || !r.Amount.Equal(tx.Amount)):
		return HeardContradicts
	case !tx.Status.Terminal():
		return HeardKept
	case tx.Status == next, r.Outcome == providers.Declined && tx.Status != Succeeded, tx.Status == Expired && tx.AuthorizationCode != "":
		return HeardKnown // the last had succeeded before it expired
	}
	return HeardContradicts
}
