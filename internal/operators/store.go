package operators

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlLock lets one after the other change who may do what: two who use a link at once, or
// take each other's role away. It keeps nobody from signing in. Taken first, before any row,
// it cannot end in a deadlock.
const sqlLock = `/* operators.lock */
LOCK TABLE operators IN SHARE ROW EXCLUSIVE MODE`

const sqlAny = `/* operators.any */
SELECT EXISTS (SELECT 1 FROM operators)`

const sqlInsert = `/* operators.insert */
INSERT INTO operators (id, name, role, password_hash) VALUES ($1::uuid, $2::text, $3::text, $4::text)`

const personColumns = `o.id, o.name, o.role, o.password_hash, o.created_at, o.changed_at, o.disabled_at,
       (SELECT max(s.seen_at) FROM operator_sessions s WHERE s.operator_id = o.id) AS seen_at`

const sqlByName = `/* operators.by_name */
SELECT ` + personColumns + ` FROM operators o WHERE o.name = $1::text`

// sqlPage reads a page of people, the newest first: their ids begin with the time.
const sqlPage = `/* operators.page */
SELECT ` + personColumns + ` FROM operators o WHERE $1::uuid IS NULL OR o.id < $1
ORDER BY o.id DESC LIMIT $2::integer`

// sqlStill finds out whether somebody ($1) may still sign in with the password that was
// looked at ($2), and keeps that so until the transaction's end: whoever changes the
// password ends the session, too, that is begun here.
const sqlStill = `/* operators.still */
SELECT 1 FROM operators WHERE id = $1::uuid AND password_hash = $2::text AND disabled_at IS NULL FOR NO KEY UPDATE`

const sqlAdmins = `/* operators.admins */
SELECT count(*) FROM operators WHERE role = 'admin' AND disabled_at IS NULL`

const sqlUpdate = `/* operators.update */
UPDATE operators o SET role = $2::text, disabled_at = CASE WHEN $3::boolean THEN coalesce(o.disabled_at, now.at) END, changed_at = now.at
FROM (SELECT clock_timestamp() AS at) now WHERE o.id = $1::uuid`

const sqlSetPassword = `/* operators.set_password */
UPDATE operators SET password_hash = $2::text, changed_at = clock_timestamp() WHERE id = $1::uuid AND disabled_at IS NULL`

// sqlRehash keeps a password in a costlier way. It is the same password.
const sqlRehash = `/* operators.rehash */
UPDATE operators SET password_hash = $2::text WHERE id = $1::uuid`

type store struct{ db *postgres.DB }

// personRow is somebody as the database has them.
type personRow struct {
	ID                   uuid.UUID
	Name                 string
	Role                 Role
	PasswordHash         string
	CreatedAt, ChangedAt time.Time
	DisabledAt, SeenAt   *time.Time
}

func (r personRow) person() Person {
	return Person{
		ID: r.ID, Name: r.Name, Role: r.Role, CreatedAt: r.CreatedAt, ChangedAt: r.ChangedAt, DisabledAt: r.DisabledAt, SeenAt: r.SeenAt,
	}
}

func errNoOperator() error {
	return apierr.New(apierr.NotFound, "there is no operator with this name")
}

func (s store) lock(tx postgres.Tx) error {
	if err := tx.Exec(sqlLock).Error; err != nil {
		return fmt.Errorf("lock the operators: %w", err)
	}
	return nil
}

// found reports whether there is an operator, disabled or not.
func (s store) found(tx postgres.Tx) (found bool, err error) {
	if err := tx.Raw(sqlAny).Row().Scan(&found); err != nil {
		return false, fmt.Errorf("look for an operator: %w", err)
	}
	return found, nil
}

func (s store) insert(tx postgres.Tx, id uuid.UUID, name string, role Role, hash string) error {
	err := tx.Exec(sqlInsert, id, name, string(role), hash).Error
	if postgres.Constraint(err) == "operators_name" {
		return errNameTaken()
	}
	if err != nil {
		return fmt.Errorf("insert the operator: %w", err)
	}
	return nil
}

func errNameTaken() error {
	return apierr.New(apierr.InvalidState, "there is an operator with this name already")
}

// byName finds somebody, or returns errNoOperator. What cannot be a name is not asked for:
// PostgreSQL takes no zero bytes.
func (s store) byName(tx postgres.Tx, name string) (r personRow, err error) {
	if !plainName.MatchString(name) {
		return personRow{}, errNoOperator()
	}
	return r, one("read the operator", tx.Raw(sqlByName, name).Scan(&r), errNoOperator)
}

// page reads a page of people, the newest first; after is uuid.Nil on the first.
func (s store) page(ctx context.Context, after uuid.UUID, limit int) ([]Person, error) {
	var rows []personRow
	if err := s.db.Conn(ctx).Raw(sqlPage, orNone(after), limit).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("read the operators: %w", err)
	}
	people := make([]Person, len(rows))
	for i, r := range rows {
		people[i] = r.person()
	}
	return people, nil
}

// still returns errWrongPassword unless the password that was looked at is good still.
func (s store) still(tx postgres.Tx, r personRow) error {
	return one("read the operator again", tx.Exec(sqlStill, r.ID, r.PasswordHash), errWrongPassword)
}

// admins is how many admins may sign in.
func (s store) admins(tx postgres.Tx) (n int, err error) {
	if err := tx.Raw(sqlAdmins).Row().Scan(&n); err != nil {
		return 0, fmt.Errorf("count the admins: %w", err)
	}
	return n, nil
}

func (s store) update(tx postgres.Tx, id uuid.UUID, role Role, disabled bool) error {
	return one("update the operator", tx.Exec(sqlUpdate, id, string(role), disabled), errNoOperator)
}

// setPassword returns missing's error if the operator is disabled.
func (s store) setPassword(tx postgres.Tx, id uuid.UUID, hash string, missing func() error) error {
	return one("set the password", tx.Exec(sqlSetPassword, id, hash), missing)
}

func (s store) rehash(tx postgres.Tx, id uuid.UUID, hash string) error {
	return one("hash the password anew", tx.Exec(sqlRehash, id, hash), errNoOperator)
}

// one is nil if a statement concerned a row, and otherwise the error of what is not there.
func one(what string, done postgres.Tx, missing func() error) error {
	if done.Error != nil {
		return fmt.Errorf("%s: %w", what, done.Error)
	}
	if done.RowsAffected == 0 {
		return missing()
	}
	return nil
}

func orNone(id uuid.UUID) uuid.NullUUID { return uuid.NullUUID{UUID: id, Valid: id != uuid.Nil} }

// purge runs one of the statements that remove what is past its time by so much, and says
// how many rows went.
func (s store) purge(ctx context.Context, query string, age time.Duration) (int, error) {
	r := s.db.Conn(ctx).Exec(query, age.Microseconds(), purgeBatch)
	return int(r.RowsAffected), r.Error
}
