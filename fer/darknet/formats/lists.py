"""What an exported folder tells of its photos: a list a split, the program's ``.data``, photos.csv, and counts."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer.darknet.formats.photo_folder import DATA_FILE, LIST_ENDING, NAMES_FILE
from fer.data.source import SPLITS, Source
from fer.data.storage.hdf5 import counts_by_name
from fer.system.words import amount


@dataclass(slots=True)
class Entry:
    """A photo of the exported folder: where it lies in it, where it is from, its splits, classes of its faces.

    ``file`` is absolute where the photo is no part of the folder.
    """

    file: str
    source: str
    path: str
    splits: tuple[str, ...]
    labels: list[int]


def settle_splits(entries: list[Entry]) -> list[str]:
    """Let val stand for a test that has no photos, and return what is to be told of the splits."""
    notes = []
    splits = Counter(split for entry in entries for split in entry.splits)
    if splits["val"] and not splits["test"]:
        notes.append("no test photos: those of val are test too")
        for entry in entries:
            if "val" in entry.splits:
                entry.splits = (*entry.splits, "test")
    both = sum("train" in entry.splits and len(entry.splits) > 1 for entry in entries)
    if both:
        notes.append(
            amount(
                both, "photo is trained on and tested on, as its rows are of several splits",
                "photos are trained on and tested on, as their rows are of several splits",
            )
        )  # fmt: skip
    return notes


def write_lists(folder: Path, final: str, task: str, names: Sequence[str], entries: list[Entry]) -> dict[str, int]:
    """Write the lists, the names, and the program's ``.data``; returns how many photos each list holds."""
    paths = {split: [os.path.join(final, e.file) for e in entries if split in e.splits] for split in SPLITS}
    if paths["val"] == paths["test"]:
        paths["val"] = []
    paths = {split: listed for split, listed in paths.items() if listed}
    for split, listed in paths.items():
        if task == "classifier":
            _check_labels(listed, names)
        _write_lines(folder / (split + LIST_ENDING[task]), listed)
    _write_lines(folder / NAMES_FILE[task], names)
    valid = next((split for split in ("val", "test") if split in paths), None)
    values = {
        "classes": len(names),
        "train": "train" + LIST_ENDING[task] if "train" in paths else None,
        "valid": valid + LIST_ENDING[task] if valid else None,
        "labels" if task == "classifier" else "names": NAMES_FILE[task],
        "backup": "backup",
        "top": min(5, len(names)) if task == "classifier" else None,
    }
    _write_lines(folder / DATA_FILE[task], [f"{key:<6} = {value}" for key, value in values.items() if value])
    return {split: len(listed) for split, listed in paths.items()}


def _check_labels(paths: list[str], labels: Sequence[str]) -> None:
    for path in paths:
        matches = [label for label in labels if label in path]
        if len(matches) != 1:
            raise AssertionError(f"{path}: the program would find {len(matches)} labels in it: {', '.join(matches)}")


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(f"{line}\n" for line in lines)


def write_photos_csv(folder: Path, class_names: Sequence[str], entries: list[Entry]) -> None:
    """Write what ``read_photos`` reads."""
    with open(folder / "photos.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "source", "path", "split", "label"])
        for entry in entries:
            labels = "+".join(class_names[label] for label in entry.labels)
            writer.writerow([entry.file, entry.source, entry.path, "+".join(entry.splits), labels])


def count(entries: list[Entry], source: Source) -> dict[str, dict[str, list[int]]]:
    """Return faces (of whole photos for a classifier: photos) per split, source and class."""
    counts = np.zeros((len(SPLITS), len(source.names), len(source.class_names)), np.int64)
    for entry in entries:
        for split in entry.splits:
            for label in entry.labels:
                counts[SPLITS.index(split), source.names.index(entry.source), label] += 1
    return counts_by_name(counts, source.names)
