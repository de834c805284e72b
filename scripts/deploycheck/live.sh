#!/usr/bin/env bash
# Plays deploy/compose/compose.yaml on this machine, without containers: PostgreSQL,
# PgBouncer, the migration, the sandbox and two instances, each with the command, the
# variables and the secrets that the file gives it; merchants who pay; a Prometheus that
# scrapes both instances by the operator's TLS listener. Then every alert and every query
# of the dashboard is asked for. Last, the systemd unit's own command.
#
# check-deploy.sh starts it in namespaces of its own (network, processes, mounts), so that
# names and ports are those of the file, and nothing of it outlives it. It wants, in the
# environment:
#
#   WORK     a new folder that everybody may enter      IMAGE      the image's files
#   CHECK    deploycheck, built                         PG_BIN     PostgreSQL's programs
#   MONITOR  Debian's prometheus, unpacked              PGBOUNCER  the program
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '  %s\n' "$*"; }

fail() {
	printf 'check-deploy: %s\n' "$*" >&2
	exit 1
}

# until_it WHAT COMMAND…: half a minute, and then it is an error.
until_it() {
	local what=$1
	shift
	for _ in $(seq 150); do
		if "$@" >"$WORK/last" 2>&1; then return; fi
		sleep 0.2
	done
	tail -n 8 "$WORK"/log.* "$WORK/last" >&2
	fail "$what: not within half a minute"
}

# as USER COMMAND…
as() {
	local user=$1
	shift
	setpriv --reuid "$user" --regid "$(id -g "$user" 2>/dev/null || echo "$user")" --clear-groups --no-new-privs "$@"
}

# The containers' network: one address a name. An instance listens on its own alone,
# because here they share the ports that two containers would each have.
network() {
	ip link set lo up
	cat >"$WORK/hosts" <<'HOSTS'
127.0.0.1 localhost
127.0.1.1 postgres
127.0.1.2 pgbouncer
127.0.1.3 sandbox
127.0.1.4 api-1
127.0.1.5 api-2
HOSTS
	mount --bind "$WORK/hosts" /etc/hosts
}

# secrets_of SERVICE: bwrap's arguments for the files that the service is given. Those of
# a container are mounted by root; here the folder must let a user in.
secrets_of() {
	local source target
	while read -r source target; do
		printf '%s\n' --ro-bind "$COMPOSE/secrets/$source" "$target"
	done < <(jq -r --arg s "$1" '.services[$s].secrets // [] | .[] | "\(.source) \(.target)"' "$WORK/compose.json")
}

# on_the_image SERVICE [NAME=VALUE…]: what the service runs, as its container would: the
# image's files and nothing else, read-only, as nobody. INSTEAD is another command.
on_the_image() {
	local service=$1 mounts variables command
	shift
	mapfile -t mounts < <(secrets_of "$service")
	mapfile -t variables < <(jq -r --arg s "$service" '.services[$s].environment | to_entries[] | "--setenv", .key, .value' "$WORK/compose.json")
	mapfile -t command < <(jq -r --arg s "$service" '.services[$s].command[]' "$WORK/compose.json")
	if [ -n "${INSTEAD:-}" ]; then command=("$INSTEAD"); fi
	for v in "$@"; do variables+=(--setenv "${v%%=*}" "${v#*=}"); done
	as 65532 bwrap --unshare-user --unshare-pid --unshare-ipc --unshare-uts --cap-drop ALL --die-with-parent \
		--ro-bind "$IMAGE" / --proc /proc --tmpfs /run --bind "$WORK/ledger" /data --ro-bind "$WORK/hosts" /etc/hosts \
		"${mounts[@]}" --remount-ro /run --clearenv "${variables[@]}" /payments "${command[@]}"
}

# on_debian SERVICE USER COMMAND…: the same for images that are Debian's programs.
on_debian() {
	local service=$1 user=$2 mounts
	shift 2
	mapfile -t mounts < <(secrets_of "$service")
	as "$user" bwrap --die-with-parent --ro-bind / / --dev /dev --bind "$WORK/$service" "$WORK/$service" --tmpfs /run "${mounts[@]}" "$@"
}

database() {
	install -d -o postgres -g postgres "$WORK/postgres"
	on_debian postgres postgres "$PG_BIN/initdb" --pgdata "$WORK/postgres/data" --username postgres --data-checksums \
		--auth-local trust --auth-host scram-sha-256 --pwfile /run/secrets/postgres_password --no-sync >"$WORK/log.initdb"
	on_debian postgres postgres "$PG_BIN/postgres" -D "$WORK/postgres/data" -c listen_addresses=postgres \
		-c unix_socket_directories="$WORK/postgres" >"$WORK/log.postgres" 2>&1 &
	until_it "PostgreSQL answers" "$PG_BIN/pg_isready" --host postgres
	on_debian postgres postgres env POSTGRES_USER=postgres PGHOST="$WORK/postgres" "$COMPOSE/roles.sh"
	install -d -o nobody -g nogroup "$WORK/pgbouncer"
	on_debian pgbouncer nobody "$PGBOUNCER" "$COMPOSE/pgbouncer.ini" >"$WORK/log.pgbouncer" 2>&1 &
}

instances() {
	install -d -o 65532 -g 65532 "$WORK/ledger"
	on_the_image migrate >"$WORK/log.migrate" 2>&1 || fail "migrate: $(cat "$WORK/log.migrate")"
	if grep -q superuser "$WORK/log.migrate"; then fail "roles.sh leaves something to do: $(cat "$WORK/log.migrate")"; fi
	say "migrate: $(tail -n 1 "$WORK/log.migrate")"
	on_the_image sandbox PAYMENTS_SANDBOX_LISTEN=sandbox:8090 >"$WORK/log.sandbox" 2>&1 &
	until_it "the sandbox answers" curl -s -o /dev/null http://sandbox:8090/
	for name in api-1 api-2; do
		on_the_image $name PAYMENTS_LISTEN=$name:8080 PAYMENTS_ADMIN_LISTEN=$name:8081 \
			PAYMENTS_PROVIDER_TIMEOUT=2s >"$WORK/log.$name" 2>&1 &
		until_it "$name is ready" curl -sf http://$name:8080/readyz
	done
	if grep '"level":"\(WARN\|ERROR\)"' "$WORK"/log.api-?; then fail "an instance complains"; fi
	say "two instances are ready, through PgBouncer, read-only and as nobody"
}

admin() { curl -sS --cacert "$COMPOSE/secrets/admin_tls_cert" -H "Authorization: Bearer $(cat "$COMPOSE/secrets/payments_admin_token")" "$@"; }

# pay INSTANCE NONCE DESCRIPTION [CARD [AMOUNT]] prints the answer's status.
pay() {
	curl -s -o /dev/null -w '%{http_code}\n' "http://$1:8080/v1/payments" -H "public-api-key: $public" -H "private-secret-key: $secret" \
		-H "X-Idempotency-Key: $2" -H 'Content-Type: application/json' -d '{"account_id":"'"$account"'", "merchant_order_id":"order-'"$2"'",
		"description":"'"$3"'", "country":"US", "amount":{"currency":"USD","value":'"${5:-45.67}"'}, "workflow":"DIRECT",
		"payment_method":{"type":"CARD","detail":{"card":{"card_data":{"number":"'"${4:-4507990000000002}"'", "holder_name":"John Doe",
		"expiration_month":11, "expiration_year":28, "security_code":"123"}}}}}'
}

expect() {
	local want=$1 got
	shift
	got=$("$@")
	[ "$got" = "$want" ] || fail "$* was answered with $got, not with $want"
}

# traffic makes everything that the dashboard shows: approvals, declines, replays, other
# bodies, two at once, refusals, failures, and outcomes that have to be asked about.
traffic() {
	local made
	made=$(PAYMENTS_ADMIN_TOKEN=$(cat "$COMPOSE/secrets/payments_admin_token") "$IMAGE/payments" merchants create Check --json \
		--admin-url https://api-1:8081 --admin-ca "$COMPOSE/secrets/admin_tls_cert")
	account=$(jq -r .account_id <<<"$made")
	public=$(jq -r .api_key.public_api_key <<<"$made")
	secret=$(jq -r .api_key.private_secret_key <<<"$made")
	until_it "the other instance knows the new key" test_key
	for n in 1 2 3 4 5; do
		expect 201 pay api-1 "plain-$n" "Two tickets"
		expect 201 pay api-2 "plain-$n" "Two tickets" # a replay, by the other instance
		expect 201 pay api-2 "plain-$n" "Two tickets" 4507990000000002 99.99
		expect 201 pay api-1 "declined-$n" "Two tickets" 4507990000000010
		expect 400 pay api-2 "invalid-$n" "Two tickets" 4507990000000002 45.678
		expect 502 pay api-1 "unclear-$n" sandbox:charge-then-500
		expect 201 pay api-2 "unclear-$n" sandbox:charge-then-500 # asked about, and found
	done
	pay api-1 twice sandbox:slow=1s >"$WORK/first" &
	sleep 0.3
	expect 409 pay api-2 twice sandbox:slow=1s
	wait $!
	expect 201 cat "$WORK/first"
	say "payments: approved, declined, replayed, refused, two at once, and unclear ones that were settled"
}

test_key() { [ "$(curl -s -o /dev/null -w '%{http_code}' -H "public-api-key: $public" -H "private-secret-key: $secret" "http://api-2:8080/v1/payments?merchant_order_id=none")" = 200 ]; }

monitor() {
	install -d -o nobody -g nogroup "$WORK/monitor"
	# As the file has it, but in a hurry.
	sed -e 's/_interval: 15s/_interval: 1s/' -e "s,/etc/prometheus/oncepay-ca.crt,$COMPOSE/secrets/admin_tls_cert," \
		deploy/prometheus/prometheus.yaml >"$WORK/monitor/prometheus.yaml"
	cp deploy/prometheus/alerts.yaml "$WORK/monitor/"
	as nobody "$MONITOR/usr/bin/prometheus" --config.file="$WORK/monitor/prometheus.yaml" --storage.tsdb.path="$WORK/monitor/data" \
		--web.listen-address=127.0.0.1:9090 >"$WORK/log.prometheus" 2>&1 &
	until_it "Prometheus is ready" curl -sf http://127.0.0.1:9090/-/ready
	until_it "Prometheus scrapes both instances" both_are_up
}

both_are_up() { [ "$(ask 'count(up{job="oncepay"} == 1)' | jq -r '.data.result[0].value[1]')" = 2 ]; }

ask() { curl -s http://127.0.0.1:9090/api/v1/query --data-urlencode "query=$1"; }

# answers QUERY: it is one, and there is something to show.
answers() { ask "$1" | jq -e '.status == "success" and (.data.result | length > 0)' >/dev/null; }

# series_in reads expressions and prints the series that they select.
series_in() { grep -oE '\b(payments|process|go)_[a-z_]+(\{[^}]*\})?|\bup(\{[^}]*\})' | sort -u; }

queries() {
	local expr n=0
	# shellcheck disable=SC2016 # Grafana's variables
	jq -r '.panels[] | select(.targets) | .targets[].expr' deploy/grafana/oncepay.json |
		sed -e 's/\$job/oncepay/g' -e 's/\$__rate_interval/30s/g' >"$WORK/dashboard.txt"
	curl -s http://127.0.0.1:9090/api/v1/rules >"$WORK/rules.json"
	jq -r '.data.groups[].rules[].query' "$WORK/rules.json" >"$WORK/alerts.txt"

	admin -f https://api-1:8081/metrics | awk '/^# TYPE/ { print $3; if ($4 == "histogram") { print $3 "_bucket"; print $3 "_count"; print $3 "_sum" } }' |
		sort >"$WORK/metrics.txt"
	cat "$WORK/dashboard.txt" "$WORK/alerts.txt" | series_in | sed -e 's/{.*//' -e '/^up$/d' | sort -u >"$WORK/names.txt"
	if comm -13 "$WORK/metrics.txt" "$WORK/names.txt" | grep .; then fail "these are no metrics of /metrics"; fi

	while read -r expr; do
		until_it "the dashboard's $expr shows something" answers "$expr"
		n=$((n + 1))
	done <"$WORK/dashboard.txt"
	say "dashboard: $n queries, each with something to show"

	# An alert that is silent shows nothing: what it looks at has to be there.
	jq -e '[.data.groups[].rules[] | select(.health != "ok")] == []' "$WORK/rules.json" >/dev/null || fail "a rule is not healthy: $(cat "$WORK/rules.json")"
	n=0
	while read -r expr; do
		until_it "the alerts' $expr is there" answers "$expr"
		n=$((n + 1))
	done < <(series_in <"$WORK/alerts.txt")
	say "alerts: $(jq '[.data.groups[].rules[]] | length' "$WORK/rules.json") rules evaluated, all of the $n series that they look at are there"
	if jq -r '.data.groups[].rules[] | select(.state == "firing") | .name' "$WORK/rules.json" | grep .; then fail "these alerts should be silent"; fi
}

# examined: doctor finds nothing bad in what the file makes.
examined() {
	INSTEAD=doctor on_the_image api-1 PAYMENTS_LISTEN=api-1:8080 PAYMENTS_ADMIN_LISTEN=api-1:8081 >"$WORK/doctor" 2>&1 ||
		fail "doctor: $(grep -v '^ok' "$WORK/doctor")"
	grep '^warn' "$WORK/doctor" | sed 's/^/  /'
	say "doctor: $(grep '^[0-9]* checks' "$WORK/doctor")"
}

# systemd's part by hand: the unit's command, as nobody, with its secrets in a folder.
unit() {
	local name file
	install -d -m 0500 -o nobody -g nogroup "$WORK/credentials"
	while IFS=: read -r name file; do
		case $name in
		database_url) sed 's/pgbouncer:6432/postgres:5432/' "$COMPOSE/secrets/database_url" >"$WORK/credentials/$name" ;;
		*) cp "$COMPOSE/secrets/${file##*/}" "$WORK/credentials/$name" ;;
		esac
	done < <(sed -n 's/^LoadCredential=//p' deploy/systemd/payments.service)
	chown nobody "$WORK"/credentials/*
	chmod 0400 "$WORK"/credentials/*
	local settings command
	mapfile -t settings < <(grep -v '^#' deploy/systemd/payments.env | grep .)
	command=$(sed -n 's/^ExecStart=//p' deploy/systemd/payments.service)
	# shellcheck disable=SC2086 # the command's words
	as nobody bwrap --unshare-user --die-with-parent --ro-bind / / --dev /dev --tmpfs /usr/local/bin \
		--ro-bind "$IMAGE/payments" /usr/local/bin/payments --clearenv --setenv CREDENTIALS_DIRECTORY "$WORK/credentials" \
		env "${settings[@]}" PAYMENTS_PROVIDER_URL=http://sandbox:8090 $command >"$WORK/log.unit" 2>&1 &
	until_it "the unit's command serves" curl -sf http://127.0.0.1:8080/readyz
	if grep '"level":"\(WARN\|ERROR\)"' "$WORK/log.unit"; then fail "the unit's command complains"; fi
	say "the unit's command serves, as nobody, with its credentials"
}

# stops: an instance that is told to ends in time, and with 0. The newest is the unit's.
stops() {
	local began=$SECONDS code=0
	kill -TERM "$(pgrep --newest --exact payments)"
	wait $! || code=$?
	[ $code = 0 ] || fail "the stop ended with $code: $(tail -n 5 "$WORK/log.unit")"
	say "its stop took $((SECONDS - began)) s, and ended with 0"
}

umask 022
COMPOSE=$WORK/compose
cp -R deploy/compose "$COMPOSE"
rm -rf "$COMPOSE/secrets"
"$COMPOSE/make-secrets.sh" 2>"$WORK/last"
chmod 0711 "$COMPOSE/secrets"
"$CHECK" compose "$COMPOSE/compose.yaml" >"$WORK/compose.json"

network
database
instances
traffic
monitor
queries
examined
unit
stops
