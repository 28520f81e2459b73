"""predict.py from files to rows, pictures and videos: drawn photos and videos, and everything that can be wrong."""

import json
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pillow_heif import register_heif_opener

from fer.api import predict
from fer.config.checks import check_predict
from fer.data.photos import read_photo
from fer.data.source import PhotoLimits
from fer.data.synthetic.face import Face, draw_face
from fer.errors import InputError
from fer.labels import CLASSES, colors
from fer.prediction.sources import Medium
from fer.prediction.table import Rows
from fer.prediction.video import Video
from fer.training.run import train
from tests.conftest import ROOT, train_config, write_tiny
from tests.prediction.test_video import film
from tests.system.test_download import sends, server  # noqa: F401
from tests.system.test_files import files_end_at

HAAR = {"name": "haar", "model": None, "min_size": 40}


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prediction")
    file = write_tiny(folder / "tiny.h5", {"train": 70, "val": 40})
    train(train_config(file, **{"trainer.max_epochs": 1}), folder / "run")
    return str(folder / "run/checkpoints/best.ckpt")


@pytest.fixture
def keys(ckpt, tmp_path):
    return {
        "source": None, "ckpt": ckpt, "out": str(tmp_path / "out"), "min_confidence": None, "draw": True, "show": False,
        "anonymize": False, "explain": False, "layer": None, "every_n": 1, "search_every": 1,
        "smooth": 0.0, "batch": 4, "device": "cpu", "margin": None, "tta": False, "strict": False, "classes": None,
        "embed": False,
    }  # fmt: skip


def drawn(width=320, height=240, centre=(150, 120), unit=50):
    """Return a picture uint8 RGB with one frontal face, and its centre."""
    picture = np.full((height, width, 3), (160, 170, 150), np.uint8)
    draw_face(picture, Face(centre, unit, (0.0, 0.0, 0.0), {12: (1.0, 1.0)}), np.random.default_rng(0))
    return picture[:, :, ::-1]


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture[:, :, ::-1])[1])


def write_video(path, frames, size=(320, 240), fps=10):
    """A face that moves two pixels a frame to the right and back."""
    face = drawn(240, 240, (120, 120))[:, :, ::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    for index in range(frames):
        frame = np.full((size[1], size[0], 3), (160, 170, 150), np.uint8)
        x = abs((2 * index + 60) % 120 - 60)
        frame[:240, x : x + 240] = face
        writer.write(frame)
    writer.release()


def bomb():
    """A PNG of a few kB that says it has 2.5 thousand million pixels."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    data = part(b"IDAT", zlib.compress(bytes(50_001) * 100))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + data + part(b"IEND", b"")


def read(out):
    rows = [json.loads(line) for line in Path(out, "predictions.jsonl").read_text().splitlines()]
    table = pd.read_csv(Path(out, "predictions.csv"), encoding_errors="surrogateescape")
    # the two files say the same
    assert len(table) == len(rows) and list(table.columns) == list(rows[0])
    for name in table.columns:
        given = [row[name] for row in rows]
        same = [a == b or (a is None and pd.isna(b)) for a, b in zip(given, table[name], strict=True)]
        assert all(same), name
    return rows


def test_a_folder_of_everything(ckpt, run, tmp_path):
    source = tmp_path / "in"
    write(source / "a/face.png", drawn())
    write(source / "b/face.png", drawn())
    write(source / "new\nline 喜び.png", drawn())
    write(source / "nobody.png", np.full((100, 100, 3), 90, np.uint8))
    write_video(source / "clip.mp4", 6)
    (tmp_path / "secret.png").write_bytes((source / "nobody.png").read_bytes())
    (source / "link.png").symlink_to(tmp_path / "secret.png")
    for name, content in {"zero.jpg": b"", "zero.mp4": b"", "text.jpg": b"no photo", "bomb.png": bomb()}.items():
        (source / name).write_bytes(content)
    done = run("predict.py", f"source={source}", f"ckpt={ckpt}", "device=cpu", cwd=tmp_path, code=1)
    # named after the network and the source
    out = tmp_path / f"predictions/{Path(ckpt).stem}-in"
    rows = read(out)
    errors = {Path(row["file"]).name: row["error"] for row in rows if row["error"]}
    link = errors.pop("link.png")
    assert link.startswith("a link that leads out of the folder")
    assert errors == {
        "zero.jpg": "zero bytes", "zero.mp4": "zero bytes", "text.jpg": "not an image", "bomb.png": "too many pixels",
    }  # fmt: skip
    # one row a face, every file has a row
    named = [row for row in rows if row["label"]]
    assert {row["file"] for row in rows} == {str(path) for path in source.rglob("*.*")}
    assert len(named) == 3 + 6 and sum(row["frame"] is not None for row in named) == 6
    assert [Path(row["file"]).name for row in rows if not row["error"] and not row["label"]] == ["nobody.png"]
    for row in named:
        probabilities = [row[f"p_{name}"] for name in CLASSES]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["label"] == CLASSES[int(np.argmax(probabilities))]
        assert row["confidence"] == pytest.approx(max(probabilities), abs=1e-4)
    # the drawn face's centre is in the box, which is no more than twice as large
    row = named[0]
    assert abs(row["x"] + row["width"] / 2 - 150) < 15 and abs(row["y"] + row["height"] / 2 - 120) < 25
    assert 70 < row["height"] < 220
    assert {path.name for path in out.iterdir()} == {"predictions.csv", "predictions.jsonl", "photos", "clip.mp4"}
    assert {path.name for path in (out / "photos").iterdir()} == {
        "face.jpg", "face_2.jpg", "new_line 喜び.jpg", "nobody.jpg"
    }  # fmt: skip
    where = re.escape(str(out.relative_to(tmp_path)))
    assert re.fullmatch(
        rf"faces: .+\n10 files, 9 faces, 1 without a face, 5 not read, [\d.,]+ frames/s: {where}/predictions.csv\n",
        done.stdout,
    ), done.stdout
    # of broken files nothing but the bars is said, by no library
    assert "moov" not in done.stderr and "WARN" not in done.stderr and "ERROR" not in done.stderr


def test_a_video_keeps_its_face_and_comes_back_annotated(keys, tmp_path):
    write_video(tmp_path / "clip.mp4", 23)
    assert predict(keys | {"source": str(tmp_path / "clip.mp4")}, HAAR) == 0
    rows = read(tmp_path / "out")
    assert [row["frame"] for row in rows] == list(range(23)) and {row["track"] for row in rows} == {1}
    assert [row["time"] for row in rows] == pytest.approx([index / 10 for index in range(23)], abs=0.002)
    with Video(Medium(str(tmp_path / "out/clip.mp4"), "video")) as video:
        assert video.size == (320, 240) and video.fps == pytest.approx(10)
        frames = [frame.picture for frame in video]
    assert len(frames) == 23
    # the label in its class's colour, which nothing of the video has
    color = np.array(colors(CLASSES)[rows[0]["label"]])
    with Video(Medium(str(tmp_path / "clip.mp4"), "video")) as video:
        plain = next(iter(video)).picture
    before, after = (
        (np.abs(picture - color).max(axis=2) < 30).sum() for picture in (plain.astype(int), frames[0].astype(int))
    )
    assert after > before + 300
    assert [path.name for path in tmp_path.joinpath("out").glob(".*")] == []


def test_every_nth_frame(keys, tmp_path):
    write_video(tmp_path / "clip.mp4", 23)
    predict(keys | {"source": str(tmp_path / "clip.mp4"), "every_n": 5}, HAAR)
    assert [row["frame"] for row in read(tmp_path / "out")] == [0, 5, 10, 15, 20]
    with Video(Medium(str(tmp_path / "out/clip.mp4"), "video")) as video:
        assert video.fps == pytest.approx(2) and len(list(video)) == 5


def test_smoothing_is_the_average_of_the_raw_rows(keys, tmp_path):
    write_video(tmp_path / "clip.mp4", 8)
    tables = []
    for smooth in (0.0, 0.8):
        predict(keys | {"source": str(tmp_path / "clip.mp4"), "smooth": smooth}, HAAR)
        tables.append(np.array([[row[f"p_{name}"] for name in CLASSES] for row in read(tmp_path / "out")]))
    raw, smoothed = tables
    expected = [raw[0]]
    for row in raw[1:]:
        expected.append(0.8 * expected[-1] + 0.2 * row)
    assert smoothed == pytest.approx(np.array(expected), abs=1e-5) and np.ptp(raw, axis=0).max() > 0


def test_abstention_keeps_the_probabilities(keys, tmp_path):
    write(tmp_path / "face.png", drawn())
    assert predict(keys | {"source": str(tmp_path / "face.png"), "min_confidence": 1.0}, HAAR) == 0
    (row,) = read(tmp_path / "out")
    assert row["label"] is None and 0 < row["confidence"] < 1 and row["p_Happy"] is not None


def test_anonymize_leaves_nothing_of_the_face(keys, tmp_path):
    picture = drawn(640, 480, (300, 240), 90)
    picture = cv2.add(picture, np.random.default_rng(0).integers(0, 40, picture.shape, np.uint8))
    write(tmp_path / "face.png", picture)
    predict(keys | {"source": str(tmp_path / "face.png"), "anonymize": True}, HAAR)
    (row,) = read(tmp_path / "out")
    shown = read_photo(str(tmp_path / "out/photos/face.jpg"), "rgb", PhotoLimits())
    x, y, w, h = (round(row[key]) for key in ("x", "y", "width", "height"))
    inside = np.s_[y + 10 : y + h - 10, x + 10 : x + w - 10]
    sharpness = [cv2.Laplacian(image[inside], cv2.CV_64F).std() for image in (picture, shown)]
    assert sharpness[0] > 20 and sharpness[1] < 2
    # the label is still there, in its colour
    color = colors(CLASSES)[row["label"]]
    assert ((shown[:y, x : x + w].astype(int) - color).__abs__().max(axis=2) < 25).sum() > 500


def test_explain_writes_a_figure_a_face(keys, tmp_path, capsys):
    write(tmp_path / "in/face.png", drawn())
    write_video(tmp_path / "in/clip.mp4", 3)
    predict(keys | {"source": str(tmp_path / "in"), "explain": True}, HAAR)
    labels = {"photo": None, "track": None}
    for row in read(tmp_path / "out")[::-1]:
        labels["photo" if row["track"] is None else "track"] = row["label"]
    # of maps of 16, 8, 4 and 2 pixels the second are the last that are fine enough
    assert {path.name for path in (tmp_path / "out/explain").iterdir()} == {
        f"face_1-{labels['photo']}-4.png", f"clip_track1-{labels['track']}-4.png",
    }  # fmt: skip
    said = re.search(
        r"^explained: layer 4, 2 faces: mean probability (\d+)%; (\d+)% with .* (\d+)% ", capsys.readouterr().out, re.M
    )
    assert said and all(0 <= int(number) <= 100 for number in said.groups())


def test_draw_false_writes_rows_alone(keys, tmp_path):
    write(tmp_path / "in/face.png", drawn())
    write_video(tmp_path / "in/clip.mp4", 3)
    predict(keys | {"source": str(tmp_path / "in"), "draw": False}, HAAR)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", "predictions.jsonl"}


def test_a_video_that_breaks_off_has_rows_and_a_reason(keys, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for _ in range(40):
        writer.write(drawn()[:, :, ::-1])
    writer.release()
    content = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "v.avi").write_bytes(content[: len(content) // 2])
    assert predict(keys | {"source": str(tmp_path / "v.avi")}, HAAR) == 1
    rows = read(tmp_path / "out")
    assert len(rows) > 10 and re.fullmatch(r"ends after \d+ of 40 frames", rows[-1]["error"])


def test_a_film_of_240_frames_a_second_is_one_file_among_others(keys, tmp_path):
    write(tmp_path / "in/face.png", drawn())
    write_video(tmp_path / "in/clip.mp4", 8, fps=240)
    assert predict(keys | {"source": str(tmp_path / "in")}, HAAR) == 0
    rows = read(tmp_path / "out")
    assert [row["time"] for row in rows[:8]] == [round(index / 240, 3) for index in range(8)] and len(rows) == 9
    with Video(Medium(str(tmp_path / "out/clip.mp4"), "video")) as video:
        assert video.fps == 240 and video.size == (320, 240) and len(list(video)) == 8


@pytest.mark.parametrize("anonymize", [False, True])
def test_sound_is_kept_but_not_of_who_is_hidden(keys, tmp_path, anonymize):
    pictures = [drawn()] * 10
    path = film(tmp_path / "clip.mp4", pictures, fps=10, sound="aac")
    predict(keys | {"source": str(path), "anonymize": anonymize}, HAAR)
    with av.open(str(tmp_path / "out/clip.mp4")) as container:
        assert len(container.streams.audio) == (0 if anonymize else 1)


def test_a_gif_is_a_video_and_a_heic_a_photo(keys, tmp_path):
    (tmp_path / "in").mkdir()
    frames = [Image.fromarray(drawn(centre=(150 + 2 * index, 120))) for index in range(5)]
    frames[0].save(tmp_path / "in/moving.gif", save_all=True, append_images=frames[1:], duration=200)
    register_heif_opener()
    exif = Image.Exif()
    # stored lying on its side, as phones do it
    exif[0x0112] = 6
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(drawn())))
    lying.save(tmp_path / "in/IMG_1.heic", "HEIF", exif=exif.tobytes(), quality=90)
    assert predict(keys | {"source": str(tmp_path / "in")}, HAAR) == 0
    still, *moving = read(tmp_path / "out")
    # upright it is 320 wide, and its face where it was drawn
    assert abs(still["x"] + still["width"] / 2 - 150) < 15 and abs(still["y"] + still["height"] / 2 - 120) < 25
    assert [row["time"] for row in moving] == [0, 0.2, 0.4, 0.6, 0.8] and {row["track"] for row in moving} == {1}


def test_a_video_that_cannot_be_written_is_one_row_and_the_run_goes_on(keys, tmp_path, capsys):
    # noise does not shrink: its video would be too large for the limit, the table is not
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", 10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for noise in np.random.default_rng(0).integers(0, 256, (12, 240, 320, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
        container.mux(stream.encode())
    (tmp_path / "in").mkdir()
    (tmp_path / "a.mkv").rename(tmp_path / "in/a.mkv")
    write_video(tmp_path / "in/b.mp4", 5)
    with files_end_at(200_000):
        assert predict(keys | {"source": str(tmp_path / "in")}, HAAR) == 1
    rows = [row for row in read(tmp_path / "out") if row["file"].endswith("a.mkv")]
    assert rows[-1]["error"] == "its annotated video was not written: File too large"
    assert len([row for row in read(tmp_path / "out") if row["file"].endswith("b.mp4")]) == 5
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", "predictions.jsonl", "b.mp4"}
    assert ", 0 not read, 1 not drawn, " in capsys.readouterr().out


def test_the_last_lines_count_what_was_not_found_and_strict_makes_it_an_error(keys, tmp_path, capsys):
    write(tmp_path / "in/face.png", drawn())
    for name in ("nobody.png", "empty.png"):
        write(tmp_path / "in" / name, np.full((100, 100, 3), 90, np.uint8))
    (tmp_path / "in/notes.txt").write_text("x")
    (tmp_path / "in/._face.png").write_bytes(b"\0\x05\x16\x07")
    jpeg = cv2.imencode(".jpg", drawn())[1].tobytes()
    (tmp_path / "in/open.jpg").write_bytes(jpeg[:-2])
    assert predict(keys | {"source": str(tmp_path / "in")}, HAAR) == 0
    first, note, hint, last = capsys.readouterr().out.splitlines()
    assert note == f"note: without an end marker, read as far as they go: {tmp_path / 'in/open.jpg'}"
    assert hint.startswith("hint: 2 of 4 files have no face; faces=yunet ")
    counts = r"4 files, 2 faces, 2 without a face, 0 not read, 2 left aside \(1 .txt, 1 ._ twin\), [\d.,]+ photos/s: "
    assert re.match(counts, last) or re.match(counts.replace("1 .txt, 1 ._ twin", "1 ._ twin, 1 .txt"), last)
    assert predict(keys | {"source": str(tmp_path / "in"), "strict": True}, HAAR) == 2
    rows = {Path(row["file"]).name: row["error"] for row in read(tmp_path / "out")}
    assert rows == {
        "face.png": None, "open.jpg": None, "nobody.png": "no face was found", "empty.png": "no face was found"
    }  # fmt: skip


def test_strict_on_the_command_line(ckpt, run, tmp_path):
    write(tmp_path / "nobody.png", np.full((100, 100, 3), 90, np.uint8))
    words = ["predict.py", f"source={tmp_path / 'nobody.png'}", f"ckpt={ckpt}", "device=cpu", "faces=haar"]
    assert "1 without a face" in run(*words, cwd=tmp_path).stdout
    assert "1 without a face" in run(*words, "--strict", cwd=tmp_path, code=1).stdout


def test_a_photo_and_a_video_at_an_address(keys, tmp_path, server, capsys):  # noqa: F811
    write(tmp_path / "face.png", drawn())
    write_video(tmp_path / "clip.mp4", 6)
    for name, count in (("face.png", 1), ("clip.mp4", 6)):
        place = server(sends((tmp_path / name).read_bytes()))
        out = str(tmp_path / name[:-4])
        assert predict(keys | {"source": f"http://me:secret@{place}/{name}", "out": out}, HAAR) == 0
        assert [row["file"] for row in read(out)] == [f"http://{place}/{name}"] * count
    assert (tmp_path / "clip" / "clip.mp4").is_file() and "secret" not in capsys.readouterr().out


def test_a_checkpoint_that_is_not_ours_is_never_unpickled(keys, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "theirs.ckpt").write_bytes(pickle.dumps(Trap()))
    write(tmp_path / "face.png", drawn())
    with pytest.raises(InputError, match=r"theirs.ckpt: not a readable checkpoint of this project$"):
        predict(keys | {"source": str(tmp_path / "face.png"), "ckpt": str(tmp_path / "theirs.ckpt")}, HAAR)
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n", b"\x80\x02.", b"}q", b"",
        {"state_dict": {}, "hyper_parameters": {"a": 1}, "identities": {}}, {"state_dict": {}}, [1],
    ],
)  # fmt: skip
def test_whatever_is_called_a_checkpoint_is_refused_in_one_line(keys, tmp_path, content):
    if isinstance(content, bytes):
        (tmp_path / "theirs.ckpt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "theirs.ckpt")
    write(tmp_path / "face.png", drawn())
    with pytest.raises(InputError, match=r"theirs\.ckpt: (not a |a checkpoint that does not fit)[^\n]*$"):
        predict(keys | {"source": str(tmp_path / "face.png"), "ckpt": str(tmp_path / "theirs.ckpt")}, HAAR)


@pytest.mark.parametrize("out", ["face.png", "face.png/out", "/dev/null/out"])
def test_an_out_that_cannot_be_made_is_one_line(keys, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in/face.png", drawn())
    (tmp_path / "face.png").touch()
    with pytest.raises(InputError, match=rf"{out}: not written, not a directory.*: choose another place$"):
        predict(keys | {"source": "in/face.png", "out": out}, HAAR)


def test_a_camera_that_is_not_there_leaves_earlier_results_alone(keys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predictions.csv").write_text("earlier")
    with pytest.raises(InputError, match="source=99: no such camera or address answers"):
        predict(keys | {"source": "99"}, HAAR)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]
    assert (tmp_path / "out/predictions.csv").read_text() == "earlier"


@pytest.mark.skipif(not re.search(r"GUI:\s+NONE", cv2.getBuildInformation()), reason="this OpenCV opens windows")
def test_a_window_is_refused_where_opencv_has_none(keys):
    with pytest.raises(InputError, match="show=true: this OpenCV was built without windows"):
        predict(keys | {"source": "x", "show": True}, HAAR)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "source is not set"),
        (["source=x"], "ckpt is not set"),
        (["source=x", "ckpt=y.ckpt", "every_n=0"], "every_n=0"),
        (["source=x", "ckpt=y.ckpt", "batch=0"], "batch=0"),
        (["source=x", "ckpt=y.ckpt", "batch=5000"], "batch=5000: not a number of 1 to 4,096"),
        (["source=x", "ckpt=y.ckpt", "every_n=1000000"], "every_n=1000000: not a number of 1 to 10,000"),
        (["source=x", "ckpt=y.ckpt", f"search_every={10**30}"], "search_every=10000000000000000000...: not a number"),
        (["source=x", "ckpt=y.ckpt", "smooth=1"], "smooth=1"),
        (["source=x", "ckpt=y.ckpt", "min_confidence=80"], "min_confidence=80"),
        (["source=x", "ckpt=y.ckpt", "explain=true", "anonymize=true"], "give one of them"),
        (["source=x", "ckpt=y.ckpt", "layer=conv1"], "layer=conv1"),
        (["source=x", "ckpt=y.weights", "explain=true"], "explain=true: not for the .weights"),
        (["source=x", "ckpt=y.weights", "show=true"], "show=true: not for the .weights"),
        (["source=x", "ckpt=y.ckpt", "+faces.size=3"], "there is no key faces.size"),
    ],
)
def test_mistakes_are_refused_in_one_line(overrides, message):
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("predict", overrides)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        check_predict(cfg)
    assert "\n" not in str(error.value)


def test_rows_replace_earlier_files_when_the_run_ends(tmp_path):
    (tmp_path / "predictions.csv").write_text("earlier")
    with pytest.raises(InputError), Rows(tmp_path) as rows:
        rows.write(file="a")
        raise InputError("x")
    assert (tmp_path / "predictions.csv").read_text() == "earlier" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(KeyboardInterrupt), Rows(tmp_path, ("Happy",)) as rows:
        rows.write(file="new\nline, \udcff", x=1, p_Happy=0.5)
        raise KeyboardInterrupt
    assert rows.faces == 1 and rows.failed == 0
    assert json.loads((tmp_path / "predictions.jsonl").read_text())["file"] == "new\nline, \udcff"
    assert pd.read_csv(tmp_path / "predictions.csv", encoding_errors="surrogateescape").p_Happy.tolist() == [0.5]


def test_help_imports_neither_torch_nor_opencv_and_takes_less_than_two_seconds(tmp_path):
    command = [sys.executable, "-X", "importtime", str(ROOT / "predict.py"), "--help"]
    seconds = []
    # of processor time, which other programs that run don't change; the first time Python may compile
    for _ in range(2):
        start = os.times()
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
        end = os.times()
        seconds.append(end.children_user + end.children_system - start.children_user - start.children_system)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "cv2", "pytorch_lightning"} and 0 < min(seconds) < 2


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """A video of 3,000 frames, of which a test sees the first ones."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video(path, 3000)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_complete_files(ckpt, long_video, tmp_path, sent):
    command = [sys.executable, str(ROOT / "predict.py"), f"source={long_video}", f"ckpt={ckpt}", "device=cpu"]
    command.append("out=predictions")
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, deadline = tmp_path / "predictions", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (out / ".clip.tmp.mp4").exists() and (out / ".clip.tmp.mp4").stat().st_size > 20_000:
            break
        time.sleep(0.05)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + sent, stderr
    assert f"stopped by {sent.name}; predictions holds what was done until then" in stderr and "Traceback" not in stderr
    rows = read(out)
    assert 16 <= len(rows) < 3000 and [row["frame"] for row in rows] == list(range(len(rows)))
    with Video(Medium(str(out / "clip.mp4"), "video")) as video:
        assert abs(len(list(video)) - len(rows)) <= 32
    assert {path.name for path in out.iterdir()} == {"predictions.csv", "predictions.jsonl", "clip.mp4"}


def test_results_of_an_earlier_run_stay_unless_their_folder_is_given(keys, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in/face.png", drawn())
    for _ in range(2):
        # what was drawn before is no source
        predict(keys | {"source": ".", "out": None}, HAAR)
    predict(keys | {"source": "in/face.png", "out": None}, HAAR)
    folders = ["best-_", "best-_-2", "best-face"]
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == folders
    assert [len(read(tmp_path / "predictions" / folder)) for folder in folders] == [1, 1, 1]
    capsys.readouterr()
    predict(keys | {"source": "in/face.png", "out": "predictions/best-face"}, HAAR)
    assert capsys.readouterr().out.startswith("predictions/best-face: the predictions of an earlier run are replaced\n")


def test_a_full_disk_leaves_the_predictions_before(keys, tmp_path, capsys):
    # capsys, as pytest would otherwise keep what is printed in a file, which would end, too
    write(tmp_path / "in/face.png", drawn())
    predict(keys | {"source": str(tmp_path / "in"), "draw": False}, HAAR)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with files_end_at(300), pytest.raises(InputError, match="out: not written, file too large: free space or choose"):
        predict(keys | {"source": str(tmp_path / "in")}, HAAR)
    with files_end_at(300), pytest.raises(InputError, match="out: not written, file too large: free space or choose"):
        predict(keys | {"source": str(tmp_path / "in"), "draw": False}, HAAR)
    left = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == before and len(before) == 2
