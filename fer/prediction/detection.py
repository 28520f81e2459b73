"""What a face detector is and gives, and what the detectors here share."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from fer.data.boxes import Box
from fer.data.photos import fit, place_crop
from fer.data.source import FaceFormat

#: Larger pictures are searched at this many pixels (width x height); boxes are given in the picture's own pixels.
SEARCH_PIXELS = 1280 * 720


@dataclass(frozen=True, slots=True)
class Detection:
    """A face in a picture: ``box`` is x, y, width, height in pixels of the picture, x to the right and y down.

    ``score`` is the detector's own number, higher is surer: YuNet's confidence 0..1; for Haar, how many overlapping
    windows said face; None for the whole picture. ``angle`` is by how many degrees the picture is turned, against the
    clock and about the box's centre, to have the face upright.
    """

    box: Box
    score: float | None
    angle: float = 0.0


class FaceDetector(Protocol):
    """Finds the faces of a picture uint8 (h, w, 3) RGB, from left to right; callable from several threads at once.

    ``min_size`` is the smallest face that is looked for, in pixels, where that is not the detector's own. ``quick``
    leaves out what costs too much for a frame of a video.
    """

    #: What it is called in a sentence.
    name: str

    def __call__(self, picture: np.ndarray, min_size: float | None = None, quick: bool = False) -> list[Detection]: ...


class Lent:
    """Things of one kind, lent to one call at a time, because OpenCV's detectors keep state while they search."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._idle = [build()]

    @contextmanager
    def one(self) -> Iterator[Any]:
        try:
            thing = self._idle.pop()
        except IndexError:
            thing = self._build()
        yield thing
        self._idle.append(thing)


def shrink(image: np.ndarray, largest: float = 1.0) -> tuple[np.ndarray, float]:
    """Return an image shrunk to SEARCH_PIXELS and by the factor ``largest`` at least, and the factor, 1 or less."""
    height, width = image.shape[:2]
    scale = min(largest, math.sqrt(SEARCH_PIXELS / (height * width)))
    if scale >= 1:
        return image, 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def left_to_right(detections: Sequence[Detection]) -> list[Detection]:
    return sorted(detections, key=lambda face: face.box)


def crop_upright(picture: np.ndarray, box: Box, angle: float, face: FaceFormat) -> np.ndarray | None:
    """Return a face of a picture (h, w) or (h, w, 3) as networks take it, turned upright; None where there is none.

    Without an angle it is `fer.data.photos.crop_face`. What the picture lacks repeats its edge.
    """
    cut = cut_upright(picture, box, angle, face.margin)
    return None if cut is None else fit(cut, face)


def cut_upright(picture: np.ndarray, box: Box, angle: float, margin: float = 0.0) -> np.ndarray | None:
    """Return what lies in a box widened by a margin, turned upright, in the picture's own pixels; None: nothing."""
    x, y, width, height = box
    sides = [round(side * (1 + margin)) for side in (width, height)]
    if not angle or min(sides) < 1 or max(sides) > 2 * max(picture.shape[:2]):
        crop = place_crop(picture.shape[1], picture.shape[0], box, margin)
        return None if isinstance(crop, str) else crop.of(picture)
    matrix = cv2.getRotationMatrix2D((x + width / 2, y + height / 2), angle, 1.0)
    matrix[:, 2] += np.array((sides[0] / 2 - x - width / 2, sides[1] / 2 - y - height / 2))
    return cv2.warpAffine(picture, matrix, sides, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
