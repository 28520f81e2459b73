"""Faces that stay in the HDF5 file until a batch asks for them, and the choice of where faces are kept."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from fer.data.storage.hdf5 import StoreInfo, read_info, unreadable

#: Bytes of a block. The images of a prepared file lie one after the other, so any run of rows is one read. Smaller
#: blocks shuffle better and cost more reads; docs/scaling.md has both measured.
_BLOCK_BYTES = 256 << 10
#: Blocks among which an epoch's rows are shuffled. Twice as many are held, for the batch that ends one buffer and
#: begins the next.
BUFFER_BLOCKS = 256


class DiskImages:
    """The images of one split, read in blocks when rows of them are asked for; a process holds 128 MiB at most.

    Each process opens the file for itself, because an HDF5 handle survives neither fork nor pickling.
    """

    def __init__(self, file: str | Path, split: str) -> None:
        self._file, self._split = Path(file), split
        self._face = read_info(file).face
        self.block_rows = block_rows(self._face.shape)
        #: what `_open` gives, which `_read` understands
        self._images: Any = None
        self._process: int | None = None
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        """Return the images of rows int64 (N,) as uint8 (N, C, H, W)."""
        if self._process != os.getpid():
            self._images, self._process, self._blocks = self._open(), os.getpid(), OrderedDict()
        rows = index.numpy()
        images = np.empty((len(rows), *self._face.shape), np.uint8)
        blocks = rows // self.block_rows
        order = np.argsort(blocks, kind="stable")
        needed, starts = np.unique(blocks[order], return_index=True)
        for block, places in zip(needed.tolist(), np.split(order, starts[1:]), strict=True):
            images[places] = self._block(block)[rows[places] - block * self.block_rows]
        return channels_first_view(torch.from_numpy(images))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_images": None, "_process": None, "_blocks": OrderedDict()}

    def _open(self) -> Any:
        try:
            return h5py.File(self._file, "r")[self._split]["image"]
        except (OSError, KeyError) as error:
            raise unreadable(self._file) from error

    def _read(self, number: int) -> np.ndarray:
        try:
            return self._images[number * self.block_rows : (number + 1) * self.block_rows]
        except (OSError, RuntimeError) as error:
            raise unreadable(self._file) from error

    def _block(self, number: int) -> np.ndarray:
        """Return a block's images, read or still held; the one not used for longest makes room."""
        if number not in self._blocks:
            self._blocks[number] = self._read(number)
            if len(self._blocks) > 2 * BUFFER_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]


def block_rows(shape: tuple[int, ...]) -> int:
    """Return how many images of a shape make a block."""
    return max(1, _BLOCK_BYTES // int(np.prod(shape)))


def channels_first_view(images: torch.Tensor) -> torch.Tensor:
    """Return stored images, grey (N, H, W) or RGB (N, H, W, 3), as a view (N, C, H, W)."""
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)


def choose_keep(info: StoreInfo, device: torch.device, processes: int) -> str:
    """Return where the faces of train and val are kept: "device", "memory" or "disk", the first that has room.

    The device is an accelerator, and they fill at most a quarter of what it has free; memory, at most half of what the
    machine has, once for each of its training processes. Without such an accelerator "device" would be memory.
    """
    size = sum(info.rows(split) for split in ("train", "val")) * int(np.prod(info.face.shape))
    if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] / 4:
        return "device"
    return "memory" if size * processes <= available_memory() / 2 else "disk"


def available_memory() -> int:
    """Return the bytes that programs can still take: of this job's cgroup on Linux, all that is built in elsewhere."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return min([int(fields["MemAvailable"].split()[0]) * 1024, *cgroup_limits()])


def cgroup_limits(member: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return the memory limits in bytes of this process's cgroup and of those above it, of version 2 or 1.

    ``member`` is the file that names the cgroup, as SLURM and systemd make one for each job; in a container it may name
    one that only the host can see, and ``root`` is then the container's own.
    """
    limits = []
    for line in member.read_text().splitlines() if member.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):
            if (folder / name).is_file() and (text := (folder / name).read_text().strip()) != "max":
                limits.append(int(text))
            if folder == top:
                break
    return limits
