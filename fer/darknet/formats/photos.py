"""Photos for the Darknet program: all faces of a photo together, which photos its readers take, and label lines."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from fer.data.boxes import Box, FractionBox, in_pixels
from fer.data.photos import PhotoRow, place_crop, read_photo
from fer.data.source import SPLITS, NoFaces, PhotoLimits, Skipped, Source
from fer.errors import InputError

#: Ending of the name that the program asks for, width and height in pixels, and whether the file must be turned
#: upright; or why the photo is not taken.
Inspection = tuple[str, int, int, bool] | str

_ORIENTATION = 0x0112  # the EXIF tag


@dataclass(slots=True)
class Photo:
    """A photo file and its faces, each with its class and its box; without any it shows background alone."""

    source: str
    path: str
    file: str
    splits: tuple[str, ...]
    faces: list[tuple[int, Box | FractionBox | None]]


def group_photos(
    source: Source, task: str, name: str, progress: Callable[[float], Any]
) -> tuple[list[Photo], list[Skipped]]:
    """Return the photos of a source in the order in which it first names them, and the rows that name none.

    A photo whose rows are of several splits belongs to all of them. A detector's photos are also those without faces,
    but not those of which some face is not known. ``name`` is that of the ``data`` config;
    ``progress`` is called with the fraction read.

    Raises:
        InputError: the source has pixels instead of photo files, or a detector's has no boxes.
    """
    photos: dict[str, Photo] = {}
    skipped: list[Skipped] = []
    incomplete: set[str] = set()
    for block in source.blocks():
        for row in block.rows:
            if isinstance(row, NoFaces) and row.incomplete and task == "classifier":
                continue
            if isinstance(row, NoFaces) and task == "detector":
                if row.incomplete:
                    incomplete.add(row.file)
                    skipped.append(row)
                else:
                    photos[row.file] = Photo(row.source, row.path, row.file, row.splits, [])
                continue
            if isinstance(row, Skipped):
                skipped.append(row)
                continue
            whole = isinstance(row, PhotoRow)
            if task == "detector" and (not whole or row.box is None):
                raise InputError(
                    f"data={name} has no boxes, which a detector learns from: use format=darknet_classifier"
                    + ("" if whole else " crop=face")
                )
            if not whole:
                raise InputError(f"data={name} is not all photo files: use crop=face, or data=affectnet for its photos")
            photo = photos.get(row.file)
            if photo is None:
                photos[row.file] = Photo(row.source, row.path, row.file, row.splits, [(row.label, row.box)])
            else:
                photo.faces.append((row.label, row.box))
                if photo.splits != row.splits:
                    photo.splits = tuple(split for split in SPLITS if split in (*photo.splits, *row.splits))
        progress(block.done)
    return [photo for file, photo in photos.items() if file not in incomplete], skipped


def inspect_photo(file: str, limits: PhotoLimits) -> Inspection:
    """Decode a photo once and tell what the program will see of it, or why it must not see it.

    Only JPEG and PNG are taken: the programs' own decoder knows no others, and Debian's finds label files for none. One
    that its EXIF orientation turns is to be written with `write_upright`; with ``limits.exif`` "ignore" none is.
    """
    photo = read_photo(file, "grey", limits)
    if isinstance(photo, str):
        return photo
    with open(file, "rb") as stream:
        data = stream.read()
    kind: type[JpegImageFile | PngImageFile]
    if data.startswith(b"\xff\xd8"):
        ending, kind = ".jpg", JpegImageFile
    elif data.startswith(b"\x89PNG"):
        ending, kind = ".png", PngImageFile
    else:
        return "neither JPEG nor PNG"
    # the programs' own decoder does not turn a photo as OpenCV does
    turned = limits.exif == "apply" and (b"Exif\0\0" in data or b"eXIf" in data) and _is_turned(data, kind)
    height, width = photo.shape
    return ".png" if turned else ending, width, height, turned


def write_upright(file: str, limits: PhotoLimits, out: Path) -> None:
    """Write a photo that its EXIF orientation turns as PNG, upright.

    Raises:
        OSError: it can't be written.
    """
    photo = read_photo(file, "rgb", limits)
    if isinstance(photo, str):
        raise OSError(f"{file}: {photo}")
    # not imwrite, which does not tell of a full disk
    out.write_bytes(cv2.imencode(".png", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))[1].tobytes())


def _is_turned(data: bytes, image_file: type[JpegImageFile | PngImageFile]) -> bool:
    try:
        return image_file(io.BytesIO(data)).getexif().get(_ORIENTATION) in range(2, 9)
    except Exception:  # Pillow's parsers raise many types on broken EXIF, which nobody turns a photo by
        return False


def label_line(class_id: int, box: Box, width: int, height: int, margin: float = 0.0) -> str | None:
    """Return ``class cx cy w h`` of a box in a photo of some width and height, as fractions of these.

    The box is widened by ``margin`` (a fraction of its width and height, half of it on each side) and clipped to the
    photo, but not rounded to pixels. None where ``place_crop`` finds no face to be cut, or where it is too small for
    the six decimals.

    >>> label_line(1, (10, 20, 40, 20), 100, 50, margin=0.5)
    '1 0.300000 0.600000 0.600000 0.600000'
    """
    if isinstance(place_crop(width, height, box, margin), str):
        return None
    x, y, w, h = box
    right, down = margin * w / 2, margin * h / 2
    x0, x1 = max(0.0, x - right) / width, min(width, x + w + right) / width
    y0, y1 = max(0.0, y - down) / height, min(height, y + h + down) / height
    numbers = [f"{number:.6f}" for number in ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)]
    return None if "0.000000" in numbers else f"{class_id} {' '.join(numbers)}"


def label_lines(
    photo: Photo, width: int, height: int, class_ids: Sequence[int], margin: float
) -> tuple[dict[str, int], int]:
    """Return the label lines of a photo with the class index of each, every line once, and how many faces gave none.

    ``class_ids`` are Darknet's for our class indices.
    """
    lines: dict[str, int] = {}
    outside = 0
    for label, own in photo.faces:
        box = in_pixels(own, width, height)
        assert box is not None  # `group_photos` lets no detector's photo without boxes pass
        line = label_line(class_ids[label], box, width, height, margin)
        if line is None:
            outside += 1
        else:
            lines[line] = label
    return lines, outside
