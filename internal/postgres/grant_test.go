package postgres_test

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// newRole makes a role whose name has to be quoted, and what drops it.
func newRole(t *testing.T, dbURL string) (name string, drop func()) {
	t.Helper()
	name = `The "App"; ` + rand.Text()
	quoted := pgx.Identifier{name}.Sanitize()
	pgtest.Exec(t, dbURL, `CREATE ROLE `+quoted+` LOGIN`)
	return name, func() { pgtest.Exec(t, dbURL, `DROP OWNED BY `+quoted+`; DROP ROLE `+quoted) }
}

// as is the same URL for another role.
func as(t *testing.T, dbURL, role string) string {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("user", role)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // which pgx takes for a blank
	return u.String()
}

func TestRoleIsGrantedWhatTheProductNeedsOfEachTableAndNoMore(t *testing.T) {
	t.Parallel()
	dbURL := migrated(t)
	role, drop := newRole(t, dbURL)
	defer drop()
	for range 2 {
		if left, err := postgres.Grant(t.Context(), dbURL, role); err != nil || len(left) > 0 {
			t.Fatalf("%v, left %q", err, left)
		}
	}
	rows, err := connect(t, dbURL).Query(t.Context(), `
		SELECT c.relname, coalesce(string_agg(a.privilege_type, ', ' ORDER BY position(a.privilege_type in 'SELECT INSERT UPDATE DELETE')), '')
		FROM pg_class c LEFT JOIN aclexplode(c.relacl) a ON a.grantee = (SELECT oid FROM pg_roles WHERE rolname = $1)
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind NOT IN ('i', 'c') GROUP BY 1`, role)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	var table, privileges string
	if _, err := pgx.ForEachRow(rows, []any{&table, &privileges}, func() error { got[table] = privileges; return nil }); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, postgres.Privileges) {
		t.Errorf("granted %v,\nwant %v", got, postgres.Privileges)
	}
}

func TestGrantedRoleCanNeitherChangeTheSchemaNorEmptyATable(t *testing.T) {
	t.Parallel()
	dbURL := migrated(t)
	pgtest.Exec(t, dbURL, `CREATE SCHEMA another; CREATE TABLE another.t (n int)`)
	role, drop := newRole(t, dbURL)
	defer drop()
	if left, err := postgres.Grant(t.Context(), dbURL, role); err != nil || len(left) > 0 {
		t.Fatalf("%v, left %q", err, left)
	}
	conn := connect(t, as(t, dbURL, role))
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // before the role is dropped
	for _, sql := range []string{
		`CREATE TABLE t (n int)`, `CREATE SCHEMA mine`, `CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
		`ALTER TABLE payments ADD COLUMN n int`, `DROP TABLE payments`, `CREATE INDEX i ON payments (amount)`,
		`TRUNCATE payments CASCADE`, `TRUNCATE arrivals`, `DELETE FROM payments`, `DELETE FROM transactions`, `DELETE FROM events`,
		`UPDATE events SET seq = 0`, `UPDATE resolutions SET reason = 'x'`, `UPDATE schema_migrations SET version = 0`, `DELETE FROM schema_migrations`,
		`SELECT * FROM another.t`, `SELECT * FROM pg_authid`, `SET ROLE ` + pgx.Identifier{roleOf(t, dbURL)}.Sanitize(),
	} {
		_, err := conn.Exec(t.Context(), sql)
		pg, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || pg.Code != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if _, err := conn.Exec(t.Context(), `SELECT version FROM schema_migrations`); err != nil {
		t.Error(err)
	}
	// Its settings came with it.
	var got string
	if err := conn.QueryRow(t.Context(), `SELECT current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')`).Scan(&got); err != nil || got != "2s 10s" {
		t.Errorf("the time-outs are %s (%v)", got, err)
	}
}

// A role that migrates need not be a superuser; then it may not set what another
// role's sessions begin with, unless that was done already.
func TestMigratorThatIsNoSuperuserLeavesTheRolesSettingsToOne(t *testing.T) {
	t.Parallel()
	dbURL := empty(t)
	database := pgx.Identifier{databaseOf(t, dbURL)}.Sanitize()
	migrator, dropMigrator := newRole(t, dbURL)
	defer dropMigrator()
	quoted := pgx.Identifier{migrator}.Sanitize()
	pgtest.Exec(t, dbURL, `GRANT CREATE ON SCHEMA public TO `+quoted+`; REVOKE CONNECT ON DATABASE `+database+` FROM public;
		GRANT CONNECT ON DATABASE `+database+` TO `+quoted+` WITH GRANT OPTION; GRANT USAGE ON SCHEMA public TO `+quoted+` WITH GRANT OPTION`)
	role, drop := newRole(t, dbURL)
	defer drop()
	defer func() { // DROP OWNED leaves what others than the owner have granted
		pgtest.Exec(t, dbURL, `REVOKE ALL ON DATABASE `+database+` FROM `+quoted+` CASCADE; REVOKE ALL ON SCHEMA public FROM `+quoted+` CASCADE`)
	}()
	own := as(t, dbURL, migrator)
	if err := postgres.Migrate(t.Context(), own, nil); err != nil {
		t.Fatal(err)
	}
	left, err := postgres.Grant(t.Context(), own, role)
	if err != nil || len(left) != 5 {
		t.Fatalf("%v, left %q", err, left)
	}
	pgtest.Exec(t, dbURL, strings.Join(left, "\n"))
	if left, err := postgres.Grant(t.Context(), own, role); err != nil || len(left) > 0 {
		t.Errorf("with the settings: %v, left %q", err, left)
	}
	conn := connect(t, as(t, dbURL, role))
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `INSERT INTO instances (id) VALUES (gen_random_uuid())`); err != nil {
		t.Error(err)
	}
}

func TestGrantRefusesEverybodyAndNobody(t *testing.T) {
	t.Parallel()
	dbURL := migrated(t)
	for role, words := range map[string]string{"public": "one named role", "none": "one named role", "": "one named role", "nobody we know": "no such role"} {
		if _, err := postgres.Grant(t.Context(), dbURL, role); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", role, err)
		}
	}
	if got := pgtest.Exec(t, dbURL, `SELECT 1 FROM pg_class, aclexplode(relacl) a WHERE relnamespace = 'public'::regnamespace AND a.grantee = 0`); got != 0 {
		t.Errorf("everybody has %d privileges", got)
	}
}
