"""FER2013 in all its forms: csv files of pixel strings, their archives, the original data.h5, image folders.

The csv files are ``fer2013.csv`` (emotion,pixels,Usage), Kaggle's ``icml_face_data.csv`` (emotion, Usage, pixels with
blanks in the header line) and ``train.csv`` (no Usage), and the original experiment's ``fer2021.csv`` and
``affectnet.csv``, which were joined by ``cat`` and have header lines in the middle. What programs make of these files
is read too: ; or tabs between the columns, no header line, UTF-16, pixels as decimals, classes as words.
"""

import math
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer.data.readers.archives import ARCHIVES, LINE_BYTES, open_csv
from fer.data.readers.class_labels import whole_number
from fer.data.readers.csv_lines import delimiter_of, split_line
from fer.data.readers.image_folder import folder_source
from fer.data.readers.original_h5 import is_original_h5, original_h5_source
from fer.data.readers.pixel_strings import fit_all, parse_pixels
from fer.data.source import (
    BLOCK_ROWS,
    SPLIT_NAMES,
    SPLITS,
    Block,
    FaceFormat,
    Faces,
    PhotoLimits,
    Skipped,
    Source,
    empty_faces,
)
from fer.errors import InputError
from fer.labels import CLASSES, canonical

#: What FER2013's csv calls our splits.
USAGES = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}

_FER2013_STEMS = ("fer2013", "icml_face_data")
#: A line that is longer isn't a header line in the middle of the rows.
_HEADER_BYTES = 200
#: So many of the first good rows say how large the faces are.
_SIZE_ROWS = 100


def pixel_csv_source(
    path: Path,
    face: FaceFormat,
    class_names: Sequence[str] = CLASSES,
    name: str | None = None,
) -> Source:
    """Return the reader of a csv of pixel strings, plain or as .gz, .xz or .zip.

    ``name`` is the source that rows are recorded under ("fer2013" for fer2013.csv and icml_face_data.csv, else the
    file's stem). The ``path`` of a row is its number in the file, from 0, header lines and blank lines not counted. The
    faces are square; most of the first good rows say how large they are.

    Raises:
        InputError: the file can't be read, is no such csv, has no labels, not one good row, or faces of two sizes of
            which none is in the majority.
    """
    return _PixelCsv(Path(path), face, tuple(class_names), name)


def fer2013_source(
    raw: Path, face: FaceFormat, limits: PhotoLimits, class_names: Sequence[str] = CLASSES, seed: int = 0
) -> Source:
    """Return the reader of FER2013 wherever it is: a csv, an archive of one, the original data.h5, or a folder.

    A folder holds one of the csvs, or the copy in image files (train/<class>/, test/<class>/); ``limits`` and ``seed``
    are for the image files only.

    Raises:
        InputError: nothing of the kind is there, or it can't be read.
    """
    raw = Path(raw)
    if raw.is_file():
        source = original_h5_source if is_original_h5(raw) else pixel_csv_source
        return source(raw, face, class_names)
    stems = (*_FER2013_STEMS, "train")
    files = [f"{stem}.csv{archive}" for stem in stems for archive in ("", *ARCHIVES)]
    # The tar file that Kaggle's archive holds comes last: it is only looked for to tell how it is unpacked.
    for file in (*files, "fer2013.tar.gz"):
        if (raw / file).is_file():
            return pixel_csv_source(raw / file, face, class_names, name="fer2013")
    if (raw / "train").is_dir() and (raw / "test").is_dir():
        return _folder_copy(raw, face, limits, class_names, seed)
    raise InputError(
        f"{raw}: no FER2013 here; looked for fer2013.csv, icml_face_data.csv or train.csv (also .gz, .xz, .zip) and "
        "for the folders train/<class> and test/<class>; give one of these files or the folder that holds it"
    )


def _folder_copy(root: Path, face: FaceFormat, limits: PhotoLimits, class_names: Sequence[str], seed: int) -> Source:
    source = folder_source(
        root,
        face,
        limits,
        class_names=class_names,
        val_fraction=0.1,
        test_fraction=0.0,
        seed=seed,
        source_name="fer2013-folder",
    )
    source.notes.append(
        f"{root}: PublicTest and PrivateTest can't be told apart in the image-folder copy of FER2013: test holds both "
        "(7,178 rows in the full set), so its numbers compare with no published PrivateTest number"
    )
    return source


def listed_rows(source: Source) -> Iterator[tuple[str | None, int | None]]:
    """Yield the split and the label of each row of a csv source, in the order of the file, None for what is unreadable.

    Raises:
        InputError: it isn't a csv with a Usage column, so it isn't known to be in FER2013's own order.
    """
    if not isinstance(source, _PixelCsv):
        raise InputError(
            "data.votes needs data.raw to be FER2013's csv with its Usage column: in other layouts the rows' own order "
            "is not known"
        )
    return source.listed_rows()


class _Layout(NamedTuple):
    """Where a line has emotion, pixels and, if at all, Usage; how many columns it has, and what stands between them."""

    columns: list[int]
    width: int
    delimiter: bytes


class _PixelCsv:
    """Rows of a block are (row number, label, split, pixel string), or a Skipped for a row that isn't decoded."""

    def __init__(self, path: Path, face: FaceFormat, class_names: tuple[str, ...], name: str | None) -> None:
        self.class_names = class_names
        self.notes: list[str] = []
        self._path, self._face = path, face
        self._labels = {str(label).encode(): label for label in range(len(class_names))}
        self._usages = {usage.encode(): SPLITS.index(split) for usage, split in SPLIT_NAMES.items()}
        self._headerless = False
        with open_csv(path) as (lines, _, stem):
            self.names = (name or ("fer2013" if stem in _FER2013_STEMS else stem),)
            self._side = self._usual_side(lines)

    def fingerprint(self) -> dict[str, Any]:
        """Return the file's place, size and time, and all that decides about its faces."""
        stat = self._path.stat()
        return {
            "reader": "pixel csv 3",
            "file": str(self._path.resolve()),
            "bytes": stat.st_size,
            "modified_ns": stat.st_mtime_ns,
            "name": self.names[0],
            "class_names": list(self.class_names),
            "size": self._face.size,
            "color": self._face.color,
        }

    def blocks(self) -> Iterator[Block]:
        """Yield the rows in the order of the file.

        Raises:
            InputError: the file turns out to be damaged, a header line in the middle names no emotion or pixels, or the
                labels turn out to be counted from 1.
        """
        found: set[int] = set()
        labels: set[int] = set()
        all_train = False
        rows: list[Any] = []
        total = max(1, self._path.stat().st_size)
        with open_csv(self._path) as (lines, position, _):
            for number, fields in self._fields(lines):
                if len(rows) == BLOCK_ROWS:
                    yield Block(rows, min(1.0, position() / total))
                    rows = []
                row = self._row(number, fields)
                rows.append(row)
                if not isinstance(row, Skipped):
                    found.add(row[2])
                    labels.add(row[1])
                    all_train |= len(fields) == 2
                elif not isinstance(fields, str) and whole_number(_text(fields[0])) == len(self.class_names):
                    labels.add(len(self.class_names))
        if (n := len(self.class_names)) in labels and 0 not in labels:
            raise InputError(
                f"{self._path}: its emotions are numbers up to {n} and none is 0, but FER2013's are 0..{n - 1} for "
                f"{', '.join(self.class_names)}: write these words in their place"
            )
        if rows:
            yield Block(rows, 1.0)
        self.notes[:] = self._notes(found, all_train)

    def listed_rows(self) -> Iterator[tuple[str | None, int | None]]:
        """Yield what `listed_rows` says; no pixels are parsed."""
        with open_csv(self._path) as (lines, _, _):
            for _, fields in self._fields(lines):
                if isinstance(fields, str):
                    yield None, None
                elif len(fields) == 2:
                    raise InputError(f"{self._path}: it has no Usage column, by which data.votes are aligned with rows")
                else:
                    yield SPLIT_NAMES.get(_text(fields[2]).lower()), self._label(fields[0])

    def decode(self, block: Block) -> Faces:
        """Parse the pixel strings of a block, and fit the faces to the wanted format where theirs is another."""
        skipped = [row for row in block.rows if isinstance(row, Skipped)]
        rows = [row for row in block.rows if not isinstance(row, Skipped)]
        pixels, bad = parse_pixels([row[3] for row in rows], self._side * self._side)
        if bad:
            skipped += [self._skip(rows[index][0], reason) for index, reason in bad]
            keep = np.ones(len(rows), bool)
            keep[[index for index, _ in bad]] = False
            pixels = pixels[keep]
            rows = [row for row, good in zip(rows, keep, strict=True) if good]
        faces = empty_faces(len(rows), self._face)
        faces.image = fit_all(pixels.reshape(-1, self._side, self._side), self._face)
        faces.label[:] = [row[1] for row in rows]
        faces.split[:] = [row[2] for row in rows]
        faces.path = [str(row[0]) for row in rows]
        faces.skipped = skipped
        return faces

    def _fields(self, lines: Iterator[bytes]) -> Iterator[tuple[int, list[bytes] | str]]:
        """Yield each row's number and [emotion, pixels, Usage], [emotion, pixels] without Usage, or what is wrong."""
        header = next(lines, None)
        if header is None:
            raise InputError(f"{self._path}: the file is empty; a csv with the columns emotion,pixels,Usage is needed")
        header = header.removeprefix(BOM_UTF8)
        layout = self._layout_of_row(header)
        self._headerless = layout is not None
        if layout is None:
            columns, width, delimiter = self._layout(header)
        else:
            columns, width, delimiter = layout
            lines = chain([header], lines)
        number = 0
        for line in lines:
            if not line or line.isspace():
                continue
            if len(line) <= _HEADER_BYTES and b"pixels" in line.lower() and b"pixels" in _names(line):
                columns, width, delimiter = self._layout(line)
                continue
            fields = _split(line, delimiter)
            if len(fields) == width:
                if len(columns) == 2 and width > 2:
                    self._require_no_usage(fields, number)
                yield number, [fields[column] for column in columns]
            else:
                yield number, f"{len(fields)} columns, expected {width}"
            number += 1

    def _layout(self, header: bytes) -> _Layout:
        """Return the layout that a header line names."""
        names = _names(header)
        if b"pixels" not in names:
            shown = ascii(header[:60].decode("latin-1").strip())
            raise InputError(
                f"{self._path}: the first line must name the columns emotion,pixels,Usage; it begins {shown}"
            )
        if b"emotion" not in names:
            raise InputError(
                f"{self._path}: it has pixels but no emotion column, so it has no labels (Kaggle's test.csv is like "
                "that); use fer2013.csv, icml_face_data.csv or train.csv"
            )
        wanted = [name for name in (b"emotion", b"pixels", b"usage") if name in names]
        if twice := [name.decode() for name in wanted if names.count(name) > 1]:
            raise InputError(
                f"{self._path}: several columns are called {' and '.join(twice)}; rename those that are not meant"
            )
        return _Layout([names.index(name) for name in wanted], len(names), _delimiter(header))

    def _require_no_usage(self, fields: list[bytes], number: int) -> None:
        """Refuse a row that says its split in a column that no header line calls Usage: all rows would be train."""
        for place, field in enumerate(fields, 1):
            if field.strip(b' "\r\n').lower() in self._usages:
                raise InputError(
                    f"{self._path}: row {number} has {_shown(field)} in column {place}, but the header line calls no "
                    "column Usage: give this column that name, or take it out to make all rows train"
                )

    def _layout_of_row(self, line: bytes) -> _Layout | None:
        """Return the layout of a row where each of its columns can be but one; None for any other line."""
        delimiter = _delimiter(line)
        fields = _split(line, delimiter)
        kinds = [self._kind(field) for field in fields] if len(fields) in (2, 3) else []
        if not kinds or sorted(kinds) != ["emotion", "pixels", "usage"][: len(kinds)]:
            return None
        return _Layout([kinds.index(kind) for kind in sorted(kinds)], len(fields), delimiter)

    def _kind(self, field: bytes) -> str:
        if field.strip().lower() in self._usages:
            return "usage"
        if self._label(field) is not None:
            return "emotion"
        side = math.isqrt(len(field.split()))
        return "pixels" if side > 1 and not parse_pixels([field], side * side)[1] else ""

    def _label(self, field: bytes) -> int | None:
        """Return the class that an emotion means: a number, perhaps as 3.0, or a word in any known spelling."""
        label = self._labels.get(field.strip())
        if label is not None:
            return label
        number, name = whole_number(_text(field)), canonical(_text(field))
        if number is not None:
            return number if number < len(self.class_names) else None
        return self.class_names.index(name) if name in self.class_names else None

    def _row(self, number: int, fields: list[bytes] | str) -> tuple[int, int, int, bytes] | Skipped:
        if isinstance(fields, str):
            return self._skip(number, fields)
        label = self._label(fields[0])
        if label is None:
            return self._skip(number, f"label {_shown(fields[0])} is not in 0..{len(self.class_names) - 1}")
        usage = fields[2].strip().lower() if len(fields) == 3 else b"training"
        split = self._usages.get(usage)
        if split is None:
            return self._skip(number, f"Usage {_shown(fields[2])} is not one of {', '.join(USAGES.values())}")
        return number, label, split, fields[1].strip()

    def _skip(self, number: int, reason: str) -> Skipped:
        return Skipped(self.names[0], str(number), reason)

    def _usual_side(self, lines: Iterator[bytes]) -> int:
        """Return the width and height in pixels that most of the first good rows' faces have."""
        first = ""
        sides: Counter[int] = Counter()
        for number, fields in self._fields(lines):
            side = self._side_of(self._row(number, fields))
            if isinstance(side, int):
                sides[side] += 1
                if sides.total() == _SIZE_ROWS:
                    break
            first = first or f" (row {number}: {side})"
        if not sides:
            raise InputError(
                f"{self._path}: not one good row{first}; a row is a label 0..{len(self.class_names) - 1}, the pixels "
                f"0..255 of a square face with blanks between them, and {', '.join(USAGES.values())}"
            )
        (side, most), *others = sides.most_common()
        if others and most <= sum(count for _, count in others):
            found = ", ".join(f"{count} of {side} x {side}" for side, count in sorted(sides.items())[:5])
            raise InputError(
                f"{self._path}: its first {sides.total()} good rows have faces of several sizes, none of them in the "
                f"majority: {found} pixels; take out the rows of the wrong sizes"
            )
        return side

    def _side_of(self, row: tuple[int, int, int, bytes] | Skipped) -> int | str:
        """Return the width and height in pixels of a row's face, or why it has none."""
        if isinstance(row, Skipped):
            return row.reason
        values = len(row[3].split())
        side = math.isqrt(values)
        if side < 2 or side * side != values:
            return f"{values} pixels are no square"
        bad = parse_pixels([row[3]], values)[1]
        return bad[0][1] if bad else side

    def _notes(self, found: set[int], all_train: bool) -> list[str]:
        file = self._path.name
        notes = []
        if self._headerless:
            notes.append(f"{file}: no header line: what its columns hold says which they are")
        if all_train:
            notes.append(f"{file}: no Usage column: all its rows are train")
        notes += [
            f"{file}: no {USAGES[split]} rows: the file gives no {split} split"
            for code, split in enumerate(SPLITS)
            if code not in found
        ]
        return notes


def _delimiter(line: bytes) -> bytes:
    return delimiter_of(line.decode("latin-1")).encode()


def _names(header: bytes) -> list[bytes]:
    return [field.strip(b' "\t\r\n\xef\xbb\xbf').lower() for field in header.split(_delimiter(header))]


def _text(field: bytes) -> str:
    return field.strip().decode("latin-1")


def _shown(field: bytes) -> str:
    return ascii(_text(field[:20]))


def _split(line: bytes, delimiter: bytes) -> list[bytes]:
    """Return the fields of a line, none where its quotes leave open what they are."""
    if b'"' not in line:
        return line.split(delimiter)
    try:
        fields = split_line(line.decode("latin-1"), delimiter.decode(), most=LINE_BYTES)
    except ValueError:
        return []
    return [field.encode("latin-1") for field in fields]
