"""Face detectors on a real photo, on drawn ones, and on pictures in which nobody is."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import cv2
import numpy as np
import onnx
import pytest
import skimage.data
import torch

from fer.data.source import FaceFormat
from fer.errors import InputError
from fer.prediction import yunet
from fer.prediction.cascade import _without_nested
from fer.prediction.detection import SEARCH_PIXELS, Detection, crop_upright
from fer.prediction.detectors import open_detector
from fer.prediction.frame_search import find_near


def holds_the_astronauts_face(box):
    # by eye, in pixels of scikit-image's astronaut: eyes at (204, 103) and (247, 103), mouth at (221, 145); the face,
    # from hairline to chin and cheek to cheek, is 178..268 by 60..178
    x, y, width, height = box
    inside = all(x < px < x + width and y < py < y + height for px, py in ((204, 103), (247, 103), (221, 145)))
    return inside and 80 < width < 130 and 80 < height < 130


def test_haar_finds_the_astronaut_and_nobody_else():
    (face,) = open_detector("haar")(skimage.data.astronaut())
    assert holds_the_astronauts_face(face.box) and face.score >= 3


def test_boxes_are_in_pixels_of_the_picture_even_where_a_smaller_one_is_searched():
    photo = cv2.resize(skimage.data.astronaut(), (2048, 2048))
    assert photo[..., 0].size > SEARCH_PIXELS
    (face,) = open_detector("haar")(photo)
    assert holds_the_astronauts_face(np.array(face.box) / 4)


def test_faces_smaller_than_min_size_are_left_out():
    # the found box is 98 pixels wide
    assert len(open_detector("haar", min_size=80)(skimage.data.astronaut())) == 1
    assert open_detector("haar", min_size=140)(skimage.data.astronaut()) == []


def test_nobody_is_in_noise_a_gradient_or_a_flat_picture():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    gradient = np.repeat(np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1))[:, :, None], 3, 2)
    for picture in (noise, gradient, np.zeros_like(noise)):
        assert open_detector("haar")(picture) == []


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 5000), (10000, 50), (50, 10000), (1, 5_000_000)])
def test_odd_sizes_are_searched_without_an_error(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert open_detector("haar")(picture) == []
    assert open_detector("whole")(picture) == [Detection((0.0, 0.0, float(shape[1]), float(shape[0])), None)]


def test_one_finder_serves_several_threads():
    finder, photo = open_detector("haar"), skimage.data.astronaut()
    pictures = [np.ascontiguousarray(photo[:, i : i + 400]) for i in range(0, 80, 10)] * 2
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(finder, pictures)) == [finder(picture) for picture in pictures]


def turned(photo, angle):
    """Return a square photo turned against the clock about its centre, at the same size."""
    side = len(photo)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    return cv2.warpAffine(photo, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE), matrix


@pytest.mark.parametrize("angle", [-30, 30])
def test_a_tilted_face_is_found_where_it_is_and_cut_upright(angle):
    # beside her face is what would be named if the box or the turn were wrong
    photo = skimage.data.astronaut()[:300, 72:372]
    picture, matrix = turned(photo, angle)
    (face,) = open_detector("haar")(picture)
    x, y, width, height = face.box
    # the middle of eyes and mouth, by eye
    expected = matrix @ ((204 + 247 + 2 * 221) / 4 - 72, 124, 1)
    assert np.hypot(x + width / 2 - expected[0], y + height / 2 - expected[1]) < 12 and 85 < width < 135
    assert face.angle == -angle
    (upright,) = open_detector("haar")(photo)
    cut = crop_upright(picture, face.box, face.angle, FaceFormat(48))
    straight = crop_upright(photo, upright.box, 0.0, FaceFormat(48))
    crooked = crop_upright(picture, face.box, 0.0, FaceFormat(48))
    alike = [np.corrcoef(one.ravel(), straight.ravel())[0, 1] for one in (cut, crooked)]
    assert alike[0] > 0.8 and alike[0] > alike[1] + 0.2


@pytest.mark.parametrize("turn", [1, -1])
def test_of_boxes_as_sure_the_face_is_kept_and_not_the_part_of_it(turn):
    # as in frame 112 of benchmarks/video.py, in which nine windows each said face and eye to nose
    face, part, other = (
        Detection((x, 360.0, side, side), 9.0) for x, side in ((598.0, 171.0), (598.0, 98.0), (9.0, 50.0))
    )
    assert set(_without_nested([part, face, other][::turn])) == {face, other}
    surer = Detection(part.box, 10.0)
    assert _without_nested([face, surer][::turn]) == [surer]


def test_a_face_cut_by_the_edges_is_found_once():
    # her face alone, hairline to chin, cheek to cheek
    (face,) = open_detector("haar")(np.ascontiguousarray(skimage.data.astronaut()[66:176, 174:274]))
    assert holds_the_astronauts_face((face.box[0] + 174, face.box[1] + 66, *face.box[2:]))


def test_a_face_in_the_dark_is_found():
    (face,) = open_detector("haar")(skimage.data.astronaut() // 8)
    assert holds_the_astronauts_face(face.box)


def test_a_quick_search_leaves_out_turned_faces_but_near_a_face_of_before():
    picture, _ = turned(skimage.data.astronaut()[:300, 72:372], 30)
    finder = open_detector("haar")
    assert finder(picture, quick=True) == []
    assert len(find_near(finder, picture, [finder(picture)[0].box])) == 1


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("missing.onnx", None, "no such file"),
        ("noise.onnx", b"noise", "OpenCV does not run it"),
        ("relu.onnx", "relu", "nor does onnxruntime run it"),
    ],
)
def test_what_is_not_yunet_is_refused_in_one_line(tmp_path, name, content, message, capfd):
    file = tmp_path / name
    if content == "relu":
        tensors = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 3, 64, 64]) for n in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
        onnx.save(onnx.helper.make_model(graph), file)
    elif content:
        file.write_bytes(content)
    for faces in ("yunet", "auto"):
        with pytest.raises(InputError, match=message) as caught:
            open_detector(faces, str(file))
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_what_opencv_says_of_a_file_is_passed_on(tmp_path):
    # a shape that is computed, which OpenCV does not take
    helper = onnx.helper
    given = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
    out = helper.make_tensor_value_info("out", onnx.TensorProto.INT64, [4])
    graph = helper.make_graph([helper.make_node("Shape", ["input"], ["out"])], "g", [given], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)]), tmp_path / "shape.onnx")
    with pytest.raises(InputError, match="in function '.+'"):
        open_detector("yunet", str(tmp_path / "shape.onnx"))


class Boxes:
    """A detector that gives what it is told."""

    def __init__(self, boxes, scores):
        self.answer = boxes, scores

    def __call__(self, picture):
        return self.answer


def test_a_detector_of_the_users_own_is_clipped_sorted_and_keeps_its_scores():
    found = open_detector(Boxes([[60, 10, 50, 50], [-20, 0, 60, 50]], [0.5, 0.9]))(np.zeros((96, 128, 3), np.uint8))
    assert found == [Detection((0.0, 0.0, 40.0, 50.0), 0.9), Detection((60.0, 10.0, 50.0, 50.0), 0.5)]
    assert open_detector(Boxes([], []))(np.zeros((9, 9, 3), np.uint8)) == []


@pytest.mark.parametrize(
    "boxes, scores, message",
    [
        ([[0, 0, 9]], [1], r"gave boxes \(1, 3\) and scores \(1,\), not \(n, 4\) and \(n,\)"),
        ([[0, 0, 9, 9]], [1, 2], r"scores \(2,\)"),
        ([[0, 0, 9, float("nan")]], [1], "not finite"),
        ([["a", 0, 9, 9]], [1], "no arrays of numbers"),
        ([[1j, 0, 9, 9]], [1], "no arrays of numbers"),
        ([[500, 0, 9, 9]], [1], "500, 0, 9, 9, which does not lie in the picture of 128x96 pixels"),
        ([[0.1, 0.2, 0.3, 0.3]], [1], "x, y, width, height in pixels expected"),
        ([[50, 50, -20, 20]], [1], "does not lie in the picture"),
    ],
)
def test_what_a_detector_must_not_give_is_one_line(boxes, scores, message):
    with pytest.raises(InputError, match=f"faces=Boxes: the detector .*{message}"):
        open_detector(Boxes(boxes, scores))(np.zeros((96, 128, 3), np.uint8))


def test_a_detector_that_raises_or_gives_no_pair_is_one_line():
    with pytest.raises(InputError, match="faces=.*: the detector raised ZeroDivisionError: "):
        open_detector(lambda picture: 1 // 0)
    with pytest.raises(InputError, match="gave a NoneType, not a pair of boxes and scores"):
        open_detector(lambda picture: None)
    with pytest.raises(InputError, match="gave boxes or scores that are no arrays of numbers"):
        open_detector(lambda picture: (torch.zeros(1, 4, requires_grad=True), torch.ones(1)))


@contextmanager
def closing_server(server):
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def serving(content):
    """Return a server on this computer that answers every GET with ``content``, 404 where that is None."""

    class Answer(BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self):
            type(self).asked += 1
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_yunets_file_is_fetched_once_checked_and_kept(tmp_path):
    content = b"as if it were a network"
    sha256, path = hashlib.sha256(content).hexdigest(), tmp_path / "cache" / "yunet.onnx"
    with closing_server(serving(content)) as server:
        address = f"http://127.0.0.1:{server.server_port}/yunet.onnx"
        for _ in range(2):
            assert yunet.fetch(address, sha256, path) == path and path.read_bytes() == content
        assert server.RequestHandlerClass.asked == 1
        # what was changed is fetched again
        path.write_bytes(b"changed")
        yunet.fetch(address, sha256, path)
        assert path.read_bytes() == content


@pytest.mark.parametrize("content, message", [(b"another", "another file"), (None, "the server said 404")])
def test_what_is_not_yunets_file_is_not_kept(tmp_path, content, message):
    with closing_server(serving(content)) as server, pytest.raises(InputError, match=message) as caught:
        yunet.fetch(f"http://127.0.0.1:{server.server_port}/y.onnx", "0" * 64, tmp_path / "cache" / "y.onnx")
    assert [*tmp_path.rglob("*.onnx")] == [] and "faces.model=FILE.onnx" in str(caught.value)


def test_without_a_network_one_line_says_where_to_put_the_file(tmp_path):
    server = serving(b"")
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="no connection") as caught:
        yunet.fetch(f"http://127.0.0.1:{port}/y.onnx", "0" * 64, tmp_path / "y.onnx")
    assert f"put it by hand at {tmp_path / 'y.onnx'}" in str(caught.value) and "\n" not in str(caught.value)


def test_auto_fetches_nothing_and_says_what_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_detector().name.startswith("OpenCV's cascade (faces=yunet fetches")
    assert not any(tmp_path.iterdir())
    # of that name but another file: not taken
    yunet.cached().parent.mkdir(parents=True)
    yunet.cached().write_bytes(b"another")
    assert open_detector().name.startswith("OpenCV's cascade")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("hog",), "auto, haar, yunet, whole"),
        (("haar", None, 0), "min_size=0"),
        (("haar", None, 10**9), "min_size=1000000000: a number of pixels, 1 to 10,000"),
    ],
)
def test_unknown_choices_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        open_detector(*arguments)
