"""A folder exported for the Darknet program: its layout, class spellings, traps in its path, and reading it.

Layout: ``photos/000/0000123.jpg`` with ``0000123.txt`` beside it (detector) or ``photos/000/0000123_sad.jpg``
(classifier); a list of absolute paths a split (train, test, and val where it has other photos than test); the class
names; a ``.data`` file with paths relative to the folder; ``backup/``; ``photos.csv``; and last ``darknet.json``.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer.data.preparation.summary import command_for
from fer.data.source import SPLITS
from fer.errors import InputError
from fer.labels import CLASSES, DARKNET, canonical
from fer.system.command import command

if TYPE_CHECKING:
    import pandas as pd

#: What the files of a task are called: class names, program configuration, ending of a list.
NAMES_FILE = {"detector": "emotion.names", "classifier": "labels.txt"}
DATA_FILE = {"detector": "emotion.data", "classifier": "emotion-classifier.data"}
LIST_ENDING = {"detector": ".txt", "classifier": ".list"}
#: Written last, so a folder that holds it is complete.
MARK = "darknet.json"

#: Debian's program makes the path of a label file by replacing each of these where it first stands in a photo's path.
LABEL_PATH_TRAPS = ("images", "JPEGImages", "raw", ".jpg", ".png", ".JPG", ".JPEG")
# Between the folder and the label in a photo's path: digits, and these.
_FIXED_PARTS = ("photos", "jpg", "png")


@dataclass(frozen=True, slots=True)
class DarknetData:
    """A complete exported folder.

    ``names`` are the lines of emotion.names or labels.txt; ``class_names`` our names of the same classes in the same
    order. ``lists`` and ``photos`` (how many are listed) have the keys train, val and test as far as there are photos;
    without val, what is tested on is also what is chosen by. ``drawn`` tells drawn sample data from photos of people.
    """

    folder: Path
    task: str
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    lists: dict[str, Path]
    photos: dict[str, int]
    data: str
    drawn: bool


def read_darknet(folder: Path) -> DarknetData:
    """Return what an exported folder says of itself.

    Raises:
        InputError: it is not there, not complete, or was moved, so that the paths in its lists lead nowhere.
    """
    folder = Path(folder)
    again = f"{command('prepare')} data=NAME format=darknet_detector out={folder}"
    saved = read_mark(folder)
    if saved is None:
        # not above: who only predicts reads this module, too
        from fer.data.readers.yolo.layouts import recognised

        if recognised(folder):
            raise InputError(
                f"{folder}: a YOLO data set, no folder of {command('prepare')}: give data=yolo data.raw={folder} "
                "in the place of darknet.folder="
            )
        raise InputError(
            f"{folder}: no complete Darknet export (there is no {MARK} in it); make it with `{again}` "
            "(or format=darknet_classifier)"
        )
    if os.path.realpath(saved["folder"]) != os.path.realpath(folder):
        raise InputError(
            f"{folder}: was made as {saved['folder']} and its lists hold that path; move it back or make it anew with "
            f"`{again.replace('detector', saved['task'])}`"
        )
    return DarknetData(
        folder=folder,
        task=saved["task"],
        names=tuple(saved["names"]),
        class_names=tuple(saved["class_names"]),
        lists={split: folder / name for split, name in saved["lists"].items()},
        photos=saved["photos"],
        data=saved["data"],
        drawn=saved["drawn"],
    )


def read_mark(folder: Path) -> dict[str, Any] | None:
    """Return what darknet.json of an exported folder says, None where there is none.

    Raises:
        InputError: it is not one that `fer.darknet.formats.export` writes.
    """
    path = folder / MARK
    try:
        mark = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        mark = None
    if not _is_mark(mark):
        raise InputError(f"{path}: is damaged, or no file of {command('prepare')}: make the folder anew")
    return mark


def _is_mark(mark: Any) -> bool:
    try:
        task, names, lists, made_by = mark["task"], mark["names"], mark["lists"], mark.get("made_by", {})
        texts = [mark["folder"], mark["data"], *names, *mark["class_names"]]
        margin = made_by.get("margin", 0.0)
        return (
            task in LIST_ENDING
            and isinstance(names, list)
            and len(set(names)) == len(names) == len(mark["class_names"])
            and all(isinstance(text, str) and text.isprintable() and text for text in texts)
            and lists == {split: split + LIST_ENDING[task] for split in SPLITS if split in lists}
            and lists.keys() == mark["photos"].keys()
            and all(type(n) is int and n > 0 for n in mark["photos"].values())
            and type(mark["drawn"]) is bool
            and made_by.get("color", "rgb") in ("grey", "rgb")
            and type(margin) in (int, float)
            and 0 <= margin <= 2
        )
    except (AttributeError, KeyError, TypeError):
        return False


def read_photos(folder: Path) -> "pd.DataFrame":
    """Return one row a photo: ``file`` (absolute, as in the lists), ``source``, ``path`` in that source, ``split``
    (names joined by "+"), ``label`` (our class name; of a detector's photo those of its faces, joined by "+").
    """
    import pandas as pd  # not above: who only predicts reads this module, too

    table = pd.read_csv(
        Path(folder) / "photos.csv", dtype=str, keep_default_na=False, encoding_errors="surrogateescape"
    )
    # of a data set that is used where it lies they are absolute
    inside = ~table["file"].str.startswith(os.sep)
    table.loc[inside, "file"] = os.path.abspath(folder) + os.sep + table.loc[inside, "file"]
    return table


def read_list(list_file: Path) -> list[Path]:
    """Return the photos of an exported list, a path a line.

    Raises:
        InputError: it cannot be read or lists none.
    """
    try:
        lines = list_file.read_text("utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise InputError(f"{list_file}: {error.strerror}; make the Darknet folder anew with prepare.py") from error
    photos = [Path(line) for line in lines if line]
    if not photos:
        raise InputError(f"{list_file}: lists no photo")
    return photos


def labels_from_paths(photos: Sequence[str | Path], names: Sequence[str]) -> np.ndarray:
    """Return each photo's class (N,): the one whose name stands anywhere in its path.

    Raises:
        InputError: a path with no name in it, or several.
    """
    labels = np.empty(len(photos), np.int64)
    for index, photo in enumerate(map(str, photos)):
        matches = [label for label, name in enumerate(names) if name in photo]
        if len(matches) != 1:
            listed = ", ".join(names[label] for label in matches) or "none"
            raise InputError(f"{photo}: has not one of the classes in its path, but {listed}; make the folder anew")
        labels[index] = matches[0]
    return labels


def darknet_folder(data: Mapping[str, Any], task: str, crop: str) -> Path:
    """Return where ``prepare.py`` puts the Darknet export of a ``data`` config by default."""
    face = f"-{data['size']}-{data['color']}" if crop == "face" else ""
    return Path(data["file"]).parent / f"{data['name']}-{task}{face}"


def darknet_command(data: Mapping[str, Any], task: str, crop: str) -> str:
    """Return the ``prepare.py`` command that makes the Darknet export of a ``data`` config."""
    return f"{command_for(data)} format=darknet_{task}" + (" crop=face" if crop == "face" else "")


def darknet_order(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return class names in the order of ``emotion.names``; Contempt is eighth, and other sets keep their own order.

    >>> darknet_order(CLASSES)
    ('Neutral', 'Happy', 'Sad', 'Surprise', 'Fear', 'Disgust', 'Angry')
    """
    seven = tuple(canonical(name) or name for name in DARKNET)
    return (*seven, *class_names[7:]) if tuple(class_names[:7]) == CLASSES else tuple(class_names)


def spell(class_names: Sequence[str], task: str) -> tuple[str, ...]:
    """Return the lines of the names file for classes in Darknet's order.

    For a classifier no line is a substring of another, or of what else a photo's name holds: the program takes every
    label that it finds anywhere in the path. Where the lower-case names do not allow that, classes are numbered.

    >>> spell(("Sad", "Angry"), "detector"), spell(("Sad", "Angry"), "classifier")
    (('Sad', 'Anger'), ('sad', 'anger'))
    >>> spell(("cat", "Cat 2"), "classifier")
    ('class0', 'class1')
    """
    known = {canonical(name): name for name in DARKNET}
    names = tuple(known.get(name, name) for name in class_names)
    if task == "detector":
        return names
    labels = tuple(re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") for name in names)
    clear = all(
        label and not label.isdecimal() and not any(label in part for part in _FIXED_PARTS)
        and sum(label in other for other in labels) == 1
        for label in labels
    )  # fmt: skip
    width = len(str(len(labels) - 1))
    return labels if clear else tuple(f"class{index:0{width}d}" for index in range(len(labels)))


def check_path(folder: Path, task: str, names: Sequence[str], remedy: str = "out=FOLDER") -> None:
    """Refuse an export folder in whose absolute path the program would find a label, or a part that it replaces.

    Raises:
        InputError: naming the part, and the remedy.
    """
    path = os.path.abspath(folder)
    if "\n" in path or "\r" in path:
        raise InputError(
            f"{path!r}: a list holds one path a line, so no line break may stand in it; give another {remedy}"
        )
    traps, why = names, "the program would take it for a photo's class"
    if task == "detector":
        traps, why = LABEL_PATH_TRAPS, "the program would look for label files elsewhere"
    for trap in traps:
        if trap in path:
            raise InputError(f"{path}: has '{trap}' in its path, and {why}; give another {remedy}")
