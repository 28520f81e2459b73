"""The numbers of the program engine's scores without the program: the same pictures through the same net, in torch."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision
from tqdm import tqdm

from fer.darknet.formats.dialects import DIALECTS
from fer.darknet.formats.photo_folder import labels_from_paths, read_list
from fer.darknet.formats.weights import Net
from fer.darknet.runs.setup import detector_metrics
from fer.darknet.scoring.mean_ap import (
    IOU_THRESHOLD,
    MIN_CONFIDENCE,
    THRESHOLD,
    Detections,
    Truth,
    mean_average_precision,
    read_truth,
)
from fer.darknet.torch_engine.inference import (
    Detector,
    distance_power,
    letterboxes,
    listed,
    open_on,
    read_dialect,
    square_side,
    suppress_classes,
)
from fer.darknet.torch_engine.picture import centre, read_picture

#: Photos that go through a net together.
BATCH = 16


def classify(net: Net, photos: Sequence[Path], device: str = "auto") -> np.ndarray:
    """Return class probabilities (N, C) of whole photos, in their order; prepared as `picture.centre` does.

    Raises:
        InputError: a photo is missing or unreadable, a net that is not supported or not square, or no such device.
    """
    network, where = open_on(net, device)
    size = square_side(net)
    rows: list[np.ndarray] = []
    for batch in _batches(photos, lambda path: centre(read_picture(path), size)):
        with torch.inference_mode():
            rows.append(network(torch.from_numpy(np.stack(batch)).to(where).permute(0, 3, 1, 2)).cpu().numpy())
    return np.concatenate(rows).astype(float)


def detector_map(
    net: Net, names: Sequence[str], list_file: Path, device: str = "auto", threshold: float = THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
) -> dict[str, Any]:  # fmt: skip
    """Return mAP by AlexeyAB's rule and what goes with it, as the program engine's `detector_map` does.

    Boxes have a confidence over 0.005 and are suppressed class by class, as the cfg's nms_kind= says. Those of weights
    of Debian's program are cut to the photo, as its `detector valid` cuts them. ``coco`` is torchmetrics' mAP (map,
    map50, map75), of classes that are there; None without pycocotools.

    Raises:
        InputError: as `classify`, or labels that can't be read.
    """
    photos = read_list(list_file)
    truth, sizes = read_truth(photos, len(names))
    detector = Detector(net, device)
    parts: list[Detections] = []
    for batch in _batches(photos, lambda path: detector.prepare(read_picture(path))):
        for boxes in detector.detect(batch, MIN_CONFIDENCE):
            photo = len(parts)
            fractions = boxes.box / boxes.box.new_tensor(sizes[photo]).repeat(2)
            selected = suppress_classes(fractions, boxes.confidence, detector.power)
            row, label = listed(boxes.confidence, selected).T
            confidence = boxes.confidence[row, label].double().numpy()
            parts.append(Detections(np.full(len(label), photo), label, confidence, boxes.box[row].double().numpy()))
    detections = Detections(*(np.concatenate([getattr(part, key) for part in parts]) for key in Detections.__slots__))
    dialect = read_dialect(net.weights)
    if dialect == "pjreddie":
        detections = _cut(detections, sizes)
    scores = mean_average_precision(detections, truth, names, threshold, iou_threshold)
    fitting = "on grey" if letterboxes(net) else "stretched"
    by = f"computed from torch's boxes, photos {fitting} as in {DIALECTS[dialect].title}"
    return scores | {"photos": len(photos), "map_by": by, "coco": coco(detections, truth)}


def validate(net: Net, list_file: Path, device: str) -> dict[str, float]:
    """Return the metrics of a checkpoint on the photos that choose the best one, by their names in a run.

    Raises:
        InputError: as `classify` and `detector_map`.
    """
    if net.task == "detector":
        return detector_metrics(detector_map(net, net.names, list_file, device))
    photos = read_list(list_file)
    ranks = classify(net, photos, device).argsort(1)[:, ::-1]
    right = ranks == labels_from_paths(photos, net.names)[:, None]
    k = min(5, len(net.names))
    return {"val/top1": float(right[:, 0].mean()), f"val/top{k}": float(right[:, :k].any(1).mean())}


def coco(detections: Detections, truth: Truth) -> dict[str, float] | None:
    """Return torchmetrics' COCO mAP: ``map`` over IoU 0.50:0.95, ``map50``, ``map75``; None without pycocotools.

    Of the 100 surest boxes of a photo, and a mean over the classes that are there.
    """
    try:
        metric = MeanAveragePrecision(box_format="xywh", sync_on_compute=False)
    except ModuleNotFoundError:
        return None
    metric.warn_on_many_detections = False
    photos = np.arange(max([-1, *detections.photo, *truth.photo]) + 2)
    for detected, true in zip(_by_photo(detections, photos), _by_photo(truth, photos), strict=True):
        boxes = {
            "boxes": torch.from_numpy(detections.box[detected]),
            "labels": torch.from_numpy(detections.label[detected]),
        }
        faces = {"boxes": torch.from_numpy(truth.box[true]), "labels": torch.from_numpy(truth.label[true])}
        metric.update([boxes | {"scores": torch.from_numpy(detections.confidence[detected]).float()}], [faces])
    values = metric.compute()
    # -1 where there is nothing to find
    return {
        name: max(0.0, float(values[key])) for name, key in (("map", "map"), ("map50", "map_50"), ("map75", "map_75"))
    }


def require_scored(net: Net) -> None:
    """Refuse, before a training, a net that `classify` or `detector_map` would refuse after it.

    Raises:
        InputError: a classifier that is not square, or a detector's nms_kind= that is not built.
    """
    if net.task == "classifier":
        square_side(net)
    else:
        distance_power(net.sections)


def _by_photo(boxes: Detections | Truth, photos: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each photo but the last."""
    order = boxes.photo.argsort(kind="stable")
    starts = np.searchsorted(boxes.photo[order], photos)
    return [order[start:end] for start, end in zip(starts, starts[1:], strict=False)]


def _cut(detections: Detections, sizes: Sequence[tuple[int, int]]) -> Detections:
    edges = np.array(sizes, float).reshape(-1, 2)[detections.photo]
    low, high = detections.box[:, :2].clip(0, edges), (detections.box[:, :2] + detections.box[:, 2:]).clip(0, edges)
    return Detections(
        detections.photo, detections.label, detections.confidence, np.concatenate([low, high - low], axis=1)
    )


def _batches(photos: Sequence[Path], prepare: Any) -> Iterator[list[Any]]:
    """Yield prepared photos, read by threads, never more than two batches ahead of the net."""
    chunks: Iterable[Sequence[Path]] = [photos[at : at + BATCH] for at in range(0, len(photos), BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=len(photos), unit="photo", leave=False) as bar:
        waiting = None
        for chunk in chunks:
            ahead = [pool.submit(prepare, path) for path in chunk]
            if waiting:
                yield [future.result() for future in waiting]
                bar.update(len(waiting))
            waiting = ahead
        if waiting:
            yield [future.result() for future in waiting]
