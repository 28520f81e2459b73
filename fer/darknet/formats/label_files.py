"""The labels beside a photo of a detector: a text file with a line ``class cx cy width height`` a face."""

from pathlib import Path

import numpy as np

from fer.data.readers.yolo.labels import PLAIN_LINE
from fer.errors import InputError


def read_labels(path: Path, classes: int | None = None) -> np.ndarray:
    """Return the faces of a label file, float64 (N, 5): class, centre x and y, width, height as fractions of the photo.

    Blank lines, blanks around a line and a byte order mark are taken; so is ``1.0`` as a class. ``classes`` is how many
    there are, None where any number will do.

    Raises:
        InputError: the file is missing or no text, or a line is no label: another number of values, no such class, NaN,
            a box without area, or a centre or size that is no fraction over 0 and up to 1, such as pixels. What trains
            on such a face would take it for background without a word.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no label file; every photo of a detector needs its labels beside it") from error
    faces = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            label, *box = map(float, line.split())
        except ValueError:
            label, box = np.nan, []
        where = f"{path}, line {number}: {line.strip()[:100]!r}"
        if len(box) != 4 or not label.is_integer() or label < 0 or classes is not None and label >= classes:
            below = "" if classes is None else f" with class < {classes}"
            raise InputError(f"{where} is not `class cx cy width height`{below}")
        if not all(0 < value <= 1 for value in box):
            pixels = "; these look like pixels" if all(value >= 0 for value in box) and max(box) > 2 else ""
            raise InputError(f"{where}: centre and size are fractions of the photo over 0 and up to 1{pixels}")
        faces.append([label, *box])
    return np.array(faces, float).reshape(-1, 5)


def require_plain_labels(path: Path) -> None:
    """Refuse a label file, which `read_labels` takes, that the darknet program would read otherwise.

    Raises:
        InputError: a byte order mark, a class such as ``1.0``, or numbers and blanks that C does not know; the program
            would go on without the faces of that line and all below it, or with wrong boxes, without a word.
    """
    remedy = "the darknet program would misread it: write `1 0.5 0.5 0.2 0.2` in plain ASCII, or darknet.engine=torch"
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if (text := line.strip()) and not PLAIN_LINE.fullmatch(text):
            mark = text.startswith(b"\xef\xbb\xbf")
            shown = "a byte order mark" if mark else repr(text.decode("utf-8", "replace")[:100])
            raise InputError(f"{path}, line {number}: {shown}: {remedy}")
