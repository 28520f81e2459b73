"""The keys of evaluate.py by which the boxes of a detector are counted."""

from typing import Any

from fer.darknet.scoring.mean_ap import IOU_THRESHOLD, MIN_CONFIDENCE, THRESHOLD
from fer.errors import InputError


def check_thresholds(keys: dict[str, Any]) -> dict[str, float]:
    """Return ``keys["thresh"]`` and ``keys["iou_thresh"]`` as `mean_average_precision` takes them.

    Raises:
        InputError: one is out of range.
    """
    threshold, iou_threshold = keys.get("thresh", THRESHOLD), keys.get("iou_thresh", IOU_THRESHOLD)
    # no box of less confidence is there to be counted
    if not MIN_CONFIDENCE <= threshold < 1:
        raise InputError(f"thresh={threshold}: not a confidence from {MIN_CONFIDENCE} to below 1")
    if not 0 < iou_threshold < 1:
        raise InputError(f"iou_thresh={iou_threshold}: not an overlap between 0 and 1, such as 0.5 or 0.75")
    return {"threshold": threshold, "iou_threshold": iou_threshold}


def refuse_thresholds(keys: dict[str, Any]) -> None:
    """Refuse the keys of `check_thresholds` beside a checkpoint that is no detector.

    Raises:
        InputError: one of them is not as it is by default.
    """
    for key, default in (("thresh", THRESHOLD), ("iou_thresh", IOU_THRESHOLD)):
        if keys.get(key, default) != default:
            raise InputError(f"{key}={keys[key]}: for detectors, which {keys['ckpt']} is not: leave it out")
