package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Identity says which database this is. A copy, a restored dump and another server
// have another system; a promoted standby and a recovery to a point in time have the
// same one on a later timeline. A snapshot of the disk that was put back has neither:
// nothing in a database tells it from a crash.
type Identity struct {
	// System is the identifier that initdb drew and the database's number in that
	// cluster, so that a dump restored beside its original is told from it, too.
	System string
	// Timeline is the one that is written to now, not the last checkpoint's, which a
	// promotion may leave behind for minutes.
	Timeline int64
}

// sqlThisIdentity reads what any role may: no grant is needed for it. It fails on a
// standby, which writes to no timeline.
const sqlThisIdentity = `SELECT c.system_identifier::text || '/' || d.oid::text AS system,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint AS timeline
FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()`

const (
	sqlIdentity = `/* postgres.identity */
SELECT now.system, now.timeline, noted.system_identifier, noted.timeline, noted.noted_at
FROM (` + sqlThisIdentity + `) now LEFT JOIN database_identity noted ON true`

	sqlNoteIdentity = `/* postgres.note_identity */
INSERT INTO database_identity (system_identifier, timeline) ` + sqlThisIdentity + ` ON CONFLICT DO NOTHING`

	sqlAcceptIdentity = `/* postgres.accept_identity */
INSERT INTO database_identity (system_identifier, timeline) ` + sqlThisIdentity + `
ON CONFLICT ON CONSTRAINT database_identity_pkey DO UPDATE
SET system_identifier = excluded.system_identifier, timeline = excluded.timeline, noted_at = excluded.noted_at`
)

// Noted is the identity of a database beside the one that was written down in it.
type Noted struct {
	Now Identity
	// Was is what the first instance that served this database wrote down, or who
	// accepted another identity since; At is when. The zero Was: nobody has yet.
	Was Identity
	At  time.Time
}

// Differs reports whether the database is another than it was: it may have forgotten
// what was answered last.
func (n Noted) Differs() bool { return n.Was != Identity{} && n.Was != n.Now }

// Identity reads which database this is, and which one it was. It only reads.
func (db *DB) Identity(ctx context.Context) (Noted, error) {
	var (
		n        Noted
		system   sql.NullString
		timeline sql.NullInt64
		at       sql.NullTime
	)
	err := db.Conn(ctx).Raw(sqlIdentity).Row().Scan(&n.Now.System, &n.Now.Timeline, &system, &timeline, &at)
	if err != nil {
		return Noted{}, fmt.Errorf("read the database's identity: %w", err)
	}
	n.Was, n.At = Identity{System: system.String, Timeline: timeline.Int64}, at.Time
	return n, nil
}

// NoteIdentity writes down which database this is, unless that was done before, and
// returns both.
func (db *DB) NoteIdentity(ctx context.Context) (Noted, error) {
	if err := db.Conn(ctx).Exec(sqlNoteIdentity).Error; err != nil {
		return Noted{}, fmt.Errorf("note the database's identity: %w", err)
	}
	return db.Identity(ctx)
}

// AcceptIdentity writes down which database this is, whatever was noted before.
func (db *DB) AcceptIdentity(ctx context.Context) (Noted, error) {
	if err := db.Conn(ctx).Exec(sqlAcceptIdentity).Error; err != nil {
		return Noted{}, fmt.Errorf("accept the database's identity: %w", err)
	}
	return db.Identity(ctx)
}
