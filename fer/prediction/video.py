"""The frames of a video file, a camera or an address, decoded one after the other."""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from queue import Empty, Full, Queue
from typing import Any, Protocol

import av
import cv2
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from fer.data.source import PhotoLimits
from fer.errors import InputError
from fer.prediction.sources import Medium

#: Frames that wait between the thread that decodes and the one that predicts: enough to hide the jitter of both.
_QUEUE = 8

#: What FFmpeg may take a file for; other formats, such as playlists, make it open the files that they name.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf,ivf"
#: What an address may lead to: never to a file of this machine.
_PROTOCOLS = "rtsp,rtsps,rtp,srtp,rtmp,rtmps,rtmpt,http,https,httpproxy,tls,tcp,udp,crypto,hls"

#: Seconds in which an address must answer, and then send something.
OPEN_SECONDS, READ_SECONDS = 20.0, 30.0

#: Gives the pixels of a decoded frame, uint8 (h, w, 3) RGB.
_Convert = Callable[[], np.ndarray]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video, uint8 (h, w, 3) RGB; ``index`` counts all frames from 0, ``time`` is in seconds."""

    index: int
    time: float
    picture: np.ndarray


class _Decoder(Protocol):
    """What decodes, with the numbers of `Video`.

    ``damaged`` counts what can't be decoded, or only in part; ``lost`` tells that an error ended the reading.
    """

    size: tuple[int, int]
    fps: float | None
    frames: int | None
    damaged: int
    lost: bool
    start: float

    def __iter__(self) -> Iterator[tuple[float | None, _Convert]]:
        """Yield the time of each frame, in seconds from the first, None where there is none, and how to get it."""

    def close(self) -> None: ...


class Video:
    """The frames of a video file, a camera or an address, decoded by a thread of its own and never held all at once.

    Frames stand upright as the file says, have square pixels, and of interlaced material no lines of two moments.
    ``size`` is width and height in pixels, ``fps`` frames per second (None where unknown), ``frames`` the number of
    frames that the file announces (None where unknown), ``start`` when the first is shown on the file's own clock, in
    seconds, ``read`` how many have been read so far, ``seconds`` the time of the last of them after the first. Of
    ``every_n`` frames the first is given; the others are not converted. ``gpu`` decodes a file on an NVIDIA GPU where
    it can. A live source that is read too slowly loses frames at the sender.

    Raises:
        InputError: it can't be opened or has no picture.
    """

    def __init__(
        self,
        medium: Medium,
        every_n: int = 1,
        limits: PhotoLimits = PhotoLimits(),  # noqa: B008
        gpu: bool = False,
    ) -> None:
        self._every_n = every_n
        self._live = medium.kind == "live"
        if self._live and medium.path.isdigit():
            self._decoder: _Decoder = _Camera(medium)
        elif self._live:
            self._decoder = _open_address(medium, limits.max_pixels)
        else:
            self._decoder = _open_file(medium, limits.max_pixels, gpu)
        width, height = self.size = self._decoder.size
        if width * height > limits.max_pixels:
            self._decoder.close()
            raise InputError("too many pixels")
        self.fps, self.frames = self._decoder.fps, None if self._live else self._decoder.frames
        self.start, self.read, self.seconds = self._decoder.start, 0, 0.0
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
            self._decoder.close()

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
        for seconds, convert in self._decoder:
            index = self.read
            self.read += 1
            if self._live:
                self.seconds = time.monotonic() - start
            elif seconds is not None:
                self.seconds = seconds
            elif index:
                # some containers have no time stamps
                self.seconds += 1 / (self.fps or 25)
            if index % self._every_n == 0:
                try:
                    picture = convert()
                except (av.FFmpegError, cv2.error):
                    self._decoder.damaged += 1
                    continue
                yield Frame(index, self.seconds, picture)

    def trouble(self) -> str:
        """Say in a few words what was wrong with what was read to its end; nothing where it was whole."""
        if self._live:
            # packets that are lost on the way are no trouble
            return "does not answer any more" if self._decoder.lost else ""
        if self.breaks_off():
            return f"ends after {self.read:,} of {self.frames:,} frames"
        if self._decoder.damaged:
            return f"damaged: {self._decoder.damaged:,} of its frames cannot be decoded, or only in part"
        return ""

    def breaks_off(self) -> bool:
        """Say whether, read to its end, it had fewer frames than the file announces, and ended before their time.

        The number is often a few frames off; of a file whose frames are not evenly spaced it is a guess.
        """
        if not self.frames or not self.fps or self.read >= 0.95 * self.frames:
            return False
        return (self.seconds + 1 / self.fps) * self.fps < 0.95 * self.frames


def open_container(path: str, hwaccel: HWAccel | None = None) -> InputContainer:
    """Return a video file opened by FFmpeg, which opens no other file for it.

    Raises:
        av.FFmpegError: it is none.
    """
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    # whole, as FFmpeg takes "12:30.mp4" for an address
    return av.open(os.path.abspath(path), options=options, metadata_errors="replace", hwaccel=hwaccel)


def _open_file(medium: Medium, max_pixels: int, gpu: bool) -> "_Stream":
    _check_file(medium.file)
    if gpu:
        # what a GPU can't take is left to the processor
        with suppress(av.FFmpegError, InputError):
            return _Stream(
                open_container(medium.file, HWAccel("cuda", allow_software_fallback=True)), False, max_pixels
            )
    try:
        return _Stream(open_container(medium.file), False, max_pixels)
    except av.FFmpegError as error:
        raise InputError("not a readable video") from error


def _open_address(medium: Medium, max_pixels: int) -> "_Stream":
    # prefer_tcp: what is sent over UDP loses packets on the way
    options = {"protocol_whitelist": _PROTOCOLS, "rtsp_flags": "prefer_tcp"}
    try:
        times = (OPEN_SECONDS, READ_SECONDS)
        return _Stream(
            av.open(medium.path, options=options, timeout=times, metadata_errors="replace"), True, max_pixels
        )
    except av.FFmpegError as error:
        raise InputError(f"source={medium.shown}: no such camera or address answers") from error
    except InputError as error:
        raise InputError(f"source={medium.shown}: {error}") from error


class _Stream:
    """A file or an address, decoded by FFmpeg."""

    def __init__(self, container: InputContainer, live: bool, max_pixels: int) -> None:
        self._container, self._max_pixels = container, max_pixels
        self.damaged, self.lost = 0, False
        stream = container.streams.best("video")
        # the cover of a song is no video
        if not isinstance(stream, av.VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
            container.close()
            raise InputError("not a readable video: it has no picture")
        if stream.codec_context is None:
            container.close()
            raise InputError("not a readable video: FFmpeg has no decoder for it")
        self._stream = stream
        # a thread a frame decodes fastest, and is that many frames late
        stream.thread_type = "SLICE" if live else "AUTO"
        self._reformatter = VideoReformatter()
        self._deinterlacer: _Deinterlacer | None = None
        rate = stream.average_rate or stream.guessed_rate
        # 1000 is the clock of a Matroska or WebM file that does not say its rate, as browsers record them
        self.fps = float(rate) if rate and 0 < rate < 1000 else None
        self.frames = _announced(container, stream, self.fps)
        self._upcoming = self._decoded()
        # the first frame says which way up all of them are
        first = next(self._upcoming, None)
        if first is None:
            container.close()
            raise InputError("no frame can be read")
        self._upcoming = chain([first], self._upcoming)
        self._turn = _Turn.of(first)
        self.size = self._turn.size(*self._scaled(first))
        self.start = _time(first) or 0.0

    def close(self) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[tuple[float | None, _Convert]]:
        for frame in self._upcoming:
            if frame.width * frame.height > self._max_pixels:
                # a stream may change its size
                self.damaged += 1
                continue
            at = _time(frame)
            yield None if at is None else at - self.start, partial(self._picture, frame)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            try:
                frames = packet.decode()
            except EOFError:
                return
            except av.FFmpegError:
                self.damaged += 1
                continue
            for frame in frames:
                self.damaged += frame.is_corrupt
                try:
                    whole = list(self._deinterlaced(frame))
                except av.FFmpegError:
                    self.damaged, self._deinterlacer = self.damaged + 1, None
                    continue
                yield from whole
        if self._deinterlacer:
            yield from self._deinterlacer.rest()

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from self._container.demux(self._stream)
        except av.FFmpegError:
            # from here on there is nothing; what the decoder holds back is whole
            self.lost, self.damaged = True, self.damaged + 1
            flush = av.Packet()
            flush.stream = self._stream
            yield flush

    def _deinterlaced(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        if self._deinterlacer and not self._deinterlacer.takes(frame):
            yield from self._deinterlacer.rest()
            self._deinterlacer = None
        if frame.interlaced_frame and not self._deinterlacer:
            self._deinterlacer = _Deinterlacer(frame)
        if self._deinterlacer:
            yield from self._deinterlacer.put(frame)
        else:
            yield frame

    def _scaled(self, frame: av.VideoFrame) -> tuple[int, int]:
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        # an absurd one is a broken file's
        if aspect == 1 or not Fraction(1, 4) <= aspect <= 4:
            return frame.width, frame.height
        return max(1, round(frame.width * aspect)), frame.height

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        # threads of its own would be started for each frame
        colored = self._reformatter.reformat(frame, *self._scaled(frame), "rgb24", threads=1)
        return self._turn(colored.to_ndarray())


def _time(frame: av.VideoFrame) -> float | None:
    return None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)


@dataclass(frozen=True, slots=True)
class _Turn:
    """How stored frames are turned to stand upright: transposed, then flipped as OpenCV's codes say."""

    transposed: bool = False
    flipped: int | None = None

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "_Turn":
        """Return it from the display matrix, which maps stored to shown pixels: right angles and mirrors."""
        try:
            # PyAV's types say that it holds nothing
            side: Any = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]
        except ValueError:  # beside it lie data of a kind that PyAV does not know
            cos, sin = (round(part(np.deg2rad(frame.rotation))) for part in (np.cos, np.sin))
            a, b, c, d = cos, -sin, sin, cos
        except KeyError:
            return cls()
        else:
            a, b, _, c, d, *_ = np.frombuffer(side, np.int32).tolist()
        transposed = abs(b) > abs(a)
        left, up = (c < 0, b < 0) if transposed else (a < 0, d < 0)
        return cls(transposed, {(False, False): None, (True, False): 1, (False, True): 0, (True, True): -1}[left, up])

    def size(self, width: int, height: int) -> tuple[int, int]:
        return (height, width) if self.transposed else (width, height)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        if self.transposed:
            picture = cv2.transpose(picture)
        return picture if self.flipped is None else cv2.flip(picture, self.flipped)


class _Deinterlacer:
    """FFmpeg's bwdif: each interlaced frame becomes one whole frame, one frame later; others stay as they are."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._kind = frame.width, frame.height, frame.format.name
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        self._graph.link_nodes(
            source, self._graph.add("bwdif", "mode=send_frame:deint=interlaced"), self._graph.add("buffersink")
        ).configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        return (frame.width, frame.height, frame.format.name) == self._kind

    def put(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        self._graph.vpush(frame)
        with suppress(BlockingIOError, EOFError):
            while True:
                yield self._graph.vpull()

    def rest(self) -> Iterator[av.VideoFrame]:
        return self.put(None)


def _announced(container: InputContainer, stream: av.VideoStream, fps: float | None) -> int | None:
    """Return how many frames a file says that it has, by its length where it gives no number."""
    if stream.frames:
        return stream.frames
    seconds = 0.0
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / av.time_base
    frames = round(seconds * (fps or 0))
    return frames if 0 < frames < 1e9 else None


class _Camera:
    """A camera of this machine, by its number; of OpenCV, as PyAV's FFmpeg opens none."""

    damaged, lost, start = 0, False, 0.0
    frames: int | None = None

    def __init__(self, medium: Medium) -> None:
        self._capture = cv2.VideoCapture(int(medium.path))
        if not self._capture.isOpened():
            raise InputError(f"source={medium.shown}: no such camera or address answers")
        get = self._capture.get
        self.size = round(get(cv2.CAP_PROP_FRAME_WIDTH)), round(get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else None

    def close(self) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[float | None, _Convert]]:
        while self._capture.grab():
            yield None, self._picture

    def _picture(self) -> np.ndarray:
        _, picture = self._capture.retrieve()
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


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
