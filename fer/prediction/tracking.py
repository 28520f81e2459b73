"""Which face is whose from frame to frame: boxes that overlap are one track, and its probabilities are smoothed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fer.data.boxes import Box, iou


def match(before: Sequence[Box], now: Sequence[Box], min_iou: float) -> dict[int, int]:
    """Return which box of ``now`` goes on which of ``before``, as now -> before; each is used once.

    Greedy: the pair that overlaps most is taken first, ties in the order of the lists; at least ``min_iou``.
    """
    overlap = iou(np.reshape(before, (-1, 1, 4)), np.reshape(now, (1, -1, 4)))
    pairs: dict[int, int] = {}
    for cell in np.argsort(-overlap, axis=None, kind="stable"):
        old, new = divmod(int(cell), len(now))
        if overlap[old, new] < min_iou:
            break
        if new not in pairs and old not in pairs.values():
            pairs[new] = old
    return pairs


@dataclass(slots=True)
class _Track:
    number: int
    box: Box
    probabilities: np.ndarray
    missed: int = 0


@dataclass(slots=True)
class Tracker:
    """Gives the faces of a video's frames, in turn, track numbers from 1 and smoothed probabilities.

    ``smooth`` is the weight of what was before, 0 (off) to below 1: p = smooth * before + (1 - smooth) * now, an
    exponential moving average whose half-life is log(1/2) / log(smooth) updates. A track that is not found again
    ends after ``max_gap`` updates without it; a later face at its place is a new one.
    """

    smooth: float = 0.0
    min_iou: float = 0.3
    max_gap: int = 10
    _tracks: list[_Track] = field(default_factory=list)
    _last: int = 0

    def update(self, boxes: Sequence[Box], probabilities: np.ndarray) -> tuple[list[int], np.ndarray]:
        """Take the boxes (n) and probabilities (n, classes) of the next frame; return track numbers and smoothed ones.

        Both are in the order of the boxes; rows that summed to 1 still do.
        """
        pairs = match([track.box for track in self._tracks], boxes, self.min_iou)
        numbers, smoothed = [], np.array(probabilities, float)
        tracks = []
        for new, box in enumerate(boxes):
            if new in pairs:
                track = self._tracks[pairs[new]]
                smoothed[new] = self.smooth * track.probabilities + (1 - self.smooth) * smoothed[new]
                number = track.number
            else:
                self._last += 1
                number = self._last
            tracks.append(_Track(number, box, smoothed[new]))
            numbers.append(number)
        lost = [track for index, track in enumerate(self._tracks) if index not in pairs.values()]
        for track in lost:
            track.missed += 1
        self._tracks = tracks + [track for track in lost if track.missed <= self.max_gap]
        return numbers, smoothed

    def missing(self) -> list[Box]:
        """Return the last boxes of the tracks that the last frame did not show, but that have not ended."""
        return [track.box for track in self._tracks if track.missed]
