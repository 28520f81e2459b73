"""Numbers from the program: Debian's on nets whose outputs are worked by hand, AlexeyAB's from what it printed."""

import json
import math
import struct

import numpy as np
import pytest
from PIL import Image

from fer.darknet.formats.cfg import parse
from fer.darknet.formats.weights import Net
from fer.darknet.program_engine.process import run
from fer.darknet.program_engine.program import Program, find_program
from fer.darknet.program_engine.scores import classifier_valid, classify, detect, detector_map
from fer.errors import InputError

NET = "[net]\nbatch=64\nsubdivisions=8\nwidth=32\nheight=32\nchannels=3\n"
CLASSIFIER = NET + ("[convolutional]\nfilters=3\nsize=1\nstride=1\nactivation=linear\n[avgpool]\n[softmax]\ngroups=1\n")
# One cell as large as the photo, in which two anchors lie on one another.
DETECTOR = NET + (
    "[convolutional]\nfilters=14\nsize=32\nstride=32\nactivation=linear\n"
    "[yolo]\nmask=0,1\nanchors=16,16,28,28\nclasses=2\nnum=2\n"
)
COLOURS = {"rot": (255, 0, 0), "gruen": (0, 255, 0), "blau": (0, 0, 255)}
debian = pytest.mark.darknet


def write_net(folder, text, task, names, *floats):
    weights = folder / "net.weights"
    weights.write_bytes(struct.pack("<iiiQ", 0, 2, 0, 64) + np.concatenate(floats).astype("<f4").tobytes())
    (folder / "net.cfg").write_text(text)
    return Net(weights, folder / "net.cfg", tuple(names), parse(text), task)


@pytest.fixture
def classifier(tmp_path):
    """A class's logit is twice the mean of its colour channel, 0..1."""
    return write_net(tmp_path, CLASSIFIER, "classifier", COLOURS, np.zeros(3), 2 * np.eye(3).ravel())


def write_colours(folder):
    """A photo a class of one colour, and a wide one of which the centre is green and the rest is red and blue."""
    photos = [folder / f"photo {name}.png" for name in COLOURS] + [folder / "wide rot.png"]
    for photo, colour in zip(photos, COLOURS.values(), strict=False):
        Image.new("RGB", (50, 50), colour).save(photo)
    wide = Image.new("RGB", (96, 32))
    for column, colour in enumerate(COLOURS.values()):
        wide.paste(colour, (32 * column, 0, 32 * column + 32, 32))
    wide.save(photos[3])
    (folder / "test.list").write_text("".join(f"{photo}\n" for photo in photos))
    return photos


@pytest.fixture
def detector(tmp_path):
    """In every photo class a at 16 x 16 of the net's 32 x 32 pixels, and less surely at 28 x 28; class b nowhere."""
    outputs = [[0, 0, 0, 0, 3, 2, -9], [0, 0, 0, 0, 0, 2, -9]]  # x, y, width, height, objectness, classes
    return write_net(tmp_path, DETECTOR, "detector", "ab", np.ravel(outputs), np.zeros(14 * 3 * 32 * 32))


def write_faces(folder, sizes=((32, 32), (64, 64), (64, 32))):
    """Photos with a face of class a in the middle, as large as the smaller box but for the second's, and another."""
    photos = []
    for number, (width, height) in enumerate(sizes):
        photos.append(folder / f"face {number}.png")
        Image.new("RGB", (width, height), (90, 90, 90)).save(photos[-1])
        # the third is put into the net's square whole, at half its size: 32 of its pixels are 16 of the net's
        middle = ("0 0.5 0.5 0.5 0.5", "0 0.5 0.5 0.5 0.375", "0 0.5 0.5 0.5 1")[number]
        photos[-1].with_suffix(".txt").write_text(f"{middle}\n0 0.0625 0.0625 0.125 0.125\n")
    (folder / "test.txt").write_text("".join(f"{photo}\n" for photo in photos))
    return photos


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@debian
def test_probabilities_of_debians_program(tmp_path, classifier):
    photos = write_colours(tmp_path)
    found = classify(find_program("darknet"), classifier, classifier.names, photos[::-1], tmp_path / "work")
    high, low = math.exp(2) / (math.exp(2) + 2), 1 / (math.exp(2) + 2)
    expected = np.where(np.eye(3)[[1, 2, 1, 0]], high, low)  # of the wide photo only the middle
    assert found == pytest.approx(expected, abs=2e-6)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["program.log"]


@debian
def test_top_k_of_debians_program(tmp_path, classifier):
    write_colours(tmp_path)
    program, names = find_program("darknet"), classifier.names
    top = classifier_valid(program, classifier, names, tmp_path / "test.list", tmp_path / "work")
    assert (top.seen, top.top1, top.k, top.topk) == (4, 0.75, 3, 1)


@debian
def test_boxes_of_debians_program(tmp_path, detector):
    photos, program = write_faces(tmp_path), find_program("darknet")
    found = detect(program, detector, "ab", photos, 0.25, tmp_path / "work")
    sure = sigmoid(3) * sigmoid(2), sigmoid(0) * sigmoid(2)
    for faces in found:
        assert [face[0] for face in faces] == [0, 0]
        assert [face[1] for face in faces] == pytest.approx(sure, abs=1e-5)
    boxes = [[face[2] for face in faces] for faces in found]
    assert boxes[0][0] == pytest.approx((8, 8, 16, 16), abs=1e-4)
    assert boxes[0][1] == pytest.approx((2, 2, 28, 28), abs=1e-4)
    assert boxes[1][0] == pytest.approx((16, 16, 32, 32), abs=1e-4)
    assert boxes[2][0] == pytest.approx((16, 0, 32, 32), abs=1e-4)
    assert boxes[2][1] == pytest.approx((4, 0, 56, 32), abs=1e-4)  # 56 x 56, cut to the photo
    # One photo alone: the program itself crashes on fewer than four.
    assert detect(program, detector, "ab", photos[1:2], 0.5, tmp_path / "work") == [found[1][:1]]


@debian
def test_map_of_debians_program(tmp_path, detector):
    write_faces(tmp_path)
    scores = detector_map(find_program("darknet"), detector, ("a", "b"), tmp_path / "test.txt", tmp_path / "work")
    # Three faces of six are found, all before the three wrong ones; class b has no faces.
    assert [row["ap"] for row in scores["per_class"]] == [0.5, 0]
    assert (scores["map"], scores["precision"], scores["recall"], scores["f1"]) == (0.25, 0.5, 0.5, 0.5)
    assert (scores["tp"], scores["fp"], scores["fn"], scores["faces"], scores["photos"]) == (3, 3, 3, 6, 3)
    assert scores["iou"] == pytest.approx((1 + 0.75 + 1) / 6, abs=1e-5)  # the second face is 24 high, its box 32
    assert "computed" in scores["map_by"]


@debian
def test_a_net_that_finds_nothing(tmp_path):
    outputs = np.full((2, 7), -9.0)
    net = write_net(tmp_path, DETECTOR, "detector", "ab", outputs.ravel(), np.zeros(14 * 3 * 32 * 32))
    photos, program = write_faces(tmp_path), find_program("darknet")
    scores = detector_map(program, net, ("a", "b"), tmp_path / "test.txt", tmp_path / "work")
    assert (scores["map"], scores["tp"], scores["fp"], scores["fn"]) == (0, 0, 0, 6)
    assert detect(program, net, "ab", photos, 0.25, tmp_path / "work") == [[], [], []]


@debian
def test_refusals(tmp_path, classifier):
    photos, program, work = write_colours(tmp_path), find_program("darknet"), tmp_path / "work"
    with pytest.raises(InputError, match="gone.png"):
        classify(program, classifier, classifier.names, [*photos, tmp_path / "gone.png"], work)
    # A header that any reader takes, and nothing behind it: the program would score a random picture.
    broken = tmp_path / "broken rot.png"
    broken.write_bytes(photos[3].read_bytes()[:60])
    with pytest.raises(InputError, match="Cannot load image.*broken rot.png"):
        classify(program, classifier, classifier.names, [*photos, broken], work)
    (tmp_path / "test.list").write_text(f"{photos[0]}\n{tmp_path / 'gone.png'}\n")
    with pytest.raises(InputError, match="gone.png"):
        classifier_valid(program, classifier, classifier.names, tmp_path / "test.list", work)
    (tmp_path / "test.list").write_text("\n")
    with pytest.raises(InputError, match="lists no photo"):
        classifier_valid(program, classifier, classifier.names, tmp_path / "test.list", work)
    classifier.weights.write_bytes(classifier.weights.read_bytes()[:-4])
    with pytest.raises(InputError, match="net.weights"):
        classify(program, classifier, classifier.names, photos, work)


# What AlexeyAB's program (59596d78, CPU) printed for a toy detector; lines that repeat are left out.
HEAD = (
    " GPU isn't used \nmini_batch = 1, batch = 1, time_steps = 1, train = 0 \n"
    "Loading weights from net.weights...Done! Loaded 2 layers from weights-file \n"
)
MAP = (
    "\n calculation mAP (mean average precision)...\n Detection layer: 6 - type = 28 \n"
    "\n detections_count = 91, unique_truth_count = 34  \n rank = 0 of ranks = 91 \r"
    "class_id = 0, name = 0, ap = 100.00%   \t (TP = 12, FP = 0) \n"
    "class_id = 1, name = 1, ap = 73.88%   \t (TP = 9, FP = 7) \n"
    "class_id = 2, name = 2, ap = 100.00%   \t (TP = 10, FP = 2) \n"
    "\n for conf_thresh = 0.25, precision = 0.77, recall = 0.91, F1-score = 0.84 \n"
    " for conf_thresh = 0.25, TP = 31, FP = 9, FN = 3, average IoU = 55.27 % \n"
    "\n IoU threshold = 50 %, used Area-Under-Curve for each unique Recall \n"
    " mean average precision (mAP@0.50) = 0.912930, or 91.29 % \n"
)
EMPTY_MAP = (
    "\n detections_count = 0, unique_truth_count = 34  \n"
    "class_id = 0, name = 0, ap = inf%   \t (TP = 0, FP = 0) \n"
    "\n for conf_thresh = 0.25, precision = -nan, recall = 0.00, F1-score = -nan \n"
    " for conf_thresh = 0.25, TP = 0, FP = 0, FN = 34, average IoU = 0.00 % \n"
    " mean average precision (mAP@0.50) = inf, or inf % \nfree(): invalid next size (normal)\n"
)
PREDICT = (
    "Enter Image Path: 32 32\nphotos/0000000.png: Predicted in 0.437000 milli-seconds.\n"
    "1: 0.786986\n0: 0.106507\n2: 0.106507\n"
    "Enter Image Path: 32 32\nphotos/0000001.png: Predicted in 0.302000 milli-seconds.\n"
    "0: 0.999999\n2: 0.000001\n1: 0.000000\nEnter Image Path: "
)
VALID = " TOP calculation...\n\n0: top 1: 1.000000, top 3: 1.000000\n1: top 1: 0.500000, top 3: 1.000000"
RESULT = [
    {
        "frame_id": 1,
        "filename": "photos/0000000.png",
        "objects": [
            {
                "class_id": 2,
                "name": "2",
                "relative_coordinates": {"center_x": 0.5, "center_y": 0.25, "width": 0.25, "height": 0.5},
                "confidence": 0.867970,
            },
            {
                "class_id": 1,
                "name": "1",
                "relative_coordinates": {"center_x": 0.5, "center_y": 0.25, "width": 0.25, "height": 0.5},
                "confidence": 0.322154,
            },
        ],
    },
    {"frame_id": 2, "filename": "photos/0000001.png", "objects": []},
]


@pytest.fixture
def recorded(tmp_path):
    """A program that repeats what AlexeyAB's printed, and its net of three classes; and two photos of 34 faces."""

    def program(said, result=None, code=0):
        (tmp_path / "said").write_text(said)
        (tmp_path / "result").write_text(json.dumps(result))
        script = tmp_path / "darknet"
        lines = f"cat '{tmp_path}/said'", f"cp '{tmp_path}/result' result.json", f"exit {code}"
        script.write_text("\n".join(("#!/bin/sh", f"echo \"$@\" > '{tmp_path}/given'", *lines, "")))
        script.chmod(0o755)
        return Program(script, "alexeyab", gpu=False, opencv=False)

    text = DETECTOR.replace("classes=2", "classes=3").replace("filters=14", "filters=16")
    net = write_net(tmp_path, text, "detector", "abc", np.zeros(16 * (1 + 3 * 32 * 32)))
    photos = [tmp_path / "ein rot.png", tmp_path / "zwei rot.png"]
    for photo, labels in zip(photos, ([0] * 12 + [1] * 12, [2] * 10), strict=True):
        Image.new("RGB", (80, 40)).save(photo)
        photo.with_suffix(".txt").write_text("".join(f"{label} 0.5 0.5 0.1 0.1\n" for label in labels))
    (tmp_path / "test.txt").write_text("".join(f"{photo}\n" for photo in photos))
    return program, net, photos


def test_map_that_alexeyab_printed(tmp_path, recorded):
    program, net, _ = recorded
    files = tmp_path / "test.txt", tmp_path / "work"
    scores = detector_map(program(HEAD + MAP), net, ("a", "b", "c"), *files, threshold=0.4, iou_threshold=0.75)
    assert (tmp_path / "given").read_text().split()[-4:] == ["-thresh", "0.4", "-iou_thresh", "0.75"]
    assert (scores["threshold"], scores["iou_threshold"]) == (0.4, 0.75) and "by_confidence" not in scores
    assert scores["map"] == 0.91293 and scores["iou"] == pytest.approx(0.5527)
    # The program's 0.77, 0.91, 0.84 are these fractions of its counts.
    assert (scores["precision"], scores["recall"]) == pytest.approx((31 / 40, 31 / 34))
    assert scores["f1"] == pytest.approx(2 * 31 / (2 * 31 + 9 + 3))
    assert [(row["name"], row["tp"], row["fp"], row["truths"]) for row in scores["per_class"]] == [
        ("a", 12, 0, 12),
        ("b", 9, 7, 12),
        ("c", 10, 2, 10),
    ]
    assert [row["ap"] for row in scores["per_class"]] == pytest.approx([1, 0.7388, 1])
    assert "alexeyab" in scores["map_by"]


def test_map_that_alexeyab_printed_when_nothing_was_found(tmp_path, recorded):
    program, net, _ = recorded
    said = program(HEAD + EMPTY_MAP, code=134)
    scores = detector_map(said, net, ("a", "b", "c"), tmp_path / "test.txt", tmp_path / "work")
    assert (scores["map"], scores["precision"], scores["tp"], scores["fp"], scores["fn"]) == (0, 0, 0, 0, 34)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (HEAD + MAP.replace("FN = 3", "FN = 2"), "33 of 34 labels"),
        (HEAD + MAP.split(" IoU threshold")[0], "printed no mAP; darknet ended with exit code 0"),
        (HEAD.replace("2 layers", "1 layers") + MAP, "loaded 1 of 2 layers"),
        (HEAD.split("Loading")[0] + MAP, "did not load the weights"),
        (HEAD + 'Cannot load image "photos/0000001.png"\n' + MAP, "Cannot load image .*zwei rot.png"),
    ],
)
def test_what_alexeyab_printed_is_not_believed(tmp_path, recorded, said, message):
    program, net, _ = recorded
    with pytest.raises(InputError, match=message) as caught:
        detector_map(program(said), net, ("a", "b", "c"), tmp_path / "test.txt", tmp_path / "work")
    assert "\n" not in str(caught.value)


def test_boxes_that_alexeyab_wrote(tmp_path, recorded):
    program, net, photos = recorded
    # It draws with letters that lie nowhere here, and says so 760 times.
    said = program(HEAD + 'Cannot load image "data/labels/32_0.png"\nSTB Reason: can\'t fopen\n', RESULT)
    first, second = detect(said, net, "abc", photos, 0.25, tmp_path / "work")
    assert [face[:2] for face in first] == [(2, 0.86797)] and second == []  # one box, its surest class
    assert first[0][2] == pytest.approx((30, 0, 20, 20))
    with pytest.raises(InputError, match="1 of 2 photos came back"):
        detect(program(HEAD, RESULT[:1]), net, "abc", photos, 0.25, tmp_path / "work")


def test_probabilities_that_alexeyab_printed(tmp_path, recorded):
    program, net, photos = recorded
    found = classify(program(HEAD + PREDICT), net, ("rot", "gruen", "blau"), photos, tmp_path / "work")
    assert found.tolist() == [[0.106507, 0.786986, 0.106507], [0.999999, 0, 0.000001]]
    with pytest.raises(InputError, match="1 of 2 photos"):
        one = program(HEAD + PREDICT.split("Enter Image Path: 32 32\nphotos/0000001")[0])
        classify(one, net, ("rot", "gruen", "blau"), photos, tmp_path / "work")


def test_top_k_that_alexeyab_printed(tmp_path, recorded):
    program, net, _ = recorded
    top = classifier_valid(program(HEAD + VALID), net, ("rot", "gruen", "blau"), tmp_path / "test.txt", tmp_path / "w")
    assert (top.seen, top.top1, top.k, top.topk) == (2, 0.5, 3, 1)
    with pytest.raises(InputError, match="scored 1 of 2 photos"):
        less = program(HEAD + VALID.rpartition("\n")[0])
        classifier_valid(less, net, ("rot", "gruen", "blau"), tmp_path / "test.txt", tmp_path / "w")


@debian
def test_a_trained_net_in_debians_program(tmp_path):
    """The program's `valid` and `fout` agree on weights that it wrote itself, wherever its random start led."""
    random = np.random.default_rng(0)
    photos = []
    for number in range(24):
        name = list(COLOURS)[number % 3]
        pixels = random.integers(0, 90, (40, 40, 3)) + np.array(COLOURS[name]) // 3
        photos.append(tmp_path / f"{number:02d} {name}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(photos[-1])
    (tmp_path / "all.list").write_text("".join(f"{photo}\n" for photo in photos))
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in COLOURS))
    (tmp_path / "toy.data").write_text("classes=3\ntrain=all.list\nvalid=all.list\nlabels=labels.txt\nbackup=.\n")
    text = CLASSIFIER.replace("[net]", "[net]\nlearning_rate=0.1\nmomentum=0.9\nmax_batches=5\npolicy=constant")
    (tmp_path / "toy.cfg").write_text(text)
    program = find_program("darknet")
    train = [str(program.path), "classifier", "train", "toy.data", "toy.cfg"]
    run(train, tmp_path, tmp_path / "log", lambda line: None)
    net = Net(tmp_path / "toy.weights", tmp_path / "toy.cfg", tuple(COLOURS), parse(text), "classifier")
    probabilities = classify(program, net, net.names, photos, tmp_path / "work")
    top = classifier_valid(program, net, net.names, tmp_path / "all.list", tmp_path / "work")
    assert top.top1 == pytest.approx((probabilities.argmax(axis=1) == np.arange(24) % 3).mean(), abs=1e-6)
