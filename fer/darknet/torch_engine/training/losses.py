"""The programs' losses: what they print, and the deltas that they train on, which are not its gradient.

A program writes deltas straight on a head's numbers before their sigmoids, and ascends them; here they come back from
``backward`` with the opposite sign, divided by the photos of the batch. All is computed in float32 at least.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer.darknet.formats.cfg import layers
from fer.darknet.formats.dialects import DIALECTS
from fer.darknet.formats.option_table import OPTIONS
from fer.darknet.formats.section import Section, integer, number, numbers
from fer.darknet.torch_engine.boxes import OVERLAPS, giou, iou
from fer.darknet.torch_engine.training.targets import (
    Assignment,
    Head,
    Said,
    assign,
    best_overlaps,
    box_delta,
    clean,
    pair,
    predictions,
)
from fer.errors import InputError

#: Options that change the loss and are not built.
_NOT_BUILT = {
    "net": (
        "adversarial_lr", "contrastive", "equidistant_point", "badlabels_rejection_percentage",
        "num_sigmas_reject_badlabels",
    ),
    "yolo": ("focal_loss", "objectness_smooth", "iou_thresh_kind", "embedding_layer", "map"),
}  # fmt: skip
#: What only AlexeyAB's program reads of a [yolo] to train it; Debian's would leave it out.
_NOT_DEBIANS = (
    "scale_x_y", "new_coords", "label_smooth_eps", "iou_loss", "iou_thresh", "max_delta", "counters_per_class",
    "iou_normalizer", "obj_normalizer", "cls_normalizer", "delta_normalizer",
)  # fmt: skip


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
        made = [layer for layer in layers(sections) if layer.kind == "yolo"]
        if not made:
            raise InputError(f"{net.where}: is followed by no [yolo], so there is no detector to train")
        for section in (net, *(layer.section for layer in made)):
            _require_built(section, program)
        self.heads: list[Head] = []
        for i, layer in enumerate(made):
            pixels = tuple(length / cells for length, cells in zip(size, layer.shape[:2], strict=True))
            self.heads.append(_head(layer.section, pixels, 0.75 if self.adds_up else 1))
            mask = numbers(layer.section, "mask") or range(integer(layer.section, "num", 1))
            for name, values in (
                ("anchors", torch.tensor(numbers(layer.section, "anchors")).view(-1, 2)),
                ("mask", torch.tensor(mask, dtype=torch.long)),
                ("multipliers", _multipliers(layer.section, self.heads[-1])),
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
                loss, delta, found = self._of_head(head, wide, truths.to(wide), *buffers)
            printed.append(loss)
            gradients.append(-head.delta_normalizer * delta / len(raw))
            statistics.append(found)
        # as in the program the mean over the heads, though each head's deltas are its own
        loss = _Trained.apply(torch.stack(printed).mean(), gradients, *heads)
        return loss, {name: torch.stack([found[name] for found in statistics]) for name in statistics[0]}

    def _of_head(
        self, head: Head, raw: Tensor, truths: Tensor, anchors: Tensor, mask: Tensor, multipliers: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the printed loss, the deltas in the shape of ``raw`` and the statistics."""
        n, _, rows, columns = raw.shape
        anchors = anchors.to(raw.dtype) / pair(raw, columns * head.pixels[0], rows * head.pixels[1])
        said = predictions(head, raw, anchors[mask])
        label, true, valid = clean(truths, head.classes)
        pairs = assign(true, valid, anchors, mask, rows, columns, head.iou_thresh)
        place, by = pairs.box.flatten(), pairs.by.flatten()
        label_pair = label[:, :, None].expand_as(pairs.box)

        overlap, nearest = (found.flatten() for found in best_overlaps(said.boxes.view(n, -1, 4), true, valid))
        ignored = overlap > head.ignore_thresh
        if self.adds_up:
            ignored = ignored & (said.probabilities > 0.25).any(-1)
        to_object = -head.obj_normalizer * torch.where(ignored, 0, said.objectness)
        to_box, positive, trained = raw.new_zeros(len(by), 4), raw.new_zeros(len(by), head.classes), by >= 0
        if head.truth_thresh < 1:
            close = overlap > head.truth_thresh
            photo = torch.arange(n, device=raw.device).repeat_interleave(len(by) // n)
            near_label, near = label[photo, nearest], true[photo, nearest]
            cell = said.cell.expand(n, len(mask), -1, -1, -1).reshape(-1, 2)
            wide_anchors = said.anchors[:, None, None].expand(n, -1, rows, columns, -1).reshape(-1, 2)
            delta = box_delta(
                head, said.boxes, said.raw, said.unit, near, multipliers[near_label], cell, wide_anchors, said.grid
            )
            # Debian's overwrites these where a truth is assigned
            here = close if self.adds_up else close & ~trained
            to_box = torch.where(here[:, None], delta, 0)
            positive.scatter_(1, near_label[:, None], close[:, None].to(positive.dtype))
            to_object = torch.where(close, head.obj_normalizer * (1 - said.objectness), to_object)
            trained = trained | close

        of_pair = [part[place].view(*pairs.box.shape, 4) for part in (said.boxes, said.raw, said.unit)]
        delta = box_delta(
            head, *of_pair, true[:, :, None], multipliers[label_pair], pairs.cell, said.anchors, said.grid
        )
        kept = pairs.taken if self.adds_up else pairs.last
        to_box.index_add_(0, place, torch.where(kept[..., None], delta, 0).flatten(0, 2))
        # the classes of all truths of a box are right, whichever came first
        right = place * head.classes + label_pair.flatten()
        positive.view(-1).scatter_reduce_(0, right, pairs.taken.flatten().to(positive.dtype), "amax")
        of_last = multipliers[label.gather(1, pairs.by.clamp(min=0)).flatten()]
        to_object = torch.where(by >= 0, of_last * head.obj_normalizer * (1 - said.objectness), to_object)
        target = positive * (1 - head.label_smooth_eps) + head.label_smooth_eps / 2
        to_class = torch.where(trained[:, None], target - said.probabilities, 0)
        to_class = to_class * torch.where(positive > 0, multipliers * head.cls_normalizer, 1)
        if head.iou_thresh < 1:
            to_box = to_box / (to_class > 0).sum(-1, keepdim=True).clamp(min=1)

        delta = torch.cat([to_box, to_object[:, None], to_class], -1).view(n, len(mask), rows, columns, -1)
        squares = to_box.square().sum(), to_object.square().sum() + to_class.square().sum()
        loss, statistics = _printed(head, said, of_pair[0], true[:, :, None], label_pair, pairs, squares, n)
        return loss, delta.permute(0, 1, 4, 2, 3).reshape(raw.shape), statistics


def classifier_loss(logits: Tensor, targets: Tensor, cost_scale: float | None = None) -> Tensor:
    """Return the loss that the programs print for a [softmax], per photo; its gradient is (p - y) / N.

    ``logits`` (N, classes); ``targets`` labels (N,) or probabilities (N, classes), of which, as printed, every class
    that is not 0 counts fully. A [cost] of type sse after it adds its ``cost_scale``, see `cost_scale_of`, times the
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


def cost_scale_of(sections: Sequence[Section]) -> float | None:
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
        found = [(above * one).to(dtype) for one, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return None, None, *found


def _printed(
    head: Head, said: Said, boxes: Tensor, true: Tensor, label: Tensor, pairs: Assignment,
    squares: tuple[Tensor, Tensor], n: int,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Return the loss and the statistics, of the pairs' ``boxes`` (N, M, A, 4) and of all squared deltas."""
    count = pairs.taken.sum()

    def mean(values: Tensor) -> Tensor:
        return torch.where(pairs.taken, values, 0).sum() / count.clamp(min=1)

    found = iou(boxes, true).nan_to_num(0)
    total, class_loss = squares[0] + squares[1], head.obj_normalizer * squares[1]
    if head.iou_loss == "mse":
        loss = total
    else:
        # 1 - GIoU for giou, 1 - IoU for all the others
        overlap = giou(boxes, true).nan_to_num(0) if head.iou_loss == "giou" else found
        loss = head.iou_normalizer * mean(1 - overlap) + class_loss
    return loss / n, {
        "iou": mean(found),
        "class": mean(said.probabilities[pairs.box, label]),
        "obj": mean(said.objectness[pairs.box]),
        "no_obj": said.objectness.mean(),
        "recall50": mean((found > 0.5).to(found.dtype)),
        "recall75": mean((found > 0.75).to(found.dtype)),
        "count": count,
        "class_loss": class_loss / n,
        "iou_loss": (total - class_loss) / n,
        "total_loss": total / n,
    }


def _head(section: Section, pixels: tuple[float, float], iou_normalizer: float) -> Head:
    iou_loss = section.options.get("iou_loss", "mse")
    if iou_loss not in ("mse", *OVERLAPS):
        raise InputError(f"{section.where}: iou_loss={iou_loss} is not one of mse, {', '.join(OVERLAPS)}")
    counted = "counters_per_class" in section.options
    defaults = {"ignore_thresh": 0.5, "label_smooth_eps": 0, "iou_normalizer": iou_normalizer}
    defaults |= dict.fromkeys(("truth_thresh", "iou_thresh", "obj_normalizer", "delta_normalizer"), 1)
    return Head(
        classes=integer(section, "classes", 20),
        pixels=pixels,
        scale=number(section, "scale_x_y", 1),
        new_coords=bool(integer(section, "new_coords", 0)),
        iou_loss=iou_loss,
        cls_normalizer=number(section, "cls_normalizer", 1) if counted else 1,
        max_delta=number(section, "max_delta", torch.finfo(torch.float32).max),
        **{key: number(section, key, default) for key, default in defaults.items()},
    )


def _multipliers(section: Section, head: Head) -> Tensor:
    """Return how much more a class (classes,) counts than the commonest, by counters_per_class=."""
    if "counters_per_class" not in section.options:
        return torch.ones(head.classes)
    counters = torch.tensor(numbers(section, "counters_per_class")).clamp(min=1)
    if len(counters) != head.classes:
        raise InputError(f"{section.where}: counters_per_class= has {len(counters)} numbers, not {head.classes}")
    return (counters.max() / counters).clamp(max=head.max_delta)


def _require_built(section: Section, program: str) -> None:
    refused, reason = _NOT_BUILT[section.kind], "is not supported with darknet.engine=torch"
    if program == "pjreddie" and section.kind == "yolo":
        refused += _NOT_DEBIANS
        reason = f"is not supported like {DIALECTS[program].title}, which does not know it"
    for name in refused:
        value, option = section.options.get(name), OPTIONS[section.kind][name]
        if value is None or option.is_neutral(value):
            continue
        remedy = f"set {name}={option.neutral}" if option.neutral else "delete it"
        raise InputError(f"{section.where}: {name}={value} {reason}: {remedy}")
