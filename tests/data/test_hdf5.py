"""Prepared files that are not as they should be: one line that says what is amiss, before any row of them is used."""

import json
import re

import h5py
import numpy as np
import pytest
import torch

from fer.data.loading.datamodule import FaceDataModule
from fer.data.readers.combine import PreparedSource
from fer.data.source import FaceFormat, empty_faces
from fer.data.storage.hdf5 import is_store, opened, read_column, read_info, write_store
from fer.data.storage.lazy_images import DiskImages
from fer.data.storage.verify import verify
from fer.errors import InputError
from fer.inspection.contents import examine
from tests.conftest import write_tiny


@pytest.fixture
def file(tmp_path):
    """A prepared file of 20 x 20 grey faces: 14 train, 7 val."""
    return write_tiny(tmp_path / "a.h5", {"train": 14, "val": 7})


def replace(group, name, values, **options):
    del group[name]
    group.create_dataset(name, data=values, **options)


def refused(file, message, read=read_info):
    with pytest.raises(InputError) as caught:
        read(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ") and message in text and "\n" not in text
    assert "make it again with `" in text


@pytest.mark.parametrize(
    "name", ["class_names", "sources", "size", "color", "margin", "drawn", "counts", "duplicates", "made_by"]
)
def test_a_missing_attribute_is_named(file, name):
    with h5py.File(file, "a") as store:
        del store.attrs[name]
    refused(file, f"it has no attribute {name}")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("class_names", "Happy", "class_names='Happy' is not a list of texts"),
        ("class_names", [1, 2, 3], "class_names=[1, 2, 3] is not a list of texts"),
        ("class_names", ["a"] * 7, "class_names=['a', 'a', 'a', 'a', 'a', 'a', 'a'] is not a list of 1 to 10,000 diff"),
        ("class_names", ["a", "b"], "counts.train.tiny is not a number of rows for each class"),
        ("sources", ["other"], "counts.train is not of a split and of sources of the file"),
        ("sources", [str(i) for i in range(257)], "sources: 257 of them, not 1 to 256"),
        ("size", 10**7, "face.size=10000000 is not a whole number of 1 to 1024 pixels"),
        ("size", -1, "face.size=-1 is not a whole number"),
        ("size", "20", "face.size='20' is not a whole number"),
        ("size", [20, 20], "face.size=[20, 20] is not a whole number"),
        ("size", 19, "train/image is uint8 (14, 20, 20), not uint8 (14, 19, 19)"),
        ("color", "rgb", "train/image is uint8 (14, 20, 20), not uint8 (14, 20, 20, 3)"),
        ("color", "blue", "face.color='blue' is not grey or rgb"),
        ("margin", float("nan"), "face.margin=nan is not a fraction of 0 to 2"),
        ("margin", "wide", "face.margin='wide' is not a fraction"),
        ("drawn", "yes", "drawn='yes' is not true or false"),
        ("counts", "{", "counts is not a mapping as JSON"),
        ("counts", "[" * 100_000, "counts is not a mapping as JSON"),
        ("counts", 7, "counts is not a mapping as JSON"),
        ("counts", '{"dev": {}}', "counts.dev is not of a split"),
        ("counts", '{"train": {"tiny": [1, -1, 1, 1, 1, 1, 1]}}', "counts.train.tiny is not a number of rows"),
        ("counts", '{"train": {"tiny": [2, 2, 2, 2, 2, 2, 2]}}', "its splits are ['train', 'val'], but counts tells"),
        ("duplicates", '{"train": "many"}', "duplicates are not numbers of rows"),
        ("made_by", "[]", "made_by is not a mapping as JSON"),
    ],
)
def test_an_attribute_of_another_type_or_out_of_range_is_named(file, name, value, message):
    with h5py.File(file, "a") as store:
        store.attrs[name] = value
    refused(file, message)


@pytest.mark.parametrize("name", ["image", "label", "source", "path", "face", "row", "box", "annotation"])
def test_a_missing_column_is_named(file, name):
    with h5py.File(file, "a") as store:
        del store["val"][name]
    refused(file, f"it has no column val/{name}")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("image", np.zeros((14, 20, 20), np.float32), "train/image is float32 (14, 20, 20), not uint8 (14, 20, 20)"),
        ("image", np.zeros((13, 20, 20), np.uint8), "train/image is uint8 (13, 20, 20), not uint8 (14, 20, 20)"),
        ("label", np.zeros((14, 1), np.int64), "train/label is int64 (14, 1), not int64 (14,)"),
        ("label", np.zeros(14, ">i8"), "train/label is >i8 (14,), not int64 (14,)"),
        ("label", np.zeros(14, np.float32), "train/label is float32 (14,), not int64 (14,)"),
        ("source", np.zeros(14, np.int64), "train/source is int64 (14,), not uint8 (14,)"),
        ("path", np.zeros(14, np.int64), "train/path is int64 (14,), not text (14,)"),
        ("face", np.zeros(15, np.int64), "train/face is int64 (15,), not int64 (14,)"),
        ("box", np.zeros((14, 5), np.int32), "train/box is int32 (14, 5), not int32 (14, 4)"),
    ],
)
def test_a_column_of_another_shape_or_type_is_named(file, name, values, message):
    with h5py.File(file, "a") as store:
        replace(store["train"], name, values)
    refused(file, message)


def test_optional_columns_are_checked_where_they_are(file):
    with h5py.File(file, "a") as store:
        store["val"].create_dataset("votes", (7, 10), np.uint8, data=np.ones((7, 10), np.uint8))
    assert read_info(file).rows("val") == 7
    with h5py.File(file, "a") as store:
        replace(store["val"], "votes", np.ones((7, 9), np.uint8))
    refused(file, "val/votes is uint8 (7, 9), not uint8 (7, 10)")


@pytest.mark.parametrize("chunks", [None, (2, 20, 20)])
def test_values_that_were_never_written_are_not_black_faces(file, chunks):
    with h5py.File(file, "a") as store:
        del store["train/image"]
        store["train"].create_dataset("image", (14, 20, 20), np.uint8, chunks=chunks)
    refused(file, "values of train/image are missing")


def test_repacked_columns_are_read(file):
    faces = read_column(file, "train", "image")
    with h5py.File(file, "a") as store:
        replace(store["train"], "image", faces, chunks=(5, 20, 20), compression="gzip")
    assert np.array_equal(read_column(file, "train", "image"), faces)
    assert verify(file).endswith("all 21 rows are what was written (14 train, 7 val)")


def test_a_cut_file_is_refused(file):
    content = file.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 600, 9):
        file.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"a\.h5: .*; make it again with `"):
            read_info(file)


@pytest.mark.parametrize(("name", "value", "most"), [("label", 7, 6), ("label", -1, 6), ("source", 1, 0)])
def test_labels_and_sources_out_of_range_are_refused_as_a_split_is_read(file, name, value, most):
    with h5py.File(file, "a") as store:
        store["train"][name][9] = value
    message = f"1 values of train/{name} are not in 0..{most}, the first in row 9"
    refused(file, message, lambda path: read_column(path, "train", name))
    refused(file, message, lambda path: PreparedSource(path, FaceFormat(20)))
    if name == "label":
        refused(file, message, lambda path: FaceDataModule(path, 4, keep="memory").setup("fit"))
        refused(file, message, examine)


def test_chunks_that_cannot_be_unpacked_are_one_line_wherever_they_are_read(file):
    faces = read_column(file, "train", "image")
    with h5py.File(file, "a") as store:
        replace(store["train"], "image", faces, chunks=(14, 20, 20), compression="gzip")
        chunk = store["train/image"].id.get_chunk_info(0)
    content = bytearray(file.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    file.write_bytes(content)

    def rows(path):
        with opened(path) as store:
            store["train/image"][:3]

    for read in (rows, examine, lambda path: DiskImages(path, "train")[torch.arange(3)]):
        refused(file, "a damaged HDF5 file, of which not all can be read", read)


def test_paths_that_are_no_text_are_refused(file):
    content = file.read_bytes()
    assert content.count(b"train-0-3") == 1
    file.write_bytes(content.replace(b"train-0-3", b"train-0-\xff"))
    refused(file, "a damaged HDF5 file", lambda path: read_column(path, "train", "path"))


def test_a_broken_prepared_file_is_not_taken_for_raw_data(file):
    with h5py.File(file, "a") as store:
        del store.attrs["size"]
    assert is_store(file)


@pytest.mark.parametrize("color", ["grey", "rgb"])
def test_verify_names_the_rows_that_changed(tmp_path, run, color):
    file = write_tiny(tmp_path / "a.h5", {"train": 14, "val": 7}, FaceFormat(20, color))
    assert run("prepare.py", f"verify={file}", cwd=tmp_path).stdout == (
        f"{file}: all 21 rows are what was written (14 train, 7 val)\n"
    )
    with h5py.File(file, "a") as store:
        # one bit of one pixel, and a row's name
        at = (3, 5, 5) if color == "grey" else (3, 5, 5, 1)
        store["train/image"][at] ^= 1
        store["val/path"][6] = "elsewhere"
    done = run("prepare.py", f"verify={file}", cwd=tmp_path, code=2)
    found = "2 of 21 rows are not what was written: train row 3 (pixels), val row 6 (source and path)"
    assert re.fullmatch(rf"error: {re.escape(f'{file}: {found}')}; copy the file again, or .*\n", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_verify_counts_labels_and_names_five_rows(file):
    with h5py.File(file, "a") as store:
        store["train/image"][:] = 0
    with pytest.raises(InputError, match=r": 14 of 21 rows are .*row 3 \(pixels\), train row 4 \(pixels\), \.\.\.; "):
        verify(file)
    with h5py.File(file, "a") as store:
        # in range, but another class has the row
        store["train/label"][0] = 5
    with pytest.raises(InputError, match=r"labels or sources of train are not as many as counts tells"):
        verify(file)


@pytest.fixture
def annotated(tmp_path):
    """A prepared file of 4 train faces with all that can be known of a face, written by the writer."""
    faces = empty_faces(4, FaceFormat(20))
    faces.label[:], faces.path = [0, 1, 0, 1], ["0", "1", "2", "3"]
    faces.box[:], faces.valence[:], faces.arousal[:] = [1, 2, 3, 4], 0.5, -0.25
    faces.landmarks[1:], votes = 7.5, np.arange(40, dtype=np.uint8).reshape(4, 10)
    names = ("Sad", "Happy")
    write_store(tmp_path / "a.h5", lambda: [faces], names, ("mine",), FaceFormat(20), False, {}, votes)
    return tmp_path / "a.h5"


@pytest.mark.parametrize("name", ["box", "valence", "arousal", "landmarks", "votes"])
def test_verify_sees_a_changed_bit_of_what_is_known_of_a_face(annotated, name):
    assert verify(annotated) == f"{annotated}: all 4 rows are what was written (4 train)"
    with h5py.File(annotated, "a") as store:
        values = store["train"][name][:]
        values[2:3].view(np.uint8).flat[0] ^= 1
        store["train"][name][:] = values
    what = r"train row 2 \(label or box or valence or arousal or landmarks or votes\)"
    with pytest.raises(InputError, match=rf": 1 of 4 rows are not what was written: {what}; copy the file again"):
        verify(annotated)


def test_verify_sees_labels_that_changed_places(annotated):
    with h5py.File(annotated, "a") as store:
        # as many of each class as before
        store["train/label"][:2] = [1, 0]
    with pytest.raises(
        InputError, match=r"2 of 4 rows are not what was written: train row 0 \(label or .*, train row 1 "
    ):
        verify(annotated)


def test_a_column_that_had_a_hash_and_is_gone_is_named(annotated):
    with h5py.File(annotated, "a") as store:
        del store["train/valence"]
    refused(annotated, "it has no column train/valence")


@pytest.mark.parametrize("names", ["box", ["box", "label"], ["label", "label"], ["image"], [1]])
def test_what_cannot_be_the_columns_with_a_hash_is_refused(annotated, names):
    with h5py.File(annotated, "a") as store:
        store.attrs["hashed"] = names
    refused(annotated, "are not columns of label, box, valence, arousal, landmarks, votes in this order")


def test_verify_says_what_it_cannot_check_of_an_older_file(annotated):
    with h5py.File(annotated, "a") as store:
        del store["train/annotation"], store.attrs["hashed"]
    assert read_info(annotated).hashed == ()
    assert verify(annotated) == (
        f"{annotated}: all 4 rows are what was written (4 train); it has no hash of label, box, valence, arousal, "
        "landmarks, votes, which could not be checked row by row"
    )


def test_made_by_is_kept_as_it_is(file):
    with h5py.File(file, "a") as store:
        store.attrs["made_by"] = json.dumps({"val_fraction": 0.1})
    assert read_info(file).made_by == {"val_fraction": 0.1}
