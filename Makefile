# One environment in .venv; a stamp file per set of extras, so a second run installs nothing.
PYTHON ?= python3.11
VENV ?= .venv
MODEL ?= digits.tvmcomp
THREADS ?= 1
ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: quickstart test acceptance lint bench clean

quickstart: $(VENV)/.run
	$(BIN)/tvmcomp quickstart $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadscope $(ARGS)

acceptance: $(VENV)/.dev
	$(BIN)/python -m acceptance $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	@test -f $(MODEL) || { echo "make bench: $(MODEL) is missing; run make quickstart or give MODEL=FILE" >&2; exit 2; }
	$(BIN)/tvmcomp bench $(MODEL) --against onnxruntime,openvino,torch --threads $(THREADS) $(ARGS)

clean:
	rm -rf $(VENV) build dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[compile,torch,eval]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(INSTALL) -e '.[compile,torch,eval,peers,dev]'
	touch $@
