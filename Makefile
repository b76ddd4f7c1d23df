# Every verb sets up what it needs: a virtual environment in .venv with locked, hashed requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-crash lint types imports bench bench-quick bench-capture test-faults bench-onnx proto docs lock clean

help:            ## show the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv and install the locked requirements

$(STAMP): requirements/dev.txt pyproject.toml
	@echo "setting up $(VENV) (once, about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lightkeeper needs Python 3.11 or later; say which with make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

test-crash: $(STAMP) ## kill the agent 200 times under load and count what it answered OK
	LIGHTKEEPER_CRASHES=200 $(BIN)/pytest tests/capture/test_crash.py

demo: $(STAMP)   ## read a scanned page through an agent with three signed models
	@$(BIN)/python -m demo

lint: $(STAMP)   ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## check types
	$(BIN)/mypy

imports: $(STAMP) ## check the direction of imports
	$(BIN)/lint-imports --no-cache

test: lint types imports ## run every check and test
	$(BIN)/pytest

bench: $(STAMP)  ## measure the agent beside a bare gRPC server, and write docs/benchmarks.md
	$(BIN)/python -m bench --write docs/benchmarks.md

bench-quick: $(STAMP) ## the short form, under a minute; writes nothing
	$(BIN)/python -m bench --effort quick

bench-capture: $(STAMP) ## measure capture beside a bare fdatasync, and write docs/benchmarks-capture.md
	$(BIN)/python -m bench.capture --write docs/benchmarks-capture.md

test-faults: $(STAMP) ## fail the spool's disk at every operation, ten times the random tests (ten minutes)
	LIGHTKEEPER_FAULT_EFFORT=10 $(BIN)/pytest tests/capture/test_spool.py tests/capture/test_spool_machine.py tests/capture/test_spool_faults.py --timeout 1800

bench-onnx: $(STAMP) ## measure ONNX Runtime's settings (docs/adr/0003-onnx-runtime-settings.md), five minutes
	$(BIN)/python bench/onnx_settings.py

proto: $(STAMP)  ## generate the protobuf code from proto/agent.proto
	$(BIN)/python tools/generate_proto.py

docs: $(STAMP)   ## generate the reference pages in docs/ from the code
	$(BIN)/python tools/generate_docs.py

lock:            ## lock the requirements again (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml --extra images --extra aws -o requirements/agent.txt
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml --extra images --extra aws --extra parquet --extra demo --group dev -o requirements/dev.txt

clean:           ## remove what the verbs made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
