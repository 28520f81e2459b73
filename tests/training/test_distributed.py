"""Training by several processes: torchrun on two machines, SLURM's environment, and what happens when one is killed."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch

from fer.errors import InputError
from fer.system.distributed import is_first_rank
from fer.training.run import assemble
from tests.conftest import ROOT, train_config, write_tiny


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    """A prepared file of 20 x 20 grey faces: 150 train, 40 val."""
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny.h5", {"train": 150, "val": 40})


def arguments(file, out, *more):
    return [
        "data=fer2013", f"data.file={file}", "data.size=20", "augment.crop=16", "model=vgg_small", "batch_size=4",
        "trainer=cpu", "trainer.enable_progress_bar=false", f"hydra.run.dir={out}", *more,
    ]  # fmt: skip


def start(*command, **env):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )  # fmt: skip


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def torchrun(port, nodes=1, node=0, processes=1):
    return [
        "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--node-rank={node}", f"--nproc-per-node={processes}",
        "--master-addr=127.0.0.1", f"--master-port={port}", "train.py",
    ]  # fmt: skip


def finish(*processes):
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)


def assert_equal(first, second):
    a, b = (
        torch.load(out / "checkpoints/last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        for out in (first, second)
    )
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def unbroken(tiny_file, tmp_path_factory):
    """Make the run folder of some epochs on one machine with two devices, once for each number of epochs."""
    folder = tmp_path_factory.mktemp("runs")

    def get(epochs):
        if not (out := folder / str(epochs)).exists():
            finish(start("train.py", *arguments(tiny_file, out, f"trainer.max_epochs={epochs}", "trainer.devices=2")))
        return out

    return get


@pytest.fixture
def two_devices(unbroken):
    """The run folder of two epochs on one machine with two devices."""
    return unbroken(2)


@pytest.mark.slow
def test_two_machines_under_torchrun_equal_two_devices_of_one(tiny_file, two_devices, tmp_path):
    port = free_port()
    more = ["trainer.max_epochs=2", "trainer.num_nodes=2"]
    finish(
        *(start(*torchrun(port, 2, node), *arguments(tiny_file, tmp_path / f"machine{node}", *more)) for node in (0, 1))
    )
    assert_equal(two_devices, tmp_path / "machine0")
    # each machine has the config that it ran with, the first everything else
    assert {path.name for path in (tmp_path / "machine1").iterdir()} == {".hydra"}
    written = {".hydra", "checkpoints", "curves.png", "metrics", "run.json", "tensorboard"}
    assert {path.name for path in (tmp_path / "machine0").iterdir()} == written


@pytest.mark.slow
def test_torchrun_on_one_machine_makes_one_run_folder_named_by_the_time(tiny_file, two_devices, tmp_path):
    more = [a for a in arguments(tiny_file, "", "trainer.max_epochs=2", "trainer.devices=2") if "run.dir" not in a]
    command = [sys.executable, *torchrun(free_port(), processes=2), *more]
    command[command.index("train.py")] = str(ROOT / "train.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120, env=environment)
    (folder,) = tmp_path.glob("runs/*/*")
    assert_equal(two_devices, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.slow
def test_tasks_of_srun_equal_two_devices(tiny_file, two_devices, tmp_path):
    # what srun sets for the tasks of `--nodes=1 --ntasks-per-node=2` (its manual, "OUTPUT ENVIRONMENT VARIABLES")
    job = {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "fer", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    more = arguments(tiny_file, tmp_path / "run", "trainer.max_epochs=2", "trainer.devices=2")
    finish(*(start("train.py", *more, **job, SLURM_PROCID=task, SLURM_LOCALID=task) for task in "01"))
    assert_equal(two_devices, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "lost"), [("lightning", 0), ("lightning", 1), ("torchrun", 1)])
def test_a_killed_rank_ends_the_others_and_the_run_resumes(tiny_file, unbroken, tmp_path, launcher, lost):
    cut = tmp_path / "cut"
    command = ["train.py"] if launcher == "lightning" else torchrun(free_port(), processes=2)
    more = arguments(tiny_file, cut, "trainer.max_epochs=100000", "trainer.devices=2")
    process = start(*command, *more)
    last = cut / "checkpoints/last.ckpt"
    deadline = time.time() + 60
    while not last.exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    first = psutil.Process(process.pid)
    ranks = [first, *first.children()] if launcher == "lightning" else first.children()
    assert len(ranks) == 2
    saved = time.time()
    ranks[lost].kill()
    output, _ = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(ranks, timeout=max(0, 60 - (time.time() - saved)))
    assert not alive
    assert process.returncode != 0
    # said by the rank that is left, or where its launcher was faster to end it, by that
    assert f"resume={last}" in output or "code -9" in output or "SIGKILL" in output, output
    epochs = torch.load(last, weights_only=True)["epoch"] + 2
    rest = tmp_path / "rest"
    ranks = ["trainer.devices=2", f"trainer.max_epochs={epochs}"]
    finish(start("train.py", *arguments(tiny_file, rest, *ranks, f"resume={last}")))
    assert_equal(unbroken(epochs), rest)


def test_a_rank_ends_soon_after_the_process_that_started_it_is_killed():
    rank = "from fer.system.distributed import end_with_parent; end_with_parent(grace=0.1); print(1, flush=True); "
    rank += "import time; "
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {rank + 'time.sleep(100)'!r}]); "
    launcher = start("-c", code + "p.wait()")
    try:
        assert launcher.stdout.readline() == "1\n"
        (child,) = psutil.Process(launcher.pid).children()
    finally:
        launcher.kill()
    assert not psutil.wait_procs([child], timeout=30)[1]
    launcher.communicate()


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}, False),
    ],
)
def test_the_first_rank_is_known_before_there_is_a_group(monkeypatch, environment, first):
    for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_rank() is first


GROUP = {
    "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1",
}  # fmt: skip


@pytest.fixture
def in_a_group(monkeypatch):
    """Make this process look like one of two that torchrun started."""
    for name, value in GROUP.items():
        monkeypatch.setenv(name, value)


def test_ranks_that_would_each_train_alone_are_refused(tiny_file, tmp_path, in_a_group):
    message = "torchrun started 2 processes, but trainer.num_nodes=1 times trainer.devices=1"
    with pytest.raises(InputError, match=f"^{message}"):
        assemble(train_config(tiny_file), tmp_path)


def test_ranks_do_not_draw_the_sample_one_over_the_other(tmp_path, in_a_group):
    with pytest.raises(InputError, match="make it first with `fer prepare data=sample`"):
        assemble(train_config(tmp_path / "x.h5", data="sample", **{"data.size": 48, "augment.crop": 44}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ranks_that_would_each_run_the_sweep_are_refused(tiny_file, tmp_path, process):
    done = process("train.py", *arguments(tiny_file, tmp_path / "x", "seed=0,1", "-m"), code=2, env=GROUP)
    assert "a sweep with -m, started 2 times" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_a_checkpoint(tiny_file, tmp_path):
    more = arguments(tiny_file, tmp_path / "cut", "trainer.max_epochs=100000", "trainer.devices=2")
    process = start(*torchrun(free_port(), processes=2), *more)
    deadline = time.time() + 60
    while not (tmp_path / "cut/checkpoints/last.ckpt").exists() and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    saved = tmp_path / "cut/checkpoints/interrupted.ckpt"
    assert saved.is_file() and output.count(f"resume={saved}") == 1, output
