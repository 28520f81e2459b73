"""Image folders and csv lists: splits, class names, boxes, and what is listed as skipped."""

import os
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image
from pillow_heif import register_heif_opener

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


def test_photos_of_phones_are_read_upright(tmp_path):
    # two rows, dark above light, stored lying on the side as phones do it (EXIF 6: turn right)
    upright = np.repeat(np.array([20, 220], np.uint8), 32)[:, None].repeat(64, 1)
    lying = Image.fromarray(np.rot90(upright).copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    register_heif_opener()
    for label, name in (("happy", "a.heic"), ("sad", "b.avif"), ("sad", "c.jfif")):
        (tmp_path / label).mkdir(exist_ok=True)
        kind = {"heic": "HEIF", "avif": "AVIF", "jfif": "JPEG"}[name.partition(".")[2]]
        lying.convert("RGB").save(tmp_path / label / name, kind, exif=exif.tobytes())
    (block,) = folder(tmp_path, val_fraction=0, test_fraction=0).blocks()
    decoded = folder(tmp_path, val_fraction=0, test_fraction=0).decode(block)
    assert sorted(decoded.path) == ["happy/a.heic", "sad/b.avif", "sad/c.jfif"] and not decoded.skipped
    for image in decoded.image:
        assert image[:3].mean() < 60 and image[-3:].mean() > 180


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
    faces, skipped = read(folder(root, val_fraction=0))
    assert set(faces) == {"train/cat/a.png", "train/dog/a.png", "train/dog/in.png"}
    assert sorted(skipped) == [
        ("extra", "folder is not train, val or test"),
        ("train/cat/notes.txt", "not an image file name"),
        ("train/cat/zero.jpg", "zero bytes"),
        ("train/dog/inner", "folder inside a class folder"),
        ("train/dog/out.png", "link leads out of the class folder"),
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


def test_csv_rows_with_too_many_cells_are_listed_and_not_cut(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    text = "\ufeffpath,label,split\n\na.png,cat,train,\nb,c.png,cat,train\nb.png,cat\n"
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    faces, skipped = read(table(tmp_path / "list.csv", val_fraction=0))
    assert faces == {"a.png": ("train", "cat")}
    assert skipped == [
        ("list.csv line 4", "4 columns, expected 3"), ("list.csv line 5: b.png", "unknown split ''"),
    ]  # fmt: skip


def test_csv_line_whose_quote_stays_open_is_listed_and_swallows_no_other(tmp_path):
    for name in "abcdef":
        picture(tmp_path / f"{name}.png")
    lines = [
        "path,label,split", "a.png,cat,train", 'b.png,"cat,train', 'c.png,"cat",train', 'd.png,"dog,train',
        "e.png,dog,train", 'f.png,"cat"s,train', "x" * 200_000, '"a.png","dog" , train',
    ]  # fmt: skip
    (tmp_path / "list.csv").write_text("\n".join(lines))
    source = table(tmp_path / "list.csv", val_fraction=0)
    (block,) = source.blocks()
    faces = source.decode(block)
    assert [(path, source.class_names[label]) for path, label in zip(faces.path, faces.label, strict=True)] == [
        ("a.png", "cat"), ("c.png", "cat"), ("e.png", "dog"), ("a.png", "dog"),
    ]  # fmt: skip
    open_quote = "a quote that is not closed, or a line break in a cell"
    assert [(row.path, row.reason) for row in faces.skipped] == [
        ("list.csv line 3", open_quote), ("list.csv line 5", open_quote), ("list.csv line 7", open_quote),
        ("list.csv line 8", "a line of more than 100,000 characters"),
    ]  # fmt: skip


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
    picture(tmp_path / "elsewhere/b.png")
    (tmp_path / "list.csv").write_text("path,label,split\na.png,0,train\nb.png,1.0,train\nb.png,-1,train\n")
    with pytest.raises(InputError, match="integer labels.*data.classes"):
        table(tmp_path / "list.csv")
    source = table(tmp_path / "list.csv", class_names=("cat", "dog"), root=tmp_path / "elsewhere", val_fraction=0)
    expected = {"a.png": ("train", "cat"), "b.png": ("train", "dog")}
    assert read(source) == (expected, [("list.csv line 4: b.png", "unknown label '-1'")])


# RAF-DB as it is on Kaggle: what its numbers mean
RAF_DB = ("Surprise", "Fear", "Disgust", "Happy", "Sad", "Angry", "Neutral")


def test_numbers_from_one_are_not_shifted_in_a_csv(tmp_path):
    for number in range(1, 8):
        picture(tmp_path / f"{number}.png")
    lines = [f"{number}.png,{number},train" for number in range(7, 0, -1)]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(lines))
    source = table(tmp_path / "list.csv", class_names=RAF_DB, val_fraction=0)
    assert read(source) == ({f"{n}.png": ("train", name) for n, name in enumerate(RAF_DB, 1)}, [])
    assert source.notes[0] == (
        "labels of list.csv are numbers, taken as data.classes in its order, from 1: 1 Surprise, 2 Fear, 3 Disgust, "
        "4 Happy, 5 Sad, 6 Angry, 7 Neutral"
    )


def test_numbers_from_one_are_not_shifted_in_class_folders(tmp_path):
    for split in ("train", "test"):
        for number in range(1, 8):
            picture(tmp_path / f"{split}/{number}/a.png")
    source = folder(tmp_path, class_names=RAF_DB, val_fraction=0)
    expected = {f"{s}/{n}/a.png": (s, name) for s in ("train", "test") for n, name in enumerate(RAF_DB, 1)}
    assert read(source) == (expected, [])
    assert "from 1: 1 Surprise" in source.notes[0]


@pytest.mark.parametrize("numbers", [(2, 3), (0, 2), (0, 1), (0, 1, 2, 3), (1, 2, 3, 4), (1, 2), (999999, 1), (3,)])
def test_numbers_that_may_start_anywhere_are_refused(tmp_path, numbers):
    # three classes: only 0, 1, 2 and 1, 2, 3 say where they start
    for number in numbers:
        picture(tmp_path / f"folders/{number}/a.png")
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"a.png,{number}\n" for number in numbers))
    for source, path in ((folder, tmp_path / "folders"), (table, tmp_path / "list.csv")):
        with pytest.raises(InputError, match=r"neither 0\.\.2 nor 1\.\.3 for the 3 classes of data.classes") as caught:
            source(path, class_names=("cat", "dog", "bird"))
        assert ", ".join(map(str, sorted(numbers))) in str(caught.value) and "\n" not in str(caught.value)


def test_plain_numbers_as_class_names_are_said(tmp_path):
    for number in range(11):
        picture(tmp_path / f"{number}/a.png")
    source = folder(tmp_path, val_fraction=0, test_fraction=0)
    assert source.class_names == tuple(map(str, range(11)))  # 10 behind 9, not behind 1
    assert read(source)[0]["10/a.png"] == ("train", "10")
    assert source.notes[0].startswith("class folders are plain numbers, so the classes are called 0, 1, 2, 3,")
    # named so on purpose: these are no numbers to be counted from somewhere
    assert not any("number" in note for note in folder(tmp_path, class_names=source.class_names).notes)


def test_a_number_of_5000_digits_is_an_unknown_label(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text(f"path,label,split\na.png,cat,train\na.png,{'9' * 5000},train\n")
    source = table(tmp_path / "list.csv", class_names=("cat",), val_fraction=0)
    assert read(source)[0] == {"a.png": ("train", "cat")}


@pytest.mark.parametrize(
    ("columns", "box", "expected"),
    [
        ("face_x,face_y,face_width,face_height", "3,4,10,20", (3, 4, 10, 20)),
        ("x,y,width,height", "3,4,10,20", (3, 4, 10, 20)),
        ("XMin,YMin,XMax,YMax", "3,4,13,24", (3, 4, 10, 20)),
        # what object detection calls the photo's size stands beside the box
        ("width,height,xmin,ymin,xmax,ymax", "640,480,3,4,13,24", (3, 4, 10, 20)),
        ("image_width,faces,eye_left_x", "640,1,5", None),
    ],
)
def test_box_columns_that_are_read(tmp_path, columns, box, expected):
    (tmp_path / "list.csv").write_text(f"path,label,{columns}\na.png,cat,{box}\n")
    (block,) = table(tmp_path / "list.csv").blocks()
    assert block.rows[0].box == expected


@pytest.mark.parametrize(
    ("columns", "unread"),
    [
        ("x1,y1,x2,y2", "x1, y1, x2, y2"), ("left,top,right,bottom", "left, top, right, bottom"), ("bbox", "bbox"),
        ("cx,cy,w,h", "cx, cy, w, h"), ("x_center,y_center,width,height", "x_center, y_center, width, height"),
        ("xmin,ymin,xmax", "xmin, ymin, xmax"), ("width,height", "width, height"),
        ("bbox_x1,bbox_y1,bbox_x2,bbox_y2", "bbox_x1, bbox_y1, bbox_x2, bbox_y2"),
        ("x,y,width,height,xmin,ymin,xmax,ymax", "x, y, width, height, xmin, ymin, xmax, ymax"),
        ("face_x,face_y,face_width,face_height,box_left", "box_left"),
    ],
)  # fmt: skip
def test_a_box_that_is_not_read_is_refused(tmp_path, columns, unread):
    cells = ",".join("5" for _ in columns.split(","))
    (tmp_path / "list.csv").write_text(f"path,label,{columns}\na.png,cat,{cells}\n")
    with pytest.raises(InputError, match=f"list.csv: {unread} looks like a box") as caught:
        table(tmp_path / "list.csv")
    assert "\n" not in str(caught.value)


def test_boxes_in_fractions_of_the_photo_are_refused(tmp_path):
    (tmp_path / "list.csv").write_text("path,label,x,y,width,height\na.png,cat,.2,.2,.5,.5\nb.png,cat,0,0,1,1\n")
    with pytest.raises(InputError, match="look like fractions"):
        table(tmp_path / "list.csv")


@pytest.mark.parametrize("number", ["9" * 400, "1e308", "inf", "-inf", "nan", "NULL"])
def test_box_numbers_out_of_range_are_listed(tmp_path, number):
    picture(tmp_path / "a.png")
    lines = [f"a.png,cat,train,{number},2,4,4", f"a.png,cat,train,2,2,4,{number}", "a.png,cat,train,2,2,4,4"]
    (tmp_path / "list.csv").write_text("path,label,split,x,y,width,height\n" + "\n".join(lines))
    faces, skipped = read(table(tmp_path / "list.csv", val_fraction=0))
    assert len(faces) == 1 and [path for path, _ in skipped] == ["list.csv line 2: a.png", "list.csv line 3: a.png"]
    assert all(reason.startswith("box ") for _, reason in skipped)


@pytest.mark.parametrize("names", [("FER2013Train", "FER2013Valid", "FER2013Test"), ("train", "test"), ("cat", "val")])
def test_split_folders_that_hold_pictures_are_no_classes(tmp_path, names):
    for name in names:
        picture(tmp_path / name / "fer0000001.png")
    with pytest.raises(InputError, match=f"{sorted(names)[-1]}.*: splits by their names") as caught:
        folder(tmp_path)
    assert "\n" not in str(caught.value)
    # a class may be called so if that is said
    assert folder(tmp_path, class_names=names).class_names == names


def test_class_and_split_folders_may_be_links(tmp_path):
    picture(tmp_path / "elsewhere/a.png")
    picture(tmp_path / "elsewhere/deep/b.png")
    picture(tmp_path / "secret/c.png")
    (tmp_path / "elsewhere/same.png").symlink_to(tmp_path / "elsewhere/a.png")
    (tmp_path / "elsewhere/out.png").symlink_to(tmp_path / "secret/c.png")
    (tmp_path / "elsewhere/deep.png").symlink_to("deep/b.png")
    picture(tmp_path / "data/dog/d.png")
    (tmp_path / "data/cat").symlink_to("../elsewhere", target_is_directory=True)
    faces, skipped = read(folder(tmp_path / "data", val_fraction=0, test_fraction=0))
    assert faces == {
        "cat/a.png": ("train", "cat"), "cat/same.png": ("train", "cat"), "cat/deep.png": ("train", "cat"),
        "dog/d.png": ("train", "dog"),
    }  # fmt: skip
    assert skipped == [
        ("cat/deep", "folder inside a class folder"), ("cat/out.png", "link leads out of the class folder"),
    ]  # fmt: skip
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/train").symlink_to(tmp_path / "data", target_is_directory=True)
    assert len(read(folder(tmp_path / "splits", val_fraction=0))[0]) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,cat\n", "lacks the column path; it has file, label"),
        ("path,label,face_x,face_y\na.png,cat,1,2\n", "face_x, face_y looks like a box, but a box is one of face_x"),
        ("", "can't be read as csv"),
        ("path,label,label\na.png,cat,dog\n", "several columns are called label"),
        ('path,"label\na.png,cat\n', "first line can't be read as names of columns: a quote that is not closed"),
        ("a" * 200_000 + ",label\na.png,cat\n", "names of columns: a line of more than 100,000 characters; correct it"),
        (b"path,label\na.png,cat\nb\xff.png,cat\n", "can't be read as csv: line 3 is not UTF-8; save the file as text"),
        (
            "path,label\na.png,cat\n".encode("utf-16"),
            "can't be read as csv: line 1 is not UTF-8; save the file as text",
        ),
    ],
)
def test_csv_that_is_refused(tmp_path, text, message):
    (tmp_path / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as error:
        table(tmp_path / "list.csv")
    assert "list.csv" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="does not exist"):
        table(tmp_path / "none.csv")
