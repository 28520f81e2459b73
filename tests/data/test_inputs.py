"""Every kind of picture that a user may give, and what is none."""

import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from fer.data.inputs import is_one, to_array
from fer.errors import InputError

#: 2 x 3 pixels whose values are all different, so that neither axes nor channels can be mistaken.
PICTURE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14
PICTURE.flags.writeable = False
GREY = PICTURE[:, :, 1]
ALPHA = np.dstack([PICTURE, np.full((2, 3), 9, np.uint8)])


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def channels_first(array):
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PICTURE, PICTURE), (ALPHA, PICTURE), (GREY, GREY), (GREY[:, :, None], GREY),
        # of every type of float: 238 / 255 and the like are rounded, not cut
        (PICTURE / 255, PICTURE), ((PICTURE / 255).astype(np.float32), PICTURE),
        ((PICTURE / 255).astype(np.float16), PICTURE), (GREY / 255, GREY),
        (np.zeros((2, 2)), np.zeros((2, 2))), (np.ones((2, 2), np.float32), np.full((2, 2), 255)),
        (PICTURE[:, ::-1], PICTURE[:, ::-1]),
        (channels_first(PICTURE), PICTURE), (channels_first(ALPHA), PICTURE),
        (channels_first(PICTURE).double() / 255, PICTURE), (torch.from_numpy(GREY.copy()), GREY),
        ((channels_first(PICTURE) / 255).requires_grad_(), PICTURE),
        (torch.from_numpy(GREY.copy())[None], GREY), (torch.tensor([[0.0, 1.0]]).bfloat16(), [[0, 255]]),
        (png(PICTURE), PICTURE), (bytearray(png(ALPHA)), PICTURE), (memoryview(png(PICTURE)), PICTURE),
        (Image.fromarray(PICTURE), PICTURE), (Image.fromarray(ALPHA), PICTURE), (Image.fromarray(GREY), GREY),
        (Image.fromarray(GREY).convert("LA"), np.dstack([GREY] * 3)),
        (Image.fromarray(GREY).convert("P"), np.dstack([GREY] * 3)),
        (Image.fromarray(GREY > 100), np.dstack([(GREY > 100) * 255] * 3)),
        # 16 bits: the upper eight, as of a file
        (Image.fromarray(GREY.astype(np.uint16) * 257), GREY),
        # not read yet
        (Image.open(io.BytesIO(png(PICTURE))), PICTURE),
    ],
)  # fmt: skip
def test_what_is_a_picture(given, expected):
    assert is_one(given)
    got = to_array(given)
    assert got.dtype == np.uint8 and got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)


def test_an_image_of_pillow_is_turned_as_its_file_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(np.rot90(PICTURE).copy()).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(to_array(tmp_path / "turned.png"), PICTURE)
    np.testing.assert_array_equal(to_array(Image.open(tmp_path / "turned.png")), PICTURE)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (PICTURE / 127, "floats from 0 to 1 expected, got 0 to 1.874"),
        (np.array([[0.5, np.nan]]), "floats from 0 to 1 expected, got nan"),
        (torch.tensor([[-0.1]]), "floats from 0 to 1 expected, got -0.1"),
        (PICTURE.astype(np.int64), "got int64"),
        (PICTURE > 3, "got bool"),
        (np.zeros((3, 20, 30), np.uint8), r"got \(3, 20, 30\); give picture.transpose\(1, 2, 0\)"),
        (torch.zeros(20, 30, 3), r"\(3, H, W\) or \(4, H, W\) expected, got \(20, 30, 3\); give picture.permute\(2, 0"),
        (torch.zeros(2, 3, 4, 4), r"several pictures are given as list\(pictures\)"),
        (np.zeros((2, 3, 4, 3), np.uint8), r"several pictures are given as list\(pictures\)"),
        (b"", "0 bytes that are no photo"),
        (b"GIF89a" + bytes(30), "36 bytes that are no photo"),
        (png(PICTURE)[:-20], "bytes that are no photo"),
        (Image.fromarray(GREY.astype(np.float32)), "mode F"),
        (None, "got NoneType"),
        ("no/such.jpg", "no/such.jpg: missing file"),
        ("a\0b", "missing file"),
    ],
)
def test_what_is_none_is_said_in_one_line(given, said):
    with pytest.raises(InputError, match=said) as caught:
        to_array(given)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_broken_image_of_pillow(tmp_path):
    with pytest.raises(InputError, match=r"a folder; give it alone, with stream=True"):
        to_array(tmp_path)
    half = Image.open(io.BytesIO(png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[:6000]))
    with pytest.raises(InputError, match="a PIL image that can't be read"):
        to_array(half)


def test_a_jpeg_without_an_end_is_read_as_far_as_it_goes(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), 120, np.uint8)).save(stream, "jpeg")
    content = stream.getvalue()[:-2]
    (tmp_path / "cut.jpg").write_bytes(content)
    for given in (tmp_path / "cut.jpg", content):
        with pytest.warns(UserWarning, match="without an end marker, read as far as it goes"):
            assert to_array(given).mean() == pytest.approx(120, abs=2)


def test_lists_generators_and_stacks_hold_many():
    for many in ([PICTURE], (PICTURE,), iter([PICTURE]), np.stack([PICTURE] * 2), torch.zeros(2, 3, 4, 4)):
        assert not is_one(many)
    # what is no picture is one that can't be read
    assert is_one(7) and is_one(None)


@pytest.fixture
def site():
    """A server of this computer: /a.png is PICTURE, /none is missing, /words is text, /there leads to /a.png."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            content = {"/a.png": png(PICTURE), "/words": b"Hello", "/there": b""}.get(self.path)
            self.send_response(302 if self.path == "/there" else 200 if content is not None else 404)
            if self.path == "/there":
                self.send_header("Location", "/a.png")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address(site):
    np.testing.assert_array_equal(to_array(f"{site}/a.png"), PICTURE)
    np.testing.assert_array_equal(to_array(f"{site}/there"), PICTURE)
    with pytest.raises(InputError, match=r"/none: cannot be fetched \(HTTP Error 404"):
        to_array(f"{site}/none")
    with pytest.raises(InputError, match=r"/words: 5 bytes that are no photo"):
        to_array(f"{site}/words")
    with pytest.raises(InputError, match=r"^http://127.0.0.1:1/a.png: cannot be fetched") as caught:
        to_array("http://me:secret@127.0.0.1:1/a.png")
    assert "secret" not in str(caught.value)
