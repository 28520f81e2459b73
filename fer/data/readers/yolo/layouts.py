"""Which photos a YOLO data set lists for which split, and its class names, in the layouts that there are.

``obj.data`` of Darknet, a list of photos, ``data.yaml`` of ultralytics and Roboflow, or a folder of pictures.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fer.data.readers.image_folder import CLUTTER, IMAGE_SUFFIXES
from fer.data.readers.yolo.labels import LEFT_OUT
from fer.data.readers.yolo.places import Places, lines_of, read_text
from fer.data.source import SPLIT_NAMES, SPLITS
from fer.errors import InputError
from fer.labels import MAX_CLASSES

#: Folders of photos, for each of which label files lie in the folder ``labels`` beside it.
PHOTO_FOLDERS = ("images", "JPEGImages")
LISTS = (".txt", ".list")
#: Text files that lie beside label files and are none.
NO_LABELS = re.compile(r"(classes|labels|train|valid|val|test)\.txt|readme.*|.*\.names", re.IGNORECASE)

_YAMLS = (".yaml", ".yml")
_NAMES_FILES = ("_darknet.labels", "classes.txt", "obj.names")
# MiB of a file of keys or names, and of a list of photos.
_MOST, _MOST_LIST = 1, 1 << 10
_REMEDY = "give an obj.data, a data.yaml, a list of photos (.txt), or a folder of photos with their labels"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is amiss in a file, at a line counted from 1, or 0 for the whole of it; ``effect`` as in `labels`."""

    file: str
    line: int
    why: str
    shown: str = ""
    effect: str = LEFT_OUT


@dataclass(slots=True)
class Layout:
    """What a data set says of itself: photos as absolute paths, in its order, each once in a split.

    ``keypoints`` tells that a label line goes on after the box with points of a pose.
    """

    kind: str
    places: Places
    names: list[str]
    photos: dict[str, list[str]]
    notes: list[str]
    faults: list[Fault]
    keypoints: bool = False


def open_layout(raw: Path, names: Sequence[str] | str | None = None, images: Path | None = None) -> Layout:
    """Return the lists and names of the data set that ``raw`` names, a file or a folder.

    ``names`` are class names or a file of them, in place of its own; ``images`` is a further folder where photos may
    lie.

    Raises:
        InputError: no data set, or one without photos or names.
    """
    if images is not None and not images.is_dir():
        raise InputError(f"data.images={images}: not a folder: give the one that the photos lie in")
    reader = _Reader(raw, names, images)
    if raw.is_dir():
        file = _describing(raw)
        layout = reader.folder() if file is None else reader.file(file)
    else:
        layout = reader.file(raw)
    if not any(layout.photos.values()):
        why = f": {layout.faults[0].file}: {layout.faults[0].why}" if layout.faults else ""
        raise InputError(f"data.raw={raw}: no photo is listed or lies there{why}; {_REMEDY}")
    return layout


def recognised(path: Path) -> bool:
    """Say whether a path looks like a data set of these layouts; nothing but names is looked at."""
    if path.is_file():
        return path.suffix.lower() in (".data", *_YAMLS, *LISTS)
    try:
        names = os.listdir(path)
        if {"images", "labels"} <= set(names) or _describing(path) is not None:
            return True
    except (OSError, InputError):
        return False
    stems = {name.rpartition(".")[0] for name in names if name.lower().endswith(IMAGE_SUFFIXES)}
    if any(name.endswith(".txt") and name[:-4] in stems for name in names):
        return True
    return any(recognised(path / name) for name in names if name.lower() in SPLIT_NAMES and (path / name).is_dir())


def _describing(folder: Path) -> Path | None:
    """Return the file that describes a data set's folder, None where photos must be looked for.

    Raises:
        InputError: there are several.
    """
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.data")) + sorted((folder / "data").glob("*.data"))
    found = found or sorted(path for path in folder.iterdir() if path.suffix.lower() in _YAMLS)
    if len(found) > 1:
        raise InputError(
            f"data.raw={folder}: holds {', '.join(path.name for path in found[:5])}: give one of them as data.raw="
        )
    if found:
        return found[0]
    return folder / "train.txt" if (folder / "train.txt").is_file() else None


class _Reader:
    """Reads one data set."""

    def __init__(self, raw: Path, names: Sequence[str] | str | None, images: Path | None) -> None:
        self._raw, self._names, self._images = raw, names, images
        self._notes: list[str] = []
        self._faults: list[Fault] = []

    def file(self, path: Path) -> Layout:
        suffix = path.suffix.lower()
        if suffix == ".data":
            return self._data(path)
        if suffix in _YAMLS:
            return self._yaml(path)
        if suffix in LISTS:
            return self._list(path)
        raise InputError(f"data.raw={path}: no YOLO data set by its name: {_REMEDY}")

    def _data(self, path: Path) -> Layout:
        values: dict[str, str] = {}
        for line in lines_of(read_text(path, _MOST, "an obj.data")):
            key, equals, value = line.partition("=")
            if equals and key[:1] not in "#;":
                # as in the programs the first counts
                values.setdefault(key.strip(), value.strip())
        places = self._places(path.parent)
        listed = {SPLIT_NAMES[key]: [value] for key, value in values.items() if key in SPLIT_NAMES and value}
        photos = self._splits(listed, places, path)
        text = values.get("names") or values.get("labels")
        if self._names is None and text:
            if (file := places.file(text)) is None:
                raise InputError(f"{path}: names={text}: no such file: give data.names=FILE")
            names = _names_of(file)
        else:
            names = self._given_names() or self._names_beside(places, photos)
        _require_count(path, "classes", values.get("classes"), names)
        return self._layout("obj.data", places, names, photos)

    def _yaml(self, path: Path) -> Layout:
        text = read_text(path, _MOST, "a data.yaml")
        try:
            # every scalar as the text that stands there: `no` and 1_0 are names
            values = yaml.load(text, yaml.BaseLoader)  # noqa: S506  it builds nothing
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise InputError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from error
        if not isinstance(values, dict):
            raise InputError(f"{path}: not the keys of a data set: train, val and names are wanted")
        own = values.get("path")
        places = Places(path.parent, self._images)
        if own not in _NOTHING:
            if not isinstance(own, str):
                raise InputError(
                    f"{path}: path: {own!s:.80} is not a path: give the data set's folder, or leave it out"
                )
            if (folder := places.folder(own)) is not None:
                places = Places(Path(folder), self._images or path.parent)
            else:
                self._notes.append(
                    f"path: {own} of {path.name} is not in {path.parent}, which is taken in its place; "
                    "data.images=FOLDER names another"
                )
        listed: dict[str, list[str]] = {}
        for key, value in values.items():
            if key in SPLIT_NAMES and value not in _NOTHING:
                texts = value if isinstance(value, list) else [value]
                if not all(isinstance(text, str) for text in texts):
                    raise InputError(f"{path}: {key}: not a path or a list of paths")
                listed.setdefault(SPLIT_NAMES[key], []).extend(texts)
        photos = self._splits(listed, places, path)
        names = self._given_names() or _yaml_names(path, values.get("names"), values.get("nc"))
        _require_count(path, "nc", values.get("nc"), names)
        return self._layout("data.yaml", places, names, photos, "kpt_shape" in values)

    def _list(self, path: Path) -> Layout:
        places = self._places(path.parent)
        split = SPLIT_NAMES.get(path.stem.lower(), "train")
        listed = {split: [path.name]}
        if split == "train":
            for name in sorted(places.files(places.root)):
                stem, ending = os.path.splitext(name)
                other = SPLIT_NAMES.get(stem.lower(), "train")
                if ending == path.suffix and other != "train":
                    listed.setdefault(other, []).append(name)
        photos = self._splits(listed, places, path)
        return self._layout("list", places, self._given_names() or self._names_beside(places, photos), photos)

    def folder(self) -> Layout:
        raw = self._raw
        inner = next((path for path in (raw, raw.absolute().parent) if path.name in PHOTO_FOLDERS), None)
        # labels lie beside the folder of photos that was given
        places = Places(inner.absolute().parent if inner else raw, self._images)
        found = list(_pictures(places, os.path.abspath(raw)))
        splits = {path: _split_of(os.path.relpath(path, places.root)) for path in found}
        photos: dict[str, list[str]] = {}
        if any(splits.values()):
            for path, split in splits.items():
                if split is None:
                    self._faults.append(Fault(path, 0, "photo in no folder of a split: left out"))
                else:
                    photos.setdefault(split, []).append(path)
        else:
            photos["train"] = found
        names = self._given_names() or self._names_beside(places, photos)
        return self._layout("folder", places, names, photos)

    def _layout(
        self, kind: str, places: Places, names: list[str], photos: dict[str, list[str]], keypoints: bool = False
    ) -> Layout:
        for by, count in places.found_by.items():
            self._notes.append(f"{count:,} paths were found by {by}")
        _check_names(names, str(self._raw))
        ordered = {split: photos[split] for split in SPLITS if photos.get(split)}
        return Layout(kind, places, names, ordered, self._notes, self._faults, keypoints)

    def _places(self, folder: Path) -> Places:
        above = folder.absolute().parent
        return Places(
            folder, self._images, {f"the folder above, {above}": above, "the folder this was started in": Path.cwd()}
        )

    def _splits(self, listed: Mapping[str, Sequence[str]], places: Places, where: Path) -> dict[str, list[str]]:
        """Return the photos of each split, of which each text names a list or a folder."""
        photos: dict[str, list[str]] = {}
        for split, texts in listed.items():
            for text in texts:
                is_list = text.lower().endswith(LISTS)
                found = places.file(text) if is_list else places.folder(text)
                if found is None:
                    outside = places.leads_out(text) and "; data.images=FOLDER names a folder that paths may lead into"
                    kind = "list" if is_list else "folder"
                    if split == "train":
                        raise InputError(f"{where}: train: {text}: there is no such {kind}{outside or ''}")
                    self._notes.append(f"{split}: {text} of {where.name}: there is no such {kind}{outside or ''}")
                    continue
                named = self._listed(found, places) if is_list else _pictures(places, found)
                photos.setdefault(split, []).extend(named)
        return {split: list(dict.fromkeys(paths)) for split, paths in photos.items()}

    def _listed(self, file: str, places: Places) -> Iterator[str]:
        """Yield the photos of a list, a path a line."""
        beside = os.path.dirname(file)
        backslashes = 0
        seen: set[str] = set()
        for number, line in enumerate(lines_of(read_text(file, _MOST_LIST, "a list of photos")), 1):
            if not line:
                continue
            backslashes += "\\" in line
            # to ultralytics ./ is the folder of the list
            found = places.file(os.path.join(beside, line[2:])) if line[:2] == "./" else None
            found = found or places.file(line) or places.file(os.path.join(beside, line))
            if found is None:
                outside = places.leads_out(line)
                why = "path out of the data set: left out; give data.images=FOLDER" if outside else "no such photo"
                self._faults.append(Fault(file, number, why, line[:200]))
            elif not line.lower().endswith(IMAGE_SUFFIXES):
                self._faults.append(Fault(file, number, "no photo by its name: left out", line[:200]))
            elif found in seen:
                self._faults.append(Fault(file, number, "photo listed twice: taken once", line[:200]))
            else:
                seen.add(found)
                yield found
        if backslashes:
            self._notes.append(f"{file}: {backslashes:,} paths with \\, taken as /")

    def _given_names(self) -> list[str]:
        if self._names is None:
            return []
        if isinstance(self._names, str):
            return _names_of(os.path.expanduser(self._names))
        return list(self._names)

    def _names_beside(self, places: Places, photos: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the names of a file that lies where such files are kept."""
        folders = [places.root, os.path.join(places.root, "labels"), os.path.join(places.root, "data")]
        folders += dict.fromkeys(os.path.dirname(path) for paths in photos.values() for path in paths)
        found: dict[str, list[str]] = {}
        for folder in folders:
            files = places.files(folder)
            named = [name for name in _NAMES_FILES if name in files]
            named = named or [name for name in sorted(files) if name.endswith(".names")]
            for name in named:
                if (path := places.entry(folder, name)) is not None:
                    found[path] = _names_of(path)
        if not found:
            raise InputError(
                f"data.raw={self._raw}: no class names lie there: give data.names=FILE or data.names=[NAME,NAME]"
            )
        first, *others = found
        if odd := next((path for path in others if found[path] != found[first]), None):
            raise InputError(f"{first} and {odd} have other class names: give data.names=FILE, the one that counts")
        self._notes.append(f"class names from {first}")
        return found[first]


#: What YAML's BaseLoader makes of no value.
_NOTHING: tuple[Any, ...] = ("", "~", "null", None, [])


def _pictures(places: Places, folder: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the pictures in a folder and all below it, by their names, sorted."""
    real = os.path.realpath(folder)
    if real in seen or os.path.basename(folder).lower() in CLUTTER:
        return
    for name in sorted(places.files(folder)):
        if name[0] != "." and name.lower().endswith(IMAGE_SUFFIXES):
            if (found := places.entry(folder, name)) is not None:
                yield found
    for inner in places.subfolders(folder):
        yield from _pictures(places, inner, seen | {real})


def _split_of(path: str) -> str | None:
    """Return the split that a folder of a path is named by, as valid/ or images/val2017/; None where none is."""
    for part in path.split(os.sep)[:-1]:
        if split := SPLIT_NAMES.get(part.lower().rstrip("0123456789")):
            return split
    return None


def _names_of(file: str) -> list[str]:
    names = lines_of(read_text(file, _MOST, "a file of class names"))
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise InputError(f"{file}, line {names.index('') + 1}: a blank line, where the name of a class is wanted")
    if not names:
        raise InputError(f"{file}: holds no class name")
    return names


def _yaml_names(path: Path, value: Any, count: Any) -> list[str]:
    if value in _NOTHING and isinstance(count, str) and count.isdecimal() and 0 < int(count[:6]) <= MAX_CLASSES:
        return [f"class{index}" for index in range(int(count[:6]))]
    if isinstance(value, dict):
        try:
            by_id = {int(key): name for key, name in value.items()}
        except ValueError as error:
            raise InputError(f"{path}: names: its keys are not the numbers of classes") from error
        if sorted(by_id) != list(range(len(by_id))):
            lacks = next(index for index in range(len(by_id)) if index not in by_id)
            raise InputError(f"{path}: names: has {len(by_id)} names, but none of class {lacks}")
        value = [by_id[index] for index in range(len(by_id))]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise InputError(f"{path}: names: not a list of class names or a mapping of numbers to them")
    return value


def _require_count(path: Path, key: str, count: Any, names: Sequence[str]) -> None:
    if count not in _NOTHING and str(count) != str(len(names)):
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise InputError(f"{path}: {key} is {count!s:.20}, but there are {len(names)} names: {shown}; correct one")


def _check_names(names: Sequence[str], where: str) -> None:
    if len(names) > MAX_CLASSES:
        raise InputError(f"{where}: has {len(names):,} class names, more than {MAX_CLASSES:,}")
    for name, times in Counter(names).items():
        if not name or not name.isprintable():
            raise InputError(f"{where}: {name!r:.40} is no class name: give data.names=FILE")
        if times > 1:
            raise InputError(f"{where}: the class name {name} stands twice: give each class a name of its own")
