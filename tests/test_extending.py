"""The examples of docs/extending.md, from an empty folder: each section's files are written, its commands run."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/extending.md").read_text()
SECTIONS = {
    part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:] if "```sh" in part
}
#: Whose commands are processes of their own, as a user's are; the others share this one's imports.
AS_PROCESSES = "A network"


def files(section):
    return re.findall(r"^`([\w./]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def home(tmp_path, monkeypatch, shared, run):
    """An empty folder, but for the faces that most examples would draw again; no example sees modules of another."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    drawn = shared("drawn300", lambda folder: run("prepare.py", "data=sample", "data.photos=300", cwd=folder))
    shutil.copytree(drawn / "data", tmp_path / "data")
    yield tmp_path
    for name in sys.modules.keys() - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize("name", SECTIONS)
def test_the_examples_run_from_an_empty_folder(name, home, run, process):
    if name == AS_PROCESSES:
        shutil.rmtree(home / "data")
    start = process if name == AS_PROCESSES else run
    for path, text in files(SECTIONS[name]):
        assert len(text.splitlines()) <= 30
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    for block in re.findall(r"^```sh\n(.*?)^```$", SECTIONS[name], flags=re.DOTALL | re.MULTILINE):
        for line in block.strip().splitlines():
            program, *words = shlex.split(line)
            assert program == "fer"
            done = start("fer/__main__.py", *words, cwd=home)
            if "model=stripes" in words:
                assert re.search(r"^score it: .* evaluate ckpt=.*/best[.]ckpt trust=\[my_net\]$", done.stdout, re.M)
    assert any(home.rglob("best.ckpt")) or any(home.rglob("predictions.csv"))


def test_one_section_is_run_as_a_user_does():
    assert AS_PROCESSES in SECTIONS
