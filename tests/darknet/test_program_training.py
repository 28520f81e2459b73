"""Training with Debian's darknet program, end to end as a user does it: really trained, on drawn faces, on CPU."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer.darknet.formats.weights import read_header
from fer.evaluation.metrics import wilson_interval
from tests.conftest import ROOT

pytestmark = pytest.mark.darknet

DRAW = ["data=sample", "data.photos=60"]
#: A net that the program trains at some 30 iterations a second.
TINY = ["darknet=classifier_small", *DRAW, "darknet.crop=face", "darknet.size=16", "darknet.batch=8"]


def newest(home, name):
    return sorted((home / "runs" / name).iterdir())[-1]


def darknets(folder):
    """Return the ids of the processes that are running on the files of a run."""
    return subprocess.run(["pgrep", "-f", f"darknet .*{folder}"], capture_output=True, text=True).stdout.split()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def tiny_run(home, run):
    """A classifier trained for 120 iterations; the program has saved at 100 and at the end."""
    done = run("train.py", *TINY, "darknet.max_batches=120", "name=tiny", cwd=home)
    return newest(home, "tiny"), done


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_learns_in_under_three_minutes(darknet_demo, tmp_path, run):
    home = darknet_demo("binary")
    # on one core
    assert float((home / "seconds").read_text()) < 180
    weights = home / "runs/darknet_demo/latest/backup/classifier_small_best.weights"
    done = run("evaluate.py", f"ckpt={weights}", "split=test", f"out={tmp_path}", cwd=home)
    assert "DRAWN SAMPLE DATA" in done.stdout and "printed by the darknet program" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    right = sum(report["plain"]["confusion"][i][i] for i in range(7))
    low, _ = wilson_interval(right, report["plain"]["n"])
    # chance is 1/7: each class has 68 of the 476 faces
    assert report["plain"]["n"] == 476 and low > 2 / 7
    # the program's own count agrees with the report that we made from its probabilities
    assert report["printed"]["top1"] == pytest.approx(right / 476, abs=0.005)
    # val chose the checkpoint, so test is not called optimistic
    assert report["notes"] == []


def test_a_run_leaves_all_that_it_says(tiny_run):
    folder, done = tiny_run
    assert "120 iterations of 8" in done.stdout and "(drawn sample data)" in done.stdout
    log = (folder / "darknet.log").read_text()
    assert len(re.findall(r"^\d+, [\d.]+: ", log, re.M)) == 120
    scalars = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert {"train/loss", "train/loss_avg", "optim/lr", "speed/images_per_second", "val/top1", "val/top5"} <= set(
        scalars.Tags()["scalars"]
    )
    losses = [event.value for event in scalars.Scalars("train/loss")]
    printed = [float(text) for text in re.findall(r"^\d+, [\d.]+: ([\d.]+),", log, re.M)]
    assert losses == pytest.approx(printed)
    metrics = pd.read_csv(folder / "metrics/metrics.csv")
    assert (metrics["name"] == "train/loss").sum() == 120
    assert (folder / "curves.png").stat().st_size > 10_000
    # 120 iterations of 8: the header counts the images that the program has seen
    assert read_header(folder / "backup/classifier_small.weights").seen == 960
    assert [path.name for path in (folder / "backup").iterdir() if path.name.startswith(".")] == []


def test_photos_that_it_was_trained_on_are_not_scored(home, tiny_run, run):
    folder, _ = tiny_run
    best = folder / "backup/classifier_small_best.weights"
    done = run("evaluate.py", f"ckpt={best}", "split=val", cwd=home)
    assert "The checkpoint was chosen among others by its score on" in done.stdout
    # the same faces, drawn again into another folder with the splits exchanged
    exported = home / "data/sample-classifier-48-grey"
    other = home / "exchanged"
    run(
        "prepare.py", *DRAW, "data.val_fraction=0.9", "format=darknet_classifier", "crop=face", f"out={other}", cwd=home
    )
    assert exported.is_dir()
    refused = run("evaluate.py", f"ckpt={best}", "split=val", f"darknet.folder={other}", cwd=home, code=2)
    assert re.search(r"of its [\d,]+ photos are photos that .* was trained on", refused.stderr)


def test_predict_names_photos_and_says_which_failed(home, tiny_run, run):
    folder, _ = tiny_run
    source = home / "photos"
    source.mkdir()
    picked = sorted((home / "data/sample-classifier-48-grey/photos/000").glob("*.png"))[:3]
    for path in picked:
        (source / path.name).write_bytes(path.read_bytes())
    (source / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    best = folder / "backup/classifier_small_best.weights"
    done = run("predict.py", f"source={source}", f"ckpt={best}", "min_confidence=0", cwd=home, code=1)
    assert "4 photos, 3 faces named, 0 without a face, 1 photo failed" in done.stdout
    rows = pd.read_csv(home / "predictions/classifier_small_best-program-photos/predictions.csv", keep_default_na=False)
    assert rows["file"].tolist() == sorted(str(path) for path in source.iterdir())
    assert rows["error"].tolist()[:1] != [""] or "broken" not in rows["file"][0]
    named = rows[rows["label"] != ""]
    assert set(named["label"]) <= {"Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral"}


@pytest.mark.slow
def test_partial_starts_a_detector_which_trains_and_is_scored(home, run):
    # the original chain at a tenth of the size: the first 11 layers of classifier_tiny start v3_tiny
    small = ["darknet.batch=4", "darknet.burn_in=2", *DRAW]
    run(
        "train.py", "darknet=classifier_tiny", "darknet.crop=face", "darknet.size=32", "darknet.max_batches=4", *small,
        "name=first", cwd=home,
    )  # fmt: skip
    first = newest(home, "first") / "backup/classifier_tiny_best.weights"
    run(
        "train.py", "experiment=seed_v3_tiny_affectnet", f"darknet.pretrained={first}", "darknet.size=64",
        "darknet.max_batches=6", "darknet.anchors=kmeans", *small, cwd=home,
    )  # fmt: skip
    folder = newest(home, "seed_v3_tiny_affectnet")
    # 20 bytes of header and the floats of conv 16 to 512: 4 n + 9 c n each
    widths = [3, 16, 32, 64, 128, 256, 512]
    floats = sum(4 * n + 9 * c * n for c, n in zip(widths, widths[1:], strict=False))
    cut = folder / "classifier_tiny_best.conv.11"
    assert cut.stat().st_size == 20 + 4 * floats
    assert cut.read_bytes()[20:] == first.read_bytes()[20 : 20 + 4 * floats]
    done = run("evaluate.py", f"ckpt={folder / 'backup/v3_tiny_best.weights'}", "split=test", cwd=home)
    assert re.search(r"^mAP@0.50 [\d.]+ %, and of detections with confidence over 0.25:$", done.stdout, re.M)
    report = json.loads((folder / "evaluate/v3_tiny_best-program-sample-test/report.json").read_text())
    assert report["task"] == "detector" and 0 <= report["map"] <= 1 and report["size"] == 64
    assert report["pretrained"] == "classifier_tiny_best.weights, 11 layers"
    compared = run("evaluate.py", f"compare=[{folder}/evaluate/v3_tiny_best-program-sample-test]", cwd=home)
    assert "v3_tiny" in compared.stdout and "11 layers" in compared.stdout
    weights = f"ckpt={folder / 'backup/v3_tiny_best.weights'}"
    photo = next((home / "data/sample/Manually_Annotated_Images").rglob("*.jpg"))
    run("predict.py", f"source={photo}", weights, "min_confidence=0.001", "out=found", cwd=home)
    assert (home / "found/predictions.csv").is_file() and list((home / "found/photos").iterdir())


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_the_program_saved(home, tiny_run, run):
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "darknet.max_batches=4000", "name=stopped"]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    saved = []
    while not saved and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
        saved = list((home / "runs").glob("stopped/*/backup/classifier_small.backup"))
    assert saved, process.communicate(timeout=60)[1]
    time.sleep(1)
    folder = newest(home, "stopped")
    assert darknets(folder)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    message = errors.splitlines()[-1]
    resume = re.fullmatch(r"stopped by SIGINT; go on with the same command and resume=(\S+)", message)[1]
    # the program saves a .backup every 100 iterations and a numbered file every epoch
    assert re.fullmatch(rf"{folder}/backup/classifier_small(\.backup|_\d+\.weights)", resume)
    assert not [path for path in (folder / "backup").iterdir() if path.name.startswith(".")]
    deadline = time.monotonic() + 5
    while (left := darknets(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    done = read_header(Path(resume)).seen // 8
    assert done >= 100

    more = run("train.py", *TINY, f"darknet.max_batches={done + 20}", "name=resumed", f"resume={folder}", cwd=home)
    assert f"goes on after {done:,} of {done + 20:,} iterations, in epoch " in more.stdout
    again = newest(home, "resumed")
    steps = re.findall(r"^(\d+), [\d.]+: ", (again / "darknet.log").read_text(), re.M)
    assert [int(step) for step in steps] == list(range(done + 1, done + 21))


MISTAKES = [
    (["model=vgg11"], "model=vgg11 has no effect beside darknet=classifier_small"),
    (["schedule=cosine"], "schedule=cosine has no effect beside darknet=classifier_small"),
    (["darknet.binary=/nowhere/darknet"], "/nowhere/darknet"),
    (["darknet.engine=tarch"], "darknet.engine=tarch: not binary or torch"),
    (["darknet.subdivisions=3"], "darknet.batch=8 does not divide by darknet.subdivisions=3"),
    (["darknet.burn_in=120"], "darknet.burn_in=120 is not below max_batches=120"),
    (["darknet.mosaic=1"], "mosaic"),
    (["darknet.folder=missing"], "missing"),
    (["darknet.pretrained=missing.weights"], "darknet.pretrained=missing.weights: no such file"),
    (["darknet.pretrained_layers=3"], "darknet.pretrained_layers needs darknet.pretrained"),
    (["resume=missing"], "resume=missing: no such file or folder"),
    (["data=fer2013"], "python prepare.py data=fer2013 data.raw=PATH format=darknet_classifier crop=face"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_give_one_line_before_the_start(home, tiny_run, run, arguments, message):
    tiny = [argument for argument in TINY if "data=fer2013" not in arguments or not argument.startswith("data.")]
    done = run("train.py", *tiny, "darknet.max_batches=120", "name=wrong", *arguments, cwd=home, code=2)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in done.stderr and not list(home.glob("runs/wrong/*/darknet.log"))


def test_a_cut_or_foreign_weights_file_is_refused(home, tiny_run, run):
    folder, _ = tiny_run
    whole = (folder / "backup/classifier_small.weights").read_bytes()
    (home / "cut.weights").write_bytes(whole[:-100])
    arguments = [*TINY, "darknet.max_batches=120", "name=wrong"]
    for key in ("resume", "darknet.pretrained"):
        done = run("train.py", *arguments, f"{key}=cut.weights", cwd=home, code=2)
        assert f"{len(whole) - 100:,} bytes" in done.stderr and f"{len(whole):,} bytes" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("garbage", "broken.cfg"),
        ("[convolutional]\nfilters=3\n", "broken.cfg"),
        (
            "[net]\nbatch=4\nwidth=32\nheight=32\nchannels=3\nmax_batches=9\n[warp]\n[softmax]\n",
            "broken.cfg:7: unknown section [warp]",
        ),
        (
            "[net]\nbatch=4\nwidth=32\nheight=32\nchannels=3\nmax_batches=9\n[convolutional]\nfilters=8\nsize=3\n"
            "activation=mish\n[avgpool]\n[convolutional]\nfilters=2\nsize=1\nactivation=linear\n[softmax]\n",
            "mish",
        ),
    ],
)  # fmt: skip
def test_a_broken_cfg_gives_one_line_before_the_start(home, tiny_run, run, text, message):
    (home / "broken.cfg").write_text(text)
    custom = ["darknet=custom", "darknet.cfg=broken.cfg", *DRAW, "darknet.crop=face", "name=wrong"]
    done = run("train.py", *custom, cwd=home, code=2)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last and "Traceback" not in done.stderr


def test_a_cfg_given_by_path_is_fitted_and_trained(home, tiny_run, run):
    # five classes in the head and no max_batches in epochs: both are derived from the data
    (home / "own.net.cfg").write_text(
        "[net]\nbatch=8\nwidth=16\nheight=16\nchannels=3\nlearning_rate=0.01\npolicy=constant\nmax_batches=9\n"
        "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
        "[avgpool]\n[convolutional]\nfilters=5\nsize=1\nactivation=linear\n[softmax]\n"
    )
    run(
        "train.py", "darknet=custom", "darknet.cfg=own.net.cfg", "darknet.epochs=0.5", *DRAW, "darknet.crop=face",
        "name=own", cwd=home,
    )  # fmt: skip
    folder = newest(home, "own")
    photos = len((home / "data/sample-classifier-48-grey/train.list").read_text().splitlines())
    steps = re.findall(r"^(\d+), [\d.]+: ", (folder / "darknet.log").read_text(), re.M)
    assert len(steps) == round(photos / 2 / 8)
    # 8 filters of 3x3x3 with batch norm, 7 of 1x1x8 with a bias
    size = 20 + 4 * (8 * 27 + 4 * 8 + 7 * 8 + 7)
    assert os.path.getsize(folder / "backup/own.weights") == size
