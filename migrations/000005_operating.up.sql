-- What operating an installation needs. Only additions that are allowed to be null:
-- the release before does not know them, and goes on.

-- Since when none of a merchant's keys are taken; null while they are.
ALTER TABLE merchants ADD COLUMN disabled_at timestamptz;

ALTER TABLE api_keys
    -- A key that was rotated is good until then; null: until it is revoked.
    ADD COLUMN expires_at timestamptz,
    -- To the minute or so: it is noted now and then, not at each request.
    ADD COLUMN last_used_at timestamptz,
    -- The networks that may use the key; null: all.
    ADD COLUMN allowed_networks cidr[];

-- Which database this is: the one row that there is was written by the first instance
-- that served it. Another identity or a later timeline means that it was restored, or
-- that a standby was promoted, and may have forgotten what was answered last.
CREATE TABLE database_identity (
    singleton         boolean     NOT NULL DEFAULT true,
    system_identifier text        NOT NULL,
    timeline          bigint      NOT NULL,
    noted_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT database_identity_pkey PRIMARY KEY (singleton),
    CONSTRAINT database_identity_is_one CHECK (singleton)
);
