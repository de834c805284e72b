DROP TABLE database_identity;
ALTER TABLE api_keys DROP COLUMN allowed_networks, DROP COLUMN last_used_at, DROP COLUMN expires_at;
ALTER TABLE merchants DROP COLUMN disabled_at;
