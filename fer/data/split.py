"""Seeded splits that depend on names only: the same files give the same split on every machine and in any order."""

import hashlib
from collections.abc import Iterable, Sequence

from fer.errors import InputError


def unit_hash(seed: int, key: str) -> float:
    """Return a number in [0, 1) that looks uniformly random over keys and is fixed by seed and key."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(errors="surrogatepass"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def check_fractions(val_fraction: float, test_fraction: float = 0.0) -> None:
    """Check that both fractions are at least 0 and leave something to train on.

    Raises:
        InputError: they are not.
    """
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise InputError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} must be at least 0"
            " and sum to less than 1"
        )


def stratified_split(
    keys: Sequence[str], labels: Iterable[int], val_fraction: float, test_fraction: float, seed: int
) -> list[str]:
    """Return "train", "val" or "test" for each key so that each class gives the same fractions, rounded half up.

    ``keys`` are distinct names of what must not be divided, such as photos.
    """
    check_fractions(val_fraction, test_fraction)
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    splits = ["train"] * len(keys)
    for indices in members.values():
        indices.sort(key=lambda index: (unit_hash(seed, keys[index]), keys[index]))
        n_val, n_test = int(len(indices) * val_fraction + 0.5), int(len(indices) * test_fraction + 0.5)
        for index in indices[:n_val]:
            splits[index] = "val"
        for index in indices[n_val : n_val + n_test]:
            splits[index] = "test"
    return splits
