"""The original experiment's data.h5: ``Training_pixel`` uint8 (N, 2304), ``Training_label`` (N,), two more pairs."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fer.data.readers.pixel_strings import fit_all
from fer.data.source import BLOCK_ROWS, MAX_SIZE, SPLITS, Block, FaceFormat, Faces, Skipped, Source, empty_faces
from fer.data.storage.schema import foreign, lacks_values
from fer.errors import InputError
from fer.labels import CLASSES

#: What the datasets of our splits begin with.
_PREFIXES = dict(zip(SPLITS, ("Training", "PublicTest", "PrivateTest"), strict=True))

#: The file does not say what it was made from; the sizes of its three splits do.
_KNOWN = {
    (28709, 3589, 3589): "fer2013",
    (316110, 3589, 3589): "fer2021",
    (283901, 3500, 3500): "affectnet",
}


def is_original_h5(path: Path) -> bool:
    """Return whether a file is HDF5 with datasets named as the original experiment names them.

    Raises:
        InputError: it is HDF5, but damaged.
    """
    if not h5py.is_hdf5(path):
        return False
    with _opened(path) as file:
        # by name alone: what a link leads to may lie in another file
        return any(file.get(f"{prefix}_pixel", getlink=True) is not None for prefix in _PREFIXES.values())


def original_h5_source(path: Path, face: FaceFormat, class_names: Sequence[str] = CLASSES) -> Source:
    """Return the reader of the original experiment's data.h5.

    The source is called by the data set whose split sizes the file has (fer2013, fer2021, affectnet), else by the
    file's stem. The ``path`` of a row is its number, from 0, counted through Training, PublicTest and PrivateTest; it
    is the row's number in the csv too if that has the splits in this order, as FER2013's and the original ones have.

    Raises:
        InputError: the file is damaged or its datasets have another shape or type.
    """
    return _OriginalH5(Path(path), face, tuple(class_names))


class _OriginalH5:
    """Rows of a block are (split, index in the split)."""

    def __init__(self, path: Path, face: FaceFormat, class_names: tuple[str, ...]):
        self.class_names = class_names
        self._path, self._face = path.absolute(), face
        with _opened(path) as file:
            if name := next(foreign(file), None):
                raise InputError(
                    f"{path}: the values of {name!r} lie in another file, which is not read; make it again"
                )
            self._sizes = {split: _rows(file, prefix, path) for split, prefix in _PREFIXES.items()}
        if not any(self._sizes.values()):
            raise InputError(f"{path}: it has no rows in Training_pixel, PublicTest_pixel or PrivateTest_pixel")
        sizes = list(self._sizes.values())
        self._first = dict(zip(SPLITS, (0, sizes[0], sizes[0] + sizes[1]), strict=True))
        self.names = (_KNOWN.get((sizes[0], sizes[1], sizes[2]), path.stem),)
        self.notes = [
            f"{path.name}: no {_PREFIXES[split]} rows: the file gives no {split} split"
            for split, size in self._sizes.items()
            if not size
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Return the file's place, size and time, and all that decides about its faces."""
        stat = self._path.stat()
        return {
            "reader": "original h5 1",
            "file": str(self._path.resolve()),
            "bytes": stat.st_size,
            "modified_ns": stat.st_mtime_ns,
            "class_names": list(self.class_names),
            "size": self._face.size,
            "color": self._face.color,
        }

    def blocks(self) -> Iterator[Block]:
        """Yield the rows split by split; no block belongs to two splits."""
        total, read = sum(self._sizes.values()), 0
        for split, size in self._sizes.items():
            for start in range(0, size, BLOCK_ROWS):
                rows = [(split, index) for index in range(start, min(start + BLOCK_ROWS, size))]
                read += len(rows)
                yield Block(rows, read / total)

    def decode(self, block: Block) -> Faces:
        """Read the rows of a block, and fit the faces to the wanted format where theirs is another."""
        split, start = block.rows[0]
        part = slice(start, start + len(block.rows))
        with _opened(self._path) as file:
            pixels = file[f"{_PREFIXES[split]}_pixel"][part]
            labels = file[f"{_PREFIXES[split]}_label"][part].astype(np.int64)
        numbers = np.arange(part.start, part.stop) + self._first[split]
        known = (labels >= 0) & (labels < len(self.class_names))
        skipped = [
            Skipped(self.names[0], str(number), f"label {label} is not in 0..{len(self.class_names) - 1}")
            for number, label in zip(numbers[~known], labels[~known], strict=True)
        ]
        side = math.isqrt(pixels.shape[1])
        faces = empty_faces(int(known.sum()), self._face)
        faces.image = fit_all(pixels[known].reshape(-1, side, side), self._face)
        faces.label = labels[known]
        faces.split[:] = SPLITS.index(split)
        faces.path = [str(number) for number in numbers[known]]
        faces.skipped = skipped
        return faces


def _rows(file: h5py.File, prefix: str, path: Path) -> int:
    """Return how many rows a split has, 0 when it is absent."""
    if f"{prefix}_pixel" not in file:
        return 0
    if f"{prefix}_label" not in file:
        raise InputError(f"{path}: {prefix}_pixel is there, but {prefix}_label is not")
    pixels, labels = file[f"{prefix}_pixel"], file[f"{prefix}_label"]
    if not isinstance(pixels, h5py.Dataset) or not isinstance(labels, h5py.Dataset):
        raise InputError(f"{path}: {prefix}_pixel and {prefix}_label must be datasets, not groups")
    square = pixels.ndim == 2 and math.isqrt(pixels.shape[1]) ** 2 == pixels.shape[1]
    if pixels.dtype != np.uint8 or not square or not 1 <= pixels.shape[1] <= MAX_SIZE**2:
        raise InputError(
            f"{path}: {prefix}_pixel is {pixels.dtype} {pixels.shape}; uint8 (rows, pixels of a square face) is needed"
            f", of at most {MAX_SIZE} pixels a side"
        )
    if labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]:
        raise InputError(
            f"{path}: {prefix}_label is {labels.dtype} {labels.shape}; whole numbers ({len(pixels)},) are needed"
        )
    if lacks_values(pixels) or lacks_values(labels):
        raise InputError(f"{path}: values of {prefix}_pixel or {prefix}_label are missing; make it again")
    return len(pixels)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: it can't be read as HDF5, it may be damaged or incomplete; make it again") from error
