"""YOLO data sets trained and scored where they lie: what is written for them, and that nothing is written elsewhere.

Test names hold none of the words that the programs replace in paths.
"""

import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer.darknet.formats.export import export
from fer.darknet.formats.label_files import read_labels, require_plain_labels
from fer.darknet.formats.photo_folder import LABEL_PATH_TRAPS, read_darknet, read_list, read_photos
from fer.darknet.runs.setup import open_dataset
from fer.data.preparation.prepare import prepare
from fer.data.storage.hdf5 import read_column
from fer.errors import InputError
from tests.data import yolo_sets
from tests.data.test_yolo import config, flat, stem_of
from tests.data.yolo_sets import LAYOUTS, NAMES, PHOTOS, tree, write

#: Two cells by two of a net of 32 x 32.
CFG = (
    "[net]\nbatch=2\nsubdivisions=1\nwidth=32\nheight=32\nchannels=3\nlearning_rate=0.001\nmomentum=0.9\n"
    "decay=0.0005\nmax_batches=3\npolicy=constant\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
    "[convolutional]\nfilters=14\nsize=8\nstride=8\nactivation=linear\n"
    "[yolo]\nmask=0,1\nanchors=8,8,20,20\nclasses=2\nnum=2\n"
)


def options(raw, engine="torch", **data):
    darknet = {"name": "custom", "folder": None, "engine": engine, "crop": None, "map": True}
    return {"data": config(raw, **data), "darknet": darknet}


@pytest.mark.parametrize("engine", ["torch", "binary"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_program_finds_the_labels_and_nothing_is_written_beside_the_photos(tmp_path, layout, engine, capsys):
    raw = layout(tmp_path / "set")
    before = tree(tmp_path / "set")
    data = open_dataset(options(raw, engine), "detector", tmp_path / "run")
    assert tree(tmp_path / "set") == before
    assert data == read_darknet(tmp_path / "run/data")
    assert data.names == tuple(NAMES) and data.class_names == ("Happy", "Sad", "Angry")
    assert data.photos == {"train": 3, "val": 1, "test": 1}
    table = read_photos(data.folder).set_index("file")
    for split, listed in data.lists.items():
        for picture in read_list(listed):
            assert table.loc[str(picture), "split"] == split
            its, lines = PHOTOS[stem_of(table.loc[str(picture), "path"])]
            assert its == split
            # the same photo, and as the programs look for it the label file beside it
            assert picture.resolve().is_relative_to(tmp_path / "set") and cv2.imread(str(picture)) is not None
            label = picture.with_suffix(".txt")
            require_plain_labels(label)
            expected = [[float(number) for number in line.split()] for line in lines]
            assert read_labels(label, 3).tolist() == expected
            own = str(picture).removesuffix(picture.suffix)
            assert picture.suffix == ".jpg" and not any(trap in own for trap in LABEL_PATH_TRAPS)
    said = capsys.readouterr().out
    links = {yolo_sets.alexeyab: 0, yolo_sets.lists: 1, yolo_sets.roboflow_darknet: 1}.get(layout, 5)
    assert f"{5 - links} photos are read by their own paths, {links} by links with checked labels" in said
    # once more, as by another rank: what is there is taken
    times = tree(tmp_path / "run")
    assert open_dataset(options(raw, engine), "detector", tmp_path / "run") == data
    assert tree(tmp_path / "run") == times and capsys.readouterr().out == said


def test_faulty_labels_are_put_right_in_the_run_alone(tmp_path):
    texts = {
        "good": "0 0.5 0.5 0.2 0.4\n", "over": "0 0.1 0.5 0.4 0.4\n", "poly": "1 0.1 0.2 0.5 0.2 0.3 0.6\n",
        "twice": "0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4\n", "lost": "0 0.5 0.5 0.2 0.4\n9 0.5 0.5 0.1 0.1\n",
        "bom": b"\xef\xbb\xbf1 0.5 0.5 0.2 0.4\r\n", "bare": None,
    }  # fmt: skip
    root = flat(tmp_path / "set", texts, ["a", "b"])
    data = open_dataset(options(root, val_fraction=0.2), "detector", tmp_path / "run")
    table = read_photos(data.folder)
    read = {
        Path(path).stem: (read_labels(Path(file).with_suffix(".txt"), 2).round(9).tolist(), file.startswith(str(root)))
        for file, path in zip(table["file"], table["path"], strict=True)
    }
    assert read == {
        "good": ([[0, 0.5, 0.5, 0.2, 0.4]], True), "over": ([[0, 0.15, 0.5, 0.3, 0.4]], False),
        "poly": ([[1, 0.3, 0.4, 0.4, 0.4]], False), "twice": ([[0, 0.5, 0.5, 0.2, 0.4]], False),
        "bom": ([[1, 0.5, 0.5, 0.2, 0.4]], False), "bare": ([], False),
    }  # fmt: skip
    with open(tmp_path / "run/data/faults.csv") as file:
        faults = {(Path(row["file"]).name, row["line"], row["why"]) for row in csv.DictReader(file)}
    assert ("lost.txt", "2", "class that is none of 0..1") in faults and len(faults) == 5


def test_changed_labels_make_the_folder_anew_and_other_folders_stay(tmp_path):
    root = flat(tmp_path / "set", dict.fromkeys("abcdefghij", "0 0.5 0.5 0.2 0.4\n"))
    first = open_dataset(options(root), "detector", tmp_path / "run")
    assert first.photos == {"train": 9, "val": 1}
    write(root / "a.txt", "0 0.1 0.5 0.4 0.4\n")
    open_dataset(options(root), "detector", tmp_path / "run")
    assert len(list((tmp_path / "run/data/photos").rglob("*.txt"))) == 1
    write(tmp_path / "other/data/mine.txt", "mine")
    with pytest.raises(InputError, match="other/data: holds something that is no part of this run"):
        open_dataset(options(root), "detector", tmp_path / "other")
    assert (tmp_path / "other/data/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(margin=0.2), "data.margin=0.2: the boxes are taken as they are"),
        (dict(val_fraction=0.0), "has no photos to train on, or none to score checkpoints on"),
        (dict(raw=None), "data.raw is not set"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(tmp_path, changes, message):
    root = flat(tmp_path / "set", dict.fromkeys("abcdefghij", "0 0.5 0.5 0.2 0.4\n"))
    wrong = options(root)
    wrong["data"] |= changes
    with pytest.raises(InputError, match=message):
        open_dataset(wrong, "detector", tmp_path / "run")


def test_the_program_reads_no_webp_and_finds_no_links_below_a_trap(tmp_path):
    root = flat(tmp_path / "set", {"a": "0 0.5 0.5 0.2 0.4\n"} | dict.fromkeys("bcdefghij"))
    os.rename(root / "b.jpg", root / "b.webp")
    with pytest.raises(InputError, match=r"b.webp: the darknet program reads JPEG, PNG and BMP: give darknet.engine="):
        open_dataset(options(root, "binary"), "detector", tmp_path / "run")
    os.rename(root / "b.webp", root / "b.jpg")
    with pytest.raises(InputError, match="has 'images' in its path.*give another hydra.run.dir=FOLDER"):
        open_dataset(options(root, "binary"), "detector", tmp_path / "images/run")
    assert open_dataset(options(root), "detector", tmp_path / "images/run").photos == {"train": 9, "val": 1}


@pytest.mark.parametrize("layout", [yolo_sets.alexeyab, yolo_sets.roboflow, yolo_sets.lists])
def test_a_folder_of_theirs_is_told_from_one_of_ours(tmp_path, layout):
    raw = layout(tmp_path / "set")
    wrong = options(raw)
    wrong["darknet"]["folder"] = str(raw)
    with pytest.raises(InputError) as raised:
        open_dataset(wrong, "detector", tmp_path / "run")
    assert f"{raw}: a YOLO data set" in str(raised.value) and f"give data=yolo data.raw={raw} " in str(raised.value)


def test_a_detectors_folder_gets_wider_boxes_and_the_backgrounds(tmp_path):
    raw = yolo_sets.roboflow(tmp_path / "set")
    write(tmp_path / "set/train/labels/two_jpg.rf.0a1b2c3d.txt", "1 0.5 0.5 0.25 0.75\n5 0.5 0.5 0.1 0.1\n")
    summary = export(config(raw, margin=0.5), tmp_path / "out", "detector")
    # two: a face of it is not known
    assert summary["photos"] == {"train": 2, "val": 1, "test": 1}
    data = read_darknet(tmp_path / "out")
    assert data.names == ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger")
    labels = {
        stem_of(path): Path(file).with_suffix(".txt").read_text().splitlines()
        for file, path in read_photos(tmp_path / "out")[["file", "path"]].itertuples(index=False)
    }
    # 40 pixels and 10 more at each side; of 120 pixels 60, from 0; of 80 pixels 60, from 10
    assert labels["one"] == ["1 0.250000 0.500000 0.500000 0.750000", "6 0.750000 0.500000 0.500000 0.750000"]
    assert labels["none"] == []
    with open(f"{tmp_path}/out.skipped.csv") as file:
        assert [row["reason"] for row in csv.DictReader(file)] == [
            "class that is none of 0..2", "photo with a label that is lost"
        ]  # fmt: skip


def test_a_darknet_classifier_gets_faces_or_photos_of_one_class(tmp_path):
    raw = yolo_sets.roboflow(tmp_path / "set")
    faces = export(config(raw), tmp_path / "faces", "classifier", crop="face")
    assert faces["photos"] == {"train": 3, "val": 1, "test": 1}
    whole = export(config(raw), tmp_path / "whole", "classifier")
    # one: of two classes
    assert whole["photos"] == {"train": 1, "val": 1, "test": 1}
    assert whole["skipped"] == {"photo without faces": 1, "faces of several classes": 2}


def test_faces_of_a_classifier_are_cut_by_the_fractions(tmp_path):
    """A face that is one bright block must fill its crop."""
    image = np.zeros((60, 200, 3), np.uint8)
    image[15:45, 100:160] = 200
    (tmp_path / "set").mkdir()
    cv2.imwrite(str(tmp_path / "set/a.png"), image)
    write(tmp_path / "set/a.txt", "0 0.65 0.5 0.3 0.5\n")
    write(tmp_path / "set/classes.txt", "mask\nno mask\n")
    prepare(config(tmp_path / "set", color="grey", val_fraction=0.0), tmp_path / "a.h5")
    (face,) = read_column(tmp_path / "a.h5", "train", "image")
    assert face.min() == face.max() == 200


def train(run, home, raw, *more):
    write(home / "tiny.cfg", CFG)
    run(
        "train.py", "darknet=custom", "darknet.cfg=tiny.cfg", "data=yolo", f"data.raw={raw}",
        "hydra.run.dir=runs/one", "darknet.map=true", *more, cwd=home,
    )  # fmt: skip
    return home / "runs/one"


def report_of(out):
    return json.loads((out / "report.json").read_text())


@pytest.mark.slow
def test_torch_trains_on_it_and_scores_it(tmp_path, run):
    raw = yolo_sets.roboflow(tmp_path / "set")
    before = tree(tmp_path / "set")
    folder = train(run, tmp_path, raw, "darknet.engine=torch", "trainer.accelerator=cpu")
    weights = folder / "backup/tiny_final.weights"
    facts = json.loads((folder / "run.json").read_text())["darknet"]
    assert facts["data"] == "yolo" and facts["judged_by"] == "val"
    score = ("evaluate.py", f"ckpt={weights}", "darknet.engine=torch", "device=cpu")
    run(*score, "split=val", "out=val", cwd=tmp_path)
    # of another layout of the same photos: val has the one face of `three`
    other = yolo_sets.ultralytics(tmp_path / "other")
    run(*score, "split=test", "out=test", "data=yolo", f"data.raw={other}", cwd=tmp_path)
    val, test = report_of(tmp_path / "val"), report_of(tmp_path / "test")
    assert (val["faces"], val["photos"]) == (1, 1) and (test["faces"], test["photos"]) == (1, 1)
    assert [row["truths"] for row in val["per_class"]] == [0, 0, 1]
    assert [row["truths"] for row in test["per_class"]] == [1, 0, 0]
    assert test["file"] == str(other) and test["data"] == "yolo"
    assert tree(tmp_path / "set") == before
    # photos of its training are no test, under whatever list they stand
    write(tmp_path / "set/data.yaml", f"val: train/images\nnames: {NAMES}\n")
    done = run(*score, "split=val", "data=yolo", f"data.raw={raw}", cwd=tmp_path, code=2)
    assert "3 of its 3 photos are photos that" in done.stderr


@pytest.mark.darknet
def test_debians_program_trains_on_it_where_it_lies(tmp_path, run):
    # it ends with a segmentation fault where it finds no label file
    raw = yolo_sets.split_below(tmp_path / "set")
    before = tree(tmp_path / "set")
    folder = train(run, tmp_path, raw)
    assert tree(tmp_path / "set") == before
    run("evaluate.py", f"ckpt={folder}/backup/tiny_final.weights", "split=test", "data=yolo", f"data.raw={raw}",
        "out=test", cwd=tmp_path)  # fmt: skip
    assert report_of(tmp_path / "test")["faces"] == 1


@pytest.mark.slow
def test_a_classifier_trains_on_its_faces(tmp_path, run):
    texts = {f"{stem}{label}": f"{label} 0.5 0.5 0.6 0.9\n" for label in range(3) for stem in "abcdefgh"}
    root = flat(tmp_path / "set", texts, NAMES)
    data = ("data=yolo", f"data.raw={root}", "data.size=48")
    done = run("prepare.py", *data, cwd=tmp_path)
    assert "classes by their names: happiness -> Happy, sad -> Sad, Anger -> Angry" in done.stdout
    run("train.py", "debug=fast", *data, "model=vgg_small", "trainer=cpu", cwd=tmp_path)
