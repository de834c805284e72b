package checkout

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

// linkColumns are a link with what stands about its one session. A payment has succeeded
// as soon as something of it is authorized, and stays so whatever is refunded later.
const linkColumns = `l.account_id, l.id, l.code, l.mode, l.merchant_order_id, l.country, l.currency, l.amount, l.one_time_use,
    l.start_at, l.finish_at, l.session_id, l.details, l.created_at, l.updated_at, l.canceled_at IS NOT NULL AS canceled,
    l.start_at > clock_timestamp() AS early, l.finish_at <= clock_timestamp() AS over,
    coalesce(s.expires_at > clock_timestamp(), false) AS session_open, s.payment_id IS NOT NULL AS session_taken,
    coalesce(p.authorized > 0, false) AS session_paid, coalesce(p.status = 'PENDING' AND p.authorized = 0, false) AS session_paying`

const fromLinks = ` FROM payment_links l
LEFT JOIN checkout_sessions s ON s.account_id = l.account_id AND s.id = l.session_id
LEFT JOIN payments p ON p.account_id = s.account_id AND p.id = s.payment_id
`

// countPayments counts the sessions of a link whose payment has succeeded: each holds
// one at most, and for good.
const countPayments = `, (SELECT count(*) FROM checkout_sessions c JOIN payments q ON q.account_id = c.account_id AND q.id = c.payment_id
     WHERE c.account_id = l.account_id AND c.link_id = l.id AND q.authorized > 0) AS payments`

const (
	sqlLink = `/* checkout.link */
SELECT ` + linkColumns + fromLinks + `WHERE l.account_id = $1::uuid AND l.id = $2::uuid`

	// sqlLinkAnywhere serves whoever opens a link, and has nothing but its code.
	sqlLinkAnywhere = `/* checkout.link_anywhere */
SELECT ` + linkColumns + fromLinks + `WHERE l.code = $1::text`

	// sqlCountedLink serves the merchant.
	sqlCountedLink = `/* checkout.counted_link */
SELECT ` + linkColumns + countPayments + fromLinks + `WHERE l.account_id = $1::uuid AND l.id = $2::uuid`

	sqlLinkNamed = `/* checkout.link_named */
SELECT ` + linkColumns + countPayments + fromLinks + `WHERE l.account_id = $1::uuid AND l.mode = $2::text AND (l.code = $3::text OR l.id = $4::uuid)`
)

// sqlInsertLink makes no link that is never good: $12 is its usual life and $13 the
// longest, in microseconds.
const sqlInsertLink = `/* checkout.insert_link */
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at), available AS (
    SELECT at, coalesce($10::timestamptz, at) AS start_at,
           coalesce($11::timestamptz, greatest(at, $10) + $12::bigint * interval '1 microsecond') AS finish_at FROM clock
)
INSERT INTO payment_links AS l (account_id, id, code, mode, merchant_order_id, country, currency, amount, one_time_use,
    start_at, finish_at, details, created_at, updated_at)
SELECT $1::uuid, $2::uuid, $3::text, $4::text, $5::text, $6::text, $7::text, $8::numeric, $9::boolean, start_at, finish_at, $14::text, at, at
FROM available
WHERE start_at < finish_at AND finish_at > at AND finish_at <= at + $13::bigint * interval '1 microsecond'
RETURNING l.start_at, l.finish_at, l.created_at`

const (
	// sqlLockLink is for whoever cancels a link, or makes the session of one that is good
	// for one payment.
	sqlLockLink = `/* checkout.lock_link */
SELECT l.session_id FROM payment_links l WHERE l.account_id = $1::uuid AND l.id = $2::uuid FOR NO KEY UPDATE`

	// sqlShareLink is for whoever makes a session of a link that is good for many: it is
	// not canceled meanwhile, so that its cancellation finds the session.
	sqlShareLink = `/* checkout.share_link */
SELECT l.id FROM payment_links l WHERE l.account_id = $1::uuid AND l.id = $2::uuid FOR SHARE`

	// sqlLockLinkSession waits for a payment that is just beginning in the session, and lets
	// none begin.
	sqlLockLinkSession = `/* checkout.lock_link_session */
SELECT s.id FROM checkout_sessions s WHERE s.account_id = $1::uuid AND s.id = $2::uuid FOR NO KEY UPDATE`
)

// sqlInsertLinkSession makes a session of a link, which lasts no longer than the link
// ($12).
const sqlInsertLinkSession = `/* checkout.insert_link_session */
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
INSERT INTO checkout_sessions (account_id, id, mode, workflow, merchant_order_id, payment_description, country, currency, amount,
    callback_url, link_id, metadata, details, created_at, expires_at, updated_at)
SELECT $1::uuid, $2::uuid, $3::text, $4::text, $5::text, $6::text, $7::text, $8::text, $9::numeric, $10::text, $11::uuid,
       $13::text, $14::text, at, least(at + $15::bigint * interval '1 microsecond', $12::timestamptz), at
FROM clock`

// endSession ends a session for good: as far back as it began, so that no clock that is set
// back opens it again. Whoever has read it before has read another version.
const endSession = `expires_at = s.created_at, version = s.version + 1, updated_at = clock_timestamp()`

// sqlSetLinkSession gives a link another session ($3), and ends the one that it had, which
// whoever asks has locked and seen without a payment.
const sqlSetLinkSession = `/* checkout.set_link_session */
WITH ended AS (
    UPDATE checkout_sessions s SET ` + endSession + ` WHERE s.account_id = $1::uuid AND s.id = $4::uuid
)
UPDATE payment_links l SET session_id = $3::uuid, updated_at = greatest(l.updated_at, clock_timestamp()) WHERE l.account_id = $1::uuid AND l.id = $2::uuid`

// sqlCancelLink closes a link with all of its sessions. One that has a payment may lose it
// to a decline; no other begins there.
const sqlCancelLink = `/* checkout.cancel_link */
WITH ended AS (
    UPDATE checkout_sessions s SET ` + endSession + `
    WHERE s.account_id = $1::uuid AND s.link_id = $2::uuid AND s.expires_at > s.created_at
)
UPDATE payment_links l SET canceled_at = clock_timestamp(), updated_at = greatest(l.updated_at, clock_timestamp())
WHERE l.account_id = $1::uuid AND l.id = $2::uuid AND l.canceled_at IS NULL`

// insertLink keeps a new link, unless there would be no time at which it is good.
func (s store) insertLink(tx postgres.Tx, n newLink) (l Link, ok bool, err error) {
	l = n.Link
	err = tx.Raw(sqlInsertLink, n.AccountID, n.ID, n.Code, n.Mode, n.MerchantOrderID, n.Country, n.Currency, n.Amount, n.OneTimeUse,
		n.start, n.finish, linkLife.Microseconds(), maxLinkLife.Microseconds(), n.Details).Row().Scan(&l.StartAt, &l.FinishAt, &l.CreatedAt)
	if errors.Is(err, sql.ErrNoRows) {
		return Link{}, false, nil
	}
	l.UpdatedAt = l.CreatedAt
	return l, err == nil, wrap("keep the link", err)
}

// link reads a link for whoever has locked it.
func (s store) link(tx postgres.Tx, account, id uuid.UUID) (l Link, err error) {
	err = tx.Raw(sqlLink, account, id).Scan(&l).Error
	return l, wrap("read the link", err)
}

// countedLink is link, with how many payments there are by it.
func (s store) countedLink(tx postgres.Tx, account, id uuid.UUID) (l Link, err error) {
	err = tx.Raw(sqlCountedLink, account, id).Scan(&l).Error
	return l, wrap("read the link", err)
}

// linkNamed reads a merchant's link by its code, or by its id, with how many payments there
// are by it.
func (s store) linkNamed(ctx context.Context, account uuid.UUID, mode, code string, id uuid.NullUUID) (l Link, found bool, err error) {
	r := s.db.Conn(ctx).Raw(sqlLinkNamed, account, mode, code, id).Scan(&l)
	return l, r.RowsAffected == 1, wrap("read the link", r.Error)
}

func (s store) linkAnywhere(ctx context.Context, code string) (l Link, found bool, err error) {
	r := s.db.Conn(ctx).Raw(sqlLinkAnywhere, code).Scan(&l)
	return l, r.RowsAffected == 1, wrap("read the link", r.Error)
}

func (s store) lockLink(tx postgres.Tx, account, id uuid.UUID) (session uuid.NullUUID, found bool, err error) {
	var row struct{ SessionID uuid.NullUUID }
	r := tx.Raw(sqlLockLink, account, id).Scan(&row)
	return row.SessionID, r.RowsAffected == 1, wrap("lock the link", r.Error)
}

func (s store) shareLink(tx postgres.Tx, account, id uuid.UUID) error {
	return wrap("share the link", tx.Exec(sqlShareLink, account, id).Error)
}

func (s store) lockLinkSession(tx postgres.Tx, account, id uuid.UUID) error {
	return wrap("lock the link's session", tx.Exec(sqlLockLinkSession, account, id).Error)
}

// insertLinkSession keeps a session of a link, until finish at the latest.
func (s store) insertLinkSession(tx postgres.Tx, n Session, finish time.Time) error {
	return wrap("make the link's session", tx.Exec(sqlInsertLinkSession, n.AccountID, n.ID, n.Mode, n.Workflow, n.MerchantOrderID,
		n.PaymentDescription, n.Country, n.Currency, n.Amount, n.CallbackURL, n.LinkID, finish, n.Metadata, n.Details,
		sessionLife.Microseconds()).Error)
}

// setLinkSession makes session the one of l, whose old one ends.
func (s store) setLinkSession(tx postgres.Tx, l Link, session uuid.UUID) error {
	return wrap("give the link its session", tx.Exec(sqlSetLinkSession, l.AccountID, l.ID, session, l.SessionID).Error)
}

func (s store) cancelLink(tx postgres.Tx, account, id uuid.UUID) error {
	return wrap("cancel the link", tx.Exec(sqlCancelLink, account, id).Error)
}
