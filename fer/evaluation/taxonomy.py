"""Classifiers and data that tell other classes apart, scored on those that both have.

Two names are one class where `fer.labels.canonical` says so (anger, Angry), any other words only where they are equal.
The logits of a network's classes that the data lack are masked, so that its probabilities sum to 1 over the classes
that are left; rows of classes that a network lacks are left out. Contempt, which data of seven classes lack, can be
left out on both sides, or counted as another class: its probability is added to that class's, its rows become its rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer.errors import InputError
from fer.labels import canonical

#: What `classes=` may say.
PROTOCOLS = ("common",)
#: What `contempt=` may say beside the name of a class.
DROP = "drop"
_CONTEMPT = "Contempt"


@dataclass(frozen=True, slots=True)
class Common:
    """The classes that networks and data share, in the first network's order, and the way from their own to these.

    ``networks`` holds an int64 array (C,) for each network and ``data`` is one for the data: the index in ``names`` of
    each of their own classes, -1 where there is none. ``facts`` say this in words, as `report.json` holds it:
    ``masked`` (network -> its classes that are masked), ``mapped`` (a spelling -> the class that it is taken for) and
    ``left_out`` (class of the data -> rows of the split that are left out).
    """

    names: list[str]
    networks: list[np.ndarray]
    data: np.ndarray
    facts: dict[str, Any]

    def kept(self, labels: np.ndarray) -> np.ndarray:
        """Say of each label (N,) of the data whether its row is scored."""
        return self.data[labels] >= 0

    def ordered(self, names: list[str]) -> "Common":
        """Return the same with its classes in another order."""
        index = np.array([*map(names.index, self.names), -1])
        return Common(names, [index[own] for own in self.networks], index[self.data], {**self.facts, "classes": names})

    def fold(self, logits: np.ndarray, network: int) -> np.ndarray:
        """Return probabilities float64 (N, names) of the logits (N, C) of a network, of which others are masked."""
        index = self.networks[network]
        masked = np.where(index >= 0, logits, -np.inf).astype(np.float64)
        odds = np.exp(masked - masked.max(axis=1, keepdims=True))
        # a class that two of the network's stand for has the sum of both
        folded = odds @ (index[:, None] == np.arange(len(self.names))).astype(np.float64)
        return folded / folded.sum(axis=1, keepdims=True)


def check_protocol(classes: str | None, contempt: str | None) -> None:
    """Check the keys ``classes`` and ``contempt`` before anything is read.

    Raises:
        InputError: not a protocol, or what only ``classes=common`` has a use for.
    """
    if classes is not None and classes not in PROTOCOLS:
        raise InputError(f"classes={classes}: not common, or null: the data must have the network's classes")
    if contempt is not None and classes is None:
        raise InputError(f"contempt={contempt}: only for classes=common: give both")
    if contempt is not None and _target(contempt) == _CONTEMPT:
        raise InputError(f"contempt={contempt}: as without it; give drop, or the class that it counts as")


def common_classes(
    networks: Mapping[str, Sequence[str]],
    data: Sequence[str],
    rows: Sequence[int],
    split_rows: Sequence[int],
    contempt: str | None,
    where: str,
) -> Common:
    """Return the classes that all networks (what errors call them -> class names) and the data share.

    ``rows`` are the numbers of rows of each class in all splits of the data: a class without any is one that they lack.
    ``split_rows`` are those of the split that is scored; ``where`` is what errors call the data.

    Raises:
        InputError: fewer than two such classes, no row of them in the split, or ``contempt`` names none of them.
    """
    meant = {ckpt: [_meaning(name, contempt) for name in names] for ckpt, names in networks.items()}
    of_data = [_meaning(name, contempt) if n else None for name, n in zip(data, rows, strict=True)]
    first, *others = meant.values()
    names = [
        name for name in dict.fromkeys(first)
        if name is not None and name in of_data and all(name in other for other in others)
    ]  # fmt: skip
    listed = "; ".join(
        f"{what} has {', '.join(has)}"
        for what, has in [*networks.items(), (where, [name for name, n in zip(data, rows, strict=True) if n])]
    )
    if len(names) < 2:
        raise InputError(f"classes=common: fewer than two classes in common: {listed}")
    if contempt is not None and contempt != DROP and _target(contempt) not in names:
        raise InputError(f"contempt={contempt}: not drop or one of the classes in common, {', '.join(names)}")
    indices = [np.array([_index(name, names) for name in each], np.int64) for each in meant.values()]
    index = np.array([_index(name, names) for name in of_data], np.int64)
    left_out = {name: int(n) for name, n, i in zip(data, split_rows, index, strict=True) if i < 0 and n}
    if sum(left_out.values()) == sum(split_rows):
        raise InputError(f"classes=common: no row of the split is of a class in common, {', '.join(names)}")
    pairs = [*zip(data, of_data, strict=True)]
    for own, its in zip(networks.values(), meant.values(), strict=True):
        pairs += zip(own, its, strict=True)
    facts = {
        "classes": names,
        "masked": {
            ckpt: [name for name, i in zip(networks[ckpt], its, strict=True) if i < 0]
            for ckpt, its in zip(networks, indices, strict=True)
        },
        "mapped": {own: name for own, name in pairs if name in names and own != name},
        "left_out": left_out,
    }
    return Common(names, indices, index, facts)


def format_common(facts: dict[str, Any]) -> list[str]:
    """Return `Common.facts` as lines for people."""
    lines = [f"classes=common: scored on the {len(facts['classes'])} classes in common: {', '.join(facts['classes'])}"]
    masked = masked_text(facts)
    lines.append(f"  masked, of the network's: {masked or 'none'}")
    if facts["mapped"]:
        lines.append(f"  mapped: {', '.join(f'{own} -> {name}' for own, name in facts['mapped'].items())}")
    lines.append(f"  left out, of the data: {left_out_text(facts) or 'none'}")
    return lines


def masked_text(facts: dict[str, Any]) -> str:
    """Return the classes that are masked, by network where the networks of an ensemble differ; "" for none."""
    masked = facts["masked"]
    if len({tuple(names) for names in masked.values()}) == 1:
        return ", ".join(next(iter(masked.values())))
    return "; ".join(f"{', '.join(names) or 'none'} of {ckpt}" for ckpt, names in masked.items())


def left_out_text(facts: dict[str, Any]) -> str:
    """Return how many rows of which classes are left out; "" for none."""
    return ", ".join(f"{n:,} rows of {name}" for name, n in facts["left_out"].items())


def short_common(facts: dict[str, Any]) -> str:
    """Return `Common.facts` in one line, for the title of a picture and for a table."""
    parts = [f"{len(facts['classes'])} classes in common"]
    parts += [f"masked {masked}"] if (masked := masked_text(facts)) else []
    # other spellings need no room here
    if merged := [
        f"{own} counts as {name}" for own, name in facts["mapped"].items() if _CONTEMPT == canonical(own) != name
    ]:
        parts.append(merged[0])
    parts += [f"left out {left_out}"] if (left_out := left_out_text(facts)) else []
    return ", ".join(parts)


def _meaning(name: str, contempt: str | None) -> str | None:
    """Return the class that a name is taken for; None for Contempt where that is dropped."""
    meant = canonical(name) or name
    if meant != _CONTEMPT or contempt is None:
        return meant
    return None if contempt == DROP else _target(contempt)


def _target(contempt: str) -> str:
    return canonical(contempt) or contempt


def _index(name: str | None, names: list[str]) -> int:
    return names.index(name) if name in names else -1
