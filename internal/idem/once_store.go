package idem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlClaimOnce takes a nonce ($1 account, $2 mode, $3 nonce, $4 operation, $5
// fingerprint, $6 retention in microseconds) for whoever is about to work in the same
// database transaction, and affects no row if somebody has it. The claim comes first, so
// that a duplicate waits here and does no work of its own, which could only fail. Nobody
// ever sees the empty answer: a nonce without a transaction must have one, and the true
// one is in its place before the commit.
const sqlClaimOnce = `/* idem.claim_once */
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, response_status, response_body, created_at, expires_at)
SELECT $1::uuid, $2::text, $3::text, $4::text, $5::bytea, 0, '', at, at + $6::bigint * interval '1 microsecond' FROM clock
ON CONFLICT (account_id, mode, key_id) DO NOTHING`

// sqlAnswerOnce puts the answer to a claim. It is kept for as long from now.
const sqlAnswerOnce = `/* idem.answer_once */
UPDATE idempotency_keys k
SET response_status = $4::smallint, response_body = $5::bytea, expires_at = clock_timestamp() + $6::bigint * interval '1 microsecond'
WHERE k.account_id = $1::uuid AND k.mode = $2::text AND k.key_id = $3::text AND k.transaction_id IS NULL`

// lifeOver is true of a life k that has had its time: the nonce may begin another. What
// is not resolved yet is never over.
const lifeOver = `k.expires_at <= clock_timestamp() AND NOT EXISTS (
    SELECT 1 FROM transactions t WHERE t.account_id = k.account_id AND t.id = k.transaction_id AND t.lease_until IS NOT NULL)`

// sqlReadOnce reads what a nonce stands for.
const sqlReadOnce = `/* idem.read_once */
SELECT k.operation, k.fingerprint, k.transaction_id, k.response_status, k.response_body, k.created_at, ` + lifeOver + ` AS over
FROM idempotency_keys k WHERE k.account_id = $1::uuid AND k.mode = $2::text AND k.key_id = $3::text`

// sqlConfirmOnce is sqlReadOnce after a lost COMMIT. That may be visible although no
// standby has it yet; to lock the row writes to the log, so this statement's own commit
// waits for the standbys, and vouches for the lost one.
const sqlConfirmOnce = sqlReadOnce + `
FOR NO KEY UPDATE OF k`

// sqlEndOnce removes a life that is over: the one that was seen, which began at $4, so
// that one that has begun meanwhile is never touched.
const sqlEndOnce = `/* idem.end_once */
DELETE FROM idempotency_keys k
WHERE k.account_id = $1::uuid AND k.mode = $2::text AND k.key_id = $3::text AND k.created_at = $4::timestamptz AND ` + lifeOver

// onceKey is what a nonce stands for.
type onceKey struct {
	Operation      string
	Fingerprint    []byte
	TransactionID  uuid.NullUUID
	ResponseStatus *int
	ResponseBody   []byte
	CreatedAt      time.Time
	Over           bool
}

// claim takes the nonce, or returns errTaken. Behind another claim that is not committed
// it waits for as long as a lock may be waited for.
func (s store) claim(tx postgres.Tx, cmd OnceCommand) error {
	r := tx.Exec(sqlClaimOnce, cmd.AccountID, cmd.Mode, cmd.Nonce, cmd.Operation, cmd.Print.Kept(), cmd.Retention.Microseconds())
	switch {
	case r.Error != nil:
		return cmd.orInFlight(fmt.Errorf("claim the nonce: %w", r.Error))
	case r.RowsAffected == 0:
		return errTaken
	}
	return nil
}

func (s store) answer(tx postgres.Tx, cmd OnceCommand, status int, body []byte) error {
	r := tx.Exec(sqlAnswerOnce, cmd.AccountID, cmd.Mode, cmd.Nonce, status, body, cmd.Retention.Microseconds())
	if r.Error != nil {
		return fmt.Errorf("keep the answer: %w", r.Error)
	}
	if r.RowsAffected != 1 {
		return errors.New("keep the answer: the claim is gone") // a claim must not be committed without its answer
	}
	return nil
}

func (s store) readKey(ctx context.Context, cmd OnceCommand) (k onceKey, found bool, err error) {
	return s.scanKey(s.db.Conn(ctx), sqlReadOnce, cmd)
}

func (s store) confirmKey(ctx context.Context, cmd OnceCommand) (k onceKey, found bool, err error) {
	err = s.db.Confirmed(ctx, func(tx postgres.Tx) error {
		k, found, err = s.scanKey(tx, sqlConfirmOnce, cmd)
		return err
	})
	return k, found, err
}

func (s store) scanKey(tx postgres.Tx, query string, cmd OnceCommand) (k onceKey, found bool, err error) {
	r := tx.Raw(query, cmd.AccountID, cmd.Mode, cmd.Nonce).Scan(&k)
	if r.Error != nil {
		return k, false, fmt.Errorf("read the nonce: %w", r.Error)
	}
	return k, r.RowsAffected == 1, nil
}

func (s store) endLife(ctx context.Context, cmd OnceCommand, k onceKey) error {
	if err := s.db.Conn(ctx).Exec(sqlEndOnce, cmd.AccountID, cmd.Mode, cmd.Nonce, k.CreatedAt).Error; err != nil {
		return fmt.Errorf("end the life: %w", err)
	}
	return nil
}
