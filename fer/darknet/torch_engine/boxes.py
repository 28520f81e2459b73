"""Boxes as pure functions of tensors: how much two overlap, and a [yolo]'s numbers to boxes and back.

A box is the centre's x and y, width and height (..., 4), in any one unit; x to the right, y down. The last dimension is
the box's, the others broadcast. All are differentiable and exact at any size: torchvision's losses add 1e-7 to areas,
which in fractions of a photo is a thousandth of a small face.
"""

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Return intersection over union (...), 0 to 1; 0 where both boxes are empty."""
    shared, union, _ = _areas(first, second)
    return _ratio(shared, union)


def giou(first: Tensor, second: Tensor) -> Tensor:
    """Return generalised IoU (...), -1 to 1: less the enclosing box's part that neither covers (Rezatofighi 2019)."""
    shared, union, enclosing = _areas(first, second)
    around = enclosing.prod(-1)
    return _ratio(shared, union) - _ratio(around - union, around)


def diou(first: Tensor, second: Tensor) -> Tensor:
    """Return distance IoU (...), -1 to 1: less the squared distance of the centres over the enclosing box's diagonal's.

    Zheng et al. 2020. AlexeyAB's program takes the power 0.6 of that ratio where it suppresses overlapping boxes.
    """
    shared, union, enclosing = _areas(first, second)
    apart = (first[..., :2] - second[..., :2]).square().sum(-1)
    return _ratio(shared, union) - _ratio(apart, enclosing.square().sum(-1))


def ciou(first: Tensor, second: Tensor) -> Tensor:
    """Return complete IoU (...): distance IoU less the weighted difference of the aspect ratios (Zheng et al. 2020).

    The weight counts as a constant for the gradient, as in the paper and in torchvision.
    """
    angle = torch.atan2(first[..., 2], first[..., 3]) - torch.atan2(second[..., 2], second[..., 3])
    aspect = 4 / pi**2 * angle.square()
    with torch.no_grad():
        weight = _ratio(aspect, 1 - iou(first, second) + aspect)
    return diou(first, second) - weight * aspect


#: A [yolo]'s iou_loss= to the overlap that its loss is 1 minus of; mse has none.
OVERLAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}


def decode(raw: Tensor, cells: Tensor, anchors: Tensor, scale: float = 1, new_coords: bool = False) -> Tensor:
    """Return the boxes (..., 4), in cells, that a head's numbers (..., 4) stand for.

    ``cells`` (..., 2) are the column and row, ``anchors`` (..., 2) widths and heights in cells, ``scale`` is scale_x_y.
    The centre is the cell's corner plus a sigmoid, stretched by ``scale`` about its middle, the size the anchor times
    an exponential (YOLOv3, YOLOv4); with ``new_coords`` (Scaled-YOLOv4) the numbers are sigmoids already and the size
    is the anchor times four times their square.
    """
    centre, size = raw[..., :2], raw[..., 2:]
    if new_coords:
        size = (2 * size).square()
    else:
        centre, size = centre.sigmoid(), size.exp()
    return torch.cat([centre * scale - (scale - 1) / 2 + cells, size * anchors], dim=-1)


def encode(boxes: Tensor, cells: Tensor, anchors: Tensor, scale: float = 1, new_coords: bool = False) -> Tensor:
    """Return the numbers (..., 4) that `decode` makes these boxes of; not finite for a centre outside its reach.

    With a ``scale`` of 1 the reach is the inside of the cell, else (scale - 1) / 2 of a cell more.
    """
    centre = (boxes[..., :2] - cells + (scale - 1) / 2) / scale
    size = boxes[..., 2:] / anchors
    return torch.cat([centre, size.sqrt() / 2] if new_coords else [centre.logit(), size.log()], dim=-1)


def _areas(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the areas of intersection and union (...), and the enclosing box's width and height (..., 2)."""
    (low, high), (other_low, other_high) = _corners(first), _corners(second)
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(-1)
    union = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - shared
    return shared, union, torch.maximum(high, other_high) - torch.minimum(low, other_low)


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    half = boxes[..., 2:] / 2
    return boxes[..., :2] - half, boxes[..., :2] + half


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return the quotient, 0 where both are 0, with finite gradients."""
    return part / torch.where(whole > 0, whole, torch.ones_like(whole))
