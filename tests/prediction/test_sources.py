"""What a source means, and videos: drawn ones, broken ones, and files with names that nobody likes."""

import os
import resource
import struct

import cv2
import numpy as np
import pytest

from fer.errors import InputError
from fer.prediction.sources import Medium, find_media
from fer.prediction.video import Video, VideoWriter


def write_photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((30, 40, 3), 90, np.uint8))[1])
    return path


def write_video(path, frames=20, fps=10.0, size=(64, 48), codec="mp4v"):
    """Frame i has the grey level 10 * i, which survives the compression within a few levels."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 * index, np.uint8))
    writer.release()
    return path


def found(source, out=None):
    return [(os.path.relpath(m.path, source), m.kind, bool(m.error)) for m in find_media(str(source), out)]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    for name in ("b.JPG", "a/x.png", "a/deep/y.webp"):
        write_photo(folder / name)
    (folder / "notes.txt").write_text("no photo")
    write_video(folder / "a/clip.mp4")
    return folder


def test_a_folder_is_its_photos_and_videos_with_all_below(folder):
    expected = [("a/clip.mp4", "video"), ("a/deep/y.webp", "photo"), ("a/x.png", "photo"), ("b.JPG", "photo")]
    assert found(folder) == [(*pair, False) for pair in expected]


def test_links_out_of_the_folder_are_reported_and_not_followed(folder, tmp_path):
    secret = write_photo(tmp_path / "elsewhere/secret.png")
    (folder / "out.png").symlink_to(secret)
    (folder / "outside").symlink_to(secret.parent)
    (folder / "within.png").symlink_to(folder / "a/x.png")
    (folder / "loop").symlink_to(folder)
    assert [row for row in found(folder) if row[2]] == [("out.png", "photo", True), ("outside", "photo", True)]
    assert ("within.png", "photo", False) in found(folder)
    listed = find_media(f"{folder}/*.png")
    assert [(os.path.basename(m.path), bool(m.error)) for m in listed] == [("out.png", True), ("within.png", False)]
    # a link that the user names is meant, and so is a folder that is one
    assert find_media(str(folder / "out.png")) == [Medium(str(folder / "out.png"), "photo")]
    (tmp_path / "alias").symlink_to(folder)
    assert [m.error for m in find_media(str(tmp_path / "alias")) if "x.png" in m.path] == [""]


def test_results_in_the_folder_are_not_read_again(folder):
    before = found(folder)
    write_photo(folder / "predictions/photos/b.png")
    write_video(folder / "predictions/clip.mp4")
    assert found(folder, folder / "predictions") == before
    assert [os.path.basename(m.path) for m in find_media(f"{folder}/**/*.png", folder / "predictions")] == ["x.png"]
    with pytest.raises(InputError, match="lies in out="):
        find_media(str(folder / "predictions/photos"), folder / "predictions")


@pytest.mark.parametrize(
    "name", ["new\nline.png", "喜び 😀.png", "-rf;$(x).png", "a,b\"c'.png", os.fsdecode(b"\xff\xfe.png")]
)
def test_names_that_nobody_likes(tmp_path, name):
    write_photo(tmp_path / name)
    assert find_media(str(tmp_path)) == [Medium(str(tmp_path / name), "photo")]
    assert find_media(str(tmp_path / name)) == [Medium(str(tmp_path / name), "photo")]


@pytest.mark.parametrize("source", ["0", "12", "rtsp://camera/1", "RTSPS://u:p@h/x", "http://localhost:1/mjpeg"])
def test_cameras_and_addresses(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_media(source, "predictions") == [Medium(source, "live")]


def test_files_win_over_cameras_and_contents_over_suffixes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "p.png").rename("0")
    write_video(tmp_path / "v.avi", codec="MJPG").rename("film")
    assert find_media("0") == [Medium("0", "photo")] and find_media("film") == [Medium("film", "video")]
    # OpenCV raises an error for OpenEXR, which its wheel has switched off
    (tmp_path / "x.exr").write_bytes(b"v/1\x01" + bytes(range(256)))
    assert find_media("x.exr") == [Medium("x.exr", "photo")]


@pytest.mark.parametrize("source", ["nothing.jpg", "empty", "*.png", "file:///etc/passwd"])
def test_nothing_found_is_one_line(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such photo, video, folder") as error:
        find_media(source)
    assert "\n" not in str(error.value)


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
        with pytest.raises(OSError, match="No space left") as error, VideoWriter(path, 25) as writer:
            for picture in noise:
                writer.write(picture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.filename == str(path) and path.read_bytes() == b"earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(("size", "written"), [((9000, 60), (8190, 54)), ((48, 10_000), (39, 8190))])
def test_a_picture_wider_or_higher_than_mpeg_4_has_is_written_smaller(tmp_path, size, written):
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        writer.write(np.zeros((size[1], size[0], 3), np.uint8))
    with Video(Medium(str(tmp_path / "v.mp4"), "video")) as video:
        # an odd side loses a pixel
        assert len(list(video)) == 1 and video.size == (written[0] // 2 * 2, written[1] // 2 * 2)


def test_one_frame_in_minutes_is_written(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25 / 10_000) as writer:
        for _ in range(3):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    assert len(read_out(tmp_path / "v.mp4")[1]) == 3
