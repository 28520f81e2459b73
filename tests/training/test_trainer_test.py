"""Trainer.test: the scores of the test split."""

import pytest
import pytorch_lightning as pl
import torch

from fer import FaceDataModule, InputError, load_checkpoint
from fer.data.loading.dataset import FaceDataset
from fer.training.module import ClassifierModule
from tests.conftest import fit, train_config, write_tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tested")
    file = write_tiny(folder / "tiny.h5", {"train": 150, "val": 40, "test": 61})
    fit(train_config(file, **{"trainer.max_epochs": 3}), folder / "run")
    return folder / "run/checkpoints/best.ckpt", file


def trainer():
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip


def scores(module, data):
    (found,) = trainer().test(module, data, verbose=False)
    return found


@pytest.mark.parametrize("keep", ["auto", "memory", "disk"])
def test_the_scores_are_those_of_the_test_split(trained, keep):
    ckpt, file = trained
    model, dataset = load_checkpoint(ckpt), FaceDataset(file, "test")
    with torch.inference_mode():
        right = (model(dataset.images).argmax(1) == dataset.labels).float().mean()
    for module in (ClassifierModule.of(model), ClassifierModule.load_from_checkpoint(ckpt)):
        found = scores(module, FaceDataModule(file, 16, keep=keep))
        assert found["test/acc"] == pytest.approx(right.item()) and set(found) >= {
            "test/loss", "test/balanced_acc", "test/macro_f1"
        }  # fmt: skip


def test_what_cannot_be_tested_is_said(trained, tmp_path):
    ckpt, file = trained
    module = ClassifierModule.of(load_checkpoint(ckpt))
    without = write_tiny(tmp_path / "none.h5", {"train": 14, "val": 14})
    with pytest.raises(InputError, match=r"none.h5: has no test split; Trainer.validate scores val"):
        scores(module, FaceDataModule(without, 16))
    with pytest.raises(InputError, match="has no test split beside the folds"):
        scores(module, FaceDataModule(file, 16, folds=3, fold=0))
    others = write_tiny(tmp_path / "others.h5", {"train": 14, "val": 14, "test": 14}, class_names=list("abcdefg"))
    with pytest.raises(InputError, match="class names differ: the model has Angry"):
        scores(module, FaceDataModule(others, 16))
