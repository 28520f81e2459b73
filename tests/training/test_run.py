"""Training: resume equals a straight run, checkpoints are plain, two ranks equal one, an interrupt loses nothing."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer.data.loading.datamodule import FaceDataModule
from fer.data.loading.samplers import TrainBatches
from fer.data.preparation.prepare import prepare
from fer.data.source import FaceFormat
from fer.data.storage.hdf5 import read_column
from fer.deployment.export import export_weights
from fer.errors import InputError, Stopped
from fer.models.checkpoint import is_among, load_checkpoint
from fer.training.run import assemble, train
from fer.training.transfer import start_from
from tests.conftest import ROOT, fit, train_config, write_tiny
from tests.data.test_prepare import data


def weights(path):
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


def assert_equal(first, second):
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A prepared file of 20 x 20 grey faces: 150 train, 40 val; the tests of this file do not change it."""
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny.h5", {"train": 150, "val": 40})


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A finished run of three epochs, which the tests do not change; the first epoch is the best."""
    out = tmp_path_factory.mktemp("straight")
    fit(train_config(tiny, **{"trainer.max_epochs": 3}), out)
    return tiny, out


def test_a_run_writes_checkpoints_and_logs_and_learns(tiny, tmp_path):
    out = tmp_path / "run"
    result = train(train_config(tiny, **{"trainer.max_epochs": 4, "optimizer.lr": 0.05}), out)
    # the patterns are easy: chance is 1/7
    assert result["val/acc"] > 0.5
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (out / "curves.png").stat().st_size > 10_000
    assert pd.read_csv(out / "metrics/metrics.csv")["val/acc"].max() == pytest.approx(result["val/acc"])
    log = EventAccumulator(str(out / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert {
        "train/loss", "train/acc", "train/balanced_acc", "train/macro_f1", "val/loss", "val/acc", "val/balanced_acc",
        "val/macro_f1", "optim/lr", "optim/grad_norm", "speed/images_per_second", "train/running_loss", "best/acc",
    } <= set(log.Tags()["scalars"])  # fmt: skip
    assert {"input/augmented", "val/confusion"} <= set(log.Tags()["images"])
    assert len(log.Scalars("val/acc")) == 4
    assert max(event.value for event in log.Scalars("val/acc")) == pytest.approx(result["val/acc"])


def test_scalars_and_pictures_share_one_axis_and_the_loss_runs_within_the_epoch(tiny, tmp_path):
    # 150 faces in batches of 2 are 75 steps
    train(train_config(tiny, **{"batch_size": 2, "trainer.max_epochs": 1, "trainer.gradient_clip_val": 1e-6}), tmp_path)
    log = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    steps = {name: [event.step for event in log.Scalars(name)] for name in log.Tags()["scalars"]}
    assert steps["train/running_loss"] == steps["optim/grad_norm"] == [50, 75]
    assert all(each == [75] for name, each in steps.items() if name.split("/")[0] in ("train", "val", "speed", "best")
               and name != "train/running_loss")  # fmt: skip
    assert {name: [event.step for event in log.Images(name)] for name in log.Tags()["images"]} == {
        "input/augmented": [0], "val/confusion": [75],
    }  # fmt: skip
    # the epoch's loss is the mean over all of its steps
    first, second = (event.value for event in log.Scalars("train/running_loss"))
    assert (50 * first + 25 * second) / 75 == pytest.approx(log.Scalars("train/loss")[0].value, rel=1e-4)
    # of before it is clipped
    assert min(event.value for event in log.Scalars("optim/grad_norm")) > 1e-3


def test_resume_equals_a_straight_run_bit_for_bit(trained, tmp_path, capsys):
    tiny, straight = trained
    # cosine would depend on the number of epochs; the default step schedule does not
    train(train_config(tiny, **{"trainer.max_epochs": 1}), tmp_path / "first")
    last = tmp_path / "first/checkpoints/last.ckpt"
    train(train_config(tiny, **{"trainer.max_epochs": 3, "resume": last}), tmp_path / "second")
    # 150 faces in batches of 32 are 5 steps
    assert f"resume={last}: goes on in epoch 2 of 3, after 5 steps\n" in capsys.readouterr().out
    assert_equal(straight / "checkpoints/last.ckpt", tmp_path / "second/checkpoints/last.ckpt")
    assert_equal(straight / "checkpoints/best.ckpt", tmp_path / "second/checkpoints/best.ckpt")


def test_another_number_of_photos_is_said_to_change_nothing(tmp_path, capsys):
    file = tmp_path / "drawn.h5"
    prepare(data("sample", raw=tmp_path / "set", photos=60, size=20), file)
    for photos, told in ((60, 0), (61, 1)):
        changes = {"data": "sample", "data.photos": photos, "trainer.max_epochs": 1, "trainer.limit_train_batches": 1}
        train(train_config(file, **changes), tmp_path / str(photos))
        said = f"note: data.photos=61 changes nothing: {file} is there, of 60 photos; take it away to have others\n"
        assert capsys.readouterr().out.count(said) == told


def test_seed_decides(trained, tmp_path):
    tiny, straight = trained
    fit(train_config(tiny, **{"trainer.max_epochs": 3}), tmp_path / "same")
    assert_equal(straight / "checkpoints/last.ckpt", tmp_path / "same/checkpoints/last.ckpt")
    fit(train_config(tiny, **{"trainer.max_epochs": 3, "seed": 1}), tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_equal(straight / "checkpoints/last.ckpt", tmp_path / "other/checkpoints/last.ckpt")


def test_checkpoint_is_plain_data_and_knows_its_classes(trained):
    _, out = trained
    content = torch.load(out / "checkpoints/best.ckpt", weights_only=True)
    assert content["hyper_parameters"]["labels"] == ["Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral"]
    assert content["hyper_parameters"]["face"] == {"size": 20, "color": "grey", "margin": 0.0}
    assert len(content["identities"]["train_rows"]) == 150


def test_learning_rate_is_logged_as_the_schedule_says(tiny, tmp_path):
    config = train_config(
        tiny, **{"trainer.max_epochs": 4, "schedule.start": 0, "schedule.every": 1, "schedule.rate": 0.5}
    )
    fit(config, tmp_path)
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in log.Scalars("optim/lr")] == pytest.approx([0.02, 0.01, 0.005, 0.0025])


def test_gradients_are_clipped_by_value(tiny, tmp_path):
    trainer, model, data, _ = assemble(
        train_config(tiny, **{"trainer.gradient_clip_val": 1e-6, "trainer.max_epochs": 1}), tmp_path
    )
    seen = []
    model.on_before_zero_grad = lambda optimizer: seen.extend(
        float(p.grad.abs().max()) for p in model.net.parameters() if p.grad is not None
    )
    trainer.fit(model, datamodule=data)
    # by value: the largest element of each gradient is cut to the bound, and reaches it
    assert max(seen) == pytest.approx(1e-6)


def test_early_stop(tiny, tmp_path):
    fit(train_config(tiny, **{"trainer.max_epochs": 30, "early_stop": 1, "optimizer.lr": 1e-12}), tmp_path)
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["epoch"] < 29


def test_init_takes_weights_and_replaces_the_head_where_classes_differ(trained, tmp_path):
    _, out = trained
    best = str(out / "checkpoints/best.ckpt")
    other = write_tiny(tmp_path / "two.h5", {"train": 20, "val": 8}, class_names=("cat", "dog"))
    _, model, _, _ = assemble(train_config(other, init=best), tmp_path / "two")
    source = load_checkpoint(best)
    own, theirs = model.net.state_dict(), source.net.state_dict()
    names = list(own)
    assert all(torch.equal(own[name], theirs[name]) for name in names[:-2])
    assert own[names[-2]].shape[0] == 2
    assert model.classifier.labels == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
def test_init_inherits_the_rows_that_its_source_was_trained_on(trained, tmp_path, kind):
    tiny, out = trained
    source = out / "checkpoints/best.ckpt"
    if kind == "safetensors":
        export_weights(source, source := tmp_path / "weights.safetensors")
    other = write_tiny(tmp_path / "two.h5", {"train": 20, "val": 8}, class_names=("cat", "dog"), seed=1)
    _, model, _, _ = assemble(train_config(other, init=source), tmp_path / "two")
    columns = {"train_rows": ("train", "row"), "train_faces": ("train", "face"), "val_rows": ("val", "row")}
    for name, (split, column) in columns.items():
        for file in (tiny, other):
            assert is_among(read_column(file, split, column), model.classifier.identities[name]).all()
    assert not is_among(np.arange(1000, 1100), model.classifier.identities["train_rows"]).any()


def test_resume_with_another_recipe_is_refused(trained, tmp_path):
    tiny, out = trained
    with pytest.raises(InputError, match="was trained with recipe.ema=None, not 0.9; give the command"):
        assemble(train_config(tiny, resume=out / "checkpoints/last.ckpt", **{"recipe.ema": 0.9}), tmp_path / "x")


def test_init_of_another_network_is_refused(trained, tmp_path):
    tiny, out = trained
    with pytest.raises(InputError, match="vgg_small, which does not fit model=resnet18"):
        assemble(train_config(tiny, model="resnet18", init=out / "checkpoints/best.ckpt"), tmp_path / "x")


def test_resume_with_other_classes_is_refused(trained, tmp_path):
    _, out = trained
    other = write_tiny(tmp_path / "two.h5", {"train": 20, "val": 8}, class_names=("cat", "dog"))
    with pytest.raises(InputError, match="class names differ"):
        assemble(train_config(other, resume=out / "checkpoints/last.ckpt"), tmp_path / "x")


def test_resume_with_another_network_is_refused(trained, tmp_path):
    tiny, out = trained
    with pytest.raises(InputError, match="was trained with model.name=vgg_small, not resnet18"):
        assemble(train_config(tiny, model="resnet18", resume=out / "checkpoints/last.ckpt"), tmp_path / "x")


def test_rgb_faces_and_torchvision(tmp_path):
    file = write_tiny(tmp_path / "rgb.h5", {"train": 14, "val": 14}, FaceFormat(size=40, color="rgb"))
    changes = {"data.size": 40, "data.color": "rgb", "augment.crop": 36, "trainer.max_epochs": 1, "batch_size": 7}
    train(train_config(file, **changes, model="torchvision", **{"model.name": "shufflenet_v2_x0_5"}), tmp_path)
    model = load_checkpoint(tmp_path / "checkpoints/best.ckpt")
    assert model(torch.zeros(2, 3, 40, 40, dtype=torch.uint8)).shape == (2, 7)


def test_a_file_without_val_or_of_another_size_is_refused(tiny, tmp_path):
    only = write_tiny(tmp_path / "only.h5", {"train": 20})
    with pytest.raises(InputError, match="no val split"):
        assemble(train_config(only), tmp_path)
    with pytest.raises(InputError, match="data.size=24, but .* was prepared with 20; set data.size=20"):
        assemble(train_config(tiny, **{"data.size": 24}), tmp_path)


def test_every_row_is_seen_once_an_epoch_whatever_the_ranks():
    for ranks in (1, 2, 3):
        epoch = [[rows for rows, _ in TrainBatches(100, 24, 0, rank, ranks)] for rank in range(ranks)]
        assert sorted(torch.cat([torch.cat(mine) for mine in epoch]).tolist()) == list(range(100))
        # the same global batches whatever the number of ranks
        single = [rows for rows, _ in TrainBatches(100, 24, 0)]
        for step, whole in enumerate(single):
            assert torch.equal(torch.cat([mine[step] for mine in epoch]), whole)


def test_shares_make_the_mean_of_ranks_the_mean_of_the_global_batch():
    # 100 rows in batches of 24 leave 4, which 3 ranks take as 2, 1, 1
    last = [list(TrainBatches(100, 24, 0, rank, 3))[-1] for rank in range(3)]
    assert [len(rows) for rows, _ in last] == [2, 1, 1]
    assert [share for _, share in last] == pytest.approx([1.5, 0.75, 0.75])


def test_epochs_are_shuffled_differently():
    batches = TrainBatches(100, 100, 0)
    first = next(iter(batches))[0]
    batches.set_epoch(1)
    assert not torch.equal(first, next(iter(batches))[0])


@pytest.mark.slow
def test_loading_in_spawned_processes(tiny):
    data = FaceDataModule(tiny, batch_size=32, num_workers=2)
    data.setup("fit")
    loader = data.train_dataloader()
    loader.multiprocessing_context = "spawn"
    from_workers = list(loader)
    inline = FaceDataModule(tiny, batch_size=32)
    inline.setup("fit")
    for a, b in zip(from_workers, inline.train_dataloader(), strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)


def arguments(file, out, *more):
    return [
        "data=fer2013", f"data.file={file}", "data.size=20", "augment.crop=16", "model=vgg_small", "batch_size=8",
        "trainer=cpu",
        "trainer.enable_progress_bar=false", f"hydra.run.dir={out}", *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_same_weights(tiny, tmp_path, run, number):
    started = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *arguments(tiny, tmp_path / "cut", "trainer.max_epochs=100000")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    # as soon as the first epoch has been saved there are steps to interrupt
    deadline = time.time() + 120
    while not (tmp_path / "cut/checkpoints/last.ckpt").exists() and time.time() < deadline:
        time.sleep(0.01)
    started.send_signal(number)
    output, _ = started.communicate(timeout=120)
    assert started.returncode == 128 + number, output
    saved = tmp_path / "cut/checkpoints/interrupted.ckpt"
    assert f"resume={saved}" in output
    content = torch.load(saved, weights_only=True)
    epochs = content["epoch"] + 2
    run(
        "train.py",
        *arguments(tiny, tmp_path / "rest", f"trainer.max_epochs={epochs}", f"resume={saved}"),
    )
    run("train.py", *arguments(tiny, tmp_path / "whole", f"trainer.max_epochs={epochs}"))
    assert_equal(tmp_path / "rest/checkpoints/last.ckpt", tmp_path / "whole/checkpoints/last.ckpt")


class Signal(pl.Callback):
    """Send this process SIGTERM at one point of an epoch."""

    def __init__(self, hook, batch, epoch=1):
        self.hook, self.batch, self.epoch = hook, batch, epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.at("on_train_batch_end", trainer, batch_idx)

    def on_validation_start(self, trainer, pl_module):
        self.at("on_validation_start", trainer, None)

    def on_train_epoch_end(self, trainer, pl_module):
        self.at("on_train_epoch_end", trainer, None)

    def at(self, hook, trainer, batch):
        if (hook, batch, trainer.current_epoch) == (self.hook, self.batch, self.epoch):
            os.kill(os.getpid(), signal.SIGTERM)


def cut(config, out, signal):
    """Train until ``signal`` has stopped the run, which leaves ``checkpoints/interrupted.ckpt``."""
    with pytest.raises(Stopped):
        fit(config, out, signal)


@pytest.mark.parametrize(
    ("hook", "batch", "epoch"),
    [
        ("on_train_batch_end", 2, 1),
        ("on_train_batch_end", 4, 1),
        ("on_train_epoch_end", None, 1),
        # before there is any best epoch
        ("on_train_batch_end", 0, 0),
        pytest.param("on_train_batch_end", 0, 1, marks=pytest.mark.slow),
        pytest.param("on_train_batch_end", 3, 1, marks=pytest.mark.slow),
        pytest.param("on_validation_start", None, 1, marks=pytest.mark.slow),
        pytest.param("on_train_batch_end", 4, 0, marks=pytest.mark.slow),
    ],
)
def test_a_signal_at_any_point_loses_and_repeats_nothing(trained, tmp_path, capsys, hook, batch, epoch):
    tiny, straight = trained
    cut(train_config(tiny, **{"trainer.max_epochs": 3}), tmp_path / "cut", Signal(hook, batch, epoch))
    resume = tmp_path / "cut/checkpoints/interrupted.ckpt"
    fit(train_config(tiny, **{"trainer.max_epochs": 3, "resume": resume}), tmp_path / "rest")
    # an epoch has 5 steps; after the last one it is validated before the run stops
    steps = 5 * epoch + (5 if batch is None else batch + 1)
    said = f"resume={resume}: goes on in epoch {steps // 5 + 1} of 3, after {steps} step{'s' * (steps > 1)}\n"
    assert said in capsys.readouterr().out
    for name in ("last", "best"):
        assert_equal(straight / f"checkpoints/{name}.ckpt", tmp_path / f"rest/checkpoints/{name}.ckpt")


def test_a_signal_between_batches_of_one_step_loses_no_gradient(tiny, tmp_path):
    # 5 batches an epoch: two steps of two batches and one of the last
    options = {"trainer.accumulate_grad_batches": 2, "trainer.max_epochs": 2}
    fit(train_config(tiny, **options), tmp_path / "whole")
    for batch in 0, 1, 2:
        folder, rest = tmp_path / f"cut{batch}", tmp_path / f"rest{batch}"
        cut(train_config(tiny, **options), folder, Signal("on_train_batch_end", batch))
        fit(train_config(tiny, **options, resume=folder / "checkpoints/interrupted.ckpt"), rest)
        assert_equal(tmp_path / "whole/checkpoints/last.ckpt", rest / "checkpoints/last.ckpt")


def test_a_run_cut_within_an_epoch_goes_on_with_its_batches_only(tiny, tmp_path):
    cut(train_config(tiny), tmp_path / "cut", Signal("on_train_batch_end", 2))
    resume = tmp_path / "cut/checkpoints/interrupted.ckpt"
    for change, remedy in ({"batch_size": 75}, "batch_size=32"), ({"seed": 1}, "seed=0"):
        with pytest.raises(InputError, match=f"cut in the middle of an epoch, .* resume it with {remedy}"):
            train(train_config(tiny, resume=resume, **change), tmp_path / "rest")


def test_time_that_is_over_within_an_epoch_ends_the_run_after_it(trained, tmp_path):
    tiny, straight = trained
    options = {"trainer.max_epochs": 3, "trainer.max_time": "00:01:00:00"}

    class Late(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (1, 2):
                timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))
                timer._offset = 3600

    trainer, _ = fit(train_config(tiny, **options), tmp_path / "cut", Late())
    assert trainer.global_step == 2 * 5
    resume = tmp_path / "cut/checkpoints/last.ckpt"
    with pytest.raises(InputError, match="nothing is left to train"):
        train(train_config(tiny, **options, resume=resume), tmp_path / "late")
    fit(train_config(tiny, **{"trainer.max_epochs": 3, "resume": resume}), tmp_path / "rest")
    for name in ("last", "best"):
        assert_equal(straight / f"checkpoints/{name}.ckpt", tmp_path / f"rest/checkpoints/{name}.ckpt")
    history = pd.read_csv(tmp_path / "rest/metrics/metrics.csv")
    assert history.loc[history["val/acc"].notna(), "epoch"].tolist() == [2]


def test_resuming_a_finished_run_is_one_line(trained, tmp_path):
    tiny, out = trained
    with pytest.raises(
        InputError, match="last.ckpt: nothing is left to train, its run has reached trainer.max_epochs=3"
    ):
        train(train_config(tiny, **{"trainer.max_epochs": 3, "resume": out / "checkpoints/last.ckpt"}), tmp_path / "x")


def test_each_device_needs_a_row_to_validate(tmp_path):
    file = write_tiny(tmp_path / "one.h5", {"train": 32, "val": 1})
    with pytest.raises(InputError, match="1 val rows for 2 devices"):
        assemble(train_config(file, **{"trainer.devices": 2}), tmp_path)


def test_what_torch_refuses_is_one_line(tiny, tmp_path, run):
    done = run("train.py", *arguments(tiny, tmp_path, "optimizer.nesterov=true", "optimizer.momentum=0"), code=2)
    assert len(done.stderr.splitlines()) == 1 and "Nesterov momentum requires a momentum" in done.stderr
    assert not (tmp_path / "checkpoints").exists()


def test_an_epoch_of_any_length_keeps_few_steps(trained, tmp_path, monkeypatch):
    tiny, out = trained
    # 5 steps an epoch
    monkeypatch.setattr("fer.training.scores._STEPS", 2)
    kept = []

    class Count(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            kept.append(len(pl_module.train_scores._steps))

    fit(train_config(tiny, **{"trainer.max_epochs": 3}), tmp_path / "run", Count())
    assert kept == [1, 0, 1, 0, 1] * 3
    columns = ["train/loss", "train/acc", "train/balanced_acc", "train/macro_f1"]
    whole, parts = (pd.read_csv(folder / "metrics/metrics.csv")[columns] for folder in (out, tmp_path / "run"))
    assert whole["train/loss"].count() == 3
    np.testing.assert_allclose(whole, parts, rtol=1e-6)


def test_averaged_weights_follow_their_recurrence(tiny, tmp_path):
    options = {"recipe.ema": 0.75, "trainer.max_epochs": 2}
    steps, validated = [], []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            steps.append({name: value.clone() for name, value in pl_module.state_dict().items()})

        def on_validation_batch_start(self, trainer, pl_module, *_):
            validated.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    fit(train_config(tiny, **options), tmp_path, Keep())
    assert len(steps) == 10 and len(validated) == 2
    averages = [steps[0]]
    for step in steps[1:]:
        averages.append({name: 0.75 * averages[-1][name] + 0.25 * step[name] for name in step})
    content = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    floats = [name for name, value in steps[0].items() if value.is_floating_point()]
    assert any(name.endswith("running_var") for name in floats)
    for name in floats:
        assert torch.allclose(content["state_dict"][name], averages[9][name], atol=1e-6)
        assert torch.equal(content["current_model_state"][name], steps[9][name])
        assert torch.allclose(validated[0][name], averages[4][name], atol=1e-6)
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    for name in floats:
        assert torch.allclose(best["state_dict"][name], averages[best["global_step"] - 1][name], atol=1e-6)


def test_a_cut_run_with_averaged_weights_ends_as_an_unbroken_one(tiny, tmp_path):
    options = {"recipe": "mixed", "recipe.ema": 0.8, "augment": "strong", "trainer.max_epochs": 3}
    fit(train_config(tiny, **options), tmp_path / "whole")
    for batch in 0, 2:
        folder, rest = tmp_path / f"cut{batch}", tmp_path / f"rest{batch}"
        cut(train_config(tiny, **options), folder, Signal("on_train_batch_end", batch))
        fit(train_config(tiny, **options, resume=folder / "checkpoints/interrupted.ckpt"), rest)
        for name in ("last", "best"):
            assert_equal(tmp_path / f"whole/checkpoints/{name}.ckpt", rest / f"checkpoints/{name}.ckpt")
        # the weights beside their average
        one, other = (
            torch.load(out / "checkpoints/last.ckpt", weights_only=True)["current_model_state"]
            for out in (tmp_path / "whole", rest)
        )
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_share_of_the_bare_step_is_logged_and_changes_nothing(tiny, tmp_path):
    for name, bare in (("without", "false"), ("with", "true")):
        fit(train_config(tiny, bare_step=bare, **{"trainer.precision": "bf16-mixed"}), tmp_path / name)
    assert_equal(tmp_path / "without/checkpoints/last.ckpt", tmp_path / "with/checkpoints/last.ckpt")
    history = pd.read_csv(tmp_path / "with/metrics/metrics.csv")
    (bare,) = history["speed/bare_images_per_second"].dropna()
    speed, share = history["speed/images_per_second"].dropna(), history["speed/share_of_bare_step"].dropna()
    assert len(share) == 2 and share.tolist() == pytest.approx((speed / bare).tolist(), rel=1e-4)


def test_a_fused_optimizer_trains_alike(tiny, tmp_path):
    for name, fused in (("plain", "null"), ("fused", "true")):
        fit(train_config(tiny, **{"optimizer.fused": fused, "trainer.max_epochs": 1}), tmp_path / name)
    plain, fused = (weights(tmp_path / name / "checkpoints/last.ckpt") for name in ("plain", "fused"))
    assert all(torch.allclose(plain[name], fused[name], atol=1e-4) for name in plain)


@pytest.mark.slow
def test_a_compiled_network_trains_alike_and_keeps_its_names(tiny, tmp_path, run):
    for name, compiled in (("plain", "false"), ("compiled", "true")):
        options = ["model.dropout=0", "trainer.max_epochs=1", f"compile={compiled}"]
        run("train.py", *arguments(tiny, tmp_path / name, *options))
    plain, compiled = (weights(tmp_path / name / "checkpoints/last.ckpt") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[name], compiled[name], atol=1e-3) for name in plain)
    assert load_checkpoint(tmp_path / "compiled/checkpoints/last.ckpt")


def losses(folder):
    log = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [[event.value for event in log.Scalars(name)] for name in ("train/loss", "val/loss", "val/acc")]


@pytest.mark.slow
def test_two_ranks_equal_one_and_inside_a_multirun_train_the_job_they_belong_to(tmp_path, run, process):
    # no batch norm (its statistics are per rank), no augmentation, no dropout; 150 rows leave a last batch of 22
    file = write_tiny(tmp_path / "big.h5", {"train": 150, "val": 41}, FaceFormat(size=32))
    common = [
        "model=torchvision", "model.name=squeezenet1_1", "model.dropout=0", "augment=none", "trainer.max_epochs=3",
        "batch_size=32", "data.size=32", "augment.crop=32",
    ]  # fmt: skip
    common = arguments(file, "{}", *common)
    jobs = [a for a in common if not a.startswith("hydra.run.dir")]
    jobs += ["trainer.devices=2", "optimizer.lr=0.01,0.001", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = process("train.py", "-m", *jobs)
    assert "Launching 2 jobs" in done.stdout
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir()) == ["0", "1", "multirun.yaml", "sweep.csv"]
    for number, lr in (("0", 0.01), ("1", 0.001)):
        folder, alone = tmp_path / "sweep" / number, tmp_path / f"alone{number}"
        rate = EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("optim/lr")[0].value
        assert rate == pytest.approx(lr)
        # a rank that ran a sweep of its own would leave other folders and other weights
        assert (folder / "checkpoints/last.ckpt").is_file()
        run("train.py", *(a.format(alone) for a in common), f"optimizer.lr={lr}")
        for one, two in zip(losses(alone), losses(folder), strict=True):
            assert len(one) == 3
            assert two == pytest.approx(one, rel=1e-4)


def test_start_from_is_exact(trained):
    tiny, out = trained
    _, model, _, _ = assemble(train_config(tiny), out / "again")
    start_from(model.classifier, str(out / "checkpoints/best.ckpt"))
    assert re.match("vgg_small", model.hparams.model["name"])
    best = load_checkpoint(out / "checkpoints/best.ckpt")
    assert all(
        torch.equal(a, b) for a, b in zip(model.net.state_dict().values(), best.net.state_dict().values(), strict=True)
    )
    assert os.path.exists(out / "checkpoints/best.ckpt")


def test_auto_precision_is_bfloat16_where_the_processor_has_it(tiny, tmp_path, capsys):
    # the flags that the kernel lists, not what torch says of them
    flags = set(Path("/proc/cpuinfo").read_text().split())
    has = bool(flags & {"avx512_bf16", "amx_bf16"})
    chosen, other = ("bf16-mixed", "32-true") if has else ("32-true", "bf16-mixed")
    changes = {"trainer.precision": "auto", "trainer.max_epochs": 1}
    trainer, _ = fit(train_config(tiny, **changes), tmp_path / "run")
    assert trainer.precision == chosen
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["precision"] == chosen
    # on another machine auto stands for the other one
    more = {"resume": last, "trainer.max_epochs": 2}
    fit(train_config(tiny, **more, **{"trainer.precision": other}), tmp_path / "other")
    assert f"the run so far was trained with trainer.precision={chosen}; it goes on with {other}\n" in said(capsys)
    fit(train_config(tiny, **more, **{"trainer.precision": "auto"}), tmp_path / "same")
    assert "the run so far" not in said(capsys)
    train(train_config(tiny, **changes), tmp_path / "said")
    words = "" if has else "no "
    assert f"trainer.precision=auto: {chosen}, as this CPU has {words}bfloat16 instructions" in said(capsys)


def said(capsys):
    return capsys.readouterr().out
