"""Face detectors on a real photo, on drawn ones, and on pictures in which nobody is."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import onnx
import pytest
import skimage.data

from fer.errors import InputError
from fer.prediction.detectors import SEARCH_PIXELS, Detection, open_detector


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


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 5000), (10000, 50), (50, 10000)])
def test_odd_sizes_are_searched_without_an_error(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert open_detector("haar")(picture) == []
    assert open_detector("whole")(picture) == [Detection((0.0, 0.0, float(shape[1]), float(shape[0])), None)]


def test_one_finder_serves_several_threads():
    finder, photo = open_detector("haar"), skimage.data.astronaut()
    pictures = [np.ascontiguousarray(photo[:, i : i + 400]) for i in range(0, 80, 10)] * 2
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(finder, pictures)) == [finder(picture) for picture in pictures]


@pytest.mark.parametrize(
    "name, content, message",
    [
        (None, None, "faces.model is not set"),
        ("missing.onnx", None, "no such file"),
        ("noise.onnx", b"noise", "not YuNet's file"),
        ("text.txt", b"noise", "not YuNet's file"),
        ("relu.onnx", "relu", "not YuNet's file"),
    ],
)
def test_yunet_without_its_file_says_where_to_get_it(tmp_path, name, content, message):
    file = None if name is None else tmp_path / name
    if content == "relu":
        tensors = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 3, 64, 64]) for n in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
        onnx.save(onnx.helper.make_model(graph), file)
    elif content:
        file.write_bytes(content)
    with pytest.raises(InputError, match="opencv_zoo") as caught:
        open_detector("yunet", file and str(file))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("hog",), "haar, yunet or whole"),
        (("haar", None, 0), "min_size=0"),
        (("haar", None, 10**9), "min_size=1000000000: a number of pixels, 1 to 10,000"),
    ],
)
def test_unknown_choices_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        open_detector(*arguments)
