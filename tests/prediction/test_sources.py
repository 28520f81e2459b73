"""What a source means: folders, globs, links, addresses, and files that their first bytes name."""

import os
from collections import Counter

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from fer.data.photos import read_photo
from fer.data.source import PhotoLimits
from fer.errors import InputError
from fer.prediction.sources import Medium, fetch, find_media
from fer.prediction.video import Video
from tests.prediction.clips import write_video
from tests.system.test_download import sends, server  # noqa: F401


def write_photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((30, 40, 3), 90, np.uint8))[1])
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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jfif", "photo"), ("a.jpe", "photo"), ("a.png", "photo"), ("a.bmp", "photo"), ("a.tif", "photo"),
        ("a.webp", "photo"), ("a.jp2", "photo"), ("a.heic", "photo"), ("a.avif", "photo"), ("still.gif", "photo"),
        ("moving.gif", "video"), ("a.mp4", "video"), ("a.mov", "video"), ("a.MTS", "video"), ("a.ts", "video"),
        ("a.mpg", "video"), ("a.mkv", "video"), ("a.avi", "video"), ("a.flv", "video"), ("a.wmv", "video"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [None, "", ".mp4"])
def test_the_first_bytes_say_what_a_file_is_whatever_its_name(tmp_path, name, kind, suffix):
    path = tmp_path / name
    if kind == "photo":
        picture = Image.fromarray(np.full((30, 40, 3), 90, np.uint8))
        register_heif_opener()
        formats = {".jfif": "JPEG", ".jpe": "JPEG", ".jp2": "JPEG2000"}
        picture.save(path, formats.get(path.suffix))
    elif name == "moving.gif":
        frames = [Image.fromarray(np.full((30, 40), grey, np.uint8)) for grey in (0, 90, 180)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        codec = {".flv": "flv", ".wmv": "wmv2", ".avi": "mjpeg", ".mpg": "mpeg2video"}.get(path.suffix, "libx264")
        # of camcorders: each packet with the time before it
        options = {"mpegts_m2ts_mode": "1"} if path.suffix == ".MTS" else {}
        with av.open(str(path), "w", format="mpegts" if path.suffix in (".MTS", ".ts") else None, options=options) as c:
            stream = c.add_stream(codec, 25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for picture in np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8):
                c.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            c.mux(stream.encode())
    if suffix is not None:
        path = path.rename(tmp_path / f"renamed{suffix}")
    assert find_media(str(path)) == [Medium(str(path), kind)]
    assert find_media(str(tmp_path)) == [Medium(str(path), kind)]
    if kind == "photo":
        assert not isinstance(read_photo(str(path), "rgb", PhotoLimits()), str)
    else:
        with Video(Medium(str(path), "video")) as video:
            assert len(list(video)) == 3


def test_what_is_left_aside_is_counted(folder):
    write_photo(folder / "._b.JPG")
    (folder / "a/no suffix").write_bytes(b"nothing known")
    (folder / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0")
    (folder / "zero.JPG").touch()
    (folder / "broken.mov").write_text("no film")
    os.mkfifo(folder / "pipe")
    aside = Counter()
    names = [os.path.relpath(medium.path, folder) for medium in find_media(str(folder), left_aside=aside)]
    # what is called a photo or a video and is none is said, not left aside
    assert names == ["a/clip.mp4", "a/deep/y.webp", "a/x.png", "b.JPG", "broken.mov", "zero.JPG"]
    assert aside == {"._ twin": 1, ".txt": 1, ".m4a": 1, "file without suffix": 2}
    with pytest.raises(InputError, match=r"no such photo, .*; left aside: 1 \.txt$"):
        find_media(f"{folder}/*.txt")


@pytest.mark.parametrize("source", ["nothing.jpg", "empty", "*.png", "file:///etc/passwd"])
def test_nothing_found_is_one_line(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such photo, video, folder") as error:
        find_media(source)
    assert "\n" not in str(error.value)


def test_an_address_is_a_photo_a_video_or_a_stream(folder, tmp_path, server):  # noqa: F811
    for number, (path, kind, said) in enumerate(
        [
            (folder / "b.JPG", "photo", "application/octet-stream"), (folder / "a/clip.mp4", "video", "text/plain"),
            (folder / "b.JPG", "live", "multipart/x-mixed-replace; boundary=x"),
            (folder / "b.JPG", "live", "application/vnd.apple.mpegurl"),
        ]
    ):  # fmt: skip
        place = server(sends(path.read_bytes(), Content_Type=said))
        (tmp_path / str(number)).mkdir()
        (medium,) = find_media(f"http://me:secret@{place}/x?y")
        found = fetch(medium, tmp_path / str(number))
        assert found.kind == kind
        if kind != "live":
            assert open(found.file, "rb").read() == path.read_bytes() and found.shown == f"http://{place}/x?y"
    place = server(sends(b"<html>no photo</html>", Content_Type="text/html"))
    with pytest.raises(InputError, match=rf"^source=http://{place}/: neither a photo nor a video \(text/html\)$"):
        fetch(Medium(f"http://{place}/", "live"), tmp_path)
    # what is no web address stays as it is
    assert fetch(Medium("rtsp://127.0.0.1:9/x", "live"), tmp_path) == Medium("rtsp://127.0.0.1:9/x", "live")
