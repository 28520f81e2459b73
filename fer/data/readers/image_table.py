"""Anyone's own photos listed in a csv: columns path, label, optional split and optional box."""

import math
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from fer.data.boxes import Box
from fer.data.photos import PhotoRow, decode_photos, in_blocks, relative_path
from fer.data.readers.image_folder import class_index, name_classes
from fer.data.source import SPLIT_NAMES, SPLITS, Block, FaceFormat, Faces, PhotoLimits, Skipped
from fer.data.split import check_fractions, stratified_split
from fer.errors import InputError

_BOX_COLUMNS = (("face_x", "face_y", "face_width", "face_height"), ("x", "y", "width", "height"))


def table_source(
    csv_path: str | os.PathLike[str],
    face: FaceFormat,
    limits: PhotoLimits,
    class_names: Sequence[str] | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
) -> "TableSource":
    """Return the Source of a csv with columns path and label, and perhaps split and a box.

    Paths are relative to ``root``, by default the csv's folder. The box is face_x, face_y, face_width, face_height or
    x, y, width, height, in pixels. Labels are names in any known spelling, or indices into ``class_names``. Without a
    split column each class is divided by both fractions; with one that has no val rows, ``val_fraction`` of each class
    of train becomes val. All rows of one photo stay in one split, chosen with the class of its first row.

    Raises:
        InputError: the csv is not there or no csv, columns are missing, integer labels lack class names, or fractions
            are out of range.
    """
    check_fractions(val_fraction, test_fraction)
    return TableSource(
        Path(csv_path), face, limits, None if class_names is None else tuple(class_names), val_fraction, test_fraction,
        seed, None if root is None else Path(root),
    )  # fmt: skip


def _read(csv_path: Path) -> pd.DataFrame:
    if not csv_path.is_file():
        raise InputError(f"csv {csv_path} does not exist: give the csv that lists the photos")
    try:
        # index_col=False: a trailing comma must not turn the first column into the index
        table = pd.read_csv(csv_path, dtype=str, keep_default_na=False, skipinitialspace=True, index_col=False)
    except (ValueError, OSError) as error:  # pandas' ParserError and EmptyDataError are ValueErrors
        raise InputError(f"{csv_path} can't be read as csv: {str(error).splitlines()[0]}") from error
    table.columns = [str(name).strip().lower() for name in table.columns]
    return table.fillna("").apply(lambda column: column.str.strip())


class TableSource:
    """The Source behind ``table_source``; rows are recorded under its name, as other tables have such paths too."""

    def __init__(
        self, csv_path: Path, face: FaceFormat, limits: PhotoLimits, class_names: tuple[str, ...] | None,
        val_fraction: float, test_fraction: float, seed: int, root: Path | None,
    ):  # fmt: skip
        self.names = (csv_path.stem,)
        self.notes: list[str] = []
        self._csv_path, self._face, self._limits = csv_path, face, limits
        self._fractions, self._seed = (val_fraction, test_fraction), seed
        table = _read(csv_path)
        self._root = (csv_path.parent if root is None else root).absolute()
        self._box_columns = next((names for names in _BOX_COLUMNS if set(names) & set(table.columns)), ())
        missing = [name for name in ("path", "label", *self._box_columns) if name not in table.columns]
        if missing:
            raise InputError(f"{csv_path} lacks the column {', '.join(missing)}; it has {', '.join(table.columns)}")
        labels = set(table["label"]) - {""}
        if class_names is None:
            if labels and all(label.lstrip("-").isdecimal() for label in labels):
                raise InputError(f"{csv_path} has integer labels: give their class names in order (data.classes)")
            class_names = name_classes(labels)
        self.class_names = class_names
        self._label_of = {label: class_index(label, class_names) for label in labels}
        self._rows = [self._row(index + 2, cells) for index, cells in enumerate(table.to_dict("records"))]
        self._assign_splits("split" in table.columns)

    def _row(self, line: int, cells: Mapping[Hashable, str]) -> PhotoRow | Skipped:
        """Return the row of a csv line."""
        row = self._photo_row(cells)
        if isinstance(row, str):
            return Skipped(self.names[0], f"{self._csv_path.name} line {line}: {cells['path']}", row)
        return row

    def _photo_row(self, cells: Mapping[Hashable, str]) -> PhotoRow | str:
        """Return the row, its splits empty where there is no split column, or why it can't be taken."""
        path = relative_path(cells["path"])
        if path is None:
            return "path leaves the data folder" if cells["path"] else "no path"
        if not cells["label"]:
            return "no label"
        if (label := self._label_of[cells["label"]]) is None:
            return f"unknown label {cells['label']!r}"
        splits: tuple[str, ...] = ()
        if "split" in cells:
            if (split := SPLIT_NAMES.get(cells["split"].lower())) is None:
                return f"unknown split {cells['split']!r}"
            splits = (split,)
        box = _box([cells[name] for name in self._box_columns]) if self._box_columns else None
        if isinstance(box, str):
            return box
        return PhotoRow(self.names[0], path, str(self._root / path), splits, label, box)

    def _assign_splits(self, has_column: bool) -> None:
        """Give every row its splits and tell how in the notes."""
        val, test = self._fractions
        rows = [row for row in self._rows if isinstance(row, PhotoRow)]
        if has_column:
            present = {row.splits[0] for row in rows}
            carve = "val" not in present and "train" in present and val > 0
            if carve:
                self.notes.append(f"no val rows: {val:.0%} of each class of train is val, drawn by seed {self._seed}")
            self.notes += [
                f"no {split} rows" for split in SPLITS if split not in present and not (split == "val" and carve)
            ]
            if not carve:
                return
            rows, test = [row for row in rows if row.splits == ("train",)], 0.0
        else:
            self.notes.append(
                f"no split column: each class is divided into {1 - val - test:.0%} train, {val:.0%} val and {test:.0%}"
                f" test by seed {self._seed}"
            )
        label_of_photo: dict[str, int] = {}
        for row in rows:
            label_of_photo.setdefault(row.path, row.label)
        paths = list(label_of_photo)
        split_of_photo = dict(
            zip(paths, stratified_split(paths, label_of_photo.values(), val, test, self._seed), strict=True)
        )
        for row in rows:
            row.splits = (split_of_photo[row.path],)

    def fingerprint(self) -> dict[str, Any]:
        status = self._csv_path.stat()
        return {
            "reader": "csv 1",
            "csv": [str(self._csv_path.absolute()), status.st_size, status.st_mtime_ns],
            "root": str(self._root),
            "face": asdict(self._face),
            "limits": asdict(self._limits),
            "class_names": list(self.class_names),
            "fractions": list(self._fractions),
            "seed": self._seed,
        }

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


def _box(cells: Sequence[str]) -> Box | str:
    """Return x, y, width, height from four csv cells, or why they are no box."""
    try:
        x, y, width, height = (float(cell) for cell in cells)
    except ValueError:
        return "box is NULL or not four numbers"
    if not all(map(math.isfinite, (x, y, width, height))):
        return "box is NULL or not four numbers"
    return (x, y, width, height) if width > 0 and height > 0 else "empty box"
