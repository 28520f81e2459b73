"""What happens beside the training steps: the best epoch kept, weights averaged, speed and pictures for TensorBoard."""

import copy
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchvision.utils import make_grid

from fer.data.loading.dataset import Batch
from fer.errors import InputError
from fer.evaluation.figures import confusion_figure
from fer.system.files import replacing
from fer.targets import build
from fer.training.module import ClassifierModule

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
        before, now = Path(self._resume or "").parent / "best.ckpt", Path(self.dirpath or "") / "best.ckpt"
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
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._average_model is None or trainer.global_step == self._latest_update_step:
            return
        # AveragedModel's own update waits for the device to read how often it was called
        averages, weights = ([*m.parameters(), *m.buffers()] for m in (self._average_model.module, pl_module))
        first = self._latest_update_step == 0
        floats: list[tuple[Tensor, Tensor]] = []
        for average, weight in zip(averages, weights, strict=True):
            if first or not average.is_floating_point():
                average.copy_(weight)
            else:
                floats.append((average, weight))
        if floats:
            # torch's own function leaves the number of updates unused
            self._update([average for average, _ in floats], [weight for _, weight in floats], 0)
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step


class Bar(TQDMProgressBar):
    """Lightning's progress bar without the end of the log folder's name, which it takes for a version number."""

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
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
        self._logged = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bare_batch:
            self._bare = bare_step_speed(trainer, pl_module, self._bare_batch // trainer.world_size, self._compiled)
        # a run resumed in the middle of an epoch has no epoch start
        self._faces, self._start = 0, time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._faces, self._start = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
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
            if not self._logged:
                pl_module.log("bare_images_per_second", bare)
                self._logged = True


def bare_step_speed(trainer: pl.Trainer, module: pl.LightningModule, batch: int, compiled: bool = False) -> float:
    """Return the faces a second of forward, backward and optimiser step alone, on a copy of the module's network.

    The faces are random ones of the network's input size, on the device. The best of five turns after a first one that
    does not count. Weights and generators are left as they are.
    """
    device, classifier = module.device, _module(module).classifier
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        net = copy.deepcopy(classifier.net).train()
        if compiled:
            net.compile()
        optimizer = build(classifier.hyper_parameters["optimizer"], params=net.parameters())
        channels = 1 if classifier.face.color == "grey" else 3
        faces = torch.rand(batch, channels, classifier.crop, classifier.crop, device=device)
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

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        board = _tensorboard(trainer)
        if batch_idx == 0 and trainer.global_step == 0 and board:
            state = torch.get_rng_state()
            faces = _module(pl_module).augment(batch.image[:32]).to(torch.uint8)
            torch.set_rng_state(state)
            board.add_image("augmented input", make_grid(faces, nrow=8), 0)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # on all ranks, which count together
        counts = _module(pl_module).val_scores.confusion().numpy()
        accuracy = counts.trace() / counts.sum()
        board = _tensorboard(trainer)
        if board and accuracy > self._best and not trainer.sanity_checking:
            self._best = accuracy
            title = f"val, epoch {trainer.current_epoch}: accuracy {accuracy:.2%}"
            figure = confusion_figure(counts, _module(pl_module).classifier.labels, title)
            board.add_figure("val/confusion", figure, trainer.current_epoch, close=False)


def _tensorboard(trainer: pl.Trainer) -> "SummaryWriter | None":
    """Return what pictures are sent to, on the first rank of a trainer that logs for TensorBoard."""
    logger = trainer.logger
    return logger.experiment if trainer.is_global_zero and isinstance(logger, TensorBoardLogger) else None


def _module(module: pl.LightningModule) -> ClassifierModule:
    if not isinstance(module, ClassifierModule):
        raise TypeError(f"a ClassifierModule expected, got {type(module).__name__}")
    return module
