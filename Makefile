# Two commands do all the set-up: `make bootstrap` and `make test`. Everything else is for developers.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

.PHONY: help bootstrap test test-real test-tools bench-build bench-clean lint types contracts wheel bench bench-machines bench-k3s bench-kills lock docs clean
help: ## Say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/.runtime: requirements.lock pyproject.toml
	@scripts/venv $(PYTHON) $(VENV) requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@scripts/venv $(PYTHON) $(VENV) requirements-dev.lock
	@touch $@

bootstrap: $(VENV)/.runtime ## Make .venv, install fo, and bootstrap the embedded lab cluster
	$(BIN)/fo bootstrap --cluster lab

test: $(VENV)/.dev ## Install what the tests need and run all of them
	$(BIN)/python -m pytest

test-real: bench-build ## The whole road and the contracts against real servers (root; bench/README.md)
	scripts/test-real $(BIN)/python

test-tools: $(VENV)/.dev ## Other people's tools against the lab: Ansible, a Go client, curl (from PyPI and the Go proxy)
	scripts/tools-env $(PYTHON) build/tools
	FO_TOOLS=build/tools $(BIN)/python -m pytest tests/contract/test_lab_pve_tools.py tests/contract/test_lab_pve_proxmoxer_docs.py

bench-build: $(VENV)/.dev ## Build what the bench lacks: minutes the first time, nothing after
	$(BIN)/python -m bench check
	$(BIN)/python -m bench build

bench-clean: $(VENV)/.dev ## End the bench and remove all that a killed run left behind
	$(BIN)/python -m bench clean

lint: $(VENV)/.dev ## Style and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

contracts: $(VENV)/.dev ## Who may import whom
	$(BIN)/lint-imports --config pyproject.toml

wheel: $(VENV)/.dev ## Build the wheel, install it into an empty venv, try it
	@scripts/wheel $(PYTHON) $(BIN)

bench: $(VENV)/.dev ## Print the numbers of the README
	$(BIN)/python bench/road.py
	$(BIN)/python -m bench.real_numbers

bench-machines: $(VENV)/.dev ## Print the numbers of the machine stage
	$(BIN)/python bench/machines.py

bench-k3s: $(VENV)/.dev ## Print the numbers of the K3s stage
	$(BIN)/python -m bench.k3s_numbers

bench-kills: $(VENV)/.dev ## Kill fo two hundred times beside strangers' VMs
	$(BIN)/python bench/kills.py

docs: $(VENV)/.dev ## Write the generated reference pages anew
	$(BIN)/python scripts/reference.py

lock: ## Resolve dependencies anew, with hashes and no addresses (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml --group build -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml --group build --group dev -c requirements.lock -o requirements-dev.lock

clean: ## Remove what was built; the lab and its state stay
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
