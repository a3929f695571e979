# What one can do here. `make help` lists it. ARGS="..." is passed on to the target's command.
.DEFAULT_GOAL := help
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(notdir $(PYTHON))
VLLM_VENV := .venv-vllm
VLLM_INSTALLED := $(VLLM_VENV)/.installed
TINY_MODEL := $(VLLM_VENV)/tiny-model/model.safetensors
COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --custom-compile-command "make lock" $(ARGS)

.PHONY: help install check format test fuzz demo evaluation evaluation-smoke e2e-vllm tools cluster e2e e2e-federation e2e-gateways faults compile bench bench-federation soak crds proto charts dashboards lock clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-16s %s\n", $$1, $$2}'

install: $(INSTALLED) ## make .venv with the locked dependencies (PYTHON=python3.12 chooses the Python)

check: $(INSTALLED) ## lint, formatting, types and the layer contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## format the code and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

test: $(INSTALLED) ## run the tests (ARGS="tests/routing -k ledger" runs some of them)
	$(BIN)/pytest $(or $(ARGS),-n 2 --dist loadfile)

fuzz: $(INSTALLED) ## look for input that breaks its readers, a minute (ARGS="--seconds 600")
	$(BIN)/pytest tests/fuzz $(or $(ARGS),--seconds 60)

demo: $(INSTALLED) ## three regions, a day of theirs and what federation makes of it (ARGS="--single-region")
	@$(BIN)/heliostat demo $(ARGS)

evaluation: $(INSTALLED) ## write docs/evaluation.md anew, half an hour (ARGS="--traces DIR" plays traces)
	$(BIN)/heliostat sim evaluate $(ARGS)

evaluation-smoke: $(INSTALLED) ## fail if Heliostat falls behind its recorded ratios to SkyLB
	$(BIN)/heliostat sim evaluate --smoke $(ARGS)

e2e-vllm: $(INSTALLED) $(TINY_MODEL) ## two real vLLM on the CPU behind the gateway (6 GB on disk)
	$(BIN)/pytest e2e/vllm $(ARGS)

tools: $(INSTALLED) ## build the e2e cluster's programs from Go modules (about 6 minutes, once)
	@$(BIN)/python -m heliostat_cluster tools

cluster: $(INSTALLED) ## a real control plane with fake GPU nodes, until ^C (ARGS="--nodes 4")
	@$(BIN)/python -m heliostat_cluster up $(ARGS)

e2e: $(INSTALLED) ## the scenarios on such clusters, as root (E2E_CLUSTER=kind: on one of kind)
	@$(BIN)/python -m heliostat_cluster tools
	$(BIN)/pytest charts/tests e2e/cluster_tests $(if $(filter kind,$(E2E_CLUSTER)),,-n 3 --dist loadfile) $(ARGS)
	$(if $(ARGS)$(filter kind,$(E2E_CLUSTER)),,$(BIN)/pytest e2e/federation/test_overflow.py e2e/federation/test_residency.py)

e2e-gateways: $(INSTALLED) ## Envoy Gateway in front of the router, as root (built once, minutes)
	$(BIN)/pytest e2e/gateways $(ARGS)

e2e-federation: $(INSTALLED) ## three regions far apart, as root (ARGS=--long: ten minutes of faults too)
	$(BIN)/pytest e2e/federation $(ARGS)

faults: $(INSTALLED) ## engines, router and Envoy that fail in every way, a few minutes
	$(BIN)/pytest e2e/faults $(ARGS)

# Modules with dataclasses, enums or protocols stay Python, and those whose objects are referred to weakly.
compile: $(INSTALLED) ## the core in C, into build/compiled: PYTHONPATH=build/compiled uses it (needs a C compiler)
	rm -rf build/compiled && mkdir -p build/compiled && cp -r routing/heliostat_routing build/compiled/
	cd build/compiled && MYPYPATH=. MYPYC_OPT_LEVEL=1 $(CURDIR)/$(BIN)/mypyc --strict $$(grep -rL --include='*.py' \
		'@dataclass\|Enum)\|Protocol)' heliostat_routing | grep -v '__init__\|errors.py\|/pool.py\|reference.py')

bench: $(INSTALLED) ## what a request costs router and Envoy, beside the floor (ARGS=--quick: two minutes)
	@$(BIN)/python bench/gateway.py --json bench-gateway.json $(ARGS)

soak: $(INSTALLED) ## half an hour at half of the highest rate; fails if memory or latency rise (ARGS="--minutes 5")
	@$(BIN)/python bench/soak.py --json bench-soak.json $(ARGS)

bench-federation: $(INSTALLED) ## what a hop costs and what federation brings, as root
	$(BIN)/python bench/federation.py $(ARGS)

crds: $(INSTALLED) ## write the CRDs and the pages that list their fields from the models
	$(BIN)/python -m heliostat_crds.generate

proto: $(INSTALLED) ## write the Python code of the region state protocol
	$(BIN)/python -m grpc_tools.protoc -I extproc --python_out=extproc --pyi_out=extproc \
		heliostat_extproc/federation/state.proto

charts: $(INSTALLED) ## write the charts' table of values, and what each case of their tests renders
	$(BIN)/python charts/values_table.py
	$(BIN)/pytest charts/tests/test_golden.py --regenerate $(ARGS)

dashboards: $(INSTALLED) ## write the page of metrics and the Grafana dashboard from the list of metrics
	$(BIN)/python monitoring/generate.py

lock: $(INSTALLED) ## write the lock files from pyproject.toml (ARGS=--upgrade takes newer versions)
	$(COMPILE) --universal --python-version 3.11 pyproject.toml --group dev -o requirements.lock
	$(COMPILE) --python-version 3.11 --python-platform linux --override e2e/vllm/overrides.txt \
		e2e/vllm/requirements.txt -o e2e/vllm/requirements.lock

clean: ## remove the environments and the caches
	rm -rf $(VENV) $(VLLM_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

# Redone when the lock, the metadata or the chosen Python changes.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Heliostat needs Python 3.11 or newer, $(PYTHON) is %d.%d: try make PYTHON=python3.12" % v[:2])'
	@test "$$($(BIN)/python -V 2>&1)" = "$$($(PYTHON) -V)" || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $(VENV)/.installed-*
	@echo "Installing into $(VENV): about half a minute, once."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VLLM_INSTALLED): e2e/vllm/requirements.lock | $(INSTALLED)
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(VLLM_VENV)
	$(BIN)/uv pip sync --python $(VLLM_VENV)/bin/python --require-hashes e2e/vllm/requirements.lock
	@touch $@

$(TINY_MODEL): e2e/vllm/tiny_model.py $(VLLM_INSTALLED)
	$(VLLM_VENV)/bin/python e2e/vllm/tiny_model.py $(@D)
	@touch $@
