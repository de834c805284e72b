#!/usr/bin/env bash
# Puts htmx's browser build into internal/console/htmx, where the program embeds it: with
# Scalar, all in this repository that others wrote (docs/adr/0010). It is npm's htmx.org at
# the version named here, unchanged but for being packed, and is refused if it is not the
# file whose checksum stands beside it. For another version, change both, and try the
# console's live list and its charts afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=2.0.11
folder=$PWD/internal/console/htmx

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

# npm checks the package against the registry's own checksum.
npm pack --silent "htmx.org@$version" >/dev/null
tar -xzf "htmx.org-$version.tgz" --strip-components=2 package/dist/htmx.min.js
sha256sum --check --quiet "$folder/htmx.min.js.sha256"
# Without name and time, so that the same file makes the same archive.
gzip -9 -n htmx.min.js
mv htmx.min.js.gz "$folder/"
echo "internal/console/htmx/htmx.min.js.gz is htmx $version."
