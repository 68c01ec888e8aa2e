# The commands of development. Everything else is a command of .venv/bin/ledgerline.

# The first Python that runs and is new enough: version managers leave names on PATH that do not run.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
UV = $(or $(shell uv --version >/dev/null 2>&1 && echo uv),$(BIN)/uv)

# The number of test processes. Each file runs in one process, with the servers that it starts. Files run in the order
# of folders, so that the longest ones do not run last.
WORKERS ?= auto

# Use the machine's certificates, as pip and curl do: company networks have their own.
export UV_SYSTEM_CERTS ?= true

.PHONY: help run dev agent test test-stack check bench stack-secrets stack stack-down lock upgrade docs clean

help:  ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/installed  ## Run the jobs that pyproject.toml names, up to a model in production
	@$(BIN)/ledgerline run

dev: .venv/installed-ui  ## Start Dagster (:3000), MLflow (:5000) and serving (:8080); Ctrl-C ends all of them
	@$(BIN)/ledgerline dev

agent: .venv/installed-agent  ## Install what `ledgerline ask` and the analyst's assets need

test: .venv/installed-dev .venv/installed-mlserver  ## Run all tests except those of the stack
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not stack"

# Exit status 3: Go is not installed. The tests then report that they are skipped.
test-stack: .venv/installed-dev  ## Test the stack of docker/ with real programs: Jaeger, collector, MLflow, PostgreSQL
	@docker/servers/build >/dev/null || test $$? -eq 3
	@$(BIN)/pytest tests/integration/stack

check: .venv/installed-dev  ## Check format, lint, prose, types and the direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python -m checks.prose
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	@$(BIN)/lint-imports

bench: .venv/installed-bench  ## Measure the numbers in docs/measurements.md (python -m benchmarks --help lists the scenarios)
	@docker/servers/build >/dev/null || test $$? -eq 3
	@$(BIN)/python -m benchmarks

stack-secrets:  ## Write random passwords for the containers to docker/.env, unless the file exists
	@docker/secrets

stack: stack-secrets  ## Build and start PostgreSQL, MLflow, Dagster, serving, Jaeger in containers (docs/how-to/deploy.md)
	@$(COMPOSE) up --detach --build --wait

stack-down:  ## Stop the containers; their volumes stay
	@$(COMPOSE) down

COMPOSE := docker compose --file docker/compose.yaml

lock: .venv/installed-dev  ## Write the lock files after a change in pyproject.toml; other versions stay
	@$(BIN)/python requirements/lock.py --uv $(UV)

upgrade: .venv/installed-dev  ## Write the lock files with the newest versions
	@$(BIN)/python requirements/lock.py --uv $(UV) --upgrade

docs: .venv/installed-docs  ## Build the documentation and show it at http://127.0.0.1:8000 (DOCS_PORT)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:$(DOCS_PORT)

DOCS_PORT ?= 8000

clean:  ## Delete the virtual environment (the state in .ledgerline stays)
	rm -rf .venv

# Each lock file names the layers that it is installed on top of.
CORE := requirements/shared.lock requirements/core.lock requirements/build.lock
UI := $(CORE) requirements/serving.lock requirements/ui.lock
AGENT := $(CORE) requirements/agent.lock
DOCS := $(CORE) requirements/docs.lock
DEV := $(UI) $(AGENT) $(DOCS) requirements/pipelines.lock requirements/dev.lock

.venv/installed: $(CORE) pyproject.toml Makefile | .venv/bin/python
	$(call install,core build)

.venv/installed-ui: $(UI) pyproject.toml Makefile | .venv/bin/python
	$(call install,ui build)
	@touch .venv/installed

.venv/installed-agent: $(AGENT) .venv/installed
	$(call install,agent build)

.venv/installed-docs: $(DOCS) .venv/installed
	$(call install,docs build)

.venv/installed-dev: $(DEV) pyproject.toml Makefile | .venv/bin/python
	$(call install,dev)
	@touch .venv/installed .venv/installed-ui .venv/installed-agent .venv/installed-docs

.venv/installed-bench: requirements/bench.lock .venv/installed-dev
	$(call install,bench)

# MLServer, whose responses tests compare with those of serving, has no release for Python 3.13: its tests are
# skipped there.
.venv/installed-mlserver: requirements/mlserver.lock .venv/installed-dev
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
		echo "Installing $< …"; \
		$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv/mlserver && \
		$(UV) pip install --quiet --python .venv/mlserver/bin/python --require-hashes -r $<; \
	fi
	@touch $@

# Compile bytecode now, so that the first run does not; the libraries' own tests are left out.
define install
	@$(UV) --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "Installing the lock files $(1) …"
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes $(1:%=-r requirements/%.lock)
	@$(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests/' .venv/lib || true
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
endef

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Ledgerline needs Python 3.11, 3.12 or 3.13, and none is on PATH. Set PYTHON=/path/to/one."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Ledgerline needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) -V). Set PYTHON=/path/to/one."; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Install the package python3-venv, then try again."; exit 1; }
