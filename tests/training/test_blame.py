"""Whose error it is while a training runs: of a user's optimizer, logger, schedule, callbacks, and loader workers."""

import os
import re
import signal
import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from fer.data.loading.dataset import Batch
from fer.errors import InputError
from fer.training.run import train
from tests.data.test_own_modules import Stripes
from tests.training.test_users_errors import config_of, own

SAID, TWO_LINES, NO_SUCH_FACE, RATES = "no server", "two\nlines", "no_face.png", {}


class RaisingOptimizer(torch.optim.SGD):
    """Raises after the gradients were computed."""

    def step(self, closure=None):
        if closure:
            closure()
        raise KeyError("step")


class RaisingLogger(Logger):
    name = version = "raising"

    def __init__(self, method: str):
        super().__init__()
        self.method = method

    def log_metrics(self, metrics, step=None):
        self.fail("log_metrics")

    def log_hyperparams(self, params):
        self.fail("log_hyperparams")

    def finalize(self, status):
        self.fail("finalize")

    def fail(self, method):
        if method == self.method:
            raise ConnectionError(SAID)


def raise_key_error(*_):
    raise KeyError("called")


def raising_schedule(optimizer):
    return LambdaLR(optimizer, rate_of)


def rate_of(epoch):
    if epoch:
        return RATES["rate"]
    return 1.0


class LossInPlace(nn.Module):
    """Changes what its gradient needs."""

    def forward(self, logits, targets):
        probabilities = logits.exp()
        loss = functional.nll_loss(probabilities.log(), targets)
        probabilities.zero_()
        return loss


class RaisingFaces(Dataset):
    """A data set that is no method of its data module, and reads as it is asked to."""

    def __init__(self, module, how):
        self.module, self.how = module, how

    def __len__(self):
        return 60

    def __getitem__(self, number):
        if number == 7:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "file":
                open(NO_SUCH_FACE)
            if self.how == "input":
                raise InputError(f"{NO_SUCH_FACE}: give another one")
            raise KeyError(TWO_LINES)
        return number


class RaisingInWorkers(Stripes):
    def __init__(self, size: int, batch_size: int, seed: int, num_workers: int, how: str):
        super().__init__(size, batch_size, seed)
        self.faces, self.workers = RaisingFaces(self, how), num_workers

    def train_dataloader(self):
        def collate(numbers):
            return Batch(self.image[numbers], self.label[numbers])

        return DataLoader(
            self.faces, self.batch_size, collate_fn=collate, num_workers=self.workers,
            multiprocessing_context="fork" if self.workers else None,
        )  # fmt: skip


HERE = re.escape(__file__)


def place(text):
    """Where this file has a text, once: what a line says of it."""
    lines = open(__file__).read().splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if line.strip() == text)
    return rf"\({HERE}, line {number}\); HYDRA_FULL_ERROR=1 shows all of it"


def part(key, name, **arguments):
    return own(key, f"{__name__}.{name}", **arguments)


def data(how, workers):
    return ["data=module", *part("data", "RaisingInWorkers", how=how), f"num_workers={workers}"]


STEP, CALLED = place('raise KeyError("step")'), place('raise KeyError("called")')
SERVER = place("raise ConnectionError(SAID)")
RATE, LINES, OPEN = place('return RATES["rate"]'), place("raise KeyError(TWO_LINES)"), place("open(NO_SUCH_FACE)")
#: Lightning's class, whose code is a function of the user's.
FUNCTION = [
    "++callbacks.mine._target_=pytorch_lightning.callbacks.LambdaCallback",
    *(
        f"++callbacks.mine.on_train_batch_end.{key}"
        for key in (f"_target_={__name__}.raise_key_error", "_partial_=true")
    ),
]
OPTIMIZER = ["optimizer=sgd", *part("optimizer", "RaisingOptimizer")]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (OPTIMIZER, f"optimizer: KeyError: 'step' {STEP}"),
        ([*OPTIMIZER, "recipe.sam=0.05"], f"optimizer: KeyError: 'step' {STEP}"),
        (["schedule=custom", *part("schedule", "raising_schedule")], f"schedule: KeyError: 'rate' {RATE}"),
        *(
            (part("logger.mine", "RaisingLogger", method=method), f"logger.mine: ConnectionError: no server {SERVER}")
            for method in ("log_metrics", "log_hyperparams", "finalize")
        ),
        (FUNCTION, f"callbacks.mine: KeyError: 'called' {CALLED}"),
        (
            ["loss=custom", *part("loss", "LossInPlace")],
            "loss: RuntimeError: one of the variables needed for gradient computation has been modified by an in.*",
        ),
        *((data("key", workers), f"data: KeyError: 'two(.n| )lines' {LINES}") for workers in (0, 2)),
        *(
            (data("file", workers), rf"data: FileNotFoundError: .* No such file or directory: 'no_face.png' {OPEN}")
            for workers in (0, 2)
        ),
        *((data("input", workers), "no_face.png: give another one") for workers in (0, 2)),
        (
            data("kill", 2),
            # torch says it in one of two ways, whichever it notices first
            r"num_workers: DataLoader worker \(pid(\(s\))? \d+\) (is killed by signal: Killed|exited unexpectedly); "
            "give fewer where memory is short, or num_workers=0, which has none",
        ),
    ],
)
def test_the_line_has_the_key_the_file_and_the_line(tiny, tmp_path, words, line):
    with warnings.catch_warnings():
        # forked from a process with threads, as this one has by now
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(InputError) as caught:
            train(config_of(tiny, *words), tmp_path)
    assert re.fullmatch(line, str(caught.value)), caught.value


class InOptimizer(pl.Callback):
    """Raises in the step of the optimiser, which is not to blame for it."""

    def on_before_zero_grad(self, *_):
        raise KeyError("zero")


def test_an_optimizer_is_not_to_blame_for_what_its_step_calls(tiny, tmp_path):
    with pytest.raises(InputError, match=r"^callbacks.mine: KeyError: 'zero' \("):
        train(config_of(tiny, *part("callbacks.mine", "InOptimizer")), tmp_path)
