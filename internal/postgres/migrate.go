package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/migrations"
)

const (
	// migrationTimeout bounds one migration statement. It is generous, because a look
	// at each row of a grown table takes minutes.
	migrationTimeout = 30 * time.Minute

	// indexTimeout bounds an index that is built beside the traffic. Nobody waits for
	// it, and one that was given up would begin anew; so it is for one that waits for
	// a transaction that never ends.
	indexTimeout = 24 * time.Hour

	// migrationLockTimeout is how long a migration may stand in line for a table:
	// meanwhile everybody else stands behind it. Half of what the product's own
	// statements wait, so that none of them gives up because of a migration.
	migrationLockTimeout = time.Second

	// migrationPause lets those through who stood behind a migration that gave up,
	// before it tries again.
	migrationPause = 2 * time.Second

	// migrationTries is how often a migration stands in line, some five minutes in all:
	// no transaction of the product holds a table for seconds, and a backup that does
	// for hours is better told of.
	migrationTries = 100

	// turnEvery is how often a process asks whether it may migrate now.
	turnEvery = 200 * time.Millisecond

	// turnTimeout bounds the wait for the others: one long migration, and one more.
	turnTimeout = time.Hour
)

// ErrSchema is wrapped by CheckSchema's answers.
var ErrSchema = errors.New("the database schema does not fit this binary")

// ErrPooled says that a connection leads to a pooler, where one to PostgreSQL itself
// is needed.
var ErrPooled = errors.New("this database URL leads to a pooler such as PgBouncer, and migrations need a session of PostgreSQL itself: " +
	"give a direct URL in MIGRATE_DATABASE_URL")

// SchemaStatus is where a database stands.
type SchemaStatus struct {
	Version uint `json:"version"` // 0: empty
	Latest  uint `json:"latest"`  // what this binary needs
	Dirty   bool `json:"dirty"`   // a migration failed half-way, by other means than Migrate

	// MissingIndexes are those of Version that are not there, or are invalid. Instances
	// serve without them, and search for longer; Migrate builds them.
	MissingIndexes []string `json:"missing_indexes,omitempty"`
}

// Misfit says what is wrong with a schema for this binary, and what to do: an error
// that wraps ErrSchema, or nil.
func (s SchemaStatus) Misfit() error {
	switch {
	case s.Dirty:
		return fmt.Errorf("%w: migration %d failed half-way; mend it by hand, then run `payments migrate up`", ErrSchema, s.Version)
	case s.Version == 0:
		return fmt.Errorf("%w: it is empty; run `payments migrate up`", ErrSchema)
	case s.Version < s.Latest:
		return fmt.Errorf("%w: it is at version %d and this binary needs %d; run `payments migrate up`", ErrSchema, s.Version, s.Latest)
	case s.Version > s.Latest+migrations.Ahead:
		return fmt.Errorf("%w: it is at version %d and this binary serves none beyond %d; run a newer binary", ErrSchema, s.Version, s.Latest+migrations.Ahead)
	}
	return nil
}

// Migrate brings the schema to the newest version. It is safe to run from several
// processes at once: an advisory lock lets one work and the others wait. It needs a
// direct connection, and says so with ErrPooled.
//
// A migration and its version are committed together, so whatever interrupts it,
// ctx included, leaves a schema that can be served. What may be missing are its indexes
// on tables in use, which are built after it: the next Migrate builds those that are
// missing or invalid. It waits for a table only for a moment at a time, in which nobody
// waits long behind it, and then tries again. tell hears of what takes time; it may be nil.
func Migrate(ctx context.Context, url string, tell func(string)) error {
	return migrateFrom(ctx, url, migrations.FS, tell)
}

func migrateFrom(ctx context.Context, url string, files fs.FS, tell func(string)) (err error) {
	src, err := iofs.New(files, ".")
	if err != nil {
		return fmt.Errorf("read the embedded migrations: %w", err)
	}
	conn, err := connectDirect(ctx, url)
	if err != nil {
		return err
	}
	if tell == nil {
		tell = func(string) {}
	}
	d := &migrationDriver{ctx: ctx, conn: conn, files: src, tell: tell}
	m, err := migrate.NewWithInstance("iofs", src, "postgres", d)
	if err != nil {
		return errors.Join(fmt.Errorf("prepare migrations: %w", err), d.Close())
	}
	defer func() {
		_, dbErr := m.Close() // the files are in memory
		err = errors.Join(err, dbErr)
	}()
	if err = d.begin(); err == nil {
		err = m.Up()
	}
	if dirty := (migrate.ErrDirty{}); errors.As(err, &dirty) || errors.Is(err, fs.ErrNotExist) {
		s, statusErr := status(ctx, conn)
		if statusErr == nil && (s.Dirty || s.Version > s.Latest) {
			return s.Misfit() // nil: a newer binary has been here, and left a schema that fits this one, too
		}
	}
	if err != nil && !errors.Is(err, migrate.ErrNoChange) {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// connectDirect opens one session with PostgreSQL itself.
func connectDirect(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := connConfig(url)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{
		"application_name":                    "oncepay-migrate",
		"default_transaction_isolation":       "read committed",
		"lock_timeout":                        millis(migrationLockTimeout),
		"statement_timeout":                   millis(migrationTimeout),
		"idle_in_transaction_session_timeout": millis(idleInTransactionTimeout),
	} {
		cfg.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		if refusesSettings(err) {
			return nil, ErrPooled
		}
		return nil, fmt.Errorf("reach the database: %w", err)
	}
	// A pooler tells its clients a process number of its own invention.
	var backend uint32
	if err = conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&backend); err == nil && backend != conn.PgConn().PID() {
		err = ErrPooled
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// connConfig is for one connection that works through a pooler, too.
func connConfig(url string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errUnreadableURL
	}
	cfg.RuntimeParams["timezone"] = "UTC"
	cfg.ConnectTimeout = connectTimeout
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // a few statements, each run once
	return cfg, nil
}

// Schema reads the version that a database has, and which of its indexes are missing. It
// changes nothing, waits for no migration, and needs no direct connection.
func Schema(ctx context.Context, url string) (s SchemaStatus, err error) {
	cfg, err := connConfig(url)
	if err != nil {
		return s, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return s, fmt.Errorf("reach the database: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if s, err = status(ctx, conn); err != nil || s.Dirty {
		return s, err
	}
	src, err := iofs.New(migrations.FS, ".")
	if err != nil {
		return s, fmt.Errorf("read the embedded migrations: %w", err)
	}
	s.MissingIndexes, err = missingIndexes(ctx, conn, src, s.Version)
	return s, err
}

const sqlSchema = `/* postgres.schema */ SELECT version, dirty FROM schema_migrations`

func status(ctx context.Context, conn *pgx.Conn) (SchemaStatus, error) {
	s := SchemaStatus{Latest: migrations.Latest}
	err := conn.QueryRow(ctx, sqlSchema).Scan(&s.Version, &s.Dirty)
	if err != nil && !isEmptySchema(err) {
		return s, fmt.Errorf("read the schema version: %w", err)
	}
	return s, nil
}

// isEmptySchema says whether reading the version met a database without one.
func isEmptySchema(err error) bool {
	return sqlState(err) == codeUndefinedTable || errors.Is(err, sql.ErrNoRows)
}

// CheckSchema returns nil if the open database has a schema that this binary can
// serve, and otherwise an error that wraps ErrSchema and says what to do.
// It only reads.
func (db *DB) CheckSchema(ctx context.Context) error {
	s := SchemaStatus{Latest: migrations.Latest}
	err := db.Conn(ctx).Raw(sqlSchema).Row().Scan(&s.Version, &s.Dirty)
	if err != nil && !isEmptySchema(err) {
		return fmt.Errorf("read the schema version: %w", err)
	}
	return s.Misfit()
}
