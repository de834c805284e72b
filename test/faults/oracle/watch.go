package oracle

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// sqlWatch notes each move in the database transaction that makes it: a move that
// is rolled back leaves no note, and one that is committed always does. The tables
// have no constraint beside their numbering and are written as their owner, so no
// statement of the product's fails by them. They are logged tables, because a
// campaign also kills the database. Moves of one row are numbered in their order:
// whoever makes one holds the row.
const sqlWatch = `
CREATE SCHEMA campaign;
CREATE TABLE campaign.moves (
    id             bigint      GENERATED ALWAYS AS IDENTITY,
    account_id     uuid,
    transaction_id uuid,
    old_status     text,
    new_status     text,
    at             timestamptz DEFAULT clock_timestamp()
);
CREATE TABLE campaign.payment_moves (
    id             bigint      GENERATED ALWAYS AS IDENTITY,
    account_id     uuid,
    payment_id     uuid,
    old_status     text,
    old_sub_status text,
    new_status     text,
    new_sub_status text,
    version        bigint,
    at             timestamptz DEFAULT clock_timestamp()
);
CREATE TABLE campaign.overdrawn (
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    account_id uuid,
    payment_id uuid,
    sums       text,
    at         timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION campaign.note_transaction() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO campaign.moves (account_id, transaction_id, old_status, new_status)
    VALUES (NEW.account_id, NEW.id, OLD.status, NEW.status);
    RETURN NULL;
END $$;
CREATE FUNCTION campaign.note_payment() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO campaign.payment_moves (account_id, payment_id, old_status, old_sub_status, new_status, new_sub_status, version)
    VALUES (NEW.account_id, NEW.id, OLD.status, OLD.sub_status, NEW.status, NEW.sub_status, NEW.version);
    RETURN NULL;
END $$;
CREATE FUNCTION campaign.note_overdrawn() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO campaign.overdrawn (account_id, payment_id, sums)
    VALUES (NEW.account_id, NEW.id, format('authorized %s and %s pending, settled %s and %s, canceled %s and %s, refunded %s and %s',
        NEW.authorized, NEW.authorize_pending, NEW.settled, NEW.settle_pending, NEW.canceled, NEW.cancel_pending, NEW.refunded, NEW.refund_pending));
    RETURN NULL;
END $$;
CREATE TRIGGER campaign_overdrawn AFTER UPDATE ON payments
    FOR EACH ROW WHEN (NEW.settled + NEW.settle_pending + NEW.canceled + NEW.cancel_pending > NEW.authorized + NEW.authorize_pending
        OR NEW.refunded + NEW.refund_pending > NEW.settled)
    EXECUTE FUNCTION campaign.note_overdrawn();
CREATE TRIGGER campaign_inserted AFTER INSERT ON transactions
    FOR EACH ROW EXECUTE FUNCTION campaign.note_transaction();
CREATE TRIGGER campaign_moved AFTER UPDATE ON transactions
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION campaign.note_transaction();
CREATE TRIGGER campaign_inserted AFTER INSERT ON payments
    FOR EACH ROW EXECUTE FUNCTION campaign.note_payment();
CREATE TRIGGER campaign_moved AFTER UPDATE ON payments
    FOR EACH ROW WHEN ((OLD.status, OLD.sub_status, OLD.version) IS DISTINCT FROM (NEW.status, NEW.sub_status, NEW.version))
    EXECUTE FUNCTION campaign.note_payment();`

var errNotEmpty = errors.New("oracle: watch: the database has payments already, whose moves nobody saw")

// Watch makes the database remember every move of a transaction's status, and of a
// payment's, and each moment at which a payment promised more than it had, in a schema
// of its own. It is called once, on an empty, migrated
// database, before the API starts.
func Watch(ctx context.Context, db *pgx.Conn) error {
	var used bool
	if err := db.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM payments)`).Scan(&used); err != nil {
		return fmt.Errorf("oracle: watch: %w", err)
	}
	if used {
		return errNotEmpty
	}
	if _, err := db.Exec(ctx, sqlWatch); err != nil {
		return fmt.Errorf("oracle: watch: %w", err)
	}
	return nil
}
