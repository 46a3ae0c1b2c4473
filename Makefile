# hybridkern: `make demo` and `make test` build what they need, once, and then do their job. `make help` lists the rest.
# Needs Linux, Python >= 3.10 with venv and headers, make and g++ (C++20). HYBRIDKERN_NO_EXT=1 does without g++.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PIP_FLAGS ?=
TEST_FLAGS ?=
DEMO_FLAGS ?=
BENCH_FLAGS ?=
BASE ?= HEAD
KIT_PYTHON ?= python3.12
KIT_TORCH ?= torch==2.11.0
WHEEL_PYTHONS ?= 3.10 3.11 3.12 3.13 3.14
WHEEL_TORCH ?= $(TORCH)
WHEEL_FLAGS ?=
README_FLAGS ?=
TORCH_TEST_FLAGS ?= --torch torch==2.11.0

# A branch of its own, so that a build without the extension never passes for one with it.
NO_EXT := $(filter-out 0,$(HYBRIDKERN_NO_EXT))
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)
# Python only: the extension is a step of its own, so that ninja compiles what changed and nothing else.
EDITABLE := HYBRIDKERN_NO_EXT=1 $(PIP) --no-build-isolation --editable
CPP := $(shell find csrc -type f 2>/dev/null)
# Named after what was asked for, so that asking for something else builds anew.
EXTENSION := $(STAMPS)/extension-cuda-$(or $(strip $(HYBRIDKERN_CUDA)),auto)
READY := $(STAMPS)/package $(if $(NO_EXT),,$(EXTENSION))

# glibc maps and faults in large temporaries anew at each call; identical code then differs by up to 3x between runs.
BENCH_ENV := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456

export PIP_FLAGS # for the environments of wheel, wheel-test, torch-test and gpu-kit

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help build demo test coverage lint format docs bench bench-glow bench-compare bench-gpu gpu-kit wheel wheel-test readme-test torch-test evidence evidence-test clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=python3  VENV=.venv  HYBRIDKERN_NO_EXT=1 (no compiler)  HYBRIDKERN_CUDA=auto|0|1  PIP_FLAGS=...  TORCH=torch==2.13.0"
	@echo "  DEMO_FLAGS='--epochs 2'  TEST_FLAGS='-k coupling'  BENCH_FLAGS='operators -k glow'"
	@echo "  WHEEL_PYTHONS='3.11 3.12'  WHEEL_TORCH='torch==2.13.0 torch==2.14.1' (autograd nodes for each)  WHEEL_FLAGS='--cases wheel-3.11'"

build: $(READY) ## the virtual environment, torch, the package and its compiled extension

demo: $(READY) ## train a hybrid model on scikit-learn's digits: result table and plots, in runs/demo
	rm -rf runs/demo
	$(BIN)/hybridkern train digits --out runs/demo $(DEMO_FLAGS)

test: $(READY) $(STAMPS)/test $(STAMPS)/peers ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 $(TEST_FLAGS)

coverage: $(READY) $(STAMPS)/test $(STAMPS)/peers ## lines of the package that the suite runs; slower than make test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --cov --cov-report=term $(TEST_FLAGS)

lint: $(READY) $(STAMPS)/test $(STAMPS)/dev ## ruff, mypy and clang-format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(CPP),$(BIN)/clang-format --dry-run -Werror $(CPP))

format: $(STAMPS)/dev ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(if $(CPP),$(BIN)/clang-format -i $(CPP))

docs: $(STAMPS)/docs ## the documentation, into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@! grep -rlE '<script[^>]*src="?https?:' build/site --include='*.html' || { echo "make: these pages fetch a script" >&2; exit 1; }
	@! grep -rl '\]\[hybridkern' build/site --include='*.html' || { echo "make: links of these pages lead nowhere" >&2; exit 1; }
	@! grep -rl 'class="arithmatex"' build/site --include='*.html' || { echo "make: formulas of these pages were not converted" >&2; exit 1; }
	@echo "open build/site/index.html, or serve it: $(BIN)/python -m http.server -d build/site"

bench: $(READY) $(STAMPS)/test $(STAMPS)/peers ## every benchmark of this machine, the tables in docs/ and their pictures; needs a quiet machine
	$(BENCH_ENV) $(BIN)/python -m benchmarks $(BENCH_FLAGS)

bench-glow: $(READY) $(STAMPS)/test $(STAMPS)/peers ## whole training steps of Glow, against normflows and FrEIA; needs a quiet machine
	$(BENCH_ENV) $(BIN)/python -m benchmarks.glow_step $(BENCH_FLAGS)

bench-compare: $(READY) $(STAMPS)/test ## two revisions of this repository: make bench-compare BASE=main; needs a quiet machine
	$(BIN)/python -m benchmarks.compare --base $(BASE) $(BENCH_FLAGS)

bench-gpu: $(READY) $(STAMPS)/test ## on a CUDA or ROCm machine: test and measure everything there; results in runs/bench-gpu
	$(BIN)/python -m benchmarks.gpu $(BENCH_FLAGS)

gpu-kit: ## what bench-gpu needs on a bare machine, into build/gpu-kit; KIT_PYTHON, KIT_TORCH: that machine's
	$(PYTHON) -m benchmarks.gpu.kit --python '$(KIT_PYTHON)' --torch '$(KIT_TORCH)'

wheel: ## sdist and manylinux wheels into dist, for each of WHEEL_PYTHONS that is here; takes minutes
	$(PYTHON) -m buildtools.make_wheels --pythons '$(WHEEL_PYTHONS)' --torch '$(WHEEL_TORCH)'

dist: # what an earlier `make wheel` left there is tested as it is
	$(MAKE) wheel

wheel-test: dist ## install sdist and wheels of dist in clean environments and test them there; takes minutes
	$(PYTHON) -m tests.packaging.wheel_cases --torch '$(firstword $(WHEEL_TORCH))' $(WHEEL_FLAGS)

readme-test: ## the README's install line, example and commands in a new environment; takes minutes
	$(PYTHON) -m tests.packaging.readme_path $(README_FLAGS)

torch-test: $(READY) ## the package beside another torch, in an environment of its own; see TORCH_TEST_FLAGS
	$(BIN)/python -m tests.packaging.other_torch $(TORCH_TEST_FLAGS)

# Without triton or nvcc it fails. The page is written first: a test compares it with the kernels.
evidence: $(READY) $(STAMPS)/test ## what is shown of the GPU kernels without a GPU; writes docs/gpu-evidence.md
	TRITON_INTERPRET=1 $(BIN)/python -m tests.evidence.table --update
	HYBRIDKERN_TEST_REQUIRE_GPU_TOOLS=1 $(MAKE) evidence-test

evidence-test: $(READY) $(STAMPS)/test ## the tests of evidence, those of the Triton kernels too
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 tests/evidence $(TEST_FLAGS)

clean: ## build outputs, demo run and caches; the virtual environment stays
	rm -rf build dist runs/demo .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	rm -f hybridkern/_C*.so hybridkern/_nodes*.so hybridkern/_cuda*.so $(STAMPS)/extension*
	find hybridkern tests $(wildcard benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and the virtual environment
	rm -rf $(VENV)

# What is built, each step once. A step whose inputs are newer than its stamp is done again.

$(STAMPS)/venv:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) was not found; install Python >= 3.10 or set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and "make: %s is Python %d.%d, hybridkern needs 3.10 or newer" % (sys.executable, *v[:2]))'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: $(STAMPS)/venv
	$(PIP) '$(TORCH)' numpy 'setuptools>=77.0.3' ninja 'pybind11>=2.13'
	@touch $@

$(STAMPS)/package: $(STAMPS)/torch pyproject.toml
	$(EDITABLE) '.[train]'
	@touch $@

$(EXTENSION): $(STAMPS)/package setup.py $(CPP)
	@command -v $(firstword $(CXX)) >/dev/null || { echo "make: $(CXX) was not found; install it (apt install g++), set CXX=, or set HYBRIDKERN_NO_EXT=1 to run on plain PyTorch" >&2; exit 1; }
	@$(BIN)/python -c 'import os, sys, sysconfig as s; h = os.path.join(s.get_path("include"), "Python.h"); sys.exit(not os.path.exists(h) and "make: %s is missing; on Debian and Ubuntu: apt install python3-dev" % h)'
	@mkdir -p build
	@rm -f $(STAMPS)/extension* hybridkern/_cuda*.so
	@echo "compiling the extension; output in build/extension.log"
	@PATH="$(abspath $(BIN)):$$PATH" CXX="$(CXX)" HYBRIDKERN_REQUIRE_EXT=1 $(BIN)/python setup.py build_ext --inplace --force >build/extension.log 2>&1 || { cat build/extension.log >&2; exit 1; }
	@$(BIN)/python -c 'import sys; from hybridkern._extension import extension as e; sys.exit(e.module is None and "make: " + e.reason)'
	@touch $@

$(STAMPS)/test: $(STAMPS)/package
	$(EDITABLE) '.[test]'
	@touch $@

$(STAMPS)/peers: $(STAMPS)/package
	$(EDITABLE) '.[peers]'
	@touch $@

$(STAMPS)/docs: $(STAMPS)/package
	$(EDITABLE) '.[docs]'
	@touch $@

$(STAMPS)/dev: $(STAMPS)/package
	$(EDITABLE) '.[dev]'
	@touch $@
