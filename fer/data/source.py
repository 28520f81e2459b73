"""What a reader of raw data gives: blocks of rows, read cheaply, and their faces, decoded in parallel."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

SPLITS = ("train", "val", "test")

#: Spellings of the splits that data sets use, lower case -> ours.
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "publictest": "val",
    "test": "test", "testing": "test", "privatetest": "test",
}  # fmt: skip

#: The largest faces in pixels a side, which config and files share.
MAX_SIZE = 1024

#: Keys of a data config that a reader of ``data.source`` is given where it takes arguments of these names.
OWN = ("raw", "classes", "val_fraction", "test_fraction", "group")
#: The same, and what is made of other keys: a FaceFormat, PhotoLimits and a number.
OFFERED = (*OWN, "face", "limits", "seed")

#: The most folds that a number can ask for.
MOST_FOLDS = 1000

#: Rows in a block: the unit that is decoded by one thread and that a resumed run does not decode again.
BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True)
class FaceFormat:
    """What every stored face looks like: square, ``size`` pixels a side, 8 bits, grey or RGB.

    ``margin`` widens an annotated box by this fraction of its width and height, half of it on each side.
    """

    size: int = 48
    color: str = "grey"
    margin: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one face: (size, size) in grey, (size, size, 3) in RGB."""
        return (self.size, self.size) if self.color == "grey" else (self.size, self.size, 3)

    @classmethod
    def from_file(cls, values: Any) -> "FaceFormat":
        """Return the format that a file says its faces have: a mapping of size, color and margin.

        Raises:
            ValueError: naming the key that is missing, of another type or out of range.
        """
        if not isinstance(values, Mapping) or values.keys() != {"size", "color", "margin"}:
            raise ValueError(f"face={values!r:.80} has not just the keys size, color and margin")
        size, color, margin = values["size"], values["color"], values["margin"]
        if type(size) is not int or not 1 <= size <= MAX_SIZE:
            raise ValueError(f"face.size={size!r:.40} is not a whole number of 1 to {MAX_SIZE} pixels")
        if color not in ("grey", "rgb"):
            raise ValueError(f"face.color={color!r:.40} is not grey or rgb")
        if type(margin) not in (int, float) or not 0 <= margin <= 2 or not math.isfinite(margin):
            raise ValueError(f"face.margin={margin!r:.40} is not a fraction of 0 to 2")
        return cls(size, color, float(margin))


@dataclass(frozen=True, slots=True)
class PhotoLimits:
    """Which photo files are taken at all, and which way up; sizes in bytes and in pixels (width x height).

    ``exif`` "apply" turns a photo upright as its EXIF orientation says, and boxes and landmarks lie in the upright
    photo; "ignore" takes both as they are stored.
    """

    min_bytes: int = 0
    max_bytes: int | None = None
    max_pixels: int = 100_000_000
    exif: str = "apply"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that was not taken, and why."""

    source: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class NoFaces(Skipped):
    """A photo that gives no rows, and that a detector learns background from in its ``splits``.

    Without splits it is ``incomplete``: it has faces that are not known, which would be learnt as background, so that a
    detector leaves it out. To a classifier its other faces are as good as any, and nothing more is skipped.
    """

    file: str
    splits: tuple[str, ...] = ()

    @property
    def incomplete(self) -> bool:
        return not self.splits


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows as read from the input, not yet decoded, and the fraction of the input read after them."""

    rows: list[Any]
    done: float


@dataclass(slots=True)
class Faces:
    """The decoded faces of a block, row by row; a row that belongs to two splits stands here twice.

    Shapes: ``image`` uint8 (n, *format.shape); ``label`` int64 (n,); ``split`` uint8 (n,), an index into SPLITS;
    ``source`` uint8 (n,), an index into the Source's ``names``; ``path`` n strings; ``group`` n strings, the person or
    sequence that a row is of, "" where unknown; ``valence`` and ``arousal`` float32 (n,), NaN where unknown;
    ``landmarks`` float32 (n, 68, 2), x and y in pixels of the stored face, NaN where unknown; ``box`` int32 (n, 4), x,
    y, width, height in pixels of the photo, -1 where there is none; ``reaches_over`` bool (n,), where the photo lacks a
    part of the crop.
    """

    image: np.ndarray
    label: np.ndarray
    split: np.ndarray
    source: np.ndarray
    path: list[str]
    group: list[str]
    valence: np.ndarray
    arousal: np.ndarray
    landmarks: np.ndarray
    box: np.ndarray
    reaches_over: np.ndarray
    skipped: list[Skipped] = field(default_factory=list)


class Source(Protocol):
    """A reader of one raw data set."""

    @property
    def names(self) -> tuple[str, ...]:
        """What its rows are recorded as coming from, e.g. ("affectnet",)."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def notes(self) -> list[str]:
        """Sentences for the user; complete once ``blocks`` is exhausted."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return plain data that changes whenever the decoded faces would."""
        ...

    def blocks(self) -> Iterator[Block]:
        """Yield the rows in a fixed order without decoding any picture."""
        ...

    def decode(self, block: Block) -> Faces:
        """Decode one block; called from several threads at once, so it changes no state."""
        ...


def empty_faces(n: int, face: FaceFormat) -> Faces:
    """Return room for n faces with every optional field unknown (NaN, -1 or "")."""
    return Faces(
        image=np.zeros((n, *face.shape), np.uint8),
        label=np.zeros(n, np.int64),
        split=np.zeros(n, np.uint8),
        source=np.zeros(n, np.uint8),
        path=[""] * n,
        group=[""] * n,
        valence=np.full(n, np.nan, np.float32),
        arousal=np.full(n, np.nan, np.float32),
        landmarks=np.full((n, 68, 2), np.nan, np.float32),
        box=np.full((n, 4), -1, np.int32),
        reaches_over=np.zeros(n, bool),
    )
