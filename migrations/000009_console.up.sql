-- The operator's console: who may use it, what they did, and what it searches by.
--
-- One row per person who operates an installation. `name` is what they sign in with.
CREATE TABLE operators (
    id            uuid        NOT NULL,
    name          text        NOT NULL,
    role          text        NOT NULL,
    password_hash text        NOT NULL, -- argon2id, in PHC's form
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at   timestamptz,
    CONSTRAINT operators_pkey PRIMARY KEY (id),
    CONSTRAINT operators_name_plain CHECK (name ~ '^[a-z0-9][a-z0-9._@+-]{0,63}$'),
    CONSTRAINT operators_role_known CHECK (role IN ('viewer', 'operator', 'admin'))
);

-- Serves the sign-in; no two people have one name.
CREATE UNIQUE INDEX operators_name ON operators (name);

-- One row per link by which somebody chooses a password: the first operator (without a
-- name: they choose one), a new one, or one who has forgotten theirs. Only the SHA-256 of
-- its secret, 256 random bits, is kept.
CREATE TABLE operator_invitations (
    token_hash  bytea       NOT NULL,
    name        text        NOT NULL DEFAULT '',
    role        text        NOT NULL,
    operator_id uuid, -- who it gives a new password; NULL: somebody new
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz,
    CONSTRAINT operator_invitations_pkey PRIMARY KEY (token_hash),
    CONSTRAINT operator_invitations_token_hash_length CHECK (octet_length(token_hash) = 32),
    CONSTRAINT operator_invitations_role_known CHECK (role IN ('viewer', 'operator', 'admin')),
    CONSTRAINT operator_invitations_operator_fkey FOREIGN KEY (operator_id) REFERENCES operators (id)
);

-- One row per browser that somebody has signed in with. It ends when it has not been used
-- for a while, and after its time in any case. Only the SHA-256 of the cookie is kept.
CREATE TABLE operator_sessions (
    token_hash  bytea       NOT NULL,
    operator_id uuid        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL,
    CONSTRAINT operator_sessions_pkey PRIMARY KEY (token_hash),
    CONSTRAINT operator_sessions_token_hash_length CHECK (octet_length(token_hash) = 32),
    CONSTRAINT operator_sessions_operator_fkey FOREIGN KEY (operator_id) REFERENCES operators (id)
);

-- Serves the end of all of somebody's sessions.
CREATE INDEX operator_sessions_operator ON operator_sessions (operator_id);

-- Serves the purge of those whose time is over.
CREATE INDEX operator_sessions_expires_at ON operator_sessions (expires_at);

-- One row per token by which a program calls the operator's API.
CREATE TABLE operator_tokens (
    id           uuid        NOT NULL,
    name         text        NOT NULL,
    scope        text        NOT NULL,
    token_hash   bytea       NOT NULL,
    created_by   text        NOT NULL, -- the name of who made it
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz, -- to the minute or so
    revoked_at   timestamptz,
    CONSTRAINT operator_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT operator_tokens_name_length CHECK (char_length(name) BETWEEN 1 AND 255),
    CONSTRAINT operator_tokens_scope_known CHECK (scope IN ('viewer', 'operator', 'admin')),
    CONSTRAINT operator_tokens_token_hash_length CHECK (octet_length(token_hash) = 32)
);

-- Serves every request with a token.
CREATE UNIQUE INDEX operator_tokens_token_hash ON operator_tokens (token_hash);

-- One row per name or browser for which wrong passwords were given lately: `failures` in a
-- row, the last at `failed_at`. It slows who guesses.
CREATE TABLE operator_failures (
    subject   bytea       NOT NULL, -- the SHA-256 of what it counts for
    failures  integer     NOT NULL,
    failed_at timestamptz NOT NULL,
    CONSTRAINT operator_failures_pkey PRIMARY KEY (subject),
    CONSTRAINT operator_failures_subject_length CHECK (octet_length(subject) = 32),
    CONSTRAINT operator_failures_counted CHECK (failures >= 1)
);

-- Serves the purge of old rows.
CREATE INDEX operator_failures_failed_at ON operator_failures (failed_at);

-- One row per thing that an operator did, or that became of a credential, numbered without
-- gaps. `hash` is the SHA-256 of the row's contents and of the hash before it: whoever
-- changes, removes or swaps a row breaks the chain from there.
CREATE TABLE audit_entries (
    seq           bigint      NOT NULL,
    at            timestamptz NOT NULL,
    actor_kind    text        NOT NULL,
    actor_id      text        NOT NULL,
    actor         text        NOT NULL,
    address       text        NOT NULL,
    request_id    text        NOT NULL,
    action        text        NOT NULL,
    account_id    uuid,
    target        text        NOT NULL,
    details       text        NOT NULL, -- a JSON object as text; no secret is in it
    previous_hash bytea       NOT NULL,
    hash          bytea       NOT NULL,
    CONSTRAINT audit_entries_pkey PRIMARY KEY (seq),
    CONSTRAINT audit_entries_seq_positive CHECK (seq >= 1),
    CONSTRAINT audit_entries_actor_kind_known CHECK (actor_kind IN ('operator', 'token', 'admin_token', 'system', 'nobody')),
    CONSTRAINT audit_entries_details_bounded CHECK (octet_length(details) <= 16384),
    CONSTRAINT audit_entries_hash_length CHECK (octet_length(previous_hash) = 32 AND octet_length(hash) = 32)
);

-- Serves the page of one thing, and of what one person did: the newest first.
CREATE INDEX audit_entries_target ON audit_entries (target, seq DESC);
CREATE INDEX audit_entries_actor ON audit_entries (actor, seq DESC);

-- The end of the chain, in its one row. Whoever appends holds it, so that there is one
-- after the other.
CREATE TABLE audit_head (
    singleton boolean NOT NULL DEFAULT true,
    seq       bigint  NOT NULL,
    hash      bytea   NOT NULL,
    CONSTRAINT audit_head_pkey PRIMARY KEY (singleton),
    CONSTRAINT audit_head_is_one CHECK (singleton)
);
INSERT INTO audit_head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- What is written in the log stays as it is.
CREATE FUNCTION audit_entries_stay() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'audit_entries is append-only' USING ERRCODE = 'restrict_violation'; END $$;
CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_stay();

-- One row per minute and process: what merchants' requests met, and how long they took.
-- For 30 days.
CREATE TABLE request_minutes (
    minute      timestamptz NOT NULL,
    instance_id uuid        NOT NULL,
    requests    bigint      NOT NULL,
    failures    bigint      NOT NULL, -- answered with 5xx
    began       bigint      NOT NULL, -- nonces that were new, or taken over
    replayed    bigint      NOT NULL,
    conflicts   bigint      NOT NULL, -- in process, or another body
    -- How many took at most so long, by the bounds of payments_request_seconds; the last
    -- counts those that took longer than all of them.
    durations   bigint[]    NOT NULL,
    CONSTRAINT request_minutes_pkey PRIMARY KEY (minute, instance_id)
);

-- Which customer of the merchant's it is about, by the merchant's own id; '' for nobody, and
-- for what was made before this migration.
ALTER TABLE payments
    ADD COLUMN merchant_customer_id text NOT NULL DEFAULT '';

-- then, beside the traffic:

-- Serves the operator's lists, the newest first, and whoever knows nothing but an id, which
-- begins with its time.
-- squawk-ignore ban-concurrent-index-creation-in-transaction
CREATE INDEX CONCURRENTLY payments_id ON payments (id);

-- Serves the operator who looks a customer up.
-- squawk-ignore ban-concurrent-index-creation-in-transaction
CREATE INDEX CONCURRENTLY payments_merchant_customer_id ON payments (merchant_customer_id, id) WHERE merchant_customer_id <> '';

-- Serves the operator who has found something in the provider's own pages.
-- squawk-ignore ban-concurrent-index-creation-in-transaction
CREATE INDEX CONCURRENTLY transactions_provider_reference ON transactions (provider_reference) WHERE provider_reference <> '';
