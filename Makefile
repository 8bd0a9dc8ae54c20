# Each target does its own set-up: it makes a virtual environment in .venv when there is none.

PYTHON ?= python3
# A raw data set for `make demo`; without one, phantoms are made.
DATASET_DIR ?=
NUM_PATIENTS ?= 30
# Size of the networks that `make zoo` checks: full takes minutes and 4 GB of memory, demo seconds.
ZOO_PROFILE ?= full
# Address under which <bundle>/model.pt will be found, for `make pack`; without one, no weights are packed.
WEIGHTS_URL ?=

BIN := $(CURDIR)/.venv/bin
INSTALLED := .venv/installed
BENCH_BIN := $(CURDIR)/.venv-bench/bin
BENCH_INSTALLED := .venv-bench/installed
BENCHMARKS := budget metrics prepare feeding training scaling inference
ENSEMBLE := bundles/autopet_ensemble
WORK_DIR := $(CURDIR)/demo/$(if $(DATASET_DIR),$(notdir $(abspath $(DATASET_DIR))),phantoms)
RAW_DIR := $(if $(DATASET_DIR),$(abspath $(DATASET_DIR)),$(WORK_DIR)/raw)

.PHONY: demo test test-slow lint zoo pack bench clean

$(INSTALLED): requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

demo: $(INSTALLED)
	$(if $(DATASET_DIR),,cd $(ENSEMBLE) && $(BIN)/python -m monai.bundle run phantom --config_file configs/phantom.json --raw_dir '$(RAW_DIR)' --num_patients $(NUM_PATIENTS))
	cd $(ENSEMBLE) && $(BIN)/python -m monai.bundle run pipeline --config_file configs/pipeline.json --raw_dir '$(RAW_DIR)' --work_dir '$(WORK_DIR)' --profile demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# In an environment of its own, since the competitors bring what nobody else needs.
$(BENCH_INSTALLED): requirements.txt requirements-dev.txt requirements-bench.txt
	$(PYTHON) -m venv .venv-bench
	$(BENCH_BIN)/python -m pip install --quiet --upgrade pip
	$(BENCH_BIN)/python -m pip install --quiet -r requirements-bench.txt
	touch $@

bench: $(BENCH_INSTALLED)
	for name in $(BENCHMARKS); do $(BENCH_BIN)/python -W ignore tests/benchmarks/$$name.py || exit 1; done

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

zoo: $(INSTALLED)
	$(BIN)/python tests/zoo.py check --profile $(ZOO_PROFILE)

pack: $(INSTALLED)
	$(BIN)/python tests/zoo.py pack $(if $(WEIGHTS_URL),--weights-url '$(WEIGHTS_URL)')

clean:
	rm -rf demo dist
