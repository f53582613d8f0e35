# Two commands for everybody: make demo, make test. Each sets up what it needs, once; the second run starts in seconds.
# Needs: Python >= 3.11, make and Maven (or Docker instead of Maven, for the demo's stack by hand).

WORKERS ?= 3
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
  $(if $(shell $(name) -c 'import sys; print("new" if sys.version_info >= (3, 11) else "")' 2>/dev/null),$(name))))
BIN := .venv/bin
READY := .venv/ready

.PHONY: help demo test check bench faults down lock clean .venv

help:
	@echo 'make demo          the main job end to end, about a minute (KEEP=1 leaves the stack running)'
	@echo 'make test          all tests (ARGS="-k name" are passed to pytest; WORKERS=3 run at once)'
	@echo 'make check         format, lint, types, import rules, generated files'
	@echo 'make bench         how fast it is on this machine'
	@echo 'make faults        the fault matrix, about 10 minutes (ARGS="--act N", "--row NAME", "--seed N", "--list")'
	@echo 'make down          stop the local stack'
	@echo 'make .venv         only the virtual environment with the locked packages'
	@echo 'make lock          lock newer versions of the packages (UPGRADE=1) or new ones of pyproject.toml'
	@echo 'make clean         stop the local stack and delete everything that was set up'

demo: $(READY)
	@$(BIN)/python -m ops.demo $(if $(KEEP),--keep) $(ARGS)

# More workers than cores: half of what a test does is to wait for Kafka, for a worker, for a vendor.
test: $(READY)
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY)
	@$(BIN)/ruff format --check --quiet || { echo 'Files are not formatted. Do it: $(BIN)/ruff format' >&2; exit 1; }
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/backbone schema generate --check
	@$(BIN)/backbone editor --check
	@$(BIN)/python -m ops.docs --check

bench: $(READY)
	@$(BIN)/python -m ops.benchmarks $(ARGS)

faults: $(READY)
	@$(BIN)/python -m tests.faults $(ARGS)

down:
	@if [ -x $(BIN)/backbone ]; then $(BIN)/python -m ops.demo --stop; $(BIN)/backbone local down; else echo 'Nothing was set up here yet.'; fi

.venv: $(READY)

# the stamp is the last thing written: a broken set-up is begun again
$(READY): requirements-dev.lock pyproject.toml
	@if [ -z '$(PYTHON)' ] || ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo 'Python 3.11 or newer is needed, and none was found. Install it, or name it: make PYTHON=/path/to/python' >&2; \
	  exit 1; fi
	@if ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo 'making .venv with the locked packages (once)' >&2; \
	  $(PYTHON) -m venv --clear .venv || { \
	    echo 'No virtual environment could be made. On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }; fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock || { \
	  echo 'The locked packages could not be installed. Is a package index reachable (pip config)? Try again: make .venv' >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . || { \
	  echo 'This project could not be installed into .venv; what pip says stands above.' >&2; exit 1; }
	@touch $(READY)

# uv lives beside the project, not in it; what is locked stays as it is unless UPGRADE=1
LOCK := .backbone/lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
  --no-emit-find-links --python-version 3.11 $(if $(UPGRADE),--upgrade) pyproject.toml

lock: $(READY)
	@[ -x .backbone/lock/bin/uv ] || { $(BIN)/python -m venv .backbone/lock && .backbone/lock/bin/pip install --quiet uv; }
	$(LOCK) --extra postgres --extra local --output-file requirements.lock
	$(LOCK) --all-extras --output-file requirements-dev.lock

clean: down
	rm -rf .venv .backbone
