# Every target sets up what it needs. Variables (of the command line, not of the environment): make train NAME=mine DATA=path/to/data LABELS=100 PRESET=default SEED=0
PYTHON ?= python3
VENV   ?= .venv
NAME    = mnist
DATA    = data/mnist
LABELS  = 100
PRESET  = default
SEED    = 0
DEVICE  = auto
HOST    = 127.0.0.1
PORT    = 50051
INPUT   = data/mnist/train-images-idx3-ubyte.gz
OUTPUT  = runs/$(NAME)/predictions
ARGS    =
# Tests on two cores; a module's tests stay together, for they share what is slow to set up.
WORKERS = -n 2 --dist loadscope --no-loadscope-reorder
# More flags for one stage; ARGS does for a line with one target.
TRAIN_ARGS    = $(ARGS)
EXPORT_ARGS   = $(ARGS)
SERVE_ARGS    = $(ARGS)
PRELABEL_ARGS = $(ARGS)
ifneq ($(and $(ARGS),$(word 2,$(MAKECMDGOALS))),)
  $(error ARGS is for one target; with several give TRAIN_ARGS=, EXPORT_ARGS=, SERVE_ARGS= or PRELABEL_ARGS=)
endif

RUN := runs/$(NAME)
# One word of the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'
BIN := $(VENV)/bin
PY  := $(BIN)/python
# The training stack logs its start-up at warning level.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
# Goals build on each other: make train export.
.NOTPARALLEL:
.PHONY: help setup demo train export serve prelabel test check lint format types imports unit integration e2e test-adapters test-report \
        test-label-studio proto proto-check lock image image-check compare gpu-check other-data bench-serving bench-bulk soak docs clean

help: ## list every target in a line
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## create the environment in .venv from the lock file

$(VENV)/.installed: locks/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "prelabel needs Python 3.11 to 3.13 (its TensorFlow has no wheels for others): make PYTHON=python3.13")'
	$(PYTHON) -m venv $(VENV)
	@# Python compiles what is imported; pip would compile 17,000 files, one after the other, which takes a minute.
	$(PY) -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r locks/dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup ## the whole line on the embedded MNIST: train, export, serve, pre-label 60,000 images; results in runs/demo
	$(PY) -m scripts.demo $(ARGS)

train: setup ## train on DATA with LABELS labels into runs/NAME; resumes an interrupted run
	$(PY) -m training --data $(call quoted,$(DATA)) $(if $(LABELS),--labels $(LABELS)) --preset $(PRESET) --seed $(SEED) \
	  --output $(call quoted,$(RUN)) $(TRAIN_ARGS)

export: setup ## turn runs/NAME into a verified model bundle runs/NAME/bundle
	$(PY) -m export --run $(call quoted,$(RUN)) $(EXPORT_ARGS)

serve: setup ## serve runs/NAME/bundle over gRPC on HOST:PORT until SIGTERM
	$(PY) -m serving --model $(call quoted,$(RUN)/bundle) --host $(HOST) --port $(PORT) --device $(DEVICE) $(SERVE_ARGS)

prelabel: setup ## pre-label INPUT through the server on HOST:PORT into Parquet files in OUTPUT
	@# Status 3: finished, and some images are error rows; the summary says how many.
	$(BIN)/prelabel run --input $(call quoted,$(INPUT)) --server $(HOST):$(PORT) --output $(call quoted,$(OUTPUT)) $(PRELABEL_ARGS) || [ $$? -eq 3 ]

# Two workers with BLAS threads on each core wait for each other.
test unit integration: export OPENBLAS_NUM_THREADS ?= 1

test: setup ## all tests: unit, integration, e2e
	$(PY) -m pytest -m 'not cluster' $(or $(ARGS),$(WORKERS))
	$(if $(ARGS),,$(PY) -m pytest -m cluster tests/integration/test_ray.py)

unit: setup ## the fast tests only
	$(PY) -m pytest tests/unit $(or $(ARGS),$(WORKERS))

integration: setup ## tests with real sockets and ONNX Runtime
	$(PY) -m pytest -m 'not cluster' tests/integration $(or $(ARGS),$(WORKERS))

e2e: setup ## train a little, export, serve, pre-label, read back
	$(PY) -m pytest tests/e2e $(ARGS)

$(VENV)-adapters/.installed: locks/adapters.txt
	$(PYTHON) -m venv $(VENV)-adapters
	@# Without what the packages say that they need: the lock file leaves out a database that would be downloaded.
	$(VENV)-adapters/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locks/adapters.txt
	touch $@

test-adapters: $(VENV)-adapters/.installed ## what `prelabel convert` writes, read back by datumaro, cvat_sdk, FiftyOne, datasets, webdataset (1.5 GB)
	$(VENV)-adapters/bin/python -m scripts.adapter_tests $(ARGS)

test-report: setup ## look at the page of `prelabel report` in a headless Chromium (Debian: chromium chromium-driver)
	$(PY) -m pytest -m browser tests/integration/test_report_browser.py $(ARGS)

test-label-studio: setup ## install a real Label Studio (1 GB), start it, and push, ask, annotate, pull and retrain in it
	$(PY) -m scripts.label_studio $(ARGS)

check: lint types imports proto-check test ## every gate

lint: setup ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## mypy, strict
	$(BIN)/mypy

imports: setup ## the layers of ARCHITECTURE.md, proven by import-linter
	$(BIN)/lint-imports

$(VENV)-proto/.installed: locks/proto.txt
	$(PYTHON) -m venv $(VENV)-proto
	$(VENV)-proto/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/proto.txt
	touch $@

proto: $(VENV)-proto/.installed ## generate prelabel/v1 and serving/inference_v2 from protos/
	scripts/protos.sh $(VENV)-proto/bin/python

proto-check: $(VENV)-proto/.installed ## fail if the generated code is not what protos/ generates
	scripts/protos-check.sh $(VENV)-proto/bin/python

lock: setup ## bring the lock files up to the newest versions that pyproject.toml allows
	UV=$(BIN)/uv scripts/lock.sh

image: ## build the container images prelabel-train and prelabel-serve with docker, or buildah where there is no engine
	scripts/image.sh

image-check: setup ## build on a debootstrap base with buildah, run the server in the image, pre-label through it
	PYTHON=$(PY) scripts/image-check.sh

compare: setup ## measure the figures of docs/quality.md again (hours); resumes run by run
	$(PY) -m scripts.compare $(ARGS)

gpu-check: setup ## on a machine with a GPU: answers, images/s and memory of the CUDA path on runs/NAME/bundle
	$(PY) -m scripts.gpu_check --model $(call quoted,$(RUN)/bundle) $(ARGS)

other-data: setup ## measure the default preset, unchanged, on ten composed data sets (hours); resumes run by run
	$(PY) -m scripts.other_data $(ARGS)

soak: setup ## clients, abuse, SIGTERM and SIGKILL against a real server for 3 minutes: every request gets its answer or a clear error
	$(PY) -m scripts.soak $(ARGS)

bench-serving: setup ## measure the server against its engine, the transport and other servers; the machine must be free
	$(PY) -m scripts.bench_serving $(ARGS)

bench-bulk: setup ## measure bulk work end to end beside decoding alone and inference alone; the machine must be free
	$(PY) -m scripts.bench_bulk $(ARGS)

docs: setup ## render the measured figures into README.md and docs/*.md
	$(PY) -m scripts.render

clean: ## remove environments, caches and generated code caches; runs/ stays
	rm -rf $(VENV) $(VENV)-proto $(VENV)-adapters .venv-label-studio .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
