package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/golang-migrate/migrate/v4"
	_ "github.com/golang-migrate/migrate/v4/database/pgx/v5" // the driver behind pgx5://
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/migrations"
)

func TestLatestIsTheNewestOfTheFiles(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(migrations.FS, "*")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^(\d{6})_([a-z_]+)\.(up|down)\.sql$`)
	directions := map[string][]string{}
	for _, file := range files {
		m := name.FindStringSubmatch(file)
		if m == nil {
			t.Errorf("%s is not named like a migration", file)
			continue
		}
		directions[m[1]+"_"+m[2]] = append(directions[m[1]+"_"+m[2]], m[3])
	}
	if len(directions) != migrations.Latest {
		t.Errorf("there are %d migrations, and Latest is %d", len(directions), migrations.Latest)
	}
	for migration, d := range directions {
		slices.Sort(d)
		if !slices.Equal(d, []string{"down", "up"}) {
			t.Errorf("%s goes %v, want up and down", migration, d)
		}
		if n, err := strconv.Atoi(migration[:6]); err != nil || n < 1 || n > migrations.Latest {
			t.Errorf("%s is not numbered from 1 to %d", migration, migrations.Latest)
		}
	}
}

// catalog is all that a schema consists of, a line each: columns, constraints,
// indexes and storage parameters.
func catalog(t *testing.T, dbURL string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dbURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	rows, err := conn.Query(t.Context(), `
		SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) FROM information_schema.columns
		WHERE table_schema = 'public' AND table_name <> 'schema_migrations'
		UNION ALL SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
		WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'schema_migrations'
		UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'schema_migrations'
		UNION ALL SELECT format('%s %s', relname, reloptions) FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'schema_migrations'
		UNION ALL SELECT format('function %s', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
		ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// wantVersion fails the test unless the database stands there.
func wantVersion(t *testing.T, dbURL string, want postgres.SchemaStatus) {
	t.Helper()
	want.Latest = migrations.Latest
	got, err := postgres.Schema(t.Context(), dbURL)
	got.MissingIndexes = nil // many tests stand at a version of their own files
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the schema is %+v (%v), want %+v", got, err, want)
	}
}

// migrator is the library by itself, for the ways that the product does not go.
func migrator(t *testing.T, dbURL string) *migrate.Migrate {
	t.Helper()
	files, err := iofs.New(migrations.FS, ".")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(dbURL, "://")
	m, err := migrate.NewWithSourceInstance("iofs", files, "pgx5://"+rest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = m.Close() })
	return m
}

func TestSchemaGoesUpDownAndUpAgain(t *testing.T) {
	t.Parallel()
	dbURL := empty(t)
	wantVersion(t, dbURL, postgres.SchemaStatus{})
	if err := postgres.Migrate(t.Context(), dbURL, nil); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, dbURL, postgres.SchemaStatus{Version: migrations.Latest})
	first := catalog(t, dbURL)
	if len(first) < 100 {
		t.Fatalf("the schema has only %d parts", len(first))
	}
	m := migrator(t, dbURL)
	if err := m.Down(); err != nil {
		t.Fatal(err)
	}
	if left := catalog(t, dbURL); len(left) != 0 {
		t.Errorf("going down leaves %q", left)
	}
	wantVersion(t, dbURL, postgres.SchemaStatus{})
	if err := postgres.Migrate(t.Context(), dbURL, nil); err != nil {
		t.Fatal(err)
	}
	second := catalog(t, dbURL)
	for _, line := range first {
		if !slices.Contains(second, line) {
			t.Errorf("going down and up loses %s", line)
		}
	}
	if len(first) != len(second) {
		t.Errorf("the schema had %d parts and has %d", len(first), len(second))
	}
}

// release has the migrations up to one, as a release had whose newest that was.
func release(t *testing.T, version int) fs.FS {
	t.Helper()
	names, err := fs.Glob(migrations.FS, "*.up.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, name := range names[:version] {
		body, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: body}
	}
	return files
}

// upTo brings a schema to a version, as its release would.
func upTo(t *testing.T, dbURL string, version int) {
	t.Helper()
	if err := postgres.MigrateFrom(t.Context(), dbURL, release(t, version), nil); err != nil {
		t.Fatalf("up to %d: %v", version, err)
	}
}

// Every migration can be taken back alone, so a deployment can go back a step.
func TestEveryMigrationCanBeTakenBackAlone(t *testing.T) {
	t.Parallel()
	dbURL := empty(t)
	m := migrator(t, dbURL)
	before := catalog(t, dbURL)
	for version := 1; version <= migrations.Latest; version++ {
		upTo(t, dbURL, version)
		after := catalog(t, dbURL)
		if err := m.Steps(-1); err != nil {
			t.Fatalf("down from %d: %v", version, err)
		}
		if got := catalog(t, dbURL); !slices.Equal(got, before) {
			t.Errorf("migration %d, taken back, leaves %d parts, want %d", version, len(got), len(before))
		}
		upTo(t, dbURL, version)
		before = after
	}
}

// Every constraint has a name that a person chose: errors are told apart by it.
func TestEveryConstraintAndIndexHasItsTablesName(t *testing.T) {
	t.Parallel()
	dbURL := migrated(t)
	conn, err := pgx.Connect(t.Context(), dbURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	rows, err := conn.Query(t.Context(), `
		SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
		UNION ALL SELECT tablename, indexname FROM pg_indexes WHERE schemaname = 'public'`)
	if err != nil {
		t.Fatal(err)
	}
	var table, name string
	_, err = pgx.ForEachRow(rows, []any{&table, &name}, func() error {
		if table != "schema_migrations" && !strings.HasPrefix(name, table+"_") || strings.HasSuffix(name, "_check") || strings.HasSuffix(name, "_check1") {
			t.Errorf("%s of %s has no name of its own", name, table)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMigrateIsDoneOnceHoweverManyStart(t *testing.T) {
	t.Parallel()
	dbURL := empty(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if err := postgres.Migrate(t.Context(), dbURL, nil); err != nil {
				t.Errorf("process %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	wantVersion(t, dbURL, postgres.SchemaStatus{Version: migrations.Latest})
	if got, want := catalog(t, dbURL), catalog(t, migrated(t)); !slices.Equal(got, want) {
		t.Errorf("the schema has %d parts, want %d", len(got), len(want))
	}
	if err := postgres.Migrate(t.Context(), dbURL, nil); err != nil {
		t.Errorf("migrating what is migrated: %v", err)
	}
}

func TestMigrateThatIsGivenUpSaysSo(t *testing.T) {
	t.Parallel()
	dbURL := empty(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := postgres.Migrate(ctx, dbURL, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := postgres.Migrate(t.Context(), dbURL, nil); err != nil {
		t.Errorf("and then: %v", err)
	}
}

func TestMigrateDoesNotTouchAHalfMigratedDatabase(t *testing.T) {
	t.Parallel()
	dbURL := empty(t)
	if err := migrator(t, dbURL).Steps(1); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, dbURL, `UPDATE schema_migrations SET dirty = true`)
	before := catalog(t, dbURL)
	if err := postgres.Migrate(t.Context(), dbURL, nil); err == nil {
		t.Error("a dirty database was migrated")
	}
	wantVersion(t, dbURL, postgres.SchemaStatus{Version: 1, Dirty: true})
	if got := catalog(t, dbURL); !slices.Equal(got, before) {
		t.Error("the schema has changed")
	}
}

// A binary that is older than the schema has nothing to migrate, and says so.
func TestMigrateLeavesANewerSchemaAlone(t *testing.T) {
	t.Parallel()
	dbURL := migrated(t)
	for ahead, fits := range map[int]bool{1: true, 2: false} {
		pgtest.Exec(t, dbURL, fmt.Sprintf(`UPDATE schema_migrations SET version = %d`, migrations.Latest+ahead))
		if err := postgres.Migrate(t.Context(), dbURL, nil); fits != (err == nil) || err != nil && !errors.Is(err, postgres.ErrSchema) {
			t.Errorf("%d ahead: %v", ahead, err)
		}
		wantVersion(t, dbURL, postgres.SchemaStatus{Version: uint(migrations.Latest + ahead)})
	}
}

func TestBinaryServesItsSchemaAndTheNext(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sql, words string }{
		"its own":              {`SELECT 1`, ""},
		"an empty one":         {`DROP SCHEMA public CASCADE; CREATE SCHEMA public`, "it is empty; run `payments migrate up`"},
		"one without a record": {`DELETE FROM schema_migrations`, "it is empty; run `payments migrate up`"},
		"an older one":         {fmt.Sprintf(`UPDATE schema_migrations SET version = %d`, migrations.Latest-1), fmt.Sprintf("it is at version %d and this binary needs %d; run `payments migrate up`", migrations.Latest-1, migrations.Latest)},
		"the next":             {fmt.Sprintf(`UPDATE schema_migrations SET version = %d`, migrations.Latest+1), ""},
		"the one after that":   {fmt.Sprintf(`UPDATE schema_migrations SET version = %d`, migrations.Latest+2), fmt.Sprintf("it is at version %d and this binary serves none beyond %d; run a newer binary", migrations.Latest+2, migrations.Latest+1)},
		"half of one":          {`UPDATE schema_migrations SET dirty = true`, fmt.Sprintf("migration %d failed half-way; mend it by hand", migrations.Latest)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dbURL := migrated(t)
			pgtest.Exec(t, dbURL, c.sql)
			db := open(t, dbURL, postgres.Options{})
			err := db.CheckSchema(t.Context())
			switch {
			case c.words == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.words != "" && (!errors.Is(err, postgres.ErrSchema) || !strings.Contains(err.Error(), c.words)):
				t.Errorf("got %v, want an ErrSchema that says %q", err, c.words)
			}
		})
	}
}

// CheckSchema only reads: an instance that must not serve a database must not
// change it either. And an error that is none of the schema's is not taken for one.
func TestCheckSchemaOnlyReads(t *testing.T) {
	t.Parallel()
	dbURL := empty(t)
	db := open(t, dbURL, postgres.Options{})
	if err := db.CheckSchema(t.Context()); !errors.Is(err, postgres.ErrSchema) {
		t.Errorf("got %v", err)
	}
	if got := text(t, db, `SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public'`); got != "0" {
		t.Errorf("%s tables were made", got)
	}
	db.Close()
	if err := db.CheckSchema(t.Context()); err == nil || errors.Is(err, postgres.ErrSchema) {
		t.Errorf("without a database: %v", err)
	}
}
