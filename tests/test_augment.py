import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from fer.augment import Augment, augmented_crop_size, center_crop, random_crop_flip, ten_crop
from fer.errors import InputError


def distinct_pixels(n: int, channels: int, height: int, width: int, dtype=torch.int32) -> torch.Tensor:
    return torch.arange(n * channels * height * width).view(n, channels, height, width).to(dtype)


def places(images: torch.Tensor, crops: torch.Tensor) -> list[tuple[int, int, bool]]:
    """(top, left, flipped) of each crop, found by trying all of them, which asserts that it is one of them."""
    size = crops.shape[-1]
    found = []
    for image, crop in zip(images, crops, strict=True):
        candidates = [
            (top, left, flipped)
            for top in range(image.shape[1] - size + 1)
            for left in range(image.shape[2] - size + 1)
            for flipped in (False, True)
            if torch.equal(crop, reference.crop(image.flip(-1) if flipped else image, top, left, size, size))
        ]
        assert len(candidates) == 1
        found += candidates
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_random_crop_flip_takes_every_place_evenly(channels):
    images = distinct_pixels(1000, channels, 6, 8)
    crops = random_crop_flip(images, 5, 0.5, torch.Generator().manual_seed(0))
    assert crops.shape == (1000, channels, 5, 5)
    found = places(images, crops)
    counts = {place: found.count(place) for place in set(found)}
    assert len(counts) == 2 * 4 * 2  # rows x columns x flip
    # 1000 / 16 = 62.5 each with standard deviation 7.7; five of them either side.
    assert 24 < min(counts.values()) and max(counts.values()) < 101


def test_random_crop_flip_44_of_48_reaches_all_25_offsets():
    images = distinct_pixels(400, 1, 48, 48)
    crops = random_crop_flip(images, 44, 0.0, torch.Generator().manual_seed(1))
    first = crops[:, 0, 0, 0] - images[:, 0, 0, 0]
    assert set(first.tolist()) == {48 * top + left for top in range(5) for left in range(5)}


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_come_with_their_probability(probability):
    images = distinct_pixels(2000, 1, 5, 5)
    crops = random_crop_flip(images, 4, probability, torch.Generator().manual_seed(2))
    flipped = (crops[:, 0, 0, 0] > crops[:, 0, 0, 1]).float().mean().item()
    # Standard deviation at 0.3: 0.0102.
    assert flipped == pytest.approx(probability, abs=0.05 if probability == 0.3 else 0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_random_crop_flip_keeps_the_type_and_follows_the_generator(dtype):
    images = torch.randint(256, (64, 3, 48, 48), generator=torch.Generator().manual_seed(3)).to(dtype)
    untouched = images.clone()
    first, again, other = (random_crop_flip(images, 44, 0.5, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert first.dtype == dtype
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, untouched)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(random_crop_flip(channels_last, 44, 0.5, torch.Generator().manual_seed(7)), first)


def test_a_crop_of_the_whole_image_still_flips():
    images = distinct_pixels(1, 1, 4, 4)
    assert torch.equal(random_crop_flip(images, 4, 1.0), images.flip(-1))


@pytest.mark.parametrize(
    ("height", "width", "size"), [(48, 48, 44), (48, 48, 43), (47, 47, 44), (9, 12, 6), (7, 7, 4), (5, 5, 5)]
)
def test_ten_and_center_crop_equal_torchvisions(height, width, size):
    images = distinct_pixels(2, 3, height, width)
    expected = torch.stack(reference.ten_crop(images, [size, size]), dim=1)
    assert torch.equal(ten_crop(images, size), expected)
    assert torch.equal(center_crop(images, size), reference.center_crop(images, [size, size]))


def test_augment_is_random_in_training_only():
    images = distinct_pixels(32, 1, 48, 48)
    augment = Augment(crop=44, flip=0.5)
    torch.manual_seed(4)
    assert len(set(places(images, augment(images)))) > 16
    assert torch.equal(augment.eval()(images), reference.center_crop(images, [44, 44]))
    assert not list(augment.state_dict())


def test_crop_scales_from_the_seeds_44_of_48():
    assert [augmented_crop_size(size) for size in (48, 96, 224)] == [44, 88, 206]


@pytest.mark.parametrize("crop", [center_crop, ten_crop, lambda images, size: random_crop_flip(images, size, 0.5)])
@pytest.mark.parametrize("size", [0, 45])
def test_a_crop_that_does_not_fit_is_refused(crop, size):
    with pytest.raises(InputError, match=rf"crop={size} .* 48x44"):
        crop(torch.zeros(1, 1, 44, 48), size)
