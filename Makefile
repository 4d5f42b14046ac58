# From a bare clone: Python 3.11 or later and make. Everything is installed into .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Named after what it was installed from: a change of dependencies installs again, an interrupted set-up starts over.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
# One process a core; a test thread is one thread (tests/conftest.py).
PARALLEL := -n logical --maxprocesses 8
TORCH := $(shell grep '^torch==' constraints.txt)
OLD := import sys; ok = sys.version_info >= (3, 11); ok or print("RecGym needs Python 3.11 or later; this is", sys.version.split()[0], "at", sys.executable + ". Name another one: make PYTHON=python3.12"); sys.exit(not ok)

.PHONY: help demo test test-slow lint docs setup clean

help:
	@echo "make demo       train and compare agents on the shipped world, report in runs/demo (under 6 minutes)"
	@echo "make test       the fast tests (under 10 minutes)"
	@echo "make test-slow  learning, notebooks, documentation"
	@echo "make lint       ruff"
	@echo "make docs       the documentation, into site/"
	@echo "make clean      remove builds and caches"

demo: $(STAMP)
	$(BIN)/recgym demo

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL)

# pytest exits with 5 where it selects no test.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow || [ $$? -eq 5 ]

lint: $(STAMP)
	$(BIN)/ruff check .

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

setup: $(STAMP)

$(STAMP):
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON). Name your Python: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c '$(OLD)'
	@"$(BIN)/python" -c '$(OLD)' >/dev/null 2>&1 && "$(BIN)/python" -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@rm -f $(VENV)/.installed-*
	@echo "Installing into $(VENV): some minutes, once."
	$(BIN)/python -m pip install --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[data,text,dev,docs]'
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
