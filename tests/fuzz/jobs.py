"""Jobs that are killed: a preparation, a training, a training of a Darknet net; each runs in a process of its own."""

import os
import sys
from pathlib import Path

import torch

import fer.darknet.torch_engine.training.run  # noqa: F401  imported once, in the process that the others are forked from
from fer.data.preparation.prepare import prepare
from tests.conftest import fit, main, train_config


def _quietly() -> None:
    torch.set_num_threads(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.dup2(nothing, sys.stderr.fileno())


def prepare_csv(data: dict, out: Path) -> None:
    _quietly()
    prepare(data, out / "faces.h5", workers=1)


def train(file: Path, out: Path, resume: Path | None) -> None:
    _quietly()
    changes = {"trainer.max_epochs": 4, "batch_size": 16} | ({"resume": resume} if resume else {})
    fit(train_config(file, **changes), out)


def train_darknet(words: list[str], home: Path, out: Path, resume: Path | None) -> None:
    _quietly()
    main("train.py", *words, f"hydra.run.dir={out}", *([f"resume={resume}"] if resume else []), cwd=home)
