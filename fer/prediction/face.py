"""A named face."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Face:
    """A face and its expression.

    Attributes:
        box: x, y, width, height in pixels of the picture, x to the right and y down, as the detector gave it.
        probabilities: of each class. They add up to 1, but for those of a Darknet detector.
        label: the likeliest class, None where ``confidence`` is below the predictor's ``min_confidence``.
        confidence: the probability of the likeliest class, 0 to 1.
        score: how sure the detector is; its scale is the detector's own. None where it gives none.
        angle: degrees by which the face was turned to stand upright before it was named.
        embedding: float32 (D,), what the network's last layer was given, where it was asked for. Two faces are equal
            whatever their embeddings.
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
