# bawn's build. `make run` and `make test` do all the set-up on a fresh Debian
# or Ubuntu machine; everything else is for work on bawn itself.

SHELL   := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
PREFIX  ?= $(if $(filter 0,$(shell id -u)),/usr/local,$(HOME)/.local)
ARCH    := $(shell dpkg --print-architecture 2>/dev/null || echo amd64)
AGENT   := internal/initramfs/agent/bawn-guest-linux-$(ARCH)
SOURCES := $(shell find cmd internal -name '*.go' -not -name '*_test.go') go.mod go.sum

# The tests of real machines that share one cache of images between runs.
TESTCACHE ?= $(HOME)/.cache/bawn-test

export CGO_ENABLED = 0

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

.PHONY: setup
setup: ## Install what is missing to build, run and test
	@scripts/setup

.PHONY: build
build: bin/bawn ## Build bin/bawn, one static file

$(AGENT): $(SOURCES)
	@mkdir -p $(@D)
	$$(scripts/go) build -trimpath -ldflags '-s -w -X main.release=$(VERSION)' -o $@ ./cmd/bawn-guest

bin/bawn: $(SOURCES) $(AGENT)
	@mkdir -p $(@D)
	$$(scripts/go) build -trimpath -ldflags '-s -w -X main.release=$(VERSION)' -o $@ ./cmd/bawn

.PHONY: run
run: setup ## Install what is missing, build, and run a real example in a sandbox
	@$(MAKE) --no-print-directory build
	@scripts/example

.PHONY: test
test: setup ## Install what is missing and run all tests, as this user and (when root) as an ordinary one
	@$(MAKE) --no-print-directory build
	@scripts/test

.PHONY: test-kvm
test-kvm: setup build ## Run tests of real machines under KVM, in an emulated host (TESTS=regexp)
	@scripts/host kvm $(if $(TESTS),'$(TESTS)')

.PHONY: test-hosts
test-hosts: setup build ## Run sandboxes under unusual conditions of the host: full disks, odd homes, no namespaces, loss of power (root; TESTS='case ...')
	@scripts/host hosts $(TESTS)

.PHONY: test-arm64
test-arm64: setup ## Run bawn on an emulated host of arm64, under KVM (TESTS='case ...')
	@scripts/host arm64 $(TESTS)

# VMTEST runs tests of real machines as this user. Those below are too slow for every run: each is
# skipped unless its variable is set.
VMTEST = BAWN=$(CURDIR)/bin/bawn BAWN_TEST_CACHE=$(TESTCACHE) $$(scripts/go) test -tags vm ./internal/vmtest -count=1 -v

.PHONY: test-agents
test-agents: setup build ## Let real agents from npm do a whole task in a sandbox, for a stand-in of the model
	BAWN_TEST_AGENT=1 $(VMTEST) -timeout 40m -run '^(TestClaudeCode|TestOpenCode)$$'

.PHONY: test-build
test-build: setup build ## Run the tests of bawn image build, of features and of compose files in real machines, which are too slow for every run
	BAWN_TEST_BUILD=1 $(VMTEST) -timeout 60m -run '^TestImageBuild|^TestFeatures|^TestComposeDevcontainer'

.PHONY: test-programs
test-programs: setup build ## Install real programs (git, npm, vite, postgres, cargo and others) in a sandbox: they work on a share, and clients of many makers with a secret (TESTS=kind/case)
	BAWN_TEST_PROGRAMS=1 $(VMTEST) -timeout 5h -run '^TestPrograms(Inspected)?$$$(if $(TESTS),/$(TESTS))'

.PHONY: check
check: $(AGENT) ## The quick half of CI: lint, vet, licences, arm64, unit tests (no set-up)
	@scripts/check

.PHONY: unit
unit: $(AGENT) ## Run the tests that need no machine
	$$(scripts/go) test ./...

.PHONY: race
race: $(AGENT) ## Run the unit tests under the race detector
	CGO_ENABLED=1 $$(scripts/go) test -race ./...

.PHONY: fuzz
fuzz: ## Fuzz each parser of hostile bytes for a short while (FUZZTIME=20s)
	@scripts/fuzz

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what bawn calls, if the database is reachable
	@scripts/vuln

.PHONY: licenses
licenses: ## Check the licences of all that is linked into bawn
	@scripts/licenses check

.PHONY: bench
bench: setup build ## Measure, and print ratios within one run
	@scripts/bench

.PHONY: picture
picture: setup build ## Record a real session again and draw it as docs/session.svg
	@scripts/picture

.PHONY: lint
lint: ## Run golangci-lint
	@scripts/lint

.PHONY: install
install: build ## Put bawn on the PATH (PREFIX=$HOME/.local, or /usr/local as root)
	install -D -m 0755 bin/bawn $(DESTDIR)$(PREFIX)/bin/bawn
	@case ":$$PATH:" in *":$(PREFIX)/bin:"*) ;; *) echo "note: $(PREFIX)/bin is not on your PATH" ;; esac

.PHONY: dist
dist: ## Build a release of HEAD twice into dist/: archives, packages, SBOMs, checksums
	@scripts/dist

.PHONY: dist-test
dist-test: ## Install dist/'s package in fresh Debian 12 and 13 roots and run a sandbox there (root)
	@scripts/dist-test

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist internal/initramfs/agent/bawn-guest-*
