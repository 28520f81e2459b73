"""Frozen parts of a network stay bit for bit, and are trained from the epoch on that frees them."""

import math
import os
import re
import signal

import pytest
import pytorch_lightning as pl
import torch

from fer.errors import InputError, Stopped
from fer.training.run import assemble, train
from tests.conftest import fit, train_config, write_tiny
from tests.training.test_run import arguments

#: The first two convolutions of vgg_small with their norms.
FIRST = "['[0145].*']"
FROZEN = [f"net.network.{layer}.{kind}" for layer in (0, 1, 4, 5) for kind in ("weight", "bias")]
STATISTICS = [f"net.network.{layer}.running_{kind}" for layer in (1, 5) for kind in ("mean", "var")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A prepared file of 20 x 20 grey faces: 150 train, 40 val; the tests of this file do not change it."""
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny.h5", {"train": 150, "val": 40})


class Keep(pl.Callback):
    """Keeps the weights of before the run and of each epoch's end, and the gradients' norms that are clipped."""

    def __init__(self):
        self.states = []

    def on_fit_start(self, trainer, pl_module):
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_epoch_end(self, trainer, pl_module):
        self.on_fit_start(trainer, pl_module)


def same(one, other, names):
    return [torch.equal(one[name], other[name]) for name in names]


OPTIONS = {
    "plain": {},
    "clipped": {"trainer.gradient_clip_val": 0.5, "trainer.gradient_clip_algorithm": "norm"},
    "averaged": {"recipe.ema": 0.8},
    "sam": {"recipe.sam": 0.05},
    "adamw": {"optimizer": "adamw", "param_groups.layer_decay": 0.8, "param_groups.no_decay": "true"},
    "accumulated": {"trainer.accumulate_grad_batches": 2},
    "fused": {"optimizer": "adamw", "optimizer.fused": "true", "trainer.gradient_clip_val": "null"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_is_frozen_stays_until_it_is_freed(tiny, tmp_path, options):
    kept = Keep()
    config = train_config(tiny, freeze=FIRST, unfreeze_epoch=2, **options, **{"trainer.max_epochs": 3})
    fit(config, tmp_path, kept)
    start, *epochs = kept.states
    for epoch in epochs[:2]:
        assert all(same(start, epoch, FROZEN + STATISTICS))
        assert not any(same(start, epoch, ["net.network.8.weight", "net.network.9.running_mean"]))
    assert not any(same(epochs[1], epochs[2], [*FROZEN[::2], *STATISTICS]))
    if "recipe.ema" in options:
        saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
        assert not any(same(start, saved["state_dict"], STATISTICS))


@pytest.mark.parametrize("options", [{}, {"recipe.ema": 0.8}], ids=["plain", "averaged"])
def test_what_is_frozen_for_good_is_the_same_in_the_checkpoint(tiny, tmp_path, options):
    kept = Keep()
    _, module = fit(train_config(tiny, freeze=FIRST, **options), tmp_path, kept)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert all(same(kept.states[0], saved["state_dict"], FROZEN + STATISTICS))
    # the optimiser has no state of them: of 18 parameters 10 are trained
    assert sum(len(group["params"]) for group in saved["optimizer_states"][0]["param_groups"]) == 10
    assert [weight.requires_grad for weight in module.net.parameters()] == [False] * 8 + [True] * 10


def test_the_ways_to_freeze_train_the_rest_alike(tiny, tmp_path):
    # never freed, or freed after the end of these two epochs
    fit(train_config(tiny, freeze=FIRST), tmp_path / "never")
    config = train_config(tiny, freeze=FIRST, unfreeze_epoch=2, **{"trainer.max_epochs": 3})
    config["trainer"]["max_epochs"] = 2
    fit(config, tmp_path / "later")
    never, later = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("never", "later")
    )
    assert all(same(never, later, never))


class Interrupt(pl.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, 2):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_run_cut_before_or_after_the_freeing_ends_as_an_unbroken_one(tiny, tmp_path, epoch):
    options = {"freeze": FIRST, "unfreeze_epoch": 1, "param_groups.layer_decay": 0.7, "trainer.max_epochs": 2}
    fit(train_config(tiny, **options), tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(train_config(tiny, **options), tmp_path / "cut", Interrupt(epoch))
    resume = tmp_path / "cut/checkpoints/interrupted.ckpt"
    fit(train_config(tiny, **options, resume=resume), tmp_path / "rest")
    whole, rest = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "rest")
    )
    assert all(same(whole, rest, whole))
    for change, named in (
        ({"freeze": "null", "unfreeze_epoch": "null"}, "freeze=['[0145].*'], not None"),
        ({"param_groups.layer_decay": 0.6}, "param_groups.layer_decay=0.7, not 0.6"),
    ):
        with pytest.raises(InputError, match=re.escape(f"was trained with {named}; give the command of that run")):
            assemble(train_config(tiny, **options | change, resume=resume), tmp_path / "other")


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("['0']", "freeze: 0 fits no parameter of vgg_small: give 0.*"),
        ("['0.wieght']", "freeze: 0.wieght fits no parameter of vgg_small; the nearest are 0.weight"),
        ("['*']", "freeze=[*] leaves nothing of vgg_small to train"),
        ("['0.*','layer1.*']", "freeze: layer1.* fits no parameter of vgg_small; the nearest are "),
    ],
)
def test_patterns_that_make_no_sense_are_one_line(tiny, tmp_path, freeze, message):
    with pytest.raises(InputError) as error:
        assemble(train_config(tiny, freeze=freeze), tmp_path)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_run_says_how_much_is_frozen(tiny, tmp_path, capsys):
    # 3 * 3 * 3 * 32 + 32 and the norm's 64
    assert math.prod((3, 3, 3, 32)) + 32 + 64 == 960
    result = train(train_config(tiny, freeze="['[01].*']", **{"trainer.max_epochs": 1}), tmp_path)
    said = capsys.readouterr().out
    assert f"vgg_small: {int(result['parameters']):,} parameters, 960 of them frozen; " in said


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["unfreeze_epoch=1"]], ids=["for good", "for an epoch"])
def test_two_ranks_freeze_alike(tiny, tmp_path, process, more):
    process(
        "train.py", *arguments(tiny, tmp_path, "trainer.max_epochs=2", "trainer.devices=2", f"freeze={FIRST}", *more)
    )
    states = [
        torch.load(tmp_path / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"] for name in ("last", "best")
    ]
    config = train_config(tiny, freeze=FIRST)
    _, module, _, _ = assemble(config, tmp_path / "fresh")
    assert all(same(module.state_dict(), states[0], FROZEN)) == (not more)


@pytest.mark.slow
def test_a_compiled_network_freezes_too(tiny, tmp_path):
    kept = Keep()
    config = train_config(tiny, freeze=FIRST, unfreeze_epoch=1, compile="true", **{"trainer.max_epochs": 2})
    fit(config, tmp_path, kept)
    start, first, second = kept.states
    assert all(same(start, first, FROZEN + STATISTICS)) and not any(same(first, second, FROZEN[::2] + STATISTICS))
