"""What a run shows of itself: a progress bar, TensorBoard, a csv, and the alarm on a loss that stays NaN."""

import csv
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fer.darknet.formats.cfg import Section
from fer.darknet.formats.records import Step
from fer.errors import InputError
from fer.runs.hparams import begin_session

#: A loss that is not a number for so many iterations does not come back.
_NAN_LIMIT = 20


class Monitor:
    """Takes the iterations of a run (`step`) and the scores of its checkpoints (`score`), of which ``metric`` is shown.

    Writes ``tensorboard/`` and ``metrics/metrics.csv`` under ``out``, by iteration. What is set in ``config`` makes a
    row of TensorBoard's HPARAMS tab.

    Raises:
        InputError: from `step`, when the loss stays NaN; this ends the run.
    """

    def __init__(
        self, out: Path, sections: Sequence[Section], max_batches: int, start: int, metric: str,
        bar: bool = True, config: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.last_saved: Path | None = None
        self.history: list[dict[str, float]] = []
        self.scores: dict[int, float] = {}
        self._metric = metric
        self._writer = SummaryWriter(out / "tensorboard")
        if config:
            begin_session(self._writer, config)
        (out / "metrics").mkdir(exist_ok=True)
        self._file = open(out / "metrics" / "metrics.csv", "w", newline="", buffering=1)
        self._csv = csv.writer(self._file)
        self._csv.writerow(["iteration", "name", "value"])
        self._batch = int(sections[0].options["batch"])
        self._lock = threading.Lock()
        self._every = max(1, max_batches // 10_000)
        self.iteration, self._nans = start, 0
        self._bar = tqdm(total=max_batches, initial=start, desc="darknet", unit="it", mininterval=1, disable=not bar)

    def note(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._bar.write(f"note: {text}")

    def score(self, iteration: int, values: dict[str, float]) -> None:
        """Record scores of the validation split, e.g. ``{"val/map50": 0.4, "val/ap/Happy": 0.5}``; fractions."""
        self.scores[iteration] = values[self._metric]
        self._log(iteration, values)
        self._writer.flush()

    def close(self) -> None:
        self._bar.close()
        self._writer.close()
        self._file.close()

    def step(self, step: Step, more: Mapping[str, float] = MappingProxyType({})) -> None:
        """Take an iteration, and ``more`` to log of it."""
        self.iteration = step.iteration
        self._nans = self._nans + 1 if math.isnan(step.loss) else 0
        if self._nans >= _NAN_LIMIT:
            raise InputError(
                f"the loss is NaN since iteration {step.iteration - _NAN_LIMIT + 1}: lower darknet.learning_rate or "
                "raise darknet.burn_in" + (f"; the last whole weights are {self.last_saved}" if self.last_saved else "")
            )
        if step.iteration % self._every == 0:
            values = {"train/loss": step.loss, "train/loss_avg": step.average, "optim/lr": step.rate}
            self.history.append({"iteration": step.iteration} | values)
            speed = self._bar.format_dict["rate"]
            if speed:
                values["speed/images_per_second"] = speed * self._batch
            self._log(step.iteration, values | dict(more))
        best = f", best {self._metric.removeprefix('val/')} {max(self.scores.values()):.4f}" if self.scores else ""
        self._bar.set_postfix_str(
            f"loss {step.loss:.3f}, average {step.average:.3f}, rate {step.rate:.2g}{best}", refresh=False
        )
        self._bar.update(step.iteration - self._bar.n)

    def _log(self, iteration: int, values: dict[str, Any]) -> None:
        with self._lock:
            for name, value in values.items():
                self._writer.add_scalar(name, value, iteration)
                self._csv.writerow([iteration, name, f"{value:.6g}"])
