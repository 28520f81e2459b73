"""What every predictor is: pictures in, named faces out; and what the two kinds of them share."""

import glob
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from fer.data.inputs import Picture, content_of, is_address, is_one, is_open_file, path_of, to_array
from fer.errors import InputError
from fer.prediction.backends import NetworkInfo
from fer.prediction.batches import AHEAD, Done, ahead, chunks
from fer.prediction.detection import Detection
from fer.prediction.face import Face
from fer.prediction.result import Result
from fer.prediction.sources import Medium, fetch, find_media, kind_of
from fer.prediction.video import Video
from fer.system.download import download

#: Pictures that are read and named together where the caller gives no number.
BATCH = 32


class _Read(NamedTuple):
    """A picture's pixels or why it has none, and what they can be read from again."""

    pixels: np.ndarray | InputError
    source: Any


class BasePredictor(ABC):
    """Finds and names the faces of pictures; several threads may call one predictor.

    A picture is what `fer.data.inputs.to_array` takes. ``network`` is what names the faces; ``found_by`` says in words
    what finds them. Below the probability ``min_confidence`` a face has no label.
    """

    found_by: str = "found by the network itself"

    def __init__(self, network: NetworkInfo, min_confidence: float = 0.0) -> None:
        given: Any = min_confidence
        # a comparison with NaN is false
        if not isinstance(given, Real) or not 0 <= float(given) <= 1:
            raise InputError(f"min_confidence={given!s:.40} is not a probability")
        self.network, self.min_confidence = network, min_confidence
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="faces")
        self._closed = False

    def __enter__(self) -> "BasePredictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; a later call is refused."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of every face's probabilities."""
        return self.network.labels

    def __call__(self, picture: Picture, embed: bool = False) -> Result:
        """Return the faces of one picture, with ``embed`` each with its embedding.

        Raises:
            InputError: it can't be read or is no picture; a network without embeddings.
        """
        self._require_open()
        if embed:
            self.require_embedding()
        read = _read(picture)
        if isinstance(read.pixels, InputError):
            raise read.pixels
        return self._result(picture, read, self._find([read.pixels], embed)[0])

    def batch(self, pictures: Iterable[Picture], embed: bool = False, size: int = BATCH) -> list[Result]:
        """Return the faces of each picture: read and searched in parallel, named together in batches of the network.

        What can't be read has a result with ``error``. At most ``size`` are in memory. Where many pictures are given,
        ``cv2.setNumThreads(1)`` beforehand leaves the cores to these threads.

        Raises:
            InputError: a network without embeddings.
        """
        return list(self.stream([pictures] if is_one(pictures) else pictures, embed, size))

    def stream(self, source: Any, embed: bool = False, size: int = BATCH) -> Iterator[Result]:
        """Yield a result a picture of an iterable, or of what a text means: a folder, glob, video or camera.

        Raises:
            InputError: nothing is found; a network without embeddings.
        """
        self._require_open()
        if type(size) is not int or size < 1:
            raise InputError(f"batch={size!s:.40}: a number of pictures, 1 or more")
        if embed:
            self.require_embedding()
        if isinstance(source, int) and not isinstance(source, bool):
            source = str(source)
        if is_address(source):
            return self._fetched(source, embed, size)
        if not isinstance(source, str | os.PathLike):
            return self._each([source] if is_one(source) else source, embed, size)
        # what there is not is said now, not when the first result is asked for
        return self._media(find_media(os.fspath(source)), embed, size)

    @abstractmethod
    def require_embedding(self) -> None:
        """Raise an InputError where faces can have no ``embedding``."""

    @abstractmethod
    def _find(self, pictures: Sequence[np.ndarray], embed: bool) -> list[list[Face]]:
        """Return the faces of each picture uint8 (h, w) or (h, w, 3), searched in parallel and named together."""

    @abstractmethod
    def frames(self, frames: Sequence[np.ndarray], every: int = 1, embed: bool = False) -> list[list[Face]]:
        """Return the faces of each of some consecutive frames of a video, arrays as in a call, named together.

        Each ``every``-th frame and the last are searched whole, those between perhaps only near the faces of the two
        around.

        Raises:
            InputError: an array that is no picture.
        """

    def _fetched(self, address: str, embed: bool, size: int) -> Iterator[Result]:
        """Yield the results of a photo, video or stream at an http(s) address."""
        with TemporaryDirectory(prefix="fer-") as folder:
            try:
                medium = fetch(Medium(address, "live"), folder)
                if medium.kind != "photo":
                    yield from self._video(medium, embed, size)
                    return
                content = Path(medium.file).read_bytes()
                read = _Read(to_array(content, medium.shown), content)
            except InputError as error:
                read = _Read(error, None)
        found = () if isinstance(read.pixels, InputError) else self._find([read.pixels], embed)[0]
        yield self._result(address, read, found)

    def _media(self, media: Sequence[Medium], embed: bool, size: int) -> Iterator[Result]:
        photos: list[str] = []
        for medium in media:
            if medium.kind == "photo" and not medium.error:
                photos.append(medium.path)
                continue
            yield from self._each(photos, embed, size)
            photos = []
            if medium.error:
                yield self._failed(medium, medium.error)
            else:
                yield from self._video(medium, embed, size)
        yield from self._each(photos, embed, size)

    def _video(self, medium: Medium, embed: bool, size: int) -> Iterator[Result]:
        try:
            video = Video(medium)
        except InputError as error:
            if medium.kind == "live":
                raise
            yield self._failed(medium, str(error))
            return
        with video:
            # the picture of a camera must not wait for others
            for chunk in chunks(video, 1 if medium.kind == "live" else size, lambda frame: frame.picture):
                self._require_open()
                found = self.frames([frame.picture for frame in chunk], embed=embed)
                for frame, faces in zip(chunk, found, strict=True):
                    yield Result(faces, frame.picture, self.labels, medium.shown, frame.index, frame.time)
        if trouble := video.trouble():
            yield self._failed(medium, trouble)

    def _failed(self, medium: Medium, error: str) -> Result:
        return Result(labels=self.labels, path=medium.shown, error=error)

    def _each(self, pictures: Iterable[Any], embed: bool, size: int) -> Iterator[Result]:
        """Yield a result a picture; of a size of 1 the next is not taken before the last is given."""
        read = ahead(pictures, _read, self._submit, min(size - 1, AHEAD))
        for chunk in chunks(read, size, lambda pair: pair[1].pixels):
            self._require_open()
            readable = [pair[1].pixels for pair in chunk if not isinstance(pair[1].pixels, InputError)]
            found = iter(self._find(readable, embed))
            for picture, each in chunk:
                yield self._result(picture, each, () if isinstance(each.pixels, InputError) else next(found))

    def _result(self, picture: Any, read: _Read, faces: Iterable[Face]) -> Result:
        error = str(read.pixels) if isinstance(read.pixels, InputError) else None
        return Result(faces, read.source, self.labels, path_of(picture), error=error)

    def _map(self, work: Callable[..., Done], *items: Iterable[Any]) -> list[Done]:
        """Return what ``work`` makes of each of the items, done by the threads.

        Raises:
            InputError: another thread closed the predictor meanwhile.
        """
        try:
            return list(self._threads.map(work, *items))
        except (CancelledError, RuntimeError):
            self._require_open()
            raise

    def _submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        self._require_open()
        return self._threads.submit(work, *arguments)

    def _require_open(self) -> None:
        if self._closed:
            raise InputError("the predictor was closed; open another one with Predictor.load")

    def _face(self, detection: Detection, probabilities: Sequence[float], embedding: np.ndarray | None = None) -> Face:
        """Return a detected face with its name, from its probabilities in the order of the labels."""
        best = max(range(len(self.labels)), key=probabilities.__getitem__)
        confidence = probabilities[best]
        return Face(
            box=detection.box,
            probabilities=dict(zip(self.labels, probabilities, strict=True)),
            label=self.labels[best] if confidence >= self.min_confidence else None,
            confidence=confidence,
            score=detection.score,
            angle=detection.angle,
            embedding=embedding,
        )


def _read(picture: Any) -> _Read:
    """Read a picture; what comes from an address or an open file is kept, so that it is read once."""
    try:
        source = download(picture) if is_address(picture) else content_of(picture) if is_open_file(picture) else picture
        return _Read(to_array(source, path_of(picture)), source)
    except InputError as error:
        return _Read(_streamed(picture) or error, None)


def _streamed(picture: Any) -> InputError | None:
    """Return what to do with a path that is no photo but a video or a pattern; None where it is neither."""
    if not isinstance(picture, str | os.PathLike) or is_address(picture):
        return None
    path = os.fspath(picture)
    pattern = glob.has_magic(path) and not os.path.lexists(path)
    kind = "a video" if kind_of(path) == "video" else "a pattern" if pattern else None
    return InputError(f"{path}: {kind}; give it alone, with stream=True") if kind else None
