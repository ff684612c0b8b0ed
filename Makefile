# make without a target lists the targets.

GO        ?= go
DEMO      ?= --for 30s
FUZZTIME  ?= 3s
PG        ?= 14 15 16 17 18
KAFKA     ?= 3.9.1 4.4.0
CRASH     ?= -seeds 100
IMAGE     ?= cdc
CONTAINER ?= $(shell command -v docker || command -v podman || echo docker)

# .ci/run adds up what all runs have counted in this file.
ifdef CDC_TEST_TOTALS
TOTALS = -totals $(CDC_TEST_TOTALS)
endif
TESTRUN = $(GO) run ./internal/testrun $(TOTALS)

# A package that works with a race detector, two cores and real servers takes a while.
LIMIT = -timeout 20m

# Packages whose tests use a database or a broker of the kit, and the kit itself.
using = $(addprefix ./,$(sort internal/cdctest/ $(dir $(shell grep -rlwE --include=*_test.go '$(1)' cmd internal deploy))))
PG_PACKAGES    = $(call longest,$(filter-out $(SQL_FREE),$(call using,cdctest.Database|cdctest.Postgres|cdctest.PrivatePostgres)))
KAFKA_PACKAGES = $(call longest,$(call using,cdctest.Kafka|cdctest.PrivateKafka|cdctest.ProxiedKafka|cdctest.LossyKafka|cdctest.RestrictedKafka))

# The longest first: none of them is left to run alone at the end.
LONGEST = ./internal/pipeline/ ./internal/source/ ./internal/sink/
longest = $(filter $(LONGEST),$(1)) $(filter-out $(LONGEST),$(1))

# Packages that reach a database through others alone, or only to quote for it: one
# version tells what there is to tell. Those of quorum need three nodes of Kafka,
# those of rights its authorizer.
SQL_FREE = ./cmd/cdc/ ./internal/api/ ./internal/eventpipe/ ./internal/history/ ./internal/quorum/ ./internal/rights/

# Tests that are about one side alone: those that put Postgres down, back or into
# other hands are the same on every broker, those that damage topics or take the
# broker away on every Postgres. make test runs all.
OF_POSTGRES = -skip '^Test(G6(Server|Slot|Publication|RowFilter|TableTaken|AnotherServer)|Case(008|118|120|124|152|153|155|157|163|167))'
OF_KAFKA    = -skip '^Test(G4|G6(Topic|Progress)|Case(087|088|097|115|116|120Kafka|126|127|179|180|183|185|186|187|188|189|190))'

.DEFAULT_GOAL := help
.PHONY: help build test demo check lint race fuzz test-kafka test-pg crash bench fmt clean image

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

build: ## bin/cdc, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/cdc ./cmd/cdc

test: ## go test ./... on a real PostgreSQL and a broker that speaks Kafka's protocol
	@echo "tests need PostgreSQL's server programs: they take those installed, else fetch PostgreSQL 17 once (15 MB, said when it happens)"
	@$(TESTRUN) ./...

demo: build ## PostgreSQL, broker, a university under load; verified at the end (DEMO='--for 5m')
	./bin/cdc demo $(DEMO)

check: lint race fuzz ## format, vet, staticcheck, go.mod, race detector, fuzz targets

lint: ## what check does before the tests
	@unformatted=$$(gofmt -l cmd internal deploy $(wildcard bench)); if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags failpoint ./cmd/cdc
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff

race: ## all tests with the race detector
	@$(TESTRUN) -race $(LIMIT) ./...

fuzz: ## every fuzz target for FUZZTIME
	@$(TESTRUN) -fuzz $(FUZZTIME) ./...

test-kafka: ## the tests that use a broker, on Apache Kafka 3.9.1 and 4.4.0, three nodes of the latter (KAFKA=4.4.0)
	@echo "Apache Kafka needs Java 17; its jars are fetched once (50 MB a version, said when it happens)"
	@status=0; for version in $(KAFKA); do \
		echo "== Apache Kafka $$version"; \
		case $$version in 4.*) nodes=./internal/quorum/;; *) nodes=;; esac; \
		CDC_TEST_KAFKA=$$version $(TESTRUN) $(LIMIT) $(OF_POSTGRES) $$nodes $(KAFKA_PACKAGES) || status=1; \
	done; exit $$status

test-pg: ## the tests that use a database, on PostgreSQL 14 to 18 (PG='14 18')
	@echo "versions that are not installed are fetched once (15 MB each, said when it happens)"
	@status=0; for version in $(PG); do \
		echo "== PostgreSQL $$version"; \
		CDC_TEST_PG=$$version $(TESTRUN) $(LIMIT) $(OF_KAFKA) $(PG_PACKAGES) || status=1; \
	done; exit $$status

crash: ## workload, faults and a checker over the real binary, seed by seed (CRASH='-seeds 2000')
	@$(TESTRUN) -tags failpoint -run '^TestFailpoint$$' ./cmd/cdc
	@$(GO) run ./internal/crash $(CRASH)

bench: ## mode: cdc against pg_recvlogical, mode: events against INSERT (BENCH='-what events'); allocations
	$(GO) test -run '^$$' -bench SocketToBatch -benchtime 200000x ./internal/pipeline
	$(GO) run ./bench $(BENCH)

fmt: ## format
	gofmt -w cmd internal deploy $(wildcard bench)

clean: ## remove what was built (the cache of fetched programs stays)
	rm -rf bin

image: ## a container image (CONTAINER=podman)
	$(CONTAINER) build -t $(IMAGE) .
