# Two commands set everything up on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
PY := .venv/bin/python
.PHONY: help demo test lint types unit bench lock clean

help:
	@echo "make demo    build, run and rebuild a real web application (installs what is missing)"
	@echo "make test    all checks and tests (installs what is missing)"
	@echo "make lint    ruff and mypy only"
	@echo "make unit    the tests that need no root, runtime or other tool"
	@echo "make bench   compare with dockerd and buildah on this machine"

demo:
	@scripts/setup.sh demo
	@$(PY) demo/demo.py

test:
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory lint
	$(PY) -m pytest -n 2 -rs

lint:
	@scripts/setup.sh venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

unit:
	@scripts/setup.sh venv
	$(PY) -m pytest -n 2 tests/unit tests/property tests/test_architecture.py

bench:
	@scripts/setup.sh test
	$(PY) bench/run.py

lock:
	printf 'hatchling\neditables\n' | uv pip compile pyproject.toml - --extra dev --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate -q -o requirements-dev.lock
	sed -i "1i # What development and the demo use, pinned by hash. Made by 'make lock'; hashes cover every platform." \
	    requirements-dev.lock

clean:
	rm -rf .venv .cache .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
