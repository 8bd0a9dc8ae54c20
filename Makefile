# Each target does its own set-up: it makes a virtual environment in .venv when there is none.

PYTHON ?= python3
# A raw data set for `make demo`; without one, phantoms are made.
STUDIES ?=
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
TRAINING_SOURCE := bundles/autopet_stage1_dynunet
WORK_DIR := $(CURDIR)/demo/$(if $(STUDIES),$(notdir $(abspath $(STUDIES))),phantoms)
PHANTOMS := $(WORK_DIR)/raw

.PHONY: demo test test-slow lint sync zoo pack bench clean

$(INSTALLED): requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

demo: $(INSTALLED)
	$(if $(STUDIES),,cd $(ENSEMBLE) && $(BIN)/python -m monai.bundle run phantom --config_file configs/phantom.json --output_dir '$(PHANTOMS)' --num_patients $(NUM_PATIENTS))
	cd $(ENSEMBLE) && $(BIN)/python -m monai.bundle run pipeline --config_file configs/pipeline.json --studies '$(if $(STUDIES),$(abspath $(STUDIES)),$(PHANTOMS))' --work_dir '$(WORK_DIR)' --profile demo

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
	for name in $(BENCHMARKS); do $(BENCH_BIN)/python -W ignore benchmarks/$$name.py || exit 1; done

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The package petct_training is edited in stage 1's bundle and lies in every other one too, so that each stands alone.
sync:
	for bundle in $(filter-out $(TRAINING_SOURCE),$(wildcard bundles/*)); do rm -rf $$bundle/petct_training && cp -R $(TRAINING_SOURCE)/petct_training $$bundle/ && rm -rf $$bundle/petct_training/__pycache__ || exit 1; done

zoo: $(INSTALLED)
	$(BIN)/python tools/zoo.py check --profile $(ZOO_PROFILE)

pack: $(INSTALLED)
	$(BIN)/python tools/zoo.py pack $(if $(WEIGHTS_URL),--weights-url '$(WEIGHTS_URL)')

clean:
	rm -rf demo dist
