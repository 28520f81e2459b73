"""FER2013 as csv, packed, as the original data.h5, and the votes of FER+."""

import gzip
import io
import lzma
import re
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path

import h5py
import numpy as np
from hypothesis import strategies as st

from fer.data.readers.fer2013 import listed_rows, pixel_csv_source
from fer.data.readers.ferplus import VOTES, align_votes
from fer.data.readers.original_h5 import is_original_h5, original_h5_source
from fer.data.source import FaceFormat
from tests.fuzz.family import Family, require
from tests.fuzz.h5 import changed_h5
from tests.fuzz.mutations import Case, as_bytes, changed_bytes, changed_table, written_otherwise

SIDE = 8
_USAGES = ("Training", "PublicTest", "PrivateTest")
_SPLITS = {"training": 0, "publictest": 1, "privatetest": 2}
#: FER2013's own order of classes.
_WORDS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@cache
def rows() -> list[list[str]]:
    """A csv of 12 faces: header, then emotion, pixels, Usage."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (12, SIDE * SIDE))
    body = [[str(n % 7), " ".join(map(str, face)), _USAGES[n // 4]] for n, face in enumerate(pixels)]
    return [["emotion", "pixels", "Usage"], *body]


def text() -> str:
    return "".join(f"{','.join(row)}\n" for row in rows())


def _csvs() -> st.SearchStrategy[Case]:
    words = ("Happy", "anger", "Training", "training", "test", "pixels", "emotion", "usage", " 3", "3.0", "3,3")
    return st.one_of(
        changed_table(rows(), words).map(as_bytes),
        changed_table(rows(), words).map(as_bytes),
        _other_pixel(),
        written_otherwise(text()).map(as_bytes),
        changed_bytes(text().encode()),
    )


@st.composite
def _other_pixel(draw: st.DrawFn) -> Case:
    """One pixel of one face is something else."""
    changed = [list(row) for row in rows()]
    row = changed[draw(st.integers(1, 12))]
    pixels = row[1].split()
    at = draw(st.integers(0, len(pixels) - 1))
    pixels[at] = draw(
        st.sampled_from(("256", "-1", "300", "1.0", "1.5", "", "nan", "x", "0007", "9" * 5000, "1e2", "²"))
    )
    row[1] = " ".join(pixels)
    return as_bytes(Case("pixel", "".join(f"{','.join(each)}\n" for each in changed)))


def _taken(source) -> tuple[Counter, int]:
    """Return the faces of a source as (label, split, pixels) with their numbers, and how many rows were skipped."""
    taken, skipped = Counter(), 0
    for block in source.blocks():
        faces = source.decode(block)
        skipped += len(faces.skipped)
        taken.update(
            (int(label), int(split), image.tobytes())
            for label, split, image in zip(faces.label, faces.split, faces.image, strict=True)
        )
    return taken, skipped


def _number(word: str) -> float | None:
    try:
        return float(word) if len(word) < 100 and word.isascii() else None
    except ValueError:
        return None


def _encoding(content: bytes) -> str:
    if content[:1] == content[2:3] == b"\0" < content[1:2]:
        return "utf-16-be"
    return "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"


def _reading(content: bytes, line_end: str) -> tuple[Counter, int]:
    """Read a csv's text by its meaning, in any spelling: the faces that it holds, and the number of its rows."""
    encoding = _encoding(content)
    meant, count = Counter(), 0
    for line in re.split(line_end, content.decode(encoding, "replace")):
        fields = [field.strip().strip(" \"'\ufeff\xef\xbb\xbf") for field in re.split("[,;\t]", line)]
        if not line.strip() or (len(line) <= 200 and any(field.lower() == "pixels" for field in fields)):
            continue
        count += 1
        pixels = [tuple(map(_number, field.split())) for field in fields]
        lists = [
            face
            for face in pixels
            if len(face) > 1 and all(v is not None and v % 1 == 0 and 0 <= v < 256 for v in face)
        ]
        labels = [n for field in fields for n in (_number(field), _word(field)) if n in range(7)]
        splits = [_SPLITS[field.lower()] for field in fields if field.lower() in _SPLITS] or [0]
        splits += [
            {"train": 0, "val": 1, "test": 2}[f.lower()] for f in fields if f.lower() in ("train", "val", "test")
        ]
        for face in lists:
            for label in labels:
                meant.update({(int(label), split, np.array(face, np.uint8).tobytes()) for split in splits})
    return meant, count


def _word(field: str) -> int | None:
    word = {"anger": "angry"}.get(field.lower(), field.lower())
    return _WORDS.index(word) if word in _WORDS else None


def _open_csv(case: Case, folder: Path) -> None:
    path = folder / "fer2013.csv"
    path.write_bytes(case.content)
    taken, skipped = _taken(pixel_csv_source(path, FaceFormat(SIDE)))
    readings = [_reading(case.content, line_end) for line_end in ("\r?\n", "\r\n|\r|\n")]
    require(any(not taken - meant for meant, _ in readings), "a face that the text does not say")
    lines = taken.total() + skipped
    require(any(lines == count for _, count in readings), f"{lines} rows taken or listed of {readings[0][1]}")


def _archives() -> dict[str, bytes]:
    content = text().encode()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("fer2013.csv"), content)
    return {".gz": gzip.compress(content, mtime=0), ".xz": lzma.compress(content), ".zip": zipped.getvalue()}


def _packed() -> st.SearchStrategy[Case]:
    packed = _archives()
    return st.sampled_from(sorted(packed)).flatmap(
        lambda kind: changed_bytes(packed[kind]).map(lambda case: Case(f"{kind}, {case.how}", case.content, kind))
    )


def _open_packed(case: Case, folder: Path) -> None:
    path = folder / f"fer2013.csv{case.note}"
    path.write_bytes(case.content)
    taken, skipped = _taken(pixel_csv_source(path, FaceFormat(SIDE)))
    require(not skipped and taken == _reading(text().encode(), "\n")[0], "other faces than were packed")


def _whole(content: bytes) -> list[Case]:
    return [Case("whole", content)]


@cache
def _votes() -> tuple[list[list[str]], np.ndarray]:
    """FER+'s file for the 12 faces, whose labels it agrees with, and the votes."""
    order = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    votes = np.zeros((12, len(VOTES)), int)
    for n, row in enumerate(rows()[1:]):
        votes[n, VOTES.index(order[int(row[0])])] = 9
        votes[n, VOTES.index("unknown")] = 1
    header = ["Usage", "Image name", *VOTES]
    return [header, *([rows()[n + 1][2], f"{n}.png", *map(str, votes[n])] for n in range(12))], votes


def _vote_text() -> str:
    return "".join(f"{','.join(row)}\n" for row in _votes()[0])


def _vote_files() -> st.SearchStrategy[Case]:
    table, content = _votes()[0], _vote_text()
    words = ("9.0", "8", "Training", "test", "NF")
    return st.one_of(
        changed_table(table, words).map(as_bytes),
        changed_table(table, words).map(as_bytes),
        written_otherwise(content).map(as_bytes),
        changed_bytes(content.encode()),
    )


def _open_votes(case: Case, folder: Path) -> None:
    (folder / "fer2013.csv").write_text(text())
    path = folder / "fer2013new.csv"
    path.write_bytes(case.content)
    source = pixel_csv_source(folder / "fer2013.csv", FaceFormat(SIDE))
    votes, _ = align_votes(path, "fer2013.csv", listed_rows(source))
    require(votes.shape == (12, 10) and votes.dtype == np.uint8, f"votes {votes.dtype} {votes.shape}")
    said = _said_votes(case.content)
    require(len(said) >= 12, "fewer rows of votes than faces")
    require(np.array_equal(votes, said[:12]), "votes that the file does not say")


def _said_votes(content: bytes) -> np.ndarray:
    encoding = _encoding(content)
    said = []
    for line in re.split("\r\n|\r|\n", content.decode(encoding, "replace")):
        # the name of the image, which may hold any of these marks, stands before the votes; white space says nothing
        fields = [field.strip().strip(' "') for field in re.split("[,;\t]", line) if field.strip()]
        numbers = [_number(field) for field in fields[-len(VOTES) :]]
        if numbers and all(n is not None and n % 1 == 0 for n in numbers):
            said.append(numbers)
    return np.array(said)


@cache
def _data_h5() -> bytes:
    buffer = io.BytesIO()
    generator = np.random.default_rng(1)
    with h5py.File(buffer, "w") as file:
        for prefix in _USAGES:
            file[f"{prefix}_pixel"] = generator.integers(0, 256, (4, SIDE * SIDE)).astype(np.uint8)
            file[f"{prefix}_label"] = np.arange(4)
    return buffer.getvalue()


def _open_original(case: Case, folder: Path) -> None:
    path = folder / "data.h5"
    path.write_bytes(case.content)
    if not is_original_h5(path):
        return
    taken, _ = _taken(original_h5_source(path, FaceFormat(SIDE)))
    if not case.how.startswith("bytes") and case.how != "column: values":
        with h5py.File(io.BytesIO(_data_h5())) as file:
            meant = {
                (label, code, pixels.tobytes())
                for code, prefix in enumerate(_USAGES)
                for label, pixels in enumerate(file[f"{prefix}_pixel"])
            }
        require(set(taken) <= meant, "a face that was not in the file")
    require(all(label in range(7) for label, _, _ in taken), "a label out of range")


FAMILIES = [
    Family("FER2013 csv", lambda: _whole(text().encode()), _csvs, _open_csv),
    Family("FER2013 packed", lambda: [Case("whole", c, k) for k, c in _archives().items()], _packed, _open_packed),
    Family("FER+ votes", lambda: _whole(_vote_text().encode()), _vote_files, _open_votes),
    Family("original data.h5", lambda: _whole(_data_h5()), lambda: changed_h5(_data_h5()), _open_original),
]
