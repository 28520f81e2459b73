"""Prepared faces as LitData shards, for object storage: a folder with one set of shards a split, and rows.h5.

``rows.h5`` is the prepared file (see `fer.data.storage.hdf5`) without its images. It has two attributes more:
``block_rows`` and, if the shards were to be copied away, ``shards``, where to, such as s3://bucket/affectnet. An item
of LitData's is a block of images, uint8 (block_rows, ...), as `DiskImages` reads them: epochs have the same order.

LitData writes the shards, and fetches single files of an address. It reads none: it would unpickle, that is run, what
an ``index.json`` tells it to, from and into any folder, and where several processes fetch the same shard it can wait
for one that none of them fetches. No place is read that a file names: only the folder itself, or where the user says.
"""

import hashlib
import json
import os
import re
import shutil
import struct
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from filelock import FileLock

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


#: LitData's code of uint8; an item is its bytes, this code, the dimensions, how long each is, and the pixels.
_UINT8 = 4
#: While this share of a disk is free, a cache keeps all; else it takes this share of itself and the free part.
_SPARE, _SHARE = 0.1, 0.75


class Shard(NamedTuple):
    """A file of blocks: what it is called, its bytes, and the number of its blocks."""

    name: str
    size: int
    blocks: int


class StreamImages(DiskImages):
    """The images of one split of a folder of shards, read as `DiskImages` reads them.

    ``shards`` is where the user says that they lie, a folder or an address of LitData's; None is in the folder itself.
    Those at an address are fetched when they are first needed and kept in LitData's cache on disk.

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
        self._url: str | None = None
        if shards and _REMOTE.match(shards):
            self._url = f"{shards.rstrip('/')}/{split}"
            self._place, self._shards = _fetch_index(self._url, blocks)
        else:
            self._place = Path(shards, split).expanduser().resolve() if shards else _inside(self._file, named, split)
            self._shards = _require_shards(self._place, blocks)
        #: the first block of each shard
        self._firsts = [0, *accumulate(shard.blocks for shard in self._shards)][:-1]

    def _open(self) -> Any:
        """Return what fetches a file of an address, which no other process can use; None in a folder."""
        if self._url is None:
            return None
        from litdata.streaming.downloader import get_downloader

        return get_downloader(self._url, str(self._place), [])

    def _read(self, number: int) -> np.ndarray:
        at = bisect_right(self._firsts, number) - 1
        shard, where = self._shards[at], self._url or self._place
        shape = (min(self.block_rows, self._n - number * self.block_rows), *self._face.shape)
        try:
            item = self._item(shard, number - self._firsts[at], shape)
        except (OSError, struct.error) as error:
            raise InputError(f"{where}: block {number} of its images can't be read: {_reason(error)}") from error
        if item is None:
            raise InputError(f"{where}: block {number} is not the images that {self._file / ROWS} tells of")
        return item

    def _item(self, shard: Shard, number: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return an item of a shard that is pixels of a shape, None where it is anything else."""
        size = int(np.prod(shape))
        head = struct.pack(f"<{3 + len(shape)}I", 4 * (2 + len(shape)) + size, _UINT8, len(shape), *shape)
        with self._whole(shard) as file:
            # the number of items, where each begins, where the last one ends
            file.seek(4 * (1 + number))
            start, end = struct.unpack("<2I", file.read(8))
            if end - start != len(head) + size:
                return None
            file.seek(start)
            content = file.read(end - start)
        if len(content) != end - start or not content.startswith(head):
            return None
        return np.frombuffer(content, np.uint8, offset=len(head)).reshape(shape)

    def _whole(self, shard: Shard) -> Any:
        """Open a shard, fetched where it lies at an address and the cache does not have it."""
        path = self._place / shard.name
        if self._url is None:
            return open(path, "rb")
        while True:
            # another process may make room of it at any moment, but not of an open file
            with suppress(FileNotFoundError):
                file = open(path, "rb")
                if os.fstat(file.fileno()).st_size == shard.size:
                    return file
                file.close()
            lock = FileLock(f"{path}.lock")
            with lock:
                # others have waited for the one that fetched it
                if not path.is_file() or path.stat().st_size != shard.size:
                    _make_room(self._place.parent, shard.size)
                    _fetch(self._images, f"{self._url}/{shard.name}", path, shard.size)
                with suppress(OSError):
                    os.unlink(lock.lock_file)


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


def _require_shards(place: Path, blocks: int) -> list[Shard]:
    """Return the shards of a split that are in a folder; InputError where it has not all, as files of its own."""
    entries = os.scandir(place) if place.is_dir() else ()
    sizes, index = {e.name: e.stat().st_size for e in entries if e.is_file(follow_symlinks=False)}, place / "index.json"
    if index.name not in sizes:
        raise InputError(f"{index}: no such file, or a link; copy the shards again, or give data.shards=PLACE")
    shards = _check_index(index.read_bytes(), str(index), blocks)
    for name, size, _ in shards:
        if name not in sizes:
            raise InputError(f"{place / name}: no such file, or a link; copy the shards again")
        if sizes[name] < size:
            raise InputError(f"{place / name}: {sizes[name]:,} of {size:,} bytes; copy the shards again")
    return shards


def _fetch_index(url: str, blocks: int) -> tuple[Path, list[Shard]]:
    """Return a folder in LitData's cache for the shards at an address, and what they are."""
    from litdata.streaming.downloader import get_downloader

    cache = Path(os.environ.get("LITDATA_CACHE_DIR") or "~/.lightning/chunks").expanduser()
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index.json")
        _fetch(get_downloader(url, folder, []), f"{url}/index.json", index)
        content = index.read_bytes()
    shards = _check_index(content, f"{url}/index.json", blocks)
    own = cache / hashlib.sha256(f"{url}\0".encode() + content).hexdigest()
    own.mkdir(parents=True, exist_ok=True)
    return own, shards


def _fetch(downloader: Any, url: str, path: Path, size: int | None = None) -> None:
    """Fetch a file of so many bytes, which gets its name when it is whole."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as folder:
        fetched = Path(folder, path.name)
        try:
            downloader.download_file(url, str(fetched))
            got = fetched.stat().st_size
        except Exception as error:  # of each kind of address another
            raise InputError(f"{url}: could not be fetched: {_reason(error)}") from error
        if size is not None and got != size:
            raise InputError(f"{url}: {got:,} of {size:,} bytes; copy the shards again")
        os.replace(fetched, path)


def _make_room(cache: Path, size: int) -> None:
    """Remove the shards that were fetched first where a cache with ``size`` bytes more would fill its disk."""
    total, _, free = shutil.disk_usage(cache)
    if free - size >= _SPARE * total:
        return
    held = []
    for path in cache.glob("*/chunk-*.bin"):
        # another process may be at it
        with suppress(FileNotFoundError):
            held.append((path.stat().st_mtime, path.stat().st_size, path))
    taken = sum(each for _, each, _ in held)
    over = taken + size - _SHARE * (taken + free)
    for _, each, path in sorted(held):
        if over <= 0:
            return
        path.unlink(missing_ok=True)
        over -= each


def _check_index(content: bytes, name: str, blocks: int) -> list[Shard]:
    """Return the shards that an index.json tells of; InputError where it is none of ours, of so many blocks."""
    shards: list[Shard] = []
    try:
        index = json.loads(content)
        config = index["config"]
        shards = [Shard(each["filename"], each["chunk_bytes"], each["chunk_size"]) for each in index["chunks"]]
        ours = (
            {key: value for key, value in config.items() if key not in _IDLE and value is not None} == _CONFIG
            and all(_SHARD.fullmatch(shard.name) for shard in shards)
            and all(type(n) is int and n > 0 for shard in shards for n in shard[1:])
            and len({shard.name for shard in shards}) == len(shards)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        ours = False
    if not ours:
        raise InputError(f"{name}: not of shards that prepare.py wrote, so it is not read; prepare the data again")
    if (held := sum(shard.blocks for shard in shards)) != blocks:
        raise InputError(f"{name}: of {held} blocks of images, but {ROWS} is of {blocks}; copy the shards again")
    return shards


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
