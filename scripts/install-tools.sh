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

# Migrations are checked by squawk, which is published as a program in an npm package
# for each system. npm compares it with its registry's checksum; where we have looked
# at the file ourselves, its checksum is here as well.
squawk=2.66.0
squawk_linux_x64=p5Wq5BIcDGujJpmub3hiULkiEYnwI7FPdXaWMjCwoYQvN5RI79EniI95ws10lLXxcgbN/LdnYD+asaRiHuINsw==

if [ "$(./bin/squawk --version 2>/dev/null)" != "squawk $squawk" ]; then
	command -v npm >/dev/null 2>&1 || {
		echo "squawk, which checks migrations, comes from npm, and this machine has no npm: install Node.js." >&2
		exit 1
	}
	case $(uname -sm) in
	'Linux x86_64') package=linux-x64 ;;
	'Linux aarch64') package=linux-arm64 ;;
	'Darwin arm64') package=darwin-arm64 ;;
	'Darwin x86_64') package=darwin-x64 ;;
	*)
		echo "there is no squawk for $(uname -sm)" >&2
		exit 1
		;;
	esac
	echo "Fetching squawk $squawk into ./bin."
	mkdir -p bin
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	(cd "$scratch" && npm pack --silent "@squawk-cli/$package@$squawk" >/dev/null)
	archive=$scratch/squawk-cli-$package-$squawk.tgz
	if [ "$package" = linux-x64 ] && [ "$(openssl dgst -sha512 -binary "$archive" | openssl base64 -A)" != "$squawk_linux_x64" ]; then
		echo "npm's squawk $squawk is not the file that was looked at: not installed." >&2
		exit 1
	fi
	tar -xzf "$archive" -C "$scratch" package/bin/squawk
	mv "$scratch/package/bin/squawk" bin/squawk
fi
