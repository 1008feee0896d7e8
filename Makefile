# Set-up on a fresh machine with Python >= 3.11, git and make alone. `make demo` and `make test` are the README's commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-constraints
# As many files at once as there are cores, four at most; the tests of a file stay in one process.
PYTEST := -m pytest -q -n auto --maxprocesses 4 --dist loadfile
EXTRAS := demo,fast,postgres,s3,dvc,ray,ray-serve,kafka,otel,grpc,dev

.PHONY: demo test fuzz lint types floors doctest bench papers lowest other flink clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -c constraints.txt -e '.[$(EXTRAS)]' \
	  || $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(STAMP)

demo: $(STAMP)  ## A year of flights round the whole wheel: prints what happened and why, writes out/demo/index.html.
	$(BIN)/loudly demo

test: $(STAMP)  ## All tests.
	$(BIN)/python $(PYTEST)

fuzz: $(STAMP)  ## The property tests with examples drawn anew; says how to repeat what it finds.
	$(BIN)/python -m pytest -q --hypothesis-profile=fuzz $$(grep -rl --include='test_*.py' '^@given' tests)

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples

types: $(STAMP)
	$(BIN)/mypy

floors: $(STAMP)
	$(BIN)/lint-imports

doctest: $(STAMP)
	$(BIN)/python $(PYTEST) --doctest-modules src/loudly -W ignore --ignore-glob='*/adapters/torch_*.py' --ignore-glob='*/adapters/xgboost_*.py' --ignore-glob='*/adapters/onnx_text.py'

bench: $(STAMP)  ## Figures of the README: each benchmark prints ratios against a peer measured in the same run.
	$(BIN)/python benchmarks/wheel.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/serving.py --peers fastapi
	$(BIN)/python benchmarks/shift.py
	$(BIN)/python benchmarks/merge.py
	$(BIN)/python benchmarks/streams.py
	$(BIN)/python benchmarks/mmd.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/labels.py
	$(BIN)/python benchmarks/restart.py
	$(BIN)/python benchmarks/search.py

papers: $(STAMP)  ## Long simulations and published figures: shift detection, error rates of verdicts, bandits, estimates without labels, alarms on real data.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/failing_loudly.py
	$(BIN)/python benchmarks/verdicts.py
	$(BIN)/python benchmarks/ratios.py
	$(BIN)/python benchmarks/gate.py
	$(BIN)/python benchmarks/looking.py
	$(BIN)/python benchmarks/bandits.py
	$(BIN)/python benchmarks/interleaving.py
	$(BIN)/python benchmarks/off_policy.py
	$(BIN)/python benchmarks/estimate.py --peers
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/real_shift.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/tiny_windows.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/embeddings.py

lowest: pyproject.toml  ## The tests at the lowest versions that pyproject.toml promises.
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	VIRTUAL_ENV=$(CURDIR)/.venv-lowest .venv-lowest/bin/uv pip install --quiet --compile-bytecode --resolution lowest-direct -e '.[demo,onnx,fast,kafka,otel,grpc,dev-light]'
	.venv-lowest/bin/python $(PYTEST) -m "not newest and not simulation" --override-ini filterwarnings=default

flink:  ## The merge as a PyFlink job, in an environment of its own; needs Java.
	sh examples/flink.sh

OTHER ?= python3.13
other: pyproject.toml constraints.txt  ## The quick tests on another Python, at the versions of the constraints.
	$(OTHER) -m venv .venv-$(OTHER)
	.venv-$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	VIRTUAL_ENV=$(CURDIR)/.venv-$(OTHER) .venv-$(OTHER)/bin/uv pip install --quiet -c constraints.txt -e '.[demo,onnx,fast,dev-light]'
	.venv-$(OTHER)/bin/python $(PYTEST) -m "not slow and not newest and not simulation" --override-ini filterwarnings=default $(LESS)

clean:
	rm -rf $(VENV) .venv-lowest .venv-python* .venv-flink out .loudly
