"""What a source means: folders, globs, links, addresses, and files that their first bytes name."""

import os

import cv2
import numpy as np
import pytest

from fer.errors import InputError
from fer.prediction.sources import Medium, find_media


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


@pytest.mark.parametrize("source", ["nothing.jpg", "empty", "*.png", "file:///etc/passwd"])
def test_nothing_found_is_one_line(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such photo, video, folder") as error:
        find_media(source)
    assert "\n" not in str(error.value)
