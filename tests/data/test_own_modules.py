"""Data modules of the user's: what they are asked for, what they may leave out, and what is refused of them."""

import json
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch.utils.data import DataLoader

from fer.config.train import check_train
from fer.data.loading.contract import build_module
from fer.data.loading.dataset import Batch
from fer.errors import InputError
from fer.models.checkpoint import load_checkpoint
from fer.training.run import train
from tests.conftest import ROOT, fit, write_tiny


class Stripes(pl.LightningDataModule):
    """Three classes of stripes, 60 faces to train on and 30 to validate on; ``change`` makes a batch another."""

    labels = ["a", "b", "c"]

    def __init__(self, size: int, batch_size: int, seed: int, width: int = 2):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        label = torch.arange(90) % 3
        rows = torch.arange(size).repeat(90, 1) // (width * (1 + label[:, None])) % 2 * 120 + 60
        noise = torch.randint(0, 20, (90, size, size), generator=generator)
        self.image = (rows[:, :, None] + noise).byte()[:, None]
        self.label, self.batch_size = label, batch_size

    def batches(self, rows, shuffle):
        def collate(numbers):
            return self.change(Batch(self.image[numbers], self.label[numbers]))

        return DataLoader(rows, self.batch_size, shuffle=shuffle, collate_fn=collate)

    def change(self, batch):
        return batch

    def train_dataloader(self):
        return self.batches(range(60), True)

    def val_dataloader(self):
        return self.batches(range(60, 90), False)


class Telling(Stripes):
    drawn = True

    def rows(self, split):
        return {"train": 60, "val": 30}[split]

    def counts(self):
        return [20, 20, 20]

    def identities(self):
        known = {"train_rows": [1, 2], "train_faces": [3], "val_rows": [4]}
        return {name: torch.tensor(values) for name, values in known.items()}


def composed(name="Stripes", **changes):
    words = {"augment.crop": 16, "model": "vgg_small", "trainer": "cpu", "trainer.enable_progress_bar": "false",
             "optimizer.lr": 0.02, "data": "module", "data._target_": f"tests.data.test_own_modules.{name}",
             "data.size": 20, "batch_size": 20, "trainer.max_epochs": 4} | changes  # fmt: skip
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return check_train(compose("train", [f"{key}={value}" for key, value in words.items()]))


def test_it_trains_on_the_batches_of_the_module(tmp_path, capsys):
    scores = train(composed(**{"+data.width": 1}), tmp_path)
    assert scores["val/acc"] > 0.9
    said = capsys.readouterr().out
    assert "parameters; tests.data.test_own_modules.Stripes; run folder" in said
    assert "score it on a prepared file: " in said
    model = load_checkpoint(tmp_path / "checkpoints/best.ckpt")
    assert model.labels == ["a", "b", "c"] and model.face.size == 20 and not model.drawn
    assert all(len(hashes) == 0 for hashes in model.identities.values())
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["data"] == {"module": "tests.data.test_own_modules.Stripes"}


def test_what_a_module_tells_is_used(tmp_path, capsys):
    train(composed("Telling", **{"trainer.max_epochs": 1, "loss.class_weights": "balanced"}), tmp_path)
    assert ": 60 train, 30 val (drawn sample data)" in capsys.readouterr().out
    model = load_checkpoint(tmp_path / "checkpoints/best.ckpt")
    assert model.drawn and model.identities["train_rows"].tolist() == [1, 2]
    assert model.hyper_parameters["counts"] == [20, 20, 20]


def test_evaluation_is_of_prepared_files(tmp_path, run):
    train(composed(**{"trainer.max_epochs": 1}), tmp_path / "run")
    ckpt = f"ckpt={tmp_path / 'run/checkpoints/best.ckpt'}"
    done = run("evaluate.py", ckpt, code=2)
    assert done.stderr.splitlines() == [
        "error: the network was trained on the data module tests.data.test_own_modules.Stripes, but only "
        "prepared files are scored: make one with `python prepare.py` and give data=NAME"
    ]
    done = run("evaluate.py", ckpt, "data=module", "data._target_=tests.data.test_own_modules.Stripes", code=2)
    assert "a data module is trained on and nothing else: give data=NAME" in done.stderr
    file = write_tiny(tmp_path / "tiny.h5", {"val": 30}, class_names=["a", "b", "c"])
    told = run("evaluate.py", ckpt, "data=fer2013", f"data.file={file}", "device=cpu").stdout
    assert "best.ckpt does not tell which rows it was trained on, so nothing was refused for that." in told


class Float(Stripes):
    def change(self, batch):
        return batch._replace(image=batch.image / 255)


class Pair(Stripes):
    def change(self, batch):
        return batch.image, batch.label


class Short(Stripes):
    def change(self, batch):
        return batch._replace(label=batch.label[1:])


class OneBased(Stripes):
    def change(self, batch):
        return batch._replace(label=batch.label + 1)


class Soft(Stripes):
    def change(self, batch):
        return batch._replace(target=torch.full((len(batch.label), 2), 0.5))


class Counted(nn.CrossEntropyLoss):
    def __init__(self, counts: list[int]):
        super().__init__(weight=1 / torch.tensor(counts))


class Unnamed(Stripes):
    labels = None


class Miscounted(Stripes):
    def counts(self):
        return [20, 20]


class Anonymous(Stripes):
    def identities(self):
        return {"train_rows": np.arange(3)}


class NoVal(pl.LightningDataModule):
    labels = ["a", "b"]

    def train_dataloader(self):
        return []


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("Float", {}, r"a batch has images float32 \(20, 1, 20, 20\), not uint8 \(N, 1, 20, 20\), as data.size=20"),
        ("Stripes", {"data.color": "rgb", "model.in_channels": 3}, r"not uint8 \(N, 3, 20, 20\), as data.size=20 and"),
        ("Pair", {}, "a loader gives tuple, not fer.data.loading.dataset.Batch; have collate_fn make one"),
        ("Short", {}, r"a batch of 20 faces has labels int64 \(19,\), not int64 \(20,\)"),
        ("OneBased", {}, "a batch has labels of 1 to 3; its 3 labels have the numbers 0 to 2"),
        ("Soft", {}, r"a batch has targets float32 \(20, 2\), not float32 \(20, 3\)"),
        ("Unnamed", {}, "labels=None is not a list of texts: set it in __init__"),
        ("NoVal", {}, "NoVal has no method val_dataloader, which training needs"),
        ("Anonymous", {}, r"identities\(\) has no train_rows int64 \(n,\): give it, or leave the method out"),
        ("Miscounted", {"loss.class_weights": "balanced"}, r"counts\(\) gives \[20, 20\], not 3 numbers of faces"),
        ("Stripes", {"loss.class_weights": "balanced"}, "loss.class_weights needs the training faces of each"),
        (
            "Stripes",
            {"loss": "custom", "loss._target_": "tests.data.test_own_modules.Counted"},
            "Counted needs counts, the training faces of each class, which the data module does not tell",
        ),
    ],
)  # fmt: skip
def test_what_a_module_lacks_is_one_line(name, changes, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        fit(composed(name, **{"trainer.max_epochs": 1, **changes}), tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "checkpoints/best.ckpt").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"+data.wdith": 2}, r"there is no key data.wdith \(did you mean width\?\); tests.data.*Stripes takes width"),
        ({"+data.width": "wide"}, "data.width=wide: not a whole number"),
        ({"+data.seed": 1}, "data.seed=1: is given to .* by the program; leave it out"),
        ({"data.size": 4}, "data.size=4: not between 8 and 1024 pixels"),
        ({"data.color": "red"}, "data.color=red: not grey or rgb"),
        ({"data._target_": "torch.nn.ReLU"}, "data._target_=torch.nn.ReLU: not a pytorch_lightning Lightning"),
        ({"data._target_": "my_data.Nothing"}, "no module my_data in this folder"),
        ({"data._target_": "'???'"}, "data._target_ is missing: it names the data module"),
        ({"recipe.sampler": "balanced"}, "recipe.sampler=balanced has no effect: .*Stripes makes the batches"),
        ({"recipe.votes": "soft"}, "recipe.votes=soft has no effect"),
    ],
)  # fmt: skip
def test_mistakes_in_the_config_are_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        composed(**changes)


def test_a_module_can_be_sent_to_workers_started_by_spawn():
    module = pickle.loads(pickle.dumps(build_module(composed()["data"], batch_size=20, seed=0, num_workers=0)))
    batch = Batch(module.image[:20], module.label[:20] + 1)
    with pytest.raises(InputError, match="labels of 1 to 3"):
        module.on_before_batch_transfer(batch, 0)


def test_a_run_on_a_module_is_gone_on_with(tmp_path):
    fit(composed(**{"trainer.max_epochs": 1}), tmp_path / "first")
    resumed = composed(**{"trainer.max_epochs": 2, "resume": tmp_path / "first/checkpoints/last.ckpt"})
    trainer, _ = fit(resumed, tmp_path / "second")
    assert trainer.current_epoch == 2 and trainer.global_step == 6


def test_overfitting_takes_the_same_batch(tmp_path):
    trainer, _ = fit(
        composed(debug="overfit", **{"trainer.max_epochs": 3, "trainer.check_val_every_n_epoch": 3}), tmp_path
    )
    assert trainer.global_step == 3
