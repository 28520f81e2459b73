"""kill -9 at random moments: nothing half written has its name, and what goes on ends as if nothing had been."""

import multiprocessing
import random
import time

import h5py
import numpy as np
import pytest
import torch

from fer.data.storage.hdf5 import read_info
from fer.models.checkpoint import load_checkpoint
from tests.conftest import write_tiny
from tests.data.test_prepare import data, fer2013_csv
from tests.fuzz import jobs
from tests.fuzz.family import fuzz_seed

KILLS = 20


@pytest.fixture(scope="module")
def warm():
    """Start processes forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzz.jobs"])
    return context.Process


def finish(warm, job, *arguments, first=None):
    """Run a job to its end; returns its seconds, or those from when the file `first` is there to its last writing."""
    start = time.time()
    process = warm(target=job, args=arguments)
    process.start()
    if first:
        start = seen(process, first)
    process.join()
    assert process.exitcode == 0
    return (first.stat().st_mtime if first else time.time()) - start


def seen(process, path):
    """Wait until a file is there or the process has ended; returns the time."""
    while process.is_alive() and not path.exists():
        time.sleep(0.002)
    return time.time()


def kill(warm, seconds, job, *arguments, first=None):
    """Run a job and kill it some seconds after its start, or after the file `first` is there; says whether it ran."""
    process = warm(target=job, args=arguments)
    process.start()
    if first:
        seen(process, first)
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9)
    return process.exitcode == -9


def moments(longest, kills=KILLS):
    """Random moments in the time that a job takes; a seed other than the usual one is FUZZ_SEED's."""
    generator = random.Random(fuzz_seed())
    return [generator.uniform(0, longest) for _ in range(kills)]


def resumable(longest, span, last):
    """Moments in the whole of a job, and as many while it can be gone on from: (seconds, the file they follow)."""
    return [(moment, None) for moment in moments(longest, KILLS // 2)] + [
        (moment, last) for moment in moments(span, KILLS // 2)
    ]


@pytest.mark.slow
def test_prepare(warm, tmp_path):
    raw = fer2013_csv(tmp_path / "fer2013.csv", [300] * 7, [20] * 7, [20] * 7, side=24)
    config = data("fer2013", raw=raw, size=48)
    finish(warm, jobs.prepare_csv, config, tmp_path)  # the first waits for the imports
    (tmp_path / "faces.h5").rename(tmp_path / "whole.h5")
    longest = finish(warm, jobs.prepare_csv, config, tmp_path)
    killed = 0
    for number, moment in enumerate(moments(longest)):
        out = tmp_path / str(number)
        out.mkdir()
        (out / "faces.h5").write_bytes(b"an older file")
        killed += kill(warm, moment, jobs.prepare_csv, config, out)
        if (out / "faces.h5").read_bytes() != b"an older file":
            assert read_info(out / "faces.h5").rows("train") == 2100
        finish(warm, jobs.prepare_csv, config, out)
        assert {path.name for path in out.iterdir()} == {"faces.h5"}
        with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(out / "faces.h5") as again:
            for split in ("train", "val", "test"):
                assert set(whole[split]) == set(again[split])
                assert all(np.array_equal(whole[split][name][:], again[split][name][:]) for name in whole[split])
    assert killed >= KILLS // 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_train(warm, tmp_path):
    file = write_tiny(tmp_path / "tiny.h5", {"train": 140, "val": 28})
    last = "checkpoints/last.ckpt"
    finish(warm, jobs.train, file, tmp_path / "first", None)
    longest = finish(warm, jobs.train, file, tmp_path / "whole", None)
    span = finish(warm, jobs.train, file, tmp_path / "timed", None, first=tmp_path / "timed" / last)
    expected = torch.load(tmp_path / "whole" / last, weights_only=True)
    killed, went_on = 0, 0
    for number, (moment, first) in enumerate(resumable(longest, span, last)):
        out, rest = tmp_path / f"{number}", tmp_path / f"{number}-rest"
        killed += kill(warm, moment, jobs.train, file, out, None, first=first and out / first)
        for path in (out / "checkpoints").glob("*.ckpt"):
            load_checkpoint(path)
        kept = out / last
        if kept.exists() and torch.load(kept, weights_only=True)["epoch"] == expected["epoch"]:
            rest = out
        else:
            went_on += kept.exists()
            finish(warm, jobs.train, file, rest, kept if kept.exists() else None)
        got = torch.load(rest / last, weights_only=True)
        assert got["epoch"] == expected["epoch"] and got["global_step"] == expected["global_step"]
        for name, values in expected["state_dict"].items():
            assert torch.equal(got["state_dict"][name], values), name
    assert killed >= KILLS // 2 and went_on >= 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_darknet_in_torch(warm, tmp_path, run):
    words = [
        "darknet=classifier_small", "darknet.engine=torch", "data=sample", "data.photos=48", "darknet.crop=face",
        "darknet.size=16", "darknet.batch=4", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
        "darknet.max_batches=210", "darknet.topk=false",
    ]  # fmt: skip
    run("prepare.py", *words[2:4], "format=darknet_classifier", "crop=face", "data.size=16", cwd=tmp_path)
    last = "backup/classifier_small_last.ckpt"
    finish(warm, jobs.train_darknet, words, tmp_path, tmp_path / "first", None)
    longest = finish(warm, jobs.train_darknet, words, tmp_path, tmp_path / "whole", None)
    span = finish(warm, jobs.train_darknet, words, tmp_path, tmp_path / "timed", None, first=tmp_path / "timed" / last)
    expected = (tmp_path / "whole/backup/classifier_small_final.weights").read_bytes()
    killed, went_on = 0, 0
    for number, (moment, first) in enumerate(resumable(longest, span, last)):
        out, rest = tmp_path / f"{number}", tmp_path / f"{number}-rest"
        killed += kill(warm, moment, jobs.train_darknet, words, tmp_path, out, None, first=first and out / first)
        final, kept = out / "backup/classifier_small_final.weights", out / last
        if not final.exists():
            went_on += kept.exists()
            finish(warm, jobs.train_darknet, words, tmp_path, rest, kept if kept.exists() else None)
            final = rest / "backup/classifier_small_final.weights"
        assert final.read_bytes() == expected
    assert killed >= KILLS // 2 and went_on >= 1
