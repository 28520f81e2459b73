"""The end of a training before its last epoch: on Ctrl-C or SIGTERM, and where val/acc no longer rises."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from fer.errors import Interrupted, Stopped

#: Steps between two checks of whether some rank was asked to stop; all ranks must check at the same step.
_POLL_EVERY = 20


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopCleanly(pl.Callback):
    """On the first SIGINT or SIGTERM finish the optimiser's step, save ``interrupted.ckpt`` and raise `Stopped`.

    Before the first step, where there is nothing to save, it ends the run at once, and so does a second signal.

    Raises:
        Interrupted: before the first step.
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
            self._handle(self._end)
            yield
        finally:
            if self._watch:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # by now Lightning has set its own handler, which would leave without a checkpoint
        self._handle(self._ask)

    def _handle(self, handler: Callable[[int, object], None]) -> None:
        if self._watch:
            for number in _SIGNALS:
                signal.signal(number, handler)

    def _end(self, number: int, frame: object) -> None:
        raise Interrupted(number)

    def _ask(self, number: int, frame: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = number

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        # only here is the step before complete in Lightning's books, so that a resumed run repeats and skips none;
        # and only after a step of the optimiser, because a checkpoint has no gradients of batches before one
        step, rest = divmod(batch_idx, trainer.accumulate_grad_batches)
        if rest == 0 and (trainer.world_size == 1 or step % _POLL_EVERY == 0):
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
            self.save(trainer)
            raise Stopped(asked, self._path)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint that the run goes on from."""
        trainer.save_checkpoint(self._path)


class EarlyStop(EarlyStopping):
    """Ends a run after ``patience`` epochs without a better val/acc, also a resumed one, whose patience may be another.

    Checkpoints know it by its parent's name.
    """

    def __init__(self, patience: int) -> None:
        super().__init__("val/acc", mode="max", patience=patience)

    @property
    def state_key(self) -> str:
        return f"EarlyStopping{{'monitor': {self.monitor!r}, 'mode': {self.mode!r}}}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})
