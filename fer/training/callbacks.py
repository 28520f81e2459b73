"""What happens beside the training steps: pictures and speed for TensorBoard, and a clean end on Ctrl-C or SIGTERM."""

import copy
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
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from pytorch_lightning.utilities import rank_zero_only
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchvision.utils import make_grid

from fer.config.checks import build
from fer.errors import InputError, Stopped
from fer.evaluation.report import confusion_figure
from fer.system.files import replacing

#: Steps between two looks at whether some rank was asked to stop; all ranks must look at the same step.
_LOOK_EVERY = 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Best(ModelCheckpoint):
    """Keep ``best.ckpt``, the epoch with the highest val/acc; a resumed run takes along the best so far."""

    def __init__(self, folder: Path, resume: str | None) -> None:
        super().__init__(folder, "best", monitor="val/acc", mode="max", enable_version_counter=False)
        self._resume = resume

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict["best_model_path"]:
            # cut in the first epoch, before there was any
            super().load_state_dict(state_dict | {"dirpath": str(self.dirpath)})
            return
        before, now = Path(self._resume).parent / "best.ckpt", Path(self.dirpath) / "best.ckpt"
        if not before.is_file():
            raise InputError(f"resume={self._resume}: best.ckpt, the best epoch so far, is not beside it; copy both")
        if before.resolve() != now.resolve():
            _copy(before, now)
        score = state_dict["best_model_score"]
        moved = {"best_model_path": str(now), "best_k_models": {str(now): score}, "kth_best_model_path": str(now)}
        super().load_state_dict(state_dict | moved | {"dirpath": str(self.dirpath)})


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


class EMA(WeightAveraging):
    """Validate and save a moving average of the weights and of the statistics of batch norm.

    After the first step it is the weights, after each further one decay * average + (1 - decay) * weights. A checkpoint
    holds the average as its ``state_dict`` and the weights beside it, for a resumed run.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._update = get_ema_multi_avg_fn(decay)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # the module is still on the CPU here, where Lightning would leave the average
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self._latest_update_step:
            return
        # AveragedModel's own update waits for the device to read how often it was called
        averages, weights = ([*m.parameters(), *m.buffers()] for m in (self._average_model.module, pl_module))
        first, floats = self._latest_update_step == 0, []
        for average, weight in zip(averages, weights, strict=True):
            if first or not average.is_floating_point():
                average.copy_(weight)
            else:
                floats.append((average, weight))
        if floats:
            self._update(*map(list, zip(*floats, strict=True)), None)
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step


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
        if rest == 0 and (trainer.world_size == 1 or step % _LOOK_EVERY == 0):
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


class Bar(TQDMProgressBar):
    """Lightning's progress bar without the end of the log folder's name, which it takes for a version number."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, int | str | float]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class Speed(pl.Callback):
    """Log the training faces a second of each epoch, over all devices, validation left out.

    With ``bare_batch``, the global batch, also what steps of the network alone reach and the share of it.
    """

    def __init__(self, bare_batch: int | None = None, compiled: bool = False) -> None:
        self._bare_batch, self._compiled = bare_batch, compiled
        self._bare: float | None = None
        self._told = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bare_batch:
            self._bare = bare_step_speed(trainer, pl_module, self._bare_batch // trainer.world_size, self._compiled)
        # a run resumed in the middle of an epoch has no epoch start
        self._faces, self._start = 0, time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._faces, self._start = 0, time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self._faces += len(batch.label)
        # validation follows inside the epoch, so the clock is read after each step; a device may still be behind
        if batch_idx + 1 == trainer.num_training_batches:
            _wait_for(pl_module.device)
        self._end = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._faces:
            return
        speed = self._faces * trainer.world_size / (self._end - self._start)
        pl_module.log("images_per_second", speed, prog_bar=True)
        if self._bare:
            bare = self._bare * trainer.world_size
            pl_module.log("share_of_bare_step", speed / bare)
            if not self._told:
                pl_module.log("bare_images_per_second", bare)
                self._told = True


def bare_step_speed(trainer: pl.Trainer, model: pl.LightningModule, batch: int, compiled: bool = False) -> float:
    """Return the faces a second of forward, backward and optimiser step alone, on a copy of ``model.net``.

    The faces are random ones of the network's input size, on the device. The best of five turns after a first one that
    does not count. Weights and generators are left as they are.
    """
    device = model.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        net = copy.deepcopy(model.net).train()
        if compiled:
            net.compile()
        optimizer = build(model.hparams.optimizer, params=net.parameters())
        channels = 1 if model.hparams.face["color"] == "grey" else 3
        faces = torch.rand(batch, channels, model.crop, model.crop, device=device)
        labels = torch.zeros(batch, dtype=torch.long, device=device)
        steps = 2 if device.type == "cpu" else 50
        seconds = []
        for _ in range(6):
            _wait_for(device)
            start = time.perf_counter()
            for _ in range(steps):
                with trainer.precision_plugin.forward_context():
                    loss = functional.cross_entropy(net(faces), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            _wait_for(device)
            seconds.append(time.perf_counter() - start)
    return steps * batch / min(seconds[1:])


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Pictures(pl.Callback):
    """Send TensorBoard augmented input once, and the confusion matrix of val whenever val/acc is the best so far."""

    def __init__(self) -> None:
        self._best = -1.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        if batch_idx == 0 and trainer.global_step == 0 and trainer.is_global_zero and trainer.logger:
            state = torch.get_rng_state()
            faces = pl_module.augment(batch.image[:32]).to(torch.uint8)
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
