"""The page to try a checkpoint: its answers, its server attacked, and the page clicked through in a real browser."""

import asyncio
import base64
import csv
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
import pytest
import torch

from fer.data.synthetic.action_units import EXPRESSIONS
from fer.data.synthetic.face import Face, draw_face
from fer.demo.about import accuracy
from fer.demo.answer import Answerer
from fer.demo.example import example
from fer.demo.server import MAX_BYTES, load
from fer.demo.uploads import Upload
from fer.training.run import train
from tests.conftest import ROOT, train_config, write_tiny

needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason='needs: pip install ".[demo]"')

# Runs the page as ``python -m fer demo`` does, and writes down every host that it asks for or connects to.
AUDITED = """
import runpy, sys
log = open(sys.argv.pop(1), "a", buffering=1)
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = args[1] if event == "socket.connect" else args[0]
        print(address[0] if isinstance(address, tuple) else address, file=log)
sys.addaudithook(hook)
runpy.run_module("fer", run_name="__main__", alter_sys=True)
"""


def scene(width, height, faces, shift=0.0):
    """Draw a photo BGR of faces (expression code, x and y as fractions, unit in pixels)."""
    photo = np.full((height, width, 3), (170, 185, 190), np.uint8)
    for seed, (code, x, y, unit) in enumerate(faces):
        units = {number: (full, full) for number, full in EXPRESSIONS[code].items()}
        place = (x * width + shift, y * height)
        draw_face(photo, Face(place, unit, (0.0, 0.0, 0.0), units), np.random.default_rng(seed + 11))
    return photo


def write_clip(path, frames, code="mp4v", faces=((1, 0.5, 0.45, 45),)):
    """Write a video of 10 frames a second in which drawn faces move slowly to the right."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (320, 240))
    for number in range(frames):
        writer.write(scene(320, 240, faces, shift=0.2 * number))
    writer.release()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder with a network of one epoch and things to give to the page."""
    folder = tmp_path_factory.mktemp("demo")
    train(train_config(write_tiny(folder / "tiny.h5", {"train": 70, "val": 14}), **{"trainer.max_epochs": 1}), folder)
    (folder / "checkpoints" / "best.ckpt").rename(folder / "best.ckpt")
    cv2.imwrite(str(folder / "two.png"), scene(640, 360, [(1, 0.3, 0.45, 55), (3, 0.7, 0.42, 55)]))
    cv2.imwrite(str(folder / "nobody.png"), np.full((240, 320, 3), 200, np.uint8))
    write_clip(folder / "clip.mp4", 15)
    # text that FFmpeg takes for a list of files to be opened
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile {folder}/clip.mp4\n")
    (folder / "notes.txt").write_text("no photo\n" * 100)
    (folder / "notes.jpg").write_text("no photo\n" * 100)
    with open(folder / "large.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    frame = cv2.imencode(".jpg", scene(640, 480, [(1, 0.5, 0.45, 90)]))[1].tobytes()
    (folder / "camera.mjpeg").write_bytes(frame * 10)
    return folder


@pytest.fixture
def answer(media, tmp_path):
    predictors, explainer, _ = load(str(media / "best.ckpt"), "cpu", faces="haar")
    return Answerer(predictors, explainer, tmp_path)


def expected(media, name):
    """Return the headings and percentages that the page must show of a photo."""
    from fer import Predictor

    faces = Predictor.load(media / "best.ckpt", faces="haar", device="cpu")(media / name)
    headings = [f"Face {number}: {face.label} {face.confidence:.0%}" for number, face in enumerate(faces, 1)]
    return headings, [f"{share:.1%}" for face in faces for share in face.probabilities.values()]


def pictures(html):
    found = re.findall(r'<img[^>]* src="data:image/\w+;base64,([^"]+)"', html)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR) for text in found]


def give(answer, path, min_confidence=0.0, hide=False, finder="haar"):
    return answer(Upload(path.name, path.read_bytes()), min_confidence, hide, finder)


def saved(html):
    """Return what the answer's links save, by the names of the files."""
    links = re.findall(r'<a href="data:[\w/]+;base64,([^"]*)" download="([^"]+)"', html)
    return {name: base64.b64decode(content) for content, name in links}


@pytest.mark.slow
def test_answers_show_what_the_predictor_says(media, answer, tmp_path):
    html = give(answer, media / "two.png")
    headings, shares = expected(media, "two.png")
    assert len(headings) == 2 and re.findall("<h3>(.*?)</h3>", html) == headings
    assert re.findall(r"<td>([\d.]+%)</td>", html) == shares
    whole, *cards = pictures(html)
    assert whole.shape == (360, 640, 3) and [card.shape for card in cards] == [(200, 200, 3)] * 2
    assert "<h3>Face 1: not sure</h3>" in give(answer, media / "two.png", min_confidence=1.0)
    # neither the photo nor the cut-out under the heat map still shows the face: its edges are gone
    hidden = pictures(give(answer, media / "two.png", hide=True))
    before, after = ([cv2.Laplacian(card, cv2.CV_64F).var() for card in pair] for pair in (cards, hidden[1:]))
    assert all(soft < sharp / 10 for sharp, soft in zip(before, after, strict=True))
    # inside of the frame around the first face, at x 0.3 and y 0.45 of 640x360, where its eyes and mouth were
    before, after = (cv2.Laplacian(picture[150:200, 165:220], cv2.CV_64F).var() for picture in (whole, hidden[0]))
    assert after < before / 10
    nobody = give(answer, media / "nobody.png")
    assert "No face was found in this photo. If there is one, choose another way to find it" in nobody
    assert "nobody.png" in nobody and len(saved(nobody)["nobody.csv"].splitlines()) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_answers_can_be_saved(media, answer):
    from fer import Predictor

    html = give(answer, media / "two.png")
    files = saved(html)
    assert set(files) == {"two-annotated.jpeg", "two.csv"}
    photo = cv2.imdecode(np.frombuffer(files["two-annotated.jpeg"], np.uint8), cv2.IMREAD_COLOR)
    assert photo.shape == (360, 640, 3)
    rows = list(csv.DictReader(io.StringIO(files["two.csv"].decode())))
    faces = Predictor.load(media / "best.ckpt", faces="haar", device="cpu")(media / "two.png")
    assert [(row["file"], row["label"]) for row in rows] == [("two.png", face.label) for face in faces]
    assert [float(row["x"]) for row in rows] == pytest.approx([face.box[0] for face in faces], abs=0.1)
    unsure = csv.DictReader(io.StringIO(saved(give(answer, media / "two.png", 1.0))["two.csv"].decode()))
    assert [row["label"] for row in unsure] == ["", ""]
    # in a narrow window a photo with letters for it
    (narrow,) = re.findall(r'srcset="data:image/jpeg;base64,([^"]+)"', html)
    assert cv2.imdecode(np.frombuffer(base64.b64decode(narrow), np.uint8), cv2.IMREAD_COLOR).shape == (270, 480, 3)
    # names of files are texts
    evil = answer(Upload('"><b>.png', (media / "two.png").read_bytes()), 0.0, False, "haar")
    assert "<b>.png" not in evil and "&quot;&gt;&lt;b&gt;.png" in evil


@pytest.mark.slow
def test_who_finds_the_faces_can_be_chosen(media, answer):
    assert answer.finders[0] == "haar" and answer.finders[-1] == "whole"
    whole = give(answer, media / "nobody.png", finder="whole")
    assert whole.count("<h3>") == 1 and "No face" not in whole
    assert give(answer, media / "two.png", finder="whole").count("<h3>") == 1


@pytest.mark.slow
def test_the_example_is_drawn_and_answered(answer):
    shown = example()
    assert "drawn" in shown.name and shown == example()
    assert answer(shown, 0.0, False, "haar").count("<h3>") == 3


@pytest.mark.slow
def test_the_network_is_named_with_its_accuracy(media):
    # by hand from fer/models/pretrained/fer2013_vgg9.md
    wanted = "right on 69.10 % of FER2013's PublicTest (3,589 faces, centre crop; 95 % interval 67.57 to 70.59)"
    assert accuracy("fer2013_vgg9", tta=False) == wanted
    assert "69.88 %" in accuracy("fer2013_vgg9", tta=True) and "68.36 to 71.36" in accuracy("fer2013_vgg9", tta=True)
    # one epoch was validated: its number is in the log
    table = next((media).rglob("metrics.csv"))
    shares = [float(row["val/acc"]) for row in csv.DictReader(open(table)) if row.get("val/acc")]
    assert f"right on {max(shares):.1%} of the split val" in accuracy(str(media / "best.ckpt"), tta=False)
    note = load(str(media / "best.ckpt"), "cpu", faces="haar")[2]
    assert "**best.ckpt** (vgg\\_small)" in note and f"{max(shares):.1%}" in note


@pytest.mark.slow
def test_files_without_a_score_say_so(media, tmp_path):
    content = torch.load(media / "best.ckpt", weights_only=True)
    for callbacks in ({}, None, {"x": {"monitor": "val/acc", "current_score": torch.tensor(7.0)}}, {"x": 3}):
        torch.save(content | {"callbacks": callbacks}, tmp_path / "other.ckpt")
        assert "does not say how often it is right" in accuracy(str(tmp_path / "other.ckpt"), tta=False)


@pytest.mark.slow
def test_videos_are_cut_short_and_played_by_browsers(media, answer, tmp_path):
    write_clip(tmp_path / "long.avi", 110, "MJPG")
    html = give(answer, tmp_path / "long.avi")
    assert "Only the first 10 seconds" in html and html.count("<h3>") == 1 == len(pictures(html))
    os.unlink(tmp_path / "long.avi")
    assert not list(tmp_path.iterdir())
    (content,) = re.findall(r'src="data:video/mp4;base64,([^"]+)"', html)
    (tmp_path / "shown.mp4").write_bytes(base64.b64decode(content))
    # what browsers play: H.264 with colour at half the size, its table at the head
    with av.open(str(tmp_path / "shown.mp4")) as film:
        assert (film.streams.video[0].codec.name, film.streams.video[0].pix_fmt) == ("h264", "yuv420p")
    content = (tmp_path / "shown.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    shown = cv2.VideoCapture(str(tmp_path / "shown.mp4"))
    assert shown.get(cv2.CAP_PROP_FRAME_COUNT) == 100 and shown.get(cv2.CAP_PROP_FPS) == 10
    assert "Only the first" not in give(answer, media / "clip.mp4")
    write_clip(tmp_path / "empty.avi", 3, "MJPG", faces=[])
    assert "No face was found in this video." in give(answer, tmp_path / "empty.avi")


@pytest.mark.slow
def test_what_cannot_be_read_is_said_in_one_line(media, answer):
    half = Upload("<b>half</b>.png", (media / "two.png").read_bytes()[:9000])
    assert (
        answer(half, 0.0, False, "haar")
        == '<p class="fer-error" role="alert">&lt;b&gt;half&lt;/b&gt;.png: truncated</p>'
    )
    for content, reason in ((b"", "zero bytes"), (b"text" * 99, "not a readable video")):
        message = answer(Upload("a.mp4", content), 0.0, False, "haar")
        assert message == f'<p class="fer-error" role="alert">a.mp4: not a photo, and {reason}</p>'


@pytest.mark.slow
def test_a_strip_is_shown_as_one(answer, tmp_path):
    (tmp_path / "strip.png").write_bytes(cv2.imencode(".png", np.full((60_000, 3, 3), 90, np.uint8))[1])
    (whole,) = pictures(give(answer, tmp_path / "strip.png"))
    assert whole.shape[0] == 1280 and whole.shape[1] < 5


@pytest.mark.slow
def test_drawn_training_data_are_said(media, tmp_path):
    assert "drawn" not in load(str(media / "best.ckpt"), "cpu", faces="haar")[2]
    content = torch.load(media / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["data"]["drawn"] = True
    torch.save(content, tmp_path / "drawn.ckpt")
    assert "trained on drawn faces" in load(str(tmp_path / "drawn.ckpt"), "cpu", faces="haar")[2]


@pytest.mark.slow
def test_command_line_errors_are_one_line(media, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, ckpt = str(taken.getsockname()[1]), str(media / "best.ckpt")
        cases = [
            (["ckpt=missing.ckpt"], "missing.ckpt: no such file"),
            ([f"ckpt={media / 'notes.txt'}"], "notes.txt: not the name of a shipped network"),
            ([], "ckpt is not set"),
        ]
        if importlib.util.find_spec("gradio"):
            cases.append(([f"ckpt={ckpt}", f"port={port}"], f"port={port} is taken"))
        for arguments, message in cases:
            done = subprocess.run(
                [sys.executable, "-m", "fer", "demo", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    without = "import sys, runpy; sys.modules['gradio'] = None; runpy.run_module('fer', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", without, "demo", f"ckpt={ckpt}"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr == 'error: the page needs Gradio: pip install ".[demo]" in the checkout\n'


def unprivileged():
    """Return what starts a program as a user who owns nothing and may only read, where the tests run as root."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return []
    start = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    # root's home, where Python may be installed, is closed to others
    start += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    return start if subprocess.run([*start, sys.executable, "-c", ""], capture_output=True).returncode == 0 else []


class Server:
    """The real server; ``temporary`` is where it may write, and ``decoys`` is a folder of files of its user."""

    def __init__(self, process, address, home):
        import httpx

        self.client = httpx.Client(timeout=30)
        self.process, self.address, self.port = process, address, urlsplit(address).port
        self.temporary, self.decoys, self.hosts = home / "temporary", home / "decoys", home / "hosts.txt"

    def send(self, method, path, **more):
        return self.client.request(method, f"{self.address}{path}", **more)

    def upload(self, content, name="a.png"):
        return self.send("POST", "/gradio_api/upload", files={"files": (name, content)})

    def ask(self, *data, function=1, session="x"):
        question = {"data": data, "fn_index": function, "session_hash": session}
        return self.send("POST", "/gradio_api/run/predict", json=question)

    def first_line(self, request):
        """Return the first line of the reply to bytes as they are."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            return connection.makefile("rb").readline().decode()

    def left(self):
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def server(media):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # not among pytest's, which are closed to other users
    home, start = Path(tempfile.mkdtemp(prefix="fer-test-")), unprivileged()
    for folder in ("temporary", "decoys"):
        (home / folder).mkdir()
    shutil.copy(media / "two.png", home / "decoys" / "photo.png")
    (home / "decoys" / "notes.txt").write_text("the user's own notes")
    if start:
        for path in (home, *home.rglob("*")):
            os.chown(path, 65534, 65534)
    process = subprocess.Popen(
        [*start, sys.executable, "-c", AUDITED, home / "hosts.txt", "demo", f"ckpt={media / 'best.ckpt'}",
         f"port={port}", "device=cpu", "faces=haar"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "HOME": str(home), "TMPDIR": str(home / "temporary")},
    )  # fmt: skip
    try:
        assert process.stdout.readline().startswith("faces: ")
        line = process.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port}") and line.endswith(" (stop with Ctrl-C)\n")
        server = Server(process, line.split()[0].rstrip("/"), home)
        with server.client:
            yield server
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        process.stdout.close()
        left = list((home / "temporary").iterdir())
        shutil.rmtree(home)
    assert code == 0 and not left


def attack(test):
    """Mark a test of the real server."""
    return pytest.mark.slow(needs_gradio(test))


@attack
def test_no_file_of_its_user_is_read_or_deleted(server):
    before = {path: path.read_bytes() for path in server.decoys.iterdir()}
    # links that lie where the page itself writes
    inside = next(server.temporary.iterdir()) / "uploads"
    inside.mkdir(exist_ok=True)
    (inside / "link.png").symlink_to(server.decoys / "photo.png")
    (inside / "hard.png").hardlink_to(server.decoys / "photo.png")
    owner = server.decoys.stat()
    os.chown(inside, owner.st_uid, owner.st_gid)
    replies, refusals = [], set()
    for path in (*before, *inside.iterdir(), server.decoys / ".." / "decoys" / "photo.png"):
        file = {"path": str(path)}
        for given in (file, {**file, "meta": {"_type": "gradio.FileData"}}, [file], str(path)):
            for function in range(6):
                asked = [server.ask(given, function=function), server.ask(given, 0, False, "haar", function=function)]
                refusals |= {reply.status_code for reply in asked if given != str(path)}
                replies += asked
            for function in (1, 3):
                replies.append(server.ask(None, 0, False, "haar", function=function))
                question = {"data": [None, 0, False, "haar"], "fn_index": function, "session_hash": "x"}
                replies.append(server.send("POST", "/gradio_api/queue/join", json=question))
            replies.append(server.send("GET", "/gradio_api/queue/data?session_hash=x"))
        up = "..%2f" * 20 + str(path).lstrip("/").replace("/", "%2f")
        for way in (
            f"/gradio_api/file={path}", f"/gradio_api/file/{path}", f"/gradio_api/proxy={path}", f"/assets/{path}",
            f"/assets/{up}", f"/static/{up}", f"/svelte/{up}",
        ):  # fmt: skip
            replies.append(server.send("GET", way))
    shutil.rmtree(inside)
    assert {path: path.read_bytes() for path in server.decoys.iterdir()} == before
    for shown in ("fer-whole", "data:image", "the user's own notes"):
        assert not any(shown in reply.text for reply in replies)
    # a text is taken for a key under which nothing is held, and without a key nothing is answered
    assert refusals == {400} and {reply.status_code for reply in replies} == {200, 400, 403, 404}


@attack
def test_of_gradio_only_what_the_page_needs_is_served(server):
    page = server.send("GET", "/")
    assert page.status_code == 200 and "gradio" in page.text
    assert server.send("GET", "/theme.css").status_code == 200
    for path in (
        "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/heartbeat/x", "/gradio_api/queue/data?session_hash=x", "/gradio_api/queue/status", "/monitoring",
        "/gradio_api/startup-events", "/gradio_api/runs", "/gradio_api/dev/reload", "/docs", "/openapi.json",
    ):  # fmt: skip
        assert server.send("GET", path).status_code == 404, path
    for path in (
        "/", "/gradio_api/queue/join", "/gradio_api/call/respond", "/gradio_api/run/respond", "/gradio_api/api/predict",
        "/gradio_api/component_server", "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/stream/x",
        "/gradio_api/process_recording", "/gradio_api/vibe-edit", "/login",
    ):  # fmt: skip
        assert server.send("POST", path, json={}).status_code == 404, path
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
        assert server.send(method, "/").status_code == 404
    assert server.left() == []


@attack
def test_other_sites_and_other_users_are_refused(server, media):
    own, secret = f"127.0.0.1:{server.port}", server.address.rpartition("/")[2]
    key = server.upload((media / "two.png").read_bytes()).json()[0]
    requests = [
        ("GET", "/", {}), ("POST", "/gradio_api/upload", {"files": {"files": ("a.png", b"1")}}),
        ("POST", "/gradio_api/run/predict", {"json": {"data": [key, 0, False, "haar"], "fn_index": 1}}),
    ]  # fmt: skip

    def codes(headers, root=server.address):
        sent = [server.client.request(way, f"{root}{path}", headers=headers, **more) for way, path, more in requests]
        return {reply.status_code for reply in sent}

    for host in (
        "evil.example", f"evil.example:{server.port}", "127.0.0.1", "127.0.0.1:1", f"0.0.0.0:{server.port}",
        f"127.0.0.1.evil.example:{server.port}", "",
    ):  # fmt: skip
        assert codes({"Host": host}) == {403}, host
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"https://{own}", f"http://evil.example:{own}"):
        assert codes({"Origin": origin}) == {403}, origin
    for guess in ("", "/x", f"/{secret[:-1]}", f"/{secret}0", "/%ff", f"/{secret.swapcase()}"):
        assert codes({}, f"http://{own}{guess}") == {403}, guess
    for host in (own, f"localhost:{server.port}"):
        assert codes({"Host": host}) == {200} == codes({"Host": host, "Origin": f"http://{host}"})
    # no proxy stands before it, whatever a header says, and no name of a file is that long
    forwarded = server.client.get(f"{server.address}/", headers={"X-Forwarded-Host": "evil.example"})
    assert forwarded.status_code == 200 and "evil.example" not in forwarded.text
    assert server.client.get(f"{server.address}/assets/{'a' * 5000}").status_code == 404
    two = f"GET /{secret}/ HTTP/1.1\r\nHost: {own}\r\nHost: evil.example\r\n\r\n"
    assert server.first_line(two.encode()).split()[1] == "400"


@attack
def test_limits_hold_for_all_uploads_together(server):
    import psutil

    process, mebi = psutil.Process(server.process.pid), 2**20
    before, most = process.memory_info().rss, 0

    def held():
        return process.memory_info().rss - before + sum(path.stat().st_size for path in server.left())

    keys = []
    for number in range(12):
        done = server.upload(bytes([number]) * 46 * mebi)
        assert done.status_code == 200
        keys += done.json()
        # a session of its own for each, with what Gradio's own page would say of the upload
        file = {"path": keys[-1], "meta": {"_type": "gradio.FileData"}}
        server.ask(file, function=0, session=f"session {number}")
        most = max(most, held())
    assert 46 * mebi < most < 350 * mebi
    assert "no longer held" in server.ask(keys[0], 0, False, "haar").text
    assert "a.png: not a photo" in server.ask(keys[-1], 0, False, "haar").text
    # many files in one form
    for number in range(3):
        files = [("files", (f"{n}.png", bytes([number, n]) * 5 * mebi)) for n in range(10)]
        assert server.send("POST", "/gradio_api/upload", files=files).status_code == 413
    files = [("files", (f"{n}.png", b"1")) for n in range(2)]
    assert server.send("POST", "/gradio_api/upload", files=files).status_code == 400
    assert held() < 350 * mebi and server.left() == []


@attack
def test_a_body_is_refused_by_its_length_before_it_is_sent(server):
    path = urlsplit(server.address).path
    for part, kind in (("upload", "multipart/form-data; boundary=b"), ("run/predict", "application/json")):
        head = f"POST {path}/gradio_api/{part} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: {kind}\r\n"
        for length, code in (
            ("Content-Length: 10000000000", "413"), ("Transfer-Encoding: chunked", "411"), ("Accept: */*", "411"),
            ("Content-Length: 9\r\nTransfer-Encoding: chunked", "411"), ("Content-Length: -1", "400"),
        ):  # fmt: skip
            assert server.first_line(f"{head}{length}\r\n\r\n".encode()).split()[1] == code, (part, length)
    assert server.ask("x" * 20_000, 0, False, "haar").status_code == 413
    for body in (b"", b"{", b"[" * 10_000, b"[]", b'{"data": [NaN, 0, false, "haar"], "fn_index": 1}', b"\xff"):
        assert server.send("POST", "/gradio_api/run/predict", content=body).status_code == 400, body
    for form in (b"", b"no form", b"--b\r\n\r\n1\r\n--b--\r\n"):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        assert server.send("POST", "/gradio_api/upload", content=form, headers=headers).status_code == 400, form
    assert server.send("POST", "/gradio_api/upload", content=b"1").status_code == 415


@attack
def test_two_equal_pictures_give_two_answers(server, media):
    keys = [server.upload((media / "two.png").read_bytes(), "two.png").json()[0] for _ in range(2)]
    assert len(set(keys)) == 2
    headings, _ = expected(media, "two.png")
    for key in keys:
        (html,) = server.ask(key, 0, False, "haar").json()["data"]
        assert re.findall("<h3>(.*?)</h3>", html) == headings
    assert server.left() == []


def test_uploads_are_forgotten_in_time_and_the_oldest_for_new_ones():
    from fer.demo.uploads import Full, Uploads

    async def use(uploads):
        with pytest.raises(Full), uploads.room(60), uploads.room(60):
            pass
        keys = []
        for name in "abc":
            with uploads.room(40):
                keys.append(uploads.put(Upload(name, b"1" * 40)))
        held = [upload and upload.name for upload in map(uploads.get, keys)]
        await asyncio.sleep(0.3)
        return held, [uploads.get(key) for key in keys]

    assert asyncio.run(use(Uploads(max_bytes=100, seconds=0.1))) == ([None, "b", "c"], [None] * 3)


@needs_gradio
def test_who_sends_too_slowly_is_cut_off():
    import threading

    import uvicorn

    from fer.demo.guard import Guard
    from fer.demo.uploads import Uploads

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        guard = Guard(None, "secret", port, set(), ["haar"], Uploads(100, 1), 50, seconds=0.3)
        slow = uvicorn.Server(uvicorn.Config(guard, http="h11", lifespan="off", log_level="warning"))
        thread = threading.Thread(target=slow.run, args=[[listening]])
        thread.start()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                head = f"POST /secret/gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 50\r\n"
                connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b".encode())
                assert connection.makefile("rb").readline().split()[1] == b"408"
        finally:
            slow.should_exit = True
            thread.join(10)


class Page:
    """The page in a headless Chromium."""

    def __init__(self, driver, server):
        self.driver, self.server, self.left = driver, server, server.left

    def open(self):
        self.driver.get(f"{self.server.address}/")
        return self.wait(lambda: self.all("input[type=file]"))

    def all(self, css):
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css):
        return [element.text for element in self.all(css)]

    def wait(self, condition, seconds=60):
        """Return what ``condition`` gives as soon as that is true; elements may be replaced while it looks."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        waiting = WebDriverWait(self.driver, seconds, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def give(self, path):
        self.all("input[type=file]")[0].send_keys(str(path))


@pytest.fixture(scope="module")
def page(media, server):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,900",
        "use-fake-ui-for-media-stream", "use-fake-device-for-media-stream",
        f"use-file-for-fake-video-capture={media / 'camera.mjpeg'}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    yield Page(driver, server)
    driver.quit()


browser = [pytest.mark.slow, pytest.mark.browser, needs_gradio]


def marked(test):
    for mark in browser:
        test = mark(test)
    return test


@marked
def test_a_photo_is_answered_and_nothing_of_it_stays(page, media):
    page.open()
    page.give(media / "two.png")
    page.wait(lambda: page.all("#answer h3"))
    headings, shares = expected(media, "two.png")
    assert page.texts("#answer h3") == headings
    assert [text for text in page.texts("#answer td") if text] == shares
    assert [int(image.get_attribute("naturalWidth")) for image in page.all("#answer img")] == [640, 200, 200]
    assert [image.accessible_name for image in page.all("#answer img")] == [
        "The photo, 2 faces marked", "Heat map of face 1", "Heat map of face 2",
    ]  # fmt: skip
    assert page.left() == []
    # the drop zone is ready for the next one, and the settings still work on this one
    assert page.texts("#answer .fer-whole") and page.all("input[type=file]")
    before = page.all("#answer img")[0].get_attribute("src")
    (hide,) = page.all("input[type=checkbox]")
    hide.click()
    page.wait(lambda: page.all("#answer img")[0].get_attribute("src") != before)
    assert page.texts("#answer h3") == headings and page.left() == []
    from selenium.webdriver.common.keys import Keys

    page.all("input[type=range]")[0].send_keys(Keys.END)
    page.wait(lambda: page.texts("#answer h3") == ["Face 1: not sure", "Face 2: not sure"])


@marked
def test_what_is_no_photo_is_refused_in_one_line(page, media):
    for name, said in (
        ("notes.txt", "Invalid file type: notes.txt. Only image, video allowed."),
        ("large.png", 'File(s) exceed the maximum allowed size of 50.0 Mb: "large.png"'),
    ):
        page.open()
        page.give(media / name)
        # below a heading and the cross that closes it
        page.wait(lambda said=said: [t.splitlines()[-1:] for t in page.texts("[data-testid=toast-body]")] == [[said]])
        assert page.left() == []
    page.open()
    for name in ("notes.jpg", "list.mp4"):
        page.give(media / name)
        page.wait(
            lambda name=name: page.texts("#answer .fer-error") == [f"{name}: not a photo, and not a readable video"]
        )
    page.give(media / "nobody.png")
    page.wait(lambda: any("No face was found in this photo. If" in text for text in page.texts("#answer p")))
    assert page.left() == []
    # a program that does not keep the page's rules is stopped by the server
    assert page.server.upload((media / "large.png").read_bytes()).status_code == 413
    assert page.left() == []


@marked
def test_the_example_a_detector_and_a_narrow_window(page):
    page.open()
    next(button for button in page.all("button") if "example" in button.text).click()
    page.wait(lambda: len(page.all("#answer h3")) == 3)
    assert "drawn" in page.texts("#answer .fer-name")[0] and page.left() == []
    assert [link.get_attribute("download") for link in page.all("#answer a")] == [
        "example (drawn faces)-annotated.jpeg", "example (drawn faces).csv",
    ]  # fmt: skip
    page.all("input[type=radio][value=whole]")[0].click()
    page.wait(lambda: len(page.all("#answer h3")) == 1)
    metrics = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        # one column: the answer begins below the controls, and nothing reaches over the edge
        page.wait(lambda: page.driver.execute_script("return document.documentElement.scrollWidth") <= 420)
        upload, answered = page.all("input[type=range]")[0].rect, page.all("#answer")[0].rect
        assert answered["y"] > upload["y"] and answered["x"] + answered["width"] <= 420
        assert page.all("#answer .fer-whole")[0].get_property("naturalWidth") == 480
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@marked
def test_a_video_is_answered(page, media):
    page.open()
    page.give(media / "clip.mp4")
    page.wait(lambda: page.all("#answer h3"))
    assert len(page.all("#answer h3")) == 1 == len(page.all("#answer .fer-face img"))
    playing = "const v = document.querySelector('#answer video'); return v.currentTime > 0 && v.duration"
    assert page.wait(lambda: page.driver.execute_script(playing)) == pytest.approx(1.5, abs=0.2)
    assert page.left() == []


@marked
def test_the_camera_is_answered(page):
    page.open()
    next(tab for tab in page.all("button[role=tab]") if tab.text == "Camera").click()
    page.wait(lambda: [b for b in page.all("button") if b.is_displayed() and "Webcam" in b.text])[0].click()
    page.wait(lambda: page.all("button[aria-label='capture photo']"))
    time.sleep(1)  # the first frames of a camera are black
    page.all("button[aria-label='capture photo']")[0].click()
    page.wait(lambda: len(page.all("#answer h3")) == 1)
    assert page.left() == []


@marked
def test_controls_have_names(page):
    page.open()
    controls = [
        c for c in page.all("button, input, [role=slider]") if c.is_displayed() and c.get_attribute("tabindex") != "-1"
    ]
    assert len(controls) > 5 and [c.get_attribute("outerHTML") for c in controls if not c.accessible_name] == []


@marked
def test_no_other_host_is_asked_and_no_other_can_ask(page):
    page.open()
    asked = set()
    for entry in page.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    server, ours = page.server, f"http://127.0.0.1:{page.server.port}/"
    assert f"{server.address}/theme.css" in {url.partition("?")[0] for url in asked}
    assert [url for url in asked if not url.startswith((ours, "data:", "blob:"))] == []
    assert set(server.hosts.read_text().split()) <= {"127.0.0.1", "localhost", "::1"}
    import psutil

    sockets = psutil.Process(server.process.pid).net_connections()
    assert {s.laddr for s in sockets if s.status == psutil.CONN_LISTEN} == {("127.0.0.1", server.port)}
    folder = next(server.temporary.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700
