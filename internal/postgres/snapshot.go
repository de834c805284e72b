package postgres

import (
	"context"
	"database/sql"
	"time"
)

// Snapshot runs f in one database transaction that can only read, at REPEATABLE READ:
// all of its statements see the database as it was at the first of them, whatever is
// committed meanwhile. Each statement may take as long as limit, which is meant to be
// longer than the session's own time-out; it does not outlive the transaction.
//
// As long as it runs, VACUUM keeps every row that was changed or deleted meanwhile.
func (db *DB) Snapshot(ctx context.Context, limit time.Duration, f func(tx Tx) error) error {
	return db.gorm.WithContext(ctx).Transaction(func(tx Tx) error {
		if err := tx.Exec(sqlAllow, millis(limit)).Error; err != nil {
			return err
		}
		return f(tx)
	}, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
}

// sqlAllow is SET LOCAL with a parameter.
const sqlAllow = `/* postgres.allow */
SELECT set_config('statement_timeout', $1::text, true)`
