"""The examples of docs/extending.md, from an empty folder: each section's files are written, its commands run."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/extending.md").read_text()
SECTIONS = {
    part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:] if "```sh" in part
}


def files(section):
    return re.findall(r"^`([\w./]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_examples_run_from_an_empty_folder(name, tmp_path):
    for path, text in files(SECTIONS[name]):
        assert len(text.splitlines()) <= 30
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for block in re.findall(r"^```sh\n(.*?)^```$", SECTIONS[name], flags=re.DOTALL | re.MULTILINE):
        for line in block.strip().splitlines():
            program, *words = shlex.split(line)
            assert program == "fer"
            done = subprocess.run(
                [sys.executable, "-m", "fer", *words],
                cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            if "model=stripes" in words:
                assert re.search(r"^score it: .* evaluate ckpt=.*/best[.]ckpt trust=\[my_net\]$", done.stdout, re.M)
    assert any(tmp_path.rglob("best.ckpt")) or any(tmp_path.rglob("predictions.csv"))
