"""The end of a training whose loss or weights are no longer numbers."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from fer.errors import InputError
from fer.training.module import ClassifierModule
from fer.training.param_groups import highest_rate

#: Steps between two checks within an epoch, each of which waits for the device.
_EVERY = 500


class StopWhenNotFinite(pl.Callback):
    """Ends a run that nothing can cure, before validation and checkpoints see it: loss or weights NaN or infinite.

    Looked at are the step at hand and the weights after it, at the end of each epoch and every ``_EVERY`` steps, as
    what is NaN stays so; and the loss of each validation, as a network may fail in evaluation mode alone. All ranks
    decide together.

    Raises:
        InputError: naming the last good checkpoint.
    """

    def __init__(self, last: ModelCheckpoint, resume: str | None) -> None:
        self._last, self._resume = last, resume

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 != trainer.num_training_batches and (batch_idx + 1) % _EVERY:
            return
        values = [v for v in (*pl_module.parameters(), *pl_module.buffers()) if v.is_floating_point()]
        finite = torch.stack([v.detach().isfinite().all() for v in (outputs["loss"], *values)]).all()
        bad = (~finite).float()
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce(bad, reduce_op="max")
        if bad.item():
            rate = highest_rate(trainer.optimizers[0])
            raise InputError(
                f"epoch {trainer.current_epoch}, step {trainer.global_step:,}: loss or weights are NaN or infinite; "
                f"train with a lower optimizer.lr, which was {rate:.4g} now{self._before()}"
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ClassifierModule)
        loss = float(pl_module.val_scores.loss.compute())
        if not math.isfinite(loss):
            raise InputError(
                f"epoch {trainer.current_epoch}: the loss of validation is {loss}, as {pl_module.classifier.name} "
                "gives logits that are NaN or infinite in evaluation mode: see what it does there that it does not in "
                f"training (running statistics of norms, what depends on self.training){self._before()}"
            )

    def _before(self) -> str:
        """Return what to go on from."""
        good = self._last.best_model_path or self._resume
        return f"; the last good checkpoint is {good}" if good else "; there is no checkpoint of before"
