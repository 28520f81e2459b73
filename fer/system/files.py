"""Files that are at any moment the old one or the whole new one, also where the disk is full."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fer.errors import InputError

#: No space left, quota used up, larger than the file system or ulimit allows.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; after the block that file takes the place of ``path``.

    Where the block raises, the temporary file is removed and ``path`` is what it was.

    Raises:
        InputError: there is no room for the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        # before the rename, or a crash of the machine could leave the new name without the data
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_full(error):
            before = "; the one written before is intact" if path.exists() else ""
            raise InputError(
                f"{path}: not written, {os.strerror(error.errno).lower()}{before}: free space or choose another place"
            ) from error
        raise


def is_full(error: BaseException) -> bool:
    """Say whether the operating system had no room for a file."""
    return isinstance(error, OSError) and error.errno in _FULL


def write_files(folder: Path, writers: dict[str, Callable[[Path], Any]]) -> dict[str, Path]:
    """Call each writer with a temporary path in ``folder``, rename it to its key, and return name -> path, last first.

    Raises:
        InputError: the folder cannot be made or written in.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the report's folder {folder} ({error.strerror}): choose another") from error
    written = {name: folder / name for name in reversed(writers)}
    for name, write in writers.items():
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        try:
            temporary.touch()
        except OSError as error:
            if is_full(error):
                raise
            raise InputError(
                f"{written[name]}: cannot be written ({error.strerror}): choose another place with out="
            ) from error
        try:
            write(temporary)
            temporary.replace(written[name])
        finally:
            temporary.unlink(missing_ok=True)
    return written
