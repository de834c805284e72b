package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/golang-migrate/migrate/v4/database"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// migrationDriver is how golang-migrate speaks to PostgreSQL here, in the place of its
// own driver, whose table and lock it shares. That one writes the version before and
// after a migration, so that a crash between leaves a schema that nobody serves; it
// empties its table for that, which waits for whoever reads it; and it stands in line
// for tables, and for other processes, for as long as it takes.
type migrationDriver struct {
	ctx  context.Context //nolint:containedctx // Migrate's own: the library's interface has none
	conn *pgx.Conn
	tell func(string)
	next uint // what Run is about to apply
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

// Lock returns when no other process migrates this schema, and there is a table for
// its version.
func (d *migrationDriver) Lock() error {
	if err := d.takeTurn(d.ctx); err != nil {
		return err
	}
	return d.makeTable(d.ctx)
}

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

// Run applies a migration and its version, together.
func (d *migrationDriver) Run(migration io.Reader) error {
	body, err := io.ReadAll(migration)
	if err != nil {
		return err
	}
	if err := d.apply(d.ctx, d.next, string(body)); err != nil {
		return fmt.Errorf("migration %d: %w", d.next, err)
	}
	return nil
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

// besideTraffic is the line of a migration behind which each statement runs by itself: what
// PostgreSQL does CONCURRENTLY cannot be in a transaction, and a release has one migration.
const besideTraffic = "-- then, beside the traffic:\n"

var (
	sqlComment      = regexp.MustCompile(`--[^\n]*|(?s:/\*.*?\*/)`)
	sqlConcurrently = regexp.MustCompile(`(?i)\bCONCURRENTLY\b`)
)

// parts of a migration: what is one transaction, "" for nothing, and the statements that
// cannot be in one. A migration without the line that divides them is one or the other.
func parts(body string) (together string, alone []string) {
	together, rest, divided := strings.Cut(body, besideTraffic)
	if !divided {
		if !sqlConcurrently.MatchString(sqlComment.ReplaceAllString(body, " ")) {
			return body, nil
		}
		together, rest = "", body
	}
	for statement := range strings.SplitSeq(sqlComment.ReplaceAllString(rest, " "), ";") {
		if statement = strings.TrimSpace(statement); statement != "" {
			alone = append(alone, statement)
		}
	}
	return together, alone
}

func (d *migrationDriver) apply(ctx context.Context, version uint, body string) error {
	together, alone := parts(body)
	if together != "" {
		if err := d.applyTogether(ctx, version, together, alone != nil); err != nil {
			return err
		}
	}
	if alone != nil {
		return d.applyConcurrently(ctx, version, alone)
	}
	return nil
}

// applyTogether runs a migration, or the part of it before what runs beside the traffic,
// with its version.
func (d *migrationDriver) applyTogether(ctx context.Context, version uint, body string, more bool) error {
	for try := 1; ; try++ {
		err := pgx.BeginFunc(ctx, d.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, body); err != nil {
				return err
			}
			return setVersion(ctx, tx, version, more)
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

// applyConcurrently runs statements that wait for old transactions and keep nobody
// waiting. They are not broken off: half of one stays, and the version says so.
func (d *migrationDriver) applyConcurrently(ctx context.Context, version uint, statements []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := setVersion(ctx, d.conn, version, true); err != nil {
		return err
	}
	failed := func(err error) error {
		return fmt.Errorf("it failed half-way; mend it by hand (docs/operate/database.md): %w", err)
	}
	if _, err := d.conn.Exec(ctx, `SET lock_timeout = 0`); err != nil {
		return failed(err)
	}
	for i, statement := range statements {
		d.tell(fmt.Sprintf("migration %d: %d of %d runs beside the traffic, and ends when it has seen every transaction that is open", version, i+1, len(statements)))
		if _, err := d.conn.Exec(ctx, statement); err != nil {
			return failed(err)
		}
	}
	if _, err := d.conn.Exec(ctx, `SET lock_timeout = `+millis(migrationLockTimeout)); err != nil {
		return failed(err)
	}
	return setVersion(ctx, d.conn, version, false)
}

// executor is a session, or a transaction in it.
type executor interface {
	Exec(ctx context.Context, statement string, args ...any) (pgconn.CommandTag, error)
}

// setVersion keeps nobody from reading the version meanwhile, as TRUNCATE would.
func setVersion(ctx context.Context, on executor, version uint, dirty bool) error {
	_, err := on.Exec(ctx, fmt.Sprintf(`DELETE FROM schema_migrations; INSERT INTO schema_migrations (version, dirty) VALUES (%d, %t)`, version, dirty))
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
