"""Seeded splits that depend on names only: the same files give the same split on every machine and in any order."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fer.errors import InputError

#: Characters that the name of a person or sequence has at most; the column of a file is as wide as its longest.
MAX_GROUP = 100

#: What is said of a split that was drawn with groups.
KEPT_TOGETHER = "no person or sequence is divided between splits, so their shares are near the fractions, not equal"


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
    keys: Sequence[str], labels: Iterable[int], val_fraction: float, test_fraction: float, seed: int,
    groups: Sequence[str] | None = None,
) -> list[str]:  # fmt: skip
    """Return "train", "val" or "test" for each key so that each class gives the same fractions, rounded half up.

    ``keys`` are distinct names of what must not be divided, such as photos. With their ``groups``, persons or
    sequences, none of those is divided either, and the fractions are as near as that allows; "" is no group.
    """
    check_fractions(val_fraction, test_fraction)
    if groups is not None and any(groups):
        names = [group_name(group, key) for group, key in zip(groups, keys, strict=True)]
        counts: dict[str, Counter[int]] = {}
        for name, label in zip(names, labels, strict=True):
            counts.setdefault(name, Counter())[label] += 1
        shares = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
        chosen = {split: share for split, share in shares.items() if share > 0}
        places, order = spread(counts, list(chosen.values()), seed), list(chosen)
        return [order[places[name]] for name in names]
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


def group_name(group: str, key: str) -> str:
    """Return what must stay together with a row: all of its group, or its ``key`` alone where it has none."""
    return f"group {group}" if group else f"row {key}"


def joined(keys: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Return for each row the group that must stay together: rows that share a group or a key are in one, and so on.

    A photo of two persons makes one group of both. "" is no group.

    >>> joined(["a", "a", "b", "c"], ["Ann", "Bob", "Bob", ""])
    ['Ann', 'Ann', 'Ann', '']
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above] = parent.setdefault(above, above)
            name = parent[name]
        return name

    first_of_key: dict[str, str] = {}
    for key, group in zip(keys, groups, strict=True):
        if group:
            one, other = sorted((root(group), root(first_of_key.setdefault(key, group))))
            parent[other] = one
    return [root(first_of_key[key]) if key in first_of_key else "" for key in keys]


def spread(groups: Mapping[str, Mapping[int, int]], shares: Sequence[float], seed: int) -> dict[str, int]:
    """Return the place 0..n-1 of each group, so that place i holds about ``shares[i]`` of each class.

    ``groups`` are, by name, the numbers of rows of each class. The largest group goes first, equal ones in an order
    drawn by ``seed``; each goes where the squared differences to the wanted shares of the classes, divided by the
    share, grow least. Nothing but the arguments decides, in whatever order they come.

    >>> spread({"Ann": {0: 4, 1: 4}, "Bob": {0: 3}, "Cem": {1: 3}, "Dan": {0: 1, 1: 1}}, [0.5, 0.5], 0)
    {'Ann': 0, 'Bob': 1, 'Cem': 1, 'Dan': 1}
    """
    totals: Counter[int] = Counter()
    for counts in groups.values():
        totals.update(counts)
    filled: list[Counter[int]] = [Counter() for _ in shares]
    rows = [0] * len(shares)
    places: dict[str, int] = {}
    order = {name: (-sum(counts.values()), unit_hash(seed, name), name) for name, counts in groups.items()}
    for name in sorted(groups, key=order.__getitem__):
        classes = sorted(groups[name].items())

        def growth(place: int, classes: list[tuple[int, int]] = classes) -> tuple[float, float, int]:
            share = shares[place]
            grown = sum(
                n * (2 * (filled[place][label] - share * totals[label]) + n) / totals[label] ** 2
                for label, n in classes
            )
            return grown / share, rows[place] / share, place

        places[name] = best = min(range(len(shares)), key=growth)
        filled[best].update(dict(classes))
        rows[best] += sum(n for _, n in classes)
    return {name: places[name] for name in groups}
