"""Darknet nets scored and used in torch: pictures and numbers against Debian's program and by hand."""

import json
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from fer.darknet.config import check_darknet
from fer.darknet.design.architectures import recipe
from fer.darknet.design.fit import fit
from fer.darknet.evaluate import evaluate
from fer.darknet.formats.cfg import parse, render
from fer.darknet.formats.export import export
from fer.darknet.formats.weights import open_net
from fer.darknet.program_engine.program import find_program
from fer.darknet.program_engine.scores import classifier_valid, classify, detect, detector_map
from fer.darknet.scoring.mean_ap import Detections, Truth
from fer.darknet.torch_engine import scores as native
from fer.darknet.torch_engine.inference import Detector, letterboxes, read_dialect, suppress_classes
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.picture import Place, centre, place, read_picture, resize
from fer.darknet.torch_engine.weights_io import save_weights
from fer.errors import InputError
from fer.labels import CLASSES
from tests.conftest import ROOT
from tests.darknet.test_network import narrow, trained_like
from tests.darknet.test_program_scores import DETECTOR, write_faces
from tests.data.test_prepare import data

DEBIANS, ALEXEYABS = (0, 2, 0), (0, 2, 5)
NAMES = ("Neutral", "Happy", "Sad")


def write(folder, network, names, version=DEBIANS, **net):
    """Write weights, cfg and names of a network as a run folder has them, and return the net."""
    folder.mkdir(exist_ok=True)
    network.sections[0].options.update(net)
    (folder / "net.cfg").write_text(render(network.sections))
    (folder / "emotion.names").write_text("".join(f"{name}\n" for name in names))
    save_weights(network, folder / "net.weights", 64, version=version)
    return open_net(folder / "net.weights")


def smooth(width, height, seed=0):
    """A picture as smooth as a photo, so that a few pixels of shift change little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


# --- pictures ---


def test_resizing_worked_by_hand():
    # corners stay corners: of 4 pixels every 3rd makes 2, and between 2 the others lie at thirds
    row = np.array([[[0] * 3, [30] * 3, [60] * 3, [255] * 3]], np.uint8)
    assert resize(row, 2, 1)[0, :, 0] * 255 == pytest.approx([0, 255])
    assert resize(row, 3, 1)[0, :, 1] * 255 == pytest.approx([0, 45, 255])
    assert resize(row[:, ::3], 4, 1)[0, :, 2] * 255 == pytest.approx([0, 85, 170, 255])
    assert resize(row.transpose(1, 0, 2), 1, 7)[:, 0, 0] * 255 == pytest.approx([0, 15, 30, 45, 60, 157.5, 255])
    assert resize(row, 1, 1).shape == (1, 1, 3)


def test_resizing_is_torchs_with_aligned_corners():
    for width, height, new in [(97, 31, (64, 64)), (20, 50, (64, 33)), (1, 1, (5, 4))]:
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
        planes = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        theirs = torch.nn.functional.interpolate(planes, new[::-1], mode="bilinear", align_corners=True)
        assert resize(picture, *new) == pytest.approx(theirs[0].permute(1, 2, 0).numpy(), abs=2e-5)


def test_places_worked_by_hand():
    white = np.full((30, 90, 3), 255, np.uint8)
    whole, at = place(white, 64, 32, letterbox=True)
    # 64 / 90 is less than 32 / 30: 64 x 21, five rows of grey above and six below
    assert (whole[:5] == 0.5).all() and (whole[5:26] == 1).all() and (whole[26:] == 0.5).all()
    assert at == Place(0, 5.5 / 32, 1, 21 / 32)
    whole, at = place(white.transpose(1, 0, 2), 64, 32, letterbox=True)
    assert at == Place(27 / 64, 0, 10 / 64, 1) and (whole[:, 27:37] == 1).all() and whole[0, 26, 0] == 0.5
    assert place(white, 64, 32, letterbox=False)[1] == Place(0, 0, 1, 1)
    assert (centre(np.arange(90, dtype=np.uint8)[None, :, None].repeat(30, 0).repeat(3, 2), 30) * 255)[
        0, [0, -1], 0
    ] == (pytest.approx([30, 59]))


def test_photos_are_read_as_they_lie(tmp_path):
    turned = Image.new("RGB", (40, 20), (200, 0, 0))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.png", exif=exif)
    picture = read_picture(tmp_path / "a.png")
    assert picture.shape == (20, 40, 3) and picture[0, 0].tolist() == [200, 0, 0]
    (tmp_path / "b.png").write_bytes(b"")
    for name in ("b.png", "c.png"):
        with pytest.raises(InputError, match=f"{name}: cannot be read as a photo"):
            read_picture(tmp_path / name)


# --- what each program does its own way ---


def test_the_version_in_the_weights_says_whose_way(tmp_path):
    network = trained_like(narrow(fit(recipe("v3_tiny"), {"size": 64}, 3, 1000)))
    for version, dialect, letterbox in [(DEBIANS, "pjreddie", True), (ALEXEYABS, "alexeyab", False)]:
        net = write(tmp_path / dialect, network, NAMES, version)
        assert (read_dialect(net.weights), letterboxes(net)) == (dialect, letterbox)
    assert letterboxes(write(tmp_path / "c", network, NAMES, ALEXEYABS, letter_box="1"))
    assert not letterboxes(write(tmp_path / "c", network, NAMES, DEBIANS, letter_box="0"))


# --- scores ---


@pytest.mark.darknet
@pytest.mark.parametrize("name", ["classifier_tiny", "classifier_small"])
def test_probabilities_of_any_photo_are_debians(tmp_path, name):
    network = trained_like(narrow(fit(recipe(name), {"size": 64}, 3, 1000)))
    net = write(tmp_path, network, ("rot", "gruen", "blau"))
    photos = [tmp_path / f"{number}_{net.names[number % 3]}.png" for number in range(9)]
    sizes = [(64, 64), (90, 40), (33, 70), (300, 200), (65, 64), (20, 20), (64, 129), (127, 31), (50, 49)]
    for number, (photo, size) in enumerate(zip(photos, sizes, strict=True)):
        Image.fromarray(smooth(*size, number)).save(photo)
    theirs = classify(find_program("darknet"), net, net.names, photos, tmp_path / "work")
    ours = native.classify(net, photos, "cpu")
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert np.ptp(theirs, axis=0).max() > 0.05
    # top-1 as the program's own `valid` counts it
    (tmp_path / "test.list").write_text("".join(f"{photo}\n" for photo in photos))
    said = classifier_valid(find_program("darknet"), net, net.names, tmp_path / "test.list", tmp_path / "work")
    assert said.top1 == pytest.approx((ours.argmax(1) == np.arange(9) % 3).mean(), abs=1e-6)


@pytest.mark.darknet
def test_map_is_debians(tmp_path):
    """A net of random weights on photos whose labels are some of its own boxes, a little off."""
    network = trained_like(narrow(fit(recipe("v3_tiny"), {"size": 64}, 3, 1000)))
    net = write(tmp_path, network, NAMES)
    photos, generator = [tmp_path / f"{number}.png" for number in range(24)], np.random.default_rng(1)
    for number, photo in enumerate(photos):
        Image.fromarray(smooth(*generator.integers(40, 160, 2), number)).save(photo)
    found = detect(find_program("darknet"), net, NAMES, photos, 0.1, tmp_path / "work")
    for photo, faces in zip(photos, found, strict=True):
        width, height = Image.open(photo).size
        lines = []
        for label, _, (x, y, w, h) in faces:
            if generator.random() < 0.4:
                x, y = np.array([x, y]) + generator.normal(0, 0.15, 2) * [w, h]
                box = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
                # what lies outside of the photo, or is cut to nothing at its edge, is no label
                if all(0 < value <= 1 for value in box):
                    lines.append(" ".join(map(str, (label, *box))))
        photo.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.txt").write_text("".join(f"{photo}\n" for photo in photos))
    theirs = detector_map(find_program("darknet"), net, NAMES, tmp_path / "test.txt", tmp_path / "work")
    ours = native.detector_map(net, NAMES, tmp_path / "test.txt", "cpu")
    assert theirs["faces"] > 50 and 0.05 < theirs["map"] < 0.95
    assert ours["map"] == pytest.approx(theirs["map"], abs=0.002)
    for key in ("tp", "fp", "fn", "faces", "photos"):
        assert ours[key] == theirs[key]
    assert [row["ap"] for row in ours["per_class"]] == pytest.approx(
        [row["ap"] for row in theirs["per_class"]], abs=4e-3
    )


@pytest.mark.parametrize(
    ("version", "ap", "overlaps"),
    # The third face is 32 x 32 in a photo of 64 x 32. On grey the first three boxes are right. Stretched, the surer box
    # there is 32 x 16, an IoU of .5, not over it, and the last of the six, of 56 x 28, is right instead.
    [(DEBIANS, 3 / 6, 1 + 0.75 + 1), (ALEXEYABS, 2.5 / 6, 1 + 0.75 + 32 * 28 / (56 * 28 + 32 * 32 - 32 * 28))],
)
def test_map_worked_by_hand(tmp_path, version, ap, overlaps):
    # in every photo class a at 16 x 16 of 32 x 32 pixels, and less surely at 28 x 28; six faces in three photos
    outputs = [[0, 0, 0, 0, 3, 2, -9], [0, 0, 0, 0, 0, 2, -9]]
    network = DarknetNetwork(parse(DETECTOR))
    with torch.no_grad():
        network.layers[0].linear.weight.zero_()
        network.layers[0].linear.bias.copy_(torch.tensor(outputs).flatten())
    net = write(tmp_path, network, "ab", version)
    write_faces(tmp_path)
    scores = native.detector_map(net, "ab", tmp_path / "test.txt", "cpu")
    assert [row["ap"] for row in scores["per_class"]] == pytest.approx([ap, 0])
    assert (scores["map"], scores["precision"], scores["recall"]) == pytest.approx((ap / 2, 0.5, 0.5))
    assert (scores["tp"], scores["fp"], scores["fn"], scores["photos"]) == (3, 3, 3, 3)
    assert scores["iou"] == pytest.approx(overlaps / 6, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "version", "stay"),
    [
        ("", ALEXEYABS, [0, 3]),
        ("nms_kind=default", ALEXEYABS, [0, 3]),
        ("nms_kind=greedynms", ALEXEYABS, [0, 2, 3]),
        ("nms_kind=greedynms\nbeta_nms=2", ALEXEYABS, [0, 2, 3]),
        ("nms_kind=diounms", ALEXEYABS, [0, 2, 3]),
        ("nms_kind=diounms\nbeta_nms=2", ALEXEYABS, [0, 3]),
        # Debian's program knows IoU only
        ("nms_kind=greedynms", DEBIANS, [0, 3]),
    ],
)
def test_overlapping_boxes_go_as_nms_kind_says(tmp_path, kind, version, stay):
    # 1 by 1, then 0.1 and 0.3 to the right, and one below. IoU 0.9 / 1.1 = 0.818 and 0.7 / 1.3 = 0.538; the squared
    # distance over the diagonal's is 0.01 / 2.21 and 0.09 / 2.69, to the power of 0.6 0.039 and 0.130, of 2 0.001:
    # 0.779 and 0.408, or 0.537, where more than 0.45 goes
    box = torch.tensor([[0, 0, 1, 1], [0.1, 0, 1, 1], [0.3, 0, 1, 1], [0, 3, 1, 1]])
    network = DarknetNetwork(parse(DETECTOR.replace("num=2\n", f"num=2\n{kind}\n")))
    power = Detector(write(tmp_path, network, "ab", version), "cpu").power
    sure = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4], [0.004, 0.005, 0.5, 0.6]])
    # the surest is the first, and what is not over 0.005 is none
    wanted = [stay, [3, 2] + [0] * (len(stay) == 3), [3, 2]]
    assert [found.tolist() for found in suppress_classes(box, sure.T, power)] == wanted


def test_cocos_map_worked_by_hand():
    pytest.importorskip("pycocotools", reason="needs: pip install '.[coco]'")
    truth = Truth(np.array([0, 2]), np.array([0, 0]), np.array([[0, 0, 10, 10], [5, 5, 10, 10.0]]))
    # photo 0 at an IoU of .82, photo 1 has no face, photo 2 is exact and surest
    boxes = np.array([[0, 0, 10, 8.2], [0, 0, 5, 5], [5, 5, 10, 10.0]])
    found = Detections(np.array([0, 1, 2]), np.array([0, 0, 0]), np.array([0.6, 0.1, 0.9]), boxes)
    # up to .8 both count: AP 1; over it one of two: 51 of 101 recalls
    high = 51 / 101
    scores = native.coco(found, truth)
    assert scores["map50"] == scores["map75"] == pytest.approx(1)
    assert scores["map"] == pytest.approx((7 + 3 * high) / 10)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Drawn photos as folders for a classifier and a detector, and nets of random weights for them."""
    home = tmp_path_factory.mktemp("home")
    config = data("sample", raw=home / "set", photos=60)
    nets, files = {}, {"classifier": "labels.txt", "detector": "emotion.names"}
    for task, name in (("classifier", "classifier_small"), ("detector", "v3_tiny")):
        export(config, home / task, task)
        network = trained_like(narrow(fit(recipe(name), {"size": 64}, 7, 1000)))
        nets[task] = write(home / name, network, (home / task / files[task]).read_text().split())
    return home, nets


def score(sample, task, engine, out, **keys):
    home, nets = sample
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", [f"darknet.engine={engine}", f"darknet.folder={home / task}"])
    keys = {"ckpt": str(nets[task].weights), "split": "test", "out": str(out), "device": "cpu"} | keys
    headline = evaluate(keys, None, check_darknet(cfg.darknet))
    return headline, json.loads((out / "report.json").read_text())


@pytest.mark.parametrize("task", ["classifier", "detector"])
def test_a_score_needs_no_program(sample, tmp_path, task, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    headline, report = score(sample, task, "torch", tmp_path)
    assert report["program"] == "torch" and report["drawn"] and "printed" not in report
    assert task == "classifier" or report["map_by"].endswith("photos on grey as in Debian's darknet of 2018")
    assert headline == (report["plain"]["accuracy"] if task == "classifier" else report["map"])
    assert "so these photos may be among it" in capsys.readouterr().out
    with pytest.raises(InputError, match="^no darknet program on PATH; .*darknet.engine=torch scores and runs"):
        score(sample, task, "binary", tmp_path)
    with pytest.raises(InputError, match="^device=cuda:99: "):
        score(sample, task, "torch", tmp_path, device="cuda:99")


def test_thresholds_are_keys(sample, tmp_path, capsys):
    _, report = score(sample, "detector", "torch", tmp_path / "loose", thresh=0.01, iou_thresh=0.1)
    assert (report["threshold"], report["iou_threshold"]) == (0.01, 0.1)
    assert "mAP@0.10" in capsys.readouterr().out and report["counted"].startswith("as detector map: ")
    _, strict = score(sample, "detector", "torch", tmp_path / "strict", thresh=0.6, iou_thresh=0.9)
    assert strict["map"] < report["map"] and strict["tp"] + strict["fp"] < report["tp"] + report["fp"]
    for keys in ({"thresh": 0.004}, {"thresh": 1.0}, {"iou_thresh": 0.0}, {"iou_thresh": 1.0}):
        ((key, value),) = keys.items()
        with pytest.raises(InputError, match=f"^{key}={value}: not "):
            score(sample, "detector", "torch", tmp_path / "wrong", **keys)
    with pytest.raises(InputError, match="^iou_thresh=0.75: for detectors, which .*net.weights is not"):
        score(sample, "classifier", "torch", tmp_path / "wrong", iou_thresh=0.75)
    assert not (tmp_path / "wrong").exists()


def test_classes_in_common_are_scored_of_a_classifier_with_others(sample, tmp_path):
    home, nets = sample
    # the same net, whose file of names has a spelling of its own, and a class that no photo is of
    folder = shutil.copytree(nets["classifier"].weights.parent, tmp_path / "net")
    names = (folder / "emotion.names").read_text()
    (folder / "emotion.names").write_text(re.sub("(?i)sad", "boredom", re.sub("(?i)happy", "happiness", names)))
    net = open_net(folder / "net.weights")
    other = (home, {"classifier": net})
    with pytest.raises(InputError, match="class names differ: .*; evaluate's classes=common scores those in common"):
        score(other, "classifier", "torch", tmp_path / "out")
    _, report = score(other, "classifier", "torch", tmp_path / "out", classes="common")
    _, whole = score(sample, "classifier", "torch", tmp_path / "whole")
    assert report["common"]["masked"] == {str(net.weights): ["boredom"]}
    sad = next(entry["support"] for entry in whole["plain"]["per_class"] if entry["name"] == "Sad")
    assert report["common"]["left_out"] == {"Sad": sad} and sad > 0
    rows, before = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("out", "whole"))
    before = before[before.label != "Sad"]
    classes = [name for name in CLASSES if name != "Sad"]
    kept = before[[f"p_{name}" for name in classes]].to_numpy()
    expected = kept / kept.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rows[[f"p_{name}" for name in classes]], expected, rtol=1e-3, atol=1e-6)
    assert rows.path.tolist() == before.path.tolist() and rows.label.tolist() == before.label.tolist()
    with pytest.raises(InputError, match="classes=common: for classifiers; .* is a detector"):
        score(sample, "detector", "torch", tmp_path / "map", classes="common")


@pytest.mark.darknet
def test_scores_are_the_programs(sample, tmp_path):
    ours, theirs = (
        score(sample, "classifier", engine, tmp_path / f"{engine}-classifier")[1] for engine in ("torch", "binary")
    )
    assert ours["plain"]["accuracy"] == theirs["plain"]["accuracy"]
    assert ours["plain"]["accuracy"] == pytest.approx(theirs["printed"]["top1"], abs=1e-6)
    ours, theirs = (
        score(sample, "detector", engine, tmp_path / f"{engine}-detector")[1] for engine in ("torch", "binary")
    )
    assert ours["map"] == pytest.approx(theirs["map"], abs=0.002)
    assert [ours[key] for key in ("tp", "fp", "fn", "faces")] == [theirs[key] for key in ("tp", "fp", "fn", "faces")]
