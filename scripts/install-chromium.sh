#!/bin/sh
# Sees to it that this machine has Chromium, in which the browser tests pay. Silent where
# it is there already. With --tell it installs nothing, and says what is not tested without
# it: `make test` does without, `make ci` does not.
set -eu
. "$(dirname "$0")/lib.sh"

# As test/browser looks for it.
there() {
	for name in chromium chromium-browser google-chrome; do
		if command -v "$name" >/dev/null 2>&1; then return 0; fi
	done
	return 1
}

if there; then exit 0; fi
if [ "${1:-}" = --tell ]; then
	say "Chromium is not on this machine: what happens in browsers is not tested. scripts/install-chromium.sh installs it."
	exit 0
fi
say "Chromium is not on this machine; installing it."
install_package chromium
there || fail "Chromium is not where it is looked for; install it, and run this again."
