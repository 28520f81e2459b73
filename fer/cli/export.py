"""Write a checkpoint as a weight file, or for other programs as ONNX or torch.export: ``python export.py --help``."""

from pathlib import Path

from omegaconf import DictConfig

from fer.cli.launch import launch
from fer.config.checks import check_data, check_keys
from fer.config.schemas import Export
from fer.darknet.config import check_darknet
from fer.errors import InputError


def job(cfg: DictConfig, _: Path) -> None:
    keys = check_keys(cfg, Export)
    if not keys["ckpt"]:
        raise InputError("ckpt is not set: give ckpt=runs/NAME/DATE/checkpoints/best.ckpt")
    data = check_data(cfg.data) if "data" in cfg else None
    # torch takes seconds to import, which --help and a misspelt key should not wait for
    if str(keys["ckpt"]).endswith(".weights"):
        from fer.darknet.torch_engine.export import export as export_darknet

        export_darknet(keys, data, check_darknet(cfg.darknet))
        return
    from fer.deployment.export import export

    export(keys, data)


def main() -> None:
    launch(job, "export")
