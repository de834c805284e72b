package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/golang-migrate/migrate/v4"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/oncepay/oncepay/migrations"
)

// migrationTimeout bounds one migration statement. It is generous, because an
// index on a grown table takes minutes.
const migrationTimeout = 30 * time.Minute

// ErrSchema is wrapped by CheckSchema's answers.
var ErrSchema = errors.New("the database schema does not fit this binary")

// SchemaStatus is where a database stands.
type SchemaStatus struct {
	Version uint `json:"version"` // 0: empty
	Latest  uint `json:"latest"`  // what this binary needs
	Dirty   bool `json:"dirty"`   // a migration failed half-way
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

// status reads the version through the migrator.
func status(m *migrate.Migrate) (SchemaStatus, error) {
	v, dirty, err := m.Version()
	if err != nil && !errors.Is(err, migrate.ErrNilVersion) {
		return SchemaStatus{}, fmt.Errorf("read the schema version: %w", err)
	}
	return SchemaStatus{Version: v, Latest: migrations.Latest, Dirty: dirty}, nil
}

// Migrate brings the schema to the newest version. It is safe to run from
// several processes at once: an advisory lock lets one work and the others wait.
func Migrate(ctx context.Context, url string) error {
	return withMigrator(ctx, url, func(m *migrate.Migrate) error {
		stop := context.AfterFunc(ctx, func() { m.GracefulStop <- true })
		defer stop()
		if err := m.Up(); err != nil && !errors.Is(err, migrate.ErrNoChange) {
			// Looked at only now: before, the lock was perhaps another's, at work.
			if s, statusErr := status(m); statusErr == nil && (s.Dirty || s.Version > s.Latest) {
				if misfit := s.Misfit(); misfit != nil {
					return errors.Join(misfit, err)
				}
				return nil // a newer binary has been here, and left a schema that fits this one, too
			}
			return fmt.Errorf("migrate: %w", err)
		}
		return ctx.Err()
	})
}

// Schema reads the version a database has.
func Schema(ctx context.Context, url string) (SchemaStatus, error) {
	var s SchemaStatus
	err := withMigrator(ctx, url, func(m *migrate.Migrate) (err error) {
		s, err = status(m)
		return err
	})
	return s, err
}

// CheckSchema returns nil if the open database has a schema that this binary can
// serve, and otherwise an error that wraps ErrSchema and says what to do.
// It only reads.
func (db *DB) CheckSchema(ctx context.Context) error {
	s := SchemaStatus{Latest: migrations.Latest}
	err := db.Conn(ctx).Raw(`/* postgres.schema */ SELECT version, dirty FROM schema_migrations`).Row().Scan(&s.Version, &s.Dirty)
	switch {
	case sqlState(err) == codeUndefinedTable || errors.Is(err, sql.ErrNoRows): // empty
	case err != nil:
		return fmt.Errorf("read the schema version: %w", err)
	}
	return s.Misfit()
}

func withMigrator(ctx context.Context, url string, f func(*migrate.Migrate) error) (err error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("the database URL cannot be read: expected postgres://user@host/database")
	}
	cfg.RuntimeParams["timezone"] = "UTC"
	cfg.ConnectTimeout = connectTimeout
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, ignoreClosed(db.Close())) }()
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("reach the database: %w", err)
	}
	files, err := iofs.New(migrations.FS, ".")
	if err != nil {
		return fmt.Errorf("read the embedded migrations: %w", err)
	}
	driver, err := migratepgx.WithInstance(db, &migratepgx.Config{StatementTimeout: migrationTimeout})
	if err != nil {
		return fmt.Errorf("prepare the migrations table: %w", err)
	}
	m, err := migrate.NewWithInstance("iofs", files, "pgx5", driver)
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	defer func() {
		_, dbErr := m.Close() // also closes db
		err = errors.Join(err, ignoreClosed(dbErr))
	}()
	return f(m)
}

// ignoreClosed drops the complaint about closing twice: the migrator closes the
// handle it was given, and so do we, in case it never got that far.
func ignoreClosed(err error) error {
	if err == nil || errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}
