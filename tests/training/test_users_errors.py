"""Parts of the user's that raise whatever error, as they are built or while a training runs: one line names them."""

import json
import os
import re
import signal

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.nn import functional

from fer.api import detector_arguments
from fer.config.train import check_train
from fer.data.preparation.sources import open_source
from fer.errors import InputError, Interrupted
from fer.training.run import assemble, train
from tests.conftest import ROOT
from tests.data.test_own_modules import Stripes


def fail(kind):
    """Raise an error of a kind: with a text, with one that says little, without any."""
    errors = (RuntimeError("two\nlines"), KeyError("x"), AssertionError())
    raise next(error for error in errors if type(error).__name__ == kind)


class OddNet(nn.Module):
    def __init__(self, num_classes: int, kind: str):
        fail(kind)


class OddLoss(nn.Module):
    def __init__(self, kind: str):
        fail(kind)


class OddAugment(nn.Module):
    def __init__(self, kind: str):
        fail(kind)


class OddOptimizer(torch.optim.SGD):
    def __init__(self, params, kind: str, fused: bool | None = None):
        fail(kind)


def odd_schedule(optimizer, kind: str):
    fail(kind)


class OddCallback(pl.Callback):
    def __init__(self, kind: str):
        fail(kind)


class OddLogger(Logger):
    name = version = "odd"

    def __init__(self, kind: str):
        fail(kind)

    def log_metrics(self, metrics, step=None): ...

    def log_hyperparams(self, params): ...


class OddData(pl.LightningDataModule):
    def __init__(self, kind: str):
        fail(kind)


class OddReader:
    def __init__(self, kind: str):
        fail(kind)


class OddFaces:
    def __init__(self, kind: str):
        fail(kind)


SHORT = ["trainer=cpu", "trainer.max_epochs=2", "trainer.enable_progress_bar=false", "batch_size=16"]


def config_of(tiny, *words):
    """Check the config of a short training of tiny faces; words choose its parts."""
    data = [] if "data=module" in words else ["data=fer2013", f"data.file={tiny}"]
    model = [] if "model=custom" in words else ["model=vgg_small"]
    augment = [] if "augment=custom" in words else ["augment.crop=16"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return check_train(compose("train", [*data, "data.size=20", *model, *augment, *SHORT, *words]))


#: What the line begins with, what chooses the part, and its class.
CONSTRUCTED = [
    ("model._target_=", ["model=custom"], OddNet),
    ("loss._target_=", ["loss=custom"], OddLoss),
    ("augment._target_=", ["augment=custom"], OddAugment),
    ("", ["optimizer=sgd", "~optimizer.momentum"], OddOptimizer),
    ("", ["schedule=custom"], odd_schedule),
    ("callbacks.mine._target_=", [], OddCallback),
    ("logger.mine._target_=", [], OddLogger),
    ("data._target_=", ["data=module"], OddData),
]
SAID = {
    "RuntimeError": "RuntimeError: two lines$", "KeyError": "KeyError: 'x'$",
    "AssertionError": rf"AssertionError in .*{os.path.basename(__file__)}, line \d+$",
}  # fmt: skip


@pytest.mark.parametrize(
    ("start", "words", "target", "kind"),
    [(*each, kind) for each in CONSTRUCTED for kind in SAID if kind == "AssertionError" or each[2] is OddCallback],
)
def test_a_constructor_that_raises_whatever_is_one_line(tiny, tmp_path, start, words, target, kind):
    key = start.removesuffix("._target_=") or words[0].split("=")[0]
    own = [f"++{key}._target_={__name__}.{target.__name__}", f"++{key}.kind={kind}"]
    if key == "optimizer":
        own += [f"~optimizer.{name}" for name in ("weight_decay", "nesterov", "lr")]
    with pytest.raises(InputError) as caught:
        assemble(config_of(tiny, *words, *own), tmp_path)
    line = str(caught.value)
    assert re.search(SAID[kind], line) and "\n" not in line
    assert line.startswith(f"{start}{__name__}.{target.__name__}") and (start or f" {key}.kind" in line)


@pytest.mark.parametrize("kind", SAID)
def test_readers_and_detectors_that_raise_whatever_are_one_line(tmp_path, kind):
    data = {"name": "own", "size": 20, "color": "grey", "margin": 0.0, "seed": 0, "min_bytes": 0, "max_bytes": None}
    data |= {"max_pixels": 100, "source": {"_target_": f"{__name__}.OddReader", "kind": kind}}
    with pytest.raises(InputError, match=f"^data.source._target_={__name__}.OddReader: cannot be built: {SAID[kind]}"):
        open_source(data)
    with pytest.raises(InputError, match=f"^faces._target_={__name__}.OddFaces: cannot be built: {SAID[kind]}"):
        detector_arguments({"_target_": f"{__name__}.OddFaces", "kind": kind})


class RaisingNet(nn.Module):
    """Raises in the forward pass of its inner layer."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.layer = nn.Linear(100, num_classes)

    def forward(self, faces):
        return self.layer(faces.flatten(1))


class RaisingLoss(nn.Module):
    """Raises in its third batch."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, logits, targets):
        self.calls += 1
        if self.calls == 3:
            helper()
        return functional.cross_entropy(logits, targets)


def helper():
    raise KeyError("third")


class RaisingAugment(nn.Module):
    def forward(self, faces):
        raise KeyError("faces")


class RaisingCallback(pl.Callback):
    def __init__(self, hook: str):
        setattr(self, hook, self.fail)

    def fail(self, *_, **__):
        raise KeyError("hook")


class RaisingData(Stripes):
    def change(self, batch):
        raise KeyError("batch")


class NoLoader(Stripes):
    def __init__(self, size: int, batch_size: int, seed: int, loader: int | None = None):
        super().__init__(size, batch_size, seed)
        self.loader = loader

    def train_dataloader(self):
        return self.loader


def own(key, name, **arguments):
    return [f"++{key}._target_={name}", *(f"++{key}.{argument}={value}" for argument, value in arguments.items())]


FILE = re.escape(__file__)
EARLY = "pytorch_lightning.callbacks.EarlyStopping"
BEST = "pytorch_lightning.callbacks.ModelCheckpoint"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model=custom", *own("model", f"{__name__}.RaisingNet")], "model: RuntimeError: mat1 and mat2 shapes .*"),
        (["loss=custom", *own("loss", f"{__name__}.RaisingLoss")], rf"loss: KeyError: 'third' \({FILE}, line \d+\).*"),
        (["augment=custom", *own("augment", f"{__name__}.RaisingAugment")], r"augment: KeyError: 'faces' \(.*"),
        *(
            (own("callbacks.mine", f"{__name__}.RaisingCallback", hook=hook), r"callbacks.mine: KeyError: 'hook' \(.*")
            for hook in ("setup", "on_fit_start", "on_train_batch_end", "on_validation_end", "on_train_end", "teardown")
        ),
        (
            ["data=module", *own("data", f"{__name__}.RaisingData")],
            rf"data: KeyError: 'batch' \({FILE}, line \d+\); HYDRA_FULL_ERROR=1 shows all of it",
        ),
        (
            ["data=module", *own("data", f"{__name__}.NoLoader")],
            rf"{__name__}.NoLoader.train_dataloader\(\) gives nothing, not a torch.utils.data.DataLoader of .*",
        ),
        (
            ["data=module", *own("data", f"{__name__}.NoLoader", loader=5)],
            r".*NoLoader.train_dataloader\(\) gives int,.*",
        ),
        (
            [*own("callbacks.a", EARLY, monitor="val/acc"), *own("callbacks.mine", EARLY, monitor="val/ac")],
            "callbacks.mine: RuntimeError: Early stopping conditioned on metric `val/ac` which is not available.*",
        ),
        (
            own("callbacks.mine", BEST, monitor="val/ac"),
            r"callbacks.mine: MisconfigurationException: `ModelCheckpoint\(monitor='val/ac'\)` could not find .*",
        ),
        (
            [*own("callbacks.a", EARLY, monitor="val/acc", mode="max"), "early_stop=3"],
            "callbacks.a: a EarlyStopping beside the program's own that watches the same.*",
        ),
    ],
)
def test_a_part_that_raises_in_the_run_is_one_line(tiny, tmp_path, words, line):
    with pytest.raises(InputError) as caught:
        train(config_of(tiny, *words), tmp_path)
    assert re.fullmatch(line, str(caught.value)), caught.value


class Signals(pl.Callback):
    def __init__(self, hook: str, number: int):
        def send(*_, **__):
            if not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)

        self.sent = False
        setattr(self, hook, send)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start", "on_train_batch_end", "on_validation_end"])
def test_a_signal_within_a_callback_ends_the_run(tiny, tmp_path, hook, number):
    before = signal.getsignal(number)
    words = own("callbacks.mine", f"{__name__}.Signals", hook=hook, number=int(number))
    with pytest.raises(Interrupted) as caught:
        train(config_of(tiny, *words), tmp_path)
    assert caught.value.signal == number and signal.getsignal(number) is before
    saved = hook not in ("setup", "on_fit_start")
    assert (tmp_path / "checkpoints/interrupted.ckpt").is_file() == saved
    assert f"stopped by {number.name}" in json.loads((tmp_path / "run.json").read_text())["exit"]


def test_an_error_in_the_first_step_stands_on_a_line_of_its_own(tiny, tmp_path, run):
    words = own("callbacks.mine", f"{__name__}.RaisingCallback", hook="on_train_batch_end")
    short = [word for word in SHORT if "progress_bar" not in word]
    data = ["data=fer2013", f"data.file={tiny}", "data.size=20", "augment.crop=16", "model=vgg_small"]
    done = run("train.py", *data, *short, *words, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path, code=2)
    assert "Epoch 0: " in done.stdout and done.stdout.endswith("\n")
    assert [line.split(":")[:2] for line in done.stderr.splitlines()] == [["error", " callbacks.mine"]]
