package transactions

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// The statements behind what happens to a payment by itself: a provider calls back, a
// dispute comes, time passes.

const sqlLockTransaction = `/* transactions.lock_transaction */
SELECT ` + transactionColumns + ` FROM transactions t WHERE t.account_id = $1::uuid AND t.id = $2::uuid FOR NO KEY UPDATE OF t`

// sqlNoteCallback returns no row for a message that was here before.
const sqlNoteCallback = `/* transactions.note_callback */
INSERT INTO callbacks (account_id, provider, id, transaction_id, kind, outcome, verdict)
VALUES ($1::uuid, $2::text, $3::text, $4::uuid, $5::text, $6::text, $7::text)
ON CONFLICT (account_id, provider, id) DO NOTHING
RETURNING true`

// calledBack is the detail of an observation that came with a callback.
const calledBack = "called back"

// sqlTell keeps a message's word for whoever works on the transaction next, and makes
// that now, unless somebody is at it: they find told_at when they stop.
const sqlTell = `/* transactions.tell */
WITH told AS (
    UPDATE transactions t
    SET told_at = clock_timestamp(),
        lease_until = CASE WHEN t.status = 'PENDING' THEN least(t.lease_until, clock_timestamp()) ELSE t.lease_until END,
        next_attempt_at = CASE WHEN t.status = 'PENDING' OR t.lease_until <= clock_timestamp() THEN clock_timestamp() ELSE t.next_attempt_at END
    WHERE t.account_id = $1::uuid AND t.id = $2::uuid AND t.lease_until IS NOT NULL
)
INSERT INTO provider_observations (account_id, transaction_id, id, fence, outcome, provider_reference, response_code, authorization_code, detail)
VALUES ($1, $2, $3::uuid, $4::bigint, $5::text, $6::text, $7::text, $8::text, '` + calledBack + `')`

// hear keeps a message about tx, once, and says what it means.
func (s store) hear(ctx context.Context, tx Transaction, id string, r providers.Result) (heard Heard, now Transaction, err error) {
	err = s.db.ConfirmedTx(ctx, func(db postgres.Tx) error {
		found, err := one(db.Raw(sqlLockTransaction, tx.AccountID, tx.ID), &now)
		if err != nil || !found {
			return errors.Join(err, errorIf(!found, "the transaction is gone"))
		}
		heard = judge(now, r)
		noted, err := note(db, now, id, "transaction", string(r.Outcome), heard)
		if err == nil && !noted {
			heard = HeardDuplicate
		}
		if err != nil || heard != HeardKept {
			return err
		}
		return db.Exec(sqlTell, now.AccountID, now.ID, uuid.Must(uuid.NewV7()), now.Fence,
			string(r.Outcome), r.ProviderReference, r.ResponseCode, r.AuthorizationCode).Error
	})
	return heard, now, wrap("hear a callback", err)
}

// note says whether the message is a new one.
func note(db postgres.Tx, tx Transaction, id, kind, outcome string, heard Heard) (noted bool, err error) {
	_, err = one(db.Raw(sqlNoteCallback, tx.AccountID, tx.Provider, id, tx.ID, kind, outcome, string(heard)), &noted)
	return noted, err
}

func errorIf(failed bool, text string) error {
	if !failed {
		return nil
	}
	return errors.New(text)
}

// sqlDispute makes a dispute's transaction, or moves it on. Nobody works on it, so it
// has no lease.
const sqlDispute = `/* transactions.dispute */
INSERT INTO transactions (account_id, id, payment_id, target_id, mode, type, status, currency, amount, provider, provider_reference, response_code,
                          nonce, card, lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
VALUES ($1::uuid, $2::uuid, $3::uuid, $4::uuid, $5::text, 'CHARGEBACK', $6::text, $7::text, $8::numeric, $9::text, $10::text, $11::text,
        '', $12::text, $2, $2, $13::timestamptz, $13, 0, $13, $13)
ON CONFLICT (account_id, id) DO UPDATE SET status = excluded.status, response_code = excluded.response_code, updated_at = excluded.updated_at`

// dispute takes one step of a dispute over.
func (s store) dispute(ctx context.Context, next Transaction, id string) (heard Heard, err error) {
	err = s.db.ConfirmedTx(ctx, func(db postgres.Tx) error {
		p, u, err := s.lockPayment(db, next)
		if err != nil {
			return err
		}
		before := next
		before.Status = Unborn
		if _, err := one(db.Raw(sqlLockTransaction, next.AccountID, next.ID), &before); err != nil {
			return err
		}
		heard = HeardApplied
		switch {
		case before.Status == next.Status, before.Status.Terminal() && !next.Status.Terminal(), before.Status == Pending && next.Status == Created:
			heard = HeardKnown
		case before.Status.Terminal(),
			next.Status == Lost && p.ChargedBack.Add(before.Amount).GreaterThan(p.Settled): // more than there was
			heard = HeardContradicts
		}
		noted, err := note(db, next, id, "dispute", string(next.Status), heard)
		if err == nil && !noted {
			heard = HeardDuplicate
		}
		if err != nil || heard != HeardApplied {
			return err
		}
		next.Amount = before.Amount // it is about what it was about first
		now, err := databaseNow(db)
		if err != nil {
			return err
		}
		after, err := p.after(before, next.Status, u)
		if err != nil {
			return err
		}
		err = db.Exec(sqlDispute, next.AccountID, next.ID, next.PaymentID, next.TargetID, next.Mode, string(next.Status), next.Currency, next.Amount,
			next.Provider, next.ProviderReference, next.ResponseCode, next.Card, now).Error
		if err != nil {
			return err
		}
		return move(db, p, after, next, "provider", now)
	})
	return heard, wrap("take a dispute over", err)
}

const sqlNow = `/* transactions.now */
SELECT clock_timestamp() AS now`

func databaseNow(db postgres.Tx) (now time.Time, err error) {
	_, err = one(db.Raw(sqlNow), &now)
	return now, err
}

// sqlMovePayment writes a payment as it was worked out from what is locked, with its event.
const sqlMovePayment = `/* transactions.move_payment */
WITH payment AS (
    UPDATE payments p
    SET status = $4::text, sub_status = $5::text, version = p.version + 1, updated_at = greatest(p.updated_at, $6::timestamptz),
        authorized = $7::numeric, charged_back = $8::numeric
    WHERE p.account_id = $1::uuid AND p.id = $2::uuid AND p.version = $3::bigint
    RETURNING p.account_id, p.id, p.version
)
INSERT INTO events (account_id, payment_id, seq, transaction_id, type, status, sub_status, cause, created_at)
SELECT account_id, id, version, $9::uuid, 'payment.' || lower($10::text), $4, $5, $11::text, $6 FROM payment`

// move writes what p has become through tx.
func move(db postgres.Tx, p, after Payment, tx Transaction, cause string, at time.Time) error {
	if after.Version == p.Version { // a second dispute, for instance, while one is open
		return nil
	}
	res := db.Exec(sqlMovePayment, p.AccountID, p.ID, p.Version, after.Status, after.SubStatus, at, after.Authorized, after.ChargedBack,
		tx.ID, string(tx.Type), cause)
	return errors.Join(res.Error, errorIf(res.Error == nil && res.RowsAffected != 1, "the payment has moved although it was locked"))
}

// sqlExpired leaves out what a capture or a cancellation is under way for: it is looked
// at again when that has ended.
const sqlExpired = `/* transactions.expired */
SELECT a.account_id, a.payment_id, a.transaction_id
FROM authorizations a JOIN payments p ON p.account_id = a.account_id AND p.id = a.payment_id
WHERE a.expires_at <= clock_timestamp() AND a.expires_at > '-infinity' AND p.settle_pending + p.cancel_pending = 0
ORDER BY a.expires_at LIMIT $1::integer`

func (s store) expiredAuthorizations(ctx context.Context, limit int) ([]authorization, error) {
	var due []authorization
	err := s.db.Conn(ctx).Raw(sqlExpired, limit).Scan(&due).Error
	return due, wrap("read what has expired", err)
}

const (
	sqlExpire = `/* transactions.expire */
UPDATE transactions SET status = 'EXPIRED', response_code = $3::text, updated_at = $4::timestamptz WHERE account_id = $1::uuid AND id = $2::uuid`

	sqlForgetAuthorization = `/* transactions.forget_authorization */
DELETE FROM authorizations WHERE account_id = $1::uuid AND payment_id = $2::uuid`

	// A payment that was captured in part stays what it is; only the rest cannot be
	// captured any more.
	sqlEndAuthorization = `/* transactions.end_authorization */
UPDATE authorizations SET expires_at = '-infinity' WHERE account_id = $1::uuid AND payment_id = $2::uuid`
)

// expire ends an authorization whose time is over, if nothing is under way.
func (s store) expire(ctx context.Context, a authorization) error {
	err := s.db.InTx(ctx, func(db postgres.Tx) error {
		var tx Transaction
		p, u, err := s.lockPayment(db, Transaction{AccountID: a.AccountID, PaymentID: a.PaymentID, ID: a.TransactionID})
		if err == nil {
			_, err = one(db.Raw(sqlLockTransaction, a.AccountID, a.TransactionID), &tx)
		}
		switch {
		case err != nil || p.SettlePending.IsPositive() || p.CancelPending.IsPositive():
			return err
		case p.state() != PaymentAuthorized && p.Capturable().IsPositive():
			return db.Exec(sqlEndAuthorization, a.AccountID, a.PaymentID).Error
		case p.state() != PaymentAuthorized:
			return db.Exec(sqlForgetAuthorization, a.AccountID, a.PaymentID).Error
		}
		now, err := databaseNow(db)
		if err != nil {
			return err
		}
		after, err := p.after(tx, Expired, u)
		if err != nil {
			return err
		}
		if err := db.Exec(sqlExpire, a.AccountID, a.TransactionID, expiredCode, now).Error; err != nil {
			return err
		}
		if err := move(db, p, after, tx, "expired", now); err != nil {
			return err
		}
		return db.Exec(sqlForgetAuthorization, a.AccountID, a.PaymentID).Error
	})
	return wrap("expire an authorization", err)
}
