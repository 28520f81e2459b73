"""`augment=wild`: each change against another library's, or against what it says."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fer.errors import InputError
from fer.training import wild
from fer.training.wild import Wild

OFF = {
    "flip": 0, "rotate": 0, "zoom": (1, 1), "translate": 0, "gamma": 0, "contrast": 0, "balance": 0, "equalize": 0,
    "blur": 0, "low_resolution": 0, "noise": 0, "jpeg": 0, "erase": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A smooth grey picture with edges, (48, 48) uint8."""
    rng = np.random.default_rng(0)
    whole = cv2.resize(rng.integers(0, 256, (9, 9)).astype(np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
    cv2.circle(whole, (24, 24), 12, 200, 2)
    return whole


def faces(picture: np.ndarray, count: int = 1) -> Tensor:
    return torch.from_numpy(picture).float().div(255).expand(count, 1, 48, 48).clone()


def amount(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value)


def test_with_everything_off_it_is_the_centre_crop(picture):
    given = Wild(44, **OFF)(faces(picture, 3))
    assert torch.allclose(given, faces(picture, 3)[:, :, 2:46, 2:46], atol=1e-5)


@pytest.mark.parametrize("quality", [10, 40, 70])
def test_jpeg_blocks_are_those_of_libjpeg(picture, quality):
    _, file = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    theirs = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE).astype(float)
    ours = 255 * wild._jpeg(faces(picture), amount(quality), (0, 0)).clamp(0, 1)[0, 0].numpy()
    # pixels are whole there, and a coefficient half way between two steps may fall to either
    assert np.abs(ours - theirs).mean() < 0.7 < np.abs(theirs - picture).mean()


@pytest.mark.parametrize("deviation", [0.5, 1.2])
def test_blur_is_opencvs(picture, deviation):
    theirs = cv2.GaussianBlur(picture.astype(np.float32) / 255, (0, 0), deviation)
    ours = wild._blur(faces(picture), amount(deviation))[0, 0].numpy()
    assert np.abs(ours - theirs)[4:-4, 4:-4].max() < 2e-3


def test_equalisation_is_opencvs(picture):
    ours = 255 * wild._equalize(faces(picture), amount(1.0))[0, 0].numpy()
    assert np.abs(ours - cv2.equalizeHist(picture)).max() < 0.6


def test_low_resolution_is_close_to_a_picture_made_small_and_large_again(picture):
    small = cv2.resize(picture, (24, 24), interpolation=cv2.INTER_AREA)
    theirs = cv2.resize(small, (48, 48), interpolation=cv2.INTER_LINEAR).astype(float)
    ours = 255 * wild._low_resolution(faces(picture), amount(0.5))[0, 0].numpy()
    lost = np.abs(theirs - picture)[2:-2, 2:-2].mean()
    assert np.abs(ours - theirs)[2:-2, 2:-2].mean() < lost / 2


def test_light(picture):
    image = faces(picture)
    assert torch.allclose(wild._gamma(image, amount(1.0)), image**2)
    assert torch.allclose(wild._gamma(image, amount(-1.0)), image.sqrt())
    half = wild._contrast(image, amount(0.5))
    assert half.mean().item() == pytest.approx(image.mean().item(), abs=1e-6)
    assert half.std().item() == pytest.approx(image.std().item() / 2, rel=1e-4)
    reddish = torch.cat([image, image / 2, image / 4], 1)
    assert torch.allclose(wild._balance(reddish, amount(1.0)).mean((2, 3)), torch.full((1, 3), 0.5), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_face_is_changed_by_itself_and_stays_in_range(picture, channels):
    torch.manual_seed(0)
    given = Wild(44)(faces(picture, 64).expand(64, channels, 48, 48))
    assert given.shape == (64, channels, 44, 44)
    assert given.min() >= 0 and given.max() <= 1
    assert len({face.numpy().tobytes() for face in given}) == 64


def test_a_change_comes_as_often_as_asked(picture):
    torch.manual_seed(0)
    given = Wild(44, **{**OFF, "noise": 0.25})(faces(picture, 400))
    changed = (given - faces(picture, 1)[:, :, 2:46, 2:46]).abs().amax((1, 2, 3)) > 1e-4
    assert 70 <= int(changed.sum()) <= 130


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"gamma": 1.5}, "augment.gamma=1.5"),
        ({"zoom": (1.4, 0.7)}, "augment.zoom="),
        ({"zoom": (0.0, 1.0)}, "augment.zoom="),
        ({"rotate": 200}, "augment.rotate=200"),
        ({"translate": 1.0}, "augment.translate=1.0"),
    ],
)
def test_values_out_of_range_are_one_line(option, line):
    with pytest.raises(InputError, match=line):
        Wild(44, **option)
