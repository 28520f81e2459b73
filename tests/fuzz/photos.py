"""Photos of all formats, and the tables that list them: AffectNet's two releases, and anyone's csv."""

import io
import math
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from hypothesis import strategies as st
from PIL import Image

from fer.data.photos import read_photo
from fer.data.readers.affectnet import affectnet_source
from fer.data.readers.image_table import table_source
from fer.data.source import FaceFormat, PhotoLimits, Skipped
from fer.errors import InputError
from tests.fuzz.family import Family, require, workplace
from tests.fuzz.mutations import HOSTILE, Case, as_bytes, changed_bytes, changed_table, written_otherwise

#: Photos are so wide and high, and a face is stored in half of it.
WIDE, SIDE = 32, 16
#: FER2013's order of classes, by AffectNet's codes 0..6.
_CODES = (6, 3, 4, 5, 2, 1, 0)
_NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@cache
def picture(number: int) -> np.ndarray:
    """A picture uint8 (32, 32) without fine detail, another for each number."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4)).astype(np.uint8)
    return cv2.resize(coarse, (WIDE, WIDE), interpolation=cv2.INTER_CUBIC)


@cache
def encoded(kind: str) -> bytes:
    """The first picture as a file of a kind, written by Pillow."""
    buffer = io.BytesIO()
    options = {"exif": Image.Exif()} if kind == "JPEG" else {}
    if kind == "JPEG":
        options["exif"][0x0112] = 1
    Image.fromarray(picture(0)).save(buffer, kind, **options)
    return buffer.getvalue()


_KINDS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")


def _photos() -> st.SearchStrategy[Case]:
    return st.sampled_from(_KINDS).flatmap(
        lambda kind: changed_bytes(encoded(kind)).map(lambda case: Case(f"{kind}, {case.how}", case.content, kind))
    )


def _open_photo(case: Case, folder: Path) -> None:
    path = folder / "photo.jpg"
    path.write_bytes(case.content)
    for color in ("grey", "rgb"):
        photo = read_photo(str(path), color, PhotoLimits(max_pixels=10_000_000))
        if isinstance(photo, str):
            raise InputError(photo)
        require(photo.dtype == np.uint8 and photo.ndim == (2 if color == "grey" else 3), f"{photo.dtype} {photo.shape}")
        path.write_bytes(encoded(case.note))
        whole = read_photo(str(path), color, PhotoLimits())
        path.write_bytes(case.content)
        if case.how.endswith("cut"):
            require(np.array_equal(photo, whole), "another picture of a part of a file")
        elif case.note == "PNG":
            # it has a check sum of each part; only parts that don't matter may be damaged
            require(np.array_equal(photo, whole), "another picture of a damaged PNG")


@cache
def _affectnet() -> tuple[Path, list[list[str]]]:
    """AffectNet's photos in a folder, and the lines of training.csv: 6 faces, a box of 16 x 16 in each."""
    root = workplace() / "affectnet"
    photos = root / "Manually_Annotated_Images"
    photos.mkdir(parents=True)
    header = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks"]
    lines = [[*header, "expression", "valence", "arousal"]]
    points = ";".join(["8.5"] * 136)
    for n in range(6):
        cv2.imwrite(str(photos / f"{n}.png"), picture(n))
        lines.append([f"{n}.png", str(n), "4", str(SIDE), str(SIDE), points, str(n), "0.5", "-0.25"])
    return root, lines


def _text(lines: list[list[str]]) -> str:
    return "".join(f"{','.join(line)}\n" for line in lines)


def _affectnet_tables() -> st.SearchStrategy[Case]:
    _, lines = _affectnet()
    words = ("4.0", "10", "-2", "Happy", "3", "40", "1e400", "0.75")
    content = _text(lines)
    table = changed_table(lines, words).map(as_bytes)
    return st.one_of(table, table, written_otherwise(content).map(as_bytes), changed_bytes(content.encode()))


def _number(word: str) -> float | None:
    try:
        return float(word.strip()) if len(word) < 1000 else None
    except ValueError:
        return None


def _fields(content: bytes) -> list[list[str]]:
    """Return the fields of the lines of a table, in any spelling."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    encoding = "utf-16-be" if content[:1] == content[2:3] == b"\0" < content[1:2] else encoding
    text = content.decode(encoding, "replace").replace("\r", "\n")
    # in a file with commas a tab is a blank
    separators = (",", ";;") if "," in text else (";", "\t")
    for separator in separators:
        text = text.replace(separator, "\1\2")
    return [[field.strip().strip(' "') for field in line.split("\1\2")] for line in text.split("\n") if line.strip()]


def _open_affectnet(case: Case, folder: Path) -> None:
    root, _ = _affectnet()
    (root / "training.csv").write_bytes(case.content)
    source = affectnet_source(root, FaceFormat(SIDE), PhotoLimits())
    said = [line for line in _fields(case.content) if len(line) >= 8]
    for block in source.blocks():
        faces = source.decode(block)
        for n, path in enumerate(faces.path):
            x, y, width, height = map(int, faces.box[n])
            candidates = [line for line in said if line[0].replace("\\", "/").strip() == path]
            require(candidates, f"a face of {path!r:.60}, which the table does not name")
            right = [line for line in candidates if _is_face(line, int(faces.label[n]), (x, y, width, height))]
            require(right, f"label {faces.label[n]} and box {(x, y, width, height)} that the table does not say")
            affects = [float(faces.valence[n]), float(faces.arousal[n])]
            require(any(_is_affect(line[-2:], affects) for line in right), f"valence and arousal {affects}")
            require(not any(map(math.isinf, affects)), f"valence and arousal {affects}")
            if (width, height) == (SIDE, SIDE) and _whole(right[0]):
                photo = picture(int(path[0]))[y : y + SIDE, x : x + SIDE]
                require(np.array_equal(faces.image[n], photo), "another picture")


def _is_face(line: list[str], label: int, box: tuple[int, ...]) -> bool:
    numbers = [_number(field) for field in line[1:5]]
    codes = [_number(field) for field in line[5:]] + [
        next((k for k, c in enumerate(_CODES) if _NAMES[c] == line[6].lower()), None)
    ]
    if None in numbers or not all(map(math.isfinite, numbers)):
        return False
    x, y, width, height = numbers
    inside = [max(0, round(x)), max(0, round(y)), min(WIDE, round(x + width)), min(WIDE, round(y + height))]
    clipped = [inside[0], inside[1], inside[2] - inside[0], inside[3] - inside[1]]
    # where the missing part is padded, the box may be told whole
    near = any(all(abs(a - b) <= 1 for a, b in zip(box, want, strict=True)) for want in (clipped, numbers))
    return near and any(code in range(7) and _CODES[int(code)] == label for code in codes)


def _whole(line: list[str]) -> bool:
    x, y, width, height = (float(field) for field in line[1:5])
    return x >= 0 and y >= 0 and x + width <= WIDE and y + height <= WIDE


def _is_affect(fields: list[str], values: list[float]) -> bool:
    for field, value in zip(fields, values, strict=True):
        meant = _number(field)
        if not math.isnan(value) and (meant is None or not math.isclose(meant, value, rel_tol=1e-5, abs_tol=1e-7)):
            return False
        if math.isnan(value) and meant is not None and -1 <= meant <= 1:
            return False
    return True


@cache
def _npy_root() -> Path:
    root = workplace() / "npy"
    for name in ("images", "annotations"):
        (root / "train_set" / name).mkdir(parents=True)
    for n in range(2):
        cv2.imwrite(str(root / f"train_set/images/{n}.jpg"), picture(n))
        for kind, content in _annotations().items():
            _npy_path(n, kind).write_bytes(content)
    return root


def _npy_path(n: int, kind: str) -> Path:
    return workplace() / f"npy/train_set/annotations/{n}_{kind}.npy"


@cache
def _annotations() -> dict[str, bytes]:
    """The .npy files of a photo by their kind, as AffectNet has them."""
    values = {"exp": np.array(["3"]), "val": np.array(["0.5"]), "aro": np.array(["-0.25"]), "lnd": np.full(136, 8.5)}
    files = {kind: io.BytesIO() for kind in values}
    for kind, buffer in files.items():
        np.lib.format.write_array(buffer, values[kind], (1, 0))
    return {kind: buffer.getvalue() for kind, buffer in files.items()}


_HEADERS = (
    ("'|O'", False, "(1,)"), ("'<f8'", True, "(1,)"), ("'<U1'", False, "(10000000000000,)"), ("'no'", False, "(1,)"),
    ("'<U1'", 0, "[1]"), ("'<V0'", False, "(1,)"), ("'<U0'", False, "(1,)"), ("[('a', '<f4')]", False, "(1,)"),
    ("'<U1'", False, "(-1,)"), ("'<U99999999999'", False, "(1,)"),
)  # fmt: skip


@st.composite
def _npys(draw: st.DrawFn) -> Case:
    """One annotation of the first photo: its bytes, its header's words or its values are others."""
    kind = draw(st.sampled_from(("exp", "val", "aro", "lnd")))
    content = _annotations()[kind]
    how = draw(st.sampled_from(("bytes", "header", "value")))
    if how == "bytes":
        case = draw(changed_bytes(content))
        return Case(f"{kind}.npy, {case.how}", case.content, kind)
    if how == "value":
        other = draw(st.sampled_from(HOSTILE[:40]))
        array = draw(st.sampled_from((np.array([other]), np.array(other), np.array([]), np.array([other, "3"]))))
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, (1, 0))
        return Case(f"{kind}.npy, value", buffer.getvalue(), kind)
    # the header keeps its length, so the values stay where they are
    start = 10 + int.from_bytes(content[8:10], "little")
    words = (*(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}" for descr, order, shape in _HEADERS),
             "{'descr': '<U1', 'shape': (1,)}", "[" * 60, "'" + "x" * 60, "(" * 60, "1")  # fmt: skip
    header = draw(st.sampled_from(words)).encode().ljust(start - 11)[: start - 11] + b"\n"
    return Case(f"{kind}.npy, header", content[:10] + header + content[start:], kind)


def _open_npy(case: Case, folder: Path) -> None:
    root, path = _npy_root(), _npy_path(0, case.note)
    before = path.read_bytes()
    path.write_bytes(case.content)
    try:
        source = affectnet_source(root, FaceFormat(SIDE), PhotoLimits())
        found, listed = {}, []
        for block in source.blocks():
            faces = source.decode(block)
            listed += [entry.path for entry in faces.skipped]
            for n, name in enumerate(faces.path):
                found[Path(name).stem] = int(faces.label[n]), float(faces.valence[n]), float(faces.arousal[n])
        require(found.get("1") == (_CODES[3], 0.5, -0.25), f"of the photo that is as it was: {found.get('1')}")
        said = _load(path)
        if "0" not in found:
            dropped = case.note == "exp" and said is not None and _number(str(said)) in (7, 8, 9, 10)
            lost = bool(listed) or dropped
            require(lost, "the photo is neither taken nor listed")
            return
        label, valence, arousal = found["0"]
        if case.note == "exp":
            number = None if said is None else _number(str(said))
            require(number in range(7) and _CODES[int(number)] == label, f"label {label} of {said!r:.30}")
        else:
            require(label == _CODES[3], f"label {label}")
            values = {"val": ["?", "-0.25"], "aro": ["0.5", "?"], "lnd": ["0.5", "-0.25"]}[case.note]
            values = [str(said) if value == "?" else value for value in values]
            unknown = math.isnan({"val": valence, "aro": arousal, "lnd": 0.0}[case.note]) and "value" not in case.how
            require(unknown or _is_affect(values, [valence, arousal]), f"valence and arousal {valence}, {arousal}")
            require(not math.isinf(valence) and not math.isinf(arousal), f"valence and arousal {valence}, {arousal}")
    finally:
        path.write_bytes(before)


def _load(path: Path) -> object:
    """Return the first value of a .npy file as numpy itself reads it, None where it does not."""
    try:
        return np.load(path, allow_pickle=False).reshape(-1)[0]
    except Exception:  # numpy raises many types on foreign bytes
        return None


@cache
def _table() -> tuple[Path, list[list[str]]]:
    root = workplace() / "table"
    root.mkdir()
    lines = [["path", "label", "split", "face_x", "face_y", "face_width", "face_height"]]
    for n in range(6):
        cv2.imwrite(str(root / f"{n}.png"), picture(n))
        split = ("train", "train", "train", "val", "val", "test")[n]
        lines.append([f"{n}.png", _NAMES[n], split, str(n), "4", str(SIDE), str(SIDE)])
    return root, lines


def _tables() -> st.SearchStrategy[Case]:
    _, lines = _table()
    content = _text(lines)
    words = ("Happiness", "joy", "training", "xmin", "x", "4.0", "face_left", "label", "path", "1", "0")
    table = changed_table(lines, words).map(as_bytes)
    return st.one_of(table, table, written_otherwise(content).map(as_bytes), changed_bytes(content.encode()))


def _open_table(case: Case, folder: Path) -> None:
    root, before = _table()
    path = root / "faces.csv"
    path.write_bytes(case.content)
    source = table_source(path, FaceFormat(SIDE), PhotoLimits())
    said = _fields(case.content)
    whole_header = sorted(field.lower() for field in said[0]) == sorted(before[0])
    lines, taken = 0, 0
    for block in source.blocks():
        lines += len(block.rows)
        for row in block.rows:
            require(isinstance(row, Skipped) or row.splits, "a row without a split")
        faces = source.decode(block)
        for n, name in enumerate(faces.path):
            taken += 1
            word = source.class_names[faces.label[n]].lower()
            candidates = [line for line in said if name in [field.replace("\\", "/") for field in line]]
            require(candidates, f"a face of {name!r:.60}, which the table does not name")
            same = {"happiness": "happy", "joy": "happy"}
            named = [line for line in candidates if any(same.get(f.lower(), f.lower()) == word for f in line)]
            require(named, f"{word} of {name}, which the table does not say")
            if whole_header and said[0] == before[0]:
                box = [int(value) for value in faces.box[n]]
                require(any(_is_box(line[3:7], box) for line in named), f"box {box} of {name}")
    require(lines >= len(said) - 1 or case.how == "written: Ctrl-Z", f"{lines} rows of {len(said) - 1}")
    boxes = [name for name in said[0] if name.lower().startswith(("face", "x", "y"))]
    if taken and boxes:
        require((source.decode(next(iter(source.blocks()))).box >= 0).all(), f"columns {boxes} are not read")


def _is_box(fields: list[str], box: list[int]) -> bool:
    line = ["", *fields, "", "0"]
    return len(fields) == 4 and _is_face(line, _CODES[0], tuple(box))


FAMILIES = [
    Family("photo", lambda: [Case("whole", encoded(kind), kind) for kind in _KINDS], _photos, _open_photo),
    Family(
        "AffectNet csv", lambda: [as_bytes(Case("whole", _text(_affectnet()[1])))], _affectnet_tables, _open_affectnet
    ),
    Family("AffectNet npy", lambda: [Case("whole", c, k) for k, c in _annotations().items()], _npys, _open_npy),
    Family("table of photos", lambda: [as_bytes(Case("whole", _text(_table()[1])))], _tables, _open_table),
]
