"""The training of a classifier as a LightningModule: what one step does, and what is logged of an epoch."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from fer.data.loading.dataset import Batch
from fer.models.classifier import EmotionClassifier
from fer.models.hyper_parameters import CROSS_ENTROPY
from fer.targets import build
from fer.training.augment import Augmentation
from fer.training.distillation import Teachers
from fer.training.losses import build_loss, loss_of
from fer.training.recipe import Recipe
from fer.training.sam import SAM
from fer.training.schedules import make_scheduler
from fer.training.scores import EpochScores


class ClassifierModule(pl.LightningModule):
    """Trains an `EmotionClassifier`; everything that a checkpoint needs is given as plain dicts, lists and numbers.

    ``model`` goes to `build_network`; ``labels`` are the class names in order; ``face`` is size, color and margin of
    the faces; ``augment`` goes to `Augmentation`, ``recipe`` to `Recipe`, ``loss`` to `build_loss`; ``optimizer`` is a
    ``_target_`` and its arguments, ``schedule`` a name and its numbers; ``data`` says what it is trained on (name,
    file, drawn). ``download=False`` leaves out the pretrained weights that ``model`` names, for a checkpoint that
    brings its own. ``counts`` are the training faces of each class, where the loss takes them.

    One step of the optimiser, in this order:

    1. `training_step`: the faces of a batch are augmented and mixed, and the network's logits give the loss.
    2. Lightning calls ``backward``, and `configure_gradient_clipping` clips the gradient.
    3. The optimiser moves the weights; the schedule sets its rate once an epoch. With ``recipe.sam`` it is `SAM`, which
       has Lightning do 1 and 2 twice: at the weights, unclipped, for the way up to the worst point near them, and
       there, clipped, for the gradient that moves them.
    4. With ``recipe.ema`` the callback `EMA` moves the average that is validated and saved.
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
        loss: dict[str, Any] | None = None,
        counts: list[int] | None = None,
        download: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["download"])
        self.classifier = EmotionClassifier.build(dict(self.hparams), download)
        # the classifier is no module, so that a checkpoint's weights are called net.* here and need no prefix there
        self.net = self.classifier.net
        # with a target where an older caller gives none
        self.augment = Augmentation(self.classifier.hyper_parameters["augment"], self.classifier.crop)
        self.loss = build_loss(loss or {"_target_": CROSS_ENTROPY}, len(labels), counts)
        self.recipe = Recipe(recipe or {}, len(labels))
        #: Gives softened probabilities (N, classes) of augmented faces; set for a training run only.
        self.teachers: Teachers | None = None
        self.sam: SAM | None = None
        self.train_scores, self.val_scores = EpochScores(len(labels)), EpochScores(len(labels))
        #: Of the steps since the last look at the device, and their mean at that look.
        self.step_losses: list[Tensor] = []
        self.running_loss: float | None = None
        self._optimizer, self._schedule, self._epochs, self._seed = optimizer, schedule, epochs, seed
        self._sam_radius: float | None = (recipe or {}).get("sam")

    def trained(self) -> list[nn.Parameter]:
        """Return what the optimiser moves: the network's weights, and those of a loss that has any."""
        return [*self.net.parameters(), *self.loss.parameters()]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = build(self._optimizer, params=self.trained())
        if self._sam_radius:
            optimizer = self.sam = SAM(optimizer, self._sam_radius, nn.ModuleList([self.net, self.loss]))
        return {"optimizer": optimizer, "lr_scheduler": make_scheduler(self._schedule, optimizer, self._epochs)}

    def on_fit_start(self) -> None:
        self.augment.to(self.device)
        if self.teachers:
            self.teachers.to(self.device)

    def inputs(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return what the network is given in a step, float faces (N, C, crop, crop) in [0, 1], and their targets."""
        # crops, flips and dropout become a function of seed, epoch, step and rank: a resumed run repeats them exactly,
        # and SAM's second pass sees what the first one saw
        seed_generator(hash((self._seed, self.current_epoch, batch_idx, self.global_rank)), self.device)
        targets = batch.label if batch.target is None else batch.target
        return self.recipe.mix(self.augment(batch.image), targets)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        faces, targets = self.inputs(batch, batch_idx)
        logits = self.net(faces)
        loss = loss_of(self.loss, logits, targets)
        if self.teachers:
            loss = self.recipe.distil(loss, logits, self.teachers(faces))
        if not self._at_the_worst_point:
            self.train_scores.add_later(loss, logits, batch.label)
            self.step_losses.append(loss.detach())
        # ranks average their gradients as equals; the share makes that the mean over the global batch
        return loss if batch.share == 1.0 else loss * batch.share

    @property
    def _at_the_worst_point(self) -> bool:
        """Whether this is the second of the two passes that SAM makes of each batch."""
        return self.sam is not None and self.sam.ascended

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # SAM's way up is the whole gradient's; what the weights are moved by is clipped
        if self.sam is None or self._at_the_worst_point:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.classifier(batch.image)
        self.val_scores.add(functional.cross_entropy(logits, batch.label), logits, batch.label)

    def on_train_start(self) -> None:
        # a run resumed in the middle of an epoch has no epoch start
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        self._rate = self.trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", self.train_scores)
        # the schedule has set the next epoch's rate by now
        self.log("optim/lr", self._rate)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_scores)

    def _log_epoch(self, stage: str, scores: EpochScores) -> None:
        # the axis of all that is logged; Lightning's own is one step behind in validation
        self.log("step", float(self.global_step))
        self.log("epoch", float(self.current_epoch))
        for name, value in scores.finish().items():
            self.log(f"{stage}/{name}", value, prog_bar=name in ("loss", "acc"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identities"] = self.classifier.identities
        # what precision=auto stood for here
        checkpoint["precision"] = self.trainer.precision

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.classifier.identities = checkpoint["identities"]
        before, now = checkpoint.get("precision"), self.trainer.precision
        if before not in (None, now) and self.trainer.is_global_zero:
            print(f"the run so far was trained with trainer.precision={before}; it goes on with {now}")


def seed_generator(seed: int, device: torch.device) -> None:
    """Seed the generators that draw on the CPU and on ``device``.

    Not torch.manual_seed: for every kind of accelerator that is not in use it queues a call with a stack trace, which
    costs more than a millisecond a step and is never freed.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
