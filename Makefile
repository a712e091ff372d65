# `make demo` and `make test` each do all of the set-up they need, on a machine with Python 3.10 or newer and make.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --disable-pip-version-check
SERVING := serving/.venv/bin/python
NEW := $(VENV)

.DEFAULT_GOAL := help
.PHONY: help venv model demo lint types test test-clinic serving test-serving release-check requirements data-mini train-nano clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

venv: $(VENV)/.installed ## install the tested versions of all that is needed into .venv

# torch goes first: it is by far the largest, so the tested release is there before a dependency asks for another one.
$(VENV)/.installed: requirements.txt requirements-dev.txt requirements-lmms-eval.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("OmniV-Med needs Python 3.10 or newer, and $(PYTHON) is %d.%d. Name a newer one: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	@test -x $(RUN) && $(RUN) -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory new-venv
	$(PIP) --quiet --upgrade pip
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --requirement requirements-dev.txt
	$(PIP) --no-deps --requirement requirements-lmms-eval.txt
	@touch $@

# In the folder $(NEW). Debian's python3 comes without ensurepip; there the system's own pip fills the new environment.
.PHONY: new-venv
new-venv:
	@$(PYTHON) -m venv --clear $(NEW) 2>/dev/null \
	|| { $(PYTHON) -m venv --clear --without-pip $(NEW) && $(PYTHON) -m pip --python $(NEW)/bin/python install --quiet pip; } \
	|| { echo 'Could not make $(NEW): this Python has neither ensurepip nor pip. Name another: make PYTHON=/path/to/python3 ...' >&2; exit 1; }

model: venv ## assemble OmniV-Med-Nano in hub_model/ (skipped when it is up to date)
	$(RUN) -m train.checkpoints.assemble

demo: model ## open the demo page
	$(RUN) app.py

lint: venv ## check style and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: venv ## check types (minutes at first, seconds after that)
	$(RUN) -m mypy

test: model lint types ## lint, check types, then run the tests
	$(RUN) -m tests.helpers.transformers_suite
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m "not slow"

test-clinic: model ## the tests of clinic/ alone; with a real archive where Orthanc is installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(RUN) -m pytest tests/clinic

serving: serving/.venv/.installed ## install vLLM and its plugin into serving/.venv, an environment of its own

# Of torch the tested release, which vLLM's build for CPUs was made for; everything else as it is written down.
serving/.venv/.installed: serving/requirements.txt serving/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("vLLM needs Python 3.11 or newer, and $(PYTHON) is %d.%d. Name a newer one: make serving PYTHON=python3.11" % sys.version_info[:2])'
	@test -x $(SERVING) && $(SERVING) -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory new-venv NEW=serving/.venv
	$(SERVING) -m pip install --disable-pip-version-check --quiet --upgrade pip
	$(SERVING) -m pip install --disable-pip-version-check --constraint constraints.txt torch
	$(SERVING) -m pip install --disable-pip-version-check --no-deps --requirement serving/requirements.txt
	$(SERVING) -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable serving
	@touch $@

test-serving: model serving ## start a vLLM server, ask it through the OpenAI client, and compare every answer with generate's
	HF_HUB_OFFLINE=1 $(SERVING) -m pytest --confcutdir tests/serving -m "not slow" tests/serving

requirements: venv ## write requirements*.txt again, from pyproject.toml
	$(RUN) -m tests.helpers.requirements

# With REAL=DIR, the folder of real pictures (docs/real-data.md), the two reports are run again as well.
release-check: model ## before a release: hashes, versions, licences, tests, and all figures measured again (REAL=DIR)
	$(RUN) -m tests.helpers.release_check $(if $(REAL),--real $(REAL))

data-mini: venv ## build the generated training set in data/mini (a few minutes; goes on where it was stopped)
	$(RUN) -m data_engine.build --config data_engine/configs/mini.yaml --out data/mini

train-nano: venv ## train OmniV-Med-Nano again from the start
	$(RUN) -m train.nano.run

clean: ## remove what make installed, downloaded and assembled (trained runs and built data stay)
	rm -rf $(VENV) serving/.venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis hub_model/model.safetensors hub_model/.assembled.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
