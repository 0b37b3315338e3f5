# Two commands do all the set-up: `make demo` and `make test`.
# Both make a virtual environment in .venv with the versions of constraints.txt; VENV=... puts it elsewhere.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO ?= demo

.PHONY: demo test unit docs package slow seeds variants lint clean

demo: $(VENV)/installed
	$(BIN)/ambiseg demo --out $(DEMO)

test: lint docs unit

unit: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --doctest-modules

# The site, in docs/_build/html. A warning, a link to nowhere, a page or a sentence that is too long: an error.
docs: $(VENV)/installed-dev
	$(BIN)/python docs/prose.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

# The wheel and the sdist in dist/, and whether a package index would take them and show their page.
package: $(VENV)/installed-dev
	$(PIP) install --quiet --constraint constraints.txt --editable '.[package]'
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m twine check --strict dist/*

slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

# The tests whose cases are drawn at random, with thirty other seeds.
seeds: $(VENV)/installed-dev
	for seed in $$(seq 1 30); do \
	  OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -k "not learnt" tests/test_*.py tests/metrics tests/methods \
	    tests/networks tests/data --seed $$seed --hypothesis-profile=explore --hypothesis-seed=$$seed || exit 1; \
	done

# All tests with the kernels of older processors, which round otherwise.
variants: $(VENV)/installed-dev
	for isa in default/SSE41 avx2/AVX2; do for threads in 1 2; do \
	  ATEN_CPU_CAPABILITY=$${isa%/*} ONEDNN_MAX_CPU_ISA=$${isa#*/} OMP_NUM_THREADS=$$threads \
	    $(BIN)/python -m pytest -n 2 || exit 1; \
	done; done

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/torch: $(VENV)/bin/python constraints.txt
	$(PIP) install --quiet --constraint constraints.txt torch
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/torch pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) $(DEMO) build dist
