"""One split of a prepared file as whole batches, and the rows of each batch of an evaluation."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from fer.data.storage.hdf5 import read_column
from fer.data.storage.lazy_images import DiskImages, channels_first_view
from fer.data.storage.shards import StreamImages, read_images
from fer.errors import InputError

#: Faces in a batch where no gradient is kept.
EVAL_BATCH = 256


class Batch(NamedTuple):
    """Faces of one step in one process.

    Attributes:
        image: uint8 (N, C, H, W), 0 to 255.
        label: int64 (N,), the classes.
        rows: int64 (N,), the rows in the split, or None.
        share: this process's part of the global batch times the number of processes; 1.0 but in a last batch that does
            not divide evenly.
        target: float32 (N, classes), probabilities to train on in place of the labels, or None.
    """

    image: torch.Tensor
    label: torch.Tensor
    rows: torch.Tensor | None = None
    share: float = 1.0
    target: torch.Tensor | None = None


class FaceDataset(Dataset):
    """One split of a prepared file or of a folder of shards; asked for a list of rows it gives a Batch.

    Images are a tensor on ``device``, where labels, ``target`` (n, classes) and the rows asked for are too, or with
    ``disk`` stay where they are. Worker processes can be started by fork or by spawn, if the device is the CPU.
    ``shards`` is where the user says that those of the folder lie (see `StreamImages`).
    """

    def __init__(
        self,
        file: str | Path,
        split: str,
        device: torch.device | str = "cpu",
        disk: bool = False,
        target: torch.Tensor | None = None,
        shards: str | None = None,
    ) -> None:
        folder = Path(file).is_dir()
        if shards and not folder:
            raise InputError(f"data.shards={shards}: {file} is no folder of shards; leave it out")
        self.images: torch.Tensor | DiskImages
        if disk:
            self.images = StreamImages(file, split, shards) if folder else DiskImages(file, split)
        else:
            pixels = read_images(file, split, shards) if folder else read_column(file, split, "image")
            self.images = channels_first_view(torch.from_numpy(pixels)).to(device)
        self.labels = torch.from_numpy(read_column(file, split, "label")).to(device)
        self.target = None if target is None else target.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: tuple[torch.Tensor, float]) -> Batch:
        numbers, share = rows
        target = None if self.target is None else self.target[numbers]
        return Batch(self.images[numbers], self.labels[numbers], numbers, share, target)


class FoldDataset(FaceDataset):
    """Some rows of several splits of a prepared file or folder of shards, in memory or on ``device``, as one.

    ``rows`` are the numbers int64 of each split's rows (see `Folds`); the other arguments are those of `FaceDataset`.
    """

    def __init__(
        self,
        file: str | Path,
        rows: Mapping[str, np.ndarray],
        device: torch.device | str = "cpu",
        target: torch.Tensor | None = None,
        shards: str | None = None,
    ) -> None:
        images, labels = [], []
        for split, numbers in rows.items():
            whole, index = FaceDataset(file, split, shards=shards), torch.from_numpy(numbers)
            images.append(whole.images[index])
            labels.append(whole.labels[index])
        self.images, self.labels = torch.cat(images).to(device), torch.cat(labels).to(device)
        self.target = None if target is None else target.to(device)


class EvalBatches(Sampler):
    """Rows of each evaluation step, in file order; every row is seen by exactly one rank."""

    def __init__(self, n: int, rank: int = 0, ranks: int = 1, device: torch.device | str = "cpu") -> None:
        self._rows = torch.arange(rank, n, ranks, device=device)

    def __len__(self) -> int:
        return -(-len(self._rows) // EVAL_BATCH)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, float]]:
        for rows in self._rows.split(EVAL_BATCH):
            yield rows, 1.0
