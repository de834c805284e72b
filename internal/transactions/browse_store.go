package transactions

import (
	"bytes"
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/postgres"
)

// What a search tells of a payment p, and of a transaction t with its payment.
const (
	foundPaymentColumns = `p.account_id, m.name AS merchant_name, p.mode, p.id AS payment_id, p.merchant_order_id, p.merchant_customer_id,
       p.status, p.sub_status, p.amount, p.currency, p.created_at`

	foundTransactionColumns = `t.account_id, m.name AS merchant_name, t.mode, t.payment_id, p.merchant_order_id, p.merchant_customer_id,
       p.status, p.sub_status, t.amount, t.currency, t.created_at, t.id AS transaction_id, t.nonce, t.type, t.status AS transaction_status
FROM hit t
JOIN merchants m ON m.account_id = t.account_id
CROSS JOIN LATERAL (SELECT * FROM payments x WHERE x.account_id = t.account_id AND x.id = t.payment_id LIMIT 1) p
ORDER BY t.created_at DESC, t.id DESC LIMIT $2::integer`

	// someTransaction is of a transaction what foundTransactionColumns reads.
	someTransaction = `SELECT t.account_id, t.id, t.payment_id, t.mode, t.amount, t.currency, t.created_at, t.nonce, t.type, t.status FROM transactions t`
)

// The statements of a search: $1 is what is searched for, $2 how much of it is read. An
// index serves each as it stands; those that lead with the account are asked once for each
// merchant.
const (
	sqlSearchNonce = `/* transactions.search_nonce */
WITH hit AS (` + someTransaction + ` WHERE t.nonce = $1::text ORDER BY t.created_at DESC, t.id DESC LIMIT $2::integer)
SELECT ` + foundTransactionColumns

	sqlSearchPayment = `/* transactions.search_payment */
SELECT ` + foundPaymentColumns + ` FROM payments p JOIN merchants m ON m.account_id = p.account_id WHERE p.id = $1::uuid LIMIT $2::integer`

	sqlSearchTransaction = `/* transactions.search_transaction */
WITH hit AS (` + someTransaction + ` WHERE t.id = $1::uuid LIMIT $2::integer)
SELECT ` + foundTransactionColumns

	sqlSearchOrder = `/* transactions.search_order */
SELECT ` + foundPaymentColumns + `
FROM merchants m CROSS JOIN (VALUES ('test'), ('live')) AS o(mode)
CROSS JOIN LATERAL (
    SELECT * FROM payments x WHERE x.account_id = m.account_id AND x.mode = o.mode AND x.merchant_order_id = $1::text
    ORDER BY x.created_at DESC, x.id DESC LIMIT $2::integer) p
ORDER BY p.created_at DESC, p.id DESC LIMIT $2`

	// sqlSearchReference reads the newest of at most a thousand: a provider may call many
	// things the same, and no index has those in order. It asks for a range, in its order, so
	// that it goes by the index however many there are.
	sqlSearchReference = `/* transactions.search_reference */
WITH hit AS (` + someTransaction + ` 
    WHERE t.provider_reference <> '' AND t.provider_reference >= $1::text AND t.provider_reference <= $1 ORDER BY t.provider_reference LIMIT 1000)
SELECT ` + foundTransactionColumns

	// sqlSearchCustomer names the column twice, so that no other index has the order.
	sqlSearchCustomer = `/* transactions.search_customer */
SELECT ` + foundPaymentColumns + ` FROM (
    SELECT * FROM payments x
    WHERE x.merchant_customer_id <> '' AND (x.merchant_customer_id, x.id) >= ($1::text, '00000000-0000-0000-0000-000000000000')
      AND (x.merchant_customer_id, x.id) <= ($1, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    ORDER BY x.merchant_customer_id DESC, x.id DESC LIMIT $2::integer) p
JOIN merchants m ON m.account_id = p.account_id
ORDER BY p.id DESC`
)

// sqlSearchKnownCustomer finds the customers that are kept, by the merchant's id of them
// ($1) or ours ($3, or NULL), each with the newest of their payments, or with none. Of a
// customer of that name it looks at the last thousand payments: another merchant's may be
// called the same.
const sqlSearchKnownCustomer = `/* transactions.search_known_customer */
SELECT c.account_id, m.name AS merchant_name, c.mode, p.id AS payment_id, p.merchant_order_id, c.merchant_customer_id,
       p.status, p.sub_status, coalesce(p.amount, 0) AS amount, p.currency, coalesce(p.created_at, c.created_at) AS created_at
FROM merchants m
CROSS JOIN LATERAL (
    (SELECT x.account_id, x.mode, x.merchant_customer_id, x.created_at
     FROM (VALUES ('test'), ('live')) AS o(mode) CROSS JOIN LATERAL (
         SELECT * FROM customers y WHERE y.account_id = m.account_id AND y.mode = o.mode AND y.merchant_customer_id = $1::text LIMIT 1) x)
    UNION
    (SELECT x.account_id, x.mode, x.merchant_customer_id, x.created_at FROM customers x WHERE x.account_id = m.account_id AND x.id = $3::uuid LIMIT 1)) c
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT * FROM payments x
        WHERE x.merchant_customer_id <> '' AND (x.merchant_customer_id, x.id) >= (c.merchant_customer_id, '00000000-0000-0000-0000-000000000000')
          AND (x.merchant_customer_id, x.id) <= (c.merchant_customer_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        ORDER BY x.merchant_customer_id DESC, x.id DESC LIMIT 1000) y
    WHERE y.account_id = c.account_id AND y.mode = c.mode ORDER BY y.id DESC LIMIT $2::integer) p ON true
ORDER BY created_at DESC LIMIT $2`

// Payments of a session stay when the session is purged, and are found without it.
const (
	sqlSearchSession = `/* transactions.search_session */
SELECT ` + foundPaymentColumns + `
FROM merchants m
CROSS JOIN LATERAL (
    SELECT x.payment_id FROM payment_sources x WHERE x.account_id = m.account_id AND x.checkout_session_id = $1::uuid
    ORDER BY x.payment_id DESC LIMIT $2::integer) o
CROSS JOIN LATERAL (SELECT * FROM payments x WHERE x.account_id = m.account_id AND x.id = o.payment_id LIMIT 1) p
ORDER BY p.id DESC LIMIT $2`

	// sqlSearchLink goes from a link, by its code or its id ($3, or NULL), to the payments of
	// at most a thousand of its sessions.
	sqlSearchLink = `/* transactions.search_link */
WITH link AS MATERIALIZED (
    (SELECT l.account_id, l.id FROM payment_links l WHERE l.code = $1::text LIMIT 1)
    UNION
    SELECT x.account_id, x.id FROM merchants m
    CROSS JOIN LATERAL (SELECT l.account_id, l.id FROM payment_links l WHERE l.account_id = m.account_id AND l.id = $3::uuid LIMIT 1) x
)
SELECT ` + foundPaymentColumns + `
FROM link JOIN merchants m ON m.account_id = link.account_id
CROSS JOIN LATERAL (
    SELECT s.id FROM checkout_sessions s WHERE s.account_id = link.account_id AND s.link_id = link.id LIMIT 1000) s
CROSS JOIN LATERAL (
    SELECT x.payment_id FROM payment_sources x WHERE x.account_id = link.account_id AND x.checkout_session_id = s.id
    ORDER BY x.payment_id DESC LIMIT $2::integer) o
CROSS JOIN LATERAL (SELECT * FROM payments x WHERE x.account_id = link.account_id AND x.id = o.payment_id LIMIT 1) p
ORDER BY p.id DESC LIMIT $2`
)

// search is one way in which something may be found.
type search struct {
	kind FoundKind
	sql  string
	byID bool // it knows ids, and no other text
	both bool // it knows ids beside other text
}

// searches are all of them, in the order in which what they find is told.
var searches = []search{
	{kind: FoundNonce, sql: sqlSearchNonce},
	{kind: FoundPayment, sql: sqlSearchPayment, byID: true},
	{kind: FoundTransaction, sql: sqlSearchTransaction, byID: true},
	{kind: FoundOrder, sql: sqlSearchOrder},
	{kind: FoundReference, sql: sqlSearchReference},
	{kind: FoundCustomer, sql: sqlSearchCustomer},
	{kind: FoundCustomer, sql: sqlSearchKnownCustomer, both: true},
	{kind: FoundSession, sql: sqlSearchSession, byID: true},
	{kind: FoundLink, sql: sqlSearchLink, both: true},
}

// args are the parameters of the search for q, which is id if it is one.
func (look search) args(q string, id uuid.UUID) []any {
	switch {
	case look.byID:
		return []any{id, maxFound + 1}
	case look.both:
		return []any{q, maxFound + 1, orNone(id)}
	}
	return []any{q, maxFound + 1}
}

// search reads what one search finds, the newest first: one more than is told, if there are
// more.
func (s store) search(ctx context.Context, look search, q string, id uuid.UUID) (found []Found, err error) {
	err = s.db.Conn(ctx).Raw(look.sql, look.args(q, id)...).Scan(&found).Error
	return found, wrap("search", err)
}

// fits says of a payment p whether it is one that a filter means: $1 to $11 are a
// PaymentFilter's parameters, $12 its merchant. No index serves it, so it is asked only of
// what a list has read by one, and never becomes a condition that is to be searched for. A
// payment's first transaction is asked about only where its response code matters.
const fits = `(($1::text = '' OR p.mode = $1) AND ($2::text = '' OR p.status = $2) AND ($3::text = '' OR p.sub_status = $3)
    AND ($4::timestamptz IS NULL OR p.created_at >= $4) AND ($5::timestamptz IS NULL OR p.created_at < $5)
    AND ($6::numeric IS NULL OR p.amount >= $6) AND ($7::numeric IS NULL OR p.amount <= $7)
    AND ($8::text = '' OR p.currency = $8) AND ($9::text = '' OR p.merchant_order_id = $9)
    AND ($10::text = '' OR p.merchant_customer_id = $10)
    AND ($12::uuid IS NULL OR p.account_id = $12)
    AND CASE WHEN $11::text = '' THEN true ELSE coalesce((
        SELECT t.response_code FROM transactions t WHERE t.account_id = p.account_id AND t.payment_id = p.id AND t.target_id IS NULL
        ORDER BY t.id LIMIT 1) = $11, false) END) AS matches`

// The lists, each by the index that serves it best. They read what stands before $14, and
// not before $13, at most $15 rows; what is searched for is $16. A comparison of two columns
// at once names an index's whole beginning: no other index has that order, however common
// or rare the planner takes a value for.
const (
	sqlLookAtAll = `/* transactions.look_at_all */
SELECT p.account_id, p.id, p.created_at, ` + fits + `
FROM payments p WHERE p.id >= $13::uuid AND p.id < $14::uuid
ORDER BY p.id DESC LIMIT $15::integer`

	sqlLookAtMerchant = `/* transactions.look_at_merchant */
SELECT p.account_id, p.id, p.created_at, ` + fits + `
FROM payments p WHERE (p.account_id, p.id) >= ($12, $13::uuid) AND (p.account_id, p.id) < ($12, $14::uuid)
ORDER BY p.account_id DESC, p.id DESC LIMIT $15::integer`

	sqlLookAtCustomer = `/* transactions.look_at_customer */
SELECT p.account_id, p.id, p.created_at, ` + fits + `
FROM payments p
WHERE p.merchant_customer_id <> '' AND (p.merchant_customer_id, p.id) >= ($10, $13::uuid) AND (p.merchant_customer_id, p.id) < ($10, $14::uuid)
ORDER BY p.merchant_customer_id DESC, p.id DESC LIMIT $15::integer`

	// sqlLookAtNonce begins with the newest five thousand transactions of a nonce ($16), of
	// all merchants'.
	sqlLookAtNonce = `/* transactions.look_at_nonce */
SELECT p.account_id, p.id, p.created_at, ` + fits + `
FROM (SELECT DISTINCT t.account_id, t.payment_id FROM (
    SELECT x.account_id, x.payment_id FROM transactions x WHERE x.nonce = $16::text ORDER BY x.created_at DESC, x.id DESC LIMIT 5000) t) o
CROSS JOIN LATERAL (SELECT * FROM payments x WHERE x.account_id = o.account_id AND x.id = o.payment_id LIMIT 1) p
WHERE p.id >= $13::uuid AND p.id < $14::uuid
ORDER BY p.id DESC LIMIT $15::integer`

	// sqlLookAtOrder goes by when a payment was made, as its index does, on after the payment
	// $14 (NULL: from the first).
	sqlLookAtOrder = `/* transactions.look_at_order */
WITH after AS MATERIALIZED (
    SELECT coalesce(c.created_at, 'infinity') AS at, coalesce(c.id, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AS id
    FROM (VALUES (1)) one LEFT JOIN payments c ON c.id = $14::uuid LIMIT 1
)
SELECT p.account_id, p.id, p.created_at, ` + fits + `
FROM merchants m CROSS JOIN (VALUES ('test'), ('live')) AS o(mode) CROSS JOIN after
CROSS JOIN LATERAL (
    SELECT * FROM payments x WHERE x.account_id = m.account_id AND x.mode = o.mode AND x.merchant_order_id = $9::text
      AND (x.created_at, x.id) < (after.at, after.id) AND x.created_at < coalesce($5::timestamptz, 'infinity')
      AND x.created_at >= coalesce($4::timestamptz, '-infinity')
    ORDER BY x.created_at DESC, x.id DESC LIMIT $13::integer) p
WHERE ($12::uuid IS NULL OR m.account_id = $12) AND ($1::text = '' OR o.mode = $1)
ORDER BY p.created_at DESC, p.id DESC LIMIT $13`
)

// list is the list that serves f best, and its parameters: the next n payments before one.
func (f PaymentFilter) list(before uuid.UUID, n int) (query string, args []any) {
	args = []any{
		f.Mode, f.Status, f.SubStatus, f.From, f.To, f.MinAmount, f.MaxAmount, f.Currency, f.Order, f.Customer, f.ResponseCode, orNone(f.AccountID),
	}
	if f.Order != "" && f.Nonce == "" {
		return sqlLookAtOrder, append(args, n, orNone(before))
	}
	least, below := f.bounds()
	if before != uuid.Nil && bytes.Compare(before[:], below[:]) < 0 {
		below = before
	}
	args = append(args, least, below, n)
	switch {
	case f.Nonce != "":
		return sqlLookAtNonce, append(args, idem.KeyOf(f.Nonce))
	case f.Customer != "":
		return sqlLookAtCustomer, args
	case f.AccountID != uuid.Nil:
		return sqlLookAtMerchant, args
	}
	return sqlLookAtAll, args
}

// look reads the next n payments of the list that serves f best, with whether each fits.
func (s store) look(ctx context.Context, f PaymentFilter, before uuid.UUID, n int) (seen []seenPayment, err error) {
	query, args := f.list(before, n)
	err = s.db.Conn(ctx).Raw(query, args...).Scan(&seen).Error
	return seen, wrap("list the payments", err)
}

// sqlLines reads what a list shows of some payments, in the order in which they are asked
// for.
const sqlLines = `/* transactions.lines */
SELECT p.account_id, m.name AS merchant_name, p.id, p.mode, p.merchant_order_id, p.status, p.sub_status, p.amount,
       p.captured, p.refunded, p.charged_back, p.currency, p.merchant_customer_id, p.created_at,
       t.id AS transaction_id, t.type, t.status AS transaction_status, t.nonce, t.provider, t.response_code, t.card
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS w(account_id, id, nth)
CROSS JOIN LATERAL (SELECT * FROM payments x WHERE x.account_id = w.account_id AND x.id = w.id LIMIT 1) p
JOIN merchants m ON m.account_id = p.account_id
CROSS JOIN LATERAL (
    SELECT * FROM transactions x WHERE x.account_id = p.account_id AND x.payment_id = p.id AND x.target_id IS NULL ORDER BY x.id LIMIT 1) t
ORDER BY w.nth`

func (s store) lines(ctx context.Context, of []seenPayment) ([]PaymentLine, error) {
	if len(of) == 0 {
		return nil, nil
	}
	accounts, ids := make([]string, len(of)), make([]string, len(of))
	for i, p := range of {
		accounts[i], ids[i] = p.AccountID.String(), p.ID.String()
	}
	var rows []lineRow
	if err := s.db.Conn(ctx).Raw(sqlLines, accounts, ids).Scan(&rows).Error; err != nil {
		return nil, wrap("read the payments of a list", err)
	}
	lines := make([]PaymentLine, len(rows))
	for i, row := range rows {
		lines[i] = row.line()
	}
	return lines, nil
}

// sqlFile reads a payment that is known by its id alone, with what it was made with.
const sqlFile = `/* transactions.file */
SELECT a.expires_at AS authorized_until, o.checkout_session_id AS session_id, o.one_time_token_id AS token_id,
       o.payment_method_id AS kept_card_id, coalesce(o.note, '') AS source_note, ` + paymentColumns + `
FROM payments p
LEFT JOIN authorizations a ON a.account_id = p.account_id AND a.payment_id = p.id
LEFT JOIN payment_sources o ON o.account_id = p.account_id AND o.payment_id = p.id
WHERE p.id = $1::uuid LIMIT 1`

func (s store) fileOf(ctx context.Context, payment uuid.UUID) (f fileRow, err error) {
	found, err := one(s.db.Conn(ctx).Raw(sqlFile, payment), &f)
	if err == nil && !found {
		return f, apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
	}
	return f, wrap("read the payment", err)
}

const sqlFileTransactions = `/* transactions.file_transactions */
SELECT t.next_attempt_at, ` + transactionColumns + ` FROM transactions t
WHERE t.account_id = $1::uuid AND t.payment_id = $2::uuid ORDER BY t.id DESC LIMIT $3::integer`

// fileTransactions are a payment's transactions, the newest first.
func (s store) fileTransactions(ctx context.Context, account, payment uuid.UUID, limit int) (ts []fileTransaction, err error) {
	err = s.db.Conn(ctx).Raw(sqlFileTransactions, account, payment, limit).Scan(&ts).Error
	return ts, wrap("read the payment's transactions", err)
}

const sqlFileEvents = `/* transactions.file_events */
SELECT e.seq, e.transaction_id, e.type, e.status, e.sub_status, e.cause, e.created_at FROM events e
WHERE e.account_id = $1::uuid AND e.payment_id = $2::uuid ORDER BY e.seq LIMIT $3::integer`

func (s store) fileEvents(ctx context.Context, account, payment uuid.UUID, limit int) (es []FileEvent, err error) {
	err = s.db.Conn(ctx).Raw(sqlFileEvents, account, payment, limit).Scan(&es).Error
	return es, wrap("read the payment's events", err)
}

// sqlUnsettled reads the index of what is not settled, whole: it holds nothing else, and
// is in order of when recovery looks again, not of who has waited longest.
const sqlUnsettled = `/* transactions.unsettled */
SELECT m.name AS merchant_name, p.merchant_order_id, clock_timestamp() AS now, t.next_attempt_at,
       coalesce(t.lease_until <= clock_timestamp() OR t.status = 'PENDING' OR ` + holderGone + `, true) AS lease_over,
       c.kind AS call_kind, coalesce(c.outcome, '') AS call_outcome, coalesce(c.response_code, '') AS call_code,
       coalesce(c.detail, '') AS call_detail, coalesce(c.started_at, t.created_at) AS call_at, coalesce(c.duration_ms, 0) AS call_ms,
       ` + transactionColumns + `
FROM (
    SELECT * FROM transactions x
    WHERE x.lease_until IS NOT NULL AND (NOT $1::boolean OR x.parked_at IS NOT NULL) AND ($2::uuid IS NULL OR x.account_id = $2)
      AND ($3::uuid IS NULL OR (x.created_at, x.id) > (SELECT y.created_at, y.id FROM transactions y WHERE y.id = $3))
    ORDER BY x.created_at, x.id LIMIT $4::integer) t
JOIN merchants m ON m.account_id = t.account_id
CROSS JOIN LATERAL (SELECT * FROM payments x WHERE x.account_id = t.account_id AND x.id = t.payment_id LIMIT 1) p
LEFT JOIN LATERAL (
    SELECT * FROM provider_calls x WHERE x.account_id = t.account_id AND x.transaction_id = t.id
    ORDER BY x.fence DESC, x.seq DESC LIMIT 1) c ON true
ORDER BY t.created_at, t.id`

func (s store) unsettled(ctx context.Context, f UnsettledFilter, after uuid.UUID, limit int) (rows []unsettledRow, err error) {
	err = s.db.Conn(ctx).Raw(sqlUnsettled, f.Parked, orNone(f.AccountID), orNone(after), limit).Scan(&rows).Error
	return rows, wrap("read what is not settled", err)
}

// sqlOrdered says whether this very order of this operator is in the audit log, and whether
// its nonce ($8) has done something that the key tells of no more, or not for as long as it
// takes ($9, microseconds) to ask it. Whoever asks holds the payment, so nobody writes another
// one meanwhile.
const sqlOrdered = `/* transactions.ordered */
SELECT EXISTS (
    SELECT 1 FROM audit_entries a
    WHERE a.target = $1::text AND a.action = $2::text AND a.actor_kind = $3::text AND a.actor_id = $4::text AND a.details = $5::text
) AS known, EXISTS (
    SELECT 1 FROM transactions t
    WHERE t.account_id = $6::uuid AND t.mode = $7::text AND t.nonce = $8::text AND NOT t.released AND NOT EXISTS (
        SELECT 1 FROM idempotency_keys k
        WHERE k.account_id = t.account_id AND k.mode = t.mode AND k.key_id = t.nonce
          AND k.expires_at > clock_timestamp() + $9::bigint * interval '1 microsecond')
) AS over`

// ordered locks a payment and says whether the log has the order, and whether its nonce has
// had its time, or will within margin.
func (s store) ordered(ctx context.Context, db postgres.Tx, p Payment, nonce string, e audit.Entry, margin time.Duration) (known, over bool, err error) {
	details, err := audit.EncodeDetails(e.Details)
	if err != nil {
		return false, false, err
	}
	var locked Payment
	found, err := one(db.Raw(sqlLockPayment, p.AccountID, p.ID), &locked)
	if err == nil && !found {
		return false, false, apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
	}
	var row struct{ Known, Over bool }
	if err == nil {
		by := audit.ActorOf(ctx)
		_, err = one(db.Raw(sqlOrdered, e.Target, e.Action, string(by.Kind), by.ID, details, p.AccountID, p.Mode, nonce, margin.Microseconds()), &row)
	}
	return row.Known, row.Over, wrap("look for the order", err)
}

const sqlAnyPayment = `/* transactions.any_payment */
SELECT ` + paymentColumns + ` FROM payments p WHERE p.id = $1::uuid LIMIT 1`

// anyPayment is a payment that is known by its id alone.
func (s store) anyPayment(ctx context.Context, id uuid.UUID) (p Payment, err error) {
	found, err := one(s.db.Conn(ctx).Raw(sqlAnyPayment, id), &p)
	if err == nil && !found {
		return p, apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
	}
	return p, wrap("read the payment", err)
}
