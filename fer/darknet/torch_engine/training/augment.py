"""Darknet's augmentation: functions of a photo, its boxes, options and a numpy Generator, which alone decides.

Photos are uint8 (h, w, 3) RGB, sizes (width, height) in pixels. Boxes (N, 5) are class, centre x and y, width and
height as fractions of their picture. The draws are those of the two programs' data loaders: ``pjreddie`` is Debian's
of 2018, ``alexeyab`` the other. Pixels differ from theirs by parts of one: all here have their centre at a half.
"""

from dataclasses import dataclass
from math import cos, radians, sin

import cv2
import numpy as np
from numpy.random import Generator

Size = tuple[int, int]
#: Left and upper edge, width and height of a part of a photo, as fractions of the photo; it may reach outside.
Window = tuple[float, float, float, float]

# The matrix leads from a pixel of the result to one of the photo.
_FROM_PHOTO = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass(frozen=True, slots=True)
class Colour:
    """Most change of colour: hue in turns, saturation and exposure as factors, 1 for none (2 and 0.5 are the same)."""

    hue: float = 0
    saturation: float = 1
    exposure: float = 1


@dataclass(frozen=True, slots=True)
class ClassifierAugmentation:
    """Options of [net]: the shorter side's sizes in pixels (both ends included), degrees, factor, and so on.

    ``beyond``: a photo smaller than the net moves about in it, as in Debian's program; in AlexeyAB's it is centred.
    """

    crop: tuple[int, int]
    angle: float = 0
    aspect: float = 1
    flip: bool = True
    colour: Colour = Colour()
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class DetectorAugmentation:
    """Options of [net] and the last [yolo]; resize and letter_box are AlexeyAB's only."""

    dialect: str = "alexeyab"
    jitter: float = 0.2
    resize: float = 1
    letter_box: bool = False
    flip: bool = True
    colour: Colour = Colour()


def draw_factor(most: float, rng: Generator) -> float:
    """Return a factor from 1 to ``most``, as likely its inverse: uniform between 1 and ``most`` before that."""
    factor = rng.uniform(min(1, most), max(1, most))
    return factor if rng.integers(2) else 1 / factor


def distort(image: np.ndarray, hue: float, saturation: float, exposure: float) -> np.ndarray:
    """Return an image with hue turned, saturation and value multiplied, and what leaves 0..255 cut off.

    In HSV of floats as in the programs' own code; AlexeyAB's with OpenCV rounds hue to 180 and cuts it off at red.
    """
    if (hue, saturation, exposure) == (0, 1, 1):
        return image
    change = np.array([[1, 0, 0, 360 * hue], [0, saturation, 0, 0], [0, 0, exposure, 0]])  # hue in degrees
    # two arrays in turn: getting new memory takes longer than the arithmetic
    one = image.astype(np.float32)
    other = cv2.cvtColor(one, cv2.COLOR_RGB2HSV)
    cv2.transform(other, change, dst=one)
    cv2.cvtColor(one, cv2.COLOR_HSV2RGB, dst=other)
    return cv2.add(other, (0, 0, 0, 0), dtype=cv2.CV_8U)


def augment_colour(image: np.ndarray, colour: Colour, rng: Generator) -> np.ndarray:
    """Return an image with colours changed at random."""
    hue = rng.uniform(-abs(colour.hue), abs(colour.hue))
    saturation, exposure = draw_factor(colour.saturation, rng), draw_factor(colour.exposure, rng)
    return distort(image, hue, saturation, exposure)


def augment_classifier(photo: np.ndarray, size: Size, options: ClassifierAugmentation, rng: Generator) -> np.ndarray:
    """Return a part of ``size`` of the photo resized, stretched and turned at random; what lies outside is black.

    A net that is not square gets a square part, as large as its longer side, squeezed.
    """
    height, width = photo.shape[:2]
    side = max(size)
    aspect = draw_factor(options.aspect, rng)
    shorter = max(1, min(height, int(width * aspect)))
    scale = rng.integers(min(options.crop), max(options.crop), endpoint=True) / shorter
    turn = radians(rng.uniform(-abs(options.angle), abs(options.angle)))
    room = [(width * scale / aspect - side) / 2, (height * scale - side) / 2]
    room = [abs(length) if options.beyond else max(0.0, length) for length in room]
    shift = [rng.uniform(-length, length) for length in room]
    # from a pixel of the part to one of the photo, both counted from the middle: undo squeeze, shift, scale, turn
    turned = np.array([[cos(turn), -sin(turn)], [sin(turn), cos(turn)]]) @ np.diag([aspect / scale, 1 / scale])
    linear = turned @ np.diag([side / size[0], side / size[1]])
    offset = np.array([width, height]) / 2 - 0.5 + turned @ shift - linear @ (np.array(size) / 2 - 0.5)
    image = cv2.warpAffine(photo, np.column_stack([linear, offset]), size, flags=_FROM_PHOTO)
    if options.flip and rng.integers(2):
        image = cv2.flip(image, 1)
    return augment_colour(image, options.colour, rng)


def cutmix(first: np.ndarray, second: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with a rectangle from the second, 0.3 to 0.8 of width and height, and both shares of it (2,)."""
    height, width = first.shape[:2]
    (left, right), (upper, lower) = (_draw_span(length, rng) for length in (width, height))
    image = first.copy()
    image[upper:lower, left:right] = second[upper:lower, left:right]
    share = (right - left) * (lower - upper) / (width * height)
    return image, np.array([1 - share, share])


def _draw_span(length: int, rng: Generator) -> tuple[int, int]:
    span = int(rng.integers(int(0.3 * length), int(0.8 * length), endpoint=True))
    first = int(rng.integers(0, max(1, length - span)))
    return first, first + span


def draw_cut(size: Size, rng: Generator) -> Size:
    """Return the column and row at which a mosaic's four pieces meet, within 0.2 to 0.8 of the size."""
    return tuple(int(rng.integers(int(0.2 * length), int(0.8 * length), endpoint=True)) for length in size)


def mosaic(images: list[np.ndarray], cut: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of four, each where it was (upper left and right, lower left and right), and shares (4,)."""
    image = images[0].copy()
    shares = []
    for part, other in zip(_parts(cut, image.shape[1::-1]), images, strict=True):
        image[part] = other[part]
        shares.append(image[part].size / image.size)
    return image, np.array(shares)


def _parts(cut: Size, size: Size) -> list[tuple[slice, slice]]:
    columns, rows = (slice(0, cut[0]), slice(cut[0], size[0])), (slice(0, cut[1]), slice(cut[1], size[1]))
    return [(row, column) for row in rows for column in columns]


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
    most = (lengths * options.jitter).astype(int)
    margins = (rng.uniform(-1, 1, 4) * most).astype(int)
    # both sides of an axis are resized apart, both axes alike
    down, up = min(options.resize, 1 / options.resize), max(options.resize, 1 / options.resize)
    least = (lengths * (1 - 1 / down) / 2).astype(int)
    greatest = (lengths * (1 - 1 / up) / 2).astype(int) if options.resize >= 1 else np.zeros(4, int)
    margins = margins + (least + (greatest - least) * np.tile(rng.random(2), 2)).astype(int)
    if options.letter_box:
        wanted = size[0] / size[1]
        if width / height > wanted:
            margins[2:] -= int((width / wanted - height) / 2)
        else:
            margins[:2] -= int((height * wanted - width) / 2)
    found = Margins(*margins.tolist())
    return found if found.keep(width, height) else Margins(0, 0, 0, 0)


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
    return cv2.warpAffine(photo, matrix, size, flags=_FROM_PHOTO, borderValue=cv2.mean(photo)), window


def place(photo: np.ndarray, size: Size, jitter: float, rng: Generator) -> tuple[np.ndarray, Window]:
    """Return Debian's letterbox, the photo with its aspect changed by ``jitter`` somewhere on grey, and its window."""
    height, width = photo.shape[:2]
    aspect = (width * (1 + rng.uniform(-jitter, jitter))) / (height * (1 + rng.uniform(-jitter, jitter)))
    # by the photo's aspect and not the net's; held within a net that is not square, which the program's leaves
    across, down = (size[1] * aspect, size[1]) if aspect < 1 else (size[0], size[0] / aspect)
    across, down = (max(1, min(int(length), most)) for length, most in zip((across, down), size, strict=True))
    left, upper = (int(rng.uniform(0, most - length)) for length, most in zip((across, down), size, strict=True))
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


def clip_boxes(boxes: np.ndarray, edges: tuple[float, ...], least: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Return what of boxes lies within edges (left, upper, right, lower), if wider and higher than ``least``."""
    low = np.maximum(boxes[:, 1:3] - boxes[:, 3:] / 2, edges[:2])
    high = np.minimum(boxes[:, 1:3] + boxes[:, 3:] / 2, edges[2:])
    clipped = np.column_stack([boxes[:, :1], (low + high) / 2, high - low])
    return clipped[(high - low > least).all(1)]


def augment_detector(
    photo: np.ndarray, boxes: np.ndarray, size: Size, options: DetectorAugmentation, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the photo moved, cut or padded, flipped and coloured at random, and its boxes in a random order.

    Boxes under 0.001 of the picture (Debian's) or under a pixel (AlexeyAB's) are dropped.
    """
    if options.dialect == "pjreddie":
        image, window = place(photo, size, options.jitter, rng)
        least = (0.001, 0.001)
    else:
        height, width = photo.shape[:2]
        image, window = cut_out(photo, draw_margins(width, height, size, options, rng), size)
        least = (1 / size[0], 1 / size[1])
    if flip := options.flip and bool(rng.integers(2)):
        image = cv2.flip(image, 1)
    boxes = clip_boxes(move_boxes(boxes, window, flip), (0, 0, 1, 1), least)
    return augment_colour(image, options.colour, rng), rng.permutation(boxes)


def mosaic_detector(
    photos: list[tuple[np.ndarray, np.ndarray]], size: Size, options: DetectorAugmentation, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of four photos, each (photo, boxes), that meet at a random point, and all their boxes.

    A piece shows its photo's corner that lies at the point, without what was added there; its boxes are clipped to it.
    AlexeyAB's program measures what was added in pixels before stretching, so a band of it may be left or too much go.
    """
    cut = draw_cut(size, rng)
    picture, found = np.empty((size[1], size[0], 3), np.uint8), []
    for part, (photo, boxes) in enumerate(photos):
        right, lower = bool(part % 2), part >= 2
        height, width = photo.shape[:2]
        margins = draw_margins(width, height, size, options, rng)
        flip = options.flip and bool(rng.integers(2))
        if rng.integers(2):
            moved = _to_the_point(margins, right == flip, not lower)
            margins = moved if moved.keep(width, height) else margins
        image, window = cut_out(photo, margins, size)
        image = cv2.flip(image, 1) if flip else image
        boxes = move_boxes(boxes, window, flip)
        before, after = (margins.right, margins.left) if flip else (margins.left, margins.right)
        across = _shift(before, after, width, size[0], cut[0], right)
        down = _shift(margins.upper, margins.lower, height, size[1], cut[1], lower)
        rows, columns = _parts(cut, size)[part]
        source = np.s_[rows.start - down : rows.stop - down, columns.start - across : columns.stop - across]
        picture[rows, columns] = augment_colour(image[source], options.colour, rng)
        boxes[:, 1:3] += across / size[0], down / size[1]
        piece = (columns.start / size[0], rows.start / size[1], columns.stop / size[0], rows.stop / size[1])
        found.append(clip_boxes(boxes, piece, (1 / size[0], 1 / size[1])))
    return picture, rng.permutation(np.concatenate(found))


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
