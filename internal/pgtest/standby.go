package pgtest

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A server that waits for a synchronous standby. The server is everybody's, so whether
// the standby is there is, too: tests that use it are not parallel, and only the
// sessions of Synchronous wait for it.

// lookEvery is how often it is looked again for what PostgreSQL is about to do.
const lookEvery = 2 * time.Millisecond

// Synchronous is the direct way to a test's database, by sessions whose commits wait
// for the synchronous standby.
func Synchronous(dbURL string) string {
	u, err := url.Parse(Direct(dbURL))
	if err != nil {
		panic("pgtest: a URL of ours cannot be read")
	}
	q := u.Query()
	q.Set("synchronous_commit", "on")
	u.RawQuery = q.Encode()
	return u.String()
}

// StandbyAway lets the server wait for a standby that is not there, until back is
// called or the test ends. It needs to be a superuser.
func StandbyAway(t testing.TB, dbURL string) (back func()) {
	t.Helper()
	setStandby(t, dbURL, "nobody")
	back = sync.OnceFunc(func() { setStandby(t, dbURL, "") })
	t.Cleanup(back)
	return back
}

// setStandby returns when the server goes by it: it takes new settings over when it
// comes to it.
func setStandby(t testing.TB, dbURL, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stepLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, Direct(dbURL))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{`ALTER SYSTEM SET synchronous_standby_names = '` + name + `'`, `SELECT pg_reload_conf()`} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("pgtest: %s: %v", sql, err)
		}
	}
	for waits(ctx, t, dbURL, conn) != (name != "") {
		select {
		case <-ctx.Done():
			t.Fatalf("pgtest: the server did not take synchronous_standby_names over within %s", stepLimit)
		case <-time.After(lookEvery):
		}
	}
}

// waits tries out whether a commit waits for the standby.
func waits(ctx context.Context, t testing.TB, dbURL string, look *pgx.Conn) bool {
	t.Helper()
	conn, err := pgx.Connect(ctx, Synchronous(dbURL))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = conn.Exec(ctx, `SELECT pg_logical_emit_message(true, 'pgtest', '')`) // which waited or not
	}()
	defer func() { <-done }()
	for ctx.Err() == nil {
		select {
		case <-done:
			return false
		case <-time.After(lookEvery):
		}
		var cancelled bool
		err := look.QueryRow(ctx, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'`, conn.PgConn().PID()).Scan(&cancelled)
		if err == nil {
			return true
		}
	}
	return false
}

// AwaitWaiting returns the process of the session whose commit of a statement waits for
// the standby. Statements go by their names, such as transactions.begin.
func AwaitWaiting(t testing.TB, dbURL, statement string) (pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, Direct(dbURL))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for {
		err := conn.QueryRow(ctx, `SELECT pid FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event = 'SyncRep' AND starts_with(query, '/* ' || $1::text || ' */')`, statement).Scan(&pid)
		if err == nil {
			return pid
		}
		select {
		case <-ctx.Done():
			t.Fatalf("pgtest: no commit of %s waits for the standby", statement)
		case <-time.After(lookEvery):
		}
	}
}
