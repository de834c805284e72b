#!/bin/sh
# Draws the secrets of compose.yaml into the folder secrets/ beside it, once: it never
# touches a folder that is there, because payments_secret is changed in steps
# (docs/operate/configure.md) and not by drawing another.
#
# The folder is its owner's alone. The files in it can be read by anybody who gets that
# far: the containers do, one file each, under user ids that this machine does not have.
set -eu
cd "$(dirname "$0")"

if [ -e secrets ]; then
	echo "secrets/ is there already; nothing was changed." >&2
	exit 1
fi
umask 077
new=$(mktemp -d secrets.XXXXXX)
trap 'rm -rf "$new"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

draw() { openssl rand -hex 32 >"$new/$1"; }
for name in postgres_password migrator_password app_password payments_secret payments_admin_token; do draw "$name"; done
migrator=$(cat "$new/migrator_password")
app=$(cat "$new/app_password")

# Between the containers of one machine, on a network of their own, without TLS.
printf 'postgres://oncepay_migrator:%s@postgres:5432/oncepay?sslmode=disable\n' "$migrator" >"$new/migrate_database_url"
printf 'postgres://oncepay_app:%s@pgbouncer:6432/oncepay?sslmode=disable\n' "$app" >"$new/database_url"
printf '"oncepay_app" "%s"\n' "$app" >"$new/pgbouncer_userlist"

# The operator's listener: a certificate that vouches for itself. Whoever calls it is
# given it as the authority (PAYMENTS_ADMIN_CA, curl --cacert, Prometheus' ca_file).
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 825 -subj /CN=oncepay-admin \
	-addext subjectAltName=DNS:localhost,DNS:api-1,DNS:api-2,IP:127.0.0.1 \
	-keyout "$new/admin_tls_key" -out "$new/admin_tls_cert" 2>"$new/openssl.log" || {
	cat "$new/openssl.log" >&2
	exit 1
}
rm "$new/openssl.log"

chmod 0444 "$new"/*
mv "$new" secrets
trap - EXIT
echo "secrets/ has what compose.yaml needs. Keep a copy of payments_secret where a backup of the database is not." >&2
