import io
import math
import os
import signal
import warnings

import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from fer.errors import InputError, Stopped
from fer.training.run import assemble, train
from fer.training.schedules import Length, half_cosine, make_scheduler, step_decay
from tests.conftest import fit, train_config

OURS = "fer.training.schedules."
NAMES = ("step", "cosine", "constant", "plateau")


def ours(name: str, **options) -> dict:
    return {"_target_": OURS + name, **options, "monitor": "val/acc" if name == "plateau" else None}


def sgd(lr: float = 0.01) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def rates_of_a_run(schedule: dict, epochs: int, lr: float = 0.01) -> list[float]:
    """The rate that each epoch's optimizer steps use."""
    optimizer = sgd(lr)
    scheduler = make_scheduler(schedule, optimizer, Length(epochs))["scheduler"]
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


# 0.9 ** 33 = 0.030903154 and 0.9 ** 37 = 0.020275559, worked out apart from the code under test.
WUJIE = {0: 0.01, 80: 0.01, 84: 0.01, 85: 0.009, 89: 0.009, 90: 0.0081, 249: 3.0903e-4}
ORIGINAL = {0: 0.01, 60: 0.01, 64: 0.01, 65: 0.009, 69: 0.009, 70: 0.0081, 199: 5.8150e-4, 249: 2.0276e-4}


@pytest.mark.parametrize(("start", "table"), [(80, WUJIE), (60, ORIGINAL)])
def test_step_decay_gives_the_learning_rate_table(start, table):
    run = rates_of_a_run(ours("step", start=start, every=5, rate=0.9), 250)
    for epoch, rate in table.items():
        assert 0.01 * step_decay(epoch, start, 5, 0.9) == pytest.approx(rate, rel=5e-5)
        assert run[epoch] == pytest.approx(rate, rel=5e-5)


def test_step_decay_defaults_are_the_original_ones():
    assert rates_of_a_run(ours("step"), 250)[249] == pytest.approx(2.0276e-4, rel=5e-5)
    # CK+ of the earlier code: from epoch 20, every epoch, rate 0.8.
    assert step_decay(22, start=20, every=1, rate=0.8) == pytest.approx(0.64)


def test_cosine_equals_torchs_over_a_run():
    optimizer = sgd()
    reference = CosineAnnealingLR(optimizer, T_max=12, eta_min=0.001)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates_of_a_run(ours("cosine", floor=0.1), 12) == pytest.approx(expected)


def test_cosine_warms_up_linearly_and_stays_at_the_floor():
    rates = [half_cosine(epoch, epochs=14, warmup=4, floor=0.2) for epoch in range(17)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[9] == pytest.approx(0.6)  # halfway between 1 and the floor
    assert rates[13] > 0.2
    assert rates[14:] == pytest.approx([0.2, 0.2, 0.2])
    assert rates_of_a_run(ours("cosine", warmup=3), 3, lr=1) == pytest.approx([0.25, 0.5, 0.75])


def test_constant():
    assert rates_of_a_run(ours("constant"), 3) == [0.01] * 3


def test_plateau_follows_the_accuracy_upwards():
    optimizer = sgd()
    made = make_scheduler(ours("plateau", factor=0.5, patience=1), optimizer, Length(9))
    assert (made["monitor"], made["interval"]) == ("val/acc", "epoch")
    rates = []
    for accuracy in (0.3, 0.4, 0.5, 0.4, 0.4, 0.4):
        made["scheduler"].step(accuracy)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.005, 0.005])


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_schedule_goes_on_from_a_plain_state(name):
    optimizer = sgd()
    scheduler = make_scheduler(ours(name), optimizer, Length(100))["scheduler"]
    arguments = (0.5,) if name == "plateau" else ()
    optimizer.step()
    for _ in range(70):
        scheduler.step(*arguments)
    file = io.BytesIO()
    torch.save({"scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    resumed_optimizer = sgd()
    resumed = make_scheduler(ours(name), resumed_optimizer, Length(100))["scheduler"]
    resumed_optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["scheduler"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has not seen the resumed optimizer step
        for _ in range(7):
            scheduler.step(*arguments)
            resumed.step(*arguments)
    assert resumed.last_epoch == 77
    assert resumed_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_made_for_lightning():
    made = make_scheduler(ours("step"), sgd(), Length(250))
    assert set(made) == {"scheduler", "interval"}
    assert made["interval"] == "epoch"


def test_the_length_of_a_run_is_given_to_those_who_take_it():
    optimizer = sgd(0.1)
    config = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "interval": "step", "max_lr": 0.1}
    made = make_scheduler(config, optimizer, Length(3, 7, most=20))
    assert (made["interval"], made["scheduler"].total_steps) == ("step", 20)
    assert Length(3, 7).offered() == {"epochs": 3, "total_steps": 21, "steps_per_epoch": 7}
    assert Length(-1, 7).offered() == {"steps_per_epoch": 7}


def test_schedules_among_the_arguments_are_of_the_same_optimizer():
    scheduler = "torch.optim.lr_scheduler."
    warm = {"_target_": scheduler + "LinearLR", "start_factor": 0.25, "total_iters": 3}
    parts = [warm, {"_target_": OURS + "cosine"}]
    config = {"_target_": scheduler + "SequentialLR", "schedulers": parts, "milestones": [3]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own class
        rates = rates_of_a_run(config, 13, lr=1.0)
    # a quarter to one in three epochs; then the cosine from its own start, over the run's 13
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx((1 + math.cos(math.pi / 13)) / 2)
    parts[1]["warmpu"] = 3
    with pytest.raises(InputError, match=r"no key schedule.schedulers.1.warmpu \(did you mean warmup\?\)"):
        make_scheduler(config, sgd(), Length(13))


def test_rates_of_layers_stay_apart_under_one_cycle():
    first, last = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups = [{"params": [first], "lr": 0.05, "lr_scale": 0.5}, {"params": [last], "lr": 0.1, "lr_scale": 1.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    config = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.1, "div_factor": 10.0}
    scheduler = make_scheduler(config, optimizer, Length(10, 10))["scheduler"]
    seen = []
    for _ in range(100):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert all(one == pytest.approx(other / 2) for one, other in seen)
    assert seen[0] == pytest.approx([0.005, 0.01]) and max(seen) == pytest.approx([0.05, 0.1])


ONE_CYCLE = {"schedule": "onecycle", "optimizer.lr": 0.05, "trainer.max_epochs": 3}


def test_one_cycle_over_a_run_is_torchs_own(tiny, tmp_path):
    # 150 faces in batches of 8 are 19, of which 17 are trained on, two a step: 9 steps an epoch, 27 of the run
    limits = {"batch_size": 8, "trainer.accumulate_grad_batches": 2, "trainer.limit_train_batches": 17}
    used = []

    class Rates(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            used.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))

    fit(train_config(tiny, **ONE_CYCLE, **limits), tmp_path, Rates())
    optimizer = sgd(0.05)
    reference = OneCycleLR(optimizer, 0.05, total_steps=27)
    expected = []
    for _ in range(27):
        expected.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        reference.step()
    assert used == expected
    # what is logged of an epoch is what its last step had
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = {event.step: event.value for event in log.Scalars("optim/lr")}
    assert logged == pytest.approx({step: expected[step - 1][0] for step in (9, 18, 27)})


def test_rates_that_change_from_step_to_step_are_logged_within_the_epoch(tiny, tmp_path):
    # 75 steps, the running loss is looked at after 50
    fit(train_config(tiny, **ONE_CYCLE | {"batch_size": 2, "trainer.max_epochs": 1}), tmp_path)
    reference = OneCycleLR(sgd(), 0.05, total_steps=75)
    rates = [reference.get_last_lr()[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch sees no step of the optimizer
        for _ in range(74):
            reference.step()
            rates.append(reference.get_last_lr()[0])
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = {event.step: event.value for event in log.Scalars("optim/lr")}
    assert logged == pytest.approx({50: rates[49], 75: rates[74]})


class Interrupt(pl.Callback):
    """Send this process SIGTERM in the third step of the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)


class Died(Exception):
    pass


class Die(pl.Callback):
    """End as a killed process does: nothing is written after the end of the first epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 3):
            raise Died


@pytest.mark.parametrize("options", [{}, {"recipe.sam": 0.05, "recipe.ema": 0.8}], ids=["plain", "sam"])
def test_a_cut_run_with_one_cycle_ends_as_an_unbroken_one(tiny, tmp_path, options):
    options = ONE_CYCLE | options | {"param_groups.layer_decay": 0.8}
    fit(train_config(tiny, **options), tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(train_config(tiny, **options), tmp_path / "stopped", Interrupt())
    with pytest.raises(Died):
        fit(train_config(tiny, **options), tmp_path / "killed", Die())
    whole = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    for way, name in (("stopped", "interrupted"), ("killed", "last")):
        cut = tmp_path / way / f"checkpoints/{name}.ckpt"
        fit(train_config(tiny, **options, resume=cut), tmp_path / f"rest-{way}")
        rest = torch.load(tmp_path / f"rest-{way}/checkpoints/last.ckpt", weights_only=True)
        for part in ("state_dict", *(["current_model_state"] if "recipe.ema" in options else [])):
            assert all(torch.equal(whole[part][key], rest[part][key]) for key in whole[part])
        assert whole["lr_schedulers"] == rest["lr_schedulers"]


def test_a_run_of_another_length_does_not_go_on_with_one_cycle(tiny, tmp_path):
    fit(train_config(tiny, **ONE_CYCLE | {"trainer.max_epochs": 1}), tmp_path / "first")
    resume = tmp_path / "first/checkpoints/last.ckpt"
    with pytest.raises(InputError, match=r"which were \[1, 5, 5\] and are now \[3, 15, 5\]: give the trainer.max_ep"):
        train(train_config(tiny, **ONE_CYCLE, resume=resume), tmp_path / "second")


def test_a_monitor_that_a_callback_has_not_logged_is_one_line(tiny, tmp_path):
    options = {"schedule": "plateau", "schedule.monitor": "mine/score", "callbacks": "lr_monitor"}
    with pytest.raises(InputError, match="conditioned on metric mine/score which is not available") as error:
        train(train_config(tiny, **options), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["small_fer2013", "strong_fer2013_resnet18", "seed_fer2013_vgg19", "wujie_fer2013_vgg19"]
)
def test_shipped_experiments_have_the_rates_of_before(tiny, tmp_path, name):
    """The rates that the schedules of 0.1.0 gave, as their functions of the epoch were written there."""
    config = train_config(tiny, experiment=name)
    epochs, lr = config["trainer"]["max_epochs"], config["optimizer"]["lr"]
    _, module, _, _ = assemble(config, tmp_path)
    optimizer = module.optimizer()
    scheduler = make_scheduler(config["schedule"], optimizer, Length(epochs))["scheduler"]
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    if "fer2013_vgg19" in name:
        start = {"seed": 60, "wujie": 80}[name.split("_")[0]]
        before = [lr * 0.9 ** max(0, (epoch - start) // 5) for epoch in range(epochs)]
    else:
        warmup = {"small": 2, "strong": 5}[name.split("_")[0]]
        before = [
            lr * (epoch + 1) / (warmup + 1) if epoch < warmup
            else lr * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2
            for epoch in range(epochs)
        ]  # fmt: skip
    assert len(optimizer.param_groups) == 1 and rates == pytest.approx(before, rel=1e-12)
