# Each target does its own set-up: it makes a virtual environment in .venv when there is none.

PYTHON ?= python3
# A raw data set for `make demo`; without one, phantoms are made.
STUDIES ?=
NUM_PATIENTS ?= 30
# Size of the networks that `make zoo` checks: full takes minutes and 4 GB of memory, demo less.
ZOO_PROFILE ?= full
# Address under which <bundle>/model.pt will be found, for `make pack`; without one, no weights are packed.
WEIGHTS_URL ?=
# Constraints in the place of lower bounds that cannot be had, for `make test-lowest`: INSTEAD='torch==2.13.0'.
INSTEAD ?=

# Paths are relative: a recipe runs in this folder, whose own path may hold a space.
BIN := .venv/bin
INSTALLED := .venv/installed
LOWEST_BIN := .venv-lowest/bin
LOWEST_INSTALLED := .venv-lowest/installed
BENCH_BIN := .venv-bench/bin
BENCH_INSTALLED := .venv-bench/installed
BENCHMARKS := budget metrics index prepare dicom feeding training scaling inference
TRAINING_SOURCE := bundles/autopet_stage1_dynunet
# Studies of yours never share a folder with the phantoms, whatever they are called.
WORK_DIR := demo/$(if $(STUDIES),studies/$(shell basename '$(STUDIES)'),phantoms)
PHANTOMS := $(WORK_DIR)/raw

.PHONY: demo test test-slow test-lowest coverage lint sync zoo pack bench clean

$(INSTALLED): pyproject.toml requirements-dev.txt requirements-test.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

demo: $(INSTALLED)
	$(if $(STUDIES),,$(BIN)/petct phantom -o '$(PHANTOMS)' --num_patients $(NUM_PATIENTS))
	$(BIN)/petct train '$(if $(STUDIES),$(STUDIES),$(PHANTOMS))' -o '$(WORK_DIR)' --profile demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# In an environment of its own, with the lowest version of each requirement that pyproject.toml allows.
$(LOWEST_INSTALLED): pyproject.toml requirements-test.txt tools/lowest.py
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST_BIN)/python -m pip install --quiet --upgrade pip packaging tomli
	$(LOWEST_BIN)/python tools/lowest.py $(INSTEAD) > .venv-lowest/constraints.txt
	$(LOWEST_BIN)/python -m pip install --quiet -c .venv-lowest/constraints.txt -e . -r requirements-test.txt
	touch $@

test-lowest: $(LOWEST_INSTALLED)
	$(LOWEST_BIN)/python -m pytest -n 2 --dist worksteal

# The same tests as `make test`; fails below the floor in pyproject.toml. Commands that tests start are measured, too.
coverage: $(INSTALLED)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# In an environment of its own, since the competitors bring what nobody else needs.
$(BENCH_INSTALLED): pyproject.toml requirements-dev.txt requirements-test.txt requirements-bench.txt
	$(PYTHON) -m venv .venv-bench
	$(BENCH_BIN)/python -m pip install --quiet --upgrade pip
	$(BENCH_BIN)/python -m pip install --quiet -r requirements-bench.txt
	touch $@

bench: $(BENCH_INSTALLED)
	for name in $(BENCHMARKS); do $(BENCH_BIN)/python -W ignore benchmarks/$$name.py || exit 1; done

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

# The package petct_training is edited in stage 1's bundle and lies in every other one too, so that each stands alone.
sync:
	for bundle in $(filter-out $(TRAINING_SOURCE),$(wildcard bundles/*)); do rm -rf $$bundle/petct_training && cp -R $(TRAINING_SOURCE)/petct_training $$bundle/ && rm -rf $$bundle/petct_training/__pycache__ || exit 1; done

zoo: $(INSTALLED)
	PYTHONPATH=tools $(BIN)/python -m zoo check --profile $(ZOO_PROFILE)

pack: $(INSTALLED)
	PYTHONPATH=tools $(BIN)/python -m zoo pack $(if $(WEIGHTS_URL),--weights-url '$(WEIGHTS_URL)')

clean:
	rm -rf demo dist
