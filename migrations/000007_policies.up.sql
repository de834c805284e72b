-- Merchants choose how their nonces behave.
--
-- The policy by which a transaction's nonce lives, as it was when that life began: what
-- was told once is told again in the same manner, whatever the merchant has chosen
-- since. The release before knows no other than the default.
ALTER TABLE transactions
    ADD COLUMN policy text NOT NULL DEFAULT 'yuno';
