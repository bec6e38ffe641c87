# The developer's door.  Each target makes what it needs; nothing has to be activated.
# PYTHON=/path/to/python3 names the interpreter that .venv is made with.  LIBTORRENT=other runs the
# tests with the line of libtorrent that .venv does not have (tests/bootstrap/other-libtorrent.txt).

PYTHON ?= python3
BIN := .venv/bin
export PYTHON

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test faults bench mutants lint format docs lock clean environment

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

demo: environment ## make a sample dataset, publish, clone, upgrade, damage, repair, check out
	@$(BIN)/python docs/examples/demo.py

test: environment ## run the whole suite: lint, types, tests
	@sh tests/bootstrap/tools.sh
	@$(MAKE) --no-print-directory lint
	@$(if $(LIBTORRENT),PYTHONPATH=`sh tests/bootstrap/libtorrent.sh`) \
	    $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

faults: environment ## try every fault, the long ones too, and print what was survived
	@sh tests/bootstrap/tools.sh
	@rm -f .faults.jsonl
	@BUCKETSYNC_FAULTS_REPORT=.faults.jsonl $(BIN)/python -m pytest -n auto --dist loadfile \
	    --no-loadscope-reorder --long tests/faults $(PYTEST_ARGS)

bench: environment ## measure beside rsync and others, some minutes (BENCH_ARGS=--full: hours)
	@sh tests/bootstrap/tools.sh tests/bootstrap/bench-packages.txt
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

mutants: environment ## take each check away, see that a test fails (MODULES='manifests/codec.py …')
	@$(BIN)/python -m tests.mutation $(MODULES)

lint: environment ## check style and types, change nothing
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: environment ## lay the code out and mend what ruff can mend
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: environment ## write the command-line reference anew
	@$(BIN)/python docs/generate_reference.py

# Without this machine's pip settings, so that the lock is the same wherever it is written.
lock: environment ## write requirements.lock anew from pyproject.toml, newest versions
	@env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_CONSTRAINT PIP_CONFIG_FILE=/dev/null \
	    CUSTOM_COMPILE_COMMAND="make lock" \
	    $(BIN)/pip-compile --no-config --quiet --upgrade --generate-hashes --all-extras \
	    --all-build-deps --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host --output-file requirements.lock pyproject.toml

clean: ## remove the environment, the caches and the logs
	@rm -rf .venv .venv-install.log .apt-install.log .npm-install.log .libtorrent-install.log
	@rm -rf .faults.jsonl .demo build dist
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment:
	@sh tests/bootstrap/environment.sh
