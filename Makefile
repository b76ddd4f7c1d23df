# Every verb sets up what it needs: a virtual environment in .venv with locked, hashed requirements.
PYTHON ?= python3
FUZZ_SECONDS ?= 300
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
STAMP := $(VENV)/.wire
TOOLS := $(VENV)/.release-tools
RELEASE_VENV := build/release-venv
RELEASE_PIP := PYTHONWARNINGS=ignore::SyntaxWarning $(BIN)/python -m pip --python $(RELEASE_VENV)/bin/python install --quiet --disable-pip-version-check --no-deps
RELEASE_TESTS ?= tests
RELEASE_SHORT := tests/test_local_api.py tests/test_capture_api.py tests/test_paths.py tests/test_offline.py tests/test_client.py
WIRE_FILES := wire/Cargo.toml wire/Cargo.lock wire/pyproject.toml $(shell find wire/src wire/python wire/vendor -type f -not -name "*.pyc")
WHEELS := build/wheels
WHEEL_TARGETS ?= x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu
WIRE_WHEEL := $(BIN)/maturin build --quiet --release --locked --manifest-path wire/Cargo.toml
PEERS := triton mlserver litserve bentoml
LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))  # every verb

help:            ## show the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv, install the locked requirements, and build the native wire where cargo is present

$(INSTALLED): requirements/dev.txt pyproject.toml
	@echo "setting up $(VENV) (once, about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lightkeeper needs Python 3.11 or later; say which with make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(STAMP): $(INSTALLED) $(WIRE_FILES)
	@mkdir -p $(WHEELS)
	@if ! command -v cargo >/dev/null; then \
		$(BIN)/python -m pip uninstall --quiet --yes lightkeeper-wire 2>/dev/null; \
		echo "wire: grpcio (no cargo to build the native one)"; \
	elif $(WIRE_WHEEL) --out $(WHEELS) >build/wire.log 2>&1 \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall --no-index --find-links $(WHEELS) lightkeeper-wire; then \
		echo "wire: native"; \
	else \
		$(BIN)/python -m pip uninstall --quiet --yes lightkeeper-wire 2>/dev/null; \
		echo "wire: grpcio (the native one could not be built: build/wire.log)"; \
	fi
	@touch $@

wheels: $(TOOLS) ## build wheels and sdists of both distributions into dist/, and check them; the wire's for x86-64 and ARM, glibc 2.17
	@rm -f dist/lightkeeper*.whl dist/lightkeeper*.tar.gz
	@for target in $(WHEEL_TARGETS); do \
		if rustup target list --installed | grep -qx $$target || rustup target add $$target; then \
			PATH=$(abspath $(BIN)):$$PATH $(WIRE_WHEEL) --zig --compatibility manylinux_2_17 --target $$target --out dist || exit 1; \
		else echo "wheels: no wire for $$target (rustup has no standard library for it)"; fi; \
	done
	$(BIN)/python tools/wheel_floor.py dist/lightkeeper_wire-*manylinux_2_17*.whl
	$(BIN)/maturin sdist --manifest-path wire/Cargo.toml --out dist 2>&1 | grep Built
	$(BIN)/python -m hatchling build --target sdist --directory dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --wheel-dir dist dist/lightkeeper-*.tar.gz
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz

test-wire: $(STAMP) ## check and test the wire's Rust (needs cargo)
	cargo fmt --manifest-path wire/Cargo.toml --check
	cargo clippy --quiet --locked --manifest-path wire/Cargo.toml -- --deny warnings
	cargo test --quiet --locked --manifest-path wire/Cargo.toml

fuzz-wire:       ## send the wire whatever a peer might, for FUZZ_SECONDS (300); needs nightly Rust and cargo-fuzz
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { echo "needs: rustup toolchain install nightly; cargo install cargo-fuzz"; exit 1; }
	cd wire && RUSTFLAGS=--cap-lints=warn cargo +nightly fuzz run connection -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096

test-crash: $(STAMP) ## kill the agent 200 times under load and count what it answered OK
	LIGHTKEEPER_CRASHES=200 $(BIN)/pytest tests/capture/test_crash.py

$(TOOLS): $(STAMP) requirements/release-tools.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/release-tools.txt
	@touch $@

release: wheels  ## build the archives for devices into dist/ (needs go; ARGS="--platform linux-x64 --authority DIR --region R"; windows-x64 only if named)
	$(BIN)/python -m release $(ARGS)

test-swap: $(STAMP) ## swap a model 100 times under 8 callers, over each server; no call may fail (a minute)
	LIGHTKEEPER_SWAPS=100 $(BIN)/pytest -q tests/models/test_storm.py --timeout 1800

test-job-crash: $(STAMP) ## kill the hub's workers and hubs 100 times in the middle of jobs (five minutes)
	LIGHTKEEPER_JOB_KILLS=100 $(BIN)/pytest tests/hub/test_job_crash.py --timeout 1800

test-deployments: $(STAMP) ## kill an agent at every change of its files during a deployment, and start it again (ten minutes)
	LIGHTKEEPER_EVERY_KILL=1 $(BIN)/pytest -q tests/deployment/test_kill.py --timeout 3600

test-hub-crash: $(STAMP) ## kill hub processes 60 times during rollouts, on SQLite and on PostgreSQL
	LIGHTKEEPER_HUB_CRASHES=60 $(BIN)/pytest tests/hub/test_rollout_crash.py

test-fleet: $(STAMP) ## 20 agents on one hub: rollouts, bad versions, whose captures are whose, wrong clocks, cut networks (ten minutes)
	LIGHTKEEPER_FLEET=20 $(BIN)/pytest -q tests/fleet --timeout 1800

footprint: release ## measure what the archive and the packages cost a device, and write docs/footprint.md
	$(BIN)/python -m bench.footprint "$$(ls -t dist/release-store-linux-x64/Releases/*/*.tgz | head -n 1)" --write docs/footprint.md

test-release: wheels  ## build the archives and try them where there is no Python: chroot, systemd, C programs, ARM under qemu (root, 20 minutes)
	LIGHTKEEPER_RELEASE=1 $(BIN)/pytest tests/release tests/embed -rP

$(RELEASE_VENV)/.installed: $(STAMP) release/runtime/go.sum
	@rm -rf $(RELEASE_VENV)
	$$($(BIN)/python -m release.python) -m venv --without-pip $(RELEASE_VENV)
	$(RELEASE_PIP) --require-hashes -r requirements/dev.txt
	$(RELEASE_PIP) --no-build-isolation -e .
	@if ls $(WHEELS)/lightkeeper_wire-*.whl >/dev/null 2>&1; then \
		$(RELEASE_PIP) --no-index --find-links $(WHEELS) lightkeeper-wire; fi
	@touch $@

test-release-python: $(RELEASE_VENV)/.installed ## run the suite under the archives' own Python (needs go; fifteen minutes; RELEASE_TESTS="FILE …")
	$(RELEASE_VENV)/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --ignore tests/release $(RELEASE_TESTS)

test-windows: $(TOOLS) ## run the portable tests, and the archive with its DLL, on Windows' Python under wine (needs wine and go; ten minutes)
	LIGHTKEEPER_WINDOWS=1 $(BIN)/pytest tests/windows -rP

demo: $(STAMP)   ## read a scanned page through an agent with three signed models
	@$(BIN)/python -m demo

lint: $(STAMP)   ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## check types
	$(BIN)/mypy
	@if $(BIN)/python -c 'import lightkeeper_wire' 2>/dev/null; then $(BIN)/python -m mypy.stubtest --concise lightkeeper_wire; else echo "stubtest: skipped, the native wire is not installed"; fi

imports: $(STAMP) ## check the direction of imports
	$(BIN)/lint-imports --no-cache

test: lint types imports ## run every check and test; the local API's tests over grpcio too
	LIGHTKEEPER_TEST_TRANSPORT=grpcio $(BIN)/pytest -q tests/test_local_api.py
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile
	@if command -v go >/dev/null; then $(MAKE) --no-print-directory test-release-python RELEASE_TESTS="$(RELEASE_SHORT)"; \
	else echo "the archives' own Python: not tried, go is not installed"; fi

bench: $(STAMP)  ## measure the agent beside a bare gRPC server, and write docs/benchmarks.md
	$(BIN)/python -m bench --write docs/benchmarks.md

bench-quick: $(STAMP) ## the short form, under a minute; writes nothing
	$(BIN)/python -m bench --effort quick

bench-hub: $(STAMP) ## measure what fleet a hub carries, and write docs/benchmarks-hub.md (ten minutes)
	$(BIN)/python -m bench.hub --write docs/benchmarks-hub.md

bench-capture: $(STAMP) ## measure capture beside a bare fdatasync, and write docs/benchmarks-capture.md
	$(BIN)/python -m bench.capture --write docs/benchmarks-capture.md

test-faults: $(STAMP) ## fail the spool's disk at every operation, ten times the random tests (ten minutes)
	LIGHTKEEPER_FAULT_EFFORT=10 $(BIN)/pytest tests/capture/test_spool.py tests/capture/test_spool_machine.py tests/capture/test_spool_faults.py --timeout 1800

bench-wire: $(STAMP) ## measure the native wire beside grpcio (docs/adr/0006-native-wire.md), two minutes
	$(BIN)/python -m bench.wire

bench-onnx: $(STAMP) ## measure ONNX Runtime's settings (docs/adr/0003-onnx-runtime-settings.md), five minutes
	$(BIN)/python bench/onnx_settings.py

proto: $(STAMP)  ## generate the protobuf code from proto/agent.proto
	$(BIN)/python tools/generate_proto.py

docs: $(STAMP)   ## generate the reference pages in docs/ from the code
	$(BIN)/python tools/generate_docs.py

peers: $(STAMP)  ## set up what bench-peers measures the agent beside, below build/peers (once, some minutes)
	$(BIN)/python -m bench.peers.setup

bench-peers: peers ## measure beside a C++ echo, grpcio, Triton, MLServer, LitServe, BentoML; write docs/benchmarks-peers.md
	$(BIN)/python -m bench.peers --write docs/benchmarks-peers.md

bench-peers-quick: peers ## the short form, under three minutes once set up; writes nothing
	$(BIN)/python -m bench.peers --effort quick

lock:            ## lock the requirements again (needs uv)
	$(LOCK) pyproject.toml --extra images --extra aws -o requirements/agent.txt
	$(LOCK) pyproject.toml --extra images --extra aws --extra compile --extra parquet --extra hub --extra demo --group dev -o requirements/dev.txt
	for peer in $(PEERS); do $(LOCK) --group peers-$$peer -o requirements/peers-$$peer.txt; done
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.14 --python-platform x86_64-manylinux_2_28 pyproject.toml --extra aws -o requirements/release.txt
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.14 --python-platform x86_64-pc-windows-msvc pyproject.toml --extra aws --group release-windows --constraint requirements/release.txt -o requirements/release-windows.txt
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.14 --python-platform x86_64-pc-windows-msvc pyproject.toml --group windows --constraint requirements/dev.txt -o requirements/windows.txt
	$(LOCK) --group release --constraint requirements/dev.txt -o requirements/release-tools.txt

clean:           ## remove what the verbs made
	rm -rf $(VENV) build dist wire/target wire/fuzz/target .mypy_cache .ruff_cache .pytest_cache .hypothesis
