"""FER+: the votes of ten annotators on each row of FER2013 (Barsoum et al. 2016), as a file and as training targets."""

from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fer.data.readers.archives import open_csv
from fer.data.readers.class_labels import whole_number
from fer.data.readers.csv_lines import delimiter_of, split_line
from fer.data.source import SPLIT_NAMES
from fer.errors import InputError
from fer.labels import CLASSES, canonical

#: The columns of votes in fer2013new.csv and in a prepared file.
VOTES = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
_HEADER = ["Usage", "Image name", *VOTES]
#: On the real files 64 % of the rows have most votes for their label, and 18 % where the files are a row apart.
_LEAST_AGREEMENT = 0.4


def read_votes(path: Path) -> tuple[list[str], np.ndarray]:
    """Return each row's split ("train", "val", "test") and its votes, uint8 (n, 10), columns as in VOTES.

    Raises:
        InputError: the file can't be read or isn't FER+'s fer2013new.csv.
    """
    if not path.is_file():
        raise InputError(f"data.votes={path}: no such file; it is fer2013new.csv of FER+")
    splits, votes = [], []
    with open_csv(path) as (lines, _, _):
        header = next(lines, b"").removeprefix(BOM_UTF8).decode("latin-1")
        delimiter = delimiter_of(header)
        names = _cells(header, delimiter)
        if names != _HEADER:
            raise InputError(
                f"{path}: not FER+'s fer2013new.csv, whose first line is {','.join(_HEADER)}: {str(names)[:300]}"
            )
        for number, line in enumerate(lines, 2):
            if line.isspace():
                continue
            fields = _cells(line.decode("latin-1"), delimiter)
            split = SPLIT_NAMES.get(fields[0].lower()) if fields else None
            # 4.0 is what pandas makes of a 4 in a column that has gaps
            numbers = [found for field in fields[2:] if (found := whole_number(field)) is not None]
            if split is None or len(fields) != len(_HEADER) or len(numbers) != len(VOTES) or max(numbers) > 255:
                raise InputError(
                    f"{path}: line {number} is no Usage, name and {len(VOTES)} numbers of votes: correct it, or get a "
                    "whole copy of the file"
                )
            splits.append(split)
            votes.append(numbers)
    return splits, np.array(votes, np.uint8).reshape(-1, len(VOTES))


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return split_line(line, delimiter)
    except ValueError:
        return []


def align_votes(path: Path, raw: str, rows: Iterable[tuple[str | None, int | None]]) -> tuple[np.ndarray, str]:
    """Return the votes of the rows of FER2013's csv ``raw``, uint8 (n, 10), and a note that says how far they fit.

    ``rows`` are each row's split and label, None for what can't be read. FER+ names no pixels, so rows belong together
    by their place: the Usage of both must be the same all along. FER+ may have further rows at its end, if the csv has
    none at all of their Usage.

    Raises:
        InputError: the rows can't be aligned, or the votes contradict the labels.
    """
    splits, votes = read_votes(path)
    found, labels = zip(*rows, strict=True)
    n = len(found)
    remedy = "give FER2013's csv as Kaggle has it, with all rows of each Usage, in their order"
    if n > len(votes):
        raise InputError(f"data.votes={path}: {len(votes):,} rows, but {raw} has {n:,}; {remedy}")
    for number, (theirs, ours) in enumerate(zip(splits, found, strict=False)):
        if ours is not None and ours != theirs:
            raise InputError(
                f"data.votes={path}: row {number} is of the {theirs} split, but of {ours} in {raw}; {remedy}"
            )
    if set(splits[n:]) & set(found):
        raise InputError(f"data.votes={path}: {len(votes):,} rows, but {raw} has {n:,}; {remedy}")
    votes = votes[:n]
    readable = np.array([label is not None for label in labels])
    agree = _emotions(votes[readable], CLASSES).argmax(1) == [label for label in labels if label is not None]
    if agree.mean() < _LEAST_AGREEMENT:
        raise InputError(
            f"data.votes={path}: most votes are for the label in only {agree.mean():.0%} of the rows of {raw}, 64 % "
            f"where they belong together; {remedy}"
        )
    note = f"FER+ votes for {n:,} rows, by their place; most votes are for the label in {agree.mean():.0%} of them"
    if len(splits) > n:
        note += f"; {len(splits) - n:,} more rows of {path.name} are of a Usage that {Path(raw).name} does not have"
    return votes, note


def apply_votes(kind: str, votes: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return which rows are trained on, bool (n,), and with "soft" their targets, float32 (n, classes), else None.

    "soft": the share of each class in the votes for our classes; rows without such a vote are left out. "clean": rows
    more than half of whose votes say unknown or NF (no face) are left out.
    """
    if kind == "clean":
        doubtful = votes[:, [VOTES.index("unknown"), VOTES.index("NF")]]
        return 2 * doubtful.sum(1, dtype=np.int64) <= votes.sum(1, dtype=np.int64), None
    emotions = _emotions(votes, class_names).astype(np.float32)
    total = emotions.sum(1, keepdims=True)
    return total[:, 0] > 0, emotions / np.maximum(total, 1)


def _emotions(votes: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Return the columns of votes in the order of the classes."""
    columns = {canonical(name): column for column, name in enumerate(VOTES)}
    return votes[:, [columns[name] for name in class_names]]
