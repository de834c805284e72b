package transactions

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlBeginAction claims the nonce, reserves the amount on the payment and, for a
// refund, on what is refunded, and makes the transaction: all or nothing, in one
// statement. If the nonce is taken, nothing is changed and no row comes back.
//
// What may not be is refused by the database, whoever looked before. A sum beyond its
// bounds is a CHECK of the payment's or the target's. A payment that has the wrong
// status leaves the transaction unmade, and then the claim has nothing to point to:
// its foreign key undoes the whole statement.
const sqlBeginAction = `/* transactions.begin_action */` + claimNonce + `, payment AS (
    UPDATE payments p
    SET settle_pending = p.settle_pending + CASE WHEN $9::text = 'CAPTURE' THEN $10::numeric ELSE 0 END,
        cancel_pending = p.cancel_pending + CASE WHEN $9 = 'CANCEL' THEN $10 ELSE 0 END,
        refund_pending = p.refund_pending + CASE WHEN $9 = 'REFUND' THEN $10 ELSE 0 END
    FROM claim
    WHERE p.account_id = $1 AND p.id = $8::uuid AND p.mode = $2 AND p.currency = $11::text
      AND p.status || '/' || p.sub_status = ANY($12::text[])
      AND ($9 <> 'CANCEL' OR p.settled + p.settle_pending + p.cancel_pending = 0)
      AND ($9 <> 'REFUND' OR p.refunded + p.refund_pending + p.charged_back + $10 <= p.settled)
      AND ($9 <> 'CAPTURE' OR NOT EXISTS (
          SELECT 1 FROM authorizations a WHERE a.account_id = p.account_id AND a.payment_id = p.id AND a.expires_at <= clock_timestamp()))
    RETURNING p.id
), refunded AS (
    UPDATE transactions g SET refund_pending = g.refund_pending + $10
    FROM payment
    WHERE $9 = 'REFUND' AND g.account_id = $1 AND g.id = $13::uuid AND g.payment_id = payment.id AND g.status = 'SUCCEEDED'
    RETURNING g.id
), target AS (
    SELECT id FROM refunded
    UNION ALL
    SELECT g.id FROM transactions g, payment
    WHERE $9 <> 'REFUND' AND g.account_id = $1 AND g.id = $13 AND g.payment_id = payment.id AND g.status = 'SUCCEEDED'
), transaction AS (
    INSERT INTO transactions (account_id, id, payment_id, target_id, mode, type, status, currency, amount, provider, nonce, policy, card, request,
                              lease_holder, instance_id, lease_until, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
    SELECT $1, $6, payment.id, target.id, $2, $9, 'CREATED', $11, $10, $14::text, $3, $23::text, $15::text, $16::text,
           $17::uuid, $18::uuid, at + $19::bigint * interval '1 microsecond', at + $20::bigint * interval '1 microsecond',
           at + $21::bigint * interval '1 microsecond', $22::bigint, at, at FROM claim, payment, target
    RETURNING may_send_until
)
SELECT claim.at, transaction.may_send_until FROM claim, transaction`

// newAction is what beginAction inserts.
type newAction struct {
	Command
	Transaction uuid.UUID
	Target      Transaction
	Request     string
	Allowed     []PaymentStatus
	Holder      uuid.UUID
	Instance    uuid.UUID
	Terms       terms
}

// beginAction makes the transaction if the nonce is free and the payment allows it, and
// says whether both were so. If not, nothing has changed.
func (s store) beginAction(ctx context.Context, n newAction) (tx Transaction, c clock, claimed bool, err error) {
	defer func() { err = wrap("begin an action", err) }()
	a := n.Action
	tx = Transaction{
		AccountID: n.AccountID, ID: n.Transaction, PaymentID: n.Target.PaymentID, TargetID: orNone(n.Target.ID), Mode: n.Mode, Type: a.Type,
		Status: Created, Currency: n.Target.Currency, Amount: a.Amount, Provider: n.Target.Provider, Nonce: n.Nonce, Policy: n.Policy.Name, Card: n.Target.Card,
		Request: n.Request, Fence: 1, LeaseHolder: n.Holder, TravelUS: n.Terms.travel().Microseconds(),
	}
	allowed := make([]string, len(n.Allowed))
	for i, state := range n.Allowed {
		allowed[i] = state.String()
	}
	c.before = time.Now()
	err = s.db.Confirmed(ctx, func(db postgres.Tx) error {
		return db.Raw(sqlBeginAction,
			n.AccountID, n.Mode, n.Nonce, n.Operation, n.Print.Kept(), n.Transaction, n.Retention.Microseconds(),
			tx.PaymentID, string(a.Type), a.Amount, tx.Currency, allowed, n.Target.ID, tx.Provider, tx.Card, n.Request,
			n.Holder, n.Instance, n.Terms.lease.Microseconds(), n.Terms.sendWindow().Microseconds(), n.Terms.firstLook().Microseconds(),
			n.Terms.travel().Microseconds(), n.Policy.Name,
		).Row().Scan(&c.at, &tx.MaySendUntil)
	})
	if errors.Is(err, sql.ErrNoRows) || postgres.IsConstraintViolation(err) {
		return tx, c, false, nil
	}
	c.after = time.Now()
	tx.CreatedAt, tx.UpdatedAt = c.at, c.at
	return tx, c, err == nil, err
}

const sqlTransaction = `/* transactions.one */
SELECT ` + transactionColumns + ` FROM transactions t WHERE t.account_id = $1::uuid AND t.id = $2::uuid`

// transaction reads one transaction of a merchant's.
func (s store) transaction(ctx context.Context, account, id uuid.UUID) (tx Transaction, found bool, err error) {
	found, err = one(s.db.Conn(ctx).Raw(sqlTransaction, account, id), &tx)
	return tx, found, wrap("read the transaction", err)
}

// sqlActionable reads what of a payment can be acted on. A payment has one authorization
// or purchase, and few captures.
const sqlActionable = `/* transactions.actionable */
SELECT ` + transactionColumns + ` FROM transactions t
WHERE t.account_id = $1::uuid AND t.payment_id = $2::uuid AND t.type IN ('PURCHASE', 'AUTHORIZE', 'CAPTURE') AND t.status = 'SUCCEEDED'
ORDER BY t.created_at DESC, t.id DESC LIMIT $3::integer`

// actionable are the transactions of a payment that can be acted on, the newest first.
func (s store) actionable(ctx context.Context, account, payment uuid.UUID) ([]Transaction, error) {
	var ts []Transaction
	err := s.db.Conn(ctx).Raw(sqlActionable, account, payment, maxShownTransactions).Scan(&ts).Error
	return ts, wrap("read what can be acted on", err)
}

const sqlAuthorizationOver = `/* transactions.authorization_over */
SELECT EXISTS (SELECT 1 FROM authorizations a WHERE a.account_id = $1::uuid AND a.payment_id = $2::uuid AND a.expires_at <= clock_timestamp()) AS over`

// authorizationOver says whether the time to capture a payment has passed.
func (s store) authorizationOver(ctx context.Context, account, payment uuid.UUID) (over bool, err error) {
	_, err = one(s.db.Conn(ctx).Raw(sqlAuthorizationOver, account, payment), &over)
	return over, wrap("read the authorization", err)
}
