"""Boxes in a picture, and how much they overlap, for numpy.

Tensors have `fer.darknet.torch_engine.boxes.iou`, which a loss can be made of and which counts from the boxes' centres;
this one needs no torch.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

#: x, y, width, height in pixels of the picture, x to the right and y down.
Box = tuple[float, float, float, float]


class FractionBox(NamedTuple):
    """A box as fractions of its photo, whose size is not known yet; x and y of its upper left corner."""

    x: float
    y: float
    width: float
    height: float


def in_pixels(box: Box | FractionBox | None, width: int, height: int) -> Box | None:
    """Return a box in pixels of its photo, of the given size.

    >>> in_pixels(FractionBox(0.5, 0.5, 0.25, 0.5), 80, 40), in_pixels((1, 2, 3, 4), 80, 40)
    ((40.0, 20.0, 20.0, 20.0), (1, 2, 3, 4))
    """
    if not isinstance(box, FractionBox):
        return box
    return box.x * width, box.y * height, box.width * width, box.height * height


#: A number of a box that is larger lies in no photo.
_MOST = 2**31


def checked_box(x: float, y: float, width: float, height: float) -> Box | str:
    """Return an annotated box, or why it is none.

    >>> checked_box(3, 4, 10, 0), checked_box(3, 4, 10, float("nan"))
    ('empty box', 'box that is not finite or far larger than any photo')
    """
    # NaN compares as false, and whole numbers of any length compare without becoming floats
    if not (abs(x) <= _MOST and abs(y) <= _MOST and abs(width) <= _MOST and abs(height) <= _MOST):
        return "box that is not finite or far larger than any photo"
    return (x, y, width, height) if width > 0 and height > 0 else "empty box"


def iou(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Return the intersection over union (...) of boxes (..., 4) with others, broadcast; 0 where both are empty.

    A box is x, y, width, height in any unit, x and y at the left and upper edge. float32 stays float32.

    >>> iou((0, 0, 10, 10), [(0, 0, 10, 10), (5, 0, 10, 10), (20, 0, 5, 5)]).round(3).tolist()
    [1.0, 0.333, 0.0]
    """
    (x, y, width, height), (other_x, other_y, other_width, other_height) = map(_columns, (first, second))
    across = np.minimum(x + width, other_x + other_width) - np.maximum(x, other_x)
    down = np.minimum(y + height, other_y + other_height) - np.maximum(y, other_y)
    shared = across.clip(0) * down.clip(0)
    union = width * height + other_width * other_height - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def _columns(boxes: ArrayLike) -> np.ndarray:
    array = np.asarray(boxes)
    return np.moveaxis(array if array.dtype == np.float32 else array.astype(float), -1, 0)
