# Everything starts here: `make` lists what can be done. Assumed: make, git, ca-certificates and Debian's python3.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules

PYTHON ?= python3
BIN := .venv/bin
HANDBOOK ?= ../shared/data/handbook/handbook_raw.parquet
CODE := deploy pipelines protos requirements services tests $(wildcard loadtests .ci)

# The environment is current while these files are what they were when it was made, whatever their dates say.
digest = $(shell cat $(1) | sha256sum | cut -c1-16)
SYSTEM := .cache/system-$(call digest,deploy/local/install.sh)
INSTALLED := .venv/installed-$(call digest,requirements/dev.txt requirements/install.py)
EDITABLE := .venv/editable-$(call digest,pyproject.toml)

# With Docker, the system's packages are in the images.
NEEDED := $(if $(filter compose,$(STACK))$(filter test-compose,$(MAKECMDGOALS)),,$(SYSTEM)) $(INSTALLED) $(EDITABLE)

# What shows or stops the stack installs nothing.
NOT_INSTALLED = { [ ! -x $(BIN)/headrace ] && echo "nothing is installed here, so nothing runs"; }

# A variable that is empty or 0 is off.
on = $(filter-out 0,$(strip $(1)))
DEMO_OPTIONS = $(if $(PIPELINE),--pipeline "$(PIPELINE)") $(if $(SOURCE),--source "$(SOURCE)") $(if $(EVENTS),--events "$(EVENTS)") \
  $(if $(call on,$(KEEP)),--keep) $(if $(call on,$(LOCKSTEP)),--lockstep) \
  $(if $(HANDBOOK_SPLIT),--handbook-split "$(HANDBOOK_SPLIT)") $(if $(STACK),--stack "$(STACK)")

##@ Use

.PHONY: demo
demo: setup ## Start the stack, replay a history through it, and report: PIPELINE=clicks for another
	@$(BIN)/headrace demo run $(DEMO_OPTIONS)

.PHONY: up
up: setup ## Start the stack without Docker and wait until it is ready
	@$(BIN)/python -m deploy.local up

.PHONY: down
down: ## Stop the stack; its data stays
	@$(NOT_INSTALLED) || $(BIN)/python -m deploy.local down

.PHONY: status
status: ## Show every program of the stack: state, ports, readiness
	@$(NOT_INSTALLED) || $(BIN)/python -m deploy.local status || [ $$? -eq 3 ]

.PHONY: logs
logs: ## Show the logs: PROGRAM=gateway for one, FOLLOW=1 to go on
	@$(NOT_INSTALLED) || $(BIN)/python -m deploy.local logs $(PROGRAM) $(if $(call on,$(FOLLOW)),--follow)

##@ Check

# Most integration tests wait for Kafka most of the time; those that kill it need the machine for themselves.
TEST_PROCESSES ?= 3

.PHONY: test
test: setup ## Run the unit, integration and end-to-end tests: TESTS=path for some, one at a time
ifdef TESTS
	@$(BIN)/pytest $(TESTS)
else
	@$(BIN)/pytest tests/unit tests/integration -m "not faults" --numprocesses=$(TEST_PROCESSES) --dist=loadfile
	@$(BIN)/pytest tests/integration -m faults
	@$(BIN)/pytest tests/end_to_end
endif

.PHONY: test-unit
test-unit: setup ## Run the unit tests
	@$(BIN)/pytest tests/unit

.PHONY: lint
lint: setup ## Check the code: ruff, formatting, mypy, import-linter
	@failed=; \
	for check in "ruff check" "ruff format --check" mypy "lint-imports --no-logo"; do \
	  echo "== $$check"; $(BIN)/$$check || failed="$$failed, $$check"; \
	done; \
	[ -z "$$failed" ] || { echo "failed: $${failed:2}" >&2; exit 1; }

.PHONY: check-handbook
check-handbook: setup ## Lockstep replay of the whole handbook data, held to the published features: HANDBOOK=file
	@test -f "$(HANDBOOK)" || { echo "$(HANDBOOK) is missing: name handbook_raw.parquet by HANDBOOK=file" >&2; exit 1; }
	@HEADRACE_HANDBOOK="$(dir $(HANDBOOK))" $(BIN)/pytest tests/handbook
	@$(MAKE) demo LOCKSTEP=1 HANDBOOK_SPLIT=2018-07-25 SOURCE="$(HANDBOOK)"
	@$(BIN)/python -m tests.handbook.published_features .run/demo/served.parquet "$(dir $(HANDBOOK))"

.PHONY: test-chaos
test-chaos: setup ## Kill and suspend the processes of the stack, for minutes: HEADRACE_CHAOS_SEED=n repeats a run
	@$(BIN)/python -m loadtests.environment mlflow-server
	@$(BIN)/pytest tests/chaos

.PHONY: test-mlflow
test-mlflow: setup ## Hold the registry to a real MLflow server that hangs and dies (installs the server once)
	@$(BIN)/python -m loadtests.environment mlflow-server
	@$(BIN)/pytest tests/registry

.PHONY: test-compose
test-compose: setup ## Build and start the compose stack, and run a small demo against it (needs Docker)
	@deploy/docker/test-compose.sh

.PHONY: bench-features
bench-features: setup ## Measure the feature engine beside its controls (15 min on a quiet machine): QUICK=1 to see that it works
	@$(BIN)/python -m loadtests.environment
	@$(BIN)/python -m loadtests.features $(if $(call on,$(QUICK)),--quick) $(if $(SOURCE),--source "$(SOURCE)")

.PHONY: bench-gateway
bench-gateway: setup ## Measure the gateway beside its controls (15 min on a quiet machine): QUICK=1 to see that it works
	@$(BIN)/python -m loadtests.environment bench-mlserver || echo "MLServer cannot be installed: its figures are left out"
	@$(BIN)/python -m loadtests.gateway $(if $(call on,$(QUICK)),--quick)

.PHONY: bench-converters
bench-converters: setup ## Measure River's models beside their ONNX files (15 min): QUICK=1 to see that it works
	@$(BIN)/python -m loadtests.learning.converters $(if $(call on,$(QUICK)),--quick)

.PHONY: bench-join
bench-join: setup ## Measure the join beside bare consuming and producing, and its store (5 min): QUICK=1 to see that it works
	@$(BIN)/python -m loadtests.learning.join $(if $(call on,$(QUICK)),--quick) $(if $(PENDING),--pending $(PENDING))

.PHONY: bench-learner
bench-learner: setup ## Measure the learner beside River's own loop (4 min): QUICK=1 to see that it works
	@$(BIN)/python -m loadtests.learning.learner $(if $(call on,$(QUICK)),--quick)

.PHONY: bench-swaps
bench-swaps: setup ## Measure label → traffic under half load (5 min on a quiet machine): QUICK=1 to see that it works
	@$(BIN)/python -m loadtests.learning.swaps $(if $(call on,$(QUICK)),--quick)

.PHONY: bench-quality
bench-quality: setup ## Quality of the fraud recipes on the handbook, day by day as in lockstep: HANDBOOK=file
	@$(BIN)/python -m loadtests.learning.quality --folder "$(dir $(HANDBOOK))"

.PHONY: check-river
check-river: setup ## Hold the learner, and then the whole path, to the rows of River's own benchmark page (30 min)
	@$(BIN)/python -m loadtests.learning.benchmarks
	@$(BIN)/python -m loadtests.learning.benchmarks --whole

.PHONY: bench-sharded
bench-sharded: setup ## Measure learners that share a stream beside one (2 min): QUICK=1 to see that it works
	@$(BIN)/python -m loadtests.learning.sharded $(if $(call on,$(QUICK)),--quick) $(if $(SOURCE),--source "$(SOURCE)")

.PHONY: soak-gateway
soak-gateway: setup ## Ten minutes at 80 % of the gateway's top rate: does its memory grow? QUICK=1 for half a minute
	@$(BIN)/python -m loadtests.gateway.soak $(if $(call on,$(QUICK)),--quick)

.PHONY: check-fresh
check-fresh: ## Run `make demo` and `make test` in a new, minimal Debian 12 (needs root and mmdebstrap)
	@deploy/local/check-fresh.sh

##@ Change

.PHONY: setup
setup: $(NEEDED) ## Install what is missing: Debian packages (as root), then .venv from the lock

$(SYSTEM):
	@PYTHON="$(PYTHON)" deploy/local/install.sh
	@mkdir -p $(@D) && rm -f .cache/system-* && touch $@

$(INSTALLED): | $(filter $(SYSTEM),$(NEEDED))
	@$(PYTHON) requirements/install.py packages
	@rm -f .venv/installed-* && touch $@

$(EDITABLE): $(INSTALLED)
	@$(PYTHON) requirements/install.py headrace
	@rm -f .venv/editable-* && touch $@

.PHONY: proto
proto: setup ## Generate services/headrace/v1 from protos/
	@$(BIN)/python protos/generate.py

.PHONY: lock
lock: setup ## Write requirements/*.txt from pyproject.toml: UPGRADE=1 for newer versions
	@UPGRADE="$(UPGRADE)" requirements/lock.sh

.PHONY: format
format: setup ## Put imports in order and format the code
	@$(BIN)/ruff check --quiet --select I --fix
	@$(BIN)/ruff format

.PHONY: clean
clean: down ## Stop the stack and remove its data, reports and caches; downloads and .venv stay
	@rm -rf .run .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '%s\n' "" \
	  "For demo: PIPELINE=name        a declaration in pipelines/, or the path of one (fraud)" \
	  "          EVENTS=n             how many events (100,000)" \
	  "          SOURCE=file          a .parquet, .csv or .jsonl in place of the simulation; README.md has the columns" \
	  "          LOCKSTEP=1           step by step, reproducible to the last digit" \
	  "          HANDBOOK_SPLIT=day   quality over the handbook's test days, such as 2018-07-25" \
	  "          KEEP=1               leave the stack up" \
	  "          STACK=compose        use the stack of docker-compose.yml" \
	  "For check-fresh: STEPS=\"demo test\", EVENTS=n, CACHE=directory, KEEP_ROOT=1; its script says what they do" \
	  "" "The first run of any of them installs what it needs, and says so before it does."
