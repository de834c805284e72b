package transactions

import (
	"context"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/providers"
)

// stages are what a provider calls a dispute's stage, and what we call it.
var stages = map[providers.DisputeStage]struct {
	status Status
	code   string
}{
	providers.DisputeReceived: {Created, "RECEIVED"},
	providers.DisputePending:  {Pending, "PENDING_REVIEW"},
	providers.DisputeWon:      {Won, "REVIEW_WON"},
	providers.DisputeLost:     {Lost, "REVIEW_LOST"},
}

// disputeSpace makes one transaction of a provider's dispute, however often we hear of
// it: its id follows from the provider's (RFC 9562, version 5).
var disputeSpace = uuid.MustParse("0b6ac08e-6f3f-4c39-9a5f-3f1bb1f6ce63")

func disputeID(tx Transaction, id string) uuid.UUID {
	return uuid.NewSHA1(disputeSpace, []byte(tx.AccountID.String()+"/"+tx.Mode+"/"+tx.Provider+"/"+id))
}

// dispute takes a step of a dispute about target over. Messages come in any order: a
// step that leads back is known already.
func (s *Service) dispute(ctx context.Context, target Transaction, message providers.Callback) (Heard, error) {
	d := *message.Dispute
	stage, known := stages[d.Stage]
	switch {
	case !known || d.ID == "" || len(d.ID) > maxProviderText:
		return "", apierr.New(apierr.InvalidRequest, "the callback cannot be understood")
	case !target.Status.Terminal(): // it will be settled in a moment, and the provider says this again
		return "", idem.ErrInProcess().Retry(retryInProcess)
	case !target.refundable() || target.Status != Succeeded,
		d.Currency != target.Currency, !d.Amount.IsPositive(), d.Amount.GreaterThan(target.Amount):
		s.log.WarnContext(ctx, "a dispute contradicts what is known", "transaction_id", target.ID, "status", string(target.Status), "stage", string(d.Stage))
		return HeardContradicts, nil
	}
	next := Transaction{
		AccountID: target.AccountID, ID: disputeID(target, d.ID), PaymentID: target.PaymentID, TargetID: orNone(target.ID), Mode: target.Mode,
		Type: Chargeback, Status: stage.status, Currency: target.Currency, Amount: d.Amount, Provider: target.Provider,
		ProviderReference: d.ID, ResponseCode: stage.code, Card: target.Card,
	}
	var heard Heard
	err := s.save(ctx, func() (err error) {
		heard, err = s.store.dispute(ctx, next, message.ID)
		return err
	})
	if _, told := apierr.From(err); err != nil && !told {
		return "", unavailable(err)
	}
	if heard == HeardContradicts {
		s.log.WarnContext(ctx, "a dispute ended twice, and differently", "transaction_id", next.ID, "stage", string(d.Stage))
	}
	return heard, err
}
