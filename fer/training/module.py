"""EmotionClassifier: a network for faces, its loss, optimiser and schedule, as a LightningModule."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from fer.config.checks import build
from fer.data.loading.dataset import Batch
from fer.evaluation.report import metrics_from_confusion
from fer.models.networks import build_model
from fer.training.augment import Augment, center_crop, ten_crop
from fer.training.distillation import Teachers
from fer.training.losses import Recipe
from fer.training.sam import SAM
from fer.training.schedules import make_scheduler

#: Steps whose outputs are kept for the metrics of training, which are updated all at once.
_STEPS = 1000


class EmotionClassifier(pl.LightningModule):
    """Everything that a checkpoint needs to be used again, given as plain dicts, lists and numbers.

    ``model`` goes to `build_model`; ``labels`` are the class names in order; ``face`` is size, color and margin of the
    faces; ``augment`` goes to `Augment`, ``recipe`` to `Recipe`; ``optimizer`` is a ``_target_`` and its arguments,
    ``schedule`` a name and its numbers; ``data`` says what it was trained on (name, file, drawn). ``download=False``
    leaves out the pretrained weights that ``model`` names, for a checkpoint that brings its own. ``counts`` are the
    training faces of each class, where the recipe needs them.
    """

    def __init__(
        self,
        model: dict[str, Any],
        labels: list[str],
        face: dict[str, Any],
        augment: dict[str, Any],
        optimizer: dict[str, Any],
        schedule: dict[str, Any],
        epochs: int,
        seed: int,
        data: dict[str, Any],
        recipe: dict[str, Any] | None = None,
        counts: list[int] | None = None,
        download: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["download"])
        self.labels = list(labels)
        self.crop = augment["crop"]
        self.net = build_network(model, len(labels), download)
        self.augment = Augment(**augment)
        self.recipe = Recipe(recipe or {}, len(labels), counts)
        #: Gives softened probabilities (N, classes) of augmented faces; set for a training run only.
        self.teachers: Teachers | None = None
        self.sam: SAM | None = None
        self.identities: dict[str, torch.Tensor] = {}
        self._steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for stage in ("train", "val"):
            setattr(self, f"{stage}_loss", MeanMetric())
            # no argument checks: they would wait for the device in every step
            setattr(self, f"{stage}_counts", MulticlassConfusionMatrix(len(labels), validate_args=False))

    def forward(self, faces: torch.Tensor, average_ten_crop: bool = False) -> torch.Tensor:
        """Return logits (N, classes) of faces uint8 (N, C, size, size): of the centre crop or the mean of ten."""
        if not average_ten_crop:
            return self.net(to_unit(center_crop(faces, self.crop)))
        crops = ten_crop(faces, self.crop)
        logits = self.net(to_unit(crops.flatten(0, 1)))
        return logits.view(len(faces), crops.shape[1], -1).mean(1)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        # crops, flips and dropout become a function of seed, epoch, step and rank: a resumed run repeats them exactly
        seed_generator(hash((self.hparams.seed, self.current_epoch, batch_idx, self.global_rank)), self.device)
        targets = batch.label if batch.target is None else batch.target
        faces, targets = self.recipe.mix(to_unit(self.augment(batch.image)), targets)
        logits = self.net(faces)
        loss = self.recipe.loss(logits, targets, self.teachers(faces) if self.teachers else None)
        # the metrics are updated rarely, because an update costs as much as a small network's last layers
        if not (self.sam and self.sam.ascended):
            self._steps.append((loss.detach(), logits.detach(), batch.label))
            if len(self._steps) == _STEPS:
                self._count_steps()
        # ranks average their gradients as equals; the share makes that the mean over the global batch
        return loss if batch.share == 1.0 else loss * batch.share

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self(batch.image)
        self.val_loss.update(functional.cross_entropy(logits, batch.label), len(batch.label))
        self.val_counts.update(logits.argmax(1), batch.label)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        # the way up is the whole gradient's; what the weights are moved by is clipped
        if self.sam is None or self.sam.ascended:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_fit_start(self) -> None:
        if self.teachers:
            self.teachers.to(self.device)

    def on_train_start(self) -> None:
        # a run resumed in the middle of an epoch has no epoch start
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        self._rate = self.optimizers().param_groups[0]["lr"]

    def _count_steps(self) -> None:
        losses, logits, labels = zip(*self._steps, strict=True)
        sizes = torch.tensor([len(label) for label in labels], device=self.device)
        self.train_loss.update(torch.stack(losses), sizes)
        self.train_counts.update(torch.cat(logits).argmax(1), torch.cat(labels))
        self._steps.clear()

    def on_train_epoch_end(self) -> None:
        if self._steps:
            self._count_steps()
        self._log_epoch("train")
        # the schedule has set the next epoch's rate by now
        self.log("lr", self._rate)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def _log_epoch(self, stage: str) -> None:
        loss, counts = getattr(self, f"{stage}_loss"), getattr(self, f"{stage}_counts")
        metrics = metrics_from_confusion(counts.compute().cpu().numpy())
        self.log(f"{stage}/loss", loss.compute(), prog_bar=True)
        self.log(f"{stage}/acc", metrics["accuracy"], prog_bar=True)
        self.log(f"{stage}/balanced_acc", metrics["balanced_accuracy"])
        self.log(f"{stage}/macro_f1", metrics["macro_f1"])
        loss.reset()
        counts.reset()

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = build(self.hparams.optimizer, params=self.net.parameters())
        if rho := (self.hparams.recipe or {}).get("sam"):
            optimizer = self.sam = SAM(optimizer, rho, self.net)
        return {
            "optimizer": optimizer,
            "lr_scheduler": make_scheduler(self.hparams.schedule, optimizer, self.hparams.epochs),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identities"] = self.identities

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.identities = checkpoint["identities"]


def seed_generator(seed: int, device: torch.device) -> None:
    """Seed the generators that draw on the CPU and on ``device``.

    Not torch.manual_seed: for every kind of accelerator that is not in use it queues a call with a stack trace, which
    costs more than a millisecond a step and is never freed.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def build_network(model: dict[str, Any], num_classes: int, download: bool = True) -> nn.Module:
    """Build the network of a checked ``model`` config (``library`` fer or torchvision)."""
    arguments = {key: value for key, value in model.items() if key not in ("library", "name")}
    if model["library"] == "fer":
        return build_model(model["name"], num_classes, **arguments)
    return build_model("torchvision", num_classes, backbone=model["name"], download=download, **arguments)


def to_unit(faces: torch.Tensor) -> torch.Tensor:
    """Return uint8 faces as floats in [0, 1]."""
    return faces.to(torch.get_default_dtype()).div_(255)


def parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
