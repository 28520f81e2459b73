"""A named face."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Face:
    """A face and its expression.

    ``box`` is x, y, width, height in pixels of the picture, x to the right and y down, as the detector gave it;
    ``probabilities`` add up to 1 over the classes (not those of a Darknet detector, see `torch_engine.predictor`);
    ``label`` is the likeliest class, None where its probability ``confidence`` is below the predictor's
    ``min_confidence``; ``score`` is the detector's own, and ``angle`` the degrees by which the face was turned upright
    before it was named (see `fer.prediction.detection.Detection`). ``embedding`` float32 (D,) is what the last layer
    named it by, where that was asked for; faces are compared without it.
    """

    box: tuple[float, float, float, float]
    probabilities: dict[str, float]
    label: str | None
    confidence: float
    score: float | None
    angle: float = 0.0
    embedding: np.ndarray | None = field(default=None, compare=False, repr=False)


def colored(picture: np.ndarray) -> np.ndarray:
    """Return a picture (h, w) or (h, w, 3) as (h, w, 3)."""
    return picture if picture.ndim == 3 else np.dstack([picture] * 3)
