-- Lives that another policy began go on by the default one's rules: the release before
-- knows no other. What their nonces answer is in idempotency_keys, and stays.
ALTER TABLE transactions
    DROP COLUMN policy;
