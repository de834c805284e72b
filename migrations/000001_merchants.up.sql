-- One row per merchant. Its id is `account_id` everywhere. `changed_at` lets
-- every instance fetch only what changed since it last looked.
CREATE TABLE merchants (
    account_id         uuid        NOT NULL,
    name               text        NOT NULL,
    idempotency_policy text        NOT NULL DEFAULT 'yuno',
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT merchants_pkey PRIMARY KEY (account_id),
    CONSTRAINT merchants_name_length CHECK (char_length(name) BETWEEN 1 AND 255),
    CONSTRAINT merchants_policy_known CHECK (idempotency_policy IN ('yuno', 'novu', 'fyno', 'ietf'))
);

-- Serves the refresh of the key cache: what changed lately.
CREATE INDEX merchants_changed_at ON merchants (changed_at);

-- One row per API key pair. The secret is never stored: only its SHA-256, which
-- is enough because a secret is 256 random bits and cannot be guessed at.
CREATE TABLE api_keys (
    account_id     uuid        NOT NULL,
    id             uuid        NOT NULL,
    mode           text        NOT NULL,
    public_api_key text        NOT NULL,
    secret_hash    bytea       NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at     timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT api_keys_public_api_key_key UNIQUE (account_id, public_api_key),
    CONSTRAINT api_keys_account_fkey FOREIGN KEY (account_id) REFERENCES merchants (account_id),
    CONSTRAINT api_keys_mode_known CHECK (mode IN ('test', 'live')),
    CONSTRAINT api_keys_mode_prefix CHECK (
        (mode = 'test' AND starts_with(public_api_key, 'sandbox_'))
        OR (mode = 'live' AND starts_with(public_api_key, 'prod_'))),
    CONSTRAINT api_keys_secret_hash_length CHECK (octet_length(secret_hash) = 32)
);

-- Serves the refresh of the key cache: what changed lately.
CREATE INDEX api_keys_changed_at ON api_keys (changed_at);
