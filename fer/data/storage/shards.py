"""Prepared faces as LitData shards, for object storage: a folder with one set of shards a split, and rows.h5.

``rows.h5`` is the prepared file (see `fer.data.storage.hdf5`) without its images. It has two attributes more:
``block_rows`` and, if the shards don't lie in the folder, ``shards``, where they do, such as s3://bucket/affectnet. An
item of LitData's is a block of images, uint8 (block_rows, ...), as `DiskImages` reads them: epochs have the same order.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from fer.data.source import SPLITS, FaceFormat, Faces
from fer.data.storage.hdf5 import ROWS, StoreInfo, read_info, write_store
from fer.data.storage.lazy_images import DiskImages, block_rows
from fer.errors import InputError
from fer.system.files import require_new_folder

#: Bytes of a shard, which is fetched whole: large enough for an object store, small enough for the first batches, which
#: come from as many shards as a buffer has blocks.
_SHARD_BYTES = 4 << 20


class StreamImages(DiskImages):
    """The images of one split of a folder of shards, read as `DiskImages` reads them.

    Shards that lie elsewhere are fetched when they are first needed and kept by LitData in its cache on disk.

    Raises:
        InputError: LitData is not installed.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        super().__init__(folder, split)
        require_litdata()
        with h5py.File(self._file / ROWS, "r") as rows:
            self.block_rows = int(rows.attrs["block_rows"])
            self._shards = f"{rows.attrs.get('shards', self._file)}/{split}"

    def _open(self) -> Any:
        from litdata import StreamingDataset

        return StreamingDataset(self._shards, shuffle=False)

    def _read(self, number: int) -> np.ndarray:
        return self._images[number]


def read_images(folder: str | Path, split: str) -> np.ndarray:
    """Read all images of a split, uint8 (n, ...) as `read_column` gives those of a prepared file."""
    images, n = StreamImages(folder, split), read_info(folder).rows(split)
    pixels = images[torch.arange(n)].numpy()
    return pixels[:, 0] if read_info(folder).face.color == "grey" else pixels.transpose(0, 2, 3, 1)


def write_stream(
    out: Path,
    blocks: Callable[[], Iterable[Faces]],
    class_names: tuple[str, ...],
    sources: tuple[str, ...],
    face: FaceFormat,
    drawn: bool,
    made_by: dict[str, Any],
    votes: np.ndarray | None = None,
    shards: str | None = None,
) -> StoreInfo:
    """Write the faces of all blocks as the folder ``out``, which gets its name when it is complete.

    ``shards`` is where its sub-folders will be copied to; the other arguments are those of `write_store`.

    Raises:
        InputError: there is such a folder, or LitData is not installed.
    """
    require_litdata()
    from litdata.streaming import Cache

    require_new_folder(out)
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    info = write_store(temporary / ROWS, blocks, class_names, sources, face, drawn, made_by, votes, images=False)
    size = block_rows(face.shape)
    with h5py.File(temporary / ROWS, "a") as rows:
        rows.attrs["block_rows"] = size
        if shards:
            rows.attrs["shards"] = shards.rstrip("/")
    written = {
        code: Cache(str(temporary / split), chunk_bytes=_SHARD_BYTES)
        for code, split in enumerate(SPLITS)
        if info.rows(split)
    }
    waiting = {code: np.empty((0, *face.shape), np.uint8) for code in written}
    number = dict.fromkeys(written, 0)
    for faces in blocks():
        for code in np.unique(faces.split).tolist():
            images = np.concatenate([waiting[code], faces.image[faces.split == code]])
            whole = len(images) // size * size
            for start in range(0, whole, size):
                written[code][number[code]] = images[start : start + size]
                number[code] += 1
            waiting[code] = images[whole:]
    for code, cache in written.items():
        if len(waiting[code]):
            cache[number[code]] = waiting[code]
        cache.done()
        cache.merge()
    if out.exists():
        out.rmdir()
    os.replace(temporary, out)
    return read_info(out)


def require_litdata() -> None:
    """Refuse to go on where LitData can't be imported."""
    try:
        import litdata  # noqa: F401
    except ImportError as error:
        raise InputError('shards need LitData: pip install "fer-lightning[stream]"') from error
