# Set-up and common commands. They need git, make and Python, and write only into this folder.
#
#   make demo                          pretrain a small model, run RLP and its control; takes minutes
#   make demo WORKDIR=runs/seed3 ARGS="--config.seed=3"   the same with other flags and folder
#   make setup                         install what a run needs into .venv
#   make test                          run the fast tests; ARGS="-k scoring" selects some
#   make slow-test                     run the tests that take minutes; both use WORKERS=2 processes
#   make gym                           install reasoning-gym, which generates problems (docs/rlvr.md)
#   make harness                       install lm-evaluation-harness (docs/evaluation.md)
#   make serve                         install what launch.serve needs (docs/serving.md)
#   make models                        fetch two small pretrained models and import them into runs/models
#   make real                          RLP on a real model with its controls; SETTING=a SEED=0 SCALE=full
#   make compilers                     install what launch.compile needs (1.4 GB, Linux x86-64)
#   make docs                          build the documentation: docs/_build/html/index.html
#   make lint                          run ruff and mypy;  make format  rewrites the code in ruff's format
#   make clean                         remove environments, caches and the built site, never runs/

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= 2
WORKDIR ?= runs/demo
SETTING ?= a
SEED ?= 0
SCALE ?= full

# Programs that take at least 0.2 seconds to compile are cached between runs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.2

run := "$(VENV)/bin/python" -m
parallel := -n $(WORKERS) --dist loadfile
# Keep the order of the folders: files of launch/ have few but long tests, so they start early.
in_order := --no-loadscope-reorder
install := $(run) pip install --disable-pip-version-check --no-input

# The pinned packages support these versions. Debian packages venv and ensurepip separately.
usable := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
version = $(or $(shell "$(PYTHON)" --version 2>&1 | head -n 1),no answer)
refusal = needed: Python 3.11, 3.12, 3.13 or 3.14 with its venv module; "$(PYTHON)" cannot be used ($(version)); \
name another with: make PYTHON=/path/to/python3
check_python = $(if $(shell "$(PYTHON)" -c '$(usable)' >/dev/null 2>&1 && echo yes),,$(error $(refusal)))

# `.ready` is written last: an environment without it is incomplete and is created again, and so is
# one whose interpreter no longer exists. If only the requirements changed, it is updated.
alive := $(shell test -e "$(VENV)/.ready" && "$(VENV)/bin/python" -c 'print("yes")' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow-test gym harness serve models real compilers docs lint format clean remake

help:
	@sed -n 's/^#   //p' Makefile

setup: $(VENV)/.ready

demo: $(VENV)/.ready
	$(run) launch.train --config=configs/demo.py --workdir=$(WORKDIR) $(ARGS)

test: $(VENV)/.ready-test
	$(run) pytest $(parallel) $(ARGS)

slow-test: $(VENV)/.ready-test
	$(run) pytest -m slow $(parallel) $(in_order) $(ARGS)

gym: $(VENV)/.ready-gym

harness: $(VENV)/.ready-harness

serve: $(VENV)/.ready-serve

models: $(VENV)/.ready-gguf
	@$(run) launch.fetch_models

real: models
	$(run) launch.real --setting=$(SETTING) --seed=$(SEED) --scale=$(SCALE) \
		--workdir=runs/real/$(SETTING)-$(SEED)$(if $(filter small,$(SCALE)),-small) $(ARGS)

compilers: $(VENV)/compilers/.ready

docs: $(VENV)/.ready-docs
	$(run) sphinx --builder html --fail-on-warning --keep-going --conf-dir docs . docs/_build/html $(ARGS)

lint: $(VENV)/.ready-test
	$(run) ruff check .
	$(run) ruff format --check .
	$(run) mypy

format: $(VENV)/.ready-test
	$(run) ruff check --fix .
	$(run) ruff format .

$(VENV)/.ready: requirements.txt $(if $(alive),,remake)
	$(if $(alive),,$(check_python))
	$(if $(alive),rm -f "$@" "$@-test" "$@-gguf" "$@-gym" "$@-harness" "$@-serve" "$@-docs","$(PYTHON)" -m venv --clear "$(VENV)")
	$(install) -r requirements.txt
	touch "$@"

$(VENV)/.ready-gguf: requirements-gguf.txt $(VENV)/.ready
	$(install) -r requirements-gguf.txt -c requirements.txt
	touch "$@"

$(VENV)/.ready-gym: requirements-gym.txt $(VENV)/.ready
	$(install) -r requirements-gym.txt -c requirements.txt
	touch "$@"

$(VENV)/.ready-harness: requirements-harness.txt $(VENV)/.ready
	$(install) -r requirements-harness.txt -c requirements.txt
	touch "$@"

$(VENV)/.ready-serve: requirements-serve.txt $(VENV)/.ready
	$(install) -r requirements-serve.txt -c requirements.txt
	touch "$@"

$(VENV)/.ready-test: requirements-test.txt requirements-gguf.txt requirements-gym.txt requirements-harness.txt requirements-serve.txt $(VENV)/.ready
	rm -f "$@"
	$(install) -r requirements-test.txt -c requirements.txt
	touch "$@"

$(VENV)/.ready-docs: requirements-docs.txt $(VENV)/.ready
	$(install) -r requirements-docs.txt -c requirements.txt
	touch "$@"

$(VENV)/compilers/.ready: requirements-compile.txt $(VENV)/.ready
	rm -rf "$(VENV)/compilers"
	$(install) --no-deps --target "$(VENV)/compilers" -r requirements-compile.txt
	touch "$@"

clean:
	rm -rf "$(VENV)" .venv-* .cache docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find benchmarks configs launch models rlp tests -type d -name __pycache__ -prune -exec rm -rf {} +
