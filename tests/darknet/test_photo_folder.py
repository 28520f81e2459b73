"""Exports for the Darknet program: label lines worked by hand, traps in paths, killed runs, and the program itself.

Test names hold no label and none of images, raw, .jpg: they are part of the paths that are exported.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer.darknet.formats import photos
from fer.darknet.formats.export import export
from fer.darknet.formats.label_files import read_labels
from fer.darknet.formats.photo_folder import (
    check_path,
    darknet_command,
    darknet_folder,
    darknet_order,
    read_darknet,
    read_photos,
    spell,
)
from fer.darknet.formats.photos import group_photos, label_line
from fer.darknet.runs.setup import open_dataset
from fer.darknet.torch_engine.picture import read_picture
from fer.darknet.torch_engine.training.reading import open_photo
from fer.data.photos import PhotoRow
from fer.data.preparation.prepare import prepare
from fer.data.preparation.summary import count_table
from fer.data.source import BLOCK_ROWS, Block
from fer.data.storage.hdf5 import read_column
from fer.errors import InputError
from fer.labels import CLASSES, CLASSES_WITH_CONTEMPT, DARKNET
from tests.conftest import ROOT
from tests.data.test_prepare import AFFECTNET_TRAINING, affectnet_folder, data, fer2013_csv

HEADER = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
          "valence", "arousal"]  # fmt: skip


def release(root, training, validation=(), size=(100, 50)):
    """An AffectNet folder; rows are (path, x, y, width, height, code), photos width x height are made as named."""
    for name, rows in (("training", training), ("validation", validation)):
        with open(_parent(root / f"{name}.csv"), "w", newline="") as file:
            csv.writer(file).writerows([HEADER, *([*row[:5], "", row[5], 0, 0] for row in rows)])
        for row in rows:
            path = _parent(root / "Manually_Annotated_Images" / row[0])
            if not path.exists():
                cv2.imwrite(str(path), np.full((size[1], size[0], 3), 90, np.uint8))
    return root


def _parent(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def listed(folder, split):
    return read_darknet(folder).lists[split].read_text().splitlines()


def reasons(out):
    with open(f"{out}.skipped.csv") as file:
        return [(row["path"], row["reason"]) for row in csv.DictReader(file)]


def labels_beside(path):
    return open(os.path.splitext(path)[0] + ".txt").read().splitlines()


@pytest.mark.parametrize(
    ("box", "margin", "line"),
    [
        # x 10..50 of 100, y 20..40 of 50
        ((10, 20, 40, 20), 0, "3 0.300000 0.600000 0.400000 0.400000"),
        # 1.2 times as wide and high about the same centre: x 6..54, y 18..42
        ((10, 20, 40, 20), 0.2, "3 0.300000 0.600000 0.480000 0.480000"),
        # over the left and lower edge: x -10..20 is 0..20, y 30..60 is 30..50
        ((-10, 30, 30, 30), 0, "3 0.100000 0.800000 0.200000 0.400000"),
        # widened over every edge: all of it
        ((10, 5, 80, 40), 0.5, "3 0.500000 0.500000 1.000000 1.000000"),
        # not rounded to pixels: x 10.5..12, y 20.25..21.75
        ((10.5, 20.25, 1.5, 1.5), 0, "3 0.112500 0.420000 0.015000 0.030000"),
        # one third: x 0..100 of 100, y 0..50/3
        ((0, 0, 100, 50 / 3), 0, "3 0.500000 0.166667 1.000000 0.333333"),
        ((100, 0, 10, 10), 0, None),
        ((-10, 0, 10, 10), 0, None),
        # the margin alone would reach in
        ((-11, 0, 10, 10), 1.0, None),
        ((10, 10, 0, 10), 0, None),
        ((10, 10, 10, -1), 0, None),
        # nothing left in six decimals
        ((10.49999999, 10, 0.00000002, 10), 0, None),
    ],
)
def test_lines_worked_by_hand(box, margin, line):
    assert label_line(3, box, 100, 50, margin) == line


def test_faces_of_a_photo_stand_in_one_file_wherever_their_rows_are(tmp_path):
    rows = [
        ("1/a.png", 10, 20, 40, 20, 6),
        ("1/b.png", 0, 0, 50, 50, 0),
        ("2/a.png", 0, 0, 100, 50, 3),
        ("1/a.png", -10, 30, 30, 30, 1),
        ("1/a.png", 10, 20, 40, 20, 6),  # the same again
        ("1/a.png", 200, 20, 40, 20, 2),
        ("2/c.png", 100, 0, 5, 5, 2),
        ("1/b.png", 50, 0, 50, 50, 7),  # Contempt is dropped
    ]
    root = release(tmp_path / "affectnet", rows, [("3/v.png", 25, 0, 50, 50, 5)])
    out = tmp_path / "out"
    summary = export(data("affectnet", raw=root), out, "detector")
    first, second, third = listed(out, "train")
    assert [path[len(str(out)) :] for path in (first, second, third)] == [
        "/photos/000/0000000.png", "/photos/000/0000001.png", "/photos/000/0000002.png"
    ]  # fmt: skip
    # AffectNet's codes 0..6 are Darknet's class ids
    assert labels_beside(first) == ["6 0.300000 0.600000 0.400000 0.400000", "1 0.100000 0.800000 0.200000 0.400000"]
    assert labels_beside(second) == ["0 0.250000 0.500000 0.500000 1.000000"]
    assert labels_beside(third) == ["3 0.500000 0.500000 1.000000 1.000000"]
    assert reasons(out) == [("1/a.png", "box outside the photo"), ("2/c.png", "box outside the photo")]
    # the same photos are val and test, so one list is enough
    assert set(read_darknet(out).lists) == {"train", "test"}
    assert labels_beside(listed(out, "test")[0]) == ["5 0.500000 0.500000 0.500000 1.000000"]
    assert (out / "emotion.names").read_text().split() == list(DARKNET)
    assert (out / "emotion.data").read_text().replace(" ", "").split() == [
        "classes=7", "train=train.txt", "valid=test.txt", "names=emotion.names", "backup=backup"
    ]  # fmt: skip
    assert (out / "backup").is_dir()
    # the photos are the originals, under other names
    assert os.readlink(first) == str(root / "Manually_Annotated_Images/1/a.png")
    # Angry, Disgust, Fear, Happy, Sad, Surprise, Neutral
    assert summary["counts"]["train"]["affectnet"] == [1, 0, 0, 1, 0, 1, 1]
    assert summary["counts"]["val"] == summary["counts"]["test"] == {"affectnet": [0, 1, 0, 0, 0, 0, 0]}
    assert summary["photos"] == read_darknet(out).photos == {"train": 3, "test": 1}
    table = read_photos(out)
    assert table["file"].tolist() == [*listed(out, "train"), *listed(out, "test")]
    assert table["path"].tolist() == ["1/a.png", "1/b.png", "2/a.png", "3/v.png"]
    assert table["split"].tolist() == ["train", "train", "train", "val+test"]
    assert table["label"].tolist() == ["Angry+Happy", "Neutral", "Surprise", "Disgust"]


def test_boxes_are_enlarged_by_the_margin(tmp_path):
    root = release(tmp_path / "affectnet", [("1/a.png", 10, 20, 40, 20, 6)])
    export(data("affectnet", raw=root, margin=0.2), tmp_path / "out", "detector")
    assert labels_beside(listed(tmp_path / "out", "train")[0]) == ["6 0.300000 0.600000 0.480000 0.480000"]


def test_a_name_carries_one_class(tmp_path):
    rows = [
        ("1/a.png", 0, 0, 9, 9, 6), ("1/b.png", 0, 0, 9, 9, 1), ("1/a.png", 9, 9, 9, 9, 6), ("1/b.png", 9, 9, 9, 9, 2),
        ("2/a.png", 500, 500, 9, 9, 0),
    ]  # fmt: skip
    root = release(tmp_path / "affectnet", rows)
    out = tmp_path / "out"
    summary = export(data("affectnet", raw=root), out, "classifier", link="copy")
    # the whole photo, so a box outside it does not matter
    assert [path[len(str(out)) :] for path in listed(out, "train")] == [
        "/photos/000/0000000_anger.png", "/photos/000/0000002_neutral.png"
    ]  # fmt: skip
    assert reasons(out) == [("1/b.png", "faces of several classes")] * 2
    assert summary["counts"]["train"]["affectnet"] == [1, 0, 0, 0, 0, 0, 1]
    assert (out / "labels.txt").read_text().split() == [name.lower() for name in DARKNET]
    assert "top=5" in (out / "emotion-classifier.data").read_text().replace(" ", "")
    copied, original = listed(out, "train")[0], root / "Manually_Annotated_Images/1/a.png"
    assert not os.path.islink(copied) and open(copied, "rb").read() == original.read_bytes()
    found = read_darknet(out)
    assert found.names[6] == "anger" and found.class_names[6] == "Angry" and found.task == "classifier"


@pytest.mark.parametrize(
    ("class_names", "labels"),
    [
        (CLASSES_WITH_CONTEMPT, "neutral happy sad surprise fear disgust anger contempt"),
        (("Cat", "Big Dog"), "cat big-dog"),
        (("happy", "unhappy"), "class0 class1"),
        (("Cat", "cat"), "class0 class1"),
        (("1", "2"), "class0 class1"),
        (("pho", "dog"), "class0 class1"),
        (("愤怒", "dog"), "class0 class1"),
        (("jpg", *"abcdefghkl"), " ".join(f"class{i:02d}" for i in range(11))),
    ],
)
def test_no_spelling_stands_in_another(class_names, labels):
    found = spell(darknet_order(class_names), "classifier")
    assert found == tuple(labels.split())
    assert all(sum(label in f"/photos/012/0123456_{other}.jpg" for label in found) == 1 for other in found)


@pytest.mark.parametrize(
    ("folder", "task", "names", "part"),
    [
        ("/data/sad/x", "classifier", ("sad", "happy"), "sad"),
        ("/data/classification", "classifier", ("cat", "dog"), "cat"),
        ("/data/strangers", "classifier", ("anger",), "anger"),
        ("/data/sad/x", "detector", ("Sad",), None),
        ("/data/images2/x", "detector", ("Sad",), "images"),
        ("/data/JPEGImages/x", "detector", ("Sad",), "JPEGImages"),
        ("/data/drawn", "detector", ("Sad",), "raw"),
        ("/data/x.jpg.d", "detector", ("Sad",), ".jpg"),
        ("/data/drawn.jpg", "classifier", ("sad",), None),
        ("/data/a\nb", "classifier", ("sad",), "line break"),
    ],
)
def test_paths_that_the_program_misreads(folder, task, names, part):
    if part is None:
        check_path(folder, task, names)
    else:
        with pytest.raises(InputError, match=f"{part}.*give another out="):
            check_path(folder, task, names)


def test_a_trap_is_refused_before_any_work(tmp_path):
    root = release(tmp_path / "affectnet", [("1/a.png", 0, 0, 9, 9, 6)])
    with pytest.raises(InputError, match="has 'sad' in its path"):
        export(data("affectnet", raw=root), tmp_path / "sad" / "out", "classifier")
    pets = tmp_path / "pets"
    for name in ("cat/a.png", "dog/b.png"):
        cv2.imwrite(str(_parent(pets / name)), np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match="has 'cat' in its path"):
        export(data("folder", raw=pets, val_fraction=0, test_fraction=0), tmp_path / "classification", "classifier")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["affectnet", "pets"]


def test_own_classes_and_val_in_place_of_test(tmp_path):
    pets = tmp_path / "pets"
    for name in ("train/Cat/a.png", "train/Big Dog/b.png", "val/Cat/c.png", "val/Big Dog/d.png"):
        cv2.imwrite(str(_parent(pets / name)), np.zeros((9, 9), np.uint8))
    out = tmp_path / "an out"
    summary = export(data("folder", raw=pets), out, "classifier")
    found = read_darknet(out)
    assert found.names == ("big-dog", "cat") and found.class_names == ("Big Dog", "Cat")
    assert found.photos == {"train": 2, "test": 2} and "no test photos: those of val are test too" in summary["notes"]
    assert read_photos(out)["split"].tolist() == ["train", "train", "val+test", "val+test"]
    assert read_photos(out)["label"].tolist() == ["Big Dog", "Cat", "Big Dog", "Cat"]
    # no blank of a path stands in the .data, which the program would delete
    assert "an out" not in (out / "emotion-classifier.data").read_text()
    assert "top=2" in (out / "emotion-classifier.data").read_text().replace(" ", "")


def test_files_that_never_reach_a_list(tmp_path):
    names = ["good.png", "zero.jpg", "half.jpg", "wide.png", "heavy.png", "text.jpg", "bitmap.bmp", "turned.jpg",
             "upright.jpeg", "misnamed.png", "turned.png"]  # fmt: skip
    root = release(tmp_path / "affectnet", [(f"1/{name}", 1, 1, 9, 9, 0) for name in [*names, "gone.png"]])
    folder = root / "Manually_Annotated_Images/1"
    (folder / "gone.png").unlink()
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "half.jpg").write_bytes((folder / "half.jpg").read_bytes()[:-30])
    cv2.imwrite(str(folder / "wide.png"), np.zeros((101, 100), np.uint8))
    cv2.imwrite(str(folder / "heavy.png"), np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8))
    (folder / "text.jpg").write_text("no picture")
    for name, orientation in (("turned.jpg", 6), ("upright.jpeg", 1), ("turned.png", 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("L", (40, 20)).save(folder / name, exif=exif)
    os.replace(shutil.copy(folder / "upright.jpeg", tmp_path / "j"), folder / "misnamed.png")
    out = tmp_path / "out"
    export(data("affectnet", raw=root, max_pixels=10_000, max_bytes=16_000), out, "detector")
    # the ending is by content
    taken = ["0000000.png", "0000007.png", "0000008.jpg", "0000009.jpg", "0000010.png"]
    assert [path[-11:] for path in listed(out, "train")] == taken
    labels = [f"{name[:7]}.txt" for name in taken]
    assert sorted(p.name for p in (out / "photos/000").iterdir()) == sorted([*taken, *labels])
    assert reasons(out) == [
        ("1/zero.jpg", "zero bytes"), ("1/half.jpg", "truncated"), ("1/wide.png", "too many pixels"),
        ("1/heavy.png", "larger than data.max_bytes"), ("1/text.jpg", "not an image"),
        ("1/bitmap.bmp", "neither JPEG nor PNG"), ("1/gone.png", "missing file"),
    ]  # fmt: skip
    for name in ("good.png", "upright.jpeg", "misnamed.png", "turned.jpg", "turned.png"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="no usable photo .*none.skipped.csv"):
        export(data("affectnet", raw=root, max_pixels=10_000, max_bytes=16_000), tmp_path / "none", "detector")
    assert not (tmp_path / "none").exists() and not (tmp_path / "none.partial").exists()


@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_photo_has_its_box_in_the_same_place_in_all_formats(tmp_path, exif, orientation):
    stored = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    tag = Image.Exif()
    tag[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=tag)
    (tmp_path / "list.csv").write_text("path,label,split,x,y,width,height\na.png,cat,train,4,8,16,16\n")
    # EXIF 2.3, 4.6.4: 3 is turned by 180 degrees, 6 by 90 clockwise, 8 by 90 anticlockwise
    seen = np.rot90(stored, {3: 2, 6: 3, 8: 1}[orientation]) if exif == "apply" else stored
    config = data("csv", raw=tmp_path / "list.csv", size=16, color="rgb", val_fraction=0, exif=exif)
    prepare(config, tmp_path / "a.h5")
    face = seen[8:24, 4:20]
    np.testing.assert_array_equal(read_column(tmp_path / "a.h5", "train", "image")[0], face)
    summary = export(config, tmp_path / "detector", "detector")
    (photo,) = listed(tmp_path / "detector", "train")
    np.testing.assert_array_equal(read_picture(Path(photo)), seen)
    np.testing.assert_array_equal(open_photo(photo), seen)
    height, width = seen.shape[:2]
    label = Path(photo).with_suffix(".txt").read_text().split()
    assert label == ["0", *(f"{n:.6f}" for n in (12 / width, 16 / height, 16 / width, 16 / height))]
    assert os.path.islink(photo) == (exif == "ignore")
    said = "1 photo is turned by its EXIF orientation: written upright, as PNG" in summary["notes"]
    assert said == (exif == "apply")
    export(config, tmp_path / "faces", "classifier", crop="face")
    np.testing.assert_array_equal(read_picture(Path(listed(tmp_path / "faces", "train")[0])), face)


def test_a_folder_is_never_written_over(tmp_path):
    root = release(tmp_path / "affectnet", [("1/a.png", 0, 0, 9, 9, 6)])
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"no complete Darknet export.*`fer prepare data=NAME format=darknet"):
        read_darknet(out)
    export(data("affectnet", raw=root), out, "detector")
    with pytest.raises(InputError, match="already exists and is not an empty folder"):
        export(data("affectnet", raw=root), out, "classifier")
    out.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="was made as .*out and its lists hold that path"):
        read_darknet(tmp_path / "moved")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine").touch()
    with pytest.raises(InputError, match="already exists"):
        export(data("affectnet", raw=root), tmp_path / "foreign", "detector")


def test_data_without_boxes_or_photos(tmp_path):
    pets = tmp_path / "pets"
    for name in ("happy/a.png", "sad/b.png"):
        cv2.imwrite(str(_parent(pets / name)), np.zeros((9, 9), np.uint8))
    own = data("folder", raw=pets, val_fraction=0, test_fraction=0)
    pixels = data("fer2013", raw=fer2013_csv(tmp_path / "fer2013.csv", [1] * 7, [1] * 7, [1] * 7, side=48))
    merged = data("fer2021", affectnet=release(tmp_path / "a", [("1/a.png", 0, 0, 9, 9, 0)]), fer2013=pixels["raw"])
    for config, task, crop, message in [
        (own, "detector", "photo", "data=folder has no boxes.*: use format=darknet_classifier$"),
        (pixels, "detector", "photo", "data=fer2013 has no boxes.*: use format=darknet_classifier crop=face$"),
        (pixels, "classifier", "photo", "data=fer2013 is not all photo files: use crop=face"),
        (merged, "classifier", "photo", "data=fer2021 is not all photo files: use crop=face, or data=affectnet"),
        (own, "detector", "face", "crop=face leaves nothing to detect"),
        (own, "classifier", "ear", "crop=ear: not one of photo, face"),
    ]:
        with pytest.raises(InputError, match=message):
            export(config, tmp_path / "out", task, crop)
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="link=hard: not one of symlink, copy"):
        export(own, tmp_path / "out", "classifier", link="hard")
    export(merged, tmp_path / "out", "classifier", "face")
    assert read_darknet(tmp_path / "out").photos == {"train": 8, "val": 7, "test": 7}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A checked config of 60 sample photos."""
    return data("sample", raw=tmp_path_factory.mktemp("faces") / "set", photos=60)


def test_faces_are_those_of_the_prepared_file(sample, tmp_path):
    summary = export(sample, tmp_path / "out", "classifier", "face")
    store = tmp_path / "store.h5"
    expected = prepare(sample, store)
    for key in ("counts", "skipped", "notes", "class_names", "drawn"):
        assert summary[key] == expected[key]
    table = read_photos(tmp_path / "out")
    for split in ("train", "val", "test"):
        rows = table[table["split"] == split]
        images = np.stack([cv2.imread(file, cv2.IMREAD_UNCHANGED) for file in rows["file"]])
        assert np.array_equal(images, read_column(store, split, "image"))
        assert [CLASSES.index(label) for label in rows["label"]] == read_column(store, split, "label").tolist()
    assert read_darknet(tmp_path / "out").drawn


def test_whole_photos_are_judged_as_for_a_prepared_file(sample, tmp_path):
    expected = prepare(sample, tmp_path / "store.h5")
    summary = export(sample, tmp_path / "out", "detector")
    assert summary["counts"] == expected["counts"] and summary["skipped"] == expected["skipped"]
    assert sorted(reasons(tmp_path / "out")) == sorted(reasons(tmp_path / "store.h5"))


def test_a_face_in_two_splits_is_written_once(tmp_path):
    box = (10, 10, 30, 30)
    # a row may be repeated: each stands for itself in both splits
    validation = [("1/v.png", *box, 1), ("1/v.png", *box, 1), ("1/w.png", *box, 2)]
    root = release(tmp_path / "affectnet", [("1/a.png", *box, 0)], validation)
    export(data("affectnet", raw=root, color="rgb", size=16), tmp_path / "out", "classifier", "face")
    assert read_photos(tmp_path / "out")["split"].tolist() == ["train", *["val+test"] * 3]
    assert read_darknet(tmp_path / "out").photos == {"train": 1, "test": 3}
    # a prepared file holds such rows once a split
    store = tmp_path / "store.h5"
    prepare(data("affectnet", raw=root, color="rgb", size=16), store)
    export(data("affectnet", raw=store, color="rgb", size=16), tmp_path / "again", "classifier", "face")
    assert listed(tmp_path / "again", "test")[0].endswith("photos/000/0000001_happy.png")
    assert read_darknet(tmp_path / "again").photos == {"train": 1, "test": 3}


def linked_release(root, counts, validation=(), twins=1):
    """An AffectNet folder with a link to one tiny photo for every row (or every ``twins`` rows) of codes 0, 1, ..."""
    affectnet_folder(root, [], [], size=16)
    folder = root / "Manually_Annotated_Images" / "1"
    number = 0
    for name, numbers in (("training", counts), ("validation", validation)):
        number += -number % twins  # no photo is in both
        with open(root / f"{name}.csv", "w") as file:
            file.write(",".join(HEADER) + "\n")
            for code, n in enumerate(numbers):
                for _ in range(n):
                    if number % twins == 0:
                        os.symlink(folder / "a.png", folder / f"{number // twins}.png")
                    y, x = divmod(number % twins, 10)
                    file.write(f"1/{number // twins}.png,{x},{y},6,6,,{code},0,0\n")
                    number += 1
    return root


def test_4_096_rows_take_four_times_the_work_of_1_024(tmp_path):
    def calls(rows):
        """Python and C functions called in all threads by an export of some rows, two faces a photo."""
        root = linked_release(tmp_path / f"a{rows}", [rows], twins=2)
        config, counted = data("affectnet", raw=root), [0]

        def count(frame, event, argument):
            counted[0] += event in ("call", "c_call")

        threading.setprofile(count)
        sys.setprofile(count)
        try:
            export(config, tmp_path / f"o{rows}", "detector", workers=1)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        assert read_darknet(tmp_path / f"o{rows}").photos == {"train": rows // 2}
        return counted[0]

    assert calls(4096) < 4.2 * calls(1024)


def test_grouping_compares_each_row_about_once():
    compared = [0]

    class Name(str):
        def __hash__(self):
            return super().__hash__()

        def __eq__(self, other):
            compared[0] += 1
            return super().__eq__(other)

    class Rows:
        def blocks(self):
            # the faces of a photo are 5,000 rows apart
            rows = [PhotoRow("s", f"{i % 5000}", Name(i % 5000), ("train",), 0, (0, 0, 1, 1)) for i in range(10_000)]
            for start in range(0, len(rows), BLOCK_ROWS):
                yield Block(rows[start : start + BLOCK_ROWS], 1.0)

    found, skipped = group_photos(Rows(), "detector", "own", lambda done: None)
    assert [len(photo.faces) for photo in found] == [2] * 5000 and not skipped
    # one for each second face, and the few names whose hashes collide
    assert 5000 <= compared[0] < 5100


def tree(folder):
    """All files of an export with what is in them; its own path is left out."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes().replace(os.fsencode(folder), b"OUT")
        for path in folder.rglob("*")
        if not path.is_dir()
    }


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detector", "classifier"])
def test_a_killed_run_goes_on(tmp_path, task, monkeypatch):
    root = linked_release(tmp_path / "affectnet", [1500] * 3, [200])
    (root / "Manually_Annotated_Images/1/77.png").unlink()
    config = data("affectnet", raw=root)
    whole = tmp_path / "whole"
    export(config, whole, task)
    out = tmp_path / "out"
    started = subprocess.Popen(
        [sys.executable, ROOT / "prepare.py", "data=affectnet", f"data.raw={root}", f"format=darknet_{task}",
         f"out={out}", "workers=1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    progress = tmp_path / "out.partial" / "photos.jsonl"
    deadline = time.time() + 60
    while not (progress.is_file() and progress.read_bytes().count(b"\n") >= 3) and time.time() < deadline:
        time.sleep(0.002)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert not out.exists()
    done = progress.read_bytes().count(b"\n")
    # killed in the middle: some blocks are done, not all 19
    assert 3 <= done < 19
    # and in the middle of a line
    with open(progress, "a") as file:
        file.write('[["png", 16')
    looked = []
    monkeypatch.setattr(
        "fer.darknet.formats.export.inspect_photo",
        lambda file, limits: looked.append(file) or photos.inspect_photo(file, limits),
    )
    export(config, out, task)
    assert len(looked) == 4700 - done * BLOCK_ROWS
    assert tree(out) == tree(whole)
    assert not progress.parent.exists()


@pytest.mark.slow
def test_the_original_counts(tmp_path):
    # 283,901 training faces and 3,500 validation faces; a hundred a photo keep a detector's files few. A classifier has
    # a file a face, so a tenth of them.
    in_fer2013_order = [24882, 3803, 6378, 134415, 25459, 14090, 74874]
    for task, twins, part in (("detector", 100, 1), ("classifier", 1, 10)):
        training = [n // part for n in AFFECTNET_TRAINING]
        root = linked_release(tmp_path / f"affectnet-{task}", [*training, 100], [500 // part] * 7, twins)
        summary = export(data("affectnet", raw=root), tmp_path / task, task)
        assert summary["counts"]["train"]["affectnet"] == [n // part for n in in_fer2013_order]
        assert summary["counts"]["test"]["affectnet"] == [500 // part] * 7
    # 2,488 + 380 + 637 + 13,441 + 2,545 + 1,409 + 7,487
    assert summary["photos"] == {"train": 28_387, "test": 350}
    table = read_photos(tmp_path / "classifier")
    assert len(table) == table["file"].nunique() == 28_737
    assert listed(tmp_path / "classifier", "train") == table["file"].tolist()[:28_387]


def test_from_the_command_line(tmp_path, run):
    arguments = ["prepare.py", "data=sample", "data.photos=60", "data.raw=set", "data.file=x/f.h5"]
    done = run(*arguments, "format=darknet_classifier", "crop=face", cwd=tmp_path)
    config = data("sample", photos=60, raw="set", file="x/f.h5")
    assert str(darknet_folder(config, "classifier", "face")) == "x/sample-classifier-48-grey"
    found = read_darknet(tmp_path / "x/sample-classifier-48-grey")
    lines = done.stdout.splitlines()
    assert lines[0] == "These are drawn sample data, not photos of people."
    assert lines[1].split() == [*CLASSES, "all"]
    listed_counts = ", ".join(f"{split} {n}" for split, n in found.photos.items())
    assert f"photos in the lists: {listed_counts}" in lines and lines[-1] == "wrote x/sample-classifier-48-grey"
    done = run(*arguments, "format=darknet_detector", "crop=face", cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: crop=face leaves nothing to detect") and done.stderr.count("\n") == 1


def test_commands_that_make_a_folder():
    affectnet = data("affectnet", raw="A")
    assert darknet_command(affectnet, "detector", "photo") == (
        "fer prepare data=affectnet data.raw=A format=darknet_detector"
    )
    assert darknet_command(data("sample"), "classifier", "face") == (
        "fer prepare data=sample format=darknet_classifier crop=face"
    )
    assert str(darknet_folder(affectnet, "detector", "photo")) == "data/affectnet-detector"


def test_the_table_of_counts_is_the_usual_one(tmp_path):
    root = release(tmp_path / "affectnet", [("1/a.png", 0, 0, 9, 9, 6)])
    summary = export(data("affectnet", raw=root), tmp_path / "out", "detector")
    assert count_table(summary["counts"], summary["class_names"]).split()[-8:] == [*"1000000", "1"]
    assert json.loads((tmp_path / "out/darknet.json").read_text())["made_by"]["name"] == "affectnet"
    assert isinstance(read_photos(tmp_path / "out"), pd.DataFrame)


NET = """[net]
batch=4
subdivisions=1
width=32
height=32
channels=3
max_batches=40
learning_rate=0.0001
policy=constant
[convolutional]
filters={filters}
size=3
stride=4
pad=1
activation=linear
"""


def darknet(folder, *arguments):
    # line by line, as a program that ends with a segmentation fault would keep its last lines to itself
    done = subprocess.run(
        ["stdbuf", "-oL", "darknet", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return done.stdout, done.stderr


@pytest.mark.darknet
@pytest.mark.parametrize("crop", ["photo", "face"])
def test_debians_program_finds_the_class_of_each_photo(sample, tmp_path, crop):
    out = tmp_path / "out"
    export(sample, out, "classifier", crop)
    (out / "n.cfg").write_text(NET.format(filters=7) + "[avgpool]\n[softmax]\ngroups=1\n")
    stdout, _ = darknet(out, "classifier", "valid", "emotion-classifier.data", "n.cfg")
    rows = [line.split(", ") for line in stdout.splitlines() if line.startswith("/")]
    found = read_darknet(out)
    table = read_photos(out).set_index("file")
    assert [row[0] for row in rows] == listed(out, "val")
    for path, class_id, *_ in rows:
        assert found.class_names[int(class_id)] == table.loc[path, "label"]
    stdout, stderr = darknet(out, "classifier", "train", "emotion-classifier.data", "n.cfg")
    assert "\n40, " in stdout and (out / "backup" / "n.weights").is_file()
    assert "Too many or too few labels" not in stdout + stderr and "Couldn't open" not in stdout + stderr
    # the complaint that was looked for is one that this program makes
    (out / "labels.txt").write_text("nowhere\n" * 7)
    stdout, stderr = darknet(out, "classifier", "train", "emotion-classifier.data", "n.cfg")
    assert "Too many or too few labels" in stdout + stderr


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\ufeff{}", "a byte order mark"), ("{}\n1.0 0.5 0.5 0.2 0.2", "'1.0 0.5 0.5 0.2 0.2'"),
        ("{}\n1 0.5 0.5 0.2 0.2_5", "'1 0.5 0.5 0.2 0.2_5'"), ("{}\n1\u00a00.5 0.5 0.2 0.2", "'1\\xa00.5 0.5 0.2 0.2'"),
    ],
)  # fmt: skip
def test_labels_that_only_we_read_are_refused_for_the_program(sample, tmp_path, line, shown):
    export(sample, tmp_path / "out", "detector")
    options = {"folder": str(tmp_path / "out"), "crop": None, "name": "v4_tiny", "engine": "binary", "map": False}
    config = {"data": sample, "darknet": options}
    for split in ("train", "val"):
        path = Path(listed(tmp_path / "out", split)[0]).with_suffix(".txt")
        before = path.read_text()
        path.write_text(before.rstrip("\n") + "  \n\n")
        assert open_dataset(config, "detector", tmp_path).task == "detector"
        path.write_text(line.format("1 0.5 0.5 0.2 .2"), "utf-8")
        read = read_labels(path, 7)
        assert read[0].tolist() == [1, 0.5, 0.5, 0.2, 0.2] and (read[:, 0] == 1).all()
        # the photos that score it are the program's to read with its own -map only
        mapped = config | {"darknet": options | {"map": split == "val"}}
        number = line.count("\n") + 1
        with pytest.raises(InputError) as raised:
            open_dataset(mapped, "detector", tmp_path)
        assert str(raised.value).startswith(f"{path}, line {number}: {shown}: the darknet program would misread it: ")
        assert (
            open_dataset(config | {"darknet": options | {"engine": "torch"}}, "detector", tmp_path).task == "detector"
        )
        path.write_text(before)


def test_another_number_of_photos_is_said_to_change_nothing(sample, tmp_path, capsys):
    export(sample, tmp_path / "out", "detector")
    options = {"folder": str(tmp_path / "out"), "crop": None, "name": "v4_tiny", "engine": "torch", "map": False}
    capsys.readouterr()
    open_dataset({"data": sample, "darknet": options}, "detector", tmp_path)
    assert capsys.readouterr().out == ""
    open_dataset({"data": sample | {"photos": 61}, "darknet": options}, "detector", tmp_path)
    assert capsys.readouterr().out == (
        f"note: data.photos=61 changes nothing: {tmp_path}/out is there, of 60 photos; take it away to have others\n"
    )


@pytest.mark.darknet
def test_debians_program_finds_the_label_files(sample, tmp_path):
    out = tmp_path / "out"
    export(sample, out, "detector")
    (out / "n.cfg").write_text(NET.format(filters=12) + "[yolo]\nmask=0\nanchors=10,10\nclasses=7\nnum=1\njitter=.1\n")
    stdout, stderr = darknet(out, "detector", "train", "emotion.data", "n.cfg")
    assert "Couldn't open" not in stdout + stderr
    # how many boxes it found in each batch: four photos of one to three faces, some of which its cropping cuts off
    counts = [int(line.rpartition("count: ")[2]) for line in stdout.splitlines() if "count: " in line]
    assert len(counts) == 40 and all(2 <= n <= 12 for n in counts)
    # what `require_plain_labels` refuses is what this program does not read
    labels = [Path(path).with_suffix(".txt") for path in listed(out, "train")]
    for path in labels:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    stdout, _ = darknet(out, "detector", "train", "emotion.data", "n.cfg")
    assert {int(line.rpartition("count: ")[2]) for line in stdout.splitlines() if "count: " in line} == {0}
    for path in listed(out, "train"):
        os.unlink(os.path.splitext(path)[0] + ".txt")
    stdout, stderr = darknet(out, "detector", "train", "emotion.data", "n.cfg")
    assert "Couldn't open file" in stdout + stderr


@pytest.mark.parametrize(
    "change",
    [
        {"task": "x"}, {"names": "ab"}, {"names": ["Sad"]}, {"class_names": [1]}, {"drawn": "no"}, {"photos": {}},
        {"lists": {"train": "../../list"}}, {"photos": {"train": -1}}, {"made_by": {"margin": "x"}},
        {"made_by": {"color": "blue"}},
    ],
)  # fmt: skip
def test_a_darknet_json_that_export_does_not_write_is_refused(tmp_path, change):
    mark = {
        "task": "detector", "names": ["Sad", "Happy"], "class_names": ["Sad", "Happy"], "folder": str(tmp_path),
        "lists": {"train": "train.txt"}, "photos": {"train": 2}, "data": "folder", "drawn": False, "made_by": {},
    }  # fmt: skip
    (tmp_path / "darknet.json").write_text(json.dumps(mark))
    assert read_darknet(tmp_path).names == ("Sad", "Happy")
    for content in (json.dumps(mark | change), json.dumps(mark)[:-1]):
        (tmp_path / "darknet.json").write_text(content)
        with pytest.raises(InputError, match=r"darknet.json: is damaged, or no file of .*: make the folder anew"):
            read_darknet(tmp_path)
