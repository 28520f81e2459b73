"""What an evaluation says: metrics, intervals, pictures, and the files of a report (`compare` has its text).

Everything is a pure function of arrays except ``save_report``. Probabilities are (N, C), rows summing to 1; labels are
integers (N,) in 0..C-1; confusion counts are (C, C), rows true, columns predicted. A ratio whose denominator is zero
(recall of a class with no rows, precision of one never predicted) is 0, scikit-learn's ``zero_division=0``.
"""

import json
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fer.errors import InputError
from fer.system.files import write_files

#: How the two ways of scoring are written for people.
CROP_NAMES = {"plain": "plain", "ten_crop": "ten-crop"}


def metrics_from_confusion(counts: np.ndarray) -> dict[str, Any]:
    """Return accuracy, balanced accuracy, macro averages and per-class lists from confusion counts (C, C).

    Balanced accuracy is the mean recall over the classes that have rows. The macro averages are over the classes that
    have rows or are predicted; a class that does neither is left out of every mean and stands in the lists with zeros.
    Keys: accuracy, balanced_accuracy, macro_precision, macro_recall, macro_f1 (floats in 0..1); precision, recall, f1
    (C floats), support (C ints).

    Raises:
        ValueError: the matrix holds no rows at all.
    """
    counts = np.asarray(counts)
    correct, support, predicted = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    total = int(support.sum())
    if total == 0:
        raise ValueError("the confusion matrix holds no rows")
    precision, recall = _ratio(correct, predicted), _ratio(correct, support)
    f1 = _ratio(2 * correct, support + predicted)
    occurs = support + predicted > 0
    return {
        "accuracy": int(correct.sum()) / total,
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_precision": float(precision[occurs].mean()),
        "macro_recall": float(recall[occurs].mean()),
        "macro_f1": float(f1[occurs].mean()),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "support": support.tolist(),
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval (low, high) of a proportion; (0, 1) when n is 0.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22:209-212:
    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    >>> [round(bound, 4) for bound in wilson_interval(8, 10)]
    [0.4902, 0.9433]

    Raises:
        ValueError: not 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n}")
    if n == 0:
        return 0.0, 1.0
    z, p = NormalDist().inv_cdf((1 + level) / 2), successes / n
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy, weighted by the rows in each bin of confidence.

    Equal-width bins ((m-1)/bins, m/bins]: Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(which, weights=gap, minlength=bins)).sum() / len(labels))


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the share of rows whose label is among the k most probable classes.

    Of equal probabilities the class with the lower index comes first, so that k = 1 is the accuracy of ``argmax``.
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion_counts(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the int64 confusion counts (C, C); a class that never occurs keeps its row and column."""
    classes = probabilities.shape[1]
    cell = np.asarray(labels, np.int64) * classes + probabilities.argmax(axis=1)
    return np.bincount(cell, minlength=classes * classes).reshape(classes, classes)


def summarize(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Return every metric of a scored split as plain JSON data, fractions in 0..1.

    Keys: n, accuracy, accuracy_95 (Wilson, [low, high]), balanced_accuracy, macro_precision, macro_recall, macro_f1,
    top2_accuracy, ece (15 bins), nll (nats, probabilities clipped at 2.2e-16), per_class (a list of name, precision,
    recall, f1, support), confusion (counts as nested lists).

    Raises:
        InputError: a row is not a distribution, as from a network whose weights are NaN.
        ValueError: no rows, or shapes, labels and names that do not belong together.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    n, classes = len(labels), len(class_names)
    if n == 0 or probabilities.shape != (n, classes) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"probabilities {probabilities.shape}, {n} labels and {classes} names do not fit together")
    # 1e-2 lets half-precision softmax through and keeps logits out.
    bad = ~((probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-2))
    if bad.any():
        raise InputError(
            f"the model's output is not a probability distribution on {bad.sum():,} of {n:,} images: "
            "choose a checkpoint from before its weights became NaN or infinite"
        )
    counts = confusion_counts(probabilities, labels)
    metrics = metrics_from_confusion(counts)
    columns = zip(class_names, *(metrics.pop(key) for key in ("precision", "recall", "f1", "support")), strict=True)
    of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return {
        "n": n,
        "accuracy_95": list(wilson_interval(int(np.trace(counts)), n)),
        **metrics,
        "top2_accuracy": top_k_accuracy(probabilities, labels, 2),
        "ece": expected_calibration_error(probabilities, labels),
        "nll": float(-np.log(of_label.clip(np.finfo(np.float64).eps, 1)).mean()),
        "per_class": [dict(zip(("name", "precision", "recall", "f1", "support"), row, strict=True)) for row in columns],
        "confusion": counts.tolist(),
    }


def confusion_figure(counts: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Return the row-normalised confusion matrix as a picture, with the raw counts where they are readable.

    The colour scale is always 0..1, so that two pictures can be compared. A class without rows is a grey row of dashes.
    """
    counts = np.asarray(counts)
    classes, support = len(class_names), counts.sum(axis=1)
    share = _ratio(counts.ravel(), np.repeat(support, classes)).reshape(counts.shape)
    cell = min(max(0.48, 1.05 - 0.03 * classes), 24 / classes)  # inches a side; from 50 classes on they shrink
    # Long names keep both ends, since sub-classes often differ only in the last word.
    names = [name if len(name) <= 32 else f"{name[:15]}…{name[-16:]}" for name in class_names]
    longest = max(map(len, names))
    width = max(5.5, cell * classes + 0.08 * longest + 2)
    figure = Figure(figsize=(width, max(4, cell * classes + 0.06 * longest + 1)), layout="compressed")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("0.92")
    absent = np.broadcast_to((support == 0)[:, None], share.shape)
    image = axes.imshow(np.ma.masked_array(share, absent), "Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, aspect=max(20, 2 * classes), label="share of the true class")
    ticks = np.arange(classes)
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, [f"{name} ({total:,})" for name, total in zip(names, support, strict=True)])
    axes.set(xlabel="predicted class", ylabel="true class (images)")
    heading = figure.suptitle(textwrap.fill(title, int(width * 10), break_on_hyphens=False), fontsize=12)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), heading):
        text.set_parse_math(False)  # a folder called "a$b$c" is a class name, not a formula
    if cell < 0.45:
        return figure
    with_counts = cell >= 0.75
    for row, column in np.ndindex(counts.shape):
        # White reads better than black from about two thirds of the way up "Blues".
        style = {"ha": "center", "va": "center", "color": "white" if share[row, column] > 0.65 else "black"}
        place = {"xy": (column, row), "textcoords": "offset points"}
        if support[row] == 0:
            axes.annotate("–", xytext=(0, 0), **place, **style)
        elif with_counts:
            axes.annotate(f"{share[row, column]:.2f}", xytext=(0, 5), fontsize=11, **place, **style)
            axes.annotate(f"{counts[row, column]:,}", xytext=(0, -9), fontsize=8, **place, **style)
        else:
            axes.annotate(f"{share[row, column]:.2f}", xytext=(0, 0), fontsize=16 * cell, **place, **style)
    return figure


def curves_figure(history: pd.DataFrame, title: str = "") -> Figure:
    """Return loss, accuracy and learning rate by epoch in one picture.

    Columns: epoch and any of train/loss, val/loss, train/acc, val/acc, lr; empty cells are passed over, since a logger
    may write training and validation on separate lines.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (("loss", ("train/loss", "val/loss")), ("accuracy", ("train/acc", "val/acc")), ("learning rate", ("lr",)))
    for axes, (label, columns) in zip(figure.subplots(1, 3), panels, strict=True):
        for column in history.columns.intersection(columns):
            known = history[["epoch", column]].dropna()
            axes.plot(known["epoch"], known[column], label=column, marker="." if len(known) < 30 else "")
            if column == "val/acc" and len(known):
                best = known.loc[known[column].idxmax()]
                axes.set_title(f"best val/acc {best[column]:.4f} at epoch {best['epoch']:.0f}", fontsize=10)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.suptitle(title).set_parse_math(False)
    return figure


def save_report(
    folder: Path,
    report: dict[str, Any],
    probabilities: np.ndarray,
    labels: np.ndarray,
    paths: Sequence[str],
    sources: Sequence[str],
    class_names: Sequence[str],
) -> dict[str, Path]:
    """Write report.json, confusion.png, confusion.csv, per_class.csv and predictions.csv, and return name -> path.

    ``report`` is plain data: "plain" and, where made, "ten_crop" from ``summarize``; "headline" names the one that the
    pictures and tables show and whose probabilities are given here; split, data, checkpoint, model (strings); drawn
    (bool); notes (sentences); optionally "without_duplicates", the headline way again on fewer rows. Each file is
    written to a temporary name and renamed, report.json last.

    Raises:
        ValueError: the probabilities and labels are not those of the headline, or the rows differ in number.
        InputError: the folder cannot be made or written in.
    """
    headline = report[report["headline"]]
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    counts = confusion_counts(probabilities, labels)
    if counts.tolist() != headline["confusion"]:
        raise ValueError(f"the probabilities are not those that report[{report['headline']!r}] was made from")
    names = np.asarray(class_names, dtype=object)
    predicted = probabilities.argmax(axis=1)
    rows = {"source": list(sources), "path": list(paths), "label": names[labels], "prediction": names[predicted]}
    # Text as Python objects: pyarrow, which pandas uses where it finds it, refuses names that are not UTF-8.
    predictions = pd.DataFrame(rows, dtype=object).assign(correct=(predicted == labels).astype(int))
    for index, name in enumerate(class_names):
        predictions[f"p_{name}"] = probabilities[:, index]
    confusion = pd.DataFrame(counts, index=pd.Index(names, name="true \\ predicted"), columns=names)
    data = f"{report['data']} (drawn sample data)" if report["drawn"] else report["data"]
    score = f"accuracy {headline['accuracy']:.2%} of {headline['n']:,} images, {CROP_NAMES[report['headline']]}"
    figure = confusion_figure(counts, class_names, f"{data}, {report['split']} split: {score}")
    # A photo's name need not be UTF-8; surrogateescape writes back the bytes that the file system gave.
    csv = {"lineterminator": "\n", "encoding": "utf-8", "errors": "surrogateescape"}
    writers: dict[str, Callable[[Path], Any]] = {
        "predictions.csv": lambda path: predictions.to_csv(path, index=False, float_format="%.6g", **csv),
        "per_class.csv": lambda path: pd.DataFrame(headline["per_class"]).to_csv(path, index=False, **csv),
        "confusion.csv": lambda path: confusion.to_csv(path, **csv),
        "confusion.png": lambda path: figure.savefig(path, dpi=120, format="png", bbox_inches="tight"),
        "report.json": lambda path: path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", "utf-8"),
    }
    return write_files(folder, writers)
