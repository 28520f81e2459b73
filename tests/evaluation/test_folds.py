"""Folds from training to the report: what is trained on, what is scored, and what is refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix

from fer.data.folds import draw_folds
from fer.data.source import SPLITS, FaceFormat, empty_faces
from fer.data.storage.hdf5 import read_column, write_store
from fer.errors import InputError
from fer.evaluation.folds import evaluate_folds
from fer.labels import CLASSES
from fer.models.checkpoint import load_checkpoint
from fer.training.run import assemble
from tests.conftest import fit, train_config, write_tiny

FOLDS = 3


def write_persons(path, persons=6, source="lab", seed=0):
    """Write a prepared file of 20 x 20 faces of some persons, 14 rows each, over all three splits."""
    generator = np.random.default_rng(seed)
    faces = empty_faces(14 * persons, FaceFormat(size=20))
    for i in range(14 * persons):
        label, person = i % 7, i // 14
        stripes = (np.arange(20) // (1 + label)) % 2 * 120 + 60
        faces.image[i] = (np.broadcast_to(stripes[:, None], (20, 20)) + generator.normal(0, 10, (20, 20))).clip(0, 255)
        faces.label[i], faces.split[i] = label, person % 3
        faces.path[i], faces.group[i] = f"{person}-{i}", f"p{person}"
    write_store(path, lambda: [faces], CLASSES, (source,), FaceFormat(size=20), False, {})
    return path


def fold_config(file, fold, **changes):
    return train_config(file, **{"data.folds": FOLDS, "data.fold": fold, **changes})


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A file and the folders of its three folds' runs, as a sweep leaves them; not to be changed."""
    folder = tmp_path_factory.mktemp("folds")
    file = write_persons(folder / "persons.h5")
    for fold in range(FOLDS):
        fit(fold_config(file, fold), folder / f"runs/{fold}")
    return folder


def keys(folder, **changes):
    return {"folds": str(folder), "ten_crop": True, "device": "cpu", "out": None} | changes


def test_a_fold_trains_on_the_others_and_validates_on_its_own(tmp_path):
    file = write_persons(tmp_path / "persons.h5")
    _, module, data, _ = assemble(fold_config(file, 1), tmp_path / "run")
    data.setup("fit")
    folds = draw_folds(file, FOLDS, 0)
    seen = {split: {path for rows in (folds.val(1).get(split, ()),) for path in rows} for split in SPLITS}
    val = np.concatenate([read_column(file, split, "row")[sorted(rows)] for split, rows in seen.items() if rows])
    identities = module.classifier.identities
    assert sorted(identities["val_rows"].tolist()) == sorted(val.tolist()) and data.rows("val") == len(val) == 28
    everything = np.concatenate([read_column(file, split, "row") for split in SPLITS])
    assert sorted(identities["train_rows"].tolist()) == sorted(set(everything.tolist()) - set(val.tolist()))
    (batch,) = data.val_dataloader()
    expected = np.concatenate([read_column(file, split, "image")[rows] for split, rows in folds.val(1).items()])
    assert np.array_equal(batch.image[:, 0].numpy(), expected)
    labels = np.concatenate([read_column(file, split, "label")[rows] for split, rows in folds.val(1).items()])
    assert batch.label.tolist() == labels.tolist()
    trained = np.concatenate([batch.label.numpy() for batch in data.train_dataloader()])
    assert len(trained) == 56


def test_the_report_pools_the_folds(sweep, capsys, tmp_path):
    accuracy = evaluate_folds(keys(sweep / "runs", out=str(tmp_path / "out")), None)
    printed = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "out/predictions.csv")
    report = json.loads((tmp_path / "out/report.json").read_text())
    # every row of the file, once
    paths = np.concatenate([read_column(sweep / "persons.h5", split, "path") for split in SPLITS])
    assert sorted(rows.path) == sorted(paths.tolist()) and len(rows) == 84
    assert accuracy == report["ten_crop"]["accuracy"] == pytest.approx(accuracy_score(rows.label, rows.prediction))
    assert report["ten_crop"]["confusion"] == confusion_matrix(rows.label, rows.prediction, labels=CLASSES).tolist()
    # mean and standard deviation over folds, from the predictions alone
    folds = draw_folds(sweep / "persons.h5", FOLDS, 0)
    of_person = {person: fold for fold, persons in enumerate(folds.persons) for person in persons}
    rows["person"] = "p" + rows.path.str.split("-").str[0]
    each = rows.groupby(rows.person.map(of_person)).correct.mean()
    over = report["folds"]["over_folds"]["accuracy"]
    assert over["mean"] == pytest.approx(each.mean()) and over["std"] == pytest.approx(each.std(ddof=1))
    assert f"accuracy {100 * each.mean():.2f} ± {100 * each.std():.2f} %" in printed
    persons = pd.read_csv(tmp_path / "out/persons.csv")
    expected = rows.groupby("person").correct.agg(["size", "sum"])
    assert persons.person.tolist() == expected.index.tolist()
    assert persons.n.tolist() == expected["size"].tolist() and persons.correct.tolist() == expected["sum"].tolist()
    from scipy.stats import binomtest

    for _, row in persons.iterrows():
        interval = binomtest(row.correct, row.n).proportion_ci(method="wilson")
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    table = pd.read_csv(tmp_path / "out/folds.csv")
    assert table.fold.tolist() == [0, 1, 2] and table.accuracy.tolist() == pytest.approx(each.tolist())
    assert all("last.ckpt" in path for path in table.checkpoint)


def test_the_last_epoch_is_scored_and_not_the_best(sweep, tmp_path):
    """Without best.ckpt the report is the same."""
    copy = tmp_path / "runs"
    shutil.copytree(sweep / "runs", copy)
    for best in copy.glob("*/checkpoints/best.ckpt"):
        best.unlink()
    first = evaluate_folds(keys(sweep / "runs", out=str(tmp_path / "a")), None)
    assert evaluate_folds(keys(copy, out=str(tmp_path / "b")), None) == first
    texts = [(tmp_path / name / "predictions.csv").read_text() for name in "ab"]
    assert texts[0] == texts[1]


def test_missing_and_unfinished_folds_are_said(sweep, tmp_path, capsys):
    copy = tmp_path / "runs"
    shutil.copytree(sweep / "runs", copy)
    shutil.rmtree(copy / "1")
    fit(fold_config(sweep / "persons.h5", 1, **{"trainer.max_epochs": 2, "+trainer.max_steps": 1}), copy / "1")
    evaluate_folds(keys(copy, out=str(tmp_path / "a"), ten_crop=False), None)
    assert "fold 1 ended after 1 of 2 epochs" in capsys.readouterr().out
    shutil.rmtree(copy / "2")
    evaluate_folds(keys(copy, out=str(tmp_path / "b"), ten_crop=False), None)
    assert "1 of the 3 folds are missing: 2." in capsys.readouterr().out


def test_rows_that_a_fold_was_trained_on_are_refused(sweep, tmp_path):
    """The same names divided otherwise: the file is another one, so the folds are not those of the training."""
    other = write_persons(tmp_path / "persons.h5", persons=5)
    data = {"name": "lab", "file": str(other)}
    with pytest.raises(InputError, match="rows that .*last.ckpt was trained on"):
        evaluate_folds(keys(sweep / "runs", out=str(tmp_path / "out")), data)
    unknown = write_persons(tmp_path / "unknown.h5", source="elsewhere")
    with pytest.raises(InputError, match="is not the one that .* was validated on"):
        evaluate_folds(keys(sweep / "runs", out=str(tmp_path / "out")), {"name": "lab", "file": str(unknown)})
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_of_folds_is_refused(sweep, tmp_path):
    def refused(message, folds, **changes):
        with pytest.raises(InputError, match=message):
            evaluate_folds(keys(sweep, out=str(tmp_path / "out"), **changes) | {"folds": folds}, None)

    runs = sweep / "runs"
    refused("no JOB/checkpoints/last.ckpt", str(tmp_path))
    refused("not a run folder, or a list", 3)
    refused("fold 0 stands twice", [str(runs), str(runs / "0")])
    refused("scales=", str(runs), scales=[44])
    fit(fold_config(sweep / "persons.h5", 1, **{"data.seed": 1}), tmp_path / "seed")
    refused("data.seed=1", [str(runs / "0"), str(tmp_path / "seed")])
    fit(fold_config(sweep / "persons.h5", 1, **{"optimizer.lr": 0.5}), tmp_path / "rate")
    refused("different values of optimizer", [str(runs / "0"), str(tmp_path / "rate")])
    plain = write_tiny(tmp_path / "tiny.h5", {"train": 70, "val": 30})
    fit(train_config(plain), tmp_path / "plain")
    refused("was trained without data.folds", str(tmp_path / "plain"))


def test_a_fold_is_resumed_as_the_same_fold_only(sweep, tmp_path):
    resume = sweep / "runs/0/checkpoints/last.ckpt"
    more = {"trainer.max_epochs": 3, "resume": resume}
    trainer, _ = fit(fold_config(sweep / "persons.h5", 0, **more), tmp_path / "same")
    assert trainer.current_epoch == 3
    with pytest.raises(InputError, match="the run was one of folds=3 fold=0 seed=0, not of folds=3 fold=1 seed=0"):
        fit(fold_config(sweep / "persons.h5", 1, **more), tmp_path / "other")
    with pytest.raises(InputError, match="not of the splits"):
        fit(train_config(sweep / "persons.h5", **more), tmp_path / "splits")


def test_a_checkpoint_says_which_fold_it_is(sweep):
    for fold in range(FOLDS):
        data = load_checkpoint(sweep / f"runs/{fold}/checkpoints/last.ckpt").data
        assert (data["folds"], data["fold"], data["seed"]) == (FOLDS, fold, 0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data.folds": 3}, "data.folds=3 needs data.fold"),
        ({"data.fold": 3}, "data.fold=3 needs data.folds"),
        ({"data.folds": 3, "data.fold": 3}, "data.fold=3: not one of the folds 0..2"),
        ({"data.folds": 1, "data.fold": 0}, "data.folds=1: not a number of folds from 2"),
        ({"data.folds": "people", "data.fold": 0}, "data.folds=people: not a number of folds"),
        ({"data.folds": 3, "data.fold": 0, "early_stop": 2}, "early_stop would look at the fold"),
        ({"data.folds": 3, "data.fold": 0, "schedule": "plateau"}, "schedule would look at the fold"),
        ({"data.folds": "persons", "data.fold": 6}, "data.fold=6: not one of the folds 0..5"),
        ({"data.folds": 3, "data.fold": 0, "data.keep": "disk"}, "data.keep=disk: data.folds keeps faces in memory"),
    ],
)
def test_wrong_folds_are_one_line(tmp_path, changes, message):
    file = write_persons(tmp_path / "persons.h5")
    with pytest.raises(InputError, match=message):
        assemble(train_config(file, **changes), tmp_path / "run")


@pytest.mark.timeout(300)
def test_a_sweep_and_its_report_from_the_command_line(run, tmp_path):
    write_persons(tmp_path / "persons.h5")
    arguments = [
        "data=fer2013", f"data.file={tmp_path / 'persons.h5'}", "data.size=20", "augment.crop=16", "model=vgg_small",
        "trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "data.folds=persons",
    ]  # fmt: skip
    done = run("train.py", "-m", *arguments, "data.fold=range(6)", f"hydra.sweep.dir={tmp_path / 'runs'}", cwd=tmp_path)
    assert done.stdout.count("val/acc of the last epoch") == 6 and f"folds={tmp_path / 'runs'}" in done.stdout
    done = run("evaluate.py", f"folds={tmp_path / 'runs'}", "device=cpu", cwd=tmp_path)
    assert "over 6 folds" in done.stdout and "84 images" in done.stdout
    done = run("evaluate.py", f"folds={tmp_path / 'runs'}", "ckpt=fer2013_vgg9", cwd=tmp_path, code=2)
    assert "give one of them" in done.stderr
