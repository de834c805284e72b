package checkout

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

const sessionColumns = `s.account_id, s.id, s.mode, s.workflow, s.merchant_order_id, s.payment_description, s.country, s.currency, s.amount,
    s.callback_url, s.customer_id, s.link_id, s.metadata, s.details, s.payment_id, s.created_at, s.updated_at, s.expires_at,
    s.expires_at <= clock_timestamp() AS expired`

const sqlInsertSession = `/* checkout.insert_session */
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
INSERT INTO checkout_sessions AS s (account_id, id, mode, workflow, merchant_order_id, payment_description, country, currency, amount,
    callback_url, customer_id, link_id, metadata, details, created_at, expires_at, updated_at)
SELECT $1::uuid, $2::uuid, $3::text, $4::text, $5::text, $6::text, $7::text, $8::text, $9::numeric, $10::text, $11::uuid, $12::uuid,
       $13::text, $14::text, at, at + $15::bigint * interval '1 microsecond', at
FROM clock
RETURNING ` + sessionColumns

// sqlUpdateSession changes a session that whoever asks has locked. What was read of it
// before is of another version.
const sqlUpdateSession = `/* checkout.update_session */
UPDATE checkout_sessions s
SET workflow = $3::text, merchant_order_id = $4::text, payment_description = $5::text, country = $6::text, currency = $7::text,
    amount = $8::numeric, callback_url = $9::text, customer_id = $10::uuid, metadata = $11::text,
    version = s.version + 1, updated_at = clock_timestamp()
WHERE s.account_id = $1::uuid AND s.id = $2::uuid AND s.payment_id IS NULL
RETURNING ` + sessionColumns

const (
	sqlSession = `/* checkout.session */
SELECT ` + sessionColumns + ` FROM checkout_sessions s WHERE s.account_id = $1::uuid AND s.mode = $2::text AND s.id = $3::uuid`

	// sqlLockSession reads a session for whoever is about to change it: no payment takes it
	// meanwhile.
	sqlLockSession = `/* checkout.lock_session */
SELECT ` + sessionColumns + ` FROM checkout_sessions s WHERE s.account_id = $1::uuid AND s.mode = $2::text AND s.id = $3::uuid
FOR NO KEY UPDATE`

	// sqlSessionAnywhere serves the pay page, which has nothing but the id.
	sqlSessionAnywhere = `/* checkout.session_anywhere */
SELECT ` + sessionColumns + ` FROM checkout_sessions s WHERE s.id = $1::uuid`

	sqlCustomerKnown = `/* checkout.customer_known */
SELECT EXISTS (SELECT 1 FROM customers c WHERE c.account_id = $1::uuid AND c.mode = $2::text AND c.id = $3::uuid)`
)

func (s store) insertSession(tx postgres.Tx, n Session) (sn Session, err error) {
	err = tx.Raw(sqlInsertSession, n.AccountID, n.ID, n.Mode, n.Workflow, n.MerchantOrderID, n.PaymentDescription, n.Country, n.Currency,
		n.Amount, n.CallbackURL, n.CustomerID, n.LinkID, n.Metadata, n.Details, sessionLife.Microseconds()).Scan(&sn).Error
	return sn, wrap("make the session", err)
}

func (s store) updateSession(tx postgres.Tx, n Session) (sn Session, err error) {
	err = tx.Raw(sqlUpdateSession, n.AccountID, n.ID, n.Workflow, n.MerchantOrderID, n.PaymentDescription, n.Country, n.Currency,
		n.Amount, n.CallbackURL, n.CustomerID, n.Metadata).Scan(&sn).Error
	return sn, wrap("change the session", err)
}

func (s store) lockSession(tx postgres.Tx, account uuid.UUID, mode string, id uuid.UUID) (sn Session, found bool, err error) {
	r := tx.Raw(sqlLockSession, account, mode, id).Scan(&sn)
	return sn, r.RowsAffected == 1, wrap("lock the session", r.Error)
}

func (s store) session(ctx context.Context, account uuid.UUID, mode string, id uuid.UUID) (sn Session, found bool, err error) {
	r := s.db.Conn(ctx).Raw(sqlSession, account, mode, id).Scan(&sn)
	return sn, r.RowsAffected == 1, wrap("read the session", r.Error)
}

func (s store) sessionAnywhere(ctx context.Context, id uuid.UUID) (sn Session, found bool, err error) {
	r := s.db.Conn(ctx).Raw(sqlSessionAnywhere, id).Scan(&sn)
	return sn, r.RowsAffected == 1, wrap("read the session", r.Error)
}

func (s store) customerKnown(tx postgres.Tx, account uuid.UUID, mode string, id uuid.UUID) (known bool, err error) {
	err = tx.Raw(sqlCustomerKnown, account, mode, id).Row().Scan(&known)
	return known, wrap("read the customer", err)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
