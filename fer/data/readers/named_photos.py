r"""Data sets whose file names tell class and person: JAFFE, the 48 x 48 copy of CK+, and KDEF.

Their splits are our own, drawn so that no person is in two of them.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer.data.boxes import Box, checked_box
from fer.data.photos import PhotoRow
from fer.data.readers.photo_list import PhotoList, draw_splits, labels_by_class, picture_files
from fer.data.source import FaceFormat, PhotoLimits, Skipped
from fer.errors import InputError
from fer.labels import CLASSES

#: The cut of a JAFFE photo of 256 x 256 pixels: x, y, width, height. The medians of what OpenCV's cascade finds in the
#: 213 photos, whose centre differs by 1.4 and 2.2 pixels and whose side by 5.9 (standard deviations).
JAFFE_BOX = (50, 65, 160, 160)

_JAFFE = {
    "AN": "Angry", "DI": "Disgust", "FE": "Fear", "HA": "Happy", "NE": "Neutral", "SA": "Sad", "SU": "Surprise",
}  # fmt: skip
_CK48 = {
    "anger": "Angry", "disgust": "Disgust", "fear": "Fear", "happy": "Happy", "sadness": "Sad", "surprise": "Surprise",
    "contempt": "Contempt",
}  # fmt: skip
_KDEF = {
    "AN": "Angry", "DI": "Disgust", "AF": "Fear", "HA": "Happy", "SA": "Sad", "SU": "Surprise", "NE": "Neutral",
}  # fmt: skip

_JAFFE_NAME = re.compile(r"(?P<person>[A-Z]{2})\.(?P<label>[A-Z]{2})\d+\.\d+\.tiff?", re.IGNORECASE)
_CK48_NAME = re.compile(r"(?P<label>[a-z]+)/(?P<person>S\d{3})_\d{3}_\d{8}\.png", re.IGNORECASE)
_KDEF_NAME = re.compile(r"[AB](?P<person>[FM]\d{2})(?P<label>[A-Z]{2})(?P<angle>S|HL|HR|FL|FR)\.jpe?g", re.IGNORECASE)


def jaffe_source(
    raw: Path, face: FaceFormat, limits: PhotoLimits, val_fraction: float, test_fraction: float, seed: int,
    classes: Sequence[str] | None = None, box: Sequence[float] | None = JAFFE_BOX,
) -> PhotoList:  # fmt: skip
    """Return the Source of JAFFE: PERSON.CLASSn.NUMBER.tiff anywhere below ``raw``, 10 persons, 7 classes.

    ``box`` is what is cut from each photo, x, y, width, height in pixels; None takes the whole photo.

    Raises:
        InputError: no such photos, a box that is none, or fractions out of range.
    """
    rows = _rows(raw, "jaffe", _JAFFE_NAME, _JAFFE, classes or CLASSES, box)
    notes = draw_splits([row for row in rows if isinstance(row, PhotoRow)], val_fraction, test_fraction, seed)
    return PhotoList("jaffe", classes or CLASSES, rows, face, limits, notes)


def ck48_source(
    raw: Path, face: FaceFormat, limits: PhotoLimits, val_fraction: float, test_fraction: float, seed: int,
    classes: Sequence[str] | None = None,
) -> PhotoList:  # fmt: skip
    """Return the Source of CK+48: CLASS/SUBJECT_SEQUENCE_FRAME.png, faces already, three frames of each sequence.

    It has Contempt and no Neutral; ``classes`` chooses others, and rows of none of them are left out. The group of a
    row is its subject, so that the frames of a sequence stay together too.

    Raises:
        InputError: no such pictures, or fractions out of range.
    """
    rows = _rows(raw, "ck48", _CK48_NAME, _CK48, classes or tuple(_CK48.values()), None)
    notes = draw_splits([row for row in rows if isinstance(row, PhotoRow)], val_fraction, test_fraction, seed)
    return PhotoList("ck48", classes or tuple(_CK48.values()), rows, face, limits, notes)


def kdef_source(
    raw: Path, face: FaceFormat, limits: PhotoLimits, val_fraction: float, test_fraction: float, seed: int,
    classes: Sequence[str] | None = None, box: Sequence[float] | None = None, angles: Sequence[str] = ("S",),
) -> PhotoList:  # fmt: skip
    """Return the Source of KDEF: names such as AF01ANS.JPG, session, person (F01), class and angle of the camera.

    ``angles`` are those that are taken: S straight, HL and HR half, FL and FR full profile, left and right. ``box`` is
    what is cut from each photo, x, y, width, height in pixels; None takes the whole photo.

    Raises:
        InputError: no such photos, an unknown angle, a box that is none, or fractions out of range.
    """
    if unknown := [angle for angle in angles if angle not in ("S", "HL", "HR", "FL", "FR")]:
        raise InputError(f"data.source.angles: {unknown[0]}: not one of S, HL, HR, FL, FR")
    rows = _rows(raw, "kdef", _KDEF_NAME, _KDEF, classes or CLASSES, box, {"angle": set(angles)})
    notes = draw_splits([row for row in rows if isinstance(row, PhotoRow)], val_fraction, test_fraction, seed)
    return PhotoList("kdef", classes or CLASSES, rows, face, limits, notes)


def _rows(
    raw: Path, name: str, pattern: re.Pattern[str], meant: dict[str, str], class_names: Sequence[str],
    box: Sequence[float] | None, wanted: Mapping[str, set[str]] | None = None,
) -> list[PhotoRow | Skipped]:  # fmt: skip
    """Return a row for each picture below a folder, its splits still empty, or why it is none of the data set.

    ``pattern`` finds person and label at the end of a path; of other parts only those in ``wanted`` are taken.
    """
    if not raw.is_dir():
        raise InputError(f"data.raw={raw}: not a folder: give the one that holds the photos of {name}")
    place = _checked_box(box)
    labels = labels_by_class(meant, class_names, f"labels of {name}")
    rows: list[PhotoRow | Skipped] = []
    for path in picture_files(raw):
        parts = path.split("/")
        found = pattern.fullmatch("/".join(parts[-1 - pattern.pattern.count("/") :]))
        if found is None:
            rows.append(Skipped(name, path, f"its name is none of {name}"))
            continue
        label = found["label"].upper() if found["label"].upper() in meant else found["label"].lower()
        if label not in meant:
            rows.append(Skipped(name, path, f"unknown label {label!r}"))
        elif (index := labels[label]) is None:
            rows.append(Skipped(name, path, f"{meant[label]} is none of data.classes"))
        elif odd := [key for key, values in (wanted or {}).items() if found[key].upper() not in values]:
            rows.append(Skipped(name, path, f"another {odd[0]} than is wanted"))
        else:
            person = found["person"].upper()
            rows.append(PhotoRow(name, path, str(raw.absolute() / path), (), index, place, group=person))
    if not any(isinstance(row, PhotoRow) for row in rows):
        raise InputError(
            f"data.raw={raw}: none of its {len(rows):,} pictures is named as those of {name}, or has a class that is "
            f"asked for: give the folder of {name} as it is distributed"
        )
    return rows


def _checked_box(box: Sequence[float] | None) -> Box | None:
    if box is None:
        return None
    numbers = isinstance(box, Sequence) and len(box) == 4 and all(type(n) in (int, float) for n in box)
    checked = checked_box(*box) if numbers else "not four numbers"
    if isinstance(checked, str):
        raise InputError(f"data.source.box={box}: {checked}: give [x,y,width,height] in pixels of a photo")
    return checked
