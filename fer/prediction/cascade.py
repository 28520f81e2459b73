"""OpenCV's Haar cascade for frontal faces (Viola and Jones 2001), out of OpenCV's own package."""

import math
from collections.abc import Iterator, Sequence

import cv2
import cv2.data
import numpy as np

from fer.data.boxes import Box
from fer.prediction.detection import Detection, Lent, left_to_right, shrink

#: Pixels a side of the cascade's window, and of the smallest face where a picture is shrunk to save time.
_WINDOW, _FACE = 20, 24
#: Each size that is searched is larger than the last by this factor.
_STEP = 1.1
#: Part of the picture's sides that is added all round by repeating its edge, as a face that fills it is cut by them.
_PADDING = 0.15
#: Larger pictures are padded by fewer pixels, and searched once more at this shorter side, padded, for large faces.
_SMALL_PADDING, _COARSE = 12, 120
#: A box that fewer windows agree on must also be a face to a second cascade.
_SURE = 10
#: Beside faces that are clear, one of fewer windows is dropped.
_WEAK = 6
#: Where nothing is found that this many windows agree on, the picture is searched turned by these degrees, shrunk more
#: and in larger steps. The cascade finds faces up to 15 degrees off; 20 and 40 degrees found no more and cost twice.
_CLEAR = 20
_TURNS, _TURNED_SCALE, _TURNED_STEP = (-30, 30), 0.6, 1.2
#: A picture that is longer than this many times its other side is not searched turned: what it is turned on grows with
#: the square of its length, to more than any memory.
_LONG = 10
#: A box is dropped that shares this part of the smaller one's area with a surer box.
_SHARED = 0.4
#: Most times that the contrast of a dark or pale picture is raised: the cascade gives up windows of little contrast.
_MOST_GAIN = 6.0

_Found = list[tuple[Box, float]]


class HaarDetector:
    """The cascade alt2, with alt as a second opinion on weak boxes; upright faces first, then turned ones.

    Its boxes are as wide as AffectNet's and FER2013's, so they are used as they are. Quick, it leaves out the padding,
    and searches turned only near a face of another frame where none is upright, which costs little.
    """

    name = "OpenCV's cascade"

    def __init__(self, min_size: int) -> None:
        # alt2 finds more faces than the default cascade, drawn or real, with fewer false ones
        files = [f"{cv2.data.haarcascades}haarcascade_frontalface_{name}.xml" for name in ("alt2", "alt")]
        self._detectors = Lent(lambda: [cv2.CascadeClassifier(file) for file in files])
        self._min_size = min_size

    def __call__(self, picture: np.ndarray, min_size: float | None = None, quick: bool = False) -> list[Detection]:
        near = min_size is not None
        smallest = max(min_size or 0, self._min_size)
        grey, scale = shrink(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), _FACE / smallest)
        grey = _stretch(grey)
        with self._detectors.one() as cascades:
            search = _Search(cascades, smallest * scale, scale)
            found = search.upright(grey, padded=not quick)
            strip = max(grey.shape) > _LONG * min(grey.shape)
            # near a face of another frame whatever is found is it, and most have fewer windows than a clear one
            doubtful = not found if quick else all((face.score or 0) < _CLEAR for face in found)
            if (near or not quick) and not strip and doubtful:
                found += [
                    face for angle in _TURNS for face in search.turned(grey, angle, 1.0 if near else _TURNED_SCALE)
                ]
        # beside a clear face a very weak one is seldom true
        least = _WEAK if any((face.score or 0) >= _CLEAR for face in found) else 0
        return left_to_right(_without_nested([face for face in found if (face.score or 0) >= least]))


class _Search:
    """A search of a picture that was shrunk by ``scale``, for faces of ``smallest`` pixels of the shrunk one at least.

    The boxes are given in pixels of the whole one.
    """

    def __init__(self, cascades: Sequence[cv2.CascadeClassifier], smallest: float, scale: float) -> None:
        self._first, self._second = cascades
        self._smallest, self._scale = smallest, scale

    def upright(self, grey: np.ndarray, padded: bool) -> list[Detection]:
        """Return the upright faces; ``padded`` also those that the picture's edges cut."""
        height, width = grey.shape
        part = _COARSE / min(height, width)
        large = part < 0.8
        across, down = round(_PADDING * width), round(_PADDING * height)
        if not padded:
            across = down = 0
        elif large:
            across = down = _SMALL_PADDING
        found = self._padded(grey, across, down, self._smallest, 1.0)
        if padded and large:
            coarse = _resized(grey, part)
            across, down = round(_PADDING * coarse.shape[1]), round(_PADDING * coarse.shape[0])
            found += self._padded(coarse, across, down, _FACE, coarse.shape[1] / width)
        return found

    def _padded(self, grey: np.ndarray, across: int, down: int, side: float, part: float) -> list[Detection]:
        if across or down:
            grey = cv2.copyMakeBorder(grey, down, down, across, across, cv2.BORDER_REPLICATE)
        return [
            self._detection((x - across, y - down, width, height), part, score)
            for (x, y, width, height), score in self._boxes(grey, side, _STEP, _SURE)
        ]

    def turned(self, grey: np.ndarray, angle: float, part: float) -> list[Detection]:
        """Return the faces of the picture turned against the clock, with their boxes upright at their places in it."""
        small = _resized(grey, part)
        height, width = small.shape
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
        cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
        across, down = cosine * width + sine * height, sine * width + cosine * height
        matrix[:, 2] += (across - width) / 2, (down - height) / 2
        size = max(1, round(across)), max(1, round(down))
        turned = cv2.warpAffine(small, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        back, found = cv2.invertAffineTransform(matrix), []
        side = max(_WINDOW, self._smallest * part)
        for (x, y, width, height), score in self._boxes(turned, side, _TURNED_STEP, math.inf):
            cx, cy = back @ (x + width / 2, y + height / 2, 1.0)
            # with larger steps fewer windows lie on a face
            score *= math.log(_TURNED_STEP) / math.log(_STEP)
            found.append(self._detection((cx - width / 2, cy - height / 2, width, height), part, score, angle))
        return found

    def _detection(self, box: Sequence[float], part: float, score: float, angle: float = 0.0) -> Detection:
        x, y, width, height = (float(value) / (part * self._scale) for value in box)
        return Detection((x, y, width, height), float(score), float(angle))

    def _boxes(self, grey: np.ndarray, side: float, step: float, sure: float) -> Iterator[tuple[Box, float]]:
        """Yield boxes and how many windows agree on each; those of fewer than ``sure`` only if confirmed."""
        side = max(1, round(side))
        boxes, windows = self._first.detectMultiScale2(grey, scaleFactor=step, minNeighbors=3, minSize=(side, side))
        for (x, y, width, height), score in zip(np.reshape(boxes, (-1, 4)).tolist(), windows, strict=True):
            box = (x, y, width, height)
            if score >= sure or self._confirmed(grey, box):
                yield box, float(score)

    def _confirmed(self, grey: np.ndarray, box: Box) -> bool:
        """Say whether the second cascade finds a face where the first has found one."""
        x, y, side, _ = box
        margin = 0.35 * side
        left, top = max(0, round(x - margin)), max(0, round(y - margin))
        region = grey[top : round(y + side + margin), left : round(x + side + margin)]
        part = min(1.0, 60 / side)
        least = max(1, round(0.6 * side * part))
        boxes, _ = self._second.detectMultiScale2(
            np.ascontiguousarray(_resized(region, part)), scaleFactor=1.05, minNeighbors=2, minSize=(least, least)
        )
        for other_x, other_y, other, _ in np.reshape(boxes, (-1, 4)) / part:
            off = max(abs(left + other_x + other / 2 - x - side / 2), abs(top + other_y + other / 2 - y - side / 2))
            if off < 0.3 * side and other < 1.6 * side:
                return True
        return False


def _stretch(grey: np.ndarray) -> np.ndarray:
    """Return a picture of little contrast with more of it, others as they are."""
    low, high = np.percentile(grey[::4, ::4], (1, 99))
    gain = min(_MOST_GAIN, 255 / max(1.0, high - low))
    return grey if gain < 1.5 else np.clip((grey.astype(np.float32) - low) * gain, 0, 255).astype(np.uint8)


def _resized(grey: np.ndarray, part: float) -> np.ndarray:
    if part >= 1:
        return grey
    size = max(1, round(grey.shape[1] * part)), max(1, round(grey.shape[0] * part))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _without_nested(found: Sequence[Detection]) -> list[Detection]:
    """Return the faces without those that lie in, or much over, a surer one; of two as sure the larger is kept."""
    kept: list[Detection] = []
    for face in sorted(found, key=lambda face: (face.score or 0, face.box[2]), reverse=True):
        if not any(_shared(face.box, other.box) > _SHARED for other in kept):
            kept.append(face)
    return kept


def _shared(one: Box, other: Box) -> float:
    """Return the part of the smaller box's area that both share."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(0.0, across) * max(0.0, down) / min(one[2] * one[3], other[2] * other[3])
