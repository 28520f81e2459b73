"""The training of a classifier as a LightningModule: what one step does, and what is logged of an epoch."""

import inspect
import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from fer.data.loading.contract import labels_of
from fer.data.loading.datamodule import FaceDataModule
from fer.data.loading.dataset import Batch
from fer.errors import InputError
from fer.labels import require_same
from fer.models.classifier import EmotionClassifier
from fer.models.hyper_parameters import CROSS_ENTROPY
from fer.training.augment import Augmentation
from fer.training.distillation import Teachers
from fer.training.freezing import Freezing
from fer.training.losses import build_loss, loss_of
from fer.training.param_groups import highest_rate, make_optimizer
from fer.training.recipe import Recipe
from fer.training.sam import SAM
from fer.training.schedules import Length, make_scheduler
from fer.training.scores import EpochScores


class ClassifierModule(pl.LightningModule):
    """Trains an `EmotionClassifier`; everything that a checkpoint needs is given as plain dicts, lists and numbers.

    ``model`` goes to `build_network`; ``labels`` are the class names in order; ``face`` is size, color and margin of
    the faces; ``augment`` goes to `Augmentation`, ``recipe`` to `Recipe`, ``loss`` to `build_loss`; ``optimizer`` is a
    ``_target_`` and its arguments, ``schedule`` goes to `make_scheduler`; ``data`` says what it is trained on (name,
    file, drawn). ``download=False`` leaves out the pretrained weights that ``model`` names, for a checkpoint that
    brings its own. ``counts`` are the training faces of each class, where the loss takes them. ``param_groups`` goes
    to `make_optimizer`, ``freeze`` and ``unfreeze_epoch`` to `Freezing`.

    One step of the optimiser, in this order:

    1. `training_step`: the faces of a batch are augmented and mixed, and the network's logits give the loss.
    2. Lightning calls ``backward``; frozen weights lose their gradient; `configure_gradient_clipping` clips the rest.
    3. The optimiser moves the weights; the schedule sets its rate, once an epoch or once a step. With ``recipe.sam`` it
       is `SAM`, which has Lightning do 1 and 2 twice: at the weights, unclipped, for the way up to the worst point near
       them, and there, clipped, for the gradient that moves them.
    4. With ``recipe.ema`` the callback `EMA` moves the average that is validated and saved.
    """

    classifier: EmotionClassifier

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
        param_groups: dict[str, Any] | None = None,
        freeze: list[str] | None = None,
        unfreeze_epoch: int | None = None,
        download: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["download"])
        # past Module.__setattr__, so that a checkpoint's weights are called net.* alone
        self.__dict__["classifier"] = EmotionClassifier.build(dict(self.hparams), download)
        self.net = self.classifier.net
        self.freezing = Freezing(self.net, freeze, unfreeze_epoch)
        # with a target where an older caller gives none
        self.augment = Augmentation(self.classifier.hyper_parameters["augment"], self.classifier.crop)
        self.loss = build_loss(loss or {"_target_": CROSS_ENTROPY}, len(labels), counts)
        self.recipe = Recipe(recipe or {}, len(labels))
        #: Gives softened probabilities (N, classes) of augmented faces; set for a training run only.
        self.teachers: Teachers | None = None
        self.sam: SAM | None = None
        self.train_scores, self.val_scores, self.test_scores = (EpochScores(len(labels)) for _ in range(3))
        #: Of the steps since the last look at the device, and their mean at that look.
        self.step_losses: list[Tensor] = []
        self.running_loss: float | None = None
        self._optimizer, self._schedule, self._epochs, self._seed = optimizer, schedule, epochs, seed
        self._sam_radius: float | None = (recipe or {}).get("sam")
        self._param_groups = param_groups
        #: The highest rate of the last step.
        self.rate = 0.0
        #: What the checkpoint that a run goes on from says of the steps of its schedule.
        self._resumed_length: list[int] | None = None

    @classmethod
    def of(cls, model: EmotionClassifier) -> "ClassifierModule":
        """Return the module of a trained classifier, as `load_checkpoint` gives it, for ``Trainer.test`` or validate.

        It has a copy of the weights.
        """
        takes = inspect.signature(cls).parameters
        module = cls(**{key: v for key, v in model.hyper_parameters.items() if key in takes}, download=False)
        module.net.load_state_dict(model.net.state_dict())
        module.classifier.identities = model.identities
        return module

    def optimizer(self) -> Optimizer:
        """Return a fresh optimiser of what is trained, without `SAM`."""
        return make_optimizer(self._optimizer, self.net, self._param_groups, self.loss.parameters())

    def trained(self) -> list[nn.Parameter]:
        """Return what the optimiser moves: the network's weights, and those of a loss that has any."""
        return [*self.net.parameters(), *self.loss.parameters()]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.optimizer()
        if self._sam_radius:
            optimizer = self.sam = SAM(optimizer, self._sam_radius, nn.ModuleList([self.net, self.loss]))
        length = self._length()
        given, before = list(length.offered().values()), self._resumed_length
        if self.by_step and before and before != given:
            raise InputError(
                f"resume: the schedule counts epochs, all steps and those of an epoch, which were {before} and are now "
                f"{given}: give the trainer.max_epochs, batch_size and limits of that run"
            )
        return {"optimizer": optimizer, "lr_scheduler": make_scheduler(self._schedule, optimizer, length)}

    @property
    def by_step(self) -> bool:
        """Whether the schedule is stepped with the optimiser, not once an epoch."""
        return self._schedule.get("interval") == "step"

    def _length(self) -> Length:
        """Return the length of the run in what the schedule counts: steps of the optimiser, or epochs."""
        trainer = self.trainer
        if not self.by_step:
            return Length(self._epochs)
        batches, limit = training_batches(trainer), trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps = math.ceil(batches / trainer.accumulate_grad_batches)
        return Length(self._epochs, steps, trainer.max_steps if trainer.max_steps > 0 else None)

    def on_fit_start(self) -> None:
        self.augment.to(self.device)
        if self.teachers:
            self.teachers.to(self.device)

    def inputs(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return what the network is given in a step, float faces (N, C, crop, crop) in [0, 1], and their targets."""
        # crops, flips and dropout become a function of seed, epoch, step and rank: a resumed run repeats them exactly,
        # and SAM's second pass sees what the first one saw
        self.rate = highest_rate(self.trainer.optimizers[0])
        seed_generator(hash((self._seed, self.current_epoch, batch_idx, self.global_rank)), self.device)
        targets = batch.label if batch.target is None else batch.target
        return self.recipe.mix(self.augment(batch.image), targets)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        faces, targets = self.inputs(batch, batch_idx)
        logits = self.net(faces)
        loss = loss_of(self.loss, logits, targets)
        if not loss.requires_grad:
            raise InputError(
                f"model: {self.classifier.name} gives logits that have no gradient, so nothing is learnt: compute them "
                "without detach() from weights that require one"
            )
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

    def on_after_backward(self) -> None:
        self.freezing.drop_gradients(self.current_epoch)

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

    def on_test_start(self) -> None:
        # Lightning sets it without declaring it
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(data, "labels"):
            require_same(self.classifier.labels, labels_of(data), "the model", type(data).__name__)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.classifier(batch.image)
        self.test_scores.add(functional.cross_entropy(logits, batch.label), logits, batch.label)

    def on_train_start(self) -> None:
        # a run resumed in the middle of an epoch has no epoch start
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        self.freezing.set_modes(self.current_epoch)

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", self.train_scores)
        # of its last step; the schedule has set the next epoch's by now
        self.log("optim/lr", self.rate)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test", self.test_scores)

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
        if self.by_step:
            checkpoint["schedule_length"] = list(self._length().offered().values())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.classifier.identities = checkpoint["identities"]
        self._resumed_length = checkpoint.get("schedule_length")
        # read by load_from_checkpoint it has no trainer, and asking for one raises
        if self._trainer is None:
            return
        before, now = checkpoint.get("precision"), self.trainer.precision
        if before not in (None, now) and self.trainer.is_global_zero:
            print(f"the run so far was trained with trainer.precision={before}; it goes on with {now}")


def training_batches(trainer: pl.Trainer) -> int:
    """Return the number of batches that each process has of the training faces in an epoch, before any limit."""
    # Lightning sets it without declaring it
    data = trainer.datamodule  # type: ignore[attr-defined]
    # asking ours for its loader would forget the step within an epoch that a run goes on from
    if isinstance(data, FaceDataModule):
        return data.training_batches()
    try:
        return len(data.train_dataloader())
    except TypeError as error:
        raise InputError(
            f"schedule.interval=step: {type(data).__name__}.train_dataloader() has no length, so the steps of the run "
            "are not known; give schedule.interval=epoch"
        ) from error


def seed_generator(seed: int, device: torch.device) -> None:
    """Seed the generators that draw on the CPU and on ``device``.

    Not torch.manual_seed: for every kind of accelerator that is not in use it queues a call with a stack trace, which
    costs more than a millisecond a step and is never freed.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
