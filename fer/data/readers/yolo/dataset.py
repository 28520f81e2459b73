"""A YOLO data set as one description: the photos of each split, their boxes, the names, and what is amiss with them."""

import csv
import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fer.data.readers.image_folder import IMAGE_SUFFIXES
from fer.data.readers.yolo.labels import LEFT_OUT, LOST, MOST_BYTES, TAKEN, Labels, Odd, parse_labels
from fer.data.readers.yolo.layouts import NO_LABELS, PHOTO_FOLDERS, Fault, Layout, open_layout
from fer.data.readers.yolo.places import Places
from fer.data.source import SPLITS
from fer.data.split import check_fractions, stratified_split
from fer.errors import InputError
from fer.system.words import amount

# The copies that Roboflow makes of one photo, NAME.rf.HASH.jpg.
_COPY = re.compile(r"(.+)\.rf\.[0-9A-Za-z]+")
# The kinds of faults that are told one by one.
_KINDS = 12
_FIRST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class YoloPhoto:
    """A photo, its label file (None: there is none, so it shows background alone) and what that says.

    ``file`` is where the photo lies, absolute; ``path`` the same relative to the data set.
    """

    file: str
    path: str
    label_file: str | None
    labels: Labels

    @property
    def original(self) -> str:
        """What Roboflow made this photo of, with others that no split may divide from it; "" for any other photo."""
        found = _COPY.fullmatch(posixpath.splitext(self.path)[0])
        return found[1] if found else ""


@dataclass(slots=True)
class YoloDataset:
    """What a data set holds: photos by split, class names by the ids of the labels, and every fault.

    ``kind`` is its layout. A photo of which a line is lost is in ``splits`` too: see `Labels.lost`.
    """

    raw: Path
    kind: str
    root: Path
    names: tuple[str, ...]
    splits: dict[str, list[YoloPhoto]]
    faults: list[Fault]
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What records call it: the name of its folder."""
        return self.root.name or "yolo"

    def relative(self, file: str) -> str:
        """Return a path as records have it: relative to the data set where it lies in that."""
        return file.removeprefix(f"{str(self.root).rstrip('/')}/")

    def photos(self) -> dict[str, tuple[YoloPhoto, tuple[str, ...]]]:
        """Return each photo once, by its file, with its splits."""
        found: dict[str, tuple[YoloPhoto, tuple[str, ...]]] = {}
        for split, photos in self.splits.items():
            for photo in photos:
                _, before = found.get(photo.file, (photo, ()))
                found[photo.file] = photo, (*before, split)
        return found

    def fault_counts(self) -> dict[str, int]:
        """Return why -> number of faults, the commonest first."""
        return dict(Counter(fault.why for fault in self.faults).most_common())

    def describe(self) -> list[str]:
        """Return sentences on what was found."""
        sizes = ", ".join(f"{split} {len(photos):,}" for split, photos in self.splits.items())
        lines = [
            f"{self.raw} ({self.kind}): {amount(len(self.names), 'class', 'classes')}; photos: {sizes}",
            *self.notes,
        ]
        lost = sum(photo.labels.lost for photo, _ in self.photos().values())
        if lost:
            lines.append(f"{amount(lost, 'photo has', 'photos have')} a label that is lost: a detector leaves them out")
        for number, (why, count) in enumerate(self.fault_counts().items()):
            if number == _KINDS:
                lines.append("... and faults of other kinds")
                break
            first = next(fault for fault in self.faults if fault.why == why)
            lines.append(f"{count:,} x {why}, first {place(first)}")
        return lines

    def fingerprint(self) -> str:
        """Return a hash of all that a training on it depends on, but for the pixels."""
        digest = hashlib.blake2b(repr(self.names).encode(errors="surrogatepass"), digest_size=16)
        for split, photos in self.splits.items():
            digest.update(split.encode())
            for photo in photos:
                digest.update(os.fsencode(photo.file) + b"\0" + photo.labels.boxes.tobytes())
        return digest.hexdigest()


def place(fault: Fault) -> str:
    """Return where a fault is, for people."""
    return f"{fault.file}, line {fault.line}: {fault.shown!r}" if fault.line else fault.file


def read_yolo(
    raw: Path, names: Sequence[str] | str | None = None, images: Path | None = None, val_fraction: float = 0.1,
    test_fraction: float = 0.0, seed: int = 0,
) -> YoloDataset:  # fmt: skip
    """Return the data set that ``raw`` names (see `open_layout`); no photo is opened.

    A photo of train that is listed for val or test, too, is left out there. Where there is no val, ``val_fraction`` of
    train is drawn by ``seed``, each class alike and the copies that Roboflow makes of a photo together; where there is
    only train, ``test_fraction`` likewise.

    Raises:
        InputError: no data set, or no photo or name in it; fractions out of range.
    """
    check_fractions(val_fraction, test_fraction)
    layout = open_layout(raw, names, images)
    reader = _LabelReader(layout)
    paths = {path for paths in layout.photos.values() for path in paths}
    with tqdm(total=len(paths), desc="labels", unit="photo", leave=False, disable=None) as bar:
        read: dict[str, YoloPhoto] = {}
        for listed in layout.photos.values():
            for path in listed:
                if path not in read:
                    read[path] = reader.photo(path)
                    bar.update()
    splits = {split: [read[path] for path in listed] for split, listed in layout.photos.items()}
    reader.find_lone_labels()
    data = YoloDataset(raw, layout.kind, Path(layout.places.root), tuple(layout.names), splits, layout.faults)
    data.notes += layout.notes
    _leave_out_trained(data)
    _draw(data, val_fraction, test_fraction, seed)
    return data


def write_faults(path: Path, faults: Sequence[Fault]) -> None:
    """Write faults as csv: file, line (0 for a whole file), why, the line's start."""
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "line", "why", "shown"])
        writer.writerows((fault.file, fault.line, fault.why, fault.shown) for fault in faults)


class _LabelReader:
    """Finds and reads the label files of photos, and tells what is amiss in the layout's faults."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._places = layout, layout.places
        # folder of label files -> folders whose photos have theirs in it
        self._folders: dict[str, set[str]] = {}
        self._beside: dict[str, str | None] = {}

    def photo(self, path: str) -> YoloPhoto:
        file, odd = self._find(path)
        if file is not None:
            labels = self._read(file)
        elif odd is not None:
            labels = self._unread(odd, f"label file that is {self._places.oddity(odd)}")
        else:
            self._fault(path, "photo without a label file: background", TAKEN)
            labels = Labels(np.empty((0, 5)))
        return YoloPhoto(path, self._places.relative(path), file, labels)

    def _find(self, path: str) -> tuple[str | None, str | None]:
        """Return the label file of a photo, or else what has its name and cannot be read as one."""
        odd = None
        folder, _, name = path.rpartition("/")
        label = posixpath.splitext(name)[0] + ".txt"
        if folder not in self._beside:
            self._beside[folder] = _labels_folder(folder, self._places)
        for where in (self._beside[folder], folder):
            if where is not None:
                self._folders.setdefault(where, set()).add(folder)
                if (found := self._places.entry(where, label)) is not None:
                    return found, None
                if odd is None and os.path.lexists(f"{where}/{label}"):
                    odd = f"{where}/{label}"
        return None, odd

    def _read(self, file: str) -> Labels:
        try:
            with open(file, "rb", buffering=0) as opened:
                # not so many bytes at once for each of many small files
                data = opened.read(_FIRST_BYTES)
                if len(data) == _FIRST_BYTES:
                    data += opened.read(MOST_BYTES)
        except OSError as error:
            return self._unread(file, f"label file that cannot be read ({error.strerror})")
        if len(data) > MOST_BYTES:
            return self._unread(file, f"label file of over {MOST_BYTES >> 20} MiB")
        labels = parse_labels(data, len(self._layout.names), self._layout.keypoints)
        for odd in labels.odd:
            self._fault(file, odd.why, odd.effect, odd.line, odd.shown)
        return labels

    def _unread(self, file: str, why: str) -> Labels:
        self._fault(file, why, LOST)
        return Labels(np.empty((0, 5)), (Odd(0, why, "", LOST),), plain=False)

    def find_lone_labels(self) -> None:
        """Tell of label files without a photo, in the folders where labels were looked for."""
        for where, folders in sorted(self._folders.items()):
            photos = {
                posixpath.splitext(name)[0]
                for folder in folders for name in self._places.files(folder) if name.lower().endswith(IMAGE_SUFFIXES)
            }  # fmt: skip
            for name in sorted(self._places.files(where)):
                if name.endswith(".txt") and name[:-4] not in photos and not NO_LABELS.fullmatch(name):
                    self._fault(f"{where}/{name}", "label file without a photo", LEFT_OUT)

    def _fault(self, file: str, why: str, effect: str, line: int = 0, shown: str = "") -> None:
        self._layout.faults.append(Fault(file, line, why, shown, effect))


def _labels_folder(folder: str, places: Places) -> str | None:
    """Return the folder of label files of a folder of photos, with labels/ in the place of the last images/."""
    root, parts = places.root, folder.split("/")
    for at in range(len(parts) - 1, 0, -1):
        if parts[at] in PHOTO_FOLDERS and len("/".join(parts[:at])) >= len(root):
            found = "/".join([*parts[:at], "labels", *parts[at + 1 :]])
            return found if places.files(found) else None
    return None


def _leave_out_trained(data: YoloDataset) -> None:
    trained = {photo.file for photo in data.splits.get("train", ())}
    for split in ("val", "test"):
        photos = data.splits.get(split, [])
        kept = [photo for photo in photos if photo.file not in trained]
        why = f"photo of train listed for {split}: left out of {split}"
        data.faults += [Fault(photo.file, 0, why) for photo in photos if photo.file in trained]
        if kept:
            data.splits[split] = kept
        elif photos:
            del data.splits[split]
            data.notes.append(f"every photo of {split} is one of train, so there is no {split}")


def _draw(data: YoloDataset, val_fraction: float, test_fraction: float, seed: int) -> None:
    train = data.splits.get("train", [])
    if not train or "val" in data.splits:
        return
    shares = val_fraction, 0.0 if "test" in data.splits else test_fraction
    if not any(shares):
        return
    groups = [photo.original for photo in train]
    labels = [int(photo.labels.boxes[0, 0]) if len(photo.labels.boxes) else -1 for photo in train]
    drawn = stratified_split([photo.path for photo in train], labels, *shares, seed, groups)
    for split in SPLITS:
        if part := [photo for photo, its in zip(train, drawn, strict=True) if its == split]:
            data.splits[split] = part
    data.splits = {split: data.splits[split] for split in SPLITS if data.splits.get(split)}
    parts = {"val": shares[0], "test": shares[1]}
    counts = {split: len(data.splits.get(split, ())) for split in parts}
    said = " and ".join(
        f"{amount(counts[split], 'photo')} ({part:.0%}) {'is' if counts[split] == 1 else 'are'} {split}"
        for split, part in parts.items()
        if part
    )
    copies = "; copies of a photo (.rf.) stay together" if any(groups) else ""
    data.notes.append(f"no val is listed: of train {said}, drawn by data.seed={seed}{copies}")


def yolo_of(data: Mapping[str, Any]) -> YoloDataset:
    """Return the data set of a checked ``data`` config.

    Raises:
        InputError: as `read_yolo`, or ``data.raw`` is not set or not there.
    """
    if not data["raw"]:
        raise InputError("data.raw is not set: say where the data set lies with data.raw=PATH")
    raw = Path(data["raw"]).expanduser()
    if not raw.exists():
        raise InputError(f"data.raw={raw}: no such file or folder")
    images = Path(data["images"]).expanduser() if data["images"] else None
    return read_yolo(raw, data["names"], images, data["val_fraction"], data["test_fraction"], data["seed"])
