# What a person types. Everything else is a command of .venv/bin/ledgerline.

# The first that runs and is new enough: being on PATH is not enough, a version manager leaves names there that do not run.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
UV = $(or $(shell uv --version >/dev/null 2>&1 && echo uv),$(BIN)/uv)

# How many processes share the tests. A file goes to one of them as a whole, with the servers that it starts; the
# order is that of the folders, in which what takes longest does not come last.
WORKERS ?= auto

# The certificates of the machine, as pip and curl use them: company networks have their own.
export UV_SYSTEM_CERTS ?= true

.PHONY: help run dev agent test test-stack check bench stack-secrets stack stack-down lock upgrade docs clean

help:  ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/installed  ## Run the jobs that pyproject.toml names, up to a model in production
	@$(BIN)/ledgerline run

dev: .venv/installed-ui  ## Start Dagster (:3000), MLflow (:5000) and serving (:8080); Ctrl-C ends all
	@$(BIN)/ledgerline dev

agent: .venv/installed-agent  ## Install what `ledgerline ask` and the analyst's assets need

test: .venv/installed-dev .venv/installed-mlserver  ## Run all tests, but for those of the stack
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not stack"

# Exit status 3: there is no Go to build them with. The tests then say that they are skipped, and why.
test-stack: .venv/installed-dev  ## Test the configurations of docker/ with the real Jaeger, collector, MLflow, PostgreSQL
	@docker/servers/build >/dev/null || test $$? -eq 3
	@$(BIN)/pytest tests/integration/stack

check: .venv/installed-dev  ## Check format, lint, types and the direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	@$(BIN)/lint-imports

bench: .venv/installed-bench  ## Measure what the README claims, beside what it is compared with
	@docker/servers/build >/dev/null || test $$? -eq 3
	@$(BIN)/python -m benchmarks

stack-secrets:  ## Write random passwords for the containers to docker/.env, unless it is there
	@docker/secrets

stack: stack-secrets  ## Build and start PostgreSQL, MLflow, Dagster, serving, Jaeger in containers (docs/how-to/deploy.md)
	@$(COMPOSE) up --detach --build --wait

stack-down:  ## End the containers; what they keep stays
	@$(COMPOSE) down

COMPOSE := docker compose --file docker/compose.yaml

lock: .venv/installed-dev  ## Write the lock files for what pyproject.toml asks, with the same versions
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

# Bytecode is compiled now, so that the first run does not have to; not that of the libraries' own tests.
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
