"""A small data set in the shape of AffectNet (2017): the pictures are drawn, not real, and nobody's face is in them.

It exists so that every reader, model and report can be tried at once, without a licence or a download. Numbers measured
on it say that the program works, and nothing about real faces.
"""

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from fer.data.synthetic.action_units import ACTION_UNITS, EXPRESSIONS
from fer.data.synthetic.face import Face, draw_face
from fer.errors import InputError

COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
    "facial_landmarks", "expression", "valence", "arousal",
)  # fmt: skip
PHOTO_FOLDER = "Manually_Annotated_Images"
#: The file that marks a folder as drawn by this module; no other folder is written into.
MARKER = "DRAWN_NOT_REAL.txt"
#: Fewer photos could not hold every class, the dropped ones and the broken files in both splits.
MIN_PHOTOS = 48

#: AffectNet code -> mean valence and arousal in -1..1; the data set writes -2 for a photo without a face.
AFFECT = {
    0: (0.0, 0.0), 1: (0.65, 0.2), 2: (-0.6, -0.25), 3: (0.2, 0.65), 4: (-0.2, 0.75), 5: (-0.65, 0.4),
    6: (-0.5, 0.6), 7: (-0.5, 0.3), 8: (0.1, 0.0), 9: (-0.1, 0.1), 10: (-2.0, -2.0),
}  # fmt: skip

_NO_FACE = 10
_SUBFOLDERS = 12
#: How often codes 0..6 are drawn; AffectNet's own training set is 35:1, which would need far more photos.
_TRAINING_WEIGHTS = (1.1, 1.3, 1.0, 1.0, 0.9, 0.8, 1.0)
_VALIDATION_WEIGHTS = (1.0,) * 7

Row = list[str]


def draw_sample(
    folder: Path, seed: int = 0, photos: int = 2000, progress: Callable[[int, int], None] | None = None
) -> None:
    """Draw the sample data set: training.csv, validation.csv (no header line, as AffectNet ships it) and the photos.

    One photo in six is for validation, where the seven classes are equally frequent; no photo is in both. The same
    ``seed`` and ``photos`` give the same bytes. A set that this function drew earlier is drawn anew; the csv files come
    last, so where they are, the set is whole. ``progress(done, photos)`` is called after each photo. Five training rows
    are unusable on purpose: an empty file, half a JPEG, a missing file, a NULL box, and a path that leaves the folder.

    Raises:
        InputError: too few photos, or ``folder`` holds something that was not drawn here.
    """
    if photos < MIN_PHOTOS:
        raise InputError(f"photos={photos} is too few for every class of the sample data: ask for {MIN_PHOTOS} or more")
    _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(_mark(seed, photos))
    validation = photos // 6
    plans = {
        "training": _plan(np.random.default_rng((seed, 0)), photos - validation, _TRAINING_WEIGHTS),
        "validation": _plan(np.random.default_rng((seed, 1)), validation, _VALIDATION_WEIGHTS),
    }
    for number in range(_SUBFOLDERS):
        (folder / PHOTO_FOLDER / str(number + 1)).mkdir(parents=True)
    rows: dict[str, list[list[Row]]] = {}
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, (name, plan) in enumerate(plans.items()):
            keys = [(seed, split, index) for index in range(len(plan))]
            rows[name] = []
            for photo_rows in pool.map(_draw_photo, [folder / PHOTO_FOLDER] * len(plan), keys, plan):
                rows[name].append(photo_rows)
                done += 1
                if progress is not None:
                    progress(done, photos)
    _break_some(folder / PHOTO_FOLDER, rows["training"])
    _write_csv(folder / "training.csv", [list(COLUMNS), *sum(rows["training"], [])])
    _write_csv(folder / "validation.csv", sum(rows["validation"], []))


def is_drawn(folder: Path, seed: int, photos: int) -> bool:
    """Say whether exactly this set lies in the folder, whole."""
    marker = folder / MARKER
    return (folder / "validation.csv").is_file() and marker.is_file() and marker.read_text() == _mark(seed, photos)


def _mark(seed: int, photos: int) -> str:
    return f"Drawn by fer/data/synthetic/dataset.py, seed {seed}, {photos} photos. No picture is real.\n"


def _clear(folder: Path) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / MARKER).is_file():
        raise InputError(f"{folder} holds files that are not the drawn sample data: name an empty or new folder")
    for name in ("training.csv", "validation.csv"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / PHOTO_FOLDER, ignore_errors=True)


def _plan(rng: np.random.Generator, photos: int, weights: Sequence[float]) -> list[list[int]]:
    """Say which expression codes each photo shows; one to three faces a photo."""
    faces = rng.choice([1, 2, 3], photos, p=[0.65, 0.25, 0.1])
    unused = 4 * max(1, photos // 100)
    counts = np.floor((faces.sum() - unused) * np.array(weights) / np.sum(weights)).astype(int)
    codes = np.repeat(np.arange(7), counts)
    codes = rng.permutation(np.concatenate([codes, 7 + np.arange(faces.sum() - len(codes)) % 4]))
    return [part.tolist() for part in np.split(codes, np.cumsum(faces)[:-1])]


def _draw_photo(root: Path, key: tuple[int, int, int], codes: list[int]) -> list[Row]:
    """Draw and save one photo; returns its csv rows."""
    rng = np.random.default_rng((*key, 1))
    width, height, boxes = _layout(rng, len(codes))
    photo = _background(rng, width, height)
    rows = []
    # From the top down, so that shoulders hide no face below them.
    for code, box in sorted(zip(codes, boxes, strict=True), key=lambda pair: pair[1][1]):
        x, y, w, h = box
        unit = 0.5 * (w / 2.25 + h / 2.5) * rng.uniform(0.93, 1.08)
        centre = (x + w / 2 + rng.normal(0, 0.1) * unit, y + h / 2 + rng.normal(0, 0.1) * unit)
        face = Face(centre, unit, tuple(rng.uniform(-1, 1, 3) * (0.42, 0.2, 0.4)), _action_units(code, rng))
        marks = face.landmarks(rng) if code == _NO_FACE else draw_face(photo, face, rng)
        points = ";".join(["%.2f"] * 136) % tuple(marks.ravel())
        spread = 0.0 if code == _NO_FACE else 0.12
        affect = [f"{mean + rng.uniform(-spread, spread):.4f}" for mean in AFFECT[code]]
        rows.append([*map(str, box), points, str(code), *affect])
    photo = _camera(rng, photo, min(w for _, _, w, _ in boxes) / 2.25)

    name = hashlib.sha224(repr(key).encode()).hexdigest()
    suffix = {7: ".png", 19: ".JPG"}.get(key[2] % 40, ".jpg")
    path = f"{1 + int(name[:4], 16) % _SUBFOLDERS}/{name}{suffix}"
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96))]
    (root / path).write_bytes(cv2.imencode(suffix.lower(), photo, options)[1].tobytes())
    return [[path, *row] for row in rows]


def _action_units(code: int, rng: np.random.Generator) -> dict[int, tuple[float, float]]:
    """Draw the left and right strength of the action units of an expression; None and Uncertain get any three."""
    recipe = EXPRESSIONS.get(code)
    if recipe is None:
        recipe = dict.fromkeys(rng.choice(list(ACTION_UNITS), 3, replace=False).tolist(), 0.5)
    overall = rng.uniform(0.75, 1.2)
    units = {unit: tuple(full * overall * rng.uniform(0.88, 1.12, 2)) for unit, full in recipe.items()}
    if code == 1 and rng.random() < 0.5:  # half of the smiles show teeth
        units[25] = (overall, overall)
    if code == 7:  # contempt is on one side of the face
        side = rng.integers(2)
        units = {unit: (left * side, right * (1 - side)) for unit, (left, right) in units.items()}
    return units


def _layout(rng: np.random.Generator, faces: int) -> tuple[int, int, list[tuple[int, int, int, int]]]:
    """Return a photo's width and height in pixels and a box (x, y, width, height) a face, in a row or a column."""
    long, short = int(rng.integers(120 * faces, 361)), int(rng.integers(120, 361))
    in_column = rng.random() < 0.4
    width, height = (short, long) if in_column else (long, short)
    cell = np.array([width, height // faces] if in_column else [width // faces, height])
    boxes = []
    for number in range(faces):
        size = 0.9 * cell.min() * rng.uniform(0.45, 0.92) * rng.uniform(0.88, 1.06, 2)
        corner = (cell - size) * rng.uniform(0.05, 0.95, 2)
        corner[int(in_column)] += number * cell[int(in_column)]
        boxes.append((*corner.round().astype(int).tolist(), *size.round().astype(int).tolist()))
    if faces == 1 and rng.random() < 0.25:  # a box that touches the edge or reaches over it
        x, y, w, h = boxes[0]
        over = round(max(0.0, rng.uniform(-0.05, 0.12)) * w)
        at_edges = [(-over, y, w, h), (width - w + over, y, w, h), (x, -over, w, h), (x, height - h + over, w, h)]
        boxes = [at_edges[rng.integers(4)]]
    return width, height, boxes


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Soft patches of colour with a few shapes, (height, width, 3) uint8."""
    patches = rng.integers(20, 236, (*rng.integers(2, 7, 2), 3)).astype(np.uint8)
    photo = cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(0, 9)):
        x0, y0, x1, y1 = (rng.uniform(0, 1, 4) * (width, height, width, height)).astype(int).tolist()
        color = rng.uniform(0, 255, 3).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(photo, (x0, y0), (x1, y1), color, -1)
        else:
            cv2.circle(photo, (x0, y0), abs(x1 - x0) // 3 + 4, color, -1, cv2.LINE_AA)
    return photo if rng.random() < 0.4 else cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.5, 5))


def _camera(rng: np.random.Generator, photo: np.ndarray, unit: float) -> np.ndarray:
    """Exposure, colour cast, blur (up to a small part of the smallest face's unit) and noise."""
    levels = 255 * (np.arange(256) / 255) ** rng.uniform(0.65, 1.5)
    levels = (levels - 128) * rng.uniform(0.6, 1.1) + 128 + rng.uniform(-35, 35)
    cast = levels[:, None] * rng.uniform(0.9, 1.1, 3)
    photo = cv2.LUT(photo, np.clip(cast, 0, 255).astype(np.uint8)[None])
    if rng.random() < 0.1:
        photo = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.1, 0.5 + 0.02 * unit))
    noise = rng.standard_normal(photo.shape[:2], np.float32) * np.float32(rng.uniform(0, 8))
    return cv2.add(photo, cv2.merge([noise] * 3), dtype=cv2.CV_8U)


def _break_some(root: Path, rows: list[list[Row]]) -> None:
    """Spoil five rows in the ways that AffectNet's own files are spoilt, or could be."""
    empty, truncated, missing, null = (rows[len(rows) * part // 5] for part in (1, 2, 3, 4))
    (root / empty[0][0]).write_bytes(b"")
    whole = (root / truncated[0][0]).read_bytes()
    (root / truncated[0][0]).write_bytes(whole[: len(whole) // 2])
    (root / missing[0][0]).unlink()
    null[0][1:5] = ["NULL"] * 4
    rows.append([["../../outside.jpg", *rows[0][0][1:]]])


def _write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
