"""Search of consecutive frames: which are searched whole, where the others are searched, on a finder that notes it."""

import cv2
import numpy as np
import pytest
import skimage.data

from fer.prediction.detection import Detection
from fer.prediction.detectors import open_detector
from fer.prediction.frame_search import find_near, search_frames

SIZE = (120, 160)


class Bright:
    """Finds the one white square of a frame by its pixels, and notes the size of what it was asked to search."""

    def __init__(self):
        self.searched = []

    def __call__(self, picture, least=None, quick=False):
        self.searched.append((picture.shape[:2], least))
        rows, columns = np.nonzero(picture[..., 0] == 255)
        if not len(rows):
            return []
        x, y = columns.min(), rows.min()
        return [Detection((float(x), float(y), float(columns.max() + 1 - x), float(rows.max() + 1 - y)), 1.0)]


def frames_with_a_square(lefts, side=20):
    frames = []
    for left in lefts:
        frame = np.zeros((*SIZE, 3), np.uint8)
        if left is not None:
            frame[40 : 40 + side, left : left + side] = 255
        frames.append(frame)
    return frames


@pytest.mark.parametrize("every, whole", [(1, 8), (3, 4), (5, 3), (7, 2), (100, 2)])
def test_a_moving_face_is_found_in_every_frame_and_few_frames_are_searched_whole(every, whole):
    finder, lefts = Bright(), [10 + 2 * at for at in range(8)]
    found = search_frames(finder, frames_with_a_square(lefts), every)
    assert [face.box for (face,) in found] == [(left, 40, 20, 20) for left in lefts]
    assert [shape for shape, _ in finder.searched].count(SIZE) == whole
    near = [(shape, least) for shape, least in finder.searched if shape != SIZE]
    # a side of 20 with 10 all round, wider by the way between the two searched frames; half a face is looked for
    assert all(shape[0] == 40 and 40 < shape[1] <= 40 + 14 and least == 10 for shape, least in near)


def test_no_frames_one_frame_and_frames_without_a_face():
    assert search_frames(Bright(), [], 5) == []
    assert [len(faces) for faces in search_frames(Bright(), frames_with_a_square([30]), 5)] == [1]
    finder = Bright()
    assert search_frames(finder, frames_with_a_square([None] * 6), 5) == [[]] * 6
    assert len(finder.searched) == 2


def test_a_face_that_only_the_frames_between_show_is_missed_unless_all_are_searched():
    frames = frames_with_a_square([None, 30, 30, None])
    assert search_frames(Bright(), frames, 3) == [[], [], [], []]
    assert [len(faces) for faces in search_frames(Bright(), frames, 1)] == [0, 1, 1, 0]


def test_boxes_whose_surroundings_touch_are_searched_once_and_those_outside_not_at_all():
    (frame,) = frames_with_a_square([30])
    finder = Bright()
    boxes = [(30.0, 40.0, 20.0, 20.0), (48.0, 40.0, 20.0, 20.0), (34.0, 44.0, 10.0, 10.0), (300.0, 40.0, 20.0, 20.0)]
    (face,) = find_near(finder, frame, boxes)
    assert face.box == (30, 40, 20, 20)
    assert finder.searched == [((40, 58), 5.0)]


def test_the_astronaut_is_found_between_two_frames_where_the_cascade_finds_her():
    photo, finder = skimage.data.astronaut(), open_detector("haar")
    moves = [np.float32([[1, 0, 3 * at], [0, 1, at]]) for at in range(6)]
    frames = [cv2.warpAffine(photo, move, photo.shape[1::-1], borderMode=cv2.BORDER_REPLICATE) for move in moves]
    for at, (face,) in enumerate(search_frames(finder, frames, 5)):
        x, y, width, height = face.box
        # by eye: her eyes at (204, 103) and (247, 103), her mouth at (221, 145)
        for px, py in ((204, 103), (247, 103), (221, 145)):
            assert x < px + 3 * at < x + width and y < py + at < y + height
        assert 80 < width < 130
