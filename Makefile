SHELL := /bin/bash
.PHONY: setup demo test test-fast bench lint docs clean

setup:
	@scripts/setup.sh

demo: setup
	@source scripts/env.sh && effovpr demo --out demo_output

# Two files at once; those of one file share what they made.
IN_PARALLEL := -n 2 --dist loadfile

test: setup
	@source scripts/env.sh && python -P -m pytest test $(IN_PARALLEL)

test-fast: setup
	@source scripts/env.sh && python -P -m pytest test $(IN_PARALLEL) -m 'not benchmark and not slow'

bench: setup
	@source scripts/env.sh && python -P -m pytest test -m benchmark -s

lint: setup
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/hadolint container/Dockerfile.* \
		&& .venv/bin/clang-format --dry-run -Werror src/scoring/*

docs: setup
	@scripts/docs.sh

clean:
	rm -rf build install log demo_output .pytest_cache .mypy_cache .ruff_cache
