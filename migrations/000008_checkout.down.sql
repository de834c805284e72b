-- Customers, sessions, tokens, kept cards and links go. What was paid stays as it is.
DROP TABLE payment_sources;
DROP TABLE one_time_tokens;
DROP TABLE checkout_sessions;
DROP TABLE payment_links;
DROP TABLE payment_methods;
DROP TABLE customer_sessions;
DROP TABLE customers;
-- The release before needs a transaction behind each key.
DELETE FROM idempotency_keys WHERE transaction_id IS NULL;
ALTER TABLE idempotency_keys
    DROP CONSTRAINT idempotency_keys_answered_or_under_way,
    ALTER COLUMN transaction_id SET NOT NULL;
ALTER TABLE merchants
    DROP COLUMN origins;
