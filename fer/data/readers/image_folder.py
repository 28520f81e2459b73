"""Image folders: <split>/<class>/*.jpg, or <class>/*.jpg with a seeded stratified split."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fer.data.photos import PhotoRow, decode_photos, in_blocks
from fer.data.readers.class_labels import label_indices, name_classes, whole_number
from fer.data.source import SPLIT_NAMES, SPLITS, Block, FaceFormat, Faces, PhotoLimits, Skipped
from fer.data.split import KEPT_TOGETHER, MAX_GROUP, check_fractions, stratified_split
from fer.errors import InputError
from fer.labels import canonical
from fer.system.words import amount

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".heic", ".heif", ".avif"
)  # fmt: skip

#: Characters of an expression that finds a person in a path.
_MOST_PATTERN = 300

#: What file managers and archivers leave behind.
CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")

#: Names that mean a split and no class: train, FER2013Valid, my_test.
_SPLIT_LIKE = re.compile(r"(.*[^a-z])?(train(ing)?|val(id|idation)?|(public|private)?test(ing)?)", re.IGNORECASE)


def folder_source(
    root: str | os.PathLike[str],
    face: FaceFormat,
    limits: PhotoLimits,
    class_names: Sequence[str] | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    source_name: str | None = None,
    group: str | None = None,
) -> "FolderSource":
    """Return the Source of an image folder; the whole picture is the face.

    Split folders are recognised by SPLIT_NAMES in any case; where there is train but no val, ``val_fraction`` of each
    class of train becomes val. Without split folders each class is divided by both fractions. Class names that are not
    given come from the folder names (see ``name_classes``). Class and split folders may be links to anywhere; links to
    files are followed within ``root`` and within their class folder. Rows are recorded under ``source_name``, or the
    folder's own name, as other folders have such paths too. ``group`` is a regular expression with one group in
    parentheses, searched in each path relative to ``root``: the person or sequence that no split may divide.

    Raises:
        InputError: ``group`` is no such expression or finds nothing, no such folder, no class folders, split folders
            that hold pictures and no classes, numbers as classes that are not counted from 0 or 1, classes that differ
            between splits, or fractions out of range.
    """
    check_fractions(val_fraction, test_fraction)
    return FolderSource(
        Path(root), face, limits, None if class_names is None else tuple(class_names), val_fraction, test_fraction,
        seed, source_name or Path(root).resolve().name, None if group is None else group_pattern(group),
    )  # fmt: skip


def group_pattern(text: str) -> re.Pattern[str]:
    r"""Return the regular expression of ``data.group``, which has one group in parentheses.

    >>> group_pattern(r"([A-Z]+)\.").search("happy/KA.HA1.29.png")[1]
    'KA'

    Raises:
        InputError: it is none, or too long.
    """
    remedy = "give one with the person in parentheses, such as data.group='([A-Z]+)[.]'"
    if len(text) > _MOST_PATTERN:
        raise InputError(f"data.group: an expression of {len(text):,} characters, not up to {_MOST_PATTERN}; {remedy}")
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"data.group={text}: not a regular expression ({error}); {remedy}") from error
    if pattern.groups != 1:
        raise InputError(f"data.group={text}: has {pattern.groups} groups in parentheses, not one; {remedy}")
    return pattern


class FolderSource:
    """The Source behind ``folder_source``."""

    def __init__(
        self, root: Path, face: FaceFormat, limits: PhotoLimits, class_names: tuple[str, ...] | None,
        val_fraction: float, test_fraction: float, seed: int, source_name: str, group: re.Pattern[str] | None = None,
    ):  # fmt: skip
        self.names = (source_name,)
        self.notes: list[str] = []
        self._face, self._limits = face, limits
        self._fractions, self._seed, self._group = (val_fraction, test_fraction), seed, group
        if not root.is_dir():
            raise InputError(f"image folder {root} does not exist: give the one with class or split folders")
        self._root = root.absolute()
        self._real_root = os.path.realpath(root) + os.sep
        self._stray: list[Skipped] = []
        folders = self._subfolders("")
        #: split name, or None where the files are still to be divided -> paths of class folders, relative to the root
        self._classes: dict[str | None, list[str]] = {}
        split_folders = [name for name in folders if name.lower() in SPLIT_NAMES and self._holds_folders(name)]
        if split_folders:
            for name in folders:
                if name not in split_folders:
                    known = name.lower() in SPLIT_NAMES
                    reason = "split folder without class folders" if known else "folder is not train, val or test"
                    self._stray.append(Skipped(source_name, name, reason))
            for name in split_folders:
                class_folders = [f"{name}/{inner}" for inner in self._subfolders(name)]
                self._classes.setdefault(SPLIT_NAMES[name.lower()], []).extend(class_folders)
            self._classes = {split: self._classes[split] for split in SPLITS if split in self._classes}
        elif folders:
            self._classes[None] = folders
        else:
            raise InputError(f"no class folders in {root}: needs <class>/*.jpg or <split>/<class>/*.jpg")
        labels = {split: {_class_of(path) for path in paths} for split, paths in self._classes.items()}
        every_label = set().union(*labels.values())
        self._require_no_split(every_label - set(class_names or ()))
        if class_names is None:
            class_names = name_classes(every_label)
            self._require_agreement(labels)
            if all(whole_number(name) is not None for name in class_names):
                self.notes.append(
                    f"class folders are plain numbers, so the classes are called {', '.join(class_names)}; "
                    "data.classes=[NAME,...] in their order says what they mean"
                )
        self.class_names = class_names
        self._label_of, notes = label_indices(every_label, class_names, f"class folders of {root}")
        self.notes += notes
        self._note_splits()
        self._groups = self._find_groups()
        #: path -> split, where groups are kept together over all classes
        self._drawn: dict[str, str] = {}
        for split in (None, "train") if self._groups else ():
            self._draw(split)

    def _require_no_split(self, labels: set[str]) -> None:
        if splits := sorted(label for label in labels if _SPLIT_LIKE.fullmatch(label)):
            raise InputError(
                f"{self._root}: {', '.join(splits)}: splits by their names, but pictures lie in them without class "
                "folders, so they have no labels here: sort them into <split>/<class>/*.jpg, or list them with their "
                "labels in a csv (data=csv); FER+'s folders FER2013Train, FER2013Valid and FER2013Test come from "
                "fer2013.csv: data=fer2013 data.raw=fer2013.csv data.votes=fer2013new.csv"
            )

    def _require_agreement(self, labels: dict[str | None, set[str]]) -> None:
        meant = {split: {canonical(name) or name for name in names} for split, names in labels.items()}
        first = next(iter(meant))
        for split in meant:
            if meant[split] != meant[first]:
                odd = ", ".join(sorted(meant[split] ^ meant[first]))
                raise InputError(
                    f"class folders of {first} and {split} in {self._root} differ by {odd}: rename them, add empty ones"
                    " or give the class names"
                )

    def _note_splits(self) -> None:
        val, test = self._fractions
        if None in self._classes:
            self.notes.append(
                f"no split folders: each class is divided into {1 - val - test:.0%} train, {val:.0%} val and {test:.0%}"
                f" test by seed {self._seed}"
            )
            return
        if self._carves_val:
            self.notes.append(f"no val folder: {val:.0%} of each class of train is val, drawn by seed {self._seed}")
        self.notes += [
            f"no {split} folder: no {split} rows"
            for split in SPLITS
            if split not in self._classes and not (split == "val" and self._carves_val)
        ]

    def _find_groups(self) -> dict[str, str]:
        """Return the group of each picture's path, where ``data.group`` finds one."""
        if self._group is None:
            return {}
        folders = [folder for folders in self._classes.values() for folder in folders]
        paths = [path for folder in folders for path in self._pictures(folder)]
        groups = {path: found[1] for path in paths if (found := self._group.search(path)) and found[1]}
        if paths and not groups:
            raise InputError(
                f"data.group={self._group.pattern}: finds nothing in any of the {len(paths):,} paths in {self._root}, "
                f"such as {paths[0]}"
            )
        if long := next((group for group in groups.values() if len(group) > MAX_GROUP), None):
            raise InputError(
                f"data.group={self._group.pattern}: finds {long[:40]!r}..., no name of at most {MAX_GROUP} characters"
            )
        self.notes.append(f"{amount(len(set(groups.values())), 'group')} (persons or sequences) by data.group")
        if rest := len(paths) - len(groups):
            pictures = amount(len(paths), "picture has", "pictures have")
            self.notes.append(f"{rest:,} of {pictures} no group: data.group finds nothing in them")
        return groups

    def _draw(self, split: str | None) -> None:
        """Draw the splits of the pictures of a split folder, or of those without, over all classes at once."""
        if split not in self._classes or split == "train" and not self._carves_val:
            return
        labels = {
            path: label for folder in self._classes[split]
            if (label := self._label_of[_class_of(folder)]) is not None for path in self._pictures(folder)
        }  # fmt: skip
        val, test = self._fractions if split is None else (self._fractions[0], 0.0)
        groups = [self._groups.get(path, "") for path in labels]
        splits = stratified_split(list(labels), labels.values(), val, test, self._seed, groups)
        self._drawn |= dict(zip(labels, splits, strict=True))
        self.notes.append(KEPT_TOGETHER)

    def _pictures(self, folder: str) -> list[str]:
        """Return the paths of the files of a class folder that are pictures by their names."""
        return [f"{folder}/{e.name}" for e in self._entries(folder) if e.name.lower().endswith(IMAGE_SUFFIXES)]

    @property
    def _carves_val(self) -> bool:
        return "val" not in self._classes and "train" in self._classes and self._fractions[0] > 0

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """Return what lies in a folder, sorted, without clutter."""
        with os.scandir(self._root / folder) as entries:
            kept = [entry for entry in entries if entry.name[0] != "." and entry.name.lower() not in CLUTTER]
        return sorted(kept, key=lambda entry: entry.name)

    def _leads_out(self, entry: os.DirEntry[str], folder: str) -> bool:
        """Return whether a link in a class folder, which may be a link itself, leads out of both that and the root."""
        if not entry.is_symlink():
            return False
        inside = (self._real_root, os.path.realpath(self._root / folder) + os.sep)
        return not os.path.realpath(entry.path).startswith(inside)

    def _holds_folders(self, folder: str) -> bool:
        return any(entry.is_dir() for entry in self._entries(folder))

    def _subfolders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder; everything else there is noted as stray."""
        names = []
        for entry in self._entries(folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                names.append(entry.name)
            else:
                self._stray.append(Skipped(self.names[0], path, "not in a class folder"))
        return names

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for paths in self._classes.values():
            for path in paths:
                for entry in self._entries(path):
                    status = entry.stat(follow_symlinks=False)
                    facts = f"{path}/{entry.name} {status.st_size} {status.st_mtime_ns}\n"
                    digest.update(facts.encode(errors="replace"))
        return {
            "reader": "folder 2",
            "names": list(self.names),
            "root": str(self._root),
            "files": digest.hexdigest(),
            "face": asdict(self._face),
            "limits": asdict(self._limits),
            "class_names": list(self.class_names),
            "fractions": list(self._fractions),
            "seed": self._seed,
            "group": self._group and self._group.pattern,
        }

    def blocks(self) -> Iterator[Block]:
        total = sum(len(self._entries(path)) for paths in self._classes.values() for path in paths)
        read = 0

        def rows() -> Iterator[PhotoRow | Skipped]:
            nonlocal read
            yield from self._stray
            for split, paths in self._classes.items():
                for path in paths:
                    for row in self._class_rows(split, path):
                        read += 1
                        yield row

        yield from in_blocks(rows(), lambda: read / total if total else 1.0)

    def _class_rows(self, split: str | None, folder: str) -> Iterator[PhotoRow | Skipped]:
        source = self.names[0]
        label = self._label_of[_class_of(folder)]
        paths = []
        for entry in self._entries(folder):
            path = f"{folder}/{entry.name}"
            if self._leads_out(entry, folder):
                yield Skipped(source, path, "link leads out of the class folder")
            elif entry.is_dir():
                yield Skipped(source, path, "folder inside a class folder")
            elif not entry.name.lower().endswith(IMAGE_SUFFIXES):
                yield Skipped(source, path, "not an image file name")
            elif label is None:
                yield Skipped(source, path, f"unknown label {_class_of(folder)!r}")
            else:
                paths.append(path)
        if label is None:
            return
        if self._drawn and (split is None or split == "train"):
            # a picture that came after the split was drawn is none of it
            splits = [self._drawn.get(path, "train") for path in paths]
        elif split is None:
            splits = stratified_split(paths, [label] * len(paths), *self._fractions, self._seed)
        elif split == "train" and self._carves_val:
            splits = stratified_split(paths, [label] * len(paths), self._fractions[0], 0.0, self._seed)
        else:
            splits = [split] * len(paths)
        for path, its_split in zip(paths, splits, strict=True):
            group = self._groups.get(path, "")
            yield PhotoRow(source, path, f"{self._root}/{path}", (its_split,), label, group=group)

    def decode(self, block: Block) -> Faces:
        return decode_photos(block.rows, self._face, self._limits, self.names)


def _class_of(path: str) -> str:
    return path.rpartition("/")[2]
