# Each target makes .venv itself and is quick to repeat.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

.PHONY: help setup demo test check unit promise test-slow results results-quick peers peers-maps speed clean

help:
	@echo "make demo       simulate a lung CT study, cluster it, explain it, write the report ($(DEMO)/run/report.html)"
	@echo "make test       what the checks run: ruff, mypy, unit tests, promises"
	@echo "make test-slow  the rest: kill points, whole data sets"
	@echo "make results    the tables of docs/results.md; goes on where it was stopped (hours; needs MEDSTRATA_DATA)"
	@echo "make results-quick   two small sets, one seed, under 10 minutes, into build/results-quick/results.md"
	@echo "make speed      how fast each stage is beside other packages; the tables of docs/performance.md (15 minutes)"
	@echo "make peers-maps  other packages for maps that benchmarks.maps.speed compares with"
	@echo "make peers      the environment of the peers that the tables compare with"

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
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow and not promise" -n auto --dist loadfile

promise: .venv/ready
	$(BIN)/pytest -m "promise and not slow"

test-slow: .venv/ready
	$(BIN)/pytest -m slow

results: .venv/ready
	$(BIN)/python -m benchmarks.results

results-quick: .venv/ready
	$(BIN)/python -m benchmarks.results --quick

peers: benchmarks/.peers/ready

benchmarks/.peers/ready: benchmarks/peers.txt
	test -x benchmarks/.peers/bin/python || $(PYTHON) -m venv benchmarks/.peers
	benchmarks/.peers/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/peers.txt torch
	benchmarks/.peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers.txt
	touch $@

peers-maps: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target benchmarks/.peers-maps grad-cam==1.5.7 torchcam==0.5.0 ttach==0.0.3 opencv-python-headless==5.0.0.93

speed: .venv/ready benchmarks/.peers/ready
	PYTHONPATH=src:. OMP_NUM_THREADS=1 benchmarks/.peers/bin/python -m benchmarks.speed

clean:
	rm -rf .venv $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
