# make demo, make test: set up .venv on first use; need Python >= 3.10, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint bench reading compat clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[lint]"
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/run.py

compat: setup
	$(BIN)/python -m pip install --quiet --editable ".[compat]"
	$(BIN)/python -m pytest --config-file tests/compat/pytest.ini --rootdir . -W error tests/compat
	$(BIN)/python -m tests.compat.run

reading: setup
	$(BIN)/python -m benchmarks.reading

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
