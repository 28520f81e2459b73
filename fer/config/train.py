"""The checks of a classifier's training run: each group, and how they go together."""

import inspect
import io
from importlib.util import find_spec
from types import UnionType
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from fer.blame import one_line
from fer.config.checks import check_labels, check_training_data
from fer.config.plain import plain, typed
from fer.config.schemas import ParamGroups, Recipe, Train
from fer.errors import InputError
from fer.targets import build, check_target, locate, takes

#: What training gives the trainer itself, and what to do instead of giving it.
TRAINER_OWN = {
    "default_root_dir": "set the run folder with hydra.run.dir=FOLDER",
    "logger": "choose with logger=NAME, or logger=[NAME,NAME]; the csv is always written; leave it out",
    "callbacks": "add your own by callbacks=NAME, a file callbacks/NAME.yaml in --config-dir; leave it out",
    "plugins": "checkpoints are written by one of ours; leave it out",
    "use_distributed_sampler": "the data module divides each batch among the processes; leave it out",
    "log_every_n_steps": "each step is logged; leave it out",
}

#: Loggers whose packages are not among ours: the module that is imported, and what pip calls it.
_PACKAGES = {
    "pytorch_lightning.loggers.WandbLogger": ("wandb", "wandb"),
    "pytorch_lightning.loggers.MLFlowLogger": ("mlflow", "mlflow"),
    "pytorch_lightning.loggers.CometLogger": ("comet_ml", "comet-ml"),
    "fer.training.loggers.TrackioLogger": ("trackio", "trackio"),
}
#: Folders of a run that no logger may be called by, as each writes into the one of its name.
_FOLDERS = ("checkpoints", "metrics")


def check_train(cfg: DictConfig) -> dict[str, Any]:
    """Check the whole training config and return it as plain data; nothing is built and no file is opened.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range, a target that does not exist.
    """
    config: dict[str, Any] = {
        "data": check_training_data(cfg.data),
        "recipe": typed(cfg.recipe, Recipe, "recipe"),
        "param_groups": typed(cfg.param_groups, ParamGroups, "param_groups"),
    }
    groups = (
        *config, "model", "augment", "loss", "optimizer", "schedule", "trainer", "callbacks", "logger", "darknet",
    )  # fmt: skip
    rest = {key: value for key, value in plain(cfg).items() if key not in groups}
    config |= typed(OmegaConf.create(rest), Train, "", groups)
    check_labels(config["tags"], config["notes"])
    # last, because looking the classes up imports torch
    config["model"] = check_target(plain(cfg.model, "model"), "model", ("num_classes",), offered=("download",))
    config["augment"] = _check_augment(plain(cfg.augment, "augment"), config["data"]["size"])
    config["loss"] = _check_loss(plain(cfg.loss, "loss"))
    config["optimizer"] = _check_optimizer(plain(cfg.optimizer, "optimizer"), config["param_groups"])
    config["trainer"] = _check_trainer(plain(cfg.trainer, "trainer"))
    config["callbacks"] = _check_callbacks(plain(cfg.callbacks, "callbacks"))
    config["logger"] = _check_loggers(plain(cfg.logger, "logger"))
    _check_sizes(config)
    _check_run(config)
    config["schedule"] = plain(cfg.schedule, "schedule")
    _check_epochs(config)
    _check_schedule(config)
    _check_folds(config)
    _check_freezing(config)
    _check_module(config)
    _check_recipe(config["recipe"], config["loss"], config["trainer"])
    _check_fused(config["optimizer"], config["trainer"])
    return config


def _check_augment(augment: dict[str, Any], size: int) -> dict[str, Any]:
    from torch import nn

    from fer.training.augment import build_augment

    check_target(augment, "augment", base=nn.Module)
    crop = augment.get("crop")
    if crop is not None and not (_is_number(crop, int) and 1 <= crop <= size):
        raise InputError(f"augment.crop={crop} does not fit into data.size={size}: it is a number of pixels")
    # what its values may be only the class itself knows
    build_augment(augment)
    return augment


def _check_loss(loss: dict[str, Any]) -> dict[str, Any]:
    from torch import nn

    from fer.training.losses import OFFERED, build_loss, require_maker

    target = loss.get("_target_")
    # a function says what it gives when it is called
    a_class = target not in (None, "???") and isinstance(locate(target, "loss"), type)
    if not a_class and target not in (None, "???"):
        require_maker(loss)
    check_target(loss, "loss", base=nn.Module if a_class else None, offered=OFFERED)
    # another's may be right for the number of classes of the data only, which is not known yet
    if loss["_target_"].startswith("fer.") or not takes(loss["_target_"], OFFERED):
        build_loss(loss, 7, [1] * 7)
    return loss


def _check_optimizer(optimizer: dict[str, Any], param_groups: dict[str, Any]) -> dict[str, Any]:
    import torch

    no_decay, layer_decay = param_groups["no_decay"], param_groups["layer_decay"]
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise InputError(f"param_groups.layer_decay={layer_decay} is not a factor above 0 and up to 1; null is off")
    check_target(optimizer, "optimizer", ("params",), torch.optim.Optimizer)
    defaults = inspect.signature(hydra.utils.get_class(optimizer["_target_"])).parameters
    for key, value in optimizer.items():
        if not _is_number(value, int | float):
            continue
        if abs(value) > torch.finfo(torch.float32).max:
            raise InputError(f"optimizer.{key}={value:.3g} is beyond what the weights' float32 can hold")
        usual = defaults[key].default
        if value < 0 and not (_is_number(usual, int | float) and usual < 0):
            raise InputError(f"optimizer.{key}={value} is below 0")
    try:
        # what its values must be together only the class itself knows
        build(optimizer, params=_groups_like(optimizer, param_groups))
    except Exception as error:  # whatever a class raises of its arguments
        cause = error.__cause__ or error
        plain_words = isinstance(cause, ValueError | TypeError) and str(cause)
        reason = " ".join(str(cause).split()) if plain_words else one_line(cause)
        keys = ", ".join(f"optimizer.{key}" for key in optimizer if key != "_target_")
        raise InputError(f"{optimizer['_target_']} refuses {keys}: {reason}") from error
    for key, argument, on in (
        ("no_decay", "weight_decay", no_decay),
        ("layer_decay", "lr", layer_decay is not None),
    ):
        if on and argument not in defaults:
            raise InputError(
                f"param_groups.{key}={param_groups[key]} has no effect: {optimizer['_target_']} has no {argument}"
            )
    if layer_decay is not None and "lr" not in optimizer:
        raise InputError(f"param_groups.layer_decay={layer_decay} is a factor on optimizer.lr: give that too")
    return optimizer


def _groups_like(optimizer: dict[str, Any], param_groups: dict[str, Any]) -> list[Any]:
    """Return parameters as an optimiser gets them, in two groups where a run has several."""
    import torch

    from fer.training.param_groups import SCALE

    first, last = (torch.nn.Parameter(torch.zeros(1, 1)) for _ in range(2))
    if param_groups["layer_decay"] is not None and "lr" in optimizer:
        scale = param_groups["layer_decay"]
        return [{"params": [w], "lr": optimizer["lr"] * s, SCALE: s} for w, s in ((first, scale), (last, 1.0))]
    return [{"params": [first]}, {"params": [last]}] if param_groups["no_decay"] else [first]


def _check_trainer(trainer: dict[str, Any]) -> dict[str, Any]:
    for key, remedy in TRAINER_OWN.items():
        if key in trainer:
            raise InputError(f"trainer.{key}={trainer[key]} would have no effect: {remedy}")
    from pytorch_lightning import Trainer

    # auto is our own word, see `with_precision`
    known = trainer | ({"precision": "32-true"} if trainer.get("precision") == "auto" else {})
    check_target(known, "trainer", tuple(TRAINER_OWN), Trainer)
    if (trainer.get("gradient_clip_val") or 0) < 0:
        raise InputError(f"trainer.gradient_clip_val={trainer['gradient_clip_val']} is below 0; null is off")
    if (steps := trainer.get("num_sanity_val_steps") or 0) < -1:
        raise InputError(f"trainer.num_sanity_val_steps={steps} is not a number of batches; 0 is off, -1 all")
    batches = trainer.get("accumulate_grad_batches", 1)
    if not _is_number(batches, int) or batches < 1:
        raise InputError(f"trainer.accumulate_grad_batches={batches} is not a number of batches; 1 is off")
    for key in ("val_check_interval", "limit_train_batches", "overfit_batches"):
        value = trainer.get(key)
        if value is None or key == "overfit_batches" and value == 0:
            continue
        if not (_is_number(value, int) and value >= 1 or _is_number(value, float) and 0 < value <= 1):
            raise InputError(f"trainer.{key}={value} is not a number of batches of 1 or more, or a fraction up to 1.0")
    return trainer


def _check_callbacks(callbacks: dict[str, Any]) -> dict[str, Any]:
    from pytorch_lightning import Callback

    for name, target in _named("callbacks", callbacks):
        check_target(target, f"callbacks.{name}", base=Callback)
    return callbacks


def _check_loggers(loggers: dict[str, Any]) -> dict[str, Any]:
    from pytorch_lightning.loggers import Logger

    for name, target in _named("logger", loggers):
        if name in _FOLDERS or not name.isidentifier():
            raise InputError(f"logger.{name}: not a name for its folder in the run folder: give it another")
        check_target(target, f"logger.{name}", base=Logger, offered=("save_dir",))
        module, package = _PACKAGES.get(target["_target_"], ("", ""))
        if module and find_spec(module) is None:
            raise InputError(f"logger.{name}: {package} is not installed: pip install {package}")
    return loggers


def _named(group: str, parts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the parts of a group that holds several by name."""
    for name, target in parts.items():
        if not isinstance(target, dict):
            raise InputError(f"{group}.{name}={target}: not a group of keys: give {group}.NAME._target_=CLASS")
    return [(str(name), target) for name, target in parts.items()]


def _is_number(value: Any, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_sizes(config: dict[str, Any]) -> None:
    """Refuse sizes, colours and batches that do not go together."""
    channels = config["model"].get("in_channels", 3)
    if config["data"]["color"] == "rgb" and channels == 1:
        raise InputError("data.color=rgb needs model.in_channels=3")
    if channels not in (1, 3):
        raise InputError(f"model.in_channels={channels} is not 1 (grey) or 3 (grey repeated, or RGB)")
    batch, devices = config["batch_size"], config["trainer"].get("devices")
    if batch < 1:
        raise InputError(f"batch_size={batch} is not a positive number")
    if isinstance(devices, int) and devices > 1 and batch % devices:
        raise InputError(f"batch_size={batch} is the global batch and does not divide by trainer.devices={devices}")


def _check_run(config: dict[str, Any]) -> None:
    if config["resume"] and config["init"]:
        raise InputError("resume= goes on with a run, init= starts a new one from its weights: give one of them")
    if not 0 <= config["seed"] < 1 << 32:
        raise InputError(f"seed={config['seed']} is not between 0 and {(1 << 32) - 1}")
    if config["num_workers"] < 0:
        raise InputError(f"num_workers={config['num_workers']} is not a number of processes, 0 is none")
    if config["early_stop"] is not None and config["early_stop"] < 1:
        raise InputError(f"early_stop={config['early_stop']} is not a number of epochs; early_stop=null is off")


def _check_epochs(config: dict[str, Any]) -> None:
    """Refuse a length of the run or a validation that leaves no best epoch to choose."""
    trainer = config["trainer"]
    epochs = trainer.get("max_epochs")
    # a schedule may need to know the end, which `make_scheduler` says
    endless = epochs == -1
    if not endless and (not isinstance(epochs, int) or epochs < 1):
        raise InputError(f"trainer.max_epochs={epochs} is not a number of epochs; -1 is without an end")
    # without val/acc there is no best epoch
    if not trainer.get("limit_val_batches", 1.0):
        raise InputError("trainer.limit_val_batches=0 leaves no val/acc to choose the best epoch by: give 1 or more")
    every = trainer.get("check_val_every_n_epoch", 1)
    if not isinstance(every, int) or every < 1 or not endless and every > epochs:
        raise InputError(
            f"trainer.check_val_every_n_epoch={every} leaves no val/acc to choose the best epoch by: give 1 to "
            f"trainer.max_epochs={epochs}"
        )


def _check_folds(config: dict[str, Any]) -> None:
    """Refuse folds without one of them, and whatever would choose an epoch by the fold that is then scored."""
    folds, fold = config["data"].get("folds"), config["data"].get("fold")
    if folds is None or "_target_" in config["data"]:
        return
    if fold is None:
        count = folds if isinstance(folds, int) else "PERSONS"
        raise InputError(
            f"data.folds={folds} needs data.fold, the one to validate on; all of them: -m 'data.fold=range({count})'"
        )
    follows = str(config["schedule"].get("monitor")).startswith("val/")
    for key, chosen in (("early_stop", config["early_stop"]), ("schedule", follows)):
        if chosen:
            raise InputError(
                f"{key} would look at the fold that is scored: with data.folds the number of epochs is fixed; "
                "leave it out"
            )


def _check_module(config: dict[str, Any]) -> None:
    """Refuse what only the data module of prepared files does, where the user gives another."""
    if "_target_" not in config["data"]:
        return
    for key, usual in (("sampler", "shuffle"), ("votes", "none")):
        if (value := config["recipe"][key]) != usual:
            raise InputError(
                f"recipe.{key}={value} has no effect: {config['data']['_target_']} makes the batches; leave it out"
            )


#: What is logged of an epoch, which a schedule may follow; callbacks may log more.
_SCORES = [f"{stage}/{score}" for stage in ("val", "train") for score in ("acc", "balanced_acc", "macro_f1", "loss")]


def _check_schedule(config: dict[str, Any]) -> None:
    """Build the schedule for parameters of no network, which says what is amiss with it."""
    from fer.training.schedules import TYPICAL, Length, make_scheduler

    schedule, trainer = config["schedule"], config["trainer"]
    if (name := schedule.get("name")) is not None and str(schedule.get("_target_", "fer.")).startswith("fer."):
        raise InputError(f"schedule.name={name} has moved: give schedule={name}")
    if (monitor := schedule.get("monitor")) is not None and monitor not in _SCORES and not config["callbacks"]:
        raise InputError(f"schedule.monitor={monitor}: not logged of an epoch: give one of {', '.join(_SCORES)}")
    optimizer = build(config["optimizer"], params=_groups_like(config["optimizer"], config["param_groups"]))
    by_step = schedule.get("interval") == "step"
    made = make_scheduler(schedule, optimizer, Length(trainer["max_epochs"], TYPICAL if by_step else 1))
    _require_plain(schedule["_target_"], {"schedule": made["scheduler"].state_dict(), "rates": optimizer.param_groups})
    if monitor is not None and trainer.get("check_val_every_n_epoch", 1) != 1:
        raise InputError(
            f"schedule.monitor={monitor} needs a validation every epoch: set trainer.check_val_every_n_epoch=1"
        )


def _require_plain(target: str, state: dict[str, Any]) -> None:
    """Refuse a schedule whose state a checkpoint could hold only as code, so that nothing could read it."""
    import torch

    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:  # whatever is raised by pickling what is the user's
        raise InputError(
            f"schedule._target_={target}: its state_dict() must hold numbers, texts, lists and tensors alone, "
            "as checkpoints do"
        ) from error


#: Strategies that divide or wrap parameters, after which they are no longer those of before.
_DIVIDING = ("fsdp", "deepspeed", "model_parallel", "xla")


def _check_freezing(config: dict[str, Any]) -> None:
    """Refuse patterns and epochs that mean nothing; whether the patterns fit shows as the network is built."""
    freeze, epoch, last = config["freeze"], config["unfreeze_epoch"], config["trainer"]["max_epochs"]
    if freeze is not None and not (freeze and all(freeze)):
        raise InputError(f"freeze={freeze}: not a list of patterns of parameter names, as [layer1.*]; null is none")
    if epoch is not None and freeze is None:
        raise InputError(f"unfreeze_epoch={epoch} has no effect without freeze=")
    if epoch is not None and (epoch < 1 or 0 < last <= epoch):
        raise InputError(
            f"unfreeze_epoch={epoch} is not a number of epochs from 1 to below trainer.max_epochs={last}; null is never"
        )
    strategy = str(config["trainer"].get("strategy")).lower()
    own = {"freeze": freeze, **{f"param_groups.{key}": value for key, value in config["param_groups"].items()}}
    for key, value in own.items():
        if value and strategy.startswith(_DIVIDING):
            raise InputError(f"{key} cannot tell parameters apart with trainer.strategy={strategy}: give auto or ddp")


def _check_recipe(recipe: dict[str, Any], loss: dict[str, Any], trainer: dict[str, Any]) -> None:
    for key in ("mixup", "cutmix"):
        if recipe[key] < 0:
            raise InputError(f"recipe.{key}={recipe[key]} is not the alpha of a Beta distribution, 0 is off")
    if not 0 <= recipe["mix"] <= 1:
        raise InputError(f"recipe.mix={recipe['mix']} is not a share of the batches")
    if recipe["mix"] and not recipe["mixup"] and not recipe["cutmix"]:
        raise InputError(f"recipe.mix={recipe['mix']} needs recipe.mixup or recipe.cutmix above 0")
    if recipe["ema"] is not None and not 0 < recipe["ema"] < 1:
        raise InputError(f"recipe.ema={recipe['ema']} is not a decay between 0 and 1")
    if recipe["sampler"] not in ("shuffle", "balanced"):
        raise InputError(f"recipe.sampler={recipe['sampler']}: not shuffle or balanced")
    if recipe["votes"] not in ("none", "soft", "clean"):
        raise InputError(f"recipe.votes={recipe['votes']}: not none, soft or clean")
    if loss.get("class_weights") == recipe["sampler"] == "balanced":
        raise InputError("loss.class_weights=balanced and recipe.sampler=balanced correct the same twice: give one")
    if not 0 <= recipe["teacher_weight"] <= 1:
        raise InputError(f"recipe.teacher_weight={recipe['teacher_weight']} is not a weight of 0 to 1")
    if not 0.01 <= recipe["teacher_temperature"] <= 100:
        raise InputError(f"recipe.teacher_temperature={recipe['teacher_temperature']} is not a number of 0.01 to 100")
    if recipe["sam"] is not None:
        if recipe["sam"] <= 0:
            raise InputError(f"recipe.sam={recipe['sam']} is not a positive radius; recipe.sam=null is off")
        if str(trainer.get("precision")) in ("16-mixed", "16"):
            raise InputError("recipe.sam cannot take its two gradients in 16-mixed: set trainer.precision=bf16-mixed")
        if trainer.get("accumulate_grad_batches", 1) != 1:
            raise InputError("recipe.sam takes two gradients of one batch: set trainer.accumulate_grad_batches=1")


def _check_fused(optimizer: dict[str, Any], trainer: dict[str, Any]) -> None:
    # Lightning's own limit, which it tells of in the first step only
    mixed = trainer.get("precision") == "auto" or str(trainer.get("precision")).endswith("-mixed")
    if optimizer.get("fused") and trainer.get("gradient_clip_val") and mixed:
        raise InputError(
            f"optimizer.fused=true cannot clip gradients with trainer.precision={trainer['precision']}: "
            "set trainer.gradient_clip_val=null or optimizer.fused=null"
        )
