"""Sweeps by other people's engines: jobs through submitit, and an Optuna study that several sweeps share by a file."""

import sqlite3

import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.conftest import ROOT, write_tiny


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    file = write_tiny(tmp_path_factory.mktemp("data") / "tiny.h5", {"train": 64, "val": 14})
    return [
        "-m", "data=fer2013", f"data.file={file}", "data.size=20", "augment.crop=16", "model=vgg_small",
        "batch_size=32", "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=1",
    ]  # fmt: skip


def rate(folder):
    content = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return content["hyper_parameters"]["optimizer"]["lr"]


@pytest.mark.slow
def test_submitit_runs_the_jobs_of_a_sweep(common, tmp_path, run):
    run("train.py", *common, "hydra/launcher=submitit_local", "optimizer.lr=0.02,0.01", f"hydra.sweep.dir={tmp_path}")
    assert [rate(tmp_path / job) for job in "01"] == [0.02, 0.01]


@pytest.mark.slow
def test_submitit_on_this_machine_is_refused_with_ranks(common, tmp_path, run, monkeypatch):
    # for a result that a job which ended with an error never writes
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0)
    ranks = ["hydra/launcher=submitit_local", "trainer.devices=2", f"hydra.sweep.dir={tmp_path}"]
    done = run("train.py", *common, *ranks, code=2)
    assert done.stderr.splitlines()[-1] == (
        "error: a job of the sweep ended with an error: trainer.devices=2 with hydra/launcher=submitit_local: "
        "its jobs cannot start further ranks; use hydra/launcher=basic"
    )


def test_the_slurm_launcher_takes_what_the_documentation_gives_it(common, run):
    options = ["hydra.launcher.timeout_min=240", "hydra.launcher.gpus_per_node=2", "hydra.launcher.tasks_per_node=2"]
    shown = run("train.py", "--cfg", "hydra", *common[1:], "hydra/launcher=submitit_slurm", *options).stdout
    assert "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher" in shown
    assert "gpus_per_node: 2" in shown


@pytest.mark.slow
def test_a_search_finds_rates_in_its_range_and_ends_with_a_table(common, tmp_path, run):
    # without -m, of which the preset takes care
    search = ["hparams_search=optuna", "hydra.sweeper.n_trials=2", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    told = run("train.py", *common[1:], *search, cwd=tmp_path).stdout
    table = pd.read_csv(tmp_path / "sweep/sweep.csv")
    assert table["optimizer.lr"].tolist() == pytest.approx([rate(tmp_path / "sweep" / job) for job in "01"])
    assert table["optimizer.lr"].between(0.001, 0.1).all() and table["optimizer.lr"].nunique() == 2
    assert table["optimizer.weight_decay"].between(0.00001, 0.005).all()
    # the objective is val/acc, and more of it is better
    found = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(table["val/acc"].max(), abs=1e-4)
    assert "table: " in told


@pytest.mark.parametrize("name", ["optuna", "optuna_adamw", "optuna_augment"])
def test_the_keys_of_a_search_are_those_of_the_config(name):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"hparams_search={name}"], return_hydra_config=True)
    space = cfg.hydra.sweeper.params
    assert len(space) >= 2 and all(OmegaConf.select(cfg, key) is not None for key in space)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for key in space:
            compose("train", [f"hparams_search={name}", f"{key}=0.01"])


def test_without_optuna_a_search_is_one_line(tmp_path, process):
    # hides the installed plugin, as the namespace's first
    plugin = tmp_path / "hydra_plugins/hydra_optuna_sweeper"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    done = process("train.py", "hparams_search=optuna", code=2, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.stderr == "error: hydra/sweeper=optuna is not installed: pip install '.[sweep]'\n"


@pytest.mark.slow
def test_sweeps_share_an_optuna_study_through_a_file(common, tmp_path, run):
    study = [
        "hydra/sweeper=optuna", f"hydra.sweeper.storage=sqlite:///{tmp_path}/study.db", "hydra.sweeper.study_name=lr",
        "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=1", "optimizer.lr=tag(log,interval(0.001,0.1))",
    ]  # fmt: skip
    for sweep in ("first", "second"):
        run("train.py", *common, *study, f"hydra.sweep.dir={tmp_path / sweep}")
    with sqlite3.connect(tmp_path / "study.db") as opened:
        trials = opened.execute(
            "select number, state, param_value from trials join trial_params using (trial_id)"
        ).fetchall()
    rates = [rate(tmp_path / sweep / "0") for sweep in ("first", "second")]
    assert [trial[:2] for trial in trials] == [(0, "COMPLETE"), (1, "COMPLETE")]
    assert [trial[2] for trial in trials] == pytest.approx(rates) and rates[0] != rates[1]
