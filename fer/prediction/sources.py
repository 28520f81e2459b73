"""What a source means: a photo, a folder, a glob, a video, a camera or an address."""

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL.GifImagePlugin import GifImageFile

from fer.data.photos import is_photo
from fer.data.readers.image_folder import IMAGE_SUFFIXES
from fer.errors import InputError
from fer.system.addresses import without_password
from fer.system.download import is_web_address, opened, save

#: Files of these names are videos whatever is in them, so that a broken one is said and not left aside ...
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".m2ts",
    ".vob", ".ogv",
)  # fmt: skip
#: ... and of these photos.
PHOTO_SUFFIXES = (*IMAGE_SUFFIXES, ".jfif", ".jpe", ".jp2", ".gif", ".heic", ".heif", ".avif")

# What FFmpeg opens over a network; a file's path is never opened by these names.
_ADDRESS = re.compile(r"(rtsps?|rtmps?|https?|udp|tcp)://", re.IGNORECASE)
_OUTSIDE = "a link that leads out of the folder: give the folder that it leads to as source"

#: How the files of videos begin: Matroska and WebM, FLV, ASF, two of MPEG, MXF, IVF ...
_VIDEO_HEADS = (
    b"\x1aE\xdf\xa3", b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\x01\xba", b"\0\0\x01\xb3",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01", b"DKIF",
)  # fmt: skip
#: ... and what follows the first four bytes in MP4 and QuickTime, but for sound alone.
_ATOMS, _SOUND_BRANDS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"), (b"M4A ", b"M4B ", b"M4P ")
#: Bytes that show what a file is, three packets of a transport stream.
_HEAD = 3 * 192

#: Most bytes of a photo and of a video that is fetched, and the seconds that it may take.
_PHOTO_BYTES, _VIDEO_BYTES, _SECONDS = 200_000_000, 4_000_000_000, 1800.0


@dataclass(frozen=True, slots=True)
class Medium:
    """One thing to read: ``kind`` is photo, video (a file) or live (a camera number or an address).

    ``error`` is why it is not to be opened at all; ``fetched`` the file that an address was copied to.
    """

    path: str
    kind: str
    error: str = ""
    fetched: str = ""

    @property
    def shown(self) -> str:
        """The path as it may be written down: of an address without the user's name and password."""
        return without_password(self.path) if self.kind == "live" or self.fetched else self.path

    @property
    def file(self) -> str:
        """The file to open."""
        return self.fetched or self.path

    @property
    def name(self) -> str:
        """What pictures of it are called after: its path, of what was fetched the address without host and query."""
        return unquote(urlsplit(self.path).path) if self.fetched else self.path


def find_media(
    source: str, out: str | os.PathLike[str] | None = None, left_aside: Counter[str] | None = None
) -> list[Medium]:
    """Return what a source means, files in sorted order; a folder is walked with all below it, but without ``out``.

    What is a photo and what a video a file says by its first bytes, and where they say nothing by its suffix; in
    folders and globs other files are left aside, and counted by what they are in ``left_aside``. Links that lead out
    of the folder, or out of the fixed part of a glob, are not followed and stand in the list with an error; links to
    folders inside are not followed, as what they show is found where it lies. A file that is named itself may be a
    link.

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
        # of what is no photo the video's reader says what is wrong; of a file that is not there or empty the photo's
        other = "video" if os.path.isfile(source) and os.path.getsize(source) else "photo"
        return [Medium(source, kind_of(source) or _kind_by_name(source) or other)]
    else:
        # the part before the first name with a wildcard
        root = re.split(r"[*?[]", source)[0].rpartition(os.sep)[0] or os.curdir
        files = sorted(path for path in glob.glob(source, recursive=True) if not os.path.isdir(path))
        paths = [(path, _inside(path, root)) for path in files if not (skip and _inside(path, skip))]
    media, aside = [], Counter[str]() if left_aside is None else left_aside
    for path, inside in paths:
        # what macOS keeps beside a file on disks of other systems, with its suffix
        if os.path.basename(path).startswith("._"):
            aside["._ twin"] += 1
        elif not inside:
            # a folder, or of a kind that only the suffix tells, as it is not opened
            if os.path.isdir(path) or _kind_by_name(path):
                media.append(Medium(path, _kind_by_name(path) or "photo", _OUTSIDE))
            else:
                aside["link"] += 1
        elif kind := kind_of(path) or _kind_by_name(path):
            media.append(Medium(path, kind))
        else:
            aside[os.path.splitext(path)[1].lower() or "file without suffix"] += 1
    if not media:
        raise InputError(
            f"source={source}: no such photo, video, folder that holds any, or glob that matches any; "
            "a camera is its number, e.g. source=0" + (f"; left aside: {counted(aside)}" if aside else "")
        )
    return media


def counted(aside: Counter[str]) -> str:
    """Return counts in words, the largest first.

    >>> counted(Counter({".txt": 2, "._ twin": 1}))
    '2 .txt, 1 ._ twin'
    """
    return ", ".join(f"{count:,} {what}" for what, count in aside.most_common(8))


def _walk(root: str, skip: str | None) -> Iterator[tuple[str, bool]]:
    """Yield the files below a folder and links to folders outside it, with whether each lies inside."""
    for folder, folders, names in os.walk(root):
        if skip:
            folders[:] = [name for name in folders if os.path.realpath(os.path.join(folder, name)) != skip]
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.islink(path) and not _inside(path, root):
                yield path, False
        for name in names:
            path = os.path.join(folder, name)
            yield path, not os.path.islink(path) or _inside(path, root)


def _inside(path: str, root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def kind_of(path: str) -> str:
    """Return what a file is by its first bytes: photo, video, or nothing where it is neither or can't be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            # a pipe would be waited for
            return ""
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD)
    except (OSError, ValueError):
        return ""
    if head.startswith(b"GIF8"):
        return "video" if _is_animated(path) else "photo"
    return "photo" if is_photo(head) else "video" if _is_video(head) else ""


def looks_like_a_photo(path: str) -> bool:
    """Say whether a file begins as a photo does."""
    return kind_of(path) == "photo"


def _is_video(head: bytes) -> bool:
    if head.startswith(_VIDEO_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    if head[4:8] in _ATOMS:
        return head[8:12] not in _SOUND_BRANDS
    if head.startswith(b"OggS"):
        return b"theora" in head or b"OVP80" in head or b"BBCD" in head
    # a transport stream's packets, of a camcorder with four bytes before each
    return any(head[first::step][:3] == b"GGG" for first, step in ((0, 188), (4, 192)))


def _is_animated(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return GifImageFile(file).is_animated
    except Exception:  # Pillow's parsers raise many types; the photo's reader says what is wrong
        return False


def _kind_by_name(path: str) -> str:
    name = path.lower()
    return "photo" if name.endswith(PHOTO_SUFFIXES) else "video" if name.endswith(VIDEO_SUFFIXES) else ""


def fetch(medium: Medium, folder: str | os.PathLike[str]) -> Medium:
    """Return the photo or video that an http(s) address leads to as a file in ``folder``; a stream stays as it is.

    Raises:
        InputError: it can't be fetched, is too large or too slow, or neither a photo nor a video.
    """
    if medium.kind != "live" or not is_web_address(medium.path):
        return medium
    file = Path(folder, "fetched")
    with opened(medium.path) as answer:
        kind = answer.headers.get_content_type()
        # a camera's pictures one after the other, and lists of a stream's parts
        if kind.startswith("multipart/") or "mpegurl" in kind:
            return medium
        head = answer.read(_HEAD)
        # what has no end is watched, not fetched
        endless = answer.length is None and not (is_photo(head) or head[4:8] in _ATOMS)
        if head.startswith((b"#EXTM3U", b"--")) or (endless and not kind.startswith("text/")):
            return medium
        with file.open("wb") as stream:
            stream.write(head)
            save(answer, medium.path, stream, _PHOTO_BYTES if is_photo(head) else _VIDEO_BYTES, _SECONDS)
    found = kind_of(str(file))
    if not found:
        raise InputError(f"source={medium.shown}: neither a photo nor a video ({kind})")
    return replace(medium, kind=found, fetched=str(file))
