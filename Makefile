# Everything a person does in a checkout; `make` alone lists it.
CACHE := $(or $(XPU_FLEET_CACHE),$(HOME)/.cache/xpu-fleet)
# One virtual environment per Python and content of a requirements file: two Pythons in use do not remove each other's.
PYTHON := $(shell python3 -c 'import sys; print(sys.version.split()[0], sys.base_prefix)' 2>/dev/null)
venv_of = $(CACHE)/venv/$(1)-$(shell { echo "$(PYTHON)"; cat requirements/$(1).txt; } | sha256sum | cut -c1-16)
DEV := $(call venv_of,dev)
LOAD := $(call venv_of,load)
SBOM := $(call venv_of,sbom)
DEMO := $(call venv_of,demo)
PAGE := $(call venv_of,page)
BUILD := $(call venv_of,build)
CLIENTS := $(call venv_of,clients)
LLAMA_INDEX := $(call venv_of,clients-llama-index)

HOST_PATH := $(PATH)
export PYTHONDONTWRITEBYTECODE := 1
rig = PYTHONPATH=molecule python3 -m rig
collection := collections/ansible_collections/xpu/fleet

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
# What runs at the same time says whose line it is, and is kept: the end of the output is not where it failed. It is kept
# without molecule's colours and frames, among which no line begins with what failed.
LOGS := $(CACHE)/run/logs
plain = sed --unbuffered --regexp-extended 's/\x1b\[[0-9;]*m//g; s/^ *│ //'
marked = $(if $(TOGETHER),2>&1 | $(plain) | tee $(LOGS)/$@.log | sed --unbuffered 's/^/$@: /')

.DEFAULT_GOAL := help
.PHONY: help demo chat demo-shell demo-remove demo-fleet demo-fleet-remove test lint unit containers molecule machines test-faults test-drift test-fleet test-gateway test-engine
.PHONY: test-core test-roles test-upgrade test-load bench-inference bench-llama-cpp bench-fleet bench-gateway build sanity page docs lock clean
.PHONY: test-clients tools machine-tools gateway-tools sbom advisories
.PHONY: venv-dev venv-demo venv-build venv-page venv-load venv-sbom venv-clients venv-clients-llama-index

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

demo demo-shell demo-remove demo-fleet demo-fleet-remove: export PATH := $(DEMO)/bin:$(HOST_PATH)

demo: venv-demo ## Build a local node from a bare system and ask it a question
	@python3 molecule/demo.py

chat: ## Chat with the node of the demo
	@no_proxy='*' PYTHONPATH=roles/inference/files/xpuserve python3 -m xpuserve chat --url http://10.77.1.11:8000

demo-shell: venv-demo ## Open a shell in the node of the demo
	@$(rig) shell demo

demo-remove: venv-demo ## Remove the node of the demo
	@$(rig) down --fleet demo

demo-fleet: venv-demo ## Build three nodes and a gateway, and change the nodes while clients send requests
	@PYTHONPATH=molecule python3 molecule/demo_fleet.py

demo-fleet-remove: venv-demo ## Remove the hosts of demo-fleet
	@$(rig) down --fleet demo-fleet

# MACHINES=no leaves the emulated machine out.
test: lint $(if $(filter no,$(MACHINES)),,machine-tools) ## Run all checks and tests
	@mkdir -p $(LOGS) && rm -f $(LOGS)/*.log
	@$(MAKE) --no-print-directory --jobs=2 TOGETHER=1 $(if $(filter no,$(MACHINES)),,machines) containers || { \
	  echo "What failed first (whole output: $(LOGS)):"; \
	  grep --max-count=2 --after-context=25 -E 'fatal: |^E  |^ERROR|rig: ' $(LOGS)/*.log /dev/null; \
	  grep '^FAILED' $(LOGS)/*.log /dev/null; exit 1; }

lint unit containers molecule machines test-faults test-drift test-fleet test-gateway test-core test-roles test-upgrade test-engine test-load \
  bench-inference bench-llama-cpp bench-fleet bench-gateway docs clean tools machine-tools: export PATH := $(DEV)/bin:$(HOST_PATH)

lint: venv-dev ## Check style, types, documents and the changelog
	yamllint --strict .
	ansible-lint
	ruff check
	ruff format --check
	mypy $(collection)/plugins
	mypy roles/inference/files/xpuserve/xpuserve
	mypy molecule/rig molecule/kernel/faults molecule/fleet molecule/demo.py molecule/demo_fleet.py requirements/venv.py requirements/pins.py requirements/advisories.py tests
	python3 tests/docs.py --check
	antsibull-changelog lint

# A virtual machine keeps one processor busy, and everything else another, most of the time. Where there is none, nodes
# and the collection's build, which wait a lot, are tried side by side.
containers: unit
	@$(MAKE) --no-print-directory molecule build
	@$(MAKE) --no-print-directory test-core CORE='--cores 2.17 --nodes none'

unit: tools gateway-tools ## Run the unit tests in parallel, and those of the gateway and of nftables
	{ python3 -m pytest tests/unit --numprocesses auto --maxprocesses 8 --dist worksteal && \
	  python3 -m pytest tests/gateway tests/filter; } $(marked)

test-gateway: tools gateway-tools ## Test the gateway with the HAProxy of each distribution (VERSIONS=trixie, or paths of programs; not in make test)
	PYTHONPATH=molecule python3 -m tests.gateway.versions $(VERSIONS)

molecule: tools ## Build test hosts, provision them twice, test their services
	molecule test --scenario-name default $(marked)

machines: machine-tools ## Change the kernel of a virtual machine, with reboots, a power cut and a panic, and roll it back
	molecule test --scenario-name kernel $(marked)

test-faults: machine-tools ## Inject every fault that the kernel change has to survive (an hour or two; not in make test)
	PYTHONPATH=molecule python3 -m kernel.faults

test-drift: machine-tools ## Change single things on nodes by hand and repair them with site.yml (an hour; not in make test)
	for scenario in default kernel; do \
	  molecule converge --scenario-name $$scenario && \
	  XPU_FLEET_TESTS=drift molecule verify --scenario-name $$scenario && \
	  molecule destroy --scenario-name $$scenario || exit; \
	done

test-fleet: tools ## Change a fleet behind a gateway under load, and let its nodes fail (half an hour; not in make test)
	molecule test --scenario-name fleet

test-core: tools ## Provision a node with each ansible-core, run unit tests on each Python (make test: only the oldest core)
	PYTHONPATH=molecule python3 -m tests.core $(CORE) $(marked)

test-roles: tools ## Test each role alone on a bare node (not in make test)
	PYTHONPATH=molecule python3 -m pytest tests/hosts/test_roles.py

test-upgrade: tools ## Upgrade nodes that version 0.1 provisioned (not in make test)
	PYTHONPATH=molecule python3 -m pytest tests/hosts/test_upgrade.py

test-engine: venv-dev ## Compare batched with single answers, and vectors of texts, on the engines' libraries (not in make test)
	for name in bigdl-cpu peer-transformers openvino; do \
	  engine=$$(PYTHONPATH=molecule python3 tests/engine/environment.py $$name) && \
	  $$engine/bin/python -m pytest tests/engine || exit; \
	done

bench-inference: venv-dev ## Compare the service with its peers, as ratios (a quarter of an hour; BENCH=--help lists options)
	@PYTHONPATH=molecule:roles/inference/files/xpuserve python3 -m tests.bench $(BENCH)

bench-llama-cpp: venv-dev ## Build the peer that is available only as source, for bench-inference (minutes of compiling)
	@PYTHONPATH=molecule python3 -m tests.bench.llama

bench-fleet: tools ## Measure the cost of site.yml on 1, 5 and 20 nodes (BENCH='--nodes 1,5' for fewer, BENCH=--help)
	@PYTHONPATH=molecule python3 tests/bench/fleet.py $(BENCH)

bench-gateway: venv-dev gateway-tools ## Measure the gateway's cost, balancing and cache hits, and its cost for larger fleets (minutes)
	@PYTHONPATH=molecule python3 -m tests.bench.door
	@PYTHONPATH=molecule:roles/inference/files/xpuserve python3 -m tests.bench.prefix
	@PYTHONPATH=molecule python3 -m tests.bench.fleet_size

build sanity: export PATH := $(BUILD)/bin:$(HOST_PATH)

build: venv-build venv-sbom ## Build the collection, install it in an empty folder, load every part, run Galaxy's tools
	XPU_FLEET_SBOM=$(SBOM)/bin/python python3 -m pytest tests/build $(marked)

sbom: venv-sbom ## Write a bill of materials (CycloneDX) for each environment and the collection into sbom/
	@$(SBOM)/bin/python requirements/sbom.py sbom

advisories: venv-sbom ## Compare PyPI's advisories for the pinned packages with the reviewed ones
	@$(SBOM)/bin/python requirements/advisories.py

sanity: venv-build ## Run ansible-test sanity with each ansible-core that this machine's Pythons can run (CORES=2.21 for one)
	PYTHONPATH=molecule python3 -m tests.build.sanity $(CORES)

page: export PATH := $(PAGE)/bin:$(HOST_PATH)

page: venv-page ## Test the chat page and its accessibility in a headless browser (not in make test)
	@command -v chromium >/dev/null || { echo "To be installed: the Debian package chromium" && apt-get update -q \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium; }
	python3 -m pytest tests/page

test-load: venv-dev venv-load ## Overload the service, disconnect clients and kill engines, with real engines (an hour; not in make test)
	openvino=$$(PYTHONPATH=molecule python3 tests/engine/environment.py openvino) \
	  && bigdl=$$(PYTHONPATH=molecule python3 tests/engine/environment.py bigdl-cpu) \
	  && XPU_FLEET_OPENVINO=$$openvino XPU_FLEET_BIGDL=$$bigdl $(LOAD)/bin/python -m pytest tests/load

test-clients: venv-clients venv-clients-llama-index ## Test the service with unmodified clients of others (not in make test)
	$(CLIENTS)/bin/python -m pytest tests/clients
	$(LLAMA_INDEX)/bin/python -m pytest tests/clients

docs: venv-dev ## Write the variable tables of the roles' READMEs
	@python3 tests/docs.py

lock: ## Lock the versions of the tools (needs uv)
	@sh requirements/lock.sh

clean: venv-dev ## Remove test hosts and the files of tests in the checkout
	@for fleet in default fleet demo demo-fleet dev kernel faults bench core alone; do $(rig) down --fleet $$fleet; done
	@rm -rf .ansible .mypy_cache .pytest_cache .ruff_cache xpu-fleet-*.tar.gz

gateway-tools:
	@PATH="$$PATH:/usr/sbin"; for tool in haproxy keepalived; do command -v $$tool >/dev/null || { echo "To be installed: the Debian package $$tool" && \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$tool; } || exit; done

# Debian packages of this machine, named before they are installed.
tools: venv-dev
	@$(rig) prepare

machine-tools: tools
	@$(rig) prepare --machines

venv-dev venv-demo venv-build venv-page venv-load venv-sbom venv-clients venv-clients-llama-index: venv-%:
	@command -v python3 >/dev/null || { echo "Python 3.11 or newer is needed as python3 in PATH."; exit 1; }
	@PATH="$(HOST_PATH)" python3 requirements/venv.py requirements/$*.txt $(call venv_of,$*)
