-- The checkout: shoppers pay from their browsers.
--
-- Where a merchant's pages are served from, as scheme://host[:port], at most 50. Only they
-- may call the checkout's routes from a browser, and show its page in a frame.
ALTER TABLE merchants
    ADD COLUMN origins text[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT merchants_origins_bounded CHECK (cardinality(origins) <= 50) NOT VALID;

-- A key of an operation without a provider, such as making a customer, has no transaction:
-- its answer is stored by the database transaction that claims it, so there is never one
-- without the other. The release before takes such a key for one that is in process.
ALTER TABLE idempotency_keys
    -- squawk-ignore ban-drop-not-null
    ALTER COLUMN transaction_id DROP NOT NULL,
    ADD CONSTRAINT idempotency_keys_answered_or_under_way CHECK (transaction_id IS NOT NULL OR response_status IS NOT NULL) NOT VALID;

-- One row per person who buys from a merchant, as the merchant knows them. `profile` is
-- what describes them, a JSON object as text, given back as it came.
CREATE TABLE customers (
    account_id                   uuid        NOT NULL,
    id                           uuid        NOT NULL,
    mode                         text        NOT NULL,
    merchant_customer_id         text        NOT NULL,
    profile                      text        NOT NULL,
    merchant_customer_created_at timestamptz,
    created_at                   timestamptz NOT NULL,
    updated_at                   timestamptz NOT NULL,
    CONSTRAINT customers_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT customers_merchant_customer_id_key UNIQUE (account_id, mode, merchant_customer_id),
    CONSTRAINT customers_mode_known CHECK (mode IN ('test', 'live')),
    CONSTRAINT customers_merchant_customer_id_length CHECK (char_length(merchant_customer_id) BETWEEN 1 AND 255),
    CONSTRAINT customers_profile_bounded CHECK (octet_length(profile) <= 131072)
);

-- One row per time that a customer is let add a card from a browser.
CREATE TABLE customer_sessions (
    account_id   uuid        NOT NULL,
    id           uuid        NOT NULL,
    mode         text        NOT NULL,
    customer_id  uuid        NOT NULL,
    country      text        NOT NULL,
    callback_url text        NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    CONSTRAINT customer_sessions_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT customer_sessions_customer_fkey FOREIGN KEY (account_id, customer_id) REFERENCES customers (account_id, id) ON DELETE CASCADE,
    CONSTRAINT customer_sessions_mode_known CHECK (mode IN ('test', 'live'))
);

-- Serves the end of a customer, with whom their sessions go.
CREATE INDEX customer_sessions_customer ON customer_sessions (account_id, customer_id);

-- Serves the purge, which goes from the oldest.
CREATE INDEX customer_sessions_created_at ON customer_sessions (created_at);

-- One row per card that a customer keeps with the merchant. `id` is the vaulted token, and
-- `provider_token` the provider's stand-in for the card, which is nowhere else. While a
-- payment is to decide whether the card is kept, the status says so.
CREATE TABLE payment_methods (
    account_id     uuid        NOT NULL,
    id             uuid        NOT NULL,
    mode           text        NOT NULL,
    customer_id    uuid        NOT NULL,
    status         text        NOT NULL,
    country        text        NOT NULL,
    provider       text        NOT NULL,
    provider_token text        NOT NULL,
    -- What may be kept of the card, as in transactions.
    card           text        NOT NULL,
    last_used_at   timestamptz, -- when a payment with it succeeded
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CONSTRAINT payment_methods_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT payment_methods_mode_known CHECK (mode IN ('test', 'live')),
    CONSTRAINT payment_methods_status_known CHECK (status IN ('ENROLL_IN_PROCESS', 'ENROLLED', 'DECLINED', 'UNENROLLED'))
);

-- Serves a customer's list, the newest first. There is no foreign key: a payment that
-- decides about a card may end after its customer has gone.
CREATE INDEX payment_methods_customer ON payment_methods (account_id, customer_id, created_at DESC, id DESC);

-- One row per link that a merchant sends somebody to pay by.
CREATE TABLE payment_links (
    account_id        uuid          NOT NULL,
    id                uuid          NOT NULL,
    code              text          NOT NULL, -- the part of its address that cannot be guessed
    mode              text          NOT NULL,
    merchant_order_id text          NOT NULL,
    country           text          NOT NULL,
    currency          text          NOT NULL,
    amount            numeric(14,4) NOT NULL,
    one_time_use      boolean       NOT NULL,
    start_at          timestamptz   NOT NULL,
    finish_at         timestamptz   NOT NULL,
    canceled_at       timestamptz,
    -- The checkout session of a link that is good for one payment.
    session_id        uuid,
    -- The rest of what was asked for, a JSON object as text.
    details           text          NOT NULL,
    created_at        timestamptz   NOT NULL,
    updated_at        timestamptz   NOT NULL,
    CONSTRAINT payment_links_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT payment_links_mode_known CHECK (mode IN ('test', 'live')),
    CONSTRAINT payment_links_amount_positive CHECK (amount > 0),
    CONSTRAINT payment_links_available CHECK (start_at < finish_at),
    CONSTRAINT payment_links_details_bounded CHECK (octet_length(details) <= 262144)
);

-- Serves whoever opens a link, and has nothing but its code: no account leads this index.
CREATE UNIQUE INDEX payment_links_code ON payment_links (code);

-- One row per checkout: what is to be paid, set by the merchant's backend. payment_id is
-- the promise: the one payment that the session has, under way, pending or successful. A
-- payment takes it as it begins and gives it back only if nothing was, or will be, paid.
CREATE TABLE checkout_sessions (
    account_id          uuid          NOT NULL,
    id                  uuid          NOT NULL,
    mode                text          NOT NULL,
    workflow            text          NOT NULL,
    merchant_order_id   text          NOT NULL,
    payment_description text          NOT NULL,
    country             text          NOT NULL,
    currency            text          NOT NULL,
    amount              numeric(14,4) NOT NULL,
    callback_url        text          NOT NULL,
    customer_id         uuid,
    link_id             uuid,
    metadata            text          NOT NULL DEFAULT '', -- JSON; '' for none
    -- The rest of what was asked for, a JSON object as text.
    details             text          NOT NULL,
    -- Grows with each change: what was read of a session holds only while it stands.
    version             bigint        NOT NULL DEFAULT 1,
    payment_id          uuid,
    created_at          timestamptz   NOT NULL,
    updated_at          timestamptz   NOT NULL,
    expires_at          timestamptz   NOT NULL,
    CONSTRAINT checkout_sessions_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT checkout_sessions_mode_known CHECK (mode IN ('test', 'live')),
    CONSTRAINT checkout_sessions_workflow_known CHECK (workflow IN ('SDK_CHECKOUT', 'SDK_SEAMLESS')),
    CONSTRAINT checkout_sessions_amount_positive CHECK (amount > 0),
    CONSTRAINT checkout_sessions_details_bounded CHECK (octet_length(details) <= 262144)
) WITH (fillfactor = 80);

-- Serves the pay page, which knows a session and not whose it is: no account leads it.
CREATE UNIQUE INDEX checkout_sessions_id ON checkout_sessions (id);

-- Serves the purge, which goes from the oldest; created_at never changes.
CREATE INDEX checkout_sessions_created_at ON checkout_sessions (created_at);

-- Serves a link, which asks what became of its payments.
CREATE INDEX checkout_sessions_link ON checkout_sessions (account_id, link_id) WHERE link_id IS NOT NULL;

-- One row per card that was handed in before it is paid with. `id` is the one-time token,
-- and `provider_token` the provider's stand-in for the card. payment_id is the payment that
-- has used it up; it is given back only with a nonce that is released.
CREATE TABLE one_time_tokens (
    account_id          uuid        NOT NULL,
    id                  uuid        NOT NULL,
    mode                text        NOT NULL,
    checkout_session_id uuid, -- the only one that it pays; NULL: none, by the merchant's backend
    customer_id         uuid, -- whose it is; NULL: anybody's
    vault_on_success    boolean     NOT NULL DEFAULT false,
    provider            text        NOT NULL,
    provider_token      text        NOT NULL,
    -- What may be kept of the card, as in transactions.
    card                text        NOT NULL,
    payment_id          uuid,
    created_at          timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL,
    CONSTRAINT one_time_tokens_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT one_time_tokens_mode_known CHECK (mode IN ('test', 'live'))
) WITH (fillfactor = 80);

-- Serves the purge, which goes from the oldest; created_at never changes.
CREATE INDEX one_time_tokens_created_at ON one_time_tokens (created_at);

-- One row per payment that was made in a checkout or with a token: which session it is a
-- payment of, which one-time token it has used up, and which kept card it was paid with or
-- decides about. Those go by how the payment ends.
CREATE TABLE payment_sources (
    account_id          uuid NOT NULL,
    payment_id          uuid NOT NULL,
    checkout_session_id uuid,
    one_time_token_id   uuid,
    payment_method_id   uuid,
    note                text NOT NULL DEFAULT '', -- for whoever looks the payment up
    CONSTRAINT payment_sources_pkey PRIMARY KEY (account_id, payment_id),
    CONSTRAINT payment_sources_payment_fkey FOREIGN KEY (account_id, payment_id) REFERENCES payments (account_id, id),
    CONSTRAINT payment_sources_something CHECK (num_nonnulls(checkout_session_id, one_time_token_id, payment_method_id) > 0)
);

-- Serves the payments of a session, the newest first: an id begins with its time.
CREATE INDEX payment_sources_session ON payment_sources (account_id, checkout_session_id, payment_id DESC) WHERE checkout_session_id IS NOT NULL;
