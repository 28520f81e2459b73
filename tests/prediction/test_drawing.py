"""Annotated pictures: readable at any size, and faces that are hidden for good."""

import itertools

import cv2
import numpy as np
import pytest

from fer.labels import CLASSES, CLASSES_WITH_CONTEMPT, colors
from fer.prediction.drawing import draw_faces, draw_named, enlargement, hide_faces
from fer.prediction.face import Face

BLUE = (0, 114, 178)


def named(box, label, confidence=0.9, angle=0.0, classes=CLASSES):
    return Face(box, dict.fromkeys(classes, 0.0), label, confidence, None, angle)


def written(picture, boxes, texts, palette):
    """Return the annotated picture, and of each label the part that holds it, None where there is none."""
    drawn, unnamed = draw_faces(picture, boxes, texts, palette), draw_faces(picture, boxes, [""] * len(boxes))
    blank = draw_faces(picture, [], [])
    lines = cv2.dilate(
        (unnamed != blank).any(2).astype(np.uint8), np.ones((7 + max(drawn.shape) // 200,) * 2, np.uint8)
    )
    parts = []
    for color in palette:
        ys, xs = np.nonzero((drawn == color).all(2) & (lines == 0))
        parts.append(drawn[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] if ys.size else None)
    return drawn, parts


@pytest.mark.parametrize(("width", "height", "factor"), [(48, 48, 5), (239, 300, 2), (240, 240, 1), (8000, 6000, 1)])
def test_small_pictures_are_enlarged(width, height, factor):
    assert enlargement(width, height) == factor
    # a strip of one pixel must not become gigabytes
    assert enlargement(1, 60_000) ** 2 * 60_000 <= 4_000_000


@pytest.mark.parametrize(
    ("side", "at"),
    [
        *((side, at) for side in (48, 240, 640) for at in ((0, 0), (0.8, 0.8), (0.4, 0.4), (-0.1, 0.9))),
        (6000, (0.8, 0)),
    ],
)
@pytest.mark.parametrize("size", [0.2, 0.004])
def test_labels_are_inside_and_readable(side, at, size):
    picture = np.full((side, side, 3), 255, np.uint8)
    box = (at[0] * side, at[1] * side, size * side, size * side)
    drawn, (label,) = written(picture, [box], ["Surprise 0.98"], [BLUE])
    factor = enlargement(side, side)
    assert drawn.shape == (side * factor, side * factor, 3) and (picture == 255).all()
    high, wide = label.shape[:2]
    # but for a few rows beside the box: 16 pixels high and 2 % of the picture at least, inside and not cut off, as its
    # 13 letters are 7 times as long
    assert high >= 12 and 0.015 <= high / drawn.shape[0] < 0.1 and 4.5 < wide / high < 11
    assert 0.1 < (label != BLUE).any(2).mean() < 0.5


@pytest.mark.parametrize("color", [*colors(CLASSES_WITH_CONTEMPT).values(), (120, 120, 120), (255, 0, 0)])
def test_letters_stand_out_on_every_colour(color):
    _, (label,) = written(np.full((300, 400, 3), 255, np.uint8), [(99, 99, 60, 60)], ["Sad"], [color])

    def luminance(rgb):
        return sum(
            weight * (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4)
            for weight, part in zip((0.2126, 0.7152, 0.0722), np.array(rgb) / 255, strict=True)
        )

    found = sorted(luminance(pixel) for pixel in label.reshape(-1, 3))
    # WCAG 2.2, 1.4.3
    assert (found[-1] + 0.05) / (found[0] + 0.05) >= 4.5


def simulated(rgb, kind):
    """Return a colour as colour-blind people see it: Vienot, Brettel and Mollon 1999, in linear RGB."""
    linear = np.array([(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb])
    lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    seen = lms @ linear
    if kind == "protan":
        seen[0] = 2.02344 * seen[1] - 2.52581 * seen[2]
    elif kind == "deutan":
        seen[1] = 0.494207 * seen[0] + 1.24827 * seen[2]
    back = np.linalg.solve(lms, seen).clip(0, 1)
    return np.array([[c * 12.92 if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in back]], np.float32)


@pytest.mark.parametrize("kind", ["normal", "protan", "deutan"])
def test_expressions_have_colours_that_everybody_tells_apart(kind):
    lab = [
        cv2.cvtColor(simulated(color, kind)[None], cv2.COLOR_RGB2LAB)[0, 0]
        for color in colors(CLASSES_WITH_CONTEMPT).values()
    ]
    # a difference of 2.3 in CIELAB is just noticeable (Mahy et al. 1994)
    nearest = min(np.linalg.norm(one - other) for one, other in itertools.combinations(lab, 2))
    assert nearest > 5 * 2.3


def test_own_classes_have_colours_of_their_own():
    own = colors(["anger", "bored", *map(str, range(40))])
    assert own["anger"] == colors(CLASSES)["Angry"] and len(set(own.values())) == 42
    drawn = [
        draw_named(np.zeros((300, 300, 3), np.uint8), [named((80, 80, 90, 90), label, classes=("anger", "bored"))])
        for label in ("anger", "bored")
    ]
    for picture, label in zip(drawn, ("anger", "bored"), strict=True):
        assert (picture == own[label]).all(2).sum() > 300


def test_labels_stand_over_no_other_and_hide_no_face():
    rng = np.random.default_rng(5)
    for trial in range(20):
        many = 1 + trial
        boxes = [(*rng.uniform(-20, 620, 2), *[rng.uniform(10, 120)] * 2) for _ in range(many)]
        palette = list(colors([str(n) for n in range(many)]).values())
        picture = np.full((640, 640, 3), 255, np.uint8)
        _, labels = written(picture, boxes, ["1 Happy 0.9"] * many, palette)
        assert sum(label is not None for label in labels) > 0.8 * many
        for color, label in zip(palette, labels, strict=True):
            if label is not None:
                assert not any((label == other).all(2).any() for other in palette if other != color)
    # two faces side by side: the second label goes where it hides neither
    drawn = draw_faces(np.full((300, 600, 3), 255, np.uint8), [(100, 100, 60, 60), (165, 100, 60, 60)],
                       ["Surprise 0.98"] * 2, [BLUE, (230, 159, 0)])  # fmt: skip
    for color in (BLUE, (230, 159, 0)):
        assert ((drawn == color).all(2)[104:156, 104:156]).sum() == 0


def test_a_crowd_keeps_its_faces():
    boxes = [(x, y, 40, 40) for x in range(20, 1900, 60) for y in range(100, 1000, 100)]
    drawn = draw_faces(
        np.full((1080, 1920, 3), 255, np.uint8), boxes, ["Surprise 0.98"] * len(boxes), [BLUE] * len(boxes)
    )
    hidden = [(drawn[y + 6 : y + 34, x + 6 : x + 34] != 255).any(2).mean() for x, y, _, _ in boxes]
    assert np.mean(hidden) < 0.2 and (drawn == BLUE).all(2).mean() > 0.1


@pytest.mark.parametrize("angle", [30.0, -45.0])
def test_the_box_of_a_turned_face_is_turned_with_it(angle):
    from fer.data.source import FaceFormat
    from fer.prediction.detection import crop_upright

    # what the network sees of it, in a picture whose blue channel counts columns and whose green counts rows
    columns, rows = np.meshgrid(np.arange(250), np.arange(250))
    picture = np.stack([np.zeros_like(rows), rows, columns], 2).astype(np.uint8)
    crop = crop_upright(picture, (80, 90, 80, 80), angle, FaceFormat(80, "rgb", 0.0))
    drawn = draw_named(np.zeros((250, 250, 3), np.uint8), [named((80, 90, 80, 80), None, angle=angle)])
    assert (drawn == 255).all(2).any()
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        _, row, column = crop[y, x].tolist()
        assert (drawn[row - 3 : row + 4, column - 3 : column + 4] == 255).all(2).any()
    assert not drawn[115:145, 105:135].any()


def test_an_unnamed_face_has_a_white_box_only():
    picture = np.full((300, 300, 3), 90, np.uint8)
    drawn = draw_faces(picture, [(50, 50, 100, 100)], [""], [BLUE])
    assert not (drawn == BLUE).all(2).any() and (drawn == 255).all(2).any() and (drawn[:45] == 90).all()


def test_any_text_can_be_written():
    picture = np.full((300, 300, 3), 255, np.uint8)
    accents = [draw_faces(picture, [(50, 50, 100, 100)], [label]) for label in ("Dégoût", "Degout")]
    assert not np.array_equal(*accents)
    draw_faces(picture, [(50, 50, 100, 100)], ["喜び\n\x00\u202e" * 30])
    assert np.array_equal(*[draw_faces(picture, [(9, 9, 50, 50)], [label]) for label in ("a\n b", "a b")])


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
