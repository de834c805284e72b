package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// sessionSetting is what every session of ours must have.
type sessionSetting struct {
	name   string
	word   string        // the value, or "" where it is a time
	atMost time.Duration // more is refused, and so is none
}

// sessionSettings are sent with each new connection. PgBouncer would refuse all of
// them but the time zone; behind it they are the role's.
var sessionSettings = []sessionSetting{
	{name: "timezone", word: "UTC"},
	{name: "default_transaction_isolation", word: "read committed"},
	{name: "lock_timeout", atMost: lockTimeout},
	{name: "statement_timeout", atMost: statementTimeout},
	{name: "idle_in_transaction_session_timeout", atMost: idleInTransactionTimeout},
}

func (s sessionSetting) value() string {
	if s.word != "" {
		return s.word
	}
	return millis(s.atMost)
}

// fits judges a value as pg_settings has it: times are in milliseconds there.
func (s sessionSetting) fits(got string) bool {
	if s.word != "" {
		return strings.EqualFold(got, s.word)
	}
	ms, err := strconv.ParseInt(got, 10, 64)
	return err == nil && ms > 0 && ms <= s.atMost.Milliseconds()
}

// ErrSession is wrapped by Open's error about a session that has not the settings on
// which the product relies.
var ErrSession = errors.New("the database session has not the settings that it needs")

// sqlSession compares names as PostgreSQL does: pg_settings writes TimeZone.
const sqlSession = `/* postgres.session */
SELECT lower(s.name), s.setting, current_user::text, current_database()::text FROM pg_settings s
WHERE lower(s.name) IN ('timezone', 'default_transaction_isolation', 'lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout')`

// checkSession reads what the settings of a session really are, because what is
// between may drop what it was asked for without a word.
func checkSession(ctx context.Context, pool *pgxpool.Pool, pooled bool) error {
	rows, err := pool.Query(ctx, sqlSession)
	if err != nil {
		return err
	}
	var name, value, role, database string
	got := map[string]string{}
	if _, err := pgx.ForEachRow(rows, []any{&name, &value, &role, &database}, func() error {
		got[name] = value
		return nil
	}); err != nil {
		return err
	}
	var wrong []string
	for _, s := range sessionSettings {
		if !s.fits(got[s.name]) {
			wrong = append(wrong, s.name)
		}
	}
	switch {
	case len(wrong) == 0:
		return nil
	case pooled:
		return fmt.Errorf("%w: %s. Run as a superuser, and then RECONNECT in PgBouncer's console:\n  %s", ErrSession,
			strings.Join(wrong, ", "), strings.Join(roleSettings(role, database), "\n  "))
	}
	return fmt.Errorf("%w: %s; a pooler drops them, so give --pgbouncer, or a URL that leads to PostgreSQL itself", ErrSession, strings.Join(wrong, ", "))
}

// roleSettings are the statements that give a role, in one database, the settings of
// our sessions.
func roleSettings(role, database string) []string {
	var all []string
	for _, s := range sessionSettings {
		all = append(all, fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET %s = '%s';", quoted(role), quoted(database), s.name, s.value()))
	}
	return all
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// refusesSettings says whether a connection failed because PgBouncer takes no
// settings with it.
func refusesSettings(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && strings.HasPrefix(pg.Message, "unsupported startup parameter")
}
