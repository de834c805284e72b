package transactions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// beatsMissed is how long an instance may be silent before what it holds may be
// taken over: five beats of one second.
const beatsMissed = "interval '5 seconds'"

// claimNonce is how a statement begins that claims a nonce ($1 account, $2 mode, $3
// nonce, $4 operation, $5 fingerprint, $6 transaction, $7 retention in microseconds). What
// follows hangs on claim, which has no row if the nonce is taken. DO NOTHING rather than a
// DO UPDATE that never matches: on a hot duplicate it writes no WAL and takes no row lock.
const claimNonce = `
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at),
claim AS (
    INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, created_at, expires_at)
    SELECT $1::uuid, $2::text, $3::text, $4::text, $5::bytea, $6::uuid, at, at + $7::bigint * interval '1 microsecond' FROM clock
    ON CONFLICT (account_id, mode, key_id) DO NOTHING
    RETURNING created_at AS at
)`

// columns of a transaction, for every statement that reads one.
const transactionColumns = `t.account_id, t.id, t.payment_id, t.target_id, t.mode, t.type, t.status, t.currency, t.amount, t.provider,
    t.provider_reference, t.response_code, t.authorization_code, t.redirect_url, t.raw_response, t.refunded, t.refund_pending,
    t.nonce, t.policy, t.card, t.request, t.fence, t.resend_refused, t.attempts, t.released, t.lease_holder, t.lease_until, t.may_send_until, t.travel_us, t.parked_at, t.created_at, t.updated_at`

const paymentColumns = `p.account_id, p.id, p.mode, p.merchant_order_id, p.status, p.sub_status, p.currency, p.amount,
    p.authorized, p.authorize_pending, p.settled, p.settle_pending, p.captured, p.refunded, p.refund_pending,
    p.canceled, p.cancel_pending, p.charged_back, p.version, p.request, p.created_at, p.updated_at`

// holderGone is true of a transaction t whose holder's process has stopped
// beating, or has said goodbye.
const holderGone = `NOT EXISTS (SELECT 1 FROM instances i WHERE i.id = t.instance_id AND i.beat_at > clock_timestamp() - ` + beatsMissed + `)`

// sqlRead reads what a nonce stands for. The first request's body comes along
// only where this one differs from it. A nonce of what needs no provider has no
// transaction.
const sqlRead = `/* transactions.read_key */
SELECT k.operation, k.fingerprint, k.response_status, k.response_body,
       CASE WHEN k.fingerprint <> $4::bytea AND k.fingerprint IS DISTINCT FROM $5::bytea THEN
           coalesce(CASE WHEN t.target_id IS NULL THEN p.request ELSE t.request END, '') ELSE '' END AS first_request,
       k.expires_at <= clock_timestamp() AS expired,
       t.lease_until <= clock_timestamp() AS lease_over,
       t.lease_until IS NOT NULL AND ` + holderGone + ` AS holder_gone,
       clock_timestamp() AS now, ` + transactionColumns + `
FROM idempotency_keys k
LEFT JOIN transactions t ON t.account_id = k.account_id AND t.id = k.transaction_id
LEFT JOIN payments p ON p.account_id = t.account_id AND p.id = t.payment_id
WHERE k.account_id = $1::uuid AND k.mode = $2::text AND k.key_id = $3::text`

// sqlEndLife removes a life that is over: by its transaction, not by key alone,
// so that a life that began meanwhile is never touched. One without a transaction ($4
// is NULL) was over before it could be seen.
const sqlEndLife = `/* transactions.end_life */
DELETE FROM idempotency_keys k
WHERE k.account_id = $1::uuid AND k.mode = $2::text AND k.key_id = $3::text AND k.transaction_id IS NOT DISTINCT FROM $4::uuid
  AND k.expires_at <= clock_timestamp()
  AND NOT EXISTS (SELECT 1 FROM transactions t WHERE t.account_id = k.account_id AND t.id = k.transaction_id AND t.lease_until IS NOT NULL)`

// sqlTakeOver is the compare-and-set by which somebody becomes the holder of an
// unresolved transaction. All conditions matter: finish leaves the fence alone,
// so the fence by itself does not prove that the row is still unresolved. What the
// provider has accepted is nobody's work in progress, its lease only says when to
// ask again: neither a person nor the provider's own word need wait for it.
const sqlTakeOver = `/* transactions.take_over */
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at),
taken AS (
    UPDATE transactions t
    SET fence = t.fence + 1, lease_holder = $4::uuid, instance_id = $5::uuid,
        lease_until = at + $6::bigint * interval '1 microsecond',
        next_attempt_at = at + $7::bigint * interval '1 microsecond',
        may_send_until = CASE WHEN $8::boolean THEN greatest(t.may_send_until, at + $9::bigint * interval '1 microsecond')
                              ELSE t.may_send_until END,
        travel_us = CASE WHEN $8 THEN greatest(t.travel_us, $11::bigint) ELSE t.travel_us END
    FROM clock
    WHERE t.account_id = $1::uuid AND t.id = $2::uuid AND t.fence = $3::bigint AND t.lease_until IS NOT NULL
      AND (t.lease_until <= clock_timestamp() OR ` + holderGone + ` OR $10::text IN ('person', 'callback') AND t.status = 'PENDING')
    RETURNING at AS now, ` + transactionColumns + `
), note AS (
    INSERT INTO takeovers (account_id, transaction_id, fence, taken_by, at)
    SELECT account_id, id, fence, $10, now FROM taken
)
SELECT * FROM taken`

// lockedRow is how a row is read after a lost COMMIT. That may be visible although no
// standby has it yet; to lock a row writes to the log, so this statement's own commit
// waits for the standbys, and vouches for the lost one.
const lockedRow = `
FOR NO KEY UPDATE OF t`

// sqlHolding reads a transaction after a lost COMMIT, to see who holds it.
const sqlHolding = `/* transactions.holding */
SELECT clock_timestamp() AS now, ` + transactionColumns + `
FROM transactions t WHERE t.account_id = $1::uuid AND t.id = $2::uuid` + lockedRow

// Finish and leave share their first parameters: $1 account, $2 transaction,
// $3 fence, $4 holder, $5 provider calls (a JSON array), $6 and $7 the answer's
// status and body (NULL: none).

// underTheFence is the condition of every write that follows a provider call.
const underTheFence = `t.account_id = $1::uuid AND t.id = $2::uuid AND t.fence = $3::bigint AND t.lease_holder = $4::uuid
      AND t.lease_until IS NOT NULL`

const sqlHolds = `/* transactions.holds */
SELECT EXISTS (SELECT 1 FROM transactions t WHERE ` + underTheFence + `)`

// insertCalls writes the provider calls of one holder's run.
const insertCalls = `
    INSERT INTO provider_calls (account_id, transaction_id, fence, seq, kind, provider, outcome, provider_reference,
                                response_code, detail, started_at, duration_ms)
    SELECT moved.account_id, moved.id, $3::bigint, c.seq, c.kind, c.provider, c.outcome, c.provider_reference,
           c.response_code, c.detail, c.started_at, c.duration_ms
    FROM moved, jsonb_to_recordset($5::jsonb) AS c(seq smallint, kind text, provider text, outcome text,
         provider_reference text, response_code text, detail text, started_at timestamptz, duration_ms integer)
    ON CONFLICT DO NOTHING`

// storeAnswer keeps the nonce's answer, unless it has one: what was told once
// never changes. An outcome that was settled a day late is still told: for as long from
// now as the claim has said, whatever the merchant's policy has become. In seconds: a
// day as such may have 23 hours.
const storeAnswer = `
    UPDATE idempotency_keys k
    SET response_status = $6::smallint, response_body = $7::bytea,
        expires_at = greatest(k.expires_at, clock_timestamp() + extract(epoch FROM k.expires_at - k.created_at) * interval '1 second')
    FROM moved
    WHERE k.account_id = moved.account_id AND k.mode = moved.mode AND k.key_id = moved.nonce
      AND k.transaction_id = moved.id AND k.response_status IS NULL AND $6::smallint IS NOT NULL`

// sqlFinish ends a transaction, or notes that the provider accepted it: its new
// state, the payment's, the nonce's answer (or its release), the event, the provider
// calls and what was reserved, all under the fence, in one statement. If the fence has
// moved, or the row is terminal, nothing matches and nothing happens.
//
// The payment is written as it was worked out from what was read of it ($23 is its
// version then). Two who worked it out from the same row would write the same event,
// and the second fails as a whole.
const sqlFinish = `/* transactions.finish */
WITH moved AS (
    UPDATE transactions t
    SET status = $8::text, provider_reference = $9::text, response_code = $10::text, authorization_code = $11::text,
        redirect_url = $21::text, raw_response = $22::text,
        released = $12::boolean AND NOT EXISTS (
            SELECT 1 FROM idempotency_keys k WHERE k.account_id = t.account_id AND k.mode = t.mode AND k.key_id = t.nonce
              AND k.transaction_id = t.id AND k.response_status IS NOT NULL),
        updated_at = $13::timestamptz,
        lease_until = CASE WHEN $8 = 'PENDING' THEN clock_timestamp() + CASE WHEN t.told_at IS NULL THEN $14::bigint ELSE 0 END * interval '1 microsecond' END,
        next_attempt_at = clock_timestamp() + CASE WHEN t.told_at IS NULL THEN $14 ELSE 0 END * interval '1 microsecond',
        parked_at = NULL, attempts = 0
    WHERE ` + underTheFence + `
    RETURNING t.account_id, t.id, t.payment_id, t.target_id, t.mode, t.nonce, t.type, t.amount, t.fence, t.released
), payment AS (
    UPDATE payments p
    SET status = $15::text, sub_status = $16::text, version = $23::bigint + 1, updated_at = greatest(p.updated_at, $13),
        authorized = $24::numeric, authorize_pending = $25::numeric, settled = $26::numeric, settle_pending = $27::numeric,
        captured = $28::numeric, refunded = $29::numeric, refund_pending = $30::numeric,
        canceled = $31::numeric, cancel_pending = $32::numeric
    FROM moved
    WHERE p.account_id = moved.account_id AND p.id = moved.payment_id AND $33::boolean
    RETURNING p.account_id, p.id, p.version
), event AS (
    INSERT INTO events (account_id, payment_id, seq, transaction_id, type, status, sub_status, cause, created_at)
    SELECT payment.account_id, payment.id, payment.version, moved.id, 'payment.' || lower(moved.type), $15, $16, $17::text, $13
    FROM payment, moved
), target AS (
    UPDATE transactions g
    SET refund_pending = g.refund_pending - moved.amount,
        refunded = g.refunded + CASE WHEN $8 = 'SUCCEEDED' THEN moved.amount ELSE 0 END
    FROM moved
    WHERE moved.type = 'REFUND' AND $8 <> 'PENDING' AND g.account_id = moved.account_id AND g.id = moved.target_id
), authorization_made AS (
    INSERT INTO authorizations (account_id, payment_id, transaction_id, expires_at)
    SELECT moved.account_id, moved.payment_id, moved.id, clock_timestamp() + $34::bigint * interval '1 microsecond'
    FROM moved WHERE moved.type = 'AUTHORIZE' AND $8 = 'SUCCEEDED'
), watch AS (
    INSERT INTO watches (account_id, transaction_id, next_look_at)
    SELECT moved.account_id, moved.id, clock_timestamp() + $35::bigint * interval '1 microsecond'
    FROM moved WHERE $8 <> 'PENDING' AND (moved.fence > 1 OR moved.released)
    ON CONFLICT (account_id, transaction_id) DO NOTHING
), answer AS (` + storeAnswer + `
), release AS (
    DELETE FROM idempotency_keys k USING moved
    WHERE k.account_id = moved.account_id AND k.mode = moved.mode AND k.key_id = moved.nonce
      AND k.transaction_id = moved.id AND k.response_status IS NULL AND $6::smallint IS NULL AND $12
), calls AS (` + insertCalls + `
)` + endSource + `, resolution AS (
    INSERT INTO resolutions (account_id, transaction_id, fence, outcome, provider_reference, reason, request_id)
    SELECT moved.account_id, moved.id, $3, $18::text, $9, $19::text, $20::text FROM moved WHERE $18 <> ''
)
SELECT count(*) FROM moved`

// sqlLeave ends a holder's work without an outcome: the lease ends now, and
// may_send_until stays, because what was sent may still arrive. Parking moves the
// fence, so that nobody who looked before can take it for unparked. An answer is
// stored only where a policy keeps errors.
const sqlLeave = `/* transactions.leave */
WITH moved AS (
    UPDATE transactions t
    SET lease_until = least(t.lease_until, clock_timestamp()),
        fence = t.fence + CASE WHEN $8::boolean AND t.parked_at IS NULL THEN 1 ELSE 0 END,
        parked_at = CASE WHEN $8 THEN coalesce(t.parked_at, clock_timestamp()) ELSE t.parked_at END,
        attempts = t.attempts + $9::integer,
        resend_refused = t.resend_refused OR $10::boolean,
        next_attempt_at = clock_timestamp() + CASE WHEN t.told_at IS NULL THEN $11::bigint ELSE 0 END * interval '1 microsecond'
    WHERE ` + underTheFence + `
    RETURNING t.account_id, t.id, t.mode, t.nonce, t.fence
), parking AS (
    INSERT INTO takeovers (account_id, transaction_id, fence, taken_by, at)
    SELECT moved.account_id, moved.id, moved.fence, 'parking', clock_timestamp() FROM moved WHERE moved.fence > $3
), answer AS (` + storeAnswer + `
), calls AS (` + insertCalls + `
)
SELECT count(*) FROM moved`

// sqlObserve keeps what a fenced-out holder learnt, with its calls.
const sqlObserve = `/* transactions.observe */
WITH moved AS (
    SELECT t.account_id, t.id FROM transactions t WHERE t.account_id = $1::uuid AND t.id = $2::uuid
), calls AS (` + insertCalls + `
)
INSERT INTO provider_observations (account_id, transaction_id, id, fence, outcome, provider_reference, response_code, authorization_code, detail)
SELECT moved.account_id, moved.id, $4::uuid, $3, $6::text, $7::text, $8::text, $9::text, $10::text FROM moved`

// sqlObservations reads back the one that settles the matter, if there is one:
// booked beats declined, and all others settle nothing.
const sqlObservations = `/* transactions.observations */
SELECT outcome, provider_reference, response_code, authorization_code, detail
FROM provider_observations
WHERE account_id = $1::uuid AND transaction_id = $2::uuid AND outcome IN ('approved', 'declined')
ORDER BY outcome, observed_at LIMIT 1`

// sqlOutcome re-reads one transaction and the answer its nonce has, after a
// finish that matched nothing.
const sqlOutcome = `/* transactions.outcome */
SELECT k.response_status, k.response_body, ` + transactionColumns + `
FROM transactions t
LEFT JOIN idempotency_keys k ON k.account_id = t.account_id AND k.mode = t.mode AND k.key_id = t.nonce AND k.transaction_id = t.id
WHERE t.account_id = $1::uuid AND t.id = $2::uuid` + lockedRow

// sqlDue reads what recovery may look at: work that is due, and work whose
// holder's process is gone, at the providers we have (others' would fill the batch
// for ever). Read plainly; the take-over decides who gets it.
const sqlDue = `/* transactions.due */
SELECT ` + transactionColumns + `
FROM transactions t
WHERE t.lease_until IS NOT NULL AND t.provider = ANY($2::text[])
  AND (t.next_attempt_at <= clock_timestamp() OR (t.lease_until > clock_timestamp() AND t.status = 'CREATED' AND ` + holderGone + `))
ORDER BY t.next_attempt_at LIMIT $1::integer`

// store keeps payments and transactions.
type store struct{ db *postgres.DB }

// clock is the database's time at one moment, carried on by a monotonic clock of
// ours. The moment lies between before and after on our side, so there is a
// reading that is never ahead of the database and one that is never behind it.
type clock struct {
	at            time.Time
	before, after time.Time
}

// earliest is never ahead of the database's clock.
func (c clock) earliest() time.Time { return c.at.Add(time.Since(c.after)) }

// newPayment is what begin inserts.
type newPayment struct {
	AccountID, PaymentID, TransactionID uuid.UUID
	Mode, Nonce, Operation, Policy      string
	Print                               idem.Print
	Retention                           time.Duration
	Request                             Request
	Provider                            string
	Holder, Instance                    uuid.UUID
	Terms                               terms
}

// keyRecord is what a nonce stands for, with the transaction behind it.
type keyRecord struct {
	Operation      string
	Fingerprint    []byte
	ResponseStatus *int
	ResponseBody   []byte
	FirstRequest   string
	Expired        bool
	LeaseOver      *bool // nil once terminal
	HolderGone     bool
	Now            time.Time
	Transaction    `gorm:"embedded"`
}

// over says whether this life has had its time: the nonce may begin another.
func (k keyRecord) over() bool { return k.Expired && k.LeaseOver == nil }

// readKey reads what a nonce stands for; asked is the print of the request that asks.
func (s store) readKey(ctx context.Context, account uuid.UUID, mode, nonce string, asked idem.Print) (keyRecord, bool, error) {
	var k keyRecord
	found, err := one(s.db.Conn(ctx).Raw(sqlRead, account, mode, nonce, asked.Kept(), asked.KeptByOther()), &k)
	return k, found, wrap("read the nonce", err)
}

func (s store) endLife(ctx context.Context, account uuid.UUID, mode, nonce string, transaction uuid.UUID) error {
	return wrap("end the life", s.db.Conn(ctx).Exec(sqlEndLife, account, mode, nonce, orNone(transaction)).Error)
}

// taker is who takes a transaction over.
type taker string

const (
	byRequest  taker = "request"
	byRecovery taker = "recovery"
	byPerson   taker = "person"
	byCallback taker = "callback"
)

// held is a transaction as it was when somebody became, or was, its holder.
type held struct {
	Now         time.Time
	Transaction `gorm:"embedded"`
}

// takeOver makes holder the holder if the transaction is still as it was seen:
// unresolved, under that fence, its lease over or its holder gone. Whoever may
// send raises may_send_until with it, and travel_us.
func (s store) takeOver(ctx context.Context, seen Transaction, by taker, holder, instance uuid.UUID, t terms, maySend bool) (Transaction, clock, bool, error) {
	return s.hold(ctx, "take over", sqlTakeOver, seen.AccountID, seen.ID, seen.Fence, holder, instance,
		t.lease.Microseconds(), t.firstLook().Microseconds(), maySend, t.sendWindow().Microseconds(), string(by), t.travel().Microseconds())
}

// holding reads who holds a transaction, after a COMMIT whose answer was lost.
func (s store) holding(ctx context.Context, account, transaction uuid.UUID) (Transaction, clock, bool, error) {
	return s.hold(ctx, "read the holder", sqlHolding, account, transaction)
}

func (s store) hold(ctx context.Context, what, query string, args ...any) (Transaction, clock, bool, error) {
	var h held
	c := clock{before: time.Now()}
	found, err := s.confirmed(ctx, &h, query, args...)
	c.at, c.after = h.Now, time.Now()
	return h.Transaction, c, found, wrap(what, err)
}

// call is one exchange with a provider, as kept.
type call struct {
	Seq               int       `json:"seq"`
	Kind              string    `json:"kind"`
	Provider          string    `json:"provider"`
	Outcome           string    `json:"outcome"`
	ProviderReference string    `json:"provider_reference"`
	ResponseCode      string    `json:"response_code"`
	Detail            string    `json:"detail"`
	StartedAt         time.Time `json:"started_at"`
	DurationMS        int64     `json:"duration_ms"`
}

// answer is what a nonce answers from now on.
type answer struct {
	status int
	body   []byte
}

// columns are the answer's parameters: NULL where there is none.
func (a *answer) columns() (status, body any) {
	if a == nil {
		return nil, nil
	}
	return a.status, a.body
}

// ending is what finish writes.
type ending struct {
	status            Status
	providerReference string
	responseCode      string
	authorizationCode string
	redirectURL       string
	rawResponse       string
	released          bool
	at                time.Time
	poll              time.Duration // until the next look, where the provider has only accepted it
	authorizedFor     time.Duration // how long an authorization may be captured
	watch             time.Duration // until reconciliation's first look, where there is reason for one
	// tell makes the nonce's answer of what payment and transaction are from now on.
	// nil, or no answer from it: none is stored.
	tell       func(Payment, Transaction) (*answer, error)
	cause      string
	calls      []call
	resolution resolution
}

// of is tx as it is once e is saved.
func (e ending) of(tx Transaction) Transaction {
	tx.Status, tx.ProviderReference, tx.ResponseCode, tx.AuthorizationCode = e.status, e.providerReference, e.responseCode, e.authorizationCode
	tx.RedirectURL, tx.RawResponse, tx.UpdatedAt = e.redirectURL, e.rawResponse, e.at
	return tx
}

// resolution is a person's decision, or zero.
type resolution struct{ outcome, reason, requestID string }

// made says whether a person decided anything.
func (r resolution) made() bool { return r.outcome != "" }

// finish reports whether it matched, and the answer that it made for the nonce. It is
// safe to repeat: once it has committed, it matches no more.
//
// Nobody else changes a payment before its first transaction has succeeded, so seen,
// as it was when that began or was taken over, is what it is. All others act on a
// payment that others may act on, too: they read it anew, and lock it.
//
// What a person decided is in the audit log once, because it is written with what matched.
func (s store) finish(ctx context.Context, tx Transaction, seen Payment, e ending) (matched bool, told *answer, err error) {
	defer func() { err = wrap("finish", err) }()
	if !tx.TargetID.Valid && !e.resolution.made() {
		err = s.db.Confirmed(ctx, func(db postgres.Tx) error {
			matched, told, err = s.end(db, tx, seen, alongside{}, e)
			return err
		})
		return matched, told, err
	}
	err = s.db.ConfirmedTx(ctx, func(db postgres.Tx) (err error) {
		p, u := seen, alongside{}
		if tx.TargetID.Valid {
			p, u, err = s.lockPayment(db, tx)
		}
		if err == nil {
			matched, told, err = s.end(db, tx, p, u, e)
		}
		if err == nil && matched && e.resolution.made() {
			err = audit.Append(ctx, db, resolved(tx, e))
		}
		return err
	})
	return matched && err == nil, told, err
}

// end is the statement of finish.
func (s store) end(db postgres.Tx, tx Transaction, p Payment, u alongside, e ending) (matched bool, told *answer, err error) {
	after := e.of(tx)
	tx.RedirectURL = e.redirectURL
	next, err := p.after(tx, e.status, u)
	if err != nil {
		// Somebody else may have got on with it, and the payment is past this.
		var holds bool
		_, readErr := one(db.Raw(sqlHolds, tx.AccountID, tx.ID, tx.Fence, tx.LeaseHolder), &holds)
		if readErr == nil && !holds {
			err = nil
		}
		return false, nil, errors.Join(err, readErr)
	}
	if next.Version != p.Version && next.UpdatedAt.Before(e.at) {
		next.UpdatedAt = e.at
	}
	if e.tell != nil {
		if told, err = e.tell(next, after); err != nil {
			return false, nil, err
		}
	}
	status, body := told.columns()
	n := next.Sums
	var count int
	_, err = one(db.Raw(sqlFinish, tx.AccountID, tx.ID, tx.Fence, tx.LeaseHolder, callsJSON(e.calls), status, body,
		string(e.status), e.providerReference, e.responseCode, e.authorizationCode, e.released, e.at, e.poll.Microseconds(),
		next.Status, next.SubStatus, e.cause, e.resolution.outcome, e.resolution.reason, e.resolution.requestID,
		e.redirectURL, e.rawResponse, p.Version,
		n.Authorized, n.AuthorizePending, n.Settled, n.SettlePending, n.Captured, n.Refunded, n.RefundPending, n.Canceled, n.CancelPending,
		next.Version != p.Version, e.authorizedFor.Microseconds(), e.watch.Microseconds()), &count)
	return count == 1, told, err
}

// leaving is what leave writes.
type leaving struct {
	park          bool
	attempt       int // 1 if this was one of recovery's own attempts
	resendRefused bool
	next          time.Duration // until recovery looks again
	answer        *answer
	calls         []call
}

// leave may store an answer that is told, so it is confirmed like a finish. It may be
// repeated: if an earlier try had taken place, it counts an attempt more at most.
func (s store) leave(ctx context.Context, tx Transaction, l leaving) (bool, error) {
	status, body := l.answer.columns()
	var n int
	err := s.db.Confirmed(ctx, func(db postgres.Tx) error {
		return db.Raw(sqlLeave, tx.AccountID, tx.ID, tx.Fence, tx.LeaseHolder, callsJSON(l.calls), status, body,
			l.park, l.attempt, l.resendRefused, l.next.Microseconds()).Row().Scan(&n)
	})
	return n == 1 && err == nil, wrap("leave", err)
}

// observe keeps what a holder learnt that could not finish.
func (s store) observe(ctx context.Context, tx Transaction, r providers.Result, calls []call) error {
	return wrap("observe", s.db.Conn(ctx).Exec(sqlObserve, tx.AccountID, tx.ID, tx.Fence, uuid.Must(uuid.NewV7()), callsJSON(calls),
		string(r.Outcome), r.ProviderReference, r.ResponseCode, r.AuthorizationCode, r.Detail).Error)
}

// observation is what an earlier holder learnt too late, if that settles the
// matter.
func (s store) observation(ctx context.Context, tx Transaction) (providers.Result, bool, error) {
	var r providers.Result
	found, err := one(s.db.Conn(ctx).Raw(sqlObservations, tx.AccountID, tx.ID), &r)
	return r, found, wrap("read the observations", err)
}

// outcome is a transaction with the answer its nonce has, if it still has one.
type outcome struct {
	ResponseStatus *int
	ResponseBody   []byte
	Transaction    `gorm:"embedded"`
}

func (s store) outcome(ctx context.Context, account, transaction uuid.UUID) (outcome, bool, error) {
	var o outcome
	found, err := s.confirmed(ctx, &o, sqlOutcome, account, transaction)
	return o, found, wrap("re-read the outcome", err)
}

func (s store) due(ctx context.Context, providerNames []string, limit int) ([]Transaction, error) {
	var txs []Transaction
	err := s.db.Conn(ctx).Raw(sqlDue, limit, providerNames).Scan(&txs).Error
	return txs, wrap("read what is due", err)
}

// orNone is an id as a parameter: NULL where there is none.
func orNone(id uuid.UUID) uuid.NullUUID { return uuid.NullUUID{UUID: id, Valid: id != uuid.Nil} }

// callsJSON is one holder's calls as a parameter.
func callsJSON(calls []call) string {
	if len(calls) == 0 {
		return "[]"
	}
	b, err := json.Marshal(calls)
	if err != nil {
		panic(err) // strings, numbers and times of this century
	}
	return string(b)
}

// confirmed scans the only row of a statement whose commit must be on the standbys, too,
// before anything is done or told, and says whether there was one.
func (s store) confirmed(ctx context.Context, dest any, query string, args ...any) (found bool, err error) {
	err = s.db.Confirmed(ctx, func(db postgres.Tx) (err error) {
		found, err = one(db.Raw(query, args...), dest)
		return err
	})
	return found, err
}

// one scans a query's only row, and says whether there was one. It is GORM's Scan
// without the statement written out with all its values, for a log that nobody keeps:
// that was a tenth of a payment's work.
func one(q *gorm.DB, dest any) (found bool, err error) {
	rows, err := q.Rows()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rows.Close(), rows.Err()) }() // a commit may still fail behind its row
	if found = rows.Next(); found {
		err = q.ScanRows(rows, dest)
	}
	return found, err
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// sqlByID finds a transaction that is known by its id alone.
const sqlByID = `/* transactions.by_id */
SELECT coalesce(t.lease_until <= clock_timestamp() OR t.status = 'PENDING' OR ` + holderGone + `, true) AS lease_over, ` + transactionColumns + `
FROM transactions t WHERE t.id = $1::uuid`

func (s store) byID(ctx context.Context, id uuid.UUID) (Transaction, bool, error) {
	var row struct {
		LeaseOver   bool
		Transaction `gorm:"embedded"`
	}
	found, err := one(s.db.Conn(ctx).Raw(sqlByID, id), &row)
	if err == nil && !found {
		err = apierr.New(apierr.NotFound, "there is no transaction with this id")
	}
	return row.Transaction, row.LeaseOver, err
}

// sqlLockPayment reads a payment for whoever is about to change it.
const sqlLockPayment = `/* transactions.lock_payment */
SELECT ` + paymentColumns + ` FROM payments p WHERE p.account_id = $1::uuid AND p.id = $2::uuid FOR NO KEY UPDATE OF p`

// sqlUnderWay reads what a payment's other transactions wait for. It is a statement of
// its own, behind the lock: one that waits for a lock sees the rest of the database as
// it was before.
const sqlUnderWay = `/* transactions.under_way */
SELECT coalesce(bool_or(t.type = 'REFUND' AND t.status = 'PENDING'), false) AS refunding,
       coalesce(bool_or(t.type = 'CANCEL' AND t.status = 'PENDING'), false) AS canceling,
       coalesce(bool_or(t.type = 'CHARGEBACK' AND t.status = 'CREATED'), false) AS disputed,
       coalesce(bool_or(t.type = 'CHARGEBACK' AND t.status = 'PENDING'), false) AS reviewed
FROM transactions t WHERE t.account_id = $1::uuid AND t.payment_id = $2::uuid AND t.id <> $3::uuid`

// lockPayment reads tx's payment and what is under way there beside tx. Both stay so
// until the database transaction ends.
func (s store) lockPayment(db postgres.Tx, tx Transaction) (p Payment, u alongside, err error) {
	found, err := one(db.Raw(sqlLockPayment, tx.AccountID, tx.PaymentID), &p)
	if err == nil && !found {
		err = errors.New("the payment is gone")
	}
	if err == nil {
		_, err = one(db.Raw(sqlUnderWay, tx.AccountID, tx.PaymentID, tx.ID), &u)
	}
	return p, u, err
}

const sqlPayment = `/* transactions.payment */
SELECT ` + paymentColumns + ` FROM payments p WHERE p.account_id = $1::uuid AND p.id = $2::uuid`

func (s store) payment(ctx context.Context, account, id uuid.UUID) (Payment, error) {
	var p Payment
	found, err := one(s.db.Conn(ctx).Raw(sqlPayment, account, id), &p)
	if err == nil && !found {
		err = apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
	}
	return p, err
}

const sqlPaymentsByOrder = `/* transactions.payments_by_order */
SELECT ` + paymentColumns + ` FROM payments p
WHERE p.account_id = $1::uuid AND p.mode = $2::text AND p.merchant_order_id = $3::text
  AND ($4::uuid IS NULL OR (p.created_at, p.id) < (SELECT c.created_at, c.id FROM payments c WHERE c.account_id = $1 AND c.id = $4))
ORDER BY p.created_at DESC, p.id DESC LIMIT $5::integer`

// paymentsByOrder reads an order's payments, the newest first, going on after one
// of them.
func (s store) paymentsByOrder(ctx context.Context, account uuid.UUID, mode, order string, after uuid.NullUUID, limit int) ([]Payment, error) {
	var ps []Payment
	err := s.db.Conn(ctx).Raw(sqlPaymentsByOrder, account, mode, order, after, limit).Scan(&ps).Error
	return ps, wrap("read the order's payments", err)
}

const sqlTransactionsOf = `/* transactions.of_payments */
SELECT ` + transactionColumns + ` FROM (
    SELECT x.*, row_number() OVER (PARTITION BY x.payment_id ORDER BY x.created_at DESC, x.id DESC) AS nth
    FROM transactions x WHERE x.account_id = $1::uuid AND x.payment_id = ANY($2::uuid[])) t
WHERE t.nth < $3::integer OR t.target_id IS NULL
ORDER BY t.created_at DESC, t.id DESC`

// transactionsOf reads the transactions of some payments, the newest first: of each as
// many as an answer shows, the one that created it among them.
func (s store) transactionsOf(ctx context.Context, account uuid.UUID, payments ...uuid.UUID) (map[uuid.UUID][]Transaction, error) {
	ids := make([]string, len(payments))
	for i, id := range payments {
		ids[i] = id.String()
	}
	var ts []Transaction
	if err := s.db.Conn(ctx).Raw(sqlTransactionsOf, account, ids, maxShownTransactions).Scan(&ts).Error; err != nil {
		return nil, wrap("read the transactions", err)
	}
	byPayment := map[uuid.UUID][]Transaction{}
	for _, t := range ts {
		byPayment[t.PaymentID] = append(byPayment[t.PaymentID], t)
	}
	return byPayment, nil
}

const sqlBeat = `/* transactions.beat */
INSERT INTO instances (id) VALUES ($1::uuid) ON CONFLICT (id) DO UPDATE SET beat_at = clock_timestamp()`

func (s store) beat(ctx context.Context, instance uuid.UUID) error {
	return wrap("beat", s.db.Conn(ctx).Exec(sqlBeat, instance).Error)
}

// sqlGoodbye also forgets processes that have been silent for long: an unknown
// instance counts as gone, just as a silent one does.
const sqlGoodbye = `/* transactions.goodbye */
DELETE FROM instances WHERE id = $1::uuid OR beat_at < clock_timestamp() - $2::bigint * interval '1 microsecond'`

func (s store) goodbye(ctx context.Context, instance uuid.UUID) error {
	return wrap("say goodbye", s.db.Conn(ctx).Exec(sqlGoodbye, instance, instanceRetention.Microseconds()).Error)
}

// lifeColumns are what sqlLives and its two sisters read.
const lifeColumns = `k.response_status,
       coalesce(k.expires_at <= clock_timestamp(), false) AS expired,
       coalesce(t.lease_until <= clock_timestamp(), false) AS lease_over,
       t.lease_until IS NOT NULL AND ` + holderGone + ` AS holder_gone,
       (SELECT count(*) FROM takeovers o WHERE o.account_id = t.account_id AND o.transaction_id = t.id AND o.taken_by <> 'parking') + 1 AS holders, ` + transactionColumns + `
FROM transactions t
LEFT JOIN idempotency_keys k ON k.account_id = t.account_id AND k.mode = t.mode AND k.key_id = t.nonce AND k.transaction_id = t.id`

// sqlLives finds a merchant's lives of a nonce; sqlLivesAnywhere, for the
// operator, those of every merchant, or of one in both modes.
const (
	sqlLives = `/* transactions.lives */
SELECT ` + lifeColumns + `
WHERE t.account_id = $1::uuid AND t.mode = $2::text AND t.nonce = $3::text
  AND ($4::uuid IS NULL OR (t.created_at, t.id) < (SELECT c.created_at, c.id FROM transactions c WHERE c.account_id = $1 AND c.id = $4))
ORDER BY t.created_at DESC, t.id DESC LIMIT $5::integer`

	sqlLivesAnywhere = `/* transactions.lives_anywhere */
SELECT ` + lifeColumns + `
WHERE ($1::uuid IS NULL OR t.account_id = $1::uuid) AND t.nonce = $2::text
  AND ($3::uuid IS NULL OR (t.created_at, t.id) < (SELECT c.created_at, c.id FROM transactions c WHERE c.id = $3))
ORDER BY t.created_at DESC, t.id DESC LIMIT $4::integer`
)

func (s store) lives(ctx context.Context, scope Scope, nonce string, after uuid.NullUUID, limit int) ([]lifeRow, error) {
	var rows []lifeRow
	q := s.db.Conn(ctx).Raw(sqlLivesAnywhere, orNone(scope.AccountID), nonce, after, limit)
	if scope.Mode != "" {
		q = s.db.Conn(ctx).Raw(sqlLives, scope.AccountID, scope.Mode, nonce, after, limit)
	}
	return rows, wrap("look the nonce up", q.Scan(&rows).Error)
}

// momentRow is one fact of a life, whatever table it comes from.
type momentRow struct {
	Source      string
	At          time.Time
	Kind        string
	Verdict     string
	RequestID   string
	BodyDiffers bool
	Differs     string
	Provider    string
	Reference   string
	Outcome     string
	DurationMS  *int64
	By          string
	Reason      string
}

// sqlMoments gathers the timeline of one transaction ($2), each source bounded. An
// arrival that met no transaction belongs to the life in whose time it came ($5 to
// $6). Arrivals are dated to a millisecond or so; the one that began the life came
// before it.
const sqlMoments = `/* transactions.moments */
(SELECT 'arrivals' AS source, CASE WHEN a.verdict = 'new' THEN least(a.at, $5::timestamptz) ELSE a.at END AS at, 'request' AS kind, a.verdict, a.request_id, a.body_differs, a.differs,
        '' AS provider, '' AS reference, '' AS outcome, NULL::bigint AS duration_ms, '' AS by, '' AS reason
 FROM arrivals a
 WHERE a.account_id = $1::uuid AND a.mode = $3::text AND a.nonce = $4::text
   AND (a.transaction_id = $2::uuid
        OR a.transaction_id IS NULL AND a.at >= $5::timestamptz AND ($6::timestamptz IS NULL OR a.at < $6::timestamptz))
 ORDER BY a.at LIMIT $7::integer)
UNION ALL
(SELECT 'provider_calls', c.started_at, c.kind, '', '', false, '', c.provider, c.provider_reference, c.outcome, c.duration_ms, '', c.detail
 FROM provider_calls c WHERE c.account_id = $1 AND c.transaction_id = $2 ORDER BY c.fence, c.seq LIMIT $7)
UNION ALL
(SELECT 'takeovers', o.at, CASE WHEN o.taken_by = 'parking' THEN 'parked' ELSE 'takeover' END, '', '', false, '', '', '', '', NULL,
        CASE WHEN o.taken_by = 'parking' THEN 'recovery' ELSE o.taken_by END, ''
 FROM takeovers o WHERE o.account_id = $1 AND o.transaction_id = $2 ORDER BY o.fence LIMIT $7)
UNION ALL
(SELECT 'observations', b.observed_at, 'observation', '', '', false, '', '', b.provider_reference, b.outcome, NULL, '', b.detail
 FROM provider_observations b WHERE b.account_id = $1 AND b.transaction_id = $2 AND b.detail <> '` + calledBack + `' ORDER BY b.id LIMIT $7)
UNION ALL
(SELECT 'callbacks', c.received_at, 'callback', '', '', false, '', c.provider, '', c.outcome, NULL, '', c.verdict
 FROM callbacks c WHERE c.account_id = $1 AND c.transaction_id = $2 ORDER BY c.received_at, c.id LIMIT $7)
UNION ALL
(SELECT 'resolutions', r.resolved_at, 'resolution', '', r.request_id, false, '', '', r.provider_reference, r.outcome, NULL, 'person', r.reason
 FROM resolutions r WHERE r.account_id = $1 AND r.transaction_id = $2 ORDER BY r.fence LIMIT $7)
UNION ALL
(SELECT 'events', e.created_at, 'event', '', '', false, '', '', '', e.status || '/' || e.sub_status, NULL, e.cause, ''
 FROM events e JOIN transactions t ON t.account_id = e.account_id AND t.payment_id = e.payment_id AND t.id = $2
 WHERE e.account_id = $1 AND e.transaction_id = $2 ORDER BY e.seq LIMIT $7)
UNION ALL
(SELECT 'payment_sources', t.created_at, 'checkout', '', '', false, '', '', coalesce(o.checkout_session_id::text, ''), '', NULL, '', o.note
 FROM payment_sources o JOIN transactions t ON t.account_id = o.account_id AND t.payment_id = o.payment_id AND t.id = $2 AND t.target_id IS NULL
 WHERE o.account_id = $1 AND o.checkout_session_id IS NOT NULL LIMIT $7)`

func (s store) moments(ctx context.Context, r lifeRow, until *time.Time, limit int) ([]momentRow, error) {
	var rows []momentRow
	err := s.db.Conn(ctx).Raw(sqlMoments, r.AccountID, r.ID, r.Mode, r.Nonce, r.CreatedAt, until, limit+1).Scan(&rows).Error
	return rows, wrap("read the timeline", err)
}

// sqlBacklog counts what is unresolved. It reads the index of unresolved rows. What a
// provider has accepted may take days, and nobody is waiting for us.
const sqlBacklog = `/* transactions.backlog */
SELECT count(*) FILTER (WHERE t.parked_at IS NULL) AS unresolved, count(t.parked_at) AS parked,
       coalesce(extract(epoch FROM clock_timestamp() - min(t.created_at) FILTER (WHERE t.parked_at IS NULL)), 0)::bigint AS oldest_seconds
FROM transactions t WHERE t.lease_until IS NOT NULL AND (t.status = 'CREATED' OR t.parked_at IS NOT NULL)`

func (s store) backlog(ctx context.Context) (Backlog, error) {
	var b Backlog
	_, err := one(s.db.Conn(ctx).Raw(sqlBacklog), &b)
	return b, wrap("count what is unresolved", err)
}
