package transactions

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// lapsed is true of an authorization t that had succeeded before it expired.
const lapsed = `(t.type = 'AUTHORIZE' AND t.status = 'EXPIRED' AND EXISTS (
        SELECT 1 FROM events e WHERE e.account_id = t.account_id AND e.payment_id = t.payment_id AND e.transaction_id = t.id AND e.sub_status = 'AUTHORIZED'))`

// counterpartColumns are those of a transaction t, with what else is held against a
// provider's books. p is its payment.
const counterpartColumns = `clock_timestamp() AS now, p.merchant_order_id, ` + lapsed + ` AS lapsed,
    EXISTS (SELECT 1 FROM differences d WHERE d.account_id = t.account_id::text AND d.provider = t.provider AND d.reference = t.id::text
            AND d.finding = 'missing_here' AND d.action = 'reversed') AS taken_back, ` + transactionColumns

// sqlClaimWatches moves the next look at what is due, and so keeps others from it. Who
// finds a row locked looks at it again behind the lock, and leaves it.
const sqlClaimWatches = `/* transactions.claim_watches */
WITH due AS MATERIALIZED (
    SELECT w.account_id, w.transaction_id FROM watches w
    WHERE w.next_look_at <= clock_timestamp() ORDER BY w.next_look_at LIMIT $1::integer
), claimed AS (
    UPDATE watches w SET next_look_at = clock_timestamp() + $2::bigint * interval '1 microsecond'
    FROM due
    WHERE w.account_id = due.account_id AND w.transaction_id = due.transaction_id AND w.next_look_at <= clock_timestamp()
    RETURNING w.account_id, w.transaction_id, w.looks
)
SELECT claimed.looks, ` + counterpartColumns + `
FROM claimed
JOIN transactions t ON t.account_id = claimed.account_id AND t.id = claimed.transaction_id
JOIN payments p ON p.account_id = t.account_id AND p.id = t.payment_id`

// claimWatches takes what is due for a look; it is this caller's for that long.
func (s store) claimWatches(ctx context.Context, limit int, claim time.Duration) ([]counterpart, error) {
	var cs []counterpart
	err := s.db.Conn(ctx).Raw(sqlClaimWatches, limit, claim.Microseconds()).Scan(&cs).Error
	return cs, wrap("claim what is watched", err)
}

// The end of a look: the next one, or none. Whoever else has looked meanwhile has
// decided about that.
const (
	sqlLooked = `/* transactions.looked */
UPDATE watches SET looks = looks + 1, next_look_at = clock_timestamp() + $4::bigint * interval '1 microsecond'
WHERE account_id = $1::uuid AND transaction_id = $2::uuid AND looks = $3::integer`

	sqlUnwatch = `/* transactions.unwatch */
DELETE FROM watches WHERE account_id = $1::uuid AND transaction_id = $2::uuid AND looks = $3::integer`
)

// looked notes a look; pause is the time to the next one, 0 for none.
func (s store) looked(ctx context.Context, c counterpart, pause time.Duration) error {
	if pause == 0 {
		return s.unwatch(ctx, c)
	}
	return wrap("note a look", s.db.Conn(ctx).Exec(sqlLooked, c.AccountID, c.ID, c.Looks, pause.Microseconds()).Error)
}

func (s store) unwatch(ctx context.Context, c counterpart) error {
	return wrap("end a watch", s.db.Conn(ctx).Exec(sqlUnwatch, c.AccountID, c.ID, c.Looks).Error)
}

// sqlWatchSoon has what ended looked at now. What has not ended is left alone: its own
// end decides whether it is watched.
const sqlWatchSoon = `/* transactions.watch_soon */
INSERT INTO watches AS w (account_id, transaction_id, next_look_at)
SELECT t.account_id, t.id, clock_timestamp() FROM transactions t
WHERE t.account_id = $1::uuid AND t.id = $2::uuid AND t.lease_until IS NULL
ON CONFLICT (account_id, transaction_id) DO UPDATE SET next_look_at = least(w.next_look_at, excluded.next_look_at)`

// watchSoon makes a transaction that has ended due for a look.
func (s store) watchSoon(ctx context.Context, account, transaction uuid.UUID) error {
	return wrap("watch a transaction", s.db.Conn(ctx).Exec(sqlWatchSoon, account, transaction).Error)
}

// sqlIntendReversal notes a late charge, and that it is being reversed, before anything
// is sent: if, and only if, our transaction has ended without effect, which it stays. Of
// several who intend it, one is the first.
const sqlIntendReversal = `/* transactions.intend_reversal */
WITH ours AS MATERIALIZED (
    SELECT t.account_id, t.id, t.provider FROM transactions t
    WHERE t.account_id = $1::uuid AND t.id = $2::uuid AND t.type IN ('PURCHASE', 'AUTHORIZE', 'CAPTURE')
      AND t.status IN ('DECLINED', 'REJECTED', 'ERROR', 'EXPIRED') AND NOT ` + lapsed + `
    FOR NO KEY UPDATE OF t
), noted AS (
    INSERT INTO differences AS d (provider, account_id, reference, finding, our_status, our_amount, provider_status, provider_amount, currency, action)
    SELECT ours.provider, ours.account_id::text, ours.id::text, 'missing_here', $3::text, $4::numeric, $5::text, $6::numeric, $7::text, 'reversal_failed'
    FROM ours
    ON CONFLICT (account_id, provider, reference, finding) DO UPDATE
    SET action = excluded.action, provider_amount = excluded.provider_amount, last_seen_at = clock_timestamp() WHERE d.action = ''
    RETURNING d.reference
)
SELECT EXISTS (SELECT 1 FROM ours) AS allowed, EXISTS (SELECT 1 FROM noted) AS first`

// intendReversal says whether c may be reversed, and whether nobody has tried before.
func (s store) intendReversal(ctx context.Context, c counterpart, d Difference) (allowed, first bool, err error) {
	var may struct{ Allowed, First bool }
	_, err = s.confirmed(ctx, &may, sqlIntendReversal, c.AccountID, c.ID, d.OurStatus, d.OurAmount, d.ProviderStatus, d.ProviderAmount, d.Currency)
	return may.Allowed, may.First, wrap("intend a reversal", err)
}

// intention is a reversal that was intended before.
type intention struct {
	Action      Reversal
	FirstSeenAt time.Time // not after the first send
	Sent        int       // how often, as far as it was written down
	Now         time.Time
}

const sqlIntended = `/* transactions.intended */
SELECT d.action, d.first_seen_at, clock_timestamp() AS now,
       (SELECT count(*) FROM provider_calls c WHERE c.account_id = $1::uuid AND c.transaction_id = $2::uuid AND c.kind = 'reverse') AS sent
FROM differences d
WHERE d.account_id = $1::text AND d.provider = $3::text AND d.reference = $2::text AND d.finding = 'missing_here'`

func (s store) intended(ctx context.Context, c counterpart) (intention, error) {
	var i intention
	_, err := one(s.db.Conn(ctx).Raw(sqlIntended, c.AccountID.String(), c.ID.String(), c.Provider), &i)
	return i, wrap("read a reversal", err)
}

// sqlReversalEnded writes what became of a reversal, and its exchange ($5: its kind, ""
// for none) behind those of the holders. What is reversed stays so.
const sqlReversalEnded = `/* transactions.reversal_ended */
WITH difference AS (
    UPDATE differences d SET action = $4::text, last_seen_at = clock_timestamp()
    WHERE d.account_id = $1::text AND d.provider = $6::text AND d.reference = $2::text AND d.finding = 'missing_here' AND d.action <> 'reversed'
), call AS (
    INSERT INTO provider_calls (account_id, transaction_id, fence, seq, kind, provider, outcome, provider_reference,
                                response_code, detail, started_at, duration_ms)
    SELECT $1::uuid, $2::uuid, $3::bigint,
           (SELECT coalesce(max(c.seq), 0) + 1 FROM provider_calls c WHERE c.account_id = $1::uuid AND c.transaction_id = $2::uuid AND c.fence = $3),
           $5::text, $6, $7::text, $8::text, $9::text, $10::text, $11::timestamptz, $12::integer
    WHERE $5 <> ''
    ON CONFLICT DO NOTHING
    RETURNING seq
)
SELECT count(*) FROM call`

// reversalEnded writes what became of a reversal. Two who write about the same one may
// take the same number for their exchanges; then the second takes the next.
func (s store) reversalEnded(ctx context.Context, c counterpart, action Reversal, x call) error {
	for range saveAttempts {
		var written int
		_, err := one(s.db.Conn(ctx).Raw(sqlReversalEnded, c.AccountID.String(), c.ID.String(), c.Fence, string(action), x.Kind, c.Provider,
			x.Outcome, x.ProviderReference, x.ResponseCode, x.Detail, x.StartedAt, x.DurationMS), &written)
		if err != nil || written == 1 || x.Kind == "" {
			return wrap("write a reversal down", err)
		}
	}
	return nil // the timeline lacks one line of several like it
}

// sqlNoteDifferences keeps differences ($1, a JSON array), each once: seen again, it is
// as it was seen last. What was done about it stays.
const sqlNoteDifferences = `/* transactions.note_differences */
INSERT INTO differences (provider, account_id, reference, finding, our_status, our_amount, provider_status, provider_amount, currency)
SELECT DISTINCT ON (f.account_id, f.provider, f.reference, f.finding)
       f.provider, f.account_id, f.reference, f.finding, f.our_status, f.our_amount, f.provider_status, f.provider_amount, f.currency
FROM jsonb_to_recordset($1::jsonb) AS f(provider text, account_id text, reference text, finding text, our_status text, our_amount numeric,
     provider_status text, provider_amount numeric, currency text)
ON CONFLICT (account_id, provider, reference, finding) DO UPDATE
SET our_status = excluded.our_status, our_amount = excluded.our_amount, provider_status = excluded.provider_status,
    provider_amount = excluded.provider_amount, currency = excluded.currency, last_seen_at = clock_timestamp()`

// noteDifferences keeps differences; of several with the same reference and finding, one.
func (s store) noteDifferences(ctx context.Context, ds []Difference) error {
	if len(ds) == 0 {
		return nil
	}
	b, err := json.Marshal(ds)
	if err == nil {
		err = s.db.Conn(ctx).Exec(sqlNoteDifferences, string(b)).Error
	}
	return wrap("note differences", err)
}

const sqlDifferences = `/* transactions.differences */
SELECT d.provider, d.account_id, d.reference, d.finding, d.our_status, d.our_amount, d.provider_status, d.provider_amount, d.currency,
       d.action, d.first_seen_at, d.last_seen_at
FROM differences d
WHERE $1::timestamptz IS NULL
   OR (d.last_seen_at, d.account_id, d.provider, d.reference, d.finding) < ($1::timestamptz, $2::text, $3::text, $4::text, $5::text)
ORDER BY d.last_seen_at DESC, d.account_id DESC, d.provider DESC, d.reference DESC, d.finding DESC LIMIT $6::integer`

// differences reads what is remembered, the last seen first, behind one of them.
func (s store) differences(ctx context.Context, after Difference, limit int) ([]Difference, error) {
	var ds []Difference
	var seen *time.Time
	if !after.LastSeenAt.IsZero() {
		seen = &after.LastSeenAt
	}
	err := s.db.Conn(ctx).Raw(sqlDifferences, seen, after.AccountID, after.Provider, after.Reference, string(after.Finding), limit).Scan(&ds).Error
	return ds, wrap("read the differences", err)
}

// sqlClaimWindow takes the turn to compare a provider's next window, at most once in $3
// microseconds. A provider that is new here begins now: what was before is for a person
// to ask about.
const sqlClaimWindow = `/* transactions.claim_window */
INSERT INTO reconciliation_progress AS r (provider, until)
VALUES ($1::text, clock_timestamp() - $2::bigint * interval '1 microsecond')
ON CONFLICT (provider) DO UPDATE SET changed_at = clock_timestamp()
WHERE r.changed_at <= clock_timestamp() - $3::bigint * interval '1 microsecond'
RETURNING r.until AS since, clock_timestamp() - $2 * interval '1 microsecond' AS until`

// span is a stretch of time, with its beginning and without its end.
type span struct{ Since, Until time.Time }

// claimWindow is what is to be compared of a provider's books, up to lag ago; false if it
// is somebody else's turn.
func (s store) claimWindow(ctx context.Context, provider string, lag, every time.Duration) (span, bool, error) {
	var w span
	found, err := one(s.db.Conn(ctx).Raw(sqlClaimWindow, provider, lag.Microseconds(), every.Microseconds()), &w)
	return w, found, wrap("claim a window", err)
}

// sqlWindowDone moves on, if nobody else has. If there is more, the next turn is at once.
const sqlWindowDone = `/* transactions.window_done */
UPDATE reconciliation_progress
SET until = $3::timestamptz, changed_at = clock_timestamp() - $4::bigint * interval '1 microsecond'
WHERE provider = $1::text AND until = $2::timestamptz`

func (s store) windowDone(ctx context.Context, provider string, done span, waited time.Duration) error {
	return wrap("note a window", s.db.Conn(ctx).Exec(sqlWindowDone, provider, done.Since, done.Until, waited.Microseconds()).Error)
}

// sqlOfWindow reads our transactions that began in a window at a provider, and are not
// among those that it has listed ($7). Ids are made in the order of time, by the clocks of
// the processes: they say where to look ($1 to $2), and the database's clock decides.
const sqlOfWindow = `/* transactions.of_window */
SELECT ` + counterpartColumns + `
FROM transactions t
JOIN payments p ON p.account_id = t.account_id AND p.id = t.payment_id
WHERE t.id >= $1::uuid AND t.id < $2::uuid AND t.created_at >= $3::timestamptz AND t.created_at < $4::timestamptz AND t.provider = $5::text
  AND t.type IN ('PURCHASE', 'AUTHORIZE', 'CAPTURE', 'CANCEL', 'REFUND') AND (t.status = 'SUCCEEDED' OR $6::boolean)
  AND NOT EXISTS (SELECT 1 FROM unnest($7::uuid[]) AS listed(id) WHERE listed.id = t.id)
ORDER BY t.created_at, t.id LIMIT $8::integer`

// ofWindow reads what of ours was not listed: what succeeded, or everything.
func (s store) ofWindow(ctx context.Context, provider string, w span, everything bool, listed []string, limit int) ([]counterpart, error) {
	var cs []counterpart
	err := s.db.Conn(ctx).Raw(sqlOfWindow, firstID(w.Since.Add(-idSkew)), firstID(w.Until.Add(idSkew)), w.Since, w.Until, provider,
		everything, listed, limit).Scan(&cs).Error
	return cs, wrap("read our side of a window", err)
}

// sqlListed reads our side of what a provider has listed.
const sqlListed = `/* transactions.listed */
SELECT ` + counterpartColumns + `
FROM unnest($1::uuid[], $2::uuid[]) AS listed(account_id, id)
JOIN transactions t ON t.account_id = listed.account_id AND t.id = listed.id
JOIN payments p ON p.account_id = t.account_id AND p.id = t.payment_id
WHERE t.provider = $3::text`

func (s store) listed(ctx context.Context, provider string, accounts, ids []string) ([]counterpart, error) {
	var cs []counterpart
	err := s.db.Conn(ctx).Raw(sqlListed, accounts, ids, provider).Scan(&cs).Error
	return cs, wrap("read our side of a list", err)
}

// databaseTime is the database's clock.
func (s store) databaseTime(ctx context.Context) (time.Time, error) {
	now, err := databaseNow(s.db.Conn(ctx))
	return now, wrap("read the clock", err)
}
