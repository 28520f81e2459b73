"""One table of a model's scores on several data sets."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fer.evaluation.taxonomy import left_out_text, masked_text, short_common
from fer.evaluation.text import CROP_NAMES, DRAWN, aligned, score_cells
from fer.system.files import write_files


def save_table(folder: Path, about: dict[str, Any], reports: Sequence[tuple[dict[str, Any], str]]) -> str:
    """Write table.csv and report.json (``about``, plain data) and return the table as text.

    ``reports`` are those of `fer.evaluation.report.Report.as_json`, each with the name of its folder. Columns of
    table.csv: data, split, drawn, n (rows scored), accuracy, accuracy_low, accuracy_high, balanced_accuracy, macro_f1
    (fractions), classes (how many), masked, mapped, left_out (rows), left_out_classes, crop, report (its folder).

    Raises:
        InputError: the folder cannot be written in.
    """
    table = pd.DataFrame([_row(report, name) for report, name in reports], dtype=object)
    writers = {
        "table.csv": lambda path: table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8"),
        "report.json": lambda path: path.write_text(json.dumps(about, indent=1) + "\n", "utf-8"),
    }
    write_files(folder, writers)
    return _text([report for report, _ in reports])


def _row(report: dict[str, Any], name: str) -> dict[str, Any]:
    scores, common = report[report["headline"]], report["common"]
    low, high = scores["accuracy_95"]
    return {
        "data": report["data"], "split": report["split"], "drawn": report["drawn"], "n": scores["n"],
        "accuracy": scores["accuracy"], "accuracy_low": low, "accuracy_high": high,
        "balanced_accuracy": scores["balanced_accuracy"], "macro_f1": scores["macro_f1"],
        "classes": len(scores["per_class"]),
        "masked": masked_text(common) if common else "",
        "mapped": ", ".join(f"{own} -> {name}" for own, name in common["mapped"].items()) if common else "",
        "left_out": sum(common["left_out"].values()) if common else 0,
        "left_out_classes": left_out_text(common) if common else "",
        "crop": CROP_NAMES[report["headline"]], "report": name,
    }  # fmt: skip


def _text(reports: list[dict[str, Any]]) -> str:
    rows = [["data", "split", "classes", "rows", "accuracy % [95 %]", "balanced %", "macro F1 %"]]
    for report in reports:
        n, *cells = score_cells(report[report["headline"]])
        drawn = " (drawn)" if report["drawn"] else ""
        classes = "the same" if report["common"] is None else short_common(report["common"])
        rows.append([f"{report['data']}{drawn}", report["split"], classes, n, *cells[:3]])
    first = reports[0]
    checkpoint = first["checkpoint"] if isinstance(first["checkpoint"], str) else ", ".join(first["checkpoint"])
    lines = [f"{first['model']}, {CROP_NAMES[first['headline']]}; checkpoint {checkpoint}", "", aligned(rows, left=3)]
    if any(report["drawn"] for report in reports):
        lines.insert(0, DRAWN)
    notes = [f"note: {report['data']}: {note}" for report in reports for note in report["notes"]]
    return "\n".join([*lines, *([""] if notes else []), *notes])
