"""Several reports side by side, classifiers with McNemar's test."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer.errors import InputError
from fer.evaluation.metrics import mcnemar, metrics_from_confusion, wilson_interval
from fer.evaluation.taxonomy import short_common
from fer.evaluation.text import (
    CROP_NAMES,
    DETECTOR_SCORES,
    SCORE_HEADER,
    SCORES,
    aligned,
    detector_cells,
    score_cells,
    size_text,
)

_DETECTOR_HEADER = ["mAP %", "IoU >", "P", "R", "F1", "IoU %"]
_NET_HEADER = ["size", "pre-training"]
_KEY = ["source", "path", "label"]

#: How far a number may be from another that means the same: sums are rounded in another order elsewhere.
_ROUNDING = 1e-9


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
    about = {key: report[key] for key in ("model", "data", "split", "drawn")}
    return {"name": name} | about | {key: report.get(key) for key in ("size", "pretrained")}


def _classifier_row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    headline = report[report["headline"]]
    low, high = headline["accuracy_95"]
    intervals = {"accuracy_low": low, "accuracy_high": high}
    crop = {"n": headline["n"], "crop": CROP_NAMES[report["headline"]]}
    return _about(name, report) | crop | intervals | {key: headline[key] for key in SCORES}


def _detector_row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    return _about(name, report) | {key: report[key] for key in ("faces", "iou_threshold", *DETECTOR_SCORES)}


def compare(reports: Sequence[Path]) -> str:
    """Return the reports as text: a table of the classifiers, and one of the detectors, each where there are any.

    Under the classifiers' stands McNemar's exact test of the first against each other one. Two reports are tested when
    the predictions.csv beside them have the same rows (source, path and label; rows that share all three are paired in
    the order of the file); otherwise the text says why there is no p-value.

    Raises:
        InputError: as ``compare_table``, or a predictions.csv that is not one.
    """
    named, parts = list(zip(_named(reports), map(_file, reports), strict=True)), []
    classifiers = [(_classifier_row(*pair), file, pair[1]) for pair, file in named if not _is_detector(pair[1])]
    detectors = [_detector_row(*pair) for pair, _ in named if _is_detector(pair[1])]
    if classifiers:
        rows = [["name", "model", "data/split", "n", "crop", *SCORE_HEADER, *_NET_HEADER]]
        for row, *_ in classifiers:
            n, *cells = score_cells(row | {"accuracy_95": (row["accuracy_low"], row["accuracy_high"])})
            rows.append([row["name"], row["model"], _data_text(row), n, row["crop"], *cells, *_net_cells(row)])
        parts.append(aligned(rows, left=3))
        if common := [(row["name"], report["common"]) for row, _, report in classifiers if report.get("common")]:
            parts.append("\n".join(f"{name}: {short_common(facts)}" for name, facts in common))
    if len(classifiers) > 1:
        (first_row, first_file, first_report), *others = classifiers
        first = _predictions(first_file)
        lines = [f"McNemar's exact test against {first_row['name']} (two-sided, not corrected for several tests):"]
        for row, file, report in others:
            alike = _scored_classes(report) == _scored_classes(first_report)
            says = _test(first, _predictions(file)) if alike else "no p-value, it is scored on other classes"
            lines.append(f"  {row['name']}: {says}")
        parts.append("\n".join(lines))
    if detectors:
        rows = [["name", "model", "data/split", "faces", *_DETECTOR_HEADER, *_NET_HEADER]]
        for row in detectors:
            about = [row["name"], row["model"], _data_text(row), f"{row['faces']:,}"]
            score, *cells = detector_cells(row)
            rows.append([*about, score, f"{row['iou_threshold']:g}", *cells, *_net_cells(row)])
        parts.append(aligned(rows, left=3))
    return "\n\n".join(parts)


def _scored_classes(report: dict[str, Any]) -> Any:
    """Return the classes that a classifier was scored on: those in common, or those of its table of classes."""
    if report.get("common"):
        return sorted(report["common"]["classes"])
    per_class = report[report["headline"]].get("per_class")
    # reports of others may lack them
    if not isinstance(per_class, list) or not all(isinstance(entry, dict) and "name" in entry for entry in per_class):
        return None
    return sorted(str(entry["name"]) for entry in per_class)


def _data_text(row: dict[str, Any]) -> str:
    return f"{row['data']}{' (drawn)' if row['drawn'] else ''}/{row['split']}"


def _net_cells(row: dict[str, Any]) -> list[str]:
    return [size_text(row["size"]), row["pretrained"] or "–"]


def _test(first: pd.DataFrame | str, second: pd.DataFrame | str) -> str:
    if isinstance(first, str):
        return f"no p-value, {first}"
    if isinstance(second, str):
        return f"no p-value, {second}"
    shared = first.index.intersection(second.index)
    if len(shared) < max(len(first), len(second)):
        return (
            f"no p-value, the rows differ: {len(shared):,} shared, {len(first) - len(shared):,} only in the first, "
            f"{len(second) - len(shared):,} only in this one"
        )
    a, b = first["correct"].loc[shared].to_numpy(), second["correct"].loc[shared].to_numpy()
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    p = mcnemar(only_first, only_second)
    text = "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"
    return f"right only here {only_second:,}, only in the first {only_first:,}, of {len(shared):,} images; {text}"


def _predictions(file: Path) -> pd.DataFrame | str:
    """Return column ``correct`` (bool) by (source, path, label, occurrence), or why it can't be used."""
    path = file.parent / "predictions.csv"
    if not path.is_file():
        return f"there is no {path}"
    columns = [*_KEY, "prediction"]
    try:
        # Everything is text: a path may read 00042 or NA, and may not be UTF-8.
        rows = pd.read_csv(
            path, usecols=columns, dtype=object, keep_default_na=False, encoding_errors="surrogateescape"
        )
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
    paths = [Path(os.path.abspath(file)) for file in files]
    paths = [file.parent if file.name == "report.json" else file.with_suffix("") for file in paths]
    shared = len(os.path.commonprefix([path.parent.parts for path in paths]))
    return ["/".join(path.parts[shared:]) for path in paths]


def _read(file: Path) -> dict[str, Any]:
    try:
        report = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} does not exist: evaluate.py writes report.json into its run folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON: give the report.json of a run of evaluate.py") from error
    if isinstance(report, dict) and report.get("task") == "table":
        raise InputError(f"{file} is a table of several data sets: give the reports in the folders beside it")
    if isinstance(report, dict) and _is_detector(report) and "map50" in report:
        # as it was called while it was of no other IoU
        report = report | {"map": report["map50"], "iou_threshold": 0.5}
    try:
        _check(report)
    except ValueError as error:
        raise InputError(
            f"{file} is not a report of evaluate.py, {error}: give its report.json, or run evaluate.py again"
        ) from error
    return report


def _is_detector(report: dict[str, Any]) -> bool:
    return report.get("task") == "detector"  # reports of before detectors have no task


def _check(report: Any) -> None:
    """Raise ValueError, naming the key, where a report lacks something that is shown of it, or has another type."""
    if not isinstance(report, dict):
        raise ValueError("no mapping")
    for key in ("model", "data", "split"):
        _want(report, key, isinstance(report.get(key), str))
    _want(report, "drawn", isinstance(report.get("drawn"), bool))
    size, pretrained = report.get("size"), report.get("pretrained")
    _want(report, "size", size is None or type(size) is int and 0 < size < 1 << 20)
    _want(report, "pretrained", isinstance(pretrained, str | None))
    if _is_detector(report):
        _want(report, "faces", _is_count(report.get("faces")))
        for key in ("iou_threshold", *DETECTOR_SCORES):
            _want(report, key, _is_share(report.get(key)))
        return
    name = report.get("headline")
    _want(report, "headline", isinstance(name, str) and name in CROP_NAMES)
    headline = report.get(str(name))
    if not isinstance(headline, dict):
        raise ValueError(f"{name} is no mapping of scores")
    _want(headline, "n", _is_count(headline.get("n")), f"{name}.")
    for key in SCORES:
        _want(headline, key, _is_share(headline.get(key)), f"{name}.")
    interval, confusion = headline.get("accuracy_95"), headline.get("confusion")
    pair = isinstance(interval, list) and len(interval) == 2 and all(map(_is_share, interval))
    _want(headline, "accuracy_95", pair, f"{name}.")
    rows = confusion if isinstance(confusion, list) else []
    square = all(isinstance(row, list) and len(row) == len(rows) and all(map(_is_count, row)) for row in rows)
    _want(headline, "confusion", bool(rows) and square, f"{name}.")
    _check_agreement(headline, f"{name}.")
    common = report.get("common")
    _want(report, "common", common is None or _is_common(common))


def _check_agreement(headline: dict[str, Any], group: str) -> None:
    """Raise ValueError where scores are not those of the confusion that stands beside them."""
    confusion, n = headline["confusion"], headline["n"]
    rows = sum(map(sum, confusion))
    if n != rows:
        raise ValueError(f"{group}n is {n}, but its confusion has {rows} rows")
    scores = metrics_from_confusion(np.array(confusion, np.int64))
    for key in ("accuracy", "balanced_accuracy", "macro_f1"):
        if abs(headline[key] - scores[key]) > _ROUNDING:
            raise ValueError(f"{group}{key} is {headline[key]}, but its confusion gives {scores[key]}")
    interval = list(wilson_interval(int(np.trace(confusion)), n))
    if np.abs(np.subtract(headline["accuracy_95"], interval)).max() > _ROUNDING:
        raise ValueError(f"{group}accuracy_95 is {headline['accuracy_95']}, but its confusion gives {interval}")
    if headline["top2_accuracy"] < headline["accuracy"] - _ROUNDING:
        raise ValueError(f"{group}top2_accuracy is {headline['top2_accuracy']}, which is below the accuracy")


def _is_common(facts: Any) -> bool:
    if not isinstance(facts, dict) or not isinstance(facts.get("classes"), list):
        return False
    parts = [part for key in ("masked", "mapped", "left_out") if isinstance(part := facts.get(key), dict)]
    if len(parts) < 3 or not parts[0]:
        return False
    masked, mapped, left_out = parts
    lists = [facts["classes"], *masked.values()]
    texts = all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)
    return texts and all(isinstance(name, str) for name in mapped.values()) and all(map(_is_count, left_out.values()))


def _want(values: dict[str, Any], key: str, right: bool, group: str = "") -> None:
    if not right:
        what = f"is {values[key]!r:.60}" if key in values else "is missing"
        raise ValueError(f"{group}{key} {what}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _is_share(value: Any) -> bool:
    # an interval's end may be beyond by rounding
    return type(value) in (int, float) and -_ROUNDING <= value <= 1 + _ROUNDING
