"""Metrics against scikit-learn and numbers worked by hand, McNemar against scipy; a report's files, pictures, text."""

import copy
import csv
import json
import math
import subprocess
import sys

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from fer.errors import InputError
from fer.evaluation.compare import compare, compare_table
from fer.evaluation.figures import confusion_figure, curves_figure
from fer.evaluation.metrics import (
    expected_calibration_error,
    mcnemar,
    metrics_from_confusion,
    summarize,
    top_k_accuracy,
    wilson_interval,
)
from fer.evaluation.report import save_report
from fer.evaluation.text import format_report
from fer.labels import CLASSES

LONG_NAMES = [f"{first} and slightly {second}" for first in ("Surprised", "Contemptuous") for second in "abcdefghijklm"]


def scored(n=400, classes=7, absent=(), seed=0):
    """Random distributions that lean towards labels drawn from the classes that are not absent."""
    random = np.random.default_rng(seed)
    labels = random.choice([label for label in range(classes) if label not in absent], n)
    logits = random.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def one_hot(predicted, classes=7):
    """Distributions whose argmax is given."""
    return np.eye(classes)[predicted] * 0.9 + 0.1 / classes


def report_of(probabilities, labels, names=CLASSES, **changes):
    return {
        "plain": summarize(probabilities, labels, names),
        "headline": "plain",
        "split": "test",
        "data": "fer2013",
        "checkpoint": "runs/a/best.ckpt",
        "model": "vgg19",
        "drawn": False,
        "notes": [],
    } | changes


def make_report(folder, probabilities, labels, paths=None, names=CLASSES, **changes):
    report = report_of(probabilities, labels, names, **changes)
    paths = [f"{row}.jpg" for row in range(len(labels))] if paths is None else paths
    return report, save_report(folder, report, probabilities, labels, paths, ["fer2013"] * len(labels), names)


@pytest.mark.parametrize("absent", [(), (1,), (0, 6)])
def test_summary_equals_scikit_learn(absent):
    probabilities, labels = scored(absent=absent)
    predicted = probabilities.argmax(axis=1)
    found = summarize(probabilities, labels, CLASSES)
    every = range(7)
    assert found["n"] == 400
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    present = np.unique(labels)  # balanced_accuracy_score itself warns where a class is only predicted
    balanced = sk.recall_score(labels, predicted, labels=present, average="macro")
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    if not absent:
        assert balanced == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert found["top2_accuracy"] == pytest.approx(sk.top_k_accuracy_score(labels, probabilities, k=2, labels=every))
    assert found["nll"] == pytest.approx(sk.log_loss(labels, probabilities, labels=every))
    assert found["confusion"] == sk.confusion_matrix(labels, predicted, labels=every).tolist()
    macro = sk.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    assert [found[f"macro_{key}"] for key in ("precision", "recall", "f1")] == pytest.approx(macro[:3])
    each = sk.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    assert [entry["name"] for entry in found["per_class"]] == list(CLASSES)
    for key, expected in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert [entry[key] for entry in found["per_class"]] == pytest.approx(expected)


def test_metrics_of_a_matrix_worked_by_hand():
    # Class 2 is predicted but has no rows; class 3 neither; recalls 3/4 and 1/2, F1 2*3/(4+3), 2*1/(2+2), 0.
    found = metrics_from_confusion(np.array([[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found["macro_f1"] == pytest.approx((6 / 7 + 1 / 2 + 0) / 3)
    assert found["precision"] == pytest.approx([1, 1 / 2, 0, 0])
    assert found["support"] == [4, 2, 0, 0]
    with pytest.raises(ValueError, match="no rows"):
        metrics_from_confusion(np.zeros((3, 3), int))


def test_wilson_interval():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    z = 1.959963984540054
    assert wilson_interval(0, 10) == pytest.approx((0, z * z / (10 + z * z)))  # the formula at p = 0
    assert wilson_interval(10, 10)[1] == 1
    for n, k in ((3589, 2624), (50, 1)):  # scipy has the same interval
        ours, theirs = wilson_interval(k, n, 0.9), binomtest(k, n).proportion_ci(0.9, method="wilson")
        assert ours == pytest.approx(tuple(theirs))
    assert wilson_interval(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="11 successes"):
        wilson_interval(11, 10)


def test_calibration_error_by_hand():
    def two(*confidences):
        return np.array([[c, 1 - c] for c in confidences])

    # Bin (0.8, 1]: accuracy 1/2 at confidence 0.9; bin (0.6, 0.8]: accuracy 1 at 0.7. (0.4 + 0.3) / 2.
    assert expected_calibration_error(two(0.9, 0.9, 0.7, 0.7), np.array([0, 1, 0, 0]), bins=5) == pytest.approx(0.35)
    # 0.6 belongs to (0.4, 0.6]: gaps 0.6 and 0.3, each alone in its bin; in one bin they would cancel to 0.15.
    assert expected_calibration_error(two(0.6, 0.7), np.array([1, 0]), bins=5) == pytest.approx(0.45)
    assert expected_calibration_error(two(1.0, 1.0), np.array([0, 0])) == 0


def test_top_k_breaks_ties_as_argmax_does():
    flat, labels = np.full((7, 7), 1 / 7), np.arange(7)
    assert [top_k_accuracy(flat, labels, k) for k in (1, 2, 7)] == pytest.approx([1 / 7, 2 / 7, 1])


def test_summary_refuses_what_is_not_a_distribution():
    probabilities, labels = scored(n=4)
    for bad in (np.nan, 5.0, -0.1):
        broken = probabilities.copy()
        broken[2, 0] = bad
        with pytest.raises(InputError, match="on 1 of 4 images"):
            summarize(broken, labels, CLASSES)
    with pytest.raises(ValueError, match="do not fit"):
        summarize(probabilities, labels, CLASSES[:6])
    with pytest.raises(ValueError, match="do not fit"):
        summarize(np.zeros((0, 7)), np.zeros(0, int), CLASSES)


@pytest.mark.parametrize(("names", "title"), [(("No", "Yes"), 60), (CLASSES, 150), (LONG_NAMES, 300)])
def test_confusion_picture_keeps_every_text_inside(names, title):
    probabilities, labels = scored(2000, len(names))
    counts = sk.confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(names)))
    figure = confusion_figure(counts, names, "long title " * (title // 11))
    figure.canvas.draw()
    axes = figure.axes[0]
    outer = figure.bbox.padded(1)
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), figure._suptitle, axes.xaxis.label, axes.yaxis.label]
    for text in labels:
        box = text.get_window_extent()
        assert outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1, text
    cell = axes.get_window_extent().width / len(names)
    assert all(text.get_window_extent().width < cell for text in axes.texts)


def test_confusion_picture_shows_true_classes_in_rows_and_an_absent_one_as_dashes():
    counts = np.array([[9, 1, 0], [0, 0, 0], [1, 1, 2]])
    figure = confusion_figure(counts, ("a", "b", "$c$"), "Title")
    axes = figure.axes[0]
    texts = {(text.xy, text.get_text()): text for text in axes.texts}
    assert texts[(0, 0), "0.90"].get_color() == "white" and texts[(1, 0), "0.10"].get_color() == "black"
    assert ((0, 2), "0.25") in texts and ((2, 2), "0.50") in texts
    assert [text for (x, y), text in texts if y == 1] == ["–"] * 3
    assert not any("nan" in text for _, text in texts)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (10)", "b (0)", "$c$ (4)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "$c$"]
    assert axes.images[0].get_array()[2].tolist() == [0.25, 0.25, 0.5]
    figure.canvas.draw()


def test_curves_picture_passes_over_empty_cells():
    history = pd.DataFrame(
        {
            "epoch": [0, 0, 1, 1],
            "train/loss": [2.0, None, 1.0, None],
            "val/loss": [None, 2.1, None, 1.1],
            "val/acc": [None, 0.5, None, 0.4],
            "optim/lr": [0.1, None, 0.05, None],
        }
    )
    loss, accuracy, rate = curves_figure(history, "vgg19").axes
    assert {line.get_label(): line.get_ydata().tolist() for line in loss.lines} == {
        "train/loss": [2.0, 1.0],
        "val/loss": [2.1, 1.1],
    }
    assert accuracy.get_title() == "best val/acc 0.5000 at epoch 0"
    assert rate.lines[0].get_xydata().tolist() == [[0, 0.1], [1, 0.05]]


def test_no_display_is_needed():
    code = "import sys, fer.evaluation.report, fer.evaluation.compare; "
    code += "sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_report_files_round_trip(tmp_path):
    probabilities, labels = scored(n=60, absent=(1,))
    paths = [f"{row}.jpg" for row in range(60)]
    paths[:4] = ["a, b.jpg", "NA", "00042", "caf\udce9.jpg"]  # the last is how Python reads a Latin-1 file name
    report, files = make_report(tmp_path / "new" / "run", probabilities, labels, paths)
    assert sorted(path.name for path in (tmp_path / "new" / "run").iterdir()) == sorted(files)
    assert json.loads(files["report.json"].read_text()) == report

    with files["predictions.csv"].open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == paths
    assert [CLASSES.index(row["label"]) for row in rows] == labels.tolist()
    assert [CLASSES.index(row["prediction"]) for row in rows] == probabilities.argmax(axis=1).tolist()
    assert [row["correct"] == "1" for row in rows] == (probabilities.argmax(axis=1) == labels).tolist()
    read = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(read, probabilities, rtol=1e-5)

    confusion = pd.read_csv(files["confusion.csv"], index_col=0)
    assert confusion.index.tolist() == confusion.columns.tolist() == list(CLASSES)  # Disgust has no rows and keeps its
    expected = sk.confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(7))
    assert confusion.to_numpy().tolist() == expected.tolist()
    per_class = pd.read_csv(files["per_class.csv"])
    assert per_class["support"].tolist() == np.bincount(labels, minlength=7).tolist()
    assert matplotlib.image.imread(files["confusion.png"]).shape[0] > 300


def test_a_failed_write_leaves_the_old_report(tmp_path):
    probabilities, labels = scored(n=20)
    report, files = make_report(tmp_path, probabilities, labels)
    broken = copy.deepcopy(report)
    broken["plain"]["ece"] = math.nan
    with pytest.raises(ValueError, match="JSON"):
        save_report(tmp_path, broken, probabilities, labels, ["x"] * 20, ["y"] * 20, CLASSES)
    assert json.loads(files["report.json"].read_text()) == report
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    with pytest.raises(ValueError, match="not those"):
        save_report(tmp_path, report, probabilities[::-1], labels, ["x"] * 20, ["y"] * 20, CLASSES)
    with pytest.raises(InputError, match="choose another"):
        save_report(files["report.json"], report, probabilities, labels, ["x"] * 20, ["y"] * 20, CLASSES)


def test_terminal_text():
    labels = np.array([0] * 10 + [3] * 10)
    predicted = np.array([0] * 8 + [3] * 2 + [3] * 10)
    perfect = summarize(one_hot(labels), labels, CLASSES)
    report = report_of(one_hot(predicted), labels, ten_crop=perfect, headline="ten_crop", drawn=True, notes=["Well."])
    report["without_duplicates"] = summarize(one_hot(labels[3:]), labels[3:], CLASSES)
    lines = format_report(report).splitlines()
    assert "drawn" in lines[0].lower()
    cells = {line.split("  ")[0]: line.split() for line in lines}
    # 18 of 20: Wilson (0.9 + z²/40 -+ z sqrt(0.09/20 + (z/40)²)) / (1 + z²/20) with z = 1.96 is 0.6990 .. 0.9721.
    # Recalls 8/10 and 1; F1 16/18 and 20/22.
    assert cells["plain"][1:7] == ["20", "90.00", "[69.90,", "97.21]", "90.00", f"{(16 / 18 + 20 / 22) * 50:.2f}"]
    assert cells["ten-crop *"][1:4] == ["*", "20", "100.00"]
    assert cells["ten-crop, 3 exact duplicates left out"][6] == "17"
    assert cells["Happy"] == ["Happy", "100.00", "100.00", "100.00", "10"]
    assert cells["Disgust"] == ["Disgust", "–", "–", "–", "0"]
    assert lines[-1] == "note: Well."
    half = next(each for each in report["plain"]["risk_coverage"] if each["min_confidence"] == 0.5)
    assert f"min_confidence=0.5: {100 * half['coverage']:.1f} % of the faces" in "\n".join(lines)
    assert "drawn" not in format_report(report | {"drawn": False}).lower()


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 9), (5, 5), (0, 20), (130, 97), (499, 500), (520, 610), (9000, 9400)])
def test_mcnemar_equals_the_binomial_test(b, c):
    expected = binomtest(b, b + c).pvalue if b + c else 1
    assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(expected, rel=1e-9)


def test_comparison_pairs_rows_whatever_their_order(tmp_path):
    labels = np.arange(14) % 7
    first, second = labels.copy(), labels.copy()
    first[:2] = (labels[:2] + 1) % 7  # two that only the second gets right,
    second[2:9] = (labels[2:9] + 1) % 7  # seven that only the first does
    paths = [f"{row}.jpg" for row in range(14)]
    make_report(tmp_path / "a" / "test", one_hot(first), labels, paths)
    order = np.roll(np.arange(14), -2)  # paired by position, the errors of the two would overlap
    moved = [paths[row] for row in order]
    make_report(tmp_path / "b" / "test", one_hot(second)[order], labels[order], moved, model="resnet18", drawn=True)
    make_report(tmp_path / "c" / "test", one_hot(second), labels, [*paths[:-1], "other.jpg"])

    folders = [tmp_path / "a" / "test", tmp_path / "b" / "test" / "report.json", tmp_path / "c" / "test"]
    table = compare_table(folders)
    assert table["name"].tolist() == ["a/test", "b/test", "c/test"]
    assert table["accuracy"].tolist() == pytest.approx([12 / 14, 7 / 14, 7 / 14])
    assert table["drawn"].tolist() == [False, True, False]

    text = compare(folders)
    assert "resnet18  fer2013 (drawn)/test  14  plain" in text
    # Two-sided binomial of 2 against 7: 2 (1 + 9 + 36) / 2^9 = 0.1797.
    assert "b/test: right only here 2, only in the first 7, of 14 images; p = 0.1797" in text
    assert "c/test: no p-value, the rows differ: 13 shared, 1 only in the first, 1 only in this one" in text
    assert "McNemar" not in compare(folders[:1])


def test_comparison_with_one_path_for_several_faces(tmp_path):
    labels, names = np.array([0, 0, 0, 1]), ("None", "Happy")  # "None" is a class of AffectNet's and no missing value
    make_report(tmp_path / "a", one_hot(np.array([0, 1, 1, 1]), 2), labels, ["group.jpg"] * 4, names)
    make_report(tmp_path / "b", one_hot(np.array([0, 0, 1, 0]), 2), labels, ["group.jpg"] * 4, names)
    make_report(tmp_path / "c", one_hot(np.array([0, 0]), 2), labels[:2], ["group.jpg"] * 2, names)
    text = compare([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert "b: right only here 1, only in the first 1, of 4 images; p = 1.0000" in text
    assert "c: no p-value, the rows differ: 2 shared, 2 only in the first, 0 only in this one" in text


def test_comparison_without_usable_predictions_gives_no_p_value(tmp_path):
    probabilities, labels = scored(n=30)
    make_report(tmp_path / "a", probabilities, labels)
    _, files = make_report(tmp_path / "b", one_hot(labels), labels)
    files["report.json"].rename(tmp_path / "a" / "b.json")
    text = compare([tmp_path / "a", tmp_path / "a" / "b.json"])
    assert "no p-value" in text and "does not belong to" in text
    (tmp_path / "a" / "predictions.csv").unlink()
    assert "no p-value, there is no " in compare([tmp_path / "a", tmp_path / "a" / "b.json"])
    (tmp_path / "a" / "predictions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="predictions.csv is not"):
        compare([tmp_path / "a", tmp_path / "a" / "b.json"])


def detector_report(**changes):
    return {
        "task": "detector", "model": "v4_tiny", "data": "affectnet", "split": "test", "drawn": False, "size": 256,
        "pretrained": "yolov4-tiny.conv.29", "faces": 3500, "map50": 0.6822, "precision": 0.57, "recall": 0.61,
        "f1": 0.59, "iou": 0.4413,
    } | changes  # fmt: skip


def test_comparison_of_classifiers_and_detectors(tmp_path):
    probabilities, labels = scored(n=30)
    make_report(tmp_path / "old", probabilities, labels)  # as before sizes were recorded
    make_report(tmp_path / "omega", one_hot(labels), labels, size=224, pretrained=None, task="classifier")
    make_report(tmp_path / "tiny", one_hot(labels), labels, model="tiny", size=96, pretrained="a.conv.11")
    for name, report in (("v4", detector_report()), ("v3", detector_report(model="v3_tiny", pretrained=None))):
        if name == "v3":  # the other is of before iou_thresh=
            report |= {"map": 0.614, "iou_threshold": 0.75}
            del report["map50"]
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))

    paths = [tmp_path / name for name in ("v4", "old", "omega", "v3", "tiny")]
    classifiers, tests, detectors = compare(paths).split("\n\n")
    cells = {line.split()[0]: line.split() for line in classifiers.splitlines()}
    assert list(cells) == ["name", "old", "omega", "tiny"]
    assert cells["name"][-2:] == ["size", "pre-training"]
    assert cells["old"][-2:] == ["–", "–"]
    assert cells["omega"][-4:] == ["224", "x", "224", "–"] and cells["tiny"][-4:] == ["96", "x", "96", "a.conv.11"]
    assert "against old" in tests and [line.split(":")[0] for line in tests.splitlines()[1:]] == ["  omega", "  tiny"]
    head, first, second = (line.split() for line in detectors.splitlines())
    assert head == "name model data/split faces mAP % IoU > P R F1 IoU % size pre-training".split()
    # The row of the original table: 68.22, 0.57, 0.61, 0.59, 256 x 256, yolov4-tiny.conv.29.
    assert (
        first == "v4 v4_tiny affectnet/test 3,500 68.22 0.5 0.57 0.61 0.59 44.13 256 x 256 yolov4-tiny.conv.29".split()
    )
    assert second[-5:] == ["44.13", "256", "x", "256", "–"] and second[4:6] == ["61.40", "0.75"]

    assert compare(paths[:1]).splitlines()[1].split()[0] == "v4"
    table = compare_table([paths[1], paths[2]])
    assert table["size"].isna().tolist() == [True, False] and table["size"][1] == 224
    with pytest.raises(InputError, match="v4.* is a detector's report"):
        compare_table(paths)
    (tmp_path / "v3" / "report.json").write_text(json.dumps(detector_report(map50=math.nan)))
    with pytest.raises(InputError, match="not a report"):
        compare(paths)


def test_terminal_text_of_a_darknet_classifier():
    probabilities, labels = scored(n=30)
    plain = format_report(report_of(probabilities, labels))
    assert "network" not in plain and "printed" not in plain
    printed = {"top1": 0.581, "top5": 0.975}
    told = report_of(probabilities, labels, size=224, pretrained="x.conv.5", program="pjreddie", printed=printed)
    lines = format_report(told).splitlines()
    assert lines[2] == "network 224 x 224, pre-trained: x.conv.5"
    assert "printed by the darknet program (pjreddie): top1 58.10 %, top5 97.50 %" in lines
    assert format_report(told | {"pretrained": None}).splitlines()[2] == "network 224 x 224"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "cannot be read as JSON"),
        ("\xff\xfe", "cannot be read as JSON"),
        ("[]", "not a report"),
        ('{"headline": "plain"}', "not a report"),
        ('{"headline": ["plain"], "plain": 3}', "not a report"),
        ("ragged", "not a report"),
        ("text score", "not a report"),
        ("no model", "not a report"),
    ],
)
def test_bad_reports_are_refused_in_one_line(tmp_path, content, message):
    edited = report_of(*scored(n=20))
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(edited))
    if content == "ragged":
        edited["plain"]["confusion"][0] = [1]
    elif content == "text score":
        edited["plain"]["ece"] = "high"
    elif content == "no model":
        del edited["model"]
    if content in ("ragged", "text score", "no model"):
        content = json.dumps(edited)
    if content is not None:
        bad.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        compare([good, bad])
    assert "bad.json" in str(caught.value) and "\n" not in str(caught.value)


_REMOVED = object()


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (("model",), _REMOVED, "model is missing"),
        (("data",), 7, "data is 7"),
        (("drawn",), "false", "drawn is 'false'"),
        (("size",), True, "size is True"),
        (("size",), -3, "size is -3"),
        (("pretrained",), ["a"], "pretrained is ['a']"),
        (("headline",), "twelve_crop", "headline is 'twelve_crop'"),
        (("headline",), ["plain"], "headline is ['plain']"),
        (("plain",), [], "plain is no mapping of scores"),
        (("plain", "n"), 2.5, "plain.n is 2.5"),
        (("plain", "n"), True, "plain.n is True"),
        (("plain", "accuracy"), 5, "plain.accuracy is 5"),
        (("plain", "ece"), math.nan, "plain.ece is nan"),
        (("plain", "macro_f1"), _REMOVED, "plain.macro_f1 is missing"),
        (("plain", "accuracy_95"), [0.1], "plain.accuracy_95 is [0.1]"),
        (("plain", "accuracy_95"), [0.1, 10**400], "plain.accuracy_95 is [0.1, 1000"),
        (("plain", "confusion"), [[math.inf]], "plain.confusion is [[inf]]"),
        (("plain", "confusion"), [], "plain.confusion is []"),
    ],
)
def test_a_report_with_another_key_or_type_names_it(tmp_path, way, value, message):
    report = report_of(*scored(n=20))
    at = report if len(way) == 1 else report[way[0]]
    if value is _REMOVED:
        del at[way[-1]]
    else:
        at[way[-1]] = value
    (tmp_path / "bad.json").write_text(json.dumps(report))
    with pytest.raises(InputError) as caught:
        compare([tmp_path / "bad.json"])
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'bad.json'} is not a report of evaluate.py, {message}") and "\n" not in text
    assert text.endswith(": give its report.json, or run evaluate.py again")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n", 11, "n is 11, but its confusion has 10 rows"),
        ("confusion", [[3, 1], [2, 5]], "n is 10, but its confusion has 11 rows"),
        ("confusion", [[4, 0], [2, 4]], "accuracy is 0.7, but its confusion gives 0.8"),
        ("accuracy", 0.25, "accuracy is 0.25, but its confusion gives 0.7"),
        ("balanced_accuracy", 0.7, "balanced_accuracy is 0.7, but its confusion gives 0.7083"),
        ("macro_f1", 0.7, "macro_f1 is 0.7, but its confusion gives 0.6969"),
        ("accuracy_95", [0.6, 0.8], "accuracy_95 is [0.6, 0.8], but its confusion gives [0.3967"),
        ("accuracy_95", [0.8922, 0.3968], "accuracy_95 is [0.8922, 0.3968], but its confusion gives [0.3967"),
        ("top2_accuracy", 0.6, "top2_accuracy is 0.6, which is below the accuracy"),
    ],
)
def test_scores_that_are_not_those_of_their_confusion_are_refused(tmp_path, key, value, message):
    # 7 of 10 right: recalls 3/4 and 4/6, F1 6/9 and 8/11
    report = report_of(one_hot(np.repeat([0, 1, 0, 1], [3, 1, 2, 4]), 2), np.repeat([0, 1], [4, 6]), ("no", "yes"))
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    assert compare_table([path])["balanced_accuracy"].item() == pytest.approx((3 / 4 + 4 / 6) / 2)
    report["plain"][key] = value
    path.write_text(json.dumps(report))
    with pytest.raises(InputError) as caught:
        compare_table([path])
    assert str(caught.value).startswith(f"{path} is not a report of evaluate.py, plain.{message}")


def test_comparing_nothing_is_refused():
    with pytest.raises(InputError, match="compare="):
        compare([])
