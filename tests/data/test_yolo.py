"""YOLO data sets: the public layouts in miniature, every fault of a label line, and paths that lead elsewhere."""

import codecs
import os
import time

import numpy as np
import pytest

from fer.data.preparation.prepare import prepare
from fer.data.preparation.sources import open_source
from fer.data.readers.yolo.dataset import read_yolo, write_faults
from fer.data.readers.yolo.labels import parse_labels
from fer.data.readers.yolo.layouts import recognised
from fer.data.readers.yolo.source import yolo_source
from fer.data.source import FaceFormat, PhotoLimits
from fer.data.storage.hdf5 import read_column, read_info
from fer.errors import InputError
from fer.labels import CLASSES
from tests.data import yolo_sets
from tests.data.yolo_sets import LAYOUTS, NAMES, PHOTOS, photo, write


def stem_of(path):
    return os.path.basename(path).split(".")[0].removesuffix("_jpg")


def config(raw, **changes):
    """The keys of conf/data/yolo.yaml as they are checked."""
    return {
        "name": "yolo", "raw": str(raw), "names": None, "images": None, "classes": None, "size": 20, "color": "rgb",
        "margin": 0.0, "val_fraction": 0.1, "test_fraction": 0.0, "min_bytes": 0, "max_bytes": None,
        "max_pixels": 10**8, "exif": "apply", "seed": 0, "file": "data/yolo.h5",
    } | changes  # fmt: skip


def flat(root, labels, names=("face",), ending=".jpg"):
    """A folder of photos with .txt beside; ``labels`` are the texts or bytes of the label files, by stem."""
    for stem, text in labels.items():
        photo(root / f"{stem}{ending}")
        if text is not None:
            path = write(root / f"{stem}.txt", "")
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    write(root / "classes.txt", "".join(f"{name}\n" for name in names))
    return root


def kinds(data):
    """Return the faults but those of photos without labels, which are no fault of a background."""
    return [fault for fault in data.faults if "background" not in fault.why]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_photos_are_read_from_every_layout(tmp_path, layout):
    raw = layout(tmp_path / "set")
    data = read_yolo(raw)
    assert list(data.names) == NAMES
    assert list(data.splits) == ["train", "val", "test"]
    read = {stem_of(photo.path): (split, photo) for split, photos in data.splits.items() for photo in photos}
    assert {stem: split for stem, (split, _) in read.items()} == {stem: split for stem, (split, _) in PHOTOS.items()}
    for stem, (_, lines) in PHOTOS.items():
        labels = read[stem][1].labels
        expected = [[float(number) for number in line.split()] for line in lines]
        assert labels.boxes.tolist() == expected and not labels.lost and not labels.odd
        assert os.path.isfile(read[stem][1].file)
    assert kinds(data) == []
    # only the photo without faces may lack a label file
    assert [stem_of(fault.file) for fault in data.faults] == ([] if layout is yolo_sets.alexeyab else ["none"])
    assert recognised(raw)


def test_where_paths_were_found_is_said(tmp_path, monkeypatch):
    notes = " ".join(read_yolo(yolo_sets.alexeyab(tmp_path / "a")).notes)
    assert f"paths were found by the folder above, {tmp_path}/a/darknet" in notes
    notes = " ".join(read_yolo(yolo_sets.lists(tmp_path / "b")).notes)
    assert "5 paths were found by the end of an absolute path" in notes
    # from where darknet was started
    raw = yolo_sets.alexeyab(tmp_path / "c")
    moved = tmp_path / "cfgs/deep/obj.data"
    moved.parent.mkdir(parents=True)
    raw.rename(moved)
    with pytest.raises(InputError, match=r"train: data/train.txt: there is no such list"):
        read_yolo(moved)
    monkeypatch.chdir(tmp_path / "c/darknet")
    data = read_yolo(moved)
    assert [len(photos) for photos in data.splits.values()] == [3, 1, 1]
    assert "the folder this was started in" in " ".join(data.notes)


@pytest.mark.parametrize(
    ("line", "why", "boxes", "lost"),
    [
        ("0 0.5 0.5 0.2 0.4", None, [[0, 0.5, 0.5, 0.2, 0.4]], False),
        ("3 0.5 0.5 0.2 0.4", "class that is none of 0..2", [], True),
        ("-1 0.5 0.5 0.2 0.4", "class that is none of 0..2", [], True),
        ("1.5 0.5 0.5 0.2 0.4", "class that is none of 0..2", [], True),
        ("0 nan 0.5 0.2 0.4", "number that is not finite", [], True),
        ("0 0.5 0.5 inf 0.4", "number that is not finite", [], True),
        ("0 60 40 24 32", "numbers that look like pixels, not fractions of the photo", [], True),
        ("0 0.5 0.5 0 0.4", "size of zero: no face", [], False),
        ("0 0.5 0.5 0.2 -0.4", "negative size", [], True),
        # from -0.1 to 0.3 across: 0 to 0.3
        ("0 0.1 0.5 0.4 0.4", "box over the edge: cut to the photo", [[0, 0.15, 0.5, 0.3, 0.4]], False),
        # from 0.8 to 1.4 down: 0.8 to 1
        ("1 0.5 1.1 0.2 0.6", "box over the edge: cut to the photo", [[1, 0.5, 0.9, 0.2, 0.2]], False),
        ("0 1.5 0.5 0.4 0.4", "box outside the photo", [], True),
        # rounding alone: half of 0.333333 is 0.1666665
        ("0 0.166666 0.5 0.333333 0.4", None, [[0, 0.166666, 0.5, 0.333333, 0.4]], False),
        ("0 0.1 0.2 0.5 0.2 0.3 0.6", "polygon: its box is taken", [[0, 0.3, 0.4, 0.4, 0.4]], False),
        ("2 0 0 1 0 1 1 0 1", "polygon: its box is taken", [[2, 0.5, 0.5, 1, 1]], False),
        ("0 0.5 0.5 0.2", "not `class cx cy width height`", [], True),
        ("0 0.5 0.5 0.2 0.4 0.99", "not `class cx cy width height`", [], True),
        ("0,0.5,0.5,0.2,0.4", "not `class cx cy width height`", [], True),
        ("0 0,5 0,5 0,2 0,4", "not `class cx cy width height`", [], True),
        ("0 0.5 0.5 0.2 0.4_1", "not `class cx cy width height`", [], True),
        ("face 0.5 0.5 0.2 0.4", "not `class cx cy width height`", [], True),
    ],
)
def test_every_fault_of_a_label_line_has_its_line_and_its_word(tmp_path, line, why, boxes, lost):
    good = "1 0.25 0.25 0.1 0.1"
    data = read_yolo(flat(tmp_path / "set", {"a": f"{good}\n{line}\n"}, "xyz"), val_fraction=0)
    (read,) = data.splits["train"]
    np.testing.assert_allclose(read.labels.boxes, [[1, 0.25, 0.25, 0.1, 0.1], *boxes], atol=1e-12)
    assert read.labels.lost is lost
    told = [(fault.file, fault.line, fault.why, fault.shown) for fault in kinds(data)]
    assert told == ([] if why is None else [(str(tmp_path / "set/a.txt"), 2, why, line)])
    assert read.labels.plain is (why is None)


def test_points_of_a_pose_are_no_polygon(tmp_path):
    write(tmp_path / "data.yaml", "train: images\nnames: [face]\nkpt_shape: [2, 2]\n")
    photo(tmp_path / "images/a.jpg")
    write(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.4 0.1 0.1 0.9 0.9\n")
    data = read_yolo(tmp_path, val_fraction=0)
    assert data.splits["train"][0].labels.boxes.tolist() == [[0, 0.5, 0.5, 0.2, 0.4]]
    assert data.fault_counts() == {"points of a pose: its box is taken": 1}


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (b"0 0.5 0.5 0.2 0.4\n", True), (b"0 0.5 0.5 0.2 0.4", True), (b"0 0.5 0.5 0.2 0.4\r\n\r\n", True),
        (b"  0 0.5 0.5\t0.2 0.4  \n\n", True), (codecs.BOM_UTF8 + b"0 0.5 0.5 0.2 0.4\n", False),
        (b"0.0 0.5 0.5 0.2 0.4\n", False), (codecs.BOM_UTF16_LE + "0 0.5 0.5 0.2 0.4\r\n".encode("utf-16-le"), False),
    ],
)  # fmt: skip
def test_what_editors_leave_in_a_label_file_is_read(data, plain):
    labels = parse_labels(data, 1)
    assert labels.boxes.tolist() == [[0, 0.5, 0.5, 0.2, 0.4]] and not labels.odd
    assert labels.plain is plain


def test_a_line_that_stands_twice_counts_once(tmp_path):
    data = read_yolo(flat(tmp_path / "set", {"a": "0 0.5 0.5 0.2 0.4\n0 .5 .5 .2 .4\n0 0.5 0.5 0.2 0.3\n"}))
    assert len(data.splits["train"][0].labels.boxes) == 2
    assert [(fault.line, fault.why) for fault in kinds(data)] == [(2, "same label twice: taken once")]


def test_labels_without_photos_and_photos_without_labels_are_told(tmp_path):
    root = flat(tmp_path / "set", {"a": "0 0.5 0.5 0.2 0.4", "b": None, "c": ""})
    write(root / "lone.txt", "0 0.5 0.5 0.2 0.4")
    write(root / "README.dataset.txt", "about it")
    data = read_yolo(root, val_fraction=0)
    assert [(os.path.basename(fault.file), fault.why) for fault in data.faults] == [
        ("b.jpg", "photo without a label file: background"), ("lone.txt", "label file without a photo")
    ]  # fmt: skip
    assert [len(photo.labels.boxes) for photo in data.splits["train"]] == [1, 0, 0]
    write_faults(tmp_path / "faults.csv", data.faults)
    assert (tmp_path / "faults.csv").read_text().splitlines()[2] == f"{root}/lone.txt,0,label file without a photo,"


@pytest.mark.timeout(60)
def test_a_label_file_that_is_none_is_a_lost_label_and_no_background(tmp_path):
    outside(tmp_path)
    root = flat(tmp_path / "set", dict.fromkeys(["fifo", "folder", "out", "gone", "within"]))
    os.mkfifo(root / "fifo.txt")
    (root / "folder.txt").mkdir()
    (root / "out.txt").symlink_to(tmp_path / "secret/photos/x.txt")
    (root / "gone.txt").symlink_to("nowhere.txt")
    write(root / "other/w.txt", "0 0.5 0.5 0.2 0.4\n")
    (root / "within.txt").symlink_to("other/w.txt")
    data = read_yolo(root, val_fraction=0)
    assert {os.path.basename(fault.file): fault.why for fault in data.faults} == {
        "fifo.txt": "label file that is no regular file", "folder.txt": "label file that is a folder",
        "out.txt": "label file that is a link out of the data set",
        "gone.txt": "label file that is a link that leads to no file",
    }  # fmt: skip
    read = {stem_of(each.path): each.labels for each in data.splits["train"]}
    assert {stem for stem, labels in read.items() if labels.lost} == {"fifo", "folder", "out", "gone"}
    assert len(read["within"].boxes) == 1
    # a classifier is told of each once
    source = yolo_source(root, FaceFormat(8), PhotoLimits(), val_fraction=0)
    skipped = [entry for block in source.blocks() for entry in source.decode(block).skipped]
    assert sorted(entry.path for entry in skipped) == ["fifo.txt", "folder.txt", "gone.txt", "out.txt"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["a.data", "a.yaml", "train.txt"])
def test_a_pipe_in_the_place_of_a_data_sets_file_is_one_line(tmp_path, name):
    root = flat(tmp_path / "set", {"a": ""})
    os.mkfifo(root / name)
    with pytest.raises(InputError, match=r"not a file, where an? .* is wanted|there is no such list"):
        read_yolo(root / name)
    (root / name).unlink()
    os.mkfifo(tmp_path / "names")
    with pytest.raises(InputError, match="names: not a file, where a file of class names is wanted"):
        read_yolo(root, names=str(tmp_path / "names"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_any_editor_and_names_of_any_alphabet(tmp_path, encoding):
    names = ["mit blank.jpg", "été.jpg", "面.png", "dots.in.name.jpg", "CAPS.JPG"]
    for name in names:
        photo(tmp_path / "my photos" / name)
        write(tmp_path / "my photos" / f"{os.path.splitext(name)[0]}.txt", "0 0.5 0.5 0.2 0.4\r\n")
    text = "".join(f"my photos\\{name} \t\r\n" for name in names)
    write(tmp_path / "train.txt", f"{text}\r\nmy photos/{names[0]}\r\nmy photos/gone.jpg\r\n", encoding)
    write(tmp_path / "obj.names", "très gai\r\n\r\n", encoding)
    data = read_yolo(tmp_path / "train.txt", val_fraction=0)
    assert data.names == ("très gai",)
    assert [os.path.basename(photo.file) for photo in data.splits["train"]] == names
    assert [len(photo.labels.boxes) for photo in data.splits["train"]] == [1] * 5
    assert any("5 paths with \\, taken as /" in note for note in data.notes)
    assert [(fault.line, fault.why, fault.shown) for fault in kinds(data)] == [
        (7, "photo listed twice: taken once", f"my photos/{names[0]}"), (8, "no such photo", "my photos/gone.jpg")
    ]  # fmt: skip


def test_paths_of_windows_and_of_another_machine_are_found_by_their_end(tmp_path):
    root = flat(tmp_path / "set/obj", dict.fromkeys("abcd", "0 0.5 0.5 0.2 0.4\n"))
    # of two files with the same name the one with the longer end is meant
    photo(tmp_path / "set/a.jpg")
    lines = ["C:\\Users\\me\\set\\obj\\a.jpg", "/content/set/obj/b.jpg", "obj\\c.jpg", f"{root}/d.jpg"]
    write(tmp_path / "set/train.txt", "\n".join(lines))
    data = read_yolo(tmp_path / "set", val_fraction=0)
    assert [photo.path for photo in data.splits["train"]] == [f"obj/{stem}.jpg" for stem in "abcd"]
    assert "2 paths were found by the end of an absolute path" in " ".join(data.notes)


def test_val_is_drawn_by_the_seed_and_copies_stay_together(tmp_path):
    names = [f"p{number // 3:02d}_jpg.rf.{number:04x}" for number in range(60)]
    root = flat(tmp_path / "set", dict.fromkeys(names, "0 0.5 0.5 0.2 0.4\n"))
    data = read_yolo(root, val_fraction=0.2, test_fraction=0.1)
    assert [len(photos) for photos in data.splits.values()] == [42, 12, 6]
    people = {split: {photo.path[:3] for photo in photos} for split, photos in data.splits.items()}
    assert [len(stems) for stems in people.values()] == [14, 4, 2] and len(set.union(*people.values())) == 20
    assert any("12 photos (20%) are val" in note and "data.seed=0" in note for note in data.notes)
    again, other = read_yolo(root, val_fraction=0.2), read_yolo(root, val_fraction=0.2, seed=1)
    first, second = ([photo.path for photo in found.splits["val"]] for found in (again, other))
    assert first == [photo.path for photo in read_yolo(root, val_fraction=0.2).splits["val"]] != second


def test_photos_of_train_are_left_out_of_val(tmp_path):
    root = flat(tmp_path / "set", dict.fromkeys("abcdefghij", "0 0.5 0.5 0.2 0.4\n"))
    write(root / "train.txt", "".join(f"{stem}.jpg\n" for stem in "abcdefgh"))
    write(root / "valid.txt", "h.jpg\ni.jpg\nj.jpg\n")
    data = read_yolo(root)
    assert [photo.path for photo in data.splits["val"]] == ["i.jpg", "j.jpg"]
    assert data.fault_counts() == {"photo of train listed for val: left out of val": 1}
    # as AlexeyAB's page has it where there is no other list
    write(root / "my.data", "classes=1\ntrain=train.txt\nvalid=train.txt\nnames=classes.txt\n")
    data = read_yolo(root / "my.data", val_fraction=0.25)
    assert [len(photos) for photos in data.splits.values()] == [6, 2]
    assert any("every photo of val is one of train" in note for note in data.notes)


def outside(tmp_path):
    """A photo with a label that is none of the data set's."""
    photo(tmp_path / "secret/photos/x.jpg")
    write(tmp_path / "secret/photos/x.txt", "0 0.5 0.5 0.2 0.4\n")
    return tmp_path / "secret/photos"


@pytest.mark.parametrize("how", ["absolute", "dots", "link", "folder link"])
def test_lists_and_links_lead_nowhere_but_where_the_user_says(tmp_path, how):
    other, root = outside(tmp_path), flat(tmp_path / "deep/down/set", {"a": "0 0.5 0.5 0.2 0.4\n"})
    line = {"absolute": f"{other}/x.jpg", "dots": "../../../secret/photos/x.jpg"}.get(how, "y.jpg")
    if how == "link":
        (root / "y.jpg").symlink_to(other / "x.jpg")
    if how == "folder link":
        (root / "more").symlink_to(other)
        line = "more/x.jpg"
    write(root / "train.txt", f"a.jpg\n{line}\n")
    data = read_yolo(root, val_fraction=0)
    assert [photo.path for photo in data.splits["train"]] == ["a.jpg"]
    (fault,) = kinds(data)
    assert (fault.line, fault.shown) == (2, line)
    if how == "absolute":
        assert fault.why == "path out of the data set: left out; give data.images=FOLDER"
    if how != "dots":
        data = read_yolo(root, images=other, val_fraction=0)
        assert len(data.splits["train"]) == 2 and not kinds(data)


def test_labels_and_folders_that_are_links_are_not_followed_out(tmp_path):
    other, root = outside(tmp_path), tmp_path / "deep/down/set"
    photo(root / "images/x.jpg")
    photo(root / "images/z.jpg")
    (root / "labels").symlink_to(other)
    (root / "images/z.txt").symlink_to(other / "x.txt")
    (root / "images/train").symlink_to(other)
    write(root / "classes.txt", "face\n")
    data = read_yolo(root, val_fraction=0)
    assert [(photo.path, len(photo.labels.boxes)) for photo in data.splits["train"]] == [
        ("images/x.jpg", 0), ("images/z.jpg", 0)
    ]  # fmt: skip
    # within the data set they are
    (root / "labels").unlink()
    write(root / "kept/x.txt", "0 0.5 0.5 0.2 0.4\n")
    (root / "labels").symlink_to("kept")
    assert len(read_yolo(root, val_fraction=0).splits["train"][0].labels.boxes) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data.yaml": "train: images\nnc: 2\nnames: [face]\n"}, "nc is 2, but there are 1 names: face"),
        ({"data.yaml": "train: images\nnames: {0: a, 2: b}\n"}, "names: has 2 names, but none of class 1"),
        ({"data.yaml": "train: images\nnames: {a: b}\n"}, "names: its keys are not the numbers of classes"),
        ({"data.yaml": "train: images\nnames: [a, a]\n"}, "the class name a stands twice"),
        ({"data.yaml": "train: images\n"}, "names: not a list of class names"),
        ({"data.yaml": "train: {a: b}\nnames: [a]\n"}, "train: not a path or a list of paths"),
        ({"data.yaml": "train: [images\nnames: [a]\n"}, "not YAML"),
        ({"data.yaml": "- a\n"}, "not the keys of a data set"),
        ({"data.yaml": "train: gone\nnames: [a]\n"}, "train: gone: there is no such folder"),
        ({"data.yaml": "train: /etc\nnames: [a]\n"}, "there is no such folder; data.images=FOLDER names a folder"),
        ({"data.yaml": "[" * 5000}, "not YAML"),
        ({"data.yaml": "path: [images]\ntrain: images\nnames: [a]\n"}, r"path: \['images'\] is not a path: give the"),
        ({"data.yaml": "path: {a: b}\ntrain: images\nnames: [a]\n"}, "path: {'a': 'b'} is not a path"),
        ({"data.yaml": "train: images\nnames: [a]\n" + "#" * (1 << 20)}, "larger than 1 MiB, too large for a"),
        ({"a.data": "", "b.data": ""}, "holds a.data, b.data: give one of them as data.raw="),
        ({"a.data": "classes=2\ntrain=train.txt\nnames=n\n", "n": "a\n", "train.txt": "images/a.jpg"}, "classes is 2"),
        ({"a.data": "train=train.txt\nnames=gone\n", "train.txt": "images/a.jpg"}, "names=gone: no such file"),
        ({"a.data": "train=train.txt\nnames=n\n", "n": "a\n\nb\n", "train.txt": "images/a.jpg"}, "n, line 2: a blank"),
        ({"train.txt": "images/a.jpg\n"}, "no class names lie there: give data.names=FILE or data.names="),
        ({"train.txt": "gone.jpg\n", "classes.txt": "a\n"}, "no photo is listed or lies there: .*: no such photo"),
        ({"classes.txt": "a\n", "images/obj.names": "b\n"}, "have other class names"),
        ({"train.txt": "a\0b.jpg\n\ud800.jpg\n", "classes.txt": "a\n"}, "no photo is listed"),
    ],
)  # fmt: skip
def test_sets_that_make_no_sense_are_one_line(tmp_path, files, message):
    photo(tmp_path / "set/images/a.jpg")
    for name, text in files.items():
        (tmp_path / "set" / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=message) as raised:
        read_yolo(tmp_path / "set")
    assert "\n" not in str(raised.value)


def test_names_may_be_given_and_yaml_words_stay_words(tmp_path):
    photo(tmp_path / "set/images/a.jpg")
    write(tmp_path / "my.names", "yes\nno\n")
    write(tmp_path / "set/data.yaml", "train: images\nval:\ntest: null\nnames: [yes, no, 1_0]\n")
    assert read_yolo(tmp_path / "set").names == ("yes", "no", "1_0")
    (tmp_path / "set/data.yaml").unlink()
    assert read_yolo(tmp_path / "set", str(tmp_path / "my.names")).names == ("yes", "no")
    assert read_yolo(tmp_path / "set/images", ["a", "b"]).names == ("a", "b")


def test_a_classifier_gets_the_faces_under_our_names(tmp_path):
    raw = yolo_sets.roboflow(tmp_path / "set")
    out = tmp_path / "faces.h5"
    summary = prepare(config(raw), out)
    info = read_info(out)
    assert info.class_names == CLASSES and info.sources == ("set",)
    assert {split: info.rows(split) for split in ("train", "val", "test")} == {"train": 3, "val": 1, "test": 1}
    assert [CLASSES[label] for label in read_column(out, "train", "label")] == ["Happy", "Angry", "Sad"]
    # 40 x 40 pixels at 10, 20; at 70, 20; 30 x 60 at 45, 10: the fractions of the label file times the photo's size
    assert read_column(out, "train", "box").tolist() == [[10, 20, 40, 40], [70, 20, 40, 40], [45, 10, 30, 60]]
    assert any("happiness -> Happy, sad -> Sad, Anger -> Angry" in note for note in summary["notes"])
    assert summary["skipped"] == {"photo without faces": 1}


def test_other_classes_keep_their_names_and_chosen_ones_leave_the_rest_out(tmp_path):
    root = flat(tmp_path / "set", {"a": "0 0.5 0.5 0.2 0.4\n1 0.2 0.2 0.1 0.1\n3 0.5 0.5 0.2 0.4"}, ["mask", "joy"])
    face, limits = FaceFormat(8), PhotoLimits()
    assert yolo_source(root, face, limits).class_names == ("mask", "joy")
    chosen = yolo_source(root, face, limits, ("Happy", "Sad"), val_fraction=0)
    faces = [chosen.decode(block) for block in chosen.blocks()]
    assert faces[0].label.tolist() == [0] and faces[0].box.tolist() == [[18, 12, 12, 8]]
    assert [entry.reason for entry in faces[0].skipped] == [
        "class that is none of 0..1", "mask is none of data.classes"
    ]  # fmt: skip


def test_the_fingerprint_follows_labels_and_photos(tmp_path):
    root = flat(tmp_path / "set", {"a": "0 0.5 0.5 0.2 0.4\n"})
    before = open_source(config(root)).fingerprint()
    assert open_source(config(root)).fingerprint() == before
    write(root / "a.txt", "0 0.5 0.5 0.2 0.3\n")
    assert open_source(config(root)).fingerprint() != before


def test_no_photo_is_opened_and_time_grows_with_their_number_alone(tmp_path):
    def make(number):
        root = tmp_path / str(number)
        (root / "obj").mkdir(parents=True)
        for index in range(number):
            (root / f"obj/{index}.jpg").touch()
            (root / f"obj/{index}.txt").write_bytes(b"0 0.5 0.5 0.2 0.4\n")
        write(root / "train.txt", "".join(f"obj/{index}.jpg\n" for index in range(number)))
        write(root / "obj.names", "face\n")
        return root

    # empty files: to open one as a photo would fail
    def seconds(root):
        start = time.process_time()
        assert sum(map(len, read_yolo(root).splits.values())) == int(root.name)
        return time.process_time() - start

    few, many = make(500), make(4000)
    assert min(seconds(many) for _ in range(3)) < 24 * min(seconds(few) for _ in range(3))
