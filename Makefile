PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 4
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Hundreds of processes start in the tests: without its bytecode each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: venv check types quick test browser translations soak packaging lock docs demo bench clean

venv: $(INSTALLED)

# Recreated only when pyproject.toml changes.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tenten needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local,fast-copy,test,browser]'
	@touch $@

# Under a minute; mypy runs in parallel with the rest.
check: $(INSTALLED)
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target types quick

types:
	$(BIN)/mypy

quick:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/unit -q --hypothesis-profile=quick

# WORKERS processes; the tests of a file run in the same process.
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder --durations=20

# The pages in an installed Chromium; pictures of them are written to build/pictures.
browser: $(INSTALLED)
	$(BIN)/python -m pytest tests/browser -q --durations=10

# New and changed texts of the store's screen into its catalogues (empty: to be translated), and compile them.
LOCALE := tenten/web/store_screen/locale
translations: $(INSTALLED)
	mkdir -p build
	$(BIN)/pybabel -q extract -F $(LOCALE)/babel.cfg -k N_ --no-location --sort-output --no-wrap -o build/store.pot tenten/web
	$(BIN)/pybabel -q update -D store -i build/store.pot -d $(LOCALE) --no-fuzzy-matching --no-wrap --ignore-obsolete --ignore-pot-creation-date
	$(BIN)/pybabel -q compile -D store -d $(LOCALE)

# Sizes, wheels of every platform, and what the image contains: build/sbom.json.
packaging: $(INSTALLED)
	$(BIN)/python -m benchmarks.packaging

# The packages of the image, each with its hashes, as new as pyproject.toml allows.
LOCK := $(BIN)/python -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url
lock: $(INSTALLED)
	$(LOCK) --extra headquarters --extra web --extra otel pyproject.toml --output-file deploy/requirements/headquarters.txt
	$(LOCK) --no-deps deploy/requirements/fast-copy.in --output-file deploy/requirements/fast-copy.txt
	$(LOCK) deploy/requirements/build.in --output-file deploy/requirements/build.txt

# Random faults, all of them at once for SECONDS, each kind alone for a tenth: make soak SECONDS=3600 SEED=1
# Only the run of everything at once, with its result in a file: make soak ONLY=tests/faults/test_soak_run.py RESULT=FILE
soak: $(INSTALLED)
	$(if $(ONLY),,$(BIN)/python -m pytest tests/unit -q --hypothesis-profile=thorough)
	TENTEN_SOAK_SECONDS=$(SECONDS) TENTEN_SOAK_SEED=$(SEED) TENTEN_SOAK_RESULT=$(RESULT) \
	$(BIN)/python -m pytest -v -m soak -o faulthandler_timeout=0 $(ONLY)

# The documentation as a site that needs no network: build/site/index.html.
docs: $(INSTALLED)
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

demo: $(INSTALLED)
	$(BIN)/tenten demo

# Some bars only: make bench ONLY=P7,P7a
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
