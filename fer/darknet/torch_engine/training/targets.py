"""A [yolo] head's boxes, which truths they are trained on, and their deltas, by the programs' rules.

Boxes are the centre's x and y, width and height (..., 4), as fractions of the net's input. Read in the programs'
yolo_layer.c and box.c; nothing waits for the device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fer.darknet.torch_engine.boxes import decode, iou
from fer.darknet.torch_engine.training.head_options import Head
from fer.darknet.torch_engine.training.overlap_deltas import OVERLAP_DELTAS

# Pairs of boxes compared at a time: 2^23 with the ten numbers that each needs are 0.3 GiB.
_PAIRS = 2**23


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


@dataclass(frozen=True, slots=True)
class BoxOutput:
    """A head's output for some boxes: ``raw`` (..., 4) its first four numbers, and what they stand for.

    ``unit`` (..., 4) is the centre within the cell and the size as a multiple of the anchor, ``boxes`` (..., 4) are in
    fractions of the input. ``cell`` (..., 2) is the column and row, ``anchors`` (..., 2) are in fractions; these two
    may be broadcast.
    """

    raw: Tensor
    unit: Tensor
    boxes: Tensor
    cell: Tensor
    anchors: Tensor


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """A head's output of B = N * A * rows * columns boxes: ``objectness`` (B), ``probabilities`` (B, classes).

    ``raw``, ``unit`` and ``boxes`` (B, 4) as in `BoxOutput`; ``anchors`` (A, 2) in fractions, ``cells`` (rows, columns,
    2) the column and row of every cell, ``grid`` (2) how many there are.
    """

    raw: Tensor
    unit: Tensor
    boxes: Tensor
    objectness: Tensor
    probabilities: Tensor
    anchors: Tensor
    cells: Tensor
    grid: Tensor

    def all_boxes(self) -> BoxOutput:
        """Return every box (B, ...) with its cell and anchor."""
        rows, columns, _ = self.cells.shape
        photos = len(self.boxes) // (len(self.anchors) * rows * columns)
        cell = self.cells.expand(photos, len(self.anchors), -1, -1, -1).reshape(-1, 2)
        anchors = self.anchors[:, None, None].expand(photos, -1, rows, columns, -1).reshape(-1, 2)
        return BoxOutput(self.raw, self.unit, self.boxes, cell, anchors)

    def at_pairs(self, pairs: Assignment) -> BoxOutput:
        """Return the box of each pair of a truth and an anchor (N, M, A, ...)."""
        raw, unit, boxes = (
            part[pairs.box.flatten()].view(*pairs.box.shape, 4) for part in (self.raw, self.unit, self.boxes)
        )
        return BoxOutput(raw, unit, boxes, pairs.cell, self.anchors)


def decode_head(head: Head, raw: Tensor, anchors: Tensor) -> HeadOutput:
    """Return what a head's numbers (N, A * (5 + classes), rows, columns) stand for; ``anchors`` (A, 2) in fractions."""
    n, _, rows, columns = raw.shape
    x = raw.view(n, len(anchors), 5 + head.classes, rows, columns).permute(0, 1, 3, 4, 2)
    grid = xy(raw, columns, rows)
    column, row = (torch.arange(length, device=raw.device, dtype=raw.dtype) for length in (columns, rows))
    cells = torch.stack(torch.meshgrid(column, row, indexing="xy"), -1)
    unit = decode(x[..., :4], raw.new_zeros(2), raw.new_ones(2), head.scale, head.new_coords)
    boxes = torch.cat([(unit[..., :2] + cells) / grid, unit[..., 2:] * anchors[:, None, None]], -1)
    sure = (x[..., 4:] if head.new_coords else x[..., 4:].sigmoid()).flatten(0, 3)
    raw, unit, boxes = (part.flatten(0, 3) for part in (x[..., :4], unit, boxes))
    return HeadOutput(raw, unit, boxes, sure[:, 0], sure[:, 1:], anchors, cells, grid)


def xy(like: Tensor, x: float, y: float) -> Tensor:
    """Return two numbers as a tensor (2) like another in type and device."""
    # filled on the device: a tensor made of a list would be copied there, and waited for
    return torch.stack([like.new_full((), x), like.new_full((), y)])


def split_truths(truths: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
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
        highest, number = (overlap * valid[:, None, part]).max(-1)
        which = torch.where(highest > best, number + start, which)
        best = torch.maximum(best, highest)
    return best, which


def box_delta(head: Head, output: BoxOutput, true: Tensor, factor: Tensor, grid: Tensor) -> Tensor:
    """Return the deltas of boxes (..., 4) for the truths ``true`` (..., 4).

    ``factor`` (...) is how much more the truth's class counts, ``grid`` (2) the columns and rows. Deltas of an overlap
    are 0 where not finite, and limited, as in the program.
    """
    factor = head.iou_normalizer * factor[..., None]
    if head.iou_loss == "mse":
        size = true[..., 2:] / output.anchors
        size = size.sqrt() / 2 if head.new_coords else size.log()
        small = 2 - true[..., 2:].prod(-1, keepdim=True)
        centre = true[..., :2] * grid - output.cell - output.unit[..., :2]
        return factor * small * torch.cat([centre, size - output.raw[..., 2:]], -1)
    delta = OVERLAP_DELTAS[head.iou_loss](output.boxes, true)
    if not head.new_coords:
        delta = torch.cat([delta[..., :2], delta[..., 2:] * output.unit[..., 2:]], -1)
    return (factor * delta).nan_to_num(0, 0, 0).clamp(-head.max_delta, head.max_delta)
