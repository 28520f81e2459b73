"""Strings of pixel values (``b"70 80 82 ..."``) to uint8, many rows at once, and grey squares to faces."""

from collections.abc import Sequence

import numpy as np

from fer.data.photos import fit
from fer.data.source import FaceFormat

#: Bytes worked on at once: enough that threads seldom wait for each other, little enough for a core's cache.
PIECE_BYTES = 200_000

_BLANK, _ZERO = np.uint8(ord(" ")), np.uint8(ord("0"))
_TEN, _HUNDRED = np.uint8(10), np.uint8(100)


def parse_pixels(fields: list[bytes], count: int) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Return the pixel values of many rows of whole numbers 0..255 that are separated by white space.

    The values are uint8 (n, count) for n fields. Whole numbers may be written as decimals, 70.0 or 7.0e+01. A field
    with another number of values, a fraction, a value over 255, a sign or any other character is bad: it is listed as
    (index, reason) and its row of values is zero.
    """
    pixels = np.zeros((len(fields), count), np.uint8)
    bad: list[tuple[int, str]] = []
    start = 0
    while start < len(fields):
        stop = start + 1
        size = len(fields[start])
        while stop < len(fields) and size + len(fields[stop]) <= PIECE_BYTES:
            size += len(fields[stop])
            stop += 1
        piece = _parse_plain(fields[start:stop], count)
        if piece is not None:
            pixels[start:stop] = piece
        else:
            for row in range(start, stop):
                reason = _parse_one(fields[row], pixels[row])
                if reason:
                    bad.append((row, reason))
        start = stop
    return pixels, bad


def fit_all(images: np.ndarray, face: FaceFormat) -> np.ndarray:
    """Return square grey faces, uint8 (n, side, side), in the wanted format: the array itself if it is so already."""
    if images.shape[1:] == face.shape:
        return images
    return np.stack([fit(image, face) for image in images]) if len(images) else np.zeros((0, *face.shape), np.uint8)


def _parse_plain(fields: list[bytes], count: int) -> np.ndarray | None:
    """Return the values, uint8 (n, count), or None when anything but blanks and good rows of 1 to 3 digits is there."""
    # Three blanks in front and one behind let every byte look at its neighbours without a special case.
    text = np.frombuffer(b"   " + b" ".join(fields) + b" ", np.uint8)
    digits = text - _ZERO
    is_digit = digits < _TEN
    if np.count_nonzero(is_digit) + np.count_nonzero(text == _BLANK) != len(text):
        return None
    digits *= is_digit
    follows_digit = is_digit[1:] & is_digit[:-1]
    if (follows_digit[2:] & follows_digit[:-2]).any():  # four digits in a row
        return None

    ends = np.flatnonzero(is_digit[3:-1] > is_digit[4:])
    if len(ends) != len(fields) * count:
        return None
    # The right total can hide one value too few here and one too many there: each row's values must lie in its text.
    row_starts = np.cumsum([0] + [len(field) + 1 for field in fields])
    by_row = ends.reshape(len(fields), count)
    if (by_row[:, 0] < row_starts[:-1]).any() or (by_row[:, -1] >= row_starts[1:]).any():
        return None

    # Now at the last digit of each number: hundreds two bytes before it, if the byte between is a digit as well.
    below_hundred = digits[2:-2] * _TEN
    below_hundred += digits[3:-1]
    hundreds = digits[1:-3] * follows_digit[2:-1]
    if hundreds.max(initial=0) > 2:
        return None
    hundreds *= _HUNDRED
    hundreds += below_hundred
    if (hundreds < below_hundred).any():  # 256..299 wrapped around
        return None
    return hundreds.take(by_row)


def _parse_one(field: bytes, into: np.ndarray) -> str | None:
    """Fill ``into`` with the values of one field, or return why it can't be done and leave ``into`` as it is."""
    words = field.split()
    if len(words) != len(into):
        return f"{len(words)} pixels, expected {len(into)}"
    # No value and no place in the reasons: the same fault in many rows is counted as one reason.
    values: Sequence[float] | None
    if all(word.isdigit() for word in words):
        values = [int(word) if len(word) < 10 else 256 for word in (word.lstrip(b"0") or b"0" for word in words)]
    elif (values := _whole_decimals(words)) is None:
        return "a pixel that is not a whole number"
    if max(values, default=0) > 255:
        return "a pixel over 255"
    into[:] = values
    return None


def _whole_decimals(words: list[bytes]) -> list[float] | None:
    """Return the numbers that decimals such as 70.0 or 7.0e+01 are; None where one is a fraction or no number."""
    # long words would make a large array, and numpy would take signs and words such as inf
    if max(map(len, words)) > 40 or any(
        not word[:1].isdigit() or word.translate(None, b"0123456789.eE+-") for word in words
    ):
        return None
    try:
        values = np.array(words).astype(np.float64)
    except ValueError:
        return None
    return values.tolist() if np.isfinite(values).all() and (values == np.floor(values)).all() else None
