package checkout

import (
	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlInsertToken keeps a token for as long as a session, and for no longer than its own.
const sqlInsertToken = `/* checkout.insert_token */
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
INSERT INTO one_time_tokens (account_id, id, mode, checkout_session_id, customer_id, vault_on_success, provider, provider_token, card, created_at, expires_at)
SELECT $1::uuid, $2::uuid, $3::text, $4::uuid, $5::uuid, $6::boolean, $7::text, $8::text, $9::text, at,
       coalesce((SELECT s.expires_at FROM checkout_sessions s WHERE s.account_id = $1::uuid AND s.id = $4::uuid),
                at + $10::bigint * interval '1 microsecond')
FROM clock
RETURNING created_at, expires_at`

func (s store) insertToken(tx postgres.Tx, t Token) (Token, error) {
	err := tx.Raw(sqlInsertToken, t.AccountID, t.ID, t.Mode, t.CheckoutSessionID, t.CustomerID, t.VaultOnSuccess, t.Provider,
		t.ProviderToken, t.Card, sessionLife.Microseconds()).Row().Scan(&t.CreatedAt, &t.ExpiresAt)
	return t, wrap("keep the token", err)
}
