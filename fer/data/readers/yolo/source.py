"""The faces of a YOLO data set, for a classifier, and the photos for a detector's folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from fer.data.boxes import FractionBox
from fer.data.photos import PhotoRow
from fer.data.readers.class_labels import label_indices, name_classes
from fer.data.readers.photo_list import PhotoList
from fer.data.readers.yolo.dataset import YoloDataset, read_yolo
from fer.data.readers.yolo.labels import TAKEN
from fer.data.source import FaceFormat, NoFaces, PhotoLimits, Skipped
from fer.data.split import MAX_GROUP
from fer.labels import canonical


def yolo_source(
    raw: Path, face: FaceFormat, limits: PhotoLimits, classes: Sequence[str] | None = None, val_fraction: float = 0.1,
    test_fraction: float = 0.0, seed: int = 0, names: Sequence[str] | str | None = None, images: Path | None = None,
) -> PhotoList:  # fmt: skip
    """Return the Source of the data set that ``raw`` names (see `read_yolo`): a row a box.

    Classes are ours where all of its names are expressions, in any spelling; else its own, by the ids of its labels.
    ``classes`` chooses others, and boxes of none of them are left out.

    Raises:
        InputError: as `read_yolo`.
    """
    data = read_yolo(raw, names, images, val_fraction, test_fraction, seed)
    class_names = tuple(classes) if classes else shared_names(data.names)
    meant, notes = label_indices(data.names, class_names, f"class names of {raw}")
    indices = [meant[name] for name in data.names]
    pairs = [(name, class_names[i]) for name, i in zip(data.names, indices, strict=True) if i is not None]
    if other := [f"{name} -> {ours}" for name, ours in pairs if name != ours]:
        notes.append(f"classes by their names: {', '.join(other)}")
    return PhotoList(data.title, class_names, _rows(data, indices), face, limits, [*data.describe(), *notes])


def shared_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that names stand for: ours, all seven or eight, if all are expressions, else the names.

    >>> shared_names(["happiness", "anger"])[:4], shared_names(["mask", "happy"])
    (('Angry', 'Disgust', 'Fear', 'Happy'), ('mask', 'happy'))
    """
    return name_classes(names) if all(map(canonical, names)) else tuple(names)


def _rows(data: YoloDataset, indices: Sequence[int | None]) -> list[PhotoRow | Skipped]:
    source = data.title
    rows: list[PhotoRow | Skipped] = [
        Skipped(source, f"{data.relative(fault.file)}{f' line {fault.line}' if fault.line else ''}", fault.why)
        for fault in data.faults
        if fault.effect != TAKEN
    ]
    for photo, splits in data.photos().values():
        if photo.labels.lost:
            rows.append(NoFaces(source, photo.path, "photo with a label that is lost", photo.file))
        elif not len(photo.labels.boxes):
            rows.append(NoFaces(source, photo.path, "photo without faces", photo.file, splits))
        group = os.path.basename(photo.original)[:MAX_GROUP]
        for label, x, y, width, height in photo.labels.boxes.tolist():
            if (index := indices[int(label)]) is None:
                rows.append(Skipped(source, photo.path, f"{data.names[int(label)]} is none of data.classes"))
                continue
            box = FractionBox(x - width / 2, y - height / 2, width, height)
            rows.append(PhotoRow(source, photo.path, photo.file, splits, index, box, group=group))
    return rows
