#!/bin/sh
# Makes the database and its two roles, when PostgreSQL's volume is empty: a migrator,
# who owns the tables and is used by `migrate` alone, and the instances' own, which may
# only read and write rows (docs/operate/database.md).
set -eu

psql -v ON_ERROR_STOP=1 --quiet --no-psqlrc --username "$POSTGRES_USER" --dbname postgres <<'SQL'
-- Not on the command line, where every process could read them.
\set migrator_password `cat /run/secrets/migrator_password`
\set app_password `cat /run/secrets/app_password`

CREATE ROLE oncepay_migrator LOGIN PASSWORD :'migrator_password';
CREATE ROLE oncepay_app LOGIN PASSWORD :'app_password';
CREATE DATABASE oncepay OWNER oncepay_migrator TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';
REVOKE ALL ON DATABASE oncepay FROM PUBLIC;

-- PgBouncer passes no settings on, so they are the role's. `migrate up --grant-to` would
-- set them, were the migrator allowed to change another role.
ALTER ROLE oncepay_app IN DATABASE oncepay SET timezone = 'UTC';
ALTER ROLE oncepay_app IN DATABASE oncepay SET default_transaction_isolation = 'read committed';
ALTER ROLE oncepay_app IN DATABASE oncepay SET lock_timeout = '2000';
ALTER ROLE oncepay_app IN DATABASE oncepay SET statement_timeout = '10000';
ALTER ROLE oncepay_app IN DATABASE oncepay SET idle_in_transaction_session_timeout = '5000';
SQL
