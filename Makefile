# Two commands on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-families test-gpu index check docs clean

demo: $(VENV)/.installed
	$(BIN)/headatlas mine smollm2-135m --task repeated --task prose --task registers

test: $(VENV)/.installed-dev
	$(BIN)/headatlas pull smollm2-135m
	$(BIN)/ruff check headatlas tests benchmarks docs
	$(BIN)/ruff format --check headatlas tests benchmarks docs
	$(BIN)/mypy
	# Two processes, one thread each: the models are tiny, and more threads only wait for each other.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations=12

test-slow: $(VENV)/.installed-dev
	$(BIN)/headatlas pull smollm2-135m
	$(BIN)/headatlas pull gemma3-270m
	$(BIN)/headatlas pull minilm-l6
	$(BIN)/pytest -m slow

test-families: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/families -m families

# What a GPU computes beside the processor, and what looking costs there; one script, under eight minutes.
test-gpu: $(VENV)/.installed-dev
	$(BIN)/headatlas pull smollm2-135m
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/model/test_devices.py -q
	$(BIN)/python benchmarks/gpu.py

# The pages of docs/ as a site in build/docs/, which opens from there; links that lead nowhere end it.
docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict --quiet

# What `headatlas list` prints, after a detector, a task or an entry of the catalogue has changed.
index: $(VENV)/.installed
	$(BIN)/python -c "from headatlas.overview import write_index; write_index()"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
