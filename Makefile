# make run    set up, then run the quickstart on real speech
# make test   set up, then run the tests; `make test-slow` those that take minutes each
# make check  set up, then lint and type-check
# make docs   set up, then write docs/settings.md and build the documentation into build/site
VENV   := .venv
PYTHON := $(VENV)/bin/python
LAKE   ?= lake
RECIPE ?= quickstart

# Where Python is told to keep no compiled modules, every process of a run or a test would compile PyTorch anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup run test test-slow check docs ui lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@python3 -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, python3 is " + sys.version)'
	@test -x $(PYTHON) || python3 -m venv $(VENV) || { echo "python3 has no venv module: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(VENV)/bin/uv pip install --quiet --python $(PYTHON) --requirements requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(PYTHON) --no-deps --editable .
	@touch $@

run: setup
	$(VENV)/bin/spiritlm run $(RECIPE) --lake $(LAKE)

# Files of tests are shared out to as many processes as there are cores, each of which takes up to 3 GB.
test: setup
	$(PYTHON) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# Whole pipelines, deployments on a real server, killed runs, a real browser: what `make test` leaves out for its ten
# minutes. Without Chromium and Node.js the browser tests are skipped, and say so; in CI they fail.
test-slow: setup
	-@sh infra/browser.sh
	$(PYTHON) -m pytest -m slow

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: setup
	$(PYTHON) docs/site/settings.py
	$(VENV)/bin/mkdocs build --strict --quiet

ui: setup
	$(VENV)/bin/spiritlm ui

# Pins are names and versions only: the index they come from is each user's own setting.
lock: setup
	$(VENV)/bin/uv pip compile --quiet --upgrade --extra dev --python-version 3.11 --no-annotate --no-header \
	  --no-emit-index-url --output-file requirements.lock pyproject.toml

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
