"""Files that are at any moment the old one or the whole new one, also where the disk is full."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
