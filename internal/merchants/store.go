package merchants

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlChanges reads every merchant and key that changed at or after $1, merchants
// without a key included.
const sqlChanges = `/* merchants.changes */
SELECT m.account_id, m.idempotency_policy, k.public_api_key, k.mode, k.secret_hash, k.revoked_at IS NOT NULL AS revoked,
       greatest(m.changed_at, k.changed_at) AS changed_at
FROM merchants m LEFT JOIN api_keys k ON k.account_id = m.account_id
WHERE m.changed_at >= $1::timestamptz OR k.changed_at >= $1::timestamptz`

const sqlInsertMerchant = `/* merchants.insert */
INSERT INTO merchants (account_id, name, idempotency_policy) VALUES ($1::uuid, $2::text, $3::text)`

const sqlInsertKey = `/* merchants.insert_key */
INSERT INTO api_keys (account_id, id, mode, public_api_key, secret_hash) VALUES ($1::uuid, $2::uuid, $3::text, $4::text, $5::bytea)`

// overlap is how far a refresh looks back before the newest change it has seen.
// A row's changed_at is set before its commit; none of ours stays uncommitted for
// longer than the server's limits on statement and idle transaction.
const overlap = 30 * time.Second

// marker is how far the directory has read. The zero marker is before everything.
type marker time.Time

type change struct {
	AccountID         uuid.UUID
	IdempotencyPolicy string
	PublicAPIKey      *string
	Mode              *string
	SecretHash        []byte
	Revoked           bool
	ChangedAt         time.Time
}

type changes struct {
	rows  []change
	until marker
}

type store struct{ db *postgres.DB }

func (s store) changes(ctx context.Context, since marker) (changes, error) {
	from := time.Time(since)
	if !from.IsZero() {
		from = from.Add(-overlap)
	}
	c := changes{until: since}
	if err := s.db.Conn(ctx).Raw(sqlChanges, from).Scan(&c.rows).Error; err != nil {
		return changes{}, fmt.Errorf("read the directory: %w", err)
	}
	for _, r := range c.rows {
		if r.ChangedAt.After(time.Time(c.until)) {
			c.until = marker(r.ChangedAt)
		}
	}
	return c, nil
}

func (s store) insertMerchant(tx postgres.Tx, m Merchant) error {
	if err := tx.Exec(sqlInsertMerchant, m.AccountID, m.Name, m.IdempotencyPolicy).Error; err != nil {
		return fmt.Errorf("insert the merchant: %w", err)
	}
	return nil
}

func (s store) insertKey(tx postgres.Tx, account uuid.UUID, p KeyPair) error {
	hash := hashSecret(p.PrivateSecretKey)
	err := tx.Exec(sqlInsertKey, account, uuid.Must(uuid.NewV7()), p.Mode, p.PublicAPIKey, hash[:]).Error
	if postgres.Constraint(err) == "api_keys_account_fkey" {
		return apierr.New(apierr.NotFound, "there is no merchant with this account_id")
	}
	if err != nil {
		return fmt.Errorf("insert the key: %w", err)
	}
	return nil
}
