package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/migrations"
)

// connect opens a connection of the test's own.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// run runs statements on one connection.
func run(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// migrating is a Migrate in the background.
type migrating struct {
	told chan string
	done chan error
}

func migrateBeside(ctx context.Context, url string, files fs.FS) migrating {
	m := migrating{told: make(chan string, 1000), done: make(chan error, 1)}
	go func() { m.done <- postgres.MigrateFrom(ctx, url, files, func(line string) { m.told <- line }) }()
	return m
}

const patience = 30 * time.Second

// awaitTold waits for a line with these words.
func (m migrating) awaitTold(t *testing.T, words string) {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case line := <-m.told:
			if strings.Contains(line, words) {
				return
			}
		case err := <-m.done:
			t.Fatalf("it ended before it told of %q: %v", words, err)
		case <-limit:
			t.Fatalf("it did not tell of %q within %s", words, patience)
		}
	}
}

func (m migrating) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-m.done:
		return err
	case <-time.After(patience):
		t.Fatalf("it did not end within %s", patience)
		return nil
	}
}

// writes are the product's, one after another, on a table that is migrated.
type writes struct {
	stop    chan struct{}
	wg      sync.WaitGroup
	count   int
	longest time.Duration
	err     error
}

func writeBeside(t *testing.T, url string) *writes {
	t.Helper()
	db := open(t, url, postgres.Options{})
	w := &writes{stop: make(chan struct{})}
	w.wg.Go(func() {
		for w.err == nil {
			select {
			case <-w.stop:
				return
			default:
			}
			began := time.Now()
			w.err = db.Conn(t.Context()).Exec(`UPDATE merchants SET changed_at = clock_timestamp()`).Error
			w.longest = max(w.longest, time.Since(began))
			w.count++
		}
	})
	return w
}

func (w *writes) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	w.wg.Wait()
	if w.err != nil || w.longest >= postgres.LockTimeout {
		t.Errorf("a write took %s (%v), and none may take %s", w.longest, w.err, postgres.LockTimeout)
	}
	t.Logf("%d writes, the longest %s", w.count, w.longest)
}

// atVersion4 is a database that the next migration has to alter tables of.
func atVersion4(t *testing.T) string {
	t.Helper()
	url := empty(t)
	if err := migrator(t, url).Migrate(4); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, `INSERT INTO merchants (account_id, name) VALUES (gen_random_uuid(), 'one')`)
	return url
}

// A report, or a backup, that reads a table for minutes keeps a migration from it; and
// whoever writes would stand behind the migration.
func TestMigrationThatFindsATableHeldKeepsNobodyWaitingForLong(t *testing.T) {
	t.Parallel()
	url := atVersion4(t)
	holder := connect(t, url)
	run(t, holder, `BEGIN; SELECT count(*) FROM merchants`)
	w := writeBeside(t, url)
	m := migrateBeside(t.Context(), url, migrations.FS)
	for range 2 {
		m.awaitTold(t, "migration 5: others hold its tables; trying again")
		wantVersion(t, url, postgres.SchemaStatus{Version: 4}) // and not dirty: binaries that start meanwhile may serve
	}
	run(t, holder, `COMMIT`)
	if err := m.wait(t); err != nil {
		t.Error(err)
	}
	w.end(t)
	wantVersion(t, url, postgres.SchemaStatus{Version: migrations.Latest})
}

// Ctrl-C while a migration waits, and in the middle of its statements.
func TestMigrationThatIsBrokenOffLeavesAWholeSchema(t *testing.T) {
	t.Parallel()
	url := atVersion4(t)
	before := catalog(t, url)
	holder := connect(t, url)
	run(t, holder, `BEGIN; SELECT count(*) FROM api_keys`) // the migration alters merchants first
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := migrateBeside(ctx, url, migrations.FS)
	m.awaitTold(t, "trying again")
	cancel()
	if err := m.wait(t); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantVersion(t, url, postgres.SchemaStatus{Version: 4})
	if after := catalog(t, url); len(after) != len(before) {
		t.Errorf("the schema had %d parts, and has %d", len(before), len(after))
	}
	run(t, holder, `COMMIT`)
	if err := postgres.Migrate(t.Context(), url, nil); err != nil {
		t.Error(err)
	}
}

// files are migrations for a test.
func files(bodies ...string) fstest.MapFS {
	all := fstest.MapFS{}
	for i, body := range bodies {
		all[fmt.Sprintf("%06d_test.up.sql", i+1)] = &fstest.MapFile{Data: []byte(body)}
	}
	return all
}

func TestMigrationThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	url := empty(t)
	bad := files(`CREATE TABLE a (n int)`, `CREATE TABLE b (n int); CREATE TABLE a (n int)`)
	err := postgres.MigrateFrom(t.Context(), url, bad, nil)
	if err == nil || !strings.Contains(err.Error(), "migration 2:") {
		t.Errorf("got %v", err)
	}
	wantVersion(t, url, postgres.SchemaStatus{Version: 1})
	if got := pgtest.Exec(t, url, `SELECT 1 FROM pg_class WHERE relname = 'b'`); got != 0 {
		t.Error("half of it is there")
	}
	if err := postgres.MigrateFrom(t.Context(), url, files(`CREATE TABLE a (n int)`, `CREATE TABLE b (n int)`), nil); err != nil {
		t.Errorf("mended: %v", err)
	}
}

// An index on a table in use is built beside the traffic. It waits for every older
// transaction, and for no lock time-out; others who want to migrate wait without a
// transaction, or it would wait for them, and they for it.
func TestConcurrentMigrationWaitsForTransactionsAndNobodyForIt(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	pgtest.Exec(t, url, `INSERT INTO merchants (account_id, name) VALUES (gen_random_uuid(), 'one'); UPDATE schema_migrations SET version = 1`)
	next := files(`SELECT 'as it is'`, `-- then, beside the traffic:
-- Serves a test.
CREATE INDEX CONCURRENTLY merchants_name ON merchants (name)`)
	holder := connect(t, url)
	run(t, holder, `BEGIN; UPDATE merchants SET name = 'two'`)
	m := migrateBeside(t.Context(), url, next)
	m.awaitTold(t, "built beside the traffic")
	second := migrateBeside(t.Context(), url, next)
	second.awaitTold(t, "another process migrates this database")
	select { // longer than a lock may be waited for
	case err := <-m.done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(postgres.MigrationLockTimeout + 500*time.Millisecond):
	}
	wantVersion(t, url, postgres.SchemaStatus{Version: 2})
	run(t, holder, `COMMIT`)
	w := writeBeside(t, url)
	if err := errors.Join(m.wait(t), second.wait(t)); err != nil {
		t.Error(err)
	}
	w.end(t)
	wantVersion(t, url, postgres.SchemaStatus{Version: 2})
	if got := pgtest.Exec(t, url, `SELECT 1 FROM pg_index WHERE indexrelid = 'merchants_name'::regclass AND indisvalid`); got != 1 {
		t.Error("there is no index that can be used")
	}
}

// A binary that migrates by golang-migrate's own driver may be at work.
func TestMigrationsOfGolangMigrateAreWaitedFor(t *testing.T) {
	t.Parallel()
	url := empty(t)
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	other, err := migratepgx.WithInstance(stdlib.OpenDB(*cfg), &migratepgx.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if err := other.Lock(); err != nil {
		t.Fatal(err)
	}
	m := migrateBeside(t.Context(), url, migrations.FS)
	m.awaitTold(t, "another process migrates this database")
	wantVersion(t, url, postgres.SchemaStatus{})
	if err := errors.Join(other.Unlock(), m.wait(t)); err != nil {
		t.Error(err)
	}
	wantVersion(t, url, postgres.SchemaStatus{Version: migrations.Latest})
}

// The migrator opens and ends the transaction of each file.
func TestMigrationsHoldNoTransactionStatements(t *testing.T) {
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
		for line := range strings.SplitSeq(string(body), "\n") {
			switch word, _, _ := strings.Cut(strings.ToUpper(strings.Trim(line, " ;")), " "); word {
			case "BEGIN", "COMMIT", "ROLLBACK", "START", "END", "SET":
				t.Errorf("%s has %s", name, word)
			}
		}
	}
}
