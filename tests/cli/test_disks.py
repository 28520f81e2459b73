"""Disks that are read-only or run full while a command writes: real ones, small file systems in memory."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import cv2
import pytest

from fer.data.source import FaceFormat
from tests.cli.test_outputs import FORMATS, only_line
from tests.conftest import write_tiny
from tests.prediction.test_run import drawn, write

DARKNET = [
    "darknet=classifier_small", "darknet.engine=torch", "data=sample", "data.photos=48", "darknet.crop=face",
    "darknet.size=16", "darknet.batch=4", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
    "darknet.max_batches=20", "darknet.burn_in=1", "darknet.topk=false",
]  # fmt: skip
TRAIN = ["data=fer2013", "data.file=tiny.h5", "model=vgg_small", "trainer=cpu", "trainer.enable_progress_bar=false"]
COMMANDS = {
    **{f"prepare {form}": ["data=sample", "data.photos=60", f"format={form}", "out=disk/out"] for form in FORMATS},
    "train": [*TRAIN, "trainer.max_epochs=2", "hydra.run.dir=disk/out"],
    "train darknet": [*DARKNET, "hydra.run.dir=disk/out"],
    "evaluate": ["ckpt=fer2013_vgg9", "data=fer2013", "data.file=tiny.h5", "device=cpu", "out=disk/out"],
    "predict": ["ckpt=fer2013_vgg9", "source=in", "device=cpu", "explain=true", "out=disk/out"],
    "export": ["ckpt=fer2013_vgg9", "out=disk/out.onnx"],
    "look": ["file=tiny.h5", "out=disk/out"],
}
#: Shares of what an output takes, at which the disk is full.
MOMENTS = (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
#: What may stay of a command that had no room: what the same command goes on from.
KEPT = {"prepare": "out.partial", "train": "out", "predict": "out"}


@contextmanager
def mounted(place, *options):
    """A small file system in memory at a folder; it is skipped only where this system lets nobody mount one."""
    place.mkdir(exist_ok=True)
    if shutil.which("mount") is None:
        pytest.skip("needs the program mount")
    command = ["mount", "-t", "tmpfs", "-o", ",".join(["mode=755", *options]), "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and (os.geteuid() or "permission denied" in done.stderr or "not permitted" in done.stderr):
        pytest.skip(f"mounts no file system here: {done.stderr.strip()}")
    assert not done.returncode, done.stderr
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory, run):
    """What the commands read: a prepared file, a photo with a face, drawn sample photos; not to be changed."""
    home = tmp_path_factory.mktemp("disks")
    write_tiny(home / "tiny.h5", {"train": 70, "val": 14, "test": 14}, FaceFormat(size=48))
    (home / "in").mkdir()
    write(home / "in/photo.jpg", drawn(160, 160, (80, 80), 30))
    sample = ["data=sample", "data.photos=48", "crop=face", "data.size=16"]
    run("prepare.py", *sample, "format=darknet_classifier", cwd=home)
    run("prepare.py", "data=sample", "data.photos=60", "out=drawn.h5", cwd=home)
    return home


def tree(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def start(run, home, command, code):
    return run(f"{command.split()[0]}.py", *COMMANDS[command], cwd=home, code=code)


def taken(folder):
    """Bytes of a tmpfs in use."""
    usage = os.statvfs(folder)
    return (usage.f_blocks - usage.f_bfree) * usage.f_bsize


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk_is_one_line(made, run, command):
    with mounted(made / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        line = only_line(start(run, made, command, 2))
        assert "read-only file system" in line and "disk/out" in line
        assert not list(disk.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(made, run, command):
    with mounted(made / "disk") as disk:
        start(run, made, command, 0)
        size = taken(disk)
    for share in MOMENTS:
        with mounted(made / "disk", f"size={max(4096, int(size * share))}") as disk:
            (disk / "old").write_text("kept")
            line = only_line(start(run, made, command, 2))
            assert ("no space left on device" in line or "make room" in line) and "disk/out" in line
            left = {name.parts[0] for name in tree(disk)} - {"old"}
            assert left <= {KEPT.get(command.split()[0])}, left
            assert (disk / "old").read_text() == "kept"
            for path in disk.rglob("*"):
                assert path.suffix not in (".tmp", ".lock"), path
                # pictures are whole, and the table is there or not
                assert path.suffix not in (".jpg", ".png") or cv2.imread(str(path)) is not None, path
            if command == "predict":
                assert not (disk / "out/predictions.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name"), [("evaluate", "out/report.json"), ("predict", "out/predictions.csv"), ("export", "out.onnx")]
)
def test_a_full_disk_keeps_the_result_of_before(made, run, command, name):
    with mounted(made / "disk") as disk:
        start(run, made, command, 0)
        size = taken(disk)
    for share in (0.1, 0.3, 0.5):
        with mounted(made / "disk", f"size={max(8192, int(size * share))}") as disk:
            (disk / name).parent.mkdir(exist_ok=True)
            (disk / name).write_text("{}")
            assert "no space left on device" in only_line(start(run, made, command, 2))
            assert (disk / name).read_text() == "{}" and not list(disk.rglob("*.tmp"))
