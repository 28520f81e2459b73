"""Whether a run can go on from a checkpoint: what Lightning restores beside the weights, checked before it does."""

import math
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from fer.errors import InputError
from fer.models.checkpoint import is_plain, read_checkpoint
from fer.training.module import ClassifierModule
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
        _alike(content.get("loops"), {"fit_loop": trainer.fit_loop.state_dict()}, "loops")
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
        if (now := content.get("current_model_state")) is not None:
            _alike(now, content["state_dict"], "current_model_state")
    except ValueError as error:
        raise InputError(f"resume={path}: {error}, so no run can go on from it; start with init={path}") from error
    # those that were trained whole, whose validation may be due
    epochs, last = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"], trainer.max_epochs or -1
    if 0 <= last <= epochs:
        return f"resume={path}: {epochs:,} epochs are done"
    of = f" of {last:,}" if last > 0 else ""
    return f"resume={path}: goes on in epoch {epochs + 1:,}{of}, after {content['global_step']:,} steps"


def _check_optimizer(content: dict[str, Any], config: dict[str, Any], module: ClassifierModule) -> None:
    optimizer = module.optimizer()
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    # how many steps there are is known, and compared, when the data are open
    length = Length(config["trainer"]["max_epochs"], TYPICAL if module.by_step else 1)
    schedule = make_scheduler(config["schedule"], optimizer, length)["scheduler"]
    given: Any = content.get("optimizer_states")
    _alike(given, [{"state": {}, "param_groups": optimizer.state_dict()["param_groups"]}], "optimizer_states")
    for number, values in given[0]["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(values, dict):
            raise ValueError(f"optimizer_states.{number!r:.20} is of no weights")
        for name, value in values.items():
            shape = parameters[number].shape
            if isinstance(value, Tensor) and value.shape not in (shape, ()):
                raise ValueError(f"optimizer_states.{number}.{name} is {tuple(value.shape)}, not {tuple(shape)}")
            if isinstance(value, Tensor | int | float):
                fresh = value.new_zeros(()) if isinstance(value, Tensor) else type(value)(0)
                _alike(value, fresh, f"optimizer_states.{number}.{name}")
    _alike(content.get("lr_schedulers"), [schedule.state_dict()], "lr_schedulers")
    if module.by_step:
        _alike(content.get("schedule_length"), list(length.offered().values()), "schedule_length")


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
