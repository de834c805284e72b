package transactions

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

// makePayment inserts payment and transaction, for each row of gate.
const makePayment = `, payment AS (
    INSERT INTO payments (account_id, id, mode, merchant_order_id, status, sub_status, currency, amount,
                          authorize_pending, settle_pending, request, merchant_customer_id, created_at, updated_at)
    SELECT $1, $8::uuid, $2, $9::text, $10::text, $11::text, $12::text, $13::numeric,
           $13, CASE WHEN $14::text = 'PURCHASE' THEN $13 ELSE 0 END, $15::text, $25::text, at, at FROM gate
    RETURNING id
), transaction AS (
    INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, nonce, policy, card,
                              lease_holder, instance_id, lease_until, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
    SELECT $1, $6, payment.id, $2, $14, 'CREATED', $12, $13, $16::text, $3, $24::text, $17::text,
           $18::uuid, $19::uuid, at + $20::bigint * interval '1 microsecond', at + $21::bigint * interval '1 microsecond',
           at + $22::bigint * interval '1 microsecond', $23::bigint, at, at FROM gate, payment
    RETURNING may_send_until
)`

// sqlBegin claims the nonce and makes payment and transaction, all or nothing,
// in one statement. If the nonce is taken, nothing is inserted and no row comes
// back.
const sqlBegin = `/* transactions.begin */` + claimNonce + `, gate AS (SELECT at FROM claim)` + makePayment + `
SELECT gate.at, transaction.may_send_until FROM gate, transaction`

// sqlBeginCheckout does the same for a payment that takes a session ($26, as it was in
// version $27), a one-time token ($28) or both, or that has to do with a kept card ($29),
// which it makes if it decides about it ($30: whose, $31: its country, $32: its token).
//
// Of all who want a session, or a token, one gets it: the row's own lock decides, whatever
// nonces they have. Who does not get all leaves the payment unmade, and then the claim has
// nothing to point to: its foreign key undoes the whole statement.
const sqlBeginCheckout = `/* transactions.begin_checkout */` + claimNonce + `, session AS (
    UPDATE checkout_sessions s SET payment_id = $8::uuid, updated_at = at
    FROM claim
    WHERE s.account_id = $1 AND s.id = $26::uuid AND s.mode = $2 AND s.version = $27::bigint AND s.payment_id IS NULL
      AND s.expires_at > clock_timestamp()
    RETURNING s.id
), token AS (
    UPDATE one_time_tokens k SET payment_id = $8
    FROM claim
    WHERE k.account_id = $1 AND k.id = $28::uuid AND k.mode = $2 AND k.payment_id IS NULL AND k.expires_at > clock_timestamp()
    RETURNING k.id
), owner AS ( -- who deletes a customer lets go of the cards that are there
    SELECT c.id FROM customers c, claim WHERE c.account_id = $1 AND c.id = $30::uuid FOR KEY SHARE OF c
), gate AS (
    SELECT at FROM claim
    WHERE ($26 IS NULL OR EXISTS (SELECT 1 FROM session)) AND ($28 IS NULL OR EXISTS (SELECT 1 FROM token))
      AND ($30 IS NULL OR EXISTS (SELECT 1 FROM owner))
)` + makePayment + `, kept_card AS (
    INSERT INTO payment_methods (account_id, id, mode, customer_id, status, country, provider, provider_token, card, created_at, updated_at)
    SELECT $1, $29::uuid, $2, $30, 'ENROLL_IN_PROCESS', $31::text, $16, $32::text, $17, at, at FROM gate WHERE $30 IS NOT NULL
), source AS (
    INSERT INTO payment_sources (account_id, payment_id, checkout_session_id, one_time_token_id, payment_method_id, note)
    SELECT $1, payment.id, $26, $28, $29, $33::text FROM payment
)
SELECT gate.at, transaction.may_send_until FROM gate, transaction`

// endSource is the part of sqlFinish that gives back, or uses up, what the payment that
// begins with this transaction was made with. A payment that was declined, or that never
// was, leaves its session to the next; a token only a nonce that is released does.
const endSource = `, source AS (
    SELECT o.account_id, o.payment_id, o.checkout_session_id, o.one_time_token_id, o.payment_method_id, moved.released
    FROM payment_sources o, moved
    WHERE o.account_id = moved.account_id AND o.payment_id = moved.payment_id AND moved.target_id IS NULL AND $8 <> 'PENDING'
), session AS (
    UPDATE checkout_sessions s SET payment_id = NULL, updated_at = clock_timestamp()
    FROM source o
    WHERE s.account_id = o.account_id AND s.id = o.checkout_session_id AND s.payment_id = o.payment_id
      AND $15 IN ('DECLINED', 'REJECTED', 'ERROR')
), token AS (
    UPDATE one_time_tokens k SET payment_id = NULL
    FROM source o
    WHERE k.account_id = o.account_id AND k.id = o.one_time_token_id AND k.payment_id = o.payment_id AND o.released
), kept_card AS (
    UPDATE payment_methods m
    SET status = CASE WHEN m.status <> 'ENROLL_IN_PROCESS' THEN m.status WHEN $8 = 'SUCCEEDED' THEN 'ENROLLED' ELSE 'DECLINED' END,
        provider_token = CASE WHEN m.status = 'ENROLL_IN_PROCESS' AND $8 <> 'SUCCEEDED' THEN '' ELSE m.provider_token END,
        last_used_at = CASE WHEN $8 = 'SUCCEEDED' THEN clock_timestamp() ELSE m.last_used_at END, updated_at = clock_timestamp()
    FROM source o
    WHERE m.account_id = o.account_id AND m.id = o.payment_method_id
)`

// sqlSource reads what a payment is to be made with, as it is now: its session ($3), its
// one-time token ($4), its kept card ($5), and the customer whose card it is ($6, or the
// session's, or the token's).
const sqlSource = `/* transactions.source */
SELECT s.id AS session_id, s.workflow AS session_workflow, s.merchant_order_id AS session_merchant_order_id,
       s.payment_description AS session_description, s.country AS session_country, s.currency AS session_currency,
       s.amount AS session_amount, s.callback_url AS session_callback_url, s.customer_id AS session_customer_id,
       s.metadata AS session_metadata, s.version AS session_version, s.link_id AS session_link_id, l.code AS session_link_code,
       s.expires_at <= clock_timestamp() AS session_expired, s.payment_id IS NOT NULL AS session_taken,
       EXISTS (SELECT 1 FROM transactions t WHERE t.account_id = s.account_id AND t.payment_id = s.payment_id
               AND t.target_id IS NULL AND t.status = 'CREATED' AND t.parked_at IS NULL) AS session_under_way,
       k.id AS token_id, k.checkout_session_id AS token_session_id, k.customer_id AS token_customer_id,
       k.vault_on_success AS token_vault_on_success, k.provider AS token_provider, k.provider_token AS token_provider_token_value,
       k.card AS token_card, k.expires_at <= clock_timestamp() AS token_unusable, k.payment_id IS NOT NULL AS token_taken,
       m.id AS method_id, m.customer_id AS method_customer_id, m.provider AS method_provider,
       m.provider_token AS method_provider_token_value, m.card AS method_card, m.status <> 'ENROLLED' AS method_unusable,
       c.id AS customer, c.merchant_customer_id
FROM (SELECT $1::uuid AS account_id, $2::text AS mode) a
LEFT JOIN checkout_sessions s ON s.account_id = a.account_id AND s.mode = a.mode AND s.id = $3::uuid
LEFT JOIN payment_links l ON l.account_id = s.account_id AND l.id = s.link_id
LEFT JOIN one_time_tokens k ON k.account_id = a.account_id AND k.mode = a.mode AND k.id = $4::uuid
LEFT JOIN payment_methods m ON m.account_id = a.account_id AND m.mode = a.mode AND m.id = $5::uuid
LEFT JOIN customers c ON c.account_id = a.account_id AND c.mode = a.mode AND c.id = coalesce($6::uuid, s.customer_id, k.customer_id)`

// source reads what a request refers to.
func (s store) source(ctx context.Context, account uuid.UUID, mode string, r Request) (source, error) {
	var row struct {
		Session            sourceSession `gorm:"embedded;embeddedPrefix:session_"`
		Token              sourceToken   `gorm:"embedded;embeddedPrefix:token_"`
		Method             sourceToken   `gorm:"embedded;embeddedPrefix:method_"`
		Customer           uuid.UUID
		MerchantCustomerID string
	}
	_, err := one(s.db.Conn(ctx).Raw(sqlSource, account, mode, orNone(r.Session), orNone(r.Token), orNone(r.Vaulted), orNone(r.Customer)), &row)
	found := source{Session: row.Session, Token: row.Token, Method: row.Method, Customer: row.Customer, MerchantCustomerID: row.MerchantCustomerID}
	return found, wrap("read what the payment is made with", err)
}

const sqlSessionPayment = `/* transactions.session_payment */
SELECT ` + paymentColumns + `
FROM payment_sources o
JOIN payments p ON p.account_id = o.account_id AND p.id = o.payment_id
LEFT JOIN checkout_sessions s ON s.account_id = o.account_id AND s.id = o.checkout_session_id
WHERE o.account_id = $1::uuid AND p.mode = $2::text AND o.checkout_session_id = $3::uuid
ORDER BY o.payment_id IS NOT DISTINCT FROM s.payment_id DESC, o.payment_id DESC LIMIT 1`

// sessionPayment reads the payment that a session has, else the last that was tried.
func (s store) sessionPayment(ctx context.Context, account uuid.UUID, mode string, session uuid.UUID) (p Payment, found bool, err error) {
	found, err = one(s.db.Conn(ctx).Raw(sqlSessionPayment, account, mode, session), &p)
	return p, found, wrap("read the session's payment", err)
}

// begin makes the payment and its transaction if the nonce is free, and what the payment
// takes is, and says whether it did.
func (s store) begin(ctx context.Context, n newPayment) (tx Transaction, c clock, claimed bool, err error) {
	defer func() { err = wrap("begin", err) }()
	kept, err := n.Request.kept()
	if err != nil {
		return tx, c, false, err
	}
	card, err := n.Request.keptCard()
	if err != nil {
		return tx, c, false, err
	}
	tx = Transaction{
		AccountID: n.AccountID, ID: n.TransactionID, PaymentID: n.PaymentID, Mode: n.Mode, Type: n.Request.Type(),
		Status: Created, Currency: n.Request.Currency, Amount: n.Request.Amount, Provider: n.Provider, Nonce: n.Nonce,
		Policy: n.Policy, Card: card, Fence: 1, LeaseHolder: n.Holder, TravelUS: n.Terms.travel().Microseconds(),
	}
	query, args := sqlBegin, []any{
		n.AccountID, n.Mode, n.Nonce, n.Operation, n.Print.Kept(), n.TransactionID, n.Retention.Microseconds(),
		n.PaymentID, n.Request.MerchantOrderID, Unconfirmed.Status, Unconfirmed.Sub, tx.Currency, tx.Amount,
		string(tx.Type), kept, n.Provider, card,
		n.Holder, n.Instance, n.Terms.lease.Microseconds(), n.Terms.sendWindow().Microseconds(), n.Terms.firstLook().Microseconds(),
		n.Terms.travel().Microseconds(), n.Policy, cmp.Or(n.Request.MerchantCustomerID, n.Request.Source.MerchantCustomerID),
	}
	checkout := n.Request.checkout()
	if checkout {
		query, args = sqlBeginCheckout, append(args, n.Request.sourceColumns()...)
	}
	c.before = time.Now()
	err = s.db.Confirmed(ctx, func(db postgres.Tx) error {
		return db.Raw(query, args...).Row().Scan(&c.at, &tx.MaySendUntil)
	})
	if errors.Is(err, sql.ErrNoRows) || checkout && postgres.IsConstraintViolation(err) {
		return tx, c, false, nil
	}
	c.after = time.Now()
	tx.CreatedAt, tx.UpdatedAt = c.at, c.at
	return tx, c, err == nil, err
}

// sourceColumns are the last parameters of sqlBeginCheckout.
func (r Request) sourceColumns() []any {
	card, owner := r.Vaulted, uuid.Nil
	if r.Source.NewCard != uuid.Nil {
		card, owner = r.Source.NewCard, r.Source.Customer
	}
	return []any{
		orNone(r.Session), r.Source.Session.Version, orNone(r.Token), orNone(card), orNone(owner), r.Country,
		r.Source.NewCardToken.Value, r.Source.Note,
	}
}
