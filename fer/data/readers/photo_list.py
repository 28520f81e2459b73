"""A Source made of a list of photos: what most readers need beside finding the photos and their labels."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fer.data.photos import PhotoRow, decode_photos, in_blocks
from fer.data.readers.class_labels import label_indices
from fer.data.readers.image_folder import CLUTTER, IMAGE_SUFFIXES
from fer.data.source import Block, FaceFormat, Faces, PhotoLimits, Skipped
from fer.data.split import KEPT_TOGETHER, stratified_split


class PhotoList:
    """The Source of ``rows``, photos of one data set called ``name``; the others are recorded with their reason.

    ``notes`` are sentences for the user.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        rows: Sequence[PhotoRow | Skipped],
        face: FaceFormat,
        limits: PhotoLimits,
        notes: Sequence[str] = (),
    ) -> None:
        self.names, self.class_names = (name,), tuple(class_names)
        self.notes = list(notes)
        self._rows, self._face, self._limits = rows, face, limits

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for row in self._rows:
            facts: Any = row
            if isinstance(row, PhotoRow):
                try:
                    status = os.stat(row.file)
                    facts = row, status.st_size, status.st_mtime_ns
                except (OSError, ValueError):
                    facts = row, None
            digest.update(repr(facts).encode(errors="replace"))
        return {
            "reader": "photo list 1", "names": list(self.names), "class_names": list(self.class_names),
            "rows": digest.hexdigest(), "face": asdict(self._face), "limits": asdict(self._limits),
        }  # fmt: skip

    def blocks(self) -> Iterator[Block]:
        read = 0

        def rows() -> Iterator[PhotoRow | Skipped]:
            nonlocal read
            for row in self._rows:
                read += 1
                yield row

        yield from in_blocks(rows(), lambda: read / len(self._rows))

    def decode(self, block: Block) -> Faces:
        return decode_photos(block.rows, self._face, self._limits, self.names)


def picture_files(root: Path) -> list[str]:
    """Return the paths of all files below a folder that are pictures by their names, relative to it, sorted.

    Hidden ones and links are left out.
    """
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name[0] != "." and name.lower() not in CLUTTER]
        for name in files:
            path = os.path.join(folder, name)
            if name[0] != "." and name.lower().endswith(IMAGE_SUFFIXES) and not os.path.islink(path):
                found.append(os.path.relpath(path, root).replace(os.sep, "/"))
    return sorted(found)


def labels_by_class(meant: dict[str, str], class_names: Sequence[str], where: str) -> dict[str, int | None]:
    """Return the class index of each of a data set's own labels, given what they mean; None where no class is meant."""
    indices, _ = label_indices(meant.values(), class_names, where)
    return {label: indices[name] for label, name in meant.items()}


def draw_splits(rows: Sequence[PhotoRow], val_fraction: float, test_fraction: float, seed: int) -> list[str]:
    """Give rows without splits theirs, the groups kept together (see `stratified_split`), and return notes on them."""
    groups = [row.group for row in rows]
    labels = [row.label for row in rows]
    splits = stratified_split([row.path for row in rows], labels, val_fraction, test_fraction, seed, groups)
    for row, split in zip(rows, splits, strict=True):
        row.splits = (split,)
    kinds = [
        f"{split} {len({row.group for row in rows if row.splits == (split,)}):,}" for split in ("train", "val", "test")
    ]
    if any(groups):
        return [f"{len(set(groups)):,} persons ({', '.join(kinds)}), drawn by seed {seed}; {KEPT_TOGETHER}"]
    return [f"each class is divided by val_fraction={val_fraction} and test_fraction={test_fraction}, by seed {seed}"]
