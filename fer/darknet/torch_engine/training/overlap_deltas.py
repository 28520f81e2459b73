"""What AlexeyAB's program takes for the gradients of IoU, GIoU, DIoU and CIoU, by its box.c: a function a kind.

Boxes and truths are the centre's x and y, width and height (..., 4), in one unit; a delta (..., 4), of the boxes, leads
uphill. They are the gradients of `fer.darknet.torch_engine.boxes` but for this: of IoU and GIoU the width's and
height's parts count twice, so that they move both edges as far as the centre would; in the centre's part of DIoU and
CIoU the diagonal's change has the other sign; the aspect ratio's is without 1 / (width^2 + height^2); of boxes apart
GIoU, DIoU and CIoU keep only their own part, and IoU takes the product of the negative gaps for the shared area.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Two boxes; lengths are of x and y (..., 2), areas (..., 1), ``apart`` (..., 1) where they share nothing.

    ``low`` and ``high`` are the left and upper, the right and lower edges; ``shared`` the sides of the part that both
    cover, negative where there is a gap; ``enclosing`` those of the smallest box around both.
    """

    size: Tensor
    low: Tensor
    high: Tensor
    true_size: Tensor
    true_low: Tensor
    true_high: Tensor
    to_truth: Tensor
    shared: Tensor
    enclosing: Tensor
    shared_area: Tensor
    union: Tensor
    apart: Tensor


def _geometry(boxes: Tensor, truths: Tensor) -> _Geometry:
    size, true_size = boxes[..., 2:], truths[..., 2:]
    # as in the program, against a division by 0
    size = torch.where(size == 0, torch.ones_like(size), size)
    low, high = boxes[..., :2] - size / 2, boxes[..., :2] + size / 2
    true_low, true_high = truths[..., :2] - true_size / 2, truths[..., :2] + true_size / 2
    shared = torch.minimum(high, true_high) - torch.maximum(low, true_low)
    area = shared.prod(-1, keepdim=True)
    return _Geometry(
        size=size,
        low=low,
        high=high,
        true_size=true_size,
        true_low=true_low,
        true_high=true_high,
        to_truth=truths[..., :2] - boxes[..., :2],
        shared=shared,
        enclosing=torch.maximum(high, true_high) - torch.minimum(low, true_low),
        shared_area=area,
        union=size.prod(-1, keepdim=True) + true_size.prod(-1, keepdim=True) - area,
        apart=(shared <= 0).any(-1, keepdim=True),
    )


def iou_delta(boxes: Tensor, truths: Tensor) -> Tensor:
    edges, _ = _iou_by_edges(_geometry(boxes, truths))
    return torch.cat(_by_centre_and_size(*edges), -1)


def giou_delta(boxes: Tensor, truths: Tensor) -> Tensor:
    """The IoU's less the part of the enclosing box that neither covers."""
    g = _geometry(boxes, truths)
    edges, union_by = _iou_by_edges(g)
    whole = g.enclosing.prod(-1, keepdim=True)
    whole_by = -g.enclosing.flip(-1) * (g.low < g.true_low), g.enclosing.flip(-1) * (g.high > g.true_high)
    more = [(whole * u - g.union * w) / whole**2 for u, w in zip(union_by, whole_by, strict=True)]
    low_by, high_by = (torch.where(g.apart, own, edge + own) for edge, own in zip(edges, more, strict=True))
    return torch.cat(_by_centre_and_size(low_by, high_by), -1)


def diou_delta(boxes: Tensor, truths: Tensor) -> Tensor:
    """The IoU's less the squared distance of the centres over the enclosing box's diagonal's."""
    g = _geometry(boxes, truths)
    return _joined(g, *_distance(g))


def ciou_delta(boxes: Tensor, truths: Tensor) -> Tensor:
    """The DIoU's less the weighted difference of the aspect ratios."""
    g = _geometry(boxes, truths)
    centre_by, size_by = _distance(g)
    size, true_size = g.size, g.true_size
    angle = torch.atan(true_size[..., :1] / true_size[..., 1:]) - torch.atan(size[..., :1] / size[..., 1:])
    aspect = 4 / pi**2 * angle.square()
    weight = aspect / (1 - g.shared_area / g.union + aspect + 1e-6)
    other_side = torch.cat([size[..., 1:], -size[..., :1]], -1)
    return _joined(g, centre_by, size_by + weight * 8 / pi**2 * angle * other_side)


#: By iou_loss= of a [yolo].
OVERLAP_DELTAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "iou": iou_delta,
    "giou": giou_delta,
    "diou": diou_delta,
    "ciou": ciou_delta,
}


def _iou_by_edges(g: _Geometry) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the derivatives of IoU and of the union by the lower and by the upper edges, each (..., 2) of x and y."""
    # the derivative of an area by an edge is the other side's length
    area_by = -g.shared.flip(-1) * (g.low > g.true_low), g.shared.flip(-1) * (g.high < g.true_high)
    union_by = -g.size.flip(-1) - area_by[0], g.size.flip(-1) - area_by[1]
    low_by, high_by = (
        torch.where(g.union > 0, (g.union * a - g.shared_area * u) / g.union**2, 0)
        for a, u in zip(area_by, union_by, strict=True)
    )
    return (low_by, high_by), union_by


def _by_centre_and_size(low_by: Tensor, high_by: Tensor) -> tuple[Tensor, Tensor]:
    return low_by + high_by, high_by - low_by


def _distance(g: _Geometry) -> tuple[Tensor, Tensor]:
    """Return the derivatives of the distance's part of DIoU by the centre and by the size, each (..., 2)."""
    lower, higher = (g.low < g.true_low).to(g.size.dtype), (g.high > g.true_high).to(g.size.dtype)
    distance, diagonal = (length.square().sum(-1, keepdim=True) for length in (g.to_truth, g.enclosing))
    centre_by = (2 * g.to_truth * diagonal - 2 * g.enclosing * (higher - lower) * distance) / diagonal**2
    return centre_by, g.enclosing * (higher + lower) * distance / diagonal**2


def _joined(g: _Geometry, centre_by: Tensor, size_by: Tensor) -> Tensor:
    """Return these and the IoU's, of boxes apart these alone."""
    edges, _ = _iou_by_edges(g)
    iou_centre_by, iou_size_by = _by_centre_and_size(*edges)
    centre = torch.where(g.apart, centre_by, iou_centre_by + centre_by)
    size = torch.where(g.apart, size_by, iou_size_by + size_by)
    return torch.cat([centre, size], -1)
