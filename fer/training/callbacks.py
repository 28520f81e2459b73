"""What happens beside the training steps: the best epoch kept, weights averaged, loss and speed logged."""

import copy
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fer.errors import InputError
from fer.runs.hparams import begin_session, end_session
from fer.system.addresses import without_passwords
from fer.system.files import replacing
from fer.targets import build
from fer.training.pictures import classifier_module, tensorboards

#: Steps between two looks at the device within an epoch, each of which waits for it.
_EVERY = 50


class Best(ModelCheckpoint):
    """Keep ``best.ckpt``, the epoch with the highest val/acc; a resumed run takes along the best so far.

    ``scores`` are those of that epoch, ``epoch`` its number; ``best/acc`` and the like are logged when it changes.
    """

    def __init__(self, folder: Path, resume: str | None) -> None:
        super().__init__(folder, "best", monitor="val/acc", mode="max", enable_version_counter=False)
        self._resume = resume
        self.epoch: int | None = None
        self.scores: dict[str, float] = {}
        self._logged: float | None = None
        self._trainer: pl.Trainer | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._trainer = trainer

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self._log_scores(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self._log_scores(trainer)

    def _log_scores(self, trainer: pl.Trainer) -> None:
        """Log the best epoch where Lightning has just saved it, in whichever of the two hooks."""
        self._take_scores()
        if self.epoch is not None and self.scores["val/acc"] != self._logged:
            self._logged = self.scores["val/acc"]
            values = {name.replace("val/", "best/"): value for name, value in self.scores.items()}
            log_now(trainer, values | {"best/epoch": float(self.epoch)})

    def _take_scores(self) -> None:
        if self._trainer is None or self.best_model_score is None:
            return
        score, logged = float(self.best_model_score), self._trainer.callback_metrics
        if score != self.scores.get("val/acc") and score == float(logged.get("val/acc", -1.0)):
            self.epoch = self._trainer.current_epoch
            self.scores = {name: float(value) for name, value in logged.items() if name.startswith("val/")}

    def state_dict(self) -> dict[str, Any]:
        # best.ckpt is written before the hooks above come to it
        self._take_scores()
        # none in a fresh one, which says what a checkpoint must have: those of before 0.3 have none
        return super().state_dict() | ({"epoch": self.epoch, "scores": self.scores} if self.scores else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        epoch, scores, score = (state_dict.get(key) for key in ("epoch", "scores", "best_model_score"))
        if type(epoch) is int and isinstance(scores, dict) and all(type(value) is float for value in scores.values()):
            self.epoch, self.scores = epoch, {str(name): value for name, value in scores.items()}
        elif isinstance(score, Tensor | float):
            self.scores = {"val/acc": float(score)}
        self._logged = self.scores.get("val/acc")
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
    """Lightning's progress bar with the loss of the last steps, names without their groups where those say nothing.

    Left out is the end of the log folder's name, which Lightning takes for a version number.
    """

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        metrics = {name.removeprefix("speed/"): value for name, value in metrics.items()}
        running = classifier_module(pl_module).running_loss
        return metrics if running is None else {"loss": running} | metrics

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # what is said of it begins a line of its own
        for bar in (self._train_progress_bar, self._val_progress_bar):
            if bar is not None:
                bar.close()


class Running(pl.Callback):
    """Show and log within an epoch the mean loss of the last 50 steps, of the first rank's faces, and the gradient.

    Also the rate, where it changes from step to step.

    The gradient's norm is that of the last step, before it is clipped; with SAM, at the worst point. The device is
    waited for every 50th step and at the last one of an epoch.
    """

    def __init__(self) -> None:
        self._norm: Tensor | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        classifier_module(pl_module).step_losses.clear()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if not _is_looked_at(trainer, trainer.fit_loop.batch_idx) or not _has_whole_gradients(trainer, optimizer):
            return
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self._norm = get_total_norm(gradients) if gradients else None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = classifier_module(pl_module)
        if not _is_looked_at(trainer, batch_idx) or not module.step_losses:
            return
        # one wait for both
        values = {"train/running_loss": torch.stack(module.step_losses).mean()}
        if self._norm is not None:
            values["optim/grad_norm"] = self._norm
        numbers = torch.stack([value.float() for value in values.values()]).tolist()
        module.step_losses.clear()
        self._norm, module.running_loss = None, numbers[0]
        logged = dict(zip(values, numbers, strict=True))
        if module.by_step and batch_idx + 1 != trainer.num_training_batches:
            # the epoch's last one is logged with its scores
            logged["optim/lr"] = module.rate
        log_now(trainer, logged)


def _is_looked_at(trainer: pl.Trainer, batch_idx: int) -> bool:
    return (batch_idx + 1) % _EVERY == 0 or batch_idx + 1 == trainer.num_training_batches


def _has_whole_gradients(trainer: pl.Trainer, optimizer: Optimizer) -> bool:
    """Whether each rank has all gradients, and they are not multiplied by a scale that a fused optimiser takes out."""
    whole = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
    scaled = getattr(trainer.precision_plugin, "scaler", None) and getattr(optimizer, "_step_supports_amp_scaling", 0)
    return whole and not scaled


def log_now(trainer: pl.Trainer, values: dict[str, float]) -> None:
    """Give all loggers some numbers at the step of the optimiser that the run is at, which is the axis of all of them.

    Lightning's ``log`` would repeat them in each step until the epoch ends.
    """
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(values | {"epoch": float(trainer.current_epoch)}, trainer.global_step)


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
        pl_module.log("speed/images_per_second", speed, prog_bar=True)
        if self._bare:
            bare = self._bare * trainer.world_size
            pl_module.log("speed/share_of_bare_step", speed / bare)
            if not self._logged:
                pl_module.log("speed/bare_images_per_second", bare)
                self._logged = True


def bare_step_speed(trainer: pl.Trainer, module: pl.LightningModule, batch: int, compiled: bool = False) -> float:
    """Return the faces a second of forward, backward and optimiser step alone, on a copy of the module's network.

    The faces are random ones of the network's input size, on the device. The best of five turns after a first one that
    does not count. Weights and generators are left as they are.
    """
    device, classifier = module.device, classifier_module(module).classifier
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


class HParams(pl.Callback):
    """Make a run's config a row of TensorBoard's HPARAMS tab, in the same log, and what other loggers make of it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for writer in tensorboards(trainer):
            begin_session(writer, self._config)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            # in the csv's folder the config would be a file of its own, beside that of run.json
            if not isinstance(logger, TensorBoardLogger | CSVLogger):
                logger.log_hyperparams(without_passwords(self._config))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for writer in tensorboards(trainer):
            end_session(writer)
