# Commands for development and operation. `make demo` needs only Python >= 3.11, git and make.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
RUN := .venv/bin/python
# The home of a shop: raw files, tables, models, Triton repository, Dagster instance.
HOME_OF = var/$(if $(DATA),$(notdir $(abspath $(DATA))),demo)
SHOP = $(if $(MULTITRON_HOME),$(MULTITRON_HOME),$(HOME_OF))
TESTS ?= tests
# Waiting threads sleep instead of spinning: spinning threads take cores from other processes.
export OMP_WAIT_POLICY ?= passive

.PHONY: imports help demo ui test test-fast lint format docs bench clean install lock chaos week borders
.DEFAULT_GOAL := help

help:
	@echo "make demo    simulate a shop and run the pipeline: raw events to recommendation tables"
	@echo "             DATA=<folder> FORMAT=diginetica|yoochoose|otto|table [SPLIT_DAYS=n] [PRESET=name]: on raw files"
	@echo "make ui      the Dagster UI of the demo's shop (same DATA=...; PORT=3000)"
	@echo "make test    every test            make test-fast   only tests that take seconds"
	@echo "make lint    ruff and mypy         make format      fix and format with ruff"
	@echo "make docs    write docs/reference.md from the code   make imports   the packages and what each imports"
	@echo "make bench   every benchmark at small size"
	@echo "make chaos   inject faults into the nights of a small shop (15 min)   make week   seven nights through the real daemon"
	@echo "make clean   remove the environment and all generated files"

install: .venv/installed .triton/installed

.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found as python3. Name one: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Installing into .venv (once; some minutes)"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.triton/installed: requirements-triton.lock .venv/installed
	@echo "Installing the Triton server into .triton (once)"
	@mkdir -p .triton
	@case "$$(uname -s)-$$(uname -m)" in \
	  Linux-x86_64|Linux-aarch64) \
	    $(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .triton --requirement requirements-triton.lock ;; \
	  *) echo "No Triton binary for this machine: point MULTITRON_TRITON_URL at a server, or set MULTITRON_SCORER=in_process." ;; \
	esac
	@touch $@

demo: install
	@$(RUN) -m orchestration.cli.demo --home "$(SHOP)" \
	  $(if $(DATA),--data "$(DATA)") $(if $(FORMAT),--format "$(FORMAT)") $(if $(SPLIT_DAYS),--split-days "$(SPLIT_DAYS)") \
	  $(if $(PRESET),--preset "$(PRESET)")

ui: install
	@$(RUN) -m orchestration.cli.ui --home "$(SHOP)" $(if $(PORT),--port "$(PORT)")

# One process more than the reference machine has cores; single-threaded, so that they do not wait for each other.
test test-fast: export OMP_NUM_THREADS ?= 1
test test-fast: export OPENBLAS_NUM_THREADS ?= 1

test: install
	$(RUN) -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)

test-fast: install
	$(RUN) -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow" $(TESTS)

# Inject faults into nights of a small shop; takes at most about a quarter of an hour.
chaos: install
	$(RUN) -m chaos $(if $(ONLY),--only "$(ONLY)")

# Seven nights through the real daemon, one fault per night.
week: install
	$(RUN) -m chaos.week

# Property tests of input validation, ten thousand cases.
borders: install
	MULTITRON_BORDER_CASES=$${MULTITRON_BORDER_CASES:-10000} $(RUN) -m pytest tests/borders

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Print the packages and what each imports, bottom to top; fails on a cycle.
imports: install
	@$(RUN) -m tests.import_graph

format: install
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: install
	$(RUN) docs/make_reference.py

bench: install
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(RUN) $$benchmark --small || exit 1; done

# Write requirements.lock from pyproject.toml, in a separate environment. torch is pinned here, because its range is wide
# and its wheels are gigabytes.
lock:
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet torch==2.13.0 --editable '.[dev,cluster]'
	@{ echo "# Every version that the project is built and tested with; \`make lock\` writes this file."; \
	   build/lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements.lock
	@rm -rf build/lock

clean:
	rm -rf .venv .triton var build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
