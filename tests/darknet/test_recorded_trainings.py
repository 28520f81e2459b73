"""Whole trainings of small nets, and a classifier's `valid`, against what darknet programs said of them.

The numbers were recorded by benchmarks/darknet_record.py, trainings of AlexeyAB's program; weights, photos and boxes
are those of `formula`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fer.darknet.formats.cfg import parse
from fer.darknet.formats.photo_folder import labels_from_paths
from fer.darknet.formats.weights import open_net
from fer.darknet.torch_engine import scores as native
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.training.batches import DetectorBatches
from fer.darknet.torch_engine.training.losses import YoloLoss
from fer.darknet.torch_engine.training.module import DarknetTraining
from fer.darknet.torch_engine.weighted import BatchNorm, Stored
from fer.darknet.torch_engine.weights_io import save_weights
from tests.darknet.formula import BOXES, class_name, fill, named_photos, training_photo

RECORDED = Path(__file__).parent / "recorded"
TRAININGS, VALID = (json.loads((RECORDED / f"{name}.json").read_text()) for name in ("trainings", "valid"))
WITHOUT_NORM = [name for name, net in TRAININGS.items() if "batch_normalize" not in net["cfg"]]
RANDOM = [name for name, net in TRAININGS.items() if "sizes" in net]


def images_of(net, network) -> list[Tensor]:
    """The mini-batch of every iteration, uint8 (2, 3, height, width)."""
    photo = torch.from_numpy(training_photo(network)).permute(2, 0, 1)
    if "colour" not in net:
        return [photo.expand(2, -1, -1, -1)] * len(net["printed"])
    # of one colour, so that how it is made larger makes no difference
    colour = torch.tensor(net["colour"], dtype=torch.uint8)[None, :, None, None]
    sizes = [net["sizes"][i // 10] for i in range(len(net["printed"]))]
    return [colour.expand(2, -1, height, width) for width, height in sizes]


def trained(net, cfg: str | None = None) -> tuple[list[list[float]], DarknetNetwork]:
    """Loss and rate of all iterations on the photos that the program had, and the net after them."""
    module = DarknetTraining(parse(cfg or net["cfg"], "net.cfg"), ["photo.png"], ["class0", "class1"], 0)
    fill(module.network).train()
    truths, printed = torch.tensor(BOXES).expand(2, -1, -1), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            printed.append([pl_module.loss, trainer.optimizers[0].param_groups[0]["lr"]])

    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=[Watch()], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    batches = [(images, truths) for images in images_of(net, module.network)]
    # a list itself would be one of loaders
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return printed, module.network


def drift(net, network) -> float:
    """How far the weights after a training are from the program's, in shares of the way that the farthest went.

    Without the rolling numbers, of which AlexeyAB's program keeps 10 % on a CPU and 1 % on a GPU.
    """
    before = DarknetNetwork(network.sections)
    fill(before)
    theirs = DarknetNetwork(network.sections)
    put(theirs, net["weights"])
    apart, way = 0.0, 0.0
    for name, ours in network.named_parameters():
        apart = max(apart, float((ours - theirs.get_parameter(name)).abs().max()))
        way = max(way, float((theirs.get_parameter(name) - before.get_parameter(name)).abs().max()))
    assert way > 1e-3
    return apart / way


def put(network, numbers) -> None:
    """Put numbers into a network in the order of a .weights file."""
    rest = torch.tensor(numbers)
    for module in network.layers:
        for tensor in module.stored().values() if isinstance(module, Stored) else ():
            with torch.no_grad():
                tensor.copy_(rest[: tensor.numel()].view(tensor.shape))
            rest = rest[tensor.numel() :]
    assert not len(rest)


@pytest.mark.parametrize("name", WITHOUT_NORM)
def test_losses_rates_and_weights_of_a_training_are_the_programs(name):
    net = TRAININGS[name]
    printed, network = trained(net)
    (losses, rates), (their_losses, their_rates) = (np.transpose(part) for part in (printed, net["printed"]))
    # it prints six decimals
    assert rates == pytest.approx(their_rates, abs=5.1e-7)
    assert losses == pytest.approx(their_losses, rel=2e-5)
    assert drift(net, network) < 1e-3
    # rates that change and losses that fall, or nothing is shown
    assert len(set(their_rates)) > 1 or "policy=constant" in net["cfg"]
    assert their_losses[-1] < 0.85 * their_losses[0]


@pytest.mark.parametrize("name, option", [("iou_thresh", "iou_thresh=.2\n"), ("max_delta", "max_delta=.05\n")])
def test_an_option_of_the_head_makes_the_difference(name, option):
    net = TRAININGS[name]
    assert option in net["cfg"]
    without, _ = trained(net, net["cfg"].replace(option, ""))
    assert abs(without[-1][0] - net["printed"][-1][0]) > 0.005 * net["printed"][-1][0]


@pytest.mark.parametrize("name", RANDOM)
def test_random_draws_the_programs_sizes(name):
    net = TRAININGS[name]
    batches = [DetectorBatches(parse(net["cfg"]), ["photo.png"], ["a", "b"], seed) for seed in range(30)]
    iterations = len(net["printed"])
    drawn = [[each.size_at(iteration) for iteration in range(iterations)] for each in batches]
    theirs = [tuple(net["sizes"][iteration // 10]) for iteration in range(iterations)]
    # the largest at first, and from 100 before the end on
    sure = [0, *range(-(-(iterations - 99) // 10) * 10, iterations)]
    largest = max(theirs)
    for sizes in drawn:
        assert all(sizes[iteration] == sizes[iteration - iteration % 10] for iteration in range(iterations))
        assert [sizes[i] for i in sure] == [theirs[i] for i in sure] == [largest] * len(sure)
    ours = {size for sizes in drawn for size in sizes}
    assert set(theirs) <= ours and len(set(theirs)) > 1
    # neither side draws sizes that the other does not have
    free = [i for i in range(0, iterations, 10) if i not in sure]
    often = {
        size for size in ours if sum(sizes[i] == size for sizes in drawn for i in free) > len(drawn) * len(free) / 5
    }
    assert often <= {theirs[i] for i in free}


def programs_norm(x: Tensor, norm: BatchNorm) -> Tensor:
    """A normalisation whose backward divides by N what its forward divided by N - 1."""
    dims, shape = (0, 2, 3), (1, -1, 1, 1)
    n = x.numel() // x.shape[1]
    mean, variance = x.mean(dims).view(shape), x.var(dims).view(shape)

    class Normalise(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return (x - mean) / (variance + 1e-5).sqrt()

        @staticmethod
        def backward(ctx, above):
            return normalisation_delta(x, above, n)

    return Normalise.apply(x) * norm.weight.view(shape) + norm.bias.view(shape)


def normalisation_delta(x: Tensor, above: Tensor, divisor: int) -> Tensor:
    """The gradient by x of (x - mean) / sqrt(variance + eps), the variance's own part divided by ``divisor``.

    As the variance is divided by N - 1, its derivative by a number is 2 (x - mean) / (N - 1).
    """
    dims = (0, 2, 3)
    away = x - x.mean(dims, keepdim=True)
    deviation = (x.var(dims, keepdim=True) + 1e-5).sqrt()
    by_variance = (above * away).sum(dims, keepdim=True) * -0.5 / deviation**3
    return above / deviation - above.mean(dims, keepdim=True) / deviation + by_variance * 2 * away / divisor


def test_the_programs_normalisation_divides_by_n_in_the_backward():
    """One iteration of a net whose normalised layer has 8 numbers a channel, by hand in float64."""
    net = TRAININGS["batch_normalize of 8 numbers"]
    network = fill(DarknetNetwork(parse(net["cfg"]))).double()
    theirs = DarknetNetwork(network.sections)
    put(theirs, net["weights"])
    first, last = network.layers[0], network.layers[1]
    images = images_of(net, network)[0].double() / 255
    x = first.linear(images).detach()
    n = x.numel() // x.shape[1]
    assert n == 8
    hat = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    scaled = hat * first.norm.weight.view(1, -1, 1, 1) + first.norm.bias.view(1, -1, 1, 1)
    output = last.linear(nn.functional.leaky_relu(scaled, 0.1)).detach().requires_grad_()
    YoloLoss(network.sections)([output], torch.tensor(BOXES).double().expand(2, -1, -1))[0].backward()
    # back through the last layer, the slope of leaky and the scale, to the normalisation
    above = torch.einsum("nohw,oc->nchw", output.grad, last.linear.weight.detach()[:, :, 0, 0])
    above = above * torch.where(scaled > 0, 1, 0.1).detach() * first.norm.weight.detach().view(1, -1, 1, 1)
    rate, decay, weight = 0.01, 0.01, first.linear.weight.detach()

    def apart(divisor):
        delta = normalisation_delta(x, above, divisor)
        slope = nn.grad.conv2d_weight(images, weight.shape, delta, stride=16, padding=1)
        after, expected = weight - rate * (slope + decay * weight), theirs.layers[0].linear.weight.detach()
        return float((after - expected).abs().max() / (expected - weight).abs().max()), after

    assert apart(n)[0] < 1e-3 < 0.2 < apart(n - 1)[0]
    # ours is the derivative
    assert trained(net)[1].layers[0].linear.weight.detach().numpy() == pytest.approx(apart(n - 1)[1].numpy(), abs=1e-7)


def test_the_drift_of_a_training_with_normalisation_is_that_of_its_backward(monkeypatch):
    net = TRAININGS["batch_normalize"]
    printed, network = trained(net)
    losses, theirs = np.array(printed)[:, 0], np.array(net["printed"])[:, 0]
    # the first is before any update
    assert losses[0] == pytest.approx(theirs[0], rel=2e-6)
    # normalised are 128 and 32 numbers a channel, and 1 / 31 of a part of the gradient is other
    assert 1e-4 < np.abs(losses / theirs - 1).max() < 2e-3
    ours = drift(net, network)
    monkeypatch.setattr(BatchNorm, "forward", lambda norm, x: programs_norm(x, norm))
    printed, network = trained(net)
    assert np.array(printed)[:, 0] == pytest.approx(theirs, rel=1e-6)
    assert drift(net, network) < 1e-5 < 1e-3 < ours


@pytest.mark.parametrize("name", VALID)
def test_top_1_and_top_k_are_what_classifier_valid_prints(tmp_path, name):
    net = VALID[name]
    (tmp_path / "net.cfg").write_text(net["cfg"])
    save_weights(fill(DarknetNetwork(parse(net["cfg"]))), tmp_path / "net.weights")
    names = [class_name(label) for label in range(net["classes"])]
    (tmp_path / "emotion.names").write_text("".join(f"{each}\n" for each in names))
    photos = named_photos(tmp_path, net["classes"])
    (tmp_path / "test.txt").write_text("".join(f"{photo}\n" for photo in photos))
    opened = open_net(tmp_path / "net.weights")
    ranks = native.classify(opened, photos, "cpu").argsort(1)[:, ::-1]
    right = ranks == labels_from_paths(photos, names)[:, None]
    hits = np.column_stack([right[:, 0], right[:, : net["k"]].any(1)]).astype(int).tolist()
    assert set(net["printed"]) == {"alexeyab", "pjreddie"}
    for theirs in net["printed"].values():
        assert hits == theirs
    top1, top5 = np.mean(hits, axis=0)
    assert native.validate(opened, tmp_path / "test.txt", "cpu") == {"val/top1": top1, "val/top5": top5}
    # neither all nor none, and not one class for all photos
    assert 0 < top1 < top5 < 1 and len(set(ranks[:, 0])) > 2
