"""Mean average precision of boxes by the rule of AlexeyAB's `detector map`; the files that boxes and truth stand in.

Boxes are x, y, width, height in pixels of the photo, x and y at the left and upper edge, x to the right, y down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer.darknet.formats.label_files import read_labels
from fer.data.boxes import iou
from fer.errors import InputError

#: Recalls at which a class's precision is kept for the picture: COCO's 101 points.
RECALLS = np.linspace(0, 1, 101)

#: Counts are of the detections with more confidence, and a detection is right over more IoU: `detector map`'s defaults.
THRESHOLD, IOU_THRESHOLD = 0.25, 0.5
#: Least confidence of a box that is scored: `detector map`'s.
MIN_CONFIDENCE = 0.005


@dataclass(frozen=True, slots=True)
class Truth:
    """Faces that are there: photo (N,) counted from 0, label (N,) class ids, box (N, 4)."""

    photo: np.ndarray
    label: np.ndarray
    box: np.ndarray


@dataclass(frozen=True, slots=True)
class Detections:
    """Faces that a net found: photo (N,), label (N,), box (N, 4) as in `Truth`, confidence (N,) in 0..1.

    Those of a photo and class stand in the order in which the program lists them.
    """

    photo: np.ndarray
    label: np.ndarray
    confidence: np.ndarray
    box: np.ndarray


def match(detections: Detections, truth: Truth, min_iou: float = IOU_THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
    """Return for each detection the truth (N,) it lies on, or -1, and their IoU (N,), or 0.

    That is the truth of its photo and class with the greatest IoU, which must be more than ``min_iou``. Another
    detection may lie on the same truth; a detection whose best truth is taken does not look for a second best.
    """
    matched, overlap = np.full(len(detections.photo), -1), np.zeros(len(detections.photo))
    order = np.argsort(truth.photo, kind="stable")
    photos, starts, counts = np.unique(truth.photo[order], return_index=True, return_counts=True)
    faces = {photo: order[start : start + n] for photo, start, n in zip(photos, starts, counts, strict=True)}
    for index, photo in enumerate(detections.photo):
        candidates = faces.get(photo, order[:0])
        candidates = candidates[truth.label[candidates] == detections.label[index]]
        if len(candidates):
            each = iou(detections.box[index], truth.box[candidates])
            if each.max() > min_iou:
                matched[index], overlap[index] = candidates[each.argmax()], each.max()
    return matched, overlap


def mean_average_precision(
    detections: Detections, truth: Truth, names: Sequence[str], threshold: float = THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
) -> dict[str, Any]:  # fmt: skip
    """Return mAP over all detections, and counts at a confidence over ``threshold``, as plain data.

    A detection lies on a truth as `match` says. By falling confidence, the first one on a truth is right and every
    other one wrong. A class's AP is the area under its precision over recall, precision at a recall being the greatest
    at that recall or a higher one (PASCAL VOC 2010-2012); as in AlexeyAB's program, the mean is over all classes and a
    class without truth has AP 0.

    The counts are those of AlexeyAB's program, which goes by another order: right is the first detection that is listed
    on a truth, if its confidence is over ``threshold``; one that is listed later is wrong, also where the earlier one
    is not over it. ``by_confidence`` has the counts by falling confidence, as in AP. In both the mean IoU is the sum
    over right detections divided by all detections over the threshold.

    Keys: map, iou_threshold, precision, recall, f1, iou (0..1; 0 where nothing was detected), tp, fp, fn, threshold,
    faces, by_confidence: precision, recall, f1, tp, fp, fn, iou; per_class: name, ap, tp, fp, truths, and curve, the
    precision at the 101 `RECALLS`.
    """
    on, overlap = match(detections, truth, iou_threshold)
    order = np.argsort(-detections.confidence, kind="stable")
    surest = np.zeros(len(on), bool)
    surest[order] = _first(on[order])
    listed, sure = _first(on), detections.confidence > threshold
    per_class = []
    for index, name in enumerate(names):
        in_class = detections.label == index
        truths = int((truth.label == index).sum())
        ap, curve = average_precision(surest[order][in_class[order]], truths)
        tp = int((listed & in_class & sure).sum())
        fp = int((in_class & sure).sum()) - tp
        per_class.append({"name": name, "ap": ap, "tp": tp, "fp": fp, "truths": truths, "curve": curve})

    def counted(right: np.ndarray) -> dict[str, Any]:
        tp, over = int((right & sure).sum()), int(sure.sum())
        mean_iou = float(overlap[right & sure].sum() / over) if over else 0.0
        return ratios(tp, over - tp, len(truth.label) - tp) | {"iou": mean_iou}

    return {
        "map": float(np.mean([entry["ap"] for entry in per_class])), "iou_threshold": iou_threshold,
        **counted(listed), "threshold": threshold, "faces": len(truth.label), "by_confidence": counted(surest),
        "per_class": per_class,
    }  # fmt: skip


def _first(on: np.ndarray) -> np.ndarray:
    """Return which detections are the first on their truth; ``on`` (N,) has it, or -1."""
    first = np.zeros(len(on), bool)
    hits, at = np.unique(on, return_index=True)
    first[at[hits >= 0]] = True
    return first


def ratios(tp: int, fp: int, fn: int) -> dict[str, Any]:
    """Return tp, fp, fn and precision, recall and F1 from them; a ratio of nothing is 0."""
    return {
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "recall": tp / (tp + fn) if tp + fn else 0.0,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
        "tp": tp,
        "fp": fp,
        "fn": fn,
    }


def average_precision(right: np.ndarray, truths: int) -> tuple[float, list[float]]:
    """Return AP and the precision at the 101 `RECALLS` of one class.

    ``right`` (N,) tells by falling confidence which detections are right, ``truths`` how many there were to find.

    >>> average_precision(np.array([True, False, True]), 2)[0]  # half the truths at precision 1, half at 2/3
    0.8333333333333333
    """
    if not truths or not right.any():
        return 0.0, [0.0] * len(RECALLS)
    tp = right.cumsum()
    precision = np.maximum.accumulate((tp / np.arange(1, len(tp) + 1))[::-1])[::-1]
    at = np.searchsorted(tp, np.ceil(RECALLS * truths - 1e-9))
    curve = np.append(precision, 0.0)[at]
    return float(precision[right].sum() / truths), curve.tolist()


def read_truth(photos: Sequence[Path], classes: int) -> tuple[Truth, list[tuple[int, int]]]:
    """Return the faces of photos from the ``.txt`` beside each (``class cx cy width height``, fractions) and the sizes.

    Sizes are (width, height) in pixels, as the header has them: the program does not turn a photo by its EXIF tag.

    Raises:
        InputError: a photo or its label file is missing or unreadable, or a line is not a label of one of the classes.
    """
    photo, label, boxes, sizes = [], [], [], []
    for number, path in enumerate(photos):
        width, height = photo_size(path)
        sizes.append((width, height))
        for name, centre_x, centre_y, box_width, box_height in read_labels(path.with_suffix(".txt"), classes).tolist():
            photo.append(number)
            label.append(int(name))
            boxes.append((centre_x - box_width / 2, centre_y - box_height / 2, box_width, box_height))
    at, edges = np.array(photo, int), np.array(sizes, float).reshape(-1, 2)
    box = np.array(boxes, float).reshape(-1, 4) * np.tile(edges[at], 2)
    return Truth(at, np.array(label, int), box), sizes


def photo_size(photo: Path) -> tuple[int, int]:
    """Return width and height of a photo in pixels, from its header.

    Raises:
        InputError: it is missing or no photo; the program would quietly use a random picture in its place.
    """
    try:
        with Image.open(photo) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{photo}: cannot be read as a photo; leave it out") from error
