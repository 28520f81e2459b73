"""The HDF5 file of prepared faces: its layout, its writer, its readers.

Layout: one group a split (``train``, ``val``, ``test``; a split without rows has none) with data sets of equal length

* ``image`` uint8 (n, size, size) grey or (n, size, size, 3) RGB; ``label`` int64, an index into ``class_names``
* ``source`` uint8, an index into the attribute ``sources``; ``path`` UTF-8, where the row stood in that source
* ``face`` and ``row`` int64: hashes of the pixels and of (source, path), by which equal faces and equal rows are found
* ``annotation`` int64: a hash of the row in the columns that the attribute ``hashed`` names; older files have neither
* ``box`` int32 (n, 4); where a source has them ``valence``, ``arousal`` float32 and ``landmarks`` float32 (n, 68, 2)
* ``votes`` uint8 (n, 10), only where they were asked for: FER+'s annotators for each of `ferplus.VOTES`
* ``group`` UTF-8, only where a source knows it: the person or sequence that a row is of, "" where it is not known

and root attributes ``schema_version, class_names, sources, size, color, margin, drawn, hashed`` and, as JSON,
``counts`` (split -> source -> number per class), ``duplicates`` and ``made_by``.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fer.data.source import SPLITS, FaceFormat, Faces
from fer.data.storage.schema import ANNOTATIONS, SCHEMA_VERSION, check_columns, columns, foreign, read_attributes
from fer.errors import InputError
from fer.system.command import command
from fer.system.files import replacing

#: In a folder of LitData shards (see fer/data/storage/shards.py) the file that holds all but the images.
ROWS = "rows.h5"
#: Columns of `Faces` that are written where a row has them.
_OPTIONAL = ("valence", "arousal", "landmarks")


def _hash(items: Iterable[bytes | memoryview]) -> np.ndarray:
    """Return the 64-bit BLAKE2b hash of each item's bytes, as int64 (n,)."""
    return np.frombuffer(b"".join(hashlib.blake2b(item, digest_size=8).digest() for item in items), "<i8")


def hash_faces(images: np.ndarray) -> np.ndarray:
    """Return the int64 hash of each image (n, ...); equal pixels give equal hashes."""
    return _hash(image.data for image in np.ascontiguousarray(images))


def hash_rows(sources: Iterable[str], paths: Iterable[str]) -> np.ndarray:
    """Return the int64 hash of each (source, path), the identity of a row across files."""
    return _hash(f"{source}\0{path}".encode() for source, path in zip(sources, paths, strict=True))


def hash_annotations(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the int64 hash of each row over columns (n, ...) of `ANNOTATIONS`, which are all that is given."""
    rows = [np.ascontiguousarray(values[name].astype(values[name].dtype.newbyteorder("<"))) for name in ANNOTATIONS
            if name in values]  # fmt: skip
    return _hash(b"".join(row.tobytes() for row in cells) for cells in zip(*rows, strict=True))


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a prepared file says of itself; ``counts[split][source][label]`` are numbers of rows.

    ``hashed`` are the columns that the hash ``annotation`` of a row is made of.
    """

    path: Path
    class_names: tuple[str, ...]
    sources: tuple[str, ...]
    face: FaceFormat
    drawn: bool
    counts: dict[str, dict[str, list[int]]]
    duplicates: dict[str, int]
    made_by: dict[str, Any]
    hashed: tuple[str, ...]

    def rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return sum(sum(per_class) for per_class in self.counts.get(split, {}).values())


def read_info(path: str | Path) -> StoreInfo:
    """Read what a prepared file says of itself, and check that it has all that the layout says.

    Raises:
        InputError: there is no such file, or it is not a whole one of ours.
    """
    with _open(Path(path)) as file:
        return _checked(Path(path), file)


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """Open a prepared file that `read_info` has checked, for the rows that the block reads of it.

    Raises:
        InputError: there is no such file, or values that the block asks for cannot be read.
    """
    with _open(Path(path)) as file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
            raise unreadable(Path(path)) from error


def _checked(path: Path, file: h5py.File) -> StoreInfo:
    try:
        return _read_checked(path, file)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}; {_remedy()}") from error
    except Exception as error:  # h5py raises many types on damaged files
        raise unreadable(path) from error


def _read_checked(path: Path, file: h5py.File) -> StoreInfo:
    if _attribute(file, "schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: not a prepared file of schema version {SCHEMA_VERSION}; make it with `{command('prepare')}`"
        )
    if name := next(foreign(file), None):
        raise InputError(f"{path}: the values of {name!r} lie in another file, which is not read; {_remedy()}")
    attributes = read_attributes(file)
    # of a folder of shards it has all but the images
    check_columns(file, attributes, images=not path.is_dir() and path.name != ROWS)
    return StoreInfo(path=path, **attributes)


def _attribute(file: h5py.File, name: str) -> Any:
    value = file.attrs.get(name)
    return value.tolist() if isinstance(value, np.generic) else None


def _remedy() -> str:
    return f"make it again with `{command('prepare')}`"


def unreadable(path: Path) -> InputError:
    """Return what to say of a file of ours whose values cannot be read."""
    return InputError(f"{path}: a damaged HDF5 file, of which not all can be read; {_remedy()}")


def is_store(path: str | Path) -> bool:
    """Say whether a file says that it is a prepared file, be it a whole one or not; a folder is none."""
    if Path(path).is_dir():
        return False
    try:
        with _open(Path(path)) as file:
            return _attribute(file, "schema_version") == SCHEMA_VERSION
    except (InputError, OSError, RuntimeError):
        return False


def fingerprint(info: StoreInfo) -> str:
    """Return a hash of what a prepared file holds: classes, format, and each row's stored hashes and label, in order.

    Neither its name nor the pixels are read. Two files are alike for training where it is the same.
    """
    whole = hashlib.blake2b(repr((info.class_names, info.sources, info.face)).encode(), digest_size=16)
    for split in SPLITS:
        for name in ("face", "row", "label") if info.rows(split) else ():
            whole.update(f"{split}/{name}".encode())
            whole.update(read_column(info.path, split, name).astype("<i8").tobytes())
    return whole.hexdigest()


def read_column(path: str | Path, split: str, name: str) -> np.ndarray:
    """Read one data set of a split whole, straight into one array.

    Raises:
        InputError: the file has no such split or column, values that cannot be read, or labels or sources out of range.
    """
    with opened(path) as file:
        info = _checked(Path(path), file)
        if split not in info.counts:
            raise InputError(f"{path}: has no {split} split (it has {', '.join(info.counts)})")
        if name not in file[split]:
            remedy = "give the folder that it lies in" if Path(path).name == ROWS else _remedy()
            raise InputError(f"{path}: has no column {split}/{name}; {remedy}")
        dataset = file[split][name]
        if name in ("path", "group"):
            return dataset.asstr()[:]
        values = np.empty(dataset.shape, dataset.dtype)
        if len(values):
            dataset.read_direct(values)
    names = {"label": info.class_names, "source": info.sources}.get(name)
    if names is not None and len(values) and not 0 <= values.min() <= values.max() < len(names):
        wrong = (values < 0) | (values >= len(names))
        raise InputError(
            f"{path}: {int(wrong.sum()):,} values of {split}/{name} are not in 0..{len(names) - 1}, the first in row "
            f"{int(wrong.argmax())}; {_remedy()}"
        )
    return values


def has_column(path: str | Path, split: str, name: str) -> bool:
    """Say whether a split has an optional column."""
    with opened(path) as file:
        return name in file.get(split, ())


def _open(path: Path) -> h5py.File:
    if path.is_dir():
        path = path / ROWS
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file; {_remedy()}") from error


def write_store(
    out: Path,
    blocks: Callable[[], Iterable[Faces]],
    class_names: tuple[str, ...],
    sources: tuple[str, ...],
    face: FaceFormat,
    drawn: bool,
    made_by: dict[str, Any],
    votes: np.ndarray | None = None,
    images: bool = True,
) -> StoreInfo:
    """Write the faces of all blocks to ``out``; memory holds one block at a time.

    ``blocks`` is called twice: once to count, once to write. The file is written under a temporary name and renamed
    when it is complete, so ``out`` is at any moment the old file, or none, or the whole new one. ``votes`` uint8
    (rows of the raw file, 10) go with the faces whose ``path`` is the number of the row. Without ``images`` there
    is no such data set.
    """
    counts = np.zeros((len(SPLITS), len(sources), len(class_names)), np.int64)
    present = dict.fromkeys(_OPTIONAL, False)
    grouped = False
    path_bytes = group_bytes = 1
    for faces in blocks():
        np.add.at(counts, (faces.split, faces.source, faces.label), 1)
        for name in _OPTIONAL:
            present[name] = present[name] or not np.isnan(getattr(faces, name)).all()
        path_bytes = max(path_bytes, *(len(path.encode()) for path in faces.path), 1)
        group_bytes = max(group_bytes, *(len(group.encode()) for group in faces.group), 1)
        grouped = grouped or any(faces.group)
    names = ["image"] if images else []
    names += ["label", "source", "path", "face", "row", "annotation", "box"]
    names += [name for name in _OPTIONAL if present[name]]
    names += [] if votes is None else ["votes"]
    names += ["group"] if grouped else []
    hashed = [name for name in ANNOTATIONS if name in names]

    def kinds(n: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        return {name: columns(n, face, path_bytes, group_bytes)[name] for name in names}

    with replacing(out) as temporary, _create(temporary) as file:
        datasets = {
            code: _create_datasets(file.create_group(split), kinds(int(counts[code].sum())))
            for code, split in enumerate(SPLITS)
            if counts[code].any()
        }
        filled = [0] * len(SPLITS)
        digests = {code: hashlib.blake2b(digest_size=16) for code in datasets}
        for faces in blocks():
            made = ("path", "face", "row", "annotation", "votes")
            values = {name: getattr(faces, name) for name in names if name not in made}
            values["path"] = _texts(faces.path, path_bytes)
            values["group"] = _texts(faces.group, group_bytes)
            values["face"] = hash_faces(faces.image)
            values["row"] = hash_rows((sources[code] for code in faces.source), faces.path)
            if votes is not None:
                values["votes"] = votes[[int(path) for path in faces.path]]
            types = columns(len(faces.path), face)
            values["annotation"] = hash_annotations({name: values[name].astype(types[name][1]) for name in hashed})
            for code in np.unique(faces.split):
                chosen = faces.split == code
                start = filled[code]
                filled[code] = stop = start + int(chosen.sum())
                for name, dataset in datasets[code].items():
                    dataset[start:stop] = values[name] if chosen.all() else values[name][chosen]
                _add_groups(digests[code], [faces.group[i] for i in np.flatnonzero(chosen)])
        for code, digest in digests.items() if grouped else ():
            datasets[code]["group"].attrs["blake2b"] = digest.hexdigest()
        attributes = file.attrs
        attributes["schema_version"] = SCHEMA_VERSION
        attributes["class_names"] = list(class_names)
        attributes["sources"] = list(sources)
        attributes["size"], attributes["color"], attributes["margin"] = face.size, face.color, face.margin
        attributes["drawn"] = drawn
        attributes["hashed"] = hashed
        attributes["counts"] = json.dumps(counts_by_name(counts, sources))
        attributes["duplicates"] = json.dumps(_count_duplicates(file))
        attributes["made_by"] = json.dumps(made_by)
    return read_info(out)


def _add_groups(digest: "hashlib.blake2b", groups: Iterable[str]) -> None:
    digest.update("".join(f"{group}\0" for group in groups).encode())


def groups_are_right(path: str | Path, split: str) -> bool:
    """Say whether the groups of a split are what was written, by their hash; a file without groups has nothing wrong.

    Raises:
        InputError: the column cannot be read.
    """
    if not has_column(path, split, "group"):
        return True
    digest = hashlib.blake2b(digest_size=16)
    _add_groups(digest, read_column(path, split, "group"))
    with opened(path) as file:
        return file[split]["group"].attrs.get("blake2b") == digest.hexdigest()


def read_groups(path: str | Path, split: str) -> list[str]:
    """Return the group of each row of a split, "" where the file does not know it.

    Raises:
        InputError: no such split, or a column that cannot be read.
    """
    if not has_column(path, split, "group"):
        return [""] * len(read_column(path, split, "label"))
    return read_column(path, split, "group").tolist()


def _texts(texts: Sequence[str], size: int) -> np.ndarray:
    """Return texts as a column of UTF-8 of ``size`` bytes each."""
    return np.array([text.encode() for text in texts], np.bytes_).astype(h5py.string_dtype("utf-8", size))


@contextmanager
def _create(path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file; where the block raises, what HDF5 has not written yet is thrown away.

    On a full disk HDF5 could not close the file, would try again as the process ends, and crash.
    """
    file = h5py.File(path, "w")
    try:
        yield file
        file.flush()
    except BaseException as error:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), file.id.get_vfd_handle())
        # it takes what is written, but has no length that HDF5 could set
        with suppress(RuntimeError):
            file.close()
        # of a flush that fails HDF5 gives the system's number in its text alone
        if isinstance(error, RuntimeError) and (said := re.search(r"errno = (\d+)", str(error))):
            raise OSError(int(said[1]), os.strerror(int(said[1])), str(path)) from error
        raise
    file.close()


def counts_by_name(counts: np.ndarray, sources: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Return numbers of rows (split, source, label) as split -> source -> number per label, without empty ones."""
    return {
        split: {source: counts[i, j].tolist() for j, source in enumerate(sources) if counts[i, j].any()}
        for i, split in enumerate(SPLITS)
        if counts[i].any()
    }


def _create_datasets(group: h5py.Group, kinds: dict[str, tuple[tuple[int, ...], Any]]) -> dict[str, h5py.Dataset]:
    return {name: group.create_dataset(name, *kind) for name, kind in kinds.items()}


def _count_duplicates(file: h5py.File) -> dict[str, int]:
    """Count rows whose pixels stand in the file before: within a split, and rows of one split that another has too."""
    hashes = {split: file[split]["face"][:] for split in SPLITS if split in file}
    duplicates = {split: len(values) - len(np.unique(values)) for split, values in hashes.items()}
    for i, first in enumerate(SPLITS):
        for second in SPLITS[i + 1 :]:
            if first in hashes and second in hashes:
                duplicates[f"{second} also in {first}"] = int(np.isin(hashes[second], hashes[first]).sum())
    return duplicates
