"""Pictures of a training run, and the loggers that take them."""

from typing import TYPE_CHECKING

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pytorch_lightning.loggers import TensorBoardLogger
from torchvision.utils import make_grid

from fer.data.loading.dataset import Batch
from fer.evaluation.figures import confusion_figure
from fer.training.loggers import show, takes_pictures
from fer.training.module import ClassifierModule

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Pictures(pl.Callback):
    """Send loggers the first faces that train the network, and val's confusion matrix whenever val/acc is the best yet.

    As of all scalars, their step is the number of the optimiser's steps.
    """

    def __init__(self) -> None:
        self._best = -1.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if batch_idx == 0 and trainer.global_step == 0 and _are_taken(trainer):
            # the step that follows seeds the generators alike, so it draws the same
            faces = classifier_module(pl_module).inputs(batch, batch_idx)[0][:32]
            grid = make_grid((255 * faces.float()).round().to(torch.uint8), nrow=8)
            show(trainer, "input/augmented", grid.permute(1, 2, 0).cpu().numpy(), 0)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # on all ranks, which count together
        counts = classifier_module(pl_module).val_scores.confusion().numpy()
        accuracy = counts.trace() / counts.sum()
        if _are_taken(trainer) and accuracy > self._best and not trainer.sanity_checking:
            self._best = accuracy
            title = f"val, epoch {trainer.current_epoch}: accuracy {accuracy:.2%}"
            canvas = FigureCanvasAgg(confusion_figure(counts, classifier_module(pl_module).classifier.labels, title))
            canvas.draw()
            show(trainer, "val/confusion", np.asarray(canvas.buffer_rgba())[..., :3], trainer.global_step)


def _are_taken(trainer: pl.Trainer) -> bool:
    return trainer.is_global_zero and any(map(takes_pictures, trainer.loggers))


def tensorboards(trainer: pl.Trainer) -> "list[SummaryWriter]":
    """Return the logs for TensorBoard that a trainer writes, on the first rank; none on the others."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def classifier_module(module: pl.LightningModule) -> ClassifierModule:
    """Return a module as what it has to be here, for the type checker and for who gives another."""
    if not isinstance(module, ClassifierModule):
        raise TypeError(f"a ClassifierModule expected, got {type(module).__name__}")
    return module
