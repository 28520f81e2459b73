"""A clean end of a training on Ctrl-C or SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch

from fer.errors import Stopped

#: Steps between two checks of whether some rank was asked to stop; all ranks must check at the same step.
_POLL_EVERY = 20


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopCleanly(pl.Callback):
    """On the first SIGINT or SIGTERM finish the optimiser's step, save ``interrupted.ckpt`` and raise `Stopped`.

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
