# Every target sets up what it needs in the project folder. Portable make and shell only.
#
#   make demo                      fit a real data set and write a report
#   make test                      the tests, without the slow ones
#   make test PYTEST_ARGS="-k cli" some of them
#   make test PYTHON=python3.11    with an interpreter of your choice (after make clean)

PYTHON = python3.12 python3.11 python3
VENV = .venv
EXTRAS = dev,arviz
PYTEST_ARGS =
OUT = demo

help:
	@sed -n 's/^#   //p' Makefile
	@echo "also: lint format types docs-test test-all test-slow bench constraints clean"

demo:
	@sh tools/venv.sh $(VENV) core $(PYTHON)
	$(VENV)/bin/taut demo --out $(OUT)

environment:
	@sh tools/venv.sh $(VENV) $(EXTRAS) $(PYTHON)

test: environment
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

test-slow: environment
	$(VENV)/bin/python -m pytest -m slow $(PYTEST_ARGS)

docs-test: environment
	$(VENV)/bin/python -m pytest -m docs $(PYTEST_ARGS)

test-all:
	@found=; for version in 3.11 3.12; do \
	    if sh tools/find-python.sh python$$version >/dev/null; then \
	        found="$$found $$version"; \
	        sh tools/venv.sh .venv-$$version $(EXTRAS) python$$version || exit 1; \
	        echo "== Python $$version"; \
	        .venv-$$version/bin/python -m pytest $(PYTEST_ARGS) || exit 1; \
	    fi; \
	done; \
	if [ -z "$$found" ]; then echo "neither python3.11 nor python3.12 was found" >&2; exit 1; fi; \
	echo "tested with Python:$$found"

lint: environment
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: environment
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

types: environment
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

bench:
	@sh tools/venv.sh .venv-bench benchmarks,arviz $(PYTHON)
	.venv-bench/bin/python -m benchmarks

# uv comes from the package index; it writes one file for both worlds of Python.
constraints: environment
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@sed -n '/^#/p' constraints.txt >constraints.new
	$(VENV)/bin/uv pip compile --quiet --universal --upgrade --all-extras --python-version 3.11 \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml \
	    >>constraints.new
	@if grep -E '://|file:|^torch' constraints.new; then rm constraints.new; exit 1; fi
	mv constraints.new constraints.txt

clean:
	rm -rf .venv .venv-3.11 .venv-3.12 .venv-bench .cache .pytest_cache .ruff_cache build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo environment test test-slow docs-test test-all lint format types bench \
	constraints clean
