"""Scenes: the same again by the same seed, boxes where the faces are, no split with another's faces or backgrounds."""

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer.data.source import SPLITS, FaceFormat, empty_faces
from fer.data.storage.hdf5 import write_store
from fer.data.synthetic.backgrounds import read_backgrounds
from fer.data.synthetic.composition import Square, compose
from fer.data.synthetic.scenes import draw_scenes
from fer.errors import InputError
from fer.labels import CLASSES
from tests.conftest import write_tiny


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("faces") / "faces.h5", {"train": 70, "val": 35}, FaceFormat(48))


@pytest.fixture(scope="module")
def drawn(faces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "new"
    draw_scenes(folder, faces, 60, seed=3)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def labels(folder: Path, split: str) -> list[list[list[float]]]:
    photos = (folder / f"{split}.txt").read_text().split()
    lines = [(folder / photo).with_suffix(".txt").read_text().splitlines() for photo in photos]
    return [[[float(value) for value in line.split()] for line in photo] for photo in lines]


def test_the_same_seed_gives_the_same_bytes_and_another_no_common_scene(drawn, faces, tmp_path):
    draw_scenes(tmp_path / "again", faces, 60, seed=3)
    draw_scenes(tmp_path / "other", faces, 60, seed=4)
    assert digests(tmp_path / "again") == digests(drawn)
    photos, others = ({v for k, v in digests(folder).items() if k.endswith(".jpg")} for folder in (drawn, tmp_path))
    assert len(photos) == 60 + 6 and len(others) == 2 * 66
    draw_scenes(tmp_path / "other", faces, 60, seed=3)  # a folder drawn earlier is drawn anew, with nothing left over
    assert digests(tmp_path / "other") == digests(drawn)


def test_a_folder_that_holds_these_scenes_is_left_as_it_is(drawn, faces):
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    told = []
    draw_scenes(drawn, faces, 60, seed=3, progress=told.append)
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before and not told


def test_boxes_lie_in_the_scene_and_most_are_square(drawn):
    photos = (drawn / "train.txt").read_text().split()
    everything = labels(drawn, "train")
    counts = [len(boxes) for boxes in everything]
    assert counts.count(0) > 2 and counts.count(1) > 20 and max(counts) > 3
    square = 0
    for photo, boxes in zip(photos, everything, strict=True):
        height, width = cv2.imread(str(drawn / photo)).shape[:2]
        assert max(height, width) == 320 and min(height, width) >= 180
        for label, x, y, w, h in boxes:
            assert label in range(7) and min(x - w / 2, y - h / 2) > -1e-5 and max(x + w / 2, y + h / 2) < 1 + 1e-5
            assert min(w * width, h * height) > 14  # 20 pixels, of which three quarters are inside
            square += abs(w * width - h * height) < 0.01
    assert square > 0.6 * sum(counts)


def test_faces_are_where_the_boxes_say():
    # red faces, alone coloured among grey pictures
    rng = np.random.default_rng(0)
    face = (rng.integers(150, 255, (48, 48, 1)) * np.array([0, 0, 1])).astype(np.uint8)
    grey = [np.repeat(rng.integers(0, 255, (64, 64, 1), np.uint8), 3, 2)]
    won = scenes = 0
    for seed in range(60):
        scene, boxes = compose([face], [], grey, np.random.default_rng(seed))
        red = scene[..., 2].astype(float) - scene[..., :2].mean(2)
        for x, y, w, h in boxes:
            inside = np.zeros(red.shape, bool)
            inside[int(y) : int(y + h), int(x) : int(x + w)] = True
            if red.std() > 5 and not inside.all():  # not of a grey scene
                scenes += 1
                won += red[inside].mean() > 1.3 * max(1, red[~inside].mean())
    assert scenes > 25 and won > 0.85 * scenes


def test_a_turned_face_keeps_the_side_of_its_box():
    # the distance of the eyes, which turning leaves, times 2.7
    assert Square(100, 80, 54, 45).box(320, 200) == Square(100, 80, 54).box(320, 200) == (73, 53, 54, 54)
    assert Square(10, 80, 54, 45).box(320, 200) == (0, 53, 37, 54)


def test_what_is_no_face_has_no_box():
    rng = np.random.default_rng(1)
    decoys = [rng.integers(0, 255, (48, 48), np.uint8) for _ in range(6)]
    picture = [np.full((64, 64, 3), 90, np.uint8)]
    shown = 0
    for seed in range(12):
        scene, boxes = compose([], decoys, picture, np.random.default_rng(seed))
        without, _ = compose([], [], picture, np.random.default_rng(seed))
        assert boxes == []
        shown += not np.array_equal(scene, without)
    assert shown == 12


def test_no_face_of_another_split_is_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    made = empty_faces(42, FaceFormat(48))
    made.label, made.image = np.arange(42) % 7, rng.integers(0, 255, (42, 48, 48), np.uint8)
    made.split[28:] = SPLITS.index("val")
    made.image[made.label == 6] = made.image[6]  # all of Neutral are copies of one face
    made.image[made.label == 5] = 99  # and all of Surprise are flat
    made.path = [f"{i}" for i in range(42)]
    write_store(tmp_path / "faces.h5", lambda: [made], CLASSES, ("made",), FaceFormat(48), False, {})
    draw_scenes(tmp_path / "scenes", tmp_path / "faces.h5", 40)
    train, val = (
        {int(box[0]) for boxes in labels(tmp_path / "scenes", split) for box in boxes} for split in ("train", "val")
    )
    assert train == {0, 1, 2, 3, 4}
    assert val <= {0, 1, 2, 3, 4, 6}
    write_tiny(tmp_path / "same.h5", {"train": 14, "val": 14}, FaceFormat(48), noise=0)
    with pytest.raises(InputError, match="no usable face is left in train"):
        draw_scenes(tmp_path / "none", tmp_path / "same.h5", 40)
    assert not (tmp_path / "none").exists()


def test_backgrounds_of_training_are_not_those_of_others(tmp_path):
    shipped = read_backgrounds()
    assert len(shipped[True]) == 16 and len(shipped[False]) == 6
    hashes = [{hashlib.sha256(picture.tobytes()).hexdigest() for picture in shipped[t]} for t in (True, False)]
    assert not hashes[0] & hashes[1]
    for name, side in (("a", 100), ("b", 2000)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((50, side, 3), 7, np.uint8))
    own = read_backgrounds(tmp_path)
    assert [picture.shape for picture in own[True] + own[False]] == [(16, 640, 3), (50, 100, 3)]


def test_what_is_amiss_is_one_line_and_changes_nothing(drawn, faces, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"mine: holds something that is no scenes drawn here: give data\.raw="):
        draw_scenes(tmp_path / "mine", faces, 20)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    with pytest.raises(InputError, match="has 1 pictures; give two or more without faces"):
        read_backgrounds(tmp_path / "mine")
    with pytest.raises(InputError, match=r"data\.photos=9: ask for 10 scenes or more"):
        draw_scenes(tmp_path / "few", faces, 9)
    only = write_tiny(tmp_path / "only.h5", {"train": 14})
    with pytest.raises(InputError, match=r"only\.h5: has no train and val faces"):
        draw_scenes(tmp_path / "few", only, 20)

    def stop(_):
        raise KeyboardInterrupt

    before = digests(drawn)
    with pytest.raises(KeyboardInterrupt):
        draw_scenes(drawn, faces, 20, progress=stop)
    assert digests(drawn) == before and [path.name for path in drawn.parent.iterdir()] == [drawn.name]
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(InputError, match=r"backgrounds from skimage: pip install '\.\[scenes\]'"):
        read_backgrounds()


@pytest.mark.slow
def test_a_detector_trains_on_scenes_that_are_drawn_for_it(run, faces, tmp_path):
    options = (
        "data=scenes", f"data.faces={faces}", "data.photos=20", "darknet=v4_tiny_half", "darknet.engine=torch",
        "darknet.size=64", "darknet.batch=4", "darknet.max_batches=2", "darknet.burn_in=1", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false", "hydra.run.dir=first",
    )  # fmt: skip
    done = run("train.py", *options, cwd=tmp_path)
    assert "data/scenes-detector is not there yet: making it" in done.stdout
    assert len(list((tmp_path / "data/scenes-detector/photos").rglob("*.txt"))) == 22
    weights = tmp_path / "first/backup/v4_tiny_half_final.weights"
    done = run("evaluate.py", f"ckpt={weights}", "split=val", "darknet.engine=torch", cwd=tmp_path)
    assert "mAP" in done.stdout
