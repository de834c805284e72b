package operators

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

const sqlInsertSession = `/* operators.insert_session */
INSERT INTO operator_sessions (created_at, token_hash, seen_at, operator_id, expires_at)
SELECT now.at, $1::bytea, now.at, $2::uuid, now.at + $3::bigint * interval '1 microsecond'
FROM (SELECT clock_timestamp() AS at) now
RETURNING expires_at`

// sqlTrimSessions ends somebody's sessions but for the $2 that were used last.
const sqlTrimSessions = `/* operators.trim_sessions */
DELETE FROM operator_sessions WHERE token_hash IN (
    SELECT token_hash FROM operator_sessions WHERE operator_id = $1::uuid ORDER BY seen_at DESC, token_hash OFFSET $2::integer)`

// sqlBySession finds whose session it is, with what they may do at this moment. stale says
// that it is to be noted that the session was used.
const sqlBySession = `/* operators.by_session */
SELECT o.id, o.name, o.role, s.seen_at <= clock_timestamp() - $3::bigint * interval '1 microsecond' AS stale
FROM operator_sessions s JOIN operators o ON o.id = s.operator_id
WHERE s.token_hash = $1::bytea AND s.expires_at > clock_timestamp()
  AND s.seen_at > clock_timestamp() - $2::bigint * interval '1 microsecond' AND o.disabled_at IS NULL`

// sqlSeen notes that a session was used. One that has ended meanwhile stays ended.
const sqlSeen = `/* operators.seen */
UPDATE operator_sessions SET seen_at = clock_timestamp()
WHERE token_hash = $1::bytea AND seen_at <= clock_timestamp() - $2::bigint * interval '1 microsecond'`

const sqlEndSession = `/* operators.end_session */
DELETE FROM operator_sessions s USING operators o WHERE s.token_hash = $1::bytea AND o.id = s.operator_id RETURNING o.name`

const sqlEndSessions = `/* operators.end_sessions */
DELETE FROM operator_sessions WHERE operator_id = $1::uuid`

const sqlPurgeSessions = `/* operators.purge_sessions */
DELETE FROM operator_sessions WHERE token_hash IN (
    SELECT token_hash FROM operator_sessions
    WHERE expires_at <= clock_timestamp() - $1::bigint * interval '1 microsecond' ORDER BY expires_at LIMIT $2::integer)`

const sqlPurgeFailures = `/* operators.purge_failures */
DELETE FROM operator_failures WHERE subject IN (
    SELECT subject FROM operator_failures
    WHERE failed_at <= clock_timestamp() - $1::bigint * interval '1 microsecond' ORDER BY failed_at LIMIT $2::integer)`

// insertSession begins a session, and ends the least used one if there are too many. It
// says when the session ends in any case.
func (s store) insertSession(tx postgres.Tx, id uuid.UUID, session string) (expires time.Time, err error) {
	if err := tx.Raw(sqlInsertSession, digest(session), id, SessionLife.Microseconds()).Row().Scan(&expires); err != nil {
		return time.Time{}, fmt.Errorf("begin a session: %w", err)
	}
	if err := tx.Exec(sqlTrimSessions, id, maxSessions).Error; err != nil {
		return time.Time{}, fmt.Errorf("end the oldest sessions: %w", err)
	}
	return expires, nil
}

// sessionRow is whose session it is.
type sessionRow struct {
	ID    uuid.UUID
	Name  string
	Role  Role
	Stale bool
}

// bySession finds whose session it is; ok is false if it has ended.
func (s store) bySession(tx postgres.Tx, session string) (r sessionRow, ok bool, err error) {
	found := tx.Raw(sqlBySession, digest(session), SessionIdle.Microseconds(), seenGrain.Microseconds()).Scan(&r)
	if found.Error != nil {
		return r, false, fmt.Errorf("read the session: %w", found.Error)
	}
	return r, found.RowsAffected > 0, nil
}

func (s store) seen(tx postgres.Tx, session string) error {
	if err := tx.Exec(sqlSeen, digest(session), seenGrain.Microseconds()).Error; err != nil {
		return fmt.Errorf("note that a session was used: %w", err)
	}
	return nil
}

// endSession ends a session and says whose it was; "" if there was none.
func (s store) endSession(tx postgres.Tx, session string) (name string, err error) {
	if err := tx.Raw(sqlEndSession, digest(session)).Scan(&name).Error; err != nil {
		return "", fmt.Errorf("end the session: %w", err)
	}
	return name, nil
}

// endSessions ends all of somebody's sessions and says how many there were.
func (s store) endSessions(tx postgres.Tx, id uuid.UUID) (int64, error) {
	done := tx.Exec(sqlEndSessions, id)
	if done.Error != nil {
		return 0, fmt.Errorf("end somebody's sessions: %w", done.Error)
	}
	return done.RowsAffected, nil
}
