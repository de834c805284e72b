package checkout

import (
	"context"
	"time"
)

const (
	sqlPurgeTokens = `/* checkout.purge_tokens */
DELETE FROM one_time_tokens k USING (
    SELECT k.account_id, k.id FROM one_time_tokens k
    WHERE k.created_at <= clock_timestamp() - $1::bigint * interval '1 microsecond'
      AND NOT EXISTS (SELECT 1 FROM transactions t
                      WHERE t.account_id = k.account_id AND t.payment_id = k.payment_id AND t.target_id IS NULL AND t.lease_until IS NOT NULL)
    ORDER BY k.created_at LIMIT $2::integer
) old
WHERE k.account_id = old.account_id AND k.id = old.id`

	// sqlPurgeSessions leaves those that have, or had, a payment: its sources name them. A
	// session this old has expired long ago, so that no payment can begin meanwhile.
	sqlPurgeSessions = `/* checkout.purge_sessions */
DELETE FROM checkout_sessions s USING (
    SELECT s.account_id, s.id FROM checkout_sessions s
    WHERE s.created_at <= clock_timestamp() - $1::bigint * interval '1 microsecond'
      AND NOT EXISTS (SELECT 1 FROM payment_sources o WHERE o.account_id = s.account_id AND o.checkout_session_id = s.id)
    ORDER BY s.created_at LIMIT $2::integer
) old
WHERE s.account_id = old.account_id AND s.id = old.id`

	sqlPurgeCustomerSessions = `/* checkout.purge_customer_sessions */
DELETE FROM customer_sessions WHERE (account_id, id) IN (
    SELECT account_id, id FROM customer_sessions
    WHERE created_at <= clock_timestamp() - $1::bigint * interval '1 microsecond' ORDER BY created_at LIMIT $2::integer)`
)

// purge runs one of the statements above, and says how many rows went.
func (s store) purge(ctx context.Context, query string, age time.Duration) (int, error) {
	r := s.db.Conn(ctx).Exec(query, age.Microseconds(), purgeBatch)
	return int(r.RowsAffected), r.Error
}
