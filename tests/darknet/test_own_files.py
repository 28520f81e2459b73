"""Photos that a program which follows links finds together with their labels."""

import pytest

from fer.darknet.program_engine.own_files import list_own_files, own_file
from fer.errors import InputError


def test_links_of_a_list_become_files_of_their_own(tmp_path):
    theirs, links = tmp_path / "theirs", tmp_path / "links"
    theirs.mkdir()
    links.mkdir()
    for name in "ab":
        (theirs / f"{name}.png").write_bytes(name.encode() * 3)
    # the user's own label, of other numbers than the run's
    (theirs / "a.txt").write_text("7 0.5 0.5 1 1\n")
    (links / "a.png").symlink_to(theirs / "a.png")
    (links / "a.txt").write_text("0 0.5 0.5 1 1\n")
    (theirs / "valid.txt").write_text(f"{links / 'a.png'}\n{theirs / 'b.png'}\n")
    listed = tmp_path / "valid.txt"
    listed.symlink_to(theirs / "valid.txt")
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}

    list_own_files(listed, tmp_path / "photos")

    own = tmp_path / "photos" / "0000000.png"
    assert listed.read_text() == f"{own}\n{theirs / 'b.png'}\n"
    assert not listed.is_symlink() and not own.is_symlink()
    assert own.read_bytes() == b"aaa"
    assert own.with_suffix(".txt").read_text() == "0 0.5 0.5 1 1\n"
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == before
    # a second run in the same folder, as with resume
    listed.write_text(f"{links / 'a.png'}\n")
    list_own_files(listed, tmp_path / "photos")
    assert listed.read_text() == f"{own}\n"


def test_what_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(InputError, match=r"taken\.png: cannot be made of .*a\.png \(Is a directory\)"):
        own_file(tmp_path / "a.png", tmp_path / "taken.png")
