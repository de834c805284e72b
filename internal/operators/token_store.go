package operators

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/postgres"
)

const tokenColumns = `id, name, scope, created_by, created_at, expires_at, last_used_at, revoked_at,
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= clock_timestamp() THEN 'expired' ELSE 'active' END AS status`

// sqlInsertToken makes a token. $6 is its life in microseconds.
const sqlInsertToken = `/* operators.insert_token */
INSERT INTO operator_tokens (id, name, scope, token_hash, created_by, created_at, expires_at)
SELECT $1::uuid, $2::text, $3::text, $4::bytea, $5::text, now.at, now.at + $6::bigint * interval '1 microsecond'
FROM (SELECT clock_timestamp() AS at) now
RETURNING ` + tokenColumns

const sqlActiveTokens = `/* operators.active_tokens */
SELECT count(*) FROM operator_tokens WHERE revoked_at IS NULL AND expires_at > clock_timestamp()`

// sqlByToken finds a token that is taken. stale says that its use is to be noted.
const sqlByToken = `/* operators.by_token */
SELECT id, name, scope, last_used_at IS NULL OR last_used_at <= clock_timestamp() - $2::bigint * interval '1 microsecond' AS stale
FROM operator_tokens WHERE token_hash = $1::bytea AND revoked_at IS NULL AND expires_at > clock_timestamp()`

const sqlTokenUsed = `/* operators.token_used */
UPDATE operator_tokens SET last_used_at = clock_timestamp()
WHERE id = $1::uuid AND (last_used_at IS NULL OR last_used_at <= clock_timestamp() - $2::bigint * interval '1 microsecond')`

const sqlToken = `/* operators.token */
SELECT ` + tokenColumns + ` FROM operator_tokens WHERE id = $1::uuid`

const sqlTokens = `/* operators.tokens */
SELECT ` + tokenColumns + ` FROM operator_tokens WHERE $1::uuid IS NULL OR id < $1
ORDER BY id DESC LIMIT $2::integer`

const sqlRevokeToken = `/* operators.revoke_token */
UPDATE operator_tokens SET revoked_at = clock_timestamp() WHERE id = $1::uuid AND revoked_at IS NULL`

func errNoToken() error { return apierr.New(apierr.NotFound, "there is no token with this id") }

func (s store) insertToken(tx postgres.Tx, secret string, t Token, life time.Duration) (made Token, err error) {
	insert := tx.Raw(sqlInsertToken, t.ID, t.Name, string(t.Scope), digest(secret), t.CreatedBy, life.Microseconds()).Scan(&made)
	return made, one("insert the token", insert, errNoToken)
}

// activeTokens is how many tokens are taken.
func (s store) activeTokens(tx postgres.Tx) (n int, err error) {
	if err := tx.Raw(sqlActiveTokens).Row().Scan(&n); err != nil {
		return 0, fmt.Errorf("count the tokens: %w", err)
	}
	return n, nil
}

// tokenRow is a token that is taken.
type tokenRow struct {
	ID    uuid.UUID
	Name  string
	Scope Role
	Stale bool
}

// byToken finds a token; ok is false if it is not taken.
func (s store) byToken(tx postgres.Tx, bearer string) (r tokenRow, ok bool, err error) {
	found := tx.Raw(sqlByToken, digest(bearer), seenGrain.Microseconds()).Scan(&r)
	if found.Error != nil {
		return r, false, fmt.Errorf("read the token: %w", found.Error)
	}
	return r, found.RowsAffected > 0, nil
}

func (s store) tokenUsed(tx postgres.Tx, id uuid.UUID) error {
	if err := tx.Exec(sqlTokenUsed, id, seenGrain.Microseconds()).Error; err != nil {
		return fmt.Errorf("note that a token was used: %w", err)
	}
	return nil
}

func (s store) token(tx postgres.Tx, id uuid.UUID) (t Token, err error) {
	return t, one("read the token", tx.Raw(sqlToken, id).Scan(&t), errNoToken)
}

// tokens reads a page, the newest first; after is uuid.Nil on the first.
func (s store) tokens(ctx context.Context, after uuid.UUID, limit int) ([]Token, error) {
	var ts []Token
	if err := s.db.Conn(ctx).Raw(sqlTokens, orNone(after), limit).Scan(&ts).Error; err != nil {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	return ts, nil
}

// revokeToken ends a token, and says whether it was taken until now.
func (s store) revokeToken(tx postgres.Tx, id uuid.UUID) (bool, error) {
	done := tx.Exec(sqlRevokeToken, id)
	if done.Error != nil {
		return false, fmt.Errorf("revoke the token: %w", done.Error)
	}
	return done.RowsAffected > 0, nil
}
