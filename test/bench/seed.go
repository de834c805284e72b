package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// tables are what a payment leaves, parents first.
var tables = []string{"payments", "transactions", "idempotency_keys", "events", "provider_calls", "arrivals"}

// What is another payment's in each copy; g counts them. The ids are as old as they
// would be if a payment had been made each millisecond until now.
const (
	copiedTransaction = `(lpad(to_hex($2::bigint - $1::bigint + g), 12, '0') || '7000800000000000000f')::uuid`
	copiedPayment     = `(lpad(to_hex($2::bigint - $1::bigint + g), 12, '0') || '7001800000000000000f')::uuid`
	copiedNonce       = `upper(substr(md5('nonce' || g), 1, 26))`
	copiedOrder       = `upper(substr(md5('order' || g), 1, 26))`
)

// copied says which columns of a copy are its own.
func copied(table, column string) string {
	switch table + "." + column {
	case "payments.id", "transactions.payment_id", "events.payment_id":
		return copiedPayment
	case "transactions.id", "idempotency_keys.transaction_id", "events.transaction_id", "provider_calls.transaction_id", "arrivals.transaction_id":
		return copiedTransaction
	case "transactions.nonce", "idempotency_keys.key_id", "arrivals.nonce":
		return copiedNonce
	case "payments.merchant_order_id":
		return copiedOrder
	}
	return "t." + column
}

// seed copies the one payment that there is, so many times, with all its rows.
func seed(ctx context.Context, conn *pgx.Conn, copies int) error {
	// The copies refer to each other as the original does: checking it would take
	// longer than all the rest.
	if _, err := conn.Exec(ctx, "SET session_replication_role = replica"); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	for _, table := range tables {
		rows, err := conn.Query(ctx, `SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position`, table)
		if err != nil {
			return err
		}
		columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		values := make([]string, len(columns))
		for i, column := range columns {
			values[i] = copied(table, column)
		}
		// The original alone is copied, before its copies are there: the statement sees
		// the table as it was.
		insert := fmt.Sprintf(`INSERT INTO %s (%s) SELECT %s FROM %s t, generate_series(1, $1::bigint) g`,
			table, strings.Join(columns, ", "), strings.Join(values, ", "), table)
		if _, err := conn.Exec(ctx, insert, copies, now); err != nil {
			return fmt.Errorf("store payments: %w", err)
		}
	}
	_, err := conn.Exec(ctx, "VACUUM ANALYZE")
	return err
}
