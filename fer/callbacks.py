"""What happens beside the training steps: pictures and speed for TensorBoard, and a clean end on Ctrl-C or SIGTERM."""

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from torchvision.utils import make_grid

from fer.errors import InputError, Stopped
from fer.report import confusion_figure

#: Steps between two looks at whether some rank was asked to stop; all ranks must look at the same step.
_LOOK_EVERY = 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Best(ModelCheckpoint):
    """Keep ``best.ckpt``, the epoch with the highest val/acc; a resumed run takes along the best so far."""

    def __init__(self, folder: Path, resume: str | None) -> None:
        super().__init__(folder, "best", monitor="val/acc", mode="max", enable_version_counter=False)
        self._resume = resume

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before, now = Path(self._resume).parent / "best.ckpt", Path(self.dirpath) / "best.ckpt"
        if not before.is_file():
            raise InputError(f"resume={self._resume}: best.ckpt, the best epoch so far, is not beside it; copy both")
        if before.resolve() != now.resolve():
            now.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(before, now)
        score = state_dict["best_model_score"]
        moved = {"best_model_path": str(now), "best_k_models": {str(now): score}, "kth_best_model_path": str(now)}
        super().load_state_dict(state_dict | moved | {"dirpath": str(self.dirpath)})


class StopCleanly(pl.Callback):
    """On the first SIGINT or SIGTERM finish the step, save ``interrupted.ckpt`` and raise `Stopped`.

    A second signal ends the run at once.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "interrupted.ckpt"
        self._asked = 0
        self._watch = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Put the handlers back after a ``trainer.fit``."""
        # Python delivers signals to the main thread only
        self._watch = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            yield
        finally:
            if self._watch:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # by now Lightning has set its own handler, which would leave without a checkpoint
        if self._watch:
            for number in _SIGNALS:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = number

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        # only here is the step before complete in Lightning's books, so that a resumed run repeats and skips none
        if trainer.world_size == 1 or batch_idx % _LOOK_EVERY == 0:
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        asked = self._asked
        if trainer.world_size > 1:
            asked = int(
                trainer.strategy.reduce(
                    torch.tensor(float(asked), device=trainer.strategy.root_device), reduce_op="max"
                )
            )
        if asked:
            trainer.save_checkpoint(self._path)
            raise Stopped(asked, self._path)


class Bar(TQDMProgressBar):
    """Lightning's progress bar without the end of the log folder's name, which it takes for a version number."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, int | str | float]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class Speed(pl.Callback):
    """Log the training faces a second of each epoch, over all devices, validation left out."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # a run resumed in the middle of an epoch has no epoch start
        self._faces, self._start = 0, time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._faces, self._start = 0, time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self._faces += len(batch.label)
        # validation follows inside the epoch, so the clock is read after each step
        self._end = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._faces:
            pl_module.log(
                "images_per_second", self._faces * trainer.world_size / (self._end - self._start), prog_bar=True
            )


class Pictures(pl.Callback):
    """Send TensorBoard augmented input once, and the confusion matrix of val whenever val/acc is the best so far."""

    def __init__(self) -> None:
        self._best = -1.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        if batch_idx == 0 and trainer.global_step == 0 and trainer.is_global_zero and trainer.logger:
            state = torch.get_rng_state()
            faces = pl_module.augment(batch.image[:32])
            torch.set_rng_state(state)
            trainer.logger.experiment.add_image("augmented input", make_grid(faces, nrow=8), 0)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        counts = pl_module.val_counts.compute().cpu().numpy()
        accuracy = counts.trace() / counts.sum()
        if trainer.is_global_zero and trainer.logger and accuracy > self._best and not trainer.sanity_checking:
            self._best = accuracy
            title = f"val, epoch {trainer.current_epoch}: accuracy {accuracy:.2%}"
            figure = confusion_figure(counts, pl_module.labels, title)
            trainer.logger.experiment.add_figure("val/confusion", figure, trainer.current_epoch, close=False)
