import numpy as np
import pytest

from fer.data.readers.pixel_strings import _parse_plain, fit_all, parse_pixels
from fer.data.source import FaceFormat


def plain(values) -> bytes:
    return " ".join(str(value) for value in values).encode()


def test_values_by_hand():
    pixels, bad = parse_pixels([b"0 7 10 99", b"100 199 200 255", b"1 23 4 56"], 4)
    assert pixels.dtype == np.uint8 and bad == []
    assert pixels.tolist() == [[0, 7, 10, 99], [100, 199, 200, 255], [1, 23, 4, 56]]


def test_a_digit_of_the_number_before_is_no_hundred():
    # only digits 0, 1 and 2, so that the sum would not show as a value over 255
    assert parse_pixels([b"21 2 1 0 2 12 1"], 7)[0].tolist() == [[21, 2, 1, 0, 2, 12, 1]]


def test_clean_rows_take_the_fast_path():
    rows = np.random.default_rng(0).integers(0, 256, (4, 2304))
    assert _parse_plain([plain(row) for row in rows], 2304).tolist() == rows.tolist()


def test_every_value_beside_every_width_of_number():
    fields = [plain([left, value, right]) for value in range(256) for left in (0, 47, 255) for right in (3, 81, 209)]
    pixels, bad = parse_pixels(fields, 3)
    assert bad == []
    assert pixels.tolist() == [[int(word) for word in field.split()] for field in fields]


def test_no_value_over_255_wraps():
    for value in (*range(256, 1100), 2550, 9999, 65536, 2**64 + 5, 10**30):
        pixels, bad = parse_pixels([plain([1, 2, 3]), plain([4, value, 6]), plain([7, 8, 9])], 3)
        assert bad == [(1, "a pixel over 255")]
        assert pixels[[0, 2]].tolist() == [[1, 2, 3], [7, 8, 9]]


@pytest.mark.parametrize(
    "field",
    [
        b"5.0 6. 7.000",
        b"5 6.0 7",
        b"5.000000000000000000e+00 6.0E0 0.7e1",
        b"5   6 7",
        b" 5 6 7",
        b"5 6 7 ",
        b"   5 6  7   ",
        b"5\t6\t7",
        b"\t5 6 7\r\n",
        b"05 006 007",
        b"0005 6 000000007",
    ],
)
def test_white_space_and_leading_zeros_are_harmless(field):
    pixels, bad = parse_pixels([b"1 2 3", field, b"8 9 10"], 3)
    assert bad == []
    assert pixels.tolist() == [[1, 2, 3], [5, 6, 7], [8, 9, 10]]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"", "0 pixels, expected 3"),
        (b"   ", "0 pixels, expected 3"),
        (b"5 6", "2 pixels, expected 3"),
        (b"5 6 7 8", "4 pixels, expected 3"),
        (b"5 -6 7", "a pixel that is not a whole number"),
        (b"5 +6 7", "a pixel that is not a whole number"),
        (b"5 6.5 7", "a pixel that is not a whole number"),
        (b"5 .0 7", "a pixel that is not a whole number"),
        (b"5 -6.0 7", "a pixel that is not a whole number"),
        (b"5 +6.0 7", "a pixel that is not a whole number"),
        (b"5 6.0.0 7", "a pixel that is not a whole number"),
        (b"5 6e 7", "a pixel that is not a whole number"),
        (b"5 6e999 7", "a pixel that is not a whole number"),
        (b"5 6e-1 7", "a pixel that is not a whole number"),
        (b"5 256.0 7", "a pixel over 255"),
        (b"5.0 inf 7", "a pixel that is not a whole number"),
        (b"5.0 0x10 7", "a pixel that is not a whole number"),
        (b"5.0 1_0 7", "a pixel that is not a whole number"),
        (b"5 1_0 7", "a pixel that is not a whole number"),
        (b"5 x 7", "a pixel that is not a whole number"),
        (b"5 6/7 7", "a pixel that is not a whole number"),
        (b"5 6: 7", "a pixel that is not a whole number"),
        (b"5 \x00 7", "a pixel that is not a whole number"),
        ("5 \u0663 7".encode(), "a pixel that is not a whole number"),
        (b"5 6\xa07 8", "a pixel that is not a whole number"),
    ],
)
def test_a_bad_row_is_told_and_its_neighbours_are_untouched(field, reason):
    pixels, bad = parse_pixels([b"1 2 3", field, b"253 254 255"], 3)
    assert bad == [(1, reason)]
    assert pixels[[0, 2]].tolist() == [[1, 2, 3], [253, 254, 255]]


def test_one_value_too_few_is_not_made_up_for_by_one_too_many():
    pixels, bad = parse_pixels([b"1 2 3", b"4 5", b"6 7 8 9", b"10 11 12"], 3)
    assert [index for index, _ in bad] == [1, 2]
    assert pixels[[0, 3]].tolist() == [[1, 2, 3], [10, 11, 12]]
    # the other way round, and with a blank row in place of the missing values
    assert [index for index, _ in parse_pixels([b"6 7 8 9", b"4 5"], 3)[1]] == [0, 1]
    assert [index for index, _ in parse_pixels([b"1 2 3 4 5 6", b""], 3)[1]] == [0, 1]


def test_no_rows():
    pixels, bad = parse_pixels([], 4)
    assert pixels.shape == (0, 4) and bad == []


def test_random_rows_of_48x48_against_int():
    rng = np.random.default_rng(3)
    fields, expected, wrong = [], [], []
    for row in range(150):
        values = rng.integers(0, 256, 2304) >> rng.integers(0, 8)  # dark rows have one and two digits
        words = [str(value).encode() for value in values]
        if row % 10 == 4:
            words[rng.integers(2304)] = rng.choice([b"256", b"300", b"1000", b"-3", b"4.5", b"seven", b"", b"1 2"])
            wrong.append(row)
        gap = b"\t" if row % 10 == 7 else b"  " if row % 10 == 8 else b" "
        fields.append(gap.join(words))
        expected.append(values)
    pixels, bad = parse_pixels(fields, 2304)
    assert [index for index, _ in bad] == wrong and len(wrong) == 15
    for row in set(range(150)) - set(wrong):
        assert pixels[row].tolist() == [int(word) for word in fields[row].split()] == expected[row].tolist()


def test_fit_all_keeps_or_converts():
    images = np.array([[[10, 20], [30, 40]], [[0, 0], [0, 255]]], np.uint8)
    assert fit_all(images, FaceFormat(size=2)) is images
    colour = fit_all(images, FaceFormat(size=2, color="rgb"))
    assert colour.shape == (2, 2, 2, 3) and (colour == images[..., None]).all()
    # the mean over the area: (10 + 20 + 30 + 40) / 4 = 25; 255 / 4 = 63.75
    assert fit_all(images, FaceFormat(size=1)).tolist() == [[[25]], [[64]]]
    assert fit_all(images[:0], FaceFormat(size=5)).shape == (0, 5, 5)
