"""A photo as the darknet programs give it to a net: read, resized, and put into the net's input.

Pictures are (h, w, 3) RGB; resized ones float32 in 0..1.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fer.errors import InputError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a photo lies in a net's input: x, y, width and height as fractions of the input."""

    x: float
    y: float
    width: float
    height: float


def read_picture(path: Path) -> np.ndarray:
    """Return a photo uint8; as in the programs not turned by its EXIF tag, and labels count on that.

    Raises:
        InputError: it is missing or no photo; a program would quietly use a random picture in its place.
    """
    try:
        data = np.fromfile(path, np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if len(data) else None
    except (OSError, cv2.error):
        picture = None
    if picture is None:
        raise InputError(f"{path}: cannot be read as a photo; leave it out")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a picture uint8 in another size, float32, its corners on the corners of the new one.

    Bilinear between the nearest four pixels also where it shrinks: the programs' own ``resize_image``.
    """
    upper, lower, down = _between(picture.shape[0], height)
    left, right, across = _between(picture.shape[1], width)
    # only the pixels that count are taken, so that a large photo costs no more than a small one
    rows = [picture[index] for index in (upper, lower)]
    columns = [row.take(left, 1) * (1 - across[:, None]) + row.take(right, 1) * across[:, None] for row in rows]
    down = down[:, None, None]
    return (columns[0] * (1 - down) + columns[1] * down) * np.float32(1 / 255)


def place(picture: np.ndarray, width: int, height: int, letterbox: bool) -> tuple[np.ndarray, Place]:
    """Return a picture in a detector's input, float32 (height, width, 3), and where: all over it, or whole on grey."""
    if not letterbox:
        return resize(picture, width, height), Place(0, 0, 1, 1)
    own_height, own_width = picture.shape[:2]
    if width * own_height < height * own_width:
        inner_width, inner_height = width, max(1, own_height * width // own_width)
    else:
        inner_width, inner_height = max(1, own_width * height // own_height), height
    x, y = (width - inner_width) // 2, (height - inner_height) // 2
    whole = np.full((height, width, 3), 0.5, np.float32)
    whole[y : y + inner_height, x : x + inner_width] = resize(picture, inner_width, inner_height)
    # not x / width: the program turns boxes back as if the halves of odd borders were equal
    at = (width - inner_width) / 2 / width, (height - inner_height) / 2 / height
    return whole, Place(*at, inner_width / width, inner_height / height)


def centre(picture: np.ndarray, size: int) -> np.ndarray:
    """Return the middle of a picture in a classifier's input, float32 (size, size, 3).

    The shorter side is resized to ``size`` first, as in Debian's `classifier fout` and AlexeyAB's `classifier valid`.
    """
    height, width = picture.shape[:2]
    shorter = min(height, width)
    height, width = height * size // shorter, width * size // shorter
    x, y = (width - size) // 2, (height - size) // 2
    return resize(picture, width, height)[y : y + size, x : x + size]


def _between(length: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each of ``new`` pixels the two of ``length`` that it lies between, and how far along, float32."""
    last = length - 1
    # in float32 as the program has it
    at = np.arange(new, dtype=np.float32) * (np.float32(last) / np.float32(max(1, new - 1)))
    first = np.minimum(at.astype(np.intp), last)
    share = at - first.astype(np.float32)
    if new > 1:
        first[-1], share[-1] = last, 0
    return first, np.minimum(first + 1, last), share
