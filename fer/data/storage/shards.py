"""Prepared faces as LitData shards, for object storage: a folder with one set of shards a split, and rows.h5.

``rows.h5`` is the prepared file (see `fer.data.storage.hdf5`) without its images. It has two attributes more:
``block_rows`` and, if the shards were to be copied away, ``shards``, where to, such as s3://bucket/affectnet. An item
of LitData's is a block of images, uint8 (block_rows, ...), as `DiskImages` reads them: epochs have the same order.

LitData reads what an ``index.json`` tells it to, pickles too, which run code, from and into any folder. So it is given
none that was not checked, and it reads from no place that a file names: from the folder itself, or where the user says.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from fer.data.source import SPLITS, FaceFormat, Faces
from fer.data.storage.hdf5 import ROWS, StoreInfo, opened, read_info, write_store
from fer.data.storage.lazy_images import DiskImages, block_rows
from fer.errors import InputError
from fer.system.files import replacing_folder

#: Bytes of a shard, which is fetched whole: large enough for an object store, small enough for the first batches, which
#: come from as many shards as a buffer has blocks.
_SHARD_BYTES = 4 << 20

#: Of an index.json, what says how items are read: as numpy arrays in no tree. What is left out here must be null.
_CONFIG = {
    "data_format": ["numpy"],
    "data_spec": '[1, {"type": null, "context": null, "children_spec": []}]',
    "item_loader": "PyTreeLoader",
}
#: Keys that say nothing about it.
_IDLE = ("chunk_bytes", "types")
_SHARD = re.compile(r"chunk-\d+-\d+\.bin")
_REMOTE = re.compile(r"[a-z0-9]+:")


class StreamImages(DiskImages):
    """The images of one split of a folder of shards, read as `DiskImages` reads them.

    ``shards`` is where the user says that they lie, a folder or an address of LitData's; None is in the folder itself.
    Those at an address are fetched when they are first needed and kept by LitData in its cache on disk.

    Raises:
        InputError: LitData is not installed, or the shards lie elsewhere, are not all there or are not ours.
    """

    def __init__(self, folder: str | Path, split: str, shards: str | None = None) -> None:
        super().__init__(folder, split)
        require_litdata()
        self._n = read_info(self._file).rows(split)
        with opened(self._file) as rows:
            size, named = rows.attrs.get("block_rows"), rows.attrs.get("shards", ".")
        if not isinstance(size, np.integer) or size < 1 or not isinstance(named, str):
            raise InputError(f"{self._file / ROWS}: not the rows of a folder of shards; make it with format=litdata")
        self.block_rows = int(size)
        blocks = -(-self._n // self.block_rows)
        self._place: tuple[str, str | None]
        if shards and _REMOTE.match(shards):
            url = f"{shards.rstrip('/')}/{split}"
            self._place = (str(_fetch_index(url, blocks)), url)
        else:
            own = Path(shards, split).expanduser().resolve() if shards else _inside(self._file, named, split)
            _require_shards(own, blocks)
            self._place = (str(own), None)

    def _open(self) -> Any:
        from litdata import StreamingDataset
        from litdata.streaming.resolver import Dir

        path, url = self._place
        try:
            images = StreamingDataset(Dir(path, url), shuffle=False)
            # asked for a slice, it fetches whole shards into its cache; else each item by itself from a bucket, each
            # epoch anew, and from local: not safely where several processes read
            images[0:0]
        except Exception as error:  # LitData raises many types on foreign bytes
            raise InputError(f"{url or path}: its shards can't be opened: {_reason(error)}") from error
        return images

    def _read(self, number: int) -> np.ndarray:
        path, url = self._place
        try:
            block = self._images[number]
        except Exception as error:  # LitData raises many types on foreign bytes
            raise InputError(f"{url or path}: block {number} of its images can't be read: {_reason(error)}") from error
        shape = (min(self.block_rows, self._n - number * self.block_rows), *self._face.shape)
        if not isinstance(block, np.ndarray) or block.dtype != np.uint8 or block.shape != shape:
            raise InputError(f"{url or path}: block {number} is not the images that {self._file / ROWS} tells of")
        return block


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _inside(folder: Path, named: str, split: str) -> Path:
    """Return where the shards of a split lie that rows.h5 says are at ``named``, which has to be in the folder."""
    place = (folder / named / split).resolve()
    if _REMOTE.match(named) or not place.is_relative_to(folder.resolve()):
        elsewhere = str(place.parent) if named == "." else named
        raise InputError(
            f"{folder}: says that its shards lie elsewhere; if you trust that place, give data.shards={elsewhere!r} "
            "(to evaluate.py and export.py with data=NAME)"
        )
    return place


def _require_shards(place: Path, blocks: int) -> None:
    """Raise InputError where a folder has not all shards of a split, as files of its own."""
    entries = os.scandir(place) if place.is_dir() else ()
    sizes, index = {e.name: e.stat().st_size for e in entries if e.is_file(follow_symlinks=False)}, place / "index.json"
    if index.name not in sizes:
        raise InputError(f"{index}: no such file, or a link; copy the shards again, or give data.shards=PLACE")
    for name, size in _check_index(index.read_bytes(), str(index), blocks).items():
        if name not in sizes:
            raise InputError(f"{place / name}: no such file, or a link; copy the shards again")
        # LitData would wait for the rest, as of a shard that is just being fetched
        if sizes[name] < size:
            raise InputError(f"{place / name}: {sizes[name]:,} of {size:,} bytes; copy the shards again")


def _fetch_index(url: str, blocks: int) -> Path:
    """Return a folder of LitData's cache for the shards at an address, their index.json in it.

    LitData fetches one itself only where there is none, so it reads the one that was checked.
    """
    from litdata.streaming.downloader import get_downloader

    cache = Path(os.environ.get("LITDATA_CACHE_DIR") or "~/.lightning/chunks").expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="index-", dir=cache) as folder:
        index = Path(folder, "index.json")
        try:
            get_downloader(url, folder, []).download_file(f"{url}/index.json", str(index))
            content = index.read_bytes()
        except Exception as error:  # of each kind of address another
            raise InputError(f"{url}/index.json: could not be fetched: {_reason(error)}") from error
        _check_index(content, f"{url}/index.json", blocks)
        own = cache / hashlib.sha256(f"{url}\0".encode() + content).hexdigest()
        own.mkdir(exist_ok=True)
        os.replace(index, own / "index.json")
    return own


def _check_index(content: bytes, name: str, blocks: int) -> dict[str, int]:
    """Return the shards in an index.json, name to bytes; InputError where it is none of ours, of so many blocks."""
    try:
        index = json.loads(content)
        config, chunks = index["config"], index["chunks"]
        files, sizes = {chunk["filename"]: chunk["chunk_bytes"] for chunk in chunks}, [c["chunk_size"] for c in chunks]
        ours = (
            {key: value for key, value in config.items() if key not in _IDLE and value is not None} == _CONFIG
            and all(_SHARD.fullmatch(file) for file in files)
            and all(type(n) is int and n > 0 for n in [*sizes, *files.values()])
            and len(files) == len(chunks)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        ours = False
    if not ours:
        raise InputError(f"{name}: not of shards that prepare.py wrote, so it is not read; prepare the data again")
    if sum(sizes) != blocks:
        raise InputError(f"{name}: of {sum(sizes)} blocks of images, but {ROWS} is of {blocks}; copy the shards again")
    return files


def read_images(folder: str | Path, split: str, shards: str | None = None) -> np.ndarray:
    """Read all images of a split, uint8 (n, ...) as `read_column` gives those of a prepared file."""
    images, n = StreamImages(folder, split, shards), read_info(folder).rows(split)
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

    ``shards`` is where its sub-folders will be copied to, a note for those who read them; the other arguments are those
    of `write_store`.

    Raises:
        InputError: there is such a folder, or LitData is not installed.
    """
    require_litdata()
    from litdata.streaming import Cache

    with replacing_folder(out) as temporary:
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
    return read_info(out)


def require_litdata() -> None:
    """Refuse to go on where LitData can't be imported."""
    try:
        import litdata  # noqa: F401
    except ImportError as error:
        raise InputError('shards need LitData: pip install ".[stream]" in the checkout') from error
