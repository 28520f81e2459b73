"""Learning-rate schedules: ours, and any other of torch's, stepped once an epoch or once a step."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pytorch_lightning.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from fer.blame import one_line
from fer.errors import InputError
from fer.targets import build, check_target, takes
from fer.training.param_groups import SCALE

#: Arguments that a schedule gets where it takes them, see `Length`.
OFFERED = ("epochs", "total_steps", "steps_per_epoch")

#: What a schedule's config says beside the arguments: how often it is stepped, and the score that it follows.
BESIDE = ("interval", "monitor")

#: Rates that torch's schedules set for all parameter groups alike, where they are not given as lists.
_RATES = ("max_lr", "base_lr")


#: Steps an epoch for a look at a schedule before the data are open.
TYPICAL = 1000


class Length(NamedTuple):
    """The length of a run in what a schedule counts, steps of the optimiser or epochs; -1 epochs have no end.

    ``most`` is a limit of the steps of the run, where there is one.
    """

    epochs: int
    steps_per_epoch: int = 1
    most: int | None = None

    def offered(self) -> dict[str, int]:
        """Return the values of ``OFFERED``; of a run without an end only those that are known."""
        if self.epochs < 1:
            return {"steps_per_epoch": self.steps_per_epoch}
        steps = self.epochs * self.steps_per_epoch
        total = steps if self.most is None else min(steps, self.most)
        return {"epochs": self.epochs, "total_steps": total, "steps_per_epoch": self.steps_per_epoch}


def constant(optimizer: Optimizer) -> LambdaLR:
    """Keep the learning rates as they are."""
    return LambdaLR(optimizer, lambda epoch: 1.0)


def step_decay(epoch: int, start: int = 60, every: int = 5, rate: float = 0.9) -> float:
    """Return 1 up to epoch ``start``, then ``rate ** floor((epoch - start) / every)``.

    The first drop comes at epoch ``start + every``. Source: WuJie1010/Facial-Expression-Recognition.Pytorch, whose
    code has start 80; the original experiment has 60.

    >>> [step_decay(epoch) for epoch in (60, 64, 65)]
    [1.0, 1.0, 0.9]
    """
    return rate ** max(0, (epoch - start) // every)


def step(optimizer: Optimizer, start: int = 60, every: int = 5, rate: float = 0.9) -> LambdaLR:
    """Let the learning rates fall in steps: at epoch e they are multiplied by rate ** max(0, (e - start) // every).

    Args:
        optimizer: the one whose rates fall.
        start: the epoch, from 0, from which the steps are counted; the first fall is at start + every.
        every: epochs between falls, 1 or more.
        rate: the factor of each fall, above 0.

    Raises:
        InputError: a value out of range.
    """
    if start < 0:
        raise InputError(f"schedule.start={start} is not a number of epochs")
    if every < 1:
        raise InputError(f"schedule.every={every} is not a positive number of epochs")
    if rate <= 0:
        raise InputError(f"schedule.rate={rate} is not a positive factor")
    # A lambda and not functools.partial: LambdaLR leaves functions out of its state_dict, which keeps that plain.
    return LambdaLR(optimizer, lambda epoch: step_decay(epoch, start, every, rate))


def half_cosine(epoch: int, epochs: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Rise linearly for ``warmup`` epochs, then fall along half a cosine from 1 to ``floor``.

    Epoch 0 of a warm-up has 1 / (warmup + 1) and epoch ``warmup`` has 1. ``floor`` is reached at ``epoch == epochs``,
    just after the last trained one, and kept. Source: Loshchilov & Hutter 2016 (SGDR), equation 5, without restarts.
    """
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    progress = min(1.0, (epoch - warmup) / max(1, epochs - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def cosine(optimizer: Optimizer, epochs: int, warmup: int = 0, floor: float = 0.0) -> LambdaLR:
    """Let the learning rates rise linearly and then fall along half a cosine (Loshchilov & Hutter 2016, equation 5).

    Args:
        optimizer: the one whose rates change.
        epochs: epochs of the run; the framework gives it.
        warmup: epochs of the rise, 0 or more.
        floor: the fraction of the first rate that is reached at the end, 0 to 1.

    Raises:
        InputError: a value out of range.
    """
    if warmup < 0:
        raise InputError(f"schedule.warmup={warmup} is not a number of epochs")
    if not 0 <= floor <= 1:
        raise InputError(f"schedule.floor={floor} is not a fraction of the first rate")
    return LambdaLR(optimizer, lambda epoch: half_cosine(epoch, epochs, warmup, floor))


def plateau(
    optimizer: Optimizer, factor: float = 0.1, patience: int = 10, mode: Literal["max", "min"] = "max"
) -> ReduceLROnPlateau:
    """Multiply the learning rates by ``factor`` after ``patience`` epochs without a better value of a score.

    ``schedule.monitor`` names the score, ``mode`` says whether more of it is better. ``factor`` is between 0 and 1,
    ``patience`` 0 or more.

    Raises:
        InputError: a value out of range.
    """
    if not 0 < factor < 1:
        raise InputError(f"schedule.factor={factor} is not a factor between 0 and 1")
    if patience < 0:
        raise InputError(f"schedule.patience={patience} is not a number of epochs")
    return ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)


def make_scheduler(schedule: Mapping[str, Any], optimizer: Optimizer, length: Length) -> LRSchedulerConfigType:
    """Return what Lightning's ``configure_optimizers`` wants under "lr_scheduler".

    ``schedule`` is a ``_target_``, a callable(optimizer, ...) -> torch scheduler, with its arguments and the keys of
    ``BESIDE``; schedulers among its arguments are given the same optimiser. ``length`` is that of the whole training.

    Raises:
        InputError: an unknown argument, a value that the schedule refuses, or keys that do not go together.
    """
    interval, monitor = schedule.get("interval", "epoch"), schedule.get("monitor")
    if interval not in ("epoch", "step"):
        raise InputError(f"schedule.interval={interval}: not epoch or step")
    target = {key: value for key, value in schedule.items() if key not in BESIDE}
    scheduler = _built(target, "schedule", optimizer, length)
    if not isinstance(scheduler, LRScheduler):
        given = type(scheduler).__name__
        raise InputError(f"schedule._target_={target['_target_']}: gives {given}, not a torch scheduler")
    _check_rates(target["_target_"], optimizer)
    made: LRSchedulerConfigType = {"scheduler": scheduler, "interval": interval}
    if isinstance(scheduler, ReduceLROnPlateau):
        _check_monitor(monitor, interval, scheduler)
        made["monitor"] = monitor
    elif monitor is not None:
        raise InputError(f"schedule.monitor={monitor} has no effect: {target['_target_']} follows no score; give null")
    return made


def _built(config: Mapping[str, Any], group: str, optimizer: Optimizer, length: Length) -> Any:
    """Check and build a schedule, those among its arguments first."""
    arguments = {key: _with_parts(value, f"{group}.{key}", optimizer, length) for key, value in config.items()}
    target = str(check_target({"_target_": config.get("_target_"), "_partial_": True}, group)["_target_"])
    if not takes(target, ("optimizer",)):
        raise InputError(f"{group}._target_={target}: takes no optimizer, as a schedule does")
    check_target(arguments, group, ("optimizer",), offered=OFFERED)
    if length.epochs < 1 and takes(target, ("epochs", "total_steps")):
        raise InputError(f"trainer.max_epochs={length.epochs} is not a number of epochs, which {target} needs")
    scales = [values.get(SCALE, 1.0) for values in optimizer.param_groups]
    for key in _RATES:
        if isinstance(rate := arguments.get(key), int | float) and set(scales) != {1.0}:
            arguments[key] = [rate * scale for scale in scales]
    offered = length.offered()
    given = {name: offered[name] for name in takes(target, OFFERED) if name in offered}
    try:
        return build(arguments, group, optimizer=optimizer, **given)
    except InputError as error:
        if error.__cause__ is None:
            raise
        cause = error.__cause__
        reason = str(cause) if isinstance(cause, TypeError | ValueError) and str(cause) else one_line(cause)
    keys = [key for key in config if key != "_target_"]
    named = [key for key in keys if key in reason] or keys
    refused = ", ".join(f"{group}.{key}={config[key]!s:.40}" for key in named) or "its arguments"
    raise InputError(f"{target} refuses {refused}: {' '.join(reason.split())}")


def _with_parts(value: Any, key: str, optimizer: Optimizer, length: Length) -> Any:
    """Return an argument with the schedules in it built."""
    if isinstance(value, list):
        return [_with_parts(each, f"{key}.{number}", optimizer, length) for number, each in enumerate(value)]
    if isinstance(value, Mapping) and "_target_" in value and not value.get("_partial_"):
        check_target({"_target_": value["_target_"], "_partial_": True}, key)
        if takes(value["_target_"], ("optimizer",)):
            return _built(value, key, optimizer, length)
    return value


def _check_rates(target: str, optimizer: Optimizer) -> None:
    """Refuse a schedule that sets the same rate for groups whose rates are to differ."""
    groups = optimizer.param_groups
    wanted = [values[SCALE] * groups[-1]["lr"] / groups[-1].get(SCALE, 1.0) for values in groups if SCALE in values]
    found = [values["lr"] for values in groups if SCALE in values]
    if any(not math.isclose(one, other, rel_tol=1e-6) for one, other in zip(wanted, found, strict=True)):
        raise InputError(
            f"param_groups.layer_decay: {target} sets rates of its own, the same for all layers: leave it out"
        )


def _check_monitor(monitor: Any, interval: str, scheduler: ReduceLROnPlateau) -> None:
    if not isinstance(monitor, str):
        raise InputError(f"schedule.monitor={'null' if monitor is None else monitor}: give a score, as val/acc")
    if interval == "step":
        raise InputError(f"schedule.interval=step: {monitor} is known once an epoch; give schedule.interval=epoch")
    wanted = "min" if monitor.rpartition("/")[2] == "loss" else "max"
    if monitor.startswith(("train/", "val/")) and scheduler.mode != wanted:
        raise InputError(f"schedule.mode={scheduler.mode}: for {monitor} give schedule.mode={wanted}")
