package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlSchema is everything that a schema says, in text.
const sqlSchema = `
SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) || ' validated ' || convalidated
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'table ' || relname || ' ' || relkind::text || ' ' || relpersistence::text || ' ' || coalesce(reloptions::text, '') || ' ' || relchecks || ' ' || relhastriggers
FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'column ' || attrelid::regclass || ' ' || attnum || ' ' || attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull || ' ' || attisdropped
FROM pg_attribute WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r')
UNION ALL SELECT 'trigger ' || tgrelid::regclass || ' ' || tgfoid::regproc || ' ' || tgenabled::text FROM pg_trigger
ORDER BY 1`

func linesOf(t *testing.T, url, sql string, args ...any) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// builtStage is a stage whose databases are made, and the server on them. On the same
// server there is a third, which has only been migrated.
func builtStage(t *testing.T, stored int) (product, below, pristine string) {
	t.Helper()
	f, err := newFolder(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.remove(); err != nil {
			t.Error(err)
		}
	})
	s := &stage{folder: f, floor: &floor{}}
	if err := s.build(t.Context(), []byte("a secret of the tests, 32 bytes or more"), stored, t.Logf); err != nil {
		t.Fatal(err)
	}
	pg, err := localpg.Start(t.Context(), localpg.Options{Dir: f.cluster(), Database: "pristine"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := postgres.Migrate(t.Context(), pg.URL(), nil); err != nil {
		t.Fatal(err)
	}
	at := func(database string) string {
		u, err := databaseURL(pg.URL(), database)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, database := range []string{productDatabase, floorDatabase} {
		if err := checkRows(t.Context(), at(database), database, stored+1); err != nil {
			t.Error(err)
		}
	}
	return at(productDatabase), at(floorDatabase), pg.URL()
}

func TestStoredPaymentsLeaveTheSchemaAsItWas(t *testing.T) {
	t.Parallel()
	const stored = 300
	product, below, pristine := builtStage(t, stored)
	want := linesOf(t, pristine, sqlSchema)
	if len(want) < 100 {
		t.Fatalf("the migrated schema has %d lines only", len(want))
	}
	for name, url := range map[string]string{"product": product, "floor": below} {
		if got := linesOf(t, url, sqlSchema); !slices.Equal(got, want) {
			t.Errorf("%s: the schema has changed: %d lines before, %d after", name, len(want), len(got))
			for _, line := range got {
				if !slices.Contains(want, line) {
					t.Errorf("new: %s", line)
				}
			}
			for _, line := range want {
				if !slices.Contains(got, line) {
					t.Errorf("gone: %s", line)
				}
			}
		}
	}

	// Each table in which the one payment left a row has one for each copy.
	counts := linesOf(t, product, `SELECT relname || ' ' || (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || relname, false, true, '')))[1]
		FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1`)
	var filled []string
	for _, line := range counts {
		var table string
		var n int
		if _, err := fmt.Sscan(line, &table, &n); err != nil {
			t.Fatal(err)
		}
		switch {
		case slices.Contains(tables, table) && n == stored+1:
			filled = append(filled, table)
		case slices.Contains(tables, table):
			t.Errorf("%s has %d rows, want %d", table, n, stored+1)
		case n > 0 && !slices.Contains([]string{"merchants", "api_keys", "instances", "schema_migrations", "database_identity", "audit_entries", "audit_head", "request_minutes"}, table):
			t.Errorf("a payment leaves rows in %s, which is not copied", table)
		}
	}
	if len(filled) != len(tables) {
		t.Errorf("of %v there are only %v", tables, filled)
	}
}

// A copy is as the product's own: it differs in ids, nonce, order and times, and nothing
// else.
func TestStoredPaymentsAreAsTheProductMakesThem(t *testing.T) {
	t.Parallel()
	product, _, _ := builtStage(t, 3)
	for _, table := range tables {
		differing := linesOf(t, product, `
			WITH all_rows AS (SELECT to_jsonb(t) AS r FROM `+table+` t)
			SELECT DISTINCT e.key FROM all_rows a, all_rows b, jsonb_each(a.r) e WHERE e.value <> b.r -> e.key ORDER BY 1`)
		for _, c := range differing {
			kind := linesOf(t, product, `SELECT data_type::text FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1 AND column_name = $2`, table, c)
			if own := copied(table, column{c, kind[0]}); own == "t."+c {
				t.Errorf("%s.%s: copies differ from each other or from their original", table, c)
			}
		}
		if len(differing) < 2 {
			t.Errorf("%s: the copies differ only in %v", table, differing)
		}
	}
	together := linesOf(t, product, `SELECT count(*)::text FROM payments p
		JOIN transactions t ON t.account_id = p.account_id AND t.payment_id = p.id
		JOIN idempotency_keys k ON k.account_id = t.account_id AND k.mode = t.mode AND k.key_id = t.nonce AND k.transaction_id = t.id
		JOIN events e ON e.account_id = p.account_id AND e.payment_id = p.id AND e.transaction_id = t.id
		JOIN provider_calls c ON c.account_id = t.account_id AND c.transaction_id = t.id
		JOIN arrivals a ON a.account_id = t.account_id AND a.mode = t.mode AND a.nonce = t.nonce AND a.transaction_id = t.id
		WHERE t.created_at = p.created_at AND k.created_at = t.created_at AND k.expires_at > now()`)
	if together[0] != "4" {
		t.Errorf("%s of 4 payments have all their rows, made at the same time", together[0])
	}
	ahead := linesOf(t, product, `SELECT count(*)::text FROM payments WHERE created_at > now()`)
	if ahead[0] != "0" {
		t.Errorf("%s payments were made in the future", ahead[0])
	}
}
