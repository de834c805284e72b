#!/bin/sh
# Sees to it that this machine has PostgreSQL's programs, postgres and initdb.
#
#   install-postgres.sh               installs them if they are missing, and says so
#   install-postgres.sh --unless VAR  the same, but does nothing if VAR is set: where
#                                     DATABASE_URL names a server, none is started here
#   install-postgres.sh --find        prints the folder they are in, or fails
#
# Silent, and done in milliseconds, where there is nothing to do. The search is that
# of FindBinaries in internal/localpg/binaries.go, and a test compares the two.
set -eu
. "$(dirname "$0")/lib.sh"

has_both() { [ -f "$1/postgres" ] && [ -x "$1/postgres" ] && [ -f "$1/initdb" ] && [ -x "$1/initdb" ]; }

in_pg_config() {
	command -v pg_config >/dev/null 2>&1 || return 1
	folder=$(pg_config --bindir 2>/dev/null) && has_both "$folder"
}

in_path() {
	old_ifs=$IFS
	IFS=:
	set -f # PATH is a list, not a pattern
	for folder in $PATH; do
		case $folder in
		/*) if has_both "$folder"; then break; fi ;;
		esac
		folder=
	done
	set +f
	IFS=$old_ifs
	[ -n "$folder" ]
}

# The newest version of the first package layout that is there.
in_usual_folders() {
	for pattern in \
		'/usr/lib/postgresql/*/bin' \
		'/usr/pgsql-*/bin' \
		'/usr/lib/postgresql*/bin' \
		'/usr/libexec/postgresql*' \
		'/opt/homebrew/opt/postgresql@*/bin' \
		'/opt/homebrew/opt/postgresql/bin' \
		'/usr/local/opt/postgresql@*/bin' \
		'/usr/local/opt/postgresql/bin' \
		'/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin' \
		'/Applications/Postgres.app/Contents/Versions/*/bin'; do
		folder=
		newest=-1
		for candidate in $pattern; do
			has_both "$candidate" || continue
			version=${candidate%/bin}
			version=${version##*[!0-9]}
			if [ "${version:-0}" -gt "$newest" ]; then
				newest=${version:-0}
				folder=$candidate
			fi
		done
		if [ -n "$folder" ]; then return 0; fi
	done
	return 1
}

# look sets $folder.
look() {
	if [ -n "${PG_BIN_DIR:-}" ]; then
		has_both "$PG_BIN_DIR" || fail "PG_BIN_DIR is $PG_BIN_DIR, which does not have both postgres and initdb."
		folder=$PG_BIN_DIR
		return 0
	fi
	in_pg_config || in_path || in_usual_folders
}

# Debian starts a server of its own with every installation, which nobody here asked
# for. Its settings have a folder for additions; ours is there only meanwhile, so that
# whoever installs another version later gets what Debian promises.
addition=/etc/postgresql-common/createcluster.d/oncepay-install.conf

with_apt() {
	apt_update
	as_root mkdir -p "${addition%/*}"
	trap 'as_root rm -f "$addition"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	as_root sh -c "echo 'create_main_cluster = false' >$addition"
	apt_install postgresql
}

# A refresh of pacman's lists without an upgrade of everything may break other
# programs, so it is for machines that have no lists yet.
with_pacman() {
	as_root pacman -S --needed --noconfirm postgresql || as_root pacman -Sy --needed --noconfirm postgresql
}

with_brew() {
	if [ "$(id -u)" -eq 0 ]; then fail "Homebrew refuses to run as root: run this as yourself."; fi
	say "running: brew install postgresql@17"
	brew install postgresql@17
}

install_it() {
	if [ "$(uname -s)" = Darwin ]; then
		command -v brew >/dev/null 2>&1 || fail "install Homebrew (https://brew.sh) or Postgres.app, and run this again."
		with_brew
		return
	fi
	for manager in apt-get dnf zypper pacman apk brew; do
		command -v "$manager" >/dev/null 2>&1 || continue
		case $manager in
		apt-get) with_apt ;;
		dnf) as_root dnf install -y postgresql-server ;;
		zypper) as_root zypper --non-interactive install postgresql-server ;;
		pacman) with_pacman ;;
		apk) as_root apk add --update-cache postgresql ;;
		brew) with_brew ;;
		esac
		return
	done
	fail "no package manager that is known here. Install PostgreSQL, or set PG_BIN_DIR to the folder that has postgres and initdb."
}

case ${1:-} in
'') ;;
--find)
	look || fail "PostgreSQL was not found."
	printf '%s\n' "$folder"
	exit 0
	;;
--unless)
	if [ $# -ne 2 ]; then fail "--unless wants the name of a variable"; fi
	if [ -n "$(printenv "$2" || :)" ]; then exit 0; fi
	;;
*) fail "usage: install-postgres.sh [--find | --unless VARIABLE]" ;;
esac

if look; then exit 0; fi
say "PostgreSQL is not on this machine; installing it."
install_it
look || fail "PostgreSQL was installed, but postgres and initdb were not found. Set PG_BIN_DIR to their folder."
say "PostgreSQL is in $folder."
