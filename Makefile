# make demo        the first study on the toy language: teacher, students, table, plots (minutes on two cores)
# make test        the tests
# make test-all    the slow tests too, on optimised programs
# make test-peers  tests beside PyTorch, transformers and CTranslate2 (installs the extra `peers`)
# make docs        the documentation as a site: docs/_build/html (installs the extra `docs`)
# make pages       results pages and tables anew from experiments/results
# make lint        check the style and the types
# make format      correct the style
# make setup       the virtual environment .venv, which every other target makes by itself
# make clean       remove the virtual environment, caches and built pages; results in runs/ stay
#
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
READY := $(VENV)/.ready-$(VERSION)

# Large pages on Linux: a training step on CPUs spends a fifth of its time on page faults without them.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: help setup demo test test-all test-peers docs pages lint format clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: $(PYTHON) is $(or $(VERSION),not there), Python 3.11 or later is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up $(VENV) for Python $(VERSION) (once, some minutes)" >&2
	@$(PYTHON) -m venv --clear $(VENV) || \
		{ echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(READY)
	$(BIN)/python -m experiments.kim_rush_2016 --scale smoke

# Most of a test's time is compilation. `make test` has XLA optimise nothing; `make test-all` compiles as users do.
QUICK = --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1

test: $(READY)
	XLA_FLAGS="$(XLA_FLAGS) $(QUICK)" $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not peers" --durations=10

test-all: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not peers" --durations=20

$(READY)-peers: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[peers]"
	@touch $@

test-peers: $(READY)-peers
	$(BIN)/python -m pytest -q -m peers --durations=10

$(READY)-docs: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	@touch $@

pages: $(READY)
	$(BIN)/python -m experiments.core.pages

docs: $(READY)-docs pages
	$(BIN)/python docs/command_line.py
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache docs/_build
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
