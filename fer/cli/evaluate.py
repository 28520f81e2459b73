"""Score a checkpoint, or compare reports: ``python evaluate.py --help``."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from fer import api
from fer.cli.launch import launch
from fer.config.checks import check_data, check_keys
from fer.config.schemas import Evaluate
from fer.darknet.config import check_darknet
from fer.engines import is_darknet
from fer.errors import InputError


def job(cfg: DictConfig, _: Path) -> float | None:
    keys = check_keys(cfg, Evaluate)
    if keys["compare"]:
        from fer.evaluation.compare import compare

        print(compare([Path(path) for path in keys["compare"]]))
        return None
    data = check_data(cfg.data) if "data" in cfg else None
    if keys["folds"]:
        if keys["ckpt"]:
            raise InputError("folds= scores the checkpoints of all folds, ckpt= one: give one of them")
        from fer.evaluation.folds import evaluate_folds

        return evaluate_folds(keys, data)
    if not keys["ckpt"]:
        raise InputError(
            "ckpt is not set: give ckpt=runs/NAME/DATE/checkpoints/best.ckpt, or compare=[a/report.json,...]"
        )
    one_file = isinstance(keys["ckpt"], str) and is_darknet(keys["ckpt"])
    return api.evaluate(keys, data, check_darknet(cfg.darknet) if one_file else None)


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    launch(job, "evaluate", words)
