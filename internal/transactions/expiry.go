package transactions

import (
	"context"
	"errors"

	"github.com/google/uuid"
)

// expiryBatch bounds one round of the expiry loop. The next one follows at once if it
// was full.
const expiryBatch = 64

// Expire is one round of the expiry loop: it ends the authorizations that nobody has
// captured or cancelled in time, by the database's clock. It returns how many were due.
// The provider is not asked: its own hold on the money ends by itself, and no capture
// begins here any more.
func (s *Service) Expire(ctx context.Context) (int, error) {
	due, err := s.store.expiredAuthorizations(ctx, expiryBatch)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, a := range due {
		if ctx.Err() != nil {
			break
		}
		if err := s.store.expire(ctx, a); err != nil {
			errs = append(errs, err)
		}
	}
	return len(due), errors.Join(errs...)
}

// authorization is one that may be captured until a moment that has passed.
type authorization struct{ AccountID, PaymentID, TransactionID uuid.UUID }
