"""Darknet nets on photos and videos in torch: faces worked by hand, rows, refusals."""

import csv
import json
import math
import struct

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from fer import Predictor
from fer.api import predict
from fer.config.checks import check_predict
from fer.darknet.config import check_darknet
from fer.darknet.formats.run_folder import write_facts
from fer.errors import InputError
from fer.prediction.gradcam import Explainer
from tests.conftest import ROOT
from tests.darknet.test_program_scores import CLASSIFIER, DETECTOR, sigmoid, write_faces


def write(folder, text, names, *floats, revision=0):
    """Write a run folder of weights worked by hand; returns the weights."""
    folder.mkdir(exist_ok=True)
    weights = folder / "net.weights"
    weights.write_bytes(struct.pack("<iiiQ", 0, 2, revision, 64) + np.concatenate(floats).astype("<f4").tobytes())
    (folder / "net.cfg").write_text(text)
    (folder / "net.names").write_text("".join(f"{name}\n" for name in names))
    return weights


def detector(folder, revision=0, first=(0, 0, 0, 0, 3, 2, -9), weights=None):
    """Happy at 16 x 16 of 32 x 32 pixels, Anger at 28 x 28 less surely."""
    outputs = [*first, 0, 0, 0, 0, 0, -9, 2]  # x, y, width, height, objectness, classes
    rest = np.zeros(14 * 3 * 32 * 32) if weights is None else weights
    return write(folder, DETECTOR, ("Happy", "Anger"), outputs, rest, revision=revision)


def red_detector(folder):
    """The same, but Happy's x is a sigmoid of 4 times the mean red less 2."""
    weights = np.zeros((14, 3, 32, 32))
    weights[0, 0] = 4 / 1024
    return detector(folder, first=(-2, 0, 0, 0, 3, 2, -9), weights=weights.ravel())


def predict_config(*overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("predict", [*overrides, "darknet.engine=torch"])
    return *check_predict(cfg), check_darknet(cfg.darknet)


def rows(out):
    with open(out / "predictions.csv") as file:
        return list(csv.DictReader(file))


def test_faces_worked_by_hand(tmp_path):
    weights = detector(tmp_path)
    predictor = Predictor.load(weights, device="cpu")
    assert predictor.labels == ("Happy", "Angry") and not predictor.network.drawn
    # 64 x 32 lies on grey, at half its size: 16 of the net's pixels are 32, 28 are 56
    large, small = predictor(np.zeros((32, 64, 3), np.uint8))
    assert small.box == pytest.approx((16, 0, 32, 32), abs=1e-4)
    assert large.box == pytest.approx((4, 0, 56, 32), abs=1e-4)  # 56 x 56, cut to the photo
    assert (small.label, large.label) == ("Happy", "Angry")
    assert small.score == pytest.approx(sigmoid(3)) and large.score == pytest.approx(sigmoid(0))
    assert small.confidence == small.probabilities["Happy"] == pytest.approx(sigmoid(3) * sigmoid(2))
    assert small.probabilities["Angry"] == pytest.approx(sigmoid(3) * sigmoid(-9))
    assert large.confidence == pytest.approx(sigmoid(0) * sigmoid(2))
    # what is not sure enough is no face
    (only,) = Predictor.load(weights, device="cpu", min_confidence=0.5)(np.zeros((32, 64), np.uint8))
    assert only.box == small.box


def test_weights_of_alexeyabs_stretch_the_photo(tmp_path):
    large, small = Predictor.load(detector(tmp_path, revision=5), device="cpu")(np.zeros((32, 64, 3), np.uint8))
    assert small.box == pytest.approx((16, 8, 32, 16), abs=1e-4)
    assert large.box == pytest.approx((4, 2, 56, 28), abs=1e-4)


def test_of_faces_on_one_another_the_surer_stays(tmp_path):
    # both 28 x 28 now, of two expressions: exp(width) is 28 / 16
    wide = math.log(28 / 16)
    weights = detector(tmp_path, first=(0, 0, wide, wide, 3, 2, -9))
    (face,) = Predictor.load(weights, device="cpu")(np.zeros((32, 32, 3), np.uint8))
    assert face.label == "Happy" and face.box == pytest.approx((2, 2, 28, 28), abs=1e-4)


def test_what_lies_in_the_grey_border_or_is_no_number_is_no_face(tmp_path):
    # y of -9: in the upper edge of the net's square, eight pixels high; a photo of 64 x 8 has 14 pixels of grey there
    small = math.log(8 / 16)
    weights = detector(tmp_path, first=(0, -9, small, small, 3, 2, -9))
    (large,) = Predictor.load(weights, device="cpu")(np.zeros((8, 64, 3), np.uint8))
    assert large.label == "Angry"
    weights = detector(tmp_path, first=(0, 0, 1000, 0, 3, 2, -9))
    (large,) = Predictor.load(weights, device="cpu")(np.zeros((32, 32, 3), np.uint8))
    assert large.label == "Angry"


def test_photos_go_through_in_batches(tmp_path):
    predictor = Predictor.load(red_detector(tmp_path), device="cpu", min_confidence=0.5)
    reds = range(0, 256, 13)
    pictures = [np.full((32, 32, 3), red, np.uint8) for red in reds]
    found = predictor.batch(pictures)
    for red, (face,) in zip(reds, found, strict=True):
        middle = 32 * sigmoid(4 * red / 255 - 2)
        left, right = max(0, middle - 8), min(32, middle + 8)
        assert face.box == pytest.approx((left, 8, right - left, 16), abs=1e-3)
    assert predictor.frames(pictures, every=5) == found
    assert predictor.batch([]) == []


def test_photos_and_a_video_give_rows_tracks_and_pictures(tmp_path, capsys):
    weights, media = red_detector(tmp_path / "net"), tmp_path / "media"
    media.mkdir()
    photos = write_faces(media)
    (media / "broken.png").write_bytes(photos[0].read_bytes()[:60])
    video = cv2.VideoWriter(str(media / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    reds = [60, 80, 100, 120, 140, 160]
    for red in reds:
        video.write(np.full((64, 64, 3), (90, 90, red), np.uint8))
    video.release()
    overrides = [f"source={media}", f"ckpt={weights}", f"out={tmp_path / 'out'}", "device=cpu"]
    assert predict(*predict_config(*overrides)) == 1
    assert "5 files, 18 faces, 0 without a face, 1 not read" in capsys.readouterr().out
    found = rows(tmp_path / "out")
    assert [row["error"] for row in found if "broken" in row["file"]] == ["truncated"]
    first = next(row for row in found if row["file"] == str(photos[1]) and row["label"] == "Happy")
    assert float(first["p_Happy"]) == pytest.approx(sigmoid(3) * sigmoid(2), abs=1e-4)
    assert float(first["score"]) == pytest.approx(sigmoid(3), abs=1e-4)
    happy = [row for row in found if "clip" in row["file"] and row["label"] == "Happy"]
    assert [row["frame"] for row in happy] == list("012345") and len({row["track"] for row in happy}) == 1
    middles = [float(row["x"]) + float(row["width"]) / 2 for row in happy]
    # a video's colours come back a little off
    assert middles == pytest.approx([64 * sigmoid(4 * red / 255 - 2) for red in reds], abs=1.5)
    assert (tmp_path / "out/clip.mp4").is_file() and len(list((tmp_path / "out/photos").iterdir())) == 3


def test_a_classifier_names_faces_as_any_network(tmp_path):
    colours = ("Happy", "Anger", "Sad")
    weights = write(tmp_path, CLASSIFIER, colours, np.zeros(3), 2 * np.eye(3).ravel())
    predictor = Predictor.load(weights, faces="whole", device="cpu")
    picture = np.zeros((50, 40, 3), np.uint8)
    picture[..., 1] = 255
    (face,) = predictor(picture)
    high = math.exp(2) / (math.exp(2) + 2)
    assert face.label == "Angry" and face.confidence == pytest.approx(high) and face.box == (0, 0, 40, 50)
    assert sum(face.probabilities.values()) == pytest.approx(1)
    assert (predictor.network.face.size, predictor.network.face.color, predictor.network.face.margin) == (32, "rgb", 0)
    # trained on cropped faces: their colour and margin
    (tmp_path / "data").mkdir()
    mark = {
        "task": "classifier", "names": ["happy", "anger", "sad"], "class_names": ["Happy", "Angry", "Sad"],
        "folder": str(tmp_path / "data"), "lists": {"train": "train.list"}, "photos": {"train": 3}, "data": "folder",
        "drawn": True, "crop": "face", "made_by": {"color": "grey", "margin": 0.2},
    }  # fmt: skip
    (tmp_path / "data/darknet.json").write_text(json.dumps(mark))
    write_facts(tmp_path, {"folder": str(tmp_path / "data"), "drawn": True})
    again = Predictor.load(weights, faces="whole", device="cpu")
    assert (again.network.face.color, again.network.face.margin, again.network.drawn) == ("grey", 0.2, True)
    assert again(picture)[0].probabilities == pytest.approx(dict.fromkeys(("Happy", "Angry", "Sad"), 1 / 3))


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    weights = detector(tmp_path / "a")
    narrow = DETECTOR.replace("num=2\n", "num=2\nnms_kind=cornersnms\n")
    other = write(tmp_path / "b", narrow, "ab", np.zeros(14 * (1 + 3 * 32 * 32)))
    grey = CLASSIFIER.replace("channels=3", "channels=1")
    flat = CLASSIFIER.replace("height=32", "height=64")
    for load, message in [
        (
            lambda: Predictor.load(weights, faces="yunet"),
            "faces=yunet: .*net.weights is a detector and finds",
        ),
        (lambda: Predictor.load(weights, faces="whole"), "faces=whole: .* is a detector"),
        (lambda: Predictor.load(weights, device="cuda:99"), "device=cuda:99: .*device=cpu always works"),
        (lambda: Predictor.load(weights, names=tmp_path / "none"), "darknet.names=.*none: no such file"),
        (lambda: Predictor.load(weights.with_name("no.weights")), "no.weights: no such file"),
        (lambda: Predictor.load(other), r"net.cfg:12: \[yolo\]: nms_kind=cornersnms is not supported"),
        (lambda: Predictor.load(write(tmp_path / "c", grey, "abc", np.zeros(6))), "channels=1: .* gives photos in RGB"),
        (lambda: Predictor.load(write(tmp_path / "d", flat, "abc", np.zeros(12))), "width=32 and height=64 .* differ"),
        (lambda: Explainer.load(weights), "net.weights: Darknet nets have no heat maps here"),
        (lambda: predict_config("source=x", "ckpt=x.weights", "explain=true"), "explain=true: not for the .weights"),
        (
            lambda: predict_config("source=x", "ckpt=x.weights", "darknet.binary=d"),
            "darknet.binary=d: darknet.engine=torch runs no program",
        ),
    ]:
        with pytest.raises(InputError, match=message) as error:
            load()
        assert "\n" not in str(error.value)
    assert predict_config("source=x", "ckpt=x.weights", "show=true")[0]["show"]


@pytest.mark.slow
def test_from_the_command_line_without_the_program(tmp_path, run):
    weights, nowhere = detector(tmp_path), {"PATH": "/nowhere"}
    write_faces(tmp_path)
    source = f"source={tmp_path / 'face 0.png'}"
    done = run("predict.py", source, f"ckpt={weights}", f"out={tmp_path / 'out'}", "darknet.engine=torch", env=nowhere)
    assert "1 file, 2 faces, 0 without a face, 0 not read" in done.stdout
    done = run("predict.py", source, f"ckpt={weights}", f"out={tmp_path / 'out'}", env=nowhere, code=2)
    assert done.stderr.startswith("error: no darknet program on PATH") and "darknet.engine=torch" in done.stderr
    done = run("export.py", f"ckpt={weights}", "darknet.names=" + str(tmp_path / "net.names"), env=nowhere)
    assert f"wrote {tmp_path / 'net.onnx'}" in done.stdout
    done = run("evaluate.py", f"ckpt={weights}", "darknet.engine=torch", env=nowhere, code=2)
    assert done.stderr.startswith(f"error: {weights}: no run.json beside it says what to score it on")
