package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { Main(m) }

// count is the number that a query returns.
func count(t *testing.T, dbURL, sql string, args ...any) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), Direct(dbURL))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEachTestHasAMigratedDatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			dbURL := URL(t)
			if n := count(t, dbURL, `SELECT count(*) FROM schema_migrations WHERE NOT dirty`); n != 1 {
				t.Error("the database is not migrated")
			}
			Exec(t, dbURL, `CREATE TABLE mine (n int); INSERT INTO mine VALUES (0)`)
			if n := Exec(t, dbURL, `INSERT INTO mine SELECT $1 FROM generate_series(1, $2)`, i, 3); n != 3 {
				t.Errorf("%d rows", n)
			}
			if n := count(t, dbURL, `SELECT count(*) FROM mine`); n != 4 {
				t.Errorf("%d rows: somebody else writes here", n)
			}
		})
	}
}

func TestADatabaseIsDroppedAlthoughSomebodyIsConnected(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("leaks a connection", func(t *testing.T) {
		dbURL := URL(t)
		name = dbURL[strings.Index(dbURL, suite.template):]
		name, _, _ = strings.Cut(name, "?")
		conn, err := pgx.Connect(t.Context(), dbURL)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if n := count(t, suite.admin, `SELECT count(*) FROM pg_database WHERE datname = $1`, name); n != 0 {
		t.Errorf("%s is still there", name)
	}
}

func TestOpenGivesAWorkingPool(t *testing.T) {
	t.Parallel()
	if err := Open(t).Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// again runs one test of this binary in another process.
func again(t *testing.T, variable string) (output string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestEachTestHasAMigratedDatabaseOfItsOwn")
	cmd.Env = append(os.Environ(), "PGTEST_PGBOUNCER=", variable) // whose role would be made twice
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestASuiteWithoutADatabaseFails(t *testing.T) {
	t.Parallel()
	for variable, words := range map[string]string{
		"PG_BIN_DIR=/nowhere": "/nowhere has no program named postgres",
		"TEST_DATABASE_URL=postgres://oncepay:geheim@127.0.0.1:1/oncepay": "create the template",
		"TEST_DATABASE_URL=host=127.0.0.1 password=geheim":                "not of the form",
	} {
		if strings.HasPrefix(variable, "PG_BIN_DIR") && os.Getenv("TEST_DATABASE_URL") != "" {
			continue // it needs no programs
		}
		out, err := again(t, variable)
		if err == nil || !strings.Contains(out, "no database, no tests") || !strings.Contains(out, words) {
			t.Errorf("%s: %v: %s", variable, err, out)
		}
		if strings.Contains(out, "geheim") {
			t.Errorf("the message has the password: %s", out)
		}
	}
}

func TestAServerThatIsNamedIsUsedAndLeftClean(t *testing.T) {
	t.Parallel()
	const others = `SELECT count(*) FROM pg_database WHERE datname LIKE 'oncepay_test_%' AND NOT starts_with(datname, $1)`
	before := count(t, suite.admin, others, suite.template)
	if out, err := again(t, "TEST_DATABASE_URL="+suite.admin); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if os.Getenv("TEST_DATABASE_URL") != "" {
		return // others may be at work on the same server
	}
	if after := count(t, suite.admin, others, suite.template); after != before {
		t.Errorf("%d databases are left", after-before)
	}
}
