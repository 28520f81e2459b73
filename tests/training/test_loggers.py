"""Callbacks and loggers of the user's, and runs that look for mistakes."""

import re

import pandas as pd
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer.data.loading.datamodule import FaceDataModule
from fer.errors import InputError
from fer.training.loggers import begin
from fer.training.run import assemble, train
from tests.conftest import ROOT, fit, train_config

TINY = ["data=fer2013", "data.size=20", "augment.crop=16", "model=vgg_small", "batch_size=32", "trainer=cpu",
        "trainer.enable_progress_bar=false"]  # fmt: skip


def example(start):
    """Return the block of docs/extending.md that has a line beginning so."""
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.S)
    (block,) = [block for block in blocks if f"\n{start}" in f"\n{block}"]
    return block


def test_a_callback_and_a_logger_from_an_empty_folder(tiny, tmp_path, run):
    home = tmp_path / "home"
    for name, start in {
        "diary.py": "class Diary",
        "album.py": "class Album",
        "my_conf/callbacks/diary.yaml": "diary:",
        "my_conf/logger/album.yaml": "album:",
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(example(start))
    words = ["--config-dir=my_conf", *TINY, f"data.file={tiny}", "trainer.max_epochs=2"]
    own = ["callbacks=diary", "logger=[tensorboard,album]", "hydra.run.dir=out"]
    run("train.py", *words, *own, cwd=home)
    # the callback saw what the csv has
    numbers = pd.read_csv(home / "out/metrics/metrics.csv")["val/acc"].dropna().tolist()
    diary = [line.split() for line in (home / "diary.txt").read_text().splitlines()]
    assert [int(epoch) for epoch, _ in diary] == [0, 1]
    assert [float(value) for _, value in diary] == pytest.approx(numbers, abs=1e-6)
    album = home / "out/album"
    pictures = sorted(path.name for path in album.glob("*.png"))
    # 150 faces in batches of 32 are 5 steps
    assert "input-augmented-0.png" in pictures and "val-confusion-5.png" in pictures
    # TensorBoard has the same ones
    log = EventAccumulator(str(home / "out/tensorboard"), {"images": 0}).Reload()
    event = log.Images("val/confusion")[0]
    assert (event.width, event.height) == Image.open(album / f"val-confusion-{event.step}.png").size
    # a mistake in it is one line, and no run was made
    done = run("train.py", *words, *own[:2], "hydra.run.dir=two", "+callbacks.diary.evry=2", cwd=home, code=2)
    assert "there is no key callbacks.diary.evry (did you mean every?); diary.Diary takes file, every" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (home / "two/checkpoints").exists()


def test_without_a_logger_the_csv_and_the_curves_are_there(tiny, tmp_path, capsys):
    train(train_config(tiny, logger="none", **{"trainer.max_epochs": 1}), tmp_path)
    assert (tmp_path / "metrics/metrics.csv").is_file() and (tmp_path / "curves.png").is_file()
    assert not (tmp_path / "tensorboard").exists() and "tensorboard" not in capsys.readouterr().out


class NoLogin(CSVLogger):
    @property
    def experiment(self):
        raise RuntimeError("no login:\ngive a key")


def test_a_log_that_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(InputError, match="^NoLogin: no login: give a key$"):
        begin([CSVLogger(tmp_path), NoLogin(tmp_path)])


def test_what_lightning_refuses_is_one_line(tiny, tmp_path):
    target = "{bar: {_target_: pytorch_lightning.callbacks.TQDMProgressBar}}"
    with pytest.raises(InputError, match="trainer._target_=.*progress bar") as error:
        config = train_config(tiny, **{"+callbacks": target, "trainer.enable_progress_bar": "true"})
        assemble(config, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fixed", [True, False])
def test_fixed_epochs_have_the_same_faces(tiny, fixed):
    data = FaceDataModule(tiny, 32, keep="memory", fixed=fixed)
    data.setup("fit")
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.append(torch.cat([batch.image for batch in loader]))
    assert torch.equal(*epochs) is fixed


def test_one_batch_can_be_overfitted(tiny, tmp_path):
    config = train_config(tiny, debug="overfit", **{"trainer.max_epochs": 40, "trainer.check_val_every_n_epoch": 40})
    trainer, _ = fit(config, tmp_path)
    assert trainer.global_step == 40
    losses = pd.read_csv(tmp_path / "metrics/metrics.csv")["train/running_loss"].dropna().tolist()
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(("name", "steps"), [("fast", 3), ("limit", 15), ("profile", 5)])
def test_short_runs(tiny, tmp_path, name, steps):
    # after the choice of the trainer, as debug= comes last; the length is the preset's own
    config = train_config(tiny, debug=name, **{"trainer.max_epochs": {"fast": 1, "limit": 3, "profile": 1}[name]})
    trainer, _ = fit(config, tmp_path)
    assert trainer.global_step == steps
    assert (tmp_path / "tensorboard/fit-profile.txt").exists() is (name == "profile")
