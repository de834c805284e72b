-- Operators, their sessions and tokens, the audit log and the console's figures go.
DROP INDEX transactions_provider_reference;
DROP INDEX payments_merchant_customer_id;
DROP INDEX payments_id;
ALTER TABLE payments
    DROP COLUMN merchant_customer_id;
DROP TABLE request_minutes;
DROP TABLE audit_head;
DROP TABLE audit_entries;
DROP FUNCTION audit_entries_stay();
DROP TABLE operator_failures;
DROP TABLE operator_tokens;
DROP TABLE operator_sessions;
DROP TABLE operator_invitations;
DROP TABLE operators;
