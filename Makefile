# Set-up on a fresh machine with Python >= 3.11, git and make alone. `make demo` and `make test` are the README's commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-constraints
EXTRAS := demo,postgres,onnx,s3,dvc,ray,dev

.PHONY: demo test lint types floors doctest bench papers lowest other clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -c constraints.txt -e '.[$(EXTRAS)]' \
	  || $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(STAMP)

demo: $(STAMP)  ## A year of flights round the whole wheel: prints what happened and why, writes out/demo/index.html.
	$(BIN)/loudly demo

test: $(STAMP)  ## All tests.
	$(BIN)/python -m pytest -q

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(STAMP)
	$(BIN)/mypy

floors: $(STAMP)
	$(BIN)/lint-imports

doctest: $(STAMP)
	$(BIN)/python -m pytest -q --doctest-modules src/loudly -W ignore

bench: $(STAMP)  ## Figures of the README: each benchmark prints ratios against a peer measured in the same run.
	$(BIN)/python benchmarks/wheel.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/streams.py

papers: $(STAMP)  ## Long simulations: error rates of the rollout's verdicts.
	$(BIN)/python benchmarks/verdicts.py

lowest: pyproject.toml  ## The tests at the lowest versions that pyproject.toml promises.
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	VIRTUAL_ENV=$(CURDIR)/.venv-lowest .venv-lowest/bin/uv pip install --quiet --compile-bytecode --resolution lowest-direct -e '.[demo,onnx,fast,dev-light]'
	.venv-lowest/bin/python -m pytest -q -m "not newest" --override-ini filterwarnings=default

OTHER ?= python3.13
other: pyproject.toml constraints.txt  ## The quick tests on another Python, at the versions of the constraints.
	$(OTHER) -m venv .venv-$(OTHER)
	.venv-$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	VIRTUAL_ENV=$(CURDIR)/.venv-$(OTHER) .venv-$(OTHER)/bin/uv pip install --quiet -c constraints.txt -e '.[demo,onnx,fast,dev-light]'
	.venv-$(OTHER)/bin/python -m pytest -q -m "not slow and not newest"

clean:
	rm -rf $(VENV) .venv-lowest .venv-python* out .loudly
