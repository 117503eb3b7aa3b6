# `make` lists what there is to do. Go 1.26 and a C compiler are needed: SQLite
# and librdkafka are C. Everything else the tests need, .ci/testenv finds or installs.

GO       ?= go
CC       ?= cc
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 10s

export CGO_ENABLED = 1

LDFLAGS  = -X github.com/pat-authenticate/patauth/provider.version=$(VERSION)
tool     = $(GO) tool -modfile=tools/go.mod
gotest   = $(tool) gotestsum --format standard-quiet --
# The rooms in which goroutines meet over one row, one connection or one cache.
crowded  = ./storage/... ./provider/... ./tasks/... ./lis/...

.DEFAULT_GOAL = help
.PHONY: help build run test test-relying test-go test-race test-tools lint bench fuzz clean compiler

help: ## List these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

build: compiler ## Build bin/patauth
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/patauth ./cmd/patauth

run: build ## Build, then run everything in one process: bin/patauth dev
	bin/patauth dev

test: build ## Run every test, with PostgreSQL, Redis, Chromium and Node.js; says what it skipped
	PATAUTH_TEST_RELYING=yes .ci/testenv $(MAKE) -k --no-print-directory test-go test-race test-tools

test-relying: build ## Run the relying parties of others alone: Node.js, Python, Java, Apache, Go, oidc-agent
	PATAUTH_TEST_RELYING=yes PATAUTH_TEST_BINARY='$(CURDIR)/bin/patauth' .ci/testenv sh -c 'cd tools && $(GO) test -count=1 -v ./relying'

test-go:
	$(GO) vet ./...
	$(gotest) ./...

test-race:
	$(gotest) -race -short $(crowded)

test-tools: build
	cd tools && PATAUTH_TEST_BINARY='$(CURDIR)/bin/patauth' $(GO) tool gotestsum --format standard-quiet -- ./...

lint: compiler ## Check formatting, go vet, staticcheck and the chart
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt these files:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(tool) staticcheck ./...
	cd tools && $(GO) vet ./... && $(GO) test -run TestLint ./chart

bench: compiler ## Run every benchmark
	.ci/testenv $(GO) test -run '^$$' -bench . -benchmem ./...

fuzz: compiler ## Fuzz each parser for FUZZTIME (10s)
	@git grep -hoE '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' >/dev/null || { echo "there is no fuzz target"; exit 1; }
	@git grep -oE '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' | sed 's|/[^/]*:func | |' | sort -u | while read -r dir target; do \
		echo "== $$dir $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "./$$dir" || exit 1; \
	done

clean: ## Remove what was built, and the data of patauth dev
	rm -rf bin .patauth

compiler:
	@command -v $(CC) >/dev/null || { \
		echo "patauth needs a C compiler for SQLite and librdkafka: apt-get install gcc libc6-dev (or set CC)"; exit 1; }
