# Everything runs in .venv, which `make setup` builds from the exact versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY := PASSIVE

.PHONY: setup demo test lint clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/safer-offline collect car-circle -o demo/car_circle.h5
	$(BIN)/safer-offline train --data demo/car_circle.h5 --out demo/run
	$(BIN)/safer-offline evaluate demo/run --env SafetyCarCircle-v0 --out demo

test: setup
	$(BIN)/python -m pytest

# mypy and import-linter look for packages by folder, so show them the tree as it is installed.
.lint: $(VENV)/.installed
	rm -rf .lint && mkdir -p .lint/safer_offline
	ln -s $(CURDIR)/safer_offline/* .lint/safer_offline/
	ln -s $(CURDIR)/datasets $(CURDIR)/cli .lint/safer_offline/

lint: setup .lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd .lint && ../$(BIN)/mypy --config-file ../pyproject.toml -p safer_offline
	cd .lint && ../$(BIN)/lint-imports --config ../pyproject.toml

clean:
	rm -rf $(VENV) .lint demo build *.egg-info
