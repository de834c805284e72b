package checkout

import (
	"context"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

const methodColumns = `m.account_id, m.id, m.mode, m.customer_id, m.status, m.country, m.provider, m.provider_token, m.card,
    m.last_used_at, m.created_at, m.updated_at`

// sqlMethods reads a customer's cards, the newest first, going on after one of them ($4).
const sqlMethods = `/* checkout.methods */
SELECT ` + methodColumns + ` FROM payment_methods m
WHERE m.account_id = $1::uuid AND m.mode = $2::text AND m.customer_id = $3::uuid AND m.status = 'ENROLLED'
  AND ($4::uuid IS NULL OR (m.created_at, m.id) < (SELECT c.created_at, c.id FROM payment_methods c WHERE c.account_id = $1 AND c.id = $4))
ORDER BY m.created_at DESC, m.id DESC LIMIT $5::integer`

const (
	sqlMethod = `/* checkout.method */
SELECT ` + methodColumns + ` FROM payment_methods m WHERE m.account_id = $1::uuid AND m.mode = $2::text AND m.id = $3::uuid`

	// sqlLockMethod reads a card for whoever is about to let go of it. A payment that
	// decides about it comes before or after.
	sqlLockMethod = `/* checkout.lock_method */
SELECT ` + methodColumns + ` FROM payment_methods m WHERE m.account_id = $1::uuid AND m.mode = $2::text AND m.id = $3::uuid
FOR NO KEY UPDATE OF m`
)

// sqlRenewMethod finds the card that a customer keeps already, by the fingerprint of its
// number ($5, or $6 while the installation's secret is being changed), and keeps what is
// known of it now. Whoever asks has locked the customer, so that the same card is not
// added by two at once. The status is looked at twice: the second time for a card that
// somebody has let go of while this waited.
const sqlRenewMethod = `/* checkout.renew_method */
UPDATE payment_methods m
SET provider_token = $7::text, card = $8::text, updated_at = greatest(m.updated_at, clock_timestamp())
WHERE m.account_id = $1::uuid AND m.status = 'ENROLLED' AND m.id = (
    SELECT k.id FROM payment_methods k
    WHERE k.account_id = $1 AND k.mode = $2::text AND k.customer_id = $3::uuid AND k.status = 'ENROLLED' AND k.provider = $4::text
      AND k.card::jsonb ->> 'fingerprint' IN ($5::text, $6::text)
    ORDER BY k.created_at DESC, k.id DESC LIMIT 1)
RETURNING ` + methodColumns

// sqlInsertMethod keeps a card, unless the customer, whom whoever asks has locked, keeps
// as many as there may be ($9).
const sqlInsertMethod = `/* checkout.insert_method */
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
INSERT INTO payment_methods AS m (account_id, id, mode, customer_id, status, country, provider, provider_token, card, created_at, updated_at)
SELECT $1::uuid, $2::uuid, $3::text, $4::uuid, 'ENROLLED', $5::text, $6::text, $7::text, $8::text, at, at FROM clock
WHERE (SELECT count(*) FROM payment_methods k
       WHERE k.account_id = $1 AND k.mode = $3 AND k.customer_id = $4 AND k.status = 'ENROLLED') < $9::bigint
RETURNING ` + methodColumns

// sqlUnenrollMethod forgets the provider's token, without which there is no card.
const sqlUnenrollMethod = `/* checkout.unenroll_method */
UPDATE payment_methods m SET status = 'UNENROLLED', provider_token = '', updated_at = greatest(m.updated_at, clock_timestamp())
WHERE m.account_id = $1::uuid AND m.id = $2::uuid
RETURNING ` + methodColumns

const (
	// sqlLockToken reads a one-time token for whoever is about to use it up. No payment
	// takes it meanwhile. One without a provider's token is one that sqlUseUpToken has
	// used up.
	sqlLockToken = `/* checkout.lock_token */
SELECT k.account_id, k.id, k.mode, k.checkout_session_id, k.customer_id, k.vault_on_success, k.provider, k.provider_token, k.card,
       k.created_at, k.expires_at, k.payment_id IS NOT NULL OR k.provider_token = '' AS used, k.expires_at <= clock_timestamp() AS expired
FROM one_time_tokens k WHERE k.account_id = $1::uuid AND k.mode = $2::text AND k.id = $3::uuid
FOR NO KEY UPDATE OF k`

	// sqlUseUpToken ends a token that no payment has, for good: as far back as it was made,
	// so that no clock that is set back makes it good again.
	sqlUseUpToken = `/* checkout.use_up_token */
UPDATE one_time_tokens SET provider_token = '', expires_at = created_at WHERE account_id = $1::uuid AND id = $2::uuid`
)

const customerSessionColumns = `cs.account_id, cs.id, cs.mode, cs.customer_id, cs.country, cs.callback_url, cs.created_at, cs.expires_at,
    cs.expires_at <= clock_timestamp() AS expired`

const (
	// sqlInsertCustomerSession makes no session for a customer that there is not.
	sqlInsertCustomerSession = `/* checkout.insert_customer_session */
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
INSERT INTO customer_sessions AS cs (account_id, id, mode, customer_id, country, callback_url, created_at, expires_at)
SELECT c.account_id, $2::uuid, c.mode, c.id, $5::text, $6::text, at, at + $7::bigint * interval '1 microsecond'
FROM clock, customers c WHERE c.account_id = $1::uuid AND c.mode = $3::text AND c.id = $4::uuid
RETURNING ` + customerSessionColumns

	sqlCustomerSession = `/* checkout.customer_session */
SELECT ` + customerSessionColumns + ` FROM customer_sessions cs WHERE cs.account_id = $1::uuid AND cs.mode = $2::text AND cs.id = $3::uuid`
)

// methods are the cards of a customer that can be paid with.
func (s store) methods(ctx context.Context, account uuid.UUID, mode string, customer uuid.UUID, after uuid.NullUUID, limit int) (ms []Method, err error) {
	err = s.db.Conn(ctx).Raw(sqlMethods, account, mode, customer, after, limit).Scan(&ms).Error
	return ms, wrap("read the customer's cards", err)
}

func (s store) method(ctx context.Context, account uuid.UUID, mode string, id uuid.UUID) (m Method, found bool, err error) {
	r := s.db.Conn(ctx).Raw(sqlMethod, account, mode, id).Scan(&m)
	return m, r.RowsAffected == 1, wrap("read the card", r.Error)
}

func (s store) lockMethod(tx postgres.Tx, account uuid.UUID, mode string, id uuid.UUID) (m Method, found bool, err error) {
	r := tx.Raw(sqlLockMethod, account, mode, id).Scan(&m)
	return m, r.RowsAffected == 1, wrap("lock the card", r.Error)
}

// renewMethod finds the same card, which is kept already, and keeps what n says of it.
func (s store) renewMethod(tx postgres.Tx, n Method, fingerprints []string) (m Method, found bool, err error) {
	if len(fingerprints) == 0 {
		return Method{}, false, nil
	}
	r := tx.Raw(sqlRenewMethod, n.AccountID, n.Mode, n.CustomerID, n.Provider, fingerprints[0], fingerprints[len(fingerprints)-1],
		n.ProviderToken, n.Card).Scan(&m)
	return m, r.RowsAffected == 1, wrap("renew the card", r.Error)
}

// insertMethod keeps a card, if there is room for it.
func (s store) insertMethod(tx postgres.Tx, n Method) (m Method, room bool, err error) {
	r := tx.Raw(sqlInsertMethod, n.AccountID, n.ID, n.Mode, n.CustomerID, n.Country, n.Provider, n.ProviderToken, n.Card, maxKeptMethods).Scan(&m)
	return m, r.RowsAffected == 1, wrap("keep the card", r.Error)
}

func (s store) unenrolMethod(tx postgres.Tx, account, id uuid.UUID) (m Method, err error) {
	err = tx.Raw(sqlUnenrollMethod, account, id).Scan(&m).Error
	return m, wrap("unenroll the card", err)
}

// lockedToken is a one-time token, as it was when it was locked.
type lockedToken struct {
	Token
	Used    bool
	Expired bool // by the database's clock
}

func (s store) lockToken(tx postgres.Tx, account uuid.UUID, mode string, id uuid.UUID) (t lockedToken, found bool, err error) {
	r := tx.Raw(sqlLockToken, account, mode, id).Scan(&t)
	return t, r.RowsAffected == 1, wrap("lock the token", r.Error)
}

func (s store) useUpToken(tx postgres.Tx, account, id uuid.UUID) error {
	return wrap("use the token up", tx.Exec(sqlUseUpToken, account, id).Error)
}

// insertCustomerSession keeps a new session, if there is such a customer.
func (s store) insertCustomerSession(tx postgres.Tx, n CustomerSession) (cs CustomerSession, known bool, err error) {
	r := tx.Raw(sqlInsertCustomerSession, n.AccountID, n.ID, n.Mode, n.CustomerID, n.Country, n.CallbackURL, sessionLife.Microseconds()).Scan(&cs)
	return cs, r.RowsAffected == 1, wrap("make the customer's session", r.Error)
}

func (s store) customerSession(ctx context.Context, account uuid.UUID, mode string, id uuid.UUID) (cs CustomerSession, found bool, err error) {
	r := s.db.Conn(ctx).Raw(sqlCustomerSession, account, mode, id).Scan(&cs)
	return cs, r.RowsAffected == 1, wrap("read the customer's session", r.Error)
}
