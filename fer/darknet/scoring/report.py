"""The report of a detector: its files, pictures, and text for the terminal."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fer.darknet.scoring.mean_ap import IOU_THRESHOLD, RECALLS
from fer.evaluation.text import DRAWN, aligned, size_text
from fer.system.files import write_files

#: What the counts of a report are; those of ``by_confidence`` go by another order.
COUNTED = "as detector map: wrong where one that AlexeyAB's program lists earlier, of any confidence, took the face"
#: COCO's names of its means to ours in a report.
_COCO = {"AP": "map", "AP50": "map50", "AP75": "map75"}


def save_detector_report(folder: Path, report: dict[str, Any]) -> dict[str, Path]:
    """Write report.json, per_class.csv, ap.png and, where the classes have curves, precision_recall.png.

    ``report`` is plain data: task "detector"; what an engine's ``detector_map`` returns; model, data, split, checkpoint
    (strings); drawn (bool); notes (sentences); size (pixels of the net's input) and pretrained (a string or
    None). Files are written as those of ``fer.evaluation.report.save_report``, whose return value this has too.

    Raises:
        InputError: the folder cannot be made.
    """
    data = f"{report['data']} (drawn sample data)" if report["drawn"] else report["data"]
    title = f"{data}, {report['split']} split: {map_name(report)} {report['map']:.2%} of {report['faces']:,} faces"
    table = pd.DataFrame(report["per_class"]).drop(columns="curve", errors="ignore")
    writers: dict[str, Callable[[Path], Any]] = {
        "per_class.csv": lambda path: table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8"),
        "ap.png": lambda path: _save(ap_figure(report["per_class"], title, report["iou_threshold"]), path),
    }
    if all("curve" in entry for entry in report["per_class"]):
        writers["precision_recall.png"] = lambda path: _save(curve_figure(report["per_class"], title), path)
    else:  # one of an earlier report would not belong to this one
        (folder / "precision_recall.png").unlink(missing_ok=True)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    writers["report.json"] = lambda path: path.write_text(text, "utf-8")
    return write_files(folder, writers)


def ap_figure(per_class: list[dict[str, Any]], title: str, iou_threshold: float = IOU_THRESHOLD) -> Figure:
    """Return average precision by class as bars from 0 to 1; a class without faces has a dash for a bar."""
    figure, axes = _canvas(7, 1.6 + 0.36 * len(per_class), title)
    names = [f"{_short(entry['name'])} ({entry['truths']:,})" for entry in per_class]
    ap = [entry["ap"] for entry in per_class]
    axes.barh(range(len(ap)), ap, color="tab:blue")
    for row, entry in enumerate(per_class):
        text = f"{100 * entry['ap']:.1f}" if entry["truths"] else "–"
        axes.annotate(text, (entry["ap"], row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(ap)), names)
    axes.invert_yaxis()
    # 12 % more than all, for the number at the end of a full bar
    axes.set(xlim=(0, 1.12), xlabel=f"average precision at IoU > {iou_threshold:g}", ylabel="class (faces)")
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    _plain(axes.get_yticklabels())
    return figure


def curve_figure(per_class: list[dict[str, Any]], title: str) -> Figure:
    """Return precision by recall of each class that has faces, the area under which is its average precision."""
    figure, axes = _canvas(7, 5, title)
    for number, entry in enumerate(entry for entry in per_class if entry["truths"]):
        label = f"{_short(entry['name'])} {100 * entry['ap']:.1f}"
        axes.step(RECALLS, entry["curve"], where="pre", label=label, linestyle=("-", "--", ":")[number // 10 % 3])
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.grid(alpha=0.3)
    if axes.lines:
        legend = axes.legend(title="class, AP %", loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        _plain(legend.get_texts())
    return figure


def map_name(report: dict[str, Any]) -> str:
    """Return what a report's mAP is called by its IoU, as in mAP@0.50."""
    return f"mAP@{report['iou_threshold']:.2f}"


def _counted(scores: dict[str, Any]) -> list[str]:
    shares = [f"{scores[key]:.2f}" for key in ("precision", "recall", "f1")]
    return [*shares, f"{100 * scores['iou']:.2f}", *(f"{scores[key]:,}" for key in ("tp", "fp", "fn"))]


def _canvas(width: float, height: float, title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    _plain([figure.suptitle(textwrap.fill(title, int(width * 10), break_on_hyphens=False), fontsize=12)])
    return figure, figure.add_subplot()


def _plain(texts: Any) -> None:
    for text in texts:
        text.set_parse_math(False)  # "a$b$c" is a class name, not a formula


def _short(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:15]}…{name[-16:]}"


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, format="png", bbox_inches="tight")


def format_detector_report(report: dict[str, Any]) -> str:
    """Return a report (as ``save_detector_report`` takes it) as lines for the terminal; drawn data are named first."""
    net = f"network {size_text(report.get('size'))}"
    if report.get("pretrained"):
        net += f", pre-trained: {report['pretrained']}"
    lines = [DRAWN] if report["drawn"] else []
    lines += [
        f"{report['model']} on {report['data']}, {report['split']}: {report['photos']:,} photos, "
        f"{report['faces']:,} faces",
        f"checkpoint {report['checkpoint']}",
        f"{net}; mAP {report['map_by']}",
        "",
    ]
    lines.append(
        f"{map_name(report)} {100 * report['map']:.2f} %, and of detections with confidence over "
        f"{report['threshold']:g}:"
    )
    rows = [["counted", "P", "R", "F1", "IoU %", "TP", "FP", "FN"], ["as detector map", *_counted(report)]]
    said = [COUNTED]
    if "by_confidence" in report:
        rows.append(["by confidence", *_counted(report["by_confidence"])])
        said.append("by confidence: wrong where a surer one took the face, as in mAP")
    lines += [aligned(rows), *said, ""]
    if coco := report.get("coco"):
        percent = [f"{name} {100 * coco[key]:.2f} %" for name, key in _COCO.items()]
        lines += [f"COCO's mAP (torchmetrics, classes with faces): {', '.join(percent)}", ""]
    rows = [["class", "AP %", "TP", "FP", "faces"]]
    for entry in report["per_class"]:
        ap = f"{100 * entry['ap']:.2f}" if entry["truths"] else "–"
        rows.append([entry["name"], ap, *(f"{entry[key]:,}" for key in ("tp", "fp", "truths"))])
    lines.append(aligned(rows))
    absent = sum(not entry["truths"] for entry in report["per_class"])
    notes = list(report["notes"])
    if absent:
        notes.append(
            f"{absent} of {len(report['per_class'])} classes without faces here counts as AP 0 in the mean, "
            "as in the darknet program."
        )
    if not report["tp"] + report["fp"]:
        notes.append("Nothing was detected with confidence over the threshold.")
    if notes:
        lines += ["", *(f"note: {note}" for note in notes)]
    return "\n".join(lines)
