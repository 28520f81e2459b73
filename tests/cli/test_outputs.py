"""What a command writes is its own while it runs, and a place that takes no file is named in one line."""

import pytest
import yaml

from fer.data.source import FaceFormat
from fer.system.files import claiming
from tests.conftest import write_tiny
from tests.system.test_files import files_end_at

COMMANDS = {
    "prepare": ["data=sample", "data.photos=60", "out=there/out"],
    "train": ["data=fer2013", "data.file=tiny.h5", "model=vgg_small", "trainer=cpu", "hydra.run.dir=there/out"],
    "evaluate": ["ckpt=fer2013_vgg9", "data=fer2013", "data.file=tiny.h5", "device=cpu", "out=there/out"],
    "predict": ["ckpt=fer2013_vgg9", "source=in", "device=cpu", "out=there/out"],
    "export": ["ckpt=fer2013_vgg9", "out=there/out"],
    "look": ["file=tiny.h5", "out=there/out"],
}
FORMATS = ("h5", "csv", "folder", "litdata", "darknet_detector", "darknet_classifier")


@pytest.fixture
def home(tmp_path):
    write_tiny(tmp_path / "tiny.h5", {"train": 70, "val": 14, "test": 14}, FaceFormat(size=48))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/photo.jpg").write_bytes(b"no photo")
    return tmp_path


def only_line(done):
    """Return the line that begins with error: behind the progress bars, the only one that is no bar."""
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
    assert len(lines) == 1, done.stderr
    return lines[0].strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_another_process_writes_is_left_to_it(home, run, command):
    with claiming(home / "there/out"):
        done = run(f"{command}.py", *COMMANDS[command], cwd=home, code=2)
        assert only_line(done).startswith(f"error: {home}/there/out: another process is writing it: wait for it to end")
        # nor the folder that Hydra makes for a run
        assert [path.name for path in (home / "there").rglob("*")] == [".out.lock"]


def tree(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_a_second_training_leaves_the_first_ones_folder_as_it_was(home, run):
    out = home / "there/out"
    (out / ".hydra").mkdir(parents=True)
    (out / ".hydra/config.yaml").write_text("of: the first")
    (out / "darknet.log").write_text("of the first")
    with claiming(out):
        before = tree(out)
        done = run("train.py", *COMMANDS["train"], cwd=home, code=2)
        assert "another process is writing it" in only_line(done) and tree(out) == before


def test_a_training_records_what_it_was_started_with(home, run):
    more = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.enable_progress_bar=false"]
    run("train.py", *COMMANDS["train"], *more, cwd=home)
    record = home / "there/out/.hydra"
    given = [word for word in [*COMMANDS["train"], *more] if not word.startswith("hydra.")]
    assert yaml.safe_load((record / "overrides.yaml").read_text()) == given
    config = yaml.safe_load((record / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 1 and config["model"]["name"] == "vgg_small"
    assert yaml.safe_load((record / "hydra.yaml").read_text())["hydra"]["runtime"]["output_dir"] == f"{home}/there/out"


@pytest.mark.parametrize("wrong", ["data.file=none.h5", "batch_size=0", "early_stop=0"])
def test_a_training_that_never_began_leaves_no_folder(home, run, wrong):
    before = tree(home)
    only_line(run("train.py", *COMMANDS["train"], wrong, cwd=home, code=2))
    only_line(run("train.py", *COMMANDS["train"][:-1], wrong, cwd=home, code=2))
    only_line(run("train.py", "-m", *COMMANDS["train"][:-1], wrong, "seed=1,2", cwd=home, code=2))
    assert tree(home) == before
    # what was there before stays, be it empty
    (home / "there/out").mkdir(parents=True)
    (home / "sweep").mkdir()
    before = tree(home)
    only_line(run("train.py", *COMMANDS["train"], wrong, cwd=home, code=2))
    sweep = ["-m", *COMMANDS["train"][:-1], wrong, "seed=1,2", "hydra.sweep.dir=sweep"]
    only_line(run("train.py", *sweep, cwd=home, code=2))
    assert tree(home) == before
    (home / "sweep/0").mkdir()
    only_line(run("train.py", *sweep, cwd=home, code=2))
    assert (home / "sweep/0").is_dir()


def test_a_job_that_fails_says_how_many_of_its_sweep_were_not_started(home, run):
    sweep = ["-m", *COMMANDS["train"][:-1], "hydra.sweep.dir=sweep", "trainer.max_epochs=1"]
    sweep += ["trainer.limit_train_batches=1", "trainer.enable_progress_bar=false"]
    done = run("train.py", *sweep, "batch_size=16,0,8", "seed=1,2", cwd=home, code=2)
    assert only_line(done).startswith("error: batch_size=0 is not a positive number") and only_line(done).endswith(
        "; this was job 2 of the sweep (batch_size=0 seed=1), 3 of 6 jobs were not started"
    )
    assert sorted(path.name for path in (home / "sweep").iterdir()) == ["0", "1", "multirun.yaml", "sweep.csv"]
    done = run("train.py", *sweep[:-1], "batch_size=0", "seed=1,2", "hydra.sweep.dir=other", cwd=home, code=2)
    assert only_line(done).endswith("; this was job 0 of the sweep (seed=1), 1 of 2 jobs were not started")
    assert not (home / "other").exists()


def test_a_full_disk_names_the_run_that_is_kept(home, run):
    command = ["train.py", *COMMANDS["train"], "trainer.enable_progress_bar=false"]
    with files_end_at(100_000):
        line = only_line(run(*command, "trainer.max_epochs=1", cwd=home, code=2))
    assert line.endswith(f"; the run folder {home}/there/out is kept") and "file too large" in line
    run(*command, "trainer.max_epochs=1", cwd=home)
    last = home / "there/out/checkpoints/last.ckpt"
    with files_end_at(1 << 20):
        line = only_line(run(*command, "trainer.max_epochs=3", f"resume={last}", cwd=home, code=2))
    kept = f"; the run folder {home}/there/out is kept; go on with the same command and resume={last}"
    assert line.endswith(kept) and "file too large" in line
    with files_end_at(10):
        line = only_line(run(*command, "hydra.run.dir=new/out", cwd=home, code=2))
    assert "file too large" in line and "is kept" not in line and not (home / "new").exists()


def test_a_full_disk_keeps_the_blocks_of_a_preparation_that_go_on(home, run):
    command = ["prepare.py", "data=sample", "data.photos=60", "data.size=32", "out=there/out.h5"]
    run(*command[:-1], "out=drawn.h5", cwd=home)
    stage = home / "there/out.h5.partial"
    size = (home / "drawn.h5").stat().st_size
    with files_end_at(size - 1000):
        line = only_line(run(*command, cwd=home, code=2))
    assert line.endswith("; what is done lies in there/out.h5.partial: the same command goes on there")
    assert [path.name for path in (home / "there").iterdir()] == [stage.name] and list(stage.glob("*.npz"))
    assert "that an earlier run left in there/out.h5.partial" in run(*command, cwd=home).stdout
    assert stage.parent.joinpath("out.h5").is_file() and not stage.exists()
    for size in (10, 3000):
        # not even the first block
        with files_end_at(size):
            line = only_line(run(*command[:-1], "out=new/out.h5", cwd=home, code=2))
        assert "file too large" in line and "goes on" not in line and not (home / "new").exists()


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "prepare"])
def test_a_place_that_takes_no_file_is_one_line(home, run, command):
    (home / "there").touch()
    done = run(f"{command}.py", *COMMANDS[command], cwd=home, code=2)
    assert only_line(done).startswith("error: ") and "not a directory" in done.stderr and "there/out" in done.stderr
    assert sorted(path.name for path in home.iterdir()) == ["in", "there", "tiny.h5"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_place_that_takes_no_prepared_file_is_one_line(home, run, form):
    (home / "there").touch()
    done = run("prepare.py", "data=sample", f"format={form}", "out=there/out", cwd=home, code=2)
    assert only_line(done) == f"error: {home}/there/out: not written, not a directory: choose another place"
    assert sorted(path.name for path in home.iterdir()) == ["in", "there", "tiny.h5"]


@pytest.mark.parametrize(
    ("script", "key"),
    [
        ("train.py", "resume"),
        ("train.py", "init"),
        ("prepare.py", "verify"),
        ("predict.py", "out"),
        ("look.py", "file"),
    ],
)
def test_a_key_without_its_value_is_not_another_command(home, run, script, key):
    before = tree(home)
    # as of `resume=$LAST` in a shell that has no LAST
    line = only_line(run(script, *COMMANDS[script[:-3]][:-1], f"{key}=", cwd=home, code=2))
    assert line == f"error: {key}= is empty: give {key}=VALUE, or leave it out" and tree(home) == before


def test_a_part_that_leaves_is_no_run_that_came_to_its_end(home, run, monkeypatch):
    (home / "leaving.py").write_text("import sys\n\n\ndef net(num_classes, code=None):\n    sys.exit(code)\n")
    monkeypatch.syspath_prepend(home)
    command = ["train.py", *COMMANDS["train"][:2], "model=custom", "model._target_=leaving.net", *COMMANDS["train"][3:]]
    line = only_line(run(*command, cwd=home, code=2))
    assert (
        line.startswith("error: ") and "leaving.py, line 5: ended the program by sys.exit() before it was done" in line
    )
    # a code that says what it is stays
    run(*command, "+model.code=3", cwd=home, code=3)


def test_a_run_folder_that_cannot_be_made_is_one_line(home, run):
    done = run("train.py", *COMMANDS["train"][:-1], "hydra.run.dir=/proc/run", cwd=home, code=2)
    assert only_line(done) == "error: /proc/run: no such file or directory; choose another place"
