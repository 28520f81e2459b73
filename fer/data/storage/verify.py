"""Whether a prepared file is still what was written: every row against its stored hashes."""

from pathlib import Path

import numpy as np
import torch

from fer.data.source import SPLITS
from fer.data.storage.hdf5 import (
    groups_are_right,
    hash_annotations,
    hash_faces,
    hash_rows,
    opened,
    read_column,
    read_info,
)
from fer.data.storage.lazy_images import DiskImages
from fer.data.storage.schema import ANNOTATIONS
from fer.data.storage.shards import StreamImages
from fer.errors import InputError
from fer.system.command import command

#: Rows that an error names one by one.
_NAMED = 5


def verify(path: str | Path, shards: str | None = None) -> str:
    """Compare each row of a prepared file or folder of shards with what was written, and say how many rows are right.

    Pixels have a hash, source and path together another one, labels, boxes and what is optional a third, and all groups
    of a split one; of labels and sources the numbers of rows are known too. Older files lack the third: what could not
    be checked of a file is said. Memory holds one block of pixels and the other columns of a split. ``shards`` is where
    those of a folder lie, as the user says.

    Raises:
        InputError: not a whole file of ours, or rows that differ: how many, and the first of them.
    """
    path, info = Path(path), read_info(path)
    wrong: list[str] = []
    splits = [split for split in SPLITS if info.rows(split)]
    for split in splits:
        n = info.rows(split)
        labels, sources = read_column(path, split, "label"), read_column(path, split, "source")
        counts = np.zeros((len(info.sources), len(info.class_names)), np.int64)
        np.add.at(counts, (sources, labels), 1)
        told = {name: numbers for name, numbers in zip(info.sources, counts.tolist(), strict=True) if any(numbers)}
        if told != {name: numbers for name, numbers in info.counts[split].items() if any(numbers)}:
            raise InputError(f"{path}: labels or sources of {split} are not as many as counts tells; {_remedy()}")
        if not groups_are_right(path, split):
            raise InputError(f"{path}: the groups of {split} are not what was written; {_remedy()}")
        pixels = _face_hashes(path, split, n, shards) != read_column(path, split, "face")
        names = hash_rows((info.sources[code] for code in sources), read_column(path, split, "path").tolist())
        places = names != read_column(path, split, "row")
        notes = np.zeros(n, bool)
        if info.hashed:
            values = {name: read_column(path, split, name) for name in info.hashed}
            notes = hash_annotations(values) != read_column(path, split, "annotation")
        checks = ((pixels, "pixels"), (places, "source and path"), (notes, " or ".join(info.hashed)))
        for row in np.flatnonzero(pixels | places | notes).tolist():
            what = [text for bad, text in checks if bad[row]]
            wrong.append(f"{split} row {row} ({', '.join(what)})")
    rows = sum(map(info.rows, splits))
    if wrong:
        more = ", ..." if len(wrong) > _NAMED else ""
        raise InputError(
            f"{path}: {len(wrong):,} of {rows:,} rows are not what was written: {', '.join(wrong[:_NAMED])}{more}; "
            f"{_remedy()}"
        )
    each = ", ".join(f"{info.rows(split):,} {split}" for split in splits)
    with opened(path) as file:
        present = [name for name in ANNOTATIONS if any(name in file[split] for split in splits)]
    unchecked = [name for name in present if name not in info.hashed]
    text = f"{path}: all {rows:,} rows are what was written ({each})"
    if unchecked:
        text += f"; it has no hash of {', '.join(unchecked)}, which could not be checked row by row"
    return text


def _remedy() -> str:
    return f"copy the file again, or make it again with `{command('prepare')}`"


def _face_hashes(path: Path, split: str, n: int, shards: str | None) -> np.ndarray:
    images = StreamImages(path, split, shards) if path.is_dir() else DiskImages(path, split)
    step, hashes = images.block_rows, []
    for start in range(0, n, step):
        faces = images[torch.arange(start, min(start + step, n))].numpy()
        # as they are stored; of grey faces the channel adds nothing to the bytes
        hashes.append(hash_faces(faces.transpose(0, 2, 3, 1)))
    return np.concatenate(hashes)
