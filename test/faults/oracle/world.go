package oracle

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/transactions"
)

// paymentStatus is a payment's status with its sub_status.
type paymentStatus = transactions.PaymentStatus

// paymentAfter says what a transaction of that type and status makes of its
// payment. It is said here once more, so that a slip in the product's own table
// is seen.
func paymentAfter(t transactions.Type, s transactions.Status) paymentStatus {
	switch s {
	case transactions.Created, transactions.Pending:
		return transactions.Unconfirmed
	case transactions.Succeeded:
		if t == transactions.Authorize {
			return transactions.PaymentAuthorized
		}
		return transactions.PaymentApproved
	case transactions.Declined:
		return transactions.PaymentDeclined
	case transactions.Rejected:
		return transactions.PaymentRejected
	case transactions.Errored:
		return transactions.PaymentErrored
	}
	return paymentStatus{}
}

// payment is a row of payments.
type payment struct {
	Account, ID, Mode, Order       string
	Status, SubStatus, Currency    string
	Amount                         decimal.Decimal
	Authorized, AuthorizePending   decimal.Decimal
	Settled, SettlePending         decimal.Decimal
	Captured, Refunded, RefundPend decimal.Decimal
	Version                        int64
}

const sqlPayments = `SELECT account_id::text, id::text, mode, merchant_order_id, status, sub_status, currency, amount,
    authorized, authorize_pending, settled, settle_pending, captured, refunded, refund_pending, version
FROM payments ORDER BY id`

func (p payment) status() paymentStatus { return paymentStatus{Status: p.Status, Sub: p.SubStatus} }

// transaction is a row of transactions.
type transaction struct {
	Account, ID, Payment, Mode string
	Type                       transactions.Type
	Status                     transactions.Status
	Currency                   string
	Amount                     decimal.Decimal
	Nonce                      string
	Leased, Parked             bool
}

const sqlTransactions = `SELECT account_id::text, id::text, payment_id::text, mode, type, status, currency, amount, nonce,
    lease_until IS NOT NULL, parked_at IS NOT NULL
FROM transactions ORDER BY id`

func (t transaction) String() string {
	return fmt.Sprintf("transaction %s (nonce %s of account %s)", t.ID, t.Nonce, t.Account)
}

// event is a row of events.
type event struct {
	Account, Payment  string
	Seq               int64
	Transaction, Type string
	Status, SubStatus string
}

const sqlEvents = `SELECT account_id::text, payment_id::text, seq, transaction_id::text, type, status, sub_status
FROM events ORDER BY account_id, payment_id, seq`

func (e event) status() paymentStatus { return paymentStatus{Status: e.Status, Sub: e.SubStatus} }

// move is a change of a transaction's status. Old is empty for its insert.
type move struct {
	Account, Transaction string
	Old, New             transactions.Status
}

const sqlMoves = `SELECT account_id::text, transaction_id::text, coalesce(old_status, ''), new_status FROM campaign.moves ORDER BY id`

// paymentMove is a change of a payment's status or version.
type paymentMove struct {
	Account, Payment string
	Old, OldSub      string
	New, NewSub      string
	Version          int64
}

const sqlPaymentMoves = `SELECT account_id::text, payment_id::text, coalesce(old_status, ''), coalesce(old_sub_status, ''),
    new_status, new_sub_status, version
FROM campaign.payment_moves ORDER BY id`

func (m paymentMove) before() paymentStatus { return paymentStatus{Status: m.Old, Sub: m.OldSub} }
func (m paymentMove) after() paymentStatus  { return paymentStatus{Status: m.New, Sub: m.NewSub} }

// key is a row of idempotency_keys.
type key struct {
	Account, Nonce string
	Status         *int // nil: it has no answer
	Body           []byte
}

const sqlKeys = `SELECT account_id::text, key_id, response_status::int, response_body FROM idempotency_keys`

// rowID names a row: an id is unique within its account.
type rowID struct{ account, id string }

// world is what the database holds.
type world struct {
	payments     []payment
	transactions []transaction

	payment      map[rowID]payment
	transaction  map[rowID]transaction
	of           map[rowID][]transaction // by payment
	events       map[rowID][]event       // by payment
	moves        map[rowID][]move        // by transaction
	paymentMoves map[rowID][]paymentMove // by payment
	keys         map[nonce][]key         // one, unless both modes use a nonce
	// reference finds a transaction by its id alone, as the provider knows it.
	reference map[string]transaction
}

// readWorld reads everything as of one moment: recovery may still be at work.
func readWorld(ctx context.Context, db *pgx.Conn) (w world, err error) {
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return w, fmt.Errorf("read the database: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it has changed nothing
	if w.payments, err = rows[payment](ctx, tx, "payments", sqlPayments); err != nil {
		return w, err
	}
	if w.transactions, err = rows[transaction](ctx, tx, "transactions", sqlTransactions); err != nil {
		return w, err
	}
	events, err := rows[event](ctx, tx, "events", sqlEvents)
	if err != nil {
		return w, err
	}
	moves, err := rows[move](ctx, tx, "moves", sqlMoves)
	if err != nil {
		return w, err
	}
	paymentMoves, err := rows[paymentMove](ctx, tx, "moves of payments", sqlPaymentMoves)
	if err != nil {
		return w, err
	}
	keys, err := rows[key](ctx, tx, "nonces", sqlKeys)
	if err != nil {
		return w, err
	}
	w.index()
	w.keys = group(keys, func(k key) nonce { return nonce{k.Account, k.Nonce} })
	w.events = group(events, func(e event) rowID { return rowID{e.Account, e.Payment} })
	w.moves = group(moves, func(m move) rowID { return rowID{m.Account, m.Transaction} })
	w.paymentMoves = group(paymentMoves, func(m paymentMove) rowID { return rowID{m.Account, m.Payment} })
	return w, nil
}

func (w *world) index() {
	w.payment, w.transaction, w.reference = map[rowID]payment{}, map[rowID]transaction{}, map[string]transaction{}
	for _, p := range w.payments {
		w.payment[rowID{p.Account, p.ID}] = p
	}
	for _, t := range w.transactions {
		w.transaction[rowID{t.Account, t.ID}] = t
		w.reference[t.ID] = t
	}
	w.of = group(w.transactions, func(t transaction) rowID { return rowID{t.Account, t.Payment} })
}

// rows reads a whole table.
func rows[T any](ctx context.Context, tx pgx.Tx, what, query string) ([]T, error) {
	result, err := tx.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	all, err := pgx.CollectRows(result, pgx.RowToStructByPos[T])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return all, nil
}

// group keeps the order within each group.
func group[T any, K comparable](all []T, key func(T) K) map[K][]T {
	groups := map[K][]T{}
	for _, one := range all {
		groups[key(one)] = append(groups[key(one)], one)
	}
	return groups
}
