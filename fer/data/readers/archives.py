"""The lines of a csv that may be packed as .gz, .xz or .zip, read in a stream."""

import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from fer.errors import InputError

_Stream = io.BufferedIOBase | BinaryIO

ARCHIVES = (".gz", ".xz", ".zip")

#: A longer line isn't a row of pixels: 4 MiB hold a face of 1,024 x 1,024.
LINE_BYTES = 4 << 20

#: What an archive with several csv files is searched for, beside a csv that is named like the archive.
_KNOWN = ("fer2013.csv", "icml_face_data.csv", "fer2021.csv", "affectnet.csv")

_ERRORS = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError, UnicodeError,
)  # fmt: skip


@contextmanager
def open_csv(path: Path) -> Iterator[tuple[Iterator[bytes], Callable[[], int], str]]:
    """Give a csv's lines, a function that tells how many bytes of ``path`` were read so far, and the csv's stem.

    Lines may end in \\n, \\r\\n or \\r; UTF-16 becomes UTF-8, anything else is given as the bytes that it is.

    Raises:
        InputError: the file can't be opened, or, while the lines are read, turns out to be damaged.
    """
    if path.name.lower().endswith((".tar.gz", ".tar.xz", ".tgz")):
        raise InputError(f"{path}: a tar archive is not read as it is; unpack it first: tar xf {path}")
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb", buffering=1 << 20))
            stream, name = _unpacked(raw, path)
            stack.enter_context(stream)
            encoding = _unusual(cast(io.BufferedReader, stream).peek(4096))
        except _ERRORS as error:
            raise InputError(_damaged(path, error)) from error
        lines = stream.readline if encoding is None else _recoded(stream, encoding)
        yield _lines(lines, path), raw.tell, PurePosixPath(name).stem


def _unpacked(raw: BinaryIO, path: Path) -> tuple[_Stream, str]:
    """Return the stream of the csv itself and its file name."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(raw), path.stem
    if suffix == ".xz":
        return lzma.open(raw), path.stem
    if suffix == ".zip":
        archive = zipfile.ZipFile(raw)
        member = _csv_in(archive, path)
        # typeshed calls what open returns by a wider type
        return io.BufferedReader(cast(zipfile.ZipExtFile, archive.open(member)), 1 << 20), member
    return raw, path.name


def _csv_in(archive: zipfile.ZipFile, path: Path) -> str:
    # Archives made on macOS have a second, hidden "file.csv" of metadata for each file.
    members = [
        member
        for member in archive.namelist()
        if member.lower().endswith(".csv") and not member.startswith("__MACOSX/")
    ]
    for wanted in (path.stem.removesuffix(".csv") + ".csv", *_KNOWN):
        named = [member for member in members if PurePosixPath(member).name == wanted]
        if len(named) == 1:
            return named[0]
    if len(members) == 1:
        return members[0]
    held = ", ".join(members[:5]) or "no csv"
    raise InputError(f"{path}: it holds {held}; unpack it and give the one csv to read")


def _unusual(head: bytes) -> str | None:
    """Return the encoding by which a text that begins so becomes lines; None where plain reading does."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head[:1] and head[1:2] == b"\0":
        return "utf-16-le"
    if head[:1] == b"\0" and head[1:2]:
        return "utf-16-be"
    first_line = head.partition(b"\n")[0]
    # old Mac's line ends; bytes that are no text stay what they are
    return "latin-1" if b"\r" in first_line.removesuffix(b"\r") else None


def _recoded(stream: _Stream, encoding: str) -> Callable[[int], bytes]:
    text = io.TextIOWrapper(cast(BinaryIO, stream), encoding, newline=None)
    target = "latin-1" if encoding == "latin-1" else "utf-8"
    return lambda most: text.readline(most).encode(target)


def _lines(readline: Callable[[int], bytes], path: Path) -> Iterator[bytes]:
    while True:
        try:
            line = readline(LINE_BYTES)
        except _ERRORS as error:
            raise InputError(_damaged(path, error)) from error
        if not line:
            return
        if len(line) >= LINE_BYTES:
            raise InputError(f"{path}: a line of more than {LINE_BYTES:,} bytes; this is no csv of pixel strings")
        yield line


def _damaged(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{path}: it can't be read, it may be damaged or incomplete ({reason}); get a whole copy of the file"
