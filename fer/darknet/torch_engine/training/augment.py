"""Darknet's augmentation: functions of a photo, options and a numpy Generator, which alone decides.

Photos are uint8 (h, w, 3) RGB, sizes (width, height) in pixels. The draws are those of the two programs' data loaders:
``pjreddie`` is Debian's of 2018, ``alexeyab`` the other. Pixels differ from theirs by parts of one: all here have their
centre at a half. `detector_augment` has what moves boxes, too.
"""

from dataclasses import dataclass
from math import cos, radians, sin
from typing import cast

import cv2
import numpy as np
from numpy.random import Generator

from fer.darknet.formats.section import Section, integer, number, positive
from fer.errors import InputError

Size = tuple[int, int]

#: For warpAffine: the matrix leads from a pixel of the result to one of the photo.
FROM_PHOTO = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


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


def classifier_options(net: Section, dialect: str) -> ClassifierAugmentation:
    """Return what a classifier's [net] says of augmentation."""
    width = positive(net, "width")
    return ClassifierAugmentation(
        crop=(positive(net, "min_crop", width), positive(net, "max_crop", 2 * width)),
        angle=number(net, "angle", 0),
        aspect=positive_factor(net, "aspect"),
        flip=dialect == "pjreddie" or bool(integer(net, "flip", 1)),
        colour=colour_options(net),
        beyond=dialect == "pjreddie",
    )


def colour_options(net: Section) -> Colour:
    """Return what [net] says of colours."""
    return Colour(number(net, "hue", 0), positive_factor(net, "saturation"), positive_factor(net, "exposure"))


def positive_factor(section: Section, key: str) -> float:
    """Return a number over 0 from a section's options, 1 where it is not there."""
    value = number(section, key, 1)
    if value <= 0:
        raise InputError(f"{section.where}: {key}={value:g} is not positive")
    return value


def draw_factor(limit: float, rng: Generator) -> float:
    """Return a factor from 1 to ``limit``, as likely its inverse: uniform between 1 and ``limit`` before that."""
    factor = rng.uniform(min(1, limit), max(1, limit))
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
    # OpenCV takes a scalar here, its stubs do not
    return np.asarray(cv2.add(other, cast(np.ndarray, (0, 0, 0, 0)), dtype=cv2.CV_8U))


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
    image = cv2.warpAffine(photo, np.column_stack([linear, offset]), size, flags=FROM_PHOTO)
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
    column, row = (int(rng.integers(int(0.2 * length), int(0.8 * length), endpoint=True)) for length in size)
    return column, row


def mosaic(images: list[np.ndarray], cut: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of four, each where it was (upper left and right, lower left and right), and shares (4,)."""
    image = images[0].copy()
    shares = []
    for part, other in zip(quarters(cut, (image.shape[1], image.shape[0])), images, strict=True):
        image[part] = other[part]
        shares.append(image[part].size / image.size)
    return image, np.array(shares)


def quarters(cut: Size, size: Size) -> list[tuple[slice, slice]]:
    """Return the rows and columns of a mosaic's pieces: upper left and right, lower left and right."""
    columns, rows = (slice(0, cut[0]), slice(cut[0], size[0])), (slice(0, cut[1]), slice(cut[1], size[1]))
    return [(row, column) for row in rows for column in columns]
