"""What a run tells while it goes on: AlexeyAB's lines as numbers, and alarms on NaN and on weights cut short."""

import struct
import time

import pandas as pd
import pytest

from fer.darknet.formats.cfg import parse
from fer.darknet.formats.weights import Net
from fer.darknet.program_engine.monitor import ProgramMonitor
from fer.darknet.runs.curves import curves
from fer.darknet.runs.scorer import Scorer, best_weights, read_best, take_along
from fer.errors import InputError

CFG = """[net]
batch=8
width=16
height=16
channels=3
[convolutional]
filters=7
size=1
activation=linear
[avgpool]
[softmax]
"""
#: 7 biases and 7 x 3 weights.
FLOATS = 28


def weights(path, seen, floats=FLOATS):
    """Write a file as the program does: version 0.2.0, images seen, then float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<3iQ", 0, 2, 0, seen) + struct.pack("<f", 0.5) * floats)
    return path


def step(iteration, loss="1.5"):
    return (
        f" {iteration}: {loss}, 1.600000 avg loss, 0.001000 rate, 1.2 seconds, {8 * iteration} images, 0.1 hours left"
    )


@pytest.fixture
def monitor(tmp_path):
    watching = ProgramMonitor(tmp_path, parse(CFG), 100, 0, "val/map50")
    yield watching
    watching.close()


def test_the_map_that_alexeyab_prints_while_training_becomes_scores(tmp_path, monitor):
    for line in (
        step(1),
        "class_id = 0, name = Neutral, ap = 18.75%   \t (TP = 0, FP = 4)",
        "class_id = 1, name = Happy, ap = 71.41%   \t (TP = 3, FP = 1)",
        " mean average precision (mAP@0.50) = 0.450814, or 45.08 %",
        " mean_average_precision (mAP@0.50) = 0.450814 ",
        step(2),
    ):
        monitor(line)
    rows = pd.read_csv(tmp_path / "metrics/metrics.csv")
    scores = rows[rows["name"].str.startswith("val/")]
    assert scores.to_dict("list") == {
        "iteration": [1, 1, 1],
        "name": ["val/map50", "val/ap/Neutral", "val/ap/Happy"],
        "value": [0.450814, 0.1875, 0.7141],
    }
    assert monitor.scores == {1: 0.450814}


def test_an_impossible_map_is_no_score(monitor):
    monitor(" mean average precision (mAP@0.50) = inf, or inf %")
    assert monitor.scores == {}


def test_a_loss_that_stays_nan_ends_the_run(monitor):
    monitor(step(1, "nan"))
    monitor(step(2))
    for iteration in range(3, 22):
        monitor(step(iteration, "-nan"))
    with pytest.raises(InputError, match="the loss is NaN since iteration 3: lower darknet.learning_rate"):
        monitor(step(22, "nan"))


def test_weights_cut_short_by_a_full_disk_end_the_run(tmp_path, monitor, monkeypatch):
    weights(tmp_path / "backup/a_last.weights", 800)
    monitor("Saving weights to backup/a_last.weights")
    monitor(step(100))
    monitor(step(101))
    assert monitor.last_saved == tmp_path / "backup/a_last.weights"
    weights(tmp_path / "backup/a_last.weights", 1600, FLOATS - 3)
    monitor("Saving weights to backup/a_last.weights")
    # iterations from before the save may be read after its line, so it has some seconds
    monitor(step(199))
    monitor(step(200))
    monkeypatch.setattr("time.monotonic", lambda now=time.monotonic: now() + 11)
    # which a further save does not prolong
    monitor("Saving weights to backup/a_last.weights")
    with pytest.raises(InputError, match=r"a_last.weights was not written whole .* MiB free there\): make room"):
        monitor(step(201))


def test_curves_leave_out_what_is_not_finite():
    history = [{"iteration": i, "train/loss": 2.0, "train/loss_avg": value, "optim/lr": 0.1} for i, value in
               enumerate([float("inf"), 3.0, 2.0])]  # fmt: skip
    figure = curves(history, {2: 0.5}, "val/top1", "a")
    loss, _, score = figure.axes
    assert loss.get_ylim()[1] < 10 and score.get_title() == "best val/top1 0.5000 at iteration 2"


def scorer(tmp_path, values, start=0):
    net = Net(tmp_path / "backup/a.weights", tmp_path / "a.cfg", tuple("abcdefg"), parse(CFG), "classifier")
    told = []
    given = iter(values)
    return Scorer(
        net, 100, "val/top1", lambda found: {"val/top1": next(given)}, lambda *score: told.append(score), start
    ), told  # fmt: skip


def test_the_best_checkpoint_is_kept_and_the_last_is_scored(tmp_path):
    score, told = scorer(tmp_path, [0.6, 0.4])
    weights(tmp_path / "backup/a_last.weights", 8 * 100)
    score.finish()
    weights(tmp_path / "backup/a_final.weights", 8 * 120)
    score.finish()
    assert told == [(100, {"val/top1": 0.6}), (120, {"val/top1": 0.4})]
    best = best_weights(tmp_path / "backup/a.weights")
    assert best.read_bytes()[12:20] == struct.pack("<Q", 800)
    assert read_best(tmp_path / "backup/a.weights") == {"score": 0.6, "metric": "val/top1", "iteration": 100}


def test_a_file_that_is_being_written_is_not_scored(tmp_path):
    score, told = scorer(tmp_path, [])
    weights(tmp_path / "backup/a_last.weights", 800, FLOATS - 1)
    score.finish()
    assert told == [] and read_best(tmp_path / "backup/a.weights") is None


def test_what_went_wrong_beside_the_training_is_raised(tmp_path):
    score, _ = scorer(tmp_path, [])
    weights(tmp_path / "backup/a_last.weights", 800)
    score.start()
    score._thread.join(10)
    with pytest.raises(StopIteration):
        score.finish()


def test_a_resumed_run_takes_the_best_along(tmp_path):
    score, _ = scorer(tmp_path / "first", [0.6])
    weights(tmp_path / "first/backup/a_last.weights", 800)
    score.finish()
    now = tmp_path / "second/backup/a.weights"
    now.parent.mkdir(parents=True)
    take_along(tmp_path / "first/backup/a.weights", now)
    assert read_best(now)["score"] == 0.6 and best_weights(now).is_file()
    best_weights(tmp_path / "first/backup/a.weights").unlink()
    with pytest.raises(InputError, match="a_best.weights, the best weights so far, is not there"):
        take_along(tmp_path / "first/backup/a.weights", now)
