package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlLockHead reads the end of the chain for whoever goes on from there. Everybody else
// who appends waits here.
const sqlLockHead = `/* audit.lock_head */
SELECT seq, hash FROM audit_head WHERE singleton = $1::boolean FOR NO KEY UPDATE`

// sqlNow is the time of the entry after $1. It is a statement of its own, behind the lock:
// one that waits for a lock sees the rest of the database as it was before. A clock that
// was set back stands still here.
const sqlNow = `/* audit.now */
SELECT ` + micros + ` FROM (
    SELECT greatest(clock_timestamp(), (SELECT l.at FROM audit_entries l WHERE l.seq = $1::bigint)) AS at) e`

// micros is an entry's time as its hash has it. As text, because whoever alters a row may
// write a time that no number holds.
const micros = `trunc(extract(epoch FROM e.at) * 1000000)::text AS at`

// sqlInsert writes an entry, and makes it the end of the chain.
const sqlInsert = `/* audit.insert */
WITH head AS (
    UPDATE audit_head SET seq = $1::bigint, hash = $13::bytea WHERE singleton AND seq = $1 - 1
    RETURNING seq
)
INSERT INTO audit_entries (seq, at, actor_kind, actor_id, actor, address, request_id, action, account_id, target, details, previous_hash, hash)
SELECT head.seq, timestamptz 'epoch' + $2::text::bigint * interval '1 microsecond', $3::text, $4::text, $5::text, $6::text, $7::text,
       $8::text, $9::uuid, $10::text, $11::text, $12::bytea, $13 FROM head`

// errNoHead says that somebody has removed what the migration made.
var errNoHead = errors.New("the audit log has no head: the row of audit_head is gone")

// head is the end of the chain.
type head struct {
	Seq  int64
	Hash []byte
}

func lockHead(tx postgres.Tx) (h head, err error) {
	r := tx.Raw(sqlLockHead, true).Scan(&h)
	if r.Error == nil && r.RowsAffected == 0 {
		return h, errNoHead
	}
	if r.Error != nil {
		return h, fmt.Errorf("lock the head of the audit log: %w", r.Error)
	}
	return h, nil
}

// now is the time of the entry after last, in microseconds.
func now(tx postgres.Tx, last int64) (at string, err error) {
	if err = tx.Raw(sqlNow, last).Row().Scan(&at); err != nil {
		return "", fmt.Errorf("read the time of an audit entry: %w", err)
	}
	return at, nil
}

func insert(tx postgres.Tx, r row) error {
	done := tx.Exec(sqlInsert, r.Seq, r.At, r.ActorKind, r.ActorID, r.Actor, r.Address, r.RequestID,
		r.Action, r.AccountID, r.Target, r.Details, r.PreviousHash, r.Hash)
	if done.Error != nil {
		return fmt.Errorf("append to the audit log: %w", done.Error)
	}
	if done.RowsAffected != 1 {
		return errors.New("append to the audit log: its head has moved under its lock")
	}
	return nil
}

// columns of an entry, for every statement that reads one.
const columns = `e.seq, ` + micros + `, e.actor_kind, e.actor_id, e.actor, e.address, e.request_id, e.action, e.account_id,
       e.target, e.details, e.previous_hash, e.hash`

// matching takes, of the entries that a page looked at, those that it shows: of an actor ($3),
// an action ($4), an account ($5) and a target ($6), each if it is given. It also says how
// many were looked at, and where the last stood: at least one row.
const matching = `)
SELECT s.looked, s.last, f.* FROM (SELECT count(*) AS looked, coalesce(min(seq), 0) AS last FROM looked) s
LEFT JOIN (
    SELECT ` + columns + ` FROM looked e
    WHERE ($3::text = '' OR e.actor = $3) AND ($4::text = '' OR e.action = $4)
      AND ($5::uuid IS NULL OR e.account_id = $5) AND ($6::text = '' OR e.target = $6)
    ORDER BY e.seq DESC LIMIT $7::integer) f ON true
ORDER BY f.seq DESC`

// A page looks at the entries before $1, the newest first and at most $2 of them: at all, at
// those of one target, or at those of one actor. There is an index for each. Both are asked
// for as a range: were it "=", the order would be by seq alone, and PostgreSQL might as well go
// through everybody's.
const (
	sqlPage = `/* audit.page */
WITH looked AS MATERIALIZED (
    SELECT * FROM audit_entries WHERE seq < $1::bigint ORDER BY seq DESC LIMIT $2::integer
` + matching

	sqlPageOfTarget = `/* audit.page_of_target */
WITH looked AS MATERIALIZED (
    SELECT * FROM audit_entries WHERE target >= $6::text AND target <= $6 AND seq < $1::bigint ORDER BY target, seq DESC LIMIT $2::integer
` + matching

	sqlPageOfActor = `/* audit.page_of_actor */
WITH looked AS MATERIALIZED (
    SELECT * FROM audit_entries WHERE actor >= $3::text AND actor <= $3 AND seq < $1::bigint ORDER BY actor, seq DESC LIMIT $2::integer
` + matching
)

// seen is one row of a page: an entry, or none, and what the page looked at.
type seen struct {
	Looked int
	Last   int64
	Row    row `gorm:"embedded"`
}

// page reads entries before that one. It looks at walk of them at most, and returns limit.
func (l Log) page(ctx context.Context, f Filter, before int64, walk, limit int) ([]seen, error) {
	query := sqlPage
	switch {
	case f.Target != "":
		query = sqlPageOfTarget
	case f.Actor != "":
		query = sqlPageOfActor
	}
	var rows []seen
	err := l.DB.Conn(ctx).Raw(query, before, walk, f.Actor, f.Action,
		uuid.NullUUID{UUID: f.AccountID, Valid: f.AccountID != uuid.Nil}, f.Target, limit).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	return rows, nil
}

// sqlEnds reads the head, the first entry, and the first that the head knows nothing of, all
// at one moment.
const sqlEnds = `/* audit.ends */
SELECT h.seq, h.hash, coalesce((SELECT min(e.seq) FROM audit_entries e), 1) AS first,
       coalesce((SELECT min(e.seq) FROM audit_entries e WHERE e.seq > h.seq), 0) AS beyond
FROM audit_head h`

// ends are the head and the entries that should not be there.
type ends struct {
	Head   head `gorm:"embedded"`
	First  int64
	Beyond int64 // 0: none
}

func (l Log) ends(ctx context.Context) (e ends, err error) {
	r := l.DB.Conn(ctx).Raw(sqlEnds).Scan(&e)
	if r.Error != nil {
		return e, fmt.Errorf("read the ends of the audit log: %w", r.Error)
	}
	if r.RowsAffected != 1 {
		return e, errNoHead
	}
	return e, nil
}

// sqlBatch reads the entries behind $1 up to $2. The limit ($3) only counts where a number
// is there twice.
const sqlBatch = `/* audit.batch */
SELECT ` + columns + ` FROM audit_entries e WHERE e.seq > $1::bigint AND e.seq <= $2::bigint ORDER BY e.seq LIMIT $3::integer`

func (l Log) batch(ctx context.Context, after, upTo int64) ([]row, error) {
	var rows []row
	if err := l.DB.Conn(ctx).Raw(sqlBatch, after, upTo, batchSize+1).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	return rows, nil
}
