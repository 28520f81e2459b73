"""Batches of an exported folder's photos to train a net on: drawn at random, read and augmented.

An item is decided by (seed, iteration, index in the batch) alone, so a resumed run goes on with the batches
that it would have had, whatever the number of worker processes. Nothing is kept from one iteration to the next.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import floor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fer.darknet.formats.cfg import cell_side, task_of
from fer.darknet.formats.photo_folder import labels_from_paths
from fer.darknet.formats.section import Section, integer, number, positive
from fer.darknet.scoring.mean_ap import read_truth
from fer.darknet.torch_engine.training.augment import (
    Size,
    augment_classifier,
    classifier_options,
    cutmix,
    draw_cut,
    draw_factor,
    mosaic,
)
from fer.darknet.torch_engine.training.detector_augment import augment_detector, detector_options, mosaic_detector
from fer.darknet.torch_engine.training.reading import PhotoError, open_photo
from fer.errors import InputError

DIALECTS = ("pjreddie", "alexeyab")

# Iterations that random=1 keeps a size for.
_SAME_SIZE = 10
# What these would do to a photo is not built.
_REFUSED = (
    "mixup", "blur", "gaussian_noise", "track", "contrastive", "unsupervised", "dynamic_minibatch", "adversarial_lr",
    "sequential_subdivisions", "center", "max_ratio", "min_ratio",
)  # fmt: skip


def open_boxes(path: str, classes: int) -> np.ndarray:
    """Return a photo's labels (N, 5): class, centre x and y, width, height as fractions of it.

    Raises:
        PhotoError: as `fer.darknet.scoring.mean_ap.read_truth`.
    """
    try:
        truth, [(width, height)] = read_truth([Path(path)], classes)
    except InputError as error:
        raise PhotoError(str(error)) from error
    box = truth.box / (width, height, width, height)
    return np.column_stack([truth.label, box[:, :2] + box[:, 2:] / 2, box[:, 2:]])


class TrainingBatches(Dataset[tuple[Tensor, Tensor]], ABC):
    """Mini-batches to train a net on: item ``iteration * subdivisions + k`` is the k-th of an iteration.

    Each photo is drawn at random from all, with replacement. An item is images uint8 (n, 3, height, width) RGB and what
    `ClassifierBatches` and `DetectorBatches` say. With ``ranks`` processes each has its part of every mini-batch; n =
    batch / subdivisions / ranks. The programs toss the coin for mosaic and cutmix once for many pictures, here each has
    its own.

    Raises:
        InputError: an option that is wrong or not supported; from an item `PhotoError`.
    """

    #: random= of a detector's last [yolo]: how much the size of the images varies.
    random = 0.0

    def __init__(
        self, sections: Sequence[Section], photos: Sequence[str | Path], names: Sequence[str], seed: int,
        dialect: str = "alexeyab", rank: int = 0, ranks: int = 1,
    ) -> None:  # fmt: skip
        net = sections[0]
        _require_supported(net, dialect)
        self.classes, self.seed, self.dialect = len(names), seed, dialect
        self.size = positive(net, "width"), positive(net, "height")
        self.step = positive(net, "resize_step", 32)
        self.iterations = positive(net, "max_batches")
        #: The indices in the batch of every mini-batch.
        self.indices = _mini_batches(net, rank, ranks)
        self.subdivisions = len(self.indices)
        self.mosaic, self.cutmix = (bool(integer(net, key, 0)) for key in ("mosaic", "cutmix"))
        if dialect == "pjreddie" and (self.mosaic or self.cutmix):
            raise InputError(f"{net.where}: mosaic=1 and cutmix=1 are AlexeyAB's: set them to 0")
        # an array: worker processes would copy each text of a list when they count references to it
        self.photos = np.array([os.fsencode(photo) for photo in photos])

    def __len__(self) -> int:
        return self.iterations * self.subdivisions

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        iteration, part = divmod(number, self.subdivisions)
        size = self.size_at(iteration)
        items = [self._make(size, self._generator(0, iteration, i)) for i in self.indices[part]]
        images, targets = zip(*items, strict=True)
        stacked = torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images]))
        return stacked, self._collate(targets)

    def size_at(self, iteration: int) -> Size:
        """Return the width and height of an iteration's images: the net's, or with random=1 another every ten.

        AlexeyAB's: a factor of 1 to 1.4 (a random= that is not 1) or its inverse, to the next multiple of 32 but one;
        the greatest at first, to see whether memory is enough, and for the last 100. Debian's: 320 to 608 whatever the
        net's, and 608 for the last 200.
        """
        if not self.random:
            return self.size
        iteration -= iteration % _SAME_SIZE
        rng = self._generator(1, iteration)
        if self.dialect == "pjreddie":
            side = 608 if iteration + 200 > self.iterations else 32 * int(rng.integers(10, 20))
            return side, side
        limit = 1.4 if self.random == 1 else self.random
        factor = draw_factor(limit, rng)
        if iteration == 0 or iteration > self.iterations - 100:
            factor = limit
        # halves up, as C rounds them
        width, height = (max(1, floor(factor * side / self.step + 1.5)) * self.step for side in self.size)
        grown = factor < 1 and (width > self.size[0] or height > self.size[1])
        return self.size if grown else (width, height)

    @abstractmethod
    def _make(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return an image and its target."""

    @abstractmethod
    def _collate(self, targets: Sequence[np.ndarray]) -> Tensor:
        """Return the targets of a mini-batch."""

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _draw(self, rng: np.random.Generator) -> tuple[int, str]:
        index = int(rng.integers(len(self.photos)))
        return index, os.fsdecode(self.photos[index])


class ClassifierBatches(TrainingBatches):
    """Images and their labels int64 (n,); with mosaic=1 or cutmix=1 shares of the classes float32 (n, classes).

    The shares are without label_smooth_eps.

    Raises:
        InputError: also a photo's path without its class.
    """

    def __init__(
        self, sections: Sequence[Section], photos: Sequence[str | Path], names: Sequence[str], seed: int,
        dialect: str = "alexeyab", rank: int = 0, ranks: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(sections, photos, names, seed, dialect, rank, ranks)
        self.labels = labels_from_paths(photos, names)
        self.options = classifier_options(sections[0], dialect)

    def _make(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return an image and the classes' shares of it (classes,)."""
        image, label = self._draw_photo(size, rng)
        pieces, shares = [label], np.ones(1)
        if (self.mosaic or self.cutmix) and rng.integers(2):
            four = self.mosaic and not (self.cutmix and rng.integers(2))
            others = [self._draw_photo(size, rng) for _ in range(3 if four else 1)]
            pieces += [other for _, other in others]
            if four:
                image, shares = mosaic([image, *(other for other, _ in others)], draw_cut(size, rng))
            else:
                image, shares = cutmix(image, others[0][0], rng)
        return image, np.bincount(pieces, shares, self.classes)

    def _draw_photo(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        index, path = self._draw(rng)
        return augment_classifier(open_photo(path), size, self.options, rng), int(self.labels[index])

    def _collate(self, targets: Sequence[np.ndarray]) -> Tensor:
        shares = np.stack(targets)
        soft = self.mosaic or self.cutmix
        return torch.from_numpy(shares.astype(np.float32) if soft else shares.argmax(1))


class DetectorBatches(TrainingBatches):
    """Images and their truths float32 (n, M, 5): class, centre x and y, width and height as fractions of the input.

    M is the most that a picture of the mini-batch has, no more than max= of the last [yolo]; class -1 where a picture
    has fewer.
    """

    def __init__(
        self, sections: Sequence[Section], photos: Sequence[str | Path], names: Sequence[str], seed: int,
        dialect: str = "alexeyab", rank: int = 0, ranks: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(sections, photos, names, seed, dialect, rank, ranks)
        net, head = sections[0], [section for section in sections if section.kind in ("yolo", "region")][-1]
        self.options = detector_options(net, head, dialect)
        self.random = number(head, "random", 0)
        self.max_boxes = positive(head, "max", 90 if dialect == "pjreddie" else 200)
        if self.cutmix:
            raise InputError(f"{net.where}: cutmix=1 is for classifiers: set cutmix=0")
        if self.random and self.step % (side := cell_side(sections)):
            raise InputError(
                f"{head.where}: random= changes the input by resize_step={self.step} pixels, no multiple of {side}, "
                f"this net's stride: set resize_step={side} of [net]"
            )
        if self.mosaic and self.options.letter_box:
            raise InputError(f"{net.where}: mosaic=1 and letter_box=1 do not go together: set one to 0")

    def _make(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return an image and its boxes (N, 5)."""
        if self.mosaic and rng.integers(2):
            image, boxes = mosaic_detector([self._draw_photo(rng) for _ in range(4)], size, self.options, rng)
        else:
            image, boxes = augment_detector(*self._draw_photo(rng), size, self.options, rng)
        return image, boxes[: self.max_boxes]

    def _draw_photo(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        _, path = self._draw(rng)
        return open_photo(path), open_boxes(path, self.classes)

    def _collate(self, targets: Sequence[np.ndarray]) -> Tensor:
        truths = torch.zeros(len(targets), max(map(len, targets)), 5)
        truths[..., 0] = -1
        for index, boxes in enumerate(targets):
            truths[index, : len(boxes)] = torch.from_numpy(boxes)
        return truths


def training_batches(
    sections: Sequence[Section], photos: Sequence[str | Path], names: Sequence[str], seed: int,
    dialect: str = "alexeyab", rank: int = 0, ranks: int = 1,
) -> TrainingBatches:  # fmt: skip
    """Return the mini-batches of a net's task.

    Raises:
        InputError: as `TrainingBatches` and its two kinds.
    """
    kind = ClassifierBatches if task_of(sections) == "classifier" else DetectorBatches
    return kind(sections, photos, names, seed, dialect, rank, ranks)


def training_loader(
    batches: TrainingBatches, iteration: int = 0, workers: int = 0, pin_memory: bool = False,
    multiprocessing_context: str = "forkserver",
) -> DataLoader[tuple[Tensor, Tensor]]:  # fmt: skip
    """Return a loader of the mini-batches from an iteration on; the last two are the DataLoader's own.

    Not by fork: a child would wait for ever for the threads of OpenCV that only its parent has.
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(iteration * batches.subdivisions, len(batches)),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        multiprocessing_context=multiprocessing_context if workers else None,
    )


def start_worker(_: int) -> None:
    """Leave OpenCV one thread in a worker process: the workers share the cores."""
    cv2.setNumThreads(1)


def _require_supported(net: Section, dialect: str) -> None:
    if dialect not in DIALECTS:
        raise InputError(f"dialect={dialect} is not one of {', '.join(DIALECTS)}")
    for key in _REFUSED:
        if net.options.get(key, "0") != "0":
            raise InputError(f"{net.where}: {key}={net.options[key]} is not supported with darknet.engine=torch")
    if integer(net, "channels", 3) != 3:
        raise InputError(f"{net.where}: photos have colours: set channels=3")


def _mini_batches(net: Section, rank: int, ranks: int) -> list[list[int]]:
    """Return the indices in the batch of each mini-batch of a process."""
    batch, subdivisions = positive(net, "batch"), positive(net, "subdivisions", 1)
    if batch % (subdivisions * ranks):
        parts = f"subdivisions={subdivisions}" + (f" times {ranks} devices" if ranks > 1 else "")
        raise InputError(f"{net.where}: batch={batch} cannot be divided by {parts}")
    size = batch // subdivisions // ranks
    starts = [part * batch // subdivisions + rank * size for part in range(subdivisions)]
    return [list(range(start, start + size)) for start in starts]
