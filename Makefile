# The project's verbs; `make help` lists them. Python >= 3.11, a C++ compiler and make are all they need.
SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
LOG := $(VENV)/install.log

# A plain `torch` brings several GB of CUDA libraries on Linux; this release has a CPU build. Set TORCH=torch for the newest.
TORCH ?= torch==2.13.0

# llama-cpp-python comes as source. Its bindings need one library: no programs, tests, multimodal part, TLS or OpenMP.
export CMAKE_ARGS ?= -DCMAKE_PROJECT_INCLUDE='$(CURDIR)/packaging/llama.cmake' -DLLAVA_BUILD=OFF \
	-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF \
	-DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF -DGGML_OPENMP=OFF

PIP = PYTHONUNBUFFERED=1 $(BIN)/python -m pip --disable-pip-version-check
# Shows what pip and the compiler are at, a line a step; the whole output is kept in $(LOG).
NARRATE = | tee -a $(LOG) | awk -f packaging/narrate.awk || { tail -n 30 $(LOG) >&2; \
	echo "the installation failed; the whole log is in $(LOG)" >&2; exit 1; }

# Nothing here touches the experts that you have installed.
OURS := EXPERT_HOME="$(CURDIR)/.state"
SLOW ?=

.PHONY: help
help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(if $(PYTHON),,echo "no Python of at least 3.11 was found; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1)
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@command -v c++ g++ clang++ >/dev/null || { \
		echo "no C++ compiler was found; on Debian: apt-get install g++, on macOS: xcode-select --install" >&2; exit 1; }
	@echo "Installing; llama.cpp is compiled, which takes about 2 minutes on 2 cores"
	@set -o pipefail; $(PIP) install -v -e . 2>&1 $(NARRATE)
	@touch $@

$(VENV)/tested: $(VENV)/installed
	@echo "Installing the trainer and the development tools"
	@set -o pipefail; $(PIP) install -v $(TORCH) 2>&1 $(NARRATE)
	@set -o pipefail; $(PIP) install -v -e '.[train,dev]' 2>&1 $(NARRATE)
	@touch $@

$(VENV)/benched: $(VENV)/tested
	@echo "Installing the peers to measure against"
	@set -o pipefail; $(PIP) install -v -e '.[bench]' 2>&1 $(NARRATE)
	@touch $@

.PHONY: demo
demo: $(VENV)/installed  ## Install the SQL expert and ask the sample shop three questions
	@$(OURS) PATH="$(CURDIR)/$(BIN):$$PATH" packaging/demo.sh

.PHONY: lint
lint: $(VENV)/tested  ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy

.PHONY: test
test: lint  ## Check, then run the tests; SLOW=1 runs the long ones too
	@$(BIN)/pytest --durations=10 $(if $(SLOW),,-m "not slow")

.PHONY: wheel
wheel: $(VENV)/tested  ## Build dist/*.whl
	@$(BIN)/python -m build --wheel --outdir dist .

.PHONY: bench-startup
bench-startup: $(VENV)/installed  ## Time --help, one cold question and a warm conversation
	@$(OURS) $(BIN)/python benchmarks/startup.py

.PHONY: bench-decode
bench-decode: $(VENV)/benched  ## Time constrained decoding beside its peers
	@$(OURS) $(BIN)/python benchmarks/decode.py

.PHONY: bench-package
bench-package: $(VENV)/tested  ## Time archives, the store and the resolver
	@$(OURS) $(BIN)/python benchmarks/package.py

.PHONY: picture
picture: $(VENV)/installed  ## Draw README's picture from a real run
	@$(OURS) $(BIN)/python benchmarks/picture.py --out packaging/chat.svg

.PHONY: clean
clean:  ## Remove what these targets made
	@rm -rf $(VENV) .state dist .mypy_cache .pytest_cache .ruff_cache
