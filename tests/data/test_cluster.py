"""Preparation on a Dask cluster of two worker processes on this machine, some of which are killed."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import h5py
import numpy as np
import PIL
import pytest

from fer.data.preparation import backends as backend
from fer.data.preparation.prepare import prepare
from fer.data.preparation.sources import open_source
from fer.data.source import Block
from fer.errors import InputError
from tests.conftest import ROOT
from tests.data.test_prepare import COLUMNS, data, fer2013_csv

pytest.importorskip("distributed")

#: 7 of 11 rows have a class that is kept, so these are 8 blocks
PHOTOS = 3000


@pytest.fixture(scope="module")
def affectnet(tmp_path_factory):
    """Eight blocks of photos with boxes and landmarks, some of them broken."""
    root = tmp_path_factory.mktemp("affectnet")
    photos = root / "Manually_Annotated_Images"
    photos.mkdir()
    generator = np.random.default_rng(0)
    lines = [COLUMNS]
    for number in range(PHOTOS):
        if number < 100:
            # decoding these takes the workers a while
            pixels = cv2.resize(generator.integers(0, 255, (30, 30, 3), np.uint8), (600, 600))
            cv2.imwrite(str(photos / f"{number}.jpg"), pixels)
        points = ";".join(f"{value:.1f}" for value in generator.uniform(100, 500, 136))
        lines.append(f"{number % 103}.jpg,{number % 50},20,500,550,{points},{number % 11},0.5,-2")
    (root / "training.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def local(affectnet, tmp_path_factory):
    """The prepared file that this machine alone makes of them."""
    out = tmp_path_factory.mktemp("local") / "local.h5"
    prepare(data("affectnet", raw=affectnet), out)
    return out


class Cluster:
    """A scheduler and its workers; what a test has killed is started again for the next one that asks."""

    def __init__(self, folder):
        self.folder, self.scheduler, self.workers = folder, None, []

    def with_workers(self, count):
        """Return the address, the scheduler and the list of ``count`` living workers."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            self.end()
            file = self.folder / "scheduler.json"
            options = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", file]
            self.scheduler = self._start("distributed.cli.dask_scheduler", *options)
            wait_for(file.exists)
            wait_for(lambda: file.read_text())
            self.address = json.loads(file.read_text())["address"]
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < count:
            self.workers.append(self._start("distributed.cli.dask_worker", self.address, "--nthreads", 1, "--no-nanny"))
        while len(self.workers) > count:
            end(self.workers.pop())
        return self.address, self.scheduler, self.workers

    def end(self):
        for process in filter(None, [self.scheduler, *self.workers]):
            end(process)
        self.workers = []
        (self.folder / "scheduler.json").unlink(missing_ok=True)

    def _start(self, *arguments):
        command = [sys.executable, "-m", *map(str, arguments), "--no-dashboard"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def end(process):
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.end()


def wait_for(condition, seconds=60):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "nothing happened for a minute"
        time.sleep(0.01)


def start(out, affectnet, *arguments):
    """Start prepare.py and return it when a block, but not all of them, is done."""
    command = [sys.executable, ROOT / "prepare.py", "data=affectnet", f"data.raw={affectnet}", f"out={out}", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stage = out.with_name(out.name + ".partial")
    wait_for(lambda: len(list(stage.glob("*.npz"))) > 0 or process.poll() is not None)
    assert process.poll() is None and len(list(stage.glob("*.npz"))) < 5
    return process


def assert_same_files(first, second):
    with h5py.File(first) as a, h5py.File(second) as b:
        names, others = [], []
        a.visit(names.append)
        b.visit(others.append)
        assert names == others and len(names) > 8
        for name in names:
            if isinstance(a[name], h5py.Dataset):
                assert a[name].dtype == b[name].dtype and a[name][:].tobytes() == b[name][:].tobytes(), name
        assert a.attrs.keys() == b.attrs.keys()
        assert all(np.array_equal(a.attrs[key], b.attrs[key]) for key in a.attrs)
    assert first.with_name(first.name + ".skipped.csv").read_text() == (
        second.with_name(second.name + ".skipped.csv").read_text()
    )


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(affectnet, local, cluster, tmp_path):
    address, _, workers = cluster.with_workers(2)
    process = start(tmp_path / "dask.h5", affectnet, "prepare.backend=dask", f"prepare.address={address}")
    end(workers[0])
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert workers[1].poll() is None
    # classes 8..10 are dropped, contempt too: 7 of 11 remain, and of each 103 photos three are missing
    kept = sum(number % 11 < 7 and number % 103 < 100 for number in range(PHOTOS))
    with h5py.File(tmp_path / "dask.h5") as file:
        assert len(file["train/label"]) == kept
    assert_same_files(local, tmp_path / "dask.h5")


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_run_which_goes_on_without_it(affectnet, local, cluster, tmp_path, run):
    address, scheduler, _ = cluster.with_workers(1)
    out = tmp_path / "dask.h5"
    process = start(out, affectnet, "prepare.backend=dask", f"prepare.address={address}")
    scheduler.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    lines = [line for line in re.split(r"[\r\n]+", errors) if line and not line.startswith("prepare ")]
    assert lines == [
        f"error: prepare.address={address}: the scheduler was lost; the same command, or one with "
        f"prepare.backend=local, goes on from {out}.partial"
    ]
    assert not out.exists()
    done = run("prepare.py", "data=affectnet", f"data.raw={affectnet}", f"out={out}")
    assert re.match(r"going on with the \d blocks that an earlier run left", done.stdout)
    assert_same_files(local, out)


@pytest.mark.slow
def test_a_cluster_without_workers_is_one_line(affectnet, cluster, tmp_path, monkeypatch):
    address, *_ = cluster.with_workers(0)
    monkeypatch.setattr(backend, "_NO_WORKER", 1)
    message = f"prepare.address={address}: it has no workers; start some with `dask worker {address}`; the same command"
    with pytest.raises(InputError, match=re.escape(message)):
        prepare(data("affectnet", raw=affectnet), tmp_path / "a.h5", on="dask", address=address)


def test_a_cluster_that_is_not_there_is_one_line(affectnet, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "_ANSWER", 1)
    nobody = "tcp://127.0.0.1:9"
    for address, message in [
        (nobody, f"prepare.address={nobody}: no Dask scheduler answers there; start one with `dask scheduler`"),
        ("soup://1", "prepare.address=soup://1: no Dask scheduler answers there"),
        (None, "prepare.backend=dask: say where its scheduler is"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)):
            prepare(data("affectnet", raw=affectnet), tmp_path / "a.h5", on="dask", address=address)


def test_a_worker_with_other_files_or_versions_is_refused(tmp_path):
    versions = {"OpenCV": cv2.__version__, "Pillow": PIL.__version__}
    block = Block([], 1.0)
    assert backend._decode_there(lambda block: "faces", block, [tmp_path], versions) == "faces"
    with pytest.raises(InputError, match=r"/gone: the Dask worker on .* does not see it"):
        backend._decode_there(None, block, [tmp_path / "gone"], versions)
    with pytest.raises(InputError, match=rf"has OpenCV {re.escape(cv2.__version__)}, not 4\.5\.0, so its faces"):
        backend._decode_there(None, block, [tmp_path], versions | {"OpenCV": "4.5.0"})


def test_readers_can_be_sent_to_workers(tmp_path, affectnet):
    fer2013 = fer2013_csv(tmp_path / "fer2013.csv", [3] * 7, [2] * 7, [1] * 7)
    table = tmp_path / "table.csv"
    table.write_text("path,label\n" + "1.png,cat\n" * 20)
    cv2.imwrite(str(tmp_path / "1.png"), np.full((60, 60), 7, np.uint8))
    prepared = tmp_path / "fer2013.h5"
    prepare(data("fer2013", raw=fer2013, size=8), prepared)
    for config in (
        data("affectnet", raw=affectnet),
        data("fer2021", affectnet=affectnet, fer2013=fer2013),
        data("fer2013", raw=prepared),
        data("csv", raw=table, classes="[cat]"),
    ):
        source = open_source(config)
        block = next(iter(source.blocks()))
        block = replace(block, rows=block.rows[:20])
        here = source.decode(block)
        there = pickle.loads(pickle.dumps(source.decode))(pickle.loads(pickle.dumps(block)))
        assert len(here.label) > 0 and here.path == there.path and np.array_equal(here.image, there.image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare.backend=slurm"], "error: prepare.backend=slurm: not local or dask"),
        (["prepare.address=tcp://a:1"], "error: prepare.address=tcp://a:1 needs prepare.backend=dask"),
        (
            ["prepare.backend=dask", "format=darknet_detector"],
            "error: prepare.backend=dask: format=darknet_detector is written by this machine alone",
        ),
    ],
)
def test_wrong_choices_are_one_line(run, tmp_path, arguments, message):
    done = run("prepare.py", "data=sample", *arguments, cwd=tmp_path, code=2)
    assert done.stderr.splitlines() == [message]
    assert list(tmp_path.iterdir()) == []
