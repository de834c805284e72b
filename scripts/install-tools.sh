#!/usr/bin/env bash
# Puts the tools that `make` needs into ./bin, each at the version named here, and
# leaves alone what is already right. They are built from source through the Go
# module proxy, whose checksums are verified: nothing else has to be trusted, or
# reachable.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A linter of another version finds other things, so everybody uses this one.
golangci_lint=2.15.0

if [ "$(./bin/golangci-lint version --short 2>/dev/null)" != "$golangci_lint" ]; then
	echo "Building golangci-lint $golangci_lint into ./bin; once, about three minutes on two cores."
	GOBIN="$PWD/bin" go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$golangci_lint"
fi
