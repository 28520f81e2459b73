# Needs nothing but make and Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test clean

# Draw sample data, train a small net on it, score it.
demo: $(VENV)/installed
	$(BIN)/python prepare.py data=sample
	$(BIN)/python train.py experiment=demo hydra.run.dir=runs/demo/latest
	$(BIN)/python evaluate.py ckpt=runs/demo/latest/checkpoints/best.ckpt split=test
	@echo "TensorBoard: $(BIN)/tensorboard --logdir runs/demo/latest"

# Everything that CI runs.
test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --durations=10

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
