"""A net of a cfg trained in torch: the programs' loss, their SGD and the iterations that they count."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fer.darknet.design.options import require_trained
from fer.darknet.formats.cfg import Section, integer, task_of
from fer.darknet.formats.section import number
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.training.batches import training_batches, training_loader
from fer.darknet.torch_engine.training.ema import Average
from fer.darknet.torch_engine.training.losses import YoloLoss, classifier_loss, read_cost_scale
from fer.darknet.torch_engine.training.schedules import rate_schedule
from fer.errors import InputError
from fer.system.files import replacing

# Options of [net] that change a training and are not built, with the value that asks for nothing; the batches and the
# losses refuse theirs.
_NOT_BUILT = {
    "adam": "0", "weights_reject_freq": "0", "attention": "0", "clip": "0", "notruth": "0", "sgdr_cycle": "0",
    "time_steps": "1",
}  # fmt: skip


class DarknetTraining(pl.LightningModule):
    """Trains ``network`` as the program does; an item of the loader is a mini-batch of ``TrainingBatches``.

    SGD with momentum whose gradient is the sum over an iteration's photos divided by batch, and decay * weight of
    convolutions and connected layers, not of biases and scales. The trainer accumulates ``subdivisions`` mini-batches;
    batch normalisation takes each mini-batch's numbers on each device, as the program does. ``iteration`` counts the
    updates done, ``loss`` is the last one's as the program prints it, over all devices, ``statistics`` what a
    detector's heads on this device say of it: means over the boxes that were trained on a truth.

    Raises:
        InputError: an option of [net] or of a head that is wrong or not supported, with its line.
    """

    def __init__(
        self, sections: Sequence[Section], photos: Sequence[str | Path], names: Sequence[str], seed: int,
        workers: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        net = sections[0]
        for key, nothing in _NOT_BUILT.items():
            if net.options.get(key, nothing) != nothing:
                raise InputError(f"{net.where}: {key}={net.options[key]} is not supported with darknet.engine=torch")
        self.network = DarknetNetwork(sections)
        for section in sections[1:]:
            require_trained(section)
        #: Whether the first layers stay as they are, so that they need weights to begin with.
        self.frozen = self.network.freeze()
        self.rate: Callable[[int], float] = rate_schedule(net)
        self.batch, self.subdivisions = integer(net, "batch", 1), integer(net, "subdivisions", 1)
        self.momentum, self.decay = (
            number(net, key, default) for key, default in (("momentum", 0.9), ("decay", 0.0001))
        )
        if not 0 <= self.momentum < 1:
            raise InputError(f"{net.where}: momentum={self.momentum:g} is not within 0 and 1")
        if self.decay < 0:
            raise InputError(f"{net.where}: decay={self.decay:g} is negative")
        self.smoothing = number(net, "label_smooth_eps", 0)
        detects = task_of(sections) == "detector"
        self.yolo_loss = YoloLoss(sections) if detects else None
        self.cost_scale = None if detects else read_cost_scale(sections)
        self._data = partial(training_batches, sections, photos, names, seed)
        self.require_divisible(1)
        self._workers = workers
        #: Of ema_alpha=, None without it.
        self.average = Average(net, self.network) if number(net, "ema_alpha", 0) else None
        self.iteration, self.loss = 0, 0.0
        self._losses: list[Tensor] = []
        self.statistics: dict[str, float] = {}
        self._statistics: list[dict[str, Tensor]] = []
        self._resumed: dict[str, Any] = {}
        self.network.to(memory_format=torch.channels_last)

    def require_divisible(self, ranks: int) -> None:
        """Refuse, before anything begins, a batch that cannot be divided among so many processes."""
        self._data(ranks=ranks)

    def train_dataloader(self) -> DataLoader:
        batches = self._data(rank=self.global_rank, ranks=self.trainer.world_size)
        pinned = self.trainer.strategy.root_device.type == "cuda"
        return training_loader(batches, self.iteration, self._workers, pin_memory=pinned)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights = [weight for name, weight in self.network.named_parameters() if name.endswith("linear.weight")]
        rest = [parameter for name, parameter in self.network.named_parameters() if not name.endswith("linear.weight")]
        groups = [{"params": weights, "weight_decay": self.decay}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, lr=self.rate(1), momentum=self.momentum)
        if "optimizer" in self._resumed:
            optimizer.load_state_dict(self._resumed["optimizer"])
            # the saved groups bring the momentum and decay of the run before, too; the config's count
            for group, configured in zip(optimizer.param_groups, groups, strict=True):
                group.update(momentum=self.momentum, weight_decay=configured["weight_decay"])
        return optimizer

    @property
    def _sgd(self) -> torch.optim.Optimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # the only one
        return optimizer.optimizer

    def on_train_start(self) -> None:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and self._resumed.get("scaler"):
            scaler.load_state_dict(self._resumed["scaler"])
        if "random" in self._resumed:
            torch.set_rng_state(self._resumed["random"])
        if self.average and self._resumed.get("average"):
            self.average.values = [value.to(self.device) for value in self._resumed["average"]]
        self._resumed = {}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.network.iteration = self.iteration
        for group in self._sgd.param_groups:
            group["lr"] = self.rate(self.iteration + 1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, truths = batch
        images = images.to(torch.float32, memory_format=torch.channels_last) / 255
        output = self.network(images)
        if self.yolo_loss is not None:
            loss, statistics = self.yolo_loss(output, truths)
            self._statistics.append(statistics)
        else:
            loss = classifier_loss(output, self._smooth(truths), self.cost_scale)
        self._losses.append(loss.detach())
        return loss

    def optimizer_step(self, *arguments: Any, **more: Any) -> None:
        super().optimizer_step(*arguments, **more)
        loss = torch.stack(self._losses).mean()
        if self.trainer.world_size > 1:
            loss = self.trainer.strategy.reduce(loss, reduce_op="mean")
        self.loss, self._losses = float(loss), []
        self.statistics, self._statistics = _over_boxes(self._statistics), []
        self.iteration += 1
        if self.average:
            self.average.update(self.iteration)

    def save_state(self, path: Path) -> None:
        """Write all that `load_state` goes on from, plain data and tensors, as a file that appears whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        state = {
            "iteration": self.iteration, "network": self.network.state_dict(),
            "optimizer": self._sgd.state_dict(), "scaler": scaler.state_dict() if scaler else None,
            "random": torch.get_rng_state(), "average": self.average.values if self.average else [],
        }  # fmt: skip
        try:
            with replacing(path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from None

    def load_state(self, path: Path) -> None:
        """Go on with a saved run exactly: its weights, momenta, iteration and generator of random numbers.

        Raises:
            InputError: no such file, another file, or that of another net.
        """
        try:
            state = torch.load(path, "cpu", weights_only=True)
            self.network.load_state_dict(state["network"])
            self.iteration, self._resumed = int(state["iteration"]), state
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except Exception as error:  # whatever torch.load says of damaged files
            raise InputError(
                f"{path}: no checkpoint of this net ({' '.join(str(error).split())[:120]}): give the command of that "
                "run again, or resume from its .weights"
            ) from None

    def _smooth(self, targets: Tensor) -> Tensor:
        """Return targets with label_smooth_eps: 1 - eps for a photo's class, eps / (classes - 1) for each other."""
        if not self.smoothing:
            return targets
        classes = self.network.classes
        assert classes is not None  # it has a [softmax]
        if targets.ndim == 1:
            targets = F.one_hot(targets, classes).float()
        return targets * (1 - self.smoothing) + (1 - targets) * self.smoothing / max(1, classes - 1)


def _over_boxes(parts: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """Return means over the boxes of all mini-batches and heads of `YoloLoss`'s statistics."""
    if not parts:
        return {}
    count = torch.stack([part["count"] for part in parts])
    names = ("iou", "obj", "class", "recall50", "recall75")
    sums = [(torch.stack([part[name] for part in parts]) * count).sum() for name in names]
    means = torch.stack(sums) / count.sum().clamp(min=1)
    return dict(zip(names, means.tolist(), strict=True))
