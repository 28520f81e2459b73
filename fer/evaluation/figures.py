"""Pictures of an evaluation and of a training: the confusion matrix, risk by coverage, and the curves by epoch."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fer.evaluation.metrics import ratio


def confusion_figure(counts: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Return the row-normalised confusion matrix as a picture, with the raw counts where they are readable.

    The colour scale is always 0..1, so that two pictures can be compared. A class without rows is a grey row of dashes.
    """
    counts = np.asarray(counts)
    classes, support = len(class_names), counts.sum(axis=1)
    share = ratio(counts.ravel(), np.repeat(support, classes)).reshape(counts.shape)
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
        color = "white" if share[row, column] > 0.65 else "black"

        def write(text: str, up: float, size: float | None, at=(column, row), color=color) -> None:
            axes.annotate(
                text, at, xytext=(0, up), textcoords="offset points",
                fontsize=size, color=color, ha="center", va="center",
            )  # fmt: skip

        if support[row] == 0:
            write("–", 0, None)
        elif with_counts:
            write(f"{share[row, column]:.2f}", 5, 11)
            write(f"{counts[row, column]:,}", -9, 8)
        else:
            write(f"{share[row, column]:.2f}", 0, 16 * cell)
    return figure


def risk_coverage_figure(points: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Return how often the surest faces are right, by their share of all, as `metrics.risk_coverage` gives it."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    coverage, accuracy = ([100 * point[key] for point in points] for key in ("coverage", "accuracy"))
    axes.plot(coverage, accuracy, marker=".")
    written = None
    for point, x, y in zip(points, coverage, accuracy, strict=True):
        # every second one, and none on top of another
        if round(20 * point["min_confidence"]) % 2 == 0 and (written is None or abs(x - written) > 4):
            axes.annotate(
                f"{point['min_confidence']:.1f}", (x, y), xytext=(4, 6), textcoords="offset points", fontsize=8
            )
            written = x
    axes.set(xlabel="faces that get a name, %", ylabel="of these right, %", xlim=(0, 105), ylim=(None, 102))
    axes.grid(alpha=0.3)
    axes.set_title("numbers at the curve: min_confidence", fontsize=9)
    heading = figure.suptitle(textwrap.fill(title, 75, break_on_hyphens=False), fontsize=11)
    heading.set_parse_math(False)
    return figure


def curves_figure(history: pd.DataFrame, title: str = "") -> Figure:
    """Return loss, accuracy and learning rate by epoch in one picture.

    Columns: epoch and any of train/loss, val/loss, train/acc, val/acc, optim/lr (lr before 0.3); empty cells are passed
    over, since a logger may write training and validation on separate lines.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (
        ("loss", ("train/loss", "val/loss")),
        ("accuracy", ("train/acc", "val/acc")),
        ("learning rate", ("optim/lr", "lr")),
    )
    for axes, (label, columns) in zip(figure.subplots(1, 3), panels, strict=True):
        for column in [column for column in columns if column in history]:
            rows = history[["epoch", column]].dropna()
            axes.plot(rows["epoch"], rows[column], label=column, marker="." if len(rows) < 30 else "")
            if column == "val/acc" and len(rows):
                best = rows.iloc[int(rows[column].argmax())]
                axes.set_title(f"best val/acc {best[column]:.4f} at epoch {best['epoch']:.0f}", fontsize=10)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.suptitle(title).set_parse_math(False)
    return figure
