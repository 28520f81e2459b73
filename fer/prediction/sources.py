"""What a source means: a photo, a folder, a glob, a video, a camera or an address."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from fer.data.readers.image_folder import IMAGE_SUFFIXES
from fer.errors import InputError
from fer.system.addresses import without_password

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts")

# What OpenCV's FFmpeg opens over a network; a file's path is never opened by these names.
_ADDRESS = re.compile(r"(rtsps?|rtmps?|https?|udp|tcp)://", re.IGNORECASE)
_OUTSIDE = "a link that leads out of the folder: give the folder that it leads to as source"


@dataclass(frozen=True, slots=True)
class Medium:
    """One thing to read: ``kind`` is photo, video (a file) or live (a camera number or an address).

    ``error`` is why it is not to be opened at all.
    """

    path: str
    kind: str
    error: str = ""

    @property
    def shown(self) -> str:
        """The path as it may be written down: of an address without the user's name and password."""
        return without_password(self.path) if self.kind == "live" else self.path


def find_media(source: str, out: str | os.PathLike[str] | None = None) -> list[Medium]:
    """Return what a source means, files in sorted order; a folder is walked with all below it, but without ``out``.

    Links that lead out of the folder, or out of the fixed part of a glob, are not followed and stand in the list with
    an error; links to folders inside are not followed, as what they show is found where it lies. A file that is named
    itself may be a link. In a folder, files with other suffixes than those of photos and videos are left alone.

    Raises:
        InputError: nothing is found, or the source lies in ``out``, whose drawn pictures would be read again.
    """
    if _ADDRESS.match(source):
        return [Medium(source, "live")]
    if re.fullmatch(r"\d+", source) and not os.path.lexists(source):
        return [Medium(source, "live")]
    skip = None if out is None else os.path.realpath(out)
    if skip and os.path.lexists(source) and _inside(source, skip):
        raise InputError(f"source={source}: lies in out={out}, where the drawn pictures go; give another out=FOLDER")
    if os.path.isdir(source):
        paths = sorted(_walk(source, skip))
    elif os.path.lexists(source):
        return [Medium(source, _kind(source))]
    else:
        # the part before the first name with a wildcard
        root = re.split(r"[*?[]", source)[0].rpartition(os.sep)[0] or os.curdir
        files = sorted(path for path in glob.glob(source, recursive=True) if not os.path.isdir(path))
        paths = [(path, _inside(path, root)) for path in files if not (skip and _inside(path, skip))]
    if not paths:
        raise InputError(
            f"source={source}: no such photo, video, folder that holds any, or glob that matches any; "
            "a camera is its number, e.g. source=0"
        )
    return [Medium(path, _kind(path), "" if inside else _OUTSIDE) for path, inside in paths]


def _walk(root: str, skip: str | None) -> Iterator[tuple[str, bool]]:
    """Yield the photos and videos below a folder and links to folders outside it, with whether each lies inside."""
    for folder, folders, names in os.walk(root):
        if skip:
            folders[:] = [name for name in folders if os.path.realpath(os.path.join(folder, name)) != skip]
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.islink(path) and not _inside(path, root):
                yield path, False
        for name in names:
            path = os.path.join(folder, name)
            if name.lower().endswith(IMAGE_SUFFIXES + VIDEO_SUFFIXES):
                yield path, not os.path.islink(path) or _inside(path, root)


def _inside(path: str, root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _kind(path: str) -> str:
    name = path.lower()
    if name.endswith(IMAGE_SUFFIXES):
        return "photo"
    if name.endswith(VIDEO_SUFFIXES):
        return "video"
    # a file that was named itself, whatever its suffix; of anything else the photo's reader says what is wrong
    return "video" if os.path.isfile(path) and os.path.getsize(path) and not looks_like_a_photo(path) else "photo"


def looks_like_a_photo(path: str) -> bool:
    """Say whether a file begins as a photo does that OpenCV knows."""
    try:
        return cv2.haveImageReader(path)
    except cv2.error:  # OpenEXR, which OpenCV knows but its wheel has switched off
        return True
