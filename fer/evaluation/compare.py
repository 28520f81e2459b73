"""Reports as text: a classifier's for the terminal, and several side by side, classifiers with McNemar's test."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer.errors import InputError
from fer.evaluation.report import CROP_NAMES

_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "top2_accuracy", "ece")
_SCORE_HEADER = ["accuracy % [95 %]", "balanced %", "macro F1 %", "top-2 %", "ECE %"]
_DETECTOR_SCORES = ("map50", "precision", "recall", "f1", "iou")
_DETECTOR_HEADER = ["mAP@0.50 %", "P", "R", "F1", "IoU %"]
_NET_HEADER = ["size", "pre-training"]
_KEY = ["source", "path", "label"]

DRAWN = "DRAWN SAMPLE DATA: these faces are drawn by code; no number below says anything about photos."


def format_report(report: dict[str, Any]) -> str:
    """Return a report (as ``save_report`` takes it) as lines for the terminal; the headline's row is starred.

    A precision or recall that no row defines is a dash. When the data are drawn, the first line says so. Where the
    report has them: ``size`` and ``pretrained``, the net's input in pixels and what its weights started from,
    ``scales``, the sizes of the ten crops, ``temperature_scaled``, calibration before and after, and ``printed``,
    accuracies by name as the darknet program itself gave them, of which ``program`` is the dialect.
    """
    headline, checkpoint = report[report["headline"]], report["checkpoint"]
    lines = [
        f"{report['model']} on {report['data']}, {report['split']}: {headline['n']:,} images",
        f"checkpoint {checkpoint if isinstance(checkpoint, str) else ', '.join(checkpoint)}",
        "",
    ]
    if "size" in report:
        started = f", pre-trained: {report['pretrained']}" if report.get("pretrained") else ""
        lines.insert(2, f"network {size_text(report['size'])}{started}")
    if report["drawn"]:
        lines.insert(0, DRAWN)
    rows = [["", "n", *_SCORE_HEADER]]
    for crop, name in CROP_NAMES.items():
        if crop in report:
            if crop == "ten_crop" and report.get("scales"):
                name = f"{name} of {', '.join(map(str, report['scales']))} pixels"
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
    lines += [aligned(rows), *_scaled_lines(report)]
    if "printed" in report:
        printed = ", ".join(f"{name} {100 * value:.2f} %" for name, value in report["printed"].items())
        lines.append(f"printed by the darknet program ({report['program']}): {printed}")
    lines += ["", aligned(classes)]
    if report["notes"]:
        lines += ["", *(f"note: {note}" for note in report["notes"])]
    return "\n".join(lines)


def _scaled_lines(report: dict[str, Any]) -> list[str]:
    lines = []
    for crop, name in CROP_NAMES.items():
        if scaled := report.get(crop, {}).get("temperature_scaled"):
            first, second = scaled["temperatures"]
            lines.append(
                f"  {name}, temperatures {first:.2f} and {second:.2f}: ECE {100 * report[crop]['ece']:.2f} -> "
                f"{100 * scaled['ece']:.2f} %, NLL {report[crop]['nll']:.4f} -> {scaled['nll']:.4f}"
            )
    return lines and ["temperature scaling, each half of the rows with the temperature fitted on the other:", *lines]


def _score_cells(summary: dict[str, Any]) -> list[str]:
    low, high = summary["accuracy_95"]
    accuracy = f"{100 * summary['accuracy']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    return [f"{summary['n']:,}", accuracy, *(f"{100 * summary[key]:.2f}" for key in _SCORES[1:])]


def detector_cells(report: dict[str, Any]) -> list[str]:
    """Return mAP in %, precision, recall, F1 (as the darknet program prints them) and mean IoU in % as text."""
    percent = {"map50", "iou"}
    return [f"{100 * report[key]:.2f}" if key in percent else f"{report[key]:.2f}" for key in _DETECTOR_SCORES]


def size_text(size: int | None) -> str:
    """Return the side of a net's square input as in "256 x 256", or a dash where it is not known."""
    return f"{size} x {size}" if size else "–"


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
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
    """Return the headline scores of classifiers' reports, one row each: report.json files, or folders that hold one.

    Columns: name (what tells the paths apart), model, data, split, drawn, size (pixels) and pretrained (missing where
    the report does not say), n, crop, and the scores of ``summarize`` as fractions: accuracy, accuracy_low,
    accuracy_high, balanced_accuracy, macro_f1, top2_accuracy, ece.

    Raises:
        InputError: no report, or a file that is missing, not JSON, not a report, or a detector's.
    """
    named = _named(reports)
    for (_, report), path in zip(named, reports, strict=True):
        if _is_detector(report):
            raise InputError(f"{path} is a detector's report: `evaluate.py compare=[...]` has a table of those")
    return pd.DataFrame([_classifier_row(*pair) for pair in named]).astype({"size": "Int64"})


def _named(reports: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
    if not reports:
        raise InputError("no report to compare: give report.json files or their folders, as compare=[a,b]")
    files = [_file(path) for path in reports]
    return [(name, _read(file)) for name, file in zip(_names(files), files, strict=True)]


def _about(name: str, report: dict[str, Any]) -> dict[str, Any]:
    known = {key: report[key] for key in ("model", "data", "split", "drawn")}
    return {"name": name} | known | {key: report.get(key) for key in ("size", "pretrained")}


def _classifier_row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    headline = report[report["headline"]]
    low, high = headline["accuracy_95"]
    intervals = {"accuracy_low": low, "accuracy_high": high}
    crop = {"n": headline["n"], "crop": CROP_NAMES[report["headline"]]}
    return _about(name, report) | crop | intervals | {key: headline[key] for key in _SCORES}


def _detector_row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    return _about(name, report) | {key: report[key] for key in ("faces", *_DETECTOR_SCORES)}


def compare(reports: Sequence[Path]) -> str:
    """Return the reports as text: a table of the classifiers, and one of the detectors, each where there are any.

    Under the classifiers' stands McNemar's exact test of the first against each other one. Two reports are tested when
    the predictions.csv beside them have the same rows (source, path and label; rows that share all three are paired in
    the order of the file); otherwise the text says why there is no p-value.

    Raises:
        InputError: as ``compare_table``, or a predictions.csv that is not one.
    """
    named, parts = list(zip(_named(reports), map(_file, reports), strict=True)), []
    classifiers = [(_classifier_row(*pair), file) for pair, file in named if not _is_detector(pair[1])]
    detectors = [_detector_row(*pair) for pair, _ in named if _is_detector(pair[1])]
    if classifiers:
        rows = [["name", "model", "data/split", "n", "crop", *_SCORE_HEADER, *_NET_HEADER]]
        for row, _ in classifiers:
            n, *cells = _score_cells(row | {"accuracy_95": (row["accuracy_low"], row["accuracy_high"])})
            rows.append([row["name"], row["model"], _data_text(row), n, row["crop"], *cells, *_net_cells(row)])
        parts.append(aligned(rows, left=3))
    if len(classifiers) > 1:
        (first_row, first_file), *others = classifiers
        first = _predictions(first_file)
        lines = [f"McNemar's exact test against {first_row['name']} (two-sided, not corrected for several tests):"]
        lines += [f"  {row['name']}: {_test(first, _predictions(file))}" for row, file in others]
        parts.append("\n".join(lines))
    if detectors:
        rows = [["name", "model", "data/split", "faces", *_DETECTOR_HEADER, *_NET_HEADER]]
        for row in detectors:
            about = [row["name"], row["model"], _data_text(row), f"{row['faces']:,}"]
            rows.append([*about, *detector_cells(row), *_net_cells(row)])
        parts.append(aligned(rows, left=3))
    return "\n\n".join(parts)


def _data_text(row: dict[str, Any]) -> str:
    return f"{row['data']}{' (drawn)' if row['drawn'] else ''}/{row['split']}"


def _net_cells(row: dict[str, Any]) -> list[str]:
    return [size_text(row["size"]), row["pretrained"] or "–"]


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


def _is_detector(report: dict[str, Any]) -> bool:
    return report.get("task") == "detector"  # reports of before detectors have no task


def _is_report(report: Any) -> bool:
    try:
        strings = [report[key] for key in ("model", "data", "split")]
        if _is_detector(report):
            known = np.isfinite(np.array([report[key] for key in ("faces", *_DETECTOR_SCORES)], float)).all()
        else:
            headline = report[report["headline"]]
            scores = np.array([headline[key] for key in ("n", *_SCORES)] + headline["accuracy_95"], float)
            known = len(scores) == 8 and np.array(headline["confusion"], float).ndim == 2
            known = known and report["headline"] in CROP_NAMES
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    known = known and isinstance(report.get("drawn"), bool) and all(isinstance(text, str) for text in strings)
    return known and isinstance(report.get("size"), int | None) and isinstance(report.get("pretrained"), str | None)
