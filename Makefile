# `make run` and `make test` work as the first command after a clone: each installs what it needs into .venv.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Real data sets, where the machine has them; what needs none runs on data inside scikit-learn.
SECAGG_DATA ?= $(wildcard ../shared/data)
export SECAGG_DATA

.PHONY: help run test lint proto overhead bench robustness study fuzz compatibility clean

help:
	@echo "make run            install, then one federation undefended and one under encryption with ddfed"
	@echo "make test           install, then all tests"
	@echo "make lint           ruff, mypy --strict, generated code up to date"
	@echo "make overhead       what encryption costs: bytes, seconds, memory of small models"
	@echo "make bench          quick benchmarks against named peers: overhead, transport, memory (docs/BENCHMARKS.md)"
	@echo "make robustness     rules against attacks: accuracy, rejections, one robust round's seconds; resumable"
	@echo "make study          which entries to encrypt, asked with attackers who know the mask (docs/LEAKAGE.md); resumable"
	@echo "make fuzz           100,000 mutated messages through every parser"
	@echo "make compatibility  the wire code and the engine under other pins (Flower's, NVFlare's)"
	@echo "make proto          regenerate secagg/_proto from proto/"
	@echo "make clean          remove what the other targets made"

$(VENV)/.run: pyproject.toml constraints.txt install.sh
	@PYTHON="$(PYTHON)" ./install.sh $(VENV) run
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt install.sh
	@PYTHON="$(PYTHON)" ./install.sh $(VENV) dev
	@touch $(VENV)/.run $@

run: $(VENV)/.run
	@$(BIN)/python -m secagg.simulation.comparison --out runs/comparison

# Many tests wait for processes and sockets: a few at once, more than cores.
TEST_PROCESSES ?= 3

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES)

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py --check

proto: $(VENV)/.dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py

overhead: $(VENV)/.dev
	@$(BIN)/secagg overhead

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.overhead --quick --out runs/bench
	@$(BIN)/python -m benchmarks.transport
	@$(BIN)/python -m benchmarks.memory

robustness: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.robust_round
	@$(BIN)/python -m benchmarks.robustness

study: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.selective_study

fuzz: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.fuzz --out runs/fuzz

compatibility: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.compatibility

clean:
	rm -rf $(VENV) .venv-peers runs build *.egg-info
