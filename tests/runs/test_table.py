"""Tables of runs: a sweep's at its end, and those of `fer compare`."""

import csv
import json
import shutil
import subprocess
import sys

import pytest

from fer.runs.table import compare_runs
from tests.conftest import ROOT, write_tiny


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, run):
    """The folder of a 2 x 2 sweep, and what it printed."""
    home = tmp_path_factory.mktemp("sweep")
    file = write_tiny(home / "tiny.h5", {"train": 64, "val": 14})
    words = [
        "-m", "data=fer2013", f"data.file={file}", "data.size=20", "augment.crop=16,20", "model=vgg_small",
        "batch_size=32", "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=1",
        "optimizer.lr=0.02,0.01", f"hydra.sweep.dir={home / 'out'}",
    ]  # fmt: skip
    return home / "out", run("train.py", *words).stdout


def fer(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "fer", "compare", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=60, env=None,
    )  # fmt: skip


def test_a_sweep_ends_with_a_table(sweep):
    folder, printed = sweep
    rows = list(csv.DictReader((folder / "sweep.csv").open()))
    assert list(rows[0]) == [
        "run", "augment.crop", "optimizer.lr", "val/acc", "val/balanced_acc", "best", "seconds", "exit",
    ]  # fmt: skip
    assert [(row["run"], row["augment.crop"], row["optimizer.lr"]) for row in rows] == [
        ("0", "16", "0.02"), ("1", "16", "0.01"), ("2", "20", "0.02"), ("3", "20", "0.01"),
    ]  # fmt: skip
    for row in rows:
        with (folder / row["run"] / "metrics/metrics.csv").open() as file:
            (accuracy,) = [line["val/acc"] for line in csv.DictReader(file) if line["val/acc"]]
        assert float(row["val/acc"]) == pytest.approx(float(accuracy)) and row["best"] == "0"
        assert row["exit"] == "finished" and float(row["seconds"]) > 0
    lines = printed.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("run "))
    assert lines[head].split() == list(rows[0])
    assert [line.split()[:3] for line in lines[head + 1 : head + 5]] == [
        [row["run"], row["augment.crop"], row["optimizer.lr"]] for row in rows
    ]
    assert lines[head + 5] == f"table: {folder / 'sweep.csv'}"
    assert printed.count("\nrun ") == 1


def test_jobs_whose_runs_have_other_names_lie_in_one_folder_with_one_table(tmp_path, run):
    file = write_tiny(tmp_path / "tiny.h5", {"train": 64, "val": 14})
    words = [
        "-m", "data=fer2013", f"data.file={file}", "data.size=20", "augment.crop=20", "model=vgg_small,vgg9",
        "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.enable_progress_bar=false",
    ]  # fmt: skip
    printed = run("train.py", *words, cwd=tmp_path).stdout
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert folder.parent.name == "sweep"
    rows = list(csv.DictReader((folder / "sweep.csv").open()))
    assert [(row["run"], row["model"], row["exit"]) for row in rows] == [
        ("0", "vgg_small", "finished"), ("1", "vgg9", "finished"),
    ]  # fmt: skip
    assert printed.splitlines()[-1].endswith("sweep.csv")
    assert json.loads((folder / "1/run.json").read_text())["config"]["name"] == "fer2013_vgg9"


def test_a_sweep_that_a_job_ends_has_a_table_too(tmp_path, run):
    file = write_tiny(tmp_path / "tiny.h5", {"train": 64, "val": 14})
    words = [
        "-m", "data=fer2013", f"data.file={file},{tmp_path / 'none.h5'}", "data.size=20", "augment.crop=16",
        "model=vgg_small", "batch_size=32", "trainer=cpu", "trainer.enable_progress_bar=false",
        "trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path / 'out'}",
    ]  # fmt: skip
    done = run("train.py", *words, code=2)
    rows = list(csv.DictReader((tmp_path / "out/sweep.csv").open()))
    assert [row["exit"].split(":")[0] for row in rows] == ["finished", "error"]
    assert done.stdout.splitlines()[-1].startswith("table: ")


def test_compare_takes_runs_folders_of_runs_and_patterns(sweep, tmp_path):
    folder, _ = sweep
    whole = fer(folder)
    assert whole.returncode == 0 and len(whole.stdout.splitlines()) == 5 and whole.stderr == ""
    # in the order given, each once; what is not changed between them is no column
    done = fer(folder / "2", folder / "0", folder / "2", f"out={tmp_path / 'table.csv'}")
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "augment.crop", "val/acc"]
    assert [line.split()[0] for line in lines[1:3]] == ["2", "0"] and len(lines) == 4
    assert [row["augment.crop"] for row in csv.DictReader((tmp_path / "table.csv").open())] == ["20", "16"]
    assert fer(f"{folder}/[01]").stdout.count("finished") == 2
    assert fer(folder.parent).stdout.count("finished") == 4


def test_compare_counts_and_names_what_it_leaves_out(sweep, tmp_path):
    folder, _ = sweep
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out/1/run.json").write_text("{")
    (tmp_path / "out/2/run.json").unlink()
    done = fer(tmp_path / "out", tmp_path / "nowhere")
    assert done.returncode == 0 and done.stdout.count("finished") == 2
    assert done.stdout.splitlines()[-4:] == [
        "3 folders are left out:",
        f"  {tmp_path}/out/1/run.json: is damaged, or of no run that keeps a record",
        f"  {tmp_path}/out/2/run.json: no such file",
        f"  {tmp_path}/nowhere/run.json: no such file",
    ]


def test_runs_whose_config_changed_under_the_same_command_show_it(sweep, tmp_path):
    folder, _ = sweep
    for name, momentum in (("a", 0.9), ("b", 0.8)):
        shutil.copytree(folder / "0", tmp_path / name)
        record = json.loads((tmp_path / name / "run.json").read_text())
        record["config"]["optimizer"]["momentum"] = momentum
        (tmp_path / name / "run.json").write_text(json.dumps(record | {"exit": None, "seconds": None}))
    table = compare_runs([tmp_path / "a", tmp_path / "b"])
    assert table.columns[:2] == ["run", "optimizer.momentum"]
    assert [row[:2] for row in table.rows] == [["a", 0.9], ["b", 0.8]]
    # of a run that was killed, or still runs
    assert str(table).splitlines()[1].split()[-2:] == ["no", "end"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "error: no run to compare: give run folders, as `fer compare runs/NAME`"),
        (["--runs", "a"], "error: --runs: there is no such option; give run folders, and out=FILE.csv"),
        (["a", "out="], "error: out= is one file, as out=table.csv"),
        (["nowhere"], "error: there is no run with a whole run.json in nowhere"),
    ],
)
def test_a_mistake_is_one_line(words, line):
    done = fer(*words)
    assert done.returncode == 2 and done.stderr == f"{line}\n"


def test_help_says_how():
    done = fer("--help")
    assert done.returncode == 0 and "fer compare runs/A/DATE runs/B/DATE" in done.stdout


def test_what_chooses_a_part_is_one_column(sweep, tmp_path):
    folder, _ = sweep
    record = json.loads((folder / "0/run.json").read_text())
    ours, focal, mine = "fer.training.losses.CrossEntropy", "fer.training.losses.Focal", "mine.Loss"
    for number, (typed, target) in enumerate(
        [([], ours), (["loss=focal"], focal), (["loss=custom", f"loss._target_={mine}"], mine)]
    ):
        config = record["config"] | {"loss": {"_target_": target}}
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_text(json.dumps(record | {"overrides": typed, "config": config}))
    table = compare_runs([tmp_path])
    assert table.columns[:3] == ["run", "loss", "val/acc"]
    assert [row[1] for row in table.rows] == [ours, "focal", mine]
