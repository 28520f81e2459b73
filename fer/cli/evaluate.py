"""Score a checkpoint, or compare reports: ``python evaluate.py --help``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from fer import api
from fer.cli.arguments import given_keys, require_effect
from fer.cli.launch import launch
from fer.config.checks import check_data, check_keys
from fer.config.schemas import Evaluate
from fer.darknet.config import check_darknet
from fer.darknet.scoring.thresholds import refuse_thresholds
from fer.engines import is_darknet
from fer.errors import InputError

#: Keys of conf/darknet that say which net it is and what it is scored on; the others are of a training.
_OF_DARKNET = ("name", "engine", "binary", "cfg", "names", "folder", "crop")


def job(cfg: DictConfig, _: Path) -> float | None:
    keys = check_keys(cfg, Evaluate)
    if keys["compare"]:
        require_effect("compare=, which reads reports", others_than=("compare",))
        from fer.evaluation.compare import compare

        print(compare([Path(path) for path in keys["compare"]]))
        return None
    several = _data_sets()
    if keys["folds"]:
        if keys["ckpt"]:
            raise InputError("folds= scores the checkpoints of all folds, ckpt= one: give one of them")
        if several is not None:
            raise InputError("folds= scores the runs on their own data: leave data=[...] out")
        for key in ("classes", "contempt"):
            if keys[key]:
                raise InputError(f"folds= scores the runs on the classes that they were trained on: leave {key}= out")
        require_effect("folds=", "split", "thresh", "iou_thresh", "darknet")
        from fer.evaluation.folds import evaluate_folds

        return evaluate_folds(keys, check_data(cfg.data) if "data" in cfg else None)
    if not keys["ckpt"]:
        raise InputError(
            "ckpt is not set: give ckpt=runs/NAME/DATE/checkpoints/best.ckpt, or compare=[a/report.json,...]"
        )
    one_file = isinstance(keys["ckpt"], str) and is_darknet(keys["ckpt"])
    if not one_file:
        refuse_thresholds(keys)
        require_effect("ckpt=, which is no .weights file", "darknet")
    if several is not None:
        if one_file:
            raise InputError(f"data=[{','.join(several)}]: a .weights file is scored on one data set: give data=NAME")
        api.evaluate_each(keys, {name: check_data(data) for name, data in several.items()})
        return None
    data = check_data(cfg.data) if "data" in cfg else None
    darknet = check_darknet(cfg.darknet) if one_file else None
    if darknet:
        _require_effect_on_darknet(keys, darknet, data is not None)
    return api.evaluate(keys, data, darknet)


def _require_effect_on_darknet(keys: dict[str, Any], darknet: dict[str, Any], with_data: bool) -> None:
    """Refuse keys that would change nothing of the score of a .weights file; ``with_data``: data= is given."""
    require_effect("a .weights file", "ten_crop", "scales", "trust")
    if darknet["folder"]:
        require_effect("darknet.folder=, which says what is scored", "data", "darknet.crop")
    elif not with_data:
        require_effect("a .weights file that is scored on what it was trained on", "darknet.crop")
    if darknet["engine"] == "binary" and keys["device"] != "auto":
        raise InputError(f"device={keys['device']} has no effect with the darknet program: give darknet.engine=torch")
    for given in given_keys():
        group, _, key = given.key_or_group.partition(".")
        if group == "darknet" and key and key not in _OF_DARKNET:
            raise InputError(f"{given.input_line} has no effect: it is of a training; leave it out")


def _data_sets() -> dict[str, DictConfig] | None:
    """Return the data configs of ``data=[NAME,NAME]`` by their names, or None where one or none was chosen.

    Hydra would merge the groups of a list into one; here each is composed alone, with the same other keys.
    """
    hydra = HydraConfig.get()
    given = given_keys()
    # the last of several is the one that Hydra takes
    names = next((each.value() for each in reversed(given) if each.key_or_group == "data"), None)
    if not isinstance(names, list):
        return None
    text = f"data=[{','.join(names)}]"
    if not names:
        raise InputError("data=[]: no data set: give data=NAME, or data=[NAME,NAME] for a table of several")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{text}: {twice} stands twice")
    others = [str(each.input_line) for each in given if each.key_or_group != "data"]
    for key in ("data.file", "data.shards", "data.name"):
        if len(names) > 1 and any(each.key_or_group == key for each in given):
            raise InputError(f"{text}: {key} would be the same for all of them: leave it out, or give data=NAME")
    configs = {}
    for name in names:
        try:
            configs[name] = compose(hydra.job.config_name, [*others, f"data={name}"]).data
        except HydraException as error:
            # a key that another of them has, as Hydra took it
            raise InputError(f"{text}: with data={name}: {str(error).splitlines()[0]}") from error
    for name, config in configs.items():
        for other, before in configs.items():
            if other != name and before.file == config.file:
                raise InputError(f"{text}: {other} and {name} have the same data.file, {config.file}")
    return configs


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    launch(job, "evaluate", words)
