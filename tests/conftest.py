"""Tiny real things that several tests need."""

import contextlib
import io
import logging
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import cv2  # noqa: F401  where it is first imported it sets LD_LIBRARY_PATH, which would be taken for a test's
import numpy as np
import pytest
from filelock import FileLock
from hydra.core.singleton import Singleton

import fer.config  # noqa: F401  what it registers is no state of one run, to be put back
from fer.data.source import SPLITS, FaceFormat, empty_faces
from fer.data.storage.hdf5 import write_store
from fer.labels import CLASSES

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items):
    for marker, programs in (("darknet", "darknet"), ("browser", "chromium chromedriver")):
        missing = [program for program in programs.split() if shutil.which(program) is None]
        package = {"chromedriver": "chromium-driver"}
        needs = pytest.mark.skip(reason=f"needs: apt-get install {' '.join(package.get(p, p) for p in missing)}")
        for item in items:
            if missing and item.get_closest_marker(marker):
                item.add_marker(needs)


def write_tiny(path, rows, face=None, class_names=CLASSES, source="tiny", seed=0, noise=10.0):
    """Write a prepared file whose class is the brightness pattern of the face; rows: {"train": 70, ...}."""
    face = face or FaceFormat(size=20)
    generator = np.random.default_rng(seed)
    # stripes whose width grows with the class, so that a few steps of training tell them apart
    stripes = [(np.arange(face.size) // (1 + k)) % 2 * 120 + 60 for k in range(len(class_names))]
    patterns = np.stack([np.broadcast_to(s.reshape(-1, 1, *[1] * (len(face.shape) - 2)), face.shape) for s in stripes])
    blocks = []
    for split, n in rows.items():
        faces = empty_faces(n, face)
        faces.label = np.arange(n) % len(class_names)
        pixels = patterns[faces.label] + generator.normal(0, noise, (n, *face.shape))
        faces.image = pixels.clip(0, 255).astype(np.uint8)
        faces.split[:] = SPLITS.index(split)
        faces.path = [f"{split}-{seed}-{i}" for i in range(n)]
        blocks.append(faces)
    write_store(path, lambda: blocks, tuple(class_names), (source,), face, False, {})
    return path


@pytest.fixture
def tiny(tmp_path):
    """A prepared file of 20 x 20 grey faces: 150 train, 40 val, 40 test."""
    return write_tiny(tmp_path / "tiny.h5", {"train": 150, "val": 40, "test": 40})


@dataclass(slots=True)
class Done:
    """What an entry point left: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def main(script, *arguments, cwd=ROOT, code=0, env=None):
    """Run an entry point within this process, as a user does on the command line; seconds of imports are saved.

    What belongs to the process (folder, environment, arguments, Hydra's state, logging) is put back.
    """
    assert code or "trainer.devices=2" not in arguments, "ranks are started by running the process again: `process`"
    stdout, stderr = io.StringIO(), io.StringIO()
    before = sys.argv, dict(os.environ), os.getcwd(), logging.root.handlers[:], logging.root.level
    sys.argv = [str(ROOT / script), *map(str, arguments)]
    os.environ.update(env or {})
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), Singletons():
            status = exit_code(ROOT / script)
    finally:
        os.chdir(before[2])
        os.environ.clear()
        os.environ.update(before[1])
        sys.argv, logging.root.handlers[:], logging.root.level = before[0], before[3], before[4]
    assert status == code, f"exit code {status}\n{stdout.getvalue()}\n{stderr.getvalue()}"
    return Done(status, stdout.getvalue(), stderr.getvalue())


def exit_code(script):
    """Run a script and return the exit code that its process would have had."""
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


class Singletons(contextlib.AbstractContextManager):
    """Puts back what Hydra knows of the running job."""

    def __enter__(self):
        # its import registers resolvers, once a process; after this line they would be forgotten with the job
        import fer.cli.train  # noqa: F401

        self.state = Singleton.get_state()

    def __exit__(self, *_):
        Singleton.set_state(self.state)


@pytest.fixture(scope="session")
def run():
    """Run one of the entry points in this process; returns its exit code and its output as text."""
    return main


@pytest.fixture(scope="session")
def process():
    """Run one of the entry points as a process of its own; for what only a process shows, as it starts in seconds."""

    def call(*arguments, cwd=ROOT, code=0, timeout=300, env=None):
        script, *rest = map(str, arguments)
        done = subprocess.run(
            [sys.executable, str(ROOT / script), *rest],
            cwd=cwd, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})},
        )  # fmt: skip
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Make a folder once for all tests of all workers: ``shared(name, make)`` calls ``make(folder)`` the first time."""
    base = tmp_path_factory.getbasetemp()
    # each worker of pytest-xdist has a folder of its own below the common one
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name, make):
        folder = base / f"shared-{name}"
        with FileLock(base / f"{name}.lock"):
            if not (folder / "made").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                (folder / "made").touch()
        return folder

    return get


def demo_commands():
    """Return the commands of the Makefile's ``demo`` as lists of script and arguments: prepare, train, score."""
    recipe = (ROOT / "Makefile").read_text().split("\ndemo:")[1].split("\n\n")[0]
    return [shlex.split(command) for command in re.findall(r"\$\(BIN\)/python (.*)", recipe)]


def copy_demo(demo, home):
    """Copy the demo's run and prepared file, for a test that writes beside them; the photos stay where they are."""
    shutil.copytree(demo / "runs", home / "runs")
    (home / "data").mkdir()
    shutil.copy(demo / "data/sample-48-grey.h5", home / "data")


@pytest.fixture(scope="session")
def demo(shared):
    """The folder in which the first two commands of ``make demo`` have run; not to be changed."""

    def make(home):
        for command in demo_commands()[:2]:
            main(*command, cwd=home)

    return shared("demo", make)


@pytest.fixture(scope="session")
def darknet_demo(shared):
    """Train ``experiment=darknet_demo`` once an engine, ``torch`` or ``binary``.

    Returns a function of the engine that gives the folder it was started in, which is not to be changed: the run is in
    runs/darknet_demo/latest, its data in data/, and ``seconds`` holds how long it kept one core busy. Mark what asks
    for it with timeout(900).
    """

    def get(engine):
        def make(home):
            start = os.times()
            where = ["trainer.accelerator=cpu"] if engine == "torch" else []
            run_dir = "hydra.run.dir=runs/darknet_demo/latest"
            main("train.py", "experiment=darknet_demo", f"darknet.engine={engine}", *where, run_dir, cwd=home)
            # of this process and its children; on a clock other workers would count too
            (home / "seconds").write_text(str(sum(os.times()[:4]) - sum(start[:4])))

        return shared(f"darknet_demo_{engine}", make)

    return get


@pytest.fixture(autouse=True)
def nothing_leaks():
    """Fail a test that leaves environment variables or signal handlers behind."""
    before = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    # pytest sets the first for itself, torch and Lightning's seed_everything the others once a process
    ours = {"PYTEST_CURRENT_TEST", "PL_GLOBAL_SEED", "PL_SEED_WORKERS", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}
    changed = {k for k in before.keys() | os.environ.keys() if before.get(k) != os.environ.get(k)} - ours
    changed = {
        k for k in changed if not k.startswith(("TORCHINDUCTOR", "_TORCHINDUCTOR", "KINETO", "TORCH_", "PYTORCH_"))
    }
    assert not changed, f"environment variables left behind: {sorted(changed)}"
    assert handlers == {number: signal.getsignal(number) for number in handlers}, "signal handlers left behind"


def train_config(file, **changes):
    """Compose the training config for a tiny file; changes are overrides such as ``**{"trainer.max_epochs": 2}``."""
    from hydra import compose, initialize_config_dir

    from fer.config.train import check_train

    overrides = {
        "data": "fer2013", "data.file": file, "data.size": 20, "augment.crop": 16, "model": "vgg_small",
        "batch_size": 32,
        "trainer": "cpu", "trainer.max_epochs": 2, "trainer.enable_progress_bar": "false", "optimizer.lr": 0.02,
    }  # fmt: skip
    overrides |= changes
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return check_train(compose("train", [f"{key}={value}" for key, value in overrides.items()]))


def fit(config, out, *callbacks):
    """Train as `fer.training.run.train` does, without its pictures and curves, which take most of a tiny run's time."""
    from fer.training.pictures import Pictures
    from fer.training.run import assemble
    from fer.training.stopping import StopCleanly

    trainer, model, data, resume = assemble(config, out)
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, Pictures)]
    trainer.callbacks.extend(callbacks)
    (stop,) = (callback for callback in trainer.callbacks if isinstance(callback, StopCleanly))
    with stop.watching():
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    return trainer, model
