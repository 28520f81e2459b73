"""Mean average precision against cases worked by hand and numbers that AlexeyAB's `detector map` printed."""

import numpy as np
import pytest
from PIL import Image

from fer.darknet.program_engine.scores import read_valid
from fer.darknet.scoring.mean_ap import (
    Detections,
    Truth,
    average_precision,
    match,
    mean_average_precision,
    read_truth,
)
from fer.data.boxes import iou
from fer.errors import InputError


def truth_of(*rows):
    """Rows of photo, class, x, y, width, height."""
    table = np.array(rows, float).reshape(-1, 6)
    return Truth(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:])


def found(*rows):
    """Rows of photo, class, confidence, x, y, width, height."""
    table = np.array(rows, float).reshape(-1, 7)
    return Detections(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3:])


def test_iou_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 5, 10], [20, 20, 5, 5], [10, 0, 10, 10], [0, 0, 0, 0]])
    # Half shared of 150; half a box; apart; edge to edge; empty.
    assert iou(boxes[0], boxes) == pytest.approx([1, 50 / 150, 0.5, 0, 0, 0])
    assert iou(boxes[5], boxes[5]) == 0


def test_perfect_detections():
    truth = truth_of([0, 0, 1, 2, 10, 10], [0, 1, 30, 2, 10, 20], [1, 0, 0, 0, 5, 5])
    same = found([0, 0, 0.9, 1, 2, 10, 10], [0, 1, 0.8, 30, 2, 10, 20], [1, 0, 0.7, 0, 0, 5, 5])
    scores = mean_average_precision(same, truth, ("a", "b"))
    assert {scores[key] for key in ("map", "precision", "recall", "f1", "iou")} == {1.0}
    assert (scores["tp"], scores["fp"], scores["fn"], scores["faces"]) == (3, 0, 0, 3)
    assert [(row["name"], row["ap"], row["tp"], row["truths"]) for row in scores["per_class"]] == [
        ("a", 1, 2, 2),
        ("b", 1, 1, 1),
    ]
    assert all(row["curve"] == [1.0] * 101 for row in scores["per_class"])


def test_a_second_detection_of_a_face_is_wrong():
    truth = truth_of([0, 0, 0, 0, 10, 10], [0, 0, 50, 50, 10, 10])
    # The surest lies worse on the face than its double, IoU 80 / 100, and is listed after it.
    twice = found([0, 0, 0.6, 0, 0, 10, 10], [0, 0, 0.9, 0, 0, 10, 8], [0, 0, 0.5, 50, 50, 10, 10])
    scores = mean_average_precision(twice, truth, ("a",))
    assert (scores["tp"], scores["fp"], scores["fn"]) == (2, 1, 0)
    # over all three, as AlexeyAB's program divides
    assert scores["iou"] == pytest.approx((1 + 1) / 3)
    assert scores["by_confidence"]["iou"] == pytest.approx((0.8 + 1) / 3)
    # Right, wrong, right: recall 1/2 at precision 1, recall 1 at 2/3.
    assert scores["map"] == pytest.approx((1 + 2 / 3) / 2)
    assert (scores["precision"], scores["recall"]) == pytest.approx((2 / 3, 1))
    assert scores["f1"] == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert scores["per_class"][0]["curve"][50:52] == pytest.approx([1, 2 / 3])


def test_an_earlier_listed_detection_of_any_confidence_takes_a_face():
    truth = truth_of([0, 0, 0, 0, 10, 10], [1, 0, 0, 0, 10, 10])
    # in photo 0 the unsure one is listed first; in photo 1 the sure one
    one, other = [0, 0, 10, 10], [0, 0, 10, 9]
    rows = found([0, 0, 0.1, *one], [0, 0, 0.9, *other], [1, 0, 0.8, *other], [1, 0, 0.1, *one])
    scores = mean_average_precision(rows, truth, ("a",))
    assert (scores["tp"], scores["fp"], scores["fn"], scores["precision"]) == (1, 1, 1, 0.5)
    assert scores["iou"] == pytest.approx(0.9 / 2)
    assert (scores["per_class"][0]["tp"], scores["per_class"][0]["fp"]) == (1, 1)
    surer = scores["by_confidence"]
    assert (surer["tp"], surer["fp"], surer["fn"], surer["recall"], surer["f1"]) == (2, 0, 0, 1, 1)
    assert surer["iou"] == pytest.approx(0.9)
    # mAP goes by confidence: both faces are found before the first wrong one
    assert scores["map"] == 1
    # over an IoU of .95 the sure ones lie on no face
    strict = mean_average_precision(rows, truth, ("a",), iou_threshold=0.95)
    assert (strict["tp"], strict["fp"], strict["iou_threshold"]) == (0, 2, 0.95)


def test_the_best_face_counts_and_no_second_best_is_looked_for():
    truth = truth_of([0, 0, 0, 0, 10, 10], [0, 0, 2, 0, 10, 10])
    # Both lie best on the first face; the second overlaps the other face by 2/3 and does not take it.
    both = found([0, 0, 0.9, 0, 0, 10, 10], [0, 0, 0.8, 0, 0, 10, 10])
    assert match(both, truth)[0].tolist() == [0, 0]
    assert mean_average_precision(both, truth, ("a",))["tp"] == 1


def test_iou_of_exactly_half_another_class_and_another_photo_are_no_match():
    truth = truth_of([0, 0, 0, 0, 10, 10])
    near = found(
        [0, 0, 0.9, 0, 0, 5, 10], [0, 0, 0.8, 0, 0, 5.01, 10], [0, 1, 0.7, 0, 0, 10, 10], [1, 0, 0.6, 0, 0, 10, 10]
    )
    at, overlap = match(near, truth)
    assert at.tolist() == [-1, 0, -1, -1]
    assert overlap == pytest.approx([0, 0.501, 0, 0])
    scores = mean_average_precision(near, truth, ("a", "b"))
    assert (scores["tp"], scores["fp"], scores["fn"]) == (1, 3, 0)
    # Class a: wrong, right, wrong: 1/2. Class b has no faces, AP 0, and counts in the mean.
    assert [row["ap"] for row in scores["per_class"]] == [0.5, 0]
    assert scores["map"] == 0.25


def test_the_threshold_is_for_the_counts_only():
    truth = truth_of([0, 0, 0, 0, 10, 10], [1, 0, 0, 0, 10, 10])
    unsure = found([0, 0, 0.25, 0, 0, 10, 10], [1, 0, 0.2501, 0, 0, 10, 10])
    scores = mean_average_precision(unsure, truth, ("a",))
    assert (scores["map"], scores["tp"], scores["fn"]) == (1, 1, 1)
    assert mean_average_precision(unsure, truth, ("a",), threshold=0.5)["tp"] == 0


def test_nothing_detected_and_nothing_to_detect():
    scores = mean_average_precision(found(), truth_of([0, 1, 0, 0, 10, 10]), ("a", "b"))
    assert {scores[key] for key in ("map", "precision", "recall", "f1", "iou", "tp", "fp")} == {0}
    assert scores["fn"] == 1
    scores = mean_average_precision(found([0, 1, 0.9, 0, 0, 10, 10]), truth_of(), ("a", "b"))
    assert (scores["map"], scores["recall"], scores["fp"], scores["fn"]) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("right", "truths", "expected"),
    [
        ([1, 1, 1], 3, 1),
        ([0, 0, 1], 1, 1 / 3),
        ([1, 0, 1, 0], 4, (1 + 2 / 3) / 4),  # half of the faces are never found
        # Precision 1/2 at recall 1/3 is raised to the 3/4 that a higher recall has: three times 3/4.
        ([0, 1, 1, 1], 3, 3 / 4),
        ([0, 0], 5, 0),
        ([], 5, 0),
    ],
)
def test_average_precision_by_hand(right, truths, expected):
    assert average_precision(np.array(right, bool), truths)[0] == pytest.approx(expected)


def test_lines_that_detector_valid_wrote(tmp_path):
    # Written by Debian's program for photos of 102 x 91 and 100 x 81 pixels; the third box ends at the lower edge.
    (tmp_path / "comp4_det_test_0.txt").write_text("0000000 0.005012 18.956703 45.328117 45.172699 76.892143\n")
    (tmp_path / "comp4_det_test_1.txt").write_text("")
    (tmp_path / "comp4_det_test_2.txt").write_text(
        "0000000 0.814466 17.065086 35.513866 43.770050 68.148987\n"
        "0000001 0.917753 67.906441 55.931969 94.923302 81.000000\n"
    )
    boxes = read_valid(tmp_path, "comp4_det_test_", {"0000000": (102, 91), "0000001": (100, 81)}, 3)
    assert boxes.photo.tolist() == [0, 0, 1] and boxes.label.tolist() == [0, 2, 2]
    assert boxes.confidence.tolist() == [0.005012, 0.814466, 0.917753]
    assert boxes.box[0] == pytest.approx([17.956703, 44.328117, 26.215996, 31.564026])
    assert boxes.box[2] == pytest.approx([66.906441, 54.931969, 27.016861, 81 - 54.931969])

    for line in ("0000002 0.9 1 1 2 2", "0000000 0.9 1 1 2", "0000000 high 1 1 2 2"):
        (tmp_path / "comp4_det_test_1.txt").write_text(line)
        with pytest.raises(InputError, match="comp4_det_test_1.txt, line 1"):
            read_valid(tmp_path, "comp4_det_test_", {"0000000": (102, 91), "0000001": (100, 81)}, 3)
    with pytest.raises(InputError, match="comp4_det_test_3.txt"):
        (tmp_path / "comp4_det_test_1.txt").write_text("")
        read_valid(tmp_path, "comp4_det_test_", {"0000000": (102, 91), "0000001": (100, 81)}, 4)


def test_truth_beside_the_photos(tmp_path):
    first, second = tmp_path / "a b.png", tmp_path / "c.jpg"
    Image.new("RGB", (200, 100)).save(first)
    Image.new("L", (50, 80)).save(second)
    first.with_suffix(".txt").write_text("1 0.5 0.5 0.25 0.5\n0 0.1 0.2 0.2 0.4\n")
    second.with_suffix(".txt").write_text("")
    truth, sizes = read_truth([first, second], 2)
    assert sizes == [(200, 100), (50, 80)]
    assert truth.photo.tolist() == [0, 0] and truth.label.tolist() == [1, 0]
    assert truth.box == pytest.approx(np.array([[75, 25, 50, 50], [0, 0, 40, 40]]))

    # a byte order mark, blank lines, trailing blanks and a class as another program may write it
    second.with_suffix(".txt").write_bytes(b"\xef\xbb\xbf1.0 0.5 0.5 0.25 0.5  \r\n\r\n \n0 1 1 1 1\n")
    truth, _ = read_truth([first, second], 2)
    assert truth.photo.tolist() == [0, 0, 1, 1] and truth.label.tolist() == [1, 0, 1, 0]
    assert truth.box[2:] == pytest.approx(np.array([[18.75, 20, 12.5, 40], [25, 40, 50, 80]]))
    for text in (
        "2 0.5 0.5 0.2 0.2",
        "0 0.5 0.5 0.2",
        "Happy 0.5 0.5 0.2 0.2",
        "1.5 0.5 0.5 0.2 0.2",
        "-1 0.5 0.5 1 1",
    ):
        second.with_suffix(".txt").write_text(text)
        with pytest.raises(InputError, match="c.txt, line 1"):
            read_truth([first, second], 2)
    fractions = "centre and size are fractions of the photo over 0 and up to 1"
    for box in ("nan 0.5 0.2 0.2", "0.5 0.5 inf 0.2", "0 0.5 0.2 0.2", "1.01 1 1 1", "0.5 0.5 0 0.2", "0.5 0.5 1 -1"):
        second.with_suffix(".txt").write_text(f"0 0.5 0.5 0.2 0.2\n1 {box}\n")
        with pytest.raises(InputError, match=f"c.txt, line 2: .*: {fractions}"):
            read_truth([first, second], 2)
    second.with_suffix(".txt").write_text("0 120 80 40 40\n")
    with pytest.raises(InputError, match=f"c.txt, line 1: '0 120 80 40 40': {fractions}; these look like pixels"):
        read_truth([first, second], 2)
    second.with_suffix(".txt").write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(InputError, match="c.txt: no label file"):
        read_truth([first, second], 2)
    second.with_suffix(".txt").unlink()
    with pytest.raises(InputError, match="c.txt"):
        read_truth([first, second], 2)
    second.write_bytes(b"")
    with pytest.raises(InputError, match="c.jpg"):
        read_truth([first, second], 2)
