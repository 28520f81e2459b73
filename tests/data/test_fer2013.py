import gzip
import lzma
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from fer.data.readers.fer2013 import fer2013_source, pixel_csv_source
from fer.data.readers.original_h5 import is_original_h5, original_h5_source
from fer.data.source import FaceFormat, PhotoLimits
from fer.errors import InputError

TINY = FaceFormat(size=2)
GOLDEN = b"""emotion,pixels,Usage
0,1 2 3 4,Training
6,255 254 0 100,PublicTest
3,9 10 99 101,PrivateTest
1,7 7 7 7,Training
"""
REAL = Path(__file__).parents[3] / "shared/data/fer2013/fer2013.csv.xz"


def write(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path


def read(source):
    """Return (path, label, split, pixels) of each row and (path, reason) of each skipped one."""
    rows, skipped = [], []
    for block in source.blocks():
        faces = source.decode(block)
        pixels = faces.image.reshape(len(faces.path), np.prod(faces.image.shape[1:])).tolist()
        rows += list(zip(faces.path, faces.label.tolist(), faces.split.tolist(), pixels, strict=True))
        skipped += [(entry.path, entry.reason) for entry in faces.skipped]
    return rows, skipped


GOLDEN_ROWS = [
    ("0", 0, 0, [1, 2, 3, 4]),
    ("1", 6, 1, [255, 254, 0, 100]),
    ("2", 3, 2, [9, 10, 99, 101]),
    ("3", 1, 0, [7, 7, 7, 7]),
]


def test_golden_rows(tmp_path):
    source = pixel_csv_source(write(tmp_path / "fer2013.csv", GOLDEN), TINY)
    assert read(source) == (GOLDEN_ROWS, [])
    assert source.names == ("fer2013",) and source.notes == []
    assert source.class_names == ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")
    (block,) = source.blocks()
    faces = source.decode(block)
    assert faces.image.dtype == np.uint8 and faces.image.shape == (4, 2, 2) and faces.source.tolist() == [0] * 4
    assert np.isnan(faces.valence).all() and np.isnan(faces.landmarks).all() and (faces.box == -1).all()


KAGGLE = b"""emotion, Usage, pixels
0,Training,1 2 3 4
6,PublicTest,255 254 0 100
3,PrivateTest,9 10 99 101
1,Training,7 7 7 7
"""


@pytest.mark.parametrize(
    "text",
    [
        KAGGLE,
        KAGGLE.replace(b",", b", "),
        GOLDEN.replace(b"\n", b"\r\n"),
        KAGGLE.replace(b"\n", b"\r\n"),
        GOLDEN.rstrip(b"\n"),
        GOLDEN.replace(b"\n", b"\n\n"),
        b"\xef\xbb\xbf" + GOLDEN,
        b"Usage,id,pixels,emotion\nTraining,a,1 2 3 4,0\nPublicTest,b,255 254 0 100,6\n"
        b'PrivateTest,"c,d",9 10 99 101,3\nTraining,e,7 7 7 7,1\n',
        b'"emotion","pixels","Usage"\n"0","1 2 3 4","Training"\n6,"255 254 0 100",PublicTest\r\n'
        b'"3",9 10 99 101,"PrivateTest"\n1,7 7 7 7,Training\n',
        GOLDEN.replace(b"Training", b"TRAINING").replace(b"Public", b"public").replace(b"PrivateTest", b" Test"),
        GOLDEN.replace(b"Training", b"train").replace(b"PublicTest", b"Validation"),
        # joined by cat: the header again, and one with another order
        b"emotion,pixels,Usage\n0,1 2 3 4,Training\nemotion,pixels,Usage\n6,255 254 0 100,PublicTest\n"
        b"emotion, Usage, pixels\n3,PrivateTest,9 10 99 101\nPixels,emotion,usage\n7 7 7 7,1,Training\n",
        # as other programs save it
        GOLDEN.replace(b"\n", b"\r"),
        GOLDEN.replace(b"\n", b"\r\r\n"),
        GOLDEN.replace(b",", b";"),
        GOLDEN.replace(b",", b"\t"),
        b'"emotion"\t"pixels"\t"Usage"\n0\t"1 2 3 4"\tTraining\n'
        + GOLDEN.partition(b"Training\n")[2].replace(b",", b"\t"),
        GOLDEN.decode().encode("utf-16"),
        GOLDEN.decode().replace("\n", "\r\n").encode("utf-16-le"),
        GOLDEN.decode().encode("utf-16-be"),
        GOLDEN.replace(b"1 2 3 4", b"1.0 2. 3.000 4").replace(b"255 254 0 100", b"2.55e+02 254.0 0.0e+00 1e2"),
        GOLDEN.replace(b"\n0,", b"\nanger,").replace(b"\n6,", b"\nNeutral,").replace(b"\n3,", b"\nJoy,"),
        GOLDEN.replace(b"\n0,", b"\n0.0,").replace(b"\n6,", b"\n6.0,").replace(b"\n3,", b"\n03,"),
    ],
)
def test_other_spellings_of_the_same_rows(tmp_path, text):
    assert read(pixel_csv_source(write(tmp_path / "a.csv", text), TINY)) == (GOLDEN_ROWS, [])


def packed(folder: Path, kind: str, text: bytes = GOLDEN) -> Path:
    path = folder / f"fer2013.{kind}"
    if kind.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fer2013/fer2013.csv", text)
            archive.writestr("__MACOSX/._fer2013.csv", b"\0\5\x16\7")
            archive.writestr("README", b"about")
    else:
        path.write_bytes({"csv.gz": gzip.compress, "csv.xz": lzma.compress}[kind](text))
    return path


@pytest.mark.parametrize("kind", ["csv.gz", "csv.xz", "csv.zip", "zip"])
def test_packed_is_the_same_as_plain(tmp_path, kind):
    source = pixel_csv_source(packed(tmp_path, kind), TINY)
    assert read(source) == (GOLDEN_ROWS, []) and source.names == ("fer2013",)


def test_zip_with_several_csvs(tmp_path):
    path = tmp_path / "challenges.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.csv", b"emotion,pixels\n0,1 1 1 1\n")
        archive.writestr("icml_face_data.csv", KAGGLE)
    source = pixel_csv_source(path, TINY)
    assert read(source)[0] == GOLDEN_ROWS and source.names == ("fer2013",)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", GOLDEN)
        archive.writestr("b.csv", GOLDEN)
    with pytest.raises(InputError, match=r"challenges\.zip: it holds a\.csv, b\.csv"):
        pixel_csv_source(path, TINY)


BAD = [
    (b"0,1 2 256 4,Training", "a pixel over 255"),
    (b"0,1 2 -3 4,Training", "a pixel that is not a whole number"),
    (b"0,1 2 x 4,Training", "a pixel that is not a whole number"),
    (b"0,1 2 3,Training", "3 pixels, expected 4"),
    (b"0,1 2 3 4 5,Training", "5 pixels, expected 4"),
    (b"0,,Training", "0 pixels, expected 4"),
    (b"7,1 2 3 4,Training", "label '7' is not in 0..6"),
    (b"-1,1 2 3 4,Training", "label '-1' is not in 0..6"),
    (b",1 2 3 4,Training", "label '' is not in 0..6"),
    (b"Contempt,1 2 3 4,Training", "label 'Contempt' is not in 0..6"),
    (b"hungry,1 2 3 4,Training", "label 'hungry' is not in 0..6"),
    (b"2.5,1 2 3 4,Training", "label '2.5' is not in 0..6"),
    (b"9" * 5000 + b",1 2 3 4,Training", "label '99999999999999999999' is not in 0..6"),
    (b"0,1 2 " + b"9" * 5000 + b" 4,Training", "a pixel over 255"),
    (b"0,1 2 " + b"9" * 5000 + b".0 4,Training", "a pixel that is not a whole number"),
    (b"0,1 2 0.5 4,Training", "a pixel that is not a whole number"),
    (b"0,1 2 256.0 4,Training", "a pixel over 255"),
    (b"0,1 2 1e999 4,Training", "a pixel that is not a whole number"),
    (b"0,1 2 nan 4,Training", "a pixel that is not a whole number"),
    (b'"0",1 2 3\r4,Training', "0 columns, expected 3"),
    (b"0,1 2 3 4,Extra", "Usage 'Extra' is not one of Training, PublicTest, PrivateTest"),
    (b"0,1 2 3 4", "2 columns, expected 3"),
    (b"0,1 2 3 4,Training,", "4 columns, expected 3"),
    (b"no pixels at all", "1 columns, expected 3"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_row_is_skipped_by_number_and_no_other(tmp_path, line, reason):
    lines = GOLDEN.splitlines(keepends=True)
    source = pixel_csv_source(write(tmp_path / "mine.csv", b"".join([*lines[:3], line + b"\n", *lines[3:]])), TINY)
    rows, skipped = read(source)
    assert skipped == [("2", reason)]
    assert rows == GOLDEN_ROWS[:2] + [(str(int(path) + 1), *rest) for path, *rest in GOLDEN_ROWS[2:]]
    (block,) = source.blocks()
    assert source.decode(block).skipped[0].source == "mine"


@pytest.mark.parametrize("text", [GOLDEN, KAGGLE, KAGGLE.replace(b",", b";"), b"\xef\xbb\xbf" + GOLDEN])
def test_without_a_header_line_the_columns_are_told_by_what_they_hold(tmp_path, text):
    bom = b"\xef\xbb\xbf" if text.startswith(b"\xef") else b""
    source = pixel_csv_source(write(tmp_path / "a.csv", bom + text.partition(b"\n")[2]), TINY)
    assert read(source) == (GOLDEN_ROWS, [])
    assert source.notes == ["a.csv: no header line: what its columns hold says which they are"]
    bare = b"".join(b",".join(line.split(b",")[:2]) + b"\n" for line in GOLDEN.splitlines()[1:])
    source = pixel_csv_source(write(tmp_path / "train.csv", bare), TINY)
    assert read(source) == ([(path, label, 0, pixels) for path, label, _, pixels in GOLDEN_ROWS], [])


@pytest.mark.parametrize("cut", [1, 3, 31])
def test_utf16_that_ends_within_a_character_is_refused(tmp_path, cut):
    path = write(tmp_path / "a.csv", GOLDEN.decode().encode("utf-16")[:-cut])
    with pytest.raises(InputError, match="damaged or incomplete"):
        read(pixel_csv_source(path, TINY))


def test_emotions_counted_from_one_are_not_shifted(tmp_path):
    lines = [b"%d,%d 2 3 4,Training\n" % (label, label) for label in (7, 3, 1, 2, 4, 5, 6)]
    path = write(tmp_path / "a.csv", b"emotion,pixels,Usage\n" + b"".join(lines))
    with pytest.raises(InputError, match=r"numbers up to 7 and none is 0, but FER2013's are 0\.\.6 for Angry,"):
        read(pixel_csv_source(path, TINY))
    # with a 0 they start there, and a 7 is a row of its own fault
    write(path, path.read_bytes() + b"0,0 2 3 4,Training\n")
    rows, skipped = read(pixel_csv_source(path, TINY))
    assert [row[1] for row in rows] == [3, 1, 2, 4, 5, 6, 0] and skipped == [("0", "label '7' is not in 0..6")]


def test_a_bad_first_row_does_not_set_the_size(tmp_path):
    text = b"emotion,pixels,Usage\n9,1,Training\n0,1 2 3,Training\n0,1 2 3 4,Training\n"
    assert [row[0] for row in read(pixel_csv_source(write(tmp_path / "a.csv", text), TINY))[0]] == ["2"]


@pytest.mark.parametrize("pixels", [b"1", b"1 2 3 4 5 6 7 8 9"])
def test_a_first_row_of_another_size_is_skipped_and_no_other(tmp_path, pixels):
    first, _, rest = GOLDEN.partition(b"\n")
    text = first + b"\n0," + pixels + b",Training\n" + rest
    rows, skipped = read(pixel_csv_source(write(tmp_path / "a.csv", text), TINY))
    assert rows == [(str(int(path) + 1), *row) for path, *row in GOLDEN_ROWS]
    assert skipped == [("0", f"{len(pixels.split())} pixels, expected 4")]


def test_a_column_of_splits_that_is_not_called_usage_is_refused(tmp_path):
    # else all rows would be train, the test rows too
    path = write(tmp_path / "a.csv", GOLDEN.replace(b"Usage", b"usgae"))
    with pytest.raises(
        InputError, match=r"a\.csv: row 0 has 'Training' in column 3, .* column Usage: give this column"
    ):
        pixel_csv_source(path, TINY)
    # what says no split may be there
    path = write(tmp_path / "b.csv", b"emotion,pixels,note\n0,1 2 3 4,blurred\n")
    assert read(pixel_csv_source(path, TINY)) == ([("0", 0, 0, [1, 2, 3, 4])], [])


def test_eight_classes_take_label_seven(tmp_path):
    path = write(tmp_path / "a.csv", b"emotion,pixels,Usage\n7,1 2 3 4,Training\n")
    classes = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral", "Contempt")
    assert [row[1] for row in read(pixel_csv_source(path, TINY, classes))[0]] == [7]


def test_absent_splits_and_usage_are_noted(tmp_path):
    source = pixel_csv_source(write(tmp_path / "fer2021.csv", b"emotion,pixels,Usage\n0,1 2 3 4,PublicTest\n"), TINY)
    assert read(source)[0] == [("0", 0, 1, [1, 2, 3, 4])] and source.names == ("fer2021",)
    expected = [
        "fer2021.csv: no Training rows: the file gives no train split",
        "fer2021.csv: no PrivateTest rows: the file gives no test split",
    ]
    assert source.notes == expected
    read(source)
    assert source.notes == expected

    source = pixel_csv_source(write(tmp_path / "train.csv", b"emotion,pixels\n0,1 2 3 4\n2,4 3 2 1\n"), TINY)
    assert read(source)[0] == [("0", 0, 0, [1, 2, 3, 4]), ("1", 2, 0, [4, 3, 2, 1])]
    assert source.notes[0] == "train.csv: no Usage column: all its rows are train"


def test_faces_are_fitted_when_another_format_is_wanted(tmp_path):
    path = write(tmp_path / "a.csv", b"emotion,pixels,Usage\n0,10 20 30 40,Training\n1,0 0 0 255,Training\n")
    assert [row[3] for row in read(pixel_csv_source(path, FaceFormat(size=1)))[0]] == [[25], [64]]  # means; 63.75
    colour = pixel_csv_source(path, FaceFormat(size=2, color="rgb"))
    assert read(colour)[0][0][3] == [10, 10, 10, 20, 20, 20, 30, 30, 30, 40, 40, 40]


def test_blocks_rows_and_progress(tmp_path):
    lines = [b"%d,%d 2 3 4,Training\n" % (row % 7, row % 256) for row in range(600)]
    lines.insert(300, b"emotion,pixels,Usage\n")
    text = b"emotion,pixels,Usage\n" + b"".join(lines)
    for path in (write(tmp_path / "a.csv", text), packed(tmp_path, "csv.gz", text), packed(tmp_path, "zip", text)):
        source = pixel_csv_source(path, TINY)
        blocks = list(source.blocks())
        assert [len(block.rows) for block in blocks] == [256, 256, 88]
        done = [block.done for block in blocks]
        assert 0 < done[0] <= done[1] <= done[2] == 1.0
        rows, _ = read(source)
        assert [(row[0], row[1], row[3][0]) for row in rows] == [(str(row), row % 7, row % 256) for row in range(600)]


def test_counts_of_a_whole_fer2021(tmp_path):
    # as the original `cat` makes it: AffectNet's training and validation rows, then FER2013 with its own header line
    header = b"emotion,pixels,Usage\n"
    parts = [
        header, b"3,5 5 5 5,Training\n" * 283_901, header, b"6,6 6 6 6,Training\n" * 3_500,
        header, b"0,7 7 7 7,Training\n" * 28_709, b"1,8 8 8 8,PublicTest\n" * 3_589,
        b"2,9 9 9 9,PrivateTest\n" * 3_589,
    ]  # fmt: skip
    source = pixel_csv_source(write(tmp_path / "fer2021.csv", b"".join(parts)), TINY)
    counts = np.zeros((3, 7), int)
    for block in source.blocks():
        faces = source.decode(block)
        np.add.at(counts, (faces.split, faces.label), 1)
    assert counts.sum(1).tolist() == [316_110, 3_589, 3_589]
    assert counts[0].tolist() == [28_709, 0, 0, 283_901, 0, 0, 3_500]
    assert faces.path[-1] == "323287"


def test_memory_is_flat(tmp_path):
    row = b"0," + b" ".join([b"123"] * 2304) + b",Training\n"
    path = write(tmp_path / "a.csv", b"emotion,pixels,Usage\n" + row * 3000)
    source = pixel_csv_source(path, FaceFormat())
    tracemalloc.start()
    for block in source.blocks():
        source.decode(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 27e6 and peak < 10e6


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("a.csv", b"path,label\nx.jpg,3\n", "must name the columns emotion,pixels,Usage"),
        ("a.csv", b"1,0,1 2 3 4,Training\n", "must name the columns"),
        ("a.csv", b"11,1 2 3 4,Training\n", "must name the columns"),
        ("a.csv", b"emotion,pixels,pixels,Usage\n0,1 2 3 4,4 3 2 1,Training\n", "several columns are called pixels"),
        ("a.csv", b"emotion,pixels,Usage,emotion\n0,1 2 3 4,Training,1\n", "several columns are called emotion"),
        (
            "a.csv",
            b"emotion,pixels,Usage\n8,1 2 3 4,Training\n",
            r"not one good row \(row 0: label '8' is not in 0..6\)",
        ),
        ("a.csv", b"emotion,pixels,Usage\n0,1 2 3,Training\n", r"\(row 0: 3 pixels are no square\)"),
        ("a.csv", b"emotion,pixels,Usage\n0,.1 .2 .3 .4,Training\n", r"\(row 0: a pixel that is not a whole number\)"),
        ("a.csv", b"emotion,pixels,Usage\n0,7,Training\n", r"\(row 0: 1 pixels are no square\)"),
        (
            "a.csv",
            b"emotion,pixels,Usage\n0,1 2 3 4,Training\n0,1 2 3 4 5 6 7 8 9,Training\n",
            r"faces of several sizes, none of them in the majority: 1 of 2 x 2, 1 of 3 x 3 pixels; take out",
        ),
        ("a.csv", b'emotion,",Usage\n0,1 2 3 4,Training\n', "must name the columns"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0", "must name the columns"),
        ("test.csv", b"pixels\n1 2 3 4\n", "no labels"),
        ("a.csv", b"emotion,pixels,Usage\n", "not one good row"),
        ("a.csv", b"emotion,pixels,Usage\n0,1 2 3,Training\n", "not one good row"),
        ("a.csv.gz", b"not gzip", "damaged"),
        ("a.csv.xz", b"not xz", "damaged"),
        ("a.zip", b"not zip", "damaged"),
        ("fer2013.tar.gz", b"", "tar xf"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message) as caught:
        pixel_csv_source(write(tmp_path / name, text), TINY)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no\.csv"):
        pixel_csv_source(tmp_path / "no.csv", TINY)


@pytest.mark.parametrize("kind", ["csv.gz", "csv.xz", "zip"])
@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_a_damaged_archive_is_refused_and_not_taken_as_shorter(tmp_path, kind, harm):
    rng = np.random.default_rng(0)
    lines = [b"0," + b" ".join(b"%d" % v for v in rng.integers(0, 256, 4)) + b",Training\n" for _ in range(20_000)]
    path = packed(tmp_path, kind, b"emotion,pixels,Usage\n" + b"".join(lines))
    data = bytearray(path.read_bytes())
    if harm == "cut":
        del data[len(data) * 3 // 4 :]
    else:
        data[len(data) * 3 // 4] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged or incomplete") as caught:
        read(pixel_csv_source(path, TINY))
    assert "\n" not in str(caught.value)


def test_fingerprint_follows_what_decides_about_the_faces(tmp_path):
    path = write(tmp_path / "fer2013.csv", GOLDEN)
    prints = [
        pixel_csv_source(path, TINY).fingerprint(),
        pixel_csv_source(path, FaceFormat(size=3)).fingerprint(),
        pixel_csv_source(path, FaceFormat(size=2, color="rgb")).fingerprint(),
        pixel_csv_source(path, TINY, name="other").fingerprint(),
        pixel_csv_source(write(path, GOLDEN + b"1,1 1 1 1,Training\n"), TINY).fingerprint(),
    ]
    assert all(prints.index(entry) == index for index, entry in enumerate(prints))
    assert pixel_csv_source(path, TINY).fingerprint() == prints[-1]


def original_h5(path: Path, **splits) -> Path:
    with h5py.File(path, "w") as file:
        for prefix, (pixels, labels) in splits.items():
            file[f"{prefix}_pixel"] = pixels
            file[f"{prefix}_label"] = labels
    return path


def test_original_h5_is_read_as_it_is(tmp_path):
    rng = np.random.default_rng(1)
    pixels = {n: rng.integers(0, 256, (n, 2304), np.uint8) for n in (300, 20)}
    labels = {n: rng.integers(0, 7, n) for n in (300, 20)}
    labels[300][7], labels[20][3] = 7, -1
    path = original_h5(
        tmp_path / "data.h5", Training=(pixels[300], labels[300]), PrivateTest=(pixels[20], labels[20].astype("int64"))
    )
    assert is_original_h5(path)
    source = fer2013_source(path, FaceFormat(), PhotoLimits())
    rows, skipped = read(source)
    assert skipped == [("7", "label 7 is not in 0..6"), ("303", "label -1 is not in 0..6")]
    expected = [(str(i), labels[300][i], 0, pixels[300][i].tolist()) for i in range(300) if i != 7]
    expected += [(str(300 + i), labels[20][i], 2, pixels[20][i].tolist()) for i in range(20) if i != 3]
    assert rows == expected
    assert source.names == ("data",)
    assert source.notes == ["data.h5: no PublicTest rows: the file gives no val split"]
    blocks = list(source.blocks())
    assert [len(block.rows) for block in blocks] == [256, 44, 20] and blocks[-1].done == 1.0


def test_original_h5_of_fer2013_has_the_row_numbers_of_the_csv(tmp_path):
    def zeros(n):
        return np.zeros((n, 1), np.uint8), np.zeros(n, int)

    path = original_h5(tmp_path / "data.h5", Training=zeros(28709), PublicTest=zeros(3589), PrivateTest=zeros(3589))
    source = original_h5_source(path, FaceFormat(size=1))
    assert source.names == ("fer2013",)
    paths = {}
    for block in source.blocks():
        paths.setdefault(block.rows[0][0], []).extend(source.decode(block).path)
    assert [paths[split][0] for split in ("train", "val", "test")] == ["0", "28709", "32298"]
    assert paths["test"][-1] == "35886"


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((3, 5), np.uint8), np.zeros(3, int), "square face"),
        (np.zeros((3, 4), np.float32), np.zeros(3, int), "Training_pixel is float32"),
        (np.zeros((3, 2, 2), np.uint8), np.zeros(3, int), "square face"),
        (np.zeros((3, 4), np.uint8), np.zeros(2, int), "Training_label"),
        (np.zeros((3, 4), np.uint8), np.zeros(3), "Training_label is float64"),
        (np.zeros((0, 4), np.uint8), np.zeros(0, int), "no rows"),
    ],
)
def test_original_h5_of_another_shape_is_refused(tmp_path, pixels, labels, message):
    with pytest.raises(InputError, match=message):
        original_h5_source(original_h5(tmp_path / "data.h5", Training=(pixels, labels)), TINY)


@pytest.mark.parametrize("kind", ["raw", "virtual", "external link", "soft link", "never written", "large"])
def test_original_h5_whose_pixels_are_not_in_it_is_refused(tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(b"password")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.zeros((2, 4), np.uint8)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["Training_label"] = np.zeros(2, int)
        if kind == "raw":
            file.create_dataset("Training_pixel", (2, 4), np.uint8, external=[(str(secret), 0, 8)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((2, 4), np.uint8)
            layout[:] = h5py.VirtualSource(tmp_path / "missing.h5", "x", (2, 4), np.uint8)
            file.create_virtual_dataset("Training_pixel", layout)
        elif kind.endswith("link"):
            soft = kind == "soft link"
            file["Training_pixel"] = h5py.SoftLink("/x") if soft else h5py.ExternalLink(tmp_path / "other.h5", "x")
        else:
            side = 2 if kind == "never written" else 10**6
            file.create_dataset("Training_pixel", (2, side**2), np.uint8)
    message = {
        "never written": "values of Training_pixel or Training_label are missing",
        "large": "at most 1024 pixels",
    }
    with pytest.raises(
        InputError, match=message.get(kind, "values of '.*Training_pixel' lie in another file")
    ) as caught:
        fer2013_source(tmp_path / "data.h5", TINY, PhotoLimits())
    assert str(caught.value).startswith(f"{tmp_path / 'data.h5'}: ")


def test_what_is_no_original_h5(tmp_path):
    with h5py.File(tmp_path / "ours.h5", "w") as file:
        file["train/image"] = np.zeros((1, 2, 2), np.uint8)
    assert not is_original_h5(tmp_path / "ours.h5")
    assert not is_original_h5(write(tmp_path / "a.csv", GOLDEN))
    with pytest.raises(InputError, match=r"ours\.h5"):
        fer2013_source(tmp_path / "ours.h5", TINY, PhotoLimits())
    cut = original_h5(tmp_path / "cut.h5", Training=(np.zeros((99, 2304), np.uint8), np.zeros(99, int)))
    cut.write_bytes(cut.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.h5: .*damaged"):
        is_original_h5(cut)


@pytest.mark.parametrize(
    "file", ["fer2013.csv", "fer2013.csv.gz", "icml_face_data.csv.xz", "train.csv", "fer2013.csv.zip"]
)
def test_a_folder_with_a_csv(tmp_path, file):
    if file.endswith(".zip"):
        packed(tmp_path, "csv.zip")
    else:
        pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(file).suffix, bytes)
        write(tmp_path / file, pack(GOLDEN))
    source = fer2013_source(tmp_path, TINY, PhotoLimits())
    assert read(source)[0] == GOLDEN_ROWS and source.names == ("fer2013",)


def test_nothing_found_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match="looked for fer2013.csv, icml_face_data.csv or train.csv"):
        fer2013_source(tmp_path, TINY, PhotoLimits())
    write(tmp_path / "fer2013.tar.gz", b"")
    with pytest.raises(InputError, match="tar xf"):
        fer2013_source(tmp_path, TINY, PhotoLimits())


def test_the_copy_in_image_folders(tmp_path):
    for split, class_name, count in [("train", "neutral", 20), ("train", "sad", 10), ("test", "happy", 3)]:
        folder = tmp_path / split / class_name
        folder.mkdir(parents=True)
        for index in range(count):
            cv2.imwrite(str(folder / f"{index}.png"), np.full((2, 2), 100 + index, np.uint8))
    source = fer2013_source(tmp_path, TINY, PhotoLimits())
    rows, skipped = read(source)
    assert skipped == [] and source.names == ("fer2013-folder",)
    # neutral is 6 and sad 4 in FER2013's order, though the folders' names sort the other way round
    found = [(label, split) for _, label, split, _ in rows]
    assert {entry: found.count(entry) for entry in found} == {(6, 0): 18, (6, 1): 2, (4, 0): 9, (4, 1): 1, (3, 2): 3}
    assert any("can't be told apart" in note for note in source.notes)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="the real FER2013 is not here")
def test_the_real_file():
    source = fer2013_source(REAL, FaceFormat(), PhotoLimits())
    counts = np.zeros((3, 7), int)
    for block in source.blocks():
        faces = source.decode(block)
        assert faces.skipped == []
        np.add.at(counts, (faces.split, faces.label), 1)
    assert counts[0].tolist() == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert counts[1].tolist() == [467, 56, 496, 895, 653, 415, 607]
    assert counts[2].sum() == 0
    assert source.notes == ["fer2013.csv.xz: no PrivateTest rows: the file gives no test split"]
