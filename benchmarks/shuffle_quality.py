"""How well data.keep=disk shuffles: its order of a file's rows beside a full permutation and beside no shuffling.

    python benchmarks/shuffle_quality.py [--size 96] [--color grey] [--rows 1000000] [--batch 64]

Prints for each order of an epoch: how far a row is moved on average, as a share of the file (a permutation: 1/3); how
many of the pairs of a batch come from one block of the file; and the design effect (Kish 1965) in a file sorted by
class, the worst case: the variance of a class's share among batches over that of random batches.
"""

import argparse

import torch
from torch.nn.functional import one_hot

from fer.data.loading.samplers import Order
from fer.data.source import FaceFormat
from fer.data.storage import lazy_images as disk

CLASSES = 7


def quality(rows: torch.Tensor, batch: int, block_rows: int) -> tuple[float, float, float]:
    """Return mean displacement over n, share of a batch's pairs that are of one block, and the design effect."""
    n = len(rows)
    moved = (rows - torch.arange(n)).abs().double().mean().item() / n
    batches = rows[: n // batch * batch].view(-1, batch)
    blocks = (batches // block_rows).sort(1).values
    # pairs of equal values in each batch: a value's k-th occurrence makes k - 1 of them
    first = torch.searchsorted(blocks, blocks)
    pairs = (torch.arange(batch) - first).sum().item() / (len(batches) * batch * (batch - 1) / 2)
    shares = one_hot(batches * CLASSES // n, CLASSES).double().mean(1)
    expected = (1 / CLASSES) * (1 - 1 / CLASSES) / batch
    return moved, pairs, shares.var(0).mean().item() / expected


def main() -> None:
    """Print a line for each order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--color", default="grey", choices=("grey", "rgb"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    shape = FaceFormat(options.size, options.color).shape
    block_rows = disk.block_rows(shape)
    rows = torch.arange(options.rows)
    orders = {
        "data.keep=disk": Order(rows, block_rows=block_rows), "full permutation": Order(rows), "as in the file": None
    }  # fmt: skip
    print(f"{options.rows:,} rows of {shape}, blocks of {block_rows}, {disk.BUFFER_BLOCKS} of them in a buffer")
    for name, order in orders.items():
        drawn = rows if order is None else order.draw(torch.Generator().manual_seed(0))
        moved, pairs, effect = quality(drawn, options.batch, block_rows)
        print(f"{name:17} moved {moved:.3f} of the file, pairs of one block {pairs:.3%}, design effect {effect:.2f}")


if __name__ == "__main__":
    main()
