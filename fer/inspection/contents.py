"""What is in a prepared file: balance, equal faces, brightness, mistakes made on it, as tables and figures.

Plain functions, for `fer.inspection.page` and for notebooks; none of them needs a display.
"""

import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from fer.data.source import SPLITS
from fer.data.storage.hdf5 import StoreInfo, has_column, opened, read_column, read_info
from fer.errors import InputError
from fer.system.command import command

#: Bytes of pixels in memory at once while they are measured.
_CHUNK_BYTES = 16 * 2**20
#: Pixels a side at which a face is shown, about: small faces grow by a whole factor, large ones shrink to it.
_FACE_PIXELS = 96
#: Rows and groups that are named one by one; the rest is counted.
LISTED = 24
#: Of every figure.
DPI = 100


@dataclass(frozen=True, slots=True)
class Contents:
    """A prepared file without its pixels, split after split: arrays of all n rows.

    ``split`` uint8, an index into SPLITS; ``index`` int64, the row within its split; ``label``, ``face``, ``row``,
    ``box``, ``valence``, ``arousal`` as in the file, NaN where it has none; ``brightness`` float32, the mean level in
    0..255; ``flat`` bool, all pixels are equal. ``mean_faces`` uint8 (classes, ...), 0 for a class without rows.
    """

    info: StoreInfo
    split: np.ndarray
    index: np.ndarray
    label: np.ndarray
    face: np.ndarray
    row: np.ndarray
    box: np.ndarray
    valence: np.ndarray
    arousal: np.ndarray
    brightness: np.ndarray
    flat: np.ndarray
    mean_faces: np.ndarray

    def splits(self) -> list[str]:
        """Return the splits that have rows."""
        return [split for split in SPLITS if self.info.rows(split)]

    def by_split(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return values of all rows as split -> those of its rows that are known (not NaN)."""
        parts = {split: values[self.split == SPLITS.index(split)] for split in self.splits()}
        return {split: part[~np.isnan(part)] for split, part in parts.items()}


def examine(file: str | Path) -> Contents:
    """Read a prepared file through once; memory holds one chunk of pixels and about 70 bytes a row.

    Raises:
        InputError: there is no such file, or it is not one of ours, or it is a folder of shards.
    """
    info = read_info(file)
    if info.path.is_dir():
        raise InputError(f"{file}: shards are not looked at; prepare the same data with format=h5")
    splits = [split for split in SPLITS if info.rows(split)]
    sizes = [info.rows(split) for split in splits]

    def column(name: str) -> np.ndarray:
        parts = [
            read_column(file, split, name) if has_column(file, split, name) else np.full(n, np.nan, np.float32)
            for split, n in zip(splits, sizes, strict=True)
        ]
        return np.concatenate(parts)

    n, classes = sum(sizes), len(info.class_names)
    chunk = max(1, _CHUNK_BYTES // math.prod(info.face.shape))
    brightness, flat, at = np.empty(n, np.float32), np.empty(n, bool), 0
    sums, rows = np.zeros((classes, *info.face.shape), np.int64), np.zeros(classes, np.int64)
    label = column("label")
    with opened(file) as store, tqdm(total=n, desc="look", unit="face", leave=False) as bar:
        for split, size in zip(splits, sizes, strict=True):
            for start in range(0, size, chunk):
                images = store[split]["image"][start : start + chunk]
                part = slice(at, at := at + len(images))
                labels = label[part]
                brightness[part] = images.reshape(len(images), -1).mean(axis=1)
                pixels = images.reshape(len(images), info.face.size**2, -1)
                flat[part] = (pixels.max(axis=1) == pixels.min(axis=1)).all(axis=1)
                for code in np.unique(labels):
                    sums[code] += images[labels == code].sum(axis=0, dtype=np.int64)
                    rows[code] += (labels == code).sum()
                bar.update(len(images))
    return Contents(
        info, np.repeat([SPLITS.index(split) for split in splits], sizes).astype(np.uint8),
        np.concatenate([np.arange(size) for size in sizes]), label, column("face"), column("row"),
        column("box"), column("valence"), column("arousal"), brightness, flat,
        (sums / np.maximum(rows, 1).reshape(-1, *[1] * len(info.face.shape))).round().astype(np.uint8),
    )  # fmt: skip


def equal_faces(contents: Contents) -> list[np.ndarray]:
    """Return the groups of rows whose pixels are all equal, as indices into the rows.

    First the groups whose labels differ, then those in several splits, then the larger ones.
    """
    _, which, counts = np.unique(contents.face, return_inverse=True, return_counts=True)
    members = np.flatnonzero(counts[which] > 1)
    members = members[np.argsort(which[members], kind="stable")]
    groups = np.split(members, np.flatnonzero(np.diff(which[members])) + 1) if len(members) else []

    def rank(group: np.ndarray) -> tuple[int, ...]:
        return -len(set(contents.label[group])), -len(set(contents.split[group])), -len(group), group[0]

    return sorted(groups, key=rank)


def equal_faces_table(contents: Contents, groups: Sequence[np.ndarray]) -> list[tuple[str, int, int, int]]:
    """Return rows (splits, groups, faces in them, groups whose labels differ), a row a set of splits, and all last."""
    by_splits: dict[str, list[np.ndarray]] = {}
    for group in groups:
        by_splits.setdefault(" + ".join(SPLITS[code] for code in np.unique(contents.split[group])), []).append(group)

    def row(name: str, part: Sequence[np.ndarray]) -> tuple[str, int, int, int]:
        return name, len(part), sum(map(len, part)), sum(len(set(contents.label[group])) > 1 for group in part)

    return [row(name, part) for name, part in sorted(by_splits.items())] + [row("all", groups)]


def read_faces(file: str | Path, split: str, rows: Iterable[int]) -> np.ndarray:
    """Return the pixels of some rows of a split, uint8 (n, ...), in the order asked for."""
    with opened(file) as store:
        images = store[split]["image"]
        faces = [images[int(row)] for row in rows]
        return np.stack(faces) if faces else np.empty((0, *images.shape[1:]), np.uint8)


def faces_figure(faces: np.ndarray, captions: Sequence[str], columns: int, title: str) -> Figure:
    """Return faces, uint8 (n, size, size) or (n, size, size, 3), in a grid; line breaks in captions are kept.

    A pixel of a small face is a whole number of screen pixels. Without captions (an empty list) the faces stand closer.
    """
    size = faces.shape[1]
    side = size * max(1, round(_FACE_PIXELS / size)) if size <= _FACE_PIXELS else _FACE_PIXELS
    interpolation = cv2.INTER_NEAREST if size <= _FACE_PIXELS else cv2.INTER_AREA
    columns = max(1, min(columns, len(faces)))
    text = 6 + 13 * max((caption.count("\n") + 1 for caption in captions), default=0) if captions else 0
    width, heading = columns * (side + 4) + 4, textwrap.wrap(title, max(24, columns * (side + 4) // 8)) or [""]
    top = 12 + 17 * len(heading)
    sheet = np.full((top + -(-len(faces) // columns) * (side + 4 + text), max(width, 240), 3), 255, np.uint8)
    figure = Figure(figsize=(sheet.shape[1] / DPI, sheet.shape[0] / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    write: dict[str, Any] = {"va": "top", "parse_math": False}  # a class called "a$b$c" is no formula
    for i, face in enumerate(faces):
        y, x = top + i // columns * (side + 4 + text), 4 + i % columns * (side + 4)
        shown = cv2.resize(face, (side, side), interpolation=interpolation)
        sheet[y : y + side, x : x + side] = shown if shown.ndim == 3 else shown[:, :, None]
        if captions:
            lines = [line if len(line) <= 16 else f"{line[:9]}…{line[-6:]}" for line in captions[i].split("\n")]
            axes.text(x + side / 2, y + side + 3, "\n".join(lines), ha="center", fontsize=7, **write)
    axes.text(4, 6, "\n".join(heading), fontsize=10, **write)
    axes.imshow(sheet, aspect="auto", interpolation="none", extent=(0, sheet.shape[1], sheet.shape[0], 0))
    return figure


def contact_sheet(file: str | Path, split: str, label: int, count: int = 100, seed: int = 0) -> Figure:
    """Return ``count`` faces of one class and split, drawn without repetition by (seed, split, label)."""
    info = read_info(file)
    rows = np.flatnonzero(read_column(file, split, "label") == label)
    generator = np.random.default_rng((seed, SPLITS.index(split), label))
    rows_drawn = np.sort(generator.choice(rows, min(count, len(rows)), replace=False))
    title = f"{split}, {info.class_names[label]}: {len(rows_drawn):,} of {len(rows):,} faces"
    title += " (drawn sample data)" if info.drawn else ""
    return faces_figure(read_faces(file, split, rows_drawn), [], 10, title)


def mean_faces_figure(contents: Contents) -> Figure:
    """Return the mean face of each class over all splits, with its number of faces."""
    names, rows = contents.info.class_names, np.bincount(contents.label, minlength=len(contents.info.class_names))
    captions = [f"{names[k]}\n{rows[k]:,} faces" for k in np.flatnonzero(rows)]
    return faces_figure(contents.mean_faces[rows > 0], captions, 8, "mean face of each class, all splits")


def equal_faces_figure(contents: Contents, groups: Sequence[np.ndarray], count: int = LISTED) -> Figure:
    """Return one face of each of the first groups, with the split and label of its first rows."""
    names, captions, faces = contents.info.class_names, [], []
    for group in groups[:count]:
        numbers = Counter((int(contents.split[i]), int(contents.label[i])) for i in group)
        lines = [f"{n} {SPLITS[code]} {names[label]}" for (code, label), n in sorted(numbers.items())]
        captions.append("\n".join(lines if len(lines) <= 4 else [*lines[:3], f"and {len(lines) - 3} more"]))
        faces.append(read_faces(contents.info.path, SPLITS[contents.split[group[0]]], contents.index[group[:1]])[0])
    return faces_figure(
        np.stack(faces), captions, 8, f"equal faces: the first {len(faces):,} of {len(groups):,} groups"
    )


def balance_figure(info: StoreInfo) -> Figure:
    """Return the number of faces of each class, a panel a split, the sources stacked."""
    splits = [split for split in SPLITS if info.rows(split)]
    names = [name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}" for name in info.class_names]
    figure = Figure(figsize=(4 * len(splits) + 1, max(2.6, 0.3 * len(names) + 1)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, split in zip(np.ravel(figure.subplots(1, len(splits), sharey=True, squeeze=False)), splits, strict=True):
        left = np.zeros(len(names), int)
        for source, numbers in info.counts[split].items():
            axes.barh(range(len(names)), numbers, left=left, label=source, color=f"C{info.sources.index(source)}")
            left += numbers
        for k, total in enumerate(left):
            axes.annotate(f"{total:,}", (total, k), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set(title=f"{split}: {left.sum():,}", xlabel="faces", xlim=(0, 1.2 * left.max()))
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(nbins=4, integer=True)
    axes.invert_yaxis()
    if len(info.sources) > 1:
        axes.legend(fontsize=8)
    return figure


def histogram_figure(values: dict[str, np.ndarray], label: str) -> Figure:
    """Return the distribution of known values (split -> array), as the share of each split's rows in 50 bins."""
    figure = Figure(figsize=(7, 2.8), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), 50)
    for split, numbers in values.items():
        if len(numbers):
            weights = np.full(len(numbers), 100 / len(numbers))
            axes.hist(numbers, bins.tolist(), weights=weights, histtype="step", label=f"{split} ({len(numbers):,})")
    axes.set(xlabel=label, ylabel="% of the split")
    axes.legend(fontsize=8)
    return figure


def mistakes_figure(folder: str | Path, count: int = 25, file: str | Path | None = None) -> Figure:
    """Return the most confident wrong predictions of an evaluation, with both classes and the share.

    ``folder`` holds report.json and predictions.csv of evaluate.py; ``file`` is the prepared file where it has moved.

    Raises:
        InputError: the folder is no classifier's report, or the prepared file does not hold these rows.
    """
    folder = Path(folder)
    try:
        report = json.loads((folder / "report.json").read_text("utf-8"))
        # all columns as text; a photo's name need not be UTF-8
        rows = pd.read_csv(
            folder / "predictions.csv", dtype=object, keep_default_na=False, encoding_errors="surrogateescape"
        )
        file, split = Path(file or report["file"]), report["split"]
        shares = rows[[name for name in rows.columns if name.startswith("p_")]].astype(float).max(axis=1)
        wrong = rows[rows["label"] != rows["prediction"]].assign(share=shares).nlargest(count, "share")
        paths, title = rows["path"].tolist(), f"{report['data']}, {split}"
        title += " (drawn sample data)" if report["drawn"] else ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder}: holds no report of a classifier; make it with `{command('evaluate')}`") from error
    if paths != read_column(file, split, "path").tolist():
        raise InputError(f"{file}: its {split} rows are not those of {folder}/predictions.csv; run evaluate.py again")
    captions = [f"{row.label}\nsaid {row.prediction}\n{row.share:.2f}" for row in wrong.itertuples()]
    title = f"the {len(wrong):,} most confident wrong predictions on {title}"
    return faces_figure(read_faces(file, split, wrong.index), captions, 8, title)
