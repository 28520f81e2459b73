"""Readers that data.source names: JAFFE, CK+48, KDEF and RAF-DB by their real naming patterns, and a user's own."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fer.data.preparation.prepare import prepare as prepare_file
from fer.data.source import Block, empty_faces
from fer.data.storage.hdf5 import read_column, read_groups, read_info
from fer.errors import InputError
from fer.labels import CLASSES

SHARED = Path(__file__).parents[3] / "shared/data"


def picture(path, value=90, size=(64, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(size, value, np.uint8))


def rows(file):
    """Return (split, path, class, group) of each row of a prepared file."""
    info = read_info(file)
    return [
        (split, path, info.class_names[label], group)
        for split in info.counts
        for path, label, group in zip(
            read_column(file, split, "path"), read_column(file, split, "label"), read_groups(file, split), strict=True
        )
    ]


@pytest.fixture
def prepare(run, tmp_path):
    """Run prepare.py in an empty folder; returns its output and the file."""

    def call(*arguments, code=0):
        out = tmp_path / "out.h5"
        done = run("prepare.py", *arguments, f"out={out}", "data.size=48", "workers=1", cwd=tmp_path, code=code)
        return done, out

    return call


def test_jaffe_knows_class_and_person_and_cuts_the_face(prepare, tmp_path):
    wanted = {}
    for person in ("KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM"):
        for code, name in zip(("AN", "DI", "FE", "HA", "SA", "SU", "NE"), CLASSES, strict=True):
            path = f"{person}.{code}1.{len(wanted) + 39}.tiff"
            photo = np.full((256, 256), 10, np.uint8)
            photo[65:225, 50:210] = 200  # where the face is
            (tmp_path / "raw").mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / "raw" / path), photo)
            wanted[path] = name, person
    picture(tmp_path / "raw/strange.tiff")
    done, out = prepare("data=jaffe", f"data.raw={tmp_path / 'raw'}")
    assert {path: (name, group) for _, path, name, group in rows(out)} == wanted
    persons = {split: {g for s, _, _, g in rows(out) if s == split} for split in ("train", "val", "test")}
    assert [len(persons[split]) for split in persons] == [8, 1, 1] and len(set.union(*persons.values())) == 10
    assert (read_column(out, "train", "image") == 200).all()
    assert read_column(out, "train", "box")[0].tolist() == [50, 65, 160, 160]
    assert "1 its name is none of jaffe" in done.stdout
    done, out = prepare("data=jaffe", f"data.raw={tmp_path / 'raw'}", "data.source.box=null")
    assert read_column(out, "train", "image").min() == 10


def test_ck48_has_contempt_and_no_neutral_and_keeps_a_subject_together(prepare, tmp_path):
    for subject, name in (
        (5, "anger"),
        (5, "happy"),
        (10, "contempt"),
        (11, "sadness"),
        (12, "surprise"),
        (13, "fear"),
    ):
        for frame in (9, 10, 11):
            picture(tmp_path / f"ck/{name}/S{subject:03}_001_{frame:08}.png", subject, (48, 48))
    picture(tmp_path / "ck/disgust/S014_001_00000009.png", 14, (48, 48))
    done, out = prepare("data=ck48", f"data.raw={tmp_path / 'ck'}", "data.val_fraction=0.2", "data.test_fraction=0.2")
    assert read_info(out).class_names == ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Contempt")
    assert ("anger/S005_001_00000009.png", "Angry", "S005") in [row[1:] for row in rows(out)]
    assert len({split for split, _, _, group in rows(out) if group == "S005"}) == 1
    done, out = prepare("data=ck48", f"data.raw={tmp_path / 'ck'}", f"data.classes=[{','.join(CLASSES)}]")
    assert read_info(out).class_names == CLASSES and "3 Contempt is none of data.classes" in done.stdout


def test_kdef_takes_both_sessions_of_a_person_as_one(prepare, tmp_path):
    names = ["AF01AFS", "BF01NES", "AM02ANS", "AM02ANHL", "BF03HAS", "AM04SUS"]
    for name in names:
        picture(tmp_path / f"kdef/{name[:4]}/{name}.JPG", 60, (80, 60))
    done, out = prepare("data=kdef", f"data.raw={tmp_path / 'kdef'}")
    found = {Path(path).stem: (name, group) for _, path, name, group in rows(out)}
    assert found == {
        "AF01AFS": ("Fear", "F01"), "BF01NES": ("Neutral", "F01"), "AM02ANS": ("Angry", "M02"),
        "BF03HAS": ("Happy", "F03"), "AM04SUS": ("Surprise", "M04"),
    }  # fmt: skip
    assert "1 another angle than is wanted" in done.stdout


#: The release's readme: 1 Surprise, 2 Fear, 3 Disgust, 4 Happiness, 5 Sadness, 6 Anger, 7 Neutral.
RAF = {1: "Surprise", 2: "Fear", 3: "Disgust", 4: "Happy", 5: "Sad", 6: "Angry", 7: "Neutral"}


@pytest.mark.parametrize("layout", ["official", "folders", "csv"])
def test_the_layouts_of_raf_db_give_the_same_rows(prepare, tmp_path, layout):
    lines = {"train": [], "test": []}
    for number, label in enumerate(range(1, 8), 1):
        for split in ("train", "test"):
            name = f"{split}_{number:05}"
            lines[split].append((f"{name}_aligned.jpg", label))
            if layout == "official":
                picture(tmp_path / f"raw/basic/Image/aligned/{name}_aligned.jpg", 30 * label)
            else:
                picture(tmp_path / f"raw/DATASET/{split}/{label}/{name}_aligned.jpg", 30 * label)
    if layout == "official":
        listed = [f"{name.replace('_aligned', '')} {label}\n" for rows_ in lines.values() for name, label in rows_]
        (tmp_path / "raw/basic/EmoLabel").mkdir()
        (tmp_path / "raw/basic/EmoLabel/list_patition_label.txt").write_text("".join(listed) + "train_1.jpg\n")
    if layout == "csv":
        for split, rows_ in lines.items():
            text = "image,label\n" + "".join(f"{name},{label}\n" for name, label in rows_) + "../../x.jpg,3\n"
            (tmp_path / f"raw/{split}_labels.csv").write_text(text)
    done, out = prepare("data=raf_db", f"data.raw={tmp_path / 'raw'}", "data.val_fraction=0")
    found = {(split, Path(path).stem[:-8]): name for split, path, name, _ in rows(out)}
    assert found == {(s, f"{s}_{n:05}"): RAF[n] for s in ("train", "test") for n in range(1, 8)}
    assert ("skipped" in done.stdout) == (layout != "folders")


def test_val_of_raf_db_is_cut_from_train(prepare, tmp_path):
    for label in range(1, 8):
        for n in range(10):
            picture(tmp_path / f"raw/train/{label}/train_{label}{n:04}_aligned.jpg", 30 * label)
        picture(tmp_path / f"raw/test/{label}/test_{label:05}_aligned.jpg", 30 * label)
    _, out = prepare("data=raf_db", f"data.raw={tmp_path / 'raw'}", "data.val_fraction=0.2")
    assert read_info(out).counts == {
        "train": {"raf_db": [8] * 7}, "val": {"raf_db": [2] * 7}, "test": {"raf_db": [1] * 7},
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["data=jaffe", "data.raw=empty"], "data.raw=empty: none of its 1 pictures is named as those of jaffe"),
        (["data=jaffe"], "data.raw is not set"),
        (["data=jaffe", "data.raw=nowhere"], "data.raw=nowhere: no such file or folder"),
        (["data=jaffe", "data.raw=empty", "data.source.box=[1,2]"], "data.source.box=[1, 2]: not four numbers"),
        (["data=jaffe", "data.raw=empty", "data.source.box=[1,2,0,5]"], "empty box"),
        (["data=jaffe", "data.raw=empty", "+data.source.bx=1"], "there is no key data.source.bx (did you mean box?)"),
        (["data=jaffe", "data.raw=empty", "+data.source.seed=1"], "data.source.seed=1: is given to"),
        (["data=jaffe", "data.raw=empty", "+data.group=(a)"], "data.group=(a) has no effect"),
        (["data=raf_db", "data.raw=empty"], "neither RAF-DB's list_patition_label.txt"),
        (["data=kdef", "data.raw=empty", "data.source.angles=[up]"], "data.source.angles: up: not one of S, HL"),
        (["data=custom", "data.raw=empty"], "data.source._target_ is missing: it names the reader"),
        (["data=custom", "data.source._target_=no.Such"], "data.source._target_=no.Such: there is no such class"),
        (["data=custom", "data.source._target_=builtins.dict"], "data.source._target_=builtins.dict"),
    ],
)
def test_mistakes_are_one_line(prepare, tmp_path, arguments, message):
    picture(tmp_path / "empty/a.png")
    done, out = prepare(*arguments, code=2)
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not out.exists()


MINE = '''
from fer.data.photos import PhotoRow
from fer.data.readers.photo_list import PhotoList, draw_splits, picture_files


def my_data(raw, face, limits, seed, val_fraction, suffix=".png"):
    """Pictures called PERSON-happy-N.png or PERSON-sad-N.png."""
    rows = []
    for path in picture_files(raw):
        if path.endswith(suffix):
            person, label, _ = path.split("-")
            rows.append(PhotoRow("mine", path, str(raw / path), (), ["happy", "sad"].index(label), group=person))
    notes = draw_splits(rows, val_fraction, 0.0, seed)
    return PhotoList("mine", ["happy", "sad"], rows, face, limits, notes)
'''


def test_a_reader_in_a_file_of_ones_own_folder_works(process, tmp_path):
    """A process of its own, so that the module is found as a user's is."""
    for person in "ABCDE":
        for label in ("happy", "sad"):
            picture(tmp_path / f"photos/{person}-{label}-1.png", ord(person))
    (tmp_path / "my_readers.py").write_text(MINE)
    (tmp_path / "my_conf/data").mkdir(parents=True)
    (tmp_path / "my_conf/data/mine.yaml").write_text(
        "defaults: [custom]\nname: mine\nval_fraction: 0.2\nsource:\n  _target_: my_readers.my_data\n"
    )
    done = process(
        "prepare.py", "--config-dir", tmp_path / "my_conf", "data=mine", f"data.raw={tmp_path / 'photos'}",
        cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
    )  # fmt: skip
    assert "5 persons (train 4, val 1, test 0)" in done.stdout
    found = rows(tmp_path / "data/mine-48-grey.h5")
    assert len(found) == 10 and {group for _, _, _, group in found} == set("ABCDE")


@pytest.mark.skipif(not (SHARED / "jaffe").is_dir(), reason="needs the real JAFFE in ../shared/data")
def test_the_real_jaffe(prepare):
    """Lyons et al. 1998: 213 photos of 10 Japanese women."""
    done, out = prepare("data=jaffe", f"data.raw={SHARED / 'jaffe'}")
    found = rows(out)
    assert len(found) == 213 and len({group for _, _, _, group in found}) == 10 and "skipped" not in done.stdout
    # by class, as shared/data/README.md counts what it was scored on
    counts = {name: sum(label == name for _, _, label, _ in found) for name in ("Angry", "Disgust", "Fear")}
    assert counts == {"Angry": 30, "Disgust": 29, "Fear": 32}


@pytest.mark.skipif(not (SHARED / "ck48").is_dir(), reason="needs the real CK+48 in ../shared/data")
def test_the_real_ck48(prepare):
    """981 files: three frames of each of the 327 sequences that CK+ labels (Lucey et al. 2010), of 118 subjects."""
    done, out = prepare("data=ck48", f"data.raw={SHARED / 'ck48'}")
    found = rows(out)
    assert len(found) == 981 and len({group for _, _, _, group in found}) == 118 and "skipped" not in done.stdout
    # Lucey et al. 2010, table 3: sequences by emotion
    sequences = {"Angry": 45, "Contempt": 18, "Disgust": 59, "Fear": 25, "Happy": 69, "Sad": 28, "Surprise": 83}
    assert {name: sum(label == name for _, _, label, _ in found) for name in sequences} == {
        name: 3 * n for name, n in sequences.items()
    }


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_that_is_no_class_is_one_line_and_leaves_nothing(prepare, tmp_path, monkeypatch, label):
    for number in range(4):
        picture(tmp_path / f"raw/{number}.png", 40 * number)
    module = f"mislabelled_{label + 1}"
    (tmp_path / f"{module}.py").write_text(f"""
from fer.data.photos import PhotoRow
from fer.data.readers.photo_list import PhotoList, draw_splits, picture_files


def faces(raw, face, limits, seed):
    rows = [PhotoRow("mine", p, str(raw / p), (), {label} if p[0] == "3" else 0) for p in picture_files(raw)]
    return PhotoList("mine", ["happy", "sad"], rows, face, limits, draw_splits(rows, 0.0, 0.0, seed))
""")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(tmp_path.rglob("*"))
    words = "data=custom", "data.name=mine", f"data.source._target_={module}.faces", f"data.raw={tmp_path / 'raw'}"
    done, _ = prepare(*words, code=2)
    assert (
        f"error: data.source gives label {label}, which is none of 0..1 for its 2 classes (happy, sad)" in done.stderr
    )
    assert {path for path in set(tmp_path.rglob("*")) - before if "__pycache__" not in path.parts} == set()


def test_classes_of_one_name_are_refused_before_anything_is_read(prepare, tmp_path):
    for label in "01":
        picture(tmp_path / f"raw/{label}/a.png")
    done, out = prepare("data=folder", f"data.raw={tmp_path / 'raw'}", "data.classes=[a,a]", code=2)
    assert done.stderr == "error: data.classes: a stands there twice; give each class a name of its own\n"
    assert not list(tmp_path.glob("out.h5*"))


MENDED = """
from fer.data.source import Block, empty_faces

class Mine:
    names, class_names, notes = ("mine",), ("cat", "dog"), []

    def __init__(self, face):
        self.face = face

    def fingerprint(self):
        return {"rows": 2}

    def blocks(self):
        yield Block([LABEL], 0.5)
        yield Block([LABEL], 1.0)

    def decode(self, block):
        from pathlib import Path
        with Path("decoded").open("a") as file:
            file.write("1")
        if Path("decoded").read_text() == "11" and LABEL == 0:
            raise SystemExit("killed")
        faces = empty_faces(1, self.face)
        faces.label[:], faces.path = block.rows[0], ["a"]
        return faces
"""


@pytest.mark.parametrize(("label", "decoded"), [(0, 3), (1, 4)])
def test_blocks_that_a_reader_gave_before_it_was_mended_are_not_gone_on_with(tmp_path, process, label, decoded):
    command = ["prepare.py", "data=custom", "data.source._target_=mine.Mine", "data.size=8", "out=out.h5", "workers=1"]
    (tmp_path / "mine.py").write_text(MENDED.replace("LABEL", "0"))
    process(*command, cwd=tmp_path, code=1)
    assert len(list((tmp_path / "out.h5.partial").glob("*.npz"))) == 1
    # the second run of the same reader decodes the second row alone
    (tmp_path / "mine.py").write_text(MENDED.replace("LABEL", str(label)))
    process(*command, cwd=tmp_path)
    assert (tmp_path / "decoded").read_text() == "1" * decoded
    assert read_column(tmp_path / "out.h5", "train", "label").tolist() == [label, label]


class Odd:
    """A reader of two rows; ``change`` makes what it gives another."""

    names, class_names, notes = ("odd",), ("cat", "dog"), []

    def __init__(self, face, change=""):
        self.face, self.change = face, change
        if change.startswith("self."):
            exec(change)

    def fingerprint(self):
        return eval(self.change[12:]) if self.change.startswith("fingerprint=") else {}

    def blocks(self):
        return eval(self.change[7:]) if self.change.startswith("blocks=") else iter([Block([0], 0.5), Block([1], 1.0)])

    def decode(self, block):
        faces = empty_faces(1, self.face)
        faces.label[:], faces.path = block.rows[0], [f"row {block.rows[0]}"]
        if self.change.startswith("decode="):
            return eval(self.change[7:])
        if self.change.startswith("faces"):
            exec(self.change)
        if self.change == "raise":
            raise KeyError("decode")
        return faces


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("self.names = 'odd'", "names is 'odd', not a list of texts"),
        ("self.names = ()", "names has 0 texts, and at least 1 are needed"),
        ("self.class_names = (1, 2)", "class_names is (1, 2), not a list of texts"),
        ("self.class_names = ('cat',)", "class_names has 1 texts, and at least 2"),
        ("self.notes = None", "notes is None, not a list of texts"),
        ("fingerprint=None", "fingerprint() gives NoneType, not a dict of plain data"),
        ("fingerprint={}['x']", "KeyError: 'x' ("),
        ("blocks=None", "TypeError: 'NoneType' object is not iterable"),
        ("blocks=[1, 2]", "blocks() gives int, not fer.data.source.Block of a list of rows"),
        ("blocks=[Block([0], float('nan'))]", "blocks() gives done=nan, not the fraction"),
        ("raise", "KeyError: 'decode' ("),
        ("decode=None", "decode() gives NoneType, not fer.data.source.Faces"),
        ("faces.image = faces.image.astype(float)", "decode() gives image float64 (1, 8, 8), not uint8 (1, 8, 8)"),
        ("faces.image = faces.image.astype('uint16')", "decode() gives image uint16, not uint8"),
        ("faces.image = faces.image[:, :3]", "decode() gives image uint8 (1, 3, 8), not uint8 (1, 8, 8)"),
        ("faces.image = faces.image.tolist()", "decode() gives image list, not uint8"),
        ("faces.label = faces.label.astype(float)", "decode() gives label float64 (1,), not whole numbers (1,)"),
        ("faces.label[:] = 2", "label 2, which is none of 0..1"),
        ("faces.split[:] = 9", "decode() gives split 9, which is none of 0..2 for train, val, test"),
        ("faces.source[:] = 1", "decode() gives source 1, which is none of 0..0 for odd"),
        ("faces.path = [None]", "decode() gives path [None], not a list of 1 texts"),
        ("faces.group = []", "decode() gives group [], not a list of 1 texts"),
        ("faces.valence[:] = float('inf')", "decode() gives valence that is infinite; NaN is unknown"),
        (
            "faces.landmarks = faces.landmarks[:, :5]",
            "decode() gives landmarks float32 (1, 5, 2), not ",
        ),
        ("faces.box = faces.box + 0.5", "decode() gives box float64 (1, 4), not int32 (1, 4)"),
        ("faces.skipped = ['row 3']", "decode() gives skipped ['row 3'], not a list of fer.data.source.Skipped"),
    ],
)
def test_what_a_reader_of_ones_own_gives_is_checked(tmp_path, change, message):
    data = {"name": "own", "size": 8, "color": "grey", "margin": 0.0, "seed": 0, "min_bytes": 0, "max_bytes": None}
    data |= {"max_pixels": 100, "source": {"_target_": f"{__name__}.Odd", "change": change}}
    with pytest.raises(InputError) as caught:
        prepare_file(data, tmp_path / "odd.h5", workers=1)
    line = str(caught.value)
    assert line.startswith("data.source") and message in line and "\n" not in line
    assert not (tmp_path / "odd.h5").exists()


def test_what_a_reader_of_ones_own_gives_rightly_is_taken(tmp_path):
    data = {"name": "own", "size": 8, "color": "grey", "margin": 0.0, "seed": 0, "min_bytes": 0, "max_bytes": None}
    data |= {"max_pixels": 100, "source": {"_target_": f"{__name__}.Odd"}}
    prepare_file(data, tmp_path / "odd.h5", workers=1)
    assert read_column(tmp_path / "odd.h5", "train", "label").tolist() == [0, 1]
