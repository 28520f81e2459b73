"""Image folders and csv lists: splits, class names, boxes, and what is listed as skipped."""

import os
from collections import Counter

import cv2
import numpy as np
import pytest

from fer.data.readers.image_folder import folder_source
from fer.data.readers.image_table import table_source
from fer.data.source import FaceFormat, PhotoLimits
from fer.data.split import stratified_split
from fer.errors import InputError
from fer.labels import CLASSES, CLASSES_WITH_CONTEMPT

FACE = FaceFormat(size=8)


def picture(file, value=100):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.full((8, 8), value, np.uint8))


def folder(root, **options):
    return folder_source(root, FACE, PhotoLimits(), **options)


def table(path, **options):
    return table_source(path, FACE, PhotoLimits(), **options)


def read(source):
    """Return {path: (split, class name)} and [(path, reason)] after decoding everything."""
    faces, skipped = {}, []
    for block in source.blocks():
        decoded = source.decode(block)
        for path, split, label in zip(decoded.path, decoded.split, decoded.label, strict=True):
            assert path not in faces
            faces[path] = (("train", "val", "test")[split], source.class_names[label])
        skipped += [(row.path, row.reason) for row in decoded.skipped]
        assert len(decoded.image) == len(decoded.path)
    assert block.done == 1.0
    return faces, skipped


def splits_without_decoding(source):
    return {row.path: row.splits[0] for block in source.blocks() for row in block.rows}


def test_split_folders_in_any_spelling_and_known_classes(tmp_path):
    picture(tmp_path / "Training/happiness/a.jpg")
    picture(tmp_path / "Training/ANGER/b.PNG")
    picture(tmp_path / "valid/Happy/c.bmp")
    picture(tmp_path / "valid/angry/d.tiff")
    picture(tmp_path / "PrivateTest/joy/e.webp")
    picture(tmp_path / "PrivateTest/angry/f.JPEG")
    source = folder(tmp_path)
    assert source.names == (tmp_path.name,)
    assert source.class_names == CLASSES
    assert read(source) == ({
        "Training/happiness/a.jpg": ("train", "Happy"), "Training/ANGER/b.PNG": ("train", "Angry"),
        "valid/Happy/c.bmp": ("val", "Happy"), "valid/angry/d.tiff": ("val", "Angry"),
        "PrivateTest/joy/e.webp": ("test", "Happy"), "PrivateTest/angry/f.JPEG": ("test", "Angry"),
    }, [])  # fmt: skip
    assert source.notes == []


def test_contempt_makes_eight_classes_and_other_words_stay(tmp_path):
    picture(tmp_path / "a/sad/a.png")
    picture(tmp_path / "a/contempt/b.png")
    assert folder(tmp_path / "a").class_names == CLASSES_WITH_CONTEMPT
    picture(tmp_path / "b/sad/a.png")
    picture(tmp_path / "b/bored/b.png")
    source = folder(tmp_path / "b", val_fraction=0, test_fraction=0)
    assert source.class_names == ("bored", "sad")
    assert set(read(source)[0].values()) == {("train", "bored"), ("train", "sad")}


def test_fer2013_image_folder_copy(tmp_path):
    for index in range(20):
        picture(tmp_path / f"train/angry/{index}.jpg")
        picture(tmp_path / f"train/happy/{index}.jpg")
    picture(tmp_path / "test/angry/0.jpg")
    picture(tmp_path / "test/happy/0.jpg")
    source = folder(tmp_path, source_name="fer2013-folder")
    faces, _ = read(source)
    # 10 % of the 20 of each class of train; test stays as it is.
    assert Counter(faces.values()) == {
        ("train", "Angry"): 18, ("val", "Angry"): 2, ("test", "Angry"): 1,
        ("train", "Happy"): 18, ("val", "Happy"): 2, ("test", "Happy"): 1,
    }  # fmt: skip
    assert source.notes == ["no val folder: 10% of each class of train is val, drawn by seed 0"]
    assert source.names == ("fer2013-folder",)
    assert folder(tmp_path, val_fraction=0).notes == ["no val folder: no val rows"]


def test_class_folders_are_divided_by_class_and_seed(tmp_path):
    for name, n in (("cat", 40), ("dog", 20)):
        for index in range(n):
            picture(tmp_path / name / f"{index}.png")
    source = folder(tmp_path, val_fraction=0.1, test_fraction=0.25)
    splits = splits_without_decoding(source)
    assert Counter((path[:3], split) for path, split in splits.items()) == {
        ("cat", "train"): 26, ("cat", "val"): 4, ("cat", "test"): 10,
        ("dog", "train"): 13, ("dog", "val"): 2, ("dog", "test"): 5,
    }  # fmt: skip
    assert source.class_names == ("cat", "dog")
    assert "65% train, 10% val and 25% test by seed 0" in source.notes[0]
    assert splits_without_decoding(folder(tmp_path, test_fraction=0.25)) == splits
    assert splits_without_decoding(folder(tmp_path, test_fraction=0.25, seed=1)) != splits
    with pytest.raises(InputError, match="sum to less than 1"):
        folder(tmp_path, val_fraction=0.5, test_fraction=0.5)


def test_stratified_split_does_not_depend_on_order():
    keys = [f"photo {index}" for index in range(100)]
    labels = [index % 2 for index in range(100)]
    forward = dict(zip(keys, stratified_split(keys, labels, 0.1, 0.2, 3), strict=True))
    backward = dict(zip(keys[::-1], stratified_split(keys[::-1], labels[::-1], 0.1, 0.2, 3), strict=True))
    assert forward == backward
    assert Counter(forward.values()) == {"train": 70, "val": 10, "test": 20}


def test_what_is_not_taken_is_listed(tmp_path):
    root = tmp_path / "data"
    picture(root / "train/cat/a.png")
    picture(root / "train/dog/a.png")
    picture(tmp_path / "outside/secret.png")
    (root / "train/cat/zero.jpg").touch()
    (root / "train/cat/notes.txt").touch()
    (root / "train/cat/.DS_Store").touch()
    (root / "train/cat/Thumbs.db").touch()
    (root / "train/loose.png").touch()
    (root / "extra/cat").mkdir(parents=True)
    (root / "__MACOSX/cat").mkdir(parents=True)
    (root / "train/dog/inner").mkdir()
    (root / "train/dog/out.png").symlink_to(tmp_path / "outside/secret.png")
    (root / "train/dog/in.png").symlink_to(root / "train/dog/a.png")
    (root / "train/bird").symlink_to(tmp_path / "outside", target_is_directory=True)
    faces, skipped = read(folder(root, val_fraction=0))
    assert set(faces) == {"train/cat/a.png", "train/dog/a.png", "train/dog/in.png"}
    assert sorted(skipped) == [
        ("extra", "folder is not train, val or test"),
        ("train/bird", "link leads out of the folder"),
        ("train/cat/notes.txt", "not an image file name"),
        ("train/cat/zero.jpg", "zero bytes"),
        ("train/dog/inner", "folder inside a class folder"),
        ("train/dog/out.png", "link leads out of the folder"),
        ("train/loose.png", "not in a class folder"),
    ]


def test_classes_must_agree_between_splits(tmp_path):
    for path in ("train/cat/a.png", "train/dog/a.png", "test/cat/a.png", "test/dogs/a.png"):
        picture(tmp_path / path)
    with pytest.raises(InputError, match="train and test in .* differ by dog, dogs"):
        folder(tmp_path)
    source = folder(tmp_path, class_names=("dog", "cat"), val_fraction=0)
    faces, skipped = read(source)
    assert faces["train/dog/a.png"] == ("train", "dog")
    assert skipped == [("test/dogs/a.png", "unknown label 'dogs'")]


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(InputError, match="none does not exist"):
        folder(tmp_path / "none")
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="no class folders"):
        folder(tmp_path)


def test_fingerprints_follow_files_and_options(tmp_path):
    picture(tmp_path / "cat/a.png")
    first = folder(tmp_path).fingerprint()
    assert folder(tmp_path).fingerprint() == first
    assert folder(tmp_path, seed=1).fingerprint() != first
    os.utime(tmp_path / "cat/a.png", (1, 1))
    assert folder(tmp_path).fingerprint() != first
    (tmp_path / "list.csv").write_text("path,label\ncat/a.png,cat\n")
    listed = table(tmp_path / "list.csv").fingerprint()
    assert table(tmp_path / "list.csv").fingerprint() == listed
    assert table(tmp_path / "list.csv", class_names=("cat", "dog")).fingerprint() != listed


def test_csv_with_split_and_box(tmp_path):
    image = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/a.png"), image)
    (tmp_path / "list.csv").write_text(
        "Label, path, face_x, face_y, face_width, face_height, split\n"
        "joy,photos/a.png,30,10,8,8,train\n"
        "sadness,photos\\a.png,2,30,8,8,PublicTest\n"
        "Angry,photos/a.png,0,0,8,8,testing\n"
        "Angry,photos/a.png,0,0,8,8,holdout\n"
        "hunger,photos/a.png,0,0,8,8,train\n"
        ",photos/a.png,0,0,8,8,train\n"
        "Angry,photos/a.png,NULL,0,8,8,train\n"
        "Angry,photos/a.png,0,0,0,8,train\n"
        "Angry,../list.csv,0,0,8,8,train\n"
        "Angry,photos/gone.png,0,0,8,8,train\n"
    )
    source = table(tmp_path / "list.csv", class_names=CLASSES)
    (block,) = source.blocks()
    faces = source.decode(block)
    grid = np.add.outer(np.arange(8), np.arange(8))
    np.testing.assert_array_equal(faces.image, [grid + 40, grid + 32, grid])
    assert faces.label.tolist() == [3, 4, 0]
    assert faces.split.tolist() == [0, 1, 2]
    assert faces.path == ["photos/a.png"] * 3
    assert [(row.path, row.reason) for row in faces.skipped] == [
        ("list.csv line 5: photos/a.png", "unknown split 'holdout'"),
        ("list.csv line 6: photos/a.png", "unknown label 'hunger'"),
        ("list.csv line 7: photos/a.png", "no label"),
        ("list.csv line 8: photos/a.png", "box is NULL or not four numbers"),
        ("list.csv line 9: photos/a.png", "empty box"),
        ("list.csv line 10: ../list.csv", "path leaves the data folder"),
        ("photos/gone.png", "missing file"),
    ]
    assert (block.done, source.names, source.notes) == (1.0, ("list",), [])


def test_csv_without_split_keeps_photos_whole(tmp_path):
    lines = [f"{index % 50}.png,{'cat' if index % 50 < 30 else 'dog'},{index // 50},0,4,4" for index in range(100)]
    (tmp_path / "list.csv").write_text("path,label,x,y,width,height\n" + "\n".join(lines))
    source = table(tmp_path / "list.csv", test_fraction=0.2)
    rows = [row for block in source.blocks() for row in block.rows]
    assert [row.splits for row in rows[:50]] == [row.splits for row in rows[50:]]
    # 30 photos of cats, 20 of dogs: a tenth and a fifth of each.
    assert Counter((row.label, *row.splits) for row in rows[:50]) == {
        (0, "train"): 21, (0, "val"): 3, (0, "test"): 6, (1, "train"): 14, (1, "val"): 2, (1, "test"): 4,
    }  # fmt: skip
    assert rows[99].box == (1, 0, 4, 4)
    assert source.class_names == ("cat", "dog")
    assert "no split column" in source.notes[0]


def test_csv_split_without_val_carves_it_from_train(tmp_path):
    lines = [f"{index}.png,cat,{'test' if index < 5 else 'train'}" for index in range(25)]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(lines))
    source = table(tmp_path / "list.csv", val_fraction=0.2, test_fraction=0.4)
    assert Counter(splits_without_decoding(source).values()) == {"test": 5, "val": 4, "train": 16}
    assert source.notes == ["no val rows: 20% of each class of train is val, drawn by seed 0"]


def test_csv_integer_labels_and_root(tmp_path):
    picture(tmp_path / "elsewhere/a.png")
    (tmp_path / "list.csv").write_text("path,label,split\na.png,1,train\na.png,2,train\n")
    with pytest.raises(InputError, match="integer labels.*data.classes"):
        table(tmp_path / "list.csv")
    source = table(tmp_path / "list.csv", class_names=("cat", "dog"), root=tmp_path / "elsewhere", val_fraction=0)
    assert read(source) == ({"a.png": ("train", "dog")}, [("list.csv line 3: a.png", "unknown label '2'")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,cat\n", "lacks the column path; it has file, label"),
        ("path,label,face_x,face_y\na.png,cat,1,2\n", "lacks the column face_width, face_height"),
        ("", "can't be read as csv"),
    ],
)
def test_csv_that_is_refused(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        table(tmp_path / "list.csv")
    assert "list.csv" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="does not exist"):
        table(tmp_path / "none.csv")
