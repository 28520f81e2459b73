"""The checks before anything is built."""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.config.schemas import DATA, MODEL, SCHEDULE, Augment, Faces, Predict, Recipe, Train
from fer.engines import is_darknet, resolve
from fer.errors import InputError


def _face_crop(size: int) -> int:
    # torch takes seconds to import, which --help should not wait for
    from fer.models.crops import augmented_crop_size

    return augmented_crop_size(size)


OmegaConf.register_new_resolver("face_crop", _face_crop, replace=True)


def _run_name(data: str, model: str, darknet: str) -> str:
    return f"{data}_{model if darknet == 'none' else darknet}"


OmegaConf.register_new_resolver("run_name", _run_name, replace=True)


def closest(word: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean ...?)`` for a misspelt word, or nothing."""
    found = difflib.get_close_matches(word, list(valid), 1)
    return f" (did you mean {found[0]}?)" if found else ""


def check_train(cfg: DictConfig) -> dict[str, Any]:
    """Check the whole training config and return it as plain data; nothing is built and no file is opened.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range, a target that does not exist.
    """
    config = {
        "data": check_data(cfg.data),
        "model": typed(cfg.model, _choose(cfg.model, "library", MODEL, "model"), "model"),
        "schedule": typed(cfg.schedule, _choose(cfg.schedule, "name", SCHEDULE, "schedule"), "schedule"),
        "augment": typed(cfg.augment, Augment, "augment"),
        "recipe": typed(cfg.recipe, Recipe, "recipe"),
    }
    groups = (*config, "optimizer", "trainer", "darknet")
    rest = {key: value for key, value in plain(cfg).items() if key not in groups}
    config |= typed(OmegaConf.create(rest), Train, "", groups)
    # last, because looking the classes up imports torch
    config["optimizer"] = check_target(plain(cfg.optimizer), "optimizer", given=("params",))
    config["trainer"] = check_target(plain(cfg.trainer), "trainer")
    size, crop = config["data"]["size"], config["augment"]["crop"]
    if not 1 <= crop <= size:
        raise InputError(f"augment.crop={crop} does not fit into data.size={size}")
    _check_run(config)
    _check_schedule(config["schedule"])
    _check_augment(config["augment"])
    _check_recipe(config["recipe"], config["trainer"])
    _check_fused(config["optimizer"], config["trainer"])
    if config["data"]["color"] == "rgb" and config["model"]["in_channels"] == 1:
        raise InputError("data.color=rgb needs model.in_channels=3")
    if config["model"]["in_channels"] not in (1, 3):
        raise InputError(
            f"model.in_channels={config['model']['in_channels']} is not 1 (grey) or 3 (grey repeated, or RGB)"
        )
    if config["batch_size"] < 1:
        raise InputError(f"batch_size={config['batch_size']} is not a positive number")
    if config["resume"] and config["init"]:
        raise InputError("resume= goes on with a run, init= starts a new one from its weights: give one of them")
    devices = config["trainer"].get("devices")
    if isinstance(devices, int) and devices > 1 and config["batch_size"] % devices:
        raise InputError(
            f"batch_size={config['batch_size']} is the global batch and does not divide by trainer.devices={devices}"
        )
    return config


def _check_run(config: dict[str, Any]) -> None:
    trainer = config["trainer"]
    if not 0 <= config["seed"] < 1 << 32:
        raise InputError(f"seed={config['seed']} is not between 0 and {(1 << 32) - 1}")
    if config["num_workers"] < 0:
        raise InputError(f"num_workers={config['num_workers']} is not a number of processes, 0 is none")
    if config["early_stop"] is not None and config["early_stop"] < 1:
        raise InputError(f"early_stop={config['early_stop']} is not a number of epochs; early_stop=null is off")
    epochs = trainer.get("max_epochs")
    endless = epochs == -1 and config["schedule"]["name"] != "cosine"
    if not endless and (not isinstance(epochs, int) or epochs < 1):
        raise InputError(f"trainer.max_epochs={epochs} is not a number of epochs; schedules other than cosine take -1")
    # without val/acc there is no best epoch
    if not trainer.get("limit_val_batches", 1.0):
        raise InputError("trainer.limit_val_batches=0 leaves no val/acc to choose the best epoch by: give 1 or more")
    every = trainer.get("check_val_every_n_epoch", 1)
    if not isinstance(every, int) or every < 1 or not endless and every > epochs:
        raise InputError(
            f"trainer.check_val_every_n_epoch={every} leaves no val/acc to choose the best epoch by: give 1 to "
            f"trainer.max_epochs={epochs}"
        )


def _check_schedule(schedule: dict[str, Any]) -> None:
    for key in ("start", "warmup", "patience"):
        if schedule.get(key, 0) < 0:
            raise InputError(f"schedule.{key}={schedule[key]} is not a number of epochs")
    if schedule.get("every", 1) < 1:
        raise InputError(f"schedule.every={schedule['every']} is not a positive number of epochs")
    if schedule.get("rate", 1) <= 0:
        raise InputError(f"schedule.rate={schedule['rate']} is not a positive factor")
    if not 0 <= schedule.get("floor", 0) <= 1:
        raise InputError(f"schedule.floor={schedule['floor']} is not a fraction of the first rate")
    if not 0 < schedule.get("factor", 0.5) < 1:
        raise InputError(f"schedule.factor={schedule['factor']} is not a factor between 0 and 1")


def _check_augment(augment: dict[str, Any]) -> None:
    for key in ("flip", "erase"):
        if not 0 <= augment[key] <= 1:
            raise InputError(f"augment.{key}={augment[key]} is not a probability")
    for key in ("scale", "translate", "brightness", "contrast"):
        if not 0 <= augment[key] < 1:
            raise InputError(f"augment.{key}={augment[key]} is not a fraction from 0 (off) to below 1")
    if not 0 <= augment["rotate"] <= 180:
        raise InputError(f"augment.rotate={augment['rotate']} is not an angle of 0 to 180 degrees")


def _check_recipe(recipe: dict[str, Any], trainer: dict[str, Any]) -> None:
    if not 0 <= recipe["label_smoothing"] < 1:
        raise InputError(f"recipe.label_smoothing={recipe['label_smoothing']} is not a fraction from 0 to below 1")
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
    if recipe["class_weights"] not in ("none", "balanced"):
        raise InputError(f"recipe.class_weights={recipe['class_weights']}: not none or balanced")
    if recipe["class_weights"] == recipe["sampler"] == "balanced":
        raise InputError("recipe.class_weights=balanced and recipe.sampler=balanced correct the same twice: give one")
    if recipe["logit_adjustment"] < 0:
        raise InputError(f"recipe.logit_adjustment={recipe['logit_adjustment']} is not a factor of 0 (off) or more")
    if not 0 <= recipe["teacher_weight"] <= 1:
        raise InputError(f"recipe.teacher_weight={recipe['teacher_weight']} is not a weight of 0 to 1")
    if recipe["teacher_temperature"] <= 0:
        raise InputError(f"recipe.teacher_temperature={recipe['teacher_temperature']} is not a positive number")
    if recipe["sam"] is not None:
        if recipe["sam"] <= 0:
            raise InputError(f"recipe.sam={recipe['sam']} is not a positive radius; recipe.sam=null is off")
        if str(trainer.get("precision")) in ("16-mixed", "16"):
            raise InputError("recipe.sam cannot take its two gradients in 16-mixed: set trainer.precision=bf16-mixed")
        if trainer.get("accumulate_grad_batches", 1) != 1:
            raise InputError("recipe.sam takes two gradients of one batch: set trainer.accumulate_grad_batches=1")


def _check_fused(optimizer: dict[str, Any], trainer: dict[str, Any]) -> None:
    # Lightning's own limit, which it tells of in the first step only
    if optimizer.get("fused") and trainer.get("gradient_clip_val") and str(trainer.get("precision")).endswith("-mixed"):
        raise InputError(
            f"optimizer.fused=true cannot clip gradients with trainer.precision={trainer['precision']}: "
            "set trainer.gradient_clip_val=null or optimizer.fused=null"
        )


def check_data(data: DictConfig) -> dict[str, Any]:
    """Check one ``data`` group and return it as plain data.

    Raises:
        InputError: an unknown key, or a value of the wrong type or out of range.
    """
    config = typed(data, _choose(data, "name", DATA, "data"), "data")
    if config["color"] not in ("grey", "rgb"):
        raise InputError(f"data.color={config['color']}: not grey or rgb")
    if config["keep"] not in ("auto", "device", "memory", "disk"):
        raise InputError(f"data.keep={config['keep']}: not auto, device, memory or disk")
    if not 8 <= config["size"] <= 1024:
        raise InputError(f"data.size={config['size']}: not between 8 and 1024 pixels")
    if not 0 <= config["margin"] <= 2:
        raise InputError(f"data.margin={config['margin']}: not a fraction of the box between 0 and 2")
    for key in ("val_fraction", "test_fraction"):
        if not 0 <= config.get(key, 0) < 1:
            raise InputError(f"data.{key}={config[key]}: not a fraction between 0 and 1")
    return config


def check_predict(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the config of predict.py and return its own keys and its ``faces`` group as plain data.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range, or two keys that exclude each other.
    """
    keys, faces = check_keys(cfg, Predict), typed(cfg.faces, Faces, "faces")
    for key in ("source", "ckpt"):
        if not keys[key]:
            raise InputError(
                f"{key} is not set: give source=PHOTO_OR_FOLDER_OR_VIDEO and ckpt=NAME, FILE.ckpt, FILE.safetensors, "
                "FILE.onnx or FILE.weights"
            )
    for key in ("every_n", "search_every", "batch"):
        if keys[key] < 1:
            raise InputError(f"{key}={keys[key]} is not a positive number")
    if not 0 <= keys["smooth"] < 1:
        raise InputError(f"smooth={keys['smooth']}: not a weight of 0 (off) to below 1")
    if keys["min_confidence"] is not None and not 0 <= keys["min_confidence"] <= 1:
        raise InputError(f"min_confidence={keys['min_confidence']} is not a probability")
    if keys["anonymize"] and keys["explain"]:
        raise InputError("explain=true draws faces, anonymize=true hides them: give one of them")
    if keys["layer"] and not keys["explain"]:
        raise InputError(f"layer={keys['layer']} is what explain=true shows: give both")
    if is_darknet(keys["ckpt"]):
        for key in ("explain",) if cfg.darknet.get("engine") == "torch" else ("explain", "show"):
            if keys[key]:
                raise InputError(
                    f"{key}=true: not for the .weights of a Darknet net; show=true with darknet.engine=torch"
                )
    return keys, faces


def check_keys(cfg: DictConfig, schema: type) -> dict[str, Any]:
    """Check the top-level keys of an entry point; the groups have checks of their own."""
    rest = {key: value for key, value in plain(cfg).items() if key not in ("data", "darknet", "faces")}
    keys = typed(OmegaConf.create(rest), schema, "")
    if isinstance(keys.get("ckpt"), str):
        keys["ckpt"] = resolve(keys["ckpt"])
    return keys


def check_target(config: dict[str, Any], group: str, given: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check that ``_target_`` exists and takes every key of the config; ``given`` are arguments added when it is built.

    Raises:
        InputError: naming the key and the valid ones.
    """
    target = config.get("_target_")
    if not target:
        raise InputError(f"{group}._target_ is missing: it names the class to build")
    try:
        found = hydra.utils.get_object(target)
    except (ImportError, AttributeError, ValueError, hydra.errors.HydraException) as error:
        raise InputError(f"{group}._target_={target}: there is no such class") from error
    arguments = inspect.signature(found).parameters
    valid = [name for name in arguments if name not in given]
    for key in config:
        if key != "_target_" and key not in valid:
            raise InputError(f"there is no key {group}.{key}{closest(key, valid)}; {target} takes {', '.join(valid)}")
    missing = [
        name for name, argument in arguments.items()
        if argument.default is argument.empty and name not in config and name not in given
        and argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
    ]  # fmt: skip
    if missing:
        raise InputError(f"{group}.{missing[0]} is missing: {target} needs it")
    return config


def plain(node: DictConfig) -> dict[str, Any]:
    """Return a config node as plain data, its references resolved."""
    return OmegaConf.to_container(node, resolve=True)


def _choose(node: DictConfig, key: str, schemas: Mapping[str, type], group: str) -> type:
    value = node.get(key)
    if value not in schemas:
        raise InputError(f"{group}.{key}={value}: not one of {', '.join(schemas)}{closest(str(value), schemas)}")
    return schemas[value]


def typed(node: DictConfig, schema: type, group: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a config node as plain data of the types of ``schema``; ``others`` are keys that are valid beside it.

    Raises:
        InputError: an unknown or missing key, or a value of the wrong type.
    """
    prefix = f"{group}." if group else ""
    fields = schema.__dataclass_fields__
    for key in node:
        if key not in fields:
            raise InputError(
                f"there is no key {prefix}{key}{closest(key, (*fields, *others))}; "
                f"valid in {group or 'the config'}: {', '.join((*fields, *others))}"
            )
    try:
        config = plain(OmegaConf.merge(OmegaConf.structured(schema), plain(node)))
    except OmegaConfBaseException as error:
        raise InputError(f"{prefix}{error.key or ''}: {str(error).splitlines()[0]}") from error
    for key in fields:
        if config.get(key) == "???":
            raise InputError(f"{prefix}{key} is missing: give {prefix}{key}=VALUE")
    return config
