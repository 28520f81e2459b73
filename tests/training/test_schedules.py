import io
import warnings

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from fer.errors import InputError
from fer.training.schedules import SCHEDULES, constant, cosine, make_scheduler, step_decay


def sgd(lr: float = 0.01) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates_of_a_run(schedule: dict, epochs: int, lr: float = 0.01) -> list[float]:
    """The rate that each epoch's optimizer steps use."""
    optimizer = sgd(lr)
    scheduler = make_scheduler(schedule, optimizer, epochs)["scheduler"]
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
    run = rates_of_a_run({"name": "step", "start": start, "every": 5, "rate": 0.9}, 250)
    for epoch, rate in table.items():
        assert 0.01 * step_decay(epoch, start, 5, 0.9) == pytest.approx(rate, rel=5e-5)
        assert run[epoch] == pytest.approx(rate, rel=5e-5)


def test_step_decay_defaults_are_the_original_ones():
    assert rates_of_a_run({"name": "step"}, 250)[249] == pytest.approx(2.0276e-4, rel=5e-5)
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
    assert rates_of_a_run({"name": "cosine", "floor": 0.1}, 12) == pytest.approx(expected)


def test_cosine_warms_up_linearly_and_stays_at_the_floor():
    rates = [cosine(epoch, epochs=14, warmup=4, floor=0.2) for epoch in range(17)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[9] == pytest.approx(0.6)  # halfway between 1 and the floor
    assert rates[13] > 0.2
    assert rates[14:] == pytest.approx([0.2, 0.2, 0.2])
    assert rates_of_a_run({"name": "cosine", "warmup": 3}, 3, lr=1) == pytest.approx([0.25, 0.5, 0.75])


def test_constant():
    assert constant(0) == constant(249) == 1
    assert rates_of_a_run({"name": "constant"}, 3) == [0.01] * 3


def test_plateau_follows_the_accuracy_upwards():
    optimizer = sgd()
    made = make_scheduler({"name": "plateau", "factor": 0.5, "patience": 1}, optimizer, 9)
    assert (made["monitor"], made["interval"]) == ("val/acc", "epoch")
    rates = []
    for accuracy in (0.3, 0.4, 0.5, 0.4, 0.4, 0.4):
        made["scheduler"].step(accuracy)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.005, 0.005])


@pytest.mark.parametrize("name", [*SCHEDULES, "plateau"])
def test_a_resumed_schedule_goes_on_from_a_plain_state(name):
    optimizer = sgd()
    scheduler = make_scheduler({"name": name}, optimizer, 100)["scheduler"]
    arguments = (0.5,) if name == "plateau" else ()
    optimizer.step()
    for _ in range(70):
        scheduler.step(*arguments)
    file = io.BytesIO()
    torch.save({"scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    resumed_optimizer = sgd()
    resumed = make_scheduler({"name": name}, resumed_optimizer, 100)["scheduler"]
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
    made = make_scheduler({"name": "step"}, sgd(), 250)
    assert set(made) == {"scheduler", "interval"}
    assert made["interval"] == "epoch"


@pytest.mark.parametrize(
    ("schedule", "named"),
    [
        ({"name": "stepp"}, ["stepp", "step", "cosine", "constant", "plateau"]),
        ({}, ["None", "step"]),
        ({"name": "step", "strat": 60}, ["strat", "start", "every", "rate"]),
        ({"name": "plateau", "start": 60}, ["start", "factor", "patience"]),
        ({"name": "constant", "rate": 1}, ["rate", "none"]),
    ],
)
def test_unknown_names_are_refused(schedule, named):
    with pytest.raises(InputError) as caught:
        make_scheduler(schedule, sgd(), 250)
    assert all(word in str(caught.value) for word in named)
    assert "\n" not in str(caught.value)
