"""AffectNet's newer release: cropped faces images/N.jpg with one .npy file per annotation, no csv and no box."""

import functools
import io
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fer.data.photos import PhotoRow, decode_photos, in_blocks
from fer.data.readers.affectnet_base import INFINITE, Release, affect, integer
from fer.data.source import Block, Faces, Skipped


def is_npy_set(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "annotations").is_dir()


@functools.lru_cache(maxsize=64)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return the shape, whether it is in Fortran's order, and the type of the values."""
    return np.lib.format.read_array_header_1_0(io.BytesIO(header))


def _read_npy(path: str) -> np.ndarray:
    """Return the values of a small .npy file, flat, its last axis fastest.

    ``np.load`` parses the header anew each time, which for four tiny files a photo costs more than the photo.

    Raises:
        OSError: it can't be read.
        ValueError: it is not a .npy file of format 1.0 with numbers or text, or not of the size that its header says.
    """
    with open(path, "rb", buffering=0) as stream:
        data = stream.read()
    if data[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("not a .npy file of format 1.0")
    start = 10 + int.from_bytes(data[8:10], "little")
    try:
        shape, fortran_order, dtype = _npy_header(data[8:start])
    except Exception as error:  # numpy evaluates the header as Python, which on foreign bytes raises many types
        raise ValueError("not a .npy header") from error
    if dtype.kind not in "biufU":
        raise ValueError(f"neither numbers nor text: {dtype}")
    # math.prod counts without overflow
    if min(shape, default=0) < 0 or len(data) - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data) - start} bytes of values, not what a shape {shape} takes")
    values = np.frombuffer(data, dtype, offset=start)
    if dtype.kind == "U" and _code_points(values).max(initial=0) > sys.maxunicode:
        raise ValueError("characters that do not exist")
    return values.reshape(shape, order="F" if fortran_order else "C").ravel()


def _code_points(text: np.ndarray) -> np.ndarray:
    """Return the code points of an array of text, uint32 in the machine's own byte order."""
    return text.view(np.dtype(np.uint32).newbyteorder(text.dtype.byteorder)).astype(np.uint32)


def _listing(folder: Path) -> list[tuple[str, str]]:
    """Return (N, file name of the image) in numeric order, for every N that has an image or an expression."""
    files = {os.path.splitext(name)[0]: name for name in os.listdir(folder / "images") if not name.startswith(".")}
    for name in os.listdir(folder / "annotations"):
        if name.endswith("_exp.npy"):
            stem = name.removesuffix("_exp.npy")
            files.setdefault(stem, f"{stem}.jpg")
    return sorted(files.items(), key=lambda item: (int(item[0]) if item[0].isdecimal() else math.inf, item[0]))


class NpyRelease(Release):
    def __init__(self, *common: Any, sets: list[Path]):
        super().__init__(*common)
        self._sets = [folder.absolute() for folder in sets]
        names = [folder.name for folder in self._sets]
        self._note_missing([name for name in ("train_set", "val_set") if name not in names])
        if not {"train_set", "val_set"} & set(names):
            self._layout_notes.append(f"AffectNet folder {self._sets[0]} is taken as the training set")

    def _inputs(self) -> list[list[Any]]:
        return [[str(folder), len(os.listdir(folder / "images"))] for folder in self._sets]

    def _blocks(self) -> Iterator[Block]:
        listings = [(folder, _listing(folder)) for folder in self._sets]
        total = sum(len(files) for _, files in listings)
        read = 0

        def rows() -> Iterator[PhotoRow | Skipped]:
            nonlocal read
            for folder, files in listings:
                for stem, name in files:
                    read += 1
                    if (row := self._row(folder, stem, name)) is not None:
                        yield row

        yield from in_blocks(rows(), lambda: read / total)

    def _row(self, folder: Path, stem: str, name: str) -> PhotoRow | Skipped | None:
        """Return the row of image N with its label only, or None when its class is dropped."""
        path = f"{folder.name}/images/{name}"
        try:
            text = str(_read_npy(f"{folder}/annotations/{stem}_exp.npy")[0])
        except FileNotFoundError:
            return Skipped(self.names[0], path, "no annotation N_exp.npy")
        except (OSError, ValueError, IndexError):
            return Skipped(self.names[0], path, "unreadable annotation N_exp.npy")
        code = integer(text)
        if code not in self._labels:
            return Skipped(self.names[0], path, f"unknown expression code {text[:40]!r}")
        if (label := self._labels[code]) is None:
            self._dropped[code] += 1
            return None
        splits = self.splits(folder.name != "val_set", path)
        return PhotoRow(self.names[0], path, f"{folder}/images/{name}", splits, label)

    def decode(self, block: Block) -> Faces:
        rows = [row if isinstance(row, Skipped) else self._annotated(row) for row in block.rows]
        return decode_photos(rows, self._face, self._limits, self.names)

    def _annotated(self, row: PhotoRow) -> PhotoRow | Skipped:
        """Return the row with valence, arousal and landmarks, which are read here because threads decode."""
        folder, _, name = row.file.rpartition("/images/")
        stem = f"{folder}/annotations/{os.path.splitext(name)[0]}"

        def values(kind: str) -> np.ndarray | None:
            try:
                return _read_npy(f"{stem}_{kind}.npy")
            except (OSError, ValueError):  # absent or unreadable is unknown: the face itself is still good
                return None

        def number(kind: str) -> float:
            found = values(kind)
            return math.nan if found is None or not found.size else affect(found[0])

        valence, arousal = number("val"), number("aro")
        if math.isinf(valence) or math.isinf(arousal):
            return Skipped(row.source, row.path, INFINITE)
        return replace(row, valence=valence, arousal=arousal, landmarks=values("lnd"))
