package idem

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlInsertArrivals writes a batch ($1, a JSON array). Each brings its age rather
// than a time, so the database's clock dates it, and
// its id, so a batch whose commit was not confirmed may be written again.
const sqlInsertArrivals = `/* idem.insert_arrivals */
INSERT INTO arrivals (account_id, mode, nonce, at, id, verdict, transaction_id, request_id, body_differs, differs)
SELECT a.account_id, a.mode, a.nonce, clock_timestamp() - a.age_us * interval '1 microsecond', a.id, a.verdict,
       a.transaction_id, a.request_id, a.body_differs, a.differs
FROM jsonb_to_recordset($1::jsonb) AS a(account_id uuid, mode text, nonce text, age_us bigint, id uuid, verdict text,
     transaction_id uuid, request_id text, body_differs boolean, differs text)
ON CONFLICT (account_id, mode, nonce, id) DO NOTHING`

// sqlPurgeKeys removes lives that are over, the oldest first: expired, and their
// transaction terminal, if they have one. The inner read goes by created_at, which never
// changes; nothing can expire sooner than the shortest retention after it ($1).
const sqlPurgeKeys = `/* idem.purge_keys */
DELETE FROM idempotency_keys k USING (
    SELECT k.account_id, k.mode, k.key_id, k.created_at
    FROM idempotency_keys k
    LEFT JOIN transactions t ON t.account_id = k.account_id AND t.id = k.transaction_id
    WHERE k.created_at <= clock_timestamp() - $1::bigint * interval '1 microsecond'
      AND k.expires_at <= clock_timestamp() AND t.lease_until IS NULL
    ORDER BY k.created_at LIMIT $2::integer
) over
WHERE k.account_id = over.account_id AND k.mode = over.mode AND k.key_id = over.key_id
  AND k.created_at = over.created_at AND k.expires_at <= clock_timestamp()`

// The timeline's rows that age: each table with the column that dates it.
const (
	sqlPurgeArrivals = `/* idem.purge_arrivals */
DELETE FROM arrivals WHERE (account_id, mode, nonce, id) IN (
    SELECT account_id, mode, nonce, id FROM arrivals
    WHERE at <= clock_timestamp() - $1::bigint * interval '1 microsecond' ORDER BY at LIMIT $2::integer)`

	sqlPurgeCalls = `/* idem.purge_calls */
DELETE FROM provider_calls WHERE (account_id, transaction_id, fence, seq) IN (
    SELECT account_id, transaction_id, fence, seq FROM provider_calls
    WHERE started_at <= clock_timestamp() - $1::bigint * interval '1 microsecond' ORDER BY started_at LIMIT $2::integer)`

	sqlPurgeCallbacks = `/* idem.purge_callbacks */
DELETE FROM callbacks WHERE (account_id, provider, id) IN (
    SELECT account_id, provider, id FROM callbacks
    WHERE received_at <= clock_timestamp() - $1::bigint * interval '1 microsecond' ORDER BY received_at LIMIT $2::integer)`
)

const (
	// timelineRetention is how long arrivals and provider calls are kept: longer
	// than a card network gives a customer to complain.
	timelineRetention = 90 * 24 * time.Hour
	// purgeBatch keeps each statement's locks short.
	purgeBatch = 500
)

type store struct{ db *postgres.DB }

func (s store) insertArrivals(ctx context.Context, batch []Arrival) error {
	type row struct {
		AccountID     uuid.UUID     `json:"account_id"`
		Mode          string        `json:"mode"`
		Nonce         string        `json:"nonce"`
		AgeUS         int64         `json:"age_us"`
		ID            uuid.UUID     `json:"id"`
		Verdict       Verdict       `json:"verdict"`
		TransactionID uuid.NullUUID `json:"transaction_id"`
		RequestID     string        `json:"request_id"`
		BodyDiffers   bool          `json:"body_differs"`
		Differs       string        `json:"differs"`
	}
	rows := make([]row, len(batch))
	for i, a := range batch {
		rows[i] = row{
			a.AccountID, a.Mode, a.Nonce, time.Since(a.At).Microseconds(), a.id, a.Verdict,
			a.TransactionID, a.RequestID, a.BodyDiffers, strings.Join(a.Differs, ","),
		}
	}
	data, err := json.Marshal(rows)
	if err != nil {
		return fmt.Errorf("insert arrivals: %w", err)
	}
	if err := s.db.Conn(ctx).Exec(sqlInsertArrivals, string(data)).Error; err != nil {
		return fmt.Errorf("insert arrivals: %w", err)
	}
	return nil
}

// Purge removes one batch of what is past its time: lives that are over, and the
// timeline's rows of 90 days ago. Correctness never depends on it.
type Purge struct {
	DB *postgres.DB
	// Retention is the shortest that any policy keeps a life.
	Retention time.Duration
}

// RunOnce returns how many rows went.
func (p Purge) RunOnce(ctx context.Context) (int, error) {
	faultpoint.Reach(faultpoint.PurgeBefore, "")
	total := 0
	for _, step := range []struct {
		what, query string
		age         time.Duration
	}{
		{"purge keys", sqlPurgeKeys, p.Retention},
		{"purge arrivals", sqlPurgeArrivals, timelineRetention},
		{"purge provider calls", sqlPurgeCalls, timelineRetention},
		{"purge callbacks", sqlPurgeCallbacks, timelineRetention},
	} {
		r := p.DB.Conn(ctx).Exec(step.query, step.age.Microseconds(), purgeBatch)
		if r.Error != nil {
			return total, fmt.Errorf("%s: %w", step.what, r.Error)
		}
		total += int(r.RowsAffected)
	}
	if total > 0 {
		faultpoint.Reach(faultpoint.PurgeAfter, "")
	}
	return total, nil
}
