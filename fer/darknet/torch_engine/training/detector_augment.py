"""A detector's augmentation: photos and their boxes moved, cut and joined, as in the programs' data loaders.

Photos, sizes and draws are those of `augment`. Boxes (N, 5) are class, centre x and y, width and height as fractions of
their picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from fer.darknet.formats.section import Section, integer, number
from fer.darknet.torch_engine.training.augment import (
    FROM_PHOTO,
    Colour,
    Size,
    augment_colour,
    colour_options,
    draw_cut,
    positive_factor,
    quarters,
)
from fer.errors import InputError

#: Left and upper edge, width and height of a part of a photo, as fractions of the photo; it may reach outside.
Window = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class DetectorAugmentation:
    """Options of [net] and the last [yolo]; resize and letter_box are AlexeyAB's only."""

    dialect: str = "alexeyab"
    jitter: float = 0.2
    resize: float = 1
    letter_box: bool = False
    flip: bool = True
    colour: Colour = Colour()


def detector_options(net: Section, head: Section, dialect: str) -> DetectorAugmentation:
    """Return what a detector's [net] and its last [yolo] say of augmentation."""
    jitter = number(head, "jitter", 0.2)
    if not 0 <= jitter < 1:
        raise InputError(f"{head.where}: jitter={jitter:g} is not within 0 and 1")
    return DetectorAugmentation(
        dialect=dialect,
        jitter=jitter,
        resize=positive_factor(head, "resize"),
        letter_box=bool(integer(net, "letter_box", 0)),
        flip=dialect == "pjreddie" or bool(integer(net, "flip", 1)),
        colour=colour_options(net),
    )


@dataclass(frozen=True, slots=True)
class Margins:
    """Pixels of the photo that are cut off at its edges, or added where negative."""

    left: int
    right: int
    upper: int
    lower: int

    def keep(self, width: int, height: int) -> bool:
        """Tell whether something of a photo of that size is left."""
        across, down = width - self.left - self.right, height - self.upper - self.lower
        return min(across, down, width - max(self.left, self.right), height - max(self.upper, self.lower)) > 0


def draw_margins(width: int, height: int, size: Size, options: DetectorAugmentation, rng: Generator) -> Margins:
    """Return AlexeyAB's jitter of a photo: each edge by a fraction of the photo, resize, and a letterbox's bands."""
    lengths = np.array([width, width, height, height])
    jitter = (lengths * options.jitter).astype(int)
    margins = (rng.uniform(-1, 1, 4) * jitter).astype(int)
    # both sides of an axis are resized apart, both axes alike
    down, up = min(options.resize, 1 / options.resize), max(options.resize, 1 / options.resize)
    low = (lengths * (1 - 1 / down) / 2).astype(int)
    high = (lengths * (1 - 1 / up) / 2).astype(int) if options.resize >= 1 else np.zeros(4, int)
    margins = margins + (low + (high - low) * np.tile(rng.random(2), 2)).astype(int)
    if options.letter_box:
        wanted = size[0] / size[1]
        if width / height > wanted:
            margins[2:] -= int((width / wanted - height) / 2)
        else:
            margins[:2] -= int((height * wanted - width) / 2)
    drawn = Margins(*margins.tolist())
    return drawn if drawn.keep(width, height) else Margins(0, 0, 0, 0)


def cut_out(photo: np.ndarray, margins: Margins, size: Size) -> tuple[np.ndarray, Window]:
    """Return the photo without its margins, stretched to ``size``, and the window that this is on the photo.

    What lies outside of the photo has its mean colour.
    """
    height, width = photo.shape[:2]
    left, upper, right, lower = margins.left, margins.upper, width - margins.right, height - margins.lower
    window = (left / width, upper / height, (right - left) / width, (lower - upper) / height)
    if min(left, upper, margins.right, margins.lower) >= 0:
        return cv2.resize(photo[upper:lower, left:right], size, interpolation=cv2.INTER_LINEAR), window
    across, down = (right - left) / size[0], (lower - upper) / size[1]
    matrix = np.array([[across, 0, left + across / 2 - 0.5], [0, down, upper + down / 2 - 0.5]])
    return cv2.warpAffine(photo, matrix, size, flags=FROM_PHOTO, borderValue=cv2.mean(photo)), window


def place_at_random(photo: np.ndarray, size: Size, jitter: float, rng: Generator) -> tuple[np.ndarray, Window]:
    """Return Debian's letterbox, the photo with its aspect changed by ``jitter`` somewhere on grey, and its window."""
    height, width = photo.shape[:2]
    aspect = (width * (1 + rng.uniform(-jitter, jitter))) / (height * (1 + rng.uniform(-jitter, jitter)))
    # by the photo's aspect and not the net's; held within a net that is not square, which the program's leaves
    across, down = (size[1] * aspect, size[1]) if aspect < 1 else (size[0], size[0] / aspect)
    across, down = (max(1, min(int(length), side)) for length, side in zip((across, down), size, strict=True))
    left, upper = (int(rng.uniform(0, side - length)) for length, side in zip((across, down), size, strict=True))
    image = np.full((size[1], size[0], 3), 128, np.uint8)
    resized = cv2.resize(photo, (across, down), interpolation=cv2.INTER_LINEAR)
    image[upper : upper + down, left : left + across] = resized
    return image, (-left / across, -upper / down, size[0] / across, size[1] / down)


def move_boxes(boxes: np.ndarray, window: Window, flip: bool) -> np.ndarray:
    """Return boxes as fractions of a window on their picture.

    Clipped to it and dropped where nothing is left; dropped, too, where they lay outside of the picture before, or had
    their centre at 0, 0, which the programs take for none.
    """
    centre, extent = boxes[:, 1:3], boxes[:, 3:]
    inside = ((centre + extent / 2 >= 0) & (centre - extent / 2 <= 1)).all(1) & (centre != 0).any(1)
    boxes = boxes[inside].copy()
    boxes[:, 1:3] = (boxes[:, 1:3] - window[:2]) / window[2:]
    boxes[:, 3:] /= window[2:]
    if flip:
        boxes[:, 1] = 1 - boxes[:, 1]
    return clip_boxes(boxes, (0, 0, 1, 1))


def clip_boxes(boxes: np.ndarray, edges: Sequence[float], min_size: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Return what of boxes lies within edges (left, upper, right, lower), if wider and higher than ``min_size``."""
    low = np.maximum(boxes[:, 1:3] - boxes[:, 3:] / 2, edges[:2])
    high = np.minimum(boxes[:, 1:3] + boxes[:, 3:] / 2, edges[2:])
    clipped = np.column_stack([boxes[:, :1], (low + high) / 2, high - low])
    return clipped[(high - low > min_size).all(1)]


def augment_detector(
    photo: np.ndarray, boxes: np.ndarray, size: Size, options: DetectorAugmentation, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the photo moved, cut or padded, flipped and coloured at random, and its boxes in a random order.

    Boxes under 0.001 of the picture (Debian's) or under a pixel (AlexeyAB's) are dropped.
    """
    if options.dialect == "pjreddie":
        image, window = place_at_random(photo, size, options.jitter, rng)
        min_size = (0.001, 0.001)
    else:
        height, width = photo.shape[:2]
        image, window = cut_out(photo, draw_margins(width, height, size, options, rng), size)
        min_size = (1 / size[0], 1 / size[1])
    if flip := options.flip and bool(rng.integers(2)):
        image = cv2.flip(image, 1)
    boxes = clip_boxes(move_boxes(boxes, window, flip), (0, 0, 1, 1), min_size)
    return augment_colour(image, options.colour, rng), rng.permutation(boxes)


def mosaic_detector(
    photos: Sequence[tuple[np.ndarray, np.ndarray]], size: Size, options: DetectorAugmentation, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of four photos, each (photo, boxes), that meet at a random point, and all their boxes.

    ::

        +---------+---------------+
        |         |               |    Each photo is jittered and stretched to the whole picture by itself, then moved
        |    0    |       1       |    so that a corner of it lies at the point *, of which its piece shows what fits:
        |         |               |    of 0 the lower right corner, of 1 the lower left, of 2 the upper right, of 3 the
        +---------*---------------+    upper left. What jitter added at that corner stays out of sight, and boxes are
        |    2    |       3       |    clipped to their piece.
        +---------+---------------+

    AlexeyAB's program measures what was added in pixels before stretching, so a band of it may be left or too much go.
    """
    cut = draw_cut(size, rng)
    picture, all_boxes = np.empty((size[1], size[0], 3), np.uint8), []
    for quarter, (photo, boxes) in enumerate(photos):
        rows, columns = quarters(cut, size)[quarter]
        image, boxes, (across, down) = _move_to_point(photo, boxes, quarter, cut, size, options, rng)
        source = np.s_[rows.start - down : rows.stop - down, columns.start - across : columns.stop - across]
        picture[rows, columns] = augment_colour(image[source], options.colour, rng)
        edges = (columns.start / size[0], rows.start / size[1], columns.stop / size[0], rows.stop / size[1])
        all_boxes.append(clip_boxes(boxes, edges, (1 / size[0], 1 / size[1])))
    return picture, rng.permutation(np.concatenate(all_boxes))


def _move_to_point(
    photo: np.ndarray, boxes: np.ndarray, quarter: int, cut: Size, size: Size, options: DetectorAugmentation,
    rng: Generator,
) -> tuple[np.ndarray, np.ndarray, Size]:  # fmt: skip
    """Return a mosaic's photo jittered to the whole ``size``, and its boxes in the mosaic.

    Third, by how many pixels right and down the picture moves so that the corner that its quarter shows is at ``cut``.
    """
    right, lower = bool(quarter % 2), quarter >= 2
    height, width = photo.shape[:2]
    margins = draw_margins(width, height, size, options, rng)
    flip = options.flip and bool(rng.integers(2))
    if rng.integers(2):
        moved = _to_the_point(margins, right == flip, not lower)
        margins = moved if moved.keep(width, height) else margins
    image, window = cut_out(photo, margins, size)
    image = cv2.flip(image, 1) if flip else image
    before, after = (margins.right, margins.left) if flip else (margins.left, margins.right)
    across = _shift(before, after, width, size[0], cut[0], right)
    down = _shift(margins.upper, margins.lower, height, size[1], cut[1], lower)
    boxes = move_boxes(boxes, window, flip)
    boxes[:, 1:3] += across / size[0], down / size[1]
    return image, boxes, (across, down)


def _to_the_point(margins: Margins, right: bool, lower: bool) -> Margins:
    """Return margins moved all to the right, else left, and all to the lower edge, else upper: most stays in sight."""
    across, down = margins.left + margins.right, margins.upper + margins.lower
    return Margins(*((0, across) if right else (across, 0)), *((0, down) if lower else (down, 0)))


def _shift(before: int, after: int, length: int, size: int, cut: int, second: bool) -> int:
    """Return by how many pixels an image moves along an axis so that its photo begins, or ends, at the cut."""
    scale = size / (length - before - after)
    if second:
        return cut - min(cut, round(max(0, -before) * scale))
    return min(size - cut, round(max(0, -after) * scale)) - (size - cut)
