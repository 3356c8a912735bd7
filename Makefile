# raylens: one environment, one check, one test run. `make help` lists the targets.
PYTHON ?= python3
PORT ?= 8000
STORAGE ?= quickstart
BIN := .venv/bin
KILLS := $(addprefix tests/integration/nodes/,test_chaos.py test_elastic.py)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where it is set, each of a run's processes compiles all that it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help quickstart serve test test-slow chaos unit check lint format benchmarks clean
help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: .venv/.runtime ## digit scans to a served embedding, for real, in one and a half to three minutes
	$(BIN)/raylens quickstart --storage $(STORAGE)

serve: .venv/.runtime ## serve the quickstart's model on PORT (8000) until Ctrl-C
	@test -d $(STORAGE)/registry || { echo "no model in $(STORAGE)/registry: run 'make quickstart' first" >&2; exit 1; }
	$(BIN)/raylens serve digits --registry $(STORAGE)/registry --port $(PORT)

test: .venv/.dev ## all tests but the long ones: real Ray, real DeepSpeed, a real S3 endpoint
	$(BIN)/python tests/run.py test

test-slow: .venv/.dev ## the long ones: kills, nodes that come and go, jobs on three raylets
	$(BIN)/python tests/run.py slow

chaos: .venv/.dev ## a dozen kills over one run; prints the table of docs/reliability.md
	RAYLENS_CHAOS_KILLS=$${RAYLENS_CHAOS_KILLS:-12} \
	  sh -c 'for file in $(KILLS); do $(BIN)/python -m pytest -s $$file || exit 1; done'

unit: .venv/.dev ## the tests that take seconds, on every core
	$(BIN)/python -m pytest tests/unit -q -n logical --dist worksteal --durations=25

check: lint unit ## format, lint, types, import contracts, unit tests

lint: .venv/.dev ## what `check` does before the unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python .ci/sentences.py
	$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

format: .venv/.dev ## format the code and mend what the linter can
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .

benchmarks: .venv/.dev .peers/webdataset .peers/infinity ## the claims of docs/benchmarks.md, measured again
	for name in objectives.contrastive streaming.throughput streaming.pause startup.phases models.text_tower models.model_step train_loop.steps \
	  sweep serving.throughput; do $(BIN)/python -m benchmarks.$$name || exit 1; done

# A peer has an environment of its own, with the versions of what both sides use.
.peers/webdataset: constraints.txt
	$(PYTHON) -m venv $@
	$@/bin/pip install -q -c constraints.txt torch
	$@/bin/pip install -q -c constraints.txt webdataset==1.0.2 pillow tokenizers numpy
	touch $@

# Its requirements as its own documentation lists them, without the CUDA libraries that its extras would bring.
.peers/infinity: constraints.txt
	$(PYTHON) -m venv $@
	$@/bin/pip install -q -c constraints.txt torch
	$@/bin/pip install -q --no-deps "infinity_emb[torch,vision,server]==0.0.78"
	$@/bin/pip install -q "transformers<5" sentence-transformers fastapi uvicorn prometheus-fastapi-instrumentator typer \
	  orjson rich einops pillow numpy posthog httptools uvloop soundfile aiohttp python-multipart
	touch $@

clean: ## remove the environment and caches; runs and data stay
	rm -rf .venv .peers benchmarks/.data .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  f"raylens needs Python 3.11 to 3.13, {sys.executable} is {v.major}.{v.minor}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

# torch first and pinned: an unpinned one brings gigabytes of CUDA libraries.
.venv/.runtime: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[train]'
	$(BIN)/python -m compileall -q platform workloads serve cluster
	touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/pip install -q -c constraints.txt -e '.[train,dev]'
	touch $@
