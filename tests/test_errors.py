"""What users are told is one line."""

import pickle

import pytest

from fer.data.photos import read_photo
from fer.data.source import PhotoLimits
from fer.errors import InputError
from fer.prediction.sources import find_media


def test_what_names_contain_moves_no_cursor_and_ends_no_line():
    message = str(InputError("two  blanks\n    new\t\x1b[2J\x7f\r\x85\u2028 喜び é\xa0\U0001f600"))
    assert message == "two  blanks new\\t\\x1b[2J\\x7f 喜び é\xa0\U0001f600"
    # as workers send them
    assert str(pickle.loads(pickle.dumps(InputError("a\nb")))) == "a b"


def test_a_source_of_two_lines_is_one_in_what_is_said(tmp_path):
    with pytest.raises(InputError) as error:
        find_media(f"{tmp_path}/new\nline.jpg")
    assert str(error.value).startswith(f"source={tmp_path}/new line.jpg: no such photo")
    assert read_photo(f"{tmp_path}/new\nline.jpg", "rgb", PhotoLimits()) == "missing file"
