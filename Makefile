# Two commands do everything on a fresh machine with Python 3.11 or newer: make demo, make test.
.POSIX:
.SUFFIXES:
.PHONY: help venv demo test lint format docs fuzz benchmarks results clean

SHELL = /bin/sh
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV = .venv
BIN = $(VENV)/bin
NATIVE = src/penjing/coders/native
CC_CHECKED ?= $(shell command -v clang || command -v gcc || command -v cc)
JOBS ?= 2
FUZZ_SECONDS ?= 60
ARGS ?=
# Python of the peers' environment, see benchmarks/README.md; without it only we are measured.
PEERS_PYTHON ?=

help:
	@echo "make demo        train a classifier on handwritten digits, compress it, show the evidence"
	@echo "make test        run all tests                (ARGS='-k name' picks some)"
	@echo "make lint        check style, types, import rules and spelling"
	@echo "make format      lay out the code"
	@echo "make docs        write the pages of techniques and of results"
	@echo "make fuzz        attack the C coder under sanitizers for FUZZ_SECONDS=$(FUZZ_SECONDS)"
	@echo "make benchmarks  measure size and speed       (PENJING_DATA names the data)"
	@echo "make results     measure training, and write the page of results: takes hours"
	@echo "make venv        set up .venv, which all of the above do first"
	@echo "make clean       remove everything that was made"

# The compiled coder is built by hatch_build.py whenever the package is installed.
venv: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt hatch_build.py $(NATIVE)/coder.c $(NATIVE)/coder.h
	@test -n "$(PYTHON)" || { echo "penjing needs Python 3.11 or newer on the PATH"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet \
		--disable-pip-version-check -c constraints.txt --editable '.[all]' --group test --group lint
	@touch $@

demo: venv
	$(BIN)/python examples/digits.py demo

test: venv
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/typos

format: venv
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

docs: venv
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/results.py

# libFuzzer where clang has it; elsewhere the same harness draws its own inputs.
fuzz:
	@test -n "$(CC_CHECKED)" || { echo "No C compiler here: the fuzzer is left out."; exit 0; }; \
	$(MAKE) --no-print-directory build/fuzz && \
	{ ./build/fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -rss_limit_mb=2048 \
		-artifact_prefix=build/ >build/fuzz.log 2>&1 || { tail -n 40 build/fuzz.log; exit 1; }; }
	@test ! -f build/fuzz.log || tail -n 1 build/fuzz.log

CHECKED = -std=c11 -g -O1 -fno-sanitize-recover=all $(NATIVE)/fuzz.c $(NATIVE)/coder.c
build/fuzz: $(NATIVE)/fuzz.c $(NATIVE)/coder.c $(NATIVE)/coder.h
	@mkdir -p build
	$(CC_CHECKED) -fsanitize=fuzzer,address,undefined $(CHECKED) -o $@ 2>build/compile.log || \
	$(CC_CHECKED) -DPENJING_FUZZ_DRIVER -fsanitize=address,undefined $(CHECKED) -o $@

benchmarks: venv
	for program in certificate coding "footprint --install" \
		"size --peers-python=$(PEERS_PYTHON)"; do \
		set -- $$program; name=$$1; shift; \
		$(BIN)/python benchmarks/$$name.py "$$@" || exit 1; done

results: venv
	$(BIN)/python benchmarks/training.py --keep benchmarks/results
	$(MAKE) docs

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(NATIVE)/libpenjing_coder.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
