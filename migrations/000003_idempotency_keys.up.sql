-- One row per nonce and life. The primary key is the promise: two requests
-- cannot both believe that they are the first. The answer is bytes, because it
-- must be told again exactly as it was told first. No index on a column that
-- changes and room on each page, so storing the answer stays a HOT update.
CREATE TABLE idempotency_keys (
    account_id      uuid        NOT NULL,
    mode            text        NOT NULL,
    key_id          text        NOT NULL,
    operation       text        NOT NULL,
    fingerprint     bytea       NOT NULL,
    transaction_id  uuid        NOT NULL,
    response_status smallint,
    response_body   bytea,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (account_id, mode, key_id),
    CONSTRAINT idempotency_keys_transaction_fkey FOREIGN KEY (account_id, transaction_id) REFERENCES transactions (account_id, id),
    CONSTRAINT idempotency_keys_mode_known CHECK (mode IN ('test', 'live')),
    CONSTRAINT idempotency_keys_key_id_length CHECK (octet_length(key_id) BETWEEN 1 AND 255),
    CONSTRAINT idempotency_keys_answer_whole CHECK ((response_status IS NULL) = (response_body IS NULL))
) WITH (fillfactor = 80);

-- Serves the purge, which goes from the oldest. created_at never changes, so the
-- index does not stand in the way of HOT updates.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
