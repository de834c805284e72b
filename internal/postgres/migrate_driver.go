package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/golang-migrate/migrate/v4/database"
	"github.com/golang-migrate/migrate/v4/source"
	"github.com/jackc/pgx/v5"
)

// migrationDriver is how golang-migrate speaks to PostgreSQL here, in the place of its
// own driver, whose table and lock it shares. That one writes the version before and
// after a migration, so that a crash between leaves a schema that nobody serves; it
// empties its table for that, which waits for whoever reads it; and it stands in line
// for tables, and for other processes, for as long as it takes.
type migrationDriver struct {
	ctx   context.Context //nolint:containedctx // Migrate's own: the library's interface has none
	conn  *pgx.Conn
	files source.Driver
	tell  func(string)
	next  uint // what Run is about to apply
}

// Open is for drivers that are named in a URL.
func (d *migrationDriver) Open(string) (database.Driver, error) {
	return nil, errors.New("this driver is made with a connection")
}

// Close closes the connection, which also gives the lock back.
func (d *migrationDriver) Close() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), connectTimeout)
	defer cancel()
	return d.conn.Close(ctx)
}

// begin returns when no other process migrates this schema, there is a table for its
// version, and the version that it has wants no index: the next migration, and whoever
// serves its schema, may rely on the one before being whole.
func (d *migrationDriver) begin() error {
	if err := d.takeTurn(d.ctx); err != nil {
		return err
	}
	if err := d.makeTable(d.ctx); err != nil {
		return err
	}
	s, err := status(d.ctx, d.conn)
	if err != nil || s.Dirty {
		return err // Up tells of the latter
	}
	indexes, err := indexesOf(d.files, s.Version)
	if err != nil {
		return err
	}
	return d.buildIndexes(d.ctx, s.Version, indexes)
}

// Lock has nothing to do: begin has taken the lock, for which the library would wait only
// so long.
func (d *migrationDriver) Lock() error { return nil }

// Unlock leaves it to Close: nobody migrates twice on one connection.
func (d *migrationDriver) Unlock() error { return nil }

// Version is where the schema stands.
func (d *migrationDriver) Version() (version int, dirty bool, err error) {
	s, err := status(d.ctx, d.conn)
	if err == nil && s.Version == 0 {
		return database.NilVersion, false, nil
	}
	return int(s.Version), s.Dirty, err
}

// SetVersion tells before Run what it will apply. Run itself writes it down.
func (d *migrationDriver) SetVersion(version int, dirty bool) error {
	if version < 1 {
		return errors.New("a schema is never taken back")
	}
	if dirty {
		d.next = uint(version)
	}
	return nil
}

// Run applies a migration and its version, together, and then builds its indexes.
func (d *migrationDriver) Run(migration io.Reader) error {
	body, err := io.ReadAll(migration)
	if err != nil {
		return err
	}
	together, indexes, err := parts(string(body))
	if err == nil {
		err = d.applyTogether(d.ctx, d.next, together)
	}
	if err != nil {
		return fmt.Errorf("migration %d: %w", d.next, err)
	}
	return d.buildIndexes(d.ctx, d.next, indexes)
}

// Drop is for nobody.
func (d *migrationDriver) Drop() error { return errors.New("a schema is never dropped") }

// takeTurn returns when no other process migrates this schema. It asks again and
// again: whoever waited inside PostgreSQL would have a snapshot open, and an index
// that is built CONCURRENTLY would wait for that. The lock is the one that
// golang-migrate's driver takes, so binaries that migrate with it wait for us, too.
func (d *migrationDriver) takeTurn(ctx context.Context) error {
	var db, schema *string
	if err := d.conn.QueryRow(ctx, `SELECT current_database()::text, current_schema()::text`).Scan(&db, &schema); err != nil {
		return err
	}
	if schema == nil {
		return errors.New("the role's search_path names no schema that there is")
	}
	text, err := database.GenerateAdvisoryLockId(*db, *schema, "schema_migrations")
	if err != nil {
		return err
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	deadline, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	for told := false; ; told = true {
		var mine bool
		if err := d.conn.QueryRow(deadline, `SELECT pg_try_advisory_lock($1)`, id).Scan(&mine); err != nil || mine {
			return err
		}
		if !told {
			d.tell("another process migrates this database; waiting for it")
		}
		if err := pause(deadline, turnEvery); err != nil {
			return fmt.Errorf("another process migrates this database, and did not end: %w", err)
		}
	}
}

// makeTable makes golang-migrate's table, which has one row at most.
func (d *migrationDriver) makeTable(ctx context.Context) error {
	_, err := d.conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)`)
	return err
}

// applyTogether runs a migration, but for its indexes, and its version in one transaction.
func (d *migrationDriver) applyTogether(ctx context.Context, version uint, body string) error {
	for try := 1; ; try++ {
		err := pgx.BeginFunc(ctx, d.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, body); err != nil {
				return err
			}
			return setVersion(ctx, tx, version)
		})
		if !IsContention(err) { // nil, too
			return err
		}
		if try == migrationTries {
			return fmt.Errorf("others hold its tables; nothing was changed, find out who (docs/operate/database.md) and run it again: %w", err)
		}
		d.tell(fmt.Sprintf("migration %d: others hold its tables; trying again (%d of %d)", version, try, migrationTries-1))
		if err := pause(ctx, migrationPause); err != nil {
			return err
		}
	}
}

// setVersion keeps nobody from reading the version meanwhile, as TRUNCATE would.
func setVersion(ctx context.Context, tx pgx.Tx, version uint) error {
	_, err := tx.Exec(ctx, fmt.Sprintf(`DELETE FROM schema_migrations; INSERT INTO schema_migrations (version, dirty) VALUES (%d, false)`, version))
	return err
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
