"""run.json: what a run says of itself at its start, at each kind of end, and of passwords nothing."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from fer.data.storage.hdf5 import fingerprint, read_info
from fer.errors import InputError, Stopped
from fer.runs.record import note, read_record
from fer.runs.surroundings import git_state, hardware
from fer.training.run import train
from tests.conftest import ROOT, train_config, write_tiny

TINY = [
    "data=fer2013", "data.size=20", "augment.crop=16", "model=vgg_small", "batch_size=32", "trainer=cpu",
    "trainer.enable_progress_bar=false", "trainer.max_epochs=2",
]  # fmt: skip


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_run_says_what_where_and_how_good_it_was(tiny, tmp_path, run):
    out = tmp_path / "run"
    labels = ["tags=[baseline,'2026']", "notes=a first try, with: all"]
    words = [*TINY, f"data.file={tiny}", *labels, f"hydra.run.dir={out}"]
    run("train.py", *words)
    record = json.loads((out / "run.json").read_text())
    assert record["command"].startswith(f"python {ROOT}/train.py ") and "model=vgg_small" in record["command"]
    assert record["directory"] == str(ROOT)
    assert record["tags"] == ["baseline", "2026"] and record["notes"] == "a first try, with: all"
    assert record["config"]["batch_size"] == 32 and record["config"]["data"]["file"] == str(tiny)
    assert record["overrides"][:3] == TINY[:1] + TINY[1:3] and record["resumed_from"] is None
    assert record["packages"]["torch"] == version("torch") and record["packages"]["numpy"] == version("numpy")
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["hardware"]["cores"] == os.cpu_count()
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert record["hardware"]["memory_gib"] == pytest.approx(int(memory.split()[1]) / 2**20, rel=0.05)
    assert record["data"]["file"] == str(tiny)
    started, ended = (datetime.fromisoformat(record[key]) for key in ("started", "ended"))
    assert started.utcoffset() is not None and abs(datetime.now().astimezone() - ended) < timedelta(minutes=5)
    assert 0 < record["seconds"] < (ended - started).total_seconds() + 2 and record["exit"] == "finished"
    # against what Lightning and the logger wrote
    best = torch.load(out / "checkpoints/best.ckpt", weights_only=True)
    log = EventAccumulator(str(out / "tensorboard")).Reload()
    accuracies = [event.value for event in log.Scalars("val/acc")]
    at = accuracies.index(max(accuracies))
    result = record["result"]
    assert result["epoch"] == best["epoch"] == at and result["scores"]["val/acc"] == pytest.approx(max(accuracies))
    assert result["scores"]["val/balanced_acc"] == pytest.approx(log.Scalars("val/balanced_acc")[at].value)
    assert result["parameters"] == sum(v.numel() for k, v in best["state_dict"].items() if "running" not in k and
                                       "num_batches" not in k)  # fmt: skip


def test_the_fingerprint_is_that_of_the_rows(tmp_path):
    rows = {"train": 20, "val": 8}
    one, alike, other, fewer = (
        fingerprint(read_info(write_tiny(tmp_path / f"{name}.h5", counts, seed=seed)))
        for name, counts, seed in (("a", rows, 0), ("b", rows, 0), ("c", rows, 1), ("d", rows | {"val": 7}, 0))
    )
    assert one == alike and len({one, other, fewer}) == 3


class Kill(pl.Callback):
    def __init__(self, epoch, what):
        self.epoch, self.what = epoch, what

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.what()


def trained_with(monkeypatch, callback, config, out):
    """Train with a callback more, as a user's own would be."""
    import fer.training.run as module

    ours = module._callbacks
    monkeypatch.setattr(module, "_callbacks", lambda *given: [*ours(*given), callback])
    return train(config, out)


def test_how_a_run_ended_is_said_and_a_resumed_one_says_of_what(tiny, tmp_path, monkeypatch):
    out = tmp_path / "run"
    config = train_config(tiny, **{"trainer.max_epochs": 3})
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        trained_with(patched, Kill(0, lambda: os.kill(os.getpid(), signal.SIGTERM)), config, out)
    record = read_record(out)
    assert record["exit"].startswith("stopped by SIGTERM; go on with the same command and resume=")
    # of the one epoch that there was
    assert record["result"]["epoch"] == 0 and record["ended"]
    saved = out / "checkpoints/interrupted.ckpt"
    train(train_config(tiny, **{"trainer.max_epochs": 3, "resume": saved}), out)
    again = read_record(out)
    assert again["exit"] == "finished"
    assert again["resumed_from"] == {"checkpoint": str(saved), "started": record["started"]}
    # in the same folder: the one before is kept
    assert [earlier["exit"] for earlier in again["earlier"]] == [record["exit"]]
    assert again["result"]["epoch"] == torch.load(out / "checkpoints/best.ckpt", weights_only=True)["epoch"]


def test_a_resumed_run_knows_the_best_epoch_of_the_run_before(tiny, tmp_path):
    first = tmp_path / "first"
    train(train_config(tiny, **{"trainer.max_epochs": 2, "optimizer.lr": 0.05}), first)
    # with no rate at all the weights stay; only the statistics of batch norm may change the score
    last = first / "checkpoints/last.ckpt"
    train(train_config(tiny, **{"trainer.max_epochs": 3, "optimizer.lr": 0.05, "resume": last}), tmp_path / "second")
    before, after = read_record(first)["result"], read_record(tmp_path / "second")["result"]
    best = torch.load(tmp_path / "second/checkpoints/best.ckpt", weights_only=True)
    assert after["epoch"] == best["epoch"]
    if after["epoch"] < 2:
        assert after == before
    # what best.ckpt itself holds of it is of its own epoch
    (state,) = [state for name, state in best["callbacks"].items() if name.startswith("Best")]
    assert state["epoch"] == best["epoch"] and state["scores"] == after["scores"]


def test_an_error_is_in_the_record_with_its_line(tiny, tmp_path, monkeypatch):
    def fail():
        raise RuntimeError("out of paper\nand more")

    with pytest.raises(InputError, match="RuntimeError: out of paper and more") as told:
        trained_with(monkeypatch, Kill(0, fail), train_config(tiny), tmp_path / "a")
    assert read_record(tmp_path / "a")["exit"] == f"error: {told.value}"

    class Speechless(Exception):
        def __str__(self):
            raise RuntimeError

    def stutter():
        raise Speechless

    monkeypatch.undo()
    with pytest.raises(InputError, match="Speechless") as told:
        trained_with(monkeypatch, Kill(0, stutter), train_config(tiny), tmp_path / "c")
    assert read_record(tmp_path / "c")["exit"] == f"error: {told.value}"
    missing = train_config(tmp_path / "no.h5")
    with pytest.raises(InputError) as said:
        train(missing, tmp_path / "b")
    record = read_record(tmp_path / "b")
    assert record["exit"] == f"error: {said.value}" and record["result"] is None and record["data"] is None


def test_a_password_in_an_address_goes_into_no_file(tiny, tmp_path, run):
    out = tmp_path / "run"
    words = [*TINY, f"data.file={tiny}", "data.shards=s3://me:geheim@host/a", f"hydra.run.dir={out}"]
    done = run("train.py", *words, code=2)
    assert "geheim" not in done.stderr and "s3://host/a" in done.stderr
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"run.json", "config.yaml", "overrides.yaml"} <= {path.name for path in files}
    assert not [path for path in files if b"geheim" in path.read_bytes()]
    assert read_record(out)["config"]["data"]["shards"] == "s3://host/a"


def test_git_is_that_of_the_checkout_and_null_elsewhere(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    (checkout / "fer").mkdir(parents=True)
    (checkout / "fer/__init__.py").write_text("")
    assert git_state(checkout / "fer") is None
    git(checkout, "init", "--quiet")
    # a checkout around it that does not know it, as around an environment
    assert git_state(checkout / "fer") is None
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "-m", "a")
    commit = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / "notes.txt").write_text("beside it")
    assert git_state(checkout / "fer") == {"commit": commit, "dirty": False}
    (checkout / "fer/new.py").write_text("")
    assert git_state(checkout / "fer") == {"commit": commit, "dirty": True}
    (checkout / "fer/new.py").unlink()
    (checkout / "fer/__init__.py").write_text("1")
    # a hook's environment leads elsewhere
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert git_state(checkout / "fer") == {"commit": commit, "dirty": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(checkout / "fer") is None and hardware()["gpus"] == []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"version": 1}', b"\xff", b'{"version": "1"}', b"[" * 100_000, b'{"a": 1}']
)
def test_a_damaged_record_is_one_line(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json: is damaged, or of no run that keeps a record$"):
        read_record(tmp_path)


def test_a_part_of_a_record_leaves_the_others(tmp_path):
    note(tmp_path, darknet={"name": "a"})
    note(tmp_path, data={"file": "b"})
    assert json.loads((tmp_path / "run.json").read_text()) == {
        "version": 1, "darknet": {"name": "a"}, "data": {"file": "b"},
    }  # fmt: skip


def hparams_of(folder):
    """Return the values of a run's row of TensorBoard's HPARAMS, as its plugin reads them."""
    log = EventAccumulator(str(folder / "tensorboard")).Reload()
    content = log.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    started = metadata.parse_session_start_info_plugin_data(content)
    assert metadata.SESSION_END_INFO_TAG in log.summary_metadata
    # with it the columns would be those of one run for all
    assert metadata.EXPERIMENT_TAG not in log.summary_metadata
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in started.hparams.items()}


def test_hparams_hold_the_config(tiny, tmp_path):
    train(train_config(tiny, tags="[a,b]", **{"trainer.max_epochs": 1, "recipe.ema": 0.9}), tmp_path)
    values = hparams_of(tmp_path)
    expected = {
        "optimizer.lr": 0.02, "batch_size": 32, "model.name": "vgg_small", "recipe.ema": 0.9, "early_stop": "null",
        "compile": "false", "tags": "['a', 'b']",
    }  # fmt: skip
    assert {key: values[key] for key in expected} == expected
    assert [path.name for path in (tmp_path / "tensorboard").iterdir() if path.is_dir()] == []
