# Two commands need nothing but Python 3.11 and pip: `make demo` and `make test`.
# The environment is made once, in .venv, and again only when a dependency changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
ARGS ?=
# One test process a core; a file's tests stay together, since they share what they set up.
WORKERS ?= -n auto --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-oldest lint format types clean

help: ## this list
	@echo "plot_exp: preference learning by optimal transport"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  make demo ARGS="experiment=quick"   passes settings on to python -m plot_exp'
	@echo '  make demo PYTHON=python3.12         makes the environment with another Python'

demo: $(VENV)/.installed ## train the default experiment and show what changed
	$(BIN)/python -m plot_exp $(ARGS)

test: $(VENV)/.installed ## every test
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-quick: $(VENV)/.installed ## the tests that take seconds
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" $(ARGS)

test-oldest: $(OLDEST)/.installed ## the quick tests and a run on the lowest versions admitted
	$(OLDEST)/bin/python -m pytest $(WORKERS) -m "not slow" $(ARGS)
	$(OLDEST)/bin/python -m plot_exp experiment=quick output_dir=$(OLDEST)/outputs \
		cache_dir=$(OLDEST)/cache

lint: $(VENV)/.installed-dev ## style and format, changing nothing
	$(BIN)/ruff check src tests benchmarks experiments notebooks
	$(BIN)/ruff format --check src tests benchmarks experiments notebooks

format: $(VENV)/.installed-dev ## put style and format right
	$(BIN)/ruff check --fix src tests benchmarks experiments notebooks
	$(BIN)/ruff format src tests benchmarks experiments notebooks

types: $(VENV)/.installed-dev ## check the types
	$(BIN)/mypy

clean: ## remove the environment and the tools' caches; runs in outputs/ stay
	rm -rf $(VENV) $(OLDEST) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "plot_exp needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true). Name another one: make PYTHON=python3.12"; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "$(PYTHON) -m venv failed; it needs the venv module and pip (a system package such as python3-venv)"; \
		exit 1; }

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -e ".[test]" -c constraints.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[dev]" -c constraints.txt
	@touch $@

# On Linux this torch brings CUDA's libraries, 6 GB in all, unless pip's index has its CPU build.
$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -e ".[test-tools]" -c constraints-oldest.txt
	@touch $@
