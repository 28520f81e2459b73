"""Preparing whole files: the original counts, formats that come back equal, killed runs, files that are not ours."""

import csv
import os
import signal
import subprocess
import sys
import time

import cv2
import h5py
import numpy as np
import pytest

from fer.data.preparation import backends as backend
from fer.data.preparation.prepare import prepare
from fer.data.preparation.sources import open_source
from fer.data.preparation.stage import Stage
from fer.data.preparation.summary import command_for, count_reasons
from fer.data.source import FaceFormat
from fer.data.storage.hdf5 import read_column, read_info
from fer.errors import InputError
from fer.labels import CLASSES
from tests.conftest import ROOT, write_tiny

COLUMNS = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
# AffectNet's training set by code 0..6, which sums to the original 283,901
AFFECTNET_TRAINING = [74874, 134415, 25459, 14090, 6378, 3803, 24882]
# FER2013 by class in its own order (Training, PublicTest), and PrivateTest's size
FER2013_TRAINING = [3995, 436, 4097, 7215, 4830, 3171, 4965]
FER2013_PUBLIC = [467, 56, 496, 895, 653, 415, 607]


def data(name, **changes):
    """A checked data config with the defaults of conf/data."""
    from hydra import compose, initialize_config_dir

    from fer.config.checks import check_data

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("prepare", [f"data={name}", *(f"data.{key}={value}" for key, value in changes.items())])
    return check_data(cfg.data)


def affectnet_folder(root, training, validation, size=64, box=(8, 8, 48, 48)):
    """An AffectNet folder in which every row shows the same photo; codes are repeated as the counts say."""
    photos = root / "Manually_Annotated_Images" / "1"
    photos.mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 255, (size, size), np.uint8)
    cv2.imwrite(str(photos / "a.png"), picture)
    for name, header, counts in (("training", True, training), ("validation", False, validation)):
        with open(root / f"{name}.csv", "w") as file:
            if header:
                file.write(COLUMNS + "\n")
            for code, n in enumerate(counts):
                file.write(f"1/a.png,{','.join(map(str, box))},,{code},0.1,0.2\n" * n)
    return root


def fer2013_csv(path, training, public, private, side=8):
    generator = np.random.default_rng(1)
    with open(path, "w") as file:
        file.write("emotion,pixels,Usage\n")
        for usage, counts in (("Training", training), ("PublicTest", public), ("PrivateTest", private)):
            for label, n in enumerate(counts):
                for _ in range(n):
                    pixels = " ".join(map(str, generator.integers(0, 256, side * side)))
                    file.write(f"{label},{pixels},{usage}\n")
    return path


def counts(path, split):
    info = read_info(path)
    return [sum(column) for column in zip(*info.counts[split].values(), strict=True)]


@pytest.mark.slow
def test_the_original_composition(tmp_path):
    # rows of the dropped classes 7..10 stand in between, as in the real csv
    training = [*AFFECTNET_TRAINING, 3750, 33088, 11645, 82414]
    affectnet = affectnet_folder(tmp_path / "affectnet", training, [500] * 11, size=8, box=(0, 0, 8, 8))
    fer2013 = fer2013_csv(tmp_path / "fer2013.csv", FER2013_TRAINING, FER2013_PUBLIC, [3589, 0, 0, 0, 0, 0, 0])
    out = tmp_path / "fer2021.h5"
    prepare(data("fer2021", affectnet=affectnet, fer2013=fer2013, size=8), out)
    info = read_info(out)
    assert [info.rows(split) for split in ("train", "val", "test")] == [316_110, 3_589, 3_589]
    assert sum(info.counts["train"]["affectnet"]) == 283_901 + 3_500
    assert sum(info.counts["train"]["fer2013"]) == 28_709
    # AffectNet's Neutral is class 6 here, its Happiness 3, its Anger 0
    in_fer2013_order = [24882, 3803, 6378, 134415, 25459, 14090, 74874]
    assert info.counts["train"]["affectnet"] == [n + 500 for n in in_fer2013_order]
    alone = tmp_path / "affectnet.h5"
    prepare(data("affectnet", raw=affectnet, size=8), alone)
    assert [read_info(alone).rows(split) for split in ("train", "val", "test")] == [283_901, 3_500, 3_500]
    assert np.array_equal(read_column(alone, "val", "row"), read_column(alone, "test", "row"))
    # merging works from prepared files too, and takes the validation rows once
    merged = tmp_path / "merged.h5"
    prepare(data("fer2021", affectnet=alone, fer2013=fer2013, size=8), merged)
    assert read_info(merged).counts == info.counts
    assert np.array_equal(read_column(merged, "train", "label"), read_column(out, "train", "label"))


@pytest.fixture
def small(tmp_path):
    affectnet = affectnet_folder(tmp_path / "affectnet", [5, 4, 3, 2, 2, 2, 2, 1], [2] * 8)
    fer2013 = fer2013_csv(tmp_path / "fer2013.csv", [3] * 7, [2] * 7, [1] * 7, side=48)
    return affectnet, fer2013


def test_a_prepared_file_describes_itself(small, tmp_path):
    affectnet, fer2013 = small
    out = tmp_path / "out.h5"
    prepare(data("fer2021", affectnet=affectnet, fer2013=fer2013), out)
    with h5py.File(out) as file:
        assert list(file) == ["test", "train", "val"]
        assert list(file.attrs["class_names"]) == list(CLASSES)
        assert list(file.attrs["sources"]) == ["affectnet", "fer2013"]
        assert (file.attrs["size"], file.attrs["color"], file.attrs["schema_version"]) == (48, "grey", 1)
        train = file["train"]
        assert train["image"].shape == (20 + 14 + 21, 48, 48) and train["image"].dtype == np.uint8
        assert train["path"].asstr()[0] == "1/a.png" and train["path"].asstr()[-1] == "20"
        assert train["valence"][0] == pytest.approx(0.1) and np.isnan(train["valence"][-1])
        assert train["box"][0].tolist() == [8, 8, 48, 48] and train["box"][-1].tolist() == [-1] * 4
    picture = cv2.imread(str(affectnet / "Manually_Annotated_Images/1/a.png"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(read_column(out, "train", "image")[0], picture[8:56, 8:56])
    # 34 training rows show the same photo
    assert read_info(out).duplicates["train"] == 33


@pytest.mark.parametrize("kind", ["raw", "virtual", "external link", "soft link", "whole split"])
def test_no_values_are_read_from_another_file(tmp_path, kind):
    file, secret = write_tiny(tmp_path / "a.h5", {"train": 7}), tmp_path / "secret"
    secret.write_bytes(b"password")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["train/path"] = np.array([b"password"])
    with h5py.File(file, "a") as opened:
        train = opened["train"]
        del train["path"]
        if kind == "raw":
            train.create_dataset("path", 1, "S8", external=[(str(secret), 0, 8)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(1, "S8")
            layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "train/path", 1, "S8")
            train.create_virtual_dataset("path", layout)
        elif kind == "whole split":
            del opened["train"]
            opened["train"] = h5py.ExternalLink(tmp_path / "other.h5", "train")
        else:
            soft = kind == "soft link"
            train["path"] = (
                h5py.SoftLink("/train/x") if soft else h5py.ExternalLink(tmp_path / "other.h5", "train/path")
            )
    with pytest.raises(InputError, match=r"a\.h5: the values of '.*' lie in another file, which is not read"):
        read_info(file)


def test_eight_classes_keep_contempt(small, tmp_path):
    prepare(data("affectnet", raw=small[0], contempt="true"), tmp_path / "out.h5")
    info = read_info(tmp_path / "out.h5")
    assert info.class_names[7] == "Contempt" and info.counts["train"]["affectnet"][7] == 1


def test_other_sizes_and_colours(small, tmp_path):
    prepare(data("affectnet", raw=small[0], size=96, color="rgb"), tmp_path / "out.h5")
    assert read_column(tmp_path / "out.h5", "val", "image").shape == (14, 96, 96, 3)


def test_photos_whose_names_are_not_utf8_are_skipped_and_listed_readably(tmp_path):
    raw = tmp_path / "faces"
    for name in ("cat/1.png", "cat/é.png", "dog/1.png"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(raw / name), np.full((48, 48), 9, np.uint8))
    names = {b"cat/\xff.png": (raw / "cat/1.png").read_bytes(), b"dog/\xfe.png": b"no picture", b"dog/\xfe.txt": b""}
    for name, content in names.items():
        with open(os.path.join(os.fsencode(raw), name), "wb") as file:
            file.write(content)
    prepare(data("folder", raw=raw, test_fraction=0, val_fraction=0), tmp_path / "out.h5")
    assert read_column(tmp_path / "out.h5", "train", "path").tolist() == ["cat/1.png", "cat/é.png", "dog/1.png"]
    rows = list(csv.reader((tmp_path / "out.h5.skipped.csv").read_text("utf-8").splitlines()))
    assert rows[0] == ["source", "path", "reason"]
    assert sorted(rows[1:]) == [
        ["faces", "cat/\\udcff.png", "name that is not UTF-8: rename the file"],
        ["faces", "dog/\\udcfe.png", "name that is not UTF-8: rename the file"],
        ["faces", "dog/\\udcfe.txt", "not an image file name"],
    ]


def test_csv_comes_back_equal(small, tmp_path):
    _, fer2013 = small
    prepare(data("fer2013", raw=fer2013), tmp_path / "a.h5")
    prepare(data("fer2013", raw=fer2013), tmp_path / "fer2021.csv", "csv")
    with open(tmp_path / "fer2021.csv") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["emotion", "pixels", "Usage"] and len(rows) == 1 + 21 + 14 + 7
    prepare(data("fer2013", raw=tmp_path / "fer2021.csv"), tmp_path / "b.h5")
    for split in ("train", "val", "test"):
        for column in ("image", "label"):
            assert np.array_equal(*(read_column(tmp_path / f, split, column) for f in ("a.h5", "b.h5")))


def test_folder_comes_back_equal(small, tmp_path):
    _, fer2013 = small
    prepare(data("fer2013", raw=fer2013), tmp_path / "a.h5")
    prepare(data("fer2013", raw=fer2013), tmp_path / "faces", "folder")
    prepare(data("folder", raw=tmp_path / "faces"), tmp_path / "b.h5")
    assert read_info(tmp_path / "b.h5").class_names == CLASSES
    for split in ("train", "val", "test"):
        # by class and file name, so in another order
        a, b = (set(read_column(tmp_path / f, split, "face").tolist()) for f in ("a.h5", "b.h5"))
        assert a == b
        assert counts(tmp_path / "a.h5", split) == counts(tmp_path / "b.h5", split)
    with pytest.raises(InputError, match="already exists"):
        prepare(data("fer2013", raw=fer2013), tmp_path / "faces", "folder")


def test_prepared_files_are_resized_when_merged(tmp_path):
    affectnet = write_tiny(
        tmp_path / "a.h5", {"train": 14, "val": 7, "test": 7}, FaceFormat(size=24), source="affectnet"
    )
    fer2013 = write_tiny(tmp_path / "f.h5", {"train": 7, "val": 7, "test": 7}, FaceFormat(size=12), source="fer2013")
    prepare(data("fer2021", affectnet=affectnet, fer2013=fer2013, size=12), tmp_path / "out.h5")
    assert read_column(tmp_path / "out.h5", "train", "image").shape == (14 + 7 + 7, 12, 12)
    expected = cv2.resize(read_column(affectnet, "train", "image")[3], (12, 12), interpolation=cv2.INTER_AREA)
    assert np.array_equal(read_column(tmp_path / "out.h5", "train", "image")[3], expected)


def test_unusable_rows_are_listed_and_nothing_usable_is_an_error(tmp_path):
    root = affectnet_folder(tmp_path / "a", [1], [1])
    (root / "Manually_Annotated_Images/1/empty.jpg").touch()
    with open(root / "training.csv", "a") as file:
        file.write("1/empty.jpg,0,0,9,9,,1,0,0\n1/gone.jpg,0,0,9,9,,1,0,0\n../up.jpg,0,0,9,9,,1,0,0\n")
    summary = prepare(data("affectnet", raw=root), tmp_path / "out.h5")
    with open(f"{summary['out']}.skipped.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["source"], row["path"][-9:], row["reason"]) for row in rows] == [
        ("affectnet", "empty.jpg", "zero bytes"),
        ("affectnet", "/gone.jpg", "missing file"),
        ("affectnet", "../up.jpg", "path leaves the data folder"),
    ]
    photo = root / "Manually_Annotated_Images/1/a.png"
    photo.rename(tmp_path / "a.png")
    counted = "no usable face .*: 3 missing file, 1 path leaves the data folder, 1 zero bytes; .*none.h5.skipped.csv"
    with pytest.raises(InputError, match=counted):
        prepare(data("affectnet", raw=root), tmp_path / "none.h5")
    assert not (tmp_path / "none.h5").exists()
    # what was missing is there now: the next run looks at every row again
    (tmp_path / "a.png").rename(photo)
    assert prepare(data("affectnet", raw=root), tmp_path / "none.h5")["counts"]["train"]["affectnet"][6] == 1


def test_reasons_are_printed_with_their_counts(run, tmp_path):
    picture = np.full((8, 8), 100, np.uint8)
    for name in ("raw/cat/a.png", "raw/dog/a.png", "outside/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name), picture)
    for number in range(12):
        (tmp_path / f"raw/cat/out{number}.png").symlink_to(tmp_path / "outside/a.png")
    (tmp_path / "raw/dog/note.txt").touch()
    done = run("prepare.py", "data=folder", f"data.raw={tmp_path / 'raw'}", f"out={tmp_path / 'o.h5'}")
    line = next(line for line in done.stdout.splitlines() if line.startswith("skipped"))
    assert line.startswith("skipped 13 rows (12 link leads out of the class folder, 1 not an image file name), listed")


@pytest.mark.parametrize("form", ["h5", "csv", "darknet_classifier"])
def test_faces_that_reach_over_the_edge_are_counted(run, tmp_path, form):
    # the drawn photo is 64 x 64: three training rows, and validation rows that are val and test
    root = affectnet_folder(tmp_path / "a", [3], [2], box=(30, -5, 48, 48))
    crop = ["crop=face"] if form == "darknet_classifier" else []
    done = run("prepare.py", "data=affectnet", f"data.raw={root}", f"format={form}", f"out={tmp_path / 'o'}", *crop)
    assert "note: 7 faces reach over the edge of their photo: what it lacks of them repeats the edge" in done.stdout


def test_a_reason_in_each_row_does_not_flood_the_summary():
    counted = count_reasons({f"unknown label '{number}'": 1 + (number == 7) for number in range(1000)})
    assert counted.startswith("2 unknown label '7', 1 unknown label '0', ")
    assert counted.endswith(", 990 of 990 other reasons")


@pytest.mark.slow
def test_a_killed_run_goes_on_without_decoding_twice(tmp_path, run, monkeypatch):
    fer2013 = fer2013_csv(tmp_path / "fer2013.csv", [1500] * 7, [20] * 7, [20] * 7, side=24)
    whole = tmp_path / "whole.h5"
    arguments = ["data=fer2013", f"data.raw={fer2013}", "data.size=96"]
    run("prepare.py", *arguments, f"out={whole}")
    out = tmp_path / "out.h5"
    out.write_bytes(b"an older file")
    started = subprocess.Popen(
        [sys.executable, ROOT / "prepare.py", *arguments, f"out={out}", "workers=1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stage = tmp_path / "out.h5.partial"
    deadline = time.time() + 60
    while len(list(stage.glob("*.npz"))) < 5 and time.time() < deadline:
        time.sleep(0.002)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert out.read_bytes() == b"an older file"
    finished = {path: path.stat().st_mtime_ns for path in stage.glob("*.npz")}
    # killed in the middle: some blocks are done, not all 42
    assert 5 <= len(finished) < 42
    decoded = []
    before = backend.save
    monkeypatch.setattr(backend, "save", lambda path, faces: decoded.append(path) or before(path, faces))
    summary = prepare(data("fer2013", raw=fer2013, size=96), out)
    assert not set(decoded) & set(finished)
    assert summary["counts"]["train"]["fer2013"] == [1500] * 7
    assert not stage.exists()
    with h5py.File(whole) as a, h5py.File(out) as b:
        for split in ("train", "val", "test"):
            for column in a[split]:
                assert np.array_equal(a[split][column][:], b[split][column][:])
        assert {k: v for k, v in a.attrs.items() if k != "class_names"}.keys() == {
            k for k in b.attrs if k != "class_names"
        }


@pytest.mark.parametrize("left", [b"", bytes(5000), b"PK\x03\x04 the beginning of a zip"])
def test_a_block_that_a_crash_of_the_machine_left_damaged_is_decoded_again(tmp_path, left):
    fer2013 = fer2013_csv(tmp_path / "fer2013.csv", [50] * 7, [1] * 7, [1] * 7)
    config, out = data("fer2013", raw=fer2013, size=8), tmp_path / "out.h5"
    stage = Stage(out, open_source(config).fingerprint())
    stage.fill(open_source(config), backend.local(1))
    first, second = sorted(stage.folder.glob("*.npz"))
    first.write_bytes(left)
    before = second.stat().st_mtime_ns
    again = Stage(out, open_source(config).fingerprint())
    again.fill(open_source(config), backend.local(1))
    assert again.counts.sum() == 52 * 7 and second.stat().st_mtime_ns == before
    assert sum(len(faces.label) for faces in again.blocks()) == 52 * 7


def test_other_options_start_again(tmp_path):
    fer2013 = fer2013_csv(tmp_path / "fer2013.csv", [1] * 7, [1] * 7, [1] * 7)
    stage = tmp_path / "out.h5.partial"
    stage.mkdir()
    (stage / "run.json").write_text("{}")
    (stage / "0000000.npz").write_bytes(b"left by another run")
    prepare(data("fer2013", raw=fer2013, size=8), tmp_path / "out.h5")
    assert read_info(tmp_path / "out.h5").rows("train") == 7


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all"])
def test_a_file_that_is_not_ours_is_refused(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match="x.h5: not a readable HDF5 file"):
        read_info(path)


def test_commands_that_make_a_file():
    assert command_for(data("fer2021")) == "fer prepare data=fer2021 data.affectnet=PATH data.fer2013=PATH"
    assert command_for(data("fer2013", raw="a.csv")) == "fer prepare data=fer2013 data.raw=a.csv"
    assert command_for(data("sample")) == "fer prepare data=sample"


def test_the_table_and_the_notes(small, tmp_path, run):
    affectnet, fer2013 = small
    done = run(
        "prepare.py",
        "data=fer2021",
        f"data.affectnet={affectnet}",
        f"data.fer2013={fer2013}",
        f"out={tmp_path / 'o.h5'}",
    )
    lines = done.stdout.splitlines()
    assert lines[0].split() == [*CLASSES, "all"]
    # neutral: 5 + 2 of AffectNet and 3 of FER2013
    assert lines[3].split() == ["train", "all", "7", "7", "7", "9", "8", "7", "10", "55"]
    assert any("Contempt" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=fer2013"], "error: data.raw is not set: say where the raw files lie with data.raw=PATH"),
        (["data=fer2013", "data.raw=nowhere"], "error: data.raw=nowhere: no such file or folder"),
        (["data=sample", "format=xml"], "error: format=xml: not one of h5, litdata, csv, folder"),
        (["data=sample", "data.color=blue"], "error: data.color=blue: not grey or rgb"),
        (["data=sample", "data.exif=turn"], "error: data.exif=turn: not apply or ignore"),
        (
            ["data=sample", "data.sise=48"],
            "error: there is no key data.sise (did you mean size?); valid in data: color, exif, file",
        ),
    ],
)
def test_bad_input_gives_one_line(run, tmp_path, arguments, message):
    done = run("prepare.py", *arguments, cwd=tmp_path, code=2)
    assert done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
