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
	echo "$(CURDIR) cannot be written: name other places for what is built and kept: make run VENV=/path/venv DATA_DIR=/path/data" >&2; exit 1; }
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

run-federation: $(VENV)/.embedded  ## three servers that mirror each other's guilds, on 127.0.0.1:8090 to 8092
	@exec $(BIN)/python deploy/federation/run.py --data-dir "$(FEDERATION_DIR)" --port $(FEDERATION_PORT)

API ?= http://127.0.0.1:$(or $(OPENGUILD_SERVER__PORT),8080)
WEB_PORT ?= 8081

web:  ## the page of docs/web on 127.0.0.1:WEB_PORT=8081, beside `make run`
	@exec $(or $(PYTHON),$(BIN)/python) docs/web/serve.py --port $(WEB_PORT) --api $(API)

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

# with whole servers, a sixth as fast: PYTHONPATH=. $(BIN)/python -m tests.simulation.runtime --seeds $(SEEDS)
simulate: $(VENV)/.dev  ## SEEDS=1000 seeds of three replicas on simulated time, on all cores; stops at the first violation
	PYTHONPATH=. $(BIN)/python -m tests.simulation --seeds $(SEEDS)

simulate-federation: $(VENV)/.dev  ## SEEDS=1000 seeds of three servers that federate; stops at the first violation
	PYTHONPATH=. $(BIN)/python -m tests.simulation.federation --seeds $(SEEDS)

client-chaos: $(VENV)/.dev  ## SEEDS=20 seeds of a server that causes faults, with both clients: half a minute each
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.client_chaos --seeds $(SEEDS)
	! command -v node >/dev/null || PYTHONPATH=. $(BIN)/python -m tests.scenarios.client_chaos --seeds $(SEEDS) --client javascript

chaos: $(VENV)/.dev  ## three real replicas, 200 clients, 16,000 posts and what is done to them, ten faults: about five minutes
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.chaos

ROUNDS ?= 200

federation-chaos: $(VENV)/.dev  ## three real servers, 200 users in each other's guilds, 20,000 posts, kills and cut links
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.servers

failover: $(VENV)/.dev  ## 100,000 reads of one's own write from a standby, then the primary is killed under 500 posts a second: some minutes
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.failover
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.failover.own_reads

guild-moves: $(VENV)/.dev  ## a guild moves between three real servers of REPLICAS=1 while users write, with kills; then its owner is lost
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.moving --replicas $(or $(REPLICAS),1)

rollout: $(VENV)/.dev  ## CLIENTS=300 gateway clients behind nginx and haproxy while two replicas are restarted, as far as these are installed
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.rollout --clients $(or $(CLIENTS),300)

incidents: $(VENV)/.dev  ## the incidents of docs/runbooks.md on real servers, walked with the commands of the page
	$(PYTEST) -o python_files="incident_*.py" -n 4 --dist loadscope -p no:randomly tests/incidents

races: $(VENV)/.dev  ## ROUNDS=200 of each change against each end of its author's right, on two real replicas
	PYTHONPATH=. $(BIN)/python -m tests.scenarios.races --rounds $(ROUNDS)

conformance: $(VENV)/.dev  ## the Autobahn server cases against the core's connection, where Python 2.7 is found
	PYTHONPATH=. $(BIN)/python -m tests.conformance

SECONDS ?= 300

fuzz: $(VENV)/.fuzz  ## coverage-guided fuzzing for SECONDS=300 over all targets; what is found stops it
	PYTHONPATH=. $(BIN)/python -m tests.fuzz --seconds $(SECONDS)

bench-hostile: $(VENV)/.bench  ## slow, hostile and guessing peers: what other clients notice, and whether login times tell names
	PYTHONPATH=. $(BIN)/python -m benchmarks.hostile --save

CONNECTIONS ?= 1000000
MINUTES ?= 20

bench-endurance: $(VENV)/.bench  ## what is left after CONNECTIONS=1000000, each tenth cut, also through nginx and haproxy; MINUTES=20 of abuse
	PYTHONPATH=. $(BIN)/python -m benchmarks.endurance resets --save --connections $(CONNECTIONS)
	PYTHONPATH=. $(BIN)/python -m benchmarks.endurance resets --save --connections $$(($(CONNECTIONS) / 10)) --loop asyncio
	PYTHONPATH=. $(BIN)/python -m benchmarks.endurance soak --save --minutes $(MINUTES)

lint: $(VENV)/.dev  ## ruff, mypy --strict on both packages, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

EXAMPLES ?= 8

descriptions: $(VENV)/.dev  ## OpenAPI and AsyncAPI of a running server: generated clients chat, schemathesis EXAMPLES=8 finds nothing
	PYTHONPATH=. $(BIN)/python -m tests.descriptions --examples $(EXAMPLES)

docs: $(VENV)/.docs  ## the documents as a site, into build/docs/html: warnings are errors, links are checked
	$(BIN)/python docs/site/build.py

validate: $(VENV)/.dev  ## everything under deploy/, as far as this machine has the tools: it names what it skips
	$(BIN)/python deploy/validate.py

dist-test: $(VENV)/.dev  ## source distribution and wheel, installed outside the checkout, with and without a compiler
	$(BIN)/python deploy/dist_test.py

image-test: $(VENV)/.dev  ## the container image built and run, by a Docker engine that exists for this only; needs root and Debian
	PYTHONPATH=. $(BIN)/python -m tests.image

compose-test: $(VENV)/.dev  ## deploy/compose.yaml, whole, by an engine of its own, with stand-ins for what comes from a registry
	PYTHONPATH=. $(BIN)/python -m tests.image compose

pods-test: $(VENV)/.dev  ## three pods of the rendered prod overlay, replaced as its Deployment says, behind haproxy under load
	PYTHONPATH=. $(BIN)/python -m tests.image pods

container-tests: $(VENV)/.dev  ## image-test, compose-test and pods-test, with one engine and one build
	PYTHONPATH=. $(BIN)/python -m tests.image image compose pods

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

ci: lint budget docs descriptions validate dist-test container-tests test test-pure  ## all that CI runs

bench: bench-core bench-load bench-http bench-cluster  ## all benchmarks

bench-load: $(VENV)/.bench  ## the fan-out against its peers, alternating, in one run: a quarter of an hour with all of them
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
