"""FaceDataModule: a prepared HDF5 file as batches of uint8 faces."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from fer.data.store import StoreInfo, read_column, read_info
from fer.errors import InputError

#: Faces in a batch where no gradient is kept.
EVAL_BATCH = 256


class Batch(NamedTuple):
    """Faces of one step on one rank.

    ``image`` uint8 (N, C, H, W), ``label`` int64 (N,), ``index`` int64 (N,), the row in the split, and ``share``: this
    rank's part of the global batch times the number of ranks, 1.0 but in a last batch that does not divide evenly.
    """

    image: torch.Tensor
    label: torch.Tensor
    index: torch.Tensor
    share: float


class FaceDataset(Dataset):
    """One split in memory; asked for a list of rows it gives a Batch.

    It holds tensors and no HDF5 handle, so worker processes can be started by fork or by spawn.
    """

    def __init__(self, file: str | Path, split: str) -> None:
        images = torch.from_numpy(read_column(file, split, "image"))
        # a grey face has one channel, an RGB face's channels come first; both are views
        self.images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(read_column(file, split, "label"))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: tuple[torch.Tensor, float]) -> Batch:
        index, share = rows
        return Batch(self.images[index], self.labels[index], index, share)


class TrainBatches(Sampler):
    """Rows of each training step: an order that depends on (seed, epoch) alone, each global batch cut among the ranks.

    With any number of ranks the global batches are the same. A last batch with fewer rows than ranks is left out.
    ``start`` skips that many steps of the next pass only, for a run resumed in the middle of an epoch.
    """

    def __init__(self, n: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self._n, self._batch_size, self._seed, self._rank, self._ranks = n, batch_size, seed, rank, ranks
        self._epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls it before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self._n, self._batch_size)
        return full + (rest >= self._ranks)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, float]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(self._n, generator=generator)
        start, self.start = self.start, 0
        for step in range(start, len(self)):
            batch = order[step * self._batch_size : (step + 1) * self._batch_size]
            mine = batch.tensor_split(self._ranks)[self._rank]
            yield mine, len(mine) * self._ranks / len(batch)


class EvalBatches(Sampler):
    """Rows of each evaluation step, in file order; every row is seen by exactly one rank."""

    def __init__(self, n: int, rank: int = 0, ranks: int = 1) -> None:
        self._rows = torch.arange(rank, n, ranks)

    def __len__(self) -> int:
        return -(-len(self._rows) // EVAL_BATCH)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, float]]:
        for rows in self._rows.split(EVAL_BATCH):
            yield rows, 1.0


def _given(batch: Batch) -> Batch:
    """Collate nothing: the data set gives whole batches. A named function, because spawn must pickle it."""
    return batch


class FaceDataModule(pl.LightningDataModule):
    """Train and val splits of a prepared file; ``batch_size`` is global: the number of faces a step over all devices.

    Raises:
        InputError: the file is missing or not prepared, or has no train or val split.
    """

    def __init__(self, file: str | Path, batch_size: int, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__()
        self.info: StoreInfo = read_info(file)
        for split in ("train", "val"):
            if not self.info.rows(split):
                raise InputError(
                    f"{file}: has no {split} split, which training needs; prepare it again from raw data that has one, "
                    "or with data.val_fraction=0.1 where data= takes it"
                )
        self._file, self._batch_size, self._seed, self._workers = file, batch_size, seed, num_workers
        self._resume_step = 0
        self._train: FaceDataset | None = None
        self._val: FaceDataset | None = None

    def setup(self, stage: str) -> None:
        self._train = self._train or FaceDataset(self._file, "train")
        self._val = self._val or FaceDataset(self._file, "val")

    def train_dataloader(self) -> DataLoader:
        sampler = TrainBatches(len(self._train), self._batch_size, self._seed, *self._place())
        sampler.start, self._resume_step = self._resume_step, 0
        return self._loader(self._train, sampler)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self._val, EvalBatches(len(self._val), *self._place()))

    def identities(self) -> dict[str, torch.Tensor]:
        """Return the hashes by which evaluation knows what a model was trained and selected on."""
        return {
            "train_rows": torch.from_numpy(np.unique(read_column(self._file, "train", "row"))),
            "train_faces": torch.from_numpy(np.unique(read_column(self._file, "train", "face"))),
            "val_rows": torch.from_numpy(np.unique(read_column(self._file, "val", "row"))),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the step within the epoch, which a run interrupted between two epochs' ends needs."""
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        done = progress.current.completed
        return {"step": 0 if progress.is_last_batch else done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume_step = state_dict["step"]

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: FaceDataset, sampler: Sampler) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            collate_fn=_given,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
