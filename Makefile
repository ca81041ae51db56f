# Everything a contributor or a CI machine runs. `make` alone prints the list.
# The virtual environment .venv is made on first use with plain venv and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUNTIME := $(VENV)/.runtime-stamp
DEV := $(VENV)/.dev-stamp
PM2 := $(VENV)/.pm2-stamp

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all test-nfs mutations check lint format wheel pyz clean clean-venv

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(DEV) ## make .venv with moorline (editable) and the development tools

demo: $(RUNTIME) ## install into .venv and run the demonstration
	$(BIN)/moorline demo

test: $(DEV) ## the fast tests
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: $(DEV) $(PM2) ## every test; .ci/run names the packages that they need
	$(BIN)/python -m pytest -n auto --dist loadfile

test-nfs: $(DEV) ## of these the tests on real NFS mounts
	$(BIN)/python -m pytest tests/nfs

mutations: $(DEV) ## break the source on purpose, and see that a test notices each time
	$(BIN)/python tests/mutations/run.py

check: lint test ## format, lint, types, fast tests: run this before a commit

lint: $(DEV) ## format, lint and types, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(DEV) ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: bench
# Debian: apt-get install ostree casync restic rsync zip unzip curl fuse3 npm
#         npm install --prefix build/npm s3rver@3.7.1
bench: $(DEV) ## measure beside other programs, 45 minutes: docs/benchmarks.md. BENCH='--minutes 45 gatsby'
	$(BIN)/python -m benchmarks $(BENCH)

wheel: $(DEV) ## build dist/moorline-VERSION-py3-none-any.whl and the source archive
	$(BIN)/python -m build --no-isolation

pyz: $(DEV) ## build dist/moorline.pyz: the command and what it needs in one file
	$(BIN)/python scripts/build_pyz.py --wheels $(VENV)/wheels dist/moorline.pyz

clean: ## remove what was built, keep .venv
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

clean-venv: ## remove .venv
	rm -rf $(VENV)

# Two steps, so that the demonstration does not wait for the development tools. The wheels of
# requirements.txt stay in .venv/wheels: the pyz and the wheel's test are made from them.
$(RUNTIME): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Moorline needs Python 3.11 or newer. Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "python3 has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing moorline into $(VENV)"
	@rm -rf $(VENV)/wheels
	@$(PIP) download -q --require-hashes --only-binary :all: -d $(VENV)/wheels -r requirements.txt
	@$(PIP) install -q --no-index --find-links $(VENV)/wheels --require-hashes -r requirements.txt
	@$(PIP) install -q --no-deps --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.txt
	@echo "installing the development tools into $(VENV)"
	@$(PIP) install -q -r requirements-dev.txt
	@touch $@

# With npm, from a lock file with hashes, and no script of a package is run.
$(PM2): $(DEV) tests/serving/pm2/package-lock.json
	@echo "installing pm2 into $(VENV)/pm2"
	@mkdir -p $(VENV)/pm2 && cp tests/serving/pm2/package*.json $(VENV)/pm2
	@npm ci --ignore-scripts --omit=optional --no-audit --no-fund --silent \
	  --prefix $(VENV)/pm2 --cache $(VENV)/pm2/cache
	@rm -rf $(VENV)/pm2/cache
	@touch $@
