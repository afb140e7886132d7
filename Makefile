# Limpet's commands. `make demo` and `make test` set everything up themselves; both need root and apt.
PYTHON ?= python3
VENV := .venv

.PHONY: help setup demo test lint bench differential image catalog clean

help:
	@echo "make demo   build examples/hello with Limpet, push it to a local registry, and run it"
	@echo "make test   run every check: ruff, mypy, the import rule, all tests"
	@echo "make image  build the executor image into .cache/image/executor (scripts/image.sh pushes it)"
	@echo "make catalog  write catalog/ from task/"
	@echo "make bench  compare with kaniko, BuildKit and buildah (an hour and a half; goes on where it was broken off)"
	@echo "make differential KANIKO=/path/to/executor  compare with kaniko (or BUILDKIT=DIRECTORY), file by file"
	@echo "make clean  remove what these commands made"

setup:
	@PYTHON=$(PYTHON) scripts/setup.sh

demo: setup
	@scripts/demo.sh

test: setup
	@scripts/test.sh

lint: setup
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

image: setup
	@scripts/image.sh

catalog: setup
	@$(VENV)/bin/python scripts/generate-catalog.py

bench: setup
	@benchmarks/get-peers.sh
	@$(VENV)/bin/python benchmarks/run.py --json .cache/benchmark.json --write-docs

differential: setup
	@$(VENV)/bin/python -m tests.kaniko.differential $(if $(BUILDKIT),--buildkit $(BUILDKIT),--executor $(KANIKO))

clean:
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
