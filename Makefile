# Everything runs in .venv, which is made from the first Python 3.11 or newer found.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check format docs clean

demo: .venv/.demo  ## Lay out about a hundred documents, classify them, show the summary
	$(BIN)/python scripts/create_test_dataset.py --count 100 --output documents/input
	@# Exit code 1 means that some documents failed: a few of these are meant to.
	$(BIN)/doc-classify classify-parallel documents/input --use-database --export || [ $$? -eq 1 ]

test: check  ## Run all checks and tests
	@# Three at a time, also on two cores: many tests wait for servers and for processes.
	@# What fails then is run once more by itself, since it may have been the company: processes
	@# are killed and servers restarted under a clock. What fails alone has failed.
	$(BIN)/python -m pytest -n 3 --dist loadfile || \
		{ [ $$? -eq 1 ] && $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

check: .venv/.test  ## Lint, format, types, direction of imports
	$(BIN)/ruff check src tests scripts benchmarks
	$(BIN)/ruff format --check src tests scripts benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.test  ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix src tests scripts benchmarks
	$(BIN)/ruff format src tests scripts benchmarks

docs: .venv/.test  ## Rewrite the command reference from the command line itself
	$(BIN)/python -m doc_classify.cli.reference > docs/commands.md

clean:  ## Remove the environment and everything generated
	rm -rf .venv documents/input results dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "doc-classify needs Python 3.11 or newer" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml
	$(PIP) -e '.[dataset]'
	@touch $@

.venv/.test: .venv/bin/python pyproject.toml
	$(PIP) -e '.[test]'
	@touch $@ .venv/.demo
