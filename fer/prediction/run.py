"""The run of predict.py: sources in; rows, annotated pictures and videos out."""

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
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
from fer.prediction.sources import Medium, counted, fetch, find_media
from fer.prediction.table import Rows, face_cells, out_folder
from fer.prediction.tracking import Tracker
from fer.prediction.video import Frame, Video
from fer.prediction.video_writer import VideoWriter
from fer.system.files import claiming
from fer.system.memory import keep_freed_memory
from fer.system.words import amount


def predict(keys: dict[str, Any], open_predictor: Callable[[], BasePredictor]) -> int:
    """Name the expressions of every face in ``keys["source"]``; returns how many files failed, wholly or in part.

    ``keys`` are those of conf/predict.yaml; the predictor is opened once there is something to read. Under
    ``keys["out"]``: predictions.csv and predictions.jsonl, a row a face (box in pixels of the photo or frame), a row
    without a box for a file without a face, a row with the reason for one that can't be read; photos/ with annotated
    photos, NAME.mp4 for each video, explain/ with a figure for each face of a photo and the first of each track; with
    ``embed`` embeddings.npz (`Embeddings`). With ``strict`` a file without a face failed, too.

    Raises:
        InputError: nothing to read, a camera or address that does not answer, a checkpoint that is not ours.
        Interrupted: after an interrupt or SIGTERM; every file is complete up to the frame that was reached.
    """
    if keys["show"]:
        require_window()
    out, skipped = out_folder(keys, "torch" if is_darknet(keys["ckpt"]) else None)
    left_aside: Counter[str] = Counter()
    with TemporaryDirectory(prefix="fer-") as folder:
        media = [fetch(medium, folder) for medium in find_media(keys["source"], skipped, left_aside)]
        return _predict(keys, open_predictor, out, media, left_aside)


def _predict(
    keys: dict[str, Any], open_predictor: Callable[[], BasePredictor], out: Path, media: Sequence[Medium],
    left_aside: Counter[str],
) -> int:  # fmt: skip
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
    for line in run.notes(len(media)):
        print(line)
    parts = [amount(len(media), "file"), amount(rows.faces, "face")]
    parts += [f"{run.faceless:,} without a face", f"{run.unread:,} not read"]
    if run.undrawn:
        parts.append(f"{run.undrawn:,} not drawn")
    if left_aside:
        parts.append(f"{left_aside.total():,} left aside ({counted(left_aside)})")
    print(f"{', '.join(parts)}, {rate:,.1f} {unit}/s: {out / 'predictions.csv'}")
    return run.unread + run.undrawn + (run.faceless if keys["strict"] else 0)


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


#: A hint is given where so many of the files read have no face.
_MANY = 0.25

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
        self.faceless = self.unread = self.undrawn = 0
        self._cut: list[str] = []
        self._gpu = _on_gpu(keys["device"])

    def notes(self, files: int) -> list[str]:
        """Return lines on what the user may want to know beside the counts."""
        lines = []
        if self._cut:
            more = f" and {len(self._cut) - 3:,} more" if len(self._cut) > 3 else ""
            lines.append(f"note: without an end marker, read as far as they go: {', '.join(self._cut[:3])}{more}")
        if self.faceless and self.faceless >= _MANY * (files - self.unread):
            had = amount(files, "file has", "files have")
            lines.append(f"hint: {self.faceless:,} of {had} no face; {_remedy(self._predictor.found_by)}")
        return lines

    def all(self, media: Sequence[Medium]) -> None:
        for kind, group in groupby(media, lambda medium: "error" if medium.error else medium.kind):
            if kind == "error":
                for medium in group:
                    self._fail(medium, medium.error)
            elif kind == "photo":
                self._photos(list(group))
            else:
                self.only_photos = False
                for medium in group:
                    self._video(medium)

    def _photos(self, media: Sequence[Medium]) -> None:
        bar = tqdm(total=len(media), desc="photos", unit="photo", leave=False)
        with bar:
            for chunk in chunks(read_ahead(media, self._pool, self._cut), self._keys["batch"], lambda item: item[1]):
                readable = [photo for _, photo in chunk if not isinstance(photo, str)]
                predictions = iter(self._predictor.batch(readable, self._keys["embed"]))
                saves = []
                for medium, photo in chunk:
                    bar.update()
                    if isinstance(photo, str):
                        self._fail(medium, photo)
                        continue
                    faces = next(predictions)
                    self.count += 1
                    for face in faces:
                        self._rows.write(file=medium.shown, **face_cells(face))
                    if not faces:
                        self._no_face(medium)
                    name = self._pictures.new_name(medium.name)
                    for number, face in enumerate(faces, 1):
                        self._pictures.explain(photo, face, f"{name}_{number}")
                    if self._keys["show"]:
                        show(self._pictures.annotate(photo, faces), wait=0)
                    if self._keys["draw"]:
                        saves.append(self._pool.submit(self._pictures.save, photo, faces, name))
                # their errors, and no more than a batch of photos in memory
                for future in saves:
                    future.result()

    def _fail(self, medium: Medium, error: str) -> None:
        self.unread += 1
        self._rows.write(file=medium.shown, error=error)

    def _no_face(self, medium: Medium) -> None:
        self.faceless += 1
        if self._keys["strict"]:
            self._rows.write(file=medium.shown, error="no face was found")
        else:
            self._rows.write(file=medium.shown)

    def _video(self, medium: Medium) -> None:
        try:
            video = Video(medium, self._keys["every_n"], gpu=self._gpu)
        except InputError as error:
            if medium.kind == "live":
                raise
            self._fail(medium, str(error))
            return
        before = self._rows.faces
        path = self._pictures.out / f"{self._pictures.new_name(medium.name)}.mp4"
        # of who is to be hidden nobody shall hear the voice
        silent = medium.kind == "live" or self._keys["anonymize"]
        sound = None if silent else (medium.file, video.start)
        with video, _Drawn(VideoWriter(path, (video.fps or 25) / self._keys["every_n"], sound)) as drawn:
            total = video.frames and -(-video.frames // self._keys["every_n"])
            with tqdm(total=total, desc=path.stem, unit="frame", leave=False) as bar:
                self._frames(medium, video, drawn, bar)
        if trouble := video.trouble():
            self._fail(medium, trouble)
        elif self._rows.faces == before:
            self._no_face(medium)
        if drawn.error:
            self.undrawn += 1
            self._rows.write(file=medium.shown, error=drawn.error)

    def _frames(self, medium: Medium, video: Video, drawn: "_Drawn", bar: tqdm) -> None:
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
                            self._pictures.explain(frame.picture, face, f"{drawn.name}_track{number}")
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
                    pending = self._pool.submit(self._encode, tracked, drawn)
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

    def _encode(self, tracked: Iterable[_Tracked], drawn: "_Drawn") -> None:
        for frame, faces, numbers, missing in tracked:
            if not drawn.error:
                drawn.write(self._pictures.annotate(frame.picture, faces, numbers, missing), frame.time)


class _Drawn:
    """An annotated video; where it can't be written ``error`` says why, and the run goes on without it."""

    def __init__(self, writer: VideoWriter) -> None:
        self._writer, self.name, self.error = writer, writer.path.stem, ""

    def __enter__(self) -> "_Drawn":
        return self

    def __exit__(self, *exception: Any) -> None:
        with self._noted():
            self._writer.__exit__(*exception)

    def write(self, picture: np.ndarray, seconds: float) -> None:
        with self._noted():
            self._writer.write(picture, seconds)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = f"its annotated video was not written: {error.strerror}"


def _remedy(found_by: str) -> str:
    """Return what to try where faces are missed, for what looks for them."""
    if found_by == BasePredictor.found_by:
        return "a lower min_confidence= keeps less certain ones"
    yunet = "" if found_by.startswith("YuNet") else "faces=yunet finds turned, small and covered ones, "
    return f"{yunet}faces.min_size=20 finds smaller ones, and faces=whole takes pictures as faces; see docs/faces.md"


def _on_gpu(device: str) -> bool:
    """Say whether what predicts runs on an NVIDIA GPU, so that it may decode videos, too."""
    if device != "auto":
        return device.startswith("cuda")
    import torch

    return torch.cuda.is_available()


def _smoothed(face: Face, labels: Sequence[str], row: np.ndarray, min_confidence: float) -> Face:
    best = int(row.argmax())
    confidence = float(row[best])
    return replace(
        face, probabilities=dict(zip(labels, row.tolist(), strict=True)), confidence=confidence,
        label=labels[best] if confidence >= min_confidence else None,
    )  # fmt: skip
