"""The frames of a video file, a camera or an address, and a video file of annotated ones."""

import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue

import cv2
import numpy as np

from fer.data.source import PhotoLimits
from fer.errors import InputError
from fer.prediction.sources import Medium
from fer.system.files import put_in_place

#: Most pixels a side of a written video.
_MAX_SIDE = 8190


#: Frames that wait between the thread that decodes and the one that predicts: enough to hide the jitter of both.
_QUEUE = 8


#: What FFmpeg may take a file for; other formats, such as playlists, make it open the files that they name.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video, uint8 (h, w, 3) RGB; ``index`` counts all frames from 0, ``time`` is in seconds."""

    index: int
    time: float
    picture: np.ndarray


def _open_file(path: str) -> cv2.VideoCapture:
    key = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    before = os.environ.get(key)
    os.environ[key] = f"format_whitelist;{_CONTAINERS}"
    try:
        return cv2.VideoCapture(path)
    finally:
        os.environ.pop(key)
        if before is not None:
            os.environ[key] = before


class Video:
    """The frames of a video file, a camera or an address, decoded by a thread of its own and never held all at once.

    ``size`` is width and height in pixels, ``fps`` frames per second (None where unknown), ``frames`` the number of
    frames that the file announces (None where unknown), ``read`` how many have been read so far, ``seconds`` the time
    of the last of them. Of ``every_n`` frames the first is given; the others are not converted. A live source that is
    read too slowly loses frames at the sender.

    Raises:
        InputError: it can't be opened or has no picture.
    """

    def __init__(self, medium: Medium, every_n: int = 1, limits: PhotoLimits = PhotoLimits()) -> None:  # noqa: B008
        self._medium, self._every_n = medium, every_n
        self._live = medium.kind == "live"
        if not self._live:
            _check_file(medium.path)
        if self._live:
            self._capture = cv2.VideoCapture(int(medium.path) if medium.path.isdigit() else medium.path)
        else:
            # whole, as FFmpeg takes "12:30.mp4" for an address
            self._capture = _open_file(os.path.abspath(medium.path))
        if not self._capture.isOpened():
            raise InputError(
                f"source={medium.shown}: no such camera or address answers" if self._live else "not a readable video"
            )
        width, height = (round(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > limits.max_pixels:
            self._capture.release()
            raise InputError("too many pixels")
        fps, frames = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.size = (width, height)
        # 1000 is the clock of a Matroska or WebM file that does not say its rate, as browsers record them
        self.fps = fps if 0 < fps < 1000 else None
        self.frames = None if self._live or not self.fps or not 0 < frames < 1e9 else int(frames)
        self.read, self.seconds = 0, 0.0
        self._queue: Queue[Frame | Exception | None] = Queue(1 if self._live else _QUEUE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._decode, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # a camera or an address may hang in a read, which nothing can interrupt; the thread is a daemon
        self._thread.join(timeout=2)
        if not self._thread.is_alive():
            self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            try:
                # with a timeout, as Python notices an interrupt only between two waits
                item = self._queue.get(timeout=0.5)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def _decode(self) -> None:
        try:
            for frame in self._frames():
                if not self._put(frame):
                    return
            self._put(None)
        except Exception as error:  # whatever it is, the thread that iterates must hear of it
            self._put(error)

    def _put(self, item: Frame | Exception | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def _frames(self) -> Iterator[Frame]:
        start = time.monotonic()
        while self._capture.grab():
            index = self.read
            self.read += 1
            if self._live:
                self.seconds = time.monotonic() - start
            else:
                self.seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                # some containers have no time stamps
                if index and self.seconds <= 0 and self.fps:
                    self.seconds = index / self.fps
            if index % self._every_n:
                continue
            taken, picture = self._capture.retrieve()
            if not taken:
                continue
            yield Frame(index, self.seconds, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))

    def breaks_off(self) -> bool:
        """Say whether, read to its end, it had fewer frames than the file announces, and ended before their time.

        The number is often a few frames off; of a file whose frames are not evenly spaced it is a guess of FFmpeg's.
        """
        if not self.frames or not self.fps or self.read >= 0.95 * self.frames:
            return False
        return (self.seconds + 1 / self.fps) * self.fps < 0.95 * self.frames


class VideoWriter:
    """An .mp4 file (MPEG-4 part 2) of frames uint8 (h, w, 3) RGB, which has its name only when it is complete.

    Nothing is left where no frame was written. Frames of another size than the first are resized to it, those with
    more than 8,190 pixels a side, which MPEG-4 does not have, to that.

    Raises:
        OSError: the file is not whole when it is closed: the disk is full. What had its name before is left.
    """

    def __init__(self, path: Path, fps: float) -> None:
        # OpenCV writes no lower rate
        self.path, self._fps = path.absolute(), max(fps, 0.01)
        self._written = 0
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._temporary = self.path.with_name(f".{path.stem}.tmp.mp4")

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.release()
            # OpenCV does not say what could not be written
            reader = cv2.VideoCapture(str(self._temporary))
            frames = reader.get(cv2.CAP_PROP_FRAME_COUNT)
            reader.release()
            if frames < self._written:
                self._temporary.unlink(missing_ok=True)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            put_in_place(self._temporary, self.path)

    def write(self, picture: np.ndarray) -> None:
        if self._writer is None:
            scale = min(1, _MAX_SIDE / max(picture.shape[:2]))
            self._size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
            code = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(self._temporary), code, self._fps, self._size)
            if not writer.isOpened():
                raise InputError(f"{self.path}: OpenCV can't write this video; draw=false leaves it out")
            self._writer = writer
        if picture.shape[1::-1] != self._size:
            # what a live source may do
            picture = cv2.resize(picture, self._size)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self._written += 1


def _check_file(path: str) -> None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        raise InputError("missing file") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a file")
    if status.st_size == 0:
        raise InputError("zero bytes")
    if not os.access(path, os.R_OK):
        raise InputError("cannot be read (Permission denied)")
