"""Photos to faces: read a file once, judge it, crop the annotated box, resize; every refusal carries its reason."""

import io
import math
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from PIL import ImageOps
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Image
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from fer.data.boxes import Box, FractionBox, in_pixels
from fer.data.source import BLOCK_ROWS, SPLITS, Block, FaceFormat, Faces, NoFaces, PhotoLimits, Skipped, empty_faces

#: x0, y0, x1, y1 in pixels of the photo, ends excluded.
Corners = tuple[int, int, int, int]

# The largest crop that is filled up where its box reaches over the photo's edge; a box may claim any size.
_MOST_SIDE, _MOST_PIXELS = 100_000, 200_000_000

# Pillow's classes are used directly: Image.open warns of big pictures, or raises, before our own limit can.
_OTHER_FORMATS: dict[bytes, type[ImageFile]] = {
    b"BM": BmpImageFile, b"GIF8": GifImageFile, b"RIFF": WebPImageFile,
    b"II*\0": TiffImageFile, b"MM\0*": TiffImageFile,
    b"\0\0\0\x0cjP  \r\n\x87\n": Jpeg2KImageFile, b"\xff\x4f\xff\x51": Jpeg2KImageFile,
}  # fmt: skip
_JPEG, _JPEG_END, _PNG = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
#: Tags of TIFF 6.0.
_BITS, _PACKED, _PHOTOMETRIC, _STRIPS, _STRIP_BYTES = 258, 259, 262, 273, 279
#: The brands of ISO 23008-12, by which a photo's file is known from a video's, which begins alike.
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2")
_AVIF = (b"avif", b"avis")


@dataclass(slots=True)
class PhotoRow:
    """One face to be read: its photo, where it lies in it, and its annotation.

    ``path`` is relative to the data folder, with "/"; ``file`` is where the photo lies; ``splits`` may name several.
    ``box`` is in pixels or, of a photo not opened yet, a `FractionBox`; None means the whole photo. ``landmarks`` are
    136 numbers x, y, x, y, ... in pixels of the photo, as the text of the csv (separated by ";") or as an array.
    ``valence`` and ``arousal`` are NaN where unknown, ``group``, the person or sequence, is then "".
    """

    source: str
    path: str
    file: str
    splits: tuple[str, ...]
    label: int
    box: Box | FractionBox | None = None
    valence: float = math.nan
    arousal: float = math.nan
    landmarks: str | np.ndarray | None = None
    group: str = ""


def _edges(box: Box, margin: float) -> Corners:
    x, y, width, height = box
    right, down = margin * width / 2, margin * height / 2
    return (
        math.floor(x - right + 0.5), math.floor(y - down + 0.5),
        math.floor(x + width + right + 0.5), math.floor(y + height + down + 0.5),
    )  # fmt: skip


def crop_box(photo_width: int, photo_height: int, box: Box, margin: float = 0.0) -> Corners | None:
    """Return the corners x0, y0, x1, y1 (ends excluded) of a box widened by a margin and clipped to the photo.

    ``margin`` is a fraction of the box's width and height, half of it on each side; edges are rounded to the nearest
    pixel, halves up. None when the box is empty or no part of it, margin apart, lies in the photo.

    >>> crop_box(100, 50, (10, 20, 40, 20), margin=0.5)
    (0, 15, 60, 45)
    """
    x, y, width, height = box
    if width <= 0 or height <= 0 or x >= photo_width or y >= photo_height or x + width <= 0 or y + height <= 0:
        return None
    x0, y0, x1, y1 = _edges(box, margin)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(photo_width, x1), min(photo_height, y1)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


@dataclass(frozen=True, slots=True)
class Crop:
    """Where a face is cut from a photo.

    ``corners`` are those of the widened box, which may lie outside of the photo; ``box`` is the box without margin,
    clipped to the photo, None where the whole photo is the face; ``reaches_over`` tells that the photo lacks a part.
    """

    corners: Corners
    box: Corners | None
    reaches_over: bool

    def of(self, photo: np.ndarray) -> np.ndarray:
        """Return what is cut from the photo (h, w) or (h, w, 3); a part that it lacks repeats its edge."""
        x0, y0, x1, y1 = self.corners
        if not self.reaches_over:
            return photo[y0:y1, x0:x1]
        height, width = photo.shape[:2]
        inside = photo[max(0, y0) : y1, max(0, x0) : x1]
        return cv2.copyMakeBorder(
            inside, max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width), cv2.BORDER_REPLICATE
        )


def place_crop(photo_width: int, photo_height: int, box: Box | None, margin: float = 0.0) -> Crop | str:
    """Return where a box widened by a margin is cut from a photo, or why it is not; None is the whole photo.

    Preparation and prediction both cut by this. A face at the edge keeps its shape: what the photo lacks is added by
    `Crop.of`. Edges are rounded as `crop_box` does it.

    >>> place_crop(100, 50, (-10, 20, 40, 40))
    Crop(corners=(-10, 20, 30, 60), box=(0, 20, 30, 50), reaches_over=True)
    >>> place_crop(100, 50, (100, 20, 40, 40))
    'box outside the photo'
    """
    if box is None:
        return Crop((0, 0, photo_width, photo_height), None, False)
    inside = crop_box(photo_width, photo_height, box)
    if inside is None:
        return "box outside the photo"
    x0, y0, x1, y1 = corners = _edges(box, margin)
    reaches_over = x0 < 0 or y0 < 0 or x1 > photo_width or y1 > photo_height
    if reaches_over and (max(x1 - x0, y1 - y0) > _MOST_SIDE or (x1 - x0) * (y1 - y0) > _MOST_PIXELS):
        return "box far larger than the photo"
    return Crop(corners, inside, reaches_over)


def crop_face(photo: np.ndarray, box: Box, face: FaceFormat) -> np.ndarray | None:
    """Return a face of a photo (h, w) or (h, w, 3) as networks take it; None where `place_crop` finds none."""
    crop = place_crop(photo.shape[1], photo.shape[0], box, face.margin)
    return None if isinstance(crop, str) else fit(crop.of(photo), face)


def fit(image: np.ndarray, face: FaceFormat) -> np.ndarray:
    """Return an image uint8 (h, w) or (h, w, 3 RGB) in the size and colour of ``face``; aspect is not kept.

    Each axis has the filter that it needs: one that shrinks is averaged over pixel areas (INTER_AREA), one that grows
    is interpolated bicubically, which keeps edges sharp with less ringing on a small face than Lanczos. An axis of the
    right size is left alone. RGB to grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), grey to RGB three times grey.
    """
    grey = face.color == "grey"
    if grey and image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = face.size
    height, width = image.shape[:2]
    if height > size or width > size:
        image = cv2.resize(image, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    if height < size or width < size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    if not grey and image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return image


def channels_first(faces: np.ndarray) -> np.ndarray:
    """Return faces uint8 (N, size, size) or (N, size, size, 3) as contiguous (N, C, size, size)."""
    return np.ascontiguousarray(faces[:, None] if faces.ndim == 3 else faces.transpose(0, 3, 1, 2))


def is_photo(head: bytes) -> bool:
    """Say by the first 16 bytes or more of a file whether it is of a format that `read_photo` reads."""
    return head.startswith((_JPEG, _PNG)) or _other_format(head) is not None or _heif_format(head) is not None


def _other_format(data: bytes) -> type[ImageFile] | None:
    image_file = next((found for signature, found in _OTHER_FORMATS.items() if data.startswith(signature)), None)
    # other RIFF files are films and sounds
    return None if image_file is WebPImageFile and data[8:12] != b"WEBP" else image_file


def _heif_format(data: bytes) -> str | None:
    """Return whether a file is "avif" or "heic", by its first brand, or where that is mif1 by those it fits too."""
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIF + _AVIF:
        return None
    end = min(len(data), int.from_bytes(data[:4], "big"))
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
    return "avif" if any(brand in _AVIF for brand in brands) else "heic"


def _heif_file(kind: str, data: bytes) -> ImageFile:
    if kind == "avif":
        return AvifImageFile(io.BytesIO(data))
    # 10 MB of libraries, which few photos need
    from pillow_heif.as_plugin import HeifImageFile

    return HeifImageFile(io.BytesIO(data))


def _header(data: bytes) -> tuple[int, int, bool]:
    """Return width, height and whether the end of the file is there, without decoding anything.

    Raises some exception, Pillow's or ours, on bytes that are no image.
    """
    if data.startswith(_JPEG[:2]):
        return _jpeg_header(data)
    if data.startswith(_PNG):
        width, height = struct.unpack_from(">II", data, 16)
        return width, height, data.rfind(b"\0\0\0\0IEND") >= 0
    image_file = _other_format(data)
    if image_file is None:
        raise ValueError("no known format")
    return *image_file(io.BytesIO(data)).size, True


def _jpeg_header(data: bytes) -> tuple[int, int, bool]:
    # A walk from marker to marker (ITU-T T.81, B.1): Pillow's own adds about a tenth to the time of decoding.
    at = 2
    size: tuple[int, int] | None = None
    while True:
        at = data.index(b"\xff", at)
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # these have no segment
            at += 2
        elif marker == 0xDA:  # start of scan; the end marker of an EXIF thumbnail lies before it
            if size is None:
                raise ValueError("no frame header before the scan")
            height, width = size
            return width, height, data.rfind(b"\xff\xd9", at) >= 0
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header, not tables
                height, width = struct.unpack_from(">HH", data, at + 5)
                size = height, width
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _loads(data: bytes) -> bool:
    """Return whether Pillow can decode all of it; always true for a JPEG or PNG, which have an end marker."""
    image_file = _other_format(data)
    try:
        if image_file is None:
            return True
        image = image_file(io.BytesIO(data))
        if isinstance(image, TiffImageFile) and (image.tag_v2.get(_PHOTOMETRIC), image.tag_v2.get(_PACKED)) == (6, 1):
            # YCbCr that is not compressed OpenCV can decode, Pillow can't
            strips = zip(image.tag_v2[_STRIPS], image.tag_v2[_STRIP_BYTES], strict=True)
            return all(0 <= start and start + length <= len(data) for start, length in strips)
        return image.load() is not None
    except Exception:  # Pillow's decoders raise many types on broken data; whatever it is, the file is broken
        return False


def _why_not(data: bytes) -> str:
    """Return the reason why what no decoder takes is no photo: of a TIFF of numbers that they are."""
    if _other_format(data) is not TiffImageFile:
        return "not an image"
    try:
        tags = ImageFileDirectory_v2(data[:8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        bits = max(tags.get(_BITS, (1,)))
    except Exception:  # Pillow's parsers raise many types on foreign bytes
        return "not an image"
    # nobody says which of them are black and white
    return f"a TIFF of {bits}-bit numbers; save it with 8 bits" if bits > 16 else "not an image"


def read_photo(file: str, color: str, limits: PhotoLimits, cut: list[str] | None = None) -> np.ndarray | str:
    """Return a photo as uint8 (h, w) for ``color="grey"``, else (h, w, 3) RGB; or the reason why it is not taken.

    JPEG, PNG, BMP, TIFF, WebP, GIF, JPEG 2000, HEIC and AVIF, whatever the file's name says. OpenCV's reading applies:
    the EXIF orientation is applied unless ``limits.exif`` is "ignore" (HEIC and AVIF always stand as they say), alpha
    is dropped, 16 bits become 8, CMYK becomes RGB, and an animation gives its first frame. A JPEG is decoded to grey
    directly (its Y channel, ITU-R BT.601). One without an end marker is "truncated"; but with a list ``cut`` it is
    decoded as far as it goes, and its file added to the list.
    """
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            return "not a file"
        if status.st_size == 0:
            return "zero bytes"
        if status.st_size < limits.min_bytes:
            return "smaller than data.min_bytes"
        if limits.max_bytes is not None and status.st_size > limits.max_bytes:
            return "larger than data.max_bytes"
        with open(file, "rb", buffering=0) as stream:
            data = stream.read()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
        return "missing file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return decode_photo(data, color, limits, cut, file)


def decode_photo(
    data: bytes, color: str, limits: PhotoLimits, cut: list[str] | None = None, file: str = ""
) -> np.ndarray | str:
    """Return what the bytes of a photo's file show, as `read_photo` does, or the reason why it is not taken."""
    grey = color == "grey"
    try:
        heif = _heif_format(data)
        width, height, complete = (*_heif_file(heif, data).size, True) if heif else _header(data)
    except Exception:  # Pillow's parsers raise many types on foreign bytes; none of them is an image
        return _why_not(data)
    if width * height > limits.max_pixels:
        return "too many pixels"
    if heif:
        photo = _with_pillow(lambda: _heif_file(heif, data), grey)
        return "truncated" if photo is None else photo
    if not complete and cut is not None and data.startswith(_JPEG):
        # OpenCV would print that it ends early
        photo = _with_pillow(lambda: JpegImageFile(io.BytesIO(data + _JPEG_END)), grey, limits.exif == "apply")
        if photo is None:
            return "truncated"
        cut.append(file)
        return photo
    if not complete or not _loads(data):
        return "truncated"
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    if limits.exif == "ignore":
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        photo = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        photo = None
    if photo is None:
        return _why_not(data)
    return photo if grey else cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)


def _with_pillow(open_image: Callable[[], ImageFile], grey: bool, upright: bool = True) -> np.ndarray | None:
    """Return what Pillow decodes; None where it can't, as the file is broken."""
    try:
        image: Image = open_image()
        # of HEIC libheif turns upright itself; of AVIF Pillow says how in the EXIF data
        photo = np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))
    except Exception:  # decoders raise many types on broken data
        return None
    return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) if grey else photo


def _points(landmarks: str | np.ndarray) -> np.ndarray | None:
    """Return landmarks as float32 (68, 2), or None where they are not 136 finite numbers."""
    values = landmarks.split(";") if isinstance(landmarks, str) else landmarks
    if len(values) != 136:
        return None
    try:
        with np.errstate(over="ignore"):  # a number that float32 can't hold becomes infinite
            points = np.array(values, np.float32).reshape(68, 2)
    except ValueError:
        return None
    return points if np.isfinite(points).all() else None


def decode_photos(
    rows: Iterable[PhotoRow | Skipped], face: FaceFormat, limits: PhotoLimits, names: tuple[str, ...]
) -> Faces:
    """Read, crop and resize the faces of some rows, in their order; rows that can't be read are listed with the reason.

    A row in two splits gives two faces. Consecutive rows of one file read it once. ``Skipped`` rows are handed on.
    ``names`` are the source names that ``Faces.source`` counts. Faces are cut by `place_crop`. Landmarks become
    (p - crop origin) * scale, NaN where they are not 136 numbers; ``box`` is the annotated box without margin, clipped
    to the photo.
    """
    rows = list(rows)
    faces = empty_faces(sum(len(row.splits) for row in rows if isinstance(row, PhotoRow)), face)
    at = 0
    file: str | None = None
    photo: np.ndarray | str = "missing file"
    for row in rows:
        if isinstance(row, NoFaces) and row.incomplete:
            continue
        if isinstance(row, Skipped):
            faces.skipped.append(row)
            continue
        if not _is_utf8(row.path):
            faces.skipped.append(Skipped(row.source, row.path, "name that is not UTF-8: rename the file"))
            continue
        if row.file != file:
            file, photo = row.file, read_photo(row.file, face.color, limits)
        if isinstance(photo, str):
            faces.skipped.append(Skipped(row.source, row.path, photo))
            continue
        height, width = photo.shape[:2]
        crop = place_crop(width, height, in_pixels(row.box, width, height), face.margin)
        if isinstance(crop, str):
            faces.skipped.append(Skipped(row.source, row.path, crop))
            continue
        x0, y0, x1, y1 = crop.corners
        picture = fit(crop.of(photo), face)
        points = None if row.landmarks is None else _points(row.landmarks)
        for split in row.splits:
            faces.image[at] = picture
            faces.label[at] = row.label
            faces.split[at] = SPLITS.index(split)
            faces.source[at] = names.index(row.source)
            faces.path[at] = row.path
            faces.group[at] = row.group
            faces.valence[at] = row.valence
            faces.arousal[at] = row.arousal
            if points is not None:
                faces.landmarks[at] = (points - (x0, y0)) * (face.size / (x1 - x0), face.size / (y1 - y0))
            faces.reaches_over[at] = crop.reaches_over
            if crop.box is not None:
                left, top, right, bottom = crop.box
                faces.box[at] = left, top, right - left, bottom - top
            at += 1
    return Faces(
        faces.image[:at], faces.label[:at], faces.split[:at], faces.source[:at], faces.path[:at], faces.group[:at],
        faces.valence[:at], faces.arousal[:at], faces.landmarks[:at], faces.box[:at], faces.reaches_over[:at],
        faces.skipped,
    )  # fmt: skip


def _is_utf8(path: str) -> bool:
    """Say whether a path is text, as prepared files hold it; Python keeps other bytes of names as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_blocks(rows: Iterable[PhotoRow | Skipped], done: Callable[[], float]) -> Iterator[Block]:
    """Yield rows in blocks of BLOCK_ROWS; ``done`` tells the fraction of the input that has been read so far."""
    rows = iter(rows)
    while block := list(islice(rows, BLOCK_ROWS)):
        yield Block(block, done())


def relative_path(text: str) -> str | None:
    """Return a recorded path with "/" between its parts, or None when it leaves the data folder.

    >>> relative_path(r"103\\a.jpg"), relative_path("../a.jpg"), relative_path("/a.jpg")
    ('103/a.jpg', None, None)
    """
    path = text.strip().replace("\\", "/")
    if not path or path[0] == "/" or path[1:2] == ":" or (".." in path and ".." in path.split("/")):
        return None
    return path
