"""Where the paths in a data set's files lead: only into the folders that the user named, whatever the files say."""

import os
import posixpath
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from fer.errors import InputError

#: Of a drive, as Windows writes it.
_DRIVE = re.compile(r"[A-Za-z]:/")
#: Bytes of a path, of which Linux takes no more.
_LONGEST = 4096
_BREAK = re.compile(r"\r\n|\n|\r")


def read_text(path: str | Path, most: int, kind: str) -> str:
    """Return a text file of at most ``most`` MiB, as editors of any system save it: UTF-8 or UTF-16 with a BOM.

    Bytes that are neither stay as Python keeps those of file names. ``kind`` is what it should be, in messages.

    Raises:
        InputError: it cannot be read, or is larger.
    """
    try:
        # opening a pipe would wait for somebody to write into it
        if not stat.S_ISREG(os.stat(path).st_mode):
            data = None
        else:
            with open(path, "rb") as file:
                data = file.read((most << 20) + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}): give a file that you may read") from error
    if data is None:
        raise InputError(f"{path}: not a file, where {kind} is wanted")
    if len(data) > most << 20:
        raise InputError(f"{path}: is larger than {most:,} MiB, too large for {kind}: give another file")
    return decoded(data)


def decoded(data: bytes) -> str:
    """Return what bytes say as text; see `read_text`."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without the blanks around them; line breaks of all systems, and no other characters.

    >>> lines_of("a b.jpg \\r\\n\\tc.jpg")
    ['a b.jpg', 'c.jpg']
    """
    return [line.strip(" \t") for line in _BREAK.split(text)]


class Places:
    """Finds files and folders by what a data set's own files call them, within some folders.

    ``root`` is the data set's folder, ``given`` another that the user named, None for none, and ``bases`` are further
    folders that relative paths may start from, by what messages call them. Absolute paths and links must lead into one
    of the first two, or a base that a relative path was found by. An absolute path that does not, as from another
    machine, is looked up by its last parts. A folder is listed once, so that a photo costs no call of the system.
    """

    def __init__(self, root: Path, given: Path | None = None, bases: Mapping[str, Path] | None = None) -> None:
        self.root = os.path.abspath(root)
        own = {"": self.root} | ({"data.images": os.path.abspath(given)} if given else {})
        self._bases = own | {name: os.path.abspath(base) for name, base in (bases or {}).items()}
        self._trusted = list(own.values())
        self._real = [os.path.realpath(folder) for folder in self._trusted]
        self._listings: dict[str, dict[str, bool] | None] = {}
        self._meant: dict[str, list[tuple[str, str]]] = {}
        #: How paths were found that were not relative to the root: what messages call it -> number of them.
        self.found_by: dict[str, int] = {}

    def files(self, folder: str) -> Mapping[str, bool]:
        """Return the names of the files of a folder, with whether each is a link; none of one that leads out."""
        return self._list(folder) or {}

    def file(self, text: str) -> str | None:
        """Return the absolute path of the file that a path in the data set means, None where there is none."""
        path = text.replace("\\", "/")
        if not _can_be(path):
            return None
        folder, _, name = path.rpartition("/")
        for meant, by in self._folders(folder or ("/" if path[:1] == "/" else "")):
            if (found := self.entry(meant, name)) is not None:
                self._note(by, found)
                return found
        return None

    def entry(self, folder: str, name: str) -> str | None:
        """Return the absolute path of a file of a folder, None where it is not there or a link that leads out."""
        link = self.files(folder).get(name)
        path = f"{folder.rstrip('/')}/{name}"
        return path if link is False or link and self._inside(path) else None

    def oddity(self, path: str) -> str:
        """Say what there is in the place of a file that `entry` does not give."""
        if os.path.islink(path):
            return "a link out of the data set" if os.path.isfile(path) else "a link that leads to no file"
        return "a folder" if os.path.isdir(path) else "no regular file"

    def folder(self, text: str) -> str | None:
        """Return the absolute path of the folder that a path in the data set means, None where there is none."""
        path = text.replace("\\", "/")
        if not _can_be(path):
            return None
        path = posixpath.normpath(path)
        above, _, name = path.rpartition("/")
        for meant, by in self._folders(above or ("/" if path[:1] == "/" else "")):
            found = posixpath.normpath(posixpath.join(meant, name))
            if self._list(found, by) is not None:
                self._note(by, found)
                return found
        return None

    def leads_out(self, text: str) -> bool:
        """Say whether a path is absolute and in none of the folders, so that only the user can allow it."""
        path = text.replace("\\", "/")
        return _is_absolute(path) and not _within(posixpath.normpath(path), self._trusted)

    def relative(self, path: str) -> str:
        """Return a path as records have it: relative to the root where it lies in that."""
        start = self.root.rstrip("/") + "/"
        return path[len(start) :] if path.startswith(start) else path

    def subfolders(self, folder: str) -> list[str]:
        """Return the paths of the folders in a folder, sorted, but hidden ones and links that lead out."""
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
        except OSError:
            return []
        paths = [posixpath.join(folder, name) for name in names]
        return [path for path in paths if self._list(path) is not None]

    def _note(self, by: str, path: str) -> None:
        if by:
            self.found_by[by] = self.found_by.get(by, 0) + 1
            base = self._bases.get(by)
            if base is not None and base not in self._trusted:
                self._trusted.append(base)
                self._real.append(os.path.realpath(base))

    def _folders(self, text: str) -> list[tuple[str, str]]:
        """Return the folders that there are and that a path may mean, the likeliest first, each with what it is by."""
        if text not in self._meant:
            meant: dict[str, str] = {}
            for path, by in self._candidates(text):
                if path not in meant and self._list(path, by) is not None:
                    meant[path] = by
            self._meant[text] = list(meant.items())
        return self._meant[text]

    def _candidates(self, text: str) -> list[tuple[str, str]]:
        path = posixpath.normpath(text or ".")
        if _is_absolute(path):
            inside = [(path, "")] if _within(path, self._trusted) else []
            parts = [part for part in _DRIVE.sub("/", path).split("/") if part]
            ends = ["/".join(parts[start:]) for start in range(1, len(parts) + 1)]
            by = "the end of an absolute path"
            return inside + [(posixpath.join(base, end).rstrip("/"), by) for end in ends for base in self._trusted]
        found = [(posixpath.normpath(posixpath.join(base, path)), by) for by, base in self._bases.items()]
        if path.startswith(".."):
            # Roboflow's ../train/images, which means train/images
            inner = re.sub(r"^(\.\./?)+", "", path)
            found += [(posixpath.join(base, inner).rstrip("/"), by) for by, base in self._bases.items()]
        return found

    def _list(self, folder: str, by: str = "") -> dict[str, bool] | None:
        if folder not in self._listings:
            base = self._bases.get(by)
            if not self._inside(folder) and not (base and _within(os.path.realpath(folder), [os.path.realpath(base)])):
                # not kept: by another base it may be one
                return None
            self._listings[folder] = None
            try:
                with os.scandir(folder) as entries:
                    self._listings[folder] = {e.name: e.is_symlink() for e in entries if e.is_file()}
            except (OSError, ValueError):
                pass
        return self._listings[folder]

    def _inside(self, path: str) -> bool:
        return _within(os.path.realpath(path), self._real)


def _can_be(path: str) -> bool:
    try:
        return 0 < len(os.fsencode(path)) <= _LONGEST and "\0" not in path
    except UnicodeEncodeError:
        return False


def _is_absolute(path: str) -> bool:
    return path[:1] == "/" or _DRIVE.match(path) is not None


def _within(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
