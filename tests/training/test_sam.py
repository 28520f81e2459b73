"""SAM's two passes against a quadratic worked by hand, and through the real trainer."""

import os
import signal

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from fer.data.source import FaceFormat
from fer.errors import Stopped
from fer.training.run import assemble
from fer.training.sam import SAM
from tests.conftest import fit, train_config, write_tiny
from tests.training.test_run import arguments, losses


class Quadratic(nn.Module):
    """(a^2 + 4 b^2) / 2, whose gradient is (a, 4 b); a buffer counts the calls as batch norm does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 1.0]))
        self.unused = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self):
        self.calls += 1
        return (self.weight**2 * torch.tensor([1.0, 4.0])).sum() / 2


def test_two_passes_by_hand():
    net = Quadratic()
    optimizer = SAM(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5), 0.5, net)
    points, ascended = [], []

    def closure():
        optimizer.zero_grad()
        points.append(net.weight.detach().clone())
        ascended.append(optimizer.ascended)
        loss = net()
        loss.backward()
        return loss

    # g = (3, 4), of length 5; 0.5 * g / 5 = (0.3, 0.4); there the gradient is (3.3, 5.6)
    assert optimizer.step(closure).item() == pytest.approx(6.5)
    assert torch.allclose(torch.stack(points), torch.tensor([[3.0, 1.0], [3.3, 1.4]]))
    assert ascended == [False, True]
    assert torch.allclose(net.weight, torch.tensor([3.0 - 0.33, 1.0 - 0.56]))
    assert torch.equal(net.unused, torch.ones(1))
    assert int(net.calls) == 1
    # the second step: momentum is the base's; g = (2.67, 1.76)
    optimizer.step(closure)
    climb = 0.5 * torch.tensor([2.67, 1.76]) / (2.67**2 + 1.76**2) ** 0.5
    velocity = 0.5 * torch.tensor([3.3, 5.6]) + (torch.tensor([2.67, 0.44]) + climb) * torch.tensor([1.0, 4.0])
    assert torch.allclose(net.weight, torch.tensor([2.67, 0.44]) - 0.1 * velocity)


def test_its_state_is_the_base_optimizers():
    net = Quadratic()
    optimizer = SAM(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5), 0.5, net)

    def closure():
        loss = net()
        optimizer.zero_grad()
        loss.backward()
        return loss

    optimizer.step(closure)
    plain = torch.optim.SGD(net.parameters(), lr=7.0, momentum=0.5)
    again = SAM(plain, 0.5, net)
    again.load_state_dict(optimizer.state_dict())
    assert plain.param_groups[0]["lr"] == again.param_groups[0]["lr"] == 0.1
    assert torch.equal(plain.state[net.weight]["momentum_buffer"], again.state[net.weight]["momentum_buffer"])
    # a schedule sets the rate that the base steps by
    schedule = torch.optim.lr_scheduler.LambdaLR(again, lambda epoch: 0.5)
    assert plain.param_groups[0]["lr"] == pytest.approx(0.05)
    again.step(closure)
    schedule.step()


def test_weights_come_back_when_the_second_pass_fails():
    net = Quadratic()
    optimizer = SAM(torch.optim.SGD(net.parameters(), lr=0.1), 0.5, net)

    def closure():
        if optimizer.ascended:
            raise KeyboardInterrupt
        loss = net()
        loss.backward()
        return loss

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert torch.equal(net.weight, torch.tensor([3.0, 1.0])) and not optimizer.ascended


def test_a_radius_of_almost_nothing_is_the_plain_optimizer_in_the_trainer(tiny, tmp_path):
    # both clip; float32 adds the radius away
    for name, options in (("plain", {}), ("sam", {"recipe.sam": 1e-20})):
        fit(train_config(tiny, **options, **{"trainer.max_epochs": 2}), tmp_path / name)
    contents = [
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "sam")
    ]
    assert contents[0].keys() == contents[1].keys()
    assert all(torch.equal(contents[0][key], contents[1][key]) for key in contents[0])
    # each face counts once in the epoch's numbers
    logs = [(tmp_path / name / "metrics/metrics.csv").read_text().splitlines() for name in ("plain", "sam")]
    columns = [logs[0][0].split(",").index(key) for key in ("train/loss", "train/acc", "val/acc")]
    for plain, sam in zip(*(log[1:] for log in logs), strict=True):
        assert [plain.split(",")[c] for c in columns] == [sam.split(",")[c] for c in columns]


def test_the_way_up_is_not_clipped(tiny, tmp_path):
    options = {"recipe.sam": 0.05, "trainer.gradient_clip_val": 1e-6, "trainer.max_epochs": 1}
    trainer, model, data, _ = assemble(train_config(tiny, **options), tmp_path)
    ups, steps = [], []
    model.on_after_backward = lambda: ups.append(0)
    model.on_before_zero_grad = lambda optimizer: steps.append(
        (
            model.sam.ascended,
            max((float(p.grad.abs().max()) for p in model.net.parameters() if p.grad is not None), default=0),
        )
    )
    trainer.fit(model, datamodule=data)
    assert len(ups) == 2 * len(range(0, 150, 32))
    # before the second backward the first gradient is whole; before the next step's first the second one is clipped
    assert min(size for ascended, size in steps if ascended) > 1e-4
    assert max(size for ascended, size in steps if not ascended) == pytest.approx(1e-6)


class Interrupt(pl.Callback):
    """Send this process SIGTERM in the third step of the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_a_run_cut_inside_an_epoch_ends_with_the_same_weights(tiny, tmp_path, precision):
    options = {"recipe.sam": 0.1, "recipe.ema": 0.8, "trainer.precision": precision, "trainer.max_epochs": 3}
    fit(train_config(tiny, **options), tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(train_config(tiny, **options), tmp_path / "cut", Interrupt())
    resume = {"resume": tmp_path / "cut/checkpoints/interrupted.ckpt"}
    fit(train_config(tiny, **options, **resume), tmp_path / "rest")
    whole, rest = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("whole", "rest")
    )
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(whole[part][key], rest[part][key]) for key in whole[part])


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path, run, process):
    # the way up is the whole batch's gradient on both; no batch norm, no augmentation, no dropout, as in test_train
    file = write_tiny(tmp_path / "big.h5", {"train": 150, "val": 41}, FaceFormat(size=32))
    common = [
        "model=torchvision", "model.name=squeezenet1_1", "model.dropout=0", "augment=none", "trainer.max_epochs=2",
        "batch_size=32", "data.size=32", "augment.crop=32", "recipe.sam=0.05",
    ]  # fmt: skip
    run("train.py", *arguments(file, tmp_path / "one", *common))
    process("train.py", *arguments(file, tmp_path / "two", *common, "trainer.devices=2"))
    for one, two in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
