"""A detector's report: files, pictures and text."""

import json

import matplotlib.image
import pandas as pd
import pytest

from fer.darknet.scoring.report import ap_figure, curve_figure, format_detector_report, save_detector_report

NAMES = ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Angry")


def detector_report(**changes):
    """Seven classes, of which Disgust has no faces; 60 right of 80 found and 100 there."""
    ap = (0.9, 0.95, 0.5, 0.6, 0.35, 0.0, 0.4)
    per_class = [
        {
            "name": name,
            "ap": ap[i],
            "tp": 10 * (i != 5),
            "fp": 2 + i,
            "truths": 20 * (i != 5),
            "curve": [min(1.0, 1.8 * ap[i] * (1 - r / 125)) for r in range(101)],
        }
        for i, name in enumerate(NAMES)
    ]
    return {
        "task": "detector", "model": "v3_tiny", "data": "sample", "split": "test", "checkpoint": "runs/x.weights",
        "drawn": True, "notes": ["Well."], "size": 256, "pretrained": "darknet.conv.11", "photos": 70, "faces": 120,
        "map": 0.5286, "precision": 0.75, "recall": 0.5, "f1": 0.6, "iou": 0.6123, "tp": 60, "fp": 20, "fn": 60,
        "threshold": 0.25, "iou_threshold": 0.5, "per_class": per_class, "counted": "as detector map",
        "map_by": "computed from the boxes of detector valid",
        "by_confidence": {"precision": 0.8, "recall": 0.53, "f1": 0.64, "iou": 0.6345, "tp": 64, "fp": 16, "fn": 56},
    } | changes  # fmt: skip


def test_files(tmp_path):
    report = detector_report()
    files = save_detector_report(tmp_path / "new", report)
    assert set(files) == {"report.json", "per_class.csv", "ap.png", "precision_recall.png"}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(files)
    assert json.loads(files["report.json"].read_text()) == report
    table = pd.read_csv(files["per_class.csv"])
    assert table.columns.tolist() == ["name", "ap", "tp", "fp", "truths"]
    assert table["name"].tolist() == list(NAMES) and table["fp"].sum() == 35
    assert all(matplotlib.image.imread(files[name]).shape[0] > 300 for name in ("ap.png", "precision_recall.png"))

    # The program's own numbers have no curves, and a picture of those before would be another report's.
    for row in report["per_class"]:
        del row["curve"]
    assert "precision_recall.png" not in save_detector_report(tmp_path / "new", report)
    assert not (tmp_path / "new" / "precision_recall.png").exists()
    with pytest.raises(ValueError, match="JSON"):
        save_detector_report(tmp_path / "new", detector_report(map=float("inf")))
    assert json.loads(files["report.json"].read_text()) == report


def test_text():
    lines = format_detector_report(detector_report()).splitlines()
    assert "drawn" in lines[0].lower()
    assert lines[1] == "v3_tiny on sample, test: 70 photos, 120 faces"
    assert "256 x 256" in lines[3] and "darknet.conv.11" in lines[3]
    cells = [line.split() for line in lines]
    assert "mAP@0.50 52.86 %, and of detections with confidence over 0.25:" in lines
    assert ["as", "detector", "map", "0.75", "0.50", "0.60", "61.23", "60", "20", "60"] in cells
    assert ["by", "confidence", "0.80", "0.53", "0.64", "63.45", "64", "16", "56"] in cells
    assert sum(line.startswith(("as detector map: wrong where", "by confidence: wrong where")) for line in lines) == 2
    assert ["Happy", "95.00", "10", "3", "20"] in cells
    assert ["Disgust", "–", "0", "7", "0"] in cells
    assert lines[-2:] == [
        "note: Well.",
        "note: 1 of 7 classes without faces here counts as AP 0 in the mean, as in the darknet program.",
    ]
    nothing = format_detector_report(detector_report(tp=0, fp=0, drawn=False))
    other = detector_report(iou_threshold=0.75)
    del other["by_confidence"]
    printed = format_detector_report(other)
    assert "mAP@0.75 52.86 %" in printed and "by confidence" not in printed
    assert "drawn" not in nothing.lower() and "Nothing was detected" in nothing


@pytest.mark.parametrize("draw", [ap_figure, curve_figure])
def test_pictures_keep_every_text_inside(draw):
    rows = detector_report()["per_class"]
    rows[0]["name"] = "a$b$ and an uncommonly long name of a class"
    figure = draw(rows, "a long title " * 12)
    figure.canvas.draw()
    axes, outer = figure.axes[0], figure.bbox.padded(1)
    texts = [*axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label, figure._suptitle, *axes.texts]
    for text in [*texts, *(axes.get_legend().get_texts() if axes.get_legend() else [])]:
        box = text.get_window_extent()
        assert outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1, text
    if draw is ap_figure:
        assert [patch.get_width() for patch in axes.patches] == [row["ap"] for row in rows]
        assert axes.texts[5].get_text() == "–" and axes.texts[1].get_text() == "95.0"
    else:
        assert len(axes.lines) == 6  # not of the class without faces
