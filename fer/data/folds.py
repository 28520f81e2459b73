"""Folds: every row of a prepared file is validated once, by a network trained on the rows of the other folds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer.data.source import SPLITS
from fer.data.split import group_name, joined, spread
from fer.data.storage.hdf5 import read_column, read_groups, read_info
from fer.errors import InputError

#: Sources whose test rows are a benchmark of others: they are in no fold, so that they stay unseen.
SEALED = ("fer2013", "affectnet", "raf_db")


@dataclass(frozen=True, slots=True)
class Folds:
    """The folds of a prepared file.

    ``fold_of`` has for each split the fold of each row, int64 (n,), -1 where a row is in none. ``persons`` are the
    groups of each fold, with their source where the file has several; none where the file knows no groups.
    """

    file: str
    fold_of: dict[str, np.ndarray]
    persons: list[list[str]]

    def __len__(self) -> int:
        return len(self.persons)

    def train(self, fold: int) -> dict[str, np.ndarray]:
        """Return the rows that a fold's network is trained on: by split their numbers, int64, ascending."""
        return _rows({split: (of >= 0) & (of != fold) for split, of in self.fold_of.items()})

    def val(self, fold: int) -> dict[str, np.ndarray]:
        """Return the rows that a fold's network is validated on, as `train`."""
        return _rows({split: of == fold for split, of in self.fold_of.items()})


def _rows(chosen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {split: np.flatnonzero(mask) for split, mask in chosen.items() if mask.any()}


def draw_folds(file: str | Path, folds: int | str, seed: int) -> Folds:
    """Return ``folds`` folds of the rows of a prepared file, or one a person ("persons"), in the order of their names.

    The rows of all splits take part but test rows of `SEALED` sources; a row that stands in two splits counts once. No
    group is divided, and rows of one photo stay together too. As far as that allows, each fold has the same share of
    each class (see `spread`); ``seed`` draws which of many such divisions it is. The file's content alone decides.

    Raises:
        InputError: fewer groups than folds, or "persons" where the file knows none or not all of them.
    """
    info = read_info(file)
    keys: list[str] = []
    groups: list[str] = []
    labels: list[int] = []
    members: dict[str, np.ndarray] = {}
    seen = np.empty(0, np.int64)
    for split in (split for split in SPLITS if info.rows(split)):
        sources = read_column(file, split, "source")
        hashes = read_column(file, split, "row")
        sealed = np.isin(sources, [code for code, name in enumerate(info.sources) if name in SEALED])
        taken = ~np.isin(hashes, seen)
        if split == "test":
            taken &= ~sealed
        members[split] = taken
        seen = np.concatenate([seen, hashes])
        names = [info.sources[code] for code in sources]
        paths, persons = read_column(file, split, "path").tolist(), read_groups(file, split)
        for i in np.flatnonzero(taken):
            keys.append(f"{names[i]}/{paths[i]}")
            groups.append(f"{names[i]}/{persons[i]}" if persons[i] else "")
        labels += read_column(file, split, "label")[taken].tolist()
    names = [group_name(group, key) for group, key in zip(joined(keys, groups), keys, strict=True)]
    places = _persons(str(file), names, groups) if folds == "persons" else _balanced(file, names, labels, folds, seed)
    fold_of, at = {}, 0
    for split, taken in members.items():
        fold_of[split] = np.full(len(taken), -1, np.int64)
        fold_of[split][taken] = [places[name] for name in names[at : at + int(taken.sum())]]
        at += int(taken.sum())
    together: list[set[str]] = [set() for _ in range(max(places.values()) + 1)]
    for name, group in zip(names, groups, strict=True):
        if group:
            together[places[name]].add(group if len(info.sources) > 1 else group.partition("/")[2])
    return Folds(str(file), fold_of, [sorted(persons) for persons in together])


def _persons(file: str, names: Sequence[str], groups: Sequence[str]) -> dict[str, int]:
    if unknown := sum(not group for group in groups):
        raise InputError(
            f"data.folds=persons: {unknown:,} of the {len(groups):,} rows of {file} have no person; prepare it again "
            "with a column group (data=csv) or data.group= (data=folder), or give a number of folds"
        )
    ordered = sorted(set(names))
    if len(ordered) < 2:
        raise InputError(f"data.folds=persons: {file} has one person only, so nothing would be trained on")
    return {name: place for place, name in enumerate(ordered)}


def _balanced(
    file: str | Path, names: Sequence[str], labels: Sequence[int], folds: int | str, seed: int
) -> dict[str, int]:
    assert isinstance(folds, int), "check_data lets no other word through"
    counts: dict[str, Counter[int]] = {}
    for name, label in zip(names, labels, strict=True):
        counts.setdefault(name, Counter())[label] += 1
    if len(counts) < folds:
        raise InputError(
            f"data.folds={folds}: {file} has {len(counts):,} persons, sequences or photos that stay together, too few"
        )
    return spread(counts, [1 / folds] * folds, seed)
