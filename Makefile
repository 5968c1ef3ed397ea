# The three commands to begin with are `make run`, `make web` and `make test`. Each does its own setup.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV ?= .venv
ifneq ($(words $(VENV)),1)
$(error VENV: the path of the virtual environment cannot have spaces: name another)
endif
# a virtual environment whose Python was removed is recreated, unless it belongs to another user
$(shell test ! -e $(VENV)/pyvenv.cfg || $(VENV)/bin/python -c '' 2>/dev/null || { test -w $(VENV) && rm -rf $(VENV); })
# a read-only checkout is built and tested in a copy next to the virtual environment
SOURCE := $(shell test -w . && echo . || echo $(VENV)/source)
BIN := $(VENV)/bin
IS_RECENT := -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1
PYTHON ?= $(shell for p in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	$$p $(IS_RECENT) && { echo $$p; break; }; done)
NEEDS_PYTHON = Python 3.11 or newer is needed$(if $(PYTHON),$(comma) and PYTHON=$(PYTHON) is none): install one or name it with make PYTHON=...
BUILD_INPUTS := pyproject.toml setup.py $(wildcard ext/*.pyx openguild_proto/fanout/*.pxd)
INSTALL := deploy/install.sh $(BIN)/python $(VENV)/install.log
DATA_DIR ?= .data
PYTEST := $(BIN)/python -m pytest
# distributed by module, in the order of tests/conftest.py; workers have their own PostgreSQL and NATS, and are often idle
PARALLEL := -n 5 --dist loadscope --no-loadscope-reorder
export OPENGUILD_SERVER__HOST ?= 127.0.0.1
# tests start hundreds of processes, which all would compile every module without stored bytecode
unexport PYTHONDONTWRITEBYTECODE

comma := ,

.PHONY: help run run-federation federation-chaos guild-moves web test test-pure test-native simulate simulate-federation chaos client-chaos failover rollout incidents races conformance fuzz ci lint docs descriptions validate dist-test image-test compose-test pods-test container-tests predeploy dashboard-picture image-layout fmt bench bench-core bench-load bench-http bench-cluster bench-search bench-gateway bench-idle bench-hostile bench-endurance budget clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ \
		line = sprintf("%-20s", $$1); count = split($$2, words, " "); \
		for (i = 1; i <= count; i++) { \
			if (length(line " " words[i]) > 79) { print line; line = sprintf("%-20s", "") } \
			line = line " " words[i] } \
		print line }'

define install
	@echo "Installing into $(VENV): up to two minutes the first time, mostly for the extension."
	@test -w . || { rm -rf $(SOURCE) && mkdir $(SOURCE) && tar -cf - --exclude=./.venv --exclude=./.data --exclude=./.git . | tar -xf - -C $(SOURCE); }
	@$(INSTALL) --editable '$(SOURCE)[$(1)]'
endef

# installs the packages of an extra without pip's `.[extra]`, which would build the extension again
define add
	@echo "Installing into $(VENV): the packages of $(1)."
	@$(BIN)/python deploy/requirements.py $(1) >$(VENV)/requirements.txt
	@$(INSTALL) --requirement $(VENV)/requirements.txt
endef

$(BIN)/python:
	@test -w . || { case $(VENV) in /*) mkdir -p $(VENV) 2>/dev/null && test -w $(VENV);; *) false;; esac; } || { \
	echo "$(CURDIR) is not writable: choose other directories: make run VENV=/path/venv DATA_DIR=/path/data" >&2; exit 1; }
	@trap 'exit 130' INT; $(or $(PYTHON),false) $(IS_RECENT) || { echo "$(NEEDS_PYTHON)" >&2; exit 1; }
	@echo "Making a virtual environment with $$($(PYTHON) --version)."
	@trap '' INT; $(PYTHON) -m venv $(VENV)  # Ctrl-C takes effect afterwards, so that no partial environment is left

$(VENV)/.embedded: $(BUILD_INPUTS) | $(BIN)/python
	$(call install,embedded$(comma)chat)
	@touch $@

$(VENV)/.dev: $(VENV)/.embedded
	$(call add,dev)
	@touch $@

$(VENV)/.fuzz $(VENV)/.docs $(VENV)/.bench: $(VENV)/.%: $(VENV)/.dev
	$(call add,$*)
	@touch $@

.PHONY: require-port
require-port:
	@trap 'exit 130' INT; test -z "$(PYTHON)" || $(PYTHON) $(IS_RECENT) || { echo "$(NEEDS_PYTHON)" >&2; exit 1; }
	@test -z "$(PYTHON)" || $(PYTHON) deploy/require_port.py

run: require-port $(VENV)/.embedded  ## serve on 127.0.0.1:8080 with a private PostgreSQL and NATS; data is kept in .data
	@exec $(BIN)/openguild-server --embedded --data-dir "$(DATA_DIR)"

FEDERATION_DIR ?= .data-federation
FEDERATION_PORT ?= 8090

run-federation: $(VENV)/.embedded  ## run three servers that mirror each other's guilds, on 127.0.0.1:8090 to 8092
	@exec $(BIN)/python deploy/federation/run.py --data-dir "$(FEDERATION_DIR)" --port $(FEDERATION_PORT)

API ?= http://127.0.0.1:$(or $(OPENGUILD_SERVER__PORT),8080)
WEB_PORT ?= 8081

web:  ## serve the page of docs/web on 127.0.0.1:WEB_PORT=8081; needs `make run`
	@exec $(or $(PYTHON),$(BIN)/python) docs/web/serve.py --port $(WEB_PORT) --api $(API)

test: $(VENV)/.dev  ## run the whole suite on a real PostgreSQL and a real nats-server, in random order
	cd $(SOURCE) && $(PYTEST) $(PARALLEL)

test-pure: $(VENV)/.dev  ## run the suite with the pure-Python ring and coverage, without simulation and chaos
	cd $(SOURCE) && OPENGUILD_PURE=1 $(PYTEST) $(PARALLEL) --cov --cov-report=term --ignore=tests/simulation --ignore=tests/scenarios/test_chaos.py

SANITIZERS = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)
NATIVE_TESTS := tests/parity tests/runtime/net/test_flush.py tests/proto/fanout

test-native: $(VENV)/.dev  ## test the compiled parts with assertions, under the address and undefined-behaviour sanitizers
	OPENGUILD_DEBUG_EXT=sanitize $(BIN)/python setup.py -q build_ext --inplace --force
	LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 $(PYTEST) -p no:cacheprovider $(NATIVE_TESTS); \
	status=$$?; $(BIN)/python setup.py -q build_ext --inplace --force; exit $$status

SEEDS ?= 1000

# with whole servers, a sixth as fast: PYTHONPATH=. $(BIN)/python -m tests.simulation.runtime --seeds $(SEEDS)
simulate: $(VENV)/.dev  ## simulate three replicas for SEEDS=1000 seeds, on all cores; stops at the first violation
	PYTHONPATH=. $(BIN)/python -m tests.simulation --seeds $(SEEDS)

simulate-federation: $(VENV)/.dev  ## simulate three federated servers for SEEDS=1000 seeds; stops at the first violation
	PYTHONPATH=. $(BIN)/python -m tests.simulation.federation --seeds $(SEEDS)

client-chaos: $(VENV)/.dev  ## run both clients against a server that injects faults, for SEEDS=20 seeds of half a minute each
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.client_chaos --seeds $(SEEDS)
	! command -v node >/dev/null || PYTHONPATH=. $(BIN)/python -m tests.scenarios.client_chaos --seeds $(SEEDS) --client javascript

chaos: $(VENV)/.dev  ## run three real replicas with 200 clients, 16,000 posts with their changes, and ten faults: about five minutes
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.chaos

ROUNDS ?= 200

federation-chaos: $(VENV)/.dev  ## run three real servers with 200 users in each other's guilds, 20,000 posts, kills and cut links
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.servers

failover: $(VENV)/.dev  ## read 100,000 own writes from a standby, then kill the primary under 500 posts a second: some minutes
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.failover
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.failover.own_reads

guild-moves: $(VENV)/.dev  ## move a guild between three real servers of REPLICAS=1 while users write, with kills; then lose its owner
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.moving --replicas $(or $(REPLICAS),1)

rollout: $(VENV)/.dev  ## restart two replicas under CLIENTS=300 gateway clients behind nginx and haproxy, if installed
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.rollout --clients $(or $(CLIENTS),300)

incidents: $(VENV)/.dev  ## reproduce the incidents of docs/runbooks.md on real servers, with the commands of the page
	$(PYTEST) -o python_files="incident_*.py" -n 4 --dist loadscope -p no:randomly tests/incidents

races: $(VENV)/.dev  ## race each change against each loss of its author's permission, ROUNDS=200 times, on two real replicas
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.races --rounds $(ROUNDS)

conformance: $(VENV)/.dev  ## run the Autobahn server cases against the core's connection, if Python 2.7 is installed
	PYTHONPATH=. $(BIN)/python -m tests.conformance

SECONDS ?= 300

fuzz: $(VENV)/.fuzz  ## fuzz all targets for SECONDS=300, guided by coverage; stops at the first finding
	PYTHONPATH=. $(BIN)/python -m tests.fuzz --seconds $(SECONDS)

bench-hostile: $(VENV)/.bench  ## measure other clients during slow, hostile and guessing peers, and whether login times reveal user names
	PYTHONPATH=. $(BIN)/python -m benchmarks.hostile --save

CONNECTIONS ?= 1000000
MINUTES ?= 20

bench-endurance: $(VENV)/.bench  ## check for leaks after CONNECTIONS=1000000, each tenth cut, also through nginx and haproxy, and MINUTES=20 of abuse
	PYTHONPATH=. $(BIN)/python -m benchmarks.endurance resets --save --connections $(CONNECTIONS)
	PYTHONPATH=. $(BIN)/python -m benchmarks.endurance resets --save --connections $$(($(CONNECTIONS) / 10)) --loop asyncio
	PYTHONPATH=. $(BIN)/python -m benchmarks.endurance soak --save --minutes $(MINUTES)

lint: $(VENV)/.dev  ## ruff, mypy --strict on both packages, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

EXAMPLES ?= 8

descriptions: $(VENV)/.dev  ## test the OpenAPI and AsyncAPI documents with generated clients and schemathesis (EXAMPLES=8)
	PYTHONPATH=. $(BIN)/python -m tests.descriptions --examples $(EXAMPLES)

docs: $(VENV)/.docs  ## build the documents as a site in build/docs/html; warnings are errors, links are checked
	$(BIN)/python docs/site/build.py

validate: $(VENV)/.dev  ## check everything under deploy/ with the installed tools; prints what it skips
	$(BIN)/python deploy/validate.py

dist-test: $(VENV)/.dev  ## install the source distribution and the wheel outside the checkout, with and without a compiler
	$(BIN)/python deploy/dist_test.py

image-test: $(VENV)/.dev  ## build and run the container image with a private Docker engine; needs root and Debian
	PYTHONPATH=. $(BIN)/python -m tests.image

compose-test: $(VENV)/.dev  ## run deploy/compose.yaml with a private Docker engine, with substitutes for images of registries
	PYTHONPATH=. $(BIN)/python -m tests.image compose

pods-test: $(VENV)/.dev  ## roll out three pods of the rendered prod overlay, behind haproxy under load
	PYTHONPATH=. $(BIN)/python -m tests.image pods

container-tests: $(VENV)/.dev  ## run image-test, compose-test and pods-test with one engine and one build
	PYTHONPATH=. $(BIN)/python -m tests.image image compose pods

predeploy: ci  ## run the checks before a deploy: all of CI, then the migrations to review
	$(BIN)/openguild-server migrate --sql

dashboard-picture: $(VENV)/.bench  ## draw docs/dashboard.svg from a real server and a real Prometheus
	PYTHONPATH=. $(BIN)/python deploy/observability/grafana/picture.py

image-layout: $(BIN)/python  ## build the image's files without Docker, in build/image/app
	rm -rf build/image && mkdir -p build/image
	deploy/image/build.sh "$(CURDIR)/build/image/app"

fmt: $(VENV)/.dev  ## format and sort imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci: lint budget docs descriptions validate dist-test container-tests test test-pure  ## run everything that CI runs

bench: bench-core bench-load bench-http bench-cluster  ## run all benchmarks

bench-load: $(VENV)/.bench  ## compare the fan-out with its peers, alternating, in one run: 15 minutes with all of them
	PYTHONPATH=. $(BIN)/python -m benchmarks run load --save

bench-http: $(VENV)/.bench  ## posts, pages, logins and more: CPU of the server against FastAPI's, side by side: about six minutes
	PYTHONPATH=. $(BIN)/python -m benchmarks run http --save

bench-cluster: $(VENV)/.bench  ## appends, replicas, workers, storms and outages: about five minutes
	PYTHONPATH=. $(BIN)/python -m benchmarks.cluster --save

bench-search: $(VENV)/.dev  ## searches in a million messages: about half an hour
	PYTHONPATH=. $(BIN)/python -m benchmarks.search --save

bench-gateway: $(VENV)/.dev  ## gateway sockets in one process: memory of a subscription, CPU of a delivery, a reader that stops
	PYTHONPATH=. $(BIN)/python -m benchmarks.gateway

bench-idle: $(VENV)/.dev  ## very many idle subscribers of one process: their memory, and one message to all of them
	PYTHONPATH=. $(BIN)/python -m benchmarks.idle

bench-core: $(VENV)/.dev  ## ring, hub, framing, canonical events and parsing: pure Python and Cython side by side
	$(PYTEST) -o python_files="bench_*.py" benchmarks/core --benchmark-only --benchmark-columns=min,median,mean --benchmark-disable-gc --benchmark-timer=time.thread_time --benchmark-sort=name -p no:randomly

budget: $(VENV)/.dev  ## instructions of a post, a page, a delivery, under valgrind: more than 5% above the budget fails; SAVE=--save keeps them
	PYTHONPATH=. $(BIN)/python -m benchmarks.budget $(SAVE)

.PHONY: flame
FLAME_ONLY = $(or $(ONLY),$(if $(filter load,$(SUITE)),openguild),$(if $(filter http,$(or $(SUITE),http)),openguild$(comma)post))
flame: $(VENV)/.bench  ## build/flame.svg, a flame graph of all Python processes of SUITE=http, of its part ONLY=openguild,post
	mkdir -p build
	PYTHONPATH=. $(BIN)/py-spy record --subprocesses --rate 250 --output build/flame.svg -- $(BIN)/python -m benchmarks run $(or $(SUITE),http) --quick $(if $(FLAME_ONLY),--only "$(FLAME_ONLY)")

clean:  ## remove what was built; keeps .data
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .coverage .coverage.*
	find openguild_proto openguild_runtime ext \( -name '*.so' -o -name '*.c' \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
