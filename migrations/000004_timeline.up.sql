-- One row per running process. A holder whose process has not beaten for five
-- seconds may be taken over before its lease ends.
CREATE TABLE instances (
    id         uuid        NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT instances_pkey PRIMARY KEY (id)
);

-- One row per exchange with a provider (send, inquiry or void), written with the
-- step that used its outcome. For 90 days.
CREATE TABLE provider_calls (
    account_id         uuid        NOT NULL,
    transaction_id     uuid        NOT NULL,
    fence              bigint      NOT NULL,
    seq                smallint    NOT NULL,
    kind               text        NOT NULL,
    provider           text        NOT NULL,
    outcome            text        NOT NULL,
    provider_reference text        NOT NULL DEFAULT '',
    response_code      text        NOT NULL DEFAULT '',
    detail             text        NOT NULL DEFAULT '',
    started_at         timestamptz NOT NULL,
    duration_ms        integer     NOT NULL,
    CONSTRAINT provider_calls_pkey PRIMARY KEY (account_id, transaction_id, fence, seq),
    CONSTRAINT provider_calls_kind_known CHECK (kind IN ('send', 'inquire', 'void'))
);

-- Serves the purge of old rows.
CREATE INDEX provider_calls_started_at ON provider_calls (started_at);

-- One row per fact that a holder learnt after it had been fenced out. It could
-- not finish the transaction, but whoever resumes it reads this first.
CREATE TABLE provider_observations (
    account_id         uuid        NOT NULL,
    transaction_id     uuid        NOT NULL,
    id                 uuid        NOT NULL,
    fence              bigint      NOT NULL,
    outcome            text        NOT NULL,
    provider_reference text        NOT NULL DEFAULT '',
    response_code      text        NOT NULL DEFAULT '',
    authorization_code text        NOT NULL DEFAULT '',
    detail             text        NOT NULL DEFAULT '',
    observed_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT provider_observations_pkey PRIMARY KEY (account_id, transaction_id, id)
);

-- One row per request that came with a nonce: what it met. Written in batches
-- after the answer; it may lose its last second in a crash, because money never
-- depends on it. For 90 days.
CREATE TABLE arrivals (
    account_id     uuid        NOT NULL,
    mode           text        NOT NULL,
    nonce          text        NOT NULL,
    at             timestamptz NOT NULL,
    id             uuid        NOT NULL,
    verdict        text        NOT NULL,
    transaction_id uuid,
    request_id     text        NOT NULL,
    body_differs   boolean     NOT NULL DEFAULT false,
    differs        text        NOT NULL DEFAULT '',
    CONSTRAINT arrivals_pkey PRIMARY KEY (account_id, mode, nonce, id),
    CONSTRAINT arrivals_verdict_known CHECK (
        verdict IN ('new', 'replayed', 'in_process', 'mismatch', 'resumed', 'rejected'))
);

-- Serves the purge of old rows.
CREATE INDEX arrivals_at ON arrivals (at);

-- One row per state change of a payment, numbered per payment without gaps. The
-- outbox that later deliveries read.
CREATE TABLE events (
    account_id     uuid        NOT NULL,
    payment_id     uuid        NOT NULL,
    seq            bigint      NOT NULL,
    transaction_id uuid        NOT NULL,
    type           text        NOT NULL,
    status         text        NOT NULL,
    sub_status     text        NOT NULL,
    cause          text        NOT NULL,
    created_at     timestamptz NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (account_id, payment_id, seq),
    CONSTRAINT events_payment_fkey FOREIGN KEY (account_id, payment_id) REFERENCES payments (account_id, id)
);

-- One row per decision that a person made about a transaction.
CREATE TABLE resolutions (
    account_id         uuid        NOT NULL,
    transaction_id     uuid        NOT NULL,
    fence              bigint      NOT NULL,
    outcome            text        NOT NULL,
    provider_reference text        NOT NULL DEFAULT '',
    reason             text        NOT NULL,
    request_id         text        NOT NULL,
    resolved_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT resolutions_pkey PRIMARY KEY (account_id, transaction_id, fence),
    CONSTRAINT resolutions_outcome_known CHECK (outcome IN ('succeeded', 'failed')),
    CONSTRAINT resolutions_reason_length CHECK (char_length(reason) BETWEEN 1 AND 500)
);

-- One row per move of a fence: who took an unresolved transaction over, or that it
-- was parked, and the fence since then.
CREATE TABLE takeovers (
    account_id     uuid        NOT NULL,
    transaction_id uuid        NOT NULL,
    fence          bigint      NOT NULL,
    taken_by       text        NOT NULL,
    at             timestamptz NOT NULL,
    CONSTRAINT takeovers_pkey PRIMARY KEY (account_id, transaction_id, fence),
    CONSTRAINT takeovers_taken_by_known CHECK (taken_by IN ('request', 'recovery', 'person', 'parking'))
);
