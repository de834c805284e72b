#!/usr/bin/env bash
# Holds the files in deploy/ against what will read them one day, as far as one machine
# without a registry of images, a cluster or a running systemd can. It installs what it
# needs (Debian's packages, and tools through the Go module proxy, into ./bin), ends with
# the list of what it could not check, and exits with 1 at the first finding.
#
# It wants to be root: to install, and then to be several users in a network of their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

helm=3.19.2
# A Helm built from source takes itself for an old one.
kubernetes=1.34.0

tools=$PWD/bin/check-deploy
deploycheck=$tools/deploycheck
monitor=$tools/prometheus
# What the image's build keeps between two runs. Not in here, where gofmt and Go's own
# patterns would find the modules.
cache=/var/cache/oncepay-check-deploy

step() { printf '\n%s\n' "$*"; }
say() { printf '  %s\n' "$*"; }

fail() {
	printf 'check-deploy: %s\n' "$*" >&2
	exit 1
}

if [ "$(id -u)" -ne 0 ]; then fail "run this as root: sudo -E env PATH=\"\$PATH\" $0"; fi

# Debian's Prometheus is unpacked and not installed, because its package would start it.
install_tools() {
	local missing=()
	for need in bwrap:bubblewrap jq:jq curl:curl openssl:openssl ip:iproute2 pgrep:procps systemd-analyze:systemd file:file; do
		command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
	done
	if [ ${#missing[@]} -gt 0 ] || [ ! -x "$monitor/usr/bin/promtool" ]; then
		apt-get update -qq
	fi
	if [ ${#missing[@]} -gt 0 ]; then
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
	fi
	mkdir -p "$tools"
	if [ ! -x "$monitor/usr/bin/promtool" ]; then
		say "fetching Debian's Prometheus"
		(cd "$WORK" && apt-get -qq -o APT::Sandbox::User=root download prometheus && dpkg-deb -x prometheus_*.deb "$monitor")
		rm -r "${monitor:?}/usr/share" # examples in Go, which gofmt would find
	fi
	if [ "$("$tools/helm" version --template '{{.Version}}' 2>/dev/null)" != "v$helm" ]; then
		say "building Helm $helm; once, about two minutes on two cores"
		GOBIN=$tools CGO_ENABLED=0 go install -ldflags "-X helm.sh/helm/v3/internal/version.version=v$helm" "helm.sh/helm/v3/cmd/helm@v$helm"
	fi
	(cd scripts/deploycheck && CGO_ENABLED=0 go build -o "$deploycheck" .)
	./scripts/install-postgres.sh
	./scripts/install-pgbouncer.sh
}

# No file in deploy/ has what could be a secret: a long run of hex or base64, a key, a URL
# with a password.
secrets() {
	if grep -rnE '[0-9a-f]{32}|BEGIN [A-Z ]*PRIVATE KEY|://[^:/ $%]+:[^@ %]+@|_(SECRET|TOKEN)=[0-9A-Za-z]' deploy --exclude-dir=secrets; then
		fail "deploy/ has something that looks like a secret"
	fi
	say "no secret, and nothing that looks like one"
}

alerts() {
	"$monitor/usr/bin/promtool" check rules deploy/prometheus/alerts.yaml >"$WORK/last" || fail "$(cat "$WORK/last")"
	"$monitor/usr/bin/promtool" test rules deploy/prometheus/alerts_test.yaml >"$WORK/last" 2>&1 || fail "$(cat "$WORK/last")"
	mkdir "$WORK/scrape"
	cp deploy/prometheus/*.yaml "$WORK/scrape/"
	"$monitor/usr/bin/promtool" check config --syntax-only "$WORK/scrape/prometheus.yaml" >"$WORK/last" 2>&1 || fail "$(cat "$WORK/last")"
	# Each alert has a case, and leads to a page that is there, and to a heading that it has.
	local alert page heading
	while read -r alert; do
		[ "$(grep -c "alertname: $alert\b" deploy/prometheus/alerts_test.yaml)" -ge 2 ] || fail "$alert has no case in alerts_test.yaml"
	done < <(sed -n 's/.*- alert: //p' deploy/prometheus/alerts.yaml)
	while IFS='#' read -r page heading; do
		[ -f "$page" ] || fail "alerts.yaml leads to $page, which is not there"
		[ -z "$heading" ] || sed -n 's/^##* //p' "$page" | tr '[:upper:] ' '[:lower:]-' | tr -d "',\`:?\"()/" | grep -qx -- "$heading" ||
			fail "alerts.yaml leads to $page#$heading, which is not there"
	done < <(sed -n 's/.*runbook: //p' deploy/prometheus/alerts.yaml | sort -u)
	say "$(grep -c 'alert: ' deploy/prometheus/alerts.yaml) rules, tested with made-up series; each leads to its page"
}

unit() {
	# Where it will look for its program; verify wants to see one.
	mkdir -p "$WORK/systemd"
	sed "s,^ExecStart=/usr/local/bin/payments,ExecStart=$IMAGE/payments," deploy/systemd/payments.service >"$WORK/systemd/payments.service"
	systemd-analyze verify --man=no "$WORK/systemd/payments.service" 2>"$WORK/last" || fail "$(cat "$WORK/last")"
	if grep . "$WORK/last"; then fail "systemd-analyze verify complains"; fi
	# In tenths: 10 is 1.0, "OK".
	systemd-analyze security --offline=true --threshold=15 "$WORK/systemd/payments.service" >"$WORK/security" 2>&1 || fail "$(tail -n 1 "$WORK/security")"
	say "verified; $(sed -n 's/^→ //p' "$WORK/security")"
}

# image runs the build stage's lines as they stand, as nobody, in a folder that has what
# .dockerignore lets through and nothing else, and lays the final stage's files out.
image() {
	"$deploycheck" dockerfile deploy/docker/Dockerfile deploy/docker/pgbouncer.Dockerfile
	say "BuildKit compiles both files, and its linter says nothing"
	mkdir -p "$WORK/src" "$WORK/out" "$WORK/modules" "$cache"
	"$deploycheck" context . "$WORK/src"
	chown -R 65532:65532 "$WORK/src" "$WORK/out" "$cache"
	"$deploycheck" runs deploy/docker/Dockerfile build >"$WORK/build.sh"
	# Modules that this machine has need not be fetched again; their checksums are go.sum's.
	# shellcheck disable=SC2016 # for the inner shell
	unshare --mount sh -euc 'mount --bind "$1" "$2" && shift 2 && exec "$@"' sh "$(go env GOMODCACHE)/cache/download" "$WORK/modules" \
		setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs bwrap --die-with-parent \
		--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --ro-bind /etc /etc \
		--proc /proc --dev /dev --tmpfs /tmp --bind "$WORK/src" /src --bind "$WORK/out" /out --bind "$cache" /go \
		--ro-bind "$WORK/modules" /modules --chdir /src --clearenv \
		--setenv PATH "$(go env GOROOT)/bin:/usr/bin:/bin" --setenv GOPATH /go --setenv GOCACHE /go/build --setenv GOTOOLCHAIN local \
		--setenv GOPROXY "file:///modules,$(go env GOPROXY)" --setenv GONOSUMDB '*' \
		--setenv TARGETOS linux --setenv TARGETARCH "$(go env GOARCH)" --setenv VERSION check \
		sh -eu <"$WORK/build.sh" >"$WORK/last" 2>&1 || fail "the image's build: $(tail -n 5 "$WORK/last")"
	mkdir -p "$IMAGE/data" "$IMAGE/run" "$IMAGE/proc" "$IMAGE/etc/ssl/certs"
	touch "$IMAGE/etc/hosts" # a container has it, as it has /proc and /run
	cp "$WORK/out/payments" "$IMAGE/payments"
	cp /etc/ssl/certs/ca-certificates.crt "$IMAGE/etc/ssl/certs/"
	! file -b "$IMAGE/payments" | grep -v 'statically linked' || fail "the binary is not static"
	say "built by its own lines, as nobody, out of $(find "$WORK/src" -type f | wc -l) files: $(du -h "$IMAGE/payments" | cut -f1), static"
}

chart() {
	local given=(--set image.repository=registry.example/oncepay --set image.tag=v1 --set secretName=oncepay
		--set migrate.secretName=oncepay-migrate --set providerURL=http://sandbox:8090)
	# shellcheck disable=SC2034 # used by its name, below
	local everything=("${given[@]}" --set migrate.grantTo=oncepay_app --set pgbouncer=true --set tls.secretName=oncepay-tls
		--set admin.tlsSecretName=oncepay-admin --set serviceMonitor.enabled=true --set serviceMonitor.labels.release=prometheus
		--set settings.PAYMENTS_TRUSTED_PROXIES=10.1.0.0/16 --set 'image.pullSecrets[0].name=registry' --set service.type=LoadBalancer
		--set podAnnotations.a=b --set nodeSelector.c=d --set 'tolerations[0].operator=Exists'
		--set image.digest="sha256:$(printf '%064d' 0)")
	local values
	for values in given everything; do
		local -n set=$values
		"$tools/helm" lint --kube-version "$kubernetes" --strict --quiet deploy/helm/oncepay "${set[@]}" >"$WORK/last" 2>&1 || fail "$(cat "$WORK/last")"
		"$tools/helm" template pay deploy/helm/oncepay --kube-version "$kubernetes" --namespace shop "${set[@]}" >"$WORK/$values.yaml" 2>"$WORK/last" || fail "$(cat "$WORK/last")"
		say "$values: $("$deploycheck" kubernetes <"$WORK/$values.yaml" | paste -sd, | sed 's/,/, /g')"
	done
	# What must stop an installation does.
	local bad
	for bad in image.tag= image.repository= secretName= migrate.secretName= providerURL= providerURL=nonsense image.tag=latest replicas=0 \
		settings.PAYMENTS_ADMIN_TOKEN=x settings.DATABASE_URL=x serviceMonitor.enabled=true unknown=1; do
		if "$tools/helm" template pay deploy/helm/oncepay --kube-version "$kubernetes" "${given[@]}" --set "$bad" >/dev/null 2>&1; then fail "the chart takes $bad"; fi
	done
	say "what is missing or makes no sense is refused"
}

composition() {
	"$deploycheck" compose deploy/compose/compose.yaml >"$WORK/compose.json"
	say "Compose's loader takes it: $(jq -r '.services | keys | join(", ")' "$WORK/compose.json")"
	# Without a registry, an image is only as fixed as its tag.
	if jq -r '.services[].image' "$WORK/compose.json" | grep -vE ':[a-z0-9.-]+$' || grep -n ':latest' deploy -r --include=*ockerfile --include=*.yaml; then
		fail "an image without a tag, or the latest"
	fi
}

live() {
	unshare --net --mount --pid --fork --kill-child --mount-proc \
		env WORK="$WORK" IMAGE="$IMAGE" CHECK="$deploycheck" MONITOR="$monitor" PG_BIN="$(./scripts/install-postgres.sh --find)" \
		PGBOUNCER="$(command -v pgbouncer || echo /usr/sbin/pgbouncer)" ./scripts/deploycheck/live.sh
}

# Users of several kinds must get in.
umask 022
WORK=$(mktemp -d)
chmod 0755 "$WORK"
trap 'rm -rf "$WORK"' EXIT
IMAGE=$WORK/image
mkdir "$IMAGE"

step "Tools"
install_tools
step "Secrets"
secrets
step "Image"
image
step "Compose"
composition
step "Helm chart"
chart
step "systemd unit"
unit
step "Alerts"
alerts
step "Everything at once"
live
step "Not checked here"
say "Base images: no registry is asked whether their tags are there, and none is pulled."
say "docker compose up: there is no Docker; its parts were run by hand, above."
say "Kubernetes: the manifests were decoded strictly into its types, no API server saw them, and no hook ran."
say "systemd: the unit was read and judged by systemd-analyze, but not started; its command was run by hand."
say "Grafana: the dashboard's queries were run, the dashboard itself was not drawn."
printf '\ncheck-deploy: all checks passed, in %s s\n' "$SECONDS"
