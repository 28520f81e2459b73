"""From a prepared file to the first training batch: FaceDataModule, its time and memory beside their limits.

    python benchmarks/open_file.py

Writes a file of fer2021's size (316,110 training rows of 48x48 grey, 3,589 val) into a temporary folder. Each program
runs in its own process, in turn; clock and memory start after the imports. Ours goes from constructing FaceDataModule
to its first batch of 64; the reference opens the same file as the original, with h5py's core driver and np.asarray of
the training pixels, and serves no batch. The file has just been written, so no disk is waited for. Limits: under 5 s,
and less than 0.9 GiB resident above the imports.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import measure
import numpy as np

from fer.data.loading.datamodule import FaceDataModule
from fer.data.source import SPLITS, FaceFormat, Faces, empty_faces
from fer.data.storage.hdf5 import write_store
from fer.labels import CLASSES

ROWS = {"train": 316_110, "val": 3_589}


def original(file: str) -> None:
    """Open a file as the original does: the core driver reads it whole, then the training pixels are copied."""
    opened = h5py.File(file, "r", driver="core")
    pixels = np.asarray(opened["train/image"]).reshape(-1, 48, 48)
    assert len(pixels) == ROWS["train"]


def ours(file: str) -> None:
    """Open a file as train.py does, up to the first batch."""
    module = FaceDataModule(file, batch_size=64)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch.image.shape == (64, 1, 48, 48)


def blocks() -> Iterator[Faces]:
    """Yield random faces and labels, 4,096 rows at most at a time."""
    rng = np.random.default_rng(0)
    for split, rows in ROWS.items():
        for start in range(0, rows, 4096):
            n = min(4096, rows - start)
            faces = empty_faces(n, FaceFormat())
            faces.image[:] = rng.integers(0, 256, faces.image.shape, np.uint8)
            faces.label[:] = rng.integers(0, len(CLASSES), n)
            faces.split[:] = SPLITS.index(split)
            faces.path = [str(start + row) for row in range(n)]
            yield faces


def main() -> None:
    """Write the file, run both programs in turn and print what ours took beside the limits."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "fer2021.h5")
        write_store(file, blocks, CLASSES, ("random",), FaceFormat(), False, {})
        best = measure.take_turns(__file__, {"original": (file,), "ours": (file,)})
    taken = best["ours"]
    print(f"first batch after {taken['seconds']:.2f} s (limit 5 s), {taken['gib']:.2f} GiB at the peak (limit 0.9 GiB)")
    faster, smaller = (best["original"][key] / taken[key] for key in ("seconds", "gib"))
    print(f"ratio {faster:.1f} in time, {smaller:.1f} in memory, against the original way")


if __name__ == "__main__":
    measure.serve({"original": original, "ours": ours})
    main()
