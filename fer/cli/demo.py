"""Try a checkpoint in the browser: ``fer demo --help``."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from fer.cli.launch import launch
from fer.config.checks import check_faces, check_keys
from fer.config.schemas import Demo
from fer.errors import InputError


def job(cfg: DictConfig, _: Path) -> None:
    keys, faces = check_keys(cfg, Demo), check_faces(cfg.faces)
    if not keys["ckpt"]:
        raise InputError("ckpt is not set: give ckpt=NAME, FILE.ckpt, FILE.safetensors or FILE.onnx")
    # OpenCV takes a while to import, which --help and a misspelt key should not wait for
    from fer.demo.server import run

    run(keys["ckpt"], faces, keys["device"], keys["port"], **{key: keys[key] for key in ("margin", "tta", "classes")})


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    launch(job, "demo", words)
