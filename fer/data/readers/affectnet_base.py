"""What AffectNet's two releases share: label codes, splits, rows dropped by class, and decoding."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fer.data.photos import decode_photos
from fer.data.source import Block, FaceFormat, Faces, PhotoLimits
from fer.data.split import unit_hash
from fer.labels import AFFECTNET, affectnet_to_label

#: Why a row is not taken whose valence or arousal is inf, or a number that a float cannot hold.
INFINITE = "valence or arousal is infinite"


class Release:
    """What both releases share: splits, the count of rows dropped by class, and decoding."""

    def __init__(
        self, face: FaceFormat, limits: PhotoLimits, class_names: tuple[str, ...], val_as: tuple[str, ...],
        val_fraction: float, seed: int, name: str,
    ):  # fmt: skip
        self.names = (name,)
        self.class_names = class_names
        self.notes: list[str] = []
        self._face, self._limits = face, limits
        self._val_fraction, self._seed = val_fraction, seed
        self._validation = ("test",) if val_fraction > 0 else val_as
        self._labels = {code: affectnet_to_label(code, class_names) for code in range(len(AFFECTNET))}
        self._dropped: Counter[int] = Counter()
        self._layout_notes: list[str] = []
        if len(self._validation) > 1:
            self._layout_notes.append(
                f"AffectNet's validation rows are {' and '.join(self._validation)} at once, so a score on one is not"
                " independent of a choice made on the other"
            )

    def fingerprint(self) -> dict[str, Any]:
        return {
            "reader": f"{type(self).__name__} 2",
            "inputs": self._inputs(),
            "face": asdict(self._face),
            "limits": asdict(self._limits),
            "name": self.names[0],
            "class_names": list(self.class_names),
            "validation": list(self._validation),
            "val_fraction": self._val_fraction,
            "seed": self._seed,
        }

    def blocks(self) -> Iterator[Block]:
        self._dropped.clear()
        self.notes[:] = self._layout_notes
        yield from self._blocks()
        if self._dropped:
            counts = ", ".join(f"{AFFECTNET[code]} {n:,}" for code, n in sorted(self._dropped.items()))
            self.notes.append(f"AffectNet rows dropped by class: {counts}")

    def decode(self, block: Block) -> Faces:
        return decode_photos(block.rows, self._face, self._limits, self.names)

    def splits(self, training: bool, path: str) -> tuple[str, ...]:
        if not training:
            return self._validation
        in_val = self._val_fraction > 0 and unit_hash(self._seed, path) < self._val_fraction
        return ("val",) if in_val else ("train",)

    def _note_missing(self, names: list[str]) -> None:
        self._layout_notes += [f"AffectNet's {name} is not there: its rows are missing" for name in names]

    def _inputs(self) -> list[list[Any]]:
        raise NotImplementedError

    def _blocks(self) -> Iterator[Block]:
        raise NotImplementedError


def integer(text: str) -> int | None:
    """Return the whole number that a csv cell holds ("39", "39.0"), or None for NULL, nothing and anything else."""
    if "_" in text:  # which Python takes for a part of a number
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def affect(value: Any) -> float:
    """Return a valence or arousal, NaN for AffectNet's -2 and for what is no number; see `INFINITE` for the rest."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return math.nan if number == -2 else number
