#!/bin/sh
# Sees to it that this machine has libfaketime, by which the tests set the clock of a
# PostgreSQL while it runs (TestH20…). Silent where it is there already. Where no
# package of it is known, those tests are skipped, and say so.
set -eu
. "$(dirname "$0")/lib.sh"

# As fakeTime in internal/transactions looks for it.
there() {
	for file in /usr/lib/*/faketime/libfaketime.so.1 /usr/lib64/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1; do
		if [ -e "$file" ]; then return 0; fi
	done
	return 1
}

install_it() {
	for manager in apt-get dnf zypper pacman; do
		command -v "$manager" >/dev/null 2>&1 || continue
		case $manager in
		apt-get)
			apt_update
			apt_install libfaketime
			;;
		dnf) as_root dnf install -y libfaketime ;;
		zypper) as_root zypper --non-interactive install libfaketime ;;
		pacman) as_root pacman -S --needed --noconfirm libfaketime ;;
		esac
		return
	done
}

if there; then exit 0; fi
say "libfaketime is not on this machine; installing it."
install_it
there || say "libfaketime is not where it is looked for; the tests that set PostgreSQL's clock are skipped."
