# What a developer runs. Every target sets up what it needs; PYTHON names the interpreter (3.10 or newer) to build from.
#
#   make demo     a real model through the whole tool (no TensorFlow needed; with `make test` done before, it runs it too)
#   make test     every test, TensorFlow as oracle included
#   make lint     ruff
#   make types    mypy --strict
#   make bench    tfthaw against TensorFlow's own tools: ratios and peak memory, to bench-out/bench.md
#   make compat   what tfthaw writes, read by TensorFlow 2.12, 2.15 and 2.21, models of each included
#   make schema   compile src/tfthaw/proto/schema/*.proto
#   make clean    remove all that these targets made, environments too

PYTHON ?= python3
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The demo takes the development environment where there is one, since that has TensorFlow, else a light one.
DEMO_VENV := $(if $(wildcard .venv/.installed),.venv,.venv-demo)

.PHONY: demo test lint types bench compat schema clean

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/python -m tfthaw demo

test: .venv/.installed
	.venv/bin/python -m pytest

lint: .venv/.installed
	.venv/bin/ruff check .

types: .venv/.installed
	.venv/bin/mypy src tools benchmarks

bench: .venv/.installed
	.venv/bin/python -m benchmarks

compat: .venv/.installed
	.venv/bin/python tools/compat.py

schema: .venv/.installed
	.venv/bin/python tools/make_descriptors.py

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable ".[dev]"
# tf_keras asks for the package tensorflow, which is tensorflow-cpu once more and four times as large
	.venv/bin/python -m pip install --quiet --no-deps "tf-keras==$$(.venv/bin/python -c "from importlib.metadata import version; print(version('tensorflow-cpu').rpartition('.')[0])").*"
	touch $@

.venv-demo/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install --quiet --editable .
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-compat bench-out demo-out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
