"""Lines that the real programs printed, as quoted in DARKNET.md and captured from runs, against the numbers in them."""

import math
import subprocess

import pytest

from fer.darknet.formats.records import (
    ClassAP,
    Complaint,
    LastAccuracy,
    Loaded,
    Matches,
    MeanAP,
    Saving,
    Seen,
    Step,
    Thresholds,
    TopK,
)
from fer.darknet.program_engine.log import LineSplitter, parse_line

LINES = {
    # AlexeyAB's classifier, then Debian's; AlexeyAB's detector, then Debian's; hank-ai's
    "1, 0.114: 1.390720, 1.390720 avg, 0.008145 rate, 1.331927 seconds, 16 images, 0.006888 hours left": (
        Step(1, 1.390720, 1.390720, 0.008145, 1.331927, 16, 0.114, 0.006888)
    ),
    "1, 0.114: 2.309483, 2.309483 avg, 0.008145 rate, 3.256414 seconds, 16 images": (
        Step(1, 2.309483, 2.309483, 0.008145, 3.256414, 16, 0.114)
    ),
    " 331: 1.145028, 1.168905 avg loss, 0.001000 rate, 1.220855 seconds, 5296 images, 0.148902 hours left": (
        Step(331, 1.145028, 1.168905, 0.001, 1.220855, 5296, None, 0.148902)
    ),
    " 1: 50.624252, 50.624252 avg loss, 0.000983 rate, 0.033470 seconds, 16 images, -1.000000 hours left": (
        Step(1, 50.624252, 50.624252, 0.000983, 0.033470, 16)
    ),
    "240: 2.002391, 2.199363 avg, 0.000000 rate, 0.044034 seconds, 3840 images": (
        Step(240, 2.002391, 2.199363, 0.0, 0.044034, 3840)
    ),
    "9: inf, inf avg loss, 0.001000 rate, 1.2 seconds, 72 images, 0.1 hours left": (
        Step(9, math.inf, math.inf, 0.001, 1.2, 72, None, 0.1)
    ),
    "12: loss=46.883, avg loss=102.604, last=none, best=none, mAP=100, rate=0.00002592, load 8=14.3 milliseconds, "
    "train=980.7 milliseconds, 96 images, time remaining=40 seconds": (
        Step(12, 46.883, 102.604, 0.00002592, pytest.approx(0.9807), 96, None, pytest.approx(40 / 3600))
    ),
    "41: top 1: 0.238095, top 5: 0.714286": TopK(42, 0.238095, 5, 0.714286),
    " (next TOP5 calculation at 100 iterations) ": None,
    " Last accuracy TOP5 = 69.05 % ": LastAccuracy("top5", pytest.approx(0.6905)),
    " accuracy top5 = 0.690476 ": LastAccuracy("top5", 0.690476),
    " Last accuracy mAP@0.50 = 29.41 %, best = 29.41 % ": (
        LastAccuracy("mAP@0.50", pytest.approx(0.2941), pytest.approx(0.2941))
    ),
    "class_id = 0, name = Neutral, ap = 18.75%   \t (TP = 0, FP = 4)": ClassAP(0, "Neutral", 0.1875, 0, 4),
    # from the source of hank-ai's, whose table has a column for each
    "   3 Surprise              46.5800       7      17      24      31  25.0000  20.3000": (
        ClassAP(3, "Surprise", pytest.approx(0.4658), 7, 17)
    ),
    " for conf_thresh = 0.25, precision = 0.29, recall = 0.23, F1-score = 0.25": Thresholds(0.25, 0.29, 0.23, 0.25),
    " for conf_thresh = 0.25, TP = 7, FP = 17, FN = 24, average IoU = 20.30 %": (
        Matches(0.25, 7, 17, 24, pytest.approx(0.203))
    ),
    "-> for conf_thresh=0.25, TP=7, FP=17, FN=24, average IoU=20.3%": Matches(0.25, 7, 17, 24, pytest.approx(0.203)),
    "-> for conf_thresh=0.25, precision=0.29, recall=0.23, F1 score=0.25": Thresholds(0.25, 0.29, 0.23, 0.25),
    " mean average precision (mAP@0.50) = 0.450814, or 45.08 %": MeanAP(0.450814, 0.5),
    " mean_average_precision (mAP@0.50) = 0.450814 ": MeanAP(0.450814, 0.5),
    "-> mean average precision (mAP@0.50)=46.58%": MeanAP(pytest.approx(0.4658), 0.5),
    " mean average precision (mAP@0.50) = inf, or inf %": MeanAP(None, 0.5),
    " mean average precision (mAP@0.50) = -nan, or -nan %": MeanAP(None, 0.5),
    " mean average precision (mAP@0.50) = 3.450814, or 345.08 %": MeanAP(None, 0.5),
    "Loading weights from b/cls_last.weights...Done! Loaded 7 layers from weights-file ": (
        Loaded("b/cls_last.weights", 7)
    ),
    "Loading weights from b/cls.weights...Done!": Loaded("b/cls.weights", None),
    # hank-ai's 5.1, recorded, with -verbose
    "Loaded 5.7 MiB in weights for 21 of 38 layers from backup/v4_tiny_half_final.weights": (
        Loaded("backup/v4_tiny_half_final.weights", None)
    ),
    "1: loss=21.027, avg loss=21.027, last=none, best=none, mAP=100, rate=0.00261000, load 4=12.0 milliseconds, "
    "train=109.5 milliseconds, 4 images, time remaining=unknown": (
        Step(1, 21.027, 21.027, 0.00261, pytest.approx(0.1095), 4)
    ),
    "Saving weights to b/x_last.weights": Saving("b/x_last.weights"),
    " (next TOP5 calculation at 100 iterations) Saving weights to /toy/b/cls_last.weights": (
        Saving("/toy/b/cls_last.weights")
    ),
    " seen 64, trained: 8 K-images (0 Kilo-batches_64) ": Seen(8000),
    # the flood
    "Loaded: 0.024469 seconds - performance bottleneck on CPU or Disk HDD/SSD": None,
    "mini_batch = 16, batch = 16, time_steps = 1, train = 1 ": None,
    "   0 conv     16       3 x 3/ 1     64 x  64 x   3 ->   64 x  64 x  16 0.004 BF": None,
    "v3 (iou loss, Normalizer: (iou: 0.07, obj: 1.00, cls: 1.00) Region 30 Avg (IOU: 0.484803), count: 4, "
    "class_loss = 1.047452, iou_loss = 0.039479, total_loss = 1.086931 ": None,
    " total_bbox = 111, rewritten_bbox = 0.000000 % ": None,
    "Region 7 Avg IOU: 0.034002, Class: 0.258943, Obj: 0.544203, No Obj: 0.445398, .5R: 0.000000, .75R: 0.000000,  "
    "count: 16": None,
    "331/600: loss=1.1 map=0.29 best=0.29 hours left=0.1": None,
    " rank = 100 of ranks = 280 ": None,
    " (next mAP calculation at 100 iterations) ": None,
    "New best mAP!": None,
    "608 x 608": None,
    "44.90%: sad": None,
    "  Id Name             AvgPrecision     TP     FN     FP     TN Accuracy ErrorRate Precision": None,
}


@pytest.mark.parametrize("line, record", LINES.items())
def test_record(line, record):
    assert parse_line(line) == record
    assert parse_line(line.rstrip()) == record


@pytest.mark.parametrize("word", ["nan", "-nan"])
def test_nan_is_a_number_of_its_own(word):
    step = parse_line(f" 8: {word}, {word} avg loss, 0.001000 rate, 1.2 seconds, 64 images, 0.1 hours left")
    assert math.isnan(step.loss) and math.isnan(step.average) and step.iteration == 8
    scores = parse_line(f" for conf_thresh = 0.25, precision = {word}, recall = 0.00, F1-score = {word} ")
    assert math.isnan(scores.precision) and scores.recall == 0 and math.isnan(scores.f1)


def test_class_ap_that_cannot_be():
    assert parse_line("class_id = 1, name = Happy, ap = inf%   \t (TP = 0, FP = 0) ").ap == math.inf


def test_class_names_with_blanks():
    line = "class_id = 3, name = Very Sad, ap = 50.00%   \t (TP = 1, FP = 2)"
    assert parse_line(line) == ClassAP(3, "Very Sad", 0.5, 1, 2)


@pytest.mark.parametrize(
    "line",
    [
        "Couldn't open file: x.data",
        'Cannot load image "a.jpg"',
        "Type not recognized: [x]",
        "Couldn't find activation function mish, going with ReLU",
        "Couldn't find policy sgdr, going with constant",
        "Unused field: 'groups = 2'",
        "Too many or too few labels: 2, /home/Happy/sad.png",
        "Can't open label file. (This can be normal only if you use MSCOCO): a.txt",
        "Config file error line 3, could parse: backup=",
        " Error: in the file a.names number of names 6 that isn't equal to classes=7 in the file a.data",
        "Darknet error location: ./src/data.c, load_data_detection(), line #1382",
        " Wrong annotation: class_id = 9. But class_id should be [from 0 to 6], file: a.txt",
        " Warning: Unexpected end of wights-file! l.weights - l.index = 4",
        "config line #9 from section [net] is unused or invalid: max_crop=80",
        "CUDA status Error: file: ./src/dark_cuda.c : () : line: 100 : build time: Nov 22 2025",
        "CUDA Error: out of memory",
        "darknet: error while loading shared libraries: libcudart.so.11: cannot open shared object file",
        "darknet: ./src/parser.c:1: parse: Assertion `0' failed.",
    ],
)
def test_complaints(line):
    assert parse_line(line) == Complaint(line.strip())


# ---- bytes to lines

STREAM = (
    "Loaded: 0.011933 seconds\n\n"
    " (next mAP calculation at 100 iterations) \033[H\033[J1/240: loss=50.6 hours left=-1.0\a"
    "\n"
    " 1: 50.6, 50.6 avg loss, 0.1 rate, 0.03 seconds, 16 images, -1.0 hours left\n rank = 0 of ranks = 280 \r"
    " rank = 100 of ranks = 280 \rclass_id = 0, name = Überrascht, ap = 18.75%   \t (TP = 0, FP = 4) \n"
    "Enter Image Path: 44.90%: sad\nEnter Image Path: "
).encode()
EXPECTED = [
    "Loaded: 0.011933 seconds",
    " (next mAP calculation at 100 iterations) 1/240: loss=50.6 hours left=-1.0",
    " 1: 50.6, 50.6 avg loss, 0.1 rate, 0.03 seconds, 16 images, -1.0 hours left",
    " rank = 0 of ranks = 280",
    " rank = 100 of ranks = 280",
    "class_id = 0, name = Überrascht, ap = 18.75%   \t (TP = 0, FP = 4)",
    "44.90%: sad",
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_lines_wherever_chunks_end(size):
    splitter, lines = LineSplitter(), []
    for start in range(0, len(STREAM), size):
        lines += splitter.feed(STREAM[start : start + size])
    assert lines + splitter.close() == EXPECTED


def test_last_line_without_end():
    splitter = LineSplitter()
    assert splitter.feed(b"40: top 1: 0.1\n41: top") == ["40: top 1: 0.1"]
    assert splitter.feed(b" 1: 0.2") == [] and splitter.close() == ["41: top 1: 0.2"] and splitter.close() == []


def test_bytes_that_are_no_text():
    splitter = LineSplitter()
    assert splitter.feed(b"\xff\xfe\x00 name\n\xc3") == ["\ufffd\ufffd name"]
    assert splitter.close() == ["\ufffd"]


def test_a_line_without_end_does_not_fill_the_memory():
    splitter = LineSplitter()
    lines = [line for _ in range(100) for line in splitter.feed(b"x" * 10_000)] + splitter.close()
    assert sum(map(len, lines)) == 1_000_000 and max(map(len, lines)) < 80_000


@pytest.mark.darknet
def test_lines_of_debians_program(tmp_path):
    conv = "[convolutional]\nfilters=7\nsize=1\nstride=1\nactivation={}\n"
    net = "[net]\nbatch=1\nwidth=8\nheight=8\nchannels=3\n{}[avgpool]\n[softmax]\n"
    (tmp_path / "n.cfg").write_text(net.format(conv.format("mish") + "sway=1\n"))
    (tmp_path / "w").write_bytes(b"\0" * 20 + b"\0" * 4 * (7 + 21))  # seven biases, 3 x 7 weights
    done = subprocess.run(
        ["darknet", "partial", "n.cfg", "w", "out", "1"], cwd=tmp_path, capture_output=True, timeout=20
    )
    splitter = LineSplitter()
    lines = splitter.feed(done.stderr + done.stdout) + splitter.close()
    assert [record for record in map(parse_line, lines) if record] == [
        Complaint("Couldn't find activation function mish, going with ReLU"),
        Complaint("Unused field: 'sway = 1'"),
        Loaded("w", None),
        Saving("out"),
    ]
