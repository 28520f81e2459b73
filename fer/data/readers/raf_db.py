"""RAF-DB's basic expressions, aligned faces: the official release, or Kaggle's folders of class numbers."""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from fer.data.photos import PhotoRow
from fer.data.readers.image_folder import IMAGE_SUFFIXES
from fer.data.readers.photo_list import PhotoList, labels_by_class
from fer.data.source import FaceFormat, PhotoLimits, Skipped
from fer.data.split import check_fractions, stratified_split
from fer.errors import InputError
from fer.labels import CLASSES

#: What the numbers of both layouts mean, as the release's readme says.
MEANT = {
    "1": "Surprise", "2": "Fear", "3": "Disgust", "4": "Happy", "5": "Sad", "6": "Angry", "7": "Neutral",
}  # fmt: skip
#: The official list of labels; its name is misspelt in the release.
LIST = "list_patition_label.txt"

_NAME = re.compile(r"(train|test)_\d+(_aligned)?\.jpg", re.IGNORECASE)

#: split, path below the root, label as it is written; or where it stands and why it is no row.
_Entry = tuple[str, str, str] | tuple[str, str]


def raf_db_source(
    raw: Path, face: FaceFormat, limits: PhotoLimits, val_fraction: float, seed: int,
    classes: Sequence[str] | None = None,
) -> PhotoList:  # fmt: skip
    """Return the Source of RAF-DB, whose splits are train and test; ``val_fraction`` of each class of train is val.

    Official: list_patition_label.txt, in ``raw`` or in EmoLabel, and Image/aligned/NAME_aligned.jpg. Kaggle: train and
    test with the class numbers 1..7 as folders, and perhaps train_labels.csv and test_labels.csv (columns image,
    label), which then say what the pictures are. Either may lie in a folder basic or DATASET. The whole picture is the
    face. Persons are not known.

    Raises:
        InputError: neither layout, or a list that cannot be read.
    """
    check_fractions(val_fraction)
    class_names = tuple(classes or CLASSES)
    labels = labels_by_class(MEANT, class_names, "labels of RAF-DB")
    root, entries = _entries(raw)
    rows: list[PhotoRow | Skipped] = []
    for entry in entries:
        if len(entry) == 2:
            rows.append(Skipped("raf_db", *entry))
            continue
        split, path, label = entry
        index = labels.get(label)
        if index is None:
            rows.append(Skipped("raf_db", path, f"unknown label {label[:40]!r}" if label not in MEANT else "left out"))
        else:
            rows.append(PhotoRow("raf_db", path, str(root / path), (split,), index))
    notes = []
    if val_fraction:
        train = [row for row in rows if isinstance(row, PhotoRow) and row.splits == ("train",)]
        drawn = stratified_split([row.path for row in train], [row.label for row in train], val_fraction, 0.0, seed)
        for row, split in zip(train, drawn, strict=True):
            row.splits = (split,)
        notes = [f"RAF-DB has no val rows: {val_fraction:.0%} of each class of train is val, drawn by seed {seed}"]
    return PhotoList("raf_db", class_names, rows, face, limits, notes)


def _entries(raw: Path) -> tuple[Path, list[_Entry]]:
    """Return the folder that paths are relative to, and what its layout lists."""
    roots = [folder for name in ("", "basic", "DATASET") if (folder := raw.absolute() / name).is_dir()]
    for root in roots:
        for file in (root / LIST, root / "EmoLabel" / LIST):
            if file.is_file():
                return root, _official(file)
    for root in roots:
        if (root / "train").is_dir():
            return root, [entry for split in ("train", "test") for entry in _kaggle(root, split, raw.absolute())]
    raise InputError(
        f"data.raw={raw}: neither RAF-DB's {LIST} (also in EmoLabel or basic/EmoLabel) nor folders train and test "
        "with the classes 1..7: give the folder of the release"
    )


def _official(file: Path) -> list[_Entry]:
    entries: list[_Entry] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 2 or not (name := _NAME.fullmatch(cells[0])):
            entries.append((f"{file.name} line {number}", "not NAME.jpg and a label"))
            continue
        stem = cells[0].rpartition(".")[0].removesuffix("_aligned")
        entries.append((name[1].lower(), f"Image/aligned/{stem}_aligned.jpg", cells[1]))
    return entries


def _kaggle(root: Path, split: str, raw: Path) -> list[_Entry]:
    """Return the pictures of a split: those that its csv lists, or else those in its folders of class numbers."""
    table = next((file for folder in (raw, root) if (file := folder / f"{split}_labels.csv").is_file()), None)
    if table is None:
        return [
            (split, f"{split}/{folder}/{name}", folder)
            for folder in _listed(root / split, folders=True) for name in _listed(root / split / folder)
        ]  # fmt: skip
    try:
        rows = list(csv.reader(_text(table).splitlines()))
    except csv.Error as error:
        raise InputError(f"{table} can't be read as csv: {error}") from error
    columns = [name.strip().lower() for name in rows[0]] if rows else []
    if not {"image", "label"} <= set(columns):
        raise InputError(f"{table}: its first line names no columns image and label; it has {', '.join(columns)[:200]}")
    entries: list[_Entry] = []
    for number, cells in enumerate(rows[1:], 2):
        row = dict(zip(columns, map(str.strip, cells), strict=False))
        if not _NAME.fullmatch(row.get("image", "")) or not row.get("label"):
            entries.append((f"{table.name} line {number}", "no image train_N.jpg or test_N.jpg, or no label"))
            continue
        inside = f"{split}/{row['label']}/{row['image']}"
        # some copies have the pictures in no folders of classes
        entries.append((split, inside if (root / inside).is_file() else f"{split}/{row['image']}", row["label"]))
    return entries


def _listed(folder: Path, folders: bool = False) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        kinds = [e.name for e in entries if (e.is_dir() if folders else e.name.lower().endswith(IMAGE_SUFFIXES))]
    return sorted(name for name in kinds if name[0] != ".")


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: can't be read as text ({type(error).__name__})") from error
