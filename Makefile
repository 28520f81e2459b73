# Needs nothing but make and Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint docs notebooks clean

# Draw sample data, train a small net on it, score it.
demo: $(VENV)/installed
	$(BIN)/python prepare.py data=sample
	$(BIN)/python train.py experiment=demo hydra.run.dir=runs/demo/latest
	$(BIN)/python evaluate.py ckpt=runs/demo/latest/checkpoints/best.ckpt split=test
	@echo "TensorBoard: $(BIN)/tensorboard --logdir runs/demo/latest"

# Two tests at a time, so one thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10

# While you work: minutes.
test: lint
	$(PYTEST) -m "not slow"

# Everything that CI runs.
test-all: lint docs
	$(PYTEST)

lint: $(VENV)/installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The documentation, in site/; a broken link or an unknown name in the reference is an error.
docs: $(VENV)/installed-all
	$(BIN)/zensical build --strict --clean

# The notebooks with their outputs, on drawn faces.
notebooks: $(VENV)/installed-all demo
	$(BIN)/python notebooks/store.py

# What the demo and every command need; the rest is for tests and pages.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into $(VENV). PyTorch is some gigabytes: this takes minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,export]'
	@touch $@

$(VENV)/installed-all: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) runs build dist site .cache
