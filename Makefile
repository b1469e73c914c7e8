# Two commands matter: `make test` runs everything that CI runs, `make demo` runs the main job.
# Both install what they need into .venv/ and target/ and nothing anywhere else.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CARGO_TEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo "cargo nextest run" || echo "cargo test")

.PHONY: test demo build check lint unit python-test doc venv tools fmt clean

test: lint venv unit python-test doc

demo: venv
	cargo build --release --package gatewright-cli
	$(BIN)/python demo/demo.py --gatewright target/release/gatewright --out demo-out

build:
	cargo build --release --package gatewright-cli

# What to run while working: formatting, lints, and the tests of Rust.
check: lint unit

# The Python package's crate is a workspace of its own; see its Cargo.toml.
lint:
	cargo fmt --all --check
	cargo fmt --manifest-path python/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --manifest-path python/Cargo.toml --target-dir target --all-targets -- -D warnings

unit: venv tools
	$(CARGO_TEST) --workspace
	cargo test --workspace --doc --quiet

python-test: venv
	$(BIN)/python -m pytest -q python/tests

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# The crates that the Python package is built of.
PYTHON_RUST = $(wildcard python/rust/*.rs) $(shell find crates/serve/src crates/control/src crates/protocol/src crates/sim/src crates/record/src crates/workload/src -name '*.rs')

# The Python package, its dependencies and its tests' dependencies, for the worker processes that tests start.
venv: $(VENV)/.made

$(VENV)/.made: python/pyproject.toml python/Cargo.toml $(PYTHON_RUST)
	$(PYTHON) -m venv $(VENV) || { command -v apt-get >/dev/null && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable "python[test]"
	touch $@

# Programs that tests run beside the project's own, installed if they are missing: a browser that draws reports, and the
# store that gateways share.
tools:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || $(call install,chromium)
	@command -v redis-server >/dev/null || $(call install,redis-server)

install = { command -v apt-get >/dev/null && $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq $(1) >/dev/null; }
SUDO    = $(if $(filter 0,$(shell id -u)),,sudo)

fmt:
	cargo fmt --all
	cargo fmt --manifest-path python/Cargo.toml

clean:
	cargo clean
	cargo clean --manifest-path python/Cargo.toml
	rm -rf $(VENV) demo-out
