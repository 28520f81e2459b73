"""Files and folders that are at any moment the old or the whole new ones, also where the disk is full.

What is new is written beside the old, under its name and ``.tmp``, and renamed when it is whole. A name that is always
the same lets the next run write over what a killed one left. Every rename of the project goes through this module.
"""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fer.errors import InputError

#: No space left, quota used up, larger than the file system or ulimit allows.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Said of /proc and the like, whose answer is that there is no such file.
_NO_PLACE = "its folder takes no files: choose another place"
#: A file system or folder that takes no files, a name that is no place for one, a disk that fails.
_REFUSED = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
    errno.EIO,
)  # fmt: skip


@contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; after the block that file takes the place of ``path``.

    Where the block raises, the temporary file is removed and ``path`` is what it was. ``sync`` is that of
    `put_in_place`.

    Raises:
        InputError: there is no room for the file, or it may not be written.
    """
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        put_in_place(temporary, path, sync)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        _raise_unwritten(error, path)
        raise


def put_in_place(temporary: Path, path: Path, sync: bool = True) -> None:
    """Give the written file ``temporary`` the name ``path``, instead of the file that has it.

    Its data goes to the disk before the rename: file systems may do the two in the other order, and a crash of the
    machine in between would leave an empty file under the name, and the old one gone. The rename itself need not be on
    the disk: until it is, the name stands for the old file, which is whole. A sync takes some milliseconds; ``sync``
    False is for the many small files of a run whose reader knows a damaged one and makes it again.
    """
    if sync:
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
    os.replace(temporary, path)


def require_new_folder(out: Path) -> None:
    """Refuse a folder that already holds something, before any work is done for it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: already exists and is not an empty folder; give another out=FOLDER")


def new_folder(folder: Path) -> Path:
    """Return ``folder``, or FOLDER-2, FOLDER-3, ...: the first that is not there."""
    free = folder
    for number in count(2):
        if not os.path.lexists(free):
            break
        free = folder.with_name(f"{folder.name}-{number}")
    return free


@contextmanager
def replacing_folder(path: Path, require: Callable[[Path], None] = require_new_folder) -> Iterator[Path]:
    """Give a new folder beside ``path`` to fill; after the block it takes the place of ``path``.

    ``require`` raises where what ``path`` holds must stay; it is asked before the block and again after it. Where the
    block raises, the new folder is removed and ``path`` is what it was.

    Raises:
        InputError: there is no room for the folder, or it may not be written; what ``require`` raises.
    """
    require(path)
    temporary = _beside(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        put_folder_in_place(temporary, path, require)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _raise_unwritten(error, path)
        raise


@contextmanager
def claiming(path: Path, remedy: str = "wait for it to end, or give another out=") -> Iterator[None]:
    """Hold the output ``path``, a file or a folder, for this process alone.

    The system lets go of it when the process ends in whatever way; the lock file beside ``path`` goes with the block.

    Raises:
        InputError: another process holds it; it cannot be written, also where the block finds out.
    """
    path = Path(os.path.abspath(path))
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0.2)
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        if not os.path.exists(lock.lock_file):
            raise InputError(f"{path}: not written, {_NO_PLACE}") from None
        raise InputError(f"{path}: another process is writing it: {remedy}") from None
    except OSError as error:
        _raise_unwritten(error, path)
        raise
    try:
        yield
    except OSError as error:
        _raise_unwritten(error, path)
        raise
    finally:
        # before it is let go of: who opens the file meanwhile finds it without a name, and tries anew
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()
        with suppress(OSError):
            # those that it was made for and that nothing came into
            for folder in new:
                folder.rmdir()


def put_folder_in_place(temporary: Path, path: Path, require: Callable[[Path], None] = require_new_folder) -> None:
    """Give the filled folder ``temporary`` the name ``path``; what has it is removed, unless ``require`` raises.

    As in `put_in_place` the data goes to the disk first, by one call for the whole file system: to sync thousands of
    small files one by one takes many times as long as to write them.
    """
    _sync_file_system(temporary)
    require(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as aside:
        # a folder that holds something can't be replaced in one step
        if path.exists():
            path.rename(Path(aside, "old"))
        temporary.rename(path)


def write_files(folder: Path, writers: dict[str, Callable[[Path], Any]]) -> dict[str, Path]:
    """Call each writer with a temporary path in ``folder``, and return name -> path, last first.

    When all are written they get their names, in the order of the writers; where one raises, none does.

    Raises:
        InputError: the folder cannot be made or written in, or there is no room.
    """
    written = {name: folder / name for name in reversed(writers)}
    new = not folder.exists()
    try:
        with ExitStack() as places:
            temporaries = {name: places.enter_context(replacing(path)) for name, path in written.items()}
            for name, write in writers.items():
                try:
                    # of libraries that write through C++ an error would come without its number
                    temporaries[name].touch()
                    write(temporaries[name])
                except FileNotFoundError as error:
                    if temporaries[name].exists():
                        raise
                    raise InputError(f"{written[name]}: not written, {_NO_PLACE}") from error
                except OSError as error:
                    _raise_unwritten(error, written[name])
                    raise
    except BaseException:
        with suppress(OSError):
            if new:
                folder.rmdir()
        raise
    return written


def is_full(error: BaseException) -> bool:
    """Say whether the operating system had no room for a file."""
    return _no_room(error) is not None


def _no_room(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _FULL:
        return os.strerror(error.errno).lower()
    return None


def is_unwritable(error: OSError) -> bool:
    """Say whether the operating system had no room for a file, or would not have it written or opened."""
    return error.errno in (*_FULL, *_REFUSED)


def is_of_disk(error: BaseException) -> bool:
    """Say whether an error is that the operating system took no file, or one line of ours that says so."""
    # not its __cause__, which joblib puts a traceback in the place of
    cause = error.__context__ if isinstance(error, InputError) else error
    return isinstance(cause, OSError) and is_unwritable(cause)


def _raise_unwritten(error: BaseException, path: Path) -> None:
    """Raise the line that says why ``path`` was not written, where the error is of writing it or what is beside it."""
    if not isinstance(error, OSError) or not is_unwritable(error):
        return
    # a file that cannot be opened may be one that is read; of libraries in C the error has no name
    if isinstance(error.filename, str | bytes | os.PathLike) and not is_full(error):
        named, whole = (Path(os.path.abspath(os.fsdecode(name))) for name in (error.filename, path))
        beside = named.parent == whole.parent and whole.name in named.name
        inside = any(each.name.startswith(whole.name) and each.parent == whole.parent for each in named.parents)
        if not (beside or inside or named in whole.parents):
            return
    before = "; the one written before is intact" if path.is_file() else ""
    remedy = "free space or choose another place" if is_full(error) else "choose another place"
    # of a folder to be made, where a file is
    number = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno or 0
    raise InputError(f"{path}: not written, {os.strerror(number).lower()}{before}: {remedy}") from error


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _sync_file_system(folder: Path) -> None:
    """Write to the disk all that its file system holds in memory; on systems other than Linux, all file systems."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
