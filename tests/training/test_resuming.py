"""Checkpoints that a run cannot go on from: one line that names what is amiss, before anything is trained."""

import re

import pytest
import torch

from fer.errors import InputError
from fer.training.run import assemble
from tests.conftest import fit, train_config, write_tiny

CHANGES = {"early_stop": 5, "recipe.ema": 0.9, "schedule": "plateau"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A prepared file and the last checkpoint of a run of one epoch, which the tests do not change."""
    folder = tmp_path_factory.mktemp("resuming")
    file = write_tiny(folder / "tiny.h5", {"train": 70, "val": 14})
    fit(train_config(file, **CHANGES | {"trainer.max_epochs": 1}), folder / "run")
    return file, folder / "run/checkpoints/last.ckpt"


def key_of(content, name):
    return next(key for key in content["callbacks"] if key.startswith(name))


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (("epoch",), -1, "epoch is int -1"),
        (("global_step",), "5", "global_step is str '5'"),
        (("loops",), None, "loops is NoneType None"),
        (("loops", "fit_loop"), {}, "loops.fit_loop.state_dict is missing"),
        (("loops", "fit_loop", "epoch_progress", "current", "completed"), -3, "current.completed is int -3"),
        (("loops", "fit_loop", "epoch_loop.batch_progress", "is_last_batch"), 2, "is_last_batch is int 2"),
        (("FaceDataModule",), [1], "FaceDataModule is list [1]"),
        (("FaceDataModule", "step"), float("nan"), "FaceDataModule.step is float nan"),
        (("FaceDataModule", "disk"), "no", "FaceDataModule.disk is str 'no'"),
        (("optimizer_states",), [], "optimizer_states is list []"),
        (("optimizer_states", 0, "param_groups"), [{}], "optimizer_states.0.param_groups.0.lr is missing"),
        (("optimizer_states", 0, "param_groups", 0, "lr"), float("inf"), "param_groups.0.lr is float inf"),
        (("optimizer_states", 0, "param_groups", 0, "params"), [0], "param_groups.0.params is list [0]"),
        (("optimizer_states", 0, "state", 99), {}, "optimizer_states.99 is of no weights"),
        (("optimizer_states", 0, "state", 1, "momentum_buffer"), torch.ones(3), "1.momentum_buffer is (3,), not (32,)"),
        (
            ("optimizer_states", 0, "state", 1, "momentum_buffer"),
            torch.full((32,), torch.nan),
            "optimizer_states.1.momentum_buffer is Tensor tensor([nan",
        ),
        (("lr_schedulers",), {}, "lr_schedulers is dict {}"),
        (("lr_schedulers", 0, "num_bad_epochs"), None, "lr_schedulers.0.num_bad_epochs is NoneType None"),
        (("callbacks",), [], "callbacks is list []"),
        (("callbacks", "EarlyStopping", "wait_count"), "many", "callbacks.EarlyStop.wait_count is str 'many'"),
        (("callbacks", "Best", "best_model_path"), 3, "callbacks.Best.best_model_path is int 3"),
        (("callbacks", "Best", "best_model_score"), {}, "callbacks.Best.best_model_score is dict"),
        (("callbacks", "Best", "scores"), {}, "callbacks.Best.scores.val/acc is missing"),
        (("callbacks", "EMA", "latest_update_step"), 1, "callbacks.EMA.latest_update_step is 1, but 3 elsewhere in it"),
        (("averaging_state",), {}, "averaging_state.n_averaged is missing"),
        (("epoch",), 7, "epoch is 7, but 0 elsewhere in it"),
        (("global_step",), 7, "global_step is 7, but 3 elsewhere in it"),
        (
            ("optimizer_states", 0, "param_groups", 0, "lr"),
            0.5,
            "lr_schedulers.0._last_lr is [0.02], but [0.5] else",
        ),
        (("optimizer_states", 0, "state", 1, "momentum_buffer"), "x", "1.momentum_buffer is str"),
        (("lr_schedulers", 0, "last_epoch"), 4, "lr_schedulers.0.last_epoch is 4, but 0 elsewhere in it"),
        (("current_model_state",), {}, "current_model_state.net.network.0.weight is missing"),
        (("current_model_state", "net.network.0.bias"), torch.full((32,), torch.nan), "0.bias is Tensor tensor([nan"),
    ],
)
def test_what_lightning_restores_is_checked(made, tmp_path, way, value, message):
    file, ckpt = made
    at = content = torch.load(ckpt, weights_only=True)
    way = [key_of(content, key) if key in ("EarlyStopping", "Best") else key for key in way]
    for key in way[:-1]:
        at = at[key]
    assert way[-1] in at or way[-1] == 99 if isinstance(at, dict) else True
    at[way[-1]] = value
    path = tmp_path / "x.ckpt"
    torch.save(content, path)
    config = train_config(file, **CHANGES | {"resume": path, "trainer.max_epochs": 2})
    said = rf"^resume={re.escape(str(path))}: .*{re.escape(message)}.*, so no run can go on from it; start with init="
    with pytest.raises(InputError, match=said) as caught:
        assemble(config, tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (
            ("optimizer_states", 0, "param_groups", 0, "momentum"),
            0.5,
            "optimizer.momentum was 0.5 in that run and is 0.9 now: give optimizer.momentum=0.5 to go on",
        ),
        (
            ("lr_schedulers", 0, "patience"),
            99,
            "schedule.patience was 99 in that run and is 5 now: give schedule.patience=99 to go on",
        ),
    ],
)
def test_a_setting_that_is_not_the_commands_is_named_by_its_key(made, tmp_path, way, value, message):
    file, ckpt = made
    at = content = torch.load(ckpt, weights_only=True)
    for key in way[:-1]:
        at = at[key]
    at[way[-1]] = value
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(InputError) as caught:
        assemble(train_config(file, **CHANGES | {"resume": tmp_path / "x.ckpt"}), tmp_path / "run")
    path = tmp_path / "x.ckpt"
    assert str(caught.value) == f"resume={path}: {message}, or start from its weights with init={path}"


def test_the_patience_is_that_of_the_command(made, tmp_path):
    file, ckpt = made
    # with a rate of 0 no epoch is better than the one before
    config = train_config(file, **CHANGES | {"resume": ckpt, "trainer.max_epochs": 9, "early_stop": 2})
    trainer, module, data, resume = assemble(config, tmp_path / "run")
    (stop,) = trainer.early_stopping_callbacks
    state = next(state for key, state in torch.load(ckpt, weights_only=True)["callbacks"].items() if "Early" in key)
    assert state["patience"] == 5
    stop.load_state_dict(state)
    assert stop.patience == 2 and stop.state_key in torch.load(ckpt, weights_only=True)["callbacks"]


class DecaysDecay(torch.optim.lr_scheduler.LRScheduler):
    """Halves the weight decay each epoch and leaves the rates."""

    def get_lr(self):
        if self.last_epoch:
            for group in self.optimizer.param_groups:
                group["weight_decay"] /= 2
        return [group["lr"] for group in self.optimizer.param_groups]


def test_a_schedule_of_the_users_may_move_other_keys(made, tmp_path):
    own = {"schedule": "custom", "schedule._target_": f"{__name__}.DecaysDecay", "optimizer.weight_decay": 0.08}
    fit(train_config(made[0], **own | {"trainer.max_epochs": 2}), tmp_path / "first")
    ckpt = tmp_path / "first/checkpoints/last.ckpt"
    trainer, _ = fit(train_config(made[0], **own | {"trainer.max_epochs": 3, "resume": ckpt}), tmp_path / "second")
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == pytest.approx(0.08 / 2**3)


def test_a_schedule_of_torchs_that_knows_the_end_says_which_key_was_another(made, tmp_path):
    own = {"schedule": "custom", "schedule._target_": "torch.optim.lr_scheduler.CosineAnnealingLR"}
    own |= {"+schedule.T_max": "${trainer.max_epochs}"}
    fit(train_config(made[0], **own | {"trainer.max_epochs": 1}), tmp_path / "first")
    ckpt = tmp_path / "first/checkpoints/last.ckpt"
    with pytest.raises(InputError, match="was trained with schedule.T_max=1, not 2; give the command of that run"):
        assemble(train_config(made[0], **own | {"trainer.max_epochs": 2, "resume": ckpt}), tmp_path / "second")


def test_what_a_run_wrote_resumes(made, tmp_path):
    file, ckpt = made
    trainer, _ = fit(train_config(file, **CHANGES | {"resume": ckpt, "trainer.max_epochs": 2}), tmp_path / "run")
    assert trainer.current_epoch == 2


@pytest.mark.parametrize(("key", "value", "was"), [("optimizer.lr", 0.001, 0.02), ("schedule.patience", 1, 5)])
def test_another_optimizer_or_schedule_would_be_left_unused(made, tmp_path, key, value, was):
    file, ckpt = made
    config = train_config(file, **CHANGES | {"resume": ckpt, "trainer.max_epochs": 2, key: value})
    with pytest.raises(InputError) as caught:
        assemble(config, tmp_path / "run")
    assert str(caught.value) == (
        f"resume={ckpt}: was trained with {key}={was}, not {value}; "
        f"give the command of that run again, or start from its weights with init={ckpt}"
    )


def test_a_setting_that_is_no_word_or_number_is_refused(made, tmp_path):
    file, ckpt = made
    content = torch.load(ckpt, weights_only=True)
    content["hyper_parameters"]["recipe"]["label_smoothing"] = torch.zeros(2)
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"recipe\.label_smoothing is of type Tensor"):
        assemble(train_config(file, **CHANGES | {"resume": tmp_path / "x.ckpt"}), tmp_path / "run")
