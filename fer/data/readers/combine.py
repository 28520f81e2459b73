"""Sources made of other sources: several in a row, and files that were prepared before."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fer.data.photos import fit
from fer.data.source import BLOCK_ROWS, SPLITS, Block, FaceFormat, Faces, Source, empty_faces
from fer.data.storage.hdf5 import opened, read_column, read_info
from fer.errors import InputError
from fer.labels import require_same


class MergedSource:
    """Several sources one after the other, as if they were one.

    Raises:
        InputError: their class names differ.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        for other in sources[1:]:
            require_same(
                sources[0].class_names, other.class_names, f"source {sources[0].names[0]}", f"source {other.names[0]}"
            )
        self._sources = sources
        self.class_names = sources[0].class_names
        self.names = tuple(dict.fromkeys(name for source in sources for name in source.names))

    @property
    def notes(self) -> list[str]:
        return [f"{source.names[0]}: {note}" for source in self._sources for note in source.notes]

    def fingerprint(self) -> dict[str, Any]:
        return {"merged": [source.fingerprint() for source in self._sources]}

    def blocks(self) -> Iterator[Block]:
        for number, source in enumerate(self._sources):
            for block in source.blocks():
                yield Block([number, block], (number + block.done) / len(self._sources))

    def decode(self, block: Block) -> Faces:
        number, inner = block.rows
        source = self._sources[number]
        faces = source.decode(inner)
        codes = np.array([self.names.index(name) for name in source.names], np.uint8)
        return replace(faces, source=codes[faces.source])


class MovedSource:
    """A source whose splits go elsewhere: ``{"val": "train", "test": None}`` makes val train and leaves test out."""

    def __init__(self, source: Source, splits: dict[str, str | None]) -> None:
        self._source, self._splits = source, splits
        self.names, self.class_names = source.names, source.class_names

    @property
    def notes(self) -> list[str]:
        return self._source.notes

    def fingerprint(self) -> dict[str, Any]:
        return {"moved": self._source.fingerprint(), "splits": self._splits}

    def blocks(self) -> Iterator[Block]:
        return self._source.blocks()

    def decode(self, block: Block) -> Faces:
        faces = self._source.decode(block)
        targets = [self._splits.get(split, split) for split in SPLITS]
        kept = np.array([targets[code] is not None for code in faces.split], bool)
        codes = np.array([SPLITS.index(targets[code]) for code in faces.split[kept]], np.uint8)
        columns = ("image", "label", "source", "valence", "arousal", "landmarks", "box", "reaches_over")
        path, group = ([texts[i] for i in np.flatnonzero(kept)] for texts in (faces.path, faces.group))
        return replace(
            faces, split=codes, path=path, group=group, **{name: getattr(faces, name)[kept] for name in columns}
        )


class PreparedSource:
    """A file that ``prepare.py`` wrote, read again.

    Faces of another size or colour than wanted are resized and converted.
    """

    def __init__(self, path: Path, face: FaceFormat) -> None:
        info = read_info(path)
        if info.face.margin != face.margin:
            raise InputError(
                f"{path}: its faces were cut with margin {info.face.margin}, not {face.margin}; "
                f"set data.margin={info.face.margin} or prepare it again"
            )
        for split in info.counts:
            # they are checked where a split is read whole; `decode` reads parts
            read_column(path, split, "label"), read_column(path, split, "source")
        self._path, self._info, self._face = path.absolute(), info, face
        self.names, self.class_names = info.sources, info.class_names
        self.notes: list[str] = []

    def fingerprint(self) -> dict[str, Any]:
        stat = self._path.stat()
        return {
            "prepared": str(self._path.resolve()), "bytes": stat.st_size, "mtime": stat.st_mtime_ns,
            "face": str(self._face),
        }  # fmt: skip

    def blocks(self) -> Iterator[Block]:
        total = sum(self._info.rows(split) for split in SPLITS)
        before = 0
        for split in SPLITS:
            rows = self._info.rows(split)
            for start in range(0, rows, BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, rows)
                yield Block([split, start, stop], (before + stop) / total)
            before += rows

    def decode(self, block: Block) -> Faces:
        split, start, stop = block.rows
        faces = empty_faces(stop - start, self._face)
        with opened(self._path) as file:
            group = file[split]
            images = group["image"][start:stop]
            if images.shape[1:] == self._face.shape:
                faces.image = images
            else:
                for i, image in enumerate(images):
                    faces.image[i] = fit(image, self._face)
            for name in ("label", "source", "box", "valence", "arousal", "landmarks"):
                if name in group:
                    setattr(faces, name, group[name][start:stop])
            for name in ("path", "group"):
                if name in group:
                    setattr(faces, name, group[name].asstr()[start:stop].tolist())
        faces.landmarks *= np.float32(self._face.size / self._info.face.size)
        faces.split[:] = SPLITS.index(split)
        return faces
