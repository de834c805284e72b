// Package postgres opens the database and says what its errors mean. It is the
// only place, with each domain's store.go, that knows GORM: a Tx is always an
// argument, never hidden in a context, so one can see which statements belong
// together.
package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// Tx is a database transaction, or the database itself where one statement is
// its own transaction.
type Tx = *gorm.DB

const (
	// DefaultMaxConns is enough for thousands of payments in flight, because none
	// holds a connection while its provider is called.
	DefaultMaxConns = 20

	// lockTimeout bounds the wait behind an uncommitted duplicate. A begin or a
	// finish holds its locks for milliseconds; whoever waits longer is better told
	// to come back.
	lockTimeout = 2 * time.Second

	// statementTimeout is far above any statement of ours, so that only a stuck
	// server meets it.
	statementTimeout = 10 * time.Second

	// idleInTransactionTimeout frees locks that a frozen process of ours holds.
	idleInTransactionTimeout = 5 * time.Second

	// pingAfter is how long a connection may rest before it is tried out first, which
	// costs a round trip. Shorter, and the save after a slow provider would pay it;
	// longer, and more first statements would meet a connection that has died.
	pingAfter = 15 * time.Second

	// connectTimeout bounds one attempt to reach the server.
	connectTimeout = 5 * time.Second
)

// Options tune Open. The zero value is right for production.
type Options struct {
	MaxConns int32           // 0: DefaultMaxConns
	Tracer   pgx.QueryTracer // sees every statement; for tests and traces
	// PgBouncer says that the URL leads to one in transaction mode: each transaction
	// may have another session, and a session's settings are the role's.
	PgBouncer bool
	// AnySession takes sessions that are not as ours must be: to find out what is wrong,
	// never to serve.
	AnySession bool
}

// DB is one pool of connections.
type DB struct {
	gorm *gorm.DB
	pool *pgxpool.Pool
	sql  *sql.DB
}

var errUnreadableURL = errors.New("the database URL cannot be read: expected postgres://user@host/database") // the cause quotes the URL, password included

// Open connects to url, a postgres:// URL, and returns once the server answers and
// its sessions are known to be as ours must be: isolation, time zone and time-outs
// are set once per connection, or by the role, because per request they would cost a
// round trip. If they are not, the error wraps ErrSession.
func Open(ctx context.Context, url string, o Options) (*DB, error) {
	cfg, err := poolConfig(url, o)
	if err != nil {
		return nil, err
	}
	w := &witness{}
	cfg.ConnConfig.Tracer, cfg.ConnConfig.OnNotice = w.beside(o.Tracer), noticed
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the database pool: %w", err)
	}
	w.pool = pool
	err = checkSession(ctx, pool, o.PgBouncer)
	if err != nil && (!o.AnySession || !errors.Is(err, ErrSession)) {
		pool.Close()
		if refusesSettings(err) {
			return nil, fmt.Errorf("%w: PgBouncer refuses them, so give --pgbouncer, or a URL that leads to PostgreSQL itself", ErrSession)
		}
		if errors.Is(err, ErrSession) {
			return nil, err
		}
		return nil, fmt.Errorf("reach the database: %w", err)
	}
	sqlDB := stdlib.OpenDBFromPool(pool)
	g, err := gorm.Open(postgres.New(postgres.Config{Conn: sqlDB}), &gorm.Config{
		SkipDefaultTransaction: true,
		DisableAutomaticPing:   true,
		Logger:                 logger.Discard, // GORM's logger prints statements with their values
	})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("open gorm: %w", err)
	}
	return &DB{gorm: g, pool: pool, sql: sqlDB}, nil
}

func poolConfig(url string, o Options) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errUnreadableURL
	}
	cfg.MaxConns = o.MaxConns
	if o.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	cfg.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > pingAfter }
	cfg.ConnConfig.ConnectTimeout = connectTimeout
	cfg.ConnConfig.RuntimeParams["application_name"] = "oncepay"
	if !o.PgBouncer { // which would refuse it; without it, only the console's searches are slower
		cfg.ConnConfig.RuntimeParams["jit"] = "off" // to compile a statement takes longer than any of ours runs
	}
	if o.PgBouncer {
		// Prepared statements belong to a session, which may be another's by the time of
		// the next statement. The description of one may be kept: each use sends the whole
		// statement again, in one round trip, and the server infers the types of its
		// parameters as for a prepared one. (With QueryExecModeExec they would be guessed
		// from Go's, and values go as text, whose reading depends on more settings.) If a
		// migration changes what a description says, one use of it fails, without effect.
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		cfg.ConnConfig.RuntimeParams["timezone"] = "UTC" // PgBouncer itself sees to it
		return cfg, nil
	}
	for _, s := range sessionSettings {
		cfg.ConnConfig.RuntimeParams[s.name] = s.value()
	}
	return cfg, nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%d", d.Milliseconds()) }

// Close returns when every connection is closed.
func (db *DB) Close() {
	_ = db.sql.Close() // nothing of ours is buffered in it
	db.pool.Close()
}

// PoolStats is how busy a pool is, and how long was waited for it.
type PoolStats struct {
	Acquired, Idle, Max int           // connections in use, at rest, and at most
	Waits               int64         // how often nobody was at rest, since Open
	Waited              time.Duration // how long that took, all together
}

// PoolStats tells how busy the pool is now.
func (db *DB) PoolStats() PoolStats {
	s := db.pool.Stat()
	return PoolStats{
		Acquired: int(s.AcquiredConns()), Idle: int(s.IdleConns()), Max: int(s.MaxConns()),
		Waits: s.EmptyAcquireCount(), Waited: s.EmptyAcquireWaitTime(),
	}
}

// Conn is the database for single statements, each its own transaction.
func (db *DB) Conn(ctx context.Context) Tx { return db.gorm.WithContext(ctx) }

// Ping asks the server for a sign of life.
func (db *DB) Ping(ctx context.Context) error { return db.pool.Ping(ctx) }

// InTx runs f in one database transaction at READ COMMITTED, which commits if f
// returns nil. Never call a provider in f.
func (db *DB) InTx(ctx context.Context, f func(tx Tx) error) error {
	return db.gorm.WithContext(ctx).Transaction(f, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
}

// SQLSTATEs that the domain tells apart.
const (
	codeUniqueViolation       = "23505"
	codeForeignKeyViolation   = "23503"
	codeCheckViolation        = "23514"
	codeLockNotAvailable      = "55P03"
	codeDeadlock              = "40P01"
	codeSerialization         = "40001"
	codeUndefinedTable        = "42P01"
	codeUndefinedObject       = "42704"
	codeInsufficientPrivilege = "42501"
	codeIdleInTransaction     = "25P03"
)

// Constraint is the name of the constraint that err says was violated, or "".
func Constraint(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.ConstraintName
	}
	return ""
}

// IsUniqueViolation reports whether err is one.
func IsUniqueViolation(err error) bool { return sqlState(err) == codeUniqueViolation }

// IsConstraintViolation reports whether a statement was undone because a foreign key
// or a CHECK forbids what it would have made; Constraint names it.
func IsConstraintViolation(err error) bool {
	return sqlState(err) == codeForeignKeyViolation || sqlState(err) == codeCheckViolation
}

// IsLockTimeout reports whether a statement gave up waiting for a lock.
func IsLockTimeout(err error) bool { return sqlState(err) == codeLockNotAvailable }

// IsContention reports whether a statement had no effect because others were in
// its way, so that it may be repeated as it is.
func IsContention(err error) bool {
	switch sqlState(err) {
	case codeLockNotAvailable, codeDeadlock, codeSerialization:
		return true
	}
	return false
}

// IsOutcomeUnknown reports whether err leaves open what the server did: the
// connection broke, or ended, while the answer was awaited. An error that the
// server itself reported is known: the statement had no effect. The exceptions
// are the errors of a server that is going down (class 57P), which may follow a
// commit, and of a connection (class 08), which PgBouncer reports where it lost the
// server in the middle of a statement.
func IsOutcomeUnknown(err error) bool {
	if err == nil {
		return false
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(pg.Code, "57P") || strings.HasPrefix(pg.Code, "08")
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return false // never connected, so nothing was asked
	}
	return true
}

// IsTransient reports whether the same may work in a moment: the database could not be
// used, or others were in the way.
func IsTransient(err error) bool { return IsUnavailable(err) || IsContention(err) }

// IsUnavailable reports whether err says that the database cannot be used at the
// moment, as opposed to a statement that it refused.
func IsUnavailable(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, ErrUnconfirmed) {
		return true
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code[:2] {
		case "08", "53", "57": // connection, resources, operator intervention
			return true
		}
		return pg.Code == codeIdleInTransaction // the process stood still, and its transaction was rolled back
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, driver.ErrBadConn) || pgconn.SafeToRetry(err)
}

func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// Describe turns err into a line for a log. The server's Detail and Where quote
// rows and parameters, so only the state, the constraint and the message's fixed
// part are told.
func Describe(err error) string {
	if err == nil {
		return ""
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Sprintf("SQLSTATE %s constraint=%q", pg.Code, pg.ConstraintName)
	}
	return err.Error()
}
