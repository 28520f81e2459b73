"""Anchors: the box sizes that a detector starts from, by k-means on the exported labels."""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from fer.darknet.formats.label_files import read_labels
from fer.data.boxes import iou
from fer.errors import InputError

_ATTEMPTS = 10


def read_box_sizes(label_files: Iterable[Path]) -> np.ndarray:
    """Return width and height of every box, as fractions of its photo: float32, boxes x 2.

    Raises:
        InputError: as `read_labels`.
    """
    boxes = [read_labels(path)[:, 3:] for path in label_files]
    return np.concatenate(boxes or [np.empty((0, 2))]).astype(np.float32)


def kmeans_anchors(
    label_files: Iterable[Path], size: int | tuple[int, int], n: int
) -> tuple[list[tuple[float, float]], float]:
    """Return ``n`` anchors by rising area, in pixels of a net's input, and their mean best IoU.

    ``size`` is the input's side or its width and height. The IoU is that of each box with the anchor that overlaps it
    most, both around one centre. k-means as in AlexeyAB's ``calc_anchors``: Euclidean on width and height; seeded, so
    the same labels give the same anchors.

    Raises:
        InputError: fewer different box sizes than anchors, or a wrong label file.
    """
    boxes = read_box_sizes(label_files) * np.array(size, np.float32)
    different = len(np.unique(boxes, axis=0))
    if different < n:
        raise InputError(
            f"darknet.anchors=kmeans: {different} different box sizes do not make {n} anchors; give a list"
        )
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 1000, 1e-4)
    # None for the labels to start from, which OpenCV takes and its stubs do not
    start = cast(np.ndarray, None)
    _, _, means = cv2.kmeans(np.ascontiguousarray(boxes), n, start, stop, _ATTEMPTS, cv2.KMEANS_PP_CENTERS)
    centres = np.asarray(means)
    centres = np.round(centres[np.argsort(centres.prod(axis=1))].astype(float), 1)
    # all at one corner, so that the IoU is that of the shapes
    overlap = iou(np.pad(boxes, ((0, 0), (2, 0)))[:, None], np.pad(centres, ((0, 0), (2, 0))))
    return [(width, height) for width, height in centres.tolist()], float(overlap.max(axis=1).mean())
