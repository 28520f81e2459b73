"""A reader of the user's: any object with the members of a `Source`, whose answers are checked."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from fer.blame import named, one_line
from fer.data.source import SPLITS, Block, FaceFormat, Faces, Skipped, Source
from fer.errors import InputError
from fer.system.files import is_full

Answer = TypeVar("Answer")

#: What a Source has.
_PROTOCOL = ("names", "class_names", "notes", "fingerprint", "blocks", "decode")


class OwnSource:
    """Asks what the user gave; ``face`` is the format that the faces must have.

    Raises:
        InputError: it raises, or gives anything but what a `Source` does.
    """

    def __init__(self, source: Any, face: FaceFormat) -> None:
        if lacking := [name for name in _PROTOCOL if not hasattr(source, name)]:
            raise InputError(f"data.source: {type(source).__qualname__} has no {lacking[0]}, which a Source has")
        self._source, self._face = source, face
        self.names = self._texts("names", least=1)
        self.class_names = self._texts("class_names", least=2)
        # before anything is written, though more may come
        self._texts("notes")

    @property
    def notes(self) -> list[str]:
        return list(self._texts("notes"))

    def fingerprint(self) -> dict[str, Any]:
        given = self._asked(self._source.fingerprint)
        if not isinstance(given, dict):
            raise _wrong(f"fingerprint() gives {type(given).__name__}, not a dict of plain data")
        return given

    def blocks(self) -> Iterator[Block]:
        blocks = self._asked(lambda: iter(self._source.blocks()))
        while (block := self._asked(lambda: next(blocks, None))) is not None:
            if not isinstance(block, Block) or not isinstance(block.rows, list):
                raise _wrong(f"blocks() gives {type(block).__name__}, not fer.data.source.Block of a list of rows")
            if not isinstance(block.done, int | float) or not 0 <= block.done <= 1:
                raise _wrong(f"blocks() gives done={block.done}, not the fraction of the input that is read")
            yield block

    def decode(self, block: Block) -> Faces:
        faces = self._asked(lambda: self._source.decode(block))
        if not isinstance(faces, Faces):
            raise _wrong(f"decode() gives {type(faces).__name__}, not fer.data.source.Faces")
        self._check(faces)
        return faces

    def _asked(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except Exception as error:
            if isinstance(error, InputError) or is_full(error):
                raise
            line = named(error, {"data.source": self._source})
            raise (line or InputError(f"data.source: {one_line(error)}")) from error

    def _texts(self, name: str, least: int = 0) -> tuple[str, ...]:
        given = self._asked(lambda: getattr(self._source, name))
        if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
            raise _wrong(f"{name} is {given!r:.60}, not a list of texts")
        if len(given) < least:
            raise _wrong(f"{name} has {len(given)} texts, and at least {least} are needed")
        return tuple(given)

    def _check(self, faces: Faces) -> None:
        n = len(faces.label) if np.ndim(faces.label) else 0
        kinds = {
            "image": ("u", (n, *self._face.shape)),
            **dict.fromkeys(("label", "split", "source"), ("iu", (n,))),
            **dict.fromkeys(("valence", "arousal"), ("f", (n,))),
            "landmarks": ("f", (n, 68, 2)),
            "box": ("i", (n, 4)),
            "reaches_over": ("b", (n,)),
        }
        for name, (kind, shape) in kinds.items():
            values = getattr(faces, name)
            if not isinstance(values, np.ndarray) or values.dtype.kind not in kind or values.shape != shape:
                shown = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
                words = {"u": "uint8", "iu": "whole numbers", "i": "int32", "f": "float32", "b": "bool"}[kind]
                raise _wrong(f"decode() gives {name} {shown}, not {words} {shape}")
            if kind == "f" and np.isinf(values).any():
                raise _wrong(f"decode() gives {name} that is infinite; NaN is unknown")
        if faces.image.dtype != np.uint8:
            raise _wrong(f"decode() gives image {faces.image.dtype}, not uint8")
        # labels are checked as those of all readers
        for name, names in (("split", SPLITS), ("source", self.names)):
            values = getattr(faces, name)
            if len(out := values[(values < 0) | (values >= len(names))]):
                raise _wrong(
                    f"decode() gives {name} {out[0]}, which is none of 0..{len(names) - 1} for {', '.join(names)}"
                )
        for name in ("path", "group"):
            texts = getattr(faces, name)
            if not isinstance(texts, list) or len(texts) != n or not all(isinstance(text, str) for text in texts):
                raise _wrong(f"decode() gives {name} {texts!r:.60}, not a list of {n} texts")
        if not isinstance(faces.skipped, list) or not all(isinstance(each, Skipped) for each in faces.skipped):
            raise _wrong(f"decode() gives skipped {faces.skipped!r:.60}, not a list of fer.data.source.Skipped")


def _wrong(what: str) -> InputError:
    return InputError(f"data.source: {what}")


def checked(source: Any, face: FaceFormat) -> Source:
    """Return a reader of the user's behind checks."""
    return OwnSource(source, face)
