"""A video file that browsers play: H.264 in mp4, with the sound of the file that its frames come from."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer

from fer.prediction.video import open_container
from fer.system.files import put_in_place

#: Most pixels a side of a written video.
_MAX_SIDE = 8192

#: The clock of a written video: a whole number of ticks for all usual rates, 24000/1001 and 240 frames/s too.
_TICK = Fraction(1, 360_000)

#: As fast as OpenCV's MPEG-4, and files of its size; slower settings halve them and cost a tenth of a whole run.
_OPTIONS = {"preset": "ultrafast", "crf": "23"}

#: Chroma of 0 to 255 as 16 to 240.
_NARROW = np.rint(128 + (np.arange(256) - 128) * 224 / 255).astype(np.uint8)

#: Sound that is copied; what mp4 can't hold, or browsers don't play in it, becomes AAC.
_COPIED = ("aac", "mp3", "opus", "flac")
#: What AAC has in samples a second; sound of other rates gets 48,000.
_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)


class VideoWriter:
    """An .mp4 file (H.264, its table first) of frames uint8 (h, w, 3) RGB, which has its name only when it is complete.

    Nothing is left where no frame was written. Frames of another size than the first are resized to it, those with
    more than 8,192 pixels a side to that; an odd side is made even by its last pixels again. ``sound`` is a video file
    whose sound is taken along, and when the first frame is shown on that file's clock, in seconds; it ends with the
    frames where an exception ends the writing. ``fps`` is the rate of frames that come without a time.

    Raises:
        OSError: the file can't be written: the disk is full. What had its name before is left.
    """

    def __init__(self, path: Path, fps: float = 25.0, sound: tuple[str, float] | None = None) -> None:
        self.path, self._fps, self._sound_of = path.absolute(), fps, sound
        self._temporary = self.path.with_name(f".{path.stem}.tmp.mp4")
        self._container: OutputContainer | None = None
        self._stream: av.VideoStream
        self._sound: _Sound | None = None
        self._size = (0, 0)
        self._last = -1
        self._failed = False

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._container and not self._failed:
                with self._named_errors():
                    self._mux(self._stream.encode())
                    if kind is None:
                        self._mux_sound(float("inf"))
                    self._close()
                    put_in_place(self._temporary, self.path)
        finally:
            with suppress(OSError, av.FFmpegError):
                self._close()
            self._temporary.unlink(missing_ok=True)

    def write(self, picture: np.ndarray, seconds: float | None = None) -> None:
        """Add a frame, shown from ``seconds`` after the first on; by default 1 / fps after the one before."""
        with self._named_errors():
            if self._container is None:
                self._open(picture)
            step = round(1 / self._fps / _TICK) if self._last >= 0 else 1
            at = self._last + step if seconds is None else round(seconds / _TICK)
            # of two frames of one time the second is shown a tick later
            self._last = max(at, self._last + 1)
            self._mux_sound(float(self._last * _TICK))
            self._mux(self._stream.encode(self._frame(picture)))

    def _frame(self, picture: np.ndarray) -> av.VideoFrame:
        if picture.shape[1::-1] != self._size:
            # what a live source may do
            picture = cv2.resize(picture, self._size)
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(to_planes(picture), "yuv420p")
        frame.pts, frame.time_base = self._last, _TICK
        return frame

    def _mux(self, packets: Iterable[av.Packet]) -> None:
        assert self._container is not None
        for packet in packets:
            self._container.mux_one(packet)

    def _mux_sound(self, end: float) -> None:
        if self._sound is None:
            return
        try:
            self._mux(self._sound.until(end))
        except (av.ArgumentError, av.InvalidDataError):
            # broken sound ends; the pictures go on
            self._sound.close()
            self._sound = None

    def _open(self, picture: np.ndarray) -> None:
        scale = min(1, _MAX_SIDE / max(picture.shape[:2]))
        self._size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        for copied in (True, False) if self._sound_of else ():
            try:
                self._start(copied)
                return
            except (av.FFmpegError, ValueError):
                self._close()
        self._sound_of = None
        self._start()

    def _start(self, copied: bool = False) -> None:
        container = self._container = av.open(str(self._temporary), "w", options={"movflags": "faststart"})
        rate = max(Fraction(self._fps).limit_denominator(1001), Fraction(1, 1001))
        self._stream = stream = container.add_stream("libx264", rate, options=dict(_OPTIONS))
        stream.width, stream.height = (side + side % 2 for side in self._size)
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", _TICK
        # what the conversion gives: ITU-R BT.601, 16 to 235
        stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1
        if self._sound_of:
            self._sound = _Sound(*self._sound_of, container, copied)
        container.start_encoding()

    def _close(self) -> None:
        if self._sound:
            self._sound.close()
            self._sound = None
        if self._container:
            container, self._container = self._container, None
            container.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise whatever can't be written as Python does, with the name of the file that is meant."""
        try:
            yield
        except Exception as error:
            self._failed = True
            if not isinstance(error, av.FFmpegError | OSError):
                raise
            number = error.errno or 0
            # FFmpeg's own errors have large numbers
            said = os.strerror(number) if number in errno.errorcode else error.strerror
            raise OSError(number, said, str(self.path)) from error


def to_planes(picture: np.ndarray) -> np.ndarray:
    """Return a picture uint8 (h, w, 3) RGB of even sides as YUV 4:2:0 of ITU-R BT.601, 16 to 235: uint8 (3 h / 2, w).

    A third of the time that FFmpeg's conversion takes.
    """
    height, width = picture.shape[:2]
    planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
    # OpenCV takes the colour of one pixel in four, and lines of one pixel would lose theirs: here it is their mean
    half = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    _, red, blue = cv2.split(cv2.LUT(cv2.cvtColor(half, cv2.COLOR_RGB2YCrCb), _NARROW))
    planes[height:] = np.stack([blue, red]).reshape(-1, width)
    return planes


class _Sound:
    """The sound of a video file as packets for another: copied, or made AAC.

    Raises:
        ValueError: there is none, or it is not to be copied.
    """

    def __init__(self, path: str, start: float, container: OutputContainer, copied: bool) -> None:
        self._source = open_container(path)
        self._start = start
        self._last: int | None = None
        self._next: av.Packet | None = None
        try:
            stream = self._source.streams.best("audio")
            # of a codec that FFmpeg does not know there is no context
            if not isinstance(stream, av.AudioStream) or stream.codec_context is None:
                raise ValueError("no sound")
            if copied and stream.codec_context.name not in _COPIED:
                raise ValueError("not to be copied")
            self._encoder: av.AudioStream | None = None
            if copied:
                self._target = container.add_stream_from_template(stream)
            else:
                rate = stream.rate if stream.rate in _RATES else 48_000
                layout = "mono" if stream.channels == 1 else "stereo"
                self._target = self._encoder = container.add_stream("aac", rate, layout=layout)
        except BaseException:
            self._source.close()
            raise
        self._packets = self._made(stream)

    def close(self) -> None:
        self._source.close()

    def until(self, end: float) -> Iterator[av.Packet]:
        """Yield the packets that begin before ``end``, in seconds after the first frame, and were not yielded yet."""
        while (packet := self._next or next(self._packets, None)) is not None:
            if (packet.dts or 0) * (packet.time_base or 0) >= end:
                self._next = packet
                return
            self._next = None
            yield packet

    def _made(self, stream: av.AudioStream) -> Iterator[av.Packet]:
        # what is broken has no sound from there on; ValueError: it changes its rate
        with suppress(av.FFmpegError, ValueError):
            for packet in self._source.demux(stream):
                for made in [packet] if self._encoder is None else self._encoded(packet, self._encoder):
                    if (
                        made.dts is None
                        or made.time_base is None
                        or (self._last is not None and made.dts <= self._last)
                    ):
                        continue
                    self._last = made.dts
                    made.stream = self._target
                    late = round(self._start / made.time_base)
                    made.pts, made.dts = (made.dts if made.pts is None else made.pts) - late, made.dts - late
                    yield made

    @staticmethod
    def _encoded(packet: av.Packet, encoder: av.AudioStream) -> Iterator[av.Packet]:
        with suppress(av.FFmpegError, ValueError):
            for frame in packet.decode():
                assert isinstance(frame, av.AudioFrame)
                yield from encoder.encode(frame)
        # the last packet of all is empty
        if not packet.size:
            yield from encoder.encode()
