"""Scores of the checkpoints while the program trains, taken by a second process of the program beside it.

AlexeyAB's own ``-topk`` crashes at its first evaluation, and Debian's program has no ``-map``; this works with both.
"""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from fer.darknet.formats.weights import Net, is_whole, newest_whole, read_header
from fer.errors import InputError
from fer.system.files import put_in_place, replacing

#: Seconds between two searches for a new checkpoint.
_POLL_SECONDS = 0.5


class Best(TypedDict):
    """The best checkpoint so far, as it stands beside the file."""

    score: float
    metric: str
    iteration: int


class Scorer:
    """A thread that scores the newest whole checkpoint of a run and keeps the best one as ``BASE_best.weights``.

    ``measure(net)`` returns the scores of a weights file, ``metric`` names the one that decides, and ``on_score`` gets
    the iteration and the scores. At least ``every`` iterations lie between two scores. The first error ends the thread
    and is kept in ``error`` and raised by ``finish``.
    """

    def __init__(
        self, net: Net, every: int, metric: str, measure: Callable[[Net], dict[str, float]],
        on_score: Callable[[int, dict[str, float]], None], start: int,
    ) -> None:  # fmt: skip
        self.best = read_best(net.weights)
        self._net, self._every, self._metric, self._measure, self._on_score = net, every, metric, measure, on_score
        self._batch = int(net.sections[0].options["batch"])
        self._last = start
        self._copy = net.weights.with_name(f".{net.weights.stem}_scored.tmp")
        self._stop = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after the score in progress; don't wait, as that may take minutes."""
        self._stop.set()
        self._copy.unlink(missing_ok=True)

    def finish(self) -> None:
        """Score the last checkpoint too and raise what went wrong, if anything did."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.error is None:
            self.score_newest(1)
        else:
            raise self.error

    def _work(self) -> None:
        try:
            while not self._stop.wait(_POLL_SECONDS):
                self.score_newest(self._every)
        except BaseException as error:  # handed to the thread that waits
            self.error = error

    def score_newest(self, min_iterations: int) -> None:
        """Score the newest whole checkpoint if it is ``min_iterations`` or more after the last that was scored."""
        newest = newest_whole(self._net.weights.parent, self._net.cfg.stem, self._net.sections)
        if newest is None or read_header(newest).seen // self._batch - self._last < min_iterations:
            return
        # a copy, since the program writes over its last checkpoint without a warning
        copy = self._copy
        shutil.copyfile(newest, copy)
        try:
            if not is_whole(copy, self._net.sections):
                return
            iteration = read_header(copy).seen // self._batch
            scores = self._measure(Net(copy, self._net.cfg, self._net.names, self._net.sections, self._net.task))
            self._last = iteration
            self._on_score(iteration, scores)
            if self.best is None or scores[self._metric] > self.best["score"]:
                self._keep(copy, {"score": scores[self._metric], "metric": self._metric, "iteration": iteration})
        finally:
            copy.unlink(missing_ok=True)

    def _keep(self, copy: Path, best: Best) -> None:
        self.best = best
        put_in_place(copy, best_weights(self._net.weights))
        write_best(self._net.weights, best)


def best_weights(weights: Path) -> Path:
    """Return where the best checkpoint lies, given the path of any ``backup/BASE.weights`` beside it."""
    return weights.with_name(f"{weights.stem}_best.weights")


def write_best(weights: Path, best: Best) -> None:
    with replacing(best_weights(weights).with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(best) + "\n")


def read_best(weights: Path) -> Best | None:
    """Return score, metric and iteration of the best checkpoint so far, or None."""
    path = best_weights(weights).with_suffix(".json")
    return json.loads(path.read_text()) if path.is_file() else None


def take_along(before: Path, now: Path) -> None:
    """Copy the best checkpoint of the run that is resumed, ``before`` and ``now`` being backup/BASE.weights of each."""
    best = read_best(before)
    if best is None or before.parent.resolve() == now.parent.resolve():
        return
    if not best_weights(before).is_file():
        raise InputError(f"{best_weights(before)}, the best weights so far, is not there; copy the whole backup folder")
    shutil.copyfile(best_weights(before), best_weights(now))
    write_best(now, best)
