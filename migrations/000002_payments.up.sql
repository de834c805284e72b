-- One row per payment: what a merchant asked for, and how much of it happened.
-- Amounts are decimal major units. `*_pending` is what an unresolved transaction
-- may still turn into the amount beside it, so no two of them can promise the
-- same money. `version` counts state changes and numbers the events.
CREATE TABLE payments (
    account_id        uuid          NOT NULL,
    id                uuid          NOT NULL,
    mode              text          NOT NULL,
    merchant_order_id text          NOT NULL,
    status            text          NOT NULL,
    sub_status        text          NOT NULL,
    currency          text          NOT NULL,
    amount            numeric(14,4) NOT NULL,
    authorized        numeric(14,4) NOT NULL DEFAULT 0,
    authorize_pending numeric(14,4) NOT NULL DEFAULT 0,
    settled           numeric(14,4) NOT NULL DEFAULT 0,
    settle_pending    numeric(14,4) NOT NULL DEFAULT 0,
    captured          numeric(14,4) NOT NULL DEFAULT 0,
    refunded          numeric(14,4) NOT NULL DEFAULT 0,
    refund_pending    numeric(14,4) NOT NULL DEFAULT 0,
    version           bigint        NOT NULL DEFAULT 0,
    -- The create request without card data, as JSON text: jsonb would expand a
    -- number such as 1e131071, and reorder what is given back.
    request           text          NOT NULL,
    created_at        timestamptz   NOT NULL,
    updated_at        timestamptz   NOT NULL,
    CONSTRAINT payments_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT payments_mode_known CHECK (mode IN ('test', 'live')),
    CONSTRAINT payments_status_known CHECK (
        (status, sub_status) IN (
            ('PENDING', 'PENDING_PROVIDER_CONFIRMATION'), ('PENDING', 'AUTHORIZED'),
            ('SUCCEEDED', 'APPROVED'), ('DECLINED', 'DECLINED'),
            ('REJECTED', 'REJECTED'), ('ERROR', 'ERROR'))),
    CONSTRAINT payments_amount_positive CHECK (amount > 0),
    CONSTRAINT payments_no_negative_sum CHECK (
        least(authorized, authorize_pending, settled, settle_pending, captured, refunded, refund_pending) >= 0),
    CONSTRAINT payments_authorized_within_amount CHECK (authorized + authorize_pending <= amount),
    CONSTRAINT payments_settled_within_authorized CHECK (settled + settle_pending <= authorized + authorize_pending),
    CONSTRAINT payments_captured_within_settled CHECK (captured <= settled),
    CONSTRAINT payments_refunded_within_settled CHECK (refunded + refund_pending <= settled)
) WITH (fillfactor = 80);

-- Serves GET /v1/payments?merchant_order_id=, newest first.
CREATE INDEX payments_merchant_order_id ON payments (account_id, mode, merchant_order_id, created_at DESC, id DESC);

-- One row per operation against a provider. `id` is also the reference by which
-- the provider knows it. While the outcome is not known, `lease_until` says how
-- long the present holder may work on it; once it is known, it is NULL, and the
-- row never changes again.
CREATE TABLE transactions (
    account_id         uuid          NOT NULL,
    id                 uuid          NOT NULL,
    payment_id         uuid          NOT NULL,
    mode               text          NOT NULL,
    type               text          NOT NULL,
    status             text          NOT NULL,
    currency           text          NOT NULL,
    amount             numeric(14,4) NOT NULL,
    provider           text          NOT NULL,
    provider_reference text          NOT NULL DEFAULT '',
    response_code      text          NOT NULL DEFAULT '',
    authorization_code text          NOT NULL DEFAULT '',
    -- The merchant's key that created it; kept for ever, so that anyone can ask.
    nonce              text          NOT NULL,
    -- What may be kept of the card (first 8, last 4, brand, keyed fingerprint),
    -- as JSON text.
    card               text          NOT NULL,
    -- Fence: grows with each take-over. Every write after a provider call says
    -- which fence, and which holder, it was made under.
    fence              bigint        NOT NULL DEFAULT 1,
    lease_holder       uuid          NOT NULL,
    instance_id        uuid          NOT NULL,
    lease_until        timestamptz,
    -- The latest moment at which any holder so far may still put a charge on the
    -- wire. Never lowered.
    may_send_until     timestamptz   NOT NULL,
    -- How long after that a send may still arrive: the provider's time-out and
    -- settling time, in microseconds, as the most patient sender so far had them.
    -- Kept here, because whoever asks later may be configured otherwise.
    travel_us          bigint        NOT NULL,
    resend_refused     boolean       NOT NULL DEFAULT false,
    -- Recovery's own attempts (merchants' retries don't count), when it looks
    -- next, and since when a person must.
    attempts           integer       NOT NULL DEFAULT 0,
    next_attempt_at    timestamptz   NOT NULL,
    parked_at          timestamptz,
    -- The nonce was given back: the request had no effect.
    released           boolean       NOT NULL DEFAULT false,
    created_at         timestamptz   NOT NULL,
    updated_at         timestamptz   NOT NULL,
    CONSTRAINT transactions_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT transactions_payment_fkey FOREIGN KEY (account_id, payment_id) REFERENCES payments (account_id, id),
    CONSTRAINT transactions_mode_known CHECK (mode IN ('test', 'live')),
    CONSTRAINT transactions_type_known CHECK (type IN ('PURCHASE', 'AUTHORIZE')),
    CONSTRAINT transactions_status_known CHECK (
        status IN ('CREATED', 'PENDING', 'SUCCEEDED', 'DECLINED', 'REJECTED', 'ERROR')),
    -- No open row without a lease, no closed one with it.
    CONSTRAINT transactions_unresolved_has_lease CHECK (
        (status IN ('CREATED', 'PENDING')) = (lease_until IS NOT NULL)),
    CONSTRAINT transactions_parked_is_unresolved CHECK (parked_at IS NULL OR lease_until IS NOT NULL),
    CONSTRAINT transactions_released_has_no_effect CHECK (NOT released OR status IN ('ERROR', 'REJECTED')),
    CONSTRAINT transactions_fence_positive CHECK (fence >= 1)
) WITH (fillfactor = 80);

-- Serves the look-up by nonce, newest life first by the database's clock: ids grow
-- with their process's.
CREATE INDEX transactions_nonce ON transactions (account_id, mode, nonce, created_at DESC, id DESC);

-- Serves the operator's look-up over all merchants.
CREATE INDEX transactions_nonce_any_account ON transactions (nonce, created_at DESC, id DESC);

-- Serves a payment's own list of transactions.
CREATE INDEX transactions_payment ON transactions (account_id, payment_id, id);

-- Serves recovery: what is not resolved yet, longest waiting first. Few rows at
-- any time; it is left on finish.
CREATE INDEX transactions_unresolved ON transactions (next_attempt_at) WHERE lease_until IS NOT NULL;

-- Serves the operator's resolve, which knows a transaction by its id alone.
CREATE INDEX transactions_id ON transactions (id);
