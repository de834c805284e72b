package operators

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlInsertInvitation makes a link, unless there are enough ($6) that can be used.
const sqlInsertInvitation = `/* operators.insert_invitation */
INSERT INTO operator_invitations (token_hash, name, role, operator_id, created_at, expires_at)
SELECT $1::bytea, $2::text, $3::text, $4::uuid, now.at, now.at + $5::bigint * interval '1 microsecond'
FROM (SELECT clock_timestamp() AS at) now
WHERE (SELECT count(*) FROM operator_invitations i WHERE i.used_at IS NULL AND i.expires_at > clock_timestamp()) < $6::integer
RETURNING expires_at`

const invitationColumns = `i.name, i.role, i.operator_id, i.expires_at`

// usable is what can be used still. One for another password is for somebody who may sign in.
const usable = `i.used_at IS NULL AND i.expires_at > clock_timestamp()
  AND (i.operator_id IS NULL OR EXISTS (SELECT 1 FROM operators o WHERE o.id = i.operator_id AND o.disabled_at IS NULL))
  AND (i.name <> '' OR NOT EXISTS (SELECT 1 FROM operators))`

const sqlInvitation = `/* operators.invitation */
SELECT ` + invitationColumns + ` FROM operator_invitations i WHERE i.token_hash = $1::bytea AND ` + usable

const sqlInvitations = `/* operators.invitations */
SELECT ` + invitationColumns + ` FROM operator_invitations i WHERE ` + usable + ` ORDER BY i.created_at DESC, i.token_hash LIMIT $1::integer`

// sqlUseInvitation uses a link up, for the one who comes first.
const sqlUseInvitation = `/* operators.use_invitation */
UPDATE operator_invitations i SET used_at = clock_timestamp() WHERE i.token_hash = $1::bytea AND ` + usable + `
RETURNING ` + invitationColumns

// sqlEndInvitations ends the links with a name ($1) that nobody has used; those of the first
// operator, where it is empty.
const sqlEndInvitations = `/* operators.end_invitations */
DELETE FROM operator_invitations WHERE name = $1::text AND used_at IS NULL`

const sqlPurgeInvitations = `/* operators.purge_invitations */
DELETE FROM operator_invitations WHERE token_hash IN (
    SELECT token_hash FROM operator_invitations
    WHERE least(used_at, expires_at) <= clock_timestamp() - $1::bigint * interval '1 microsecond' LIMIT $2::integer)`

// invitationRow is a link as the database has it.
type invitationRow struct {
	Name       string
	Role       Role
	OperatorID uuid.NullUUID
	ExpiresAt  time.Time
}

func (r invitationRow) invitation() Invitation {
	i := Invitation{Kind: New, Name: r.Name, Role: r.Role, ExpiresAt: r.ExpiresAt}
	switch {
	case r.OperatorID.Valid:
		i.Kind = Forgot
	case r.Name == "":
		i.Kind = First
	}
	return i
}

func errNoInvitation() error {
	return apierr.New(apierr.NotFound, "this link cannot be used: it was used, its time is over, or there is a newer one")
}

// insertInvitation makes a link and says until when it works. id is whose password it is
// for, or uuid.Nil.
func (s store) insertInvitation(tx postgres.Tx, secret, name string, role Role, id uuid.UUID, life time.Duration) (expires time.Time, err error) {
	var made struct{ ExpiresAt time.Time }
	insert := tx.Raw(sqlInsertInvitation, digest(secret), name, string(role), orNone(id), life.Microseconds(), maxInvitations).Scan(&made)
	return made.ExpiresAt, one("insert the invitation", insert, func() error {
		return apierr.New(apierr.InvalidState, fmt.Sprintf("there are %d links that nobody has used, which is the most: withdraw one first", maxInvitations))
	})
}

func (s store) invitation(tx postgres.Tx, secret string) (r invitationRow, err error) {
	return r, one("read the invitation", tx.Raw(sqlInvitation, digest(secret)).Scan(&r), errNoInvitation)
}

func (s store) useInvitation(tx postgres.Tx, secret string) (r invitationRow, err error) {
	return r, one("use the invitation", tx.Raw(sqlUseInvitation, digest(secret)).Scan(&r), errNoInvitation)
}

// invitations are those that can be used, the newest first.
func (s store) invitations(ctx context.Context) ([]Invitation, error) {
	var rows []invitationRow
	if err := s.db.Conn(ctx).Raw(sqlInvitations, maxInvitations).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("read the invitations: %w", err)
	}
	is := make([]Invitation, len(rows))
	for i, r := range rows {
		is[i] = r.invitation()
	}
	return is, nil
}

// endInvitations ends the unused links with a name and says how many there were.
func (s store) endInvitations(tx postgres.Tx, name string) (int64, error) {
	done := tx.Exec(sqlEndInvitations, name)
	if done.Error != nil {
		return 0, fmt.Errorf("end the invitations: %w", done.Error)
	}
	return done.RowsAffected, nil
}
