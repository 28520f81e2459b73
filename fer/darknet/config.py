"""The checks of a Darknet net's config before anything is built."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer.config.checks import check_data, check_labels
from fer.config.plain import plain, typed
from fer.config.schemas import Darknet
from fer.errors import InputError

#: What the darknet program takes no notice of, so that giving it beside ``darknet=`` is a mistake.
_NOT_WITH_DARKNET = (
    "model", "schedule", "optimizer", "augment", "recipe", "trainer", "batch_size", "num_workers", "channels_last",
    "compile", "bare_step", "seed", "early_stop", "init", "param_groups", "freeze", "unfreeze_epoch",
)  # fmt: skip

#: What a net trained in torch takes notice of, though.
_TORCH_DARKNET = ("seed", "num_workers")
_TORCH_DARKNET_TRAINER = ("accelerator", "devices", "precision", "strategy", "num_nodes", "enable_progress_bar")


def check_darknet_train(cfg: DictConfig, overrides: Iterable[str]) -> dict[str, Any]:
    """Check the config of a training run of a Darknet net; ``overrides`` are those of the command line.

    Returns the keys data, darknet, name and resume as plain data, for darknet.engine=torch also seed, num_workers and
    those of trainer that apply.

    Raises:
        InputError: a wrong key or value, or an option of the classifiers' side, which would change nothing.
    """
    darknet = check_darknet(cfg.darknet)
    torch = darknet["engine"] == "torch"
    kept = (*_TORCH_DARKNET, "trainer", *(f"trainer.{key}" for key in _TORCH_DARKNET_TRAINER)) if torch else ()
    for override in overrides:
        name = override.lstrip("+~").split("=")[0].split("@")[0]
        key = name.split(".")[0]
        if key in _NOT_WITH_DARKNET and name not in kept:
            if torch and key == "trainer":
                raise InputError(
                    f"{override} has no effect beside darknet={darknet['name']}; of trainer it takes "
                    + ", ".join(_TORCH_DARKNET_TRAINER)
                )
            raise InputError(
                f"{override} has no effect beside darknet={darknet['name']}, which brings its own net and schedule: "
                "leave it out and set darknet.KEY"
            )
    labels = plain(OmegaConf.masked_copy(cfg, ["tags", "notes"]))
    check_labels(**labels)
    config = {"data": check_data(cfg.data), "darknet": darknet, "name": cfg.name, "resume": cfg.resume} | labels
    if config["data"]["folds"] is not None:
        raise InputError("data.folds has no effect beside darknet=: its nets take the splits of their folder")
    if torch:
        for key in ("gpus", "mjpeg_port"):
            if darknet[key] is not None:
                remedy = "; set trainer.devices" if key == "gpus" else ""
                raise InputError(f"darknet.{key}={darknet[key]} is the program's, not darknet.engine=torch's{remedy}")
        trainer = plain(cfg.trainer)
        config["trainer"] = {key: trainer[key] for key in _TORCH_DARKNET_TRAINER if key in trainer}
        if trainer["precision"] not in ("32-true", "bf16-mixed", "16-mixed", "auto"):
            raise InputError(f"trainer.precision={trainer['precision']}: not 32-true, bf16-mixed, 16-mixed or auto")
        if trainer["strategy"] != "auto" and not str(trainer["strategy"]).startswith("ddp"):
            raise InputError(f"trainer.strategy={trainer['strategy']}: .weights need the whole net: set auto or ddp")
        config |= {key: cfg[key] for key in _TORCH_DARKNET}
        if not isinstance(cfg.num_workers, int) or cfg.num_workers < 0 or not isinstance(cfg.seed, int):
            raise InputError(f"seed={cfg.seed} num_workers={cfg.num_workers}: not whole numbers")
        if not 0 <= cfg.seed < 2**32:
            raise InputError(f"seed={cfg.seed} is not within 0 and {2**32 - 1:,}")
    return config


def check_darknet(node: DictConfig) -> dict[str, Any]:
    """Check one ``darknet`` group and return it as plain data, None for what the recipe or the .cfg file decides.

    Raises:
        InputError: an unknown key, or a value of the wrong type or out of range.
    """
    config = typed(node, Darknet, "darknet")
    if config["engine"] not in ("binary", "torch"):
        raise InputError(f"darknet.engine={config['engine']}: not binary or torch")
    if config["engine"] == "torch" and config["binary"]:
        raise InputError(f"darknet.binary={config['binary']}: darknet.engine=torch runs no program; give one of them")
    if config["crop"] not in (None, "photo", "face"):
        raise InputError(f"darknet.crop={config['crop']}: not photo (the whole photo) or face (the cropped face)")
    if config["epochs"] is not None and config["epochs"] <= 0:
        raise InputError(f"darknet.epochs={config['epochs']} is not a positive number")
    for key in ("batch", "subdivisions", "max_batches", "size", "pretrained_layers"):
        if config[key] is not None and config[key] < 1:
            raise InputError(f"darknet.{key}={config[key]} is not a positive number")
    return config
