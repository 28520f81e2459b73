"""Where the faces are: OpenCV's Haar cascade, YuNet, the whole picture, or a detector of the user's, by name."""

from collections.abc import Callable

import numpy as np

from fer.errors import InputError
from fer.prediction import yunet
from fer.prediction.cascade import HaarDetector
from fer.prediction.detection import Detection, FaceDetector
from fer.prediction.own_detector import OwnCallable, OwnDetector

#: Smallest face that is looked for, in pixels of the picture: a little less than FER2013's 48.
MIN_SIZE = 40
#: Largest MIN_SIZE that makes sense: a face that fills a photo of 100 megapixels.
LARGEST_MIN_SIZE = 10_000


def open_detector(
    faces: str | OwnCallable = "auto", model: str | None = None, min_size: int = MIN_SIZE
) -> FaceDetector:
    """Return a face detector: auto, haar, yunet, whole (the picture is a face) or a callable of the user's.

    auto is YuNet where its file is given as ``model`` or was fetched before, else the cascade haar; yunet fetches its
    file where it is not given. ``min_size`` is the smallest face that is looked for, in pixels of the picture; what a
    callable looks for is its own affair: it takes a picture uint8 (H, W, 3) RGB and gives boxes (n, 4) in pixels and
    scores (n,), see `OwnDetector`.

    Raises:
        InputError: an unknown name, a file that cannot be had or run, or a callable that gives anything else.
    """
    if not 1 <= min_size <= LARGEST_MIN_SIZE:
        raise InputError(f"faces.min_size={min_size!s:.20}: a number of pixels, 1 to {LARGEST_MIN_SIZE:,}")
    if model and (callable(faces) or faces not in ("auto", "yunet")):
        raise InputError(f"faces.model={model}: only for faces=yunet; leave it out")
    if callable(faces):
        return OwnDetector(faces)
    openers: dict[str, Callable[[], FaceDetector]] = {
        "auto": lambda: _best_at_hand(model, min_size),
        "haar": lambda: HaarDetector(min_size),
        "yunet": lambda: yunet.YuNetDetector(model or str(yunet.fetch()), min_size),
        "whole": WholePicture,
    }
    if not isinstance(faces, str) or faces not in openers:
        raise InputError(f"faces={faces!s:.80}: no such face detector ({', '.join(openers)})")
    return openers[faces]()


def _best_at_hand(model: str | None, min_size: int) -> FaceDetector:
    if model:
        return yunet.YuNetDetector(model, min_size)
    if file := yunet.at_hand():
        return _AutoYuNet(str(file), min_size)
    return _AutoHaar(min_size)


class _AutoHaar(HaarDetector):
    name = f"{HaarDetector.name} (faces=yunet fetches the better YuNet, 232,589 bytes, once)"


class _AutoYuNet(yunet.YuNetDetector):
    name = f"{yunet.YuNetDetector.name} (faces=haar is OpenCV's cascade)"


class WholePicture:
    """Gives one face that fills the picture, however small."""

    name = "each picture is one"

    def __call__(self, picture: np.ndarray, min_size: float | None = None, quick: bool = False) -> list[Detection]:
        return [Detection((0.0, 0.0, float(picture.shape[1]), float(picture.shape[0])), None)]
