"""A [yolo]'s options as they bear on its training."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fer.darknet.formats.dialects import DIALECTS
from fer.darknet.formats.option_table import OPTIONS
from fer.darknet.formats.section import Section, integer, number, numbers
from fer.darknet.torch_engine.boxes import OVERLAPS
from fer.errors import InputError

#: Options that change the loss and are not built.
_NOT_BUILT: dict[str, tuple[str, ...]] = {
    "net": (
        "adversarial_lr", "contrastive", "equidistant_point", "badlabels_rejection_percentage",
        "num_sigmas_reject_badlabels",
    ),
    "yolo": ("focal_loss", "iou_thresh_kind", "embedding_layer", "map"),
}  # fmt: skip
#: What only AlexeyAB's program reads of a [yolo] to train it; Debian's would leave it out.
_NOT_DEBIANS = (
    "scale_x_y", "new_coords", "label_smooth_eps", "iou_loss", "iou_thresh", "max_delta", "counters_per_class",
    "iou_normalizer", "obj_normalizer", "cls_normalizer", "delta_normalizer", "objectness_smooth",
)  # fmt: skip


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
    objectness_smooth: bool
    iou_loss: str
    iou_normalizer: float
    obj_normalizer: float
    cls_normalizer: float
    delta_normalizer: float
    max_delta: float


def read_head(section: Section, pixels: tuple[float, float], iou_normalizer: float) -> Head:
    """Return a [yolo]'s options; ``iou_normalizer`` is the program's own where the section has none.

    Raises:
        InputError: an option that is wrong, with its line.
    """
    iou_loss = section.options.get("iou_loss", "mse")
    if iou_loss not in ("mse", *OVERLAPS):
        raise InputError(f"{section.where}: iou_loss={iou_loss} is not one of mse, {', '.join(OVERLAPS)}")
    if integer(section, "objectness_smooth", 0) and number(section, "truth_thresh", 1) < 1:
        raise InputError(
            f"{section.where}: objectness_smooth=1 and truth_thresh= under 1 are not built together: set truth_thresh=1"
        )
    counted = "counters_per_class" in section.options
    defaults = {"ignore_thresh": 0.5, "label_smooth_eps": 0, "iou_normalizer": iou_normalizer}
    defaults |= dict.fromkeys(("truth_thresh", "iou_thresh", "obj_normalizer", "delta_normalizer"), 1)
    return Head(
        classes=integer(section, "classes", 20),
        pixels=pixels,
        scale=number(section, "scale_x_y", 1),
        new_coords=bool(integer(section, "new_coords", 0)),
        objectness_smooth=bool(integer(section, "objectness_smooth", 0)),
        iou_loss=iou_loss,
        cls_normalizer=number(section, "cls_normalizer", 1) if counted else 1,
        max_delta=number(section, "max_delta", torch.finfo(torch.float32).max),
        **{key: number(section, key, default) for key, default in defaults.items()},
    )


def class_multipliers(section: Section, head: Head) -> Tensor:
    """Return how much more each class counts (classes,) than the commonest, by counters_per_class=.

    Raises:
        InputError: another number of counters than classes.
    """
    if "counters_per_class" not in section.options:
        return torch.ones(head.classes)
    counters = torch.tensor(numbers(section, "counters_per_class")).clamp(min=1)
    if len(counters) != head.classes:
        raise InputError(f"{section.where}: counters_per_class= has {len(counters)} numbers, not {head.classes}")
    return (counters.max() / counters).clamp(max=head.max_delta)


def require_built(section: Section, program: str) -> None:
    """Refuse options of [net] or of a [yolo] that change the loss and are not built, or that ``program`` leaves out.

    Raises:
        InputError: naming the option, its line and the remedy.
    """
    refused: tuple[str, ...] = _NOT_BUILT[section.kind]
    reason = "is not supported with darknet.engine=torch"
    if program == "pjreddie" and section.kind == "yolo":
        refused += _NOT_DEBIANS
        reason = f"is not supported like {DIALECTS[program].title}, which does not know it"
    for name in refused:
        value, option = section.options.get(name), OPTIONS[section.kind][name]
        if value is None or option.is_neutral(value):
            continue
        remedy = f"set {name}={option.neutral}" if option.neutral else "delete it"
        raise InputError(f"{section.where}: {name}={value} {reason}: {remedy}")
