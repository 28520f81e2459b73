"""Annotated pictures: readable at any size, and faces that are hidden for good."""

import cv2
import numpy as np
import pytest

from fer.prediction.drawing import draw_faces, enlargement, hide_faces

GREEN = np.array([0, 200, 0])


@pytest.mark.parametrize(("width", "height", "factor"), [(48, 48, 5), (239, 300, 2), (240, 240, 1), (8000, 6000, 1)])
def test_small_pictures_are_enlarged(width, height, factor):
    assert enlargement(width, height) == factor
    # a strip of one pixel must not become gigabytes
    assert enlargement(1, 60_000) ** 2 * 60_000 <= 4_000_000


@pytest.mark.parametrize(
    ("side", "at"),
    [
        *((side, at) for side in (48, 240, 640) for at in ((0, 0), (0.8, 0.8), (0.4, 0.4), (-0.1, 0.9))),
        (8000, (0.8, 0)),
    ],
)
def test_labels_are_inside_and_readable(side, at):
    picture = np.full((side, side, 3), 255, np.uint8)
    drawn = draw_faces(picture, [(at[0] * side, at[1] * side, 0.2 * side, 0.2 * side)], ["Surprise 0.98"])
    factor = enlargement(side, side)
    assert drawn.shape == (side * factor, side * factor, 3) and (picture == 255).all()
    ys, xs = np.nonzero((drawn < 60).all(axis=2))
    high, wide = np.ptp(ys) + 1, np.ptp(xs) + 1
    # letters of at least 8 pixels and 1.2 % of the picture, all inside and none cut off: the word's proportions hold
    assert high >= 8 and 0.012 < high / drawn.shape[0] < 0.12
    assert xs.min() > 0 and ys.min() > 0 and xs.max() < drawn.shape[1] - 1 and ys.max() < drawn.shape[0] - 1
    (text_width, text_height), below = cv2.getTextSize("Surprise 0.98", cv2.FONT_HERSHEY_SIMPLEX, 1, 2)
    assert wide / high == pytest.approx(text_width / (text_height + below), rel=0.25)
    # on the strip that gives them contrast
    around = drawn[ys.min() - 1 : ys.max() + 2, xs.min() - 1 : xs.max() + 2]
    assert not (around == 255).all(axis=2).any()


def test_an_unnamed_face_has_a_box_only_and_names_lose_what_the_font_lacks():
    picture = np.full((300, 300, 3), 255, np.uint8)
    assert not (draw_faces(picture, [(50, 50, 100, 100)], [""]) == GREEN).all(axis=2).any()
    same = [draw_faces(picture, [(50, 50, 100, 100)], [label]) for label in ("Dégoût", "Degout")]
    assert np.array_equal(*same)
    draw_faces(picture, [(50, 50, 100, 100)], ["喜び\n\x00" * 30])


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (3, 5)])
def test_pictures_too_narrow_for_a_word_are_drawn_without(shape):
    drawn = draw_faces(np.zeros((*shape, 3), np.uint8), [(0, 0, shape[1], shape[0])], ["Surprise 0.98"])
    assert drawn.size


@pytest.mark.parametrize("side", [30, 400, 3000])
def test_nothing_of_a_face_survives_but_nine_colours(side):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (side, side, 3), np.uint8)
    hidden = hide_faces(noise, [(0.25 * side, 0.25 * side, 0.5 * side, 0.5 * side)])
    # the box with half its size more: a quarter of it on each side
    x0, x1 = round(0.125 * side), side - round(0.125 * side)
    area, before = hidden[x0 + 1 : x1 - 1, x0 + 1 : x1 - 1].astype(float), noise[x0 + 1 : x1 - 1, x0 + 1 : x1 - 1]
    # what is left is what nine numbers a channel can say, whatever the size
    few = cv2.resize(hidden[x0:x1, x0:x1], (3, 3), interpolation=cv2.INTER_AREA)
    assert np.abs(cv2.resize(few, area.shape[:2]).astype(float) - area).mean() < 6
    assert abs(np.corrcoef(area.ravel(), before.ravel())[0, 1]) < (0.25 if side == 30 else 0.03)
    assert np.array_equal(hidden[:, : x0 - 1], noise[:, : x0 - 1])


def test_no_edge_is_left_of_a_hidden_face():
    rng = np.random.default_rng(1)
    checks = rng.integers(0, 2, (4, 4, 1)).repeat(50, 0).repeat(50, 1) * 100 + 60
    hidden = hide_faces(np.repeat(checks, 3, 2).astype(np.uint8), [(0, 0, 200, 200)]).astype(int)
    assert np.abs(np.diff(hidden, axis=0)).max() <= 3 and np.abs(np.diff(hidden, axis=1)).max() <= 3


def test_boxes_over_the_edge_and_outside_are_no_error():
    picture = np.zeros((50, 50, 3), np.uint8)
    hide_faces(picture, [(-20, -20, 40, 40), (45, 45, 100, 100), (500, 0, 5, 5), (0, 0, 0, 0)])
    draw_faces(picture, [(-20, -20, 40, 40), (500, 0, 5, 5)], ["Happy 0.50", "Sad 0.50"])
