package transactions

import (
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/postgres"
)

// invariant is one rule, the statement that finds what breaks it, and how that is
// counted.
type invariant struct {
	name  string
	sql   string
	count func(db postgres.Tx, query string) (int64, error)
}

// The statuses of transactions by what they mean for a reservation, and which types move
// what.
const (
	sqlOpen    = `t.status IN ('CREATED', 'PENDING')`
	sqlLive    = `t.status IN ('CREATED', 'PENDING', 'SUCCEEDED')`
	sqlDone    = `t.status = 'SUCCEEDED'`
	authorizes = `t.type IN ('PURCHASE', 'AUTHORIZE')`
	settles    = `t.type IN ('PURCHASE', 'CAPTURE')`
	begins     = `t.type IN ('PURCHASE', 'AUTHORIZE', 'VERIFY')`
)

// movedSums are what the transactions of each payment have moved, and what they may still
// move; and what is waited for. Nothing here is read from the payment itself.
const movedSums = `
    SELECT t.account_id, t.payment_id,
           coalesce(sum(t.amount) FILTER (WHERE ` + authorizes + ` AND ` + sqlDone + `), 0) AS authorized,
           coalesce(sum(t.amount) FILTER (WHERE ` + authorizes + ` AND ` + sqlOpen + `), 0) AS authorize_pending,
           coalesce(sum(t.amount) FILTER (WHERE ` + settles + ` AND ` + sqlDone + `), 0) AS settled,
           coalesce(sum(t.amount) FILTER (WHERE ` + settles + ` AND ` + sqlOpen + `), 0) AS settle_pending,
           coalesce(sum(t.amount) FILTER (WHERE t.type = 'CAPTURE' AND ` + sqlDone + `), 0) AS captured,
           coalesce(sum(t.amount) FILTER (WHERE t.type = 'REFUND' AND ` + sqlDone + `), 0) AS refunded,
           coalesce(sum(t.amount) FILTER (WHERE t.type = 'REFUND' AND ` + sqlOpen + `), 0) AS refund_pending,
           coalesce(sum(t.amount) FILTER (WHERE t.type = 'CANCEL' AND ` + sqlDone + `), 0) AS canceled,
           coalesce(sum(t.amount) FILTER (WHERE t.type = 'CANCEL' AND ` + sqlOpen + `), 0) AS cancel_pending,
           coalesce(sum(t.amount) FILTER (WHERE t.type = 'CHARGEBACK' AND t.status = 'LOST'), 0) AS charged_back,
           count(*) FILTER (WHERE t.type = 'CAPTURE' AND ` + sqlLive + `) AS captures,
           count(*) FILTER (WHERE t.type = 'CANCEL' AND ` + sqlLive + `) AS cancels,
           coalesce(bool_or(t.type = 'REFUND' AND t.status = 'PENDING'), false) AS refunding,
           coalesce(bool_or(t.type = 'CANCEL' AND t.status = 'PENDING'), false) AS canceling,
           coalesce(bool_or(t.type = 'CHARGEBACK' AND t.status = 'CREATED'), false) AS disputed,
           coalesce(bool_or(t.type = 'CHARGEBACK' AND t.status = 'PENDING'), false) AS reviewed
    FROM transactions t
    GROUP BY t.account_id, t.payment_id`

// targetSums are what the transactions that act on each capture or purchase have taken
// back from it.
const targetSums = `
    SELECT t.account_id, t.target_id,
           coalesce(sum(t.amount) FILTER (WHERE t.type = 'REFUND' AND ` + sqlDone + `), 0) AS refunded,
           coalesce(sum(t.amount) FILTER (WHERE t.type = 'REFUND' AND ` + sqlOpen + `), 0) AS refund_pending,
           coalesce(sum(t.amount) FILTER (WHERE t.type = 'CHARGEBACK' AND t.status = 'LOST'), 0) AS charged_back
    FROM transactions t
    WHERE t.target_id IS NOT NULL
    GROUP BY t.account_id, t.target_id`

// The sums on a payment are those of its transactions.
const sqlPaymentSums = `/* transactions.check_payment_sums */
WITH moved AS (` + movedSums + `)
SELECT count(*) FROM payments p
LEFT JOIN moved m ON m.account_id = p.account_id AND m.payment_id = p.id
WHERE (p.authorized, p.settled, p.captured, p.refunded, p.canceled, p.charged_back)
   <> (coalesce(m.authorized, 0), coalesce(m.settled, 0), coalesce(m.captured, 0), coalesce(m.refunded, 0), coalesce(m.canceled, 0),
       coalesce(m.charged_back, 0))`

// What a payment reserves is what its unresolved transactions may still move: a
// reservation that nobody will consume or give back is found here.
const sqlReservations = `/* transactions.check_reservations */
WITH moved AS (` + movedSums + `)
SELECT count(*) FROM payments p
LEFT JOIN moved m ON m.account_id = p.account_id AND m.payment_id = p.id
WHERE (p.authorize_pending, p.settle_pending, p.refund_pending, p.cancel_pending)
   <> (coalesce(m.authorize_pending, 0), coalesce(m.settle_pending, 0), coalesce(m.refund_pending, 0), coalesce(m.cancel_pending, 0))`

// The same of what refunds have taken, and reserve, on a capture or purchase.
const sqlRefundsOfTargets = `/* transactions.check_refunds_of_targets */
WITH taken AS (` + targetSums + `)
SELECT count(*) FROM transactions g
LEFT JOIN taken b ON b.account_id = g.account_id AND b.target_id = g.id
WHERE (g.refunded, g.refund_pending) <> (coalesce(b.refunded, 0), coalesce(b.refund_pending, 0))`

const sqlWithinAuthorization = `/* transactions.check_within_authorization */
SELECT count(*) FROM (` + movedSums + `) m
WHERE m.settled + m.settle_pending + m.canceled + m.cancel_pending > m.authorized + m.authorize_pending`

// No payment gives back more than it took, nor does one of its captures.
const sqlRefundsWithin = `/* transactions.check_refunds_within */
SELECT (SELECT count(*) FROM (` + movedSums + `) m WHERE m.refunded + m.refund_pending > m.settled)
     + (SELECT count(*) FROM (` + targetSums + `) b
        JOIN transactions g ON g.account_id = b.account_id AND g.id = b.target_id
        WHERE b.refunded + b.refund_pending > g.amount)`

// The same of what payers' banks took back. It may have been refunded before, so the
// two are not added up.
const sqlChargebacksWithin = `/* transactions.check_chargebacks_within */
SELECT (SELECT count(*) FROM (` + movedSums + `) m WHERE m.charged_back > m.settled)
     + (SELECT count(*) FROM (` + targetSums + `) b
        JOIN transactions g ON g.account_id = b.account_id AND g.id = b.target_id
        WHERE b.charged_back > g.amount)`

// An authorization is captured or cancelled, and cancelled once: neither is even begun
// beside the other.
const sqlCapturedOrCancelled = `/* transactions.check_captured_or_cancelled */
SELECT count(*) FROM (` + movedSums + `) m
WHERE m.cancels > 1 OR m.cancels > 0 AND m.captures > 0`

// sqlStatus says again, in another language, what Payment.began and Sums.standing say.
const sqlStatus = `/* transactions.check_status */
WITH moved AS (` + movedSums + `)
SELECT count(*) FROM payments p
JOIN transactions t ON t.account_id = p.account_id AND t.payment_id = p.id AND ` + begins + `
JOIN moved m ON m.account_id = p.account_id AND m.payment_id = p.id
WHERE p.status || '/' || p.sub_status <> CASE
    WHEN t.status = 'PENDING' AND t.redirect_url <> '' AND p.sub_status = 'WAITING_ADDITIONAL_STEP' THEN 'PENDING/WAITING_ADDITIONAL_STEP'
    WHEN ` + sqlOpen + ` THEN 'PENDING/PENDING_PROVIDER_CONFIRMATION'
    WHEN t.status <> 'SUCCEEDED' THEN t.status || '/' || t.status
    WHEN t.type = 'VERIFY' THEN 'VERIFIED/VERIFIED'
    WHEN m.reviewed THEN 'IN_DISPUTE/PENDING_REVIEW'
    WHEN m.disputed THEN 'IN_DISPUTE/RECEIVED'
    WHEN m.refunding THEN 'REFUNDED/PENDING_PROVIDER_CONFIRMATION'
    WHEN m.charged_back > 0 AND m.charged_back = m.settled THEN 'CHARGEBACK/LOST'
    WHEN m.charged_back > 0 THEN 'SUCCEEDED/PARTIALLY_CHARGEBACKED'
    WHEN m.refunded > 0 AND m.refunded = m.settled THEN 'REFUNDED/REFUNDED'
    WHEN m.refunded > 0 THEN 'SUCCEEDED/PARTIALLY_REFUNDED'
    WHEN m.captured > 0 AND m.captured = m.authorized THEN 'SUCCEEDED/CAPTURED'
    WHEN m.captured > 0 THEN 'SUCCEEDED/PARTIALLY_CAPTURED'
    WHEN m.settled > 0 THEN 'SUCCEEDED/APPROVED'
    WHEN m.canceled > 0 THEN 'CANCELED/CANCELED'
    WHEN m.canceling THEN 'CANCELED/PENDING_PROVIDER_CONFIRMATION'
    ELSE 'PENDING/AUTHORIZED' END`

// Events are numbered 1 to the payment's version, and the last one says what the payment
// is now. One without any is as it began.
const sqlEventsWithoutGaps = `/* transactions.check_events_without_gaps */
SELECT count(*) FROM payments p
LEFT JOIN (SELECT e.account_id, e.payment_id, count(*) AS n, min(e.seq) AS first, max(e.seq) AS last FROM events e
           GROUP BY e.account_id, e.payment_id) e ON e.account_id = p.account_id AND e.payment_id = p.id
LEFT JOIN events l ON l.account_id = p.account_id AND l.payment_id = p.id AND l.seq = p.version
WHERE coalesce(e.n, 0) <> p.version
   OR p.version > 0 AND ((e.first, e.last) <> (1, p.version) OR (l.status, l.sub_status) IS DISTINCT FROM (p.status, p.sub_status))`

// sqlOneEventPerEnd holds what each transaction wrote against what it may write: one
// event for its end, and before it one for each move that changed its payment. One that
// changed nothing can only be an end. An authorization may end twice: it succeeds, and
// expires.
const sqlOneEventPerEnd = `/* transactions.check_one_event_per_end */
WITH told AS (
    SELECT e.account_id, e.transaction_id,
           (e.status, e.sub_status) = (lag(e.status, 1, 'PENDING') OVER w, lag(e.sub_status, 1, 'PENDING_PROVIDER_CONFIRMATION') OVER w) AS same
    FROM events e WINDOW w AS (PARTITION BY e.account_id, e.payment_id ORDER BY e.seq)
), written AS (
    SELECT account_id, transaction_id, count(*) AS n, count(*) FILTER (WHERE same) AS unchanged FROM told GROUP BY account_id, transaction_id
)
SELECT count(*) FROM transactions t
LEFT JOIN written e ON e.account_id = t.account_id AND e.transaction_id = t.id
WHERE ` + sqlOpen + ` AND (coalesce(e.unchanged, 0) > 0
    OR coalesce(e.n, 0) > (t.status = 'PENDING')::integer + (t.type = 'CHARGEBACK')::integer)
   OR NOT ` + sqlOpen + ` AND (coalesce(e.n, 0) = 0 OR e.unchanged > 1
    OR e.n > 2 + (t.type = 'CHARGEBACK' OR t.type = 'AUTHORIZE' AND t.status = 'EXPIRED')::integer)`

// An event is of a transaction of its payment, and says which kind that is.
const sqlEventsBelong = `/* transactions.check_events_belong */
SELECT count(*) FROM events e
LEFT JOIN transactions t ON t.account_id = e.account_id AND t.id = e.transaction_id
WHERE t.id IS NULL OR t.payment_id <> e.payment_id OR e.type <> 'payment.' || lower(t.type)`

// A nonce's record is that of the transaction that has the nonce; and what is unresolved
// has its record, for it is never forgotten.
const sqlNonces = `/* transactions.check_nonces */
SELECT (SELECT count(*) FROM idempotency_keys k
        JOIN transactions t ON t.account_id = k.account_id AND t.id = k.transaction_id
        WHERE (k.key_id, k.mode) <> (t.nonce, t.mode))
     + (SELECT count(*) FROM transactions t
        WHERE ` + sqlOpen + ` AND t.type <> 'CHARGEBACK' AND NOT EXISTS (
            SELECT 1 FROM idempotency_keys k WHERE k.account_id = t.account_id AND k.mode = t.mode AND k.key_id = t.nonce))`

// A nonce has no answer exactly as long as nothing is known of its transaction. Where a
// policy keeps errors, such a one may have been told: a 5xx.
const sqlAnswers = `/* transactions.check_answers */
SELECT count(*) FROM idempotency_keys k
JOIN transactions t ON t.account_id = k.account_id AND t.id = k.transaction_id
WHERE k.response_status IS NULL AND t.status <> 'CREATED' OR k.response_status < 500 AND t.status = 'CREATED'`

// What was given back had no effect: no nonce stands for it, nothing acts on it.
const sqlReleased = `/* transactions.check_released */
SELECT count(*) FROM transactions t
WHERE t.released AND (t.status NOT IN ('ERROR', 'REJECTED')
    OR EXISTS (SELECT 1 FROM idempotency_keys k WHERE k.account_id = t.account_id AND k.mode = t.mode AND k.key_id = t.nonce AND k.transaction_id = t.id)
    OR EXISTS (SELECT 1 FROM transactions a WHERE a.account_id = t.account_id AND a.payment_id = t.payment_id AND a.target_id = t.id))`

// A payment was begun once, by a transaction over what the payment is over. What moves
// money moves some; a verification moves none.
const sqlBeginnings = `/* transactions.check_beginnings */
SELECT count(*) FROM payments p
LEFT JOIN (SELECT t.account_id, t.payment_id, count(*) AS n, min(t.mode) AS mode, min(t.currency) AS currency, min(t.amount) AS amount,
                  bool_or(t.type = 'VERIFY') AS verifies
           FROM transactions t WHERE ` + begins + ` GROUP BY t.account_id, t.payment_id) b
  ON b.account_id = p.account_id AND b.payment_id = p.id
WHERE coalesce(b.n, 0) <> 1 OR (b.mode, b.currency, b.amount) <> (p.mode, p.currency, p.amount) OR b.verifies <> (p.amount = 0)`

// What acts on another transaction acts on one of the same payment, in the same mode and
// currency, that can be acted on in this way; and on some of its money.
const sqlTargets = `/* transactions.check_targets */
SELECT count(*) FROM transactions t
LEFT JOIN transactions g ON g.account_id = t.account_id AND g.id = t.target_id
WHERE ` + begins + ` AND t.target_id IS NOT NULL
   OR NOT ` + begins + ` AND (g.id IS NULL OR t.amount <= 0
    OR (g.payment_id, g.mode, g.currency, g.provider) <> (t.payment_id, t.mode, t.currency, t.provider)
    OR t.type IN ('CAPTURE', 'CANCEL') AND NOT (g.type = 'AUTHORIZE' AND g.status IN ('SUCCEEDED', 'EXPIRED'))
    OR t.type IN ('REFUND', 'CHARGEBACK') AND NOT (g.type IN ('PURCHASE', 'CAPTURE') AND g.status = 'SUCCEEDED'))`

const sqlLeases = `/* transactions.check_leases */
SELECT count(*) FROM transactions t
WHERE (` + sqlOpen + ` AND t.type <> 'CHARGEBACK') <> (t.lease_until IS NOT NULL) OR t.parked_at IS NOT NULL AND t.lease_until IS NULL`

// A fence moves by one, and each time it is written down by whom.
const sqlFences = `/* transactions.check_fences */
SELECT count(*) FROM transactions t
LEFT JOIN (SELECT o.account_id, o.transaction_id, count(*) AS n, max(o.fence) AS last FROM takeovers o GROUP BY o.account_id, o.transaction_id) o
  ON o.account_id = t.account_id AND o.transaction_id = t.id
WHERE (t.fence - 1, t.fence) <> (coalesce(o.n, 0), coalesce(o.last, 1))`

const sqlAuthorizations = `/* transactions.check_authorizations */
SELECT count(*) FROM authorizations a
LEFT JOIN transactions t ON t.account_id = a.account_id AND t.id = a.transaction_id
WHERE t.id IS NULL OR (t.payment_id, t.type, t.status) <> (a.payment_id, 'AUTHORIZE', 'SUCCEEDED')`

// sqlDecimalPlaces counts amounts by the decimal places that they need. The sums follow
// from the amounts.
const sqlDecimalPlaces = `/* transactions.check_decimal_places */
SELECT a.currency, min_scale(a.amount) AS places, count(*) AS n
FROM (SELECT currency, amount FROM payments UNION ALL SELECT currency, amount FROM transactions) a
GROUP BY a.currency, min_scale(a.amount)`

// invariants are all checks, what is about money first.
// paysNothing is true of a payment p that left its checkout session to the next: it was
// declined, or never was.
const paysNothing = `p.status IN ('DECLINED', 'REJECTED', 'ERROR')`

// A checkout session has one payment at most that is under way, pending, or was ever
// successful.
const sqlSessionsPaidOnce = `/* transactions.check_sessions_paid_once */
SELECT count(*) FROM (
    SELECT 1 FROM payment_sources o
    JOIN payments p ON p.account_id = o.account_id AND p.id = o.payment_id
    WHERE o.checkout_session_id IS NOT NULL AND NOT ` + paysNothing + `
    GROUP BY o.account_id, o.checkout_session_id HAVING count(*) > 1) twice`

// That one has the session, so that no other can; and none that pays nothing has it.
const sqlSessionsHeld = `/* transactions.check_sessions_held */
SELECT (SELECT count(*) FROM payment_sources o
        JOIN payments p ON p.account_id = o.account_id AND p.id = o.payment_id
        WHERE o.checkout_session_id IS NOT NULL AND NOT ` + paysNothing + ` AND NOT EXISTS (
            SELECT 1 FROM checkout_sessions s
            JOIN payment_sources h ON h.account_id = s.account_id AND h.payment_id = s.payment_id
            WHERE s.account_id = o.account_id AND s.id = o.checkout_session_id AND h.checkout_session_id = s.id))
     + (SELECT count(*) FROM checkout_sessions s
        JOIN payments p ON p.account_id = s.account_id AND p.id = s.payment_id WHERE ` + paysNothing + `)`

var invariants = []invariant{
	{"payment_sums_match_transactions", sqlPaymentSums, counted},
	{"reservations_match_unresolved", sqlReservations, counted},
	{"refunds_match_targets", sqlRefundsOfTargets, counted},
	{"captures_within_authorization", sqlWithinAuthorization, counted},
	{"refunds_within_settled", sqlRefundsWithin, counted},
	{"chargebacks_within_settled", sqlChargebacksWithin, counted},
	{"never_captured_and_cancelled", sqlCapturedOrCancelled, counted},
	{"released_moved_nothing", sqlReleased, counted},
	{"payments_begin_once", sqlBeginnings, counted},
	{"targets_belong", sqlTargets, counted},
	{"authorizations_belong", sqlAuthorizations, counted},
	{"amounts_have_minor_units", sqlDecimalPlaces, tooPrecise},
	{"payment_status_follows", sqlStatus, counted},
	{"events_without_gaps", sqlEventsWithoutGaps, counted},
	{"one_event_per_end", sqlOneEventPerEnd, counted},
	{"events_belong", sqlEventsBelong, counted},
	{"nonces_point_to_their_transactions", sqlNonces, counted},
	{"answers_only_where_told", sqlAnswers, counted},
	{"unresolved_have_leases", sqlLeases, counted},
	{"fences_have_takeovers", sqlFences, counted},
	{"sessions_paid_once", sqlSessionsPaidOnce, counted},
	{"sessions_hold_their_payment", sqlSessionsHeld, counted},
}

// violations counts what breaks one rule, in a database transaction that goes on even if
// the statement fails. failed is why it did; err, that nothing more can be asked.
func (s store) violations(db postgres.Tx, c invariant) (n int64, failed, err error) {
	const here = "invariant"
	if err := db.SavePoint(here).Error; err != nil {
		return 0, nil, err
	}
	n, failed = c.count(db, c.sql)
	if failed != nil {
		return 0, failed, db.RollbackTo(here).Error
	}
	return n, nil, nil
}

// counted is the one number that a statement returns.
func counted(db postgres.Tx, query string) (n int64, err error) {
	_, err = one(db.Raw(query), &n)
	return n, err
}

// tooPrecise counts the amounts with more decimal places than their currency has. Those
// in a currency that ISO has taken off its list meanwhile are not judged.
func tooPrecise(db postgres.Tx, query string) (n int64, err error) {
	var used []struct {
		Currency  string
		Places, N int64
	}
	err = db.Raw(query).Scan(&used).Error
	for _, u := range used {
		if units, known := money.MinorUnits(u.Currency); known && u.Places > int64(units) {
			n += u.N
		}
	}
	return n, err
}
