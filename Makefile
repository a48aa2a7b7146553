# Every target sets up what it needs, in .venv, from nothing but a Python 3.11 or newer.
#
#   make demo    start everything, send a few hundred notifications, show what becomes of them, clean up
#   make serve   the same start-up, and stay
#   make test    check, then all tests, in two runs side by side
#   make check   linters, types, import arrows
#   make bench   the floor, the dispatcher and Celery, measured in one run
#   make soak    kill and confuse real processes for minutes, then count what was lost or doubled (SOAK="--kills 200")
#   make leaks   an hour of cancelled calls: do memory, files and connections stay flat? (LEAKS="--minutes 20")
#
# PYTHON=/path/to/python chooses the interpreter the virtual environment is made from.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUNTIME := .venv/.runtime
DEVELOPMENT := .venv/.development

.DELETE_ON_ERROR:
.PHONY: demo serve test check bench soak leaks clean

demo: $(RUNTIME)
	@$(BIN)/dispatcher demo

serve: $(RUNTIME)
	@$(BIN)/dispatcher serve --sandbox

test: check
	@$(BIN)/python tests/in_two.py

check: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(DEVELOPMENT)
	@$(BIN)/python -m bench

soak: $(DEVELOPMENT)
	@PYTHONPATH=.:http:tests $(BIN)/python -m soak $(SOAK)

leaks: $(DEVELOPMENT)
	@PYTHONPATH=.:http:tests $(BIN)/python -m soak.leaks $(LEAKS)

# The stamps hold only when everything before them worked, so a run that was broken off starts over.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "This needs Python 3.11 or newer with its venv module: none was found." >&2; exit 1; }
	@echo "Setting up .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv

$(RUNTIME): requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing what the dispatcher needs"
	@$(PIP) install --requirement requirements.txt
	@$(PIP) install --no-deps --editable .
	@touch $@

$(DEVELOPMENT): requirements-dev.txt $(RUNTIME)
	@echo "Installing what tests, checks and benchmarks need"
	@$(PIP) install --requirement requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
