"""A named face, and the pictures in which faces are looked for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer.data.photos import PhotoLimits, read_photo
from fer.errors import InputError

Picture = np.ndarray | str | Path


@dataclass(frozen=True, slots=True)
class Face:
    """A face and its expression.

    ``box`` is x, y, width, height in pixels of the picture, x to the right and y down, as the detector gave it;
    ``probabilities`` add up to 1 over the classes (not those of a Darknet detector, see `torch_engine.predictor`);
    ``label`` is the likeliest class, None where its probability ``confidence`` is below the predictor's
    ``min_confidence``; ``score`` is the detector's own, and ``angle`` the degrees by which the face was turned upright
    before it was named (see `fer.prediction.detection.Detection`).
    """

    box: tuple[float, float, float, float]
    probabilities: dict[str, float]
    label: str | None
    confidence: float
    score: float | None
    angle: float = 0.0


def colored(picture: np.ndarray) -> np.ndarray:
    """Return a picture (h, w) or (h, w, 3) as (h, w, 3)."""
    return picture if picture.ndim == 3 else np.dstack([picture] * 3)


def to_array(picture: Picture) -> np.ndarray:
    """Return a picture, a file or an array, as uint8 (h, w) or (h, w, 3).

    Raises:
        InputError: a file that can't be read, or an array that is no picture.
    """
    if isinstance(picture, str | Path):
        photo = read_photo(str(picture), "rgb", PhotoLimits())
        if isinstance(photo, str):
            raise InputError(f"{picture}: {photo}")
        return photo
    if not isinstance(picture, np.ndarray):
        raise InputError(f"picture: a path or a numpy array expected, got {type(picture).__name__}")
    if picture.dtype != np.uint8:
        raise InputError(f"picture: uint8 0..255 expected, got {picture.dtype}; scale it and use .astype('uint8')")
    if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,), (4,)) or not picture.size:
        raise InputError(f"picture: shape (h, w), (h, w, 3) or (h, w, 4) expected, got {picture.shape}")
    return np.ascontiguousarray(picture[:, :, :3] if picture.ndim == 3 else picture)
