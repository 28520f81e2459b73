"""AffectNet of 2017: training.csv and validation.csv with boxes, photos under Manually_Annotated_Images."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from fer.data.boxes import Box, checked_box
from fer.data.photos import PhotoRow, in_blocks, relative_path
from fer.data.readers.affectnet_base import INFINITE, Release, affect, integer
from fer.data.readers.csv_lines import split_line
from fer.data.source import Block, Skipped
from fer.errors import InputError

#: The columns of training.csv and validation.csv.
COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks",
    "expression", "valence", "arousal",
)  # fmt: skip


def _box(cells: Sequence[str]) -> Box | str:
    """Return x, y, width, height from four csv cells, or why they are no box."""
    x, y, width, height = (integer(cell) for cell in cells)
    if x is None or y is None or width is None or height is None:
        return "box is NULL or not four whole numbers"
    return checked_box(x, y, width, height)


def _progress(stream: TextIO, before: int, total: int) -> float:
    """Return the fraction of ``total`` bytes that were read, ``before`` of them in other files."""
    return (before + stream.buffer.tell()) / total


class CsvRelease(Release):
    def __init__(self, *common: Any, csvs: dict[str, Path | None], images: Path):
        super().__init__(*common)
        self._images = str(images.absolute())
        self._csvs = [path for path in csvs.values() if path is not None]
        self._note_missing([name for name, path in csvs.items() if path is None])

    def _inputs(self) -> list[list[Any]]:
        statuses = [(path, path.stat()) for path in self._csvs]
        return [[self._images], *([str(path.absolute()), s.st_size, s.st_mtime_ns] for path, s in statuses)]

    def _blocks(self) -> Iterator[Block]:
        total = sum(path.stat().st_size for path in self._csvs)
        read = 0  # bytes of the csvs that are finished
        for path in self._csvs:
            # a byte that is no UTF-8 can only be in a path, which is then missing
            with open(path, encoding="utf-8-sig", errors="replace") as stream:
                yield from in_blocks(self._rows(stream, path), partial(_progress, stream, read, total))
            read += path.stat().st_size

    def _rows(self, stream: TextIO, csv_path: Path) -> Iterator[PhotoRow | Skipped]:
        training = csv_path.name == "training.csv"
        for number, line in enumerate(iter(stream.readline, ""), 1):
            where = f"{csv_path.name} line {number}"
            try:
                cells = split_line(line)
            except ValueError as error:
                yield Skipped(self.names[0], where, str(error))
                continue
            if not cells:
                continue
            if cells[0] == COLUMNS[0]:
                if tuple(cells) != COLUMNS:
                    raise InputError(f"{csv_path} line {number}: columns must be {', '.join(COLUMNS)}")
                continue
            row = self._row(cells, training)
            if isinstance(row, str):
                yield Skipped(self.names[0], f"{where}: {cells[0]}", row)
            elif row is not None:
                yield row

    def _row(self, cells: Sequence[str], training: bool) -> PhotoRow | str | None:
        """Return the row of a line, or why it is none, or None where its class is dropped."""
        if len(cells) != len(COLUMNS):
            return f"{len(cells)} columns instead of {len(COLUMNS)}"
        code = integer(cells[6])
        if code not in self._labels:
            return f"unknown expression code {cells[6][:40]!r}"
        if (label := self._labels[code]) is None:
            self._dropped[code] += 1
            return None
        if (path := relative_path(cells[0])) is None:
            return "path leaves the data folder"
        if isinstance(box := _box(cells[1:5]), str):
            return box
        valence, arousal = affect(cells[7]), affect(cells[8])
        if math.isinf(valence) or math.isinf(arousal):
            return INFINITE
        return PhotoRow(
            self.names[0], path, f"{self._images}/{path}", self.splits(training, path), label,
            box, valence, arousal, cells[5],
        )  # fmt: skip
