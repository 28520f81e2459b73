"""A photo as a net sees it: letterbox, stretch and the middle, by hand and against Debian's program."""

import numpy as np
import pytest
from PIL import Image

from fer.darknet.formats.cfg import parse
from fer.darknet.formats.weights import Net
from fer.darknet.program_engine.program import find_program
from fer.darknet.program_engine.scores import classify
from fer.darknet.torch_engine.picture import Place, centre, place, read_picture


def test_a_photo_is_put_into_a_letterbox_or_stretched():
    photo = np.full((100, 200, 3), 255, np.uint8)
    x, where = place(photo, 64, 64, letterbox=True)
    assert (x[:16] == 0.5).all() and (x[16:48] > 0.99999).all() and (x[48:] == 0.5).all()
    assert where == Place(0, 0.25, 1, 0.5)
    x, where = place(photo, 64, 64, letterbox=False)
    assert (x > 0.99999).all() and where == Place(0, 0, 1, 1)
    # as narrow as it gets: a pixel is left of it
    assert place(np.zeros((2, 1000, 3), np.uint8), 64, 64, letterbox=True)[1].height == 1 / 64


def test_the_shorter_side_is_resized_and_the_middle_cut_out():
    photo = np.zeros((30, 90, 3), np.uint8)
    photo[:, 30:60] = 255
    x = centre(photo, 30)
    assert x.shape == (30, 30, 3) and (x > 0.99999).all()
    # corners stay corners: every second pixel of five
    row = np.array([0, 60, 120, 180, 240], np.uint8)
    ramp = np.broadcast_to(row[None, :, None], (5, 5, 3)).copy()
    np.testing.assert_allclose(place(ramp, 3, 3, False)[0][0, :, 0] * 255, [0, 120, 240], rtol=1e-6)


@pytest.mark.darknet
def test_inputs_are_those_of_debians_program(tmp_path):
    """A net that hands its input on, whose outputs `classifier fout` prints with six digits."""
    cfg = "[net]\nbatch=1\nwidth=16\nheight=16\nchannels=3\n[convolutional]\nfilters=3\nsize=1\nactivation=linear\n"
    weights = tmp_path / "net.weights"
    header = np.array([0, 2, 0, 0, 0], "<i4").tobytes()
    weights.write_bytes(header + np.concatenate([np.zeros(3), np.eye(3).ravel()]).astype("<f4").tobytes())
    (tmp_path / "net.cfg").write_text(cfg)
    names = tuple(f"c{i}" for i in range(3 * 16 * 16))
    net = Net(weights, tmp_path / "net.cfg", names, parse(cfg), "classifier")
    photos = []
    for number, size in enumerate(((16, 16), (61, 47), (40, 90), (11, 13))):
        photos.append(tmp_path / f"photo{number}.png")
        noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(photos[-1])
    said = classify(find_program("darknet"), net, names, photos, tmp_path / "work").reshape(-1, 3, 16, 16)
    for photo, wanted in zip(photos, said, strict=True):
        x = centre(read_picture(photo), 16)
        np.testing.assert_allclose(x.transpose(2, 0, 1), wanted, atol=2e-6)
