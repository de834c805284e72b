-- The whole life of a payment: captures, cancellations, refunds, verifications,
-- disputes, what is decided later, and what is compared with the provider's books.
--
-- The release before goes on with it: it knows none of the new columns, all of which
-- have a default, and writes no row that the new constraints forbid. The constraints
-- that replace narrower ones are NOT VALID and stay so: every row that was there has
-- satisfied the narrower one, and reading them all would keep merchants waiting.

ALTER TABLE payments
    ADD COLUMN canceled       numeric(14,4) NOT NULL DEFAULT 0,
    ADD COLUMN cancel_pending numeric(14,4) NOT NULL DEFAULT 0,
    ADD COLUMN charged_back   numeric(14,4) NOT NULL DEFAULT 0,
    DROP CONSTRAINT payments_status_known,
    DROP CONSTRAINT payments_amount_positive,
    DROP CONSTRAINT payments_no_negative_sum,
    DROP CONSTRAINT payments_settled_within_authorized,
    ADD CONSTRAINT payments_status_known CHECK (
        (status, sub_status) IN (
            ('PENDING', 'PENDING_PROVIDER_CONFIRMATION'), ('PENDING', 'WAITING_ADDITIONAL_STEP'), ('PENDING', 'AUTHORIZED'),
            ('VERIFIED', 'VERIFIED'),
            ('SUCCEEDED', 'APPROVED'), ('SUCCEEDED', 'CAPTURED'), ('SUCCEEDED', 'PARTIALLY_CAPTURED'),
            ('SUCCEEDED', 'PARTIALLY_REFUNDED'), ('SUCCEEDED', 'PARTIALLY_CHARGEBACKED'),
            ('REFUNDED', 'PENDING_PROVIDER_CONFIRMATION'), ('REFUNDED', 'REFUNDED'),
            ('CANCELED', 'PENDING_PROVIDER_CONFIRMATION'), ('CANCELED', 'CANCELED'),
            ('IN_DISPUTE', 'RECEIVED'), ('IN_DISPUTE', 'PENDING_REVIEW'), ('CHARGEBACK', 'LOST'),
            ('DECLINED', 'DECLINED'), ('REJECTED', 'REJECTED'), ('ERROR', 'ERROR'), ('EXPIRED', 'EXPIRED'))) NOT VALID,
    -- 0 is a verification: it moves nothing.
    ADD CONSTRAINT payments_amount_not_negative CHECK (amount >= 0) NOT VALID,
    ADD CONSTRAINT payments_no_negative_sum CHECK (
        least(authorized, authorize_pending, settled, settle_pending, captured, refunded, refund_pending,
              canceled, cancel_pending, charged_back) >= 0) NOT VALID,
    -- What was captured cannot be canceled, and the other way round.
    ADD CONSTRAINT payments_settled_or_canceled_within_authorized CHECK (
        settled + settle_pending + canceled + cancel_pending <= authorized + authorize_pending) NOT VALID,
    -- No sum with refunds: a payer's bank may take back what was refunded already.
    ADD CONSTRAINT payments_charged_back_within_settled CHECK (charged_back <= settled) NOT VALID;

ALTER TABLE transactions
    -- What it acts on: the authorization that is captured or canceled, the capture or
    -- purchase that is refunded or disputed.
    ADD COLUMN target_id      uuid,
    -- The request of a capture, cancellation or refund, as JSON text. A payment's own
    -- is with the payment.
    ADD COLUMN request        text          NOT NULL DEFAULT '',
    -- Of what this capture or purchase moved, how much went back, and how much may.
    ADD COLUMN refunded       numeric(14,4) NOT NULL DEFAULT 0,
    ADD COLUMN refund_pending numeric(14,4) NOT NULL DEFAULT 0,
    -- Where the payer has to go, as long as it is pending.
    ADD COLUMN redirect_url   text          NOT NULL DEFAULT '',
    -- The provider's own answer, without what is nobody's business, as JSON text.
    ADD COLUMN raw_response   text          NOT NULL DEFAULT '',
    -- When a callback said how it ended while somebody else was at work on it.
    ADD COLUMN told_at        timestamptz,
    DROP CONSTRAINT transactions_type_known,
    DROP CONSTRAINT transactions_status_known,
    DROP CONSTRAINT transactions_unresolved_has_lease,
    ADD CONSTRAINT transactions_type_known CHECK (
        type IN ('PURCHASE', 'AUTHORIZE', 'VERIFY', 'CAPTURE', 'CANCEL', 'REFUND', 'CHARGEBACK')) NOT VALID,
    ADD CONSTRAINT transactions_status_known CHECK (
        status IN ('CREATED', 'PENDING', 'SUCCEEDED', 'DECLINED', 'REJECTED', 'ERROR', 'EXPIRED', 'WON', 'LOST')) NOT VALID,
    -- No open row without a lease, no closed one with it. A dispute is nobody's work:
    -- it has no lease, however long it takes.
    ADD CONSTRAINT transactions_unresolved_has_lease CHECK (
        (status IN ('CREATED', 'PENDING') AND type <> 'CHARGEBACK') = (lease_until IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT transactions_target_where_due CHECK (
        (type IN ('CAPTURE', 'CANCEL', 'REFUND', 'CHARGEBACK')) = (target_id IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT transactions_refunded_within_amount CHECK (
        least(refunded, refund_pending) >= 0 AND refunded + refund_pending <= amount) NOT VALID;

ALTER TABLE provider_calls
    DROP CONSTRAINT provider_calls_kind_known,
    -- reverse: a booking was undone that nobody here stands by.
    ADD CONSTRAINT provider_calls_kind_known CHECK (kind IN ('send', 'inquire', 'void', 'reverse')) NOT VALID;

ALTER TABLE takeovers
    DROP CONSTRAINT takeovers_taken_by_known,
    ADD CONSTRAINT takeovers_taken_by_known CHECK (
        taken_by IN ('request', 'recovery', 'person', 'callback', 'parking')) NOT VALID;

-- One row per authorization that succeeded: until when it may be captured. It is
-- removed when that moment has passed.
CREATE TABLE authorizations (
    account_id     uuid        NOT NULL,
    payment_id     uuid        NOT NULL,
    transaction_id uuid        NOT NULL,
    expires_at     timestamptz NOT NULL,
    CONSTRAINT authorizations_pkey PRIMARY KEY (account_id, payment_id),
    CONSTRAINT authorizations_payment_fkey FOREIGN KEY (account_id, payment_id) REFERENCES payments (account_id, id)
);

-- Serves the loop that ends what has expired.
CREATE INDEX authorizations_expires_at ON authorizations (expires_at);

-- One row per message of a provider's that was understood, so that the second copy is
-- known as one. For 90 days.
CREATE TABLE callbacks (
    account_id     uuid        NOT NULL,
    provider       text        NOT NULL,
    id             text        NOT NULL,
    transaction_id uuid        NOT NULL,
    kind           text        NOT NULL,
    outcome        text        NOT NULL,
    verdict        text        NOT NULL,
    received_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT callbacks_pkey PRIMARY KEY (account_id, provider, id),
    CONSTRAINT callbacks_kind_known CHECK (kind IN ('transaction', 'dispute')),
    CONSTRAINT callbacks_verdict_known CHECK (verdict IN ('applied', 'kept', 'known', 'contradicts'))
);

-- Serves the timeline of a transaction.
CREATE INDEX callbacks_transaction ON callbacks (account_id, transaction_id);

-- Serves the purge of old rows.
CREATE INDEX callbacks_received_at ON callbacks (received_at);

-- One row per reference that was taken over or given back: what was sent under it may
-- still arrive at the provider. It is asked about a few times more, and then removed.
CREATE TABLE watches (
    account_id     uuid        NOT NULL,
    transaction_id uuid        NOT NULL,
    looks          integer     NOT NULL DEFAULT 0,
    next_look_at   timestamptz NOT NULL,
    since          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT watches_pkey PRIMARY KEY (account_id, transaction_id)
);

-- Serves the reconciliation loop, longest waiting first.
CREATE INDEX watches_next_look_at ON watches (next_look_at);

-- One row per difference between our books and a provider's, as long as it is
-- remembered. account_id and reference are the provider's words: they may be nobody's
-- here.
CREATE TABLE differences (
    provider        text        NOT NULL,
    account_id      text        NOT NULL,
    reference       text        NOT NULL,
    finding         text        NOT NULL,
    our_status      text        NOT NULL DEFAULT '',
    our_amount      numeric(14,4),
    provider_status text        NOT NULL DEFAULT '',
    provider_amount numeric(14,4),
    currency        text        NOT NULL DEFAULT '',
    action          text        NOT NULL DEFAULT '',
    first_seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT differences_pkey PRIMARY KEY (account_id, provider, reference, finding),
    CONSTRAINT differences_finding_known CHECK (finding IN ('missing_here', 'missing_there', 'amount_differs', 'open')),
    CONSTRAINT differences_action_known CHECK (action IN ('', 'reversed', 'reversal_failed'))
);

-- Serves the list of differences, newest first.
CREATE INDEX differences_last_seen_at ON differences (last_seen_at DESC);

-- Up to when each provider's books have been compared.
CREATE TABLE reconciliation_progress (
    provider   text        NOT NULL,
    until      timestamptz NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT reconciliation_progress_pkey PRIMARY KEY (provider)
);
