"""What a [yolo] head says, which truths it trains its boxes on, and their deltas, by the programs' rules.

Boxes are the centre's x and y, width and height (..., 4), as fractions of the net's input. Read in the programs'
yolo_layer.c and box.c; nothing waits for the device.
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from fer.darknet.torch_engine.boxes import decode, iou

# Pairs of boxes compared at a time: 2^23 with the ten numbers that each needs are 0.3 GiB.
_PAIRS = 2**23


@dataclass(frozen=True, slots=True)
class Head:
    """A [yolo]'s options; ``pixels`` are the width and height of a cell."""

    classes: int
    pixels: tuple[float, float]
    ignore_thresh: float
    truth_thresh: float
    iou_thresh: float
    scale: float
    new_coords: bool
    label_smooth_eps: float
    iou_loss: str
    iou_normalizer: float
    obj_normalizer: float
    cls_normalizer: float
    delta_normalizer: float
    max_delta: float


@dataclass(frozen=True, slots=True)
class Said:
    """What a head says: of its B = N * A * rows * columns boxes, and each box's cell and anchor.

    ``raw`` (B, 4) its first numbers, ``unit`` (B, 4) the centre within the cell and the size as a multiple of the
    anchor, ``boxes`` (B, 4) in fractions of the input, ``objectness`` (B), ``probabilities`` (B, classes); ``anchors``
    (A, 2) in fractions, ``cell`` (rows, columns, 2) the column and row of every cell, ``grid`` (2) how many there are.
    """

    raw: Tensor
    unit: Tensor
    boxes: Tensor
    objectness: Tensor
    probabilities: Tensor
    anchors: Tensor
    cell: Tensor
    grid: Tensor


@dataclass(frozen=True, slots=True)
class Assignment:
    """Pairs of a truth and an anchor of a head, each (N, M, A) for M truths and A anchors.

    ``taken``: whether the pair trains a box; ``box``: that box's number among the head's N * A * rows * columns;
    ``last``: whether it is the last that trains the box, truths in their order. ``cell`` (N, M, 1, 2) is the column and
    row; ``by`` (N, A * rows * columns) the truth that was the last, or -1.
    """

    taken: Tensor
    box: Tensor
    last: Tensor
    cell: Tensor
    by: Tensor


def predictions(head: Head, raw: Tensor, anchors: Tensor) -> Said:
    """Return what a head's numbers (N, A * (5 + classes), rows, columns) say; ``anchors`` (A, 2) in fractions."""
    n, _, rows, columns = raw.shape
    x = raw.view(n, len(anchors), 5 + head.classes, rows, columns).permute(0, 1, 3, 4, 2)
    grid = pair(raw, columns, rows)
    column, row = (torch.arange(length, device=raw.device, dtype=raw.dtype) for length in (columns, rows))
    cell = torch.stack(torch.meshgrid(column, row, indexing="xy"), -1)
    unit = decode(x[..., :4], raw.new_zeros(2), raw.new_ones(2), head.scale, head.new_coords)
    boxes = torch.cat([(unit[..., :2] + cell) / grid, unit[..., 2:] * anchors[:, None, None]], -1)
    sure = (x[..., 4:] if head.new_coords else x[..., 4:].sigmoid()).flatten(0, 3)
    flat = (part.flatten(0, 3) for part in (x[..., :4], unit, boxes))
    return Said(*flat, sure[:, 0], sure[:, 1:], anchors, cell, grid)


def pair(like: Tensor, first: float, second: float) -> Tensor:
    """Return two numbers as a tensor (2)."""
    # filled on the device: a tensor made of a list would be copied there, and waited for
    return torch.stack([like.new_full((), first), like.new_full((), second)])


def clean(truths: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return classes (N, M), boxes (N, M, 4), any where there is none, and if there is one (N, M); M at least 1."""
    if truths.shape[1] == 0:
        truths = truths.new_full((len(truths), 1, 5), -1)
    label, true = truths[..., 0], truths[..., 1:]
    valid = (label >= 0) & (label < classes) & truths.isfinite().all(-1) & (true[..., 2:] > 0).all(-1)
    return torch.where(valid, label, 0).long(), torch.where(valid[..., None], true, 0.5), valid


def assign(
    truths: Tensor, valid: Tensor, anchors: Tensor, mask: Tensor, rows: int, columns: int, iou_thresh: float = 1
) -> Assignment:
    """Return the pairs of truths (N, M, 4), where ``valid`` (N, M), and of a head's anchors that train its boxes.

    A truth trains the box at its centre's cell of the anchor most like it in shape, of all ``anchors`` (T, 2), where
    that is one of the head's, ``mask`` (A); of several equal ones the first. With an ``iou_thresh`` under 1 it also
    trains those of the head's other anchors whose IoU in shape is over it.
    """
    n = len(truths)
    # about one centre, so that the IoU is that of the shapes
    shapes = torch.cat([torch.zeros_like(truths[..., 2:]), truths[..., 2:]], -1)[:, :, None]
    alike = iou(shapes, torch.cat([torch.zeros_like(anchors), anchors], -1))
    taken = alike.argmax(-1, keepdim=True) == mask
    if iou_thresh < 1:
        taken = taken | (alike[..., mask] > iou_thresh)
    taken = taken & valid[..., None]
    column, row = ((truths[..., i] * length).long().clamp(0, length - 1) for i, length in ((0, columns), (1, rows)))
    photo, anchor = (torch.arange(length, device=truths.device) for length in (n, len(mask)))
    box = ((photo[:, None, None] * len(mask) + anchor) * rows + row[..., None]) * columns + column[..., None]
    # every pair writes; those that are not taken into one number more than there are boxes
    boxes = n * len(mask) * rows * columns
    place = torch.where(taken, box, boxes).flatten()
    order = torch.arange(truths.shape[1], device=truths.device)[:, None].expand_as(taken)
    by = torch.full((boxes + 1,), -1, device=truths.device).scatter_reduce(0, place, order.flatten(), "amax")
    last = taken & (by[place].view_as(taken) == order)
    return Assignment(taken, box, last, torch.stack([column, row], -1)[:, :, None], by[:-1].view(n, -1))


def best_overlaps(boxes: Tensor, truths: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return each box's highest IoU with a truth of its photo, 0 with none, and that truth's number, both (N, P).

    ``boxes`` are (N, P, 4), ``truths`` (N, M, 4), ``valid`` (N, M).
    """
    best = torch.zeros_like(boxes[..., 0])
    which = torch.zeros_like(best, dtype=torch.long)
    step = max(1, _PAIRS // max(1, best.numel()))
    for start in range(0, truths.shape[1], step):
        part = slice(start, start + step)
        # a box of infinite size overlaps nothing, as in a program whose comparisons with NaN are false
        overlap = iou(boxes[:, :, None], truths[:, None, part]).nan_to_num(0)
        found, number = (overlap * valid[:, None, part]).max(-1)
        which = torch.where(found > best, number + start, which)
        best = torch.maximum(best, found)
    return best, which


def box_delta(
    head: Head, boxes: Tensor, raw: Tensor, unit: Tensor, true: Tensor, factor: Tensor, cell: Tensor, anchors: Tensor,
    grid: Tensor,
) -> Tensor:  # fmt: skip
    """Return the deltas of boxes (..., 4) that stand in ``cell`` (..., 2) for the truths ``true`` (..., 4).

    ``raw`` are the head's first four numbers, ``unit`` the centre within the cell and the size as a multiple of the
    anchor, ``factor`` (...) how much more the truth's class counts, ``anchors`` (..., 2) in fractions of the input,
    ``grid`` (2) the columns and rows. Those of an overlap are 0 where not finite, and limited, as in the program.
    """
    factor = head.iou_normalizer * factor[..., None]
    if head.iou_loss == "mse":
        size = true[..., 2:] / anchors
        size = size.sqrt() / 2 if head.new_coords else size.log()
        small = 2 - true[..., 2:].prod(-1, keepdim=True)
        centre = true[..., :2] * grid - cell - unit[..., :2]
        return factor * small * torch.cat([centre, size - raw[..., 2:]], -1)
    delta = overlap_delta(head.iou_loss, boxes, true)
    if not head.new_coords:
        delta = torch.cat([delta[..., :2], delta[..., 2:] * unit[..., 2:]], -1)
    return (factor * delta).nan_to_num(0, 0, 0).clamp(-head.max_delta, head.max_delta)


def overlap_delta(kind: str, boxes: Tensor, truths: Tensor) -> Tensor:
    """Return what AlexeyAB's program takes for the gradient of the overlap (..., 4) by the boxes (..., 4), to go up.

    ``kind`` is iou, giou, diou or ciou. It is the gradient of `torch_engine.boxes` but for this: of IoU and GIoU the
    width's and height's parts count twice, so that they move both edges as far as the centre would; in the centre's
    part of DIoU and CIoU the diagonal's change has the other sign; the aspect ratio's is without
    1 / (width^2 + height^2); of boxes apart GIoU, DIoU and CIoU keep only their own part, and IoU takes the product of
    the negative gaps for the shared area.
    """
    size, true_size = boxes[..., 2:], truths[..., 2:]
    # as in the program, against a division by 0
    size = torch.where(size == 0, torch.ones_like(size), size)
    low, high = boxes[..., :2] - size / 2, boxes[..., :2] + size / 2
    true_low, true_high = truths[..., :2] - true_size / 2, truths[..., :2] + true_size / 2
    shared = torch.minimum(high, true_high) - torch.maximum(low, true_low)
    around = torch.maximum(high, true_high) - torch.minimum(low, true_low)
    area = shared.prod(-1, keepdim=True)
    union = size.prod(-1, keepdim=True) + true_size.prod(-1, keepdim=True) - area
    apart = (shared <= 0).any(-1, keepdim=True)

    # by the lower and the upper edge of x and of y, in whose derivatives the other side's length stands
    area_by = -shared.flip(-1) * (low > true_low), shared.flip(-1) * (high < true_high)
    union_by = -size.flip(-1) - area_by[0], size.flip(-1) - area_by[1]
    edges = [
        torch.where(union > 0, (union * a - area * u) / union**2, 0) for a, u in zip(area_by, union_by, strict=True)
    ]
    if kind == "giou":
        whole = around.prod(-1, keepdim=True)
        whole_by = -around.flip(-1) * (low < true_low), around.flip(-1) * (high > true_high)
        extra = [(whole * u - union * w) / whole**2 for u, w in zip(union_by, whole_by, strict=True)]
        edges = [torch.where(apart, more, edge + more) for edge, more in zip(edges, extra, strict=True)]
    centre_by, size_by = edges[0] + edges[1], edges[1] - edges[0]
    if kind in ("diou", "ciou"):
        lower, higher = (low < true_low).to(size.dtype), (high > true_high).to(size.dtype)
        way = truths[..., :2] - boxes[..., :2]
        distance, diagonal = (length.square().sum(-1, keepdim=True) for length in (way, around))
        more_centre = (2 * way * diagonal - 2 * around * (higher - lower) * distance) / diagonal**2
        more_size = around * (higher + lower) * distance / diagonal**2
        if kind == "ciou":
            angle = torch.atan(true_size[..., :1] / true_size[..., 1:]) - torch.atan(size[..., :1] / size[..., 1:])
            aspect = 4 / pi**2 * angle.square()
            weight = aspect / (1 - area / union + aspect + 1e-6)
            other = torch.cat([size[..., 1:], -size[..., :1]], -1)
            more_size = more_size + weight * 8 / pi**2 * angle * other
        centre_by = torch.where(apart, more_centre, centre_by + more_centre)
        size_by = torch.where(apart, more_size, size_by + more_size)
    return torch.cat([centre_by, size_by], -1)
