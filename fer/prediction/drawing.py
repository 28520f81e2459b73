"""Boxes and labels that can be read on a picture of any size, and faces that nobody can recognise any more."""

import math
import os
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer.data.boxes import Box
from fer.data.photos import crop_box
from fer.errors import InputError
from fer.labels import colors

if TYPE_CHECKING:
    from fer.prediction.face import Face

#: Red, green and blue, 0..255.
Color = tuple[int, int, int]
#: Left, top, right and bottom in pixels.
_Rectangle = tuple[int, int, int, int]
#: The letters of a text (see `_letters`) and their place.
_Written = tuple[np.ndarray, _Rectangle]

#: Of boxes whose colour nobody gave, and of those without a name.
_NAMED, _UNNAMED = (86, 180, 233), (255, 255, 255)

#: Shorter side in pixels below which a picture is enlarged before anything is written on it, and what stops that.
_MIN_SIDE, _MAX_PIXELS = 240, 4_000_000

#: Letters are an eighth of their face's width high, within these parts of the picture's longer side; what is written
#: smaller for want of room still has the least part and pixels.
_PER_FACE, _LARGE, _SMALL, _LEAST, _LEAST_PIXELS = 1 / 8, 1 / 32, 1 / 55, 1 / 90, 12

#: What is tried where labels hide faces, and what is worth how much: a label that hides a whole face costs 4, one that
#: leaves out a word or is left out costs these, and up to _FINE a label nothing else is tried.
_SHRUNK, _DROPPED, _UNWRITTEN, _FINE = (1.0, 0.8, 0.6), 0.4, 2.0, 0.1


def enlargement(width: int, height: int) -> int:
    """Return by how much a picture is enlarged so that a label is readable on it: 5 for 48x48, 1 from 240 pixels on."""
    factor = math.ceil(_MIN_SIDE / min(width, height))
    return max(1, min(factor, math.isqrt(_MAX_PIXELS // (width * height))))


def draw_named(picture: np.ndarray, faces: Sequence["Face"], numbers: Sequence[int] = ()) -> np.ndarray:
    """Return a copy of a picture with its faces as `draw_faces` draws them: label, confidence, the class's colour.

    ``numbers``, one a face where they are given, stand before the names.
    """
    labels, chosen = [], []
    palette = colors(tuple(faces[0].probabilities)) if faces else {}
    for face, number in zip(faces, map(str, numbers) if numbers else [""] * len(faces), strict=True):
        labels.append(f"{number} {face.label} {face.confidence:.2f}" if face.label else "")
        chosen.append(palette[face.label] if face.label else _UNNAMED)
    return draw_faces(picture, [face.box for face in faces], labels, chosen, [face.angle for face in faces])


def draw_faces(
    picture: np.ndarray, boxes: Sequence[Box], labels: Sequence[str], box_colors: Sequence[Color] = (),
    angles: Sequence[float] = (),
) -> np.ndarray:  # fmt: skip
    """Return a copy uint8 (h, w, 3) of a picture with boxes and, beside each, its label; "" is a white box alone.

    ``box_colors`` are RGB, one a box, or one for all if empty; ``angles`` degrees by which the boxes are turned with
    the clock, as `Face.angle`.

    Small pictures are enlarged (`enlargement`). A label stands above its box or else beside or in it, inside the
    picture and over no other label; where there is no room it is written smaller, then without its last words, and at
    last not at all. Letters that the font lacks are little boxes.
    """
    factor = enlargement(*picture.shape[1::-1])
    if factor > 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    else:
        picture = picture.copy()
    height, width = picture.shape[:2]
    line = max(2, round(max(height, width) / 500))
    shown = list(box_colors) or [_NAMED] * len(boxes)
    angles = angles or [0.0] * len(boxes)
    turned = [_corners([factor * value for value in box], angle) for box, angle in zip(boxes, angles, strict=True)]
    outlines = [np.round(_inside(corners, width, height, 1.5 * line)).astype(np.int32) for corners in turned]
    for outline, label, angle, color in zip(outlines, labels, angles, shown, strict=True):
        kind = cv2.LINE_AA if angle else cv2.LINE_8
        # dark on both sides of the colour, so that a box shows on whatever is behind it
        cv2.polylines(picture, [outline], True, (0, 0, 0), line + 2 * math.ceil(line / 2), kind)
        cv2.polylines(picture, [outline], True, color if label else _UNNAMED, line, kind)
    # after all boxes, so that none crosses a label
    around = np.rint([(*corners.min(0), *corners.max(0)) for corners in turned]).astype(int).reshape(-1, 4)
    texts = [" ".join(label.split()) for label in labels]
    least, written = math.inf, list[_Written | None]()
    for part in _SHRUNK:
        cost, arranged = _arrange(around, texts, part, width, height)
        if cost < least:
            least, written = cost, arranged
        if least <= _FINE * len(texts):
            break
    for color, letters in zip(shown, written, strict=True):
        if letters:
            mask, (left, top, right, bottom) = letters
            # several times as fast as indexing
            picture[top:bottom, left:right] = np.take(_shades(color), mask, axis=0)
    return picture


def _corners(box: Sequence[float], angle: float) -> np.ndarray:
    """Return the corners (4, 2) of a box that is turned about its centre."""
    x, y, w, h = box
    corners = np.array([(x, y), (x + w - 1, y), (x + w - 1, y + h - 1), (x, y + h - 1)])
    if not angle:
        return corners
    centre, turn = np.array((x + w / 2, y + h / 2)), math.radians(angle)
    return centre + (corners - centre) @ np.array(((math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))))


def _inside(corners: np.ndarray, width: int, height: int, edge: float) -> np.ndarray:
    """Return corners so that of an upright box that reaches over the picture's edge all sides are seen."""
    limits = np.array((width, height)) - 1
    # numbers that OpenCV can count with
    near = corners.clip(-limits - 1, 2 * limits + 1)
    upright, seen = corners[0, 1] == corners[1, 1], (corners.max(0) >= 0).all() and (corners.min(0) <= limits).all()
    return near.clip(edge, np.maximum(edge, limits - edge)) if upright and seen else near


def _arrange(
    around: np.ndarray, texts: Sequence[str], part: float, width: int, height: int
) -> tuple[float, list[_Written | None]]:
    """Return letters and places of texts beside their faces, and what speaks against it; ``part`` makes them smaller.

    None where a text is empty, or would hide more than it says.
    """
    longer, cost = max(height, width), 0.0
    least = max(_LEAST_PIXELS, round(longer * _LEAST))
    taken: list[_Rectangle] = []
    written: list[_Written | None] = []
    for index, text in enumerate(texts):
        wanted = min(max((around[index, 2] - around[index, 0]) * _PER_FACE, longer * _SMALL), longer * _LARGE) * part
        # steps, so that letters don't swell and shrink with every frame of a video
        size = max(least, round(12 * 1.15 ** round(math.log(wanted / 12, 1.15))))
        words, best, against = text.split(), None, _UNWRITTEN if text else 0.0
        for dropped in range(len(words)):
            letters = _letters(" ".join(words[: len(words) - dropped]), size)
            for more, place in _places(around, index, letters.shape, width, height, taken):
                if more + _DROPPED * dropped < against:
                    best, against = (letters, place), more + _DROPPED * dropped
            if against <= _DROPPED * (dropped + 1):
                break
        taken += [best[1]] if best else []
        written.append(best)
        cost += against
    return cost, written


def _places(
    around: np.ndarray, index: int, shape: tuple[int, ...], width: int, height: int, taken: Sequence[_Rectangle]
) -> list[tuple[float, _Rectangle]]:
    """Return where a label of a shape (h, w) may stand over no other label, each place with what speaks against it."""
    h, w = shape
    if w > width or h > height:
        return []
    x0, y0, x1, y1 = around[index].tolist()
    found = []
    for cost, left, top in (
        (0.0, x0, y0 - h), (0.0, x0, y1 + 1), (0.1, x1 + 1 - w, y0 - h), (0.1, x1 + 1 - w, y1 + 1),
        (0.2, x0, y0), (0.2, x0, y1 + 1 - h), (0.3, x1 + 1, y0), (0.3, x0 - w, y0),
    ):  # fmt: skip
        place = min(max(left, 0), width - w), min(max(top, 0), height - h)
        rectangle = (*place, place[0] + w, place[1] + h)
        if not (np.array(taken).size and _overlap(np.array(taken), rectangle).any()):
            faces = _overlap(around, rectangle)
            area = np.maximum((around[:, 2:] - around[:, :2]).prod(1), 1)
            own = faces[index] / area[index]
            hidden = float((faces / area).sum() - own)
            found.append((cost + 4 * hidden + own, rectangle))
            if found[-1][0] == 0:
                break
    return found


def _overlap(rectangles: np.ndarray, other: _Rectangle) -> np.ndarray:
    """Return the areas (n,) that rectangles (n, 4) share with another."""
    sides = np.minimum(rectangles[:, 2:], other[2:]) - np.maximum(rectangles[:, :2], other[:2])
    return np.maximum(sides, 0).prod(1)


@lru_cache(maxsize=512)
def _letters(text: str, size: int) -> np.ndarray:
    """Return a text with room around it as uint8 (h, w): 255 where a letter is."""
    font = _font(size)
    left, _, right, _ = font.getbbox(text, anchor="ls")
    # as high for all texts of a size: a capital, and as much above for accents and below for what hangs down
    capital, pad = round(0.73 * size), round(0.27 * size)
    canvas = Image.new("L", (round(right - left) + 2 * pad, capital + 2 * pad))
    ImageDraw.Draw(canvas).text((pad - left, pad + capital), text, 255, font, anchor="ls")
    return np.asarray(canvas)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # it takes a while to import, and is needed once something is written
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf"), size)


@lru_cache(maxsize=64)
def _shades(color: Color) -> np.ndarray:
    """Return uint8 (256, 3), from a colour to black or white, whichever has 4.5 times its contrast (WCAG 2.2, AA)."""
    parts = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (c / 255 for c in color)]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    ink = (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
    return np.rint(np.linspace(color, ink, 256)).astype(np.uint8)


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
