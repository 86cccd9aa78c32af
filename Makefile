# `make help` lists the targets. With CI=true a missing tool is an error; without,
# the check that needs it says so and is left out.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# Every module of go.work, the root first.
MODULES := $(shell sed -n 's/^[[:space:]]*\(\.[^[:space:]]*\).*/\1/p' go.work)
# Each is built on its own go.mod, as its users build it; go.work is for editors
# and for `go run ./examples/…`.
export GOWORK := off
# Where `make tools` puts them.
export PATH := $(or $(shell go env GOBIN),$(shell go env GOPATH)/bin):$(PATH)

# How many processors the root module's tests are shown, one after the other.
CPUS ?= 1,2,8
# How long each fuzz target runs.
FUZZTIME ?= 5s
# Statement coverage of the root package that its own tests must reach, in percent.
COVER ?= 95
# A packed copy of the Go vulnerability database, for a machine that cannot reach
# the public one; empty means that.
VULNDB ?=
# Flags of the benchmarks; -list names scenarios and columns.
BENCH ?=

# $(call each_module,COMMAND) runs COMMAND in every module, to the first that fails.
each_module = for m in $(MODULES); do echo "$$m: $(1)"; (cd "$$m" && $(1)); done
# $(call need,TOOL) ends the line of a recipe if TOOL is missing.
need = command -v $(1) >/dev/null || { echo "NOT CHECKED: $(1) is not installed" >&2; exit $(if $(CI),1,0); }

##@ Tests

.PHONY: test
test: test-386 test-nested test-root ## all tests of every module

# 8 is more than most machines have: goroutines are then taken off a processor
# in places where they otherwise never are.
.PHONY: test-root
test-root: ## the root module's, -race, on 1, 2 and 8 processors (CPUS)
	go test -race -shuffle=on -count=1 -cpu $(CPUS) ./...

.PHONY: test-nested
test-nested: ## the nested modules', -race
	@for m in $(filter-out .,$(MODULES)); do (set -x; cd "$$m"; go test -race -shuffle=on -count=1 ./...); done

# On 386 a 64-bit atomic can be misaligned and an int too small. Its programs run
# on an amd64 Linux as they are; elsewhere they are vetted only.
.PHONY: test-386
test-386: ## go vet for a 32-bit processor, and internal/'s tests on it
	GOOS=linux GOARCH=386 go vet ./...
	if [ "$$(go env GOHOSTOS)/$$(go env GOHOSTARCH)" = linux/amd64 ]; then \
	  GOOS=linux GOARCH=386 go test -shuffle=on -count=1 ./internal/...; fi

.PHONY: cover
cover: ## statement coverage of the root package by its tests, 95 % (COVER) or more
	scripts/cover $(COVER)

.PHONY: fuzz
fuzz: ## every fuzz target of every module, 5s each (FUZZTIME)
	scripts/fuzz $(FUZZTIME) $(MODULES)

##@ Checks

.PHONY: lint
lint: lint-go lint-mod lint-scripts ## all that can be said without running the code

.PHONY: lint-go
lint-go: ## go vet, go fix, and golangci-lint with its formatters
	@$(call each_module,go vet ./...)
	@$(call each_module,go fix -diff ./...)
	@$(call need,golangci-lint); golangci-lint config verify; \
	  $(call each_module,golangci-lint fmt --diff); \
	  $(call each_module,golangci-lint run ./...)

.PHONY: lint-mod
lint-mod: ## go.mod says what is used and no more, go.work knows every module
	@$(call each_module,go mod tidy -diff)
	@$(call each_module,go mod verify)
	@diff <(find . -name go.mod | sed 's,/go.mod,,' | sort) <(printf '%s\n' $(MODULES) | sort) || \
	  { echo 'go.work (>) does not list the modules that are there (<)' >&2; exit 1; }

.PHONY: lint-scripts
lint-scripts: ## shellcheck and actionlint
	@$(call need,shellcheck); shellcheck .ci/run scripts/*
	@$(call need,actionlint); actionlint

.PHONY: vuln
vuln: ## known vulnerabilities that our code reaches (VULNDB)
	@$(call need,govulncheck); scripts/vuln "$(VULNDB)" $(MODULES)

.PHONY: readme
readme: ## the complete programs in README.md compile and print what it says
	scripts/readme

.PHONY: as-a-user
as-a-user: ## go get the root module as others will, and see what came with it
	scripts/as-a-user

##@ Speed

.PHONY: bench
bench: ## the benchmarks, beside the peers (BENCH='-run open -passes 9')
	cd benchmarks && go run ./cmd/bench $(BENCH)

.PHONY: bench-check
bench-check: ## fails where a budget of docs/design.md is not kept; wants a quiet machine
	cd benchmarks && go run ./cmd/bench -check

##@ Housekeeping

.PHONY: fix
fix: ## format, and let go fix and golangci-lint mend what they can
	@$(call each_module,go fix ./...)
	@$(call each_module,golangci-lint fmt)
	@$(call each_module,golangci-lint run --fix ./...)

.PHONY: tools
tools: ## install the Go tools at the versions in .ci/tools
	scripts/tools

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
