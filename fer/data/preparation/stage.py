"""Decoded blocks on disk, beside the output, so that a run that was killed goes on where it was."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fer.data.source import SPLITS, Block, FaceFormat, Faces, Skipped, Source, empty_faces
from fer.errors import InputError
from fer.system.files import is_of_disk, replacing
from fer.system.words import amount

#: Columns that the file of a block lacks when they are unknown in all its rows.
_OPTIONAL = ("valence", "arousal", "landmarks", "box", "reaches_over")
#: Columns of texts, which are kept as UTF-8.
_TEXTS = ("path", "group")
_NO_PIXELS = FaceFormat(size=0)

#: Given a decoding function and blocks with the file that each one's faces belong in, gives the blocks in their order
#: with their faces, whose files are then there; see fer/data/preparation/backends.py.
Backend = Callable[[Callable[[Block], Faces], Iterable[tuple[Block, Path]]], Iterator[tuple[Block, Faces]]]


class Stage:
    """A folder ``OUT.partial`` that holds one file a decoded block, and what it was made from.

    A folder left by a run with another fingerprint (other options, other raw files) is emptied first. ``fill`` leaves
    the numbers of rows (split, source, label) in ``counts``, the rows that were not taken in ``skipped`` and what is to
    be said of the faces in ``notes``.
    """

    counts: np.ndarray
    skipped: list[Skipped]
    notes: list[str]

    def __init__(self, out: Path, fingerprint: dict[str, Any]) -> None:
        self.folder = out.with_name(out.name + ".partial")
        mark = self.folder / "run.json"
        text = json.dumps(fingerprint, sort_keys=True, default=str)
        if not mark.is_file() or mark.read_text() != text:
            shutil.rmtree(self.folder, ignore_errors=True)
            try:
                self.folder.mkdir(parents=True)
                mark.write_text(text)
            except OSError:
                self.remove()
                raise
        self.found = len(list(self.folder.glob("*.npz")))
        self._blocks = 0

    def fill(self, source: Source, backend: Backend) -> None:
        """Decode every block of the source that is not on disk yet, where ``backend`` does it, with a progress bar."""
        bar = tqdm(
            total=100.0, desc="prepare", bar_format="{desc} {percentage:3.0f}%|{bar}|{postfix} [{elapsed}<{remaining}]"
        )
        self.counts = np.zeros((len(SPLITS), len(source.names), len(source.class_names)), np.int64)
        self.skipped, self.notes = [], []
        persons: dict[str, set[tuple[int, str]]] = {split: set() for split in SPLITS}
        reach_over = 0
        with bar:
            for block, faces in backend(source.decode, self._all(source)):
                self._blocks += 1
                self._check_labels(faces.label, source.class_names)
                np.add.at(self.counts, (faces.split, faces.source, faces.label), 1)
                self.skipped += faces.skipped
                reach_over += int(faces.reaches_over.sum())
                for code, source_code, group in zip(faces.split, faces.source, faces.group, strict=True):
                    if group:
                        persons[SPLITS[code]].add((int(source_code), group))
                rows = self.counts.sum()
                bar.set_postfix_str(
                    f"{rows:,} faces, {rows / max(bar.format_dict['elapsed'], 1e-3):,.0f}/s", refresh=False
                )
                bar.update(100 * block.done - bar.n)
            bar.update(100 - bar.n)
        if reach_over:
            self.notes.append(
                amount(
                    reach_over, "face reaches over the edge of its photo: what that lacks of it repeats the edge",
                    "faces reach over the edge of their photo: what it lacks of them repeats the edge",
                )
            )  # fmt: skip
        self.notes += mixed_notes(persons)

    def _check_labels(self, labels: np.ndarray, names: Sequence[str]) -> None:
        wrong = labels[(labels < 0) | (labels >= len(names))]
        if wrong.size:
            # the block must not be taken for a good one when the reader is mended
            self.remove()
            raise InputError(
                f"data.source gives label {wrong[0]}, which is none of 0..{len(names) - 1} for its {len(names)} "
                f"classes ({', '.join(names)}): have the reader count its classes from 0"
            )

    def _all(self, source: Source) -> Iterator[tuple[Block, Path]]:
        for number, block in enumerate(source.blocks()):
            yield block, self._path(number)

    def blocks(self) -> Iterator[Faces]:
        """Yield the decoded blocks in the order of the source."""
        for number in range(self._blocks):
            yield load(self._path(number))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Say of a block that the disk ends that the stage is kept, or remove it where it holds nothing to go on from.

        Raises:
            InputError: the line of the error, and where the stage is.
        """
        try:
            yield
        except (InputError, OSError) as error:
            if not is_of_disk(error):
                raise
            # the second is of photos that are linked or copied
            if not any(path.stat().st_size for path in (*self.folder.glob("*.npz"), *self.folder.glob("*.jsonl"))):
                self.remove()
                raise
            line: object = error
            if isinstance(error, OSError):
                line = f"{error.filename or self.folder}: not written, {str(error.strerror).lower()}"
            raise InputError(f"{line}; what is done lies in {self.folder}: the same command goes on there") from error

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.npz"


def mixed_notes(persons: Mapping[str, Set[Any]]) -> list[str]:
    """Return what is to be said of groups (see `Faces`) of one split, by its name, that another one has too.

    >>> mixed_notes({"train": {"Ann", "Bob"}, "val": set(), "test": {"Bob", "Cem"}})
    ['1 of the 2 groups of test (persons or sequences) are in train too, so its score is not one of new persons']
    """
    notes = []
    for i, first in enumerate(SPLITS):
        for second in SPLITS[i + 1 :]:
            if both := len(persons[first] & persons[second]):
                notes.append(
                    f"{both:,} of the {len(persons[second]):,} groups of {second} (persons or sequences) are in "
                    f"{first} too, so its score is not one of new persons"
                )
    return notes


def load_whole(path: Path) -> Faces | None:
    """Read the faces of a block; None where it is not there, or is what a crash of the machine left of it."""
    try:
        return load(path)
    except (FileNotFoundError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def load(path: Path) -> Faces:
    """Read the faces of a block."""
    with np.load(path) as saved:
        values = {name: saved[name] for name in saved.files}
    faces = empty_faces(len(values["label"]), _NO_PIXELS)
    for name, value in values.items():
        setattr(faces, name, value)
    for name in _TEXTS:
        setattr(faces, name, [text.decode() for text in values[name].tolist()])
    faces.skipped = [Skipped(*entry) for entry in json.loads(str(values["skipped"]))]
    return faces


def save(path: Path, faces: Faces) -> None:
    """Write the faces of a block; the file is there when it is whole."""
    values = {field.name: getattr(faces, field.name) for field in fields(faces)}
    unknown = empty_faces(len(faces.label), _NO_PIXELS)
    for name in _OPTIONAL:
        if values[name].tobytes() == getattr(unknown, name).tobytes():
            del values[name]
    for name in _TEXTS:
        values[name] = np.array([text.encode() for text in values[name]], dtype=np.bytes_)
    values["skipped"] = np.array(json.dumps([[s.source, s.path, s.reason] for s in faces.skipped]))
    with replacing(path, sync=False) as temporary, open(temporary, "wb") as file:
        np.savez(file, **values)
