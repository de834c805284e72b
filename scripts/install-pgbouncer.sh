#!/bin/sh
# Sees to it that this machine has PgBouncer, in front of which some tests put the
# product, and `make test-pgbouncer` all of them. Silent where it is there already.
#
# Debian's package starts a PgBouncer of its own, which nobody here asked for, so it is
# kept from that while it is installed.
set -eu
. "$(dirname "$0")/lib.sh"

# As find in internal/pgtest/pgbouncer looks for it.
there() { command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ]; }

# Debian asks this program whether it may start a service.
policy=/usr/sbin/policy-rc.d

with_apt() {
	apt_update
	if [ ! -e "$policy" ]; then
		trap 'as_root rm -f "$policy"' EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM
		as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
	fi
	apt_install pgbouncer
}

install_it() {
	for manager in apt-get dnf zypper pacman apk brew; do
		command -v "$manager" >/dev/null 2>&1 || continue
		case $manager in
		apt-get) with_apt ;;
		dnf) as_root dnf install -y pgbouncer ;;
		zypper) as_root zypper --non-interactive install pgbouncer ;;
		pacman) as_root pacman -S --needed --noconfirm pgbouncer ;;
		apk) as_root apk add --update-cache pgbouncer ;;
		brew) brew install pgbouncer ;;
		esac
		return
	done
	fail "no package manager that is known here. Install PgBouncer so that it is in the PATH."
}

if there; then exit 0; fi
say "PgBouncer is not on this machine; installing it."
install_it
there || fail "PgBouncer was installed, but there is no program of that name in the PATH."
