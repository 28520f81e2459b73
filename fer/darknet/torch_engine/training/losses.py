"""The programs' losses: what they print, and the deltas that they train on, which are not its gradient.

A program writes deltas straight on a head's numbers before their sigmoids, and ascends them; here they come back from
``backward`` with the opposite sign, divided by the photos of the batch. All is computed in float32 at least.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer.darknet.formats.cfg import layers
from fer.darknet.formats.section import Section, integer, number, numbers
from fer.darknet.torch_engine.boxes import giou, iou
from fer.darknet.torch_engine.training.head_options import Head, class_multipliers, read_head, require_built
from fer.darknet.torch_engine.training.targets import (
    Assignment,
    HeadOutput,
    assign,
    best_overlaps,
    box_delta,
    decode_head,
    split_truths,
    xy,
)
from fer.errors import InputError


class _Batch:
    """One head's output of N photos beside their truths, ``labels`` (N, M) and ``true`` boxes (N, M, 4).

    ``multipliers`` (classes,) are how much more each class counts; ``pair_boxes`` and ``pair_labels`` (N, M, A, ...)
    the box and the class of each of the ``pairs``.
    """

    def __init__(
        self, head: Head, output: HeadOutput, labels: Tensor, true: Tensor, pairs: Assignment, multipliers: Tensor
    ) -> None:
        self.head, self.output, self.labels, self.true = head, output, labels, true
        self.pairs, self.multipliers = pairs, multipliers
        self.pair_boxes = output.at_pairs(pairs)
        self.pair_labels = labels[:, :, None].expand_as(pairs.box)


@dataclass(slots=True)
class _Deltas:
    """Deltas of a head's B boxes: ``box`` (B, 4) and ``objectness`` (B).

    The classes' follow from which are ``right`` (B, classes), 0 or 1, and which boxes are ``trained`` (B) on a truth.
    """

    box: Tensor
    objectness: Tensor
    right: Tensor
    trained: Tensor


class YoloLoss(nn.Module):
    """The loss of the [yolo] heads of a cfg's sections, as AlexeyAB's program or Debian's ("pjreddie") has it.

    In Debian's the last truth of a box wins, and every box that overlaps a truth is left out of the objectness; in
    AlexeyAB's ("alexeyab", and hank-ai's, its offspring) the truths' deltas add up, and a box is left out only if it is
    also 25 % sure of a class. Its cls_normalizer counts with counters_per_class only, as in the program, but for every
    truth of a box, where the program's counts for the first only.

    Raises:
        InputError: an option that is not built, or that Debian's program does not know, naming its line.
    """

    def __init__(self, sections: Sequence[Section], program: str = "alexeyab") -> None:
        super().__init__()
        self.adds_up = program != "pjreddie"
        net = sections[0]
        size = integer(net, "width"), integer(net, "height")
        heads = [layer for layer in layers(sections) if layer.kind == "yolo"]
        if not heads:
            raise InputError(f"{net.where}: is followed by no [yolo], so there is no detector to train")
        for section in (net, *(layer.section for layer in heads)):
            require_built(section, program)
        self.heads: list[Head] = []
        for i, layer in enumerate(heads):
            pixels = size[0] / layer.shape[0], size[1] / layer.shape[1]
            self.heads.append(read_head(layer.section, pixels, 0.75 if self.adds_up else 1))
            num = integer(layer.section, "num", 1)
            mask = numbers(layer.section, "mask") or range(num)
            for name, values in (
                ("anchors", torch.tensor(numbers(layer.section, "anchors")[: 2 * num]).view(-1, 2)),
                ("mask", torch.tensor(mask, dtype=torch.long)),
                ("multipliers", class_multipliers(layer.section, self.heads[-1])),
            ):
                self.register_buffer(f"{name}{i}", values, persistent=False)

    def forward(self, heads: Sequence[Tensor], truths: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss that the program prints, per photo, and its statistics, each (heads,).

        ``heads`` are the heads' raw numbers (N, A * (5 + classes), rows, columns), of an input of any size that the
        same cells make up; ``truths`` (N, M, 5) class, x, y, width, height as fractions of the input, class -1 where
        there is none. Truths of another class, without an area or not finite are left out, as the programs' loaders do;
        ``max=`` is the loader's.

        Statistics: ``iou``, ``class``, ``obj`` (means over the boxes trained on a truth: IoU, probability of its class,
        objectness), ``no_obj`` (mean objectness of all boxes), ``recall50``, ``recall75`` (those of an IoU over 0.5 and
        0.75), ``count`` (of such boxes), ``class_loss``, ``iou_loss``, ``total_loss`` (squared deltas per photo: not of
        the boxes, of the boxes, all). Means over no box are 0. Nothing waits for the device.
        """
        printed, gradients, statistics = [], [], []
        for i, (head, raw) in enumerate(zip(self.heads, heads, strict=True)):
            buffers = [getattr(self, f"{name}{i}") for name in ("anchors", "mask", "multipliers")]
            with torch.no_grad(), torch.autocast(raw.device.type, enabled=False):
                wide = raw.to(torch.promote_types(raw.dtype, torch.float32))
                loss, delta, statistic = self._head_loss(head, wide, truths.to(wide), *buffers)
            printed.append(loss)
            gradients.append(-head.delta_normalizer * delta / len(raw))
            statistics.append(statistic)
        # as in the program the mean over the heads, though each head's deltas are its own
        loss = _Trained.apply(torch.stack(printed).mean(), gradients, *heads)
        return loss, {name: torch.stack([head[name] for head in statistics]) for name in statistics[0]}

    def _head_loss(
        self, head: Head, raw: Tensor, truths: Tensor, anchors: Tensor, mask: Tensor, multipliers: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the printed loss, the deltas in the shape of ``raw`` and the statistics."""
        n, _, rows, columns = raw.shape
        anchors = anchors.to(raw.dtype) / xy(raw, columns * head.pixels[0], rows * head.pixels[1])
        output = decode_head(head, raw, anchors[mask])
        labels, true, valid = split_truths(truths, head.classes)
        pairs = assign(true, valid, anchors, mask, rows, columns, head.iou_thresh)
        batch = _Batch(head, output, labels, true, pairs, multipliers)

        overlap, nearest = (part.flatten() for part in best_overlaps(output.boxes.view(n, -1, 4), true, valid))
        deltas = self._without_object(batch, overlap)
        if head.truth_thresh < 1:
            self._train_close(batch, deltas, overlap > head.truth_thresh, nearest)
        self._train_assigned(batch, deltas)
        to_class = _class_delta(batch, deltas)
        if head.iou_thresh < 1:
            deltas.box = deltas.box / (to_class > 0).sum(-1, keepdim=True).clamp(min=1)

        delta = torch.cat([deltas.box, deltas.objectness[:, None], to_class], -1).view(n, len(mask), rows, columns, -1)
        squares = deltas.box.square().sum(), deltas.objectness.square().sum() + to_class.square().sum()
        loss, statistics = _printed(batch, squares, n)
        return loss, delta.permute(0, 1, 4, 2, 3).reshape(raw.shape), statistics

    def _without_object(self, batch: _Batch, overlap: Tensor) -> _Deltas:
        """Return the deltas of a head before any truth, which a box has an ``overlap`` (B) with.

        The objectness falls, but where it overlaps enough; there it stays, or by objectness_smooth= becomes the IoU.
        """
        head, output = batch.head, batch.output
        near = overlap > head.ignore_thresh
        if self.adds_up:
            near = near & (output.probabilities > 0.25).any(-1)
        goal = overlap if head.objectness_smooth else output.objectness
        objectness = head.obj_normalizer * (torch.where(near, goal, 0) - output.objectness)
        # not zeros_like, which may keep the strides of a permuted tensor
        box, right = (like.new_zeros(like.shape) for like in (output.boxes, output.probabilities))
        return _Deltas(box, objectness, right, batch.pairs.by.flatten() >= 0)

    def _train_close(self, batch: _Batch, deltas: _Deltas, close: Tensor, nearest: Tensor) -> None:
        """Train the boxes that are ``close`` (B), by truth_thresh=, to their ``nearest`` (B) truth, on it."""
        head, output, n = batch.head, batch.output, len(batch.labels)
        photo = torch.arange(n, device=close.device).repeat_interleave(len(close) // n)
        labels, true = batch.labels[photo, nearest], batch.true[photo, nearest]
        delta = box_delta(head, output.all_boxes(), true, batch.multipliers[labels], output.grid)
        # Debian's overwrites these where a truth is assigned
        updated = close if self.adds_up else close & ~deltas.trained
        deltas.box = torch.where(updated[:, None], delta, 0)
        deltas.right.scatter_(1, labels[:, None], close[:, None].to(deltas.right.dtype))
        deltas.objectness = torch.where(close, head.obj_normalizer * (1 - output.objectness), deltas.objectness)
        deltas.trained = deltas.trained | close

    def _train_assigned(self, batch: _Batch, deltas: _Deltas) -> None:
        """Train the boxes that truths are assigned to."""
        head, output, pairs = batch.head, batch.output, batch.pairs
        place, last = pairs.box.flatten(), pairs.by.flatten()
        delta = box_delta(
            head, batch.pair_boxes, batch.true[:, :, None], batch.multipliers[batch.pair_labels], output.grid
        )
        updated = pairs.taken if self.adds_up else pairs.last
        deltas.box.index_add_(0, place, torch.where(updated[..., None], delta, 0).flatten(0, 2))
        # the classes of all truths of a box are right, whichever came first
        at = place * head.classes + batch.pair_labels.flatten()
        deltas.right.view(-1).scatter_reduce_(0, at, pairs.taken.flatten().to(deltas.right.dtype), "amax")
        multiplier = batch.multipliers[batch.labels.gather(1, pairs.by.clamp(min=0)).flatten()]
        rising = multiplier * head.obj_normalizer * (1 - output.objectness)
        rises = last >= 0
        if head.objectness_smooth:
            # as in the program, which leaves the box to what it overlaps
            rises = rises & (deltas.objectness == 0)
        deltas.objectness = torch.where(rises, rising, deltas.objectness)


def _class_delta(batch: _Batch, deltas: _Deltas) -> Tensor:
    """Return the deltas (B, classes) of the classes of the boxes that are trained on a truth."""
    head = batch.head
    target = deltas.right * (1 - head.label_smooth_eps) + head.label_smooth_eps / 2
    delta = torch.where(deltas.trained[:, None], target - batch.output.probabilities, 0)
    return delta * torch.where(deltas.right > 0, batch.multipliers * head.cls_normalizer, 1)


def classifier_loss(logits: Tensor, targets: Tensor, cost_scale: float | None = None) -> Tensor:
    """Return the loss that the programs print for a [softmax], per photo; its gradient is (p - y) / N.

    ``logits`` (N, classes); ``targets`` labels (N,) or probabilities (N, classes), of which, as printed, every class
    that is not 0 counts fully. A [cost] of type sse after it adds its ``cost_scale``, see `read_cost_scale`, times the
    same gradient, and the loss is the mean of both.
    """
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if targets.ndim == 1:
            targets = F.one_hot(targets, wide.shape[1])
        log_p = wide.log_softmax(1)
        error = log_p.exp() - targets.to(wide)
        loss = -torch.where(targets != 0, log_p, 0).sum() / len(wide)
        if cost_scale is not None:
            loss = (loss + error.square().sum() / len(wide)) / 2
        gradient = error * (1 + (cost_scale or 0)) / len(wide)
    return _Trained.apply(loss, [gradient], logits)


def read_cost_scale(sections: Sequence[Section]) -> float | None:
    """Return the scale of a classifier's [cost], None without one.

    Raises:
        InputError: it is of another type than sse.
    """
    costs = [section for section in sections if section.kind == "cost"]
    for section in costs:
        if (kind := section.options.get("type", "sse")) != "sse":
            raise InputError(f"{section.where}: type={kind} is not supported with darknet.engine=torch: set type=sse")
    return number(costs[0], "scale", 1) if costs else None


class _Trained(torch.autograd.Function):
    """A loss as it is, whose gradients by the tensors after it are given."""

    @staticmethod
    def forward(ctx, loss: Tensor, gradients: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        return loss.clone()

    @staticmethod
    def backward(ctx, above: Tensor) -> tuple:
        # in the wide type first: a gradient may be too small for a half before it is multiplied by a loss scale
        slopes = [(above * gradient).to(dtype) for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return None, None, *slopes


def _printed(batch: _Batch, squares: tuple[Tensor, Tensor], n: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss and statistics of ``n`` photos; ``squares`` are the squared deltas of boxes and of all else."""
    head, output, pairs = batch.head, batch.output, batch.pairs
    boxes, true = batch.pair_boxes.boxes, batch.true[:, :, None]
    count = pairs.taken.sum()

    def mean(values: Tensor) -> Tensor:
        return torch.where(pairs.taken, values, 0).sum() / count.clamp(min=1)

    overlap = iou(boxes, true).nan_to_num(0)
    total, class_loss = squares[0] + squares[1], head.obj_normalizer * squares[1]
    if head.iou_loss == "mse":
        loss = total
    else:
        # 1 - GIoU for giou, 1 - IoU for all the others
        printed = giou(boxes, true).nan_to_num(0) if head.iou_loss == "giou" else overlap
        loss = head.iou_normalizer * mean(1 - printed) + class_loss
    return loss / n, {
        "iou": mean(overlap),
        "class": mean(output.probabilities[pairs.box, batch.pair_labels]),
        "obj": mean(output.objectness[pairs.box]),
        "no_obj": output.objectness.mean(),
        "recall50": mean((overlap > 0.5).to(overlap.dtype)),
        "recall75": mean((overlap > 0.75).to(overlap.dtype)),
        "count": count,
        "class_loss": class_loss / n,
        "iou_loss": (total - class_loss) / n,
        "total_loss": total / n,
    }
