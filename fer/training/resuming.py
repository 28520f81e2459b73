"""Whether a run can go on from a checkpoint: what Lightning restores beside the weights, checked before it does."""

import copy
import inspect
import math
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch
from packaging.version import Version
from torch import Tensor
from torch.optim import Optimizer

from fer.errors import InputError
from fer.models.checkpoint import is_plain, read_checkpoint
from fer.system.words import amount
from fer.training.callbacks import Best
from fer.training.module import ClassifierModule
from fer.training.param_groups import make_optimizer
from fer.training.schedules import TYPICAL, Length, make_scheduler


def require_resumable(config: dict[str, Any], trainer: pl.Trainer, module: ClassifierModule) -> str:
    """Compare what ``config["resume"]`` holds of loops, optimiser, schedule, callbacks and data with fresh ones.

    Returns the line that says in which epoch, counted from 1, the run goes on.

    Raises:
        InputError: naming what is missing, of another type or out of range.
    """
    path = config["resume"]
    content = read_checkpoint(path)
    try:
        for key in ("epoch", "global_step"):
            _alike(content.get(key), 0, key)
        # Lightning translates those of its older versions by it
        _alike(content.get("pytorch-lightning_version"), "", "pytorch-lightning_version")
        Version(content["pytorch-lightning_version"])
        _alike(content.get("loops"), {"fit_loop": trainer.fit_loop.state_dict()}, "loops")
        _check_progress(content)
        if "_target_" not in config["data"]:
            _alike(content.get("FaceDataModule"), {"step": 0}, "FaceDataModule")
            for key, fresh in (("disk", False), ("batch_size", 0), ("seed", 0)):
                # checkpoints of before do not tell
                _alike(content["FaceDataModule"].get(key, fresh), fresh, f"FaceDataModule.{key}")
        _check_optimizer(content, config, module)
        callbacks: Any = content.get("callbacks")
        _alike(callbacks, {}, "callbacks")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets them without declaring them
            if callback.state_key in callbacks:
                _alike(callbacks[callback.state_key], callback.state_dict(), f"callbacks.{type(callback).__name__}")
            if isinstance(callback, Best):
                _check_best(callbacks.get(callback.state_key, {}))
        if config["recipe"]["ema"] is not None:
            _check_average(content)
    except InputError as error:
        raise InputError(f"resume={path}: {error}, or start from its weights with init={path}") from error
    except ValueError as error:
        raise InputError(f"resume={path}: {error}, so no run can go on from it; start with init={path}") from error
    # those that were trained whole, whose validation may be due
    epochs, last = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"], trainer.max_epochs or -1
    if 0 <= last <= epochs:
        return f"resume={path}: {amount(epochs, 'epoch is', 'epochs are')} done"
    of = f" of {last:,}" if last > 0 else ""
    return f"resume={path}: goes on in epoch {epochs + 1:,}{of}, after {amount(content['global_step'], 'step')}"


def _check_progress(content: dict[str, Any]) -> None:
    """Compare the counts that say the same: of epochs, of steps, and within the epoch at hand."""
    loop, data = content["loops"]["fit_loop"], content.get("FaceDataModule")
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    steps = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
    for name, progress in (("epoch_progress", epochs), ("epoch_loop.batch_progress", batches)):
        total = [progress["total"][key] for key in ("ready", "started", "processed", "completed")]
        if total != sorted(total, reverse=True):
            raise ValueError(f"loops.fit_loop.{name}.total is {total}, which is no order")
    if epochs["total"]["ready"] - epochs["total"]["completed"] > 1:
        raise ValueError("loops.fit_loop.epoch_progress.total is of several epochs at once")
    for key in ("ready", "started", "processed"):
        if epochs["current"][key] != epochs["total"][key]:
            raise ValueError(f"loops.fit_loop.epoch_progress.current.{key} is not its total")
    _same(content["epoch"], epochs["current"]["completed"], "epoch")
    _same(content["global_step"], steps, "global_step")
    _same(loop["epoch_loop.state_dict"].get("_batches_that_stepped", steps), steps, "_batches_that_stepped")
    if isinstance(data, dict) and type(data.get("step")) is int and data["step"]:
        _same(data["step"], batches["current"]["completed"], "FaceDataModule.step")


def _check_average(content: dict[str, Any]) -> None:
    """Check the weights beside their average, which is the ``state_dict``, and how often it was moved."""
    average = content["state_dict"]
    _alike(content.get("current_model_state"), average, "current_model_state")
    for name, values in average.items():
        now = content["current_model_state"][name]
        _same_shape(now, values, f"current_model_state.{name}")
        _same(now.dtype, values.dtype, f"current_model_state.{name}")
    _alike(content.get("averaging_state"), {"n_averaged": torch.tensor(0)}, "averaging_state")
    _same_shape(content["averaging_state"]["n_averaged"], torch.tensor(0), "averaging_state.n_averaged")
    _alike(content["callbacks"].get("EMA"), {"latest_update_step": 0}, "callbacks.EMA")
    _same(content["callbacks"]["EMA"]["latest_update_step"], content["global_step"], "callbacks.EMA.latest_update_step")


def _check_best(state: dict[str, Any]) -> None:
    """Check the score of the best epoch, of which a fresh run has none; checkpoints before 0.3 have it alone."""
    score, scores = state.get("best_model_score"), state.get("scores")
    if score is not None:
        _same_shape(score, torch.tensor(0.0), "callbacks.Best.best_model_score")
        _alike(score, torch.tensor(0.0), "callbacks.Best.best_model_score")
    if scores is not None:
        _alike(scores, {"val/acc": 0.0}, "callbacks.Best.scores")


def _same(given: Any, other: Any, name: str) -> None:
    if given != other:
        raise ValueError(f"{name} is {given!r:.40}, but {other!r:.40} elsewhere in it")


def _same_shape(given: Any, fresh: Tensor, name: str) -> None:
    """Raise ValueError where a value is no tensor as a fresh one is, of whatever precision."""
    if not is_plain(given) or given.is_floating_point() != fresh.is_floating_point():
        raise ValueError(f"{name} is {type(given).__name__} {getattr(given, 'dtype', '')}".rstrip())
    if given.shape != fresh.shape:
        raise ValueError(f"{name} is {tuple(given.shape)}, not {tuple(fresh.shape)}")


def _check_optimizer(content: dict[str, Any], config: dict[str, Any], module: ClassifierModule) -> None:
    # a copy, which a step may move
    net, loss = copy.deepcopy((module.net, module.loss))
    optimizer = make_optimizer(config["optimizer"], net, config["param_groups"], loss.parameters())
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    schedule = make_scheduler(config["schedule"], optimizer, _length(content, config, module.by_step))["scheduler"]
    given: Any = content.get("optimizer_states")
    groups = optimizer.state_dict()["param_groups"]
    _alike(given, [{"state": {}, "param_groups": groups}], "optimizer_states")
    for number, (one, other) in enumerate(zip(given[0]["param_groups"], groups, strict=True)):
        for key, value in other.items():
            if not _may_move(schedule, key):
                shown = f"optimizer.{key}" if key in config["optimizer"] and len(groups) == 1 else ""
                _unchanged(one[key], value, shown or f"{key} of parameter group {number}", bool(shown))
    expected = _state_after_a_step(optimizer)
    for number, values in given[0]["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(values, dict):
            raise ValueError(f"optimizer_states.{number!r:.20} is of no weights")
        for name, fresh in expected.get(number, {}).items():
            if name not in values:
                raise ValueError(f"optimizer_states.{number}.{name} is missing")
            full = f"optimizer_states.{number}.{name}"
            if isinstance(fresh, Tensor):
                _same_shape(values[name], fresh, full)
            _alike(values[name], fresh, full)
    _check_schedule(content, schedule, config["schedule"])


def _may_move(schedule: Any, key: str) -> bool:
    """Whether a schedule may set a key of the parameter groups."""
    parts = [schedule, *getattr(schedule, "_schedulers", ())]
    if any(not type(part).__module__.startswith(("torch.", "fer.")) for part in parts):
        # what one of the user's does is not known
        return True
    cycled = any(getattr(part, "cycle_momentum", False) for part in parts)
    return key == "lr" or key in ("momentum", "betas") and cycled


def _length(content: dict[str, Any], config: dict[str, Any], by_step: bool) -> Length:
    """Return the length that the run so far had; `configure_optimizers` compares it with that of now."""
    epochs = config["trainer"]["max_epochs"]
    if not by_step:
        return Length(epochs)
    given: Any = content.get("schedule_length")
    _alike(given, list(Length(epochs, TYPICAL).offered().values()), "schedule_length")
    if not all(type(number) is int and number > 0 for number in given):
        raise ValueError(f"schedule_length is {given!r:.40}")
    return Length(given[0], given[2], given[1]) if len(given) > 1 else Length(epochs, given[0])


def _state_after_a_step(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """Return the state that an optimiser has of each weight once it has moved them, by a gradient of 0."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    # of one that wants a closure nothing is known beforehand
    with suppress(TypeError):
        optimizer.step()
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return state


def _check_schedule(content: dict[str, Any], schedule: Any, config: dict[str, Any]) -> None:
    """Compare the state of the schedule with a fresh one, with the rates of the optimiser and with the loops."""
    fresh = schedule.state_dict()
    given: Any = content.get("lr_schedulers")
    _alike(given, [fresh], "lr_schedulers")
    state = given[0]
    # where it began, not where it is
    arguments = {*inspect.signature(type(schedule)).parameters, "base_lrs", "min_lrs", "lr_lambdas"} - {"last_epoch"}
    for key in arguments & fresh.keys():
        given = key in config
        _unchanged(state[key], fresh[key], f"schedule.{key}" if given else f"{key} of the schedule", given)
    optimizer: Any = content["optimizer_states"]
    rates = [group["lr"] for group in optimizer[0]["param_groups"]]
    if "_last_lr" in fresh:
        _same(list(state["_last_lr"]), rates, "lr_schedulers.0._last_lr")
    if "last_epoch" in fresh:
        done = content["loops"]["fit_loop"]["epoch_loop.scheduler_progress"]["total"]["completed"]
        _same(state["last_epoch"], done, "lr_schedulers.0.last_epoch")


def _unchanged(given: Any, fresh: Any, name: str, is_key: bool) -> None:
    """Raise InputError where a setting is not that of the command, which a checkpoint has no say in."""
    both = [list(value) if isinstance(value, list | tuple) else value for value in (given, fresh)]
    if both[0] != both[1]:
        remedy = f"give {name}={given!r:.40} to go on" if is_key else "give the command of that run to go on"
        raise InputError(f"{name} was {given!r:.40} in that run and is {fresh!r:.40} now: {remedy}")


def _alike(given: Any, fresh: Any, name: str) -> None:
    """Raise ValueError where plain data has not all that fresh data has, of the same types; numbers are finite."""
    if isinstance(fresh, Tensor):
        right = is_plain(given) and bool((given.isfinite() | ~fresh.isfinite().all()).all())
    elif isinstance(fresh, bool):
        right = type(given) is bool
    elif isinstance(fresh, int | float):
        # a fresh count is a whole number; a fresh rate may be one too, and become another
        right = type(given) in (int, float) and (math.isfinite(given) or not math.isfinite(fresh))
        right = right and (type(fresh) is not int or given >= min(fresh, 0))
    elif isinstance(fresh, dict):
        right = isinstance(given, dict)
    elif isinstance(fresh, list | tuple):
        right = isinstance(given, list | tuple) and len(given) == len(fresh)
    else:
        right = fresh is None or isinstance(given, type(fresh))
    if not right:
        raise ValueError(f"{name} is {type(given).__name__} {given!r:.40}".replace("\n", " "))
    if isinstance(fresh, dict):
        for key, value in fresh.items():
            if key not in given:
                raise ValueError(f"{name}.{key} is missing")
            _alike(given[key], value, f"{name}.{key}")
    elif isinstance(fresh, list | tuple):
        for number, (one, other) in enumerate(zip(given, fresh, strict=True)):
            _alike(one, other, f"{name}.{number}")
