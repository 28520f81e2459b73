"""The lines of a label file, ``class cx cy width height`` as fractions of the photo, and what is amiss with them."""

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fer.data.readers.yolo.places import decoded

#: What C's ``%d %f %f %f %f`` reads as Python's float does; ``1.0`` as a class would give its ``.0`` to the box.
PLAIN_LINE = re.compile(rb"\+?\d+" + rb"[ \t]+\+?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?" * 4)
#: Bytes of a label file.
MOST_BYTES = 4 << 20

# As far as numbers of six decimals may reach over an edge by rounding, and what is no size.
_ROUNDING, _NO_SIZE = 1e-5, 1e-6
# No box of fractions reaches so far over the photo.
_PIXELS = 2.0


#: What becomes of what is amiss: a face is lost, or nothing that counts is left out, or it is taken all the same.
LOST, LEFT_OUT, TAKEN = "lost", "left out", "taken"


class Odd(NamedTuple):
    """What is amiss in a line, counted from 1, its start, and what becomes of it."""

    line: int
    why: str
    shown: str
    effect: str


@dataclass(frozen=True, slots=True)
class Labels:
    """The boxes of a photo, float64 (N, 5): class, centre x and y, width, height as fractions, within the photo.

    ``lost`` tells that a line could not be taken, so that a face of the photo has no box: it would be learnt as
    background. ``plain`` tells that the file says just this in the eyes of every program that reads it.
    """

    boxes: np.ndarray
    odd: tuple[Odd, ...] = ()
    plain: bool = True

    @property
    def lost(self) -> bool:
        return any(odd.effect == LOST for odd in self.odd)


def parse_labels(data: bytes, classes: int, keypoints: bool = False) -> Labels:
    """Return the boxes in the bytes of a label file; a line that is no box of ``classes`` is told in ``odd``.

    Boxes are cut to the photo; of a polygon (``class x1 y1 x2 y2 x3 y3 ...``) its box is taken, and with ``keypoints``
    the first four numbers of a line. A line that stands there twice, and one whose box has no size, count for nothing.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        lines, plain = decoded(data).encode("utf-8", "replace").splitlines(), False
    else:
        plain = data[:3] != b"\xef\xbb\xbf"
        lines = (data if plain else data[3:]).splitlines()
    boxes: dict[tuple[float, ...], None] = {}
    odd: list[Odd] = []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line:
            continue
        before = len(odd)
        box = _box(line, number, classes, keypoints, odd)
        if box is not None and box in boxes:
            odd.append(Odd(number, "same label twice: taken once", _shown(line), LEFT_OUT))
        elif box is not None:
            boxes[box] = None
        plain = plain and len(odd) == before and PLAIN_LINE.fullmatch(line) is not None
    return Labels(np.array(list(boxes), float).reshape(-1, 5), tuple(odd), plain)


def _box(line: bytes, number: int, classes: int, keypoints: bool, odd: list[Odd]) -> tuple[float, ...] | None:
    def lost(why: str) -> tuple[float, ...] | None:
        odd.append(Odd(number, why, _shown(line), LOST))
        return None

    try:
        label, *values = map(float, line.split())
    except ValueError:
        return lost("not `class cx cy width height`")
    if b"_" in line or len(values) < 4:
        return lost("not `class cx cy width height`")
    if not all(map(math.isfinite, (label, *values))):
        return lost("number that is not finite")
    if not label.is_integer() or not 0 <= label < classes:
        return lost(f"class that is none of 0..{classes - 1}")
    if max(map(abs, values[:4] if keypoints else values)) > _PIXELS:
        return lost("numbers that look like pixels, not fractions of the photo")
    if len(values) == 4 or keypoints:
        x, y, width, height = values[:4]
        if len(values) > 4:
            odd.append(Odd(number, "points of a pose: its box is taken", _shown(line), TAKEN))
    elif len(values) >= 6 and len(values) % 2 == 0:
        across, down = values[::2], values[1::2]
        x, y = (min(across) + max(across)) / 2, (min(down) + max(down)) / 2
        width, height = max(across) - min(across), max(down) - min(down)
        odd.append(Odd(number, "polygon: its box is taken", _shown(line), TAKEN))
    else:
        return lost("not `class cx cy width height`")
    if width < 0 or height < 0:
        return lost("negative size")
    if width < _NO_SIZE or height < _NO_SIZE:
        odd.append(Odd(number, "size of zero: no face", _shown(line), LEFT_OUT))
        return None
    edges = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    over = min(edges[:2]) < -_ROUNDING or max(edges[2:]) > 1 + _ROUNDING
    if not over and all(0 < value <= 1 for value in (x, y, width, height)):
        return label, x, y, width, height
    left, upper, right, lower = (min(1.0, max(0.0, edge)) for edge in edges)
    if right - left < _NO_SIZE or lower - upper < _NO_SIZE:
        return lost("box outside the photo")
    if over:
        odd.append(Odd(number, "box over the edge: cut to the photo", _shown(line), TAKEN))
    return label, (left + right) / 2, (upper + lower) / 2, right - left, lower - upper


def _shown(line: bytes) -> str:
    return line[:100].decode("utf-8", "replace")
