"""What a run of the darknet program tells: a progress bar instead of its flood, TensorBoard, and early alarms."""

import csv
import math
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fer.darknet.formats.cfg import Section
from fer.darknet.formats.weights import whole_layers
from fer.darknet.program_engine.log import ClassAP, MeanAP, Saving, Step, parse_line
from fer.errors import InputError

#: A loss that is not a number for so many iterations does not come back.
_NAN_LIMIT = 20

#: Seconds after which a file that the program said it saves must be whole. It comes sooner, but the line is on another
#: stream than the iterations, of which several from before the save may be read after it.
_WRITTEN = 10.0


class Monitor:
    """Takes the program's lines (call it with each) and the scores of its checkpoints (`score`).

    Writes ``tensorboard/`` and ``metrics/metrics.csv`` under ``out``, by iteration.

    Raises:
        InputError: from a call, when the loss stays NaN or a weights file was not written whole; this ends the run.
    """

    def __init__(
        self, out: Path, sections: Sequence[Section], max_batches: int, start: int, metric: str,
        bar: bool = True,
    ) -> None:  # fmt: skip
        self.steps, self.last_saved = 0, None
        self.history: list[dict[str, float]] = []
        self.scores: dict[int, float] = {}
        self._out, self._sections, self._metric = out, sections, metric
        self._writer = SummaryWriter(out / "tensorboard")
        (out / "metrics").mkdir(exist_ok=True)
        self._file = open(out / "metrics" / "metrics.csv", "w", newline="", buffering=1)
        self._csv = csv.writer(self._file)
        self._csv.writerow(["iteration", "name", "value"])
        self._batch = int(sections[0].options["batch"])
        self._lock = threading.Lock()
        self._every = max(1, max_batches // 10_000)
        self.iteration, self._nans = start, 0
        #: To each file that is being saved the step from which on it is looked at, and when it must be whole.
        self._saving: dict[Path, tuple[int, float]] = {}
        self._aps: list[ClassAP] = []
        self._bar = tqdm(total=max_batches, initial=start, desc="darknet", unit="it", mininterval=1, disable=not bar)

    def __call__(self, line: str) -> None:
        record = parse_line(line)
        if isinstance(record, Step):
            self.step(record)
        elif isinstance(record, Saving):
            # the first iteration after this line may be from before the save
            self._saving.setdefault(self._out / record.path, (self.steps + 1, time.monotonic() + _WRITTEN))
        elif isinstance(record, ClassAP):
            self._aps.append(record)
        elif isinstance(record, MeanAP):
            # the program prints it twice; the classes belong to the first
            if record.value is not None and self._aps:
                values = {self._metric: record.value} | {f"val/ap/{ap.name}": ap.ap for ap in self._aps}
                self.score(self.iteration, values)
            self._aps = []

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
        self._check_saved()
        self.steps += 1
        self.iteration = step.iteration
        self._nans = self._nans + 1 if math.isnan(step.loss) else 0
        if self._nans >= _NAN_LIMIT:
            raise InputError(
                f"the loss is NaN since iteration {step.iteration - _NAN_LIMIT + 1}: lower darknet.learning_rate or "
                "raise darknet.burn_in" + (f"; the last whole weights are {self.last_saved}" if self.last_saved else "")
            )
        if step.iteration % self._every == 0:
            values = {"train/loss": step.loss, "train/loss_avg": step.average, "lr": step.rate}
            self.history.append({"iteration": step.iteration} | values)
            speed = self._bar.format_dict["rate"]
            if speed:
                values["images_per_second"] = speed * self._batch
            self._log(step.iteration, values | dict(more))
        best = f", best {self._metric.removeprefix('val/')} {max(self.scores.values()):.4f}" if self.scores else ""
        self._bar.set_postfix_str(
            f"loss {step.loss:.3f}, average {step.average:.3f}, rate {step.rate:.2g}{best}", refresh=False
        )
        self._bar.update(step.iteration - self._bar.n)

    def _check_saved(self) -> None:
        for path, (step, due) in list(self._saving.items()):
            if self.steps < step:
                continue
            try:
                whole_layers(path, self._sections)
            except (InputError, OSError) as error:
                if time.monotonic() < due:
                    continue
                free = shutil.disk_usage(self._out).free >> 20
                raise InputError(
                    f"{path} was not written whole ({free:,} MiB free there): make room and go on with "
                    f"resume={self._out}"
                ) from error
            self.last_saved = path
            del self._saving[path]

    def _log(self, iteration: int, values: dict[str, Any]) -> None:
        with self._lock:
            for name, value in values.items():
                self._writer.add_scalar(name, value, iteration)
                self._csv.writerow([iteration, name, f"{value:.6g}"])


def curves(history: list[dict[str, float]], scores: dict[int, float], metric: str, title: str) -> Figure:
    """Return loss, learning rate and validation score by iteration in one picture."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, rate, score = figure.subplots(1, 3)
    at = [row["iteration"] for row in history]
    loss.plot(at, [row["train/loss"] for row in history], alpha=0.4, label="train/loss")
    loss.plot(at, [row["train/loss_avg"] for row in history], label="train/loss_avg")
    finite = [row["train/loss_avg"] for row in history if math.isfinite(row["train/loss_avg"])]
    if finite:
        # the first losses of a detector are hundreds of times the later ones
        loss.set_ylim(0, 1.2 * sorted(finite)[int(0.95 * (len(finite) - 1))])
    loss.set(ylabel="loss")
    loss.legend()
    rate.plot(at, [row["lr"] for row in history])
    rate.set(ylabel="learning rate")
    score.plot(list(scores), list(scores.values()), marker=".")
    score.set(ylabel=metric)
    if scores:
        best = max(scores, key=scores.get)
        score.set_title(f"best {metric} {scores[best]:.4f} at iteration {best}", fontsize=10)
    for axes in (loss, rate, score):
        axes.set(xlabel="iteration")
        axes.grid(alpha=0.3)
    figure.suptitle(title).set_parse_math(False)
    return figure
