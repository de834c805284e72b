package checkout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

const sqlInsertCustomer = `/* checkout.insert_customer */
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
INSERT INTO customers (account_id, id, mode, merchant_customer_id, profile, merchant_customer_created_at, created_at, updated_at)
SELECT $1::uuid, $2::uuid, $3::text, $4::text, $5::text, $6::timestamptz, at, at FROM clock
RETURNING created_at`

const customerColumns = `c.account_id, c.id, c.mode, c.merchant_customer_id, c.profile, c.merchant_customer_created_at, c.created_at, c.updated_at`

const sqlCustomer = `/* checkout.customer */
SELECT ` + customerColumns + ` FROM customers c WHERE c.account_id = $1::uuid AND c.mode = $2::text AND c.id = $3::uuid`

// sqlLockCustomer reads a customer for whoever is about to change them.
const sqlLockCustomer = `/* checkout.lock_customer */
SELECT ` + customerColumns + ` FROM customers c WHERE c.account_id = $1::uuid AND c.mode = $2::text AND c.id = $3::uuid FOR NO KEY UPDATE OF c`

const sqlCustomerByMerchantID = `/* checkout.customer_by_merchant_id */
SELECT ` + customerColumns + ` FROM customers c WHERE c.account_id = $1::uuid AND c.mode = $2::text AND c.merchant_customer_id = $3::text`

// sqlUpdateCustomer: a clock that was set back makes no customer change before their last
// change.
const sqlUpdateCustomer = `/* checkout.update_customer */
UPDATE customers SET merchant_customer_id = $3::text, profile = $4::text, merchant_customer_created_at = $5::timestamptz,
    updated_at = greatest(updated_at, clock_timestamp())
WHERE account_id = $1::uuid AND id = $2::uuid
RETURNING updated_at`

// sqlDeleteCustomer takes the customer's sessions with it.
const sqlDeleteCustomer = `/* checkout.delete_customer */
DELETE FROM customers WHERE account_id = $1::uuid AND mode = $2::text AND id = $3::uuid`

// sqlUnenrollCustomer lets go of the cards of a customer who has gone, also of one that a
// payment is still to decide about. Without the provider's token none can be paid with. It
// is a statement of its own, behind the deletion, which waits for whoever is keeping a card
// for the customer just now: in the same statement it would not see that one.
const sqlUnenrollCustomer = `/* checkout.unenroll_customer */
UPDATE payment_methods
SET status = CASE WHEN status IN ('ENROLLED', 'ENROLL_IN_PROCESS') THEN 'UNENROLLED' ELSE status END,
    provider_token = '', updated_at = greatest(updated_at, clock_timestamp())
WHERE account_id = $1::uuid AND customer_id = $2::uuid AND (status <> 'UNENROLLED' OR provider_token <> '')`

// sameCustomer is the constraint by which no two customers have the same id of the
// merchant's.
const sameCustomer = "customers_merchant_customer_id_key"

// customerRow is a customer as kept.
type customerRow struct {
	AccountID                 uuid.UUID
	ID                        uuid.UUID
	Mode                      string
	MerchantCustomerID        string
	Profile                   string
	MerchantCustomerCreatedAt *time.Time
	CreatedAt                 time.Time
	UpdatedAt                 time.Time
}

// insertCustomer keeps a new customer, and returns them with their times. It fails with
// CUSTOMER_ID_DUPLICATED.
func (s store) insertCustomer(tx postgres.Tx, c Customer) (Customer, error) {
	profile, err := c.Profile.kept()
	if err != nil {
		return Customer{}, err
	}
	err = tx.Raw(sqlInsertCustomer, c.AccountID, c.ID, c.Mode, c.MerchantCustomerID, profile, c.MerchantCustomerCreatedAt).Row().Scan(&c.CreatedAt)
	c.UpdatedAt = c.CreatedAt
	return c, customerError("insert the customer", err)
}

// customer reads a customer of one account and mode.
func (s store) customer(ctx context.Context, account uuid.UUID, mode string, id uuid.UUID) (c Customer, found bool, err error) {
	return scanCustomer(s.db.Conn(ctx), sqlCustomer, account, mode, id)
}

// lockCustomer is customer, who stays as they are until the database transaction ends.
func (s store) lockCustomer(tx postgres.Tx, account uuid.UUID, mode string, id uuid.UUID) (c Customer, found bool, err error) {
	return scanCustomer(tx, sqlLockCustomer, account, mode, id)
}

// customerByMerchantID reads the customer whom the merchant calls so.
func (s store) customerByMerchantID(ctx context.Context, account uuid.UUID, mode, merchantCustomerID string) (c Customer, found bool, err error) {
	return scanCustomer(s.db.Conn(ctx), sqlCustomerByMerchantID, account, mode, merchantCustomerID)
}

func scanCustomer(tx postgres.Tx, query string, args ...any) (Customer, bool, error) {
	var row customerRow
	r := tx.Raw(query, args...).Scan(&row)
	if r.Error != nil || r.RowsAffected == 0 {
		return Customer{}, false, customerError("read the customer", r.Error)
	}
	c := Customer{
		AccountID: row.AccountID, ID: row.ID, Mode: row.Mode, MerchantCustomerID: row.MerchantCustomerID,
		MerchantCustomerCreatedAt: row.MerchantCustomerCreatedAt, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
	if json.Unmarshal([]byte(row.Profile), &c.Profile) != nil {
		return Customer{}, false, errors.New("read the customer: the profile has another shape than was stored") // the cause may quote it
	}
	return c, true, nil
}

// updateCustomer keeps a customer, whom the database transaction has locked, as they are
// from now on. It fails with CUSTOMER_ID_DUPLICATED.
func (s store) updateCustomer(tx postgres.Tx, c Customer) (Customer, error) {
	profile, err := c.Profile.kept()
	if err != nil {
		return Customer{}, err
	}
	err = tx.Raw(sqlUpdateCustomer, c.AccountID, c.ID, c.MerchantCustomerID, profile, c.MerchantCustomerCreatedAt).Row().Scan(&c.UpdatedAt)
	return c, customerError("update the customer", err)
}

// deleteCustomer removes a customer with all that is known of them, and lets go of their
// cards. It says whether they were there.
func (s store) deleteCustomer(tx postgres.Tx, account uuid.UUID, mode string, id uuid.UUID) (found bool, err error) {
	r := tx.Exec(sqlDeleteCustomer, account, mode, id)
	if r.Error != nil || r.RowsAffected == 0 {
		return false, customerError("delete the customer", r.Error)
	}
	return true, customerError("unenroll the customer's cards", tx.Exec(sqlUnenrollCustomer, account, id).Error)
}

// customerError is err in our words, where the schema has them.
func customerError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case postgres.IsUniqueViolation(err) && postgres.Constraint(err) == sameCustomer:
		return errSameCustomer()
	}
	return fmt.Errorf("%s: %w", what, err)
}
