package checkout

import (
	"context"

	"github.com/google/uuid"
)

const methodColumns = `m.account_id, m.id, m.mode, m.customer_id, m.status, m.country, m.provider, m.provider_token, m.card,
    m.last_used_at, m.created_at, m.updated_at`

// sqlMethods reads a customer's cards, the newest first, going on after one of them ($4).
const sqlMethods = `/* checkout.methods */
SELECT ` + methodColumns + ` FROM payment_methods m
WHERE m.account_id = $1::uuid AND m.mode = $2::text AND m.customer_id = $3::uuid AND m.status = 'ENROLLED'
  AND ($4::uuid IS NULL OR (m.created_at, m.id) < (SELECT c.created_at, c.id FROM payment_methods c WHERE c.account_id = $1 AND c.id = $4))
ORDER BY m.created_at DESC, m.id DESC LIMIT $5::integer`

// methods are the cards of a customer that can be paid with.
func (s store) methods(ctx context.Context, account uuid.UUID, mode string, customer uuid.UUID, after uuid.NullUUID, limit int) (ms []Method, err error) {
	err = s.db.Conn(ctx).Raw(sqlMethods, account, mode, customer, after, limit).Scan(&ms).Error
	return ms, wrap("read the customer's cards", err)
}
