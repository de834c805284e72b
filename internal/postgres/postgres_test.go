package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// migrated is the direct URL of a migrated database: most tests here are about what
// a connection itself does.
func migrated(t *testing.T) string {
	t.Helper()
	return pgtest.Direct(pgtest.URL(t))
}

// empty is the direct URL of a database without any table.
func empty(t *testing.T) string {
	t.Helper()
	url := migrated(t)
	pgtest.Exec(t, url, `DROP SCHEMA public CASCADE; CREATE SCHEMA public`)
	return url
}

// open is a pool on url, closed when the test ends.
func open(t *testing.T, url string, o postgres.Options) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// text is the one text that a query returns.
func text(t *testing.T, db *postgres.DB, query string, args ...any) string {
	t.Helper()
	var s string
	if err := db.Conn(t.Context()).Raw(query, args...).Row().Scan(&s); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return s
}

func TestConnectionHasItsSettingsWhateverTheDatabaseIsSetTo(t *testing.T) {
	t.Parallel()
	url := empty(t)
	pgtest.Exec(t, url, `DO 'BEGIN
		EXECUTE format(''ALTER DATABASE %I SET timezone = ''''America/New_York'''''', current_database());
		EXECUTE format(''ALTER DATABASE %I SET default_transaction_isolation = ''''serializable'''''', current_database());
		EXECUTE format(''ALTER DATABASE %I SET lock_timeout = ''''1h'''''', current_database());
	END'`)
	db := open(t, url, postgres.Options{})
	for name, want := range map[string]string{
		"timezone": "UTC", "default_transaction_isolation": "read committed", "transaction_isolation": "read committed", "lock_timeout": "2s",
		"statement_timeout": "10s", "idle_in_transaction_session_timeout": "5s", "application_name": "oncepay",
	} {
		if got := text(t, db, `SELECT current_setting($1)`, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	err := db.InTx(t.Context(), func(tx postgres.Tx) error {
		var isolation string
		if err := tx.Raw(`SELECT current_setting('transaction_isolation')`).Row().Scan(&isolation); err != nil {
			return err
		}
		if isolation != "read committed" {
			t.Errorf("a transaction runs at %s", isolation)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPoolIsAsLargeAsAsked(t *testing.T) {
	t.Parallel()
	for asked, want := range map[int32]int{0: postgres.DefaultMaxConns, 2: 2} {
		url := empty(t)
		pgtest.Exec(t, url, `CREATE TABLE t (backend int UNIQUE)`)
		db := open(t, url, postgres.Options{MaxConns: asked})
		var wg sync.WaitGroup
		for range 3 * want {
			wg.Go(func() {
				if err := db.Conn(t.Context()).Exec(`INSERT INTO t SELECT pg_backend_pid() FROM pg_sleep(0.05) ON CONFLICT DO NOTHING`).Error; err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := text(t, db, `SELECT count(*)::text FROM t`); got != strconv.Itoa(want) {
			t.Errorf("asked for %d, the pool has used %s connections, want %d", asked, got, want)
		}
	}
}

// An URL has a password in it, and an error ends up in a log or a terminal.
func TestErrorsOfOpenDoNotQuoteTheURL(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"no URL at all":           "postgres//user:geheim@host",
		"a port that is none":     "postgres://user:geheim@127.0.0.1:port/oncepay",
		"a mode that is none":     "postgres://user:geheim@127.0.0.1:1/oncepay?sslmode=geheim",
		"a server that is absent": "postgres://user:geheim@127.0.0.1:1/oncepay?sslmode=disable",
		"blanks":                  "postgres://user:geheim geheim@127.0.0.1:1/oncepay",
	} {
		for what, try := range map[string]func() error{
			"Open":    func() error { _, err := postgres.Open(t.Context(), url, postgres.Options{}); return err },
			"Migrate": func() error { return postgres.Migrate(t.Context(), url, nil) },
			"Schema":  func() error { _, err := postgres.Schema(t.Context(), url); return err },
		} {
			err := try()
			if err == nil {
				t.Errorf("%s with %s did not fail", what, name)
			} else if strings.Contains(err.Error(), "geheim") || strings.Contains(postgres.Describe(err), "geheim") {
				t.Errorf("%s with %s quotes the password", what, name)
			}
		}
	}
}

func TestTransactionCommitsOnlyIfItsFunctionSucceeds(t *testing.T) {
	t.Parallel()
	url := empty(t)
	pgtest.Exec(t, url, `CREATE TABLE t (n int)`)
	db := open(t, url, postgres.Options{})
	failure := errors.New("no")
	for name, c := range map[string]struct {
		then func()
		err  error
		want string
	}{"succeeds": {func() {}, nil, "1"}, "fails": {func() {}, failure, "0"}, "panics": {func() { panic("no") }, nil, "0"}} {
		pgtest.Exec(t, url, `DELETE FROM t`)
		func() {
			defer func() { _ = recover() }()
			err := db.InTx(t.Context(), func(tx postgres.Tx) error {
				if err := tx.Exec(`INSERT INTO t VALUES (1)`).Error; err != nil {
					return err
				}
				c.then()
				return c.err
			})
			if !errors.Is(err, c.err) {
				t.Errorf("a function that %s: %v, want %v", name, err, c.err)
			}
		}()
		if got := text(t, db, `SELECT count(*)::text FROM t`); got != c.want {
			t.Errorf("a function that %s leaves %s rows, want %s", name, got, c.want)
		}
	}
	if got := text(t, db, `SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`); got != "0" {
		t.Errorf("%s transactions are still open", got)
	}
}

// statements are what a tracer has seen.
type statements struct {
	mu  sync.Mutex
	all []string
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, d.SQL)
	return ctx
}

func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A single statement is its own transaction, and costs one round trip: nothing is
// put around it.
func TestSingleStatementIsSentAlone(t *testing.T) {
	t.Parallel()
	seen := &statements{}
	db := open(t, empty(t), postgres.Options{Tracer: seen})
	if got := text(t, db, `/* a name */ SELECT $1::text`, "x"); got != "x" {
		t.Errorf("got %q", got)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	var named []string
	for _, s := range seen.all {
		if !strings.HasPrefix(s, "/* postgres.session */") { // Open's
			named = append(named, s)
		}
	}
	if len(named) != 1 || named[0] != `/* a name */ SELECT $1::text` {
		t.Errorf("the statements were %q", named)
	}
}

func TestPingAndCloseDoWhatTheySay(t *testing.T) {
	t.Parallel()
	db := open(t, empty(t), postgres.Options{})
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	db.Close()
	if err := db.Ping(t.Context()); err == nil {
		t.Error("a closed pool answers")
	}
}

// met is what the functions say about one error.
type met struct{ outcomeUnknown, unavailable, uniqueViolation, lockTimeout, contention bool }

func classify(err error) met {
	return met{postgres.IsOutcomeUnknown(err), postgres.IsUnavailable(err), postgres.IsUniqueViolation(err), postgres.IsLockTimeout(err), postgres.IsContention(err)}
}

// Errors as they are made elsewhere, and wrapped on their way.
func TestErrorsAreClassedByWhatTheyProve(t *testing.T) {
	t.Parallel()
	code := func(c string) error { return &pgconn.PgError{Code: c} }
	for name, c := range map[string]struct {
		err  error
		want met
	}{
		"none":                        {nil, met{}},
		"a unique violation":          {code("23505"), met{uniqueViolation: true}},
		"a check violation":           {code("23514"), met{}},
		"a lock that was not had":     {code("55P03"), met{lockTimeout: true, contention: true}},
		"a deadlock":                  {code("40P01"), met{contention: true}},
		"a serialization failure":     {code("40001"), met{contention: true}},
		"a statement time-out":        {code("57014"), met{unavailable: true}},
		"a server going down":         {code("57P01"), met{outcomeUnknown: true, unavailable: true}},
		"a process that stood still":  {code("25P03"), met{unavailable: true}},
		"a server that crashed":       {code("57P02"), met{outcomeUnknown: true, unavailable: true}},
		"a server not up yet":         {code("57P03"), met{outcomeUnknown: true, unavailable: true}},
		"too many connections":        {code("53300"), met{unavailable: true}},
		"a full disk":                 {code("53100"), met{unavailable: true}},
		"a broken connection":         {code("08006"), met{outcomeUnknown: true, unavailable: true}},
		"one that PgBouncer lost":     {code("08P01"), met{outcomeUnknown: true, unavailable: true}},
		"a syntax error":              {code("42601"), met{}},
		"an unexpected end":           {io.ErrUnexpectedEOF, met{outcomeUnknown: true, unavailable: true}},
		"an end":                      {io.EOF, met{outcomeUnknown: true, unavailable: true}},
		"a closed connection":         {net.ErrClosed, met{outcomeUnknown: true, unavailable: true}},
		"a connection that was taken": {sql.ErrConnDone, met{outcomeUnknown: true, unavailable: true}},
		"a time-out on the network":   {&net.OpError{Op: "read", Err: context.DeadlineExceeded}, met{outcomeUnknown: true, unavailable: true}},
		"a deadline":                  {context.DeadlineExceeded, met{outcomeUnknown: true, unavailable: true}},
		"a request that was given up": {context.Canceled, met{outcomeUnknown: true}},
		"anything else":               {errors.New("something"), met{outcomeUnknown: true}},
	} {
		for how, err := range map[string]error{"": c.err, ", wrapped": wrapped(c.err)} {
			if got := classify(err); got != c.want {
				t.Errorf("%s%s: %+v, want %+v", name, how, got, c.want)
			}
		}
	}
}

func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("do it: %w", fmt.Errorf("begin: %w", err))
}

// And as they are really met.
func TestErrorsOfARealServerAreClassedToo(t *testing.T) {
	t.Parallel()
	url := empty(t)
	pgtest.Exec(t, url, `CREATE TABLE t (n int CONSTRAINT t_is_positive CHECK (n > 0), CONSTRAINT t_is_one_each UNIQUE (n)); INSERT INTO t VALUES (1)`)
	db := open(t, url, postgres.Options{MaxConns: 1})
	run := func(statement string) error { return db.Conn(t.Context()).Exec(statement).Error }

	err := run(`INSERT INTO t VALUES (1)`)
	if classify(err) != (met{uniqueViolation: true}) || postgres.Constraint(err) != "t_is_one_each" {
		t.Errorf("a unique violation: %+v, constraint %q", classify(err), postgres.Constraint(err))
	}
	err = run(`INSERT INTO t VALUES (-1)`)
	if classify(err) != (met{}) || postgres.Constraint(err) != "t_is_positive" {
		t.Errorf("a check violation: %+v, constraint %q", classify(err), postgres.Constraint(err))
	}
	if got := postgres.Constraint(errors.New("no constraint")); got != "" {
		t.Errorf("an error of another kind names the constraint %q", got)
	}

	// Behind somebody who holds the row and does not commit.
	holder, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Close(context.WithoutCancel(t.Context())) }()
	if _, err := holder.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (7)`); err != nil {
		t.Fatal(err)
	}
	if err := run(`SET lock_timeout = '10ms'`); err != nil {
		t.Fatal(err)
	}
	if err := run(`INSERT INTO t VALUES (7)`); classify(err) != (met{lockTimeout: true, contention: true}) {
		t.Errorf("behind an uncommitted duplicate: %v %+v", err, classify(err))
	}

	if err := run(`SELECT pg_terminate_backend(pg_backend_pid())`); !postgres.IsOutcomeUnknown(err) || !postgres.IsUnavailable(err) {
		t.Errorf("a connection that was ended: %v %+v", err, classify(err))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := db.Conn(ctx).Exec(`SELECT pg_sleep(60)`).Error; !postgres.IsOutcomeUnknown(err) || !postgres.IsUnavailable(err) {
		t.Errorf("a deadline in the middle of a statement: %v %+v", err, classify(err))
	}
	_, err = postgres.Open(t.Context(), "postgres://user@127.0.0.1:1/oncepay?sslmode=disable", postgres.Options{})
	if postgres.IsOutcomeUnknown(err) || !postgres.IsUnavailable(err) {
		t.Errorf("a server that is absent: %v %+v", err, classify(err))
	}
}

// The server explains its errors with the row or the parameter at hand. What it
// says there may be a card's holder or a nonce, so none of it is logged.
func TestDescribeNeverQuotesTheServersDetail(t *testing.T) {
	t.Parallel()
	url := empty(t)
	pgtest.Exec(t, url, `CREATE TABLE t (n text CONSTRAINT t_is_one_each UNIQUE, CONSTRAINT t_is_short CHECK (length(n) < 20)); INSERT INTO t VALUES ('geheim')`)
	db := open(t, url, postgres.Options{})
	for name, c := range map[string]struct {
		sql  string
		args []any
		want string
	}{
		"a unique violation": {`INSERT INTO t VALUES ($1)`, []any{"geheim"}, `SQLSTATE 23505 constraint="t_is_one_each"`},
		"a check violation":  {`INSERT INTO t VALUES ($1)`, []any{"geheim, and longer than twenty"}, `SQLSTATE 23514 constraint="t_is_short"`},
		"a cast":             {`SELECT ($1::text)::uuid`, []any{"geheim"}, `SQLSTATE 22P02 constraint=""`},
		"JSON":               {`SELECT ($1::text)::jsonb`, []any{`{"geheim"}`}, `SQLSTATE 22P02 constraint=""`},
		"a function":         {`DO 'BEGIN RAISE EXCEPTION ''geheim'' USING DETAIL = ''geheim'', HINT = ''geheim'', CONSTRAINT = ''c''; END'`, nil, `SQLSTATE P0001 constraint="c"`},
		"a literal":          {`SELECT 'geheim'::int`, nil, `SQLSTATE 22P02 constraint=""`},
	} {
		err := db.Conn(t.Context()).Exec(c.sql, c.args...).Error
		if err == nil {
			t.Fatalf("%s is no error", name)
		}
		if got := postgres.Describe(fmt.Errorf("begin: %w", err)); got != c.want {
			t.Errorf("%s is described as %q, want %q", name, got, c.want)
		}
	}
	if got := postgres.Describe(nil); got != "" {
		t.Errorf("no error is described as %q", got)
	}
	if got := postgres.Describe(wrapped(io.ErrUnexpectedEOF)); got != "do it: begin: unexpected EOF" {
		t.Errorf("an error of the connection is described as %q", got)
	}
}
