"""Tracks of boxes and their smoothed probabilities, against tables worked by hand."""

import numpy as np
import pytest

from fer.data.boxes import iou
from fer.prediction.tracking import Tracker, match

A, B = (0, 0, 10, 10), (100, 0, 10, 10)


def moved(box, dx):
    return (box[0] + dx, *box[1:])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1),
        ((0, 0, 10, 10), (5, 5, 10, 10), 25 / 175),
        ((0, 0, 10, 10), (10, 0, 10, 10), 0),  # they touch
        ((0, 0, 20, 10), (5, 0, 5, 10), 50 / 200),  # one in the other
        ((0, 0, 0, 0), (0, 0, 0, 0), 0),
    ],
)
def test_overlap_is_intersection_over_union(first, second, expected):
    assert iou(first, second) == pytest.approx(expected)
    assert iou(second, first) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([], [A], {}),
        ([A], [], {}),
        ([A, B], [B, A], {0: 1, 1: 0}),
        # both now-boxes overlap the old one: the closer takes it
        ([A], [moved(A, 4), moved(A, 1)], {1: 0}),
        ([A], [moved(A, 8)], {}),  # 20 / 180 is less than 0.3
    ],
)
def test_match_takes_the_best_pair_first(before, now, expected):
    assert match(before, now, 0.3) == expected


def numbers(tracker, frames):
    return [tracker.update(boxes, np.full((len(boxes), 2), 0.5))[0] for boxes in frames]


def test_two_faces_keep_their_numbers_while_they_move_and_change_places_in_the_list():
    frames = [[A, B], [moved(B, 2), moved(A, 2)], [moved(A, 4), moved(B, 4)]]
    assert numbers(Tracker(), frames) == [[1, 2], [2, 1], [1, 2]]


@pytest.mark.parametrize(("gap", "expected"), [(0, 1), (1, 1), (3, 1), (4, 2)])
def test_a_track_survives_a_short_gap(gap, expected):
    tracker = Tracker(max_gap=3)
    assert numbers(tracker, [[A], *[[]] * gap, [A]])[-1] == [expected]


def test_missing_are_the_boxes_of_tracks_in_a_gap():
    tracker = Tracker(max_gap=2)
    found = []
    for boxes in ([A, B], [B], [B], [B]):
        tracker.update(boxes, np.full((len(boxes), 2), 0.5))
        found.append(tracker.missing())
    assert found == [[], [A], [A], []]


@pytest.mark.parametrize(("smooth", "expected"), [(0, [1, 0, 1]), (0.5, [1, 0.5, 0.75]), (0.9, [1, 0.9, 0.91])])
def test_probabilities_are_an_exponential_moving_average(smooth, expected):
    tracker, found = Tracker(smooth), []
    for value in (1, 0, 1):
        _, smoothed = tracker.update([A], np.array([[value, 1 - value]]))
        assert smoothed.sum() == pytest.approx(1)
        found.append(smoothed[0, 0])
    assert found == pytest.approx(expected)


def test_a_new_face_is_not_smoothed_with_another():
    tracker = Tracker(0.9)
    tracker.update([A], np.array([[1.0, 0.0]]))
    _, smoothed = tracker.update([A, B], np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert smoothed == pytest.approx(np.array([[0.9, 0.1], [0.0, 1.0]]))


def test_ended_tracks_are_forgotten():
    tracker = Tracker(max_gap=1)
    for step in range(500):
        tracker.update([moved(A, 50 * step)], np.array([[1.0]]))
    assert len(tracker._tracks) == 2 and tracker._last == 500
