"""Videos read and written: drawn ones of many kinds, broken ones, and files with names that nobody likes."""

import contextlib
import os
import resource
import socket
import struct
import threading
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from fer.errors import InputError
from fer.prediction.sources import Medium, fetch, find_media
from fer.prediction.video import Video
from fer.prediction.video_writer import VideoWriter, to_planes
from tests.prediction.clips import write_video
from tests.system.test_download import sends, server  # noqa: F401


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v")])
@pytest.mark.parametrize("every_n", [1, 3])
def test_frames_have_index_time_and_picture(tmp_path, suffix, codec, every_n):
    path = write_video(tmp_path / f"v{suffix}", codec=codec)
    with Video(Medium(str(path), "video"), every_n) as video:
        assert video.size == (64, 48) and video.fps == pytest.approx(10) and video.frames == 20
        frames = list(video)
    assert video.read == 20 and [frame.index for frame in frames] == list(range(0, 20, every_n))
    assert [frame.time for frame in frames] == pytest.approx([frame.index / 10 for frame in frames], abs=0.002)
    assert [frame.picture.mean() for frame in frames] == pytest.approx([10 * f.index for f in frames], abs=4)
    assert frames[0].picture.shape == (48, 64, 3) and frames[0].picture.dtype == np.uint8


def film(
    path,
    pictures,
    codec="libx264",
    pix_fmt="yuv420p",
    fps=25,
    times=None,
    sound=None,
    turned=None,
    format=None,
    **options,
):
    """Write a film with PyAV; ``times`` in ticks of 1/1000 s where they are not even, ``sound`` a codec of a tone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, fps, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        tick = Fraction(1, 1000) if times else 1 / Fraction(fps)
        stream.codec_context.time_base = tick
        if turned is not None:
            stream.set_display_rotation(**turned)
        rate = 48_000 if sound == "libopus" else 44_100
        tone = container.add_stream(sound, rate, layout="mono") if sound else None
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = times[index] if times else index, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone:
            samples = np.sin(np.arange(rate * len(pictures) // fps) * 2 * np.pi * 440 / rate)
            frame = av.AudioFrame.from_ndarray((8000 * samples).astype(np.int16)[None], "s16", "mono")
            frame.sample_rate, frame.pts = rate, 0
            container.mux(tone.encode(frame))
            container.mux(tone.encode())
    return path


def greys(count, size=(64, 48)):
    """Frame i has the grey level 10 * i and a red corner at the top left."""
    pictures = [np.full((size[1], size[0], 3), 10 * index, np.uint8) for index in range(count)]
    for picture in pictures:
        picture[:16, :16] = (220, 20, 20)
    return pictures


def open_film(path):
    return Video(Medium(str(path), "video"))


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "options"),
    [
        (".mp4", "libx265", "yuv420p10le", {"x265-params": "log-level=none"}), (".mkv", "libvpx-vp9", "yuv420p", {}),
        (".mp4", "libsvtav1", "yuv420p", {"preset": "12"}), (".mov", "prores_ks", "yuv422p10le", {}),
        (".m2ts", "libx264", "yuv420p", {}), (".vob", "mpeg2video", "yuv420p", {}),
        (".gif", "gif", "rgb8", {}), (".wmv", "wmv2", "yuv420p", {}), (".flv", "flv", "yuv420p", {}),
    ],
)  # fmt: skip
def test_codecs_and_containers(tmp_path, suffix, codec, pix_fmt, options):
    pictures = greys(20)
    path = film(tmp_path / f"v{suffix}", pictures, codec, pix_fmt, **options)
    # without its name, too
    bare = path.rename(tmp_path / "film")
    assert find_media(str(bare)) == [Medium(str(bare), "video")]
    with open_film(bare) as video:
        frames = list(video)
    assert video.size == (64, 48) and video.trouble() == ""
    # GIF counts in 1/100 s, and FFmpeg guesses the times within a pack of MPEG-2
    near = {".gif": 0.011, ".vob": 0.041}.get(suffix, 0.001)
    assert [frame.time for frame in frames] == pytest.approx([index / 25 for index in range(20)], abs=near)
    assert [frame.picture[24:, 24:].mean() for frame in frames] == pytest.approx([10 * i for i in range(20)], abs=14)
    assert frames[-1].picture[4, 4].tolist() == pytest.approx([220, 20, 20], abs=45)


@pytest.mark.parametrize(
    ("turned", "corner"),
    [
        ({"degrees": 0}, (0, 0)), ({"degrees": 90}, (-1, 0)), ({"degrees": 180}, (-1, -1)), ({"degrees": -90}, (0, -1)),
        ({"degrees": 0, "hflip": True}, (0, -1)), ({"degrees": 0, "vflip": True}, (-1, 0)),
    ],
)  # fmt: skip
def test_films_of_turned_phones_stand_upright(tmp_path, turned, corner):
    path = film(tmp_path / "v.mp4", greys(3), turned=turned)
    with open_film(path) as video:
        frames = list(video)
    assert video.size == ((48, 64) if turned["degrees"] in (90, -90) else (64, 48))
    assert frames[0].picture.shape[1::-1] == video.size
    red = [
        (row, column) for row in (0, -1) for column in (0, -1)
        if frames[0].picture[row, column, 0] > 150 and frames[0].picture[row, column, 1] < 80
    ]  # fmt: skip
    assert red == [corner]


def test_pixels_that_are_not_square_become_so(tmp_path):
    # as of a DV camera: 64 x 48 stored, each pixel twice as wide as high
    path = film(tmp_path / "v.mkv", greys(3), **{"x264-params": "sar=2/1"})
    with open_film(path) as video:
        assert video.size == (128, 48) and next(iter(video)).picture.shape == (48, 128, 3)


def test_uneven_times_are_kept_in_the_rows_and_in_what_is_written(tmp_path):
    times = [0, 33, 66, 140, 141, 900, 1000, 1001, 2500]
    path = film(tmp_path / "v.mkv", greys(9), fps=30, times=times)
    with open_film(path) as video, VideoWriter(tmp_path / "out.mp4", video.fps or 25) as writer:
        frames = list(video)
        for frame in frames:
            writer.write(frame.picture, frame.time)
    assert [frame.time for frame in frames] == [time / 1000 for time in times] and video.trouble() == ""
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([t / 1000 for t in times], abs=1e-6)


@pytest.mark.parametrize("fps", [240, Fraction(24_000, 1001)])
def test_rates_are_kept(tmp_path, fps):
    path = film(tmp_path / "v.mp4", greys(24), fps=fps)
    with open_film(path) as video, VideoWriter(tmp_path / "out.mp4", video.fps) as writer:
        assert video.fps == pytest.approx(float(fps))
        for frame in video:
            writer.write(frame.picture, frame.time)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == fps and stream.frames == 24


def test_interlaced_frames_have_no_combs(tmp_path):
    # a white bar that goes to the right: the odd lines are of 1/50 s later
    pictures = [np.zeros((96, 128, 3), np.uint8) for _ in range(9)]
    for index, picture in enumerate(pictures):
        picture[0::2, 8 * index + 8 : 8 * index + 40] = 255
        picture[1::2, 8 * index + 16 : 8 * index + 48] = 255
    combed = [np.abs(np.diff(picture[..., 0].astype(int), axis=0)).mean() for picture in pictures]
    path = film(tmp_path / "v.mp4", pictures, crf="5", flags="+ildct+ilme", **{"x264-params": "tff=1"})
    with open_film(path) as video:
        frames = list(video)
    assert len(frames) == 9 and [frame.time for frame in frames] == [index / 25 for index in range(9)]
    left = [np.abs(np.diff(frame.picture[..., 0].astype(int), axis=0)).mean() for frame in frames]
    assert min(combed) > 20 and max(left) < 8
    # each is of its own moment: the bar's first line, 8 pixels further
    edges = [int(np.argmax(frame.picture[48, :, 0] > 127)) for frame in frames]
    assert np.diff(edges).tolist() == pytest.approx([8] * 8, abs=2)


@pytest.mark.parametrize(
    ("suffix", "sound", "kept"),
    [(".mp4", "aac", "aac"), (".ts", "aac", "aac"), (".mkv", "libopus", "opus"), (".avi", "pcm_s16le", "aac"),
     (".mov", "pcm_s16le", "aac"), (".mp4", None, None)],
)  # fmt: skip
def test_sound_is_taken_along(tmp_path, suffix, sound, kept):
    path = film(tmp_path / f"v{suffix}", greys(25), "mpeg4" if suffix == ".avi" else "libx264", sound=sound)
    with open_film(path) as video, VideoWriter(tmp_path / "out.mp4", 25, (str(path), video.start)) as writer:
        for frame in video:
            writer.write(frame.picture, frame.time)
    with av.open(str(tmp_path / "out.mp4")) as container:
        video = container.streams.video[0]
        # what browsers play
        assert (video.codec_context.name, video.codec_context.pix_fmt, video.frames) == ("h264", "yuv420p", 25)
        names = [stream.codec_context.name for stream in container.streams.audio]
        assert names == ([kept] if kept else [])
        if kept:
            heard = [frame for frame in container.decode(audio=0)]
            samples = np.concatenate([frame.to_ndarray()[0].astype(float) for frame in heard])
            assert len(samples) / heard[0].sample_rate == pytest.approx(1, abs=0.1) and heard[0].time < 0.05
            middle = samples[len(samples) // 4 : len(samples) // 2]
            pitch = np.argmax(np.abs(np.fft.rfft(middle))) * heard[0].sample_rate / len(middle)
            assert pitch == pytest.approx(440, abs=10)
    # its table before its pictures, so that a page can begin to play it
    content = (tmp_path / "out.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_where_no_gpu_decodes_the_processor_does(tmp_path):
    path = film(tmp_path / "v.mp4", greys(20), turned={"degrees": 90})
    with open_film(path) as video, Video(Medium(str(path), "video"), gpu=True) as on_gpu:
        frames, again = list(video), list(on_gpu)
    assert len(again) == 20 and on_gpu.size == video.size
    # of a GPU rounded otherwise
    differences = [np.abs(a.picture.astype(int) - b.picture).max() for a, b in zip(frames, again, strict=True)]
    assert max(differences) <= 4


def test_sound_ends_with_the_frames_where_an_interrupt_ends_the_writing(tmp_path):
    path = film(tmp_path / "v.mp4", greys(25) * 4, sound="aac")
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 25, (str(path), 0.0)) as writer:
        for index, picture in enumerate(greys(25)):
            writer.write(picture, index / 25)
        raise KeyboardInterrupt
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].frames == 25 and container.duration == pytest.approx(1e6, abs=1e5)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".avi", "mjpeg")])
def test_a_film_that_is_damaged_in_its_middle_is_read_to_its_end_and_says_so(tmp_path, suffix, codec):
    noise = [*np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)]
    path = film(tmp_path / f"v{suffix}", noise, codec, "yuv420p" if codec == "libx264" else "yuvj420p")
    with open_film(path) as video:
        assert len(list(video)) == 40 and video.trouble() == ""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    with open_film(path) as video:
        frames = list(video)
    assert len(frames) > 20 and frames[-1].time > 1.4
    assert video.trouble().startswith("damaged: " if codec == "libx264" else "ends after 36 of 40 ")


def test_a_song_with_a_cover_is_no_video(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        tone = container.add_stream("aac", 44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.int16), "s16", "mono")
        frame.sample_rate = 44_100
        container.mux(tone.encode(frame))
        container.mux(tone.encode())
    with pytest.raises(InputError, match="^not a readable video: it has no picture$"):
        open_film(tmp_path / "song.mp4")


@pytest.mark.parametrize("name", ["12:30 p.m.mp4", "http:x.mp4", "100%03d.mp4", "new\nline 喜び.mp4", "-i.mp4"])
def test_videos_with_names_that_ffmpeg_could_misread(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "v.mp4").rename(name)
    with Video(*find_media(name)) as video:
        assert len(list(video)) == 20


def test_frames_are_rgb(tmp_path):
    with VideoWriter(tmp_path / "red.mp4", 5) as writer:
        for _ in range(3):
            writer.write(np.full((48, 64, 3), (200, 30, 30), np.uint8))
    with Video(Medium(str(tmp_path / "red.mp4"), "video")) as video:
        assert next(iter(video)).picture.mean(axis=(0, 1)) == pytest.approx([200, 30, 30], abs=6)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (46, 30), (48, 64)])
def test_colours_are_written_as_bt601_says_and_each_pixel_counts(height, width):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    planes = to_planes(picture)
    # ITU-R BT.601-7, 2.5.3, at 8 bits: luma of each pixel, colour of the mean of four
    means = picture.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    luma = 16 + picture @ np.array((0.299, 0.587, 0.114)) * 219 / 255
    mean_luma = means @ np.array((0.299, 0.587, 0.114))
    blue, red = (128 + (means[..., c] - mean_luma) / wide * 224 / 255 for c, wide in ((2, 1.772), (0, 1.402)))
    assert planes.dtype == np.uint8 and np.abs(planes[:height] - luma).max() <= 1
    assert np.abs(planes[height:].ravel() - np.concatenate([blue.ravel(), red.ravel()])).max() < 2


def test_a_video_is_left_in_the_middle_without_reading_the_rest(tmp_path):
    path = write_video(tmp_path / "long.avi", frames=25, codec="MJPG")
    with Video(Medium(str(path), "video")) as video:
        next(iter(video))
    assert not video._thread.is_alive() and video.read <= 1 + 8 + 1 + 1


def test_broken_videos_say_why(tmp_path):
    whole = write_video(tmp_path / "v.mp4").read_bytes()
    cases = {
        "zero.mp4": (b"", "zero bytes"),
        "text.mp4": (b"hello" * 1000, "not a readable video"),
        # FFmpeg would open the file that this names, wherever it lies
        "list.mp4": (f"ffconcat version 1.0\nfile '{tmp_path}/v.mp4'\n".encode(), "not a readable video"),
        "half.mp4": (whole[: len(whole) // 2], "not a readable video"),  # its table of contents is at the end
    }
    for name, (content, why) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"^{why}$"):
            Video(Medium(str(tmp_path / name), "video"))
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, why in (("pipe.mp4", "not a file"), ("gone.mp4", "missing file")):
        with pytest.raises(InputError, match=why):
            Video(Medium(str(tmp_path / name), "video"))


@pytest.mark.parametrize("source", ["99", "rtsp://127.0.0.1:9/x", "http://127.0.0.1:9/x.mjpg"])
def test_a_camera_or_address_that_does_not_answer_is_one_line(source):
    with pytest.raises(InputError, match=f"source={source}: no such camera or address answers"):
        Video(Medium(source, "live"))


@pytest.fixture
def pouring(tmp_path):
    """Return a function that serves bytes at a tcp:// address, and then says nothing until the test ends."""
    ended, sockets = threading.Event(), []

    def serve(content):
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def answer():
            with contextlib.suppress(OSError), listening.accept()[0] as to:
                to.sendall(content)
                ended.wait(20)

        threading.Thread(target=answer, daemon=True).start()
        return f"tcp://127.0.0.1:{listening.getsockname()[1]}"

    yield serve
    ended.set()
    for each in sockets:
        each.close()


def test_a_stream_that_falls_silent_keeps_its_frames_and_says_so(tmp_path, pouring, monkeypatch):
    monkeypatch.setattr("fer.prediction.video.READ_SECONDS", 1.0)
    noise = [*np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3), np.uint8)]
    address = pouring(film(tmp_path / "v.ts", noise, tune="zerolatency").read_bytes())
    with Video(Medium(address, "live")) as video:
        frames = list(video)
    assert 45 <= len(frames) <= 50 and video.size == (64, 48) and video.frames is None
    # the time is that of the clock on the wall
    assert np.diff([frame.time for frame in frames]).min() >= 0
    assert video.trouble() == "does not answer any more"


@pytest.mark.parametrize("scheme", ["tcp", "rtsp", "http", "rtmp"])
def test_an_address_that_says_nothing_is_given_up(pouring, monkeypatch, scheme):
    monkeypatch.setattr("fer.prediction.video.OPEN_SECONDS", 0.5)
    address = pouring(b"").replace("tcp", scheme) + "/x"
    start = time.monotonic()
    with pytest.raises(InputError, match=f"^source={address}: no such camera or address answers$"):
        Video(Medium(address, "live"))
    assert time.monotonic() - start < 5


def test_a_camera_of_pictures_over_http(server):  # noqa: F811
    parts = b"".join(
        b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
        for jpeg in (cv2.imencode(".jpg", np.full((48, 64, 3), 20 * i, np.uint8))[1].tobytes() for i in range(10))
    )
    place = server(sends(parts, Content_Type="multipart/x-mixed-replace; boundary=x"))
    (medium,) = find_media(f"http://{place}/video")
    with Video(medium) as video:
        assert [round(frame.picture.mean() / 20) for frame in video] == list(range(10))


def test_a_list_of_a_stream_s_parts(tmp_path, server):  # noqa: F811
    part = film(tmp_path / "part.ts", greys(20)).read_bytes()
    listed = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.8,\npart.ts\n#EXT-X-ENDLIST\n"

    def answer(handler):
        if handler.path == "/list.m3u8":
            sends(listed, Content_Type="application/vnd.apple.mpegurl")(handler)
        else:
            sends(part, Content_Type="video/mp2t")(handler)

    (medium,) = find_media(f"http://{server(answer)}/list.m3u8")
    medium = fetch(medium, tmp_path)
    with Video(medium) as video:
        assert medium.kind == "live" and len(list(video)) == 20


def test_an_address_never_leads_to_a_file_of_this_machine(tmp_path, server):  # noqa: F811
    film(tmp_path / "secret.ts", greys(20))
    listed = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n"
    place = server(sends(listed.encode(), Content_Type="application/vnd.apple.mpegurl"))
    with pytest.raises(InputError, match="no such camera or address answers"):
        Video(Medium(f"http://{place}/list.m3u8", "live"))


def test_a_password_in_an_address_is_not_written_down():
    with pytest.raises(InputError, match=r"^source=rtsp://127\.0\.0\.1:9/x: no such camera or address answers$"):
        Video(Medium("rtsp://user:secret@127.0.0.1:9/x", "live"))
    assert Medium("a://b@c.mp4", "video").shown == "a://b@c.mp4"


def test_a_written_video_has_its_name_only_when_it_is_complete(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        assert list(tmp_path.iterdir()) == []
        writer.write(np.zeros((48, 64, 3), np.uint8))
        assert [path.name for path in tmp_path.iterdir()] == [".v.tmp.mp4"]
        writer.write(np.zeros((24, 32, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 2
    with VideoWriter(tmp_path / "none.mp4", 25):
        pass
    assert not (tmp_path / "none.mp4").exists()


def packed(path, times):
    """Write a WebM file whose frames stand at ``times`` in milliseconds, without a rate, as browsers record."""
    # a lossy WebP is a RIFF header of 20 bytes and a key frame of VP8
    picture = cv2.imencode(".webp", np.full((48, 64, 3), 90, np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()[
        20:
    ]

    def element(ident, content):
        return bytes.fromhex(ident) + (len(content) | 1 << 56).to_bytes(8, "big") + content

    def number(ident, value):
        return element(ident, value.to_bytes(4, "big"))

    header = number("4286", 1) + number("42F7", 1) + number("42F2", 4) + number("42F3", 8)
    header += element("4282", b"webm") + number("4287", 4) + number("4285", 2)
    size = number("B0", 64) + number("BA", 48)
    track = number("D7", 1) + number("73C5", 1) + number("83", 1) + element("86", b"V_VP8") + element("E0", size)
    info = number("2AD7B1", 1_000_000) + element("4489", struct.pack(">d", times[-1] + times[1] - times[0]))
    info += element("4D80", b"test") + element("5741", b"test")
    blocks = b"".join(element("A3", b"\x81" + time.to_bytes(2, "big") + b"\x80" + picture) for time in times)
    segment = element("1549A966", info) + element("1654AE6B", element("AE", track))
    segment += element("1F43B675", number("E7", 0) + blocks)
    path.write_bytes(element("1A45DFA3", header) + element("18538067", segment))
    return path


def read_out(path):
    with Video(Medium(str(path), "video")) as video:
        return video, [frame.time for frame in video]


def test_a_video_whose_frames_are_not_evenly_spaced_does_not_break_off(tmp_path):
    # a frame is 40 ms, but most are not there
    times = [0, 40, 80, 120, 160, 200, 600, 640, 1000, 1040, 1400, 1800]
    video, found = read_out(packed(tmp_path / "v.webm", times))
    assert found == pytest.approx([time / 1000 for time in times])
    assert not video.breaks_off()


def test_a_rate_of_a_thousand_is_no_rate(tmp_path):
    # as Chromium's MediaRecorder: FFmpeg finds no common rate and gives that of the clock
    times = [33 * index + index * index % 13 for index in range(60)]
    video, found = read_out(packed(tmp_path / "v.webm", times))
    assert cv2.VideoCapture(str(tmp_path / "v.webm")).get(cv2.CAP_PROP_FPS) == 1000
    assert found == pytest.approx([time / 1000 for time in times])
    assert video.fps is None and video.frames is None and not video.breaks_off()


def test_a_truncated_video_breaks_off(tmp_path):
    path = write_video(tmp_path / "v.avi", frames=25, codec="MJPG")
    assert not read_out(path)[0].breaks_off()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert read_out(path)[0].breaks_off()


def test_a_full_disk_keeps_the_video_written_before(tmp_path):
    path, noise = tmp_path / "v.mp4", np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3), np.uint8)
    path.write_bytes(b"earlier")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error, VideoWriter(path, 25) as writer:
            for picture in noise:
                writer.write(picture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.filename == str(path) and path.read_bytes() == b"earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(("size", "written"), [((9000, 60), (8192, 56)), ((48, 10_000), (40, 8192))])
def test_a_picture_wider_or_higher_than_browsers_play_is_written_smaller(tmp_path, size, written):
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        writer.write(np.zeros((size[1], size[0], 3), np.uint8))
    with Video(Medium(str(tmp_path / "v.mp4"), "video")) as video:
        # an odd side gets a pixel more: 9000 x 60 becomes 8192 x 55
        assert len(list(video)) == 1 and video.size == written


def test_one_frame_in_minutes_is_written(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25 / 10_000) as writer:
        for _ in range(3):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    assert len(read_out(tmp_path / "v.mp4")[1]) == 3
