"""Learning-rate schedules: pure functions from the epoch (counted from 0) to a factor on the base rate."""

import inspect
import math
from collections.abc import Callable
from typing import Any

from pytorch_lightning.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from fer.errors import InputError


def constant(epoch: int) -> float:
    """Return 1 for every epoch."""
    return 1.0


def step_decay(epoch: int, start: int = 60, every: int = 5, rate: float = 0.9) -> float:
    """Return 1 up to epoch ``start``, then ``rate ** floor((epoch - start) / every)``.

    The first drop comes at epoch ``start + every``. Source: WuJie1010/Facial-Expression-Recognition.Pytorch, whose
    code has start 80; the original experiment has 60.

    >>> [step_decay(epoch) for epoch in (60, 64, 65)]
    [1.0, 1.0, 0.9]
    """
    return rate ** max(0, (epoch - start) // every)


def cosine(epoch: int, epochs: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Rise linearly for ``warmup`` epochs, then fall along half a cosine from 1 to ``floor``.

    Epoch 0 of a warm-up has 1 / (warmup + 1) and epoch ``warmup`` has 1. ``floor`` is reached at ``epoch == epochs``,
    just after the last trained one, and kept. Source: Loshchilov & Hutter 2016 (SGDR), equation 5, without restarts.
    """
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    progress = min(1.0, (epoch - warmup) / max(1, epochs - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


#: The schedules that are functions of the epoch; "plateau", which follows val/acc instead, is in ``make_scheduler``.
SCHEDULES: dict[str, Callable[..., float]] = {"step": step_decay, "cosine": cosine, "constant": constant}

# Arguments that come from the run, not from the schedule's dict.
_NOT_OPTIONS = ("epoch", "epochs", "optimizer")


def plateau(optimizer: Optimizer, factor: float = 0.1, patience: int = 10) -> ReduceLROnPlateau:
    """Return the scheduler that multiplies the rate by ``factor`` after ``patience`` epochs without a better value."""
    return ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience)


def make_scheduler(schedule: dict[str, Any], optimizer: Optimizer, epochs: int) -> LRSchedulerConfigType:
    """Return what Lightning's ``configure_optimizers`` wants under "lr_scheduler", stepped once an epoch.

    ``schedule`` is plain: {"name": "step", "start": 60, "every": 5, "rate": 0.9}, with the arguments of the function
    in ``SCHEDULES``, or {"name": "plateau", "factor": 0.1, "patience": 10}, which monitors val/acc. ``epochs`` is the
    length of the whole training.

    Raises:
        InputError: an unknown name or argument.
    """
    name = str(schedule.get("name"))
    options = {key: value for key, value in schedule.items() if key != "name"}
    functions: dict[str, Callable[..., Any]] = {**SCHEDULES, "plateau": plateau}
    if name not in functions:
        raise InputError(f"unknown schedule name={name!r}; valid: {', '.join(functions)}")
    valid = [key for key in inspect.signature(functions[name]).parameters if key not in _NOT_OPTIONS]
    for key in options:
        if key not in valid:
            raise InputError(f"schedule {name} has no option {key!r}; valid: {', '.join(valid) or 'none'}")
    if name == "plateau":
        return {"scheduler": plateau(optimizer, **options), "interval": "epoch", "monitor": "val/acc"}
    if name == "cosine":
        options["epochs"] = epochs
    # A lambda and not functools.partial: LambdaLR leaves functions out of its state_dict, which keeps that plain.
    return {"scheduler": LambdaLR(optimizer, lambda epoch: SCHEDULES[name](epoch, **options)), "interval": "epoch"}
