"""A face detector of the user's: any callable, whose answers are checked."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fer.blame import one_line
from fer.errors import InputError
from fer.prediction.detection import Detection, left_to_right

#: Takes a picture uint8 (H, W, 3) RGB, gives boxes (n, 4), x, y, width, height in its pixels, and scores (n,).
OwnCallable = Callable[[np.ndarray], Any]

#: The least that a box and its part in the picture measure, in pixels.
_LEAST = 2


class OwnDetector:
    """Calls what the user gave; boxes are clipped to the picture. It may be called from several threads at once.

    Raises:
        InputError: it raises, or gives anything but finite boxes that lie in the picture, each with a score.
    """

    def __init__(self, detector: OwnCallable) -> None:
        self._detector = detector
        self.name = getattr(detector, "__qualname__", type(detector).__qualname__)
        # a wrong kind of answer is said before anything is read
        self._checked(np.zeros((96, 128, 3), np.uint8))

    def __call__(self, picture: np.ndarray, min_size: float | None = None, quick: bool = False) -> list[Detection]:
        boxes, scores = self._checked(picture)
        height, width = picture.shape[:2]
        low = boxes[:, :2].clip(0, (width, height))
        size = (boxes[:, :2] + boxes[:, 2:]).clip(0, (width, height)) - low
        if len(outside := np.flatnonzero((size < _LEAST).any(1))):
            x, y, w, h = (f"{value:.6g}" for value in boxes[outside[0]])
            raise self._error(
                f"gave the box {x}, {y}, {w}, {h}, which does not lie in the picture of {width}x{height} pixels: "
                "x, y, width, height in pixels expected"
            )
        rows = np.concatenate([low, size, scores[:, None]], 1).tolist()
        return left_to_right([Detection((x, y, w, h), score) for x, y, w, h, score in rows])

    def _checked(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            found = self._detector(picture)
        except Exception as error:  # the code is the user's own and may raise anything
            raise self._error(f"raised {one_line(error)}") from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise self._error(f"gave a {type(found).__name__}, not a pair of boxes and scores")
        try:
            boxes, scores = (np.asarray(part) for part in found)
            if any(np.iscomplexobj(part) for part in (boxes, scores)):
                raise TypeError("complex numbers")
            boxes, scores = boxes.astype(float), scores.astype(float)
        except (TypeError, ValueError, RuntimeError) as error:  # the last of tensors with gradients
            raise self._error("gave boxes or scores that are no arrays of numbers") from error
        if not boxes.size and not scores.size:
            return np.zeros((0, 4)), np.zeros(0)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != (len(boxes),):
            raise self._error(f"gave boxes {boxes.shape} and scores {scores.shape}, not (n, 4) and (n,)")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise self._error("gave a box or a score that is not finite")
        return boxes, scores

    def _error(self, what: str) -> InputError:
        return InputError(f"faces={self.name}: the detector {what}")
