"""Networks and data with other classes: the classes in common against sums worked by hand and scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from fer.data.loading.dataset import FaceDataset
from fer.data.source import FaceFormat
from fer.data.storage.hdf5 import read_column
from fer.errors import InputError
from fer.evaluation.compare import compare
from fer.evaluation.report import picture_title
from fer.evaluation.run import evaluate, evaluate_each
from fer.evaluation.taxonomy import common_classes
from fer.labels import CLASSES
from fer.models.checkpoint import load_checkpoint
from tests.conftest import fit, train_config, write_tiny

#: CK+'s classes as its folders are called, and without a neutral one.
CK = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taxonomy")
    file = write_tiny(folder / "tiny.h5", {"train": 150, "val": 40, "test": 41})
    fit(train_config(file, **{"trainer.max_epochs": 2}), folder / "run")
    write_tiny(folder / "ck.h5", {"train": 21, "val": 10, "test": 40}, class_names=CK, source="ck", seed=5)
    return folder


@pytest.fixture
def keys(run_folder, tmp_path):
    return {
        "ckpt": str(run_folder / "run/checkpoints/best.ckpt"), "split": "test", "ten_crop": False, "device": "cpu",
        "compare": None, "out": str(tmp_path / "report"), "classes": "common",
    }  # fmt: skip


def data(folder, name="ck", **changes):
    return {"name": name, "file": str(folder / f"{name}.h5"), **changes}


def centre_logits(ckpt, file, split):
    model = load_checkpoint(ckpt)
    with torch.inference_mode():
        return model(FaceDataset(file, split).images).numpy()


def read(folder):
    return json.loads((folder / "report.json").read_text())


def test_other_classes_are_refused_and_the_remedy_is_named(run_folder, keys):
    with pytest.raises(InputError, match="class names differ: .* has Angry.*ck.h5 has anger.*; .*classes=comm"):
        evaluate(keys | {"classes": None}, data(run_folder))


def test_the_report_is_that_of_the_masked_logits(run_folder, keys, tmp_path, capsys):
    accuracy = evaluate(keys, data(run_folder))
    # by hand: Neutral is column 6 of the network; contempt is class 1 of the data
    logits = centre_logits(keys["ckpt"], run_folder / "ck.h5", "test")[:, :6]
    labels = read_column(run_folder / "ck.h5", "test", "label")
    kept = labels != 1
    probabilities = softmax(logits.astype(float), axis=1)[kept]
    true = np.array(
        [CLASSES.index({"anger": "Angry", "sadness": "Sad"}.get(CK[i], CK[i].title())) for i in labels[kept]]
    )
    predicted = probabilities.argmax(1)
    report, rows = read(tmp_path / "report"), pd.read_csv(tmp_path / "report/predictions.csv")
    np.testing.assert_allclose(rows.filter(like="p_").to_numpy(), probabilities, rtol=1e-4, atol=1e-7)
    assert report["plain"]["confusion"] == confusion_matrix(true, predicted, labels=range(6)).tolist()
    assert accuracy == (true == predicted).mean()
    assert report["plain"]["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, predicted))
    assert report["plain"]["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert "temperature_scaled" in report["plain"]

    gone = int((~kept).sum())
    assert gone == 6 and report["plain"]["n"] == len(rows) == 34
    common = report["common"]
    assert common["masked"] == {keys["ckpt"]: ["Neutral"]} and common["left_out"] == {"contempt": gone}
    assert common["mapped"] == {
        "anger": "Angry", "disgust": "Disgust", "fear": "Fear", "happy": "Happy", "sadness": "Sad",
        "surprise": "Surprise",
    }  # fmt: skip
    assert rows.own_label.tolist() == [CK[i] for i in labels[kept]]
    left_out = pd.read_csv(tmp_path / "report/left_out.csv")
    paths = read_column(run_folder / "ck.h5", "test", "path")
    assert left_out.path.tolist() == paths[~kept].tolist() and set(left_out.own_label) == {"contempt"}
    printed = capsys.readouterr().out
    assert "masked, of the network's: Neutral" in printed and "left out, of the data: 6 rows of contempt" in printed
    assert "anger -> Angry" in printed


def test_the_picture_says_what_was_masked_and_left_out(run_folder, keys, tmp_path):
    evaluate(keys, data(run_folder))
    title = picture_title(read(tmp_path / "report"))
    assert title.endswith("of 34 images, plain; 6 classes in common, masked Neutral, left out 6 rows of contempt")
    evaluate(keys | {"classes": None, "out": str(tmp_path / "own")}, None)
    assert picture_title(read(tmp_path / "own")).endswith("of 41 images, plain")


def test_contempt_counts_as_another_class_or_not_at_all(run_folder, keys, tmp_path):
    evaluate(keys | {"contempt": "Disgusted"}, data(run_folder))
    report, rows = read(tmp_path / "report"), pd.read_csv(tmp_path / "report/predictions.csv")
    assert report["plain"]["n"] == 40 and report["common"]["left_out"] == {}
    assert set(rows.label[rows.own_label == "contempt"]) == {"Disgust"}
    # beside the first, as it is another question
    evaluate(keys | {"contempt": "drop"}, data(run_folder))
    assert read(tmp_path / "report-2")["plain"]["n"] == 34


def test_a_network_with_contempt_gives_its_probability_to_the_class_that_it_counts_as():
    rows = [1] * 7
    logits = np.log([[0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1]])
    eight = (*CLASSES, "Contempt")

    def fold(contempt, counts=rows):
        return common_classes({"a": eight}, CLASSES, counts, counts, contempt, "data").fold(logits, 0)

    np.testing.assert_allclose(fold("disgust"), [[0.1, 0.3, 0.1, 0.1, 0.1, 0.1, 0.2]])
    np.testing.assert_allclose(fold("drop"), np.array([[0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.2]]) / 0.9)
    np.testing.assert_allclose(fold(None), fold("drop"))
    # a class that the data name, but have no row of, is masked too
    np.testing.assert_allclose(fold("drop", [1, 1, 1, 1, 1, 1, 0]), np.array([[0.1, 0.2, 0.1, 0.1, 0.1, 0.1]]) / 0.7)


def test_dropped_contempt_is_left_out_where_both_have_it():
    eight = (*CLASSES, "Contempt")
    both = common_classes({"a": eight}, eight, [2] * 8, [1] * 8, None, "data")
    dropped = common_classes({"a": eight}, eight, [2] * 8, [1] * 8, "drop", "data")
    assert both.facts["left_out"] == {} and both.names == list(eight)
    assert dropped.facts["left_out"] == {"Contempt": 1} and dropped.facts["masked"] == {"a": ["Contempt"]}


def test_logits_far_below_a_masked_one_still_give_probabilities():
    # in float32 the softmax of all three is 1, 0, 0
    found = common_classes({"a": ("x", "y", "z")}, ("y", "z"), [1, 1], [1, 1], None, "data")
    np.testing.assert_allclose(found.fold(np.array([[500.0, 1.0, 0.0]], np.float32), 0), softmax([[1.0, 0.0]], axis=1))


def test_an_ensemble_is_masked_network_by_network(run_folder, keys, tmp_path):
    file = write_tiny(tmp_path / "six.h5", {"train": 60, "val": 18}, class_names=CLASSES[:6][::-1], source="six")
    fit(train_config(file, **{"trainer.max_epochs": 1, "name": "six"}), tmp_path / "six")
    other = str(tmp_path / "six/checkpoints/last.ckpt")
    evaluate(keys | {"ckpt": [keys["ckpt"], other]}, data(run_folder))
    kept = read_column(run_folder / "ck.h5", "test", "label") != 1
    first, second = (
        softmax(centre_logits(c, run_folder / "ck.h5", "test")[:, :6], axis=1) for c in (keys["ckpt"], other)
    )
    rows = pd.read_csv(tmp_path / "report/predictions.csv")
    np.testing.assert_allclose(
        rows.filter(like="p_").to_numpy(), ((first + second[:, ::-1]) / 2)[kept], rtol=1e-3, atol=1e-6
    )
    masked = read(tmp_path / "report")["common"]["masked"]
    assert masked == {keys["ckpt"]: ["Neutral"], other: []}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": "all"}, "classes=all: not common, or null"),
        ({"classes": None, "contempt": "drop"}, "contempt=drop: only for classes=common"),
        ({"contempt": "contempt"}, "contempt=contempt: as without it"),
        ({"contempt": "rage"}, "contempt=rage: not drop or one of the classes in common, Angry, Disgust"),
    ],
)
def test_a_wrong_protocol_is_one_line(run_folder, keys, changes, says):
    with pytest.raises(InputError, match=says) as error:
        evaluate(keys | changes, data(run_folder))
    assert "\n" not in str(error.value)


def test_data_that_share_no_classes_or_no_rows_are_one_line(keys, tmp_path):
    write_tiny(tmp_path / "cats.h5", {"test": 4}, class_names=("cat", "dog"))
    with pytest.raises(InputError, match="fewer than two classes in common: .* has Angry.*cats.h5 has cat, dog"):
        evaluate(keys, data(tmp_path, "cats"))
    with pytest.raises(InputError, match="no row of the split is of a class in common, Happy, Sad"):
        common_classes({"a": ("Happy", "Sad")}, ("happy", "sad", "y"), [1, 1, 1], [0, 0, 1], None, "d")


def test_comparison_says_what_was_masked_and_tests_only_what_was_scored_alike(run_folder, keys, tmp_path):
    evaluate(keys, data(run_folder))
    evaluate(keys | {"out": str(tmp_path / "merged"), "contempt": "disgust"}, data(run_folder))
    evaluate(keys | {"out": str(tmp_path / "own"), "classes": None}, None)
    text = compare([tmp_path / "report", tmp_path / "report", tmp_path / "merged", tmp_path / "own"])
    assert "report: 6 classes in common, masked Neutral, left out 6 rows of contempt" in text
    assert "right only here 0, only in the first 0, of 34 images; p = 1.0000" in text
    assert "no p-value, the rows differ" in text
    assert "own: no p-value, it is scored on other classes" in text
    broken = read(tmp_path / "report") | {"common": {"classes": [1]}}
    (tmp_path / "report/report.json").write_text(json.dumps(broken))
    with pytest.raises(InputError, match="is not a report of evaluate.py, common is"):
        compare([tmp_path / "report"])


def test_split_all_is_every_row_of_the_file(run_folder, keys, tmp_path):
    evaluate(keys | {"split": "all"}, data(run_folder))
    assert read(tmp_path / "report")["plain"]["n"] + sum(read(tmp_path / "report")["common"]["left_out"].values()) == 71
    rows = pd.read_csv(tmp_path / "report/predictions.csv")
    assert [name.split("-")[0] for name in rows.path.drop_duplicates()].count("train") == 21 - 3
    with pytest.raises(InputError, match="split=all of .*: 150 of its 231 rows are rows that .* was trained on"):
        evaluate(keys | {"split": "all"}, None)


def test_one_table_of_several_data_sets(run_folder, keys, tmp_path, capsys):
    write_tiny(tmp_path / "val.h5", {"val": 14}, source="val", seed=9)
    write_tiny(tmp_path / "train.h5", {"train": 14}, source="train", seed=10)
    sets = {"tiny": data(run_folder, "tiny"), "ck": data(run_folder), "mine/val": data(tmp_path, "val")}
    evaluate_each(keys | {"split": None}, sets)
    table = pd.read_csv(tmp_path / "report/table.csv", keep_default_na=False)
    assert table.data.tolist() == ["tiny", "ck", "mine/val"] and table.split.tolist() == ["test", "test", "val"]
    assert table.n.tolist() == [41, 34, 14] and table.left_out.tolist() == [0, 6, 0]
    assert table.masked.tolist() == ["", "Neutral", ""]
    for row in table.itertuples():
        rows = pd.read_csv(tmp_path / "report" / row.report / "predictions.csv")
        assert row.accuracy == pytest.approx((rows.label == rows.prediction).mean())
        low, high = binomtest(int(rows.correct.sum()), len(rows)).proportion_ci(method="wilson")
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx((low, high))
        assert row.macro_f1 == pytest.approx(f1_score(rows.label, rows.prediction, average="macro", zero_division=0))
    printed = capsys.readouterr().out
    assert "6 classes in common, masked Neutral, left out 6 rows of contempt" in printed
    assert str(tmp_path / "report/table.csv") in printed
    with pytest.raises(InputError, match="a table of several data sets: give the reports in the folders beside it"):
        compare([tmp_path / "report"])
    # another question does not replace it
    evaluate_each(keys | {"split": None, "contempt": "drop"}, sets)
    assert read(tmp_path / "report")["contempt"] is None and read(tmp_path / "report-2")["contempt"] == "drop"
    before = sorted(path.name for path in tmp_path.iterdir())
    for wrong, says in (
        (sets | {"none": data(tmp_path, "none", raw=None)}, "none.h5: no such file; make it with .*data=none"),
        (sets | {"train": data(tmp_path, "train")}, r"train.h5: has no test or val split \(it has train\); split=all"),
    ):
        with pytest.raises(InputError, match=says):
            evaluate_each(keys | {"split": None, "out": str(tmp_path / "new")}, wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_command_line_takes_a_list_of_data_sets(run, tmp_path):
    for name, classes in (("fer2013", CLASSES), ("folder", CK)):
        file = tmp_path / f"data/{name}-48-grey.h5"
        file.parent.mkdir(exist_ok=True)
        write_tiny(file, {"test": 14}, FaceFormat(size=48), class_names=classes, source=name)
    words = ["ckpt=fer2013_vgg9", "ten_crop=false", "device=cpu"]
    done = run("evaluate.py", *words, "data=[fer2013,folder]", "classes=common", cwd=tmp_path)
    table = pd.read_csv(tmp_path / "runs/fer2013_vgg9/evaluate/fer2013_vgg9-fer2013+folder-common/table.csv")
    assert table.data.tolist() == ["fer2013", "folder"] and table.n.tolist() == [14, 12]
    assert "masked Neutral, left out 2 rows of contempt" in done.stdout
    for given, says in (
        (["data=[fer2013,folder]"], "evaluate's classes=common scores those in common"),
        (
            ["data=[fer2013,affectnet]", "classes=common"],
            "with `python prepare.py data=affectnet data.raw=PATH`",
        ),
        (["data=[]"], "data=[]: no data set: give data=NAME"),
        (["data=[folder,folder]"], "folder stands twice"),
        (["data=[folder,nope]"], "data/nope"),
        (["data=[fer2013,folder]", "data.file=a.h5"], "data.file would be the same for all of them"),
        (["data=[fer2013,folder]", "data.votes=a.csv"], "with data=folder: Could not override 'data.votes'"),
        (["data=[affectnet,affectnet_96]", "data.size=48"], "have the same data.file"),
        (["data=[1,folder]"], "data is a group of keys, which is chosen by a name"),
        (["data=[fer2013,folder]", "ckpt=a.weights"], "a .weights file is scored on one data set"),
    ):
        done = run("evaluate.py", *words, *given, cwd=tmp_path, code=2)
        assert done.stderr.splitlines()[-1].startswith("error: ") and says in done.stderr, done.stderr
        assert len([line for line in done.stderr.splitlines() if line.strip()]) == 1, done.stderr
    done = run("train.py", "data=[fer2013,folder]", cwd=tmp_path, code=2)
    assert done.stderr == "error: data=[fer2013,folder]: one is chosen here: give data=NAME; evaluate takes several\n"
