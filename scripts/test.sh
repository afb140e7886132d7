#!/bin/sh
# Every check of the project. Prints what it does; the last line is the test runner's.
set -eu
cd "$(dirname "$0")/.."
scripts/setup-test-servers.sh
scripts/setup-second-registry.sh
echo "test: ruff and mypy"
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
echo "test: pytest"
exec .venv/bin/python -m pytest -n 2 --dist loadscope "$@"
