# What there is to type; `make` alone lists it. Arguments of the program go into
# ARGS (make run ARGS="--listen 127.0.0.1:9000"), those of `go test` into TESTFLAGS.

.DEFAULT_GOAL := help

# One thing at a time, even under -j: the steps of ci build on each other, and
# their output is read by people.
.NOTPARALLEL:

BINARY := bin/payments

# Nothing of ours needs cgo. Said once, so that linters and tests share what they
# compile.
export CGO_ENABLED := 0

# Recursive, so that only a build asks git. A checkout that git will not speak
# about (no git, or another owner's) builds all the same.
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Without cgo the binary runs on any Linux, whatever its C library; -trimpath keeps
# our folders out of stack traces; the version comes from above, not from Go's own
# look at git, which stops the build where git will not answer.
.PHONY: build
build: ## Build bin/payments
	go build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o $(BINARY) ./cmd/payments

# PostgreSQL is only needed here where DATABASE_URL names no server. exec puts the
# program in the place of the shell, so a signal reaches it and not something that
# would die without passing it on.
.PHONY: run
run: build ## Start everything on this machine (ARGS="…")
	@./scripts/install-postgres.sh --unless DATABASE_URL
	@exec ./$(BINARY) dev $(ARGS)

# The black-box tests under test/ start the binary, so it is built first.
.PHONY: test
test: postgres build ## Run all tests
	@./scripts/install-chromium.sh --tell
	go test $(TESTFLAGS) ./...

# The console's plans against a tenth of that are part of every test; this fills a database
# for a minute and a half first.
.PHONY: test-million
test-million: postgres ## Hold the console's plans against a million payments
	ONCEPAY_PLAN_ROWS=1000000 go test -count=1 -timeout 20m -v -run TestNoStatementOfTheConsoleScansALargeTable ./internal/transactions

# The same, but what is tested reaches its databases through PgBouncer in transaction
# mode, as a role that can do no more than it must (internal/pgtest).
.PHONY: test-pgbouncer
test-pgbouncer: postgres build ## Run all tests behind PgBouncer, as the least role
	PGTEST_PGBOUNCER=1 go test -count=1 $(TESTFLAGS) ./...

# The race detector is the one thing here that needs a C compiler. What is under test/,
# and what drives a browser, has to do with programs that are built without it, and only
# waits longer with it; so does the console, whose handlers share nothing, and whose tests
# sign people in, which is slow on purpose. One package has most of the tests; on a busy machine it takes
# longer than Go allows by itself.
.PHONY: race
race: postgres build ## Run all tests, the product's own under the race detector
	@./scripts/install-chromium.sh --tell
	CGO_ENABLED=1 go test -race -timeout 20m $(TESTFLAGS) $$(go list ./... | grep -v -e /test/ -e /internal/console -e /sdk/js -e /sdk/go/conformance)
	go test $(TESTFLAGS) ./internal/console ./test/... ./sdk/js/... ./sdk/go/conformance

# The campaign builds the product itself, with its fault points, and each mutant.
FAULTS := bin/payments-faults
BUILD_FAULTS := go build -trimpath -buildvcs=false -o $(FAULTS) ./test/faults

.PHONY: prove
prove: postgres ## Break everything, let the provider's ledger judge (ARGS="…")
	$(BUILD_FAULTS)
	@exec ./$(FAULTS) $(ARGS)

.PHONY: mutants
mutants: postgres ## See that the campaign catches every deliberate defect (ARGS="…")
	$(BUILD_FAULTS)
	@exec ./$(FAULTS) --mutants --parallel 6 $(ARGS)

BENCH := bin/payments-bench

# Not a step of ci: what it says of a machine that does other things is not worth much.
# pgbench comes with most systems' servers; the program says where to find it if not.
.PHONY: bench
bench: ## Measure the API against pgbench on the same database (ARGS="…")
	@./scripts/install-postgres.sh
	go build -trimpath -buildvcs=false -o $(BENCH) ./test/bench
	@exec ./$(BENCH) $(ARGS)

# What is built is committed, so that nobody needs it to build the product; a test builds
# it again and compares.
.PHONY: sdk
sdk: ## Build the checkout's scripts after a change in sdk/js/src
	go run ./sdk/js/build

.PHONY: lint
lint: tools ## Run the linters
	./bin/golangci-lint run ./...
	./bin/squawk migrations/*.up.sql

# Cheap and telling steps first. -count=1: a cached result is nobody's proof.
.PHONY: ci
ci: TESTFLAGS := -count=1
ci: ARGS :=
ci: export ONCEPAY_REQUIRE_CHROMIUM := 1
ci: postgres chromium tools tidy-check format-check vet build lint race prove-ci mutants ## Check everything, from nothing
	@echo "ci: all checks passed"

# Not a step of ci: it wants to be root, and builds Helm once. It tells what it could
# not check.
.PHONY: check-deploy
check-deploy: ## Hold the files in deploy/ against what will read them
	./scripts/check-deploy.sh

.PHONY: clean
clean: ## Remove the programs that were built; tools and data stay
	rm -f $(BINARY) $(FAULTS) $(BENCH)

# The steps of the targets above, in their order.

.PHONY: postgres chromium tools tidy-check format-check vet prove-ci
postgres:
	@./scripts/install-postgres.sh
	@./scripts/install-pgbouncer.sh
	@./scripts/install-faketime.sh

chromium:
	@./scripts/install-chromium.sh

tools:
	@./scripts/install-tools.sh

tidy-check:
	go mod tidy -diff

format-check:
	@echo 'gofmt -l .'
	@unformatted=$$(gofmt -l .) && if [ -n "$$unformatted" ]; then echo "$$unformatted"; exit 1; fi

vet:
	go vet ./...

# The fault points are built under a tag that no other step has.
prove-ci:
	go vet -tags faultpoints ./...
	$(BUILD_FAULTS)
	./$(FAULTS) --duration 60s --at-least 4
