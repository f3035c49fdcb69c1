# The two commands are `make demo` and `make test`; either sets up first. PYTHON names another interpreter.
PYTHON ?= python3
BIN := .venv/bin
OUT := demo-report
STAMP := .venv/.installed

.PHONY: demo test coverage test-slow setup lint types lint-pages types-pages check lock clean

demo: setup
	$(BIN)/python examples/demo.py $(OUT)

test: setup
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto -m "not slow"

# The same tests, and which lines of the package none of them runs.
coverage: setup
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto -m "not slow" --cov --cov-report=term-missing:skip-covered

test-slow: setup
	$(BIN)/python -m pytest -m slow

setup: $(STAMP)

# Pinned by requirements.lock (versions only, used as constraints, so that it serves every platform).
$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[torchvision,fast,demo,dev]'
	touch $(STAMP)

lint: setup lint-pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup types-pages
	$(BIN)/mypy

# The JavaScript of the explorer; skipped, with a message, where node is missing.
lint-pages:
	@scripts/check_pages.sh lint

types-pages:
	@scripts/check_pages.sh types

check: lint types test

# After changing dependencies: install what pyproject.toml allows, and write down what came.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check -e '.[torchvision,fast,demo,dev,peers]'
	.venv-lock/bin/python -m pip freeze --exclude-editable | sed -e '/@/d' -e 's/+[A-Za-z0-9.]*$$//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv node_modules .pytest_cache .mypy_cache .ruff_cache build dist
