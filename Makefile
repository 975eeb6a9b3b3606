# The commands a person must know. Every one works on a fresh clone: each makes .venv first if it has to.
PYTHON ?= python3
VENV ?= .venv
SEED ?= 0
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo demo-seeds test test-slow check check-types check-style learn bench docs images clean help

help:
	@echo "make demo    set up .venv, train on tune_configs/demo.yaml, judge it, say where the report is  (SEED=0)"
	@echo "make test    every capability, minutes make check   ruff, mypy, import-linter"
	@echo "make test-slow   faults, sweeps and long runs: what make test leaves out"
	@echo "make learn   learning regressions      make bench   published numbers, as JSON in benchmarks/results"
	@echo "make docs    writes docs/configuration.md and docs/develop/layers.svg from the code"
	@echo "make images  builds the images and tries them, with Docker or Podman"

# Not compiled beforehand: Python does it for what is imported, a small part of all that is installed.
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("scalepilot needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt --editable '.[train,serve,operate,optuna,sb3,atari,classic-control,dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/scalepilot train tune_configs/demo.yaml --set seed=$(SEED)

demo-seeds: $(STAMP)
	for seed in 0 1 2; do $(BIN)/scalepilot train tune_configs/demo.yaml --set seed=$$seed || exit 1; done

# Three processes on two cores: some tests of each wait for processes and clocks.
test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not learning and not slow'

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'slow and not learning'

# Side by side: mypy takes most of the time, and one core.
check: $(STAMP)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target check-types check-style

check-types:
	$(BIN)/mypy

check-style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

learn: $(STAMP)
	$(BIN)/python -m pytest -m learning

bench: $(STAMP)
	$(BIN)/python -m benchmarks

docs: $(STAMP)
	$(BIN)/python docs/develop/configuration.py > docs/configuration.md
	$(BIN)/python docs/develop/layers.py > docs/develop/layers.svg

images:
	docker/check.sh

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
