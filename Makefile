# Set-up, demo and tests. Everything runs in .venv; nothing is installed outside it.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-fast test-slow lint bench clean

.venv/serve.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e '.[serve]'
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e '.[dev]'
	@touch $@ .venv/serve.stamp

demo: .venv/serve.stamp  ## tunes how to serve the shipped model on this machine; under 4 minutes
	$(BIN)/python examples/demo.py

test: .venv/dev.stamp  ## lint, types and tests; under 15 minutes on 2 cores
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow"

test-fast: .venv/dev.stamp  ## under 2 minutes
	$(BIN)/python -m pytest -m "not slow and not medium"

test-slow: .venv/dev.stamp  ## the rest: soak, re-making the demo's model, kill storms
	$(BIN)/python -m pytest -m slow

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv demo build dist
