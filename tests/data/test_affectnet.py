"""Both AffectNet releases: csv quirks, label map, dropped classes, splits, and what is told when something lacks."""

import cv2
import numpy as np
import pytest

from fer.data.readers.affectnet import affectnet_source
from fer.data.readers.affectnet_2017 import COLUMNS
from fer.data.source import FaceFormat, PhotoLimits
from fer.errors import InputError
from fer.labels import CLASSES_WITH_CONTEMPT

HEADER = ",".join(COLUMNS)
LANDMARKS = ";".join(["10.0;20.0"] * 68)


def line(path, box=(5, 5, 20, 20), expression=0, valence=0.5, arousal=-0.25, landmarks=LANDMARKS):
    return ",".join(map(str, (path, *box, landmarks, expression, valence, arousal)))


def photo(root, path, value=100, size=(40, 40)):
    file = root / "Manually_Annotated_Images" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.full(size, value, np.uint8))


def release(root, training=None, validation=None):
    (root / "Manually_Annotated_Images").mkdir(parents=True, exist_ok=True)
    for name, lines in (("training.csv", training), ("validation.csv", validation)):
        if lines is not None:
            (root / name).write_text("\n".join(lines) + "\n")
    return root


def source_of(root, face=FaceFormat(size=20), limits=PhotoLimits(), **options):  # noqa: B008 (frozen)
    return affectnet_source(root, face, limits, **options)


def read(source):
    """Return (path, split, label) of every face, and (path, reason) of every skipped row."""
    faces, skipped = [], []
    done = [0.0]
    for block in source.blocks():
        assert len(block.rows) <= 256
        done.append(block.done)
        decoded = source.decode(block)
        faces += zip(decoded.path, decoded.split.tolist(), decoded.label.tolist(), strict=True)
        skipped += [(row.path, row.reason) for row in decoded.skipped]
    assert done == sorted(done) and done[-1] in (0.0, 1.0)
    return faces, skipped


def test_label_map(tmp_path):
    for code in range(8):
        photo(tmp_path, f"1/{code}.png")
    release(tmp_path, [HEADER, *(line(f"1/{code}.png", expression=code) for code in range(8))])
    faces, _ = read(source_of(tmp_path))
    # Neutral 6, Happiness 3, Sadness 4, Surprise 5, Fear 2, Disgust 1, Anger 0; Contempt is dropped.
    assert [label for _, _, label in faces] == [6, 3, 4, 5, 2, 1, 0]
    faces, _ = read(source_of(tmp_path, class_names=CLASSES_WITH_CONTEMPT))
    assert [label for _, _, label in faces] == [6, 3, 4, 5, 2, 1, 0, 7]


def test_header_lines_anywhere_or_nowhere_and_validation_serves_twice(tmp_path):
    for name in "abcd":
        photo(tmp_path, f"1/{name}.png")
    release(tmp_path, [HEADER, line("1/a.png"), HEADER, line("1/b.png"), HEADER], [line("1/c.png"), line("1/d.png")])
    source = source_of(tmp_path)
    faces, skipped = read(source)
    assert [(path, split) for path, split, _ in faces] == [
        ("1/a.png", 0), ("1/b.png", 0), ("1/c.png", 1), ("1/c.png", 2), ("1/d.png", 1), ("1/d.png", 2),
    ]  # fmt: skip
    assert skipped == []
    assert any("val and test at once" in note for note in source.notes)
    assert read(source)[0] == faces  # and again
    assert len(source.notes) == 1


def test_crop_landmarks_and_affect(tmp_path):
    file = tmp_path / "Manually_Annotated_Images/1/a.png"
    file.parent.mkdir(parents=True)
    cv2.imwrite(str(file), np.add.outer(np.arange(60), np.arange(100)).astype(np.uint8))
    landmarks = ";".join(f"{60 + i / 2};{20 + i / 4}" for i in range(68))
    release(tmp_path, [
        line("1/a.png", (60, 10, 40, 20), landmarks=landmarks),
        line("1/a.png", (-10, 0, 30, 20), valence=-2, arousal="-2"),
    ])  # fmt: skip
    source = source_of(tmp_path)
    (block,) = source.blocks()
    faces = source.decode(block)
    # 40 x 20 to 20 x 20: columns averaged in pairs, rows left alone; a half rounds either way.
    np.testing.assert_allclose(faces.image[0], np.add.outer(np.arange(20), 2 * np.arange(20)) + 70.5, atol=0.5)
    i = np.arange(68)
    np.testing.assert_allclose(faces.landmarks[0], np.stack([i / 4, 10 + i / 4], 1), atol=1e-4)
    assert (faces.valence[0], faces.arousal[0]) == (0.5, -0.25)
    assert np.isnan(faces.valence[1]) and np.isnan(faces.arousal[1])
    np.testing.assert_array_equal(faces.box, [[60, 10, 40, 20], [0, 0, 20, 20]])
    # columns -10..19, of which the photo has none below 0: they repeat column 0, and 30 become 20
    columns = np.maximum(np.arange(-10, 20), 0).reshape(10, 3) @ [[2, 0], [1, 1], [0, 2]] / 3
    np.testing.assert_allclose(faces.image[1], np.add.outer(np.arange(20), columns.ravel()), atol=0.51)


def test_dropped_classes_are_counted_and_never_touched(tmp_path):
    photo(tmp_path, "1/a.png")
    dropped = [line("1/gone.png", ("NULL",) * 4, expression=code) for code in (7, 8, 8, 10)]
    source = source_of(release(tmp_path, [HEADER, *dropped, line("1/a.png"), *dropped]))
    (block,) = source.blocks()
    assert len(block.rows) == 1
    assert read(source) == ([("1/a.png", 0, 6)], [])
    assert "AffectNet rows dropped by class: Contempt 2, None 4, No-Face 2" in source.notes


def test_bad_rows_are_listed_with_csv_and_line_in_order(tmp_path):
    photo(tmp_path, "1/a.png")
    release(tmp_path, [
        HEADER,
        line("1/a.png", ("NULL", 5, 20, 20)),
        line("1/a.png", (5, 5, "", 20)),
        line("1/a.png", (5, 5, 0, 20)),
        line("1/a.png", expression=11),
        line("1/a.png", expression="happy"),
        "1/a.png,5,5,20,20",
        line("../secret.png"),
        line("/etc/passwd"),
        line("1/gone.png"),
        line("1/a.png", (40, 0, 9, 9)),
        line("1/a.png", ("5.0", 5, 20, 20), expression="3.0"),
    ])  # fmt: skip
    faces, skipped = read(source_of(tmp_path))
    assert faces == [("1/a.png", 0, 5)]
    assert skipped == [
        ("training.csv line 2: 1/a.png", "box is NULL or not four whole numbers"),
        ("training.csv line 3: 1/a.png", "box is NULL or not four whole numbers"),
        ("training.csv line 4: 1/a.png", "empty box"),
        ("training.csv line 5: 1/a.png", "unknown expression code '11'"),
        ("training.csv line 6: 1/a.png", "unknown expression code 'happy'"),
        ("training.csv line 7: 1/a.png", "5 columns instead of 9"),
        ("training.csv line 8: ../secret.png", "path leaves the data folder"),
        ("training.csv line 9: /etc/passwd", "path leaves the data folder"),
        ("1/gone.png", "missing file"),
        ("1/a.png", "box outside the photo"),
    ]


def test_an_open_quote_costs_its_own_line_only(tmp_path):
    photo(tmp_path, "1/a.png")
    release(tmp_path, [HEADER, line("1/a.png"), '"' + line("1/a.png"), line("1/a.png"), "x" * 200_000, line("1/a.png")])
    faces, skipped = read(source_of(tmp_path))
    assert len(faces) == 3
    assert skipped == [
        ("training.csv line 3", "a quote that is not closed, or a line break in a cell"),
        ("training.csv line 5", "a line of more than 100,000 characters"),
    ]


HUGE = "9" * 400


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"box": (HUGE, 5, 20, 20)}, "box that is not finite or far larger than any photo"),
        ({"box": (5, 5, HUGE, 20)}, "box that is not finite or far larger than any photo"),
        ({"box": ("-" + HUGE, 5, HUGE, 20)}, "box that is not finite or far larger than any photo"),
        ({"box": (5, 5, 20, "9" * 5000)}, "box is NULL or not four whole numbers"),
        ({"box": ("inf", 5, 20, 20)}, "box is NULL or not four whole numbers"),
        ({"box": ("1_0", 5, 20, 20)}, "box is NULL or not four whole numbers"),
        ({"valence": "inf"}, "valence or arousal is infinite"),
        ({"arousal": "-inf"}, "valence or arousal is infinite"),
        ({"arousal": "1e400"}, "valence or arousal is infinite"),
        ({"expression": "9" * 5000}, f"unknown expression code '{'9' * 40}'"),
        ({"expression": "inf"}, "unknown expression code 'inf'"),
    ],
)
def test_numbers_out_of_range_are_listed_and_no_other_row_is_lost(tmp_path, row, reason):
    photo(tmp_path, "1/a.png")
    release(tmp_path, [HEADER, line("1/a.png"), line("1/a.png", **row), line("1/a.png", expression=1)])
    faces, skipped = read(source_of(tmp_path))
    assert faces == [("1/a.png", 0, 6), ("1/a.png", 0, 3)]
    assert skipped == [("training.csv line 3: 1/a.png", reason)]


@pytest.mark.parametrize("odd", ["inf", "nan", "1e300", "x", ""])
def test_landmarks_that_are_no_finite_numbers_are_unknown(tmp_path, odd):
    photo(tmp_path, "1/a.png")
    release(tmp_path, [HEADER, line("1/a.png", landmarks=LANDMARKS.replace("10.0", odd, 1)), line("1/a.png")])
    source = source_of(tmp_path)
    (block,) = source.blocks()
    landmarks = source.decode(block).landmarks
    assert np.isnan(landmarks[0]).all() and np.isfinite(landmarks[1]).all()


def test_val_as_train(tmp_path):
    photo(tmp_path, "1/a.png")
    faces, _ = read(source_of(release(tmp_path, None, [line("1/a.png")]), val_as=("train",)))
    assert faces == [("1/a.png", 0, 6)]
    with pytest.raises(InputError, match="train, val, test, not to dev"):
        source_of(tmp_path, val_as=("dev",))


def test_val_fraction_takes_training_photos_whole_and_frees_validation_for_test(tmp_path):
    names = [f"1/{index}.png" for index in range(400)]
    # Every photo stands twice, far apart: two faces. No photo exists: the splits are in the rows already.
    release(tmp_path, [line(name) for name in names + names], [line("2/v.png")])

    def splits(**options):
        rows = [row for block in source_of(tmp_path, **options).blocks() for row in block.rows]
        assert rows[-1].path == "2/v.png"
        return [row.splits for row in rows[:-1]], rows[-1].splits

    training, validation = splits(val_fraction=0.2, seed=1)
    assert validation == ("test",)
    assert training[:400] == training[400:]
    assert set(training) == {("train",), ("val",)}
    assert 50 < training[:400].count(("val",)) < 110  # 80 expected, standard deviation 8
    assert splits(val_fraction=0.2, seed=1)[0] == training
    assert splits(val_fraction=0.2, seed=2)[0] != training
    assert splits() == ([("train",)] * 800, ("val", "test"))


def test_csvs_and_images_one_folder_down_and_missing_csv_is_told(tmp_path):
    photo(tmp_path / "Manually_Annotated", "1/a.png")
    lists = tmp_path / "Manually_Annotated_file_lists"
    lists.mkdir()
    (lists / "training.csv").write_text("\ufeff" + HEADER + "\r\n" + line("1/a.png") + "\r\n")
    source = source_of(tmp_path)
    assert read(source) == ([("1/a.png", 0, 6)], [])
    assert any("validation.csv is not there" in note for note in source.notes)


def test_columns_in_another_order_are_refused(tmp_path):
    source = source_of(release(tmp_path, [",".join((COLUMNS[0], *reversed(COLUMNS[1:]))), line("1/a.png")]))
    with pytest.raises(InputError, match="training.csv line 1: columns must be subDirectory_filePath, face_x"):
        list(source.blocks())


def test_only_rar_parts(tmp_path):
    parts = tmp_path / "Manually_Annotated_compressed"
    parts.mkdir()
    for part in ("02", "01"):
        (parts / f"Manually_Annotated.part{part}.rar").touch()
    (tmp_path / "training.csv").write_text(line("1/a.png"))
    with pytest.raises(InputError, match=r"unrar x Manually_Annotated\.part01\.rar") as error:
        source_of(tmp_path)
    assert str(parts) in str(error.value)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        source_of(tmp_path / "none")
    with pytest.raises(InputError, match="training.csv, validation.csv and Manually_.*train_set") as error:
        source_of(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "training.csv").touch()
    with pytest.raises(InputError, match="no folder Manually_Annotated_Images"):
        source_of(tmp_path)


def test_more_rows_than_a_block_keep_their_order_and_done_grows(tmp_path):
    release(tmp_path, [line(f"1/{index}.png") for index in range(600)], [line(f"2/{index}.png") for index in range(10)])
    blocks = list(source_of(tmp_path).blocks())
    assert [len(block.rows) for block in blocks] == [256, 256, 88, 10]
    assert [row.path for block in blocks for row in block.rows][255:258] == ["1/255.png", "1/256.png", "1/257.png"]
    # Bytes: 256 of 610 rows of about the same length, read ahead by at most 8 KiB.
    size = (tmp_path / "training.csv").stat().st_size + (tmp_path / "validation.csv").stat().st_size
    assert 256 / 610 - 0.01 < blocks[0].done < 256 / 610 + 0.01 + 8192 / size
    assert blocks[-1].done == 1.0


def test_fingerprint_follows_csv_face_and_splits(tmp_path):
    release(tmp_path, [line("1/a.png")])
    first = source_of(tmp_path).fingerprint()
    assert source_of(tmp_path).fingerprint() == first
    others = [
        source_of(tmp_path, face=FaceFormat(size=20, margin=0.1)), source_of(tmp_path, limits=PhotoLimits(min_bytes=1)),
        source_of(tmp_path, val_as=("train",)), source_of(tmp_path, class_names=CLASSES_WITH_CONTEMPT),
    ]  # fmt: skip
    assert all(other.fingerprint() != first for other in others)
    release(tmp_path, [line("1/a.png"), line("1/b.png")])
    assert source_of(tmp_path).fingerprint() != first


def npy_face(folder, n, expression, value=50, valence="0.5", landmarks=None):
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"images/{n}.jpg"), np.full((40, 40), value, np.uint8))
    for kind, array in (("exp", expression), ("val", valence), ("aro", -2.0), ("lnd", landmarks)):
        if array is not None:
            np.save(folder / f"annotations/{n}_{kind}.npy", array)


def test_npy_release(tmp_path):
    points = np.stack([np.arange(68), np.full(68, 30)], 1).astype(float)
    npy_face(tmp_path / "train_set", 10, "1", 200, landmarks=points.ravel())
    npy_face(tmp_path / "train_set", 9, 6, 100)
    npy_face(tmp_path / "train_set", 2, "7")
    (tmp_path / "train_set/images/2.jpg").unlink()
    npy_face(tmp_path / "val_set", 3, np.int64(0), 50)
    source = source_of(tmp_path)
    (block,) = source.blocks()
    faces = source.decode(block)
    assert faces.path == [
        "train_set/images/9.jpg", "train_set/images/10.jpg", "val_set/images/3.jpg", "val_set/images/3.jpg",
    ]  # fmt: skip
    assert faces.label.tolist() == [0, 3, 6, 6]
    assert faces.split.tolist() == [0, 0, 1, 2]
    assert faces.image.mean((1, 2)).tolist() == [100, 200, 50, 50]
    assert faces.valence.tolist() == [0.5] * 4 and np.isnan(faces.arousal).all()
    np.testing.assert_allclose(faces.landmarks[1], points / 2)  # 40 pixels become 20
    assert np.isnan(faces.landmarks[[0, 2, 3]]).all()
    assert (faces.box == -1).all()
    assert faces.skipped == []
    assert "AffectNet rows dropped by class: Contempt 1" in source.notes


def test_npy_release_lists_what_lacks(tmp_path):
    for n in range(5):
        npy_face(tmp_path / "val_set", n, 0)
    annotations = tmp_path / "val_set/annotations"
    (tmp_path / "val_set/images/1.jpg").unlink()
    (annotations / "2_exp.npy").unlink()
    (annotations / "3_exp.npy").write_bytes(b"\x93NUMPY\x01\x00")
    np.save(annotations / "4_exp.npy", "eleven")
    source = source_of(tmp_path / "val_set", val_as=("val",))
    faces, skipped = read(source)
    assert faces == [("val_set/images/0.jpg", 1, 6)]
    assert skipped == [
        ("val_set/images/1.jpg", "missing file"),
        ("val_set/images/2.jpg", "no annotation N_exp.npy"),
        ("val_set/images/3.jpg", "unreadable annotation N_exp.npy"),
        ("val_set/images/4.jpg", "unknown expression code 'eleven'"),
    ]
    assert any("train_set is not there" in note for note in source.notes)


def npy(header, data=b"\0" * 8):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


BAD_NPY = [
    npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (), "),
    npy(b"((((((((("),
    npy(b"\xff\xfe\0"),
    npy(b"{'descr': 'no such type', 'fortran_order': False, 'shape': (), }"),
    npy(b"{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (), }"),
    npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"),
    npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (), }", b"\0" * 7),
    npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }"),
    npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
    npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"),
    npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (), }"),
    npy(b"{'descr': '<U2', 'fortran_order': False, 'shape': (), }", b"3\0\0\0\0\0\x11\0"),
    npy(b"{'descr': '>U2', 'fortran_order': False, 'shape': (), }", b"\0\0\0003\0\x11\0\0"),
    npy(b"1 +" * 5000),
    b"",
]


@pytest.mark.parametrize("data", BAD_NPY)
def test_a_bad_npy_file_costs_its_own_row_only(tmp_path, data):
    for n in range(3):
        npy_face(tmp_path / "val_set", n, n)
    (tmp_path / "val_set/annotations/1_exp.npy").write_bytes(data)
    (tmp_path / "val_set/annotations/2_val.npy").write_bytes(data)
    source = source_of(tmp_path / "val_set", val_as=("val",))
    # Neutral is class 6 and Sadness class 4
    assert read(source) == (
        [("val_set/images/0.jpg", 1, 6), ("val_set/images/2.jpg", 1, 4)],
        [("val_set/images/1.jpg", "unreadable annotation N_exp.npy")],
    )
    (block,) = source.blocks()
    np.testing.assert_array_equal(source.decode(block).valence, [0.5, np.nan])


def test_npy_files_in_another_order_have_the_same_values(tmp_path):
    points = np.stack([np.arange(68), np.full(68, 30)], 1).astype(float)
    npy_face(tmp_path / "val_set", 0, np.array(["3"], ">U1"), valence=np.array([0.5], ">f4"), landmarks=points)
    npy_face(tmp_path / "val_set", 1, "3", landmarks=np.asfortranarray(points))
    (block,) = (source := source_of(tmp_path / "val_set", val_as=("val",))).blocks()
    faces = source.decode(block)
    # Surprise is class 5; 40 pixels become 20
    assert faces.label.tolist() == [5, 5] and faces.valence.tolist() == [0.5, 0.5] and faces.skipped == []
    np.testing.assert_allclose(faces.landmarks, [points / 2, points / 2])


def test_infinite_valence_in_an_npy_file_is_listed(tmp_path):
    npy_face(tmp_path / "val_set", 0, 0, valence=np.inf)
    npy_face(tmp_path / "val_set", 1, 0, valence="1e400")
    npy_face(tmp_path / "val_set", 2, 0)
    faces, skipped = read(source_of(tmp_path / "val_set", val_as=("val",)))
    assert faces == [("val_set/images/2.jpg", 1, 6)]
    assert skipped == [(f"val_set/images/{n}.jpg", "valence or arousal is infinite") for n in (0, 1)]
