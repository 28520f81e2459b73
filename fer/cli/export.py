"""Write a checkpoint as a weight file, or for other programs as ONNX or torch.export: ``python export.py --help``."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from fer import api
from fer.cli.arguments import require_effect
from fer.cli.launch import launch
from fer.config.checks import check_data, check_keys
from fer.config.schemas import Export
from fer.darknet.config import check_darknet
from fer.engines import is_darknet
from fer.errors import InputError


def job(cfg: DictConfig, _: Path) -> None:
    keys = check_keys(cfg, Export)
    if not keys["ckpt"]:
        raise InputError("ckpt is not set: give ckpt=runs/NAME/DATE/checkpoints/best.ckpt")
    if not is_darknet(keys["ckpt"]):
        require_effect("ckpt=, which is no .weights file", "darknet")
    data = check_data(cfg.data) if "data" in cfg else None
    api.export(keys, data, check_darknet(cfg.darknet) if is_darknet(keys["ckpt"]) else None)


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    launch(job, "export", words)
