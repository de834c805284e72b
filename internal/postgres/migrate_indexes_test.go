package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/migrations"
)

// A release has one migration, so one may make a column and, behind a line that says so,
// the indexes on it.
func TestMigrationIsDividedIntoATransactionAndIndexes(t *testing.T) {
	t.Parallel()
	const line = "-- then, beside the traffic:\n"
	for body, want := range map[string]struct{ together, indexes string }{
		"CREATE TABLE t (n int)":                                 {"CREATE TABLE t (n int)", "[]"},
		"-- CREATE INDEX CONCURRENTLY\nSELECT 1":                 {"-- CREATE INDEX CONCURRENTLY\nSELECT 1", "[]"},
		"SELECT 1;\n" + line + "-- no; nothing\n":                {"SELECT 1;\n", "[]"},
		line + "CREATE INDEX CONCURRENTLY i ON t(n)":             {"", "[{i t CREATE INDEX CONCURRENTLY i ON t(n)}]"},
		line + "CREATE UNIQUE INDEX CONCURRENTLY i ON t (n);":    {"", "[{i t CREATE UNIQUE INDEX CONCURRENTLY i ON t (n)}]"},
		line + "CREATE INDEX\n CONCURRENTLY i_2\n ON t_2 (n)":    {"", "[{i_2 t_2 CREATE INDEX\n CONCURRENTLY i_2\n ON t_2 (n)}]"},
		line + "/* ; */ CREATE INDEX CONCURRENTLY i ON t\n(n);":  {"", "[{i t CREATE INDEX CONCURRENTLY i ON t\n(n)}]"},
		line + "CREATE INDEX CONCURRENTLY i ON t USING gin (n);": {"", "[{i t CREATE INDEX CONCURRENTLY i ON t USING gin (n)}]"},
		"A;\n" + line + "-- One; only.\nCREATE INDEX CONCURRENTLY i ON t (n);\n\nCREATE INDEX CONCURRENTLY j ON u (m) WHERE m <> '';\n": {
			"A;\n", "[{i t CREATE INDEX CONCURRENTLY i ON t (n)} {j u CREATE INDEX CONCURRENTLY j ON u (m) WHERE m <> ''}]"},
	} {
		together, indexes, err := postgres.MigrationParts(body)
		if err != nil || together != want.together || fmt.Sprint(indexes) != want.indexes {
			t.Errorf("%q: %q and %v (%v)", body, together, indexes, err)
		}
	}
	for _, statement := range []string{
		"CREATE INDEX i ON t (n)", "CREATE INDEX CONCURRENTLY ON t (n)", "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (n)",
		"CREATE INDEX CONCURRENTLY i ON ONLY t (n)", "CREATE INDEX CONCURRENTLY i ON public.t (n)", `CREATE INDEX CONCURRENTLY "I" ON t (n)`,
		"DROP INDEX CONCURRENTLY i", "REINDEX INDEX CONCURRENTLY i", "UPDATE t SET n = 0", "CREATE TABLE t (n int)",
	} {
		if _, indexes, err := postgres.MigrationParts(line + statement); err == nil {
			t.Errorf("%s: %v", statement, indexes)
		}
	}
}

// Whoever builds them must know them by name, and know that it is no other.
func TestOnlyIndexesAreBuiltBesideTheTraffic(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		body, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		together, indexes, err := postgres.MigrationParts(string(body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(together, "CONCURRENTLY") {
			t.Errorf("%s has CONCURRENTLY above the line, in a transaction", name)
		}
		if indexes != nil && strings.HasSuffix(name, ".down.sql") {
			t.Errorf("%s has the line, which means nothing in it", name)
		}
	}
}

// indexed is a migration that is divided.
const indexed = `CREATE TABLE t (n int, m int);
INSERT INTO t VALUES (1, 1), (2, 1);
-- then, beside the traffic:
CREATE INDEX CONCURRENTLY t_n ON t (n);
CREATE UNIQUE INDEX CONCURRENTLY t_m ON t (m);
`

// usable finds its indexes that can be used.
const usable = `SELECT 1 FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid`

// What a failed CONCURRENTLY leaves is an index that each write pays for and no search
// uses. Migration 9 was once in two parts of which the second could not be run again.
func TestIndexThatFailedIsBuiltAgain(t *testing.T) {
	t.Parallel()
	url := empty(t)
	for range 2 { // the second meets what the first has left
		err := postgres.MigrateFrom(t.Context(), url, files(indexed), nil)
		if err == nil || !strings.Contains(err.Error(), "migration 1 is applied and can be served, but its index t_m is not built") {
			t.Errorf("got %v", err)
		}
		wantVersion(t, url, postgres.SchemaStatus{Version: 1})
		if all, good := pgtest.Exec(t, url, `SELECT 1 FROM pg_index WHERE indrelid = 't'::regclass`), pgtest.Exec(t, url, usable); all != 2 || good != 1 {
			t.Errorf("%d of %d indexes can be used, want 1 of 2", good, all)
		}
	}
	kept := pgtest.Exec(t, url, `UPDATE t SET m = n`)
	before := indexOID(t, url, "t_n")

	// The next release is not begun before this one is whole.
	next := files(indexed, `CREATE TABLE u (n int); DO $$ BEGIN ASSERT (SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 't'::regclass); END $$`)
	var told []string
	if err := postgres.MigrateFrom(t.Context(), url, next, func(line string) { told = append(told, line) }); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, url, postgres.SchemaStatus{Version: 2})
	if got := pgtest.Exec(t, url, usable); got != 2 || kept != 2 {
		t.Errorf("%d of 2 indexes can be used, on %d of 2 rows", got, kept)
	}
	if len(told) != 2 || !strings.Contains(told[0], "index t_m was left unfinished") || !strings.Contains(told[1], "index t_m is built") {
		t.Errorf("told %q", told)
	}
	if after := indexOID(t, url, "t_n"); after != before {
		t.Error("the index that was good was built again")
	}
}

// indexOID tells one index of a name from the next.
func indexOID(t *testing.T, url, name string) (oid uint32) {
	t.Helper()
	if err := connect(t, url).QueryRow(t.Context(), `SELECT $1::text::regclass::oid`, name).Scan(&oid); err != nil {
		t.Fatal(err)
	}
	return oid
}

// atVersion is a database that a release has left.
func atVersion(t *testing.T, version int) string {
	t.Helper()
	url := empty(t)
	upTo(t, url, version)
	return url
}

// consoleIndexes are those of migration 9.
var consoleIndexes = []string{"payments_id", "payments_merchant_customer_id", "transactions_provider_reference"}

// wantMissing fails the test unless these indexes are missing, and instances serve all the same.
func wantMissing(t *testing.T, url string, want ...string) {
	t.Helper()
	s, err := postgres.Schema(t.Context(), url)
	if err != nil || !slices.Equal(s.MissingIndexes, want) {
		t.Errorf("%q are missing (%v), want %q", s.MissingIndexes, err, want)
	}
	for _, s.Latest = range []uint{s.Version, s.Version - 1} { // its release, and the one before
		if err := s.Misfit(); err != nil {
			t.Errorf("no instance can start: %v", err)
		}
	}
}

// The process dies between the parts, or in the middle of an index.
func TestMigrationThatDiedWhileItBuiltAnIndexIsResumed(t *testing.T) {
	t.Parallel()
	url := atVersion(t, 8)
	holder := connect(t, url) // has a snapshot that the index must wait for
	run(t, holder, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM merchants`)
	for range 2 {
		m := migrateBeside(t.Context(), url, release(t, 9))
		m.awaitTold(t, "migration 9: index payments_id is built beside the traffic")
		waiter := awaitWaiter(t, url)
		wantVersion(t, url, postgres.SchemaStatus{Version: 9})
		wantMissing(t, url, consoleIndexes...)
		run(t, connect(t, url), fmt.Sprintf(`SELECT pg_terminate_backend(%d)`, waiter))
		if err := m.wait(t); err == nil {
			t.Fatal("it outlived its session")
		}
	}
	wantMissing(t, url, consoleIndexes...)
	if got := pgtest.Exec(t, url, `SELECT 1 FROM pg_index WHERE NOT indisvalid`); got != 1 {
		t.Errorf("%d indexes are invalid, want the one that was being built", got)
	}

	first, second := migrateBeside(t.Context(), url, release(t, 9)), migrateBeside(t.Context(), url, release(t, 9))
	run(t, holder, `COMMIT`)
	if err := errors.Join(first.wait(t), second.wait(t)); err != nil {
		t.Error(err)
	}
	wantMissing(t, url)
	if got, want := catalog(t, url), catalog(t, atVersion(t, 9)); !slices.Equal(got, want) {
		t.Errorf("the schema has %d parts, want %d", len(got), len(want))
	}
}

// awaitWaiter returns the process number of a migration that waits for a lock or a snapshot.
func awaitWaiter(t *testing.T, url string) (pid int) {
	t.Helper()
	conn := connect(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for pid == 0 {
		err := conn.QueryRow(ctx, `SELECT coalesce(max(pid), 0) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'oncepay-migrate' AND wait_event_type = 'Lock'`).Scan(&pid)
		if err != nil {
			t.Fatalf("no migration waits: %v", err)
		}
	}
	return pid
}

// Ctrl-C while an index is built: that one is finished, and no other begun.
func TestMigrationThatIsBrokenOffFinishesItsIndex(t *testing.T) {
	t.Parallel()
	url := atVersion(t, 8)
	holder := connect(t, url)
	run(t, holder, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM merchants`)
	ctx, cancel := context.WithCancel(t.Context())
	m := migrateBeside(ctx, url, release(t, 9))
	m.awaitTold(t, "index payments_id is built")
	cancel()
	run(t, holder, `COMMIT`)
	if err := m.wait(t); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantMissing(t, url, consoleIndexes[1:]...)
	upTo(t, url, 9)
	wantMissing(t, url)
}

// Indexes that are lost later, to a dump that was not restored whole or to a hand.
func TestMigrateBuildsWhatIsMissingOfTheNewestVersion(t *testing.T) {
	t.Parallel()
	url := atVersion(t, 9)
	wantMissing(t, url)
	pgtest.Exec(t, url, `DROP INDEX payments_merchant_customer_id`)
	pgtest.Exec(t, url, `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'transactions_provider_reference'::regclass`)
	wantMissing(t, url, consoleIndexes[1:]...)
	good := indexOID(t, url, consoleIndexes[0])
	for range 2 {
		upTo(t, url, 9)
	}
	wantMissing(t, url)
	if indexOID(t, url, consoleIndexes[0]) != good {
		t.Error("the index that was good was built again")
	}
}

// The limits of a migration hold again for the next, which stands in line for tables.
func TestLimitsOfAMigrationAreBackAfterAnIndex(t *testing.T) {
	t.Parallel()
	url := empty(t)
	check := `DO $$ BEGIN ASSERT current_setting('lock_timeout') = '1s' AND current_setting('statement_timeout') = '30min'; END $$;`
	if err := postgres.MigrateFrom(t.Context(), url, files(check+strings.Replace(indexed, "(2, 1)", "(2, 2)", 1), check), nil); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, url, postgres.SchemaStatus{Version: 2})
}
