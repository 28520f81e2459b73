"""One split of a prepared file as whole batches, and the rows of each batch of an evaluation."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset, Sampler

from fer.data.storage.hdf5 import read_column
from fer.data.storage.lazy_images import DiskImages, channels_first
from fer.data.storage.shards import StreamImages, read_images

#: Faces in a batch where no gradient is kept.
EVAL_BATCH = 256


class Batch(NamedTuple):
    """Faces of one step on one rank.

    ``image`` uint8 (N, C, H, W), ``label`` int64 (N,), ``index`` int64 (N,), the row in the split, and ``share``: this
    rank's part of the global batch times the number of ranks, 1.0 but in a last batch that does not divide evenly.
    ``target`` float32 (N, classes), the probabilities to train on in place of the labels, or None.
    """

    image: torch.Tensor
    label: torch.Tensor
    index: torch.Tensor  # type: ignore[assignment]  # a tuple's own method, which is of no use here
    share: float
    target: torch.Tensor | None = None


class FaceDataset(Dataset):
    """One split of a prepared file or of a folder of shards; asked for a list of rows it gives a Batch.

    Images are a tensor on ``device``, where labels, ``target`` (n, classes) and the rows asked for are too, or with
    ``disk`` stay where they are. Worker processes can be started by fork or by spawn, if the device is the CPU.
    """

    def __init__(
        self,
        file: str | Path,
        split: str,
        device: torch.device | str = "cpu",
        disk: bool = False,
        target: torch.Tensor | None = None,
    ) -> None:
        shards = Path(file).is_dir()
        self.images: torch.Tensor | DiskImages
        if disk:
            self.images = StreamImages(file, split) if shards else DiskImages(file, split)
        else:
            pixels = read_images(file, split) if shards else read_column(file, split, "image")
            self.images = channels_first(torch.from_numpy(pixels)).to(device)
        self.labels = torch.from_numpy(read_column(file, split, "label")).to(device)
        self.target = None if target is None else target.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: tuple[torch.Tensor, float]) -> Batch:
        index, share = rows
        target = None if self.target is None else self.target[index]
        return Batch(self.images[index], self.labels[index], index, share, target)


class EvalBatches(Sampler):
    """Rows of each evaluation step, in file order; every row is seen by exactly one rank."""

    def __init__(self, n: int, rank: int = 0, ranks: int = 1, device: torch.device | str = "cpu") -> None:
        self._rows = torch.arange(rank, n, ranks, device=device)

    def __len__(self) -> int:
        return -(-len(self._rows) // EVAL_BATCH)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, float]]:
        for rows in self._rows.split(EVAL_BATCH):
            yield rows, 1.0
