"""Where the faces are: OpenCV's Haar cascade (no download), YuNet, or the whole picture, behind one interface."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import cv2.data
import numpy as np

from fer.errors import InputError

#: Smallest face that is looked for, in pixels of the picture: a little less than FER2013's 48.
MIN_SIZE = 40
#: Largest MIN_SIZE that makes sense: a face that fills a photo of 100 megapixels.
LARGEST_MIN_SIZE = 10_000
#: Larger pictures are searched at this many pixels (width x height); boxes are given in the picture's own pixels.
SEARCH_PIXELS = 1280 * 720
#: Haar searches a picture shrunk until the smallest face has this many pixels; the cascade's window has 20.
HAAR_FACE = 24
#: YuNet's confidence from which something is a face.
YUNET_SCORE = 0.7

_YUNET_REMEDY = (
    "get a face_detection_yunet_*.onnx file from https://github.com/opencv/opencv_zoo (models/face_detection_yunet)"
)


@dataclass(frozen=True, slots=True)
class Detection:
    """A face in a picture: ``box`` is x, y, width, height in pixels of the picture, x to the right and y down.

    ``score`` is the detector's own number, higher is surer: YuNet's confidence 0..1; for Haar, how many overlapping
    windows said face; None for the whole picture.
    """

    box: tuple[float, float, float, float]
    score: float | None


class FaceDetector(Protocol):
    """Finds the faces of a picture uint8 (h, w, 3) RGB, from left to right; callable from several threads at once.

    ``min_size`` is the smallest face that is looked for, in pixels, where that is not the detector's own.
    """

    def __call__(self, picture: np.ndarray, min_size: float | None = None) -> list[Detection]: ...


def open_detector(name: str = "haar", model: str | None = None, min_size: int = MIN_SIZE) -> FaceDetector:
    """Return the face detector ``name``: haar, yunet (``model`` is its .onnx file) or whole (the picture is a face).

    ``min_size`` is the smallest face that is looked for, in pixels of the picture.

    Raises:
        InputError: an unknown name, or YuNet's file is not given, not there or not YuNet's.
    """
    if not 1 <= min_size <= LARGEST_MIN_SIZE:
        raise InputError(f"faces.min_size={min_size!s:.20}: a number of pixels, 1 to {LARGEST_MIN_SIZE:,}")
    if name == "haar":
        return HaarDetector(min_size)
    if name == "yunet":
        return YuNetDetector(model, min_size)
    if name == "whole":
        return whole_picture
    raise InputError(f"faces={name}: no such face detector (haar, yunet or whole)")


def whole_picture(picture: np.ndarray, min_size: float | None = None) -> list[Detection]:
    """Return one face that fills the picture, however small."""
    return [Detection((0.0, 0.0, float(picture.shape[1]), float(picture.shape[0])), None)]


class _Detectors:
    """Detectors of one kind, lent to one call at a time, because OpenCV's keep state while they search."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._idle = [build()]

    @contextmanager
    def one(self) -> Iterator[Any]:
        try:
            detector = self._idle.pop()
        except IndexError:
            detector = self._build()
        yield detector
        self._idle.append(detector)


class HaarDetector:
    """OpenCV's Haar cascade for frontal faces (Viola and Jones 2001; the alt2 file), out of OpenCV's own package.

    Its boxes are as wide as AffectNet's and FER2013's, so they are used as they are.
    """

    def __init__(self, min_size: int = MIN_SIZE) -> None:
        # alt2 finds more faces than the default cascade, drawn or real, with fewer false ones
        file = cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml"
        self._detectors = _Detectors(lambda: cv2.CascadeClassifier(file))
        self._min_size = min_size

    def __call__(self, picture: np.ndarray, min_size: float | None = None) -> list[Detection]:
        min_size = max(min_size or 0, self._min_size)
        small, scale = _shrink(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), HAAR_FACE / min_size)
        side = max(1, round(min_size * scale))
        with self._detectors.one() as cascade:
            boxes, windows = cascade.detectMultiScale2(small, scaleFactor=1.1, minNeighbors=3, minSize=(side, side))
        return _left_to_right(np.reshape(boxes, (-1, 4)) / scale, windows)


class YuNetDetector:
    """YuNet (Wu, Peng and Yu 2023), a small network for faces at any angle, run by OpenCV from a file of its zoo.

    Its boxes are a fifth narrower than high; they are widened to squares, as the faces of FER2013 and AffectNet are
    square and `fit` would stretch them.
    """

    def __init__(self, model: str | None, min_size: int = MIN_SIZE) -> None:
        if not model:
            raise InputError(f"faces=yunet: faces.model is not set; {_YUNET_REMEDY}")
        if not Path(model).is_file():
            raise InputError(f"faces.model={model}: no such file; {_YUNET_REMEDY}")
        self._min_size = min_size
        try:
            self._detectors = _Detectors(lambda: cv2.FaceDetectorYN.create(model, "", (320, 320), YUNET_SCORE))
            self(np.zeros((64, 64, 3), np.uint8))
        except (cv2.error, SystemError) as error:
            raise InputError(f"faces.model={model}: not YuNet's file; {_YUNET_REMEDY}") from error

    def __call__(self, picture: np.ndarray, min_size: float | None = None) -> list[Detection]:
        small, scale = _shrink(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        with self._detectors.one() as network:
            network.setInputSize(small.shape[1::-1])
            rows = network.detect(small)[1]
        rows = np.reshape([] if rows is None else rows, (-1, 15)).astype(float)
        x, y, width, height = rows[:, :4].T / scale
        side = np.maximum(width, height)
        boxes = np.stack([x + (width - side) / 2, y + (height - side) / 2, side, side], 1)
        large = side >= max(min_size or 0, self._min_size)
        return _left_to_right(boxes[large], rows[large, 14])


def _shrink(image: np.ndarray, largest: float = 1.0) -> tuple[np.ndarray, float]:
    """Return an image shrunk to SEARCH_PIXELS and by the factor ``largest`` at least, and the factor, 1 or less."""
    height, width = image.shape[:2]
    scale = min(largest, math.sqrt(SEARCH_PIXELS / (height * width)))
    if scale >= 1:
        return image, 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _left_to_right(boxes: np.ndarray, scores: Sequence[float]) -> list[Detection]:
    detections = [
        Detection((x, y, width, height), float(score))
        for (x, y, width, height), score in zip(boxes.tolist(), scores, strict=True)
    ]
    return sorted(detections, key=lambda face: face.box)
