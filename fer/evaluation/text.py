"""Reports as text for the terminal."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer.evaluation.taxonomy import format_common

#: How the two ways of scoring are written for people.
CROP_NAMES = {"plain": "plain", "ten_crop": "ten-crop"}

SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "top2_accuracy", "ece")


SCORE_HEADER = ["accuracy % [95 %]", "balanced %", "macro F1 %", "top-2 %", "ECE %"]


DETECTOR_SCORES = ("map", "precision", "recall", "f1", "iou")


DRAWN = "DRAWN SAMPLE DATA: these faces are drawn by code; no number below says anything about photos."


def format_report(report: dict[str, Any]) -> str:
    """Return a report (as ``save_report`` takes it) as lines for the terminal; the headline's row is starred.

    A precision or recall that no row defines is a dash. When the data are drawn, the first line says so. Where the
    report has them: ``size`` and ``pretrained``, the net's input in pixels and what its weights started from,
    ``common``, the classes in common (see `taxonomy.Common`), ``scales``, the sizes of the ten crops,
    ``temperature_scaled``, calibration before and after, and ``printed``, accuracies by name as the darknet program
    itself gave them, of which ``program`` is the dialect.
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
    if report.get("common"):
        lines[-1:-1] = format_common(report["common"])
    if report["drawn"]:
        lines.insert(0, DRAWN)
    rows = [["", "n", *SCORE_HEADER]]
    for crop, name in CROP_NAMES.items():
        if crop in report:
            if crop == "ten_crop" and report.get("scales"):
                name = f"{name} of {', '.join(map(str, report['scales']))} pixels"
            rows.append([f"{name} *" if crop == report["headline"] else name, *score_cells(report[crop])])
    if "without_duplicates" in report:
        left_out = headline["n"] - report["without_duplicates"]["n"]
        name = f"{CROP_NAMES[report['headline']]}, {left_out:,} exact duplicates left out"
        rows.append([name, *score_cells(report["without_duplicates"])])
    classes = [["class", "precision %", "recall %", "F1 %", "images"]]
    for entry, predicted in zip(headline["per_class"], np.sum(headline["confusion"], axis=0), strict=True):
        defined = {"precision": predicted > 0, "recall": entry["support"] > 0, "f1": predicted + entry["support"] > 0}
        scores = [f"{100 * entry[key]:.2f}" if is_defined else "–" for key, is_defined in defined.items()]
        classes.append([entry["name"], *scores, f"{entry['support']:,}"])
    lines += [aligned(rows), *_scaled_lines(report), *_kept_lines(headline)]
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


def _kept_lines(headline: dict[str, Any]) -> list[str]:
    """Return what naming only the surer faces would give, where the report has it (those of before 0.2 have not)."""
    points = {point["min_confidence"]: point for point in headline.get("risk_coverage", [])}
    kept = [
        f"{confidence}: {100 * points[confidence]['coverage']:.1f} % of the faces, "
        f"{100 * points[confidence]['accuracy']:.1f} % of these right"
        for confidence in (0.5, 0.7, 0.9)
        if confidence in points
    ]
    return kept and [f"named with min_confidence={kept[0]}", *(f"  {line}" for line in kept[1:])]


def score_cells(summary: dict[str, Any]) -> list[str]:
    low, high = summary["accuracy_95"]
    accuracy = f"{100 * summary['accuracy']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    return [f"{summary['n']:,}", accuracy, *(f"{100 * summary[key]:.2f}" for key in SCORES[1:])]


def detector_cells(report: dict[str, Any]) -> list[str]:
    """Return mAP in %, precision, recall, F1 (as the darknet program prints them) and mean IoU in % as text."""
    percent = {"map", "iou"}
    return [f"{100 * report[key]:.2f}" if key in percent else f"{report[key]:.2f}" for key in DETECTOR_SCORES]


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
