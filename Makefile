# Everything runs in .venv, which `make setup` builds from the exact versions in constraints.txt.
# `make demo TASK=ball-circle` does the same for another task, in demo-ball-circle/.
TASK ?= car-circle
OUT := $(if $(filter car-circle,$(TASK)),demo,demo-$(TASK))
DATA := $(OUT)/$(subst -,_,$(TASK)).h5

# The physics engine has wheels for these versions, so look for one of them first.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.10; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && exit; done; echo python3)
BIN := .venv/bin
export OMP_WAIT_POLICY := PASSIVE

.PHONY: setup demo datasets test lint clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt requirements-peers.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-peers.txt
	touch $@

# Each step goes on where an interrupted one stopped, and is skipped once it is done.
demo: setup
	test -f $(DATA) || $(BIN)/safer-offline collect $(TASK) --out $(DATA)
	$(BIN)/safer-offline data info $(DATA) --plot $(DATA:.h5=.png)
	$(BIN)/safer-offline train --data $(DATA) --out $(OUT)/run --resume
	$(BIN)/safer-offline evaluate $(OUT)/run --record --out $(OUT)/run/attacked --overwrite
	$(BIN)/safer-offline report $(OUT)/run --out $(OUT)/report.html

# The catalogue of DATASETS.md: every recipe. About half an hour on two cores;
# `make datasets QUALITIES=mixed` needs two thirds of that.
QUALITIES ?= mixed safe medium
TASKS := $(foreach task,circle run,$(addsuffix -$(task),ball car drone ant))
BUILT := $(foreach quality,$(QUALITIES),$(TASKS:%=datasets-built/%-$(quality).h5))

datasets: setup $(BUILT)
	$(BIN)/safer-offline data catalog $(BUILT)

datasets-built/%.h5:
	$(BIN)/safer-offline collect $* --out $@

test: setup
	$(BIN)/python -m pytest -n auto

# mypy and import-linter find packages by folder: show them the tree as it is installed.
lint: setup
	rm -rf .lint && mkdir -p .lint/safer_offline
	ln -s $(CURDIR)/safer_offline/* $(CURDIR)/datasets $(CURDIR)/cli .lint/safer_offline/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd .lint && ../$(BIN)/mypy --config-file ../pyproject.toml -p safer_offline
	cd .lint && ../$(BIN)/lint-imports --config ../pyproject.toml

clean:
	rm -rf .venv .lint demo demo-* datasets-built build *.egg-info
