"""Evaluation: what it prints and writes, what it refuses, and what it says a score is worth."""

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix

from fer.data.loading.dataset import FaceDataset
from fer.data.source import FaceFormat
from fer.data.storage.hdf5 import read_column, read_info, write_store
from fer.errors import InputError
from fer.evaluation.compare import compare
from fer.evaluation.run import evaluate
from fer.evaluation.scoring import predict
from fer.models.checkpoint import load_checkpoint
from tests.conftest import fit, train_config, write_tiny


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A trained run and its prepared file, shared by the tests of this file, which do not change it."""
    folder = tmp_path_factory.mktemp("evaluate")
    file = write_tiny(folder / "tiny.h5", {"train": 150, "val": 40, "test": 41})
    fit(train_config(file, **{"trainer.max_epochs": 3}), folder / "run")
    return folder


@pytest.fixture
def keys(run_folder, tmp_path):
    return {
        "ckpt": str(run_folder / "run/checkpoints/best.ckpt"), "split": "test", "ten_crop": True, "device": "cpu",
        "compare": None, "out": str(tmp_path / "report"),
    }  # fmt: skip


def other(path, **changes):
    return {"name": "other", "file": str(path), **changes}


def test_the_report_agrees_with_scikit_learn(run_folder, keys, tmp_path, capsys):
    accuracy = evaluate(keys, None)
    report = json.loads((tmp_path / "report/report.json").read_text())
    rows = pd.read_csv(tmp_path / "report/predictions.csv")
    assert len(rows) == 41 and report["headline"] == "ten_crop"
    assert accuracy == report["ten_crop"]["accuracy"] == pytest.approx(accuracy_score(rows.label, rows.prediction))
    names = load_checkpoint(keys["ckpt"]).labels
    assert report["ten_crop"]["confusion"] == confusion_matrix(rows.label, rows.prediction, labels=names).tolist()
    printed = capsys.readouterr().out
    right, sure = rows.correct.astype(bool), rows.filter(like="p_").max(axis=1) >= 0.15
    point = next(each for each in report["ten_crop"]["risk_coverage"] if each["min_confidence"] == 0.15)
    assert point["coverage"] == pytest.approx(sure.mean()) and point["accuracy"] == pytest.approx(right[sure].mean())
    assert (tmp_path / "report/risk_coverage.png").stat().st_size > 10_000
    assert "confusion.png" in printed and (tmp_path / "report/confusion.png").stat().st_size > 10_000
    # both scores are printed
    assert f"{report['plain']['accuracy']:.2%}".rstrip("%") in printed
    assert f"{report['ten_crop']['accuracy']:.2%}".rstrip("%") in printed
    assert rows.path.tolist() == read_column(run_folder / "tiny.h5", "test", "path").tolist()


def test_plain_alone(keys, tmp_path):
    evaluate(keys | {"ten_crop": False}, None)
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["headline"] == "plain" and "ten_crop" not in report


def test_ten_crop_is_the_mean_of_the_logits_of_torchvisions_ten_crops(run_folder, keys):
    from torchvision.transforms import TenCrop

    model = load_checkpoint(keys["ckpt"])
    dataset = FaceDataset(run_folder / "tiny.h5", "test")
    found = predict(model, dataset, "cpu", average_ten_crop=True)
    with torch.inference_mode():
        logits = torch.stack([model.net(crop / 255) for crop in TenCrop(model.crop)(dataset.images)]).mean(0)
    assert np.allclose(found, logits.softmax(1).numpy(), atol=1e-6)


def test_the_val_score_is_the_one_that_training_logged(run_folder, keys):
    assert evaluate(keys | {"split": "val", "ten_crop": False}, None) == pytest.approx(
        float(torch.load(keys["ckpt"], weights_only=True)["callbacks"][best_key(keys)]["best_model_score"])
    )


def best_key(keys):
    callbacks = torch.load(keys["ckpt"], weights_only=True)["callbacks"]
    return next(key for key in callbacks if key.startswith("Best"))


def test_fer2013s_own_names_of_the_splits(keys, tmp_path):
    test = evaluate(keys, None)
    assert evaluate(keys | {"split": "PrivateTest"}, None) == test
    evaluate(keys | {"split": "PublicTest"}, None)
    # the report on another split stays
    splits = [json.loads((tmp_path / name / "report.json").read_text())["split"] for name in ("report", "report-2")]
    assert splits == ["test", "val"]


def test_a_score_on_val_is_said_to_be_optimistic(keys, tmp_path, capsys):
    evaluate(keys | {"split": "val"}, None)
    assert "40 of these 40 rows are validation rows of the training" in capsys.readouterr().out
    evaluate(keys, None)
    assert "validation rows" not in capsys.readouterr().out


def test_rows_that_the_model_was_trained_on_are_refused(keys, tmp_path):
    # the same names as the training rows of the run, in another file and another split
    file = write_tiny(tmp_path / "leak.h5", {"train": 30, "test": 20})
    move(file, tmp_path / "moved.h5")
    with pytest.raises(
        InputError, match=r"20 of its 20 rows are rows that .* was trained on \(the first: tiny train-0-0\)"
    ):
        evaluate(keys, other(tmp_path / "moved.h5"))


def move(file, out):
    """Write the first 20 training rows of a file as the test split of another."""
    from fer.data.readers.combine import MovedSource, PreparedSource

    info = read_info(file)
    source = MovedSource(PreparedSource(file, info.face), {"train": "test", "test": None})
    blocks = [source.decode(block) for block in source.blocks()]
    for faces in blocks:
        for name in ("image", "label", "split", "source", "valence", "arousal", "landmarks", "box", "path"):
            setattr(faces, name, getattr(faces, name)[:20])
    write_store(out, lambda: blocks, info.class_names, info.sources, info.face, False, {})


@pytest.fixture(scope="module")
def second(run_folder):
    """Another network trained on the same file."""
    config = train_config(run_folder / "tiny.h5", seed=1, **{"trainer.max_epochs": 2, "augment.crop": 18})
    fit(config, run_folder / "second")
    return str(run_folder / "second/checkpoints/last.ckpt")


def test_an_ensemble_is_the_mean_of_the_probabilities(run_folder, keys, second, tmp_path, capsys):
    evaluate(keys | {"ckpt": [keys["ckpt"], second]}, None)
    dataset = FaceDataset(run_folder / "tiny.h5", "test")
    a, b = (predict(load_checkpoint(c), dataset, "cpu", average_ten_crop=True) for c in (keys["ckpt"], second))
    rows = pd.read_csv(tmp_path / "report/predictions.csv")
    np.testing.assert_allclose(rows.filter(like="p_"), (a + b) / 2, atol=1e-6)
    report = json.loads((tmp_path / "report/report.json").read_text())
    right = ((a + b).argmax(1) == dataset.labels.numpy()).mean()
    assert report["ten_crop"]["accuracy"] == pytest.approx(right)
    assert report["checkpoint"] == [keys["ckpt"], second]
    assert report["model"] == "vgg_small + vgg_small" and report["size"] is None
    assert f"checkpoint {keys['ckpt']}, {second}" in capsys.readouterr().out
    assert "vgg_small + vgg_small" in compare([tmp_path / "report"])


def test_an_ensemble_needs_networks_that_take_and_tell_the_same(run_folder, keys, second, tmp_path):
    content = torch.load(second, weights_only=True)
    parameters = content["hyper_parameters"]

    def changed(**changes):
        torch.save(content | {"hyper_parameters": parameters | changes}, tmp_path / "changed.ckpt")
        return {"ckpt": [keys["ckpt"], str(tmp_path / "changed.ckpt")]}

    labels = parameters["labels"][::-1]
    with pytest.raises(InputError, match="class names differ: .*best.ckpt has Angry.*changed.ckpt has Neutral"):
        evaluate(keys | changed(labels=labels), None)
    with pytest.raises(InputError, match="changed.ckpt takes faces of size 32, .*best.ckpt of size 20: the networks"):
        evaluate(keys | changed(face=parameters["face"] | {"size": 32}), None)
    content["identities"]["train_rows"] = torch.from_numpy(read_column(run_folder / "tiny.h5", "test", "row")[:3])
    with pytest.raises(InputError, match="3 of its 41 rows are rows that .*changed.ckpt was trained on"):
        evaluate(keys | changed(), None)
    with pytest.raises(InputError, match="last.ckpt stands twice"):
        evaluate(keys | {"ckpt": [second, second]}, None)
    with pytest.raises(InputError, match="out is not set: an ensemble"):
        evaluate(keys | {"ckpt": [keys["ckpt"], second], "out": None}, None)
    with pytest.raises(InputError, match="ckpt=3: not a path or a name"):
        evaluate(keys | {"ckpt": 3}, None)


def test_scales_are_the_mean_of_the_logits_of_crops_of_several_sizes(run_folder, keys, tmp_path, capsys):
    from torchvision.transforms import TenCrop

    model = load_checkpoint(keys["ckpt"])
    dataset = FaceDataset(run_folder / "tiny.h5", "test")
    evaluate(keys | {"scales": [16, 20]}, None)
    with torch.inference_mode():
        crops = [crop / 255 for size in (16, 20) for crop in TenCrop(size)(dataset.images)]
        expected = torch.stack([model.net(crop) for crop in crops]).mean(0).softmax(1)
    rows = pd.read_csv(tmp_path / "report/predictions.csv")
    np.testing.assert_allclose(rows.filter(like="p_"), expected, atol=1e-5)
    assert "ten-crop of 16, 20 pixels *" in capsys.readouterr().out
    np.testing.assert_allclose(
        predict(model, dataset, "cpu", True, [16]), predict(model, dataset, "cpu", True), atol=1e-6
    )
    for scales in ([21], [16, 15]):
        with pytest.raises(InputError, match=f"crops of {scales[-1]} pixels, but .*vgg_small.* of 20 takes 16 to 20"):
            evaluate(keys | {"scales": scales}, None)
    with pytest.raises(InputError, match=r"scales=\[16\]: .*ten_crop=false"):
        evaluate(keys | {"scales": [16], "ten_crop": False}, None)


def test_calibration_before_and_after_temperature_scaling(keys, tmp_path, capsys):
    evaluate(keys, None)
    report = json.loads((tmp_path / "report/report.json").read_text())
    printed = capsys.readouterr().out
    assert "temperature scaling, each half of the rows with the temperature fitted on the other:" in printed
    for crop, name in (("plain", "plain"), ("ten_crop", "ten-crop")):
        scores, scaled = report[crop], report[crop]["temperature_scaled"]
        first, second = scaled["temperatures"]
        assert scaled["fitted"] == "each half of these rows with the temperature fitted on the other half"
        assert f"  {name}, temperatures {first:.2f} and {second:.2f}: ECE {100 * scores['ece']:.2f} -> " in printed
        assert f"NLL {scores['nll']:.4f} -> {scaled['nll']:.4f}" in printed


def test_duplicates_of_training_faces_are_counted_and_left_out(run_folder, keys, tmp_path, capsys):
    # another seed for the names, no noise: the pictures of a class are all the same
    clean = write_tiny(tmp_path / "clean.h5", {"train": 30, "val": 14, "test": 14}, noise=0, seed=5)
    fit(train_config(clean, **{"trainer.max_epochs": 1}), tmp_path / "clean")
    evaluate(keys | {"ckpt": str(tmp_path / "clean/checkpoints/best.ckpt")}, None)
    assert "14 of the 14 faces have the same pixels as a face that the model was trained on" in capsys.readouterr().out


def test_score_without_duplicates(run_folder, keys, tmp_path, capsys):
    model = load_checkpoint(keys["ckpt"])
    file = run_folder / "tiny.h5"
    report = tmp_path / "report/report.json"
    evaluate(keys, None)
    assert "without_duplicates" not in json.loads(report.read_text())
    content = torch.load(keys["ckpt"], weights_only=True)
    content["identities"]["train_faces"] = torch.from_numpy(read_column(file, "test", "face")[:11])
    torch.save(content, tmp_path / "seen.ckpt")
    evaluate(keys | {"ckpt": str(tmp_path / "seen.ckpt")}, None)
    # beside that of the other checkpoint
    found = json.loads((tmp_path / "report-2/report.json").read_text())
    rows = pd.read_csv(tmp_path / "report-2/predictions.csv")
    assert found["without_duplicates"]["n"] == 30
    assert found["without_duplicates"]["accuracy"] == pytest.approx(rows.correct[11:].mean())
    assert model.labels


def test_other_classes_and_sizes_are_refused(keys, tmp_path):
    cats = write_tiny(tmp_path / "cats.h5", {"test": 4}, class_names=("cat", "dog"))
    with pytest.raises(InputError, match="class names differ: .*best.ckpt has Angry.*cats.h5 has cat, dog"):
        evaluate(keys, other(cats))
    large = write_tiny(tmp_path / "large.h5", {"test": 7}, FaceFormat(size=32))
    with pytest.raises(InputError, match="trained on faces of size 20, .* holds 32; prepare it with data.size=20"):
        evaluate(keys, other(large))
    no_test = write_tiny(tmp_path / "no.h5", {"val": 7})
    with pytest.raises(InputError, match=r"has no test split \(it has val\)"):
        evaluate(keys, other(no_test))
    with pytest.raises(InputError, match=r"split=train: not val \(PublicTest\) or test"):
        evaluate(keys | {"split": "train"}, None)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("content", ["nothing", "text", "pickle", "foreign"])
def test_a_checkpoint_that_is_not_ours_is_refused_and_never_run(keys, tmp_path, capsys, content):
    path = tmp_path / "x.ckpt"
    if content == "text":
        path.write_text("not a checkpoint")
    elif content == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif content == "foreign":
        torch.save({"state_dict": {}, "evil": 1}, path)
    with pytest.raises(InputError, match="x.ckpt: (no such file|not a)"):
        evaluate(keys | {"ckpt": str(path)}, None)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.slow
def test_comparison_on_the_command_line(run_folder, keys, tmp_path, run):
    ckpt = f"ckpt={keys['ckpt']}"
    run("evaluate.py", ckpt, "split=test", f"out={tmp_path / 'a'}", cwd=tmp_path)
    run("evaluate.py", ckpt, "split=test", "ten_crop=false", f"out={tmp_path / 'b'}", cwd=tmp_path)
    done = run("evaluate.py", f"compare=[{tmp_path / 'a/report.json'},{tmp_path / 'b'}]", cwd=tmp_path)
    assert "McNemar" in done.stdout and "vgg_small" in done.stdout
    done = run("evaluate.py", "compare=[nowhere.json]", cwd=tmp_path, code=2)
    assert len(done.stderr.splitlines()) == 1 and "nowhere.json" in done.stderr


@pytest.mark.parametrize(
    ("given", "without"),
    [
        (["compare=[a.json]", "split=test"], "split=test has no effect with compare=, which reads reports"),
        (["compare=[a.json]", "ckpt=x.ckpt"], "ckpt=x.ckpt has no effect with compare="),
        (["compare=[a.json]", "data=sample"], "data=sample has no effect with compare="),
        (["folds=runs", "split=test"], "split=test has no effect with folds="),
        (["folds=runs", "thresh=0.5"], "thresh=0.5 has no effect with folds="),
        (["ckpt=x.ckpt", "darknet.engine=torch"], "darknet.engine=torch has no effect with ckpt=, which is no"),
        (["ckpt=[x.ckpt,y.ckpt]", "darknet=v4_tiny"], "darknet=v4_tiny has no effect with ckpt="),
        (["ckpt=x.weights", "ten_crop=true"], "ten_crop=true has no effect with a .weights file"),
        (["ckpt=x.weights", "scales=[44]"], "scales=[44] has no effect with a .weights file"),
        (["ckpt=x.weights", "trust=[a]"], "trust=[a] has no effect with a .weights file"),
        (["ckpt=x.weights", "device=cpu"], "device=cpu has no effect with the darknet program"),
        (["ckpt=x.weights", "darknet.epochs=3"], "darknet.epochs=3 has no effect: it is of a training"),
        (["ckpt=x.weights", "darknet.crop=face"], "darknet.crop=face has no effect with a .weights file that"),
        (["ckpt=x.weights", "data=sample", "darknet.folder=f"], "data=sample has no effect with darknet.folder="),
    ],
)
def test_a_key_that_would_change_nothing_is_refused(run, tmp_path, given, without):
    done = run("evaluate.py", *given, cwd=tmp_path, code=2)
    assert done.stderr.startswith(f"error: {without}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("script", "more"), [("export.py", []), ("predict.py", ["source=x.jpg"])])
def test_a_key_of_darknet_beside_a_ckpt_is_refused(run, tmp_path, script, more):
    done = run(script, "ckpt=x.ckpt", "darknet.engine=torch", *more, cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: darknet.engine=torch has no effect with ckpt=, which is no .weights file")


@pytest.mark.parametrize(
    "given",
    [
        ["ckpt=x.weights", "scales=null", "darknet.engine=torch", "device=cpu", "thresh=0.5", "darknet.cfg=x.cfg"],
        [
            "ckpt=x.weights",
            "darknet=classifier_tiny",
            "data=sample",
            "darknet.crop=face",
            "darknet.engine=torch",
            "split=test",
            "out=o",
        ],
        ["ckpt=x.ckpt", "ten_crop=false", "device=cpu", "trust=[a]", "data=sample", "split=test", "out=o"],
    ],
)
def test_keys_that_have_an_effect_are_taken(run, tmp_path, given):
    assert run("evaluate.py", *given, cwd=tmp_path, code=2).stderr.startswith("error: x.")


def test_no_checkpoint_given(run, tmp_path):
    done = run("evaluate.py", cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: ckpt is not set") and len(done.stderr.splitlines()) == 1


def test_a_report_of_another_checkpoint_stays_and_one_of_the_same_is_replaced(run_folder, keys, tmp_path, capsys):
    keys |= {"ten_crop": False}
    last = keys | {"ckpt": str(run_folder / "run/checkpoints/last.ckpt")}
    for each in (keys, last, keys, last):
        evaluate(each, None)
    for name, ckpt in (("report", "best"), ("report-2", "last")):
        assert json.loads((tmp_path / name / "report.json").read_text())["checkpoint"].endswith(f"{ckpt}.ckpt")
    assert capsys.readouterr().out.count(f"{tmp_path}/report holds another report and stays as it is") == 2
    # another split, other crops
    for each in ({"split": "val"}, {"ten_crop": True}):
        evaluate(keys | each, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "report-2", "report-3", "report-4"]


def test_the_default_folder_names_checkpoint_data_and_split(run_folder, keys, tmp_path):
    shutil.copytree(run_folder / "run/checkpoints", tmp_path / "run/checkpoints")
    for name in ("best", "last"):
        ckpt = str(tmp_path / f"run/checkpoints/{name}.ckpt")
        evaluate(keys | {"ckpt": ckpt, "out": None, "ten_crop": False}, None)
    reports = sorted(path.parent.name for path in (tmp_path / "run/evaluate").glob("*/report.json"))
    assert reports == ["best-fer2013-test", "last-fer2013-test"]
