"""Faces read in shuffled order from a file four times the memory that the process may use, page cache included.

    python benchmarks/beyond_memory.py [--memory 1024] [--batches 2500] [--turns 2] [--file FILE.h5]

Writes random faces of 96 x 96 grey, four times ``--memory`` MiB of them, unless ``--file`` is there already. Each
program then runs in a process of its own inside a new memory cgroup of that limit, which counts the page cache; what
the file has in the page cache is dropped before. Ours is the training split of ``data.keep=disk`` as train.py reads it,
in batches of 64, with 0 and 2 worker processes; the reference asks h5py for as many rows, one by one in the order of a
full permutation. Linux, and the right to make a cgroup (root, or a delegated one). Target: at least 2,000 images/s.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import measure
import numpy as np
import torch

from fer.data.loading.datamodule import FaceDataModule
from fer.data.source import SPLITS, FaceFormat, Faces, empty_faces
from fer.data.storage.hdf5 import write_store
from fer.labels import CLASSES

FACE = FaceFormat(size=96)
BATCH = 64


def ours(file: str, batches: str, workers: str) -> float:
    """Read batches as train.py does; returns the seconds from the first request on."""
    module = FaceDataModule(file, BATCH, keep="disk", num_workers=int(workers))
    module.setup("fit")
    start = time.perf_counter()
    loader = iter(module.train_dataloader())
    for _ in range(int(batches)):
        assert next(loader).image.shape == (BATCH, 1, 96, 96)
    return time.perf_counter() - start


def row_by_row(file: str, batches: str) -> float:
    """Read the rows of a full permutation one after the other."""
    with h5py.File(file, "r") as opened:
        images = opened["train/image"]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        start = time.perf_counter()
        for rows in order[: int(batches) * BATCH].split(BATCH):
            assert np.stack([images[row] for row in rows.tolist()]).shape == (BATCH, 96, 96)
        return time.perf_counter() - start


def write(file: Path, size: int) -> None:
    """Write random faces of ``size`` bytes to train, and a few to val, which a data module wants."""
    rows = {"train": size // (96 * 96), "val": 64}

    def blocks() -> Iterator[Faces]:
        rng = np.random.default_rng(0)
        for split, count in rows.items():
            for start in range(0, count, 4096):
                n = min(4096, count - start)
                faces = empty_faces(n, FACE)
                faces.image = rng.integers(0, 256, faces.image.shape, np.uint8)
                faces.label[:] = rng.integers(0, len(CLASSES), n)
                faces.split[:] = SPLITS.index(split)
                faces.path = [str(start + row) for row in range(n)]
                yield faces

    write_store(file, blocks, CLASSES, ("random",), FACE, False, {})


@contextmanager
def cgroup(limit: int) -> Iterator[tuple[Path, str]]:
    """Give a new memory cgroup of ``limit`` bytes below our own, and the name of its file with the peak use."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = {controllers: path.lstrip("/") for _, controllers, path in lines}
    if "memory" in own:
        parent, files = (
            Path("/sys/fs/cgroup/memory", own["memory"]),
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        )
    else:
        parent, files = Path("/sys/fs/cgroup", own[""]), ("memory.max", "memory.peak")
    folder = parent / f"beyond_memory_{os.getpid()}"
    try:
        folder.mkdir()
        (folder / files[0]).write_text(str(limit))
    except OSError as error:
        sys.exit(f"{folder}: no memory cgroup can be made here ({error.strerror}); run it as root, or in a container")
    try:
        yield folder, files[1]
    finally:
        folder.rmdir()


def limited(file: Path, limit: int, program: str, *arguments: object) -> dict[str, float]:
    """Run a program in a new cgroup, with nothing of the file in the page cache; adds MiB: ``peak`` and ``read``."""
    handle = os.open(file, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)
    with cgroup(limit) as (folder, peak):
        command = [sys.executable, __file__, "--child", program, str(file), *map(str, arguments)]
        enter = ["sh", "-c", f'echo $$ > "{folder}/cgroup.procs" && exec "$@"', "sh"]
        sectors = _sectors(file)
        done = subprocess.run(enter + command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{program} failed:\n{done.stderr}")
        result = json.loads(done.stdout.splitlines()[-1])
        return result | {
            "peak": int((folder / peak).read_text()) / 2**20, "read": (_sectors(file) - sectors) * 512 / 2**20
        }  # fmt: skip


def _sectors(file: Path) -> int:
    """Return the sectors of 512 bytes that were read so far from the disk which holds the file."""
    device = file.stat().st_dev
    return int(Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()[2])


def main() -> None:
    """Write the file, run each program in turn and print rates, peak memory and what came from the disk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, default=1024, help="MiB that the process may use")
    parser.add_argument("--batches", type=int, default=2500)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        file = options.file or Path(folder, "faces.h5")
        if not file.exists():
            write(file, 4 * options.memory << 20)
        images, limit = options.batches * BATCH, options.memory << 20
        print(f"{file.stat().st_size / 2**20:,.0f} MiB; {options.memory:,} MiB allowed; {images:,} images a run")
        programs = {
            "ours, 0 workers": ("ours", options.batches, 0), "ours, 2 workers": ("ours", options.batches, 2),
            "row by row": ("row_by_row", options.batches),
        }  # fmt: skip
        rates = {name: [] for name in programs}
        for _ in range(options.turns):
            for name, arguments in programs.items():
                result = limited(file, limit, *arguments)
                rates[name].append(images / result["seconds"])
                print(f"{name:16} {rates[name][-1]:7,.0f} images/s, peak {result['peak']:,.0f} MiB, "
                      f"{result['read']:,.0f} MiB read from the disk", flush=True)  # fmt: skip
    worst = min(min(runs) for name, runs in rates.items() if name != "row by row")
    print(f"slowest run of ours {worst:,.0f} images/s (target: at least 2,000)")
    print(f"ratio {max(rates['ours, 0 workers']) / max(rates['row by row']):.1f} against row by row")


if __name__ == "__main__":
    measure.serve({"ours": ours, "row_by_row": row_by_row})
    main()
