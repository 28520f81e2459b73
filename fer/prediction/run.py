"""The run of predict.py: sources in; rows, annotated pictures and videos out."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from fer.engines import is_darknet
from fer.errors import InputError, Interrupted
from fer.prediction.base import BasePredictor
from fer.prediction.batches import chunks, read_ahead
from fer.prediction.drawing import WindowClosed, require_window, show
from fer.prediction.face import Face
from fer.prediction.pictures import Pictures
from fer.prediction.sources import Medium, find_media
from fer.prediction.table import Rows, face_cells, out_folder
from fer.prediction.tracking import Tracker
from fer.prediction.video import Frame, Video, VideoWriter
from fer.system.files import claiming
from fer.system.memory import keep_freed_memory


def predict(keys: dict[str, Any], open_predictor: Callable[[], BasePredictor]) -> int:
    """Name the expressions of every face in ``keys["source"]``; returns how many files failed, wholly or in part.

    ``keys`` are those of conf/predict.yaml; the predictor is opened once there is something to read. Under
    ``keys["out"]``: predictions.csv and predictions.jsonl, a row a face (box in pixels of the photo or frame), a row
    without a box for a file without a face, a row with the reason for one that can't be read; photos/ with annotated
    photos, NAME.mp4 for each video, explain/ with a figure for each face of a photo and the first of each track; with
    ``embed`` embeddings.npz (`Embeddings`).

    Raises:
        InputError: nothing to read, a camera or address that does not answer, a checkpoint that is not ours.
        Interrupted: after an interrupt or SIGTERM; every file is complete up to the frame that was reached.
    """
    if keys["show"]:
        require_window()
    out, skipped = out_folder(keys, "torch" if is_darknet(keys["ckpt"]) else None)
    media = find_media(keys["source"], skipped)
    predictor = open_predictor()
    print(f"faces: {predictor.found_by}")
    if keys["embed"]:
        predictor.require_embedding()
    explainer = None
    if keys["explain"]:
        from fer.prediction.gradcam import Explainer

        explainer = Explainer.load(keys["ckpt"], keys["layer"], keys["device"])
        # the same cut, with margin= too
        explainer.face = predictor.network.face
    keep_freed_memory()
    start = time.perf_counter()
    stopped_by: list[int] = [signal.SIGINT]
    with (
        claiming(out),
        Rows(out, predictor.labels, keys["embed"]) as rows,
        ThreadPoolExecutor() as pool,
        _one_opencv_thread(),
        _sigterm_interrupts(stopped_by),
    ):
        pictures = Pictures(out, explainer, keys["anonymize"])
        run = _Run(keys, predictor, rows, pictures, pool)
        try:
            run.all(media)
        except WindowClosed:
            pass
        except KeyboardInterrupt:
            raise Interrupted(stopped_by[-1], f"; {out} holds what was done until then") from None
    if carried := pictures.carried():
        print(carried)
    rate, unit = run.count / (time.perf_counter() - start), "photos" if run.only_photos else "frames"
    files = f"{len(media):,} files" if len(media) > 1 else "1 file"
    print(f"{files}, {rows.faces:,} faces, {rows.failed:,} failed, {rate:,.1f} {unit}/s: {out / 'predictions.csv'}")
    return rows.failed


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Leave the cores to our own threads: with its own beside them OpenCV finds faces in half as many frames/s."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def _sigterm_interrupts(stopped_by: list[int]) -> Iterator[None]:
    """Let SIGTERM, with which services and schedulers end a camera's run, interrupt as Ctrl-C does, and note it."""

    def stop(number: int, _: object) -> None:
        stopped_by.append(number)
        raise KeyboardInterrupt

    # only there a handler can be set
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


#: A frame, its faces, their track numbers, and the boxes of tracks that it does not show.
_Tracked = tuple[Frame, list[Face], list[int], list[Any]]


class _Run:
    def __init__(
        self,
        keys: dict[str, Any],
        predictor: BasePredictor,
        rows: Rows,
        pictures: Pictures,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._keys, self._predictor, self._rows, self._pictures, self._pool = keys, predictor, rows, pictures, pool
        self.count, self.only_photos = 0, True

    def all(self, media: Sequence[Medium]) -> None:
        for kind, group in groupby(media, lambda medium: "error" if medium.error else medium.kind):
            if kind == "error":
                for medium in group:
                    self._rows.write(file=medium.path, error=medium.error)
            elif kind == "photo":
                self._photos(list(group))
            else:
                self.only_photos = False
                for medium in group:
                    self._video(medium)

    def _photos(self, media: Sequence[Medium]) -> None:
        bar = tqdm(total=len(media), desc="photos", unit="photo", leave=False)
        with bar:
            for chunk in chunks(read_ahead(media, self._pool), self._keys["batch"], lambda item: item[1]):
                readable = [photo for _, photo in chunk if not isinstance(photo, str)]
                predictions = iter(self._predictor.batch(readable, self._keys["embed"]))
                saves = []
                for medium, photo in chunk:
                    bar.update()
                    if isinstance(photo, str):
                        self._rows.write(file=medium.path, error=photo)
                        continue
                    faces = next(predictions)
                    self.count += 1
                    for face in faces:
                        self._rows.write(file=medium.path, **face_cells(face))
                    if not faces:
                        self._rows.write(file=medium.path)
                    name = self._pictures.new_name(medium.path)
                    for number, face in enumerate(faces, 1):
                        self._pictures.explain(photo, face, f"{name}_{number}")
                    if self._keys["show"]:
                        show(self._pictures.annotate(photo, faces), wait=0)
                    if self._keys["draw"]:
                        saves.append(self._pool.submit(self._pictures.save, photo, faces, name))
                # their errors, and no more than a batch of photos in memory
                for future in saves:
                    future.result()

    def _video(self, medium: Medium) -> None:
        try:
            video = Video(medium, self._keys["every_n"])
        except InputError as error:
            if medium.kind == "live":
                raise
            self._rows.write(file=medium.shown, error=str(error))
            return
        before = self._rows.faces
        path = self._pictures.out / f"{self._pictures.new_name(medium.path)}.mp4"
        writer = VideoWriter(path, (video.fps or 25) / self._keys["every_n"])
        with video, writer:
            total = video.frames and -(-video.frames // self._keys["every_n"])
            with tqdm(total=total, desc=writer.path.stem, unit="frame", leave=False) as bar:
                self._frames(medium, video, writer, bar)
        if not video.read:
            self._rows.write(file=medium.shown, error="no frame can be read")
        elif video.breaks_off():
            self._rows.write(file=medium.shown, error=f"ends after {video.read:,} of {video.frames:,} frames")
        elif self._rows.faces == before:
            self._rows.write(file=medium.shown)

    def _frames(self, medium: Medium, video: Video, writer: VideoWriter, bar: tqdm) -> None:
        tracker, last_explained = Tracker(self._keys["smooth"]), 0
        labels, min_confidence = self._predictor.labels, self._predictor.min_confidence
        # the picture of a camera must not wait for others
        size = 1 if medium.kind == "live" else self._keys["batch"]
        # what is to be hidden must not be there for a few frames before it is found
        every = 1 if self._keys["anonymize"] else max(1, self._keys["search_every"] // self._keys["every_n"])
        pending: Future | None = None
        try:
            for chunk, predictions in self._predictions(chunks(video, size, lambda frame: frame.picture), every):
                tracked: list[_Tracked] = []
                for frame, faces in zip(chunk, predictions, strict=True):
                    table = np.array([list(face.probabilities.values()) for face in faces]).reshape(-1, len(labels))
                    numbers, table = tracker.update([face.box for face in faces], table)
                    faces = [
                        _smoothed(face, labels, row, min_confidence) for face, row in zip(faces, table, strict=True)
                    ]
                    place: dict[str, Any] = {"file": medium.shown, "frame": frame.index, "time": round(frame.time, 3)}
                    for number, face in zip(numbers, faces, strict=True):
                        self._rows.write(**place, track=number, **face_cells(face))
                        if number > last_explained:
                            self._pictures.explain(frame.picture, face, f"{writer.path.stem}_track{number}")
                            last_explained = number
                    tracked.append((frame, faces, numbers, tracker.missing()))
                self.count += len(chunk)
                bar.update(len(chunk))
                if self._keys["show"]:
                    for frame, faces, numbers, missing in tracked:
                        show(self._pictures.annotate(frame.picture, faces, numbers, missing), wait=1)
                if self._keys["draw"]:
                    # one batch is drawn and encoded while the next is predicted
                    if pending:
                        pending.result()
                    pending = self._pool.submit(self._encode, tracked, writer)
        finally:
            # before the writer is closed, also after an interrupt
            if pending:
                pending.result()

    def _predictions(
        self, batches: Iterable[list[Frame]], every: int
    ) -> Iterator[tuple[list[Frame], list[list[Face]]]]:
        """Yield the batches with their faces; the next is searched while the network names this one."""
        waiting: deque[tuple[list[Frame], Future]] = deque()
        for chunk in batches:
            pictures = [frame.picture for frame in chunk]
            waiting.append((chunk, self._pool.submit(self._predictor.frames, pictures, every, self._keys["embed"])))
            if len(waiting) > 1:
                first, future = waiting.popleft()
                yield first, future.result()
        for chunk, future in waiting:
            yield chunk, future.result()

    def _encode(self, tracked: Iterable[_Tracked], writer: VideoWriter) -> None:
        for frame, faces, numbers, missing in tracked:
            writer.write(self._pictures.annotate(frame.picture, faces, numbers, missing))


def _smoothed(face: Face, labels: Sequence[str], row: np.ndarray, min_confidence: float) -> Face:
    best = int(row.argmax())
    confidence = float(row[best])
    return replace(
        face, probabilities=dict(zip(labels, row.tolist(), strict=True)), confidence=confidence,
        label=labels[best] if confidence >= min_confidence else None,
    )  # fmt: skip
