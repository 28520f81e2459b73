"""The logs of a training run: those that the config names beside the csv, and how each kind takes a picture."""

from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from fer.errors import InputError
from fer.targets import build, takes


def build_loggers(config: Mapping[str, Mapping[str, Any]], out: Path) -> list[Logger]:
    """Return the loggers of a checked group by name, and the csv's; each writes below ``out``, where it takes a folder.

    Raises:
        InputError: a logger cannot be made, as where a value is none that it takes.
    """
    loggers: list[Logger] = []
    for name, target in config.items():
        given = {key: str(out / name) for key in takes(target["_target_"], ["save_dir"])}
        loggers.append(build(target, f"logger.{name}", **given))
    return [*loggers, CSVLogger(out, name="", version="metrics")]


def begin(loggers: Iterable[Logger]) -> None:
    """Have loggers open their files or reach their servers, which they would do at the first number.

    Raises:
        InputError: one can't, as without a login.
    """
    for logger in loggers:
        try:
            getattr(logger, "experiment", None)
        except (InputError, OSError):
            # of a file that cannot be written
            raise
        except Exception as error:
            # of a package that is not ours
            raise InputError(f"{type(logger).__name__}: {' '.join(str(error).split())[:300]}") from error


def takes_pictures(logger: Logger) -> bool:
    """Whether `show` can give a logger pictures."""
    kinds = (TensorBoardLogger, MLFlowLogger, CometLogger)
    return isinstance(logger, kinds) or callable(getattr(logger, "log_image", None))


def show(trainer: pl.Trainer, name: str, picture: np.ndarray, step: int) -> None:
    """Give all loggers that take pictures one, uint8 (H, W, 3), on the first rank.

    Loggers that are not known here take it by ``log_image(key, images, step=step)``, as Lightning's for W&B does.
    """
    for logger in filter(takes_pictures, trainer.loggers if trainer.is_global_zero else ()):
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, picture, artifact_file=f"{name}/{step:08}.png")
        elif isinstance(logger, CometLogger):
            logger.experiment.log_image(picture, name=name, step=step)
        else:
            logger.log_image(name, [picture], step=step)  # type: ignore[attr-defined]  # what takes_pictures asked


def finish(loggers: Iterable[Logger]) -> None:
    """End the runs that Lightning leaves open for more; the next job of a sweep would go on with them."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
        elif isinstance(logger, CometLogger):
            logger.experiment.end()


class TrackioLogger(Logger):
    """A run of Trackio, which has no logger for Lightning; ``name`` is the run's."""

    def __init__(self, project: str = "fer", name: str | None = None) -> None:
        super().__init__()
        self._project, self._run_name = project, name
        self._run: Any = None

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str | None:
        return self._run_name

    @property
    def experiment(self) -> Any:
        """The run of ``trackio.init``, begun when it is first asked for."""
        if self._run is None:
            import trackio

            self._run = trackio.init(project=self._project, name=self._run_name, embed=False)
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        self.experiment.config.update(vars(params) if isinstance(params, Namespace) else params)

    @rank_zero_only
    def log_image(self, key: str, images: list[np.ndarray], step: int | None = None) -> None:
        """Log pictures, each uint8 (H, W, 3), by one name."""
        import trackio

        for image in images:
            self.experiment.log({key: trackio.Image(image)}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None:
            self._run.finish()
