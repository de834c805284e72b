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

// paymentAfter says what a payment is whose transactions, and no others, are these. It is
// said here once more, so that a slip in the product's own table is seen.
func paymentAfter(all []transaction) paymentStatus {
	var sums sums
	var first transaction
	refunding, canceling := false, false
	for _, tx := range all {
		if !tx.acts() {
			first = tx
		}
		sums.add(tx)
		refunding = refunding || tx.Type == transactions.Refund && tx.Status == transactions.Pending
		canceling = canceling || tx.Type == transactions.Cancel && tx.Status == transactions.Pending
	}
	switch first.Status {
	case transactions.Created:
		return transactions.Unconfirmed
	case transactions.Pending:
		if first.Challenged {
			return transactions.PaymentChallenged
		}
		return transactions.Unconfirmed
	case transactions.Succeeded:
	default:
		return paymentStatus{Status: string(first.Status), Sub: string(first.Status)}
	}
	switch {
	case first.Type == transactions.Verify:
		return transactions.PaymentVerified
	case refunding:
		return transactions.PaymentRefundPending
	case sums.refunded.IsPositive() && sums.refunded.Equal(sums.settled):
		return transactions.PaymentRefunded
	case sums.refunded.IsPositive():
		return transactions.PaymentPartiallyRefunded
	case sums.captured.IsPositive() && sums.captured.Equal(sums.authorized):
		return transactions.PaymentCaptured
	case sums.captured.IsPositive():
		return transactions.PaymentPartiallyCaptured
	case sums.settled.IsPositive():
		return transactions.PaymentApproved
	case sums.canceled.IsPositive():
		return transactions.PaymentCanceled
	case canceling:
		return transactions.PaymentCancelPending
	}
	return transactions.PaymentAuthorized
}

// sums are what a payment's transactions have moved, and what they may still move.
type sums struct {
	authorized, authorizePending, settled, settlePending, captured decimal.Decimal
	refunded, refundPending, canceled, cancelPending               decimal.Decimal
}

// add counts a transaction: its amount is in its place once it has succeeded, pending
// while nobody knows, and nowhere otherwise.
func (s *sums) add(tx transaction) {
	place := func(done, pending *decimal.Decimal) {
		switch {
		case !tx.Status.Terminal():
			*pending = pending.Add(tx.Amount)
		case tx.Status == transactions.Succeeded:
			*done = done.Add(tx.Amount)
		}
	}
	var uncounted decimal.Decimal
	switch tx.Type {
	case transactions.Purchase:
		place(&s.authorized, &s.authorizePending)
		place(&s.settled, &s.settlePending)
	case transactions.Authorize:
		place(&s.authorized, &s.authorizePending)
	case transactions.Capture:
		place(&s.settled, &s.settlePending)
		place(&s.captured, &uncounted)
	case transactions.Cancel:
		place(&s.canceled, &s.cancelPending)
	case transactions.Refund:
		place(&s.refunded, &s.refundPending)
	case transactions.Verify, transactions.Chargeback: // the one moves nothing, the other does not come up
	}
}

// payment is a row of payments.
type payment struct {
	Account, ID, Mode, Order       string
	Status, SubStatus, Currency    string
	Amount                         decimal.Decimal
	Authorized, AuthorizePending   decimal.Decimal
	Settled, SettlePending         decimal.Decimal
	Captured, Refunded, RefundPend decimal.Decimal
	Canceled, CancelPending        decimal.Decimal
	Version                        int64
}

const sqlPayments = `SELECT account_id::text, id::text, mode, merchant_order_id, status, sub_status, currency, amount,
    authorized, authorize_pending, settled, settle_pending, captured, refunded, refund_pending,
    canceled, cancel_pending, version
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
	Target                     string // "": none
	ResponseCode               string
	Challenged                 bool
	Refunded, RefundPending    decimal.Decimal
}

// acts reports whether it acts on another transaction.
func (t transaction) acts() bool { return t.Target != "" }

const sqlTransactions = `SELECT account_id::text, id::text, payment_id::text, mode, type, status, currency, amount, nonce,
    lease_until IS NOT NULL, parked_at IS NOT NULL, coalesce(target_id::text, ''), response_code, redirect_url <> '', refunded, refund_pending
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

// overdrawn is a payment that had, at some moment, moved or reserved more than there was.
type overdrawn struct{ Account, Payment, Sums string }

const sqlOverdrawn = `SELECT account_id::text, payment_id::text, sums FROM campaign.overdrawn ORDER BY id`

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
	overdrawn    []overdrawn
	callbacks    int // that were taken in

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
	if w.overdrawn, err = rows[overdrawn](ctx, tx, "overdrawn payments", sqlOverdrawn); err != nil {
		return w, err
	}
	if err = tx.QueryRow(ctx, `SELECT count(*) FROM callbacks`).Scan(&w.callbacks); err != nil {
		return w, fmt.Errorf("count callbacks: %w", err)
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
