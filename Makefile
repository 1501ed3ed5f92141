# `make app` serves the page, `make test` runs the tests (`make test-all` the thorough ones too); all set up what they need
# in .venv first.
PYTHON ?= python3
PIP_FLAGS ?=
INSTALL ?= $(BIN)/python -m pip install $(PIP_FLAGS)
APP_FLAGS ?=
# Two workers of half the cores each: most tests are too small to keep two cores busy. Files in the order of
# tests/conftest.py, which has slow ones first.
TEST_FLAGS ?= -n 2 --dist loadfile --no-loadscope-reorder
MARKS ?= not thorough

# Compiled modules are kept, also where the environment says not to: each of the processes that tests start would else
# compile torch and diffusers anew.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin

.PHONY: app test test-all demo lint format clean

app: $(VENV)/installed
	$(BIN)/python app.py $(APP_FLAGS)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(TEST_FLAGS) -m "$(MARKS)"

test-all:
	$(MAKE) test MARKS=

demo: $(VENV)/installed
	$(BIN)/python scripts/demo.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Keeps what was made in outputs/.
clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "adaflow: error: $(PYTHON) is not Python 3.11 to 3.13; try: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "adaflow: error: Python's venv is missing; try: sudo apt install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# The stamps are newer than what they were made from, so that nothing is installed twice.
$(VENV)/installed: requirements.txt | $(BIN)/python
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements.txt requirements-batch.txt requirements-dev.txt | $(BIN)/python
	$(INSTALL) -r requirements-dev.txt
	@touch $(VENV)/installed $@
