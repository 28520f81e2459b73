"""The label maps, against the tables of the data sets themselves."""

import pytest

from fer.errors import InputError
from fer.labels import (
    CLASSES,
    CLASSES_WITH_CONTEMPT,
    affectnet_to_label,
    canonical,
    darknet_to_label,
    label_to_darknet,
    require_same,
)


def test_affectnet_codes_go_where_the_original_sends_them():
    # Emotion2's process_csv_save.py: {0:6, 1:3, 2:4, 3:5, 4:2, 5:1, 6:0}; 7 to 10 are dropped
    original = {0: 6, 1: 3, 2: 4, 3: 5, 4: 2, 5: 1, 6: 0, 7: None, 8: None, 9: None, 10: None}
    assert {code: affectnet_to_label(code) for code in range(11)} == original


def test_contempt_is_kept_as_eighth_class():
    assert affectnet_to_label(7, CLASSES_WITH_CONTEMPT) == 7
    assert [affectnet_to_label(code, CLASSES_WITH_CONTEMPT) for code in (0, 6, 8, 10)] == [6, 0, None, None]


@pytest.mark.parametrize("code", [-1, 11])
def test_other_codes_are_refused(code):
    with pytest.raises(InputError, match=str(code)):
        affectnet_to_label(code)


def test_class_orders():
    assert CLASSES == ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")
    # emotion.names of the original experiment: 0 Neutral 1 Happy 2 Sad 3 Surprise 4 Fear 5 Disgust 6 Anger
    assert [CLASSES[darknet_to_label(i)] for i in range(7)] == [
        "Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Angry",
    ]  # fmt: skip
    assert [label_to_darknet(darknet_to_label(i)) for i in range(7)] == list(range(7))


def test_spellings():
    assert [canonical(word) for word in ("Happiness", "ANGER", " sad ", "contempt", "cat")] == [
        "Happy", "Angry", "Sad", "Contempt", None,
    ]  # fmt: skip


def test_names_are_compared_in_order():
    require_same(["a", "b"], ("a", "b"), "x", "y")
    with pytest.raises(InputError, match="model has a, b; file has b, a"):
        require_same(["a", "b"], ["b", "a"], "model", "file")
