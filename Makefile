# `make demo` and `make test` need Python 3.11 or newer, git and make; everything else goes into .venv.

PYTHON  ?=
RUNTIME ?= cpu
WORKERS ?= 2

PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3)
BIN     := .venv/bin
# Named after the runtime, so that another choice builds a clean environment: the two must not be mixed.
STAMP   := .venv/installed-$(RUNTIME)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo "Options: PYTHON=/path/to/python  RUNTIME=cpu|gpu  WORKERS=2 (parallel tests)"

setup: $(STAMP)  ## Create .venv and install the package with its tools

# A name on PATH may be a launcher for a version that is not there, and some systems ship Python without ensurepip, so
# each candidate is run, not just looked up.
$(STAMP): pyproject.toml
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Setting up .venv with $$("$$python" --version) ..."; \
	    exec "$$python" -m venv --clear .venv; \
	  fi; \
	done; \
	echo "No Python 3.11 or newer with its venv module among: $(PYTHONS)." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python" >&2; \
	exit 1
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'  # the first to know --group
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(RUNTIME),html,images]' --group dev
	@touch $@

demo: $(STAMP)  ## Prune, verify and time the bundled model
	@$(BIN)/onnxprune demo

test: lint  ## Lint, check types and run every test
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(STAMP)  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict onnxprune

format: $(STAMP)  ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## Run the benchmarks (long)
	$(BIN)/python benchmarks/li2016.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/large.py
	$(BIN)/python benchmarks/property.py
	$(BIN)/python benchmarks/fuzz.py

clean:  ## Remove .venv, caches and builds
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
