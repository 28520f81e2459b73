"""What a command writes is its own while it runs, and a place that takes no file is named in one line."""

import pytest

from fer.data.source import FaceFormat
from fer.system.files import claiming
from tests.conftest import write_tiny

COMMANDS = {
    "prepare": ["data=sample", "data.photos=60", "out=there/out"],
    "train": ["data=fer2013", "data.file=tiny.h5", "model=vgg_small", "trainer=cpu", "hydra.run.dir=there/out"],
    "evaluate": ["ckpt=fer2013_vgg9", "data=fer2013", "data.file=tiny.h5", "device=cpu", "out=there/out"],
    "predict": ["ckpt=fer2013_vgg9", "source=in", "device=cpu", "out=there/out"],
    "export": ["ckpt=fer2013_vgg9", "out=there/out"],
    "look": ["file=tiny.h5", "out=there/out"],
}
FORMATS = ("h5", "csv", "folder", "litdata", "darknet_detector", "darknet_classifier")


@pytest.fixture
def home(tmp_path):
    write_tiny(tmp_path / "tiny.h5", {"train": 70, "val": 14, "test": 14}, FaceFormat(size=48))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/photo.jpg").write_bytes(b"no photo")
    return tmp_path


def only_line(done):
    """Return the line that begins with error: behind the progress bars, the only one that is no bar."""
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
    assert len(lines) == 1, done.stderr
    return lines[0].strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_another_process_writes_is_left_to_it(home, run, command):
    with claiming(home / "there/out"):
        done = run(f"{command}.py", *COMMANDS[command], cwd=home, code=2)
        assert only_line(done).startswith(f"error: {home}/there/out: another process is writing it: wait for it to end")
        # of a run folder Hydra has written the config
        files = [path for path in (home / "there").rglob("*") if path.is_file() and path.parent.name != ".hydra"]
        assert [path.name for path in files] == [".out.lock"]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "prepare"])
def test_a_place_that_takes_no_file_is_one_line(home, run, command):
    (home / "there").touch()
    done = run(f"{command}.py", *COMMANDS[command], cwd=home, code=2)
    assert only_line(done).startswith("error: ") and "not a directory" in done.stderr and "there/out" in done.stderr
    assert sorted(path.name for path in home.iterdir()) == ["in", "there", "tiny.h5"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_place_that_takes_no_prepared_file_is_one_line(home, run, form):
    (home / "there").touch()
    done = run("prepare.py", "data=sample", f"format={form}", "out=there/out", cwd=home, code=2)
    assert only_line(done) == f"error: {home}/there/out: not written, not a directory: choose another place"
    assert sorted(path.name for path in home.iterdir()) == ["in", "there", "tiny.h5"]
