"""What a prepared HDF5 file must have, and the checks of one that may come from anywhere."""

import json
import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from fer.data.source import SPLITS, FaceFormat
from fer.labels import labels_from_file

SCHEMA_VERSION = 1
#: Columns that a file has only where its source has such values.
OPTIONAL = ("valence", "arousal", "landmarks", "votes", "group")
#: Columns that the hash ``annotation`` of a row is made of, where the file has them; in this order. Groups have one.
ANNOTATIONS = ("label", "box", "valence", "arousal", "landmarks", "votes")


def columns(
    n: int, face: FaceFormat, path_bytes: int = 1, group_bytes: int = 1
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return shape and type of each column of a split of n rows; a path and a group take so many bytes."""
    return {
        "image": ((n, *face.shape), np.uint8),
        "label": ((n,), np.int64),
        "source": ((n,), np.uint8),
        "path": ((n,), h5py.string_dtype("utf-8", path_bytes)),
        "face": ((n,), np.int64),
        "row": ((n,), np.int64),
        "annotation": ((n,), np.int64),
        "box": ((n, 4), np.int32),
        "valence": ((n,), np.float32),
        "arousal": ((n,), np.float32),
        "landmarks": ((n, 68, 2), np.float32),
        "votes": ((n, 10), np.uint8),
        "group": ((n,), h5py.string_dtype("utf-8", group_bytes)),
    }


def read_attributes(file: h5py.File) -> dict[str, Any]:
    """Return the attributes of a prepared file as plain data: those of `StoreInfo`, its path left out.

    Raises:
        ValueError: naming the attribute that is missing, of another type or out of range.
    """
    given = {name: _plain(file.attrs[name]) for name in file.attrs}
    for name in ("class_names", "sources", "size", "color", "margin", "drawn", "counts", "duplicates", "made_by"):
        if name not in given:
            raise ValueError(f"it has no attribute {name}")
    classes = labels_from_file(given["class_names"], "class_names", least=1)
    sources = labels_from_file(given["sources"], "sources", least=1)
    if len(sources) > 256:
        raise ValueError(f"sources: {len(sources)} of them, not 1 to 256")
    if type(given["drawn"]) is not bool:
        raise ValueError(f"drawn={given['drawn']!r:.40} is not true or false")
    duplicates, made_by = (_mapping(given[name], name) for name in ("duplicates", "made_by"))
    if not all(type(n) is int and n >= 0 for n in duplicates.values()):
        raise ValueError("duplicates are not numbers of rows")
    return {
        "class_names": tuple(classes), "sources": tuple(sources),
        "face": FaceFormat.from_file({name: given[name] for name in ("size", "color", "margin")}),
        "drawn": given["drawn"], "counts": _counts(_mapping(given["counts"], "counts"), classes, sources),
        "duplicates": duplicates, "made_by": made_by, "hashed": _hashed(given.get("hashed", [])),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """Return an attribute as a list, text or number of Python's."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _hashed(names: Any) -> tuple[str, ...]:
    """Return the columns that the file says have a hash; older files say nothing."""
    if not isinstance(names, list) or names != [name for name in ANNOTATIONS if name in names]:
        raise ValueError(f"hashed={names!r:.80} are not columns of {', '.join(ANNOTATIONS)} in this order")
    return tuple(names)


def _mapping(text: Any, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a mapping as JSON")
    return value


def _counts(counts: dict[str, Any], classes: list[str], sources: list[str]) -> dict[str, dict[str, list[int]]]:
    for split, by_source in counts.items():
        if split not in SPLITS or not isinstance(by_source, dict) or not by_source or by_source.keys() - set(sources):
            raise ValueError(f"counts.{split:.20} is not of a split and of sources of the file")
        for source, numbers in by_source.items():
            right = isinstance(numbers, list) and len(numbers) == len(classes)
            if not right or not all(type(n) is int and 0 <= n < 1 << 40 for n in numbers):
                raise ValueError(f"counts.{split}.{source:.40} is not a number of rows for each class")
    return counts


def check_columns(file: h5py.File, attributes: dict[str, Any], images: bool) -> None:
    """Check splits and columns, without reading them, against the checked attributes; ``images`` must be there or not.

    Raises:
        ValueError: naming the column that is missing or of another type, shape or number of rows, or lacks its values.
    """
    counts = attributes["counts"]
    present = [split for split in SPLITS if split in file]
    if present != [split for split in SPLITS if split in counts]:
        raise ValueError(f"its splits are {present}, but counts tells of {list(counts)}")
    for split in present:
        group = file[split]
        if not isinstance(group, h5py.Group):
            raise ValueError(f"{split} is no group of columns")
        n = sum(map(sum, counts[split].values()))
        hashed = attributes["hashed"]
        optional = {*OPTIONAL, "annotation"} - ({*hashed, "annotation"} if hashed else set())
        for name, (shape, dtype) in columns(n, attributes["face"]).items():
            if name in group:
                _check_column(group[name], f"{split}/{name}", shape, np.dtype(dtype))
            elif name not in optional and (images or name != "image"):
                raise ValueError(f"it has no column {split}/{name}")


def _check_column(column: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if not isinstance(column, h5py.Dataset):
        raise ValueError(f"{name} is no data set")
    text = dtype.kind == "S"
    if column.shape != shape or (h5py.check_string_dtype(column.dtype) is None if text else column.dtype != dtype):
        kind = "text" if text else str(dtype)
        raise ValueError(f"{name} is {column.dtype} {column.shape}, not {kind} {shape}")
    if lacks_values(column):
        raise ValueError(f"values of {name} are missing")


def foreign(group: h5py.Group, depth: int = 1) -> Iterator[str]:
    """Yield the names whose values lie in other files: HDF5 lets a file name any other, and reads it as if its own."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield name
        elif isinstance(item := group[name], h5py.Group):
            # no deeper than a column of a split, as groups can hold each other
            yield from foreign(item, depth - 1) if depth else ()
        elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            yield item.name


def lacks_values(column: h5py.Dataset) -> bool:
    """Say whether values were never written, which HDF5 reads as zeros, or lie beyond the end of the file."""
    if not column.size:
        return False
    if column.chunks:
        whole = math.prod(-(-n // chunk) for n, chunk in zip(column.shape, column.chunks, strict=True))
        return column.id.get_num_chunks() < whole
    if column.id.get_create_plist().get_layout() == h5py.h5d.COMPACT:
        return False
    start = column.id.get_offset()
    return start is None or start + column.id.get_storage_size() > column.file.id.get_filesize()
