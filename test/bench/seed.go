package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// tables are what a payment leaves, those with the most to write first.
var tables = []string{"idempotency_keys", "transactions", "payments", "arrivals", "provider_calls", "events"}

// fillers is how many tables are filled at the same time: more would only wait for the
// disk.
const fillers = 2

// What is another payment's in each copy; g counts them. The ids, and all times, are
// as if a payment had been made each millisecond until now. Nonces and orders are
// spread like those of the generator and of pgbench: else new ones would all come to
// the same few pages of an index.
const (
	copiedTransaction = `(lpad(to_hex($2::bigint - $1::bigint + g), 12, '0') || '7000800000000000000f')::uuid`
	copiedPayment     = `(lpad(to_hex($2::bigint - $1::bigint + g), 12, '0') || '7001800000000000000f')::uuid`
	copiedNonce       = `md5('nonce' || g)::uuid::text`
	copiedOrder       = `md5('order' || g)::uuid::text`
	copiedTime        = `t.%s - ($1::bigint - g) * interval '1 millisecond'`
)

// column is one of a table's.
type column struct{ Name, Type string }

// copied says what a copy has in a column.
func copied(table string, c column) string {
	switch table + "." + c.Name {
	case "payments.id", "transactions.payment_id", "events.payment_id":
		return copiedPayment
	case "transactions.id", "idempotency_keys.transaction_id", "events.transaction_id", "provider_calls.transaction_id", "arrivals.transaction_id":
		return copiedTransaction
	case "transactions.nonce", "idempotency_keys.key_id", "arrivals.nonce":
		return copiedNonce
	case "payments.merchant_order_id":
		return copiedOrder
	}
	if c.Type == "timestamp with time zone" {
		return fmt.Sprintf(copiedTime, c.Name)
	}
	return "t." + c.Name
}

// definition is an index or a constraint that is dropped while rows are stored, and
// how to make it again.
type definition struct{ Table, Name, Definition string }

// definitions are those of our tables, in the order in which they are made again.
type definitions struct{ keys, indexes, references []definition }

// ofTables reads what a query finds for our tables.
func ofTables[T any](ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]T, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[T])
}

const (
	sqlConstraints = `SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
		WHERE conrelid = ANY($1::text[]::regclass[]) AND contype IN ('p', 'u') ORDER BY 1, 2`
	// Others' references to our tables stand in the way of their keys, too.
	sqlReferences = `SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
		WHERE (conrelid = ANY($1::text[]::regclass[]) OR confrelid = ANY($1::text[]::regclass[])) AND contype = 'f' ORDER BY 1, 2`
	// A constraint's own index comes and goes with it.
	sqlIndexes = `SELECT indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
		WHERE indrelid = ANY($1::text[]::regclass[]) AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x')) ORDER BY 1, 2`
	sqlColumns = `SELECT column_name::text, data_type::text FROM information_schema.columns
		WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position`
)

func readDefinitions(ctx context.Context, conn *pgx.Conn) (d definitions, err error) {
	if d.keys, err = ofTables[definition](ctx, conn, sqlConstraints, tables); err != nil {
		return d, err
	}
	if d.references, err = ofTables[definition](ctx, conn, sqlReferences, tables); err != nil {
		return d, err
	}
	d.indexes, err = ofTables[definition](ctx, conn, sqlIndexes, tables)
	return d, err
}

// seed copies the one payment that there is, so many times, with all its rows. What
// would be kept up row by row is dropped before and made again, so the foreign keys
// are checked as well. The server is one of buildSettings: what a transaction writes
// into a table that it has emptied, it need not log.
func seed(ctx context.Context, url string, copies int, tell func(string, ...any)) error {
	conns := make([]*pgx.Conn, fillers)
	for i := range conns {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		conns[i] = conn
	}
	d, err := readDefinitions(ctx, conns[0])
	if err != nil {
		return fmt.Errorf("read the schema: %w", err)
	}
	for _, part := range [][]definition{d.references, d.keys} {
		for _, c := range part {
			if _, err := conns[0].Exec(ctx, fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s", c.Table, c.Name)); err != nil {
				return err
			}
		}
	}
	for _, i := range d.indexes {
		if _, err := conns[0].Exec(ctx, "DROP INDEX "+i.Name); err != nil {
			return err
		}
	}
	s := seeder{definitions: d, copies: copies, now: time.Now().UnixMilli(), tell: tell}
	if err := s.fillAll(ctx, conns); err != nil {
		return fmt.Errorf("store payments: %w", err)
	}
	tell("checking foreign keys")
	for _, c := range d.references {
		if _, err := conns[0].Exec(ctx, addConstraint(c)); err != nil {
			return fmt.Errorf("store payments: %w", err)
		}
	}
	return nil
}

func addConstraint(c definition) string {
	return fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s", c.Table, c.Name, c.Definition)
}

// seeder fills tables.
type seeder struct {
	definitions

	copies int
	now    int64 // in milliseconds: when the last copy was made
	tell   func(string, ...any)
}

// fillAll gives each connection a table at a time.
func (s seeder) fillAll(ctx context.Context, conns []*pgx.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting := make(chan string, len(tables))
	for _, table := range tables {
		waiting <- table
	}
	close(waiting)
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	for i, conn := range conns {
		wg.Go(func() {
			for table := range waiting {
				if errs[i] = s.fill(ctx, conn, table); errs[i] != nil {
					cancel() // nobody needs the others' tables any more
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// fill stores one table's copies and makes its keys and indexes again.
func (s seeder) fill(ctx context.Context, conn *pgx.Conn, table string) error {
	began := time.Now()
	columns, err := ofTables[column](ctx, conn, sqlColumns, table)
	if err != nil {
		return err
	}
	names, values := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		names[i], values[i] = c.Name, copied(table, c)
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // after a commit it does nothing
	steps := []string{
		"CREATE TEMPORARY TABLE original ON COMMIT DROP AS TABLE " + table,
		"ANALYZE original",
		"TRUNCATE " + table,
		"INSERT INTO " + table + " TABLE original",
	}
	for _, step := range steps {
		if _, err := tx.Exec(ctx, step); err != nil {
			return err
		}
	}
	insert := fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM original t, (SELECT generate_series(1, $1::bigint) AS g) copies",
		table, strings.Join(names, ", "), strings.Join(values, ", "))
	if _, err := tx.Exec(ctx, insert, s.copies, s.now); err != nil {
		return err
	}
	stored := time.Since(began)
	for _, statement := range s.remake(table) {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	indexed := time.Since(began)
	if _, err := conn.Exec(ctx, "VACUUM (ANALYZE) "+table); err != nil {
		return err
	}
	s.tell("%s: rows in %.1f s, indexes in %.1f s, vacuum in %.1f s", table, stored.Seconds(), (indexed - stored).Seconds(), (time.Since(began) - indexed).Seconds())
	return nil
}

// remake are the statements that make a table's keys and indexes again.
func (s seeder) remake(table string) []string {
	var statements []string
	for _, c := range s.keys {
		if c.Table == table {
			statements = append(statements, addConstraint(c))
		}
	}
	for _, i := range s.indexes {
		if i.Table == table {
			statements = append(statements, i.Definition)
		}
	}
	return statements
}
