"""Darknet's augmentation: boxes worked by hand, a drawn square that its box must follow, colours, and inputs."""

import colorsys

import cv2
import numpy as np
import pytest
from PIL import Image

from fer.darknet.torch_engine.training.augment import (
    ClassifierAugmentation,
    Colour,
    augment_classifier,
    augment_colour,
    cutmix,
    distort,
    draw_cut,
    draw_factor,
    mosaic,
)
from fer.darknet.torch_engine.training.detector_augment import (
    DetectorAugmentation,
    Margins,
    augment_detector,
    clip_boxes,
    cut_out,
    draw_margins,
    mosaic_detector,
    move_boxes,
    place_at_random,
)
from fer.darknet.torch_engine.training.reading import PhotoError, open_photo

STILL = {"jitter": 0, "resize": 1, "flip": False}
LIVELY = {
    "alexeyab": DetectorAugmentation(jitter=0.3, resize=1.5),
    "letterbox": DetectorAugmentation(jitter=0.2, letter_box=True),
    "pjreddie": DetectorAugmentation(dialect="pjreddie", jitter=0.3),
}


def picture(width, height, seed=0):
    """A smooth picture, so that a shift by a part of a pixel changes little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def square(width, height, left, upper, side, colour=(255, 255, 255)):
    """A photo of one bright square on black, and its box."""
    photo = np.zeros((height, width, 3), np.uint8)
    photo[upper : upper + side, left : left + side] = colour
    box = [0, (left + side / 2) / width, (upper + side / 2) / height, side / width, side / height]
    return photo, np.array([box])


def corners(boxes, size):
    """Left, upper, right, lower in pixels."""
    scale = np.array(size)
    return np.concatenate([(boxes[:, 1:3] - boxes[:, 3:] / 2) * scale, (boxes[:, 1:3] + boxes[:, 3:] / 2) * scale], 1)


def extent(bright):
    """Left, upper, right, lower of the bright pixels."""
    rows, columns = np.nonzero(bright.any(1))[0], np.nonzero(bright.any(0))[0]
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def test_a_box_is_moved_clipped_flipped_and_dropped():
    boxes = np.array([[2, 0.5, 0.5, 0.2, 0.4], [1, 0.1, 0.9, 0.2, 0.2], [0, 0, 0, 0.3, 0.3], [3, 1.3, 0.5, 0.2, 0.2]])
    # the right half: the first box keeps its right half, the second lies outside, the others are the programs' "none"
    moved = move_boxes(boxes, (0.5, 0, 0.5, 1), flip=False)
    np.testing.assert_allclose(moved, [[2, 0.1, 0.5, 0.2, 0.4]])
    np.testing.assert_allclose(move_boxes(boxes, (0.5, 0, 0.5, 1), flip=True), [[2, 0.9, 0.5, 0.2, 0.4]])
    # twice as high: a band above and below
    moved = move_boxes(boxes[:2], (0, -0.5, 1, 2), flip=False)
    np.testing.assert_allclose(moved, [[2, 0.5, 0.5, 0.2, 0.2], [1, 0.1, 0.7, 0.2, 0.1]])
    assert len(clip_boxes(moved, (0, 0, 1, 1), (0.01, 0.15))) == 1


def test_a_detectors_photo_is_stretched_and_its_box_stays():
    photo, boxes = picture(90, 40), np.array([[1, 0.3, 0.4, 0.2, 0.2]])
    image, moved = augment_detector(photo, boxes, (64, 48), DetectorAugmentation(**STILL), np.random.default_rng(0))
    np.testing.assert_array_equal(image, cv2.resize(photo, (64, 48), interpolation=cv2.INTER_LINEAR))
    np.testing.assert_allclose(moved, boxes)


def test_a_letterbox_puts_bands_of_the_mean_colour_around_a_photo():
    photo = np.full((40, 80, 3), (10, 60, 200), np.uint8)
    photo[:, 40:] = (30, 80, 100)
    boxes = np.array([[1, 0.5, 0.5, 0.25, 1.0]])
    options = DetectorAugmentation(**STILL, letter_box=True)
    image, moved = augment_detector(photo, boxes, (64, 64), options, np.random.default_rng(0))
    assert image[:15].reshape(-1, 3).tolist() == [[20, 70, 150]] * 15 * 64
    assert image[17, 5].tolist() == [10, 60, 200] and image[46, 60].tolist() == [30, 80, 100]
    np.testing.assert_allclose(moved, [[1, 0.5, 0.5, 0.25, 0.5]])


def test_debians_letterbox_puts_the_photo_on_grey():
    photo = np.full((40, 80, 3), 9, np.uint8)
    image, window = place_at_random(photo, (64, 64), 0, np.random.default_rng(3))
    rows = np.nonzero((image == 9).all((1, 2)))[0]
    assert len(rows) == 32 and (np.delete(image, rows, 0) == 128).all()
    # the picture begins above the photo by as many of the photo's heights as 32 pixels are one
    np.testing.assert_allclose(window, (0, -rows[0] / 32, 1, 2))


def test_margins_cut_the_photo_and_add_its_mean_colour():
    photo = picture(60, 40)
    cut, window = cut_out(photo, Margins(10, 20, 5, 15), (30, 20))
    np.testing.assert_array_equal(cut, photo[5:25, 10:40])
    np.testing.assert_allclose(window, (10 / 60, 5 / 40, 30 / 60, 20 / 40))
    padded, window = cut_out(photo, Margins(-10, 0, 0, -4), (70, 44))
    np.testing.assert_array_equal(padded[:40, 10:], photo)
    assert np.abs(padded[:, :10] - photo.mean((0, 1))).max() < 1
    np.testing.assert_allclose(window, (-10 / 60, 0, 70 / 60, 44 / 40))


def test_jitter_and_resize_stay_within_their_bounds_and_reach_them():
    draws = [
        draw_margins(200, 100, (64, 64), DetectorAugmentation(jitter=0.2), np.random.default_rng(i)) for i in range(500)
    ]
    left, lower = (np.array([getattr(draw, side) for draw in draws]) for side in ("left", "lower"))
    assert -40 <= left.min() < -36 and 36 < left.max() <= 40 and abs(left.mean()) < 3
    assert -20 <= lower.min() < -18 and 18 < lower.max() <= 20
    # resize 2: from half of the photo added on each side to a quarter cut off
    draws = [
        draw_margins(200, 100, (64, 64), DetectorAugmentation(jitter=0, resize=2), np.random.default_rng(i))
        for i in range(500)
    ]
    left, upper = (np.array([getattr(draw, side) for draw in draws]) for side in ("left", "upper"))
    assert -100 <= left.min() < -97 and 48 < left.max() <= 50 and abs(left.mean() + 25) < 6
    np.testing.assert_allclose(left / 200, upper / 100, atol=0.02)
    # nothing would be left of it: the whole photo
    options = DetectorAugmentation(jitter=0.99)
    kept = [draw_margins(50, 50, (64, 64), options, np.random.default_rng(i)) for i in range(200)]
    assert all(m.left + m.right < 50 and m.left < 50 and m.right < 50 for m in kept)
    assert Margins(0, 0, 0, 0) in kept


@pytest.mark.parametrize("name", LIVELY)
def test_a_box_follows_its_square(name):
    found = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        photo, boxes = square(160, 120, *rng.integers(5, 60, 2), 50)
        image, moved = augment_detector(photo, boxes, (128, 96), LIVELY[name], rng)
        # the bands are grey, and the square's edges are blurred over two pixels
        bright = image[..., 0] > 190
        if not len(moved):
            assert not bright.any()
            continue
        np.testing.assert_allclose(corners(moved, (128, 96))[0], extent(bright), atol=1.6)
        found += 1
    assert found > 140


def test_boxes_follow_their_squares_through_a_mosaic():
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
    options, found = LIVELY["alexeyab"], 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        photos = []
        for part, colour in enumerate(colours):
            photo, boxes = square(160, 120, *rng.integers(5, 60, 2), 50, colour)
            boxes[:, 0] = part
            photos.append((photo, boxes))
        image, boxes = mosaic_detector(photos, (128, 96), options, rng)
        for part, colour in enumerate(colours):
            is_colour = (np.abs(image.astype(int) - colour) < 90).all(2)
            mine = boxes[boxes[:, 0] == part]
            if is_colour.sum() < 30:
                continue
            np.testing.assert_allclose(corners(mine, (128, 96))[0], extent(is_colour), atol=1.6)
            found += 1
        assert (corners(boxes, (128, 96)) > -1e-9).all() and (boxes[:, 1:3] + boxes[:, 3:] / 2 < 1 + 1e-9).all()
    assert found > 300


def test_a_mosaic_of_still_photos_shows_the_corners_at_the_point():
    photos = [(np.full((32, 32, 3), 50 * part, np.uint8), np.array([[part, 0.5, 0.5, 1, 1]])) for part in range(4)]
    image, boxes = mosaic_detector(photos, (40, 40), DetectorAugmentation(**STILL), np.random.default_rng(1))
    column, row = np.nonzero(image[0, :, 0])[0][0], np.nonzero(image[:, 0, 0])[0][0]
    assert 8 <= column <= 32 and 8 <= row <= 32
    pieces = (image[:row, :column], image[:row, column:], image[row:, :column], image[row:, column:])
    assert [set(piece.ravel().tolist()) for piece in pieces] == [{0}, {50}, {100}, {150}]
    order = np.argsort(boxes[:, 0])
    edges = [[0, 0, column, row], [column, 0, 40, row], [0, row, column, 40], [column, row, 40, 40]]
    np.testing.assert_allclose(corners(boxes, (40, 40))[order], edges, atol=1e-9)


def test_a_classifiers_photo_is_the_plain_resize_where_nothing_is_drawn():
    photo = picture(80, 60)
    options = ClassifierAugmentation(crop=(60, 60), flip=False)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(augment_classifier(photo[:, 10:70], (60, 60), options, rng), photo[:, 10:70])
    half = augment_classifier(picture(80, 80), (40, 40), ClassifierAugmentation(crop=(40, 40), flip=False), rng)
    plain = cv2.resize(picture(80, 80), (40, 40), interpolation=cv2.INTER_LINEAR)
    assert np.abs(half.astype(int) - plain).max() <= 1
    # a net that is not square: a square part, squeezed
    flat = augment_classifier(picture(80, 80), (40, 20), ClassifierAugmentation(crop=(40, 40), flip=False), rng)
    plain = cv2.resize(picture(80, 80), (40, 20), interpolation=cv2.INTER_LINEAR)
    assert np.abs(flat.astype(int) - plain).max() <= 1


def test_a_classifiers_crop_is_a_part_of_the_resized_photo_and_black_outside():
    photo, sides = np.full((100, 150, 3), 200, np.uint8), []
    for seed in range(300):
        options = ClassifierAugmentation(crop=(20, 60), flip=False)
        image = augment_classifier(photo, (40, 40), options, np.random.default_rng(seed))
        left, upper, right, lower = extent(image[..., 0] > 100)
        sides.append(lower - upper)
        assert abs(upper - (40 - lower)) <= 1  # centred
        assert set(np.unique(image[upper + 1 : lower - 1, left + 1 : right - 1])) == {200}
    # 20 to 60 evenly, of which 40 to 60 fill the picture
    assert min(sides) in (19, 20, 21) and 0.4 < np.mean(np.array(sides) >= 40) < 0.6
    # Debian's: a small photo moves about
    options = ClassifierAugmentation(crop=(20, 20), flip=False, beyond=True)
    images = [augment_classifier(photo[:, :100], (40, 40), options, np.random.default_rng(i)) for i in range(100)]
    uppers = [extent(image[..., 0] > 100)[1] for image in images]
    assert min(uppers) <= 1 and max(uppers) >= 19


def test_angle_and_aspect_turn_and_stretch_about_the_middle():
    photo, _ = square(101, 101, 80, 45, 11)
    fixed = ClassifierAugmentation(crop=(101, 101), angle=30, flip=False)
    angles = []
    for seed in range(200):
        image = augment_classifier(photo, (101, 101), fixed, np.random.default_rng(seed))
        rows, columns = np.nonzero(image[..., 0] > 127)
        assert abs(len(rows) - 121) < 20
        across, down = columns.mean() - 50, rows.mean() - 50
        assert np.hypot(across, down) == pytest.approx(35, abs=0.5)
        angles.append(np.degrees(np.arctan2(down, across)))
    assert -30.5 < min(angles) < -27 and 27 < max(angles) < 30.5 and abs(np.mean(angles)) < 3
    # the whole photo lies inside; its shorter side is 20 by the program's own reckoning
    photo = np.full((100, 100, 3), 255, np.uint8)
    stretched = ClassifierAugmentation(crop=(20, 20), aspect=0.5, flip=False)
    ratios = []
    for seed in range(200):
        image = augment_classifier(photo, (101, 101), stretched, np.random.default_rng(seed))
        left, upper, right, lower = extent(image[..., 0] > 127)
        ratios.append((right - left) / (lower - upper))
    assert 0.45 < min(ratios) < 0.55 and 1.85 < max(ratios) < 2.15 and 0.4 < np.mean(np.array(ratios) > 1) < 0.6


def test_half_of_the_pictures_are_flipped():
    photo = picture(40, 40)
    options = ClassifierAugmentation(crop=(40, 40))
    images = [augment_classifier(photo, (40, 40), options, np.random.default_rng(i)) for i in range(200)]
    flipped = sum(np.array_equal(image, photo[:, ::-1]) for image in images)
    assert 70 < flipped < 130 and flipped + sum(np.array_equal(image, photo) for image in images) == 200


@pytest.mark.parametrize("change", [(0.1, 1, 1), (-0.3, 1, 1), (0, 1.5, 1), (0, 0.4, 1), (0, 1, 1.5), (0.07, 1.4, 0.7)])
def test_colours_change_as_in_hsv(change):
    """Against Python's own colorsys, with the program's rule that only the result is cut off."""
    hue, saturation, exposure = change
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    wanted = []
    for pixel in image.reshape(-1, 3) / 255:
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        wanted.append(colorsys.hsv_to_rgb((h + hue) % 1, s * saturation, v * exposure))
    wanted = np.clip(np.array(wanted).reshape(image.shape) * 255, 0, 255)
    assert np.abs(distort(image, *change) - wanted).max() <= 0.51


def test_grey_stays_grey_and_nothing_stays_nothing():
    grey = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(distort(grey, 0.2, 3, 1), grey)
    twice = np.minimum(grey.astype(int) * 2, 255)
    np.testing.assert_array_equal(distort(grey, -0.2, 0.1, 2), twice)
    image = picture(20, 20)
    np.testing.assert_array_equal(augment_colour(image, Colour(), np.random.default_rng(0)), image)


def test_factors_are_as_often_inverse():
    rng = np.random.default_rng(0)
    for most in (1.5, 0.75):
        factors = np.array([draw_factor(most, rng) for _ in range(4000)])
        low, high = min(most, 1 / most), max(most, 1 / most)
        assert low <= factors.min() < low + 0.01 and high - 0.01 < factors.max() <= high
        assert 0.47 < np.mean(factors > 1) < 0.53
    # uniform from 1 to 1.5 where above 1, from 0.75 to 1 where a factor of 0.75 is below it
    above = np.array([factor for factor in (draw_factor(1.5, rng) for _ in range(4000)) if factor > 1])
    assert abs(above.mean() - 1.25) < 0.01


def test_cutmix_and_mosaic_tell_what_share_each_photo_has():
    images = [np.full((50, 60, 3), value, np.uint8) for value in (0, 1, 2, 3)]
    for seed in range(100):
        rng = np.random.default_rng(seed)
        image, shares = cutmix(images[0], images[1], rng)
        np.testing.assert_allclose(shares, [(image == 0).mean(), (image == 1).mean()])
        left, upper, right, lower = extent(image[..., 0] > 0)
        assert (image[upper:lower, left:right] == 1).all()
        assert 18 <= right - left <= 48 and 15 <= lower - upper <= 40
        cut = draw_cut((60, 50), rng)
        assert 12 <= cut[0] <= 48 and 10 <= cut[1] <= 40
        image, shares = mosaic(images, cut)
        np.testing.assert_allclose(shares, [(image == value).mean() for value in range(4)])
        assert shares[0] == pytest.approx(cut[0] * cut[1] / 3000)
        assert [image[0, 0, 0], image[0, -1, 0], image[-1, 0, 0], image[-1, -1, 0]] == [0, 1, 2, 3]


def test_a_photo_that_is_none_is_named(tmp_path):
    with pytest.raises(PhotoError, match="gone.jpg: missing file; make the Darknet folder anew"):
        open_photo(str(tmp_path / "gone.jpg"))
    Image.fromarray(picture(64, 64)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-100])
    with pytest.raises(PhotoError, match="cut.jpg: truncated; ") as caught:
        open_photo(str(tmp_path / "cut.jpg"))
    assert "\n" not in str(caught.value)
