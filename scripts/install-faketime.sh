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

if there; then exit 0; fi
say "libfaketime is not on this machine; installing it."
install_package libfaketime
there || say "libfaketime is not where it is looked for; the tests that set PostgreSQL's clock are skipped."
