import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from fer.config.checks import augmented_crop_size
from fer.errors import InputError
from fer.models.crops import center_crop, ten_crop
from fer.training.augment import Augment, random_affine, random_crop_flip, random_erase, random_light


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


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_images(n=2, channels=1, height=48, width=48):
    """Floats in [0, 255] that change slowly, so that interpolation at nearly the same place gives nearly the same."""
    coarse = torch.rand((n, channels, 6, 6), generator=generator(5)) * 255
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)


OFF = {"flip": 0.0, "rotate": 0.0, "scale": 0.0, "translate": 0.0}


@pytest.mark.parametrize("shape", [(48, 48), (40, 60)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_affine_of_nothing_is_the_centre_crop_and_a_flip_its_mirror(shape, dtype):
    images = torch.randint(256, (3, 3, *shape), generator=generator()).to(dtype)
    expected = reference.center_crop(images, [36, 36]).float()
    assert torch.allclose(random_affine(images, 36, **OFF), expected, atol=1e-2)
    assert torch.allclose(random_affine(images, 36, **OFF | {"flip": 1.0}), expected.flip(-1), atol=1e-2)


def test_affine_in_bfloat16_training_is_the_same():
    images, some = smooth_images(), {"flip": 0.5, "rotate": 12.0, "scale": 0.1, "translate": 0.1}
    expected = random_affine(images, 44, **some, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(random_affine(images, 44, **some, generator=generator()), expected)


def affine_draws(n, seed=0):
    """What random_affine draws in [-1, 1] for angle, factor, way right and way down, and whether it flips at 0.5."""
    source = generator(seed)
    return 2 * torch.rand((n, 4), generator=source) - 1, torch.rand(n, generator=source) < 0.5


@pytest.mark.parametrize("shape", [(48, 48), (48, 60)])
def test_affine_equals_torchvisions(shape):
    images = smooth_images(6, 1, *shape)
    some = {"flip": 0.5, "rotate": 20.0, "scale": 0.2, "translate": 0.05}
    ours = random_affine(images, 32, **some, generator=generator())
    draws, flips = affine_draws(6)
    assert 0 < flips.sum() < 6
    for image, mine, (angle, factor, right, down), flipped in zip(images, ours, draws.tolist(), flips, strict=True):
        # ours moves the crop, theirs the image, before turning and scaling; ours turns the image against the clock
        moved = reference.affine(
            image[None], 0.0, [-0.05 * right * shape[1], -0.05 * down * shape[0]], 1.0, [0.0, 0.0],
            interpolation=reference.InterpolationMode.BILINEAR,
        )  # fmt: skip
        turned = reference.affine(
            moved, -20 * angle, [0, 0], 1 + 0.2 * factor, [0.0, 0.0],
            interpolation=reference.InterpolationMode.BILINEAR,
        )  # fmt: skip
        theirs = reference.center_crop(turned, [32, 32])
        theirs = (theirs.flip(-1) if flipped else theirs)[0]
        # torchvision interpolates twice; the images rise by up to 20 a pixel
        assert (mine - theirs)[..., 5:-5, 5:-5].abs().mean() < 1.0


def test_a_larger_factor_makes_faces_larger():
    # a spot in the middle, whose sum grows with the square of the factor
    place = torch.arange(48.0) - 23.5
    spot = torch.exp(-(place**2 + place[:, None] ** 2) / 32)
    areas = random_affine(spot.expand(50, 1, -1, -1), 44, **OFF | {"scale": 0.3}, generator=generator()).sum((1, 2, 3))
    draws, _ = affine_draws(50)
    assert torch.allclose(areas, spot.sum() * (1 + 0.3 * draws[:, 1]) ** 2, rtol=0.01)


def test_translation_by_hand():
    # ramps in x and y: a way right of t sides adds 48 t to the first
    ramp = torch.arange(48.0).expand(48, 48)
    images = torch.stack([ramp, ramp.T])[None].expand(20, -1, -1, -1)
    moved = random_affine(images, 24, **OFF | {"translate": 0.1}, generator=generator())
    draws, _ = affine_draws(20)
    assert torch.allclose(moved - reference.center_crop(images, [24, 24]), 4.8 * draws[:, 2:, None, None], atol=1e-3)


def test_outside_is_the_image_reflected():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8).clone()
    moved = random_affine(ramp.expand(30, -1, -1, -1), 8, **OFF | {"translate": 0.5}, generator=generator())
    draws, _ = affine_draws(30)
    place = torch.arange(8) + 4 * draws[:, 2:3]
    # the edges are at -0.5 and 7.5
    place = torch.where(place < -0.5, -1 - place, torch.where(place > 7.5, 15 - place, place)).clamp(0, 7)
    assert torch.allclose(moved[:, 0], place[:, None].expand(-1, 8, -1), atol=1e-3)


def test_light_equals_torchvisions():
    images = torch.randint(256, (8, 1, 20, 20), generator=generator(1)).float()
    ours = random_light(images, 0.3, 0.4, generator())
    bright, sharp = (
        1 + s * (2 * d - 1) for s, d in zip((0.3, 0.4), torch.rand((2, 8), generator=generator()), strict=True)
    )
    for image, mine, b, c in zip(images, ours, bright.tolist(), sharp.tolist(), strict=True):
        theirs = reference.adjust_contrast(reference.adjust_brightness(image / 255, b), c) * 255
        assert torch.allclose(mine, theirs, atol=0.01)
    # and its uint8, which rounds down twice
    byte = reference.adjust_contrast(reference.adjust_brightness(images[0].byte(), bright[0].item()), sharp[0].item())
    assert (ours[0] - byte).abs().max() < 3


def test_erased_rectangles():
    images = torch.randint(256, (4000, 1, 40, 40), generator=generator(2)).float()
    erased = random_erase(images, 0.4, generator())
    changed = (erased != images).flatten(1)
    chosen = changed.any(1)
    # standard deviation 0.0077
    assert chosen.float().mean().item() == pytest.approx(0.4, abs=0.03)
    # 2 to 33 % uniformly: 17.5 % in the mean, but the longest rectangles are cut at the edge
    areas = changed[chosen].float().mean(1)
    assert areas.mean().item() == pytest.approx(0.175, abs=0.01)
    assert areas.min() > 0.01 and areas.max() < 0.37
    for before, after, where in list(zip(images, erased, changed, strict=True))[:200]:
        where = where.view(40, 40)
        rows, columns = where.any(1).nonzero(), where.any(0).nonzero()
        if len(rows):
            # one rectangle, of the image's mean
            box = after[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert torch.allclose(box, before.mean().expand_as(box), atol=1e-3)
    assert torch.equal(random_erase(images, 0.0), images)


def test_erased_places_are_everywhere_and_not_only_wide_or_high():
    erased = random_erase(torch.rand((3000, 1, 30, 30), generator=generator(3)), 1.0, generator())
    touched = (erased[:, 0] == erased[:, 0].flatten(1).mode(1).values[:, None, None]).float().mean(0)
    assert touched[10:20, 10:20].min() > 0.2
    # as often in each half
    assert touched[:15].mean() == pytest.approx(float(touched[15:].mean()), rel=0.1)
    assert touched[:, :15].mean() == pytest.approx(float(touched[:, 15:].mean()), rel=0.1)


@pytest.mark.parametrize(
    "change",
    [
        lambda images, source: random_affine(images, 40, 0.5, 10.0, 0.1, 0.1, source),
        lambda images, source: random_light(images, 0.2, 0.2, source),
        lambda images, source: random_erase(images, 0.5, source),
    ],
)
def test_draws_follow_the_generator_and_leave_the_images(change):
    images = smooth_images(16)
    untouched = images.clone()
    first, again, other = (change(images, generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, untouched)


def test_strong_augmentation_stays_in_range_and_is_off_in_evaluation():
    strong = Augment(44, 0.5, rotate=12, scale=0.1, translate=0.1, brightness=0.3, contrast=0.3, erase=0.5)
    images = torch.randint(256, (64, 3, 48, 48), generator=generator()).byte()
    faces = strong(images)
    assert faces.shape == (64, 3, 44, 44) and faces.dtype == torch.float32
    assert faces.min() >= 0 and faces.max() <= 255
    assert torch.equal(strong.eval()(images), reference.center_crop(images, [44, 44]))


def test_affine_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"crop=45 .* 48x44"):
        random_affine(torch.zeros(1, 1, 44, 48), 45, **OFF)
