"""The order of the training rows of an epoch, a function of seed and epoch alone, and its cut into batches."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from fer.data.storage.lazy_images import BUFFER_BLOCKS


class Order:
    """Rows to train on and how an epoch draws them.

    ``rows`` int64 (n,) are numbers in the split. Each epoch is a permutation of them, or, with their ``labels`` (n,), n
    draws with replacement whose probability is proportional to 1 / the number of rows of the class, as
    torch.utils.data.WeightedRandomSampler draws. With ``block_rows`` (rows in a block of the file) the drawn rows are
    sorted so that only a buffer of a few blocks, themselves in random order, is in use at any time.
    """

    def __init__(self, rows: torch.Tensor, labels: torch.Tensor | None = None, block_rows: int | None = None) -> None:
        self._rows, self._block_rows = rows, block_rows
        self._weights = None if labels is None else (1 / torch.bincount(labels).double())[labels]

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """Return the rows of one epoch, int64 (n,), on the CPU."""
        n = len(self)
        if self._weights is None:
            drawn = torch.randperm(n, generator=generator)
        else:
            drawn = torch.multinomial(self._weights, n, replacement=True, generator=generator)
        rows = self._rows[drawn]
        if self._block_rows is None:
            return rows
        blocks = rows // self._block_rows
        place = torch.randperm(int(blocks.max()) + 1, generator=generator)
        # stable, so that inside a buffer the rows stay in the random order that they were drawn in
        return rows[torch.argsort(place[blocks] // BUFFER_BLOCKS, stable=True)]


class TrainBatches(Sampler):
    """Rows of each training step: an order that depends on (seed, epoch) alone, each global batch cut among the ranks.

    With any number of ranks the global batches are the same. A last batch with fewer rows than ranks is left out.
    ``order`` draws the rows, by default a permutation of all n; they are given on ``device``, where an epoch's go in
    one copy. With ``fixed`` all epochs have the order of the first. ``start`` skips that many steps of the next pass
    only, for a run resumed in the middle of an epoch.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        order: Order | None = None,
        device: torch.device | str = "cpu",
        fixed: bool = False,
    ) -> None:
        self._order = order or Order(torch.arange(n))
        self._n, self._batch_size, self._seed, self._rank, self._ranks = n, batch_size, seed, rank, ranks
        self._device, self._fixed = device, fixed
        self._epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls it before each epoch."""
        self._epoch = 0 if self._fixed else epoch

    def __len__(self) -> int:
        full, rest = divmod(self._n, self._batch_size)
        return full + (rest >= self._ranks)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, float]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = self._order.draw(generator).to(self._device)
        start, self.start = self.start, 0
        for step in range(start, len(self)):
            batch = order[step * self._batch_size : (step + 1) * self._batch_size]
            mine = batch.tensor_split(self._ranks)[self._rank]
            yield mine, len(mine) * self._ranks / len(batch)
