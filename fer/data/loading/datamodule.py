"""FaceDataModule: a prepared HDF5 file as batches of uint8 faces, which are on the device, in memory or on disk."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from fer.data.folds import Folds, draw_folds
from fer.data.loading.dataset import EvalBatches, FaceDataset, FoldDataset
from fer.data.loading.samplers import Order, TrainBatches
from fer.data.readers.ferplus import apply_votes
from fer.data.storage.hdf5 import StoreInfo, has_column, read_column, read_info
from fer.data.storage.lazy_images import DiskImages, choose_keep
from fer.errors import InputError
from fer.system.command import command

Whole = TypeVar("Whole")


def _as_it_is(batch: Whole) -> Whole:
    """Collate nothing: the data set gives whole batches. A named function, because spawn must pickle it."""
    return batch


class FaceDataModule(pl.LightningDataModule):
    """Train and val splits, and for ``Trainer.test`` test, of a prepared file or of a folder of LitData shards.

    Args:
        file: the prepared file, or a folder of shards.
        batch_size: faces a step, over all devices together.
        seed: decides the order of the faces.
        num_workers: processes that load data; 0 is the training process itself.
        keep: where the faces are. "device": uint8 beside the model. "memory". "disk": in the file or the shards, where
            an epoch is shuffled among blocks of rows. "auto": the first of these with room.
        sampler: "shuffle", or "balanced": rows drawn with replacement, each class as often as any other.
        votes: what to make of FER+ votes in training: "none", "soft" or "clean", as ``recipe.votes`` explains.
        shards: where the shards of the folder lie: a folder or an address. None: in the folder.
        folds: a number, or "persons" for one fold a person: train and val are drawn from all rows. None: no folds.
        fold: with ``folds``, the fold that is val, from 0; all others are train.
        fold_seed: decides which division into folds it is.
        fixed: train in the same order in each epoch.

    Raises:
        InputError: the file is missing or not prepared, or has no train or val split, no such folds, or not the votes
            to train on.
    """

    def __init__(
        self,
        file: str | Path,
        batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
        keep: str = "auto",
        sampler: str = "shuffle",
        votes: str = "none",
        shards: str | None = None,
        folds: int | str | None = None,
        fold: int | None = None,
        fold_seed: int = 0,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        self.info: StoreInfo = read_info(file)
        #: by the name of what they are here, the rows of each split of the file; None where that is the split itself
        self._rows: dict[str, dict[str, np.ndarray]] | None = None
        #: what tells this division from another one
        self._division = "" if folds is None else f"folds={folds} fold={fold} seed={fold_seed}"
        if folds is not None:
            self._rows = _fold_rows(draw_folds(file, folds, fold_seed), fold, keep)
        for split in () if self._rows else ("train", "val"):
            if not self.info.rows(split):
                raise InputError(
                    f"{file}: has no {split} split, which training needs; prepare it again from raw data that has one, "
                    "or with data.val_fraction=0.1 where data= takes it"
                )
        voted = self._rows["train"] if self._rows else ("train",)
        if votes != "none" and not all(has_column(file, split, "votes") for split in voted):
            raise InputError(
                f"{file}: has no FER+ votes, which recipe.votes={votes} needs; prepare it again from FER2013's csv "
                "with data.votes=fer2013new.csv"
            )
        self._file, self._batch_size, self._seed, self._workers = file, batch_size, seed, num_workers
        self._keep, self._sampler, self._votes, self._shards = keep, sampler, votes, shards
        self._fixed = fixed
        self._resume_step = 0
        self._splits: dict[str, FaceDataset] = {}

    def setup(self, stage: str) -> None:
        if ("test" if stage == "test" else "train") in self._splits:
            return
        self._choose_place()
        disk = self._keep == "disk"
        if stage == "test":
            if self._rows or not self.info.rows("test"):
                raise InputError(
                    f"{self._file}: has no test split{' beside the folds' if self._rows else ''}; Trainer.validate "
                    f"scores val, and `{command('evaluate')} split=...` any other"
                )
            self._splits["test"] = FaceDataset(self._file, "test", self._device, disk, shards=self._shards)
            return
        rows, target = self._training_rows()
        if self._rows:
            train: FaceDataset = FoldDataset(self._file, self._rows["train"], self._device, target, self._shards)
            val: FaceDataset = FoldDataset(self._file, self._rows["val"], self._device, shards=self._shards)
        else:
            train = FaceDataset(self._file, "train", self._device, disk, target, self._shards)
            val = FaceDataset(self._file, "val", self._device, disk, shards=self._shards)
        self._splits |= {"train": train, "val": val}
        self._order = Order(
            rows,
            train.labels.cpu()[rows] if self._sampler == "balanced" else None,
            train.images.block_rows if isinstance(train.images, DiskImages) else None,
        )

    def _choose_place(self) -> None:
        """Choose where the faces are, by the free memory where nothing says so."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if self._keep == "auto":
            self._keep = choose_keep(self.info, device, self.trainer.num_devices if self.trainer else 1)
            if self.trainer:
                # ranks that chose differently would draw different orders
                self._keep = self.trainer.strategy.broadcast(self._keep)
            if self._rows and self._keep == "disk":
                raise InputError(f"{self._file}: data.folds keeps faces in memory, which has no room for these")
            if self._keep != "memory":
                self._print(f"data.keep=auto: the faces are kept on {self._keep}")
        self._device = device if self._keep == "device" else torch.device("cpu")

    def _training_rows(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the rows to train on, and the targets of all rows where votes give them."""
        n = self.rows("train")
        if self._votes == "none":
            return torch.arange(n), None
        kept, target = apply_votes(self._votes, self.column("train", "votes"), self.info.class_names)
        rows = torch.from_numpy(np.flatnonzero(kept))
        if not len(rows):
            raise InputError(f"{self._file}: recipe.votes={self._votes} leaves no row to train on")
        self._print(f"recipe.votes={self._votes}: trained on {len(rows):,} of {n:,} rows")
        return rows, None if target is None else torch.from_numpy(target)

    def _print(self, line: str) -> None:
        if not self.trainer or self.trainer.is_global_zero:
            print(line)

    def train_dataloader(self) -> DataLoader:
        sampler = self._batches()
        sampler.start, self._resume_step = self._resume_step, 0
        return self._loader(self._splits["train"], sampler)

    def training_batches(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._batches())

    def _batches(self) -> TrainBatches:
        return TrainBatches(
            len(self._order),
            self._batch_size,
            self._seed,
            *self._rank(),
            order=self._order,
            device=self._device,
            fixed=self._fixed,
        )

    def val_dataloader(self) -> DataLoader:
        val = self._splits["val"]
        return self._loader(val, EvalBatches(len(val), *self._rank(), device=self._device))

    def test_dataloader(self) -> DataLoader:
        """Return the batches of the file's test split; with folds it is a part of them, and there is none."""
        test = self._splits["test"]
        return self._loader(test, EvalBatches(len(test), *self._rank(), device=self._device))

    def identities(self) -> dict[str, torch.Tensor]:
        """Return the hashes by which evaluation knows what a model was trained and selected on."""
        return {
            "train_rows": torch.from_numpy(np.unique(self.column("train", "row"))),
            "train_faces": torch.from_numpy(np.unique(self.column("train", "face"))),
            "val_rows": torch.from_numpy(np.unique(self.column("val", "row"))),
        }

    @property
    def labels(self) -> list[str]:
        """The names of the classes."""
        return list(self.info.class_names)

    @property
    def drawn(self) -> bool:
        """Whether the faces are of the drawn sample."""
        return self.info.drawn

    def counts(self) -> list[int]:
        """Return the training faces of each class."""
        return np.bincount(self.column("train", "label"), minlength=len(self.labels)).tolist()

    def rows(self, split: str) -> int:
        """Return the number of rows of train or val."""
        if self._rows is None:
            return self.info.rows(split)
        return sum(map(len, self._rows[split].values()))

    def column(self, split: str, name: str) -> np.ndarray:
        """Return a column of train or val, in the order of its rows."""
        if self._rows is None:
            return read_column(self._file, split, name)
        return np.concatenate([read_column(self._file, s, name)[rows] for s, rows in self._rows[split].items()])

    def state_dict(self) -> dict[str, Any]:
        """Return the step within the epoch, which a run interrupted between two epochs' ends needs, and the order."""
        assert self.trainer, "only a trainer asks for it"
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        done = progress.current.completed
        # before the last step of an epoch its batch is the last one too, but not done
        ended = progress.is_last_batch and progress.current.ready == done
        order = {"step": 0 if ended else done, "disk": self._keep == "disk"} | self._step_keys()
        return order | {"division": self._division}

    def _step_keys(self) -> dict[str, int]:
        """Return what decides beside the rows which faces the steps of an epoch have seen."""
        return {"batch_size": self._batch_size, "seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if str(was := state_dict.get("division", "")) != self._division:
            # what it validates on was trained on otherwise
            raise InputError(
                f"resume: the run was one of {str(was) or 'the splits, without folds'}, not of "
                f"{self._division or 'the splits'}; give the same data.folds, data.fold and data.seed"
            )
        disk = state_dict.get("disk", False)
        if state_dict["step"] and disk != (self._keep == "disk"):
            raise InputError(
                "resume: the run was cut in the middle of an epoch, whose order is another with data.keep=disk; "
                f"resume it with data.keep={'disk' if disk else 'memory'}"
            )
        for key, value in self._step_keys().items():
            # checkpoints of before do not tell
            if state_dict["step"] and (was := state_dict.get(key, value)) != value:
                raise InputError(
                    f"resume: the run was cut in the middle of an epoch, whose steps are others with {key}={value}; "
                    f"resume it with {key}={was}"
                )
        self._resume_step = state_dict["step"]

    def _rank(self) -> tuple[int, int]:
        """Return the number of this process and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: FaceDataset, sampler: Sampler) -> DataLoader:
        # what is on the device is indexed there, which no worker process can do
        workers = 0 if self._keep == "device" else self._workers
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available() and self._keep != "device",
        )


def _fold_rows(folds: Folds, fold: int | None, keep: str) -> dict[str, dict[str, np.ndarray]]:
    if fold is None or not 0 <= fold < len(folds):
        raise InputError(
            f"data.fold={fold}: not one of the folds 0..{len(folds) - 1} of {folds.file}; all of them: "
            f"{command('train')} -m 'data.fold=range({len(folds)})' ..."
        )
    if keep == "disk":
        raise InputError("data.keep=disk: data.folds keeps faces in memory or on the device; give another")
    return {"train": folds.train(fold), "val": folds.val(fold)}
