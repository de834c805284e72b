// Package pgtest gives each test a real PostgreSQL database of its own.
//
// The migrations run once a test binary, into a template; a test gets a copy of
// that, which is much quicker than to migrate again. A package that
// needs a database and does not get one fails: a suite that skips its database
// tests is green for the wrong reason.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		db := pgtest.Open(t)
//		…
//	}
//
// With PGTEST_PGBOUNCER=1 the product reaches its databases as most of the world's
// do: through a PgBouncer in transaction mode, and as a role that can do no more than
// it must. Its tests look on, and set their scenes, by the direct way (Direct).
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/pgtest/pgbouncer"
	"github.com/oncepay/oncepay/internal/postgres"
)

const (
	// setUpLimit covers initdb and the migrations on a slow, busy machine, where
	// they take seconds instead of the usual one and a half.
	setUpLimit = 2 * time.Minute

	// stepLimit bounds one small thing, such as copying the template: milliseconds,
	// unless something is broken.
	stepLimit = 30 * time.Second

	// memory is Linux's file system in memory. Copying the template there takes a
	// quarter of the time that it takes on a disk.
	memory = "/dev/shm"

	// memoryNeeded is room for the servers of a few test binaries at once, with some
	// ten databases of 8 MB each and the log of their writes. A container that was
	// given Docker's default, 64 MB, uses the disk.
	memoryNeeded = 2 << 30
)

// settings trade durability, of which a test's server needs none, for speed; allow
// for parallel tests with a pool each; and keep the log of writes small, because it
// lies in memory.
var settings = map[string]string{
	"fsync":              "off",
	"full_page_writes":   "off",
	"synchronous_commit": "off",
	"max_connections":    "300",
	"max_wal_size":       "128MB",
}

// suite is what the tests of one binary share.
var suite struct {
	admin    string // the URL of the database from which others are created
	template string
	// copying is held while the template is copied: PostgreSQL lets nobody be
	// connected to a template meanwhile, another copier included.
	copying sync.Mutex
	copies  atomic.Int64

	bouncer   func() (*pgbouncer.Server, error)
	bouncerUp atomic.Pointer[pgbouncer.Server]
}

// AppRole is the role that the product has behind PgBouncer.
const AppRole = "oncepay_app"

// Main is a whole TestMain.
func Main(m *testing.M) {
	os.Exit(Run(m)) //nolint:forbidigo // without it, a suite that has no database would pass
}

// Run prepares the database server, runs the tests and tidies up. It returns the
// exit code.
//
// The server is a private one, gone afterwards even if the tests are killed. If
// TEST_DATABASE_URL names another, where databases may be created, that is used.
func Run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), setUpLimit)
	defer cancel()
	tearDown, err := setUp(ctx)
	if err != nil {
		complain("no database, no tests", err)
		return 1
	}
	code := m.Run()
	ctx, cancel = context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	if err := tearDown(ctx); err != nil {
		complain("tidy up", err)
		return max(code, 1)
	}
	return code
}

func complain(what string, err error) {
	fmt.Fprintf(os.Stderr, "pgtest: %s: %v\n", what, err) //nolint:forbidigo // there is no test yet, or no more, to tell it
}

// setUp makes the template and returns what undoes it.
func setUp(ctx context.Context) (tearDown func(context.Context) error, err error) {
	stop := func(context.Context) error { return nil }
	suite.admin = os.Getenv("TEST_DATABASE_URL")
	if suite.admin == "" {
		server, err := localpg.Start(ctx, localpg.Options{TempDir: TempDir(), Settings: settings})
		if err != nil {
			return nil, err
		}
		suite.admin = server.URL()
		stop = func(ctx context.Context) error {
			ended, cancel := context.WithCancel(ctx)
			cancel() // nothing is worth an orderly shutdown
			return errors.Join(server.Err(), server.Stop(ended))
		}
	} else if u, err := url.Parse(suite.admin); err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		return nil, errors.New("TEST_DATABASE_URL is not of the form postgres://user@host/database") // not quoted: it has a password
	}
	suite.template = "oncepay_test_" + strings.ToLower(rand.Text()[:8]) // other binaries may share the server
	suite.bouncer = sync.OnceValues(startBouncer)
	tearDown = func(ctx context.Context) error {
		var err error
		if b := suite.bouncerUp.Load(); b != nil {
			err = b.Close()
		}
		return errors.Join(err, dropDatabase(ctx, suite.template), stop(ctx))
	}
	if err := makeTemplate(ctx); err != nil {
		return nil, errors.Join(err, tearDown(ctx))
	}
	return tearDown, nil
}

// TempDir is where a private server's data goes that need not last: into memory, if
// there is room. Empty leaves it to localpg.
func TempDir() string {
	if os.Getenv("TMPDIR") != "" {
		return "" // somebody has a reason
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < memoryNeeded {
		return ""
	}
	return memory
}

func makeTemplate(ctx context.Context) error {
	if err := adminExec(ctx, `CREATE DATABASE `+quote(suite.template)); err != nil {
		return fmt.Errorf("create the template: %w", err)
	}
	if err := postgres.Migrate(ctx, databaseURL(suite.template), nil); err != nil {
		return fmt.Errorf("migrate the template: %w", err)
	}
	// Whoever connected now would stop every copy.
	if err := adminExec(ctx, `ALTER DATABASE `+quote(suite.template)+` ALLOW_CONNECTIONS false`); err != nil {
		return fmt.Errorf("close the template: %w", err)
	}
	return nil
}

// startBouncer starts what PgBouncer's tests need, once: most tests do without it.
func startBouncer() (*pgbouncer.Server, error) {
	if os.Getenv("TEST_DATABASE_URL") != "" {
		return nil, errors.New("behind PgBouncer, tests make a role and need a server of their own: unset TEST_DATABASE_URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	if err := adminExec(ctx, `CREATE ROLE `+AppRole+` LOGIN`); err != nil {
		return nil, err
	}
	b, err := pgbouncer.Start(ctx, TempDir(), suite.admin, AppRole)
	if err == nil {
		suite.bouncerUp.Store(b)
	}
	return b, err
}

// URL returns the URL of a new, migrated database, which is dropped when the test
// ends, whoever is still connected to it.
func URL(t testing.TB) string {
	t.Helper()
	dbURL := newDatabase(t)
	if os.Getenv("PGTEST_PGBOUNCER") != "" { // asked here, where go test notes that the result depends on it
		return ThroughPgBouncer(t, dbURL)
	}
	return dbURL
}

// ThroughPgBouncer is the URL of the same database through PgBouncer, as AppRole, to
// which `payments migrate up --grant-to` has granted what the product needs.
func ThroughPgBouncer(t testing.TB, dbURL string) string {
	t.Helper()
	b := PgBouncer(t)
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	if left, err := postgres.Grant(ctx, Direct(dbURL), AppRole); err != nil || len(left) > 0 {
		t.Fatalf("pgtest: %v, left %q", err, left)
	}
	return b.URL(nameIn(dbURL), AppRole)
}

// PgBouncer is the one of this run. It lets AppRole in, to any database.
func PgBouncer(t testing.TB) *pgbouncer.Server {
	t.Helper()
	b, err := suite.bouncer()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return b
}

// Direct is the way to the same database that no PgBouncer is on, as its owner: for
// tests that look at it, set a scene in it, or are about the wire itself.
func Direct(dbURL string) string {
	if name := nameIn(dbURL); suite.template != "" && strings.HasPrefix(name, suite.template) {
		return databaseURL(name)
	}
	return dbURL // none of ours
}

// Pooled says whether a URL leads through PgBouncer, perhaps behind a proxy.
func Pooled(dbURL string) bool {
	cfg, err := pgx.ParseConfig(dbURL)
	return err == nil && cfg.User == AppRole
}

// Options are the product's for a URL: they say whether it leads through PgBouncer.
func Options(dbURL string, o postgres.Options) postgres.Options {
	o.PgBouncer = Pooled(dbURL)
	return o
}

// nameIn is the name of a URL's database.
func nameIn(dbURL string) string {
	u, err := url.Parse(dbURL)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(u.Path, "/")
}

func newDatabase(t testing.TB) string {
	t.Helper()
	if suite.template == "" {
		t.Fatal("pgtest: this package's TestMain does not call pgtest.Main")
	}
	name := fmt.Sprintf("%s_%d", suite.template, suite.copies.Add(1))
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	if err := copyTemplate(ctx, name); err != nil {
		t.Fatalf("pgtest: copy the template: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stepLimit)
		defer cancel()
		if err := dropDatabase(ctx, name); err != nil {
			t.Errorf("pgtest: drop the database: %v", err)
		}
	})
	return databaseURL(name)
}

// Open returns a new, migrated database, closed and dropped when the test ends.
func Open(t testing.TB) *postgres.DB {
	t.Helper()
	dbURL := URL(t)
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	db, err := postgres.Open(ctx, dbURL, Options(dbURL, postgres.Options{}))
	if err != nil {
		t.Fatalf("pgtest: open the database: %v", err)
	}
	t.Cleanup(db.Close)
	return db
}

// Exec runs a statement, or without arguments several, on a direct connection of its own,
// and returns how many rows the last one changed or returned.
func Exec(t testing.TB, dbURL, sql string, args ...any) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	rows, err := execOn(ctx, Direct(dbURL), sql, args...)
	if err != nil {
		t.Fatalf("pgtest: %s: %v", sql, err)
	}
	return rows
}

func copyTemplate(ctx context.Context, name string) error {
	suite.copying.Lock()
	defer suite.copying.Unlock()
	return adminExec(ctx, `CREATE DATABASE `+quote(name)+` TEMPLATE `+quote(suite.template))
}

func dropDatabase(ctx context.Context, name string) error {
	return adminExec(ctx, `DROP DATABASE IF EXISTS `+quote(name)+` WITH (FORCE)`)
}

func adminExec(ctx context.Context, sql string) error {
	_, err := execOn(ctx, suite.admin, sql)
	return err
}

func execOn(ctx context.Context, dbURL, sql string, args ...any) (rows int64, err error) {
	conn, err := pgx.Connect(ctx, dbURL)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	tag, err := conn.Exec(ctx, sql, args...)
	return tag.RowsAffected(), err
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// databaseURL is the admin's URL with another database in it.
func databaseURL(name string) string {
	u, err := url.Parse(suite.admin)
	if err != nil {
		panic("pgtest: setUp let a broken URL through")
	}
	u.Path = "/" + name
	return u.String()
}
