# Everything runs in .venv, which `make` builds from pyproject.toml and constraints.txt when it is absent or older than they are.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help repro test lint format bench quality soak clean
PYTHON ?= python3
VENV := .venv/.installed
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "%-14s %s\n", $$1, $$2}'

repro: $(VENV) ## the whole chain from RAW photos to reports/index.html; what is up to date is not run again
	@if ! { [ -f data/fivek/corpus.yaml ] && [ -f data/ppr10k/corpus.yaml ]; } && \
	  ! grep -qsE '^provenance: *real' data/*/corpus.yaml; then \
	  echo "data/ lacks a corpus: writing the two demo corpora (about a minute)"; diffretouch demo-data; fi
	@if [ -f data.dvc ] && dvc status data.dvc | grep -q "modified:"; then \
	  echo "NOTE: data/ is not the corpus that data.dvc names; dvc repro takes it as new and writes its checksum to data.dvc."; \
	  echo "      To go back to the committed demo corpora: git checkout data.dvc, move data/ away, make repro."; fi
	@echo "dvc repro: the first time about 20 minutes on 2 cores, a second time some seconds"
	@dvc repro
	@diffretouch summary

# a file's tests by one worker: what they share, whole chains among it, is made once
test: $(VENV) ## the whole test suite (about 14 minutes on 2 cores)
	@python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV) ## ruff, formatting, types and the floors between modules
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: $(VENV) ## let ruff mend what it can
	ruff check --fix-only .
	ruff format .

bench: $(VENV) ## the timing scripts in benchmarks/, one after the other (not the long ones: quality, choices, soak, dvc_size and retrain)
	@shopt -s nullglob; for script in benchmarks/[a-z]*.py; do name=$$(basename "$$script" .py); \
	  if [[ ! $$name =~ ^(quality|choices|soak|dvc_size|retrain)$$ ]]; then echo "== benchmarks.$$name"; python -m "benchmarks.$$name"; fi; done

quality: $(VENV) ## the long proof: ablations, peers and training's choices, three seeds each (hours; goes on where it was stopped)
	python -m benchmarks.quality
	python -m benchmarks.choices

soak: $(VENV) ## faults: decode, train and the flow killed at random moments, and 200 damaged RAW files (one to two hours)
	python -m benchmarks.soak

clean: ## remove what stages and tools made; data/, .venv, DVC's cache, verdicts and work/.resume (unfinished runs, prepared views, comparisons) stay
	@if [ -d work ]; then find -H work -mindepth 1 -maxdepth 1 ! -name .resume ! -name verdicts -exec rm -rf {} +; fi
	git clean -fdXq reports diffretouch flows tests benchmarks
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "diffretouch needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into .venv: PyTorch first, then everything else (2 to 5 minutes)"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@pip="python -m pip --disable-pip-version-check install --quiet --progress-bar off"; \
	  SECONDS=0; $$pip "$$(grep '^torch==' constraints.txt)"; echo "  PyTorch installed after $$SECONDS s"; \
	  $$pip -e '.[dev]'; echo "  everything installed after $$SECONDS s"
	@touch $@
