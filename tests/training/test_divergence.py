"""A training that diverges ends in one line, and what it had before stays."""

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn

from fer.errors import InputError
from fer.models.checkpoint import load_checkpoint
from tests.conftest import fit, train_config, write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A prepared file of 20 x 20 grey faces: 70 train, 14 val; not to be changed."""
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny.h5", {"train": 70, "val": 14})


class Spoil(Callback):
    """Spoils a weight before a step of an epoch, as a gradient that overflows does."""

    def __init__(self, epoch, step):
        self._at = epoch, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self._at:
            with torch.no_grad():
                next(pl_module.net.parameters()).flatten()[0] = float("nan")


def files(folder):
    return sorted(path.name for path in folder.glob("checkpoints/*"))


def test_a_rate_that_is_far_too_high_ends_the_run_in_one_line(tiny, tmp_path, run):
    done = run(
        "train.py", "data=fer2013", f"data.file={tiny}", "data.size=20", "augment.crop=16", "model=vgg_small",
        "trainer=cpu", "batch_size=14", "trainer.max_epochs=2", "optimizer.lr=1e6", f"hydra.run.dir={tmp_path / 'run'}",
        cwd=tmp_path, code=2,
    )  # fmt: skip
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.endswith(
        "error: epoch 0, step 5: loss or weights are NaN or infinite; train with a lower optimizer.lr, which was 1e+06 "
        "now; there is no checkpoint of before"
    )
    assert "score it" not in done.stdout and not files(tmp_path / "run")


@pytest.mark.parametrize("changes", [{}, {"recipe.ema": 0.9}, {"recipe.sam": 0.05}])
def test_the_last_good_checkpoint_is_named_and_kept(tiny, tmp_path, changes):
    config = train_config(tiny, batch_size=14, **{"trainer.max_epochs": 3} | changes)
    last = tmp_path / "run/checkpoints/last.ckpt"
    with pytest.raises(InputError, match=rf"^epoch 1, step 10: .*; the last good checkpoint is {last}$"):
        fit(config, tmp_path / "run", Spoil(1, 3))
    assert files(tmp_path / "run") == ["best.ckpt", "last.ckpt"]
    # of the end of epoch 0, and sound
    assert torch.load(last, weights_only=True)["epoch"] == 0 and load_checkpoint(last).name == "vgg_small"


def test_a_resumed_run_names_what_it_was_resumed_from(tiny, tmp_path):
    fit(train_config(tiny, batch_size=14, **{"trainer.max_epochs": 1}), tmp_path / "first")
    ckpt = tmp_path / "first/checkpoints/last.ckpt"
    config = train_config(tiny, batch_size=14, resume=ckpt, **{"trainer.max_epochs": 2})
    with pytest.raises(InputError, match=rf"; the last good checkpoint is {ckpt}$"):
        fit(config, tmp_path / "second", Spoil(1, 0))


def test_a_long_epoch_is_looked_at_on_its_way(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.training.divergence._EVERY", 2)
    config = train_config(tiny, batch_size=7, **{"trainer.max_epochs": 1})
    with pytest.raises(InputError, match="^epoch 0, step 4: "):
        fit(config, tmp_path / "run", Spoil(0, 2))


class FailsInEvaluation(nn.Module):
    """Logits that are no numbers in evaluation mode once ``steps`` steps are trained."""

    def __init__(self, num_classes: int, steps: int = 0, infinite: bool = False):
        super().__init__()
        self.layer = nn.Linear(16 * 16, num_classes)
        self.left, self.bad = steps, float("inf" if infinite else "nan")

    def forward(self, faces):
        logits = self.layer(faces.flatten(1))
        if self.training:
            self.left -= 1
            return logits
        if self.left > 0:
            return logits
        # of one face in two, so that a mean that leaves it out is a number
        return torch.where(torch.arange(len(logits))[:, None] % 2 == 0, logits, self.bad)


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({}, "epoch 0: .*; there is no checkpoint of before"),
        ({"steps": 6}, "epoch 1: .*; the last good checkpoint is .*last.ckpt"),
        ({"infinite": True}, "epoch 0: "),
    ],
)
def test_a_network_that_fails_in_evaluation_mode_alone_ends_in_one_line(tiny, tmp_path, arguments, where):
    model = {"model": "custom", "model._target_": f"{__name__}.FailsInEvaluation"}
    model |= {f"+model.{key}": value for key, value in arguments.items()}
    config = train_config(tiny, batch_size=14, **model | {"trainer.max_epochs": 3, "trainer.num_sanity_val_steps": 0})
    with pytest.raises(InputError, match=f"^{where}.*") as caught:
        fit(config, tmp_path / "run")
    assert "logits that are NaN or infinite in evaluation mode" in str(caught.value) and "\n" not in str(caught.value)
    assert files(tmp_path / "run") == (["best.ckpt", "last.ckpt"] if arguments.get("steps") else [])
