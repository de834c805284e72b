#!/usr/bin/env bash
# Puts Scalar's browser build into internal/apidocs/scalar, where the program embeds
# it: the one file in this repository that others wrote (docs/adr/0010). It is npm's
# @scalar/api-reference at the version named here, unchanged but for being packed,
# and is refused if it is not the file whose checksum stands beside it. For another
# version, change both, and look at /docs afterwards, also with the network cut.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=1.72.1
folder=$PWD/internal/apidocs/scalar

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

# npm checks the package against the registry's own checksum.
npm pack --silent "@scalar/api-reference@$version" >/dev/null
tar -xzf "scalar-api-reference-$version.tgz" --strip-components=3 package/dist/browser/standalone.js
sha256sum --check --quiet "$folder/standalone.js.sha256"
# Without name and time, so that the same file makes the same archive.
gzip -9 -n standalone.js
mv standalone.js.gz "$folder/"
echo "internal/apidocs/scalar/standalone.js.gz is Scalar $version."
