# Each target makes .venv itself and is quick to repeat.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

.PHONY: help setup demo test check unit promise test-slow clean

help:
	@echo "make demo       simulate a lung CT study, cluster it, explain it, write the report ($(DEMO)/run/report.html)"
	@echo "make test       what the checks run: ruff, mypy, unit tests, promises"
	@echo "make test-slow  the rest: kill points, whole data sets"

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older. Name another: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/ready
	$(BIN)/python -m benchmarks.demo $(DEMO)

test: check unit promise

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: .venv/ready
	$(BIN)/pytest -m "not slow and not promise"

promise: .venv/ready
	$(BIN)/pytest -m "promise and not slow"

test-slow: .venv/ready
	$(BIN)/pytest -m slow

clean:
	rm -rf .venv $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
