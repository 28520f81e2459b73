"""Reports as text: one for the terminal, and several side by side with McNemar's test."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer.errors import InputError
from fer.report import CROP_NAMES

_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "top2_accuracy", "ece")
_SCORE_HEADER = ["accuracy % [95 %]", "balanced %", "macro F1 %", "top-2 %", "ECE %"]
_KEY = ["source", "path", "label"]


def format_report(report: dict[str, Any]) -> str:
    """Return a report (as ``save_report`` takes it) as lines for the terminal; the headline's row is starred.

    A precision or recall that no row defines is a dash. When the data are drawn, the first line says so.
    """
    headline = report[report["headline"]]
    lines = [
        f"{report['model']} on {report['data']}, {report['split']}: {headline['n']:,} images",
        f"checkpoint {report['checkpoint']}",
        "",
    ]
    if report["drawn"]:
        lines.insert(0, "DRAWN SAMPLE DATA: these faces are drawn by code; no number below says anything about photos.")
    rows = [["", "n", *_SCORE_HEADER]]
    for crop, name in CROP_NAMES.items():
        if crop in report:
            rows.append([f"{name} *" if crop == report["headline"] else name, *_score_cells(report[crop])])
    if "without_duplicates" in report:
        left_out = headline["n"] - report["without_duplicates"]["n"]
        name = f"{CROP_NAMES[report['headline']]}, {left_out:,} exact duplicates left out"
        rows.append([name, *_score_cells(report["without_duplicates"])])
    classes = [["class", "precision %", "recall %", "F1 %", "images"]]
    for entry, predicted in zip(headline["per_class"], np.sum(headline["confusion"], axis=0), strict=True):
        defined = {"precision": predicted > 0, "recall": entry["support"] > 0, "f1": predicted + entry["support"] > 0}
        scores = [f"{100 * entry[key]:.2f}" if known else "–" for key, known in defined.items()]
        classes.append([entry["name"], *scores, f"{entry['support']:,}"])
    lines += [_aligned(rows), "", _aligned(classes)]
    if report["notes"]:
        lines += ["", *(f"note: {note}" for note in report["notes"])]
    return "\n".join(lines)


def _score_cells(summary: dict[str, Any]) -> list[str]:
    low, high = summary["accuracy_95"]
    accuracy = f"{100 * summary['accuracy']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    return [f"{summary['n']:,}", accuracy, *(f"{100 * summary[key]:.2f}" for key in _SCORES[1:])]


def _aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return rows of cells as columns two spaces apart, the first ``left`` of them flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pad = [str.ljust if index < left else str.rjust for index in range(len(widths))]
    return "\n".join(
        "  ".join(put(cell, width) for put, cell, width in zip(pad, row, widths, strict=True)).rstrip() for row in rows
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p-value that two classifiers err equally often, from their discordant counts.

    The counts are the rows that only the first, and only the second, gets right. Exact at every size (no chi-square
    approximation): min(1, 2 P(X <= min)) with X binomial(sum, 1/2), summed from logarithms of factorials.
    McNemar 1947, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12.

    >>> mcnemar(1, 9)  # 2 * (1 + 10) / 2**10
    0.021484375
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n < 1000:
        return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log - n * math.log(2)) for log in logs))


def compare_table(reports: Sequence[Path]) -> pd.DataFrame:
    """Return the headline scores of reports, one row each: report.json files, or folders that hold one.

    Columns: name (what tells the paths apart), model, data, split, drawn, n, crop, and the scores of ``summarize`` as
    fractions: accuracy, accuracy_low, accuracy_high, balanced_accuracy, macro_f1, top2_accuracy, ece.

    Raises:
        InputError: no report, or a file that is missing, not JSON, or not a report.
    """
    if not reports:
        raise InputError("no report to compare: give report.json files or their folders, as compare=[a,b]")
    files, rows = [_file(path) for path in reports], []
    for name, file in zip(_names(files), files, strict=True):
        report = _read(file)
        headline = report[report["headline"]]
        low, high = headline["accuracy_95"]
        rows.append(
            {"name": name}
            | {key: report[key] for key in ("model", "data", "split", "drawn")}
            | {"n": headline["n"], "crop": CROP_NAMES[report["headline"]], "accuracy_low": low, "accuracy_high": high}
            | {key: headline[key] for key in _SCORES}
        )
    return pd.DataFrame(rows)


def compare(reports: Sequence[Path]) -> str:
    """Return a table of reports and McNemar's exact test of the first against each other one, as text.

    Two reports are tested when the predictions.csv beside them have the same rows (source, path and label; rows that
    share all three are paired in the order of the file); otherwise the text says why there is no p-value.

    Raises:
        InputError: as ``compare_table``, or a predictions.csv that is not one.
    """
    table = compare_table(reports)
    rows = [["name", "model", "data/split", "n", "crop", *_SCORE_HEADER]]
    for row in table.to_dict("records"):
        cells = _score_cells(row | {"accuracy_95": (row["accuracy_low"], row["accuracy_high"])})
        data = f"{row['data']}{' (drawn)' if row['drawn'] else ''}/{row['split']}"
        rows.append([row["name"], row["model"], data, cells[0], row["crop"], *cells[1:]])
    lines = [_aligned(rows, left=3)]
    if len(table) > 1:
        lines += ["", f"McNemar's exact test against {table['name'][0]} (two-sided, not corrected for several tests):"]
        first, *others = [_predictions(_file(path)) for path in reports]
        lines += [f"  {name}: {_test(first, other)}" for name, other in zip(table["name"][1:], others, strict=True)]
    return "\n".join(lines)


def _test(first: pd.DataFrame | str, second: pd.DataFrame | str) -> str:
    for predictions in (first, second):
        if isinstance(predictions, str):
            return f"no p-value, {predictions}"
    shared = first.index.intersection(second.index)
    if len(shared) < max(len(first), len(second)):
        return (
            f"no p-value, the rows differ: {len(shared):,} shared, {len(first) - len(shared):,} only in the first, "
            f"{len(second) - len(shared):,} only in this one"
        )
    a, b = first["correct"].loc[shared].to_numpy(), second["correct"].loc[shared].to_numpy()
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    p = mcnemar(only_first, only_second)
    shown = "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"
    return f"right only here {only_second:,}, only in the first {only_first:,}, of {len(shared):,} images; {shown}"


def _predictions(file: Path) -> pd.DataFrame | str:
    """Return column ``correct`` (bool) by (source, path, label, occurrence), or why it can't be used."""
    path = file.parent / "predictions.csv"
    if not path.is_file():
        return f"there is no {path}"
    columns = [*_KEY, "prediction"]
    try:
        # Everything is text: a path may read 00042 or NA, and may not be UTF-8.
        text = {"dtype": object, "keep_default_na": False, "encoding_errors": "surrogateescape"}
        rows = pd.read_csv(path, usecols=columns, **text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a predictions.csv of evaluate.py: run evaluate.py again") from error
    rows["correct"] = rows["label"] == rows["prediction"]
    report = _read(file)
    headline = report[report["headline"]]
    if (len(rows), int(rows["correct"].sum())) != (headline["n"], int(np.trace(headline["confusion"]))):
        return f"{path} does not belong to {file}"
    rows["occurrence"] = rows.groupby(_KEY).cumcount()
    return rows.set_index([*_KEY, "occurrence"])[["correct"]]


def _file(path: Path) -> Path:
    return path / "report.json" if path.is_dir() else path


def _names(files: Sequence[Path]) -> list[str]:
    """Return what tells the files apart: their folders below the one that all share, file names only if unusual."""
    whole = [Path(os.path.abspath(file)) for file in files]
    whole = [file.parent if file.name == "report.json" else file.with_suffix("") for file in whole]
    shared = len(os.path.commonprefix([path.parent.parts for path in whole]))
    return ["/".join(path.parts[shared:]) for path in whole]


def _read(file: Path) -> dict[str, Any]:
    try:
        report = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} does not exist: evaluate.py writes report.json into its run folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: give the report.json of a run of evaluate.py") from error
    if not _is_report(report):
        raise InputError(f"{file} is not a report of evaluate.py: give its report.json, or run evaluate.py again")
    return report


def _is_report(report: Any) -> bool:
    try:
        headline = report[report["headline"]]
        scores = np.array([headline[key] for key in ("n", *_SCORES)] + headline["accuracy_95"], float)
        counts = np.array(headline["confusion"], float)
        strings = [report[key] for key in ("model", "data", "split")]
    except (KeyError, TypeError, ValueError):
        return False
    known = report["headline"] in CROP_NAMES and isinstance(report.get("drawn"), bool)
    return known and len(scores) == 8 and counts.ndim == 2 and all(isinstance(text, str) for text in strings)
