"""Boxes and labels that can be read on a picture of any size, and faces that nobody can recognise any more."""

import math
import os
import re
import sys
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

from fer.data.boxes import Box
from fer.data.photos import crop_box
from fer.errors import InputError

# The same in RGB and BGR. Black on either has more than seven times its luminance (WCAG 2.2, 1.4.6).
_NAMED, _UNNAMED = (0, 200, 0), (170, 170, 170)
_FONT = cv2.FONT_HERSHEY_SIMPLEX

#: Shorter side in pixels below which a picture is enlarged before anything is written on it, and what stops that.
_MIN_SIDE, _MAX_PIXELS = 240, 4_000_000

#: Letters grow with the picture, and less beside small faces: Hershey scale for a shorter side of 700 pixels, its
#: bounds beside a small face, and the least at which a letter is still a letter (a capital is 21 pixels at scale 1).
_SCALE, _SMALL_SCALE, _MIN_SCALE = 1 / 700, 1 / 1400, 0.4


def enlargement(width: int, height: int) -> int:
    """Return by how much a picture is enlarged so that a label is readable on it: 5 for 48x48, 1 from 240 pixels on."""
    factor = math.ceil(_MIN_SIDE / min(width, height))
    return max(1, min(factor, math.isqrt(_MAX_PIXELS // (width * height))))


def draw_faces(picture: np.ndarray, boxes: Sequence[Box], labels: Sequence[str]) -> np.ndarray:
    """Return a copy uint8 (h, w, 3) of a picture with boxes and, beside each, its label; "" is a grey box alone.

    Small pictures are enlarged (`enlargement`). A label stands above its box, below where there is no room, else in
    it, and always inside the picture; one for which the picture is too narrow is written smaller, or not at all.
    Letters that OpenCV's font lacks lose their accents or become "?".
    """
    factor = enlargement(*picture.shape[1::-1])
    if factor > 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    else:
        picture = picture.copy()
    height, width = picture.shape[:2]
    line = max(1, round(min(height, width) / 300))
    scaled = [(factor * x, factor * y, factor * w, factor * h) for x, y, w, h in boxes]
    for (x, y, w, h), label in zip(scaled, labels, strict=True):
        corner, opposite = (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1)
        # a box that fills the picture is drawn inside it
        corner = tuple(max(line // 2, value) for value in corner)
        opposite = tuple(
            min(side - 1 - line // 2, value) for side, value in zip((width, height), opposite, strict=True)
        )
        cv2.rectangle(picture, corner, opposite, _NAMED if label else _UNNAMED, line)
    # after all boxes, so that none crosses a label
    for box, label in zip(scaled, labels, strict=True):
        if label:
            _write(picture, box, plain(label))
    return picture


def plain(text: str) -> str:
    """Return a text in the printable ASCII that OpenCV's font has.

    >>> plain("Dégoût"), plain("喜び\\n")
    ('Degout', '???')
    """
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in letters)


def _write(picture: np.ndarray, box: Box, text: str) -> None:
    height, width = picture.shape[:2]
    x, y, w, h = box
    unit, _ = cv2.getTextSize(text, _FONT, 1, 1)[0]
    side = min(height, width)
    # as wide as its face, within what is readable when the picture is shown whole
    scale = max(_MIN_SCALE, min(side * _SCALE, max(side * _SMALL_SCALE, w / unit)))
    while True:
        thickness, pad = max(1, round(1.6 * scale)), max(1, round(3 * scale))
        (tw, th), below = cv2.getTextSize(text, _FONT, scale, thickness)
        label_height = th + below + 2 * pad
        if tw + 2 * pad <= width and label_height <= height:
            break
        scale *= 0.9
        if scale < _MIN_SCALE / 2:
            return
    top = y - label_height if y >= label_height else (y + h if y + h + label_height <= height else y)
    left = round(min(max(0, x), width - tw - 2 * pad))
    top = round(min(max(0, top), height - label_height))
    cv2.rectangle(picture, (left, top), (left + tw + 2 * pad - 1, top + label_height - 1), _NAMED, -1)
    cv2.putText(picture, text, (left + pad, top + pad + th), _FONT, scale, (0, 0, 0), thickness, cv2.LINE_AA)


def hide_faces(picture: np.ndarray, boxes: Sequence[Box], margin: float = 0.5) -> np.ndarray:
    """Return a copy of a picture in which each box, widened by ``margin`` of its size, is a blend of nine colours.

    The area is averaged to 3x3 pixels and blown up again, at any resolution, so that what is left of a face is its
    colour and where the light came from. The margin covers chin and hair, which detectors leave out.
    """
    hidden = picture.copy()
    for box in boxes:
        corners = crop_box(picture.shape[1], picture.shape[0], box, margin)
        if corners is None:
            continue
        x0, y0, x1, y1 = corners
        blend = cv2.resize(hidden[y0:y1, x0:x1], (3, 3), interpolation=cv2.INTER_AREA)
        hidden[y0:y1, x0:x1] = cv2.resize(blend, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    return hidden


class WindowClosed(Exception):
    """The user closed the window with q or Escape."""


def require_window() -> None:
    """Raise an InputError where no window can be opened."""
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        raise InputError(
            "show=true: this OpenCV was built without windows; leave it out, or replace the package "
            "opencv-python-headless by opencv-python<5"
        )
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InputError("show=true: there is no display (DISPLAY is not set)")


def show(picture: np.ndarray, wait: int) -> None:
    """Show an RGB picture for ``wait`` milliseconds at least, 0 until a key; q or Escape raises WindowClosed."""
    cv2.imshow("fer", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if cv2.waitKey(wait) in (ord("q"), 27):
        raise WindowClosed
