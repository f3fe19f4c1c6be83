# Everything runs in a virtual environment that is made and reused: VENV=path moves it.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST_FLAGS ?=
BENCH_FLAGS ?=
EXPERIMENTS ?=
COMPAT ?=

.DELETE_ON_ERROR:
.PHONY: help train test test-all compat check lint fix docs bench bench-short experiments gpu wheels

help:
	@echo "make train   train the three classifiers on handwritten digits"
	@echo "make test    run the tests, except the slow ones"
	@echo "make test-all   run all tests"
	@echo "make compat   run the tests with the oldest and newest packages, and each scikit-learn"
	@echo "make check   formatting, lint, spelling, types and make test"
	@echo "make fix     repair formatting and what lint can"
	@echo "make docs    write the generated pages: keys of a recipe, modules"
	@echo "make bench   time training on the CPU, compared with scikit-learn, PyTorch and JAX"
	@echo "make bench-short   time a training step and every operation"
	@echo "make experiments   repeat the course's and the papers' results, and write a page"
	@echo "make wheels  build sdist and wheels for Linux on x86-64 into dist/"
	@echo "make gpu     check and measure on a GPU, with the interpreter that PYTHON names"

train: $(VENV)/.train
	$(BIN)/python train.py

# One process per processor, each with one BLAS thread: more threads would wait for each other.
# Tests start many processes; cached bytecode spares each of them the compiling.
TESTS = env -u PYTHONDONTWRITEBYTECODE OPENBLAS_NUM_THREADS=1 \
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal
QUICK = -m "not slow" --hypothesis-profile quick

test: $(VENV)/.test
	$(TESTS) --device cpu $(QUICK) $(PYTEST_FLAGS)
	$(TESTS) --device emulated $(QUICK) $(PYTEST_FLAGS)

test-all: $(VENV)/.test
	$(TESTS) --device cpu $(PYTEST_FLAGS)
	$(TESTS) --device emulated --hypothesis-profile quick $(PYTEST_FLAGS)

compat: $(VENV)/.compat
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nox $(COMPAT)

check: lint test

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell *.md *.py docs xpnet kernels bench
	$(BIN)/mypy

fix: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test
	$(BIN)/python -m xpnet.recipe.page > docs/.recipes.md
	mv docs/.recipes.md docs/recipes.md
	$(BIN)/python docs/modules.py > docs/.modules.md
	mv docs/.modules.md docs/modules.md

bench: $(VENV)/.bench
	$(BIN)/python -m bench.cpu $(BENCH_FLAGS)

# The two variables choose a BLAS kernel and cache size by hand; a measurement wants the native ones.
bench-short: $(VENV)/.test
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m pytest bench --benchmark-enable --benchmark-only --benchmark-columns=median,iqr,min,rounds --benchmark-sort=name

# What is there already is not repeated: interrupted, it goes on where it stopped.
experiments: $(VENV)/.test
	$(BIN)/python -m bench.experiments $(EXPERIMENTS)

# For these versions of Python.
PYTHONS ?= 3.11 3.12 3.13

wheels: $(VENV)/.wheels
	.ci/wheels $(VENV) $(PYTHONS)

# No virtual environment: CuPy and all else are those that the machine has.
gpu:
	@$(PYTHON) -m bench.gpu

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "xpnet needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

KERNELS = setup.py kernels/catalogue.py kernels/host_source.py $(wildcard kernels/*.h kernels/*.cpp)

$(VENV)/.train: pyproject.toml $(KERNELS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[data,plot]'
	@touch $@

$(VENV)/.test: pyproject.toml $(KERNELS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[data,plot,test]'
	@touch $@ $(VENV)/.train

# nox runs the cells; uv chooses the oldest packages, or those of a day.
$(VENV)/.compat: | $(BIN)/python
	$(BIN)/python -m pip install --quiet 'nox>=2025.2' 'uv>=0.9'
	@touch $@

# A peer that cannot be had has a line in the tables that says so.
$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[bench]' || echo "without PyTorch and JAX" >&2
	@touch $@

# Not xpnet itself: it is built from its sdist.
$(VENV)/.wheels: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet $$($(BIN)/python -c "import tomllib; \
		print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['wheels'])")
	@touch $@
