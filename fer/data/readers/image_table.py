"""Anyone's own photos listed in a csv: columns path, label, optional split, group and box."""

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fer.data.boxes import Box, checked_box
from fer.data.photos import PhotoRow, decode_photos, in_blocks, relative_path
from fer.data.readers.class_labels import label_indices, name_classes, whole_number
from fer.data.readers.csv_lines import split_line
from fer.data.source import SPLIT_NAMES, SPLITS, Block, FaceFormat, Faces, PhotoLimits, Skipped
from fer.data.split import KEPT_TOGETHER, MAX_GROUP, check_fractions, joined, stratified_split
from fer.errors import InputError

#: The columns of a box; the last are its edges, the others its corner and its size.
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_BOX_COLUMNS = (("face_x", "face_y", "face_width", "face_height"), ("x", "y", "width", "height"), _EDGES)

# A name of a number of a box, perhaps behind words such as face_ or bbox_, or a whole box in one cell.
_BOX_WORDS = r"(?:(?:face|bbox|bndbox|box|bounding|rect|roi|crop)[^a-z0-9]*)*"
_BOX_NUMBERS = (
    r"[xywh]|[xy][^a-z0-9]*(?:[012]|min|max|cent(?:er|re)|c)|(?:min|max|cent(?:er|re)|c)[^a-z0-9]*[xy]"
    r"|width|height|left|top|right|bottom"
)
_LIKE_A_BOX = re.compile(rf"{_BOX_WORDS}(?:{_BOX_NUMBERS}|bbox|bndbox|box|rect|roi)", re.ASCII)


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
    """Return the Source of a csv with columns path and label, and perhaps split, group (a person) and a box.

    Paths are relative to ``root``, by default the csv's folder. The box is face_x, face_y, face_width, face_height, or
    x, y, width, height, or xmin, ymin, xmax, ymax, in pixels; beside the first and the last, width and height are taken
    as the photo's and not read. Labels are names in any known spelling, or numbers for ``class_names``, counted from 0
    or from 1 (see ``label_indices``). Without a split column each class is divided by both fractions; with one that has
    no val rows, ``val_fraction`` of each class of train becomes val. All rows of one photo stay in one split, chosen
    with the class of its first row, and so do all photos of a group, "" being none.

    Raises:
        InputError: the csv is not there or no csv, columns are missing, columns look like a box that is not read,
            boxes are no pixels, numbers as labels lack class names or start elsewhere, or fractions are out of range.
    """
    check_fractions(val_fraction, test_fraction)
    return TableSource(
        Path(csv_path), face, limits, None if class_names is None else tuple(class_names), val_fraction, test_fraction,
        seed, None if root is None else Path(root),
    )  # fmt: skip


def _read(csv_path: Path) -> tuple[list[str], list[tuple[int, dict[str, str] | str]]]:
    """Return the names of the columns, and of each row its line and its cells by column, or why it has none."""
    if not csv_path.is_file():
        raise InputError(f"csv {csv_path} does not exist: give the csv that lists the photos")
    rows: list[tuple[int, dict[str, str] | str]] = []
    lines = io.StringIO(_text(csv_path), newline=None)
    try:
        columns = [" ".join(name.lower().split()) for name in split_line(next(lines, ""))]
    except ValueError as error:
        raise InputError(f"{csv_path}: its first line can't be read as names of columns: {error}; correct it") from None
    for number, line in enumerate(lines, 2):
        try:
            cells = split_line(line)
        except ValueError as error:
            rows.append((number, str(error)))
            continue
        # a comma at the end is harmless, and so are cells that lack there: they are empty
        if any(cells[len(columns) :]):
            rows.append((number, f"{len(cells)} columns, expected {len(columns)}"))
        elif cells:
            cells += [""] * (len(columns) - len(cells))
            rows.append((number, dict(zip(columns, cells, strict=False))))
    if not any(columns):
        raise InputError(f"{csv_path} can't be read as csv: its first line names no columns")
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise InputError(
            f"{csv_path}: several columns are called {', '.join(twice)[:300]}; rename those that are not meant"
        )
    return columns, rows


def _text(csv_path: Path) -> str:
    try:
        data = csv_path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(data[: error.start].splitlines() or [b""])
        raise InputError(
            f"{csv_path} can't be read as csv: line {line} is not UTF-8; save the file as text in UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{csv_path} can't be read: {error.strerror}; give a csv that you may read") from error


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
        columns, rows = _read(csv_path)
        self._root = (csv_path.parent if root is None else root).absolute()
        missing = [name for name in ("path", "label") if name not in columns]
        if missing:
            raise InputError(f"{csv_path} lacks the column {', '.join(missing)}; it has {', '.join(columns)[:300]}")
        self._box_columns = _box_columns(columns, csv_path)
        labels = {cells["label"] for _, cells in rows if not isinstance(cells, str)} - {""}
        if class_names is None:
            if labels and all(whole_number(label.lstrip("-")) is not None for label in labels):
                raise InputError(f"{csv_path} has integer labels: give their class names in order (data.classes)")
            class_names = name_classes(labels)
        self.class_names = class_names
        self._label_of, notes = label_indices(labels, class_names, f"labels of {csv_path.name}")
        self.notes += notes
        self._rows = [self._row(line, cells) for line, cells in rows]
        self._require_pixels()
        self._assign_splits("split" in columns)

    def _row(self, line: int, cells: Mapping[str, str] | str) -> PhotoRow | Skipped:
        """Return the row of a csv line, whose cells may be the reason why there are none."""
        where = f"{self._csv_path.name} line {line}"
        if isinstance(cells, str):
            return Skipped(self.names[0], where, cells)
        row = self._photo_row(cells)
        return Skipped(self.names[0], f"{where}: {cells['path']}", row) if isinstance(row, str) else row

    def _photo_row(self, cells: Mapping[str, str]) -> PhotoRow | str:
        """Return the row, its splits empty where there is no split column, or why it can't be taken."""
        path = relative_path(cells["path"])
        if path is None:
            return "path leaves the data folder" if cells["path"] else "no path"
        if not cells["label"]:
            return "no label"
        if (label := self._label_of[cells["label"]]) is None:
            return f"unknown label {cells['label'][:40]!r}"
        splits: tuple[str, ...] = ()
        if "split" in cells:
            if (split := SPLIT_NAMES.get(cells["split"].lower())) is None:
                return f"unknown split {cells['split'][:40]!r}"
            splits = (split,)
        box = self._box(cells) if self._box_columns else None
        if isinstance(box, str):
            return box
        group = cells.get("group", "")
        if len(group) > MAX_GROUP or "\0" in group:
            return f"group {group[:40]!r} is no name of at most {MAX_GROUP} characters"
        return PhotoRow(self.names[0], path, str(self._root / path), splits, label, box, group=group)

    def _box(self, cells: Mapping[str, str]) -> Box | str:
        try:
            x, y, width, height = (float(cells[name]) for name in self._box_columns)
        except ValueError:
            return "box is NULL or not four numbers"
        if self._box_columns == _EDGES:
            width, height = width - x, height - y
        return checked_box(x, y, width, height)

    def _require_pixels(self) -> None:
        boxes = [row.box for row in self._rows if isinstance(row, PhotoRow) and row.box is not None]
        if boxes and all(x + width <= 1 and y + height <= 1 for x, y, width, height in boxes):
            raise InputError(
                f"{self._csv_path}: no box reaches over 1, so {', '.join(self._box_columns)} look like fractions of "
                "the photo: multiply them by its width and height, boxes are in pixels"
            )

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
        group_of_photo: dict[str, str] = {}
        for row, group in zip(rows, joined([row.path for row in rows], [row.group for row in rows]), strict=True):
            label_of_photo.setdefault(row.path, row.label)
            group_of_photo[row.path] = group
        paths, groups = list(label_of_photo), list(group_of_photo.values())
        if any(groups):
            self.notes.append(KEPT_TOGETHER)
        splits = stratified_split(paths, label_of_photo.values(), val, test, self._seed, groups)
        split_of_photo = dict(zip(paths, splits, strict=True))
        for row in rows:
            row.splits = (split_of_photo[row.path],)

    def fingerprint(self) -> dict[str, Any]:
        status = self._csv_path.stat()
        return {
            "reader": "csv 3",
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


def _box_columns(columns: Sequence[str], csv_path: Path) -> tuple[str, ...]:
    """Return the names of the four columns of a box, or none where nothing looks like one.

    Raises:
        InputError: there are two boxes, a part of one, or one in another form.
    """
    whole = [names for names in _BOX_COLUMNS if set(names) <= set(columns)]
    read = whole[0] if len(whole) == 1 else ()
    size_of_photo = ("width", "height") if read else ()
    unread = [name for name in columns if _LIKE_A_BOX.fullmatch(name) and name not in (*read, *size_of_photo)]
    if unread:
        forms = "; or ".join(", ".join(names) for names in _BOX_COLUMNS)
        raise InputError(
            f"{csv_path}: {', '.join(unread)[:300]} looks like a box, but a box is one of {forms}, all four in pixels: "
            "rename or convert these columns, or take them out"
        )
    return read
