# Everything here works in a fresh clone with only python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint type bench bench-quick bench-node soak docs clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## Make .venv with modelpack and everything its tests need

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "modelpack needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "python3 cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

demo: setup ## Package, push, pull and verify a real 90 MB model, on disk, with no server
	@$(BIN)/python examples/demo.py

test: setup ## Run the tests (real programs that are missing are named and skipped)
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: setup ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

type: setup ## Check types
	@$(BIN)/mypy

bench: setup ## Run every benchmark (long); results go to benchmarks/results/
	@$(BIN)/python -m benchmarks full

bench-quick: setup ## Run the headline benchmarks in under three minutes
	@$(BIN)/python -m benchmarks quick

bench-node: setup ## Run the benchmarks of a node's containerd (as root; the real programs must be there)
	@$(BIN)/python -m benchmarks node

soak: setup ## Run the daemon for SOAK_MINUTES=30 with everything going wrong (as root)
	@$(BIN)/python -m tests.soak

docs: setup ## Rewrite the generated parts of docs/ (command help, pictures)
	@$(BIN)/python docs/generate.py

clean: ## Remove what make made
	rm -rf $(VENV) .demo build dist *.egg-info
