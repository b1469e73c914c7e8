# Two commands matter: `make test` runs everything that CI runs, `make demo` runs the main job.
# Both install what they need into .venv/ and target/ and nothing anywhere else.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CARGO_TEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo "cargo nextest run" || echo "cargo test")

.PHONY: test demo build check lint unit python-test doc venv browser fmt clean

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

unit: venv browser
	$(CARGO_TEST) --workspace
	cargo test --workspace --doc --quiet

python-test: venv
	$(BIN)/python -m pytest -q python/tests

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# The Python package, its dependencies and its tests' dependencies, for the worker processes that tests start.
venv: $(VENV)/.made

$(VENV)/.made: python/pyproject.toml python/Cargo.toml $(wildcard python/rust/*.rs)
	$(PYTHON) -m venv $(VENV) || { command -v apt-get >/dev/null && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable "python[test]"
	touch $@

# A browser for the test that draws a report.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }

fmt:
	cargo fmt --all
	cargo fmt --manifest-path python/Cargo.toml

clean:
	cargo clean
	cargo clean --manifest-path python/Cargo.toml
	rm -rf $(VENV) demo-out
