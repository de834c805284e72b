package postgres_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgbouncer"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/migrations"
)

var behindPgBouncer = postgres.Options{PgBouncer: true}

func TestSessionsBehindPgBouncerAreAsOursMustBe(t *testing.T) {
	t.Parallel()
	db := open(t, pgtest.ThroughPgBouncer(t, migrated(t)), behindPgBouncer)
	for name, want := range map[string]string{
		"timezone": "UTC", "transaction_isolation": "read committed", "lock_timeout": "2s", "statement_timeout": "10s",
		"idle_in_transaction_session_timeout": "5s", "application_name": "oncepay",
	} {
		if got := text(t, db, `SELECT current_setting($1)`, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// Each statement may have another session, and more clients than sessions take turns.
func TestStatementsGoThroughPgBouncerWhoeversSessionTheyGet(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	db := open(t, pgtest.ThroughPgBouncer(t, url), behindPgBouncer)
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			for range 5 {
				if got := text(t, db, `SELECT $1::text || pg_sleep(0.001)`, "x"); got != "x" {
					t.Errorf("got %q", got)
				}
				if err := db.InTx(t.Context(), func(tx postgres.Tx) error {
					return tx.Exec(`INSERT INTO instances (id) VALUES (gen_random_uuid())`).Error
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := text(t, db, `SELECT count(*)::text FROM instances`); got != "300" {
		t.Errorf("%s rows, want 300", got)
	}
	if got := text(t, db, `SELECT count(*)::text FROM pg_prepared_statements`); got != "0" {
		t.Errorf("%s prepared statements were left in a session that is everybody's", got)
	}
}

// PgBouncer reports a server that it lost in the middle of a statement as an error of
// the protocol, although the statement may have been committed. Taken for a refusal, a
// begin that was committed would be given up, and its nonce wait for the end of a lease
// that nobody uses.
func TestOutcomeIsUnknownWherePgBouncerLostTheServer(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	proxy := pgproxy.New(t, url)
	role := roleOf(t, url)
	bouncer, err := pgbouncer.Start(t.Context(), pgtest.TempDir(), proxy.URL(), role)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bouncer.Close(); err != nil {
			t.Error(err)
		}
	})
	if left, err := postgres.Grant(t.Context(), url, role); err != nil || len(left) > 0 {
		t.Fatalf("%v, left %q", err, left)
	}
	endSessions(t, url)
	db := open(t, bouncer.URL(databaseOf(t, url), role), behindPgBouncer)
	for at, want := range map[pgproxy.Point]string{pgproxy.Asked: "0", pgproxy.Answered: "1"} {
		pgtest.Exec(t, url, `DELETE FROM instances`)
		insert := func() error {
			return db.Conn(t.Context()).Exec(`/* test.insert */ INSERT INTO instances (id) VALUES (gen_random_uuid())`).Error
		}
		proxy.Cut("test.insert", at)
		err := insert()
		t.Logf("lost at %d: %v", at, err)
		if !postgres.IsOutcomeUnknown(err) || !postgres.IsUnavailable(err) {
			t.Errorf("a server that was lost: %v %+v", err, classify(err))
		}
		if got := text(t, db, `SELECT count(*)::text FROM instances`); got != want {
			t.Errorf("%s rows, want %s", got, want)
		}
	}
}

func TestOpenRefusesSessionsThatAreNotAsOursMustBe(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	pooled := pgtest.ThroughPgBouncer(t, url)
	if db, err := postgres.Open(t.Context(), pooled, postgres.Options{}); err == nil {
		db.Close()
		t.Error("PgBouncer was taken for PostgreSQL")
	} else if !errors.Is(err, postgres.ErrSession) || !strings.Contains(err.Error(), "give --pgbouncer") {
		t.Errorf("without the option: %v", err)
	}

	// The statements in the message are the ones that help.
	database := pgx.Identifier{databaseOf(t, url)}.Sanitize()
	for setting, value := range map[string]string{
		"lock_timeout": "0", "statement_timeout": "'1min'", "default_transaction_isolation": "'serializable'", "idle_in_transaction_session_timeout": "'5001ms'",
	} {
		pgtest.Exec(t, url, `ALTER ROLE `+pgtest.AppRole+` IN DATABASE `+database+` SET `+setting+` = `+value)
		endSessions(t, url)
		db, err := postgres.Open(t.Context(), pooled, behindPgBouncer)
		if err == nil {
			db.Close()
			t.Fatalf("%s = %s was taken", setting, value)
		}
		if !errors.Is(err, postgres.ErrSession) || !strings.Contains(err.Error(), "it needs: "+setting+".") {
			t.Errorf("%s = %s: %v", setting, value, err)
		}
		_, help, _ := strings.Cut(err.Error(), ":\n")
		pgtest.Exec(t, url, help)
		endSessions(t, url)
		open(t, pooled, behindPgBouncer).Close()
	}
	pgtest.Exec(t, url, `ALTER ROLE `+pgtest.AppRole+` IN DATABASE `+database+` SET lock_timeout = '1999ms'`) // less is fine
	endSessions(t, url)
	open(t, pooled, behindPgBouncer)
}

// endSessions makes PgBouncer open new ones, as RECONNECT does.
func endSessions(t *testing.T, url string) {
	t.Helper()
	pgtest.Exec(t, url, `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
}

func roleOf(t *testing.T, url string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.User
}

func databaseOf(t *testing.T, url string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Database
}

func TestMigrateRefusesAPoolerAndSchemaDoesNot(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	pooled := pgtest.ThroughPgBouncer(t, url)
	if err := postgres.Migrate(t.Context(), pooled, nil); !errors.Is(err, postgres.ErrPooled) {
		t.Errorf("got %v", err)
	}
	wantVersion(t, pooled, postgres.SchemaStatus{Version: migrations.Latest})
}
